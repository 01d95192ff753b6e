//! Ending a job before it is done.

use super::found::{OpError, Scope, find};
use crate::broker::Topic;
use crate::coordinator::clock::now_ms;
use crate::coordinator::fleet::Fleet;
use crate::event::{Fact, State};
use crate::job::JobId;
use crate::part::finish::Control;
use crate::store::key::Key;
use serde::{Deserialize, Serialize};

/// What became of the request to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Canceled {
    /// Every worker is told; the job ends as canceled unless it ends otherwise at this moment.
    Asked,
    /// It was canceled before.
    Already,
}

/// `cancel.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CancelNote {
    at_ms: u64,
}

/// Ends a job. What it made so far stays until it is purged.
///
/// # Errors
/// There is no such job for this scope, or it ended otherwise before.
pub async fn cancel(fleet: &Fleet, scope: Scope<'_>, job: &JobId) -> Result<Canceled, OpError> {
    let found = find(fleet, scope, job).await?;
    match found.projection.as_ref().and_then(|p| p.status.state) {
        Some(State::Canceled) => return Ok(Canceled::Already),
        Some(state) if state.is_terminal() => {
            return Err(OpError::Conflict(format!("the job has ended: it is {}", state.name())));
        }
        _ => {}
    }
    let Some(accepted) = &found.accepted else { return Err(OpError::NoJob(job.clone())) };
    // First what workers look at before they begin, then the fact, then the word to those that are at it.
    let at_ms = now_ms();
    fleet.stores.work().put_json(&Key::cancel(job), &CancelNote { at_ms }).await?;
    let usage = fleet.measure(accepted).await?;
    fleet.tell(job, &found.tenant, at_ms, Fact::JobCanceled { usage }).await?;
    let body = serde_json::to_vec(&Control::Stop { job: job.clone() }).expect("a control message is plain data");
    fleet.broker.broadcast(Topic::Control, body).await?;
    Ok(Canceled::Asked)
}
