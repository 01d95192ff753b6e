//! What the fixed ladder would spend on a title, and how good it would be.

use crate::plan::narrowband::decide::{CandidateCurve, HullPoint};

pub(super) use crate::plan::narrowband::standard::{FixedRung, ladder};

pub(super) fn total_kbps(rungs: &[FixedRung]) -> f64 {
    rungs.iter().map(|rung| rung.kbps).sum()
}

/// What is expected of a rung of the fixed ladder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Expected {
    /// VMAF-NEG at its size and rate; that of the curve's last point where the rate is beyond it.
    pub vmaf: f64,
    pub beyond: bool,
    /// The lowest rate at which a size gives that quality, kbit/s, where one gives it.
    pub best_kbps: Option<f64>,
}

/// By the title's own curves; none where the size did not compete or the rate is below all that is known.
pub(super) fn expected(rung: &FixedRung, candidates: &[CandidateCurve]) -> Option<Expected> {
    let size = candidates.iter().find(|curve| curve.size.width.min(curve.size.height) == rung.short_side)?;
    let last = size.points.last()?;
    let beyond = rung.kbps > last.kbps;
    let vmaf = if beyond { last.vmaf } else { quality_at(&size.points, rung.kbps)? };
    let best_kbps = candidates.iter().filter_map(|curve| rate_at(&curve.points, vmaf)).reduce(f64::min);
    Some(Expected { vmaf, beyond, best_kbps })
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
    fn between_points_rates_are_taken_by_ratio_and_outside_nothing_is_said() {
        let line = points(&[(100.0, 60.0), (400.0, 80.0), (800.0, 90.0)]);
        assert!((quality_at(&line, 200.0).unwrap() - 70.0).abs() < 1e-9);
        assert!((rate_at(&line, 70.0).unwrap() - 200.0).abs() < 1e-9);
        assert_eq!((quality_at(&line, 99.0), rate_at(&line, 90.1), quality_at(&line, 800.0)), (None, None, Some(90.0)));
        assert_eq!(quality_at(&points(&[]), 1.0), None);
    }
}
