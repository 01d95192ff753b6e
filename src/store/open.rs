//! A store of the configuration, opened: the service's client in its layers.
//!
//! From the inside out: every try has its time limit, holds one of the store's permits while it runs, and is tried again
//! with jittered, growing waits. Writers are not: the layer would go on with one that erred, and an object is begun again
//! as a whole (see [`super::upload`]).

use super::config::{Checksum, Environment, Secret, SettingError, StoreConfig, StoreKind};
use super::guard::Guard;
use super::list::TEMPORARY;
use super::upload::Proofs;
use super::web::Web;
use super::{Store, StoreError, scrub};
use crate::observe::Observer;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use opendal::layers::{ConcurrentLimitLayer, RetryLayer, TimeoutLayer};
use opendal::{HttpTransporter, Operator, services};
use opendal_http_transport_reqwest::ReqwestTransport;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Wait before the first retry of a request, and the longest.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// A store of the configuration while it is opened.
pub(super) struct Opening<'a> {
    pub name: &'a str,
    pub config: &'a StoreConfig,
    pub environment: Environment<'a>,
    pub observer: &'a Arc<dyn Observer>,
}

/// Gives the process its TLS. Idempotent: whoever came first did the same.
pub(super) fn prepare() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Is it one of the documents that Google's clients take? The client itself would find out at the first request.
///
/// # Errors
/// What it lacks, and nothing of what it holds.
fn google_credential(text: &str) -> Result<(), String> {
    const KINDS: [(&str, &[&str]); 4] = [
        ("service_account", &["client_email", "private_key"]),
        ("external_account", &["audience", "subject_token_type", "token_url", "credential_source"]),
        ("impersonated_service_account", &["service_account_impersonation_url", "source_credentials"]),
        ("authorized_user", &["client_id", "client_secret", "refresh_token"]),
    ];
    let document: serde_json::Value = serde_json::from_str(text).map_err(|e| format!("is no JSON: {e}"))?;
    let kind = KINDS.iter().find(|(kind, _)| document["type"] == *kind);
    let Some((kind, fields)) = kind else {
        let known: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
        return Err(format!("is no credential of Google: its type is none of {}", known.join(", ")));
    };
    match fields.iter().find(|field| document[**field].is_null() || document[**field] == "") {
        Some(field) => Err(format!("is a credential of the type {kind} without {field}")),
        None => Ok(()),
    }
}

