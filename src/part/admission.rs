//! May a job be started now? The tenant's freeze and quotas, as far as the bucket knows of it.
//!
//! Quotas are soft: two submissions that are taken at the same moment by two workers do not see each other.

use super::accepted::Accepted;
use super::error::PartError;
use super::tools::{Mode, Tools, now_ms};
use crate::event::rfc3339;
use crate::job::JobId;
use crate::store::StoreError;
use crate::store::key::Key;
use crate::tenant::{Admission, Frozen, Tenant};
use crate::usage::Usage;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;

/// Usage records read at once when the minutes of a day are summed.
const READS_AT_ONCE: usize = 16;

/// What is looked at of a usage record.
#[derive(Default, Deserialize)]
struct Metered {
    usage: Usage,
}

/// What becomes of a job that is right in itself.
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
