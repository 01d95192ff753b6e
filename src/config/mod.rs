//! Settings in layers: the defaults compiled in, a file, the environment; the later one wins, field by field.
//!
//! A field that is none is an error that names its path and the layer it came from.

use crate::sandbox::SandboxSettings;
use crate::sandbox::protocol::Limits;
use serde::Deserialize;
use std::path::Path;

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
    pub worker: Worker,
    pub retry: Retry,
    pub sandbox: SandboxSettings,
    pub limits: Limits,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

/// How much a worker does at once.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// 0: one for each core.
    pub slots: usize,
    pub threads_per_slot: u32,
    pub window: u32,
    pub part_deadline_s: u64,
}

/// How often and when a failed part is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    pub attempts: u32,
    pub outage_attempts: u32,
    pub first_delay_ms: u64,
    pub longest_delay_ms: u64,
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
    for (path, value, least, most) in [
        ("worker.slots", config.worker.slots as u64, 0, 1024),
        ("worker.threads_per_slot", u64::from(config.worker.threads_per_slot), 1, 64),
        ("worker.window", u64::from(config.worker.window), 1, 10_000),
        ("retry.attempts", u64::from(config.retry.attempts), 1, 15),
        ("retry.longest_delay_ms", config.retry.longest_delay_ms, 0, 600_000),
        ("sandbox.deadline_s", config.sandbox.deadline_s, 1, 1140),
        ("sandbox.stall_s", config.sandbox.stall_s, 1, 1140),
        ("sandbox.stderr_tail_bytes", config.sandbox.stderr_tail_bytes as u64, 0, 1024 * 1024),
        ("sandbox.kill_grace_ms", config.sandbox.kill_grace_ms, 0, 1000),
    ] {
        if !(least..=most).contains(&value) {
            return Err(wrong(path, format!("is {value}; allowed are {least} to {most}")));
        }
    }
    crate::telemetry::check(&config.log).map_err(|reason| wrong("log.level", reason))?;
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
}