impl Opening<'_> {
    fn at(&self, field: &str) -> String {
        format!("stores.{}.{field}", self.name)
    }

    fn secret(&self, field: &str, secret: Option<&Secret>) -> Result<Option<String>, SettingError> {
        secret.map(|secret| secret.read(&self.at(field), self.environment)).transpose()
    }

    fn text(&self, value: Option<&String>) -> String {
        value.cloned().unwrap_or_default()
    }

    fn root(&self) -> String {
        self.text(self.config.root.as_ref()).trim_matches('/').to_string()
    }

    /// A bucket.
    pub fn bucket(&self) -> Result<Store, SettingError> {
        let (operator, etag_is_md5) = match self.config.kind {
            StoreKind::S3 => (self.s3()?, self.config.etag_is_md5.unwrap_or(true)),
            StoreKind::Gcs => (self.gcs()?, true),
            _ => (self.azblob()?, true),
        };
        Ok(self.layered(operator, Proofs { chunked: true, etag_is_md5 }))
    }

    fn built(&self, operator: opendal::Result<Operator>) -> Result<Operator, SettingError> {
        let wrong = |reason: String| SettingError::new(format!("stores.{}", self.name), reason);
        let operator = operator.map_err(|e| wrong(scrub::reason(&e)))?;
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .user_agent(concat!("narrows/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| wrong(format!("TLS: {}", scrub::chain(&e))))?;
        let transport = HttpTransporter::new(ReqwestTransport::new(client));
        let context = operator.base_context().with_http_transport(transport);
        Ok(operator.with_context(context))
    }

    fn s3(&self) -> Result<Operator, SettingError> {
        let config = self.config;
        let mut s3 = services::S3::default()
            .bucket(&self.text(config.bucket.as_ref()))
            .root(&self.root())
            .endpoint(&config.address().unwrap_or_default())
            .region(&self.text(config.region.as_ref()));
        if config.virtual_host_style {
            s3 = s3.enable_virtual_host_style();
        }
        if config.checksum != Some(Checksum::None) {
            s3 = s3.checksum_algorithm("crc32c");
        }
        if !config.ambient_credentials {
            // Nothing but what is configured: not by accident another account's key from the environment.
            s3 = s3.disable_config_load().disable_ec2_metadata();
        }
        if let Some(id) = self.secret("access_key_id", config.access_key_id.as_ref())? {
            s3 = s3.access_key_id(&id);
        }
        if let Some(secret) = self.secret("secret_access_key", config.secret_access_key.as_ref())? {
            s3 = s3.secret_access_key(&secret);
        }
        if let Some(token) = self.secret("session_token", config.session_token.as_ref())? {
            s3 = s3.session_token(&token);
        }
        if config.anonymous {
            s3 = s3.skip_signature();
        }
        self.built(Operator::new(s3))
    }

    fn gcs(&self) -> Result<Operator, SettingError> {
        let config = self.config;
        let mut gcs = services::Gcs::default()
            .bucket(&self.text(config.bucket.as_ref()))
            .root(&self.root())
            .endpoint(&config.address().unwrap_or_default());
        if !config.ambient_credentials {
            gcs = gcs.disable_config_load().disable_vm_metadata();
        }
        if let Some(key) = self.secret("credential", config.credential.as_ref())? {
            google_credential(&key).map_err(|reason| SettingError::new(self.at("credential"), reason))?;
            gcs = gcs.credential(&BASE64_STANDARD.encode(key));
        }
        if config.anonymous {
            gcs = gcs.skip_signature();
        }
        self.built(Operator::new(gcs))
    }

    fn azblob(&self) -> Result<Operator, SettingError> {
        let config = self.config;
        let mut azblob = services::Azblob::default()
            .container(&self.text(config.bucket.as_ref()))
            .root(&self.root())
            .endpoint(&config.address().unwrap_or_default())
            .account_name(&self.text(config.account.as_ref()));
        if let Some(key) = self.secret("account_key", config.account_key.as_ref())? {
            if BASE64_STANDARD.decode(&key).is_err() {
                let reason = "is no key of a storage account, which is base64; copy all of key1 or key2";
                return Err(SettingError::new(self.at("account_key"), reason));
            }
            azblob = azblob.account_key(&key);
        }
        if let Some(token) = self.secret("sas_token", config.sas_token.as_ref())? {
            // Azure's pages show it as the end of a URL.
            let token = token.trim_start_matches('?');
            if !token.split('&').any(|field| field.starts_with("sig=")) || token.contains(char::is_whitespace) {
                let reason = "is no shared access signature: it looks like sv=...&sp=racwdl&sig=...";
                return Err(SettingError::new(self.at("sas_token"), reason));
            }
            azblob = azblob.sas_token(token);
        }
        if config.anonymous {
            azblob = azblob.skip_signature();
        }
        self.built(Operator::new(azblob))
    }

    /// A folder that all workers see.
    pub fn folder(&self) -> Result<Store, SettingError> {
        let root = PathBuf::from(self.text(self.config.root.as_ref()));
        let temporary = self.config.temporary.clone().unwrap_or_else(|| root.join(TEMPORARY));
        let wrong = |path: &Path, e: &StoreError| {
            let field = if path == root { "root" } else { "temporary" };
            SettingError::new(self.at(field), e.to_string())
        };
        // Not made: a file system that is not mounted must not become an empty folder.
        if !root.is_dir() {
            return Err(SettingError::new(self.at("root"), format!("{} is no folder; is it mounted?", root.display())));
        }
        let store = Store::folder(&root, &temporary).map_err(|e| wrong(&temporary, &e))?;
        Ok(self.layered(store.operator, Proofs::default()))
    }

    /// A folder that is only read: nothing is made in it.
    pub fn read_only_folder(&self) -> Result<Store, SettingError> {
        let root = self.text(self.config.root.as_ref());
        let operator = self.built(Operator::new(services::Fs::default().root(&root)))?;
        Ok(self.layered(operator, Proofs::default()))
    }

    pub fn web(&self) -> Result<Web, SettingError> {
        let config = self.config;
        let networks = config.allow_networks.iter().filter_map(|net| net.parse().ok()).collect();
        let guard = Guard { any_host: config.public, hosts: config.hosts.clone(), networks };
        let (timeout, io_timeout) = (Duration::from_secs(config.timeout_s), Duration::from_secs(config.io_timeout_s));
        Web::new(guard, config.concurrency, timeout, io_timeout)
            .map_err(|e| SettingError::new(format!("stores.{}", self.name), format!("TLS: {}", scrub::chain(&e))))
    }

    fn layered(&self, operator: Operator, proofs: Proofs) -> Store {
        let config = self.config;
        let timeout = TimeoutLayer::new()
            .with_timeout(Duration::from_secs(config.timeout_s))
            .with_io_timeout(Duration::from_secs(config.io_timeout_s));
        let writing = operator.layer(timeout).layer(ConcurrentLimitLayer::new(config.concurrency));
        let retry = RetryLayer::new()
            .with_jitter()
            .with_factor(2.0)
            .with_min_delay(RETRY_FIRST)
            .with_max_delay(RETRY_LONGEST)
            .with_max_times(config.retries as usize)
            .with_notify(|event: opendal::layers::RetryEvent<'_>| {
                let reason = scrub::reason(event.err);
                tracing::debug!(operation = event.op.into_static(), attempt = event.attempt, reason, "request sent again");
            });
        let store = Store::of(self.name, writing.clone().layer(retry), writing, proofs);
        Store { observer: self.observer.clone(), ..store }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What opening this bucket says; nothing is asked of it.
    fn opened(settings: &str, secret: &str) -> Result<(), String> {
        prepare();
        let config: StoreConfig = toml::from_str(&format!("bucket = \"b\"\n{settings}")).unwrap();
        let environment = |name: &str| (name == "SECRET").then(|| secret.to_string());
        let observer = crate::observe::nobody();
        let opening = Opening { name: "x", config: &config, environment: &environment, observer: &observer };
        opening.bucket().map(|_| ()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_secret_of_the_wrong_kind_is_named_by_its_setting_and_not_shown() {
        let google = "type = \"gcs\"\ncredential = { env = \"SECRET\" }";
        let key = "type = \"azblob\"\naccount = \"a\"\naccount_key = { env = \"SECRET\" }";
        let sas = "type = \"azblob\"\naccount = \"a\"\nsas_token = { env = \"SECRET\" }";
        for (settings, secret, path) in [
            (google, "hush", "stores.x.credential: is no JSON"),
            (google, "{\"type\": \"hush\"}", "stores.x.credential: is no credential of Google: its type is none of service"),
            (
                google,
                "{\"type\": \"service_account\", \"private_key\": \"hush\"}",
                "stores.x.credential: is a credential of the type service_account without client_email",
            ),
            (key, "hush!", "stores.x.account_key: is no key of a storage account"),
            (sas, "hush", "stores.x.sas_token: is no shared access signature"),
            (sas, "https://a.blob.core.windows.net/b?sv=1&sig=hush hush", "stores.x.sas_token: is no shared access signature"),
        ] {
            let said = opened(settings, secret).unwrap_err();
            assert!(said.starts_with(path), "{said}");
            assert!(!said.contains("hush"), "{said}");
        }
        let account = r#"{"type": "service_account", "client_email": "a@b", "private_key": "-----BEGIN PRIVATE KEY-----"}"#;
        for (settings, secret) in [(google, account), (key, "aHVzaA=="), (sas, "?sv=1&sig=hush"), (sas, "sv=1&sig=hush")] {
            assert_eq!(opened(settings, secret), Ok(()), "{settings}");
        }
    }
}
