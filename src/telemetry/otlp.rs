//! Spans to a collector: OTLP over HTTP, as protobuf (OpenTelemetry Protocol Specification, "OTLP/HTTP").
//!
//! One request at a time. What a collector does not take within a few tries is given up, and counted; what ends meanwhile
//! waits in the queue, as much as fits. No work ever waits for it.
//!
//! The messages are OpenTelemetry's own (`opentelemetry-proto`). Its exporter (`opentelemetry-otlp` 0.33) sends them, too, but
//! only logs how many spans a collector refused, and does not say of a failure whether another try may help: both are counted here.

use super::traces::attribute;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prometheus::IntCounterVec;
use prost::Message;
use reqwest::StatusCode;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use url::Url;

/// Spans of one request.
const BATCH_SPANS: usize = 512;
/// How long a span waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// Longest time of one request.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// How often a batch is sent that a collector cannot take now, and the wait after the first time; it doubles.
const TRIES: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Read of an answer, bytes.
const MOST_ANSWER: usize = 64 * 1024;

/// What is put into the exporter's queue.
pub enum Word {
    Span(Box<Span>),
    /// Tells whoever waits when everything before it is exported, or given up.
    Flush(oneshot::Sender<()>),
}

/// Why spans were not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// It may take them later.
    #[error("the collector {0}")]
    Now(String),
    #[error("the collector {0}")]
    Ever(String),
}

/// Sends spans to one collector.
pub struct Exporter {
    client: reqwest::Client,
    url: Url,
    resource: Resource,
}

impl Exporter {
    /// For a process of this role and name.
    ///
    /// # Errors
    /// TLS cannot be set up on this machine.
    pub fn new(url: Url, role: &'static str, instance: &str) -> Result<Self, String> {
        // Somebody may have been first, with the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(REQUEST_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("narrows/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| format!("TLS: {e}"))?;
        let version = env!("CARGO_PKG_VERSION");
        let names =
            [("service.name", "narrows"), ("service.version", version), ("service.instance.id", instance), ("role", role)];
        let attributes = names.into_iter().map(|(name, value)| attribute(name, value.into())).collect();
        Ok(Self { client, url, resource: Resource { attributes, ..Resource::default() } })
    }

    /// Sends spans once; how many of them the collector refused.
    ///
    /// # Errors
    /// It did not take them.
    pub async fn send(&self, spans: &[Span]) -> Result<u64, NotTaken> {
        let request = self.client.post(self.url.clone()).header("content-type", "application/x-protobuf");
        let sent = request.body(self.request(spans).encode_to_vec()).send().await;
        let mut answer = sent.map_err(|e| NotTaken::Now(format!("does not answer: {}", innermost(&e.without_url()))))?;
        match answer.status() {
            status if status.is_success() => {}
            // Those that the protocol names as passing.
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => return Err(NotTaken::Now(format!("answered {status}"))),
            status => return Err(NotTaken::Ever(format!("answered {status}"))),
        }
        let mut body = Vec::new();
        while let Ok(Some(piece)) = answer.chunk().await {
            body.extend_from_slice(&piece);
            if body.len() > MOST_ANSWER {
                break;
            }
        }
        let partial = ExportTraceServiceResponse::decode(body.as_slice()).ok().and_then(|answer| answer.partial_success);
        Ok(partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0)))
    }

    fn request(&self, spans: &[Span]) -> ExportTraceServiceRequest {
        if spans.is_empty() {
            return ExportTraceServiceRequest::default();
        }
        let scope = InstrumentationScope { name: "narrows".into(), ..InstrumentationScope::default() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: spans.to_vec(), ..ScopeSpans::default() }];
        let resource = Some(self.resource.clone());
        ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }] }
    }

    /// Sends spans, again where that may help.
    async fn insist(&self, spans: &[Span]) -> Result<u64, NotTaken> {
        let mut wait = FIRST_WAIT;
        for _ in 1..TRIES {
            match self.send(spans).await {
                Err(NotTaken::Now(reason)) => tracing::debug!(reason, "spans were not taken; again"),
                ended => return ended,
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        self.send(spans).await
    }
}

/// What went wrong in the end. The outer causes repeat the URL.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Exports what comes until nobody is left who could send anything.
pub(super) async fn run(mut queue: mpsc::Receiver<Word>, exporter: Exporter, counts: IntCounterVec) {
    let mut is_well = true;
    while let Some(first) = queue.recv().await {
        let (mut batch, mut waiting) = (Vec::new(), Vec::new());
        take(first, &mut batch, &mut waiting);
        let until = Instant::now() + LINGER;
        while batch.len() < BATCH_SPANS && waiting.is_empty() {
            let Ok(Some(word)) = tokio::time::timeout_at(until, queue.recv()).await else { break };
            take(word, &mut batch, &mut waiting);
        }
        if !batch.is_empty() {
            is_well = export(&exporter, &batch, &counts, is_well).await;
        }
        for flushed in waiting {
            // Whoever waited may have lost patience.
            let _ = flushed.send(());
        }
    }
}

fn take(word: Word, batch: &mut Vec<Span>, waiting: &mut Vec<oneshot::Sender<()>>) {
    match word {
        Word::Span(span) => batch.push(*span),
        Word::Flush(done) => waiting.push(done),
    }
}

/// Exports a batch and counts it. An outage is logged once, and its end.
async fn export(exporter: &Exporter, batch: &[Span], counts: &IntCounterVec, was_well: bool) -> bool {
    let all = batch.len() as u64;
    let count = |outcome: &str, spans: u64| counts.with_label_values(&[outcome]).inc_by(spans);
    match exporter.insist(batch).await {
        Ok(refused) => {
            count("exported", all.saturating_sub(refused));
            count("failed", refused.min(all));
            if !was_well {
                tracing::info!("spans are exported again");
            }
            true
        }
        Err(error) => {
            count("failed", all);
            if was_well {
                tracing::warn!(%error, "spans are not exported, and given up until they are");
            }
            false
        }
    }
}
