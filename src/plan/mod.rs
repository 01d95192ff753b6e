//! Everything decided before encoding: a pure function of the job, the probe and the preset.
//!
//! Same inputs, same plan, same keys. Nothing here reads a clock, a file or a random number.

pub mod audio;
pub mod chunks;
pub mod decided;
pub mod device;
pub mod encoder;
pub mod interest;
pub mod ladder;
pub mod make;
pub mod marker;
pub mod narrowband;
pub mod pixel;
pub mod preset;
pub mod time;

pub use decided::{Grounds, Revised, adjusted, decided, surveyed, verified};
pub use device::on_device;
pub use make::{PlanError, analyse_task, audio_task, calibrate_task, encode_task, make, repair_task};

use crate::job::{Class, OnDamage};
use crate::probe::Clock;
use interest::Region;
use marker::PartId;
use preset::{DamageRules, Packaging};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use time::Rational;

/// The whole decision for one job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub preset: String,
    pub packaging: Packaging,
    pub on_damage: OnDamage,
    pub damage: DamageRules,
    pub video: Option<VideoPlan>,
    pub audio: Vec<AudioPlan>,
    /// What was decided that a person might not expect, in plain sentences.
    pub notes: Vec<String>,
}

/// The video ladder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoPlan {
    /// Stream index in the source.
    pub stream: usize,
    /// The source's ticks: chunk and segment starts are in these.
    pub source_base: Rational,
    /// The source tick that becomes time zero.
    pub origin: i64,
    pub clock: Clock,
    /// Ticks a second of every output track.
    pub timescale: u32,
    /// Output ticks per source tick: `out = (pts - origin) * ticks_per_tick`.
    pub ticks_per_tick: i64,
    /// The same `media_time` in every init segment: output ticks by which a composition time may exceed
    /// its decode time.
    pub reorder_delay: i64,
    /// Mean output frame duration, output ticks: the duration of a last frame that states none.
    pub frame_duration: i64,
    pub frame_rate: Rational,
    /// Frames expected over the whole title, for progress only.
    pub expected_frames: u64,
    pub filters: Filters,
    /// Largest first; none in a draft.
    pub rungs: Vec<Rung>,
    pub chunks: Vec<Chunk>,
    /// Content decides rungs and qualities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub narrowband: Option<NarrowbandPlan>,
    /// The same rungs by the encoders of a device, which the job begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceRungs>,
}

/// A ladder for the encoders of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceRungs {
    pub class: Class,
    /// One for each of the plan's own, of the same name and size.
    pub rungs: Vec<Rung>,
}

/// What is planned of a title whose content decides its ladder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NarrowbandPlan {
    /// The picture as it is shown, by which encodes of any size are judged; nothing is encoded with it.
    pub reference: Rung,
    pub probe: ProbePlan,
    /// Encodes with the final settings by which probes are calibrated; absent until all chunks are analysed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrations: Option<Vec<CalibrationPlan>>,
    /// For each chunk, in order, the CRF of each rung; empty until that is decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crf: Vec<Vec<f64>>,
    /// Chunks that are encoded before the others, which are set right by them; none: nothing is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pilots: Vec<u32>,
    /// They were.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adjusted: bool,
    /// One picture in so many of the top rung is scored; absent: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_every: Option<u32>,
    /// Chunks whose top rung is encoded once more; absent until the top rung was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repairs: Option<Vec<RepairPlan>>,
}

impl NarrowbandPlan {
    /// One picture in so many of a chunk's top rung is scored; `None`: none is. By the pilots the others are set right, so of those
    /// as many are as of a probe: the mean of every eleventh has a standard error of 0.8 (median of 67 chunks of 2 to 6 s; of a quarter
    /// of them more than 1.25).
    pub fn scored_every(&self, chunk: u32) -> Option<u32> {
        let every = self.verified_every?;
        Some(if self.pilots.contains(&chunk) { every.min(self.probe.scored_every) } else { every })
    }
}

/// The beginning of one chunk in each picture size that the ladder may have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationPlan {
    pub chunk: u32,
    /// The part of the title the chunk stands for, 0 to 1.
    pub weight: f64,
    /// Pictures from the chunk's first on.
    pub frames: u64,
    /// Pinned as the ladder's rungs will be, largest first, and the CRF of each.
    pub rungs: Vec<Rung>,
    pub crf: Vec<f64>,
}

