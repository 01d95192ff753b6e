//! Messages between workers: confirmed publishing, consuming with prefetch, retry, dead letters, fanout.
//!
//! At least once: a delivery that is not settled comes back. [`memory`] is the whole broker in one process, [`rabbit`] the
//! one of a fleet.

#[cfg(test)]
mod contract;
pub mod memory;
pub mod rabbit;
mod traced;

pub use crate::job::Class;
use crate::job::Lane;
use crate::observe::QueueLabels;
use crate::trace::TraceContext;
use async_trait::async_trait;
use std::fmt;
use std::time::Duration;
pub use traced::within;

/// How many queues the events are spread over, and the callbacks; all of a job go to one of them.
pub const EVENT_PARTITIONS: u8 = 16;
/// Largest message body, bytes. A message names work; it never carries media.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Largest body of a dead letter, bytes: a body as a JSON string, in which a byte becomes six at most, and its particulars.
pub const MAX_LETTER_BYTES: usize = 7 * MAX_BODY_BYTES;
/// Retries of one message before it is a dead letter. Callers stop far earlier, each by its own rule; this ends what
/// would otherwise be put off for ever.
pub const MAX_ATTEMPTS: u32 = 1000;

/// A queue. Its name is its `Display`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Submitted jobs.
    Jobs(Lane),
    /// Parts to be worked on.
    Work(Class, Lane),
    /// Events, in order within a job.
    Events(u8),
    /// Callbacks that are due, in the same partitions as the events.
    Callbacks(u8),
    /// What could not be delivered.
    Dead,
}

impl Queue {
    /// The queue that holds the events of this job.
    pub fn events_of(job: &str) -> Queue {
        Queue::Events(partition_of(job))
    }

    /// The queue that holds the callbacks of this job.
    pub fn callbacks_of(job: &str) -> Queue {
        Queue::Callbacks(partition_of(job))
    }

    /// Every queue there is. The dead letters come first: the others name them.
    pub fn all() -> impl Iterator<Item = Queue> {
        let lanes = || Lane::ALL.into_iter();
        let partitions = || 0..EVENT_PARTITIONS;
        std::iter::once(Queue::Dead)
            .chain(lanes().map(Queue::Jobs))
            .chain(Class::ALL.into_iter().flat_map(move |class| lanes().map(move |lane| Queue::Work(class, lane))))
            .chain(partitions().map(Queue::Events))
            .chain(partitions().map(Queue::Callbacks))
    }

    /// The encoders that what lies in it needs.
    pub fn class(self) -> Class {
        match self {
            Queue::Work(class, _) => class,
            Queue::Jobs(_) | Queue::Events(_) | Queue::Callbacks(_) | Queue::Dead => Class::Cpu,
        }
    }

    /// What whoever counts may know it by.
    pub fn labels(self) -> QueueLabels {
        let (queue, class, lane) = match self {
            Queue::Jobs(lane) => ("jobs", "", lane.name()),
            Queue::Work(class, lane) => ("work", class.name(), lane.name()),
            Queue::Events(_) => ("events", "", ""),
            Queue::Callbacks(_) => ("callbacks", "", ""),
            Queue::Dead => ("dead", "", ""),
        };
        QueueLabels { queue, class, lane }
    }

    /// One consumer at a time gets everything, in order; the next one takes over when it goes.
    pub fn has_single_consumer(self) -> bool {
        matches!(self, Queue::Events(_) | Queue::Callbacks(_))
    }
}

fn partition_of(job: &str) -> u8 {
    // FNV-1a: every process, whatever its version of Rust, must choose the same queue.
    let hash = job.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (hash % u64::from(EVENT_PARTITIONS)) as u8
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Queue::Jobs(lane) => write!(f, "narrows.jobs.{}", lane.name()),
            Queue::Work(class, lane) => write!(f, "narrows.work.{}.{}", class.name(), lane.name()),
            Queue::Events(n) => write!(f, "narrows.events.{n}"),
            Queue::Callbacks(n) => write!(f, "narrows.callbacks.{n}"),
            Queue::Dead => f.write_str("narrows.dead"),
        }
    }
}

/// Why the broker did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    #[error("queue {queue} is full: {limit} messages")]
    Full { queue: String, limit: usize },
    #[error("a message of {bytes} bytes for {queue}; at most {MAX_BODY_BYTES} are allowed")]
    TooLarge { queue: String, bytes: usize },
    /// The broker, or the way to it, is not there now; trying again may help.
    #[error("the broker is gone: {0}")]
    Gone(String),
    /// Wrong credentials, a missing permission, a queue that was declared otherwise: only an operator can help.
    #[error("the broker refuses: {0}")]
    Denied(String),
}

