//! Which chunks are encoded at the final preset to calibrate the others: few, and of every kind the title has.
//!
//! Chunks stand in order of complexity, which is the rate at which the fits reach a reference quality; the line they make
//! is cut into equal strata, and each stratum sends the chunk at its middle. A chunk is as long on that line as its
//! share of the title's time and of its bits, half and half: time decides the mean quality, bits decide the mean rate.

use super::curve::FittedCurve;
use super::facts::ChunkFacts;
use super::loss_of;
use serde::{Deserialize, Serialize};

/// Quality at which chunks are compared, VMAF-NEG: where the upper rungs will be.
const REFERENCE_VMAF: f64 = 90.0;
/// CRFs beyond which a fit is not asked for a rate.
const ASKED_CRF: std::ops::RangeInclusive<f64> = 10.0..=50.0;

/// How many chunks are calibrated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CalibrationRules {
    /// At most so many, whatever the title's length.
    pub most: usize,
    /// Of the title's frames this share.
    pub share: f64,
    /// Of each chunk so many frames from its first on; fewer where the share of a short title is less.
    pub frames: u64,
    /// Chunks with fewer frames are not asked: they are mostly key frame.
    pub least_frames: u64,
}

/// Two calibrations give a line its tilt, so there are as many, however short the title, if they are affordable.
const LEAST_CALIBRATIONS: usize = 2;

impl Default for CalibrationRules {
    /// A calibration costs what the rung's own encode of those frames costs. The first pictures of a chunk are enough, as the
    /// probes are judged by the same ones.
    fn default() -> Self {
        Self { most: 12, share: 0.1, frames: 16, least_frames: 12 }
    }
}

/// Fewer frames than these are hardly more than their key frame.
const LEAST_BEGINNING: u64 = 10;

impl CalibrationRules {
    /// How many frames of a chunk are encoded, of a title of so many.
    pub fn beginning(&self, title_frames: u64) -> u64 {
        let share = (title_frames as f64 * self.share / LEAST_CALIBRATIONS as f64).round() as u64;
        share.max(LEAST_BEGINNING).min(self.frames).max(1)
    }
}

/// A chunk to calibrate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stratum {
    /// Index of the chunk.
    pub chunk: usize,
    /// The part of the title it stands for, 0 to 1.
    pub weight: f64,
}

/// The chunks to calibrate, in order of index; all weights together are 1.
pub fn stratify(chunks: &[ChunkFacts], fits: &[FittedCurve], rules: &CalibrationRules) -> Vec<Stratum> {
    let frames: u64 = chunks.iter().map(|chunk| chunk.frames).sum();
    let wanted = (frames as f64 * rules.share / rules.beginning(frames) as f64).round() as usize;
    strata(chunks, fits, wanted.max(LEAST_CALIBRATIONS).min(rules.most.max(1)), rules.least_frames)
}

/// So many chunks of all kinds, or as many as there are; of those with fewer frames than `least_frames` only where no other is
/// sound. In order of index.
pub fn strata(chunks: &[ChunkFacts], fits: &[FittedCurve], count: usize, least_frames: u64) -> Vec<Stratum> {
    let line = by_complexity(chunks, fits);
    let askable = |n: usize| chunks[n].frames >= least_frames && fits[n].is_measured();
    // Where no chunk is sound the others must do.
    let any_sound = line.iter().any(|place| askable(place.chunk));
    let asked: Vec<&Place> = line.iter().filter(|place| !any_sound || askable(place.chunk)).collect();
    let count = count.min(asked.len());
    let mut strata: Vec<Stratum> = Vec::with_capacity(count);
    for n in 0..count {
        let middle = (n as f64 + 0.5) / count as f64;
        let free = asked.iter().filter(|place| strata.iter().all(|s| s.chunk != place.chunk));
        let nearest = free.min_by(|a, b| (a.middle - middle).abs().total_cmp(&(b.middle - middle).abs()));
        strata.extend(nearest.map(|place| Stratum { chunk: place.chunk, weight: 1.0 / count as f64 }));
    }
    strata.sort_by_key(|stratum| stratum.chunk);
    strata
}

/// A chunk on the line of complexity, which is 1 long.
struct Place {
    chunk: usize,
    /// Where the middle of the chunk lies.
    middle: f64,
}

fn by_complexity(chunks: &[ChunkFacts], fits: &[FittedCurve]) -> Vec<Place> {
    let mut order: Vec<(f64, u64, usize)> = chunks
        .iter()
        .zip(fits)
        .enumerate()
        .map(|(n, (chunk, fit))| {
            let crf = fit.curve.crf_of_loss(loss_of(REFERENCE_VMAF)).clamp(*ASKED_CRF.start(), *ASKED_CRF.end());
            (fit.curve.rate_bps(crf), chunk.weight_us(), n)
        })
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    let time: f64 = order.iter().map(|(_, weight, _)| *weight as f64).sum();
    let bits: f64 = order.iter().map(|(rate, weight, _)| rate * *weight as f64).sum();
    let mut at = 0.0;
    order
        .iter()
        .map(|(rate, weight, chunk)| {
            let length = (*weight as f64 / time + rate * *weight as f64 / bits.max(f64::MIN_POSITIVE)) / 2.0;
            at += length;
            Place { chunk: *chunk, middle: at - length / 2.0 }
        })
        .collect()
}

#[cfg(test)]
mod tests;
