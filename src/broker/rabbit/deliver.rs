//! From a message of the server to a delivery, and from how that ends back to the server.

use super::fault::Fault;
use super::link::{Live, while_there};
use super::publish::{ATTEMPT_HEADER, DUE_HEADER, Outgoing, Publisher, USER_HEADER, now_ms};
use super::topology::{Route, TO_QUEUE, Topology};
use crate::broker::{
    BrokerError, DeadLetter, Delivery, MAX_ATTEMPTS, MAX_BODY_BYTES, MAX_LETTER_BYTES, Parcel, Queue, Settle, Settlement,
};
use crate::trace::{TRACEPARENT, TraceContext};
use async_trait::async_trait;
use futures::FutureExt;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Acker, BasicProperties, Channel};
use std::sync::Arc;
use std::time::Duration;

/// The type of message that our own dead letters have. What the server puts there itself keeps the type it had.
const LETTER: &str = "narrows.dead-letter";

/// What it takes to settle.
pub(super) struct Office {
    pub publisher: Arc<Publisher>,
    pub topology: Topology,
    /// Unsettled deliveries after which the server gives up on a message.
    pub delivery_limit: u32,
}

/// A channel that stays open for as long as one of its deliveries is not settled. Closed, it would give them all back.
pub(super) struct Hold {
    pub channel: Channel,
    pub live: Arc<Live>,
}

impl Hold {
    /// Waits for what comes by the channel.
    ///
    /// # Errors
    /// The channel was lost before.
    pub(super) async fn answer<T>(&self, work: impl Future<Output = T>) -> Result<T, Fault> {
        while_there(|| self.channel.status().connected() && self.live.connection.status().connected(), work).await
    }
}

impl Office {
    /// Makes a delivery of a message. None: it was larger than any of ours, and is a dead letter now.
    ///
    /// # Errors
    /// It was too large, and could not be made a dead letter: it will come again.
    pub(super) async fn take_in(
        self: &Arc<Self>,
        hold: &Arc<Hold>,
        queue: Queue,
        message: lapin::message::Delivery,
    ) -> Result<Option<Delivery>, Fault> {
        let properties = &message.properties;
        let origin = Origin::of(properties, hold.live.user.as_deref());
        let waited = waited(properties, hold.live.user.as_deref(), now_ms()).filter(|_| !message.redelivered);
        let limit = if queue == Queue::Dead { MAX_LETTER_BYTES } else { MAX_BODY_BYTES };
        let bytes = message.data.len();
        let body = match queue {
            Queue::Dead => letter(properties, message.data, origin.attempt, self.delivery_limit),
            _ => message.data,
        };
        let held = Held {
            office: self.clone(),
            hold: hold.clone(),
            acker: message.acker,
            queue,
            body: body.clone(),
            origin: origin.clone(),
            is_settled: false,
        };
        let (redelivered, Origin { attempt, user, trace }) = (message.redelivered, origin);
        let parcel = Parcel { queue, body, attempt, redelivered, user, waited, trace };
        let delivery = Delivery::new(parcel, Box::new(held));
        if bytes <= limit {
            return Ok(Some(delivery));
        }
        let reason = format!("a message of {bytes} bytes; at most {limit} are allowed");
        tracing::warn!(%queue, bytes, limit, "a message that is too large");
        delivery.reject(reason).await.map_err(|e| Fault::Gone(e.to_string()))?;
        Ok(None)
    }
}

/// What a message says of its past.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    attempt: u32,
    user: Option<String>,
    /// Whoever may publish may say so.
    trace: Option<TraceContext>,
}

impl Origin {
    /// `own` is our name: what a message of ours says of who published it first is true.
    fn of(properties: &BasicProperties, own: Option<&str>) -> Self {
        let header = |name: &str| properties.headers().as_ref().and_then(|headers| headers.inner().get(name));
        let attempt = header(ATTEMPT_HEADER).and_then(integer).unwrap_or(1);
        let attempt = u32::try_from(attempt).unwrap_or(1).clamp(1, MAX_ATTEMPTS);
        let publisher = properties.user_id().as_ref().map(|user| user.as_str().to_string());
        let is_own = publisher.is_some() && publisher.as_deref() == own;
        let first = header(USER_HEADER).filter(|_| is_own).and_then(text);
        let trace = header(TRACEPARENT).and_then(text).and_then(|header| TraceContext::parse(&header));
        Self { attempt, user: first.or(publisher), trace }
    }
}

