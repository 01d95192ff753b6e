//! What has been told of a job already, exactly, in little memory: a bit for each part.

use super::facts::Fact;
use crate::plan::marker::PartId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Parts of one kind that are told apart: ten hours in chunks of six seconds are six thousand.
const MOST_PARTS: u32 = 1 << 20;
/// Parts whose failed attempts are told of, one by one; what fails beyond that says nothing new.
const MOST_FAILING_PARTS: usize = 1024;
/// Attempts of one part that are told apart.
const MOST_ATTEMPTS: u32 = 64;
/// Different rejections that one id may collect.
const MOST_REJECTIONS: usize = 64;

/// The facts that have been taken in, as far as a [`super::Status`] cannot tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// By the kind of part, their numbers.
    #[serde(default)]
    done: BTreeMap<String, Bits>,
    /// A bit for each attempt.
    #[serde(default)]
    failed: BTreeMap<PartId, u64>,
    /// Identities of the rejections told.
    #[serde(default)]
    rejections: BTreeSet<String>,
    /// The last thing told of a tenant.
    #[serde(default)]
    tenant_ms: u64,
}

impl Seen {
    /// Is this told for the first time? From now on it is not. Facts of which a status itself knows whether they are
    /// new are let through.
    pub fn admit(&mut self, fact: &Fact) -> bool {
        match fact {
            Fact::PartCompleted { part, .. } => {
                self.done.entry(part.kind().into()).or_default().set(part.number().unwrap_or_default())
            }
            Fact::PartFailed { part, attempt, .. } => self.admit_failed(*part, *attempt),
            Fact::JobRejected { .. } => self.rejections.len() < MOST_REJECTIONS && self.rejections.insert(fact.identity()),
            Fact::TenantFrozen { since_ms, .. } | Fact::TenantUnfrozen { since_ms, .. } => {
                let is_new = *since_ms > self.tenant_ms;
                self.tenant_ms = self.tenant_ms.max(*since_ms);
                is_new
            }
            Fact::Progress { .. } => false,
            _ => true,
        }
    }

    fn admit_failed(&mut self, part: PartId, attempt: u32) -> bool {
        if attempt >= MOST_ATTEMPTS || self.failed.len() >= MOST_FAILING_PARTS && !self.failed.contains_key(&part) {
            return false;
        }
        let attempts = self.failed.entry(part).or_default();
        let before = *attempts;
        *attempts |= 1 << attempt;
        before != *attempts
    }
}

/// A set of small numbers, written as hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Bits(Vec<u8>);

impl Bits {
    /// Was it not in the set? Numbers beyond the limit are never new.
    fn set(&mut self, n: u32) -> bool {
        if n >= MOST_PARTS {
            return false;
        }
        let (byte, bit) = ((n / 8) as usize, 1 << (n % 8));
        if self.0.len() <= byte {
            self.0.resize(byte + 1, 0);
        }
        let is_new = self.0[byte] & bit == 0;
        self.0[byte] |= bit;
        is_new
    }
}

impl TryFrom<String> for Bits {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        hex::decode(text).map(Bits).map_err(|e| e.to_string())
    }
}

impl From<Bits> for String {
    fn from(bits: Bits) -> String {
        hex::encode(bits.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(part: PartId) -> Fact {
        Fact::PartCompleted { part, attempt: 1, frames: 1, wall_s: 0.0, cpu_s: 0.0 }
    }

    fn failed(part: PartId, attempt: u32) -> Fact {
        Fact::PartFailed { part, attempt, reason: "died".into(), again: true }
    }

    #[test]
    fn each_part_and_each_attempt_is_new_once_also_after_it_was_written_and_read() {
        let mut seen = Seen::default();
        let early = [PartId::Probe, PartId::Analyse(0), PartId::Survey, PartId::Calibrate(2), PartId::Decide];
        let late = [PartId::Audio(0), PartId::Adjust, PartId::Verify, PartId::Repair(9), PartId::Package];
        let parts = [&early[..], &[PartId::Encode(0), PartId::Encode(6_001)], &late].concat();
        let facts: Vec<Fact> = parts.iter().flat_map(|part| [done(*part), failed(*part, 1), failed(*part, 2)]).collect();
        assert!(facts.iter().all(|fact| seen.admit(fact)));
        let text = serde_json::to_string(&seen).unwrap();
        assert!(text.len() < 2048, "{}", text.len());
        let mut read: Seen = serde_json::from_str(&text).unwrap();
        assert_eq!(read, seen);
        assert!(!facts.iter().any(|fact| read.admit(fact)));
        assert!(read.admit(&done(PartId::Encode(1))));
    }

    #[test]
    fn nothing_told_makes_it_grow_without_end() {
        let mut seen = Seen::default();
        assert!(!seen.admit(&done(PartId::Encode(MOST_PARTS))));
        assert!(!seen.admit(&failed(PartId::Probe, MOST_ATTEMPTS)));
        let told = (0..5_000).filter(|n| seen.admit(&failed(PartId::Encode(*n), 1))).count();
        assert_eq!(told, MOST_FAILING_PARTS);
        assert!(seen.admit(&failed(PartId::Encode(0), 2)), "a part that is known may go on to fail");
        let reject = |n: u32| Fact::JobRejected { path: n.to_string(), reason: String::new(), requested_id: None };
        assert_eq!((0..200).filter(|n| seen.admit(&reject(*n))).count(), MOST_REJECTIONS);
    }
}
