//! A decoder, single-threaded: throughput comes from slots.

use crate::media::demux::{Stream, av_rational, rational};
use crate::media::error::{AGAIN, Result, allocated, check, refuse, string, words};
use crate::media::ffi;
use crate::media::frame::{Frame, Packet};
use crate::plan::time::Rational;
use crate::sandbox::protocol::{Limits, RefusalReason};

/// What a decoder is opened for.
#[derive(Clone, Copy)]
pub struct Coded<'a> {
    pub parameters: &'a ffi::AVCodecParameters,
    /// Index of the stream in its container.
    pub stream: usize,
    pub time_base: Rational,
    pub frame_rate: Rational,
}

impl<'a> From<Stream<'a>> for Coded<'a> {
    fn from(stream: Stream<'a>) -> Self {
        let (time_base, frame_rate) = (stream.time_base(), rational(stream.0.avg_frame_rate));
        Self { parameters: stream.parameters(), stream: stream.0.index as usize, time_base, frame_rate }
    }
}

/// An open decoder of one stream.
pub struct Decoder {
    context: *mut ffi::AVCodecContext,
}

/// What a decoder had to say.
pub enum Decoded {
    Frame,
    /// Give it more packets.
    Hungry,
    /// All frames are out.
    End,
    /// It could not decode what it was given; the words are libavcodec's.
    Damaged(String),
}

impl Decoder {
    /// Opens libavcodec's preferred decoder for the stream, as the `ffmpeg` program does.
    ///
    /// # Errors
    /// Unsupported: no decoder for this codec. Limit: the picture is larger than allowed.
    pub fn open<'a>(coded: impl Into<Coded<'a>>, limits: &Limits) -> Result<Self> {
        let Coded { parameters, stream, time_base, frame_rate } = coded.into();
        // SAFETY: look-ups by id; the name is a constant of the library.
        let (codec, name) =
            unsafe { (ffi::avcodec_find_decoder(parameters.codec_id), string(ffi::avcodec_get_name(parameters.codec_id))) };
        if codec.is_null() {
            let name = if name == "none" { fourcc(parameters.codec_tag) } else { name };
            return refuse(RefusalReason::Unsupported, format!("stream {stream}: there is no decoder for codec {name}"));
        }
        // SAFETY: codec is not null; the context is ours and freed on drop; the parameters are borrowed from their owner.
        unsafe {
            let decoder = Self { context: allocated(ffi::avcodec_alloc_context3(codec), "a decoder")? };
            let c = decoder.context;
            check(ffi::avcodec_parameters_to_context(c, parameters), RefusalReason::Media, "the stream's parameters")?;
            (*c).thread_count = 1;
            (*c).pkt_timebase = av_rational(time_base);
            (*c).framerate = av_rational(frame_rate);
            (*c).max_pixels = limits.max_pixels as i64;
            let code = ffi::avcodec_open2(c, codec, std::ptr::null_mut());
            if code < 0 {
                return refuse(
                    RefusalReason::Unsupported,
                    format!("stream {stream}: the {name} decoder will not open: {}", words(code)),
                );
            }
            Ok(decoder)
        }
    }

    pub fn get(&self) -> &ffi::AVCodecContext {
        // SAFETY: never null once open.
        unsafe { &*self.context }
    }

    /// Gives one packet, or `None` for the end. The decoder must have been emptied by [`Decoder::receive`] before.
    pub fn send(&mut self, packet: Option<&Packet>) -> Decoded {
        let packet = packet.map_or(std::ptr::null(), |p| p.0.cast_const());
        // SAFETY: the context is open; a null packet means the end.
        match unsafe { ffi::avcodec_send_packet(self.context, packet) } {
            0.. | AGAIN => Decoded::Hungry,
            ffi::AVERROR_EOF => Decoded::End,
            code => Decoded::Damaged(words(code)),
        }
    }

    /// Takes the next frame.
    pub fn receive(&mut self, frame: &mut Frame) -> Decoded {
        frame.unref();
        // SAFETY: both are ours.
        match unsafe { ffi::avcodec_receive_frame(self.context, frame.0) } {
            0.. => Decoded::Frame,
            AGAIN => Decoded::Hungry,
            ffi::AVERROR_EOF => Decoded::End,
            code => Decoded::Damaged(words(code)),
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { ffi::avcodec_free_context(&mut self.context) };
    }
}

/// A codec tag for people.
pub fn fourcc(tag: u32) -> String {
    let text: String = tag.to_le_bytes().iter().map(|&b| if b.is_ascii_graphic() { char::from(b) } else { '.' }).collect();
    if tag == 0 { "unknown".into() } else { format!("'{text}'") }
}
