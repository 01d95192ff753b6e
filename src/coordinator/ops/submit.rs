//! Submitting a job: what a worker would do with the same document off the queue, done here and answered at once.

use super::found::{OpError, Scope};
use crate::coordinator::fleet::Fleet;
use crate::job::{Claims, Job, JobError, JobId};
use crate::part::PartError;
use crate::part::accept::{self, FOREIGN_ID};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Hexadecimal digits of an id that is derived from an idempotency key.
const KEYED_ID_DIGITS: usize = 32;

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Submitted {
    pub job: JobId,
    pub tenant: String,
    /// False: it was submitted before, and goes on from where it is.
    pub is_new: bool,
}

/// Submits a job. A tenant's scope submits for itself; an operator's for the tenant that the document names.
///
/// Without an id of its own the job is named by `key`, or else by its content: submitted again it is the same job.
///
/// # Errors
/// Names the field that is wrong; or the tenant may not submit now.
pub async fn submit(fleet: &Fleet, scope: Scope<'_>, document: &[u8], key: Option<&str>) -> Result<Submitted, OpError> {
    let mut job = Job::parse(document).map_err(OpError::Invalid)?;
    let named = Claims::of(document).tenant;
    job.tenant = match (scope, named) {
        (Scope::Tenant(own), Some(named)) if named != own => return Err(OpError::invalid("tenant", format!("is not '{own}'"))),
        (Scope::Tenant(own), _) => own.into(),
        (Scope::All, Some(named)) if fleet.tenants.get(&named).is_some() => named,
        (Scope::All, Some(named)) => return Err(OpError::invalid("tenant", format!("'{named}' is not configured"))),
        (Scope::All, None) => {
            only_tenant(fleet).ok_or_else(|| OpError::invalid("tenant", "is missing; this fleet has several"))?
        }
    };
    if job.id.is_none() {
        job.id = key.map(|key| keyed(&job.tenant, key));
    }
    let tenant = job.tenant.clone();
    match accept::take(&fleet.tools(), job).await {
        Ok(Ok(taken)) => Ok(Submitted { job: taken.id, tenant, is_new: taken.is_new }),
        Ok(Err(error)) => Err(refusal(error)),
        Err(PartError::Retry(reason)) => Err(OpError::Internal(reason)),
        Err(error) => Err(error.into()),
    }
}

/// The tenant of a fleet that has but one.
fn only_tenant(fleet: &Fleet) -> Option<String> {
    let mut all = fleet.tenants.iter();
    let only = all.next()?;
    all.next().is_none().then(|| only.name.clone())
}

/// Whose fault a refusal is: the document's, or the tenant's who has had enough.
fn refusal(error: JobError) -> OpError {
    match error.path.as_str() {
        "id" if error.reason == FOREIGN_ID => OpError::Taken(error),
        // The tenant of a document is settled by now: what is said of it is its freeze or its quota.
        "tenant" if error.reason.starts_with("is frozen") => OpError::Forbidden(format!("the tenant {}", error.reason)),
        "tenant" => OpError::Exhausted(error.reason),
        _ => OpError::Invalid(error),
    }
}

fn keyed(tenant: &str, key: &str) -> JobId {
    let digits = hex::encode(Sha256::digest(format!("{tenant}\n{key}")));
    JobId::try_from(digits[..KEYED_ID_DIGITS].to_string()).expect("hexadecimal digits are a job id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_of_another_tenant_names_another_job() {
        assert_eq!(keyed("acme", "order-7"), keyed("acme", "order-7"));
        assert_ne!(keyed("acme", "order-7"), keyed("globex", "order-7"));
        assert_ne!(keyed("acme", "order-7"), keyed("acme", "order-8"));
    }
}
