use super::super::fixture::{plan_and_markers, proof};
use super::*;
use crate::job::OnDamage;

fn encoded(marker: &mut Marker) -> &mut EncodeReport {
    match &mut marker.result {
        PartResult::Encode(report) => report,
        other => panic!("not an encode marker: {other:?}"),
    }
}

fn heard(marker: &mut Marker) -> &mut AudioReport {
    match &mut marker.result {
        PartResult::Audio(report) => report,
        other => panic!("not an audio marker: {other:?}"),
    }
}

/// What the good markers give once `mutate` has been at them.
fn after(mutate: impl FnOnce(&mut Plan, &mut Vec<Marker>)) -> Result<Title, SeamError> {
    let (mut plan, mut markers) = plan_and_markers();
    mutate(&mut plan, &mut markers);
    join(&plan, &markers)
}

/// A mutation of good markers, and what the refusal must say.
type Case = (fn(&mut Vec<Marker>), &'static str);

const CASES: &[Case] = &[
    (|m| drop(m.remove(0)), "encode/00000 has no marker: it is not done"),
    (|m| drop(m.remove(3)), "audio/00001 has no marker: it is not done"),
    (|m| m.push(m[1].clone()), "encode/00001 has more than one marker"),
    (
        |m| {
            m.push(m[1].clone());
            m[6].part = PartId::Encode(7);
        },
        "encode/00007 is no part of this plan",
    ),
    (
        |m| encoded(&mut m[1]).chunk = 3,
        "encode/00001, all renditions: report of the part: expected encode/00001, found encode/00003",
    ),
    (
        |m| heard(&mut m[2]).name = "audio-9".into(),
        "audio/00000, all renditions: report of the part: expected audio/00000, found audio-9",
    ),
    (|m| drop(encoded(&mut m[1]).rungs.remove(1)), "encode/00001: rendition '360p' was not encoded"),
    (|m| encoded(&mut m[1]).rungs[1].name = "480p".into(), "encode/00001: the plan has no rendition '480p'"),
    (|m| m[1].objects[0].sha256 = "beef".into(), "encode/00001, 1080p: SHA-256 of the init segment: expected 00"),
    (
        |m| encoded(&mut m[1]).rungs[0].init.codecs = "avc1.640029".into(),
        "encode/00001, 1080p: codecs: expected avc1.640028, found avc1.640029",
    ),
    (|m| encoded(&mut m[1]).rungs[1].init.timescale = 9, "encode/00001, 360p: timescale: expected 10000, found 9"),
    (|m| encoded(&mut m[0]).rungs[1].frames = 199, "encode/00000, 360p: frames: expected 200, found 199"),
    (
        |m| encoded(&mut m[0]).rungs[0].segments[1].samples = 99,
        "encode/00000, 1080p: samples of all segments: expected 200, found 199",
    ),
    (
        |m| encoded(&mut m[0]).rungs[1].segments[1].time = 40_001,
        "encode/00000, 360p: segment grid (number, time, duration): expected (1, 40000, 40000), found (1, 40001, 40000)",
    ),
    (
        |m| {
            let rung = &mut encoded(&mut m[0]).rungs[1];
            rung.segments.truncate(1);
            rung.segments[0].samples = 200;
        },
        "encode/00000, 360p: segment grid (number, time, duration): expected (1, 40000, 40000), found no segment",
    ),
    (|m| drop(m[0].objects.remove(1)), "expected 2500000 bytes of 1080p/00000.m4s, found no such object"),
    (|m| m[0].objects[1].bytes = 1, "expected 2500000 bytes of 1080p/00000.m4s, found 1 bytes"),
    (|m| m[2].objects[0].bytes = 1, "audio/00000, audio-0-128k: bytes of an object: expected 800 bytes of"),
    (|m| encoded(&mut m[1]).first_time = Some(80_400), "encode/00001, 1080p: first time: expected 80400, found 80000"),
    (|m| encoded(&mut m[1]).end_time = None, "encode/00001, 1080p: end time: expected no time, found 100000"),
    (
        |m| encoded(&mut m[0]).rungs.iter_mut().for_each(|r| r.segments[0].duration = 39_600),
        "encode/00000, 1080p: time of a segment: expected 39600, found 40000",
    ),
    (
        |m| encoded(&mut m[1]).rungs.iter_mut().for_each(|r| r.segments[0].index = 1),
        "encode/00001, 1080p: number of a segment, greater than the one before: expected more than 1, found 1",
    ),
    (
        |m| {
            let report = encoded(&mut m[1]);
            report.first_time = Some(80_400);
            report.end_time = Some(100_400);
            report.rungs.iter_mut().for_each(|r| r.segments[0].time = 80_400);
        },
        "seam of encode/00000 and encode/00001: end time: 80000 against 80400",
    ),
    (
        |m| encoded(&mut m[0]).next = Some(proof(80_400)),
        "seam of encode/00000 and encode/00001: first frame after the seam: pts 8540 pixels 0000000000080400 against pts 8500",
    ),
    (
        |m| encoded(&mut m[0]).next.as_mut().unwrap().pixels = "beef".into(),
        "first frame after the seam: pts 8500 pixels beef against pts 8500 pixels 0000000000080000",
    ),
    (|m| encoded(&mut m[0]).next = None, "first frame after the seam: no frame against pts 8500"),
    (
        |m| encoded(&mut m[1]).next = Some(proof(100_000)),
        "encode/00001, all renditions: first frame after the seam: expected no frame, found pts 10500",
    ),
    (
        |m| heard(&mut m[2]).segments[1].time = 192_001,
        "audio/00000, audio-0-128k: time of a segment: expected 192000, found 192001",
    ),
    (
        |m| heard(&mut m[2]).segments[2].index = 1,
        "audio/00000, audio-0-128k: number of a segment, greater than the one before: expected more than 1, found 1",
    ),
];

#[test]
fn one_wrong_field_anywhere_refuses_the_title_and_names_both_values() {
    assert!(after(|_, _| ()).is_ok());
    for (mutate, expected) in CASES {
        let error = after(|_, markers| mutate(markers)).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected\n  {expected}\nfound\n  {error}");
    }
}

#[test]
fn a_whole_track_is_joined_across_chunks_in_any_order_of_markers() {
    let title = after(|_, markers| markers.reverse()).unwrap();
    assert_eq!(title.notes, Vec::<String>::new());
    let track = &title.video[1].track;
    let expected = Track {
        name: "360p".into(),
        init: "360p/init.mp4".into(),
        dash_init: None,
        codecs: "avc1.64001e".into(),
        timescale: 10_000,
        segments: track.segments.clone(),
        samples: 250,
        bytes: 1_000_799,
        average_bps: 800_000,
        peak_bps: 1_000_000,
    };
    assert_eq!(track, &expected);
    let grid: Vec<_> = track.segments.iter().map(|s| (s.index, s.time, s.duration)).collect();
    assert_eq!(grid, [(0, 0, 40_000), (1, 40_000, 40_000), (2, 80_000, 20_000)]);
    assert_eq!(title.audio.iter().map(|a| a.track.name.as_str()).collect::<Vec<_>>().len(), 4);
}

/// Puts a chunk without frames between the two that have some.
fn with_an_empty_chunk(plan: &mut Plan, markers: &mut [Marker]) -> Marker {
    let chunks = &mut plan.video.as_mut().unwrap().chunks;
    let mut empty = chunks[1].clone();
    chunks[1].index = 2;
    empty.end = empty.start;
    chunks.insert(1, empty);
    let mut marker = markers[1].clone();
    markers[1].part = PartId::Encode(2);
    encoded(&mut markers[1]).chunk = 2;
    marker.objects.clear();
    let report = encoded(&mut marker);
    (report.frames, report.first_time, report.end_time, report.head) = (0, None, None, None);
    report.rungs.clear();
    marker
}

#[test]
fn a_chunk_into_which_no_frame_fell_is_skipped_over() {
    let title = after(|plan, markers| {
        let empty = with_an_empty_chunk(plan, markers);
        markers.push(empty);
    });
    assert_eq!(title.unwrap().video[0].track.samples, 250);
    let error = after(|plan, markers| {
        let empty = with_an_empty_chunk(plan, markers);
        markers.push(empty);
        encoded(&mut markers[0]).next = None;
    });
    assert!(matches!(error, Err(SeamError::Seam { right: PartId::Encode(2), .. })), "{error:?}");
}

#[test]
fn other_pixels_at_a_damaged_seam_are_a_note_but_another_time_is_not() {
    let damaged = |pts: i64, frames: u64| {
        after(|_, markers| {
            encoded(&mut markers[0]).next = Some(FrameProof { pts, pixels: "beef".into() });
            encoded(&mut markers[1]).damage.damaged_frames = frames;
        })
    };
    let notes = damaged(8500, 1).unwrap().notes;
    assert!(notes.iter().any(|n| n.contains("seam of encode/00000 and encode/00001")), "{notes:?}");
    assert!(matches!(damaged(8500, 0), Err(SeamError::Seam { check: Check::NextFrame, .. })));
    assert!(matches!(damaged(8540, 1), Err(SeamError::Seam { check: Check::NextFrame, .. })));
}

#[test]
fn damage_beyond_the_limit_fails_naming_the_first_bad_time_unless_salvage_is_asked_for() {
    let with = |lost: u64, damaged: u64, on_damage: OnDamage| {
        after(|plan, markers| {
            plan.on_damage = on_damage;
            encoded(&mut markers[0]).damage =
                Damage { lost_frames: lost, damaged_frames: 0, first_bad: Some(1740), message: Some("error in slice".into()) };
            encoded(&mut markers[1]).damage =
                Damage { lost_frames: 0, damaged_frames: damaged, first_bad: Some(9000), message: None };
        })
    };
    assert!(with(4, 4, OnDamage::Fail).is_ok());
    let error = with(4, 5, OnDamage::Fail).unwrap_err().to_string();
    let expected = "encode/00000: 9 of 250 frames of stream 0 are lost or damaged, at most 8 are allowed; the first at 1.240 s \
                    (error in slice)";
    assert_eq!(error, expected);
    let notes = with(4, 5, OnDamage::Salvage).unwrap().notes;
    assert_eq!(notes, ["Stream 0 is damaged: 4 frames lost, 5 damaged, of 250; the first at 1.240 s."]);
}

#[test]
fn damaged_sound_counts_too_and_a_share_of_a_long_title_is_forgiven() {
    let lost = |count: u64| after(|_, markers| heard(&mut markers[2]).damage.lost_frames = count);
    assert!(lost(9).is_ok(), "2 % of 468 access units");
    assert!(matches!(lost(10), Err(SeamError::Damage { part: PartId::Audio(0), limit: 9, .. })));
}

#[test]
fn a_title_without_a_single_frame_is_not_published() {
    let nothing = after(|_, markers| {
        for marker in &mut markers[..2] {
            let report = encoded(marker);
            (report.frames, report.head, report.next) = (0, None, None);
            report.rungs.clear();
        }
    });
    assert_eq!(nothing, Err(SeamError::Empty));
}

#[test]
fn an_audio_only_title_needs_no_video_and_a_silent_track_is_left_out() {
    let title = after(|plan, markers| {
        plan.video = None;
        markers.drain(..2);
        heard(&mut markers[3]).segments.clear();
    })
    .unwrap();
    assert_eq!((title.video.len(), title.audio.len()), (0, 3));
    assert_eq!(title.notes, ["Audio stream 2 gave no sound: 'audio-1-64k' is left out."]);
    let silent = after(|plan, markers| {
        plan.video = None;
        markers.drain(..2);
        markers.iter_mut().for_each(|m| heard(m).segments.clear());
    });
    assert_eq!(silent, Err(SeamError::Empty));
}
