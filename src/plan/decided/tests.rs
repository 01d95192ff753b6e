use super::*;
use crate::plan::make::tests::{check, is_kept, picture, preset, source, stereo};
use crate::plan::narrowband::ProbePoint;
use crate::plan::{Revision, analyse_task, calibrate_task, encode_task, repair_task};
use crate::probe::{AudioStream, VideoStream};
use crate::sandbox::protocol::{AnalyseSpent, Damage, Measured, SizedPoint};
use serde_json::json;

/// Ticks a second of the source.
const SECOND: i64 = 12_800;

/// Where a scene begins: at a frame, two seconds and a half after the first.
const CUT: i64 = 63 * 512;

/// A chunk of so many kbit/s and this quality at the lower CRF, a fifth of the rate at the higher one.
fn report(plan: &Plan, chunk: u32, kbps: u64, vmaf: f64, cuts: &[(i64, f64)]) -> AnalyseReport {
    let video = plan.video.as_ref().unwrap();
    let ticks = video.chunk_ticks(chunk as usize);
    let seconds = ticks as f64 / SECOND as f64;
    let [low, high] = video.narrowband.as_ref().unwrap().probe.crf[..] else { panic!("two probes") };
    let point = |crf, kbps: u64, vmaf_neg| ProbePoint { crf, bits: (kbps as f64 * 1000.0 * seconds) as u64, vmaf_neg };
    AnalyseReport {
        chunk,
        frames: (seconds * 25.0).round() as u64,
        ticks,
        probes: vec![point(low, kbps, vmaf), point(high, kbps / 5, vmaf - 14.0)],
        cuts: cuts.iter().map(|(at, strength)| SceneCut { at: 1024 + at, strength: *strength }).collect(),
        texture: None,
        notes: Vec::new(),
        spent: AnalyseSpent::default(),
    }
}

/// A quiet scene, a chase of two chunks, titles; a cut in the first chunk and one where the second begins.
fn reports(plan: &Plan) -> Vec<AnalyseReport> {
    let second_chunk = plan.video.as_ref().unwrap().chunks[1].start.unwrap() - 1024;
    vec![
        report(plan, 0, 700, 95.0, &[(CUT, 0.8), (second_chunk, 0.9)]),
        report(plan, 1, 3000, 91.0, &[]),
        report(plan, 2, 2600, 92.0, &[]),
        report(plan, 3, 120, 98.0, &[]),
    ]
}

fn drafted(name: &str, sound: Vec<AudioStream>) -> (Probe, Preset, Plan) {
    let is_kept = !sound.is_empty();
    let (probe, preset) = (source(vec![picture()], sound), preset(name, &[]));
    let draft = if is_kept {
        check(&format!("{name}-draft"), &probe, &preset)
    } else {
        crate::plan::make(&crate::plan::make::tests::job(), &probe, &preset).unwrap()
    };
    (probe, preset, draft)
}

/// What these reports decide, with nothing calibrated.
fn decide_by(draft: &Plan, probe: &Probe, preset: &Preset, reports: &[AnalyseReport]) -> Result<Revised, PlanError> {
    let surveyed = surveyed(draft, probe, preset, reports)?.plan;
    assert!(surveyed.revision() == crate::plan::Revision::Surveyed);
    decided(&surveyed, probe, preset, reports, &[])
}

fn grounds(revised: &Revised) -> &Grounds {
    revised.grounds.as_ref().unwrap()
}

fn video(plan: &Plan) -> &VideoPlan {
    plan.video.as_ref().unwrap()
}

#[test]
fn a_draft_knows_its_chunks_and_probes_and_the_decided_plan_everything() {
    for name in ["narrowband-h265", "narrowband-h264"] {
        let (probe, preset, draft) = drafted(name, stereo());
        assert!(!draft.is_decided() && video(&draft).rungs.is_empty());
        let decided = decide_by(&draft, &probe, &preset, &reports(&draft)).unwrap();
        is_kept(name, &decided.plan);
        assert!(decided.plan.is_decided());
        let (before, after) = (video(&draft), video(&decided.plan));
        let bounds = |video: &VideoPlan| video.chunks.iter().map(|c| (c.start, c.end, c.keyframe)).collect::<Vec<_>>();
        assert_eq!(bounds(before), bounds(after), "what was analysed is what is encoded");
        assert!(after.rungs.len() >= 3, "{:?}", grounds(&decided).decision.notes);
        assert!(after.narrowband.as_ref().unwrap().crf.iter().all(|of_chunk| of_chunk.len() == after.rungs.len()));
        assert_eq!(serde_json::from_str::<Revised>(&serde_json::to_string(&decided).unwrap()).unwrap(), decided);
    }
}

