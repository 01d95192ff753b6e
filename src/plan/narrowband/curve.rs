//! Rate and loss of one chunk as functions of CRF, from two or more probe points.
//!
//! Over the few octaves that matter both are close to straight lines once their logarithm is taken: `ln R = a - b q` and
//! `ln X = c + d q`, with q the CRF, R in bits a second, and X the loss `100 ln(100 / V)` of the chunk's mean VMAF-NEG V.
//! (Near V = 100 that is `ln(100 - V) = c + d q`, which bends where V is low. On five chunks of animation, drone,
//! low-key, water and close-up shots, two points 10 CRF apart gave the one between them within 1.0 VMAF instead of 1.8,
//! and the one 5 CRF beyond within 5.4 instead of 18.2.)
//! What two points say is taken, unless it cannot be true (see [`Doubt`]); then the title's other chunks, and where
//! those do not know either the codec's prior, give the slope, or slope and level.

use super::facts::ChunkFacts;
use super::prior::{Prior, Slope};
use super::{BEST_VMAF, loss_of, quality_of, rounded};
use serde::{Deserialize, Serialize};

/// Losses under this cannot be told from none: the scorer's own floor.
pub const LEAST_LOSS: f64 = 0.1;
/// A score under this is at its lower end and says nothing of the slope, nor of much else.
pub const LOST_VMAF: f64 = 1.0;
/// Coding losses beyond this are counted on along their tangent, see [`Curve::shortfall`].
const CONVEX_LOSS: f64 = BEST_VMAF;
/// CRFs nearer than this are one point measured twice.
const SAME_CRF: f64 = 0.01;
/// A slope needs points at least so far apart, CRF: over less, rounding and frame types decide.
const LEAST_SPAN: f64 = 2.0;
/// With fewer frames a chunk is mostly its key frame, whose slope is not that of the frames that follow.
const LEAST_FRAMES: u64 = 6;
/// Slopes of ln R that any encoder has been seen with (a rate that halves every 35 to 1.7 CRF).
pub(super) const BELIEVED_RATE_SLOPES: std::ops::RangeInclusive<f64> = 0.02..=0.40;
/// Slopes of ln X likewise. Near zero more bits buy nothing that the score sees.
pub(super) const BELIEVED_LOSS_SLOPES: std::ops::RangeInclusive<f64> = 0.004..=0.40;
/// Scores and CRFs are rounded, so that one that went through a file and one that did not are the same.
pub(super) const VMAF_DECIMALS: u32 = 4;
pub(super) const CRF_DECIMALS: u32 = 3;
/// CRFs that any encoder takes.
const CRFS: std::ops::RangeInclusive<f64> = 0.0..=63.0;

/// Rate and loss of a chunk at every CRF. Both convex: the one falls, the other rises.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// `a`: natural logarithm of the rate in bits a second at CRF 0.
    pub ln_rate: f64,
    /// `b`: how much that falls a CRF; positive.
    pub rate_slope: f64,
    /// `c`: natural logarithm of the coding loss at CRF 0.
    pub ln_loss: f64,
    /// `d`: how much that rises a CRF; positive.
    pub loss_slope: f64,
    /// Loss that no bits cure, that of a picture smaller than the display; it adds to the coding loss.
    #[serde(default)]
    pub loss_floor: f64,
}

impl Curve {
    /// Bits a second at a CRF.
    pub fn rate_bps(&self, crf: f64) -> f64 {
        libm::exp(self.ln_rate - self.rate_slope * crf)
    }

    /// Loss at a CRF.
    pub fn loss(&self, crf: f64) -> f64 {
        self.loss_floor + libm::exp(self.ln_loss + self.loss_slope * crf)
    }

    /// Mean VMAF-NEG at a CRF.
    pub fn quality(&self, crf: f64) -> f64 {
        quality_of(self.loss(crf))
    }

    /// VMAF points missing to 100 at a CRF, made convex: from a coding loss of 100 on, where the curve turns towards
    /// its end, it goes straight on. Then a chunk that is bad already is not given up for the few points it has left.
    pub fn shortfall(&self, crf: f64) -> f64 {
        let coded = libm::exp(self.ln_loss + self.loss_slope * crf);
        let kept = quality_of(self.loss_floor + coded.min(CONVEX_LOSS));
        let beyond = if coded > CONVEX_LOSS { libm::log(coded / CONVEX_LOSS) * kept } else { 0.0 };
        BEST_VMAF - kept + beyond
    }

