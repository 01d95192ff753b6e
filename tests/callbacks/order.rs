//! What arrives, and in which order.

use super::receiver::{Answer, Receiver, Rest, status};
use super::stage::{OLD_SECRET, SECRET, Stage, endpoint, job, neighbours};
use narrows::broker::{Broker, within};
use narrows::callback;
use narrows::job::Callback;
use narrows::store::key::Key;
use narrows::trace::TraceContext;
use serde_json::json;
use standardwebhooks::Webhook;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Notify;

/// SplitMix64: the seed is in the source, so a failure comes again.
fn chance(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[tokio::test]
async fn every_event_arrives_signed_and_in_order_whatever_fails_on_the_way() {
    const SEED: u64 = 20_261_120;
    let (mut stage, mut receiver) = (Stage::new(), Receiver::start().await);
    // Enough attempts that none is given up, whatever chance brings.
    stage.settings.schedule_s = vec![0; 30];
    let mut state = SEED;
    println!("seed {SEED}");
    let faults = (0..60).map(|_| status(if chance(&mut state) & 1 == 0 { 500 } else { 200 }));
    receiver.script(faults);
    let (talk, hook) = (job("talk.1"), endpoint(&receiver.url("/hook")));
    stage.accept(&talk, std::slice::from_ref(&hook)).await;
    stage.record_all(&talk, 30).await;
    stage.nudge(&talk, std::slice::from_ref(&hook)).await;
    let running = stage.run(&talk);
    stage.cursor_when(&talk, &hook, |c| c.delivered == 30).await;
    running.stop().await;

    let taken = receiver.rest();
    let sequences: Vec<u64> = taken.iter().map(|t| t.sequence()).collect();
    assert!(sequences.is_sorted(), "{sequences:?}");
    assert_eq!(BTreeSet::from_iter(sequences).into_iter().collect::<Vec<_>>(), (1..=30).collect::<Vec<_>>());
    assert!(taken.len() > 30, "something failed on the way");
    let mut ids = BTreeMap::new();
    for request in &taken {
        for secret in [SECRET, OLD_SECRET] {
            Webhook::new(secret).unwrap().verify(&request.body, &request.headers).unwrap();
        }
        assert_eq!(request.header("content-type"), "application/json");
        let id = request.header("webhook-id").to_string();
        assert_eq!(ids.entry(request.sequence()).or_insert(id.clone()), &id, "each attempt has the id of its event");
    }
    assert_eq!(BTreeSet::from_iter(ids.values()).len(), 30);
    assert_eq!(ids[&30], "talk%2E1/job%2Ecompleted/30");
}

#[tokio::test]
async fn a_callback_says_in_which_trace_it_is_told_and_nothing_where_there_is_none() {
    const CUSTOMERS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const NUDGES: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let cases = [(None, None, None), (Some(CUSTOMERS), None, Some(CUSTOMERS)), (Some(CUSTOMERS), Some(NUDGES), Some(NUDGES))];
    for (customers, nudges, expected) in cases {
        let (stage, mut receiver) = (Stage::new(), Receiver::start().await);
        receiver.script([status(500)]);
        let (talk, hook) = (job("talk"), endpoint(&receiver.url("/hook")));
        stage.accept(&talk, std::slice::from_ref(&hook)).await;
        let mut accepted: serde_json::Value = stage.store.get_json(&Key::job(&talk)).await.unwrap().unwrap();
        if let Some(trace) = customers {
            accepted["trace"] = trace.into();
        }
        stage.store.put_json(&Key::job(&talk), &accepted).await.unwrap();
        stage.record_all(&talk, 1).await;
        let broker: Arc<dyn Broker> = Arc::new(stage.broker.clone());
        let broker = within(&broker, nudges.and_then(TraceContext::parse));
        callback::nudge(&*broker, &talk, std::slice::from_ref(&hook)).await.unwrap();
        let running = stage.run(&talk);
        stage.cursor_when(&talk, &hook, |c| c.delivered == 1).await;
        running.stop().await;
        let taken = receiver.rest();
        assert_eq!(taken.len(), 2, "also when it is told again");
        for request in taken {
            assert_eq!(request.headers.get("traceparent").map(|value| value.to_str().unwrap()), expected);
        }
    }
}

#[tokio::test]
async fn an_endpoint_hears_of_what_it_asked_for() {
    let (stage, mut receiver) = (Stage::new(), Receiver::start().await);
    let all = endpoint(&receiver.url("/all"));
    let ends = Callback { events: vec!["job.*".into()], ..endpoint(&receiver.url("/job")) };
    let talk = job("talk");
    stage.accept(&talk, &[all.clone(), ends.clone()]).await;
    for (sequence, kind) in (1..).zip(["job.accepted", "job.progress", "stage.completed", "job.completed"]) {
        stage.record(&talk, sequence, kind, json!({})).await;
    }
    stage.nudge(&talk, &[all.clone(), ends.clone()]).await;
    let running = stage.run(&talk);
    for hook in [&all, &ends] {
        stage.cursor_when(&talk, hook, |c| c.next_sequence == 5).await;
    }
    running.stop().await;
    let mut heard: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    receiver.rest().into_iter().for_each(|t| heard.entry(t.path.clone()).or_default().push(t.sequence()));
    assert_eq!(heard, BTreeMap::from([("/all".into(), vec![1, 3, 4]), ("/job".into(), vec![1, 2, 4])]));
}

#[tokio::test]
async fn events_that_come_later_are_told_by_the_next_nudge() {
    let (stage, mut receiver) = (Stage::new(), Receiver::start().await);
    let (talk, hook) = (job("talk"), endpoint(&receiver.url("/")));
    let running = stage.run(&talk);
    // The tenant's own endpoint, and no job of that name: what was rejected.
    let mut tenant = Stage::new();
    tenant.tenant.endpoints = vec![hook.clone()];
    let rejected = job("rejected-0123");
    let tenants = tenant.run(&rejected);
    tenant.record(&rejected, 1, "job.rejected", json!({"path": "preset", "reason": "no such preset"})).await;
    tenant.nudge(&rejected, std::slice::from_ref(&hook)).await;
    assert_eq!(receiver.next().await.json()["type"], "job.rejected");
    tenants.stop().await;

    stage.accept(&talk, std::slice::from_ref(&hook)).await;
    for sequence in 1..=3 {
        stage.record(&talk, sequence, "stage.completed", json!({})).await;
        // Two coordinators say the same.
        stage.nudge(&talk, std::slice::from_ref(&hook)).await;
        stage.nudge(&talk, std::slice::from_ref(&hook)).await;
        assert_eq!(receiver.next().await.sequence(), sequence);
    }
    stage.cursor_when(&talk, &hook, |c| c.next_sequence == 4).await;
    running.stop().await;
    assert!(receiver.rest().is_empty(), "a nudge told twice delivers nothing twice");
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_holds_up_nobody_else() {
    let (stage, mut receiver) = (Stage::new(), Receiver::start().await);
    let until = Arc::new(Notify::new());
    receiver.script([Answer { status: 200, headers: Vec::new(), rest: Rest::Withheld(until.clone()) }]);
    let (talk, slow, quick) = (job("talk"), endpoint(&receiver.url("/slow")), endpoint(&receiver.url("/quick")));
    stage.accept(&talk, &[slow.clone(), quick.clone()]).await;
    stage.record_all(&talk, 3).await;
    let running = stage.run(&talk);
    stage.nudge(&talk, std::slice::from_ref(&slow)).await;
    assert_eq!(receiver.next().await.path, "/slow");
    stage.nudge(&talk, std::slice::from_ref(&quick)).await;
    assert!(receiver.take(3).await.iter().all(|t| t.path == "/quick"));
    assert_eq!(stage.cursor(&talk, &slow).await.delivered, 0);
    until.notify_one();
    assert!(receiver.take(2).await.iter().all(|t| t.path == "/slow"));
    stage.cursor_when(&talk, &slow, |c| c.delivered == 3).await;
    running.stop().await;
}

#[tokio::test]
async fn many_jobs_of_an_endpoint_that_does_not_answer_leave_room_for_the_others() {
    let (mut stage, mut receiver) = (Stage::new(), Receiver::start().await);
    (stage.settings.schedule_s, stage.settings.timeout_s, stage.settings.parallel) = (vec![0], 1, 4);
    let withheld = Answer { status: 200, headers: Vec::new(), rest: Rest::Withheld(Arc::default()) };
    receiver.script(vec![withheld; 4]);
    let (slow, quick) = (endpoint(&receiver.url("/slow")), endpoint(&receiver.url("/quick")));
    let jobs = neighbours(13);
    for job in &jobs {
        stage.accept(job, &[slow.clone(), quick.clone()]).await;
        stage.record_all(job, 1).await;
    }
    for job in &jobs[..12] {
        stage.nudge(job, std::slice::from_ref(&slow)).await;
    }
    stage.nudge(&jobs[12], std::slice::from_ref(&quick)).await;
    let running = stage.run(&jobs[0]);
    let mut slow_ones = 0;
    while receiver.next().await.path == "/slow" {
        slow_ones += 1;
    }
    running.stop().await;
    assert!((4..=6).contains(&slow_ones), "{slow_ones} of 12 came before the one that was behind them");
}

#[tokio::test]
async fn a_consumer_killed_in_the_middle_of_a_delivery_loses_nothing() {
    let (stage, mut receiver) = (Stage::new(), Receiver::start().await);
    let (talk, hook) = (job("talk"), endpoint(&receiver.url("/")));
    stage.accept(&talk, std::slice::from_ref(&hook)).await;
    stage.record_all(&talk, 5).await;
    stage.nudge(&talk, std::slice::from_ref(&hook)).await;
    // Each event is taken without an answer, then again with one.
    let withheld = Answer { status: 200, headers: Vec::new(), rest: Rest::Withheld(Arc::default()) };
    receiver.script((0..5).flat_map(|_| [withheld.clone(), status(200)]));
    let mut running = stage.run(&talk);
    for sequence in 1..=5 {
        let taken = receiver.next().await;
        running.kill().await;
        running = stage.run(&talk);
        let again = receiver.next().await;
        assert_eq!((taken.sequence(), again.sequence()), (sequence, sequence));
        assert_eq!(taken.header("webhook-id"), again.header("webhook-id"), "delivered again under the same id");
    }
    let cursor = stage.cursor_when(&talk, &hook, |c| c.next_sequence == 6).await;
    running.stop().await;
    assert_eq!((cursor.delivered, cursor.exhausted), (5, 0));
    assert!(receiver.rest().is_empty());
}
