//! A real HTTP server that takes whatever is sent to it, remembers it, and answers as it was told to.

use super::http::{Kind, Message, Wire};
use super::proxy::Background;
use super::server::PATIENCE;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How a request is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Waited before the first byte.
    pub delay: Duration,
    /// No answer: the connection is closed once the request is read.
    pub close: bool,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), delay: Duration::ZERO, close: false }
    }

    pub fn ok() -> Self {
        Self::status(200)
    }

    pub fn closed() -> Self {
        Self { close: true, ..Self::ok() }
    }

    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Seconds, or a date.
    pub fn retry_after(self, value: &str) -> Self {
        self.header("retry-after", value)
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// One request that came.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its place among all that came, from 0.
    pub number: usize,
    pub at: Instant,
    pub clock: SystemTime,
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The status it was answered with; `None` where the connection was closed instead.
    pub answered: Option<u16>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{}: {e}", String::from_utf8_lossy(&self.body)))
    }

    /// As the libraries of others take them.
    #[track_caller]
    pub fn header_map(&self) -> axum::http::HeaderMap {
        let parse = |(name, value): &(String, String)| {
            let name: axum::http::HeaderName = name.parse().expect("a header's name");
            (name, value.parse::<axum::http::HeaderValue>().expect("a header's value"))
        };
        self.headers.iter().map(parse).collect()
    }
}

/// The receiver. It listens until it is dropped.
pub struct Receiver {
    port: u16,
    shared: Arc<Shared>,
    _background: Background,
}

struct Shared {
    state: Mutex<State>,
    /// How many came.
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    received: Vec<Received>,
    scripts: BTreeMap<String, VecDeque<Answer>>,
    always: BTreeMap<String, Answer>,
}

impl Receiver {
    /// Answers 200 to everything until it is told otherwise.
    #[track_caller]
    pub fn start() -> Self {
        let background = Background::new();
        let (listener, port) = background.listen();
        let shared = Arc::new(Shared { state: Mutex::default(), count: watch::Sender::new(0) });
        background.spawn(accept(listener, shared.clone()));
        Self { port, shared, _background: background }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `path` begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The next requests for this path are answered in this order, those after them as always.
    pub fn script(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.shared.lock().scripts.entry(path.into()).or_default().extend(answers);
    }

    /// Every request for this path that has no script is answered so.
    pub fn always(&self, path: &str, answer: Answer) {
        self.shared.lock().always.insert(path.into(), answer);
    }

    /// Everything that came, in the order in which it came.
    pub fn received(&self) -> Vec<Received> {
        self.shared.lock().received.clone()
    }

    /// What came for one path.
    pub fn received_at(&self, path: &str) -> Vec<Received> {
        self.shared.lock().received.iter().filter(|r| r.path == path).cloned().collect()
    }

    /// Waits until what came so far is enough, and returns it.
    ///
    /// # Panics
    /// It is not within a minute.
    pub async fn until(&self, what: &str, enough: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let mut count = self.shared.count.subscribe();
        let wait = async {
            loop {
                let received = self.received();
                if enough(&received) {
                    return received;
                }
                count.changed().await.expect("the receiver is there");
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        waited.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}; {} requests came", self.received().len()))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn take(&self, request: Message) -> Answer {
        let mut state = self.lock();
        let path = request.target().to_string();
        let scripted = state.scripts.get_mut(&path).and_then(VecDeque::pop_front);
        let answer = scripted.or_else(|| state.always.get(&path).cloned()).unwrap_or_else(Answer::ok);
        let number = state.received.len();
        state.received.push(Received {
            number,
            at: Instant::now(),
            clock: SystemTime::now(),
            method: request.method().to_string(),
            path,
            headers: request.headers,
            body: request.body,
            answered: (!answer.close).then_some(answer.status),
        });
        drop(state);
        self.count.send_replace(number + 1);
        answer
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            // Whoever breaks off a request of his knows it.
            let _ = serve(client, &shared).await;
        });
    }
}

async fn serve(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let (reads, mut writes) = client.into_split();
    let mut requests = Wire::new(reads);
    while let Some(request) = requests.message(Kind::Request).await? {
        let closes = request.closes();
        let answer = shared.take(request);
        tokio::time::sleep(answer.delay).await;
        if answer.close {
            return Ok(());
        }
        let mut head = format!("HTTP/1.1 {} Scripted\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        writes.write_all((head + "\r\n").as_bytes()).await?;
        writes.write_all(&answer.body).await?;
        if closes {
            return Ok(());
        }
    }
    Ok(())
}
