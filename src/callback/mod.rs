//! Callbacks: recorded events, signed, to where customers want them; tried for days, kept when given up, replayable.
//!
//! A message on the queue of callbacks is a nudge: "this endpoint may have something to hear of this job". It says nothing
//! of what; the [`cursor`] of the endpoint does, in the bucket, and the events lie there too. So a nudge may come twice,
//! late, or from two coordinators, and a wait of a day is a message in a retry tier of the broker, never a timer here.
//!
//! Pure: [`sign`], [`vod2017`], [`schedule`], [`cursor`]. At the edge: [`guard`] and [`deliver`]. [`run`]
//! composes them for one partition.

pub mod cursor;
pub mod deliver;
pub mod guard;
mod process;
mod record;
pub mod run;
pub mod schedule;
pub mod sign;
pub mod vod2017;
mod waitlist;

use crate::broker::{Broker, BrokerError, Queue};
use crate::job::{Callback, CallbackFormat, JobId};
use crate::tenant::{Secret, Tenant, Tenants};
use guard::Policy;
use ipnet::IpNet;
use schedule::Schedule;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

/// Hexadecimal digits of an endpoint's id.
const ENDPOINT_DIGITS: usize = 16;
/// Networks that a tenant may call whose callbacks may go inside. Not link-local: that is where clouds keep secrets.
const INSIDE: [&str; 7] =
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "::1/128"];

/// How callbacks are delivered.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallbackSettings {
    /// Waits before each attempt, seconds.
    pub schedule_s: Vec<u64>,
    pub timeout_s: u64,
    /// Read of an answer's body, and thrown away.
    pub max_response_bytes: u64,
    /// Plain `http` too.
    pub allow_http: bool,
    /// Networks that may be called although they are not public.
    #[serde(deserialize_with = "networks")]
    pub allow_private: Vec<IpNet>,
    /// Deliveries of one partition at once.
    pub parallel: usize,
    /// PEM file of further certificate authorities to trust.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

impl CallbackSettings {
    /// Are the settings usable?
    ///
    /// # Errors
    /// The field, and what to change.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        Schedule::new(&self.schedule_s).map_err(|e| ("schedule_s", e))?;
        for (field, value, least, most) in [
            ("timeout_s", self.timeout_s, 1, 60),
            ("max_response_bytes", self.max_response_bytes, 0, 16 * 1024 * 1024),
            ("parallel", self.parallel as u64, 1, 256),
        ] {
            if !(least..=most).contains(&value) {
                return Err((field, format!("is {value}; allowed are {least} to {most}")));
            }
        }
        Ok(())
    }

    /// Limits of one request.
    pub fn limits(&self) -> deliver::Limits {
        deliver::Limits { timeout_s: self.timeout_s, response_bytes: self.max_response_bytes }
    }

    /// Where callbacks of a tenant may go.
    pub fn policy(&self, tenant: &TenantCallbacks) -> Policy {
        let inside = INSIDE.iter().filter(|_| tenant.allow_private).filter_map(|text| text.parse().ok());
        Policy { allow_http: self.allow_http, allow: self.allow_private.iter().copied().chain(inside).collect() }
    }
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parse = |text: &String| text.parse().map_err(|_| format!("'{text}' is no network, like '10.1.0.0/16'"));
    texts.iter().map(parse).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

/// What a tenant's configuration says about callbacks.
#[derive(Clone, Debug, Default)]
pub struct TenantCallbacks {
    /// Endpoints that hear of every job of the tenant.
    pub endpoints: Vec<Callback>,
    /// Every delivery is signed under each of them.
    pub keys: Vec<sign::Key>,
    pub vod_key: Option<vod2017::VodKey>,
    /// Callbacks may go to private addresses, too.
    pub allow_private: bool,
}

/// A tenant's key that none can be signed with. Names the place, never the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tenants.{tenant}: key {number} of webhook_secret_files and webhook_secrets_env: {reason}")]
pub struct WrongKey {
    pub tenant: String,
    /// From 1, in the order of the configuration.
    pub number: usize,
    pub reason: String,
}

impl TenantCallbacks {
    /// The callbacks of every tenant, by its name.
    ///
    /// # Errors
    /// A key is none of the two kinds.
    pub fn of_all(tenants: &Tenants) -> Result<BTreeMap<String, Self>, WrongKey> {
        tenants.iter().map(|tenant| Ok((tenant.name.clone(), Self::of(tenant)?))).collect()
    }

