//! One delivery, from its start to its settlement.

use super::devices::Device;
use super::settings::WorkerSettings;
use super::verdict::{self, Verdict};
use super::{LAST_WORDS, Order, dead};
use crate::broker::{Delivery, Settlement};
use crate::event::{Cause, Fact, Failure};
use crate::job::JobId;
use crate::observe::PartEnd;
use crate::part::{Attempt, PartError, PartMessage, Slot, Spent, Tools, accept, class, finish, usage};
use crate::shutdown::{self, Stop, Stopper};
use futures::future::FutureExt;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use tokio::time::Instant;

/// Settles a delivery; what it was settled as.
pub(super) async fn settle(delivery: Delivery, settlement: Settlement) -> Settlement {
    let queue = delivery.queue;
    if let Settlement::Reject(reason) = &settlement {
        tracing::warn!(%queue, reason, "delivery rejected");
    }
    if let Err(error) = delivery.settle(settlement.clone()).await {
        tracing::warn!(%queue, %error, "delivery not settled; it will come again");
    }
    settlement
}

/// One delivery being worked on. Dropped half-way, its child is killed and it goes back.
pub(super) struct Work {
    pub tools: Tools,
    pub settings: Arc<WorkerSettings>,
    pub delivery: Delivery,
    pub spent: Spent,
    pub began: Instant,
    /// That is to encode it.
    pub device: Option<Arc<Device>>,
}

impl Work {
    pub async fn done(self, order: Order, slot: Option<Slot>, stop: Stop) -> Option<Settlement> {
        if let Order::Part(message) = &order {
            self.tools.observer.part_started(message.part.kind());
        }
        let panicked = || Err(PartError::Crash("the worker itself failed (a panic); its log says where".into()));
        let worked = AssertUnwindSafe(self.work(&order, slot, stop)).catch_unwind().await;
        let settlement = match worked.unwrap_or_else(|_| panicked()) {
            Ok(()) => {
                if let Order::Part(message) = &order {
                    self.part_ended(message, PartEnd::Completed);
                }
                if let Some(device) = self.device.as_ref().filter(|_| !self.spent.total().is_zero()) {
                    device.worked();
                }
                Some(Settlement::Ack)
            }
            Err(error) => self.failed(&order, error).await,
        };
        match settlement {
            Some(settlement) => Some(settle(self.delivery, settlement).await),
            None => None,
        }
    }

    /// Says how the work on a part ended. Why it failed is logged where that is known.
    fn part_ended(&self, PartMessage { job, part }: &PartMessage, end: PartEnd) {
        let (kind, took) = (part.kind(), self.began.elapsed());
        self.tools.observer.part_ended(kind, end, took);
        self.tools.span.note("outcome", end.name());
        if end == PartEnd::Completed {
            let (attempt, duration_s) = (self.delivery.attempt, took.as_secs_f64());
            let trace_id = self.tools.span.trace_id();
            tracing::info!(%job, %part, kind, outcome = end.name(), attempt, duration_s, trace_id, "part done");
        } else if end != PartEnd::GivenBack {
            self.tools.span.fail();
        }
    }

    async fn work(&self, order: &Order, slot: Option<Slot>, stop: Stop) -> Result<(), PartError> {
        let Delivery { body, user, attempt, redelivered, .. } = &self.delivery;
        match order {
            Order::Submit => accept::submit(&self.tools, accept::Submission { document: body, user: user.as_deref() }).await,
            Order::Bury(letter) => dead::bury(&self.tools, letter).await,
            Order::Part(message) => {
                let (part, spent) = (message.part, self.spent.clone());
                let (stopper, stopped) = shutdown::channel();
                let class = self.delivery.queue.class();
                let device = self.device.as_ref().map(|device| device.as_told());
                let (number, redelivered) = (*attempt, *redelivered);
                let attempt = Attempt { part, class, device, number, redelivered, permit: slot, stop: stopped, spent };
                self.within_deadline(pin!(crate::part::run(&self.tools, message, attempt)), stop, &stopper).await
            }
        }
    }

