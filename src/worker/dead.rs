//! Dead letters: every job ends, also one whose message nobody can work on.

use crate::broker::{DeadLetter, Queue};
use crate::callback::Nudge;
use crate::event::{Cause, Failure};
use crate::job::{Claims, Job, JobError, Lane};
use crate::part::{PartError, PartMessage, Tools, accept, finish};
use crate::tenant::NOBODY;

/// Ends what a dead letter belongs to.
///
/// # Errors
/// The end could not be written or told; do it again.
pub(super) async fn bury(tools: &Tools, letter: &DeadLetter) -> Result<(), PartError> {
    let message = format!("{}: {}", letter.queue, letter.reason);
    if is_submission(&letter.queue) {
        return bury_submission(tools, letter, message).await;
    }
    if let Ok(Nudge { job, endpoint, .. }) = serde_json::from_str(&letter.body) {
        // What the endpoint has heard lies in the bucket, and the sweep of the coordinators goes by that.
        tracing::warn!(%job, %endpoint, reason = letter.reason, "a word that callbacks are due was lost; it is said again");
        return Ok(());
    }
    match serde_json::from_str::<PartMessage>(&letter.body) {
        Ok(part) => finish::bury(tools, &part.job, Failure { cause: Cause::Internal, message }).await,
        Err(_) => {
            tracing::error!(queue = letter.queue, reason = letter.reason, "a dead letter that belongs to no job");
            Ok(())
        }
    }
}

fn is_submission(queue: &str) -> bool {
    Lane::ALL.into_iter().any(|lane| Queue::Jobs(lane).to_string() == queue)
}

/// A submission that could not be taken. Was it accepted by another copy, or is its id another job's, that one goes on.
async fn bury_submission(tools: &Tools, letter: &DeadLetter, reason: String) -> Result<(), PartError> {
    let document = letter.body.as_bytes();
    let claims = Claims::of(document);
    // The letter no longer says who sent it; a tenant that is named and known is told.
    let named = claims.tenant.as_deref().filter(|name| tools.tenants.get(name).is_some());
    let tenant = named.unwrap_or(NOBODY).to_string();
    if let (Some(id), Ok(job)) = (&claims.id, Job::parse(document))
        && accept::is_known(tools, id, &job).await?
    {
        tracing::error!(job = %id, reason, "a copy of a submission was lost; the job itself was accepted");
        return Ok(());
    }
    tracing::error!(tenant, reason, "a submission could not be taken");
    accept::refuse(tools, document, claims.id, &tenant, JobError::new(".", format!("could not be taken: {reason}"))).await
}
