//! Which top rungs to encode once more: few, and those that missed by most.
//!
//! The plan said a quality for every chunk, and each was measured while it was encoded. A chunk under the floor is seen, so
//! those come first. Then the title's mean is held against its goal: the chunks that missed by most in the same direction
//! are brought back to their plan until the mean is near enough, or as many are repaired as may be. The new CRF is that of
//! one secant step: measured loss and CRF give the chunk's own curve its level, its slope is believed.

use super::curve::LEAST_LOSS;
use super::decide::{Decision, RungDecision};
use super::pilot::Adjustment;
use super::rules::Rules;
use super::work::OF_REPAIR;
use super::{loss_of, quality_of, rounded};
use serde::{Deserialize, Serialize};

/// A repair that moves the CRF by less changes nothing that is seen.
const LEAST_MOVE_CRF: f64 = 0.5;
/// And none is sent further than this towards more bits: so far off it is not the level that is wrong. Towards fewer half as
/// far: next to 100 losses grow faster than a chunk's curve says, and a picture may be spoilt that was only too good.
const MOST_MOVE_CRF: f64 = 8.0;
const MOST_MOVE_UP_CRF: f64 = 4.0;
/// Chunks are lifted so far above their floor: they are not to miss it once more, VMAF.
const FLOOR_MARGIN_VMAF: f64 = 1.0;
/// Work on a pixel grows with this power of its bits (x265 `fast`, CRF 20 to 36: 0.20 and 0.22 on two clips).
const RATE_POWER: f64 = 0.2;

/// When to repair, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepairRules {
    /// All that is done beside the ladder, repairs included, takes at most this share of its work; one chunk under the floor is
    /// repaired in any case.
    pub share: f64,
    /// The title's mean is near enough to its goal, VMAF-NEG.
    pub tolerance_vmaf: f64,
}

impl Default for RepairRules {
    fn default() -> Self {
        Self { share: 0.33, tolerance_vmaf: 0.4 }
    }
}

/// A chunk of the top rung as it was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredChunk {
    pub chunk: usize,
    /// Mean VMAF-NEG at display size.
    pub vmaf: f64,
    /// Rate it came to; absent: that of the plan is believed.
    pub kbps: Option<f64>,
}

/// What was measured of the top rung, and what is encoded once more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Repairs {
    /// Chunks measured.
    pub measured: usize,
    /// Mean by duration over them; absent where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_vmaf: Option<f64>,
    /// And what they were planned at, the others than pilots after these had told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_vmaf: Option<f64>,
    /// Measured under the floor.
    pub below_floor: usize,
    /// In order of the title.
    pub chunks: Vec<Repair>,
}

/// One chunk that is encoded once more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Repair {
    pub chunk: usize,
    pub why: RepairCause,
    pub planned_vmaf: f64,
    pub measured_vmaf: f64,
    /// What it is to have now.
    pub wanted_vmaf: f64,
    pub crf_before: f64,
    pub crf: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepairCause {
    BelowFloor,
    /// The title missed its goal, and this chunk by most.
    Mean,
}

