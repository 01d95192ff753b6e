//! The program as a person uses it: exit codes, what is printed, and what is left when it is broken off.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CLIP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/media/bunny-1080p25-12s.mp4");
/// Longest wait for anything; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn narrows(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_narrows"));
    command.args(words).stdin(Stdio::null());
    command
}

fn output(words: &[&str]) -> Output {
    narrows(words).output().expect("the program starts")
}

/// A small ladder in a dozen chunks.
fn transcode(out: &Path, more: &[&str]) -> Command {
    let mut command = narrows(&["transcode", CLIP, "--preset", "h264", "-o"]);
    command.arg(out);
    for field in [
        r#"video.rungs=[{"height":360,"crf":30},{"height":240,"crf":30}]"#,
        "video.speed=ultrafast",
        "chunk.grid=frames",
        "chunk.frames=25",
        "packaging.segment_s=1",
    ] {
        command.args(["--set", field]);
    }
    command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Every file under a folder with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        // What vanishes while it is looked at is not there.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => drop(fs::read(entry.path()).map(|content| found.insert(entry.path(), content))),
            }
        }
    }
    found
}

fn markers(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = files(&out.join(".narrows/jobs"));
    found.retain(|path, _| path.components().any(|c| c.as_os_str() == "encode"));
    found
}

/// Processes whose parent is `parent`, by /proc.
fn children(parent: u32) -> Vec<i32> {
    let stat = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let is_child = |pid: &i32| {
        let text = stat(pid);
        let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        after_name.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    all.filter(is_child).collect()
}

fn is_alive(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Starts a run, waits until it has done two chunks and has children at work, and sends it the signal.
/// How it ended, after how long, and what it said.
async fn broken_off(out: &Path, signal: Signal) -> (ExitStatus, Duration, String) {
    let done_before = markers(out).len();
    let mut run = transcode(out, &["--slots", "2"]).spawn().unwrap();
    until("two chunks", || markers(out).len() >= done_before + 2).await;
    until("a child", || !children(run.id()).is_empty()).await;
    let at_work = children(run.id());
    let asked = Instant::now();
    kill(Pid::from_raw(run.id() as i32), signal).unwrap();
    until("the end of the run", || run.try_wait().unwrap().is_some()).await;
    let took = asked.elapsed();
    until("the end of its children", || !at_work.iter().any(|pid| is_alive(*pid))).await;
    let output = run.wait_with_output().unwrap();
    (output.status, took, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_mistake_has_its_exit_code_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    fs::write(at("noise.mp4"), vec![7; 4096]).unwrap();
    fs::write(at("job.json"), r#"{"input":{"uri":"a"},"output":{"uri":"b"},"speed":1}"#).unwrap();
    fs::write(at("fleet.toml"), "[worker]\nslot = 2\n").unwrap();
    let (noise, job, config, out) = (at("noise.mp4"), at("job.json"), at("fleet.toml"), at("out"));
    let cases: &[(&[&str], i32, &str)] = &[
        (&["transcode"], 2, "--output"),
        (&["transcode", "none.mp4", "-o", &out], 2, "none.mp4"),
        (&["probe", "none.mp4"], 2, "none.mp4"),
        (&["transcode", dir.path().to_str().unwrap(), "-o", &out], 2, "not a regular file"),
        (&["transcode", CLIP, "-o", &noise], 2, "noise.mp4"),
        (&["transcode", CLIP, "-o", &out, "--preset", "h266"], 64, "mezzanine"),
        (&["transcode", CLIP, "-o", &out, "--set", "packaging.segments=4"], 64, "set.packaging.segments"),
        (&["transcode", CLIP, "-o", &out, "--config", &config], 64, "worker.slot"),
        (&["transcode", "--job", &job], 64, "speed"),
        (&["presets", "show", "h266"], 64, "h265"),
        (&["transcode", &noise, "-o", &out], 65, "noise.mp4"),
        (&["probe", &noise], 65, "noise.mp4"),
    ];
    for (words, code, named) in cases {
        let output = output(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{words:?}: {said}");
        assert!(said.contains(named), "{words:?}: {said}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
    for words in [&["--help"][..], &["transcode", "--help"], &["presets"], &["probe", CLIP]] {
        assert_eq!(output(words).status.code(), Some(0), "{words:?}");
    }
}

#[test]
fn a_variable_that_is_no_setting_is_named() {
    let output = narrows(&["probe", CLIP]).env("NARROWS_SLOTS", "2").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("NARROWS_SLOTS"));
}

#[tokio::test]
async fn an_interrupted_run_ends_within_two_seconds_and_leaves_nothing_half_made() {
    let dir = tempfile::tempdir().unwrap();
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let (status, took, said) = broken_off(dir.path(), signal).await;
        assert_eq!(status.code(), Some(code), "{said}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(names(dir.path()).iter().all(|n| [".narrows", "240p", "360p", "audio-0-128k"].contains(&n.as_str())));
        assert_eq!(names(&dir.path().join(".narrows")), ["jobs", "lock"]);
        // Segments and init segments, whole; no playlist.
        assert!(files(&dir.path().join("360p")).keys().all(|p| p.extension().is_some_and(|e| e == "m4s" || e == "mp4")));
    }
}

#[tokio::test]
async fn a_killed_run_is_taken_up_and_no_finished_part_is_done_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (status, ..) = broken_off(dir.path(), Signal::SIGKILL).await;
    assert_eq!(status.code(), None);
    let before = markers(dir.path());
    let again = transcode(dir.path(), &[]).output().unwrap();
    let said = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(0), "{said}");
    assert!(said.contains("taking up"), "{said}");
    let after = markers(dir.path());
    assert!(after.len() > before.len());
    // A marker holds the times of its child: one that was written again would differ.
    before.iter().for_each(|(path, content)| assert_eq!(&after[path], content, "{}", path.display()));
    assert_eq!(names(&dir.path().join(".narrows")), ["jobs", "lock"]);
}

#[test]
fn with_json_there_is_the_report_and_nothing_else_and_a_finished_job_is_not_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = transcode(dir.path(), &["--json", "--ranges"]).output().unwrap();
    assert_eq!((first.status.code(), first.stderr.as_slice()), (Some(0), &b""[..]));
    let report: serde_json::Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!(report["rungs"][0]["frames"], report["rungs"][1]["frames"]);
    assert_eq!(report["seams"]["proved"].as_u64().unwrap() + 1, report["chunks"].as_array().unwrap().len() as u64);
    let before = files(dir.path());
    let second = transcode(dir.path(), &["--json"]).output().unwrap();
    assert!(second.stdout == first.stdout, "{}", String::from_utf8_lossy(&second.stderr));
    assert!(files(dir.path()) == before, "nothing was written");
    for name in ["master.m3u8", "manifest.mpd", "report.json"] {
        assert!(dir.path().join(name).is_file(), "{name}");
    }
}

#[tokio::test]
async fn two_runs_cannot_have_one_folder() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = transcode(dir.path(), &["--slots", "1"]).spawn().unwrap();
    until("the first run to be at work", || !files(&dir.path().join(".narrows/jobs")).is_empty()).await;
    let second = transcode(dir.path(), &[]).output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another narrows"));
    kill(Pid::from_raw(first.id() as i32), Signal::SIGINT).unwrap();
    until("the first run to end", || first.try_wait().unwrap().is_some()).await;
}
