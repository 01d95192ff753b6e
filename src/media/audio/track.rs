//! Samples in, a finished CMAF track on disk: AAC encoder, segment grid, files.
//!
//! Times of segments are as a player shows them. The encoder's first access unit is priming, at -1024; the one edit
//! of the init segment skips it, so it shows nothing: the first segment's time is 0 and its duration leaves the
//! priming out. From then on `time` is `tfdt` less the priming, and each segment starts where the one before ended.

use crate::media::audio::gapless;
use crate::media::audio::resample::{Layout, Planes};
use crate::media::demux::av_rational;
use crate::media::encoder::{Codec, write_file};
use crate::media::error::{Options, Result, allocated, c, check, refusal, refuse, words};
use crate::media::ffi;
use crate::media::fragment::Fragmenter;
use crate::media::frame::{Frame, Packet};
use crate::media::interest::Interest;
use crate::plan::AudioPlan;
use crate::plan::time::Rational;
use crate::sandbox::protocol::{InitSegment, Limits, RefusalReason, Segment};
use std::path::{Path, PathBuf};

const INTERNAL: RefusalReason = RefusalReason::Internal;
const SETTINGS: RefusalReason = RefusalReason::Settings;
/// Segment distance assumed where the plan has fewer than two, seconds.
const USUAL_SEGMENT_S: i64 = 6;

/// One rendition on its way to disk.
pub struct Track {
    codec: Codec,
    fragmenter: Fragmenter,
    grid: Grid,
    scratch: PathBuf,
    scratch_left: u64,
    /// Samples given to the encoder.
    pub samples: i64,
    /// Access units written.
    pub units: u64,
    open: Option<Open>,
    segments: Vec<Segment>,
    bytes: u64,
}

/// The segment being filled.
struct Open {
    index: u32,
    /// Presentation time of the first access unit, and end of the last, samples.
    start: i64,
    end: i64,
    units: u64,
}

/// What a finished track is.
pub struct Finished {
    pub init: InitSegment,
    pub plain_init: InitSegment,
    pub segments: Vec<Segment>,
    pub priming: u32,
    pub bytes: u64,
}

impl Track {
    /// # Errors
    /// Settings: the encoder does not take them.
    pub fn open(plan: &AudioPlan, limits: &Limits, scratch: &Path, layout: &Layout) -> Result<Self> {
        let codec = open_encoder(plan, layout)?;
        let fragmenter = Fragmenter::open_audio(codec.get(), &plan.encoder.sample_entry, plan.language.as_deref())?;
        Ok(Self {
            codec,
            fragmenter,
            grid: Grid::new(plan),
            scratch: scratch.to_path_buf(),
            scratch_left: limits.scratch_bytes,
            samples: 0,
            units: 0,
            open: None,
            segments: Vec::new(),
            bytes: 0,
        })
    }

    /// Samples an access unit takes.
    pub fn unit_samples(&self) -> usize {
        self.codec.get().frame_size as usize
    }

    /// Encodes samples `at..at + count`: a whole access unit, or at the very end less.
    ///
    /// # Errors
    /// Internal: the encoder or the disk fails. Limit: the scratch folder is full.
    pub fn encode(&mut self, planes: &Planes, at: usize, count: usize) -> Result<()> {
        let mut frame = Frame::new()?;
        let (c, f) = (self.codec.get(), frame.get_mut());
        f.format = c.sample_fmt as i32;
        f.sample_rate = c.sample_rate;
        f.nb_samples = count as i32;
        f.pts = self.samples;
        // SAFETY: the frame is ours and has its shape; get_buffer gives it one plane of `count` floats a channel.
        unsafe {
            check(ffi::av_channel_layout_copy(&mut f.ch_layout, &c.ch_layout), INTERNAL, "a channel layout")?;
            check(ffi::av_frame_get_buffer(f, 0), RefusalReason::Limit, "a frame of audio")?;
            for (i, plane) in planes.0.iter().enumerate() {
                let to = std::slice::from_raw_parts_mut((*f.extended_data.add(i)).cast::<f32>(), count);
                to.copy_from_slice(&plane[at..at + count]);
            }
        }
        self.codec.send(Some(&frame))?;
        self.samples += count as i64;
        self.take_units()
    }

