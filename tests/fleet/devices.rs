//! Encoders on a device, on real servers, with a software encoder standing in for one: no machine with a graphics card is needed.
//! What a stand-in makes bears level 6.2, so that what came from where can be seen in the playlists.

use crate::checker;
use crate::cluster::{ACME, Cluster, Setup};
use crate::common::http::Client;
use crate::common::server::{free_port, wait_for};
use crate::end_to_end::{decoded_frames, fetch, wait_until_settled};
use crate::media::kept;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// Longest wait for a job of these tests.
const ENDS_WITHIN: Duration = Duration::from_secs(240);
/// Frames of the kept clip.
const FRAMES: u64 = 300;
/// Chunks that it is cut into.
const CHUNKS: usize = 12;
/// Level 6.2 as the last byte of an H.264 codecs parameter (RFC 6381 3.3).
const STAND_IN: &str = "3e";

/// A fleet whose jobs may go to nvenc, and a worker with nothing but a stand-in for it that is not started yet.
struct Site {
    cluster: Cluster,
    source: String,
    /// While it is there, the stand-in fails.
    fault: std::path::PathBuf,
    page: u16,
}

impl Site {
    async fn new() -> Self {
        let number = toml::Value::Integer;
        let set = vec![
            ("devices.classes", toml::Value::Array(vec!["nvenc".into()])),
            ("devices.wait_s", number(10)),
            ("devices.retest_first_s", number(1)),
            ("devices.retest_longest_s", number(2)),
        ];
        let cluster = Cluster::start(&Setup { workers: 1, coordinators: 1, set, ..Setup::default() });
        let source = cluster.source("bunny.mp4", &kept("bunny-1080p25-12s.mp4")).await;
        let fault = cluster.home.join("the-device-fails");
        Self { cluster, source, fault, page: free_port() }
    }

    fn start_device(&mut self) {
        let device = format!("[{{ class = \"nvenc\", sessions = 1, stand_in = {{ fails_while = {:?} }} }}]", self.fault);
        let environment = [("NARROWS_WORKER__DEVICES", device), ("NARROWS_WORKER__SOFTWARE", "false".into())];
        let worker = self.cluster.worker_with(7, self.page, &environment);
        self.cluster.workers.push(worker);
    }

    fn submit(&self, id: &str, class: &str) {
        let mut job = self.cluster.small_job(id, &self.source, &self.cluster.receiver.url("/hook"));
        job["class"] = class.into();
        job["set"]["packaging.segment_s"] = 1.into();
        job["set"]["chunk.target_s"] = 1.into();
        let answer = self.cluster.post_job(0, ACME, &job);
        assert!(answer.status < 300, "{} {}", answer.status, answer.text());
    }

    async fn class(&self, id: &str) -> Value {
        let status = self.cluster.work_json(&format!("jobs/{id}/status.json")).await.unwrap_or_default();
        status["status"]["class"].clone()
    }