    fn of(tenant: &Tenant) -> Result<Self, WrongKey> {
        let secrets = tenant.keys.as_ref().map(|keys| keys.webhook.as_slice()).unwrap_or_default();
        let wrong = |number: usize, reason: String| WrongKey { tenant: tenant.name.clone(), number, reason };
        if secrets.len() > sign::MOST_KEYS {
            return Err(wrong(secrets.len(), format!("is one too many; at most {} are allowed", sign::MOST_KEYS)));
        }
        let key = |(n, secret): (usize, &Secret)| {
            let text = std::str::from_utf8(secret.expose()).map_err(|_| wrong(n + 1, "is no text".into()))?;
            sign::Key::parse(text).map_err(|e| wrong(n + 1, e.to_string()))
        };
        Ok(Self {
            endpoints: tenant.callbacks.clone(),
            keys: secrets.iter().enumerate().map(key).collect::<Result<_, _>>()?,
            vod_key: tenant.keys.as_ref().and_then(|k| k.vod_2017.as_ref()).map(|k| vod2017::VodKey::new(k.expose())),
            allow_private: tenant.allow_private_callbacks,
        })
    }
}

/// Is an endpoint told of events of this type, in its format?
pub fn wants(endpoint: &Callback, kind: &str) -> bool {
    endpoint.wants(kind) && (endpoint.format == CallbackFormat::Standard || vod2017::knows(kind))
}

/// An endpoint's name in queues, keys and logs: the first 16 hexadecimal digits of the SHA-256 of URL and format.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EndpointId(String);

impl EndpointId {
    pub fn of(endpoint: &Callback) -> Self {
        let digits = hex::encode(Sha256::digest(format!("{}{}", endpoint.url, endpoint.format.name())));
        Self(digits[..ENDPOINT_DIGITS].to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for EndpointId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.len() == ENDPOINT_DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if digits { Ok(Self(text)) } else { Err(format!("an endpoint's id is {ENDPOINT_DIGITS} hexadecimal digits")) }
    }
}

impl From<EndpointId> for String {
    fn from(id: EndpointId) -> Self {
        id.0
    }
}

/// The message on [`Queue::Callbacks`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nudge {
    pub job: JobId,
    pub endpoint: EndpointId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

/// The wish to hear everything again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    pub from_sequence: u64,
    /// When it was asked for, milliseconds since 1970; tells one replay from the next.
    pub asked_ms: u64,
}

/// Says that there may be something to hear of this job: after its events are written, before their messages are
/// settled. Told twice it does no harm.
///
/// # Errors
/// The broker did not take it; nothing is lost when it is told again.
pub async fn nudge(broker: &dyn Broker, job: &JobId, endpoints: &[Callback]) -> Result<(), BrokerError> {
    publish(broker, job, endpoints, None).await
}

/// Asks for the events from this sequence on to be delivered again, also to endpoints that were disabled: enable them
/// first ([`run::enable`]).
///
/// # Errors
/// The broker did not take it.
pub async fn replay(broker: &dyn Broker, job: &JobId, endpoints: &[Callback], replay: Replay) -> Result<(), BrokerError> {
    publish(broker, job, endpoints, Some(replay)).await
}

