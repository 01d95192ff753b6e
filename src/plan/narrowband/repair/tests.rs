use super::*;
use crate::plan::narrowband::curve::{Basis, Curve, FittedCurve, Line};
use crate::plan::narrowband::decide::ChunkDecision;
use crate::plan::narrowband::pilot::Pilot;
use crate::plan::preset::VideoCodec;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000;
/// Growth of the loss a CRF, of every chunk here.
const SLOPE: f64 = 0.1;
/// What was done beside the ladder before.
const BESIDE: f64 = 0.135;

/// A title of so many chunks of four seconds, each planned at 93 and CRF 26, with a floor of 85.
pub fn decision(chunks: usize) -> Decision {
    let chunk = ChunkDecision { crf: 26.0, predicted_kbps: 2000.0, predicted_vmaf: 93.0, bound: None };
    let top = RungDecision {
        name: "1080p".into(),
        width: 1920,
        height: 1080,
        goal_vmaf: 93.0,
        floor_vmaf: 85.0,
        predicted_vmaf: 93.0,
        predicted_kbps: 2000.0,
        peak_kbps: 2000.0,
        chunks: vec![chunk; chunks],
    };
    let line = Line { basis: Basis::Measured, doubt: None, worst_residual: 0.0 };
    let curve = Curve { ln_rate: 18.0, rate_slope: 0.14, ln_loss: -0.6, loss_slope: SLOPE, loss_floor: 0.0 };
    let fit = FittedCurve { curve, rate: line, loss: line, probed_crf: Some((24.0, 34.0)) };
    Decision {
        codec: VideoCodec::H265,
        rungs: vec![top],
        candidates: Vec::new(),
        hull: Vec::new(),
        fits: vec![fit; chunks],
        notes: Vec::new(),
    }
}

fn repaired(measured: &[f64]) -> Repairs {
    let chunks: Vec<MeasuredChunk> =
        measured.iter().enumerate().map(|(chunk, vmaf)| MeasuredChunk { chunk, vmaf: *vmaf, kbps: None }).collect();
    repairs(&decision(measured.len()), None, &vec![4 * SECOND; measured.len()], &chunks, BESIDE, &Rules::default())
}

#[test]
fn a_title_that_came_out_as_planned_is_left_alone() {
    let repairs = repaired(&[93.3, 92.9, 92.6, 93.1]);
    assert_eq!((repairs.measured, repairs.below_floor, repairs.chunks.as_slice()), (4, 0, &[][..]));
    assert_eq!((repairs.measured_vmaf, repairs.planned_vmaf), (Some(92.975), Some(93.0)));
}

#[test]
fn a_chunk_under_the_floor_is_brought_to_its_plan_by_one_step_along_its_own_curve() {
    let mut measured = vec![93.0; 30];
    measured[7] = 84.0;
    let repairs = repaired(&measured);
    let [repair] = repairs.chunks[..] else { panic!("{repairs:?}") };
    assert_eq!((repair.chunk, repair.why, repair.wanted_vmaf), (7, RepairCause::BelowFloor, 93.0));
    // ln(7.26 / 17.4) / 0.1 is -8.76; twice the rung's mean rate is reached 4.95 down.
    assert_eq!(repair.crf, 21.0);
}

#[test]
fn a_title_beside_its_goal_is_brought_back_by_the_chunks_that_moved_it_most() {
    let mut measured = vec![93.0; 50];
    for (chunk, vmaf) in [(3, 87.0), (20, 86.0), (40, 90.0), (41, 86.5)] {
        measured[chunk] = vmaf;
    }
    let repairs = repaired(&measured);
    let chosen: Vec<(usize, RepairCause)> = repairs.chunks.iter().map(|repair| (repair.chunk, repair.why)).collect();
    assert_eq!(repairs.measured_vmaf, Some(92.55));
    assert_eq!(chosen, [(20, RepairCause::Mean)], "one is enough to be near");
    assert!(repairs.chunks[0].crf < 26.0);
    // And where bits were given away.
    let mut rich = vec![93.0; 50];
    rich[10..30].fill(95.0);
    let repairs = repaired(&rich);
    assert!(repairs.chunks.iter().all(|repair| repair.crf > 26.0 && (10..30).contains(&repair.chunk)), "{repairs:?}");
    assert_eq!(repairs.chunks.len(), 6, "thirteen of a hundred, and no more");
}

#[test]
fn what_is_far_too_good_is_brought_back_half_the_way_for_its_curve_bends() {
    let mut measured = vec![93.5; 30];
    measured[7] = 98.5;
    let repairs = repaired(&measured);
    let repair = repairs.chunks.iter().find(|repair| repair.chunk == 7).unwrap();
    // ln(7.26 / 1.51) / 0.1 is 15.7.
    assert_eq!((repair.crf_before, repair.crf), (26.0, 30.0));
}

#[test]
fn a_chunk_that_is_better_than_the_goal_is_not_raised_to_a_plan_that_was_better_still() {
    let mut decision = decision(30);
    (0..15).for_each(|n| decision.rungs[0].chunks[n].predicted_vmaf = 97.0);
    let measured = |chunk: usize| MeasuredChunk { chunk, vmaf: if chunk < 15 { 95.0 } else { 92.0 }, kbps: None };
    let chunks: Vec<MeasuredChunk> = (0..30).map(measured).collect();
    let repairs = repairs(&decision, None, &[4 * SECOND; 30], &chunks, BESIDE, &Rules::default());
    assert_eq!(repairs.chunks.iter().map(|repair| repair.chunk).collect::<Vec<_>>(), [15, 16, 17]);
}

