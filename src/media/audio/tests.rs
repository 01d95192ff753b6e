//! The rendition against the `ffmpeg` program: it makes the sources, decodes them, and decodes what comes out.

use super::*;
use crate::media::fixture::{LocalHost, complaints, limits, lines, make, run};
use crate::media::remux::remux;
use crate::plan::Encoder;
use crate::plan::time::Rational;
use crate::sandbox::protocol::{Refusal, RemuxTask};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tempfile::TempDir;

const NOISE: &str = "-f lavfi -i anoisesrc=r=48000:d=3:c=pink:seed=7:a=0.5";

/// A folder with a source, and what is made of it.
struct Bench {
    folder: TempDir,
    source: PathBuf,
    plan: AudioPlan,
}

impl Bench {
    /// A source by the `ffmpeg` program; the plan keeps time zero at its tick 0.
    fn new(arguments: &str, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join(name);
        make(arguments, &source);
        Self::of(folder, source)
    }

    fn of(folder: TempDir, source: PathBuf) -> Self {
        let base = &lines("ffprobe", "-v error -show_entries stream=time_base -of csv=p=0 {0}", &source)[0];
        let (num, den) = base.trim_end_matches(',').split_once('/').unwrap();
        let plan = AudioPlan {
            name: "audio-0-128k".into(),
            stream: 0,
            source_base: Rational::new(num.parse().unwrap(), den.parse().unwrap()),
            origin: 0,
            encoder: Encoder {
                library: "aac".into(),
                options: BTreeMap::from([("b".into(), "256000".into()), ("profile".into(), "aac_low".into())]),
                restart_per_segment: false,
                reorder_frames: 0,
                first_picture_qp_tenths: 0,
                sample_entry: "mp4a".into(),
            },
            bit_rate: 256_000,
            sample_rate: 48_000,
            channels: 2,
            layout: "stereo".into(),
            language: Some("deu".into()),
            label: "Deutsch".into(),
            default: true,
            group: "audio-128k".into(),
            segments: vec![0, 48_000, 96_000],
            expected_samples: None,
        };
        Self { folder, source, plan }
    }

    fn with(mut self, change: impl FnOnce(&mut AudioPlan)) -> Self {
        change(&mut self.plan);
        self
    }

    fn try_encode(&self, limits: &Limits) -> Result<AudioReport> {
        let scratch = self.folder.path().join("scratch");
        std::fs::create_dir_all(&scratch).unwrap();
        let host = LocalHost::new(&[&self.source]);
        let report = encode(&host, limits, &scratch, &AudioTask { rendition: self.plan.clone() })?;
        assert_eq!(host.done.get(), report.segments.iter().map(|s| s.samples).sum::<u64>());
        let mut joined = std::fs::read(scratch.join(&report.init.file)).unwrap();
        for segment in &report.segments {
            joined.extend(std::fs::read(scratch.join(&segment.file)).unwrap());
        }
        let plain = report.plain_init.as_ref().unwrap();
        assert_eq!(std::fs::metadata(scratch.join(&plain.file)).unwrap().len(), plain.bytes);
        assert_eq!(joined.len() as u64 + plain.bytes, report.bytes);
        std::fs::write(self.output(), joined).unwrap();
        Ok(report)
    }

    /// Encodes, and checks what holds of every rendition.
    fn encode(&self) -> AudioReport {
        let report = self.try_encode(&limits()).unwrap();
        let ends = report.segments.iter().map(|s| s.time + s.duration);
        assert!(std::iter::once(0).chain(ends).zip(report.segments.iter().map(|s| s.time)).all(|(end, time)| end == time));
        assert_eq!(report.segments.iter().map(|s| s.duration).sum::<i64>() as u64, report.samples);
        assert_eq!((report.priming, report.init.codecs.as_str()), (1024, "mp4a.40.2"));
        assert_eq!(complaints(&self.output()), "");
        report
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("joined.mp4")
    }

    /// The first channel of the output as the `ffmpeg` program decodes it, without the padding of the last unit.
    fn heard(&self, report: &AudioReport) -> Vec<f32> {
        let mut samples = decode(&self.output(), "-map_channel 0.0.0");
        let padding = samples.len() as i64 - report.samples as i64;
        assert!((0..1024).contains(&padding), "{padding} samples of padding");
        samples.truncate(report.samples as usize);
        samples
    }

