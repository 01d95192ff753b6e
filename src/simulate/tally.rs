//! What is counted on the way.

use super::report::{Report, Sample, Spread};
use super::{Micros, seconds};
use crate::job::Lane;
use std::collections::BTreeMap;

/// Samples kept; with as many, every second one goes, and they are taken half as often.
const MOST_SAMPLES: usize = 2048;
/// Time between the first samples.
const FIRST_SAMPLES_EVERY: Micros = 1_000_000;
const SECONDS_AN_HOUR: f64 = 3600.0;

/// Counts, and sums over time.
#[derive(Debug)]
pub(super) struct Tally {
    pub completed: u64,
    pub failed: u64,
    pub refused: u64,
    pub parts: u64,
    pub crashes: u64,
    pub output_s: f64,
    pub fewest_workers: usize,
    pub most_workers: usize,
    /// Up to here, slot seconds are summed.
    until: Micros,
    busy_slot_s: f64,
    slot_s: f64,
    last_end: Micros,
    waits: [Vec<f64>; 3],
    latencies: BTreeMap<String, Vec<f64>>,
    series: Vec<Sample>,
    sample_every: Micros,
    next_sample: Micros,
}

impl Tally {
    pub fn new(begins: Micros, workers: usize) -> Self {
        Self {
            completed: 0,
            failed: 0,
            refused: 0,
            parts: 0,
            crashes: 0,
            output_s: 0.0,
            fewest_workers: workers,
            most_workers: workers,
            until: begins,
            busy_slot_s: 0.0,
            slot_s: 0.0,
            last_end: begins,
            waits: Default::default(),
            latencies: BTreeMap::new(),
            series: Vec::new(),
            sample_every: FIRST_SAMPLES_EVERY,
            next_sample: begins,
        }
    }

    /// Nothing has changed from the last moment up to `now`.
    pub fn pass(&mut self, now: Micros, waiting: usize, busy: usize, slots: usize) {
        while self.next_sample <= now {
            self.series.push(Sample { at_s: seconds(self.next_sample), waiting, busy, slots });
            self.next_sample += self.sample_every;
            if self.series.len() == MOST_SAMPLES {
                let mut place = 0;
                self.series.retain(|_| {
                    place += 1;
                    place % 2 == 1
                });
                // The next one is two distances from the last that stays.
                self.sample_every *= 2;
            }
        }
        let passed = seconds(now.saturating_sub(self.until));
        self.busy_slot_s += passed * busy as f64;
        self.slot_s += passed * slots as f64;
        self.until = now;
    }

    pub fn workers(&mut self, workers: usize) {
        self.fewest_workers = self.fewest_workers.min(workers);
        self.most_workers = self.most_workers.max(workers);
    }

    pub fn waited(&mut self, lane: Lane, since: Micros, now: Micros) {
        self.waits[lane as usize].push(seconds(now - since));
    }

    /// A job has ended.
    pub fn ended(&mut self, now: Micros) {
        self.last_end = now;
    }

    pub fn completed(&mut self, tenant: &str, arrived: Micros, now: Micros, output_s: f64) {
        self.completed += 1;
        self.output_s += output_s;
        self.latencies.entry(tenant.to_string()).or_default().push(seconds(now - arrived));
    }

    /// All of it, with what a slot's hour costs.
    pub fn report(self, jobs: u64, begins: Micros, slot_hour_price: Option<f64>) -> Report {
        let (slot_hours, busy_slot_hours) = (self.slot_s / SECONDS_AN_HOUR, self.busy_slot_s / SECONDS_AN_HOUR);
        let output_hours = self.output_s / SECONDS_AN_HOUR;
        let over = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        let cost = slot_hour_price.map(|price| price * slot_hours);
        let waits = Lane::ALL.into_iter().zip(self.waits).filter(|(_, all)| !all.is_empty());
        Report {
            jobs,
            completed: self.completed,
            failed: self.failed,
            refused: self.refused,
            parts: self.parts,
            crashes: self.crashes,
            makespan_s: seconds(self.last_end - begins),
            slot_hours,
            busy_slot_hours,
            utilisation: over(busy_slot_hours, slot_hours),
            output_hours,
            slot_hours_per_output_hour: over(slot_hours, output_hours),
            cost,
            cost_per_output_hour: cost.map(|cost| over(cost, output_hours)),
            queue_age_s: waits.map(|(lane, all)| (lane.name().to_string(), Spread::of(all))).collect(),
            latency_s: self.latencies.into_iter().map(|(tenant, all)| (tenant, Spread::of(all))).collect(),
            fewest_workers: self.fewest_workers,
            most_workers: self.most_workers,
            series: self.series,
        }
    }
}
