//! Comparisons of real files: what is compared with what, and what is refused.

use super::measure;
use crate::media::fixture::{LocalHost, limits, make};
use crate::quality::{Model, pool};
use crate::sandbox::protocol::{MeasureReport, MeasureTask, Refusal, RefusalReason};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const ALL: MeasureTask =
    MeasureTask { models: Vec::new(), start: 0, count: None, every: 1, bits: None, allow_extra: 0, threads: 1 };

/// Files of one test.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A lossless file: a moving pattern of `frames` frames at 25 a second, through `filters`.
    fn clip(&self, name: &str, frames: u32, filters: &str) -> PathBuf {
        let path = self.0.path().join(name);
        let source = format!("testsrc2=size=192x108:rate=25,format=yuv420p,{filters}");
        make(&format!("-f lavfi -i {source} -frames:v {frames} -c:v ffv1 -bitexact"), &path);
        path
    }
}

fn compare(reference: &Path, distorted: &Path, task: &MeasureTask) -> Result<MeasureReport, Refusal> {
    measure(&LocalHost::new(&[reference, distorted]), &limits(), task)
}

#[track_caller]
fn refused(reference: &Path, distorted: &Path, task: &MeasureTask) -> (RefusalReason, String) {
    let refusal = compare(reference, distorted, task).unwrap_err();
    (refusal.reason, refusal.message)
}

#[test]
fn a_file_differs_nowhere_from_itself() {
    let desk = Desk::new();
    let clip = desk.clip("a.mkv", 5, "null");
    let task = MeasureTask { models: vec![Model::Neg], ..ALL };
    let report = compare(&clip, &clip, &task).unwrap();
    assert_eq!((report.frames, report.reference_frames, report.distorted_frames), (5, 5, 5));
    assert_eq!((report.format.width, report.format.height, report.format.bits), (192, 108, 8));
    assert_eq!((report.frame_rate.num, report.frame_rate.den), (25, 1));
    assert!(report.xpsnr.iter().all(|errors| errors.decibels() == [None; 3]), "{:?}", report.xpsnr);
    assert!(pool(&report.vmaf[0].1).unwrap().min > 95.0, "{:?}", report.vmaf);
    assert!(report.notes.is_empty(), "{:?}", report.notes);
}

#[test]
fn every_frame_is_compared_with_the_one_at_its_place() {
    let desk = Desk::new();
    let (clip, late) = (desk.clip("a.mkv", 6, "null"), desk.clip("late.mkv", 6, "trim=start_frame=1,setpts=PTS-STARTPTS"));
    let same = |task: &MeasureTask| compare(&clip, &clip, task).unwrap();
    let shifted = compare(&clip, &late, &ALL).unwrap();
    assert!(shifted.xpsnr.iter().all(|errors| errors.decibels()[0].is_some()), "a shift of one frame is seen in every frame");
    let part = MeasureTask { start: 2, count: Some(3), ..ALL };
    assert_eq!((same(&part).frames, same(&part).reference_frames), (3, 3));
    let every_other = compare(&clip, &late, &MeasureTask { every: 2, ..ALL }).unwrap();
    let expected: Vec<_> = shifted.xpsnr.iter().step_by(2).copied().collect();
    assert_eq!((every_other.frames, every_other.xpsnr), (6, expected), "a skipped frame is seen as motion all the same");
}

#[test]
fn counts_that_differ_are_refused_naming_both_unless_allowed() {
    let desk = Desk::new();
    let (long, short) = (desk.clip("long.mkv", 7, "null"), desk.clip("short.mkv", 5, "null"));
    for (reference, distorted, counts) in [(&long, &short, ["7 frames", "has 5"]), (&short, &long, ["5 frames", "has 7"])] {
        let (reason, message) = refused(reference, distorted, &ALL);
        assert_eq!(reason, RefusalReason::Media);
        assert!(counts.iter().all(|count| message.contains(count)), "{message}");
        let (_, message) = refused(reference, distorted, &MeasureTask { allow_extra: 1, ..ALL });
        assert!(counts.iter().all(|count| message.contains(count)), "{message}");
        let report = compare(reference, distorted, &MeasureTask { allow_extra: 2, ..ALL }).unwrap();
        assert_eq!((report.frames, report.reference_frames.abs_diff(report.distorted_frames)), (5, 2));
        assert!(report.notes[0].contains("first 5 were compared"), "{:?}", report.notes);
    }
    let first = MeasureTask { count: Some(4), ..ALL };
    assert_eq!(compare(&long, &short, &first).unwrap().frames, 4, "what is not asked for is not counted");
    assert!(compare(&long, &short, &MeasureTask { count: Some(6), ..ALL }).is_err());
    let (_, message) = refused(&short, &short, &MeasureTask { start: 9, ..ALL });
    assert!(message.contains("no frame"), "{message}");
}

