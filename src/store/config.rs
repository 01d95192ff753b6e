//! Stores in configuration: `[stores.NAME]`, and which of them holds the work.
//!
//! Reading is checking: what passes [`StoresConfig::check`] can be opened, but for the secrets and the servers
//! themselves. Secrets are named here (a variable, a file), never held.

use ipnet::IpNet;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest name of a store, bytes.
const MAX_NAME_BYTES: usize = 64;
/// Largest secret read from a file, bytes: a service account's key has a twentieth of it.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// All named stores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct StoresConfig(pub BTreeMap<String, StoreConfig>);

/// Which store holds jobs, plans, markers and events.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkConfig {
    /// Name of one of `[stores]`.
    pub store: String,
}

/// One bucket, folder, or the web. One table for all types, so that every mistake has a field of its own; which fields
/// a type takes is in [`StoreConfig::check`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    #[serde(rename = "type")]
    pub kind: StoreKind,
    /// What it may be used for. Left out: the work, for the store that `[work]` names; sources, for the web; else
    /// sources and outputs.
    pub roles: Option<Vec<Role>>,
    /// Only these tenants' jobs may name it; left out: everybody's.
    pub tenants: Option<Vec<String>>,
    /// Bucket; of Azure, container.
    pub bucket: Option<String>,
    /// Folder, or prefix in the bucket. Nothing outside it is reached.
    pub root: Option<String>,
    /// `https://…`; left out: the service's own. Of Azure, with the account in it as the server wants it:
    /// `https://ACCOUNT.blob.core.chinacloudapi.cn`, or `http://127.0.0.1:10000/ACCOUNT` for an emulator.
    pub endpoint: Option<String>,
    /// Where everybody reads what lies in it (what lies under its root): `https://cdn.example.com/media/`. Events then name
    /// outputs by it; left out, by the store's own URI.
    pub public_url: Option<String>,
    pub region: Option<String>,
    /// The bucket is part of the host's name.
    #[serde(default)]
    pub virtual_host_style: bool,
    pub access_key_id: Option<Secret>,
    pub secret_access_key: Option<Secret>,
    pub session_token: Option<Secret>,
    /// Take the credentials of the machine: profile, instance, workload identity.
    #[serde(default)]
    pub ambient_credentials: bool,
    /// Ask without credentials: a public bucket, or a server that wants none.
    #[serde(default)]
    pub anonymous: bool,
    /// Google's JSON of a service account's key, or of a workload identity.
    pub credential: Option<Secret>,
    /// Name of an Azure storage account, without hierarchical namespace: with it, folders would be listed as objects.
    pub account: Option<String>,
    /// One of the account's two keys, as Azure shows it.
    pub account_key: Option<Secret>,
    /// A shared access signature for the container, `sv=…&sig=…`, that may read, create, write, delete and list (`racwdl`);
    /// for sources alone, read and list (`rl`).
    pub sas_token: Option<Secret>,
    /// What the server checks uploads by.
    pub checksum: Option<Checksum>,
    /// The ETag of an object that was uploaded at once is its MD5, and is compared. Not so with KMS encryption.
    pub etag_is_md5: Option<bool>,
    /// Folder for objects that are being written, on the same file system. Left out: `.narrows` in the root.
    pub temporary: Option<PathBuf>,
    /// Hosts that sources may be read from: `media.example.com`, `*.example.com`.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Any public host.
    #[serde(default)]
    pub public: bool,
    /// Networks that are no public ones, and may be read from all the same.
    #[serde(default)]
    pub allow_networks: Vec<String>,
    /// Longest answer to a question (size, list, delete), seconds.
    #[serde(default = "default_timeout_s")]
    pub timeout_s: u64,
    /// Longest transfer of one piece (at most [`super::upload::CHUNK_BYTES`]), seconds.
    #[serde(default = "default_io_timeout_s")]
    pub io_timeout_s: u64,
    /// How often a failed request is sent again, at jittered, growing distances.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// Requests under way at once.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
}

