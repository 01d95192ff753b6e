//! The jobs to come: from a trace, or drawn.

use super::{MAX_JOBS, SimulateError};
use crate::job::Lane;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::f64::consts::TAU;

/// Longest title, seconds: what a probe takes by default (`limits.max_duration_s`).
const LONGEST_S: f64 = 172_800.0;
/// Shortest title, seconds: less is no chunk.
const SHORTEST_S: f64 = 1.0;
/// Latest arrival, seconds: a year.
const LATEST_S: f64 = 366.0 * 86_400.0;
/// Longest title that is drawn, as a multiple of the mean.
const LONGEST_DRAWN: f64 = 20.0;
/// The busiest moment of a day over its mean, less one.
const SWING: f64 = 0.6;
/// The busiest moment of a day: eight in the evening.
const BUSIEST_S: f64 = 20.0 * 3600.0;
const DAY_S: f64 = 86_400.0;

/// One job to come: a line of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arrival {
    /// When it is submitted, seconds from the beginning.
    pub at_s: f64,
    /// Length of its title.
    pub media_s: f64,
    #[serde(default = "default_tenant")]
    pub tenant: String,
    #[serde(default)]
    pub lane: Lane,
    #[serde(default = "default_preset")]
    pub preset: String,
    /// Fields of the preset, as in a job.
    #[serde(default)]
    pub set: BTreeMap<String, Value>,
    /// Size of its pictures: no rung is larger.
    #[serde(default = "default_width")]
    pub width: u32,
    #[serde(default = "default_height")]
    pub height: u32,
}

fn default_tenant() -> String {
    "local".into()
}

fn default_preset() -> String {
    "h265".into()
}

fn default_width() -> u32 {
    1920
}

fn default_height() -> u32 {
    1080
}

/// The jobs of a trace, one JSON object a line, in the order of their arrival; empty lines are none.
///
/// # Errors
/// Names the line.
pub fn read(trace: &str) -> Result<Vec<Arrival>, SimulateError> {
    let mut arrivals = Vec::new();
    for (place, line) in trace.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |reason: String| SimulateError::Job { number: place + 1, reason };
        let arrival: Arrival = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        if !(0.0..=LATEST_S).contains(&arrival.at_s) {
            return Err(wrong(format!("at_s: is {}; allowed are 0 to {LATEST_S}", arrival.at_s)));
        }
        if !(SHORTEST_S..=LONGEST_S).contains(&arrival.media_s) {
            return Err(wrong(format!("media_s: is {}; allowed are {SHORTEST_S} to {LONGEST_S}", arrival.media_s)));
        }
        if arrivals.len() == MAX_JOBS {
            return Err(wrong(format!("is one more than the {MAX_JOBS} that can be simulated")));
        }
        arrivals.push(arrival);
    }
    arrivals.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    Ok(arrivals)
}

/// Jobs that are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Synthetic {
    pub jobs: usize,
    /// They arrive within so many seconds, evenly, or more in the evening than in the morning.
    pub over_s: f64,
    pub is_daily: bool,
    /// Titles are log-normal, in whole seconds: their mean length, and the standard deviation of its logarithm.
    pub media_s: f64,
    pub media_spread: f64,
    pub preset: String,
    /// Shares of the lanes high, normal, low.
    pub lanes: [f64; 3],
    /// Tenants with their shares.
    pub tenants: Vec<(String, f64)>,
}

impl Synthetic {
    /// The jobs, in the order of their arrival.
    pub fn draw(&self, seed: u64) -> Vec<Arrival> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut arrivals: Vec<Arrival> = (0..self.jobs).map(|_| self.arrival(&mut random)).collect();
        arrivals.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        arrivals
    }

    fn arrival(&self, random: &mut StdRng) -> Arrival {
        let media_s = self.media_s * factor(random, self.media_spread);
        let most = LONGEST_S.min(self.media_s * LONGEST_DRAWN);
        Arrival {
            at_s: self.at(random),
            media_s: media_s.round().clamp(SHORTEST_S, most.max(SHORTEST_S)),
            tenant: chosen(random, &self.tenants).cloned().unwrap_or_else(default_tenant),
            lane: *chosen(random, &Lane::ALL.into_iter().zip(self.lanes).collect::<Vec<_>>()).unwrap_or(&Lane::Normal),
            preset: self.preset.clone(),
            set: BTreeMap::new(),
            width: default_width(),
            height: default_height(),
        }
    }

    /// Drawn evenly and kept as often as that time of the day is busy.
    fn at(&self, random: &mut StdRng) -> f64 {
        loop {
            let at = random.random_range(0.0..1.0) * self.over_s;
            let busy = (1.0 + SWING * (TAU * (at - BUSIEST_S) / DAY_S).cos()) / (1.0 + SWING);
            if !self.is_daily || random.random_range(0.0..1.0) < busy {
                return at;
            }
        }
    }
}

/// One of these, as often as its share says.
fn chosen<'a, T>(random: &mut StdRng, from: &'a [(T, f64)]) -> Option<&'a T> {
    let all: f64 = from.iter().map(|(_, share)| share).sum();
    let mut left = random.random_range(0.0..1.0) * all;
    let found = from.iter().find(|(_, share)| {
        left -= share;
        left < 0.0
    });
    found.or(from.last()).map(|(item, _)| item)
}

/// A log-normal factor whose mean is 1 (Box and Muller, 1958).
pub(super) fn factor(random: &mut StdRng, spread: f64) -> f64 {
    if spread == 0.0 {
        return 1.0;
    }
    let (radius, angle): (f64, f64) = (random.random_range(f64::MIN_POSITIVE..1.0), random.random_range(0.0..1.0));
    let normal = (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos();
    (spread * normal - spread * spread / 2.0).exp()
}
