//! Interrupted, killed, taken up again, started twice.

use crate::stage::{
    PROGRAM, Running, STOPS_WITHIN, Stage, all_gone, children_of, fails, files, run, state_and_parent, succeeds, text, wait_for,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// 60 s that take longer than any of these tests.
const LONG: u32 = 1500;

/// Nothing in the output folder but whole objects, nothing of the work folder but what a resumed run needs.
#[track_caller]
fn leaves_nothing_half_done(stage: &Stage) {
    stage.has_no_manifest();
    for path in files(&stage.out()).iter().filter(|path| !path.to_string_lossy().contains("/.narrows/")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let digest = name.split('.').nth(1).unwrap_or_default();
        let is_object = digest.len() == 8 && digest.chars().all(|c| c.is_ascii_hexdigit());
        assert!(is_object, "{} is no object named by its content", path.display());
    }
    let mut kept: Vec<_> = fs::read_dir(stage.out().join(".narrows")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    kept.sort();
    assert_eq!(kept, ["jobs", "lock"]);
    assert_eq!(files(&stage.path("tmp")), Vec::<PathBuf>::new());
    let names: Vec<_> = fs::read_dir(stage.path("")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(names.iter().all(|name| name == "out" || name == "tmp"), "{names:?}");
}

#[track_caller]
fn stops(signal: fn(&Running), code: i32) {
    let stage = Stage::new(LONG);
    let mut running = Running::start(stage.slow_command().args(["--slots", "2"]));
    running.wait_until_it_works(|| stage.markers().keys().any(|path| path.ends_with("done/probe.json")));
    let asked = Instant::now();
    signal(&running);
    let (output, seen) = running.end();
    let took = asked.elapsed();
    fails(&output, code, &["the same command again goes on"]);
    assert!(took < STOPS_WITHIN, "{took:?}");
    all_gone(&seen);
    leaves_nothing_half_done(&stage);
}

#[test]
fn ctrl_c_ends_it_within_two_seconds_with_130_and_leaves_nothing() {
    stops(Running::interrupt, 130);
}

#[test]
fn sigterm_ends_it_within_two_seconds_with_143_and_leaves_nothing() {
    stops(|running| kill(Pid::from_raw(running.pid() as i32), Signal::SIGTERM).unwrap(), 143);
}

#[test]
fn ctrl_c_ends_a_probe_or_finds_it_done() {
    let stage = Stage::new(LONG);
    let mut command = Command::new(PROGRAM);
    let running = Running::start(command.arg("probe").arg(&stage.source).env("TMPDIR", stage.path("tmp")));
    let seen = wait_for("a child, or the end", || {
        let children = children_of(running.pid());
        let has_ended = state_and_parent(running.pid()).is_none_or(|(state, _)| state == "Z");
        (!children.is_empty() || has_ended).then_some(children)
    });
    running.interrupt();
    let (output, _) = running.end();
    assert!(matches!(output.status.code(), Some(130 | 0)), "{output:?}");
    all_gone(&seen);
    assert_eq!(files(&stage.path("tmp")), Vec::<PathBuf>::new());
}

#[test]
fn a_killed_job_is_taken_up_and_no_finished_part_is_made_twice() {
    let stage = Stage::new(500);
    let command = || {
        let mut command = stage.command_into(&stage.out(), "h264", "slow");
        command.args(["--slots", "1"]);
        command
    };
    let mut running = Running::start(&mut command());
    running.wait_until_it_works(|| stage.chunks_done() >= 2);
    kill(Pid::from_raw(running.pid() as i32), Signal::SIGKILL).unwrap();
    let (output, seen) = running.end();
    assert_eq!(output.status.code(), None, "it was killed");
    all_gone(&seen);
    stage.has_no_manifest();
    let (markers, media) = (stage.markers(), stage.media());
    assert!((2..10).contains(&stage.chunks_done()), "{markers:?}");

    let again = run(&mut command());
    succeeds(&again);
    let said = text(&again.stderr);
    assert!(said.contains(&format!("of which {} parts are done", markers.len())), "{said}");
    let (markers_then, media_then) = (stage.markers(), stage.media());
    // The part that packages is done anew by whoever finishes.
    for (path, written) in &markers {
        assert_eq!(markers_then.get(path), Some(written), "{} was written twice", path.display());
    }
    let named = |marker: &Path| -> Vec<PathBuf> {
        let marker: Value = serde_json::from_slice(&fs::read(marker).unwrap()).unwrap();
        let objects = marker["objects"].as_array().unwrap();
        objects.iter().map(|object| stage.out().join(object["path"].as_str().unwrap())).collect()
    };
    for object in markers.keys().flat_map(|marker| named(marker)) {
        assert_eq!(media_then[&object], media[&object], "{} was written twice", object.display());
    }
    let report = stage.report();
    assert_eq!(report["rungs"][0]["frames"], 500, "{report:#}");
    assert_eq!(report["chunks"].as_array().unwrap().len(), 10);
    assert_eq!(report["seams"]["proved"], 9, "{report:#}");
    assert_eq!(files(&stage.out().join(".narrows/scratch")), Vec::<PathBuf>::new(), "the dead run's folders are gone");
}

#[test]
fn a_finished_job_is_found_done_at_once() {
    let stage = Stage::new(150);
    succeeds(&run(&mut stage.command()));
    let everything = |stage: &Stage| (stage.markers(), stage.media(), fs::read(stage.out().join("report.json")).unwrap());
    let before = everything(&stage);
    let again = run(&mut stage.command());
    succeeds(&again);
    let (said, table) = (text(&again.stderr), text(&again.stdout));
    assert!(said.contains("already complete"), "{said}");
    assert!(!said.contains("encoding"), "{said}");
    assert!(table.contains("108p"), "{table}");
    assert_eq!(everything(&stage), before);
}

#[test]
fn a_finished_job_that_lost_a_segment_makes_that_part_again() {
    let stage = Stage::new(150);
    succeeds(&run(&mut stage.command()));
    let before = stage.markers();
    let lost = stage.media().into_keys().find(|path| path.to_string_lossy().contains("108p/00002.")).unwrap();
    let bytes = fs::read(&lost).unwrap();
    fs::remove_file(&lost).unwrap();
    succeeds(&run(&mut stage.command()));
    assert_eq!(fs::read(&lost).unwrap(), bytes, "the same bytes under the same name");
    let after = stage.markers();
    let again: Vec<_> = before.iter().filter(|(path, at)| after[*path] != **at).map(|(path, _)| path.clone()).collect();
    assert!(again.iter().any(|path| path.ends_with("encode/00001.json")), "{again:?}");
    assert!(!again.iter().any(|path| path.ends_with("encode/00000.json")), "{again:?}");
}

#[test]
fn a_folder_is_had_by_one_run_at_a_time() {
    let stage = Stage::new(LONG);
    let mut first = Running::start(&mut stage.slow_command());
    first.wait_until_it_works(|| true);
    let second = run(&mut stage.command());
    fails(&second, 2, &["another narrows", stage.out().to_str().unwrap()]);
    first.wait_until_it_works(|| true);
    first.interrupt();
    fails(&first.end().0, 130, &[]);
}
