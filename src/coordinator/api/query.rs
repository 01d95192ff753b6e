//! Paths, queries and bodies, read strictly: what is not known is an error that names it.

use super::problem::Problem;
use crate::job::{JobId, MAX_DOCUMENT_BYTES, is_safe_name};
use axum::body::Bytes;
use axum::extract::Path;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::http::{HeaderMap, StatusCode, header};
use std::collections::BTreeMap;

/// The parameters of a query.
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// # Errors
    /// A parameter that is none of `known`, or is there twice.
    pub fn parse(text: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut parameters = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            if !known.contains(&name.as_ref()) {
                let known =
                    if known.is_empty() { "there are none here".into() } else { format!("known are {}", known.join(", ")) };
                return Err(Problem::parameter(&name, format!("is not known; {known}")));
            }
            if parameters.insert(name.to_string(), value.to_string()).is_some() {
                return Err(Problem::parameter(&name, "is there twice"));
            }
        }
        Ok(Self(parameters))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// # Errors
    /// It is no number in the range.
    pub fn number(&self, name: &str, default: u64, least: u64, most: u64) -> Result<u64, Problem> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|n| (least..=most).contains(n));
        number.ok_or_else(|| Problem::parameter(name, format!("is no whole number from {least} to {most}")))
    }
}

/// The job that a path names; one that no job can have is not found.
pub(super) fn job(path: Result<Path<String>, PathRejection>) -> Result<JobId, Problem> {
    let id = path.map_err(|_| Problem::not_found("id", "the path names no job"))?.0;
    JobId::try_from(id).map_err(|_| Problem::not_found("id", "there is no such job"))
}

/// The tenant that a path names.
pub(super) fn tenant(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let name = path.ok().map(|Path(name)| name).filter(|name| is_safe_name(name));
    name.ok_or_else(|| Problem::not_found("id", "there is no such tenant"))
}

/// A JSON body as it came.
///
/// # Errors
/// It is said to be something else, is encoded, too long, or could not be read.
pub(super) fn body(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().to_ascii_lowercase());
    let content_type = text(header::CONTENT_TYPE).unwrap_or_default();
    let mut words = content_type.split(';').map(str::trim);
    let is_json = words.next() == Some("application/json");
    if !is_json || words.any(|word| !matches!(word, "" | "charset=utf-8" | "charset=\"utf-8\"")) {
        return Err(Problem::media_type("content-type", "send Content-Type: application/json, in UTF-8"));
    }
    if text(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Problem::media_type("content-encoding", "send the body as it is, not compressed"));
    }
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(format!("a document has at most {MAX_DOCUMENT_BYTES} bytes")),
        _ => Problem::invalid(".", "the body could not be read to its end"),
    })
    .and_then(|body| {
        let bytes = body.len();
        let too_long = || Problem::too_large(format!("{bytes} bytes; a document has at most {MAX_DOCUMENT_BYTES}"));
        if bytes > MAX_DOCUMENT_BYTES { Err(too_long()) } else { Ok(body) }
    })
}

/// A small JSON body that may be left out.
///
/// # Errors
/// Names the field that is wrong.
pub(super) fn small<T: serde::de::DeserializeOwned + Default>(
    headers: &HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<T, Problem> {
    if matches!(&bytes, Ok(bytes) if bytes.is_empty()) {
        return Ok(T::default());
    }
    let bytes = body(headers, bytes)?;
    let reader = &mut serde_json::Deserializer::from_slice(&bytes);
    let value = serde_path_to_error::deserialize(&mut *reader).map_err(|e| {
        let path = if e.inner().is_data() { e.path().to_string() } else { ".".into() };
        Problem::invalid(&path, e.inner().to_string())
    })?;
    reader.end().map_err(|e| Problem::invalid(".", e.to_string()))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_strictly() {
        let parse = |text| Query::parse(Some(text), &["limit", "state"]);
        let query = parse("limit=5&state=failed").ok().unwrap();
        assert_eq!((query.number("limit", 50, 1, 200), query.text("state")), (Ok(5), Some("failed")));
        assert_eq!(query.number("after", 7, 0, 9), Ok(7));
        for wrong in ["limits=5", "limit=5&limit=6", "limit=5&x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        for wrong in ["limit=0", "limit=201", "limit=-1", "limit=", "limit=1e2"] {
            assert!(parse(wrong).ok().unwrap().number("limit", 50, 1, 200).is_err(), "{wrong}");
        }
    }
}
