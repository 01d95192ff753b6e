//! From a submission to an accepted job: validated, bound to a tenant, admitted, written down.
//!
//! **What is wrong is told, never lost, and touches nobody else's.** A rejection is an event like any other: under the
//! job's own id where that is no other job's, else under an id made of the document. **The order of writes** makes every
//! step repeatable: `open/` (so that somebody looks after it from now on), `index/`, `waiting/` where its tenant has as many
//! jobs as it may, `job.json` (from here on it is a job), the event, the first part or the word that it waits.

use super::accepted::Accepted;
use super::error::PartError;
use super::tools::{Mode, Tools, now_ms};
use super::{accepted, admission, finish};
use crate::callback::TenantCallbacks;
use crate::event::{Fact, is_reserved, rejected_stream};
use crate::job::{Claims, Class, Job, JobError, JobId};
use crate::media::options;
use crate::plan::marker::PartId;
use crate::store::key::Key;
use crate::store::{SourceIdentity, StoreError, Stores};
use crate::tenant::{Admission, NOBODY};
use crate::trace::{Begun, Parent, SpanRole};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Why a job whose id is in use is rejected.
pub const FOREIGN_ID: &str = "is the id of another job, or of this one with another source; choose another id";

/// What somebody put into a queue of jobs.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    pub document: &'a [u8],
    /// The broker's word for who did.
    pub user: Option<&'a str>,
}

/// The body of an `open/` object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Milliseconds since 1970.
    pub accepted_ms: u64,
}

/// The identity of a job's source as it is now.
///
/// # Errors
/// No store answers to it for this tenant, or it cannot be reached.
pub async fn identify(stores: &Stores, job: &Job) -> Result<SourceIdentity, StoreError> {
    stores.source(&job.tenant, &job.input.uri)?.identity().await
}

/// Takes a submission: it becomes an accepted job whose first part is asked for, or a rejection. Submitted again, the same
/// job goes on from where it is.
///
/// # Errors
/// A store or the broker cannot be reached; the same submission may be taken again.
pub async fn submit(tools: &Tools, submission: Submission<'_>) -> Result<(), PartError> {
    let Submission { document, user } = submission;
    let claims = Claims::of(document);
    let (tenant, nobody) = match tools.tenants.of_submission(claims.tenant.as_deref(), user) {
        Ok(tenant) => (tenant, None),
        Err(not) => (not.tenant.unwrap_or_else(|| NOBODY.into()), Some(JobError::new("tenant", not.reason))),
    };
    let parsed = Job::parse(document).and_then(|job| nobody.map_or(Ok(job), Err));
    let taken = match parsed {
        Ok(job) => take(tools, Job { tenant: tenant.clone(), ..job }).await?,
        Err(error) => Err(error),
    };
    match taken {
        Ok(_) => Ok(()),
        Err(error) => refuse(tools, document, claims.id, &tenant, error).await,
    }
}

/// A job that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub id: JobId,
    /// It was not known before.
    pub is_new: bool,
}

/// Takes a document that is a job, of a tenant that may submit it. The inner error is told to the customer. The tools' span is
/// the one that the customer says it submits in, if it says so.
///
/// # Errors
/// A store or the broker cannot be reached; the same job may be taken again.
pub async fn take(tools: &Tools, job: Job) -> Result<Result<Taken, JobError>, PartError> {
    let began = Instant::now();
    if let Err(error) = check(tools, &job) {
        return Ok(Err(error));
    }
    let known = match &job.id {
        Some(id) => known(tools, id).await?,
        None => None,
    };
    // Before the source is looked at: what needs nobody else's word.
    if known.as_ref().is_none_or(|known| known.job != job)
        && let Err(error) = accepted::preset(&job)
    {
        return Ok(Err(error));
    }
    let source = match identify(&tools.stores, &job).await {
        Ok(source) => source,
        Err(e) if e.is_temporary() => return Err(e.into()),
        Err(e) => match known {
            // Done long ago, and its source is gone: it is the same job all the same.
            Some(known) if known.job == job => return again(&accepting(tools, &known, began), &known).await.map(Ok),
            _ => return Ok(Err(JobError::new("input.uri", e.to_string()))),
        },
    };
    let accepted = match Accepted::new(job, source) {
        Ok(accepted) => Accepted { trace: tools.span.context(), ..accepted },
        Err(error) => return Ok(Err(error)),
    };
    let known = match known {
        Some(known) => Some(known),
        None => self::known(tools, &accepted.id).await?,
    };
    match known {
        Some(known) if known.is_same(&accepted) => again(&accepting(tools, &known, began), &known).await.map(Ok),
        Some(_) => Ok(Err(JobError::new("id", FOREIGN_ID))),
        None => match accepted.on(&tools.device_classes).and_then(check_device) {
            Ok(accepted) => begin(&accepting(tools, &accepted, began), accepted).await,
            Err(error) => Ok(Err(error)),
        },
    }
}

