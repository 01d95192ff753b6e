//! The HTTP API: what a tenant may ask of the fleet, and an operator.
//!
//! Every request passes the same way: a limit on how many there are, a limit on its time, who asks, then its route. Nothing
//! stands before the pages of whoever runs the coordinator, which wait for nobody: one that has much to do is not dead. Every
//! error is a problem document (RFC 9457) that names the field. The contract is `openapi.json`, compiled in; a test holds
//! routes and answers against it.

mod auth;
mod events;
mod fleet;
mod health;
mod jobs;
mod live;
mod operator;
mod problem;
mod query;
mod serve;
mod state;

pub(super) use auth::has_credentials;
pub(super) use live::Hub;
pub use operator::Operator;
pub(super) use serve::serve;
pub(super) use state::Api;

use crate::job::MAX_DOCUMENT_BYTES;
use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use problem::Problem;
use std::time::Instant;

/// The contract (OpenAPI 3.1).
pub const OPENAPI: &str = include_str!("api/openapi.json");
/// Bytes of a body that are read beyond the longest document, so that one that is too long can be told so.
const BODY_MARGIN: usize = 1024;

/// A path and what answers it.
type Route = (&'static str, MethodRouter<Api>);

/// Every path that work stands behind; with [`pages`], `openapi.json` has the same.
fn routes() -> [Route; 11] {
    [
        ("/v1/jobs", post(jobs::submit).get(jobs::list)),
        ("/v1/jobs/{id}", get(jobs::show).delete(jobs::purge)),
        ("/v1/jobs/{id}/events", get(events::events)),
        ("/v1/jobs/{id}/cancel", post(jobs::cancel)),
        ("/v1/jobs/{id}/replay", post(jobs::replay)),
        ("/v1/usage", get(fleet::usage)),
        ("/v1/tenants/{id}", get(fleet::tenant)),
        ("/v1/tenants/{id}/freeze", post(fleet::freeze)),
        ("/v1/tenants/{id}/unfreeze", post(fleet::unfreeze)),
        ("/readyz", get(health::ready)),
        ("/openapi.json", get(contract)),
    ]
}

/// Pages that answer at once whatever else there is to do.
fn pages() -> [Route; 2] {
    [("/healthz", get(health::alive)), ("/metrics", get(health::metrics))]
}

fn routed(routes: impl IntoIterator<Item = Route>) -> Router<Api> {
    let routes = routes.into_iter().fold(Router::new(), |router, (path, answer)| router.route(path, answer));
    routes.method_not_allowed_fallback(async || Problem::wrong_method())
}

/// The API as a service.
pub(super) fn router(api: Api) -> Router {
    let routes = routed(routes())
        .fallback(async || Problem::no_route())
        .layer(DefaultBodyLimit::max(MAX_DOCUMENT_BYTES + BODY_MARGIN))
        .layer(middleware::from_fn_with_state(api.clone(), auth::identify))
        .layer(middleware::from_fn_with_state(api.clone(), limit));
    routed(pages()).merge(routes).layer(middleware::from_fn_with_state(api.clone(), finish)).with_state(api)
}

/// Not too many at once, and none for ever.
async fn limit(State(api): State<Api>, request: Request, next: Next) -> Response {
    let Ok(_permit) = api.requests.try_acquire() else { return Problem::busy("too many requests at once").into_response() };
    match tokio::time::timeout(api.settings.request_timeout(), next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::too_slow().into_response(),
    }
}

/// What every answer has, and that it was given.
async fn finish(State(api): State<Api>, request: Request, next: Next) -> Response {
    let (path, began) = (request.uri().path().to_string(), Instant::now());
    // The pattern, of which there are few; a path that is none of ours may be anything.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let answer = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    api.fleet.observer.answered(route, answer.status().as_u16(), began.elapsed());
    let mut response = problem::locate(answer, &path);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn contract() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

#[cfg(test)]
mod tests;
