//! One partition of the events: batches off the queue, each job's facts in their order, written, then acknowledged.

use super::clock::now_ms;
use super::count;
use super::fleet::Fleet;
use super::progress::Progress;
use super::settings::CoordinatorSettings;
use super::sweep::{Sweeper, Tick};
use super::whole_job;
use super::write::{Writer, Written};
use crate::broker::{BrokerError, Consumer, Delivery, Queue};
use crate::event::{Event, Fact};
use crate::job::JobId;
use crate::part::admission::Wake;
use crate::shutdown::Stop;
use crate::trace::{Begun, Parent, SpanRole, TraceContext};
use futures::{StreamExt, stream};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Jobs of one batch that are written at once.
const JOBS_AT_ONCE: usize = 8;
/// Wait before facts that could not be taken in are tried again; it doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Takes in the events of one partition for as long as the broker gives them to this coordinator.
pub(super) struct Partition {
    fleet: Fleet,
    settings: CoordinatorSettings,
    consumer: Box<dyn Consumer>,
    sweeper: Sweeper,
    number: u8,
    progress: Progress,
}

/// A delivery as it was understood.
enum Order {
    Fact(Box<Event>),
    Sweep,
    /// A tenant's waiting jobs may be started.
    Wake(String),
}

/// Facts of one job, in the order in which they came, with their deliveries.
#[derive(Default)]
struct Facts {
    events: Vec<Event>,
    deliveries: Vec<Delivery>,
    is_repeated: bool,
}

impl Facts {
    /// What the first of them that says so was told in.
    fn trace(&self) -> Option<TraceContext> {
        self.deliveries.iter().find_map(|delivery| delivery.trace)
    }
}

impl Partition {
    pub async fn new(fleet: Fleet, settings: CoordinatorSettings, number: u8) -> Result<Self, BrokerError> {
        let consumer = fleet.broker.consume(Queue::Events(number), settings.batch_events).await?;
        let sweeper = Sweeper::new(fleet.clone(), &settings, number);
        Ok(Self { fleet, settings, consumer, sweeper, number, progress: Progress::default() })
    }

    /// The same partition, saying there how it gets on.
    pub fn watched(mut self, progress: Progress) -> Self {
        self.sweeper.watched(progress.clone());
        Self { progress, ..self }
    }

    /// Works until asked to stop. What is in hand then goes back into the queue.
    ///
    /// # Errors
    /// The broker is gone for good, or refuses.
    pub async fn run(mut self, mut stop: Stop) -> Result<(), BrokerError> {
        loop {
            let batch = tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                batch = batch(&mut *self.consumer, &self.settings) => batch?,
            };
            let asked = stop.clone();
            self.progress.step(self.number);
            tokio::select! {
                biased;
                () = stop.at_once() => return Ok(()),
                () = self.handle(batch, asked) => self.progress.rest(self.number),
            }
        }
    }

    async fn handle(&mut self, batch: Vec<Delivery>, stop: Stop) {
        let (mut jobs, mut ticks) = (BTreeMap::<JobId, Facts>::new(), Vec::new());
        let mut wakes = BTreeMap::<String, Vec<Delivery>>::new();
        for delivery in batch {
            self.fleet.observer.taken(delivery.queue.labels(), delivery.waited);
            match order(&delivery.body) {
                Ok(Order::Fact(event)) => {
                    let facts = jobs.entry(event.job.clone()).or_default();
                    facts.is_repeated |= delivery.redelivered;
                    facts.events.push(*event);
                    facts.deliveries.push(delivery);
                }
                Ok(Order::Sweep) => ticks.push(delivery),
                Ok(Order::Wake(tenant)) => wakes.entry(tenant).or_default().push(delivery),
                Err(reason) => {
                    tracing::warn!(queue = %delivery.queue, reason, "a message that is no event");
                    settled(delivery.reject(reason).await);
                }
            }
        }
        let (fleet, step) = (&self.fleet, || self.progress.step(self.number));
        let taken = jobs.into_iter().map(|(job, facts)| take(fleet, job, facts, stop.clone(), &step));
        let mut taken = stream::iter(taken).buffer_unordered(JOBS_AT_ONCE);
        while let Some((job, written)) = taken.next().await {
            if let Some(projection) = written.and_then(|w| w.projection) {
                self.sweeper.heard_of(&job, &projection);
            }
        }
        drop(taken);
        self.look_after(ticks, wakes, stop).await;
    }

    /// What is asked of the sweeper. Asked to stop, it leaves the rest to another coordinator.
    async fn look_after(&mut self, ticks: Vec<Delivery>, wakes: BTreeMap<String, Vec<Delivery>>, mut stop: Stop) {
        let is_due = !ticks.is_empty();
        let (tenants, told): (Vec<_>, Vec<_>) = wakes.into_iter().unzip();
        let all = async {
            for tenant in &tenants {
                self.sweeper.wake(tenant).await;
            }
            if is_due {
                self.sweeper.sweep(now_ms()).await;
            }
        };
        tokio::select! {
            () = stop.requested() => return,
            () = all => {}
        }
        for delivery in ticks.into_iter().chain(told.into_iter().flatten()) {
            settled(delivery.ack().await);
        }
    }
}

