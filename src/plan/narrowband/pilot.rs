//! Pilots: a few chunks that are encoded first, by whose measured top rung the others are set right before they are encoded.
//!
//! Probes and calibrations know what differs between a title's chunks better than where the title lies as a whole: over 22 titles
//! in H.265 the loss that was measured differed from the probes' by 0.16 (rms of its logarithm) from title to title, and within a
//! title of two to four chunks from chunk to chunk by 0.01 to 0.16, half of them by less than 0.06. So one chunk as it is encoded
//! for the customer tells of the others what no beginning of a few pictures does, and costs nothing: it is kept. What the pilots
//! missed, the other chunks make up for, within limits, so that the title meets its goal. Later misses are repaired
//! ([`super::repair`]).

use super::curve::{FittedCurve, LEAST_LOSS};
use super::decide::{ChunkDecision, Decision, RungDecision};
use super::facts::ChunkFacts;
use super::ladder::highest_rate_bps;
use super::repair::MeasuredChunk;
use super::rules::Rules;
use super::stratify::strata;
use super::{BEST_VMAF, loss_of, quality_of, rounded};
use serde::{Deserialize, Serialize};

/// As many pilots as this times the square root of the title's chunks: what they do not tell of the others falls likewise.
const PER_ROOT: f64 = 0.75;
/// No pilot has fewer frames than this part of the longest chunk's, where there are enough of those.
const LEAST_OF_LONGEST: f64 = 0.6;
/// Standard deviations of logarithms of loss, as measured over as planned, from title to title and, of short titles, from chunk to
/// chunk; the latter weighs as much as the spread of so many pilots. (Over 28 plans titles were 0.15 apart, chunks of titles of up to
/// four chunks 0.01 to 0.16, of longer ones up to 0.32. Few titles are far off, and those wholly: of what pilots said 0.93 was true of
/// the others, by least squares over 44 runs.)
const TITLES_DEVIATE: f64 = 0.20;
const CHUNKS_DEVIATE: f64 = 0.08;
const DEVIATION_OF: f64 = 2.0;
/// Chunks move so far at most towards more bits and towards fewer, CRF: what is further off is not the title's level.
const MOST_MOVE_DOWN_CRF: f64 = 5.0;
const MOST_MOVE_UP_CRF: f64 = 4.0;
/// Halvings of the range of moves: to less than any encoder's step.
const HALVINGS: usize = 16;
/// The top rung stays at this times the rate of the next one, at least.
const ABOVE_NEXT_RUNG: f64 = 1.15;

/// How many chunks are encoded before the others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PilotRules {
    /// At most so many, whatever the title's length; 0: none.
    pub most: usize,
    /// The others make up for what the pilots missed by so much at most, each, VMAF-NEG.
    pub make_up_vmaf: f64,
}

impl Default for PilotRules {
    fn default() -> Self {
        Self { most: 8, make_up_vmaf: 2.0 }
    }
}

/// What the pilots said, and what followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adjustment {
    /// In order of the title.
    pub pilots: Vec<Pilot>,
    /// What the title was decided to have before anything was measured, VMAF-NEG.
    pub planned_vmaf: f64,
    /// Logarithm of the other chunks' loss, and of their rate, over what was planned.
    pub loss_shift: f64,
    pub rate_shift: f64,
    /// What the other chunks are to have in the mean, VMAF-NEG.
    pub wanted_vmaf: f64,
    /// By how much their CRF changed, before limits and whole steps.
    pub moved_crf: f64,
}

/// A chunk that was encoded before the others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pilot {
    pub chunk: usize,
    pub planned_vmaf: f64,
    pub measured_vmaf: f64,
    pub planned_kbps: f64,
    pub kbps: f64,
}