    /// Waits for a part, for as long as it may take, and hands on the request to stop. At the deadline its child is ended as
    /// by that request, and not just dropped: what it took is known then, and billed as thrown away.
    async fn within_deadline(
        &self,
        mut part: Pin<&mut impl Future<Output = Result<(), PartError>>>,
        mut stop: Stop,
        stopper: &Stopper,
    ) -> Result<(), PartError> {
        let deadline = self.settings.part_deadline;
        let until = Instant::now() + deadline;
        let mut is_asked = false;
        loop {
            tokio::select! {
                biased;
                done = &mut part => return done,
                () = stop.requested(), if !is_asked => {
                    is_asked = true;
                    stopper.stop();
                }
                () = tokio::time::sleep_until(until) => break,
            }
        }
        stopper.stop();
        match tokio::time::timeout(LAST_WORDS, part).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(PartError::Crash(format!("it ran past the part's deadline of {deadline:?}"))),
        }
    }

    /// What becomes of a delivery that was not done; none: it goes back untouched. Every failure is logged here, and only
    /// here.
    async fn failed(&self, order: &Order, error: PartError) -> Option<Settlement> {
        let (queue, attempt) = (self.delivery.queue, self.delivery.attempt);
        let verdict = match order {
            Order::Submit => verdict::of_submission(error, attempt, &self.settings),
            Order::Bury(_) => verdict::of_dead_letter(&error, &self.settings),
            Order::Part(message) => return self.part_failed(message, error).await,
        };
        match verdict {
            Verdict::GiveBack => None,
            Verdict::Again { after, reason } => {
                tracing::warn!(%queue, attempt, reason, "delivery failed; again");
                Some(Settlement::Retry(after))
            }
            Verdict::Bury(reason) => Some(Settlement::Reject(reason)),
            Verdict::Fail(failure) => Some(Settlement::Reject(failure.message)),
        }
    }

    async fn part_failed(&self, message: &PartMessage, error: PartError) -> Option<Settlement> {
        let (attempt, PartMessage { job, part }) = (self.delivery.attempt, message);
        usage::note_waste(&self.tools, message, attempt, &self.spent, &error).await;
        let failures = match error {
            PartError::Crash(_) | PartError::Device(_) => self.failures(message, error.kind()).await,
            _ => 0,
        };
        let of_device = matches!(error, PartError::Device(_));
        if let Some(device) = self.device.as_ref().filter(|_| of_device) {
            device.failed(&error.to_string());
        }
        let verdict = verdict::of_part(error, attempt, failures, &self.settings);
        let (kind, outcome) = (part.kind(), verdict.end().name());
        self.part_ended(message, verdict.end());
        let failure = match verdict {
            Verdict::GiveBack => return None,
            Verdict::Bury(reason) => return Some(Settlement::Reject(reason)),
            Verdict::Again { after, reason } => {
                // Whoever follows the job hears of it by its event.
                tracing::info!(%job, %part, kind, outcome, attempt, reason, "part failed; again");
                self.tell_failed(message, &reason, true).await;
                return Some(Settlement::Retry(after));
            }
            Verdict::Fail(failure) => failure,
        };
        if of_device && let Some(settlement) = self.gives_up_device(job, &failure.message).await {
            return Some(settlement);
        }
        if failure.cause == Cause::Internal {
            tracing::error!(%job, %part, kind, outcome, attempt, reason = failure.message, "part failed");
        } else {
            tracing::info!(%job, %part, kind, outcome, attempt, reason = failure.message, "part refused");
        }
        self.tell_failed(message, &failure.message, false).await;
        Some(self.end_job(job, failure).await)
    }

    /// A part that fails on every device is encoded in software, where its job may be; none: the job ends.
    async fn gives_up_device(&self, job: &JobId, reason: &str) -> Option<Settlement> {
        match class::give_up_device(&self.tools, job, reason).await {
            Ok(true) => Some(Settlement::Ack),
            Ok(false) => None,
            Err(error) => {
                tracing::warn!(%job, %error, "the job could not be handed to software encoders; again");
                Some(Settlement::Retry(self.settings.longest_delay))
            }
        }
    }

    /// How often a part came to such an end, this time among them. A store that does not say is no reason to go on for ever.
    async fn failures(&self, message: &PartMessage, kind: &str) -> u32 {
        let noted = usage::failures(&self.tools, &message.job, message.part, kind).await;
        noted.map_or(self.delivery.attempt, |noted| noted.max(1))
    }

    async fn end_job(&self, job: &JobId, failure: Failure) -> Settlement {
        match finish::bury(&self.tools, job, failure).await {
            Ok(()) => Settlement::Ack,
            // The end of the job could not be written: the delivery limit sees to it that this ends, too.
            Err(error) => {
                tracing::error!(%job, %error, "the job's failure could not be written");
                Settlement::Retry(self.settings.longest_delay)
            }
        }
    }

    async fn tell_failed(&self, message: &PartMessage, reason: &str, again: bool) {
        let (part, attempt) = (message.part, self.delivery.attempt);
        let fact = Fact::PartFailed { part, attempt, reason: reason.into(), again };
        if let Err(error) = finish::tell_of(&self.tools, &message.job, fact).await {
            tracing::warn!(job = %message.job, %part, %error, "part.failed not told");
        }
    }
}
