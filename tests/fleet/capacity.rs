//! `make bench-simulate`: is what `narrows simulate` says of fifty jobs what a fleet of two slots takes for them?
//!
//! Every length of title is done once by the real fleet, which says what parts cost; then all jobs are, as the trace has them,
//! and then they are simulated. Needs a machine that does nothing else.

#[allow(dead_code, reason = "other binaries use more of it")]
mod cluster;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/media.rs"]
mod media;

use cluster::{ACME, Cluster, MEDIA, PROGRAM, Setup};
use media::{Clip, Picture};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SLOTS: usize = 2;
const JOBS: usize = 50;
/// Lengths of the titles, seconds; a job has one after the other.
const TITLES_S: [u32; 3] = [20, 45, 90];
/// Time from job to job, seconds, again and again: bursts and gaps, so that slots are idle now and then at first.
const APART_S: [f64; 5] = [0.0, 1.0, 0.5, 4.0, 2.0];
/// The simulated makespan may be so far from the measured one.
const MOST_APART: f64 = 0.10;
const PATIENCE: Duration = Duration::from_secs(3600);

fn main() -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|e| e.to_string())?.block_on(compare())
}

/// A small ladder: what is compared is the order of things, not the speed of encoders.
fn preset() -> Value {
    json!({ "video.rungs": [{ "height": 360, "crf": 28 }, { "height": 240, "crf": 28 }], "video.speed": "medium" })
}

fn clip(seconds: u32) -> Clip {
    Clip { frames: seconds * 25, width: 640, height: 360, gop: 50, picture: Picture::Mandelbrot, ..Clip::default() }
}

async fn compare() -> Result<(), String> {
    let cluster = Cluster::start(&Setup { workers: 1, coordinators: 1, slots: SLOTS, ..Setup::default() });
    let mut sources = BTreeMap::new();
    for seconds in TITLES_S {
        sources.insert(seconds, cluster.source(&format!("{seconds}.mp4"), &clip(seconds).make()).await);
    }
    let (reports, probe_s, package_s) = calibrate(&cluster, &sources).await;
    println!("a probe takes {probe_s:.2} s, a package {package_s:.2} s");
    let jobs = trace();
    let measured = real(&cluster, &sources, &jobs).await;
    let simulated = simulate(&cluster, &jobs, &reports, probe_s, package_s);
    let apart = (simulated - measured).abs() / measured;
    println!("{JOBS} jobs on {SLOTS} slots: measured {measured:.1} s, simulated {simulated:.1} s, {:.1} % apart", apart * 100.0);
    if apart > MOST_APART {
        return Err(format!("the simulation is {:.1} % off; at most {:.0} % are allowed", apart * 100.0, MOST_APART * 100.0));
    }
    Ok(())
}

/// When each job comes and how long its title is, seconds.
fn trace() -> Vec<(f64, u32)> {
    let mut at = 0.0;
    let job = |n: usize| {
        at += APART_S[n % APART_S.len()];
        (at, TITLES_S[n % TITLES_S.len()])
    };
    (0..JOBS).map(job).collect()
}

fn job(cluster: &Cluster, id: &str, source: &str) -> Value {
    json!({
        "id": id, "tenant": ACME.name, "preset": "h264", "set": preset(),
        "input": { "uri": source }, "output": { "uri": cluster.uri(&format!("out/{id}/")) },
    })
}

fn post(cluster: &Cluster, id: &str, source: &str) {
    let answer = cluster.post_job(0, ACME, &job(cluster, id, source));
    assert!(answer.status < 300, "{}", answer.text());
}

/// Every title once: the files with the reports, and the mean time of a probe and of a package, seconds.
async fn calibrate(cluster: &Cluster, sources: &BTreeMap<u32, String>) -> (Vec<String>, f64, f64) {
    let (mut reports, mut probes, mut packages) = (Vec::new(), Vec::new(), Vec::new());
    for (seconds, source) in sources {
        let id = format!("alone-{seconds}");
        post(cluster, &id, source);
        assert_eq!(cluster.ended(&id, PATIENCE).await, "completed");
        let report = cluster.bucket(MEDIA).read(&format!("out/{id}/report.json")).await.expect("it is there").to_vec();
        reports.push(cluster.home.write(&format!("{id}.json"), report).display().to_string());
        let at = cluster.told(&id).await;
        probes.push((at["stage.completed/probe"] - at["stage.started/probe"]).as_seconds_f64());
        packages.push((at["stage.completed/package"] - at["stage.started/package"]).as_seconds_f64());
    }
    let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len() as f64;
    (reports, mean(&probes), mean(&packages))
}

/// The jobs by the real fleet: seconds from the first submission to the last end.
async fn real(cluster: &Cluster, sources: &BTreeMap<u32, String>, jobs: &[(f64, u32)]) -> f64 {
    let begun = Instant::now();
    for (number, (at_s, seconds)) in jobs.iter().enumerate() {
        tokio::time::sleep(Duration::from_secs_f64(*at_s).saturating_sub(begun.elapsed())).await;
        post(cluster, &format!("job-{number}"), &sources[seconds]);
    }
    for number in 0..jobs.len() {
        assert_eq!(cluster.ended(&format!("job-{number}"), PATIENCE).await, "completed");
    }
    begun.elapsed().as_secs_f64()
}

/// The same jobs, simulated.
fn simulate(cluster: &Cluster, jobs: &[(f64, u32)], reports: &[String], probe_s: f64, package_s: f64) -> f64 {
    let line = |(at_s, media_s): &(f64, u32)| {
        json!({ "at_s": at_s, "media_s": media_s, "preset": "h264", "set": preset(), "width": 640, "height": 360 }).to_string()
    };
    let trace = cluster.home.write("jobs.jsonl", jobs.iter().map(line).collect::<Vec<_>>().join("\n"));
    let costs = cluster.home.write("costs.toml", format!("probe_s = {probe_s}\npackage_s = {package_s}\n"));
    let mut command = Command::new(PROGRAM);
    command.args(["simulate", "--workers", "1", "--slots", &SLOTS.to_string(), "--json", "--trace"]).arg(trace);
    command.arg("--costs").arg(costs).arg("--config").arg(&cluster.config);
    for report in reports {
        command.args(["--report", report]);
    }
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    report["makespan_s"].as_f64().expect("it says so")
}