    async fn until_class(&self, id: &str, state: &str) {
        let told = async {
            while self.class(id).await["state"] != state {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let waited = tokio::time::timeout(ENDS_WITHIN, told).await;
        assert!(waited.is_ok(), "{id} is never {state}\n{}", self.cluster.logs());
    }

    /// A line of the worker's metrics that has a device.
    fn metric(&self, line: &str) -> Option<f64> {
        let text = Client::new(self.page).get("/metrics").ok()?.text();
        text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
    }

    fn is_available(&self) -> bool {
        self.metric("narrows_encoder_available{class=\"nvenc\",encoder=\"h264_nvenc\"}") == Some(1.0)
    }

    fn quarantines(&self) -> f64 {
        self.metric("narrows_device_quarantines_total{class=\"nvenc\"}").unwrap_or_default()
    }

    /// Chunks that were encoded in software, and on the device.
    async fn encoded(&self, id: &str) -> (usize, usize) {
        let of = async |folder: &str| self.cluster.work_list(&format!("jobs/{id}/{folder}/encode/")).await.len();
        (of("done").await, of("done-nvenc").await)
    }

    /// The job completes with every frame, all of it from a device or none of it.
    async fn completes(&self, id: &str, on_device: bool) {
        assert_eq!(self.cluster.ended(id, ENDS_WITHIN).await, "completed", "{id}");
        let folder = self.cluster.home.join(&format!("fetched-{id}"));
        fetch(&self.cluster, &format!("out/{id}/"), &folder).await;
        for manifest in ["master.m3u8", "manifest.mpd"] {
            assert_eq!(decoded_frames(&folder.join(manifest)), FRAMES, "{id} {manifest}");
        }
        let report: Value = serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap();
        for rung in report["rungs"].as_array().unwrap() {
            assert_eq!(rung["frames"], FRAMES, "{id}: {rung}");
            let codecs = rung["codecs"].as_str().unwrap();
            assert_eq!(codecs.ends_with(STAND_IN), on_device, "{id}: {codecs}");
            one_encoder(&folder, rung["name"].as_str().unwrap());
        }
    }
}

/// Every segment of a rendition is decoded by the one init segment that its playlist names, and the folder holds nothing else:
/// what another class made is gone.
fn one_encoder(folder: &Path, rung: &str) {
    let playlist = std::fs::read_to_string(folder.join(rung).join("index.m3u8")).unwrap();
    assert_eq!(playlist.matches("#EXT-X-MAP").count(), 1, "{playlist}");
    let there = std::fs::read_dir(folder.join(rung)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let strays: Vec<String> = there.filter(|name| name != "index.m3u8" && !playlist.contains(name.as_str())).collect();
    assert_eq!(strays, Vec::<String>::new(), "{rung}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_to_a_device_wait_for_it_and_fall_back_whole_and_a_device_that_fails_is_left_alone_until_it_is_well() {
    let mut site = Site::new().await;

    // There is no device: one that leaves it open is encoded in software, one that asks for it waits, and says so.
    site.submit("open", "auto");
    site.submit("wants", "gpu");
    site.completes("open", false).await;
    assert_eq!(site.class("open").await, json!({ "class": "cpu", "state": "fell_back" }));
    assert_eq!(site.encoded("open").await, (CHUNKS, 0));
    site.until_class("wants", "waiting").await;
    let said = site.cluster.does(&["status", "wants"]);
    assert!(said.contains("nvenc: waits for a device since"), "{said}");
    assert_eq!(site.encoded("wants").await, (0, 0));

    // It comes: what waited is encoded on it, and what left it open goes there at once.
    site.start_device();
    site.completes("wants", true).await;
    assert_eq!(site.class("wants").await["state"], "chosen");
    assert_eq!(site.encoded("wants").await, (0, CHUNKS));
    assert!(site.is_available());
    site.submit("free", "auto");
    site.completes("free", true).await;
    assert_eq!(site.encoded("free").await, (0, CHUNKS));
    assert_eq!(site.quarantines(), 0.0);

    // It breaks in the middle of a job: the job starts over in software, and nothing that the device made is left in it.
    site.submit("broken", "auto");
    wait_until(async || site.encoded("broken").await.1 > 0).await;
    std::fs::write(&site.fault, b"").unwrap();
    site.completes("broken", false).await;
    let (software, on_device) = site.encoded("broken").await;
    assert!(software == CHUNKS && (1..CHUNKS).contains(&on_device), "{software} and {on_device}");
    assert_eq!(site.class("broken").await, json!({ "class": "cpu", "state": "fell_back" }));

    // It is left alone, and what asked for it waits; until it is well again, which its self-test finds.
    site.submit("again", "gpu");
    wait_for("the device to be left alone", || (site.quarantines() >= 1.0 && !site.is_available()).then_some(()));
    assert_eq!(site.encoded("again").await, (0, 0));
    std::fs::remove_file(&site.fault).unwrap();
    site.completes("again", true).await;
    assert!(site.is_available());

    wait_until_settled(&site.cluster).await;
    let ids = ["open", "wants", "free", "broken", "again"].map(String::from);
    let findings = checker::judge(&site.cluster, ACME.name, &ids).await;
    assert_eq!(findings.faults(), Vec::<String>::new());
}

async fn wait_until(is: impl AsyncFn() -> bool) {
    let holds = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(ENDS_WITHIN, holds).await.expect("it comes to that");
}
