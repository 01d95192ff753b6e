//! What tests of media need: a host over local files, and the `ffmpeg` program to make sources and to judge outputs.

use crate::job::Job;
use crate::media::encode::encode;
use crate::media::probe as look_at;
use crate::media::{Host, ffi};
use crate::plan::preset::Preset;
use crate::plan::{self, make as making};
use crate::sandbox::protocol::{EncodeTask, Limits};
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

/// Inputs are files.
pub struct LocalHost {
    files: Vec<File>,
    pub done: Cell<u64>,
}

impl LocalHost {
    pub fn new(paths: &[&Path]) -> Self {
        // SAFETY: a plain setting; the libraries are as quiet as in a child.
        unsafe { ffi::av_log_set_level(ffi::AV_LOG_ERROR) };
        Self { files: paths.iter().map(|path| File::open(path).unwrap()).collect(), done: Cell::new(0) }
    }
}

impl Host for LocalHost {
    fn read(&self, input: u32, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.files[input as usize].read_at(buffer, offset)
    }

    fn bytes(&self, input: u32) -> u64 {
        self.files[input as usize].metadata().unwrap().len()
    }

    fn progress(&self, done: u64) {
        self.done.set(done);
    }
}

pub fn limits() -> Limits {
    Limits {
        max_pixels: 8192 * 8192,
        max_streams: 16,
        max_duration_s: 3600,
        max_frames: 1_000_000,
        memory_bytes: 1 << 30,
        scratch_bytes: 1 << 30,
        cpu_s: 600,
    }
}

/// Runs the program with arguments parted by spaces and `paths` in place of `{0}`, `{1}`, ...; it must succeed.
pub fn run(program: &str, arguments: &str, paths: &[&Path]) -> Output {
    let mut command = Command::new(program);
    for argument in arguments.split_whitespace() {
        let filled = paths
            .iter()
            .enumerate()
            .fold(argument.to_string(), |text, (i, path)| text.replace(&format!("{{{i}}}"), path.to_str().unwrap()));
        command.arg(filled);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Makes a file by the `ffmpeg` program.
pub fn make(arguments: &str, to: &Path) {
    run("ffmpeg", &format!("-nostdin -v error -y {arguments} {{0}}"), &[to]);
}

/// Lines that a program prints about a file.
pub fn lines(program: &str, arguments: &str, path: &Path) -> Vec<String> {
    String::from_utf8(run(program, arguments, &[path]).stdout).unwrap().lines().map(str::to_string).collect()
}

/// What the `ffmpeg` program has to complain of when it decodes a whole file.
pub fn complaints(path: &Path) -> String {
    String::from_utf8(run("ffmpeg", "-nostdin -v warning -i {0} -map 0 -f null -", &[path]).stderr).unwrap()
}

/// The task of encoding the first chunk of a source by a preset with these changes.
pub fn encode_task(source: &Path, scratch: &Path, preset: &str, set: &[(&str, serde_json::Value)]) -> EncodeTask {
    let facts = look_at::probe(&LocalHost::new(&[source]), &limits(), scratch).unwrap();
    let set = set.iter().map(|(path, value)| ((*path).to_string(), value.clone())).collect();
    let job = Job::parse(br#"{"input":{"uri":"in.mp4"},"output":{"uri":"out/"}}"#).unwrap();
    let plan = plan::make(&job, &facts, &Preset::built_in(preset, &set).unwrap()).unwrap();
    let mut task = making::encode_task(&plan, &facts, 0, 1);
    // The container is opened: there is no second input here.
    task.table = None;
    task
}

/// The first chunk of a source by a preset with these changes, each rung as a file: its init segment and its segments.
pub fn encoded(source: &Path, scratch: &Path, preset: &str, set: &[(&str, serde_json::Value)]) -> Vec<Vec<u8>> {
    let task = encode_task(source, scratch, preset, set);
    let report = encode(&LocalHost::new(&[source]), &limits(), scratch, &task).unwrap();
    let read = |file: &str| std::fs::read(scratch.join(file)).unwrap();
    let whole = |rung: &crate::sandbox::protocol::EncodedRung| {
        let segments = rung.segments.iter().flat_map(|segment| read(&segment.file));
        read(&rung.init.file).into_iter().chain(segments).collect()
    };
    report.rungs.iter().map(whole).collect()
}
