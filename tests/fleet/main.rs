//! The fleet: real servers, real processes, and what may happen to them.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/media.rs"]
mod media;

mod cluster;
//mod regressions;
//mod simulation;
