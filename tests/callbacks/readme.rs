//! The page tells receivers how to verify a callback; what it tells is tried on a real one.

use super::receiver::Receiver;
use super::stage::{OLD_SECRET, SECRET, Stage, endpoint, job};
use std::io::Write;
use std::process::{Command, Stdio};

/// What a receiver does that copied the lines: the request as JSON on stdin, the secret as its argument.
const RECEIVER: &str = r#"
import json, sys
request = json.load(sys.stdin)
try:
    verify(sys.argv[1], request["headers"], request["body"].encode())
except ValueError as error:
    sys.exit(f"refused: {error}")
"#;

fn sample() -> String {
    let page = include_str!("../../README.md");
    let part = page.split("### Verify a callback").nth(1).expect("the page says how to verify a callback");
    part.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("in Python").to_string()
}

fn accepts(secret: &str, headers: &serde_json::Value, body: &str) -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", &(sample() + RECEIVER), secret]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = python.spawn().expect("python3 is installed");
    let request = serde_json::json!({"headers": headers, "body": body}).to_string();
    child.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || said.starts_with("refused: "), "{said}");
    output.status.success()
}

#[tokio::test]
async fn the_lines_of_the_page_verify_a_callback_and_refuse_a_forged_one() {
    let (stage, mut receiver) = (Stage::new(), Receiver::start().await);
    let (talk, hook) = (job("talk.1"), endpoint(&receiver.url("/")));
    stage.accept(&talk, std::slice::from_ref(&hook)).await;
    stage.record_all(&talk, 1).await;
    let running = stage.run(&talk);
    stage.nudge(&talk, std::slice::from_ref(&hook)).await;
    let taken = receiver.next().await;
    running.stop().await;
    let mut headers: serde_json::Map<String, serde_json::Value> = serde_json::Map::new();
    for (name, value) in &taken.headers {
        headers.insert(name.to_string(), value.to_str().unwrap().into());
    }
    let mut headers = serde_json::Value::Object(headers);
    let body = String::from_utf8(taken.body).unwrap();
    // Both secrets of a rotation, and no other.
    assert!(accepts(SECRET, &headers, &body) && accepts(OLD_SECRET, &headers, &body));
    assert!(!accepts("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &headers, &body));
    assert!(!accepts(SECRET, &headers, &body.replace("talk", "walk")));
    headers["webhook-timestamp"] = "1519375990".into();
    assert!(!accepts(SECRET, &headers, &body));
}
