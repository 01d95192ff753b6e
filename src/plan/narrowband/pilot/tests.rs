use super::*;
use crate::plan::narrowband::decide::CandidateCurve;
use crate::plan::narrowband::facts::{ProbePoint, TitleFacts};
use crate::plan::narrowband::hull::Candidate;
use crate::plan::narrowband::repair::tests::decision as of_one_rung;
use crate::plan::narrowband::transfer::Transfer;
use crate::plan::preset::VideoCodec;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000;

/// A title of chunks of four seconds, each planned at 93, CRF 26 and 2 Mbit/s, with a floor of 85, above a rung of half the rate.
fn decision(chunks: usize) -> Decision {
    let mut decision = of_one_rung(chunks);
    let lower = RungDecision { name: "720p".into(), predicted_kbps: 1000.0, ..decision.rungs[0].clone() };
    decision.rungs.push(lower);
    decision
}

fn measured(chunk: usize, vmaf: f64, kbps: f64) -> MeasuredChunk {
    MeasuredChunk { chunk, vmaf, kbps: Some(kbps) }
}

fn by(decision: &Decision, measured: &[MeasuredChunk]) -> (RungDecision, Adjustment) {
    let weights = vec![4 * SECOND; decision.rungs[0].chunks.len()];
    let pilots: Vec<usize> = measured.iter().map(|measured| measured.chunk).collect();
    let (adjusted, adjustment) = adjust(decision, &pilots, &weights, &[], measured, &Rules::default()).unwrap();
    assert_eq!(adjusted.rungs[1..], decision.rungs[1..], "other rungs were not measured");
    (adjusted.rungs[0].clone(), adjustment)
}

#[test]
fn what_one_pilot_missed_the_others_do_not_miss_and_make_up_for() {
    // 93.9 for 93 with 10 % less: ln(6.294 / 7.257) is -0.1424 and ln(0.9) -0.1054, of which 0.04 / 0.0464 is believed.
    let (top, adjustment) = by(&decision(3), &[measured(1, 93.9, 1800.0)]);
    assert_eq!((adjustment.loss_shift, adjustment.rate_shift), (-0.1227, -0.0908));
    assert_eq!(adjustment.wanted_vmaf, 92.55, "0.9 too good in one of three");
    // ln(7.742 / 7.257) is 0.0647, and 0.1227 is to be had for nothing: 0.1874 at 0.1 a CRF.
    assert!((adjustment.moved_crf - 1.874).abs() < 0.002, "{adjustment:?}");
    let crfs: Vec<f64> = top.chunks.iter().map(|chunk| chunk.crf).collect();
    assert_eq!(crfs, [27.75, 26.0, 27.75]);
    assert_eq!((top.chunks[1].predicted_vmaf, top.chunks[1].predicted_kbps), (93.9, 1800.0), "what it came to");
    assert!((top.predicted_vmaf - 93.0).abs() < 0.1, "{}", top.predicted_vmaf);
    // 2000 exp(-0.0908 - 0.14 x 1.75).
    assert!((top.chunks[0].predicted_kbps - 1429.5).abs() < 0.2 && top.peak_kbps == 1800.0, "{top:?}");
    assert_eq!(adjustment.pilots.len(), 1);
}

#[test]
fn pilots_that_disagree_say_less_of_the_others() {
    let of = |vmafs: &[f64]| {
        let measured: Vec<MeasuredChunk> = vmafs.iter().enumerate().map(|(n, vmaf)| measured(n, *vmaf, 2000.0)).collect();
        by(&decision(9), &measured).1.loss_shift
    };
    let (one, like, unlike) = (of(&[92.0]), of(&[92.0, 92.0]), of(&[93.9, 90.0]));
    assert!(like > one && one > unlike && unlike > 0.0, "{one} {like} {unlike}");
}

