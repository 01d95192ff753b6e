//! What every broker promises. Each case is handed a maker of brokers and asks it for a fresh one.
//!
//! The memory's run as unit tests below; those of a real RabbitMQ in `tests/broker.rs`, which includes this file.

use super::{
    Broker, BrokerError, Class, Consumer, DeadLetter, Delivery, Lane, MAX_BODY_BYTES, Queue, Subscription, Topic, TraceContext,
    within,
};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

const WORK: Queue = Queue::Work(Class::Cpu, Lane::Normal);
const JOBS: Queue = Queue::Jobs(Lane::High);
/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a number is looked at that must become another.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What the cases are run against.
#[async_trait]
pub trait Maker: Send + Sync {
    /// A broker with nothing in it, and these limits.
    async fn make(&self, limits: Limits) -> Arc<dyn Broker>;

    /// How long to wait for what must not come.
    fn quiet(&self) -> Duration;

    /// The shortest time by which a message can be put off.
    fn delay(&self) -> Duration;

    /// Messages of a topic that a slow listener finds at most.
    fn topic_messages(&self) -> usize;
}

/// What a broker of a case may hold.
pub struct Limits {
    pub queue_messages: u32,
    /// Times that a message may come back unsettled.
    pub deliveries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { queue_messages: 1000, deliveries: 20 }
    }
}

/// Hands the names of all cases to a macro.
macro_rules! every_case {
    ($name:ident) => {
        $name! {
            messages_come_in_order_and_an_acked_one_is_gone,
            a_consumer_waits_for_a_message_that_is_not_there_yet,
            no_more_than_the_prefetch_is_out,
            a_dropped_delivery_comes_back_first_as_the_same_attempt,
            a_delivery_outlives_its_consumer,
            what_a_dropped_consumer_had_not_given_out_goes_to_another,
            a_retried_delivery_comes_back_only_when_its_time_is_over_as_the_next_attempt,
            a_delivery_retried_at_once_is_the_next_attempt,
            a_rejected_delivery_is_a_dead_letter_with_its_reason,
            a_message_says_in_which_trace_it_was_published_wherever_it_goes,
            whoever_works_in_a_trace_publishes_in_it,
            a_dead_letter_that_is_rejected_is_gone,
            a_message_dropped_too_often_is_a_dead_letter,
            a_full_queue_refuses_and_keeps_what_it_took,
            an_oversized_message_is_refused,
            a_partition_has_one_consumer_at_a_time_and_keeps_its_order,
            every_listener_of_a_topic_hears_what_is_said_from_then_on,
            a_slow_listener_skips_to_what_is_new,
            an_intake_takes_from_the_first_queue_that_holds_a_message,
            an_intake_waits_for_whichever_queue_gets_a_message_first,
            an_intake_takes_no_more_than_it_was_asked_for,
            a_paused_intake_gives_back_what_nobody_took,
            an_intake_that_is_dropped_leaves_its_deliveries_alone,
            cancelled_takes_and_nexts_lose_nothing,
        }
    };
}
pub(crate) use every_case;

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it comes in time")
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    soon(consumer.next()).await.unwrap()
}

async fn nothing_comes(maker: &dyn Maker, consumer: &mut Box<dyn Consumer>) -> bool {
    tokio::time::timeout(maker.quiet(), consumer.next()).await.is_err()
}

async fn publish(broker: &dyn Broker, queue: Queue, bodies: &[&str]) {
    for body in bodies {
        soon(broker.publish(queue, (*body).into())).await.unwrap();
    }
}

