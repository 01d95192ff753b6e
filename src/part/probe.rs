//! The part `probe`: the facts of the source, and the plan that follows from them.

use super::accepted::Accepted;
use super::child::{self, unexpected};
use super::error::PartError;
use super::tools::{Attempt, Tools};
use crate::event::Cause;
use crate::plan::marker::{Marker, PartResult};
use crate::plan::{self, PlanError};
use crate::sandbox::protocol::{Report, Task};
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
