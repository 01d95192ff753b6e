//! What the process says about itself: metrics ([`metrics`]), traces ([`traces`]), and logs, to stderr, as text or as JSON, one
//! line for what happened, its particulars as fields. What is a label there is a field of the same name here and an attribute
//! of a span (`kind`, `outcome`, `task`); jobs and tenants are fields and attributes only.

mod families;
pub mod metrics;
pub mod otlp;
pub mod traces;

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

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

/// Can the level be understood?
///
/// # Errors
/// Says why not.
pub fn check(log: &Log) -> Result<(), String> {
    EnvFilter::builder().parse(&log.level).map(|_| ()).map_err(|e| e.to_string())
}

/// Starts logging. The first call in a process counts.
pub fn start(log: &Log) {
    let filter = EnvFilter::builder().parse(&log.level).unwrap_or_else(|_| EnvFilter::new("warn"));
    // Whatever level is asked for: it logs messages with their bodies, and at the finest level the password. What is
    // worth knowing of it, the broker says.
    let filter = filter.add_directive("lapin=off".parse().expect("a directive"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
}
