//! How to reach a RabbitMQ, and the limits that its queues are declared with.

use crate::broker::BrokerError;
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest file of credentials or certificates read, bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Largest frame asked for, bytes. The library keeps 32 of them for either direction of a connection.
const FRAME_BYTES: u32 = 32 * 1024;
/// Retry tiers at most: each is a queue.
const MAX_TIERS: usize = 32;
/// Longest retry tier, seconds: two days, twice the longest wait of the callback schedule.
const LONGEST_TIER_S: u32 = 2 * 24 * 3600;

/// Which broker a process works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// In this process alone, gone with it.
    Memory,
    RabbitMq,
}

/// Section `[broker]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RabbitSettings {
    pub kind: Kind,
    /// `amqp://user:password@host:port/vhost`, `amqps://` for TLS; a virtual host of `/` is written `%2f`.
    pub uri: Option<Uri>,
    /// A file that holds the URI, so that the password is in no configuration; it wins over `uri`.
    pub uri_file: Option<PathBuf>,
    /// Certificates (PEM) to trust besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate and its key (PEM), for servers that ask for one; both or none.
    pub client_cert_file: Option<PathBuf>,
    pub client_key_file: Option<PathBuf>,
    /// A peer that is silent for two of these is dead.
    pub heartbeat_s: u16,
    /// Times a message may come back unsettled before it is a dead letter.
    pub delivery_limit: u32,
    /// Messages that one queue may hold before publishing to it is refused.
    pub max_length: u32,
    /// How long publishing waits for a broker that is away or takes nothing.
    pub publish_timeout_s: u16,
    /// Waits that there are queues for; a message is put off by the longest one that fits.
    pub retry_tiers_s: Vec<u32>,
}

/// An address with a password in it, which it does not show.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Uri(String);

impl From<&str> for Uri {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match parse(&self.0) {
            Ok(uri) => f.write_str(&shown(&uri)),
            Err(_) => f.write_str("(not an AMQP URI)"),
        }
    }
}

/// Everything that is needed to connect; shown without its secrets.
pub(super) struct Endpoint {
    pub uri: AMQPUri,
    pub tls: OwnedTLSConfig,
    /// For logs and errors.
    pub shown: String,
    /// Who we are to the broker, where that is known here.
    pub user: Option<String>,
}

impl RabbitSettings {
    /// Are the numbers in their ranges, and is what belongs together there?
    ///
    /// # Errors
    /// Names the field, relative to the section, and says what is allowed.
    pub fn check(&self) -> Result<(), (String, String)> {
        let wrong = |field: &str, reason: String| Err((field.to_string(), reason));
        for (field, value, least, most) in [
            ("heartbeat_s", u32::from(self.heartbeat_s), 1, 600),
            // RabbitMQ before 4.0 drops a message at its first requeue when there is no limit.
            ("delivery_limit", self.delivery_limit, 1, 1_000_000),
            ("max_length", self.max_length, 1, 1_000_000_000),
            ("publish_timeout_s", u32::from(self.publish_timeout_s), 1, 600),
        ] {
            if !(least..=most).contains(&value) {
                return wrong(field, format!("is {value}; allowed are {least} to {most}"));
            }
        }
        if self.retry_tiers_s.is_empty() || self.retry_tiers_s.len() > MAX_TIERS {
            return wrong("retry_tiers_s", format!("has {} tiers; allowed are 1 to {MAX_TIERS}", self.retry_tiers_s.len()));
        }
        if let Some(tier) = self.retry_tiers_s.iter().find(|tier| !(1..=LONGEST_TIER_S).contains(*tier)) {
            return wrong("retry_tiers_s", format!("has {tier}; allowed are 1 to {LONGEST_TIER_S}"));
        }
        if self.client_cert_file.is_some() != self.client_key_file.is_some() {
            return wrong("client_key_file", "a certificate and its key go together: set both or none".into());
        }
        if self.kind == Kind::RabbitMq && self.uri.is_none() && self.uri_file.is_none() {
            return wrong("uri", "kind = \"rabbitmq\" needs uri or uri_file".into());
        }
        match (&self.uri_file, &self.uri) {
            (None, Some(uri)) => parse(&uri.0).map(|_| ()).or_else(|reason| wrong("uri", reason)),
            _ => Ok(()),
        }
    }

    pub(super) fn publish_timeout(&self) -> Duration {
        Duration::from_secs(self.publish_timeout_s.into())
    }

