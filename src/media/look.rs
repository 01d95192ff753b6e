//! A short look at the pictures: a few frames at a few places, so that what the headers claim is checked.
//!
//! The number of frames is bounded; a ten-hour source is looked at no longer than a short one.

use crate::media::decode::{Decoded, Decoder};
use crate::media::demux::{Demuxer, Depth, SeekTo, rational};
use crate::media::error::{Result, refuse, string};
use crate::media::ffi;
use crate::media::frame::{Frame, Packet};
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
/// A pixel is combed when it differs from both vertical neighbours, to the same side, by more than this (8-bit steps).
const COMB_STEP: i32 = 15;
/// A frame is combed when this share of its moving pixels is.
const COMBED_SHARE: f64 = 0.08;
/// There is motion to judge by when this share of the pixels changed.
const MOVING_SHARE: f64 = 0.002;

/// What was seen.
#[derive(Debug, Default)]
pub struct Looked {
    pub frames: u32,
    pub first: Option<Picture>,
    /// Presentation time of the first frame that the source begins with, source ticks: what comes before cannot be decoded.
    pub first_pts: Option<i64>,
    flagged: u32,
    top_first: u32,
    moving: u32,
    combed: u32,
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
    /// Both the decoder's flags and the pictures have a say: flags without combing in motion are a progressive
    /// source in interlaced coding; combing without flags is an interlaced source that forgot to say so.
    pub fn is_interlaced(&self) -> bool {
        let flagged = self.flagged * 2 > self.frames;
        let seen = self.combed * 2 > self.moving && self.moving > 2;
        let seen_not = self.moving > 4 && self.combed * 10 < self.moving;
        (flagged && !seen_not) || seen
    }

    /// Flagged interlaced, and the pictures say otherwise; or the other way round.
    pub fn flags_lie(&self) -> bool {
        self.is_interlaced() != (self.flagged * 2 > self.frames)
    }

    pub fn is_bottom_first(&self) -> bool {
        self.flagged > 0 && self.top_first * 2 < self.flagged
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
    let mut demuxer = Demuxer::open(host, 0, limits, Depth::Streams)?;
    demuxer.only(stream);
    if let Some(k) = place {
        let to = if demuxer.is_byte_stream() && k.pos >= 0 { SeekTo::Byte(k.pos) } else { SeekTo::Time(k.dts) };
        if !demuxer.seek(stream, to) {
            return Ok(());
        }
    }
    let mut decoder = Decoder::open(demuxer.stream(stream)?, limits)?;
    let (mut packet, mut frame, mut before) = (Packet::new()?, Frame::new()?, Vec::new());
    let (mut frames, mut packets, mut draining) = (0, 0, false);
    while frames < FRAMES_A_PLACE {
        match decoder.receive(&mut frame) {
            Decoded::Frame => {
                if frames == 0 && place.is_none() {
                    looked.first_pts = frame.best_pts();
                }
                frames += 1;
                looked.note(&frame, &mut before);
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
    fn note(&mut self, frame: &Frame, before: &mut Vec<u8>) {
        let f = frame.get();
        self.frames += 1;
        self.damaged += u32::from(frame.is_damaged());
        self.flagged += u32::from(f.interlaced_frame != 0);
        self.top_first += u32::from(f.interlaced_frame != 0 && f.top_field_first != 0);
        if self.first.is_none() {
            self.first = Some(Picture::of(frame));
        }
        self.note_hdr(frame);
        let Some(luma) = luma_8_bit(frame) else { return };
        let width = f.width as usize;
        let (moving, combed) = combing(before, &luma, width);
        if moving > MOVING_SHARE {
            self.moving += 1;
            self.combed += u32::from(combed > COMBED_SHARE);
        }
        *before = luma;
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

/// The luma plane at 8 bits; `None` for formats without one.
fn luma_8_bit(frame: &Frame) -> Option<Vec<u8>> {
    let f = frame.get();
    let (width, height) = (usize::try_from(f.width).ok()?, usize::try_from(f.height).ok()?);
    // SAFETY: the descriptor is a constant; plane 0 of a planar YUV or grey frame holds `height` rows of `width`
    // samples of one or two bytes, `linesize` apart.
    unsafe {
        let descriptor = ffi::av_pix_fmt_desc_get(std::mem::transmute::<i32, ffi::AVPixelFormat>(f.format));
        if descriptor.is_null() || (*descriptor).flags & u64::from(ffi::AV_PIX_FMT_FLAG_RGB as u32) != 0 || f.data[0].is_null() {
            return None;
        }
        let component = (*descriptor).comp[0];
        if component.plane != 0 || !(8..=16).contains(&component.depth) || component.step > 2 {
            return None;
        }
        let mut luma = Vec::with_capacity(width * height);
        for row in 0..height {
            let line = f.data[0].offset(row as isize * f.linesize[0] as isize);
            if component.depth == 8 {
                luma.extend_from_slice(std::slice::from_raw_parts(line, width));
            } else {
                let shift = component.depth - 8;
                luma.extend((0..width).map(|x| (line.cast::<u16>().add(x).read_unaligned() >> shift) as u8));
            }
        }
        Some(luma)
    }
}

/// Of the pixels that changed since the frame before: how many there are, as a share of all, and which share of them
/// stands out from the rows above and below to the same side while the next rows agree, as in a weave of two fields.
fn combing(before: &[u8], luma: &[u8], width: usize) -> (f64, f64) {
    if width == 0 || luma.len() < 5 * width || before.len() != luma.len() {
        return (0.0, 0.0);
    }
    let rows = luma.len() / width;
    let (mut moving, mut combed) = (0u64, 0u64);
    for y in 2..rows - 2 {
        let row = |dy: usize| &luma[(y + dy - 2) * width..(y + dy - 1) * width];
        let (far_up, up, here, down, far_down) = (row(0), row(1), row(2), row(3), row(4));
        let was = &before[y * width..(y + 1) * width];
        for x in 0..width {
            let at = |r: &[u8]| i32::from(r[x]);
            if (at(here) - at(was)).abs() <= COMB_STEP {
                continue;
            }
            moving += 1;
            let (a, b) = (at(here) - at(up), at(here) - at(down));
            let stands_out = a.abs() > COMB_STEP && b.abs() > COMB_STEP && (a > 0) == (b > 0);
            let weave = (at(here) - at(far_up)).abs() < a.abs() && (at(here) - at(far_down)).abs() < b.abs();
            combed += u64::from(stands_out && weave);
        }
    }
    (moving as f64 / (width * (rows - 4)) as f64, combed as f64 / moving.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weave_of_two_times_is_combed_and_a_picture_is_not() {
        let (width, height) = (64usize, 48usize);
        let edge = |x: usize, shift: usize| if x + shift > 32 { 200u8 } else { 20 };
        let weave = |t: usize| -> Vec<u8> {
            (0..height).flat_map(|y| (0..width).map(move |x| edge(x, 16 * t + if y % 2 == 0 { 0 } else { 8 }))).collect()
        };
        let still = |t: usize| -> Vec<u8> { (0..height).flat_map(|_| (0..width).map(move |x| edge(x, 16 * t))).collect() };
        let (moving, combed) = combing(&weave(0), &weave(1), width);
        assert!(moving > MOVING_SHARE && combed > COMBED_SHARE, "{moving} {combed}");
        let (moving, combed) = combing(&still(0), &still(1), width);
        assert!(moving > MOVING_SHARE && combed == 0.0, "{moving} {combed}");
    }
}