#[test]
fn of_a_long_ladder_more_of_the_top_may_be_repaired() {
    let mut decision = decision(3);
    let chunks: Vec<MeasuredChunk> = (0..3).map(|chunk| MeasuredChunk { chunk, vmaf: 94.5, kbps: None }).collect();
    let count = |decision: &Decision, beside: f64| {
        repairs(decision, None, &[4 * SECOND; 3], &chunks, beside, &Rules::default()).chunks.len()
    };
    assert_eq!(count(&decision, BESIDE), 0, "one of three is half of all work");
    decision.rungs = vec![decision.rungs[0].clone(); 6];
    assert_eq!(count(&decision, BESIDE), 2, "two of three are a sixth");
    assert_eq!([0.2, 0.25, 0.4].map(|beside| count(&decision, beside)), [1, 0, 0], "more was done before");
}

#[test]
fn what_was_not_measured_is_not_repaired_and_an_empty_title_neither() {
    assert_eq!(repaired(&[]), Repairs { measured: 0, ..Repairs::default() });
    let foreign = [MeasuredChunk { chunk: 9, vmaf: 20.0, kbps: None }, MeasuredChunk { chunk: 0, vmaf: f64::NAN, kbps: None }];
    let none = repairs(&decision(2), None, &[SECOND; 2], &foreign, BESIDE, &Rules::default());
    assert_eq!((none.measured, none.chunks.len()), (0, 0));
}

proptest! {
    #[test]
    fn repairs_are_few_within_the_encoder_and_the_same_in_any_order(
        measured in prop::collection::vec(0.0..100.0_f64, 1..60),
        turn in 0..60_usize,
    ) {
        let mut chunks: Vec<MeasuredChunk> =
            measured.iter().enumerate().map(|(chunk, vmaf)| MeasuredChunk { chunk, vmaf: *vmaf, kbps: None }).collect();
        let (decision, weights) = (decision(measured.len()), vec![2 * SECOND; measured.len()]);
        let rules = Rules::default();
        let first = repairs(&decision, None, &weights, &chunks, 0.0, &rules);
        let most = (measured.len() as f64 * rules.repair.share).floor().max(1.0) as usize;
        prop_assert!(first.chunks.len() <= most, "{} of {}", first.chunks.len(), measured.len());
        prop_assert!(first.chunks.iter().all(|r| (14.0..=44.0).contains(&r.crf) && (r.crf * 4.0).fract() == 0.0));
        chunks.rotate_left(turn % measured.len());
        prop_assert_eq!(repairs(&decision, None, &weights, &chunks, 0.0, &rules), first);
    }
}

#[test]
fn what_chunks_came_to_says_how_far_a_repair_may_go() {
    let measured = |kbps: [f64; 3]| -> Vec<MeasuredChunk> {
        let vmaf = [93.0, 93.0, 80.0];
        (0..3).map(|chunk| MeasuredChunk { chunk, vmaf: vmaf[chunk], kbps: Some(kbps[chunk]) }).collect()
    };
    let crf = |kbps| repairs(&decision(3), None, &[4 * SECOND; 3], &measured(kbps), BESIDE, &Rules::default()).chunks[0].crf;
    // It took fewer bits than planned, so more CRFs lie below twice the mean; or the mean is lower, so fewer do.
    assert_eq!(crf([2000.0, 2000.0, 2000.0]), 21.0);
    assert_eq!(crf([2600.0, 2600.0, 1200.0]), 18.0, "as far as repairs go");
    assert_eq!(crf([1000.0, 1000.0, 1600.0]), 23.0);
}

#[test]
fn what_pilots_missed_and_the_others_could_not_make_up_is_repaired() {
    let mut told = decision(4);
    // The decision knows of the pilot by now that it came to 88, and wants 94 of the others.
    told.rungs[0].chunks[1].predicted_vmaf = 88.0;
    for other in [0, 2, 3] {
        told.rungs[0].chunks[other].predicted_vmaf = 94.0;
    }
    let pilot = Pilot { chunk: 1, planned_vmaf: 93.0, measured_vmaf: 88.0, planned_kbps: 2000.0, kbps: 2000.0 };
    let (loss_shift, rate_shift, wanted_vmaf, moved_crf) = (0.3, 0.0, 94.0, -5.0);
    let first = Adjustment { planned_vmaf: 93.0, pilots: vec![pilot], loss_shift, rate_shift, wanted_vmaf, moved_crf };
    let came = [94.0, 88.0, 94.0, 94.0].iter().enumerate();
    let came: Vec<MeasuredChunk> = came.map(|(chunk, vmaf)| MeasuredChunk { chunk, vmaf: *vmaf, kbps: None }).collect();
    let repairs = repairs(&told, Some(&first), &[4 * SECOND; 4], &came, -0.3, &Rules::default());
    let [repair] = repairs.chunks[..] else { panic!("{repairs:?}") };
    assert_eq!((repair.chunk, repair.planned_vmaf, repair.why), (1, 93.0, RepairCause::Mean));
    assert!(repair.wanted_vmaf <= 93.0 && repair.crf < repair.crf_before, "{repair:?}");
}
