//! Whole plans, compared with the files in `tests/plans/`. After a wanted change write them anew with
//! `UPDATE_PLANS=1 cargo test --lib plan::make` and read the difference.

use super::*;
use crate::plan::{Rung, decided, surveyed};
use crate::probe::{AudioStream, Colour, DynamicRange, Keyframe, Scan};
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const SECONDS: i64 = 30;

fn colour(names: [&str; 3], dynamic_range: DynamicRange) -> Colour {
    let [primaries, transfer, matrix] = names.map(str::to_string);
    Colour { full_range: false, primaries, transfer, matrix, dynamic_range, mastering_display: None, content_light: None }
}

/// 30 s of 1080p25 with a keyframe every two seconds.
pub(in crate::plan) fn picture() -> VideoStream {
    let keyframe = |n: i64| Keyframe { pts: 1024 + n * 25_600, dts: n * 25_600, pos: n * 900_000, ordinal: n as u64 * 50 };
    VideoStream {
        index: 0,
        codec: "h264".into(),
        profile: Some("High".into()),
        time_base: Rational::new(1, 12_800),
        width: 1920,
        height: 1080,
        sample_aspect: Rational::new(1, 1),
        rotation: 0,
        pixel_format: "yuv420p".into(),
        bit_depth: 8,
        colour: colour(["bt709"; 3], DynamicRange::Sdr),
        frame_rate: Rational::new(25, 1),
        constant_rate: true,
        interlace: Interlace::Progressive,
        missing: None,
        table: None,
        packets: (SECONDS * 25) as u64,
        first_pts: 1024,
        last_pts: 1024 + SECONDS * 12_800 - 512,
        end_pts: 1024 + SECONDS * 12_800,
        longest_frame: 512,
        shortest_frame: 512,
        clock: Clock::Trusted,
        keyframes: (0..SECONDS / 2).map(keyframe).collect(),
        bit_rate: 6_000_000,
        language: None,
    }
}

fn hdr10() -> VideoStream {
    let mut colour = colour(["bt2020", "smpte2084", "bt2020nc"], DynamicRange::Pq);
    colour.mastering_display = Some("G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)".into());
    colour.content_light = Some("1000,400".into());
    VideoStream { colour, bit_depth: 10, pixel_format: "yuv420p10le".into(), width: 3840, height: 2160, ..picture() }
}

fn sound(index: usize, channels: u32, layout: &str, language: Option<&str>) -> AudioStream {
    AudioStream {
        index,
        codec: "aac".into(),
        time_base: Rational::new(1, 48_000),
        sample_rate: 48_000,
        channels,
        layout: layout.into(),
        first_pts: Some(0),
        end_pts: Some(SECONDS * 48_000),
        language: language.map(str::to_string),
        title: None,
        default: index == 1,
        bit_rate: 128_000,
    }
}

pub(in crate::plan) fn source(video: Vec<VideoStream>, audio: Vec<AudioStream>) -> Probe {
    Probe {
        container: "mov,mp4,m4a,3gp,3g2,mj2".into(),
        bytes: 24_000_000,
        claimed_duration_us: Some(SECONDS * 1_000_000),
        video,
        audio,
        ignored: Vec::new(),
        scan: Scan::Index,
        bytes_read: 100_000,
        notes: Vec::new(),
    }
}

pub(in crate::plan) fn stereo() -> Vec<AudioStream> {
    vec![sound(1, 2, "stereo", Some("eng"))]
}

pub(in crate::plan) fn preset(name: &str, set: &[(&str, serde_json::Value)]) -> Preset {
    let set: BTreeMap<_, _> = set.iter().map(|(path, value)| ((*path).to_string(), value.clone())).collect();
    Preset::built_in(name, &set).unwrap()
}

pub(in crate::plan) fn job() -> Job {
    Job::parse(br#"{"input":{"uri":"in.mp4"},"output":{"uri":"out/"}}"#).unwrap()
}

fn planned(probe: &Probe, preset: &Preset) -> Plan {
    make(&job(), probe, preset).unwrap()
}

/// Compares the plan with its file.
pub(in crate::plan) fn check(name: &str, probe: &Probe, preset: &Preset) -> Plan {
    let plan = planned(probe, preset);
    is_kept(name, &plan);
    plan
}

/// Compares a plan with its file.
pub(in crate::plan) fn is_kept(name: &str, plan: &Plan) {
    let text = serde_json::to_string_pretty(plan).unwrap() + "\n";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans").join(format!("{name}.json"));
    if std::env::var_os("UPDATE_PLANS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let wanted = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}; UPDATE_PLANS=1 writes it", file.display()));
    assert!(text == wanted, "{} differs from the plan made:\n{text}", file.display());
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), *plan);
}

