//! Rate against quality: every size that competed, their hull, and where the rungs stand.

use super::axis::Axis;
use super::fixed::{self, Expected, FixedRung};
use super::hover::Point;
use super::over_time::{colour, ends_of};
use super::plot::{Across, Plot};
use super::story::Story;
use crate::part::report::{JobReport, NarrowbandReport};
use crate::plan::narrowband::decide::HullPoint;

/// Pixels of the screen.
const HEIGHT: u32 = 420;
/// Room beside the outermost points, as a ratio of rates.
const RATE_ROOM: f64 = 1.25;
/// And below the lowest, VMAF points.
const ROOM_VMAF: f64 = 6.0;
const BEST_VMAF: f64 = 100.0;

/// The chart, and its points for the script.
pub(super) fn chart(
    report: &JobReport,
    found: &NarrowbandReport,
    story: &Story,
    fixed: &[FixedRung],
) -> Option<(String, Vec<Point>)> {
    let decision = &found.grounds.decision;
    let standing: Vec<(FixedRung, Expected)> =
        fixed.iter().filter_map(|rung| Some((*rung, fixed::expected(rung, &decision.candidates)?))).collect();
    let rates = decision.rungs.iter().map(|rung| rung.predicted_kbps).chain(standing.iter().map(|(rung, _)| rung.kbps));
    let (slowest, fastest) = ends_of(rates.filter(|kbps| *kbps > 0.0))?;
    let qualities = decision.rungs.iter().map(|rung| rung.predicted_vmaf).chain(standing.iter().map(|(_, e)| e.vmaf));
    let (worst, _) = ends_of(qualities)?;
    let axes = (Axis::log(slowest / RATE_ROOM, fastest * RATE_ROOM), Axis::linear((worst - ROOM_VMAF).max(0.0), BEST_VMAF));
    let label = "VMAF-NEG against bitrate: each picture size, the hull of them all, the ladder and the fixed ladder".into();
    let mut plot = Plot::new("curves", label, HEIGHT, Across::Rate, axes);
    let line = |points: &[HullPoint]| points.iter().map(|point| (point.kbps, point.vmaf)).collect::<Vec<_>>();
    plot.line(&line(&decision.hull), "hull", None);
    for curve in &decision.candidates {
        plot.line(&line(&curve.points), "line size", None);
        name_at_the_end(&mut plot, &curve.size.name, &curve.points);
    }
    let mut points = Vec::new();
    for (rung, expected) in &standing {
        plot.dots(&[(rung.kbps, expected.vmaf)], "square", None);
        plot.dots(&[(rung.kbps, expected.vmaf)], "square inner", None);
        points.push(point(&plot, format!("{}p", rung.short_side), "fixed ladder", rung.kbps, expected.vmaf));
    }
    for (n, rung) in decision.rungs.iter().enumerate() {
        let at = (rung.predicted_kbps, rung.predicted_vmaf);
        let class = colour(n);
        let measured = if n == 0 { measured(report, found, story) } else { None };
        if let Some(measured) = measured {
            plot.line(&[at, measured], &format!("line step {class}"), Some(n));
            plot.dots(&[measured], &format!("dot {class}"), Some(n));
            plot.dots(&[measured], "dot inner", Some(n));
            points.push(point(&plot, rung.name.clone(), "measured", measured.0, measured.1));
        }
        plot.dots(&[at], &format!("dot {class}"), Some(n));
        plot.word(at, &format!("beside {class}"), Some(n), &rung.name);
        points.push(point(&plot, rung.name.clone(), "planned", at.0, at.1));
    }
    for curve in &decision.candidates {
        let shown = curve.points.iter().filter(|p| plot.x.shows(p.kbps) && plot.y.shows(p.vmaf));
        points.extend(shown.map(|p| point(&plot, curve.size.name.clone(), "size", p.kbps, p.vmaf)));
    }
    Some((plot.html(), points))
}

fn point(plot: &Plot, name: String, what: &'static str, kbps: f64, vmaf: f64) -> Point {
    let (left, top) = plot.place(kbps, vmaf);
    Point { left, top, name, what, kbps, vmaf }
}

/// A size's name where its line leaves the chart, or ends.
fn name_at_the_end(plot: &mut Plot, name: &str, points: &[HullPoint]) {
    let leaves = fixed::quality_at(points, plot.x.high());
    match (leaves, points.last()) {
        (Some(vmaf), _) if plot.y.shows(vmaf) => plot.end(vmaf, "size", None, name),
        (None, Some(last)) if plot.x.shows(last.kbps) => plot.word((last.kbps, last.vmaf), "after", None, name),
        _ => {}
    }
}

/// Rate and quality of the top rung as it was made.
fn measured(report: &JobReport, found: &NarrowbandReport, story: &Story) -> Option<(f64, f64)> {
    let vmaf = mean(story).or_else(|| found.grounds.repairs.as_ref()?.measured_vmaf)?;
    let kbps = report.rungs.first()?.kbps;
    (kbps > 0.0).then_some((kbps, vmaf))
}

/// Of the top rung as it is in the end: the chunks' means, by duration.
pub(super) fn mean(story: &Story) -> Option<f64> {
    let seconds: f64 = story.chunk_means.iter().map(|step| step.end_s - step.start_s).sum();
    let sum: f64 = story.chunk_means.iter().map(|step| step.value * (step.end_s - step.start_s)).sum();
    (seconds > 0.0).then(|| sum / seconds)
}
