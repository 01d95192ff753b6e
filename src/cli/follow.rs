//! Follows one job of a fleet to its end: recorded events in their order, live progress in between.

use super::exit::{Exit, Failed};
use super::status;
use super::view::{REFRESH_EVERY, View};
use crate::broker::{Subscription, Topic};
use crate::coordinator::Fleet;
use crate::event::{Event, Recorded, State, Status};
use crate::job::JobId;
use crate::store::key::Key;
use std::time::Duration;

/// How often the bucket is asked for the next event.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is done with each recorded event.
pub(super) trait Audience {
    /// # Errors
    /// It cannot be told.
    fn recorded(&mut self, event: &Recorded) -> Result<(), Failed>;
    /// Frames of a part, told live; may be missed.
    fn told(&mut self, _: &Event) {}
    /// Time has passed.
    fn refresh(&mut self) {}
}

impl Audience for View {
    fn recorded(&mut self, event: &Recorded) -> Result<(), Failed> {
        View::recorded(self, event);
        Ok(())
    }

    fn told(&mut self, event: &Event) {
        View::event(self, event);
    }

    fn refresh(&mut self) {
        View::refresh(self);
    }
}

/// What is said when the wait is broken off.
pub(super) const LEFT: &str = "no longer watched; the job goes on (narrows watch looks again, narrows cancel ends it)";

/// Tells `audience` everything recorded of a job from the beginning on, until it has ended; that last event. Dropped, it
/// leaves the job as it is. Of a job that is known to be accepted, a rejection is no end: it is of an earlier document that
/// was mended since.
///
/// # Errors
/// A store or the broker failed.
pub(super) async fn follow(
    fleet: &Fleet,
    job: &JobId,
    is_accepted: bool,
    audience: &mut dyn Audience,
) -> Result<Recorded, Failed> {
    let mut progress = fleet.broker.subscribe(Topic::Progress).await.map_err(|e| Exit::Internal.because(e))?;
    let mut next = 1;
    let (mut look, mut refresh) = (tokio::time::interval(LOOK_EVERY), tokio::time::interval(REFRESH_EVERY));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {
                while let Some(event) = event(fleet, job, next).await? {
                    next += 1;
                    audience.recorded(&event)?;
                    if event.is_last() && !(is_accepted && event.status.state == Some(State::Rejected)) {
                        return Ok(event);
                    }
                }
            }
            Some(event) = live(&mut *progress) => {
                if event.job == *job {
                    audience.told(&event);
                }
            }
            _ = refresh.tick() => audience.refresh(),
        }
    }
}

/// The next live event; none when the topic is gone, which the store makes up for.
async fn live(progress: &mut dyn Subscription) -> Option<Event> {
    loop {
        let body = progress.next().await?;
        if let Ok(event) = serde_json::from_slice(&body) {
            return Some(event);
        }
    }
}

/// The event of that number; none when it is not there yet. Numbers have no gaps.
async fn event(fleet: &Fleet, job: &JobId, number: u64) -> Result<Option<Recorded>, Failed> {
    let key = Key::event(job, number);
    fleet.stores.work().get_json(&key).await.map_err(|e| Exit::Internal.because(e))
}

/// How a command ends that waited for a job.
pub(super) fn ending(job: &JobId, status: &Status) -> Result<Exit, Failed> {
    let exit = match status.state {
        Some(State::Completed) => return Ok(Exit::Done),
        Some(State::Canceled) => Exit::Canceled,
        Some(State::Rejected) => Exit::Settings,
        Some(State::Failed) => status.failure.as_ref().map_or(Exit::Internal, |failure| failure.cause.into()),
        Some(State::Accepted | State::Started) | None => Exit::Internal,
    };
    Err(exit.because(format!("{job}: {}", status::in_short(status))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Cause, Failure, Rejection};

    #[test]
    fn every_end_of_a_job_has_its_exit_code_and_its_reason() {
        let job = JobId::try_from("talk-1".to_string()).unwrap();
        let failed = |cause| Some(Failure { cause, message: "cut short".into() });
        let rejection = Some(Rejection { path: "lane".into(), reason: "there is no lane fast".into(), requested_id: None });
        let of = |state, failure, rejection: Option<Rejection>| {
            let status = Status { state: Some(state), failure, rejection, ..Status::default() };
            ending(&job, &status).map_or_else(|failed| (failed.exit.code(), failed.message), |exit| (exit.code(), String::new()))
        };
        assert_eq!(of(State::Completed, None, None), (0, String::new()));
        assert_eq!(of(State::Canceled, None, None), (3, "talk-1: canceled".into()));
        assert_eq!(of(State::Rejected, None, rejection), (64, "talk-1: rejected: lane: there is no lane fast".into()));
        assert_eq!(of(State::Failed, failed(Cause::Media), None), (65, "talk-1: failed: cut short".into()));
        assert_eq!(of(State::Failed, failed(Cause::Settings), None).0, 64);
        assert_eq!(of(State::Failed, failed(Cause::Internal), None).0, 70);
    }
}
