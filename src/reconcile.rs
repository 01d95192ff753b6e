//! What exists -> what to do next. Pure and level-triggered: called twice, late, or from two workers, it is harmless.
//!
//! The way of a job is `probe`, then its work (audio renditions and chunks), then `package`. Where content decides the
//! ladder, the chunks are analysed and `decide` comes before the work: until then the plan is a draft, of which nothing
//! can be encoded. (Sound could be, but for its segments: they begin where the picture's do, and those are decided, too.)
//!
//! Of the analysis, and then of the work, only a window is out at any time: finishing the part at place *i* releases the one
//! at *i + window*, so that a long film never drowns a short clip, and no state is kept but the markers.

use crate::plan::Plan;
use crate::plan::marker::PartId;
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

/// The chunks to analyse before anything is decided, in the order they are released; none where content decides nothing.
pub fn analysis(plan: &Plan) -> Vec<PartId> {
    let chunks = plan.video.as_ref().filter(|video| video.narrowband.is_some()).map_or(0, |video| video.chunks.len());
    (0..chunks as u32).map(PartId::Analyse).collect()
}

/// What follows from the markers in `done`. The plan is the decided one as soon as there is one.
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
        Some(PartId::Analyse(_) | PartId::Encode(_) | PartId::Audio(_)) if !is_next_stage(&missing) => {
            let released = finished.and_then(|part| released_by(plan, part, window));
            released.into_iter().filter(|part| !done.contains(part)).collect()
        }
        _ => missing,
    };
    if publish.is_empty() { Step::Wait } else { Step::Publish(publish) }
}

/// Everything before is done: one part alone comes next.
fn is_next_stage(missing: &[PartId]) -> bool {
    matches!(missing, [PartId::Decide | PartId::Package])
}

/// The part that may go out once `part` is done, besides those that were out already.
pub fn released_by(plan: &Plan, part: PartId, window: u32) -> Option<PartId> {
    let order = match part {
        PartId::Analyse(_) => analysis(plan),
        PartId::Encode(_) | PartId::Audio(_) if !plan.is_draft() => work(plan),
        _ => return None,
    };
    let place = order.iter().position(|other| *other == part)?;
    order.get(place + window.max(1) as usize).copied()
}

/// Every part that should be out by now and has no marker: those of the window, or `decide` when all is analysed, or
/// `package` when all work is done.
pub fn missing(plan: &Plan, done: &BTreeSet<PartId>, window: u32) -> Vec<PartId> {
    if plan.is_draft() {
        let missing = out_of(&analysis(plan), done, window);
        return if missing.is_empty() { vec![PartId::Decide] } else { missing };
    }
    if plan.narrowband().is_some() && !done.contains(&PartId::Decide) {
        // Whoever decided died before it was said: it is not decided again.
        return vec![PartId::Decide];
    }
    let missing = out_of(&work(plan), done, window);
    if missing.is_empty() && !done.contains(&PartId::Package) { vec![PartId::Package] } else { missing }
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
    use crate::plan::{AudioPlan, Chunk, Filters, NarrowbandPlan, ProbePlan, VideoPlan, encoder};
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

    /// The same where content decides: the draft, and the plan that is decided of it.
    fn narrowband(audio: usize, chunks: u32) -> (Plan, Plan) {
        let probe = ProbePlan { rungs: Vec::new(), crf: vec![24.0, 34.0], scored_every: 6 };
        let with = |crf| {
            let mut plan = plan(audio, chunks);
            plan.video.as_mut().unwrap().narrowband = Some(NarrowbandPlan { probe: probe.clone(), crf });
            plan
        };
        (with(Vec::new()), with(vec![vec![27.5]; chunks as usize]))
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
    fn nothing_is_encoded_before_it_is_decided_and_nothing_decided_before_it_is_analysed() {
        use PartId::{Analyse, Audio, Decide, Encode, Package, Probe};
        let (draft, decided) = narrowband(1, 3);
        let of = |plan: &Plan, parts: &[PartId], finished| reconcile(Some(plan), &done(parts), finished, 2);
        assert_eq!(of(&draft, &[Probe], Some(Probe)), Step::Publish(vec![Analyse(0), Analyse(1)]));
        assert_eq!(of(&draft, &[Probe, Analyse(0)], Some(Analyse(0))), Step::Publish(vec![Analyse(2)]));
        assert_eq!(of(&draft, &[Probe, Analyse(0), Analyse(2)], Some(Analyse(2))), Step::Wait);
        let analysed = [Probe, Analyse(0), Analyse(1), Analyse(2)];
        assert_eq!(of(&draft, &analysed, Some(Analyse(1))), Step::Publish(vec![Decide]));
        let marked = [&analysed[..], &[Decide]].concat();
        assert_eq!(of(&draft, &marked, None), Step::Publish(vec![Decide]), "a marker without its plan");
        assert_eq!(of(&decided, &analysed, None), Step::Publish(vec![Decide]), "a plan without its marker");
        assert_eq!(of(&decided, &marked, Some(Decide)), Step::Publish(vec![Audio(0), Encode(0)]));
        assert_eq!(of(&decided, &marked, Some(Analyse(2))), Step::Wait, "a late duplicate");
        let all = [&marked[..], &[Audio(0), Encode(0), Encode(1), Encode(2)]].concat();
        assert_eq!(of(&decided, &all, Some(Encode(2))), Step::Publish(vec![Package]));
        assert_eq!(released_by(&draft, Audio(0), 2), None, "of a draft no chunk can be encoded");
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

    proptest! {
        #[test]
        fn any_order_of_deliveries_ends_with_every_part_done(
            audio in 0_usize..4,
            chunks in 1_u32..30,
            window in 0_u32..8,
            content_decides in any::<bool>(),
            choices in prop::collection::vec((any::<usize>(), 0_u8..10), 400),
        ) {
            let (draft, decided) = if content_decides {
                narrowband(audio, chunks)
            } else {
                (plan(audio, chunks), plan(audio, chunks))
            };
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
                    if part == PartId::Package {
                        prop_assert!(work(&decided).iter().all(|part| markers.contains(part)), "packaged too early");
                    }
                    if part == PartId::Decide {
                        prop_assert!(analysis(&draft).iter().all(|part| markers.contains(part)), "decided too early");
                    }
                    let is_decided = !content_decides || markers.contains(&PartId::Decide);
                    prop_assert!(is_decided || !work(&decided).contains(&part), "{} of a draft", part);
                    markers.insert(part);
                    // Delivered twice.
                    if fate == 0 {
                        queue.push(part);
                    }
                }
                let known = if markers.contains(&PartId::Decide) { &decided } else { &draft };
                let known = markers.contains(&PartId::Probe).then_some(known);
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
            let mut all: BTreeSet<PartId> = work(&decided).into_iter().chain([PartId::Probe, PartId::Package]).collect();
            if content_decides {
                all.extend(analysis(&draft));
                all.insert(PartId::Decide);
            }
            prop_assert_eq!(&published, &all);
            prop_assert_eq!(&markers, &all);
        }
    }
}
