//! The facts of a source, as the probe child found them: streams, time index, colour, what is wrong with it.
//!
//! A probe is small even for a ten-hour source: it holds the keyframes, not the frames.

use crate::plan::time::{Rational, mul_div_round};
use serde::{Deserialize, Serialize};

/// Everything the plan may know of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The demuxer's name as libavformat gives it (`mov,mp4,m4a,3gp,3g2,mj2`, `mpegts`, ...).
    pub container: String,
    /// Size of the source, bytes.
    pub bytes: u64,
    /// What the container claims, microseconds; absent when it claims nothing. Never used for planning.
    pub claimed_duration_us: Option<i64>,
    pub video: Vec<VideoStream>,
    pub audio: Vec<AudioStream>,
    /// Streams that no output is made of, each with the reason.
    pub ignored: Vec<IgnoredStream>,
    /// How the time index was made.
    pub scan: Scan,
    /// Bytes the probe read of the source.
    pub bytes_read: u64,
    /// What a person should know of this source, in plain sentences.
    pub notes: Vec<String>,
}

/// How the time index of the source was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scan {
    /// From the container's own sample tables: media bytes were not read.
    Index,
    /// From one sequential pass over all packets, none decoded.
    Packets,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IgnoredStream {
    pub index: usize,
    pub kind: String,
    pub codec: String,
    pub why: String,
}

/// One video stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoStream {
    /// Index of the stream in the container.
    pub index: usize,
    pub codec: String,
    pub profile: Option<String>,
    /// Seconds per tick; every pts, dts and duration below is in these ticks.
    pub time_base: Rational,
    pub width: u32,
    pub height: u32,
    /// Sample aspect ratio; 1:1 when the source says nothing.
    pub sample_aspect: Rational,
    /// Clockwise rotation for display, degrees: 0, 90, 180 or 270.
    pub rotation: u16,
    pub pixel_format: String,
    pub bit_depth: u8,
    pub colour: Colour,
    /// Frames a second over the whole stream.
    pub frame_rate: Rational,
    /// All frames but the last last equally long, to within one tick.
    pub constant_rate: bool,
    pub interlace: Interlace,
    /// Video packets found.
    pub packets: u64,
    /// What the index names and the source no longer holds; absent for a whole source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
    /// Presentation time of the first and the last packet (in presentation order), and the end of the last.
    pub first_pts: i64,
    pub last_pts: i64,
    pub end_pts: i64,
    /// Longest and shortest distance between neighbouring presentation times, ticks.
    pub longest_frame: i64,
    pub shortest_frame: i64,
    pub clock: Clock,
    /// Places at which a decode may start, in decode order, at least 0.2 s apart.
    pub keyframes: Vec<Keyframe>,
    /// Where every packet lies, for containers whose samples are packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<PacketTable>,
    /// Mean bits a second of the stream.
    pub bit_rate: u64,
    /// ISO 639-2 language, when the source says one.
    pub language: Option<String>,
}

impl VideoStream {
    /// Small progressive BT.709 pictures at an even pace, so many, with keyframes at these: what is supposed where there is no
    /// source. Widths, rates and the rest are set over it.
    pub fn even(time_base: Rational, frame_rate: Rational, first_pts: i64, frames: i64, keyframes: &[i64]) -> Self {
        let ticks = |frame: i64| mul_div_round(frame * frame_rate.den, time_base.den, frame_rate.num * time_base.num);
        let keyframe = |frame: &i64| {
            let pts = first_pts + ticks(*frame);
            Keyframe { pts, dts: pts, pos: *frame, ordinal: frame.unsigned_abs() }
        };
        Self {
            index: 0,
            codec: "h264".into(),
            profile: None,
            time_base,
            width: 320,
            height: 180,
            sample_aspect: Rational::new(1, 1),
            rotation: 0,
            pixel_format: "yuv420p".into(),
            bit_depth: 8,
            colour: Colour {
                full_range: false,
                primaries: "bt709".into(),
                transfer: "bt709".into(),
                matrix: "bt709".into(),
                dynamic_range: DynamicRange::Sdr,
                mastering_display: None,
                content_light: None,
            },
            frame_rate,
            constant_rate: true,
            interlace: Interlace::Progressive,
            packets: frames.unsigned_abs(),
            missing: None,
            first_pts,
            last_pts: first_pts + ticks(frames - 1),
            end_pts: first_pts + ticks(frames),
            longest_frame: ticks(1),
            shortest_frame: ticks(1),
            clock: Clock::Trusted,
            keyframes: keyframes.iter().map(keyframe).collect(),
            table: None,
            bit_rate: 1_000_000,
            language: None,
        }
    }
}