fn default_timeout_s() -> u64 {
    20
}

fn default_io_timeout_s() -> u64 {
    60
}

fn default_retries() -> u32 {
    4
}

fn default_concurrency() -> usize {
    64
}

/// What a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// Amazon S3 and everything that speaks like it.
    S3,
    Gcs,
    Azblob,
    /// A folder that every worker sees.
    Fs,
    /// `http://` and `https://` sources.
    Http,
}

impl StoreKind {
    fn name(self) -> &'static str {
        match self {
            StoreKind::S3 => "s3",
            StoreKind::Gcs => "gcs",
            StoreKind::Azblob => "azblob",
            StoreKind::Fs => "fs",
            StoreKind::Http => "http",
        }
    }
}

/// What a store may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Work,
    Source,
    Output,
}

/// What the server checks uploads by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checksum {
    Crc32c,
    /// For servers that refuse the header.
    None,
}

/// Where a secret is; not the secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Secret {
    /// Name of an environment variable.
    Env(String),
    /// A file; white space at its end does not count.
    File(PathBuf),
}

/// How the environment is looked at.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct SettingError {
    /// Dotted path of the field: `stores.media.bucket`.
    pub path: String,
    pub reason: String,
}

impl SettingError {
    pub(super) fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }
}

impl Secret {
    /// The secret itself.
    ///
    /// # Errors
    /// There is none; `path` is the setting's.
    pub(super) fn read(&self, path: &str, environment: Environment<'_>) -> Result<String, SettingError> {
        let text = match self {
            Secret::Env(name) => {
                environment(name).ok_or_else(|| SettingError::new(path, format!("the environment variable {name} is not set")))?
            }
            Secret::File(file) => {
                let wrong = |e: std::io::Error| SettingError::new(path, format!("{}: {e}", file.display()));
                let size = std::fs::metadata(file).map_err(wrong)?.len();
                if size > MAX_SECRET_BYTES {
                    let reason = format!("{} has {size} bytes; at most {MAX_SECRET_BYTES} are read", file.display());
                    return Err(SettingError::new(path, reason));
                }
                std::fs::read_to_string(file).map_err(wrong)?
            }
        };
        match text.trim_end() {
            "" => Err(SettingError::new(path, "is empty")),
            text => Ok(text.to_string()),
        }
    }
}

impl StoresConfig {
    /// Can these stores be opened, and may `work` hold the work?
    ///
    /// # Errors
    /// Names the field and what to do.
    pub fn check(&self, work: Option<&str>) -> Result<(), SettingError> {
        for (name, store) in &self.0 {
            store.check(name)?;
            self.check_roles(name, store, work)?;
        }
        let Some(work) = work else { return Ok(()) };
        let Some(place) = self.0.get(work) else {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            let reason = format!("there is no store '{work}'; there are: {}", known.join(", "));
            return Err(SettingError::new("work.store", reason));
        };
        for (name, other) in self.0.iter().filter(|(name, _)| *name != work) {
            if overlaps(place, other) {
                let reason = format!(
                    "overlaps with the store '{work}' that holds the work: jobs could write over each other's state; \
                     give each its own bucket or root"
                );
                return Err(SettingError::new(format!("stores.{name}.root"), reason));
            }
        }
        Ok(())
    }

    fn check_roles(&self, name: &str, store: &StoreConfig, work: Option<&str>) -> Result<(), SettingError> {
        let wrong = |reason: &str| Err(SettingError::new(format!("stores.{name}.roles"), reason));
        let roles = store.roles(name, work);
        if roles.is_empty() {
            return wrong("is empty; leave it out, or name some of work, source, output");
        }
        if store.kind == StoreKind::Http && roles != BTreeSet::from([Role::Source]) {
            return wrong("the web is read only: source is all it can be");
        }
        if roles.contains(&Role::Work) && roles.len() > 1 {
            return wrong("a store for the work is nothing else: a job could write over the state of others");
        }
        if roles.contains(&Role::Work) && store.tenants.is_some() {
            return Err(SettingError::new(format!("stores.{name}.tenants"), "the work store is everybody's"));
        }
        if work == Some(name) && !roles.contains(&Role::Work) {
            return wrong("[work] names this store: its role is work");
        }
        if store.public_url.is_some() && !roles.contains(&Role::Output) {
            return Err(SettingError::new(format!("stores.{name}.public_url"), "no output goes into this store; leave it out"));
        }
        Ok(())
    }
}

