//! How far a job is and how fast it goes. Pure: the time is passed in.

use crate::event::{Event, Fact, Stage, Status};
use crate::plan::marker::PartId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Rates are shown only after this long: before, they mean nothing.
const SETTLED: Duration = Duration::from_secs(1);

/// Counts the frames of a job.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    stage: Option<Stage>,
    /// Frames the job is expected to make, all rungs together.
    total: u64,
    media_s: f64,
    parts: u64,
    frames: BTreeMap<PartId, u64>,
    done: BTreeMap<PartId, ()>,
    /// Parts of the stage before, where content decides.
    to_analyse: u64,
    analysed: BTreeSet<PartId>,
    /// Frames that were there when the run began, and are no merit of it.
    before: u64,
    began: Option<Duration>,
    /// What the recorded state says, where there is one.
    recorded: Recorded,
}

/// The work that a recorded state counts, and what had been told live when it was read.
#[derive(Clone, Copy, Debug, Default)]
struct Recorded {
    frames: u64,
    parts: u64,
    told: u64,
}

/// What a person is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reading {
    pub stage: Option<Stage>,
    pub done: u64,
    pub total: u64,
    pub parts_done: u64,
    pub parts: u64,
    pub rates: Option<Rates>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rates {
    /// Frames a second, all rungs together.
    pub fps: f64,
    /// Seconds of media for each second of time.
    pub speed: f64,
    pub left: Duration,
}

impl Meter {
    /// A meter of a job of which these parts are done already, with their frames.
    pub fn with_done(parts: &BTreeMap<PartId, u64>) -> Self {
        let counted = parts.iter().filter(|(part, _)| Stage::of(**part) == Stage::Encode);
        let frames: BTreeMap<PartId, u64> = counted.map(|(part, frames)| (*part, *frames)).collect();
        let done = frames.keys().map(|part| (*part, ())).collect();
        let analysed = parts.keys().filter(|part| Stage::of(**part) == Stage::Analyse).copied().collect();
        Self { before: frames.values().sum(), frames, done, analysed, ..Self::default() }
    }

    /// Takes in an event that came at `now`, counted from the start of the run.
    pub fn event(&mut self, event: &Event, now: Duration) {
        match &event.fact {
            Fact::StageStarted { stage, parts, frames, media_s } => {
                self.stage = self.stage.max(Some(*stage));
                if *stage == Stage::Analyse {
                    self.to_analyse = *parts;
                }
                if *stage == Stage::Encode {
                    (self.total, self.parts, self.media_s) = (*frames, *parts, *media_s);
                    self.began.get_or_insert(now);
                }
            }
            Fact::PartCompleted { part, frames, .. } if Stage::of(*part) == Stage::Encode => {
                self.frames.insert(*part, *frames);
                self.done.insert(*part, ());
            }
            Fact::PartCompleted { part, .. } if Stage::of(*part) == Stage::Analyse => {
                self.analysed.insert(*part);
            }
            Fact::PartFailed { part, .. } => {
                self.frames.remove(part);
            }
            // Audio counts access units, which are no frames of a rung.
            Fact::Progress { part: part @ PartId::Encode(_), frames } if !self.done.contains_key(part) => {
                self.frames.insert(*part, *frames);
            }
            _ => {}
        }
    }

    /// Takes in the recorded state of a job that others work on. What it counts is done; what is told live after it comes
    /// on top, until the next state counts that too.
    pub fn status(&mut self, status: &Status, now: Duration) {
        let begun = status.stages.iter().filter(|(_, stage)| stage.started).map(|(name, _)| *name).max();
        self.stage = self.stage.max(begun);
        self.to_analyse = status.stages.get(&Stage::Analyse).map_or(self.to_analyse, |stage| stage.parts);
        let Some(encode) = status.stages.get(&Stage::Encode).filter(|stage| stage.started) else { return };
        (self.total, self.parts) = (encode.frames, encode.parts);
        if self.began.is_none() {
            (self.began, self.before) = (Some(now), encode.frames_done);
        }
        // Never back: what was shown as live work is in the next state at the latest.
        let frames = encode.frames_done.max(self.made().min(self.total));
        self.recorded = Recorded { frames, parts: encode.parts_done, told: self.told() };
    }