/// Everything to decode a stream from any of its packets without opening the container again: a chunk of a film then
/// costs its own packets, not the index of the film.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketTable {
    /// Packets that the table lists, in decode order; [`Keyframe::ordinal`] counts the same ones.
    pub records: u64,
    pub decoder: DecoderParameters,
}

/// What the container says to the decoder (libavcodec's `AVCodecParameters`), by names where numbers are one library
/// version's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecoderParameters {
    pub codec: String,
    pub codec_tag: u32,
    /// Hexadecimal.
    pub extradata: String,
    pub pixel_format: String,
    pub profile: i32,
    pub level: i32,
    pub width: i32,
    pub height: i32,
    pub sample_aspect: Rational,
    /// `progressive`, `tt`, `bb`, `tb`, `bt`, as the `ffprobe` program writes them; empty when unknown.
    pub field_order: String,
    pub colour_range: String,
    pub colour_primaries: String,
    pub colour_transfer: String,
    pub colour_matrix: String,
    pub chroma_location: String,
    /// Frames by which the decoder delays its output.
    pub reorder_frames: i32,
    pub bits_per_coded_sample: i32,
    pub bits_per_raw_sample: i32,
    pub bit_rate: i64,
    /// Frames a second, as the container states it.
    pub frame_rate: Rational,
}

/// The part of a cut source that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub packets: u64,
    /// Presentation time of the first, ticks.
    pub first_pts: i64,
}

/// May the timestamps be cut at?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Clock {
    /// Every packet has its own presentation time and they do not repeat or reset: chunks may be cut anywhere.
    Trusted,
    /// They cannot be trusted; the source is encoded as one chunk on a clean clock, and the report says why.
    Untrusted { why: String },
}

/// Colour signalling, by the names of ITU-T H.273 as libavutil spells them (`bt709`, `smpte2084`, ...).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Colour {
    pub full_range: bool,
    pub primaries: String,
    pub transfer: String,
    pub matrix: String,
    pub dynamic_range: DynamicRange,
    /// x265's notation of SMPTE ST 2086, `G(x,y)B(x,y)R(x,y)WP(x,y)L(max,min)`.
    pub mastering_display: Option<String>,
    /// CTA-861.3 content light level, `max,average` in cd/m2.
    pub content_light: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DynamicRange {
    Sdr,
    /// SMPTE ST 2084 (HDR10).
    Pq,
    /// ARIB STD-B67.
    Hlg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interlace {
    Progressive,
    /// Both fields of one frame are of different times; the top one is first.
    TopFirst,
    BottomFirst,
}

/// A packet at which decoding may start. `[pts, dts, pos, ordinal]` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(i64, i64, i64, u64)", into = "(i64, i64, i64, u64)")]
pub struct Keyframe {
    pub pts: i64,
    pub dts: i64,
    /// Byte position in the source, -1 when the demuxer does not say.
    pub pos: i64,
    /// How many packets of the stream come before it.
    pub ordinal: u64,
}

impl From<(i64, i64, i64, u64)> for Keyframe {
    fn from((pts, dts, pos, ordinal): (i64, i64, i64, u64)) -> Self {
        Self { pts, dts, pos, ordinal }
    }
}

impl From<Keyframe> for (i64, i64, i64, u64) {
    fn from(k: Keyframe) -> Self {
        (k.pts, k.dts, k.pos, k.ordinal)
    }
}

/// One audio stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AudioStream {
    pub index: usize,
    pub codec: String,
    pub time_base: Rational,
    pub sample_rate: u32,
    pub channels: u32,
    /// libavutil's name of the layout (`stereo`, `5.1`, ...).
    pub layout: String,
    /// First presentation time, ticks; absent when no packet had one.
    pub first_pts: Option<i64>,
    pub end_pts: Option<i64>,
    /// ISO 639-2 language, when the source says one.
    pub language: Option<String>,
    pub title: Option<String>,
    pub default: bool,
    pub bit_rate: u64,
}
