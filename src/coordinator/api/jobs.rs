//! Jobs over HTTP.

use super::auth::Caller;
use super::problem::Problem;
use super::query;
use super::state::Api;
use crate::coordinator::ops::{self, ListQuery, MOST_JOBS};
use crate::event::State;
use crate::trace::{Span, TRACEPARENT, TraceContext};
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, RawQuery, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::json;

/// By which a repeated request is known, where the document has no id.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Longest such key, bytes.
const MAX_KEY_BYTES: usize = 256;
/// Jobs of one page, where nobody says how many.
const PAGE_JOBS: u64 = 50;

pub(super) type PathOf = Result<Path<String>, PathRejection>;
pub(super) type BodyOf = Result<Bytes, BytesRejection>;

/// `POST /v1/jobs`: the same document with the same id or key is the same job, however often it is sent.
pub(super) async fn submit(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(text): RawQuery,
    headers: HeaderMap,
    bytes: BodyOf,
) -> Result<Response, Problem> {
    query::Query::parse(text.as_deref(), &[])?;
    let document = query::body(&headers, bytes)?;
    let trace = headers.get(TRACEPARENT).and_then(|value| TraceContext::parse(value.to_str().ok()?));
    let fleet = api.fleet.within(Span::passing(trace));
    let submitted = ops::submit(&fleet, caller.scope(), &document, key(&headers)?).await?;
    let path = format!("/v1/jobs/{}", submitted.job);
    let status = if submitted.is_new { StatusCode::ACCEPTED } else { StatusCode::OK };
    let body = json!({"job": submitted.job, "tenant": submitted.tenant, "is_new": submitted.is_new, "status_url": path});
    let mut response = (status, Json(body)).into_response();
    let location = HeaderValue::from_str(&path).expect("a job id is safe in a header");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

fn key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok().map(str::trim).filter(|key| (1..=MAX_KEY_BYTES).contains(&key.len()));
    let wrong = || Problem::parameter(IDEMPOTENCY_KEY, format!("is 1 to {MAX_KEY_BYTES} printable ASCII characters"));
    key.map(Some).ok_or_else(wrong)
}

/// `GET /v1/jobs`.
pub(super) async fn list(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(text): RawQuery,
) -> Result<Response, Problem> {
    let query = query::Query::parse(text.as_deref(), &["state", "limit", "cursor"])?;
    let state = query.text("state").map(state).transpose()?;
    let limit = query.number("limit", PAGE_JOBS, 1, MOST_JOBS as u64)? as usize;
    let wanted = ListQuery { state, limit, cursor: query.text("cursor").map(str::to_string) };
    let page = match ops::list(&api.fleet, caller.scope(), &wanted).await {
        Err(ops::OpError::Invalid(wrong)) => return Err(Problem::parameter(&wrong.path, wrong.reason)),
        page => page?,
    };
    Ok(Json(page).into_response())
}

fn state(text: &str) -> Result<State, Problem> {
    let known = State::ALL.map(State::name);
    let found = State::ALL.into_iter().find(|state| state.name() == text);
    found.ok_or_else(|| Problem::parameter("state", format!("is none of {}", known.join(", "))))
}

/// `GET /v1/jobs/{id}`.
pub(super) async fn show(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(text): RawQuery,
    path: PathOf,
) -> Result<Response, Problem> {
    query::Query::parse(text.as_deref(), &[])?;
    Ok(Json(ops::detail(&api.fleet, caller.scope(), &query::job(path)?).await?).into_response())
}

/// `POST /v1/jobs/{id}/cancel`.
pub(super) async fn cancel(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(text): RawQuery,
    path: PathOf,
) -> Result<Response, Problem> {
    query::Query::parse(text.as_deref(), &[])?;
    let job = query::job(path)?;
    let canceled = ops::cancel(&api.fleet, caller.scope(), &job).await?;
    let status = if canceled == ops::Canceled::Asked { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(json!({"job": job, "cancel": canceled}))).into_response())
}

/// The body of a replay.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ReplayFrom {
    from_sequence: u64,
}

impl Default for ReplayFrom {
    fn default() -> Self {
        Self { from_sequence: 1 }
    }
}

/// `POST /v1/jobs/{id}/replay`.
pub(super) async fn replay(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(text): RawQuery,
    path: PathOf,
    headers: HeaderMap,
    bytes: BodyOf,
) -> Result<Response, Problem> {
    query::Query::parse(text.as_deref(), &[])?;
    let job = query::job(path)?;
    let ReplayFrom { from_sequence } = query::small(&headers, bytes)?;
    let replayed = ops::replay(&api.fleet, caller.scope(), &job, from_sequence).await?;
    Ok((StatusCode::ACCEPTED, Json(replayed)).into_response())
}

/// `DELETE /v1/jobs/{id}`.
pub(super) async fn purge(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(text): RawQuery,
    path: PathOf,
) -> Result<Response, Problem> {
    query::Query::parse(text.as_deref(), &[])?;
    Ok(Json(ops::purge(&api.fleet, caller.scope(), &query::job(path)?).await?).into_response())
}
