//! One progressive MP4 from CMAF tracks: packets are copied, nothing is decoded.
//!
//! The index is written before the media (faststart): libavformat writes the file, then moves its media up to make
//! room, reading back what it wrote through [`reopen`].

#[cfg(test)]
mod tests;

use crate::media::boxes::media_time;
use crate::media::demux::{Demuxer, Depth, Stream};
use crate::media::error::{Options, Result, allocated, c, check, refusal, refuse};
use crate::media::ffi;
use crate::media::frame::Packet;
use crate::media::input::Host;
use crate::sandbox::protocol::{Limits, RefusalReason, RemuxReport, RemuxTask};
use std::ffi::{c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const INTERNAL: RefusalReason = RefusalReason::Internal;
const BUFFER_BYTES: usize = 256 * 1024;
/// An init segment of ours is smaller than this.
const INIT_BYTES: usize = 64 * 1024;
/// Progress is told every so many packets.
const PACKETS_PER_PROGRESS: u64 = 256;
/// Side data of a track that its sample entry carries: HDR10's mastering display and content light.
const KEPT_SIDE_DATA: [ffi::AVPacketSideDataType; 2] = [
    ffi::AVPacketSideDataType::AV_PKT_DATA_MASTERING_DISPLAY_METADATA,
    ffi::AVPacketSideDataType::AV_PKT_DATA_CONTENT_LIGHT_LEVEL,
];
/// Tags of a track that an MP4 track can carry.
const KEPT_TAGS: [&str; 2] = ["language", "title"];

/// Copies inputs `0..inputs`, each one CMAF track, into `task.file` in the scratch folder. Timescales, sample entries,
/// edits, colour and languages stay as they are; the first audio track is the default one.
///
/// # Errors
/// Internal: an input is not a CMAF track of ours, or the disk fails. Limit: the file is larger than may be written.
pub fn remux(host: &dyn Host, limits: &Limits, scratch: &Path, inputs: usize, task: &RemuxTask) -> Result<RemuxReport> {
    let mut tracks = (0..inputs).map(|input| Track::open(host, input as u32, limits)).collect::<Result<Vec<_>>>()?;
    let path = scratch.join(&task.file);
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
    let file = file.map_err(|e| refusal(INTERNAL, format!("a scratch file cannot be made: {e}")))?;
    let mut output = Muxer::open(file, limits.scratch_bytes, &tracks)?;
    let mut packets = 0;
    while let Some(next) = earliest(&tracks) {
        let track = &mut tracks[next];
        output.write(next, track)?;
        track.advance()?;
        packets += 1;
        if packets % PACKETS_PER_PROGRESS == 0 {
            host.progress(packets);
        }
    }
    let bytes = output.finish()?;
    host.progress(packets);
    Ok(RemuxReport { file: task.file.clone(), bytes, packets })
}

/// The track whose next packet is decoded first; the first of them when two are at once.
fn earliest(tracks: &[Track<'_>]) -> Option<usize> {
    let mut best: Option<(usize, &Track<'_>)> = None;
    for (i, track) in tracks.iter().enumerate().filter(|(_, track)| track.has_next) {
        // SAFETY: a pure function of four numbers.
        let earlier = |other: &Track<'_>| unsafe { ffi::av_compare_ts(track.dts(), track.base, other.dts(), other.base) < 0 };
        if best.is_none_or(|(_, other)| earlier(other)) {
            best = Some((i, track));
        }
    }
    best.map(|(i, _)| i)
}

/// One CMAF track, two packets ahead: the last one must be known as such.
struct Track<'h> {
    demuxer: Demuxer<'h>,
    base: ffi::AVRational,
    packet: Packet,
    after: Packet,
    has_next: bool,
    has_after: bool,
    /// Of the init segment's one edit.
    media_time: i64,
}

impl<'h> Track<'h> {
    fn open(host: &'h dyn Host, input: u32, limits: &Limits) -> Result<Self> {
        let mut head = vec![0; INIT_BYTES];
        let got = host
            .read(input, 0, &mut head)
            .map_err(|e| refusal(RefusalReason::Input, format!("a segment cannot be read: {e}")))?;
        let media_time = media_time(&head[..got]);
        let demuxer = Demuxer::open(host, input, limits, Depth::Streams)?;
        let (Some(media_time), 1, true) = (media_time, demuxer.stream_count(), demuxer.has_index()) else {
            return refuse(INTERNAL, format!("input {input} is not one CMAF track"));
        };
        let base = demuxer.stream(0)?.0.time_base;
        let (packet, after) = (Packet::new()?, Packet::new()?);
        let mut track = Self { demuxer, base, packet, after, has_next: true, has_after: true, media_time };
        track.advance()?;
        track.advance()?;
        if !track.has_next {
            return refuse(INTERNAL, format!("input {input} has no media"));
        }
        Ok(track)
    }

    fn advance(&mut self) -> Result<()> {
        std::mem::swap(&mut self.packet, &mut self.after);
        self.has_next = self.has_after;
        self.has_after = self.has_after && self.demuxer.read(&mut self.after)?;
        if self.has_after && self.after.dts().is_none() {
            return refuse(INTERNAL, "a packet of a CMAF track has no time");
        }
        if self.has_next && !self.has_after {
            self.state_last_duration()?;
        }
        Ok(())
    }

    /// The demuxer gives the last packet the usual duration, not its own. The end of the track tells: the
    /// stream's duration is counted from decode time zero, before the edit.
    fn state_last_duration(&mut self) -> Result<()> {
        let end = self.stream()?.0.duration - self.media_time;
        let duration = end - self.packet.get().dts;
        if duration > 0 {
            self.packet.get_mut().duration = duration;
        }
        Ok(())
    }

    fn stream(&self) -> Result<Stream<'_>> {
        self.demuxer.stream(0)
    }

    fn dts(&self) -> i64 {
        self.packet.get().dts
    }
}

/// libavformat's MP4 muxer over a file.
struct Muxer {
    context: *mut ffi::AVFormatContext,
    io: *mut ffi::AVIOContext,
    output: Box<Output>,
}

/// The file as libavformat writes it.
struct Output {
    file: File,
    position: u64,
    size: u64,
    most: u64,
    error: Option<io::Error>,
}

impl Muxer {
    fn open(file: File, most: u64, tracks: &[Track<'_>]) -> Result<Self> {
        let mut output = Box::new(Output { file, position: 0, size: 0, most, error: None });
        let mut context = std::ptr::null_mut();
        // SAFETY: plain allocation. The output is boxed, so its address stays.
        let (code, io) = unsafe {
            let code = ffi::avformat_alloc_output_context2(&mut context, std::ptr::null(), c"mp4".as_ptr(), std::ptr::null());
            (code, open_io(&mut output, true))
        };
        let muxer = Self { context, io, output };
        check(code, INTERNAL, "the MP4 muxer")?;
        allocated(io, "an output")?;
        // SAFETY: the context is ours; `opaque` is the boxed output, which lives as long.
        unsafe {
            (*context).pb = io;
            (*context).flags |= ffi::AVFMT_FLAG_BITEXACT | ffi::AVFMT_FLAG_CUSTOM_IO;
            (*context).avoid_negative_ts = ffi::AVFMT_AVOID_NEG_TS_DISABLED;
            (*context).opaque = (*io).opaque;
            (*context).io_open = Some(reopen);
            (*context).io_close2 = Some(close);
        }
        let mut has_audio = false;
        for track in tracks {
            let is_audio = track.stream()?.kind() == ffi::AVMediaType::AVMEDIA_TYPE_AUDIO;
            muxer.add(track, !(is_audio && has_audio))?;
            has_audio |= is_audio;
        }
        muxer.write_header(tracks)?;
        Ok(muxer)
    }

    fn add(&self, track: &Track<'_>, default: bool) -> Result<()> {
        let from = track.stream()?;
        // SAFETY: the new stream belongs to the context; what it is given is copied.
        unsafe {
            let to = allocated(ffi::avformat_new_stream(self.context, std::ptr::null()), "a track")?;
            check(ffi::avcodec_parameters_copy((*to).codecpar, from.parameters()), INTERNAL, "a track's parameters")?;
            // Rates of the source's access units, not of this file.
            (*(*to).codecpar).bit_rate = 0;
            (*to).time_base = track.base;
            (*to).sample_aspect_ratio = from.0.sample_aspect_ratio;
            (*to).avg_frame_rate = from.0.avg_frame_rate;
            (*to).disposition = if default { ffi::AV_DISPOSITION_DEFAULT } else { 0 };
            for kind in KEPT_SIDE_DATA {
                let Some(bytes) = from.side_data(kind) else { continue };
                let room = allocated(ffi::av_stream_new_side_data(to, kind, bytes.len()), "side data")?;
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), room, bytes.len());
            }
            for key in KEPT_TAGS {
                let Some(value) = from.tag(key) else { continue };
                ffi::av_dict_set(&mut (*to).metadata, c(key).as_ptr(), c(&value).as_ptr(), 0);
            }
        }
        Ok(())
    }

    /// Edits are stated in the movie's timescale: it is that of the picture, else a late start would be rounded.
    fn write_header(&self, tracks: &[Track<'_>]) -> Result<()> {
        let kind_of = |track: &Track<'_>| track.stream().is_ok_and(|s| s.kind() == ffi::AVMediaType::AVMEDIA_TYPE_VIDEO);
        let video = tracks.iter().find(|track| kind_of(track));
        let movie = video.or(tracks.first()).map_or(1000, |track| track.base.den).to_string();
        let picture = video.map_or(0, |track| track.base.den).to_string();
        let mut options = Options::new([
            ("movflags", "faststart"),
            ("movie_timescale", movie.as_str()),
            ("video_track_timescale", picture.as_str()),
            ("use_editlist", "1"),
            ("write_btrt", "0"),
        ]);
        // SAFETY: the context has its tracks and its output.
        check(unsafe { ffi::avformat_write_header(self.context, &mut options.0) }, INTERNAL, "the MP4 header")?;
        match options.left().as_slice() {
            [] => Ok(()),
            left => refuse(INTERNAL, format!("the MP4 muxer has no option {}", left.join(", "))),
        }
    }

    fn write(&mut self, index: usize, track: &mut Track<'_>) -> Result<()> {
        let packet = track.packet.get_mut();
        packet.stream_index = index as c_int;
        packet.pos = -1;
        // SAFETY: packet and context are ours; the muxer may have chosen another time base.
        let code = unsafe {
            let stream = *(*self.context).streams.add(index);
            ffi::av_packet_rescale_ts(packet, track.base, (*stream).time_base);
            ffi::av_write_frame(self.context, packet)
        };
        self.outcome(code, "a packet")
    }

    fn finish(mut self) -> Result<u64> {
        // SAFETY: the header was written.
        let code = unsafe {
            let code = ffi::av_write_trailer(self.context);
            ffi::avio_flush(self.io);
            code
        };
        self.outcome(code, "the MP4 index")?;
        Ok(self.output.size)
    }

    /// What the file said comes before what libavformat made of it.
    fn outcome(&mut self, code: c_int, doing: &str) -> Result<()> {
        match self.output.error.take() {
            Some(e) if e.kind() == io::ErrorKind::FileTooLarge => {
                refuse(RefusalReason::Limit, "the MP4 is larger than may be written")
            }
            Some(e) => refuse(INTERNAL, format!("the MP4 cannot be written: {e}")),
            None => check(code, INTERNAL, doing).map(|_| ()),
        }
    }
}

impl Drop for Muxer {
    fn drop(&mut self) {
        // SAFETY: ours; either may be null; a context may be freed without a trailer.
        unsafe {
            ffi::avformat_free_context(self.context);
            close_io(self.io);
        }
    }
}

/// An I/O context over the output; null when memory is short.
///
/// # Safety
/// The output outlives the context.
unsafe fn open_io(output: &mut Output, writable: bool) -> *mut ffi::AVIOContext {
    let opaque = std::ptr::from_mut(output).cast::<c_void>();
    // SAFETY: the buffer is av_malloc'ed as asked, and freed through the context.
    unsafe {
        let buffer = ffi::av_malloc(BUFFER_BYTES).cast::<u8>();
        if buffer.is_null() {
            return std::ptr::null_mut();
        }
        ffi::avio_alloc_context(buffer, BUFFER_BYTES as c_int, c_int::from(writable), opaque, Some(read), Some(write), Some(seek))
    }
}

/// # Safety
/// `io` is null or from [`open_io`], and used no more.
unsafe fn close_io(mut io: *mut ffi::AVIOContext) {
    if !io.is_null() {
        // SAFETY: the caller's promise.
        unsafe {
            ffi::av_freep((&raw mut (*io).buffer).cast());
            ffi::avio_context_free(&mut io);
        }
    }
}

/// Opens the same file once more, for reading: all that the muxer ever asks for, when it moves the media.
unsafe extern "C" fn reopen(
    context: *mut ffi::AVFormatContext,
    io: *mut *mut ffi::AVIOContext,
    _url: *const c_char,
    flags: c_int,
    _options: *mut *mut ffi::AVDictionary,
) -> c_int {
    // SAFETY: `opaque` is the boxed output of a living Muxer.
    let output = unsafe { &*(*context).opaque.cast::<Output>() };
    if flags & ffi::AVIO_FLAG_WRITE != 0 {
        return -libc::EPERM;
    }
    let Ok(file) = output.file.try_clone() else { return -libc::EIO };
    let mut again = Box::new(Output { file, position: 0, size: output.size, most: 0, error: None });
    // SAFETY: the box is given away below and taken back by `close`.
    let opened = unsafe { open_io(&mut again, false) };
    if opened.is_null() {
        return -libc::ENOMEM;
    }
    std::mem::forget(again);
    // SAFETY: libavformat gives a place for the pointer.
    unsafe { *io = opened };
    0
}

unsafe extern "C" fn close(_context: *mut ffi::AVFormatContext, io: *mut ffi::AVIOContext) -> c_int {
    if io.is_null() {
        return 0;
    }
    // SAFETY: `io` is from `reopen`, whose box it owns.
    unsafe {
        drop(Box::from_raw((*io).opaque.cast::<Output>()));
        close_io(io);
    }
    0
}

unsafe extern "C" fn read(opaque: *mut c_void, buffer: *mut u8, size: c_int) -> c_int {
    // SAFETY: `opaque` is a living Output; libavformat gives `size` writable bytes.
    let (output, buffer) =
        unsafe { (&mut *opaque.cast::<Output>(), std::slice::from_raw_parts_mut(buffer, size.max(0) as usize)) };
    match output.file.read_at(buffer, output.position) {
        Ok(0) => ffi::AVERROR_EOF,
        Ok(n) => {
            output.position += n as u64;
            n as c_int
        }
        Err(_) => -libc::EIO,
    }
}

unsafe extern "C" fn write(opaque: *mut c_void, buffer: *mut u8, size: c_int) -> c_int {
    // SAFETY: `opaque` is a living Output; libavformat gives `size` readable bytes.
    let (output, bytes) = unsafe { (&mut *opaque.cast::<Output>(), std::slice::from_raw_parts(buffer, size.max(0) as usize)) };
    let end = output.position + bytes.len() as u64;
    let written = if end > output.most {
        Err(io::ErrorKind::FileTooLarge.into())
    } else {
        output.file.write_all_at(bytes, output.position)
    };
    if let Err(e) = written {
        output.error.get_or_insert(e);
        return -libc::EIO;
    }
    output.position = end;
    output.size = output.size.max(end);
    size
}

unsafe extern "C" fn seek(opaque: *mut c_void, offset: i64, whence: c_int) -> i64 {
    // SAFETY: `opaque` is a living Output.
    let output = unsafe { &mut *opaque.cast::<Output>() };
    let base = match whence & !ffi::AVSEEK_FORCE {
        ffi::AVSEEK_SIZE => return output.size as i64,
        libc::SEEK_SET => 0,
        libc::SEEK_CUR => output.position as i64,
        libc::SEEK_END => output.size as i64,
        _ => return i64::from(-libc::EINVAL),
    };
    match base.checked_add(offset).and_then(|at| u64::try_from(at).ok()) {
        Some(at) => {
            output.position = at;
            at as i64
        }
        None => i64::from(-libc::EINVAL),
    }
}
