//! What is written of a job when facts about it come in, in an order in which a coordinator may die anywhere.
//!
//! 1. The recorded events, one after the other: the first end that stands there is the job's end.
//! 2. Of a rejection its place in the list; at a job's end the bill, the result, and its place among the ended ones.
//! 3. The state, by which the next coordinator knows which facts it has seen.
//! 4. The nudges to the callbacks, and at a job's end the word that its tenant's next one may be started.
//!
//! Only then are the facts acknowledged. Whoever dies before leaves them to the next one, which takes over the events
//! that are there ([`Projection::adopt`]) and writes what is missing. An event that stands is never written over.

use super::endpoints;
use super::fleet::Fleet;
use super::ops::UsageRecord;
use crate::broker::{BrokerError, Topic};
use crate::callback;
use crate::event::{Event, Fact, Projection, Recorded, State, VERSION, is_reserved, rfc3339};
use crate::job::JobId;
use crate::part::PartError;
use crate::part::accepted::Accepted;
use crate::part::finish::{Control, JobResult};
use crate::plan::marker::{Marker, PartId};
use crate::store::StoreError;
use crate::store::key::Key;
use serde::{Deserialize, Serialize};

/// How often facts are applied anew to a state that turned out to be older than the events: each time it is newer.
const MOST_ADOPTIONS: u32 = 4;

/// Why facts could not be taken in; the same may work later.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Broker(#[from] BrokerError),
    #[error("{0}")]
    Part(#[from] PartError),
    #[error("the events of job {0} change under our hands: another coordinator is at it")]
    Contended(JobId),
}

/// What became of some facts.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Written {
    /// The state after them; none of a job that does not exist.
    pub projection: Option<Projection>,
    /// New events.
    pub recorded: Vec<Recorded>,
}

/// Says on the topic of progress that there is a new event, for those who follow a job live. May be lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hint {
    pub recorded: JobId,
    pub sequence: u64,
}

/// One job, whose facts are taken in.
pub(super) struct Writer<'a> {
    pub fleet: &'a Fleet,
    pub job: &'a JobId,
}

