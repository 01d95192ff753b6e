//! Rate and quality over time, and how the title is divided.

use super::axis::Axis;
use super::hover::{Column, Row, Timed};
use super::html::{clock, count, rate};
use super::plot::{Across, Plot};
use super::story::{Score, Step, Story};
use crate::part::report::JobReport;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Pixels of the screen.
const RATE_HEIGHT: u32 = 300;
const TOP_HEIGHT: u32 = 260;
const PLANNED_HEIGHT: u32 = 200;
/// Room above and below the lines of the rates, as a ratio.
const RATE_ROOM: f64 = 1.15;
/// The floor is drawn where it is no further below the rest, VMAF points.
const FLOOR_IN_SIGHT_VMAF: f64 = 10.0;
/// Least height of a chart of quality, VMAF points.
const LEAST_SPAN_VMAF: f64 = 5.0;
/// The best there is.
const BEST_VMAF: f64 = 100.0;
/// Of more scored pictures than these only the best and the worst of each stretch are drawn: no screen has more columns.
const MOST_SCORES: usize = 4000;
/// More ticks than these are no longer drawn in the strip.
const MOST_TICKS: usize = 600;

/// Charts by name, with what is shown where somebody points at them.
pub(super) struct Charts {
    pub rate: Option<String>,
    pub top: Option<String>,
    pub planned: Option<String>,
    pub strip: String,
    pub hover: BTreeMap<&'static str, Timed>,
}

pub(super) fn charts(report: &JobReport, story: &Story) -> Charts {
    let mut hover = BTreeMap::new();
    let rate = rate_plot(story, &mut hover);
    let top = top_plot(report, story, &mut hover);
    let planned = planned_plot(story, &mut hover);
    Charts { rate, top, planned, strip: strip(report, story), hover }
}

/// The class by which a rung has its colour.
pub(super) fn colour(rung: usize) -> String {
    /// Colours in the style sheet.
    const COLOURS: usize = 9;
    format!("r{}", rung.min(COLOURS - 1))
}

fn time_axis(story: &Story) -> Axis {
    Axis::linear(0.0, story.duration_s)
}

fn seams(plot: &mut Plot, story: &Story) {
    plot.times(&story.chunk_seams(), "seam");
    plot.times(&story.cuts, "cut");
}

fn rate_plot(story: &Story, hover: &mut BTreeMap<&'static str, Timed>) -> Option<String> {
    let all = story.rungs.iter().flat_map(|rung| rung.made.iter().chain(&rung.planned_kbps)).map(|step| step.value);
    let (low, high) = ends_of(all.filter(|value| *value > 0.0))?;
    let label = format!("Bitrate of {} over {}", count(story.rungs.len(), "rung"), clock(story.duration_s));
    let axes = (time_axis(story), Axis::log(low / RATE_ROOM, high * RATE_ROOM));
    let mut plot = Plot::new("rate", label, RATE_HEIGHT, Across::Time, axes);
    seams(&mut plot, story);
    let mut rows = Vec::new();
    for (n, rung) in story.rungs.iter().enumerate() {
        let class = colour(n);
        plot.steps(&rung.planned_kbps, &format!("line planned {class}"), Some(n));
        plot.steps(&rung.made, &format!("line {class}"), Some(n));
        if let Some(last) = rung.made.last() {
            plot.end(last.value, &class, Some(n), &rung.name);
        }
        let mut columns = vec![Column::of("made", 0, &rung.made)];
        if !rung.planned_kbps.is_empty() {
            columns.extend([Column::of("planned", 0, &rung.planned_kbps), Column::of("CRF", 2, &rung.crf)]);
        }
        rows.push(Row { rung: n, name: rung.name.clone(), columns });
    }
    hover.insert("rate", Timed { unit: "kbit/s", rows });
    Some(plot.html())
}

fn top_plot(report: &JobReport, story: &Story, hover: &mut BTreeMap<&'static str, Timed>) -> Option<String> {
    let rung = story.rungs.first()?;
    let decided = report.narrowband.as_ref().and_then(|found| found.grounds.decision.rungs.first());
    let values = story.scores.iter().map(|score| score.vmaf).chain(rung.planned_vmaf.iter().map(|step| step.value));
    let (low, _) = ends_of(values.chain(decided.map(|rung| rung.goal_vmaf)))?;
    let floor = decided.map(|rung| rung.floor_vmaf).filter(|floor| *floor > low - FLOOR_IN_SIGHT_VMAF);
    let bottom = (floor.map_or(low, |floor| low.min(floor)) - 1.0).clamp(0.0, BEST_VMAF - LEAST_SPAN_VMAF);
    let label = format!("VMAF-NEG of the top rung, {}, planned and measured over time", rung.name);
    let mut plot = Plot::new("top", label, TOP_HEIGHT, Across::Time, (time_axis(story), Axis::linear(bottom, BEST_VMAF)));
    seams(&mut plot, story);
    if let Some(floor) = floor {
        plot.level(floor, "floor", "floor");
    }
    if let Some(decided) = decided {
        plot.level(decided.goal_vmaf, "goal", "goal");
    }
    plot.line(&thinned(&story.scores), "line scores", None);
    plot.steps(&rung.planned_vmaf, &format!("line planned {}", colour(0)), None);
    plot.steps(&story.chunk_means, &format!("line mean {}", colour(0)), None);
    let pictures: Vec<Step> = story.scores.iter().map(|s| Step { start_s: s.time_s, end_s: s.time_s, value: s.vmaf }).collect();
    let columns = vec![
        Column::of("picture", 1, &pictures),
        Column::of("chunk", 1, &story.chunk_means),
        Column::of("planned", 1, &rung.planned_vmaf),
        Column::of("CRF", 2, &rung.crf),
    ];
    hover.insert("top", Timed { unit: "VMAF-NEG", rows: vec![Row { rung: 0, name: rung.name.clone(), columns }] });
    Some(plot.html())
}

