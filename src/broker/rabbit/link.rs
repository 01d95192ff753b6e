//! One connection, kept: made, looked after, and made again.

use super::fault::Fault;
use super::settings::{RabbitSettings, is_tls};
use super::topology::Topology;
use super::version::{OLDEST, Server};
use super::wire::{self, Address, Tap};
use crate::broker::BrokerError;
use crate::observe::Observer;
use futures::StreamExt;
use lapin::tcp::AsyncTcpStream;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// Longest wait for a server to take a TCP connection and, after it, to secure it.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for the handshake of AMQP: heartbeats guard a connection only from its end on.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for all queues to be declared; a new server makes each on its disk.
const DECLARE_WAIT: Duration = Duration::from_secs(60);
/// How often a connection or a channel is looked at whose loss nobody told.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between hearing that a queue is gone and declaring it again. RabbitMQ tells the consumers of a deleted queue that it is
/// gone, but not (seen with 3.10.8) when there is a new one of the same name by then; and they would wait for ever.
const REDECLARE_AFTER: Duration = Duration::from_secs(1);
/// First and longest wait between two attempts.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A connection that lived so long was a good one: the next attempt comes at once.
const STEADY: Duration = Duration::from_secs(10);
/// Refusals in a row by a server that took us before, until they are believed: one that starts refuses for a while.
const REFUSALS: u32 = 5;

/// What a connection is for. Publishing has its own: a server that is short of memory stops reading from who publishes,
/// and acknowledgements must still come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It also declares the topology.
    Publish,
    Consume,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Publish => "publish",
            Role::Consume => "consume",
        }
    }
}

/// A connection that comes back. Dropped, it is closed.
pub(super) struct Link {
    state: watch::Receiver<State>,
    declare: Arc<Notify>,
    task: JoinHandle<()>,
}

enum State {
    Away(String),
    Denied(String),
    Up(Arc<Live>),
}

/// A connection that was there a moment ago.
pub(super) struct Live {
    pub connection: Connection,
    /// Tells connections apart.
    pub number: u64,
    /// Name and version of the server.
    pub server: String,
    /// Who we are to the server.
    pub user: Option<String>,
    tap: Arc<Tap>,
    /// Why the server takes no messages now.
    blocked: watch::Sender<Option<String>>,
}

impl Live {
    /// A new channel.
    pub(super) async fn channel(&self) -> Result<Channel, Fault> {
        let is_there = || self.connection.status().connected();
        while_there(is_there, self.connection.create_channel()).await?.map_err(|e| Fault::from(&e))
    }

    /// Waits until the server takes messages.
    ///
    /// # Errors
    /// It does not until then; says why.
    pub(super) async fn unblocked(&self, deadline: Instant) -> Result<(), BrokerError> {
        let mut blocked = self.blocked.subscribe();
        let unblocked = async {
            while self.connection.status().blocked() && self.connection.status().connected() {
                blocked.borrow_and_update();
                // The flag is set before the event comes; the event always comes.
                let _ = timeout(LOOK_EVERY, blocked.changed()).await;
            }
        };
        let waited = timeout_at(deadline, unblocked).await;
        waited.map_err(|_| BrokerError::Gone(self.blocked_reason().unwrap_or_else(|| "the server takes no messages".into())))
    }

    /// Why the server takes no messages, when it takes none.
    pub(super) fn blocked_reason(&self) -> Option<String> {
        let reason = self.blocked.borrow().clone()?;
        Some(format!("the server takes no messages until it has resources again: {reason}"))
    }

    pub(super) fn takes_messages(&self) -> bool {
        self.connection.status().connected() && !self.connection.status().blocked()
    }
}

impl Link {
    /// Starts to connect.
    pub(super) fn start(role: Role, settings: RabbitSettings, observer: Arc<dyn Observer>) -> Self {
        let (sender, state) = watch::channel(State::Away("not connected yet".into()));
        let declare = Arc::new(Notify::new());
        let topology = Topology::from(&settings);
        let keeper = Keeper { role, topology, settings, declare: declare.clone(), observer, made: 0 };
        let task = tokio::spawn(keeper.keep(sender));
        Self { state, declare, task }
    }

