//! The frames of one chunk, exactly those of a linear decode.
//!
//! A chunk is the frames whose presentation time lies in `[start, end)`. Decoding starts at the last keyframe that
//! is safe for the first of them: for H.264 one keyframe earlier when it is no IDR picture, because pictures
//! before it may still be referred to. Where the probe left a packet table, the packets are read by that, and the
//! container is not opened. What is found at a keyframe's place is believed only when it is the very packet the probe saw
//! there; otherwise the source is read from its beginning and nothing is decoded until then.

use crate::media::decode::{Coded, Decoded, Decoder};
use crate::media::demux::{Demuxer, Depth, SeekTo};
use crate::media::error::Result;
use crate::media::ffi;
use crate::media::frame::{Frame, Packet};
use crate::media::input::Host;
use crate::media::table::TableReader;
use crate::probe::Keyframe;
use crate::sandbox::protocol::{Damage, EncodeTask, Limits};

/// Packets looked through after a seek for the one the probe saw.
const MAX_LANDING_PACKETS: u32 = 4096;
/// Decoder errors in a row before the rest of the stream is given up.
const MAX_ERRORS_IN_A_ROW: u32 = 100_000;
/// A jump of an untrusted clock that is not followed, seconds.
const CLEAN_JUMP_S: i64 = 10;

/// Decodes one chunk of one stream.
pub struct Window<'h> {
    host: &'h dyn Host,
    packets: Packets<'h>,
    decoder: Decoder,
    packet: Packet,
    /// `packet` holds one that was not decoded yet.
    held: bool,
    draining: bool,
    stream: usize,
    bounds: Bounds,
    clock: CleanClock,
    errors_in_a_row: u32,
    announced: u64,
    given: u64,
    errors: u64,
    pub preroll: u64,
    damage: Damage,
}

/// Source ticks.
#[derive(Clone, Copy)]
struct Bounds {
    start: Option<i64>,
    end: Option<i64>,
    /// Frames from here on are given: the chunk's, and what filters look at before it.
    warm: Option<i64>,
}

impl<'h> Window<'h> {
    /// Opens the source and goes to where decoding must start.
    ///
    /// # Errors
    /// As opening and decoding refuse.
    pub fn open(host: &'h dyn Host, limits: &Limits, task: &EncodeTask) -> Result<Self> {
        let warm_up = i64::from(task.filters.neighbours()) * 2 * (task.frame_duration / task.ticks_per_tick.max(1)).max(1);
        let bounds = Bounds { start: task.chunk.start, end: task.chunk.end, warm: task.chunk.start.map(|s| s - warm_up) };
        let mut packet = Packet::new()?;
        let (packets, held) = Packets::open(host, limits, &mut packet, task, bounds.warm)?;
        let decoder = Decoder::open(packets.coded(task)?, limits)?;
        Ok(Self {
            host,
            packets,
            decoder,
            packet,
            held,
            draining: false,
            stream: task.stream,
            bounds,
            clock: CleanClock::new(task),
            errors_in_a_row: 0,
            announced: 0,
            given: 0,
            errors: 0,
            preroll: 0,
            damage: Damage::default(),
        })
    }