/// Takes in facts of one job, again and again until it works: nothing after them could be taken in before. Asked to
/// stop, it leaves them to another coordinator.
async fn take(fleet: &Fleet, job: JobId, facts: Facts, mut stop: Stop, step: &(impl Fn() + Sync)) -> (JobId, Option<Written>) {
    let parent = Parent::Sender(facts.trace());
    let span = fleet.observer.span(&Begun::now("record", "", SpanRole::Consumer, parent, job.as_str()));
    span.note("facts", facts.events.len() as u64);
    let fleet = &fleet.within(span);
    let writer = Writer { fleet, job: &job };
    let (mut wait, mut is_repeated) = (FIRST_WAIT, facts.is_repeated);
    let written = loop {
        match writer.take(&facts.events, is_repeated).await {
            Ok(written) => break written,
            Err(error) => tracing::warn!(%job, %error, "facts could not be taken in; again"),
        }
        step();
        // What was done of it is not known.
        is_repeated = true;
        tokio::select! {
            () = stop.requested() => return (job, None),
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
        }
    };
    if let Some(projection) = &written.projection {
        fleet.span.note("tenant", projection.tenant.as_str());
        fleet.span.note("events", written.recorded.len() as u64);
    }
    count::recorded(&*fleet.observer, &written.recorded);
    whole_job::show(fleet, &written.recorded).await;
    for delivery in facts.deliveries {
        settled(delivery.ack().await);
    }
    step();
    (job, Some(written))
}

fn settled(result: Result<(), BrokerError>) {
    if let Err(error) = result {
        // Whoever gets it next finds everything written.
        tracing::debug!(%error, "an event was not acknowledged; it will come again");
    }
}

/// What is at hand, at least one delivery. Finished parts, of which nobody is told, wait a little for others.
async fn batch(consumer: &mut dyn Consumer, settings: &CoordinatorSettings) -> Result<Vec<Delivery>, BrokerError> {
    let mut batch = vec![consumer.next().await?];
    let until = Instant::now() + settings.linger();
    let mut is_quiet = is_quiet(&batch[0]);
    while batch.len() < settings.batch_events {
        let deadline = if is_quiet { until } else { Instant::now() };
        let Ok(next) = tokio::time::timeout_at(deadline, consumer.next()).await else { break };
        let next = next?;
        is_quiet &= self::is_quiet(&next);
        batch.push(next);
    }
    Ok(batch)
}

fn is_quiet(delivery: &Delivery) -> bool {
    matches!(order(&delivery.body), Ok(Order::Fact(event)) if matches!(event.fact, Fact::PartCompleted { .. }))
}

fn order(body: &[u8]) -> Result<Order, String> {
    match serde_json::from_slice::<Event>(body) {
        Ok(event) => Ok(Order::Fact(Box::new(event))),
        Err(_) if serde_json::from_slice::<Tick>(body).is_ok() => Ok(Order::Sweep),
        Err(e) => serde_json::from_slice::<Wake>(body).map(|wake| Order::Wake(wake.wake)).map_err(|_| e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{event, id, part};
    use super::*;
    use crate::broker::Broker;
    use crate::broker::memory::{Bounds, MemoryBroker};
    use crate::plan::marker::PartId;

    const PARTS: u32 = 12;
    /// Two slots, and parts of a fifth of a second.
    const APART: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn the_parts_of_a_long_job_share_one_writing_of_its_state_and_whatever_else_is_told_ends_the_wait() {
        let settings = crate::config::Config::load(None, std::iter::empty()).unwrap().coordinator;
        let broker = MemoryBroker::new(Bounds::default());
        let queue = Queue::events_of("long");
        let mut consumer = broker.consume(queue, settings.batch_events).await.unwrap();
        let tell =
            async |fact: Fact| broker.publish(queue, serde_json::to_vec(&event(&id("long"), fact)).unwrap()).await.unwrap();
        let telling = async {
            let mut pace = tokio::time::interval(APART);
            for n in 0..PARTS {
                pace.tick().await;
                tell(part(PartId::Encode(n), 1)).await;
            }
            tell(Fact::JobStarted).await;
            Instant::now()
        };
        let taking = async {
            let (mut sizes, all) = (Vec::new(), PARTS as usize + 1);
            while sizes.iter().sum::<usize>() < all {
                let batch = batch(&mut *consumer, &settings).await.unwrap();
                sizes.push(batch.len());
                for delivery in batch {
                    delivery.ack().await.unwrap();
                }
            }
            (sizes, Instant::now())
        };
        let (told, (sizes, taken)) = tokio::join!(telling, taking);
        assert!(sizes.len() <= 2, "{sizes:?}");
        assert!(taken - told < settings.linger() / 4, "{:?}", taken - told);
    }
}
