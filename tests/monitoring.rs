//! The rules and dashboards of the chart, by Prometheus' own tools: every alert fires when it should and keeps quiet
//! otherwise. That their expressions find data in a real fleet is shown by `tests/fleet/monitoring.rs`.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of one kind, with what they hold.
fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = root().join("helm/narrows/files").join(folder);
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    };
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| read(entry.unwrap().path())).collect();
    files.sort();
    files
}

#[track_caller]
fn promtool(words: &[&str], files: &[PathBuf]) -> String {
    let run = Command::new("promtool").args(words).args(files).output().expect("prometheus is installed (make setup)");
    let (said, complained) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "promtool {words:?}:\n{said}\n{complained}");
    said.into_owned()
}

/// The values of one key of a file of rules or of its tests, in their order.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix(key)).map(str::trim).collect()
}

#[test]
fn prometheus_reads_every_rule() {
    let paths: Vec<PathBuf> = files("rules").into_iter().map(|(path, _)| path).collect();
    let said = promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &paths);
    assert_eq!(said.matches("SUCCESS").count(), paths.len(), "{said}");
}

#[test]
fn every_alert_fires_when_it_should_and_keeps_quiet_when_all_is_well() {
    promtool(&["test", "rules"], &[root().join("tests/monitoring/alerts.yaml")]);
    let cases = std::fs::read_to_string(root().join("tests/monitoring/alerts.yaml")).unwrap();
    for (path, text) in files("rules") {
        for alert in values(&text, "alert:") {
            let fires = format!("alertname=\"{alert}\"");
            assert!(cases.contains(&fires), "{}: nothing shows that {alert} ever fires", path.display());
        }
    }
    assert!(cases.contains("exp_samples: []"), "nothing shows that alerts keep quiet");
}

#[test]
fn every_alert_says_what_it_means_how_urgent_it_is_and_what_to_do() {
    let alerts: Vec<String> = files("rules").into_iter().map(|(_, text)| text).collect();
    let alerts = alerts.concat();
    let alerts: Vec<&str> = alerts.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 15, "{}", alerts.len());
    let mut names = BTreeSet::new();
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        assert!(name.starts_with("Narrows") && names.insert(name), "{name}");
        for field in ["summary:", "description:", "runbook:"] {
            assert_eq!(values(alert, field).len(), 1, "{name} has no {field}");
        }
        let severity = values(alert, "labels:");
        assert!(matches!(severity[..], ["{severity: page}" | "{severity: ticket}"]), "{name}: {severity:?}");
    }
}

#[test]
fn every_panel_has_a_title_a_meaning_a_unit_and_a_place_of_its_own() {
    let mut ids = BTreeSet::new();
    for (path, text) in files("dashboards") {
        let dashboard: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(ids.insert(dashboard["uid"].as_str().unwrap().to_string()), "{}", path.display());
        let mut taken = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(!title.is_empty() && !panel["targets"].as_array().unwrap().is_empty(), "{panel}");
            assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title} means nothing");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
            let place = &panel["gridPos"];
            let edge = |name: &str| place[name].as_u64().unwrap();
            assert!(edge("x") + edge("w") <= 24, "{title} is beyond the edge");
            for x in edge("x")..edge("x") + edge("w") {
                for y in edge("y")..edge("y") + edge("h") {
                    assert!(taken.insert((x, y)), "{}: {title} lies on another panel", path.display());
                }
            }
            assert!(taken.insert((1000, panel["id"].as_u64().unwrap())), "{title}: another panel has its id");
        }
    }
    assert_eq!(ids.len(), 4, "{ids:?}");
}
