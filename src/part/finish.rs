//! How a job ends: the result is written, then the terminal event is published.
//!
//! What a worker tells is a proposal. Where there are coordinators, the first end in the order of the job's events is the
//! end, and they put `result.json` right where a worker's says otherwise. It is written here all the same, and first: it is
//! what parts of a job that has ended look at, and it makes redelivered messages cheap.

use super::accepted::Accepted;
use super::error::PartError;
use super::report::REPORT_PATH;
use super::tools::Tools;
use super::usage;
use crate::broker::Topic;
use crate::event::{Fact, Failure};
use crate::job::JobId;
use crate::plan::marker::{Marker, Object, PartId};
use crate::store::Stores;
use crate::store::key::Key;
use crate::tenant::NOBODY;
use crate::usage::Usage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `result.json`: how a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", deny_unknown_fields)]
pub enum JobResult {
    /// Everything under the output URI that the job made and the customer keeps.
    Completed {
        objects: Vec<Object>,
    },
    Failed {
        failure: Failure,
    },
    Canceled,
}

impl JobResult {
    /// The end of the job as it is told.
    pub fn fact(self, stores: &Stores, accepted: &Accepted, usage: Usage) -> Fact {
        match self {
            JobResult::Completed { objects } => {
                let outputs = outputs(stores, accepted, &objects);
                Fact::JobCompleted { report: REPORT_PATH.into(), outputs, usage }
            }
            JobResult::Failed { failure } => Fact::JobFailed { failure, usage },
            JobResult::Canceled => Fact::JobCanceled { usage },
        }
    }
}

/// Where people begin to read: what lies at the top of the output folder, which segments and media playlists do not.
fn outputs(stores: &Stores, accepted: &Accepted, objects: &[Object]) -> BTreeMap<String, String> {
    let job = &accepted.job;
    let tops = objects.iter().map(|object| &object.path).filter(|path| !path.contains('/'));
    tops.map(|path| (path.clone(), stores.address(&job.tenant, &job.output.uri, path))).collect()
}

/// Tells every worker something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do", deny_unknown_fields)]
pub enum Control {
    /// The job has ended or is to end, which its objects say: stop its parts.
    Stop { job: JobId },
    /// Take nothing further, finish what is open, end: every worker, or the one of this name.
    Drain {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<String>,
    },
}

/// May a job be worked on?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    Open,
    /// Somebody wants it to end, and it has not.
    Canceled,
    Ended,
}

/// Looks whether a job may still be worked on.
pub(super) async fn fence(tools: &Tools, job: &JobId) -> Result<Fence, PartError> {
    let (result, cancel) = (Key::result(job), Key::cancel(job));
    let (result, cancel) = tokio::try_join!(tools.stores.work().size(&result), tools.stores.work().size(&cancel))?;
    Ok(match (result, cancel) {
        (Some(_), _) => Fence::Ended,
        (None, Some(_)) => Fence::Canceled,
        (None, None) => Fence::Open,
    })
}

/// How the job ended, if it has.
///
/// # Errors
/// The work store cannot be asked.
pub async fn result(tools: &Tools, job: &JobId) -> Result<Option<JobResult>, PartError> {
    Ok(tools.stores.work().get_json(&Key::result(job)).await?)
}

/// Ends a job without a result and stops its other parts. A job that has ended already stays as it is.
///
/// # Errors
/// The end could not be written or told; do it again.
pub async fn fail(tools: &Tools, accepted: &Accepted, failure: Failure) -> Result<(), PartError> {
    end(tools, accepted, JobResult::Failed { failure }).await
}

/// Ends a job that was asked to end.
pub(super) async fn cancel(tools: &Tools, accepted: &Accepted) -> Result<(), PartError> {
    end(tools, accepted, JobResult::Canceled).await
}

/// Ends a job whose package part is done.
pub(super) async fn complete(tools: &Tools, accepted: &Accepted) -> Result<(), PartError> {
    if fence(tools, &accepted.id).await? == Fence::Canceled {
        return cancel(tools, accepted).await;
    }
    let key = Key::marker(&accepted.id, PartId::Package);
    let marker: Option<Marker> = tools.stores.work().get_json(&key).await?;
    let marker = marker.ok_or_else(|| PartError::Retry("the marker of the package part vanished".into()))?;
    end(tools, accepted, JobResult::Completed { objects: marker.objects }).await
}

async fn end(tools: &Tools, accepted: &Accepted, wanted: JobResult) -> Result<(), PartError> {
    let ended = match result(tools, &accepted.id).await? {
        Some(ended) => ended,
        None => {
            tools.stores.work().put_json(&Key::result(&accepted.id), &wanted).await?;
            wanted
        }
    };
    tell(tools, accepted, ended).await?;
    let control = Control::Stop { job: accepted.id.clone() };
    let body = serde_json::to_vec(&control).expect("a control message is plain data");
    Ok(tools.broker.broadcast(Topic::Control, body).await?)
}

/// Publishes the terminal event that goes with a result.
pub(super) async fn tell(tools: &Tools, accepted: &Accepted, result: JobResult) -> Result<(), PartError> {
    let usage = usage::measure(tools, accepted).await?;
    let fact = result.fact(&tools.stores, accepted, usage);
    Ok(tools.tell(&accepted.id, &accepted.job.tenant, fact).await?)
}

/// Publishes the terminal event of a job that has ended once more.
pub(super) async fn tell_again(tools: &Tools, accepted: &Accepted) -> Result<(), PartError> {
    match result(tools, &accepted.id).await? {
        Some(result) => tell(tools, accepted, result).await,
        None => Ok(()),
    }
}

/// Publishes a fact of a job that is known by its id only.
///
/// # Errors
/// The job cannot be read, or the broker did not take the fact.
pub async fn tell_of(tools: &Tools, job: &JobId, fact: Fact) -> Result<(), PartError> {
    let accepted = tools.accepted(job).await?;
    Ok(tools.tell(job, &accepted.job.tenant, fact).await?)
}

/// Ends the job that a dead letter belongs to.
///
/// # Errors
/// The end could not be written or told; do it again.
pub async fn bury(tools: &Tools, job: &JobId, failure: Failure) -> Result<(), PartError> {
    match tools.accepted(job).await {
        Ok(accepted) => fail(tools, &accepted, failure).await,
        // A job that was never accepted has no result to write; whoever waits for it is told.
        Err(PartError::Poison(_)) => Ok(tools.tell(job, NOBODY, Fact::JobFailed { failure, usage: Usage::default() }).await?),
        Err(e) => Err(e),
    }
}
