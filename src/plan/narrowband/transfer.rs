//! From the probe's curves to those of a rung: what a few encodes at the final preset and picture size say of all chunks.
//!
//! Two lines, one set for each picture size. The logarithm of the rate ratio is a shift and a tilt over CRF. The loss at
//! display size is affine in the probe's: `X' = U + k X`. U is what the smaller picture loses by itself, whatever its
//! bits, and k how much plainer coding artefacts become when enlarged: in qualities, that of scaling times a power of
//! that of coding. (Over 13 combinations of five shots with 1080p, 720p and 540p at CRF 22 to 37 the line is off by 0.8 VMAF
//! at worst, where a constant ratio of shortfalls is off by 29, for at high quality U remains.)
//! U differs much from shot to shot. The loss of scaling alone, which takes no encode to measure ([`ScaledPoint`]), tells
//! it to within 8 (animation at 540p: 7 for 2, drone 18 for 15, low-key 9 for 16, water at 540p of 720p 3 for 5); where
//! that was not measured, a rule of thumb stands for it. What is estimated is how far all chunks are from that, and k, by weighted least squares held to a
//! prior, so that it is sound with one point, or none. A size that was not calibrated differs from its prior as the
//! nearest one that was. A chunk that was itself calibrated is moved further, by what it differs from the estimate. Where only
//! its beginning was, that is held against the probes of the same pictures.

use super::super::preset::VideoCodec;
use super::curve::{CRF_DECIMALS, Curve, FittedCurve, LEAST_LOSS, LOST_VMAF, VMAF_DECIMALS, fit};
use super::facts::{CalibrationPoint, ChunkFacts, ScaledPoint, TitleFacts};
use super::hull::Candidate;
use super::prior::prior_of;
use super::{BEST_VMAF, loss_of, rounded};
use serde::{Deserialize, Serialize};

/// Rates grow with this power of the pixels at the same CRF: 0.59 to 0.92 over those shots, half of them 0.70 to 0.79.
const RATE_OF_PIXELS: f64 = 0.75;
/// Standard deviations: of one calibration from the line, and of the priors of shift and tilt (a CRF). That of the shift weighs
/// as much as a fraction of one point. That of the tilt is strong: unlike chunks are calibrated at unlike CRFs, and what they differ
/// by looks like a tilt (believed at 0.02, a title of four scenes had its stillest one at half its true rate).
const RATE_NOISE: f64 = 0.08;
const SHIFT_DOUBT: f64 = 0.30;
const TILT_DOUBT: f64 = 0.005;
/// The same for the loss, and for its factor. At the display's own size a beginning says little of a chunk that its probes have not
/// said: over 12 titles of 2 to 7 chunks in H.265, calibrated by 16 or 32 pictures of two, whole chunks lie 1.1 VMAF from this line
/// and titles 0.45; believed like smaller sizes, whose U no probe knows, it is 1.5 and 1.1. In H.264 a beginning says more.
const FACTOR_DOUBT_AT_DISPLAY: f64 = 0.2;
const LOSS_NOISE: f64 = 2.0;
const FACTOR_DOUBT: f64 = 0.4;
/// And for U, by rule of thumb and as measured.
const FLOOR_DOUBT: f64 = 10.0;
const MEASURED_FLOOR_DOUBT: f64 = 6.0;
/// Of a measured U so much remains, whatever calibrations of poor pictures say.
const LEAST_FLOOR: f64 = 0.5;
/// Loss of scaling to a part s of the display's height and back: this times (1 - s)^2. Medians of those shots: 4 at two
/// thirds, 15 at a half, 32 at a third; for animation much less.
const FLOOR_OF_SCALING: f64 = 60.0;
/// By how much the factor on coding losses rises with (1 - s)^2. Medians: 0.9 at display size, 1.4, 1.9, 3.0.
const FACTOR_OF_SCALING: f64 = 4.2;
/// No picture size makes less of a coding loss.
const LEAST_FACTOR: f64 = 0.2;
/// Weights are rounded for the same reason as scores.
const WEIGHT_DECIMALS: u32 = 6;
/// Losses of a probe's curve beyond this are extrapolations that say nothing.
const MOST_PROBE_LOSS: f64 = 300.0;
/// A chunk's own difference is believed as if so many points spoke for none: of all of it, and of its beginning, by rate and loss.
const WHOLE_DOUBT: f64 = 0.25;
const BEGINNING_DOUBT: (f64, f64) = (1.0, 4.0);

