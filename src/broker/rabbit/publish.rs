//! Publishing: a message is published when the server has confirmed that it is in a queue.
//!
//! Each channel has at most one message that is not confirmed. The library gives a returned message to whichever confirm
//! of its channel comes next; with one at a time, that is its own.

use super::fault::Fault;
use super::link::{Link, Live, Pace, while_there};
use crate::broker::BrokerError;
use crate::observe::{Observer, Publish};
use crate::trace::{TRACEPARENT, TraceContext};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

/// Messages that are not confirmed, at most; also the channels kept for it. More would only wait on the server's side.
const IN_FLIGHT: usize = 32;
/// AMQP's delivery mode of a message that survives the server.
const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;
/// Which attempt a message is for, from 1.
pub(super) const ATTEMPT_HEADER: &str = "x-attempt";
/// Who published a message first, when it is now one of the fleet that publishes it again.
pub(super) const USER_HEADER: &str = "x-narrows-user";
/// When a message is due, milliseconds since 1970 by the clock of who published it: from then on it waits.
pub(super) const DUE_HEADER: &str = "x-narrows-due-ms";

/// A message on its way out.
pub(super) struct Outgoing<'a> {
    pub exchange: &'a str,
    pub key: &'a str,
    pub body: &'a [u8],
    /// What it is, where the body alone does not tell.
    pub kind: Option<&'static str>,
    pub attempt: u32,
    pub user: Option<&'a str>,
    pub trace: Option<TraceContext>,
    /// It must get into a queue; and survive there.
    pub must_arrive: bool,
    /// How long it is put off.
    pub put_off: Duration,
}

impl<'a> Outgoing<'a> {
    /// A message that nobody has tried yet, and that must arrive.
    pub(super) fn first(exchange: &'a str, key: &'a str, body: &'a [u8]) -> Self {
        Self { exchange, key, body, kind: None, attempt: 1, user: None, trace: None, must_arrive: true, put_off: Duration::ZERO }
    }
}

/// Publishes over one connection, and the ones after it.
pub(super) struct Publisher {
    link: Arc<Link>,
    /// For questions: a server that takes no messages does not answer on the other connection.
    questions: Arc<Link>,
    slots: Semaphore,
    idle: Mutex<Vec<Idle>>,
    timeout: Duration,
    max_length: usize,
    observer: Arc<dyn Observer>,
}

/// A channel whose messages are all confirmed.
struct Idle {
    /// Of its connection.
    number: u64,
    channel: Channel,
}

enum Failed {
    /// No queue took it.
    Returned(String),
    /// The queue did not take it: it is full, or not well.
    Refused,
    Fault(Fault),
}

impl Publisher {
    pub(super) fn new(
        link: Arc<Link>,
        questions: Arc<Link>,
        timeout: Duration,
        max_length: u32,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let (slots, max_length) = (Semaphore::new(IN_FLIGHT), usize::try_from(max_length).unwrap_or(usize::MAX));
        Self { link, questions, slots, idle: Mutex::default(), timeout, max_length, observer }
    }