    /// The first channel of the source as the `ffmpeg` program decodes it, put on a clock that starts at 0.
    fn wanted(&self) -> Vec<f32> {
        decode(&self.source, "-af aresample=48000:async=1:first_pts=0,pan=mono|c0=c0")
    }
}

fn decode(path: &Path, options: &str) -> Vec<f32> {
    let output = run("ffmpeg", &format!("-nostdin -v error -copyts -i {{0}} {options} -f f32le -"), &[path]);
    output.stdout.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// By how many samples `heard` is later than `wanted` around `at`, and how alike they are there.
fn lag(wanted: &[f32], heard: &[f32], at: usize) -> (i64, f32) {
    const WINDOW: usize = 2048;
    const REACH: usize = 600;
    let model = &wanted[at..at + WINDOW];
    let energy = |x: &[f32]| x.iter().map(|v| v * v).sum::<f32>().sqrt();
    let likeness = |offset: usize| {
        let piece = &heard[at + offset - REACH..][..WINDOW];
        let product: f32 = model.iter().zip(piece).map(|(a, b)| a * b).sum();
        product / (energy(model) * energy(piece)).max(1e-9)
    };
    let best = (0..2 * REACH).map(|offset| (offset, likeness(offset))).max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    (best.0 as i64 - REACH as i64, best.1)
}

#[track_caller]
fn assert_in_place(wanted: &[f32], heard: &[f32], places: &[usize]) {
    for &at in places {
        let (lag, likeness) = lag(wanted, heard, at);
        assert!(lag == 0 && likeness > 0.9, "at {at}: {lag} samples late, likeness {likeness}");
    }
}

#[test]
fn the_progressive_mp4_sounds_like_the_segments() {
    let bench = Bench::new(&format!("{NOISE} -ac 2"), "a.wav");
    let report = bench.encode();
    let segments = decode(&bench.output(), "");
    let host = LocalHost::new(&[&bench.output()]);
    let task = RemuxTask { file: "whole.mp4".into() };
    assert_eq!(remux(&host, &limits(), bench.folder.path(), 1, &task).unwrap().packets, 142);
    let whole = bench.folder.path().join("whole.mp4");
    assert_eq!(complaints(&whole), "");
    let mp4 = decode(&whole, "");
    let sound = report.samples as usize * 2;
    assert!(mp4.len() >= sound && mp4[..sound] == segments[..sound]);
    let end =
        lines("ffprobe", "-v error -show_entries stream=start_pts,duration_ts:stream_tags=language -of csv=p=0 {0}", &whole);
    assert_eq!(end, ["0,144000,deu"]);
}

fn is_silent(samples: &[f32]) -> bool {
    samples.iter().all(|v| v.abs() < 0.02)
}

#[test]
fn every_codec_sounds_at_the_sample_at_which_the_ffmpeg_program_plays_it() {
    for (arguments, name) in [
        ("-c:a pcm_s16le", "a.wav"),
        ("-c:a flac", "a.mkv"),
        ("-c:a aac -b:a 192k", "a.mp4"),
        ("-c:a aac -b:a 192k", "a.ts"),
        ("-c:a libmp3lame -b:a 192k", "a.mp3"),
        ("-c:a libmp3lame -b:a 192k", "a.mp4"),
        ("-c:a libopus -b:a 192k", "a.webm"),
        ("-c:a libopus -b:a 192k", "a.mp4"),
        ("-c:a libvorbis -b:a 192k", "a.ogg"),
        ("-c:a ac3 -b:a 192k", "a.ts"),
        ("-c:a eac3 -b:a 192k", "a.mp4"),
        ("-c:a mp2 -b:a 192k", "a.mpg"),
    ] {
        let bench = Bench::new(&format!("{NOISE} -ac 2 {arguments} -muxdelay 0 -muxpreload 0"), name);
        let report = bench.encode();
        let (wanted, heard) = (bench.wanted(), bench.heard(&report));
        let difference = wanted.len() as i64 - heard.len() as i64;
        assert!(difference.abs() <= 1, "{name} {arguments}: {difference} samples missing");
        assert_in_place(&wanted, &heard, &[report.filled as usize + 1500, 70_000, 135_000]);
        assert_eq!(report.damage, Damage::default(), "{name} {arguments}");
    }
}

#[test]
fn the_priming_is_skipped_by_one_edit_and_the_first_sample_is_heard_at_zero() {
    let bench = Bench::new("-f lavfi -i aevalsrc=lt(t\\,0.001)+0.5*eq(n\\,30000):s=48000:d=1 -ac 2", "click.wav");
    let report = bench.encode();
    let heard = bench.heard(&report);
    let loudest = |range: std::ops::Range<usize>| range.max_by(|&a, &b| heard[a].abs().total_cmp(&heard[b].abs())).unwrap();
    assert_eq!(loudest(20_000..40_000), 30_000);
    assert!(heard[4] > 0.5 && heard[40] > 0.5 && heard[60].abs() < 0.3, "{:?}", &heard[..64]);
    let first =
        lines("ffprobe", "-v error -show_entries frame=pts,nb_samples -of csv=p=0 -read_intervals %+#2 {0}", &bench.output());
    assert_eq!(first[0].trim_end_matches(','), "0,1024");
    assert_eq!((report.samples, report.segments.len()), (48_000, 1));
    let language = lines("ffprobe", "-v error -show_entries stream_tags=language -of csv=p=0 {0}", &bench.output());
    assert_eq!(language, ["deu"]);
}

#[test]
fn segments_hold_whole_units_from_the_first_one_at_or_after_the_planned_start() {
    let bench = Bench::new(&format!("{NOISE} -ac 2"), "a.wav");
    let report = bench.encode();
    let grid: Vec<_> = report.segments.iter().map(|s| (s.index, s.file.as_str(), s.time, s.duration, s.samples)).collect();
    let expected = [(0, "0.m4s", 0, 48_128, 48), (1, "1.m4s", 48_128, 48_128, 47), (2, "2.m4s", 96_256, 47_744, 47)];
    assert_eq!(grid, expected);
    let scratch = bench.folder.path().join("scratch");
    let before: Vec<_> = report.segments.iter().map(|s| std::fs::read(scratch.join(&s.file)).unwrap()).collect();
    assert_eq!(bench.encode(), report);
    let after: Vec<_> = report.segments.iter().map(|s| std::fs::read(scratch.join(&s.file)).unwrap()).collect();
    assert!(before == after, "the same source gave other bytes");
    assert!(!before.concat().windows(4).any(|w| w == b"Lavc"));
}

#[test]
fn any_number_of_samples_comes_out_again() {
    for samples in [1, 100, 1023, 1024, 1025, 2048, 5000] {
        let filter = format!("-f lavfi -i anoisesrc=r=48000:d=1:seed=3 -af atrim=end_sample={samples} -ac 2");
        let report = Bench::new(&filter, "a.wav").encode();
        assert_eq!(report.samples, samples);
    }
}

#[test]
fn a_gap_is_filled_with_silence_and_what_follows_is_in_its_place() {
    let arguments = format!("{NOISE} -ac 2 -af asetpts=PTS+gte(T\\,1)*0.5/TB -c:a pcm_s16le");
    let bench = Bench::new(&arguments, "gap.mkv");
    let report = bench.encode();
    let heard = bench.heard(&report);
    assert!(report.filled.abs_diff(24_000) <= 48, "{} filled", report.filled);
    assert_eq!(report.samples, 144_000 + report.filled);
    assert!(is_silent(&heard[50_500..70_000]));
    let wanted = bench.wanted();
    assert_in_place(&wanted, &heard, &[20_000, 110_000]);
}

#[test]
fn a_late_start_is_silence_and_sound_before_time_zero_is_cut() {
    let bench = Bench::new(&format!("{NOISE} -ac 2 -c:a aac -b:a 192k"), "a.mp4");
    let whole = decode(&bench.source, "-af pan=mono|c0=c0");
    let late = bench.with(|plan| plan.origin = -12_345);
    let report = late.encode();
    let heard = late.heard(&report);
    assert_eq!((report.filled, report.trimmed), (12_345, 0));
    assert!(is_silent(&heard[..11_000]));
    assert_in_place(&whole, &heard[12_345..], &[1500, 100_000]);
    let early = late.with(|plan| plan.origin = 12_345);
    let report = early.encode();
    let heard = early.heard(&report);
    assert_eq!((report.filled, report.trimmed, report.damage), (0, 12_345, Damage::default()));
    assert_in_place(&whole[12_345..], &heard, &[1500, 100_000]);
}

/// Transport streams end to end, each from its own arguments.
fn joined_ts(parts: &[&str]) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("joined.ts");
    let part = folder.path().join("part.ts");
    let mut bytes = Vec::new();
    for arguments in parts {
        make(&format!("{arguments} -muxdelay 0 -muxpreload 0"), &part);
        bytes.extend(std::fs::read(&part).unwrap());
    }
    std::fs::write(&source, bytes).unwrap();
    Bench::of(folder, source)
}

