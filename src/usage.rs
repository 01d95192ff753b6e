//! What a job used: the record it is billed by.

use serde::{Deserialize, Serialize};

/// What one job, or several together, used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Output made, by what it costs.
    #[serde(default)]
    pub output: Vec<UsageLine>,
    /// Video frames of all rungs.
    pub frames: u64,
    /// CPU time of the parts that count, seconds.
    pub cpu_s: f64,
    /// CPU time of attempts that failed or were repeated, seconds.
    pub wasted_cpu_s: f64,
    /// Attempts beyond the first, of all parts.
    pub wasted_attempts: u64,
    pub parts: u64,
    pub source_bytes: u64,
    pub output_bytes: u64,
}

/// Seconds of output of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UsageLine {
    /// `h264`, `hevc`, `av1`, `aac`, ...
    pub codec: String,
    /// Resolution class: `sd`, `hd`, ..., or `audio`.
    pub class: String,
    /// What was done beyond the plain encode; empty when nothing was.
    pub feature: String,
    pub seconds: f64,
}
