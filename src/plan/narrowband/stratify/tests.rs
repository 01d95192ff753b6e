use super::*;
use crate::plan::narrowband::curve::{Basis, Curve, Doubt, Line};
use proptest::prelude::*;

fn chunk(seconds: f64) -> ChunkFacts {
    ChunkFacts {
        frames: (seconds * 25.0) as u64,
        duration_s: seconds,
        starts_on_cut: true,
        probes: Vec::new(),
        scaled: Vec::new(),
    }
}

/// A chunk that needs so many bits a second at CRF 27.
fn fit(bps: f64) -> FittedCurve {
    let line = Line { basis: Basis::Measured, doubt: None, worst_residual: 0.0 };
    let curve = Curve {
        ln_rate: libm::log(bps) + 0.14 * 27.0,
        rate_slope: 0.14,
        ln_loss: libm::log(8.0) - 2.7,
        loss_slope: 0.1,
        loss_floor: 0.0,
    };
    FittedCurve { curve, rate: line, loss: line, probed_crf: Some((22.0, 32.0)) }
}

fn chosen(strata: &[Stratum]) -> Vec<usize> {
    strata.iter().map(|stratum| stratum.chunk).collect()
}

#[test]
fn the_chosen_are_spread_over_complexity_not_over_time() {
    // Two thirds talk, a third sport, shuffled.
    let rates: Vec<f64> = (0..36).map(|n| if n % 3 == 2 { 3e6 + n as f64 * 1e4 } else { 3e5 + n as f64 * 1e3 }).collect();
    let fits: Vec<FittedCurve> = rates.iter().map(|rate| fit(*rate)).collect();
    let strata = stratify(&vec![chunk(6.0); 36], &fits, &CalibrationRules { most: 4, ..CalibrationRules::default() });
    let sport = strata.iter().filter(|stratum| stratum.chunk % 3 == 2).count();
    // Sport is a third of the time and five sixths of the bits: more than half of the line.
    assert_eq!((strata.len(), sport), (4, 2), "{strata:?}");
    assert!((strata.iter().map(|stratum| stratum.weight).sum::<f64>() - 1.0).abs() < 1e-12);
}

#[test]
fn their_number_grows_with_the_title_and_is_bounded() {
    let count = |chunks: usize| {
        let fits: Vec<FittedCurve> = (0..chunks).map(|n| fit(1e5 * (n + 1) as f64)).collect();
        stratify(&vec![chunk(6.0); chunks], &fits, &CalibrationRules::default()).len()
    };
    assert_eq!([0, 1, 2, 3, 8, 12, 1200].map(count), [0, 1, 2, 3, 8, 11, 12]);
}

#[test]
fn of_a_short_title_less_is_encoded() {
    let rules = CalibrationRules::default();
    assert_eq!([0, 150, 220, 240, 100_000].map(|frames| rules.beginning(frames)), [10, 10, 11, 12, 16]);
    assert_eq!(CalibrationRules { frames: 4, ..rules }.beginning(1000), 4);
}

#[test]
fn chunks_without_a_sound_fit_or_with_few_frames_are_not_asked_unless_there_is_no_other() {
    let mut fits = vec![fit(1e6), fit(1e6), fit(1e6)];
    fits[0].loss = Line { basis: Basis::SlopeOfCodec, doubt: Some(Doubt::NoLossSeen), worst_residual: 0.0 };
    let chunks = [chunk(6.0), chunk(0.2), chunk(6.0)];
    let rules = CalibrationRules { share: 1.0, ..CalibrationRules::default() };
    assert_eq!(chosen(&stratify(&chunks, &fits, &rules)), [2]);
    assert_eq!(chosen(&stratify(&chunks[..2], &fits[..2], &rules)), [0, 1]);
}

proptest! {
    #[test]
    fn the_same_chunks_are_chosen_in_any_order(rates in prop::collection::btree_set(10_000..9_000_000_u32, 1..60), turn in 0..60_usize) {
        let mut fits: Vec<FittedCurve> = rates.iter().map(|rate| fit(f64::from(*rate))).collect();
        let chunks = vec![chunk(6.0); fits.len()];
        let rules = CalibrationRules { most: 7, ..CalibrationRules::default() };
        let levels = |fits: &[FittedCurve]| {
            let mut levels: Vec<u64> =
                stratify(&chunks, fits, &rules).iter().map(|s| fits[s.chunk].curve.ln_rate.to_bits()).collect();
            levels.sort_unstable();
            levels
        };
        let straight = levels(&fits);
        let turn = turn % fits.len();
        fits.rotate_left(turn);
        prop_assert_eq!(levels(&fits), straight);
    }
}
