//! XPSNR: the squared error weighted by how well the eye would see it there.
//!
//! C. Helmrich, M. Siekmann, S. Becker, S. Bosse, D. Marpe, T. Wiegand, "XPSNR: A Low-Complexity Extension of the
//! Perceptually Weighted Peak Signal-to-Noise Ratio for High-Resolution Video Quality Assessment", ICASSP 2020, and the same
//! authors' JVET-H0047. In short, for each frame and each square block `k` of it:
//!
//! * activity `a_k` = (mean |high-passed original| + 2 x mean |difference to the original before|)^2, not below
//!   (2^(bits-6))^2. From 32 frames a second on, the difference is the second one, over three originals;
//! * weight `w_k` = sqrt(a_pic / a_k), where `a_pic` stands for an average picture of this size and depth;
//! * the error is the sum of `w_k` x squared error of the block. Chroma takes the weights of the luma above it;
//! * XPSNR = 10 log10(peak^2 x samples / error).
//!
//! Above 2048x1152 samples, activity is seen on sums of 2x2 samples: what is finer is not seen at such a resolution. Up to
//! 640x480, a block weighs no more than the heaviest block beside or above it. Pictures so small that a block would
//! be less than 4 samples wide are not weighted at all.
//!
//! The authors' program takes errors as integers; here they are not rounded. That shows above 90 dB.

mod activity;
mod sample;

use super::error::QualityError;
use super::picture::{Format, Planes, View};
use super::score::FrameError;
use crate::plan::time::Rational;
use activity::{Activity, History};
use sample::Sample;

/// Samples of the picture for which a block of 128x128 was chosen.
const UHD_SAMPLES: f64 = 3840.0 * 2160.0;
/// The side of a block is a multiple of so many samples.
const BLOCK_STEP: f64 = 4.0;
/// Pictures with more samples are looked at in sums of 2x2.
const MOST_FINE_SAMPLES: usize = 2048 * 1152;
/// Pictures with no more samples have their weights smoothed.
const MOST_SMOOTHED_SAMPLES: usize = 640 * 480;
/// From this rate on, motion is the second difference, frames a second.
const SECOND_DIFFERENCE_RATE: i64 = 32;

/// Scores pairs of pictures.
pub struct Xpsnr {
    judge: Judge,
    format: Format,
    every: u64,
    pushed: u64,
    errors: Vec<FrameError>,
}

/// By what the samples are.
enum Judge {
    Bytes(Weigher<u8>),
    Words(Weigher<u16>),
}

impl Xpsnr {
    /// A measurement of pictures of one format at that frame rate. One picture in `every` is scored, from the first on; the
    /// originals of the others must be given all the same, as motion is seen between neighbours.
    ///
    /// # Errors
    /// Unsuitable: a format that is not measured, a frame rate that is none, or no picture is to be scored.
    pub fn new(format: Format, frame_rate: Rational, every: u32) -> Result<Self, QualityError> {
        format.check()?;
        if every == 0 || !frame_rate.is_positive() {
            return Err(QualityError::Unsuitable("no picture is to be scored, or there is no frame rate".into()));
        }
        let second = frame_rate.num / frame_rate.den >= SECOND_DIFFERENCE_RATE;
        let judge = match format.bits {
            8 => Judge::Bytes(Weigher::new(&format, second)),
            _ => Judge::Words(Weigher::new(&format, second)),
        };
        Ok(Self { judge, format, every: u64::from(every), pushed: 0, errors: Vec::new() })
    }

    /// Takes the next pair.
    ///
    /// # Errors
    /// Planes: they do not hold a picture of the format.
    pub fn push(&mut self, reference: &Planes<'_>, distorted: &Planes<'_>) -> Result<(), QualityError> {
        let is_scored = self.pushed.is_multiple_of(self.every);
        let format = &self.format;
        let error = match &mut self.judge {
            Judge::Bytes(weigher) => weigher.take(&reference.bytes(format)?, &distorted.bytes(format)?, is_scored),
            Judge::Words(weigher) => weigher.take(&reference.words(format)?, &distorted.words(format)?, is_scored),
        };
        self.errors.extend(error);
        self.pushed += 1;
        Ok(())
    }

    /// The errors of the scored pictures, in sequence.
    pub fn finish(self) -> Vec<FrameError> {
        self.errors
    }
}

/// Blocks of a picture.
struct Grid {
    /// Side of a block, luma samples; 0 where nothing is weighted.
    side: usize,
    columns: usize,
    rows: usize,
}

impl Grid {
    fn of(width: usize, height: usize) -> Self {
        let share = (width * height) as f64 / UHD_SAMPLES;
        let side = (BLOCK_STEP * (32.0 * share.sqrt() + 0.5).floor()) as usize;
        let blocks = |samples: usize| if side == 0 { 0 } else { samples.div_ceil(side) };
        Self { side, columns: blocks(width), rows: blocks(height) }
    }
}

/// Everything about one measurement, for one kind of samples.
struct Weigher<T> {
    grid: Grid,
    activity: Activity,
    history: History<T>,
    /// Square root of the activity of an average picture.
    average: f64,
    /// Of the activity of a block.
    least: f64,
    smoothed: bool,
    peak: f64,
    weights: Vec<f64>,
}

