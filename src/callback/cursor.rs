//! How far an endpoint has heard of a job, and what comes next. Pure: what happened in, what to do out.
//!
//! A cursor says that all events before `next_sequence` are done with: delivered, given up, or not wanted. Whoever moves
//! it on has seen the event it passes over done with, so whatever dies or runs twice, and whichever of two writers writes
//! last, nothing is passed over. What may happen is that an event is delivered again, under the same id.

use super::schedule::Schedule;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Version of the cursor document.
pub const VERSION: u32 = 1;
/// Time by which the clocks of two machines may differ without a message going round once more, milliseconds.
const CLOCK_SLACK_MS: u64 = 500;

/// `callbacks/<job>/<endpoint>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub version: u32,
    /// The event that is delivered next.
    pub next_sequence: u64,
    /// Attempts to deliver it that failed.
    pub attempt: u32,
    /// Not before this time, milliseconds since 1970.
    pub due_ms: u64,
    /// A delivery was given up, and none has arrived since: every further one is tried once, so that an endpoint that is
    /// gone for good does not take days for each event of a job.
    pub failing: bool,
    /// The endpoint answered that it wants no more.
    pub disabled: bool,
    /// Deliveries that arrived, each event counted as often as it was replayed.
    pub delivered: u64,
    /// Deliveries that were given up.
    pub exhausted: u64,
    /// The highest sequence that was ever done with; what lies below `next_sequence` and above is being replayed.
    pub reached: u64,
    /// When the last replay was asked for that was begun, milliseconds since 1970.
    pub replayed_ms: u64,
    /// Why the last attempt that failed did.
    pub last_failure: Option<String>,
}

/// What to do about a job's endpoint now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Deliver this event, if it is there already.
    Deliver(u64),
    /// Nothing before this time is over.
    Wait(Duration),
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Arrived,
    /// It may arrive the next time.
    Failed {
        reason: String,
        retry_after: Option<Duration>,
    },
    /// 410: the endpoint wants no more.
    Gone,
}

/// What follows from an outcome, after the cursor has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// On with the next event. `again`: this one had been done with before, and may lie among the exhausted.
    Arrived { again: bool },
    /// Try this event again when so much time is over.
    Again(Duration),
    /// Keep this event among the exhausted; then on with the next.
    GivenUp,
    /// Disable the endpoint; this event stays the next.
    Disabled,
}

impl Default for Cursor {
    fn default() -> Self {
        Self {
            version: VERSION,
            next_sequence: 1,
            attempt: 0,
            due_ms: 0,
            failing: false,
            disabled: false,
            delivered: 0,
            exhausted: 0,
            reached: 0,
            replayed_ms: 0,
            last_failure: None,
        }
    }
}

impl Cursor {
    /// What to do now.
    pub fn step(&self, now_ms: u64) -> Step {
        if self.due_ms > now_ms.saturating_add(CLOCK_SLACK_MS) {
            return Step::Wait(Duration::from_millis(self.due_ms - now_ms));
        }
        Step::Deliver(self.next_sequence)
    }

    /// Deliver again from `sequence` on, whatever was done before. A request that was begun already, or is older than
    /// one that was, changes nothing: its message may come any number of times. True when something changed.
    pub fn replay(&mut self, sequence: u64, asked_ms: u64) -> bool {
        if asked_ms <= self.replayed_ms {
            return false;
        }
        self.reached = self.reached.max(self.next_sequence - 1);
        self.replayed_ms = asked_ms;
        // Never forward: what is replayed was done with before.
        self.next_sequence = sequence.clamp(1, self.next_sequence);
        (self.failing, self.disabled) = (false, false);
        self.fresh();
        true
    }

    /// The endpoint does not want this event.
    pub fn skip(&mut self) {
        self.pass();
    }

    /// Takes in how the attempt to deliver the next event ended.
    pub fn after(&mut self, outcome: Outcome, schedule: &Schedule, now_ms: u64) -> Next {
        match outcome {
            Outcome::Arrived => {
                let again = self.next_sequence <= self.reached;
                (self.delivered, self.failing, self.last_failure) = (self.delivered + 1, false, None);
                self.pass();
                Next::Arrived { again }
            }
            Outcome::Gone => {
                self.disabled = true;
                self.last_failure = Some("the endpoint answered 410: it wants no more".into());
                self.fresh();
                Next::Disabled
            }
            Outcome::Failed { reason, retry_after } => {
                self.last_failure = Some(reason);
                self.attempt += 1;
                let wait = schedule.wait(self.attempt, retry_after).filter(|_| !self.failing);
                let Some(wait) = wait else {
                    (self.exhausted, self.failing) = (self.exhausted + 1, true);
                    self.pass();
                    return Next::GivenUp;
                };
                self.due_ms = now_ms.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                Next::Again(wait)
            }
        }
    }

    fn pass(&mut self) {
        self.reached = self.reached.max(self.next_sequence);
        self.next_sequence += 1;
        self.fresh();
    }

