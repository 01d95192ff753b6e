//! What becomes of deliveries that fail.

use super::receiver::{Answer, Receiver, status};
use super::stage::{Stage, endpoint, job, now_ms};
use narrows::broker::{Broker, Queue};
use narrows::callback::EndpointId;
use narrows::callback::run::{self, Disabled, Exhausted};
use narrows::store::key::Key;
use std::sync::atomic::Ordering::SeqCst;

const HOUR_MS: u64 = 3_600_000;

fn busy(retry_after: String) -> Answer {
    Answer { status: 503, headers: vec![("retry-after", retry_after)], ..Answer::default() }
}

#[tokio::test]
async fn a_receiver_gets_the_time_it_asks_for_in_seconds_or_by_date() {
    let (stage, mut receiver) = (Stage::new(), Receiver::start().await);
    let (talk, hook) = (job("talk"), endpoint(&receiver.url("/")));
    stage.accept(&talk, std::slice::from_ref(&hook)).await;
    stage.record_all(&talk, 1).await;
    let date = httpdate::fmt_http_date(std::time::SystemTime::now() + std::time::Duration::from_secs(3 * 3600));
    receiver.script([busy("3600".into()), busy(date)]);
    let running = stage.run(&talk);
    stage.nudge(&talk, std::slice::from_ref(&hook)).await;
    assert_eq!(receiver.next().await.sequence(), 1);
    let cursor = stage.cursor_when(&talk, &hook, |c| c.attempt == 1).await;
    assert!(cursor.due_ms.abs_diff(now_ms() + HOUR_MS) < 60_000, "{cursor:?}");

    // Whoever nudges meanwhile changes nothing.
    stage.nudge(&talk, std::slice::from_ref(&hook)).await;
    stage.ahead_ms.store(HOUR_MS, SeqCst);
    stage.nudge(&talk, std::slice::from_ref(&hook)).await;
    assert_eq!(receiver.next().await.sequence(), 1);
    let cursor = stage.cursor_when(&talk, &hook, |c| c.attempt == 2).await;
    assert!(cursor.due_ms.abs_diff(now_ms() + 3 * HOUR_MS) < 60_000, "{cursor:?}");
    assert_eq!(cursor.last_failure.as_deref(), Some("the endpoint answered 503"));

    stage.ahead_ms.store(3 * HOUR_MS, SeqCst);
    stage.nudge(&talk, std::slice::from_ref(&hook)).await;
    assert_eq!(receiver.next().await.sequence(), 1);
    stage.cursor_when(&talk, &hook, |c| c.delivered == 1).await;
    running.stop().await;
    assert!(receiver.rest().is_empty(), "nothing was sent before its time");
}

#[tokio::test]
async fn the_wait_is_a_message_of_the_broker_and_outlives_the_consumer() {
    let (mut stage, mut receiver) = (Stage::new(), Receiver::start().await);
    stage.settings.schedule_s = vec![0, 1];
    let (talk, hook) = (job("talk"), endpoint(&receiver.url("/")));
    stage.accept(&talk, std::slice::from_ref(&hook)).await;
    stage.record_all(&talk, 1).await;
    receiver.script([status(500)]);
    let running = stage.run(&talk);
    stage.nudge(&talk, std::slice::from_ref(&hook)).await;
    receiver.next().await;
    stage.cursor_when(&talk, &hook, |c| c.attempt == 1).await;
    running.stop().await;
    assert!(receiver.rest().is_empty());
    let running = stage.run(&talk);
    assert_eq!(receiver.next().await.sequence(), 1);
    stage.settled(&talk).await;
    assert_eq!(stage.cursor(&talk, &hook).await.delivered, 1);
    running.stop().await;
}

#[tokio::test]
async fn what_was_given_up_is_kept_and_can_be_replayed() {
    let (stage, mut receiver) = (Stage::new(), Receiver::start().await);
    let (talk, hook) = (job("talk"), endpoint(&receiver.url("/")));
    let id = EndpointId::of(&hook);
    stage.accept(&talk, std::slice::from_ref(&hook)).await;
    stage.record_all(&talk, 4).await;
    receiver.otherwise(status(500));
    let running = stage.run(&talk);
    stage.nudge(&talk, std::slice::from_ref(&hook)).await;
    let cursor = stage.cursor_when(&talk, &hook, |c| c.next_sequence == 5).await;
    assert_eq!((cursor.exhausted, cursor.delivered, cursor.failing), (4, 0, true));
    let sequences: Vec<u64> = receiver.rest().iter().map(|t| t.sequence()).collect();
    assert_eq!(sequences, [1, 1, 1, 2, 3, 4], "after the first was given up, each is tried once");
    let kept: Exhausted = stage.store.get_json(&Key::exhausted("acme", &talk, id.as_str(), 1)).await.unwrap().unwrap();
    assert_eq!((kept.attempts, kept.reason.as_str(), kept.kind.as_str()), (3, "the endpoint answered 500", "stage.completed"));
    assert_eq!((&kept.endpoint, kept.sequence, kept.event.as_str()), (&id, 1, "talk/stage.completed/1"));

    receiver.otherwise(status(200));
    stage.replay(&talk, &hook, 2).await;
    let again: Vec<u64> = receiver.take(3).await.iter().map(|t| t.sequence()).collect();
    assert_eq!(again, [2, 3, 4]);
    stage.cursor_when(&talk, &hook, |c| c.next_sequence == 5 && c.delivered == 3).await;
    running.stop().await;
    for sequence in 1..=4 {
        let is_kept = stage.exists(&Key::exhausted("acme", &talk, id.as_str(), sequence)).await;
        assert_eq!(is_kept, sequence == 1, "{sequence}: what has arrived is owed no more");
    }
    assert!(receiver.rest().is_empty());
}