    fn take_units(&mut self) -> Result<()> {
        while let Some(mut packet) = self.codec.receive()? {
            self.write(&mut packet)?;
        }
        Ok(())
    }

    fn write(&mut self, packet: &mut Packet) -> Result<()> {
        let (Some(time), duration) = (packet.pts(), packet.get().duration) else {
            return refuse(INTERNAL, "the audio encoder gave an access unit without a time");
        };
        if let Some(index) = self.grid.begins(time) {
            self.write_segment()?;
            self.open = Some(Open { index, start: time, end: time, units: 0 });
        }
        if let Some(open) = &mut self.open {
            open.end = time + duration;
            open.units += 1;
        }
        self.units += 1;
        self.fragmenter.write(packet)
    }

    fn write_segment(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let bytes = self.fragmenter.cut()?;
        let file = format!("{}.m4s", open.index);
        self.write_to_scratch(&file, &bytes)?;
        let time = open.start.max(0);
        let duration = open.end - time;
        self.segments.push(Segment { index: open.index, file, bytes: bytes.len() as u64, time, duration, samples: open.units });
        Ok(())
    }

    fn write_to_scratch(&mut self, file: &str, bytes: &[u8]) -> Result<()> {
        let size = bytes.len() as u64;
        let Some(left) = self.scratch_left.checked_sub(size) else {
            return refuse(RefusalReason::Limit, "the audio rendition is larger than may be written");
        };
        self.scratch_left = left;
        self.bytes += size;
        write_file(&self.scratch.join(file), bytes)
    }

    /// Ends the track.
    ///
    /// # Errors
    /// As [`Track::encode`].
    pub fn finish(mut self, plan: &AudioPlan) -> Result<Finished> {
        self.codec.send(None)?;
        self.take_units()?;
        self.write_segment()?;
        let priming = self.codec.get().initial_padding.max(0) as u32;
        let plain = self.fragmenter.init().ok_or_else(|| refusal(INTERNAL, "no init segment was made"))?.to_vec();
        let coded = self.units * self.unit_samples() as u64;
        let counted = gapless::with_sample_counts(&plain, priming, coded, self.samples as u64)?;
        let codecs = self.codec.codecs(&plan.encoder.sample_entry)?;
        let mut write = |file: &str, bytes: &[u8]| -> Result<InitSegment> {
            self.write_to_scratch(file, bytes)?;
            Ok(InitSegment { file: file.into(), bytes: bytes.len() as u64, codecs: codecs.clone(), timescale: plan.sample_rate })
        };
        let (init, plain_init) = (write("init.mp4", &counted)?, write("plain.mp4", &plain)?);
        Ok(Finished { init, plain_init, segments: self.segments, priming, bytes: self.bytes })
    }
}

