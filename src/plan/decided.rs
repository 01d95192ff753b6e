//! The later revisions of a plan whose content decides: from what was found of the chunks to what is calibrated, to the
//! rungs, the segments and the CRF of every chunk, and to what is encoded once more. Pure, like the first.

use super::ladder::{self, SizedRung};
use super::make::{check_sizes, compared, reorder_delay, timing};
use super::narrowband::calibrate::{CalibrationTask, calibrations};
use super::narrowband::decide::RungDecision;
use super::narrowband::facts::steady;
use super::narrowband::grid::{GridMode, GridRules, Misfit, SceneCut, SnappedGrid, snap};
use super::narrowband::pilot::{self, Adjustment};
use super::narrowband::preset::{Effort, NarrowbandRules};
use super::narrowband::repair::{self, MeasuredChunk, Repairs};
use super::narrowband::rules::AllocationRules;
use super::narrowband::work::Work;
use super::narrowband::{CalibrationPoint, ChunkFacts, Decision, TitleFacts, decide};
use super::preset::{Preset, RungRule, VideoRules};
use super::time::{Rational, seconds};
use super::{CalibrationPlan, Enhance, Filters, NarrowbandPlan, Plan, PlanError, RepairPlan, Rung, VideoPlan, audio, encoder};
use crate::probe::{Clock, Probe, VideoStream};
use crate::sandbox::protocol::{AnalyseReport, CalibrateReport, EncodeReport};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// No more chunks are calibrated than keep all that is done before repairs within this share of the ladder's work: probes alone guess
/// a small ladder larger than it turns out, and something is to be left.
const MOST_BEFORE_REPAIRS: f64 = 0.28;

/// A revision of a plan, and its grounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revised {
    pub plan: Plan,
    /// From the decided revision on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grounds: Option<Grounds>,
}

/// Why the ladder is as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grounds {
    pub decision: Decision,
    pub grid: GridSummary,
    /// Encodes with the final settings by which the curves were bent.
    pub calibration: Vec<CalibrationPoint>,
    /// What the chunks said that were encoded first, and what followed for the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjustment: Option<Adjustment>,
    /// What was measured of the top rung, and what follows from it; from the verified revision on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repairs: Option<Repairs>,
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

/// All that a revision is made of, but for what was found.
struct Basis<'a> {
    plan: &'a Plan,
    video: &'a VideoPlan,
    planned: &'a NarrowbandPlan,
    rules: &'a VideoRules,
    wanted: &'a NarrowbandRules,
    stream: &'a VideoStream,
}

impl<'a> Basis<'a> {
    fn new(plan: &'a Plan, probe: &'a Probe, preset: &'a Preset) -> Result<Self, PlanError> {
        let foreign = || PlanError::Preset(format!("preset {} decides nothing for this plan", preset.name));
        let (video, planned) = plan.video.as_ref().zip(plan.narrowband()).ok_or_else(foreign)?;
        let (rules, wanted) = preset.video.as_ref().zip(preset.narrowband.as_ref()).ok_or_else(foreign)?;
        let stream = probe.video.iter().find(|stream| stream.index == video.stream).ok_or_else(foreign)?;
        Ok(Self { plan, video, planned, rules, wanted, stream })
    }

    /// What was done beside the ladder before anything is repaired, as a share of its work. With more effort than usual it is not
    /// counted: who wants the best pays for it.
    fn beside(&self) -> f64 {
        if self.wanted.effort == Effort::Best {
            return 0.0;
        }
        let calibrations = self.planned.calibrations.iter().flatten();
        let calibrated = calibrations.map(|calibration| calibration.frames as f64 * pixels_of(&calibration.rungs)).sum();
        self.work(pixels_of(&self.video.rungs), calibrated).beside()
    }

    /// What is done for a ladder of so many pixels a picture, all rungs together, with so many pixels calibrated.
    fn work(&self, ladder: f64, calibrated: f64) -> Work {
        let of_chunk = |chunk: usize| {
            let frames = self.video.chunk_frames(chunk) as f64;
            (frames, self.planned.scored_every(chunk as u32).map_or(0.0, |every| frames / f64::from(every.max(1))))
        };
        let chunks = (0..self.video.chunks.len()).map(of_chunk);
        let (frames, scored) = chunks.fold((0.0, 0.0), |(all, scored), (frames, of_them)| (all + frames, scored + of_them));
        let halves = if self.planned.probe.halved { 0.5 } else { 1.0 };
        let probes = self.planned.probe.rungs.split_first();
        let (first, others) = probes.map_or((0.0, 0.0), |(first, others)| (pixels(first), pixels_of(others)));
        Work {
            ladder: frames * ladder,
            probed: frames * (first + halves * others),
            calibrated,
            scored: scored * pixels(&self.planned.reference),
        }
    }

