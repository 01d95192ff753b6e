use super::super::facts::ProbePoint;
use super::*;
use crate::plan::narrowband::measured::{SHOTS, Shot};
use crate::plan::preset::VideoCodec;
use proptest::prelude::*;

fn prior() -> Prior {
    Prior::of_codec(VideoCodec::H265, 960.0 * 540.0 * 25.0)
}

fn point(crf: f64, bits: u64, vmaf_neg: f64) -> ProbePoint {
    ProbePoint { crf, bits, vmaf_neg }
}

fn chunk(frames: u64, probes: &[ProbePoint]) -> ChunkFacts {
    ChunkFacts { frames, duration_s: frames as f64 / 25.0, starts_on_cut: true, probes: probes.to_vec(), scaled: Vec::new() }
}

/// What an encoder that keeps to the model gives at a CRF, for 6 s.
fn modelled(curve: &Curve, crf: f64) -> ProbePoint {
    point(crf, (curve.rate_bps(crf) * 6.0).round() as u64, curve.quality(crf))
}

fn healthy() -> ChunkFacts {
    chunk(150, &[point(24.0, 6_000_000, 95.0), point(34.0, 1_500_000, 84.0)])
}

/// Basis and doubt of both lines.
fn pedigree(fit: &FittedCurve) -> [(Basis, Option<Doubt>); 2] {
    [(fit.rate.basis, fit.rate.doubt), (fit.loss.basis, fit.loss.doubt)]
}

#[test]
fn two_points_are_met_exactly_and_lie_on_lines_of_the_logarithm() {
    let fit = fit(&healthy(), &prior());
    assert_eq!(pedigree(&fit), [(Basis::Measured, None); 2]);
    assert!((fit.curve.rate_bps(24.0) - 1_000_000.0).abs() < 1.0 && (fit.curve.rate_bps(34.0) - 250_000.0).abs() < 1.0);
    assert!((fit.curve.quality(24.0) - 95.0).abs() < 1e-6 && (fit.curve.quality(34.0) - 84.0).abs() < 1e-6);
    // Half way the geometric means: 500 kbit/s, and the root of both losses.
    assert!((fit.curve.rate_bps(29.0) - 500_000.0).abs() < 1.0);
    assert!((fit.curve.loss(29.0) - (loss_of(95.0) * loss_of(84.0)).sqrt()).abs() < 1e-6);
    assert_eq!(fit.probed_crf, Some((24.0, 34.0)));
}

/// How far a shot's curve from two of its points is from another: VMAF points, and parts of the rate.
fn missed_by(shot: &Shot, probes: &[usize], other: usize) -> (f64, f64) {
    let curve = fit(&shot.chunk(probes), &prior()).curve;
    let (crf, bits, vmaf) = shot.probed[other];
    ((curve.quality(crf) - vmaf).abs(), (curve.rate_bps(crf) * shot.duration_s / bits as f64 - 1.0).abs())
}

#[test]
fn two_points_of_real_shots_foretell_the_one_between_and_roughly_the_one_beyond() {
    for shot in &SHOTS {
        let (vmaf, rate) = missed_by(shot, &[0, 2], 1);
        assert!(vmaf < 1.0 && rate < 0.07, "{} between: {vmaf:.2} VMAF, {rate:.3}", shot.name);
        let (vmaf, rate) = missed_by(shot, &[0, 2], 3);
        assert!(vmaf < 5.5 && rate < 0.26, "{} beyond: {vmaf:.2} VMAF, {rate:.3}", shot.name);
        let (vmaf, rate) = missed_by(shot, &[1, 3], 2);
        assert!(vmaf < 1.7 && rate < 0.08, "{} between: {vmaf:.2} VMAF, {rate:.3}", shot.name);
    }
}

#[test]
fn a_curve_and_its_inverses_agree() {
    let curve = Curve { ln_rate: 17.0, rate_slope: 0.13, ln_loss: -1.0, loss_slope: 0.1, loss_floor: 2.0 };
    for crf in [15.0, 27.25, 44.0] {
        assert!((curve.crf_of_rate(curve.rate_bps(crf)) - crf).abs() < 1e-9);
        assert!((curve.crf_of_loss(curve.loss(crf)) - crf).abs() < 1e-9);
    }
    assert_eq!(curve.crf_of_loss(2.0), f64::NEG_INFINITY, "no bits cure the floor");
    assert!(curve.quality(200.0) < 1e-9 && curve.loss(27.0) > 100.0 - curve.quality(27.0));
}

