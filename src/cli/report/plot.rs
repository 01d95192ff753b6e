//! A chart: lines in an SVG that stretches with the page, and words in HTML that keep their size.
//!
//! The drawing has 1000 units each way, whatever its shape on the screen; strokes do not scale, and a point is a stroke
//! without a length.

use super::axis::Axis;
use super::html::{clock, escaped, grouped};
use super::story::Step;
use std::fmt::Write as _;

/// Units of the drawing, each way.
const UNITS: f64 = 1000.0;
/// Words at the end of lines are at least this far apart, pixels of the screen.
const LEAST_GAP_PX: f64 = 17.0;
/// Values written along an axis.
const X_TICKS: usize = 9;
const Y_TICKS: usize = 7;
/// More times than this are no longer drawn through a chart: they would hide it.
const MOST_MARKED_TIMES: usize = 60;

/// What values along the lower side are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Across {
    Time,
    Rate,
}

pub(super) struct Plot {
    /// By which the script knows it.
    pub id: &'static str,
    /// What it shows, for who does not see it.
    pub label: String,
    /// Height on the screen, pixels.
    pub height: u32,
    pub across: Across,
    pub x: Axis,
    pub y: Axis,
    svg: String,
    words: String,
    ends: Vec<End>,
}

/// A word at the end of a line.
struct End {
    /// Percent from the top.
    top: f64,
    class: String,
    rung: Option<usize>,
    text: String,
}