/// The chunks to encode before the others, in order of the title: none of a title of one chunk.
pub fn pilots(chunks: &[ChunkFacts], fits: &[FittedCurve], rules: &Rules) -> Vec<usize> {
    let count = ((chunks.len() as f64).sqrt() * PER_ROOT).round() as usize;
    if chunks.len() < 2 || rules.pilots.most == 0 {
        return Vec::new();
    }
    // A short one is its key frame more than the others are.
    let longest = chunks.iter().map(|chunk| chunk.frames).max().unwrap_or(0);
    let least_frames = (longest as f64 * LEAST_OF_LONGEST) as u64;
    let strata = strata(chunks, fits, count.clamp(1, rules.pilots.most), least_frames.max(rules.calibration.least_frames));
    strata.into_iter().map(|stratum| stratum.chunk).collect()
}

/// Sets the top rung's other chunks right by the pilots, `held`, which stay as they are, measured or not. `weights_us`: how long each
/// chunk lasts, microseconds; `starts_on_cut`: which begin a scene. `measured` come in any order, those of other chunks say nothing.
/// None: no pilot was measured.
pub fn adjust(
    decision: &Decision,
    held: &[usize],
    weights_us: &[u64],
    starts_on_cut: &[bool],
    measured: &[MeasuredChunk],
    rules: &Rules,
) -> Option<(Decision, Adjustment)> {
    let (top, lower) = decision.rungs.split_first()?;
    let pilots = told(top, held, measured);
    if pilots.is_empty() {
        return None;
    }
    let losses: Vec<f64> = pilots.iter().map(|p| libm::log(loss(p.measured_vmaf) / loss(p.planned_vmaf))).collect();
    let rates: Vec<f64> = pilots.iter().map(|p| libm::log(p.kbps / p.planned_kbps)).collect();
    let (loss_shift, rate_shift) = (believed(&losses), believed(&rates));
    let near = near(top, held, starts_on_cut, rules.allocation.largest_step_crf);
    let title = Title { top, weights_us, held, pilots: &pilots, near, fits: &decision.fits, loss_shift, rate_shift, rules };
    let wanted_vmaf = title.wanted();
    let lowest_kbps = lower.first().map_or(0.0, |next| next.predicted_kbps * ABOVE_NEXT_RUNG);
    let display = decision.candidates.first();
    let highest_bps = display.map_or(f64::INFINITY, |display| highest_rate_bps(decision.codec, &display.size, rules));
    let moved_crf = title.move_to(wanted_vmaf, (lowest_kbps, highest_bps / 1000.0));
    let mut adjusted = decision.clone();
    adjusted.rungs[0] = title.moved(moved_crf);
    let adjustment = Adjustment {
        planned_vmaf: top.predicted_vmaf,
        loss_shift: rounded(loss_shift, 4),
        rate_shift: rounded(rate_shift, 4),
        wanted_vmaf: rounded(wanted_vmaf, 3),
        moved_crf: rounded(moved_crf, 3),
        pilots,
    };
    Some((adjusted, adjustment))
}

/// The pilots of which something usable is known, in order of the title.
fn told(top: &RungDecision, held: &[usize], measured: &[MeasuredChunk]) -> Vec<Pilot> {
    let pilot = |measured: &MeasuredChunk| {
        let planned = top.chunks.get(measured.chunk)?;
        let is_score = (0.0..=100.0).contains(&measured.vmaf) && planned.predicted_kbps > 0.0;
        is_score.then(|| Pilot {
            chunk: measured.chunk,
            planned_vmaf: planned.predicted_vmaf,
            measured_vmaf: rounded(measured.vmaf, 4),
            planned_kbps: planned.predicted_kbps,
            kbps: measured.kbps.filter(|kbps| kbps.is_finite() && *kbps > 0.0).unwrap_or(planned.predicted_kbps),
        })
    };
    let mut pilots: Vec<Pilot> = measured.iter().filter(|m| held.contains(&m.chunk)).filter_map(pilot).collect();
    pilots.sort_by_key(|pilot| pilot.chunk);
    pilots.dedup_by_key(|pilot| pilot.chunk);
    pilots
}

