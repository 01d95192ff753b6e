//! What a fleet would do with jobs to come: a discrete-event simulation of lanes, windows, quotas and retries.
//!
//! What is decided is decided by the worker's own code: which queue is served next by [`crate::worker::lanes`], what a finished
//! part releases by [`crate::reconcile`] on plans of [`crate::plan`], whether a job may start by [`crate::tenant::Quota`], what
//! becomes of a part that crashed by [`crate::worker::of_part`]. What takes time is what is assumed: the costs of parts
//! ([`Costs`]), measured or given. No clock, and no chance but a seed's: the same jobs and the same seed give the same report, to
//! the last digit.
//!
//! Left out: outages of broker and store, workers that are killed, coordinators (they are never what a fleet waits for), and
//! that a machine's slots slow each other down beyond what the measured costs hold already.

pub mod arrivals;
pub mod costs;
mod engine;
pub mod plot;
pub mod report;
pub mod scaling;
mod tally;
mod titles;

pub use arrivals::{Arrival, Synthetic};
pub use costs::Costs;
pub use engine::run;
pub use report::Report;
pub use scaling::Scaling;

use crate::tenant::Quota;
use crate::worker::WorkerSettings;
use std::collections::BTreeMap;

/// Simulated time, microseconds from the beginning: whole, so that what happens at once has one order.
type Micros = u64;

/// Most jobs of one simulation.
pub const MAX_JOBS: usize = 2_000_000;
/// Most workers.
pub const MAX_WORKERS: usize = 100_000;

/// The fleet that is simulated.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// Workers from the beginning on.
    pub workers: usize,
    /// What each of them is set to.
    pub settings: WorkerSettings,
    /// Parts of one job that are out at once.
    pub window: u32,
    pub quotas: BTreeMap<String, Quota>,
    /// Whether and how more are started; none: the workers stay as they are.
    pub scaling: Option<Scaling>,
}

/// Why there is nothing to simulate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimulateError {
    #[error("{0}")]
    Fleet(String),
    /// A job, by its place in the trace from 1.
    #[error("job {number}: {reason}")]
    Job { number: usize, reason: String },
    #[error("costs: {0}")]
    Costs(String),
}

fn micros(seconds: f64) -> Micros {
    // Saturates, and what is no number is none.
    (seconds * 1e6).round() as Micros
}

fn seconds(micros: Micros) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests;
