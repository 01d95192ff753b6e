//! The markers of a job: which parts are done, and what they say.

use super::class;
use super::error::PartError;
use super::tools::Tools;
use crate::job::{Class, JobId};
use crate::plan::marker::{Marker, PartId};
use crate::store::key::Key;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeSet;

/// Markers read at once.
const READS_AT_ONCE: usize = 16;

/// The parts that have their marker, with the chunks of this class.
pub(super) async fn done(tools: &Tools, job: &JobId, class: Class) -> Result<BTreeSet<PartId>, PartError> {
    Ok(class::done(tools.stores.work(), job, class).await?)
}

/// Every marker there is of a job whose video is encoded in `class`, in the order of the parts.
pub(super) async fn all(tools: &Tools, job: &JobId, class: Class) -> Result<Vec<Marker>, PartError> {
    let read = |part| async move {
        let marker = tools.stores.work().get_json::<Marker>(&Key::marker_in(job, class, part)).await?;
        marker.ok_or_else(|| PartError::Retry(format!("the marker of {part} vanished")))
    };
    stream::iter(done(tools, job, class).await?.into_iter().map(read)).buffered(READS_AT_ONCE).try_collect().await
}
