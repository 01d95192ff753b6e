//! One job, and what was told of it.

use super::found::{Found, OpError, Scope, find};
use crate::coordinator::fleet::Fleet;
use crate::event::{Projection, Recorded, Summary};
use crate::job::{Job, JobId};
use crate::store::StoreError;
use crate::store::key::Key;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

/// Events of one page, at most.
pub const MOST_EVENTS: u64 = 500;
/// Events read at once.
const READS_AT_ONCE: usize = 16;

/// A job as its owner sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detail {
    #[serde(flatten)]
    pub summary: Summary,
    /// The job as it was accepted, with what was left out filled in. None of one that was rejected.
    pub request: Option<Job>,
}

/// Some of a job's events, in order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventPage {
    pub events: Vec<Recorded>,
    /// Ask for those after this one next. The same as was asked with, when there are none yet.
    pub next_after: u64,
    /// The job has ended and these are the last of its events.
    pub complete: bool,
}

/// The state of a job.
///
/// # Errors
/// There is none for this scope, or the store cannot be asked.
pub async fn detail(fleet: &Fleet, scope: Scope<'_>, job: &JobId) -> Result<Detail, OpError> {
    let Found { tenant, accepted, projection } = find(fleet, scope, job).await?;
    // Submitted, and nothing of it was taken in yet.
    let projection = projection.unwrap_or_else(|| Projection::new(job.clone(), tenant));
    Ok(Detail { summary: projection.summary(), request: accepted.map(|accepted| accepted.job) })
}

/// At most `limit` of the events of a job that follow the one numbered `after`.
///
/// # Errors
/// There is no such job for this scope, or the store cannot be asked.
pub async fn events(fleet: &Fleet, scope: Scope<'_>, job: &JobId, after: u64, limit: u64) -> Result<EventPage, OpError> {
    let found = find(fleet, scope, job).await?;
    let is_terminal = found.is_terminal();
    let last = found.projection.map_or(0, |p| p.sequence);
    let until = last.min(after.saturating_add(limit.min(MOST_EVENTS)));
    let read = |sequence| async move {
        let event = fleet.stores.work().get_json::<Recorded>(&Key::event(job, sequence)).await?;
        event.ok_or_else(|| StoreError::Missing(Key::event(job, sequence).path().into()))
    };
    let events: Vec<Recorded> = stream::iter((after + 1..=until).map(read)).buffered(READS_AT_ONCE).try_collect().await?;
    let next_after = after.max(until);
    Ok(EventPage { events, next_after, complete: is_terminal && next_after >= last })
}
