//! What all of them need: a job, its command, its files, its processes.

use crate::media::{Audio, Clip};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_narrows");

/// Longest wait for something that is on its way.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// After Ctrl-C nothing runs any more.
pub const STOPS_WITHIN: Duration = Duration::from_secs(2);

/// Looks again and again until there is something, for a bounded time.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

pub fn narrows(words: &[&str]) -> Output {
    run(Command::new(PROGRAM).args(words))
}

/// Ended with that code, said all of this on stderr, and nothing on stdout.
#[track_caller]
pub fn fails(output: &Output, code: i32, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert_eq!(text(&output.stdout), "");
}

#[track_caller]
pub fn succeeds(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// A source, an output folder, and the commands from one to the other.
pub struct Stage {
    pub home: TempDir,
    pub source: PathBuf,
}

impl Stage {
    /// A source of that many frames at 25 a second, with sound.
    pub fn new(frames: u32) -> Self {
        let audio = vec![Audio { codec: "aac", channels: 2, sample_rate: 48_000, language: "eng" }];
        let stage = Self { home: tempfile::tempdir().unwrap(), source: Clip { frames, audio, ..Clip::default() }.make() };
        fs::create_dir(stage.path("tmp")).unwrap();
        stage
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().canonicalize().unwrap().join(name)
    }

    pub fn out(&self) -> PathBuf {
        self.path("out")
    }

    /// A job of one chunk for every two seconds.
    pub fn command_into(&self, out: &Path, preset: &str, speed: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("transcode").arg(&self.source).arg("-o").arg(out).args(["--preset", preset]).stdin(Stdio::null());
        let cut = ["packaging.segment_s=1", "chunk.grid=fixed", "chunk.target_s=2", "chunk.shortest_s=1"];
        for set in cut.into_iter().chain([format!("video.speed={speed}").as_str()]) {
            command.args(["--set", set]);
        }
        command.env("TMPDIR", self.path("tmp"));
        command
    }

    pub fn command(&self) -> Command {
        self.command_into(&self.out(), "h264", "ultrafast")
    }

    /// So slow that it does not come to its end while a test looks.
    pub fn slow_command(&self) -> Command {
        self.command_into(&self.out(), "h265", "veryslow")
    }

    /// Markers of the parts that are done, and when they were written.
    pub fn markers(&self) -> BTreeMap<PathBuf, SystemTime> {
        let all = files(&self.out()).into_iter().filter(|path| path.to_string_lossy().contains("/done/"));
        all.filter_map(|path| Some((path.clone(), fs::metadata(path).ok()?.modified().ok()?))).collect()
    }

    pub fn chunks_done(&self) -> usize {
        self.markers().keys().filter(|path| path.to_string_lossy().contains("/done/encode/")).count()
    }

    /// Media objects in the output folder, and when they were written.
    pub fn media(&self) -> BTreeMap<PathBuf, SystemTime> {
        let all = files(&self.out()).into_iter().filter(|path| !path.to_string_lossy().contains("/.narrows/"));
        let media = all.filter(|path| path.extension().is_some_and(|e| e == "m4s" || e == "mp4"));
        media.map(|path| (path.clone(), fs::metadata(path).unwrap().modified().unwrap())).collect()
    }

    pub fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.out().join("report.json")).unwrap()).unwrap()
    }

    pub fn has_no_manifest(&self) {
        for name in ["master.m3u8", "manifest.mpd", "report.json"] {
            assert!(!self.out().join(name).exists(), "{name}");
        }
    }
}

/// Every file under a folder; what vanishes meanwhile is left out.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A command that runs in a process group of its own, as a shell starts it. Killed when dropped.
pub struct Running {
    child: Option<Child>,
    /// Children of it that have been seen.
    seen: Vec<u32>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let child = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self { child: Some(child), seen: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Waits until a jailed child of it runs and `also` holds.
    #[track_caller]
    pub fn wait_until_it_works(&mut self, also: impl Fn() -> bool) {
        let pid = self.pid();
        self.seen = wait_for("a child that works", || {
            assert!(self.child.as_mut().unwrap().try_wait().unwrap().is_none(), "it ended before it could be looked at");
            let children = children_of(pid);
            (!children.is_empty() && also()).then_some(children)
        });
    }

    /// As Ctrl-C in a terminal: to the whole group.
    pub fn interrupt(&self) {
        killpg(Pid::from_raw(self.pid() as i32), Signal::SIGINT).unwrap();
    }

    pub fn end(mut self) -> (Output, Vec<u32>) {
        let child = self.child.take().unwrap();
        (child.wait_with_output().unwrap(), std::mem::take(&mut self.seen))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// State and parent of a process (fields 3 and 4 of proc_pid_stat(5), after the name, which may hold anything).
pub fn state_and_parent(pid: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.into(), fields.next()?.parse().ok()?))
}

pub fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Is it this program, started as a child, and no zombie?
pub fn is_jailed_child(pid: u32) -> bool {
    let is_ours = fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program == Path::new(PROGRAM));
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    is_ours && words.split(|byte| *byte == 0).nth(1) == Some(b"child")
}

pub fn children_of(parent: u32) -> Vec<u32> {
    let of_parent = |pid: &u32| state_and_parent(*pid).is_some_and(|(_, of)| of == parent);
    processes().filter(of_parent).filter(|pid| is_jailed_child(*pid)).collect()
}

/// None of these runs, and no jailed child has lost its parent.
#[track_caller]
pub fn all_gone(seen: &[u32]) {
    wait_for("children that outlive their parent", || {
        let orphans = processes().filter(|pid| is_jailed_child(*pid) && state_and_parent(*pid).is_some_and(|(_, of)| of == 1));
        (!seen.iter().any(|pid| is_jailed_child(*pid)) && orphans.count() == 0).then_some(())
    });
}