/// A field of [`StoreConfig`], is it set, and which types take it or need it.
struct Field {
    name: &'static str,
    set: bool,
    taken: &'static [StoreKind],
    needed: &'static [StoreKind],
}

impl StoreConfig {
    /// What it may be used for.
    pub fn roles(&self, name: &str, work: Option<&str>) -> BTreeSet<Role> {
        match &self.roles {
            Some(roles) => roles.iter().copied().collect(),
            None if work == Some(name) => BTreeSet::from([Role::Work]),
            None if self.kind == StoreKind::Http => BTreeSet::from([Role::Source]),
            None => BTreeSet::from([Role::Source, Role::Output]),
        }
    }

    fn fields(&self) -> [Field; 21] {
        use StoreKind::{Azblob, Fs, Gcs, Http, S3};
        let field = |name, set, taken, needed| Field { name, set, taken, needed };
        [
            field("bucket", self.bucket.is_some(), &[S3, Gcs, Azblob], &[S3, Gcs, Azblob]),
            field("root", self.root.is_some(), &[S3, Gcs, Azblob, Fs], &[Fs]),
            field("endpoint", self.endpoint.is_some(), &[S3, Gcs, Azblob], &[]),
            field("public_url", self.public_url.is_some(), &[S3, Gcs, Azblob, Fs], &[]),
            field("region", self.region.is_some(), &[S3], &[S3]),
            field("virtual_host_style", self.virtual_host_style, &[S3], &[]),
            field("access_key_id", self.access_key_id.is_some(), &[S3], &[]),
            field("secret_access_key", self.secret_access_key.is_some(), &[S3], &[]),
            field("session_token", self.session_token.is_some(), &[S3], &[]),
            field("ambient_credentials", self.ambient_credentials, &[S3, Gcs], &[]),
            field("anonymous", self.anonymous, &[S3, Gcs, Azblob], &[]),
            field("credential", self.credential.is_some(), &[Gcs], &[]),
            field("account", self.account.is_some(), &[Azblob], &[Azblob]),
            field("account_key", self.account_key.is_some(), &[Azblob], &[]),
            field("sas_token", self.sas_token.is_some(), &[Azblob], &[]),
            field("checksum", self.checksum.is_some(), &[S3], &[]),
            field("etag_is_md5", self.etag_is_md5.is_some(), &[S3], &[]),
            field("temporary", self.temporary.is_some(), &[Fs], &[]),
            field("hosts", !self.hosts.is_empty(), &[Http], &[]),
            field("public", self.public, &[Http], &[]),
            field("allow_networks", !self.allow_networks.is_empty(), &[Http], &[]),
        ]
    }

    /// Where requests go: the same address in the same letters, however it is written; none is Amazon's.
    pub(super) fn address(&self) -> Option<String> {
        let given = self.endpoint.as_ref().map(|endpoint| match url::Url::parse(endpoint) {
            Ok(url) => url.to_string(),
            Err(_) => endpoint.clone(),
        });
        let own = || match self.kind {
            StoreKind::Azblob => Some(format!("https://{}.blob.core.windows.net", self.account.as_deref()?)),
            StoreKind::Gcs => Some("https://storage.googleapis.com".into()),
            _ => None,
        };
        Some(given.or_else(own)?.trim_end_matches('/').to_string())
    }

