//! What customers are told: facts turned into numbered events, each once, each with the full state.
//!
//! The same facts in the same order give the same bytes. Two coordinators that both believe that they are in charge
//! therefore write the same objects. A part that is done is not told by itself; it becomes `job.progress` at each tenth
//! of the frames.

use super::facts::{Event, Fact, Stage, VERSION};
use super::rfc3339;
use super::seen::Seen;
use super::state::State;
use super::status::{Change, Illegal, Rejection, Status};
use crate::job::JobId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Progress is told in steps of so many percent.
const PROGRESS_STEP: u32 = 10;
/// The type of the events that tell progress.
pub const PROGRESS: &str = "job.progress";

/// One event as customers get it: by callback, by HTTP, and in the bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    pub version: u32,
    /// `<job>/<what happened>`: the same however often it is delivered.
    pub id: String,
    pub job: JobId,
    pub tenant: String,
    /// From 1, without gaps within a job.
    pub sequence: u64,
    /// RFC 3339, by the clock of whoever told.
    pub at: String,
    /// `job.accepted`, `stage.completed`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// What the type says more.
    pub data: Map<String, Value>,
    /// The state after this event.
    pub status: Status,
}

impl Recorded {
    /// Does no event follow this one?
    pub fn is_last(&self) -> bool {
        self.status.state.is_some_and(State::is_terminal)
    }

    /// The fact that was recorded; none for progress, which is no fact of its own.
    fn fact(&self) -> Option<Fact> {
        let mut document = self.data.clone();
        document.insert("type".into(), self.kind.clone().into());
        serde_json::from_value(Value::Object(document)).ok()
    }
}

/// `status.json`: all that has been told of one job, and enough memory to take each fact once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Projection {
    pub version: u32,
    pub job: JobId,
    pub tenant: String,
    /// Of the last recorded event; 0 before the first.
    pub sequence: u64,
    /// When the first recorded fact was told, milliseconds since 1970: a job's place in lists.
    pub first_ms: u64,
    /// When the last fact was told that changed something.
    pub updated_ms: u64,
    pub status: Status,
    /// The last step of progress that was told.
    #[serde(default)]
    told_percent: u32,
    #[serde(default)]
    seen: Seen,
}

/// A job's state for customers and tools: a [`Projection`] without its memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub version: u32,
    pub job: JobId,
    pub tenant: String,
    /// Of the last recorded event; 0 before the first.
    pub sequence: u64,
    /// RFC 3339; none before the first event.
    pub updated_at: Option<String>,
    pub status: Status,
}

impl Projection {
    /// Nothing has been told yet.
    pub fn new(job: JobId, tenant: String) -> Self {
        let (status, seen) = (Status::default(), Seen::default());
        Self { version: VERSION, job, tenant, sequence: 0, first_ms: 0, updated_ms: 0, status, told_percent: 0, seen }
    }

    pub fn is_terminal(&self) -> bool {
        self.status.state.is_some_and(State::is_terminal)
    }

    pub fn summary(&self) -> Summary {
        Summary {
            version: self.version,
            job: self.job.clone(),
            tenant: self.tenant.clone(),
            sequence: self.sequence,
            updated_at: (self.updated_ms > 0).then(|| rfc3339::format(self.updated_ms)),
            status: self.status.clone(),
        }
    }

    /// Takes in one fact; what is to be recorded of it. A fact told before, or too late to matter, changes nothing.
    ///
    /// # Errors
    /// The job ended otherwise before: the first end that was told stands.
    pub fn apply(&mut self, event: &Event) -> Result<Vec<Recorded>, Illegal> {
        debug_assert_eq!(event.job, self.job, "a projection is of one job");
        let fact = &event.fact;
        match fact {
            Fact::TenantFrozen { .. } | Fact::TenantUnfrozen { .. } => {
                return Ok(if self.seen.admit(fact) { vec![self.record(event, None)] } else { Vec::new() });
            }
            Fact::JobRejected { .. } => return self.reject(event),
            // Mended and sent again under the same id: what was rejected was no job yet.
            Fact::JobAccepted if self.status.state == Some(State::Rejected) => self.status = Status::default(),
            _ => {}
        }
        let is_open = !self.is_terminal();
        let is_known = self.has_started(fact);
        if is_open && !self.seen.admit(fact) || self.status.apply(event)? == Change::Nothing {
            // Of a stage that was taken over from its event, the progress that goes with it may not have been written; it is
            // of the time of that event, whenever the fact is told again.
            let told = matches!(fact, Fact::StageStarted { .. } | Fact::StageCompleted { .. }) && is_open;
            let then = Event { at_ms: self.updated_ms, ..event.clone() };
            return Ok(told.then(|| self.progress(&then)).flatten().into_iter().collect());
        }
        self.updated_ms = event.at_ms;
        match fact {
            // A stage may grow: that it has begun is told once.
            Fact::StageStarted { .. } if is_known => Ok(self.progress(event).into_iter().collect()),
            Fact::PartCompleted { .. } => Ok(self.progress(event).into_iter().collect()),
            _ => {
                let recorded = self.record(event, None);
                // The size of a stage may be told after some of its parts.
                Ok(std::iter::once(recorded).chain(self.progress(event)).collect())
            }
        }
    }

