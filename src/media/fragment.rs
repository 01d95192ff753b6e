//! CMAF: packets of one track in, an init segment and media segments out.
//!
//! libavformat's muxer writes the boxes. What makes separately encoded chunks join is how it is fed: every sample
//! has a positive composition offset, the one edit in the init segment skips the same reorder delay for every
//! chunk, and `tfdt` is the presentation time of the segment's first sample (ISO/IEC 23000-19 7.5.18 and 7.3.2.2).

use crate::media::demux::av_rational;
use crate::media::error::{Options, Result, allocated, c, check, refuse};
use crate::media::ffi;
use crate::media::frame::Packet;
use crate::plan::time::Rational;
use crate::sandbox::protocol::RefusalReason;
use std::ffi::{c_int, c_void};

const INTERNAL: RefusalReason = RefusalReason::Internal;
const BUFFER_BYTES: usize = 64 * 1024;

/// A muxer for one track.
pub struct Fragmenter {
    context: *mut ffi::AVFormatContext,
    io: *mut ffi::AVIOContext,
    #[expect(clippy::box_collection, reason = "the callback holds its address")]
    sink: Box<Vec<u8>>,
    init: Option<Vec<u8>>,
    timescale: u32,
}

impl Fragmenter {
    /// A track as the open encoder describes it, in ticks of `1/timescale`, whose first fragment has this number
    /// (from 1).
    ///
    /// # Errors
    /// Internal: the muxer does not take the track.
    pub fn open(encoder: &ffi::AVCodecContext, timescale: u32, sample_entry: &str, first_number: u32) -> Result<Self> {
        let fragmenter = Self::new(encoder, timescale, sample_entry)?;
        // Discontinuous: `tfdt` is taken from the first packet, not counted from zero.
        fragmenter.write_header(first_number, "+frag_discont")?;
        Ok(fragmenter)
    }

    /// An audio track written from its beginning, by one muxer to its end. Its first packet may have a negative time:
    /// the priming of the encoder. Then `tfdt` counts from there and the one edit skips it (`media_time` = priming).
    ///
    /// # Errors
    /// Internal: the muxer does not take the track.
    pub fn open_audio(encoder: &ffi::AVCodecContext, sample_entry: &str, language: Option<&str>) -> Result<Self> {
        let fragmenter = Self::new(encoder, encoder.sample_rate as u32, sample_entry)?;
        if let Some(language) = language {
            // SAFETY: the one stream belongs to the context; both strings are copied.
            unsafe {
                let stream = *(*fragmenter.context).streams;
                ffi::av_dict_set(&mut (*stream).metadata, c"language".as_ptr(), c(language).as_ptr(), 0);
            }
        }
        fragmenter.write_header(1, "")?;
        Ok(fragmenter)
    }

    fn new(encoder: &ffi::AVCodecContext, timescale: u32, sample_entry: &str) -> Result<Self> {
        let mut sink = Box::new(Vec::new());
        let mut context = std::ptr::null_mut();
        // SAFETY: plain allocation; the buffer is av_malloc'ed and the sink is boxed, so its address stays.
        let io = unsafe {
            let code = ffi::avformat_alloc_output_context2(&mut context, std::ptr::null(), c"mp4".as_ptr(), std::ptr::null());
            check(code, INTERNAL, "the MP4 muxer")?;
            let buffer = allocated(ffi::av_malloc(BUFFER_BYTES).cast::<u8>(), "an output buffer")?;
            let opaque = (&raw mut *sink).cast::<c_void>();
            ffi::avio_alloc_context(buffer, BUFFER_BYTES as c_int, 1, opaque, None, Some(write), None)
        };
        let fragmenter = Self { context, io: allocated(io, "an output")?, sink, init: None, timescale };
        fragmenter.add_track(encoder, sample_entry)?;
        Ok(fragmenter)
    }

