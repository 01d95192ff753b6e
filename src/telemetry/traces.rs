//! Traces: the spans of this process, recorded while it works and handed to the exporter ([`super::otlp`]) when they end.
//!
//! Recording never waits and never fails: a span for which the queue has no room is dropped, and counted.

use super::otlp::{self, Exporter, Word};
use crate::trace::{Begun, Parent, Recording, Span, SpanRole, TraceContext, Value, WholeJob};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span as Record, Status, status::StatusCode};
use prometheus::IntCounterVec;
use serde::Deserialize;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use url::Url;

/// Spans that wait to be exported, at most; some hundred bytes each.
const QUEUE_SPANS: usize = 8192;
/// The variable by which OpenTelemetry's own programs know their collector (OpenTelemetry, "OTLP Exporter Configuration").
pub const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Where a collector takes spans (OTLP, "OTLP/HTTP Request"), below its address.
const PATH: &str = "v1/traces";
/// The flag of a span that is recorded (W3C Trace Context 3.2.2.5).
const SAMPLED: u32 = 1;

/// `[telemetry]`: what is told to whom.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetrySettings {
    /// Left out: nothing is recorded.
    #[serde(default)]
    pub traces: Option<TraceSettings>,
}

/// `[telemetry.traces]`: where spans go, and of how many jobs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceSettings {
    /// Address of a collector that speaks OTLP over HTTP, without `v1/traces`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The address is in the variable that OpenTelemetry names. Otherwise the variable means nothing: it may be meant for
    /// another program of the machine.
    #[serde(default)]
    pub endpoint_from_environment: bool,
    /// Share of the jobs that are recorded, where their customers do not say whether they are; 0 to 1.
    #[serde(default = "every_job")]
    pub sample_ratio: f64,
}

fn every_job() -> f64 {
    1.0
}

impl TraceSettings {
    /// Are the settings usable, whatever the environment says?
    ///
    /// # Errors
    /// The field, from `traces` on, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return Err(("sample_ratio", format!("is {}; allowed are 0 to 1", self.sample_ratio)));
        }
        match (&self.endpoint, self.endpoint_from_environment) {
            (Some(text), false) => collector(text).map(drop).map_err(|reason| ("endpoint", reason)),
            (None, true) => Ok(()),
            _ => Err(("endpoint", "give either an endpoint or endpoint_from_environment = true".into())),
        }
    }

    /// Where spans are sent.
    ///
    /// # Errors
    /// The field, from `traces` on, and what is wrong with it.
    pub fn url(&self, environment: impl Fn(&str) -> Option<String>) -> Result<Url, (&'static str, String)> {
        self.check()?;
        match &self.endpoint {
            Some(text) => collector(text).map_err(|reason| ("endpoint", reason)),
            None => {
                let wrong = |reason: String| ("endpoint_from_environment", format!("{ENDPOINT_VARIABLE} {reason}"));
                let text = environment(ENDPOINT_VARIABLE).ok_or_else(|| wrong("is not set".into()))?;
                collector(&text).map_err(wrong)
            }
        }
    }
}

/// The address at which a collector takes spans. It may hold no secret: it is shown, and logged.
fn collector(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|e| format!("is no URL: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is an http or https URL: spans are sent as OTLP over HTTP".into());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("has neither user nor query: a collector beside the fleet knows the secrets of those further on".into());
    }
    let folder = url.path().trim_end_matches('/').to_string();
    url.set_path(&format!("{folder}/{PATH}"));
    Ok(url)
}

/// Records spans. Clones share one queue.
#[derive(Clone)]
pub struct Traces {
    words: mpsc::Sender<Word>,
    /// By how the spans ended: `exported`, `dropped` or `failed`.
    counts: IntCounterVec,
    sample_ratio: f64,
}

impl Traces {
    /// Starts to export. `counts` has one label, the outcome.
    pub fn start(exporter: Exporter, sample_ratio: f64, counts: IntCounterVec) -> Self {
        let (words, queue) = mpsc::channel(QUEUE_SPANS);
        tokio::spawn(otlp::run(queue, exporter, counts.clone()));
        Self { words, counts, sample_ratio }
    }

    /// Waits until what ended so far is exported, or given up, but not longer than this.
    pub async fn flush(&self, within: Duration) {
        let flushed = async {
            let (done, is_done) = oneshot::channel();
            if self.words.send(Word::Flush(done)).await.is_ok() {
                // An error says that there is no exporter any more, which has nothing left then.
                let _ = is_done.await;
            }
        };
        if tokio::time::timeout(within, flushed).await.is_err() {
            tracing::warn!(?within, "spans were left behind: the collector did not take them in time");
        }
    }