    /// The connection, when it is there; waits for it until the deadline, or for ever.
    ///
    /// # Errors
    /// It is not there in time, or the server refuses us.
    pub(super) async fn live(&self, deadline: Option<Instant>) -> Result<Arc<Live>, BrokerError> {
        let mut state = self.state.clone();
        let up = async {
            loop {
                match &*state.borrow_and_update() {
                    State::Up(live) if live.connection.status().connected() => return Ok(live.clone()),
                    State::Denied(reason) => return Err(BrokerError::Denied(reason.clone())),
                    State::Up(_) | State::Away(_) => {}
                }
                if state.changed().await.is_err() {
                    return Err(BrokerError::Gone("the connection was closed".into()));
                }
            }
        };
        let Some(deadline) = deadline else { return up.await };
        match timeout_at(deadline, up).await {
            Ok(up) => up,
            Err(_) => Err(BrokerError::Gone(self.away())),
        }
    }

    /// The connection, if it is there now.
    pub(super) fn now(&self) -> Option<Arc<Live>> {
        match &*self.state.borrow() {
            State::Up(live) if live.connection.status().connected() => Some(live.clone()),
            _ => None,
        }
    }

    /// Something that should be there is not: declares everything anew, soon.
    pub(super) fn redeclare(&self) {
        self.declare.notify_one();
    }

