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
use crate::plan::Plan;
use crate::plan::marker::PartId;
use crate::plan::time::seconds;
use crate::reconcile::{self, Step};

/// Publishes what follows from `part` being done.
pub(super) async fn after(tools: &Tools, accepted: &Accepted, part: PartId) -> Result<(), PartError> {
    let planned = tools.planned(accepted).await?;
    if let Some(released) = reconcile::released_by(&planned.plan, part, tools.settings.window) {
        return Ok(tools.publish(&accepted.id, accepted.job.lane, &[released]).await?);
    }
    if part == PartId::Probe {
        tools.tell(&accepted.id, &accepted.job.tenant, Fact::StageCompleted { stage: Stage::Probe }).await?;
        tools.tell(&accepted.id, &accepted.job.tenant, encode_started(&planned.plan)).await?;
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
            if parts.contains(&PartId::Package) {
                tools.tell(id, &job.tenant, Fact::StageCompleted { stage: Stage::Encode }).await?;
                let started = Fact::StageStarted { stage: Stage::Package, parts: 1, frames: 0, media_s: 0.0 };
                tools.tell(id, &job.tenant, started).await?;
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

fn encode_started(plan: &Plan) -> Fact {
    let chunks = plan.video.as_ref().map_or(0, |v| v.chunks.len());
    let frames = plan.video.as_ref().map_or(0, |v| v.expected_frames * v.rungs.len() as u64);
    let media_s = plan.video.as_ref().map_or(0.0, |v| seconds(v.expected_frames as i64, v.frame_rate.inverse()));
    let parts = (chunks + plan.audio.len()) as u64;
    Fact::StageStarted { stage: Stage::Encode, parts, frames, media_s }
}
