//! The kill storm: small jobs on a fleet in which somebody is always dying, and one judge at the end.
//!
//! `make storm` runs it at full size; every run of the tests a short one. The seed decides who is struck, when and how.

use crate::checker::{self, Findings};
use crate::cluster::{ACME, Cluster, Setup};
use crate::common::http::Client;
use crate::common::proxy::Way;
use crate::common::server::{cpu_s, descendants};
use crate::common::{Fault, Server, StoreFaults, wait_for};
use crate::media::Clip;
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long and how hard.
#[derive(Clone, Copy, Debug)]
struct Size {
    jobs: usize,
    /// Seconds of video: a chunk for every two.
    clip_s: u32,
    workers: usize,
    coordinators: usize,
    faults: usize,
    fault_every: Duration,
    broker_kills: usize,
    /// How long somebody is stopped.
    freeze: Duration,
    /// A job of which nothing was heard for so long is asked for again: longer than the queue of all of them takes to move.
    stall_after: Duration,
    /// Longest wait for the last job once nothing goes wrong any more.
    calm: Duration,
}

const SHORT: Size = Size {
    jobs: 50,
    clip_s: 8,
    workers: 3,
    coordinators: 2,
    faults: 100,
    fault_every: Duration::from_millis(500),
    broker_kills: 2,
    freeze: Duration::from_secs(4),
    stall_after: Duration::from_secs(5),
    calm: Duration::from_secs(150),
};

const FULL: Size = Size {
    jobs: 1000,
    clip_s: 16,
    workers: 4,
    coordinators: 2,
    faults: 1200,
    fault_every: Duration::from_secs(1),
    broker_kills: 20,
    freeze: Duration::from_secs(30),
    stall_after: Duration::from_secs(60),
    calm: Duration::from_secs(1800),
};

/// Of a hundred calls to the store so many fail.
const STORE_FAILS: u32 = 10;
/// Wasted work of all work, at most.
const MOST_WASTE: f64 = 0.15;

/// What is put right later.
enum Undo {
    StartWorker(usize),
    StartCoordinator(usize),
    Wake(usize, bool),
    Pass,
}

struct Storm {
    cluster: Cluster,
    size: Size,
    chance: StdRng,
    undo: Vec<(Instant, Undo)>,
    struck: BTreeMap<&'static str, usize>,
    /// From the broker being up again to the next callback.
    resumed: Vec<Duration>,
    forced: Vec<u32>,
    /// CPU seconds of the children of workers that were killed.
    spent_s: f64,
    /// What it costs a worker to try its encoders when it starts, CPU seconds.
    tries_s: f64,
}

fn job(cluster: &Cluster, n: usize, source: &str, callback: &str) -> Value {
    json!({
        "id": format!("storm-{n:04}"),
        "tenant": ACME.name,
        "input": { "uri": source },
        "output": { "uri": cluster.uri(&format!("out/storm-{n:04}/")) },
        "preset": "h264",
        "lane": (["high", "normal", "low"][n % 3]),
        "set": {
            "video.rungs": [{ "height": 54, "crf": 40 }], "video.speed": "ultrafast", "packaging.segment_s": 2,
            "chunk.grid": "fixed", "chunk.target_s": 2, "chunk.shortest_s": 1,
        },
        "callbacks": [{ "url": callback }],
    })
}

impl Storm {
    fn is_free(&self, coordinator: bool, n: usize) -> bool {
        !self.undo.iter().any(|(_, undo)| match undo {
            Undo::StartWorker(m) => !coordinator && *m == n,
            Undo::StartCoordinator(m) => coordinator && *m == n,
            Undo::Wake(m, of_coordinator) => *of_coordinator == coordinator && *m == n,
            Undo::Pass => false,
        })
    }

    fn server(&mut self, coordinator: bool, n: usize) -> &mut Server {
        if coordinator { &mut self.cluster.coordinators[n] } else { &mut self.cluster.workers[n] }
    }

    fn count(&mut self, what: &'static str) {
        *self.struck.entry(what).or_default() += 1;
    }

