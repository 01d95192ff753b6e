//! After a part: what it releases, or the end of the job.
//!
//! A part in the middle of a stage releases the one `window` further on, which needs the plan only. A part that releases
//! none is the end of such a chain: it lists the markers and reconciles. Every chain ends, the last one to end sees all
//! markers, so somebody always publishes the next stage.

use super::accepted::Accepted;
use super::error::PartError;
use super::tools::{Planned, Tools};
use super::{class, finish, markers};
use crate::event::{ClassState, Fact, Stage};
use crate::job::Class;
use crate::plan::Revision;
use crate::plan::marker::PartId;
use crate::reconcile::{self, Step, classes, stages};

/// Publishes what follows from `part` being done in class `made_in`.
pub(super) async fn after(tools: &Tools, accepted: &Accepted, part: PartId, made_in: Class) -> Result<(), PartError> {
    let planned = match part.revises() {
        Some(revision) => tools.planned(accepted, revision).await?,
        None => tools.planned_for(accepted, part).await?,
    };
    let class = tools.class(accepted).await?;
    if part.class(class) != made_in {
        // The job fell back meanwhile, and whoever wrote that asked for what it needs.
        return Ok(());
    }
    if let Some(released) = reconcile::released_by(&planned.plan, part, tools.settings.window) {
        return Ok(tools.publish(&accepted.id, accepted.job.lane, class, &[released]).await?);
    }
    if part == PartId::Probe && class.is_device() {
        class::tell(tools, accepted, ClassState::Chosen).await?;
    }
    for fact in stages::passed(&planned.plan, part) {
        tools.tell(&accepted.id, &accepted.job.tenant, fact).await?;
    }
    // After the probe everything that should be out is published: this is how a job broken off is taken up.
    let finished = (part != PartId::Probe).then_some(part);
    step(tools, &planned, finished, class).await
}

/// Asks for everything that should be out and has no marker, in the class that is in force.
pub(super) async fn resume(tools: &Tools, accepted: &Accepted) -> Result<(), PartError> {
    let planned = tools.planned(accepted, Revision::Draft).await?;
    let class = tools.class(accepted).await?;
    step(tools, &planned, None, class).await
}

/// Are all chunks of this class, and everything else, there to be packaged?
pub(super) async fn may_package(tools: &Tools, accepted: &Accepted, class: Class) -> Result<bool, PartError> {
    let planned = tools.planned(accepted, PartId::Package.works_by()).await?;
    let done = markers::done(tools, &accepted.id, class).await?;
    Ok(classes::may_package(&planned.plan, &done))
}

async fn step(tools: &Tools, planned: &Planned, finished: Option<PartId>, class: Class) -> Result<(), PartError> {
    let (id, job) = (planned.id(), &planned.accepted.job);
    let done = markers::done(tools, id, class).await?;
    match reconcile::reconcile(Some(&planned.plan), &done, finished, tools.settings.window) {
        Step::Publish(parts) => {
            for fact in stages::begun(&planned.plan, &parts) {
                tools.tell(id, &job.tenant, fact).await?;
            }
            Ok(tools.publish(id, job.lane, class, &parts).await?)
        }
        Step::Finish => {
            tools.tell(id, &job.tenant, Fact::StageCompleted { stage: Stage::Package }).await?;
            finish::complete(tools, &planned.accepted).await
        }
        Step::Wait => Ok(()),
    }
}
