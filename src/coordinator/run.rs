//! The coordinator as a process: its partitions, its ticks, its API and its callbacks, side by side until asked to stop.

use super::api::{self, Api, Hub, Operator};
use super::clock::now_ms;
use super::fleet::Fleet;
use super::progress::Progress;
use super::project::Partition;
use super::sample;
use super::settings::CoordinatorSettings;
use super::sweep::Tick;
use crate::broker::{Broker, BrokerError, EVENT_PARTITIONS, Queue};
use crate::callback;
use crate::observe::Exposition;
use crate::shutdown::Stop;
use futures::FutureExt;
use rand::Rng;
use std::collections::HashMap;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{Id, JoinSet};

/// A partition with more events waiting than this has no use for a tick.
const BUSY_PARTITION: u64 = 256;

/// Longest wait for what is in hand once somebody asked to stop: longer than requests and callbacks are waited for, shorter
/// than an orchestrator's usual patience of 30 s.
const DRAIN_WITHIN: Duration = Duration::from_secs(25);

/// Everything one coordinator does.
pub struct Coordinator {
    pub fleet: Fleet,
    pub settings: CoordinatorSettings,
    /// Delivers callbacks.
    pub callbacks: callback::run::Tools,
    pub operator: Option<Operator>,
    /// What `/metrics` shows.
    pub metrics: Exposition,
    /// Where it can be seen how it gets on.
    pub progress: Progress,
}

/// Why a coordinator ended that nobody asked to.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    #[error("{0}")]
    Broker(#[from] BrokerError),
    #[error("coordinator.listen: {0}")]
    Listen(String),
    #[error("a part of the coordinator ended in a panic: {0}")]
    Panic(String),
}

impl Coordinator {
    /// Takes the address that requests come to. Apart from [`Coordinator::run`], so that a port chosen by the operating
    /// system is known before anything is answered.
    ///
    /// # Errors
    /// Somebody else has it, or it is reachable from elsewhere and nobody has an access key.
    pub async fn listen(&self) -> Result<TcpListener, CoordinatorError> {
        let address = self.settings.listen;
        if !address.ip().to_canonical().is_loopback() && !api::has_credentials(&self.fleet.tenants, self.operator.as_ref()) {
            let reason = format!(
                "{address} can be reached from elsewhere, and no tenant has an access key; configure one, or listen on 127.0.0.1"
            );
            return Err(CoordinatorError::Listen(reason));
        }
        TcpListener::bind(address).await.map_err(|e| CoordinatorError::Listen(format!("{address}: {e}")))
    }

    /// Works until asked to stop. What is in hand is then finished, which is waited for [`DRAIN_WITHIN`] at most; asked a
    /// second time, it is dropped. What is dropped comes again to another coordinator.
    ///
    /// # Errors
    /// The broker is gone for good, or refuses.
    pub async fn run(self, listener: TcpListener, mut stop: Stop) -> Result<(), CoordinatorError> {
        let mut asked = stop.clone();
        let mut parts = tokio::select! {
            biased;
            () = asked.requested() => return Ok(()),
            started = self.start(listener, &stop) => started?,
        };
        let patience = async {
            asked.requested().await;
            tokio::time::sleep(DRAIN_WITHIN).await;
        };
        tokio::pin!(patience);
        loop {
            tokio::select! {
                biased;
                () = stop.at_once() => return Ok(()),
                () = &mut patience => {
                    let left: Vec<&String> = parts.names.values().collect();
                    tracing::warn!(?left, "broken off; what was in hand comes again to another coordinator");
                    return Ok(());
                }
                ended = parts.tasks.join_next_with_id() => match ended {
                    None => return Ok(()),
                    Some(Ok((id, Ok(())))) => drop(parts.names.remove(&id)),
                    Some(Ok((_, Err(error)))) => return Err(error.into()),
                    Some(Err(error)) => return Err(CoordinatorError::Panic(error.to_string())),
                },
            }
        }
    }

    /// Starts everything.
    async fn start(self, listener: TcpListener, stop: &Stop) -> Result<Parts, CoordinatorError> {
        let Self { fleet, settings, callbacks, operator, metrics, progress } = self;
        let mut parts = Parts::default();
        for number in 0..EVENT_PARTITIONS {
            let partition = Partition::new(fleet.clone(), settings.clone(), number).await?.watched(progress.clone());
            parts.spawn(&format!("events {number}"), partition.run(stop.clone()));
        }
        let sampling = sample::run(fleet.clone(), callbacks.clone(), settings.sweep_every(), stop.clone());
        parts.spawn("samples", sampling.map(Ok));
        parts.spawn("callbacks", callback::run::all(callbacks, stop.clone()));
        let hub = Hub::new();
        let (listening, broker) = (hub.clone(), fleet.broker.clone());
        let (hub_stop, tick_stop, api_stop) = (stop.clone(), stop.clone(), stop.clone());
        parts.spawn("live progress", async move {
            listening.run(broker, hub_stop).await;
            Ok(())
        });
        let (broker, every) = (fleet.broker.clone(), settings.sweep_every());
        parts.spawn("ticks", async move {
            tick(&*broker, every, tick_stop).await;
            Ok(())
        });
        let router = api::router(Api::new(fleet, &settings, operator, hub, stop.clone()).with_metrics(metrics));
        parts.spawn("requests", async move {
            api::serve(listener, router, settings, api_stop).await;
            Ok(())
        });
        Ok(parts)
    }
}

/// What runs side by side, each with its name. Dropped, it is broken off.
#[derive(Default)]
struct Parts {
    tasks: JoinSet<Result<(), BrokerError>>,
    names: HashMap<Id, String>,
}

impl Parts {
    fn spawn(&mut self, name: &str, part: impl Future<Output = Result<(), BrokerError>> + Send + 'static) {
        let id = self.tasks.spawn(part).id();
        self.names.insert(id, name.into());
    }
}

/// Has every partition looked through now and then, by whoever has it.
async fn tick(broker: &dyn Broker, every: Duration, mut stop: Stop) {
    loop {
        // Apart from the other coordinators: together they would all tick at once.
        let wait = every.mul_f64(rand::rng().random_range(0.5..1.0));
        tokio::select! {
            () = stop.requested() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let all = async {
            for number in 0..EVENT_PARTITIONS {
                if let Err(error) = tick_one(broker, Queue::Events(number)).await {
                    tracing::debug!(number, %error, "a partition was not asked to look after its jobs");
                }
            }
        };
        tokio::select! {
            () = stop.requested() => return,
            () = all => {}
        }
    }
}

async fn tick_one(broker: &dyn Broker, queue: Queue) -> Result<(), BrokerError> {
    if broker.depth(queue).await? > BUSY_PARTITION {
        return Ok(());
    }
    let body = serde_json::to_vec(&Tick { tick: now_ms() }).expect("a tick is plain data");
    broker.publish(queue, body).await
}
