//! The part `calibrate/<n>`: the beginning of one chunk with the final settings.

use super::child::{self, unexpected};
use super::encode;
use super::error::PartError;
use super::tools::{Attempt, Planned, Tools};
use crate::plan::make;
use crate::plan::marker::{Marker, PartResult};
use crate::sandbox::protocol::{CalibrateReport, CalibrateTask, Report, Task};

pub(super) async fn run(tools: &Tools, planned: &Planned, chunk: u32, attempt: &mut Attempt) -> Result<Marker, PartError> {
    let mut wanted = planned.plan.narrowband().into_iter().flat_map(|narrowband| narrowband.calibrations.iter().flatten());
    let Some(wanted) = wanted.find(|wanted| wanted.chunk == chunk) else {
        return Err(PartError::Poison(format!("{}: the plan has no such part", attempt.part)));
    };
    let mut task = make::calibrate_task(&planned.plan, &planned.probe, wanted, tools.settings.threads_per_slot);
    let inputs = encode::inputs(tools, planned, &mut task.encode).await?;
    let worked = child::run(tools, &planned.accepted, attempt, Task::Calibrate(Box::new(task.clone())), inputs).await?;
    drop(attempt.permit.take());
    let Report::Calibrate(report) = worked.report else { return Err(unexpected(attempt.part, "no calibration")) };
    check(&report, &task).map_err(|what| unexpected(attempt.part, &what))?;
    Ok(Marker {
        part: attempt.part,
        objects: Vec::new(),
        result: PartResult::Calibrate(report),
        attempt: attempt.number,
        wall_s: worked.wall_s,
        cpu_s: worked.cpu_s,
        peak_bytes: worked.peak_bytes,
    })
}

/// The report is about this chunk, and claims no more than it was asked for.
fn check(report: &CalibrateReport, task: &CalibrateTask) -> Result<(), String> {
    let chunk = &task.encode.chunk;
    if report.chunk != chunk.index {
        return Err(format!("chunk {} for chunk {}", report.chunk, chunk.index));
    }
    if let Some(of) = report.finals.iter().find(|of| !task.finals.contains(&of.point.crf)) {
        return Err(format!("an encode at CRF {} for {:?}", of.point.crf, task.finals));
    }
    if let Some(probe) = report.probes.iter().find(|probe| !task.probes.contains(&probe.crf)) {
        return Err(format!("a probe at CRF {} for {:?}", probe.crf, task.probes));
    }
    let sizes = || task.encode.rungs.iter().map(|rung| (rung.width, rung.height));
    if let Some(of) = report.scaled.iter().find(|of| !sizes().any(|size| size == (of.width, of.height))) {
        return Err(format!("scaled to {}x{}, which was not asked", of.width, of.height));
    }
    if report.frames > task.frames {
        return Err(format!("{} frames for {}", report.frames, task.frames));
    }
    Ok(())
}
