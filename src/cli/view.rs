//! What a person sees while a job runs: a bar on a terminal, lines elsewhere, nothing where only the report is wanted.

use super::meter::{Meter, Reading, stage_name};
use super::rows::plain;
use crate::event::{Event, Fact, Recorded};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a line is written when stderr is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How often the view is refreshed when nothing happens.
pub(super) const REFRESH_EVERY: Duration = Duration::from_millis(500);

/// The view of one job, on stderr.
pub(super) struct View {
    meter: Meter,
    started: Instant,
    shape: Shape,
}

enum Shape {
    Bar(ProgressBar),
    Lines { last: Option<(Instant, String)> },
    Silent,
}

impl View {
    /// A view that counts `done` as done before.
    pub fn new(silent: bool, done: &BTreeMap<crate::plan::marker::PartId, u64>) -> Self {
        let shape = if silent {
            Shape::Silent
        } else if std::io::stderr().is_terminal() {
            Shape::Bar(bar())
        } else {
            Shape::Lines { last: None }
        };
        Self { meter: Meter::with_done(done), started: Instant::now(), shape }
    }

    /// Takes in what happened.
    pub fn event(&mut self, event: &Event) {
        self.meter.event(event, self.started.elapsed());
        if let Fact::PartFailed { part, attempt, reason, again: true } = &event.fact {
            self.say(&format!("{part}: attempt {attempt} failed and is repeated: {reason}"));
        }
        self.refresh();
    }

    /// Takes in what was recorded of a job that a fleet works on.
    pub fn recorded(&mut self, event: &Recorded) {
        self.meter.status(&event.status, self.started.elapsed());
        self.meter.media(event.data.get("media_s").and_then(serde_json::Value::as_f64).unwrap_or(0.0));
        if let Some(text) = news(event) {
            self.say(&plain(&text));
        }
        self.refresh();
    }

    /// Shows where things stand.
    pub fn refresh(&mut self) {
        let reading = self.meter.read(self.started.elapsed());
        match &mut self.shape {
            Shape::Bar(bar) => draw(bar, &reading),
            Shape::Lines { last } => {
                let stage = stage_name(reading.stage);
                let is_due = last.as_ref().is_none_or(|(at, named)| at.elapsed() >= LINE_EVERY || named != stage);
                if is_due {
                    eprintln!("{}", reading.line());
                    *last = Some((Instant::now(), stage.to_string()));
                }
            }
            Shape::Silent => {}
        }
    }

    /// Says something that stays.
    pub fn say(&self, text: &str) {
        match &self.shape {
            Shape::Bar(bar) => bar.println(text),
            Shape::Lines { .. } => eprintln!("{text}"),
            Shape::Silent => {}
        }
    }

    /// Clears the view; how long it stood.
    pub fn finish(self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Shape::Bar(bar) = &self.shape {
            bar.finish_and_clear();
        }
    }
}

/// What of a recorded event a person should read even when the bar has moved on.
fn news(event: &Recorded) -> Option<String> {
    let word = |field: &str| event.data.get(field).and_then(|value| value.as_str()).unwrap_or("?");
    match event.kind.as_str() {
        "rendition.completed" => Some(format!("{} can be played: {}", word("rendition"), word("playlist"))),
        "part.failed" => {
            let attempt = event.data.get("attempt").and_then(serde_json::Value::as_u64).unwrap_or(0);
            let again = event.data.get("again") == Some(&true.into());
            let then = if again { " and is repeated" } else { "" };
            Some(format!("{}: attempt {attempt} failed{then}: {}", word("part"), word("reason")))
        }
        _ => None,
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{prefix:>9} [{bar:32}] {pos}/{len} {msg}");
    bar.set_style(style.expect("the template is tested").progress_chars("=> "));
    bar
}

fn draw(bar: &ProgressBar, reading: &Reading) {
    bar.set_prefix(stage_name(reading.stage));
    let (done, total, unit) = match reading.total {
        0 => (reading.parts_done, reading.parts, "parts"),
        total => (reading.done, total, "frames"),
    };
    bar.set_length(total);
    bar.set_position(done);
    bar.set_message(reading.rates.map_or(unit.to_string(), |r| format!("{unit}, {}", r.text())));
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_bar_can_be_drawn() {
        super::bar().finish_and_clear();
    }
}
