//! Splitting changes no pixel: over all chunks the encoders are fed the frames of one linear decode.
//!
//! A source is transcoded with the lossless preset on a given chunk grid. Then the `ffmpeg` program decodes the source,
//! the progressive file and the HLS rendition, and all three must have the same frames: count, pixels, times.

#[path = "common/chance.rs"]
mod chance;
#[path = "common/frames.rs"]
mod frames;
#[path = "common/media.rs"]
mod media;

use chance::{Chance, from_environment};
use frames::{Difference, Frames, pictures};
use media::{Audio, Clip, Codec, Container, Picture, Rate, kept};
use std::path::Path;
use std::process::Command;

/// A chunk grid as the program is told it.
#[derive(Clone, Debug)]
struct Grid(Vec<String>);

impl Grid {
    fn gop() -> Self {
        Self(vec!["chunk.grid=gop".into()])
    }

    fn seconds(target_s: f64) -> Self {
        let bounds = format!("chunk.shortest_s={}", target_s / 2.0);
        Self(vec!["chunk.grid=keyframes".into(), format!("chunk.target_s={target_s}"), bounds])
    }

    fn frames(count: u32) -> Self {
        Self(vec!["chunk.grid=frames".into(), format!("chunk.frames={count}")])
    }

    fn all() -> [Self; 3] {
        [Self::gop(), Self::seconds(2.0), Self::frames(37)]
    }
}

/// Transcodes `source` on `grid` and compares what comes out with a linear decode.
#[track_caller]
fn assert_exact(source: &Path, grids: &[Grid], set: &[&str]) {
    let picture = pictures(source).into_iter().max_by_key(|p| p.width * p.height).expect("the source has video");
    let wanted = Frames::decode(source, picture.stream, &picture.pixel_format, "");
    assert!(wanted.different() * 10 >= wanted.frames.len() * 8, "most frames are alike: the comparison proves little");
    for grid in grids {
        let out = tempfile::tempdir().unwrap();
        transcode(source, out.path(), grid, set);
        for made in ["source.mp4", "master.m3u8"] {
            let file = out.path().join(made);
            let got = &pictures(&file)[0];
            // An odd source is padded by one row or column for 4:2:0; what was there before is compared.
            let padded = (got.width, got.height) != (picture.width, picture.height);
            let crop = if padded { format!("crop={}:{}:0:0:exact=1", picture.width, picture.height) } else { String::new() };
            let frames = Frames::decode(&file, got.stream, &picture.pixel_format, &crop);
            if let Err(difference) = frames.same_as_source(&wanted) {
                panic!("{made} of {} on {grid:?}: {difference}", source.display());
            }
        }
    }
}

