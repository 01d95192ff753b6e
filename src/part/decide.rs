//! The part `decide`: from what analysis found to the decided plan. It runs no child.
//!
//! What was decided stays: a second attempt finds the plan by which others may be encoding already, and leaves it.

use super::error::PartError;
use super::markers;
use super::tools::{Attempt, Planned, Tools};
use crate::event::Cause;
use crate::plan::marker::{Marker, PartId, PartResult};
use crate::plan::{self, PlanError};
use crate::reconcile;
use crate::store::key::Key;
use std::collections::BTreeSet;
use std::time::Instant;

pub(super) async fn run(tools: &Tools, planned: &Planned, attempt: &mut Attempt) -> Result<Marker, PartError> {
    let started = Instant::now();
    drop(attempt.permit.take());
    if planned.plan.narrowband().is_none() {
        return Err(PartError::Poison(format!("{}: the plan has no such part", attempt.part)));
    }
    if planned.plan.is_draft() {
        write(tools, planned).await?;
    }
    Ok(Marker {
        part: attempt.part,
        objects: Vec::new(),
        result: PartResult::Decide,
        attempt: attempt.number,
        wall_s: started.elapsed().as_secs_f64(),
        cpu_s: 0.0,
        peak_bytes: 0,
    })
}

async fn write(tools: &Tools, planned: &Planned) -> Result<(), PartError> {
    let id = planned.id();
    let markers = markers::all(tools, id).await?;
    let known: BTreeSet<PartId> = markers.iter().map(|marker| marker.part).collect();
    if let Some(part) = reconcile::analysis(&planned.plan).into_iter().find(|part| !known.contains(part)) {
        return Err(PartError::Retry(format!("{part} is not done")));
    }
    let reports: Vec<_> = markers
        .into_iter()
        .filter_map(|marker| match marker.result {
            PartResult::Analyse(report) => Some(report),
            _ => None,
        })
        .collect();
    let (draft, probe, preset) = (&planned.plan, &planned.probe, &planned.accepted.preset);
    let decided = plan::decided(draft, probe, preset, &reports).map_err(|e| match e {
        PlanError::Preset(message) => PartError::reject(Cause::Settings, message),
        PlanError::Media(message) => PartError::reject(Cause::Media, message),
    })?;
    Ok(tools.stores.work().put_json(&Key::decided(id), &decided).await?)
}
