//! What the events told of a job so far say together, and which may follow which.

use super::facts::{ClassState, Event, Fact, Failure, Stage};
use super::rfc3339;
use super::state::State;
use crate::job::Class;
use crate::plan::marker::PartId;
use crate::usage::Usage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Renditions a status lists; a preset has far fewer.
const MOST_RENDITIONS: usize = 256;

/// What the events told of a job so far say together. This is the full state that every recorded event carries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub state: Option<State>,
    /// Of the encode stage, 0 to 100.
    #[serde(default)]
    pub percent: u32,
    /// RFC 3339, by the clock of the worker that told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// By which encoders it is encoded; absent of a job that was never to go to a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassStatus>,
    pub stages: BTreeMap<Stage, StageStatus>,
    /// Those that can be played already.
    #[serde(default)]
    pub renditions: Vec<Rendition>,
    pub failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<Rejection>,
    /// Path of the report under the output URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// Where what was made can be read, by paths under the output URI: manifests, files, the report.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// Known once the job has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Failed attempts of all parts.
    pub failed_attempts: u64,
}

/// By which encoders a job is encoded, and how it stands with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassStatus {
    pub class: Class,
    #[serde(flatten)]
    pub state: ClassState,
}

/// One stage of a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageStatus {
    pub started: bool,
    pub completed: bool,
    pub parts: u64,
    pub parts_done: u64,
    /// Frames expected, all rungs together; 0 when the stage makes none.
    #[serde(default)]
    pub frames: u64,
    #[serde(default)]
    pub frames_done: u64,
}

impl StageStatus {
    /// How much is done, 0 to 100: by frames where the stage makes some, else by parts.
    pub fn percent(&self) -> u32 {
        let (done, all) = if self.frames > 0 { (self.frames_done, self.frames) } else { (self.parts_done, self.parts) };
        match (self.completed, all) {
            (true, _) => 100,
            (false, 0) => 0,
            // A source may hold more frames than were expected of it.
            (false, all) => (done.min(all) as u128 * 100 / all as u128) as u32,
        }
    }
}

/// One rendition that can be played.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendition {
    pub name: String,
    /// Path of its playlist under the output URI.
    pub playlist: String,
    /// Where that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// RFC 3339.
    pub at: String,
}

/// Why a document is no job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Dotted path of the field that is wrong.
    pub path: String,
    pub reason: String,
    /// The id the document asked for, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_id: Option<String>,
}

/// What an event did to a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Changed,
    /// Told before, or told too late to matter.
    Nothing,
}

