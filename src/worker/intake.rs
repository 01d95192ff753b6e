//! The permit first, then the delivery: the task that takes work off the queues, and nothing that cannot start now.

use super::devices::Device;
use super::health::Health;
use super::lanes::Rota;
use crate::broker::{Broker, BrokerError, Delivery, Intake, Queue};
use crate::observe::Observer;
use crate::part::Tools;
use crate::part::scratch::ScratchFolder;
use crate::shutdown::Stop;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Parts open at once for each slot: one with its child running, one being uploaded.
pub const OPEN_PER_SLOT: usize = 2;
/// How often a full disk is looked at.
const ROOM_EVERY: Duration = Duration::from_secs(2);
/// How long to wait after a broker that failed without saying that it is for good.
const BROKER_WAIT: Duration = Duration::from_secs(1);

/// The rights that a delivery is worked on with.
pub(super) struct Permits {
    /// To run a child.
    pub slot: OwnedSemaphorePermit,
    /// To be open: bounds what is being uploaded after its child has ended.
    pub open: OwnedSemaphorePermit,
}

/// A delivery that can start now.
pub(super) struct Taken {
    pub delivery: Delivery,
    pub permits: Permits,
    /// That it is to be encoded on.
    pub device: Option<Arc<Device>>,
}

/// Takes deliveries, as there are permits.
pub(super) struct Taker {
    pub broker: Arc<dyn Broker>,
    pub scratch: ScratchFolder,
    pub rota: Rota<Queue>,
    pub health: Health,
    pub observer: Arc<dyn Observer>,
    /// For which it takes; none: software.
    pub device: Option<Arc<Device>>,
    slots: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Taker {
    pub fn new(tools: &Tools, rota: Rota<Queue>, slots: usize, health: Health) -> Self {
        let (broker, scratch) = (tools.broker.clone(), tools.settings.scratch.clone());
        let (open, slots) = (Arc::new(Semaphore::new(slots * OPEN_PER_SLOT)), Arc::new(Semaphore::new(slots)));
        Self { broker, scratch, rota, health, observer: tools.observer.clone(), device: None, slots, open }
    }

    /// Takes deliveries until it is asked to stop, or nobody takes them any more.
    ///
    /// # Errors
    /// The broker refuses, and will go on to.
    pub async fn run(mut self, out: mpsc::Sender<Taken>, mut stop: Stop) -> Result<(), BrokerError> {
        let mut intake = tokio::select! {
            () = stop.requested() => return Ok(()),
            intake = self.broker.intake() => intake?,
        };
        let result = tokio::select! {
            () = stop.requested() => Ok(()),
            result = self.take_for_ever(&mut *intake, &out) => result,
        };
        intake.pause().await;
        result
    }

    pub async fn take_for_ever(&mut self, intake: &mut dyn Intake, out: &mpsc::Sender<Taken>) -> Result<(), BrokerError> {
        loop {
            let permits = match self.permits_now() {
                Some(permits) => permits,
                None => {
                    // What was on its way here is for workers that are free.
                    intake.pause().await;
                    self.permits().await
                }
            };
            self.room(intake).await;
            match intake.take(&self.rota.order()).await {
                Ok(delivery) => {
                    self.rota.served(delivery.queue);
                    if out.send(Taken { delivery, permits, device: self.device.clone() }).await.is_err() {
                        return Ok(());
                    }
                }
                Err(BrokerError::Gone(reason)) => {
                    tracing::warn!(reason, "nothing can be taken from the broker; again");
                    tokio::time::sleep(BROKER_WAIT).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The right to run a child, for what is no delivery.
    pub async fn slot(&self) -> OwnedSemaphorePermit {
        self.slots.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    fn permits_now(&self) -> Option<Permits> {
        let open = self.open.clone().try_acquire_owned().ok()?;
        let slot = self.slots.clone().try_acquire_owned().ok()?;
        Some(Permits { slot, open })
    }

    async fn permits(&self) -> Permits {
        let open = self.open.clone().acquire_owned().await.expect("the semaphore is never closed");
        let slot = self.slot().await;
        Permits { slot, open }
    }

    /// Waits until a part has room to write.
    async fn room(&self, intake: &mut dyn Intake) {
        let mut was_short = false;
        loop {
            let folder = self.scratch.clone();
            let looked = tokio::task::spawn_blocking(move || folder.shortage()).await;
            let shortage = match looked {
                Ok(Ok(None)) => None,
                Ok(Ok(Some(shortage))) => Some(shortage.to_string()),
                Ok(Err(error)) => Some(format!("the scratch folder cannot be used: {error}")),
                Err(error) => Some(format!("the scratch folder could not be looked at: {error}")),
            };
            self.health.room(shortage.clone());
            self.observer.scratch_short(shortage.is_some());
            let Some(shortage) = shortage else { return };
            if !was_short {
                tracing::warn!(folder = %self.scratch.path.display(), shortage, "no part is started");
                intake.pause().await;
                was_short = true;
            }
            tokio::time::sleep(ROOM_EVERY).await;
        }
    }
}
