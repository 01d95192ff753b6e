//! A broker for whoever works in a trace: everything that is published by it says so.

use super::{Broker, BrokerError, Consumer, Intake, Queue, Subscription, Topic};
use crate::trace::TraceContext;
use async_trait::async_trait;
use std::sync::Arc;

/// The same broker, whose messages carry this trace; in none, the broker as it is.
pub fn within(broker: &Arc<dyn Broker>, trace: Option<TraceContext>) -> Arc<dyn Broker> {
    match trace {
        Some(trace) => Arc::new(Traced { broker: broker.clone(), trace }),
        None => broker.clone(),
    }
}

struct Traced {
    broker: Arc<dyn Broker>,
    trace: TraceContext,
}

#[async_trait]
impl Broker for Traced {
    async fn publish_within(&self, queue: Queue, body: Vec<u8>, trace: Option<TraceContext>) -> Result<(), BrokerError> {
        self.broker.publish_within(queue, body, trace.or(Some(self.trace))).await
    }

    async fn consume(&self, queue: Queue, prefetch: usize) -> Result<Box<dyn Consumer>, BrokerError> {
        self.broker.consume(queue, prefetch).await
    }

    async fn intake(&self) -> Result<Box<dyn Intake>, BrokerError> {
        self.broker.intake().await
    }

    async fn broadcast(&self, topic: Topic, body: Vec<u8>) -> Result<(), BrokerError> {
        self.broker.broadcast(topic, body).await
    }

    async fn subscribe(&self, topic: Topic) -> Result<Box<dyn Subscription>, BrokerError> {
        self.broker.subscribe(topic).await
    }

    async fn depth(&self, queue: Queue) -> Result<u64, BrokerError> {
        self.broker.depth(queue).await
    }
}
