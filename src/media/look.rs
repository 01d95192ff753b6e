//! A short look at the pictures: a few frames at a few places, so that what the headers claim is checked.
//!
//! The number of frames is bounded; a ten-hour source is looked at no longer than a short one.

use crate::media::decode::{Decoded, Decoder};
use crate::media::demux::{Demuxer, Depth, SeekTo, rational};
use crate::media::error::{Result, refuse, string};
use crate::media::ffi;
use crate::media::filter::{Graph, Shape};
use crate::media::frame::{FieldsSeen, Frame, Packet};
use crate::media::hdr;
use crate::media::input::Host;
use crate::plan::time::Rational;
use crate::probe::Keyframe;
use crate::sandbox::protocol::{Limits, RefusalReason};

/// Places looked at, the beginning among them.
const PLACES: usize = 5;
/// Frames looked at in one place.
const FRAMES_A_PLACE: u32 = 12;
/// Packets given to the decoder in one place before it is given up; the beginning may lack its keyframe.
const MAX_PACKETS: u32 = 600;
/// So many frames must show fields, or show that there are none, before the pictures outweigh the flags.
const FEWEST_TO_JUDGE: u32 = 6;

/// Lines of the interlaced rasters (ITU-R BT.601, SMPTE ST 274), with what coders make of them.
const INTERLACED_LINES: [u32; 6] = [480, 486, 512, 576, 1080, 1088];

/// What was seen.
#[derive(Debug, Default)]
pub struct Looked {
    pub frames: u32,
    pub first: Option<Picture>,
    /// Presentation time of the first frame that the source begins with, source ticks: what comes before cannot be decoded.
    pub first_pts: Option<i64>,
    flagged: u32,
    top_first: u32,
    seen_top_first: u32,
    seen_bottom_first: u32,
    seen_progressive: u32,
    pub mastering_display: Option<String>,
    pub content_light: Option<String>,
    pub damaged: u32,
    pub message: Option<String>,
}

/// Facts of the first decoded frame.
#[derive(Debug, Clone)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    pub pixel_format: String,
    pub bit_depth: u8,
    pub full_range: bool,
    pub primaries: String,
    pub transfer: String,
    pub matrix: String,
    pub sample_aspect: Rational,
}

impl Looked {
    /// Both the decoder's flags and the pictures have a say. Flags on pictures that are plainly progressive are a
    /// progressive source in interlaced coding. Fields without flags are an interlaced source that forgot to say so, but
    /// only where the picture has the lines of an interlaced raster and nearly every frame the same field first: fine
    /// patterns and noise look like fields, too. Where nothing moves, the flags decide.
    pub fn is_interlaced(&self) -> bool {
        let fields = self.seen_top_first + self.seen_bottom_first;
        let judged = fields + self.seen_progressive;
        if self.is_flagged() {
            return judged < FEWEST_TO_JUDGE || fields * 2 > judged;
        }
        let lines = self.first.as_ref().map_or(0, |picture| picture.height);
        let same_first = self.seen_top_first.max(self.seen_bottom_first);
        INTERLACED_LINES.contains(&lines) && judged >= FEWEST_TO_JUDGE && same_first * 10 >= judged * 9
    }

    fn is_flagged(&self) -> bool {
        self.flagged * 2 > self.frames
    }

    /// Flagged interlaced, and the pictures say otherwise; or the other way round.
    pub fn flags_lie(&self) -> bool {
        self.is_interlaced() != self.is_flagged()
    }

    pub fn is_bottom_first(&self) -> bool {
        if self.is_flagged() { self.top_first * 2 < self.flagged } else { self.seen_bottom_first > self.seen_top_first }
    }
}

/// Looks at one video stream.
///
/// # Errors
/// Unsupported: encrypted, or no decoder. Media: nothing can be decoded at all.
pub fn look(host: &dyn Host, limits: &Limits, stream: usize, keyframes: &[Keyframe]) -> Result<Looked> {
    let mut looked = Looked::default();
    let mut places: Vec<Option<&Keyframe>> = vec![None];
    let step = keyframes.len().div_ceil(PLACES).max(1);
    places.extend(keyframes.iter().skip(step).step_by(step).take(PLACES - 1).map(Some));
    for place in places {
        look_at(host, limits, stream, place, &mut looked)?;
        host.progress(u64::from(looked.frames));
    }
    if looked.first.is_none() {
        let why = looked.message.as_deref().unwrap_or("it holds no frame");
        return refuse(RefusalReason::Media, format!("stream {stream}: no frame can be decoded: {why}"));
    }
    Ok(looked)
}

