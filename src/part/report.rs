//! `report.json`: what was decided and measured.

mod narrowband;

pub use narrowband::{ChunkAnalysis, Cost, NarrowbandReport, PlannedRung};

use super::tools::Planned;
use crate::job::OnDamage;
use crate::package::{Title, Track};
use crate::plan::marker::{Marker, Object, PartResult};
use crate::plan::time::{Rational, seconds};
use crate::probe::Probe;
use crate::sandbox::protocol::{AudioReport, Damage, EncodeReport, Measured};
use serde::{Deserialize, Serialize};

/// Path of the report under the output URI.
pub const REPORT_PATH: &str = "report.json";
/// Version of the report document.
pub const VERSION: u32 = 1;

/// What a job made, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobReport {
    pub version: u32,
    pub job: String,
    pub preset: String,
    pub source: SourceReport,
    /// Largest first.
    pub rungs: Vec<RungReport>,
    pub audio: Vec<AudioRenditionReport>,
    pub chunks: Vec<ChunkReport>,
    pub seams: SeamReport,
    pub damage: DamageReport,
    /// Progressive files.
    pub files: Vec<Object>,
    /// Where content decided the ladder: what was found, what was decided, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub narrowband: Option<NarrowbandReport>,
    /// What a person should know, in plain sentences: of the source, of the plan, of the join.
    pub notes: Vec<String>,
    pub totals: Totals,
}

/// The source as it was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceReport {
    pub uri: String,
    pub facts: Facts,
    /// Keyframes found in each video stream.
    pub keyframes: Vec<usize>,
}

/// A probe without its keyframes, which are many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Facts(pub serde_json::Value);

impl Facts {
    /// Everything of a probe that a person reads.
    pub fn of(probe: &Probe) -> Self {
        let mut short = probe.clone();
        short.video.iter_mut().for_each(|v| v.keyframes.clear());
        let mut value = serde_json::to_value(short).expect("a probe is plain data");
        for stream in value["video"].as_array_mut().into_iter().flatten().filter_map(|v| v.as_object_mut()) {
            stream.remove("keyframes");
        }
        Self(value)
    }
}

/// One video rendition over the title.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RungReport {
    pub name: String,
    pub width: u32,
    pub height: u32,
    pub encoder: String,
    /// RFC 6381.
    pub codecs: String,
    pub frames: u64,
    pub frame_rate: Rational,
    pub duration_s: f64,
    pub segments: usize,
    pub bytes: u64,
    /// Mean and measured peak rate of the media segments.
    pub kbps: f64,
    pub peak_kbps: f64,
    pub cpu_s: f64,
}

/// One audio rendition over the title.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AudioRenditionReport {
    pub name: String,
    pub language: Option<String>,
    pub encoder: String,
    pub codecs: String,
    pub sample_rate: u32,
    pub channels: u32,
    /// Per channel, priming left out.
    pub samples: u64,
    pub priming: u32,
    /// Samples of silence put into gaps of the source, and samples cut from overlaps.
    pub filled: u64,
    pub trimmed: u64,
    pub duration_s: f64,
    pub segments: usize,
    pub bytes: u64,
    pub kbps: f64,
    pub attempt: u32,
    pub wall_s: f64,
    pub cpu_s: f64,
    pub peak_bytes: u64,
}

/// One chunk, as it was encoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChunkReport {
    pub chunk: u32,
    /// Output seconds.
    pub start_s: f64,
    pub duration_s: f64,
    pub frames: u64,
    /// Frames decoded only to get to the first one.
    pub preroll_frames: u64,
    /// Which attempt it took.
    pub attempt: u32,
    pub wall_s: f64,
    pub cpu_s: f64,
    pub peak_bytes: u64,
    pub damage: Damage,
    pub rungs: Vec<ChunkRungReport>,
}

/// One rung of one chunk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChunkRungReport {
    pub name: String,
    pub frames: u64,
    pub segments: usize,
    pub bytes: u64,
    pub cpu_s: f64,
    /// Where content decided: what was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<PlannedRung>,
    /// And of the top rung what was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

/// That the separately encoded chunks are one title.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeamReport {
    pub chunks: usize,
    /// Seams between chunks at which timestamps meet to the tick and both sides decoded the same frame.
    pub proved: usize,
}