/// A top rung that missed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepairPlan {
    pub chunk: u32,
    pub crf: f64,
}

/// How much of a plan has been decided. A plan whose content decides nothing is verified from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revision {
    /// The chunks can be analysed.
    Draft,
    /// The calibrations are chosen.
    Surveyed,
    /// Rungs and qualities are decided; those that are to be set right by pilots, of the pilots.
    Decided,
    /// And of all chunks.
    Adjusted,
    /// The top rung was measured, and its repairs are chosen.
    Verified,
}

impl Revision {
    /// The revisions that a plan may come to, latest first.
    pub const LATER: [Revision; 4] = [Revision::Verified, Revision::Adjusted, Revision::Decided, Revision::Surveyed];

    pub fn name(self) -> &'static str {
        match self {
            Revision::Draft => "draft",
            Revision::Surveyed => "surveyed",
            Revision::Decided => "decided",
            Revision::Adjusted => "adjusted",
            Revision::Verified => "verified",
        }
    }
}

/// How every chunk is probed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbePlan {
    /// The fast encodes, all of one size, pinned like any rung.
    pub rungs: Vec<Rung>,
    /// The CRF of each.
    pub crf: Vec<f64>,
    /// One picture in so many is scored.
    pub scored_every: u32,
    /// So many pictures of each chunk are looked at, from its first on; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<u64>,
    /// Every fast encode but the first is of the chunk's first half alone.
    #[serde(default)]
    pub halved: bool,
}

impl Plan {
    /// How much has been decided.
    pub fn revision(&self) -> Revision {
        match self.narrowband() {
            Some(NarrowbandPlan { calibrations: None, .. }) => Revision::Draft,
            Some(NarrowbandPlan { crf, .. }) if crf.is_empty() => Revision::Surveyed,
            Some(NarrowbandPlan { pilots, adjusted: false, .. }) if !pilots.is_empty() => Revision::Decided,
            // Without pilots there is nothing to set right.
            Some(NarrowbandPlan { repairs: None, .. }) => Revision::Adjusted,
            Some(_) | None => Revision::Verified,
        }
    }

    /// The revision of this plan that a part works by: pilots by the first in which chunks can be encoded.
    pub fn works_by(&self, part: PartId) -> Revision {
        let is_pilot = |chunk: u32| self.narrowband().is_some_and(|narrowband| narrowband.pilots.contains(&chunk));
        match part {
            PartId::Encode(chunk) if is_pilot(chunk) => Revision::Decided,
            PartId::Encode(_) | PartId::Audio(_) => Revision::Adjusted,
            part => part.works_by(),
        }
    }

    /// Rungs and qualities are decided: chunks can be encoded.
    pub fn is_decided(&self) -> bool {
        self.revision() >= Revision::Decided
    }

    /// The plan as it is worked by with the encoders of a class.
    pub fn in_class(&self, class: Class) -> Plan {
        let mut plan = self.clone();
        if let Some(video) = &mut plan.video
            && let Some(device) = video.device.take().filter(|device| device.class == class)
        {
            video.rungs = device.rungs;
        }
        plan
    }

    /// What analysis needs, where content decides the ladder.
    pub fn narrowband(&self) -> Option<&NarrowbandPlan> {
        self.video.as_ref()?.narrowband.as_ref()
    }
}

impl VideoPlan {
    /// How long a chunk lasts, source ticks; the last one by the frames expected.
    pub fn chunk_ticks(&self, index: usize) -> i64 {
        let Some(chunk) = self.chunks.get(index) else { return 0 };
        let start = chunk.start.unwrap_or(self.origin);
        let title = i64::try_from(self.expected_frames).unwrap_or(i64::MAX).saturating_mul(self.frame_duration)
            / self.ticks_per_tick.max(1);
        chunk.end.unwrap_or(self.origin.saturating_add(title)).saturating_sub(start)
    }

    /// Frames that a chunk is expected to have, by the clock.
    pub fn chunk_frames(&self, index: usize) -> u64 {
        let frames = self.chunk_ticks(index).saturating_mul(self.ticks_per_tick) / self.frame_duration.max(1);
        u64::try_from(frames).unwrap_or(0)
    }
}