    /// How long the video is, where that was recorded, seconds.
    pub fn media(&mut self, media_s: f64) {
        self.media_s = self.media_s.max(media_s);
    }

    /// Frames told live, of all parts.
    fn told(&self) -> u64 {
        self.frames.values().sum()
    }

    fn made(&self) -> u64 {
        self.recorded.frames + self.told().saturating_sub(self.recorded.told)
    }

    /// What to show at `now`.
    pub fn read(&self, now: Duration) -> Reading {
        let made = self.made();
        // What is expected is an estimate; what is done never stands above it while work goes on.
        let done = made.min(self.total);
        let spent = self.began.map_or(Duration::ZERO, |began| now.saturating_sub(began));
        let fps = made.saturating_sub(self.before) as f64 / spent.as_secs_f64().max(f64::MIN_POSITIVE);
        let rates = (spent >= SETTLED && fps > 0.0 && self.total > 0).then(|| Rates {
            fps,
            speed: fps / self.total as f64 * self.media_s,
            left: Duration::from_secs(((self.total - done) as f64 / fps).min(1e9) as u64),
        });
        let (mut parts_done, mut parts) = (self.recorded.parts.max(self.done.len() as u64), self.parts);
        if self.stage == Some(Stage::Analyse) {
            (parts_done, parts) = ((self.analysed.len() as u64).min(self.to_analyse), self.to_analyse);
        }
        Reading { stage: self.stage, done, total: self.total, parts_done, parts, rates }
    }
}

/// The stage in a person's words.
pub(super) fn stage_name(stage: Option<Stage>) -> &'static str {
    match stage {
        None => "starting",
        Some(Stage::Probe) => "probing",
        Some(Stage::Analyse) => "analysing",
        Some(Stage::Encode) => "encoding",
        Some(Stage::Verify) => "verifying",
        Some(Stage::Package) => "packaging",
    }
}

impl Reading {
    /// Everything on one line.
    pub fn line(&self) -> String {
        let name = stage_name(self.stage);
        if self.total == 0 {
            return if self.parts == 0 { name.into() } else { format!("{name}: {}/{} parts", self.parts_done, self.parts) };
        }
        let share = 100.0 * self.done as f64 / self.total as f64;
        format!(
            "{name}: {}/{} frames ({share:.0} %){}",
            self.done,
            self.total,
            self.rates.map_or(String::new(), |r| format!(", {}", r.text()))
        )
    }
}