#[test]
fn where_all_is_as_planned_nothing_moves() {
    let planned = decision(9);
    let (top, adjustment) = by(&planned, &[measured(2, 93.0, 2000.0), measured(6, 93.0, 2000.0)]);
    assert_eq!(top.chunks, planned.rungs[0].chunks);
    assert_eq!((adjustment.loss_shift, adjustment.wanted_vmaf), (0.0, 93.0));
    let (top, _) = by(&planned, &[measured(2, 93.05, 2000.0)]);
    assert!(top.chunks.iter().all(|chunk| chunk.crf == 26.0), "under half a step");
}

#[test]
fn of_a_pilot_that_says_nothing_nothing_follows() {
    let (decision, weights, rules) = (decision(3), [4 * SECOND; 3], Rules::default());
    let of = |pilots: &[usize], told: &[MeasuredChunk]| adjust(&decision, pilots, &weights, &[], told, &rules);
    assert_eq!(of(&[1], &[]), None);
    assert_eq!(of(&[1, 9], &[measured(1, f64::NAN, 1.0), measured(9, 93.0, 1.0)]), None);
    assert_eq!(of(&[1], &[measured(0, 90.0, 1.0)]), None, "no pilot");
    let none = Decision { rungs: Vec::new(), ..decision.clone() };
    assert_eq!(adjust(&none, &[1], &weights, &[], &[measured(1, 93.0, 1.0)], &rules), None);
    let (top, _) = by(&decision, &[MeasuredChunk { chunk: 1, vmaf: 93.0, kbps: None }]);
    assert_eq!(top.chunks[1].predicted_kbps, 2000.0, "a rate that is not known is the planned one");
}

#[test]
fn a_pilot_that_was_not_measured_stays_as_it_was_encoded() {
    let (planned, weights) = (decision(6), [4 * SECOND; 6]);
    let (adjusted, adjustment) =
        adjust(&planned, &[1, 4], &weights, &[], &[measured(1, 91.0, 2000.0)], &Rules::default()).unwrap();
    let top = &adjusted.rungs[0];
    assert_eq!((top.chunks[4], adjustment.pilots.len()), (planned.rungs[0].chunks[4], 1));
    assert!([0, 2, 3, 5].iter().all(|n| top.chunks[*n].crf < 26.0) && top.chunks[1].crf == 26.0, "{top:?}");
    assert_eq!(adjustment.wanted_vmaf, 93.5, "two points in one chunk, of four that can make up for them");
}

#[test]
fn no_more_is_bought_than_the_decision_may() {
    // A source at its ceiling: a point a doubling.
    let mut ceiling = decision(9);
    ceiling.fits.iter_mut().for_each(|fit| fit.curve.loss_slope = 0.02);
    let (top, adjustment) = by(&ceiling, &[measured(4, 91.0, 2000.0)]);
    assert_eq!((adjustment.moved_crf, top.chunks[0].crf), (0.0, 26.0), "{adjustment:?}");
    // At the rate of a fixed ladder's best rung, which is 5.8 Mbit/s for 1080p in H.265.
    let display = Candidate { name: "1080p".into(), width: 1920, height: 1080 };
    let highest = highest_rate_bps(VideoCodec::H265, &display, &Rules::default()) / 1000.0;
    let mut costly = decision(9);
    let points = Vec::new();
    let transfer = Transfer::estimate(&title_of_nothing(), &[], 1920, 1080);
    costly.candidates = vec![CandidateCurve { size: display, transfer, points }];
    costly.rungs[0].chunks.iter_mut().for_each(|chunk| chunk.predicted_kbps = highest * 0.95);
    costly.rungs[0].predicted_kbps = highest * 0.95;
    costly.rungs[0].peak_kbps = highest * 0.95;
    let (top, _) = by(&costly, &[measured(4, 90.0, highest * 0.95)]);
    assert!(top.chunks[0].crf < 26.0 && top.predicted_kbps <= highest * 1.02, "{} for {highest}", top.predicted_kbps);
}

fn title_of_nothing() -> TitleFacts {
    TitleFacts {
        codec: VideoCodec::H265,
        display_width: 1920,
        display_height: 1080,
        probe_width: 480,
        probe_height: 270,
        chunks: Vec::new(),
        calibration: Vec::new(),
    }
}

