//! Picture sizes compete: the title's rate and quality at each, and the upper convex hull of them all.
//!
//! At each size the title is taken at its own best, all chunks at one slope, for a row of slopes; that is a line of rate
//! against quality. A rung has the size that gives most quality for its rate: it is on the lines' upper envelope. That is more
//! than the hull, which spans what lies between two of its vertices: where quality falls off at low rates, all sizes between
//! the largest and the smallest can lie under one chord, and still each be the best there is. The hull tells where more bits
//! still help, and how far down there is anything.

use super::allocate::{crf_at_slope, ln_multiplier_at};
use super::curve::Curve;
use super::facts::ChunkFacts;
use super::{BEST_VMAF, rounded};
use serde::{Deserialize, Serialize};

/// Short sides that a rung may have besides the display's own, pixels.
const SHORT_SIDES: [u32; 6] = [1080, 720, 540, 432, 360, 234];
/// A size that is nearer than this to the display's own is not one apart, percent of the short side.
const NEAR_DISPLAY_PERCENT: u32 = 118;
/// Slopes at which a line is drawn: about a fifth of an octave of rate apart.
const SLOPES: usize = 33;
/// A larger picture that costs no more than this for the same quality is preferred: the difference is within the
/// curves' error, and the larger one suits larger screens.
const AS_GOOD: f64 = 1.1;
/// Units of shortfall in sums: millionths of a VMAF point.
const SHORTFALL_UNITS: f64 = 1e6;

/// A picture size that rungs may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// By its short side: `720p`.
    pub name: String,
    pub width: u32,
    pub height: u32,
}

/// The sizes that fit a display, largest first: its own, and the usual ones below it in its shape. None is larger.
pub fn candidates(display_width: u32, display_height: u32) -> Vec<Candidate> {
    // 4:2:0 has no odd sides.
    let (width, height) = (display_width.max(2) / 2 * 2, display_height.max(2) / 2 * 2);
    let (short, long) = (width.min(height), width.max(height));
    let own = Candidate { name: format!("{short}p"), width, height };
    let smaller =
        SHORT_SIDES.into_iter().filter(|side| u64::from(*side) * u64::from(NEAR_DISPLAY_PERCENT) <= u64::from(short) * 100);
    let scaled = smaller.map(|side| {
        let other = even(u64::from(long) * u64::from(side), u64::from(short));
        let (width, height) = if width >= height { (other, side) } else { (side, other) };
        Candidate { name: format!("{side}p"), width, height }
    });
    std::iter::once(own).chain(scaled).collect()
}

/// The even number nearest to `num / den`, the smaller of two; at least 2.
fn even(num: u64, den: u64) -> u32 {
    u32::try_from((num + den - 1) / (2 * den) * 2).unwrap_or(u32::MAX - 1).max(2)
}

/// A rate and the quality it gives, over the title.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// Index of the candidate.
    pub candidate: usize,
    pub rate_bps: f64,
    /// Mean VMAF-NEG by duration.
    pub vmaf: f64,
}

impl OperatingPoint {
    fn ln_rate(&self) -> f64 {
        libm::log(self.rate_bps)
    }
}

/// All candidates' lines, and their hull.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hull {
    /// For each candidate its points, by rising rate.
    pub lines: Vec<Vec<OperatingPoint>>,
    /// Vertices of the upper convex hull over (ln rate, quality), by rising rate.
    pub hull: Vec<OperatingPoint>,
}

impl Hull {
    /// `curves`: for each candidate, largest first, the curve of each chunk; `believed`: each chunk's CRFs.
    pub fn new(chunks: &[ChunkFacts], curves: &[Vec<Curve>], believed: &[(f64, f64)]) -> Self {
        let lines: Vec<Vec<OperatingPoint>> =
            curves.iter().enumerate().map(|(n, curves)| line(n, chunks, curves, believed)).collect();
        let hull = upper_hull(lines.iter().flatten().copied().collect());
        Self { lines, hull }
    }

    /// The same, of these sizes alone.
    pub fn among(&self, sizes: &[bool]) -> Self {
        let line = |(line, is_among): (&Vec<OperatingPoint>, &bool)| if *is_among { line.clone() } else { Vec::new() };
        Self { lines: self.lines.iter().zip(sizes).map(line).collect(), hull: self.hull.clone() }
    }

    /// Which size gives this quality at the lowest rate, and at which; sizes before `largest` are left out. None where no
    /// size reaches it.
    pub fn at_quality(&self, vmaf: f64, largest: usize) -> Option<OperatingPoint> {
        let reaching = self.lines.iter().skip(largest).filter_map(|line| point_at_quality(line, vmaf));
        reaching.reduce(|best, next| if next.rate_bps * AS_GOOD < best.rate_bps { next } else { best })
    }

    /// Which size gives most quality at this rate, held to what there is.
    pub fn at_rate(&self, rate_bps: f64, largest: usize) -> Option<OperatingPoint> {
        let at = self.lines.iter().skip(largest).filter_map(|line| point_at_rate(line, rate_bps));
        let best = at.reduce(|best, next| if next.vmaf > best.vmaf { next } else { best })?;
        // The same preference as for a quality: the larger picture where it is as good.
        self.at_quality(best.vmaf, largest).or(Some(best))
    }

