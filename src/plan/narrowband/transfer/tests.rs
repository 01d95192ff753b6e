use super::*;
use crate::plan::narrowband::curve::{Basis, Line, fit_title};
use crate::plan::narrowband::facts::{ChunkFacts, ProbePoint};
use crate::plan::narrowband::measured::{self, SHOTS};
use crate::plan::narrowband::prior::Prior;
use crate::plan::narrowband::quality_of;
use crate::plan::preset::VideoCodec;
use proptest::prelude::*;

const MEASURED: Line = Line { basis: Basis::Measured, doubt: None, worst_residual: 0.0 };

fn fit(bps: f64, loss: f64) -> FittedCurve {
    let curve = Curve {
        ln_rate: libm::log(bps) + 0.14 * 27.0,
        rate_slope: 0.14,
        ln_loss: libm::log(loss) - 0.1 * 27.0,
        loss_slope: 0.1,
        loss_floor: 0.0,
    };
    FittedCurve { curve, rate: MEASURED, loss: MEASURED, probed_crf: Some((22.0, 32.0)) }
}

fn title(calibration: Vec<CalibrationPoint>) -> TitleFacts {
    let chunk = ChunkFacts { frames: 150, duration_s: 6.0, starts_on_cut: true, probes: Vec::new(), scaled: Vec::new() };
    TitleFacts {
        codec: VideoCodec::H265,
        display_width: 1920,
        display_height: 1080,
        probe_width: 960,
        probe_height: 540,
        chunks: vec![chunk; 3],
        calibration,
    }
}

fn fits() -> Vec<FittedCurve> {
    vec![fit(300_000.0, 5.0), fit(900_000.0, 9.0), fit(2_000_000.0, 14.0)]
}

/// A calibration that a chunk with so many times the probe's rate and this loss would give.
fn calibrated(chunk: usize, crf: f64, rate: f64, loss: f64, weight: f64) -> CalibrationPoint {
    let bits = (fits()[chunk].curve.rate_bps(crf) * 6.0 * rate).round() as u64;
    CalibrationPoint {
        chunk,
        width: 1280,
        height: 720,
        weight,
        point: ProbePoint { crf, bits, vmaf_neg: quality_of(loss) },
        head: None,
    }
}

#[test]
fn without_calibration_size_alone_says_what_to_expect() {
    let at = |width, height| Transfer::estimate(&title(Vec::new()), &fits(), width, height);
    let own = at(1920, 1080);
    let floors = |width, height| at(width, height).curves(&title(Vec::new()), &fits())[0].loss_floor;
    assert_eq!((own.points, floors(1920, 1080), own.loss_factor), (0, 0.0, factor_at_display(VideoCodec::H265)));
    assert!((libm::exp(own.rate_shift) - 2.828).abs() < 0.001, "four times the pixels, 2.8 times the rate");
    let half = at(960, 540);
    assert!(half.rate_shift.abs() < 1e-12 && floors(960, 540) > 5.0 && half.loss_factor > 1.3);
    assert!(floors(416, 234) > floors(960, 540) && at(416, 234).rate_shift < 0.0);
}

#[test]
fn what_all_calibrations_agree_on_is_believed_and_carried_to_every_chunk() {
    let fits = fits();
    let lossy = |chunk: usize, crf: f64| 2.0 + 1.3 * fits[chunk].curve.loss(crf);
    let points = [(0, 24.0), (0, 30.0), (2, 24.0), (2, 30.0), (1, 27.0), (1, 33.0)];
    let calibration = points.iter().map(|(chunk, crf)| calibrated(*chunk, *crf, 1.5, lossy(*chunk, *crf), 0.3)).collect();
    let title = title(calibration);
    let transfer = Transfer::estimate(&title, &fits, 1280, 720);
    assert_eq!(transfer.points, 6);
    assert!((libm::exp(transfer.rate_shift) - 1.5).abs() < 0.01 && transfer.rate_tilt.abs() < 1e-3, "{transfer:?}");
    assert!(
        (transfer.curves(&title, &fits)[0].loss_floor - 2.0).abs() < 0.4 && (transfer.loss_factor - 1.3).abs() < 0.05,
        "{transfer:?}"
    );
    for (n, curve) in transfer.curves(&title, &fits).iter().enumerate() {
        assert!((curve.rate_bps(28.0) / fits[n].curve.rate_bps(28.0) - 1.5).abs() < 0.02);
        assert!((curve.loss(28.0) - lossy(n, 28.0)).abs() < 0.3);
    }
}