    fn add_track(&self, encoder: &ffi::AVCodecContext, sample_entry: &str) -> Result<()> {
        // SAFETY: context and encoder are open; the stream belongs to the context.
        unsafe {
            (*self.context).pb = self.io;
            (*self.context).flags |= ffi::AVFMT_FLAG_BITEXACT | ffi::AVFMT_FLAG_CUSTOM_IO;
            let stream = allocated(ffi::avformat_new_stream(self.context, std::ptr::null()), "a track")?;
            check(ffi::avcodec_parameters_from_context((*stream).codecpar, encoder), INTERNAL, "the track's parameters")?;
            let tag = <[u8; 4]>::try_from(sample_entry.as_bytes()).unwrap_or_default();
            (*(*stream).codecpar).codec_tag = u32::from_le_bytes(tag);
            (*(*stream).codecpar).bit_rate = 0;
            (*stream).time_base = av_rational(Rational::new(1, i64::from(self.timescale)));
            (*stream).sample_aspect_ratio = (*(*stream).codecpar).sample_aspect_ratio;
        }
        Ok(())
    }

    fn write_header(&self, first_number: u32, more_flags: &str) -> Result<()> {
        let (timescale, number) = (self.timescale.to_string(), first_number.to_string());
        let flags = format!("frag_custom+delay_moov+default_base_moof+skip_trailer{more_flags}");
        let mut options = Options::new([
            ("movflags", flags.as_str()),
            ("video_track_timescale", timescale.as_str()),
            ("fragment_index", number.as_str()),
            ("write_btrt", "0"),
            ("brand", "iso6"),
            ("use_editlist", "1"),
        ]);
        // SAFETY: the context has its track and its output.
        check(unsafe { ffi::avformat_write_header(self.context, &mut options.0) }, INTERNAL, "the init segment")?;
        Ok(())
    }

    /// Takes one packet; its timestamps are in track ticks. The payload is taken over.
    ///
    /// # Errors
    /// Internal: the muxer refuses it.
    pub fn write(&mut self, packet: &mut Packet) -> Result<()> {
        packet.get_mut().stream_index = 0;
        packet.get_mut().pos = -1;
        // SAFETY: both are ours.
        check(unsafe { ffi::av_write_frame(self.context, packet.0) }, INTERNAL, "a sample")?;
        packet.unref();
        Ok(())
    }

    /// Ends the segment and gives its bytes.
    ///
    /// # Errors
    /// Internal: the muxer fails, or gives no segment.
    pub fn cut(&mut self) -> Result<Vec<u8>> {
        // The first flush may give no more than the init segment; a second one then gives the samples.
        for _ in 0..2 {
            // SAFETY: a null packet flushes the fragment.
            unsafe {
                check(ffi::av_write_frame(self.context, std::ptr::null_mut()), INTERNAL, "a segment")?;
                ffi::avio_flush(self.io);
            }
            if let Some(at) = find_box(&self.sink, *b"moof") {
                let segment = self.sink.split_off(at);
                if self.init.is_none() {
                    self.init = Some(std::mem::take(&mut *self.sink));
                }
                self.sink.clear();
                return Ok(segment);
            }
        }
        refuse(INTERNAL, "the muxer gave no segment")
    }

    /// The init segment, known after the first cut.
    pub fn init(&self) -> Option<&[u8]> {
        self.init.as_deref()
    }
}

impl Drop for Fragmenter {
    fn drop(&mut self) {
        // SAFETY: ours; the header was written or not, either way the context may be freed without a trailer.
        unsafe {
            ffi::avformat_free_context(self.context);
            ffi::av_freep((&raw mut (*self.io).buffer).cast());
            ffi::avio_context_free(&mut self.io);
        }
    }
}

unsafe extern "C" fn write(opaque: *mut c_void, buffer: *mut u8, size: c_int) -> c_int {
    // SAFETY: `opaque` is the boxed sink of a living Fragmenter; libavformat gives `size` readable bytes.
    let (sink, bytes) = unsafe { (&mut *opaque.cast::<Vec<u8>>(), std::slice::from_raw_parts(buffer, size.max(0) as usize)) };
    sink.extend_from_slice(bytes);
    size
}

/// Where the first top-level box of that type starts.
fn find_box(bytes: &[u8], kind: [u8; 4]) -> Option<usize> {
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + 8) {
        if head[4..8] == kind {
            return Some(at);
        }
        let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if size < 8 {
            return None;
        }
        at += size;
    }
    None
}