/// Chooses the repairs. `first`: what pilots told, and what was planned before; `weights_us`: how long each chunk lasts,
/// microseconds; `measured` may come in any order; `beside`: what was done beside the ladder before, as a share of its work.
pub fn repairs(
    decision: &Decision,
    first: Option<&Adjustment>,
    weights_us: &[u64],
    measured: &[MeasuredChunk],
    beside: f64,
    rules: &Rules,
) -> Repairs {
    let Some(top) = decision.rungs.first() else { return Repairs::default() };
    let mut title = Measured::new(top, first, weights_us, measured);
    let mut repairs = Repairs {
        measured: title.chunks.len(),
        measured_vmaf: title.mean(|chunk| chunk.measured),
        planned_vmaf: title.mean(|chunk| chunk.planned),
        below_floor: title.chunks.iter().filter(|chunk| chunk.measured < top.floor_vmaf).count(),
        chunks: Vec::new(),
    };
    let slopes = |chunk: usize| decision.fits.get(chunk).map_or((0.0, 0.0), |fit| (fit.curve.loss_slope, fit.curve.rate_slope));
    let most_kbps = title.mean(|chunk| chunk.kbps).unwrap_or(top.predicted_kbps) * rules.allocation.peak_to_mean;
    let total_us: u64 = weights_us.iter().sum();
    let most_us = (total_us as f64 * (rules.repair.share - beside).max(0.0) / (OF_REPAIR * part_of_top(decision))) as u64;
    let mut spent_us = 0;
    let mut order: Vec<usize> = (0..title.chunks.len()).filter(|n| title.chunks[*n].measured < top.floor_vmaf).collect();
    order.sort_by(|a, b| title.chunks[*a].measured.total_cmp(&title.chunks[*b].measured).then(a.cmp(b)));
    let below_floor = order.len();
    order.extend(title.missing_most(top, rules.repair.tolerance_vmaf));
    for (turn, n) in order.into_iter().enumerate() {
        let is_floor = turn < below_floor;
        let chunk = title.chunks[n];
        let is_done = repairs.chunks.iter().any(|repair| repair.chunk == chunk.chunk);
        if is_done || !is_floor && title.is_near(top, rules.repair.tolerance_vmaf) {
            continue;
        }
        let fits = spent_us + chunk.weight_us <= most_us || is_floor && spent_us == 0;
        let wanted =
            if is_floor { chunk.planned.max(top.floor_vmaf + FLOOR_MARGIN_VMAF) } else { title.towards_plan(top, &chunk) };
        let (slope, rate_slope) = slopes(chunk.chunk);
        // No chunk goes beyond what the mean that came out allows.
        let lowest = chunk.crf - (libm::log(most_kbps / chunk.kbps) / rate_slope).max(0.0);
        let crf = secant(&chunk, wanted, slope, rules);
        let crf = if lowest.is_finite() { crf.max(lowest.min(chunk.crf)) } else { crf };
        let crf = rules.allocation.crf.nearest(crf);
        if !fits || (crf - chunk.crf).abs() < LEAST_MOVE_CRF {
            continue;
        }
        spent_us += chunk.weight_us;
        let reached = quality_of(loss_of(chunk.measured).max(LEAST_LOSS) * libm::exp(slope * (crf - chunk.crf)));
        title.chunks[n].measured = reached;
        repairs.chunks.push(Repair {
            chunk: chunk.chunk,
            why: if is_floor { RepairCause::BelowFloor } else { RepairCause::Mean },
            planned_vmaf: chunk.planned,
            measured_vmaf: chunk.measured,
            wanted_vmaf: rounded(wanted, 3),
            crf_before: chunk.crf,
            crf,
        });
    }
    repairs.chunks.sort_by_key(|repair| repair.chunk);
    repairs
}

/// Of all work on the ladder that on its top rung, more than 0 to 1.
fn part_of_top(decision: &Decision) -> f64 {
    let work = |rung: &RungDecision| {
        let pixels = f64::from(rung.width.max(1)) * f64::from(rung.height.max(1));
        pixels * libm::pow(rung.predicted_kbps.max(1.0) / pixels, RATE_POWER)
    };
    decision.rungs.first().map_or(1.0, work) / decision.rungs.iter().map(work).sum::<f64>().max(f64::MIN_POSITIVE)
}

/// The CRF at which a chunk should have the wanted quality.
fn secant(chunk: &Known, wanted_vmaf: f64, slope: f64, rules: &Rules) -> f64 {
    let range = &rules.allocation.crf;
    if slope <= 0.0 {
        return chunk.crf;
    }
    let (wanted, measured) = (loss_of(wanted_vmaf).max(LEAST_LOSS), loss_of(chunk.measured.max(1.0)).max(LEAST_LOSS));
    let step = (libm::log(wanted / measured) / slope).clamp(-MOST_MOVE_CRF, MOST_MOVE_UP_CRF);
    (chunk.crf + step).clamp(range.lowest, range.highest)
}

/// A chunk of which a measurement is known.
#[derive(Clone, Copy)]
struct Known {
    chunk: usize,
    weight_us: u64,
    crf: f64,
    kbps: f64,
    planned: f64,
    measured: f64,
}

