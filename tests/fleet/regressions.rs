//! Schedules that once broke something, each by the name of what it broke. A seed stands for a schedule only as long as
//! the model of [`crate::simulation`] draws in the same order: a change of the model that moves the draws is tried on all
//! the schedules, and these go on proving that nothing of theirs came back.

use crate::simulation::run;

#[track_caller]
fn holds(seed: u64) {
    if let Err(what) = run(seed) {
        panic!("{what}");
    }
}

/// A coordinator took over the start of a stage whose parts had been counted before: the percentage lagged behind the
/// counts, and the next fact, told before, was recorded again for making it catch up.
#[test]
fn a_fact_told_again_after_a_takeover_is_not_recorded_again() {
    holds(59_700);
}

/// A coordinator fell asleep in the middle of a batch. The one that took over believed that a percentage had been told
/// which had only been shown, and the two wrote different events under one number.
#[test]
fn two_coordinators_tell_the_same_progress() {
    holds(16_139);
}

/// A coordinator died between the end of a stage and the hundred per cent that go with it, where fewer frames were made than
/// had been expected. The one after it left them out, and one that slept wrote them under the number of the next event.
#[test]
fn the_end_of_a_stage_that_was_taken_over_still_tells_its_progress() {
    holds(34_496);
}
