//! What moving a source by ranges costs: bytes asked of the store over the size of the source, for all parts of a job
//! together and every pass of decoding over it.

use crate::media::{Audio, Clip, Codec, Container, Picture, kept};
use std::path::Path;
use std::process::Command;

/// Bytes read for every byte of the source, at most, in one pass.
const MOST: f64 = 1.15;

/// Bytes that all parts of a job asked for, from the program's own log.
fn fetched(source: &Path) -> u64 {
    let out = tempfile::tempdir().unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_narrows"))
        .args(["transcode", "--ranges", "--slots", "2", "--preset", "h264", "--set", "video.speed=ultrafast"])
        .args(["--set", r#"video.rungs=[{"height":240,"crf":30,"max_kbps":500}]"#, "-o"])
        .arg(out.path().join("out"))
        .arg(source)
        .env("NARROWS_LOG__LEVEL", "narrows=debug")
        .env("NARROWS_LOG__FORMAT", "json")
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{log}");
    let name = source.file_name().unwrap().to_str().unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let fields = lines.map(|line| line["fields"].clone()).filter(|fields| fields["message"] == "source was read");
    let read: Vec<u64> = fields
        .filter(|fields| fields["source"].as_str().is_some_and(|source| source.ends_with(name)))
        .filter_map(|fields| fields["fetched"].as_u64())
        .collect();
    assert!(read.len() >= 2, "a probe and a chunk read it: {log}");
    read.iter().sum()
}

#[test]
fn all_parts_of_a_job_together_ask_for_little_more_than_the_source_a_pass() {
    let audio = vec![Audio { codec: "aac", channels: 2, sample_rate: 48_000, language: "eng" }];
    let clip = Clip {
        codec: Codec::H264,
        picture: Picture::Mandelbrot,
        frames: 750,
        width: 640,
        height: 360,
        gop: 50,
        audio,
        ..Clip::default()
    };
    // Pictures and sound are a pass each; without an index of the whole file, looking for one is another.
    let sources = [
        (kept("bunny-1080p25-12s.mp4"), 2.0),
        (Clip { container: Container::Mp4, ..clip.clone() }.make(), 2.0),
        (Clip { container: Container::Ts, ..clip.clone() }.make(), 3.0),
        (Clip { container: Container::Mkv, ..clip }.make(), 3.0),
    ];
    for (source, passes) in sources {
        let size = std::fs::metadata(&source).unwrap().len();
        let a_pass = fetched(&source) as f64 / size as f64 / passes;
        println!("{}: {size} bytes, {a_pass:.3} a pass", source.display());
        assert!(a_pass <= MOST, "{}: {a_pass:.3} times its bytes a pass", source.display());
    }
}
