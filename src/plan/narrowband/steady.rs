//! Differences between chunks, as far as they can be told from errors of what is known of them.
//!
//! The CRF that a chunk should have at the common slope hangs on four numbers of its curves, and a few fast encodes know each of
//! them a little wrong. Where the chunks of a title are alike, what comes out is that error, and it costs bits: a title of one
//! scene does best with one CRF. Where they are not, differences are many times the error. So every chunk's CRF is drawn to the
//! title's mean by the share that errors are expected to have in their variance (the positive-part estimator of James and Stein,
//! 1961, with the empirical mean: Efron and Morris, "Stein's estimation rule and its competitors", 1973).

use super::allocate::{Allocated, Allocation, Goal, Share, allocate, believed_crf};
use super::rules::AllocationRules;

/// Halvings of the range in which the common shift is sought: to a hundredth of a step.
const HALVINGS: usize = 14;
/// Half that range, CRF: drawing together moves the mean quality by less.
const MOST_SHIFT: f64 = 8.0;

/// As [`allocate`], but for differences that are no larger than errors.
///
/// A chunk at a limit says nothing of its slope: an allocation with one stands as it is.
pub fn allocate_steadily(shares: &[Share], goal: &Goal, rules: &AllocationRules) -> Allocation {
    let free = allocate(shares, goal, rules);
    let kept = believed_share(shares, &free.chunks, rules.doubt_crf);
    if kept >= 1.0 || !free.reached || free.chunks.iter().any(|chunk| chunk.bound.is_some()) {
        return free;
    }
    let mean = mean_by_time(shares, |n| free.chunks[n].crf);
    let at = |n: usize, shift: f64| {
        let (least, most) = believed_crf(shares[n].probed_crf, rules);
        rules.crf.nearest((mean + kept * (free.chunks[n].crf - mean) + shift).clamp(least, most))
    };
    // The higher the CRFs, the lower the quality.
    let keeps_goal = |shift: f64| mean_by_time(shares, |n| shares[n].curve.quality(at(n, shift))) >= goal.mean_vmaf;
    let (mut low, mut high) = (-MOST_SHIFT, MOST_SHIFT);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if keeps_goal(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    let held = |(n, share): (usize, &Share)| {
        let crf = at(n, low);
        // What rounding leaves of the goal is spent where it is worth most.
        Share { held_crf: Some((crf, crf + rules.crf.step)), ..*share }
    };
    let held: Vec<Share> = shares.iter().enumerate().map(held).collect();
    let drawn = allocate(&held, goal, rules);
    // Drawn to the mean, the costliest chunk may cost more than the peak allows.
    if drawn.reached && drawn.chunks.iter().all(|chunk| chunk.bound.is_none()) { drawn } else { free }
}

/// The part of the chunks' differences that is not error, 0 to 1.
fn believed_share(shares: &[Share], chunks: &[Allocated], doubt_crf: f64) -> f64 {
    let total: f64 = shares.iter().map(|share| share.weight_us as f64).sum();
    let squares: f64 = shares.iter().map(|share| (share.weight_us as f64 / total).powi(2)).sum();
    let mean = mean_by_time(shares, |n| chunks[n].crf);
    // Of a sample, weighted.
    let variance = mean_by_time(shares, |n| (chunks[n].crf - mean).powi(2)) / (1.0 - squares).max(f64::MIN_POSITIVE);
    if shares.len() < 2 || doubt_crf <= 0.0 || variance == 0.0 { 1.0 } else { (1.0 - doubt_crf.powi(2) / variance).max(0.0) }
}

fn mean_by_time(shares: &[Share], of: impl Fn(usize) -> f64) -> f64 {
    let total: f64 = shares.iter().map(|share| share.weight_us as f64).sum();
    shares.iter().enumerate().map(|(n, share)| of(n) * share.weight_us as f64).sum::<f64>() / total.max(1.0)
}

#[cfg(test)]
mod tests {
    use super::super::curve::Curve;
    use super::*;

    /// A chunk that wants a CRF higher by so much than others.
    fn share(wants: f64) -> Share {
        let (rate_slope, loss_slope) = (0.12, 0.09);
        // Rates and losses that differ by e to this power keep their product.
        let more = wants * (rate_slope + loss_slope) / 2.0;
        let curve = Curve { ln_rate: 17.0 + more, rate_slope, ln_loss: -0.3 - more, loss_slope, loss_floor: 0.0 };
        Share { curve, weight_us: 4_000_000, starts_on_cut: true, probed_crf: None, held_crf: None }
    }

    fn crfs(wants: &[f64], doubt_crf: f64) -> (Vec<f64>, Allocation) {
        let shares: Vec<Share> = wants.iter().map(|wants| share(*wants)).collect();
        let rules = AllocationRules { doubt_crf, ..AllocationRules::default() };
        let goal = Goal { mean_vmaf: 92.0, floor_vmaf: 80.0 };
        let made = allocate_steadily(&shares, &goal, &rules);
        assert!(made.reached && made.mean_vmaf < 92.25, "{made:?}");
        (made.chunks.iter().map(|chunk| chunk.crf).collect(), made)
    }

    fn spread(crfs: &[f64]) -> f64 {
        crfs.iter().copied().fold(f64::MIN, f64::max) - crfs.iter().copied().fold(f64::MAX, f64::min)
    }

    #[test]
    fn small_differences_are_errors_and_large_ones_are_not() {
        let alike = [0.0, 0.8, 0.3, -0.4];
        assert!(spread(&crfs(&alike, 0.0).0) >= 1.0, "{:?}", crfs(&alike, 0.0).0);
        assert!(spread(&crfs(&alike, 0.7).0) <= 0.25, "{:?}", crfs(&alike, 0.7).0);
        let unlike = [0.0, 5.0, -4.0, 1.0];
        let (free, drawn) = (spread(&crfs(&unlike, 0.0).0), spread(&crfs(&unlike, 0.7).0));
        assert!(drawn < free && drawn > free * 0.93, "{drawn} of {free}");
    }

    #[test]
    fn one_chunk_has_no_other_to_differ_from() {
        assert_eq!(crfs(&[1.0], 0.7), crfs(&[1.0], 0.0));
        let none = allocate_steadily(&[], &Goal { mean_vmaf: 93.0, floor_vmaf: 85.0 }, &AllocationRules::default());
        assert!(none.chunks.is_empty());
    }

    #[test]
    fn no_chunk_is_drawn_over_the_peak() {
        // The first is costly, and kept within twice the mean by a CRF that deviates no more than errors do.
        let costly =
            |rate: f64, share: Share| Share { curve: Curve { ln_rate: share.curve.ln_rate + rate, ..share.curve }, ..share };
        let shares = [costly(1.0, share(0.0)), share(-3.0), share(-3.0), share(-3.0)];
        let goal = Goal { mean_vmaf: 92.0, floor_vmaf: 60.0 };
        let rules = AllocationRules { doubt_crf: 6.0, ..AllocationRules::default() };
        let free = allocate(&shares, &goal, &rules);
        assert!(free.chunks.iter().all(|chunk| chunk.bound.is_none()), "{free:?}");
        let drawn = allocate_steadily(&shares, &goal, &AllocationRules { peak_to_mean: 9.0, ..rules.clone() });
        assert!(drawn.peak_rate_bps > 2.0 * drawn.mean_rate_bps, "drawn, it would pass the peak: {drawn:?}");
        assert_eq!(allocate_steadily(&shares, &goal, &rules), free);
    }

    #[test]
    fn a_chunk_at_its_floor_keeps_the_allocation() {
        let shares = [share(0.0), share(4.0)];
        let goal = Goal { mean_vmaf: 92.0, floor_vmaf: 91.95 };
        let rules = AllocationRules::default();
        let free = allocate(&shares, &goal, &rules);
        assert!(free.chunks.iter().any(|chunk| chunk.bound.is_some()), "{free:?}");
        assert_eq!(allocate_steadily(&shares, &goal, &rules), free);
    }
}