fn planned_plot(story: &Story, hover: &mut BTreeMap<&'static str, Timed>) -> Option<String> {
    if story.rungs.len() < 2 {
        return None;
    }
    let (low, _) = ends_of(story.rungs.iter().flat_map(|rung| &rung.planned_vmaf).map(|step| step.value))?;
    let bottom = (low - 1.0).clamp(0.0, BEST_VMAF - LEAST_SPAN_VMAF);
    let label = format!("Planned VMAF-NEG of {} over time", count(story.rungs.len(), "rung"));
    let axes = (time_axis(story), Axis::linear(bottom, BEST_VMAF));
    let mut plot = Plot::new("planned", label, PLANNED_HEIGHT, Across::Time, axes);
    seams(&mut plot, story);
    let mut rows = Vec::new();
    for (n, rung) in story.rungs.iter().enumerate() {
        plot.steps(&rung.planned_vmaf, &format!("line {}", colour(n)), Some(n));
        if let Some(last) = rung.planned_vmaf.last() {
            plot.end(last.value, &colour(n), Some(n), &rung.name);
        }
        let columns = vec![Column::of("planned", 1, &rung.planned_vmaf), Column::of("CRF", 2, &rung.crf)];
        rows.push(Row { rung: n, name: rung.name.clone(), columns });
    }
    hover.insert("planned", Timed { unit: "VMAF-NEG", rows });
    Some(plot.html())
}

/// The least and the greatest of them.
pub(super) fn ends_of(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let mut ends = None;
    for value in values.filter(|value| value.is_finite()) {
        let (low, high) = ends.unwrap_or((value, value));
        ends = Some((value.min(low), value.max(high)));
    }
    ends
}

/// The best and the worst of each stretch, by time.
fn thinned(scores: &[Score]) -> Vec<(f64, f64)> {
    let stretch = (2 * scores.len()).div_ceil(MOST_SCORES).max(1);
    let mut points = Vec::new();
    for some in scores.chunks(stretch) {
        let worst = some.iter().min_by(|a, b| a.vmaf.total_cmp(&b.vmaf));
        let best = some.iter().max_by(|a, b| a.vmaf.total_cmp(&b.vmaf));
        let mut both: Vec<(f64, f64)> = worst.into_iter().chain(best).map(|score| (score.time_s, score.vmaf)).collect();
        both.sort_by(|a, b| a.0.total_cmp(&b.0));
        both.dedup();
        points.extend(both);
    }
    points
}

/// The title from its beginning to its end: chunks, segments, scene cuts, what was encoded once more, what is damaged.
fn strip(report: &JobReport, story: &Story) -> String {
    let part = |time: f64| time / story.duration_s * 1000.0;
    let mut svg = String::new();
    for (n, chunk) in story.chunks.iter().enumerate() {
        let again = story.repaired.iter().any(|repair| repair.start_s == chunk.start_s);
        let class = if again {
            "again"
        } else if n.is_multiple_of(2) {
            "even"
        } else {
            "odd"
        };
        let (x, width) = (part(chunk.start_s), part(chunk.end_s - chunk.start_s));
        let _ = write!(svg, r#"<rect class="{class}" x="{x:.2}" y="24" width="{width:.2}" height="52"/>"#);
    }
    let mut ticks = |times: &[f64], class: &str, from: u32, to: u32| {
        if !times.is_empty() && times.len() <= MOST_TICKS {
            let path: String = times.iter().map(|time| format!("M{:.2} {from}V{to}", part(*time))).collect();
            let _ = write!(svg, r#"<path class="{class}" d="{path}"/>"#);
        }
    };
    ticks(&story.segment_seams, "segment", 58, 76);
    ticks(&story.chunk_seams(), "seam", 12, 88);
    ticks(&story.cuts, "cut", 0, 50);
    ticks(&report.damage.first_bad_s.into_iter().collect::<Vec<f64>>(), "bad", 0, 100);
    let label = format!(
        "The title in {} and {}, with {}",
        count(story.chunks.len(), "chunk"),
        count(report.rungs.first().map_or(0, |rung| rung.segments), "segment"),
        count(story.cuts.len(), "scene cut")
    );
    format!(
        r#"<div class="frame" style="--h:56px"><div class="y"></div><div class="plot strip" tabindex="0" role="img" aria-label="{label}" data-plot="strip"><svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">{svg}</svg><i class="cross"></i></div><div class="ends"></div></div>"#
    )
}

/// Switches for the rungs.
pub(super) fn chooser(story: &Story) -> String {
    if story.rungs.len() < 2 {
        return String::new();
    }
    let mut html = String::from(r#"<fieldset class="chooser"><legend>Rungs</legend>"#);
    for (n, rung) in story.rungs.iter().enumerate() {
        let _ = write!(
            html,
            r#"<label class="{}"><input type="checkbox" checked data-rung="{n}"><i class="swatch"></i>{} <small>{} kbit/s</small></label>"#,
            colour(n),
            super::html::escaped(&rung.name),
            rate(rung.kbps)
        );
    }
    html + "</fieldset>"
}
