//! Queues and exchanges as the server is told of them, targets before what leads to them.

use super::fault::Fault;
use super::settings::RabbitSettings;
use crate::broker::{Queue, Topic};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};
use std::time::Duration;

/// The exchange that leads to the queue of the same name as the routing key.
pub(super) const TO_QUEUE: &str = "";
/// Channels that declare at once: making a quorum queue takes the server long, and mostly waiting.
const DECLARERS: usize = 4;

/// What is declared, and how it is limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topology {
    delivery_limit: u32,
    max_length: u32,
    /// Seconds, ascending, each once.
    tiers: Vec<u32>,
}

/// Where a message is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub exchange: String,
    pub key: String,
}

impl From<&RabbitSettings> for Topology {
    fn from(settings: &RabbitSettings) -> Self {
        let mut tiers = settings.retry_tiers_s.clone();
        tiers.sort_unstable();
        tiers.dedup();
        Self { delivery_limit: settings.delivery_limit, max_length: settings.max_length, tiers }
    }
}

impl Topology {
    /// How a message is put off: by the longest tier that is not longer than `after`, or the shortest one there is.
    pub(super) fn put_off(&self, queue: Queue, after: Duration) -> Route {
        let key = queue.to_string();
        let fits = self.tiers.iter().rfind(|tier| Duration::from_secs(u64::from(**tier)) <= after);
        match fits.or(self.tiers.first()) {
            Some(tier) if !after.is_zero() => Route { exchange: tier_name(*tier), key },
            _ => Route { exchange: TO_QUEUE.into(), key },
        }
    }

    /// Declares everything. What is there already, and the same, stays as it is.
    ///
    /// # Errors
    /// Names the queue; when it is there and not the same, says what to do.
    pub(super) async fn declare(&self, connection: &Connection) -> Result<(), Fault> {
        // The dead letters first: the others name them.
        let (dead, others): (Vec<Queue>, Vec<Queue>) = Queue::all().partition(|queue| *queue == Queue::Dead);
        self.all(connection, &dead, |channel, queue| self.queue(channel, queue)).await?;
        self.all(connection, &others, |channel, queue| self.queue(channel, queue)).await?;
        // And the tiers last: they lead back to those.
        self.all(connection, &self.tiers, |channel, tier| self.tier(channel, tier)).await?;
        self.all(connection, &[Topic::Control, Topic::Progress], |channel, topic| self.topic(channel, topic)).await
    }

    async fn all<'a, T, F>(&'a self, connection: &Connection, items: &[T], declare: impl Fn(Channel, T) -> F) -> Result<(), Fault>
    where
        T: Copy,
        F: Future<Output = Result<(), Fault>> + 'a,
    {
        let share = items.len().div_ceil(DECLARERS).max(1);
        let (declare, connection) = (&declare, connection);
        let shares = items.chunks(share).map(|items| async move {
            let channel = connection.create_channel().await.map_err(|e| Fault::from(&e))?;
            for item in items {
                declare(channel.clone(), *item).await?;
            }
            // A declaration that failed has closed the channel already.
            channel.close(200, "declared".into()).await.map_err(|e| Fault::from(&e))
        });
        futures::future::try_join_all(shares).await.map(|_| ())
    }

    async fn queue(&self, channel: Channel, queue: Queue) -> Result<(), Fault> {
        let mut arguments = self.arguments();
        if queue != Queue::Dead {
            arguments.insert("x-dead-letter-exchange".into(), text(TO_QUEUE));
            arguments.insert("x-dead-letter-routing-key".into(), text(&Queue::Dead.to_string()));
        }
        if queue.has_single_consumer() {
            arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        }
        declare_queue(&channel, &queue.to_string(), arguments).await
    }

    /// A queue in which messages wait, and an exchange of its own: so they keep their routing key, which is the name of
    /// the queue they go back to.
    async fn tier(&self, channel: Channel, seconds: u32) -> Result<(), Fault> {
        let name = tier_name(seconds);
        let mut arguments = self.arguments();
        arguments.insert("x-message-ttl".into(), number(i64::from(seconds) * 1000));
        arguments.insert("x-dead-letter-exchange".into(), text(TO_QUEUE));
        declare_queue(&channel, &name, arguments).await?;
        declare_fanout(&channel, &name).await?;
        let bound = channel
            .queue_bind(name.as_str().into(), name.as_str().into(), "".into(), QueueBindOptions::default(), FieldTable::default())
            .await;
        bound.map_err(|e| explained(&name, Fault::from(&e)))
    }

    async fn topic(&self, channel: Channel, topic: Topic) -> Result<(), Fault> {
        declare_fanout(&channel, exchange_of(topic)).await
    }

    /// Of every queue. A message that is refused is the publisher's to try again, and one that is dead-lettered leaves
    /// its queue only when the other has it.
    fn arguments(&self) -> FieldTable {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), text("quorum"));
        arguments.insert("x-delivery-limit".into(), number(self.delivery_limit.into()));
        arguments.insert("x-max-length".into(), number(self.max_length.into()));
        arguments.insert("x-overflow".into(), text("reject-publish"));
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        arguments
    }
}

/// The exchange of a topic.
pub(super) fn exchange_of(topic: Topic) -> &'static str {
    match topic {
        Topic::Control => "narrows.control",
        Topic::Progress => "narrows.progress",
    }
}

fn tier_name(seconds: u32) -> String {
    format!("narrows.retry.{seconds}")
}

async fn declare_queue(channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), Fault> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(name.into(), options, arguments).await;
    declared.map(|_| ()).map_err(|e| explained(name, Fault::from(&e)))
}

async fn declare_fanout(channel: &Channel, name: &str) -> Result<(), Fault> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(name.into(), ExchangeKind::Fanout, options, FieldTable::default()).await;
    declared.map_err(|e| explained(name, Fault::from(&e)))
}

fn explained(name: &str, fault: Fault) -> Fault {
    let fault = match fault {
        Fault::Denied(reason) if reason.contains("inequivalent") => Fault::Denied(format!(
            "{reason}; it was declared otherwise: set broker.delivery_limit and broker.max_length as they were, or delete it \
             once it is empty and let it be declared again"
        )),
        Fault::Denied(reason) => {
            Fault::Denied(format!("{reason}; the user needs to configure, write and read what is called narrows.*"))
        }
        other => other,
    };
    fault.at(name)
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn number(number: i64) -> AMQPValue {
    AMQPValue::LongLongInt(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_put_off_by_the_longest_tier_that_fits() {
        let topology = Topology { delivery_limit: 1, max_length: 1, tiers: vec![1, 5, 60] };
        let exchange = |after_ms: u64| topology.put_off(Queue::Events(3), Duration::from_millis(after_ms)).exchange;
        assert_eq!(exchange(0), "");
        assert_eq!(exchange(1), "narrows.retry.1");
        assert_eq!(exchange(4999), "narrows.retry.1");
        assert_eq!(exchange(5000), "narrows.retry.5");
        assert_eq!(exchange(3_600_000), "narrows.retry.60");
        assert_eq!(topology.put_off(Queue::Events(3), Duration::ZERO).key, "narrows.events.3");
    }
}
