//! What exists -> what to do next. Pure and level-triggered: called twice, late, or from two workers, it is harmless.
//!
//! The way of a job is `probe`, then its work (audio renditions and chunks), then `package`. Where content decides the
//! ladder, there are more stages, each closed by a part that revises the plan: the chunks are analysed and a `survey`
//! chooses what to calibrate; then `decide` says rungs and qualities; a few chunks, the pilots, are encoded, and `adjust` sets the
//! others right by them; the rest of the work follows (sound, too: its segments begin where the picture's do, and those are
//! decided); `verify` chooses what to encode once more; then comes `package`.
//!
//! Of a stage only a window is out at any time: finishing the part at place *i* releases the one at *i + window*, so that a
//! long film never drowns a short clip, and no state is kept but the markers.

pub mod classes;
pub mod stages;

use crate::plan::marker::PartId;
use crate::plan::{Plan, Revision};
use std::collections::BTreeSet;

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Publish these parts, in this order.
    Publish(Vec<PartId>),
    /// Every part is done: write the result.
    Finish,
    /// Others have work to do.
    Wait,
}

/// So many chunks at the end of a title go out longest first.
const TAIL_CHUNKS: usize = 16;

/// The work between probe and package, in the order it is released. Audio comes first: its parts are the longest. Then
/// the chunks as they are shown, but for the last ones: those go longest first, so that the slots run dry together.
pub fn work(plan: &Plan) -> Vec<PartId> {
    let mut chunks: Vec<u32> = Vec::new();
    if let Some(video) = &plan.video {
        chunks.extend(0..video.chunks.len() as u32);
        let tail = chunks.len().saturating_sub(TAIL_CHUNKS);
        chunks[tail..].sort_by_key(|&chunk| std::cmp::Reverse(video.chunk_ticks(chunk as usize)));
    }
    (0..plan.audio.len() as u32).map(PartId::Audio).chain(chunks.into_iter().map(PartId::Encode)).collect()
}

/// Parts that may be worked on side by side, in the order they are released, and the part that follows when all are done.
struct Group {
    parts: Vec<PartId>,
    closing: PartId,
}

/// The groups between probe and end that this revision of the plan knows of.
fn groups(plan: &Plan) -> Vec<Group> {
    let (Some(narrowband), Some(video)) = (plan.narrowband(), &plan.video) else {
        return vec![Group { parts: work(plan), closing: PartId::Package }];
    };
    let chunks = 0..video.chunks.len() as u32;
    let mut groups = vec![Group { parts: chunks.map(PartId::Analyse).collect(), closing: PartId::Survey }];
    if let Some(calibrations) = &narrowband.calibrations {
        let parts = calibrations.iter().map(|c| PartId::Calibrate(c.chunk)).collect();
        groups.push(Group { parts, closing: PartId::Decide });
    }
    let is_pilot = |part: &PartId| matches!(part, PartId::Encode(chunk) if narrowband.pilots.contains(chunk));
    if plan.is_decided() && !narrowband.pilots.is_empty() {
        let parts = work(plan).into_iter().filter(is_pilot).collect();
        groups.push(Group { parts, closing: PartId::Adjust });
    }
    // What is made for the customer is asked for to the end: where it has gone meanwhile it is made again.
    let (pilots, others): (Vec<PartId>, Vec<PartId>) = work(plan).into_iter().partition(is_pilot);
    let made = [pilots, others].concat();
    if plan.revision() >= Revision::Adjusted {
        groups.push(Group { parts: made.clone(), closing: PartId::Verify });
    }
    if plan.revision() == Revision::Verified {
        let repairs = narrowband.repairs.iter().flatten().map(|repair| PartId::Repair(repair.chunk));
        groups.push(Group { parts: made.into_iter().chain(repairs).collect(), closing: PartId::Package });
    }
    groups
}

/// The parts that must be done before `closing` may be.
pub fn before(plan: &Plan, closing: PartId) -> Vec<PartId> {
    groups(plan).into_iter().find(|stage| stage.closing == closing).map_or(Vec::new(), |stage| stage.parts)
}

