//! How busy a block of the original is, in space and time: what hides errors.

use super::sample::Sample;
use crate::quality::picture::View;

/// Motion counts so much more than detail.
const MOTION_WEIGHT: f64 = 2.0;

/// How activity is seen.
pub(super) struct Activity {
    /// On sums of 2x2 samples.
    pub coarse: bool,
    /// Motion is the second difference in time, not the first.
    pub second_difference: bool,
}

/// The luma of the originals before, the last one first. Before the first, they are black: as nothing was there.
pub(super) struct History<T> {
    frames: [Vec<T>; 2],
    width: usize,
}

impl<T: Sample> History<T> {
    pub fn new(width: usize, height: usize) -> Self {
        Self { frames: [vec![T::default(); width * height], vec![T::default(); width * height]], width }
    }

    /// The next frame is compared with this one.
    pub fn remember(&mut self, luma: &View<'_, T>) {
        self.frames.swap(0, 1);
        for (y, kept) in self.frames[0].chunks_exact_mut(self.width).enumerate() {
            kept.copy_from_slice(luma.row(y));
        }
    }

    fn row(&self, age: usize, y: usize) -> &[T] {
        &self.frames[age][y * self.width..][..self.width]
    }
}

impl Activity {
    /// The square root of the activity of the block at `(x, y)`: mean absolute detail and motion. `None` when all of the
    /// block is border, where no detail can be seen.
    pub fn of<T: Sample>(
        &self,
        luma: &View<'_, T>,
        history: &History<T>,
        (x, y): (usize, usize),
        side: usize,
    ) -> Option<f64> {
        let (end_x, end_y) = ((x + side).min(luma.width), (y + side).min(luma.height));
        // The filter reaches so far: it is applied where it does not leave the picture.
        let reach = if self.coarse { 2 } else { 1 };
        let (first_x, first_y) = (x.max(reach), y.max(reach));
        let (last_x, last_y) = (end_x.min(luma.width.saturating_sub(reach)), end_y.min(luma.height.saturating_sub(reach)));
        if first_x >= last_x || first_y >= last_y {
            return None;
        }
        let detail = if self.coarse {
            coarse_detail(luma, first_x..last_x, first_y..last_y)
        } else {
            (first_y..last_y).map(|y| fine_detail(luma, y, first_x, last_x)).sum()
        };
        let motion: u64 = if self.coarse {
            (y..end_y - 1).step_by(2).map(|y| self.coarse_motion(luma, history, y, x..end_x)).sum()
        } else {
            (y..end_y).map(|y| self.fine_motion(luma, history, y, x..end_x)).sum()
        };
        let detail = detail as f64 / ((last_x - first_x) * (last_y - first_y)) as f64;
        let motion = motion as f64 / ((end_x - x) * (end_y - y)) as f64;
        Some(detail + MOTION_WEIGHT * motion)
    }

    fn fine_motion<T: Sample>(&self, luma: &View<'_, T>, history: &History<T>, y: usize, xs: std::ops::Range<usize>) -> u64 {
        let (now, before) = (&luma.row(y)[xs.clone()], &history.row(0, y)[xs.clone()]);
        if self.second_difference {
            T::second_difference(now, before, &history.row(1, y)[xs])
        } else {
            T::difference(now, before)
        }
    }

    /// Of the rows `y` and `y + 1`.
    fn coarse_motion<T: Sample>(&self, luma: &View<'_, T>, history: &History<T>, y: usize, xs: std::ops::Range<usize>) -> u64 {
        let now = [&luma.row(y)[xs.clone()], &luma.row(y + 1)[xs.clone()]];
        let before = [&history.row(0, y)[xs.clone()], &history.row(0, y + 1)[xs.clone()]];
        if self.second_difference {
            let older = [&history.row(1, y)[xs.clone()], &history.row(1, y + 1)[xs]];
            T::coarse_second_difference(now, before, older)
        } else {
            T::coarse_difference(now, before)
        }
    }
}

fn fine_detail<T: Sample>(luma: &View<'_, T>, y: usize, first_x: usize, last_x: usize) -> u64 {
    let reached = first_x - 1..last_x + 1;
    T::high_pass([&luma.row(y - 1)[reached.clone()], &luma.row(y)[reached.clone()], &luma.row(y + 1)[reached]])
}

/// Every other row and column, as the sums overlap. A row or column that has no partner is left out.
fn coarse_detail<T: Sample>(luma: &View<'_, T>, xs: std::ops::Range<usize>, ys: std::ops::Range<usize>) -> u64 {
    let columns = (xs.end - xs.start) & !1;
    if columns == 0 {
        return 0;
    }
    let reached = xs.start - 2..xs.start + columns + 2;
    let rows = |y: usize| std::array::from_fn(|n| &luma.row(y + n - 2)[reached.clone()]);
    (ys.start..ys.end - 1).step_by(2).map(|y| T::coarse_high_pass(rows(y))).sum()
}
