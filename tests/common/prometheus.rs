//! Debian's Prometheus, on a loopback port, in a folder of its own.

use super::http::{Client, percent_encoded};
use super::server::{Home, Server, free_port, wait_for};
use serde_json::{Value, json};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::Command;

/// How often it scrapes and evaluates: a test has not the time of a fleet.
const EVERY: &str = "1s";

/// A running server; dropped, it is gone.
pub struct Prometheus {
    // In this order they are dropped.
    server: Server,
    client: Client,
    _home: Home,
}

impl Prometheus {
    /// Starts it, with these files of rules, on these ports' `/metrics`.
    #[track_caller]
    pub fn start(rules: &[PathBuf], ports: &[u16]) -> Self {
        let (home, port) = (Home::new(), free_port());
        let targets: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let config = json!({
            "global": { "scrape_interval": EVERY, "evaluation_interval": EVERY },
            "rule_files": rules,
            "scrape_configs": [{ "job_name": "narrows", "static_configs": [{ "targets": targets }] }],
        });
        // JSON is YAML.
        let config = home.write("prometheus.yaml", config.to_string());
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", home.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--log.level=warn");
        let mut server = Server::start(&home, "prometheus", &mut command);
        let client = Client::new(port);
        wait_for("a Prometheus that is ready", || {
            assert!(server.ended().is_none(), "it ended:\n{}", server.log());
            client.get("/-/ready").ok().filter(|answer| answer.status == 200)
        });
        Self { server, client, _home: home }
    }

    #[track_caller]
    fn ask(&self, path: &str) -> Value {
        let answer = self.client.get(path).expect("it answers");
        let document = answer.json();
        assert_eq!(document["status"], "success", "{path}: {document}\n{}", self.server.log());
        document["data"].clone()
    }

    /// The values of an expression now, one for each series.
    #[track_caller]
    pub fn query(&self, expression: &str) -> Vec<f64> {
        let data = self.ask(&format!("/api/v1/query?query={}", percent_encoded(expression)));
        let value = |sample: &Value| sample["value"][1].as_str().and_then(|text| text.parse().ok()).expect("a number");
        data["result"].as_array().expect("a vector").iter().map(value).collect()
    }

    /// The values of an expression over a time, seconds since the epoch: one series each, a value a second from the start on.
    #[track_caller]
    pub fn range(&self, expression: &str, time: RangeInclusive<f64>) -> Value {
        let (start, end) = time.into_inner();
        let path = format!("/api/v1/query_range?query={}&start={start:.3}&end={end:.3}&step=1", percent_encoded(expression));
        self.ask(&path)["result"].clone()
    }

    /// Every rule, as it was read, with how its last evaluation went.
    #[track_caller]
    pub fn rules(&self) -> Vec<Value> {
        let groups = self.ask("/api/v1/rules")["groups"].clone();
        let rules = |group: &Value| group["rules"].as_array().cloned().unwrap_or_default();
        groups.as_array().expect("groups").iter().flat_map(rules).collect()
    }

    /// The names of all metrics that it has.
    #[track_caller]
    pub fn names(&self) -> Vec<String> {
        let names = self.ask("/api/v1/label/__name__/values");
        names.as_array().expect("names").iter().filter_map(|name| name.as_str().map(str::to_string)).collect()
    }
}