/// The tools, in the span of a job that is being accepted: below that of the whole job, which is in the trace of whoever
/// submitted it first.
fn accepting(tools: &Tools, accepted: &Accepted, began: Instant) -> Tools {
    let now = Begun::now("accept", "", SpanRole::Server, Parent::Job(accepted.trace), accepted.id.as_str());
    let span = tools.observer.span(&Begun { ago: began.elapsed(), ..now });
    span.note("tenant", accepted.job.tenant.as_str());
    tools.within(span)
}

/// What can be said of a job by itself, beyond its parsing: names that are kept, places that it may not reach.
fn check(tools: &Tools, job: &Job) -> Result<(), JobError> {
    if job.id.as_ref().is_some_and(|id| is_reserved(id.as_str())) {
        return Err(JobError::new("id", "begins with a word that is kept for what has no id of its own; choose another id"));
    }
    match tools.stores.output(&job.tenant, &job.output.uri) {
        Err(e) if !e.is_temporary() => return Err(JobError::new("output.uri", e.to_string())),
        _ => {}
    }
    check_callbacks(tools, job)
}

/// Holds what its preset asks of a device, with the job's changes, against libavcodec's own tables.
fn check_device(accepted: Accepted) -> Result<Accepted, JobError> {
    let rules = accepted.preset.video.as_ref().filter(|_| accepted.class.is_device());
    if let Some(equivalent) = rules.and_then(|rules| rules.equivalents.get(&accepted.class)) {
        let path = |field: String| format!("set.video.equivalents.{}.{field}", accepted.class);
        options::check_equivalent(equivalent).map_err(|(field, reason)| JobError::new(path(field), reason))?;
    }
    Ok(accepted)
}

/// An endpoint that can be seen never to be called. Names are looked up, and judged, when they are called.
fn check_callbacks(tools: &Tools, job: &Job) -> Result<(), JobError> {
    let Some(settings) = &tools.callbacks else { return Ok(()) };
    let allow_private = tools.tenants.get(&job.tenant).is_some_and(|tenant| tenant.allow_private_callbacks);
    let policy = settings.policy(&TenantCallbacks { allow_private, ..TenantCallbacks::default() });
    for (n, callback) in job.callbacks.iter().enumerate() {
        policy.check(&callback.url).map_err(|e| JobError::new(format!("callbacks[{n}].url"), e.to_string()))?;
    }
    Ok(())
}

async fn known(tools: &Tools, id: &JobId) -> Result<Option<Accepted>, PartError> {
    Ok(tools.stores.work().get_json(&Key::job(id)).await?)
}

/// Was this very job accepted, whoever its tenant turned out to be?
///
/// # Errors
/// The work store cannot be reached.
pub async fn is_known(tools: &Tools, id: &JobId, job: &Job) -> Result<bool, PartError> {
    let known = known(tools, id).await?;
    Ok(known.is_some_and(|known| known.job == Job { tenant: known.job.tenant.clone(), ..job.clone() }))
}