#[test]
fn next_to_100_nothing_is_bought_for_what_cannot_be_told_from_none() {
    let mut black = decision(3);
    black.rungs[0].chunks.iter_mut().for_each(|chunk| chunk.predicted_vmaf = 99.97);
    let (top, adjustment) = by(&black, &[measured(1, 99.97, 2000.0)]);
    assert!(adjustment.moved_crf >= 0.0 && top.chunks[0].crf >= 26.0, "{adjustment:?}");
}

#[test]
fn a_pilot_far_off_moves_nothing_beyond_limits() {
    let (top, adjustment) = by(&decision(3), &[measured(0, 60.0, 2000.0)]);
    assert_eq!(
        (adjustment.wanted_vmaf, top.chunks[1].crf),
        (95.0, 23.0),
        "no more is made up for than two points, nor more asked than the cap"
    );
    let mut capless = decision(3);
    capless.rungs[0].peak_kbps = 3900.0;
    let (top, _) = by(&capless, &[measured(0, 60.0, 2000.0)]);
    assert_eq!(top.chunks[1].crf, 21.0, "five steps");
    let (top, adjustment) = by(&decision(3), &[measured(0, 99.5, 2000.0)]);
    assert_eq!(adjustment.wanted_vmaf, 91.0);
    assert!(top.chunks[1].crf <= 30.0 && top.chunks[1].predicted_vmaf > 85.0, "{top:?}");
}

#[test]
fn within_a_scene_chunks_stay_near_their_pilots() {
    let (mut planned, weights, rules) = (decision(6), [4 * SECOND; 6], Rules::default());
    planned.rungs[0].peak_kbps = 3900.0;
    let of = |planned: &Decision, starts_on_cut: &[bool]| {
        let (adjusted, _) = adjust(planned, &[2], &weights, starts_on_cut, &[measured(2, 60.0, 2000.0)], &rules).unwrap();
        adjusted.rungs[0].chunks.iter().map(|chunk| chunk.crf).collect::<Vec<f64>>()
    };
    assert_eq!(of(&planned, &[true; 6]), [21.0, 21.0, 26.0, 21.0, 21.0, 21.0]);
    assert_eq!(of(&planned, &[true, false, false, false, false, true]), [21.0, 22.0, 26.0, 22.0, 21.0, 21.0]);
    planned.rungs[0].chunks[1].crf = 20.0;
    assert_eq!(of(&planned, &[false; 6])[1], 20.0, "a floor had it there");
}

#[test]
fn the_top_rung_stays_above_the_next_one_and_its_chunks_under_the_peak() {
    let mut near = decision(3);
    near.rungs[1].predicted_kbps = 1730.0;
    let (top, _) = by(&near, &[measured(0, 95.5, 2000.0)]);
    // ln(2000 / (1.15 x 1730)) / 0.14 is 0.04: less than half a step.
    assert_eq!(top.chunks[1].crf, 26.0);
    let mut uneven = decision(6);
    uneven.rungs[0].chunks[5] = ChunkDecision { predicted_kbps: 3900.0, ..uneven.rungs[0].chunks[5] };
    let (top, _) = by(&uneven, &[measured(0, 90.0, 2000.0)]);
    assert!(top.chunks[1].crf < 24.0, "{top:?}");
    assert!(top.chunks[5].predicted_kbps <= 2.0 * top.predicted_kbps * 1.02, "{top:?}");
    assert_eq!(top.peak_kbps, top.chunks[5].predicted_kbps);
}

