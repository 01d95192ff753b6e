use super::*;
use proptest::prelude::*;

/// A chunk of so many seconds with this rate and loss at CRF 27.
fn share(seconds: f64, bps: f64, loss: f64, slopes: (f64, f64)) -> Share {
    let (rate_slope, loss_slope) = slopes;
    let curve = Curve {
        ln_rate: libm::log(bps) + rate_slope * 27.0,
        rate_slope,
        ln_loss: libm::log(loss) - loss_slope * 27.0,
        loss_slope,
        loss_floor: 0.0,
    };
    Share { curve, weight_us: (seconds * 1e6) as u64, starts_on_cut: true, probed_crf: Some((22.0, 32.0)), held_crf: None }
}

const ORDINARY: (f64, f64) = (0.14, 0.10);

/// A talk, a stroll, a stadium and a river: rates over two decades.
fn mixed() -> Vec<Share> {
    vec![
        share(8.0, 150_000.0, 3.0, (0.12, 0.09)),
        share(6.0, 900_000.0, 8.0, ORDINARY),
        share(7.5, 3_000_000.0, 9.0, (0.15, 0.11)),
        share(4.0, 5_500_000.0, 14.0, (0.13, 0.08)),
        share(9.0, 700_000.0, 6.0, (0.14, 0.12)),
    ]
}

/// No limit but the encoder's.
fn free() -> AllocationRules {
    AllocationRules { peak_to_mean: f64::INFINITY, ..AllocationRules::default() }
}

fn mean_of(vmaf: f64) -> Goal {
    Goal { mean_vmaf: vmaf, floor_vmaf: 0.0 }
}

fn crfs(allocation: &Allocation) -> Vec<f64> {
    allocation.chunks.iter().map(|chunk| chunk.crf).collect()
}

/// Mean rate and mean quality of any CRFs.
fn evaluate(shares: &[Share], crfs: &[f64]) -> (f64, f64) {
    let weight: f64 = shares.iter().map(|share| share.weight_us as f64).sum();
    let mean = |of: &dyn Fn(&Share, f64) -> f64| {
        shares.iter().zip(crfs).map(|(share, crf)| of(share, *crf) * share.weight_us as f64).sum::<f64>() / weight
    };
    (mean(&|share, crf| share.curve.rate_bps(crf)), mean(&|share, crf| share.curve.quality(crf)))
}

/// Rate of these CRFs when all are moved alike until the title has this quality.
fn rate_at_quality(shares: &[Share], crfs: &[f64], vmaf: f64) -> f64 {
    let moved = |by: f64| crfs.iter().map(|crf| crf + by).collect::<Vec<_>>();
    let (mut better, mut worse) = (-60.0, 60.0);
    for _ in 0..80 {
        let by = (better + worse) / 2.0;
        if evaluate(shares, &moved(by)).1 >= vmaf { better = by } else { worse = by }
    }
    evaluate(shares, &moved(better)).0
}

#[test]
fn the_goal_is_met_with_every_crf_a_whole_step_and_hardly_exceeded() {
    let allocation = allocate(&mixed(), &mean_of(93.0), &free());
    assert!(allocation.reached && (93.0..93.02).contains(&allocation.mean_vmaf), "{}", allocation.mean_vmaf);
    assert!(crfs(&allocation).iter().all(|crf| (crf * 4.0).fract() == 0.0));
    let (rate, quality) = evaluate(&mixed(), &crfs(&allocation));
    assert!((rate - allocation.mean_rate_bps).abs() < 1.0 && (quality - allocation.mean_vmaf).abs() < 1e-5);
    assert_eq!(crfs(&allocation), [20.0, 24.75, 29.0, 31.75, 24.25]);
}

#[test]
fn chunks_stand_where_the_formula_puts_them_at_one_multiplier() {
    let shares = mixed();
    let allocation = allocate(&shares, &mean_of(93.0), &free());
    let multipliers: Vec<f64> =
        shares.iter().zip(&allocation.chunks).map(|(share, chunk)| ln_multiplier_at(&share.curve, chunk.crf)).collect();
    let (least, most) = multipliers.iter().fold((f64::MAX, f64::MIN), |(a, b), m| (a.min(*m), b.max(*m)));
    // Within one CRF at the slopes' sum of 0.26: what the steps left of the goal went to the smallest chunk.
    assert!(most - least < 0.26, "{multipliers:?}");
    for share in &shares {
        let crf = crf_at_slope(&share.curve, least);
        assert!((ln_multiplier_at(&share.curve, crf) - least).abs() < 1e-9);
        // There the bits that a little loss saves are worth exactly the multiplier.
        let (curve, small) = (&share.curve, 1e-4);
        let saved = curve.rate_bps(crf - small) - curve.rate_bps(crf + small);
        let lost = curve.shortfall(crf + small) - curve.shortfall(crf - small);
        assert!((libm::log(saved / lost) - least).abs() < 1e-4);
    }
}

