//! Telling customers again what happened to a job.

use super::found::{OpError, Scope, find};
use crate::callback;
use crate::coordinator::clock::now_ms;
use crate::coordinator::endpoints;
use crate::coordinator::fleet::Fleet;
use crate::job::JobId;
use serde::Serialize;
use std::collections::BTreeSet;

/// What is told again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replayed {
    pub job: JobId,
    /// The first event that is told again.
    pub from_sequence: u64,
    /// The last one there is now.
    pub to_sequence: u64,
    /// Ids of the endpoints.
    pub endpoints: Vec<String>,
}

/// Has the events of a job from this one on delivered again, to all its endpoints, also to those that were disabled.
///
/// # Errors
/// There is no such job for this scope, it has no such event, or nobody is to be told of it.
pub async fn replay(fleet: &Fleet, scope: Scope<'_>, job: &JobId, from_sequence: u64) -> Result<Replayed, OpError> {
    let found = find(fleet, scope, job).await?;
    let last = found.projection.as_ref().map_or(0, |p| p.sequence);
    if from_sequence == 0 || from_sequence > last {
        return Err(OpError::invalid("from_sequence", format!("is none of the job's events: there are {last}, numbered from 1")));
    }
    let endpoints = endpoints::of(fleet, job, &found.tenant).await?;
    if endpoints.is_empty() {
        return Err(OpError::Conflict("neither the job nor its tenant has an endpoint to tell".into()));
    }
    let ids: BTreeSet<_> = endpoints.iter().map(callback::EndpointId::of).collect();
    for id in &ids {
        callback::run::enable(fleet.stores.work(), &found.tenant, id).await?;
    }
    let replay = callback::Replay { from_sequence, asked_ms: now_ms() };
    callback::replay(&*fleet.broker, job, &endpoints, replay).await?;
    let endpoints = ids.iter().map(ToString::to_string).collect();
    Ok(Replayed { job: job.clone(), from_sequence, to_sequence: last, endpoints })
}
