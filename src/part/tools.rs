//! What every part works with.

use super::accepted::Accepted;
use super::children::Children;
use super::class;
use super::error::PartError;
use super::scratch::ScratchFolder;
use crate::broker::{self, Broker, BrokerError, Queue, Topic};
use crate::callback::CallbackSettings;
use crate::event::{Event, Fact};
use crate::job::{Class, JobId, Lane};
use crate::observe::{self, Observer};
use crate::plan::marker::PartId;
use crate::plan::{Grounds, Plan, Revised, Revision};
use crate::probe::Probe;
use crate::sandbox::protocol::{Device, Limits};
use crate::shutdown::Stop;
use crate::store::key::Key;
use crate::store::{Store, StoreError, Stores};
use crate::tenant::Tenants;
use crate::trace::Span;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::OwnedSemaphorePermit;

/// Jobs whose plan a worker keeps in memory.
const REMEMBERED_JOBS: usize = 8;

/// The message that asks for a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartMessage {
    pub job: JobId,
    pub part: PartId,
}

/// Who else there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nobody: one process does one job for one person.
    OneProcess,
    /// Other workers, coordinators that project what is told, tenants.
    Fleet,
}

/// How parts are worked on.
#[derive(Clone, Debug)]
pub struct Settings {
    pub mode: Mode,
    pub limits: Limits,
    /// Where every child gets a folder of its own.
    pub scratch: ScratchFolder,
    pub threads_per_slot: u32,
    /// Sources are read by ranges even where they are local files.
    pub ranges: bool,
    /// Parts of one job that are published and not done.
    pub window: u32,
}

/// What every part works with. Clones share it all.
#[derive(Clone)]
pub struct Tools {
    pub broker: Arc<dyn Broker>,
    pub stores: Stores,
    pub children: Arc<dyn Children>,
    pub tenants: Arc<Tenants>,
    /// By which a job's endpoints are judged when it is accepted; absent: when they are called.
    pub callbacks: Option<Arc<CallbackSettings>>,
    pub settings: Arc<Settings>,
    /// Classes of devices that a job may begin with, the most wanted first.
    pub device_classes: Arc<[Class]>,
    /// Is told what happens to parts and their children.
    pub observer: Arc<dyn Observer>,
    /// What is being done with them.
    pub span: Arc<Span>,
    planned: Arc<Mutex<VecDeque<Arc<Planned>>>>,
}

/// A job that has been probed and planned.
pub struct Planned {
    pub accepted: Accepted,
    pub probe: Probe,
    pub plan: Plan,
    /// What content decided, and why, as far as it has.
    pub grounds: Option<Grounds>,
}

impl Planned {
    pub(super) fn id(&self) -> &JobId {
        &self.accepted.id
    }

    /// The same, with the rungs of the encoders of a class.
    pub(super) fn in_class(&self, class: Class) -> Self {
        let Self { accepted, probe, plan, grounds } = self;
        let (accepted, probe, grounds) = (accepted.clone(), probe.clone(), grounds.clone());
        Self { accepted, probe, plan: plan.in_class(class), grounds }
    }
}

impl Tools {
    /// Tools for whoever submits: [`Tools::with_tenants`] says otherwise.
    pub fn new(broker: Arc<dyn Broker>, stores: Stores, children: Arc<dyn Children>, settings: Settings) -> Self {
        let tenants = Arc::new(Tenants::open());
        let (callbacks, settings, observer) = (None, Arc::new(settings), observe::nobody());
        let (device_classes, planned, span) = (Arc::default(), Arc::default(), Span::none());
        Self { broker, stores, children, tenants, callbacks, settings, device_classes, observer, span, planned }
    }

