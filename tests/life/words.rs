//! What it writes to stdout and stderr.

use crate::stage::{Stage, narrows, run, succeeds, text};
use serde_json::Value;

/// No escape sequence, no carriage return, no line that is drawn over.
#[track_caller]
fn are_plain(bytes: &[u8]) {
    let text = text(bytes);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
}

#[test]
fn without_a_terminal_everything_is_plain_lines() {
    let stage = Stage::new(150);
    let output = run(&mut stage.command());
    succeeds(&output);
    are_plain(&output.stdout);
    are_plain(&output.stderr);
    let (table, said) = (text(&output.stdout), text(&output.stderr));
    assert!(table.contains("108p") && table.contains("audio-0-128k"), "{table}");
    assert!(said.contains("encoding: ") && said.contains("frames"), "{said}");
    are_plain(&run(stage.command().args(["--set", "x=1"])).stderr);
    are_plain(&narrows(&["--help"]).stdout);
}

#[test]
fn json_is_one_document_and_not_a_word_beside_it() {
    let stage = Stage::new(150);
    for _ in ["made", "found done"] {
        let output = run(stage.command().arg("--json"));
        succeeds(&output);
        assert_eq!(text(&output.stderr), "");
        // Trailing words would be an error.
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report, stage.report());
        assert_eq!((&report["version"], &report["rungs"][0]["frames"]), (&1.into(), &150.into()));
    }
    let source = stage.source.to_str().unwrap();
    let output = narrows(&["probe", source, "--json"]);
    succeeds(&output);
    assert_eq!(text(&output.stderr), "");
    let probe: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(probe["video"][0]["packets"], 150);
}
