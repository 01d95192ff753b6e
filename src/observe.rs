//! What is worth counting, said where it happens, to whoever counts.
//!
//! Edges, stages and roles say what they see through the [`Observer`] that they were handed. Whether anybody counts is the
//! process's business (`telemetry`); by default [`nobody`] does. What is said is bounded, so that labels can be made of it:
//! kinds, outcomes, classes, lanes; never a job, a tenant, a store's name or a URL, which are fields of the log.

use crate::sandbox::protocol::JailLevel;
use crate::trace::{Begun, Span, WholeJob};
use crate::usage::Usage;
use std::sync::Arc;
use std::time::Duration;

/// The media type of an [`Exposition`] (Prometheus, "Exposition formats", text-based format).
pub const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All that was counted so far, as text for `/metrics`.
pub type Exposition = Arc<dyn Fn() -> String + Send + Sync>;

/// A queue by the bounded parts of its name; what it has not is empty. Partitions of one kind are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueLabels {
    /// `jobs`, `work`, `events`, `callbacks` or `dead`.
    pub queue: &'static str,
    pub class: &'static str,
    pub lane: &'static str,
}

/// How something that is published was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// The broker has it.
    Confirmed,
    /// No queue took it.
    Returned,
    /// The queue did not take it: it is full, or not well.
    Refused,
    /// The connection was lost over it, or no answer came.
    Failed,
}

impl Publish {
    pub const ALL: [Publish; 4] = [Publish::Confirmed, Publish::Returned, Publish::Refused, Publish::Failed];

    pub fn name(self) -> &'static str {
        match self {
            Publish::Confirmed => "confirmed",
            Publish::Returned => "returned",
            Publish::Refused => "refused",
            Publish::Failed => "failed",
        }
    }
}

/// How the work on one delivery of a part ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartEnd {
    /// It is done, by this delivery or an earlier one.
    Completed,
    /// It failed and is tried again.
    Retried,
    /// It cannot be made, and its job ends: the customer's doing.
    Refused,
    /// It failed for good, and its job ends: ours.
    Failed,
    /// Nobody could work on its message.
    Buried,
    /// It went back untouched: its job had ended, or the worker was leaving.
    GivenBack,
}

impl PartEnd {
    pub const ALL: [PartEnd; 6] =
        [PartEnd::Completed, PartEnd::Retried, PartEnd::Refused, PartEnd::Failed, PartEnd::Buried, PartEnd::GivenBack];

    pub fn name(self) -> &'static str {
        match self {
            PartEnd::Completed => "completed",
            PartEnd::Retried => "retried",
            PartEnd::Refused => "refused",
            PartEnd::Failed => "failed",
            PartEnd::Buried => "buried",
            PartEnd::GivenBack => "given_back",
        }
    }
}

/// How one attempt to deliver a callback ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackEnd {
    Arrived,
    /// It is tried again.
    Failed,
    /// It failed for the last time, and is kept for a replay.
    GivenUp,
    /// The endpoint wants no more.
    Disabled,
}

impl CallbackEnd {
    pub const ALL: [CallbackEnd; 4] = [CallbackEnd::Arrived, CallbackEnd::Failed, CallbackEnd::GivenUp, CallbackEnd::Disabled];

    pub fn name(self) -> &'static str {
        match self {
            CallbackEnd::Arrived => "arrived",
            CallbackEnd::Failed => "failed",
            CallbackEnd::GivenUp => "given_up",
            CallbackEnd::Disabled => "disabled",
        }
    }
}

/// A child that has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChildEnd {
    /// `probe`, `encode`, ...
    pub task: &'static str,
    /// One of [`crate::sandbox::outcome::Outcome::label`]'s words.
    pub outcome: &'static str,
    /// Absent when it did not get that far.
    pub jail: Option<JailLevel>,
    pub wall: Duration,
    pub cpu: Duration,
    pub peak_bytes: u64,
}

/// One rendition of one chunk, encoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Encoded<'a> {
    /// As it is billed: `h265`, `h264`, `av1`.
    pub codec: &'a str,
    /// Of the picture, pixels.
    pub height: u32,
    pub frames: u64,
    /// Length of what was made, seconds.
    pub media_s: f64,
}

/// One rendition of a job that can be played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Playable<'a> {
    /// RFC 6381.
    pub codecs: &'a str,
    /// Of the picture, pixels; sound has none.
    pub height: Option<u32>,
    pub bytes: u64,
    pub media_s: f64,
}

