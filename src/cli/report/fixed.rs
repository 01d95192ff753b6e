//! The ladder that a title would get whatever it shows, and what it would spend.

use crate::plan::narrowband::decide::{CandidateCurve, HullPoint};
use crate::plan::preset::VideoCodec;

/// A rung of the fixed ladder: short side of its picture, pixels, and its rate, kbit/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FixedRung {
    pub short_side: u32,
    pub kbps: f64,
}

/// Rates of the HLS authoring specification for Apple devices, which services took over as they are.
const H265: [(u32, f64); 9] = [
    (1080, 5800.0),
    (1080, 4500.0),
    (720, 3400.0),
    (720, 2400.0),
    (540, 1600.0),
    (432, 900.0),
    (360, 600.0),
    (234, 300.0),
    (234, 145.0),
];
/// The same for H.264.
const H264: [(u32, f64); 9] = [
    (1080, 7800.0),
    (1080, 6000.0),
    (720, 4500.0),
    (720, 3000.0),
    (540, 2000.0),
    (432, 1100.0),
    (360, 730.0),
    (234, 365.0),
    (234, 145.0),
];

/// The fixed ladder of a codec for pictures of that short side: rungs above it are left out. Empty for a codec that has none.
pub(super) fn ladder(codec: VideoCodec, short_side: u32) -> Vec<FixedRung> {
    let rungs: &[(u32, f64)] = match codec {
        VideoCodec::H265 => &H265,
        VideoCodec::H264 => &H264,
        VideoCodec::Av1 => &[],
    };
    let fitting = rungs.iter().filter(|(side, _)| *side <= short_side);
    fitting.map(|(short_side, kbps)| FixedRung { short_side: *short_side, kbps: *kbps }).collect()
}

pub(super) fn total_kbps(rungs: &[FixedRung]) -> f64 {
    rungs.iter().map(|rung| rung.kbps).sum()
}

/// What is expected of a rung of the fixed ladder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Expected {
    /// VMAF-NEG at its size and rate; that of the curve's last point where the rate is beyond it.
    pub vmaf: f64,
    pub beyond: bool,
    /// The rate at which the hull gives that quality, kbit/s, where it gives it.
    pub hull_kbps: Option<f64>,
}

/// By the title's own curves; none where the size did not compete or the rate is below all that is known.
pub(super) fn expected(rung: &FixedRung, candidates: &[CandidateCurve], hull: &[HullPoint]) -> Option<Expected> {
    let size = candidates.iter().find(|curve| curve.size.width.min(curve.size.height) == rung.short_side)?;
    let last = size.points.last()?;
    let beyond = rung.kbps > last.kbps;
    let vmaf = if beyond { last.vmaf } else { quality_at(&size.points, rung.kbps)? };
    Some(Expected { vmaf, beyond, hull_kbps: rate_at(hull, vmaf) })
}

/// Quality at a rate, between points in the logarithm of the rate; none outside them.
pub(super) fn quality_at(points: &[HullPoint], kbps: f64) -> Option<f64> {
    between(points, |point| point.kbps.max(f64::MIN_POSITIVE).ln(), |point| point.vmaf, kbps.max(f64::MIN_POSITIVE).ln())
}

/// Rate at a quality; none outside the points.
pub(super) fn rate_at(points: &[HullPoint], vmaf: f64) -> Option<f64> {
    between(points, |point| point.vmaf, |point| point.kbps.max(f64::MIN_POSITIVE).ln(), vmaf).map(f64::exp)
}

/// `to` where `from` is `at`; the points rise in both.
fn between(points: &[HullPoint], from: impl Fn(&HullPoint) -> f64, to: impl Fn(&HullPoint) -> f64, at: f64) -> Option<f64> {
    let pair = points.windows(2).find(|pair| from(&pair[0]) <= at && at <= from(&pair[1]))?;
    let (low, high) = (from(&pair[0]), from(&pair[1]));
    let part = if high > low { (at - low) / (high - low) } else { 0.0 };
    Some(to(&pair[0]) + part * (to(&pair[1]) - to(&pair[0])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[(f64, f64)]) -> Vec<HullPoint> {
        values.iter().map(|(kbps, vmaf)| HullPoint { size: "720p".into(), kbps: *kbps, vmaf: *vmaf }).collect()
    }

    #[test]
    fn rungs_above_the_source_are_left_out() {
        assert_eq!(ladder(VideoCodec::H265, 2160).len(), 9);
        let below = ladder(VideoCodec::H264, 719);
        assert_eq!(below[0], FixedRung { short_side: 540, kbps: 2000.0 });
        assert_eq!(total_kbps(&below), 2000.0 + 1100.0 + 730.0 + 365.0 + 145.0);
        assert_eq!([ladder(VideoCodec::H265, 192), ladder(VideoCodec::Av1, 1080)], [vec![], vec![]]);
    }

    #[test]
    fn between_points_rates_are_taken_by_ratio_and_outside_nothing_is_said() {
        let line = points(&[(100.0, 60.0), (400.0, 80.0), (800.0, 90.0)]);
        assert!((quality_at(&line, 200.0).unwrap() - 70.0).abs() < 1e-9);
        assert!((rate_at(&line, 70.0).unwrap() - 200.0).abs() < 1e-9);
        assert_eq!((quality_at(&line, 99.0), rate_at(&line, 90.1), quality_at(&line, 800.0)), (None, None, Some(90.0)));
        assert_eq!(quality_at(&points(&[]), 1.0), None);
    }
}
