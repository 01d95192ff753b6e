//! The part `analyse/<n>`: one chunk, known before it is encoded.

use super::child::{self, unexpected};
use super::encode;
use super::error::PartError;
use super::tools::{Attempt, Planned, Tools};
use crate::plan::make;
use crate::plan::marker::{Marker, PartResult};
use crate::sandbox::protocol::{AnalyseReport, AnalyseTask, Report, Task};

pub(super) async fn run(tools: &Tools, planned: &Planned, chunk: u32, attempt: &mut Attempt) -> Result<Marker, PartError> {
    let chunks = planned.plan.video.as_ref().map_or(0, |v| v.chunks.len());
    if planned.plan.narrowband().is_none() || chunk as usize >= chunks {
        return Err(PartError::Poison(format!("{}: the plan has no such part", attempt.part)));
    }
    let mut task = make::analyse_task(&planned.plan, &planned.probe, chunk, tools.settings.threads_per_slot);
    let inputs = encode::inputs(tools, planned, &mut task.encode).await?;
    let worked = child::run(tools, &planned.accepted, attempt, Task::Analyse(Box::new(task.clone())), inputs).await?;
    drop(attempt.permit.take());
    let Report::Analyse(report) = worked.report else { return Err(unexpected(attempt.part, "no analysis")) };
    check(&report, &task).map_err(|what| unexpected(attempt.part, &what))?;
    Ok(Marker {
        part: attempt.part,
        objects: Vec::new(),
        result: PartResult::Analyse(report),
        attempt: attempt.number,
        wall_s: worked.wall_s,
        cpu_s: worked.cpu_s,
        peak_bytes: worked.peak_bytes,
    })
}

/// The report is about this chunk, and claims no more than it was asked for.
fn check(report: &AnalyseReport, task: &AnalyseTask) -> Result<(), String> {
    let chunk = &task.encode.chunk;
    if report.chunk != chunk.index {
        return Err(format!("chunk {} for chunk {}", report.chunk, chunk.index));
    }
    if let Some(probe) = report.probes.iter().find(|probe| !task.crf.contains(&probe.crf)) {
        return Err(format!("a probe at CRF {} for {:?}", probe.crf, task.crf));
    }
    if report.cuts.len() as u64 > report.frames {
        return Err(format!("{} scenes in {} frames", report.cuts.len(), report.frames));
    }
    Ok(())
}