    /// Tells somebody what happens.
    pub fn with_observer(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    /// The same tools for something that is being done: what it publishes is in its trace.
    pub fn within(&self, span: Span) -> Self {
        let broker = broker::within(&self.broker, span.context());
        Self { broker, span: Arc::new(span), ..self.clone() }
    }

    /// Takes jobs of these tenants only, within their quotas.
    pub fn with_tenants(self, tenants: Tenants) -> Self {
        Self { tenants: Arc::new(tenants), ..self }
    }

    /// Jobs may be encoded on devices of these classes.
    pub fn with_device_classes(self, classes: &[Class]) -> Self {
        Self { device_classes: classes.into(), ..self }
    }

    /// Takes jobs only whose endpoints may be called.
    pub fn with_callbacks(self, callbacks: CallbackSettings) -> Self {
        Self { callbacks: Some(Arc::new(callbacks)), ..self }
    }

    /// Where the job's customer wants the result.
    ///
    /// # Errors
    /// No configured store answers to its output URI.
    pub fn output(&self, accepted: &Accepted) -> Result<Store, StoreError> {
        self.stores.output(&accepted.job.tenant, &accepted.job.output.uri)
    }

    /// Publishes a fact, confirmed.
    ///
    /// # Errors
    /// The broker did not take it.
    pub async fn tell(&self, job: &JobId, tenant: &str, fact: Fact) -> Result<(), BrokerError> {
        let event = Event::new(job.clone(), tenant.into(), now_ms(), fact);
        let body = serde_json::to_vec(&event).expect("an event is plain data");
        self.broker.publish(Queue::events_of(job.as_str()), body).await
    }

    /// Tells whoever looks on how far a part is. May be lost.
    pub(super) async fn show_progress(&self, job: &JobId, tenant: &str, part: PartId, frames: u64) {
        let event = Event::new(job.clone(), tenant.into(), now_ms(), Fact::Progress { part, frames });
        let body = serde_json::to_vec(&event).expect("an event is plain data");
        if let Err(error) = self.broker.broadcast(Topic::Progress, body).await {
            tracing::debug!(%job, %part, %error, "progress not shown");
        }
    }

    /// Asks for parts of a job whose video is encoded in `class`.
    pub(super) async fn publish(&self, job: &JobId, lane: Lane, class: Class, parts: &[PartId]) -> Result<(), BrokerError> {
        class::publish(&*self.broker, job, lane, class, parts).await
    }

    /// The class in which a job's video is encoded now.
    pub(super) async fn class(&self, accepted: &Accepted) -> Result<Class, StoreError> {
        class::in_force(self.stores.work(), accepted).await
    }

    /// The job as it was accepted.
    pub(super) async fn accepted(&self, job: &JobId) -> Result<Accepted, PartError> {
        let accepted = self.stores.work().get_json(&Key::job(job)).await?;
        accepted.ok_or_else(|| PartError::Poison(format!("there is no job {job}")))
    }

    /// The job with its probe and plan, from memory where that is late enough, else in the latest revision there is.
    ///
    /// # Errors
    /// Crash: it has no plan. Retry: its plan has not come to `least` yet.
    pub(super) async fn planned(&self, accepted: &Accepted, least: Revision) -> Result<Arc<Planned>, PartError> {
        let (id, work) = (&accepted.id, self.stores.work());
        let known = self.remembered(|kept| kept.iter().find(|p| p.accepted == *accepted).cloned());
        let (probe, plan) = match known {
            Some(known) if known.plan.revision() >= least => return Ok(known),
            Some(earlier) => (earlier.probe.clone(), earlier.plan.clone()),
            None => {
                let missing = |what: &str| PartError::Crash(format!("{what} of job {id} is missing"));
                let probe = work.get_json(&Key::probe(id)).await?.ok_or_else(|| missing("the probe"))?;
                (probe, work.get_json(&Key::plan(id)).await?.ok_or_else(|| missing("the plan"))?)
            }
        };
        let Revised { plan, grounds } = latest_revision(work, id, plan).await?;
        if plan.revision() < least {
            return Err(PartError::Retry(format!("the plan of job {id} is not {} yet", least.name())));
        }
        let planned = Arc::new(Planned { accepted: accepted.clone(), probe, plan, grounds });
        self.remembered(|kept| {
            kept.retain(|other| other.accepted != planned.accepted);
            if kept.len() >= REMEMBERED_JOBS {
                kept.pop_front();
            }
            kept.push_back(planned.clone());
        });
        Ok(planned)
    }

    /// The plan that a part works by.
    ///
    /// # Errors
    /// As [`Tools::planned`].
    pub(super) async fn planned_for(&self, accepted: &Accepted, part: PartId) -> Result<Arc<Planned>, PartError> {
        let planned = self.planned(accepted, part.works_by()).await?;
        let least = planned.plan.works_by(part);
        if planned.plan.revision() >= least { Ok(planned) } else { self.planned(accepted, least).await }
    }

    fn remembered<T>(&self, with: impl FnOnce(&mut VecDeque<Arc<Planned>>) -> T) -> T {
        with(&mut self.planned.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// The latest revision of the plan, which may be an earlier one.
///
/// # Errors
/// The work store cannot be asked.
pub async fn latest_revision(work: &Store, job: &JobId, plan: Plan) -> Result<Revised, StoreError> {
    let known = plan.revision();
    for revision in Revision::LATER.into_iter().filter(|revision| *revision > known) {
        if let Some(revised) = work.get_json::<Revised>(&Key::revision(job, revision)).await? {
            return Ok(revised);
        }
    }
    Ok(Revised { plan, grounds: None })
}

/// The right to run a child; counted for as long as it is held.
pub struct Slot {
    _permit: OwnedSemaphorePermit,
    class: Class,
    observer: Arc<dyn Observer>,
}

impl Slot {
    pub fn new(permit: OwnedSemaphorePermit, class: Class, observer: Arc<dyn Observer>) -> Self {
        observer.slot_taken(class.name());
        Self { _permit: permit, class, observer }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.observer.slot_freed(self.class.name());
    }
}

/// One delivery of a part.
pub struct Attempt {
    pub part: PartId,
    /// By whose queue it came.
    pub class: Class,
    /// What encodes it, where that is a device.
    pub device: Option<Device>,
    /// From 1: which try of ours, however often the broker had to give the message out for it.
    pub number: u32,
    /// The broker gave this message out before: another worker may be at it, or have done it.
    pub redelivered: bool,
    /// The right to run a child. Given back when the child has ended: uploading needs no slot.
    pub permit: Option<Slot>,
    /// Ends the child and gives the part back.
    pub stop: Stop,
    /// What its children used.
    pub spent: Spent,
}

impl Attempt {
    /// Was this message given out before, to us or to another?
    pub(super) fn is_repeated(&self) -> bool {
        self.redelivered || self.number > 1
    }
}

/// CPU time of children so far. Clones are of the same attempt: it is known however the attempt ends.
#[derive(Clone, Debug, Default)]
pub struct Spent(Arc<AtomicU64>);

impl Spent {
    pub fn add(&self, cpu: Duration) {
        self.0.fetch_add(u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn total(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
