//! What came of it.

use serde::Serialize;
use std::collections::BTreeMap;

/// What a fleet did with the jobs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub jobs: u64,
    /// Of these: done, failed after too many crashes, refused by their tenant's quota.
    pub completed: u64,
    pub failed: u64,
    pub refused: u64,
    /// Parts done, submissions not counted.
    pub parts: u64,
    /// Parts that crashed and were done again.
    pub crashes: u64,
    /// From the first arrival to the last end.
    pub makespan_s: f64,
    /// Hours of slots that there were, and that children ran in.
    pub slot_hours: f64,
    pub busy_slot_hours: f64,
    /// The one over the other.
    pub utilisation: f64,
    /// Hours of output, every rendition counted.
    pub output_hours: f64,
    /// What an hour of output costs, in hours of slots.
    pub slot_hours_per_output_hour: f64,
    /// The same in money, where a slot's hour has a price.
    pub cost: Option<f64>,
    pub cost_per_output_hour: Option<f64>,
    /// How long messages waited in their queues, by lane.
    pub queue_age_s: BTreeMap<String, Spread>,
    /// From arrival to end, of completed jobs, by tenant.
    pub latency_s: BTreeMap<String, Spread>,
    /// Workers that there were, those on their way and those leaving among them.
    pub fewest_workers: usize,
    pub most_workers: usize,
    /// What it looked like, at even distances of time.
    pub series: Vec<Sample>,
}

/// How some times are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub longest: f64,
}

impl Spread {
    /// Of seconds, by nearest rank.
    pub fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        let Some(longest) = all.last().copied() else { return Self::default() };
        let rank = |share: f64| all[((all.len() as f64 * share).ceil() as usize).clamp(1, all.len()) - 1];
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        Self { count: all.len() as u64, mean, p50: rank(0.5), p90: rank(0.9), p99: rank(0.99), longest }
    }
}

/// One moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    pub at_s: f64,
    /// Messages in the queues, and jobs that wait for their tenant's others.
    pub waiting: usize,
    /// Slots at work, and slots there are.
    pub busy: usize,
    pub slots: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_there_were() {
        let spread = Spread::of((1..=200).rev().map(f64::from).collect());
        let expected = Spread { count: 200, mean: 100.5, p50: 100.0, p90: 180.0, p99: 198.0, longest: 200.0 };
        assert_eq!(spread, expected);
        let one = Spread { count: 1, mean: 3.0, p50: 3.0, p90: 3.0, p99: 3.0, longest: 3.0 };
        assert_eq!((Spread::of(vec![3.0]), Spread::of(Vec::new())), (one, Spread::default()));
    }
}
