//! From a submission to an accepted job: validated, with its preset resolved and its source identified.

use super::{PartError, Tools, finish};
use crate::event::{Fact, Stage};
use crate::job::{Job, JobError, JobId};
use crate::plan::marker::PartId;
use crate::plan::preset::Preset;
use crate::store::key::Key;
use crate::store::{SourceIdentity, StoreError, Stores};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Hexadecimal digits of a job id that is derived from the content.
const DERIVED_ID_DIGITS: usize = 16;

/// Why a job whose id is in use is rejected.
pub const FOREIGN_ID: &str = "is the id of another job, or of this one with another source; choose another id";

/// A job as it was accepted; nothing of it changes any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    pub id: JobId,
    /// Bears that id, whether it came with it or not.
    pub job: Job,
    /// The preset with the job's changes.
    pub preset: Preset,
    pub source: SourceIdentity,
}

/// The job's preset with the job's changes.
///
/// # Errors
/// The preset is none, or the changes to it are wrong: the path is that of the job's field.
pub fn preset(job: &Job) -> Result<Preset, JobError> {
    Preset::built_in(&job.preset, &job.set).map_err(|e| {
        let path = if e.path == "preset" { e.path } else { format!("set.{}", e.path) };
        JobError { path, reason: e.reason.replace('\n', " ") }
    })
}

impl Accepted {
    /// Resolves the preset and, where the job has no id, derives it: the same job, preset and source give the same id.
    ///
    /// # Errors
    /// The preset is none, or the changes to it are wrong.
    pub fn new(job: Job, source: SourceIdentity) -> Result<Self, JobError> {
        let preset = preset(&job)?;
        let id = match &job.id {
            Some(id) => id.clone(),
            None => derive(&job, &preset, &source),
        };
        let job = Job { id: Some(id.clone()), ..job };
        Ok(Self { id, job, preset, source })
    }
}

fn derive(job: &Job, preset: &Preset, source: &SourceIdentity) -> JobId {
    let content = serde_json::to_vec(&(job, preset, source)).expect("a job is plain data");
    let digits = hex::encode(Sha256::digest(content));
    JobId::try_from(digits[..DERIVED_ID_DIGITS].to_string()).expect("hexadecimal digits are a job id")
}

/// The identity of a job's source as it is now.
///
/// # Errors
/// It cannot be reached.
pub async fn identify(stores: &Stores, job: &Job) -> Result<SourceIdentity, StoreError> {
    stores.source(&job.tenant, &job.input.uri)?.identity().await
}

/// Takes a submission: writes `job.json`, tells that it is accepted, asks for its first part. Submitted again, the same
/// job goes on from where it is.
///
/// # Errors
/// What cannot be told to anybody by its job id is [`PartError::Poison`].
pub async fn submit(tools: &Tools, document: &[u8]) -> Result<(), PartError> {
    let job = Job::parse(document).map_err(|e| PartError::Poison(e.to_string()))?;
    let source = match identify(&tools.stores, &job).await {
        Ok(source) => source,
        Err(e) if e.is_temporary() => return Err(e.into()),
        Err(e) => return refuse(tools, &job, JobError { path: "input.uri".into(), reason: e.to_string() }).await,
    };
    let accepted = match Accepted::new(job.clone(), source) {
        Ok(accepted) => accepted,
        Err(e) => return refuse(tools, &job, e).await,
    };
    let (id, tenant) = (&accepted.id, &accepted.job.tenant);
    match tools.stores.work().get_json::<Accepted>(&Key::job(id)).await? {
        Some(known) if known != accepted => {
            let error = JobError { path: "id".into(), reason: FOREIGN_ID.into() };
            return refuse(tools, &accepted.job, error).await;
        }
        Some(_) => {}
        None => tools.stores.work().put_json(&Key::job(id), &accepted).await?,
    }
    if let Some(result) = finish::result(tools, id).await? {
        return finish::tell(tools, &accepted, result).await;
    }
    tools.tell(id, tenant, Fact::JobAccepted).await?;
    tools.tell(id, tenant, Fact::JobStarted).await?;
    let started = Fact::StageStarted { stage: Stage::Probe, parts: 1, frames: 0, media_s: 0.0 };
    tools.tell(id, tenant, started).await?;
    Ok(tools.publish(id, accepted.job.lane, &[PartId::Probe]).await?)
}

async fn refuse(tools: &Tools, job: &Job, error: JobError) -> Result<(), PartError> {
    let Some(id) = &job.id else { return Err(PartError::Poison(error.to_string())) };
    tracing::info!(job = %id, path = error.path, reason = error.reason, "job rejected");
    let fact = Fact::JobRejected { path: error.path, reason: error.reason, requested_id: None };
    Ok(tools.tell(id, &job.tenant, fact).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> SourceIdentity {
        SourceIdentity { bytes: 5, modified_ms: 7, etag: None }
    }

    fn job(more: &str) -> Job {
        Job::parse(format!(r#"{{"input":{{"uri":"a.mp4"}},"output":{{"uri":"out"}}{more}}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn the_same_job_has_the_same_id_and_another_job_another() {
        let id = |more: &str, source| Accepted::new(job(more), source).unwrap().id;
        let first = id("", source());
        assert_eq!(first, id(r#","lane":"normal""#, source()));
        let accepted = Accepted::new(job(""), source()).unwrap();
        assert_eq!(Accepted::new(accepted.job.clone(), source()), Ok(accepted), "submitted with its id it is the same");
        assert_eq!(first.as_str().len(), DERIVED_ID_DIGITS);
        assert_ne!(first, id("", SourceIdentity { bytes: 6, ..source() }));
        assert_ne!(first, id("", SourceIdentity { modified_ms: 8, ..source() }));
        assert_ne!(first, id("", SourceIdentity { etag: Some("\"a\"".into()), ..source() }));
        assert_ne!(first, id(r#","set":{"packaging.segment_s":6}"#, source()));
        assert_eq!(id(r#","id":"mine""#, source()).as_str(), "mine");
    }

    #[test]
    fn a_wrong_preset_is_named_by_the_field_of_the_job() {
        let path = |more: &str| Accepted::new(job(more), source()).unwrap_err().path;
        assert_eq!(path(r#","preset":"h266""#), "preset");
        assert_eq!(path(r#","set":{"packaging.segments":6}"#), "set.packaging.segments");
    }
}
