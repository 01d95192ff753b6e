//! The worker: a dispatcher that alone handles deliveries, acks and requests to stop, and slots that do the parts.
//!
//! The permit comes first, then the delivery: nothing is taken off a queue that cannot be started at once. A permit is
//! given back when its child has ended, so that the next child starts while the last one's files are uploaded; how many
//! parts are open at once is bounded all the same.

use crate::broker::{Broker, BrokerError, Class, Consumer, DeadLetter, Delivery, Queue, Settlement, Subscription, Topic};
use crate::event::{Cause, Fact, Failure};
use crate::job::{Job, JobId, Lane};
use crate::part::finish::{self, Control};
use crate::part::{Attempt, PartError, PartMessage, Tools, accept};
use crate::shutdown::{self, Stop, Stopper};
use futures::future::{FutureExt, select_all};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{Id, JoinSet};

/// Parts open at once for each slot: one with its child running, one being uploaded.
const OPEN_PER_SLOT: usize = 2;
/// How long a part waits that this worker is doing already.
const DUPLICATE_WAIT: Duration = Duration::from_secs(1);
/// How long open parts have to end after a request to stop. Children are killed at once; this is for uploads.
const STOP_GRACE: Duration = Duration::from_millis(1500);

/// How much a worker does, and how often it tries.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// Children at once.
    pub slots: usize,
    /// Attempts of one part before its job fails.
    pub attempts: u32,
    /// Wait before the second attempt; it doubles with each further one, up to the longest.
    pub first_delay: Duration,
    pub longest_delay: Duration,
}

impl WorkerSettings {
    /// How long to wait after attempt number `attempt` (from 1) failed.
    fn delay(&self, attempt: u32) -> Duration {
        let factor = 1_u32 << attempt.saturating_sub(1).min(20);
        self.first_delay.saturating_mul(factor).min(self.longest_delay)
    }
}

/// What a delivery asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Order {
    Submit(Vec<u8>),
    Part(PartMessage),
    Bury(Box<DeadLetter>),
}

/// A delivery that is being worked on.
struct Open {
    delivery: Delivery,
    part: Option<PartMessage>,
    stopper: Stopper,
}

/// Takes deliveries for as long as it runs.
pub struct Worker {
    tools: Tools,
    settings: WorkerSettings,
    slots: Arc<Semaphore>,
    open: HashMap<Id, Open>,
    running: JoinSet<Result<(), PartError>>,
}

impl Worker {
    pub fn new(tools: Tools, settings: WorkerSettings) -> Self {
        let slots = Arc::new(Semaphore::new(settings.slots));
        Self { tools, settings, slots, open: HashMap::new(), running: JoinSet::new() }
    }

    /// Works until asked to stop. Then every child is ended, and what was not done goes back into its queue.
    ///
    /// # Errors
    /// The broker is gone.
    pub async fn run(mut self, mut stop: Stop) -> Result<(), BrokerError> {
        let most_open = self.settings.slots * OPEN_PER_SLOT;
        let mut consumers = consumers(&*self.tools.broker, most_open).await?;
        let mut controls = self.tools.broker.subscribe(Topic::Control).await?;
        let mut permit: Option<OwnedSemaphorePermit> = None;
        loop {
            let slots = self.slots.clone();
            tokio::select! {
                biased;
                () = stop.requested() => break,
                Some(ended) = self.running.join_next_with_id() => self.ended(ended).await,
                Some(body) = controls.next() => self.control(&body),
                got = slots.acquire_owned(), if permit.is_none() && self.open.len() < most_open => {
                    permit = Some(got.expect("the semaphore is never closed"));
                }
                delivery = next(&mut consumers), if permit.is_some() => self.start(delivery?, permit.take()).await,
            }
        }
        drop(controls as Box<dyn Subscription>);
        self.drain().await;
        Ok(())
    }

