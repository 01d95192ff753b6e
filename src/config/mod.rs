//! Settings in layers: the defaults compiled in, a file, the environment; the later one wins, field by field.
//!
//! A field that is none is an error that names its path and the layer it came from.

mod check;
mod sections;

pub use crate::telemetry::traces::TelemetrySettings;
pub use crate::telemetry::{Log, LogFormat};
pub use sections::{Retry, Scratch, Submit, Worker};

use crate::broker::rabbit::RabbitSettings;
use crate::callback::CallbackSettings;
use crate::coordinator::CoordinatorSettings;
use crate::part::class::DeviceRules;
use crate::sandbox::SandboxSettings;
use crate::sandbox::protocol::Limits;
use crate::store::{StoresConfig, WorkConfig};
use crate::tenant::TenantSettings;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A fleet's settings, as a sample.
pub const SAMPLE: &str = include_str!("fleet.toml");
/// All settings with their defaults, and what they mean.
pub const DEFAULT: &str = include_str!("default.toml");
/// What the names of environment variables begin with.
pub const ENVIRONMENT_PREFIX: &str = "NARROWS_";
/// Largest configuration file read, bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// All settings.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub log: Log,
    #[serde(default)]
    pub telemetry: TelemetrySettings,
    pub worker: Worker,
    pub devices: DeviceRules,
    pub retry: Retry,
    pub scratch: Scratch,
    pub sandbox: SandboxSettings,
    pub limits: Limits,
    pub broker: RabbitSettings,
    pub submit: Submit,
    #[serde(default)]
    pub stores: StoresConfig,
    /// A fleet needs it; one process has a folder.
    #[serde(default)]
    pub work: Option<WorkConfig>,
    #[serde(default)]
    pub tenants: BTreeMap<String, TenantSettings>,
    pub callbacks: CallbackSettings,
    pub coordinator: CoordinatorSettings,
}

/// Why the settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{layer}: {}{reason}", if path == "." { String::new() } else { format!("{path}: ") })]
pub struct ConfigError {
    /// The file, or `environment`.
    pub layer: String,
    /// Dotted path of the field, `.` for the layer as a whole.
    pub path: String,
    pub reason: String,
}

impl Config {
    /// The settings of this process: defaults, `file`, then the variables that begin with `NARROWS_`.
    ///
    /// # Errors
    /// Names the layer and the field.
    pub fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut table: toml::Table = toml::from_str(DEFAULT).expect("the defaults are tested");
        if let Some(path) = file {
            let layer = path.display().to_string();
            let whole = |reason: String| ConfigError { layer: layer.clone(), path: ".".into(), reason };
            let size = std::fs::metadata(path).map_err(|e| whole(e.to_string()))?.len();
            if size > MAX_FILE_BYTES {
                return Err(whole(format!("{size} bytes; at most {MAX_FILE_BYTES} are allowed")));
            }
            let text = std::fs::read_to_string(path).map_err(|e| whole(e.to_string()))?;
            overlay(&mut table, toml::from_str(&text).map_err(|e| whole(e.to_string().trim().to_string()))?);
            read(&table, &layer)?;
        }
        for (name, value) in environment {
            let Some(path) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            overlay(&mut table, nested(&path.to_lowercase(), value));
            read(&table, &format!("environment variable {name}"))?;
        }
        read(&table, "defaults")
    }
}

fn read(table: &toml::Table, layer: &str) -> Result<Config, ConfigError> {
    let wrong = |path: &str, reason: String| ConfigError { layer: layer.into(), path: path.into(), reason };
    let config: Config = serde_path_to_error::deserialize(table.clone())
        .map_err(|e| wrong(&e.path().to_string(), e.inner().to_string().trim().to_string()))?;
    check::check(&config).map_err(|(path, reason)| wrong(&path, reason))?;
    Ok(config)
}

