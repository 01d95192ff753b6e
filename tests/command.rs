//! The operator's commands as a shell sees them: what they take, how they end, what they name.
//!
//! Nothing here needs a server: a mistake is told before anything is connected to. What the commands do to a running
//! fleet is tried with the fleet, in tests/fleet.

use narrows::callback::sign::{Key, message_id, sign};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};
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
const COMMANDS: [&[&str]; 14] = [
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
    &["man"],
    &["completions"],
    &["simulate"],
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
        (&["man", "tenant", "melt"], "tenant melt"),
        (&["man", "tenant", "--into", "man1"], "--into"),
        (&["completions", "csh"], "csh"),
        (&["simulate"], "--jobs"),
        (&["simulate", "--jobs", "10", "--trace", "jobs.jsonl"], "--trace"),
        (&["simulate", "--jobs", "10", "--lanes", "1,2"], "--lanes"),
        (&["simulate", "--jobs", "10", "--tenant", "acme=0"], "--tenant"),
        (&["simulate", "--jobs", "10", "--scale-start", "5s"], "--scale-to"),
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

/// A fleet on folders, with a broker that nobody has started.
fn fleet(desk: &Desk) -> String {
    for folder in ["work", "media"] {
        fs::create_dir_all(desk.0.path().join(folder)).unwrap();
    }
    let key = desk.file("acme-key", "a-secret-of-acme-0123456789\n");
    let webhook = desk.file("acme-webhook", SECRET);
    let home = desk.0.path().canonicalize().unwrap();
    let text = format!(
        r#"
        broker = {{ kind = "rabbitmq", uri = "amqp://fleet:hunter2@127.0.0.1:1/films", publish_timeout_s = 1 }}
        work = {{ store = "work" }}
        [stores]
        work = {{ type = "fs", root = "{0}/work" }}
        media = {{ type = "fs", root = "{0}/media" }}
        web = {{ type = "http", hosts = ["*.example.com"], tenants = ["globex"] }}
        [tenants.acme]
        access_key_id = "AKACME"
        secret_file = "{key}"
        webhook_secret_files = ["{webhook}"]
        callbacks = [{{ url = "https://hooks.acme.example.com/token-tiger" }}]
        quota = {{ active_jobs = 7 }}
        [tenants.globex]
        "#,
        home.display()
    );
    desk.file("fleet.toml", &text)
}

#[test]
fn a_settings_file_is_explained_without_a_secret() {
    let desk = Desk::new();
    let config = fleet(&desk);
    let output = narrows(&["check-config", &config]);
    let text = said(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let line = |section: &str| text.lines().find(|line| line.split_whitespace().next() == Some(section)).unwrap_or_default();
    assert!(line("broker").contains("amqp://127.0.0.1:1/films"), "{text}");
    assert!(line("stores.work").ends_with("/work: the work"), "{text}");
    assert!(line("stores.web").contains("*.example.com") && line("stores.web").ends_with("of globex"), "{text}");
    for word in ["AKACME", "stores media;", "hooks.acme.example.com", "signed with 1 keys", "7 jobs at once"] {
        assert!(line("tenants.acme").contains(word), "{word:?}: {text}");
    }
    assert!(line("tenants.globex").contains("stores media, web"), "{text}");
    let document = narrows(&["check-config", &config, "--json"]);
    let sections: Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!((&sections["ok"], &sections["sections"][0]["section"]), (&true.into(), &"broker".into()));
    for secret in ["hunter2", "a-secret-of", "token-tiger", &SECRET[6..]] {
        assert!(!text.contains(secret) && !said(&document.stdout).contains(secret), "{secret}");
    }
}

#[test]
fn a_key_that_is_not_there_is_64_and_named_by_its_field() {
    let desk = Desk::new();
    let config = fleet(&desk);
    fs::remove_file(desk.0.path().join("acme-webhook")).unwrap();
    fails(&["check-config", &config], 64, &["fleet.toml", "tenants.acme.webhook_secret_files[0]", "acme-webhook"]);
    fs::remove_dir(desk.0.path().join("media")).unwrap();
    fails(&["list", "--config", &config], 64, &["stores.media.root"]);
}

#[test]
fn the_doctor_says_what_works_and_what_is_wrong_with_its_fix() {
    let desk = Desk::new();
    let config = fleet(&desk);
    let output = narrows(&["doctor", "--config", &config]);
    let text = said(&output.stdout);
    assert_eq!((output.status.code(), said(&output.stderr).as_str()), (Some(70), "narrows: one thing is wrong\n"), "{text}");
    let works = [
        "libraries",
        "jail",
        "encoder x265",
        "encoder x264",
        "encoder SVT-AV1",
        "scratch",
        "store media",
        "store work",
        "clock",
        "traces",
    ];
    for check in works {
        assert!(text.contains(&format!("ok     {check}: ")), "{check}: {text}");
    }
    let wrong: Vec<&str> = text.lines().filter(|line| !line.starts_with("ok     ")).collect();
    assert_eq!(wrong.len(), 1, "{text}");
    assert!(wrong[0].starts_with("wrong  broker: ") && wrong[0].contains("; fix: ") && wrong[0].contains("refused"), "{text}");
    let document: Value = serde_json::from_slice(&narrows(&["doctor", "--config", &config, "--json"]).stdout).unwrap();
    assert_eq!(document["ok"], false);
    let checks = document["findings"].as_array().unwrap().iter().filter(|finding| finding["ok"] == true);
    assert_eq!(checks.count(), works.len());
    assert!(!text.contains("hunter2") && !document.to_string().contains("hunter2"));
}

/// Key of a webhook: the base64 of 32 bytes.
const SECRET: &str = "whsec_bmFycm93cy10ZXN0LXdlYmhvb2stc2VjcmV0LTAwMQ==";
const OTHER_SECRET: &str = "whsec_bmFycm93cy10ZXN0LXdlYmhvb2stc2VjcmV0LTAwMg==";

#[test]
fn the_lines_of_the_page_verify_what_is_signed_and_nothing_else() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let lines = page.split("```python\n").nth(1).and_then(|rest| rest.split("\n```").next()).expect("the page has such lines");
    let program = format!(
        "import json, sys\n{lines}\ncase = json.load(sys.stdin)\nverify(case['secret'], case['headers'], case['body'].encode())\n"
    );
    let is_verified = |secret: &str, at: u64, body: &str| {
        let id = message_id("talk-1/job.completed");
        let keys = [OTHER_SECRET, SECRET].map(|text| Key::parse(text).unwrap());
        // One is signed with both, and it is the other one's word that counts.
        let signature = sign(&keys, &id, at, br#"{"type":"job.completed"}"#);
        let headers = json!({ "webhook-id": id, "webhook-timestamp": at.to_string(), "webhook-signature": signature });
        let mut python =
            Command::new("python3").args(["-c", &program]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let case = json!({ "secret": secret, "headers": headers, "body": body });
        python.stdin.take().unwrap().write_all(case.to_string().as_bytes()).unwrap();
        let output = python.wait_with_output().unwrap();
        let error = said(&output.stderr);
        assert!(output.status.success() || error.contains("ValueError"), "{error}");
        output.status.success()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let body = r#"{"type":"job.completed"}"#;
    assert!(is_verified(SECRET, now, body) && is_verified(OTHER_SECRET, now, body));
    assert!(!is_verified(SECRET, now, r#"{"type":"job.failed"}"#), "another body");
    assert!(!is_verified("whsec_bmFycm93cy10ZXN0LXdlYmhvb2stc2VjcmV0LTAwMw==", now, body), "another secret");
    assert!(!is_verified(SECRET, now - 3600, body), "an old one, sent again");
}
