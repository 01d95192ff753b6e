//! The part `probe`: the facts of the source, and the plan that follows from them.

use super::accepted::Accepted;
use super::child::{self, unexpected};
use super::class;
use super::error::PartError;
use super::scratch::Scratch;
use super::tools::{Attempt, Tools};
use super::upload;
use crate::event::{Cause, ClassState};
use crate::plan::marker::{Marker, PartResult};
use crate::plan::{self, Plan, PlanError};
use crate::probe::Probe;
use crate::sandbox::protocol::{Report, Task, packet_table_file};
use crate::store::key::Key;

pub(super) async fn run(tools: &Tools, accepted: &Accepted, attempt: &mut Attempt) -> Result<Marker, PartError> {
    let source = child::source(tools, accepted).await?;
    let worked = child::run(tools, accepted, attempt, Task::Probe, vec![source]).await?;
    drop(attempt.permit.take());
    let Report::Probe(probe) = worked.report else { return Err(unexpected(attempt.part, "no probe")) };
    let plan = plan::make(&accepted.job, &probe, &accepted.preset).map_err(refused)?;
    let plan = if accepted.class.is_device() { with_device(tools, accepted, &probe, plan).await? } else { plan };
    if let Some(video) = &plan.video {
        upload_table(tools, accepted, &worked.scratch, &probe, video.stream).await?;
    }
    tools.stores.work().put_json(&Key::probe(&accepted.id), &probe).await?;
    tools.stores.work().put_json(&Key::plan(&accepted.id), &plan).await?;
    Ok(Marker {
        part: attempt.part,
        objects: Vec::new(),
        result: PartResult::Probe,
        attempt: attempt.number,
        wall_s: worked.wall_s,
        cpu_s: worked.cpu_s,
        peak_bytes: worked.peak_bytes,
    })
}

fn refused(error: PlanError) -> PartError {
    match error {
        PlanError::Preset(message) => PartError::reject(Cause::Settings, message),
        PlanError::Media(message) => PartError::reject(Cause::Media, message),
    }
}

/// The plan with the rungs of the job's class; where that takes no such picture, the job is encoded in software if it may be.
async fn with_device(tools: &Tools, accepted: &Accepted, probe: &Probe, plan: Plan) -> Result<Plan, PartError> {
    match plan::on_device(plan.clone(), probe, &accepted.preset, accepted.class) {
        Err(error) if class::may_fall_back(accepted) => {
            class::write_fall_back(tools.stores.work(), accepted, &error.to_string()).await?;
            class::tell(tools, accepted, ClassState::FellBack).await?;
            Ok(plan)
        }
        planned => planned.map_err(refused),
    }
}

/// Uploads the packet table of the stream that is encoded, where it has one.
async fn upload_table(
    tools: &Tools,
    accepted: &Accepted,
    scratch: &Scratch,
    probe: &Probe,
    stream: usize,
) -> Result<(), PartError> {
    if !probe.video.iter().any(|video| video.index == stream && video.table.is_some()) {
        return Ok(());
    }
    let file = upload::inside(scratch, &packet_table_file(stream))?;
    Ok(tools.stores.work().put_file(&Key::packets(&accepted.id, stream), &file).await?)
}
