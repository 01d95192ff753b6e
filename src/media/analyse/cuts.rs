//! Where scenes begin, by `av-scenechange`, which compares what a picture costs by itself and out of the one before.
//!
//! It is fed by us, picture by picture: luma only, in half size, which is plenty to tell one scene from the next.

use crate::plan::time::Rational;
use crate::quality::{Format, Plane, Planes, Samples};
use av_scenechange::av_decoders::v_frame::chroma::ChromaSubsampling;
use av_scenechange::av_decoders::v_frame::frame::{Frame, FrameBuilder};
use av_scenechange::av_decoders::v_frame::pixel::Pixel;
use av_scenechange::{Rational32, SceneChangeDetector, SceneDetectionSpeed};
use std::collections::VecDeque;
use std::sync::Arc;

/// Pictures that the detector looks ahead, so that a flash is no scene: its own default.
const LOOK_AHEAD: usize = 5;
/// Pictures after a chunk that it must be shown to know whether a scene begins with the first of them.
pub const PICTURES_AFTER: usize = LOOK_AHEAD + 1;
/// Pictures held: the one before the one in question, it, and those ahead.
const HELD: usize = LOOK_AHEAD + 2;
/// Samples around a picture that its motion search may look at: a superblock and a margin, as its own decoders leave.
const PADDING: usize = 64 + 24;
/// Pictures are halved until their short side would be under this, once at most.
const LEAST_HALVED_SIDE: usize = 200;
/// The detector works in blocks of 8 and superblocks of 64: on smaller pictures it has nothing to go by.
const LEAST_SIDE: usize = 64;
/// A scene cut that only just is one has this strength; one that towers above the threshold has 1.
const LEAST_STRENGTH: f64 = 0.5;

/// Finds the scenes of a run of pictures.
pub enum Cuts {
    Bytes(Watch<u8>),
    Words(Watch<u16>),
}

impl Cuts {
    /// `None` for pictures too small to look at.
    pub fn new(format: Format, frame_rate: Rational) -> Option<Self> {
        if format.bits == 8 {
            Watch::new(format, frame_rate).map(Cuts::Bytes)
        } else {
            Watch::new(format, frame_rate).map(Cuts::Words)
        }
    }

    /// Takes the next picture, of that time.
    pub fn push(&mut self, planes: &Planes<'_>, time: i64) {
        match (self, planes.0[0]) {
            (Cuts::Bytes(watch), Plane { samples: Samples::Bytes(samples), stride }) => watch.push(samples, stride, time),
            (Cuts::Words(watch), Plane { samples: Samples::Words(samples), stride }) => watch.push(samples, stride, time),
            _ => {}
        }
    }

    /// Times of the pictures that begin a scene, the first picture not among them, and how strong each cut is.
    pub fn finish(self) -> Vec<(i64, f64)> {
        match self {
            Cuts::Bytes(watch) => watch.finish(),
            Cuts::Words(watch) => watch.finish(),
        }
    }
}

/// For one kind of samples.
pub struct Watch<T: Pixel> {
    detector: SceneChangeDetector<T>,
    held: VecDeque<(i64, Arc<Frame<T>>)>,
    /// Number of the second picture held.
    number: usize,
    last_cut: usize,
    found: Vec<(i64, f64)>,
    builder: Builder,
}

/// How a picture is copied.
#[derive(Clone, Copy)]
struct Builder {
    width: usize,
    height: usize,
    bits: u8,
    /// 1 or 2.
    step: usize,
}

/// A sample that can be averaged.
pub trait Sample: Pixel {
    fn level(self) -> u32;
    fn of(level: u32) -> Self;
}

impl Sample for u8 {
    fn level(self) -> u32 {
        self.into()
    }

    fn of(level: u32) -> Self {
        level as u8
    }
}

impl Sample for u16 {
    fn level(self) -> u32 {
        self.into()
    }

    fn of(level: u32) -> Self {
        level as u16
    }
}

impl<T: Sample> Watch<T> {
    fn new(format: Format, frame_rate: Rational) -> Option<Self> {
        let (width, height) = format.plane(0);
        let step = if width.min(height) / 2 >= LEAST_HALVED_SIDE { 2 } else { 1 };
        let builder = Builder { width: width / step, height: height / step, bits: format.bits, step };
        if builder.width.min(builder.height) < LEAST_SIDE {
            return None;
        }
        let part = |n: i64| i32::try_from(n).ok().filter(|n| *n > 0);
        let rate =
            part(frame_rate.num).zip(part(frame_rate.den)).map_or(Rational32::new(25, 1), |(num, den)| Rational32::new(num, den));
        let detector = SceneChangeDetector::new(
            (builder.width, builder.height),
            usize::from(format.bits),
            rate,
            ChromaSubsampling::Monochrome,
            LOOK_AHEAD,
            SceneDetectionSpeed::Standard,
            0,
            usize::MAX,
        );
        Some(Self { detector, held: VecDeque::new(), number: 1, last_cut: 0, found: Vec::new(), builder })
    }

    fn push(&mut self, samples: &[T], stride: usize, time: i64) {
        let Some(frame) = self.builder.build(samples, stride) else { return };
        self.held.push_back((time, Arc::new(frame)));
        if self.held.len() == HELD {
            self.decide();
        }
    }

    /// Is the second picture held the first of a scene? Then lets go of the first.
    fn decide(&mut self) {
        let set: Vec<&Arc<Frame<T>>> = self.held.iter().map(|(_, frame)| frame).collect();
        let (is_cut, score) = self.detector.analyze_next_frame(&set, self.number, self.last_cut);
        if is_cut {
            self.last_cut = self.number;
            let times_threshold = score.map_or(1.0, |s| s.forward_adjusted_cost / s.threshold.max(f64::MIN_POSITIVE));
            let strength = 1.0 - LEAST_STRENGTH / times_threshold.max(1.0);
            self.found.push((self.held[1].0, strength));
        }
        self.held.pop_front();
        self.number += 1;
    }

    fn finish(mut self) -> Vec<(i64, f64)> {
        while self.held.len() >= 2 {
            self.decide();
        }
        self.found
    }
}

impl Builder {
    /// A copy of the luma, in half size where pictures are halved.
    fn build<T: Sample>(&self, samples: &[T], stride: usize) -> Option<Frame<T>> {
        let builder = FrameBuilder::new(self.width, self.height, ChromaSubsampling::Monochrome, self.bits)
            .luma_padding_left(PADDING)
            .luma_padding_right(PADDING)
            .luma_padding_top(PADDING)
            .luma_padding_bottom(PADDING);
        let mut frame = builder.build::<T>().ok()?;
        for (y, row) in frame.y_plane.rows_mut().enumerate() {
            let above = samples.get(y * self.step * stride..)?;
            if self.step == 1 {
                row.copy_from_slice(above.get(..self.width)?);
                continue;
            }
            let below = above.get(stride..)?;
            for (x, sample) in row.iter_mut().enumerate() {
                let (a, b) = (above.get(2 * x..2 * x + 2)?, below.get(2 * x..2 * x + 2)?);
                *sample = T::of((a[0].level() + a[1].level() + b[0].level() + b[1].level() + 2) / 4);
            }
        }
        Some(frame)
    }
}
