use super::*;
use crate::plan::narrowband::facts::{ChunkFacts, ProbePoint};
use crate::plan::narrowband::pilot::PilotRules;
use crate::plan::preset::VideoCodec;
use std::collections::BTreeSet;

fn title(chunks: usize) -> TitleFacts {
    let chunk = |n: usize| {
        let bits = 4_000_000 + n as u64 * 400_000;
        ChunkFacts {
            frames: 150,
            duration_s: 6.0,
            starts_on_cut: true,
            probes: vec![
                ProbePoint { crf: 24.0, bits, vmaf_neg: 93.0 },
                ProbePoint { crf: 34.0, bits: bits / 4, vmaf_neg: 79.0 },
            ],
            scaled: Vec::new(),
        }
    };
    TitleFacts {
        codec: VideoCodec::H265,
        display_width: 1920,
        display_height: 1080,
        probe_width: 960,
        probe_height: 540,
        chunks: (0..chunks).map(chunk).collect(),
        calibration: Vec::new(),
    }
}

#[test]
fn each_chosen_chunk_is_encoded_once_in_each_size_the_ladder_may_have() {
    let tasks = calibrations(&title(36), &Rules::default(), |_, _| true);
    let chunks: BTreeSet<usize> = tasks.iter().map(|task| task.chunk).collect();
    let sizes: BTreeSet<u32> = tasks.iter().map(|task| task.height).collect();
    assert_eq!((chunks.len(), tasks.len()), (12, 12 * sizes.len()));
    assert!(sizes.contains(&1080) && sizes.len() > 1, "{sizes:?}");
    assert!(tasks.iter().all(|task| (16.0..=42.0).contains(&task.crf) && (task.crf * 4.0).fract() == 0.0));
    for height in sizes {
        let crfs: Vec<f64> = tasks.iter().filter(|task| task.height == height).map(|task| task.crf).collect();
        let spread = crfs.iter().fold(f64::MIN, |a, b| a.max(*b)) - crfs.iter().fold(f64::MAX, |a, b| a.min(*b));
        assert!(spread > 1.0, "{height}: {crfs:?} give no tilt");
    }
}

#[test]
fn a_short_title_calibrates_by_what_there_is() {
    let count = |chunks| {
        calibrations(&title(chunks), &Rules::default(), |_, _| true).iter().map(|task| task.chunk).collect::<BTreeSet<_>>().len()
    };
    assert_eq!([1, 2, 3].map(count), [1, 2, 3]);
    assert_eq!(calibrations(&title(0), &Rules::default(), |_, _| true), []);
}

#[test]
fn no_calibration_is_made_of_pictures_that_are_hardly_recognised() {
    let title = title(36);
    let survey = survey(&title, &Rules::default());
    let tasks = calibrations(&title, &Rules::default(), |_, _| true);
    for task in &tasks {
        let size = survey.sizes.iter().position(|size| size.height == task.height).unwrap();
        let without_spread = survey.curves[size][task.chunk].quality(task.crf - SPREAD_CRF);
        assert!(without_spread > LEAST_CALIBRATED_VMAF - 1.0, "{task:?}: {without_spread}");
    }
    // The fixed goal is the top rung's.
    let top: Vec<f64> = tasks.iter().filter(|task| task.height == 1080).map(|task| task.crf).collect();
    let curve = &survey.curves[0][tasks[0].chunk];
    let at_goal = curve.crf_of_loss(loss_of(93.0));
    assert!(top.iter().all(|crf| (crf - at_goal).abs() < SPREAD_CRF + 3.0), "{top:?} around {at_goal}");
}

#[test]
fn as_few_chunks_are_calibrated_as_are_affordable_but_one() {
    let chunks = |tasks: &[CalibrationTask]| tasks.iter().map(|task| task.chunk).collect::<BTreeSet<_>>().len();
    let of = |rules: &Rules, most: usize| {
        let tasks = calibrations(&title(36), rules, |tasks, ladder| {
            assert!((2e6..2e7).contains(&ladder), "from 1080p down, a size several times: {ladder}");
            chunks(tasks) <= most
        });
        let weights: f64 = tasks.iter().filter(|task| task.height == 1080).map(|task| task.weight).sum();
        assert!((weights - 1.0).abs() < 1e-9, "{tasks:?}");
        chunks(&tasks)
    };
    assert_eq!([12, 7, 1, 0].map(|most| of(&Rules::default(), most)), [12, 7, 1, 1]);
    let without = Rules { pilots: PilotRules { most: 0, ..PilotRules::default() }, ..Rules::default() };
    assert_eq!(of(&without, 0), 12, "nobody tells more later");
}