/// Of what the pilots say of the title so much as is likely by how far they agree: the mean of a normal prior and theirs.
fn believed(of_pilots: &[f64]) -> f64 {
    let count = of_pilots.len() as f64;
    let mean = of_pilots.iter().sum::<f64>() / count;
    let spread: f64 = of_pilots.iter().map(|of| (of - mean) * (of - mean)).sum();
    let of_chunks = (DEVIATION_OF * CHUNKS_DEVIATE * CHUNKS_DEVIATE + spread) / (DEVIATION_OF + count - 1.0);
    let of_titles = TITLES_DEVIATE * TITLES_DEVIATE;
    mean * of_titles / (of_titles + of_chunks / count)
}

/// The CRFs that each chunk may have for the pilots of its scene, the one that it was planned at among them. A pilot is what it is: at
/// the seam beside it the step may be twice as large as within a scene else, and from there on as it always may. (Floors and peaks
/// hold chunks back as they do in the plan, whatever the step.)
fn near(top: &RungDecision, held: &[usize], starts_on_cut: &[bool], step: f64) -> Vec<(f64, f64)> {
    let scenes = (0..top.chunks.len()).scan(0, |scene, chunk| {
        *scene += usize::from(chunk > 0 && starts_on_cut.get(chunk).copied().unwrap_or(true));
        Some(*scene)
    });
    let scenes: Vec<usize> = scenes.collect();
    let of_chunk = |chunk: usize| {
        let planned = top.chunks[chunk].crf;
        let pilots = held.iter().filter(|pilot| scenes.get(**pilot) == Some(&scenes[chunk]));
        let limits = pilots.map(|pilot| (top.chunks[*pilot].crf, step * (chunk.abs_diff(*pilot) + 1) as f64));
        let (lowest, highest) =
            limits.fold((f64::MIN, f64::MAX), |(lowest, highest), (crf, away)| (lowest.max(crf - away), highest.min(crf + away)));
        (lowest.min(planned), highest.max(planned))
    };
    (0..top.chunks.len()).map(of_chunk).collect()
}

/// The furthest place on the way at which something holds that ends once; the beginning where it holds nowhere.
fn furthest(from: f64, to: f64, holds: impl Fn(f64) -> bool) -> f64 {
    if holds(to) {
        return to;
    }
    let (mut good, mut bad) = (from, to);
    for _ in 0..HALVINGS {
        let middle = (good + bad) / 2.0;
        if holds(middle) { good = middle } else { bad = middle }
    }
    good
}

fn loss(vmaf: f64) -> f64 {
    loss_of(vmaf.max(1.0)).max(LEAST_LOSS)
}

struct Title<'a> {
    top: &'a RungDecision,
    weights_us: &'a [u64],
    /// All that are encoded already.
    held: &'a [usize],
    /// And those of which it is known what they came to.
    pilots: &'a [Pilot],
    /// The CRFs that each chunk may have for the pilots of its scene.
    near: Vec<(f64, f64)>,
    fits: &'a [FittedCurve],
    loss_shift: f64,
    rate_shift: f64,
    rules: &'a Rules,
}

