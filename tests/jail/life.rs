//! Coming to an end, by oneself or by the parent, and leaving nothing behind.

use crate::bench::{Bench, Test, assert_done, assert_group_is_gone, assert_soon, is_alive, run, runtime};
use narrows::sandbox::protocol::RefusalReason;
use narrows::sandbox::{Disposition, Outcome};
use std::future::pending;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

pub const TESTS: &[Test] = &[
    ("abort_is_seen_as_its_signal", || assert_signalled("abort", libc::SIGABRT)),
    ("a_bad_access_is_seen_as_its_signal", || assert_signalled("segv", libc::SIGSEGV)),
    ("an_exit_without_a_report_is_not_done", an_exit_without_a_report_is_not_done),
    ("a_panic_is_an_internal_refusal_with_its_words", a_panic_is_an_internal_refusal_with_its_words),
    ("a_report_stands_however_the_child_goes", || assert_done(&run("finish-and-hang"), 5)),
    ("a_grandchild_with_the_pipes_neither_hangs_the_parent_nor_survives", a_grandchild_does_not_survive),
    ("a_grandchild_that_left_the_group_does_not_hang_the_parent", an_escaped_grandchild_does_not_hang_the_parent),
    ("stop_ends_the_child_within_two_seconds", || assert_stops("say-and-spin")),
    ("stop_ends_a_child_that_ignores_sigterm_within_two_seconds", || assert_stops("spin-and-ignore-sigterm")),
    ("dropping_the_future_kills_and_reaps_the_child", dropping_the_future_kills_and_reaps_the_child),
    ("a_child_outlives_the_thread_that_asked_for_it", a_child_outlives_the_thread_that_asked_for_it),
    ("a_killed_parent_takes_its_child_along", a_killed_parent_takes_its_child_along),
    ("a_program_that_is_not_there_is_a_failed_spawn", a_program_that_is_not_there_is_a_failed_spawn),
];

#[track_caller]
fn assert_signalled(deed: &str, expected: i32) {
    let finished = run(deed);
    assert!(matches!(finished.outcome, Outcome::Signalled(signal) if signal == expected), "{}", finished.outcome);
    assert_eq!(finished.outcome.disposition(), Disposition::Crash);
}

fn an_exit_without_a_report_is_not_done() {
    assert!(matches!(run("exit 0").outcome, Outcome::Exited(0)));
    assert!(matches!(run("exit 3").outcome, Outcome::Exited(3)));
}

fn a_panic_is_an_internal_refusal_with_its_words() {
    let finished = run("panic");
    let Outcome::Refused(refusal) = &finished.outcome else { panic!("{}", finished.outcome) };
    assert_eq!((refusal.reason, refusal.message.as_str()), (RefusalReason::Internal, "the child panicked: a bug"));
    assert!(finished.stderr_tail.contains("a bug"), "{}", finished.stderr_tail);
}

fn a_grandchild_does_not_survive() {
    let bench = Bench::new().started_as("child-with-grandchild");
    let finished = bench.run("nothing");
    assert_done(&finished, 0);
    assert!(finished.wall < Duration::from_secs(5), "{:?}", finished.wall);
    let grandchild = grandchild_of(&bench);
    assert_soon("the grandchild lives", || !is_alive(grandchild));
}

fn an_escaped_grandchild_does_not_hang_the_parent() {
    let bench = Bench::new().started_as("child-with-escaped-grandchild");
    let finished = bench.run("nothing");
    let grandchild = grandchild_of(&bench);
    assert!(is_alive(grandchild), "it holds both pipes to the end");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(grandchild as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_done(&finished, 0);
    assert!(finished.wall < Duration::from_secs(5), "{:?}", finished.wall);
}

fn grandchild_of(bench: &Bench) -> u32 {
    std::fs::read_to_string(bench.scratch().join("grandchild")).unwrap().parse().unwrap()
}

fn assert_stops(deed: &str) {
    let runs = Notify::new();
    let finished = Bench::new().run_until(deed, &mut |_| runs.notify_one(), runs.notified());
    assert!(matches!(finished.outcome, Outcome::Stopped), "{}", finished.outcome);
    assert_eq!(finished.outcome.disposition(), Disposition::Stopped);
    assert!(finished.wall < Duration::from_secs(2), "{:?}", finished.wall);
}

fn dropping_the_future_kills_and_reaps_the_child() {
    let (bench, runs) = (Bench::new(), Notify::new());
    let mut on_progress = |_| runs.notify_one();
    runtime().block_on(async {
        tokio::select! {
            finished = bench.start("say-and-spin", &mut on_progress, pending()) => panic!("{}", finished.outcome),
            () = runs.notified() => {}
        }
    });
    assert_soon("a child of this scratch folder is left", || processes_in(&bench) == 0);
}

/// Processes whose working folder is the scratch folder, zombies included as far as the kernel still knows their folder.
fn processes_in(bench: &Bench) -> usize {
    let scratch = bench.scratch().canonicalize().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|folder| folder == scratch)).count()
}

fn a_child_outlives_the_thread_that_asked_for_it() {
    let bench = Bench::new();
    let (runs, enough) = (Arc::new(Notify::new()), Notify::new());
    let told = Arc::clone(&runs);
    let mut on_progress = move |_| told.notify_one();
    let runtime = runtime();
    let mut running = Box::pin(bench.start("say-and-spin", &mut on_progress, enough.notified()));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            runtime.block_on(async {
                tokio::select! {
                    finished = &mut running => panic!("{}", finished.outcome),
                    () = runs.notified() => {}
                }
            });
        });
        asking.join().unwrap();
    });
    enough.notify_one();
    let finished = runtime.block_on(running);
    assert!(matches!(finished.outcome, Outcome::Stopped), "not killed before: {}", finished.outcome);
}

/// The program as a worker that dies: starts a child, says that it runs, and waits to be killed.
pub fn be_a_parent() -> ExitCode {
    let bench = Bench::new();
    let mut on_progress = |_| {
        println!("{}", bench.home.path().display());
        std::io::stdout().flush().unwrap();
    };
    let finished = runtime().block_on(bench.start("say-and-spin", &mut on_progress, pending()));
    eprintln!("{}", finished.outcome);
    ExitCode::FAILURE
}

fn a_killed_parent_takes_its_child_along() {
    let mut parent =
        Command::new(std::env::current_exe().unwrap()).arg("parent").stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let mut home = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut home).unwrap();
    let child = child_of(parent.id()).expect("the parent has a child");
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert_group_is_gone(child);
    std::fs::remove_dir_all(home.trim()).unwrap();
}

/// A process whose parent is `parent` (field 4 of proc_pid_stat(5)).
fn child_of(parent: u32) -> Option<u32> {
    std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let of: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        if of == parent { entry.file_name().to_str()?.parse().ok() } else { None }
    })
}

fn a_program_that_is_not_there_is_a_failed_spawn() {
    let mut bench = Bench::new();
    bench.sandbox.program = bench.home.path().join("no-such-program");
    let finished = runtime().block_on(bench.start("nothing", &mut |_| {}, pending()));
    assert!(matches!(finished.outcome, Outcome::SpawnFailed(_)), "{}", finished.outcome);
    assert_eq!(finished.outcome.disposition(), Disposition::Retry);
    assert_eq!(finished.pid, None);
}
