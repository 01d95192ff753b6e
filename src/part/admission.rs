//! May a job be started now? The tenant's freeze and quotas, as far as the bucket knows of it.
//!
//! **How many jobs a tenant has at work is bounded, without a lock.** A job is written among the open ones first, and the
//! others there are counted after that. Of any jobs that are taken at the same moment, the one that counts last sees all
//! others that were started, so no more are started than may be. They may all see each other and wait, where one could
//! have been started: so whoever has a job wait says so on the tenant's partition of the events, where one after the other
//! is started by one coordinator. **How many wait, and the minutes of a day, are soft**: submissions that are taken at the
//! same moment do not see each other, and what is under way is metered at its end.

use super::accepted::Accepted;
use super::error::PartError;
use super::tools::{Mode, Tools, now_ms};
use crate::broker::{Broker, BrokerError, Queue};
use crate::event::{rfc3339, tenant_stream};
use crate::job::JobId;
use crate::store::StoreError;
use crate::store::key::Key;
use crate::tenant::{Admission, Frozen, Tenant};
use crate::usage::Usage;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

/// Usage records read at once when the minutes of a day are summed.
const READS_AT_ONCE: usize = 16;

/// What is looked at of a usage record.
#[derive(Default, Deserialize)]
struct Metered {
    usage: Usage,
}

/// A message on the partition of a tenant's own events: start those of its jobs that wait and may be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wake {
    /// The tenant.
    pub wake: String,
}

/// Has a tenant's waiting jobs looked at now. Asked twice it does no harm, and a sweep does it, too, only later.
///
/// # Errors
/// The broker did not take it.
pub async fn wake(broker: &dyn Broker, tenant: &str) -> Result<(), BrokerError> {
    let body = serde_json::to_vec(&Wake { wake: tenant.into() }).expect("a wake is plain data");
    broker.publish(Queue::events_of(tenant_stream(tenant).as_str()), body).await
}

/// What becomes of a job that is right in itself, and of which nothing was written yet.
pub(super) async fn admit(tools: &Tools, accepted: &Accepted) -> Result<Admission, PartError> {
    if tools.settings.mode == Mode::OneProcess {
        return Ok(Admission::Start);
    }
    let name = &accepted.job.tenant;
    if let Some(reason) = frozen(tools, name).await? {
        return Ok(Admission::Refuse(reason));
    }
    let Some(tenant) = tools.tenants.get(name).filter(|tenant| !tenant.quota.is_unlimited()) else {
        return Ok(Admission::Start);
    };
    if let Some(reason) = minutes_used_up(tools, tenant).await? {
        return Ok(Admission::Refuse(reason));
    }
    if tenant.quota.active_jobs.is_none() {
        return Ok(Admission::Start);
    }
    Ok(tenant.quota.admit(open_jobs(tools, name, &accepted.id).await?))
}

/// Is a job that is written among the open ones to be started? If not, it is put among those that wait.
pub(super) async fn starts(tools: &Tools, accepted: &Accepted, admission: &Admission) -> Result<bool, PartError> {
    let (tenant, work) = (&accepted.job.tenant, tools.stores.work());
    let limit = tools.tenants.get(tenant).and_then(|tenant| tenant.quota.active_jobs);
    let Some(limit) = limit.filter(|_| tools.settings.mode == Mode::Fleet) else { return Ok(true) };
    // Put there by somebody who died before it was a job: it is counted as one that waits.
    if !is_waiting(tools, accepted).await?
        && *admission == Admission::Start
        && open_jobs(tools, tenant, &accepted.id).await? < u64::from(limit)
    {
        return Ok(true);
    }
    work.put(&Key::waiting(tenant, accepted.accepted_ms, &accepted.id), Vec::new()).await?;
    Ok(false)
}

/// Does the job wait for its tenant's others?
pub(super) async fn is_waiting(tools: &Tools, accepted: &Accepted) -> Result<bool, PartError> {
    let key = Key::waiting(&accepted.job.tenant, accepted.accepted_ms, &accepted.id);
    Ok(tools.stores.work().size(&key).await?.is_some())
}

/// Why the tenant may not start new work, if it may not.
async fn frozen(tools: &Tools, tenant: &str) -> Result<Option<String>, PartError> {
    match tools.stores.work().get_json::<Frozen>(&Key::frozen(tenant)).await {
        Ok(frozen) => Ok(frozen.map(|frozen| format!("is frozen: {}", frozen.reason))),
        // Somebody wrote it by hand, and meant it.
        Err(StoreError::Malformed { .. }) => Ok(Some("is frozen".into())),
        Err(e) => Err(e.into()),
    }
}

/// Jobs of the tenant that have not ended, but for this one.
async fn open_jobs(tools: &Tools, tenant: &str, but: &JobId) -> Result<u64, PartError> {
    let paths = tools.stores.work().list(&Key::open_folder(Some(tenant))).await?;
    let own = Key::open(tenant, but);
    Ok(paths.iter().filter(|path| *path != own.path()).count() as u64)
}

/// Why a tenant of a daily quota has had its minutes, if it has. What is under way is not metered yet.
async fn minutes_used_up(tools: &Tools, tenant: &Tenant) -> Result<Option<String>, PartError> {
    let Some(limit) = tenant.quota.minutes_per_day else { return Ok(None) };
    let day = &rfc3339::day(now_ms());
    let folder = Key::usage_folder(&tenant.name, Some(day));
    let paths = tools.stores.work().list(&folder).await?;
    let name = |path: &String| path.strip_prefix(&folder)?.strip_suffix(".json").map(str::to_string);
    let jobs: Vec<JobId> = paths.iter().filter_map(|path| JobId::try_from(name(path)?).ok()).collect();
    let read = |job: JobId| async move {
        let record = tools.stores.work().get_json::<Metered>(&Key::usage(&tenant.name, day, &job)).await?;
        Ok::<_, PartError>(record.unwrap_or_default().usage)
    };
    let add = |mut sum: Usage, usage: Usage| async move {
        sum.add(&usage);
        Ok(sum)
    };
    let sum = stream::iter(jobs.into_iter().map(read)).buffer_unordered(READS_AT_ONCE).try_fold(Usage::default(), add).await?;
    let used = sum.minutes();
    Ok((used >= limit as f64)
        .then(|| format!("the tenant's quota is used up: {used:.1} of {limit} minutes of output were made today (UTC)")))
}
