//! CRF of every chunk of one rung: the fewest bits for the title's quality.
//!
//! Minimise `sum n_i R_i(q_i)` subject to `sum n_i D_i(q_i) <= D sum n_i`, with n the chunk's duration, R its bits a
//! second, D = 100 - V its shortfall. With the multiplier L on the shortfall each chunk stands alone, and it is at its
//! best where the derivative of `n (R + L D)` is zero. With `ln R = a - b q` and `V = 100 exp(-X / 100)`, where
//! `X = U + exp(c + d q)`, that is `b R = L d exp(c + d q) V / 100`, or in logarithms
//!
//! ```text
//! q_i = [ln(b_i / d_i) + a_i - c_i - ln L - ln(V_i / 100)] / (b_i + d_i)
//! ```
//!
//! The duration has cancelled, for rate and quality are both means over time; with R in bits a chunk instead, a_i would
//! hold ln n_i, and n_i would stand below b_i. Near V = 100 the last logarithm is nothing, and the formula closed; else
//! a few steps of Newton's method solve it. R and D are convex in q, so this is the optimum, and a limit on one chunk's
//! CRF only clamps its q_i. L is found by bisection.
//!
//! CRFs come in steps, and neighbours within a scene are coupled, so the same Lagrangian is minimised over whole steps
//! (`lattice`), exactly; what the steps leave of the goal is spent afterwards. Limits, the stronger first: the
//! encoder's CRFs and what the probes let believe; the peak; the floor of the worst chunk; steps at seams; the goal.
//!
//! The peak is tied to the mean it helps to make. Let `m(P)` be the least mean rate when no chunk exceeds P: it never
//! falls when P does. A choice with mean M and peak 2 M costs at least m(2 M), so the least possible mean is where
//! `P = 2 m(P)`, and as one side rises with P and the other does not, bisection finds it. Where chunks are under the floor then,
//! the goal is raised by a little: others take more bits, at the title's own slope, and with the mean the peak rises.

mod lattice;
mod polish;

use super::curve::Curve;
use super::rules::{AllocationRules, CrfRange};
use super::{BEST_VMAF, rounded};
use lattice::{Row, SHORTFALL_UNITS};
use serde::{Deserialize, Serialize};

/// Newton's method ends after so many steps, or nearer than this to zero.
const NEWTON_STEPS: usize = 24;
const NEWTON_REST: f64 = 1e-12;
/// Halvings of the multiplier's range, of its logarithm: ends 1e26 apart come within 1e-8 of each other.
const MULTIPLIER_HALVINGS: usize = 33;
/// Where the peak holds chunks under the floor, the title is planned up to so much above its goal, in so many steps: a
/// better mean is a higher one, and lets the peak rise. VMAF-NEG.
pub const MOST_RAISE_VMAF: f64 = 0.4;
const RAISES: u32 = 2;
/// The peak is looked for so many halvings below the one wanted first.
const PEAK_FALLS: usize = 16;
/// Halvings of the peak's range: to a thousandth of it.
const PEAK_HALVINGS: usize = 12;

/// One chunk as the allocation sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// At the rung's size and preset.
    pub curve: Curve,
    /// [`super::ChunkFacts::weight_us`].
    pub weight_us: u64,
    pub starts_on_cut: bool,
    /// Lowest and highest CRF that was measured; absent: none was.
    pub probed_crf: Option<(f64, f64)>,
    /// Lowest and highest CRF wanted of it, where floor and peak allow.
    pub held_crf: Option<(f64, f64)>,
}

/// Quality that a rung is to have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    /// Mean by duration, VMAF-NEG.
    pub mean_vmaf: f64,
    /// Of the worst chunk.
    pub floor_vmaf: f64,
}

/// What kept a chunk from the CRF that the common slope gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// It would look worse than the floor allows.
    Floor,
    /// It would exceed the peak.
    Peak,
    /// The encoder takes no such CRF, or no probe was near.
    Range,
}

