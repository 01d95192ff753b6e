//! A TCP proxy that breaks connections on demand, and counts what goes through them.
//!
//! It runs on threads of its own, so that a test may block.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Bytes carried at once.
const PIECE: usize = 64 * 1024;
/// Bytes after which a connection that is fated to break does so, at most.
const BREAKS_WITHIN: u64 = 64 * 1024;

/// A runtime with threads of its own; dropped, its tasks end where they wait.
pub struct Background(Option<Runtime>);

impl Background {
    #[track_caller]
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self(Some(runtime.expect("a runtime can be made")))
    }

    /// Listens on a free loopback port.
    #[track_caller]
    pub fn listen(&self) -> (TcpListener, u16) {
        let port = super::server::free_port();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
        listener.set_nonblocking(true).expect("the listener is a socket");
        let runtime = self.0.as_ref().expect("the runtime runs until it is dropped");
        let _entered = runtime.enter();
        (TcpListener::from_std(listener).expect("the runtime listens"), port)
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.as_ref().expect("the runtime runs until it is dropped").spawn(task);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // In asynchronous code a runtime may not wait for its own end.
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// Which way bytes go: up to the server, down to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
    Both,
}

/// What happens to connections, those there are and new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Pass,
    /// They are reset (TCP RST), whoever tries.
    Reset,
    /// Bytes are held back until another fault is set, and then go on.
    Stall(Way),
    /// What the client says gets through; at the first byte of an answer the connection is reset.
    CutReplies,
    /// Every piece is late by so much.
    Delay(Duration),
    /// So many of a hundred new connections are reset after a few kilobytes.
    Flaky(u32),
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub connections: u64,
    pub resets: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
}

/// Looks at the bytes of one direction of one connection as they pass.
pub trait Tap: Send {
    fn pass(&mut self, bytes: &[u8]);
}

/// Makes the taps of a new connection: up and down.
pub type Taps = dyn Fn() -> (Box<dyn Tap>, Box<dyn Tap>) + Send + Sync;

struct NoTap;

impl Tap for NoTap {
    fn pass(&mut self, _: &[u8]) {}
}

/// The proxy. Dropped, its connections are closed.
pub struct FaultProxy {
    port: u16,
    shared: Arc<Shared>,
    _background: Background,
}

struct Shared {
    upstream: u16,
    fault: watch::Sender<Fault>,
    /// Changes when every connection there is is to be reset.
    resets: watch::Sender<u64>,
    chance: Mutex<StdRng>,
    taps: Box<Taps>,
    open: AtomicUsize,
    connections: AtomicU64,
    broken: AtomicU64,
    bytes: [AtomicU64; 2],
}

impl FaultProxy {
    /// In front of a loopback port; everything passes until a fault is set. `seed` decides what [`Fault::Flaky`] breaks.
    #[track_caller]
    pub fn start(upstream: u16, seed: u64) -> Self {
        Self::with_taps(upstream, seed, Box::new(|| (Box::new(NoTap), Box::new(NoTap))))
    }