fn transcode(source: &Path, out: &Path, grid: &Grid, set: &[&str]) {
    let work = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_narrows"));
    command.arg("transcode").arg(source).arg("-o").arg(out).arg("--work").arg(work.path());
    command.args(["--preset", "mezzanine", "--slots", "2", "--json"]);
    for assignment in grid.0.iter().map(String::as_str).chain(set.iter().copied()) {
        command.args(["--set", assignment]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn splits_exactly(clip: &Clip) {
    assert_exact(&clip.make(), &Grid::all(), &[]);
}

#[test]
fn a_closed_gop_source_splits_exactly() {
    splits_exactly(&Clip::default());
}

#[test]
fn an_open_gop_h264_source_splits_exactly() {
    splits_exactly(&Clip { open_gop: true, b_frames: 3, b_pyramid: true, gop: 30, ..Clip::default() });
}

#[test]
fn an_open_gop_h265_source_with_cra_and_leading_pictures_splits_exactly() {
    let clip = Clip { codec: Codec::H265, open_gop: true, b_frames: 4, b_pyramid: true, gop: 24, ..Clip::default() };
    splits_exactly(&clip);
    splits_exactly(&Clip { container: Container::Ts, ..clip });
}

#[test]
fn a_deep_b_pyramid_with_scene_cuts_splits_exactly() {
    let clip = Clip { b_frames: 8, b_pyramid: true, scene_cuts: true, gop: 250, picture: Picture::Mandelbrot, ..Clip::default() };
    splits_exactly(&clip);
}

#[test]
fn an_open_gop_mpeg2_source_splits_exactly() {
    splits_exactly(&Clip { codec: Codec::Mpeg2, container: Container::Ts, open_gop: true, gop: 12, ..Clip::default() });
}

#[test]
fn an_interlaced_source_that_is_not_deinterlaced_splits_exactly() {
    let mpeg2 =
        Clip { codec: Codec::Mpeg2, container: Container::Ts, interlaced: true, gop: 12, open_gop: true, ..Clip::default() };
    let h264 = Clip { interlaced: true, ..Clip::default() };
    for clip in [mpeg2, h264] {
        assert_exact(&clip.make(), &Grid::all(), &["video.deinterlace=off"]);
    }
}

#[test]
fn hidden_frames_are_not_counted() {
    let clip = Clip { codec: Codec::Vp9, container: Container::Webm, gop: 40, ..Clip::default() };
    splits_exactly(&clip);
    splits_exactly(&Clip { codec: Codec::Av1, container: Container::Mkv, ..clip });
}

#[test]
fn packed_b_frames_split_exactly() {
    splits_exactly(&Clip { codec: Codec::Mpeg4, container: Container::Avi, b_frames: 0, ..Clip::default() });
    splits_exactly(&Clip { codec: Codec::Mpeg4, container: Container::Mp4, b_frames: 2, ..Clip::default() });
}

#[test]
fn all_intra_sources_split_exactly() {
    splits_exactly(&Clip { codec: Codec::Ffv1, container: Container::Mkv, ..Clip::default() });
    splits_exactly(&Clip { codec: Codec::Mjpeg, container: Container::Avi, pixel_format: "yuvj420p", ..Clip::default() });
}

#[test]
fn every_frame_rate_splits_exactly() {
    for rate in [Rate::Constant(24000, 1001), Rate::Constant(30000, 1001), Rate::Constant(50, 1)] {
        splits_exactly(&Clip { rate, ..Clip::default() });
        splits_exactly(&Clip { rate, container: Container::Mkv, ..Clip::default() });
    }
}

#[test]
fn a_variable_frame_rate_is_kept_to_the_tick() {
    splits_exactly(&Clip { rate: Rate::Variable, ..Clip::default() });
    splits_exactly(&Clip { rate: Rate::Variable, container: Container::Mkv, open_gop: true, ..Clip::default() });
}

#[test]
fn timestamps_that_wrap_at_33_bits_split_exactly() {
    // 2^33 / 90000 s = 95443.7 s: the wrap falls into the middle of the clip.
    splits_exactly(&Clip { container: Container::Ts, offset_s: 95441.0, open_gop: true, ..Clip::default() });
}

#[test]
fn a_source_that_starts_late_splits_exactly() {
    splits_exactly(&Clip { container: Container::Ts, offset_s: 3600.5, ..Clip::default() });
    splits_exactly(&Clip { container: Container::Mkv, offset_s: 7.25, ..Clip::default() });
}

#[test]
fn an_edit_list_that_starts_between_keyframes_splits_exactly() {
    splits_exactly(&Clip { cut_s: 1.32, frames: 180, ..Clip::default() });
}

#[test]
fn fragments_without_a_sample_table_split_exactly() {
    splits_exactly(&Clip { container: Container::FragmentedMp4, open_gop: true, ..Clip::default() });
}

#[test]
fn rotation_and_sample_aspect_change_no_pixel() {
    splits_exactly(&Clip { rotation: 90, ..Clip::default() });
    splits_exactly(&Clip { sample_aspect: (4, 3), ..Clip::default() });
}

#[test]
fn depth_and_subsampling_of_the_source_are_kept() {
    for pixel_format in ["yuv420p10le", "yuv422p", "yuv444p"] {
        splits_exactly(&Clip { pixel_format, frames: 80, ..Clip::default() });
    }
}

#[test]
fn sound_beside_the_picture_changes_no_frame() {
    let audio = |codec, channels, language| Audio { codec, channels, sample_rate: 48_000, language };
    let two = vec![audio("aac", 2, "eng"), audio("ac3", 6, "deu")];
    splits_exactly(&Clip { audio: two, container: Container::Ts, ..Clip::default() });
}

#[test]
fn real_clips_with_odd_habits_split_exactly() {
    for name in ["editlist-preroll.mp4", "vfr-subtitles.mkv", "bogus-duration.mp4", "odd-161x121.webm", "no-duration.webm"] {
        assert_exact(&kept(name), &Grid::all(), &[]);
    }
}

#[test]
fn a_real_clip_that_starts_without_a_keyframe_splits_exactly() {
    assert_exact(&kept("no-first-keyframe.ts"), &Grid::all(), &["damage.forgiven_frames=100"]);
}

/// Any source that the generator can make, and any grid.
fn any_case(chance: &mut Chance) -> (Clip, Grid) {
    use Container::{Avi, FragmentedMp4, Mkv, Mp4, Ts, Webm};
    let codec =
        chance.one_of(&[Codec::H264, Codec::H264, Codec::H264, Codec::H265, Codec::H265, Codec::Mpeg2, Codec::Vp9, Codec::Mjpeg]);
    let container = match codec {
        Codec::Vp9 => chance.one_of(&[Webm, Mkv, Mp4]),
        Codec::Mjpeg => chance.one_of(&[Avi, Mkv]),
        Codec::Mpeg2 => chance.one_of(&[Ts, Mkv]),
        _ => chance.one_of(&[Mp4, Mp4, FragmentedMp4, Mkv, Ts]),
    };
    let rates =
        [Rate::Constant(25, 1), Rate::Constant(30000, 1001), Rate::Constant(24000, 1001), Rate::Constant(50, 1), Rate::Variable];
    // MPEG-2 has a short list of frame rates, and AVI one rate for all frames.
    let rate = if codec == Codec::Mpeg2 || container == Avi { chance.one_of(&rates[..4]) } else { chance.one_of(&rates) };
    let clip = Clip {
        codec,
        container,
        rate,
        picture: chance.one_of(&[Picture::Bars, Picture::Mandelbrot]),
        frames: chance.number(30, 160),
        pixel_format: if codec == Codec::Mjpeg { "yuvj420p" } else { "yuv420p" },
        gop: chance.number(1, 60),
        scene_cuts: chance.yes(),
        b_frames: chance.number(0, if codec == Codec::H264 { 8 } else { 4 }),
        b_pyramid: chance.yes(),
        open_gop: chance.yes(),
        cut_s: if matches!(codec, Codec::H264) && container == Mp4 { chance.one_of(&[0.0, 0.0, 0.52]) } else { 0.0 },
        offset_s: if container == Ts { chance.one_of(&[0.0, 12.5, 95_442.5]) } else { 0.0 },
        seed: chance.number(1, 1 << 20),
        ..Clip::default()
    };
    let grid = match chance.number(0, 2) {
        0 => Grid::gop(),
        1 => Grid::seconds(f64::from(chance.number(1, 4))),
        _ => Grid::frames(chance.number(7, 61)),
    };
    (clip, grid)
}

/// `EXACT_SEED` and `EXACT_CASES` try others, and more.
#[test]
fn any_source_splits_exactly_on_any_grid() {
    let seed = from_environment("EXACT_SEED", 20_231_117);
    for case in 0..from_environment("EXACT_CASES", 12) {
        let (clip, grid) = any_case(&mut Chance(seed.wrapping_add(case << 32)));
        println!("EXACT_SEED={seed}, case {case}: {clip:?} on {grid:?}");
        assert_exact(&clip.make(), &[grid], &[]);
    }
}

mod comparer {
    //! The comparison itself, tried on decodes by ffmpeg alone.
    use super::*;

    fn decoded(clip: &Clip) -> Frames {
        Frames::decode(&clip.make(), 0, clip.pixel_format, "")
    }

    #[test]
    fn a_remux_is_the_same() {
        let mp4 = decoded(&Clip::default());
        assert_eq!((mp4.frames.len(), mp4.different()), (150, 150));
        for container in [Container::Ts, Container::Mkv, Container::FragmentedMp4] {
            let other = decoded(&Clip { container, ..Clip::default() });
            assert_eq!(mp4.same_as_source(&other), Ok(()), "{container:?}");
            assert_eq!(other.same_as_source(&mp4), Ok(()), "{container:?}");
        }
    }

    #[test]
    fn a_lost_doubled_or_changed_frame_is_found() {
        let source = decoded(&Clip::default());
        let mut lost = source.clone();
        lost.frames.pop();
        assert_eq!(lost.same_as_source(&source), Err(Difference::Count { source: 150, output: 149 }));
        let mut doubled = source.clone();
        doubled.frames.insert(70, source.frames[70].clone());
        assert_eq!(doubled.same_as_source(&source), Err(Difference::Pixels { frame: 71 }));
        let mut changed = source.clone();
        changed.frames[99].pixels = source.frames[98].pixels.clone();
        assert_eq!(changed.same_as_source(&source), Err(Difference::Pixels { frame: 99 }));
    }

    #[test]
    fn a_time_that_is_off_by_more_than_a_tick_is_found() {
        let source = decoded(&Clip { container: Container::Mkv, ..Clip::default() });
        let mut late = source.clone();
        late.frames[40].pts += 1;
        assert_eq!(late.same_as_source(&source), Ok(()), "within a tick");
        late.frames[40].pts += 1;
        assert!(matches!(late.same_as_source(&source), Err(Difference::Time { frame: 40, .. })));
    }

    #[test]
    fn variable_rate_times_are_not_rounded_to_a_frame_rate() {
        let frames = decoded(&Clip { rate: Rate::Variable, ..Clip::default() });
        let ms = |i: usize| (frames.frames[i].pts - frames.frames[0].pts) * 1000 * frames.time_base.0 / frames.time_base.1;
        let wanted = |n: i64| n * 40 + (n * n * 7 + 1) % 29 - 1;
        for n in 0..150 {
            assert_eq!(ms(n), wanted(i64::try_from(n).unwrap()), "frame {n}");
        }
    }

    #[test]
    fn every_recipe_of_the_random_test_can_be_made_and_decoded() {
        for case in 0..8 {
            let (clip, grid) = any_case(&mut Chance(case));
            let file = clip.make();
            let picture = &pictures(&file)[0];
            let frames = Frames::decode(&file, picture.stream, &picture.pixel_format, "");
            assert!(!frames.frames.is_empty(), "{clip:?} on {grid:?}");
            assert_eq!(file, clip.make(), "a recipe is made once");
        }
    }
}