impl Writer<'_> {
    /// Takes in facts of the job in this order. `is_repeated`: some of them were given out before, to somebody who may
    /// have died anywhere on the way; then what follows from the state is written and told again.
    pub async fn take(&self, events: &[Event], is_repeated: bool) -> Result<Written, WriteError> {
        let Some(stored) = self.begin(events).await? else { return Ok(Written::default()) };
        let (projection, recorded, adopted) = self.record(&stored, events).await?;
        self.list(&stored, &projection).await?;
        let has_ended = projection.is_terminal() && (is_repeated || !stored.is_terminal());
        if has_ended {
            self.close(&projection).await?;
        }
        if projection != stored {
            self.fleet.stores.work().put_json(&Key::status(self.job), &projection).await?;
        }
        let told: Vec<&Recorded> = adopted.iter().chain(&recorded).collect();
        self.nudge(&projection, &told, is_repeated).await?;
        if has_ended {
            self.fleet.wake(&projection.tenant).await?;
        }
        if let Some(last) = told.last() {
            self.hint(last.sequence).await;
        }
        Ok(Written { projection: Some(projection), recorded })
    }

    /// The state before the facts; none when they are of no job.
    async fn begin(&self, events: &[Event]) -> Result<Option<Projection>, WriteError> {
        let work = self.fleet.stores.work();
        match work.get_json::<Projection>(&Key::status(self.job)).await {
            Ok(Some(projection)) if projection.job == *self.job => return self.hand_over(projection, events).await.map(Some),
            Ok(None) => {}
            Ok(Some(_)) | Err(StoreError::Malformed { .. }) => {
                tracing::error!(job = %self.job, "the state cannot be read; it is made anew from the events");
            }
            Err(e) => return Err(e.into()),
        }
        let rejected = events.iter().find(|e| matches!(e.fact, Fact::JobRejected { .. }));
        let stream = rejected.or(events.first().filter(|_| is_reserved(self.job.as_str())));
        if let Some(event) = stream {
            return Ok(Some(Projection::new(self.job.clone(), event.tenant.clone())));
        }
        // Facts that come late must not bring back a job that was purged.
        let accepted = work.get_json::<Accepted>(&Key::job(self.job)).await?;
        if accepted.is_none() {
            tracing::info!(job = %self.job, facts = events.len(), "facts of a job that does not exist");
        }
        Ok(accepted.map(|accepted| Projection::new(self.job.clone(), accepted.job.tenant)))
    }

    /// An id under which documents were rejected is nobody's yet. When another tenant uses it, that one gets it as new:
    /// neither may read what the other was told.
    async fn hand_over(&self, stored: Projection, events: &[Event]) -> Result<Projection, WriteError> {
        let claims = |event: &&Event| matches!(event.fact, Fact::JobAccepted | Fact::JobRejected { .. });
        let claimant = events.iter().rev().find(claims).filter(|event| event.tenant != stored.tenant);
        let Some(claimant) = claimant.filter(|_| stored.status.state == Some(State::Rejected)) else { return Ok(stored) };
        let work = self.fleet.stores.work();
        work.delete_under(&Key::events(self.job)).await?;
        work.delete_under(&Key::cursors(self.job)).await?;
        work.delete(&Key::settling(&stored.tenant, self.job)).await?;
        work.delete(&Key::index(&stored.tenant, stored.first_ms, self.job)).await?;
        Ok(Projection::new(self.job.clone(), claimant.tenant.clone()))
    }

    /// Applies the facts and writes their events: the new state, the events written, and those that stood there before
    /// and are not in `stored`.
    async fn record(
        &self,
        stored: &Projection,
        events: &[Event],
    ) -> Result<(Projection, Vec<Recorded>, Vec<Recorded>), WriteError> {
        let work = self.fleet.stores.work();
        let (mut base, mut adopted) = (stored.clone(), Vec::new());
        for _ in 0..MOST_ADOPTIONS {
            let mut next = base.clone();
            let recorded = self.apply(&mut next, events);
            // With nothing to write, an event beyond the state is found by the sweep or by the next fact.
            let is_behind = match recorded.first() {
                Some(first) => work.size(&Key::event(self.job, first.sequence)).await?.is_some(),
                None => false,
            };
            if !is_behind {
                for event in &recorded {
                    work.put_json(&Key::event(self.job, event.sequence), event).await?;
                }
                return Ok((next, recorded, adopted));
            }
            adopted.extend(self.adopt(&mut base).await?);
        }
        Err(WriteError::Contended(self.job.clone()))
    }

    fn apply(&self, projection: &mut Projection, events: &[Event]) -> Vec<Recorded> {
        let mut recorded = Vec::new();
        for event in events {
            if event.tenant != projection.tenant {
                tracing::info!(job = %self.job, event = event.id, tenant = event.tenant, "a fact of another tenant's");
                continue;
            }
            match projection.apply(event) {
                Ok(more) => recorded.extend(more),
                // Two ends were proposed; the first one stands.
                Err(late) => tracing::info!(job = %self.job, event = late.told, state = ?late.state, "came too late"),
            }
        }
        recorded
    }

    /// Takes over the events that stand beyond the state.
    async fn adopt(&self, projection: &mut Projection) -> Result<Vec<Recorded>, WriteError> {
        let mut adopted = Vec::new();
        loop {
            let key = Key::event(self.job, projection.sequence + 1);
            match self.fleet.stores.work().get_json::<Recorded>(&key).await? {
                Some(event) if projection.adopt(&event) => adopted.push(event),
                _ => return Ok(adopted),
            }
        }
    }

    /// Brings the state of an open job up to its events, and writes again what follows from it.
    pub async fn repair(&self) -> Result<Option<Projection>, WriteError> {
        let work = self.fleet.stores.work();
        let Some(stored) = self.begin(&[]).await? else { return Ok(None) };
        let mut projection = stored.clone();
        let adopted = self.adopt(&mut projection).await?;
        if projection.is_terminal() {
            self.close(&projection).await?;
        }
        if projection != stored {
            work.put_json(&Key::status(self.job), &projection).await?;
            self.list(&stored, &projection).await?;
            self.nudge(&projection, &adopted.iter().collect::<Vec<_>>(), false).await?;
            if projection.is_terminal() {
                self.fleet.wake(&projection.tenant).await?;
            }
        }
        Ok(Some(projection))
    }

    /// A place in the list for what was rejected. Jobs are listed by whoever accepts them; a document that is mended and
    /// accepted after all has its place from then on.
    async fn list(&self, stored: &Projection, projection: &Projection) -> Result<(), WriteError> {
        let key = Key::index(&projection.tenant, projection.first_ms, self.job);
        let is_rejected = |p: &Projection| p.status.state == Some(State::Rejected);
        match (is_rejected(stored), is_rejected(projection)) {
            (false, true) => self.fleet.stores.work().put(&key, Vec::new()).await?,
            (true, false) => self.fleet.stores.work().delete(&key).await?,
            _ => {}
        }
        Ok(())
    }

    /// What follows from a job's end: its bill, a result that says the same, no more work on it, and a place among the ended
    /// ones, so that its tenant's quota holds it no longer.
    async fn close(&self, projection: &Projection) -> Result<(), WriteError> {
        let status = &projection.status;
        let (Some(state), Some(ended_at)) = (status.state, &status.ended_at) else { return Ok(()) };
        if state == State::Rejected {
            return Ok(());
        }
        let work = self.fleet.stores.work();
        let record = UsageRecord {
            version: VERSION,
            job: self.job.clone(),
            tenant: projection.tenant.clone(),
            state,
            ended_at: ended_at.clone(),
            usage: self.fleet.billed(self.job, status.usage.as_ref()).await?,
        };
        let day = rfc3339::day(rfc3339::parse(ended_at).unwrap_or(projection.updated_ms));
        work.put_json(&Key::usage(&projection.tenant, &day, self.job), &record).await?;
        let (found, wanted) = (work.get_json::<JobResult>(&Key::result(self.job)).await?, self.result(projection).await?);
        if let Some(wanted) = wanted.filter(|wanted| found.as_ref() != Some(wanted)) {
            if found.is_some() {
                tracing::warn!(job = %self.job, ?state, "a worker wrote another end than was decided; it is written over");
            }
            work.put_json(&Key::result(self.job), &wanted).await?;
        }
        if state != State::Completed {
            let control = Control::Stop { job: self.job.clone() };
            let body = serde_json::to_vec(&control).expect("a control message is plain data");
            self.fleet.broker.broadcast(Topic::Control, body).await?;
        }
        work.put(&Key::settling(&projection.tenant, self.job), Vec::new()).await?;
        Ok(work.delete(&Key::open(&projection.tenant, self.job)).await?)
    }

    /// The result that goes with the state; none when the objects of a complete job are not known any more.
    async fn result(&self, projection: &Projection) -> Result<Option<JobResult>, WriteError> {
        Ok(match projection.status.state {
            Some(State::Completed) => {
                let key = Key::marker(self.job, PartId::Package);
                let marker = self.fleet.stores.work().get_json::<Marker>(&key).await?;
                marker.map(|marker| JobResult::Completed { objects: marker.objects })
            }
            Some(State::Failed) => projection.status.failure.clone().map(|failure| JobResult::Failed { failure }),
            Some(State::Canceled) => Some(JobResult::Canceled),
            _ => None,
        })
    }

    /// Says that callbacks are due, to those endpoints that want one of the events.
    async fn nudge(&self, projection: &Projection, told: &[&Recorded], is_repeated: bool) -> Result<(), WriteError> {
        if told.is_empty() && !is_repeated {
            return Ok(());
        }
        let mut endpoints = endpoints::of(self.fleet, self.job, &projection.tenant).await?;
        if !is_repeated {
            endpoints.retain(|endpoint| told.iter().any(|event| callback::wants(endpoint, &event.kind)));
        }
        let is_job = projection.status.state.is_some_and(|state| state != State::Rejected);
        if !is_job && !endpoints.is_empty() {
            // Nobody looks after what is no job, but for what is told of it.
            self.fleet.stores.work().put(&Key::settling(&projection.tenant, self.job), Vec::new()).await?;
        }
        Ok(callback::nudge(&*self.fleet.broker, self.job, &endpoints).await?)
    }

    async fn hint(&self, sequence: u64) {
        let hint = Hint { recorded: self.job.clone(), sequence };
        let body = serde_json::to_vec(&hint).expect("a hint is plain data");
        if let Err(error) = self.fleet.broker.broadcast(Topic::Progress, body).await {
            tracing::debug!(job = %self.job, %error, "a new event was not hinted at");
        }
    }
}
