//! How a coordinator is set up: `[coordinator]`.

use crate::tenant::KeyPlace;
use serde::Deserialize;
use std::net::SocketAddr;
use std::time::Duration;

/// `[coordinator]`; every field has its default in `default.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorSettings {
    /// Where HTTP requests are answered.
    pub listen: SocketAddr,
    /// A job of which nothing was heard for so long has its missing parts published again; the wait doubles each time.
    pub stall_after_s: u64,
    /// An ended job is looked after for so long: longer than any process may be paused.
    pub settle_after_s: u64,
    /// How often open jobs are looked through.
    pub sweep_every_s: u64,
    /// Events of one partition that are taken together.
    pub batch_events: usize,
    /// How long finished parts, of which nobody is told, may wait for others to be written with.
    pub batch_linger_ms: u64,
    /// Connections at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// Requests worked on at once, event streams apart; further ones are answered 503.
    pub max_requests: usize,
    /// Event streams at once; further ones are answered 503.
    pub max_streams: usize,
    /// Longest time to read a request's head, and how long a connection may be idle.
    pub header_timeout_s: u64,
    /// Longest time to read a request's body and answer it.
    pub request_timeout_s: u64,
    /// Who runs the fleet; left out, nobody does by HTTP.
    #[serde(default)]
    pub operator: Option<OperatorSettings>,
}

/// `[coordinator.operator]`: the credentials of whoever runs the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorSettings {
    pub access_key_id: String,
    #[serde(flatten)]
    secret: SecretPlace,
}

/// Where the secret is kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
enum SecretPlace {
    #[serde(rename = "secret_file")]
    File(String),
    #[serde(rename = "secret_env")]
    Variable(String),
}

impl OperatorSettings {
    /// The field that says where the secret is, and the place.
    pub fn place(&self) -> (&'static str, KeyPlace<'_>) {
        match &self.secret {
            SecretPlace::File(path) => ("secret_file", KeyPlace::File(path)),
            SecretPlace::Variable(name) => ("secret_env", KeyPlace::Variable(name)),
        }
    }
}

impl CoordinatorSettings {
    /// Fields with a least and a greatest value, for whoever reads the configuration.
    pub fn ranges(&self) -> [(&'static str, u64, u64, u64); 10] {
        [
            ("coordinator.stall_after_s", self.stall_after_s, 1, 86_400),
            ("coordinator.settle_after_s", self.settle_after_s, 1, 86_400),
            ("coordinator.sweep_every_s", self.sweep_every_s, 1, 3_600),
            ("coordinator.batch_events", self.batch_events as u64, 1, 1_024),
            ("coordinator.batch_linger_ms", self.batch_linger_ms, 0, 10_000),
            ("coordinator.max_connections", self.max_connections as u64, 1, 65_536),
            ("coordinator.max_requests", self.max_requests as u64, 1, 65_536),
            ("coordinator.max_streams", self.max_streams as u64, 1, 65_536),
            ("coordinator.header_timeout_s", self.header_timeout_s, 1, 300),
            ("coordinator.request_timeout_s", self.request_timeout_s, 1, 600),
        ]
    }

    pub(super) fn sweep_every(&self) -> Duration {
        Duration::from_secs(self.sweep_every_s)
    }

    pub(super) fn linger(&self) -> Duration {
        Duration::from_millis(self.batch_linger_ms)
    }

    pub(super) fn header_timeout(&self) -> Duration {
        Duration::from_secs(self.header_timeout_s)
    }

    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_s)
    }
}
