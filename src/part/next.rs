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
    let planned = tools.planned(accepted, part.revises().unwrap_or(part.works_by())).await?;
    if let Some(released) = reconcile::released_by(&planned.plan, part, tools.settings.window) {
        return Ok(tools.publish(&accepted.id, accepted.job.lane, &[released]).await?);
    }
    for fact in stages_passed(&planned.plan, part) {
        tools.tell(&accepted.id, &accepted.job.tenant, fact).await?;
    }
    // After the probe everything that should be out is published: this is how a job broken off is taken up.
    let finished = (part != PartId::Probe).then_some(part);
    step(tools, &planned, finished).await
}

/// What is told of stages once `part` is done. After the probe of a job that is taken up it may be told again, for whoever
/// listens anew.
fn stages_passed(plan: &Plan, part: PartId) -> Vec<Fact> {
    let mut facts = Vec::new();
    if part == PartId::Probe {
        facts.push(Fact::StageCompleted { stage: Stage::Probe });
    }
    if matches!(part, PartId::Probe | PartId::Survey) {
        facts.extend(analyse_started(plan));
    }
    let begins_work = matches!(part, PartId::Probe | PartId::Decide) && plan.is_decided();
    if begins_work {
        facts.extend(plan.narrowband().map(|_| Fact::StageCompleted { stage: Stage::Analyse }));
        facts.push(encode_started(plan));
    }
    if part == PartId::Verify {
        facts.push(verify_started(plan));
    }
    facts
}

async fn step(tools: &Tools, planned: &Planned, finished: Option<PartId>) -> Result<(), PartError> {
    let (id, job) = (planned.id(), &planned.accepted.job);
    let done = markers::done(tools, id).await?;
    match reconcile::reconcile(Some(&planned.plan), &done, finished, tools.settings.window) {
        Step::Publish(parts) => {
            for fact in stages_begun(&planned.plan, &parts) {
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

/// What is told of stages when these parts are published.
fn stages_begun(plan: &Plan, parts: &[PartId]) -> Vec<Fact> {
    match parts {
        [PartId::Verify] => vec![Fact::StageCompleted { stage: Stage::Encode }, verify_started(plan)],
        [PartId::Package] => {
            let passed = if plan.narrowband().is_some() { Stage::Verify } else { Stage::Encode };
            let started = Fact::StageStarted { stage: Stage::Package, parts: 1, frames: 0, media_s: 0.0 };
            vec![Fact::StageCompleted { stage: passed }, started]
        }
        _ => Vec::new(),
    }
}

/// Told anew as more of the stage's parts are known.
fn analyse_started(plan: &Plan) -> Option<Fact> {
    let narrowband = plan.narrowband()?;
    let analyses = plan.video.as_ref().map_or(0, |video| video.chunks.len());
    let calibrations = narrowband.calibrations.as_ref().map_or(0, Vec::len);
    // And what closes either step: the survey, the decision.
    let parts = (analyses + calibrations + 2) as u64;
    Some(Fact::StageStarted { stage: Stage::Analyse, parts, frames: 0, media_s: media_s(plan) })
}

/// Likewise.
fn verify_started(plan: &Plan) -> Fact {
    let repairs = plan.narrowband().and_then(|narrowband| narrowband.repairs.as_ref()).map_or(0, Vec::len);
    Fact::StageStarted { stage: Stage::Verify, parts: repairs as u64 + 1, frames: 0, media_s: 0.0 }
}

fn encode_started(plan: &Plan) -> Fact {
    let chunks = plan.video.as_ref().map_or(0, |v| v.chunks.len());
    let frames = plan.video.as_ref().map_or(0, |v| v.expected_frames * v.rungs.len() as u64);
    let parts = (chunks + plan.audio.len()) as u64;
    Fact::StageStarted { stage: Stage::Encode, parts, frames, media_s: media_s(plan) }
}

fn media_s(plan: &Plan) -> f64 {
    plan.video.as_ref().map_or(0.0, |v| seconds(v.expected_frames as i64, v.frame_rate.inverse()))
}