/// The broker as every role sees it.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Puts a message into a queue. Returns only when the broker has taken responsibility for it; waits, within limits,
    /// for a broker that is away or takes nothing now.
    ///
    /// # Errors
    /// The message may or may not be in the queue: publish it again.
    async fn publish(&self, queue: Queue, body: Vec<u8>) -> Result<(), BrokerError> {
        self.publish_within(queue, body, None).await
    }

    /// The same, of something that is done in this trace: the message carries it, through every retry, to whoever takes it.
    ///
    /// # Errors
    /// As [`Broker::publish`].
    async fn publish_within(&self, queue: Queue, body: Vec<u8>, trace: Option<TraceContext>) -> Result<(), BrokerError>;

    /// Starts to consume a queue; at most `prefetch` of its deliveries are out unsettled at any time. For who wants all
    /// of it: events, callbacks, dead letters.
    ///
    /// # Errors
    /// The broker is gone.
    async fn consume(&self, queue: Queue, prefetch: usize) -> Result<Box<dyn Consumer>, BrokerError>;

    /// Takes single deliveries, each when asked for: for work, of which nobody may hold more than it can do now.
    ///
    /// # Errors
    /// The broker is gone.
    async fn intake(&self) -> Result<Box<dyn Intake>, BrokerError>;

    /// Says something to every worker there is now. Nobody may be listening.
    ///
    /// # Errors
    /// The broker is gone.
    async fn broadcast(&self, topic: Topic, body: Vec<u8>) -> Result<(), BrokerError>;

    /// Listens to a topic from now on.
    ///
    /// # Errors
    /// The broker is gone.
    async fn subscribe(&self, topic: Topic) -> Result<Box<dyn Subscription>, BrokerError>;

    /// How many messages of a queue are ready to be delivered; not those that are out or put off.
    ///
    /// # Errors
    /// The broker is gone.
    async fn depth(&self, queue: Queue) -> Result<u64, BrokerError>;
}

/// A fanout: everybody who listens gets every message, nothing is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Cancel and drain.
    Control,
    /// Frames done, for live views. May be lost.
    Progress,
}

/// The receiving end of a queue.
#[async_trait]
pub trait Consumer: Send {
    /// The next delivery. Cancel-safe: a delivery is either returned or still in the queue. Waits for a broker that is
    /// away; what was out unsettled will then be delivered again.
    ///
    /// # Errors
    /// The broker is gone for good, or refuses.
    async fn next(&mut self) -> Result<Delivery, BrokerError>;
}

/// Takes deliveries one at a time, off several queues.
#[async_trait]
pub trait Intake: Send {
    /// One delivery: of the first of `queues` that holds one, else of whichever gets one first. Cancel-safe: a delivery
    /// is either returned or, at the latest after [`Intake::pause`], still in its queue. Waits for a broker that is away.
    ///
    /// # Errors
    /// The broker is gone for good, or refuses.
    async fn take(&mut self, queues: &[Queue]) -> Result<Delivery, BrokerError>;

    /// Nothing further is taken until the next `take`; what was already on its way here goes back.
    async fn pause(&mut self);
}

/// The receiving end of a topic.
#[async_trait]
pub trait Subscription: Send {
    /// The next message, or `None` when the broker is gone. Cancel-safe. Messages that came too fast are skipped.
    async fn next(&mut self) -> Option<Vec<u8>>;
}

/// How a delivery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The work is done: forget the message.
    Ack,
    /// Deliver it again, not before this time is over.
    Retry(Duration),
    /// Put it among the dead letters, with the reason.
    Reject(String),
}

/// Settles one delivery with the broker it came from; dropped unsettled, the message goes back into its queue.
#[async_trait]
pub trait Settle: Send + Sync {
    /// # Errors
    /// The broker is gone, and the message will be delivered again.
    async fn settle(&mut self, settlement: Settlement) -> Result<(), BrokerError>;
}

