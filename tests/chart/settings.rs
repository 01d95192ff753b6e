//! Every rendered configuration is one that the program takes, and finds its files where the pod has them.

use super::helm::{self, Pod, Rendered};
use narrows::config::Config;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Long enough for every kind of secret that is a word.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The file system of one pod, under a folder of ours: its mounts, the keys of its Secrets, its settings.
struct Machine {
    folder: tempfile::TempDir,
    mounts: Vec<String>,
    settings: PathBuf,
}

impl Machine {
    fn of(rendered: &Rendered, pod: &Pod) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path.trim_start_matches('/'));
        let mut mounts = Vec::new();
        for mount in pod.container()["volumeMounts"].as_array().unwrap() {
            let path = mount["mountPath"].as_str().unwrap();
            std::fs::create_dir_all(at(path)).unwrap();
            for file in files_of(rendered, volume(pod, mount["name"].as_str().unwrap())) {
                let file = (at(path).join(file.0), file.1);
                std::fs::create_dir_all(file.0.parent().unwrap()).unwrap();
                std::fs::write(file.0, file.1).unwrap();
            }
            mounts.push(path.to_string());
        }
        let arguments = pod.container()["args"].as_array().unwrap();
        let at_flag = arguments.iter().position(|argument| argument == "--config").unwrap();
        let settings = at(arguments[at_flag + 1].as_str().unwrap());
        let machine = Self { folder, mounts, settings };
        machine.move_in();
        machine
    }

    /// The paths of the settings, each as it is seen from outside the pod.
    fn move_in(&self) {
        let mut text = std::fs::read_to_string(&self.settings).unwrap();
        for mount in &self.mounts {
            let outside = self.folder.path().join(mount.trim_start_matches('/'));
            text = text.replace(&format!("\"{mount}"), &format!("\"{}", outside.display()));
        }
        std::fs::write(&self.settings, text).unwrap();
    }

    fn check_config(&self, environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_narrows"));
        command.env_clear().envs(environment.iter().copied()).arg("check-config").arg(&self.settings).arg("--json");
        command.output().unwrap()
    }

    fn config(&self) -> Config {
        Config::load(Some(&self.settings), std::iter::empty()).unwrap()
    }
}

fn volume<'a>(pod: &Pod<'a>, name: &str) -> &'a Value {
    let found = pod.spec["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == name);
    found.unwrap_or_else(|| panic!("{}: a mount of the volume {name}, which is not there", pod.name))
}

/// Names and contents of the files on a volume.
fn files_of(rendered: &Rendered, volume: &Value) -> Vec<(String, String)> {
    if let Some(map) = volume["configMap"]["name"].as_str() {
        let data = rendered.object("ConfigMap", map)["data"].as_object().unwrap();
        return data.iter().map(|(name, text)| (name.clone(), text.as_str().unwrap().to_string())).collect();
    }
    let sources = volume["projected"]["sources"].as_array().into_iter().flatten();
    sources
        .flat_map(|source| source["secret"]["items"].as_array().unwrap())
        .map(|item| item["path"].as_str().unwrap().to_string())
        .map(|path| (path.clone(), secret(&path)))
        .collect()
}

/// What stands in a secret of this name: the program looks at the form of some.
fn secret(path: &str) -> String {
    match path.rsplit(['/', '.']).next() {
        Some("json") => r#"{ "type": "service_account", "client_email": "a@example.com", "private_key": "none" }"#.into(),
        Some("sas") => "sv=2024-11-04&sig=bm9uZQ%3D%3D".into(),
        _ => SECRET.into(),
    }
}

/// Every absolute path in a document.
fn paths(document: &toml::Value, found: &mut Vec<String>) {
    match document {
        toml::Value::String(text) if text.starts_with('/') => found.push(text.clone()),
        toml::Value::Array(items) => items.iter().for_each(|item| paths(item, found)),
        toml::Value::Table(table) => table.values().for_each(|value| paths(value, found)),
        _ => {}
    }
}

fn text_of<'a>(rendered: &'a Rendered, pod: &Pod) -> &'a str {
    rendered.object("ConfigMap", pod.name)["data"]["fleet.toml"].as_str().unwrap()
}

/// The settings of a pod as the program has them.
pub fn config_of(rendered: &Rendered, pod: &Pod) -> Config {
    Machine::of(rendered, pod).config()
}

#[test]
fn check_config_takes_the_settings_of_every_pod_of_every_set() {
    for (set, rendered) in helm::all() {
        for pod in rendered.pods() {
            let answer = Machine::of(&rendered, &pod).check_config(&[]);
            let told = String::from_utf8_lossy(&answer.stderr);
            assert!(answer.status.success(), "{set}: {}: {told}", pod.name);
            let said: Value = serde_json::from_slice(&answer.stdout).unwrap();
            assert_eq!(said["ok"], true, "{set}: {}", pod.name);
        }
    }
}

#[test]
fn whatever_file_the_settings_name_is_on_a_volume_of_the_pod() {
    for (set, rendered) in helm::all() {
        for pod in rendered.roles() {
            let text = text_of(&rendered, &pod);
            let mut named = Vec::new();
            paths(&toml::from_str(text).unwrap(), &mut named);
            let mounts = pod.container()["volumeMounts"].as_array().unwrap();
            for path in &named {
                let on_a_mount = |mount: &Value| Path::new(path).starts_with(mount["mountPath"].as_str().unwrap());
                assert!(mounts.iter().any(on_a_mount), "{set}: {}: {path} is on no volume", pod.name);
            }
            let machine = Machine::of(&rendered, &pod);
            for path in named.iter().filter(|path| path.starts_with("/run/secrets/")) {
                let file = machine.folder.path().join(path.trim_start_matches('/'));
                assert!(file.is_file(), "{set}: {}: {path} is no key of a Secret that is mounted", pod.name);
            }
        }
    }
}