#[test]
fn the_same_reports_decide_the_same_in_whatever_order_they_come() {
    let (probe, preset, draft) = drafted("narrowband-h265", stereo());
    let mut reports = reports(&draft);
    let first = decide_by(&draft, &probe, &preset, &reports).unwrap();
    reports.reverse();
    assert_eq!(decide_by(&draft, &probe, &preset, &reports).unwrap(), first);
    // What is decided of a decided plan's own draft stays the same, too: its probes are still there.
    assert_eq!(video(&first.plan).narrowband.as_ref().unwrap().probe, video(&draft).narrowband.as_ref().unwrap().probe);
}

#[test]
fn every_chunk_is_encoded_at_its_own_crf_with_parameter_sets_that_do_not_say_so() {
    for (name, parameters) in [("narrowband-h265", "x265-params"), ("narrowband-h264", "x264-params")] {
        let (probe, preset, draft) = drafted(name, Vec::new());
        let plan = decide_by(&draft, &probe, &preset, &reports(&draft)).unwrap().plan;
        let crfs = &video(&plan).narrowband.as_ref().unwrap().crf;
        let tasks: Vec<_> = (0..4).map(|chunk| encode_task(&plan, &probe, chunk, 1)).collect();
        for (task, crfs) in tasks.iter().zip(crfs) {
            let told: Vec<&str> = task.rungs.iter().map(|rung| rung.encoder.options["crf"].as_str()).collect();
            assert_eq!(told, crfs.iter().map(f64::to_string).collect::<Vec<_>>());
        }
        assert_ne!(tasks[0].rungs[0].encoder.options["crf"], tasks[1].rungs[0].encoder.options["crf"], "{crfs:?}");
        let others = |task: &crate::sandbox::protocol::EncodeTask| {
            let mut rungs = task.rungs.clone();
            rungs.iter_mut().for_each(|rung| drop(rung.encoder.options.remove("crf")));
            rungs
        };
        assert_eq!(others(&tasks[0]), others(&tasks[1]), "everything else is the same");
        let written = &tasks[0].rungs[0].encoder.options[parameters];
        assert_eq!(written.contains("stitchable=1"), name == "narrowband-h264", "{written}");
    }
}

#[test]
fn a_rungs_cap_is_at_most_twice_its_mean_rate() {
    let (probe, preset, draft) = drafted("narrowband-h265", Vec::new());
    let decided = decide_by(&draft, &probe, &preset, &reports(&draft)).unwrap();
    for (rung, planned) in grounds(&decided).decision.rungs.iter().zip(&video(&decided.plan).rungs) {
        let parameters = &planned.encoder.options["x265-params"];
        let cap = parameters.split(':').find_map(|p| p.strip_prefix("vbv-maxrate=")).unwrap().parse::<f64>().unwrap();
        assert!(
            cap >= rung.peak_kbps.floor() && cap <= f64::max(2.0 * rung.predicted_kbps, rung.peak_kbps).ceil(),
            "{cap} {rung:?}"
        );
    }
}

#[test]
fn segments_begin_on_cuts_and_sound_with_them() {
    let long = [("chunk.target_s", json!(8)), ("chunk.shortest_s", json!(6)), ("chunk.longest_s", json!(20))];
    let (probe, preset) = (source(vec![picture()], stereo()), preset("narrowband-h265", &long));
    let draft = crate::plan::make(&crate::plan::make::tests::job(), &probe, &preset).unwrap();
    let decided = decide_by(&draft, &probe, &preset, &reports(&draft)).unwrap();
    let chunks = &video(&decided.plan).chunks;
    // Half a frame before the frame of the cut.
    assert_eq!(chunks[0].segments[1], 1024 + CUT - 256);
    assert_eq!(grounds(&decided).grid.starts_on_cut, [true, true, false, false]);
    let starts = chunks.iter().flat_map(|chunk| &chunk.segments).skip(1);
    let heard: Vec<i64> = starts.map(|at| ((at - 1024) * 48_000 + SECOND / 2) / SECOND).collect();
    assert_eq!(decided.plan.audio[0].segments[1..], heard);
    assert_ne!(decided.plan.audio[0].segments, draft.audio[0].segments);
}