async fn publish(broker: &dyn Broker, job: &JobId, to: &[Callback], replay: Option<Replay>) -> Result<(), BrokerError> {
    let ids: BTreeSet<EndpointId> = to.iter().map(EndpointId::of).collect();
    for endpoint in ids {
        let nudge = Nudge { job: job.clone(), endpoint, replay };
        let body = serde_json::to_vec(&nudge).expect("a nudge is plain data");
        broker.publish(Queue::callbacks_of(job.as_str()), body).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::{KeyPlace, SubmitRules};

    fn endpoint(text: &str) -> Callback {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn an_endpoint_is_known_by_its_url_and_format() {
        let plain = endpoint(r#"{"url":"https://example.com/hook?token=hunter2"}"#);
        let filtered = endpoint(r#"{"url":"https://example.com/hook?token=hunter2","events":["job.*"]}"#);
        let other = endpoint(r#"{"url":"https://example.com/hook?token=hunter2","format":"vod-2017"}"#);
        let id = EndpointId::of(&plain);
        assert_eq!(id, EndpointId::of(&filtered));
        assert_ne!(id, EndpointId::of(&other));
        assert_eq!(EndpointId::try_from(id.to_string()), Ok(id));
        assert!(EndpointId::try_from("../0123456789abc".to_string()).is_err());
    }

    #[test]
    fn an_endpoint_gets_what_it_wants_and_its_format_knows() {
        let vod = endpoint(r#"{"url":"https://e.com/","format":"vod-2017"}"#);
        assert!(wants(&vod, "job.completed") && wants(&vod, "rendition.completed") && !wants(&vod, "job.accepted"));
        let ends = endpoint(r#"{"url":"https://e.com/","format":"vod-2017","events":["job.*"]}"#);
        assert!(wants(&ends, "job.completed") && !wants(&ends, "rendition.completed"));
        assert!(wants(&endpoint(r#"{"url":"https://e.com/"}"#), "job.accepted"));
    }

    #[test]
    fn a_key_that_is_none_is_named_by_its_place_only() {
        let settings = r#"
            [acme]
            webhook_secret_files = ["good", "bad"]
        "#;
        let settings: BTreeMap<String, crate::tenant::TenantSettings> = toml::from_str(settings).unwrap();
        let read = |bad: &'static str| {
            let tenants = Tenants::with_keys(&settings, SubmitRules::default(), |place| match place {
                KeyPlace::File("good") => Ok(b"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n".to_vec()),
                _ => Ok(bad.as_bytes().to_vec()),
            });
            TenantCallbacks::of_all(&tenants.unwrap())
        };
        let said = read("hunter2hunter2hunter2").unwrap_err().to_string();
        assert!(said.contains("acme") && said.contains("key 2") && !said.contains("hunter2"), "{said}");
        let good = read("whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc=").unwrap();
        assert_eq!(good["acme"].keys.len(), 2);
    }

    #[test]
    fn a_nudge_is_the_document_that_goes_over_the_queue() {
        let text = r#"{"job":"talk","endpoint":"0123456789abcdef","replay":{"from_sequence":3,"asked_ms":7}}"#;
        let nudge: Nudge = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&nudge).unwrap(), text);
        let short = r#"{"job":"talk","endpoint":"0123456789abcdef"}"#;
        assert_eq!(serde_json::from_str::<Nudge>(short).unwrap(), Nudge { replay: None, ..nudge });
    }

    #[test]
    fn settings_that_make_no_sense_name_their_field() {
        let good = "schedule_s = [0, 5]\ntimeout_s = 15\nmax_response_bytes = 65536\nallow_http = false\nallow_private = [\"10.1.0.0/16\"]\nparallel = 16\n";
        let settings: CallbackSettings = toml::from_str(good).unwrap();
        assert_eq!(settings.check(), Ok(()));
        let of =
            |from: &str, to: &str| toml::from_str::<CallbackSettings>(&good.replace(from, to)).unwrap().check().unwrap_err().0;
        assert_eq!(of("[0, 5]", "[]"), "schedule_s");
        assert_eq!(of("= 15", "= 0"), "timeout_s");
        assert_eq!(of("= 16", "= 0"), "parallel");
        let wrong = toml::from_str::<CallbackSettings>(&good.replace("10.1.0.0/16", "inside")).unwrap_err();
        assert!(wrong.to_string().contains("'inside' is no network"), "{wrong}");
        assert!(toml::from_str::<CallbackSettings>(&format!("{good}redirects = 3\n")).is_err());
    }

    #[test]
    fn a_tenant_that_may_call_inside_still_cannot_ask_the_cloud_for_its_secrets() {
        let settings: CallbackSettings = toml::from_str(
            "schedule_s = [0]\ntimeout_s = 1\nmax_response_bytes = 0\nallow_http = true\nallow_private = []\nparallel = 1\n",
        )
        .unwrap();
        let inside = settings.policy(&TenantCallbacks { allow_private: true, ..TenantCallbacks::default() });
        for url in ["http://10.0.0.1/", "http://127.0.0.1/", "http://[fd00::1]/"] {
            assert!(inside.check(url).is_ok(), "{url}");
            assert!(settings.policy(&TenantCallbacks::default()).check(url).is_err(), "{url}");
        }
        assert!(inside.check("http://169.254.169.254/").is_err());
    }
}
