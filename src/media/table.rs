//! The packet table: where every packet of a stream lies in the source, so that a chunk is decoded from its own bytes
//! alone. An MP4 keeps its index in one piece: opening a film for each of a thousand chunks would read a thousand indexes.
//!
//! A record is 32 bytes, little-endian: `pos: u64`, `pts: i64`, `dts: i64` (both in ticks of the stream), `size: u32` with
//! [`KEY`] and [`DISCARD`] in its upper bits, `duration: u32`. Records stand in decode order.

use crate::media::decode::Coded;
use crate::media::demux::Stream;
use crate::media::error::{Result, allocated, check, refusal, refuse};
use crate::media::ffi;
use crate::media::frame::Packet;
use crate::media::input::Host;
use crate::media::parameters::{self, Parameters};
use crate::plan::time::Rational;
use crate::probe::PacketTable;
use crate::sandbox::protocol::{RefusalReason, packet_table_file};
use std::ffi::c_int;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Bytes of one record.
pub const RECORD_BYTES: usize = 32;
/// A decode may start here.
const KEY: u32 = 1 << 31;
/// Decoded, not shown.
const DISCARD: u32 = 1 << 30;
/// What is left for the size.
const SIZE_MASK: u32 = DISCARD - 1;
/// Records read at once.
const RECORDS_AT_ONCE: u64 = 128;
/// The input that holds the table.
const TABLE_INPUT: u32 = 1;

/// Codecs whose packets are the container's samples, as they are. Others are joined, split or changed between a
/// container and its decoder.
const CODECS: [ffi::AVCodecID; 6] = [
    ffi::AVCodecID::AV_CODEC_ID_H264,
    ffi::AVCodecID::AV_CODEC_ID_HEVC,
    ffi::AVCodecID::AV_CODEC_ID_AV1,
    ffi::AVCodecID::AV_CODEC_ID_PRORES,
    ffi::AVCodecID::AV_CODEC_ID_DNXHD,
    ffi::AVCodecID::AV_CODEC_ID_MJPEG,
];

/// Writes the table of one stream while its packets are walked over.
#[derive(Debug)]
pub struct TableWriter {
    out: BufWriter<File>,
    records: u64,
    /// Every packet so far can be read as a range of the source.
    fits: bool,
}

impl TableWriter {
    /// `None` for a stream whose packets are not plain samples.
    ///
    /// # Errors
    /// Internal: the scratch folder cannot be written to.
    pub fn open(stream: Stream<'_>, scratch: &Path) -> Result<Option<Self>> {
        if !CODECS.contains(&stream.parameters().codec_id) {
            return Ok(None);
        }
        let file = File::create(scratch.join(packet_table_file(stream.0.index as usize))).map_err(|e| unwritten(&e))?;
        Ok(Some(Self { out: BufWriter::new(file), records: 0, fits: true }))
    }

    /// # Errors
    /// Internal: the scratch folder cannot be written to.
    pub fn add(&mut self, packet: &Packet) -> Result<()> {
        let raw = packet.get();
        let (Some(pts), Some(dts)) = (packet.pts(), packet.dts()) else { return self.give_up() };
        let (Ok(pos), Ok(size), Ok(duration)) = (u64::try_from(raw.pos), u32::try_from(raw.size), u32::try_from(raw.duration))
        else {
            return self.give_up();
        };
        // A new codec header, a palette, an initialisation vector: more than a range of the source.
        if size == 0 || size > SIZE_MASK || raw.side_data_elems > 0 {
            return self.give_up();
        }
        let flags = if packet.is_key() { KEY } else { 0 } | if packet.is_discarded() { DISCARD } else { 0 };
        let mut record = [0; RECORD_BYTES];
        record[..8].copy_from_slice(&pos.to_le_bytes());
        record[8..16].copy_from_slice(&pts.to_le_bytes());
        record[16..24].copy_from_slice(&dts.to_le_bytes());
        record[24..28].copy_from_slice(&(size | flags).to_le_bytes());
        record[28..].copy_from_slice(&duration.to_le_bytes());
        self.records += 1;
        self.out.write_all(&record).map_err(|e| unwritten(&e))
    }

    fn give_up(&mut self) -> Result<()> {
        self.fits = false;
        Ok(())
    }

    /// The finished table; `None` when a packet was not to be had by its range.
    ///
    /// # Errors
    /// Internal: the scratch folder cannot be written to.
    pub fn finish(mut self, stream: Stream<'_>) -> Result<Option<PacketTable>> {
        self.out.flush().map_err(|e| unwritten(&e))?;
        let table = PacketTable { records: self.records, decoder: parameters::of(stream) };
        Ok((self.fits && self.records > 0).then_some(table))
    }
}

fn unwritten(error: &std::io::Error) -> crate::sandbox::protocol::Refusal {
    refusal(RefusalReason::Internal, format!("the packet table cannot be written: {error}"))
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    pos: u64,
    pts: i64,
    dts: i64,
    size: u32,
    duration: u32,
    key: bool,
    discard: bool,
}