fn rungs(plan: &Plan) -> &[Rung] {
    &plan.video.as_ref().unwrap().rungs
}

fn sizes(plan: &Plan) -> Vec<(&str, u32, u32)> {
    rungs(plan).iter().map(|rung| (rung.name.as_str(), rung.width, rung.height)).collect()
}

#[test]
fn full_hd_gets_the_whole_h265_ladder() {
    let plan = check("h265-1080p25", &source(vec![picture()], stereo()), &preset("h265", &[]));
    assert_eq!(
        sizes(&plan),
        [("1080p", 1920, 1080), ("720p", 1280, 720), ("540p", 960, 540), ("360p", 640, 360), ("240p", 426, 240)]
    );
    assert_eq!(rungs(&plan).iter().map(|rung| rung.scale_from).collect::<Vec<_>>(), [None, None, Some(0), Some(1), Some(2)]);
}

#[test]
fn a_portrait_source_is_measured_by_its_short_side() {
    let phone = VideoStream { rotation: 90, ..picture() };
    let plan = check("h264-portrait", &source(vec![phone], stereo()), &preset("h264", &[]));
    assert_eq!(sizes(&plan)[..2], [("1080p", 1080, 1920), ("720p", 720, 1280)]);
}

#[test]
fn interlaced_standard_definition_is_deinterlaced_in_square_pixels() {
    let broadcast = VideoStream {
        codec: "mpeg2video".into(),
        time_base: Rational::new(1, 90_000),
        width: 720,
        height: 480,
        sample_aspect: Rational::new(32, 27),
        interlace: Interlace::TopFirst,
        frame_rate: Rational::new(30_000, 1001),
        packets: 899,
        first_pts: 183_003,
        last_pts: 183_003 + 898 * 3003,
        end_pts: 183_003 + 899 * 3003,
        longest_frame: 3003,
        shortest_frame: 3003,
        keyframes: (0..60)
            .map(|n| Keyframe { pts: 183_003 + n * 45_045, dts: 176_997 + n * 45_045, pos: -1, ordinal: n as u64 * 15 })
            .collect(),
        colour: colour(["smpte170m"; 3], DynamicRange::Sdr),
        ..picture()
    };
    let probe = source(vec![broadcast], vec![sound(1, 6, "5.1(side)", Some("eng")), sound(2, 2, "stereo", Some("eng"))]);
    let plan = check("h265-480i", &probe, &preset("h265", &[("video.deinterlace", json!("field"))]));
    assert_eq!(sizes(&plan), [("480p", 854, 480), ("360p", 640, 360), ("240p", 426, 240)]);
    let video = plan.video.as_ref().unwrap();
    assert_eq!((video.timescale, video.ticks_per_tick, video.frame_duration), (180_000, 2, 3003));
    assert_eq!(
        plan.audio.iter().map(|a| (a.label.as_str(), a.default)).collect::<Vec<_>>(),
        [("English", true), ("English 2", false)]
    );
}

#[test]
fn hdr10_is_kept_in_ten_bits_and_signalled() {
    let plan = check("h265-hdr10", &source(vec![hdr10()], stereo()), &preset("h265", &[]));
    let top = &rungs(&plan)[0];
    assert_eq!((top.pixel_format.as_str(), top.colour.video_range.as_str()), ("yuv420p10le", "PQ"));
    assert!(top.encoder.options["x265-params"].contains("max-cll=1000,400"));
}

#[test]
fn hdr_is_tone_mapped_for_h264() {
    let plan = check("h264-hdr10", &source(vec![hdr10()], stereo()), &preset("h264", &[]));
    let top = &rungs(&plan)[0];
    assert_eq!((top.pixel_format.as_str(), top.colour.video_range.as_str()), ("yuv420p", "SDR"));
    assert!(plan.video.unwrap().filters.tone_map);
}

#[test]
fn a_lossless_odd_size_is_padded_not_scaled() {
    let odd = VideoStream { width: 161, height: 121, sample_aspect: Rational::new(2, 1), ..picture() };
    let plan = check("mezzanine-odd", &source(vec![odd], Vec::new()), &preset("mezzanine", &[]));
    assert_eq!(sizes(&plan), [("source", 162, 122)]);
    assert_eq!(rungs(&plan)[0].sample_aspect, Rational::new(2, 1));
    assert!(plan.video.unwrap().filters.pad_to_even);
}

#[test]
fn ten_bits_of_422_stay_what_they_are_in_a_mezzanine() {
    let broadcast = VideoStream { pixel_format: "yuv422p10le".into(), bit_depth: 10, height: 1081, ..picture() };
    let plan = check("mezzanine-422-10", &source(vec![broadcast], stereo()), &preset("mezzanine", &[]));
    assert_eq!(sizes(&plan), [("source", 1920, 1081)]);
    assert_eq!(rungs(&plan)[0].pixel_format, "yuv422p10le");
    assert_eq!(plan.notes, Vec::<String>::new());
}

