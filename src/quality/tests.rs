//! Against an independent implementation, and where figures are known without one.
//!
//! The reference figures are those of the pictures of `fixture.rs`, written as raw video and compared by FFmpeg 9.0 (the
//! build of the PyPI package imageio-ffmpeg 0.8.1; Debian's FFmpeg 5.1 has neither filter):
//! `ffmpeg REF DIST -filter_complex "[0:v][1:v]xpsnr=stats_file=X"`, and with the inputs the other way round
//! `libvmaf=model='version=vmaf_v0.6.1neg\:name=neg|version=vmaf_v1.0.16_3d0h\:name=v1'`.

use super::fixture::Picture;
use super::*;
use crate::plan::time::Rational;

/// No figure is further off, points of VMAF and decibels.
const TOLERANCE: f64 = 0.01;

fn format(width: u32, height: u32, bits: u8) -> Format {
    Format { width, height, bits }
}

fn rate(fps: i64) -> Rational {
    Rational::new(fps, 1)
}

/// XPSNR of the first frames of the scene.
fn xpsnr(format: Format, fps: i64, frames: usize) -> Vec<[f64; 3]> {
    let mut xpsnr = Xpsnr::new(format, rate(fps), 1).unwrap();
    for t in 0..frames {
        xpsnr.push(&Picture::reference(format, t).lend(), &Picture::distorted(format, t).lend()).unwrap();
    }
    xpsnr.finish().iter().map(|errors| errors.decibels().map(Option::unwrap)).collect()
}

fn vmaf_on(models: &[Model], format: Format, frames: usize, every: u32, threads: u32) -> Vec<ModelScores> {
    let mut vmaf = Vmaf::with_threads(models, format, every, threads).unwrap();
    for t in 0..frames {
        vmaf.push(&Picture::reference(format, t).lend(), &Picture::distorted(format, t).lend()).unwrap();
    }
    vmaf.finish().unwrap()
}

fn vmaf(models: &[Model], format: Format, frames: usize) -> Vec<Vec<f64>> {
    vmaf_on(models, format, frames, 1, 1).into_iter().map(|scores| scores.frames).collect()
}

#[track_caller]
fn agree(ours: &[f64], theirs: &[f64]) {
    let far = ours.iter().zip(theirs).any(|(a, b)| (a - b).abs() > TOLERANCE);
    assert!(ours.len() == theirs.len() && !far, "{ours:?}, and the reference says {theirs:?}");
}

#[track_caller]
fn xpsnr_agrees(format: Format, fps: i64, theirs: &[[f64; 3]]) {
    agree(&xpsnr(format, fps, theirs.len()).concat(), &theirs.concat());
}

#[test]
fn xpsnr_agrees_with_the_authors_program_on_small_pictures() {
    // Smoothed weights, and blocks of 8 and of 16 samples.
    xpsnr_agrees(
        format(160, 120, 8),
        25,
        &[[31.8657, 32.442, 32.4401], [23.0185, 25.7204, 25.8778], [23.2974, 27.1264, 27.0715], [23.4249, 27.1686, 26.639]],
    );
    xpsnr_agrees(
        format(161, 121, 8),
        24,
        &[[28.0973, 25.046, 24.5961], [22.318, 23.1065, 23.1205], [22.1614, 23.9362, 23.973], [22.4379, 23.9786, 23.6963]],
    );
    // Ten bits.
    xpsnr_agrees(
        format(320, 180, 10),
        30,
        &[[33.4305, 34.0723, 34.0683], [24.0836, 26.0288, 26.2374], [25.0401, 25.9766, 25.9491], [25.0407, 25.9322, 25.6767]],
    );
    // Not weighted at all.
    xpsnr_agrees(format(40, 30, 8), 25, &[[30.6453, 39.2117, 39.4444], [31.0616, 39.1417, 39.3227]]);
}

#[test]
fn xpsnr_agrees_with_the_authors_program_at_high_frame_rates() {
    xpsnr_agrees(
        format(416, 240, 8),
        50,
        &[[34.2956, 35.0397, 35.0394], [34.3246, 35.1362, 35.177], [25.5611, 26.5937, 26.4908], [25.4965, 26.5516, 26.2014]],
    );
}

#[test]
fn xpsnr_agrees_with_the_authors_program_above_hd() {
    xpsnr_agrees(
        format(2176, 1088, 8),
        25,
        &[[37.2074, 37.9783, 37.9737], [28.1636, 29.11, 29.1269], [27.9332, 28.9313, 28.9315]],
    );
    xpsnr_agrees(
        format(2176, 1090, 10),
        60,
        &[[33.3264, 34.3407, 34.3057], [33.4409, 34.3858, 34.2683], [27.1825, 28.1446, 28.1451]],
    );
}

#[test]
fn vmaf_agrees_with_another_build_of_its_library() {
    let scores = vmaf(&Model::ALL, format(416, 240, 8), 4);
    agree(&scores[0], &[79.0754, 89.246, 86.9215, 87.344]);
    agree(&scores[1], &[79.8356, 78.3969, 76.9171, 77.8928]);
    let scores = vmaf(&[Model::V1, Model::Neg], format(320, 180, 10), 4);
    agree(&scores[0], &[82.1609, 82.4879, 77.5402, 78.1172]);
    agree(&scores[1], &[79.5135, 90.8231, 86.9737, 87.7872]);
    agree(&vmaf(&[Model::Neg], format(160, 120, 8), 4)[0], &[77.7333, 88.5479, 85.6303, 88.3073]);
}

