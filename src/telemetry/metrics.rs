//! Everything that is counted, on a registry that whoever starts the process makes: one [`Metrics`] a process, handed down as
//! an [`Observer`], and shown at `/metrics`.

use super::families::{Common, Jobs, Maker, Work};
use super::traces::Traces;
use crate::broker::{Class, Queue};
use crate::event::State;
use crate::observe::{
    CallbackEnd, ChildEnd, Encoded, Exposition, JobEnd, Judged, Observer, PartEnd, Playable, Publish, QueueLabels,
};
use crate::plan::marker::PartId;
use crate::plan::preset::BUILT_IN;
use crate::sandbox::protocol::JailLevel;
use crate::trace::{Begun, Span, WholeJob};
use crate::usage::Usage;
use crate::usage::metered;
use prometheus::IntCounterVec;
pub use prometheus::Registry;
use prometheus::TextEncoder;
use prometheus::process_collector::ProcessCollector;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The connections of every process.
const CONNECTIONS: [&str; 2] = ["publish", "consume"];
/// Heights that pictures are counted under: the next of these. What is higher is `above`.
const HEIGHTS: [(u32, &str); 10] = [
    (144, "144"),
    (240, "240"),
    (360, "360"),
    (480, "480"),
    (540, "540"),
    (720, "720"),
    (1080, "1080"),
    (1440, "1440"),
    (2160, "2160"),
    (4320, "4320"),
];
/// Codecs by their names in a bill; others are `other`.
const CODECS: [&str; 4] = ["h264", "h265", "av1", "aac"];
/// Encoders by libavcodec's names; others are `other`.
const ENCODERS: [&str; 9] =
    ["libx264", "libx265", "libsvtav1", "h264_nvenc", "hevc_nvenc", "h264_vaapi", "hevc_vaapi", "h264_qsv", "hevc_qsv"];
/// What is asked of stores.
const OPERATIONS: [&str; 7] = ["get", "stat", "list", "put", "upload", "delete", "read"];
/// Parts and tasks of which there is a series from the start: a rate cannot see the first of something.
const PARTS: [PartId; 11] = [
    PartId::Probe,
    PartId::Analyse(0),
    PartId::Survey,
    PartId::Calibrate(0),
    PartId::Decide,
    PartId::Encode(0),
    PartId::Audio(0),
    PartId::Adjust,
    PartId::Verify,
    PartId::Repair(0),
    PartId::Package,
];
const TASKS: [&str; 6] = ["probe", "analyse", "calibrate", "encode", "audio", "remux"];

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Worker,
    Coordinator,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Worker => "worker",
            Role::Coordinator => "coordinator",
        }
    }
}

/// The counters of one process.
pub struct Metrics {
    registry: Registry,
    common: Common,
    work: Work,
    jobs: Jobs,
    /// Whoever records spans, where somebody does.
    traces: OnceLock<Arc<Traces>>,
}

impl Metrics {
    /// Registers the families of a role, and those of the process itself.
    pub fn new(registry: Registry, role: Role) -> Arc<Self> {
        let make = |is_wanted| Maker { registry: &registry, is_wanted };
        let common = Common::new(&make(true));
        let work = Work::new(&make(role == Role::Worker));
        let jobs = Jobs::new(&make(role == Role::Coordinator));
        registry.register(Box::new(ProcessCollector::for_self())).expect("no family is made twice");
        common.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), role.name()]).set(1.0);
        let metrics = Self { registry, common, work, jobs, traces: OnceLock::new() };
        metrics.begin(role);
        Arc::new(metrics)
    }

    /// Spans by how they ended.
    pub fn trace_spans(&self) -> IntCounterVec {
        self.common.trace_spans.clone()
    }

    /// From now on what happens is recorded there, too. The first one counts.
    pub fn record(&self, traces: Arc<Traces>) {
        if self.traces.set(traces).is_err() {
            tracing::debug!("spans are recorded already");
        }
    }

    /// What `/metrics` shows.
    pub fn exposition(self: Arc<Self>) -> Exposition {
        Arc::new(move || {
            let text = TextEncoder::new().encode_to_string(&self.registry.gather());
            text.unwrap_or_else(|error| {
                tracing::error!(%error, "metrics cannot be shown");
                String::new()
            })
        })
    }

    /// Series that are there before anything happens.
    fn begin(&self, role: Role) {
        for connection in CONNECTIONS {
            self.common.broker_connected.with_label_values(&[connection]).set(0);
            self.common.broker_lost.with_label_values(&[connection]).inc_by(0);
        }
        for answer in Publish::ALL {
            self.common.publishes.with_label_values(&[answer.name()]).inc_by(0);
        }
        for outcome in ["exported", "dropped", "failed"] {
            self.common.trace_spans.with_label_values(&[outcome]).inc_by(0);
        }
        for operation in OPERATIONS {
            for outcome in ["ok", "denied", "failed"] {
                self.common.store_operations.with_label_values(&[operation, outcome]).inc_by(0);
            }
        }
        for part in PARTS {
            self.work.parts_started.with_label_values(&[part.kind()]).inc_by(0);
            for end in PartEnd::ALL {
                self.work.parts_ended.with_label_values(&[part.kind(), end.name()]).inc_by(0);
            }
        }
        for task in TASKS {
            for outcome in ["done", "violation"] {
                self.work.children_ended.with_label_values(&[task, outcome]).inc_by(0);
            }
        }
        // Coordinators take what has one consumer at a time, workers everything else.
        for queue in Queue::all().filter(|queue| queue.has_single_consumer() == (role == Role::Coordinator)) {
            let QueueLabels { queue, class, lane } = queue.labels();
            self.common.deliveries.with_label_values(&[queue, class, lane]).inc_by(0);
        }
        for state in State::ALL.into_iter().filter(|state| state.is_terminal()) {
            self.jobs.ended.with_label_values(&[state.name()]).inc_by(0);
        }
        for end in CallbackEnd::ALL {
            self.jobs.callbacks.with_label_values(&[end.name()]).inc_by(0);
        }
        for spent in ["kept", "wasted"] {
            self.jobs.usage_cpu.with_label_values(&[spent]).inc_by(0.0);
        }
    }

    fn used(&self, usage: &Usage) {
        let jobs = &self.jobs;
        for line in &usage.output {
            jobs.usage_output
                .with_label_values(&[known_codec(&line.codec), known_class(&line.class)])
                .inc_by(positive(line.seconds));
        }
        jobs.usage_cpu.with_label_values(&["kept"]).inc_by(positive(usage.cpu_s));
        jobs.usage_cpu.with_label_values(&["wasted"]).inc_by(positive(usage.wasted_cpu_s));
        jobs.usage_source.inc_by(usage.source_bytes);
        jobs.usage_kept.inc_by(usage.output_bytes);
        jobs.usage_wasted.inc_by(usage.wasted_attempts);
    }
}