/// How long ago a message was due. Only of messages of ours: what others write there may be anything.
fn waited(properties: &BasicProperties, own: Option<&str>, now_ms: i64) -> Option<Duration> {
    let publisher = properties.user_id().as_ref().map(|user| user.as_str());
    let due_ms = properties.headers().as_ref()?.inner().get(DUE_HEADER).and_then(integer);
    let due_ms = due_ms.filter(|_| publisher.is_some() && publisher == own)?;
    // Two machines' clocks: what is due in the future has not waited.
    Some(Duration::from_millis(u64::try_from(now_ms.saturating_sub(due_ms)).unwrap_or(0)))
}

/// A message that is out.
struct Held {
    office: Arc<Office>,
    hold: Arc<Hold>,
    acker: Acker,
    queue: Queue,
    body: Vec<u8>,
    origin: Origin,
    is_settled: bool,
}

impl Held {
    async fn ack(&mut self) -> Result<(), BrokerError> {
        match self.hold.answer(self.acker.ack(BasicAckOptions::default())).await.map_err(BrokerError::from)? {
            Ok(true) => {
                self.is_settled = true;
                Ok(())
            }
            Ok(false) => Err(self.lost()),
            Err(error) => Err(Fault::from(&error).into()),
        }
    }

    async fn retry(&mut self, after: Duration) -> Result<(), BrokerError> {
        let attempt = self.origin.attempt + 1;
        let Route { exchange, key } = self.office.topology.put_off(self.queue, after);
        let user = self.origin.user.as_deref();
        let again =
            Outgoing { attempt, user, trace: self.origin.trace, put_off: after, ..Outgoing::first(&exchange, &key, &self.body) };
        // First there, then no longer here: between the two it is twice, never lost.
        self.office.publisher.publish(&again).await?;
        self.ack().await
    }

    async fn bury(&mut self, reason: String) -> Result<(), BrokerError> {
        // There is no queue behind the last one.
        if self.queue != Queue::Dead {
            let letter = DeadLetter::new(&self.queue.to_string(), reason, self.origin.attempt, &self.body).to_body();
            let key = Queue::Dead.to_string();
            let letter = Outgoing { kind: Some(LETTER), trace: self.origin.trace, ..Outgoing::first(TO_QUEUE, &key, &letter) };
            self.office.publisher.publish(&letter).await?;
        }
        self.ack().await
    }

    fn lost(&self) -> BrokerError {
        BrokerError::Gone(format!("{}: the channel that the delivery came by is closed", self.queue))
    }
}

#[async_trait]
impl Settle for Held {
    async fn settle(&mut self, settlement: Settlement) -> Result<(), BrokerError> {
        if !self.acker.usable() {
            return Err(self.lost());
        }
        match settlement {
            Settlement::Ack => self.ack().await,
            Settlement::Reject(reason) => self.bury(reason).await,
            Settlement::Retry(_) if self.origin.attempt >= MAX_ATTEMPTS => {
                self.bury(format!("put off {MAX_ATTEMPTS} times, the most there may be")).await
            }
            Settlement::Retry(after) => self.retry(after).await,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_settled && self.acker.usable() {
            put_back(&self.acker);
        }
    }
}

/// Puts a message that was out and not settled back into its queue, and has that counted: RabbitMQ 4.3 counts what is
/// rejected, as every version does, and no longer what is nacked. Does not wait for it to be there: asking once hands the
/// order to the connection's own thread.
fn put_back(acker: &Acker) {
    let _ = acker.reject(BasicRejectOptions { requeue: true }).now_or_never();
}

/// The same with a message that nobody was handed. Before RabbitMQ 4.3 that counts, too.
pub(super) fn give_back(acker: &Acker) {
    let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
    let _ = acker.nack(options).now_or_never();
}

/// The body of a dead letter: ours as it is, and what the server put there in the same form.
fn letter(properties: &BasicProperties, body: Vec<u8>, attempt: u32, delivery_limit: u32) -> Vec<u8> {
    let is_ours = properties.kind().as_ref().is_some_and(|kind| kind.as_str() == LETTER);
    if is_ours && serde_json::from_slice::<DeadLetter>(&body).is_ok() {
        return body;
    }
    let (queue, why) = properties.headers().as_ref().and_then(last_death).unwrap_or_default();
    let reason = match why.as_str() {
        "delivery_limit" => format!("came back unsettled more than {delivery_limit} times"),
        "" => "published to the dead letters".into(),
        other => format!("dead-lettered by the broker: {other}"),
    };
    let queue = if queue.is_empty() { Queue::Dead.to_string() } else { queue };
    DeadLetter::new(&queue, reason, attempt, &body).to_body()
}

/// Queue and reason of the latest entry: the server puts it first.
fn last_death(headers: &FieldTable) -> Option<(String, String)> {
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else { return None };
    let Some(AMQPValue::FieldTable(death)) = deaths.as_slice().first() else { return None };
    let field = |name: &str| death.inner().get(name).and_then(text);
    Some((field("queue")?, field("reason")?))
}

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn integer(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(n) => Some((*n).into()),
        AMQPValue::ShortShortUInt(n) => Some((*n).into()),
        AMQPValue::ShortInt(n) => Some((*n).into()),
        AMQPValue::ShortUInt(n) => Some((*n).into()),
        AMQPValue::LongInt(n) => Some((*n).into()),
        AMQPValue::LongUInt(n) => Some((*n).into()),
        AMQPValue::LongLongInt(n) => Some(*n),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in entries {
            table.insert((*name).into(), value.clone());
        }
        table
    }

