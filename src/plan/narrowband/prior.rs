//! What is taken for a chunk whose own probes do not say: medians of its title, else values of the codec.

use super::super::preset::VideoCodec;
use super::curve::{BELIEVED_LOSS_SLOPES, BELIEVED_RATE_SLOPES, Basis, FittedCurve};
use super::facts::{ChunkFacts, TitleFacts};
use std::ops::RangeInclusive;

/// So many chunks of a title with a measured line, and their median is believed before the codec's prior.
const CHUNKS_FOR_A_MEDIAN: usize = 3;

/// Prior of both lines of a curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Prior {
    pub rate: Slope,
    pub loss: Slope,
}

/// Prior of one line: the logarithm at one CRF, and its change a CRF.
#[derive(Clone, Debug, PartialEq)]
pub struct Slope {
    /// Signed: rates fall, losses rise.
    pub slope: f64,
    /// Natural logarithm (of bits a second, of the loss) at `reference_crf`.
    pub level: f64,
    pub reference_crf: f64,
    /// What a chunk may claim for its own, without the sign.
    pub believed: RangeInclusive<f64>,
    /// From the title's chunks; else from the codec.
    pub of_title: bool,
}

impl Slope {
    pub(super) fn slope_basis(&self) -> Basis {
        if self.of_title { Basis::SlopeOfTitle } else { Basis::SlopeOfCodec }
    }

    pub(super) fn whole_basis(&self) -> Basis {
        if self.of_title { Basis::Title } else { Basis::Codec }
    }
}

/// What a codec's fast presets do to ordinary pictures.
struct CodecPrior {
    /// A CRF of middling quality.
    reference_crf: f64,
    /// Bits a pixel of every frame there.
    bits_a_pixel: f64,
    /// Loss there.
    loss: f64,
    rate_slope: f64,
    loss_slope: f64,
}

impl CodecPrior {
    /// Medians over probes of 2 s of animation, drone, low-key, water and close-up shots at 960x540: x265 3.5 and x264
    /// 164 `veryfast`, SVT-AV1 1.4 preset 10.
    const fn of(codec: VideoCodec) -> Self {
        match codec {
            VideoCodec::H265 => {
                Self { reference_crf: 27.0, bits_a_pixel: 0.055, loss: 15.0, rate_slope: 0.138, loss_slope: 0.149 }
            }
            VideoCodec::H264 => {
                Self { reference_crf: 25.0, bits_a_pixel: 0.068, loss: 17.5, rate_slope: 0.135, loss_slope: 0.159 }
            }
            VideoCodec::Av1 => {
                Self { reference_crf: 40.0, bits_a_pixel: 0.062, loss: 11.5, rate_slope: 0.062, loss_slope: 0.074 }
            }
        }
    }
}

/// The codec's prior at the size and rate of the title's probes.
pub(super) fn prior_of(title: &TitleFacts) -> Prior {
    let pixels = f64::from(title.probe_width) * f64::from(title.probe_height);
    let frames: u64 = title.chunks.iter().map(|chunk| chunk.frames).sum();
    let weight_us: u64 = title.chunks.iter().map(ChunkFacts::weight_us).sum();
    let frame_rate = frames as f64 * 1e6 / weight_us.max(1) as f64;
    Prior::of_codec(title.codec, pixels * frame_rate)
}

impl Prior {
    /// The codec's prior for chunks of a title with so many pixels a second at the probe's size.
    pub fn of_codec(codec: VideoCodec, pixels_per_second: f64) -> Self {
        let codec = CodecPrior::of(codec);
        let line = |slope, value: f64, believed| Slope {
            slope,
            level: libm::log(value),
            reference_crf: codec.reference_crf,
            believed,
            of_title: false,
        };
        Self {
            rate: line(-codec.rate_slope, codec.bits_a_pixel * pixels_per_second.max(1.0), BELIEVED_RATE_SLOPES),
            loss: line(codec.loss_slope, codec.loss, BELIEVED_LOSS_SLOPES),
        }
    }

    /// This prior with each line replaced by the median of the title's measured ones, where there are enough.
    pub fn of_title(&self, fits: &[FittedCurve]) -> Self {
        let rates = fits.iter().filter(|fit| fit.rate.basis == Basis::Measured);
        let losses = fits.iter().filter(|fit| fit.loss.basis == Basis::Measured);
        Self {
            rate: self.rate.of_lines(rates.map(|fit| (fit.curve.ln_rate, -fit.curve.rate_slope)).collect()),
            loss: self.loss.of_lines(losses.map(|fit| (fit.curve.ln_loss, fit.curve.loss_slope)).collect()),
        }
    }
}

impl Slope {
    /// Lines as (logarithm at CRF 0, change a CRF).
    fn of_lines(&self, lines: Vec<(f64, f64)>) -> Self {
        if lines.len() < CHUNKS_FOR_A_MEDIAN {
            return self.clone();
        }
        let slope = median(lines.iter().map(|line| line.1).collect());
        let level = median(lines.iter().map(|line| line.0 + line.1 * self.reference_crf).collect());
        Self { slope, level, of_title: true, ..self.clone() }
    }
}

/// The middle value, the lower of two. The values may come in any order, and there is at least one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}
