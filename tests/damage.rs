//! A damaged source ends its own job at worst: never the parent, never in silence, never in garbage that looks whole.
//!
//! Seeded variants of small clips go through the real jailed child, task by task, and each has to end as done or as a
//! refusal in words for the customer. Then a few go through the whole program, as a user would see it.
//!
//! `DAMAGE_SEED` and `DAMAGE_CASES` try others, and more. A case that fails names its number, and what was done to what.

#[path = "common/chance.rs"]
mod chance;
#[path = "common/media.rs"]
mod media;

use chance::{Chance, from_environment};
use media::{Audio, Clip, Codec, Container, kept};
use narrows::config::Config;
use narrows::job::Job;
use narrows::plan::preset::Preset;
use narrows::plan::{self, PlanError};
use narrows::sandbox::protocol::{Limits, RefusalReason, Report, Task, packet_table_file};
use narrows::sandbox::{Disposition, Finished, InputSource, Outcome, Sandbox};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::future::pending;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Children at once.
const AT_ONCE: usize = 2;
/// A tiny clip takes a second; nothing done to it may make it take this long.
const DEADLINE: Duration = Duration::from_secs(30);

/// What is done to a source.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// It ends early.
    Truncated,
    /// 1 to 64 bytes have other values.
    Flipped,
    /// One to four stretches are zero.
    Zeroed,
    /// Two stretches stand in each other's place.
    Swapped,
    /// 1 to 64 bytes of the header have other values.
    Headers,
}

impl Harm {
    fn to(self, source: &[u8], chance: &mut Chance) -> Vec<u8> {
        let mut bytes = source.to_vec();
        let all = bytes.len();
        match self {
            Harm::Truncated => bytes.truncate(chance.below(all)),
            Harm::Flipped => flip(&mut bytes, 0..all, chance),
            Harm::Zeroed => (0..=chance.below(4)).for_each(|_| bytes[chance.stretch(all, all / 4)].fill(0)),
            Harm::Swapped => {
                let length = 1 + chance.below(all / 4);
                let (first, second) = (chance.below(all / 2 - length), all / 2 + chance.below(all / 2 - length));
                let (front, back) = bytes.split_at_mut(all / 2);
                front[first..first + length].swap_with_slice(&mut back[second - all / 2..][..length]);
            }
            Harm::Headers => {
                let header = header(&bytes);
                flip(&mut bytes, header, chance);
            }
        }
        bytes
    }
}

fn flip(bytes: &mut [u8], area: std::ops::Range<usize>, chance: &mut Chance) {
    for _ in 0..=chance.below(64) {
        // Not zero: a flip changes something.
        bytes[area.start + chance.below(area.len())] ^= 1 + chance.below(255) as u8;
    }
}

/// Where the facts of a source stand: its `moov` box, else its first bytes.
fn header(bytes: &[u8]) -> std::ops::Range<usize> {
    const FIRST_BYTES: usize = 1024;
    let moov = bytes.windows(4).position(|name| name == b"moov").filter(|_| bytes[4..].starts_with(b"ftyp"));
    moov.map_or(0..FIRST_BYTES.min(bytes.len()), |at| at..(at + 4 * FIRST_BYTES).min(bytes.len()))
}

/// Small, and of many kinds.
fn sources() -> Vec<PathBuf> {
    let tone = |codec, language| Audio { codec, channels: 2, sample_rate: 48_000, language };
    let clip = Clip { frames: 60, gop: 20, b_frames: 3, b_pyramid: true, audio: vec![tone("aac", "eng")], ..Clip::default() };
    let silent = Clip { audio: Vec::new(), ..clip.clone() };
    let made = [
        clip.clone(),
        Clip { container: Container::Ts, open_gop: true, ..clip.clone() },
        Clip { container: Container::FragmentedMp4, ..clip.clone() },
        Clip { codec: Codec::H265, container: Container::Mkv, audio: vec![tone("ac3", "deu")], ..clip.clone() },
        Clip { codec: Codec::Mpeg2, container: Container::Ts, audio: vec![tone("mp2", "fra")], ..clip },
        Clip { codec: Codec::Vp9, container: Container::Webm, ..silent.clone() },
        Clip { codec: Codec::Av1, container: Container::Mkv, ..silent.clone() },
        Clip { codec: Codec::Mpeg4, container: Container::Avi, b_frames: 0, ..silent },
    ];
    let real = ["odd-161x121.webm", "editlist-preroll.mp4", "vfr-subtitles.mkv", "bogus-duration.mp4", "no-duration.webm"];
    made.iter().map(Clip::make).chain(real.into_iter().map(kept)).collect()
}

