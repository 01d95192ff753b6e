//! The part of a report that says what content decided, on what grounds, and what finding out cost.

use super::ChunkReport;
use crate::part::tools::Planned;
use crate::plan::decided::GridSummary;
use crate::plan::marker::{Marker, PartResult};
use crate::plan::narrowband::{Decision, ProbePoint};
use crate::sandbox::protocol::{AnalyseSpent, Texture};
use serde::{Deserialize, Serialize};

/// What content decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NarrowbandReport {
    pub decision: Decision,
    pub grid: GridSummary,
    /// What was found of each chunk.
    pub analysis: Vec<ChunkAnalysis>,
    /// CPU seconds of all analysis, and of all chunks' encodes.
    pub analysis_cpu_s: f64,
    pub encode_cpu_s: f64,
}

/// What was found of one chunk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChunkAnalysis {
    pub chunk: u32,
    pub frames: u64,
    pub probes: Vec<ProbePoint>,
    pub texture: Option<Texture>,
    /// Why something was not found.
    pub notes: Vec<String>,
    pub attempt: u32,
    pub wall_s: f64,
    pub cpu_s: f64,
    pub spent: AnalyseSpent,
    pub peak_bytes: u64,
}

/// One rung of one chunk, as it was planned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedRung {
    pub crf: f64,
    pub kbps: f64,
    /// VMAF-NEG at display size.
    pub vmaf: f64,
}

impl NarrowbandReport {
    pub(super) fn new(grounds: &(Decision, GridSummary), analyses: &[Marker], encodes: &[Marker]) -> Self {
        let encoded = encodes.iter().filter(|marker| matches!(marker.result, PartResult::Encode(_)));
        Self {
            decision: grounds.0.clone(),
            grid: grounds.1.clone(),
            analysis: analyses.iter().filter_map(analysis).collect(),
            analysis_cpu_s: analyses.iter().map(|marker| marker.cpu_s).sum(),
            encode_cpu_s: encoded.map(|marker| marker.cpu_s).sum(),
        }
    }
}

fn analysis(marker: &Marker) -> Option<ChunkAnalysis> {
    let PartResult::Analyse(report) = &marker.result else { return None };
    Some(ChunkAnalysis {
        chunk: report.chunk,
        frames: report.frames,
        probes: report.probes.clone(),
        texture: report.texture,
        notes: report.notes.clone(),
        attempt: marker.attempt,
        wall_s: marker.wall_s,
        cpu_s: marker.cpu_s,
        spent: report.spent,
        peak_bytes: marker.peak_bytes,
    })
}

/// Puts what was planned beside what was made.
pub(super) fn note_planned(planned: &Planned, chunk: &mut ChunkReport) {
    let Some((decision, _)) = &planned.grounds else { return };
    for made in &mut chunk.rungs {
        let rung = decision.rungs.iter().find(|rung| rung.name == made.name);
        let wanted = rung.and_then(|rung| rung.chunks.get(chunk.chunk as usize));
        made.planned = wanted.map(|w| PlannedRung { crf: w.crf, kbps: w.predicted_kbps, vmaf: w.predicted_vmaf });
    }
}
