//! The worker: a dispatcher that alone handles requests to stop, and knows what is open, and tasks that do the parts.
//!
//! The permit comes first, then the delivery: nothing is taken off a queue that cannot be started at once. A permit is
//! given back when its child has ended, so that the next child starts while the last one's files are uploaded; how many
//! parts are open at once is bounded all the same. The dispatcher itself waits for nobody: a delivery is settled by its own
//! task, so that a broker that is away holds up no cancel.

mod dead;
pub mod health;
mod intake;
pub mod lanes;
mod room;
mod settings;
mod verdict;

pub use intake::OPEN_PER_SLOT;
pub use settings::WorkerSettings;
pub use verdict::{Verdict, of_part};

use crate::broker::{BrokerError, Consumer, DeadLetter, Delivery, Queue, Settlement, Topic};
use crate::event::{Cause, Fact, Failure};
use crate::job::JobId;
use crate::observe::{Observer, PartEnd};
use crate::part::finish::{self, Control};
use crate::part::{Attempt, PartError, PartMessage, Slot, Spent, Tools, accept, usage};
use crate::shutdown::{self, Stop, Stopper};
use crate::trace::{Begun, Parent, Span, SpanRole};
use futures::future::FutureExt;
use health::{BEAT_EVERY, Health};
use intake::{Permits, Taken, Taker};
use lanes::Rota;
use settings::STOP_GRACE;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

/// Dead letters that are worked on at once.
const DEAD_PREFETCH: usize = 8;
/// Copies of one part's message that are held while it is being done; a further one is put off.
const MAX_COPIES: usize = 4;
/// How long a copy is put off that there is no more room for.
const COPY_WAIT: Duration = Duration::from_secs(30);

/// How long a part past its deadline has to end its child, which takes the child's grace of at most a second, and to reap it.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// What a delivery may take beside its part: stores and the broker that do not answer are tried again and again, until what
/// happened to the part is noted and told.
const ROUND_ABOUT: Duration = Duration::from_secs(15 * 60);
/// How long the intake has to hand back what was on its way here.
const INTAKE_GRACE: Duration = Duration::from_millis(500);

/// What a delivery asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Order {
    Submit,
    Part(PartMessage),
    Bury(Box<DeadLetter>),
}

/// A delivery that is being worked on.
struct Open {
    part: Option<PartMessage>,
    since: Instant,
    stopper: Stopper,
    /// Further deliveries of the same message: the broker lost sight of us and gave it out again.
    copies: Vec<Delivery>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// How far the worker is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// What is open may end by itself.
    Finishing {
        until: Instant,
    },
    /// Children are killed; their parts go back.
    Stopping {
        until: Instant,
    },
    /// Whatever is open is dropped.
    Gone,
}

/// Takes deliveries for as long as it runs.
pub struct Worker {
    tools: Tools,
    settings: Arc<WorkerSettings>,
    health: Health,
    open: HashMap<Id, Open>,
    /// Each ends with how its delivery was settled; none: it was handed back.
    running: JoinSet<Option<Settlement>>,
    /// Copies being settled.
    settling: JoinSet<()>,
    leaving: Leaving,
}

impl Worker {
    pub fn new(tools: Tools, settings: WorkerSettings) -> Self {
        let (health, settings) = (Health::default(), Arc::new(settings));
        let (running, settling) = (JoinSet::new(), JoinSet::new());
        tools.observer.slots(settings.slots);
        Self { tools, settings, health, open: HashMap::new(), running, settling, leaving: Leaving::No }
    }

