//! A picture of it: what waited, and what worked, over time. SVG, readable without anything else.

use super::report::{Report, Sample};
use std::fmt::Write;

/// Size of the picture and of each of its two panels, pixels.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 80.0;
const PANEL_WIDTH: f64 = 850.0;
const PANEL_HEIGHT: f64 = 190.0;
const TOPS: [f64; 2] = [50.0, 310.0];
/// Marks on an axis, about.
const MARKS: f64 = 5.0;
const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;
const DAY: f64 = 86_400.0;

/// A line of a panel: its name, its colour, and what it shows.
type Line = (&'static str, &'static str, fn(&Sample) -> usize);

/// The picture of a report.
pub fn svg(report: &Report) -> String {
    let series = &report.series;
    let (from, to) = (series.first().map_or(0.0, |s| s.at_s), series.last().map_or(1.0, |s| s.at_s));
    let across = Axis::of(from, to.max(from + 1.0), true);
    let title = format!(
        "{} jobs in {}, {:.0} % of the slots busy, {:.3} slot hours for each hour of output",
        report.jobs,
        clock(report.makespan_s),
        report.utilisation * 100.0,
        report.slot_hours_per_output_hour,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{title}</text>\n"
    );
    let waiting: [Line; 1] = [("waiting", "#b3541e", |s| s.waiting)];
    let working: [Line; 2] = [("slots", "#8a8f98", |s| s.slots), ("busy", "#1b6ca8", |s| s.busy)];
    panel(&mut svg, series, &across, TOPS[0], &waiting);
    panel(&mut svg, series, &across, TOPS[1], &working);
    svg + "</svg>\n"
}

/// One diagram, with its axes and the names of its lines.
fn panel(svg: &mut String, series: &[Sample], across: &Axis, top: f64, lines: &[Line]) {
    let most = series.iter().flat_map(|s| lines.iter().map(|(.., of)| of(s))).max().unwrap_or(0);
    let up = Axis::of(0.0, (most as f64).max(1.0), false);
    let bottom = top + PANEL_HEIGHT;
    let x = |value: f64| LEFT + across.share(value) * PANEL_WIDTH;
    let y = |value: f64| bottom - up.share(value) * PANEL_HEIGHT;
    // Writing to a String cannot fail.
    let mut put = |text: String| svg.push_str(&text);
    for mark in up.marks() {
        let (right, at, text) = (LEFT + PANEL_WIDTH, y(mark), mark);
        put(format!("<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#e3e5e8\"/>\n"));
        put(format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>\n", LEFT - 8.0, at + 4.0));
    }
    for mark in across.marks() {
        put(format!("<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{bottom}\" y2=\"{1}\" stroke=\"#555\"/>\n", x(mark), bottom + 5.0));
        put(format!("<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", x(mark), bottom + 19.0, clock(mark)));
    }
    for (number, (name, colour, of)) in lines.iter().enumerate() {
        let points = series.iter().fold(String::new(), |mut points, sample| {
            let _ = write!(points, "{:.1},{:.1} ", x(sample.at_s), y(of(sample) as f64));
            points
        });
        put(format!("<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n", points.trim_end()));
        let at = LEFT + number as f64 * 90.0;
        put(format!("<text x=\"{at}\" y=\"{}\" fill=\"{colour}\">{name}</text>\n", top - 8.0));
    }
}

/// From where to where an axis goes, and how far apart its marks are.
struct Axis {
    from: f64,
    to: f64,
    step: f64,
}

impl Axis {
    fn of(from: f64, to: f64, is_time: bool) -> Self {
        let least = (to - from) / MARKS;
        let decades = || (0..).map(|n| 10_f64.powi(n)).flat_map(|ten| [1.0, 2.0, 5.0].map(|first| first * ten));
        let times = [1.0, 5.0, 15.0, 30.0].map(|n| n * MINUTE).into_iter().chain([1.0, 3.0, 6.0, 12.0].map(|n| n * HOUR));
        let days = decades().map(|n| n * DAY);
        let step = if is_time && least > MINUTE / 2.0 {
            times.chain(days).find(|step| *step >= least)
        } else {
            decades().find(|step| *step >= least)
        };
        Self { from, to, step: step.unwrap_or(least) }
    }

    fn share(&self, value: f64) -> f64 {
        (value - self.from) / (self.to - self.from)
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        let (first, to, step) = ((self.from / self.step).ceil(), self.to, self.step);
        (0..).map(move |n| (first + f64::from(n)) * step).take_while(move |mark| *mark <= to)
    }
}

/// A time as people say it: seconds, minutes and seconds, hours and minutes.
pub fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    match whole {
        0..60 => format!("{rest} s"),
        60..3600 => format!("{minutes}:{rest:02} min"),
        _ => format!("{hours}:{minutes:02} h"),
    }
}