    /// The next frame from the warm-up on, with its presentation time in source ticks. Frames after the end of the
    /// chunk are given, too: the caller stops.
    ///
    /// # Errors
    /// Input: the bytes cannot be had.
    pub fn next(&mut self, frame: &mut Frame) -> Result<Option<i64>> {
        loop {
            match self.decoder.receive(frame) {
                Decoded::Frame => {
                    self.errors_in_a_row = 0;
                    let Some(pts) = self.clock.time_of(frame) else { continue };
                    if self.bounds.warm.is_some_and(|warm| pts < warm) {
                        self.preroll += 1;
                        self.host.progress(0);
                        continue;
                    }
                    self.count(pts, frame.is_damaged());
                    return Ok(Some(pts));
                }
                Decoded::End => return Ok(None),
                Decoded::Hungry if self.draining => return Ok(None),
                Decoded::Hungry => self.feed()?,
                Decoded::Damaged(message) => {
                    self.note_error(message, None);
                    if self.errors_in_a_row > MAX_ERRORS_IN_A_ROW {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn is_inside(&self, pts: i64) -> bool {
        self.bounds.start.is_none_or(|s| pts >= s) && self.bounds.end.is_none_or(|e| pts < e)
    }

    fn count(&mut self, pts: i64, damaged: bool) {
        if !self.is_inside(pts) {
            self.preroll += u64::from(self.bounds.start.is_some_and(|s| pts < s));
            return;
        }
        self.given += 1;
        if damaged {
            self.damage.damaged_frames += 1;
            self.note_bad(pts);
        }
    }

    fn feed(&mut self) -> Result<()> {
        while !self.held {
            if !self.packets.read(&mut self.packet)? {
                self.draining = true;
                self.decoder.send(None);
                return Ok(());
            }
            self.held = self.packet.get().stream_index as usize == self.stream;
        }
        self.held = false;
        let pts = self.packet.pts();
        let shown = !self.packet.is_discarded() && pts.is_none_or(|pts| self.is_inside(pts));
        self.announced += u64::from(shown);
        if let Decoded::Damaged(message) = self.decoder.send(Some(&self.packet)) {
            self.note_error(message, pts);
        }
        Ok(())
    }

    fn note_error(&mut self, message: String, pts: Option<i64>) {
        self.errors_in_a_row += 1;
        if pts.is_some_and(|pts| !self.is_inside(pts)) {
            return;
        }
        self.errors += 1;
        self.damage.message.get_or_insert(message);
        if let Some(pts) = pts {
            self.note_bad(pts);
        }
    }

    fn note_bad(&mut self, pts: i64) {
        self.damage.first_bad = Some(self.damage.first_bad.map_or(pts, |first| first.min(pts)));
    }

    /// What was wrong. Packets without a frame count as lost only when the decoder complained: field pairs and
    /// hidden frames make packet counts lie in sound sources.
    pub fn damage(&mut self) -> Damage {
        let mut damage = std::mem::take(&mut self.damage);
        if self.errors > 0 {
            damage.lost_frames = self.announced.saturating_sub(self.given);
        }
        damage
    }
}

/// Where a chunk's packets come from.
enum Packets<'h> {
    Container(Demuxer<'h>),
    Table(TableReader<'h>),
}

impl<'h> Packets<'h> {
    /// Ready to give what the chunk's first frame needs; true when `packet` holds the first of it.
    fn open(
        host: &'h dyn Host,
        limits: &Limits,
        packet: &mut Packet,
        task: &EncodeTask,
        warm: Option<i64>,
    ) -> Result<(Self, bool)> {
        if let Some(table) = &task.table {
            let mut packets = Packets::Table(TableReader::open(host, table, task.stream)?);
            let Some(at) = warm.and_then(|warm| keyframe_for(task, warm)) else { return Ok((packets, false)) };
            if packets.land_safely(packet, task, at)? {
                return Ok((packets, true));
            }
        }
        Self::of_container(host, limits, packet, task, warm)
    }

    fn of_container(
        host: &'h dyn Host,
        limits: &Limits,
        packet: &mut Packet,
        task: &EncodeTask,
        warm: Option<i64>,
    ) -> Result<(Self, bool)> {
        let mut packets = Self::from_the_beginning(host, limits, task)?;
        let Some(at) = warm.and_then(|warm| keyframe_for(task, warm)) else { return Ok((packets, false)) };
        if packets.land_safely(packet, task, at)? {
            return Ok((packets, true));
        }
        packets = Self::from_the_beginning(host, limits, task)?;
        // It may refer across itself, and is not looked at twice: one keyframe earlier is safe.
        let wanted = &task.keyframes[at.saturating_sub(1)];
        while packets.read(packet)? {
            host.progress(0);
            if is_keyframe(packet, task.stream, wanted) {
                return Ok((packets, true));
            }
        }
        // The keyframe is gone: decode everything there is.
        Ok((Self::from_the_beginning(host, limits, task)?, false))
    }

    fn from_the_beginning(host: &'h dyn Host, limits: &Limits, task: &EncodeTask) -> Result<Self> {
        let mut demuxer = Demuxer::open(host, 0, limits, Depth::Packets)?;
        demuxer.only(task.stream);
        Ok(Packets::Container(demuxer))
    }

    /// Lands on this keyframe of the task, or on the one before it where that one may be referred across. False: what is
    /// there is not what the probe saw.
    fn land_safely(&mut self, packet: &mut Packet, task: &EncodeTask, at: usize) -> Result<bool> {
        if !self.land(packet, task.stream, &task.keyframes[at])? {
            return Ok(false);
        }
        if at == 0 || is_closed(self.coded(task)?.parameters, packet) {
            return Ok(true);
        }
        self.land(packet, task.stream, &task.keyframes[at - 1])
    }

    fn land(&mut self, packet: &mut Packet, stream: usize, keyframe: &Keyframe) -> Result<bool> {
        match self {
            Packets::Container(demuxer) => land(demuxer, packet, stream, keyframe),
            Packets::Table(table) => {
                table.go_to(keyframe.ordinal);
                Ok(table.read(packet)? && is_keyframe(packet, stream, keyframe))
            }
        }
    }

    fn read(&mut self, packet: &mut Packet) -> Result<bool> {
        match self {
            Packets::Container(demuxer) => demuxer.read(packet),
            Packets::Table(table) => table.read(packet),
        }
    }

    fn coded(&self, task: &EncodeTask) -> Result<Coded<'_>> {
        match self {
            Packets::Table(table) => Ok(table.coded(task.source_base)),
            Packets::Container(demuxer) => Ok(demuxer.stream(task.stream)?.into()),
        }
    }
}

/// The last keyframe that the task tells of at or before `warm`.
fn keyframe_for(task: &EncodeTask, warm: i64) -> Option<usize> {
    task.keyframes.iter().rposition(|k| k.pts <= warm)
}

/// Seeks so that the next packet is this keyframe.
fn land(demuxer: &mut Demuxer, packet: &mut Packet, stream: usize, keyframe: &Keyframe) -> Result<bool> {
    let by_time = if demuxer.has_index() { keyframe.dts } else { keyframe.pts };
    let to = if demuxer.is_byte_stream() && keyframe.pos >= 0 { SeekTo::Byte(keyframe.pos) } else { SeekTo::Time(by_time) };
    if !demuxer.seek(stream, to) {
        return Ok(false);
    }
    for _ in 0..MAX_LANDING_PACKETS {
        if !demuxer.read(packet)? {
            return Ok(false);
        }
        if is_keyframe(packet, stream, keyframe) {
            return Ok(true);
        }
        let passed = packet.dts().is_some_and(|dts| dts > keyframe.dts) && packet.get().stream_index as usize == stream;
        if passed && packet.get().pos > keyframe.pos {
            return Ok(false);
        }
    }
    Ok(false)
}

fn is_keyframe(packet: &Packet, stream: usize, keyframe: &Keyframe) -> bool {
    let raw = packet.get();
    let same_place = raw.pos < 0 || keyframe.pos < 0 || raw.pos == keyframe.pos;
    raw.stream_index as usize == stream && packet.is_key() && packet.pts() == Some(keyframe.pts) && same_place
}

/// No picture after this one, in presentation order, needs one before it in decode order.
fn is_closed(parameters: &ffi::AVCodecParameters, packet: &Packet) -> bool {
    if parameters.codec_id != ffi::AVCodecID::AV_CODEC_ID_H264 {
        return true;
    }
    // SAFETY: extradata holds `extradata_size` bytes.
    let avcc = parameters.extradata_size > 4 && unsafe { *parameters.extradata == 1 };
    // SAFETY: as above.
    let length_bytes = if avcc { usize::from(unsafe { *parameters.extradata.add(4) } & 3) + 1 } else { 0 };
    holds_idr(packet.data(), length_bytes)
}

/// An H.264 access unit holds an IDR slice (nal_unit_type 5, ITU-T H.264 7.4.1). `length_bytes` is the size of
/// the NAL length field, 0 for Annex B start codes.
fn holds_idr(data: &[u8], length_bytes: usize) -> bool {
    if length_bytes == 0 {
        return data.windows(4).any(|w| w[..3] == [0, 0, 1] && w[3] & 0x1f == 5);
    }
    let mut at = 0;
    while let Some(head) = data.get(at..at + length_bytes) {
        let size = head.iter().fold(0usize, |n, &b| n << 8 | usize::from(b));
        at += length_bytes;
        if data.get(at).is_some_and(|b| b & 0x1f == 5) {
            return true;
        }
        at = at.saturating_add(size);
    }
    false
}

/// Times of frames: the source's own, or for a source that cannot be trusted ones that only go forward.
struct CleanClock {
    clean: bool,
    last_raw: Option<i64>,
    last: Option<i64>,
    origin: i64,
    frame: i64,
    jump: i64,
}

impl CleanClock {
    fn new(task: &EncodeTask) -> Self {
        let base = task.source_base;
        Self {
            clean: task.clean_clock,
            last_raw: None,
            last: None,
            origin: task.origin,
            frame: (task.frame_duration / task.ticks_per_tick.max(1)).max(1),
            jump: CLEAN_JUMP_S * base.den / base.num.max(1),
        }
    }

    /// `None` for a frame of a trusted source whose time is not after the one before: it has no place.
    fn time_of(&mut self, frame: &Frame) -> Option<i64> {
        let raw = frame.best_pts();
        let time = match (self.clean, raw, self.last) {
            (false, Some(raw), Some(last)) if raw <= last => return None,
            (false, Some(raw), _) => raw,
            (_, _, None) => self.origin,
            (_, _, Some(last)) => {
                let step = raw.zip(self.last_raw).map(|(raw, before)| raw - before);
                last + step.filter(|step| (1..=self.jump).contains(step)).unwrap_or(self.frame)
            }
        };
        self.last_raw = raw;
        self.last = Some(time);
        Some(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idr_slice_is_found_in_both_framings() {
        assert!(holds_idr(&[0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x65, 9], 0));
        assert!(!holds_idr(&[0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x41, 9], 0));
        assert!(holds_idr(&[0, 0, 0, 2, 0x06, 1, 0, 0, 0, 1, 0x65], 4));
        assert!(!holds_idr(&[0, 0, 0, 2, 0x06, 1, 0, 0, 0, 1, 0x41], 4));
        assert!(!holds_idr(&[0xff, 0xff, 0xff, 0xff, 0x41], 4));
    }
}