/// The real program as a child, with the limits that it has by default and less patience.
struct Bench {
    sandbox: Sandbox,
    limits: Limits,
    home: TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new() -> Self {
        let config = Config::load(None, std::iter::empty()).unwrap();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_narrows"));
        let sandbox = Sandbox { program, deadline: DEADLINE, stall: DEADLINE, ..Sandbox::from(&config.sandbox) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { sandbox, limits: config.limits, home: tempfile::tempdir().unwrap(), runtime }
    }

    fn scratch(&self) -> PathBuf {
        self.home.path().join("scratch")
    }

    /// Runs one task on these files in a fresh scratch folder.
    ///
    /// # Errors
    /// It ended as no source may make it end.
    fn run(&self, task: Task, files: &[&Path]) -> Result<Finished, String> {
        let scratch = self.scratch();
        let inputs = files.iter().map(|file| InputSource::File(Arc::new(File::open(file).unwrap()))).collect();
        let _ = fs::remove_dir_all(&scratch);
        fs::create_dir(&scratch).unwrap();
        let kind = task.kind();
        let mut on_progress = |_| {};
        let run = self.sandbox.run(task, inputs, self.limits.clone(), &scratch, &mut on_progress, pending());
        let finished = self.runtime.block_on(run);
        if let Some(pid) = finished.pid.filter(|pid| !gone_soon(*pid)) {
            return Err(format!("{kind}: process {pid} or one of its group is left"));
        }
        if !is_bounded(&finished.outcome) {
            return Err(format!("{kind}: {:?}; its last words: {}", finished.outcome, finished.stderr_tail.trim()));
        }
        Ok(finished)
    }

    /// Everything that a job would have children do with `file`, on one chunk.
    fn work(&self, file: &Path, chance: &mut Chance) -> Result<&'static str, String> {
        let Outcome::Done(report) = self.run(Task::Probe, &[file])?.outcome else { return Ok("refused by the probe") };
        let Report::Probe(probe) = *report else { return Err("probe: another report".into()) };
        // Half of them are cut at every keyframe, so that a child has to find its way into the middle.
        let grid = if chance.below(2) == 0 { "keyframes" } else { "gop" };
        let (job, preset) = job(grid);
        let plan = match plan::make(&job, &probe, &preset) {
            Ok(plan) => plan,
            Err(PlanError::Media(_)) => return Ok("refused by the plan"),
            Err(PlanError::Preset(why)) => return Err(format!("plan: {why}")),
        };
        let mut end = "done";
        if let Some(video) = &plan.video {
            let chunk = if grid == "gop" { chance.below(video.chunks.len()) } else { 0 };
            let task = plan::encode_task(&plan, &probe, u32::try_from(chunk).unwrap(), 1);
            // It lies in the folder that is cleared, and is open by then.
            let table = self.scratch().join(packet_table_file(video.stream));
            let files = if task.table.is_some() { vec![file, table.as_path()] } else { vec![file] };
            end = match self.run(Task::Encode(Box::new(task)), &files)?.outcome {
                Outcome::Done(report) => done(&report),
                _ => "refused by the encode",
            };
        }
        if !plan.audio.is_empty() {
            let task = plan::audio_task(&plan, 0);
            if !matches!(self.run(Task::Audio(Box::new(task)), &[file])?.outcome, Outcome::Done(_)) {
                end = "refused by the audio";
            }
        }
        Ok(end)
    }
}

fn done(report: &Report) -> &'static str {
    match report {
        Report::Encode(report) if report.damage.lost_frames + report.damage.damaged_frames > 0 => "done, damage told",
        _ => "done",
    }
}

/// Done, or a refusal that tells the customer why.
fn is_bounded(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Done(_) => true,
        Outcome::Refused(refusal) => {
            use RefusalReason::{Limit, Media, Settings, Unsupported};
            matches!(refusal.reason, Media | Unsupported | Limit | Settings)
                && outcome.disposition() == Disposition::Reject
                && !refusal.message.trim().is_empty()
        }
        _ => false,
    }
}

fn job(grid: &str) -> (Job, Preset) {
    let document = r#"{"input":{"uri":"a"},"output":{"uri":"b"},"preset":"h264","on_damage":"salvage"}"#;
    let mut set: BTreeMap<String, Value> = BTreeMap::new();
    set.insert("video.speed".into(), "ultrafast".into());
    set.insert("chunk.grid".into(), grid.into());
    set.insert("video.rungs.3.height".into(), 96.into());
    set.insert("video.rungs.4.height".into(), 64.into());
    (Job::parse(document.as_bytes()).unwrap(), Preset::built_in("h264", &set).unwrap())
}

