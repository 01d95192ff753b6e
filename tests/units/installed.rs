//! The files of `make install`, and units as systemd reads them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_narrows");
/// The units by the names they have when they are installed.
pub const UNITS: [&str; 2] = ["narrows-worker@.service", "narrows-coordinator.service"];

pub fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// The same; it must succeed. What it said on stdout.
#[track_caller]
pub fn does(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}: {}{}", output.status, said(&output.stdout), said(&output.stderr));
    said(&output.stdout)
}

/// Installs under `prefix`, below the folder `destination` where that is not empty.
#[track_caller]
pub fn install(destination: &Path, prefix: &str) {
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR")).args(["-s", "install", &format!("NARROWS={PROGRAM}")]);
    make.arg(format!("DESTDIR={}", destination.display())).arg(format!("PREFIX={prefix}"));
    // Whoever runs the tests may do so from a make of another kind.
    does(make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL"));
}

/// Everything installed, in a folder that is the prefix itself.
pub struct Installed(tempfile::TempDir);

impl Installed {
    #[track_caller]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        install(Path::new(""), folder.path().to_str().unwrap());
        Self(folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn unit(&self, name: &str) -> PathBuf {
        self.path("lib/systemd/system").join(name)
    }
}

/// A unit file of the project.
pub struct Unit(String);

impl Unit {
    pub fn named(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name);
        Self(std::fs::read_to_string(path).unwrap())
    }

    /// Every value that is given to a name, in the order of the file.
    pub fn values(&self, name: &str) -> Vec<&str> {
        self.0.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
    }

    /// The one value of a name.
    #[track_caller]
    pub fn value(&self, name: &str) -> &str {
        let values = self.values(name);
        assert_eq!(values.len(), 1, "{name}: {values:?}");
        values[0]
    }

    #[track_caller]
    pub fn seconds(&self, name: &str) -> std::time::Duration {
        std::time::Duration::from_secs(self.value(name).parse().unwrap())
    }

    /// What the unit puts into the environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let pairs = self.values("Environment").into_iter().map(|pair| pair.split_once('=').expect("a name and its value"));
        pairs.map(|(name, value)| (name.into(), value.into())).collect()
    }
}