#[test]
fn a_title_of_which_nothing_is_known_is_decided_all_the_same() {
    let (probe, preset, draft) = drafted("narrowband-h265", stereo());
    let decided = decide_by(&draft, &probe, &preset, &[]).unwrap();
    assert!(decided.plan.is_decided() && !video(&decided.plan).rungs.is_empty());
    assert!(grounds(&decided).grid.cuts.is_empty());
}

#[test]
fn frames_on_a_clean_clock_keep_the_segments_that_they_may_outrun() {
    let clock = Clock::Untrusted { why: "they start again at packet 400".into() };
    let joined = VideoStream { clock, last_pts: 170_000, end_pts: 170_512, ..picture() };
    let (probe, preset) = (source(vec![joined], Vec::new()), preset("narrowband-h265", &[]));
    let draft = crate::plan::make(&crate::plan::make::tests::job(), &probe, &preset).unwrap();
    let found = [report(&draft, 0, 900, 94.0, &[(CUT, 0.9)])];
    let decided = decide_by(&draft, &probe, &preset, &found).unwrap();
    assert_eq!(video(&decided.plan).chunks, video(&draft).chunks);
}

#[test]
fn a_small_source_is_probed_at_two_fifths_of_its_size_and_analysed_like_it_is_encoded() {
    let phone = VideoStream { width: 640, height: 360, rotation: 90, ..picture() };
    let probe = source(vec![phone], Vec::new());
    let preset = preset("narrowband-h264", &[("narrowband.effort", json!("best"))]);
    let draft = crate::plan::make(&crate::plan::make::tests::job(), &probe, &preset).unwrap();
    let task = analyse_task(&draft, &probe, 2, 3);
    let sizes: Vec<(u32, u32)> = task.encode.rungs.iter().map(|rung| (rung.width, rung.height)).collect();
    assert_eq!((sizes, task.scored_every, task.encode.threads), (vec![(128, 256); 2], 1, 3));
    assert_eq!((task.encode.filters.rotation, task.encode.keyframes.is_empty()), (90, false));
    let told: Vec<&str> = task.encode.rungs.iter().map(|rung| rung.encoder.options["crf"].as_str()).collect();
    assert_eq!(told, task.crf.iter().map(f64::to_string).collect::<Vec<_>>());
}

#[test]
fn another_presets_plan_is_not_decided() {
    let (probe, _, draft) = drafted("narrowband-h265", Vec::new());
    let other = preset("h265", &[]);
    assert!(matches!(decide_by(&draft, &probe, &other, &[]), Err(PlanError::Preset(_))));
    let ladder = crate::plan::make(&crate::plan::make::tests::job(), &probe, &other).unwrap();
    assert!(matches!(decide_by(&ladder, &probe, &preset("narrowband-h265", &[]), &[]), Err(PlanError::Preset(_))));
}

/// A calibration as it would come out where the final settings take half of a probe's bits more and lose as much.
fn calibrated(plan: &Plan, chunk: u32) -> CalibrateReport {
    let wanted = video(plan).narrowband.as_ref().unwrap().calibrations.as_ref().unwrap();
    let wanted = wanted.iter().find(|wanted| wanted.chunk == chunk).unwrap();
    let point = |crf: f64, times: u64| ProbePoint { crf, bits: 600_000 * times / (crf as u64), vmaf_neg: 117.0 - crf };
    let sized = |(rung, crf): (&Rung, &f64)| SizedPoint {
        width: rung.width,
        height: rung.height,
        point: point(*crf, u64::from(rung.height) / 360),
    };
    CalibrateReport {
        chunk,
        frames: 24,
        ticks: 24 * 512,
        finals: wanted.rungs.iter().zip(&wanted.crf).map(sized).collect(),
        probes: vec![point(24.0, 2), point(34.0, 2)],
        scaled: Vec::new(),
        notes: Vec::new(),
        spent: AnalyseSpent::default(),
    }
}

