//! Everything that can be wrong with a request: a problem document that names it, and the server goes on.

use super::client::{Answer, Client};
use super::{Server, document};
use crate::coordinator::fixture::SECRET;
use crate::job::MAX_DOCUMENT_BYTES;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A problem that names a field, and is in the contract of its route.
#[track_caller]
fn problem(answer: Answer, route: &str, status: u16, field: &str) {
    let answer = answer.must(route, status);
    let document = answer.json();
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!((&document["field"], &document["status"]), (&field.into(), &status.into()), "{document}");
    let text = document.to_string();
    assert!(document["detail"].as_str().is_some_and(|detail| !detail.is_empty()) && !text.contains(SECRET), "{text}");
    assert!(text.len() < 2048, "{} bytes", text.len());
}

#[tokio::test]
async fn a_wrong_document_is_a_problem_that_names_the_field() {
    let server = Server::start().await;
    let deep = format!(r#","set":{{"a":{}1{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    let long = format!(r#","extend":"{}""#, "x".repeat(5_000));
    for (body, status, field) in [
        (String::new(), 415, "content-type"),
        ("x".into(), 400, "."),
        ("{".into(), 400, "."),
        ("null".into(), 400, "."),
        ("[]".into(), 400, "."),
        (document("") + "}", 400, "."),
        ("{}".into(), 400, "."),
        (document(r#","inputs":[]"#), 422, "inputs"),
        (document(r#","id":7"#), 422, "id"),
        (document(r#","id":"../x""#), 422, "id"),
        (document(r#","id":"rejected-0123456789abcdef""#), 422, "id"),
        (document(r#","id":"tenant-1""#), 422, "id"),
        (document(r#","tenant":"globex""#), 422, "tenant"),
        (document(r#","tenant":7"#), 422, "tenant"),
        (document(r#","lane":"fast""#), 422, "lane"),
        (document(r#","on_damage":"hide""#), 422, "on_damage"),
        (document(r#","set":{"packaging.segments":4}"#), 422, "set.packaging.segments"),
        (document(r#","set":[]"#), 422, "set"),
        (document(r#","metadata":{"k":7}"#), 422, "metadata.k"),
        (document(r#","callbacks":[{"url":"gopher://x/"}]"#), 422, "callbacks[0].url"),
        (document(r#","callbacks":[{"url":"https://u:p@x.example/"}]"#), 422, "callbacks[0].url"),
        (document(r#","callbacks":[{"url":"https://x.example/","events":["no"]}]"#), 422, "callbacks[0].events[0]"),
        (document(&deep), 400, "."),
        (document(&long), 422, "extend"),
        (document("").replace("h264", "h266"), 422, "preset"),
        (document("").replace("talk.mp4", "s3://foreign/talk.mp4"), 422, "input.uri"),
        (document("").replace("talk.mp4", "file:///etc/passwd"), 422, "input.uri"),
        (document("").replace("talk.mp4", "/etc/passwd"), 422, "input.uri"),
        (document("").replace("talk.mp4", "http://169.254.169.254/latest/meta-data/"), 422, "input.uri"),
        (document("").replace(r#""uri":"out""#, r#""uri":"s3://foreign/out""#), 422, "output.uri"),
        (document("").replace(r#""uri":"out""#, r#""uri":"../out""#), 422, "output.uri"),
        (document("").replace(r#""uri":"out""#, r#""uri":"""#), 422, "output.uri"),
    ] {
        problem(server.acme.post("/v1/jobs", &body).await, "/v1/jobs", status, field);
    }
    for bytes in [&b"\xff\xfe{\0}\0"[..], b"{\"input\":\"\xc3\x28\"}", b"\x1f\x8b\x08\0"] {
        problem(server.acme.send("POST", "/v1/jobs", &[], bytes).await, "/v1/jobs", 400, ".");
    }
    let too_long = document(&format!(r#","extend":"{}""#, "x".repeat(MAX_DOCUMENT_BYTES)));
    problem(server.acme.post("/v1/jobs", &too_long).await, "/v1/jobs", 413, ".");
    let chunked = "transfer-encoding: chunked\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
    let chunks = format!("{:x}\r\n{too_long}\r\n0\r\n\r\n", too_long.len());
    let whole = server.acme.head("POST", "/v1/jobs", &[]) + chunked + &chunks;
    problem(Answer::read("POST", server.acme.raw(whole.as_bytes()).await), "/v1/jobs", 413, ".");
    assert!(server.site.fleet.stores.work().list("jobs/").await.unwrap().is_empty(), "nothing wrong became a job");
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_header_or_parameter_is_named() {
    let server = Server::start().await;
    server.job("talk").await;
    let post = |headers: &'static [(&'static str, &'static str)]| server.acme.send("POST", "/v1/jobs", headers, document(""));
    problem(post(&[("content-type", "text/plain")]).await, "/v1/jobs", 415, "content-type");
    problem(post(&[("content-type", "application/json; charset=utf-16")]).await, "/v1/jobs", 415, "content-type");
    problem(post(&[("content-encoding", "gzip")]).await, "/v1/jobs", 415, "content-encoding");
    problem(post(&[("idempotency-key", " ")]).await, "/v1/jobs", 400, "idempotency-key");
    problem(post(&[("idempotency-key", "k\u{e9}y")]).await, "/v1/jobs", 400, "idempotency-key");
    post(&[("content-type", "Application/JSON; charset=UTF-8")]).await.must("/v1/jobs", 202);
    let events = "/v1/jobs/{id}/events";
    for (path, route, field) in [
        ("/v1/jobs?limit=0", "/v1/jobs", "limit"),
        ("/v1/jobs?limit=201", "/v1/jobs", "limit"),
        ("/v1/jobs?limit=x", "/v1/jobs", "limit"),
        ("/v1/jobs?limit=5&limit=6", "/v1/jobs", "limit"),
        ("/v1/jobs?state=done", "/v1/jobs", "state"),
        ("/v1/jobs?cursor=x", "/v1/jobs", "cursor"),
        ("/v1/jobs?cursor=Li4vLi4veA", "/v1/jobs", "cursor"),
        ("/v1/jobs?tenant=globex", "/v1/jobs", "tenant"),
        ("/v1/jobs/talk?full=1", "/v1/jobs/{id}", "full"),
        ("/v1/jobs/talk/events?after=-1", events, "after"),
        ("/v1/jobs/talk/events?limit=501", events, "limit"),
        ("/v1/usage?to=2023-11-14", "/v1/usage", "from"),
        ("/v1/usage?from=2023-11-14", "/v1/usage", "to"),
        ("/v1/usage?from=2023-02-30&to=2023-11-14", "/v1/usage", "from"),
        ("/v1/usage?from=2023-11-14&to=2023-11-13", "/v1/usage", "to"),
        ("/v1/usage?from=2020-11-14&to=2023-11-13", "/v1/usage", "to"),
    ] {
        problem(server.acme.get(path).await, route, 400, field);
    }
    let sse = [("accept", "text/event-stream"), ("last-event-id", "x")];
    problem(server.acme.send("GET", "/v1/jobs/talk/events", &sse, String::new()).await, events, 400, "last-event-id");
    for path in ["/v1/jobs/none", "/v1/jobs/%2e%2e", "/v1/jobs/%ff", "/v1/jobs/a%2fb", "/v1/jobs/%00"] {
        problem(server.acme.get(path).await, "/v1/jobs/{id}", 404, "id");
    }
    let replay = "/v1/jobs/{id}/replay";
    for (body, status, field) in [
        (r#"{"from_sequence":0}"#, 422, "from_sequence"),
        (r#"{"from_sequence":9999}"#, 422, "from_sequence"),
        (r#"{"from_sequence":"x"}"#, 422, "from_sequence"),
        (r#"{"from":1}"#, 422, "from"),
        ("{", 400, "."),
    ] {
        problem(server.acme.post("/v1/jobs/talk/replay", body).await, replay, status, field);
    }
    let missing = server.acme.get("/v2/jobs").await;
    assert_eq!((missing.status, missing.header("content-type")), (404, "application/problem+json"));
    assert_eq!(missing.json()["instance"], "/v2/jobs");
    server.stop().await;
}

#[tokio::test]
async fn only_who_knows_both_halves_of_a_key_is_answered() {
    let server = Server::start().await;
    let address = server.acme.address;
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let right = format!("ak-acme:{SECRET}");
    for header in [
        String::new(),
        "Basic".into(),
        "Basic %%%".into(),
        basic("ak-acme"),
        basic("ak-acme:"),
        basic(&format!("ak-acme:{}", &SECRET[1..])),
        basic(&format!("ak-none:{SECRET}")),
        basic(&format!(":{SECRET}")),
        format!("Digest {}", STANDARD.encode(&right)),
        format!("Bearer ak-acme{SECRET}"),
        format!("Bearer ak-acme.{SECRET}x"),
        "Bearer ".to_string() + &"x.".repeat(5_000),
    ] {
        let answer = Client::with(address, &header).get("/v1/jobs").await;
        assert!(answer.header("www-authenticate").contains("Basic"), "{header}");
        problem(answer, "/v1/jobs", 401, "authorization");
    }
    problem(server.nobody.get("/v1/jobs").await, "/v1/jobs", 401, "authorization");
    // Who is not known learns nothing of what there is.
    problem(server.nobody.get("/v1/jobs/none").await, "/v1/jobs/{id}", 401, "authorization");
    for header in [basic(&right), format!("Bearer ak-acme.{SECRET}"), format!("bearer ak-acme.{SECRET}")] {
        Client::with(address, &header).get("/v1/jobs").await.must("/v1/jobs", 200);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_peer_that_speaks_nonsense_or_nothing_does_not_hold_the_server_up() {
    let server = Server::start().await;
    for bytes in [&b"\x16\x03\x01\x02\0\x01"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0\0\0\0\r\n\r\n"] {
        let answer = server.nobody.raw(bytes).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    }
    let huge = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(1_000_000));
    // What was not read may cost the peer the answer.
    let refused = server.nobody.raw(huge.as_bytes()).await;
    assert!(refused.is_empty() || refused.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&refused));
    // Half a request: the server waits for the rest as long as it says, and hangs up.
    let half = server.nobody.raw(b"GET /healthz HTTP/1.1\r\nhost:").await;
    assert!(half.is_empty() || half.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&half));
    server.nobody.get("/healthz").await.must("/healthz", 200);
    server.stop().await;
}

#[tokio::test]
async fn too_many_event_streams_are_refused_and_told_when_to_come_back() {
    let server = Server::start().await;
    server.site.accept("talk").await;
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(super::stream::Stream::open(&server.acme, "/v1/jobs/talk/events", &[]).await);
    }
    let sse = [("accept", "text/event-stream")];
    let refused = server.acme.send("GET", "/v1/jobs/talk/events", &sse, String::new()).await;
    assert_eq!(refused.must("/v1/jobs/{id}/events", 503).json()["title"], "The coordinator is busy");
    drop(open);
    server.stop().await;
}
