//! What is written for people, and what is taken from files as it is.

use super::helm::{self, ask, name_of, over_minimal, render, render_chart, set};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Rules with Prometheus's own templates, which Helm must leave alone. Nothing here is a metric of ours.
const RULES: &str = "groups:
  - name: test
    interval: 1m
    rules:
      - alert: TargetDown
        expr: up{job=\"x\"} == 0
        for: 5m
        labels: {severity: page}
        annotations:
          summary: '{{ $labels.instance }} is down: {{ $value | printf \"%.0f\" }}'
      - record: job:up:sum
        expr: sum by (job) (up)
";
const DASHBOARD: &str = "{\"title\": \"Fleet {{x}}\", \"panels\": [{\"legendFormat\": \"{{instance}}\"}]}";

/// A copy of the chart with a file of rules and a dashboard.
pub fn chart_with_files(folder: &Path) -> PathBuf {
    let chart = folder.join("narrows");
    copy(&helm::chart(), &chart);
    for (path, text) in [("files/rules/fleet.yaml", RULES), ("files/dashboards/fleet.json", DASHBOARD)] {
        std::fs::create_dir_all(chart.join(path).parent().unwrap()).unwrap();
        std::fs::write(chart.join(path), text).unwrap();
    }
    chart
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn readme() -> String {
    std::fs::read_to_string(helm::chart().join("README.md")).unwrap()
}

#[test]
fn the_readme_tells_every_value_its_default_and_its_meaning() {
    let table = ask("readme", &json!({ "chart": helm::chart() }));
    let page = readme();
    let told = page.split("<!-- values -->\n").nth(1).and_then(|rest| rest.split("\n<!-- end of values -->").next());
    assert_eq!(told, table.as_str(), "the table is not that of values.yaml: make chart-readme");
}

#[test]
fn every_sample_of_the_readme_can_be_rendered() {
    let page = readme();
    let folder = tempfile::tempdir().unwrap();
    let samples: Vec<&str> = page.split("```yaml\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect();
    assert!(samples.len() >= 4, "{}", samples.len());
    let case = |(number, sample): (usize, &&str)| {
        let file = folder.path().join(format!("{number}.yaml"));
        std::fs::write(&file, sample).unwrap();
        json!({ "files": [set("minimal"), file] })
    };
    let rendered = render(samples.iter().enumerate().map(case).collect());
    for (sample, rendered) in samples.iter().zip(rendered) {
        assert_eq!(rendered.error, None, "{sample}");
    }
}

#[test]
fn the_notes_name_the_secrets_that_must_be_there_and_the_next_command() {
    let notes = helm::with(&json!({ "keda": { "enabled": true } })).notes;
    let keys = ["narrows-broker/uri", "narrows-work-store/key-id", "narrows-tenant-acme/api", "narrows-broker-management/url"];
    for words in keys.iter().chain(&["helm -n media test fleet --logs", "port-forward service/fleet-narrows-coordinator"]) {
        assert!(notes.contains(words), "{words:?} is not in\n{notes}");
    }
    let alone = json!({ "coordinator": { "enabled": false }, "workers": { "cpu": { "enabled": false } } });
    let notes = helm::with(&alone).notes;
    assert!(notes.contains("nothing will be encoded") && notes.contains("No coordinators"), "{notes}");
}

#[test]
fn rules_and_dashboards_are_the_files_and_nothing_without_files() {
    let folder = tempfile::tempdir().unwrap();
    let asked = json!({ "monitoring": { "rules": { "enabled": true, "labels": { "release": "p" } }, "dashboards": { "enabled": true } } });
    let with_files = &render_chart(&chart_with_files(folder.path()), vec![over_minimal(&asked), over_minimal(&json!({}))]);
    let rule = with_files[0].object("PrometheusRule", "fleet-narrows-fleet");
    let rules = &rule["spec"]["groups"][0]["rules"];
    let summary = &rules[0]["annotations"]["summary"];
    assert_eq!(summary, "{{ $labels.instance }} is down: {{ $value | printf \"%.0f\" }}");
    assert_eq!(rules[1], json!({ "record": "job:up:sum", "expr": "sum by (job) (up)" }));
    assert_eq!(rule["metadata"]["labels"]["release"], "p");
    let dashboard = with_files[0].object("ConfigMap", "fleet-narrows-dashboard-fleet");
    assert_eq!(dashboard["data"], json!({ "fleet.json": DASHBOARD }));
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let made = |rendered: &helm::Rendered| -> Vec<String> {
        let is_one = |object: &&Value| object["kind"] == "PrometheusRule" || name_of(object).contains("-dashboard-");
        rendered.objects.iter().filter(is_one).map(|object| name_of(object).to_string()).collect()
    };
    assert_eq!(made(&with_files[1]), [""; 0], "nobody asked");
    let own = render(vec![over_minimal(&asked)]).remove(0);
    let files = |folder: &str| std::fs::read_dir(helm::chart().join("files").join(folder)).map_or(0, Iterator::count);
    assert_eq!(made(&own).len(), files("rules") + files("dashboards"));
}