    /// Starts to work on a delivery; one that cannot be understood is a dead letter.
    async fn start(&mut self, delivery: Delivery, permit: Option<OwnedSemaphorePermit>) {
        let order = match order(&delivery) {
            Ok(order) => order,
            Err(reason) => return settle(delivery, Settlement::Reject(reason)).await,
        };
        let part = match &order {
            Order::Part(message) => Some(message.clone()),
            Order::Submit(_) | Order::Bury(_) => None,
        };
        if part.is_some() && self.open.values().any(|open| open.part == part) {
            return settle(delivery, Settlement::Retry(DUPLICATE_WAIT)).await;
        }
        let (stopper, stop) = shutdown::channel();
        let (tools, number, user) = (self.tools.clone(), delivery.attempt, delivery.user.clone());
        let redelivered = delivery.redelivered;
        let task = self.running.spawn(async move {
            match order {
                Order::Submit(document) => {
                    accept::submit(&tools, accept::Submission { document: &document, user: user.as_deref() }).await
                }
                Order::Bury(letter) => bury(&tools, &letter).await,
                Order::Part(message) => {
                    let attempt = Attempt::new(message.part, number, redelivered, permit, stop);
                    crate::part::run(&tools, &message, attempt).await
                }
            }
        });
        self.open.insert(task.id(), Open { delivery, part, stopper });
    }

    /// Settles what has ended.
    async fn ended(&mut self, ended: Result<(Id, Result<(), PartError>), tokio::task::JoinError>) {
        let (id, result) = match ended {
            Ok(ended) => ended,
            Err(e) => (e.id(), Err(PartError::Crash(format!("the part ended in a panic: {e}")))),
        };
        let open = self.open.remove(&id).expect("every task is open until it has ended");
        let settlement = match result {
            Ok(()) => Settlement::Ack,
            Err(error) => self.failed(open.part.as_ref(), open.delivery.queue, open.delivery.attempt, error).await,
        };
        settle(open.delivery, settlement).await;
    }

    /// What becomes of a delivery that was not done. Every failure is logged here, and only here.
    async fn failed(&self, part: Option<&PartMessage>, queue: Queue, attempt: u32, error: PartError) -> Settlement {
        let Some(message) = part else {
            return match error {
                PartError::Retry(reason) | PartError::Crash(reason) if attempt < self.settings.attempts => {
                    tracing::warn!(%queue, attempt, reason, "delivery failed; again");
                    Settlement::Retry(self.settings.delay(attempt))
                }
                error => Settlement::Reject(error.to_string()),
            };
        };
        let failure = match error {
            // Its job has ended, or this worker is ending: either way the broker may have it back.
            PartError::Stopped => return Settlement::Retry(Duration::ZERO),
            PartError::Poison(reason) => return Settlement::Reject(reason),
            PartError::Retry(reason) | PartError::Crash(reason) if attempt < self.settings.attempts => {
                // Whoever follows the job hears of it by its event.
                tracing::info!(job = %message.job, part = %message.part, attempt, reason, "part failed; again");
                self.tell_failed(message, attempt, &reason, true).await;
                return Settlement::Retry(self.settings.delay(attempt));
            }
            PartError::Retry(reason) | PartError::Crash(reason) => {
                Failure { cause: Cause::Internal, message: format!("{reason} (attempt {attempt}, the last)") }
            }
            PartError::Reject(failure) => failure,
        };
        if failure.cause == Cause::Internal {
            tracing::error!(job = %message.job, part = %message.part, attempt, reason = failure.message, "part failed");
        } else {
            tracing::info!(job = %message.job, part = %message.part, attempt, reason = failure.message, "part refused");
        }
        self.tell_failed(message, attempt, &failure.message, false).await;
        match finish::bury(&self.tools, &message.job, failure).await {
            Ok(()) => Settlement::Ack,
            // The end of the job could not be written: the delivery limit sees to it that this ends, too.
            Err(e) => {
                tracing::error!(job = %message.job, error = %e, "the job's failure could not be written");
                Settlement::Retry(self.settings.longest_delay)
            }
        }
    }

    async fn tell_failed(&self, message: &PartMessage, attempt: u32, reason: &str, again: bool) {
        let fact = Fact::PartFailed { part: message.part, attempt, reason: reason.into(), again };
        if let Err(error) = finish::tell_of(&self.tools, &message.job, fact).await {
            tracing::warn!(job = %message.job, part = %message.part, %error, "part.failed not told");
        }
    }