    /// What it says about itself, to be served to whoever runs it.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Works until asked to stop. Then what is open is finished, or ended and handed back, within the grace; asked a second
    /// time, at once.
    ///
    /// # Errors
    /// The broker refuses, and will go on to.
    pub async fn run(mut self, mut stop: Stop) -> Result<(), BrokerError> {
        let mut second = stop.clone();
        let (sender, mut taken) = mpsc::channel(1);
        let (taker, taker_stop) = self.taker();
        let mut taking = tokio::spawn(taker.run(sender, taker_stop.1));
        let mut dead = Some(self.tools.broker.consume(Queue::Dead, DEAD_PREFETCH).await?);
        let mut controls = self.tools.broker.subscribe(Topic::Control).await?;
        let mut beat = tokio::time::interval(BEAT_EVERY);
        // Ends with this function.
        let mut looking = JoinSet::new();
        looking.spawn(room::watch(self.tools.settings.scratch.clone(), self.tools.observer.clone()));
        let mut result = Ok(());
        while !self.has_left() {
            let (until, works) = (self.leaves_at(), self.leaving == Leaving::No);
            tokio::select! {
                biased;
                () = second.at_once(), if !works => self.leave_at_once(),
                () = stop.requested(), if works => self.leave(),
                () = tokio::time::sleep_until(until), if !works => self.hurry(),
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
                Some(_) = self.settling.join_next() => {}
                Some(body) = controls.next() => self.control(&body),
                _ = beat.tick() => {}
                ended = &mut taking, if works => {
                    result = ended.unwrap_or_else(|e| Err(BrokerError::Gone(format!("the intake ended in a panic: {e}"))));
                    self.leave();
                }
                Some(Taken { delivery, permits }) = taken.recv(), if works => self.start(delivery, Some(permits)),
                letter = next(&mut dead), if works => match letter {
                    Ok(letter) => self.start(letter, None),
                    Err(error) => {
                        result = Err(error);
                        self.leave();
                    }
                }
            }
            self.health.beat(self.open.len(), self.stuck(Instant::now()));
            if self.leaving != Leaving::No {
                taker_stop.0.stop();
                // What is dropped goes back into its queue.
                dead = None;
                taken.close();
                while taken.try_recv().is_ok() {}
            }
        }
        self.running.shutdown().await;
        if !taking.is_finished() && tokio::time::timeout(INTAKE_GRACE, &mut taking).await.is_err() {
            taking.abort();
        }
        result
    }

    fn taker(&self) -> (Taker, (Stopper, Stop)) {
        let rota = Rota::of_lanes(self.settings.lanes);
        (Taker::new(&self.tools, rota, self.settings.slots, self.health.clone()), shutdown::channel())
    }

    /// Starts to work on a delivery.
    fn start(&mut self, delivery: Delivery, permits: Option<Permits>) {
        self.tools.observer.taken(delivery.queue.labels(), delivery.waited);
        let order = match order(&delivery) {
            Ok(order) => order,
            Err(reason) => {
                self.settling.spawn(settle(delivery, Settlement::Reject(reason)).map(drop));
                return;
            }
        };
        let part = match &order {
            Order::Part(message) => Some(message.clone()),
            Order::Submit | Order::Bury(_) => None,
        };
        if let Some(open) = self.open.values_mut().find(|open| part.is_some() && open.part == part) {
            if open.copies.len() < MAX_COPIES {
                open.copies.push(delivery);
            } else {
                self.settling.spawn(settle(delivery, Settlement::Retry(COPY_WAIT)).map(drop));
            }
            return;
        }
        let (stopper, stop) = shutdown::channel();
        let (slot, permit) = permits.map_or((None, None), |p| (Some(p.slot), Some(p.open)));
        let slot = slot.map(|permit| Slot::new(permit, self.tools.observer.clone()));
        let (tools, settings) = (self.tools.within(span(&*self.tools.observer, &delivery, &order)), self.settings.clone());
        let work = Work { tools, settings, delivery, spent: Spent::default(), began: Instant::now() };
        let task = self.running.spawn(work.done(order, slot, stop));
        self.open.insert(task.id(), Open { part, since: Instant::now(), stopper, copies: Vec::new(), _permit: permit });
    }

