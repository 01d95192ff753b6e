//! The worker: a dispatcher that alone handles requests to stop, and knows what is open, and tasks that do the parts.
//!
//! The permit comes first, then the delivery: nothing is taken off a queue that cannot be started at once. A permit is
//! given back when its child has ended, so that the next child starts while the last one's files are uploaded; how many
//! parts are open at once is bounded all the same. The dispatcher itself waits for nobody: a delivery is settled by its own
//! task, so that a broker that is away holds up no cancel.

mod dead;
mod devices;
pub mod health;
mod intake;
pub mod lanes;
mod room;
mod settings;
mod verdict;
mod work;

pub use devices::{DeviceSettings, MOST_SESSIONS, StandIn};
pub use intake::OPEN_PER_SLOT;
pub use settings::WorkerSettings;
pub use verdict::{Verdict, of_part};

use crate::broker::{BrokerError, Consumer, DeadLetter, Delivery, Queue, Settlement, Topic};
use crate::job::{Class, JobId};
use crate::observe::Observer;
use crate::part::finish::Control;
use crate::part::{PartMessage, Slot, Spent, Tools};
use crate::shutdown::{self, Stop, Stopper};
use crate::trace::{Begun, Parent, Span, SpanRole};
use devices::{Device, DeviceTaker};
use futures::future::FutureExt;
use health::{BEAT_EVERY, Health};
use intake::{Taken, Taker};
use lanes::Rota;
use settings::STOP_GRACE;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use work::{Work, settle};

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
    /// By whose queue it came: the same part of another class is another.
    class: Class,
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
        if settings.software {
            tools.observer.slots(Class::Cpu.name(), settings.slots);
        }
        for class in Class::ALL.into_iter().filter(|class| class.is_device()) {
            let sessions: usize = settings.devices.iter().filter(|d| d.class == class).map(|d| d.sessions).sum();
            if sessions > 0 {
                tools.observer.slots(class.name(), sessions);
            }
        }
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
        let taker_stop = shutdown::channel();
        let mut taking = self.start_taking(&sender, &taker_stop.1);
        drop(sender);
        let mut dead = Some(self.tools.broker.consume(Queue::Dead, DEAD_PREFETCH).await?);
        let mut controls = self.tools.broker.subscribe(Topic::Control).await?;
        let mut beat = tokio::time::interval(BEAT_EVERY);
        // Ends with this function.
        let mut looking = JoinSet::new();
        looking.spawn(room::watch(self.tools.settings.scratch.clone(), self.tools.observer.clone()));
        if self.settings.self_test && self.settings.software {
            looking.spawn(devices::look_at_software(self.tools.clone()));
        }
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
                Some(ended) = taking.join_next(), if works => {
                    result = ended.unwrap_or_else(|e| Err(BrokerError::Gone(format!("an intake ended in a panic: {e}"))));
                    self.leave();
                }
                Some(delivery) = taken.recv(), if works => self.start_taken(delivery),
                letter = next(&mut dead), if works => match letter {
                    Ok(letter) => self.start(letter, None, None, None),
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
        let all_back = async { while taking.join_next().await.is_some() {} };
        // Those that are not are dropped.
        let _ = tokio::time::timeout(INTAKE_GRACE, all_back).await;
        result
    }

    /// Takes deliveries for the software encoders, and for each device.
    fn start_taking(&self, out: &mpsc::Sender<Taken>, stop: &Stop) -> JoinSet<Result<(), BrokerError>> {
        let (tools, settings) = (&self.tools, &self.settings);
        let taker = |rota, slots| Taker::new(tools, rota, slots, self.health.clone());
        let mut taking = JoinSet::new();
        if settings.software {
            taking.spawn(taker(Rota::of_lanes(settings.lanes), settings.slots).run(out.clone(), stop.clone()));
        }
        for device in &settings.devices {
            let device = Device::new(device.clone());
            let mut taker = taker(Rota::of_class(device.class(), settings.lanes), device.sessions());
            taker.device = Some(device.clone());
            let (tools, rules) = (tools.clone(), settings.device_rules.clone());
            taking.spawn(DeviceTaker { device, taker, tools, rules }.run(out.clone(), stop.clone()));
        }
        taking
    }

    fn start_taken(&mut self, Taken { delivery, permits, device }: Taken) {
        let slot = Slot::new(permits.slot, delivery.queue.class(), self.tools.observer.clone());
        self.start(delivery, Some(slot), Some(permits.open), device);
    }

    /// Starts to work on a delivery.
    fn start(
        &mut self,
        delivery: Delivery,
        slot: Option<Slot>,
        permit: Option<OwnedSemaphorePermit>,
        device: Option<Arc<Device>>,
    ) {
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
        let class = delivery.queue.class();
        let is_copy = |open: &&mut Open| part.is_some() && open.part == part && open.class == class;
        if let Some(open) = self.open.values_mut().find(is_copy) {
            if open.copies.len() < MAX_COPIES {
                open.copies.push(delivery);
            } else {
                self.settling.spawn(settle(delivery, Settlement::Retry(COPY_WAIT)).map(drop));
            }
            return;
        }
        let (stopper, stop) = shutdown::channel();
        let (tools, settings) = (self.tools.within(span(&*self.tools.observer, &delivery, &order)), self.settings.clone());
        let work = Work { tools, settings, delivery, spent: Spent::default(), began: Instant::now(), device };
        let task = self.running.spawn(work.done(order, slot, stop));
        self.open.insert(task.id(), Open { part, class, since: Instant::now(), stopper, copies: Vec::new(), _permit: permit });
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

#[cfg(test)]
mod class_tests;
#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod fleet_tests;
#[cfg(test)]
mod tests;
