//! Jobs that are none: each is refused with the field that is wrong, by either door; nothing crashes, nothing is lost, no
//! message goes round.

use crate::cluster::{ACME, Cluster, OTHER, Setup};
use crate::common::wait_for;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A document and the field that is wrong with it, as the refusal names it.
struct Bad {
    name: &'static str,
    document: Vec<u8>,
    field: &'static str,
}

fn good(id: &str) -> Value {
    json!({
        "id": id, "tenant": "acme", "preset": "h264",
        "input": { "uri": "s3://media/in/clip.mp4" }, "output": { "uri": format!("s3://media/out/{id}/") },
    })
}

/// The job of that name with one field changed, by its path.
fn changed(name: &'static str, path: &str, value: Value, field: &'static str) -> Bad {
    let mut job = good(name);
    *job.pointer_mut(path).unwrap_or_else(|| panic!("{path} is in a job")) = value;
    Bad { name, document: job.to_string().into_bytes(), field }
}

fn with(name: &'static str, more: &Value, field: &'static str) -> Bad {
    let mut job = good(name);
    for (key, value) in more.as_object().expect("fields") {
        job[key] = value.clone();
    }
    Bad { name, document: job.to_string().into_bytes(), field }
}

fn raw(name: &'static str, document: impl Into<Vec<u8>>, field: &'static str) -> Bad {
    Bad { name, document: document.into(), field }
}

