//! The operator's commands as a shell sees them: what they take, how they end, what they name.
//!
//! Nothing here needs a server: a mistake is told before anything is connected to. What the commands do to a running
//! fleet is tried with the fleet, in tests/fleet.

use std::fs;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

fn narrows(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_narrows"));
    // Settings of who runs the tests are none of theirs.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NARROWS_")) {
        command.env_remove(name);
    }
    command.args(words).stdin(Stdio::null()).output().expect("the program starts")
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Ended with that code, said all of this on stderr and nothing on stdout.
#[track_caller]
fn fails(words: &[&str], code: i32, named: &[&str]) {
    let output = narrows(words);
    let error = said(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {error}");
    for word in named {
        assert!(error.contains(word), "{words:?}: {word:?} is not in: {error}");
    }
    assert_eq!(said(&output.stdout), "", "{words:?}");
}

/// Every command of an operator, with the fewest words it takes.
const COMMANDS: [&[&str]; 11] = [
    &["submit"],
    &["status"],
    &["list"],
    &["watch"],
    &["cancel"],
    &["replay"],
    &["purge"],
    &["usage"],
    &["tenant"],
    &["check-config"],
    &["doctor"],
];

/// Files of one test.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    }

}

#[test]
fn every_command_has_help_with_examples_and_its_exit_codes() {
    for command in COMMANDS {
        let output = narrows(&[command, &["--help"]].concat());
        let help = said(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        let example = format!("narrows {}", command[0]);
        for word in ["Examples:", "Exit codes:", example.as_str()] {
            assert!(help.contains(word), "{command:?}: {word:?} is not in its help");
        }
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn misuse_is_2_and_names_the_argument() {
    let cases: &[(&[&str], &str)] = &[
        (&["submit"], "<FILE>"),
        (&["submit", "no-such-job.json"], "no-such-job.json"),
        (&["status"], "<ID>"),
        (&["status", "../etc"], "a job id is"),
        (&["watch", ""], "a job id is"),
        (&["cancel", ".hidden"], "a job id is"),
        (&["list", "--state", "done"], "--state"),
        (&["list", "--limit", "0"], "--limit"),
        (&["list", "--limit", "100000"], "--limit"),
        (&["replay", "talk", "--from", "0"], "--from"),
        (&["purge"], "--tenant"),
        (&["purge", "talk", "--tenant", "acme"], "--tenant"),
        (&["usage", "--from", "2026-11-01", "--to", "2026-11-30"], "--tenant"),
        (&["usage", "--tenant", "acme", "--from", "yesterday", "--to", "2026-11-30"], "yesterday"),
        (&["usage", "--tenant", "acme", "--from", "2026-02-30", "--to", "2026-11-30"], "2026-02-30"),
        (&["usage", "--tenant", "acme", "--from", "2026-12-01", "--to", "2026-11-30"], "--from"),
        (&["usage", "--tenant", "acme", "--from", "2026-11-01", "--to", "2026-11-30", "--csv", "--json"], "--csv"),
        (&["tenant"], "freeze"),
        (&["tenant", "freeze", "acme"], "--reason"),
        (&["tenant", "melt", "acme"], "melt"),
        (&["check-config"], "<FILE>"),
        (&["doctor", "fleet.toml"], "fleet.toml"),
    ];
    for (words, named) in cases {
        fails(words, 2, &[named]);
    }
}

#[test]
fn a_job_that_does_not_parse_is_64_before_anything_is_sent() {
    let desk = Desk::new();
    let of = |text: &str| desk.file("job.json", text);
    let job = of(r#"{"input":{"uri":"a","url":"b"},"output":{"uri":"o"}}"#);
    fails(&["submit", &job], 64, &["job.json", "input.url"]);
    fails(&["submit", &of("video: talk.mp4")], 64, &["job.json"]);
    let job = of(r#"{"input":{"uri":"a"},"output":{"uri":"o"},"set":{"packaging.segments":4}}"#);
    fails(&["submit", &job], 64, &["job.json", "set.packaging.segments"]);
    fails(&["submit", &of(&format!(r#"{{"x":"{}"}}"#, "x".repeat(300_000)))], 64, &["job.json", "at most"]);
}

#[test]
fn wrong_settings_are_64_and_name_layer_and_field_in_every_command() {
    let desk = Desk::new();
    let config = desk.file("fleet.toml", "[worker]\nslot = 2\n");
    let job = desk.file("job.json", r#"{"input":{"uri":"a"},"output":{"uri":"o"}}"#);
    let cases: &[&[&str]] = &[
        &["submit", &job, "--config", &config],
        &["status", "talk", "--config", &config],
        &["list", "--config", &config],
        &["watch", "talk", "--config", &config],
        &["cancel", "talk", "--config", &config],
        &["replay", "talk", "--config", &config],
        &["purge", "talk", "--yes", "--config", &config],
        &["usage", "--tenant", "acme", "--from", "2026-11-01", "--to", "2026-11-30", "--config", &config],
        &["tenant", "freeze", "acme", "--reason", "unpaid", "--config", &config],
        &["check-config", &config],
        &["doctor", "--config", &config],
    ];
    for words in cases {
        fails(words, 64, &["fleet.toml", "worker.slot"]);
    }
}
