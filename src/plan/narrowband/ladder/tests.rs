use super::super::hull::upper_hull;
use super::*;
use proptest::prelude::*;

/// No limit, bits a second.
const ANYTHING: f64 = f64::INFINITY;

/// A line of one size through (rate, quality), and the hull it is.
fn hull(lines: &[&[(f64, f64)]]) -> Hull {
    let lines: Vec<Vec<OperatingPoint>> = lines
        .iter()
        .enumerate()
        .map(|(candidate, points)| {
            points.iter().map(|(rate_bps, vmaf)| OperatingPoint { candidate, rate_bps: *rate_bps, vmaf: *vmaf }).collect()
        })
        .collect();
    Hull { hull: upper_hull(lines.iter().flatten().copied().collect()), lines }
}

/// Film in 1080p and 540p: 60 to 98 over six octaves.
fn film() -> Hull {
    hull(&[
        &[(0.9e6, 72.0), (1.5e6, 82.0), (3e6, 90.0), (4.5e6, 93.0), (9e6, 96.0), (18e6, 98.0)],
        &[(1e5, 45.0), (2e5, 58.0), (4e5, 68.0), (0.8e6, 76.0), (1.6e6, 80.0)],
    ])
}

fn placed(hull: &Hull, rules: &Rules) -> Vec<(usize, f64, f64)> {
    let rungs = place(hull, &[], rules, ANYTHING);
    rungs.iter().map(|rung| (rung.candidate, (rung.rate_bps / 1e3).round(), (rung.vmaf * 10.0).round() / 10.0)).collect()
}

#[test]
fn the_top_is_at_the_goal_the_second_at_its_own_and_the_rest_go_down_evenly_to_the_lowest_rate() {
    assert_eq!(
        placed(&film(), &Rules::default()),
        [
            (0, 4500.0, 93.0),
            (0, 2313.0, 87.0),
            (0, 1255.0, 78.5),
            (1, 658.0, 73.8),
            (1, 351.0, 66.1),
            (1, 187.0, 56.8),
            (1, 100.0, 45.0)
        ]
    );
}

#[test]
fn the_top_is_of_a_calibrated_size_where_one_reaches_the_goal() {
    let soft = hull(&[&[(1e6, 70.0), (5e6, 93.0), (9e6, 95.0)], &[(1e5, 50.0), (2e6, 87.0), (4e6, 93.0), (6e6, 94.0)]]);
    let top = |calibrated: &[bool]| {
        let rungs = place(&soft, calibrated, &Rules::default(), ANYTHING);
        (rungs[0].candidate, rungs[1].candidate)
    };
    assert_eq!(top(&[]), (1, 1), "nothing was calibrated");
    assert_eq!((top(&[true, false]), top(&[true, true])), ((0, 1), (1, 1)));
    let rules = Rules { goal_vmaf: 94.5, ..Rules::default() };
    assert_eq!(place(&soft, &[false, true], &rules, ANYTHING)[0].candidate, 0, "only the other reaches it");
    // From 86 on a doubled rate gains half a point, in either size.
    let noisy = hull(&[&[(2e6, 78.0), (4.4e6, 86.0), (9e6, 86.5)], &[(1e6, 60.0), (3e6, 86.0), (8e6, 86.4)]]);
    let top = |calibrated: &[bool]| place(&noisy, calibrated, &Rules::default(), ANYTHING)[0];
    assert_eq!((top(&[true, false]).candidate, top(&[]).candidate), (0, 1), "{:?}", top(&[]));
}

#[test]
fn a_source_with_a_ceiling_has_its_top_there() {
    // From 86 on a doubled rate gains half a point.
    let noisy = hull(&[&[(1e6, 60.0), (2e6, 78.0), (4e6, 86.0), (8e6, 86.5), (16e6, 87.0)]]);
    let rungs = placed(&noisy, &Rules::default());
    assert_eq!(rungs[0], (0, 4000.0, 86.0));
    assert_eq!(rungs[1].2, 80.0, "86 is under the second's goal: the next is a step below");
}