/// How the curves of one picture size come from the probe's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    pub width: u32,
    pub height: u32,
    /// Calibration points it rests on; 0: the prior alone.
    pub points: usize,
    /// Where tilt turns, CRF.
    pub centre_crf: f64,
    /// Logarithm of rung's rate over probe's at the centre, and its change a CRF.
    pub rate_shift: f64,
    pub rate_tilt: f64,
    /// By how much U is more than each chunk's own loss of scaling.
    pub floor_offset: f64,
    /// k.
    pub loss_factor: f64,
}

/// One calibration against what the probe's curve says at the same CRF.
struct Pair {
    weight: f64,
    /// The same for the loss: a distance in loss is worth as much as the quality it takes.
    loss_weight: f64,
    chunk: usize,
    /// All of the chunk was calibrated.
    is_whole: bool,
    crf: f64,
    /// What the probes say of the pictures that were calibrated.
    curve: Curve,
    /// Logarithm of the rate ratio.
    rate: f64,
    /// Loss by the probe's curve, by scaling alone, and as calibrated.
    probe_loss: f64,
    scaling_loss: f64,
    loss: f64,
}

/// The transfers to all picture sizes, the uncalibrated ones by the nearest calibrated one.
pub fn estimate_all(title: &TitleFacts, fits: &[FittedCurve], sizes: &[Candidate]) -> Vec<Transfer> {
    let own: Vec<Transfer> = sizes.iter().map(|size| Transfer::estimate(title, fits, size.width, size.height)).collect();
    let pixels = |transfer: &Transfer| u64::from(transfer.width) * u64::from(transfer.height);
    let nearest = |to: &Transfer| {
        let away = |from: &Transfer| libm::log(pixels(from) as f64 / pixels(to) as f64).abs();
        own.iter().filter(|from| from.points > 0).min_by(|a, b| away(a).total_cmp(&away(b)))
    };
    own.iter()
        .map(|transfer| match nearest(transfer).filter(|_| transfer.points == 0) {
            Some(near) => transfer.like(near, title),
            None => *transfer,
        })
        .collect()
}