#[tokio::test]
async fn a_replay_is_made_once_although_its_message_is_tried_again() {
    let (stage, mut receiver) = (Stage::new(), Receiver::start().await);
    let (talk, hook) = (job("talk"), endpoint(&receiver.url("/")));
    stage.accept(&talk, std::slice::from_ref(&hook)).await;
    stage.record_all(&talk, 3).await;
    let running = stage.run(&talk);
    stage.nudge(&talk, std::slice::from_ref(&hook)).await;
    receiver.take(3).await;
    stage.cursor_when(&talk, &hook, |c| c.delivered == 3).await;
    receiver.script([status(200), status(500), status(500)]);
    stage.replay(&talk, &hook, 1).await;
    let sequences: Vec<u64> = receiver.take(5).await.iter().map(|t| t.sequence()).collect();
    assert_eq!(sequences, [1, 2, 2, 2, 3]);
    stage.cursor_when(&talk, &hook, |c| c.delivered == 6).await;
    running.stop().await;
    assert!(receiver.rest().is_empty());
}

#[tokio::test]
async fn gone_disables_the_endpoint_for_the_tenant_until_it_is_enabled() {
    let (stage, mut receiver) = (Stage::new(), Receiver::start().await);
    // Two jobs of one partition.
    let (first, other) = (job("talk"), job(same_partition("talk").as_str()));
    let hook = endpoint(&receiver.url("/"));
    let id = EndpointId::of(&hook);
    for job in [&first, &other] {
        stage.accept(job, std::slice::from_ref(&hook)).await;
        stage.record_all(job, 2).await;
    }
    receiver.script([status(200), status(410)]);
    let running = stage.run(&first);
    stage.nudge(&first, std::slice::from_ref(&hook)).await;
    receiver.take(2).await;
    let cursor = stage.cursor_when(&first, &hook, |c| c.disabled).await;
    assert_eq!(cursor.next_sequence, 2, "it keeps its place");
    let disabled: Disabled = stage.store.get_json(&Key::disabled("acme", id.as_str())).await.unwrap().unwrap();
    assert_eq!((&disabled.job, disabled.tenant.as_str()), (&first, "acme"));
    for job in [&other, &first] {
        stage.nudge(job, std::slice::from_ref(&hook)).await;
    }
    stage.settled(&first).await;
    running.stop().await;
    assert!(receiver.rest().is_empty(), "nothing goes to an endpoint that wants no more");

    run::enable(&stage.store, "acme", &id).await.unwrap();
    let running = stage.run(&first);
    stage.replay(&first, &hook, 2).await;
    assert_eq!(receiver.next().await.sequence(), 2);
    stage.nudge(&other, std::slice::from_ref(&hook)).await;
    assert_eq!(receiver.take(2).await.len(), 2);
    stage.cursor_when(&other, &hook, |c| c.delivered == 2).await;
    running.stop().await;
}

fn same_partition(name: &str) -> String {
    let wanted = Queue::callbacks_of(name);
    (0..).map(|n| format!("other-{n}")).find(|id| Queue::callbacks_of(id) == wanted).unwrap()
}

#[tokio::test]
async fn without_a_key_nothing_is_sent_unsigned() {
    let (mut stage, mut receiver) = (Stage::new(), Receiver::start().await);
    stage.tenant.keys.clear();
    let (talk, hook) = (job("talk"), endpoint(&receiver.url("/")));
    stage.accept(&talk, std::slice::from_ref(&hook)).await;
    stage.record_all(&talk, 1).await;
    let running = stage.run(&talk);
    stage.nudge(&talk, std::slice::from_ref(&hook)).await;
    let cursor = stage.cursor_when(&talk, &hook, |c| c.exhausted == 1).await;
    running.stop().await;
    let reason = cursor.last_failure.unwrap();
    assert!(reason.contains("acme") && reason.contains("webhook_secret_files"), "{reason}");
    assert!(receiver.rest().is_empty());
}

#[tokio::test]
async fn a_message_that_is_no_nudge_is_a_dead_letter() {
    let stage = Stage::new();
    let talk = job("talk");
    stage.broker.publish(Queue::callbacks_of("talk"), b"{\"job\":\"../x\"}".to_vec()).await.unwrap();
    let running = stage.run(&talk);
    let mut dead = stage.broker.consume(Queue::Dead, 1).await.unwrap();
    let letter = tokio::time::timeout(std::time::Duration::from_secs(20), dead.next()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&letter.body).contains("is no nudge"));
    letter.ack().await.unwrap();
    running.stop().await;
}
