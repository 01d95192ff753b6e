//! Workers that are asked to stop in the middle of their work, as at every rollout.

use crate::cluster::{ACME, Cluster, Setup};
use crate::common::server::{descendants, wait_for};
use crate::media::kept;
use nix::sys::signal::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

const SLOTS: usize = 2;
/// Jobs for each worker that is asked to stop: so that there is always work left.
const JOBS_A_TURN: usize = 2;
const PATIENCE: Duration = Duration::from_secs(600);

/// Asks one worker after the other to stop while its children encode, and puts another in its place: how long each took to
/// end. Everything that was begun was finished: no part was ever delivered twice.
pub async fn under_load(turns: usize) -> Vec<Duration> {
    let mut cluster = Cluster::start(&Setup { workers: 2, coordinators: 1, slots: SLOTS, ..Setup::default() });
    let source = cluster.source("drained.mp4", &kept("bunny-1080p25-12s.mp4")).await;
    let set = json!({ "video.rungs": [{ "height": 720, "crf": 26 }, { "height": 360, "crf": 28 }], "chunk.target_s": 2 });
    let ids: Vec<String> = (0..turns * JOBS_A_TURN).map(|n| format!("drained-{n}")).collect();
    for id in &ids {
        let job = json!({
            "id": id, "tenant": ACME.name, "preset": "h264", "set": set,
            "input": { "uri": source }, "output": { "uri": cluster.uri(&format!("out/{id}/")) },
        });
        assert!(cluster.post_job(0, ACME, &job).status < 300, "{id}");
    }
    let mut took = Vec::new();
    for turn in 0..turns {
        let n = turn % cluster.workers.len();
        let worker = &mut cluster.workers[n];
        wait_for("children that work", || (descendants(worker.pid()).len() >= SLOTS).then_some(()));
        let asked = Instant::now();
        worker.signal(Signal::SIGTERM);
        let status = tokio::task::block_in_place(|| worker.wait());
        took.push(asked.elapsed());
        assert!(status.success(), "{status}\n{}", worker.log());
        cluster.workers[n] = cluster.worker(n);
    }
    for id in &ids {
        assert_eq!(cluster.ended(id, PATIENCE).await, "completed", "{id}");
        for path in cluster.work_list(&format!("jobs/{id}/done/")).await {
            let marker = cluster.work_json(&path).await.expect("it was listed");
            assert_eq!(marker["attempt"], 1, "{path} was delivered twice");
        }
    }
    took
}
