//! The one judge at the end: looks at the buckets, the queues, what the receiver got and which processes are left, and
//! believes nobody's word.

use crate::cluster::{Cluster, MEDIA, PROGRAM};
use crate::common::Home;
use crate::common::server::{processes, until};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// Objects read at once.
const READS_AT_ONCE: usize = 16;
/// Longest wait for the queues to be empty once every job has ended.
const DRAINED_WITHIN: Duration = Duration::from_secs(90);

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub jobs: usize,
    pub ends: BTreeMap<String, usize>,
    /// Jobs without an end.
    pub lost: Vec<String>,
    /// Objects that are named and are not there, or are others.
    pub corrupt: Vec<String>,
    /// Jobs of which two things are said that cannot both be true.
    pub conflicting: Vec<String>,
    /// Ends that no callback told, or that were told under two ids.
    pub untold: Vec<String>,
    /// Callbacks that came more than once; allowed, and counted.
    pub duplicates: usize,
    pub callbacks: usize,
    pub objects: usize,
    /// Ended jobs without exactly one record of their usage.
    pub unmetered: Vec<String>,
    /// Queues that hold something.
    pub queued: BTreeMap<String, (u64, u64)>,
    /// CPU seconds that the bills name: of the attempts that are in the outputs.
    pub cpu_s: f64,
}

impl Findings {
    /// Everything that must be empty, and is not.
    pub fn faults(&self) -> Vec<String> {
        let lists = [
            ("lost", &self.lost),
            ("corrupt", &self.corrupt),
            ("conflicting", &self.conflicting),
            ("untold", &self.untold),
            ("unmetered", &self.unmetered),
        ];
        let mut found: Vec<String> =
            lists.iter().flat_map(|(what, all)| all.iter().map(move |one| format!("{what}: {one}"))).collect();
        found.extend(self.queued.iter().map(|(queue, counts)| format!("queued: {queue} {counts:?}")));
        found
    }
}

/// Everything that is to be known of these jobs, once they have ended.
pub async fn judge(cluster: &Cluster, tenant: &str, jobs: &[String]) -> Findings {
    let mut findings = Findings { jobs: jobs.len(), ..Findings::default() };
    let usage = usage_records(cluster, tenant).await;
    let events = events(cluster).await;
    let none = Vec::new();
    for job in jobs {
        let told = events.get(job).unwrap_or(&none);
        one_end(cluster, job, told, &mut findings).await;
        match usage.get(job).map(Vec::as_slice) {
            Some([one]) => {
                findings.cpu_s += one["cpu_s"].as_f64().unwrap_or_default();
            }
            records => findings.unmetered.push(format!("{job}: {} records", records.map_or(0, <[Value]>::len))),
        }
    }
    callbacks(cluster, jobs, &mut findings);
    findings.queued = until(DRAINED_WITHIN, || queued(cluster).is_empty().then(BTreeMap::new)).unwrap_or_else(|| queued(cluster));
    findings
}

async fn one_end(cluster: &Cluster, job: &str, told: &[Value], findings: &mut Findings) {
    let ends: Vec<&str> = told.iter().filter_map(|event| event["type"].as_str()).filter(|kind| is_end(kind)).collect();
    let Some(end) = ends.first().and_then(|kind| kind.strip_prefix("job.")) else {
        return findings.lost.push(job.to_string());
    };
    *findings.ends.entry(end.to_string()).or_default() += 1;
    let mut conflict = |what: String| findings.conflicting.push(format!("{job}: {what}"));
    if ends.len() > 1 {
        conflict(format!("told {ends:?}"));
    }
    if told.last().and_then(|event| event["type"].as_str()) != Some(ends[0]) {
        conflict("something was told after the end".into());
    }
    let sequences: Vec<u64> = told.iter().filter_map(|event| event["sequence"].as_u64()).collect();
    if !sequences.iter().copied().eq(1..=told.len() as u64) {
        conflict(format!("sequences {sequences:?}"));
    }
    let status = cluster.work_json(&format!("jobs/{job}/status.json")).await.unwrap_or_default();
    if status["status"]["state"] != *end {
        conflict(format!("told {end}, status {}", status["status"]["state"]));
    }
    let result = cluster.work_json(&format!("jobs/{job}/result.json")).await.unwrap_or_default();
    if result["state"] != *end {
        conflict(format!("told {end}, result {}", result["state"]));
    }
    if cluster
        .bucket(crate::cluster::WORK)
        .exists(&format!("open/{}/{job}", status["tenant"].as_str().unwrap_or("?")))
        .await
        .unwrap_or(true)
    {
        conflict("is still among the open ones".into());
    }
    if end == "completed" {
        let wrong = objects(cluster, job, &result, findings).await;
        findings.corrupt.extend(wrong);
    }
}