    /// Is this of a stage that has begun already?
    fn has_started(&self, fact: &Fact) -> bool {
        let Fact::StageStarted { stage, .. } = fact else { return false };
        // A stage of which only later things were told has no size yet.
        self.status.stages.get(stage).is_some_and(|stage| stage.started && stage.parts > 0)
    }

    /// Documents under an id that is no job's yet: each is rejected for itself.
    fn reject(&mut self, event: &Event) -> Result<Vec<Recorded>, Illegal> {
        if let Some(state) = self.status.state.filter(|state| *state != State::Rejected) {
            return Err(Illegal { state, told: event.id.clone() });
        }
        if !self.seen.admit(&event.fact) {
            return Ok(Vec::new());
        }
        self.status.apply(event)?;
        if let Fact::JobRejected { path, reason, requested_id } = &event.fact {
            let (path, reason, requested_id) = (path.clone(), reason.clone(), requested_id.clone());
            self.status.rejection = Some(Rejection { path, reason, requested_id });
        }
        self.updated_ms = event.at_ms;
        Ok(vec![self.record(event, None)])
    }

    fn progress(&mut self, event: &Event) -> Option<Recorded> {
        let step = self.status.percent / PROGRESS_STEP * PROGRESS_STEP;
        if step <= self.told_percent {
            return None;
        }
        self.told_percent = step;
        Some(self.record(event, Some(step)))
    }

    /// The next event: the fact itself, or progress.
    fn record(&mut self, event: &Event, percent: Option<u32>) -> Recorded {
        self.sequence += 1;
        self.updated_ms = event.at_ms;
        if self.sequence == 1 {
            self.first_ms = event.at_ms;
        }
        let (kind, id, data) = match percent {
            Some(percent) => (PROGRESS, format!("{}/{PROGRESS}/{percent}", self.job), self.progress_data(percent)),
            None => (event.fact.kind(), event.id.clone(), data(&event.fact)),
        };
        Recorded {
            version: VERSION,
            id,
            job: self.job.clone(),
            tenant: self.tenant.clone(),
            sequence: self.sequence,
            at: rfc3339::format(event.at_ms),
            kind: kind.into(),
            data,
            status: self.status.clone(),
        }
    }

    fn progress_data(&self, percent: u32) -> Map<String, Value> {
        let stage = self.status.stages.get(&Stage::Encode).cloned().unwrap_or_default();
        let fields = [
            ("percent", json!(percent)),
            ("stage", json!(Stage::Encode)),
            ("parts", json!(stage.parts)),
            ("parts_done", json!(stage.parts_done)),
            ("frames", json!(stage.frames)),
            ("frames_done", json!(stage.frames_done)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    /// Takes over an event that was recorded before and is not in this state yet: whoever wrote it died before it wrote
    /// the state. What customers may have read stays as it is. False when it is not the next one.
    ///
    /// The counts of parts stay this projection's own: parts told since are told again, because nobody acknowledged them.
    pub fn adopt(&mut self, recorded: &Recorded) -> bool {
        if recorded.sequence != self.sequence + 1 || recorded.job != self.job {
            return false;
        }
        let mut status = recorded.status.clone();
        for (stage, counted) in status.stages.iter_mut().filter(|(_, stage)| !stage.completed) {
            let own = self.status.stages.get(stage);
            (counted.parts_done, counted.frames_done) = own.map_or((0, 0), |own| (own.parts_done, own.frames_done));
        }
        self.status = status;
        self.sequence = recorded.sequence;
        // Only what was told as progress: another event may show a percentage that nobody was told of yet, and whoever wrote
        // that event tells it next.
        let told = (recorded.kind == PROGRESS).then(|| recorded.data.get("percent").and_then(Value::as_u64)).flatten();
        self.told_percent = told.and_then(|percent| u32::try_from(percent).ok()).unwrap_or(0).max(self.told_percent);
        self.updated_ms = rfc3339::parse(&recorded.at).unwrap_or(self.updated_ms);
        if self.sequence == 1 {
            self.first_ms = self.updated_ms;
        }
        if let Some(fact) = recorded.fact() {
            self.seen.admit(&fact);
        }
        true
    }
}

/// The fields of a fact besides its type.
fn data(fact: &Fact) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(fact) else { unreachable!("a fact is an object of plain data") };
    fields.remove("type");
    fields
}

#[cfg(test)]
mod tests;
