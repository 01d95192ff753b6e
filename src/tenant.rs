//! Tenants: who may submit, to which stores and endpoints, and how much.
//!
//! Rules and keys are apart. Every role has the rules; keys are read, by the names of files and variables, only where
//! somebody is authenticated or something is signed. A key is a type that shows nothing of itself.

use crate::job::callback::{self, Callback};
use crate::job::is_safe_name;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use subtle::ConstantTimeEq;

/// The tenant of a fleet that has none configured.
pub const LOCAL: &str = "local";
/// Whose rejections are that belong to nobody we know. No tenant can be called so.
pub const NOBODY: &str = "unknown";
/// Tenants of one fleet.
pub const MAX_TENANTS: usize = 10_000;
/// Longest secret, bytes, and shortest.
const MAX_SECRET_BYTES: usize = 4096;
const MIN_SECRET_BYTES: usize = 16;

/// Something nobody may see. It is compared in constant time, and has no text of itself.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The content of a file or a variable, without the line break at its end.
    ///
    /// # Errors
    /// It is too short to be one, or too long; the error does not say what it is.
    pub fn new(content: &[u8]) -> Result<Self, String> {
        let end = content.iter().rposition(|b| !matches!(b, b'\n' | b'\r')).map_or(0, |at| at + 1);
        if !(MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&end) {
            return Err(format!("holds a secret of {end} bytes; allowed are {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES}"));
        }
        Ok(Self(content[..end].to_vec()))
    }

    /// A key of an older service, which may be of any length but none.
    ///
    /// # Errors
    /// It is empty or too long.
    pub fn of_any_length(content: &[u8]) -> Result<Self, String> {
        let end = content.iter().rposition(|b| !matches!(b, b'\n' | b'\r')).map_or(0, |at| at + 1);
        if !(1..=MAX_SECRET_BYTES).contains(&end) {
            return Err(format!("holds a key of {end} bytes; allowed are 1 to {MAX_SECRET_BYTES}"));
        }
        Ok(Self(content[..end].to_vec()))
    }

    /// For the one who signs with it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The SHA-256 of a secret: enough to recognise it. The secret must be random, as a generated key is: a hash does not
/// protect a password.
#[derive(Clone, Copy)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    fn parse(hexadecimal: &str) -> Option<Self> {
        hex::decode(hexadecimal).ok()?.try_into().ok().map(Self)
    }

    fn matches(&self, presented: &[u8]) -> bool {
        self.0.ct_eq(&Self::of(presented).0).into()
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest")
    }
}

/// A hash as it is configured; not shown either, as it is what a thief would try guesses against.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct HashText(String);

impl fmt::Debug for HashText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashText")
    }
}

/// How much a tenant may have; what is left out is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Jobs worked on at once. Further ones wait.
    #[serde(default)]
    pub active_jobs: Option<u32>,
    /// Jobs waiting. Further ones are rejected.
    #[serde(default)]
    pub queued_jobs: Option<u32>,
    /// Minutes of output a day (UTC), every rendition counted. With as much metered, new jobs are rejected.
    #[serde(default)]
    pub minutes_per_day: Option<u64>,
}

impl Quota {
    /// May have any number of anything.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// What becomes of a further job while `open` others have not ended.
    pub fn admit(&self, open: u64) -> Admission {
        let Some(active) = self.active_jobs.map(u64::from) else { return Admission::Start };
        if open < active {
            return Admission::Start;
        }
        match self.queued_jobs.map(u64::from) {
            Some(queued) if open >= active.saturating_add(queued) => Admission::Refuse(format!(
                "the tenant's quota is used up: {open} jobs are open, {active} may be worked on and {queued} may wait"
            )),
            _ => Admission::Wait,
        }
    }
}

/// `frozen.json` of a tenant that may start no new work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    pub reason: String,
    /// Milliseconds since 1970.
    pub since_ms: u64,
}

/// What becomes of a job that is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    Start,
    /// It is accepted, and started when another one ends.
    Wait,
    Refuse(String),
}

