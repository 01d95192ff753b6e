//! `make bench-fleet`: what RabbitMQ and a bucket cost. Figures, no judgement but one: a fleet of one worker may take a
//! tenth longer than one process with as many slots.
//!
//! `make bench-fleet BENCH_ARGS="telemetry [PAIRS [CHUNKS]]"`: what metrics that are scraped and traces that are exported cost a
//! fleet whose parts do next to nothing, against the same fleet with neither, in turns. 3 % are allowed.
//!
//! `make bench-fleet BENCH_ARGS="drain [TIMES]"`: how long a worker that encodes takes to end when it is asked to.

#[allow(dead_code, reason = "other binaries use more of it")]
mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod drain;
#[path = "../common/media.rs"]
mod media;

use cluster::{ACME, Cluster, PROGRAM, Setup};
use common::http::Client;
use common::server::cpu_s;
use common::store_proxy::Requests;
use common::{Receiver, wait_for};
use media::{Clip, Rate};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SLOTS: usize = 2;
/// Wall time of the fleet over that of one process, at most.
const MOST_OVERHEAD: f64 = 1.10;
/// Pairs of runs that are compared, an odd number.
const PAIRS: usize = 3;
/// Jobs whose waits are measured.
const SMALL_JOBS: usize = 100;
/// Chunks of the long job.
const LONG: u32 = 5_000;
const PATIENCE: Duration = Duration::from_secs(3600);
/// Time with telemetry over that without, at most; pairs of runs that are compared, and chunks of one run.
const MOST_TELEMETRY: f64 = 1.03;
const TELEMETRY_PAIRS: usize = 9;
const TELEMETRY_CHUNKS: u32 = 400;
/// How often metrics are scraped: oftener than any Prometheus does.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// Workers that are asked to stop.
const DRAINS: u32 = 10;

fn main() -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let number = |n: usize| words.get(n).map(|word| word.parse::<u32>().map_err(|e| format!("{word}: {e}"))).transpose();
    let runtime = runtime.map_err(|e| e.to_string())?;
    match words.first().map(String::as_str) {
        None => runtime.block_on(bench()),
        Some("telemetry") => {
            let pairs = number(1)?.map_or(TELEMETRY_PAIRS, |pairs| pairs as usize);
            runtime.block_on(telemetry(pairs, number(2)?.unwrap_or(TELEMETRY_CHUNKS)))
        }
        Some("drain") => {
            let mut took = runtime.block_on(drain::under_load(number(1)?.unwrap_or(DRAINS) as usize));
            took.sort();
            let (median, longest) = (took[took.len() / 2].as_secs_f64(), took[took.len() - 1].as_secs_f64());
            println!(
                "{} workers of {SLOTS} slots asked to stop: ended after {median:.2} s (median), {longest:.2} s (longest)",
                took.len()
            );
            println!("nothing was delivered twice");
            Ok(())
        }
        Some(other) => Err(format!("{other}: there are 'telemetry' and 'drain', or nothing for everything else")),
    }
}

async fn bench() -> Result<(), String> {
    let setup = Setup { workers: 1, coordinators: 1, slots: SLOTS, ..Setup::default() };
    let cluster = Cluster::start(&setup);
    println!("one worker, {SLOTS} slots; RabbitMQ and Garage on this machine");
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/media/bunny-1080p25-12s.mp4");
    let ratio = against_one_process(&cluster, "the kept clip of 1080p, h265, five rungs", &real, "h265", &json!({})).await;
    let light = Clip { frames: 3000, width: 640, height: 360, gop: 50, ..Clip::default() }.make();
    let rungs = json!([{ "height": 360, "crf": 28 }, { "height": 240, "crf": 28 }]);
    let set = json!({ "video.rungs": rungs, "video.speed": "medium" });
    against_one_process(&cluster, "two minutes of 360p, h264, two rungs", &light, "h264", &set).await;
    waits(&cluster).await;
    long_job(&cluster).await;
    if ratio > MOST_OVERHEAD {
        return Err(format!("the fleet takes {ratio:.2} times as long as one process; at most {MOST_OVERHEAD} is allowed"));
    }
    Ok(())
}

fn job(cluster: &Cluster, id: &str, source: &str, set: &Value) -> Value {
    json!({
        "id": id, "tenant": ACME.name, "preset": "h264", "set": set,
        "input": { "uri": source }, "output": { "uri": cluster.uri(&format!("out/{id}/")) },
    })
}

async fn run(cluster: &Cluster, job: &Value) -> Duration {
    let begun = Instant::now();
    let answer = cluster.post_job(0, ACME, job);
    assert!(answer.status < 300, "{}", answer.text());
    let id = job["id"].as_str().expect("it has one");
    assert_eq!(cluster.ended(id, PATIENCE).await, "completed");
    begun.elapsed()
}