    fn check(&self, name: &str) -> Result<(), SettingError> {
        let at = |field: &str| format!("stores.{name}.{field}");
        let wrong = |field: &str, reason: String| Err(SettingError::new(at(field), reason));
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(fits) {
            let reason = format!("a store's name is 1 to {MAX_NAME_BYTES} letters, digits, '_' or '-'");
            return Err(SettingError::new(format!("stores.{name}"), reason));
        }
        let kind = self.kind.name();
        for field in self.fields() {
            if field.set && !field.taken.contains(&self.kind) {
                return wrong(field.name, format!("a store of type {kind} has no such setting"));
            }
            if !field.set && field.needed.contains(&self.kind) {
                return wrong(field.name, format!("is missing; a store of type {kind} needs it"));
            }
        }
        for (field, value, least, most) in [
            ("timeout_s", self.timeout_s, 1, 600),
            ("io_timeout_s", self.io_timeout_s, 1, 600),
            ("retries", u64::from(self.retries), 0, 10),
            ("concurrency", self.concurrency as u64, 1, 10_000),
        ] {
            if !(least..=most).contains(&value) {
                return wrong(field, format!("is {value}; allowed are {least} to {most}"));
            }
        }
        self.check_places(&at)?;
        self.check_credentials(&at)
    }

    fn check_places(&self, at: &dyn Fn(&str) -> String) -> Result<(), SettingError> {
        let wrong = |field: &str, reason: &str| Err(SettingError::new(at(field), reason));
        if self.bucket.as_deref().is_some_and(|b| b.is_empty() || b.contains(['/', ':', '@', ' '])) {
            return wrong("bucket", "is no name of a bucket");
        }
        if let Some(endpoint) = &self.endpoint {
            let url = url::Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            let Some(url) = url else { return wrong("endpoint", "is no URL; write https://host or http://host:port") };
            if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
                return wrong("endpoint", "holds credentials or a query; they have settings of their own");
            }
        }
        if self.public_url.as_deref().is_some_and(|url| super::uri::public_place(url).is_none()) {
            return wrong("public_url", "is no URL of a folder; write https://host/path/, without a user, a query or a fragment");
        }
        match (&self.root, self.kind) {
            (Some(root), StoreKind::Fs) if !is_plain(Path::new(root)) => {
                return wrong("root", "is no absolute path without '.' and '..'");
            }
            (Some(root), kind) if kind != StoreKind::Fs && super::uri::elements(root.trim_matches('/')).is_none() => {
                return wrong("root", "has empty elements, '.' or '..'");
            }
            _ => {}
        }
        if self.temporary.as_deref().is_some_and(|path| !is_plain(path)) {
            return wrong("temporary", "is no absolute path without '.' and '..'");
        }
        if self.kind == StoreKind::Http && self.hosts.is_empty() && !self.public {
            return wrong("hosts", "is empty; name the hosts, or set public = true for every public one");
        }
        if let Some(host) = self.hosts.iter().find(|host| !super::guard::is_host_pattern(host)) {
            return wrong("hosts", &format!("'{host}' is no host; write media.example.com or *.example.com"));
        }
        if let Some(net) = self.allow_networks.iter().find(|net| net.parse::<IpNet>().is_err()) {
            return wrong("allow_networks", &format!("'{net}' is no network; write 10.0.0.0/8"));
        }
        Ok(())
    }

    fn check_credentials(&self, at: &dyn Fn(&str) -> String) -> Result<(), SettingError> {
        let wrong = |field: &str, reason: &str| Err(SettingError::new(at(field), reason));
        let keys = [&self.access_key_id, &self.secret_access_key, &self.session_token, &self.credential];
        let keyed = keys.into_iter().chain([&self.account_key, &self.sas_token]).any(Option::is_some);
        if self.anonymous && (keyed || self.ambient_credentials) {
            return wrong("anonymous", "is true, but credentials are given as well; leave one out");
        }
        match self.kind {
            _ if self.anonymous => Ok(()),
            StoreKind::S3 => match (&self.access_key_id, &self.secret_access_key, self.ambient_credentials) {
                (Some(_), Some(_), false) => Ok(()),
                (None, None, true) if self.session_token.is_none() => Ok(()),
                (_, _, true) => wrong("ambient_credentials", "is true, but a key is given as well; leave one out"),
                (None, _, false) => wrong("access_key_id", "is missing; or set ambient_credentials = true"),
                (_, None, false) => wrong("secret_access_key", "is missing; or set ambient_credentials = true"),
            },
            StoreKind::Gcs if self.credential.is_none() && !self.ambient_credentials => {
                wrong("credential", "is missing; or set ambient_credentials = true")
            }
            StoreKind::Gcs if self.credential.is_some() && self.ambient_credentials => {
                wrong("ambient_credentials", "is true, but a credential is given as well; leave one out")
            }
            StoreKind::Azblob if self.account_key.is_none() == self.sas_token.is_none() => {
                wrong("account_key", "give either it or sas_token")
            }
            _ => Ok(()),
        }
    }
}