fn corpus() -> Vec<Bad> {
    let deep = format!(r#"{{"id":"deep","input":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    let long = |bytes: usize| Value::String("x".repeat(bytes));
    vec![
        // No documents.
        raw("empty", "", "."),
        raw("no-json", "a job, please", "."),
        raw("cut-short", r#"{"id":"cut-short","input":{"#, "input"),
        raw("list", "[]", "."),
        raw("null", "null", "."),
        raw("number", "7", "."),
        raw("not-utf-8", b"{\"id\":\"bytes\",\"input\":{\"uri\":\"\xff\xfe\"}}".to_vec(), "."),
        raw("utf-16", "{\"id\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>(), "."),
        raw("deep", deep, "."),
        raw("two", format!("{} {}", good("two"), good("two")), "."),
        raw("nul", b"{\"id\":\"nul\0\"}".to_vec(), "id"),
        // Wrong types and unknown fields.
        changed("number-uri", "/input/uri", json!(7), "input.uri"),
        changed("object-preset", "/preset", json!({}), "preset"),
        changed("number-id", "/id", json!(12), "id"),
        with("text-input", &json!({ "input": "s3://media/in/clip.mp4" }), "input"),
        with("unknown-field", &json!({ "priority": 9 }), "priority"),
        with("unknown-inside", &json!({ "output": { "uri": "s3://media/out/a/", "acl": "public" } }), "output.acl"),
        with("unknown-lane", &json!({ "lane": "express" }), "lane"),
        with("unknown-preset", &json!({ "preset": "h266" }), "preset"),
        with("preset-path", &json!({ "preset": "../../etc/passwd" }), "preset"),
        with("unknown-setting", &json!({ "set": { "video.rung": 1 } }), "set.video.rung"),
        with("wrong-setting", &json!({ "set": { "packaging.segment_s": "long" } }), "set.packaging.segment_s"),
        // Too much of something.
        changed("long-uri", "/input/uri", long(5000), "input.uri"),
        with("long-id", &json!({ "id": "x".repeat(65) }), "id"),
        with("many-callbacks", &json!({ "callbacks": vec![json!({ "url": "https://example.com/" }); 100] }), "callbacks"),
        with("long-extend", &json!({ "extend": "x".repeat(100_000) }), "extend"),
        // Names that lead elsewhere.
        with("id-path", &json!({ "id": "../../jobs/x" }), "id"),
        with("id-dot", &json!({ "id": ".." }), "id"),
        changed("blank-uri", "/input/uri", json!("   "), "input.uri"),
        changed("control-uri", "/input/uri", json!("s3://media/in/a\nb"), "input.uri"),
        changed("local-file", "/input/uri", json!("file:///etc/passwd"), "input.uri"),
        changed("plain-path", "/input/uri", json!("/etc/passwd"), "input.uri"),
        changed("foreign-bucket", "/input/uri", json!("s3://somebody-else/in/clip.mp4"), "input.uri"),
        changed("work-bucket", "/input/uri", json!("s3://narrows-work/jobs/x/job.json"), "input.uri"),
        changed("work-output", "/output/uri", json!("s3://narrows-work/jobs/x/"), "output.uri"),
        changed("dots", "/input/uri", json!("s3://media/in/../../narrows-work/x"), "input.uri"),
        changed("other-scheme", "/input/uri", json!("ftp://media/in/clip.mp4"), "input.uri"),
        changed("no-source", "/input/uri", json!("s3://media/in/there-is-none.mp4"), "input.uri"),
        changed("foreign-output", "/output/uri", json!("s3://somebody-else/out/"), "output.uri"),
        changed("http-output", "/output/uri", json!("http://example.com/out/"), "output.uri"),
        // Addresses of our own network, in each of their disguises.
        changed("ssrf-loopback", "/input/uri", json!("http://127.0.0.1:80/"), "input.uri"),
        changed("ssrf-metadata", "/input/uri", json!("http://169.254.169.254/latest/meta-data/"), "input.uri"),
        changed("ssrf-decimal", "/input/uri", json!("http://2130706433/"), "input.uri"),
        changed("ssrf-mapped", "/input/uri", json!("http://[::ffff:127.0.0.1]/"), "input.uri"),
        // Who submits.
        with("no-tenant", &json!({ "tenant": "nobody" }), "tenant"),
        with("tenant-path", &json!({ "tenant": "../acme" }), "tenant"),
        with("callback-file", &json!({ "callbacks": [{ "url": "file:///etc/passwd" }] }), "callbacks[0].url"),
        with(
            "callback-event",
            &json!({ "callbacks": [{ "url": "https://example.com/", "events": ["job.exploded"] }] }),
            "callbacks[0].events[0]",
        ),
        with("reserved-id", &json!({ "id": "rejected-0123456789abcdef" }), "id"),
    ]
}

/// The same document for the customers' bucket of this fleet, or its folder.
fn placed(cluster: &Cluster, bad: Bad) -> Bad {
    let Bad { name, document, field } = bad;
    let document = match String::from_utf8(document) {
        Ok(text) => text.replace("s3://media/", &cluster.uri("")).into_bytes(),
        Err(none) => none.into_bytes(),
    };
    Bad { name, document, field }
}

/// The refusals in the work store, by the digest that a document without a usable id is refused under, or by its id.
async fn refusals(cluster: &Cluster) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for path in cluster.work_list("events/").await {
        let event = cluster.work_json(&path).await.unwrap_or_default();
        if event["type"] == "job.rejected" {
            let stream = path.split('/').nth(1).unwrap_or_default().to_string();
            found.insert(stream, event["data"].clone());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_job_is_refused_by_its_field_and_nothing_goes_round() {
    let mut cluster = Cluster::start(&Setup::default());
    let corpus: Vec<Bad> = corpus().into_iter().map(|bad| placed(&cluster, bad)).collect();
    by_http(&cluster, &corpus);
    by_amqp(&cluster, &corpus).await;
    of_others(&cluster).await;
    // Whoever took all that still works, and never died of it.
    for server in cluster.workers.iter_mut().chain(&mut cluster.coordinators) {
        assert_eq!(server.ended(), None, "{}", server.log());
    }
    let jobs = cluster.work_list("jobs/").await;
    let made: Vec<&String> = jobs.iter().filter(|path| path.ends_with("/job.json") && !path.contains("/mine/")).collect();
    assert_eq!(made, Vec::<&String>::new(), "a bad job was taken");
    wait_for("empty queues", || {
        let left: Vec<_> =
            cluster.rabbit.queues("/").into_iter().filter(|(name, counts)| is_work(name) && *counts != (0, 0)).collect();
        left.is_empty().then_some(())
    });
}

fn is_work(queue: &str) -> bool {
    ["narrows.jobs", "narrows.work", "narrows.dead", "narrows.events", "narrows.retry"]
        .iter()
        .any(|prefix| queue.starts_with(prefix))
}

fn by_http(cluster: &Cluster, corpus: &[Bad]) {
    let client = cluster.http(0, ACME);
    let mut wrong = Vec::new();
    for bad in corpus {
        let answer = client.post("/v1/jobs", "application/json", &bad.document).unwrap_or_else(|e| panic!("{}: {e}", bad.name));
        let (said, kind) = (answer.text(), answer.header("content-type").unwrap_or_default().to_string());
        let problem = serde_json::from_str::<Value>(&said).unwrap_or_default();
        let is_refusal = (400..500).contains(&answer.status) && kind.starts_with("application/problem+json");
        if !is_refusal || problem["field"] != bad.field || said.contains("root:x:0") {
            wrong.push(format!("{}: {:?} is wrong with it: {} {kind} {said}", bad.name, bad.field, answer.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // More than anybody reads.
    let huge = client.post("/v1/jobs", "application/json", &vec![b' '; 8 * 1024 * 1024]);
    assert!(huge.map_or(true, |answer| (400..500).contains(&answer.status)));
    let other_kind = client.post("/v1/jobs", "text/plain", good("text").to_string().as_bytes()).unwrap();
    assert!((400..500).contains(&other_kind.status), "{}", other_kind.status);
    for (method, path, status) in [("GET", "/v1/jobs/%2e%2e", 404), ("PUT", "/v1/jobs", 405), ("GET", "/v2/jobs", 404)] {
        assert_eq!(client.call(method, path, &[], &[]).unwrap().status, status, "{method} {path}");
    }
}

async fn by_amqp(cluster: &Cluster, corpus: &[Bad]) {
    let bodies: Vec<Vec<u8>> = corpus.iter().map(|bad| bad.document.clone()).collect();
    cluster.publish("narrows.jobs.normal", &bodies).await;
    let begun = std::time::Instant::now();
    let told = loop {
        let told = refusals(cluster).await;
        if told.len() >= corpus.len() || begun.elapsed() > crate::common::server::PATIENCE {
            break told;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    let mut wrong = Vec::new();
    for bad in corpus {
        let by_digest = narrows::event::rejected_stream(&bad.document).to_string();
        let refusal = told.get(&by_digest).or_else(|| told.get(bad.name)).cloned().unwrap_or_default();
        let has_reason = refusal["reason"].as_str().is_some_and(|reason| !reason.is_empty() && reason.len() < 2000);
        if refusal["path"] != bad.field || !has_reason {
            wrong.push(format!("{}: {:?} is wrong with it: {refusal}", bad.name, bad.field));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A job under the id of another tenant's, and one under an id that has another content.
async fn of_others(cluster: &Cluster) {
    let clip = crate::media::kept("editlist-preroll.mp4");
    let source = cluster.source("clip.mp4", &clip).await;
    let mut mine = good("mine");
    mine["input"]["uri"] = json!(source);
    mine["output"]["uri"] = json!(cluster.uri("out/mine/"));
    let taken = cluster.post_job(0, ACME, &mine);
    assert!(taken.status < 300, "{}", taken.text());
    let mut theirs = mine.clone();
    theirs["tenant"] = json!("other");
    let refused = cluster.post_job(0, OTHER, &theirs);
    assert!((400..500).contains(&refused.status) && refused.text().contains("id"), "{} {}", refused.status, refused.text());
    // Signed in as one, in the name of another.
    let refused = cluster.post_job(0, OTHER, &mine);
    assert!((400..500).contains(&refused.status), "{} {}", refused.status, refused.text());
    let mut changed = mine.clone();
    changed["preset"] = json!("h265");
    let refused = cluster.post_job(1, ACME, &changed);
    assert!((400..500).contains(&refused.status) && refused.text().contains("id"), "{} {}", refused.status, refused.text());
    assert_eq!(cluster.ended("mine", std::time::Duration::from_secs(120)).await, "completed");
}