/// The same clip, ladder and slots by `narrows transcode` and by the fleet, in turns; the fleet as its users see it, from
/// `narrows submit` to the end that it waits for.
async fn against_one_process(cluster: &Cluster, what: &str, clip: &Path, preset: &str, set: &Value) -> f64 {
    let source = cluster.source("pairs.mp4", clip).await;
    let mut pairs = Vec::new();
    for n in 0..PAIRS {
        let alone = transcode(clip, &cluster.home.join(&format!("alone-{preset}-{n}")), preset, set);
        let id = format!("pair-{preset}-{n}");
        let mut job = job(cluster, &id, &source, set);
        job["preset"] = preset.into();
        let document = cluster.home.write(&format!("{id}.json"), job.to_string());
        let begun = Instant::now();
        cluster.does(&["submit", document.to_str().expect("our own path"), "--wait"]);
        pairs.push((alone.as_secs_f64(), begun.elapsed().as_secs_f64()));
    }
    let median = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let (alone, fleet) = (median(pairs.iter().map(|p| p.0).collect()), median(pairs.iter().map(|p| p.1).collect()));
    let ratio = median(pairs.iter().map(|p| p.1 / p.0).collect());
    println!("{what}: one process {alone:.2} s, fleet {fleet:.2} s, ratio {ratio:.3} (medians of {PAIRS})");
    ratio
}

fn transcode(clip: &Path, out: &Path, preset: &str, set: &Value) -> Duration {
    let begun = Instant::now();
    let mut command = Command::new(PROGRAM);
    command.arg("transcode").arg(clip).arg("-o").arg(out).args(["--preset", preset, "--slots", &SLOTS.to_string()]);
    for (path, value) in set.as_object().into_iter().flatten() {
        let text = value.as_str().map_or(value.to_string(), String::from);
        command.args(["--set", &format!("{path}={text}")]);
    }
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("the program starts");
    assert!(status.success());
    begun.elapsed()
}

/// Chunks of one frame: what a part costs that does next to nothing.
fn tiny() -> Value {
    json!({
        "video.rungs": [{ "height": 54, "crf": 40 }], "video.speed": "ultrafast", "packaging.segment_s": 1,
        "chunk.grid": "frames", "chunk.frames": 1,
    })
}

fn tiny_clip(frames: u32) -> Clip {
    Clip { frames, rate: Rate::Constant(1, 1), width: 96, height: 54, gop: 1, b_frames: 0, ..Clip::default() }
}

/// From the publish of a part to its start on an idle worker, and from the last marker to the terminal event.
async fn waits(cluster: &Cluster) {
    let source = cluster.source("small.mp4", &tiny_clip(2).make()).await;
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for n in 0..SMALL_JOBS {
        let id = format!("small-{n}");
        run(cluster, &job(cluster, &id, &source, &tiny())).await;
        let at = cluster.told(&id).await;
        let between = |from: &str, to: &str| (at[to] - at[from]).as_seconds_f64() * 1000.0;
        starts.push(between("job.accepted", "job.started"));
        ends.push(between("stage.completed/package", "job.completed"));
    }
    for (what, mut all) in [("publish to start", starts), ("last marker to terminal event", ends)] {
        all.sort_by(f64::total_cmp);
        let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
        println!("{what}: p50 {:.0} ms, p99 {:.0} ms ({SMALL_JOBS} jobs)", at(0.50), at(0.99));
    }
}

/// A job of thousands of parts: parts a second, what each costs the store and the broker, and whether memory grows.
async fn long_job(cluster: &Cluster) {
    let source = cluster.source("long.mp4", &tiny_clip(LONG).make()).await;
    let (before, methods_before) = (requests(cluster), cluster.methods.counts());
    let begun = Instant::now();
    let answer = cluster.post_job(0, ACME, &job(cluster, "long", &source, &tiny()));
    assert!(answer.status < 300, "{}", answer.text());
    let mut samples = Vec::new();
    loop {
        let status = cluster.work_json("jobs/long/status.json").await.unwrap_or_default();
        samples.push((resident_mb(cluster.workers[0].pid()), resident_mb(cluster.coordinators[0].pid())));
        match status["status"]["state"].as_str() {
            Some("completed") => break,
            Some(end @ ("failed" | "canceled" | "rejected")) => panic!("the long job {end}: {status}"),
            _ => tokio::time::sleep(Duration::from_secs(1)).await,
        }
        assert!(begun.elapsed() < PATIENCE, "the long job does not end");
    }
    let (took, parts) = (begun.elapsed().as_secs_f64(), f64::from(LONG + 2));
    println!("{parts} parts in {took:.0} s: {:.1} parts/s", parts / took);
    let (after, methods) = (requests(cluster), cluster.methods.counts());
    let each = |count: u64| count as f64 / parts;
    println!("store requests a part: {:.2}", each(after.total() - before.total()));
    for (method, count) in &after.by_method {
        println!("  {method}: {:.2}", each(count - before.by_method.get(method).copied().unwrap_or_default()));
    }
    for (method, count) in &methods {
        println!("broker {method} a part: {:.2}", each(count - methods_before.get(method).copied().unwrap_or_default()));
    }
    for (role, of) in [("worker", 0), ("coordinator", 1)] {
        let values: Vec<f64> = samples.iter().map(|s| if of == 0 { s.0 } else { s.1 }).collect();
        let tenth = (values.len() / 10).max(1);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (early, late) = (mean(&values[tenth..(2 * tenth).min(values.len())]), mean(&values[values.len() - tenth..]));
        println!("{role}: {early:.0} MB resident after a tenth, {late:.0} MB at the end");
    }
}

