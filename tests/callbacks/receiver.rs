//! An HTTP server that remembers what it was sent and answers as it is told.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::serve::Listener;
use futures::StreamExt;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

/// Longest wait for a request that must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// Requests that are remembered.
const MOST_REQUESTS: usize = 4096;

/// How one request is answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub rest: Rest,
}

/// What comes after the headers.
#[derive(Clone, Debug, Default)]
pub enum Rest {
    #[default]
    Nothing,
    /// A body that does not end.
    Endless,
    /// A body whose second byte never comes.
    Silent,
    /// Not even headers come, until somebody says so.
    Withheld(Arc<Notify>),
}

pub fn status(status: u16) -> Answer {
    Answer { status, ..Answer::default() }
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Taken {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Taken {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn sequence(&self) -> u64 {
        self.json()["sequence"].as_u64().unwrap()
    }
}

struct Shared {
    answers: Mutex<VecDeque<Answer>>,
    otherwise: Mutex<Answer>,
    taken: mpsc::Sender<Taken>,
}

pub struct Receiver {
    pub port: u16,
    shared: Arc<Shared>,
    taken: mpsc::Receiver<Taken>,
}

impl Receiver {
    /// Answers 204 until told otherwise.
    pub async fn start() -> Self {
        Self::on(listen().await)
    }

    /// The same by TLS.
    pub async fn start_secure(config: ServerConfig) -> Self {
        Self::on(Secure { listener: listen().await, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    fn on<L: Listener<Addr = SocketAddr>>(listener: L) -> Self {
        let (sender, taken) = mpsc::channel(MOST_REQUESTS);
        let shared = Shared { answers: Mutex::default(), otherwise: Mutex::new(status(204)), taken: sender };
        let shared = Arc::new(shared);
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(answer).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port, shared, taken }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The answers to the next requests.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.answers.lock().unwrap().extend(answers);
    }

    /// The answer to all others.
    pub fn otherwise(&self, answer: Answer) {
        *self.shared.otherwise.lock().unwrap() = answer;
    }

    /// The next request.
    pub async fn next(&mut self) -> Taken {
        let next = tokio::time::timeout(PATIENCE, self.taken.recv()).await;
        next.expect("no request came").expect("the receiver lives as long as this")
    }

    pub async fn take(&mut self, count: usize) -> Vec<Taken> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            taken.push(self.next().await);
        }
        taken
    }

    /// What came and was not looked at yet.
    pub fn rest(&mut self) -> Vec<Taken> {
        std::iter::from_fn(|| self.taken.try_recv().ok()).collect()
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

struct Secure {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Secure {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let Ok((stream, from)) = self.listener.accept().await else { continue };
            // Whoever does not trust this server leaves; the next one may.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap().to_vec();
    let scripted = shared.answers.lock().unwrap().pop_front();
    let answer = scripted.unwrap_or_else(|| shared.otherwise.lock().unwrap().clone());
    let path = head.uri.path_and_query().unwrap().to_string();
    shared.taken.try_send(Taken { path, headers: head.headers, body }).unwrap();
    let piece = |bytes: &'static [u8]| Ok::<_, std::io::Error>(Bytes::from_static(bytes));
    let body = match answer.rest {
        Rest::Nothing => Body::empty(),
        Rest::Endless => Body::from_stream(futures::stream::repeat_with(move || piece(&[b'x'; 4096]))),
        Rest::Silent => {
            let first = futures::stream::once(std::future::ready(piece(b"x")));
            Body::from_stream(first.chain(futures::stream::pending()))
        }
        Rest::Withheld(until) => {
            until.notified().await;
            Body::empty()
        }
    };
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(body).unwrap()
}
