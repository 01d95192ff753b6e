//! What is said in rows: rungs, repairs, cost, chunks, notes.

use super::html::{clock, count, escaped, grouped, lasting, percent, rate};
use super::over_time::colour;
use super::story::{Step, Story, kbps, value_at};
use crate::cli::rows::size;
use crate::part::report::{ChunkReport, JobReport, NarrowbandReport};
use crate::plan::narrowband::allocate::Bound;
use crate::plan::narrowband::pilot::Adjustment;
use crate::plan::narrowband::repair::{RepairCause, Repairs};
use std::fmt::Write as _;

/// Of more chunks than this only the first are listed: the rest is in the report itself.
const MOST_CHUNKS: usize = 2000;
/// What a cell says where there is nothing to say.
const NOTHING: &str = "\u{2013}";

/// A table: a name, heads, and rows of cells that are HTML already; the first of each row is its head.
fn table(caption: &str, heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut html = format!(r#"<div class="scroll"><table><caption>{caption}</caption><thead><tr>"#);
    heads.iter().for_each(|head| html += &format!(r#"<th scope="col">{head}</th>"#));
    html += "</tr></thead><tbody>";
    for row in rows {
        html += "<tr>";
        for (n, cell) in row.iter().enumerate() {
            let _ = if n == 0 { write!(html, r#"<th scope="row">{cell}</th>"#) } else { write!(html, "<td>{cell}</td>") };
        }
        html += "</tr>";
    }
    html + "</tbody></table></div>"
}

fn or_nothing(value: Option<String>) -> String {
    value.unwrap_or_else(|| NOTHING.into())
}

pub(super) fn rungs(report: &JobReport) -> String {
    let decided = report.narrowband.as_ref().map(|found| &found.grounds.decision.rungs);
    let mut heads = vec!["rung", "size", "kbit/s", "peak", "bytes", "segments", "CPU", "codec"];
    if decided.is_some() {
        heads.splice(4..4, ["planned kbit/s", "planned NEG"]);
    }
    let rows = report.rungs.iter().enumerate().map(|(n, rung)| {
        let mut row = vec![
            format!(r#"<i class="swatch {}"></i>{}"#, colour(n), escaped(&rung.name)),
            format!("{}\u{d7}{}", rung.width, rung.height),
            rate(rung.kbps),
            rate(rung.peak_kbps),
            size(rung.bytes),
            grouped(rung.segments as f64, 0),
            lasting(rung.cpu_s),
            format!("<code>{}</code>", escaped(&rung.codecs)),
        ];
        if let Some(decided) = decided {
            let planned = decided.iter().find(|planned| planned.name == rung.name);
            let of = |value: fn(&crate::plan::narrowband::decide::RungDecision) -> String| or_nothing(planned.map(value));
            row.splice(4..4, [of(|p| rate(p.predicted_kbps)), of(|p| grouped(p.predicted_vmaf, 1))]);
        }
        row
    });
    let audio = report.audio.iter().map(|audio| {
        let mut row = vec![
            escaped(&audio.name).to_string(),
            format!("{} Hz, {} ch", grouped(f64::from(audio.sample_rate), 0), audio.channels),
            rate(audio.kbps),
            NOTHING.into(),
            size(audio.bytes),
            grouped(audio.segments as f64, 0),
            lasting(audio.cpu_s),
            format!("<code>{}</code>", escaped(&audio.codecs)),
        ];
        if decided.is_some() {
            row.splice(4..4, [NOTHING.into(), NOTHING.into()]);
        }
        row
    });
    table("Rates in kbit/s; the peak is that of the largest segment", &heads, rows.chain(audio))
}

pub(super) fn pilots(adjustment: &Adjustment, story: &Story) -> String {
    let heads = ["chunk", "at", "planned NEG", "measured", "planned kbit/s", "made"];
    let rows = adjustment.pilots.iter().map(|pilot| {
        vec![
            grouped(pilot.chunk as f64, 0),
            or_nothing(story.chunks.get(pilot.chunk).map(|chunk| clock(chunk.start_s))),
            grouped(pilot.planned_vmaf, 1),
            grouped(pilot.measured_vmaf, 1),
            grouped(pilot.planned_kbps, 0),
            grouped(pilot.kbps, 0),
        ]
    });
    table("Chunks whose top rung told of the others", &heads, rows)
}

pub(super) fn repairs(repairs: &Repairs, story: &Story) -> String {
    if repairs.chunks.is_empty() {
        let measured = count(repairs.measured, "chunk");
        return format!("<p class=\"none\">{measured} of the top rung measured; none was encoded once more.</p>");
    }
    let heads = ["chunk", "at", "why", "planned NEG", "measured first", "wanted", "CRF before", "CRF", "measured in the end"];
    let rows = repairs.chunks.iter().map(|repair| {
        let chunk = story.chunks.get(repair.chunk);
        let after = chunk.and_then(|chunk| story.chunk_means.iter().find(|mean| mean.start_s == chunk.start_s));
        let why = match repair.why {
            RepairCause::BelowFloor => "below the floor",
            RepairCause::Mean => "the title was off its goal",
        };
        vec![
            grouped(repair.chunk as f64, 0),
            or_nothing(chunk.map(|chunk| clock(chunk.start_s))),
            why.into(),
            grouped(repair.planned_vmaf, 1),
            grouped(repair.measured_vmaf, 1),
            grouped(repair.wanted_vmaf, 1),
            grouped(repair.crf_before, 2),
            grouped(repair.crf, 2),
            or_nothing(after.map(|mean| grouped(mean.value, 1))),
        ]
    });
    table("Chunks of the top rung that were encoded once more", &heads, rows)
}

pub(super) fn cost(found: &NarrowbandReport) -> String {
    let cost = &found.cost;
    let parts = [
        ("Ladder", cost.ladder_s),
        ("Analysis", cost.analysis_s),
        ("Calibration", cost.calibration_s),
        ("Verification", cost.verification_s),
        ("Repairs", cost.repair_s),
    ];
    let most = parts.iter().map(|(_, seconds)| *seconds).fold(f64::MIN_POSITIVE, f64::max);
    let rows = parts.iter().map(|(name, seconds)| {
        let width = seconds / most * 100.0;
        let class = if *name == "Ladder" { "ladder" } else { "extra" };
        vec![
            (*name).to_string(),
            format!(r#"<div class="inline"><i class="{class}" style="width:{width:.2}%"></i></div>"#),
            lasting(*seconds),
            or_nothing((cost.ladder_s > 0.0).then(|| percent(seconds / cost.ladder_s))),
        ]
    });
    table("CPU time of all children", &["what", "", "CPU", "of the ladder's"], rows)
}

pub(super) fn chunks(report: &JobReport) -> String {
    let names: Vec<String> = report.rungs.iter().map(|rung| escaped(&rung.name).to_string()).collect();
    let is_decided = report.narrowband.is_some();
    let mut heads = vec!["chunk", "at", "lasts", "frames", "attempt", "CPU"];
    heads.extend(names.iter().map(String::as_str));
    if is_decided {
        heads.push("NEG planned / made");
    }
    let rows = report.chunks.iter().take(MOST_CHUNKS).map(|chunk| {
        let mut row = vec![
            chunk.chunk.to_string(),
            clock(chunk.start_s),
            lasting(chunk.duration_s),
            grouped(chunk.frames as f64, 0),
            chunk.attempt.to_string(),
            lasting(chunk.cpu_s),
        ];
        row.extend(report.rungs.iter().map(|rung| of_rung(report, chunk, &rung.name)));
        if is_decided {
            row.push(top_quality(chunk));
        }
        row
    });
    let what = if is_decided { "Chunks: kbit/s made, CRF" } else { "Chunks: kbit/s made" };
    let more = report.chunks.len().saturating_sub(MOST_CHUNKS);
    let note =
        if more > 0 { format!("<p class=\"none\">{} more are in the report.</p>", count(more, "chunk")) } else { String::new() };
    table(what, &heads, rows) + &note
}

/// Rate, and CRF with what bound it.
fn of_rung(report: &JobReport, chunk: &ChunkReport, name: &str) -> String {
    let Some(rung) = chunk.rungs.iter().find(|rung| rung.name == name) else { return NOTHING.into() };
    let kbps = kbps(rung.bytes, chunk.duration_s);
    let Some(planned) = rung.planned else { return rate(kbps) };
    let decided = report.narrowband.iter().flat_map(|found| &found.grounds.decision.rungs).find(|rung| rung.name == name);
    let bound = decided.and_then(|rung| rung.chunks.get(chunk.chunk as usize)?.bound).map_or("", |bound| match bound {
        Bound::Floor => " <abbr title=\"held up by the floor\">floor</abbr>",
        Bound::Peak => " <abbr title=\"held down by the peak\">peak</abbr>",
        Bound::Range => " <abbr title=\"at the end of the encoder's or the probes' range\">range</abbr>",
    });
    format!("{} <small>{}{bound}</small>", rate(kbps), grouped(planned.crf, 2))
}

fn top_quality(chunk: &ChunkReport) -> String {
    let Some(top) = chunk.rungs.first() else { return NOTHING.into() };
    let planned = or_nothing(top.planned.map(|planned| grouped(planned.vmaf, 1)));
    let made = or_nothing(top.measured.as_ref().map(|measured| grouped(measured.vmaf_neg, 1)));
    format!("{planned} / {made}")
}

/// Sentences: of the report, of what content decided.
pub(super) fn notes(report: &JobReport) -> Vec<String> {
    let decided = report.narrowband.iter().flat_map(|found| found.notes.iter().chain(&found.grounds.decision.notes));
    let mut notes: Vec<String> = Vec::new();
    for note in report.notes.iter().chain(decided) {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    notes
}

/// What is planned of a rung at a time.
pub(super) fn crf_at(steps: &[Step], time_s: f64) -> String {
    or_nothing(value_at(steps, time_s).map(|crf| grouped(crf, 2)))
}