#[test]
fn vmaf_is_right_at_widths_where_the_vectors_of_its_library_are_not() {
    // Half a point too low with AVX2, which only a processor without AVX-512 would show.
    agree(&vmaf(&[Model::Neg], format(336, 256, 8), 4)[0], &[78.7874, 89.2678, 87.198, 86.5531]);
}

#[test]
fn scores_do_not_depend_on_threads_and_subsampling_only_leaves_out() {
    let format = format(320, 180, 8);
    let models = [Model::Neg, Model::V1];
    let all = vmaf_on(&models, format, 7, 1, 1);
    assert_eq!(vmaf_on(&models, format, 7, 1, 3), all);
    let thirds = vmaf_on(&models, format, 7, 3, 2);
    for (third, all) in thirds.iter().zip(&all) {
        assert_eq!(third.frames, all.frames.iter().copied().step_by(3).collect::<Vec<_>>(), "{:?}", third.model);
    }
}

#[test]
fn nothing_differs_from_itself() {
    for bits in [8, 10] {
        let format = format(320, 180, bits);
        let mut measures = (Vmaf::new(&Model::ALL, format, 1).unwrap(), Xpsnr::new(format, rate(25), 1).unwrap());
        for t in 0..3 {
            let picture = Picture::reference(format, t);
            measures.0.push(&picture.lend(), &picture.lend()).unwrap();
            measures.1.push(&picture.lend(), &picture.lend()).unwrap();
        }
        for scores in measures.0.finish().unwrap() {
            assert!(scores.frames.iter().all(|score| *score > 95.0), "{scores:?}");
        }
        assert_eq!(measures.1.finish(), vec![FrameError([0.0; 3]); 3]);
    }
}

#[test]
fn flat_and_black_pictures_have_scores() {
    let format = format(320, 180, 8);
    for (reference, distorted) in [(0, 0), (16, 16), (255, 255), (16, 235), (0, 1)] {
        let (reference, distorted) = (Picture::flat(format, reference), Picture::flat(format, distorted));
        let mut vmaf = Vmaf::new(&Model::ALL, format, 1).unwrap();
        let mut xpsnr = Xpsnr::new(format, rate(60), 1).unwrap();
        for _ in 0..3 {
            vmaf.push(&reference.lend(), &distorted.lend()).unwrap();
            xpsnr.push(&reference.lend(), &distorted.lend()).unwrap();
        }
        for scores in vmaf.finish().unwrap() {
            assert!(scores.frames.iter().all(|score| (0.0..=100.0).contains(score)), "{scores:?}");
        }
        assert!(xpsnr.finish().iter().all(|errors| errors.0.iter().all(|error| error.is_finite())));
    }
}

#[test]
fn a_flat_picture_has_the_error_that_can_be_worked_out() {
    // From the third picture on nothing moves and nothing is seen: every block has the least activity, 2^(8 - 6).
    let format = format(128, 128, 8);
    let (reference, distorted) = (Picture::flat(format, 100), Picture::flat(format, 103));
    let mut xpsnr = Xpsnr::new(format, rate(25), 1).unwrap();
    for _ in 0..3 {
        xpsnr.push(&reference.lend(), &distorted.lend()).unwrap();
    }
    let average = (16.0 * 128.0 / (128.0 * 128.0 / (3840.0 * 2160.0_f64)).sqrt()).sqrt();
    let expected = 9.0 * average / 4.0 / (255.0 * 255.0);
    let errors = xpsnr.finish();
    assert!((errors[2].0[0] / expected - 1.0).abs() < 1e-12, "{errors:?} and {expected}");
    assert!(errors[0].0[0] < errors[1].0[0], "the first picture comes out of the dark, and motion hides errors");
}

#[test]
fn a_picture_alone_is_scored_and_none_is_an_error() {
    let format = format(64, 64, 8);
    assert_eq!(vmaf(&[Model::Neg], format, 1)[0].len(), 1);
    assert_eq!(Vmaf::new(&[Model::Neg], format, 1).unwrap().finish(), Err(QualityError::Empty));
    assert_eq!(Xpsnr::new(format, rate(25), 1).unwrap().finish(), []);
}

#[test]
fn pictures_of_another_format_are_refused_and_the_measurement_goes_on() {
    let (wanted, other) = (format(128, 96, 8), format(96, 64, 8));
    let deeper = format(128, 96, 10);
    let mut vmaf = Vmaf::with_threads(&[Model::Neg], wanted, 1, 2).unwrap();
    let mut xpsnr = Xpsnr::new(wanted, rate(25), 1).unwrap();
    let good = Picture::reference(wanted, 0);
    for bad in [Picture::reference(other, 0), Picture::reference(deeper, 0)] {
        assert_eq!(vmaf.push(&good.lend(), &bad.lend()), Err(QualityError::Planes));
        assert_eq!(vmaf.push(&bad.lend(), &good.lend()), Err(QualityError::Planes));
        assert_eq!(xpsnr.push(&good.lend(), &bad.lend()), Err(QualityError::Planes));
    }
    for _ in 0..12 {
        vmaf.push(&good.lend(), &good.lend()).unwrap();
    }
    assert_eq!(vmaf.finish().unwrap()[0].frames.len(), 12, "no picture of the pool was lost");
}

#[test]
fn a_measurement_may_be_given_up_half_way() {
    let format = format(128, 96, 10);
    for threads in [1, 4] {
        let mut vmaf = Vmaf::with_threads(&[Model::Neg], format, 1, threads).unwrap();
        for t in 0..5 {
            vmaf.push(&Picture::reference(format, t).lend(), &Picture::distorted(format, t).lend()).unwrap();
        }
        drop(vmaf);
    }
    assert!(!vmaf::version().is_empty());
}