#[test]
fn a_shuffled_allocation_costs_more_bits_at_the_same_quality() {
    let shares = mixed();
    let allocation = allocate(&shares, &mean_of(93.0), &free());
    let own = allocation.mean_rate_bps;
    for turn in 1..shares.len() {
        let mut shuffled = crfs(&allocation);
        shuffled.rotate_left(turn);
        let rate = rate_at_quality(&shares, &shuffled, allocation.mean_vmaf);
        assert!(rate > own * 1.02, "turned by {turn}: {rate:.0} against {own:.0}");
    }
    let constant = rate_at_quality(&shares, &[27.0; 5], allocation.mean_vmaf);
    assert!(constant > own * 1.02, "one CRF for all: {constant:.0} against {own:.0}");
}

#[test]
fn the_worst_chunk_is_kept_above_the_floor_and_the_others_pay_for_it() {
    let goal = Goal { mean_vmaf: 93.0, floor_vmaf: 88.0 };
    let without = allocate(&mixed(), &mean_of(93.0), &free());
    let with = allocate(&mixed(), &goal, &free());
    assert!(without.chunks[3].vmaf < 85.0, "{:?}", without.chunks[3]);
    assert!(with.chunks.iter().all(|chunk| chunk.vmaf >= 88.0));
    assert_eq!((with.chunks[3].bound, with.below_floor), (Some(Bound::Floor), 0));
    assert!(with.reached && with.mean_vmaf < 93.02 && with.mean_rate_bps > without.mean_rate_bps);
    assert!(with.chunks[1].crf >= without.chunks[1].crf);
}

#[test]
fn a_floor_that_a_source_does_not_allow_is_counted() {
    let mut shares = mixed();
    shares[3].curve.loss_floor = 20.0;
    let allocation = allocate(&shares, &Goal { mean_vmaf: 90.0, floor_vmaf: 85.0 }, &free());
    assert_eq!(allocation.below_floor, 1);
    assert_eq!((allocation.chunks[3].crf, allocation.chunks[3].bound), (14.0, Some(Bound::Range)));
}

#[test]
fn no_chunk_exceeds_twice_the_mean_it_helps_to_make() {
    let rules = AllocationRules { most_slope_stretch: f64::INFINITY, ..AllocationRules::default() };
    let unlimited = allocate(&mixed(), &mean_of(91.0), &free());
    assert!(unlimited.peak_rate_bps > 2.0 * unlimited.mean_rate_bps);
    let held = allocate(&mixed(), &mean_of(91.0), &rules);
    assert!(held.peak_rate_bps <= 2.0 * held.mean_rate_bps && held.peak_rate_bps > 1.9 * held.mean_rate_bps, "{held:?}");
    assert!(held.reached && held.mean_rate_bps > unlimited.mean_rate_bps);
    assert!(held.chunks.iter().any(|chunk| chunk.bound == Some(Bound::Peak)));
}

/// Four easy chunks and a hard one that would take fifteen times their rate. Any CRF may be had.
fn easy_and_hard() -> Vec<Share> {
    let easy = Share { probed_crf: None, ..share(12.0, 60_000.0, 4.0, ORDINARY) };
    let hard = Share { probed_crf: None, ..share(12.0, 900_000.0, 8.0, ORDINARY) };
    [vec![easy; 4], vec![hard]].concat()
}

#[test]
fn what_the_peak_denies_is_not_made_up_for_at_any_price() {
    let endless = AllocationRules { most_slope_stretch: f64::INFINITY, ..AllocationRules::default() };
    let strict = AllocationRules { most_slope_stretch: 1.0, ..AllocationRules::default() };
    let bounded = allocate(&easy_and_hard(), &mean_of(94.0), &strict);
    let made_up = allocate(&easy_and_hard(), &mean_of(94.0), &endless);
    assert!(!bounded.reached && bounded.mean_vmaf < 94.0 && made_up.reached, "{bounded:?} {made_up:?}");
    assert!(made_up.mean_rate_bps > bounded.mean_rate_bps, "{} {}", made_up.mean_rate_bps, bounded.mean_rate_bps);
    assert!(bounded.peak_rate_bps <= 2.0 * bounded.mean_rate_bps && made_up.peak_rate_bps <= 2.0 * made_up.mean_rate_bps);
}

