//! What parent and child say to each other: one task down, typed reports up, byte ranges on request.
//!
//! A frame is `[length: u32 little-endian][kind: u8][payload]`; `length` counts the payload. Messages are JSON
//! (kind 0); the answer to a range request is raw bytes (kind 1). The parent trusts nothing that comes up:
//! lengths are capped before anything is allocated, and a message that does not parse ends the child.

mod content;
mod device;

pub use content::{
    AnalyseReport, AnalyseSpent, AnalyseTask, Beginning, CalibrateReport, CalibrateTask, Measured, SizedPoint, Texture,
    Verification,
};

pub use device::Device;

use crate::plan::time::Rational;
use crate::plan::{AudioPlan, Chunk, Filters, Rung};
use crate::probe::{Keyframe, PacketTable, Probe};
use crate::quality::picture::Format;
use crate::quality::score::{FrameError, Model};
use serde::{Deserialize, Serialize};

mod still;

pub use still::{Still, StillMade, StillReport, StillTask};

/// Largest payload of one frame, bytes. A probe of ten hours is about 4 MB.
pub const MAX_FRAME_BYTES: usize = 64 * 1024 * 1024;
/// Largest range a child may ask for at once, bytes.
pub const MAX_READ_BYTES: u32 = 4 * 1024 * 1024;

/// Kinds of frames.
pub const KIND_MESSAGE: u8 = 0;
pub const KIND_BYTES: u8 = 1;

/// What the child is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub task: Task,
    /// The inputs, numbered as [`FromChild::Read`] names them.
    pub inputs: Vec<Input>,
    pub limits: Limits,
    /// The weakest jail in which the child may touch media; below it, it refuses.
    pub minimum_jail: JailLevel,
    /// The only folder the child may touch.
    pub scratch: String,
}

/// One input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    pub access: Access,
    pub bytes: u64,
}

/// How the bytes of an input are had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// `pread` on this inherited file descriptor.
    Fd(i32),
    /// Ask the parent: [`FromChild::Read`].
    Ranges,
}

/// What no child may exceed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Width x height of any frame of the source.
    pub max_pixels: u64,
    pub max_streams: u32,
    pub max_duration_s: u64,
    /// Packets of one stream.
    pub max_frames: u64,
    /// Address space of a child, bytes.
    pub memory_bytes: u64,
    /// Bytes a child may write to its scratch folder, in one file and in all.
    pub scratch_bytes: u64,
    /// CPU seconds of a child.
    pub cpu_s: u64,
}

/// The work itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Task {
    /// Input 0: the source. Packet tables are left in the scratch folder, each named by [`packet_table_file`].
    Probe,
    /// Input 0: the source. Input 1, where the task says so: its packet table.
    Encode(Box<EncodeTask>),
    /// Inputs as for an encode.
    Analyse(Box<AnalyseTask>),
    /// Inputs as for an encode.
    Calibrate(Box<CalibrateTask>),
    /// Input 0: the source.
    Audio(Box<AudioTask>),
    /// Inputs: init segment and segments of each track, end to end; packets are copied into one faststart MP4.
    Remux(RemuxTask),
    /// Input 0: the reference. Input 1: the distorted, or its init segment and segments end to end.
    Measure(MeasureTask),
    /// Inputs: as each picture names them.
    Still(StillTask),
}

impl Task {
    pub fn kind(&self) -> &'static str {
        match self {
            Task::Probe => "probe",
            Task::Encode(_) => "encode",
            Task::Analyse(_) => "analyse",
            Task::Calibrate(_) => "calibrate",
            Task::Audio(_) => "audio",
            Task::Remux(_) => "remux",
            Task::Measure(_) => "measure",
            Task::Still(_) => "still",
        }
    }

    /// The device that the task needs.
    pub fn device(&self) -> Option<&Device> {
        match self {
            Task::Encode(task) => task.device.as_ref(),
            _ => None,
        }
    }
}

/// The scratch file in which a probe leaves the packet table of a stream.
pub fn packet_table_file(stream: usize) -> String {
    format!("packets-{stream}.bin")
}