    /// The highest quality from which a doubled rate still gains `least_gain` VMAF points, going up the hull.
    pub fn ceiling(&self, least_gain: f64) -> Option<f64> {
        let steep = |pair: &&[OperatingPoint]| {
            let octaves = (pair[1].ln_rate() - pair[0].ln_rate()) / std::f64::consts::LN_2;
            pair[1].vmaf - pair[0].vmaf >= least_gain * octaves
        };
        let last = self.hull.windows(2).take_while(steep).last().map(|pair| pair[1]);
        last.or(self.hull.first().copied()).map(|point| point.vmaf)
    }

    /// Lowest rate of any size.
    pub fn lowest_rate_bps(&self) -> Option<f64> {
        self.hull.first().map(|point| point.rate_bps)
    }
}

/// The title at one size: all chunks at one slope, for slopes from the flattest to the steepest there are.
fn line(candidate: usize, chunks: &[ChunkFacts], curves: &[Curve], believed: &[(f64, f64)]) -> Vec<OperatingPoint> {
    if curves.is_empty() {
        return Vec::new();
    }
    let ranges = || curves.iter().zip(believed);
    let flattest = ranges().map(|(curve, crfs)| ln_multiplier_at(curve, crfs.1)).fold(f64::MAX, f64::min);
    let steepest = ranges().map(|(curve, crfs)| ln_multiplier_at(curve, crfs.0)).fold(f64::MIN, f64::max);
    let weight: u64 = chunks.iter().map(ChunkFacts::weight_us).sum();
    let mut points: Vec<OperatingPoint> = (0..SLOPES)
        .map(|n| {
            let ln_multiplier = flattest + (steepest - flattest) * n as f64 / (SLOPES - 1) as f64;
            // Whole numbers: the same sum in any order.
            let (mut bits, mut shortfall) = (0_u128, 0_u128);
            for (chunk, (curve, crfs)) in chunks.iter().zip(ranges()) {
                let crf = crf_at_slope(curve, ln_multiplier).clamp(crfs.0, crfs.1);
                bits += u128::from((curve.rate_bps(crf) * chunk.seconds()).round() as u64);
                let missing = (BEST_VMAF - curve.quality(crf)) * SHORTFALL_UNITS;
                shortfall += u128::from(missing.round() as u64) * u128::from(chunk.weight_us());
            }
            let rate_bps = (bits as f64 * 1e6 / weight.max(1) as f64).max(1.0);
            let vmaf = BEST_VMAF - shortfall as f64 / weight.max(1) as f64 / SHORTFALL_UNITS;
            OperatingPoint { candidate, rate_bps: rounded(rate_bps, 0), vmaf: rounded(vmaf, 4) }
        })
        .collect();
    points.dedup();
    points
}

/// Vertices of the upper convex hull over (ln rate, quality) that rise, by rising rate (Andrew's monotone chain).
pub(super) fn upper_hull(mut points: Vec<OperatingPoint>) -> Vec<OperatingPoint> {
    points.sort_by(|a, b| a.rate_bps.total_cmp(&b.rate_bps).then(b.vmaf.total_cmp(&a.vmaf)).then(a.candidate.cmp(&b.candidate)));
    let mut hull: Vec<OperatingPoint> = Vec::new();
    for point in points {
        if hull.last().is_some_and(|last| point.vmaf <= last.vmaf) {
            continue;
        }
        while let [.., before, last] = hull[..] {
            let rise = (last.vmaf - before.vmaf) * (point.ln_rate() - before.ln_rate());
            let over = (point.vmaf - before.vmaf) * (last.ln_rate() - before.ln_rate());
            if rise > over {
                break;
            }
            hull.pop();
        }
        hull.push(point);
    }
    hull
}

/// Where a line passes a quality, between its points in ln rate; none where it ends below. A line that begins above it
/// passes at its lowest rate.
fn point_at_quality(line: &[OperatingPoint], vmaf: f64) -> Option<OperatingPoint> {
    let after = line.partition_point(|point| point.vmaf < vmaf);
    let above = line.get(after)?;
    let Some(below) = after.checked_sub(1).map(|n| &line[n]) else { return Some(*above) };
    let part = (vmaf - below.vmaf) / (above.vmaf - below.vmaf);
    let ln_rate = below.ln_rate() + part * (above.ln_rate() - below.ln_rate());
    Some(OperatingPoint { rate_bps: libm::exp(ln_rate), vmaf, ..*above })
}

/// Where a line passes a rate; its last point where it ends below, none where it begins above.
fn point_at_rate(line: &[OperatingPoint], rate_bps: f64) -> Option<OperatingPoint> {
    let after = line.partition_point(|point| point.rate_bps < rate_bps);
    let Some(above) = line.get(after) else { return line.last().copied() };
    let Some(below) = after.checked_sub(1).map(|n| &line[n]) else {
        return (above.rate_bps <= rate_bps).then_some(*above);
    };
    let part = (libm::log(rate_bps) - below.ln_rate()) / (above.ln_rate() - below.ln_rate());
    Some(OperatingPoint { rate_bps, vmaf: below.vmaf + part * (above.vmaf - below.vmaf), ..*above })
}

#[cfg(test)]
mod tests;
