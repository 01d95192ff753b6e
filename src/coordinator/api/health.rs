//! Is it alive, can it do its work, and what did it do?

use super::state::Api;
use crate::broker::Queue;
use crate::job::JobId;
use crate::observe::TEXT_FORMAT;
use crate::store::key::Key;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::time::Duration;

/// How long the store and the broker have to answer.
const LONGEST: Duration = Duration::from_secs(3);

/// `GET /healthz`: the process answers.
pub(super) async fn alive() -> Response {
    Json(json!({"alive": true})).into_response()
}

/// `GET /metrics`: what was counted, for Prometheus.
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], (api.metrics)()).into_response()
}

/// `GET /readyz`: the store and the broker answer, and nobody asked it to stop.
pub(super) async fn ready(State(api): State<Api>) -> Response {
    let key = Key::status(&JobId::try_from("readiness".to_string()).expect("letters are a job id"));
    let (store, broker) = (api.fleet.stores.work().size(&key), api.fleet.broker.depth(Queue::Dead));
    let store = async { matches!(tokio::time::timeout(LONGEST, store).await, Ok(Ok(_))) };
    let broker = async { matches!(tokio::time::timeout(LONGEST, broker).await, Ok(Ok(_))) };
    let (store, broker) = futures::future::join(store, broker).await;
    let is_ready = store && broker && !api.stop.is_requested();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": is_ready, "store": store, "broker": broker}))).into_response()
}