/// Encode one chunk for all rungs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncodeTask {
    pub stream: usize,
    pub source_base: Rational,
    pub origin: i64,
    /// Timestamps cannot be trusted: there is one chunk, and the child puts its frames on a clean clock.
    pub clean_clock: bool,
    pub timescale: u32,
    pub ticks_per_tick: i64,
    pub reorder_delay: i64,
    pub frame_duration: i64,
    pub frame_rate: Rational,
    pub chunk: Chunk,
    /// Where decoding may start, in decode order: the last few keyframes up to the chunk's own.
    /// Empty: from the beginning.
    pub keyframes: Vec<Keyframe>,
    /// Input 1 lists the packets of the stream: the container need not be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<PacketTable>,
    pub filters: Filters,
    pub rungs: Vec<Rung>,
    /// Threads for each encoder that may use them without changing its output.
    pub threads: u32,
    /// The top rung is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// What encodes the rungs, where that is a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
}

/// Encode one audio rendition over the whole source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AudioTask {
    pub rendition: AudioPlan,
}

/// Copy CMAF tracks into one progressive MP4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemuxTask {
    /// File to make in the scratch folder.
    pub file: String,
}

/// Compare two inputs, frame by frame in presentation order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasureTask {
    /// VMAF by these; XPSNR is always measured.
    pub models: Vec<Model>,
    /// Frames passed over at the beginning of both.
    pub start: u64,
    /// Frames compared from there; absent: all.
    pub count: Option<u64>,
    /// One frame in so many is scored.
    pub every: u32,
    /// 8 or 10; absent: 10 where the reference has more than 8.
    pub bits: Option<u8>,
    /// So many frames may one have more than the other.
    pub allow_extra: u64,
    pub threads: u32,
}

/// Every message a child may send.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum FromChild {
    /// The jail stands; from here on nothing outside it can be reached.
    Jailed {
        level: JailLevel,
    },
    /// Frames (or packets, for a probe or remux; pairs of frames, for a measurement) done so far, all rungs together. Resets the no-progress timer.
    Progress {
        frames: u64,
    },
    /// Answered by one frame of kind [`KIND_BYTES`] with at most `bytes` bytes; fewer only at the end of the input.
    Read {
        input: u32,
        offset: u64,
        bytes: u32,
    },
    Done(Box<Report>),
    Refused(Refusal),
}

/// How tight the jail is, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JailLevel {
    /// Resource limits, no capabilities, no new privileges. More may stand, but not all of it.
    Limits,
    /// And the system-call allow-list, with the scratch folder as the root of all file names.
    Seccomp,
    /// The system-call allow-list and Landlock: no file but the scratch folder, by the kernel's own check.
    Full,
}

/// Why the child will not make an output, in words for the customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub reason: RefusalReason,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// The source cannot be read: not media, truncated before its index, damaged beyond use.
    Media,
    /// A codec, encryption or feature that is not supported.
    Unsupported,
    /// A cap of [`Limits`] was passed.
    Limit,
    /// A library was refused memory (`ENOMEM`).
    Memory,
    /// The encoder would not take the settings.
    Settings,
    /// The device is not there, or failed.
    Device,
    /// The jail stopped the child or could not be built.
    Jail,
    /// Bytes of the input could not be had.
    Input,
    /// A bug or a full disk: not the customer's doing.
    Internal,
}

/// What a finished child reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Report {
    Probe(Probe),
    Encode(EncodeReport),
    Analyse(AnalyseReport),
    Calibrate(CalibrateReport),
    Audio(AudioReport),
    Remux(RemuxReport),
    Measure(MeasureReport),
    Still(StillReport),
}

/// One chunk, encoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncodeReport {
    pub chunk: u32,
    /// Frames fed to every encoder.
    pub frames: u64,
    /// Output ticks of the first frame; absent when no frame fell into the chunk.
    pub first_time: Option<i64>,
    /// Output ticks at which the last frame ends: the next chunk's first frame, or the end of the title.
    pub end_time: Option<i64>,
    /// The first frame of the chunk: its proof.
    pub head: Option<FrameProof>,
    /// The first frame after the chunk, as this child decoded it across the seam: it must equal the next head.
    pub next: Option<FrameProof>,
    pub damage: Damage,
    /// Decoded only to get to the chunk's first frame.
    pub preroll_frames: u64,
    pub rungs: Vec<EncodedRung>,
    /// Of the top rung, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// Why it was not measured, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmeasured: Option<String>,
}

/// A decoded source frame, recognisable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameProof {
    /// Source ticks.
    pub pts: i64,
    /// First 16 hexadecimal digits of the SHA-256 of the visible pixels.
    pub pixels: String,
}