impl<T: Sample> Weigher<T> {
    fn new(format: &Format, second_difference: bool) -> Self {
        let (width, height) = format.plane(0);
        let grid = Grid::of(width, height);
        let samples = width * height;
        let bits = f64::from(format.bits);
        // a_pic = 2^(2 bits - 5), for a picture of UHD size; it grows as pictures shrink.
        let share = (samples as f64 / UHD_SAMPLES).max(1e-5);
        Self {
            activity: Activity { coarse: samples > MOST_FINE_SAMPLES, second_difference },
            history: History::new(width, height),
            average: (16.0 * (2.0 * bits - 9.0).exp2() / share.sqrt()).sqrt(),
            least: (bits - 6.0).exp2(),
            smoothed: samples <= MOST_SMOOTHED_SAMPLES,
            peak: f64::from(format.peak()),
            weights: vec![1.0; grid.columns * grid.rows],
            grid,
        }
    }

    /// Takes a pair in; its error, when it is to be scored.
    fn take(&mut self, reference: &[View<'_, T>; 3], distorted: &[View<'_, T>; 3], is_scored: bool) -> Option<FrameError> {
        let error = is_scored.then(|| {
            self.weigh(&reference[0]);
            FrameError(std::array::from_fn(|n| self.error(&reference[n], &distorted[n], &reference[0])))
        });
        self.history.remember(&reference[0]);
        error
    }

    /// The weights of all blocks of the original.
    fn weigh(&mut self, luma: &View<'_, T>) {
        let Grid { side, columns, rows } = self.grid;
        for row in 0..rows {
            for column in 0..columns {
                let activity = self.activity.of(luma, &self.history, (column * side, row * side), side);
                // A block without a sample inside the border of the picture has no activity: it counts plainly.
                let weight = activity.map_or(1.0, |activity| 1.0 / activity.max(self.least));
                self.weights[row * columns + column] = weight;
            }
        }
        if self.smoothed {
            smooth(&mut self.weights, columns);
        }
    }

    /// The weighted error of one plane, as a share of the worst.
    fn error(&self, reference: &View<'_, T>, distorted: &View<'_, T>, luma: &View<'_, T>) -> f64 {
        let worst = (reference.width * reference.height) as f64 * self.peak * self.peak;
        let Grid { side, columns, rows } = self.grid;
        if side == 0 {
            return squared_error(reference, distorted, 0..reference.width, 0..reference.height) as f64 / worst;
        }
        let (across, down) = (side * reference.width / luma.width, side * reference.height / luma.height);
        let mut sum = 0.0;
        for row in 0..rows {
            let ys = row * down..((row + 1) * down).min(reference.height);
            for column in 0..columns {
                let xs = column * across..((column + 1) * across).min(reference.width);
                let error = squared_error(reference, distorted, xs, ys.clone());
                sum += error as f64 * self.weights[row * columns + column];
            }
        }
        sum * self.average / worst
    }
}

fn squared_error<T: Sample>(
    reference: &View<'_, T>,
    distorted: &View<'_, T>,
    xs: std::ops::Range<usize>,
    ys: std::ops::Range<usize>,
) -> u64 {
    if xs.is_empty() {
        return 0;
    }
    ys.map(|y| T::squared_error(&reference.row(y)[xs.clone()], &distorted.row(y)[xs.clone()])).sum()
}

/// A lone quiet block amid busy ones would weigh too much: each weighs at most as much as the heaviest of the ones to its
/// left, to its right and above. Those before it are smoothed already.
fn smooth(weights: &mut [f64], columns: usize) {
    for n in 0..weights.len() {
        let column = n % columns;
        let left = (column > 0).then(|| weights[n - 1]);
        let right = (column + 1 < columns).then(|| weights[n + 1]);
        let above = (n >= columns).then(|| weights[n - columns]);
        if let Some(most) = [left, right, above].into_iter().flatten().reduce(f64::max) {
            weights[n] = weights[n].min(most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_grow_with_the_picture() {
        let side = |width, height| Grid::of(width, height).side;
        assert_eq!(side(3840, 2160), 128);
        assert_eq!(side(1920, 1080), 64);
        assert_eq!(side(1280, 720), 44);
        assert_eq!(side(416, 240), 16);
        assert_eq!(side(64, 64), 4);
        assert_eq!(side(40, 30), 0, "so small a picture is not weighted");
        let grid = Grid::of(161, 121);
        assert_eq!((grid.side, grid.columns, grid.rows), (8, 21, 16));
    }

    #[test]
    fn a_lone_quiet_block_is_held_down_by_its_neighbours() {
        let mut weights = [1.0, 9.0, 2.0, 3.0, 1.0, 8.0];
        smooth(&mut weights, 3);
        assert_eq!(weights, [1.0, 2.0, 2.0, 1.0, 1.0, 2.0]);
        let mut alone = [5.0];
        smooth(&mut alone, 1);
        assert_eq!(alone, [5.0]);
    }

    #[test]
    fn a_measurement_of_nothing_is_refused() {
        let format = Format { width: 64, height: 64, bits: 8 };
        for (rate, every) in [(Rational::new(0, 1), 1), (Rational::new(25, 0), 1), (Rational::new(25, 1), 0)] {
            assert!(matches!(Xpsnr::new(format, rate, every), Err(QualityError::Unsuitable(_))));
        }
    }
}