fn open_encoder(plan: &AudioPlan, layout: &Layout) -> Result<Codec> {
    let (library, name) = (&plan.encoder.library, &plan.name);
    // SAFETY: a look-up by name.
    let found = unsafe { ffi::avcodec_find_encoder_by_name(c(library).as_ptr()) };
    if found.is_null() {
        return refuse(SETTINGS, format!("encoder {library} is not installed here"));
    }
    if layout.0.nb_channels as u32 != plan.channels {
        return refuse(SETTINGS, format!("{name}: layout {} does not have {} channels", plan.layout, plan.channels));
    }
    let mut options = Options::new(&plan.encoder.options);
    // SAFETY: the context is ours from here on; the layout is valid and copied; the options are ours.
    let (codec, code) = unsafe {
        let codec = Codec(allocated(ffi::avcodec_alloc_context3(found), "an encoder")?, None, Interest::default());
        let x = &mut *codec.0;
        x.sample_fmt = ffi::AVSampleFormat::AV_SAMPLE_FMT_FLTP;
        x.sample_rate = plan.sample_rate as i32;
        x.time_base = av_rational(Rational::new(1, i64::from(plan.sample_rate)));
        x.bit_rate = plan.bit_rate as i64;
        x.thread_count = 1;
        x.flags |= ffi::AV_CODEC_FLAG_GLOBAL_HEADER as i32 | ffi::AV_CODEC_FLAG_BITEXACT as i32;
        check(ffi::av_channel_layout_copy(&mut x.ch_layout, &layout.0), INTERNAL, "a channel layout")?;
        let code = ffi::avcodec_open2(codec.0, found, &mut options.0);
        (codec, code)
    };
    if code < 0 {
        let shape = format!("{} Hz {} {} bit/s", plan.sample_rate, plan.layout, plan.bit_rate);
        return refuse(SETTINGS, format!("{name}: {library} does not take its settings for {shape}: {}", words(code)));
    }
    match options.left().as_slice() {
        [] if codec.get().frame_size > 0 => Ok(codec),
        [] => refuse(SETTINGS, format!("{name}: {library} does not make access units of a fixed size")),
        left => refuse(SETTINGS, format!("{name}: {library} has no option {}", left.join(", "))),
    }
}

/// Which access unit begins which segment.
struct Grid {
    starts: Vec<i64>,
    /// Number of the segment being filled.
    current: Option<u32>,
    /// Where the one after it starts.
    next: i64,
    /// Distance of the segments past the planned ones.
    tail: i64,
}

impl Grid {
    /// Sound that outlasts the plan goes on in segments twice as long as the longest planned, so that no segment is
    /// without bounds.
    fn new(plan: &AudioPlan) -> Self {
        let longest = plan.segments.windows(2).map(|pair| pair[1] - pair[0]).max();
        let tail = longest.unwrap_or(USUAL_SEGMENT_S * i64::from(plan.sample_rate)).max(1) * 2;
        Self { starts: plan.segments.clone(), current: None, next: i64::MIN, tail }
    }

    /// The number of the segment that an access unit at `time` begins; none while it belongs to the one before.
    fn begins(&mut self, time: i64) -> Option<u32> {
        if time < self.next {
            return None;
        }
        let planned = self.starts.partition_point(|&start| start <= time).max(1) as u32 - 1;
        let is_tail = self.current.is_some_and(|current| planned <= current);
        let index = self.current.filter(|_| is_tail).map_or(planned, |current| current + 1);
        let last = self.starts.last().copied().unwrap_or(0);
        self.next = match self.starts.get(index as usize + 1) {
            Some(&start) => start,
            None if is_tail => self.next + self.tail,
            None => last + self.tail,
        };
        self.current = Some(index);
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begins(starts: &[i64], times: impl Iterator<Item = i64>) -> Vec<(u32, i64)> {
        let longest = starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(288_000);
        let mut grid = Grid { starts: starts.to_vec(), current: None, next: i64::MIN, tail: longest * 2 };
        times.filter_map(|time| grid.begins(time).map(|index| (index, time))).collect()
    }

    #[test]
    fn segments_begin_at_the_first_unit_at_or_after_their_start() {
        let units = (-1..20).map(|n| n * 1024);
        assert_eq!(begins(&[0, 4096, 10_000], units), [(0, -1024), (1, 4096), (2, 10_240)]);
    }

    #[test]
    fn segments_without_a_unit_are_passed_over() {
        let units = (-1..20).map(|n| n * 1024);
        assert_eq!(begins(&[0, 4000, 4050, 4096, 16_000], units), [(0, -1024), (3, 4096), (4, 16_384)]);
    }

    #[test]
    fn sound_that_outlasts_the_plan_is_cut_all_the_same() {
        let units = (-1..60).map(|n| n * 1024);
        let expected = [(0, -1024), (1, 10_240), (2, 30_720), (3, 51_200)];
        assert_eq!(begins(&[0, 10_240], units), expected);
        assert_eq!(begins(&[], (-1..1000).map(|n| n * 1024)), [(0, -1024), (1, 576_512)]);
    }
}
