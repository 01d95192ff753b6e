use super::*;
use proptest::prelude::*;

fn sizes(width: u32, height: u32) -> Vec<String> {
    candidates(width, height).iter().map(|c| format!("{} {}x{}", c.name, c.width, c.height)).collect()
}

fn at(candidate: usize, rate_bps: f64, vmaf: f64) -> OperatingPoint {
    OperatingPoint { candidate, rate_bps, vmaf }
}

fn chunk() -> ChunkFacts {
    ChunkFacts { frames: 150, duration_s: 6.0, starts_on_cut: true, probes: Vec::new(), scaled: Vec::new() }
}

/// This rate and loss at CRF 27, and a loss that no bits cure.
fn curve(bps: f64, loss: f64, loss_floor: f64) -> Curve {
    Curve { ln_rate: libm::log(bps) + 0.14 * 27.0, rate_slope: 0.14, ln_loss: libm::log(loss) - 2.7, loss_slope: 0.1, loss_floor }
}

/// Full size, and a half that costs a third and can never be very good.
fn two_sizes() -> Hull {
    let curves = [vec![curve(3e6, 7.0, 0.0), curve(1e6, 5.0, 0.0)], vec![curve(1e6, 9.0, 4.0), curve(3e5, 6.0, 4.0)]];
    Hull::new(&[chunk(), chunk()], &curves, &[(14.0, 44.0); 2])
}

#[test]
fn sizes_are_the_displays_own_and_those_below_it_in_its_shape() {
    assert_eq!(
        sizes(1920, 1080),
        ["1080p 1920x1080", "720p 1280x720", "540p 960x540", "432p 768x432", "360p 640x360", "234p 416x234"]
    );
    assert_eq!(sizes(540, 960), ["540p 540x960", "432p 432x768", "360p 360x640", "234p 234x416"]);
    assert_eq!(sizes(768, 432), ["432p 768x432", "360p 640x360", "234p 416x234"]);
    assert_eq!(sizes(480, 320), ["320p 480x320", "234p 350x234"]);
    assert_eq!(sizes(3840, 2160)[..2], ["2160p 3840x2160", "1080p 1920x1080"]);
    assert_eq!(sizes(161, 121), ["120p 160x120"]);
    assert_eq!(sizes(1, 1), ["2p 2x2"]);
    assert_eq!(sizes(1152, 768)[1], "540p 810x540", "720p is too near to 768");
}

#[test]
fn a_hull_keeps_what_no_mixture_of_others_beats() {
    let points = vec![
        at(0, 8e6, 97.0),
        at(0, 2e6, 85.0),
        at(1, 1e6, 80.0),
        at(1, 2e6, 84.0),
        at(1, 5e5, 60.0),
        at(0, 4e6, 93.0),
        at(0, 9e6, 96.0),
    ];
    assert_eq!(upper_hull(points), [at(1, 5e5, 60.0), at(1, 1e6, 80.0), at(0, 4e6, 93.0), at(0, 8e6, 97.0)]);
    assert_eq!(upper_hull(Vec::new()), []);
}

#[test]
fn a_small_picture_wins_where_bits_are_few_and_the_large_one_where_they_are_many() {
    let hull = two_sizes();
    assert_eq!(hull.at_quality(93.0, 0).unwrap().candidate, 0);
    assert_eq!(hull.at_quality(70.0, 0).unwrap().candidate, 1);
    assert_eq!(hull.at_rate(5e6, 0).unwrap().candidate, 0);
    assert_eq!(hull.at_rate(2e5, 0).unwrap().candidate, 1);
    assert_eq!(hull.at_quality(93.0, 1).unwrap().candidate, 1, "sizes above the given one are left out");
    assert_eq!(hull.at_quality(99.9, 0), None);
}

