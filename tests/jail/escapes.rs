//! Reaching for what is outside.

use crate::bench::{Bench, Test, assert_denied, assert_done, run};
use narrows::sandbox::protocol::{JailLevel, RefusalReason};
use narrows::sandbox::{Disposition, InputSource, Outcome};
use std::os::fd::AsRawFd;
use std::sync::Arc;

pub const TESTS: &[Test] = &[
    ("reading_a_file_outside_scratch_is_denied", || assert_denied(&run("read-passwd"), libc::EACCES)),
    ("listing_a_folder_outside_scratch_is_denied", || assert_denied(&run("list-root"), libc::EACCES)),
    ("writing_outside_scratch_is_denied", writing_outside_scratch_is_denied),
    ("renaming_out_of_scratch_is_denied", renaming_out_of_scratch_is_denied),
    ("opening_with_neither_read_nor_write_is_denied", || assert_denied(&run("open-without-mode"), libc::EPERM)),
    ("the_scratch_folder_is_at_the_childs_disposal", || assert_done(&run("write-in-scratch"), 2)),
    ("a_descriptor_of_the_worker_is_not_inherited", a_descriptor_of_the_worker_is_not_inherited),
    ("an_input_cannot_be_written", an_input_cannot_be_written),
    ("opening_a_socket_is_a_violation", || assert_violation("socket")),
    ("exec_is_a_violation", || assert_violation("exec")),
    ("fork_is_a_violation", || assert_violation("fork")),
    ("ptrace_is_a_violation", || assert_violation("ptrace")),
    ("signalling_the_parent_is_a_violation", || assert_violation("signal-parent")),
    ("signalling_a_thread_of_the_parent_is_a_violation", || assert_violation("signal-thread-of-parent")),
    ("raising_a_limit_is_a_violation", || assert_violation("raise-limits")),
    ("the_tie_to_the_parents_life_cannot_be_cut", || assert_denied(&run("outlive-parent"), libc::EPERM)),
    ("memory_cannot_be_made_executable", || assert_denied(&run("executable-memory"), libc::EPERM)),
    ("encoders_may_start_threads", || assert_done(&run("threads"), 36)),
    ("what_encoders_probe_for_is_answered_and_does_not_kill", || assert_done(&run("library-probes"), 10)),
    ("without_landlock_the_default_minimum_refuses", without_landlock_the_default_minimum_refuses),
    ("without_landlock_scratch_is_the_root_of_all_names", without_landlock_scratch_is_the_root_of_all_names),
];

#[track_caller]
fn assert_violation(deed: &str) {
    let finished = run(deed);
    assert!(matches!(finished.outcome, Outcome::Violation), "{}", finished.outcome);
    assert_eq!(finished.outcome.disposition(), Disposition::Crash);
}

fn writing_outside_scratch_is_denied() {
    let bench = Bench::new();
    let outside = bench.home.path().join("outside");
    assert_denied(&bench.run(&format!("write {}", outside.display())), libc::EACCES);
    assert_denied(&bench.run("write ../outside"), libc::EACCES);
    assert!(!outside.exists());
}

fn renaming_out_of_scratch_is_denied() {
    let bench = Bench::new();
    let outside = bench.home.path().join("outside");
    let finished = bench.run(&format!("rename-out {}", outside.display()));
    assert!(matches!(finished.outcome, Outcome::Refused(_)), "{}", finished.outcome);
    assert!(!outside.exists());
    assert!(bench.scratch().join("inside").exists(), "the deed was tried");
}

fn a_descriptor_of_the_worker_is_not_inherited() {
    let secret = tempfile::tempfile().unwrap();
    // SAFETY: duplicates a live descriptor without close-on-exec, as a careless library would.
    let leaked = unsafe { libc::fcntl(secret.as_raw_fd(), libc::F_DUPFD, 200) };
    assert!(leaked >= 200);
    assert_denied(&run(&format!("look-at-descriptor {leaked}")), libc::EBADF);
}

fn an_input_cannot_be_written() {
    let mut bench = Bench::new();
    let path = bench.home.path().join("input");
    std::fs::write(&path, b"media").unwrap();
    // The worker's own handle can write; the child's must not. Its number is the lowest free one from 3 up, so try all.
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    bench.inputs = vec![InputSource::File(Arc::new(file))];
    for descriptor in 3..10 {
        assert_denied(&bench.run(&format!("write-to-input {descriptor}")), libc::EBADF);
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"media");
}

fn without_landlock_the_default_minimum_refuses() {
    let finished = Bench::new().started_as("child-without-landlock").run("nothing");
    let Outcome::Refused(refusal) = &finished.outcome else { panic!("{}", finished.outcome) };
    assert_eq!(refusal.reason, RefusalReason::Jail);
    assert_eq!(finished.jail, None);
    assert_eq!(finished.outcome.disposition(), Disposition::Crash);
}

fn without_landlock_scratch_is_the_root_of_all_names() {
    let mut bench = Bench::new().started_as("child-without-landlock");
    bench.sandbox.minimum_jail = JailLevel::Seccomp;
    let finished = bench.run("read-passwd");
    assert_eq!(finished.jail, Some(JailLevel::Seccomp), "{}", finished.outcome);
    assert_denied(&finished, libc::ENOENT);
    assert_done(&bench.run("write-in-scratch"), 2);
    assert_eq!(std::fs::read(bench.scratch().join("v1080/00001.m4s")).unwrap(), b"segment");
    assert!(matches!(bench.run("socket").outcome, Outcome::Violation));
    bench.run("write ../../outside");
    assert!(bench.scratch().join("outside").exists(), "the parent of the root is the root");
}
