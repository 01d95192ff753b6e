//! What tests of media need: a host over local files, and the `ffmpeg` program to make sources and to judge outputs.

use crate::media::{Host, ffi};
use crate::sandbox::protocol::Limits;
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