#[test]
fn the_shortfall_is_convex_all_the_way_and_true_where_pictures_are_any_good() {
    let curve = Curve { ln_rate: 17.0, rate_slope: 0.13, ln_loss: -1.0, loss_slope: 0.14, loss_floor: 12.0 };
    let at: Vec<f64> = (0..250).map(|n| curve.shortfall(10.0 + f64::from(n) * 0.25)).collect();
    assert!(at.windows(3).all(|s| s[2] - s[1] >= s[1] - s[0] - 1e-9 && s[1] > s[0]));
    for crf in [14.0, 27.0, 40.0] {
        assert!((curve.shortfall(crf) - (100.0 - curve.quality(crf))).abs() < 1e-9);
        let (small, slope) = (1e-4, curve.ln_shortfall_slope(crf).0);
        let rise = (curve.shortfall(crf + small) - curve.shortfall(crf - small)) / (2.0 * small);
        assert!((libm::log(rise) - slope).abs() < 1e-6);
    }
    assert!(curve.shortfall(60.0) > 100.0);
}

#[test]
fn each_way_a_fit_can_be_bad_has_its_fallback() {
    use Basis::{Codec, Measured, SlopeOfCodec};
    use Doubt::{AbsurdSlope, FewFrames, NoLossSeen, NoPoints, OnePoint, WrongSign};
    let sound = (Measured, None);
    let slope = |doubt| (SlopeOfCodec, Some(doubt));
    type Case = (&'static str, ChunkFacts, [(Basis, Option<Doubt>); 2]);
    let cases: Vec<Case> = vec![
        ("no probe", chunk(150, &[]), [(Codec, Some(NoPoints)); 2]),
        ("one probe", chunk(150, &[point(24.0, 6_000_000, 95.0)]), [slope(OnePoint); 2]),
        ("one CRF twice", chunk(150, &[point(24.0, 6_000_000, 95.0), point(24.0, 6_100_000, 95.1)]), [slope(OnePoint); 2]),
        ("black", chunk(150, &[point(24.0, 9_000, 100.0), point(34.0, 8_000, 100.0)]), [slope(AbsurdSlope), slope(NoLossSeen)]),
        ("no bits", chunk(150, &[point(24.0, 0, 95.0), point(34.0, 0, 84.0)]), [(Codec, Some(NoPoints)), sound]),
        ("rate rises", chunk(150, &[point(24.0, 1_000_000, 95.0), point(34.0, 1_500_000, 84.0)]), [slope(WrongSign), sound]),
        ("loss falls", chunk(150, &[point(24.0, 6_000_000, 90.0), point(34.0, 1_500_000, 91.0)]), [sound, slope(WrongSign)]),
        ("loss flat", chunk(150, &[point(24.0, 6_000_000, 97.4), point(34.0, 1_500_000, 97.39)]), [sound, slope(AbsurdSlope)]),
        ("cliff", chunk(150, &[point(24.0, 6_000_000_000, 95.0), point(34.0, 1_000, 84.0)]), [slope(AbsurdSlope), sound]),
        ("two frames", chunk(2, &[point(24.0, 200_000, 95.0), point(34.0, 90_000, 84.0)]), [slope(FewFrames); 2]),
        (
            "scores are no numbers",
            chunk(150, &[point(24.0, 6_000_000, f64::NAN), point(34.0, 1_500_000, f64::INFINITY)]),
            [sound, (Codec, Some(NoPoints))],
        ),
        (
            "the scorer saw nothing",
            chunk(150, &[point(24.0, 6_000_000, 0.0), point(34.0, 1_500_000, 0.0)]),
            [sound, (Codec, Some(NoPoints))],
        ),
        ("CRF is no number", chunk(150, &[point(f64::NAN, 6_000_000, 95.0), point(-3.0, 1, 84.0)]), [(Codec, Some(NoPoints)); 2]),
        (
            "one score is clean",
            chunk(150, &[point(24.0, 6_000_000, 100.0), point(34.0, 1_500_000, 97.0)]),
            [sound, slope(OnePoint)],
        ),
    ];
    for (name, chunk, expected) in cases {
        let fit = fit(&chunk, &prior());
        assert_eq!(pedigree(&fit), expected, "{name}");
        let curve = fit.curve;
        assert!(curve.rate_slope > 0.0 && curve.loss_slope > 0.0 && curve.rate_bps(27.0).is_finite(), "{name}: {curve:?}");
    }
}

#[test]
fn a_fallback_keeps_the_level_that_was_measured() {
    let fit = fit(&chunk(150, &[point(24.0, 1_000_000, 95.0), point(34.0, 1_500_000, 84.0)]), &prior());
    let middle = (1_000_000_f64 * 1_500_000.0).sqrt() / 6.0;
    assert!((fit.curve.rate_bps(29.0) - middle).abs() < 1.0);
    let clean = self::fit(&chunk(150, &[point(24.0, 9_000, 100.0), point(34.0, 8_000, 100.0)]), &prior());
    assert!((clean.curve.loss(34.0) - LEAST_LOSS).abs() < 1e-9, "even the worse one lost nothing that is seen");
}

#[test]
fn a_chunk_that_knows_nothing_is_taken_for_its_titles_median() {
    let like = |factor: u64, vmaf: f64| {
        chunk(150, &[point(24.0, 6_000_000 * factor, vmaf), point(34.0, 1_500_000 * factor, vmaf - 11.0)])
    };
    let title = [like(1, 95.0), chunk(150, &[]), like(3, 93.0), like(9, 90.0), chunk(2, &[point(24.0, 90_000, 95.0)])];
    let fits = fit_title(&title, &prior());
    assert_eq!(pedigree(&fits[1]), [(Basis::Title, Some(Doubt::NoPoints)); 2]);
    assert_eq!(pedigree(&fits[4]), [(Basis::SlopeOfTitle, Some(Doubt::FewFrames)); 2]);
    assert!((fits[1].curve.rate_bps(27.0) / fits[2].curve.rate_bps(27.0) - 1.0).abs() < 1e-9);
    assert_eq!(fits[1].probed_crf, None);
    let two = fit_title(&title[..2], &prior());
    assert_eq!(two[1].rate.basis, Basis::Codec, "one measured chunk is no median");
}

proptest! {
    #[test]
    fn a_fit_finds_the_curve_its_points_were_made_from_in_any_order(
        rate_slope in 0.06..0.25_f64, loss_slope in 0.03..0.2_f64, more in 0..3_usize, turn in 0..5_usize,
    ) {
        let curve = Curve { ln_rate: 17.0, rate_slope, ln_loss: libm::log(loss_of(94.0)) - 27.0 * loss_slope, loss_slope, loss_floor: 0.0 };
        let mut probes: Vec<ProbePoint> =
            [22.0, 32.0, 27.0, 24.5, 29.0][..2 + more].iter().map(|crf| modelled(&curve, *crf)).collect();
        let straight = fit(&chunk(150, &probes), &prior());
        prop_assert!((straight.curve.rate_slope - rate_slope).abs() < 1e-3, "{straight:?}");
        prop_assert!((straight.curve.loss_slope - loss_slope).abs() < 1e-3, "{straight:?}");
        prop_assert!((straight.curve.quality(27.0) - 94.0).abs() < 1e-2);
        prop_assert!(straight.rate.worst_residual < 1e-3 && straight.loss.worst_residual < 1e-3);
        let places = probes.len();
        probes.rotate_left(turn % places);
        prop_assert_eq!(fit(&chunk(150, &probes), &prior()), straight, "bit for bit");
    }

    #[test]
    fn whatever_was_measured_a_curve_can_be_reckoned_with(
        frames in 0..400_u64, duration_s in prop_oneof![Just(f64::NAN), -1.0..20.0_f64, Just(1e300)],
        raw in prop::collection::vec((any::<f64>(), any::<u64>(), any::<f64>(), 0.0..63.0_f64, 0.0..101.0_f64, any::<bool>()), 0..5),
    ) {
        let probes = raw.iter().map(|r| if r.5 { point(r.0, r.1, r.2) } else { point(r.3, r.1, r.4) }).collect();
        let facts = ChunkFacts { frames, duration_s, starts_on_cut: false, probes, scaled: Vec::new() };
        let fit = fit(&facts, &prior());
        prop_assert!(BELIEVED_RATE_SLOPES.contains(&fit.curve.rate_slope) && BELIEVED_LOSS_SLOPES.contains(&fit.curve.loss_slope));
        prop_assert!(fit.curve.ln_rate.is_finite() && fit.curve.ln_loss.is_finite());
        let text = serde_json::to_string(&fit).unwrap();
        prop_assert_eq!(serde_json::from_str::<FittedCurve>(&text).unwrap().rate, fit.rate);
    }
}