impl Transfer {
    /// The transfer to one picture size; its calibrations may stand in any order among others.
    pub fn estimate(title: &TitleFacts, fits: &[FittedCurve], width: u32, height: u32) -> Self {
        let pairs = pairs(title, fits, width, height);
        let prior = Self::prior(title, width, height);
        let total: f64 = pairs.iter().map(|pair| pair.weight).sum();
        if pairs.is_empty() {
            return prior;
        }
        let centre_crf = pairs.iter().map(|pair| pair.weight * pair.crf).sum::<f64>() / total;
        let rates = pairs.iter().map(|pair| (pair.weight, pair.crf - centre_crf, pair.rate));
        let (rate_shift, rate_tilt) =
            ridge(rates, RATE_NOISE, Prior2 { at: (prior.rate_shift, 0.0), doubt: (SHIFT_DOUBT, TILT_DOUBT) });
        let losses = || pairs.iter().map(|pair| (pair.loss_weight, pair.probe_loss, pair.loss - pair.scaling_loss));
        let is_measured = is_scaling_measured(title);
        let floor_doubt = if is_measured { MEASURED_FLOOR_DOUBT } else { FLOOR_DOUBT };
        let is_known_by_probes = shrunk(title, width, height) == 0.0 && pairs.iter().any(|pair| !pair.is_whole);
        let (noise, factor_doubt) = if is_known_by_probes {
            (noise_at_display(title.codec), FACTOR_DOUBT_AT_DISPLAY)
        } else {
            (LOSS_NOISE, FACTOR_DOUBT)
        };
        let doubt = Prior2 { at: (0.0, prior.loss_factor), doubt: (floor_doubt, factor_doubt) };
        let (mut floor_offset, mut loss_factor) = ridge(losses(), noise, doubt);
        let fixed = |offset: f64| {
            let there = Prior2 { at: (offset, prior.loss_factor), doubt: (f64::MIN_POSITIVE, factor_doubt) };
            (offset, ridge(losses(), noise, there).1)
        };
        // The line bends: towards more bits it comes out at what scaling loses, whatever its course through poor pictures says.
        let least = if is_measured {
            -LEAST_FLOOR * pairs.iter().map(|pair| pair.scaling_loss).sum::<f64>() / pairs.len() as f64
        } else {
            f64::MIN
        };
        if floor_offset < 0.0 && pairs.iter().all(|pair| pair.scaling_loss + floor_offset < 0.0) {
            // No size gains by itself: the factor alone.
            (floor_offset, loss_factor) = fixed(0.0);
        } else if floor_offset < least {
            (floor_offset, loss_factor) = fixed(least);
        }
        Self {
            points: pairs.len(),
            centre_crf,
            rate_shift,
            rate_tilt,
            floor_offset,
            loss_factor: loss_factor.max(LEAST_FACTOR),
            ..prior
        }
    }

    /// What is expected of a picture size before anything was encoded in it.
    fn prior(title: &TitleFacts, width: u32, height: u32) -> Self {
        let pixels = |width: u32, height: u32| f64::from(width.max(1)) * f64::from(height.max(1));
        let of_probe = pixels(width, height) / pixels(title.probe_width, title.probe_height);
        let shrunk = shrunk(title, width, height);
        Self {
            width,
            height,
            points: 0,
            centre_crf: 0.0,
            rate_shift: RATE_OF_PIXELS * libm::log(of_probe),
            rate_tilt: 0.0,
            floor_offset: 0.0,
            loss_factor: factor_at_display(title.codec) + FACTOR_OF_SCALING * shrunk,
        }
    }

    /// This prior, differing from itself as another size's estimate differs from that size's prior.
    fn like(&self, near: &Self, title: &TitleFacts) -> Self {
        let its_prior = Self::prior(title, near.width, near.height);
        let (here, there) = (shrunk(title, self.width, self.height), shrunk(title, near.width, near.height));
        // What scaling to this size loses need not be made of the other's where it is known.
        let grows = there > 0.0 && !is_scaling_measured(title);
        Self {
            centre_crf: near.centre_crf,
            rate_shift: self.rate_shift + near.rate_shift - its_prior.rate_shift,
            rate_tilt: near.rate_tilt,
            floor_offset: if grows { near.floor_offset * here / there } else { near.floor_offset },
            loss_factor: self.loss_factor * near.loss_factor / its_prior.loss_factor,
            ..*self
        }
    }

    /// The curves of all chunks at this picture size.
    pub fn curves(&self, title: &TitleFacts, fits: &[FittedCurve]) -> Vec<Curve> {
        let scaling = scaling_losses(title, self.width, self.height);
        let mut curves: Vec<Curve> = fits.iter().zip(&scaling).map(|(fit, loss)| self.apply(&fit.curve, *loss)).collect();
        let pairs = pairs(title, fits, self.width, self.height);
        for own in pairs.chunk_by(|a, b| a.chunk == b.chunk) {
            let curve = &mut curves[own[0].chunk];
            let n = own.len() as f64;
            let is_whole = own.iter().all(|pair| pair.is_whole);
            let (rate_doubt, loss_doubt) = if is_whole { (WHOLE_DOUBT, WHOLE_DOUBT) } else { BEGINNING_DOUBT };
            let rate: f64 = own.iter().map(|pair| pair.rate - self.rate_ratio(pair.crf)).sum();
            let expected = |pair: &Pair| self.apply(&pair.curve, pair.scaling_loss).loss(pair.crf);
            let loss: f64 = own.iter().map(|pair| libm::log(pair.loss / expected(pair))).sum();
            curve.ln_rate += rate / (n + rate_doubt);
            curve.ln_loss += loss / (n + loss_doubt);
            curve.loss_floor *= libm::exp(loss / (n + loss_doubt));
        }
        curves
    }

