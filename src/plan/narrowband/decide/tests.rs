use super::*;
use crate::plan::narrowband::facts::{CalibrationPoint, ChunkFacts, ProbePoint};
use crate::plan::narrowband::stratify::stratify;
use proptest::prelude::*;
use std::path::Path;

/// A chunk with these bits a second and these qualities at CRF 24 and 34.
fn chunk(seconds: f64, starts_on_cut: bool, kbps: (u64, u64), vmaf: (f64, f64)) -> ChunkFacts {
    let probe = |crf, kbps: u64, vmaf_neg| ProbePoint { crf, bits: (kbps as f64 * 1000.0 * seconds) as u64, vmaf_neg };
    ChunkFacts {
        frames: (seconds * 25.0) as u64,
        duration_s: seconds,
        starts_on_cut,
        probes: vec![probe(24.0, kbps.0, vmaf.0), probe(34.0, kbps.1, vmaf.1)],
        scaled: Vec::new(),
    }
}

fn title(width: u32, height: u32, chunks: Vec<ChunkFacts>) -> TitleFacts {
    let (probe_width, probe_height) = if height > 540 { (width * 540 / height, 540) } else { (width, height) };
    TitleFacts {
        codec: VideoCodec::H265,
        display_width: width,
        display_height: height,
        probe_width,
        probe_height,
        chunks,
        calibration: Vec::new(),
    }
}

/// Titles, a walk, a chase of two chunks, a view: what films are made of.
fn film() -> TitleFacts {
    let chunks = vec![
        chunk(6.0, true, (90, 30), (98.0, 95.5)),
        chunk(8.0, true, (800, 220), (93.0, 80.0)),
        chunk(6.4, true, (2100, 560), (92.0, 76.0)),
        chunk(7.2, false, (2600, 640), (91.0, 73.0)),
        chunk(9.0, true, (600, 150), (94.5, 85.0)),
    ];
    TitleFacts { calibration: calibrated(&chunks), ..title(1920, 1080, chunks) }
}

/// What calibration of the chase and of the view would give in 1080p and 720p.
fn calibrated(chunks: &[ChunkFacts]) -> Vec<CalibrationPoint> {
    let point = |chunk: usize, width, height, crf, times: f64, vmaf_neg| CalibrationPoint {
        chunk,
        width,
        height,
        weight: 0.5,
        point: ProbePoint { crf, bits: (chunks[chunk].probes[0].bits as f64 * times) as u64, vmaf_neg },
        head: None,
    };
    vec![
        point(2, 1920, 1080, 27.0, 1.85, 88.5),
        point(4, 1920, 1080, 24.0, 2.70, 94.6),
        point(2, 1280, 720, 27.0, 1.04, 81.0),
        point(4, 1280, 720, 24.0, 1.50, 89.0),
    ]
}

/// One line for each rung: name, kbit/s, quality.
fn lines(decision: &Decision) -> Vec<String> {
    decision.rungs.iter().map(|rung| format!("{} {:.0} {:.1}", rung.name, rung.predicted_kbps, rung.predicted_vmaf)).collect()
}

fn crfs(rung: &RungDecision) -> Vec<f64> {
    rung.chunks.iter().map(|chunk| chunk.crf).collect()
}

/// Compares a decision with its file.
fn check(name: &str, title: &TitleFacts) -> Decision {
    let decision = decide(title, &Rules::default());
    let text = serde_json::to_string_pretty(&decision).unwrap() + "\n";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans").join(format!("{name}.json"));
    if std::env::var_os("UPDATE_PLANS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let wanted = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}; UPDATE_PLANS=1 writes it", file.display()));
    assert!(text == wanted, "{} differs from the decision made:\n{text}", file.display());
    decision
}

#[test]
fn a_film_gets_a_ladder_down_to_slow_connections_each_rung_at_its_goal() {
    let decision = check("narrowband-film", &film());
    for rung in &decision.rungs {
        assert!(rung.predicted_vmaf >= rung.goal_vmaf - 1e-3, "{rung:?}");
        assert!(rung.peak_kbps <= 2.0 * rung.predicted_kbps + 0.1);
    }
}

#[test]
fn nothing_known_still_makes_a_ladder_and_says_so() {
    let unknown = ChunkFacts { frames: 150, duration_s: 6.0, starts_on_cut: true, probes: Vec::new(), scaled: Vec::new() };
    let decision = check("narrowband-unprobed", &title(1280, 720, vec![unknown; 2]));
    assert!(
        decision.rungs.len() > 2 && decision.notes.iter().any(|note| note.contains("no usable probe")),
        "{:?}",
        decision.notes
    );
    let top = &decision.rungs[0];
    assert!((crfs(top)[0] - crfs(top)[1]).abs() <= 0.25, "alike, but for what the steps leave of the goal");
}