#[test]
fn peak_and_floor_that_exclude_each_other_are_settled_by_the_rules() {
    let goal = Goal { mean_vmaf: 94.0, floor_vmaf: 88.0 };
    let peak_first = allocate(&easy_and_hard(), &goal, &AllocationRules::default());
    assert_eq!((peak_first.below_floor, peak_first.chunks[4].bound), (1, Some(Bound::Peak)));
    assert!(peak_first.peak_rate_bps <= 2.0 * peak_first.mean_rate_bps);
    let rules = AllocationRules { floor_over_peak: true, ..AllocationRules::default() };
    let floor_first = allocate(&easy_and_hard(), &goal, &rules);
    assert_eq!((floor_first.below_floor, floor_first.chunks[4].bound), (0, Some(Bound::Floor)));
    assert!(floor_first.chunks[4].vmaf >= 88.0 && floor_first.peak_rate_bps > 2.0 * floor_first.mean_rate_bps);
}

#[test]
fn a_floor_that_the_peak_denies_is_bought_by_a_slightly_better_title() {
    let floor = |floor_vmaf| Goal { mean_vmaf: 94.0, floor_vmaf };
    let rules = AllocationRules::default();
    let as_is = allocate(&easy_and_hard(), &floor(0.0), &rules);
    let held = as_is.chunks[4];
    assert_eq!((held.bound, as_is.below_floor), (Some(Bound::Peak), 0));
    let kept = allocate(&easy_and_hard(), &floor(held.vmaf + 0.3), &rules);
    assert_eq!(kept.below_floor, 0, "{kept:?}");
    assert!(kept.mean_vmaf > as_is.mean_vmaf && kept.mean_vmaf < 94.45, "{} {}", as_is.mean_vmaf, kept.mean_vmaf);
    assert!(kept.chunks[4].vmaf >= held.vmaf + 0.3 && kept.peak_rate_bps <= 2.0 * kept.mean_rate_bps);
    // What no small raise buys is not paid for.
    assert_eq!(allocate(&easy_and_hard(), &floor(held.vmaf + 5.0), &rules).mean_vmaf, as_is.mean_vmaf);
}

#[test]
fn within_a_scene_quality_moves_in_small_steps() {
    let mut shares = mixed();
    shares[2].starts_on_cut = false;
    shares[3].starts_on_cut = false;
    let jumping = allocate(&mixed(), &mean_of(93.0), &free());
    let rules = AllocationRules { largest_step_crf: 0.5, ..free() };
    let steady = allocate(&shares, &mean_of(93.0), &rules);
    let steps = |a: &Allocation| crfs(a).windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect::<Vec<_>>();
    assert!(steps(&jumping)[1] > 0.5);
    assert!(steps(&steady)[1] <= 0.5 && steps(&steady)[2] <= 0.5 && steps(&steady)[0] > 0.5);
    assert_eq!(steady.steep_seams, 0);
    assert!(steady.mean_rate_bps >= jumping.mean_rate_bps && steady.mean_vmaf < 93.02);
}

#[test]
fn a_step_that_other_limits_force_is_made_and_counted() {
    let mut shares = vec![share(6.0, 100_000.0, 2.0, ORDINARY), share(6.0, 8_000_000.0, 30.0, ORDINARY)];
    shares[1].starts_on_cut = false;
    // The first was only ever seen at high CRFs, the second may not go there.
    shares[0].probed_crf = Some((44.0, 44.0));
    let allocation = allocate(&shares, &Goal { mean_vmaf: 80.0, floor_vmaf: 80.0 }, &free());
    assert_eq!(allocation.steep_seams, 1);
    assert_eq!((allocation.chunks[0].crf, allocation.below_floor), (36.0, 0));
}

#[test]
fn a_goal_out_of_reach_takes_the_best_and_says_so_and_no_chunks_are_no_trouble() {
    let allocation = allocate(&mixed(), &mean_of(99.9), &free());
    assert!(!allocation.reached && crfs(&allocation).iter().all(|crf| *crf == 14.0));
    let empty = allocate(&[], &mean_of(93.0), &AllocationRules::default());
    assert_eq!((empty.chunks.len(), empty.reached, empty.mean_rate_bps), (0, true, 0.0));
}

