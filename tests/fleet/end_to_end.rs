//! Jobs by every door, over real servers, to outputs that decode and callbacks that verify; and everything an operator and
//! a customer may want of them.

use crate::checker;
use crate::cluster::{ACME, Buckets, Cluster, MEDIA, OTHER, Setup, WEBHOOK_SECRET};
use crate::common::{Answer, wait_for};
use crate::media::kept;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Longest wait for a job of these tests.
const ENDS_WITHIN: Duration = Duration::from_secs(120);

/// Everything under a prefix of the customers' bucket, as files.
pub async fn fetch(cluster: &Cluster, prefix: &str, folder: &Path) {
    let media = cluster.bucket(MEDIA);
    for entry in media.list_with(prefix).recursive(true).await.unwrap() {
        if entry.metadata().is_file() {
            let path = folder.join(entry.path().strip_prefix(prefix).unwrap());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, media.read(entry.path()).await.unwrap().to_vec()).unwrap();
        }
    }
}

/// Frames that ffmpeg decodes of the best rendition; it may complain of nothing.
pub fn decoded_frames(manifest: &Path) -> u64 {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostats", "-progress", "pipe:1", "-i"]).arg(manifest);
    let output = command.args(["-map", "0:v:0", "-f", "null", "-"]).output().expect("ffmpeg is installed (make setup)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", manifest.display());
    let progress = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = progress.lines().rev().find_map(|line| line.strip_prefix("frame="));
    last.and_then(|n| n.trim().parse().ok()).expect("ffmpeg counts frames")
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_by_every_door_end_in_outputs_that_decode_and_callbacks_that_verify() {
    let cluster = Cluster::start(&Setup::default());
    let hook = cluster.receiver.url("/hook");
    // The first callback of all meets a receiver that is not well.
    cluster.receiver.script("/hook", [Answer::status(500), Answer::closed()]);
    let clips = ["bunny-1080p25-12s.mp4", "vfr-subtitles.mkv", "odd-161x121.webm", "editlist-preroll.mp4"];
    let mut jobs = Vec::new();
    for (n, name) in clips.iter().enumerate() {
        let source = cluster.source(name, &kept(name)).await;
        jobs.push(cluster.small_job(&format!("clip-{n}"), &source, &hook));
    }
    cluster.publish("narrows.jobs.normal", &[jobs[0].to_string().into_bytes()]).await;
    for job in &jobs[1..3] {
        let answer = cluster.post_job(0, ACME, job);
        assert!([200, 201, 202].contains(&answer.status), "{} {}", answer.status, answer.text());
        // The same again, at the other coordinator, is the same job.
        let again = cluster.post_job(1, ACME, job);
        assert!([200, 201, 202].contains(&again.status), "{} {}", again.status, again.text());
    }
    let document = cluster.home.write("job.json", jobs[3].to_string());
    cluster.does(&["submit", document.to_str().unwrap(), "--wait"]);
    let ids: Vec<String> = jobs.iter().map(|job| job["id"].as_str().unwrap().to_string()).collect();
    for id in &ids {
        assert_eq!(cluster.ended(id, ENDS_WITHIN).await, "completed", "{id}");
    }
    let is_end = |body: &Value| body["type"] == "job.completed";
    let all = |received: &[crate::common::receiver::Received]| {
        received.iter().filter(|r| r.answered == Some(200)).map(|r| r.json()).filter(is_end).count() >= ids.len()
    };
    let received = cluster.receiver.until("the end of every job", all).await;
    let webhook = Webhook::new(WEBHOOK_SECRET).unwrap();
    for callback in &received {
        webhook.verify(&callback.body, &callback.header_map()).unwrap();
        let (body, id) = (callback.json(), callback.header("webhook-id").unwrap());
        // Without the full stop, which separates the id from the time in what is signed.
        assert_eq!(body["id"].as_str().unwrap().replace('.', "%2E"), id);
        assert!(ids.contains(&body["job"].as_str().unwrap().to_string()), "{body}");
    }
    in_order(&received, &ids);
    for (n, id) in ids.iter().enumerate() {
        let folder = cluster.home.join(&format!("fetched-{n}"));
        fetch(&cluster, &format!("out/{id}/"), &folder).await;
        let report: Value = serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap();
        for manifest in ["master.m3u8", "manifest.mpd"] {
            assert_eq!(Some(decoded_frames(&folder.join(manifest))), report["rungs"][0]["frames"].as_u64(), "{id} {manifest}");
        }
    }
    wait_until_settled(&cluster).await;
    let findings = checker::judge(&cluster, ACME.name, &ids).await;
    assert_eq!(findings.faults(), Vec::<String>::new());
    assert!(findings.objects > 40, "{}", findings.objects);
}

/// The work and the media in Azure's blob service: one job from its submission to its purge.
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_whose_buckets_are_azures_does_a_whole_job_and_purges_it() {
    let cluster = Cluster::start(&Setup { workers: 1, coordinators: 1, buckets: Buckets::Azure, ..Setup::default() });
    let doctor = String::from_utf8(cluster.narrows(&["doctor"]).stdout).unwrap();
    let line = |check: &str| doctor.lines().find(|line| line.contains(check)).unwrap_or_else(|| panic!("{check}: {doctor}"));
    for check in ["  store media: ", "  store work: ", "  clock: "] {
        assert!(line(check).starts_with("ok"), "{doctor}");
    }
    let hook = cluster.receiver.url("/hook");
    let source = cluster.source("bunny.mp4", &kept("bunny-1080p25-12s.mp4")).await;
    assert!(source.starts_with("az://"), "{source}");
    let id = "kept".to_string();
    assert!(cluster.post_job(0, ACME, &cluster.small_job(&id, &source, &hook)).status < 300);
    assert_eq!(cluster.ended(&id, ENDS_WITHIN).await, "completed");
    let folder = cluster.home.join("fetched");
    fetch(&cluster, &format!("out/{id}/"), &folder).await;
    let report: Value = serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap();
    assert_eq!(Some(decoded_frames(&folder.join("master.m3u8"))), report["rungs"][0]["frames"].as_u64());
    wait_for("the end to be told", || {
        cluster.receiver.received_at("/hook").iter().any(|r| r.json()["type"] == "job.completed").then_some(())
    });
    wait_until_settled(&cluster).await;
    let findings = checker::judge(&cluster, ACME.name, std::slice::from_ref(&id)).await;
    assert_eq!(findings.faults(), Vec::<String>::new());
    purge(&cluster).await;
}

/// Of each job: the deliveries that were taken, without repetitions, are in the order of the sequence and have no gap.
fn in_order(received: &[crate::common::receiver::Received], ids: &[String]) {
    for id in ids {
        let mut seen = BTreeSet::new();
        let of_job = received.iter().filter(|r| r.answered == Some(200)).map(|r| r.json()).filter(|body| body["job"] == *id);
        let sequences: Vec<u64> = of_job.filter_map(|body| body["sequence"].as_u64()).filter(|n| seen.insert(*n)).collect();
        assert!(sequences.is_sorted(), "{id}: {sequences:?}");
        assert!(sequences.len() >= 8, "{id}: {sequences:?}");
    }
}

/// Nobody looks after any job any more.
pub async fn wait_until_settled(cluster: &Cluster) {
    let settled = async {
        while !cluster.work_list("open/").await.is_empty() || !cluster.work_list("settling/").await.is_empty() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(ENDS_WITHIN, settled).await.expect("every job is settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_lists_watches_cancels_replays_meters_freezes_and_purges() {
    let cluster = Cluster::start(&Setup::default());
    let hook = cluster.receiver.url("/hook");
    let source = cluster.source("bunny.mp4", &kept("bunny-1080p25-12s.mp4")).await;
    assert!(cluster.post_job(0, ACME, &cluster.small_job("kept", &source, &hook)).status < 300);
    let watched = cluster.does(&["watch", "kept", "--json"]);
    let kinds: Vec<String> =
        watched.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].as_str().unwrap().to_string()).collect();
    assert_eq!((kinds[0].as_str(), kinds.last().unwrap().as_str()), ("job.accepted", "job.completed"), "{kinds:?}");
    let status: Value = serde_json::from_str(&cluster.does(&["status", "kept", "--json"])).unwrap();
    assert_eq!(status["status"]["state"], "completed");
    let by_http = cluster.http(1, ACME).get("/v1/jobs/kept").unwrap().json();
    assert_eq!(by_http["status"], status["status"]);
    assert!(cluster.does(&["list", "--tenant", "acme"]).contains("kept"));

    // Another tenant sees nothing of it.
    for path in ["/v1/jobs/kept", "/v1/jobs/kept/events"] {
        assert_eq!(cluster.http(0, OTHER).get(path).unwrap().status, 404, "{path}");
    }
    assert_eq!(cluster.http_as_nobody(0).get("/v1/jobs/kept").unwrap().status, 401);

    replay(&cluster).await;
    cancel(&cluster, &source, &hook).await;
    meter(&cluster);
    freeze(&cluster, &source, &hook).await;
    purge(&cluster).await;
}

/// Everything that was told is told again, under the same ids.
async fn replay(cluster: &Cluster) {
    let ids = |path: &str| -> BTreeSet<String> {
        cluster.receiver.received_at(path).iter().map(|r| r.header("webhook-id").unwrap().to_string()).collect()
    };
    let ended = |path: &str| cluster.receiver.received_at(path).iter().any(|r| r.json()["type"] == "job.completed");
    wait_for("the end to be told", || ended("/hook").then_some(()));
    let (before, told) = (ids("/hook"), cluster.receiver.received_at("/hook").len());
    cluster.does(&["replay", "kept"]);
    wait_for("everything to be told again", || {
        (cluster.receiver.received_at("/hook").len() >= told + before.len()).then_some(())
    });
    assert_eq!(ids("/hook"), before);
}

/// A job that is under way is canceled, is told so once, and leaves nothing running.
async fn cancel(cluster: &Cluster, source: &str, hook: &str) {
    let mut long = cluster.small_job("long", source, hook);
    long["set"]["video.rungs"] = json!([{ "height": 1080, "crf": 20 }]);
    long["set"]["video.speed"] = json!("veryslow");
    assert!(cluster.post_job(0, ACME, &long).status < 300);
    wait_for("a child at work", || (!checker::children_of(&cluster.home).is_empty()).then_some(()));
    cluster.does(&["cancel", "long"]);
    assert_eq!(cluster.ended("long", ENDS_WITHIN).await, "canceled");
    wait_for("the end of its children", || checker::children_of(&cluster.home).is_empty().then_some(()));
    assert!(!cluster.bucket(MEDIA).exists("out/long/master.m3u8").await.unwrap());
}

fn meter(cluster: &Cluster) {
    let day = |offset: i64| {
        let day = time::OffsetDateTime::now_utc().date() + time::Duration::days(offset);
        format!("{:04}-{:02}-{:02}", day.year(), u8::from(day.month()), day.day())
    };
    let (from, to) = (day(-1), day(1));
    let words = |more: &'static str| vec!["usage", "--tenant", "acme", "--from", &from, "--to", &to, more];
    let usage: Value = serde_json::from_str(&cluster.does(&words("--json"))).unwrap();
    let text = usage.to_string();
    // Twelve seconds, twice: the ladder has two rungs.
    assert!(text.contains("h264"), "{text}");
    assert!(cluster.does(&words("--csv")).lines().count() >= 2);
}

/// A frozen tenant's jobs are refused and it is told why; then they are taken again.
async fn freeze(cluster: &Cluster, source: &str, hook: &str) {
    cluster.does(&["tenant", "freeze", "acme", "--reason", "unpaid"]);
    let refused = cluster.post_job(0, ACME, &cluster.small_job("frozen", source, hook));
    assert!((400..500).contains(&refused.status) && refused.text().contains("unpaid"), "{} {}", refused.status, refused.text());
    let problem = refused.header("content-type").unwrap_or_default();
    assert!(problem.starts_with("application/problem+json"), "{problem}");
    cluster.does(&["tenant", "unfreeze", "acme", "--reason", "paid"]);
    let taken = cluster.post_job(0, ACME, &cluster.small_job("thawed", source, hook));
    assert!(taken.status < 300, "{} {}", taken.status, taken.text());
    assert_eq!(cluster.ended("thawed", ENDS_WITHIN).await, "completed");
}

/// Of a purged job nothing is left but what it is billed by.
async fn purge(cluster: &Cluster) {
    let before = cluster.bucket(MEDIA).list_with("out/kept/").recursive(true).await.unwrap().len();
    assert!(before > 10, "{before}");
    let said = cluster.does(&["purge", "kept", "--yes", "--json"]);
    let report: Value = serde_json::from_str(&said).unwrap();
    assert!(report.to_string().len() > 2, "{report}");
    let left = cluster.bucket(MEDIA).list_with("out/kept/").recursive(true).await.unwrap();
    assert!(left.iter().all(|entry| !entry.metadata().is_file()), "{left:?}");
    for folder in ["jobs/kept/", "events/kept/", "callbacks/kept/"] {
        assert_eq!(cluster.work_list(folder).await, Vec::<String>::new());
    }
    assert_eq!(cluster.http(0, ACME).get("/v1/jobs/kept").unwrap().status, 404);
    let metered = cluster.work_list("usage/acme/").await;
    assert!(metered.iter().any(|path| path.ends_with("/kept.json")), "{metered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_asked_to_stop_finish_what_they_began_and_nothing_is_delivered_twice() {
    let took = crate::drain::under_load(2).await;
    println!("ended after {took:?}");
}