/// One tenant as configured.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantSettings {
    /// Public half of its credentials for HTTP.
    pub access_key_id: Option<String>,
    /// The other half, in one of three ways: its hash in hexadecimal, a file, a variable.
    pub secret_sha256: Option<HashText>,
    pub secret_file: Option<String>,
    pub secret_env: Option<String>,
    /// Users of the AMQP broker that submit for it.
    pub amqp_users: Vec<String>,
    /// Names of the stores it may use; left out: all that are not kept for others.
    pub stores: Option<Vec<String>>,
    /// Who is told of all its jobs.
    pub callbacks: Vec<Callback>,
    /// Keys its callbacks are signed with, newest first, each a file or a variable.
    pub webhook_secret_files: Vec<String>,
    pub webhook_secrets_env: Vec<String>,
    /// The key of the format `vod-2017`.
    pub vod_2017_key_file: Option<String>,
    pub vod_2017_key_env: Option<String>,
    pub quota: Quota,
    /// Its callbacks may go to addresses that are not public.
    pub allow_private_callbacks: bool,
}

/// Where a key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPlace<'a> {
    File(&'a str),
    Variable(&'a str),
}

/// Why the configured tenants cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct TenantError {
    /// Dotted path of the field, from `tenants` on.
    pub path: String,
    pub reason: String,
}

/// One tenant.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub name: String,
    pub access_key_id: Option<String>,
    pub amqp_users: Vec<String>,
    /// None: all stores that are not kept for others.
    pub stores: Option<BTreeSet<String>>,
    pub callbacks: Vec<Callback>,
    pub quota: Quota,
    pub allow_private_callbacks: bool,
    /// Absent where keys were not asked for.
    pub keys: Option<Keys>,
}

/// What a tenant proves itself with, and what is signed for it.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    pub secret: Option<SecretDigest>,
    /// Newest first.
    pub webhook: Vec<Secret>,
    pub vod_2017: Option<Secret>,
}

/// Who submits, as the broker says: the rules for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubmitRules {
    /// A submission must bear a user that the broker has checked, and is its tenant's.
    pub require_user_id: bool,
    /// Users that may submit for any tenant: the fleet's own programs.
    pub trusted_users: BTreeSet<String>,
}

/// All tenants of a fleet.
#[derive(Clone, Debug, Default)]
pub struct Tenants {
    by_name: BTreeMap<String, Tenant>,
    submit: SubmitRules,
    /// Every name is a tenant's: one process for one person.
    is_open: bool,
}

/// Why a submission is nobody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAdmitted {
    /// Who is told of it, where it is known who asked.
    pub tenant: Option<String>,
    pub reason: String,
}

impl Tenants {
    /// Takes every tenant a job names, and limits none.
    pub fn open() -> Self {
        Self { is_open: true, ..Self::default() }
    }

    /// The tenants without their keys; none configured is the one tenant [`LOCAL`].
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn new(settings: &BTreeMap<String, TenantSettings>, submit: SubmitRules) -> Result<Self, TenantError> {
        if settings.len() > MAX_TENANTS {
            return Err(wrong("", "", format!("{} are configured; at most {MAX_TENANTS} are allowed", settings.len())));
        }
        let mut by_name = BTreeMap::new();
        let (mut ids, mut users) = (BTreeMap::new(), BTreeMap::new());
        for (name, settings) in settings {
            check(name, settings)?;
            if let Some(id) = &settings.access_key_id
                && let Some(other) = ids.insert(id.clone(), name)
            {
                return Err(wrong(name, "access_key_id", format!("is tenant {other}'s, too")));
            }
            for user in &settings.amqp_users {
                if submit.trusted_users.contains(user) {
                    let reason =
                        format!("'{user}' may submit for any tenant, so it cannot stand for one; give the tenant its own user");
                    return Err(wrong(name, "amqp_users", reason));
                }
                if let Some(other) = users.insert(user.clone(), name) {
                    return Err(wrong(name, "amqp_users", format!("'{user}' is tenant {other}'s, too")));
                }
            }
            by_name.insert(name.clone(), Tenant::new(name, settings));
        }
        if by_name.is_empty() {
            by_name.insert(LOCAL.into(), Tenant::new(LOCAL, &TenantSettings::default()));
        }
        Ok(Self { by_name, submit, is_open: false })
    }