    /// Settles the copies of what has ended.
    fn ended(&mut self, ended: Result<(Id, Option<Settlement>), JoinError>) {
        let (id, settlement) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), None),
        };
        let Some(open) = self.open.remove(&id) else { return };
        for copy in open.copies {
            match settlement {
                // One message asks for the part again; which of them the broker still knows it will say.
                Some(Settlement::Ack | Settlement::Reject(_)) => {
                    self.settling.spawn(settle(copy, Settlement::Ack).map(drop));
                }
                Some(Settlement::Retry(_)) | None => drop(copy),
            }
        }
    }

    fn control(&mut self, body: &[u8]) {
        match serde_json::from_slice(body) {
            Ok(Control::Stop { job }) => self.stop_parts(&job),
            Ok(Control::Drain { worker }) => {
                if worker.is_none_or(|name| name == self.settings.name) && self.leaving == Leaving::No {
                    tracing::info!("asked to drain");
                    self.leave();
                }
            }
            Err(error) => tracing::warn!(%error, "a control message that does not parse"),
        }
    }

    fn stop_parts(&self, job: &JobId) {
        let of_job = |open: &&Open| open.part.as_ref().is_some_and(|p| p.job == *job);
        self.open.values().filter(of_job).for_each(|open| open.stopper.stop());
    }

    /// Takes nothing further.
    fn leave(&mut self) {
        self.health.drain();
        self.tools.observer.draining();
        let finishing = self.settings.finishing();
        tracing::info!(open = self.open.len(), ?finishing, "leaving: nothing further is taken");
        self.leaving = Leaving::Finishing { until: Instant::now() + finishing };
        if finishing.is_zero() {
            self.hurry();
        }
    }

    /// The time of this phase is over.
    fn hurry(&mut self) {
        match self.leaving {
            Leaving::No | Leaving::Gone => {}
            Leaving::Finishing { .. } => {
                self.open.values().for_each(|open| open.stopper.stop());
                self.leaving = Leaving::Stopping { until: Instant::now() + STOP_GRACE };
            }
            Leaving::Stopping { .. } => self.leave_at_once(),
        }
    }

    fn leave_at_once(&mut self) {
        if !self.open.is_empty() {
            tracing::warn!(parts = self.open.len(), "parts did not end in time and were dropped");
        }
        // Their tasks are dropped with the worker: children are killed, deliveries go back.
        self.leaving = Leaving::Gone;
    }

    fn leaves_at(&self) -> Instant {
        match self.leaving {
            Leaving::No | Leaving::Gone => Instant::now(),
            Leaving::Finishing { until } | Leaving::Stopping { until } => until,
        }
    }

    /// Deliveries that are open for longer than anything about them may take: their tasks hang.
    fn stuck(&self, now: Instant) -> usize {
        let longest = self.settings.part_deadline + LAST_WORDS + ROUND_ABOUT;
        self.open.values().filter(|open| now.saturating_duration_since(open.since) > longest).count()
    }

    fn has_left(&self) -> bool {
        let is_idle = self.open.is_empty() && self.settling.is_empty();
        self.leaving == Leaving::Gone || self.leaving != Leaving::No && is_idle
    }
}

/// The next dead letter, while there are any to be taken.
async fn next(dead: &mut Option<Box<dyn Consumer>>) -> Result<Delivery, BrokerError> {
    match dead {
        Some(consumer) => consumer.next().await,
        None => std::future::pending().await,
    }
}

fn order(delivery: &Delivery) -> Result<Order, String> {
    match delivery.queue {
        Queue::Jobs(_) => Ok(Order::Submit),
        Queue::Dead => serde_json::from_slice(&delivery.body).map(|l| Order::Bury(Box::new(l))).map_err(|e| e.to_string()),
        Queue::Work(..) => serde_json::from_slice(&delivery.body).map(Order::Part).map_err(|e| e.to_string()),
        Queue::Events(_) | Queue::Callbacks(_) => Err("a worker consumes neither events nor callbacks".into()),
    }
}

