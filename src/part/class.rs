//! By which encoders a job's video is encoded: said when it is accepted, and changed at most once, to software.
//!
//! All chunks of a job are encoded in one class, for they share init segments. What is in force is read from two objects, of
//! which the second only ever appears: `job.json` names the class that the job begins with, and once there is
//! `fallback.json` it is software for ever. So there is nothing for two writers to disagree on. Each class has its own
//! markers of encoded chunks: a job that falls back starts over under its own, and what a device made is never mixed in.
//! Everything else (probe, sound, packaging) is of no class and stays.

use super::accepted::Accepted;
use super::error::PartError;
use super::next;
use super::tools::{PartMessage, Tools};
use crate::broker::{Broker, BrokerError, Queue};
use crate::event::{ClassState, Fact};
use crate::job::{Class, ClassChoice, JobId, Lane};
use crate::plan::marker::PartId;
use crate::reconcile::classes;
use crate::store::key::Key;
use crate::store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// `[devices]`: what a fleet has beside software encoders, the same for all its programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRules {
    /// Classes of which some worker has devices, the most wanted first.
    pub classes: Vec<Class>,
    /// How long chunks may wait for a device, seconds, before their job is encoded in software after all.
    pub wait_s: u64,
    /// How long a device that failed is left alone before it is tried again, seconds; doubles with each further failure.
    pub retest_first_s: u64,
    pub retest_longest_s: u64,
}

impl DeviceRules {
    /// How long a device is left alone after so many failures without a success between them, from 1.
    pub fn retest_after(&self, failures: u32) -> Duration {
        let factor = 1_u64 << failures.saturating_sub(1).min(20);
        Duration::from_secs(self.retest_first_s.saturating_mul(factor).min(self.retest_longest_s))
    }

    /// # Errors
    /// The field, and what is wrong with it.
    pub fn check(&self) -> Result<(), (String, String)> {
        if let Some(class) = self.classes.iter().find(|class| !class.is_device()) {
            return Err(("classes".into(), format!("'{class}' is no class of devices: it is what every fleet has")));
        }
        if self.classes.iter().collect::<BTreeSet<_>>().len() < self.classes.len() {
            return Err(("classes".into(), "names a class twice".into()));
        }
        if self.retest_longest_s < self.retest_first_s {
            return Err(("retest_longest_s".into(), format!("is less than retest_first_s, {}", self.retest_first_s)));
        }
        Ok(())
    }
}

/// `fallback.json`: the job is encoded in software.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FallBack {
    pub from: Class,
    pub reason: String,
}

/// The class in which a job's video is encoded now.
///
/// # Errors
/// The work store cannot be asked.
pub async fn in_force(work: &Store, accepted: &Accepted) -> Result<Class, StoreError> {
    if !accepted.class.is_device() || work.size(&Key::fallback(&accepted.id)).await?.is_some() {
        return Ok(Class::Cpu);
    }
    Ok(accepted.class)
}

/// The parts that have their marker, with the chunks that were encoded in this class and no others.
///
/// # Errors
/// The work store cannot be asked.
pub async fn done(work: &Store, job: &JobId, class: Class) -> Result<BTreeSet<PartId>, StoreError> {
    let of = |paths: Vec<String>, class| -> BTreeSet<PartId> {
        paths.iter().filter_map(|path| Key::part_of_marker_in(job, class, path)).collect()
    };
    let software = of(work.list(&Key::markers(job)).await?, Class::Cpu);
    if !class.is_device() {
        return Ok(software);
    }
    Ok(classes::counted(software, of(work.list(&Key::markers_in(job, class)).await?, class), class))
}

/// Asks for parts of a job whose video is encoded in `class`.
///
/// # Errors
/// The broker did not take them all.
pub async fn publish(broker: &dyn Broker, job: &JobId, lane: Lane, class: Class, parts: &[PartId]) -> Result<(), BrokerError> {
    for part in parts {
        let message = PartMessage { job: job.clone(), part: *part };
        let body = serde_json::to_vec(&message).expect("a part message is plain data");
        broker.publish(Queue::Work(part.class(class), lane), body).await?;
    }
    Ok(())
}

/// May the job be encoded in software instead?
pub fn may_fall_back(accepted: &Accepted) -> bool {
    accepted.class.is_device() && accepted.job.class == ClassChoice::Auto
}

/// From now on the job is encoded in software.
///
/// # Errors
/// It could not be written, and nothing has changed.
pub async fn write_fall_back(work: &Store, accepted: &Accepted, reason: &str) -> Result<(), StoreError> {
    let fall_back = FallBack { from: accepted.class, reason: reason.into() };
    tracing::warn!(job = %accepted.id, from = %accepted.class, reason, "the job is encoded in software after all");
    work.put_json(&Key::fallback(&accepted.id), &fall_back).await
}

/// A part failed on devices as often as it may: its job is encoded in software, where it may be. False: it may not.
///
/// # Errors
/// It could not be written or asked for; do it again.
pub async fn give_up_device(tools: &Tools, job: &JobId, reason: &str) -> Result<bool, PartError> {
    let accepted = tools.accepted(job).await?;
    if !may_fall_back(&accepted) {
        return Ok(false);
    }
    if in_force(tools.stores.work(), &accepted).await?.is_device() {
        write_fall_back(tools.stores.work(), &accepted, reason).await?;
    }
    tell(tools, &accepted, ClassState::FellBack).await?;
    next::resume(tools, &accepted).await?;
    Ok(true)
}

/// Tells in which class the job is encoded.
pub(super) async fn tell(tools: &Tools, accepted: &Accepted, state: ClassState) -> Result<(), PartError> {
    let class = if state == ClassState::FellBack { Class::Cpu } else { accepted.class };
    Ok(tools.tell(&accepted.id, &accepted.job.tenant, Fact::JobClass { class, state }).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Job;
    use crate::store::SourceIdentity;

    fn accepted(choice: &str, devices: &[Class]) -> Accepted {
        let text = format!(r#"{{"input":{{"uri":"a"}},"output":{{"uri":"o"}},"class":"{choice}"}}"#);
        let source = SourceIdentity { bytes: 5, modified_ms: 7, etag: None };
        Accepted::new(Job::parse(text.as_bytes()).unwrap(), source).unwrap().on(devices).unwrap()
    }

    #[test]
    fn only_a_job_that_leaves_it_open_falls_back() {
        assert!(may_fall_back(&accepted("auto", &[Class::Vaapi])));
        assert!(!may_fall_back(&accepted("gpu", &[Class::Vaapi])));
        assert!(!may_fall_back(&accepted("auto", &[])), "it is encoded in software already");
    }

    #[test]
    fn a_device_that_keeps_failing_is_left_alone_longer_and_longer_up_to_a_limit() {
        let rules = DeviceRules { retest_first_s: 30, retest_longest_s: 100, ..DeviceRules::default() };
        let waits: Vec<u64> = [1, 2, 3, u32::MAX].iter().map(|n| rules.retest_after(*n).as_secs()).collect();
        assert_eq!(waits, [30, 60, 100, 100]);
    }
}
