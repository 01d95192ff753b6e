//! Receiving what comes: a queue's deliveries, and what is said to everybody.

use super::deliver::{Hold, Office, give_back};
use super::fault::Fault;
use super::link::{Link, Pace};
use super::topology::exchange_of;
use crate::broker::{BrokerError, Consumer, Delivery, Queue, Subscription, Topic};
use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Longest wait for a consumer to be cancelled; after it its channel is closed, which cancels all of it.
const CANCEL_WAIT: Duration = Duration::from_secs(5);
/// Messages of a topic on their way to one listener.
const TOPIC_PREFETCH: u16 = 64;
/// Messages of a topic that the server keeps for one slow listener; older ones give way to newer ones.
const TOPIC_MESSAGES: i64 = 1024;

/// Where deliveries come from.
#[derive(Clone)]
pub(super) struct Source {
    pub link: Arc<Link>,
    /// The connection that declares.
    pub declarer: Arc<Link>,
    pub office: Arc<Office>,
}

impl Source {
    /// Waits for a moment after a fault, and has declared what is missing.
    ///
    /// # Errors
    /// Waiting does not help.
    pub(super) async fn after(&self, fault: Fault, pace: &mut Pace) -> Result<(), BrokerError> {
        tracing::debug!(?fault, "nothing can be received now");
        match fault {
            Fault::Denied(_) => return Err(fault.into()),
            Fault::Missing(_) => self.declarer.redeclare(),
            Fault::Gone(_) => {}
        }
        tokio::time::sleep(pace.next_wait()).await;
        Ok(())
    }

    /// A new channel on which consumers get so many messages each.
    pub(super) async fn channel(&self, prefetch: u16) -> Result<Arc<Hold>, Fault> {
        let live = self.link.live(None).await.map_err(of_link)?;
        let channel = live.channel().await?;
        let hold = Hold { channel, live };
        // For each consumer by itself: a limit for the channel is no more in RabbitMQ 4.
        hold.answer(hold.channel.basic_qos(prefetch, BasicQosOptions { global: false })).await?.map_err(|e| Fault::from(&e))?;
        Ok(Arc::new(hold))
    }
}

fn of_link(error: BrokerError) -> Fault {
    match error {
        BrokerError::Denied(reason) => Fault::Denied(reason),
        other => Fault::Gone(other.to_string()),
    }
}

/// Starts to consume.
pub(super) async fn start(hold: Arc<Hold>, queue: Queue) -> Result<lapin::Consumer, Fault> {
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let name = queue.to_string();
    let started = hold.answer(hold.channel.basic_consume(name.as_str().into(), "".into(), options, arguments)).await?;
    started.map_err(|e| Fault::from(&e).at(&name))
}

/// Stops to consume; what was on its way here goes back. What is out stays out.
pub(super) async fn retire(hold: Arc<Hold>, mut consumer: lapin::Consumer) {
    let cancel = hold.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
    match timeout(CANCEL_WAIT, cancel).await {
        Ok(Ok(())) => {
            while let Ok(Some(Ok(message))) = hold.answer(consumer.next()).await {
                give_back(&message.acker);
            }
        }
        // The channel is closed, and has given back everything.
        Ok(Err(_)) => {}
        Err(_) => close(&hold).await,
    }
}

/// Closes a channel that may be closed already.
pub(super) async fn close(hold: &Hold) {
    if hold.channel.status().connected() {
        let _ = timeout(CANCEL_WAIT, hold.channel.close(200, "done".into())).await;
    }
}

/// Does it, even when nobody waits for it any longer; where there is no runtime any more, the connection ends as well.
pub(super) fn in_background(work: impl Future<Output = ()> + Send + 'static) -> Option<tokio::task::JoinHandle<()>> {
    tokio::runtime::Handle::try_current().ok().map(|runtime| runtime.spawn(work))
}

/// A consumer that is there again after its connection.
pub(super) struct RabbitConsumer {
    source: Source,
    queue: Queue,
    prefetch: u16,
    open: Option<(Arc<Hold>, lapin::Consumer)>,
}

impl RabbitConsumer {
    /// Starts to consume, as soon as that can be done.
    pub(super) async fn start(source: Source, queue: Queue, prefetch: usize) -> Result<Self, BrokerError> {
        let prefetch = u16::try_from(prefetch).unwrap_or(u16::MAX);
        let mut consumer = Self { source, queue, prefetch, open: None };
        consumer.opened().await?;
        Ok(consumer)
    }

