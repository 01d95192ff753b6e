//! Where a customer is told what happens to a job, and of what.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Endpoints of one job.
pub const MAX_CALLBACKS: usize = 8;
/// Longest URL of an endpoint, bytes.
pub const MAX_URL_BYTES: usize = 2048;
/// Filters of one endpoint.
pub const MAX_FILTERS: usize = 32;

/// The types of events that customers are told of.
pub const EVENT_TYPES: [&str; 14] = [
    "job.accepted",
    "job.rejected",
    "job.started",
    "job.class",
    "job.progress",
    "job.completed",
    "job.failed",
    "job.canceled",
    "stage.started",
    "stage.completed",
    "rendition.completed",
    "part.failed",
    "tenant.frozen",
    "tenant.unfrozen",
];
/// What an endpoint without filters is not told: it would be most of what it is told.
pub const NOT_BY_DEFAULT: &str = "job.progress";

/// One endpoint.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// `https://` or `http://`.
    pub url: String,
    /// What it is told: names of types, `job.*` for all that begin so, `*` for everything. Left out: everything but progress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    #[serde(default)]
    pub format: CallbackFormat,
}

/// How the body and the headers of a callback look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CallbackFormat {
    /// Standard Webhooks.
    #[default]
    #[serde(rename = "standard")]
    Standard,
    /// The field names and headers of an older VoD service.
    #[serde(rename = "vod-2017")]
    Vod2017,
}

impl CallbackFormat {
    pub fn name(self) -> &'static str {
        match self {
            CallbackFormat::Standard => "standard",
            CallbackFormat::Vod2017 => "vod-2017",
        }
    }
}

/// The host is shown and no more: customers put keys into paths and queries.
impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = url::Url::parse(&self.url).ok();
        let host = url.as_ref().and_then(url::Url::host_str).unwrap_or("?");
        f.debug_struct("Callback").field("host", &host).field("events", &self.events).field("format", &self.format).finish()
    }
}

impl Callback {
    /// Is an endpoint with these filters told of events of this type?
    pub fn wants(&self, event_type: &str) -> bool {
        if self.events.is_empty() {
            return event_type != NOT_BY_DEFAULT;
        }
        self.events.iter().any(|filter| matches(filter, event_type))
    }

    /// The endpoint can be called: the field that is wrong, relative to it, and why.
    ///
    /// # Errors
    /// The URL is none that a callback can go to, or a filter lets nothing through.
    pub fn check(&self) -> Result<(), (String, String)> {
        check_url(&self.url).map_err(|reason| ("url".to_string(), reason))?;
        if self.events.len() > MAX_FILTERS {
            return Err(("events".into(), format!("has {} filters; at most {MAX_FILTERS} are allowed", self.events.len())));
        }
        for (n, filter) in self.events.iter().enumerate() {
            if !EVENT_TYPES.iter().any(|event_type| matches(filter, event_type)) {
                let known = EVENT_TYPES.join(", ");
                return Err((format!("events[{n}]"), format!("lets no event through; the types are {known}, or job.*, or *")));
            }
        }
        Ok(())
    }
}

/// The endpoints of a job, or of a tenant.
///
/// # Errors
/// The field, relative to the list (`[1].url`), and what is wrong with it.
pub fn check_all(callbacks: &[Callback]) -> Result<(), (String, String)> {
    if callbacks.len() > MAX_CALLBACKS {
        return Err((String::new(), format!("has {} endpoints; at most {MAX_CALLBACKS} are allowed", callbacks.len())));
    }
    for (n, callback) in callbacks.iter().enumerate() {
        callback.check().map_err(|(path, reason)| (format!("[{n}].{path}"), reason))?;
        let same = |other: &Callback| other.url == callback.url && other.format == callback.format;
        if callbacks[..n].iter().any(same) {
            return Err((format!("[{n}].url"), "is there twice; put its filters into one endpoint".into()));
        }
    }
    Ok(())
}

fn matches(filter: &str, event_type: &str) -> bool {
    match filter.strip_suffix('*') {
        Some("") => true,
        Some(prefix) => prefix.ends_with('.') && event_type.starts_with(prefix),
        None => filter == event_type,
    }
}

fn check_url(text: &str) -> Result<(), String> {
    if text.len() > MAX_URL_BYTES {
        return Err(format!("has {} bytes; at most {MAX_URL_BYTES} are allowed", text.len()));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("holds a space or a control character; write it as %20 and the like".into());
    }
    let url = url::Url::parse(text).map_err(|e| format!("is no URL: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is neither https:// nor http://".into());
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password, which would be stored with the job; verify the signature instead".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callback(url: &str, events: &[&str]) -> Callback {
        let events = events.iter().map(|e| (*e).to_string()).collect();
        Callback { url: url.into(), events, format: CallbackFormat::Standard }
    }

    #[test]
    fn an_endpoint_is_told_what_its_filters_let_through() {
        let wants = |filters: &[&str], event: &str| callback("https://a.example/", filters).wants(event);
        assert!(wants(&[], "job.completed") && wants(&[], "stage.started") && !wants(&[], "job.progress"));
        assert!(wants(&["*"], "job.progress"));
        assert!(wants(&["job.*"], "job.progress") && !wants(&["job.*"], "stage.started"));
        assert!(wants(&["stage.completed", "job.failed"], "job.failed") && !wants(&["stage.completed"], "stage.started"));
    }

    #[test]
    fn an_endpoint_that_cannot_be_called_is_named_by_its_field() {
        let of = |url: &str, filters: &[&str]| callback(url, filters).check().err();
        assert_eq!(of("https://a.example/hook?k=1", &["job.*"]), None);
        for url in
            ["", "a.example", "ftp://a.example/", "file:///etc/passwd", "https://", "https://u:p@a.example/", "https://a b/"]
        {
            assert_eq!(of(url, &[]).unwrap().0, "url", "{url}");
        }
        assert_eq!(of(&format!("https://a.example/{}", "x".repeat(MAX_URL_BYTES)), &[]).unwrap().0, "url");
        for filter in ["job", "job*", "job.done", "", "jobs.*"] {
            assert_eq!(of("https://a.example/", &["*", filter]).unwrap().0, "events[1]", "{filter}");
        }
        let one = callback("https://a.example/", &[]);
        assert_eq!(check_all(&[one.clone(), one.clone()]).unwrap_err().0, "[1].url");
        assert_eq!(check_all(&vec![one; MAX_CALLBACKS + 1]).unwrap_err().0, "");
    }

    #[test]
    fn what_is_in_a_path_or_a_query_is_not_shown() {
        let shown = format!("{:?}", callback("https://a.example/secret-path?token=abc", &[]));
        assert!(shown.contains("a.example") && !shown.contains("secret") && !shown.contains("abc"), "{shown}");
    }
}
