//! Where in the output each decoded frame belongs.
//!
//! Samples are counted, not dated: as long as a frame's timestamp agrees with the count to within
//! [`JITTER_MS`], it follows the one before without a break, so rounded timestamps make no clicks and add up to no
//! drift. What disagrees by more is a gap (filled with silence) or an overlap (trimmed).

use crate::plan::time::{Rational, rescale};

/// Timestamps may disagree with the count of samples by so much, milliseconds: TS and Matroska round theirs. Viewers
/// accept sound up to 90 ms early and 185 ms late (ITU-R BT.1359-1).
pub const JITTER_MS: i64 = 50;
/// A gap longer than this is a clock that was reset, seconds.
pub const LONGEST_GAP_S: i64 = 3600;
/// So is an overlap longer than this, once sound has begun, seconds.
pub const LONGEST_OVERLAP_S: i64 = 10;
/// How far past its expected end a rendition may run, milliseconds: the source's own last frames may be padded, and in
/// a TS one timestamp stands for all frames of a packet.
pub const OVERRUN_MS: i64 = 2000;

/// What to do with a frame, in input samples: first silence, then the frame's samples `skip..skip + take`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    pub fill: i64,
    pub skip: i64,
    pub take: i64,
    /// The timestamp jumped by so many source ticks, and was taken as if it had not.
    pub jump: Option<i64>,
}

/// Counts the samples of one stream against its timestamps.
pub struct Clock {
    base: Rational,
    /// Source tick of time zero.
    origin: i64,
    /// Added to every timestamp since the last jump.
    shift: i64,
    rate: i64,
    /// Input samples from time zero to the next one.
    next: i64,
    /// Sound has begun.
    begun: bool,
    /// The next frame is put exactly where its timestamp says.
    align: bool,
    /// Input samples after which there should be nothing more, and the rate that is in.
    end: Option<(i64, i64)>,
}

impl Clock {
    /// A clock for timestamps in `base` with time zero at `origin`, ending at `expected` samples of `out_rate`.
    pub fn new(base: Rational, origin: i64, expected: Option<i64>, out_rate: i64) -> Self {
        let end = expected.map(|samples| (samples + out_rate * OVERRUN_MS / 1000, out_rate));
        Self { base, origin, shift: 0, rate: out_rate, next: 0, begun: false, align: true, end }
    }

    /// From here on samples come at this rate.
    pub fn set_rate(&mut self, rate: i64) {
        self.next = rescale(self.next, per(self.rate), per(rate));
        self.rate = rate;
    }

    /// Something was lost: the next frame is put where its timestamp says.
    pub fn lost(&mut self) {
        self.align = true;
    }

    /// Input samples from time zero to the next one, at the present rate.
    pub fn position(&self) -> i64 {
        self.next
    }

    /// The expected end is behind: nothing more will be taken.
    pub fn is_past_end(&self) -> bool {
        self.end().is_some_and(|end| self.next >= end)
    }

    /// Places the next frame of `samples` samples. One without a timestamp follows the one before.
    pub fn place(&mut self, pts: Option<i64>, samples: i64) -> Placed {
        let mut placed = Placed::default();
        let mut off = self.disagreement(pts);
        if let (Some(pts), true) = (pts, self.is_jump(off)) {
            let continued = self.origin + rescale(self.next, per(self.rate), self.base);
            placed.jump = Some(pts.saturating_add(self.shift).saturating_sub(continued));
            self.shift = continued.saturating_sub(pts);
            off = 0;
        }
        let tolerated = if self.align { 0 } else { self.rate * JITTER_MS / 1000 };
        if off > tolerated {
            placed.fill = off;
        } else if off < -tolerated {
            placed.skip = samples.min(-off);
        }
        let room = self.end().map_or(i64::MAX, |end| (end - self.next - placed.fill).max(0));
        placed.take = (samples - placed.skip).min(room);
        self.next += placed.fill + placed.take;
        self.begun |= placed.take > 0;
        // An overlap longer than a frame is trimmed to its very end.
        self.align = if pts.is_some() { placed.skip == samples } else { self.align && !self.begun };
        placed
    }

    /// By how many samples the timestamp is later than the count.
    fn disagreement(&self, pts: Option<i64>) -> i64 {
        let Some(pts) = pts else { return 0 };
        let ticks = pts.saturating_add(self.shift).saturating_sub(self.origin);
        // More than a day from the count is a jump whatever the number, and would not fit when rescaled.
        let day = rescale(24 * 3600, Rational::new(1, 1), self.base);
        let count = rescale(self.next, per(self.rate), self.base);
        rescale(ticks.clamp(count - day, count + day), self.base, per(self.rate)) - self.next
    }