    /// The tenants with their keys, each read by `read`, whose error says what is wrong with that place.
    ///
    /// # Errors
    /// Names the field that is wrong; never what a key is.
    pub fn with_keys(
        settings: &BTreeMap<String, TenantSettings>,
        submit: SubmitRules,
        mut read: impl FnMut(KeyPlace<'_>) -> Result<Vec<u8>, String>,
    ) -> Result<Self, TenantError> {
        let mut tenants = Self::new(settings, submit)?;
        for (name, settings) in settings {
            let keys = keys(name, settings, &mut read)?;
            tenants.by_name.get_mut(name).expect("every configured tenant was taken").keys = Some(keys);
        }
        Ok(tenants)
    }

    pub fn get(&self, name: &str) -> Option<&Tenant> {
        self.by_name.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Tenant> {
        self.by_name.values()
    }

    /// Is there anybody to authenticate? Without, a fleet trusts whoever reaches it.
    pub fn have_credentials(&self) -> bool {
        self.by_name.values().any(|tenant| tenant.access_key_id.is_some())
    }

    /// The tenant of these credentials. Takes as long for an unknown id as for a wrong secret.
    pub fn authenticate(&self, access_key_id: &str, secret: &[u8]) -> Option<&Tenant> {
        const NO_SECRET: SecretDigest = SecretDigest([0; 32]);
        let tenant = self.by_name.values().find(|tenant| tenant.access_key_id.as_deref() == Some(access_key_id));
        let digest = tenant.and_then(|t| t.keys.as_ref()?.secret);
        let is_right = digest.unwrap_or(NO_SECRET).matches(secret);
        tenant.filter(|_| is_right && digest.is_some())
    }

    /// Whose a submission is: by the tenant it names and the user that the broker vouches for.
    ///
    /// # Errors
    /// It is nobody's: why, and whom to tell.
    pub fn of_submission(&self, named: Option<&str>, user: Option<&str>) -> Result<String, NotAdmitted> {
        if self.is_open {
            return Ok(named.unwrap_or(LOCAL).into());
        }
        let nobody = |reason: String| NotAdmitted { tenant: None, reason };
        let users_own = user.and_then(|user| self.by_name.values().find(|t| t.amqp_users.iter().any(|u| u == user)));
        let is_trusted = user.is_some_and(|user| self.submit.trusted_users.contains(user));
        if self.submit.require_user_id && !is_trusted {
            let Some(user) = user else {
                return Err(nobody(
                    "the message bears no user-id; set that property to the name you log in to the broker with".into(),
                ));
            };
            let Some(own) = users_own else {
                return Err(nobody(format!("the broker's user '{user}' submits for no tenant")));
            };
            return match named {
                Some(other) if other != own.name => {
                    let reason = format!("is '{other}', but the broker's user '{user}' submits for '{}' only", own.name);
                    Err(NotAdmitted { tenant: Some(own.name.clone()), reason })
                }
                _ => Ok(own.name.clone()),
            };
        }
        match named {
            Some(name) if self.by_name.contains_key(name) => Ok(name.into()),
            Some(name) => Err(nobody(format!("'{name}' is not configured"))),
            None => match (users_own, self.by_name.keys().next()) {
                (Some(own), _) => Ok(own.name.clone()),
                (None, Some(only)) if self.by_name.len() == 1 => Ok(only.clone()),
                _ => Err(nobody("is missing; this fleet has several tenants".into())),
            },
        }
    }
}

fn wrong(tenant: &str, field: &str, reason: String) -> TenantError {
    let path = ["tenants", tenant, field].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
    TenantError { path, reason }
}

impl Tenant {
    fn new(name: &str, settings: &TenantSettings) -> Self {
        Self {
            name: name.into(),
            access_key_id: settings.access_key_id.clone(),
            amqp_users: settings.amqp_users.clone(),
            stores: settings.stores.as_ref().map(|names| names.iter().cloned().collect()),
            callbacks: settings.callbacks.clone(),
            quota: settings.quota,
            allow_private_callbacks: settings.allow_private_callbacks,
            keys: None,
        }
    }

    /// May it use the store of this name, which is kept for `kept_for` or, when that is none, for nobody?
    pub fn may_use(&self, store: &str, kept_for: Option<&[String]>) -> bool {
        let is_granted = self.stores.as_ref().is_none_or(|own| own.contains(store));
        is_granted && kept_for.is_none_or(|names| names.contains(&self.name))
    }
}

fn check(name: &str, settings: &TenantSettings) -> Result<(), TenantError> {
    if !is_safe_name(name) || name == NOBODY {
        let reason = format!(
            "a tenant's name is 1 to 64 letters, digits, '.', '_' or '-', does not start with '.', and is not '{NOBODY}'"
        );
        return Err(wrong(name, "", reason));
    }
    let ways = [settings.secret_sha256.is_some(), settings.secret_file.is_some(), settings.secret_env.is_some()];
    let given = ways.into_iter().filter(|is_given| *is_given).count();
    match (&settings.access_key_id, given) {
        (None, 0) => {}
        (Some(id), 1) if is_safe_name(id) => {}
        (Some(_), 1) => return Err(wrong(name, "access_key_id", "is 1 to 64 letters, digits, '.', '_' or '-'".into())),
        (None, _) => return Err(wrong(name, "access_key_id", "is missing; there is a secret for it".into())),
        (Some(_), _) => {
            return Err(wrong(
                name,
                "secret_sha256",
                format!("give one of secret_sha256, secret_file, secret_env; {given} are given"),
            ));
        }
    }
    if let Some(HashText(text)) = &settings.secret_sha256
        && SecretDigest::parse(text).is_none()
    {
        return Err(wrong(name, "secret_sha256", "is not the 64 hexadecimal digits of a SHA-256".into()));
    }
    if let Some(user) = settings.amqp_users.iter().find(|user| user.is_empty() || user.chars().any(char::is_control)) {
        return Err(wrong(name, "amqp_users", format!("{user:?} is no user's name")));
    }
    let endpoint = |(path, reason): (String, String)| wrong(name, &format!("callbacks{path}"), reason);
    callback::check_all(&settings.callbacks).map_err(endpoint)?;
    if settings.vod_2017_key_file.is_some() && settings.vod_2017_key_env.is_some() {
        return Err(wrong(name, "vod_2017_key_file", "give vod_2017_key_file or vod_2017_key_env, not both".into()));
    }
    let quotas =
        [("active_jobs", settings.quota.active_jobs == Some(0)), ("minutes_per_day", settings.quota.minutes_per_day == Some(0))];
    if let Some((field, _)) = quotas.into_iter().find(|(_, is_nothing)| *is_nothing) {
        let reason = "is 0, so no job could ever run; `narrows tenant freeze` stops a tenant".to_string();
        return Err(wrong(name, &format!("quota.{field}"), reason));
    }
    Ok(())
}

fn keys(
    name: &str,
    settings: &TenantSettings,
    read: &mut impl FnMut(KeyPlace<'_>) -> Result<Vec<u8>, String>,
) -> Result<Keys, TenantError> {
    let mut get = |field: &str, place: KeyPlace<'_>, make: fn(&[u8]) -> Result<Secret, String>| {
        read(place).and_then(|content| make(&content)).map_err(|reason| wrong(name, field, reason))
    };
    let secret = match (&settings.secret_sha256, &settings.secret_file, &settings.secret_env) {
        (Some(HashText(text)), _, _) => SecretDigest::parse(text),
        (_, Some(file), _) => Some(SecretDigest::of(get("secret_file", KeyPlace::File(file), Secret::new)?.expose())),
        (_, _, Some(variable)) => Some(SecretDigest::of(get("secret_env", KeyPlace::Variable(variable), Secret::new)?.expose())),
        (None, None, None) => None,
    };
    let mut webhook = Vec::new();
    for (n, file) in settings.webhook_secret_files.iter().enumerate() {
        webhook.push(get(&format!("webhook_secret_files[{n}]"), KeyPlace::File(file), Secret::new)?);
    }
    for (n, variable) in settings.webhook_secrets_env.iter().enumerate() {
        webhook.push(get(&format!("webhook_secrets_env[{n}]"), KeyPlace::Variable(variable), Secret::new)?);
    }
    let vod_2017 = match (&settings.vod_2017_key_file, &settings.vod_2017_key_env) {
        (Some(file), _) => Some(get("vod_2017_key_file", KeyPlace::File(file), Secret::of_any_length)?),
        (None, Some(variable)) => Some(get("vod_2017_key_env", KeyPlace::Variable(variable), Secret::of_any_length)?),
        (None, None) => None,
    };
    Ok(Keys { secret, webhook, vod_2017 })
}

#[cfg(test)]
mod tests;
