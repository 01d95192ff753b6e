//! What exists -> what to do next. Pure and level-triggered: called twice, late, or from two workers, it is harmless.
//!
//! The way of a job is `probe`, then its work (audio renditions and chunks), then `package`. Of the work only a
//! window is out at any time: finishing the part at place *i* releases the one at *i + window*, so that a long film
//! never drowns a short clip, and no state is kept but the markers.

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

/// The work between probe and package, in the order it is released. Audio comes first: its parts are the longest.
pub fn work(plan: &Plan) -> Vec<PartId> {
    let chunks = plan.video.as_ref().map_or(0, |video| video.chunks.len());
    (0..plan.audio.len() as u32).map(PartId::Audio).chain((0..chunks as u32).map(PartId::Encode)).collect()
}

/// What follows from the markers in `done`.
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
        Some(PartId::Encode(_) | PartId::Audio(_)) if missing != [PartId::Package] => {
            let released = finished.and_then(|part| released_by(plan, part, window));
            released.into_iter().filter(|part| !done.contains(part)).collect()
        }
        _ => missing,
    };
    if publish.is_empty() { Step::Wait } else { Step::Publish(publish) }
}

/// The part that may go out once `part` is done, besides those that were out already.
pub fn released_by(plan: &Plan, part: PartId, window: u32) -> Option<PartId> {
    let work = work(plan);
    let place = work.iter().position(|other| *other == part)?;
    work.get(place + window.max(1) as usize).copied()
}

/// Every part that should be out by now and has no marker: those of the window, or `package` when all work is done.
pub fn missing(plan: &Plan, done: &BTreeSet<PartId>, window: u32) -> Vec<PartId> {
    let window = window.max(1) as usize;
    let work = work(plan);
    let is_out = |place: usize| place < window || done.contains(&work[place - window]);
    let out = work.iter().enumerate().filter(|(place, part)| is_out(*place) && !done.contains(part));
    let missing: Vec<PartId> = out.map(|(_, part)| *part).collect();
    if missing.is_empty() && !done.contains(&PartId::Package) { vec![PartId::Package] } else { missing }
}
