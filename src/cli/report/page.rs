//! The page: everything in one file, and nothing that a browser would fetch.

use super::fixed::{self, FixedRung};
use super::hover::{Hover, Point};
use super::html::{count, escaped, grouped, lasting, percent, rate};
use super::over_time::{self, Charts};
use super::savings::{self, Saved};
use super::story::{Score, Story};
use super::worst::{self, Pair};
use super::{curves, tables};
use crate::cli::rows::size;
use crate::part::report::{JobReport, NarrowbandReport};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The worst moments.
pub(super) struct Worst {
    pub moments: Vec<Score>,
    pub pairs: Vec<Option<Pair>>,
    /// Why pictures are missing, and what to know of them, in sentences.
    pub notes: Vec<String>,
}

/// # Errors
/// The values that the script reads cannot be written.
pub(super) fn page(report: &JobReport, story: &Story, worst: &Worst) -> Result<String, serde_json::Error> {
    let found = report.narrowband.as_ref();
    let fixed = found.map_or(Vec::new(), |found| fixed::ladder(found.grounds.decision.codec, savings::short_side(report, found)));
    let Charts { rate, top, planned, strip, hover } = over_time::charts(report, story);
    let (curves, points) = found.and_then(|found| curves::chart(report, found, story, &fixed)).unzip();
    let mut body = head(report, story);
    body += &tiles(report, story, &fixed);
    if let Some(rate) = rate {
        body += &time(report, story, [Some(rate), top, planned], &strip);
    }
    if let (Some(found), Some(curves)) = (found, curves) {
        body += &section("curves", "Rate against quality", &lead_of_curves(found), &figure(&curves, CURVES_KEY));
    }
    if let Some(found) = found {
        let lead = "What the same title would spend on the fixed ladder, at that one's nominal rates. Its quality is read from this \
            title's own curves, so it is what those bits could buy at best: a capped encode of the whole title gets no more.";
        body += &section("savings", "Beside the fixed ladder", lead, &savings::section(report, found, story, &fixed));
        body += &moments(story, worst);
        body += &repairs_and_cost(found, story);
    }
    body += &section("renditions", "Renditions", "", &tables::rungs(report));
    body += &soundness(report);
    body += &chunks(report);
    let data = Hover::new(story, hover, points.unwrap_or_else(Vec::<Point>::new)).block()?;
    Ok(document(&story.name, &body, &data))
}

fn document(name: &str, body: &str, data: &str) -> String {
    // The one script that may run is this one, and nothing may be loaded, whatever a report says.
    let hash = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, Sha256::digest(SCRIPT));
    let policy = format!("default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{hash}'");
    let name = escaped(name);
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="narrows {}">
<title>{name}: report</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
</main>
<div class="tip" role="status" hidden></div>
<script type="application/json" id="data">{data}</script>
<script>{SCRIPT}</script>
</body>
</html>
"#,
        env!("CARGO_PKG_VERSION")
    )
}

fn section(id: &str, title: &str, lead: &str, content: &str) -> String {
    let lead = if lead.is_empty() { String::new() } else { format!("<p class=\"lead\">{lead}</p>") };
    format!(
        "<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{title}</h2>\n{lead}{content}\n</section>\n"
    )
}

/// A chart with its key.
fn figure(chart: &str, key: &str) -> String {
    format!("<figure>{chart}<figcaption class=\"key\">{key}</figcaption></figure>")
}

const CURVES_KEY: &str = r#"<span><i class="k-dot"></i>rung, planned</span><span><i class="k-ring"></i>top rung, measured</span><span><i class="k-hull"></i>hull</span><span><i class="k-size"></i>one picture size</span><span><i class="k-square"></i>fixed ladder</span>"#;
const RATE_KEY: &str = r#"<span><i class="k-line"></i>made</span>"#;
const PLANNED_KEY: &str = r#"<span><i class="k-dashed"></i>planned</span>"#;
const MARKS_KEY: &str = r#"<span><i class="k-cut"></i>scene cut</span><span><i class="k-seam"></i>seam of chunks</span>"#;
const TOP_KEY: &str = r#"<span><i class="k-scores"></i>scored picture</span><span><i class="k-mean"></i>chunk, measured</span><span><i class="k-dashed"></i>chunk, planned</span>"#;