#[test]
fn the_distorted_is_brought_to_the_reference() {
    let desk = Desk::new();
    let clip = desk.clip("a.mkv", 3, "null");
    let small = desk.clip("small.mkv", 3, "scale=96:54:flags=bicubic");
    let grown = desk.clip("grown.mkv", 3, "scale=96:54:flags=bicubic,scale=192:108:flags=bicubic");
    let (scaled, there) = (compare(&clip, &small, &ALL).unwrap(), compare(&clip, &grown, &ALL).unwrap());
    assert_eq!(scaled.xpsnr, there.xpsnr, "scaled here as by the filter of that name");
    assert!(scaled.notes[0].contains("96x54 and was scaled to 192x108"), "{:?}", scaled.notes);
    assert!(there.notes.is_empty());
}

#[test]
fn depth_is_the_references_unless_said() {
    let desk = Desk::new();
    let (eight, ten) = (desk.clip("8.mkv", 2, "null"), desk.clip("10.mkv", 2, "format=yuv420p10le,lutyuv=y=val+1"));
    let bits = |reference, distorted, bits| {
        let report = compare(reference, distorted, &MeasureTask { bits, ..ALL }).unwrap();
        (report.format.bits, report.xpsnr[0].decibels()[0])
    };
    assert_eq!(bits(&eight, &ten, None).0, 8);
    assert_eq!(bits(&ten, &eight, Some(8)).0, 8);
    let (depth, one_of_1023) = bits(&ten, &eight, None);
    assert!(depth == 10 && one_of_1023.unwrap() > 50.0, "{one_of_1023:?}");
    assert_eq!(bits(&ten, &ten, None), (10, None));
}

#[test]
fn a_turned_reference_is_compared_as_it_is_shown() {
    let desk = Desk::new();
    let upright = desk.clip("a.mkv", 2, "transpose=clock");
    let (lying, turned) = (desk.clip("b.mkv", 2, "null"), desk.0.path().join("turned.mp4"));
    make(&format!("-i {} -c:v mpeg4 -q:v 1 -metadata:s:v rotate=90", lying.display()), &turned);
    let report = compare(&turned, &upright, &ALL).unwrap();
    assert_eq!((report.format.width, report.format.height), (108, 192));
    assert!(report.xpsnr[0].decibels()[0].unwrap() > 25.0, "the same picture, the same way up: {:?}", report.xpsnr);
}

#[test]
fn odd_sizes_flat_pictures_and_single_frames_have_scores() {
    let desk = Desk::new();
    let task = MeasureTask { models: vec![Model::Neg], ..ALL };
    for (n, filters) in ["crop=161:97:0:0:exact=1", "drawbox=t=fill:c=black", "drawbox=t=fill:c=white"].iter().enumerate() {
        let clip = desk.clip(&format!("{n}.mkv"), 1, filters);
        let report = compare(&clip, &clip, &task).unwrap();
        assert_eq!((report.frames, report.xpsnr[0].decibels()), (1, [None; 3]), "{filters}");
        assert!((0.0..=100.0).contains(&report.vmaf[0].1[0]), "{filters}: {:?}", report.vmaf);
    }
}

#[test]
fn what_cannot_be_compared_is_refused_by_name() {
    let desk = Desk::new();
    let clip = desk.clip("a.mkv", 2, "null");
    let sound = desk.0.path().join("sound.wav");
    make("-f lavfi -i sine=duration=0.2", &sound);
    let text = desk.0.path().join("text.mp4");
    std::fs::write(&text, "this is no media ".repeat(100)).unwrap();
    let (reason, message) = refused(&sound, &clip, &ALL);
    assert!(reason == RefusalReason::Media && message.contains("the reference: it holds no video"), "{message}");
    let (_, message) = refused(&clip, &text, &ALL);
    assert!(message.starts_with("the distorted: "), "{message}");
    let small = desk.clip("small.mkv", 2, "scale=60:34");
    let (reason, message) = refused(&small, &clip, &MeasureTask { models: vec![Model::Neg], ..ALL });
    assert!(reason == RefusalReason::Unsupported && message.contains("60x34") && message.contains("64"), "{message}");
    assert!(compare(&small, &clip, &ALL).is_ok(), "XPSNR has no such limit");
    let (_, message) = refused(&clip, &clip, &MeasureTask { models: vec![Model::V1], ..ALL });
    assert!(message.contains("192x108") && message.contains("v1"), "{message}");
}