impl Plot {
    pub fn new(id: &'static str, label: String, height: u32, across: Across, axes: (Axis, Axis)) -> Self {
        let (x, y) = axes;
        let mut plot = Self { id, label, height, across, x, y, svg: String::new(), words: String::new(), ends: Vec::new() };
        for tick in plot.y_ticks() {
            let top = plot.top(tick);
            let _ = write!(plot.svg, r#"<path class="grid" d="M0 {top:.1}H{UNITS}"/>"#);
        }
        plot
    }

    fn left(&self, x: f64) -> f64 {
        self.x.place(x) * UNITS
    }

    fn top(&self, y: f64) -> f64 {
        (1.0 - self.y.place(y)) * UNITS
    }

    fn x_ticks(&self) -> Vec<f64> {
        if self.across == Across::Time { self.x.time_ticks(X_TICKS) } else { self.x.ticks(X_TICKS) }
    }

    fn y_ticks(&self) -> Vec<f64> {
        self.y.ticks(Y_TICKS)
    }

    /// An even line across, and its name at the right.
    pub fn level(&mut self, y: f64, class: &str, text: &str) {
        if self.y.shows(y) {
            let top = self.top(y);
            let _ = write!(self.svg, r#"<path class="{class}" d="M0 {top:.1}H{UNITS}"/>"#);
            self.end(y, class, None, text);
        }
    }

    /// Lines from top to bottom, unless they are too many.
    pub fn times(&mut self, times: &[f64], class: &str) {
        if times.len() <= MOST_MARKED_TIMES {
            let all: String = times.iter().map(|time| format!("M{:.1} 0V{UNITS}", self.left(*time))).collect();
            let _ = write!(self.svg, r#"<path class="{class}" d="{all}"/>"#);
        }
    }

    /// Stairs: each value for as long as it holds.
    pub fn steps(&mut self, steps: &[Step], class: &str, rung: Option<usize>) {
        let mut path = String::new();
        let mut end = None;
        for step in steps {
            let (from, to, top) = (self.left(step.start_s), self.left(step.end_s), self.top(step.value));
            let joins = end.is_some_and(|end: f64| (end - from).abs() < 0.5);
            let _ = if joins { write!(path, "V{top:.1}H{to:.1}") } else { write!(path, "M{from:.1} {top:.1}H{to:.1}") };
            end = Some(to);
        }
        self.path(&path, class, rung);
    }

    /// A line from point to point.
    pub fn line(&mut self, points: &[(f64, f64)], class: &str, rung: Option<usize>) {
        let at = |(n, (x, y)): (usize, &(f64, f64))| {
            format!("{}{:.1} {:.1}", if n == 0 { 'M' } else { 'L' }, self.left(*x), self.top(*y))
        };
        let path: String = points.iter().enumerate().map(at).collect();
        self.path(&path, class, rung);
    }

    /// Dots, or squares: what the class's stroke makes of a line without length.
    pub fn dots(&mut self, points: &[(f64, f64)], class: &str, rung: Option<usize>) {
        let path: String = points.iter().map(|(x, y)| format!("M{:.1} {:.1}h0", self.left(*x), self.top(*y))).collect();
        self.path(&path, class, rung);
    }

    fn path(&mut self, path: &str, class: &str, rung: Option<usize>) {
        if !path.is_empty() {
            let _ = write!(self.svg, r#"<path class="{class}"{} d="{path}"/>"#, of_rung(rung));
        }
    }

    /// A word beside a point.
    pub fn word(&mut self, (x, y): (f64, f64), class: &str, rung: Option<usize>, text: &str) {
        let (left, top) = (self.x.place(x) * 100.0, self.top(y) / 10.0);
        if (0.0..=100.0).contains(&left) && (0.0..=100.0).contains(&top) {
            let style = format!("left:{left:.2}%;top:{top:.2}%");
            let _ = write!(self.words, r#"<span class="word {class}"{} style="{style}">{}</span>"#, of_rung(rung), escaped(text));
        }
    }

    /// A word in the margin at the right, as high as `y`.
    pub fn end(&mut self, y: f64, class: &str, rung: Option<usize>, text: &str) {
        let top = (self.top(y) / 10.0).clamp(0.0, 100.0);
        self.ends.push(End { top, class: class.into(), rung, text: text.into() });
    }

    /// Where a point is, left and top, in parts of the plot.
    pub fn place(&self, x: f64, y: f64) -> (f64, f64) {
        (self.x.place(x), 1.0 - self.y.place(y))
    }

    pub fn html(mut self) -> String {
        let Self { id, height, .. } = self;
        let y: String = self
            .y_ticks()
            .iter()
            .map(|t| format!(r#"<span style="top:{:.2}%">{}</span>"#, self.top(*t) / 10.0, number(*t)))
            .collect();
        let mut x = String::new();
        for (n, tick) in self.x_ticks().into_iter().enumerate() {
            let text = if self.across == Across::Time { time(tick, &self.x) } else { number(tick) };
            let class = if n.is_multiple_of(2) { "" } else { r#" class="odd""# };
            let _ = write!(x, r#"<span{class} style="left:{:.2}%">{text}</span>"#, self.x.place(tick) * 100.0);
        }
        let ends = ends(&mut self.ends, LEAST_GAP_PX / f64::from(height) * 100.0);
        let (label, svg, words) = (escaped(&self.label), &self.svg, &self.words);
        format!(
            r#"<div class="frame" style="--h:{height}px"><div class="y" aria-hidden="true">{y}</div><div class="plot" tabindex="0" role="img" aria-label="{label}" data-plot="{id}"><svg viewBox="0 0 1000 1000" preserveAspectRatio="none" aria-hidden="true">{svg}</svg>{words}<i class="cross"></i><i class="ring"></i></div><div class="ends" aria-hidden="true">{ends}</div><div class="x" aria-hidden="true">{x}</div></div>"#
        )
    }
}

/// The attribute by which a rung is shown and hidden.
fn of_rung(rung: Option<usize>) -> String {
    rung.map_or(String::new(), |rung| format!(r#" data-r="{rung}""#))
}

fn number(value: f64) -> String {
    let digits = if value.abs() >= 10.0 || value.fract() == 0.0 { 0 } else { 1 };
    grouped(value, digits)
}

/// A tick of a time axis: tenths only where the axis is that short.
fn time(tick: f64, axis: &Axis) -> String {
    let text = clock(tick);
    if axis.high() < 5.0 { text } else { text.split('.').next().unwrap_or(&text).to_string() }
}

/// Words from top to bottom, moved apart to `gap` percent where they would lie on each other.
fn ends(ends: &mut [End], gap: f64) -> String {
    ends.sort_by(|a, b| a.top.total_cmp(&b.top));
    let mut least = 0.0;
    for end in ends.iter_mut() {
        end.top = end.top.max(least);
        least = end.top + gap;
    }
    let mut most = 100.0;
    for end in ends.iter_mut().rev() {
        end.top = end.top.min(most);
        most = end.top - gap;
    }
    let mut html = String::new();
    for End { top, class, rung, text } in ends.iter() {
        let _ = write!(html, r#"<span class="{class}"{} style="top:{top:.2}%">{}</span>"#, of_rung(*rung), escaped(text));
    }
    html
}
