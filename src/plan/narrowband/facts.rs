//! What analysis found of a title: the input of every decision.

use super::super::preset::VideoCodec;
use super::curve::{LEAST_LOSS, LOST_VMAF};
use super::{loss_of, quality_of};
use serde::{Deserialize, Serialize};

/// All that the decision may know of a title.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TitleFacts {
    pub codec: VideoCodec,
    /// Size at which the title is shown, in square pixels, turned: no rung is larger.
    pub display_width: u32,
    pub display_height: u32,
    /// Size at which chunks were probed.
    pub probe_width: u32,
    pub probe_height: u32,
    /// In the order they are shown.
    pub chunks: Vec<ChunkFacts>,
    /// Encodes of chosen chunks at the final preset; empty before calibration.
    #[serde(default)]
    pub calibration: Vec<CalibrationPoint>,
}

/// One chunk, as its analysis found it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChunkFacts {
    pub frames: u64,
    /// Seconds; positive.
    pub duration_s: f64,
    /// Its first frame begins a scene: quality may change there unseen.
    pub starts_on_cut: bool,
    /// Fast encodes at the probe size, in any order; none where probing failed.
    pub probes: Vec<ProbePoint>,
    /// What scaling alone does to the chunk, for any of the smaller sizes; none where that was not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scaled: Vec<ScaledPoint>,
}

/// A chunk scaled to a size and back to the display's, and not encoded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScaledPoint {
    pub width: u32,
    pub height: u32,
    /// Mean over the scored frames, 0 to 100.
    pub vmaf_neg: f64,
}

impl ChunkFacts {
    /// Weight of the chunk in means over the title, whole microseconds. At least 1, whatever the file says.
    pub fn weight_us(&self) -> u64 {
        // A float that is not a number becomes 0, one too large the largest.
        ((self.duration_s * 1e6).round() as u64).clamp(1, LONGEST_CHUNK_US)
    }

    /// Seconds by which rates are reckoned: those of the weight.
    pub fn seconds(&self) -> f64 {
        self.weight_us() as f64 / 1e6
    }
}

/// No chunk is believed to be longer, microseconds: a week, the longest title there is.
const LONGEST_CHUNK_US: u64 = 7 * 24 * 3600 * 1_000_000;

/// One encode of a chunk, scored.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbePoint {
    pub crf: f64,
    /// Size of the coded pictures, bits, without container.
    pub bits: u64,
    /// Mean over the scored frames, 0 to 100, against the chunk at the size it was encoded in.
    pub vmaf_neg: f64,
}

/// One encode of the beginning of a chunk, or of all of it, with the rung's own preset and picture size, scored at display
/// size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationPoint {
    /// Index into [`TitleFacts::chunks`].
    pub chunk: usize,
    pub width: u32,
    pub height: u32,
    /// How much of the title the chunk stands for ([`super::stratify`]); positive.
    pub weight: f64,
    pub point: ProbePoint,
    /// The same pictures with the probes' settings; absent where all of the chunk was encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<ChunkFacts>,
}

/// Part of its own growth of loss that a chunk keeps, of which only a part was compared.
const OWN_GROWTH: f64 = 0.5;

/// Draws the growth of loss between probes half-way to the title's mean, in the chunks of which only a part was compared.
///
/// Halves of chunks show it with an error of 0.012 a CRF (rms), by which the whole chunks of a title hardly differ more
/// (0.002 to 0.016 over five titles), and constant slope trusts it: taken as it was seen, a title of three like chunks lost
/// 2 % of its bits. Rates show no such thing.
pub fn steady(chunks: &mut [ChunkFacts], is_compared: impl Fn(usize) -> bool) {
    let loss = |point: &ProbePoint| {
        let is_score = (LOST_VMAF..=100.0).contains(&point.vmaf_neg);
        is_score.then(|| loss_of(point.vmaf_neg)).filter(|loss| *loss > LEAST_LOSS)
    };
    let growth = |chunk: &ChunkFacts| {
        let [first, second] = chunk.probes[..] else { return None };
        let (from, to) = loss(&first).zip(loss(&second))?;
        let growth = libm::log(to / from) / (second.crf - first.crf);
        growth.is_finite().then_some((chunk.weight_us() as f64, growth))
    };
    let known: Vec<(f64, f64)> = chunks.iter().filter_map(growth).collect();
    let weight: f64 = known.iter().map(|(weight, _)| weight).sum();
    let mean = known.iter().map(|(weight, growth)| weight * growth).sum::<f64>() / weight.max(f64::MIN_POSITIVE);
    for (number, chunk) in chunks.iter_mut().enumerate() {
        let Some((_, own)) = growth(chunk).filter(|_| is_compared(number)) else { continue };
        let [first, second] = &mut chunk.probes[..] else { continue };
        let steadied = OWN_GROWTH * own + (1.0 - OWN_GROWTH) * mean;
        second.vmaf_neg = quality_of(loss_of(first.vmaf_neg) * libm::exp(steadied * (second.crf - first.crf)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_half_a_chunk_says_of_its_slope_is_drawn_to_the_title() {
        let chunk = |growth: f64, seconds: f64| {
            let point = |crf: f64| ProbePoint { crf, bits: 1000, vmaf_neg: quality_of(6.0 * libm::exp(growth * (crf - 26.0))) };
            let probes = vec![point(26.0), point(38.0)];
            ChunkFacts { frames: 100, duration_s: seconds, starts_on_cut: false, probes, scaled: Vec::new() }
        };
        let growth = |chunk: &ChunkFacts| libm::log(loss_of(chunk.probes[1].vmaf_neg) / loss_of(chunk.probes[0].vmaf_neg)) / 12.0;
        let before = [chunk(0.10, 4.0), chunk(0.16, 4.0), chunk(0.14, 4.0)];
        let mut chunks = before.clone();
        steady(&mut chunks, |number| number < 2);
        let after: Vec<f64> = chunks.iter().map(growth).collect();
        for (found, expected) in after.iter().zip([0.1167, 0.1467, 0.14]) {
            assert!((found - expected).abs() < 1e-4, "{after:?}");
        }
        assert!(chunks.iter().zip(&before).all(|(a, b)| a.probes[0] == b.probes[0]), "where the curves lie stays");
        // One that shows no loss, or none at all, says nothing and is left as it is.
        let mut odd = [chunk(0.10, 4.0), chunk(0.10, 4.0), chunk(0.10, 4.0)];
        odd[0].probes.iter_mut().for_each(|point| point.vmaf_neg = 100.0);
        odd[1].probes[1].vmaf_neg = f64::NAN;
        odd[2].probes.truncate(1);
        let left = odd.clone();
        steady(&mut odd, |_| true);
        assert_eq!(format!("{odd:?}"), format!("{left:?}"));
    }
}