/// What is recorded of the work on a delivery: of a part. A submission is in the trace that it came in, until it is a job's.
fn span(observer: &dyn Observer, delivery: &Delivery, order: &Order) -> Span {
    let Order::Part(PartMessage { job, part }) = order else { return Span::passing(delivery.trace) };
    let parent = Parent::Sender(delivery.trace);
    let span = observer.span(&Begun::now("part", part.kind(), SpanRole::Consumer, parent, job.as_str()));
    let labels = delivery.queue.labels();
    span.note("part", part.to_string());
    for (name, value) in [("kind", part.kind()), ("class", labels.class), ("lane", labels.lane)] {
        span.note(name, value);
    }
    span.note("attempt", delivery.attempt);
    span
}

/// Settles a delivery; what it was settled as.
async fn settle(delivery: Delivery, settlement: Settlement) -> Settlement {
    let queue = delivery.queue;
    if let Settlement::Reject(reason) = &settlement {
        tracing::warn!(%queue, reason, "delivery rejected");
    }
    if let Err(error) = delivery.settle(settlement.clone()).await {
        tracing::warn!(%queue, %error, "delivery not settled; it will come again");
    }
    settlement
}

/// One delivery, from its start to its settlement. Dropped half-way, its child is killed and it goes back.
struct Work {
    tools: Tools,
    settings: Arc<WorkerSettings>,
    delivery: Delivery,
    spent: Spent,
    began: Instant,
}

impl Work {
    async fn done(self, order: Order, slot: Option<Slot>, stop: Stop) -> Option<Settlement> {
        if let Order::Part(message) = &order {
            self.tools.observer.part_started(message.part.kind());
        }
        let panicked = || Err(PartError::Crash("the worker itself failed (a panic); its log says where".into()));
        let worked = AssertUnwindSafe(self.work(&order, slot, stop)).catch_unwind().await;
        let settlement = match worked.unwrap_or_else(|_| panicked()) {
            Ok(()) => {
                if let Order::Part(message) = &order {
                    self.part_ended(message, PartEnd::Completed);
                }
                Some(Settlement::Ack)
            }
            Err(error) => self.failed(&order, error).await,
        };
        match settlement {
            Some(settlement) => Some(settle(self.delivery, settlement).await),
            None => None,
        }
    }

    /// Says how the work on a part ended. Why it failed is logged where that is known.
    fn part_ended(&self, PartMessage { job, part }: &PartMessage, end: PartEnd) {
        let (kind, took) = (part.kind(), self.began.elapsed());
        self.tools.observer.part_ended(kind, end, took);
        self.tools.span.note("outcome", end.name());
        if end == PartEnd::Completed {
            let (attempt, duration_s) = (self.delivery.attempt, took.as_secs_f64());
            let trace_id = self.tools.span.trace_id();
            tracing::info!(%job, %part, kind, outcome = end.name(), attempt, duration_s, trace_id, "part done");
        } else if end != PartEnd::GivenBack {
            self.tools.span.fail();
        }
    }

    async fn work(&self, order: &Order, slot: Option<Slot>, stop: Stop) -> Result<(), PartError> {
        let Delivery { body, user, attempt, redelivered, .. } = &self.delivery;
        match order {
            Order::Submit => accept::submit(&self.tools, accept::Submission { document: body, user: user.as_deref() }).await,
            Order::Bury(letter) => dead::bury(&self.tools, letter).await,
            Order::Part(message) => {
                let (part, spent) = (message.part, self.spent.clone());
                let (stopper, stopped) = shutdown::channel();
                let attempt = Attempt { part, number: *attempt, redelivered: *redelivered, permit: slot, stop: stopped, spent };
                self.within_deadline(pin!(crate::part::run(&self.tools, message, attempt)), stop, &stopper).await
            }
        }
    }

