//! A container, opened.

use crate::media::error::{Options, Result, allocated, refusal, refuse, string, words};
use crate::media::ffi;
use crate::media::frame::Packet;
use crate::media::input::{Host, Input};
use crate::plan::time::Rational;
use crate::sandbox::protocol::{Limits, RefusalReason};
use std::ffi::c_int;

/// The demuxers a source may use. Left out on purpose: those that open further files or URLs (hls, dash, concat,
/// sdp, rtsp, image2), devices and lavfi.
const DEMUXERS: &str = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,avi,flv,live_flv,ogg,asf,mxf,mxf_opatom,gxf,nut,ivf,obu,av1,\
    h264,hevc,mpegvideo,m4v,mjpeg,dirac,vc1,yuv4mpegpipe,dv,rm,wav,w64,aiff,caf,au,mp3,aac,ac3,eac3,dts,truehd,flac,wv,ape,tta,amr,opus";

/// An open container on one input.
pub struct Demuxer<'h> {
    context: *mut ffi::AVFormatContext,
    input: Input<'h>,
}

/// How much libavformat finds out on opening.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The header only, and packets as they are stored: for walking an index.
    Header,
    /// As the `ffmpeg` program does: some packets are read and decoded to learn of the streams.
    Streams,
    /// The same, but for the length: streams of bytes are not searched for their last packet.
    Packets,
}

impl<'h> Demuxer<'h> {
    /// Opens input number `input`.
    ///
    /// # Errors
    /// Media: not a container that can be read. Unsupported: one that is not allowed. Limit: too many streams.
    pub fn open(host: &'h dyn Host, input: u32, limits: &Limits, depth: Depth) -> Result<Self> {
        let input = Input::new(host, input)?;
        // SAFETY: no arguments.
        let context = allocated(unsafe { ffi::avformat_alloc_context() }, "a container")?;
        let mut demuxer = Self { context, input };
        demuxer.open_header(limits, depth)?;
        if depth != Depth::Header {
            demuxer.find_streams()?;
        }
        Ok(demuxer)
    }

    fn open_header(&mut self, limits: &Limits, depth: Depth) -> Result<()> {
        let most = limits.max_streams.to_string();
        let mut options =
            Options::new([("format_whitelist", DEMUXERS), ("protocol_whitelist", "none"), ("max_streams", most.as_str())]);
        // SAFETY: the context is ours; avformat_open_input frees it and nulls the pointer when it fails.
        let code = unsafe {
            (*self.context).pb = self.input.context;
            if depth == Depth::Header {
                (*self.context).flags |= ffi::AVFMT_FLAG_NOPARSE | ffi::AVFMT_FLAG_NOFILLIN;
            }
            (*self.context).skip_estimate_duration_from_pts = c_int::from(depth == Depth::Packets);
            ffi::avformat_open_input(&mut self.context, std::ptr::null(), std::ptr::null(), &mut options.0)
        };
        if let Some(why) = self.input.failure() {
            return refuse(RefusalReason::Input, format!("the source cannot be read: {why}"));
        }
        match code {
            0.. => Ok(()),
            code if code == -libc::EINVAL => refuse(
                RefusalReason::Unsupported,
                "the container is not one that is accepted, or its header is broken; use MP4, MOV, MKV, WebM, TS, AVI, FLV, OGG or MXF",
            ),
            _ if self.input.lacks_index() => refuse(
                RefusalReason::Media,
                "the source is an MP4 without its index (no moov box): it was cut short, or its recording never ended properly",
            ),
            code => refuse(RefusalReason::Media, format!("the source is not media that can be opened: {}", words(code))),
        }
    }

    fn find_streams(&mut self) -> Result<()> {
        // SAFETY: the context is open.
        let code = unsafe { ffi::avformat_find_stream_info(self.context, std::ptr::null_mut()) };
        if let Some(why) = self.input.failure() {
            return refuse(RefusalReason::Input, format!("the source cannot be read: {why}"));
        }
        if code < 0 {
            return refuse(RefusalReason::Media, format!("the streams of the source cannot be found: {}", words(code)));
        }
        Ok(())
    }

    pub fn get(&self) -> &ffi::AVFormatContext {
        // SAFETY: never null once open.
        unsafe { &*self.context }
    }