#[test]
fn an_overlap_is_trimmed_and_a_reset_clock_is_continued() {
    let two_seconds = "-f lavfi -i anoisesrc=r=48000:d=2.016:c=pink:seed=5:a=0.5 -ac 2 -c:a mp2 -b:a 192k";
    let overlap = joined_ts(&[two_seconds, &format!("{two_seconds} -output_ts_offset 1.5")]);
    let report = overlap.encode();
    assert!(report.trimmed.abs_diff(24_768) <= 1200, "{} trimmed", report.trimmed);
    assert!(report.samples.abs_diff(72_000 + 96_768) <= 1200, "{} samples", report.samples);
    let reset = joined_ts(&[&format!("{two_seconds} -output_ts_offset 60"), two_seconds]).with(|plan| plan.origin = 60 * 90_000);
    let report = reset.encode();
    // The MP2 encoder's delay lies before time zero.
    assert!((report.samples + report.trimmed).abs_diff(2 * 96_768) <= 1, "{} samples", report.samples);
    assert_eq!((report.filled, report.damage.lost_frames, report.damage.damaged_frames), (0, 0, 1));
    assert!(report.damage.message.unwrap().contains("jump"));
}

#[test]
fn a_source_that_changes_its_shape_midway_keeps_its_length() {
    let stereo = "-f lavfi -i anoisesrc=r=44100:d=1.985:c=pink:seed=5:a=0.5 -ac 2 -ar 44100 -c:a mp2 -b:a 192k";
    let mono =
        "-f lavfi -i anoisesrc=r=48000:d=2.016:c=pink:seed=5:a=0.5 -ac 1 -ar 48000 -c:a mp2 -b:a 96k -output_ts_offset 1.985";
    let report = joined_ts(&[stereo, mono]).encode();
    assert!(report.samples.abs_diff(192_048) <= 3000, "{} samples", report.samples);
    assert_eq!(report.damage.lost_frames, 0);
}