/// One message, in hand until it is settled or dropped. Dropped, it goes back into its queue.
pub struct Delivery {
    pub queue: Queue,
    pub body: Vec<u8>,
    /// Which attempt it is, from 1: one more than it was put off by [`Delivery::retry`]. A delivery that was dropped, or
    /// lost with its worker, comes back as the same attempt.
    pub attempt: u32,
    /// This very message was given out before, and not settled.
    pub redelivered: bool,
    /// The broker's word for who published it, where the publisher said so.
    pub user: Option<String>,
    /// How long it lay in its queue since it was due, by our clock; absent where that is not known, or where somebody else
    /// had it meanwhile.
    pub waited: Option<Duration>,
    /// What it was published in, where it says so.
    pub trace: Option<TraceContext>,
    settle: Box<dyn Settle>,
}

/// What a delivery is, without its way of being settled.
#[derive(Clone, Debug)]
pub struct Parcel {
    pub queue: Queue,
    pub body: Vec<u8>,
    pub attempt: u32,
    pub redelivered: bool,
    pub user: Option<String>,
    pub waited: Option<Duration>,
    pub trace: Option<TraceContext>,
}

impl Delivery {
    pub fn new(parcel: Parcel, settle: Box<dyn Settle>) -> Self {
        let Parcel { queue, body, attempt, redelivered, user, waited, trace } = parcel;
        Self { queue, body, attempt, redelivered, user, waited, trace, settle }
    }

    /// The work is done.
    ///
    /// # Errors
    /// The broker is gone; the message will be delivered again.
    pub async fn ack(self) -> Result<(), BrokerError> {
        self.settle(Settlement::Ack).await
    }

    /// Deliver it again, later.
    ///
    /// # Errors
    /// The broker is gone; the message will be delivered again.
    pub async fn retry(self, after: Duration) -> Result<(), BrokerError> {
        self.settle(Settlement::Retry(after)).await
    }

    /// Nobody can work on this: to the dead letters.
    ///
    /// # Errors
    /// The broker is gone; the message will be delivered again.
    pub async fn reject(self, reason: String) -> Result<(), BrokerError> {
        self.settle(Settlement::Reject(reason)).await
    }

    /// Settles in whichever way.
    ///
    /// # Errors
    /// The broker is gone; the message will be delivered again.
    pub async fn settle(mut self, settlement: Settlement) -> Result<(), BrokerError> {
        self.settle.settle(settlement).await
    }
}

/// What lies in [`Queue::Dead`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetter {
    /// Name of the queue it was in.
    pub queue: String,
    pub reason: String,
    pub attempt: u32,
    /// The body, as text where it is text; the beginning of one that was larger than any of ours.
    pub body: String,
}

impl DeadLetter {
    pub fn new(queue: &str, reason: String, attempt: u32, body: &[u8]) -> Self {
        let body = String::from_utf8_lossy(&body[..body.len().min(MAX_BODY_BYTES)]).into_owned();
        Self { queue: queue.into(), reason, attempt, body }
    }

    /// As it lies in its queue.
    pub fn to_body(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a dead letter is plain data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_named_as_the_design_lists_them() {
        assert_eq!(Queue::Jobs(Lane::High).to_string(), "narrows.jobs.high");
        assert_eq!(Queue::Work(Class::Cpu, Lane::Low).to_string(), "narrows.work.cpu.low");
        assert_eq!(Queue::Events(7).to_string(), "narrows.events.7");
        assert_eq!(Queue::Callbacks(15).to_string(), "narrows.callbacks.15");
        assert_eq!(Queue::Dead.to_string(), "narrows.dead");
        assert_eq!(Queue::Work(Class::Cpu, Lane::Low).labels(), QueueLabels { queue: "work", class: "cpu", lane: "low" });
        assert_eq!(Queue::Events(7).labels(), Queue::Events(0).labels());
    }

    #[test]
    fn every_queue_is_listed_once() {
        let names: std::collections::BTreeSet<String> = Queue::all().map(|queue| queue.to_string()).collect();
        assert_eq!((names.len(), Queue::all().count()), (48, 48));
        assert_eq!(Queue::all().next(), Some(Queue::Dead));
        assert_eq!(Queue::all().filter(|queue| queue.has_single_consumer()).count(), 32);
    }

    #[test]
    fn all_events_of_a_job_go_to_the_same_partition_for_ever() {
        assert_eq!((Queue::events_of("talk"), Queue::callbacks_of("talk")), (Queue::Events(15), Queue::Callbacks(15)));
        let used: std::collections::BTreeSet<String> =
            (0..500).map(|n| Queue::events_of(&format!("job-{n}")).to_string()).collect();
        assert_eq!(used.len(), usize::from(EVENT_PARTITIONS));
    }
}
