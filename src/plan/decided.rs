//! The second half of a plan whose content decides: from what analysis found of every chunk to the rungs, the segments and
//! the CRF of every chunk. Pure, like the first.

use super::ladder::{self, SizedRung};
use super::make::{check_sizes, reorder_delay, timing};
use super::narrowband::decide::RungDecision;
use super::narrowband::grid::{GridMode, GridRules, Misfit, SceneCut, SnappedGrid, snap};
use super::narrowband::rules::AllocationRules;
use super::narrowband::{ChunkFacts, Decision, TitleFacts, decide};
use super::preset::{Preset, RungRule, VideoRules};
use super::time::{Rational, seconds};
use super::{NarrowbandPlan, Plan, PlanError, Rung, VideoPlan, audio, encoder};
use crate::probe::{Clock, Probe, VideoStream};
use crate::sandbox::protocol::AnalyseReport;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Within a chunk the rate swings by so much above its mean before the cap is felt, as far as the title's mean allows.
const PEAK_HEADROOM: f64 = 1.5;

/// A decided plan and its grounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    pub plan: Plan,
    pub decision: Decision,
    pub grid: GridSummary,
}

/// How the segments came to lie.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GridSummary {
    /// Scene cuts found, by time.
    pub cuts: Vec<SceneCut>,
    /// For each chunk: its first frame begins a scene.
    pub starts_on_cut: Vec<bool>,
    pub segments_on_cuts: usize,
    pub segments_off_cuts: usize,
    pub misfits: Vec<Misfit>,
}

/// Decides. The same arguments give the same plan, in whatever order the reports come; a chunk without a report is one of
/// which nothing is known.
///
/// # Errors
/// Draft, probe and preset do not belong together, or a rung would be smaller than its encoder takes.
pub fn decided(draft: &Plan, probe: &Probe, preset: &Preset, reports: &[AnalyseReport]) -> Result<Decided, PlanError> {
    let foreign = || PlanError::Preset(format!("preset {} decides nothing for this plan", preset.name));
    let (video, planned) = draft.video.as_ref().zip(draft.narrowband()).ok_or_else(foreign)?;
    let (rules, wanted) = preset.video.as_ref().zip(preset.narrowband.as_ref()).ok_or_else(foreign)?;
    let stream = probe.video.iter().find(|stream| stream.index == video.stream).ok_or_else(foreign)?;
    let reports: BTreeMap<u32, &AnalyseReport> = reports.iter().map(|report| (report.chunk, report)).collect();

    let (snapped, cuts) = segments(stream, preset, video, &reports, &wanted.grid);
    let title = title_facts(stream, rules, video, &snapped, &reports);
    let decision = decide(&title, &wanted.decision);

    let sized: Vec<SizedRung> = decision.rungs.iter().map(|rung| sized(rung, &wanted.decision.allocation)).collect();
    let rungs = ladder::of_sizes(stream, &encoder::for_any_crf(rules), &sized);
    let all: Vec<&Rung> = rungs.iter().collect();
    check_sizes(&all, rules)?;
    let of_chunk = |chunk: usize| -> Vec<f64> { decision.rungs.iter().map(|rung| rung.chunks[chunk].crf).collect() };
    let crf = (0..video.chunks.len()).map(of_chunk).collect();
    let video = VideoPlan {
        reorder_delay: reorder_delay(stream, &all, video.frame_duration, video.ticks_per_tick),
        rungs,
        chunks: snapped.chunks,
        narrowband: Some(NarrowbandPlan { crf, ..planned.clone() }),
        ..video.clone()
    };
    // Sound begins its segments where the picture does. What there is to say of it was said of the draft.
    let heard = preset.audio.as_ref().filter(|_| !draft.audio.is_empty());
    let audio = heard.map_or(Vec::new(), |rules| audio::renditions(&probe.audio, rules, &timing(probe, preset, Some(&video))).0);
    let notes = draft.notes.iter().chain(&decision.notes).cloned().collect();
    let grid = GridSummary {
        cuts,
        starts_on_cut: snapped.starts_on_cut,
        segments_on_cuts: snapped.segments_on_cuts,
        segments_off_cuts: snapped.segments_off_cuts,
        misfits: snapped.misfits,
    };
    Ok(Decided { plan: Plan { video: Some(video), audio, notes, ..draft.clone() }, decision, grid })
}

/// The segments on their cuts, and the cuts.
fn segments(
    stream: &VideoStream,
    preset: &Preset,
    video: &VideoPlan,
    reports: &BTreeMap<u32, &AnalyseReport>,
    grid: &GridRules,
) -> (SnappedGrid, Vec<SceneCut>) {
    let mut cuts: Vec<SceneCut> = reports.values().flat_map(|report| report.cuts.iter().copied()).collect();
    cuts.sort_by(|a, b| a.at.cmp(&b.at).then(b.strength.total_cmp(&a.strength)));
    // Neighbours may both have seen the cut between them.
    cuts.dedup_by_key(|cut| cut.at);
    // Frames on a clean clock may outrun the plan: where they lie is not known before they are encoded.
    let mode = if stream.clock == Clock::Trusted { grid.mode } else { GridMode::Fixed };
    let grid = GridRules { mode, ..*grid };
    (snap(stream, &preset.chunk, &video.chunks, &cuts, &grid), cuts)
}

fn title_facts(
    stream: &VideoStream,
    rules: &VideoRules,
    video: &VideoPlan,
    snapped: &SnappedGrid,
    reports: &BTreeMap<u32, &AnalyseReport>,
) -> TitleFacts {
    let (display_width, display_height) = ladder::display_size(stream);
    let probed = video.narrowband.as_ref().and_then(|narrowband| narrowband.probe.rungs.first());
    let facts = |chunk: usize| {
        let report = reports.get(&(chunk as u32));
        let ticks = video.chunk_ticks(chunk).saturating_mul(video.ticks_per_tick).max(1);
        let ticks = report.map(|report| report.ticks).filter(|ticks| *ticks > 0).unwrap_or(ticks);
        ChunkFacts {
            frames: report.map_or(0, |report| report.frames),
            duration_s: seconds(ticks, Rational::new(1, i64::from(video.timescale))),
            starts_on_cut: snapped.starts_on_cut[chunk],
            probes: report.map_or(Vec::new(), |report| report.probes.clone()),
            scaled: Vec::new(),
        }
    };
    TitleFacts {
        codec: rules.codec,
        display_width,
        display_height,
        probe_width: probed.map_or(display_width, |rung| rung.width),
        probe_height: probed.map_or(display_height, |rung| rung.height),
        chunks: (0..video.chunks.len()).map(facts).collect(),
        calibration: Vec::new(),
    }
}

/// The rung with its cap: one for the whole title, for parameter sets hold it.
fn sized(rung: &RungDecision, rules: &AllocationRules) -> SizedRung {
    let allowed = rung.predicted_kbps * rules.peak_to_mean;
    let cap = (rung.peak_kbps * PEAK_HEADROOM).min(allowed).max(rung.peak_kbps);
    SizedRung {
        name: rung.name.clone(),
        width: rung.width,
        height: rung.height,
        goal: RungRule { height: None, crf: None, kbps: None, max_kbps: Some(cap.ceil().max(1.0) as u32), lossless: false },
    }
}

#[cfg(test)]
mod tests;
