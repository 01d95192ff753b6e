//! The time index of a source: one walk over its packets, none decoded.
//!
//! For containers with sample tables (MP4, MOV) the walk reads no media: the payload ranges of `mdat` boxes read
//! as zeros, so libavformat gives every timestamp, edit lists applied, from the tables alone. Everything else is
//! read once from end to end.

use crate::media::demux::{Demuxer, Depth, Stream};
use crate::media::error::{Result, refuse};
use crate::media::frame::Packet;
use crate::media::input::{Host, top_level_boxes};
use crate::media::table::TableWriter;
use crate::plan::time::{Rational, seconds};
use crate::probe::{Clock, Keyframe, PacketTable, Scan};
use crate::sandbox::protocol::{Limits, RefusalReason};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;

/// Keyframes nearer together than this are one starting place, seconds.
const KEYFRAME_DISTANCE_S: f64 = 0.2;
/// Packets by which a presentation order may differ from the decode order.
const REORDER_PACKETS: usize = 64;
/// A jump forward that a stream of bytes is not believed, seconds: the `ffmpeg` program's own threshold.
const JUMP_S: f64 = 10.0;
/// Progress is told every so many packets.
const PROGRESS_PACKETS: u64 = 4096;

/// The walk's result for one video stream.
#[derive(Debug)]
pub struct Track {
    pub index: usize,
    pub time_base: Rational,
    pub packets: u64,
    pub bytes: u64,
    pub first_pts: Option<i64>,
    pub last_pts: i64,
    pub end_pts: i64,
    pub longest: i64,
    pub shortest: i64,
    pub keyframes: Vec<Keyframe>,
    /// Packets that the index names and the source no longer holds, and the time of the first.
    pub missing: u64,
    pub first_missing: Option<i64>,
    pub clock: Clock,
    table: Option<TableWriter>,
    window: BinaryHeap<Reverse<(i64, i64)>>,
    last_dts: Option<i64>,
    without_pts: u64,
    repeated: u64,
    backward: u64,
    decoded_only: u64,
}

impl Track {
    fn new(index: usize, time_base: Rational) -> Self {
        Self {
            index,
            time_base,
            packets: 0,
            bytes: 0,
            first_pts: None,
            last_pts: 0,
            end_pts: 0,
            longest: 0,
            shortest: i64::MAX,
            keyframes: Vec::new(),
            missing: 0,
            first_missing: None,
            clock: Clock::Trusted,
            table: None,
            window: BinaryHeap::new(),
            last_dts: None,
            without_pts: 0,
            repeated: 0,
            backward: 0,
            decoded_only: 0,
        }
    }

    fn add(&mut self, packet: &Packet, source_bytes: Option<u64>) -> Result<()> {
        let (pts, dts, raw) = (packet.pts(), packet.dts(), packet.get());
        let beyond = source_bytes.is_some_and(|all| raw.pos >= 0 && raw.pos as u64 + raw.size.max(0) as u64 > all);
        if beyond {
            self.missing += 1;
            self.first_missing = [self.first_missing, pts].into_iter().flatten().min();
            return Ok(());
        }
        if let Some(table) = &mut self.table {
            table.add(packet)?;
        }
        if let (Some(last), Some(dts)) = (self.last_dts, dts) {
            self.backward += u64::from(dts < last);
        }
        self.last_dts = dts.or(self.last_dts);
        if packet.is_key() {
            self.add_keyframe(pts, dts, raw.pos);
        }
        self.packets += 1;
        self.bytes += raw.size.max(0) as u64;
        if packet.is_discarded() {
            self.decoded_only += 1;
            return Ok(());
        }
        let Some(pts) = pts else {
            self.without_pts += 1;
            return Ok(());
        };
        self.window.push(Reverse((pts, raw.duration)));
        if self.window.len() > REORDER_PACKETS {
            self.take_oldest();
        }
        Ok(())
    }

    fn add_keyframe(&mut self, pts: Option<i64>, dts: Option<i64>, pos: i64) {
        let Some(pts) = pts else { return };
        let far = |last: &Keyframe| seconds((pts - last.pts).abs(), self.time_base) >= KEYFRAME_DISTANCE_S;
        if self.keyframes.last().is_none_or(far) {
            self.keyframes.push(Keyframe { pts, dts: dts.unwrap_or(pts), pos, ordinal: self.packets });
        }
    }

    fn take_oldest(&mut self) {
        let Some(Reverse((pts, duration))) = self.window.pop() else { return };
        if self.first_pts.is_none() {
            self.first_pts = Some(pts);
        } else {
            let step = pts - self.last_pts;
            self.repeated += u64::from(step <= 0);
            self.longest = self.longest.max(step);
            self.shortest = self.shortest.min(step.max(1));
        }
        self.last_pts = pts;
        self.end_pts = pts + duration.max(0);
    }