    async fn opened(&mut self) -> Result<&mut (Arc<Hold>, lapin::Consumer), BrokerError> {
        let mut pace = Pace::new();
        while self.open.is_none() {
            let opening = async {
                let hold = self.source.channel(self.prefetch).await?;
                let consumer = start(hold.clone(), self.queue).await?;
                Ok::<_, Fault>((hold, consumer))
            };
            // Dropped half-way, the channel is closed and with it whatever was started.
            match opening.await {
                Ok(open) => self.open = Some(open),
                Err(fault) => self.source.after(fault, &mut pace).await?,
            }
        }
        Ok(self.open.as_mut().expect("it was opened just now"))
    }
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn next(&mut self) -> Result<Delivery, BrokerError> {
        let (queue, office) = (self.queue, self.source.office.clone());
        loop {
            let (hold, consumer) = self.opened().await?;
            // What is left of a lost channel cannot be settled, and comes again by the next.
            let come = hold.answer(consumer.next()).await.ok().flatten();
            let Some(message) = come.and_then(Result::ok).filter(|message| message.acker.usable()) else {
                // The channel, its connection, or the queue is gone.
                self.open = None;
                continue;
            };
            match office.take_in(hold, queue, message).await {
                Ok(Some(delivery)) => return Ok(delivery),
                Ok(None) => {}
                Err(fault) => tracing::warn!(%queue, reason = fault.reason(), "a message that is too large stays where it is"),
            }
        }
    }
}

impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        if let Some((hold, consumer)) = self.open.take() {
            in_background(retire(hold, consumer));
        }
    }
}

/// A listener that is there again after its connection. What was said in between it did not hear.
pub(super) struct RabbitSubscription {
    source: Source,
    topic: Topic,
    open: Option<(Arc<Hold>, lapin::Consumer)>,
}

impl RabbitSubscription {
    pub(super) async fn start(source: Source, topic: Topic) -> Result<Self, BrokerError> {
        let mut subscription = Self { source, topic, open: None };
        subscription.opened().await?;
        Ok(subscription)
    }

    async fn opened(&mut self) -> Result<&mut (Arc<Hold>, lapin::Consumer), BrokerError> {
        let mut pace = Pace::new();
        while self.open.is_none() {
            match listen(&self.source, self.topic).await {
                Ok(open) => self.open = Some(open),
                Err(fault) => self.source.after(fault, &mut pace).await?,
            }
        }
        Ok(self.open.as_mut().expect("it was opened just now"))
    }
}

/// A queue of our own that goes with its connection.
async fn listen(source: &Source, topic: Topic) -> Result<(Arc<Hold>, lapin::Consumer), Fault> {
    let hold = source.channel(TOPIC_PREFETCH).await?;
    let consumer = hold.answer(listen_on(&hold.channel, topic)).await??;
    Ok((hold, consumer))
}

async fn listen_on(channel: &Channel, topic: Topic) -> Result<lapin::Consumer, Fault> {
    let fault = |e: lapin::Error| Fault::from(&e).at(exchange_of(topic));
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(TOPIC_MESSAGES));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), options, arguments).await.map_err(fault)?;
    let (name, exchange) = (queue.name().clone(), exchange_of(topic).into());
    let bound = channel.queue_bind(name.clone(), exchange, "".into(), QueueBindOptions::default(), FieldTable::default());
    bound.await.map_err(fault)?;
    channel.basic_consume(name, "".into(), BasicConsumeOptions::default(), FieldTable::default()).await.map_err(fault)
}

#[async_trait]
impl Subscription for RabbitSubscription {
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let (hold, consumer) = match self.opened().await {
                Ok(open) => open,
                Err(error) => {
                    tracing::error!(topic = exchange_of(self.topic), %error, "not listening any more");
                    return None;
                }
            };
            let Ok(Some(Ok(message))) = hold.answer(consumer.next()).await else {
                self.open = None;
                continue;
            };
            // Handed to the connection's thread, not waited for: between taking and returning nothing may be lost.
            let _ = message.acker.ack(BasicAckOptions::default()).now_or_never();
            return Some(message.data);
        }
    }
}

/// When something that is waited for has to be there.
pub(super) async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout_at(Instant::now() + limit, work).await {
        Ok(done) => done,
        Err(_) => Err(BrokerError::Gone(format!("{what}: no answer within {limit:?}"))),
    }
}