/// CRFs of one rung, chunk by chunk, and what they are expected to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    pub chunks: Vec<Allocated>,
    /// Bits a second over the title.
    pub mean_rate_bps: f64,
    /// Of the costliest chunk.
    pub peak_rate_bps: f64,
    /// VMAF-NEG by duration.
    pub mean_vmaf: f64,
    /// The goal is met.
    pub reached: bool,
    /// Chunks below the floor: sources or peaks that do not allow it.
    pub below_floor: usize,
    /// Seams within a scene with a larger step than wanted, because other limits force it.
    pub steep_seams: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allocated {
    pub crf: f64,
    pub rate_bps: f64,
    pub vmaf: f64,
    pub bound: Option<Bound>,
}

/// Shares the quality of a rung among its chunks.
///
/// A title without chunks has an empty allocation, of rate 0 and quality 100.
pub fn allocate(shares: &[Share], goal: &Goal, rules: &AllocationRules) -> Allocation {
    let mut best = allocate_at_goal(shares, goal, rules);
    let is_held = best.chunks.iter().any(|chunk| chunk.bound == Some(Bound::Peak));
    if best.below_floor == 0 || !best.reached || !is_held {
        return best;
    }
    for raise in 1..=RAISES {
        let raised =
            Goal { mean_vmaf: (goal.mean_vmaf + f64::from(raise) * MOST_RAISE_VMAF / f64::from(RAISES)).min(BEST_VMAF), ..*goal };
        let allocation = allocate_at_goal(shares, &raised, rules);
        if allocation.below_floor < best.below_floor {
            best = Allocation { reached: true, ..allocation };
        }
        if best.below_floor == 0 {
            break;
        }
    }
    best
}

/// As [`allocate`], with the goal as it is.
pub fn allocate_at_goal(shares: &[Share], goal: &Goal, rules: &AllocationRules) -> Allocation {
    let problem = Problem::new(shares, goal, rules);
    let free = problem.solve(f64::INFINITY, f64::INFINITY);
    let solution = if problem.keeps_peak(&free.choice) { free } else { problem.solve_under_peak(&free) };
    problem.allocation(solution)
}

/// The CRF of a chunk where a bit buys as much as at the multiplier, before any limit: the formula above.
/// `ln_multiplier` is ln L with the rate in bits a second.
pub fn crf_at_slope(curve: &Curve, ln_multiplier: f64) -> f64 {
    let ratio = libm::log(curve.rate_slope / curve.loss_slope) + curve.loss_floor / BEST_VMAF;
    let mut crf = (ratio + curve.ln_rate - curve.ln_loss - ln_multiplier) / (curve.rate_slope + curve.loss_slope);
    // What is left falls, and ever less steeply: from this side Newton's steps never pass the zero.
    for _ in 0..NEWTON_STEPS {
        let rest = ln_multiplier_at(curve, crf) - ln_multiplier;
        if rest.abs() < NEWTON_REST {
            break;
        }
        crf += rest / (curve.rate_slope + curve.ln_shortfall_slope(crf).1);
    }
    crf
}

/// The same solved for ln L: the slope at which a chunk stands at a CRF.
pub fn ln_multiplier_at(curve: &Curve, crf: f64) -> f64 {
    libm::log(curve.rate_slope) + curve.ln_rate - curve.rate_slope * crf - curve.ln_shortfall_slope(crf).0
}

/// Lowest and highest CRF that a chunk may have: those of the encoder that are not too far from what was probed.
/// A chunk without probes may have any.
pub fn believed_crf(probed_crf: Option<(f64, f64)>, rules: &AllocationRules) -> (f64, f64) {
    let (least, most) = believed(probed_crf, rules);
    (lattice::crf(least, &rules.crf), lattice::crf(most, &rules.crf))
}

struct Problem<'a> {
    shares: &'a [Share],
    rules: &'a AllocationRules,
    /// With every limit but the peak.
    rows: Vec<Row>,
    /// Highest level of each chunk that keeps the floor; none where no level does.
    floors: Vec<Option<usize>>,
    /// Shortfall of the whole title at the goal, in units of the rows.
    most_shortfall: u64,
    weight_us: u64,
}

/// A choice and how it was come by.
struct Solution {
    choice: Vec<usize>,
    rows: Vec<Row>,
    multiplier: f64,
    peak: f64,
    steep_seams: usize,
}

