//! Folders that cannot be written, and disks that are full.

use crate::stage::{Stage, fails, files, run};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// `command` without the right to write where permissions forbid it, which root has.
fn bound_by_permissions(command: &Command) -> Command {
    if !is_root() {
        return again("env", &[], command);
    }
    again("setpriv", &["--bounding-set=-dac_override", "--inh-caps=-dac_override"], command)
}

/// `command` started by another program.
fn again(program: &str, words: &[&str], command: &Command) -> Command {
    let mut other = Command::new(program);
    other.args(words).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        other.env(name, value.unwrap_or_default());
    }
    other
}

#[test]
fn an_output_folder_that_cannot_be_written_is_misuse_and_named() {
    let stage = Stage::new(50);
    let file = stage.path("file");
    fs::write(&file, "in the way").unwrap();
    fails(&run(&mut stage.command_into(&file, "h264", "ultrafast")), 2, &[file.to_str().unwrap()]);
    let locked = stage.path("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    for out in [locked.clone(), locked.join("new")] {
        let output = run(&mut bound_by_permissions(&stage.command_into(&out, "h264", "ultrafast")));
        fails(&output, 2, &[locked.to_str().unwrap(), "ermission denied"]);
    }
    assert_eq!(files(&locked), Vec::<PathBuf>::new());
}

#[test]
fn a_full_disk_is_our_fault_and_said() {
    let stage = Stage::new(500);
    fs::create_dir(stage.out()).unwrap();
    let mut small_disk = vec!["--mount"];
    if !is_root() {
        small_disk.extend(["--user", "--map-root-user"]);
    }
    let may = Command::new("unshare").args(&small_disk).arg("true").output().is_ok_and(|output| output.status.success());
    if !may {
        println!("no file systems can be mounted here: a full disk cannot be arranged");
        return;
    }
    // The mount is gone with the program: nobody else sees it.
    let out = stage.out();
    let mount = format!("mount -t tmpfs -o size=200k none '{}' && exec \"$@\"", out.display());
    small_disk.extend(["sh", "-c", mount.as_str(), "sh"]);
    let mut command = stage.command();
    let output = run(&mut again("unshare", &small_disk, command.env("NARROWS_RETRY__ATTEMPTS", "2")));
    fails(&output, 70, &["No space left"]);
    stage.has_no_manifest();
}