    fn later(&mut self, after: Duration, undo: Undo) {
        self.undo.push((Instant::now() + after, undo));
    }

    /// A worker or a coordinator, mostly a worker, that nothing is wrong with now.
    fn victim(&mut self) -> Option<(bool, usize)> {
        let coordinator = self.chance.random_range(0..4) == 0;
        let count = if coordinator { self.size.coordinators } else { self.size.workers };
        let n = self.chance.random_range(0..count);
        self.is_free(coordinator, n).then_some((coordinator, n))
    }

    fn strike(&mut self) {
        let calm = !self.undo.iter().any(|(_, undo)| matches!(undo, Undo::Pass));
        let moment = Duration::from_millis(self.chance.random_range(200..3000));
        match self.chance.random_range(0..10) {
            0 => self.freeze(),
            1 => {
                self.cluster.amqp.reset_all();
                self.count("connections reset");
            }
            2 if calm => {
                let way = [Way::Up, Way::Down, Way::Both][self.chance.random_range(0..3)];
                self.cluster.amqp.set(Fault::Stall(way));
                self.later(moment, Undo::Pass);
                self.count("connections stalled");
            }
            3 if calm => {
                self.cluster.amqp.set(Fault::CutReplies);
                self.later(moment / 4, Undo::Pass);
                self.count("replies cut");
            }
            _ => self.kill(),
        }
    }

    fn kill(&mut self) {
        let Some((coordinator, n)) = self.victim() else { return };
        let pid = self.server(coordinator, n).pid();
        self.spent_s += self.work_cpu_s(pid);
        let left = self.server(coordinator, n).kill();
        self.forced.extend(left);
        self.count(if coordinator { "coordinators killed" } else { "workers killed" });
        let moment = Duration::from_millis(self.chance.random_range(0..1000));
        self.later(moment, if coordinator { Undo::StartCoordinator(n) } else { Undo::StartWorker(n) });
    }

    fn freeze(&mut self) {
        let Some((coordinator, n)) = self.victim() else { return };
        self.server(coordinator, n).signal(Signal::SIGSTOP);
        self.later(self.size.freeze, Undo::Wake(n, coordinator));
        self.count(if coordinator { "coordinators stopped" } else { "workers stopped" });
    }

    fn kill_broker(&mut self) {
        tokio::task::block_in_place(|| self.cluster.rabbit.restart());
        self.count("broker killed");
        let came = self.cluster.receiver.received().len();
        let up = Instant::now();
        let receiver = &self.cluster.receiver;
        let next = tokio::task::block_in_place(|| {
            crate::common::server::until(Duration::from_secs(30), || (receiver.received().len() > came).then(|| up.elapsed()))
        });
        self.resumed.extend(next);
    }

    /// Puts right what is due; at the end everything.
    fn put_right(&mut self, everything: bool) {
        let now = Instant::now();
        let (due, kept) = std::mem::take(&mut self.undo).into_iter().partition(|(at, _)| everything || *at <= now);
        self.undo = kept;
        let due: Vec<(Instant, Undo)> = due;
        for (_, undo) in due {
            match undo {
                Undo::StartWorker(n) => self.cluster.workers[n] = self.cluster.worker(n),
                Undo::StartCoordinator(n) => self.cluster.coordinators[n] = self.cluster.coordinator(n),
                Undo::Wake(n, coordinator) => self.server(coordinator, n).signal(Signal::SIGCONT),
                Undo::Pass => self.cluster.amqp.set(Fault::Pass),
            }
        }
    }

    async fn rage(&mut self) {
        let mut broker = self.size.broker_kills;
        for n in 0..self.size.faults {
            // The broker's deaths are spread over the storm.
            if broker > 0 && n * self.size.broker_kills > (self.size.broker_kills - broker) * self.size.faults {
                broker -= 1;
                self.kill_broker();
            } else {
                self.strike();
            }
            tokio::time::sleep(self.size.fault_every).await;
            self.put_right(false);
        }
        self.put_right(true);
        fail_store(&self.cluster, 0);
    }

