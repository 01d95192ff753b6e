//! The whole broker in one process: bounded queues under one lock.

use super::{
    Broker, BrokerError, Consumer, DeadLetter, Delivery, Intake, MAX_ATTEMPTS, MAX_BODY_BYTES, Parcel, Queue, Settle, Settlement,
    Subscription, Topic,
};
use crate::trace::TraceContext;
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

/// What a broker in memory may hold.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Messages of one queue: waiting, out and put off together.
    pub queue_messages: usize,
    /// Deliveries of one message that nobody settles before it is dead.
    pub deliveries: u32,
    /// Messages a slow listener of a topic may fall behind.
    pub topic_messages: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { queue_messages: 65_536, deliveries: 20, topic_messages: 1024 }
    }
}

/// A broker that lives and dies with the process. Clones are the same broker.
#[derive(Clone)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
}

struct Shared {
    bounds: Bounds,
    queues: Mutex<HashMap<Queue, State>>,
    /// Told whenever a message becomes ready, is put off, or is settled.
    changed: Notify,
    /// Numbers consumers.
    consumers: AtomicUsize,
    control: broadcast::Sender<Vec<u8>>,
    progress: broadcast::Sender<Vec<u8>>,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Message>,
    /// Messages put off, by the time at which they are ready again and a number that keeps them apart.
    later: BTreeMap<(Instant, u64), Message>,
    out: usize,
    numbered: u64,
    /// Who consumes this queue, the longest first. Of a queue with a single consumer, the first one does.
    consumers: VecDeque<u64>,
}

impl State {
    fn len(&self) -> usize {
        self.ready.len() + self.later.len() + self.out
    }

    /// Makes ready what was put off until now; the time of the next one.
    fn ripen(&mut self, now: Instant) -> Option<Instant> {
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > now {
                return Some(entry.key().0);
            }
            let message = entry.remove();
            self.append(message);
        }
        None
    }

    /// Puts a message behind all others.
    fn append(&mut self, mut message: Message) {
        self.numbered += 1;
        message.place = self.numbered;
        message.since = Instant::now();
        self.ready.push_back(message);
    }

    /// Puts a message where it was.
    fn put_in_place(&mut self, message: Message) {
        let at = self.ready.partition_point(|other| other.place < message.place);
        self.ready.insert(at, message);
    }
}

struct Message {
    body: Vec<u8>,
    /// From 1, one more with each retry.
    attempt: u32,
    /// Deliveries of this attempt that came back unsettled.
    returned: u32,
    /// Where it stands in its queue.
    place: u64,
    /// When it came to stand there.
    since: Instant,
    trace: Option<TraceContext>,
}

impl Message {
    fn new(body: Vec<u8>, trace: Option<TraceContext>) -> Self {
        Self { body, attempt: 1, returned: 0, place: 0, since: Instant::now(), trace }
    }
}

