//! The parts `survey`, `decide`, `adjust` and `verify`: from what the parts before them found to the next revision of the
//! plan. They run no child.
//!
//! A revision stays: a second attempt finds the plan by which others may be working already, and leaves it.

use super::error::PartError;
use super::markers;
use super::tools::{Attempt, Planned, Tools};
use crate::event::Cause;
use crate::job::Class;
use crate::observe::Judged;
use crate::plan::marker::{Marker, PartId, PartResult};
use crate::plan::{self, PlanError, Revised, Revision};
use crate::reconcile;
use crate::sandbox::protocol::{AnalyseReport, CalibrateReport, EncodeReport};
use crate::store::key::Key;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

pub(super) async fn run(tools: &Tools, planned: &Arc<Planned>, attempt: &mut Attempt) -> Result<Marker, PartError> {
    let started = Instant::now();
    drop(attempt.permit.take());
    let Some(revision) = attempt.part.revises().filter(|_| planned.plan.narrowband().is_some()) else {
        return Err(PartError::Poison(format!("{}: the plan has no such part", attempt.part)));
    };
    if planned.plan.revision() < revision {
        write(tools, planned, revision, attempt.part).await?;
    }
    Ok(Marker {
        part: attempt.part,
        objects: Vec::new(),
        result: PartResult::Revise,
        attempt: attempt.number,
        wall_s: started.elapsed().as_secs_f64(),
        cpu_s: 0.0,
        peak_bytes: 0,
    })
}

async fn write(tools: &Tools, planned: &Arc<Planned>, revision: Revision, part: PartId) -> Result<(), PartError> {
    let id = planned.id();
    let key = Key::revision(id, revision);
    // The plan that is known here may be an earlier one.
    if tools.stores.work().size(&key).await?.is_some() {
        return Ok(());
    }
    let markers = markers::all(tools, id, Class::Cpu).await?;
    let known: BTreeSet<PartId> = markers.iter().map(|marker| marker.part).collect();
    if let Some(part) = reconcile::before(&planned.plan, part).into_iter().find(|part| !known.contains(part)) {
        return Err(PartError::Retry(format!("{part} is not done")));
    }
    let found = Arc::new(Found::of(markers));
    let (basis, told) = (Arc::clone(planned), Arc::clone(&found));
    // Seconds of a film of two hours: nothing else is to wait for it.
    let revising = tokio::task::spawn_blocking(move || revise(&basis, revision, &told));
    let revised = revising.await.map_err(|e| PartError::Crash(format!("{part}: {e}")))??;
    tools.stores.work().put_json(&key, &revised).await?;
    match (revision, planned.plan.narrowband()) {
        (Revision::Adjusted, Some(narrowband)) => judge(tools, planned, &found, |chunk| narrowband.pilots.contains(&chunk)),
        // What pilots were planned to be worth is no longer in the plan.
        (Revision::Verified, Some(narrowband)) => judge(tools, planned, &found, |chunk| !narrowband.pilots.contains(&chunk)),
        _ => {}
    }
    Ok(())
}

fn revise(planned: &Planned, revision: Revision, found: &Found) -> Result<Revised, PartError> {
    let (plan, probe, preset) = (&planned.plan, &planned.probe, &planned.accepted.preset);
    let revised = match revision {
        Revision::Draft => return Err(PartError::Poison("a draft is no revision".into())),
        Revision::Surveyed => plan::surveyed(plan, probe, preset, &found.analyses),
        Revision::Decided => plan::decided(plan, probe, preset, &found.analyses, &found.calibrations),
        Revision::Adjusted | Revision::Verified => {
            let decided = Revised { plan: plan.clone(), grounds: planned.grounds.clone() };
            let revise = if revision == Revision::Adjusted { plan::adjusted } else { plan::verified };
            revise(&decided, probe, preset, &found.encodes)
        }
    };
    revised.map_err(|e| match e {
        PlanError::Preset(message) => PartError::reject(Cause::Settings, message),
        PlanError::Media(message) => PartError::reject(Cause::Media, message),
    })
}

/// Says what the top rung was planned to be worth in each chunk, and what it is, before anything is repaired.
fn judge(tools: &Tools, planned: &Planned, found: &Found, is_asked: impl Fn(u32) -> bool) {
    let Some(top) = planned.grounds.as_ref().and_then(|grounds| grounds.decision.rungs.first()) else { return };
    for report in found.encodes.iter().filter(|report| is_asked(report.chunk)) {
        if let (Some(chunk), Some(measured)) = (top.chunks.get(report.chunk as usize), &report.measured) {
            let (preset, measured) = (planned.accepted.job.preset.as_str(), measured.vmaf_neg);
            tools.observer.judged(&Judged { preset, height: top.height, planned: chunk.predicted_vmaf, measured });
        }
    }
}

/// What the parts up to now found.
#[derive(Default)]
struct Found {
    analyses: Vec<AnalyseReport>,
    calibrations: Vec<CalibrateReport>,
    encodes: Vec<EncodeReport>,
}

impl Found {
    fn of(markers: Vec<Marker>) -> Self {
        let mut found = Self::default();
        for marker in markers {
            match (marker.result, marker.part) {
                (PartResult::Analyse(report), _) => found.analyses.push(report),
                (PartResult::Calibrate(report), _) => found.calibrations.push(report),
                (PartResult::Encode(report), PartId::Encode(_)) => found.encodes.push(report),
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::tools::Spent;
    use super::*;
    use crate::event::State;
    use crate::shutdown;
    use crate::worker::fake::{Act, FakeChildren, Site, id, job};

    #[tokio::test]
    async fn what_is_decided_stays_although_a_worker_that_knows_an_earlier_plan_decides_again() {
        let (site, children) = (Site::new(), FakeChildren::new(|_, _| Act::Work));
        let mut process = site.start(&children);
        assert_eq!(process.until_ended(&job("narrowband-h264")).await, State::Completed);
        let later = [Revision::Decided, Revision::Adjusted, Revision::Verified]
            .map(|r| site.dir.path().join("work").join(Key::revision(&id(), r).path()));
        let aside = |path: &std::path::Path| path.with_extension("aside");
        let there: Vec<_> = later.iter().filter(|path| path.exists()).collect();
        assert!(there.len() > 1, "{later:?}");
        // Another worker, which knows the plan from when it was surveyed.
        let other = site.start(&children);
        there.iter().for_each(|path| std::fs::rename(path, aside(path)).unwrap());
        let accepted = other.tools.accepted(&id()).await.unwrap();
        assert_eq!(other.tools.planned(&accepted, Revision::Surveyed).await.unwrap().plan.revision(), Revision::Surveyed);
        there.iter().for_each(|path| std::fs::rename(aside(path), path).unwrap());
        // As nobody would decide it: whoever writes it again is found out.
        std::fs::write(&later[0], "{}").unwrap();

        let planned = other.tools.planned_for(&accepted, PartId::Decide).await.unwrap();
        assert_eq!(planned.plan.revision(), Revision::Surveyed, "from memory");
        let (part, class, (_stopper, stop)) = (PartId::Decide, Class::Cpu, shutdown::channel());
        let mut attempt =
            Attempt { part, class, device: None, number: 1, redelivered: true, permit: None, stop, spent: Spent::default() };
        let marker = run(&other.tools, &planned, &mut attempt).await.unwrap();
        assert_eq!((marker.part, std::fs::read(&later[0]).unwrap()), (PartId::Decide, b"{}".to_vec()));
    }
}