/// What follows from the markers in `done`. The plan is its latest revision.
///
/// `finished` is the part whose marker was written just now: then only what it releases is published. Without it
/// (a stalled job, a job just accepted) everything that should be out and has no marker is published again.
///
/// `window` is how many work parts are out at once, at least 1. `done` must have been listed after the marker of
/// `finished` was written: of two workers that finish the last two parts at once, one at least then sees both.
pub fn reconcile(plan: Option<&Plan>, done: &BTreeSet<PartId>, finished: Option<PartId>, window: u32) -> Step {
    let (Some(plan), true) = (plan, done.contains(&PartId::Probe)) else {
        return Step::Publish(vec![PartId::Probe]);
    };
    if done.contains(&PartId::Package) {
        return Step::Finish;
    }
    let missing = missing(plan, done, window);
    let publish = match finished {
        Some(part) if part.number().is_some() && !is_next_stage(&missing) => {
            released_by(plan, part, window).into_iter().filter(|part| !done.contains(part)).collect()
        }
        _ => missing,
    };
    if publish.is_empty() { Step::Wait } else { Step::Publish(publish) }
}

/// Everything before is done: one part alone comes next.
fn is_next_stage(missing: &[PartId]) -> bool {
    matches!(missing, [part] if *part == PartId::Package || part.revises().is_some())
}

/// The part that may go out once `part` is done, besides those that were out already.
pub fn released_by(plan: &Plan, part: PartId, window: u32) -> Option<PartId> {
    part.number()?;
    let groups = groups(plan);
    // The latest that it is in: the earlier are closed.
    let mut places = groups.iter().rev().filter_map(|stage| Some((stage, stage.parts.iter().position(|other| *other == part)?)));
    let (stage, place) = places.next()?;
    stage.parts.get(place + window.max(1) as usize).copied()
}

/// Every part that should be out by now and has no marker: those of the window, or the one that closes the stage.
pub fn missing(plan: &Plan, done: &BTreeSet<PartId>, window: u32) -> Vec<PartId> {
    let groups = groups(plan);
    let Some((now, passed)) = groups.split_last() else { return Vec::new() };
    // Whoever closed a stage died before that was said: the part finds what it did.
    if let Some(stage) = passed.iter().find(|stage| !done.contains(&stage.closing)) {
        return vec![stage.closing];
    }
    let missing = out_of(&now.parts, done, window);
    // A marker of a closing part without its revision of the plan says nothing: it is done again.
    let is_closed = now.closing == PartId::Package && done.contains(&now.closing);
    if missing.is_empty() && !is_closed { vec![now.closing] } else { missing }
}