    fn revised(&self, video: VideoPlan) -> Plan {
        Plan { video: Some(video), ..self.plan.clone() }
    }
}

fn pixels(rung: &Rung) -> f64 {
    f64::from(rung.width) * f64::from(rung.height)
}

fn pixels_of(rungs: &[Rung]) -> f64 {
    rungs.iter().map(pixels).sum()
}

/// Chooses what to calibrate. The same arguments give the same plan, in whatever order the reports come.
///
/// # Errors
/// Draft, probe and preset do not belong together.
pub fn surveyed(draft: &Plan, probe: &Probe, preset: &Preset, reports: &[AnalyseReport]) -> Result<Revised, PlanError> {
    let basis = Basis::new(draft, probe, preset)?;
    let reports = by_chunk(reports);
    let (snapped, _) = segments(basis.stream, preset, basis.video, &reports, &basis.wanted.grid);
    let title = title_facts(basis.stream, basis.rules, basis.video, &snapped, &reports);
    let frames = basis.wanted.decision.calibration.beginning(title.chunks.iter().map(|chunk| chunk.frames).sum());
    let is_affordable = |tasks: &[CalibrationTask], ladder: f64| {
        let calibrated: f64 = tasks.iter().map(|task| f64::from(task.width) * f64::from(task.height) * frames as f64).sum();
        basis.wanted.effort == Effort::Best || basis.work(ladder, calibrated).beside() <= MOST_BEFORE_REPAIRS
    };
    let wanted = basis.wanted.calibrates();
    let tasks = if wanted { calibrations(&title, &basis.wanted.decision, is_affordable) } else { Vec::new() };
    let of_chunk = |tasks: &[CalibrationTask]| CalibrationPlan {
        chunk: tasks[0].chunk as u32,
        weight: tasks[0].weight,
        frames,
        rungs: final_rungs(&basis, tasks),
        crf: tasks.iter().map(|task| task.crf).collect(),
    };
    let chosen: Vec<CalibrationPlan> = tasks.chunk_by(|a, b| a.chunk == b.chunk).map(of_chunk).collect();
    check_sizes(&chosen.iter().flat_map(|calibration| &calibration.rungs).collect::<Vec<_>>(), basis.rules)?;
    let narrowband = Some(NarrowbandPlan { calibrations: Some(chosen), ..basis.planned.clone() });
    Ok(Revised { plan: basis.revised(VideoPlan { narrowband, ..basis.video.clone() }), grounds: None })
}

/// What a chunk is encoded in to calibrate by it, as the ladder's own rungs will be but for their first picture: raised, it would
/// flatter the few that follow it more than it does a whole chunk.
fn final_rungs(basis: &Basis<'_>, tasks: &[CalibrationTask]) -> Vec<Rung> {
    let sized = |task: &CalibrationTask| SizedRung {
        name: format!("{}x{}", task.width, task.height),
        width: task.width,
        height: task.height,
        goal: RungRule { height: None, crf: Some(task.crf), kbps: None, max_kbps: None, lossless: false },
    };
    let sized: Vec<SizedRung> = tasks.iter().map(sized).collect();
    ladder::of_sizes(basis.stream, &encoder::for_any_crf(basis.rules), &sized)
        .into_iter()
        .map(Rung::without_raised_first)
        .collect()
}

fn by_chunk(reports: &[AnalyseReport]) -> BTreeMap<u32, &AnalyseReport> {
    reports.iter().map(|report| (report.chunk, report)).collect()
}