#[test]
fn another_rate_is_resampled_without_delay() {
    let arguments = "-f lavfi -i anoisesrc=r=44100:d=3:c=pink:seed=7:a=0.5 -ac 2 -ar 44100";
    let bench = Bench::new(arguments, "a.wav");
    let report = bench.encode();
    assert_eq!(report.samples, 144_000);
    assert_in_place(&bench.wanted(), &bench.heard(&report), &[1500, 70_000, 135_000]);
    let kept = bench.with(|plan| plan.sample_rate = 44_100);
    let report = kept.encode();
    assert_eq!((report.samples, report.init.timescale), (132_300, 44_100));
}

/// Loudness of each channel of the output, in the order of its layout.
fn loudness(bench: &Bench, channels: usize) -> Vec<f32> {
    let samples = decode(&bench.output(), "");
    let count = samples.len() / channels;
    (0..channels).map(|n| (samples[n..].iter().step_by(channels).map(|v| v * v).sum::<f32>() / count as f32).sqrt()).collect()
}

#[test]
fn surround_is_kept_or_mixed_down_and_mono_is_mono() {
    let levels =
        "aevalsrc=0.1*sin(600*t)|0.2*sin(600*t)|0.3*sin(600*t)|0.02*sin(200*t)|0.4*sin(600*t)|0.5*sin(600*t):s=48000:d=2:c=5.1";
    for codec in ["-c:a ac3 -b:a 640k", "-c:a flac"] {
        let bench = Bench::new(&format!("-f lavfi -i {levels} {codec}"), "surround.mkv");
        let kept = bench.with(|plan| {
            plan.channels = 6;
            plan.layout = "5.1".into();
        });
        kept.encode();
        for (heard, wanted) in loudness(&kept, 6).iter().zip([0.1, 0.2, 0.3, 0.02, 0.4, 0.5]) {
            let wanted = wanted / 2f32.sqrt();
            assert!((heard - wanted).abs() < wanted * 0.15 + 0.003, "{codec}: {heard} for {wanted}");
        }
        let layout = lines("ffprobe", "-v error -show_entries stream=channel_layout -of csv=p=0 {0}", &kept.output());
        assert_eq!(layout, ["5.1"]);
        let stereo = kept.with(|plan| {
            plan.channels = 2;
            plan.layout = "stereo".into();
        });
        stereo.encode();
        let heard = loudness(&stereo, 2);
        assert!(heard[0] > 0.15 && heard[1] > heard[0] * 1.1, "{codec}: {heard:?}");
    }
    let mono = Bench::new(&format!("{NOISE} -ac 1 -c:a libmp3lame"), "mono.mp3").with(|plan| {
        plan.channels = 1;
        plan.layout = "mono".into();
    });
    let report = mono.encode();
    assert_in_place(&mono.wanted(), &mono.heard(&report), &[1500, 100_000]);
}