fn height(lines: u32) -> &'static str {
    HEIGHTS.iter().find(|(standard, _)| lines <= *standard).map_or("above", |(_, name)| *name)
}

fn known_codec(codec: &str) -> &'static str {
    CODECS.into_iter().find(|known| *known == codec).unwrap_or("other")
}

/// Presets are built in; one that is not known is of another version.
fn known_preset(preset: &str) -> &str {
    if BUILT_IN.iter().any(|(known, _)| *known == preset) { preset } else { "other" }
}

fn known_class(class: &str) -> &'static str {
    ["sd", "hd", "fhd", "uhd", "audio"].into_iter().find(|known| *known == class).unwrap_or("other")
}

/// A counter takes nothing else.
fn positive(seconds: f64) -> f64 {
    if seconds.is_finite() { seconds.max(0.0) } else { 0.0 }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn level(jail: JailLevel) -> &'static str {
    match jail {
        JailLevel::Limits => "limits",
        JailLevel::Seccomp => "seccomp",
        JailLevel::Full => "full",
    }
}

impl Observer for Metrics {
    fn broker_connected(&self, connection: &'static str) {
        self.common.broker_connected.with_label_values(&[connection]).set(1);
    }

    fn broker_lost(&self, connection: &'static str) {
        self.common.broker_connected.with_label_values(&[connection]).set(0);
        self.common.broker_lost.with_label_values(&[connection]).inc();
    }

    fn published(&self, answer: Publish) {
        self.common.publishes.with_label_values(&[answer.name()]).inc();
    }

    fn stored(&self, operation: &'static str, outcome: &'static str, took: Duration) {
        self.common.store_operations.with_label_values(&[operation, outcome]).inc();
        self.common.store_seconds.with_label_values(&[operation]).observe(took.as_secs_f64());
    }

    fn store_read(&self, bytes: u64) {
        self.common.store_read.inc_by(bytes);
    }

    fn store_written(&self, bytes: u64) {
        self.common.store_written.inc_by(bytes);
    }

    fn slots(&self, class: &'static str, total: usize) {
        self.work.slots.with_label_values(&[class]).set(gauge(total as u64));
        self.work.slots_busy.with_label_values(&[class]).set(0);
        if class != Class::Cpu.name() {
            self.work.quarantines.with_label_values(&[class]).inc_by(0);
        }
    }

    fn slot_taken(&self, class: &'static str) {
        self.work.slots_busy.with_label_values(&[class]).inc();
    }

    fn slot_freed(&self, class: &'static str) {
        self.work.slots_busy.with_label_values(&[class]).dec();
    }

    fn encoder(&self, encoder: &str, class: &'static str, is_available: bool) {
        let encoder = ENCODERS.into_iter().find(|known| *known == encoder).unwrap_or("other");
        self.work.encoders.with_label_values(&[encoder, class]).set(i64::from(is_available));
    }

    fn device_quarantined(&self, class: &'static str) {
        self.work.quarantines.with_label_values(&[class]).inc();
    }

    fn draining(&self) {
        self.work.draining.set(1);
    }

    fn taken(&self, QueueLabels { queue, class, lane }: QueueLabels, waited: Option<Duration>) {
        self.common.deliveries.with_label_values(&[queue, class, lane]).inc();
        if let Some(waited) = waited {
            self.common.queue_wait.with_label_values(&[queue, class, lane]).observe(waited.as_secs_f64());
        }
    }