/// The end of a job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JobEnd<'a> {
    /// One of [`crate::event::State::name`]'s words.
    pub state: &'static str,
    /// From its acceptance; absent of what was never accepted.
    pub took: Option<Duration>,
    pub usage: Option<&'a Usage>,
}

/// What a chunk was planned to be worth, and what it turned out to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged<'a> {
    /// One of the built-in presets.
    pub preset: &'a str,
    /// Of the rung that was measured, pixels.
    pub height: u32,
    /// VMAF-NEG at display size.
    pub planned: f64,
    pub measured: f64,
}

/// Is told what happens. Must not wait: it is called in the middle of things.
#[allow(unused_variables, reason = "by default nobody counts")]
pub trait Observer: Send + Sync {
    /// A connection to the broker is there (`publish` or `consume`).
    fn broker_connected(&self, connection: &'static str) {}
    fn broker_lost(&self, connection: &'static str) {}
    fn published(&self, answer: Publish) {}

    /// One request to a store, tries again apart, was answered; `outcome` is `ok`, `missing`, `denied`, `malformed` or
    /// `failed`.
    fn stored(&self, operation: &'static str, outcome: &'static str, took: Duration) {}
    fn store_read(&self, bytes: u64) {}
    fn store_written(&self, bytes: u64) {}

    /// Children of a class that may run at once.
    fn slots(&self, class: &'static str, total: usize) {}
    fn slot_taken(&self, class: &'static str) {}
    fn slot_freed(&self, class: &'static str) {}
    /// An encoder, by libavcodec's name, passed its self-test in this class, or did not.
    fn encoder(&self, encoder: &str, class: &'static str, is_available: bool) {}
    /// A device failed at a chunk, and is left alone until it is proved again.
    fn device_quarantined(&self, class: &'static str) {}
    /// Nothing further is taken.
    fn draining(&self) {}
    /// A delivery was taken off a queue, in which it had waited so long since it was due, where that is known.
    fn taken(&self, queue: QueueLabels, waited: Option<Duration>) {}
    fn part_started(&self, kind: &'static str) {}
    fn part_ended(&self, kind: &'static str, end: PartEnd, took: Duration) {}
    fn child_ended(&self, child: &ChildEnd) {}
    fn rung_encoded(&self, encoded: &Encoded<'_>) {}
    /// The top rung of a chunk was encoded as it was planned, and measured.
    fn judged(&self, judged: &Judged<'_>) {}
    /// A chunk of the source was encoded for all its rungs; its length, seconds.
    fn chunk_encoded(&self, source_s: f64) {}
    /// Bytes in the worker's scratch folder, and bytes that its disk still has.
    fn scratch(&self, used_bytes: u64, free_bytes: u64) {}
    /// Is there too little room to start a part?
    fn scratch_short(&self, is_short: bool) {}

    /// Messages that are ready in a queue; absent when it could not be asked.
    fn waiting(&self, queue: QueueLabels, messages: Option<u64>) {}
    /// Jobs that have not ended.
    fn open_jobs(&self, jobs: u64) {}
    /// An event of this type was recorded.
    fn recorded(&self, kind: &str) {}
    /// The first rendition of a job can be played, so long after its acceptance.
    fn first_playable(&self, after: Duration) {}
    fn playable(&self, rendition: &Playable<'_>) {}
    fn job_ended(&self, end: &JobEnd<'_>) {}
    /// Nothing was heard of a job for long, and its parts were asked for again.
    fn job_stalled(&self) {}
    /// One request was answered; `route` is the path's pattern.
    fn answered(&self, route: &str, status: u16, took: Duration) {}

    fn callback(&self, end: CallbackEnd, took: Duration) {}
    /// An event arrived at an endpoint so long after it was told.
    fn callback_arrived(&self, after: Duration) {}
    /// The event that waits longest for its endpoint among those that were tried here was told so long ago.
    fn oldest_callback(&self, age: Duration) {}

    /// Something begins; dropped, the span has ended. Where nothing is recorded, what came goes on as it came.
    fn span(&self, begun: &Begun<'_>) -> Span {
        begun.unrecorded()
    }
    /// Are spans recorded?
    fn traces(&self) -> bool {
        false
    }
    /// A job has ended.
    fn whole_job(&self, whole: &WholeJob<'_>) {}
}

struct Nobody;

impl Observer for Nobody {}

/// Counts nothing.
pub fn nobody() -> Arc<dyn Observer> {
    Arc::new(Nobody)
}
