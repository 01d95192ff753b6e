//! Parts and their markers.

use super::Revision;
use crate::job::Class;
use crate::sandbox::protocol::{AnalyseReport, AudioReport, CalibrateReport, EncodeReport};
use crate::usage::Usage;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One unit of queue work. Written `probe`, `analyse/00012`, `survey`, `calibrate/00012`, `decide`, `encode/00012`,
/// `audio/00000`, `adjust`, `verify`, `repair/00012`, `package`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PartId {
    Probe,
    /// One chunk, known before it is encoded; where content decides.
    Analyse(u32),
    /// What to calibrate, by what analysis found of all chunks.
    Survey,
    /// The beginning of one chunk with the final settings.
    Calibrate(u32),
    /// Rungs and qualities, by what was found of all chunks.
    Decide,
    /// One chunk, all its rungs.
    Encode(u32),
    /// One audio rendition over the whole source.
    Audio(u32),
    /// Qualities of the other chunks, by what was measured of those encoded first.
    Adjust,
    /// What to encode once more, by what was measured of the top rung.
    Verify,
    /// The top rung of one chunk, once more.
    Repair(u32),
    Package,
}

impl PartId {
    /// The kind, a bounded label for metrics and tables.
    pub fn kind(self) -> &'static str {
        match self {
            PartId::Probe => "probe",
            PartId::Analyse(_) => "analyse",
            PartId::Survey => "survey",
            PartId::Calibrate(_) => "calibrate",
            PartId::Decide => "decide",
            PartId::Encode(_) => "encode",
            PartId::Audio(_) => "audio",
            PartId::Adjust => "adjust",
            PartId::Verify => "verify",
            PartId::Repair(_) => "repair",
            PartId::Package => "package",
        }
    }

    /// Of a kind of which there are many, which.
    pub fn number(self) -> Option<u32> {
        match self {
            PartId::Analyse(n) | PartId::Calibrate(n) | PartId::Encode(n) | PartId::Audio(n) | PartId::Repair(n) => Some(n),
            PartId::Probe | PartId::Survey | PartId::Decide | PartId::Adjust | PartId::Verify | PartId::Package => None,
        }
    }

    /// Does it encode video for the customer? Then it is of a class.
    pub fn encodes(self) -> bool {
        matches!(self, PartId::Encode(_) | PartId::Repair(_))
    }

    /// The class that the part needs, of a job whose video is encoded in `encoders`.
    pub fn class(self, encoders: Class) -> Class {
        if self.encodes() { encoders } else { Class::Cpu }
    }

    /// The revision of the plan that the part makes: it runs no child, and running it again changes nothing.
    pub fn revises(self) -> Option<Revision> {
        match self {
            PartId::Survey => Some(Revision::Surveyed),
            PartId::Decide => Some(Revision::Decided),
            PartId::Adjust => Some(Revision::Adjusted),
            PartId::Verify => Some(Revision::Verified),
            _ => None,
        }
    }

    /// The revision of the plan that the part works by at least; which chunks are pilots the plan knows ([`super::Plan::works_by`]).
    pub fn works_by(self) -> Revision {
        match self {
            PartId::Probe | PartId::Analyse(_) | PartId::Survey => Revision::Draft,
            PartId::Calibrate(_) | PartId::Decide => Revision::Surveyed,
            PartId::Encode(_) | PartId::Audio(_) | PartId::Adjust => Revision::Decided,
            PartId::Verify => Revision::Adjusted,
            PartId::Repair(_) | PartId::Package => Revision::Verified,
        }
    }
}

impl fmt::Display for PartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number() {
            Some(n) => write!(f, "{}/{n:05}", self.kind()),
            None => f.write_str(self.kind()),
        }
    }
}

impl FromStr for PartId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |n: &str| n.parse::<u32>().map_err(|_| format!("'{text}' is not a part"));
        match text.split_once('/') {
            None if text == "probe" => Ok(PartId::Probe),
            None if text == "survey" => Ok(PartId::Survey),
            None if text == "decide" => Ok(PartId::Decide),
            None if text == "adjust" => Ok(PartId::Adjust),
            None if text == "verify" => Ok(PartId::Verify),
            None if text == "package" => Ok(PartId::Package),
            Some(("analyse", n)) => number(n).map(PartId::Analyse),
            Some(("calibrate", n)) => number(n).map(PartId::Calibrate),
            Some(("repair", n)) => number(n).map(PartId::Repair),
            Some(("encode", n)) => number(n).map(PartId::Encode),
            Some(("audio", n)) => number(n).map(PartId::Audio),
            _ => Err(format!("'{text}' is not a part")),
        }
    }
}

impl TryFrom<String> for PartId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<PartId> for String {
    fn from(part: PartId) -> String {
        part.to_string()
    }
}

/// Says that a part is done, and names what it wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Marker {
    pub part: PartId,
    /// Objects under the job's output URI.
    pub objects: Vec<Object>,
    pub result: PartResult,
    /// Which attempt this was, from 1.
    pub attempt: u32,
    pub wall_s: f64,
    /// User and system time of the child, seconds.
    pub cpu_s: f64,
    /// Largest resident size of the child, bytes.
    pub peak_bytes: u64,
}

/// One object written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Path under the output URI: `1080p/00012.3fa9c1d2.m4s`.
    pub path: String,
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

/// What a part found out. The files in the reports are named by [`Object::path`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum PartResult {
    /// `probe.json` and `plan.json` stand in the work store.
    Probe,
    Analyse(AnalyseReport),
    /// The next revision of the plan stands in the work store.
    Revise,
    Calibrate(CalibrateReport),
    /// Of a chunk, or of a repair its top rung alone.
    Encode(EncodeReport),
    Audio(AudioReport),
    Package {
        /// What all parts come to, so that nobody has to read their markers again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: [PartId; 11] = [
        PartId::Probe,
        PartId::Analyse(7),
        PartId::Survey,
        PartId::Calibrate(3),
        PartId::Decide,
        PartId::Encode(12),
        PartId::Audio(0),
        PartId::Adjust,
        PartId::Verify,
        PartId::Repair(5),
        PartId::Package,
    ];

    #[test]
    fn a_part_reads_as_it_is_written() {
        for part in PARTS {
            assert_eq!(part.to_string().parse::<PartId>().unwrap(), part);
        }
        assert_eq!(PartId::Encode(12).to_string(), "encode/00012");
        for text in ["", "encode", "encode/x", "encode/-1", "probe/1", "decide/0", "analyse", "images"] {
            assert!(text.parse::<PartId>().is_err(), "{text}");
        }
    }
}
