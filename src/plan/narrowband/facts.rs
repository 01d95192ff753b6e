//! What analysis found of a title: the input of every decision.

use super::super::preset::VideoCodec;
use serde::{Deserialize, Serialize};

/// All that the decision may know of a title.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TitleFacts {
    pub codec: VideoCodec,
    /// Size at which the title is shown, in square pixels, turned: no rung is larger.
    pub display_width: u32,
    pub display_height: u32,
    /// Size at which chunks were probed.
    pub probe_width: u32,
    pub probe_height: u32,
    /// In the order they are shown.
    pub chunks: Vec<ChunkFacts>,
    /// Encodes of chosen chunks at the final preset; empty before calibration.
    #[serde(default)]
    pub calibration: Vec<CalibrationPoint>,
}

/// One chunk, as its analysis found it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChunkFacts {
    pub frames: u64,
    /// Seconds; positive.
    pub duration_s: f64,
    /// Its first frame begins a scene: quality may change there unseen.
    pub starts_on_cut: bool,
    /// Fast encodes at the probe size, in any order; none where probing failed.
    pub probes: Vec<ProbePoint>,
    /// What scaling alone does to the chunk, for any of the smaller sizes; none where that was not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scaled: Vec<ScaledPoint>,
}

/// A chunk scaled to a size and back to the display's, and not encoded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScaledPoint {
    pub width: u32,
    pub height: u32,
    /// Mean over the scored frames, 0 to 100.
    pub vmaf_neg: f64,
}

impl ChunkFacts {
    /// Weight of the chunk in means over the title, whole microseconds. At least 1, whatever the file says.
    pub fn weight_us(&self) -> u64 {
        // A float that is not a number becomes 0, one too large the largest.
        ((self.duration_s * 1e6).round() as u64).clamp(1, LONGEST_CHUNK_US)
    }

    /// Seconds by which rates are reckoned: those of the weight.
    pub fn seconds(&self) -> f64 {
        self.weight_us() as f64 / 1e6
    }
}

/// No chunk is believed to be longer, microseconds: a week, the longest title there is.
const LONGEST_CHUNK_US: u64 = 7 * 24 * 3600 * 1_000_000;

/// One encode of a chunk, scored.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbePoint {
    pub crf: f64,
    /// Size of the coded pictures, bits, without container.
    pub bits: u64,
    /// Mean over the scored frames, 0 to 100, against the chunk at the size it was encoded in.
    pub vmaf_neg: f64,
}

/// One encode of the beginning of a chunk, or of all of it, with the rung's own preset and picture size, scored at display
/// size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationPoint {
    /// Index into [`TitleFacts::chunks`].
    pub chunk: usize,
    pub width: u32,
    pub height: u32,
    /// How much of the title the chunk stands for ([`super::stratify`]); positive.
    pub weight: f64,
    pub point: ProbePoint,
    /// The same pictures with the probes' settings; absent where all of the chunk was encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<ChunkFacts>,
}