    fn control(&mut self, body: &[u8]) {
        match serde_json::from_slice(body) {
            Ok(Control::Stop { job }) => {
                let of_job = |open: &&Open| open.part.as_ref().is_some_and(|p| p.job == job);
                self.open.values().filter(of_job).for_each(|open| open.stopper.stop());
            }
            Ok(Control::Drain { .. }) => {}
            Err(error) => tracing::warn!(%error, "a control message that does not parse"),
        }
    }

    /// Ends every child and hands back what is open.
    async fn drain(&mut self) {
        self.open.values().for_each(|open| open.stopper.stop());
        let all = async {
            while let Some(ended) = self.running.join_next_with_id().await {
                let (id, result) = match ended {
                    Ok(ended) => ended,
                    Err(e) => (e.id(), Err(PartError::Stopped)),
                };
                let Some(open) = self.open.remove(&id) else { continue };
                let settlement = if result.is_ok() { Settlement::Ack } else { Settlement::Retry(Duration::ZERO) };
                settle(open.delivery, settlement).await;
            }
        };
        if tokio::time::timeout(STOP_GRACE, all).await.is_err() {
            tracing::warn!(parts = self.open.len(), "parts did not end in time and were dropped");
            self.running.shutdown().await;
        }
        // Deliveries that are dropped go back into their queues.
        self.open.clear();
    }
}

async fn settle(delivery: Delivery, settlement: Settlement) {
    let queue = delivery.queue;
    if let Settlement::Reject(reason) = &settlement {
        tracing::warn!(%queue, reason, "delivery rejected");
    }
    if let Err(error) = delivery.settle(settlement).await {
        tracing::warn!(%queue, %error, "delivery not settled; it will come again");
    }
}

/// The queues of a worker, those first that end jobs or begin them.
async fn consumers(broker: &dyn Broker, prefetch: usize) -> Result<Vec<Box<dyn Consumer>>, BrokerError> {
    let mut consumers = vec![broker.consume(Queue::Dead, 1).await?];
    for lane in Lane::ALL {
        consumers.push(broker.consume(Queue::Jobs(lane), 1).await?);
    }
    for lane in Lane::ALL {
        consumers.push(broker.consume(Queue::Work(Class::Cpu, lane), prefetch).await?);
    }
    Ok(consumers)
}

/// The first delivery from any of them; the earlier ones are asked first.
async fn next(consumers: &mut [Box<dyn Consumer>]) -> Result<Delivery, BrokerError> {
    let (delivery, _, _) = select_all(consumers.iter_mut().map(|c| c.next().boxed())).await;
    delivery
}

fn order(delivery: &Delivery) -> Result<Order, String> {
    match delivery.queue {
        Queue::Jobs(_) => Ok(Order::Submit(delivery.body.clone())),
        Queue::Dead => serde_json::from_slice(&delivery.body).map(|l| Order::Bury(Box::new(l))).map_err(|e| e.to_string()),
        Queue::Work(..) => serde_json::from_slice(&delivery.body).map(Order::Part).map_err(|e| e.to_string()),
        Queue::Events(_) | Queue::Callbacks(_) => Err("a worker consumes neither events nor callbacks".into()),
    }
}

/// Every job ends: one whose message nobody can work on ends as failed.
async fn bury(tools: &Tools, letter: &DeadLetter) -> Result<(), PartError> {
    let Some(job) = job_of(letter) else {
        tracing::error!(queue = letter.queue, reason = letter.reason, "a dead letter that belongs to no job");
        return Ok(());
    };
    let message = format!("{}: {}", letter.queue, letter.reason);
    finish::bury(tools, &job, Failure { cause: Cause::Internal, message }).await
}

fn job_of(letter: &DeadLetter) -> Option<JobId> {
    let part = serde_json::from_str::<PartMessage>(&letter.body).map(|m| m.job);
    part.ok().or_else(|| Job::parse(letter.body.as_bytes()).ok()?.id)
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