/// What was wrong with the source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DamageReport {
    pub on_damage: OnDamage,
    pub lost_frames: u64,
    pub damaged_frames: u64,
    /// Output seconds of the first of them.
    pub first_bad_s: Option<f64>,
}

/// Sums over the job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Video frames of all rungs.
    pub frames: u64,
    pub duration_s: f64,
    /// Of all objects that are kept.
    pub bytes: u64,
    pub cpu_s: f64,
    /// Sum over the parts; what ran side by side counts twice.
    pub wall_s: f64,
    /// Largest resident size of any child.
    pub peak_bytes: u64,
    /// Attempts beyond the first, of all parts.
    pub repeated_attempts: u32,
}

/// The markers that a report is made of.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// Of the encode stage, with what was repaired in its place.
    pub encodes: &'a [Marker],
    /// Of the stage before it.
    pub analyses: &'a [Marker],
    /// Of the stage after it.
    pub repairs: &'a [Marker],
}

impl JobReport {
    /// The report of a job whose seams hold; `objects` are those written so far.
    pub fn new(planned: &Planned, work: &Work<'_>, title: &Title, objects: &[Object]) -> Self {
        let (plan, probe, accepted) = (&planned.plan, &planned.probe, &planned.accepted);
        let markers = work.encodes;
        let mut chunks: Vec<ChunkReport> = markers.iter().filter_map(chunk).collect();
        let narrowband = planned.grounds.as_ref().map(|grounds| NarrowbandReport::new(grounds, work));
        for chunk in &mut chunks {
            narrowband::note_planned(planned, chunk);
        }
        let worked = || markers.iter().chain(work.analyses).chain(work.repairs);
        let notes = probe.notes.iter().chain(&plan.notes).chain(&title.notes).cloned().collect();
        let rungs: Vec<RungReport> = rungs(planned, title, &chunks);
        let audio: Vec<AudioRenditionReport> = audio(title, markers);
        let ends = rungs.iter().map(|r| r.duration_s).chain(audio.iter().map(|a| a.duration_s));
        let totals = Totals {
            frames: rungs.iter().map(|r| r.frames).sum(),
            duration_s: ends.fold(0.0, f64::max),
            bytes: objects.iter().map(|o| o.bytes).sum(),
            cpu_s: worked().map(|m| m.cpu_s).sum(),
            wall_s: worked().map(|m| m.wall_s).sum(),
            peak_bytes: worked().map(|m| m.peak_bytes).max().unwrap_or(0),
            repeated_attempts: worked().map(|m| m.attempt.saturating_sub(1)).sum(),
        };
        Self {
            version: VERSION,
            job: accepted.id.to_string(),
            preset: plan.preset.clone(),
            source: SourceReport {
                uri: accepted.job.input.uri.clone(),
                facts: Facts::of(probe),
                keyframes: probe.video.iter().map(|v| v.keyframes.len()).collect(),
            },
            seams: SeamReport { chunks: chunks.len(), proved: proved(markers) },
            damage: damage(planned, markers),
            files: objects.iter().filter(|o| !o.path.contains('/') && o.path.ends_with(".mp4")).cloned().collect(),
            rungs,
            audio,
            chunks,
            narrowband,
            notes,
            totals,
        }
    }
}

fn encoded(marker: &Marker) -> Option<&EncodeReport> {
    match &marker.result {
        PartResult::Encode(report) => Some(report),
        _ => None,
    }
}

fn heard(marker: &Marker) -> Option<(&Marker, &AudioReport)> {
    match &marker.result {
        PartResult::Audio(report) => Some((marker, report)),
        _ => None,
    }
}

fn chunk(marker: &Marker) -> Option<ChunkReport> {
    let report = encoded(marker)?;
    let rung = |r: &crate::sandbox::protocol::EncodedRung| ChunkRungReport {
        name: r.name.clone(),
        frames: r.frames,
        segments: r.segments.len(),
        bytes: r.bytes,
        cpu_s: r.cpu_s,
        planned: None,
        measured: None,
    };
    let timescale = report.rungs.first().map_or(1, |rung| rung.init.timescale.max(1));
    let at = |ticks: Option<i64>| seconds(ticks.unwrap_or(0), Rational::new(1, i64::from(timescale)));
    let mut rungs: Vec<ChunkRungReport> = report.rungs.iter().map(rung).collect();
    if let Some(top) = rungs.first_mut() {
        top.measured.clone_from(&report.measured);
    }
    Some(ChunkReport {
        chunk: report.chunk,
        start_s: at(report.first_time),
        duration_s: at(report.end_time) - at(report.first_time),
        frames: report.frames,
        preroll_frames: report.preroll_frames,
        attempt: marker.attempt,
        wall_s: marker.wall_s,
        cpu_s: marker.cpu_s,
        peak_bytes: marker.peak_bytes,
        damage: report.damage.clone(),
        rungs,
    })
}