    /// No attempt at the next event has been made.
    fn fresh(&mut self) {
        (self.attempt, self.due_ms) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const NOW: u64 = 1_700_000_000_000;

    fn schedule() -> Schedule {
        Schedule::new(&[0, 5, 300]).unwrap()
    }

    fn failed() -> Outcome {
        Outcome::Failed { reason: "status 500".into(), retry_after: None }
    }

    #[test]
    fn a_failed_event_is_due_again_by_the_schedule_and_given_up_after_its_last_attempt() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.step(NOW), Step::Deliver(1));
        assert_eq!(cursor.after(failed(), &schedule(), NOW), Next::Again(Duration::from_secs(5)));
        assert_eq!(cursor.step(NOW + 1000), Step::Wait(Duration::from_secs(4)));
        assert_eq!(cursor.step(NOW + 4600), Step::Deliver(1), "a clock may be half a second behind");
        assert_eq!(cursor.after(failed(), &schedule(), NOW), Next::Again(Duration::from_secs(300)));
        assert_eq!(cursor.after(failed(), &schedule(), NOW), Next::GivenUp);
        let expected = Cursor {
            next_sequence: 2,
            failing: true,
            exhausted: 1,
            reached: 1,
            last_failure: Some("status 500".into()),
            ..Cursor::default()
        };
        assert_eq!(cursor, expected);
        assert_eq!(cursor.step(NOW), Step::Deliver(2));
    }

    #[test]
    fn after_one_was_given_up_each_is_tried_once_until_one_arrives() {
        let mut cursor = Cursor { failing: true, ..Cursor::default() };
        assert_eq!(cursor.after(failed(), &schedule(), NOW), Next::GivenUp);
        assert_eq!(cursor.after(Outcome::Arrived, &schedule(), NOW), Next::Arrived { again: false });
        assert_eq!(cursor.after(failed(), &schedule(), NOW), Next::Again(Duration::from_secs(5)));
        assert_eq!((cursor.next_sequence, cursor.delivered, cursor.exhausted), (3, 1, 1));
    }

    #[test]
    fn an_endpoint_that_is_gone_keeps_its_place() {
        let mut cursor = Cursor { next_sequence: 4, attempt: 2, due_ms: NOW, ..Cursor::default() };
        assert_eq!(cursor.after(Outcome::Gone, &schedule(), NOW), Next::Disabled);
        assert_eq!((cursor.next_sequence, cursor.attempt, cursor.disabled, cursor.step(0)), (4, 0, true, Step::Deliver(4)));
    }

    #[test]
    fn a_replay_is_begun_once_however_often_its_message_comes() {
        let mut cursor = Cursor { next_sequence: 9, failing: true, disabled: true, ..Cursor::default() };
        assert!(cursor.replay(3, NOW));
        assert_eq!((cursor.next_sequence, cursor.reached, cursor.failing, cursor.disabled), (3, 8, false, false));
        assert_eq!(cursor.after(Outcome::Arrived, &schedule(), NOW), Next::Arrived { again: true });
        assert!(!cursor.replay(3, NOW), "the same message");
        assert!(!cursor.replay(1, NOW - 1), "one that was overtaken");
        assert_eq!(cursor.next_sequence, 4);
        assert!(cursor.replay(0, NOW + 1));
        assert_eq!(cursor.next_sequence, 1, "there is no event 0");
        assert!(cursor.replay(7, NOW + 2));
        assert_eq!(cursor.next_sequence, 1, "a replay passes nothing over");
    }

    #[test]
    fn a_cursor_is_the_document_that_its_version_says() {
        let text = r#"{"version":1,"next_sequence":1,"attempt":0,"due_ms":0,"failing":false,"disabled":false,"delivered":0,"exhausted":0,"reached":0,"replayed_ms":0,"last_failure":null}"#;
        assert_eq!(serde_json::to_string(&Cursor::default()).unwrap(), text);
        assert_eq!(serde_json::from_str::<Cursor>(text).unwrap(), Cursor::default());
    }

    /// One run of a consumer that may be killed before or after any of its steps, then of the next one.
    #[derive(Clone, Copy, Debug)]
    enum Chance {
        Arrives,
        Fails,
        /// It arrives, and the cursor is not written.
        ArrivesUnwritten,
        /// A second consumer writes what it had read before.
        WrittenOver,
        Skipped,
        Replay(u64),
    }

    fn chance() -> impl Strategy<Value = Chance> {
        prop_oneof![
            4 => Just(Chance::Arrives),
            3 => Just(Chance::Fails),
            2 => Just(Chance::ArrivesUnwritten),
            2 => Just(Chance::WrittenOver),
            1 => Just(Chance::Skipped),
            1 => (1_u64..20).prop_map(Chance::Replay),
        ]
    }

    proptest! {
        #[test]
        fn whatever_dies_or_runs_twice_no_event_is_passed_over(chances in proptest::collection::vec(chance(), 0..200)) {
            let schedule = schedule();
            let mut stored = Cursor::default();
            let mut done = BTreeSet::new();
            let mut stale = stored.clone();
            for (at, chance) in chances.into_iter().enumerate() {
                let now = NOW + at as u64 * 1_000_000;
                let mut cursor = stored.clone();
                let sequence = cursor.next_sequence;
                match chance {
                    Chance::Replay(from) => {
                        cursor.replay(from, now);
                    }
                    Chance::WrittenOver => cursor = stale.clone(),
                    Chance::Skipped => {
                        done.insert(sequence);
                        cursor.skip();
                    }
                    Chance::Arrives | Chance::ArrivesUnwritten => {
                        done.insert(sequence);
                        cursor.after(Outcome::Arrived, &schedule, now);
                    }
                    Chance::Fails => {
                        if cursor.after(failed(), &schedule, now) == Next::GivenUp {
                            done.insert(sequence);
                        }
                    }
                }
                stale = stored.clone();
                if !matches!(chance, Chance::ArrivesUnwritten) {
                    stored = cursor;
                }
                prop_assert!((1..stored.next_sequence).all(|n| done.contains(&n)), "{stored:?} after {done:?}");
            }
        }

        #[test]
        fn an_endpoint_that_never_answers_ends_every_event(events in 1_u64..30) {
            let (schedule, mut cursor, mut attempts) = (schedule(), Cursor::default(), 0);
            while cursor.next_sequence <= events {
                cursor.after(failed(), &schedule, NOW);
                attempts += 1;
            }
            prop_assert_eq!(attempts, 3 + (events - 1));
            prop_assert_eq!(cursor.exhausted, events);
        }
    }
}