#[test]
fn a_size_under_the_hulls_chord_is_taken_where_it_is_the_best() {
    // Water: quality falls off at low rates, and the chord from the smallest picture to the largest passes over the one between.
    let large = vec![at(0, 0.6e6, 20.0), at(0, 1.2e6, 42.0), at(0, 3.3e6, 74.0), at(0, 7.5e6, 88.0)];
    let middle = vec![at(1, 0.3e6, 9.0), at(1, 0.65e6, 27.0), at(1, 1.3e6, 49.0), at(1, 3.4e6, 73.0)];
    let small = vec![at(2, 0.06e6, 0.2), at(2, 0.22e6, 9.0), at(2, 0.46e6, 23.0), at(2, 0.87e6, 27.0)];
    let lines = vec![large, middle, small];
    let hull = Hull { hull: upper_hull(lines.iter().flatten().copied().collect()), lines };
    assert!(hull.hull.iter().all(|vertex| vertex.candidate != 1), "{:?}", hull.hull);
    let sizes = [3e6, 1.2e6, 0.7e6, 0.3e6].map(|rate| hull.at_rate(rate, 0).unwrap().candidate);
    assert_eq!(sizes, [0, 1, 1, 2]);
    assert_eq!(hull.at_quality(40.0, 0).unwrap().candidate, 1);
    assert_eq!(hull.at_quality(80.0, 0).unwrap().candidate, 0);
}

#[test]
fn quality_and_rate_ask_the_same_line() {
    let hull = two_sizes();
    for vmaf in [66.0, 75.5, 88.0, 95.0] {
        let point = hull.at_quality(vmaf, 0).unwrap();
        let back = hull.at_rate(point.rate_bps, point.candidate).unwrap();
        assert!((back.vmaf - vmaf).abs() < 0.05, "{point:?} {back:?}");
    }
}

#[test]
fn the_ceiling_is_where_a_doubled_rate_gains_little() {
    // Halving the loss with each doubling of the rate: 8, 4, 2 points gained, then 1, then half of one.
    let lines = |points: &[(f64, f64)]| points.iter().map(|(rate, vmaf)| at(0, *rate, *vmaf)).collect::<Vec<_>>();
    let points = lines(&[(1e6, 84.0), (2e6, 92.0), (4e6, 96.0), (8e6, 98.0), (16e6, 99.0), (32e6, 99.5)]);
    let hull = Hull { hull: upper_hull(points.clone()), lines: vec![points] };
    assert_eq!(hull.ceiling(1.5), Some(98.0));
    assert_eq!(hull.ceiling(0.1), Some(99.5));
    assert_eq!(hull.ceiling(50.0), Some(84.0));
    assert_eq!(Hull { lines: Vec::new(), hull: Vec::new() }.ceiling(1.0), None);
}

proptest! {
    #[test]
    fn no_point_lies_above_the_hull_and_its_slopes_fall(
        raw in prop::collection::vec((0..3_usize, 1e5..1e7_f64, 0.0..100.0_f64), 1..40),
    ) {
        let points: Vec<OperatingPoint> = raw.iter().map(|(c, r, v)| at(*c, *r, *v)).collect();
        let hull = upper_hull(points.clone());
        let slopes: Vec<f64> =
            hull.windows(2).map(|p| (p[1].vmaf - p[0].vmaf) / (p[1].ln_rate() - p[0].ln_rate())).collect();
        prop_assert!(slopes.windows(2).all(|pair| pair[0] >= pair[1]) && slopes.iter().all(|slope| *slope > 0.0));
        for point in &points {
            let after = hull.partition_point(|vertex| vertex.rate_bps < point.rate_bps);
            let bound = match (after.checked_sub(1).map(|n| hull[n]), hull.get(after)) {
                (Some(a), Some(b)) => {
                    a.vmaf + (b.vmaf - a.vmaf) * (point.ln_rate() - a.ln_rate()) / (b.ln_rate() - a.ln_rate())
                }
                (Some(last), None) => last.vmaf,
                (None, first) => first.unwrap().vmaf,
            };
            prop_assert!(point.vmaf <= bound + 1e-9, "{point:?} above {bound}");
        }
    }
}