fn head(report: &JobReport, story: &Story) -> String {
    let facts = super::story::video_facts(report);
    let mut says = vec![format!("preset <b>{}</b>", escaped(&report.preset))];
    if let (Some(width), Some(height)) = (facts["width"].as_u64(), facts["height"].as_u64()) {
        says.push(format!("source {width}\u{d7}{height} {}", escaped(facts["codec"].as_str().unwrap_or(""))));
    }
    if let Some(rung) = report.rungs.first() {
        says.push(format!("{} pictures a second", grouped(rung.frame_rate.as_f64(), 2).trim_end_matches(".00")));
    }
    says.push(lasting(story.duration_s));
    says.push(format!("job <code>{}</code>", escaped(&report.job)));
    let says: String = says.iter().map(|words| format!("<li>{words}</li>")).collect();
    format!(
        "<header>\n<p class=\"eyebrow\">narrows</p>\n<h1>{}</h1>\n<ul class=\"facts\">{says}</ul>\n</header>\n",
        escaped(&story.name)
    )
}

/// A figure that stands out: what it is, the value, and what to know of it.
fn tile(what: &str, value: &str, unit: &str, more: &str) -> String {
    format!(
        "<li><span class=\"what\">{what}</span><span class=\"value\">{value}<small>{unit}</small></span><span class=\"more\">{more}</span></li>"
    )
}

fn tiles(report: &JobReport, story: &Story, fixed: &[FixedRung]) -> String {
    let mut html = String::from("<ul class=\"tiles\">");
    if let Some(top) = report.rungs.first() {
        let quality = curves::mean(story).map_or(String::new(), |vmaf| format!(", VMAF-NEG {} measured", grouped(vmaf, 1)));
        html += &tile("Top rung", &rate(top.kbps), " kbit/s", &format!("{}\u{d7}{}{quality}", top.width, top.height));
    }
    let total: f64 = report.rungs.iter().map(|rung| rung.kbps).sum();
    html += &tile(
        "Whole ladder",
        &rate(total),
        " kbit/s",
        &format!("{}, {} stored", count(report.rungs.len(), "rung"), size(report.totals.bytes)),
    );
    if let Some(saved) = Saved::of(report, fixed) {
        let share = saved.share();
        let (what, value) = if share >= 0.0 { ("Saved", percent(share)) } else { ("More spent", percent(-share)) };
        html += &tile(what, &value, "", &format!("of the fixed ladder's {} kbit/s", rate(saved.fixed_kbps)));
    }
    match &report.narrowband {
        Some(found) => {
            html += &tile("Cost of deciding", &grouped(found.cost.share, 2), "", "of the ladder's CPU time");
        }
        None => html += &tile("CPU time", &lasting(report.totals.cpu_s), "", &format!("for {}", lasting(story.duration_s))),
    }
    let between = report.seams.chunks.saturating_sub(1);
    let seams = if between == 0 {
        ("none".into(), "one chunk".into())
    } else {
        (format!("{} of {between}", report.seams.proved), count(report.seams.chunks, "chunk"))
    };
    html += &tile("Seams proved", &seams.0, "", &seams.1);
    html + "</ul>\n"
}

fn time(report: &JobReport, story: &Story, charts: [Option<String>; 3], strip: &str) -> String {
    let [rate, top, planned] = charts;
    let is_by_segment = story.rungs.iter().any(|rung| rung.is_by_segment);
    let by = if is_by_segment { "by segment" } else { "by chunk: the segments are not at hand" };
    let decided = report.narrowband.is_some();
    let marks = if story.cuts.is_empty() && story.chunks.len() < 2 { "" } else { MARKS_KEY };
    let mut content = over_time::chooser(story);
    let key = format!("{RATE_KEY}{}{marks}", if decided { PLANNED_KEY } else { "" });
    content += &format!(
        "<h3>Bitrate <small>kbit/s, {by}, each step of the scale the same ratio</small></h3>{}",
        figure(&rate.unwrap_or_default(), &key)
    );
    if let Some(top) = top {
        let name = story.rungs.first().map_or("", |rung| &rung.name);
        content += &format!(
            "<h3>Quality of the top rung, {} <small>VMAF-NEG at display size</small></h3>{}",
            escaped(name),
            figure(&top, TOP_KEY)
        );
    }
    if let Some(planned) = planned {
        content +=
            &format!("<h3>Quality of every rung, planned <small>VMAF-NEG at display size</small></h3>{}", figure(&planned, ""));
    }
    let key = r#"<span><i class="k-chunk"></i>chunk</span><span><i class="k-segment"></i>segment</span><span><i class="k-cut"></i>scene cut</span><span><i class="k-again"></i>encoded once more</span>"#;
    content += &format!("<h3>Chunks, segments, scene cuts</h3>{}", figure(strip, key));
    content += &format!("<p class=\"none\">{}</p>", division(report, story));
    section("time", "Over time", "", &content)
}