    #[track_caller]
    pub fn with_taps(upstream: u16, seed: u64, taps: Box<Taps>) -> Self {
        let background = Background::new();
        let (listener, port) = background.listen();
        let shared = Arc::new(Shared {
            upstream,
            fault: watch::Sender::new(Fault::Pass),
            resets: watch::Sender::new(0),
            chance: Mutex::new(StdRng::seed_from_u64(seed)),
            taps,
            open: AtomicUsize::new(0),
            connections: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            bytes: [AtomicU64::new(0), AtomicU64::new(0)],
        });
        background.spawn(accept(listener, shared.clone()));
        Self { port, shared, _background: background }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    pub fn set(&self, fault: Fault) {
        self.shared.fault.send_replace(fault);
    }

    /// Resets the connections there are; new ones are treated as before.
    pub fn reset_all(&self) {
        self.shared.resets.send_modify(|count| *count += 1);
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    pub fn traffic(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let shared = &self.shared;
        Traffic {
            connections: read(&shared.connections),
            resets: read(&shared.broken),
            bytes_up: read(&shared.bytes[0]),
            bytes_down: read(&shared.bytes[1]),
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // What cannot be accepted is tried again by whoever wanted to connect.
    while let Ok((client, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let shared = shared.clone();
        tokio::spawn(async move {
            carry(client, &shared).await;
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn carry(mut client: TcpStream, shared: &Shared) {
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.upstream)).await else {
        return reset(&client);
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let fate = shared.fate();
    let (up, down) = (shared.taps)();
    let broken = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let up = pump(shared, Way::Up, fate, client_reads, server_writes, up);
        let down = pump(shared, Way::Down, fate, server_reads, client_writes, down);
        // One direction may end before the other; a break breaks both.
        tokio::try_join!(up, down).is_err()
    };
    if broken {
        shared.broken.fetch_add(1, Ordering::SeqCst);
        reset(&client);
        reset(&server);
    }
}

/// The next `close` sends RST.
fn reset(stream: &TcpStream) {
    let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    let _ = nix::sys::socket::setsockopt(&stream.as_fd(), nix::sys::socket::sockopt::Linger, &now);
}

/// The connection is to be reset.
struct Broken;

async fn pump(
    shared: &Shared,
    way: Way,
    fate: u64,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut tap: Box<dyn Tap>,
) -> Result<(), Broken> {
    let mut fault = shared.fault.subscribe();
    let mut resets = shared.resets.subscribe();
    resets.mark_unchanged();
    let counter = &shared.bytes[usize::from(way == Way::Down)];
    let mut piece = vec![0; PIECE];
    let mut carried = 0;
    loop {
        let read = tokio::select! {
            read = from.read(&mut piece) => read.map_err(|_| Broken)?,
            _ = broken(&mut fault) => return Err(Broken),
            _ = resets.changed() => return Err(Broken),
        };
        tokio::select! {
            passed = pass(&mut fault, way) => passed?,
            _ = resets.changed() => return Err(Broken),
        }
        if read == 0 {
            let _ = to.shutdown().await;
            return Ok(());
        }
        carried += read as u64;
        if carried > fate {
            return Err(Broken);
        }
        tap.pass(&piece[..read]);
        counter.fetch_add(read as u64, Ordering::SeqCst);
        tokio::select! {
            written = to.write_all(&piece[..read]) => written.map_err(|_| Broken)?,
            _ = resets.changed() => return Err(Broken),
        }
    }
}

/// Waits for [`Fault::Reset`].
async fn broken(fault: &mut watch::Receiver<Fault>) {
    if fault.wait_for(|fault| *fault == Fault::Reset).await.is_err() {
        std::future::pending().await
    }
}

/// Waits until a piece may go this way.
async fn pass(fault: &mut watch::Receiver<Fault>, way: Way) -> Result<(), Broken> {
    loop {
        let now = *fault.borrow_and_update();
        match now {
            Fault::Pass | Fault::Flaky(_) => return Ok(()),
            Fault::Reset => return Err(Broken),
            Fault::CutReplies if way == Way::Down => return Err(Broken),
            Fault::Stall(held) if held == way || held == Way::Both => {
                fault.changed().await.map_err(|_| Broken)?;
            }
            Fault::CutReplies | Fault::Stall(_) => return Ok(()),
            Fault::Delay(time) => {
                tokio::time::sleep(time).await;
                return Ok(());
            }
        }
    }
}

impl Shared {
    /// Bytes that a new connection carries either way before it breaks.
    fn fate(&self) -> u64 {
        let Fault::Flaky(per_cent) = *self.fault.borrow() else { return u64::MAX };
        let mut chance = self.chance.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if chance.random_range(0..100) < per_cent { chance.random_range(0..BREAKS_WITHIN) } else { u64::MAX }
    }
}
