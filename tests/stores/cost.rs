//! What moving a source by ranges costs: bytes asked of the store over the size of the source, for all parts of a job
//! together and every pass of decoding over it.

use crate::media::{Audio, Clip, Codec, Container, Picture, kept};
use narrows::job::Job;
use narrows::media::Host;
use narrows::media::child::work;
use narrows::plan;
use narrows::plan::preset::Preset;
use narrows::sandbox::protocol::{Access, Input, JailLevel, Limits, Order, Report, Task, packet_table_file};
use narrows::store::{RangedSource, Store, Stores};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
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

/// A machine that has read nothing yet: the source by ranges, and the packet table where there is one.
struct Machine {
    runtime: tokio::runtime::Runtime,
    source: RangedSource,
    table: Option<File>,
}

impl Machine {
    fn new(home: &Path, source: &Path, table: Option<&Path>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = Store::folder(&home.join("work"), &home.join("temporary")).unwrap();
        let stores = Stores::new(store).with_source("source", source.to_path_buf());
        let source = runtime.block_on(stores.source("local", "source").unwrap().ranges()).unwrap();
        Self { runtime, source, table: table.map(|path| File::open(path).unwrap()) }
    }

    /// Does one task, as a child would, and says what was asked of the store for it.
    fn work(&self, task: Task, scratch: &Path) -> (Report, u64) {
        let inputs = (0..2).map(|n| Input { access: Access::Ranges, bytes: self.bytes(n) }).collect();
        let limits = Limits {
            max_pixels: 1 << 24,
            max_streams: 16,
            max_duration_s: 3600,
            max_frames: 1 << 20,
            memory_bytes: 1 << 32,
            scratch_bytes: 1 << 32,
            cpu_s: 600,
        };
        let scratch = scratch.to_str().unwrap().to_string();
        let order = Order { task, inputs, limits, minimum_jail: JailLevel::Limits, scratch };
        (work(&order, self).unwrap(), self.source.fetched_bytes())
    }
}

impl Host for Machine {
    fn read(&self, input: u32, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if input > 0 {
            return self.table.as_ref().unwrap().read_at(buffer, offset);
        }
        let read = self.runtime.block_on(self.source.read(offset, buffer.len()))?;
        buffer[..read.len()].copy_from_slice(&read);
        Ok(read.len())
    }

    fn bytes(&self, input: u32) -> u64 {
        if input == 0 { self.source.bytes() } else { self.table.as_ref().map_or(0, |file| file.metadata().unwrap().len()) }
    }

    fn progress(&self, _: u64) {}
}

/// Bytes asked of the store by the probe, by all chunks and by the sound, when every part has a machine of its own.
fn fetched_apart(source: &Path) -> (u64, u64, u64) {
    let home = tempfile::tempdir().unwrap();
    let scratch = home.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let (report, of_probe) = Machine::new(home.path(), source, None).work(Task::Probe, &scratch);
    let Report::Probe(probe) = report else { panic!("no probe") };
    let document = r#"{"input":{"uri":"a"},"output":{"uri":"b"},"preset":"h264"}"#;
    let set = [("video.speed", "ultrafast".into()), ("video.rungs", serde_json::json!([{ "height": 120, "crf": 40 }]))];
    let set = set.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    let plan = plan::make(&Job::parse(document.as_bytes()).unwrap(), &probe, &Preset::built_in("h264", &set).unwrap()).unwrap();
    let video = plan.video.as_ref().unwrap();
    let mut of_chunks = 0;
    for chunk in &video.chunks {
        let task = plan::encode_task(&plan, &probe, chunk.index, 1);
        let table: Option<PathBuf> = task.table.is_some().then(|| scratch.join(packet_table_file(video.stream)));
        let machine = Machine::new(home.path(), source, table.as_deref());
        of_chunks += machine.work(Task::Encode(Box::new(task)), &scratch).1;
    }
    let of_sound = (0..plan.audio.len() as u32).map(|rendition| {
        let task = Task::Audio(Box::new(plan::audio_task(&plan, rendition)));
        Machine::new(home.path(), source, None).work(task, &scratch).1
    });
    (of_probe, of_chunks, of_sound.sum())
}

#[test]
fn a_film_whose_every_part_has_a_machine_of_its_own_costs_little_more_than_its_bytes_a_pass() {
    let audio = vec![Audio { codec: "aac", channels: 2, sample_rate: 48_000, language: "eng" }];
    let clip = Clip { frames: 900, width: 960, height: 540, gop: 50, audio, picture: Picture::Mandelbrot, ..Clip::default() };
    for container in [Container::Mp4, Container::Ts, Container::Mkv] {
        let source = Clip { container, ..clip.clone() }.make();
        let size = std::fs::metadata(&source).unwrap().len() as f64;
        let (probe, chunks, sound) = fetched_apart(&source);
        let each = [probe, chunks, sound].map(|bytes| bytes as f64 / size);
        println!("{}: {size} bytes; probe {:.3}, chunks {:.3}, sound {:.3}", source.display(), each[0], each[1], each[2]);
        assert!(each[1..].iter().all(|pass| *pass <= MOST), "{}: {each:?} times its bytes", source.display());
    }
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
