//! `narrows measure` as a shell sees it, through the real jailed child.
//!
//! What it prints is compared with the same measures over frames that the `ffmpeg` program decoded and scaled. That the measures
//! themselves are right is tested against an independent implementation in `src/quality`.

#[path = "common/media.rs"]
mod media;

use media::{Audio, Clip, Rate, kept};
use narrows::plan::time::Rational;
use narrows::quality::{Format, Model, Plane, Planes, Samples, Vmaf, Xpsnr, pool, pool_decibels};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for a child to be started, and after a signal for the end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between what this program scaled and what the ffmpeg program did: nothing, but for rounding on the way into JSON.
const TOLERANCE: f64 = 1e-6;

fn measure(words: &[&str]) -> Output {
    command(words).output().expect("the program starts")
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_narrows"));
    // Settings of who runs the tests are none of theirs.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NARROWS_")) {
        command.env_remove(name);
    }
    command.arg("measure").args(words).stdin(Stdio::null());
    command
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn fails(words: &[&str], code: i32, named: &[&str]) {
    let output = measure(words);
    let error = said(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {error}");
    for word in named {
        assert!(error.contains(word), "{words:?}: {word:?} is not in: {error}");
    }
    assert_eq!(said(&output.stdout), "", "{words:?}");
}

#[track_caller]
fn json(words: &[&str]) -> Value {
    let output = measure(&[words, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{words:?}: {}", said(&output.stderr));
    assert_eq!(said(&output.stderr), "", "only JSON is wanted");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A clip of 16:9, large enough for every model.
fn clip(frames: u32, seed: u32) -> Clip {
    Clip { frames, seed, width: 384, height: 216, ..Clip::default() }
}

/// Encodes with the ffmpeg program, which is as bad as it is told to be.
fn encode(source: &Path, to: &Path, words: &[&str]) {
    ffmpeg(&[&["-i", text(source)], words, &[text(to)]].concat());
}

fn ffmpeg(words: &[&str]) {
    let output = Command::new("ffmpeg").args(["-nostdin", "-v", "error", "-y"]).args(words).output().unwrap();
    assert!(output.status.success(), "ffmpeg {words:?}: {}", said(&output.stderr));
}

/// The frames of a file as raw video of a format.
fn decoded(file: &Path, format: Format, folder: &Path) -> Vec<u8> {
    let raw = folder.join("decoded.yuv");
    let pixels = if format.bits == 8 { "yuv420p" } else { "yuv420p10le" };
    let filters = format!("scale={}:{}:flags=bicubic,format={pixels}", format.width, format.height);
    encode(file, &raw, &["-an", "-vf", &filters, "-fps_mode", "passthrough", "-f", "rawvideo"]);
    fs::read(raw).unwrap()
}

/// The planes of frame `n`.
fn planes<'a, T>(all: &'a [T], n: usize, format: &Format, samples: impl Fn(&'a [T]) -> Samples<'a>) -> Planes<'a> {
    let sizes: [(usize, usize); 3] = std::array::from_fn(|n| format.plane(n));
    let mut at = n * sizes.iter().map(|(w, h)| w * h).sum::<usize>();
    Planes(sizes.map(|(width, height)| {
        let from = at;
        at += width * height;
        Plane { samples: samples(&all[from..at]), stride: width }
    }))
}

/// Both measures over decoded frames.
fn measured(files: [&Path; 2], format: Format, rate: Rational, frames: usize) -> (Vec<Vec<f64>>, Vec<narrows::quality::FrameError>) {
    let folder = tempfile::tempdir().unwrap();
    let bytes = files.map(|file| decoded(file, format, folder.path()));
    let words = bytes.each_ref().map(|b| b.chunks_exact(2).map(|w| u16::from_le_bytes([w[0], w[1]])).collect::<Vec<_>>());
    let (mut vmaf, mut xpsnr) = (Vmaf::new(&Model::ALL, format, 1).unwrap(), Xpsnr::new(format, rate, 1).unwrap());
    for n in 0..frames {
        let lent = |side: usize| match format.bits {
            8 => planes(&bytes[side], n, &format, Samples::Bytes),
            _ => planes(&words[side], n, &format, Samples::Words),
        };
        vmaf.push(&lent(0), &lent(1)).unwrap();
        xpsnr.push(&lent(0), &lent(1)).unwrap();
    }
    (vmaf.finish().unwrap().into_iter().map(|scores| scores.frames).collect(), xpsnr.finish())
}

#[track_caller]
fn near(value: &Value, expected: f64) {
    let value = value.as_f64().unwrap_or_else(|| panic!("{value} is no number"));
    assert!((value - expected).abs() < TOLERANCE, "{value} and {expected}");
}

#[test]
fn what_is_printed_is_what_the_frames_say() {
    let home = tempfile::tempdir().unwrap();
    let source = clip(12, 3).make();
    let ten = Clip { pixel_format: "yuv420p10le", codec: media::Codec::H265, rate: Rate::Constant(50, 1), ..clip(9, 4) }.make();
    let small = home.path().join("small.mp4");
    for (source, frames, bits, rate) in [(&source, 12, 8, 25), (&ten, 9, 10, 50)] {
        encode(source, &small, &["-an", "-vf", "scale=240:136", "-c:v", "libx264", "-crf", "33", "-bf", "3"]);
        let format = Format { width: 384, height: 216, bits };
        let rate = Rational::new(rate, 1);
        let (vmaf, xpsnr) = measured([source, &small], format, rate, frames);
        let report = json(&[text(source), text(&small), "--model", "neg,v1", "--frames", "--threads", "3"]);
        assert_eq!([&report["frames"], &report["scored"], &report["bits"]].map(|v| v.as_u64().unwrap() as usize), [frames, frames, bits.into()]);
        assert_eq!(report["frame_rate"], serde_json::json!([rate.num, rate.den]));
        for (name, scores) in ["neg", "v1"].iter().zip(&vmaf) {
            let pooled = pool(scores).unwrap();
            let figures = [("mean", pooled.mean), ("harmonic", pooled.harmonic), ("p5", pooled.p5), ("min", pooled.min)];
            figures.iter().for_each(|(figure, value)| near(&report["vmaf"][name][figure], *value));
            scores.iter().enumerate().for_each(|(n, score)| near(&report["per_frame"][n]["vmaf"][name], *score));
        }
        for (plane, name) in ["y", "u", "v"].iter().enumerate() {
            near(&report["xpsnr"][name]["mean"], pool_decibels(&xpsnr, plane).unwrap().mean.unwrap());
            let per_frame = xpsnr.iter().map(|errors| errors.decibels()[plane].unwrap());
            per_frame.enumerate().for_each(|(n, value)| near(&report["per_frame"][n]["xpsnr"][name], value));
        }
        assert!(report["notes"][0].as_str().unwrap().contains("240x136"), "{}", report["notes"]);
    }
}

#[test]
fn a_part_and_every_nth_frame_of_it_can_be_asked_for() {
    let (source, other) = (clip(12, 3).make(), clip(12, 5).make());
    let files = [text(&source), text(&other)];
    let all = json(&[&files[..], &["--frames", "--model", "none"]].concat());
    let part = json(&[&files[..], &["--frames", "--start", "2", "--count", "7", "--subsample", "3"]].concat());
    assert_eq!((part["frames"].as_u64(), part["scored"].as_u64()), (Some(7), Some(3)));
    let numbers: Vec<u64> = part["per_frame"].as_array().unwrap().iter().map(|f| f["frame"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [2, 5, 8]);
    // But for the first, which has no motion before it.
    for n in [1, 2] {
        assert_eq!(part["per_frame"][n]["xpsnr"], all["per_frame"][2 + 3 * n]["xpsnr"]);
    }
    assert_eq!(all["vmaf"], serde_json::json!({}));
}

#[test]
fn an_identical_file_is_infinite_in_words_and_null_in_json() {
    let source = clip(4, 3).make();
    let report = json(&[text(&source), text(&source)]);
    assert_eq!(report["xpsnr"]["y"], serde_json::json!({ "mean": null, "p5": null, "min": null }));
    let output = measure(&[text(&source), text(&source), "--frames"]);
    let table = said(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    assert!(table.contains("4 frames at 384x216, 8 bits"), "{table}");
    assert!(table.lines().any(|line| line.starts_with("XPSNR Y dB") && line.matches("inf").count() == 3), "{table}");
    assert!(table.lines().any(|line| line.starts_with("VMAF NEG")), "{table}");
}

#[test]
fn a_playlist_is_its_segments_end_to_end() {
    let home = tempfile::tempdir().unwrap();
    let audio = vec![Audio { codec: "aac", channels: 2, sample_rate: 48_000, language: "eng" }];
    let source = Clip { audio, ..clip(75, 3) }.make();
    let out = home.path().join("out");
    let mut transcode = Command::new(env!("CARGO_BIN_EXE_narrows"));
    transcode.args(["transcode", text(&source), "-o", text(&out), "--preset", "h264", "--json"]);
    for set in ["packaging.segment_s=1", "chunk.grid=fixed", "chunk.target_s=2", "chunk.shortest_s=1", "video.speed=ultrafast"] {
        transcode.args(["--set", set]);
    }
    let made = transcode.stdin(Stdio::null()).output().unwrap();
    assert!(made.status.success(), "{}", said(&made.stderr));
    let mut playlists: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path().join("index.m3u8")).collect();
    playlists.retain(|playlist| fs::read_to_string(playlist).is_ok_and(|text| !text.contains("audio") && text.contains("EXT-X-MAP")));
    playlists.retain(|playlist| !text(playlist).contains("audio"));
    assert!(!playlists.is_empty(), "the rungs have playlists");
    for playlist in &playlists {
        let report = json(&[text(&source), text(playlist)]);
        assert_eq!((report["frames"].as_u64(), report["distorted_frames"].as_u64()), (Some(75), Some(75)));
        assert!(report["vmaf"]["neg"]["mean"].as_f64().unwrap() > 30.0, "{report}");
    }
    // The last segment is not there for who does not know its name.
    let playlist = &playlists[0];
    let lines: Vec<String> = fs::read_to_string(playlist).unwrap().lines().map(String::from).collect();
    let last = lines.iter().rposition(|line| line.ends_with(".m4s")).unwrap();
    let short = playlist.with_file_name("short.m3u8");
    fs::write(&short, [&lines[..last], &lines[last + 1..]].concat().join("\n")).unwrap();
    fails(&[text(&source), text(&short)], 65, &["has 75 frames", "distorted has 50"]);
    let report = json(&[text(&source), text(&short), "--allow-extra", "25"]);
    assert_eq!((report["frames"].as_u64(), report["reference_frames"].as_u64()), (Some(50), Some(75)));
    fails(&[text(&source), text(&out.join("master.m3u8"))], 65, &["master playlist"]);
    fs::write(&short, "#EXTM3U\n#EXTINF:1,\ngone.m4s\n").unwrap();
    fails(&[text(&source), text(&short)], 2, &["gone.m4s"]);
}

#[test]
fn what_goes_wrong_has_its_exit_code_and_its_name() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_string();
    let (source, shorter) = (clip(6, 3).make(), clip(4, 3).make());
    let (source, shorter) = (text(&source), text(&shorter));
    fails(&["none.mp4", source], 2, &["none.mp4"]);
    fails(&[source, "none.mp4"], 2, &["none.mp4"]);
    fails(&[source], 2, &["DIST"]);
    for wrong in [&["--count", "0"][..], &["--subsample", "0"], &["--model", "vmaf"], &["--bits", "9"], &["--model", "neg,none"]] {
        fails(&[&[source, source], wrong].concat(), 2, &[wrong[0]]);
    }
    fs::write(path("bad.toml"), "[worker]\nslot = 1\n").unwrap();
    fails(&[source, source, "--config", &path("bad.toml")], 64, &["worker.slot"]);
    fails(&[source, shorter], 65, &["has 6 frames", "distorted has 4"]);
    fs::write(path("text.mp4"), "no media at all ".repeat(100)).unwrap();
    fails(&[source, &path("text.mp4")], 65, &["text.mp4", "the distorted"]);
    ffmpeg(&["-f", "lavfi", "-i", "sine=duration=0.3", &path("sound.wav")]);
    fails(&[&path("sound.wav"), source], 65, &["the reference", "no video"]);
    let small = Clip { width: 62, height: 48, frames: 3, ..Clip::default() }.make();
    fails(&[text(&small), text(&small)], 65, &["62x48", "too small"]);
    assert_eq!(json(&[text(&small), text(&small), "--model", "none"])["frames"], 3);
    let output = measure(&["--help"]);
    let help = said(&output.stdout);
    assert!(["Examples:", "Exit codes:", "narrows measure"].iter().all(|word| help.contains(word)), "{help}");
}

#[test]
fn kept_clips_of_odd_sizes_and_without_a_first_keyframe_can_be_compared() {
    for name in ["odd-161x121.webm", "no-first-keyframe.ts", "editlist-preroll.mp4"] {
        let file = kept(name);
        let report = json(&[text(&file), text(&file)]);
        assert!(report["frames"].as_u64().unwrap() > 1, "{name}: {report}");
        assert_eq!(report["xpsnr"]["y"]["mean"], Value::Null, "{name}");
    }
}

#[test]
fn an_interrupt_ends_it_with_130_and_leaves_nothing() {
    let scratch: TempDir = tempfile::tempdir().unwrap();
    let source = kept("bunny-1080p25-12s.mp4");
    let mut command = command(&[text(&source), text(&source), "--model", "neg,v1", "--threads", "1"]);
    let mut running = command.env("TMPDIR", scratch.path()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    // The child is started after signals are listened to.
    let children = format!("/proc/{0}/task", running.id());
    let has_child = || {
        let threads = fs::read_dir(&children).unwrap().map(|thread| thread.unwrap().path().join("children"));
        threads.into_iter().any(|list| fs::read_to_string(list).is_ok_and(|pids| !pids.trim().is_empty()))
    };
    while !has_child() {
        assert!(begun.elapsed() < PATIENCE && running.try_wait().unwrap().is_none(), "no child was started");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    kill(Pid::from_raw(running.id() as i32), Signal::SIGINT).unwrap();
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output.stderr));
    assert!(said(&output.stderr).contains("interrupted"));
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "its folder is gone");
}
