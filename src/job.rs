//! The request. Parsing is validating: what parses can be planned.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest job document accepted, bytes.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// One customer request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The customer's idempotency key: the same id with the same content is the same job.
    /// Left out, it is derived from the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<JobId>,
    #[serde(default = "default_tenant")]
    pub tenant: String,
    #[serde(default)]
    pub lane: Lane,
    pub input: Input,
    pub output: Output,
    /// Name of a preset: one of the built-in ones, or one in the configured folder.
    #[serde(default = "default_preset")]
    pub preset: String,
    /// Preset fields to change, by dotted path: `{"packaging.segment_s": 4}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    pub on_damage: OnDamage,
}

fn default_tenant() -> String {
    "local".into()
}

fn default_preset() -> String {
    "h265".into()
}

/// What is transcoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// A path, or a URI that resolves to a configured store.
    pub uri: String,
}

/// Where the result goes, and only there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// A folder, or a URI prefix that resolves to a configured store.
    pub uri: String,
}

/// Which queue a job waits in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    High,
    #[default]
    Normal,
    Low,
}

impl Lane {
    pub const ALL: [Lane; 3] = [Lane::High, Lane::Normal, Lane::Low];

    pub fn name(self) -> &'static str {
        match self {
            Lane::High => "high",
            Lane::Normal => "normal",
            Lane::Low => "low",
        }
    }
}

/// What a damaged source does to its job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDamage {
    /// More lost frames than the preset's limit end the job with the first bad timestamp.
    #[default]
    Fail,
    /// Keep what can be decoded; the report says what was lost.
    Salvage,
}

/// A job's name: 1 to 64 of `A-Z a-z 0-9 . _ -`, not starting with a dot, so that it is one safe path element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

impl JobId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for JobId {
    type Error = String;

    fn try_from(id: String) -> Result<Self, String> {
        let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if id.is_empty() || id.len() > 64 || id.starts_with('.') || !id.chars().all(safe) {
            return Err("a job id is 1 to 64 letters, digits, '.', '_' or '-', and does not start with '.'".into());
        }
        Ok(Self(id))
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.0
    }
}

/// Why a document is not a job: the field's path and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct JobError {
    /// Dotted path of the field, `.` for the document as a whole.
    pub path: String,
    pub reason: String,
}

impl Job {
    /// Reads a JSON document.
    ///
    /// # Errors
    /// Names the field that is wrong: an unknown one, one of the wrong type, an empty or over-long one.
    pub fn parse(document: &[u8]) -> Result<Self, JobError> {
        let whole = |reason: String| JobError { path: ".".into(), reason };
        if document.len() > MAX_DOCUMENT_BYTES {
            return Err(whole(format!("{} bytes; a job has at most {MAX_DOCUMENT_BYTES}", document.len())));
        }
        let reader = &mut serde_json::Deserializer::from_slice(document);
        let job: Job = serde_path_to_error::deserialize(&mut *reader)
            .map_err(|e| JobError { path: e.path().to_string(), reason: e.inner().to_string() })?;
        reader.end().map_err(|e| whole(e.to_string()))?;
        job.check()?;
        Ok(job)
    }

    fn check(&self) -> Result<(), JobError> {
        let texts = [
            ("tenant", &self.tenant, 64),
            ("input.uri", &self.input.uri, 4096),
            ("output.uri", &self.output.uri, 4096),
            ("preset", &self.preset, 64),
        ];
        for (path, text, most) in texts {
            let reason = if text.trim().is_empty() {
                "is empty".to_string()
            } else if text.len() > most {
                format!("has {} bytes; at most {most} are allowed", text.len())
            } else if text.chars().any(char::is_control) {
                "holds a control character".to_string()
            } else {
                continue;
            };
            return Err(JobError { path: path.into(), reason });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_job_gets_the_defaults() {
        let job = Job::parse(br#"{"input":{"uri":"talk.mp4"},"output":{"uri":"out/"}}"#).unwrap();
        assert_eq!(
            (job.preset.as_str(), job.lane, job.on_damage, job.tenant.as_str()),
            ("h265", Lane::Normal, OnDamage::Fail, "local")
        );
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let of = |text: &str| Job::parse(text.as_bytes()).unwrap_err();
        let e = of(r#"{"input":{"uri":"a","url":"b"},"output":{"uri":"o"}}"#);
        assert_eq!(e.path, "input.url");
        assert!(e.reason.contains("unknown field"), "{e}");
        assert_eq!(of(r#"{"input":{"uri":7},"output":{"uri":"o"}}"#).path, "input.uri");
        assert_eq!(of(r#"{"input":{"uri":" "},"output":{"uri":"o"}}"#).path, "input.uri");
        assert_eq!(of(r#"{"input":{"uri":"a"},"output":{"uri":"o"},"lane":"fast"}"#).path, "lane");
        assert!(of(r#"{"id":"../x","input":{"uri":"a"},"output":{"uri":"o"}}"#).reason.contains("job id"));
        assert_eq!(of(r#"{"input":{"uri":"a"},"output":{"uri":"o"}} x"#).path, ".");
    }
}
