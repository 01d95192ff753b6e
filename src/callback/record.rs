//! What a delivery reads of a recorded event. The body is sent byte for byte as it lies in the bucket, so what is signed
//! today and what is replayed in a year are the same.

use crate::job::JobId;
use serde::Deserialize;
use serde_json::Value;

/// The few fields that decide about a delivery.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Told {
    /// The same however often it is delivered.
    pub id: String,
    pub job: JobId,
    pub tenant: String,
    /// From 1, without gaps within a job.
    pub sequence: u64,
    /// RFC 3339.
    pub at: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub data: Value,
}
