//! The consumers of the queues of callbacks: endpoints side by side, one endpoint's events of a job in sequence.

use super::process::{Came, process, put_off};
use super::{EndpointId, Nudge};
use crate::broker::{BrokerError, Delivery, EVENT_PARTITIONS, Queue, Settlement};
use crate::job::JobId;
use crate::shutdown::Stop;
use crate::store::key::Key;
use crate::store::{Store, StoreError};
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::task::{Id, JoinSet};

pub use super::process::{Clock, Disabled, Exhausted, Tools};

/// The part of the lanes that a slow endpoint may have, so that it does not hold up the others.
const SLOW_SHARE: usize = 4;
/// Slow endpoints that a partition remembers.
const MOST_SLOW: usize = 1024;
/// How long deliveries that are under way may go on after a request to stop.
const STOP_GRACE: Duration = Duration::from_millis(1500);

/// Delivers the callbacks of every partition until asked to stop.
///
/// # Errors
/// The broker is gone for good, or refuses.
pub async fn all(tools: Tools, stop: Stop) -> Result<(), BrokerError> {
    let mut partitions = JoinSet::new();
    for partition in 0..EVENT_PARTITIONS {
        partitions.spawn(run(tools.clone(), partition, stop.clone()));
    }
    while let Some(ended) = partitions.join_next().await {
        ended.map_err(|e| BrokerError::Gone(format!("the callbacks of a partition ended in a panic: {e}")))??;
    }
    Ok(())
}

/// Delivers the callbacks of one partition until asked to stop.
///
/// # Errors
/// The broker is gone for good, or refuses.
pub async fn run(tools: Tools, partition: u8, mut stop: Stop) -> Result<(), BrokerError> {
    let parallel = tools.settings.parallel;
    // For each endpoint at work one nudge may be held that came meanwhile.
    let mut consumer = tools.broker.consume(Queue::Callbacks(partition), parallel * 2).await?;
    let mut desk = Desk {
        tools,
        stop: stop.clone(),
        running: JoinSet::new(),
        lanes: HashMap::new(),
        held: HashMap::new(),
        slow: HashSet::new(),
    };
    loop {
        tokio::select! {
            biased;
            () = stop.requested() => break,
            Some(ended) = desk.running.join_next_with_id() => {
                let (id, was_slow) = ended.unwrap_or_else(|error| {
                    tracing::error!(%error, "a callback ended in a panic; its nudge comes again");
                    (error.id(), None)
                });
                desk.ended(id, was_slow);
            }
            delivery = consumer.next(), if desk.running.len() < parallel => desk.take(delivery?).await,
        }
    }
    desk.close().await;
    Ok(())
}

/// Lets an endpoint that was disabled have callbacks again. What it missed is told by a replay.
///
/// # Errors
/// The bucket cannot be reached.
pub async fn enable(store: &Store, tenant: &str, endpoint: &EndpointId) -> Result<(), StoreError> {
    store.delete(&Key::disabled(tenant, endpoint.as_str())).await
}

/// One endpoint of one job.
type Lane = (JobId, EndpointId);

/// The nudges of one partition that are in hand.
struct Desk {
    tools: Tools,
    stop: Stop,
    /// Each tells whether its endpoint was slow.
    running: JoinSet<Option<bool>>,
    /// The lane that each task works on.
    lanes: HashMap<Id, Lane>,
    /// What came for a lane while it was worked on: one nudge at most, as it stands for any number.
    held: HashMap<Lane, (Nudge, Delivery)>,
    /// Endpoints whose last attempt took long. They get few lanes: a thousand jobs of one that does not answer would
    /// otherwise keep everybody's callbacks waiting.
    slow: HashSet<EndpointId>,
}

impl Desk {
    async fn take(&mut self, delivery: Delivery) {
        self.tools.observer.taken(delivery.queue.labels(), delivery.waited);
        let nudge: Nudge = match serde_json::from_slice(&delivery.body) {
            Ok(nudge) => nudge,
            Err(error) => {
                let reason = format!("is no nudge: {error}");
                tracing::warn!(queue = %delivery.queue, reason, "delivery rejected");
                return settle(delivery, Settlement::Reject(reason)).await;
            }
        };
        let lane = (nudge.job.clone(), nudge.endpoint.clone());
        if !self.lanes.values().any(|busy| *busy == lane) {
            if self.has_enough(&nudge.endpoint) {
                let wait = put_off(delivery.attempt);
                return settle(delivery, Settlement::Retry(wait)).await;
            }
            return self.start(lane, nudge, delivery);
        }
        let asked = |nudge: &Nudge| nudge.replay.map(|replay| replay.asked_ms);
        let needless = match self.held.remove(&lane) {
            None => {
                self.held.insert(lane, (nudge, delivery));
                return;
            }
            Some(held) if asked(&held.0) > asked(&nudge) => {
                self.held.insert(lane, held);
                delivery
            }
            // Of two alike the later one: the earlier may be of a connection that is lost, and the later the same
            // message again; acked, it would be gone before it was worked on.
            Some((_, held)) => {
                self.held.insert(lane, (nudge, delivery));
                held
            }
        };
        // The one that is kept will look at everything that this one was about, and is not settled before it has.
        settle(needless, Settlement::Ack).await;
    }

    /// Is this a slow endpoint with all the lanes it may have?
    fn has_enough(&self, endpoint: &EndpointId) -> bool {
        let share = (self.tools.settings.parallel / SLOW_SHARE).max(1);
        self.slow.contains(endpoint) && self.lanes.values().filter(|(_, busy)| busy == endpoint).count() >= share
    }

    fn start(&mut self, lane: Lane, nudge: Nudge, delivery: Delivery) {
        let (tools, stop) = (self.tools.clone(), self.stop.clone());
        let task = self.running.spawn(async move {
            let came = Came { attempt: delivery.attempt, trace: delivery.trace };
            let ended = process(&tools, &nudge, &came, &stop).await;
            match ended.settlement {
                Some(settlement) => settle(delivery, settlement).await,
                // Dropped, it goes back as it came.
                None => drop(delivery),
            }
            ended.was_slow
        });
        self.lanes.insert(task.id(), lane);
    }

    fn ended(&mut self, id: Id, was_slow: Option<bool>) {
        let lane = self.lanes.remove(&id).expect("every task has a lane until it has ended");
        match was_slow {
            Some(true) if self.slow.len() < MOST_SLOW => {
                self.slow.insert(lane.1.clone());
            }
            Some(false) => {
                self.slow.remove(&lane.1);
            }
            _ => {}
        }
        if let Some((nudge, delivery)) = self.held.remove(&lane) {
            self.start(lane, nudge, delivery);
        }
    }

    /// Lets what is under way end, within limits. What does not goes back into the queue, and so does what is held.
    async fn close(mut self) {
        self.held.clear();
        let all = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_GRACE, all).await.is_err() {
            tracing::info!(callbacks = self.running.len(), "callbacks under way are broken off and come again");
            self.running.shutdown().await;
        }
    }
}

async fn settle(delivery: Delivery, settlement: Settlement) {
    let queue = delivery.queue;
    if let Err(error) = delivery.settle(settlement).await {
        tracing::warn!(%queue, %error, "nudge not settled; it comes again");
    }
}