#[test]
fn pilots_are_few_and_of_all_kinds() {
    let chunk = |kbps: u64| {
        let point = |crf, vmaf_neg| ProbePoint { crf, bits: kbps * 4000, vmaf_neg };
        let probes = vec![point(26.0, 92.0), ProbePoint { bits: kbps * 800, ..point(38.0, 70.0) }];
        ChunkFacts { frames: 100, duration_s: 4.0, starts_on_cut: false, probes, scaled: Vec::new() }
    };
    let of = |count: u64| {
        let chunks: Vec<ChunkFacts> = (0..count).map(|n| chunk(500 + 100 * n)).collect();
        pilots(&chunks, &of_one_rung(chunks.len()).fits, &Rules::default())
    };
    assert_eq!(of(1), Vec::<usize>::new());
    assert_eq!([2, 3, 5, 17, 2000].map(|count| of(count).len()), [1, 1, 2, 3, 8]);
    assert!(of(17).is_sorted_by(|a, b| a < b));
    let mut short: Vec<ChunkFacts> = [500, 600, 700].map(chunk).into();
    short[1].frames = 59;
    assert_eq!(pilots(&short[..1], &of_one_rung(1).fits, &Rules::default()), Vec::<usize>::new());
    assert!(
        [[0], [2]].iter().any(|long| pilots(&short, &of_one_rung(3).fits, &Rules::default()) == long),
        "a short one tells little"
    );
    let none = Rules { pilots: PilotRules { most: 0, ..PilotRules::default() }, ..Rules::default() };
    assert_eq!(pilots(&[chunk(500), chunk(900)], &of_one_rung(2).fits, &none), Vec::<usize>::new());
}

proptest! {
    /// Whatever is measured: every chunk has a CRF that the encoder takes, pilots keep theirs, and the same facts in another order
    /// give the same.
    #[test]
    fn an_adjustment_is_sound(
        chunks in 2_usize..12,
        told in prop::collection::vec((0_usize..14, -5.0_f64..130.0, 0.0_f64..9000.0), 0..6),
        crf in 15.0_f64..40.0,
        starts_on_cut in prop::collection::vec(any::<bool>(), 12),
    ) {
        let mut planned = decision(chunks);
        planned.rungs[0].chunks.iter_mut().for_each(|chunk| chunk.crf = crf);
        let mut measured: Vec<MeasuredChunk> = told.iter().map(|(chunk, vmaf, kbps)| measured(*chunk, *vmaf, *kbps)).collect();
        measured.sort_by_key(|measured| measured.chunk);
        measured.dedup_by_key(|measured| measured.chunk);
        let (weights, rules) = (vec![4 * SECOND; chunks], Rules::default());
        let pilots: Vec<usize> = measured.iter().map(|measured| measured.chunk).filter(|chunk| chunk % 2 == 0).collect();
        let found = adjust(&planned, &pilots, &weights, &starts_on_cut, &measured, &rules);
        measured.reverse();
        prop_assert_eq!(&found, &adjust(&planned, &pilots, &weights, &starts_on_cut, &measured, &rules));
        if let Some((adjusted, adjustment)) = found {
            let range = &rules.allocation.crf;
            for (n, chunk) in adjusted.rungs[0].chunks.iter().enumerate() {
                let is_pilot = pilots.contains(&n);
                prop_assert!(adjustment.pilots.iter().all(|pilot| pilots.contains(&pilot.chunk)));
                prop_assert!(chunk.crf == crf || !is_pilot && (range.lowest..=range.highest).contains(&chunk.crf), "{:?}", chunk);
                prop_assert!((0.0..=100.0).contains(&chunk.predicted_vmaf) && chunk.predicted_kbps >= 0.0, "{:?}", chunk);
                prop_assert!((chunk.crf - crf).abs() <= MOST_MOVE_DOWN_CRF + range.step, "{:?}", chunk);
                let before = n.checked_sub(1).filter(|_| !starts_on_cut[n]);
                if let Some((before, step)) = before.map(|before| (before, rules.allocation.largest_step_crf)) {
                    let most = if is_pilot || pilots.contains(&before) { 2.0 * step } else { step };
                    let stepped = (chunk.crf - adjusted.rungs[0].chunks[before].crf).abs();
                    prop_assert!(stepped <= most + range.step, "{} to {}: {}", before, n, stepped);
                }
            }
        }
    }
}
