//! A proxy in front of an HTTP store that fails some of the requests, in each way in which a request can fail.

use super::http::{Kind, Message, Wire};
use super::proxy::Background;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

const UNAVAILABLE: &[u8] = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";

/// What only the target of a list holds: of S3, of Azure, of Google.
const LISTS: [&str; 3] = ["list-type=", "comp=list", "/o?prefix="];

/// How one request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreFault {
    /// 503, and the store never hears of it.
    Error,
    /// Late, otherwise well.
    Slow,
    /// The connection breaks before the store hears of it.
    RequestLost,
    /// The store does it; the connection breaks before its answer is back.
    ReplyLost,
}

impl StoreFault {
    pub const ALL: [StoreFault; 4] = [StoreFault::Error, StoreFault::Slow, StoreFault::RequestLost, StoreFault::ReplyLost];
}

/// What happens to requests that nobody planned anything for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreFaults {
    /// Of a hundred requests so many fail, each in one of the four ways.
    pub per_cent: u32,
    /// How late slow ones are.
    pub slow: Duration,
}

impl StoreFaults {
    pub const NONE: StoreFaults = StoreFaults { per_cent: 0, slow: Duration::from_secs(1) };
}

/// What went through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Requests that came, by method; a list is a `LIST`.
    pub by_method: BTreeMap<String, u64>,
    pub failed: BTreeMap<StoreFault, u64>,
    /// Of the bodies.
    pub bytes_up: u64,
    pub bytes_down: u64,
}

impl Requests {
    pub fn total(&self) -> u64 {
        self.by_method.values().sum()
    }
}

/// The proxy. Dropped, its connections are closed.
pub struct StoreProxy {
    port: u16,
    shared: Arc<Shared>,
    _background: Background,
}

struct Shared {
    upstream: u16,
    state: Mutex<State>,
}

struct State {
    faults: StoreFaults,
    planned: BTreeMap<String, VecDeque<StoreFault>>,
    chance: StdRng,
    requests: Requests,
}

impl StoreProxy {
    /// In front of a loopback port; everything passes until faults are set.
    #[track_caller]
    pub fn start(upstream: u16, seed: u64) -> Self {
        let background = Background::new();
        let (listener, port) = background.listen();
        let state = State {
            faults: StoreFaults::NONE,
            planned: BTreeMap::new(),
            chance: StdRng::seed_from_u64(seed),
            requests: Requests::default(),
        };
        let shared = Arc::new(Shared { upstream, state: Mutex::new(state) });
        background.spawn(accept(listener, shared.clone()));
        Self { port, shared, _background: background }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn set(&self, faults: StoreFaults) {
        self.shared.lock().faults = faults;
    }

    /// The next request of that method (`LIST` for lists) fails in this way, the one after it as planned after it.
    pub fn plan(&self, method: &str, fault: StoreFault) {
        self.shared.lock().planned.entry(method.into()).or_default().push_back(fault);
    }

    pub fn requests(&self) -> Requests {
        self.shared.lock().requests.clone()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Counts a request and decides how it fails, if it does.
    fn judge(&self, request: &Message) -> (Option<StoreFault>, Duration) {
        let is_list = request.method() == "GET" && LISTS.iter().any(|word| request.target().contains(word));
        let method = if is_list { "LIST" } else { request.method() }.to_string();
        let mut state = self.lock();
        *state.requests.by_method.entry(method.clone()).or_default() += 1;
        state.requests.bytes_up += request.body.len() as u64;
        let planned = state.planned.get_mut(&method).and_then(VecDeque::pop_front);
        let fault = planned.or_else(|| {
            let per_cent = state.faults.per_cent;
            let fails = per_cent > 0 && state.chance.random_range(0..100) < per_cent;
            fails.then(|| StoreFault::ALL[state.chance.random_range(0..StoreFault::ALL.len())])
        });
        if let Some(fault) = fault {
            *state.requests.failed.entry(fault).or_default() += 1;
        }
        (fault, state.faults.slow)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            // A connection that breaks is tried again by whoever made it.
            let _ = carry(client, &shared).await;
        });
    }
}

struct Upstream {
    reads: Wire<OwnedReadHalf>,
    writes: OwnedWriteHalf,
}

impl Upstream {
    async fn connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let (reads, writes) = stream.into_split();
        Ok(Self { reads: Wire::new(reads), writes })
    }

    async fn ask(&mut self, request: &Message) -> std::io::Result<Message> {
        self.writes.write_all(&request.raw).await?;
        let kind = if request.method() == "HEAD" { Kind::ResponseToHead } else { Kind::Response };
        self.reads.message(kind).await?.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }
}

async fn carry(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let (reads, mut writes) = client.into_split();
    let mut requests = Wire::new(reads);
    let mut upstream = None;
    while let Some(request) = requests.message(Kind::Request).await? {
        let (fault, slow) = shared.judge(&request);
        match fault {
            Some(StoreFault::Error) => {
                let length = if request.method() == "HEAD" { 0 } else { UNAVAILABLE.len() };
                let head = format!("HTTP/1.1 503 Slow Down\r\ncontent-type: application/xml\r\ncontent-length: {length}\r\n\r\n");
                writes.write_all(head.as_bytes()).await?;
                writes.write_all(&UNAVAILABLE[..length]).await?;
                continue;
            }
            Some(StoreFault::RequestLost) => return Ok(()),
            Some(StoreFault::Slow) => tokio::time::sleep(slow).await,
            Some(StoreFault::ReplyLost) | None => {}
        }
        let mut server = match upstream.take() {
            Some(server) => server,
            None => Upstream::connect(shared.upstream).await?,
        };
        let answer = server.ask(&request).await?;
        if fault == Some(StoreFault::ReplyLost) {
            return Ok(());
        }
        shared.lock().requests.bytes_down += answer.body.len() as u64;
        writes.write_all(&answer.raw).await?;
        if answer.closes() || request.closes() {
            return Ok(());
        }
        upstream = Some(server);
    }
    Ok(())
}