    /// Logarithm of how fast the shortfall rises a CRF, and how fast that logarithm rises.
    pub(super) fn ln_shortfall_slope(&self, crf: f64) -> (f64, f64) {
        let ln_coded = (self.ln_loss + self.loss_slope * crf).min(libm::log(CONVEX_LOSS));
        let coded = libm::exp(ln_coded);
        let slope = libm::log(self.loss_slope) + ln_coded - (self.loss_floor + coded) / BEST_VMAF;
        (slope, self.loss_slope * (1.0 - coded / BEST_VMAF))
    }

    /// The CRF at which the loss is `loss`; minus infinity where no CRF loses so little.
    pub fn crf_of_loss(&self, loss: f64) -> f64 {
        let above = loss - self.loss_floor;
        if above <= 0.0 {
            return f64::NEG_INFINITY;
        }
        (libm::log(above) - self.ln_loss) / self.loss_slope
    }

    /// The CRF at which the rate is `bps` bits a second.
    pub fn crf_of_rate(&self, bps: f64) -> f64 {
        (self.ln_rate - libm::log(bps.max(1.0))) / self.rate_slope
    }
}

/// Where a line of a curve comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Level and slope were measured.
    Measured,
    /// The level was measured; the slope is the median of the title's measured chunks.
    SlopeOfTitle,
    /// The level was measured; the slope is the codec's prior.
    SlopeOfCodec,
    /// Nothing was measured: medians of the title.
    Title,
    /// Nothing was measured: the codec's prior.
    Codec,
}

/// Why a line was not fitted to its points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// No point could be used: no bits, scores that are no numbers, or none at all.
    NoPoints,
    /// Only one point, or several at the same CRF.
    OnePoint,
    /// Every score is 100 (flat, black): only that the loss is small is known.
    NoLossSeen,
    /// Rate rises or loss falls with CRF (noise, a scorer led astray).
    WrongSign,
    /// Steeper or flatter than any encoder does.
    AbsurdSlope,
    /// Too few frames to have a slope of their own.
    FewFrames,
}

/// One fitted line and how far it may be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub basis: Basis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Doubt>,
    /// Largest distance of a point from the line, in natural logarithms; 0 for two points.
    pub worst_residual: f64,
}

/// A chunk's curve with its pedigree.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FittedCurve {
    pub curve: Curve,
    pub rate: Line,
    pub loss: Line,
    /// Lowest and highest CRF with a usable point; absent when there is none.
    pub probed_crf: Option<(f64, f64)>,
}

impl FittedCurve {
    /// Both lines are the chunk's own.
    pub fn is_measured(&self) -> bool {
        self.rate.basis == Basis::Measured && self.loss.basis == Basis::Measured
    }
}

/// The curves of all chunks of a title, at the probe's size and preset.
///
/// Two passes: what the chunks say themselves, then the doubtful ones by the median of the others.
pub fn fit_title(chunks: &[ChunkFacts], codec_prior: &Prior) -> Vec<FittedCurve> {
    let alone: Vec<FittedCurve> = chunks.iter().map(|chunk| fit(chunk, codec_prior)).collect();
    let title = codec_prior.of_title(&alone);
    chunks.iter().map(|chunk| fit(chunk, &title)).collect()
}

