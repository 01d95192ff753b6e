//! Samples of any rate, layout and format in; planar floats of the rendition's rate and layout out.

use crate::media::error::{Result, c, check, refuse};
use crate::media::ffi;
use crate::media::frame::Frame;
use crate::sandbox::protocol::RefusalReason;
use std::ffi::c_int;

const MEDIA: RefusalReason = RefusalReason::Media;
const INTERNAL: RefusalReason = RefusalReason::Internal;
const PLANAR_FLOAT: ffi::AVSampleFormat = ffi::AVSampleFormat::AV_SAMPLE_FMT_FLTP;
/// Most channels of a source stream.
const MAX_CHANNELS: i32 = 64;
/// Silence is made in blocks of so many samples.
const SILENCE_SAMPLES: i64 = 4096;
/// Samples louder than this many times full scale are no sound: a damaged source. The encoder stops at infinities.
const LOUDEST: f32 = 16.0;

/// Planar samples, one vector a channel, all of one length.
pub struct Planes(pub Vec<Vec<f32>>);

impl Planes {
    pub fn new(channels: usize) -> Self {
        Self(vec![Vec::new(); channels])
    }

    pub fn len(&self) -> usize {
        self.0.first().map_or(0, Vec::len)
    }

    pub fn resize(&mut self, samples: usize) {
        self.0.iter_mut().for_each(|plane| plane.resize(samples, 0.0));
    }

    /// Takes the first samples away.
    pub fn drop_front(&mut self, samples: usize) {
        self.0.iter_mut().for_each(|plane| drop(plane.drain(..samples)));
    }
}

/// A channel layout that frees what it holds.
pub struct Layout(pub ffi::AVChannelLayout);

impl Layout {
    fn empty() -> Self {
        // SAFETY: all zeros is the library's own empty layout.
        Self(unsafe { std::mem::zeroed() })
    }

    /// # Errors
    /// Settings: libavutil knows no layout of that name.
    pub fn named(name: &str) -> Result<Self> {
        let mut layout = Self::empty();
        // SAFETY: the layout is empty and ours.
        let code = unsafe { ffi::av_channel_layout_from_string(&mut layout.0, c(name).as_ptr()) };
        check(code, RefusalReason::Settings, &format!("channel layout {name}"))?;
        Ok(layout)
    }

    /// The frame's; where it only has a number of channels, the usual layout of so many.
    fn of(frame: &ffi::AVFrame) -> Result<Self> {
        let mut layout = Self::empty();
        let channels = frame.ch_layout.nb_channels;
        // SAFETY: both layouts are valid; ours is empty.
        unsafe {
            if frame.ch_layout.order == ffi::AVChannelOrder::AV_CHANNEL_ORDER_UNSPEC {
                ffi::av_channel_layout_default(&mut layout.0, channels);
            } else {
                check(ffi::av_channel_layout_copy(&mut layout.0, &frame.ch_layout), INTERNAL, "a channel layout")?;
            }
        }
        Ok(layout)
    }

    fn is(&self, other: &ffi::AVChannelLayout) -> bool {
        // SAFETY: both are valid.
        unsafe { ffi::av_channel_layout_compare(&self.0, other) == 0 }
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { ffi::av_channel_layout_uninit(&mut self.0) };
    }
}

/// A resampler for one shape of input.
pub struct Resampler {
    context: *mut ffi::SwrContext,
    /// As frames of this shape say it, which may be a number of channels only.
    said: Layout,
    format: c_int,
    pub rate: i64,
    channels: usize,
    silence: Frame,
}

impl Resampler {
    /// From the frame's shape to `rate` and `layout`.
    ///
    /// # Errors
    /// Media: no sound can have that shape. Unsupported: it cannot be converted.
    pub fn new(frame: &Frame, rate: u32, layout: &Layout) -> Result<Self> {
        let f = frame.get();
        let channels = f.ch_layout.nb_channels;
        if f.sample_rate <= 0 || !(1..=MAX_CHANNELS).contains(&channels) {
            return refuse(MEDIA, format!("audio of {} Hz and {channels} channels cannot be read", f.sample_rate));
        }
        let input = Layout::of(f)?;
        let mut said = Layout::empty();
        let mut context = std::ptr::null_mut();
        // SAFETY: the layouts are valid and copied; a decoded frame's format is a sample format of this library.
        unsafe {
            check(ffi::av_channel_layout_copy(&mut said.0, &f.ch_layout), INTERNAL, "a channel layout")?;
            let format = std::mem::transmute::<c_int, ffi::AVSampleFormat>(f.format);
            let (to, from) = (std::ptr::from_ref(&layout.0).cast_mut(), std::ptr::from_ref(&input.0).cast_mut());
            let code = ffi::swr_alloc_set_opts2(
                &mut context,
                to,
                PLANAR_FLOAT,
                rate as c_int,
                from,
                format,
                f.sample_rate,
                0,
                std::ptr::null_mut(),
            );
            check(code, INTERNAL, "a resampler")?;
        }
        let silence = silence_like(f, &input)?;
        let channels = layout.0.nb_channels as usize;
        let resampler = Self { context, said, format: f.format, rate: i64::from(f.sample_rate), channels, silence };
        // SAFETY: the context is set up.
        check(unsafe { ffi::swr_init(context) }, RefusalReason::Unsupported, "this channel layout cannot be remixed")?;
        Ok(resampler)
    }

