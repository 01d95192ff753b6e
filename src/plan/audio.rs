//! The audio renditions: every audio stream of the source in every quality of the preset.

use super::AudioPlan;
use super::encoder;
use super::preset::{AudioRule, AudioRules, Channels};
use super::time::{Rational, mul_div_round, rescale};
use crate::probe::AudioStream;
use std::collections::BTreeSet;

/// Sample rates of AAC (ISO/IEC 14496-3 table 1.18) that libavcodec's encoder takes, Hz.
const SAMPLE_RATES: &[u32] = &[96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000];
/// The rate of a rendition whose source has none of these, Hz.
const USUAL_RATE: u32 = 48_000;
/// Bits of one AAC frame a channel, at most (ISO/IEC 14496-3 4.5.3), and samples of one frame.
const MOST_FRAME_BITS: u64 = 6144;
const FRAME_SAMPLES: u64 = 1024;
/// Bounds of a rendition's bit rate, bit/s.
const BIT_RATES: (u64, u64) = (32_000, 512_000);
/// Segment starts closer than this to the one before are left out, milliseconds: an AAC frame must fit in.
const LEAST_SEGMENT_MS: i64 = 500;

/// Where time zero is, and where segments start: the video's instants, or none.
pub struct Timing {
    /// Time zero, ticks of `base`.
    pub origin: i64,
    pub base: Rational,
    /// Segment starts, ticks of `base`. Empty: a segment every `segment_s` seconds.
    pub segments: Vec<i64>,
    pub segment_s: f64,
    /// Length of the title when no stream says its own end, seconds.
    pub assumed_s: f64,
}

/// The renditions, group by group, and notes.
pub fn renditions(streams: &[AudioStream], rules: &AudioRules, timing: &Timing) -> (Vec<AudioPlan>, Vec<String>) {
    let mut notes = Vec::new();
    let heard: Vec<(usize, &AudioStream)> = streams.iter().enumerate().filter(|(_, s)| is_heard(s, timing)).collect();
    for silent in streams.iter().filter(|s| !is_heard(s, timing)) {
        notes.push(format!("audio stream {} ends before the picture begins: it is left out", silent.index));
    }
    let labels = labels(&heard);
    let default = heard.iter().position(|(_, stream)| stream.default).unwrap_or(0);
    let mut all: Vec<AudioPlan> = Vec::new();
    let mut groups: BTreeSet<String> = BTreeSet::new();
    let mut made: Vec<Vec<(String, u64)>> = Vec::new();
    for rule in &rules.renditions {
        let outputs: Vec<Output> = heard.iter().map(|(_, stream)| Output::of(stream, rule)).collect();
        let facts: Vec<(String, u64)> = outputs.iter().map(|o| (o.layout.to_string(), o.bit_rate)).collect();
        if made.contains(&facts) {
            continue;
        }
        made.push(facts);
        let again = (2..).map(|n| format!("-{n}"));
        let suffix = std::iter::once(String::new()).chain(again).find(|s| !groups.contains(&group(rule, s))).unwrap_or_default();
        groups.insert(group(rule, &suffix));
        for (n, ((ordinal, stream), output)) in heard.iter().zip(outputs).enumerate() {
            let mut plan = rendition(stream, output, timing);
            plan.name = format!("audio-{ordinal}-{}k{suffix}", rule.kbps);
            plan.group = group(rule, &suffix);
            plan.label.clone_from(&labels[n]);
            plan.default = n == default;
            all.push(plan);
        }
    }
    for (_, stream) in &heard {
        notes.extend(rules.renditions.iter().find_map(|rule| Output::of(stream, rule).note));
    }
    (all, notes)
}

fn group(rule: &AudioRule, suffix: &str) -> String {
    format!("audio-{}k{suffix}", rule.kbps)
}

/// The stream has sound at or after time zero.
fn is_heard(stream: &AudioStream, timing: &Timing) -> bool {
    stream.end_pts.is_none_or(|end| end > rescale(timing.origin, timing.base, stream.time_base))
}

fn rendition(stream: &AudioStream, output: Output, timing: &Timing) -> AudioPlan {
    let samples = Rational::new(1, i64::from(output.sample_rate));
    let origin = rescale(timing.origin, timing.base, stream.time_base);
    let expected = stream.end_pts.map(|end| rescale(end - origin, stream.time_base, samples));
    let segments = match timing.segments.is_empty() {
        false => spaced(timing.segments.iter().map(|at| rescale(at - timing.origin, timing.base, samples)), output.sample_rate),
        true => {
            let assumed = (timing.assumed_s * f64::from(output.sample_rate)) as i64;
            every(timing.segment_s, output.sample_rate, expected.unwrap_or(assumed))
        }
    };
    AudioPlan {
        name: String::new(),
        stream: stream.index,
        source_base: stream.time_base,
        origin,
        encoder: encoder::aac(output.bit_rate),
        bit_rate: output.bit_rate,
        sample_rate: output.sample_rate,
        channels: output.channels,
        layout: output.layout.into(),
        language: language(stream).map(str::to_string),
        label: String::new(),
        default: false,
        group: String::new(),
        segments,
        expected_samples: expected,
    }
}

