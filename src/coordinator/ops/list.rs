//! A tenant's jobs, the newest first, page by page.

use super::found::{OpError, Scope};
use crate::coordinator::fleet::Fleet;
use crate::event::{Projection, State, Summary};
use crate::job::JobId;
use crate::store::key::Key;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

/// Jobs of one page, at most.
pub const MOST_JOBS: usize = 200;
/// Jobs that are looked at for one page: a rare state may need several pages that are not full.
const MOST_LOOKED_AT: usize = 1000;
/// States read at once.
const READS_AT_ONCE: usize = 16;

/// Which jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    pub state: Option<State>,
    /// At most [`MOST_JOBS`] count.
    pub limit: usize,
    /// [`Page::next`] of the page before.
    pub cursor: Option<String>,
}

/// Some jobs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Page {
    pub jobs: Vec<Summary>,
    /// The cursor of the next page; none after the last one. A page may have fewer jobs than were asked for, and a next
    /// one all the same.
    pub next: Option<String>,
}

/// A page of the scope's jobs; an operator's are ordered by tenant first.
///
/// # Errors
/// The cursor is none, or the store cannot be asked.
pub async fn list(fleet: &Fleet, scope: Scope<'_>, query: &ListQuery) -> Result<Page, OpError> {
    let folder = match scope {
        Scope::All => "index/".to_string(),
        Scope::Tenant(tenant) => Key::index_folder(tenant),
    };
    let limit = query.limit.clamp(1, MOST_JOBS);
    let mut after = query.cursor.as_deref().map(|cursor| place(cursor, &folder)).transpose()?;
    let (mut jobs, mut looked_at) = (Vec::new(), 0);
    loop {
        // One more than is wanted tells whether there is a next page.
        let paths = fleet.stores.work().list_after(&folder, after.as_deref(), limit + 1).await?;
        let is_last = paths.len() <= limit;
        let read = |path: String| async move {
            let Some(job) = Key::of_index(&path) else { return Ok((path, None)) };
            summary(fleet, &job).await.map(|summary| (path, summary))
        };
        let mut read = stream::iter(paths.into_iter().take(limit).map(read)).buffered(READS_AT_ONCE);
        while let Some((path, summary)) = read.try_next().await? {
            looked_at += 1;
            after = Some(path);
            jobs.extend(summary.filter(|s| query.state.is_none() || s.status.state == query.state));
            if jobs.len() >= limit {
                break;
            }
        }
        let is_full = jobs.len() >= limit;
        if is_full || is_last || looked_at >= MOST_LOOKED_AT {
            let is_more = if is_full { has_more(fleet, &folder, after.as_deref()).await? } else { !is_last };
            let next = after.filter(|_| is_more).map(|path| URL_SAFE_NO_PAD.encode(&path[folder.len()..]));
            return Ok(Page { jobs, next });
        }
    }
}

async fn has_more(fleet: &Fleet, folder: &str, after: Option<&str>) -> Result<bool, OpError> {
    Ok(!fleet.stores.work().list_after(folder, after, 1).await?.is_empty())
}

/// The state of a job in the list; none of one that was purged since.
async fn summary(fleet: &Fleet, job: &JobId) -> Result<Option<Summary>, OpError> {
    Ok(fleet.stores.work().get_json::<Projection>(&Key::status(job)).await?.map(|projection| projection.summary()))
}

/// The path that a cursor stands for.
fn place(cursor: &str, folder: &str) -> Result<String, OpError> {
    let wrong = || OpError::invalid("cursor", "is none that a list gave; begin without one");
    let name = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(wrong)?;
    let path = format!("{folder}{name}");
    if Key::of_index(&path).is_none() || name.contains("..") { Err(wrong()) } else { Ok(path) }
}