#[test]
fn a_survey_asks_for_the_beginning_of_a_few_chunks_in_the_ladders_sizes_and_final_settings() {
    let (probe, preset, draft) = drafted("narrowband-h265", Vec::new());
    let plan = surveyed(&draft, &probe, &preset, &reports(&draft)).unwrap().plan;
    let chosen = video(&plan).narrowband.as_ref().unwrap().calibrations.as_ref().unwrap();
    assert!((2..=4).contains(&chosen.len()), "{chosen:?}");
    for calibration in chosen {
        assert_eq!((calibration.frames, calibration.rungs.len()), (16, calibration.crf.len()));
        let task = calibrate_task(&plan, &probe, calibration, 2);
        let (reference, rungs) = task.encode.rungs.split_first().unwrap();
        assert_eq!((reference.width, reference.height), (1920, 1080));
        let (encoded, scaled) = rungs.split_at(calibration.rungs.len() + 2);
        assert_eq!(scaled.iter().map(|rung| rung.height).collect::<Vec<_>>(), [720, 540, 432, 360, 234], "what scaling loses");
        assert!(rungs.iter().all(|rung| rung.scale_from.is_none()));
        assert_eq!(encoded[0].encoder.options["preset"], "fast");
        assert_eq!(encoded.last().unwrap().encoder.options["preset"], "superfast", "the probes");
    }
    assert_eq!(surveyed(&draft, &probe, &preset, &[]).unwrap().plan.revision(), Revision::Surveyed, "nothing is known");
}

#[test]
fn calibration_bends_what_is_decided_and_stays_in_the_grounds() {
    let (probe, preset, draft) = drafted("narrowband-h265", Vec::new());
    let plan = surveyed(&draft, &probe, &preset, &reports(&draft)).unwrap().plan;
    let chosen = video(&plan).narrowband.as_ref().unwrap().calibrations.clone().unwrap();
    let mut found: Vec<CalibrateReport> = chosen.iter().map(|calibration| calibrated(&plan, calibration.chunk)).collect();
    let bent = decided(&plan, &probe, &preset, &reports(&plan), &found).unwrap();
    let plain = decided(&plan, &probe, &preset, &reports(&plan), &[]).unwrap();
    assert!(grounds(&bent).calibration.len() >= 2 * chosen.len() && grounds(&plain).calibration.is_empty());
    assert_ne!(video(&bent.plan).narrowband.as_ref().unwrap().crf, video(&plain.plan).narrowband.as_ref().unwrap().crf);
    found.reverse();
    assert_eq!(decided(&plan, &probe, &preset, &reports(&plan), &found).unwrap(), bent);
    found.iter_mut().for_each(|report| report.probes.clear());
    let without = decided(&plan, &probe, &preset, &reports(&plan), &found).unwrap();
    assert_eq!(without, plain, "without the same pictures by the probes' settings a calibration says nothing");
}

/// A chunk whose top rung was measured.
fn encoded(chunk: u32, vmaf_neg: f64) -> EncodeReport {
    EncodeReport {
        chunk,
        frames: 1,
        first_time: Some(0),
        end_time: Some(1),
        head: None,
        next: None,
        damage: Damage::default(),
        preroll_frames: 0,
        rungs: Vec::new(),
        measured: Some(Measured { vmaf_neg, scores: vec![vmaf_neg], scored_every: 12, cpu_s: 0.0 }),
        unmeasured: None,
    }
}

