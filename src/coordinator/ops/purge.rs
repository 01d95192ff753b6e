//! Deleting everything that a job stored, and saying what that was.
//!
//! Of the customer's output folder only those objects are deleted that the job says it wrote: there may be others.
//! What was billed stays, and so does what an auditor must be able to find: the usage record.

use super::found::{Found, OpError, Scope, find};
use crate::coordinator::fleet::Fleet;
use crate::event::{State, rfc3339};
use crate::job::JobId;
use crate::part::REPORT_PATH;
use crate::part::accepted::Accepted;
use crate::part::finish::JobResult;
use crate::plan::marker::Marker;
use crate::store::key::Key;
use crate::store::{Store, StoreError};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use std::collections::BTreeSet;

/// Objects deleted at once.
const DELETES_AT_ONCE: usize = 16;
/// Paths that a report names; the others are counted.
const MOST_NAMED: usize = 10_000;
/// Jobs that a tenant's purge takes from the list at a time.
const JOBS_AT_A_TIME: usize = 200;

/// What a purge deleted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PurgeReport {
    /// The jobs that are gone.
    pub jobs: Vec<JobId>,
    pub objects: u64,
    pub bytes: u64,
    /// Paths of the deleted objects, `output:` before those under the job's output URI, `work:` before those of the
    /// work store. At most ten thousand.
    pub deleted: Vec<String>,
    /// Paths of what is kept: the usage records.
    pub kept: Vec<String>,
    /// Jobs that were left alone, and why.
    pub skipped: Vec<String>,
}

impl PurgeReport {
    fn gone(&mut self, place: &str, path: &str, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
        if self.deleted.len() < MOST_NAMED {
            self.deleted.push(format!("{place}:{path}"));
        }
    }
}

/// Deletes everything that a job stored. Repeated after it broke off, it deletes the rest.
///
/// # Errors
/// There is no such job for this scope, or it has not ended; cancel it first.
pub async fn purge(fleet: &Fleet, scope: Scope<'_>, job: &JobId) -> Result<PurgeReport, OpError> {
    let found = find(fleet, scope, job).await?;
    if !found.is_terminal() {
        return Err(OpError::Conflict("the job has not ended; cancel it, and purge it once it is canceled".into()));
    }
    let mut report = PurgeReport::default();
    delete(fleet, job, &found, &mut report).await?;
    Ok(report)
}

/// Deletes everything that a tenant's jobs stored; those that have not ended are left alone, and named.
///
/// # Errors
/// The stores cannot be reached; repeat it.
pub async fn purge_tenant(fleet: &Fleet, tenant: &str) -> Result<PurgeReport, OpError> {
    let mut report = PurgeReport::default();
    let folder = Key::index_folder(tenant);
    let mut after: Option<String> = None;
    loop {
        let paths = fleet.stores.work().list_after(&folder, after.as_deref(), JOBS_AT_A_TIME).await?;
        let Some(last) = paths.last().cloned() else { return Ok(report) };
        for job in paths.iter().filter_map(|path| Key::of_index(path)) {
            match find(fleet, Scope::Tenant(tenant), &job).await {
                Ok(found) if found.is_terminal() => delete(fleet, &job, &found, &mut report).await?,
                Ok(_) => report.skipped.push(format!("{job}: has not ended")),
                Err(OpError::NoJob(_)) => {}
                Err(e) => return Err(e),
            }
        }
        after = Some(last);
    }
}

async fn delete(fleet: &Fleet, job: &JobId, found: &Found, report: &mut PurgeReport) -> Result<(), OpError> {
    if let Some(accepted) = &found.accepted {
        delete_output(fleet, accepted, report).await?;
    }
    let work = fleet.stores.work();
    if let Some(projection) = &found.projection {
        if let (Some(ended), Some(state)) = (&projection.status.ended_at, projection.status.state)
            && state != State::Rejected
            && let Some(ended_ms) = rfc3339::parse(ended)
        {
            report.kept.push(Key::usage(&found.tenant, &rfc3339::day(ended_ms), job).path().to_string());
        }
        delete_one(work, &Key::index(&found.tenant, projection.first_ms, job), report).await?;
    }
    delete_one(work, &Key::open(&found.tenant, job), report).await?;
    delete_one(work, &Key::settling(&found.tenant, job), report).await?;
    if let Some(accepted) = &found.accepted {
        delete_one(work, &Key::waiting(&found.tenant, accepted.accepted_ms, job), report).await?;
        delete_one(work, &Key::index(&found.tenant, accepted.accepted_ms, job), report).await?;
    }
    // The job's own folder goes last, and in it the state: until then the purge can be repeated.
    for folder in [Key::events(job), Key::cursors(job), Key::exhausted_folder(&found.tenant, job), Key::job_folder(job)] {
        for gone in work.delete_under(&folder).await? {
            report.gone("work", &gone.path, gone.bytes);
        }
    }
    report.jobs.push(job.clone());
    Ok(())
}

/// Deletes what the job's result and markers name under its output URI.
async fn delete_output(fleet: &Fleet, accepted: &Accepted, report: &mut PurgeReport) -> Result<(), OpError> {
    let (work, id) = (fleet.stores.work(), &accepted.id);
    let mut paths: BTreeSet<String> = BTreeSet::from([REPORT_PATH.to_string()]);
    if let Some(JobResult::Completed { objects }) = work.get_json::<JobResult>(&Key::result(id)).await? {
        paths.extend(objects.into_iter().map(|object| object.path));
    }
    for path in work.list(&Key::markers(id)).await? {
        let Some(part) = Key::part_of_marker(id, &path) else { continue };
        match work.get_json::<Marker>(&Key::marker(id, part)).await {
            Ok(marker) => paths.extend(marker.into_iter().flat_map(|m| m.objects).map(|object| object.path)),
            // What a marker of another version named is not known any more; the rest is.
            Err(StoreError::Malformed { path, reason }) => report.skipped.push(format!("{path}: {reason}")),
            Err(e) => return Err(e.into()),
        }
    }
    let output = match fleet.stores.output(&accepted.job.tenant, &accepted.job.output.uri) {
        Ok(output) => output,
        Err(e) => {
            report.skipped.push(format!("{id}: its output cannot be reached: {e}"));
            return Ok(());
        }
    };
    let keys: Vec<Key> = paths.iter().filter_map(|path| Key::output(path).ok()).collect();
    let remove = |key: Key| {
        let output = output.clone();
        async move {
            let bytes = output.size(&key).await?;
            if bytes.is_some() {
                output.delete(&key).await?;
            }
            Ok::<_, StoreError>((key, bytes))
        }
    };
    let mut removed = stream::iter(keys.into_iter().map(remove)).buffered(DELETES_AT_ONCE);
    while let Some((key, bytes)) = removed.try_next().await? {
        if let Some(bytes) = bytes {
            report.gone("output", key.path(), bytes);
        }
    }
    Ok(())
}

async fn delete_one(store: &Store, key: &Key, report: &mut PurgeReport) -> Result<(), StoreError> {
    if let Some(bytes) = store.size(key).await? {
        store.delete(key).await?;
        report.gone("work", key.path(), bytes);
    }
    Ok(())
}