fn look_at(host: &dyn Host, limits: &Limits, stream: usize, place: Option<&Keyframe>, looked: &mut Looked) -> Result<()> {
    let mut demuxer = Demuxer::open(host, 0, limits, Depth::Packets)?;
    demuxer.only(stream);
    if let Some(k) = place {
        let to = if demuxer.is_byte_stream() && k.pos >= 0 { SeekTo::Byte(k.pos) } else { SeekTo::Time(k.dts) };
        if !demuxer.seek(stream, to) {
            return Ok(());
        }
    }
    let mut decoder = Decoder::open(demuxer.stream(stream)?, limits)?;
    let (mut packet, mut frame, mut seen, mut detector) = (Packet::new()?, Frame::new()?, Frame::new()?, None);
    let (mut frames, mut packets, mut draining) = (0, 0, false);
    while frames < FRAMES_A_PLACE {
        match decoder.receive(&mut frame) {
            Decoded::Frame => {
                if frames == 0 && place.is_none() {
                    looked.first_pts = frame.best_pts();
                }
                frames += 1;
                looked.note(&frame);
                looked.note_fields(&mut detector, &mut frame, &mut seen)?;
            }
            Decoded::End => break,
            Decoded::Damaged(message) => drop(looked.message.get_or_insert(message)),
            Decoded::Hungry if draining => break,
            Decoded::Hungry => {
                packets += 1;
                draining = packets > MAX_PACKETS || !next_of(&mut demuxer, &mut packet, stream)?;
                if !draining {
                    refuse_encrypted(&packet, stream)?;
                }
                if let Decoded::Damaged(message) = decoder.send((!draining).then_some(&packet)) {
                    looked.message.get_or_insert(message);
                }
            }
        }
    }
    Ok(())
}

fn next_of(demuxer: &mut Demuxer, packet: &mut Packet, stream: usize) -> Result<bool> {
    while demuxer.read(packet)? {
        if packet.get().stream_index as usize == stream {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Encrypted samples decode to garbage; they are refused before a decoder sees them (ISO/IEC 23001-7).
///
/// # Errors
/// Unsupported: the packet is encrypted.
pub fn refuse_encrypted(packet: &Packet, stream: usize) -> Result<()> {
    let kind = ffi::AVPacketSideDataType::AV_PKT_DATA_ENCRYPTION_INFO;
    // SAFETY: the packet is ours; a null size is allowed.
    let data = unsafe { ffi::av_packet_get_side_data(packet.0, kind, std::ptr::null_mut()) };
    if data.is_null() {
        return Ok(());
    }
    refuse(RefusalReason::Unsupported, format!("stream {stream} is encrypted (DRM); give a source without encryption"))
}

impl Looked {
    fn note(&mut self, frame: &Frame) {
        let f = frame.get();
        self.frames += 1;
        self.damaged += u32::from(frame.is_damaged());
        self.flagged += u32::from(f.interlaced_frame != 0);
        self.top_first += u32::from(f.interlaced_frame != 0 && f.top_field_first != 0);
        if self.first.is_none() {
            self.first = Some(Picture::of(frame));
        }
        self.note_hdr(frame);
    }

    /// Counts what the field detector says.
    fn note_fields(&mut self, detector: &mut Option<Graph>, frame: &mut Frame, seen: &mut Frame) -> Result<()> {
        let shape = Shape::of(frame);
        let graph = match detector {
            Some(graph) if graph.fits(&shape) => graph,
            other => other.insert(Graph::field_detector(&shape)?),
        };
        frame.get_mut().pts = i64::from(self.frames);
        graph.push(frame)?;
        while graph.pull(0, seen)?.is_some() {
            match seen.fields_seen() {
                FieldsSeen::TopFirst => self.seen_top_first += 1,
                FieldsSeen::BottomFirst => self.seen_bottom_first += 1,
                FieldsSeen::Progressive => self.seen_progressive += 1,
                FieldsSeen::Undecided => {}
            }
        }
        Ok(())
    }

    fn note_hdr(&mut self, frame: &Frame) {
        use ffi::AVFrameSideDataType::{AV_FRAME_DATA_CONTENT_LIGHT_LEVEL, AV_FRAME_DATA_MASTERING_DISPLAY_METADATA};
        if self.mastering_display.is_none() {
            self.mastering_display = frame.side_data(AV_FRAME_DATA_MASTERING_DISPLAY_METADATA).and_then(hdr::mastering_display);
        }
        if self.content_light.is_none() {
            self.content_light = frame.side_data(AV_FRAME_DATA_CONTENT_LIGHT_LEVEL).and_then(hdr::content_light);
        }
    }
}

impl Picture {
    fn of(frame: &Frame) -> Self {
        let f = frame.get();
        // SAFETY: the frame's format is one of this library; all names are constants of the library.
        unsafe {
            let format = std::mem::transmute::<i32, ffi::AVPixelFormat>(f.format);
            let pixel_format = string(ffi::av_get_pix_fmt_name(format));
            let descriptor = ffi::av_pix_fmt_desc_get(format);
            let bit_depth = if descriptor.is_null() { 8 } else { (*descriptor).comp[0].depth as u8 };
            let aspect = rational(f.sample_aspect_ratio);
            Self {
                width: f.width.max(0) as u32,
                height: f.height.max(0) as u32,
                full_range: f.color_range == ffi::AVColorRange::AVCOL_RANGE_JPEG || pixel_format.starts_with("yuvj"),
                pixel_format,
                bit_depth,
                primaries: string(ffi::av_color_primaries_name(f.color_primaries)),
                transfer: string(ffi::av_color_transfer_name(f.color_trc)),
                matrix: string(ffi::av_color_space_name(f.colorspace)),
                sample_aspect: if aspect.is_positive() { aspect } else { Rational::new(1, 1) },
            }
        }
    }
}