    /// Reads the files that these settings name.
    ///
    /// # Errors
    /// Names the field or the file, and never what is in it.
    pub(super) fn endpoint(&self) -> Result<Endpoint, BrokerError> {
        self.check().map_err(|(field, reason)| BrokerError::Denied(format!("broker.{field}: {reason}")))?;
        let (text, from) = match (&self.uri_file, &self.uri) {
            (Some(path), _) => (read(path, "uri_file")?, path.display().to_string()),
            (None, Some(uri)) => (uri.0.clone(), "broker.uri".to_string()),
            (None, None) => return Err(BrokerError::Denied("broker.uri: needs uri or uri_file".into())),
        };
        let mut uri = parse(text.trim()).map_err(|reason| BrokerError::Denied(format!("{from}: {reason}")))?;
        uri.query.heartbeat = Some(self.heartbeat_s);
        uri.query.frame_max = Some(FRAME_BYTES);
        let cert_chain = self.ca_file.as_ref().map(|path| read(path, "ca_file")).transpose()?;
        let identity = match (&self.client_cert_file, &self.client_key_file) {
            (Some(certificate), Some(key)) => Some(OwnedIdentity::PKCS8 {
                pem: read(certificate, "client_cert_file")?.into_bytes(),
                key: read(key, "client_key_file")?.into_bytes(),
            }),
            _ => None,
        };
        let shown = shown(&uri);
        // With a certificate as the credentials, only the server knows the name.
        let is_named = matches!(uri.query.auth_mechanism, None | Some(SASLMechanism::Plain | SASLMechanism::AMQPlain));
        let user = is_named.then(|| uri.authority.userinfo.username.clone());
        Ok(Endpoint { uri, tls: OwnedTLSConfig { identity, cert_chain }, shown, user })
    }
}

fn read(path: &Path, field: &str) -> Result<String, BrokerError> {
    let wrong = |reason: String| BrokerError::Denied(format!("broker.{field}: {}: {reason}", path.display()));
    let bytes = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(wrong(format!("{bytes} bytes; at most {MAX_FILE_BYTES} are allowed")));
    }
    std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))
}

/// The reason of a failure repeats nothing of the text: it holds a password.
fn parse(text: &str) -> Result<AMQPUri, String> {
    const EXPECTED: &str = "not an AMQP URI; expected amqp://user:password@host:port/vhost";
    let uri: AMQPUri = text.parse().map_err(|_| EXPECTED.to_string())?;
    match uri.authority.host.as_str() {
        "" => Err(EXPECTED.into()),
        _ => Ok(uri),
    }
}

fn shown(uri: &AMQPUri) -> String {
    let scheme = if is_tls(uri) { "amqps" } else { "amqp" };
    format!("{scheme}://{}:{}/{}", uri.authority.host, uri.authority.port, uri.vhost)
}

pub(super) fn is_tls(uri: &AMQPUri) -> bool {
    uri.scheme == AMQPScheme::AMQPS
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "kind = \"rabbitmq\"\nuri = \"amqp://worker:hunter2@mq.example:5673/films\"\nheartbeat_s = 10\n\
                        delivery_limit = 50\nmax_length = 1000\npublish_timeout_s = 30\nretry_tiers_s = [1, 5]\n";

    fn settings(text: &str) -> RabbitSettings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_password_is_shown_nowhere() {
        let settings = settings(TEXT);
        let endpoint = settings.endpoint().ok().unwrap();
        assert_eq!(endpoint.uri.authority.userinfo.password, "hunter2");
        assert_eq!(endpoint.user.as_deref(), Some("worker"));
        assert_eq!(endpoint.shown, "amqp://mq.example:5673/films");
        let debug = format!("{settings:?}");
        assert!(!debug.contains("hunter2") && debug.contains("mq.example"), "{debug}");
        let bad = self::settings(&TEXT.replace("amqp://", "amqps:hunter2//"));
        let (field, reason) = bad.check().unwrap_err();
        assert_eq!(field, "uri");
        assert!(!format!("{bad:?}{reason}").contains("hunter2"), "{bad:?} {reason}");
    }

    #[test]
    fn a_uri_from_a_file_wins_and_a_file_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uri");
        std::fs::write(&path, "amqps://a:b@other.example/%2f\n").unwrap();
        let mut settings = settings(TEXT);
        settings.uri_file = Some(path.clone());
        assert_eq!(settings.endpoint().ok().unwrap().shown, "amqps://other.example:5671//");
        std::fs::remove_file(&path).unwrap();
        let error = settings.endpoint().err().unwrap().to_string();
        assert!(error.contains("broker.uri_file") && error.contains("uri"), "{error}");
    }

    #[test]
    fn what_is_out_of_range_or_half_there_is_named() {
        let field = |change: fn(&mut RabbitSettings)| {
            let mut settings = settings(TEXT);
            change(&mut settings);
            settings.check().unwrap_err().0
        };
        assert_eq!(field(|s| s.delivery_limit = 0), "delivery_limit");
        assert_eq!(field(|s| s.heartbeat_s = 0), "heartbeat_s");
        assert_eq!(field(|s| s.retry_tiers_s = vec![]), "retry_tiers_s");
        assert_eq!(field(|s| s.retry_tiers_s = vec![0]), "retry_tiers_s");
        assert_eq!(field(|s| s.client_cert_file = Some("cert.pem".into())), "client_key_file");
        assert_eq!(field(|s| s.uri = None), "uri");
        assert!(toml::from_str::<RabbitSettings>(&format!("{TEXT}password = \"x\"\n")).is_err());
    }
}