impl Record {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (pos, rest) = bytes.split_first_chunk()?;
        let (pts, rest) = rest.split_first_chunk()?;
        let (dts, rest) = rest.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let duration = rest.first_chunk()?;
        let size = u32::from_le_bytes(*size);
        Some(Self {
            pos: u64::from_le_bytes(*pos),
            pts: i64::from_le_bytes(*pts),
            dts: i64::from_le_bytes(*dts),
            size: size & SIZE_MASK,
            duration: u32::from_le_bytes(*duration),
            key: size & KEY != 0,
            discard: size & DISCARD != 0,
        })
    }
}

/// Reads packets by the table.
pub struct TableReader<'h> {
    host: &'h dyn Host,
    parameters: Parameters,
    frame_rate: Rational,
    stream: usize,
    records: u64,
    next: u64,
    /// Records from `buffered` on.
    buffer: Vec<u8>,
    buffered: u64,
}

impl<'h> TableReader<'h> {
    /// # Errors
    /// Internal: the table is not what it should be.
    pub fn open(host: &'h dyn Host, table: &PacketTable, stream: usize) -> Result<Self> {
        if host.bytes(TABLE_INPUT) != table.records.saturating_mul(RECORD_BYTES as u64) {
            return refuse(
                RefusalReason::Internal,
                format!("the packet table of stream {stream} has not {} records", table.records),
            );
        }
        let (parameters, frame_rate) = (Parameters::new(&table.decoder)?, table.decoder.frame_rate);
        Ok(Self { host, parameters, frame_rate, stream, records: table.records, next: 0, buffer: Vec::new(), buffered: 0 })
    }

    /// What its decoder is opened for. `time_base`: seconds a tick of the stream.
    pub fn coded(&self, time_base: Rational) -> Coded<'_> {
        Coded { parameters: self.parameters.get(), stream: self.stream, time_base, frame_rate: self.frame_rate }
    }

    /// The packet with this place in decode order is the next.
    pub fn go_to(&mut self, ordinal: u64) {
        self.next = ordinal;
    }

    /// The next packet; false at the end.
    ///
    /// # Errors
    /// Input: the bytes cannot be had.
    pub fn read(&mut self, packet: &mut Packet) -> Result<bool> {
        packet.unref();
        let Some(record) = self.record()? else { return Ok(false) };
        self.next += 1;
        let there = self.host.bytes(0).saturating_sub(record.pos);
        if u64::from(record.size) > there {
            return refuse(RefusalReason::Input, "the source became shorter while it was being worked on");
        }
        // SAFETY: the packet is ours and empty; it gets a buffer of that size, with padding.
        check(unsafe { ffi::av_new_packet(packet.0, record.size as c_int) }, RefusalReason::Media, "a packet")?;
        let raw = packet.get_mut();
        // SAFETY: av_new_packet made `size` bytes at `data`.
        let payload = unsafe { std::slice::from_raw_parts_mut(allocated(raw.data, "a packet")?, record.size as usize) };
        let read = self.host.read(0, record.pos, payload);
        match read {
            Ok(n) if n == payload.len() => {}
            Ok(_) => return refuse(RefusalReason::Input, "the source became shorter while it was being worked on"),
            Err(e) => return refuse(RefusalReason::Input, format!("the source cannot be read: {e}")),
        }
        raw.stream_index = self.stream as c_int;
        (raw.pts, raw.dts, raw.duration) = (record.pts, record.dts, i64::from(record.duration));
        raw.pos = record.pos as i64;
        raw.flags = if record.key { ffi::AV_PKT_FLAG_KEY } else { 0 } | if record.discard { ffi::AV_PKT_FLAG_DISCARD } else { 0 };
        Ok(true)
    }

    fn record(&mut self) -> Result<Option<Record>> {
        if self.next >= self.records {
            return Ok(None);
        }
        let held = self.buffered..self.buffered + (self.buffer.len() / RECORD_BYTES) as u64;
        if !held.contains(&self.next) {
            let count = RECORDS_AT_ONCE.min(self.records - self.next);
            self.buffer.resize(count as usize * RECORD_BYTES, 0);
            self.buffered = self.next;
            match self.host.read(TABLE_INPUT, self.next * RECORD_BYTES as u64, &mut self.buffer) {
                Ok(n) if n == self.buffer.len() => {}
                Ok(_) => return refuse(RefusalReason::Input, "the packet table is cut short"),
                Err(e) => return refuse(RefusalReason::Input, format!("the packet table cannot be read: {e}")),
            }
        }
        let at = (self.next - self.buffered) as usize * RECORD_BYTES;
        Ok(Record::parse(&self.buffer[at..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        bytes.extend(7_u64.to_le_bytes());
        bytes.extend((-3_i64).to_le_bytes());
        bytes.extend((-9_i64).to_le_bytes());
        bytes.extend((1000_u32 | KEY).to_le_bytes());
        bytes.extend(40_u32.to_le_bytes());
        assert_eq!(bytes.len(), RECORD_BYTES);
        let record = Record { pos: 7, pts: -3, dts: -9, size: 1000, duration: 40, key: true, discard: false };
        assert_eq!(Record::parse(&bytes), Some(record));
        assert_eq!(Record::parse(&bytes[1..]), None);
    }
}