#[test]
fn slides_are_few_rungs_and_cheap() {
    let decision = check("narrowband-slides", &title(1024, 768, vec![chunk(20.0, true, (60, 25), (97.5, 95.0)); 3]));
    assert!(decision.rungs.len() <= 2 && decision.rungs[0].predicted_vmaf > 93.0, "{:?}", lines(&decision));
}

#[test]
fn noise_ends_at_its_ceiling() {
    let decision = check("narrowband-noise", &title(640, 480, vec![chunk(6.0, true, (5000, 900), (83.0, 78.0)); 3]));
    // A fixed ladder's best rung of 480 lines would have some 1,180 kbit/s.
    assert!(
        (1_120.0..1_210.0).contains(&decision.rungs[0].predicted_kbps) && decision.rungs[0].predicted_vmaf < 90.0,
        "{:?}",
        lines(&decision)
    );
    assert!(decision.notes.iter().any(|note| note.contains("takes many bits for little")), "{:?}", decision.notes);
}

#[test]
fn two_rungs_of_one_size_have_two_names() {
    let decision = decide(&film(), &Rules::default());
    let names: Vec<&str> = decision.rungs.iter().map(|rung| rung.name.as_str()).collect();
    let unique: std::collections::BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(unique.len(), names.len(), "{names:?}");
    assert!(names.contains(&"1080p-2"), "{names:?}");
}

#[test]
fn no_rung_is_larger_than_the_display_and_none_larger_than_the_one_above() {
    for (width, height) in [(1920, 1080), (540, 960), (416, 240), (3840, 2160), (161, 121)] {
        let title = TitleFacts { display_width: width, display_height: height, calibration: Vec::new(), ..film() };
        let decision = decide(&title, &Rules::default());
        assert!(!decision.rungs.is_empty());
        assert!(decision.rungs.iter().all(|rung| rung.width <= width && rung.height <= height));
        assert!(decision.rungs.windows(2).all(|pair| pair[0].height >= pair[1].height));
    }
}

#[test]
fn a_title_without_chunks_has_no_rungs() {
    let decision = decide(&title(1920, 1080, Vec::new()), &Rules::default());
    assert!(decision.rungs.is_empty() && decision.hull.is_empty());
}

#[test]
fn a_decision_is_the_same_before_and_after_its_facts_went_through_a_file() {
    let facts = film();
    let text = serde_json::to_string(&facts).unwrap();
    let read: TitleFacts = serde_json::from_str(&text).unwrap();
    assert_eq!(decide(&read, &Rules::default()), decide(&facts, &Rules::default()));
    let rules: Rules = toml::from_str("goal_vmaf = 91.0\n[allocation]\npeak_to_mean = 3.0").unwrap();
    assert_eq!((rules.goal_vmaf, rules.second_vmaf, rules.allocation.peak_to_mean), (91.0, 87.0, 3.0));
}

#[test]
fn calibration_is_asked_of_few_chunks_and_bends_the_ladder() {
    let facts = film();
    let strata = stratify(&facts.chunks, &fits(&facts), &Rules::default().calibration);
    assert_eq!(strata.len(), 5);
    let plain = decide(&TitleFacts { calibration: Vec::new(), ..facts.clone() }, &Rules::default());
    let bent = decide(&facts, &Rules::default());
    assert!(
        plain.notes.iter().any(|note| note.contains("rule of thumb")) && !bent.notes.iter().any(|n| n.contains("rule of thumb"))
    );
    assert_ne!(crfs(&plain.rungs[0]), crfs(&bent.rungs[0]));
}

fn any_chunk() -> impl Strategy<Value = ChunkFacts> {
    let probe = (10.0..45.0_f64, 0..9_000_000_u64, prop_oneof![4 => 0.0..100.0_f64, 1 => Just(f64::NAN)]);
    (0..400_u64, 0.04..20.0_f64, any::<bool>(), prop::collection::vec(probe, 0..4)).prop_map(
        |(frames, duration_s, starts_on_cut, probes)| ChunkFacts {
            frames,
            duration_s,
            starts_on_cut,
            probes: probes
                .iter()
                .map(|(crf, bits, vmaf_neg)| ProbePoint { crf: *crf, bits: *bits, vmaf_neg: *vmaf_neg })
                .collect(),
            scaled: Vec::new(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_analysis_found_there_is_a_ladder(chunks in prop::collection::vec(any_chunk(), 1..8), width in 2..4000_u32, height in 2..2400_u32) {
        let count = chunks.len();
        let decision = decide(&title(width, height, chunks), &Rules::default());
        prop_assert!(!decision.rungs.is_empty());
        for rung in &decision.rungs {
            prop_assert_eq!(rung.chunks.len(), count);
            prop_assert!(rung.width % 2 == 0 && rung.height % 2 == 0 && rung.predicted_kbps.is_finite());
            prop_assert!(rung.chunks.iter().all(|chunk| (14.0..=44.0).contains(&chunk.crf)));
        }
        prop_assert!(decision.rungs.windows(2).all(|p| p[0].predicted_kbps >= p[1].predicted_kbps));
    }
}
