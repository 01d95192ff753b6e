//! Taking too much: memory, time, disk, patience.

use crate::bench::{Bench, MIB, Test, run};
use narrows::sandbox::{Disposition, Outcome};
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("filling_memory_ends_as_out_of_memory", || assert_ends("fill-memory", |o| matches!(o, Outcome::OutOfMemory))),
    ("a_library_without_memory_ends_as_out_of_memory", || assert_ends("fill-memory-in-c", |o| matches!(o, Outcome::OutOfMemory))),
    ("looping_for_ever_ends_at_the_deadline", || assert_ends_at_the_deadline("spin")),
    ("ignoring_sigterm_ends_by_sigkill", || assert_ends_at_the_deadline("spin-and-ignore-sigterm")),
    ("a_flood_of_progress_ends_at_the_deadline", || assert_ends_at_the_deadline("flood-progress")),
    ("cpu_time_is_limited", cpu_time_is_limited),
    ("silence_ends_as_stalled", || assert_stalls("be-silent")),
    ("half_a_message_is_no_progress", || assert_stalls("half-a-message")),
    ("words_on_stderr_are_no_progress", || assert_stalls("talk-to-stderr-for-ever")),
    ("only_the_end_of_a_flood_of_stderr_is_kept", only_the_end_of_a_flood_of_stderr_is_kept),
    ("a_file_may_not_outgrow_its_limit", a_file_may_not_outgrow_its_limit),
    ("all_files_together_may_not_outgrow_the_limit", all_files_together_may_not_outgrow_the_limit),
];

#[track_caller]
fn assert_ends(deed: &str, as_expected: fn(&Outcome) -> bool) {
    let finished = run(deed);
    assert!(as_expected(&finished.outcome), "{}: {}", finished.outcome, finished.stderr_tail);
    assert_eq!(finished.outcome.disposition(), Disposition::Crash);
}

fn assert_ends_at_the_deadline(deed: &str) {
    let mut bench = Bench::new();
    bench.sandbox.deadline = Duration::from_millis(500);
    let finished = bench.run(deed);
    assert!(matches!(finished.outcome, Outcome::Deadline), "{}", finished.outcome);
    assert!(finished.wall >= bench.sandbox.deadline);
    assert!(finished.cpu > Duration::ZERO, "what was killed is counted");
    assert!(finished.wall < Duration::from_secs(5), "{:?}", finished.wall);
}

fn cpu_time_is_limited() {
    let mut bench = Bench::new();
    bench.limits.cpu_s = 1;
    let finished = bench.run("spin");
    assert!(matches!(finished.outcome, Outcome::CpuLimit), "{}", finished.outcome);
    // The limit is counted in ticks, the use exactly; so not quite a second.
    assert!(finished.cpu >= Duration::from_millis(500), "{:?}", finished.cpu);
    assert!(finished.cpu < Duration::from_secs(4), "{:?}", finished.cpu);
    assert!(finished.peak_bytes > MIB);
}

fn assert_stalls(deed: &str) {
    let mut bench = Bench::new();
    bench.sandbox.stall = Duration::from_millis(400);
    let finished = bench.run(deed);
    assert!(matches!(finished.outcome, Outcome::Stalled), "{}", finished.outcome);
}

fn only_the_end_of_a_flood_of_stderr_is_kept() {
    let mut bench = Bench::new();
    bench.sandbox.stderr_tail_bytes = 1000;
    let finished = bench.run("flood-stderr");
    assert!(matches!(finished.outcome, Outcome::Done(_)), "{}", finished.outcome);
    assert!(finished.stderr_tail.len() <= 1000);
    assert!(finished.stderr_tail.ends_with("noise [31mthe end[0m\n"), "{:?}", finished.stderr_tail);
}

fn a_file_may_not_outgrow_its_limit() {
    let mut bench = Bench::new();
    bench.limits.scratch_bytes = MIB;
    let finished = bench.run("huge-file");
    assert!(matches!(finished.outcome, Outcome::FileTooLarge), "{}", finished.outcome);
    assert_eq!(finished.outcome.disposition(), Disposition::Reject);
    assert_eq!(std::fs::metadata(bench.scratch().join("huge")).unwrap().len(), MIB);
}

fn all_files_together_may_not_outgrow_the_limit() {
    let mut bench = Bench::new();
    bench.limits.scratch_bytes = 3 * MIB;
    let finished = bench.run("many-files");
    assert!(matches!(finished.outcome, Outcome::FileTooLarge), "{}", finished.outcome);
}
