//! A worker of a fleet: what it takes, whose it is, and how it leaves.

use super::fake::{Act, FakeChildren, Process, Site, id, job};
use super::settings::STOP_GRACE;
use super::settings::fixture::settings;
use super::*;
use crate::broker::Broker;
use crate::event::{Cause, Event, Fact, Failure, rejected_stream};
use crate::job::Lane;
use crate::part::accept::{self, Submission};
use crate::part::accepted::Accepted;
use crate::part::finish::JobResult;
use crate::part::report::JobReport;
use crate::part::scratch::{ScratchFolder, ScratchLimits};
use crate::part::{Attempt, Settings};
use crate::plan::marker::{Marker, PartId};
use crate::store::key::Key;
use crate::tenant::{Frozen, NOBODY, SubmitRules, TenantSettings, Tenants};
use std::collections::BTreeMap;

const WORK: Queue = Queue::Work(Class::Cpu, Lane::Normal);

fn tenants(text: &str, require_user_id: bool) -> Tenants {
    let settings: BTreeMap<String, TenantSettings> = toml::from_str(text).unwrap();
    Tenants::new(&settings, SubmitRules { require_user_id, ..SubmitRules::default() }).unwrap()
}

fn two() -> Tenants {
    tenants("[acme]\namqp_users = [\"acme-in\"]\n[beta]\namqp_users = [\"beta-in\"]\n", true)
}

fn local() -> Tenants {
    tenants("", false)
}