/// How the title is divided, in words.
fn division(report: &JobReport, story: &Story) -> String {
    let segments = report.rungs.first().map_or(0, |rung| rung.segments);
    let mut says = format!("{}, {}", count(story.chunks.len(), "chunk"), count(segments, "segment"));
    if let Some(grid) = report.narrowband.as_ref().map(|found| &found.grounds.grid) {
        let _ = write!(
            says,
            ", {}; {} of the segments begin on one, {} elsewhere",
            count(story.cuts.len(), "scene cut"),
            grouped(grid.segments_on_cuts as f64, 0),
            grouped(grid.segments_off_cuts as f64, 0)
        );
        if !grid.misfits.is_empty() {
            let _ = write!(says, "; {} shorter or longer than wanted", count(grid.misfits.len(), "segment"));
        }
    }
    says + "."
}

fn lead_of_curves(found: &NarrowbandReport) -> String {
    let decision = &found.grounds.decision;
    let sizes = count(decision.candidates.len(), "picture size");
    format!(
        "What {sizes} cost for this title, by {} calibrated at the final settings. A rung has the size that is best at its rate; the hull spans them all.",
        count(found.grounds.calibration.len(), "encode")
    )
}

fn moments(story: &Story, worst: &Worst) -> String {
    if worst.moments.is_empty() {
        return String::new();
    }
    let mut content = worst::html(story, &worst.moments, &worst.pairs);
    for note in &worst.notes {
        content += &format!("<p class=\"none\">{}</p>", escaped(note));
    }
    section(
        "worst",
        "Worst moments",
        "The scored pictures of the top rung that are furthest from the source, each of another moment.",
        &content,
    )
}

fn repairs_and_cost(found: &NarrowbandReport, story: &Story) -> String {
    let mut html = String::new();
    if let Some(adjustment) = &found.grounds.adjustment {
        let lead = format!(
            "{} encoded before the others, which were then moved by {:+.2} CRF, to come to VMAF-NEG {} in the mean.",
            count(adjustment.pilots.len(), "chunk"),
            adjustment.moved_crf,
            grouped(adjustment.wanted_vmaf, 1)
        );
        html += &section("pilots", "Pilots", &lead, &tables::pilots(adjustment, story));
    }
    if let Some(repairs) = &found.grounds.repairs {
        let below = if repairs.below_floor > 0 {
            format!(" {} below the floor.", count(repairs.below_floor, "chunk"))
        } else {
            String::new()
        };
        let lead = match (repairs.planned_vmaf, repairs.measured_vmaf) {
            (Some(planned), Some(measured)) => {
                format!("Planned at VMAF-NEG {}, first measured at {}.{below}", grouped(planned, 1), grouped(measured, 1))
            }
            _ => below,
        };
        html += &section("repairs", "Verification and repairs", &lead, &tables::repairs(repairs, story));
    }
    let lead = format!("Finding out what to encode took {} of the ladder's own CPU time.", percent(found.cost.share));
    html + &section("cost", "Cost", &lead, &tables::cost(found))
}

/// Seams, damage, notes.
fn soundness(report: &JobReport) -> String {
    let (seams, damage) = (&report.seams, &report.damage);
    let between = seams.chunks.saturating_sub(1);
    let mut items = vec![match between {
        0 => "The title is one chunk: there are no seams.".to_string(),
        _ if seams.proved == between => {
            format!("At every seam ({between}) both sides decoded the same picture, and timestamps meet to the tick.")
        }
        _ => format!("At {} of {} both sides proved to have decoded the same picture.", seams.proved, count(between, "seam")),
    }];
    items.push(match (damage.lost_frames, damage.damaged_frames, damage.first_bad_s) {
        (0, 0, _) => "The source is undamaged.".into(),
        (lost, damaged, first) => format!(
            "The source is damaged: {} lost, {} damaged{}.",
            count(lost as usize, "frame"),
            grouped(damaged as f64, 0),
            first.map_or(String::new(), |first| format!(", the first at {}", super::html::clock(first)))
        ),
    });
    let totals = &report.totals;
    items.push(format!(
        "{} in all, {} stored; {} of CPU time; the largest child held {}; {}.",
        count(totals.frames as usize, "frame"),
        size(totals.bytes),
        lasting(totals.cpu_s),
        size(totals.peak_bytes),
        count(totals.repeated_attempts as usize, "repeated attempt")
    ));
    items.extend(tables::notes(report).iter().map(|note| escaped(note).to_string()));
    let list: String = items.iter().map(|item| format!("<li>{item}</li>")).collect();
    section("soundness", "Seams, damage, notes", "", &format!("<ul class=\"notes\">{list}</ul>"))
}

fn chunks(report: &JobReport) -> String {
    if report.chunks.is_empty() {
        return String::new();
    }
    let open = if report.chunks.len() <= 12 { " open" } else { "" };
    let content =
        format!("<details{open}><summary>{}</summary>{}</details>", count(report.chunks.len(), "chunk"), tables::chunks(report));
    section("chunks", "Chunk by chunk", "", &content)
}
