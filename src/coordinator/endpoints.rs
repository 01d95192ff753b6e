//! Who is told what happens to a job: the endpoints it names, and its tenant's.

use super::fleet::Fleet;
use crate::job::{Callback, JobId};
use crate::part::accepted::Accepted;
use crate::store::StoreError;
use crate::store::key::Key;

/// The endpoints of a job, its own first; of what is no job, such as a rejection, its tenant's only.
pub(super) async fn of(fleet: &Fleet, job: &JobId, tenant: &str) -> Result<Vec<Callback>, StoreError> {
    let accepted = fleet.stores.work().get_json::<Accepted>(&Key::job(job)).await?;
    let mut endpoints = accepted.map(|accepted| accepted.job.callbacks).unwrap_or_default();
    endpoints.extend(fleet.tenants.get(tenant).into_iter().flat_map(|tenant| tenant.callbacks.iter().cloned()));
    Ok(endpoints)
}