impl MemoryBroker {
    pub fn new(bounds: Bounds) -> Self {
        let (control, _) = broadcast::channel(bounds.topic_messages);
        let (progress, _) = broadcast::channel(bounds.topic_messages);
        let shared = Shared {
            bounds,
            queues: Mutex::default(),
            changed: Notify::new(),
            consumers: AtomicUsize::new(0),
            control,
            progress,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Messages in a queue: waiting, out and put off.
    pub fn unsettled(&self, queue: Queue) -> usize {
        self.shared.lock().get(&queue).map_or(0, State::len)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<Queue, State>> {
        // Nothing panics while the lock is held; a poisoned lock is still whole.
        self.queues.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn topic(&self, topic: Topic) -> &broadcast::Sender<Vec<u8>> {
        match topic {
            Topic::Control => &self.control,
            Topic::Progress => &self.progress,
        }
    }

    fn push(&self, queue: Queue, message: Message) -> Result<(), BrokerError> {
        let limit = self.bounds.queue_messages;
        {
            let mut queues = self.lock();
            let state = queues.entry(queue).or_default();
            if state.len() >= limit {
                return Err(BrokerError::Full { queue: queue.to_string(), limit });
            }
            state.append(message);
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// Takes the next message of a queue, or says when to look again.
    fn take(&self, queue: Queue, consumer: Option<u64>) -> Result<Message, Option<Instant>> {
        let mut queues = self.lock();
        let state = queues.entry(queue).or_default();
        if consumer.is_some() && queue.has_single_consumer() && state.consumers.front() != consumer.as_ref() {
            return Err(None);
        }
        let next = state.ripen(Instant::now());
        let message = state.ready.pop_front().ok_or(next)?;
        state.out += 1;
        Ok(message)
    }

    /// Takes back a message that was out.
    fn settle(&self, queue: Queue, mut message: Message, settlement: Settlement) -> Result<(), BrokerError> {
        match settlement {
            Settlement::Ack => {
                self.end(queue);
                Ok(())
            }
            Settlement::Reject(reason) => self.bury(queue, message, reason),
            Settlement::Retry(_) if message.attempt >= MAX_ATTEMPTS => {
                let reason = format!("put off {MAX_ATTEMPTS} times, the most there may be");
                self.bury(queue, message, reason)
            }
            Settlement::Retry(after) => {
                message.attempt += 1;
                message.returned = 0;
                self.put_back(queue, |state| {
                    if after.is_zero() {
                        state.append(message);
                    } else {
                        state.numbered += 1;
                        state.later.insert((Instant::now() + after, state.numbered), message);
                    }
                });
                Ok(())
            }
        }
    }

    /// Takes back a message that nobody settled: it comes where it would have, before what came after it.
    fn give_back(&self, queue: Queue, mut message: Message) -> Result<(), BrokerError> {
        message.returned += 1;
        if message.returned >= self.bounds.deliveries {
            let reason = format!("delivered {} times and never settled", message.returned);
            return self.bury(queue, message, reason);
        }
        self.put_back(queue, |state| state.put_in_place(message));
        Ok(())
    }

    fn put_back(&self, queue: Queue, put: impl FnOnce(&mut State)) {
        {
            let mut queues = self.lock();
            let state = queues.entry(queue).or_default();
            state.out -= 1;
            put(state);
        }
        self.changed.notify_waiters();
    }

    /// A message that was out is no more in this queue.
    fn end(&self, queue: Queue) {
        self.put_back(queue, |_| {});
    }

    fn bury(&self, queue: Queue, message: Message, reason: String) -> Result<(), BrokerError> {
        self.end(queue);
        // A dead letter that cannot be worked on is dropped: there is no queue behind the last one.
        if queue == Queue::Dead {
            return Ok(());
        }
        let letter = DeadLetter::new(&queue.to_string(), reason, message.attempt, &message.body);
        self.push(Queue::Dead, Message::new(letter.to_body(), message.trace))
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn publish_within(&self, queue: Queue, body: Vec<u8>, trace: Option<TraceContext>) -> Result<(), BrokerError> {
        if body.len() > MAX_BODY_BYTES {
            return Err(BrokerError::TooLarge { queue: queue.to_string(), bytes: body.len() });
        }
        self.shared.push(queue, Message::new(body, trace))
    }

    async fn consume(&self, queue: Queue, prefetch: usize) -> Result<Box<dyn Consumer>, BrokerError> {
        assert!(prefetch > 0, "a consumer that may take nothing would wait for ever");
        let number = self.shared.consumers.fetch_add(1, SeqCst) as u64;
        self.shared.lock().entry(queue).or_default().consumers.push_back(number);
        Ok(Box::new(MemoryConsumer { shared: self.shared.clone(), queue, number, prefetch, out: Arc::default() }))
    }

    async fn intake(&self) -> Result<Box<dyn Intake>, BrokerError> {
        Ok(Box::new(MemoryIntake { shared: self.shared.clone() }))
    }

    async fn broadcast(&self, topic: Topic, body: Vec<u8>) -> Result<(), BrokerError> {
        if body.len() > MAX_BODY_BYTES {
            return Err(BrokerError::TooLarge { queue: format!("{topic:?}"), bytes: body.len() });
        }
        // An error only says that nobody listens.
        let _ = self.shared.topic(topic).send(body);
        Ok(())
    }

    async fn subscribe(&self, topic: Topic) -> Result<Box<dyn Subscription>, BrokerError> {
        Ok(Box::new(MemorySubscription(self.shared.topic(topic).subscribe())))
    }

    async fn depth(&self, queue: Queue) -> Result<u64, BrokerError> {
        let mut queues = self.shared.lock();
        let state = queues.entry(queue).or_default();
        state.ripen(Instant::now());
        Ok(state.ready.len() as u64)
    }
}

struct MemorySubscription(broadcast::Receiver<Vec<u8>>);

#[async_trait]
impl Subscription for MemorySubscription {
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.0.recv().await {
                Ok(body) => return Some(body),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

struct MemoryConsumer {
    shared: Arc<Shared>,
    queue: Queue,
    number: u64,
    prefetch: usize,
    /// Deliveries of this consumer that are not settled.
    out: Arc<AtomicUsize>,
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        let (shared, queue) = (&self.shared, self.queue);
        shared
            .wait(|| {
                if self.out.load(SeqCst) >= self.prefetch {
                    return Err(None);
                }
                let message = shared.take(queue, Some(self.number))?;
                self.out.fetch_add(1, SeqCst);
                Ok(delivery(shared, queue, message, Some(self.out.clone())))
            })
            .await
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.shared.lock().entry(self.queue).or_default().consumers.retain(|number| *number != self.number);
        // The next one of a queue with a single consumer takes over.
        self.shared.changed.notify_waiters();
    }
}

struct MemoryIntake {
    shared: Arc<Shared>,
}

#[async_trait]
impl Intake for MemoryIntake {
    async fn take(&mut self, queues: &[Queue]) -> Result<Delivery, BrokerError> {
        let shared = &self.shared;
        shared
            .wait(|| {
                let mut soonest = None;
                for queue in queues {
                    match shared.take(*queue, None) {
                        Ok(message) => return Ok(delivery(shared, *queue, message, None)),
                        Err(at) => soonest = [soonest, at].into_iter().flatten().min(),
                    }
                }
                Err(soonest)
            })
            .await
    }

    /// Nothing is ever on its way here.
    async fn pause(&mut self) {}
}

impl Shared {
    /// Looks until there is a delivery; a look without one says when to look again at the latest.
    async fn wait(&self, look: impl Fn() -> Result<Delivery, Option<Instant>>) -> Result<Delivery, BrokerError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Listen before looking, or a message that comes in between is not heard of.
            changed.as_mut().enable();
            match look() {
                Ok(delivery) => return Ok(delivery),
                Err(None) => changed.await,
                Err(Some(at)) => {
                    let _ = tokio::time::timeout_at(at, changed).await;
                }
            }
        }
    }
}

fn delivery(shared: &Arc<Shared>, queue: Queue, message: Message, out: Option<Arc<AtomicUsize>>) -> Delivery {
    let (attempt, redelivered) = (message.attempt, message.returned > 0);
    let waited = (!redelivered).then(|| message.since.elapsed());
    let trace = message.trace;
    let parcel = Parcel { queue, body: message.body.clone(), attempt, redelivered, user: None, waited, trace };
    Delivery::new(parcel, Box::new(Held { shared: shared.clone(), queue, message: Some(message), out }))
}

/// A message that is out.
struct Held {
    shared: Arc<Shared>,
    queue: Queue,
    message: Option<Message>,
    /// The count of its consumer.
    out: Option<Arc<AtomicUsize>>,
}

impl Held {
    /// The message, the first time; from then on it is not this delivery's any more.
    fn let_go(&mut self) -> Option<Message> {
        let message = self.message.take()?;
        if let Some(out) = &self.out {
            out.fetch_sub(1, SeqCst);
        }
        Some(message)
    }
}

#[async_trait]
impl Settle for Held {
    async fn settle(&mut self, settlement: Settlement) -> Result<(), BrokerError> {
        match self.let_go() {
            Some(message) => self.shared.settle(self.queue, message, settlement),
            None => Ok(()),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(message) = self.let_go() {
            // A full dead-letter queue loses a message that was dropped too often; there is nobody left to tell.
            let _ = self.shared.give_back(self.queue, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{self, Limits, Maker};
    use super::*;
    use std::time::Duration;

    struct Memory;

    #[async_trait]
    impl Maker for Memory {
        async fn make(&self, limits: Limits) -> Arc<dyn Broker> {
            let queue_messages = limits.queue_messages as usize;
            let bounds = Bounds { queue_messages, deliveries: limits.deliveries, topic_messages: self.topic_messages() };
            Arc::new(MemoryBroker::new(bounds))
        }

        fn quiet(&self) -> Duration {
            Duration::from_millis(20)
        }

        fn delay(&self) -> Duration {
            Duration::from_millis(30)
        }

        fn topic_messages(&self) -> usize {
            8
        }
    }

    macro_rules! as_tests {
        ($($case:ident,)*) => {
            $(
                #[tokio::test]
                async fn $case() {
                    contract::$case(&Memory).await;
                }
            )*
        };
    }

    contract::every_case!(as_tests);
}
