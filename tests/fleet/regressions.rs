//! Schedules that once broke something, each by the name of what it broke. A seed stands for a schedule only as long as
//! the model of [`crate::simulation`] draws in the same order: a change of the model that moves the draws is tried on all
//! the schedules, and these go on proving that nothing of theirs came back.

#![allow(dead_code, unused_imports)]
use crate::simulation::run;

#[track_caller]
fn holds(seed: u64) {
    if let Err(what) = run(seed) {
        panic!("{what}");
    }
}
