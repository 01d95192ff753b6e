//! The markers of a job: which parts are done, and what they say.

use super::error::PartError;
use super::tools::Tools;
use crate::job::JobId;
use crate::plan::marker::{Marker, PartId};
use crate::store::key::Key;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeSet;

/// Markers read at once.
const READS_AT_ONCE: usize = 16;

/// The parts that have their marker.
pub(super) async fn done(tools: &Tools, job: &JobId) -> Result<BTreeSet<PartId>, PartError> {
    let paths = tools.stores.work().list(&Key::markers(job)).await?;
    Ok(paths.iter().filter_map(|path| Key::part_of_marker(job, path)).collect())
}

/// Every marker there is, in the order of the parts.
pub(super) async fn all(tools: &Tools, job: &JobId) -> Result<Vec<Marker>, PartError> {
    let read = |part| async move {
        let marker = tools.stores.work().get_json::<Marker>(&Key::marker(job, part)).await?;
        marker.ok_or_else(|| PartError::Retry(format!("the marker of {part} vanished")))
    };
    stream::iter(done(tools, job).await?.into_iter().map(read)).buffered(READS_AT_ONCE).try_collect().await
}
