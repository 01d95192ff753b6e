//! Where content decides: a quiet scene and a busy one, from source to playlist, by real children.

use crate::stage::{PROGRAM, Running, Stage, all_gone, files, run, succeeds, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Frames of each scene, at 25 a second.
const SCENE: u64 = 100;

/// A slow slope, then a test card under noise; 320x192.
fn two_scenes() -> Stage {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("two-scenes.mp4");
    let scenes = "[0]format=yuv420p[a];[1]noise=alls=6:allf=t:all_seed=7,format=yuv420p[b];[a][b]concat=n=2:v=1";
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-f", "lavfi", "-i", "gradients=s=320x192:r=25:d=4:seed=3:speed=0.005"]);
    command.args(["-f", "lavfi", "-i", "testsrc2=s=320x192:r=25:d=4", "-filter_complex", scenes]);
    command.args(["-c:v", "libx264", "-preset", "ultrafast", "-crf", "10", "-g", "25", "-threads", "1"]).arg(&source);
    succeeds(&run(&mut command));
    std::fs::create_dir(home.path().join("tmp")).unwrap();
    Stage { home, source }
}

/// Chunks of so many frames.
fn command(stage: &Stage, preset: &str, frames: u32, more: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("transcode").arg(&stage.source).arg("-o").arg(stage.out()).args(["--preset", preset]).stdin(Stdio::null());
    let frames = format!("chunk.frames={frames}");
    let cut = ["chunk.grid=frames", frames.as_str(), "narrowband.grid.shortest_s=0.5"];
    let encoded = ["narrowband.grid.nominal_s=2", "video.speed=ultrafast", "video.params.bframes=3"];
    for set in cut.iter().chain(&encoded).chain(more) {
        command.args(["--set", set]);
    }
    command.env("TMPDIR", stage.path("tmp"));
    command
}

fn lines(command: &mut Command) -> Vec<String> {
    let output = run(command);
    succeeds(&output);
    assert_eq!(text(&output.stderr), "", "the decoder has nothing to complain of");
    text(&output.stdout).lines().map(str::to_string).collect()
}

/// Frames that a whole decode of a playlist gives.
fn frames(playlist: &Path) -> u64 {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-i"]).arg(playlist);
    command.args(["-map", "0:v", "-fps_mode", "passthrough", "-f", "framemd5", "-"]);
    lines(&mut command).iter().filter(|line| !line.starts_with('#') && !line.is_empty()).count() as u64
}

fn crfs(report: &Value, chunk: usize) -> Vec<f64> {
    let rungs = report["chunks"][chunk]["rungs"].as_array().unwrap();
    rungs.iter().map(|rung| rung["planned"]["crf"].as_f64().unwrap()).collect()
}

#[test]
fn chunks_of_different_quality_are_one_title() {
    for preset in ["narrowband-h265", "narrowband-h264"] {
        let stage = two_scenes();
        succeeds(&run(&mut command(&stage, preset, 60, &[])));
        let report = stage.report();
        let chunks = report["chunks"].as_array().unwrap().len();
        assert_eq!((chunks, &report["seams"]["proved"]), (4, &Value::from(3)), "{report:#}");
        assert_ne!(crfs(&report, 0), crfs(&report, 3), "the slope and the noise are not worth the same CRF");
        for rung in report["rungs"].as_array().unwrap() {
            let name = rung["name"].as_str().unwrap();
            let of_rung: Vec<PathBuf> = files(&stage.out().join(name));
            let inits: BTreeSet<_> = of_rung.iter().filter(|path| path.extension().is_some_and(|e| e == "mp4")).collect();
            assert_eq!(inits.len(), 1, "every chunk of {name} has the same parameter sets: {inits:?}");
            assert_eq!(frames(&stage.out().join(name).join("index.m3u8")), 2 * SCENE, "{name}");
        }
        let cuts = report["narrowband"]["grid"]["cuts"].as_array().unwrap();
        let facts = &report["source"]["facts"]["video"][0];
        let ticks = facts["time_base"][1].as_i64().unwrap() / 25;
        let first = facts["first_pts"].as_i64().unwrap();
        let at: Vec<i64> = cuts.iter().map(|cut| (cut["at"].as_i64().unwrap() - first) / ticks).collect();
        assert_eq!(at, [SCENE as i64], "{cuts:?}");
        assert_eq!(report["narrowband"]["grid"]["segments_on_cuts"], 1, "{report:#}");
    }
}

#[test]
fn a_run_that_was_killed_while_it_analysed_goes_on_where_it_was() {
    let stage = two_scenes();
    let slow = ["narrowband.probe.speed=veryslow"];
    let done = |stage: &Stage, part: &str| {
        stage.markers().into_iter().filter(|(path, _)| path.to_string_lossy().contains(part)).collect::<Vec<_>>()
    };
    let mut running = Running::start(&mut command(&stage, "narrowband-h265", 20, &slow));
    running.wait_until_it_works(|| done(&stage, "/done/analyse/").len() >= 2);
    kill(Pid::from_raw(running.pid() as i32), Signal::SIGKILL).unwrap();
    let (_, seen) = running.end();
    all_gone(&seen);
    let before = done(&stage, "/done/analyse/");
    assert!(before.len() < 10 && done(&stage, "/done/decide").is_empty(), "{before:?}");

    succeeds(&run(&mut command(&stage, "narrowband-h265", 20, &slow)));
    let after = done(&stage, "/done/analyse/");
    assert_eq!((after.len(), done(&stage, "/done/encode/").len()), (10, 10));
    assert!(before.iter().all(|marker| after.contains(marker)), "nothing was analysed twice: {before:?}, {after:?}");
    assert_eq!(stage.report()["rungs"][0]["frames"], 2 * SCENE);
}