impl Title<'_> {
    fn pilot(&self, chunk: usize) -> Option<&Pilot> {
        self.pilots.iter().find(|pilot| pilot.chunk == chunk)
    }

    fn weight(&self, chunk: usize) -> f64 {
        self.weights_us.get(chunk).map_or(1.0, |weight| (*weight).max(1) as f64)
    }

    /// Sum over chunks by how long they last, and how long those last.
    fn sum(&self, of: impl Fn(usize) -> Option<f64>) -> (f64, f64) {
        let known = (0..self.top.chunks.len()).filter_map(|chunk| Some((of(chunk)?, self.weight(chunk))));
        known.fold((0.0, 0.0), |(sum, all), (value, weight)| (sum + value * weight, all + weight))
    }

    /// Mean over the chunks that are no pilots.
    fn mean_of_others(&self, of: impl Fn(usize) -> f64) -> f64 {
        let (sum, weight) = self.sum(|chunk| (!self.held.contains(&chunk)).then(|| of(chunk)));
        sum / weight.max(1.0)
    }

    /// What the others are to have, so that the title has what was planned.
    fn wanted(&self) -> f64 {
        // Next to 100 as far as a loss can be told from none.
        let planned = self.mean_of_others(|chunk| quality_of(loss(self.top.chunks[chunk].predicted_vmaf)));
        let (missed, _) = self.sum(|chunk| self.pilot(chunk).map(|pilot| pilot.planned_vmaf - pilot.measured_vmaf));
        let (_, others) = self.sum(|chunk| (!self.held.contains(&chunk)).then_some(0.0));
        let most = self.rules.pilots.make_up_vmaf.max(0.0);
        planned + (missed / others.max(1.0)).clamp(-most, most)
    }

    /// The move of all other chunks at which their mean is as wanted, or as far as it pays: the rung stays above the next one, and
    /// buys no more than the decision may ([`super::ladder::place`]): no gain of too little, no rate beyond the highest.
    fn move_to(&self, wanted_vmaf: f64, (lowest_kbps, highest_kbps): (f64, f64)) -> f64 {
        let pays = |moved: f64| {
            let at = |chunk: usize| self.at(chunk, moved);
            let (gains, rates) = (
                self.mean_of_others(|chunk| {
                    let vmaf = at(chunk).predicted_vmaf;
                    self.slopes(chunk).0 * loss(vmaf) * vmaf / BEST_VMAF
                }),
                self.mean_of_others(|chunk| self.slopes(chunk).1),
            );
            let per_doubling = gains / rates.max(f64::MIN_POSITIVE) * std::f64::consts::LN_2;
            let (kbps, weight) = self.sum(|chunk| Some(self.known(chunk).unwrap_or_else(|| at(chunk)).predicted_kbps));
            per_doubling >= self.rules.least_gain_per_doubling_vmaf && kbps / weight.max(1.0) <= highest_kbps
        };
        let is_good = |moved: f64| {
            let quality = self.mean_of_others(|chunk| self.at(chunk, moved).predicted_vmaf);
            let planned_rate = |chunk: usize| {
                let planned = self.top.chunks[chunk];
                planned.predicted_kbps * libm::exp(-self.slopes(chunk).1 * (self.crf(chunk, moved) - planned.crf))
            };
            quality >= wanted_vmaf && (moved <= 0.0 || self.mean_of_others(planned_rate) >= lowest_kbps)
        };
        let lowest = if pays(0.0) { furthest(0.0, -MOST_MOVE_DOWN_CRF, pays) } else { 0.0 };
        furthest(lowest, MOST_MOVE_UP_CRF, is_good)
    }

    fn slopes(&self, chunk: usize) -> (f64, f64) {
        self.fits.get(chunk).map_or((0.0, 0.0), |fit| (fit.curve.loss_slope, fit.curve.rate_slope))
    }

    fn crf(&self, chunk: usize, moved: f64) -> f64 {
        let range = &self.rules.allocation.crf;
        let planned = self.top.chunks[chunk].crf;
        let (lowest, highest) = self.near[chunk];
        // Where the plan is beyond the range already, it stays.
        (planned + moved).clamp(lowest.max(range.lowest.min(planned)), highest.min(range.highest.max(planned)))
    }

    /// A chunk, moved by so much.
    fn at(&self, chunk: usize, moved: f64) -> ChunkDecision {
        self.with_crf(chunk, self.crf(chunk, moved))
    }

    /// What is expected of a chunk at a CRF, by its own slopes and what the pilots said.
    fn with_crf(&self, chunk: usize, crf: f64) -> ChunkDecision {
        let planned = self.top.chunks[chunk];
        let ((loss_slope, rate_slope), by) = (self.slopes(chunk), crf - planned.crf);
        let expected = loss(planned.predicted_vmaf) * libm::exp(self.loss_shift + loss_slope * by);
        ChunkDecision {
            crf,
            predicted_kbps: planned.predicted_kbps * libm::exp(self.rate_shift - rate_slope * by),
            predicted_vmaf: quality_of(expected),
            bound: planned.bound,
        }
    }

    /// A pilot as it came out, or where nobody measured it as planned.
    fn known(&self, chunk: usize) -> Option<ChunkDecision> {
        let planned = self.top.chunks[chunk];
        let came_out =
            |pilot: &Pilot| ChunkDecision { predicted_kbps: pilot.kbps, predicted_vmaf: pilot.measured_vmaf, ..planned };
        self.held.contains(&chunk).then(|| self.pilot(chunk).map_or(planned, came_out))
    }

    /// The rung with all other chunks moved, in whole steps, none beyond a peak that it was not beyond before, none lifted
    /// over its floor's CRF; of the pilots, what they came to.
    fn moved(&self, moved_crf: f64) -> RungDecision {
        let chunks = || 0..self.top.chunks.len();
        let of = |chunk: usize, crf: f64| self.known(chunk).unwrap_or_else(|| self.with_crf(chunk, crf));
        let mean = |chunks: &[ChunkDecision], of: fn(&ChunkDecision) -> f64| {
            let (sum, weight) = self.sum(|chunk| chunks.get(chunk).map(of));
            sum / weight.max(1.0)
        };
        let first: Vec<ChunkDecision> = chunks().map(|chunk| of(chunk, self.above_floor(chunk, moved_crf))).collect();
        let peak_to_mean = self.rules.allocation.peak_to_mean;
        let most_kbps = (mean(&first, |chunk| chunk.predicted_kbps) * peak_to_mean).min(self.top.cap_kbps(peak_to_mean));
        let within_peak = |(chunk, decided): (usize, &ChunkDecision)| {
            let (planned, rate_slope) = (self.top.chunks[chunk], self.slopes(chunk).1);
            let beyond = libm::log(decided.predicted_kbps / most_kbps).max(0.0) / rate_slope;
            let crf = if beyond.is_finite() { decided.crf + beyond } else { decided.crf };
            let crf = crf.min(planned.crf.max(decided.crf));
            // A move under half a step leaves all as it is.
            let crf = if (crf - planned.crf).abs() < self.rules.allocation.crf.step / 2.0 { planned.crf } else { crf };
            let decided = of(chunk, if crf == planned.crf { crf } else { self.rules.allocation.crf.nearest(crf) });
            ChunkDecision {
                predicted_kbps: rounded(decided.predicted_kbps, 1),
                predicted_vmaf: rounded(decided.predicted_vmaf, 3),
                ..decided
            }
        };
        let chunks: Vec<ChunkDecision> = first.iter().enumerate().map(within_peak).collect();
        let peak = chunks.iter().map(|chunk| chunk.predicted_kbps).fold(0.0, f64::max);
        RungDecision {
            predicted_vmaf: rounded(mean(&chunks, |chunk| chunk.predicted_vmaf), 3),
            predicted_kbps: rounded(mean(&chunks, |chunk| chunk.predicted_kbps), 1),
            peak_kbps: rounded(peak, 1),
            chunks,
            ..self.top.clone()
        }
    }

    /// A chunk's CRF, moved, but not to fewer bits than its floor needs, if it had those.
    fn above_floor(&self, chunk: usize, moved: f64) -> f64 {
        let (planned, slope) = (self.top.chunks[chunk], self.slopes(chunk).0);
        let crf = self.crf(chunk, moved);
        let at_floor =
            planned.crf + (libm::log(loss(self.top.floor_vmaf) / loss(planned.predicted_vmaf)) - self.loss_shift) / slope;
        if at_floor.is_finite() && moved > 0.0 { crf.min(at_floor.max(planned.crf)) } else { crf }
    }
}

#[cfg(test)]
mod tests;