/// A run of source frames encoded as one unit: those whose presentation time is in `[start, end)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    pub index: u32,
    /// Source ticks; absent: from the first frame there is.
    pub start: Option<i64>,
    /// Source ticks; absent: to the last frame there is.
    pub end: Option<i64>,
    /// Number of the first segment, counted over the title.
    pub first_segment: u32,
    /// Start of each segment, source ticks; the first is the chunk's own start.
    pub segments: Vec<i64>,
    /// Index into the probe's keyframes of the last one at or before `start`.
    pub keyframe: usize,
}

/// What is done to every decoded frame before it is scaled for a rung.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Filters {
    /// Clockwise degrees: 0, 90, 180, 270.
    pub rotation: u16,
    pub deinterlace: DeinterlaceMode,
    /// Tone-map PQ or HLG to BT.709.
    pub tone_map: bool,
    /// Replicate the last row or column so that both dimensions are even.
    pub pad_to_even: bool,
    /// Made to look better than it was, which is judged beside what it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enhance: Option<Enhance>,
}

/// What is done to a picture beside what it was. Within the picture alone: a chunk's first frame has none before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Enhance {
    /// Standard deviation of the noise that is taken out, in steps of 8 bits; 0: none.
    pub denoise: f64,
    /// Smooth the steps of slow gradients.
    pub deband: bool,
    /// How much of the detail is put on top, 0 to 1; 0: none.
    pub sharpen: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeinterlaceMode {
    #[default]
    Off,
    /// One frame out for each in.
    Frame,
    /// One frame out for each field in.
    Field,
}

impl Filters {
    /// Frames that a filter looks at before and after the one it makes.
    pub fn neighbours(&self) -> u32 {
        if self.deinterlace == DeinterlaceMode::Off { 0 } else { 2 }
    }
}

/// One rendition of the ladder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rung {
    /// Folder of the rendition, unique in the plan: `1080p`, `source`.
    pub name: String,
    pub width: u32,
    pub height: u32,
    pub sample_aspect: Rational,
    /// libavutil's name of the pixel format encoded.
    pub pixel_format: String,
    pub full_range: bool,
    /// Index of the larger rung whose scaled frame this one is scaled from; absent: from the source frame.
    pub scale_from: Option<usize>,
    /// swscale flags.
    pub scaler: String,
    pub encoder: Encoder,
    pub colour: OutputColour,
    /// Where the quantiser is offset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interest: Vec<Region>,
}

impl Rung {
    /// The same, whose first picture is as poor as the encoder makes it: for encodes that are made to be compared.
    pub fn without_raised_first(mut self) -> Self {
        self.encoder.first_picture_qp_tenths = 0;
        self
    }
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// One encoder, fully pinned: the same for every chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encoder {
    /// libavcodec's name (`libx265`, ...).
    pub library: String,
    /// libavcodec options, the library's own parameters among them (`x265-params`).
    pub options: BTreeMap<String, String>,
    /// A fresh encoder for every segment: for encoders that cannot be told where a key frame goes.
    pub restart_per_segment: bool,
    /// Most frames by which the encoder may reorder.
    pub reorder_frames: u32,
    /// What is added to the quantiser of the first picture it is given, tenths of a step.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first_picture_qp_tenths: i32,
    /// ISO-BMFF sample entry (`hvc1`, `avc1`, `av01`).
    pub sample_entry: String,
}

/// H.273 signalling of the output; empty names are not signalled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputColour {
    pub primaries: String,
    pub transfer: String,
    pub matrix: String,
    /// RFC 8216bis 4.4.6.2 VIDEO-RANGE: `SDR`, `PQ` or `HLG`.
    pub video_range: String,
}

/// One audio rendition: one source stream, encoded once over the whole source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AudioPlan {
    /// Folder of the rendition: `audio-0-128k`.
    pub name: String,
    /// Stream index in the source.
    pub stream: usize,
    pub source_base: Rational,
    /// Source tick that becomes time zero: the video's origin in this stream's ticks.
    pub origin: i64,
    pub encoder: Encoder,
    pub bit_rate: u64,
    pub sample_rate: u32,
    pub channels: u32,
    /// libavutil's name of the output layout.
    pub layout: String,
    pub language: Option<String>,
    /// Shown to viewers; unique within the group.
    pub label: String,
    pub default: bool,
    /// HLS group: the renditions of one quality.
    pub group: String,
    /// Segment starts in output samples (1/sample_rate s), the first 0; the same instants as the video's.
    pub segments: Vec<i64>,
    /// Length the rendition should have, output samples, when the source states its end.
    pub expected_samples: Option<i64>,
}
