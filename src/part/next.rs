//! After a part: what it releases, or the end of the job.
//!
//! A part in the middle of a stage releases the one `window` further on, which needs the plan only. A part that releases
//! none is the end of such a chain: it lists the markers and reconciles. Every chain ends, the last one to end sees all
//! markers, so somebody always publishes the next stage.

use super::accepted::Accepted;
use super::error::PartError;
use super::tools::{Planned, Tools};
use super::{finish, markers};
use crate::event::{Fact, Stage};
use crate::plan::marker::PartId;
use crate::reconcile::{self, Step, stages};

/// Publishes what follows from `part` being done.
pub(super) async fn after(tools: &Tools, accepted: &Accepted, part: PartId) -> Result<(), PartError> {
    let planned = tools.planned(accepted, part.revises().unwrap_or(part.works_by())).await?;
    if let Some(released) = reconcile::released_by(&planned.plan, part, tools.settings.window) {
        return Ok(tools.publish(&accepted.id, accepted.job.lane, &[released]).await?);
    }
    for fact in stages::passed(&planned.plan, part) {
        tools.tell(&accepted.id, &accepted.job.tenant, fact).await?;
    }
    // After the probe everything that should be out is published: this is how a job broken off is taken up.
    let finished = (part != PartId::Probe).then_some(part);
    step(tools, &planned, finished).await
}

async fn step(tools: &Tools, planned: &Planned, finished: Option<PartId>) -> Result<(), PartError> {
    let (id, job) = (planned.id(), &planned.accepted.job);
    let done = markers::done(tools, id).await?;
    match reconcile::reconcile(Some(&planned.plan), &done, finished, tools.settings.window) {
        Step::Publish(parts) => {
            for fact in stages::begun(&planned.plan, &parts) {
                tools.tell(id, &job.tenant, fact).await?;
            }
            Ok(tools.publish(id, job.lane, &parts).await?)
        }
        Step::Finish => {
            tools.tell(id, &job.tenant, Fact::StageCompleted { stage: Stage::Package }).await?;
            finish::complete(tools, &planned.accepted).await
        }
        Step::Wait => Ok(()),
    }
}
