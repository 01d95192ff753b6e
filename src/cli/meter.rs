//! How far a job is and how fast it goes. Pure: the time is passed in.

use crate::event::{Event, Fact, Stage};
use crate::plan::marker::PartId;
use std::collections::BTreeMap;
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
    /// Frames that were there when the run began, and are no merit of it.
    before: u64,
    began: Option<Duration>,
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
        Self { before: frames.values().sum(), frames, done, ..Self::default() }
    }

    /// Takes in an event that came at `now`, counted from the start of the run.
    pub fn event(&mut self, event: &Event, now: Duration) {
        match &event.fact {
            Fact::StageStarted { stage, parts, frames, media_s } => {
                self.stage = self.stage.max(Some(*stage));
                if *stage == Stage::Encode {
                    (self.total, self.parts, self.media_s) = (*frames, *parts, *media_s);
                    self.began.get_or_insert(now);
                }
            }
            Fact::PartCompleted { part, frames, .. } if Stage::of(*part) == Stage::Encode => {
                self.frames.insert(*part, *frames);
                self.done.insert(*part, ());
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

    /// What to show at `now`.
    pub fn read(&self, now: Duration) -> Reading {
        let made: u64 = self.frames.values().sum();
        // What is expected is an estimate; what is done never stands above it while work goes on.
        let done = made.min(self.total);
        let spent = self.began.map_or(Duration::ZERO, |began| now.saturating_sub(began));
        let fps = made.saturating_sub(self.before) as f64 / spent.as_secs_f64().max(f64::MIN_POSITIVE);
        let rates = (spent >= SETTLED && fps > 0.0 && self.total > 0).then(|| Rates {
            fps,
            speed: fps / self.total as f64 * self.media_s,
            left: Duration::from_secs(((self.total - done) as f64 / fps).min(1e9) as u64),
        });
        let parts_done = self.done.len() as u64;
        Reading { stage: self.stage, done, total: self.total, parts_done, parts: self.parts, rates }
    }
}

/// The stage in a person's words.
pub(super) fn stage_name(stage: Option<Stage>) -> &'static str {
    match stage {
        None => "starting",
        Some(Stage::Probe) => "probing",
        Some(Stage::Encode) => "encoding",
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
