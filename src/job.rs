//! The request. Parsing is validating: what parses can be planned.

pub mod callback;
mod class;

pub use callback::{Callback, CallbackFormat};
pub use class::{Class, ClassChoice};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest job document accepted, bytes.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// Deepest nesting of lists and objects in one.
pub const MAX_DEPTH: usize = 32;
/// Longest text that is echoed, bytes.
pub const MAX_EXTEND_BYTES: usize = 4096;
/// Entries of the customer's own, and the longest name and value of one, bytes.
pub const MAX_METADATA: usize = 64;
pub const MAX_METADATA_NAME_BYTES: usize = 64;
pub const MAX_METADATA_VALUE_BYTES: usize = 512;
/// Longest path and longest reason of a rejection, bytes: both may quote what was sent.
const MAX_PATH_BYTES: usize = 256;
const MAX_REASON_BYTES: usize = 512;

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
    /// Where its video is encoded.
    #[serde(default, skip_serializing_if = "ClassChoice::is_default")]
    pub class: ClassChoice,
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
    /// Who is told what happens to it, besides the tenant's own endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callbacks: Vec<Callback>,
    /// Sent back with every callback as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extend: Option<String>,
    /// The customer's own words, kept with the job and shown with its status.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
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

/// Is it 1 to 64 of `A-Z a-z 0-9 . _ -`, not starting with a dot? Then it is one safe element of a path.
pub fn is_safe_name(name: &str) -> bool {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.chars().all(safe)
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
        if !is_safe_name(&id) {
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

impl JobError {
    /// The path and the reason, cut to a length that can be stored and sent: both may quote a document of any kind.
    pub fn new(path: impl AsRef<str>, reason: impl AsRef<str>) -> Self {
        Self { path: clip(path.as_ref(), MAX_PATH_BYTES), reason: clip(reason.as_ref(), MAX_REASON_BYTES) }
    }
}

/// On one line, and no longer than `most` bytes.
fn clip(text: &str, most: usize) -> String {
    let mut clipped = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if clipped.len() + c.len_utf8() > most {
            clipped.push_str("...");
            break;
        }
        clipped.push(c);
    }
    clipped
}

impl Job {
    /// Reads a JSON document. What is too long or too deep is refused before it is parsed.
    ///
    /// # Errors
    /// Names the field that is wrong: an unknown one, one of the wrong type, an empty or over-long one.
    pub fn parse(document: &[u8]) -> Result<Self, JobError> {
        let whole = |reason: String| JobError::new(".", reason);
        if document.len() > MAX_DOCUMENT_BYTES {
            return Err(whole(format!("{} bytes; a job has at most {MAX_DOCUMENT_BYTES}", document.len())));
        }
        let text = std::str::from_utf8(document)
            .map_err(|e| whole(format!("is not UTF-8: the byte at {} begins no character", e.valid_up_to())))?;
        if is_too_deep(text) {
            return Err(whole(format!("lists and objects lie more than {MAX_DEPTH} deep in each other")));
        }
        let reader = &mut serde_json::Deserializer::from_str(text);
        let job: Job = serde_path_to_error::deserialize(&mut *reader)
            .map_err(|e| JobError::new(known_path(&e.path().to_string()), e.inner().to_string()))?;
        reader.end().map_err(|e| whole(e.to_string()))?;
        job.check()?;
        Ok(job)
    }

    /// # Errors
    /// Names the field that is wrong.
    fn check(&self) -> Result<(), JobError> {
        if !is_safe_name(&self.tenant) {
            return Err(JobError::new("tenant", "is 1 to 64 letters, digits, '.', '_' or '-', and does not start with '.'"));
        }
        let texts = [("input.uri", &self.input.uri, 4096), ("output.uri", &self.output.uri, 4096), ("preset", &self.preset, 64)];
        for (path, text, most) in texts {
            let reason = if text.trim().is_empty() {
                "is empty".to_string()
            } else if text.len() > most {
                too_long(text.len(), most)
            } else if text.chars().any(char::is_control) {
                "holds a control character".to_string()
            } else {
                continue;
            };
            return Err(JobError::new(path, reason));
        }
        callback::check_all(&self.callbacks).map_err(|(path, reason)| JobError::new(format!("callbacks{path}"), reason))?;
        if let Some(extend) = self.extend.as_ref().filter(|text| text.len() > MAX_EXTEND_BYTES) {
            return Err(JobError::new("extend", too_long(extend.len(), MAX_EXTEND_BYTES)));
        }
        self.check_metadata()
    }

    fn check_metadata(&self) -> Result<(), JobError> {
        let count = self.metadata.len();
        if count > MAX_METADATA {
            return Err(JobError::new("metadata", format!("has {count} entries; at most {MAX_METADATA} are allowed")));
        }
        for (name, value) in &self.metadata {
            let path = format!("metadata.{name}");
            if name.is_empty() || name.len() > MAX_METADATA_NAME_BYTES || name.chars().any(char::is_control) {
                let reason = format!("a name has 1 to {MAX_METADATA_NAME_BYTES} bytes and no control character");
                return Err(JobError::new(path, reason));
            }
            if value.len() > MAX_METADATA_VALUE_BYTES {
                return Err(JobError::new(path, too_long(value.len(), MAX_METADATA_VALUE_BYTES)));
            }
        }
        Ok(())
    }
}

fn too_long(bytes: usize, most: usize) -> String {
    format!("has {bytes} bytes; at most {most} are allowed")
}

/// The path up to where it is known: a document cut short ends in the middle of something.
fn known_path(path: &str) -> &str {
    match path.strip_suffix('?') {
        Some("") => ".",
        Some(known) => known.trim_end_matches('.'),
        None => path,
    }
}

/// Does it nest deeper than [`MAX_DEPTH`]? One pass over the bytes, and no memory.
fn is_too_deep(text: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

/// Whose a document says it is, whatever else is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Where it has an id that can be one.
    pub id: Option<JobId>,
    /// Where it names one; unlike in a [`Job`] there is no default.
    pub tenant: Option<String>,
}

impl Claims {
    /// What can be found out about a document; nothing of one that is no JSON object.
    pub fn of(document: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Named {
            #[serde(default)]
            id: Option<serde_json::Value>,
            #[serde(default)]
            tenant: Option<serde_json::Value>,
        }
        let Ok(text) = std::str::from_utf8(document) else { return Self::default() };
        if is_too_deep(text) {
            return Self::default();
        }
        let Ok(named) = serde_json::from_str::<Named>(text) else { return Self::default() };
        let text = |value: Option<serde_json::Value>| value.and_then(|v| v.as_str().map(str::to_string));
        Self {
            id: text(named.id).and_then(|id| JobId::try_from(id).ok()),
            tenant: text(named.tenant).filter(|name| is_safe_name(name)),
        }
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
        assert_eq!(of(r#"{"input":{"uri":"a"},"output":{"uri":"o"},"class":"nvenc"}"#).path, "class");
        assert!(of(r#"{"id":"../x","input":{"uri":"a"},"output":{"uri":"o"}}"#).reason.contains("job id"));
        assert_eq!(of(r#"{"input":{"uri":"a"},"output":{"uri":"o"}} x"#).path, ".");
    }

    fn with(more: &str) -> Result<Job, JobError> {
        Job::parse(format!(r#"{{"input":{{"uri":"a"}},"output":{{"uri":"o"}}{more}}}"#).as_bytes())
    }

    #[test]
    fn what_customers_want_back_is_kept_and_bounded() {
        let more =
            r#","callbacks":[{"url":"https://a.example/","format":"vod-2017"}],"extend":"{\"n\":1}","metadata":{"show":"7"}"#;
        let job = with(more).unwrap();
        assert_eq!((job.extend.as_deref(), job.metadata["show"].as_str()), (Some(r#"{"n":1}"#), "7"));
        assert_eq!(job.callbacks[0].format, CallbackFormat::Vod2017);
        assert_eq!(Job::parse(&serde_json::to_vec(&job).unwrap()).unwrap(), job);
        let path = |more: &str| with(more).unwrap_err().path;
        assert_eq!(path(&format!(r#","extend":"{}""#, "x".repeat(MAX_EXTEND_BYTES + 1))), "extend");
        assert_eq!(path(&format!(r#","metadata":{{"k":"{}"}}"#, "x".repeat(MAX_METADATA_VALUE_BYTES + 1))), "metadata.k");
        assert_eq!(path(r#","metadata":{"k":7}"#), "metadata.k");
        assert_eq!(path(r#","callbacks":[{"url":"https://a.example/"},{"url":"gopher://x/"}]"#), "callbacks[1].url");
        assert_eq!(path(r#","callbacks":[{"url":"https://a.example/","events":["no"]}]"#), "callbacks[0].events[0]");
        assert_eq!(path(r#","callbacks":[{"url":"https://a.example/","secret":"x"}]"#), "callbacks[0].secret");
        assert_eq!(path(r#","tenant":"../x""#), "tenant");
    }

    #[test]
    fn a_document_that_would_cost_is_refused_before_it_is_parsed_and_its_rejection_is_short() {
        let deep = format!(r#","set":{{"a":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(with(&deep).unwrap_err().reason.contains("deep"), "{:?}", with(&deep));
        assert!(with(&format!(r#","set":{{"a":"{}"}}"#, "[".repeat(1000))).is_ok(), "brackets in a text nest nothing");
        assert!(with(r#","set":{"a":"\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["}"#).is_ok());
        let huge = Job::parse(&vec![b' '; MAX_DOCUMENT_BYTES + 1]).unwrap_err();
        assert_eq!(huge.path, ".");
        let e = with(&format!(r#","{}":1"#, "k\\n".repeat(20_000))).unwrap_err();
        assert!(
            e.path.len() < 300 && e.reason.len() < 600 && !e.to_string().contains('\n'),
            "{} {}",
            e.path.len(),
            e.reason.len()
        );
        for document in [&b"\xff\xfe{\0}\0"[..], b"{\"input\":\"\xc3\x28\"}", b"", b"null", b"[]", b"7", b"{", b"\"job\""] {
            assert_eq!(Job::parse(document).unwrap_err().path, ".", "{document:?}");
        }
    }

    #[test]
    fn a_wrong_document_still_says_whose_it_is() {
        let of = |text: &str| {
            let claims = Claims::of(text.as_bytes());
            (claims.id.map(|id| id.to_string()), claims.tenant)
        };
        let some = |text: &str| Some(text.to_string());
        assert_eq!(of(r#"{"id":"talk","tenant":"acme","input":7,"x":[1]}"#), (some("talk"), some("acme")));
        assert_eq!(of(r#"{"id":"../x","tenant":"../y"}"#), (None, None));
        assert_eq!(of(r#"{"id":7,"tenant":null}"#), (None, None));
        assert_eq!(of("talk"), (None, None));
    }
}
