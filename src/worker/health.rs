//! Is the worker alive, does it take work, and what did it do? Three pages for whoever runs it.
//!
//! `/healthz` says that the dispatcher goes round and that no delivery is open for longer than it may take. `/readyz` says that
//! broker and work store answer, that the disk has room, and that nobody asked to stop. Both only look; what `/readyz` asks of
//! others is remembered for a moment, so that asking often costs nothing. `/metrics` is what was counted, for Prometheus.

use crate::broker::{Broker, Queue};
use crate::job::JobId;
use crate::observe::{Exposition, TEXT_FORMAT};
use crate::shutdown::Stop;
use crate::store::Stores;
use crate::store::key::Key;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// A dispatcher that did not go round for so long hangs.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// How often the dispatcher says that it goes round.
pub(super) const BEAT_EVERY: Duration = Duration::from_secs(1);
/// How long an answer of broker and store is believed.
const BELIEVED_FOR: Duration = Duration::from_secs(2);
/// How long they have to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What a worker says about itself. Clones are of the same worker.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    started: Instant,
    /// Milliseconds from the start to the last beat.
    beat: AtomicU64,
    is_draining: AtomicBool,
    open: AtomicU64,
    /// Of these, deliveries that should have ended long ago.
    stuck: AtomicU64,
    shortage: Mutex<Option<String>>,
    asked: tokio::sync::Mutex<Option<(Instant, Vec<String>)>>,
}

/// What `/readyz` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    pub ready: bool,
    /// Deliveries that are being worked on.
    pub open: u64,
    /// Why not, one a line; empty when ready.
    pub because: Vec<String>,
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Inner {
            started: Instant::now(),
            beat: AtomicU64::new(0),
            is_draining: AtomicBool::new(false),
            open: AtomicU64::new(0),
            stuck: AtomicU64::new(0),
            shortage: Mutex::default(),
            asked: tokio::sync::Mutex::default(),
        }))
    }
}

impl Health {
    /// The dispatcher goes round with so many deliveries open, and so many of them for longer than they may take.
    pub(super) fn beat(&self, open: usize, stuck: usize) {
        let now = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.beat.store(now, Ordering::Relaxed);
        self.0.open.store(open as u64, Ordering::Relaxed);
        self.0.stuck.store(stuck as u64, Ordering::Relaxed);
    }

    pub(super) fn drain(&self) {
        self.0.is_draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn room(&self, shortage: Option<String>) {
        *self.0.shortage.lock().unwrap_or_else(PoisonError::into_inner) = shortage;
    }

    /// Does it get on with its work?
    pub fn is_alive(&self) -> bool {
        self.trouble().is_none()
    }

    /// Why it does not get on and never will, so that only another start helps. An outage of a broker or a store is none.
    pub fn trouble(&self) -> Option<&'static str> {
        self.trouble_at(Instant::now())
    }

    fn trouble_at(&self, at: Instant) -> Option<&'static str> {
        let beat = self.0.started + Duration::from_millis(self.0.beat.load(Ordering::Relaxed));
        if at.saturating_duration_since(beat) >= LONGEST_SILENCE {
            return Some("the dispatcher hangs");
        }
        (self.0.stuck.load(Ordering::Relaxed) > 0).then_some("a delivery is open for longer than it may take")
    }

    /// What it does, in a few words.
    pub fn in_words(&self) -> String {
        let open = self.0.open.load(Ordering::Relaxed);
        match self.trouble() {
            Some(trouble) => format!("{open} open; {trouble}"),
            None if self.0.is_draining.load(Ordering::Relaxed) => format!("draining, {open} open"),
            None => format!("working, {open} open"),
        }
    }

    /// Does the worker take work, and if not, why?
    pub async fn readiness(&self, broker: &dyn Broker, stores: &Stores) -> Readiness {
        let mut because = Vec::new();
        if self.0.is_draining.load(Ordering::Relaxed) {
            because.push("it is draining".into());
        }
        because.extend(self.trouble().map(String::from));
        because.extend(self.0.shortage.lock().unwrap_or_else(PoisonError::into_inner).clone());
        because.extend(self.others(broker, stores).await);
        Readiness { ready: because.is_empty(), open: self.0.open.load(Ordering::Relaxed), because }
    }

    async fn others(&self, broker: &dyn Broker, stores: &Stores) -> Vec<String> {
        // Held over the questions: whoever asks meanwhile gets the same answer.
        let mut asked = self.0.asked.lock().await;
        if let Some((at, answer)) = &*asked
            && at.elapsed() < BELIEVED_FOR
        {
            return answer.clone();
        }
        let late = |what: &str| format!("{what} does not answer");
        let probe = Key::job(&JobId::try_from("readiness".to_string()).expect("letters are a job id"));
        let (queue, object) = tokio::join!(
            tokio::time::timeout(ANSWER_WITHIN, broker.depth(Queue::Dead)),
            tokio::time::timeout(ANSWER_WITHIN, stores.work().size(&probe)),
        );
        let mut answer = Vec::new();
        match queue {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => answer.push(format!("the broker: {error}")),
            Err(_) => answer.push(late("the broker")),
        }
        match object {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => answer.push(format!("the work store: {error}")),
            Err(_) => answer.push(late("the work store")),
        }
        *asked = Some((Instant::now(), answer.clone()));
        answer
    }
}