/// A job that was accepted before.
async fn again(tools: &Tools, accepted: &Accepted) -> Result<Taken, PartError> {
    let (id, job) = (&accepted.id, &accepted.job);
    if let Some(result) = finish::result(tools, id).await? {
        finish::tell(tools, accepted, result).await?;
        return Ok(Taken { id: id.clone(), is_new: false });
    }
    tools.tell(id, &job.tenant, Fact::JobAccepted).await?;
    match tools.settings.mode {
        // It was broken off, and this is how it is taken up.
        Mode::OneProcess => tools.publish(id, job.lane, Class::Cpu, &[PartId::Probe]).await?,
        // Others are at it. Only what may have been lost between accepting and asking is asked for again.
        Mode::Fleet if tools.stores.work().size(&Key::marker(id, PartId::Probe)).await?.is_some() => {}
        Mode::Fleet => begin_work(tools, accepted, !admission::is_waiting(tools, accepted).await?).await?,
    }
    Ok(Taken { id: id.clone(), is_new: false })
}

/// A job that is new.
async fn begin(tools: &Tools, accepted: Accepted) -> Result<Result<Taken, JobError>, PartError> {
    let admission = admission::admit(tools, &accepted).await?;
    if let Admission::Refuse(reason) = admission {
        return Ok(Err(JobError::new("tenant", reason)));
    }
    let accepted = match tools.settings.mode {
        Mode::OneProcess => accepted,
        Mode::Fleet => list(tools, accepted).await?,
    };
    let (id, job) = (&accepted.id, &accepted.job);
    let starts = admission::starts(tools, &accepted, &admission).await?;
    tools.stores.work().put_json(&Key::job(id), &accepted).await?;
    tools.tell(id, &job.tenant, Fact::JobAccepted).await?;
    begin_work(tools, &accepted, starts).await?;
    Ok(Ok(Taken { id: id.clone(), is_new: true }))
}

/// Asks for the first part, or has somebody see whether the job must wait.
async fn begin_work(tools: &Tools, accepted: &Accepted, starts: bool) -> Result<(), PartError> {
    if starts {
        return Ok(tools.publish(&accepted.id, accepted.job.lane, Class::Cpu, &[PartId::Probe]).await?);
    }
    Ok(admission::wake(&*tools.broker, &accepted.job.tenant).await?)
}

/// Has the job looked after and listed, under the time at which it was accepted first.
async fn list(tools: &Tools, accepted: Accepted) -> Result<Accepted, PartError> {
    let work = tools.stores.work();
    let open = Key::open(&accepted.job.tenant, &accepted.id);
    let accepted_ms = match work.get_json::<Open>(&open).await {
        Ok(Some(before)) => before.accepted_ms,
        Ok(None) | Err(StoreError::Malformed { .. }) => {
            let now = Open { accepted_ms: now_ms() };
            work.put_json(&open, &now).await?;
            now.accepted_ms
        }
        Err(e) => return Err(e.into()),
    };
    work.put(&Key::index(&accepted.job.tenant, accepted_ms, &accepted.id), Vec::new()).await?;
    Ok(Accepted { accepted_ms, ..accepted })
}

/// Tells that a document is no job.
///
/// # Errors
/// The work store or the broker cannot be reached.
pub async fn refuse(
    tools: &Tools,
    document: &[u8],
    requested: Option<JobId>,
    tenant: &str,
    error: JobError,
) -> Result<(), PartError> {
    let is_free = match &requested {
        Some(id) => !is_reserved(id.as_str()) && tools.stores.work().size(&Key::job(id)).await?.is_none(),
        None => false,
    };
    let (id, requested_id) = match requested {
        Some(id) if is_free => (id, None),
        requested => (rejected_stream(document), requested.map(String::from)),
    };
    tracing::info!(job = %id, tenant, path = error.path, reason = error.reason, "job rejected");
    let fact = Fact::JobRejected { path: error.path, reason: error.reason, requested_id };
    Ok(tools.tell(&id, tenant, fact).await?)
}
