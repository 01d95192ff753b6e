//! The part `probe`: the facts of the source, and the plan that follows from them.

use super::accepted::Accepted;
use super::child::{self, unexpected};
use super::error::PartError;
use super::scratch::Scratch;
use super::tools::{Attempt, Tools};
use super::upload;
use crate::event::Cause;
use crate::plan::marker::{Marker, PartResult};
use crate::plan::{self, PlanError};
use crate::probe::Probe;
use crate::sandbox::protocol::{Report, Task, packet_table_file};
use crate::store::key::Key;

pub(super) async fn run(tools: &Tools, accepted: &Accepted, attempt: &mut Attempt) -> Result<Marker, PartError> {
    let source = child::source(tools, accepted).await?;
    let worked = child::run(tools, accepted, attempt, Task::Probe, vec![source]).await?;
    drop(attempt.permit.take());
    let Report::Probe(probe) = worked.report else { return Err(unexpected(attempt.part, "no probe")) };
    let plan = plan::make(&accepted.job, &probe, &accepted.preset).map_err(|e| match e {
        PlanError::Preset(message) => PartError::reject(Cause::Settings, message),
        PlanError::Media(message) => PartError::reject(Cause::Media, message),
    })?;
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