#[test]
fn a_tilt_over_crf_is_found() {
    let points = [(0, 20.0), (0, 34.0), (1, 20.0), (1, 34.0), (2, 20.0), (2, 34.0)];
    let tilted = |crf: f64| libm::exp(0.4 + 0.01 * (crf - 27.0));
    let calibration = points.iter().map(|(n, crf)| calibrated(*n, *crf, tilted(*crf), 9.0, 1.0)).collect();
    let title = title(calibration);
    let transfer = Transfer::estimate(&title, &fits(), 1280, 720);
    // Six points: half of it is believed.
    assert!((transfer.rate_tilt - 0.0054).abs() < 0.0005, "{transfer:?}");
    assert!((transfer.curves(&title, &fits())[1].rate_slope - 0.1346).abs() < 0.002);
}

/// The three real shots of full HD as one title, two of them calibrated at CRF 27 in one size.
fn real_title(width: u32, height: u32) -> (TitleFacts, Vec<FittedCurve>) {
    let shots = || SHOTS.iter().filter(|shot| !shot.full.is_empty());
    let calibrated = shots().enumerate().filter(|(_, shot)| shot.name != "drone").map(|(chunk, shot)| {
        let encoded = if height == 1080 { shot.full[1] } else { shot.half[1] };
        CalibrationPoint { chunk, width, height, weight: 0.5, point: measured::point(encoded), head: None }
    });
    let chunks: Vec<ChunkFacts> = shots().map(|shot| shot.chunk(&[0, 2])).collect();
    let title = TitleFacts { chunks, calibration: calibrated.collect(), ..title(Vec::new()) };
    let fits = fit_title(&title.chunks, &Prior::of_codec(VideoCodec::H265, 960.0 * 540.0 * 28.0));
    (title, fits)
}

#[test]
fn real_shots_are_foretold_at_the_final_preset_and_size() {
    for (width, height, own_vmaf, other_vmaf) in [(1920, 1080, 1.5, 2.0), (960, 540, 5.0, 9.0)] {
        let (title, fits) = real_title(width, height);
        let curves = Transfer::estimate(&title, &fits, width, height).curves(&title, &fits);
        for (shot, curve) in SHOTS.iter().zip(&curves) {
            let (most_vmaf, most_rate) = if shot.name == "drone" { (other_vmaf, 0.20) } else { (own_vmaf, 0.07) };
            let encoded = if height == 1080 { shot.full } else { shot.half };
            for (crf, bits, vmaf) in encoded.iter().filter(|encoded| encoded.0 <= 32.0) {
                let (quality, rate) = (curve.quality(*crf), curve.rate_bps(*crf) * shot.duration_s / *bits as f64);
                assert!((quality - vmaf).abs() < most_vmaf, "{} {height}p at {crf}: {quality:.1}, not {vmaf}", shot.name);
                assert!((rate - 1.0).abs() < most_rate, "{} {height}p at {crf}: {rate:.2} of the rate", shot.name);
            }
        }
    }
}

#[test]
fn what_scaling_does_to_a_chunk_is_taken_from_its_own_measurement_and_for_others_from_the_median() {
    let mut title = title(Vec::new());
    let scaled = |height: u32, vmaf_neg| ScaledPoint { width: height * 16 / 9, height, vmaf_neg };
    title.chunks[0].scaled = vec![scaled(540, 90.0), scaled(360, 70.0), scaled(720, f64::NAN)];
    title.chunks[1].scaled = vec![scaled(540, 80.0)];
    let losses = scaling_losses(&title, 960, 540);
    assert_eq!(losses, [loss_of(90.0), loss_of(80.0), loss_of(80.0)]);
    let smaller = scaling_losses(&title, 640, 360);
    assert_eq!(smaller[0], loss_of(70.0));
    // Two thirds lack for a half: 1.78 times the square.
    assert!((smaller[1] / loss_of(80.0) - 16.0 / 9.0).abs() < 1e-9);
    assert_eq!(scaling_losses(&title, 1920, 1080), [0.0; 3]);
}

#[test]
fn a_size_without_calibrations_differs_as_the_nearest_one_with() {
    let title = title(vec![calibrated(1, 27.0, 3.0, 20.0, 1.0)]);
    let sizes = crate::plan::narrowband::hull::candidates(1920, 1080);
    let (all, plain) = (estimate_all(&title, &fits(), &sizes), estimate_all(&self::title(Vec::new()), &fits(), &sizes));
    assert_eq!(all.iter().map(|transfer| transfer.points).collect::<Vec<_>>(), [0, 1, 0, 0, 0, 0]);
    let moved = all[1].rate_shift - plain[1].rate_shift;
    assert!(moved > 0.3 && all.iter().zip(&plain).all(|(a, b)| (a.rate_shift - b.rate_shift - moved).abs() < 1e-12));
    // Floors grow with the square of what a size lacks: 540p lacks a half, 720p a third, 1080p nothing.
    assert!((all[2].floor_offset / all[1].floor_offset - 2.25).abs() < 1e-9 && all[0].floor_offset == 0.0);
}

