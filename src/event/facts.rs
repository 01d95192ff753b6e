//! What workers tell.

use super::state::State;
use crate::job::{Class, JobId};
use crate::plan::marker::PartId;
use crate::plan::time::Rational;
use crate::usage::Usage;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;

/// Version of the event document.
pub const VERSION: u32 = 1;

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub version: u32,
    /// The same for every telling of the same fact.
    pub id: String,
    pub job: JobId,
    pub tenant: String,
    /// Milliseconds since 1970, by the clock of the worker that tells.
    pub at_ms: u64,
    #[serde(flatten)]
    pub fact: Fact,
}

impl Event {
    /// The fact as told at `at_ms`.
    pub fn new(job: JobId, tenant: String, at_ms: u64, fact: Fact) -> Self {
        Self { version: VERSION, id: format!("{job}/{}", fact.identity()), job, tenant, at_ms, fact }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Fact {
    #[serde(rename = "job.accepted")]
    JobAccepted,
    #[serde(rename = "job.rejected")]
    JobRejected {
        /// Dotted path of the field that is wrong.
        path: String,
        reason: String,
        /// The id that the document asked for, where that is not the one this is told under.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        requested_id: Option<String>,
    },
    #[serde(rename = "job.started")]
    JobStarted,
    /// By which encoders a job is encoded that may be encoded on a device. Told of no other.
    #[serde(rename = "job.class")]
    JobClass {
        class: Class,
        #[serde(flatten)]
        state: ClassState,
    },
    #[serde(rename = "stage.started")]
    StageStarted {
        stage: Stage,
        parts: u64,
        /// Frames the stage is expected to make, all rungs together; 0 when it makes none.
        frames: u64,
        /// Length of the video, seconds; 0 when there is none.
        media_s: f64,
    },
    #[serde(rename = "stage.completed")]
    StageCompleted { stage: Stage },
    #[serde(rename = "part.completed")]
    PartCompleted {
        part: PartId,
        attempt: u32,
        /// Frames made, all rungs together.
        frames: u64,
        wall_s: f64,
        cpu_s: f64,
    },
    #[serde(rename = "part.failed")]
    PartFailed {
        part: PartId,
        attempt: u32,
        reason: String,
        /// Will it be tried again?
        again: bool,
    },
    /// One rendition can be played.
    #[serde(rename = "rendition.completed")]
    RenditionCompleted {
        rendition: String,
        /// Path of its playlist, or of its file, under the output URI.
        playlist: String,
        /// Where that can be read: by its public URL where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// What it measures.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        media: Option<RenditionMedia>,
    },
    /// Frames of one part so far, all rungs together. Told on the progress topic only, and may be lost.
    #[serde(rename = "progress")]
    Progress { part: PartId, frames: u64 },
    #[serde(rename = "job.completed")]
    JobCompleted {
        /// Path of the report under the output URI.
        report: String,
        /// Where manifests, files and the report can be read, by their paths under the output URI.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        outputs: BTreeMap<String, String>,
        #[serde(default)]
        usage: Usage,
    },
    #[serde(rename = "job.failed")]
    JobFailed {
        failure: Failure,
        #[serde(default)]
        usage: Usage,
    },
    #[serde(rename = "job.canceled")]
    JobCanceled {
        #[serde(default)]
        usage: Usage,
    },
    /// Told in the tenant's own stream: [`tenant_stream`].
    #[serde(rename = "tenant.frozen")]
    TenantFrozen {
        reason: String,
        /// When it was decided, milliseconds since 1970; tells one freeze from the next.
        since_ms: u64,
    },
    #[serde(rename = "tenant.unfrozen")]
    TenantUnfrozen {
        since_ms: u64,
        /// Why, where whoever did it said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// How a job stands with the devices that may encode it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ClassState {
    /// Its chunks go to devices of this class.
    Chosen,
    /// They wait, and no device has taken any for long.
    Waiting {
        /// When one was last heard of, milliseconds since 1970.
        since_ms: u64,
    },
    /// No device took them, or none could encode them: it starts over in software.
    FellBack,
}

impl ClassState {
    pub fn name(&self) -> &'static str {
        match self {
            ClassState::Chosen => "chosen",
            ClassState::Waiting { .. } => "waiting",
            ClassState::FellBack => "fell_back",
        }
    }
}

impl Fact {
    /// What makes this fact this one: two tellings of one fact have it in common.
    pub fn identity(&self) -> String {
        let kind = self.kind();
        match self {
            Fact::JobRejected { path, reason, .. } => format!("{kind}/{}", digits(&format!("{path}\n{reason}"), 8)),
            Fact::JobClass { class, state } => match state {
                ClassState::Waiting { since_ms } => format!("{kind}/{class}/{}/{since_ms}", state.name()),
                ClassState::Chosen | ClassState::FellBack => format!("{kind}/{class}/{}", state.name()),
            },
            Fact::StageStarted { stage, .. } | Fact::StageCompleted { stage } => format!("{kind}/{stage}"),
            Fact::PartCompleted { part, .. } => format!("{kind}/{part}"),
            Fact::PartFailed { part, attempt, .. } => format!("{kind}/{part}/{attempt}"),
            Fact::RenditionCompleted { rendition, .. } => format!("{kind}/{rendition}"),
            Fact::Progress { part, frames } => format!("{kind}/{part}/{frames}"),
            Fact::TenantFrozen { since_ms, .. } | Fact::TenantUnfrozen { since_ms, .. } => format!("{kind}/{since_ms}"),
            Fact::JobAccepted
            | Fact::JobStarted
            | Fact::JobCompleted { .. }
            | Fact::JobFailed { .. }
            | Fact::JobCanceled { .. } => kind.into(),
        }
    }

    /// The type of the event, as it is written in the document.
    pub fn kind(&self) -> &'static str {
        match self {
            Fact::JobAccepted => "job.accepted",
            Fact::JobRejected { .. } => "job.rejected",
            Fact::JobStarted => "job.started",
            Fact::JobClass { .. } => "job.class",
            Fact::StageStarted { .. } => "stage.started",
            Fact::StageCompleted { .. } => "stage.completed",
            Fact::PartCompleted { .. } => "part.completed",
            Fact::PartFailed { .. } => "part.failed",
            Fact::RenditionCompleted { .. } => "rendition.completed",
            Fact::Progress { .. } => "progress",
            Fact::JobCompleted { .. } => "job.completed",
            Fact::JobFailed { .. } => "job.failed",
            Fact::JobCanceled { .. } => "job.canceled",
            Fact::TenantFrozen { .. } => "tenant.frozen",
            Fact::TenantUnfrozen { .. } => "tenant.unfrozen",
        }
    }

    /// The state a job is in once this is told, when it tells one.
    pub fn state(&self) -> Option<State> {
        match self {
            Fact::JobAccepted => Some(State::Accepted),
            Fact::JobRejected { .. } => Some(State::Rejected),
            Fact::JobStarted => Some(State::Started),
            Fact::JobCompleted { .. } => Some(State::Completed),
            Fact::JobFailed { .. } => Some(State::Failed),
            Fact::JobCanceled { .. } => Some(State::Canceled),
            _ => None,
        }
    }

    /// What the job used, of a fact that ends one.
    pub fn usage(&self) -> Option<&Usage> {
        match self {
            Fact::JobCompleted { usage, .. } | Fact::JobFailed { usage, .. } | Fact::JobCanceled { usage } => Some(usage),
            _ => None,
        }
    }
}

/// What the ids of streams begin with that are no job's own: rejections without a usable id, and tenants.
const RESERVED: [&str; 2] = ["rejected-", "tenant-"];

/// May no customer choose this id?
pub fn is_reserved(id: &str) -> bool {
    RESERVED.iter().any(|prefix| id.starts_with(prefix))
}

/// The id under which events are told that concern a tenant as a whole.
pub fn tenant_stream(tenant: &str) -> JobId {
    named("tenant-", tenant.as_bytes())
}

/// The id under which a document is rejected that has no id of its own that is free.
pub fn rejected_stream(document: &[u8]) -> JobId {
    named("rejected-", document)
}

fn named(prefix: &str, content: &[u8]) -> JobId {
    let digits = &hex::encode(Sha256::digest(content))[..16];
    JobId::try_from(format!("{prefix}{digits}")).expect("letters, a dash and hexadecimal digits are a job id")
}

/// So many hexadecimal digits of the text's SHA-256.
fn digits(text: &str, count: usize) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))[..count].to_string()
}