/// An event that can no longer be true of this job: it ended otherwise before.
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
            None => Ok(self.note(event)),
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
        let at = Some(rfc3339::format(event.at_ms));
        match next {
            State::Accepted => self.accepted_at = at,
            State::Started => self.started_at = at,
            _ => self.ended_at = at,
        }
        self.usage = event.fact.usage().cloned();
        match &event.fact {
            Fact::JobCompleted { report, outputs, .. } => {
                (self.report, self.outputs) = (Some(report.clone()), outputs.clone());
            }
            Fact::JobFailed { failure, .. } => self.failure = Some(failure.clone()),
            Fact::JobRejected { path, reason, requested_id } => {
                let (path, reason, requested_id) = (path.clone(), reason.clone(), requested_id.clone());
                self.rejection = Some(Rejection { path, reason, requested_id });
            }
            _ => {}
        }
        Ok(Change::Changed)
    }

    fn note(&mut self, event: &Event) -> Change {
        // Of a state taken over from an event the percentage may lag behind the counts: to catch up is no news of this fact.
        self.catch_up();
        let before = self.clone();
        match &event.fact {
            Fact::StageStarted { stage, parts, frames, .. } => {
                let stage = self.stages.entry(*stage).or_default();
                (stage.started, stage.parts, stage.frames) = (true, *parts, *frames);
                if stage.completed {
                    stage.parts_done = *parts;
                }
            }
            Fact::StageCompleted { stage } => {
                let stage = self.stages.entry(*stage).or_default();
                (stage.started, stage.completed, stage.parts_done) = (true, true, stage.parts);
            }
            Fact::JobClass { class, state } => self.set_class(ClassStatus { class: *class, state: *state }),
            Fact::PartCompleted { part, frames, .. } => {
                self.heard_of_device(*part);
                let stage = self.stages.entry(Stage::of(*part)).or_default();
                // A count, not a set: a duplicate may run ahead until the stage is completed, never past its end.
                if !stage.completed && (!stage.started || stage.parts_done < stage.parts) {
                    stage.parts_done += 1;
                    stage.frames_done += frames;
                }
            }
            Fact::PartFailed { .. } => self.failed_attempts += 1,
            Fact::RenditionCompleted { rendition, playlist, url, .. } => {
                let (name, playlist, url) = (rendition.clone(), playlist.clone(), url.clone());
                self.add_rendition(Rendition { name, playlist, url, at: rfc3339::format(event.at_ms) });
            }
            _ => {}
        }
        self.catch_up();
        if before == *self { Change::Nothing } else { Change::Changed }
    }

    /// To fall back is for good; that a device was chosen is no news of a job that waits for it.
    fn set_class(&mut self, told: ClassStatus) {
        let is_later = match self.class.map(|known| known.state) {
            None => true,
            Some(ClassState::FellBack) => false,
            Some(ClassState::Chosen) => told.state != ClassState::Chosen,
            Some(ClassState::Waiting { .. }) => told.state == ClassState::FellBack,
        };
        if is_later {
            self.class = Some(told);
        }
    }

    /// A chunk was encoded: the job waits no more.
    fn heard_of_device(&mut self, part: PartId) {
        if let Some(class) = &mut self.class
            && part.encodes()
            && matches!(class.state, ClassState::Waiting { .. })
        {
            class.state = ClassState::Chosen;
        }
    }

    fn catch_up(&mut self) {
        let encode = self.stages.get(&Stage::Encode).map_or(0, StageStatus::percent);
        self.percent = self.percent.max(encode);
    }

    fn add_rendition(&mut self, rendition: Rendition) {
        if self.renditions.len() < MOST_RENDITIONS && self.renditions.iter().all(|known| known.name != rendition.name) {
            self.renditions.push(rendition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Cause;
    use crate::job::JobId;

    fn event(fact: Fact) -> Event {
        Event::new(JobId::try_from("talk".to_string()).unwrap(), "local".into(), 1_700_000_000_000, fact)
    }

    fn failed(message: &str) -> Fact {
        Fact::JobFailed { failure: Failure { cause: Cause::Media, message: message.into() }, usage: Usage::default() }
    }

    fn completed() -> Fact {
        let outputs = BTreeMap::from([("master.m3u8".into(), "https://cdn.example.com/talk/master.m3u8".into())]);
        Fact::JobCompleted { report: "report.json".into(), outputs, usage: Usage::default() }
    }

    fn rejected() -> Fact {
        Fact::JobRejected { path: "preset".into(), reason: "no such preset".into(), requested_id: None }
    }

    fn part(n: u32) -> Fact {
        Fact::PartCompleted { part: PartId::Encode(n), attempt: 1, frames: 100, wall_s: 1.5, cpu_s: 1.25 }
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
            (Canceled, Fact::JobCanceled { usage: Usage::default() }),
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

    #[test]
    fn a_status_says_whether_a_job_waits_for_a_device_and_that_it_fell_back_for_good() {
        let of = |state| Fact::JobClass { class: if state == ClassState::FellBack { Class::Cpu } else { Class::Nvenc }, state };
        let waiting = |since_ms| of(ClassState::Waiting { since_ms });
        let mut status = Status::default();
        let mut told = |fact: Fact| {
            let change = status.apply(&event(fact)).unwrap();
            (change, status.class.map(|class| (class.class, class.state.name())))
        };
        told(Fact::JobStarted);
        assert_eq!(told(of(ClassState::Chosen)), (Change::Changed, Some((Class::Nvenc, "chosen"))));
        assert_eq!(told(of(ClassState::Chosen)).0, Change::Nothing);
        assert_eq!(told(waiting(7)), (Change::Changed, Some((Class::Nvenc, "waiting"))));
        assert_eq!(told(waiting(7)).0, Change::Nothing);
        assert_eq!(told(part(0)).1, Some((Class::Nvenc, "chosen")), "a chunk came out");
        assert_eq!(told(waiting(9)).1, Some((Class::Nvenc, "waiting")));
        assert_ne!(event(waiting(9)).id, event(waiting(7)).id, "each wait is an event of its own");
        assert_eq!(told(of(ClassState::FellBack)), (Change::Changed, Some((Class::Cpu, "fell_back"))));
        for late in [of(ClassState::Chosen), waiting(11), of(ClassState::FellBack)] {
            assert_eq!(told(late).0, Change::Nothing);
        }
    }

    #[test]
    fn a_status_says_when_how_far_and_what_can_be_played() {
        let mut status = Status::default();
        let started = Fact::StageStarted { stage: Stage::Encode, parts: 3, frames: 400, media_s: 4.0 };
        let playable =
            Fact::RenditionCompleted { rendition: "720p".into(), playlist: "720p/index.m3u8".into(), url: None, media: None };
        for fact in [Fact::JobAccepted, Fact::JobStarted, started, part(0), playable.clone(), playable] {
            status.apply(&event(fact)).unwrap();
        }
        assert_eq!((status.percent, status.renditions.len()), (25, 1));
        assert_eq!(status.started_at.as_deref(), Some("2023-11-14T22:13:20.000Z"));
        assert_eq!(status.ended_at, None);
        status.apply(&event(Fact::StageCompleted { stage: Stage::Encode })).unwrap();
        status.apply(&event(completed())).unwrap();
        assert_eq!((status.percent, status.report.as_deref()), (100, Some("report.json")));
        assert_eq!(status.outputs["master.m3u8"], "https://cdn.example.com/talk/master.m3u8");
        assert!(status.ended_at.is_some() && status.usage.is_some());
    }

    #[test]
    fn a_stage_that_is_told_to_have_begun_after_it_was_complete_is_complete() {
        let mut status = Status::default();
        status.apply(&event(Fact::StageCompleted { stage: Stage::Encode })).unwrap();
        status.apply(&event(Fact::StageStarted { stage: Stage::Encode, parts: 3, frames: 0, media_s: 0.0 })).unwrap();
        let stage = &status.stages[&Stage::Encode];
        assert_eq!((stage.parts, stage.parts_done, stage.completed), (3, 3, true));
    }
}