    fn long(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    #[test]
    fn nobody_but_ourselves_says_who_published_first() {
        let headers = table(&[(ATTEMPT_HEADER, AMQPValue::LongInt(7)), (USER_HEADER, long("tenant-b"))]);
        let from = |user: &str| BasicProperties::default().with_headers(headers.clone()).with_user_id(user.into());
        let origin = |properties: &BasicProperties, own| Origin::of(properties, own);
        assert_eq!(origin(&from("fleet"), Some("fleet")), Origin { attempt: 7, user: Some("tenant-b".into()), trace: None });
        assert_eq!(origin(&from("tenant-a"), Some("fleet")).user.as_deref(), Some("tenant-a"));
        assert_eq!(origin(&from("tenant-a"), None).user.as_deref(), Some("tenant-a"));
        let anonymous = BasicProperties::default().with_headers(headers.clone());
        assert_eq!((origin(&anonymous, Some("fleet")).user, origin(&anonymous, None).user), (None, None));
    }

    #[test]
    fn a_message_of_ours_says_since_when_it_waits_and_nobody_elses_does() {
        let due = table(&[(DUE_HEADER, AMQPValue::LongLongInt(5_000))]);
        let of = |user: &str| BasicProperties::default().with_headers(due.clone()).with_user_id(user.into());
        assert_eq!(waited(&of("fleet"), Some("fleet"), 7_500), Some(Duration::from_millis(2_500)));
        assert_eq!(waited(&of("fleet"), Some("fleet"), 4_000), Some(Duration::ZERO), "another clock that is ahead");
        assert_eq!(waited(&of("tenant-a"), Some("fleet"), 7_500), None);
        assert_eq!(waited(&BasicProperties::default().with_headers(due.clone()), None, 7_500), None);
        assert_eq!(waited(&BasicProperties::default(), Some("fleet"), 7_500), None);
    }

    #[test]
    fn an_attempt_that_makes_no_sense_is_one_within_bounds() {
        let attempt = |value: AMQPValue| {
            let headers = table(&[(ATTEMPT_HEADER, value)]);
            Origin::of(&BasicProperties::default().with_headers(headers), None).attempt
        };
        assert_eq!(attempt(AMQPValue::LongLongInt(-4)), 1);
        assert_eq!(attempt(AMQPValue::LongLongInt(i64::MAX)), 1);
        assert_eq!(attempt(AMQPValue::LongUInt(4_000_000_000)), MAX_ATTEMPTS);
        assert_eq!(attempt(long("3")), 1);
    }

    #[test]
    fn what_the_server_dead_letters_is_told_as_any_dead_letter() {
        let death = |queue: &str, reason: &str| {
            AMQPValue::FieldTable(table(&[
                ("queue", long(queue)),
                ("reason", long(reason)),
                ("count", AMQPValue::LongLongInt(1)),
            ]))
        };
        let deaths = vec![death("narrows.work.cpu.low", "delivery_limit"), death("narrows.retry.5", "expired")];
        let headers = table(&[("x-death", AMQPValue::FieldArray(deaths.into()))]);
        let properties = BasicProperties::default().with_headers(headers);
        let told: DeadLetter = serde_json::from_slice(&letter(&properties, b"{}".to_vec(), 3, 50)).unwrap();
        let reason = "came back unsettled more than 50 times".to_string();
        assert_eq!(told, DeadLetter { queue: "narrows.work.cpu.low".into(), reason, attempt: 3, body: "{}".into() });
        let by_hand: DeadLetter = serde_json::from_slice(&letter(&BasicProperties::default(), b"x".to_vec(), 1, 50)).unwrap();
        assert_eq!((by_hand.queue.as_str(), by_hand.body.as_str()), ("narrows.dead", "x"));
        let ours = BasicProperties::default().with_type(LETTER.into());
        let body = told.to_body();
        assert_eq!(letter(&ours, body.clone(), 1, 50), body);
        let forged: DeadLetter = serde_json::from_slice(&letter(&ours, b"no letter".to_vec(), 1, 50)).unwrap();
        assert_eq!(forged.body, "no letter");
    }
}
