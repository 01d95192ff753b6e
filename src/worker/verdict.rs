//! What becomes of a delivery whose work failed. Pure: what is known of the failure in, what to do out.

use super::settings::WorkerSettings;
use crate::event::{Cause, Failure};
use crate::observe::PartEnd;
use crate::part::PartError;
use std::time::Duration;

/// What to do with a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it back untouched: it does not count as an attempt.
    GiveBack,
    /// Later.
    Again { after: Duration, reason: String },
    /// Nobody can work on it.
    Bury(String),
    /// Its job ends.
    Fail(Failure),
}

impl Verdict {
    /// The same of a part, for whoever counts.
    pub fn end(&self) -> PartEnd {
        match self {
            Verdict::GiveBack => PartEnd::GivenBack,
            Verdict::Again { .. } => PartEnd::Retried,
            Verdict::Bury(_) => PartEnd::Buried,
            Verdict::Fail(failure) if failure.cause == Cause::Internal => PartEnd::Failed,
            Verdict::Fail(_) => PartEnd::Refused,
        }
    }
}

/// Of a part, at its attempt number `attempt`, that crashed, or failed on devices, `failures` times so far, this time among
/// them.
pub fn of_part(error: PartError, attempt: u32, failures: u32, settings: &WorkerSettings) -> Verdict {
    let again = |reason: String, wait: u32| Verdict::Again { after: settings.wait_after(wait), reason };
    let fail = |message: String| Verdict::Fail(Failure { cause: Cause::Internal, message });
    match error {
        // Its job has ended, or this worker is ending: either way the broker may have it back.
        PartError::Stopped => Verdict::GiveBack,
        PartError::Poison(reason) => Verdict::Bury(reason),
        PartError::Reject(failure) => Verdict::Fail(failure),
        PartError::Crash(reason) | PartError::Device(reason) if failures >= settings.attempts => {
            fail(format!("{reason} (attempt {attempt}, the last)"))
        }
        PartError::Crash(reason) | PartError::Device(reason) => again(reason, failures),
        PartError::Retry(reason) if attempt >= settings.outage_attempts => {
            fail(format!("{reason} (attempt {attempt}, the last)"))
        }
        PartError::Retry(reason) => again(reason, attempt),
    }
}

/// Of a submission.
pub(super) fn of_submission(error: PartError, attempt: u32, settings: &WorkerSettings) -> Verdict {
    let most = match error {
        PartError::Crash(_) => settings.attempts,
        _ => settings.outage_attempts,
    };
    match error {
        PartError::Stopped => Verdict::GiveBack,
        PartError::Retry(reason) | PartError::Crash(reason) if attempt < most => {
            Verdict::Again { after: settings.wait_after(attempt), reason }
        }
        error => Verdict::Bury(error.to_string()),
    }
}

/// Of a dead letter. There is nothing behind the last queue: it is tried until it is done.
pub(super) fn of_dead_letter(error: &PartError, settings: &WorkerSettings) -> Verdict {
    match error {
        PartError::Stopped => Verdict::GiveBack,
        error => Verdict::Again { after: settings.longest_delay, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::fixture::settings;
    use super::*;

    fn part(error: PartError, attempt: u32, crashes: u32) -> Verdict {
        of_part(error, attempt, crashes, &settings())
    }

    fn crash() -> PartError {
        PartError::Crash("died".into())
    }

    fn outage() -> PartError {
        PartError::Retry("bucket away".into())
    }

    fn is_again(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Again { .. })
    }

    #[test]
    fn crashes_are_few_and_outages_are_waited_out() {
        assert!(is_again(&part(crash(), 1, 1)) && is_again(&part(crash(), 2, 2)));
        assert!(matches!(part(crash(), 3, 3), Verdict::Fail(f) if f.cause == Cause::Internal && f.message.contains("attempt 3")));
        assert!(is_again(&part(outage(), 19, 0)));
        assert!(matches!(part(outage(), 20, 0), Verdict::Fail(_)));
        assert!(is_again(&part(crash(), 15, 1)), "one crash after a long outage is one crash");
    }

    #[test]
    fn a_part_that_was_stopped_is_handed_back_and_nothing_counted() {
        assert_eq!(part(PartError::Stopped, 7, 7), Verdict::GiveBack);
        assert_eq!(of_submission(PartError::Stopped, 99, &settings()), Verdict::GiveBack);
        assert_eq!(of_dead_letter(&PartError::Stopped, &settings()), Verdict::GiveBack);
    }

    #[test]
    fn a_refusal_fails_the_job_and_nonsense_is_buried_at_once() {
        let refused = PartError::reject(Cause::Media, "truncated");
        assert!(matches!(part(refused, 1, 0), Verdict::Fail(f) if f.cause == Cause::Media && f.message == "truncated"));
        assert_eq!(part(PartError::Poison("no such job".into()), 1, 0), Verdict::Bury("no such job".into()));
        assert_eq!(part(PartError::reject(Cause::Media, "truncated"), 1, 0).end(), PartEnd::Refused);
        assert_eq!(part(crash(), 3, 3).end(), PartEnd::Failed);
        assert!(is_again(&of_submission(outage(), 19, &settings())));
        assert!(matches!(of_submission(outage(), 20, &settings()), Verdict::Bury(_)));
        assert!(matches!(of_submission(crash(), 3, &settings()), Verdict::Bury(_)));
        assert!(is_again(&of_dead_letter(&crash(), &settings())));
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<u128> = (1..5).map(|n| settings().wait_after(n).as_millis()).collect();
        assert_eq!(waits, [1, 2, 4, 4]);
        assert_eq!(settings().wait_after(u32::MAX), settings().longest_delay);
    }
}