/// Waits until so many messages of a queue are ready.
async fn depth_becomes(broker: &dyn Broker, queue: Queue, expected: u64) {
    let begun = tokio::time::Instant::now();
    loop {
        let depth = broker.depth(queue).await.unwrap();
        if depth == expected {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{queue}: {depth} messages, not {expected}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.body).unwrap()
}

async fn letter(broker: &dyn Broker) -> DeadLetter {
    let delivery = next(&mut broker.consume(Queue::Dead, 1).await.unwrap()).await;
    let letter = serde_json::from_slice(&delivery.body).unwrap();
    delivery.ack().await.unwrap();
    letter
}

pub async fn messages_come_in_order_and_an_acked_one_is_gone(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    publish(&*broker, WORK, &["a", "b"]).await;
    depth_becomes(&*broker, WORK, 2).await;
    let mut consumer = broker.consume(WORK, 2).await.unwrap();
    for body in ["a", "b"] {
        let delivery = next(&mut consumer).await;
        assert_eq!((text(&delivery), delivery.attempt, delivery.redelivered, delivery.queue), (body, 1, false, WORK));
        delivery.ack().await.unwrap();
    }
    assert!(nothing_comes(maker, &mut consumer).await);
    depth_becomes(&*broker, WORK, 0).await;
}

pub async fn a_consumer_waits_for_a_message_that_is_not_there_yet(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    let (delivery, published) = tokio::join!(next(&mut consumer), broker.publish(WORK, "late".into()));
    published.unwrap();
    assert_eq!(delivery.body, b"late");
    delivery.ack().await.unwrap();
}

pub async fn no_more_than_the_prefetch_is_out(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    publish(&*broker, WORK, &["a", "b"]).await;
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    let first = next(&mut consumer).await;
    assert!(nothing_comes(maker, &mut consumer).await);
    assert_eq!(broker.depth(WORK).await.unwrap(), 1);
    first.ack().await.unwrap();
    assert_eq!(next(&mut consumer).await.body, b"b");
}

pub async fn a_dropped_delivery_comes_back_first_as_the_same_attempt(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    publish(&*broker, WORK, &["a", "b"]).await;
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    drop(next(&mut consumer).await);
    let again = next(&mut consumer).await;
    assert_eq!((text(&again), again.attempt, again.redelivered), ("a", 1, true));
    again.ack().await.unwrap();
    let other = next(&mut consumer).await;
    assert_eq!((text(&other), other.redelivered), ("b", false));
}

pub async fn a_delivery_outlives_its_consumer(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    publish(&*broker, WORK, &["a"]).await;
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    let delivery = next(&mut consumer).await;
    drop(consumer);
    delivery.ack().await.unwrap();
    let mut other = broker.consume(WORK, 1).await.unwrap();
    assert!(nothing_comes(maker, &mut other).await);
}

pub async fn what_a_dropped_consumer_had_not_given_out_goes_to_another(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    publish(&*broker, WORK, &["a", "b", "c"]).await;
    let mut consumer = broker.consume(WORK, 3).await.unwrap();
    let held = next(&mut consumer).await;
    drop(consumer);
    let mut other = broker.consume(WORK, 3).await.unwrap();
    let mut bodies = BTreeSet::new();
    for _ in 0..2 {
        let delivery = next(&mut other).await;
        bodies.insert(text(&delivery).to_string());
        delivery.ack().await.unwrap();
    }
    assert_eq!(bodies, BTreeSet::from(["b".to_string(), "c".to_string()]));
    assert!(nothing_comes(maker, &mut other).await, "the first is still out");
    held.ack().await.unwrap();
}

pub async fn a_retried_delivery_comes_back_only_when_its_time_is_over_as_the_next_attempt(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    publish(&*broker, WORK, &["a"]).await;
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    let delay = maker.delay();
    let before = tokio::time::Instant::now();
    next(&mut consumer).await.retry(delay).await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!((text(&again), again.attempt, again.redelivered, again.queue), ("a", 2, false, WORK));
    assert!(before.elapsed() >= delay, "{:?}", before.elapsed());
    again.retry(delay).await.unwrap();
    assert_eq!(next(&mut consumer).await.attempt, 3);
}

pub async fn a_delivery_retried_at_once_is_the_next_attempt(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    publish(&*broker, WORK, &["a"]).await;
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    next(&mut consumer).await.retry(Duration::ZERO).await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!((text(&again), again.attempt), ("a", 2));
}

pub async fn a_rejected_delivery_is_a_dead_letter_with_its_reason(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    publish(&*broker, WORK, &["poison"]).await;
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    next(&mut consumer).await.reject("not a part".into()).await.unwrap();
    let expected = DeadLetter { queue: WORK.to_string(), reason: "not a part".into(), attempt: 1, body: "poison".into() };
    assert_eq!(letter(&*broker).await, expected);
    assert!(nothing_comes(maker, &mut consumer).await);
}

/// Put off, given back, tried again at once, and buried: none of it loses the trace.
pub async fn a_message_says_in_which_trace_it_was_published_wherever_it_goes(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    let trace = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    soon(broker.publish_within(WORK, "traced".into(), trace)).await.unwrap();
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    let first = next(&mut consumer).await;
    assert_eq!((text(&first), first.trace), ("traced", trace));
    first.retry(maker.delay()).await.unwrap();
    let second = next(&mut consumer).await;
    assert_eq!((second.attempt, second.trace), (2, trace));
    drop(second);
    let again = next(&mut consumer).await;
    assert_eq!((again.redelivered, again.trace), (true, trace));
    again.retry(Duration::ZERO).await.unwrap();
    let third = next(&mut consumer).await;
    assert_eq!((third.attempt, third.trace), (3, trace));
    third.reject("no".into()).await.unwrap();
    let buried = next(&mut broker.consume(Queue::Dead, 1).await.unwrap()).await;
    assert_eq!(buried.trace, trace);
    buried.ack().await.unwrap();
}

/// What says nothing is in none.
pub async fn whoever_works_in_a_trace_publishes_in_it(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    let trace = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    let inner = within(&broker, Some(TraceContext::of_job("talk", None)));
    soon(inner.publish(JOBS, "within".into())).await.unwrap();
    soon(inner.publish_within(JOBS, "further in".into(), trace)).await.unwrap();
    publish(&*broker, JOBS, &["untraced"]).await;
    let mut intake = broker.intake().await.unwrap();
    for expected in [Some(TraceContext::of_job("talk", None)), trace, None] {
        let delivery = soon(intake.take(&[JOBS])).await.unwrap();
        assert_eq!(delivery.trace, expected, "{}", text(&delivery));
        delivery.ack().await.unwrap();
    }
}

pub async fn a_dead_letter_that_is_rejected_is_gone(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    publish(&*broker, WORK, &["poison"]).await;
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    next(&mut consumer).await.reject("no".into()).await.unwrap();
    let mut dead = broker.consume(Queue::Dead, 1).await.unwrap();
    next(&mut dead).await.reject("still no".into()).await.unwrap();
    assert!(nothing_comes(maker, &mut dead).await);
    depth_becomes(&*broker, Queue::Dead, 0).await;
}

pub async fn a_message_dropped_too_often_is_a_dead_letter(maker: &dyn Maker) {
    let broker = maker.make(Limits { deliveries: 3, ..Limits::default() }).await;
    publish(&*broker, WORK, &["a"]).await;
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    let mut dead = broker.consume(Queue::Dead, 1).await.unwrap();
    let mut given_out = Vec::new();
    let buried = loop {
        tokio::select! {
            delivery = next(&mut consumer) => given_out.push(delivery.redelivered),
            delivery = next(&mut dead) => break delivery,
        }
    };
    // Whether the limit counts the first time is the server's way of counting.
    assert!([3, 4].contains(&given_out.len()), "{given_out:?}");
    assert!(!given_out[0] && given_out[1..].iter().all(|redelivered| *redelivered), "{given_out:?}");
    let letter: DeadLetter = serde_json::from_slice(&buried.body).unwrap();
    assert_eq!((letter.queue, letter.attempt, letter.body), (WORK.to_string(), 1, "a".to_string()));
    assert!(letter.reason.contains("settled"), "{}", letter.reason);
    buried.ack().await.unwrap();
    depth_becomes(&*broker, WORK, 0).await;
}

pub async fn a_full_queue_refuses_and_keeps_what_it_took(maker: &dyn Maker) {
    let broker = maker.make(Limits { queue_messages: 4, ..Limits::default() }).await;
    // A server may find out one message after the other that it is full.
    let slack = 8;
    let mut taken = 0_u64;
    let refusal = loop {
        match soon(broker.publish(WORK, "a".into())).await {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken <= 4 + slack, "it is never full");
    };
    assert!(taken >= 4, "{taken} taken");
    assert_eq!(refusal, BrokerError::Full { queue: WORK.to_string(), limit: 4 });
    publish(&*broker, JOBS, &["other"]).await;
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    for _ in 0..taken {
        next(&mut consumer).await.ack().await.unwrap();
    }
    depth_becomes(&*broker, WORK, 0).await;
    publish_until_taken(&*broker, WORK).await;
}

/// A queue that was full takes messages again, though perhaps not in the same moment.
async fn publish_until_taken(broker: &dyn Broker, queue: Queue) {
    let begun = tokio::time::Instant::now();
    while let Err(error) = broker.publish(queue, "again".into()).await {
        assert!(matches!(error, BrokerError::Full { .. }), "{error}");
        assert!(begun.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

pub async fn an_oversized_message_is_refused(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    let huge = vec![b'x'; MAX_BODY_BYTES + 1];
    assert!(matches!(broker.publish(Queue::Events(0), huge.clone()).await, Err(BrokerError::TooLarge { .. })));
    assert!(matches!(broker.broadcast(Topic::Control, huge).await, Err(BrokerError::TooLarge { .. })));
    // The largest one comes through whole, as a letter, too.
    let mut largest = vec![b'"'; MAX_BODY_BYTES - 1];
    largest.push(1);
    soon(broker.publish(WORK, largest.clone())).await.unwrap();
    let mut consumer = broker.consume(WORK, 1).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert!(delivery.body == largest);
    soon(delivery.reject("too much of it".into())).await.unwrap();
    assert!(letter(&*broker).await.body.into_bytes() == largest);
}

pub async fn a_partition_has_one_consumer_at_a_time_and_keeps_its_order(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    let queue = Queue::Events(3);
    let mut first = broker.consume(queue, 8).await.unwrap();
    let mut second = broker.consume(queue, 8).await.unwrap();
    publish(&*broker, queue, &["0", "1", "2", "3", "4"]).await;
    for n in ["0", "1"] {
        let delivery = next(&mut first).await;
        assert_eq!(text(&delivery), n);
        delivery.ack().await.unwrap();
    }
    let unsettled = next(&mut first).await;
    assert!(nothing_comes(maker, &mut second).await, "the second waits");
    drop(unsettled);
    drop(first);
    let mut seen = Vec::new();
    while seen.last().map(String::as_str) != Some("4") {
        let delivery = next(&mut second).await;
        seen.push(text(&delivery).to_string());
        delivery.ack().await.unwrap();
    }
    assert_eq!(seen, ["2", "3", "4"]);
}

pub async fn every_listener_of_a_topic_hears_what_is_said_from_then_on(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    broker.broadcast(Topic::Control, "before".into()).await.unwrap();
    let mut one = broker.subscribe(Topic::Control).await.unwrap();
    let mut two = broker.subscribe(Topic::Control).await.unwrap();
    let mut other = broker.subscribe(Topic::Progress).await.unwrap();
    broker.broadcast(Topic::Control, "drain".into()).await.unwrap();
    assert_eq!(soon(one.next()).await.unwrap(), b"drain");
    assert_eq!(soon(two.next()).await.unwrap(), b"drain");
    assert!(tokio::time::timeout(maker.quiet(), other.next()).await.is_err());
    broker.broadcast(Topic::Progress, "3 frames".into()).await.unwrap();
    assert_eq!(soon(other.next()).await.unwrap(), b"3 frames");
}

pub async fn a_slow_listener_skips_to_what_is_new(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    let mut slow: Box<dyn Subscription> = broker.subscribe(Topic::Control).await.unwrap();
    let said = maker.topic_messages() + 100;
    for n in 0..said {
        broker.broadcast(Topic::Control, n.to_string().into_bytes()).await.unwrap();
    }
    let last = (said - 1).to_string().into_bytes();
    let mut heard = 0;
    loop {
        heard += 1;
        if soon(slow.next()).await.unwrap() == last {
            break;
        }
    }
    assert!(heard <= maker.topic_messages(), "{heard} of {said} heard");
}

pub async fn an_intake_takes_from_the_first_queue_that_holds_a_message(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    publish(&*broker, WORK, &["part", "another"]).await;
    publish(&*broker, JOBS, &["job"]).await;
    let mut intake = broker.intake().await.unwrap();
    for (queues, expected) in [([JOBS, WORK], (JOBS, "job")), ([JOBS, WORK], (WORK, "part")), ([WORK, JOBS], (WORK, "another"))] {
        let delivery = soon(intake.take(&queues)).await.unwrap();
        assert_eq!((delivery.queue, text(&delivery)), expected);
        delivery.ack().await.unwrap();
    }
    assert!(tokio::time::timeout(maker.quiet(), intake.take(&[JOBS, WORK])).await.is_err());
}

pub async fn an_intake_waits_for_whichever_queue_gets_a_message_first(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    let mut intake = broker.intake().await.unwrap();
    // Not settled until the end: a delivery that is out must not keep the next one away.
    let mut out = Vec::new();
    for (queue, body) in [(WORK, "part"), (JOBS, "job"), (WORK, "another"), (WORK, "and another")] {
        let queues = [JOBS, WORK];
        let (taken, published) = tokio::join!(soon(intake.take(&queues)), broker.publish(queue, body.into()));
        published.unwrap();
        let delivery = taken.unwrap();
        assert_eq!((delivery.queue, text(&delivery)), (queue, body));
        out.push(delivery);
    }
    for delivery in out {
        delivery.ack().await.unwrap();
    }
}

pub async fn an_intake_takes_no_more_than_it_was_asked_for(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    let mut intake = broker.intake().await.unwrap();
    assert!(tokio::time::timeout(maker.quiet(), intake.take(&[WORK])).await.is_err());
    intake.pause().await;
    publish(&*broker, WORK, &["a", "b", "c"]).await;
    depth_becomes(&*broker, WORK, 3).await;
    let delivery = soon(intake.take(&[WORK])).await.unwrap();
    intake.pause().await;
    depth_becomes(&*broker, WORK, 2).await;
    delivery.ack().await.unwrap();
    let delivery = soon(intake.take(&[WORK])).await.unwrap();
    assert_eq!((text(&delivery), delivery.redelivered), ("b", false));
}

pub async fn a_paused_intake_gives_back_what_nobody_took(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    let mut idle = broker.intake().await.unwrap();
    assert!(tokio::time::timeout(maker.quiet(), idle.take(&[JOBS, WORK])).await.is_err());
    // On its way to one that nobody asks any more.
    publish(&*broker, WORK, &["a"]).await;
    idle.pause().await;
    let mut busy = broker.intake().await.unwrap();
    let delivery = soon(busy.take(&[WORK])).await.unwrap();
    assert_eq!((text(&delivery), delivery.attempt), ("a", 1));
    delivery.ack().await.unwrap();
    // And it goes on when it is asked again.
    publish(&*broker, JOBS, &["b"]).await;
    assert_eq!(soon(idle.take(&[JOBS, WORK])).await.unwrap().queue, JOBS);
}

pub async fn an_intake_that_is_dropped_leaves_its_deliveries_alone(maker: &dyn Maker) {
    let broker = maker.make(Limits::default()).await;
    let mut intake = broker.intake().await.unwrap();
    assert!(tokio::time::timeout(maker.quiet(), intake.take(&[JOBS, WORK])).await.is_err());
    publish(&*broker, WORK, &["a"]).await;
    let delivery = soon(intake.take(&[JOBS, WORK])).await.unwrap();
    publish(&*broker, JOBS, &["b"]).await;
    drop(intake);
    let mut other = broker.intake().await.unwrap();
    assert_eq!(text(&soon(other.take(&[JOBS, WORK])).await.unwrap()), "b");
    delivery.ack().await.unwrap();
    assert_eq!(soon(other.take(&[JOBS, WORK])).await.unwrap().queue, JOBS, "only what was dropped comes again");
}

pub async fn cancelled_takes_and_nexts_lose_nothing(maker: &dyn Maker) {
    const MESSAGES: usize = 60;
    let broker = maker.make(Limits { deliveries: 1000, ..Limits::default() }).await;
    let publisher = broker.clone();
    let publishing = tokio::spawn(async move {
        for n in 0..MESSAGES {
            publisher.publish(WORK, n.to_string().into_bytes()).await.unwrap();
        }
    });
    let mut intake = broker.intake().await.unwrap();
    let mut consumer = broker.consume(WORK, 2).await.unwrap();
    let mut seen = BTreeSet::new();
    let begun = tokio::time::Instant::now();
    for turn in 0_u64.. {
        assert!(begun.elapsed() < PATIENCE, "{} of {MESSAGES} came", seen.len());
        // Anything from no time at all, in steps that meet every point of the way.
        let patience = Duration::from_micros(turn * 37 % 4000);
        let delivery = match turn % 3 {
            0 => tokio::time::timeout(patience, intake.take(&[JOBS, WORK])).await,
            1 => tokio::time::timeout(patience, consumer.next()).await,
            _ => {
                if turn % 5 == 0 {
                    intake.pause().await;
                }
                continue;
            }
        };
        if let Ok(delivery) = delivery {
            let delivery = delivery.unwrap();
            assert!(seen.insert(text(&delivery).to_string()), "{} came twice", text(&delivery));
            delivery.ack().await.unwrap();
        }
        if seen.len() == MESSAGES {
            break;
        }
    }
    publishing.await.unwrap();
    intake.pause().await;
    depth_becomes(&*broker, WORK, 0).await;
}