/// Starts at least [`LEAST_SEGMENT_MS`] apart, the first 0.
fn spaced(starts: impl Iterator<Item = i64>, sample_rate: u32) -> Vec<i64> {
    let least = i64::from(sample_rate) * LEAST_SEGMENT_MS / 1000;
    let mut kept = vec![0];
    for start in starts {
        if start - kept[kept.len() - 1] >= least {
            kept.push(start);
        }
    }
    kept
}

/// A start every `segment_s` seconds; the last segment takes what is less than half of one.
fn every(segment_s: f64, sample_rate: u32, samples: i64) -> Vec<i64> {
    let segment = ((segment_s * f64::from(sample_rate)).round() as i64).max(1);
    (0..mul_div_round(samples.max(0), 1, segment).max(1)).map(|n| n * segment).collect()
}

/// What a stream becomes in one quality.
struct Output {
    layout: &'static str,
    channels: u32,
    sample_rate: u32,
    bit_rate: u64,
    note: Option<String>,
}

impl Output {
    fn of(stream: &AudioStream, rule: &AudioRule) -> Self {
        let (layout, channels) = match (rule.channels, stream.channels) {
            (_, 0 | 1) => ("mono", 1),
            (Channels::Stereo, _) => ("stereo", 2),
            (Channels::Keep, _) => kept_layout(stream),
        };
        let sample_rate = if SAMPLE_RATES.contains(&stream.sample_rate) { stream.sample_rate } else { USUAL_RATE };
        let most = (MOST_FRAME_BITS * u64::from(channels) * u64::from(sample_rate) / FRAME_SAMPLES).min(BIT_RATES.1);
        let wanted = u64::from(rule.kbps) * 1000 * u64::from(channels) / 2;
        let plain = stream.layout.split('(').next().unwrap_or_default();
        let changed = rule.channels == Channels::Keep && stream.channels > 2 && plain != layout;
        let note = changed.then(|| format!("audio stream {}: {} becomes {layout}", stream.index, stream.layout));
        Self { layout, channels, sample_rate, bit_rate: wanted.max(BIT_RATES.0).min(most), note }
    }
}

/// The layout of AAC's own channel configurations that holds a source's channels, up to 7.1.
fn kept_layout(stream: &AudioStream) -> (&'static str, u32) {
    match (stream.channels, stream.layout.as_str()) {
        (..=2, _) => ("stereo", 2),
        (3, "3.0") => ("3.0", 3),
        // Left, right and LFE or one rear channel: no configuration holds them.
        (3, _) => ("stereo", 2),
        (4, "4.0") => ("4.0", 4),
        // Quadraphonic sound keeps its rear pair; the centre stays silent.
        (4, "quad" | "quad(side)") => ("5.0", 5),
        (4, "3.1") => ("5.1", 6),
        (4, _) => ("stereo", 2),
        (5, "4.1") => ("5.1", 6),
        (5, _) => ("5.0", 5),
        (6, _) => ("5.1", 6),
        (7.., _) => ("7.1", 8),
    }
}

fn language(stream: &AudioStream) -> Option<&str> {
    stream.language.as_deref().filter(|language| !language.is_empty() && *language != "und")
}

/// What a viewer reads: the title, else the language, else a number; no two alike.
fn labels(streams: &[(usize, &AudioStream)]) -> Vec<String> {
    let mut labels: Vec<String> = Vec::with_capacity(streams.len());
    for (ordinal, stream) in streams {
        let title = stream.title.as_deref().map(str::trim).filter(|title| !title.is_empty());
        let label = match (title, language(stream)) {
            (Some(title), _) => title.to_string(),
            (None, Some(code)) => language_name(code).map_or_else(|| code.to_string(), str::to_string),
            (None, None) => format!("Audio {}", ordinal + 1),
        };
        let again = (2..).map(|n| format!("{label} {n}"));
        let free = std::iter::once(label.clone()).chain(again).find(|label| !labels.contains(label));
        labels.push(free.expect("one of endless labels is free"));
    }
    labels
}

/// English names of the languages most often met (ISO 639-2, both codes where there are two).
fn language_name(code: &str) -> Option<&'static str> {
    Some(match code {
        "ara" => "Arabic",
        "ces" | "cze" => "Czech",
        "chi" | "zho" => "Chinese",
        "dan" => "Danish",
        "deu" | "ger" => "German",
        "dut" | "nld" => "Dutch",
        "ell" | "gre" => "Greek",
        "eng" => "English",
        "fin" => "Finnish",
        "fra" | "fre" => "French",
        "heb" => "Hebrew",
        "hin" => "Hindi",
        "hun" => "Hungarian",
        "ind" => "Indonesian",
        "ita" => "Italian",
        "jpn" => "Japanese",
        "kor" => "Korean",
        "nor" | "nob" => "Norwegian",
        "pol" => "Polish",
        "por" => "Portuguese",
        "ron" | "rum" => "Romanian",
        "rus" => "Russian",
        "spa" => "Spanish",
        "swe" => "Swedish",
        "tha" => "Thai",
        "tur" => "Turkish",
        "ukr" => "Ukrainian",
        "vie" => "Vietnamese",
        _ => return None,
    })
}
