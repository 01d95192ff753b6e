//! Errors as problem documents (RFC 9457): what is wrong, with which field, and what to do.

use crate::coordinator::ops::OpError;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// When to ask again what the fleet cannot do just now, seconds.
const RETRY_AFTER_S: u64 = 5;

/// One error as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    /// The last part of the problem's type; stable, for programs.
    kind: &'static str,
    title: &'static str,
    /// For people.
    detail: String,
    /// The field of the document, the parameter or the header that is wrong.
    field: Option<String>,
    retry_after_s: Option<u64>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, title, detail: detail.into(), field: None, retry_after_s: None }
    }

    fn of(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    fn again(mut self) -> Self {
        self.retry_after_s = Some(RETRY_AFTER_S);
        self
    }

    pub fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "no-route", "There is no such path", "GET /openapi.json lists all of them")
    }

    pub fn wrong_method() -> Self {
        let detail = "the header Allow lists the methods of this path";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", "The path does not have this method", detail)
    }

    pub fn busy(detail: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "The coordinator is busy", detail).again()
    }

    pub fn too_slow() -> Self {
        let detail = "the request was not read and answered in time; asking again does no harm";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "too-slow", "The request took too long", detail).again()
    }

    pub fn unauthorized(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Who are you?", detail).of("authorization")
    }

    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "This is not allowed", detail)
    }

    pub fn not_found(field: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is none", detail).of(field)
    }

    /// A query parameter or header that is wrong.
    pub fn parameter(name: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-parameter", "A parameter is wrong", detail).of(name)
    }

    pub fn media_type(field: &str, detail: &str) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "The body is not JSON", detail).of(field)
    }

    /// A body that is wrong in one field, `.` for the whole of it.
    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        let status = if field == "." { StatusCode::BAD_REQUEST } else { StatusCode::UNPROCESSABLE_ENTITY };
        Self::new(status, "invalid-document", "The document is wrong", detail).of(field)
    }

    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The document is too large", detail).of(".")
    }
}

impl From<OpError> for Problem {
    fn from(error: OpError) -> Self {
        let text = error.to_string();
        match error {
            OpError::NoJob(_) | OpError::NoTenant(_) => Self::not_found("id", text),
            OpError::Invalid(wrong) => Self::invalid(&wrong.path, wrong.reason),
            OpError::Taken(wrong) => Self::new(StatusCode::CONFLICT, "id-taken", "The id is taken", wrong.reason).of(wrong.path),
            OpError::Conflict(_) => Self::new(StatusCode::CONFLICT, "conflict", "The job's state does not allow it", text),
            OpError::Forbidden(_) => Self::forbidden(text),
            OpError::Exhausted(_) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "quota", "A quota of the tenant is used up", text).again()
            }
            OpError::Store(_) | OpError::Broker(_) | OpError::Internal(_) => {
                // What is behind us is no business of a customer's; the log has it.
                tracing::warn!(error = text, "a request failed");
                let detail = "the store or the broker could not be reached; asking again does no harm";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The fleet is not available", detail).again()
            }
        }
    }
}

/// Marks a response whose body still lacks the path it is about.
#[derive(Clone)]
struct Pending(Problem);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Body::empty()).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let ways = HeaderValue::from_static("Basic realm=\"narrows\", charset=\"UTF-8\", Bearer realm=\"narrows\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, ways);
        }
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(Pending(self));
        response
    }
}

/// Writes a problem's document, which names the path of the request. Other responses pass.
pub(super) fn locate(mut response: Response, path: &str) -> Response {
    let Some(Pending(problem)) = response.extensions_mut().remove() else { return response };
    let mut document = json!({
        "type": format!("urn:narrows:problem:{}", problem.kind),
        "title": problem.title,
        "status": problem.status.as_u16(),
        "detail": problem.detail,
        "instance": path,
    });
    if let Some(field) = &problem.field {
        document["field"] = field.as_str().into();
    }
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(document.to_string());
    response
}
