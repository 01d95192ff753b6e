//! Traces of a fleet of real processes over a real RabbitMQ, as a collector gets them.

use crate::cluster::{ACME, Cluster, Setup, WEBHOOK_SECRET};
use crate::common::receiver::Received;
use crate::common::{Answer, Receiver};
use crate::media::Clip;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Longest wait for a job of these tests.
const ENDS_WITHIN: Duration = Duration::from_secs(240);
/// What customers work in as they submit.
const BY_AMQP: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const BY_HTTP: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A span, by whom it was recorded.
struct Seen {
    role: String,
    span: Span,
}

fn text(attributes: &[KeyValue], name: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == name).and_then(|a| a.value.as_ref()?.value.as_ref());
    match value {
        Some(Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

/// What came to the collector.
fn spans(received: &[Received]) -> Vec<Seen> {
    let mut seen = Vec::new();
    for request in received {
        assert_eq!((request.path.as_str(), request.header("content-type")), ("/v1/traces", Some("application/x-protobuf")));
        for of in ExportTraceServiceRequest::decode(request.body.as_slice()).unwrap().resource_spans {
            let role = text(&of.resource.unwrap().attributes, "role");
            let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
            seen.extend(spans.map(|span| Seen { role: role.clone(), span }));
        }
    }
    seen
}

/// Those of the trace in which a customer was.
fn of_trace(received: &[Received], customer: &str) -> Vec<Seen> {
    let wanted = hex::decode(&customer[3..35]).unwrap();
    spans(received).into_iter().filter(|seen| seen.span.trace_id == wanted).collect()
}

/// Names from a span up to the top of its tree.
fn way_up(all: &[Seen], from: &Span) -> Vec<String> {
    let by_id: BTreeMap<&[u8], &Span> = all.iter().map(|seen| (seen.span.span_id.as_slice(), &seen.span)).collect();
    let (mut names, mut at) = (vec![from.name.clone()], from);
    while let Some(parent) = by_id.get(at.parent_span_id.as_slice()) {
        names.push(parent.name.clone());
        assert!(names.len() < 100, "a ring: {names:?}");
        at = parent;
    }
    names
}

/// The spans of a job are one tree below its customer's own, from whatever process they are.
fn is_one_tree(all: &[Seen], id: &str, customer: &str) {
    let ids: BTreeSet<&[u8]> = all.iter().map(|seen| seen.span.span_id.as_slice()).collect();
    assert_eq!(ids.len(), all.len(), "ids are unique");
    let customers_own = hex::decode(&customer[36..52]).unwrap();
    let tops: Vec<&str> = all
        .iter()
        .filter(|seen| !ids.contains(seen.span.parent_span_id.as_slice()))
        .map(|seen| seen.span.name.as_str())
        .collect();
    assert_eq!(tops, ["job"], "nothing hangs in the air");
    let top = all.iter().find(|seen| seen.span.name == "job").unwrap();
    assert_eq!(top.span.parent_span_id, customers_own);
    let roles: BTreeSet<&str> = all.iter().map(|seen| seen.role.as_str()).collect();
    assert_eq!(roles, BTreeSet::from(["coordinator", "worker"]));
    for Seen { span, .. } in all {
        assert_eq!(text(&span.attributes, "job"), id, "{span:?}");
        assert!(span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano, "{span:?}");
        let has_tenant = ["job", "accept", "record", "callback"].contains(&span.name.as_str()) || span.name.starts_with("part ");
        assert!(!has_tenant || text(&span.attributes, "tenant") == ACME.name, "{span:?}");
    }
    let named = |name: &str| all.iter().filter(|seen| seen.span.name == name).count();
    assert_eq!((named("accept"), named("part probe")), (1, 1));
    // Six chunks of two seconds, of two rungs.
    assert!(named("part encode") == 6 && named("child encode") == 6 && named("upload") >= 12, "{}", named("part encode"));
    // Two workers that end the last chunks in the same moment both see that all are there, and both ask for it.
    assert!(named("part package") >= 1);
    for package in all.iter().filter(|seen| seen.span.name == "part package") {
        let way = way_up(all, &package.span);
        assert_eq!(way[way.len() - 3..], ["part probe", "accept", "job"], "{way:?}");
    }
}

/// What the endpoint was told, it was told in a span of the same tree.
fn callbacks_are_in_it(all: &[Seen], told: &[Received], customer: &str) {
    assert!(told.len() > 5, "{}", told.len());
    for request in told {
        let header = request.header("traceparent").expect("every callback says in which trace it is");
        assert_eq!((&header[..36], &header[52..]), (&customer[..36], "-01"));
        let span = hex::decode(&header[36..52]).unwrap();
        let seen = all.iter().find(|seen| seen.span.span_id == span).expect("its span was exported");
        assert_eq!((seen.span.name.as_str(), seen.role.as_str()), ("callback", "coordinator"));
        let failed = seen.span.status.as_ref().is_some_and(|status| status.code == 2);
        assert_eq!(failed, request.answered != Some(200), "{:?}", seen.span);
    }
    let last = told.iter().find(|request| request.json()["type"] == "job.completed").unwrap();
    let span = hex::decode(&last.header("traceparent").unwrap()[36..52]).unwrap();
    let way = way_up(all, &all.iter().find(|seen| seen.span.span_id == span).unwrap().span);
    // An earlier nudge may have found the end already.
    assert_eq!((&way[..2], way.last().unwrap().as_str()), (&["callback".to_string(), "record".into()][..], "job"), "{way:?}");
    assert!(way[2].starts_with("part ") || way[2] == "accept", "by way of a coordinator and a worker: {way:?}");
}

fn told_of(cluster: &Cluster, hook: &str, id: &str) -> Vec<Received> {
    cluster.receiver.received_at(hook).into_iter().filter(|request| request.json()["job"] == id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_a_job_are_one_tree_from_its_customers_own_to_its_callbacks_and_hold_no_secret() {
    let collector = Receiver::start();
    let endpoint = collector.url("").trim_end_matches('/').to_string();
    // Nothing is asked for again only because this machine is busy.
    let stall = ("coordinator.stall_after_s", 600.into());
    let set = vec![("telemetry.traces.endpoint", endpoint.into()), ("telemetry.traces.sample_ratio", 0.0.into()), stall];
    let mut cluster = Cluster::start(&Setup { coordinators: 1, set, ..Setup::default() });
    let doctor = String::from_utf8(cluster.narrows(&["doctor"]).stdout).unwrap();
    assert!(
        doctor.lines().any(|line| line.starts_with("ok     traces: the collector takes them at http://127.0.0.1:")),
        "{doctor}"
    );
    let clip = Clip { frames: 300, width: 320, height: 192, ..Clip::default() }.make();
    let source = cluster.source("clip.mp4", &clip).await;
    // The first callback is put off: what comes back from a retry tier is in the same trace.
    cluster.receiver.script("/amqp", [Answer::status(500)]);
    let jobs = [("by-amqp", "/amqp", BY_AMQP), ("by-http", "/http", BY_HTTP), ("in-none", "/none", "")];
    let documents: Vec<Json> =
        jobs.iter().map(|(id, hook, _)| cluster.small_job(id, &source, &cluster.receiver.url(hook))).collect();
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(BY_AMQP.into()));
    let properties = BasicProperties::default().with_headers(headers);
    cluster.publish_with("narrows.jobs.normal", &[documents[0].to_string().into_bytes()], properties).await;
    let client = cluster.http(0, ACME).with_header("traceparent", BY_HTTP);
    let taken = client.post("/v1/jobs", "application/json", documents[1].to_string().as_bytes()).unwrap();
    assert!(taken.status < 300 && cluster.post_job(0, ACME, &documents[2]).status < 300, "{}", taken.text());
    for (id, ..) in jobs {
        assert_eq!(cluster.ended(id, ENDS_WITHIN).await, "completed", "{id}");
    }
    let is_end = |received: &[Received]| {
        let ends =
            received.iter().filter(|r| r.answered == Some(200)).map(Received::json).filter(|b| b["type"] == "job.completed");
        ends.count() >= jobs.len()
    };
    cluster.receiver.until("the end of every job", is_end).await;
    // Whoever leaves leaves no span behind.
    for server in cluster.workers.iter_mut().chain(&mut cluster.coordinators) {
        server.signal(Signal::SIGTERM);
    }
    for server in cluster.workers.iter_mut().chain(&mut cluster.coordinators) {
        assert!(server.wait().success(), "{}", server.log());
        assert!(!server.log().contains("spans"), "{}", server.log());
    }
    let received = collector.received();
    for (id, hook, customer) in &jobs[..2] {
        let all = of_trace(&received, customer);
        is_one_tree(&all, id, customer);
        callbacks_are_in_it(&all, &told_of(&cluster, hook, id), customer);
    }
    // Of the third nobody says that it is to be recorded, and of such jobs none are.
    let of_others = spans(&received).into_iter().filter(|seen| text(&seen.span.attributes, "job") == "in-none").count();
    assert_eq!(of_others, 0);
    for request in &received {
        let body = String::from_utf8_lossy(&request.body);
        let keys = ["access-key", "secret-key"].map(|name| std::fs::read_to_string(cluster.home.join(name)).unwrap());
        for secret in
            [ACME.secret, WEBHOOK_SECRET, "guest", "http://", "s3://"].into_iter().chain(keys.iter().map(String::as_str))
        {
            assert!(!body.contains(secret), "{secret} in a span");
        }
    }
}
