//! What is asked and said of chunks where content decides.

use super::EncodeTask;
use crate::plan::Rung;
use crate::plan::narrowband::grid::SceneCut;
use crate::plan::narrowband::{ProbePoint, ScaledPoint};
use serde::{Deserialize, Serialize};

/// Get to know one chunk: what it costs and looks like at the probes' settings, where its scenes begin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnalyseTask {
    /// The chunk as for its encode; the rungs are the probes, all of one size.
    pub encode: EncodeTask,
    /// The CRF of each probe.
    pub crf: Vec<f64>,
    /// One picture in so many is scored.
    pub scored_every: u32,
    /// Only the chunk's beginning is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beginning: Option<Beginning>,
    /// Every probe but the first encodes so many pictures and no more. How they compare with the same ones of the first is
    /// taken to hold for the whole chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<u64>,
}

/// The first pictures of a chunk, which stand for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    pub frames: u64,
    /// Pictures that the whole chunk is expected to have.
    pub of: u64,
}

/// Encode the beginning of one chunk with final settings, and with those of the probes, to see how the ones follow from the
/// others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrateTask {
    /// The chunk as for its encode. The first rung is the picture as it is shown and is not encoded; then come those of the
    /// final settings, then the probes, then smaller sizes that are not encoded either: it is measured what scaling loses.
    pub encode: EncodeTask,
    /// The CRF of each rung of the final settings, and of each probe.
    pub finals: Vec<f64>,
    pub probes: Vec<f64>,
    /// Pictures from the chunk's first on.
    pub frames: u64,
    /// One picture in so many is scored: of the final settings as it is shown, of the probes in the size they are coded in.
    pub scored_every: u32,
    /// And of those that are only scaled.
    pub scaled_every: u32,
}

/// How a top rung is measured while it is encoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// The picture as it is shown, where the top rung is smaller.
    pub reference: Option<Rung>,
    /// One picture in so many is scored.
    pub scored_every: u32,
}

/// One chunk, known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnalyseReport {
    pub chunk: u32,
    /// Frames in the chunk.
    pub frames: u64,
    /// How long they last together, output ticks.
    pub ticks: i64,
    /// The probes that could be measured.
    pub probes: Vec<ProbePoint>,
    /// Scenes that begin after the chunk's first frame, up to the first frame after the chunk.
    pub cuts: Vec<SceneCut>,
    /// Absent where there was no picture to look at.
    pub texture: Option<Texture>,
    /// Why a probe was not measured, or scenes not looked for.
    pub notes: Vec<String>,
    pub spent: AnalyseSpent,
}

/// What the pictures of a chunk are like, at the probes' size: means over some of the scored ones, in steps of 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Texture {
    /// Spatial information (ITU-T P.910 7.7): standard deviation of the Sobel-filtered luma.
    pub spatial: f64,
    /// Temporal information (ITU-T P.910 7.8): standard deviation of the difference to the picture before.
    pub temporal: f64,
    /// Standard deviation of the noise.
    pub noise: f64,
}

/// CPU seconds of an analysis, as the process clock saw them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AnalyseSpent {
    /// Reading, decoding, filtering, scaling.
    pub decode_s: f64,
    /// Scene cuts and texture.
    pub look_s: f64,
    /// Encoders.
    pub probe_s: f64,
    /// Decoding what they made, and VMAF.
    pub score_s: f64,
}

/// The beginning of one chunk with final settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrateReport {
    pub chunk: u32,
    /// Pictures encoded.
    pub frames: u64,
    /// How long they last together, output ticks.
    pub ticks: i64,
    /// Those that could be measured.
    pub finals: Vec<SizedPoint>,
    /// The same pictures with the probes' settings.
    pub probes: Vec<ProbePoint>,
    /// And scaled to a size and back, not encoded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scaled: Vec<ScaledPoint>,
    /// Why one was not measured.
    pub notes: Vec<String>,
    pub spent: AnalyseSpent,
}

/// One encode in one picture size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SizedPoint {
    pub width: u32,
    pub height: u32,
    pub point: ProbePoint,
}

/// The top rung of one chunk, measured at the size the picture is shown in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// VMAF-NEG, mean over the scored pictures.
    pub vmaf_neg: f64,
    /// That of every n-th picture after the first, hundredths; of the first alone where the chunk has no more.
    pub scores: Vec<f64>,
    pub scored_every: u32,
    /// Decoding and scoring, CPU seconds.
    pub cpu_s: f64,
}