#[test]
fn a_size_whose_scaling_was_measured_keeps_what_was_measured() {
    let mut title = title(vec![calibrated(1, 27.0, 3.0, 12.0, 1.0)]);
    let scaled = |(width, height, vmaf_neg)| ScaledPoint { width, height, vmaf_neg };
    title.chunks[1].scaled = [(1280, 720, 96.0), (960, 540, 92.0), (416, 234, 60.0)].map(scaled).to_vec();
    let sizes = crate::plan::narrowband::hull::candidates(1920, 1080);
    let all = estimate_all(&title, &fits(), &sizes);
    assert_eq!(all[1].points, 1, "a calibration that lost less than scaling and coding together");
    assert!(all[1].floor_offset < -0.5 && all[1].floor_offset >= -0.5 * loss_of(96.0), "{all:?}");
    assert!(all.iter().all(|transfer| transfer.floor_offset == all[1].floor_offset), "{all:?}");
    let floor = all[5].curves(&title, &fits())[1].loss_floor;
    assert!((floor - loss_of(60.0)).abs() < loss_of(96.0), "not as much less as scaling to 234 lines loses more: {floor}");
}

#[test]
fn one_calibration_moves_the_title_and_its_own_chunk_further() {
    let odd = calibrated(1, 27.0, 3.0, 20.0, 1.0);
    let title = title(vec![odd]);
    let transfer = Transfer::estimate(&title, &fits(), 1280, 720);
    let prior = Transfer::estimate(&self::title(Vec::new()), &fits(), 1280, 720);
    assert!(transfer.rate_shift > prior.rate_shift && transfer.rate_shift < libm::log(3.0));
    let curves = transfer.curves(&title, &fits());
    let rate = |n: usize| curves[n].rate_bps(27.0) / fits()[n].curve.rate_bps(27.0);
    assert!(rate(1) > rate(0) && (rate(1) - 3.0).abs() < 0.2, "{}", rate(1));
    assert!((curves[1].loss(27.0) - 20.0).abs() < 1.0 && curves[0].loss(27.0) < 20.0);
}

#[test]
fn calibrations_that_are_no_measurement_change_nothing() {
    let bad = |change: &dyn Fn(&mut CalibrationPoint)| {
        let mut point = calibrated(0, 27.0, 3.0, 20.0, 1.0);
        change(&mut point);
        point
    };
    let title = title(vec![
        bad(&|p| p.point.bits = 0),
        bad(&|p| p.point.vmaf_neg = f64::NAN),
        bad(&|p| p.point.crf = f64::INFINITY),
        bad(&|p| p.weight = 0.0),
        bad(&|p| p.chunk = 7),
        bad(&|p| p.height = 721),
    ]);
    assert_eq!(Transfer::estimate(&title, &fits(), 1280, 720).points, 0);
}

proptest! {
    #[test]
    fn curves_stay_curves_and_order_does_not_matter(
        raw in prop::collection::vec((0..3_usize, 14.0..44.0_f64, 0.05..20.0_f64, 0.2..400.0_f64, 0.001..1.0_f64), 0..8),
        turn in 0..8_usize,
    ) {
        let mut points: Vec<CalibrationPoint> =
            raw.iter().map(|(chunk, crf, rate, loss, weight)| calibrated(*chunk, *crf, *rate, *loss, *weight)).collect();
        let straight = title(points.clone());
        let transfer = Transfer::estimate(&straight, &fits(), 1280, 720);
        for curve in transfer.curves(&straight, &fits()) {
            prop_assert!(curve.rate_slope > 0.0 && curve.loss_slope > 0.0 && curve.loss_floor >= 0.0, "{curve:?}");
            prop_assert!(curve.rate_bps(27.0).is_finite() && curve.loss(27.0) > 0.0);
        }
        let turn = turn % points.len().max(1);
        points.rotate_left(turn);
        let turned = title(points);
        let again = Transfer::estimate(&turned, &fits(), 1280, 720);
        prop_assert_eq!(again.rate_shift.to_bits(), transfer.rate_shift.to_bits());
        prop_assert_eq!(again.loss_factor.to_bits(), transfer.loss_factor.to_bits());
    }
}
