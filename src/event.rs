//! Versioned facts about a job, and which may follow which.
//!
//! Events arrive at least once and, across workers, in no certain order. Each has an id made of what it says, so a
//! duplicate is recognised; [`Status`] takes them in any order and says what changed.

use crate::job::JobId;
use crate::plan::marker::PartId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Version of the event document.
pub const VERSION: u32 = 1;

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub version: u32,
    /// The same for every telling of the same fact.
    pub id: String,
    pub job: JobId,
    pub tenant: String,
    /// Milliseconds since 1970, by the clock of the worker that tells.
    pub at_ms: u64,
    #[serde(flatten)]
    pub fact: Fact,
}

impl Event {
    /// The fact as told at `at_ms`.
    pub fn new(job: JobId, tenant: String, at_ms: u64, fact: Fact) -> Self {
        Self { version: VERSION, id: format!("{job}/{}", fact.identity()), job, tenant, at_ms, fact }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Fact {
    #[serde(rename = "job.accepted")]
    JobAccepted,
    #[serde(rename = "job.rejected")]
    JobRejected {
        /// Dotted path of the field that is wrong.
        path: String,
        reason: String,
    },
    #[serde(rename = "job.started")]
    JobStarted,
    #[serde(rename = "stage.started")]
    StageStarted {
        stage: Stage,
        parts: u64,
        /// Frames the stage is expected to make, all rungs together; 0 when it makes none.
        frames: u64,
        /// Length of the video, seconds; 0 when there is none.
        media_s: f64,
    },
    #[serde(rename = "stage.completed")]
    StageCompleted { stage: Stage },
    #[serde(rename = "part.completed")]
    PartCompleted {
        part: PartId,
        attempt: u32,
        /// Frames made, all rungs together.
        frames: u64,
        wall_s: f64,
        cpu_s: f64,
    },
    #[serde(rename = "part.failed")]
    PartFailed {
        part: PartId,
        attempt: u32,
        reason: String,
        /// Will it be tried again?
        again: bool,
    },
    /// Frames of one part so far, all rungs together. Told on the progress topic only, and may be lost.
    #[serde(rename = "progress")]
    Progress { part: PartId, frames: u64 },
    #[serde(rename = "job.completed")]
    JobCompleted {
        /// Path of the report under the output URI.
        report: String,
    },
    #[serde(rename = "job.failed")]
    JobFailed { failure: Failure },
    #[serde(rename = "job.canceled")]
    JobCanceled,
}

impl Fact {
    /// What makes this fact this one: two tellings of one fact have it in common.
    fn identity(&self) -> String {
        match self {
            Fact::JobAccepted => "job.accepted".into(),
            Fact::JobRejected { .. } => "job.rejected".into(),
            Fact::JobStarted => "job.started".into(),
            Fact::StageStarted { stage, .. } => format!("stage.started/{stage}"),
            Fact::StageCompleted { stage } => format!("stage.completed/{stage}"),
            Fact::PartCompleted { part, .. } => format!("part.completed/{part}"),
            Fact::PartFailed { part, attempt, .. } => format!("part.failed/{part}/{attempt}"),
            Fact::Progress { part, frames } => format!("progress/{part}/{frames}"),
            Fact::JobCompleted { .. } => "job.completed".into(),
            Fact::JobFailed { .. } => "job.failed".into(),
            Fact::JobCanceled => "job.canceled".into(),
        }
    }

    /// The state a job is in once this is told, when it tells one.
    fn state(&self) -> Option<State> {
        match self {
            Fact::JobAccepted => Some(State::Accepted),
            Fact::JobRejected { .. } => Some(State::Rejected),
            Fact::JobStarted => Some(State::Started),
            Fact::JobCompleted { .. } => Some(State::Completed),
            Fact::JobFailed { .. } => Some(State::Failed),
            Fact::JobCanceled => Some(State::Canceled),
            _ => None,
        }
    }
}

/// A step on the way of a job; one starts when every part of the one before is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Probe,
    Encode,
    Package,
}

impl Stage {
    /// The stage this part belongs to.
    pub fn of(part: PartId) -> Self {
        match part {
            PartId::Probe => Stage::Probe,
            PartId::Encode(_) | PartId::Audio(_) => Stage::Encode,
            PartId::Package => Stage::Package,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Probe => "probe",
            Stage::Encode => "encode",
            Stage::Package => "package",
        })
    }
}

/// Why a job has no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    pub cause: Cause,
    /// In words for the customer.
    pub message: String,
}

/// Whose doing it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The job or its preset asks for something that cannot be done.
    Settings,
    /// The source.
    Media,
    /// Ours.
    Internal,
}

/// Where a job is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Accepted,
    Started,
    Rejected,
    Completed,
    Failed,
    Canceled,
}

impl State {
    /// No other state can follow.
    pub fn is_terminal(self) -> bool {
        !matches!(self, State::Accepted | State::Started)
    }
}

/// What the events told of a job so far say together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub state: Option<State>,
    pub stages: BTreeMap<Stage, StageStatus>,
    pub failure: Option<Failure>,
    /// Failed attempts of all parts.
    pub failed_attempts: u64,
}

/// One stage of a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageStatus {
    pub started: bool,
    pub completed: bool,
    pub parts: u64,
    pub parts_done: u64,
}

/// What an event did to a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Changed,
    /// Told before, or told too late to matter.
    Nothing,
}

/// An event that cannot be true of this job: two workers disagree, which is a bug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{told} of a job that is {state:?}")]
pub struct Illegal {
    pub state: State,
    /// Id of the event.
    pub told: String,
}