#[test]
fn damage_is_counted_and_moves_nothing() {
    let bench = Bench::new(&format!("{NOISE} -ac 2 -c:a aac -b:a 192k"), "a.mp4");
    let whole = bench.heard(&bench.encode());
    let mut bytes = std::fs::read(&bench.source).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 3000].fill(0x55);
    std::fs::write(&bench.source, bytes).unwrap();
    let report = bench.encode();
    assert!(report.damage.lost_frames >= 2 && report.damage.lost_frames <= 8, "{:?}", report.damage);
    assert!(report.damage.message.is_some() && report.damage.first_bad.is_some_and(|at| at > 48_000 && at < 96_000));
    assert!(report.samples.abs_diff(whole.len() as u64) <= 1);
    assert_in_place(&whole, &bench.heard(&report), &[20_000, 120_000]);
}

fn refused(bench: &Bench, limits: &Limits) -> Refusal {
    bench.try_encode(limits).unwrap_err()
}

#[test]
fn what_cannot_be_heard_or_is_too_long_is_refused_in_words() {
    let bench = Bench::new(&format!("{NOISE} -ac 2 -c:a ac3"), "a.mp4");
    let before = refused(&bench.with(|plan| plan.origin = 10 * 48_000), &limits());
    assert_eq!(before.reason, RefusalReason::Media);
    assert!(before.message.contains("audio stream 0") && before.message.contains("before"), "{}", before.message);
    let bench = Bench::new(&format!("{NOISE} -ac 2 -c:a ac3"), "a.mp4");
    let long = refused(&bench, &Limits { max_duration_s: 2, ..limits() });
    assert_eq!(long.reason, RefusalReason::Limit);
    let full = refused(&bench, &Limits { scratch_bytes: 5000, ..limits() });
    assert_eq!(full.reason, RefusalReason::Limit);
    let bench = bench.with(|plan| _ = plan.encoder.options.insert("colour".into(), "loud".into()));
    let misspelt = refused(&bench, &limits());
    assert_eq!(misspelt.reason, RefusalReason::Settings);
    assert!(misspelt.message.contains("colour"), "{}", misspelt.message);
    let bench = bench.with(|plan| _ = plan.encoder.options.remove("colour"));
    let mut bytes = std::fs::read(&bench.source).unwrap();
    let media = bytes.windows(4).position(|w| w == b"mdat").unwrap() + 4;
    let size = u32::from_be_bytes(bytes[media - 8..media - 4].try_into().unwrap()) as usize - 8;
    bytes[media..media + size].fill(0x55);
    std::fs::write(&bench.source, bytes).unwrap();
    let silent = refused(&bench, &limits());
    assert_eq!(silent.reason, RefusalReason::Media);
    assert!(silent.message.starts_with("audio stream 0 gives no sound"), "{}", silent.message);
}