    fn away(&self) -> String {
        match &*self.state.borrow() {
            State::Away(reason) | State::Denied(reason) => reason.clone(),
            State::Up(_) => "the connection is there and does not answer".into(),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes the connection again and again.
struct Keeper {
    role: Role,
    settings: RabbitSettings,
    topology: Topology,
    declare: Arc<Notify>,
    observer: Arc<dyn Observer>,
    /// Connections so far.
    made: u64,
}

impl Keeper {
    async fn keep(mut self, state: watch::Sender<State>) {
        let mut pace = Pace::new();
        let mut refusals = 0;
        let mut told = String::new();
        loop {
            let reason = match self.open().await {
                Ok(live) => {
                    let live = Arc::new(live);
                    refusals = 0;
                    told.clear();
                    let since = Instant::now();
                    self.observer.broker_connected(self.role.name());
                    state.send_replace(State::Up(live.clone()));
                    let reason = self.watch_over(&live).await;
                    self.observer.broker_lost(self.role.name());
                    state.send_replace(State::Away(reason.clone()));
                    // Whatever state it is in: nobody waits for it any longer.
                    live.tap.cut();
                    if since.elapsed() >= STEADY {
                        pace = Pace::new();
                    }
                    reason
                }
                Err(Fault::Denied(reason)) if self.made == 0 || refusals >= REFUSALS => {
                    state.send_replace(State::Denied(reason.clone()));
                    reason
                }
                Err(fault) => {
                    refusals = if matches!(fault, Fault::Denied(_)) { refusals + 1 } else { 0 };
                    let reason = fault.reason();
                    state.send_replace(State::Away(reason.clone()));
                    reason
                }
            };
            // Each reason once, however often it comes in a row.
            if reason != told {
                tracing::warn!(role = self.role.name(), reason, "no connection to the broker");
                told = reason;
            }
            tokio::time::sleep(pace.next_wait()).await;
        }
    }

    async fn open(&mut self) -> Result<Live, Fault> {
        let endpoint = self.settings.endpoint().map_err(|e| Fault::Denied(e.to_string()))?;
        let uri = endpoint.uri;
        let tls = is_tls(&uri).then_some(&endpoint.tls);
        let address = Address { host: &uri.authority.host, port: uri.authority.port, tls };
        let wire = match timeout(CONNECT_WAIT, wire::connect(address)).await {
            Ok(connected) => connected.map_err(|e| Fault::from(&e).at(&endpoint.shown))?,
            Err(_) => return Err(Fault::Gone(format!("{}: no answer within {CONNECT_WAIT:?}", endpoint.shown))),
        };
        let tap = wire.tap();
        // From here on, giving up means to cut: the library's thread ends only with its socket.
        let given_up = CutWhenDropped(Some(tap.clone()));
        let connection = handshake(uri, wire, self.role).await.map_err(|fault| fault.at(&endpoint.shown))?;
        let server = known(&tap.greeting()).map_err(|fault| fault.at(&endpoint.shown))?;
        if self.role == Role::Publish {
            self.declare_on(&connection).await.map_err(|fault| fault.at(&endpoint.shown))?;
        }
        given_up.keep();
        self.made += 1;
        let (role, number) = (self.role.name(), self.made);
        let server = format!("{} {}", server.product, server.said);
        tracing::info!(role, at = endpoint.shown, server, connection = number, "connected to the broker");
        let (blocked, _) = watch::channel(None);
        Ok(Live { connection, number, server, user: endpoint.user, tap, blocked })
    }

    async fn declare_on(&self, connection: &Connection) -> Result<(), Fault> {
        let is_there = || connection.status().connected();
        let declared = while_there(is_there, timeout(DECLARE_WAIT, self.topology.declare(connection))).await?;
        declared.unwrap_or_else(|_| Err(Fault::Gone(format!("queues not declared within {DECLARE_WAIT:?}"))))
    }

    /// Returns why the connection is no more.
    async fn watch_over(&self, live: &Live) -> String {
        let events = live.connection.events_listener();
        tokio::pin!(events);
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut reason = None;
        let mut declare_at: Option<Instant> = None;
        while live.connection.status().connected() {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(why)) => {
                        tracing::warn!(role = self.role.name(), reason = why, "the broker takes no messages");
                        live.blocked.send_replace(Some(why));
                    }
                    Some(Event::ConnectionUnblocked) => {
                        tracing::info!(role = self.role.name(), "the broker takes messages again");
                        live.blocked.send_replace(None);
                    }
                    // Of a channel, or of the connection: then it is no longer connected.
                    Some(Event::Error(error)) => reason = Some(error.to_string()),
                    Some(_) => {}
                    None => break,
                },
                _ = look.tick() => {}
                () = self.declare.notified(), if declare_at.is_none() => declare_at = Some(Instant::now() + REDECLARE_AFTER),
                () = tokio::time::sleep_until(declare_at.unwrap_or_else(Instant::now)), if declare_at.is_some() => {
                    declare_at = None;
                    if let Err(fault) = self.declare_on(&live.connection).await {
                        tracing::warn!(reason = fault.reason(), "queues not declared");
                    }
                }
            }
        }
        reason.unwrap_or_else(|| "the connection was lost".into())
    }
}

/// Does what needs something that can be lost meanwhile, a connection or a channel. The library ends what waits on it then, but
/// not (seen with lapin 4.12) what was asked in the very moment of the loss: that would wait for its answer for ever.
///
/// # Errors
/// It was lost before the work was done.
pub(super) async fn while_there<T>(is_there: impl Fn() -> bool, work: impl Future<Output = T>) -> Result<T, Fault> {
    let lost = async {
        while is_there() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        // What was told in time is told by now.
        tokio::time::sleep(LOOK_EVERY).await;
    };
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = lost => Err(Fault::Gone("the connection was lost before there was an answer".into())),
    }
}

