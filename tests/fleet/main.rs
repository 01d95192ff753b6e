//! The fleet: real servers, real processes, and what may happen to them.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/media.rs"]
mod media;

mod bad_input;
mod checker;
#[allow(dead_code, reason = "the bench uses more of it")]
mod cluster;
mod devices;
mod drain;
mod end_to_end;
mod monitoring;
mod regressions;
mod simulation;
mod storm;
mod traces;
