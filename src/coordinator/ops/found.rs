//! Whose a job is, what there is of it, and why an operation on it was not done.

use crate::broker::BrokerError;
use crate::coordinator::fleet::Fleet;
use crate::event::Projection;
use crate::job::{JobError, JobId};
use crate::part::PartError;
use crate::part::accepted::Accepted;
use crate::store::StoreError;
use crate::store::key::Key;

/// Whose jobs an operation may touch; all others do not exist for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// An operator: everybody's.
    All,
    Tenant(&'a str),
}

impl Scope<'_> {
    fn holds(self, tenant: &str) -> bool {
        match self {
            Scope::All => true,
            Scope::Tenant(own) => own == tenant,
        }
    }
}

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum OpError {
    /// Nobody's, or somebody else's.
    #[error("there is no job {0}")]
    NoJob(JobId),
    #[error("there is no tenant '{0}'")]
    NoTenant(String),
    /// A field of the request is wrong.
    #[error("{0}")]
    Invalid(JobError),
    /// The id is another job's.
    #[error("{0}")]
    Taken(JobError),
    /// The job's state does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// The tenant may not do this now.
    #[error("{0}")]
    Forbidden(String),
    /// The tenant has reached a limit of its own.
    #[error("{0}")]
    Exhausted(String),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Broker(#[from] BrokerError),
    #[error("{0}")]
    Internal(String),
}

impl OpError {
    pub(super) fn invalid(path: &str, reason: impl Into<String>) -> Self {
        OpError::Invalid(JobError { path: path.into(), reason: reason.into() })
    }
}

impl From<PartError> for OpError {
    fn from(error: PartError) -> Self {
        OpError::Internal(error.to_string())
    }
}

/// All there is of a job.
pub(super) struct Found {
    pub tenant: String,
    /// None of one that was rejected.
    pub accepted: Option<Accepted>,
    /// None before its first event was taken in.
    pub projection: Option<Projection>,
}

impl Found {
    pub fn is_terminal(&self) -> bool {
        self.projection.as_ref().is_some_and(Projection::is_terminal)
    }
}

/// The job, if it is one of the scope's.
pub(super) async fn find(fleet: &Fleet, scope: Scope<'_>, job: &JobId) -> Result<Found, OpError> {
    let work = fleet.stores.work();
    let (job_key, status_key) = (Key::job(job), Key::status(job));
    let (accepted, projection) =
        futures::future::try_join(work.get_json::<Accepted>(&job_key), work.get_json::<Projection>(&status_key)).await?;
    let tenant = match (&accepted, &projection) {
        (Some(accepted), _) => accepted.job.tenant.clone(),
        (None, Some(projection)) => projection.tenant.clone(),
        (None, None) => return Err(OpError::NoJob(job.clone())),
    };
    if !scope.holds(&tenant) {
        return Err(OpError::NoJob(job.clone()));
    }
    Ok(Found { tenant, accepted, projection })
}