    /// Of all CPU time of all children, that which is in no output.
    fn wasted_share(&self, findings: &Findings) -> f64 {
        let living: f64 = self.cluster.workers.iter().map(|worker| self.work_cpu_s(worker.pid())).sum();
        let all = self.spent_s + living;
        if all > 0.0 { (1.0 - findings.cpu_s / all).max(0.0) } else { 0.0 }
    }

    /// CPU seconds that a worker's children spent on jobs: each worker tries its encoders first, and a storm starts many.
    fn work_cpu_s(&self, pid: u32) -> f64 {
        (children_cpu_s(pid) - self.tries_s).max(0.0)
    }

    /// Waits for every job to have an end, as its callback says or as its status says.
    async fn settle(&self, jobs: &[String]) {
        let begun = Instant::now();
        let mut open: BTreeSet<&String> = jobs.iter().collect();
        while !open.is_empty() && begun.elapsed() < self.size.calm {
            let mut left = self.cluster.work_list("open/").await;
            left.extend(self.cluster.work_list("settling/").await);
            let left: BTreeSet<&str> = left.iter().filter_map(|path| path.rsplit('/').next()).collect();
            open.retain(|job| left.contains(job.as_str()));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// Waits until every worker has tried its encoders; what that took the one that took longest, CPU seconds.
fn encoders_tried(cluster: &Cluster) -> f64 {
    let last = "narrows_encoder_available{class=\"cpu\",encoder=\"libsvtav1\"} 1";
    for page in cluster.scraped().0 {
        let is_tried =
            || Client::new(*page).get("/metrics").ok().is_some_and(|page| page.text().lines().any(|line| line == last));
        wait_for("the encoders to be tried", || is_tried().then_some(()));
    }
    cluster.workers.iter().map(|worker| children_cpu_s(worker.pid())).fold(0.0, f64::max)
}

/// CPU seconds of the children that a process has reaped, and of those it has now.
fn children_cpu_s(pid: u32) -> f64 {
    let living: f64 = descendants(pid).keys().map(|child| cpu_s(*child).0).sum();
    cpu_s(pid).1 + living
}

fn fail_store(cluster: &Cluster, per_cent: u32) {
    cluster.store.set(StoreFaults { per_cent, slow: Duration::from_secs(2) });
}

async fn storm(size: Size, seed: u64) -> (Findings, Storm) {
    let begun = Instant::now();
    // Jobs are looked after for longer than anybody sleeps.
    let seconds = |time: Duration| toml::Value::Integer(i64::try_from(time.as_secs()).expect("a short time"));
    let settle = seconds(size.freeze + Duration::from_secs(10));
    let set = vec![("coordinator.settle_after_s", settle), ("coordinator.stall_after_s", seconds(size.stall_after))];
    let setup = Setup { seed, workers: size.workers, coordinators: size.coordinators, set, ..Setup::default() };
    let cluster = Cluster::start(&setup);
    let clip = Clip {
        frames: size.clip_s * 12,
        rate: crate::media::Rate::Constant(12, 1),
        width: 96,
        height: 54,
        gop: 24,
        ..Clip::default()
    };
    let source = cluster.source("storm.mp4", &clip.make()).await;
    let tries_s = encoders_tried(&cluster);
    let callback = cluster.receiver.url("/storm");
    let jobs: Vec<Value> = (0..size.jobs).map(|n| job(&cluster, n, &source, &callback)).collect();
    let ids: Vec<String> = jobs.iter().map(|job| job["id"].as_str().expect("it has one").to_string()).collect();
    for lane in ["high", "normal", "low"] {
        let bodies: Vec<Vec<u8>> =
            jobs.iter().filter(|job| job["lane"] == lane).map(|job| job.to_string().into_bytes()).collect();
        cluster.publish(&format!("narrows.jobs.{lane}"), &bodies).await;
    }
    fail_store(&cluster, STORE_FAILS);
    let chance = StdRng::seed_from_u64(seed);
    let (undo, struck, resumed, forced) = (Vec::new(), BTreeMap::new(), Vec::new(), Vec::new());
    let mut storm = Storm { cluster, size, chance, undo, struck, resumed, forced, spent_s: 0.0, tries_s };
    storm.rage().await;
    storm.settle(&ids).await;
    let findings = checker::judge(&storm.cluster, ACME.name, &ids).await;
    table(&storm, &findings, seed, begun.elapsed());
    (findings, storm)
}

fn table(storm: &Storm, findings: &Findings, seed: u64, took: Duration) {
    let requests = storm.cluster.store.requests();
    let mut resumed = storm.resumed.clone();
    resumed.sort();
    let mut rows: Vec<(String, String)> = vec![
        ("seed".into(), seed.to_string()),
        ("jobs".into(), findings.jobs.to_string()),
        ("took, s".into(), format!("{:.0}", took.as_secs_f64())),
    ];
    rows.extend(storm.struck.iter().map(|(what, count)| ((*what).into(), count.to_string())));
    let failed: u64 = requests.failed.values().sum();
    rows.push(("store calls failed".into(), format!("{failed} of {}", requests.total())));
    rows.extend(findings.ends.iter().map(|(end, count)| (format!("jobs {end}"), count.to_string())));
    for (what, count) in [
        ("lost", findings.lost.len()),
        ("corrupt", findings.corrupt.len()),
        ("conflicting", findings.conflicting.len()),
        ("ends untold", findings.untold.len()),
        ("unmetered", findings.unmetered.len()),
        ("objects read", findings.objects),
        ("callbacks", findings.callbacks),
        ("callbacks twice", findings.duplicates),
        ("processes that had to be ended", storm.forced.len()),
    ] {
        rows.push((what.into(), count.to_string()));
    }
    rows.push(("wasted work".into(), format!("{:.1} %", storm.wasted_share(findings) * 100.0)));
    let seconds = |d: Option<&Duration>| d.map_or("-".into(), |d| format!("{:.1}", d.as_secs_f64()));
    let (median, worst) = (resumed.get(resumed.len() / 2), resumed.last());
    rows.push(("resumed after broker restart, s".into(), format!("{} median, {} longest", seconds(median), seconds(worst))));
    println!();
    rows.iter().for_each(|(what, value)| println!("| {what:<32} | {value:>26} |"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_no_job_is_lost_told_twice_or_half_made() {
    let full = std::env::var("STORM").is_ok_and(|size| size == "full");
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let mut size = if full { FULL } else { SHORT };
    size.jobs = number("STORM_JOBS").unwrap_or(size.jobs);
    size.faults = number("STORM_FAULTS").unwrap_or(size.faults);
    let seed = number("STORM_SEED").map_or(20_261_120, |seed| seed as u64);
    let (findings, mut storm) = storm(size, seed).await;
    let faults = findings.faults();
    assert!(faults.is_empty(), "seed {seed}\n{}\n{}", faults.join("\n"), storm.cluster.logs());
    assert_eq!(findings.ends, BTreeMap::from([("completed".to_string(), size.jobs)]), "seed {seed}");
    let wasted = storm.wasted_share(&findings);
    assert!(wasted < MOST_WASTE, "seed {seed}: {wasted:.3} of the work was for nothing");
    assert_eq!(storm.forced, Vec::<u32>::new(), "seed {seed}: children outlived their worker");
    // Asked to stop, everybody stops, and nothing is left.
    let mut everybody: Vec<Server> = storm.cluster.workers.drain(..).chain(storm.cluster.coordinators.drain(..)).collect();
    everybody.iter_mut().for_each(|server| server.signal(Signal::SIGTERM));
    for server in &mut everybody {
        let status = server.wait();
        assert_eq!(status.code(), Some(0), "{}: {status}\n{}", server.name(), server.log());
    }
    wait_for("the end of every child", || checker::children_of(&storm.cluster.home).is_empty().then_some(()));
    for n in 0..size.workers {
        let left = checker::files(&storm.cluster.home.join(&format!("worker-{n}/scratch")));
        assert_eq!(left, Vec::<std::path::PathBuf>::new(), "scratch is left");
    }
}
