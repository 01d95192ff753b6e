//! What a narrowband preset asks for.

use super::super::preset::VideoCodec;
use super::pilot::PilotRules;
use super::repair::RepairRules;
use super::stratify::CalibrationRules;
use serde::{Deserialize, Serialize};

/// Goals and limits of a decision. Quality is VMAF-NEG at display size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Mean quality of the top rung, by duration.
    pub goal_vmaf: f64,
    /// Mean quality of the next rung, where it is far enough from the top.
    pub second_vmaf: f64,
    /// How far the next rung is under the top at least, VMAF: a just noticeable difference.
    pub second_step_vmaf: f64,
    /// Rates of further rungs: each so many times the next one's.
    pub rate_ratio: f64,
    /// Two rungs nearer than this in quality are one to the eye: half of a just noticeable difference, which six
    /// points are held to be.
    pub least_step_vmaf: f64,
    /// Two rungs nearer than this in rate are one to a network.
    pub least_rate_ratio: f64,
    /// The ladder goes down to this rate, for slow connections, bits a second: half of what a fixed ladder's lowest rung costs,
    /// whose quality is to be had for fewer bits, too.
    pub lowest_rate_bps: f64,
    /// Mean rate of the top rung at most, of what a fixed ladder would spend on its best rung of that size. A source that
    /// needs more for the goal has its ceiling there.
    pub highest_share: f64,
    /// Most rungs of a ladder.
    pub most_rungs: usize,
    /// A source whose quality rises by less than this where the rate doubles has reached its ceiling.
    pub least_gain_per_doubling_vmaf: f64,
    pub calibration: CalibrationRules,
    pub allocation: AllocationRules,
    pub pilots: PilotRules,
    pub repair: RepairRules,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            goal_vmaf: 93.0,
            second_vmaf: 87.0,
            second_step_vmaf: 6.0,
            rate_ratio: 1.8,
            least_step_vmaf: 3.0,
            least_rate_ratio: 1.25,
            lowest_rate_bps: 72_500.0,
            highest_share: 1.0,
            most_rungs: 10,
            least_gain_per_doubling_vmaf: 1.0,
            calibration: CalibrationRules::default(),
            allocation: AllocationRules::default(),
            pilots: PilotRules::default(),
            repair: RepairRules::default(),
        }
    }
}

/// How the chunks of one rung share its quality.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AllocationRules {
    /// No chunk of the top rung is planned so far under its goal. On lower rungs the same share of their shortfall.
    pub allowed_drop_vmaf: f64,
    /// Largest change of CRF at a seam that is no scene cut: within a scene a jump of quality is seen.
    pub largest_step_crf: f64,
    /// A chunk's rate is at most so many times the rung's mean. Apple's authoring specification for HLS asks for 2.
    pub peak_to_mean: f64,
    /// Where peak and floor cannot both be had the floor wins; else the peak.
    pub floor_over_peak: bool,
    /// Held down by the peak, the title may make up for it elsewhere at a slope up to so many times its own; what is
    /// still missing is missed.
    pub most_slope_stretch: f64,
    /// Standard deviation of the error in a chunk's best CRF: differences between chunks are believed as far as they are
    /// larger, and then in part. (Titles whose CRFs deviated by 0.5 to 1.5 gained nothing by it.) 0: they are believed as they are.
    pub doubt_crf: f64,
    /// CRFs to choose from.
    pub crf: CrfRange,
    /// A curve is believed so far beyond its probes, CRF.
    pub extrapolation_crf: f64,
}

impl Default for AllocationRules {
    fn default() -> Self {
        Self {
            allowed_drop_vmaf: 8.0,
            largest_step_crf: 2.0,
            peak_to_mean: 2.0,
            floor_over_peak: false,
            most_slope_stretch: 4.0,
            doubt_crf: 1.0,
            crf: CrfRange::of(VideoCodec::H265),
            extrapolation_crf: 8.0,
        }
    }
}

/// CRFs of an encoder within which more and fewer bits still do what they should.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrfRange {
    pub lowest: f64,
    pub highest: f64,
    /// CRFs are whole multiples of this.
    pub step: f64,
}

impl CrfRange {
    /// The whole step nearest to a CRF of the range.
    pub fn nearest(&self, crf: f64) -> f64 {
        self.lowest + ((crf - self.lowest) / self.step).round() * self.step
    }

    /// Below the lowest an encode is transparent and pays for noise; above the highest nothing is left of a picture.
    /// libavcodec hands SVT-AV1 whole CRFs only.
    pub const fn of(codec: VideoCodec) -> Self {
        match codec {
            VideoCodec::H265 => Self { lowest: 14.0, highest: 44.0, step: 0.25 },
            VideoCodec::H264 => Self { lowest: 12.0, highest: 42.0, step: 0.25 },
            VideoCodec::Av1 => Self { lowest: 16.0, highest: 62.0, step: 1.0 },
        }
    }
}