#[test]
fn a_source_without_picture_keeps_its_sound() {
    let mut late = sound(2, 1, "mono", None);
    late.first_pts = Some(96_000);
    let probe = source(Vec::new(), vec![sound(1, 6, "5.1", None), late]);
    let plan = check("audio-only", &probe, &preset("audio", &[]));
    assert_eq!(plan.audio.iter().filter(|a| a.default).count(), 2, "one for each group");
    let plan = planned(&probe, &preset("h265", &[]));
    assert!(plan.video.is_none() && plan.notes.iter().any(|note| note.contains("no video stream")));
}

#[test]
fn a_variable_rate_is_cut_by_time() {
    let screen = VideoStream {
        time_base: Rational::new(1, 1000),
        constant_rate: false,
        frame_rate: Rational::new(1713, 100),
        packets: 514,
        first_pts: 0,
        last_pts: 29_933,
        end_pts: 30_000,
        longest_frame: 2_134,
        shortest_frame: 16,
        keyframes: vec![(0, 0, 48, 0).into(), (11_333, 11_266, 90_000, 180).into(), (25_017, 24_950, 180_000, 430).into()],
        width: 1280,
        height: 696,
        ..picture()
    };
    let plan = check("h264-vfr", &source(vec![screen], stereo()), &preset("h264", &[]));
    assert_eq!(sizes(&plan)[..2], [("696p", 1280, 696), ("540p", 994, 540)]);
}

#[test]
fn timestamps_that_cannot_be_trusted_make_one_chunk() {
    let clock = Clock::Untrusted { why: "they start again at packet 400".into() };
    let joined = VideoStream { clock, last_pts: 170_000, end_pts: 170_512, ..picture() };
    let probe = source(vec![joined], stereo());
    let plan = check("h264-untrusted", &probe, &preset("h264", &[]));
    let task = encode_task(&plan, &probe, 0, 1);
    assert!(task.clean_clock && task.keyframes.is_empty());
}

#[test]
fn av1_restarts_for_every_segment_and_needs_no_delay() {
    let plan = check("av1-1080p25", &source(vec![picture()], stereo()), &preset("av1", &[]));
    assert_eq!(plan.video.as_ref().unwrap().reorder_delay, 0);
    assert!(rungs(&plan).iter().all(|rung| rung.encoder.restart_per_segment));
}

#[test]
fn a_chunk_is_told_of_the_keyframes_before_it() {
    let probe = source(vec![picture()], stereo());
    let plan = planned(&probe, &preset("h265", &[]));
    assert!(encode_task(&plan, &probe, 0, 1).keyframes.is_empty());
    let task = encode_task(&plan, &probe, 2, 3);
    assert_eq!((task.keyframes.len(), task.threads, task.clean_clock), (KEYFRAMES_TOLD, 3, false));
    assert_eq!(Some(task.keyframes[3].pts), task.chunk.start);
    assert_eq!(audio_task(&plan, 0).rendition, plan.audio[0]);
}

#[test]
fn nothing_is_enlarged_unless_asked() {
    let small = VideoStream { width: 200, height: 112, ..picture() };
    let probe = source(vec![small], Vec::new());
    let plan = planned(&probe, &preset("h264", &[]));
    assert_eq!(sizes(&plan), [("112p", 200, 112)]);
    assert!(rungs(&plan)[0].encoder.options["x264-params"].contains("vbv-maxrate=109"), "500 in proportion to 240p");
    assert_eq!(sizes(&planned(&probe, &preset("h264", &[("video.upscale", json!(true))]))).len(), 5);
}

#[test]
fn what_cannot_be_made_says_why() {
    let fail = |probe: &Probe, preset: &Preset| make(&job(), probe, preset).unwrap_err();
    let empty = source(Vec::new(), Vec::new());
    assert!(matches!(fail(&empty, &preset("h264", &[])), PlanError::Media(why) if why.contains("no video or audio stream")));
    let probe = source(vec![picture()], Vec::new());
    assert!(matches!(fail(&probe, &preset("audio", &[])), PlanError::Media(why) if why.contains("no audio stream")));
    let slow = preset("h264", &[("video.speed", json!("8"))]);
    assert!(matches!(fail(&probe, &slow), PlanError::Preset(why) if why.contains("video.speed")));
    let tiny = source(vec![VideoStream { width: 40, height: 32, ..picture() }], Vec::new());
    assert!(matches!(fail(&tiny, &preset("av1", &[])), PlanError::Media(why) if why.contains("64")));
    let endless = source(vec![VideoStream { end_pts: i64::MAX, ..picture() }], Vec::new());
    assert!(matches!(fail(&endless, &preset("h264", &[])), PlanError::Media(why) if why.contains("stream 0")));
}