/// What the pages are made of.
#[derive(Clone)]
pub struct Pages {
    pub health: Health,
    pub broker: Arc<dyn Broker>,
    pub stores: Stores,
    pub metrics: Exposition,
}

/// Answers on `listener` until asked to stop.
///
/// # Errors
/// The socket broke.
pub async fn serve(listener: TcpListener, pages: Pages, mut stop: Stop) -> std::io::Result<()> {
    let routes = Router::new().route("/healthz", get(alive)).route("/readyz", get(ready)).route("/metrics", get(metrics));
    let pages = routes.with_state(pages);
    axum::serve(listener, pages).with_graceful_shutdown(async move { stop.requested().await }).await
}

async fn metrics(State(pages): State<Pages>) -> Response {
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], (pages.metrics)()).into_response()
}

async fn alive(State(pages): State<Pages>) -> Response {
    match pages.health.trouble() {
        None => (StatusCode::OK, "alive\n").into_response(),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response(),
    }
}

async fn ready(State(pages): State<Pages>) -> Response {
    let readiness = pages.health.readiness(&*pages.broker, &pages.stores).await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::{Bounds, MemoryBroker};
    use crate::shutdown;
    use crate::store::Store;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn page(address: std::net::SocketAddr, path: &str) -> (u16, String) {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        (text.split(' ').nth(1).unwrap().parse().unwrap(), text.split("\r\n\r\n").nth(1).unwrap().to_string())
    }

    #[tokio::test]
    async fn a_worker_is_ready_until_it_drains_and_alive_as_long_as_it_goes_round() {
        let dir = tempfile::tempdir().unwrap();
        let stores = Stores::new(Store::folder(&dir.path().join("work"), &dir.path().join("tmp")).unwrap());
        let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Bounds::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (health, address) = (Health::default(), listener.local_addr().unwrap());
        let (stopper, stop) = shutdown::channel();
        let pages = Pages { health: health.clone(), broker, stores, metrics: Arc::new(|| "narrows_x 1\n".to_string()) };
        let server = tokio::spawn(serve(listener, pages, stop));
        health.beat(1, 0);
        assert_eq!(page(address, "/metrics").await, (200, "narrows_x 1\n".into()));
        assert_eq!(page(address, "/healthz").await, (200, "alive\n".into()));
        assert_eq!(page(address, "/readyz").await, (200, r#"{"ready":true,"open":1,"because":[]}"#.into()));
        health.room(Some("the disk has 5 bytes free".into()));
        assert_eq!(page(address, "/readyz").await.0, 503);
        health.room(None);
        health.drain();
        let (status, body) = page(address, "/readyz").await;
        assert!(status == 503 && body.contains("draining"), "{status} {body}");
        assert_eq!(page(address, "/healthz").await.0, 200, "a worker that drains is alive");
        health.beat(1, 1);
        assert_eq!(page(address, "/healthz").await, (503, "a delivery is open for longer than it may take\n".into()));
        stopper.stop();
        server.await.unwrap().unwrap();
    }

    #[test]
    fn a_dispatcher_that_does_not_go_round_is_not_alive() {
        let health = Health::default();
        let started = health.0.started;
        assert!(health.is_alive());
        assert_eq!(health.trouble_at(started + LONGEST_SILENCE - Duration::from_millis(1)), None);
        assert_eq!(health.trouble_at(started + LONGEST_SILENCE), Some("the dispatcher hangs"));
        health.0.beat.store(1000, Ordering::Relaxed);
        assert_eq!(health.trouble_at(started + LONGEST_SILENCE), None);
    }

    #[test]
    fn what_it_says_of_itself_is_what_it_does() {
        let health = Health::default();
        health.beat(2, 0);
        assert_eq!(health.in_words(), "working, 2 open");
        health.drain();
        assert_eq!(health.in_words(), "draining, 2 open");
        health.beat(2, 1);
        assert_eq!(health.in_words(), "2 open; a delivery is open for longer than it may take");
        assert!(!health.is_alive());
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_asked_makes_a_worker_not_ready() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        let stores = Stores::new(Store::folder(&work, &dir.path().join("tmp")).unwrap());
        let broker = MemoryBroker::new(Bounds::default());
        // A file where the folder of jobs should be.
        std::fs::write(work.join("jobs"), b"x").unwrap();
        let readiness = Health::default().readiness(&broker, &stores).await;
        assert!(!readiness.ready && readiness.because[0].contains("work store"), "{readiness:?}");
    }
}