    /// The packet table, where the stream can have one: a whole source on a clock that is believed.
    ///
    /// # Errors
    /// Internal: the scratch folder cannot be written to.
    pub fn take_table(&mut self, stream: Stream<'_>) -> Result<Option<PacketTable>> {
        let table = self.table.take().map(|table| table.finish(stream)).transpose()?.flatten();
        Ok(table.filter(|_| self.missing == 0 && self.clock == Clock::Trusted))
    }

    /// Packets that show a frame.
    pub fn shown(&self) -> u64 {
        self.packets - self.decoded_only
    }

    fn finish(&mut self, byte_stream: bool) {
        while !self.window.is_empty() {
            self.take_oldest();
        }
        let mean = if self.shown() > 1 { (self.last_pts - self.first_pts.unwrap_or(0)) / (self.shown() as i64 - 1) } else { 0 };
        if self.end_pts <= self.last_pts {
            self.end_pts = self.last_pts + mean.max(1);
        }
        if self.longest == 0 {
            self.longest = self.end_pts - self.last_pts;
        }
        self.shortest = self.shortest.min(self.longest).max(1);
        let why = if self.first_pts.is_none() {
            "no packet has a presentation time".to_string()
        } else if self.without_pts > 0 {
            format!("{} of {} packets have no presentation time", self.without_pts, self.packets)
        } else if self.backward > 0 {
            format!("decode times go back {} times", self.backward)
        } else if self.repeated > 0 {
            format!("{} presentation times are not after the one before", self.repeated)
        } else if byte_stream && seconds(self.longest, self.time_base) > JUMP_S {
            format!("presentation times jump by {:.1} s", seconds(self.longest, self.time_base))
        } else {
            return;
        };
        self.clock = Clock::Untrusted { why };
    }
}

/// Walks all packets of these video streams. Where there is an index, packet tables are made of it in `scratch`.
///
/// # Errors
/// Limit: more packets, or a longer title, than allowed. Input: the bytes cannot be had.
pub fn walk(host: &dyn Host, limits: &Limits, streams: &[usize], scratch: &Path) -> Result<(Vec<Track>, Scan)> {
    let probing = Demuxer::open(host, 0, limits, Depth::Header)?;
    let indexed = probing.has_index();
    let mut demuxer = if indexed { probing } else { Demuxer::open(host, 0, limits, Depth::Streams)? };
    if indexed {
        demuxer.input_mut().set_blank(media_ranges(host)?);
    }
    let mut tracks = Vec::new();
    for &index in streams {
        let stream = demuxer.stream(index)?;
        let table = if indexed { TableWriter::open(stream, scratch)? } else { None };
        tracks.push(Track { table, ..Track::new(index, stream.time_base()) });
    }
    demuxer.only_these(streams);
    read_all(host, limits, &mut demuxer, &mut tracks, indexed.then(|| host.bytes(0)))?;
    let byte_stream = demuxer.is_byte_stream();
    for track in &mut tracks {
        track.finish(byte_stream);
        let length_s = seconds(track.end_pts - track.first_pts.unwrap_or(0), track.time_base);
        if length_s > limits.max_duration_s as f64 && track.clock == Clock::Trusted {
            return refuse(
                RefusalReason::Limit,
                format!("stream {} is {length_s:.0} s long; at most {} s are allowed", track.index, limits.max_duration_s),
            );
        }
    }
    let scan = if indexed { Scan::Index } else { Scan::Packets };
    Ok((tracks, scan))
}

fn read_all(
    host: &dyn Host,
    limits: &Limits,
    demuxer: &mut Demuxer,
    tracks: &mut [Track],
    source_bytes: Option<u64>,
) -> Result<()> {
    let mut packet = Packet::new()?;
    let mut seen = 0u64;
    while demuxer.read(&mut packet)? {
        let stream = packet.get().stream_index as usize;
        let Some(track) = tracks.iter_mut().find(|t| t.index == stream) else { continue };
        track.add(&packet, source_bytes)?;
        if track.packets > limits.max_frames {
            return refuse(RefusalReason::Limit, format!("stream {stream} has more than {} packets", limits.max_frames));
        }
        seen += 1;
        if seen.is_multiple_of(PROGRESS_PACKETS) {
            host.progress(seen);
        }
    }
    Ok(())
}

/// Payload ranges of the top-level `mdat` boxes.
fn media_ranges(host: &dyn Host) -> Result<Vec<(u64, u64)>> {
    let boxes = top_level_boxes(host, 0).or_else(|e| refuse(RefusalReason::Input, format!("the source cannot be read: {e}")))?;
    let mut ranges: Vec<(u64, u64)> = boxes.iter().filter(|b| &b.kind == b"mdat").map(|b| b.payload).collect();
    // Samples that the tables put past the end of a cut source still have their times.
    let end = ranges.last().map_or(0, |last| last.1).max(host.bytes(0));
    ranges.push((end, u64::MAX));
    Ok(ranges)
}