async fn handshake(uri: lapin::uri::AMQPUri, wire: wire::Wire, role: Role) -> Result<Connection, Fault> {
    let (user, vhost) = (uri.authority.userinfo.username.clone(), uri.vhost.clone());
    let properties = ConnectionProperties::default()
        .with_connection_name(format!("narrows {}", role.name()).into())
        .with_client_property("product".into(), "narrows".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    // The library connects once; by then this has happened.
    let wire = Mutex::new(Some(wire));
    let connected = async move |_: lapin::uri::AMQPUri, _: async_rs::Runtime<wire::Kit>| {
        let wire = wire.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let used = || lapin::Error::from(std::io::Error::other("the socket was used already"));
        wire.map(AsyncTcpStream::Plain).ok_or_else(used)
    };
    match timeout(HANDSHAKE_WAIT, Connection::connector(uri, wire::runtime(), connected, properties)).await {
        Ok(connection) => connection.map_err(|e| match Fault::from(&e) {
            Fault::Denied(reason) => Fault::Denied(format!("user {user}, virtual host {vhost}: {reason}")),
            other => other,
        }),
        Err(_) => Err(Fault::Gone(format!("no handshake within {HANDSHAKE_WAIT:?}"))),
    }
}

fn known(greeting: &[u8]) -> Result<Server, Fault> {
    let none = || Fault::Denied("a server that does not say which it is; RabbitMQ is needed".into());
    let server = Server::of(greeting).ok_or_else(none)?;
    if server.product != "RabbitMQ" || server.version < OLDEST {
        let (product, said) = (&server.product, &server.said);
        return Err(Fault::Denied(format!("{product} {said}; RabbitMQ {OLDEST} or later is needed")));
    }
    Ok(server)
}

struct CutWhenDropped(Option<Arc<Tap>>);

impl CutWhenDropped {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for CutWhenDropped {
    fn drop(&mut self) {
        if let Some(tap) = &self.0 {
            tap.cut();
        }
    }
}

/// Waits that double, each shortened by chance: a fleet that lost its broker does not come back in one moment.
pub(super) struct Pace {
    next: Duration,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { next: FIRST_WAIT }
    }

    pub(super) fn next_wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(rand::random_range(0.5..1.0));
        self.next = (self.next * 2).min(LONGEST_WAIT);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_between_attempts_grow_and_end_growing() {
        let mut pace = Pace::new();
        let waits: Vec<Duration> = (0..12).map(|_| pace.next_wait()).collect();
        assert!(waits[0] >= FIRST_WAIT / 2 && waits[0] <= FIRST_WAIT, "{waits:?}");
        assert!(waits[11] >= LONGEST_WAIT / 2 && waits[11] <= LONGEST_WAIT, "{waits:?}");
    }

    #[tokio::test]
    async fn what_is_lost_ends_what_would_wait_for_ever_but_not_what_was_told_in_time() {
        let looks = std::cell::Cell::new(0);
        let is_there = || looks.replace(looks.get() + 1) < 2;
        let lost = while_there(is_there, std::future::pending::<()>()).await;
        assert!(matches!(lost, Err(Fault::Gone(_))), "{lost:?}");
        assert_eq!(looks.get(), 3, "looked at while it was there, and once when it no longer was");
        assert_eq!(while_there(|| false, async { 7 }).await, Ok(7));
        assert_eq!(while_there(|| false, tokio::task::yield_now()).await, Ok(()), "the last answer comes after the loss");
    }

    #[test]
    fn a_server_that_is_too_old_or_another_is_refused_by_name() {
        let start = |product: &str, version: &str| {
            let mut table = Vec::new();
            for (name, value) in [("product", product), ("version", version)] {
                table.push(name.len() as u8);
                table.extend(name.as_bytes());
                table.push(b'S');
                table.extend((value.len() as u32).to_be_bytes());
                table.extend(value.as_bytes());
            }
            let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 0, 10, 0, 10, 0, 9];
            bytes.extend((table.len() as u32).to_be_bytes());
            bytes.extend(table);
            bytes
        };
        assert!(known(&start("RabbitMQ", "3.10.0")).is_ok() && known(&start("RabbitMQ", "4.2.0")).is_ok());
        let refused = known(&start("RabbitMQ", "3.9.29")).unwrap_err().reason();
        assert!(refused.contains("3.9.29") && refused.contains("3.10"), "{refused}");
        assert!(known(&start("OtherMQ", "4.0.0")).is_err() && known(b"").is_err());
    }
}