    /// Frames of this shape may be fed.
    pub fn takes(&self, frame: &Frame) -> bool {
        let f = frame.get();
        f.format == self.format && i64::from(f.sample_rate) == self.rate && self.said.is(&f.ch_layout)
    }

    /// Converts samples `skip..skip + take` of the frame.
    ///
    /// # Errors
    /// Internal: the library fails.
    pub fn feed(&mut self, frame: &Frame, skip: i64, take: i64, out: &mut Planes) -> Result<()> {
        if take == 0 {
            return Ok(());
        }
        let f = frame.get();
        debug_assert!(skip >= 0 && skip + take <= i64::from(f.nb_samples));
        let channels = f.ch_layout.nb_channels as usize;
        // SAFETY: the frame holds `nb_samples` samples, one plane a channel or all in the first plane.
        let planes: Vec<*const u8> = unsafe {
            let format = std::mem::transmute::<c_int, ffi::AVSampleFormat>(f.format);
            let bytes = ffi::av_get_bytes_per_sample(format) as usize;
            let (planes, step) =
                if ffi::av_sample_fmt_is_planar(format) == 1 { (channels, bytes) } else { (1, bytes * channels) };
            (0..planes).map(|plane| (*f.extended_data.add(plane)).add(skip as usize * step).cast_const()).collect()
        };
        self.convert(&planes, take as c_int, out)
    }

    /// Converts one block of up to `samples` samples of silence; gives how many.
    ///
    /// # Errors
    /// Internal: the library fails.
    pub fn feed_silence(&mut self, samples: i64, out: &mut Planes) -> Result<i64> {
        let block = samples.min(SILENCE_SAMPLES);
        let f = self.silence.get();
        // SAFETY: the frame of silence has a plane for each channel, or one for all.
        let planes: Vec<*const u8> = unsafe {
            let format = std::mem::transmute::<c_int, ffi::AVSampleFormat>(f.format);
            let planes = if ffi::av_sample_fmt_is_planar(format) == 1 { f.ch_layout.nb_channels as usize } else { 1 };
            (0..planes).map(|plane| (*f.extended_data.add(plane)).cast_const()).collect()
        };
        self.convert(&planes, block as c_int, out)?;
        Ok(block)
    }

    /// Gives what is still inside. Nothing may be fed after.
    ///
    /// # Errors
    /// Internal: the library fails.
    pub fn flush(&mut self, out: &mut Planes) -> Result<()> {
        self.convert(&[], 0, out)
    }

    fn convert(&mut self, input: &[*const u8], samples: c_int, out: &mut Planes) -> Result<()> {
        let had = out.len();
        // SAFETY: the context is open; the outputs have room for `room` samples; the input has `samples`.
        let got = unsafe {
            let room = check(ffi::swr_get_out_samples(self.context, samples), INTERNAL, "resampling")?;
            out.resize(had + room as usize);
            let mut to: Vec<*mut u8> = out.0.iter_mut().map(|plane| plane[had..].as_mut_ptr().cast()).collect();
            debug_assert_eq!(to.len(), self.channels);
            let from = if input.is_empty() { std::ptr::null_mut() } else { input.as_ptr().cast_mut() };
            check(ffi::swr_convert(self.context, to.as_mut_ptr(), room, from, samples), INTERNAL, "resampling")?
        };
        out.resize(had + got as usize);
        for plane in &mut out.0 {
            for sample in &mut plane[had..] {
                *sample = if sample.is_finite() { sample.clamp(-LOUDEST, LOUDEST) } else { 0.0 };
            }
        }
        Ok(())
    }
}

impl Drop for Resampler {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { ffi::swr_free(&mut self.context) };
    }
}

/// A block of silence in the frame's shape.
fn silence_like(f: &ffi::AVFrame, layout: &Layout) -> Result<Frame> {
    let mut silence = Frame::new()?;
    let s = silence.get_mut();
    s.format = f.format;
    s.sample_rate = f.sample_rate;
    s.nb_samples = SILENCE_SAMPLES as c_int;
    // SAFETY: the frame is ours and has its shape; get_buffer gives it planes of that many samples.
    unsafe {
        check(ffi::av_channel_layout_copy(&mut s.ch_layout, &layout.0), INTERNAL, "a channel layout")?;
        check(ffi::av_frame_get_buffer(s, 0), RefusalReason::Limit, "a block of silence")?;
        let format = std::mem::transmute::<c_int, ffi::AVSampleFormat>(s.format);
        ffi::av_samples_set_silence(s.extended_data, 0, s.nb_samples, s.ch_layout.nb_channels, format);
    }
    Ok(silence)
}