/// What a rendition measures, whole numbers all, so that two tellings are the same to the bit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenditionMedia {
    /// RFC 6381.
    pub codecs: String,
    /// Pixels; sound has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Frames a second, of video.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame_rate: Option<Rational>,
    pub duration_ms: u64,
    /// Init segment and media segments.
    pub bytes: u64,
    /// Bits a second.
    pub average_bps: u64,
}

/// A step on the way of a job; one starts when every part of the one before is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Probe,
    /// Only where content decides the ladder, as is `verify`.
    Analyse,
    Encode,
    Verify,
    Package,
}

impl Stage {
    /// The stage this part belongs to.
    pub fn of(part: PartId) -> Self {
        match part {
            PartId::Probe => Stage::Probe,
            PartId::Analyse(_) | PartId::Survey | PartId::Calibrate(_) | PartId::Decide => Stage::Analyse,
            PartId::Encode(_) | PartId::Audio(_) | PartId::Adjust => Stage::Encode,
            PartId::Verify | PartId::Repair(_) => Stage::Verify,
            PartId::Package => Stage::Package,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Probe => "probe",
            Stage::Analyse => "analyse",
            Stage::Encode => "encode",
            Stage::Verify => "verify",
            Stage::Package => "package",
        })
    }
}

/// Why a job has no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    pub cause: Cause,
    /// In words for the customer.
    pub message: String,
}