#[test]
fn a_chunk_whose_quality_hangs_on_nothing_gets_the_fewest_bits() {
    let mut shares = mixed();
    shares[0] = share(8.0, 150_000.0, 2.6, (0.12, 0.004));
    let allocation = allocate(&shares, &mean_of(93.0), &free());
    assert_eq!((allocation.chunks[0].crf, allocation.chunks[0].bound), (40.0, Some(Bound::Range)), "eight beyond its probes");
}

fn any_share() -> impl Strategy<Value = Share> {
    (0.5..12.0_f64, 10.0..16.0_f64, 0.5..3.2_f64, 0.06..0.25_f64, 0.02..0.2_f64, any::<bool>()).prop_map(
        |(seconds, ln_bps, ln_loss, rate_slope, loss_slope, starts_on_cut)| Share {
            starts_on_cut,
            ..share(seconds, libm::exp(ln_bps), libm::exp(ln_loss), (rate_slope, loss_slope))
        },
    )
}

/// All choices of CRF on whole numbers from 24 to 28 that keep floor and steps, by enumeration: the fewest bits a second
/// for the goal.
fn brute_force(shares: &[Share], goal: &Goal, rules: &AllocationRules) -> Option<f64> {
    let levels = 5_usize;
    let mut best: Option<f64> = None;
    for code in 0..levels.pow(shares.len() as u32) {
        let crfs: Vec<f64> = (0..shares.len()).map(|n| 24.0 + ((code / levels.pow(n as u32)) % levels) as f64).collect();
        let steps = (1..crfs.len()).all(|n| shares[n].starts_on_cut || (crfs[n] - crfs[n - 1]).abs() <= rules.largest_step_crf);
        let floor = shares.iter().zip(&crfs).all(|(share, crf)| share.curve.quality(*crf) >= goal.floor_vmaf);
        let (rate, quality) = evaluate(shares, &crfs);
        if steps && floor && quality >= goal.mean_vmaf && best.is_none_or(|least| rate < least) {
            best = Some(rate);
        }
    }
    best
}

fn coarse(largest_step_crf: f64) -> AllocationRules {
    AllocationRules { crf: CrfRange { lowest: 24.0, highest: 28.0, step: 1.0 }, largest_step_crf, ..free() }
}