/// Those of the window that have no marker.
fn out_of(order: &[PartId], done: &BTreeSet<PartId>, window: u32) -> Vec<PartId> {
    let window = window.max(1) as usize;
    let is_out = |place: usize| place < window || done.contains(&order[place - window]);
    let out = order.iter().enumerate().filter(|(place, part)| is_out(*place) && !done.contains(part));
    out.map(|(_, part)| *part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::OnDamage;
    use crate::plan::preset::{DamageRules, Packaging};
    use crate::plan::time::Rational;
    use crate::plan::{
        AudioPlan, CalibrationPlan, Chunk, Filters, NarrowbandPlan, OutputColour, ProbePlan, RepairPlan, Rung, VideoPlan, encoder,
    };
    use crate::probe::Clock;
    use proptest::prelude::*;

    fn plan(audio: usize, chunks: u32) -> Plan {
        let rendition = AudioPlan {
            name: String::new(),
            stream: 1,
            source_base: Rational::new(1, 48_000),
            origin: 0,
            encoder: encoder::aac(128_000),
            bit_rate: 128_000,
            sample_rate: 48_000,
            channels: 2,
            layout: "stereo".into(),
            language: None,
            label: String::new(),
            default: true,
            group: String::new(),
            segments: vec![0],
            expected_samples: None,
        };
        let chunk = |index| Chunk { index, start: None, end: None, first_segment: index, segments: vec![0], keyframe: 0 };
        let video = VideoPlan {
            stream: 0,
            source_base: Rational::new(1, 25),
            origin: 0,
            clock: Clock::Trusted,
            timescale: 25,
            ticks_per_tick: 1,
            reorder_delay: 0,
            frame_duration: 1,
            frame_rate: Rational::new(25, 1),
            expected_frames: 0,
            filters: Filters::default(),
            rungs: Vec::new(),
            chunks: (0..chunks).map(chunk).collect(),
            narrowband: None,
            device: None,
        };
        Plan {
            preset: "h265".into(),
            packaging: Packaging::default(),
            on_damage: OnDamage::Fail,
            damage: DamageRules::default(),
            video: (chunks > 0).then_some(video),
            audio: vec![rendition; audio],
            notes: Vec::new(),
        }
    }

    /// The same where content decides: every revision of the plan, the first and the last chunk to calibrate, the one in the
    /// middle a pilot, where there is a middle, the last one to repair.
    fn narrowband(audio: usize, chunks: u32) -> [Plan; 5] {
        let rung = rung();
        let probe = ProbePlan { rungs: Vec::new(), crf: vec![24.0, 34.0], scored_every: 6, frames: None, halved: true };
        let draft = NarrowbandPlan {
            reference: rung,
            probe,
            calibrations: None,
            crf: Vec::new(),
            pilots: Vec::new(),
            adjusted: false,
            verified_every: None,
            repairs: None,
        };
        let calibration = |chunk| CalibrationPlan { chunk, weight: 0.5, frames: 24, rungs: Vec::new(), crf: Vec::new() };
        let calibrations = BTreeSet::from([0, chunks - 1]).into_iter().map(calibration).collect();
        let surveyed = NarrowbandPlan { calibrations: Some(calibrations), ..draft.clone() };
        let pilots = Vec::from_iter((chunks > 1).then_some(chunks / 2));
        let decided = NarrowbandPlan { crf: vec![vec![27.5]; chunks as usize], pilots, ..surveyed.clone() };
        let adjusted = NarrowbandPlan { adjusted: true, ..decided.clone() };
        let repairs = Some(vec![RepairPlan { chunk: chunks - 1, crf: 22.0 }]);
        let verified = NarrowbandPlan { repairs, ..adjusted.clone() };
        [draft, surveyed, decided, adjusted, verified].map(|narrowband| {
            let mut plan = plan(audio, chunks);
            plan.video.as_mut().unwrap().narrowband = Some(narrowband);
            plan
        })
    }

    fn rung() -> Rung {
        Rung {
            name: "reference".into(),
            width: 640,
            height: 360,
            sample_aspect: Rational::new(1, 1),
            pixel_format: "yuv420p".into(),
            full_range: false,
            scale_from: None,
            scaler: "bicubic".into(),
            encoder: encoder::aac(128_000),
            colour: OutputColour::default(),
            interest: Vec::new(),
        }
    }

    fn done(parts: &[PartId]) -> BTreeSet<PartId> {
        parts.iter().copied().collect()
    }

    #[test]
    fn a_job_begins_with_its_probe_and_ends_after_its_package() {
        use PartId::{Audio, Encode, Package, Probe};
        let plan = plan(1, 3);
        let next = |parts: &[PartId], finished| reconcile(Some(&plan), &done(parts), finished, 2);
        assert_eq!(reconcile(None, &done(&[]), None, 2), Step::Publish(vec![Probe]));
        assert_eq!(reconcile(None, &done(&[Probe]), None, 2), Step::Publish(vec![Probe]), "a marker without its plan");
        assert_eq!(next(&[Probe], Some(Probe)), Step::Publish(vec![Audio(0), Encode(0)]));
        assert_eq!(next(&[Probe, Encode(0)], Some(Encode(0))), Step::Publish(vec![Encode(2)]));
        assert_eq!(next(&[Probe, Encode(0), Encode(2)], Some(Encode(2))), Step::Wait);
        assert_eq!(next(&[Probe, Encode(0), Encode(2)], None), Step::Publish(vec![Audio(0)]));
        let all = [Probe, Audio(0), Encode(0), Encode(1), Encode(2)];
        assert_eq!(next(&all, Some(Encode(1))), Step::Publish(vec![Package]));
        assert_eq!(next(&[&all[..], &[Package]].concat(), Some(Package)), Step::Finish);
        assert_eq!(next(&[&all[..], &[Package]].concat(), Some(Audio(0))), Step::Finish, "a late duplicate");
    }

    #[test]
    fn where_content_decides_each_stage_waits_for_the_one_before() {
        use PartId::{Adjust, Analyse, Audio, Calibrate, Decide, Encode, Package, Probe, Repair, Survey, Verify};
        let [draft, surveyed, decided, adjusted, verified] = narrowband(1, 3);
        let of = |plan: &Plan, parts: &[PartId], finished| reconcile(Some(plan), &done(parts), finished, 2);
        assert_eq!(of(&draft, &[Probe], Some(Probe)), Step::Publish(vec![Analyse(0), Analyse(1)]));
        assert_eq!(of(&draft, &[Probe, Analyse(0)], Some(Analyse(0))), Step::Publish(vec![Analyse(2)]));
        assert_eq!(of(&draft, &[Probe, Analyse(0), Analyse(2)], Some(Analyse(2))), Step::Wait);
        let mut all = vec![Probe, Analyse(0), Analyse(1), Analyse(2)];
        assert_eq!(of(&draft, &all, Some(Analyse(1))), Step::Publish(vec![Survey]));
        assert_eq!(of(&surveyed, &all, None), Step::Publish(vec![Survey]), "a plan without its marker");
        all.push(Survey);
        assert_eq!(of(&draft, &all, None), Step::Publish(vec![Survey]), "a marker without its plan");
        assert_eq!(of(&surveyed, &all, Some(Survey)), Step::Publish(vec![Calibrate(0), Calibrate(2)]));
        all.extend([Calibrate(0), Calibrate(2)]);
        assert_eq!(of(&surveyed, &all, Some(Calibrate(0))), Step::Publish(vec![Decide]));
        all.push(Decide);
        assert_eq!(of(&decided, &all, Some(Decide)), Step::Publish(vec![Encode(1)]), "the pilot");
        assert_eq!(of(&decided, &all, Some(Analyse(2))), Step::Wait, "a late duplicate");
        all.push(Encode(1));
        assert_eq!(of(&decided, &all, Some(Encode(1))), Step::Publish(vec![Adjust]));
        all.push(Adjust);
        assert_eq!(of(&adjusted, &all, Some(Adjust)), Step::Publish(vec![Audio(0), Encode(0)]));
        assert_eq!(of(&adjusted, &all, Some(Encode(1))), Step::Publish(vec![Encode(0)]), "a late duplicate releases as it would");
        all.extend([Audio(0), Encode(0), Encode(2)]);
        assert_eq!(of(&adjusted, &all, Some(Encode(2))), Step::Publish(vec![Verify]));
        all.push(Verify);
        assert_eq!(of(&verified, &all, Some(Verify)), Step::Publish(vec![Repair(2)]));
        all.push(Repair(2));
        assert_eq!(of(&verified, &all, Some(Repair(2))), Step::Publish(vec![Package]));
        all.push(Package);
        assert_eq!(of(&verified, &all, Some(Package)), Step::Finish);
        assert_eq!(released_by(&draft, Audio(0), 2), None, "of a draft no chunk can be encoded");
    }

    #[test]
    fn what_was_made_and_has_gone_is_made_again_in_every_later_stage() {
        use PartId::{Adjust, Analyse, Audio, Calibrate, Decide, Encode, Package, Probe, Repair, Survey, Verify};
        let [.., adjusted, verified] = narrowband(1, 3);
        let before_work = [Probe, Analyse(0), Analyse(1), Analyse(2), Survey, Calibrate(0), Calibrate(2), Decide];
        let with = |more: &[PartId]| done(&[&before_work[..], more].concat());
        // The pilot has gone, then comes again and releases what it would have released.
        let gone = with(&[Adjust]);
        assert_eq!(reconcile(Some(&adjusted), &gone, None, 2), Step::Publish(vec![Encode(1), Audio(0)]));
        assert_eq!(released_by(&adjusted, Encode(1), 2), Some(Encode(0)));
        let all_but = |part: PartId| {
            let made = [Audio(0), Encode(0), Encode(1), Encode(2), Adjust, Verify, Repair(2)];
            with(&made.into_iter().filter(|other| *other != part).collect::<Vec<PartId>>())
        };
        for part in [Audio(0), Encode(0), Encode(1), Encode(2), Repair(2)] {
            assert_eq!(reconcile(Some(&verified), &all_but(part), None, 2), Step::Publish(vec![part]));
            assert_eq!(reconcile(Some(&verified), &all_but(Probe), Some(part), 2), Step::Publish(vec![Package]));
            assert!(before(&verified, Package).contains(&part));
        }
        assert!(before(&adjusted, Verify).contains(&Encode(1)), "pilots, too");
        assert_eq!(reconcile(Some(&verified), &all_but(Analyse(0)), Some(Encode(0)), 2), Step::Publish(vec![Package]));
    }

    #[test]
    fn pilots_work_by_the_plan_that_was_decided_and_all_others_by_what_pilots_said() {
        use PartId::{Adjust, Audio, Encode, Repair, Verify};
        let [.., decided, adjusted, _] = narrowband(1, 3);
        let by = |plan: &Plan| [Encode(1), Adjust, Encode(0), Audio(0), Verify, Repair(2)].map(|part| plan.works_by(part));
        let (first, then) = ([Revision::Decided; 2], [Revision::Adjusted; 3]);
        assert_eq!(by(&decided).to_vec(), [&first[..], &then, &[Revision::Verified]].concat());
        assert_eq!(by(&adjusted), by(&decided));
        assert_eq!((decided.revision(), adjusted.revision()), (Revision::Decided, Revision::Adjusted));
        let [.., without, _, _] = narrowband(1, 1);
        assert_eq!(without.revision(), Revision::Adjusted, "without pilots there is nothing to set right");
        let all = [&[PartId::Probe, PartId::Analyse(0), PartId::Survey, PartId::Calibrate(0), PartId::Decide][..]].concat();
        let next = reconcile(Some(&without), &done(&all), Some(PartId::Decide), 2);
        assert_eq!(next, Step::Publish(vec![Audio(0), Encode(0)]));
    }

    #[test]
    fn a_stage_without_parts_is_closed_at_once() {
        let [_, mut surveyed, ..] = narrowband(0, 2);
        surveyed.video.as_mut().unwrap().narrowband.as_mut().unwrap().calibrations = Some(Vec::new());
        let all = done(&[PartId::Probe, PartId::Analyse(0), PartId::Analyse(1), PartId::Survey]);
        assert_eq!(reconcile(Some(&surveyed), &all, Some(PartId::Survey), 2), Step::Publish(vec![PartId::Decide]));
    }

    #[test]
    fn no_more_than_the_window_is_out_at_once_while_parts_finish_in_order() {
        let plan = plan(2, 50);
        let mut markers = done(&[PartId::Probe]);
        let mut out: BTreeSet<PartId> = missing(&plan, &markers, 4).into_iter().collect();
        for part in work(&plan) {
            assert!(out.len() <= 4 && out.remove(&part), "{part} is not out");
            markers.insert(part);
            out.extend(released_by(&plan, part, 4));
        }
    }

    /// The revision of the plan that the markers say there is.
    fn known<'p>(plans: &'p [Plan], markers: &BTreeSet<PartId>) -> &'p Plan {
        let revised = markers.iter().filter_map(|part| part.revises()).max();
        &plans[revised.map_or(0, |revision| revision as usize).min(plans.len() - 1)]
    }

    proptest! {
        #[test]
        fn any_order_of_deliveries_ends_with_every_part_done(
            audio in 0_usize..4,
            chunks in 1_u32..30,
            window in 0_u32..8,
            content_decides in any::<bool>(),
            choices in prop::collection::vec((any::<usize>(), 0_u8..10), 400),
        ) {
            let plans = if content_decides { narrowband(audio, chunks).to_vec() } else { vec![plan(audio, chunks)] };
            let last = plans.last().unwrap();
            let mut markers = BTreeSet::new();
            let mut queue = vec![PartId::Probe];
            let mut published = BTreeSet::from([PartId::Probe]);
            let mut choices = choices.into_iter();
            let mut finished = false;
            while !finished {
                let (pick, fate) = choices.next().unwrap_or((0, 9));
                // A stalled job: the queue ran dry because publishes were lost.
                let after = if queue.is_empty() { None } else { Some(queue.swap_remove(pick % queue.len())) };
                if let Some(part) = after {
                    prop_assert!(before(last, part).iter().all(|part| markers.contains(part)), "{} too early", part);
                    let is_known = known(&plans, &markers).revision() >= last.works_by(part);
                    prop_assert!(is_known, "{} before its plan", part);
                    markers.insert(part);
                    // Delivered twice.
                    if fate == 0 {
                        queue.push(part);
                    }
                }
                let known = markers.contains(&PartId::Probe).then_some(known(&plans, &markers));
                let step = reconcile(known, &markers, after, window);
                prop_assert_eq!(&step, &reconcile(known, &markers, after, window));
                match step {
                    // The publishes are lost.
                    Step::Publish(_) if fate == 1 => {}
                    Step::Publish(parts) => {
                        published.extend(parts.iter().copied());
                        queue.extend(parts);
                    }
                    Step::Finish => finished = true,
                    Step::Wait => prop_assert!(after.is_some(), "a stalled job is told to wait"),
                }
            }
            let mut all = BTreeSet::from([PartId::Probe]);
            all.extend(groups(last).into_iter().flat_map(|stage| stage.parts.into_iter().chain([stage.closing])));
            prop_assert_eq!(&published, &all);
            prop_assert_eq!(&markers, &all);
        }
    }
}