/// Puts the fields of `above` over those of `below`.
fn overlay(below: &mut toml::Table, above: toml::Table) {
    for (name, value) in above {
        match (below.get_mut(&name), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => overlay(below, above),
            (_, value) => {
                below.insert(name, value);
            }
        }
    }
}

/// `worker__slots` and `4` as `{worker: {slots: 4}}`. What is no TOML value is text.
fn nested(path: &str, value: String) -> toml::Table {
    let parsed = toml::from_str::<toml::Table>(&format!("v = {value}")).ok().and_then(|mut t| t.remove("v"));
    let value = parsed.unwrap_or(toml::Value::String(value));
    let mut names = path.split("__").collect::<Vec<_>>();
    let last = names.pop().unwrap_or_default();
    let innermost = toml::Table::from_iter([(last.to_string(), value)]);
    names.into_iter().rev().fold(innermost, |inner, name| toml::Table::from_iter([(name.to_string(), toml::Value::Table(inner))]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()
    }

    fn load(file: Option<&str>, pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet.toml");
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
        }
        let error = |mut e: ConfigError| {
            e.layer = e.layer.replace(path.to_str().unwrap(), "fleet.toml");
            e
        };
        Config::load(file.map(|_| path.as_path()), environment(pairs).into_iter()).map_err(error)
    }

    #[test]
    fn the_defaults_are_whole_and_a_later_layer_wins_field_by_field() {
        let default = load(None, &[]).unwrap();
        assert_eq!((default.worker.slots, default.retry.attempts), (0, 5));
        assert_eq!(default.telemetry.traces, None);
        let file = "[worker]\nslots = 2\nwindow = 8\n";
        let config = load(Some(file), &[("NARROWS_WORKER__SLOTS", "3"), ("HOME", "/root")]).unwrap();
        assert_eq!((config.worker.slots, config.worker.window), (3, 8));
        assert_eq!(config.limits, default.limits);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_layer() {
        let of = |file: Option<&str>, pairs: &[(&str, &str)]| {
            let e = load(file, pairs).unwrap_err();
            (e.layer, e.path)
        };
        let file = |path: &str| ("fleet.toml".to_string(), path.to_string());
        assert_eq!(of(Some("[worker]\nslot = 2"), &[]), file("worker.slot"));
        assert_eq!(of(Some("[worker]\nslots = \"two\""), &[]), file("worker.slots"));
        assert_eq!(of(Some("[retry]\nattempts = 0"), &[]), file("retry.attempts"));
        assert_eq!(of(Some("[log]\nlevel = \"narrows=loud\""), &[]), file("log.level"));
        assert_eq!(of(Some("slots = ="), &[]), file("."));
        let variable = |name: &str, path: &str| (format!("environment variable {name}"), path.to_string());
        assert_eq!(of(None, &[("NARROWS_SLOTS", "2")]), variable("NARROWS_SLOTS", "slots"));
        assert_eq!(of(None, &[("NARROWS_LOG__LEVEL", "7")]), variable("NARROWS_LOG__LEVEL", "log.level"));
        let missing = Config::load(Some(Path::new("none.toml")), std::iter::empty()).unwrap_err();
        assert_eq!((missing.layer.as_str(), missing.path.as_str()), ("none.toml", "."));
    }

    #[test]
    fn the_sample_of_a_fleet_is_one() {
        let config = load(Some(SAMPLE), &[]).unwrap();
        assert_eq!(config.tenants.keys().collect::<Vec<_>>(), ["acme", "beta"]);
        assert_eq!(config.work.unwrap().store, "work");
        assert_eq!(config.stores.0["acme-media"].tenants, Some(vec!["acme".into()]));
        assert_eq!((config.worker.drain_s, config.worker.lanes.high), (60, 6));
        assert_eq!(config.tenants["beta"].callbacks[0].format, crate::job::CallbackFormat::Vod2017);
    }

    /// The path of what is wrong in that file.
    fn path(text: &str) -> String {
        let e = load(Some(text), &[]).unwrap_err();
        assert_eq!(e.layer, "fleet.toml", "{e}");
        e.path
    }

    #[test]
    fn what_does_not_fit_a_device_is_named() {
        let device = |fields: &str| path(&format!("[devices]\nclasses = [\"nvenc\"]\n[[worker.devices]]\n{fields}"));
        assert_eq!(device("class = \"nvenc\"\npath = \"0\"\nsessions = 0"), "worker.devices[0].sessions");
        assert_eq!(device("class = \"vaapi\"\npath = \"/dev/sda\"\nsessions = 1"), "worker.devices[0].path");
        assert_eq!(device("class = \"vaapi\"\npath = \"/dev/dri/renderD128\"\nsessions = 1"), "worker.devices[0].class");
        assert_eq!(path("[devices]\nclasses = [\"cpu\"]"), "devices.classes");
        assert_eq!(path("[devices]\nwait_s = 0"), "devices.wait_s");
    }

    #[test]
    fn what_does_not_fit_together_is_named_too() {
        let sample = |from: &str, to: &str| {
            assert!(SAMPLE.contains(from), "{from}");
            path(&SAMPLE.replace(from, to))
        };
        assert_eq!(path("[worker]\npart_deadline_s = 1080"), "worker.part_deadline_s");
        assert_eq!(path("[worker]\ndrain_s = 0"), "worker.drain_s");
        assert_eq!(path("[worker.lanes]\nlow = 0"), "worker.lanes.low");
        assert_eq!(path("[worker]\nlisten = \"localhost\""), "worker.listen");
        assert_eq!(path("[worker]\nsoftware = false"), "worker.software");
        assert_eq!(path("[worker]\nname = \"a b\""), "worker.name");
        assert_eq!(path("[scratch]\nworker_bytes = 5"), "scratch.worker_bytes");
        assert_eq!(path("[broker]\nkind = \"rabbitmq\""), "broker.uri");
        assert_eq!(path("[work]\nstore = \"none\""), "work.store");
        assert_eq!(path("[callbacks]\ntimeout_s = 0"), "callbacks.timeout_s");
        assert_eq!(path("[coordinator]\nsweep_every_s = 0"), "coordinator.sweep_every_s");
        assert_eq!(path("[telemetry.traces]\nsample_ratio = 0.5"), "telemetry.traces.endpoint");
        assert_eq!(path("[telemetry.traces]\nendpoint = \"ftp://c\""), "telemetry.traces.endpoint");
        assert_eq!(path("[submit]\nrequire_user_id = true"), "submit.require_user_id");
        assert_eq!(sample("stores = [\"acme-media\", \"web\"]", "stores = [\"media\"]"), "tenants.acme.stores");
        assert_eq!(sample("tenants = [\"beta\"]", "tenants = [\"gamma\"]"), "stores.beta-vod.tenants");
        assert_eq!(sample("amqp_users = [\"beta-submit\"]", "amqp_users = [\"narrows\"]"), "tenants.beta.amqp_users");
        assert_eq!(sample("bucket = \"narrows-work\"", "bucket = \"a/b\""), "stores.work.bucket");
        assert_eq!(sample("https://hooks.acme.example/narrows", "hooks.acme.example"), "tenants.acme.callbacks[0].url");
        assert_eq!(sample("secret_file = ", "secret = "), "tenants.beta.secret");
    }

    #[test]
    fn no_setting_shows_a_secret() {
        let text = SAMPLE.replace("uri_file = \"/run/secrets/narrows-amqp-uri\"", "uri = \"amqp://narrows:hush@localhost\"");
        let shown = format!("{:?}", load(Some(&text), &[]).unwrap());
        assert!(!shown.contains("hush") && !shown.contains("9f86d081"), "{shown}");
        let wrong = load(Some(&text.replace("amqp://", "http://")), &[]).unwrap_err();
        assert!(!wrong.to_string().contains("hush"), "{wrong}");
    }
}
