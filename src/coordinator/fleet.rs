//! What the operations on a fleet work with.

use crate::broker::{self, Broker, BrokerError, Queue};
use crate::callback::CallbackSettings;
use crate::event::{Event, Fact};
use crate::job::JobId;
use crate::observe::Observer;
use crate::part::accepted::Accepted;
use crate::part::class::DeviceRules;
use crate::part::scratch::ScratchFolder;
use crate::part::{Children, Mode, PartError, Settings, StopFuture, Tools, admission, usage};
use crate::sandbox::protocol::{Limits, Task};
use crate::sandbox::{Finished, InputSource};
use crate::store::Stores;
use crate::tenant::Tenants;
use crate::trace::Span;
use crate::usage::Usage;
use async_trait::async_trait;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A fleet as it is seen by who runs no parts. Clones share it all.
#[derive(Clone)]
pub struct Fleet {
    pub broker: Arc<dyn Broker>,
    pub stores: Stores,
    pub tenants: Arc<Tenants>,
    /// Where callbacks may go.
    pub callbacks: Arc<CallbackSettings>,
    /// Parts of one job that are published and not done.
    pub window: u32,
    /// What there is beside software encoders.
    pub devices: Arc<DeviceRules>,
    /// Is told what happens to jobs.
    pub observer: Arc<dyn Observer>,
    /// What is being done.
    pub span: Arc<Span>,
}

impl Fleet {
    /// The same fleet for something that is being done: what it publishes is in its trace.
    pub(super) fn within(&self, span: Span) -> Self {
        let broker = broker::within(&self.broker, span.context());
        Self { broker, span: Arc::new(span), ..self.clone() }
    }

    /// Publishes a fact, confirmed.
    pub(super) async fn tell(&self, job: &JobId, tenant: &str, at_ms: u64, fact: Fact) -> Result<(), BrokerError> {
        let event = Event::new(job.clone(), tenant.into(), at_ms, fact);
        let body = serde_json::to_vec(&event).expect("an event is plain data");
        self.broker.publish(Queue::events_of(job.as_str()), body).await
    }

    /// Jobs of a tenant that may be worked on at once, where that is limited.
    pub(super) fn most_active(&self, tenant: &str) -> Option<u32> {
        self.tenants.get(tenant).and_then(|tenant| tenant.quota.active_jobs)
    }

    /// Has those jobs of a tenant started that wait and need not any more, if it has any that could.
    pub(super) async fn wake(&self, tenant: &str) -> Result<(), BrokerError> {
        match self.most_active(tenant) {
            Some(_) => admission::wake(&*self.broker, tenant).await,
            None => Ok(()),
        }
    }

    /// The tools by which workers accept and measure jobs. There is nobody to run a child with them.
    pub(super) fn tools(&self) -> Tools {
        let limits = Limits {
            max_pixels: 0,
            max_streams: 0,
            max_duration_s: 0,
            max_frames: 0,
            memory_bytes: 0,
            scratch_bytes: 0,
            cpu_s: 0,
        };
        let scratch = ScratchFolder::unlimited(PathBuf::new());
        let settings = Settings { mode: Mode::Fleet, limits, scratch, threads_per_slot: 1, ranges: true, window: self.window };
        let mut tools = Tools::new(self.broker.clone(), self.stores.clone(), Arc::new(NoChildren), settings);
        (tools.tenants, tools.span) = (self.tenants.clone(), self.span.clone());
        tools.device_classes = self.devices.classes.as_slice().into();
        tools.with_observer(self.observer.clone()).with_callbacks((*self.callbacks).clone())
    }

    /// What its end told that a job used, and what was thrown away of it since: children that ran when it was canceled, or
    /// when it failed, are killed because it has ended, and their workers note that only then.
    pub(super) async fn billed(&self, job: &JobId, told: Option<&Usage>) -> Result<Usage, PartError> {
        let mut usage = told.cloned().unwrap_or_default();
        let (attempts, cpu_s) = usage::thrown_away(&self.tools(), job).await?;
        usage.wasted_attempts = usage.wasted_attempts.max(attempts);
        usage.wasted_cpu_s = usage.wasted_cpu_s.max(cpu_s);
        Ok(usage)
    }

    /// What a job used up to now.
    pub(super) async fn measure(&self, accepted: &Accepted) -> Result<Usage, PartError> {
        usage::measure(&self.tools(), accepted).await
    }
}

/// A coordinator touches no media.
struct NoChildren;

#[async_trait]
impl Children for NoChildren {
    async fn run(
        &self,
        _: Task,
        _: Vec<InputSource>,
        _: &Limits,
        _: &Path,
        _: &mut (dyn FnMut(u64) + Send),
        _: StopFuture,
    ) -> Finished {
        unreachable!("a coordinator is never given a part")
    }
}