#[test]
fn a_source_that_would_cost_too_much_has_its_top_at_the_highest_rate() {
    let costly = hull(&[&[(2e6, 50.0), (6e6, 75.0), (20e6, 95.0)]]);
    let highest = |side| {
        let display = Candidate { name: String::new(), width: side, height: side };
        highest_rate_bps(VideoCodec::H265, &display, &Rules::default())
    };
    assert_eq!((highest(1080) / 1e3).round(), 5800.0);
    assert_eq!(place(&costly, &[], &Rules::default(), highest(1080))[0].rate_bps.round(), 5_800_000.0);
    assert_eq!(place(&costly, &[], &Rules::default(), highest(540))[0].rate_bps.round(), 2_000_000.0, "nothing is known below");
    let second = place(&costly, &[], &Rules::default(), 6e6)[1];
    assert!((second.vmaf - 69.0).abs() < 1e-9, "a step under a top that is below the second's goal: {second:?}");
}

#[test]
fn a_title_that_is_good_at_the_lowest_rate_is_one_rung_that_spends_it() {
    let slides = hull(&[&[(60e3, 95.0), (200e3, 97.0)]]);
    assert_eq!(placed(&slides, &Rules::default()), [(0, 72.0, 95.3)]);
    assert_eq!(place(&Hull { lines: Vec::new(), hull: Vec::new() }, &[], &Rules::default(), ANYTHING), []);
}

#[test]
fn rungs_too_near_are_left_out_but_top_and_last_stay() {
    let rules = Rules::default();
    let thinned = |rungs: &[(f64, f64)]| thin(rungs, &rules);
    assert_eq!(thinned(&[(4e6, 93.0), (2e6, 87.0), (1e6, 78.0), (5e5, 60.0)]), [0, 1, 2, 3]);
    assert_eq!(thinned(&[(4e6, 93.0), (2e6, 91.0), (1e6, 88.0), (5e5, 80.0)]), [0, 2, 3], "91 is no step below 93");
    assert_eq!(thinned(&[(4e6, 93.0), (3.5e6, 87.0), (1e6, 78.0)]), [0, 2], "3.5 is no step below 4");
    assert_eq!(thinned(&[(9e5, 97.0), (4e5, 94.0), (1.5e5, 93.0)]), [0, 2], "the last is there for its rate");
    assert_eq!(thinned(&[(1.6e5, 97.0), (1.5e5, 70.0)]), [0], "none that no network could tell from the top");
    assert_eq!(thinned(&[(4e6, 93.0)]), [0]);
    assert!(thinned(&[]).is_empty());
}

proptest! {
    #[test]
    fn a_ladder_descends_in_rate_quality_and_size_and_reaches_the_lowest_rate(
        steps in prop::collection::vec((1.2..2.5_f64, 1.0..12.0_f64), 2..9), start in 5e4..5e5_f64, goal in 60.0..98.0_f64,
    ) {
        let mut at = (start, 30.0);
        let mut points = vec![at];
        for (factor, gain) in steps {
            at = (at.0 * factor, (at.1 + gain).min(99.0));
            points.push(at);
        }
        points.dedup_by_key(|point| point.1);
        let rules = Rules { goal_vmaf: goal, ..Rules::default() };
        let hull = hull(&[&points]);
        let rungs = place(&hull, &[], &rules, ANYTHING);
        prop_assert!(!rungs.is_empty() && rungs.len() <= rules.most_rungs);
        prop_assert!(rungs.windows(2).all(|p| p[0].rate_bps > p[1].rate_bps && p[0].vmaf >= p[1].vmaf && p[0].candidate <= p[1].candidate));
        let lowest = rules.lowest_rate_bps.max(start);
        prop_assert!(rungs[rungs.len() - 1].rate_bps <= lowest * rules.least_rate_ratio * 1.001);
        let figures: Vec<(f64, f64)> = rungs.iter().map(|rung| (rung.rate_bps, rung.vmaf)).collect();
        let kept = thin(&figures, &rules);
        prop_assert!(kept[0] == 0);
        for pair in kept.windows(2) {
            prop_assert!(figures[pair[0]].0 >= figures[pair[1]].0 * rules.least_rate_ratio);
            let both_inner = pair[0] > 0;
            prop_assert!(!both_inner || figures[pair[0]].1 - figures[pair[1]].1 >= rules.least_step_vmaf - 1e-9);
        }
    }
}