    /// Logarithm of the rung's rate over the probe's.
    fn rate_ratio(&self, crf: f64) -> f64 {
        self.rate_shift + self.rate_tilt * (crf - self.centre_crf)
    }

    fn apply(&self, curve: &Curve, scaling_loss: f64) -> Curve {
        // Whatever the tilt a slope stays one.
        let rate_slope = (curve.rate_slope - self.rate_tilt).max(curve.rate_slope / 2.0);
        let at_centre = curve.ln_rate - curve.rate_slope * self.centre_crf + self.rate_shift;
        Curve {
            ln_rate: at_centre + rate_slope * self.centre_crf,
            rate_slope,
            ln_loss: curve.ln_loss + libm::log(self.loss_factor),
            loss_slope: curve.loss_slope,
            loss_floor: (scaling_loss + self.floor_offset).max(0.0),
        }
    }
}

/// Factor on coding losses at the display's own size, below 1, for the final preset is better than the probe's: x265 `fast` beside
/// `superfast`, x264 `slow` beside `veryfast` (medians of 12 and 8 titles).
fn factor_at_display(codec: VideoCodec) -> f64 {
    match codec {
        VideoCodec::H264 => 0.64,
        VideoCodec::H265 | VideoCodec::Av1 => 0.88,
    }
}

/// Noise of a loss there that the beginning of a chunk was calibrated with.
fn noise_at_display(codec: VideoCodec) -> f64 {
    match codec {
        VideoCodec::H264 => 2.5,
        VideoCodec::H265 | VideoCodec::Av1 => 6.0,
    }
}

/// Square of the part of the display's height that a size lacks: what losses of scaling grow with.
fn shrunk(title: &TitleFacts, width: u32, height: u32) -> f64 {
    let pixels = |width: u32, height: u32| f64::from(width.max(1)) * f64::from(height.max(1));
    let lacking = 1.0 - (pixels(width, height) / pixels(title.display_width, title.display_height)).sqrt().min(1.0);
    lacking * lacking
}

/// Whether what scaling loses was measured of some chunk; it is known of the others then, too.
fn is_scaling_measured(title: &TitleFacts) -> bool {
    title.chunks.iter().any(|chunk| !chunk.scaled.is_empty())
}

/// What each chunk loses by a picture size alone: as measured there or in the size most like it, else as the median of
/// the measured chunks, else by rule of thumb.
fn scaling_losses(title: &TitleFacts, width: u32, height: u32) -> Vec<f64> {
    let here = shrunk(title, width, height);
    let measured = |chunk: &ChunkFacts| {
        let known = chunk.scaled.iter().filter(|scaled| (LOST_VMAF..=BEST_VMAF).contains(&scaled.vmaf_neg));
        let lacking = |scaled: &&ScaledPoint| shrunk(title, scaled.width, scaled.height);
        let away = |scaled: &&ScaledPoint| (lacking(scaled) - here).abs();
        let nearest = known.filter(|scaled| lacking(scaled) > 0.0).min_by(|a, b| away(a).total_cmp(&away(b)))?;
        Some(loss_of(rounded(nearest.vmaf_neg, VMAF_DECIMALS)) * here / lacking(&nearest))
    };
    let own: Vec<Option<f64>> = title.chunks.iter().map(measured).collect();
    let mut known: Vec<f64> = own.iter().flatten().copied().collect();
    known.sort_by(f64::total_cmp);
    let others = known.get(known.len() / 2).copied().unwrap_or(FLOOR_OF_SCALING * here);
    own.into_iter().map(|loss| loss.unwrap_or(others)).collect()
}