/// Most that a chunk's rate may change the mean by in one step, bits a second.
fn one_step(shares: &[Share], chunks: usize) -> f64 {
    let weight: f64 = shares.iter().map(|share| share.weight_us as f64).sum();
    let step = |share: &Share| (share.curve.rate_bps(24.0) - share.curve.rate_bps(25.0)) * share.weight_us as f64 / weight;
    let mut steps: Vec<f64> = shares.iter().map(step).collect();
    steps.sort_by(|a, b| b.total_cmp(a));
    steps.iter().take(chunks).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_choice_of_all_there_are_is_better_by_more_than_a_step_of_one_chunk(
        shares in prop::collection::vec(any_share(), 1..6), part in 0.05..0.95_f64, floor_drop in 3.0..40.0_f64,
    ) {
        let mut shares = shares;
        shares.iter_mut().for_each(|share| share.starts_on_cut = true);
        let rules = coarse(1.0);
        let (best, worst) = (evaluate(&shares, &[24.0; 5]).1, evaluate(&shares, &[28.0; 5]).1);
        let mean_vmaf = worst + (best - worst) * part;
        let goal = Goal { mean_vmaf, floor_vmaf: mean_vmaf - floor_drop };
        if let Some(least) = brute_force(&shares, &goal, &rules) {
            let own = allocate(&shares, &goal, &rules);
            prop_assert!(own.reached && own.below_floor == 0);
            prop_assert!(own.mean_rate_bps >= least * (1.0 - 1e-4), "brute force was beaten: it is wrong");
            prop_assert!(own.mean_rate_bps <= least + one_step(&shares, 1) * (1.0 + 1e-6), "{} {least}", own.mean_rate_bps);
        }
    }

    #[test]
    fn coupled_chunks_too_are_within_a_step_of_the_best_of_all(
        shares in prop::collection::vec(any_share(), 2..6), part in 0.05..0.95_f64, step in 0..3_u32,
    ) {
        let rules = coarse(f64::from(step));
        let (best, worst) = (evaluate(&shares, &[24.0; 5]).1, evaluate(&shares, &[28.0; 5]).1);
        let goal = mean_of(worst + (best - worst) * part);
        if let Some(least) = brute_force(&shares, &goal, &rules) {
            let own = allocate(&shares, &goal, &rules);
            prop_assert!(own.reached && own.steep_seams == 0);
            prop_assert!(own.mean_rate_bps >= least * (1.0 - 1e-4), "brute force was beaten: it is wrong");
            // A scene moves as one at most.
            prop_assert!(own.mean_rate_bps <= least + one_step(&shares, 5) * (1.0 + 1e-6), "{} {least}", own.mean_rate_bps);
        }
    }

    #[test]
    fn a_higher_goal_never_lowers_the_bits(shares in prop::collection::vec(any_share(), 1..20), low in 60.0..97.0_f64, more in 0.0..5.0_f64) {
        let mut shares = shares;
        shares.iter_mut().for_each(|share| share.starts_on_cut = true);
        let (modest, ambitious) = (allocate(&shares, &mean_of(low), &free()), allocate(&shares, &mean_of(low + more), &free()));
        prop_assert!(ambitious.mean_rate_bps >= modest.mean_rate_bps);
    }

    #[test]
    fn each_chunk_gets_the_same_whatever_order_they_come_in(
        shares in prop::collection::vec(any_share(), 1..12), turn in 0..12_usize, goal in 75.0..96.0_f64,
    ) {
        let mut shares = shares;
        shares.iter_mut().for_each(|share| share.starts_on_cut = true);
        let rules = AllocationRules::default();
        let straight = allocate(&shares, &mean_of(goal), &rules);
        let turn = turn % shares.len();
        shares.rotate_left(turn);
        let turned = allocate(&shares, &mean_of(goal), &rules);
        let mut expected = straight.chunks;
        expected.rotate_left(turn);
        prop_assert_eq!(turned.chunks, expected);
        prop_assert_eq!(turned.mean_rate_bps.to_bits(), straight.mean_rate_bps.to_bits());
    }

    #[test]
    fn every_limit_holds_on_every_title(
        shares in prop::collection::vec(any_share(), 1..16), mean_vmaf in 70.0..96.0_f64, drop in 4.0..20.0_f64,
    ) {
        let rules = AllocationRules::default();
        let goal = Goal { mean_vmaf, floor_vmaf: mean_vmaf - drop };
        let own = allocate(&shares, &goal, &rules);
        for (n, (share, chunk)) in shares.iter().zip(&own.chunks).enumerate() {
            prop_assert!((14.0..=40.0).contains(&chunk.crf) && (chunk.crf * 4.0).fract() == 0.0);
            let step = n > 0 && !share.starts_on_cut && (chunk.crf - own.chunks[n - 1].crf).abs() > rules.largest_step_crf;
            prop_assert!(!step || own.steep_seams > 0);
        }
        let below = own.chunks.iter().filter(|chunk| chunk.vmaf < goal.floor_vmaf - 1e-4).count();
        prop_assert!(below <= own.below_floor);
        // The peak is broken only where even the highest CRF breaks it.
        let all_low = own.chunks.iter().all(|chunk| chunk.rate_bps <= 2.0 * own.mean_rate_bps || chunk.crf == 40.0);
        prop_assert!(all_low, "{own:?}");
        prop_assert!(!own.reached || own.mean_vmaf >= mean_vmaf - 1e-4);
    }

    #[test]
    fn at_one_multiplier_a_scene_of_coupled_chunks_is_solved_exactly(
        tables in prop::collection::vec(prop::collection::vec((0..1000_u64, 0..1000_u64), 4..5), 1..5),
        couplings in prop::collection::vec(prop::option::of(0..3_usize), 5), multiplier in 0.1..10.0_f64,
    ) {
        let rows: Vec<Row> = tables.iter().zip(&couplings).enumerate().map(|(n, (table, coupling))| Row {
            bits: table.iter().map(|t| t.0).collect(),
            shortfall: table.iter().map(|t| t.1).collect(),
            lowest: 0,
            highest: 3,
            step: coupling.filter(|_| n > 0),
        }).collect();
        let cost = |choice: &[usize]| {
            let (bits, shortfall) = lattice::totals(&rows, choice);
            bits as f64 + multiplier * shortfall as f64
        };
        let keeps = |choice: &[usize]| (1..choice.len())
            .all(|n| rows[n].step.is_none_or(|step| choice[n].abs_diff(choice[n - 1]) <= step));
        let own = lattice::best(&rows, multiplier);
        prop_assert!(keeps(&own));
        let all = (0..4_usize.pow(rows.len() as u32)).map(|code| {
            (0..rows.len()).map(|n| (code / 4_usize.pow(n as u32)) % 4).collect::<Vec<_>>()
        });
        let least = all.filter(|choice| keeps(choice)).map(|choice| cost(&choice)).fold(f64::MAX, f64::min);
        prop_assert!((cost(&own) - least).abs() <= 1e-9 * least.max(1.0));
    }
}