/// Decides. The same arguments give the same plan, in whatever order the reports come; a chunk without a report is one of
/// which nothing is known.
///
/// # Errors
/// Plan, probe and preset do not belong together, or a rung would be smaller than its encoder takes.
pub fn decided(
    surveyed: &Plan,
    probe: &Probe,
    preset: &Preset,
    reports: &[AnalyseReport],
    calibrated: &[CalibrateReport],
) -> Result<Revised, PlanError> {
    let basis = Basis::new(surveyed, probe, preset)?;
    let Basis { video, planned, rules, wanted, stream, .. } = basis;
    let reports = by_chunk(reports);
    let (snapped, cuts) = segments(stream, preset, video, &reports, &wanted.grid);
    let calibration = calibration(video, planned, calibrated);
    let mut title = TitleFacts { calibration, ..title_facts(stream, rules, video, &snapped, &reports) };
    for report in calibrated {
        if let Some(chunk) = title.chunks.get_mut(report.chunk as usize) {
            chunk.scaled.clone_from(&report.scaled);
        }
    }
    let decision = decide(&title, &wanted.decision);

    let sized: Vec<SizedRung> = decision.rungs.iter().map(|rung| sized(rung, &wanted.decision.allocation)).collect();
    let rungs = ladder::of_sizes(stream, &encoder::for_any_crf(rules), &sized);
    let all: Vec<&Rung> = rungs.iter().collect();
    check_sizes(&all, rules)?;
    let of_chunk = |chunk: usize| -> Vec<f64> { decision.rungs.iter().map(|rung| rung.chunks[chunk].crf).collect() };
    let crf = (0..video.chunks.len()).map(of_chunk).collect();
    // Where the top rung is not measured nobody tells.
    let measured = planned.verified_every.is_some() && !rungs.is_empty();
    let pilots = if measured { pilot::pilots(&title.chunks, &decision.fits, &wanted.decision) } else { Vec::new() };
    let pilots = pilots.into_iter().map(|chunk| chunk as u32).collect();
    let video = VideoPlan {
        reorder_delay: reorder_delay(stream, &all, video.frame_duration, video.ticks_per_tick),
        rungs,
        chunks: snapped.chunks,
        filters: Filters { enhance: enhance(wanted, &reports), ..video.filters.clone() },
        narrowband: Some(NarrowbandPlan { crf, pilots, ..planned.clone() }),
        ..video.clone()
    };
    // Sound begins its segments where the picture does. What there is to say of it was said of the draft.
    let heard = preset.audio.as_ref().filter(|_| !surveyed.audio.is_empty());
    let audio = heard.map_or(Vec::new(), |rules| audio::renditions(&probe.audio, rules, &timing(probe, preset, Some(&video))).0);
    let notes = surveyed.notes.iter().chain(&decision.notes).cloned().collect();
    let grid = GridSummary {
        cuts,
        starts_on_cut: snapped.starts_on_cut,
        segments_on_cuts: snapped.segments_on_cuts,
        segments_off_cuts: snapped.segments_off_cuts,
        misfits: snapped.misfits,
    };
    let grounds = Grounds { decision, grid, calibration: title.calibration, adjustment: None, repairs: None };
    Ok(Revised { plan: Plan { audio, notes, ..basis.revised(video) }, grounds: Some(grounds) })
}

/// What is done to the pictures, by the noise that was found in them.
fn enhance(wanted: &NarrowbandRules, reports: &BTreeMap<u32, &AnalyseReport>) -> Option<Enhance> {
    let noises: Vec<f64> = reports.values().filter_map(|report| Some(report.texture?.noise)).collect();
    wanted.enhance.as_ref()?.for_noise(&noises)
}

/// What calibration found, in the order of the plan.
fn calibration(video: &VideoPlan, planned: &NarrowbandPlan, reports: &[CalibrateReport]) -> Vec<CalibrationPoint> {
    let of_plan = |wanted: &CalibrationPlan| {
        let report = reports.iter().find(|report| report.chunk == wanted.chunk)?;
        let ticks = Rational::new(1, i64::from(video.timescale));
        let head = ChunkFacts {
            frames: report.frames,
            duration_s: seconds(report.ticks, ticks),
            starts_on_cut: false,
            probes: report.probes.clone(),
            scaled: Vec::new(),
        };
        let point = |(width, height, point)| CalibrationPoint {
            chunk: wanted.chunk as usize,
            width,
            height,
            weight: wanted.weight,
            point,
            head: Some(head.clone()),
        };
        let finals = report.finals.iter().map(|of| (of.width, of.height, of.point));
        // Without the same pictures by the probes' settings a calibration says nothing.
        (!head.probes.is_empty()).then(|| finals.map(point).collect::<Vec<_>>())
    };
    planned.calibrations.iter().flatten().filter_map(of_plan).flatten().collect()
}

/// Sets the qualities of the other chunks right by the pilots. The same arguments give the same plan, in whatever order the reports
/// come; where nothing was measured all stays as it is.
///
/// # Errors
/// Plan, probe and preset do not belong together, or nothing was decided.
pub fn adjusted(decided: &Revised, probe: &Probe, preset: &Preset, encoded: &[EncodeReport]) -> Result<Revised, PlanError> {
    let basis = Basis::new(&decided.plan, probe, preset)?;
    let grounds = decided.grounds.as_ref().ok_or_else(undecided)?;
    let weights_us = weights_us(basis.video);
    let measured = measured(encoded, &weights_us);
    let pilots: Vec<usize> = basis.planned.pilots.iter().map(|chunk| *chunk as usize).collect();
    let starts_on_cut = &grounds.grid.starts_on_cut;
    let found = pilot::adjust(&grounds.decision, &pilots, &weights_us, starts_on_cut, &measured, &basis.wanted.decision);
    let (mut planned, mut grounds) = (NarrowbandPlan { adjusted: true, ..basis.planned.clone() }, grounds.clone());
    if let Some((decision, adjustment)) = found {
        let top = decision.rungs.first().map_or(&[][..], |top| &top.chunks);
        for (crf, chunk) in planned.crf.iter_mut().zip(top) {
            crf.iter_mut().take(1).for_each(|of_top| *of_top = chunk.crf);
        }
        grounds = Grounds { decision, adjustment: Some(adjustment), ..grounds };
    }
    let video = VideoPlan { narrowband: Some(planned), ..basis.video.clone() };
    Ok(Revised { plan: basis.revised(video), grounds: Some(grounds) })
}