/// The curve of one chunk; `prior` where its own points do not say.
pub fn fit(chunk: &ChunkFacts, prior: &Prior) -> FittedCurve {
    let seconds = chunk.seconds();
    let usable = || chunk.probes.iter().filter(|p| CRFS.contains(&p.crf)).map(|p| (rounded(p.crf, CRF_DECIMALS), p));
    let rates: Vec<(f64, f64)> =
        usable().filter(|(_, p)| p.bits > 0).map(|(crf, p)| (crf, libm::log(p.bits as f64 / seconds))).collect();
    let losses: Vec<(f64, f64)> = usable().filter_map(|(crf, p)| Some((crf, score_loss(p.vmaf_neg)?))).collect();
    let (informative, clean): (Vec<_>, Vec<_>) = losses.iter().copied().partition(|(_, loss)| *loss > LEAST_LOSS);
    let few = chunk.frames < LEAST_FRAMES;

    let rate = line(&rates, -1.0, few, &prior.rate);
    let loss = if informative.is_empty() && !clean.is_empty() {
        // Only the highest CRF without loss says something: down there it is no larger.
        let crf = clean.iter().map(|(crf, _)| *crf).fold(f64::MIN, f64::max);
        anchored(crf, libm::log(LEAST_LOSS), Doubt::NoLossSeen, &prior.loss)
    } else {
        let logarithms: Vec<(f64, f64)> = informative.iter().map(|(crf, loss)| (*crf, libm::log(*loss))).collect();
        line(&logarithms, 1.0, few, &prior.loss)
    };
    let crfs = || rates.iter().chain(&losses).map(|(crf, _)| *crf);
    let probed =
        (!rates.is_empty() || !losses.is_empty()).then(|| (crfs().fold(f64::MAX, f64::min), crfs().fold(f64::MIN, f64::max)));
    FittedCurve {
        curve: Curve {
            ln_rate: rate.at_zero,
            rate_slope: -rate.slope,
            ln_loss: loss.at_zero,
            loss_slope: loss.slope,
            loss_floor: 0.0,
        },
        rate: rate.line,
        loss: loss.line,
        probed_crf: probed,
    }
}

/// Loss of a score, at least what can be seen; none when the score is no measurement.
fn score_loss(vmaf: f64) -> Option<f64> {
    let vmaf = rounded(vmaf, VMAF_DECIMALS);
    (vmaf.is_finite() && vmaf >= LOST_VMAF).then(|| loss_of(vmaf).max(LEAST_LOSS))
}

struct Fitted {
    at_zero: f64,
    slope: f64,
    line: Line,
}

/// Least squares through (CRF, logarithm), held to the slopes that can be: `sign` is that of a healthy slope.
fn line(points: &[(f64, f64)], sign: f64, few_frames: bool, prior: &Slope) -> Fitted {
    let points = merged(points);
    let n = points.len() as f64;
    let Some(&(first, _)) = points.first() else { return unmeasured(prior) };
    let mean_crf = points.iter().map(|p| p.0).sum::<f64>() / n;
    let mean = points.iter().map(|p| p.1).sum::<f64>() / n;
    let doubt = |doubt| anchored(mean_crf, mean, doubt, prior);
    if few_frames {
        return doubt(Doubt::FewFrames);
    }
    if points[points.len() - 1].0 - first < LEAST_SPAN {
        return doubt(Doubt::OnePoint);
    }
    let spread: f64 = points.iter().map(|p| (p.0 - mean_crf) * (p.0 - mean_crf)).sum();
    let slope = points.iter().map(|p| (p.0 - mean_crf) * (p.1 - mean)).sum::<f64>() / spread;
    if slope * sign <= 0.0 {
        return doubt(Doubt::WrongSign);
    }
    if !prior.believed.contains(&(slope * sign)) {
        return doubt(Doubt::AbsurdSlope);
    }
    let at_zero = mean - slope * mean_crf;
    let worst = points.iter().map(|p| (p.1 - at_zero - slope * p.0).abs()).fold(0.0, f64::max);
    Fitted { at_zero, slope, line: Line { basis: Basis::Measured, doubt: None, worst_residual: rounded(worst, 6) } }
}

/// Points in order of CRF, those at one CRF as their mean: the result is the same for any order of the input.
fn merged(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let groups = sorted.chunk_by(|a, b| b.0 - a.0 < SAME_CRF);
    let mean = |group: &[(f64, f64)], part: fn(&(f64, f64)) -> f64| group.iter().map(part).sum::<f64>() / group.len() as f64;
    groups.map(|group| (mean(group, |p| p.0), mean(group, |p| p.1))).collect()
}

/// A line of the prior's slope through one known place.
fn anchored(crf: f64, value: f64, doubt: Doubt, prior: &Slope) -> Fitted {
    Fitted {
        at_zero: value - prior.slope * crf,
        slope: prior.slope,
        line: Line { basis: prior.slope_basis(), doubt: Some(doubt), worst_residual: 0.0 },
    }
}

fn unmeasured(prior: &Slope) -> Fitted {
    Fitted {
        at_zero: prior.level - prior.slope * prior.reference_crf,
        slope: prior.slope,
        line: Line { basis: prior.whole_basis(), doubt: Some(Doubt::NoPoints), worst_residual: 0.0 },
    }
}

#[cfg(test)]
mod tests;