fn document(id: &str, tenant: &str) -> Vec<u8> {
    format!(r#"{{"id":"{id}","tenant":"{tenant}","input":{{"uri":"talk.mp4"}},"output":{{"uri":"out"}},"preset":"h264"}}"#)
        .into_bytes()
}

async fn accepted(process: &Process, id: &str) -> Option<Accepted> {
    let id = JobId::try_from(id.to_string()).unwrap();
    process.tools.stores.work().get_json(&Key::job(&id)).await.unwrap()
}

async fn result(process: &Process) -> Option<JobResult> {
    process.tools.stores.work().get_json(&Key::result(&id())).await.unwrap()
}

async fn is_there(process: &Process, key: Key) -> bool {
    process.tools.stores.work().size(&key).await.unwrap().is_some()
}

fn works() -> std::sync::Arc<FakeChildren> {
    FakeChildren::new(|_, _| Act::Work)
}

/// Children of which those of these chunks hold.
fn holds(chunks: &'static [u32]) -> std::sync::Arc<FakeChildren> {
    FakeChildren::new(|part, _| match part {
        PartId::Encode(n) if chunks.contains(&n) => Act::Hold,
        _ => Act::Work,
    })
}

#[tokio::test]
async fn what_is_no_job_is_rejected_once_by_its_field_and_nothing_is_lost_or_comes_again() {
    let (site, children) = (Site::new(), works());
    let process = site.start_fleet(&children, local());
    let whole = |text: &str| (text.as_bytes().to_vec(), ".", None);
    let deep = format!(r#"{{"input":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let with = |more: &str| format!(r#"{{"input":{{"uri":"talk.mp4"}},"output":{{"uri":"out"}},{more}}}"#).into_bytes();
    let source = |uri: &str| format!(r#"{{"id":"src","input":{{"uri":"{uri}"}},"output":{{"uri":"out"}}}}"#).into_bytes();
    let corpus: Vec<(Vec<u8>, &str, Option<&str>)> = vec![
        (b"\xff\xfe{\0".to_vec(), ".", None),
        whole(""),
        whole("null"),
        whole("{"),
        whole("<job/>"),
        whole(&deep),
        (vec![b'x'; 300_000], ".", None),
        (with(r#""id":"bad-1","priority":7"#), "priority", Some("bad-1")),
        (with(r#""id":"../x""#), "id", None),
        (with(r#""id":"rejected-0011""#), "id", None),
        (with(r#""id":"bad-2","lane":"fast""#), "lane", Some("bad-2")),
        (with(r#""id":"bad-3","preset":"h266""#), "preset", Some("bad-3")),
        (with(r#""id":"bad-4","set":{"video.codec":"flash"}"#), "set.video.codec", Some("bad-4")),
        (with(r#""tenant":"acme""#), "tenant", None),
        (with(r#""tenant":"../../x""#), "tenant", None),
        (source("file:///etc/passwd"), "input.uri", Some("src")),
        (source("s3://elsewhere/secret.mp4"), "input.uri", Some("src")),
        (source("http://169.254.169.254/latest/meta-data/"), "input.uri", Some("src")),
        (br#"{"id":"out","input":{"uri":"talk.mp4"},"output":{"uri":"s3://elsewhere/"}}"#.to_vec(), "output.uri", Some("out")),
        (with(r#""callbacks":[{"url":"file:///etc/passwd"}]"#), "callbacks[0].url", None),
    ];
    let mut told = process.told().await;
    let working = process.work(settings());
    for (document, path, own_id) in &corpus {
        process.submit_document(document).await;
        let (event, at, requested) = told.rejection().await;
        let text = String::from_utf8_lossy(&document[..document.len().min(80)]);
        assert_eq!(at, *path, "{text}: {:?}", event.fact);
        match own_id {
            Some(own) => assert_eq!((event.job.as_str(), requested), (*own, None)),
            None => assert_eq!(event.job, rejected_stream(document), "{text}"),
        }
        assert!(["local", NOBODY].contains(&event.tenant.as_str()));
    }
    process.quiet().await;
    working.stop().await;
    assert_eq!(children.ran().len(), 0);
    let left: u64 = {
        let mut sum = 0;
        for queue in Queue::all() {
            sum += process.waiting(queue).await;
        }
        sum
    };
    assert_eq!(left, 0, "each was told once");
    assert_eq!(process.tools.stores.work().list("jobs/").await.unwrap(), Vec::<String>::new());
    assert_eq!(process.tools.stores.work().list("open/").await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_submission_is_the_tenants_whose_user_the_broker_vouches_for() {
    let site = Site::new();
    let process = site.start_fleet(&works(), two());
    let mut told = process.told().await;
    let submit = async |document: &[u8], user: Option<&str>| {
        accept::submit(&process.tools, Submission { document, user }).await.unwrap();
    };
    submit(&document("talk", "acme"), None).await;
    let (event, path, _) = told.rejection().await;
    assert_eq!((event.tenant.as_str(), path.as_str()), (NOBODY, "tenant"));
    submit(&document("talk", "beta"), Some("acme-in")).await;
    let (event, path, _) = told.rejection().await;
    assert_eq!((event.tenant.as_str(), path.as_str()), ("acme", "tenant"), "the one who asked is told");
    assert!(accepted(&process, "talk").await.is_none());

    submit(&document("talk", "acme"), Some("acme-in")).await;
    let event = told.find(|e| e.fact == Fact::JobAccepted).await;
    assert_eq!((event.job.as_str(), event.tenant.as_str()), ("talk", "acme"));
    assert!(is_there(&process, Key::open("acme", &id())).await);
    let first = accepted(&process, "talk").await.unwrap();
    assert!(is_there(&process, Key::index("acme", first.accepted_ms, &id())).await);

    let stolen = document("talk", "beta");
    submit(&stolen, Some("beta-in")).await;
    let (event, path, requested) = told.rejection().await;
    assert_eq!((path.as_str(), requested.as_deref(), event.tenant.as_str()), ("id", Some("talk"), "beta"));
    assert_eq!(event.job, rejected_stream(&stolen), "nothing is told of the other tenant's job");
    assert_eq!(accepted(&process, "talk").await, Some(first));
    assert!(!is_there(&process, Key::open("beta", &id())).await);
}

#[tokio::test]
async fn the_same_submission_again_is_the_same_job_and_asks_for_nothing_twice() {
    let (site, children) = (Site::new(), holds(&[0]));
    let process = site.start_fleet(&children, local());
    let mut told = process.told().await;
    let working = process.work(settings());
    process.submit_document(&document("talk", "local")).await;
    children.hanging.notified().await;
    let before = children.ran();
    process.submit_document(&document("talk", "local")).await;
    process.wait_until("the second submission is taken", async || process.broker.unsettled(Queue::Jobs(Lane::Normal)) == 0).await;
    children.go_on();
    told.find(|e| matches!(e.fact, Fact::JobCompleted { .. })).await;
    process.quiet().await;
    working.stop().await;
    assert!(before[&PartId::Encode(0)] == 1 && children.ran().values().all(|times| *times == 1), "{:?}", children.ran());
    assert_eq!(process.tools.stores.work().list("index/").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_quota_lets_jobs_start_then_wait_then_refuses_them() {
    let site = Site::new();
    let process = site.start_fleet(&works(), tenants("[acme.quota]\nactive_jobs = 1\nqueued_jobs = 1\n", false));
    let mut told = process.told().await;
    for id in ["a", "b", "c"] {
        let document = document(id, "acme");
        accept::submit(&process.tools, Submission { document: &document, user: None }).await.unwrap();
    }
    let (event, path, _) = told.rejection().await;
    assert_eq!((event.job.as_str(), path.as_str()), ("c", "tenant"));
    assert!(accepted(&process, "a").await.is_some() && accepted(&process, "b").await.is_some());
    assert!(accepted(&process, "c").await.is_none());
    assert_eq!(process.waiting(WORK).await, 1, "one job was started, the other waits");
    let work = process.tools.stores.work();
    let waiting = work.list(&Key::waiting_folder("acme")).await.unwrap();
    assert_eq!(
        waiting.iter().filter_map(|path| Key::of_waiting(path)).map(|(_, job)| job.to_string()).collect::<Vec<_>>(),
        ["b"]
    );
    assert!(!is_there(&process, Key::open("acme", &JobId::try_from("c".to_string()).unwrap())).await);
    // Sent again, the one that waits still does; the one that was started is asked for again, in case nobody heard.
    for (id, asked) in [("b", 1), ("a", 2)] {
        let document = document(id, "acme");
        accept::submit(&process.tools, Submission { document: &document, user: None }).await.unwrap();
        assert_eq!(process.waiting(WORK).await, asked);
    }
}

#[tokio::test]
async fn minutes_that_were_used_today_are_gone() {
    let site = Site::new();
    let process = site.start_fleet(&works(), tenants("[acme.quota]\nminutes_per_day = 2\n", false));
    let mut told = process.told().await;
    let usage = serde_json::json!({"version": 1, "usage": {"output": [
        {"codec": "h264", "class": "hd", "feature": "", "seconds": 61.0}], "frames": 0, "cpu_s": 0.0, "wasted_cpu_s": 0.0,
        "wasted_attempts": 0, "parts": 0, "source_bytes": 0, "output_bytes": 0}});
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let today = crate::event::rfc3339::day(now.as_millis() as u64);
    let record = async |id: &str| {
        let key = Key::usage("acme", &today, &JobId::try_from(id.to_string()).unwrap());
        process.tools.stores.work().put_json(&key, &usage).await.unwrap();
    };
    record("first").await;
    let submit = async |id: &str| {
        let document = document(id, "acme");
        accept::submit(&process.tools, Submission { document: &document, user: None }).await.unwrap();
    };
    submit("a").await;
    assert!(accepted(&process, "a").await.is_some());
    record("second").await;
    submit("b").await;
    let (event, path, _) = told.rejection().await;
    assert_eq!((event.job.as_str(), path.as_str()), ("b", "tenant"));
}

#[tokio::test]
async fn a_frozen_tenant_starts_nothing_until_it_is_thawed() {
    let site = Site::new();
    let process = site.start_fleet(&works(), tenants("[acme]\n[beta]\n", false));
    let frozen = Frozen { reason: "unpaid".into(), since_ms: 5 };
    process.tools.stores.work().put_json(&Key::frozen("acme"), &frozen).await.unwrap();
    let mut told = process.told().await;
    let submit = async |id: &str, tenant: &str| {
        let document = document(id, tenant);
        accept::submit(&process.tools, Submission { document: &document, user: None }).await.unwrap();
    };
    submit("a", "acme").await;
    let (event, ..) = told.rejection().await;
    assert!(matches!(event.fact, Fact::JobRejected { reason, .. } if reason.contains("unpaid")));
    submit("b", "beta").await;
    assert!(accepted(&process, "a").await.is_none() && accepted(&process, "b").await.is_some());
    process.tools.stores.work().delete(&Key::frozen("acme")).await.unwrap();
    submit("a", "acme").await;
    assert!(accepted(&process, "a").await.is_some(), "mended, it may be sent again under the same id");
}

#[tokio::test]
async fn a_worker_without_a_free_slot_takes_nothing() {
    let (site, children) = (Site::new(), holds(&[0, 1]));
    let process = site.start_fleet(&children, local());
    let mut told = process.told().await;
    let working = process.work(settings());
    process.submit_document(&document("talk", "local")).await;
    children.hanging.notified().await;
    children.hanging.notified().await;
    let high = Queue::Work(Class::Cpu, Lane::High);
    process.broker.publish(high, b"{}".to_vec()).await.unwrap();
    process.wait_until("what was taken before is done", async || children.ran().len() == 3).await;
    assert_eq!((process.waiting(high).await, process.waiting(WORK).await), (1, 1), "what cannot start now is for others");
    children.go_on();
    told.find(|e| matches!(e.fact, Fact::JobCompleted { .. })).await;
    process.quiet().await;
    working.stop().await;
}

#[tokio::test]
async fn asked_to_drain_a_worker_finishes_what_is_open_and_takes_nothing_further() {
    let (site, children) = (Site::new(), holds(&[0, 1]));
    let process = site.start_fleet(&children, local());
    let working = process.work(WorkerSettings { grace: Duration::from_secs(50), ..settings() });
    process.submit_document(&document("talk", "local")).await;
    children.hanging.notified().await;
    children.hanging.notified().await;
    process.control(&Control::Drain { worker: Some("somebody else".into()) }).await;
    process.control(&Control::Drain { worker: Some("tester".into()) }).await;
    let health = working.health.clone();
    let drains = async || !health.readiness(&process.broker, &process.tools.stores).await.ready;
    process.wait_until("the worker drains", drains).await;
    children.go_on();
    working.ended().await;
    for chunk in [0, 1] {
        assert!(is_there(&process, Key::marker(&id(), PartId::Encode(chunk))).await, "chunk {chunk} was finished");
    }
    assert_eq!(children.ran().len(), 3, "{:?}", children.ran());
    assert_eq!(process.broker.unsettled(WORK) as u64, process.waiting(WORK).await, "nothing is held back");
    assert_eq!(process.waiting(WORK).await, 3, "the window goes on elsewhere");
}

#[tokio::test]
async fn what_is_not_finished_in_the_grace_goes_back_and_is_no_attempt() {
    let site = Site::new();
    let children = FakeChildren::new(|part, before| if part == PartId::Encode(0) && before == 0 { Act::Hang } else { Act::Work });
    let mut process = site.start_fleet(&children, local());
    let grace = STOP_GRACE + Duration::from_millis(50);
    let working = process.work(WorkerSettings { grace, ..settings() });
    process.submit_document(&document("talk", "local")).await;
    children.hanging.notified().await;
    let asked = Instant::now();
    working.stop().await;
    assert!(asked.elapsed() < grace + Duration::from_millis(500), "{:?}", asked.elapsed());
    let mut told = process.told().await;
    let second = process.work(settings());
    let event = told.find(|e| matches!(e.fact, Fact::JobCompleted { .. })).await;
    process.quiet().await;
    second.stop().await;
    process.events.push(event);
    let Some(Fact::JobCompleted { usage, .. }) = process.facts().into_iter().last() else { unreachable!("it was looked for") };
    assert_eq!((usage.wasted_attempts, usage.wasted_cpu_s), (1, 0.01));
    let output = process.tools.stores.output("local", "out").unwrap();
    let report: JobReport = output.get_json(&Key::output("report.json").unwrap()).await.unwrap().unwrap();
    assert_eq!((report.chunks[0].attempt, report.totals.repeated_attempts), (1, 0));
}

#[tokio::test]
async fn what_a_child_took_that_was_killed_at_the_parts_deadline_is_billed_as_thrown_away() {
    let site = Site::new();
    let children = FakeChildren::new(|part, before| if part == PartId::Encode(0) && before == 0 { Act::Hang } else { Act::Work });
    let process = site.start_fleet(&children, local());
    let mut told = process.told().await;
    let working = process.work(WorkerSettings { part_deadline: Duration::from_secs(2), ..settings() });
    process.submit_document(&document("talk", "local")).await;
    let failed = told.find(|e| matches!(e.fact, Fact::PartFailed { .. })).await;
    assert!(matches!(failed.fact, Fact::PartFailed { reason, again: true, .. } if reason.contains("deadline of 2s")));
    let ended = told.find(|e| matches!(e.fact, Fact::JobCompleted { .. })).await;
    process.quiet().await;
    working.stop().await;
    let usage = ended.fact.usage().unwrap();
    assert_eq!((usage.wasted_attempts, usage.wasted_cpu_s), (1, 0.01));
}

#[tokio::test]
async fn asked_twice_a_worker_leaves_at_once_and_everything_goes_back() {
    let (site, children) = (Site::new(), holds(&[0, 1]));
    let process = site.start_fleet(&children, local());
    let working = process.work(WorkerSettings { grace: Duration::from_secs(50), ..settings() });
    process.submit_document(&document("talk", "local")).await;
    children.hanging.notified().await;
    children.hanging.notified().await;
    let asked = Instant::now();
    working.stopper.stop();
    working.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!((process.broker.unsettled(WORK), process.waiting(WORK).await), (3, 3), "two parts and the third of the window");
    assert!(std::fs::read_dir(site.dir.path().join("scratch")).unwrap().next().is_none(), "scratch is empty");
}

#[tokio::test]
async fn a_canceled_job_stops_within_two_seconds_and_none_of_its_parts_runs_again() {
    let (site, children) = (Site::new(), holds(&[0, 1]));
    let process = site.start_fleet(&children, local());
    let mut told = process.told().await;
    let working = process.work(settings());
    process.submit_document(&document("talk", "local")).await;
    children.hanging.notified().await;
    children.hanging.notified().await;
    let asked = Instant::now();
    process.tools.stores.work().put(&Key::cancel(&id()), b"{}".to_vec()).await.unwrap();
    process.control(&Control::Stop { job: id() }).await;
    let event = told.find(|e| e.fact.usage().is_some()).await;
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let Fact::JobCanceled { usage } = event.fact else { panic!("{:?}", event.fact) };
    // The first of the two that stops ends the job, and may be before the other has noted what it threw away.
    assert!((1..=2).contains(&usage.wasted_attempts), "{usage:?}");
    assert_eq!(usage.parts, 1, "the probe");
    process.quiet().await;
    working.stop().await;
    let (thrown_away, _) = crate::part::usage::thrown_away(&process.tools, &id()).await.unwrap();
    assert_eq!(thrown_away, 2, "both are billed in the end");
    assert_eq!(children.ran().len(), 3, "{:?}", children.ran());
    assert_eq!(result(&process).await, Some(JobResult::Canceled));
}

#[tokio::test]
async fn a_job_canceled_before_its_first_part_never_starts() {
    let (site, children) = (Site::new(), works());
    let process = site.start_fleet(&children, local());
    let mut told = process.told().await;
    accept::submit(&process.tools, Submission { document: &document("talk", "local"), user: None }).await.unwrap();
    process.tools.stores.work().put(&Key::cancel(&id()), b"{}".to_vec()).await.unwrap();
    let working = process.work(settings());
    told.find(|e| matches!(e.fact, Fact::JobCanceled { .. })).await;
    process.quiet().await;
    working.stop().await;
    assert_eq!(children.ran().len(), 0);
}

#[tokio::test]
async fn copies_of_a_part_that_is_under_way_wait_for_it_and_are_settled_with_it() {
    let (site, children) = (Site::new(), holds(&[0]));
    let process = site.start_fleet(&children, local());
    let mut told = process.told().await;
    let working = process.work(settings());
    process.submit_document(&document("talk", "local")).await;
    children.hanging.notified().await;
    let copy = serde_json::to_vec(&PartMessage { job: id(), part: PartId::Encode(0) }).unwrap();
    for _ in 0..2 {
        process.broker.publish(WORK, copy.clone()).await.unwrap();
    }
    // Everything but the held part runs dry; then the copies have been taken.
    process
        .wait_until("the copies are taken", async || process.waiting(WORK).await == 0 && process.broker.unsettled(WORK) == 3)
        .await;
    children.go_on();
    told.find(|e| matches!(e.fact, Fact::JobCompleted { .. })).await;
    process.quiet().await;
    working.stop().await;
    assert!(children.ran().values().all(|times| *times == 1), "{:?}", children.ran());
}

/// Does one part outside of any worker, as its attempt number `number`, given out before.
async fn alone(tools: Tools, part: PartId, number: u32) {
    let (_stopper, stop) = shutdown::channel();
    let (class, device, spent) = (Class::Cpu, None, Spent::default());
    let attempt = Attempt { part, class, device, number, redelivered: true, permit: None, stop, spent };
    crate::part::run(&tools, &PartMessage { job: id(), part }, attempt).await.unwrap();
}

#[tokio::test]
async fn work_that_somebody_else_did_meanwhile_is_billed_once() {
    let site = Site::new();
    let (slow, quick) = (holds(&[0]), works());
    let process = site.start_fleet(&quick, local());
    let tools = process.tools.clone();
    let paused = Tools::new(tools.broker.clone(), tools.stores.clone(), slow.clone(), (*tools.settings).clone());
    accept::submit(&tools, Submission { document: &document("talk", "local"), user: None }).await.unwrap();
    alone(tools.clone(), PartId::Probe, 1).await;
    let late = tokio::spawn(alone(paused, PartId::Encode(0), 1));
    slow.hanging.notified().await;
    alone(tools.clone(), PartId::Encode(0), 2).await;
    alone(tools.clone(), PartId::Encode(0), 3).await;
    assert_eq!(quick.ran()[&PartId::Encode(0)], 1, "what has its marker is not done again");
    slow.go_on();
    late.await.unwrap();
    let marker: Marker = tools.stores.work().get_json(&Key::marker(&id(), PartId::Encode(0))).await.unwrap().unwrap();
    assert_eq!(marker.attempt, 2, "the first marker stays");
    let mut told = process.told().await;
    let working = process.work(settings());
    let event = told.find(|e| matches!(e.fact, Fact::JobCompleted { .. })).await;
    process.quiet().await;
    working.stop().await;
    let usage = event.fact.usage().unwrap();
    assert_eq!((usage.wasted_attempts, usage.wasted_cpu_s), (1, 0.01));
    assert_eq!(usage.frames, super::fake::FRAMES as u64 * 2, "no frame is counted twice");
}

#[tokio::test]
async fn an_end_that_was_written_and_not_told_is_told_by_whoever_gets_the_message_next() {
    let site = Site::new();
    let process = site.start_fleet(&works(), local());
    let tools = process.tools.clone();
    accept::submit(&tools, Submission { document: &document("talk", "local"), user: None }).await.unwrap();
    let failure = Failure { cause: Cause::Media, message: "truncated".into() };
    tools.stores.work().put_json(&Key::result(&id()), &JobResult::Failed { failure: failure.clone() }).await.unwrap();
    let mut told = process.told().await;
    alone(tools, PartId::Encode(3), 1).await;
    let event = told.find(|e| e.fact.usage().is_some()).await;
    assert!(matches!(event.fact, Fact::JobFailed { failure: told, .. } if told == failure));
}

#[tokio::test]
async fn a_part_of_a_job_that_has_ended_is_not_worked_on() {
    let (site, children) = (Site::new(), works());
    let mut process = site.start_fleet(&children, local());
    process.until_ended(&job("h264")).await;
    let ran = children.ran();
    for part in [PartId::Encode(0), PartId::Package, PartId::Probe] {
        process.tools.stores.work().delete(&Key::marker(&id(), part)).await.unwrap();
        let body = serde_json::to_vec(&PartMessage { job: id(), part }).unwrap();
        process.broker.publish(WORK, body).await.unwrap();
    }
    let working = process.work(settings());
    process.quiet().await;
    working.stop().await;
    assert_eq!(children.ran(), ran);
}

#[tokio::test]
async fn a_lost_submission_ends_itself_and_no_other_job() {
    let (site, children) = (Site::new(), works());
    let mut process = site.start_fleet(&children, local());
    process.until_ended(&job("h264")).await;
    let ended = result(&process).await;
    let mut told = process.told().await;
    while process.waiting(Queue::events_of("talk")).await > 0 {
        told.next().await;
    }
    let letter = |body: &[u8]| DeadLetter {
        queue: Queue::Jobs(Lane::Normal).to_string(),
        reason: "the bucket was away".into(),
        attempt: 20,
        body: String::from_utf8_lossy(body).into_owned(),
    };
    let bury = async |body: &[u8]| {
        process.broker.publish(Queue::Dead, serde_json::to_vec(&letter(body)).unwrap()).await.unwrap();
    };
    let working = process.work(settings());
    // A copy of the job itself, another job of the same id, and one that was never accepted.
    bury(&serde_json::to_vec(&job("h264")).unwrap()).await;
    process.quiet().await;
    let other = serde_json::to_vec(&job("h265")).unwrap();
    bury(&other).await;
    let (event, _, requested) = told.rejection().await;
    assert_eq!((event.job, requested.as_deref()), (rejected_stream(&other), Some("talk")));
    bury(&document("lost", "local")).await;
    let (event, path, _) = told.rejection().await;
    assert_eq!((event.job.as_str(), path.as_str(), event.tenant.as_str()), ("lost", ".", "local"));
    process.quiet().await;
    working.stop().await;
    assert_eq!(result(&process).await, ended);
    assert_eq!(process.waiting(Queue::events_of("talk")).await, 0, "of the job that was done nothing more is told");
}

#[tokio::test]
async fn a_worker_that_fails_itself_fails_the_part_and_not_the_others() {
    let (site, children) =
        (Site::new(), FakeChildren::new(|part, _| if part == PartId::Encode(1) { Act::Panic } else { Act::Work }));
    let process = site.start_fleet(&children, local());
    let mut told = process.told().await;
    let working = process.work(settings());
    process.submit_document(&document("talk", "local")).await;
    let event: Event = told.find(|e| e.fact.usage().is_some()).await;
    assert!(matches!(event.fact, Fact::JobFailed { failure, .. } if failure.message.contains("panic")));
    assert_eq!(children.ran()[&PartId::Encode(1)], 3);
    process.quiet().await;
    working.stop().await;
}

#[tokio::test]
async fn with_a_full_disk_nothing_is_taken_and_the_worker_says_so() {
    let site = Site::new();
    let mut process = site.start_fleet(&works(), local());
    let limits = ScratchLimits { worker_bytes: 0, part_bytes: u64::MAX };
    let scratch = ScratchFolder { path: site.dir.path().to_path_buf(), limits };
    let Tools { broker, stores, children, settings: parts, .. } = process.tools;
    process.tools = Tools::new(broker, stores, children, Settings { scratch, ..(*parts).clone() });
    process.submit_document(&document("talk", "local")).await;
    let working = process.work(settings());
    let health = working.health.clone();
    let says = async || {
        let readiness = health.readiness(&process.broker, &process.tools.stores).await;
        readiness.because.iter().any(|why| why.contains("scratch.part_bytes"))
    };
    process.wait_until("the worker says so", says).await;
    assert_eq!(process.waiting(Queue::Jobs(Lane::Normal)).await, 1);
    working.stop().await;
}