fn undecided() -> PlanError {
    PlanError::Preset("nothing was decided that could be verified".into())
}

/// How long each chunk lasts, microseconds.
fn weights_us(video: &VideoPlan) -> Vec<u64> {
    let of_chunk = |chunk| (seconds(video.chunk_ticks(chunk).max(1), video.source_base) * 1e6) as u64;
    (0..video.chunks.len()).map(of_chunk).collect()
}

/// What was measured of the top rung.
fn measured(encoded: &[EncodeReport], weights_us: &[u64]) -> Vec<MeasuredChunk> {
    let of_chunk = |report: &EncodeReport| {
        let weight_us = *weights_us.get(report.chunk as usize)?;
        let kbps = report.rungs.first().map(|rung| rung.bytes as f64 * 8e3 / weight_us.max(1) as f64);
        Some(MeasuredChunk { chunk: report.chunk as usize, vmaf: report.measured.as_ref()?.vmaf_neg, kbps })
    };
    encoded.iter().filter_map(of_chunk).collect()
}

/// Chooses what to encode once more. The same arguments give the same plan, in whatever order the reports come.
///
/// # Errors
/// Plan, probe and preset do not belong together, or nothing was decided.
pub fn verified(decided: &Revised, probe: &Probe, preset: &Preset, encoded: &[EncodeReport]) -> Result<Revised, PlanError> {
    let basis = Basis::new(&decided.plan, probe, preset)?;
    let grounds = decided.grounds.as_ref().ok_or_else(undecided)?;
    let weights_us = weights_us(basis.video);
    let measured = measured(encoded, &weights_us);
    let first = grounds.adjustment.as_ref();
    let repairs = repair::repairs(&grounds.decision, first, &weights_us, &measured, basis.beside(), &basis.wanted.decision);
    let planned = repairs.chunks.iter().map(|repair| RepairPlan { chunk: repair.chunk as u32, crf: repair.crf }).collect();
    let narrowband = Some(NarrowbandPlan { repairs: Some(planned), ..basis.planned.clone() });
    let video = VideoPlan { narrowband, ..basis.video.clone() };
    Ok(Revised { plan: basis.revised(video), grounds: Some(Grounds { repairs: Some(repairs), ..grounds.clone() }) })
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
        // Of one whose beginning only was looked at the length is the plan's.
        let is_whole = video.narrowband.as_ref().is_none_or(|narrowband| narrowband.probe.frames.is_none());
        let ticks = report.map(|report| report.ticks).filter(|ticks| is_whole && *ticks > 0).unwrap_or(ticks);
        ChunkFacts {
            frames: report.map_or(0, |report| report.frames),
            duration_s: seconds(ticks, Rational::new(1, i64::from(video.timescale))),
            starts_on_cut: snapped.starts_on_cut[chunk],
            probes: report.map_or(Vec::new(), |report| report.probes.clone()),
            scaled: Vec::new(),
        }
    };
    let mut chunks: Vec<ChunkFacts> = (0..video.chunks.len()).map(facts).collect();
    if let Some(narrowband) = &video.narrowband {
        steady(&mut chunks, |chunk| compared(&narrowband.probe, video.chunk_frames(chunk)).is_some());
    }
    TitleFacts {
        codec: rules.codec,
        display_width,
        display_height,
        probe_width: probed.map_or(display_width, |rung| rung.width),
        probe_height: probed.map_or(display_height, |rung| rung.height),
        chunks,
        calibration: Vec::new(),
    }
}

/// The rung with its cap.
fn sized(rung: &RungDecision, rules: &AllocationRules) -> SizedRung {
    let cap = rung.cap_kbps(rules.peak_to_mean);
    SizedRung {
        name: rung.name.clone(),
        width: rung.width,
        height: rung.height,
        goal: RungRule { height: None, crf: None, kbps: None, max_kbps: Some(cap.ceil().max(1.0) as u32), lossless: false },
    }
}

#[cfg(test)]
mod tests;
