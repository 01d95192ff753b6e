use super::fixture::{START_MS, Site, completed, event, id, kinds, part, settings, tenants, whole_job};
use super::project::Partition;
use super::sweep::Sweeper;
use super::write::Writer;
use super::{Coordinator, CoordinatorSettings, Fleet, Progress, ops};
use crate::broker::{Broker, Class, EVENT_PARTITIONS, Queue};
use crate::callback::EndpointId;
use crate::callback::cursor::Cursor;
use crate::event::{Cause, Event, Fact, Failure, Projection, State, is_reserved, tenant_stream};
use crate::job::{JobId, Lane};
use crate::part::PartMessage;
use crate::part::accepted::Accepted;
use crate::part::finish::JobResult;
use crate::plan::marker::PartId;
use crate::shutdown;
use crate::store::key::Key;
use crate::tenant::{SubmitRules, TenantSettings, Tenants};
use crate::usage::Usage;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Runs a future for at most so many steps, then drops it where it is: what a kill leaves of it.
async fn killed_after<F: Future>(future: F, steps: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = steps;
    std::future::poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn take(fleet: &Fleet, job: &JobId, events: &[Event], is_repeated: bool) {
    Writer { fleet, job }.take(events, is_repeated).await.unwrap();
}

fn failed() -> Fact {
    Fact::JobFailed { failure: Failure { cause: Cause::Media, message: "cut".into() }, usage: Usage::default() }
}

/// Ready nudges of a job's callbacks.
async fn nudges(site: &Site, job: &JobId) -> u64 {
    site.broker.depth(Queue::callbacks_of(job.as_str())).await.unwrap()
}

#[tokio::test]
async fn killed_at_any_step_a_coordinator_leaves_what_the_next_one_makes_whole() {
    let job = id("talk");
    let told = whole_job(&job);
    let untouched = {
        let site = Site::new();
        site.accept("talk").await;
        take(&site.fleet, &job, &told, false).await;
        site.recorded(&job).await
    };
    assert_eq!(untouched.last().unwrap().kind, "job.completed");
    for (from, to) in [(0, 7), (7, 16), (16, told.len())] {
        for steps in 1.. {
            let site = Site::new();
            site.accept("talk").await;
            take(&site.fleet, &job, &told[..from], false).await;
            let writer = Writer { fleet: &site.fleet, job: &job };
            let ended = killed_after(writer.take(&told[from..to], false), steps).await;
            let mut again = told[from..to].to_vec();
            // Several workers tell at once, so the middle may come in another order; how a job begins and ends may not.
            if steps % 2 == 0 && to < told.len() {
                again[if from == 0 { 2 } else { 0 }..].reverse();
            }
            take(&site.fleet, &job, &again, true).await;
            take(&site.fleet, &job, &told[to..], false).await;
            let recorded = site.recorded(&job).await;
            let (mut got, mut want) = (kinds(&recorded), kinds(&untouched));
            assert_eq!((got.first(), got.last()), (want.first(), want.last()), "killed after {steps} steps of {from}..{to}");
            got.sort_unstable();
            want.sort_unstable();
            assert_eq!(got, want, "killed after {steps} steps of {from}..{to}");
            assert!(nudges(&site, &job).await > 0);
            if ended.is_some() {
                break;
            }
            assert!(steps < 2_000, "it never ends");
        }
    }
}

#[tokio::test]
async fn two_coordinators_that_both_think_they_are_in_charge_write_the_same() {
    let job = id("talk");
    let (site, told) = (Site::new(), whole_job(&job));
    site.accept("talk").await;
    take(&site.fleet, &job, &told[..9], false).await;
    let (first, second) = (Writer { fleet: &site.fleet, job: &job }, Writer { fleet: &site.fleet, job: &job });
    // The one is paused in the middle; the other is given the same events, and goes on; then the first one wakes up.
    let mut paused = Box::pin(first.take(&told[9..14], false));
    for _ in 0..4 {
        assert!(futures::poll!(&mut paused).is_pending());
        tokio::task::yield_now().await;
    }
    second.take(&told[9..14], true).await.unwrap();
    second.take(&told[14..], false).await.unwrap();
    let before = site.recorded(&job).await;
    let _ = paused.await;
    let mut sweeper = Sweeper::new(site.fleet.clone(), &settings(), partition(&job));
    sweeper.sweep(START_MS).await;
    assert_eq!(site.recorded(&job).await, before);
}

fn partition(job: &JobId) -> u8 {
    (0..EVENT_PARTITIONS).find(|n| Queue::Events(*n) == Queue::events_of(job.as_str())).unwrap()
}

#[tokio::test]
async fn the_first_end_in_the_order_of_events_is_the_end_and_the_result_says_so() {
    let job = id("talk");
    let ends = [completed(), failed(), Fact::JobCanceled { usage: Usage::default() }];
    for first in &ends {
        for second in &ends {
            let site = Site::new();
            site.accept("talk").await;
            // A worker wrote another end than is decided.
            site.fleet.stores.work().put_json(&Key::result(&job), &JobResult::Canceled).await.unwrap();
            let facts = [Fact::JobAccepted, Fact::JobStarted, first.clone(), second.clone(), part(PartId::Encode(3), 9)];
            for fact in facts {
                take(&site.fleet, &job, &[event(&job, fact)], false).await;
            }
            let recorded = site.recorded(&job).await;
            assert_eq!(recorded.last().unwrap().kind, first.kind());
            assert_eq!(recorded.len(), 3);
            match (first, site.result(&job).await) {
                (Fact::JobFailed { failure, .. }, Some(JobResult::Failed { failure: written })) => assert_eq!(*failure, written),
                (Fact::JobCanceled { .. }, Some(JobResult::Canceled)) => {}
                // Its objects are not known here, so the result is left as it is.
                (Fact::JobCompleted { .. }, Some(JobResult::Canceled)) => {}
                (first, written) => panic!("{first:?} was decided, {written:?} is written"),
            }
        }
    }
}

#[tokio::test]
async fn facts_that_come_late_do_not_bring_back_a_job_that_was_purged() {
    let job = id("talk");
    let (site, told) = (Site::new(), whole_job(&job));
    site.accept("talk").await;
    take(&site.fleet, &job, &told, false).await;
    let report = ops::purge(&site.fleet, ops::Scope::Tenant("acme"), &job).await.unwrap();
    assert!(report.objects > 15 && report.bytes > 0, "{report:?}");
    assert_eq!((report.kept, report.skipped), (vec!["usage/acme/2023-11-14/talk.json".to_string()], Vec::new()));
    take(&site.fleet, &job, &told[3..], true).await;
    let mut left: Vec<String> = Vec::new();
    for folder in ["jobs/", "events/", "open/", "settling/", "waiting/", "index/", "callbacks/", "usage/"] {
        left.extend(site.fleet.stores.work().list(folder).await.unwrap());
    }
    assert_eq!(left, ["usage/acme/2023-11-14/talk.json"]);
    let gone = ops::purge(&site.fleet, ops::Scope::Tenant("acme"), &job).await.unwrap_err();
    assert!(matches!(gone, ops::OpError::NoJob(_)));
}

#[tokio::test]
async fn a_state_that_a_paused_coordinator_wrote_over_a_newer_one_is_put_right() {
    let job = id("talk");
    let (site, told) = (Site::new(), whole_job(&job));
    let accepted = site.accept("talk").await;
    let work = site.fleet.stores.work();
    take(&site.fleet, &job, &told[..9], false).await;
    let old: Projection = work.get_json(&Key::status(&job)).await.unwrap().unwrap();
    take(&site.fleet, &job, &told[9..], false).await;
    let before = site.recorded(&job).await;
    work.put_json(&Key::status(&job), &old).await.unwrap();
    work.delete(&Key::usage("acme", "2023-11-14", &job)).await.unwrap();
    let mut sweeper = Sweeper::new(site.fleet.clone(), &settings(), partition(&job));
    sweeper.sweep(START_MS).await;
    assert_eq!(site.recorded(&job).await, before);
    assert!(work.size(&Key::settling("acme", &job)).await.unwrap().is_some(), "it is looked after for a while");
    all_heard(&site, &accepted).await;
    sweeper.sweep(START_MS + 31_000 + 1_800_000).await;
    assert_eq!(work.size(&Key::settling("acme", &job)).await.unwrap(), None);
}

#[tokio::test]
async fn work_that_was_thrown_away_because_a_job_ended_is_on_its_bill_when_it_is_settled() {
    let job = id("talk");
    let site = Site::new();
    let accepted = site.accept("talk").await;
    let work = site.fleet.stores.work();
    take(&site.fleet, &job, &whole_job(&job)[..9], false).await;
    let usage = site.fleet.measure(&accepted).await.unwrap();
    take(&site.fleet, &job, &[event(&job, Fact::JobCanceled { usage })], false).await;
    let bill = Key::usage("acme", "2023-11-14", &job);
    let before: ops::UsageRecord = work.get_json(&bill).await.unwrap().unwrap();
    assert_eq!((before.usage.wasted_attempts, before.usage.wasted_cpu_s), (0, 0.0));
    // The workers hear of it, kill their children, and note what those took.
    for name in ["encode-00003.1.1530.stopped.9f3a1c22", "encode-00004.1.250.stopped.00000001"] {
        work.put(&Key::wasted(&job, name), Vec::new()).await.unwrap();
    }
    all_heard(&site, &accepted).await;
    let mut sweeper = Sweeper::new(site.fleet.clone(), &settings(), partition(&job));
    sweeper.sweep(START_MS + 3_600_000).await;
    assert_eq!(work.size(&Key::settling("acme", &job)).await.unwrap(), None);
    let bill: ops::UsageRecord = work.get_json(&bill).await.unwrap().unwrap();
    assert_eq!((bill.usage.wasted_attempts, bill.usage.wasted_cpu_s), (2, 1.78));
    assert_eq!(bill.usage.cpu_s, before.usage.cpu_s);
    site.recorded(&job).await;
}

/// Takes every nudge of a job's callbacks off its queue, as a dead letter; how many there were.
async fn lose_nudges(site: &Site, job: &JobId) -> usize {
    let queue = Queue::callbacks_of(job.as_str());
    let mut consumer = site.broker.consume(queue, 100).await.unwrap();
    let mut lost = 0;
    while site.broker.depth(queue).await.unwrap() > 0 {
        consumer.next().await.unwrap().reject("delivered 50 times".into()).await.unwrap();
        lost += 1;
    }
    lost
}

/// Every endpoint of the job was told all there is.
async fn all_heard(site: &Site, accepted: &Accepted) {
    let heard = Cursor { next_sequence: site.recorded(&accepted.id).await.len() as u64 + 1, ..Cursor::default() };
    for endpoint in accepted.job.callbacks.iter().chain(&site.fleet.tenants.get("acme").unwrap().callbacks) {
        let key = Key::cursor(&accepted.id, EndpointId::of(endpoint).as_str());
        site.fleet.stores.work().put_json(&key, &heard).await.unwrap();
    }
}

#[tokio::test]
async fn a_nudge_that_became_a_dead_letter_is_sent_again_by_the_sweep_until_the_endpoint_has_heard_all() {
    let (site, job) = (Site::new(), id("talk"));
    let accepted = site.accept("talk").await;
    let work = site.fleet.stores.work();
    take(&site.fleet, &job, &whole_job(&job), false).await;
    assert_eq!(lose_nudges(&site, &job).await, 2, "the job's endpoint and the tenant's");
    let mut settings = settings();
    settings.sweep_every_s = 1;
    let mut sweeper = Sweeper::new(site.fleet.clone(), &settings, partition(&job));
    let mut sweep_at = async |after_s: u64| {
        sweeper.sweep(START_MS + after_s * 1000).await;
        lose_nudges(&site, &job).await
    };
    assert_eq!(sweep_at(31).await, 0, "a nudge may be on its way for so long");
    assert_eq!(sweep_at(61).await, 2);
    assert_eq!(sweep_at(120).await, 0);
    assert_eq!(sweep_at(200).await, 2, "as often as it is lost, at doubling distances");
    // The tenant's endpoint hears of it all; the job's own is put off for an hour.
    all_heard(&site, &accepted).await;
    let own = EndpointId::of(&accepted.job.callbacks[0]);
    let put_off = Cursor { next_sequence: 3, due_ms: START_MS + 3_600_000, ..Cursor::default() };
    work.put_json(&Key::cursor(&job, own.as_str()), &put_off).await.unwrap();
    assert_eq!(sweep_at(500).await, 0);
    assert_eq!(sweep_at(3_600 + 61).await, 1);
    assert!(work.size(&Key::settling("acme", &job)).await.unwrap().is_some());
    // It answers that it wants no more.
    work.put(&Key::disabled("acme", own.as_str()), b"{}".to_vec()).await.unwrap();
    assert_eq!(sweep_at(10_000).await, 0);
    assert_eq!(work.size(&Key::settling("acme", &job)).await.unwrap(), None, "nobody is owed anything");
}

#[tokio::test]
async fn a_rejection_whose_nudge_was_lost_is_told_all_the_same_and_not_for_ever() {
    let (site, job) = (Site::new(), id("talk"));
    let rejected = Fact::JobRejected { path: "lane".into(), reason: "is none".into(), requested_id: None };
    take(&site.fleet, &job, &[event(&job, rejected)], false).await;
    assert_eq!(lose_nudges(&site, &job).await, 1);
    let mut sweeper = Sweeper::new(site.fleet.clone(), &settings(), partition(&job));
    sweeper.sweep(START_MS + 3_600_000).await;
    assert_eq!(lose_nudges(&site, &job).await, 1);
    sweeper.sweep(START_MS + 30 * 24 * 3_600_000).await;
    assert_eq!(lose_nudges(&site, &job).await, 0);
    assert_eq!(site.fleet.stores.work().list(&Key::settling_folder()).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_state_that_cannot_be_read_is_made_anew_from_the_events() {
    let job = id("talk");
    let (site, told) = (Site::new(), whole_job(&job));
    site.accept("talk").await;
    take(&site.fleet, &job, &told[..12], false).await;
    site.fleet.stores.work().put(&Key::status(&job), b"{\"version\":".to_vec()).await.unwrap();
    take(&site.fleet, &job, &told[12..], false).await;
    let recorded = site.recorded(&job).await;
    assert_eq!((recorded[0].kind.as_str(), recorded.last().unwrap().kind.as_str()), ("job.accepted", "job.completed"));
}

async fn parts_asked_for(site: &Site) -> Vec<PartId> {
    let queue = Queue::Work(Class::Cpu, Lane::Normal);
    let mut consumer = site.broker.consume(queue, 100).await.unwrap();
    let mut parts = Vec::new();
    while site.broker.depth(queue).await.unwrap() > 0 {
        let delivery = consumer.next().await.unwrap();
        parts.push(serde_json::from_slice::<PartMessage>(&delivery.body).unwrap().part);
        delivery.ack().await.unwrap();
    }
    parts
}

#[tokio::test]
async fn a_silent_job_is_asked_for_again_at_doubling_distances() {
    let job = id("talk");
    let site = Site::new();
    site.accept("talk").await;
    take(&site.fleet, &job, &[event(&job, Fact::JobAccepted), event(&job, Fact::JobStarted)], false).await;
    let mut settings = settings();
    settings.sweep_every_s = 1;
    let mut sweeper = Sweeper::new(site.fleet.clone(), &settings, partition(&job));
    let mut asked = Vec::new();
    for second in 0..500 {
        sweeper.sweep(START_MS + second * 1000).await;
        asked.extend((!parts_asked_for(&site).await.is_empty()).then_some(second));
    }
    assert_eq!(asked, [60, 180, 420], "first after 60 s, then after 120 more, then after 240 more");
}

#[tokio::test]
async fn an_end_that_was_written_and_never_told_is_told() {
    let job = id("talk");
    let site = Site::new();
    site.accept("talk").await;
    take(&site.fleet, &job, &[event(&job, Fact::JobAccepted)], false).await;
    let failure = Failure { cause: Cause::Internal, message: "lost".into() };
    site.fleet.stores.work().put_json(&Key::result(&job), &JobResult::Failed { failure }).await.unwrap();
    let mut sweeper = Sweeper::new(site.fleet.clone(), &settings(), partition(&job));
    sweeper.sweep(START_MS).await;
    sweeper.sweep(START_MS + 3_600_000).await;
    let mut events = site.broker.consume(Queue::events_of("talk"), 1).await.unwrap();
    let told: Event = serde_json::from_slice(&events.next().await.unwrap().body).unwrap();
    assert_eq!((told.job, told.fact.state()), (job, Some(State::Failed)));
}

#[tokio::test]
async fn waiting_jobs_of_a_tenant_start_when_others_end_and_not_while_it_is_frozen() {
    let site = Site::of(tenants("quota = { active_jobs = 2 }"));
    let jobs: Vec<JobId> = (0..5).map(|n| id(&format!("talk-{n}"))).collect();
    site.accept(jobs[0].as_str()).await;
    for job in &jobs[1..] {
        site.accept_waiting(job.as_str()).await;
    }
    let mut settings = settings();
    settings.sweep_every_s = 1;
    let mut sweeper = Sweeper::new(site.fleet.clone(), &settings, partition(&tenant_stream("acme")));
    ops::freeze(&site.fleet, "acme", "unpaid").await.unwrap();
    sweeper.sweep(START_MS).await;
    assert_eq!(parts_asked_for(&site).await, []);
    assert!(ops::unfreeze(&site.fleet, "acme", None).await.unwrap());
    sweeper.sweep(START_MS + 1000).await;
    assert_eq!(parts_asked_for(&site).await, [PartId::Probe], "one is active, two may be");
    sweeper.sweep(START_MS + 2000).await;
    assert_eq!(parts_asked_for(&site).await, [], "it was asked for");
    ops::cancel(&site.fleet, ops::Scope::Tenant("acme"), &jobs[4]).await.unwrap();
    drain(&site).await;
    assert_eq!(jobs_that_wait(&site).await, ["talk-2", "talk-3"], "what was canceled waits no longer");
}

async fn jobs_that_wait(site: &Site) -> Vec<String> {
    let mut paths = site.fleet.stores.work().list(&Key::waiting_folder("acme")).await.unwrap();
    paths.sort();
    paths.iter().filter_map(|path| Key::of_waiting(path)).map(|(_, job)| job.to_string()).collect()
}

#[tokio::test]
async fn of_a_tenant_at_its_limit_the_next_job_starts_when_one_ends_and_waits_for_no_sweep() {
    let site = Site::of(tenants("quota = { active_jobs = 1 }"));
    site.accept("first").await;
    for id in ["second", "third"] {
        site.accept_waiting(id).await;
    }
    site.tell(&whole_job(&id("first"))).await;
    drain(&site).await;
    assert_eq!(parts_asked_for(&site).await, [PartId::Probe]);
    assert_eq!(jobs_that_wait(&site).await, ["third"]);
    let mut open = site.fleet.stores.work().list(&Key::open_folder(Some("acme"))).await.unwrap();
    open.sort();
    assert_eq!(open, ["open/acme/second", "open/acme/third"], "what has ended counts no longer");
    // The news of the end comes again to another coordinator.
    take(&site.fleet, &id("first"), &whole_job(&id("first"))[20..], true).await;
    drain(&site).await;
    assert_eq!(parts_asked_for(&site).await, [], "the second has its place");
}

#[tokio::test]
async fn of_jobs_submitted_at_the_same_moment_as_many_start_as_may_and_no_more() {
    let site = Site::of(tenants("quota = { active_jobs = 3 }"));
    let submit = async |n: u32| {
        let document = format!(r#"{{"id":"talk-{n}","input":{{"uri":"talk.mp4"}},"output":{{"uri":"out"}},"preset":"h264"}}"#);
        ops::submit(&site.fleet, ops::Scope::Tenant("acme"), document.as_bytes(), None).await.unwrap()
    };
    futures::future::join_all((0..8).map(submit)).await;
    let at_once = parts_asked_for(&site).await.len();
    assert!(at_once <= 3, "{at_once} were started");
    drain(&site).await;
    assert_eq!(at_once + parts_asked_for(&site).await.len(), 3);
    assert_eq!(jobs_that_wait(&site).await.len(), 5);
}

#[tokio::test]
async fn an_id_that_was_rejected_for_one_tenant_is_anothers_as_if_it_were_new() {
    let site = Site::new();
    let job = id("talk");
    let rejected = |reason: &str, tenant: &str| {
        let fact = Fact::JobRejected { path: "lane".into(), reason: reason.into(), requested_id: None };
        Event::new(job.clone(), tenant.into(), START_MS, fact)
    };
    take(&site.fleet, &job, &[rejected("a secret of globex", "globex")], false).await;
    let see = async |tenant| ops::events(&site.fleet, ops::Scope::Tenant(tenant), &job, 0, 10).await;
    assert_eq!(see("globex").await.unwrap().events.len(), 1);
    assert!(see("acme").await.is_err());
    site.accept("talk").await;
    take(&site.fleet, &job, &whole_job(&job)[..2], false).await;
    take(&site.fleet, &job, &[rejected("late", "globex")], true).await;
    let recorded = site.recorded(&job).await;
    assert_eq!(kinds(&recorded), ["job.accepted", "job.started"]);
    assert!(recorded.iter().all(|event| event.tenant == "acme"));
    assert!(see("globex").await.is_err());
    let listed = site.fleet.stores.work().list("index/globex/").await.unwrap();
    assert_eq!(listed, Vec::<String>::new());
}

#[tokio::test]
async fn a_freeze_is_told_to_the_tenant_once_and_rejections_are_listed() {
    let site = Site::new();
    let stream = tenant_stream("acme");
    assert!(is_reserved(stream.as_str()));
    ops::freeze(&site.fleet, "acme", "unpaid").await.unwrap();
    ops::freeze(&site.fleet, "acme", "again").await.unwrap();
    let rejected = Fact::JobRejected { path: "lane".into(), reason: "is none".into(), requested_id: Some("x".into()) };
    let document = crate::event::rejected_stream(b"no job");
    site.tell(&[event(&document, rejected)]).await;
    drain(&site).await;
    assert_eq!(kinds(&site.recorded(&stream).await), ["tenant.frozen"]);
    assert_eq!(nudges(&site, &document).await, 1, "the tenant's endpoint hears of it");
    let page =
        ops::list(&site.fleet, ops::Scope::Tenant("acme"), &ops::ListQuery { limit: 10, ..Default::default() }).await.unwrap();
    let listed: Vec<_> = page.jobs.iter().map(|job| (job.job.clone(), job.status.state)).collect();
    assert_eq!(listed, [(document, Some(State::Rejected))]);
}

#[tokio::test]
async fn a_thaw_is_told_to_the_tenant_like_a_freeze_with_its_reason_and_can_be_replayed() {
    let text = "[acme]\ncallbacks = [{ url = \"http://127.0.0.1:1/hook\" }]\n";
    let settings: BTreeMap<String, TenantSettings> = toml::from_str(text).unwrap();
    let site = Site::of(Tenants::new(&settings, SubmitRules::default()).unwrap());
    let stream = tenant_stream("acme");
    ops::freeze(&site.fleet, "acme", "unpaid").await.unwrap();
    assert!(ops::unfreeze(&site.fleet, "acme", Some("paid on Friday")).await.unwrap());
    assert!(!ops::unfreeze(&site.fleet, "acme", Some("again")).await.unwrap(), "it is not frozen any more");
    assert!(matches!(ops::unfreeze(&site.fleet, "acme", Some("a\nb")).await, Err(ops::OpError::Invalid(_))));
    drain(&site).await;
    let recorded = site.recorded(&stream).await;
    assert_eq!(kinds(&recorded), ["tenant.frozen", "tenant.unfrozen"]);
    let reasons: Vec<_> = recorded.iter().map(|event| event.data["reason"].as_str().unwrap_or_default()).collect();
    assert_eq!(reasons, ["unpaid", "paid on Friday"]);
    let before = nudges(&site, &stream).await;
    assert!(before > 0, "the tenant's endpoint hears of both");
    ops::replay(&site.fleet, ops::Scope::Tenant("acme"), &stream, 2).await.unwrap();
    assert_eq!(nudges(&site, &stream).await, before + 1);
}

/// Runs all partitions until nothing is left in the queues of events.
async fn drain(site: &Site) {
    let (stopper, stop) = shutdown::channel();
    let mut tasks = Vec::new();
    for number in 0..EVENT_PARTITIONS {
        let partition = Partition::new(site.fleet.clone(), settings(), number).await.unwrap();
        tasks.push(tokio::spawn(partition.run(stop.clone())));
    }
    while (0..EVENT_PARTITIONS).any(|n| site.broker.unsettled(Queue::Events(n)) > 0) {
        tokio::task::yield_now().await;
    }
    stopper.stop();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinators_that_are_killed_again_and_again_lose_nothing() {
    let seed = 20_261_120;
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let site = Site::new();
    let jobs: Vec<JobId> = (0..12).map(|n| id(&format!("talk-{n}"))).collect();
    for job in &jobs {
        site.accept(job.as_str()).await;
        // Told twice here and there, and a second end after the first.
        for event in whole_job(job).into_iter().chain([event(job, failed())]) {
            let times = if random.random_bool(0.2) { 2 } else { 1 };
            site.tell(&vec![event; times]).await;
        }
    }
    let waiting = |site: &Site| (0..EVENT_PARTITIONS).map(|n| site.broker.unsettled(Queue::Events(n))).sum::<usize>();
    for _ in 0..15 {
        let until = waiting(&site).saturating_sub(random.random_range(1..20));
        let mut tasks = tokio::task::JoinSet::new();
        let (_stopper, stop) = shutdown::channel();
        for number in 0..EVENT_PARTITIONS {
            let mut settings = settings();
            settings.batch_events = random.random_range(1..12);
            let partition = Partition::new(site.fleet.clone(), settings, number).await.unwrap();
            tasks.spawn(partition.run(stop.clone()));
        }
        while waiting(&site) > until {
            tokio::task::yield_now().await;
        }
        tasks.shutdown().await;
    }
    drain(&site).await;
    for job in &jobs {
        let recorded = site.recorded(job).await;
        let told = kinds(&recorded);
        assert_eq!((told[0], *told.last().unwrap()), ("job.accepted", "job.completed"), "{told:?}");
        assert_eq!(told.iter().filter(|kind| **kind == "job.progress").count(), 10, "{told:?}");
    }
    assert_eq!(site.broker.depth(Queue::Dead).await.unwrap(), 0);
}

#[tokio::test]
async fn a_message_that_is_no_event_becomes_a_dead_letter_and_holds_nothing_up() {
    let site = Site::new();
    let job = id("talk");
    site.accept("talk").await;
    site.broker.publish(Queue::events_of("talk"), b"{\"version\":9}".to_vec()).await.unwrap();
    site.tell(&whole_job(&job)).await;
    drain(&site).await;
    assert!(site.recorded(&job).await.last().unwrap().is_last());
    assert_eq!(site.broker.depth(Queue::Dead).await.unwrap(), 1);
}

fn coordinator(site: &Site, settings: CoordinatorSettings) -> Coordinator {
    let (fleet, callbacks) = (site.fleet.clone(), site.callbacks());
    let (metrics, progress) = (Arc::new(String::new), Progress::default());
    Coordinator { fleet, settings, callbacks, operator: None, metrics, progress }
}

#[tokio::test]
async fn a_coordinator_says_what_it_has_in_hand_and_ends_in_order_when_it_is_asked_to() {
    let site = Site::new();
    let coordinator = coordinator(&site, settings());
    let progress = coordinator.progress.clone();
    let listener = coordinator.listen().await.unwrap();
    let (stopper, stop) = shutdown::channel();
    let running = tokio::spawn(coordinator.run(listener, stop));
    site.accept("talk").await;
    site.tell(&whole_job(&id("talk"))).await;
    let mut busy = 0;
    while site.broker.unsettled(Queue::events_of("talk")) > 0 {
        busy = busy.max(progress.busy());
        tokio::task::yield_now().await;
    }
    assert_eq!((busy, progress.hanging()), (1, None), "the partition of its one job");
    stopper.stop();
    tokio::time::timeout(Duration::from_secs(10), running).await.expect("it ends").unwrap().unwrap();
    assert_eq!(progress.busy(), 0);
    assert!(site.recorded(&id("talk")).await.last().unwrap().is_last());
}

#[tokio::test]
async fn without_access_keys_nobody_listens_where_others_can_reach_it() {
    let site = Site::of(crate::tenant::Tenants::new(&Default::default(), Default::default()).unwrap());
    let mut settings = settings();
    settings.listen = "0.0.0.0:0".parse().unwrap();
    let refused = coordinator(&site, settings).listen().await.unwrap_err().to_string();
    assert!(refused.starts_with("coordinator.listen: 0.0.0.0:0"), "{refused}");
}