impl Status {
    /// Takes in one event.
    ///
    /// Late tellings of what led to the present state change nothing. Part and stage events count only while the job
    /// is open.
    ///
    /// # Errors
    /// A second, different end; the status stays as it is.
    pub fn apply(&mut self, event: &Event) -> Result<Change, Illegal> {
        match event.fact.state() {
            Some(next) => self.advance(next, event),
            None if self.state.is_some_and(State::is_terminal) => Ok(Change::Nothing),
            None => Ok(self.note(&event.fact)),
        }
    }

    fn advance(&mut self, next: State, event: &Event) -> Result<Change, Illegal> {
        let legal = match (self.state, next) {
            (None, _) => true,
            (Some(now), next) if now == next => return Ok(Change::Nothing),
            // A rejected job was never another; one that ended may still hear how it began.
            (Some(State::Rejected), _) | (Some(_), State::Rejected) => false,
            (Some(_), State::Accepted) => return Ok(Change::Nothing),
            (Some(now), State::Started) if now.is_terminal() => return Ok(Change::Nothing),
            (Some(now), _) => !now.is_terminal(),
        };
        match self.state {
            Some(state) if !legal => return Err(Illegal { state, told: event.id.clone() }),
            _ => self.state = Some(next),
        }
        if let Fact::JobFailed { failure } = &event.fact {
            self.failure = Some(failure.clone());
        }
        Ok(Change::Changed)
    }

    fn note(&mut self, fact: &Fact) -> Change {
        let before = self.clone();
        match fact {
            Fact::StageStarted { stage, parts, .. } => {
                let stage = self.stages.entry(*stage).or_default();
                (stage.started, stage.parts) = (true, *parts);
            }
            Fact::StageCompleted { stage } => {
                let stage = self.stages.entry(*stage).or_default();
                (stage.started, stage.completed, stage.parts_done) = (true, true, stage.parts);
            }
            Fact::PartCompleted { part, .. } => {
                let stage = self.stages.entry(Stage::of(*part)).or_default();
                // A count, not a set: a duplicate may run ahead until the stage is completed, never past its end.
                if !stage.completed && (!stage.started || stage.parts_done < stage.parts) {
                    stage.parts_done += 1;
                }
            }
            Fact::PartFailed { .. } => self.failed_attempts += 1,
            _ => {}
        }
        if before == *self { Change::Nothing } else { Change::Changed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(fact: Fact) -> Event {
        Event::new(JobId::try_from("talk".to_string()).unwrap(), "local".into(), 1_700_000_000_000, fact)
    }

    fn failed(message: &str) -> Fact {
        Fact::JobFailed { failure: Failure { cause: Cause::Media, message: message.into() } }
    }

    fn completed() -> Fact {
        Fact::JobCompleted { report: "report.json".into() }
    }

    fn rejected() -> Fact {
        Fact::JobRejected { path: "preset".into(), reason: "no such preset".into() }
    }

    fn part(n: u32) -> Fact {
        Fact::PartCompleted { part: PartId::Encode(n), attempt: 1, frames: 100, wall_s: 1.5, cpu_s: 1.25 }
    }

    #[test]
    fn an_event_is_the_document_that_the_version_says() {
        let text = serde_json::to_string(&event(part(3))).unwrap();
        let expected = concat!(
            r#"{"version":1,"id":"talk/part.completed/encode/00003","job":"talk","tenant":"local","#,
            r#""at_ms":1700000000000,"type":"part.completed","part":"encode/00003","attempt":1,"frames":100,"#,
            r#""wall_s":1.5,"cpu_s":1.25}"#
        );
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event(part(3)));
    }

    #[test]
    fn every_transition_is_legal_a_repetition_or_an_error() {
        use State::{Accepted, Canceled, Completed, Failed, Rejected, Started};
        let facts = [
            (Accepted, Fact::JobAccepted),
            (Started, Fact::JobStarted),
            (Rejected, rejected()),
            (Completed, completed()),
            (Failed, failed("truncated")),
            (Canceled, Fact::JobCanceled),
        ];
        // Row: the state; column: what is told, in the order above. + changes, = nothing, ! illegal.
        let table = [
            (None, "++++++"),
            (Some(Accepted), "=+!+++"),
            (Some(Started), "==!+++"),
            (Some(Rejected), "!!=!!!"),
            (Some(Completed), "==!=!!"),
            (Some(Failed), "==!!=!"),
            (Some(Canceled), "==!!!="),
        ];
        for (state, row) in table {
            for ((next, fact), expected) in facts.iter().zip(row.chars()) {
                let mut status = Status { state, ..Status::default() };
                let (result, after) = match status.apply(&event(fact.clone())) {
                    Ok(Change::Changed) => ('+', Some(*next)),
                    Ok(Change::Nothing) => ('=', state),
                    Err(illegal) => {
                        assert_eq!(Some(illegal.state), state);
                        ('!', state)
                    }
                };
                assert_eq!((result, status.state), (expected, after), "{state:?} then {next:?}");
            }
        }
    }

    #[test]
    fn parts_count_up_to_their_stage_and_no_further() {
        let mut status = Status::default();
        let started = Fact::StageStarted { stage: Stage::Encode, parts: 2, frames: 200, media_s: 4.0 };
        for fact in [Fact::JobStarted, started, part(0), part(1), part(1)] {
            status.apply(&event(fact)).unwrap();
        }
        assert_eq!(status.stages[&Stage::Encode].parts_done, 2);
        status.apply(&event(failed("lost"))).unwrap();
        assert_eq!(status.apply(&event(part(0))), Ok(Change::Nothing));
        assert_eq!(status.failure.unwrap().message, "lost");
    }
}
