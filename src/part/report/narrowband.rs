//! The part of a report that says what content decided, on what grounds, and what finding out cost.

use super::{ChunkReport, Work};
use crate::part::tools::Planned;
use crate::plan::Grounds;
use crate::plan::marker::{Marker, PartId, PartResult};
use crate::plan::narrowband::ProbePoint;
use crate::plan::narrowband::decide::ChunkDecision;
use crate::plan::narrowband::pilot::Pilot;
use crate::sandbox::protocol::{AnalyseSpent, EncodeReport, Texture};
use serde::{Deserialize, Serialize};

/// What content decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NarrowbandReport {
    #[serde(flatten)]
    pub grounds: Grounds,
    /// What was found of each chunk.
    pub analysis: Vec<ChunkAnalysis>,
    /// Why something of a calibration or of the top rung was not measured.
    pub notes: Vec<String>,
    pub cost: Cost,
}

/// CPU seconds of what content decides, beside those of the ladder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    pub analysis_s: f64,
    pub calibration_s: f64,
    /// Measuring the top rung, in the encodes and in the repairs.
    pub verification_s: f64,
    /// The top rungs encoded once more.
    pub repair_s: f64,
    /// Decoding, scaling and encoding of every chunk, once.
    pub ladder_s: f64,
    /// All but the ladder, as a share of it.
    pub share: f64,
}

impl Cost {
    fn of(work: &Work<'_>) -> Self {
        let cpu = |markers: &[Marker], is: fn(PartId) -> bool| -> f64 {
            markers.iter().filter(|marker| is(marker.part)).map(|marker| marker.cpu_s).sum()
        };
        let measuring = |markers: &[Marker]| -> f64 {
            markers.iter().filter_map(encoded).filter_map(|report| report.measured.as_ref()).map(|m| m.cpu_s).sum()
        };
        let encodes = cpu(work.encodes, |part| matches!(part, PartId::Encode(_)));
        let verification_s = measuring(work.encodes);
        let mut cost = Self {
            analysis_s: cpu(work.analyses, |part| matches!(part, PartId::Analyse(_))),
            calibration_s: cpu(work.analyses, |part| matches!(part, PartId::Calibrate(_))),
            verification_s,
            repair_s: cpu(work.repairs, |part| matches!(part, PartId::Repair(_))),
            ladder_s: encodes - verification_s,
            share: 0.0,
        };
        let beside = cost.analysis_s + cost.calibration_s + cost.verification_s + cost.repair_s;
        cost.share = beside / cost.ladder_s.max(f64::MIN_POSITIVE);
        cost
    }
}

fn encoded(marker: &Marker) -> Option<&EncodeReport> {
    match &marker.result {
        PartResult::Encode(report) => Some(report),
        _ => None,
    }
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
    /// As it was encoded in the end; what follows is what was expected before it was encoded first.
    pub crf: f64,
    pub kbps: f64,
    /// VMAF-NEG at display size.
    pub vmaf: f64,
}

impl NarrowbandReport {
    pub(super) fn new(grounds: &Grounds, work: &Work<'_>) -> Self {
        let of_calibration = |marker: &Marker| match &marker.result {
            PartResult::Calibrate(report) => report.notes.clone(),
            _ => Vec::new(),
        };
        let encodes = work.encodes.iter().chain(work.repairs).filter_map(encoded);
        let unmeasured = encodes.filter_map(|report| Some(format!("chunk {}: {}", report.chunk, report.unmeasured.as_ref()?)));
        Self {
            grounds: grounds.clone(),
            analysis: work.analyses.iter().filter_map(analysis).collect(),
            notes: work.analyses.iter().flat_map(of_calibration).chain(unmeasured).collect(),
            cost: Cost::of(work),
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
    let Some(grounds) = &planned.grounds else { return };
    let repairs = grounds.repairs.iter().flat_map(|repairs| &repairs.chunks);
    let repair = repairs.into_iter().find(|repair| repair.chunk == chunk.chunk as usize);
    // Of pilots the decision knows by now what they came to.
    let mut pilots = grounds.adjustment.iter().flat_map(|adjustment| &adjustment.pilots);
    let pilot = pilots.find(|pilot| pilot.chunk == chunk.chunk as usize);
    let of_pilot = |pilot: &Pilot| (pilot.planned_kbps, pilot.planned_vmaf);
    for (n, made) in chunk.rungs.iter_mut().enumerate() {
        let rung = grounds.decision.rungs.iter().find(|rung| rung.name == made.name);
        let wanted = rung.and_then(|rung| rung.chunks.get(chunk.chunk as usize));
        let repaired = repair.filter(|_| n == 0).map(|repair| repair.crf);
        let crf = |planned: f64| repaired.unwrap_or(planned);
        let expected = |w: &ChunkDecision| pilot.filter(|_| n == 0).map_or((w.predicted_kbps, w.predicted_vmaf), of_pilot);
        made.planned = wanted.map(|w| {
            let (kbps, vmaf) = expected(w);
            PlannedRung { crf: crf(w.crf), kbps, vmaf }
        });
    }
}
