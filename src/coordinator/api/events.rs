//! A job's events over HTTP: as pages, or as a stream that goes on until the job has ended (server-sent events).
//!
//! The stream reads the bucket, so it is right whoever records the events; what is told live only wakes it up early.

use super::auth::Caller;
use super::jobs::PathOf;
use super::live::{Live, LiveKind};
use super::problem::Problem;
use super::query;
use super::state::Api;
use crate::coordinator::ops::{self, MOST_EVENTS, OpError, Scope};
use crate::event::{Recorded, rfc3339};
use crate::job::JobId;
use crate::shutdown::Stop;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::stream;
use serde_json::json;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio::time::Instant;

/// Events of one page, where nobody says how many.
const PAGE_EVENTS: u64 = 100;
/// How often a stream looks into the bucket when nothing wakes it up.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often a silent stream says that it is there.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// A stream ends after so long; its reader goes on where it was.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// `GET /v1/jobs/{id}/events`.
pub(super) async fn events(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    RawQuery(text): RawQuery,
    path: PathOf,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = query::Query::parse(text.as_deref(), &["after", "limit"])?;
    let (job, after) = (query::job(path)?, query.number("after", 0, 0, u64::MAX)?);
    let limit = query.number("limit", PAGE_EVENTS, 1, MOST_EVENTS)?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accept.split(',').any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == "text/event-stream")) {
        return Ok(Json(ops::events(&api.fleet, caller.scope(), &job, after, limit).await?).into_response());
    }
    follow(api, caller, job, last_event_id(&headers)?.unwrap_or(after)).await
}

/// Where a reader was that comes back.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| Problem::parameter("last-event-id", "is none that this stream gave"))
}

async fn follow(api: Api, caller: Caller, job: JobId, after: u64) -> Result<Response, Problem> {
    // Listened to before the first look, or what comes in between is not heard of.
    let live = api.hub.listen();
    let page = ops::events(&api.fleet, caller.scope(), &job, after, MOST_EVENTS).await?;
    if page.complete && page.events.is_empty() {
        // This tells a browser not to come back (HTML, server-sent events, 9.2.3).
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let Ok(permit) = api.streams.clone().try_acquire_owned() else {
        return Err(Problem::busy("too many event streams at once; read pages instead"));
    };
    let stop = api.stop.clone();
    let reader = Reader {
        api,
        caller,
        job,
        after: page.next_after,
        pending: page.events.iter().map(recorded).collect(),
        is_complete: page.complete,
        live,
        stop,
        ends_at: Instant::now() + LONGEST,
        _permit: permit,
    };
    let events =
        stream::unfold(reader, |mut reader| async { reader.next().await.map(|sent| (Ok::<_, Infallible>(sent), reader)) });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response())
}

/// One stream.
struct Reader {
    api: Api,
    caller: Caller,
    job: JobId,
    /// Sequence of the last event read.
    after: u64,
    pending: VecDeque<Sent>,
    /// The last event is among those pending, or sent.
    is_complete: bool,
    live: broadcast::Receiver<Arc<Live>>,
    stop: Stop,
    ends_at: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some(sent) = self.pending.pop_front() {
                return Some(sent);
            }
            if self.is_complete {
                return None;
            }
            tokio::select! {
                biased;
                () = self.stop.requested() => return None,
                () = tokio::time::sleep_until(self.ends_at) => return None,
                sent = woken(&mut self.live, &self.job) => if sent.is_some() { return sent },
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let scope: Scope<'_> = self.caller.scope();
            match ops::events(&self.api.fleet, scope, &self.job, self.after, MOST_EVENTS).await {
                Ok(page) => {
                    (self.after, self.is_complete) = (page.next_after, page.complete);
                    self.pending.extend(page.events.iter().map(recorded));
                }
                // Purged meanwhile.
                Err(OpError::NoJob(_)) => return None,
                Err(error) => tracing::debug!(job = %self.job, %error, "an event stream waits for the bucket"),
            }
        }
    }
}

/// What was told of the job live: something to send, or nothing but a reason to look.
async fn woken(live: &mut broadcast::Receiver<Arc<Live>>, job: &JobId) -> Option<Sent> {
    loop {
        let told = match live.recv().await {
            Ok(told) => told,
            Err(broadcast::error::RecvError::Lagged(_)) => return None,
            // The hub has gone; the bucket is looked into all the same.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        };
        match &told.kind {
            _ if told.job != *job => {}
            LiveKind::Recorded => return None,
            LiveKind::Progress { part, frames, at_ms } => {
                let data = json!({"job": job, "part": part, "frames": frames, "at": rfc3339::format(*at_ms)});
                return Some(Sent::default().event("progress").data(data.to_string()));
            }
        }
    }
}

fn recorded(event: &Recorded) -> Sent {
    let data = serde_json::to_string(event).expect("an event is plain data");
    Sent::default().id(event.sequence.to_string()).event(&event.kind).data(data)
}