/// What was wrong with the source in this chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Frames that packets announced and no decoder gave.
    pub lost_frames: u64,
    /// Frames given, with the decoder's word that they are damaged.
    pub damaged_frames: u64,
    /// Source ticks of the first of them.
    pub first_bad: Option<i64>,
    /// The decoder's last words on it.
    pub message: Option<String>,
}

/// One rung of one chunk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncodedRung {
    pub name: String,
    pub init: InitSegment,
    pub segments: Vec<Segment>,
    pub frames: u64,
    pub bytes: u64,
    /// CPU seconds of this rung's scaling and encoding, as the process clock saw them.
    pub cpu_s: f64,
}

/// The init segment: the same bytes for every chunk of a rung, or the rung is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitSegment {
    /// Scratch file name from the child; path under the output URI in a marker.
    pub file: String,
    pub bytes: u64,
    /// RFC 6381 (`hvc1.1.6.L120.90`, `avc1.64001f`, `mp4a.40.2`).
    pub codecs: String,
    /// Ticks a second of the track.
    pub timescale: u32,
}

/// One media segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Number over the title.
    pub index: u32,
    /// Scratch file name from the child; path under the output URI in a marker.
    pub file: String,
    pub bytes: u64,
    /// Presentation time of the first sample and sum of sample durations, output ticks.
    pub time: i64,
    pub duration: i64,
    /// Video frames or audio access units.
    pub samples: u64,
}

/// One audio rendition, encoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AudioReport {
    pub name: String,
    /// With the sample counts by which players that read the segments in one go trim priming and padding.
    pub init: InitSegment,
    /// Without them, for DASH: there players may begin anew with every segment, and would trim each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_init: Option<InitSegment>,
    pub segments: Vec<Segment>,
    /// Samples encoded, per channel, priming left out.
    pub samples: u64,
    /// Samples of encoder priming that the edit list skips.
    pub priming: u32,
    /// Samples of silence put into gaps of the source, and samples cut from overlaps.
    pub filled: u64,
    pub trimmed: u64,
    pub damage: Damage,
    pub bytes: u64,
}

/// One progressive MP4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemuxReport {
    pub file: String,
    pub bytes: u64,
    pub packets: u64,
}

/// Two inputs, compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasureReport {
    /// What both were compared as: the reference's size as it is shown.
    pub format: Format,
    /// By which XPSNR knew how to see motion.
    pub frame_rate: Rational,
    /// Pairs of frames compared.
    pub frames: u64,
    /// Frames that each had, of those asked for.
    pub reference_frames: u64,
    pub distorted_frames: u64,
    /// Of each model asked for, the scores of the scored frames, in sequence.
    pub vmaf: Vec<(Model, Vec<f64>)>,
    pub xpsnr: Vec<FrameError>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// One frame of the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub payload: Vec<u8>,
}

/// A peer that does not keep to the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("a frame of {0} bytes; at most {MAX_FRAME_BYTES} are allowed")]
    TooLong(usize),
    #[error("a frame of unknown kind {0}")]
    UnknownKind(u8),
    #[error("a message that does not parse: {0}")]
    Malformed(String),
}

/// The bytes of one frame.
pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + 5);
    bytes.extend_from_slice(&u32::try_from(payload.len()).expect("a payload under 4 GiB").to_le_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(payload);
    bytes
}

/// A message as a frame.
pub fn message<T: Serialize>(value: &T) -> Vec<u8> {
    frame(KIND_MESSAGE, &serde_json::to_vec(value).expect("every message is plain data"))
}

/// Takes bytes as they come and gives whole frames.
#[derive(Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that were given out already.
    taken: usize,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 && self.taken * 2 >= self.buffer.len() {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// The peer broke the protocol; nothing that follows can be trusted.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let rest = &self.buffer[self.taken..];
        let Some(head) = rest.get(..5) else { return Ok(None) };
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = head[4];
        if length > MAX_FRAME_BYTES {
            return Err(WireError::TooLong(length));
        }
        if kind > KIND_BYTES {
            return Err(WireError::UnknownKind(kind));
        }
        let Some(payload) = rest.get(5..5 + length) else { return Ok(None) };
        let frame = Frame { kind, payload: payload.to_vec() };
        self.taken += 5 + length;
        Ok(Some(frame))
    }
}

/// Reads a message.
///
/// # Errors
/// The payload is not a `T`.
pub fn parse<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(payload).map_err(|e| WireError::Malformed(e.to_string()))
}

#[cfg(test)]
mod tests;
