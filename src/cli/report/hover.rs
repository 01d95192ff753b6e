//! What the page's script knows: the values that it shows where somebody points.

use super::html::json_block;
use super::story::{Step, Story};
use serde::Serialize;
use std::collections::BTreeMap;

/// Everything that the script reads.
#[derive(Serialize)]
pub(super) struct Hover {
    duration_s: f64,
    /// Beginning and number of each chunk.
    chunks: Vec<(f64, f64)>,
    cuts: Vec<f64>,
    /// Numbers of chunks encoded once more.
    repaired: Vec<f64>,
    /// Of each chart over time, by its id.
    plots: BTreeMap<&'static str, Timed>,
    /// Of the chart of rate against quality.
    points: Vec<Point>,
}

/// The values of one chart.
#[derive(Serialize)]
pub(super) struct Timed {
    pub unit: &'static str,
    pub rows: Vec<Row>,
}

/// What is shown of one rung.
#[derive(Serialize)]
pub(super) struct Row {
    pub rung: usize,
    pub name: String,
    pub columns: Vec<Column>,
}

#[derive(Serialize)]
pub(super) struct Column {
    name: &'static str,
    digits: usize,
    /// From when each value holds, and the value.
    steps: Vec<(f64, f64)>,
}

/// One point of rate against quality.
#[derive(Serialize)]
pub(super) struct Point {
    /// From the left and from the top, in parts of the plot.
    pub left: f64,
    pub top: f64,
    pub name: String,
    pub what: &'static str,
    pub kbps: f64,
    pub vmaf: f64,
}

impl Column {
    pub fn of(name: &'static str, digits: usize, steps: &[Step]) -> Self {
        Self { name, digits, steps: steps.iter().map(|step| (rounded(step.start_s), rounded(step.value))).collect() }
    }
}

impl Hover {
    pub fn new(story: &Story, plots: BTreeMap<&'static str, Timed>, points: Vec<Point>) -> Self {
        Self {
            duration_s: story.duration_s,
            chunks: story.chunks.iter().map(|chunk| (rounded(chunk.start_s), chunk.value)).collect(),
            cuts: story.cuts.iter().copied().map(rounded).collect(),
            repaired: story.chunks.iter().filter(|chunk| is_repaired(story, chunk)).map(|chunk| chunk.value).collect(),
            plots,
            points,
        }
    }

    /// The content of a `script` element that is data.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn block(&self) -> Result<String, serde_json::Error> {
        Ok(json_block(&serde_json::to_string(self)?))
    }
}

fn is_repaired(story: &Story, chunk: &Step) -> bool {
    story.repaired.iter().any(|repair| repair.start_s == chunk.start_s)
}

/// Thousandths, which no screen shows.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