/// Whose doing it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The job or its preset asks for something that cannot be done.
    Settings,
    /// The source.
    Media,
    /// Ours.
    Internal,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(fact: Fact) -> Event {
        Event::new(JobId::try_from("talk".to_string()).unwrap(), "local".into(), 1_700_000_000_000, fact)
    }

    #[test]
    fn an_event_is_the_document_that_the_version_says() {
        let fact = Fact::PartCompleted { part: PartId::Encode(3), attempt: 1, frames: 100, wall_s: 1.5, cpu_s: 1.25 };
        let text = serde_json::to_string(&event(fact.clone())).unwrap();
        let expected = concat!(
            r#"{"version":1,"id":"talk/part.completed/encode/00003","job":"talk","tenant":"local","#,
            r#""at_ms":1700000000000,"type":"part.completed","part":"encode/00003","attempt":1,"frames":100,"#,
            r#""wall_s":1.5,"cpu_s":1.25}"#
        );
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event(fact));
    }

    #[test]
    fn the_type_in_the_document_is_the_kind_and_the_id_begins_with_it() {
        let usage = Usage::default();
        let failure = Failure { cause: Cause::Media, message: "cut short".into() };
        let rejected = |reason: &str| Fact::JobRejected { path: "lane".into(), reason: reason.into(), requested_id: None };
        let facts = [
            Fact::JobAccepted,
            rejected("fast is none"),
            Fact::JobStarted,
            Fact::StageStarted { stage: Stage::Encode, parts: 3, frames: 9, media_s: 1.0 },
            Fact::StageCompleted { stage: Stage::Probe },
            Fact::PartFailed { part: PartId::Package, attempt: 2, reason: "died".into(), again: true },
            Fact::RenditionCompleted { rendition: "720p".into(), playlist: "720p/index.m3u8".into(), url: None, media: None },
            Fact::Progress { part: PartId::Encode(1), frames: 7 },
            Fact::JobCompleted { report: "report.json".into(), outputs: BTreeMap::new(), usage: usage.clone() },
            Fact::JobFailed { failure, usage: usage.clone() },
            Fact::JobCanceled { usage },
            Fact::TenantFrozen { reason: "unpaid".into(), since_ms: 5 },
            Fact::TenantUnfrozen { since_ms: 6, reason: Some("paid".into()) },
            Fact::TenantUnfrozen { since_ms: 7, reason: None },
        ];
        for fact in facts {
            let told = event(fact.clone());
            let document = serde_json::to_value(&told).unwrap();
            assert_eq!(document["type"], fact.kind());
            assert!(told.id.starts_with(&format!("talk/{}", fact.kind())), "{}", told.id);
            assert_eq!(serde_json::from_value::<Event>(document).unwrap(), told);
        }
        assert_ne!(event(rejected("a")).id, event(rejected("b")).id, "two mistakes under one id are two rejections");
    }

    #[test]
    fn an_end_told_before_usage_was_known_of_is_still_read() {
        let text = r#"{"version":1,"id":"talk/job.canceled","job":"talk","tenant":"t","at_ms":1,"type":"job.canceled"}"#;
        assert_eq!(serde_json::from_str::<Event>(text).unwrap().fact, Fact::JobCanceled { usage: Usage::default() });
    }

    #[test]
    fn streams_that_are_no_jobs_have_ids_that_no_customer_may_choose() {
        for id in [tenant_stream("acme"), rejected_stream(b"no job")] {
            assert!(is_reserved(id.as_str()), "{id}");
        }
        assert!(!is_reserved("talk") && !is_reserved("my-tenant-1"));
        assert_ne!(tenant_stream("a"), tenant_stream("b"));
    }
}