/// SIGKILL takes effect when the kernel gets to it: waits until no process of the group runs.
fn gone_soon(group: u32) -> bool {
    let begun = Instant::now();
    while !living_in_group(group).is_empty() {
        if begun.elapsed() > Duration::from_secs(5) {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// Processes of this group that are not zombies (fields 3 and 5 of proc_pid_stat(5), after the name).
fn living_in_group(group: u32) -> Vec<String> {
    let of_group = |stat: &String| {
        let fields: Vec<&str> = stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
        fields.len() > 2 && fields[0] != "Z" && fields[2] == group.to_string()
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok()).filter(of_group).collect()
}

/// A fifth of all cases, each with another source and another place.
#[track_caller]
fn ends_bounded(harm: Harm) {
    let seed = from_environment("DAMAGE_SEED", 20_240_229);
    let cases = from_environment("DAMAGE_CASES", 200).div_ceil(5);
    println!("DAMAGE_SEED={seed}, {cases} cases {harm:?}");
    let sources = sources();
    let (next, failures, ends) = (AtomicU64::new(0), Mutex::new(Vec::new()), Mutex::new(BTreeMap::new()));
    let one_after_another = || {
        let bench = Bench::new();
        let file = bench.home.path().join("source");
        loop {
            let case = next.fetch_add(1, Ordering::Relaxed);
            if case >= cases {
                return;
            }
            let mut chance = Chance(seed ^ (harm as u64) << 48 ^ case << 32);
            let source = &sources[case as usize % sources.len()];
            fs::write(&file, harm.to(&fs::read(source).unwrap(), &mut chance)).unwrap();
            match bench.work(&file, &mut chance) {
                Ok(end) => *ends.lock().unwrap().entry(end).or_insert(0) += 1,
                Err(why) => {
                    let name = source.file_name().unwrap_or_default().display();
                    failures.lock().unwrap().push(format!("case {case}, {harm:?} {name}: {why}"));
                }
            }
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(one_after_another))));
    let (failures, ends) = (failures.into_inner().unwrap(), ends.into_inner().unwrap());
    println!("{ends:?}");
    assert!(failures.is_empty(), "DAMAGE_SEED={seed}: {}", failures.join("\n"));
    assert_eq!(ends.values().sum::<u64>(), cases, "every case came to an end");
    assert!(cases < 20 || ends.len() > 1, "the same end for all: too little harm is done, or too much");
}

#[test]
fn a_truncated_source_is_done_or_refused() {
    ends_bounded(Harm::Truncated);
}

#[test]
fn a_source_with_flipped_bytes_is_done_or_refused() {
    ends_bounded(Harm::Flipped);
}

#[test]
fn a_source_with_zeroed_blocks_is_done_or_refused() {
    ends_bounded(Harm::Zeroed);
}

#[test]
fn a_source_with_swapped_blocks_is_done_or_refused() {
    ends_bounded(Harm::Swapped);
}

#[test]
fn a_source_with_a_damaged_header_is_done_or_refused() {
    ends_bounded(Harm::Headers);
}

mod program {
    //! The whole program on a damaged file.
    use super::*;

    /// What the program made of a file.
    struct Ran {
        output: Output,
        out: TempDir,
    }

    impl Ran {
        fn new(file: &Path, more: &[&str]) -> Self {
            let out = tempfile::tempdir().unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_narrows"));
            command.arg("transcode").arg(file).arg("-o").arg(out.path()).args(["--preset", "h264", "--json"]);
            command.args(["--set", "video.speed=ultrafast", "--set", "packaging.segment_s=1"]).args(more);
            Self { output: command.output().unwrap(), out }
        }

        fn said(&self) -> String {
            String::from_utf8_lossy(&self.output.stderr).into_owned()
        }

        /// Exit code 65, these words, and nothing that looks like a result.
        #[track_caller]
        fn is_refused(&self, words: &[&str]) {
            let said = self.said();
            assert_eq!(self.output.status.code(), Some(65), "{said}");
            for word in words {
                assert!(said.contains(word), "{word:?} is not in: {said}");
            }
            assert!(self.output.stdout.is_empty(), "no report of a job that failed");
            for name in ["master.m3u8", "manifest.mpd", "report.json"] {
                assert!(!self.out.path().join(name).exists(), "{name} of a job that failed");
            }
        }

        /// Exit code 0; the report.
        #[track_caller]
        fn is_done(&self) -> Value {
            assert_eq!(self.output.status.code(), Some(0), "{}", self.said());
            assert!(self.out.path().join("master.m3u8").exists());
            serde_json::from_slice(&fs::read(self.out.path().join("report.json")).unwrap()).unwrap()
        }
    }

    const FRAMES: u64 = 150;

    /// Six seconds of MP4, its index in front.
    fn with_index_in_front(folder: &Path) -> PathBuf {
        let file = folder.join("index-in-front.mp4");
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-nostdin", "-i"]).arg(Clip { gop: 25, ..Clip::default() }.make());
        let status = command.args(["-c", "copy", "-movflags", "+faststart"]).arg(&file).status().unwrap();
        assert!(status.success());
        file
    }

    /// The first `share` of that file.
    fn cut_short(folder: &Path, share: f64) -> PathBuf {
        let file = with_index_in_front(folder);
        let bytes = fs::metadata(&file).unwrap().len();
        File::options().write(true).open(&file).unwrap().set_len((bytes as f64 * share) as u64).unwrap();
        file
    }

    #[test]
    fn a_file_cut_short_is_refused_with_the_first_time_that_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let file = cut_short(folder.path(), 0.6);
        for more in [&[][..], &["--on-damage", "fail"]] {
            let ran = Ran::new(&file, more);
            ran.is_refused(&["index-in-front.mp4", "cut short", &format!("of {FRAMES} frames"), " s on"]);
        }
    }

    #[test]
    fn what_there_is_of_a_file_cut_short_is_salvaged_and_the_report_says_what_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let report = Ran::new(&cut_short(folder.path(), 0.6), &["--on-damage", "salvage"]).is_done();
        let (made, lost) = (report["rungs"][0]["frames"].as_u64().unwrap(), report["damage"]["lost_frames"].as_u64().unwrap());
        assert!((50..120).contains(&made), "{made} frames");
        assert!(made + lost >= FRAMES - 8, "{made} frames made and {lost} lost of {FRAMES}: {}", report["damage"]);
        assert_eq!(report["damage"]["on_damage"], "salvage");
        let first_bad_s = report["damage"]["first_bad_s"].as_f64().expect("the first bad time");
        assert!((first_bad_s - made as f64 / 25.0).abs() < 1.0, "{first_bad_s} s after {made} frames");
    }

    #[test]
    fn a_file_without_its_index_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("no-index.mp4");
        let whole = fs::read(Clip::default().make()).unwrap();
        let moov = whole.windows(4).position(|name| name == b"moov").unwrap();
        fs::write(&file, &whole[..moov - 4]).unwrap();
        Ran::new(&file, &["--on-damage", "salvage"]).is_refused(&["no-index.mp4", "without its index (no moov box)"]);
    }

    /// Two seconds of the pictures are noise.
    fn with_noise(folder: &Path) -> PathBuf {
        let file = folder.join("noise.mp4");
        let mut bytes = fs::read(with_index_in_front(folder)).unwrap();
        let (all, mut chance) = (bytes.len(), Chance(7));
        bytes[all / 2..all * 5 / 6].fill_with(|| chance.next() as u8);
        fs::write(&file, bytes).unwrap();
        file
    }

    #[test]
    fn noise_in_the_middle_is_refused_with_the_first_bad_time() {
        let folder = tempfile::tempdir().unwrap();
        let ran = Ran::new(&with_noise(folder.path()), &[]);
        ran.is_refused(&["noise.mp4"]);
        let said = ran.said();
        let seconds: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert!(seconds.iter().any(|s| (2.0..=5.0).contains(s)), "a time between 2 and 5 s: {said}");
    }

    #[test]
    fn noise_in_the_middle_is_salvaged_and_the_report_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let report = Ran::new(&with_noise(folder.path()), &["--on-damage", "salvage"]).is_done();
        let damage = &report["damage"];
        let bad = damage["lost_frames"].as_u64().unwrap() + damage["damaged_frames"].as_u64().unwrap();
        assert!((9..=100).contains(&bad), "{damage}");
        assert!((2.0..=5.0).contains(&damage["first_bad_s"].as_f64().unwrap()), "{damage}");
    }

    #[test]
    fn an_empty_file_and_one_of_zeros_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in [("empty.mp4", 0), ("zeros.ts", 100_000)] {
            let file = folder.path().join(name);
            fs::write(&file, vec![0; bytes]).unwrap();
            Ran::new(&file, &["--on-damage", "salvage"]).is_refused(&[name]);
        }
    }
}
