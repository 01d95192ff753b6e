//! What concerns a tenant as a whole: what it used, whether it may go on.

use super::auth::Caller;
use super::jobs::{BodyOf, PathOf};
use super::problem::Problem;
use super::query;
use super::state::Api;
use crate::coordinator::ops::{self, OpError};
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::json;

/// `GET /v1/usage`.
pub(super) async fn usage(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(text): RawQuery,
) -> Result<Response, Problem> {
    let query = query::Query::parse(text.as_deref(), &["from", "to", "tenant"])?;
    let tenant = caller.tenant(query.text("tenant"))?;
    let day = |name| query.text(name).ok_or_else(|| Problem::parameter(name, "is missing; give a day like 2023-11-14"));
    let report = match ops::usage(&api.fleet, tenant, day("from")?, day("to")?).await {
        Err(OpError::Invalid(wrong)) => return Err(Problem::parameter(&wrong.path, wrong.reason)),
        report => report?,
    };
    Ok(Json(report).into_response())
}

/// `GET /v1/tenants/{id}`.
pub(super) async fn tenant(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(text): RawQuery,
    path: PathOf,
) -> Result<Response, Problem> {
    query::Query::parse(text.as_deref(), &[])?;
    let name = query::tenant(path)?;
    let known = api.fleet.tenants.get(&name).filter(|_| caller.must_operate().is_ok() || caller.tenant(Some(&name)).is_ok());
    let Some(tenant) = known else { return Err(OpError::NoTenant(name).into()) };
    let frozen = ops::frozen(&api.fleet, &name).await?;
    Ok(Json(json!({"tenant": name, "quota": tenant.quota, "frozen": frozen})).into_response())
}

/// The body of a freeze.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Freeze {
    reason: String,
}

/// `POST /v1/tenants/{id}/freeze`.
pub(super) async fn freeze(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(text): RawQuery,
    path: PathOf,
    headers: HeaderMap,
    bytes: BodyOf,
) -> Result<Response, Problem> {
    caller.must_operate()?;
    query::Query::parse(text.as_deref(), &[])?;
    let name = query::tenant(path)?;
    let Freeze { reason } = query::small(&headers, bytes)?;
    let frozen = ops::freeze(&api.fleet, &name, &reason).await?;
    Ok(Json(json!({"tenant": name, "frozen": frozen})).into_response())
}

/// The body of an unfreeze; it may be left out.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Unfreeze {
    reason: Option<String>,
}

/// `POST /v1/tenants/{id}/unfreeze`.
pub(super) async fn unfreeze(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(text): RawQuery,
    path: PathOf,
    headers: HeaderMap,
    bytes: BodyOf,
) -> Result<Response, Problem> {
    caller.must_operate()?;
    query::Query::parse(text.as_deref(), &[])?;
    let name = query::tenant(path)?;
    let Unfreeze { reason } = query::small(&headers, bytes)?;
    let was_frozen = ops::unfreeze(&api.fleet, &name, reason.as_deref()).await?;
    Ok(Json(json!({"tenant": name, "was_frozen": was_frozen})).into_response())
}