impl<'a> Problem<'a> {
    fn new(shares: &'a [Share], goal: &Goal, rules: &'a AllocationRules) -> Self {
        let weight_us: u64 = shares.iter().map(|share| share.weight_us).sum();
        let most_shortfall = ((BEST_VMAF - goal.mean_vmaf) * weight_us as f64 * SHORTFALL_UNITS).round() as u64;
        let step = (rules.largest_step_crf / rules.crf.step).floor().max(0.0) as usize;
        let mut rows = Vec::with_capacity(shares.len());
        let mut floors = Vec::with_capacity(shares.len());
        for (n, share) in shares.iter().enumerate() {
            let mut row = Row::new(&share.curve, share.weight_us, &rules.crf);
            (row.lowest, row.highest) = believed(share.probed_crf, rules);
            row.step = (n > 0 && !share.starts_on_cut).then_some(step);
            let floor_shortfall = ((BEST_VMAF - goal.floor_vmaf) * share.weight_us as f64 * SHORTFALL_UNITS).round() as u64;
            let kept = row.shortfall[row.lowest..=row.highest].partition_point(|shortfall| *shortfall <= floor_shortfall);
            floors.push(kept.checked_sub(1).map(|last| row.lowest + last));
            row.highest = row.lowest + kept.saturating_sub(1);
            if let Some((from, to)) = share.held_crf {
                row.lowest = level(from, &rules.crf).clamp(row.lowest, row.highest);
                row.highest = level(to, &rules.crf).clamp(row.lowest, row.highest);
            }
            rows.push(row);
        }
        Self { shares, rules, rows, floors, most_shortfall, weight_us }
    }

    /// The best choice with no chunk above `peak` bits a second and no multiplier above `steepest`.
    fn solve(&self, peak: f64, steepest: f64) -> Solution {
        let mut rows = self.rows.clone();
        for (n, row) in rows.iter_mut().enumerate() {
            let most = self.most_for_peak(n);
            let within = |level: &usize| self.rate_bps(n, *level) <= peak;
            let least = (row.lowest..=most).find(within).unwrap_or(most);
            row.lowest = row.lowest.max(least);
            row.highest = row.highest.max(row.lowest);
        }
        let steep_seams = lattice::widen_steps(&mut rows);
        let (mut low, mut high) = lattice::multipliers(&rows);
        high = high.min(steepest).max(low);
        let mut choice = lattice::best(&rows, high);
        for _ in 0..MULTIPLIER_HALVINGS {
            // The middle of the logarithms, which a square root gives alike on every machine.
            let middle = (low * high).sqrt();
            let candidate = lattice::best(&rows, middle);
            if lattice::totals(&rows, &candidate).1 <= self.most_shortfall {
                (high, choice) = (middle, candidate);
            } else {
                low = middle;
            }
        }
        polish::polish(&rows, &mut choice, self.most_shortfall);
        Solution { choice, rows, multiplier: high, peak, steep_seams }
    }

    /// The best choice whose peak keeps its distance from its own mean.
    fn solve_under_peak(&self, free: &Solution) -> Solution {
        let steepest = free.multiplier * self.rules.most_slope_stretch;
        let (mut low, mut high) = (self.most_peak(&free.choice), self.peak_bps(&free.choice));
        let mut best = self.solve(low, steepest);
        // Where the slope's limit forbids to make up for the peak the mean falls with it: the place lies lower.
        for _ in 0..PEAK_FALLS {
            if self.keeps_peak(&best.choice) {
                break;
            }
            (low, high) = (low / 2.0, low);
            best = self.solve(low, steepest);
        }
        for _ in 0..PEAK_HALVINGS {
            let middle = (low * high).sqrt();
            let solution = self.solve(middle, steepest);
            if self.keeps_peak(&solution.choice) {
                (low, best) = (middle, solution);
            } else {
                high = middle;
            }
        }
        best
    }

    /// No chunk exceeds the peak that could be held under it.
    fn keeps_peak(&self, choice: &[usize]) -> bool {
        let most = self.most_peak(choice);
        choice.iter().enumerate().all(|(n, level)| *level >= self.most_for_peak(n) || self.rate_bps(n, *level) <= most)
    }

