//! The fleet: real servers, real processes, and what may happen to them.

mod regressions;
mod simulation;