    /// Publishes until it is confirmed, or the time is over.
    ///
    /// # Errors
    /// Not confirmed: it may be in its queue all the same.
    pub(super) async fn publish(&self, message: &Outgoing<'_>) -> Result<(), BrokerError> {
        let deadline = Instant::now() + self.timeout;
        let Ok(slot) = timeout_at(deadline, self.slots.acquire()).await else {
            return Err(BrokerError::Gone(format!("{IN_FLIGHT} messages wait for their confirms already")));
        };
        let _slot = slot.expect("the semaphore is never closed");
        let mut pace = Pace::new();
        loop {
            let live = self.link.live(Some(deadline)).await?;
            live.unblocked(deadline).await?;
            let answered = timeout_at(deadline, self.attempt(&live, message)).await;
            self.observer.published(answer(&answered));
            let failed = match answered {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(failed)) => failed,
                Err(_) => {
                    let why = live.blocked_reason().unwrap_or_else(|| "the server did not answer".into());
                    return Err(BrokerError::Gone(format!("no confirm within {:?}: {why}", self.timeout)));
                }
            };
            let fault = match failed {
                // A failed publish, told as one; declared anew, the next may succeed.
                Failed::Returned(why) => {
                    self.link.redeclare();
                    return Err(BrokerError::Gone(format!("{}: {why}; it is being declared again", message.key)));
                }
                Failed::Refused => self.refused(message).await?,
                Failed::Fault(fault) => fault,
            };
            match fault {
                Fault::Denied(_) => return Err(fault.at(message.key).into()),
                Fault::Missing(_) => self.link.redeclare(),
                Fault::Gone(_) => {}
            }
            let wait = Instant::now() + pace.next_wait();
            if wait >= deadline {
                return Err(fault.at(message.key).into());
            }
            tokio::time::sleep_until(wait).await;
        }
    }

    /// Tries once, if that can be done at this moment.
    ///
    /// # Errors
    /// It cannot, or it was not confirmed.
    pub(super) async fn publish_now(&self, message: &Outgoing<'_>) -> Result<(), BrokerError> {
        let busy = || BrokerError::Gone("not now".into());
        let _slot = self.slots.try_acquire().map_err(|_| busy())?;
        let live = self.link.now().filter(|live| live.takes_messages()).ok_or_else(busy)?;
        let deadline = Instant::now() + self.timeout;
        let answered = timeout_at(deadline, self.attempt(&live, message)).await;
        self.observer.published(answer(&answered));
        match answered {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Failed::Fault(fault))) => Err(fault.into()),
            Ok(Err(Failed::Returned(_) | Failed::Refused)) | Err(_) => Err(busy()),
        }
    }

    async fn attempt(&self, live: &Live, message: &Outgoing<'_>) -> Result<(), Failed> {
        let is_there = || live.connection.status().connected();
        while_there(is_there, self.confirmed(live, message)).await.map_err(Failed::Fault)?
    }

    async fn confirmed(&self, live: &Live, message: &Outgoing<'_>) -> Result<(), Failed> {
        let fault = |e: &lapin::Error| Failed::Fault(Fault::from(e));
        let channel = self.channel(live).await.map_err(Failed::Fault)?;
        let options = BasicPublishOptions { mandatory: message.must_arrive, ..BasicPublishOptions::default() };
        let properties = properties(message, live.user.as_deref());
        let sent = channel.basic_publish(message.exchange.into(), message.key.into(), options, message.body, properties).await;
        // Left half-way, the channel is dropped, and closed by that: its next confirm would be this message's.
        let confirmed = sent.map_err(|e| fault(&e))?.await.map_err(|e| fault(&e))?;
        self.keep(Idle { number: live.number, channel });
        match confirmed {
            Confirmation::Ack(None) | Confirmation::NotRequested => Ok(()),
            Confirmation::Ack(Some(returned)) => {
                Err(Failed::Returned(format!("{} {}", returned.reply_code, returned.reply_text)))
            }
            Confirmation::Nack(_) => Err(Failed::Refused),
        }
    }

    async fn channel(&self, live: &Live) -> Result<Channel, Fault> {
        let kept = {
            let mut idle = self.idle();
            // Those of an earlier connection are gone with it.
            idle.retain(|idle| idle.number == live.number && idle.channel.status().connected());
            idle.pop()
        };
        if let Some(idle) = kept {
            return Ok(idle.channel);
        }
        let channel = live.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|e| Fault::from(&e))?;
        Ok(channel)
    }

    fn keep(&self, idle: Idle) {
        self.idle().push(idle);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Is the queue full, or was it something that passes?
    async fn refused(&self, message: &Outgoing<'_>) -> Result<Fault, BrokerError> {
        let queue = if message.exchange.is_empty() { message.key } else { message.exchange };
        let ready = self.depth(queue).await?;
        if usize::try_from(ready).unwrap_or(usize::MAX) >= self.max_length {
            return Err(BrokerError::Full { queue: queue.into(), limit: self.max_length });
        }
        Ok(Fault::Gone("the queue did not take it".into()))
    }

    /// Messages that are ready in a queue.
    pub(super) async fn depth(&self, queue: &str) -> Result<u64, BrokerError> {
        let deadline = Instant::now() + self.timeout;
        let live = self.questions.live(Some(deadline)).await?;
        let ask = async {
            let channel = live.channel().await?;
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let asked = channel.queue_declare(queue.into(), options, FieldTable::default()).await;
            let count = asked.map_err(|e| Fault::from(&e))?.message_count();
            let closed = channel.close(200, "asked".into()).await;
            closed.map(|()| u64::from(count)).map_err(|e| Fault::from(&e))
        };
        match timeout_at(deadline, ask).await {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(fault)) => {
                if matches!(fault, Fault::Missing(_)) {
                    self.link.redeclare();
                }
                Err(fault.at(queue).into())
            }
            Err(_) => Err(BrokerError::Gone(format!("{queue}: no answer within {:?}", self.timeout))),
        }
    }
}

/// What became of one try, for whoever counts.
fn answer(answered: &Result<Result<(), Failed>, Elapsed>) -> Publish {
    match answered {
        Ok(Ok(())) => Publish::Confirmed,
        Ok(Err(Failed::Returned(_))) => Publish::Returned,
        Ok(Err(Failed::Refused)) => Publish::Refused,
        Ok(Err(Failed::Fault(_))) | Err(_) => Publish::Failed,
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

fn properties(message: &Outgoing<'_>, own: Option<&str>) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(ATTEMPT_HEADER.into(), AMQPValue::LongLongInt(message.attempt.into()));
    let put_off_ms = i64::try_from(message.put_off.as_millis()).unwrap_or(i64::MAX);
    headers.insert(DUE_HEADER.into(), AMQPValue::LongLongInt(now_ms().saturating_add(put_off_ms)));
    if let Some(user) = message.user.filter(|user| Some(*user) != own) {
        headers.insert(USER_HEADER.into(), AMQPValue::LongString(user.into()));
    }
    if let Some(trace) = message.trace {
        headers.insert(TRACEPARENT.into(), AMQPValue::LongString(trace.to_string().into()));
    }
    let mode = if message.must_arrive { PERSISTENT } else { TRANSIENT };
    let mut properties =
        BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(mode).with_headers(headers);
    if let Some(kind) = message.kind {
        properties = properties.with_type(kind.into());
    }
    // The server checks it, and thereby vouches for it. Names too long for the field are left out.
    match own.map(ShortString::try_new) {
        Some(Ok(user)) => properties.with_user_id(user),
        _ => properties,
    }
}