/// Every object that the result names, read whole.
async fn objects(cluster: &Cluster, job: &str, result: &Value, findings: &mut Findings) -> Vec<String> {
    let accepted = cluster.work_json(&format!("jobs/{job}/job.json")).await.unwrap_or_default();
    let uri = accepted["job"]["output"]["uri"].as_str().unwrap_or_default().to_string();
    let Some(prefix) = uri.strip_prefix(&cluster.uri("")) else { return vec![format!("{job}: output {uri:?}")] };
    let prefix = prefix.trim_end_matches('/');
    let media = cluster.bucket(MEDIA);
    let named = result["objects"].as_array().cloned().unwrap_or_default();
    findings.objects += named.len();
    if named.is_empty() {
        return vec![format!("{job}: the result names no object")];
    }
    let look = named.into_iter().map(|object| {
        let (media, path) = (media.clone(), format!("{prefix}/{}", object["path"].as_str().unwrap_or_default()));
        async move {
            let body = match media.read(&path).await {
                Ok(body) => body.to_vec(),
                Err(e) => return Ok::<_, std::convert::Infallible>(Some(format!("{path}: {}", e.kind()))),
            };
            let same = Some(body.len() as u64) == object["bytes"].as_u64()
                && Some(hex::encode(Sha256::digest(&body)).as_str()) == object["sha256"].as_str();
            Ok((!same).then(|| format!("{path}: other bytes than the result says")))
        }
    });
    let found: Vec<Option<String>> = stream::iter(look).buffer_unordered(READS_AT_ONCE).try_collect().await.unwrap_or_default();
    found.into_iter().flatten().collect()
}

/// Every recorded event of every job, in order.
async fn events(cluster: &Cluster) -> BTreeMap<String, Vec<Value>> {
    let paths: BTreeSet<String> = cluster.work_list("events/").await.into_iter().collect();
    let read = paths.into_iter().map(|path| async move {
        let job = path.split('/').nth(1).unwrap_or_default().to_string();
        (job, cluster.work_json(&path).await.unwrap_or_default())
    });
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut read = stream::iter(read).buffered(READS_AT_ONCE);
    while let Some((job, event)) = read.next().await {
        all.entry(job).or_default().push(event);
    }
    all
}

async fn usage_records(cluster: &Cluster, tenant: &str) -> BTreeMap<String, Vec<Value>> {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for path in cluster.work_list(&format!("usage/{tenant}/")).await {
        let job = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".json").to_string();
        let record = cluster.work_json(&path).await.unwrap_or_default();
        let usage = if record["usage"].is_object() { record["usage"].clone() } else { record };
        all.entry(job).or_default().push(usage);
    }
    all
}

/// Every end came at least once, always under one id.
fn callbacks(cluster: &Cluster, jobs: &[String], findings: &mut Findings) {
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for received in cluster.receiver.received() {
        findings.callbacks += 1;
        let body = received.json();
        let id = received.header("webhook-id").unwrap_or_default().to_string();
        if !seen.insert(id.clone()) {
            findings.duplicates += 1;
        }
        if body["type"].as_str().is_some_and(is_end) {
            ids.entry(body["job"].as_str().unwrap_or_default().to_string()).or_default().insert(id);
        }
    }
    for job in jobs {
        let told = ids.get(job).map_or(0, BTreeSet::len);
        if told != 1 {
            findings.untold.push(format!("{job}: {told} ids"));
        }
    }
}

fn queued(cluster: &Cluster) -> BTreeMap<String, (u64, u64)> {
    let mut queues = cluster.rabbit.queues("/");
    queues.retain(|name, counts| name.starts_with("narrows.") && *counts != (0, 0));
    queues
}

fn is_end(kind: &str) -> bool {
    ["job.completed", "job.failed", "job.canceled", "job.rejected"].contains(&kind)
}

/// Jailed children of this very program that run in a folder of this fleet.
pub fn children_of(home: &Home) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let ours = std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new(PROGRAM));
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        ours && words.split(|byte| *byte == 0).nth(1) == Some(b"child") && folder.starts_with(home.path())
    };
    processes().into_iter().filter(is_child).collect()
}

/// Every file under a folder, but locks.
pub fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    all.filter(|path| path.file_name().is_none_or(|name| name != "lock")).collect()
}