/// One run: its time, and the CPU time of worker and coordinator themselves, children apart.
struct Cost {
    wall_s: f64,
    cpu_s: f64,
}

/// The same job of tiny parts with and without telemetry, in turns; who is first changes, and the first pair only warms up.
async fn telemetry(pairs: usize, chunks: u32) -> Result<(), String> {
    let collector = Receiver::start();
    let mut cluster = Cluster::start(&Setup { workers: 1, coordinators: 1, slots: SLOTS, ..Setup::default() });
    let plain = cluster.config.clone();
    let settings = std::fs::read_to_string(&plain).map_err(|e| e.to_string())?;
    let endpoint = format!("http://127.0.0.1:{}", collector.port());
    let watched = cluster.home.write("watched.toml", format!("{settings}\n[telemetry.traces]\nendpoint = \"{endpoint}\"\n"));
    let source = cluster.source("telemetry.mp4", &tiny_clip(chunks).make()).await;
    println!(
        "one worker, {SLOTS} slots, {chunks} chunks of one frame; with telemetry: scraped every second, every span exported"
    );
    let mut ratios = Vec::new();
    for n in 0..=pairs {
        let mut costs = Vec::new();
        for is_watched in [n % 2 == 0, n % 2 != 0] {
            cluster.config = if is_watched { watched.clone() } else { plain.clone() };
            let id = format!("telemetry-{n}-{}", if is_watched { "with" } else { "without" });
            costs.push((is_watched, no_op_job(&mut cluster, &job_of(&id, &source), is_watched).await));
        }
        costs.sort_by_key(|(is_watched, _)| *is_watched);
        let (without, with) = (&costs[0].1, &costs[1].1);
        let (wall, cpu) = (with.wall_s / without.wall_s, with.cpu_s / without.cpu_s);
        println!(
            "pair {n}: without {:.2} s ({:.2} s CPU), with {:.2} s ({:.2} s CPU), ratio {wall:.4} ({cpu:.4})",
            without.wall_s, without.cpu_s, with.wall_s, with.cpu_s
        );
        if n > 0 {
            ratios.push((wall, cpu));
        }
    }
    let median = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let (wall, cpu) = (median(ratios.iter().map(|r| r.0).collect()), median(ratios.iter().map(|r| r.1).collect()));
    let sent = collector.received();
    let bytes: usize = sent.iter().map(|request| request.body.len()).sum();
    println!("telemetry: time {wall:.4}, CPU of worker and coordinator {cpu:.4} (medians of {pairs} pairs)");
    println!("exported: {bytes} bytes in {} requests", sent.len());
    if sent.is_empty() || wall > MOST_TELEMETRY {
        return Err(format!("with telemetry it takes {wall:.4} times as long; at most {MOST_TELEMETRY} is allowed"));
    }
    Ok(())
}

fn job_of(id: &str, source: &str) -> impl Fn(&Cluster) -> Value {
    move |cluster| job(cluster, id, source, &tiny())
}

/// A job on a fleet that was just started, by the configuration that the cluster has now.
async fn no_op_job(cluster: &mut Cluster, job: &impl Fn(&Cluster) -> Value, is_scraped: bool) -> Cost {
    for server in cluster.workers.iter_mut().chain(&mut cluster.coordinators) {
        server.signal(Signal::SIGTERM);
        server.wait();
    }
    cluster.coordinators = vec![cluster.coordinator(0)];
    cluster.workers = vec![cluster.worker(0)];
    let ports: Vec<u16> = [cluster.scraped().0, cluster.scraped().1].concat();
    wait_for("a fleet that answers", || {
        let answers = |port: &u16| Client::new(*port).get("/readyz").is_ok_and(|answer| answer.status == 200);
        ports.iter().all(answers).then_some(())
    });
    let scraping = is_scraped.then(|| tokio::spawn(scrape(ports)));
    let pids = [cluster.workers[0].pid(), cluster.coordinators[0].pid()];
    let cpu = || pids.iter().map(|pid| cpu_s(*pid).0).sum::<f64>();
    let before = cpu();
    let wall_s = run(cluster, &job(cluster)).await.as_secs_f64();
    let cpu_s = cpu() - before;
    if let Some(scraping) = scraping {
        scraping.abort();
    }
    Cost { wall_s, cpu_s }
}

/// As Prometheus does, but from all at once.
async fn scrape(ports: Vec<u16>) {
    let mut pace = tokio::time::interval(SCRAPE_EVERY);
    loop {
        pace.tick().await;
        for port in ports.clone() {
            let page = tokio::task::spawn_blocking(move || Client::new(port).get("/metrics")).await;
            let page = page.expect("a scrape ends").expect("/metrics answers");
            assert!(page.text().contains("narrows_build_info"), "{}", page.status);
        }
    }
}

fn requests(cluster: &Cluster) -> Requests {
    cluster.store.requests()
}

/// `VmRSS` of proc_pid_status(5).
fn resident_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}