    fn part_started(&self, kind: &'static str) {
        self.work.parts_started.with_label_values(&[kind]).inc();
    }

    fn part_ended(&self, kind: &'static str, end: PartEnd, took: Duration) {
        self.work.parts_ended.with_label_values(&[kind, end.name()]).inc();
        if end == PartEnd::Completed {
            self.work.part_seconds.with_label_values(&[kind]).observe(took.as_secs_f64());
        }
    }

    fn child_ended(&self, child: &ChildEnd) {
        let (work, task) = (&self.work, child.task);
        work.children_ended.with_label_values(&[task, child.outcome]).inc();
        work.child_cpu.with_label_values(&[task]).inc_by(child.cpu.as_secs_f64());
        work.child_memory.with_label_values(&[task]).observe(child.peak_bytes as f64);
        if child.outcome == "done" {
            work.child_seconds.with_label_values(&[task]).observe(child.wall.as_secs_f64());
        }
        let Some(jail) = child.jail else { return };
        for other in [JailLevel::Limits, JailLevel::Seccomp, JailLevel::Full] {
            work.sandbox_level.with_label_values(&[level(other)]).set(i64::from(other == jail));
        }
    }

    fn rung_encoded(&self, encoded: &Encoded<'_>) {
        let labels = [known_codec(encoded.codec), height(encoded.height)];
        self.work.encoded_frames.with_label_values(&labels).inc_by(encoded.frames);
        self.work.encoded_media.with_label_values(&labels).inc_by(positive(encoded.media_s));
    }

    fn judged(&self, judged: &Judged<'_>) {
        let error = judged.measured - judged.planned;
        if error.is_finite() {
            let labels = [known_preset(judged.preset), height(judged.height)];
            self.work.quality_error.with_label_values(&labels).observe(error);
        }
    }

    fn chunk_encoded(&self, source_s: f64) {
        self.work.encoded_source.inc_by(positive(source_s));
    }

    fn scratch(&self, used_bytes: u64, free_bytes: u64) {
        self.work.scratch_used.set(gauge(used_bytes));
        self.work.scratch_free.set(gauge(free_bytes));
    }

    fn scratch_short(&self, is_short: bool) {
        self.work.scratch_short.set(i64::from(is_short));
    }

    fn waiting(&self, QueueLabels { queue, class, lane }: QueueLabels, messages: Option<u64>) {
        let labels = [queue, class, lane];
        match messages {
            Some(messages) => self.jobs.queue_messages.with_label_values(&labels).set(gauge(messages)),
            // Not known is no number; an error says that there was none before.
            None => {
                let _ = self.jobs.queue_messages.remove_label_values(&labels);
            }
        }
    }

    fn open_jobs(&self, jobs: u64) {
        self.jobs.open.set(gauge(jobs));
    }

    fn recorded(&self, kind: &str) {
        self.jobs.events.with_label_values(&[kind]).inc();
    }

    fn first_playable(&self, after: Duration) {
        self.jobs.first_playable.observe(after.as_secs_f64());
    }

    fn playable(&self, rendition: &Playable<'_>) {
        let sample_entry = rendition.codecs.split('.').next().unwrap_or_default();
        let codec = metered::codec(sample_entry, "other");
        let labels = [known_codec(&codec), rendition.height.map_or("none", height)];
        self.jobs.rendition_bytes.with_label_values(&labels).inc_by(rendition.bytes);
        self.jobs.rendition_media.with_label_values(&labels).inc_by(positive(rendition.media_s));
    }

    fn job_ended(&self, end: &JobEnd<'_>) {
        self.jobs.ended.with_label_values(&[end.state]).inc();
        if let Some(took) = end.took.filter(|_| end.state == State::Completed.name()) {
            self.jobs.completion.observe(took.as_secs_f64());
        }
        if let Some(usage) = end.usage {
            self.used(usage);
        }
    }

    fn job_stalled(&self) {
        self.jobs.stalled.inc();
    }

    fn answered(&self, route: &str, status: u16, took: Duration) {
        self.jobs.requests.with_label_values(&[route, &status.to_string()]).inc();
        self.jobs.request_seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    fn callback(&self, end: CallbackEnd, took: Duration) {
        self.jobs.callbacks.with_label_values(&[end.name()]).inc();
        self.jobs.callback_seconds.observe(took.as_secs_f64());
    }

    fn callback_arrived(&self, after: Duration) {
        self.jobs.callback_delay.observe(after.as_secs_f64());
    }

    fn oldest_callback(&self, age: Duration) {
        self.jobs.callback_oldest.set(age.as_secs_f64());
    }

    fn span(&self, begun: &Begun<'_>) -> Span {
        self.traces.get().map_or_else(|| begun.unrecorded(), |traces| traces.begin(begun))
    }

    fn traces(&self) -> bool {
        self.traces.get().is_some()
    }

    fn whole_job(&self, whole: &WholeJob<'_>) {
        if let Some(traces) = self.traces.get() {
            traces.whole_job(whole);
        }
    }
}

#[cfg(test)]
mod tests;
