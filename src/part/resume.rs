//! Taking up a job that was broken off.

use super::accepted::Accepted;
use super::error::PartError;
use super::finish::{self, JobResult};
use super::tools::{Planned, Tools};
use super::upload::MediaPlace;
use super::usage;
use crate::plan::Revision;
use crate::plan::marker::{Marker, Object, PartId};
use crate::store::key::Key;
use std::collections::BTreeMap;

/// What there is of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or not even its plan.
    New,
    /// Parts that are done and whose objects are all there, with the video frames each made.
    Begun { parts: BTreeMap<PartId, u64> },
    /// It is complete and everything it made is there.
    Complete,
    /// The id belongs to another job, or to this one with another source.
    Foreign,
}

/// Looks at what an earlier run left, and removes what cannot be relied on: a result that is none, and markers whose
/// objects are gone. After this the job may be submitted.
///
/// # Errors
/// The stores cannot be asked.
pub async fn look(tools: &Tools, accepted: &Accepted) -> Result<Found, PartError> {
    let (id, work) = (&accepted.id, tools.stores.work());
    if work.get_json::<Accepted>(&Key::job(id)).await?.is_some_and(|known| !known.is_same(accepted)) {
        return Ok(Found::Foreign);
    }
    if let Some(JobResult::Completed { objects }) = finish::result(tools, id).await?
        && all_there(tools, accepted, &objects).await?
    {
        return Ok(Found::Complete);
    }
    work.delete(&Key::result(id)).await?;
    // A new run has all its tries.
    usage::forget_waste(tools, id).await?;
    work.delete(&Key::marker(id, PartId::Package)).await?;
    let planned = match tools.planned(accepted, Revision::Draft).await {
        Ok(planned) => planned,
        Err(PartError::Crash(_)) => {
            work.delete(&Key::marker(id, PartId::Probe)).await?;
            return Ok(Found::New);
        }
        Err(e) => return Err(e),
    };
    for part in [PartId::Survey, PartId::Decide, PartId::Adjust, PartId::Verify] {
        // What was decided is gone, if it was.
        if part.revises().is_some_and(|revision| planned.plan.revision() < revision) {
            work.delete(&Key::marker(id, part)).await?;
        }
    }
    let mut parts = BTreeMap::new();
    for path in work.list(&Key::markers(id)).await? {
        let Some(part) = Key::part_of_marker(id, &path) else { continue };
        let key = Key::marker(id, part);
        let frames = match work.get_json::<Marker>(&key).await {
            Ok(Some(marker)) if stands(tools, &planned, &marker).await? => Some(super::frames(&marker)),
            Err(e) if e.is_temporary() => return Err(e.into()),
            _ => None,
        };
        match frames {
            Some(frames) => {
                parts.insert(part, frames);
            }
            None => {
                tracing::info!(job = %id, %part, "objects are gone; the part is done again");
                work.delete(&key).await?;
            }
        }
    }
    Ok(if parts.is_empty() { Found::New } else { Found::Begun { parts } })
}

async fn stands(tools: &Tools, planned: &Planned, marker: &Marker) -> Result<bool, PartError> {
    let place = MediaPlace::of(tools, planned)?;
    for object in &marker.objects {
        if place.store().size(&place.key(planned, &object.path)?).await? != Some(object.bytes) {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn all_there(tools: &Tools, accepted: &Accepted, objects: &[Object]) -> Result<bool, PartError> {
    let output = tools.output(accepted)?;
    for object in objects {
        let key = Key::output(&object.path).map_err(|e| PartError::Crash(e.to_string()))?;
        if output.size(&key).await? != Some(object.bytes) {
            return Ok(false);
        }
    }
    Ok(true)
}
