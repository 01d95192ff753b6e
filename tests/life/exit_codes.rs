//! How it ends, and what it names.

use crate::stage::{Stage, fails, narrows, run, succeeds};
use std::fs;

#[test]
fn help_and_presets_are_0() {
    for words in [&["--help"][..], &["--version"], &["presets"], &["presets", "show", "h265"], &["transcode", "--help"]] {
        let output = narrows(words);
        succeeds(&output);
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{words:?}");
    }
}

#[test]
fn misuse_is_2_and_names_the_argument() {
    let stage = Stage::new(50);
    fails(&narrows(&["transcode"]), 2, &["--output"]);
    fails(&run(stage.command().arg("--loud")), 2, &["--loud"]);
    fails(&narrows(&["transcode", "no-such-file.mp4", "-o", "out"]), 2, &["no-such-file.mp4"]);
    fails(&narrows(&["probe", "no-such-file.mp4"]), 2, &["no-such-file.mp4"]);
    fails(&narrows(&["transcode", "--job", "no-such-job.json"]), 2, &["no-such-job.json"]);
    fails(&run(stage.command().args(["--set", "packaging.segment_s"])), 2, &["PATH=VALUE"]);
    let folder = stage.path("tmp");
    fails(&narrows(&["transcode", folder.to_str().unwrap(), "-o", "out"]), 2, &[folder.to_str().unwrap()]);
    stage.has_no_manifest();
}

#[test]
fn a_wrong_setting_is_64_and_names_the_field() {
    let stage = Stage::new(50);
    fails(&run(&mut stage.command_into(&stage.out(), "h266", "fast")), 64, &["h266", "h265", "mezzanine"]);
    fails(&run(stage.command().args(["--set", "packaging.segments=4"])), 64, &["packaging.segments", "unknown field"]);
    fails(&run(stage.command().args(["--set", "packaging.segment_s=0"])), 64, &["packaging.segment_s", "1 to 12"]);
    fails(&run(stage.command().args(["--set", "video.rungs.9.crf=20"])), 64, &["video.rungs.9.crf"]);
    fails(&run(&mut stage.command_into(&stage.out(), "h264", "warp")), 64, &["warp"]);
    fails(&narrows(&["presets", "show", "h266"]), 64, &["h266"]);
    stage.has_no_manifest();
}

#[test]
fn a_wrong_configuration_is_64_and_names_layer_and_field() {
    let stage = Stage::new(50);
    let config = stage.path("fleet.toml");
    fs::write(&config, "[worker]\nslot = 2\n").unwrap();
    fails(&run(stage.command().arg("--config").arg(&config)), 64, &["fleet.toml", "worker.slot"]);
    fails(&run(stage.command().arg("--config").arg(stage.path("none.toml"))), 64, &["none.toml"]);
    fails(&run(stage.command().env("NARROWS_WORKER__WINDOW", "0")), 64, &["NARROWS_WORKER__WINDOW", "worker.window"]);
    fails(&run(stage.command().env("NARROWS_SLOTS", "2")), 64, &["NARROWS_SLOTS", "slots"]);
}

#[test]
fn a_wrong_job_document_is_64_and_names_file_and_field() {
    let stage = Stage::new(50);
    let job = stage.path("job.json");
    let of = |document: &str| {
        fs::write(&job, document).unwrap();
        narrows(&["transcode", "--job", job.to_str().unwrap()])
    };
    fails(&of(r#"{"input":{"uri":"a","url":"b"},"output":{"uri":"o"}}"#), 64, &["job.json", "input.url"]);
    fails(&of(r#"{"output":{"uri":"o"}}"#), 64, &["job.json", "input"]);
    fails(&of("video: talk.mp4"), 64, &["job.json"]);
}

/// Boxes of an MP4 file that has a header and not one track (ISO/IEC 14496-12 8.2.2).
fn mp4_without_tracks() -> Vec<u8> {
    let boxed = |kind: &[u8; 4], content: &[u8]| [&(content.len() as u32 + 8).to_be_bytes()[..], kind, content].concat();
    let mut header = vec![0; 100];
    header[12..16].copy_from_slice(&1000_u32.to_be_bytes());
    [boxed(b"ftyp", b"isom\0\0\0\0isom"), boxed(b"moov", &boxed(b"mvhd", &header)), boxed(b"mdat", &[7; 64])].concat()
}

#[test]
fn a_file_that_is_no_media_is_65_and_named() {
    let stage = Stage::new(50);
    let words = "WEBVTT or not, this is a text and no media. ".repeat(400);
    let subtitles = "1\n00:00:00,000 --> 00:00:02,000\nHello\n";
    let cases = [
        ("notes.mp4", words.into_bytes(), "not one that is accepted"),
        ("empty.mp4", mp4_without_tracks(), "no streams"),
        ("talk.srt", subtitles.as_bytes().to_vec(), ""),
    ];
    for (name, bytes, why) in cases {
        let file = stage.path(name);
        fs::write(&file, bytes).unwrap();
        let wrong = Stage { source: file.clone(), home: tempfile::tempdir().unwrap() };
        fails(&run(&mut wrong.command()), 65, &[name, why]);
        wrong.has_no_manifest();
        fails(&narrows(&["probe", file.to_str().unwrap()]), 65, &[name, why]);
    }
}