    fn is_jump(&self, off: i64) -> bool {
        let longest_overlap = if self.begun { LONGEST_OVERLAP_S } else { LONGEST_GAP_S };
        let past_end = off > self.rate * JITTER_MS / 1000 && self.end().is_some_and(|end| self.next + off > end);
        off > LONGEST_GAP_S * self.rate || off < -longest_overlap * self.rate || past_end
    }

    fn end(&self) -> Option<i64> {
        self.end.map(|(samples, rate)| rescale(samples, per(rate), per(self.rate)))
    }
}

/// One sample at that rate, seconds.
pub fn per(rate: i64) -> Rational {
    Rational::new(1, rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Rational = Rational::new(1, 1000);

    fn at_48k(expected: Option<i64>) -> Clock {
        Clock::new(MILLISECOND, 0, expected, 48_000)
    }

    fn whole(take: i64) -> Placed {
        Placed { take, ..Placed::default() }
    }

    #[test]
    fn rounded_timestamps_never_break_the_sound_however_long_it_is() {
        let mut clock = at_48k(None);
        for frame in 0..1_000_000i64 {
            let rounded = (frame * 1024 * 1000 + 24_000) / 48_000;
            assert_eq!(clock.place(Some(rounded), 1024), whole(1024));
        }
        assert_eq!(clock.position(), 1_024_000_000);
    }

    #[test]
    fn a_slow_drift_is_put_right_once_it_is_past_the_threshold() {
        let mut clock = at_48k(None);
        // The source's clock runs a thousandth slow: each second of samples lasts 1001 ms.
        let fills: Vec<i64> = (0..101).map(|second| clock.place(Some(second * 1001), 48_000).fill).filter(|&n| n > 0).collect();
        assert_eq!(fills, [51 * 48]);
        assert_eq!(clock.position(), 101 * 48_000 + 51 * 48);
    }

    #[test]
    fn a_late_start_is_filled_and_an_early_one_trimmed_to_the_sample() {
        let mut late = at_48k(None);
        assert_eq!(late.place(Some(30), 1024), Placed { fill: 1440, take: 1024, ..Placed::default() });
        let mut early = at_48k(None);
        assert_eq!(early.place(Some(-30), 1024), Placed { skip: 1024, ..Placed::default() });
        assert_eq!(early.place(Some(-9), 1024), Placed { skip: 432, take: 592, ..Placed::default() });
        assert_eq!(early.place(Some(13), 1024), whole(1024));
    }

    #[test]
    fn a_gap_is_filled_and_an_overlap_trimmed_to_its_end() {
        let mut clock = at_48k(None);
        clock.place(Some(0), 48_000);
        assert_eq!(clock.place(Some(1_500), 48_000), Placed { fill: 24_000, take: 48_000, ..Placed::default() });
        assert_eq!(clock.place(Some(2_400), 4_800), Placed { skip: 4_800, ..Placed::default() });
        assert_eq!(clock.place(Some(2_490), 4_800), Placed { skip: 480, take: 4_320, ..Placed::default() });
        assert_eq!(clock.position(), 48_000 * 5 / 2 + 4_320);
    }

    #[test]
    fn after_a_loss_the_next_frame_is_exactly_in_its_place() {
        let mut clock = at_48k(None);
        clock.place(Some(0), 960);
        clock.lost();
        assert_eq!(clock.place(Some(40), 960), Placed { fill: 960, take: 960, ..Placed::default() });
    }

    #[test]
    fn a_clock_that_was_reset_is_continued() {
        let mut clock = at_48k(None);
        clock.place(Some(0), 48_000 * 60);
        assert_eq!(clock.place(Some(0), 48_000), Placed { take: 48_000, jump: Some(-60_000), ..Placed::default() });
        assert_eq!(clock.place(Some(1_000), 48_000), whole(48_000));
        let far = clock.place(Some(i64::MAX - 1), 48_000);
        assert_eq!((far.fill, far.take, far.jump.is_some()), (0, 48_000, true));
        assert_eq!(clock.place(None, 48_000), whole(48_000));
    }

    #[test]
    fn nothing_runs_far_past_the_expected_end() {
        let mut clock = at_48k(Some(48_000));
        assert_eq!(clock.place(Some(0), 47_000), whole(47_000));
        // Silence up to a time past the end would be nobody's sound.
        assert!(clock.place(Some(30_000), 480).jump.is_some());
        assert_eq!(clock.place(None, 96_000), whole(96_000));
        assert_eq!(clock.place(None, 48_000), whole(48_000 + 96_000 - 47_480 - 96_000));
        assert!(clock.is_past_end());
    }

    #[test]
    fn a_change_of_rate_keeps_the_time() {
        let mut clock = at_48k(None);
        clock.set_rate(44_100);
        clock.place(Some(0), 44_100);
        clock.set_rate(48_000);
        assert_eq!(clock.place(Some(1_000), 480), whole(480));
        assert_eq!(clock.position(), 48_480);
    }
}