    /// Records what begins; a span of a trace that is not sampled only hands the trace on.
    pub fn begin(&self, begun: &Begun<'_>) -> Span {
        let parent = match begun.parent {
            Parent::Sender(Some(context)) => context,
            Parent::Sender(None) => self.of_job(begun.job, None),
            Parent::Job(context) => self.of_job(begun.job, context),
        };
        if !parent.is_sampled {
            return Span::passing(Some(parent));
        }
        let context = TraceContext { span_id: new_span_id(), ..parent };
        let mut record = record(context, Some(parent.span_id), SystemTime::now().checked_sub(begun.ago));
        record.name = if begun.kind.is_empty() { begun.name.into() } else { format!("{} {}", begun.name, begun.kind) };
        record.kind = span_kind(begun.role) as i32;
        record.attributes.push(attribute("job", begun.job.into()));
        let began = Instant::now().checked_sub(begun.ago).unwrap_or_else(Instant::now);
        Span::recorded(context, Box::new(Live { traces: self.clone(), record: Mutex::new(record), began }))
    }

    /// Records a job as a whole.
    pub fn whole_job(&self, whole: &WholeJob<'_>) {
        let context = self.of_job(whole.job, whole.begun);
        if !context.is_sampled {
            return;
        }
        let at = |ms: u64| UNIX_EPOCH.checked_add(Duration::from_millis(ms));
        let mut record = record(context, whole.begun.map(|begun| begun.span_id), at(whole.accepted_ms));
        record.name = "job".into();
        record.kind = SpanKind::Server as i32;
        record.end_time_unix_nano = nanos(at(whole.ended_ms).unwrap_or(UNIX_EPOCH));
        for (name, value) in [("job", whole.job), ("tenant", whole.tenant), ("state", whole.state)] {
            record.attributes.push(attribute(name, value.into()));
        }
        if whole.state == "failed" {
            record.status = Some(failure());
        }
        self.send(record);
    }

    /// The span of a whole job. Every process of a fleet decides alike whether it is recorded.
    fn of_job(&self, job: &str, begun: Option<TraceContext>) -> TraceContext {
        let context = TraceContext::of_job(job, begun);
        let is_sampled = begun.map_or_else(|| is_sampled(context.trace_id, self.sample_ratio), |begun| begun.is_sampled);
        TraceContext { is_sampled, ..context }
    }

    fn send(&self, record: Record) {
        if self.words.try_send(Word::Span(Box::new(record))).is_err() {
            self.counts.with_label_values(&["dropped"]).inc();
        }
    }
}

/// Is a trace among this share of all? As OpenTelemetry's `TraceIdRatioBased` has it: by 63 bits of its id.
fn is_sampled(trace_id: [u8; 16], ratio: f64) -> bool {
    let [.., a, b, c, d, e, f, g, h] = trace_id;
    let place = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
    (place as f64) < ratio * (1_u64 << 63) as f64
}

/// A number that no other span of the trace has, and that is not 0.
fn new_span_id() -> [u8; 8] {
    rand::random::<u64>().max(1).to_be_bytes()
}

fn record(context: TraceContext, parent: Option<[u8; 8]>, began: Option<SystemTime>) -> Record {
    Record {
        trace_id: context.trace_id.to_vec(),
        span_id: context.span_id.to_vec(),
        parent_span_id: parent.map_or(Vec::new(), |parent| parent.to_vec()),
        flags: SAMPLED,
        start_time_unix_nano: nanos(began.unwrap_or(UNIX_EPOCH)),
        ..Record::default()
    }
}

/// Nanoseconds since 1970.
fn nanos(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn span_kind(role: SpanRole) -> SpanKind {
    match role {
        SpanRole::Internal => SpanKind::Internal,
        SpanRole::Server => SpanKind::Server,
        SpanRole::Client => SpanKind::Client,
        SpanRole::Consumer => SpanKind::Consumer,
    }
}

/// Why is said by the log, by the same job and part.
fn failure() -> Status {
    Status { message: String::new(), code: StatusCode::Error as i32 }
}

pub(super) fn attribute(name: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Whole(number) => any_value::Value::IntValue(number),
        Value::Real(number) => any_value::Value::DoubleValue(number),
    };
    KeyValue { key: name.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A span that has not ended.
struct Live {
    traces: Traces,
    record: Mutex<Record>,
    began: Instant,
}

impl Live {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Recording for Live {
    fn note(&self, name: &'static str, value: Value) {
        let (mut record, noted) = (self.record(), attribute(name, value));
        // Names are unique within a span; what is said last is right.
        match record.attributes.iter_mut().find(|known| known.key == noted.key) {
            Some(known) => *known = noted,
            None => record.attributes.push(noted),
        }
    }

    fn fail(&self) {
        self.record().status = Some(failure());
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let took = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut record = std::mem::take(&mut *self.record());
        record.end_time_unix_nano = record.start_time_unix_nano.saturating_add(took);
        self.traces.send(record);
    }
}

/// Of what is recorded: to whom it goes, by whom.
///
/// # Errors
/// The field, from `traces` on, and what is wrong with it.
pub fn start(
    settings: &TraceSettings,
    role: &'static str,
    instance: &str,
    counts: IntCounterVec,
) -> Result<Arc<Traces>, (&'static str, String)> {
    let url = settings.url(|name| std::env::var(name).ok())?;
    let exporter = Exporter::new(url, role, instance).map_err(|reason| ("endpoint", reason))?;
    Ok(Arc::new(Traces::start(exporter, settings.sample_ratio, counts)))
}

#[cfg(test)]
mod tests;