#[test]
fn the_top_rung_of_all_chunks_but_the_pilots_is_set_right_by_them() {
    let (probe, preset, draft) = drafted("narrowband-h265", Vec::new());
    let plan = decide_by(&draft, &probe, &preset, &reports(&draft)).unwrap();
    let narrowband = |revised: &Revised| video(&revised.plan).narrowband.clone().unwrap();
    let pilots = narrowband(&plan).pilots;
    assert_eq!((plan.plan.revision(), pilots.len()), (Revision::Decided, 2), "of four chunks");
    let every = |chunk: u32| encode_task(&plan.plan, &probe, chunk, 1).verification.unwrap().scored_every;
    assert!((0..4).all(|chunk| every(chunk) == if pilots.contains(&chunk) { 3 } else { 11 }), "as many as of a probe");
    let planned = |chunk: u32| grounds(&plan).decision.rungs[0].chunks[chunk as usize].predicted_vmaf;
    let came_out = |by: f64| pilots.iter().map(|chunk| encoded(*chunk, planned(*chunk) + by)).collect::<Vec<EncodeReport>>();
    let mut reports = came_out(-2.0);
    let better = adjusted(&plan, &probe, &preset, &reports).unwrap();
    assert_eq!(better.plan.revision(), Revision::Adjusted);
    for (chunk, (before, after)) in narrowband(&plan).crf.iter().zip(&narrowband(&better).crf).enumerate() {
        let is_pilot = pilots.contains(&(chunk as u32));
        assert!(if is_pilot { after[0] == before[0] } else { after[0] < before[0] }, "{chunk}: {before:?} {after:?}");
        assert_eq!((before[1..].to_vec(), after[0]), (after[1..].to_vec(), grounds(&better).decision.rungs[0].chunks[chunk].crf));
    }
    // Others than pilots are not there yet, and if they are: they were encoded by this plan.
    reports.push(encoded((0..4).find(|chunk| !pilots.contains(chunk)).unwrap(), 50.0));
    reports.reverse();
    assert_eq!(adjusted(&plan, &probe, &preset, &reports).unwrap(), better);
    assert_eq!(serde_json::from_str::<Revised>(&serde_json::to_string(&better).unwrap()).unwrap(), better);
    // Nothing measured, nothing moved; and nobody waits for what does not come.
    let same = adjusted(&plan, &probe, &preset, &[]).unwrap();
    assert_eq!((same.plan.revision(), narrowband(&same).crf), (Revision::Adjusted, narrowband(&plan).crf));
    assert_eq!(grounds(&same).adjustment, None);
}

#[test]
fn a_top_rung_that_missed_is_encoded_once_more_alone_and_only_then() {
    let (probe, preset, draft) = drafted("narrowband-h265", Vec::new());
    let plan = decide_by(&draft, &probe, &preset, &reports(&draft)).unwrap();
    let plan = adjusted(&plan, &probe, &preset, &[]).unwrap();
    let top = &grounds(&plan).decision.rungs[0];
    let as_planned: Vec<EncodeReport> = top.chunks.iter().zip(0..).map(|(chunk, n)| encoded(n, chunk.predicted_vmaf)).collect();
    let all_well = verified(&plan, &probe, &preset, &as_planned).unwrap().plan;
    assert_eq!((all_well.revision(), repair_task(&all_well, &probe, 1, 1)), (Revision::Verified, None));
    let mut missed = as_planned;
    missed[3] = encoded(3, top.floor_vmaf - 3.0);
    let repaired = verified(&plan, &probe, &preset, &missed).unwrap();
    let task = repair_task(&repaired.plan, &probe, 3, 1).unwrap();
    let before = encode_task(&repaired.plan, &probe, 3, 1);
    let crf = |task: &crate::sandbox::protocol::EncodeTask| task.rungs[0].encoder.options["crf"].parse::<f64>().unwrap();
    assert_eq!((task.rungs.len(), &task.rungs[0].name), (1, &before.rungs[0].name));
    assert!(crf(&task) < crf(&before) && task.verification.is_some());
    assert_eq!(repair_task(&repaired.plan, &probe, 0, 1), None);
    assert_eq!(serde_json::from_str::<Revised>(&serde_json::to_string(&repaired).unwrap()).unwrap(), repaired);
}

#[test]
fn with_little_effort_one_probe_is_all_that_is_made() {
    let probe = source(vec![picture()], Vec::new());
    let preset = preset("narrowband-h265", &[("narrowband.effort", json!("turbo"))]);
    let draft = crate::plan::make(&crate::plan::make::tests::job(), &probe, &preset).unwrap();
    assert_eq!(analyse_task(&draft, &probe, 0, 1).crf, [29.0]);
    let plan = surveyed(&draft, &probe, &preset, &[]).unwrap().plan;
    assert_eq!(video(&plan).narrowband.as_ref().unwrap().calibrations, Some(Vec::new()));
    let plan = decided(&plan, &probe, &preset, &[], &[]).unwrap().plan;
    assert_eq!(encode_task(&plan, &probe, 0, 1).verification, None);
}
