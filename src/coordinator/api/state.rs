//! What every request works with.

use super::live::Hub;
use super::operator::Operator;
use crate::coordinator::fleet::Fleet;
use crate::coordinator::settings::CoordinatorSettings;
use crate::observe::Exposition;
use crate::shutdown::Stop;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What every request works with. Clones share it all.
#[derive(Clone)]
pub(in crate::coordinator) struct Api {
    pub fleet: Fleet,
    pub settings: Arc<CoordinatorSettings>,
    pub operator: Option<Arc<Operator>>,
    pub hub: Hub,
    /// Ends event streams.
    pub stop: Stop,
    /// What `/metrics` shows.
    pub metrics: Exposition,
    pub(super) requests: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
}

impl Api {
    pub fn new(fleet: Fleet, settings: &CoordinatorSettings, operator: Option<Operator>, hub: Hub, stop: Stop) -> Self {
        Self {
            fleet,
            settings: Arc::new(settings.clone()),
            operator: operator.map(Arc::new),
            hub,
            stop,
            metrics: Arc::new(String::new),
            requests: Arc::new(Semaphore::new(settings.max_requests)),
            streams: Arc::new(Semaphore::new(settings.max_streams)),
        }
    }

    pub fn with_metrics(self, metrics: Exposition) -> Self {
        Self { metrics, ..self }
    }
}