struct Measured {
    /// In order of the title.
    chunks: Vec<Known>,
    /// What the title was planned to have, before pilots told of it; of a title of which all was measured.
    planned_vmaf: Option<f64>,
}

impl Measured {
    fn new(top: &RungDecision, first: Option<&Adjustment>, weights_us: &[u64], measured: &[MeasuredChunk]) -> Self {
        // Of pilots the decision knows by now what they came to.
        let before = |chunk: usize| first?.pilots.iter().find(|pilot| pilot.chunk == chunk).map(|pilot| pilot.planned_vmaf);
        let known = |measured: &MeasuredChunk| {
            let planned = top.chunks.get(measured.chunk)?;
            let weight_us = weights_us.get(measured.chunk).copied()?.max(1);
            let is_score = (0.0..=100.0).contains(&measured.vmaf);
            is_score.then(|| Known {
                chunk: measured.chunk,
                weight_us,
                crf: planned.crf,
                kbps: measured.kbps.filter(|kbps| kbps.is_finite() && *kbps > 0.0).unwrap_or(planned.predicted_kbps),
                planned: before(measured.chunk).unwrap_or(planned.predicted_vmaf),
                measured: rounded(measured.vmaf, 4),
            })
        };
        let mut chunks: Vec<Known> = measured.iter().filter_map(known).collect();
        chunks.sort_by_key(|chunk| chunk.chunk);
        chunks.dedup_by_key(|chunk| chunk.chunk);
        let planned_vmaf = first.map(|first| first.planned_vmaf).filter(|_| chunks.len() == top.chunks.len());
        Self { chunks, planned_vmaf }
    }

    fn mean(&self, of: impl Fn(&Known) -> f64) -> Option<f64> {
        let weight: u64 = self.chunks.iter().map(|chunk| chunk.weight_us).sum();
        let sum: f64 = self.chunks.iter().map(|chunk| of(chunk) * chunk.weight_us as f64).sum();
        (weight > 0).then(|| rounded(sum / weight as f64, 3))
    }

    /// By how much the title is under its goal; negative where it is above.
    fn missing(&self, top: &RungDecision) -> f64 {
        // What was planned is what the goal came to: limits of CRF and rate may keep a title from it.
        let wanted = self.planned_vmaf.or_else(|| self.mean(|chunk| chunk.planned)).unwrap_or(top.predicted_vmaf);
        wanted - self.mean(|chunk| chunk.measured).unwrap_or(wanted)
    }

    fn is_near(&self, top: &RungDecision, tolerance: f64) -> bool {
        self.missing(top).abs() <= tolerance
    }

    /// What the chunk is to have for its title to meet its goal: as planned, or less far than that where the title needs no more.
    fn towards_plan(&self, top: &RungDecision, chunk: &Known) -> f64 {
        let all: u64 = self.chunks.iter().map(|chunk| chunk.weight_us).sum();
        let needed = chunk.measured + self.missing(top) * all as f64 / chunk.weight_us as f64;
        if chunk.planned > chunk.measured { needed.min(chunk.planned) } else { needed.max(chunk.planned) }
    }

    /// The chunks that missed their plan in the title's own direction, those that moved the mean most first. One that is on the
    /// better side of the goal all the same is left there: what it lacks of its plan costs more than it was thought to.
    fn missing_most(&self, top: &RungDecision, tolerance: f64) -> Vec<usize> {
        if self.is_near(top, tolerance) {
            return Vec::new();
        }
        let direction = self.missing(top).signum();
        let missed =
            |n: &usize| (self.chunks[*n].planned - self.chunks[*n].measured) * direction * self.chunks[*n].weight_us as f64;
        let is_beside = |n: &usize| (top.goal_vmaf - self.chunks[*n].measured) * direction > 0.0;
        let mut order: Vec<usize> = (0..self.chunks.len()).filter(|n| missed(n) > 0.0 && is_beside(n)).collect();
        order.sort_by(|a, b| missed(b).total_cmp(&missed(a)).then(a.cmp(b)));
        order
    }
}

#[cfg(test)]
pub(super) mod tests;