/// The usable calibrations of one picture size, in order of chunk and CRF whatever their order in the facts.
fn pairs(title: &TitleFacts, fits: &[FittedCurve], width: u32, height: u32) -> Vec<Pair> {
    let usable = |c: &&CalibrationPoint| {
        let sound = c.point.bits > 0 && c.point.crf.is_finite() && (LOST_VMAF..=BEST_VMAF).contains(&c.point.vmaf_neg);
        (c.width, c.height) == (width, height)
            && c.chunk < fits.len()
            && sound
            && c.weight.is_finite()
            && rounded(c.weight, WEIGHT_DECIMALS) > 0.0
    };
    let scaling = scaling_losses(title, width, height);
    let prior = prior_of(title).of_title(fits);
    let mut pairs: Vec<Pair> = title
        .calibration
        .iter()
        .filter(usable)
        .map(|c| {
            let (curve, seconds) = match &c.head {
                Some(head) => (fit(head, &prior).curve, head.seconds()),
                None => (fits[c.chunk].curve, title.chunks[c.chunk].seconds()),
            };
            let crf = rounded(c.point.crf, CRF_DECIMALS);
            let rate = libm::log(c.point.bits as f64 / seconds);
            let (vmaf, weight) = (rounded(c.point.vmaf_neg, VMAF_DECIMALS), rounded(c.weight, WEIGHT_DECIMALS));
            Pair {
                weight,
                loss_weight: weight * vmaf * vmaf / (BEST_VMAF * BEST_VMAF),
                chunk: c.chunk,
                is_whole: c.head.is_none(),
                crf,
                curve,
                rate: rate - (curve.ln_rate - curve.rate_slope * crf),
                probe_loss: curve.loss(crf).min(MOST_PROBE_LOSS),
                scaling_loss: scaling[c.chunk],
                loss: loss_of(vmaf).max(LEAST_LOSS),
            }
        })
        .collect();
    pairs.sort_by(|a, b| a.chunk.cmp(&b.chunk).then(a.crf.total_cmp(&b.crf)).then(a.rate.total_cmp(&b.rate)));
    // Weights say how points compare; how many there are says how much they weigh against the prior.
    let mean = pairs.iter().map(|pair| pair.weight).sum::<f64>() / (pairs.len().max(1) as f64);
    for pair in &mut pairs {
        pair.weight /= mean;
        pair.loss_weight /= mean;
    }
    pairs
}

/// Prior of an intercept and a slope: where they are expected, and their standard deviations.
struct Prior2 {
    at: (f64, f64),
    doubt: (f64, f64),
}

/// Intercept and slope of `y` over `x` from (weight, x, y): least squares with a normal prior (ridge regression).
fn ridge(points: impl Iterator<Item = (f64, f64, f64)>, noise: f64, prior: Prior2) -> (f64, f64) {
    let precision = |doubt: f64| (noise * noise) / (doubt * doubt);
    let (p0, p1) = (precision(prior.doubt.0).min(1e12), precision(prior.doubt.1).min(1e12));
    // Normal equations of what is left of y by the prior, so that the prior is zero.
    let (mut s, mut sx, mut sxx, mut sy, mut sxy) = (p0, 0.0, p1, 0.0, 0.0);
    for (weight, x, y) in points {
        let rest = y - prior.at.0 - prior.at.1 * x;
        s += weight;
        sx += weight * x;
        sxx += weight * x * x;
        sy += weight * rest;
        sxy += weight * x * rest;
    }
    let determinant = s * sxx - sx * sx;
    let intercept = (sxx * sy - sx * sxy) / determinant;
    let slope = (s * sxy - sx * sy) / determinant;
    (prior.at.0 + intercept, prior.at.1 + slope)
}

#[cfg(test)]
mod tests;