impl Rates {
    pub fn text(&self) -> String {
        format!("{:.0} fps, {:.2}x, {} left", self.fps, self.speed, humantime::format_duration(self.left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::StageStatus;
    use crate::job::JobId;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn event(fact: Fact) -> Event {
        Event::new(JobId::try_from("j".to_string()).unwrap(), "local".into(), 0, fact)
    }

    fn encode_started() -> Event {
        event(Fact::StageStarted { stage: Stage::Encode, parts: 3, frames: 1000, media_s: 20.0 })
    }

    fn completed(n: u32, frames: u64) -> Event {
        event(Fact::PartCompleted { part: PartId::Encode(n), attempt: 1, frames, wall_s: 1.0, cpu_s: 1.0 })
    }

    #[test]
    fn frames_count_once_however_often_they_are_told() {
        let mut meter = Meter::default();
        meter.event(&encode_started(), at(10));
        meter.event(&event(Fact::Progress { part: PartId::Encode(0), frames: 300 }), at(11));
        meter.event(&completed(0, 400), at(12));
        meter.event(&event(Fact::Progress { part: PartId::Encode(0), frames: 350 }), at(13));
        meter.event(&event(Fact::Progress { part: PartId::Audio(0), frames: 9000 }), at(13));
        meter.event(&completed(0, 400), at(14));
        let reading = meter.read(at(14));
        assert_eq!((reading.done, reading.total, reading.parts_done, reading.parts), (400, 1000, 1, 3));
        assert_eq!(reading.rates, Some(Rates { fps: 100.0, speed: 2.0, left: at(6) }));
        assert_eq!(reading.line(), "encoding: 400/1000 frames (40 %), 100 fps, 2.00x, 6s left");
    }

    #[test]
    fn what_was_done_before_is_shown_but_is_no_speed() {
        let before = BTreeMap::from([(PartId::Probe, 0), (PartId::Encode(0), 500)]);
        let mut meter = Meter::with_done(&before);
        meter.event(&encode_started(), at(0));
        meter.event(&completed(1, 100), at(2));
        let reading = meter.read(at(2));
        assert_eq!((reading.done, reading.parts_done), (600, 2));
        assert_eq!(reading.rates.unwrap().fps, 50.0);
    }

    fn encoding(frames_done: u64, parts_done: u64) -> Status {
        let stage = StageStatus { started: true, parts: 4, parts_done, frames: 1000, frames_done, ..StageStatus::default() };
        Status { stages: BTreeMap::from([(Stage::Encode, stage)]), ..Status::default() }
    }

    #[test]
    fn the_work_of_others_is_what_is_recorded_and_what_is_told_since() {
        let told = |part, frames| event(Fact::Progress { part: PartId::Encode(part), frames });
        let mut meter = Meter::default();
        meter.status(&encoding(500, 2), at(10));
        assert_eq!((meter.read(at(10)).done, meter.read(at(10)).parts_done), (500, 2));
        meter.event(&told(2, 100), at(11));
        meter.event(&told(2, 200), at(12));
        let reading = meter.read(at(12));
        assert_eq!((reading.done, reading.total, reading.stage), (700, 1000, Some(Stage::Encode)));
        assert_eq!(reading.rates.unwrap().fps, 100.0, "what was done before anybody looked is no speed");
        meter.media(20.0);
        assert_eq!(meter.read(at(12)).rates.unwrap().speed, 2.0);
        // The part is done and counted: it is not counted twice, and the bar never goes back.
        meter.event(&told(2, 250), at(13));
        meter.status(&encoding(750, 3), at(13));
        assert_eq!((meter.read(at(13)).done, meter.read(at(13)).parts_done), (750, 3));
        meter.event(&told(3, 100), at(14));
        meter.status(&encoding(750, 3), at(14));
        assert_eq!(meter.read(at(14)).done, 850);
        meter.status(&encoding(1000, 4), at(15));
        assert_eq!(meter.read(at(15)).done, 1000);
    }

    #[test]
    fn chunks_that_are_analysed_are_counted_before_any_frame_is() {
        let mut meter = Meter::default();
        meter.event(&event(Fact::StageStarted { stage: Stage::Analyse, parts: 5, frames: 0, media_s: 20.0 }), at(1));
        let done = |part| event(Fact::PartCompleted { part, attempt: 1, frames: 0, wall_s: 1.0, cpu_s: 1.0 });
        for part in [PartId::Analyse(0), PartId::Analyse(3), PartId::Analyse(3)] {
            meter.event(&done(part), at(2));
        }
        assert_eq!(meter.read(at(2)).line(), "analysing: 2/5 parts");
        meter.event(&encode_started(), at(3));
        assert_eq!(meter.read(at(3)).line(), "encoding: 0/1000 frames (0 %)");
    }

    #[test]
    fn a_failed_attempt_takes_its_frames_back() {
        let mut meter = Meter::default();
        meter.event(&encode_started(), at(0));
        meter.event(&event(Fact::Progress { part: PartId::Encode(0), frames: 300 }), at(1));
        let fact = Fact::PartFailed { part: PartId::Encode(0), attempt: 1, reason: "died".into(), again: true };
        meter.event(&event(fact), at(2));
        assert_eq!(meter.read(at(2)).done, 0);
    }
}
