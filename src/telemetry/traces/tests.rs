//! Spans as they are recorded, and a collector that is not there, or full, or in no hurry.

use super::*;
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode as Http;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prometheus::Opts;
use prost::Message;
use std::collections::VecDeque;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

fn counts() -> IntCounterVec {
    IntCounterVec::new(Opts::new("spans", "spans"), &["outcome"]).unwrap()
}

fn counted(counts: &IntCounterVec) -> [u64; 3] {
    ["exported", "dropped", "failed"].map(|outcome| counts.with_label_values(&[outcome]).get())
}

fn settings(text: &str) -> TraceSettings {
    toml::from_str(text).unwrap()
}

fn text<'a>(record: &'a Record, name: &str) -> &'a str {
    let found = record.attributes.iter().find(|attribute| attribute.key == name).and_then(|a| a.value.as_ref()?.value.as_ref());
    let Some(any_value::Value::StringValue(text)) = found else { panic!("no text {name} in {record:?}") };
    text
}

/// A collector that answers as it is told, at first.
struct Collector {
    url: Url,
    state: Arc<Mutex<(VecDeque<Http>, Vec<Record>)>>,
    came: Arc<Notify>,
}

impl Collector {
    async fn start(answers: &[Http]) -> Self {
        let state = Arc::new(Mutex::new((answers.iter().copied().collect::<VecDeque<_>>(), Vec::new())));
        let (shared, came) = (state.clone(), Arc::new(Notify::new()));
        let notify = came.clone();
        let take = move |body: Bytes| async move {
            let mut state = shared.lock().unwrap();
            let status = state.0.pop_front().unwrap_or(Http::OK);
            if status == Http::OK {
                let request = ExportTraceServiceRequest::decode(body).unwrap();
                let scopes = request.resource_spans.into_iter().flat_map(|of| of.scope_spans);
                state.1.extend(scopes.flat_map(|of| of.spans));
            }
            notify.notify_one();
            status
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = collector(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/traces", post(take))).await });
        Self { url, state, came }
    }

    fn traces(&self, ratio: f64, counts: &IntCounterVec) -> Traces {
        Traces::start(Exporter::new(self.url.clone(), "worker", "tester").unwrap(), ratio, counts.clone())
    }

    fn spans(&self) -> Vec<Record> {
        self.state.lock().unwrap().1.clone()
    }
}

fn part(parent: Parent) -> Begun<'static> {
    Begun::now("part", "encode", SpanRole::Consumer, parent, "talk")
}

#[test]
fn settings_that_make_no_sense_name_their_field() {
    let field = |text: &str| settings(text).check().unwrap_err().0;
    assert_eq!(settings("endpoint = \"http://127.0.0.1:4318\"").check(), Ok(()));
    assert_eq!(field(""), "endpoint");
    assert_eq!(field("endpoint = \"http://c:4318\"\nendpoint_from_environment = true"), "endpoint");
    for bad in ["localhost:4317", "grpc://c:4317", "http://user:hush@c:4318", "http://c:4318/?key=hush", "no"] {
        let (field, reason) = settings(&format!("endpoint = \"{bad}\"")).check().unwrap_err();
        assert_eq!((field, reason.contains("hush")), ("endpoint", false), "{bad}: {reason}");
    }
    assert_eq!(field("endpoint = \"http://c\"\nsample_ratio = 1.5"), "sample_ratio");
    assert_eq!(field("endpoint = \"http://c\"\nsample_ratio = nan"), "sample_ratio");
    assert!(toml::from_str::<TraceSettings>("endpoint = \"http://c\"\nheaders = 3").is_err());
}

#[test]
fn the_environment_says_where_only_where_the_settings_say_so() {
    let environment = |name: &str| (name == ENDPOINT_VARIABLE).then(|| "https://otel.example/base/".to_string());
    let own = settings("endpoint = \"http://127.0.0.1:4318\"");
    assert_eq!(own.url(environment).unwrap().as_str(), "http://127.0.0.1:4318/v1/traces");
    let theirs = settings("endpoint_from_environment = true");
    assert_eq!(theirs.url(environment).unwrap().as_str(), "https://otel.example/base/v1/traces");
    assert_eq!(theirs.url(|_| None).unwrap_err().0, "endpoint_from_environment");
}

#[test]
fn a_share_of_the_traces_is_that_share_and_always_the_same() {
    let sampled =
        |ratio| (0..1000).filter(|n| is_sampled(TraceContext::of_job(&format!("job-{n}"), None).trace_id, ratio)).count();
    assert_eq!((sampled(0.0), sampled(1.0)), (0, 1000));
    assert!((60..140).contains(&sampled(0.1)), "{}", sampled(0.1));
    let traced = |ratio, n| is_sampled(TraceContext::of_job(&format!("job-{n}"), None).trace_id, ratio);
    assert!((0..1000).all(|n| !traced(0.1, n) || traced(0.5, n)), "who raises the share loses none");
}

#[tokio::test]
async fn spans_of_a_job_are_one_tree_that_begins_where_its_customer_was() {
    let (collector, counts) = (Collector::start(&[]).await, counts());
    let traces = collector.traces(0.0, &counts);
    let customer = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let accept = Begun::now("accept", "", SpanRole::Server, Parent::Job(customer), "talk");
    let accept = traces.begin(&Begun { ago: Duration::from_secs(5), ..accept });
    let span = traces.begin(&part(Parent::Sender(accept.context())));
    span.note("outcome", "retried");
    span.note("outcome", "completed");
    span.fail();
    drop((span, accept));
    let whole =
        WholeJob { job: "talk", tenant: "acme", state: "completed", begun: customer, accepted_ms: 5_000, ended_ms: 9_000 };
    traces.whole_job(&whole);
    traces.flush(PATIENCE).await;
    let spans = collector.spans();
    let [part, accept, job] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((part.name.as_str(), accept.name.as_str(), job.name.as_str()), ("part encode", "accept", "job"));
    assert_eq!((&part.parent_span_id, &accept.parent_span_id), (&accept.span_id, &job.span_id));
    assert_eq!(job.parent_span_id, customer.unwrap().span_id);
    assert!(spans.iter().all(|span| span.trace_id == customer.unwrap().trace_id && text(span, "job") == "talk"));
    assert_eq!((text(part, "outcome"), text(job, "tenant"), text(job, "state")), ("completed", "acme", "completed"));
    assert_eq!((part.status.as_ref().map(|s| s.code), accept.status.as_ref()), (Some(StatusCode::Error as i32), None));
    assert_eq!(job.end_time_unix_nano - job.start_time_unix_nano, 4_000_000_000);
    assert!(accept.end_time_unix_nano - accept.start_time_unix_nano >= 5_000_000_000);
    assert_eq!(counted(&counts), [3, 0, 0]);
}

#[tokio::test]
async fn what_is_not_sampled_is_handed_on_and_not_recorded() {
    let (collector, counts) = (Collector::start(&[]).await, counts());
    let traces = collector.traces(0.0, &counts);
    let customer = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    assert_eq!(traces.begin(&part(Parent::Sender(customer))).context(), customer);
    let own = traces.begin(&part(Parent::Sender(None))).context().unwrap();
    assert_eq!(own, TraceContext { is_sampled: false, ..TraceContext::of_job("talk", None) });
    traces.flush(PATIENCE).await;
    assert_eq!((collector.spans(), counted(&counts)), (Vec::new(), [0, 0, 0]));
}

#[tokio::test]
async fn a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let (collector, counts) = (Collector::start(&[Http::SERVICE_UNAVAILABLE]).await, counts());
    let traces = collector.traces(1.0, &counts);
    drop(traces.begin(&part(Parent::Sender(None))));
    traces.flush(PATIENCE).await;
    assert_eq!((collector.spans().len(), counted(&counts)), (1, [1, 0, 0]));
    collector.state.lock().unwrap().0.push_back(Http::BAD_REQUEST);
    drop(traces.begin(&part(Parent::Sender(None))));
    traces.flush(PATIENCE).await;
    assert_eq!((collector.spans().len(), counted(&counts)), (1, [1, 0, 1]));
}

#[tokio::test]
async fn work_never_waits_for_a_collector_and_what_does_not_fit_is_counted() {
    // It takes the connection, and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = collector(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let counts = counts();
    let traces = Traces::start(Exporter::new(url, "worker", "tester").unwrap(), 1.0, counts.clone());
    let more = 3 * QUEUE_SPANS as u64;
    for _ in 0..more {
        drop(traces.begin(&part(Parent::Sender(None))));
    }
    let dropped = counted(&counts)[1];
    assert!(dropped >= more - QUEUE_SPANS as u64 - 1, "{dropped} of {more}");
    let before = Instant::now();
    traces.flush(Duration::from_millis(50)).await;
    assert!(before.elapsed() < Duration::from_secs(5), "to leave is not to wait for it, either");
}

#[tokio::test]
async fn spans_are_exported_without_anybody_asking() {
    let (collector, counts) = (Collector::start(&[]).await, counts());
    let traces = collector.traces(1.0, &counts);
    drop(traces.begin(&part(Parent::Sender(None))));
    tokio::time::timeout(PATIENCE, collector.came.notified()).await.unwrap();
    assert_eq!(collector.spans().len(), 1);
}