fn duration_s(track: &Track) -> f64 {
    seconds(track.end() - track.start(), Rational::new(1, i64::from(track.timescale.max(1))))
}

fn rungs(planned: &Planned, title: &Title, chunks: &[ChunkReport]) -> Vec<RungReport> {
    let rate = planned.plan.video.as_ref().map_or(Rational::new(0, 1), |v| v.frame_rate);
    let cpu_s = |name: &str| chunks.iter().flat_map(|c| &c.rungs).filter(|r| r.name == name).map(|r| r.cpu_s).sum();
    let report = |video: &crate::package::VideoTrack| RungReport {
        name: video.track.name.clone(),
        width: video.rung.width,
        height: video.rung.height,
        encoder: video.rung.encoder.library.clone(),
        codecs: video.track.codecs.clone(),
        frames: video.track.samples,
        frame_rate: rate,
        duration_s: duration_s(&video.track),
        segments: video.track.segments.len(),
        bytes: video.track.bytes,
        kbps: video.track.average_bps as f64 / 1000.0,
        peak_kbps: video.track.peak_bps as f64 / 1000.0,
        cpu_s: cpu_s(&video.track.name),
    };
    title.video.iter().map(report).collect()
}

fn audio(title: &Title, markers: &[Marker]) -> Vec<AudioRenditionReport> {
    let report = |audio: &crate::package::AudioTrack| {
        let (marker, made) = markers.iter().filter_map(heard).find(|(_, r)| r.name == audio.track.name)?;
        Some(AudioRenditionReport {
            name: audio.track.name.clone(),
            language: audio.rendition.language.clone(),
            encoder: audio.rendition.encoder.library.clone(),
            codecs: audio.track.codecs.clone(),
            sample_rate: audio.rendition.sample_rate,
            channels: audio.rendition.channels,
            samples: made.samples,
            priming: made.priming,
            filled: made.filled,
            trimmed: made.trimmed,
            duration_s: duration_s(&audio.track),
            segments: audio.track.segments.len(),
            bytes: audio.track.bytes,
            kbps: audio.track.average_bps as f64 / 1000.0,
            attempt: marker.attempt,
            wall_s: marker.wall_s,
            cpu_s: marker.cpu_s,
            peak_bytes: marker.peak_bytes,
        })
    };
    title.audio.iter().filter_map(report).collect()
}

/// Seams at which both neighbours decoded the same frame.
fn proved(markers: &[Marker]) -> usize {
    let mut reports: Vec<&EncodeReport> = markers.iter().filter_map(encoded).collect();
    reports.sort_by_key(|r| r.chunk);
    reports.windows(2).filter(|pair| pair[0].next.is_some() && pair[0].next == pair[1].head).count()
}

fn damage(planned: &Planned, markers: &[Marker]) -> DamageReport {
    let reports: Vec<&EncodeReport> = markers.iter().filter_map(encoded).collect();
    // What a source cut short no longer holds, no child has seen.
    let stream = planned.plan.video.as_ref().and_then(|plan| planned.probe.video.iter().find(|v| v.index == plan.stream));
    let missing = stream.and_then(|stream| stream.missing);
    let first_bad = reports.iter().filter_map(|r| r.damage.first_bad).chain(missing.map(|m| m.first_pts)).min();
    let first_bad_s =
        first_bad.zip(planned.plan.video.as_ref()).map(|(pts, video)| seconds(pts - video.origin, video.source_base));
    let all = || markers.iter().filter_map(|m| encoded(m).map(|r| &r.damage).or(heard(m).map(|(_, r)| &r.damage)));
    DamageReport {
        on_damage: planned.plan.on_damage,
        lost_frames: all().map(|d| d.lost_frames).sum::<u64>() + missing.map_or(0, |m| m.packets),
        damaged_frames: all().map(|d| d.damaged_frames).sum(),
        first_bad_s,
    }
}