    /// Waits for a part, for as long as it may take, and hands on the request to stop. At the deadline its child is ended as
    /// by that request, and not just dropped: what it took is known then, and billed as thrown away.
    async fn within_deadline(
        &self,
        mut part: Pin<&mut impl Future<Output = Result<(), PartError>>>,
        mut stop: Stop,
        stopper: &Stopper,
    ) -> Result<(), PartError> {
        let deadline = self.settings.part_deadline;
        let until = Instant::now() + deadline;
        let mut is_asked = false;
        loop {
            tokio::select! {
                biased;
                done = &mut part => return done,
                () = stop.requested(), if !is_asked => {
                    is_asked = true;
                    stopper.stop();
                }
                () = tokio::time::sleep_until(until) => break,
            }
        }
        stopper.stop();
        match tokio::time::timeout(LAST_WORDS, part).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(PartError::Crash(format!("it ran past the part's deadline of {deadline:?}"))),
        }
    }

    /// What becomes of a delivery that was not done; none: it goes back untouched. Every failure is logged here, and only
    /// here.
    async fn failed(&self, order: &Order, error: PartError) -> Option<Settlement> {
        let (queue, attempt) = (self.delivery.queue, self.delivery.attempt);
        let verdict = match order {
            Order::Submit => verdict::of_submission(error, attempt, &self.settings),
            Order::Bury(_) => verdict::of_dead_letter(&error, &self.settings),
            Order::Part(message) => return self.part_failed(message, error).await,
        };
        match verdict {
            Verdict::GiveBack => None,
            Verdict::Again { after, reason } => {
                tracing::warn!(%queue, attempt, reason, "delivery failed; again");
                Some(Settlement::Retry(after))
            }
            Verdict::Bury(reason) => Some(Settlement::Reject(reason)),
            Verdict::Fail(failure) => Some(Settlement::Reject(failure.message)),
        }
    }

    async fn part_failed(&self, message: &PartMessage, error: PartError) -> Option<Settlement> {
        let (attempt, PartMessage { job, part }) = (self.delivery.attempt, message);
        usage::note_waste(&self.tools, message, attempt, &self.spent, &error).await;
        let crashes = match error {
            PartError::Crash(_) => self.crashes(message).await,
            _ => 0,
        };
        let verdict = verdict::of_part(error, attempt, crashes, &self.settings);
        let (kind, outcome) = (part.kind(), verdict.end().name());
        self.part_ended(message, verdict.end());
        let failure = match verdict {
            Verdict::GiveBack => return None,
            Verdict::Bury(reason) => return Some(Settlement::Reject(reason)),
            Verdict::Again { after, reason } => {
                // Whoever follows the job hears of it by its event.
                tracing::info!(%job, %part, kind, outcome, attempt, reason, "part failed; again");
                self.tell_failed(message, &reason, true).await;
                return Some(Settlement::Retry(after));
            }
            Verdict::Fail(failure) => failure,
        };
        if failure.cause == Cause::Internal {
            tracing::error!(%job, %part, kind, outcome, attempt, reason = failure.message, "part failed");
        } else {
            tracing::info!(%job, %part, kind, outcome, attempt, reason = failure.message, "part refused");
        }
        self.tell_failed(message, &failure.message, false).await;
        Some(self.end_job(job, failure).await)
    }

    /// The crashes of a part, this one among them. A store that does not say is no reason to go on for ever.
    async fn crashes(&self, message: &PartMessage) -> u32 {
        let noted = usage::crashes(&self.tools, &message.job, message.part).await;
        noted.map_or(self.delivery.attempt, |noted| noted.max(1))
    }

    async fn end_job(&self, job: &JobId, failure: Failure) -> Settlement {
        match finish::bury(&self.tools, job, failure).await {
            Ok(()) => Settlement::Ack,
            // The end of the job could not be written: the delivery limit sees to it that this ends, too.
            Err(error) => {
                tracing::error!(%job, %error, "the job's failure could not be written");
                Settlement::Retry(self.settings.longest_delay)
            }
        }
    }

    async fn tell_failed(&self, message: &PartMessage, reason: &str, again: bool) {
        let (part, attempt) = (message.part, self.delivery.attempt);
        let fact = Fact::PartFailed { part, attempt, reason: reason.into(), again };
        if let Err(error) = finish::tell_of(&self.tools, &message.job, fact).await {
            tracing::warn!(job = %message.job, %part, %error, "part.failed not told");
        }
    }
}

#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod fleet_tests;
#[cfg(test)]
mod tests;
