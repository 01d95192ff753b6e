//! What a report says, by time: the one form that all charts and tables of the page are made of.

use super::segments::Track;
use crate::part::report::{ChunkReport, JobReport};
use serde_json::Value;

/// A title whose length nobody tells is drawn as this long, seconds.
const LEAST_DURATION_S: f64 = 0.001;

/// A value that holds for some time, output seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    pub start_s: f64,
    pub end_s: f64,
    pub value: f64,
}

/// The report by time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Story {
    /// Name of the source, without its folder.
    pub name: String,
    pub duration_s: f64,
    /// Best first.
    pub rungs: Vec<Rung>,
    /// Each chunk, as its number.
    pub chunks: Vec<Step>,
    /// Where one segment ends and the next begins, within the title; empty where the segments are not at hand.
    pub segment_seams: Vec<f64>,
    pub cuts: Vec<f64>,
    /// Scored pictures of the top rung, VMAF-NEG.
    pub scores: Vec<Score>,
    /// The mean of those of each chunk.
    pub chunk_means: Vec<Step>,
    /// Chunks of the top rung that were encoded once more.
    pub repaired: Vec<Step>,
}

/// One rung by time. Rates in kbit/s, qualities in VMAF-NEG at display size.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rung {
    pub name: String,
    pub kbps: f64,
    /// By segment where those are at hand, by chunk otherwise.
    pub made: Vec<Step>,
    pub is_by_segment: bool,
    pub planned_kbps: Vec<Step>,
    pub planned_vmaf: Vec<Step>,
    pub crf: Vec<Step>,
}

/// One scored picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Score {
    pub time_s: f64,
    pub vmaf: f64,
    /// Index into the report's chunks.
    pub chunk: usize,
    /// Counted from the chunk's first.
    pub picture: u64,
}

impl Story {
    /// `tracks`: for each rung of the report what lies on the disk.
    pub fn new(report: &JobReport, tracks: &[Option<Track>]) -> Self {
        let ends = report.chunks.iter().map(|chunk| chunk.start_s + chunk.duration_s);
        let duration_s = ends.chain([report.totals.duration_s]).fold(LEAST_DURATION_S, f64::max);
        let rungs = (0..report.rungs.len()).map(|n| rung(report, n, tracks.get(n).and_then(Option::as_ref))).collect();
        let segments = tracks.iter().flatten().next().map_or(&[][..], |track| &track.segments);
        let top = |chunk: &ChunkReport| chunk.rungs.first().and_then(|rung| rung.measured.clone());
        let means = report.chunks.iter().filter_map(|chunk| Some(step(chunk, top(chunk)?.vmaf_neg)));
        Self {
            name: file_name(&report.source.uri),
            duration_s,
            rungs,
            chunks: report.chunks.iter().map(|chunk| step(chunk, f64::from(chunk.chunk))).collect(),
            segment_seams: segments.iter().skip(1).map(|segment| segment.start_s).collect(),
            cuts: cuts(report),
            scores: scores(report),
            chunk_means: means.collect(),
            repaired: repaired(report),
        }
    }

    /// Where one chunk ends and the next begins.
    pub fn chunk_seams(&self) -> Vec<f64> {
        self.chunks.iter().skip(1).map(|chunk| chunk.start_s).collect()
    }
}

/// The value of `steps` at a time; of the last one that began before it.
pub(super) fn value_at(steps: &[Step], time_s: f64) -> Option<f64> {
    steps.iter().rev().find(|step| step.start_s <= time_s).map(|step| step.value)
}

fn step(chunk: &ChunkReport, value: f64) -> Step {
    Step { start_s: chunk.start_s, end_s: chunk.start_s + chunk.duration_s, value }
}

/// The rate of so many bytes; 0 of what lasts no time.
pub(super) fn kbps(bytes: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { bytes as f64 * 8.0 / 1000.0 / seconds } else { 0.0 }
}

fn rung(report: &JobReport, n: usize, track: Option<&Track>) -> Rung {
    let name = &report.rungs[n].name;
    let of_chunks = |value: &dyn Fn(&ChunkReport, &crate::part::report::ChunkRungReport) -> Option<f64>| -> Vec<Step> {
        let of = |chunk: &ChunkReport| {
            let rung = chunk.rungs.iter().find(|rung| rung.name == *name)?;
            Some(step(chunk, value(chunk, rung)?))
        };
        report.chunks.iter().filter_map(of).collect()
    };
    let by_segment = |track: &Track| -> Vec<Step> {
        let of = |s: &super::segments::Segment| Step {
            start_s: s.start_s,
            end_s: s.start_s + s.duration_s,
            value: kbps(s.bytes, s.duration_s),
        };
        track.segments.iter().map(of).collect()
    };
    Rung {
        name: name.clone(),
        kbps: report.rungs[n].kbps,
        made: track.map_or_else(|| of_chunks(&|chunk, rung| Some(kbps(rung.bytes, chunk.duration_s))), by_segment),
        is_by_segment: track.is_some(),
        planned_kbps: of_chunks(&|_, rung| Some(rung.planned?.kbps)),
        planned_vmaf: of_chunks(&|_, rung| Some(rung.planned?.vmaf)),
        crf: of_chunks(&|_, rung| Some(rung.planned?.crf)),
    }
}

fn scores(report: &JobReport) -> Vec<Score> {
    let mut scores = Vec::new();
    for (n, chunk) in report.chunks.iter().enumerate() {
        let Some(measured) = chunk.rungs.first().and_then(|rung| rung.measured.as_ref()) else { continue };
        let picture_s = chunk.duration_s / chunk.frames.max(1) as f64;
        for (turn, vmaf) in measured.scores.iter().enumerate() {
            let every = u64::from(measured.scored_every);
            let picture = if chunk.frames > every { (turn as u64 + 1) * every } else { 0 };
            scores.push(Score { time_s: chunk.start_s + picture as f64 * picture_s, vmaf: *vmaf, chunk: n, picture });
        }
    }
    scores
}

fn repaired(report: &JobReport) -> Vec<Step> {
    let repairs = report.narrowband.as_ref().and_then(|found| found.grounds.repairs.as_ref());
    let of = |repair: &crate::plan::narrowband::repair::Repair| Some(step(report.chunks.get(repair.chunk)?, repair.crf));
    repairs.iter().flat_map(|repairs| &repairs.chunks).filter_map(of).collect()
}

/// The first video stream's facts.
pub(super) fn video_facts(report: &JobReport) -> &Value {
    &report.source.facts.0["video"][0]
}

/// Seconds that a tick of the source lasts, and its first time in ticks.
pub(super) fn source_clock(report: &JobReport) -> Option<(f64, i64)> {
    let facts = video_facts(report);
    let (num, den) = (facts["time_base"][0].as_i64()?, facts["time_base"][1].as_i64()?);
    (num > 0 && den > 0).then_some((num as f64 / den as f64, facts["first_pts"].as_i64()?))
}

/// Scene cuts within the title.
fn cuts(report: &JobReport) -> Vec<f64> {
    let Some((tick_s, first)) = source_clock(report) else { return Vec::new() };
    let cuts = report.narrowband.iter().flat_map(|found| &found.grounds.grid.cuts);
    cuts.map(|cut| (cut.at as f64 - first as f64) * tick_s).filter(|time| *time > 0.0).collect()
}

/// The last element of a path or URI.
fn file_name(uri: &str) -> String {
    let plain = uri.split(['?', '#']).next().unwrap_or(uri).trim_end_matches('/');
    plain.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(uri).to_string()
}
