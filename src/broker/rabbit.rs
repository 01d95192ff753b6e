//! RabbitMQ, 3.10 and later.
//!
//! Two connections, each kept by a supervisor of its own (`link.rs`): when one is lost, everything on it is lost, and is
//! made anew on the next. The library's own recovery stays off: it would replay what only looks the same.

mod consume;
mod deliver;
mod fault;
mod intake;
mod link;
mod publish;
mod settings;
mod topology;
mod version;
mod wire;

use super::{Broker, BrokerError, Consumer, Intake, MAX_BODY_BYTES, Queue, Subscription, Topic};
use crate::observe::{self, Observer};
use crate::trace::TraceContext;
use async_trait::async_trait;
use consume::{RabbitConsumer, RabbitSubscription, Source, within};
use deliver::Office;
use intake::RabbitIntake;
use link::{Link, Role};
use publish::{Outgoing, Publisher};
pub use settings::{Kind, RabbitSettings, Uri};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use topology::{TO_QUEUE, Topology, exchange_of};

/// A RabbitMQ server. Clones are the same broker; with the last one, its connections are closed.
#[derive(Clone)]
pub struct RabbitBroker {
    publisher: Arc<Publisher>,
    source: Source,
    /// How long to wait for what the server does not do at once.
    patience: Duration,
}

impl RabbitBroker {
    /// Connects, and declares what is not there yet. From then on, lost connections come back by themselves.
    ///
    /// # Errors
    /// The server is not there within `publish_timeout_s`, or it refuses: then the settings, or the server, need a change.
    pub async fn connect(settings: &RabbitSettings) -> Result<Self, BrokerError> {
        Self::connect_observed(settings, observe::nobody()).await
    }

    /// The same, with somebody who is told of connections and of what becomes of what is published.
    ///
    /// # Errors
    /// As [`RabbitBroker::connect`].
    pub async fn connect_observed(settings: &RabbitSettings, observer: Arc<dyn Observer>) -> Result<Self, BrokerError> {
        // Files that are not there are told at once.
        settings.endpoint()?;
        let patience = settings.publish_timeout();
        let publish = Arc::new(Link::start(Role::Publish, settings.clone(), observer.clone()));
        let consume = Arc::new(Link::start(Role::Consume, settings.clone(), observer.clone()));
        let publisher = Publisher::new(publish.clone(), consume.clone(), patience, settings.max_length, observer);
        let publisher = Arc::new(publisher);
        let topology = Topology::from(settings);
        let office = Office { publisher: publisher.clone(), topology, delivery_limit: settings.delivery_limit };
        let deadline = Instant::now() + patience;
        publish.live(Some(deadline)).await?;
        consume.live(Some(deadline)).await?;
        let source = Source { link: consume, declarer: publish, office: Arc::new(office) };
        Ok(Self { publisher, source, patience })
    }

    /// Name and version of the server, when it is there now.
    pub fn server(&self) -> Option<String> {
        self.source.link.now().map(|live| live.server.clone())
    }
}

#[async_trait]
impl Broker for RabbitBroker {
    async fn publish_within(&self, queue: Queue, body: Vec<u8>, trace: Option<TraceContext>) -> Result<(), BrokerError> {
        let key = queue.to_string();
        if body.len() > MAX_BODY_BYTES {
            return Err(BrokerError::TooLarge { queue: key, bytes: body.len() });
        }
        let message = Outgoing { trace, ..Outgoing::first(TO_QUEUE, &key, &body) };
        self.publisher.publish(&message).await
    }

    async fn consume(&self, queue: Queue, prefetch: usize) -> Result<Box<dyn Consumer>, BrokerError> {
        assert!(prefetch > 0, "a consumer that may take nothing would wait for ever");
        let started = RabbitConsumer::start(self.source.clone(), queue, prefetch);
        let consumer = within(self.patience, &queue.to_string(), started).await?;
        Ok(Box::new(consumer))
    }

    async fn intake(&self) -> Result<Box<dyn Intake>, BrokerError> {
        Ok(Box::new(RabbitIntake::new(self.source.clone())))
    }

    async fn broadcast(&self, topic: Topic, body: Vec<u8>) -> Result<(), BrokerError> {
        let exchange = exchange_of(topic);
        if body.len() > MAX_BODY_BYTES {
            return Err(BrokerError::TooLarge { queue: exchange.into(), bytes: body.len() });
        }
        let message = Outgoing { must_arrive: false, ..Outgoing::first(exchange, "", &body) };
        match topic {
            Topic::Control => self.publisher.publish(&message).await,
            // It may be lost, and by the time that the server is there again it is old.
            Topic::Progress => self.publisher.publish_now(&message).await,
        }
    }

    async fn subscribe(&self, topic: Topic) -> Result<Box<dyn Subscription>, BrokerError> {
        let started = RabbitSubscription::start(self.source.clone(), topic);
        let subscription = within(self.patience, exchange_of(topic), started).await?;
        Ok(Box::new(subscription))
    }

    async fn depth(&self, queue: Queue) -> Result<u64, BrokerError> {
        self.publisher.depth(&queue.to_string()).await
    }
}
