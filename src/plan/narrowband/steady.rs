//! Differences between chunks, as far as they can be told from errors of what is known of them.
//!
//! The CRF that a chunk should have at the common slope hangs on four numbers of its curves, and a few fast encodes know each of
//! them a little wrong; beyond the CRFs of these encodes, where the best rungs lie, by ever more. What comes out as the most unlike
//! the rest is what was most mistaken. So every chunk's CRF is drawn to the title's mean: by the share that errors are expected to
//! have in the variance (the positive-part estimator of James and Stein, 1961, with the empirical mean: Efron and Morris, "Stein's
//! estimation rule and its competitors", 1973), which makes a title of one scene one of one CRF, and of what is left by the part
//! that was true where encodes told.

use super::allocate::{Allocated, Allocation, Goal, MOST_RAISE_VMAF, Share, allocate, allocate_at_goal, believed_crf};
use super::rules::AllocationRules;

/// Of differences larger than errors so much was true on rungs as good as the best probe, or better; towards the poorest probe it
/// rises to all. Slopes of the CRFs that whole encodes show to be best over those chosen, of five titles of several scenes: 0.3
/// to 0.5 at a mean CRF of 21 to 24, 0.3 to 0.5 at 27 and 28, 0.5 to 0.7 at 31 to 34, 0.8 to 1.0 at 37 to 41. (Chosen freely, top rungs of
/// such titles had 2 to 4 % more bits than at one CRF; drawn by this they have 1 to 3 % fewer, as many as the best choice but 1 %.)
const BELIEVED_AT_BEST: f64 = 0.35;
/// Halvings of the range in which the common shift is sought: to a hundredth of a step.
const HALVINGS: usize = 14;
/// Half that range, CRF: drawing together moves the mean quality by less.
const MOST_SHIFT: f64 = 8.0;
/// Where the peak or floors move chunks the others go so many steps of CRF towards more bits, or fewer, to meet the goal.
const MOST_STEPS: i32 = 16;

/// As [`allocate`], but for differences that are no larger than errors. Floors and the peak hold as there.
pub fn allocate_steadily(shares: &[Share], goal: &Goal, rules: &AllocationRules) -> Allocation {
    let free = allocate(shares, goal, rules);
    let kept = believed_share(shares, &free.chunks, rules.doubt_crf);
    if kept >= 1.0 || !free.reached {
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
    let shift = low;
    let drawn = |steps: i32| {
        let held = |(n, share): (usize, &Share)| {
            let crf = at(n, shift - f64::from(steps) * rules.crf.step);
            // What rounding leaves of the goal is spent where it is worth most.
            Share { held_crf: Some((crf, crf + rules.crf.step)), ..*share }
        };
        allocate_at_goal(&shares.iter().enumerate().map(held).collect::<Vec<_>>(), goal, rules)
    };
    let fits = |drawn: &Allocation| drawn.reached && drawn.below_floor <= free.below_floor;
    let first = drawn(0);
    let is_free = first.chunks.iter().all(|chunk| chunk.bound.is_none());
    let (mut low, mut high, mut best) = match fits(&first) {
        true if is_free => return first,
        true => (-MOST_STEPS, 0, Some(first)),
        false => (0, MOST_STEPS, None),
    };
    while high - low > 1 {
        let middle = (low + high) / 2;
        let made = drawn(middle);
        if fits(&made) {
            (high, best) = (middle, Some(made));
        } else {
            low = middle;
        }
    }
    let highest = goal.mean_vmaf.max(free.mean_vmaf) + MOST_RAISE_VMAF;
    best.filter(|made| made.mean_vmaf <= highest).unwrap_or(free)
}

/// The part of the chunks' differences that is not error, 0 to 1.
fn believed_share(shares: &[Share], chunks: &[Allocated], doubt_crf: f64) -> f64 {
    let total: f64 = shares.iter().map(|share| share.weight_us as f64).sum();
    let squares: f64 = shares.iter().map(|share| (share.weight_us as f64 / total).powi(2)).sum();
    let mean = mean_by_time(shares, |n| chunks[n].crf);
    // Of a sample, weighted.
    let variance = mean_by_time(shares, |n| (chunks[n].crf - mean).powi(2)) / (1.0 - squares).max(f64::MIN_POSITIVE);
    if shares.len() < 2 || doubt_crf <= 0.0 || variance == 0.0 {
        return 1.0;
    }
    believed_at(shares, mean) * (1.0 - doubt_crf.powi(2) / variance).max(0.0)
}

/// The part that was true of differences of rungs at a mean CRF, by where it lies among the probes.
fn believed_at(shares: &[Share], mean_crf: f64) -> f64 {
    let probed: Vec<Share> = shares.iter().filter(|share| share.probed_crf.is_some()).copied().collect();
    let of = |end: fn((f64, f64)) -> f64| mean_by_time(&probed, |n| probed[n].probed_crf.map_or(0.0, end));
    let (best, poorest) = (of(|crfs| crfs.0), of(|crfs| crfs.1));
    let place = if best < poorest { ((mean_crf - best) / (poorest - best)).clamp(0.0, 1.0) } else { 0.0 };
    BELIEVED_AT_BEST + (1.0 - BELIEVED_AT_BEST) * place
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
        (crfs_of(&made), made)
    }

    fn crfs_of(made: &Allocation) -> Vec<f64> {
        made.chunks.iter().map(|chunk| chunk.crf).collect()
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
        assert!((free * 0.3..free * 0.4).contains(&drawn), "{drawn} of {free}");
    }

    #[test]
    fn differences_are_believed_where_probes_were() {
        let at = |mean_crf: f64, probed_crf| believed_at(&[Share { probed_crf, ..share(0.0) }; 3], mean_crf);
        let found = [20.0, 26.0, 32.0, 38.0, 44.0].map(|mean| at(mean, Some((26.0, 38.0))));
        for (found, expected) in found.iter().zip([0.35, 0.35, 0.675, 1.0, 1.0]) {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
        assert_eq!([at(38.0, None), at(38.0, Some((26.0, 26.0)))], [BELIEVED_AT_BEST; 2]);
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
        let unbound = allocate_steadily(&shares, &goal, &AllocationRules { peak_to_mean: 9.0, ..rules.clone() });
        assert!(unbound.peak_rate_bps > 2.0 * unbound.mean_rate_bps, "drawn, it would pass the peak: {unbound:?}");
        let drawn = allocate_steadily(&shares, &goal, &rules);
        assert!(drawn.reached && drawn.peak_rate_bps <= 2.0 * drawn.mean_rate_bps, "{drawn:?}");
        assert!(spread(&crfs_of(&drawn)) < spread(&crfs_of(&free)), "{drawn:?}");
    }

    #[test]
    fn no_chunk_is_drawn_below_its_floor() {
        let shares = [share(0.0), share(6.0), share(-6.0)];
        let goal = |floor_vmaf| Goal { mean_vmaf: 92.0, floor_vmaf };
        let rules = AllocationRules { doubt_crf: 0.5, ..AllocationRules::default() };
        let worst = |of: &Allocation| of.chunks.iter().map(|chunk| chunk.vmaf).fold(f64::MAX, f64::min);
        let low = allocate_steadily(&shares, &goal(80.0), &rules);
        assert!(worst(&low) < 90.0, "{low:?}");
        let held = allocate_steadily(&shares, &goal(90.0), &rules);
        assert!(worst(&held) >= 90.0 && held.reached && held.mean_vmaf < 92.5, "{held:?}");
        assert!(spread(&crfs_of(&held)) < spread(&crfs_of(&allocate(&shares, &goal(90.0), &rules))), "{held:?}");
    }
}
