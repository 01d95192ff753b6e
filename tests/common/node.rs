//! The node project of the tests that drive Chromium: its packages are installed once for each lock file.
//! `#[path = "common/node.rs"] mod node;` in a test.

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where the browser tests keep what they make, under the target folder.
pub fn workplace() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder").join("playback")
}

/// Runs to a good end, or panics with what was printed.
pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    output.stdout
}

/// A copy of the node project with its packages installed and these scripts in it, each named from the tests' folder.
pub fn project(scripts: &[&str]) -> PathBuf {
    let source = root().join("tests/playback");
    let lock = fs::read(source.join("package-lock.json")).expect("the lock file");
    let folder = workplace().join(format!("node-{}", &hex::encode(Sha256::digest(&lock))[..12]));
    fs::create_dir_all(&folder).expect("a folder under target");
    // Tests run side by side, and npm begins with an empty folder.
    let turn = File::create(folder.join(".turn")).expect("a file under target");
    let _turn = Flock::lock(turn, FlockArg::LockExclusive).expect("its lock");
    for path in ["playback/package.json", "playback/package-lock.json"].iter().chain(scripts) {
        let from = root().join("tests").join(path);
        let name = from.file_name().expect("a script has a name");
        fs::copy(&from, folder.join(name)).unwrap_or_else(|e| panic!("{path}: {e}"));
    }
    let installed = folder.join("node_modules/.installed");
    if !installed.exists() {
        run(Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder));
        fs::write(&installed, "").expect("a mark that the packages are whole");
    }
    folder
}
