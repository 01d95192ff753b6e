//! What every broker promises. Each test is handed a fresh broker.

use super::memory::{Bounds, MemoryBroker};
use super::*;
use crate::job::Lane;
use std::time::Duration;

const WORK: Queue = Queue::Work(Class::Cpu, Lane::Normal);
const SOON: Duration = Duration::from_millis(50);

fn broker() -> MemoryBroker {
    MemoryBroker::new(Bounds { queue_messages: 4, deliveries: 3, topic_messages: 8 })
}

async fn nothing_comes(consumer: &mut Box<dyn Consumer>) -> bool {
    tokio::time::timeout(SOON, consumer.next()).await.is_err()
}

#[tokio::test]
async fn messages_come_in_order_and_an_acked_one_is_gone() {
    let broker = broker();
    for body in ["a", "b"] {
        broker.publish(WORK, body.into()).await.unwrap();
    }
    let mut consumer = broker.consume(WORK, 2).await.unwrap();
    for body in ["a", "b"] {
        let delivery = consumer.next().await.unwrap();
        assert_eq!((delivery.body.as_slice(), delivery.attempt), (body.as_bytes(), 1));
        delivery.ack().await.unwrap();
    }
    assert!(nothing_comes(&mut consumer).await);
    assert_eq!(broker.unsettled(WORK), 0);
}

#[tokio::test]
async fn a_consumer_waits_for_a_message_that_is_not_there_yet() {
    let broker = broker();
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    let (delivery, published) = tokio::join!(consumer.next(), broker.publish(WORK, "late".into()));
    published.unwrap();
    assert_eq!(delivery.unwrap().body, b"late");
}

#[tokio::test]
async fn no_more_than_the_prefetch_is_out() {
    let broker = broker();
    for body in ["a", "b"] {
        broker.publish(WORK, body.into()).await.unwrap();
    }
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    let first = consumer.next().await.unwrap();
    assert!(nothing_comes(&mut consumer).await);
    first.ack().await.unwrap();
    assert_eq!(consumer.next().await.unwrap().body, b"b");
}

#[tokio::test]
async fn a_dropped_delivery_comes_back_first_as_the_same_attempt() {
    let broker = broker();
    for body in ["a", "b"] {
        broker.publish(WORK, body.into()).await.unwrap();
    }
    let mut consumer = broker.consume(WORK, 2).await.unwrap();
    drop(consumer.next().await.unwrap());
    let again = consumer.next().await.unwrap();
    assert_eq!((again.body.as_slice(), again.attempt, again.redelivered), (b"a".as_slice(), 1, true));
}

#[tokio::test]
async fn a_retried_delivery_comes_back_only_when_its_time_is_over() {
    let broker = broker();
    broker.publish(WORK, "a".into()).await.unwrap();
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    let delay = SOON * 3;
    let before = tokio::time::Instant::now();
    consumer.next().await.unwrap().retry(delay).await.unwrap();
    assert!(nothing_comes(&mut consumer).await);
    let again = consumer.next().await.unwrap();
    assert_eq!(again.attempt, 2);
    assert!(before.elapsed() >= delay, "{:?}", before.elapsed());
}

#[tokio::test]
async fn a_rejected_delivery_is_a_dead_letter_with_its_reason() {
    let broker = broker();
    broker.publish(WORK, "poison".into()).await.unwrap();
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    consumer.next().await.unwrap().reject("not a part".into()).await.unwrap();
    let mut dead = broker.consume(Queue::Dead, 1).await.unwrap();
    let letter: DeadLetter = serde_json::from_slice(&dead.next().await.unwrap().body).unwrap();
    let expected = DeadLetter { queue: WORK.to_string(), reason: "not a part".into(), attempt: 1, body: "poison".into() };
    assert_eq!(letter, expected);
    assert!(nothing_comes(&mut consumer).await);
}

#[tokio::test]
async fn a_message_delivered_too_often_is_a_dead_letter() {
    let broker = broker();
    broker.publish(WORK, "a".into()).await.unwrap();
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    for redelivered in [false, true, true] {
        assert_eq!(consumer.next().await.unwrap().redelivered, redelivered);
    }
    assert!(nothing_comes(&mut consumer).await);
    assert_eq!((broker.unsettled(WORK), broker.unsettled(Queue::Dead)), (0, 1));
}

#[tokio::test]
async fn a_full_queue_and_an_oversized_message_are_refused_publishes() {
    let broker = broker();
    for _ in 0..4 {
        broker.publish(WORK, "a".into()).await.unwrap();
    }
    assert!(matches!(broker.publish(WORK, "b".into()).await, Err(BrokerError::Full { limit: 4, .. })));
    broker.publish(Queue::Dead, "other".into()).await.unwrap();
    let huge = vec![0; MAX_BODY_BYTES + 1];
    assert!(matches!(broker.publish(Queue::Events(0), huge).await, Err(BrokerError::TooLarge { .. })));
}

#[tokio::test]
async fn every_listener_of_a_topic_hears_it_and_a_slow_one_skips() {
    let broker = broker();
    broker.broadcast(Topic::Control, "before".into()).await.unwrap();
    let mut one = broker.subscribe(Topic::Control).await.unwrap();
    let mut two = broker.subscribe(Topic::Control).await.unwrap();
    let mut other = broker.subscribe(Topic::Progress).await.unwrap();
    broker.broadcast(Topic::Control, "drain".into()).await.unwrap();
    assert_eq!(one.next().await.unwrap(), b"drain");
    assert_eq!(two.next().await.unwrap(), b"drain");
    assert!(tokio::time::timeout(SOON, other.next()).await.is_err());
    for n in 0..20 {
        broker.broadcast(Topic::Control, vec![n]).await.unwrap();
    }
    assert_eq!(one.next().await.unwrap(), [12]);
}