#[test]
fn settings_that_the_program_refuses_do_not_pass() {
    // A range that only the program knows.
    let rendered = helm::with(&json!({ "config": { "retry": { "attempts": 99 } } }));
    let pods = rendered.roles();
    let answer = Machine::of(&rendered, &pods[0]).check_config(&[]);
    assert_eq!(answer.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&answer.stderr).contains("retry.attempts"));
}

#[test]
fn a_pod_mounts_the_keys_that_its_settings_name_and_no_others() {
    let keys = |rendered: &Rendered, role: &str| -> BTreeSet<String> {
        let pods = rendered.roles();
        let pod = pods.iter().find(|pod| pod.role() == role).unwrap();
        let files = files_of(rendered, volume(pod, "secrets"));
        let text = text_of(rendered, pod);
        for (file, _) in &files {
            assert!(text.contains(&format!("\"/run/secrets/narrows/{file}\"")), "{file} is mounted for nothing");
        }
        files.into_iter().map(|(file, _)| file).collect()
    };
    let rendered = helm::with(&json!({}));
    let of_all = [
        "narrows-broker/uri",
        "narrows-media-store/key",
        "narrows-media-store/key-id",
        "narrows-work-store/key",
        "narrows-work-store/key-id",
    ];
    let of_coordinators = ["narrows-tenant-acme/api", "narrows-tenant-acme/webhook-new", "narrows-tenant-acme/webhook-old"];
    let worker = BTreeSet::from(of_all.map(String::from));
    assert_eq!(keys(&rendered, "worker"), worker, "what starts children that read hostile media knows no tenant's secrets");
    let all: BTreeSet<String> = worker.into_iter().chain(of_coordinators.map(String::from)).collect();
    assert_eq!(keys(&rendered, "coordinator"), all);
}

#[test]
fn what_a_worker_is_not_told_changes_nothing_that_it_does() {
    let everything = helm::all().into_iter().find(|(set, _)| set == "everything").unwrap().1;
    let of = |role: &str| {
        let pods = everything.roles();
        config_of(&everything, pods.iter().find(|pod| pod.role() == role).unwrap())
    };
    let (worker, coordinator) = (of("worker"), of("coordinator"));
    let bare = |config: &Config| {
        let mut tenants = config.tenants.clone();
        for tenant in tenants.values_mut() {
            (tenant.access_key_id, tenant.secret_sha256, tenant.secret_file) = (None, None, None);
            (tenant.webhook_secret_files, tenant.vod_2017_key_file) = (vec![], None);
        }
        tenants
    };
    assert_eq!(worker.tenants, bare(&coordinator));
    assert_ne!(worker.tenants, coordinator.tenants);
    assert_eq!((&worker.submit, &worker.log), (&coordinator.submit, &coordinator.log));
    assert_eq!((worker.worker.window, worker.worker.lanes), (coordinator.worker.window, coordinator.worker.lanes));
    assert_eq!(worker.stores.0.keys().collect::<Vec<_>>(), coordinator.stores.0.keys().collect::<Vec<_>>());
}

#[test]
fn numbers_texts_and_names_arrive_as_they_were_written() {
    let everything = helm::all().into_iter().find(|(set, _)| set == "everything").unwrap().1;
    let pods = everything.roles();
    let config = config_of(&everything, pods.iter().find(|pod| pod.role() == "coordinator").unwrap());
    assert_eq!(config.tenants["acme"].quota.minutes_per_day, Some(20_000_000));
    assert_eq!(config.tenants["acme"].callbacks[0].url, "https://hooks.acme.example/narrows?a=\"b\"&c=<d>");
    assert_eq!(config.log.level, "narrows=debug,warn");
    assert_eq!(config.telemetry.traces.map(|traces| traces.sample_ratio), Some(0.1));
    assert_eq!((config.worker.lanes.high, config.worker.lanes.low), (20, 1));
    assert_eq!((config.coordinator.sweep_every_s, config.coordinator.max_requests), (60, 256));
    assert_eq!(config.stores.0["ingest"].root.as_deref().map(|root| root.ends_with("/srv/ingest")), Some(true));
    let named = helm::with(&json!({ "config": { "tenants": { "a.b c": { "amqp_users": ["tab\tquote\" line\nend"] } } } }));
    let pods = named.roles();
    let text = text_of(&named, &pods[0]);
    let table: toml::Table = toml::from_str(text).unwrap();
    assert_eq!(table["tenants"]["a.b c"]["amqp_users"][0].as_str(), Some("tab\tquote\" line\nend"));
}

#[test]
fn a_variable_that_kubernetes_would_set_for_a_service_stops_the_program_so_there_is_none() {
    let rendered = helm::with(&json!({}));
    let pods = rendered.roles();
    let machine = Machine::of(&rendered, &pods[0]);
    // Of the Service that a release called narrows has: one reason for enableServiceLinks: false.
    let answer = machine.check_config(&[("NARROWS_COORDINATOR_SERVICE_HOST", "10.0.0.1")]);
    assert_eq!(answer.status.code(), Some(64));
    for pod in rendered.pods() {
        assert_eq!(pod.spec["enableServiceLinks"], false, "{}", pod.name);
    }
}
