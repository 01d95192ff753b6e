//! A comparison in words and in JSON.

use super::Args;
use crate::cli::exit::{Exit, Failed};
use crate::cli::rows::{Rows, plain};
use crate::quality::{Decibels, Model, Pooled, pool, pool_decibels};
use crate::sandbox::protocol::MeasureReport;
use serde::Serialize;
use std::collections::BTreeMap;

/// Of the JSON document; fields are only ever added within one.
const VERSION: u32 = 1;
/// Planes as people name them.
const PLANES: [&str; 3] = ["y", "u", "v"];

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    reference: String,
    distorted: String,
    width: u32,
    height: u32,
    bits: u8,
    /// Frames a second, `[num, den]`.
    frame_rate: crate::plan::time::Rational,
    /// Pairs of frames compared, those that were scored, and what each of the two had.
    frames: u64,
    scored: usize,
    reference_frames: u64,
    distorted_frames: u64,
    vmaf: BTreeMap<&'static str, Pooled>,
    /// Decibels; null: infinite.
    xpsnr: BTreeMap<&'static str, Decibels>,
    /// The version of the library that VMAF is by.
    libvmaf: String,
    notes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    per_frame: Option<Vec<Frame>>,
}

/// The scores of one frame.
#[derive(Serialize)]
struct Frame {
    /// Counted from the beginning of both inputs.
    frame: u64,
    vmaf: BTreeMap<&'static str, f64>,
    /// Decibels; null: infinite.
    xpsnr: BTreeMap<&'static str, Option<f64>>,
}

/// # Errors
/// Internal: it cannot be written as JSON.
pub(super) fn json(args: &Args, report: &MeasureReport) -> Result<String, Failed> {
    let document = Document {
        version: VERSION,
        reference: args.reference.display().to_string(),
        distorted: args.distorted.display().to_string(),
        width: report.format.width,
        height: report.format.height,
        bits: report.format.bits,
        frame_rate: report.frame_rate,
        frames: report.frames,
        scored: report.xpsnr.len(),
        reference_frames: report.reference_frames,
        distorted_frames: report.distorted_frames,
        vmaf: report.vmaf.iter().filter_map(|(model, scores)| Some((model.name(), pool(scores)?))).collect(),
        xpsnr: PLANES.into_iter().enumerate().filter_map(|(n, name)| Some((name, pool_decibels(&report.xpsnr, n)?))).collect(),
        libvmaf: crate::quality::vmaf::version(),
        notes: &report.notes,
        per_frame: args.frames.then(|| frames(args, report)),
    };
    Ok(serde_json::to_string_pretty(&document).map_err(|e| Exit::Internal.because(e))? + "\n")
}

fn frames(args: &Args, report: &MeasureReport) -> Vec<Frame> {
    let of = |(n, errors): (usize, &crate::quality::FrameError)| Frame {
        frame: args.start + n as u64 * u64::from(args.subsample),
        vmaf: report.vmaf.iter().filter_map(|(model, scores)| Some((model.name(), *scores.get(n)?))).collect(),
        xpsnr: PLANES.into_iter().zip(errors.decibels()).collect(),
    };
    report.xpsnr.iter().enumerate().map(of).collect()
}

/// For people.
pub(super) fn text(args: &Args, report: &MeasureReport) -> String {
    let format = report.format;
    let scored = if args.subsample > 1 { format!(" ({} scored)", report.xpsnr.len()) } else { String::new() };
    let mut text = format!(
        "{}: {} frames{scored} at {}x{}, {} bits, against {}\n",
        plain(&args.distorted.display().to_string()),
        report.frames,
        format.width,
        format.height,
        format.bits,
        plain(&args.reference.display().to_string())
    );
    if args.frames {
        text += &frame_table(args, report);
    }
    text += &pooled_table(report);
    report.notes.iter().for_each(|note| text += &format!("note: {}\n", plain(note)));
    text
}

fn pooled_table(report: &MeasureReport) -> String {
    let mut rows = Rows::new(["score", "mean", "harmonic", "p5", "min"], 1);
    for (model, scores) in &report.vmaf {
        let Some(Pooled { mean, harmonic, p5, min }) = pool(scores) else { continue };
        let [mean, harmonic, p5, min] = [mean, harmonic, p5, min].map(|score| format!("{score:.2}"));
        rows.push([title(*model).into(), mean, harmonic, p5, min]);
    }
    for (n, name) in PLANES.into_iter().enumerate() {
        let Some(Decibels { mean, p5, min }) = pool_decibels(&report.xpsnr, n) else { continue };
        let [mean, p5, min] = [mean, p5, min].map(decibels);
        rows.push([format!("XPSNR {} dB", name.to_uppercase()), mean, "-".into(), p5, min]);
    }
    rows.table()
}

fn frame_table(args: &Args, report: &MeasureReport) -> String {
    let mut rows = Rows::new(["frame", "neg", "v1", "Y dB", "U dB", "V dB"], 0);
    for frame in frames(args, report) {
        let vmaf = |model: Model| frame.vmaf.get(model.name()).map_or("-".into(), |score| format!("{score:.2}"));
        let [y, u, v] = PLANES.map(|name| frame.xpsnr.get(name).map_or("-".into(), |value| decibels(*value)));
        rows.push([frame.frame.to_string(), vmaf(Model::Neg), vmaf(Model::V1), y, u, v]);
    }
    rows.table()
}

fn title(model: Model) -> &'static str {
    match model {
        Model::Neg => "VMAF NEG 0.6.1",
        Model::V1 => "VMAF v1 1.0.16",
    }
}

fn decibels(value: Option<f64>) -> String {
    value.map_or("inf".into(), |value| format!("{value:.2}"))
}
