//! One part end to end: fetch, child, upload, marker; then the event, and what the part releases.
//!
//! The order of writes is what makes redelivery harmless: objects, marker, event, further parts, and only then does the
//! worker ack. A part that finds its marker skips to the event.

pub mod accept;
mod audio;
mod child;
mod encode;
pub mod finish;
mod next;
mod package;
mod probe;
pub mod report;
pub mod resume;
mod upload;

pub use child::{Children, JailedChildren, StopFuture};
pub use package::REPORT_PATH;

use crate::broker::{Broker, BrokerError, Class, Queue, Topic};
use crate::event::{Cause, Event, Fact, Failure};
use crate::job::{JobId, Lane};
use crate::plan::Plan;
use crate::plan::marker::{Marker, PartId, PartResult};
use crate::probe::Probe;
use crate::sandbox::protocol::Limits;
use crate::shutdown::Stop;
use crate::store::key::Key;
use crate::store::{Store, StoreError, Stores};
use accept::Accepted;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
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

/// Why a part is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// Nobody's fault that would stay: a store, the broker or the machine. Try again, later or elsewhere.
    #[error("{0}")]
    Retry(String),
    /// What was asked for cannot be made.
    #[error("{}", .0.message)]
    Reject(Failure),
    /// A child died, or we are wrong. Try a few times.
    #[error("{0}")]
    Crash(String),
    /// The message is none of ours.
    #[error("{0}")]
    Poison(String),
    /// Somebody asked to stop: the part goes back untouched.
    #[error("stopped")]
    Stopped,
}

impl PartError {
    /// The customer is told `message`, and whose doing it was.
    pub fn reject(cause: Cause, message: impl Into<String>) -> Self {
        PartError::Reject(Failure { cause, message: message.into() })
    }
}

impl From<StoreError> for PartError {
    fn from(error: StoreError) -> Self {
        if error.is_temporary() { PartError::Retry(error.to_string()) } else { PartError::Crash(error.to_string()) }
    }
}

impl From<BrokerError> for PartError {
    fn from(error: BrokerError) -> Self {
        PartError::Retry(error.to_string())
    }
}

/// How parts are worked on.
#[derive(Clone, Debug)]
pub struct Settings {
    pub limits: Limits,
    /// Where every child gets a folder of its own.
    pub scratch: PathBuf,
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
    pub settings: Arc<Settings>,
    planned: Arc<Mutex<VecDeque<Arc<Planned>>>>,
}

/// A job that has been probed and planned.
pub struct Planned {
    pub accepted: Accepted,
    pub probe: Probe,
    pub plan: Plan,
}

impl Planned {
    fn id(&self) -> &JobId {
        &self.accepted.id
    }
}

impl Tools {
    pub fn new(broker: Arc<dyn Broker>, stores: Stores, children: Arc<dyn Children>, settings: Settings) -> Self {
        Self { broker, stores, children, settings: Arc::new(settings), planned: Arc::default() }
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
    async fn show_progress(&self, job: &JobId, tenant: &str, part: PartId, frames: u64) {
        let event = Event::new(job.clone(), tenant.into(), now_ms(), Fact::Progress { part, frames });
        let body = serde_json::to_vec(&event).expect("an event is plain data");
        if let Err(error) = self.broker.broadcast(Topic::Progress, body).await {
            tracing::debug!(%job, %part, %error, "progress not shown");
        }
    }

    /// Asks for parts.
    async fn publish(&self, job: &JobId, lane: Lane, parts: &[PartId]) -> Result<(), BrokerError> {
        for part in parts {
            let message = PartMessage { job: job.clone(), part: *part };
            let body = serde_json::to_vec(&message).expect("a part message is plain data");
            self.broker.publish(Queue::Work(Class::Cpu, lane), body).await?;
        }
        Ok(())
    }

    /// The job as it was accepted.
    async fn accepted(&self, job: &JobId) -> Result<Accepted, PartError> {
        let accepted = self.stores.work().get_json(&Key::job(job)).await?;
        accepted.ok_or_else(|| PartError::Poison(format!("there is no job {job}")))
    }

    /// The job with its probe and plan, from memory where it has been asked for before.
    async fn planned(&self, accepted: &Accepted) -> Result<Arc<Planned>, PartError> {
        let id = &accepted.id;
        if let Some(known) = self.remembered(|kept| kept.iter().find(|p| p.accepted == *accepted).cloned()) {
            return Ok(known);
        }
        let missing = |what: &str| PartError::Crash(format!("{what} of job {id} is missing"));
        let probe = self.stores.work().get_json(&Key::probe(id)).await?.ok_or_else(|| missing("the probe"))?;
        let plan = self.stores.work().get_json(&Key::plan(id)).await?.ok_or_else(|| missing("the plan"))?;
        let planned = Arc::new(Planned { accepted: accepted.clone(), probe, plan });
        self.remembered(|kept| {
            if kept.len() >= REMEMBERED_JOBS {
                kept.pop_front();
            }
            kept.push_back(planned.clone());
        });
        Ok(planned)
    }

    fn remembered<T>(&self, with: impl FnOnce(&mut VecDeque<Arc<Planned>>) -> T) -> T {
        with(&mut self.planned.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// One delivery of a part.
pub struct Attempt {
    pub part: PartId,
    /// From 1.
    pub number: u32,
    /// The right to run a child. Given back when the child has ended: uploading needs no slot.
    pub permit: Option<OwnedSemaphorePermit>,
    /// Ends the child and gives the part back.
    pub stop: Stop,
}

/// Does a part, unless it has been done or its job has ended.
///
/// # Errors
/// See [`PartError`]; whatever the error, the same message may be worked on again.
pub async fn run(tools: &Tools, message: &PartMessage, mut attempt: Attempt) -> Result<(), PartError> {
    let accepted = tools.accepted(&message.job).await?;
    if finish::result(tools, &accepted.id).await?.is_some() {
        return Ok(());
    }
    let key = Key::marker(&accepted.id, message.part);
    let marker = match tools.stores.work().get_json(&key).await? {
        Some(marker) => marker,
        None => {
            let marker = work(tools, &accepted, &mut attempt).await?;
            tools.stores.work().put_json(&key, &marker).await?;
            marker
        }
    };
    drop(attempt.permit.take());
    let fact = Fact::PartCompleted {
        part: marker.part,
        attempt: marker.attempt,
        frames: frames(&marker),
        wall_s: marker.wall_s,
        cpu_s: marker.cpu_s,
    };
    tools.tell(&accepted.id, &accepted.job.tenant, fact).await?;
    next::after(tools, &accepted, message.part).await
}

async fn work(tools: &Tools, accepted: &Accepted, attempt: &mut Attempt) -> Result<Marker, PartError> {
    match attempt.part {
        PartId::Probe => probe::run(tools, accepted, attempt).await,
        PartId::Encode(chunk) => encode::run(tools, &*tools.planned(accepted).await?, chunk, attempt).await,
        PartId::Audio(rendition) => audio::run(tools, &*tools.planned(accepted).await?, rendition, attempt).await,
        PartId::Package => package::run(tools, &*tools.planned(accepted).await?, attempt).await,
    }
}

/// Video frames that a part made, all rungs together.
pub fn frames(marker: &Marker) -> u64 {
    match &marker.result {
        PartResult::Encode(report) => report.rungs.iter().map(|r| r.frames).sum(),
        PartResult::Probe | PartResult::Audio(_) | PartResult::Package => 0,
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
