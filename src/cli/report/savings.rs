//! This ladder beside the fixed one.

use super::fixed::{self, FixedRung};
use super::html::{count, escaped, grouped, percent, rate};
use super::over_time::colour;
use super::story::Story;
use crate::cli::rows::size;
use crate::part::report::{JobReport, NarrowbandReport};
use crate::plan::preset::VideoCodec;
use std::fmt::Write as _;

/// What the ladder spends beside the fixed one of its codec, at that one's nominal rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Saved {
    pub made_kbps: f64,
    pub fixed_kbps: f64,
}

impl Saved {
    /// None where no rung of the fixed ladder fits the source.
    pub fn of(report: &JobReport, fixed: &[FixedRung]) -> Option<Self> {
        let (made_kbps, fixed_kbps) = (report.rungs.iter().map(|rung| rung.kbps).sum(), fixed::total_kbps(fixed));
        (fixed_kbps > 0.0).then_some(Self { made_kbps, fixed_kbps })
    }

    /// Negative where this ladder spends more.
    pub fn share(&self) -> f64 {
        1.0 - self.made_kbps / self.fixed_kbps
    }
}

/// Short side of the title as it is shown, pixels.
pub(super) fn short_side(report: &JobReport, found: &NarrowbandReport) -> u32 {
    let shown = found.grounds.decision.candidates.first().map(|curve| curve.size.width.min(curve.size.height));
    shown.or_else(|| report.rungs.iter().map(|rung| rung.width.min(rung.height)).max()).unwrap_or(0)
}

/// A bar of the comparison.
struct Bar {
    name: &'static str,
    /// Class, name and rate of each piece.
    pieces: Vec<(String, String, f64)>,
}

pub(super) fn section(report: &JobReport, found: &NarrowbandReport, story: &Story, fixed: &[FixedRung]) -> String {
    let codec = found.grounds.decision.codec;
    if fixed.is_empty() {
        return "<p class=\"none\">There is no fixed ladder of this codec with a rung that fits the source.</p>".into();
    }
    let mut html = bars(report, story, &bars_of(codec, short_side(report, found), story));
    html += &table(found, fixed);
    html
}

fn bars_of(codec: VideoCodec, short_side: u32, story: &Story) -> Vec<Bar> {
    let fixed = |name, codec| {
        let rungs = fixed::ladder(codec, short_side).into_iter();
        Bar { name, pieces: rungs.map(|rung| ("fixed".into(), format!("{}p", rung.short_side), rung.kbps)).collect() }
    };
    let mut bars = vec![fixed("Fixed H.264 ladder", VideoCodec::H264)];
    if codec == VideoCodec::H265 {
        bars.push(fixed("Fixed H.265 ladder", VideoCodec::H265));
    }
    let made = story.rungs.iter().enumerate().map(|(n, rung)| (colour(n), rung.name.clone(), rung.kbps));
    bars.push(Bar { name: "This ladder", pieces: made.collect() });
    bars
}

fn bars(report: &JobReport, story: &Story, bars: &[Bar]) -> String {
    let total = |bar: &Bar| bar.pieces.iter().map(|(.., kbps)| kbps).sum::<f64>();
    let longest = bars.iter().map(total).fold(f64::MIN_POSITIVE, f64::max);
    let mut html = String::from(r#"<div class="bars">"#);
    for bar in bars {
        let total = total(bar);
        let _ = write!(
            html,
            r#"<div class="bar"><div class="says"><b>{}</b> <span>{}, {} kbit/s, {}</span></div><div class="track">"#,
            bar.name,
            count(bar.pieces.len(), "rung"),
            rate(total),
            size((total * 1000.0 / 8.0 * story.duration_s.min(report.totals.duration_s)) as u64)
        );
        for (class, name, kbps) in &bar.pieces {
            let width = kbps / longest * 100.0;
            let name = escaped(name);
            let _ = write!(html, r#"<i class="{class}" style="width:{width:.3}%" title="{name}: {} kbit/s"></i>"#, rate(*kbps));
        }
        html += "</div></div>";
    }
    html + "</div>"
}

fn table(found: &NarrowbandReport, fixed: &[FixedRung]) -> String {
    let decision = &found.grounds.decision;
    let mut html = String::from(
        r#"<div class="scroll"><table><caption>The fixed ladder, by this title's own curves</caption><thead><tr><th scope="col">fixed rung</th><th scope="col">kbit/s</th><th scope="col">VMAF-NEG there</th><th scope="col">the same quality in the best size, kbit/s</th><th scope="col">difference</th></tr></thead><tbody>"#,
    );
    for rung in fixed {
        let expected = fixed::expected(rung, &decision.candidates);
        let vmaf =
            expected.map_or("\u{2013}".into(), |e| format!("{}{}", if e.beyond { "over " } else { "" }, grouped(e.vmaf, 1)));
        let best = expected.filter(|e| !e.beyond).and_then(|e| e.best_kbps);
        let (at, less) =
            best.map_or(("\u{2013}".into(), "\u{2013}".into()), |kbps| (rate(kbps), percent(kbps / rung.kbps - 1.0)));
        let _ = write!(
            html,
            r#"<tr><th scope="row">{}p</th><td>{}</td><td>{vmaf}</td><td>{at}</td><td>{less}</td></tr>"#,
            rung.short_side,
            rate(rung.kbps)
        );
    }
    html + "</tbody></table></div>"
}
