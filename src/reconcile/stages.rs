//! What is told of the stages of a job, as its parts are done and published. Pure.

use super::before;
use crate::event::{Fact, Stage};
use crate::plan::Plan;
use crate::plan::marker::PartId;
use crate::plan::time::seconds;

/// What is told of stages once `part` is done. After the probe of a job that is taken up it may be told again, for whoever
/// listens anew.
pub fn passed(plan: &Plan, part: PartId) -> Vec<Fact> {
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

/// What is told of stages when these parts are published.
pub fn begun(plan: &Plan, parts: &[PartId]) -> Vec<Fact> {
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
    plan.narrowband()?;
    // And what closes either step: the survey, the decision.
    let parts = (before(plan, PartId::Survey).len() + before(plan, PartId::Decide).len() + 2) as u64;
    Some(Fact::StageStarted { stage: Stage::Analyse, parts, frames: 0, media_s: media_s(plan) })
}

/// Likewise.
fn verify_started(plan: &Plan) -> Fact {
    let repairs = plan.narrowband().and_then(|narrowband| narrowband.repairs.as_ref()).map_or(0, Vec::len);
    let parts = repairs as u64 + 1;
    Fact::StageStarted { stage: Stage::Verify, parts, frames: 0, media_s: 0.0 }
}

fn encode_started(plan: &Plan) -> Fact {
    let frames = plan.video.as_ref().map_or(0, |v| v.expected_frames * v.rungs.len() as u64);
    let adjusts = plan.narrowband().is_some_and(|narrowband| !narrowband.pilots.is_empty());
    let parts = super::work(plan).len() as u64 + u64::from(adjusts);
    Fact::StageStarted { stage: Stage::Encode, parts, frames, media_s: media_s(plan) }
}

fn media_s(plan: &Plan) -> f64 {
    plan.video.as_ref().map_or(0.0, |v| seconds(v.expected_frames as i64, v.frame_rate.inverse()))
}