    pub fn input_mut(&mut self) -> &mut Input<'h> {
        &mut self.input
    }

    /// The demuxer's name.
    pub fn name(&self) -> String {
        // SAFETY: an open context has an input format with a constant name.
        unsafe { string((*self.get().iformat).name) }
    }

    pub fn stream_count(&self) -> usize {
        self.get().nb_streams as usize
    }

    pub fn stream(&self, index: usize) -> Result<Stream<'_>> {
        if index >= self.stream_count() {
            return refuse(RefusalReason::Media, format!("the source has no stream {index}"));
        }
        // SAFETY: `streams` holds `nb_streams` valid pointers.
        Ok(Stream(unsafe { &**self.get().streams.add(index) }))
    }

    /// Every stream but this one is skipped from now on.
    pub fn only(&mut self, stream: usize) {
        self.only_these(&[stream]);
    }

    /// Every stream but these is skipped from now on.
    pub fn only_these(&mut self, streams: &[usize]) {
        for i in 0..self.stream_count() {
            let discard = if streams.contains(&i) { ffi::AVDiscard::AVDISCARD_DEFAULT } else { ffi::AVDiscard::AVDISCARD_ALL };
            // SAFETY: `streams` holds `nb_streams` valid pointers.
            unsafe { (**(*self.context).streams.add(i)).discard = discard };
        }
    }

    /// The next packet, of any stream not skipped. False at the end of the source, or where it is cut off.
    ///
    /// # Errors
    /// Input: the bytes cannot be had. Damage never ends here: what is unreadable is passed over.
    pub fn read(&mut self, packet: &mut Packet) -> Result<bool> {
        packet.unref();
        for _ in 0..MAX_READ_RETRIES {
            // SAFETY: both are ours and valid.
            let code = unsafe { ffi::av_read_frame(self.context, packet.0) };
            if code >= 0 {
                return Ok(true);
            }
            if let Some(why) = self.input.failure() {
                return refuse(RefusalReason::Input, format!("the source cannot be read: {why}"));
            }
            if code != crate::media::error::AGAIN {
                return Ok(false);
            }
        }
        Err(refusal(RefusalReason::Media, "the demuxer makes no progress"))
    }

    /// Goes to a timestamp of the stream (at or before it) or, for streams of bytes, to a byte position.
    /// False when the demuxer will not.
    pub fn seek(&mut self, stream: usize, to: SeekTo) -> bool {
        let (target, flags) = match to {
            SeekTo::Time(ticks) => (ticks, ffi::AVSEEK_FLAG_BACKWARD),
            SeekTo::Byte(position) => (position, ffi::AVSEEK_FLAG_BYTE),
        };
        // SAFETY: the context is open.
        unsafe { ffi::av_seek_frame(self.context, stream as c_int, target, flags) >= 0 }
    }

    /// Timestamps of this format may jump: it is a stream of bytes without an index.
    pub fn is_byte_stream(&self) -> bool {
        matches!(self.name().as_str(), "mpegts" | "mpeg")
    }

    /// A container whose sample tables give every timestamp without reading media.
    pub fn has_index(&self) -> bool {
        self.name().starts_with("mov,")
    }
}

/// How often a demuxer may say "again" in a row.
const MAX_READ_RETRIES: u32 = 1000;

pub enum SeekTo {
    Time(i64),
    Byte(i64),
}

impl Drop for Demuxer<'_> {
    fn drop(&mut self) {
        // SAFETY: ours; a null context is allowed. The I/O context is custom, so it is left to `input`.
        unsafe { ffi::avformat_close_input(&mut self.context) };
    }
}

/// One stream of an open container.
#[derive(Clone, Copy)]
pub struct Stream<'a>(pub &'a ffi::AVStream);

impl<'a> Stream<'a> {
    /// For as long as the container is open.
    pub fn parameters(&self) -> &'a ffi::AVCodecParameters {
        // SAFETY: every stream has parameters.
        unsafe { &*self.0.codecpar }
    }

    pub fn time_base(&self) -> Rational {
        rational(self.0.time_base)
    }

    pub fn kind(&self) -> ffi::AVMediaType {
        self.parameters().codec_type
    }

    pub fn codec_name(&self) -> String {
        // SAFETY: the name is a constant of the library.
        unsafe { string(ffi::avcodec_get_name(self.parameters().codec_id)) }
    }

    pub fn tag(&self, key: &str) -> Option<String> {
        let key = crate::media::error::c(key);
        // SAFETY: the dictionary belongs to the stream; an entry's value is a terminated string.
        let text = unsafe {
            let entry = ffi::av_dict_get(self.0.metadata, key.as_ptr(), std::ptr::null(), 0);
            if entry.is_null() { return None } else { string((*entry).value) }
        };
        let text: String = text.chars().filter(|c| !c.is_control()).take(128).collect();
        (!text.trim().is_empty()).then(|| text.trim().to_string())
    }

    pub fn has_disposition(&self, flag: c_int) -> bool {
        self.0.disposition & flag != 0
    }

    /// Side data of the stream as bytes.
    pub fn side_data(&self, kind: ffi::AVPacketSideDataType) -> Option<&[u8]> {
        let mut bytes = 0usize;
        // SAFETY: the stream is valid; the data lives as long as it does.
        unsafe {
            let data = ffi::av_stream_get_side_data(std::ptr::from_ref(self.0), kind, &mut bytes);
            (!data.is_null()).then(|| std::slice::from_raw_parts(data, bytes))
        }
    }
}

pub fn rational(r: ffi::AVRational) -> Rational {
    Rational::new(i64::from(r.num), i64::from(r.den))
}

pub fn av_rational(r: Rational) -> ffi::AVRational {
    ffi::AVRational { num: r.num as c_int, den: r.den as c_int }
}
