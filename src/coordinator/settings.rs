//! How a coordinator is set up: `[coordinator]`.

use crate::job::is_safe_name;
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
    /// Where the secret is kept: a file, or a variable.
    #[serde(default)]
    pub secret_file: Option<String>,
    #[serde(default)]
    pub secret_env: Option<String>,
}

impl OperatorSettings {
    /// The field that says where the secret is, and the place.
    ///
    /// # Errors
    /// Names the field, from `coordinator` on.
    pub fn place(&self) -> Result<(&'static str, KeyPlace<'_>), (&'static str, String)> {
        if !is_safe_name(&self.access_key_id) {
            return Err(("operator.access_key_id", "is 1 to 64 letters, digits, '.', '_' or '-'".into()));
        }
        match (&self.secret_file, &self.secret_env) {
            (Some(path), None) => Ok(("operator.secret_file", KeyPlace::File(path))),
            (None, Some(name)) => Ok(("operator.secret_env", KeyPlace::Variable(name))),
            _ => Err(("operator.secret_file", "give either secret_file or secret_env".into())),
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

    /// What a range cannot say.
    ///
    /// # Errors
    /// The field, from `coordinator` on, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        self.operator.as_ref().map_or(Ok(()), |operator| operator.place().map(|_| ()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_has_an_id_and_one_secret() {
        let place = |text: &str| {
            let operator: OperatorSettings = toml::from_str(text).unwrap();
            operator.place().map(|(field, _)| field).map_err(|(field, _)| field)
        };
        assert_eq!(place("access_key_id = \"ops\"\nsecret_env = \"X\""), Ok("operator.secret_env"));
        assert_eq!(place("access_key_id = \"ops\"\nsecret_file = \"x\""), Ok("operator.secret_file"));
        assert_eq!(place("access_key_id = \"ops\""), Err("operator.secret_file"));
        assert_eq!(place("access_key_id = \"ops\"\nsecret_file = \"x\"\nsecret_env = \"X\""), Err("operator.secret_file"));
        assert_eq!(place("access_key_id = \"o:p\"\nsecret_env = \"X\""), Err("operator.access_key_id"));
        assert!(toml::from_str::<OperatorSettings>("access_key_id = \"ops\"\nsecret = \"x\"").is_err());
    }
}
