//! How far a comparison is, on stderr: a bar on a terminal, lines elsewhere, nothing where only JSON is wanted.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a line is written when stderr is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The view of one comparison.
pub(super) struct Progress {
    shape: Shape,
    started: Instant,
    /// Passing over frames is told as no frames: never back.
    most: u64,
}

enum Shape {
    Bar(ProgressBar),
    Lines { last: Instant },
    Silent,
}

impl Progress {
    /// `count`: frames to be compared, where that is known.
    pub fn new(silent: bool, count: Option<u64>) -> Self {
        let started = Instant::now();
        let shape = if silent {
            Shape::Silent
        } else if std::io::stderr().is_terminal() {
            Shape::Bar(bar(count))
        } else {
            Shape::Lines { last: started }
        };
        Self { shape, started, most: 0 }
    }

    pub fn show(&mut self, frames: u64) {
        self.most = self.most.max(frames);
        let rate = self.most as f64 / self.started.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        match &mut self.shape {
            Shape::Bar(bar) => {
                bar.set_position(self.most);
                bar.set_message(format!("{rate:.1} fps"));
            }
            Shape::Lines { last } if last.elapsed() >= LINE_EVERY => {
                eprintln!("comparing: {} frames, {rate:.1} fps", self.most);
                *last = Instant::now();
            }
            Shape::Lines { .. } | Shape::Silent => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shape::Bar(bar) = &self.shape {
            bar.finish_and_clear();
        }
    }
}

fn bar(count: Option<u64>) -> ProgressBar {
    let template = match count {
        Some(_) => "comparing [{bar:32}] {pos}/{len} frames, {msg}",
        None => "comparing {spinner} {pos} frames, {msg}",
    };
    let style = ProgressStyle::with_template(template).expect("both templates are tested").progress_chars("=> ");
    let bar = ProgressBar::with_draw_target(count, ProgressDrawTarget::stderr());
    bar.set_style(style);
    bar
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_bar_can_be_drawn_with_an_end_and_without() {
        super::bar(Some(7)).finish_and_clear();
        super::bar(None).finish_and_clear();
    }
}