/// An absolute path without `.` and `..`.
fn is_plain(path: &Path) -> bool {
    use std::path::Component::{Normal, RootDir};
    path.is_absolute() && path.components().all(|c| matches!(c, Normal(_) | RootDir)) && path.to_str().is_some()
}

/// Do two stores hold the same objects?
fn overlaps(a: &StoreConfig, b: &StoreConfig) -> bool {
    let place = |s: &StoreConfig| (s.kind, s.address(), s.account.clone(), s.bucket.clone());
    let root = |s: &StoreConfig| {
        let root = s.root.clone().unwrap_or_default();
        root.split('/').filter(|e| !e.is_empty()).map(str::to_string).collect::<Vec<_>>()
    };
    let (first, second) = (root(a), root(b));
    a.kind != StoreKind::Http && place(a) == place(b) && (first.starts_with(&second) || second.starts_with(&first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> StoresConfig {
        #[derive(Deserialize)]
        struct File {
            stores: StoresConfig,
        }
        toml::from_str::<File>(text).unwrap().stores
    }

    const WORK: &str = r#"
        [stores.work]
        type = "s3"
        bucket = "fleet"
        root = "work"
        endpoint = "http://127.0.0.1:3900"
        region = "garage"
        access_key_id = { env = "KEY" }
        secret_access_key = { file = "/run/secrets/key" }
    "#;

    #[test]
    fn roles_follow_from_what_a_store_is() {
        let config = read(&format!("{WORK}\n[stores.web]\ntype = \"http\"\npublic = true"));
        config.check(Some("work")).unwrap();
        assert_eq!(config.0["work"].roles("work", Some("work")), BTreeSet::from([Role::Work]));
        assert_eq!(config.0["work"].roles("work", None), BTreeSet::from([Role::Source, Role::Output]));
        assert_eq!(config.0["web"].roles("web", Some("work")), BTreeSet::from([Role::Source]));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let of = |text: &str| read(text).check(Some("work")).unwrap_err().path;
        let store = |text: &str| of(&format!("{WORK}\n[stores.x]\n{text}"));
        assert_eq!(of("[stores.other]\ntype = \"fs\"\nroot = \"/srv/media\""), "work.store");
        assert_eq!(store("type = \"s3\""), "stores.x.bucket");
        assert_eq!(store("type = \"s3\"\nbucket = \"b\""), "stores.x.region");
        assert_eq!(store("type = \"s3\"\nbucket = \"b\"\nregion = \"r\""), "stores.x.access_key_id");
        assert_eq!(store("type = \"gcs\"\nbucket = \"b\""), "stores.x.credential");
        assert_eq!(store("type = \"azblob\"\nbucket = \"b\"\naccount = \"a\""), "stores.x.account_key");
        assert_eq!(store("type = \"gcs\"\nbucket = \"b\"\nanonymous = true\nambient_credentials = true"), "stores.x.anonymous");
        let both = "type = \"gcs\"\nbucket = \"b\"\nambient_credentials = true\ncredential = { env = \"C\" }";
        assert_eq!(store(both), "stores.x.ambient_credentials");
        assert_eq!(store("type = \"fs\""), "stores.x.root");
        assert_eq!(store("type = \"fs\"\nroot = \"media\""), "stores.x.root");
        assert_eq!(store("type = \"fs\"\nroot = \"/srv/../etc\""), "stores.x.root");
        assert_eq!(store("type = \"fs\"\nroot = \"/srv\"\nbucket = \"b\""), "stores.x.bucket");
        for url in
            ["cdn.example.com", "ftp://cdn/", "https://", "https://u:p@cdn/", "https://cdn/?a=b", "https://cdn/a#b", "s3://b"]
        {
            assert_eq!(store(&format!("type = \"fs\"\nroot = \"/srv\"\npublic_url = \"{url}\"")), "stores.x.public_url", "{url}");
        }
        assert_eq!(store("type = \"http\"\npublic = true\npublic_url = \"https://cdn/\""), "stores.x.public_url");
        assert_eq!(
            store("type = \"fs\"\nroot = \"/srv\"\nroles = [\"source\"]\npublic_url = \"https://cdn/\""),
            "stores.x.public_url"
        );
        assert_eq!(store("type = \"fs\"\nroot = \"/srv\"\nconcurrency = 0"), "stores.x.concurrency");
        assert_eq!(store("type = \"fs\"\nroot = \"/srv\"\nroles = [\"work\", \"output\"]"), "stores.x.roles");
        assert_eq!(store("type = \"http\""), "stores.x.hosts");
        assert_eq!(store("type = \"http\"\nhosts = [\"http://a\"]"), "stores.x.hosts");
        assert_eq!(store("type = \"http\"\npublic = true\nroles = [\"output\"]"), "stores.x.roles");
        assert_eq!(store("type = \"http\"\npublic = true\nallow_networks = [\"10.0.0.0\"]"), "stores.x.allow_networks");
    }

    #[test]
    fn nobody_else_reaches_the_work() {
        let other = |root: &str| {
            let copy = WORK.replace("stores.work", "stores.media").replace("\"work\"", root);
            read(&format!("{WORK}{copy}")).check(Some("work"))
        };
        for root in ["\"work\"", "\"\"", "\"work/jobs\"", "\"/work\"", "\"work/\""] {
            assert_eq!(other(root).unwrap_err().path, "stores.media.root", "{root}");
        }
        other("\"media\"").unwrap();
        other("\"workers\"").unwrap();
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        let azure = |name: &str, endpoint: &str| {
            format!(
                "[stores.{name}]\ntype = \"azblob\"\nbucket = \"b\"\naccount = \"a\"\naccount_key = {{ env = \"KEY\" }}\n\
                 {endpoint}\n"
            )
        };
        for endpoint in
            ["", "endpoint = \"https://a.blob.core.windows.net/\"", "endpoint = \"https://A.blob.core.windows.net:443\""]
        {
            let config = read(&format!("{}{}", azure("work", ""), azure("media", endpoint)));
            assert_eq!(config.check(Some("work")).unwrap_err().path, "stores.media.root", "{endpoint}");
        }
        let elsewhere = azure("media", "endpoint = \"https://a.blob.core.chinacloudapi.cn\"");
        read(&format!("{}{elsewhere}", azure("work", ""))).check(Some("work")).unwrap();
    }

    #[test]
    fn secrets_are_read_from_where_they_are_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "hush\n").unwrap();
        let environment = |name: &str| (name == "KEY").then(|| "hush".to_string());
        for secret in [Secret::Env("KEY".into()), Secret::File(file)] {
            assert_eq!(secret.read("stores.x.access_key_id", &environment).unwrap(), "hush");
            assert!(!format!("{secret:?}").contains("hush"));
        }
        let error = Secret::Env("NONE".into()).read("stores.x.access_key_id", &environment).unwrap_err();
        assert_eq!(error.to_string(), "stores.x.access_key_id: the environment variable NONE is not set");
    }
}