    /// The level up to which a chunk goes to keep the peak.
    fn most_for_peak(&self, n: usize) -> usize {
        let (_, most) = believed(self.shares[n].probed_crf, self.rules);
        self.floors[n].filter(|_| self.rules.floor_over_peak).unwrap_or(most)
    }

    fn rate_bps(&self, n: usize, level: usize) -> f64 {
        self.shares[n].curve.rate_bps(self.crf(level))
    }

    fn mean_bps(&self, choice: &[usize]) -> f64 {
        lattice::totals(&self.rows, choice).0 as f64 * 1e6 / self.weight_us.max(1) as f64
    }

    fn most_peak(&self, choice: &[usize]) -> f64 {
        self.mean_bps(choice) * self.rules.peak_to_mean
    }

    fn peak_bps(&self, choice: &[usize]) -> f64 {
        choice.iter().enumerate().map(|(n, level)| self.rate_bps(n, *level)).fold(0.0, f64::max)
    }

    fn crf(&self, level: usize) -> f64 {
        lattice::crf(level, &self.rules.crf)
    }

    fn allocation(&self, solution: Solution) -> Allocation {
        let choice = &solution.choice;
        let chunks: Vec<Allocated> = (0..choice.len()).map(|n| self.allocated(n, &solution)).collect();
        let below = |n: &usize| self.floors[*n].is_none_or(|floor| choice[*n] > floor);
        let shortfall = lattice::totals(&self.rows, choice).1;
        let quality = |(chunk, share): (&Allocated, &Share)| (chunk.vmaf * share.weight_us as f64 * SHORTFALL_UNITS).round();
        let quality: u128 = chunks.iter().zip(self.shares).map(|both| quality(both) as u128).sum();
        let all = self.weight_us as f64 * SHORTFALL_UNITS;
        let mean_vmaf = if self.weight_us == 0 { BEST_VMAF } else { quality as f64 / all };
        Allocation {
            mean_rate_bps: self.mean_bps(choice),
            peak_rate_bps: self.peak_bps(choice),
            mean_vmaf: rounded(mean_vmaf, 6),
            reached: shortfall <= self.most_shortfall,
            below_floor: (0..choice.len()).filter(below).count(),
            steep_seams: solution.steep_seams,
            chunks,
        }
    }

    fn allocated(&self, n: usize, solution: &Solution) -> Allocated {
        let (level, share) = (solution.choice[n], &self.shares[n]);
        let crf = self.crf(level);
        let (least, most) = believed(share.probed_crf, self.rules);
        let bound = if level > least && level == solution.rows[n].lowest && solution.peak.is_finite() {
            Some(Bound::Peak)
        } else if level < most && self.floors[n] == Some(level) {
            Some(Bound::Floor)
        } else if level == least || level == most {
            Some(Bound::Range)
        } else {
            None
        };
        Allocated { crf, rate_bps: share.curve.rate_bps(crf), vmaf: share.curve.quality(crf), bound }
    }
}

fn believed(probed_crf: Option<(f64, f64)>, rules: &AllocationRules) -> (usize, usize) {
    let range = &rules.crf;
    let last = lattice::levels(range) - 1;
    let Some((from, to)) = probed_crf else { return (0, last) };
    (level(from - rules.extrapolation_crf, range), level(to + rules.extrapolation_crf, range))
}

/// The first level that is no better than this CRF.
fn level(crf: f64, range: &CrfRange) -> usize {
    (((crf - range.lowest) / range.step).ceil().max(0.0) as usize).min(lattice::levels(range) - 1)
}

/// Is this range one that CRFs can be chosen from?
///
/// # Errors
/// Says what is wrong with it.
pub fn check_range(range: &CrfRange) -> Result<(), String> {
    let sound = range.lowest.is_finite() && range.highest.is_finite() && range.step.is_finite() && range.step > 0.0;
    if sound && range.lowest <= range.highest { Ok(()) } else { Err(format!("no CRF lies in {range:?}")) }
}

#[cfg(test)]
mod tests;
