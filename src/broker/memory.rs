//! The whole broker in one process: bounded queues under one lock.

use super::{
    Broker, BrokerError, Consumer, DeadLetter, Delivery, MAX_BODY_BYTES, Queue, Settle, Settlement, Subscription, Topic,
};
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

/// What a broker in memory may hold.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Messages of one queue: waiting, out and put off together.
    pub queue_messages: usize,
    /// Deliveries of one message before it is dead.
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
            self.ready.push_back(entry.remove());
        }
        None
    }
}

struct Message {
    body: Vec<u8>,
    /// Deliveries so far.
    delivered: u32,
}

impl MemoryBroker {
    pub fn new(bounds: Bounds) -> Self {
        let (control, _) = broadcast::channel(bounds.topic_messages);
        let (progress, _) = broadcast::channel(bounds.topic_messages);
        let shared = Shared { bounds, queues: Mutex::default(), changed: Notify::new(), control, progress };
        Self { shared: Arc::new(shared) }
    }

    /// Messages in a queue: waiting, out and put off.
    pub fn depth(&self, queue: Queue) -> usize {
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
        let bytes = message.body.len();
        if bytes > MAX_BODY_BYTES {
            return Err(BrokerError::TooLarge { queue: queue.to_string(), bytes });
        }
        let limit = self.bounds.queue_messages;
        {
            let mut queues = self.lock();
            let state = queues.entry(queue).or_default();
            if state.len() >= limit {
                return Err(BrokerError::Full { queue: queue.to_string(), limit });
            }
            state.ready.push_back(message);
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// Takes back a message that was out.
    fn settle(&self, queue: Queue, message: Message, settlement: Settlement) -> Result<(), BrokerError> {
        let spent = message.delivered >= self.bounds.deliveries;
        let dead = match settlement {
            Settlement::Ack => None,
            Settlement::Reject(reason) => Some((message, reason)),
            Settlement::Retry(_) if spent => {
                let reason = format!("delivered {} times, the most there may be", message.delivered);
                Some((message, reason))
            }
            Settlement::Retry(after) => {
                let mut queues = self.lock();
                let state = queues.entry(queue).or_default();
                state.out -= 1;
                if after.is_zero() {
                    state.ready.push_front(message);
                } else {
                    state.numbered += 1;
                    let key = (Instant::now() + after, state.numbered);
                    state.later.insert(key, message);
                }
                drop(queues);
                self.changed.notify_waiters();
                return Ok(());
            }
        };
        self.lock().entry(queue).or_default().out -= 1;
        self.changed.notify_waiters();
        // A dead letter that cannot be worked on is dropped: there is no queue behind the last one.
        let Some((message, reason)) = dead.filter(|_| queue != Queue::Dead) else { return Ok(()) };
        let body = String::from_utf8_lossy(&message.body).into_owned();
        let letter = DeadLetter { queue: queue.to_string(), reason, attempt: message.delivered, body };
        let body = serde_json::to_vec(&letter).expect("a dead letter is plain data");
        self.push(Queue::Dead, Message { body, delivered: 0 })
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn publish(&self, queue: Queue, body: Vec<u8>) -> Result<(), BrokerError> {
        self.shared.push(queue, Message { body, delivered: 0 })
    }

    async fn consume(&self, queue: Queue, prefetch: usize) -> Result<Box<dyn Consumer>, BrokerError> {
        assert!(prefetch > 0, "a consumer that may take nothing would wait for ever");
        Ok(Box::new(MemoryConsumer { shared: self.shared.clone(), queue, prefetch, out: Arc::default() }))
    }

    async fn broadcast(&self, topic: Topic, body: Vec<u8>) -> Result<(), BrokerError> {
        // An error only says that nobody listens.
        let _ = self.shared.topic(topic).send(body);
        Ok(())
    }

    async fn subscribe(&self, topic: Topic) -> Result<Box<dyn Subscription>, BrokerError> {
        Ok(Box::new(MemorySubscription(self.shared.topic(topic).subscribe())))
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
    prefetch: usize,
    /// Deliveries of this consumer that are not settled.
    out: Arc<std::sync::atomic::AtomicUsize>,
}

impl MemoryConsumer {
    /// A delivery, or the time at which to look again.
    fn take(&self) -> Result<Delivery, Option<Instant>> {
        use std::sync::atomic::Ordering::SeqCst;
        if self.out.load(SeqCst) >= self.prefetch {
            return Err(None);
        }
        let mut queues = self.shared.lock();
        let state = queues.entry(self.queue).or_default();
        let next = state.ripen(Instant::now());
        let mut message = state.ready.pop_front().ok_or(next)?;
        state.out += 1;
        drop(queues);
        self.out.fetch_add(1, SeqCst);
        message.delivered += 1;
        let (body, attempt) = (message.body.clone(), message.delivered);
        let held = Held { shared: self.shared.clone(), queue: self.queue, message: Some(message), out: self.out.clone() };
        Ok(Delivery::new(self.queue, body, attempt, Box::new(held)))
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // Listen before looking, or a message that comes in between is not heard of.
            changed.as_mut().enable();
            match self.take() {
                Ok(delivery) => return Ok(delivery),
                Err(None) => changed.await,
                Err(Some(at)) => {
                    let _ = tokio::time::timeout_at(at, changed).await;
                }
            }
        }
    }
}

/// A message that is out.
struct Held {
    shared: Arc<Shared>,
    queue: Queue,
    message: Option<Message>,
    out: Arc<std::sync::atomic::AtomicUsize>,
}

impl Held {
    fn finish(&mut self, settlement: Settlement) -> Result<(), BrokerError> {
        let Some(message) = self.message.take() else { return Ok(()) };
        self.out.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        self.shared.settle(self.queue, message, settlement)
    }
}

#[async_trait]
impl Settle for Held {
    async fn settle(&mut self, settlement: Settlement) -> Result<(), BrokerError> {
        self.finish(settlement)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A full dead-letter queue loses a message that was dropped too often; there is nobody left to tell.
        let _ = self.finish(Settlement::Retry(Duration::ZERO));
    }
}
