//! A real Prometheus scrapes a real fleet that does real jobs: every panel of the dashboards and every recorded rule finds data
//! there, and the dashboards are drawn from it. That alerts fire when they should is shown by `tests/monitoring.rs`. With
//! `TEST_DASHBOARDS=FOLDER` the fleet works longer, and the pages stay in that folder (`make dashboards`).

use crate::cluster::{ACME, Cluster, Setup};
use crate::common::http::Client;
use crate::common::{Answer, Prometheus, wait_for};
use crate::media::{Clip, kept};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest wait for a job of this test.
const ENDS_WITHIN: Duration = Duration::from_secs(240);
/// A rate needs two samples of a series, and the first of a series is often the first of its kind: with two workers it may
/// take a few jobs until each kind was seen twice by one of them.
const MOST_JOBS: usize = 8;

fn folder(name: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("helm/narrows/files").join(name);
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The interval that Grafana would take for a rate.
const RATE_INTERVAL: &str = "2m";

/// The expressions of every dashboard, with where they stand.
fn panels() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in folder("dashboards") {
        let dashboard: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let place = format!("{}: {}", dashboard["title"], panel["title"]);
                found.push((place, target["expr"].as_str().unwrap().to_string()));
            }
        }
    }
    found
}

/// An expression as Grafana would send it.
fn at_interval(expression: &str) -> String {
    expression.replace("$__rate_interval", RATE_INTERVAL)
}

/// Draws the dashboards from the answers, a page each, into the folder: no panel is without data.
fn draw(answers: &Value, into: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::create_dir_all(into).unwrap();
    let told = into.join("answers.json");
    std::fs::write(&told, answers.to_string()).unwrap();
    let mut drawing = Command::new("python3");
    drawing.arg(root.join("tests/tools/draw_dashboards.py")).arg(root.join("helm/narrows/files/dashboards")).args([&told, into]);
    let drawn = drawing.output().expect("python3 is installed (make setup)");
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    let pages: Vec<&str> = std::str::from_utf8(&drawn.stdout).unwrap().lines().collect();
    assert_eq!(pages.len(), folder("dashboards").len(), "{pages:?}");
    for page in pages {
        let text = std::fs::read_to_string(page).unwrap();
        assert!(text.contains("<polyline") && !text.contains("No data"), "{page}");
    }
}

/// The answers to the panels over the time since `start`, by expression as it stands in the dashboard.
fn answers(prometheus: &Prometheus, start: SystemTime) -> Value {
    // Whole seconds back from now: the last value is what there is now, and what was found a moment ago is among them.
    let to = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let from = to - start.elapsed().unwrap().as_secs_f64().ceil();
    let answers: Map<String, Value> = panels()
        .into_iter()
        .map(|(_, expression)| (expression.clone(), prometheus.range(&at_interval(&expression), from..=to)))
        .collect();
    json!({ "from": from, "to": to, "answers": answers })
}

/// The names of metrics in an expression that begin like ours.
fn named(expression: &str) -> BTreeSet<String> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = expression.split(|c| !part(c));
    words.filter(|word| word.split(':').any(|piece| piece.starts_with("narrows_"))).map(str::to_string).collect()
}

/// What Prometheus' own checker says of a page of metrics.
fn complaints(page: &str) -> String {
    let mut checker = Command::new("promtool");
    checker.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = checker.spawn().expect("prometheus is installed (make setup)");
    running.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let ended = running.wait_with_output().unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    if ended.status.success() { String::new() } else { format!("{}: {}", ended.status, String::from_utf8_lossy(&said)) }
}

/// A job of which content decides: it is measured, and held against what was planned.
fn deciding_job(cluster: &Cluster, id: &str, source: &str) -> Value {
    json!({
        "id": id, "tenant": ACME.name, "input": { "uri": source }, "output": { "uri": cluster.uri(&format!("out/{id}/")) },
        "preset": "narrowband-h264",
        "set": {
            "chunk.grid": "frames", "chunk.frames": 50, "narrowband.grid.shortest_s": 0.5, "narrowband.grid.nominal_s": 2,
            "video.speed": "ultrafast", "video.params.bframes": 3,
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_and_every_rule_finds_data_in_a_fleet_that_works() {
    let setup = Setup { coordinators: 1, slots: 2, ..Setup::default() };
    let cluster = Cluster::start(&setup);
    let (workers, coordinators) = cluster.scraped();
    let prometheus = Prometheus::start(&folder("rules"), &[workers, coordinators].concat());
    let (hook, source) = (cluster.receiver.url("/hook"), cluster.source("clip.mp4", &kept("bunny-1080p25-12s.mp4")).await);
    let pattern = Clip { frames: 100, width: 320, height: 192, ..Clip::default() }.make();
    let pattern = cluster.source("pattern.mp4", &pattern).await;
    // An endpoint that is not well at first.
    cluster.receiver.script("/hook", [Answer::status(500), Answer::closed()]);
    let panels = panels();
    assert!(panels.len() > 40, "{}", panels.len());
    let is_empty = |expression: &str| !prometheus.query(&at_interval(expression)).iter().any(|value| value.is_finite());
    let recorded = |rules: &[Value]| -> Vec<(String, String)> {
        let records = rules.iter().filter(|rule| rule["type"] == "recording");
        records.map(|rule| ("a rule".into(), rule["name"].as_str().unwrap().to_string())).collect()
    };
    let (stay_in, start) = (std::env::var_os("TEST_DASHBOARDS"), SystemTime::now());
    let mut missing = Vec::new();
    for number in 1..=MOST_JOBS {
        let (fixed, decided) = (format!("watched-{number}"), format!("watched-{number}-decided"));
        let jobs = [cluster.small_job(&fixed, &source, &hook), deciding_job(&cluster, &decided, &pattern)];
        for job in &jobs {
            assert!(cluster.post_job(0, ACME, job).status < 300);
        }
        for id in [&fixed, &decided] {
            assert_eq!(cluster.ended(id, ENDS_WITHIN).await, "completed");
        }
        let count = (number * jobs.len()) as f64;
        wait_for("a scrape of the job's end", || {
            let ended = prometheus.query("sum(narrows_jobs_ended_total{state=\"completed\"})");
            (ended == [count]).then_some(())
        });
        let all = panels.iter().cloned().chain(recorded(&prometheus.rules()));
        missing = all.filter(|(_, expression)| is_empty(expression)).collect();
        if missing.is_empty() && stay_in.is_none() {
            break;
        }
    }
    assert!(missing.is_empty(), "nothing is found by these: {missing:#?}");
    draw(&answers(&prometheus, start), &stay_in.map_or(cluster.home.join("dashboards"), PathBuf::from));
    let names: BTreeSet<String> = prometheus.names().into_iter().collect();
    for rule in prometheus.rules() {
        assert_eq!((&rule["health"], &rule["lastError"]), (&json!("ok"), &Value::Null), "{rule}");
        let unknown: Vec<String> = named(rule["query"].as_str().unwrap()).difference(&names).cloned().collect();
        assert_eq!(unknown, [""; 0], "{}", rule["name"]);
    }
    for port in workers.iter().chain(coordinators) {
        let page = Client::new(*port).get("/metrics").unwrap();
        assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let text = page.text();
        assert_eq!(complaints(&text), "");
        for secret in [ACME.name, "watched-", "127.0.0.1", "out/"] {
            assert!(!text.contains(secret), "{secret} in\n{text}");
        }
    }
}
