//! The `h264` output plays in headless Chromium through hls.js, dash.js and shaka-player: time advances across every
//! segment and chunk seam without a stall or a decoder error, and duration and tracks are right.
//!
//! Needs node, npm and Chromium (`CHROMIUM` names another than `/usr/bin/chromium`). The screenshots stand in
//! `target/playback/<clip>/shots`.

#[path = "common/node.rs"]
mod node;

use node::{project, run, workplace};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files of the node project.
const SCRIPTS: &[&str] = &[
    "playback/play.mjs",
    "playback/checks.mjs",
    "playback/expected.mjs",
    "playback/server.mjs",
    "playback/page.html",
    "playback/page.js",
    "playback/players.js",
];

/// A test source: moving picture, a clock, and one tone for each language.
fn clip(folder: &Path, seconds: u32) -> PathBuf {
    let clip = folder.join("clip.mp4");
    let video = format!("testsrc2=size=640x360:rate=25:duration={seconds}");
    let tone = |hz: u32| format!("sine=frequency={hz}:sample_rate=48000:duration={seconds}");
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-y", "-f", "lavfi", "-i", &video]);
    command.args(["-f", "lavfi", "-i", &tone(440), "-f", "lavfi", "-i", &tone(660), "-map", "0", "-map", "1", "-map", "2"]);
    command.args(["-c:v", "libx264", "-preset", "ultrafast", "-g", "50", "-c:a", "aac"]);
    command.args(["-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu"]);
    run(command.arg(&clip));
    clip
}

#[test]
fn the_h264_output_plays_across_every_seam_in_three_players() {
    let folder = workplace().join("generated");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder under target");
    let clip = clip(&folder, 20);
    let out = folder.join("out");
    let mut transcode = Command::new(env!("CARGO_BIN_EXE_narrows"));
    transcode.arg("transcode").arg(&clip).arg("-o").arg(&out).args(["--preset", "h264", "--json"]);
    run(transcode.args(["--set", "packaging.segment_s=2", "--set", "chunk.target_s=6"]));
    let mut play = Command::new("node");
    play.arg("play.mjs").arg(&out).args(["--duration", "20", "--shots"]).arg(folder.join("shots"));
    let seen: Value = serde_json::from_slice(&run(play.current_dir(project(SCRIPTS)))).expect("play.mjs prints JSON");
    assert_eq!(seen["ok"], true, "{seen:#}");
    assert_eq!(seen["passes"].as_object().map(|p| p.len()), Some(4), "{seen:#}");
    assert_eq!(seen["expected"]["audio"].as_array().map(Vec::len), Some(2), "{seen:#}");
    for pass in ["hls.js", "dash.js", "shaka-hls", "shaka-dash"] {
        let bytes = fs::metadata(folder.join(format!("shots/{pass}.png"))).unwrap_or_else(|e| panic!("{pass}: {e}")).len();
        assert!(bytes > 5_000, "the screenshot of {pass} shows a picture: {bytes} bytes");
    }
}