#[test]
fn no_two_outputs_share_a_folder_or_a_label() {
    let streams = vec![sound(1, 1, "mono", None), sound(2, 6, "5.1", Some("fra")), sound(3, 2, "stereo", Some("fra"))];
    let mut preset = preset("h264", &[("audio.renditions.0.channels", json!("keep"))]);
    let renditions = &mut preset.audio.as_mut().unwrap().renditions;
    renditions.push(crate::plan::preset::AudioRule { kbps: 128, channels: crate::plan::preset::Channels::Stereo });
    let again = preset.video.as_ref().unwrap().rungs[0].clone();
    preset.video.as_mut().unwrap().rungs.push(again);
    let plan = planned(&source(vec![picture()], streams), &preset);
    let folders: Vec<&str> =
        rungs(&plan).iter().map(|r| r.name.as_str()).chain(plan.audio.iter().map(|a| a.name.as_str())).collect();
    assert_eq!(folders.iter().collect::<BTreeSet<_>>().len(), folders.len(), "{folders:?}");
    let labels: BTreeSet<_> = plan.audio.iter().map(|a| (&a.group, &a.label)).collect();
    assert_eq!((labels.len(), plan.audio.len()), (6, 6));
}

#[test]
fn qualities_that_come_out_the_same_are_made_once() {
    let mono = source(Vec::new(), vec![sound(1, 1, "mono", None)]);
    let mut preset = preset("audio", &[("audio.renditions.0.kbps", json!(48))]);
    preset.audio.as_mut().unwrap().renditions.truncate(2);
    let plan = planned(&mono, &preset);
    assert_eq!(plan.audio.iter().map(|a| a.bit_rate).collect::<Vec<_>>(), [32_000]);
}

/// Numbers that a damaged or malicious source may state.
fn wild() -> impl Strategy<Value = i64> {
    prop_oneof![
        prop::sample::select(vec![i64::MIN, i64::MAX, i64::from(i32::MAX), i64::from(i32::MIN), -1, 0, 1, 25, 48_000, 90_000]),
        -100_000_i64..10_000_000,
        any::<i64>(),
    ]
}

proptest! {
    #[test]
    fn no_numbers_of_a_source_can_panic_the_planner(
        n in prop::collection::vec(wild(), 20),
        size in prop::array::uniform2(prop::sample::select(vec![0_u32, 1, 2, 101, 1920, 65_536, u32::MAX])),
        preset_name in prop::sample::select(vec!["h265", "h264", "av1", "mezzanine", "original", "audio", "narrowband-h265"]),
        flags in any::<[bool; 3]>(),
    ) {
        let of = |num: i64, den: i64, usual: (i64, i64)| if flags[0] { Rational::from(usual) } else { Rational::new(num, den) };
        let clock = if flags[1] { Clock::Trusted } else { Clock::Untrusted { why: "wild".into() } };
        let stream = VideoStream {
            time_base: of(n[0], n[1], (1, 90_000)),
            frame_rate: Rational::new(n[2], n[3]),
            sample_aspect: Rational::new(n[4], n[5]),
            first_pts: n[6],
            last_pts: n[7],
            end_pts: n[8],
            longest_frame: n[9],
            packets: n[10].unsigned_abs() % 10_000_000,
            keyframes: n.iter().map(|pts| (*pts, *pts, *pts, 0).into()).collect(),
            constant_rate: flags[2],
            clock,
            width: size[0],
            height: size[1],
            interlace: Interlace::TopFirst,
            ..picture()
        };
        let mut heard = sound(1, n[11] as u32, "wild", None);
        heard.time_base = of(n[12], n[13], (1, 44_100));
        (heard.first_pts, heard.end_pts) = (Some(n[14]), Some(n[15]));
        (heard.sample_rate, heard.bit_rate) = (n[16] as u32, n[17].unsigned_abs());
        let probe = source(vec![stream], vec![heard]);
        if let Ok(plan) = make(&job(), &probe, &preset(preset_name, &[("video.deinterlace", json!("field"))][..usize::from(preset_name != "audio")])) {
            for chunk in plan.video.iter().flat_map(|video| &video.chunks) {
                encode_task(&plan, &probe, chunk.index, 1);
            }
            // What nothing is known of is decided, too; a week of it would take a while.
            if !plan.is_decided() && plan.video.as_ref().is_some_and(|video| video.chunks.len() < 50) {
                let preset = preset(preset_name, &[]);
                let surveyed = surveyed(&plan, &probe, &preset, &[]).map(|revised| revised.plan);
                let _ = surveyed.and_then(|plan| decided(&plan, &probe, &preset, &[], &[]));
            }
        }
    }
}
