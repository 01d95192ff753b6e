//! What is done for a ladder beside encoding it, by the pixels it takes: the same on every machine, whatever runs there.
//!
//! One pixel encoded as the ladder's rungs are is the measure. In brackets what was measured of 15 titles of 150 to 450 pictures,
//! x265 `fast` and x264 `slow`.

/// A pixel of a probe: the fast encode of it, its decoding, every third one scored, and its part of decoding the source and of
/// looking at it (0.9 to 2.8, of 20 titles half 1.1 to 1.4).
const OF_PROBE: f64 = 1.25;
/// A pixel of a calibration: its encode, one that starts anew, scored at display size (1.8 to 2.9).
const OF_CALIBRATION: f64 = 2.4;
/// A pixel of the picture as shown beside which one of the top rung is scored (0.7 to 1.1).
const OF_SCORE: f64 = 0.88;
/// A pixel of the top rung that is encoded once more: it has more bits than the ladder's others, and the source is decoded and
/// the picture measured for it alone (1.3 to 1.9).
pub const OF_REPAIR: f64 = 1.5;

/// What is done of a title, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Pixels of the ladder: all rungs, all pictures.
    pub ladder: f64,
    pub probed: f64,
    pub calibrated: f64,
    /// Pixels as shown of the pictures of the top rung that are scored.
    pub scored: f64,
}

impl Work {
    /// Analysis, calibration and verification, as a share of the ladder's own work.
    pub fn beside(&self) -> f64 {
        let done = self.probed * OF_PROBE + self.calibrated * OF_CALIBRATION + self.scored * OF_SCORE;
        done / self.ladder.max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_beside_a_ladder_is_a_share_of_it() {
        // 250 pictures of 1280x720 in rungs of 4 megapixels, probed at 480x270 once and a half.
        let work = Work {
            ladder: 250.0 * 4e6,
            probed: 250.0 * 1.5 * 129_600.0,
            calibrated: 24.0 * 1.4e6,
            scored: 250.0 / 11.0 * 921_600.0,
        };
        assert!((work.beside() - (0.061 + 0.081 + 0.018)).abs() < 0.001, "{}", work.beside());
        assert_eq!(Work::default().beside(), 0.0);
    }
}
