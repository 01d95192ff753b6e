//! Encoder settings, fully pinned: the same for every chunk, whatever machine encodes it.

use super::Encoder;
use super::preset::{RungRule, VideoCodec, VideoRules};
use crate::probe::Colour;
use std::collections::BTreeMap;

/// The VBV buffer holds so many seconds of the greatest rate.
const VBV_SECONDS: u32 = 2;
/// x264's and x265's speed presets.
const X26X_SPEEDS: &[&str] =
    &["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"];
/// x265 3.5 overruns its lookahead's slices on pictures with a side under this, pixels (seen at 48x48).
const LEAST_SLICED_SIDE: u32 = 64;
/// Slowest and fastest preset of SVT-AV1 1.4.
const SVT_SPEEDS: std::ops::RangeInclusive<i32> = 0..=13;

type Options = BTreeMap<String, String>;

/// What an encoder must know of the pictures it gets.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    pub width: u32,
    pub height: u32,
    /// libavutil's name.
    pub pixel_format: &'a str,
    /// All frames last equally long.
    pub constant_rate: bool,
    /// The source's colour, when the output is HDR.
    pub hdr: Option<&'a Colour>,
}

/// Is this a speed the codec's encoder has?
///
/// # Errors
/// Says which there are.
pub fn check_speed(rules: &VideoRules) -> Result<(), String> {
    let known = match rules.codec {
        VideoCodec::Av1 => rules.speed.parse().is_ok_and(|speed: i32| SVT_SPEEDS.contains(&speed)),
        VideoCodec::H264 | VideoCodec::H265 => X26X_SPEEDS.contains(&rules.speed.as_str()),
    };
    if known {
        return Ok(());
    }
    let there_are = match rules.codec {
        VideoCodec::Av1 => format!("{} to {}", SVT_SPEEDS.start(), SVT_SPEEDS.end()),
        VideoCodec::H264 | VideoCodec::H265 => X26X_SPEEDS.join(", "),
    };
    Err(format!("video.speed: '{}' is no speed of this encoder; there are {there_are}", rules.speed))
}

/// Width and height below which the codec's encoder takes no picture (SVT-AV1 1.4, x265 3.5, x264 164).
pub fn least_size(codec: VideoCodec) -> u32 {
    match codec {
        VideoCodec::Av1 => 64,
        VideoCodec::H265 => 16,
        VideoCodec::H264 => 2,
    }
}

/// The video encoder of one rung.
pub fn video(rules: &VideoRules, goal: &RungRule, picture: &Picture) -> Encoder {
    match rules.codec {
        VideoCodec::H264 => x264(rules, goal, picture),
        VideoCodec::H265 => x265(rules, goal, picture),
        VideoCodec::Av1 => svt_av1(rules, goal, picture),
    }
}

/// AAC-LC by libavcodec's own encoder; `bit_rate` in bit/s.
pub fn aac(bit_rate: u64) -> Encoder {
    Encoder {
        library: "aac".into(),
        options: owned(&[("b", &bit_rate.to_string()), ("profile", "aac_low")]),
        restart_per_segment: false,
        reorder_frames: 0,
        sample_entry: "mp4a".into(),
    }
}

/// x265: key frames only where forced, and those IDR; bits that depend on no thread count. `pools` is left to the
/// worker: it changes no bit while `frame-threads` and `wpp` are pinned.
fn x265(rules: &VideoRules, goal: &RungRule, picture: &Picture) -> Encoder {
    let mut params = owned(&[
        ("frame-threads", "1"),
        ("wpp", "0"),
        ("open-gop", "0"),
        ("scenecut", "0"),
        ("keyint", "-1"),
        ("min-keyint", "1"),
        ("repeat-headers", "0"),
        ("info", "0"),
        ("hrd", "0"),
        ("log-level", "none"),
    ]);
    if let Some(cap) = goal.max_kbps.filter(|_| !goal.lossless) {
        params.insert("vbv-maxrate".into(), cap.to_string());
        params.insert("vbv-bufsize".into(), (cap.saturating_mul(VBV_SECONDS)).to_string());
        params.insert("vbv-init".into(), "0.9".into());
    }
    if goal.lossless {
        params.insert("lossless".into(), "1".into());
    }
    if picture.width.min(picture.height) < LEAST_SLICED_SIDE {
        params.insert("lookahead-slices".into(), "0".into());
    }
    if let Some(colour) = picture.hdr {
        params.extend(colour.mastering_display.iter().map(|text| ("master-display".into(), text.clone())));
        params.extend(colour.content_light.iter().map(|text| ("max-cll".into(), text.clone())));
    }
    let mut options = owned(&[("preset", &rules.speed), ("forced-idr", "1")]);
    rate(&mut options, goal);
    finish(rules, options, params, "x265-params", "libx265", "hvc1")
}

/// x264: as x265, and one thread, for its output depends on their number. A constant rate is declared in the SPS.
fn x264(rules: &VideoRules, goal: &RungRule, picture: &Picture) -> Encoder {
    let mut params = owned(&[
        ("threads", "1"),
        ("lookahead-threads", "1"),
        ("sliced-threads", "0"),
        ("open-gop", "0"),
        ("scenecut", "0"),
        ("keyint", "infinite"),
        ("min-keyint", "1"),
        ("nal-hrd", "none"),
        ("force-cfr", if picture.constant_rate { "1" } else { "0" }),
    ]);
    if let Some(cap) = goal.max_kbps.filter(|_| !goal.lossless) {
        params.insert("vbv-maxrate".into(), cap.to_string());
        params.insert("vbv-bufsize".into(), (cap.saturating_mul(VBV_SECONDS)).to_string());
        params.insert("vbv-init".into(), "0.9".into());
    }
    if let Some(colour) = picture.hdr {
        params.extend(colour.mastering_display.iter().map(|text| ("mastering-display".into(), text.clone())));
        params.extend(colour.content_light.iter().map(|text| ("cll".into(), text.clone())));
    }
    let mut options = owned(&[("preset", &rules.speed), ("forced-idr", "1")]);
    if goal.lossless {
        options.insert("qp".into(), "0".into());
    }
    rate(&mut options, goal);
    finish(rules, options, params, "x264-params", "libx264", "avc1")
}

/// SVT-AV1 1.4 takes no forced key frames: every segment gets a fresh encoder. Its rate control depends on `lp`.
fn svt_av1(rules: &VideoRules, goal: &RungRule, picture: &Picture) -> Encoder {
    let mut params = owned(&[("lp", "1"), ("scd", "0"), ("keyint", "-1"), ("irefresh-type", "2")]);
    if let Some(cap) = goal.max_kbps.filter(|_| goal.crf.is_some()) {
        params.insert("mbr".into(), cap.to_string());
    }
    if let Some(colour) = picture.hdr {
        let mastering = colour.mastering_display.as_deref().and_then(decimal_mastering);
        params.extend(mastering.map(|text| ("mastering-display".into(), text)));
        params.extend(colour.content_light.iter().map(|text| ("content-light".into(), text.clone())));
    }
    let mut options = owned(&[("preset", &rules.speed)]);
    rate(&mut options, goal);
    // libavcodec reads crf as a whole number, and 0 as not given.
    if let Some(crf) = goal.crf {
        options.insert("crf".into(), format!("{:.0}", crf.clamp(1.0, 63.0)));
    }
    finish(rules, options, params, "svtav1-params", "libsvtav1", "av01")
}

fn rate(options: &mut Options, goal: &RungRule) {
    if let Some(crf) = goal.crf {
        options.insert("crf".into(), crf.to_string());
    }
    if let Some(kbps) = goal.kbps {
        options.insert("b".into(), (u64::from(kbps) * 1000).to_string());
    }
}

/// Lets the preset's own parameters win and writes them all as one option.
fn finish(
    rules: &VideoRules,
    mut options: Options,
    mut params: Options,
    key: &str,
    library: &str,
    sample_entry: &str,
) -> Encoder {
    for (name, value) in &rules.params {
        // These two are options of libavcodec, not parameters of the libraries.
        let into = if matches!(name.as_str(), "tune" | "profile") { &mut options } else { &mut params };
        into.insert(name.clone(), if value.is_empty() { "1".into() } else { value.clone() });
    }
    let reorder_frames = reorder_frames(rules, &options, &params);
    let text: Vec<String> = params.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    options.insert(key.into(), text.join(":"));
    Encoder {
        library: library.into(),
        options,
        restart_per_segment: rules.codec == VideoCodec::Av1,
        reorder_frames,
        sample_entry: sample_entry.into(),
    }
}

/// Upper bound: both encoders' B-pyramids reorder by two frames, however long their runs of B-frames.
fn reorder_frames(rules: &VideoRules, options: &Options, params: &Options) -> u32 {
    let no_b_frames = match params.get("bframes") {
        Some(count) => count == "0",
        None => {
            let fast_x264 = rules.codec == VideoCodec::H264 && rules.speed == "ultrafast";
            fast_x264 || options.get("tune").is_some_and(|tune| tune.contains("zerolatency"))
        }
    };
    if rules.codec == VideoCodec::Av1 || no_b_frames { 0 } else { 2 }
}

/// A value within libavutil's `name=value:name=value`.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ':' | '\'') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// x265's whole-number notation of ST 2086 (0.00002 and 0.0001 cd/m2 units) in SVT-AV1's decimal one.
fn decimal_mastering(text: &str) -> Option<String> {
    let numbers: Vec<u64> = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let [gx, gy, bx, by, rx, ry, wx, wy, brightest, darkest] = numbers[..] else { return None };
    let xy = |x: u64, y: u64| format!("({},{})", x as f64 / 50_000.0, y as f64 / 50_000.0);
    let (brightest, darkest) = (brightest as f64 / 10_000.0, darkest as f64 / 10_000.0);
    Some(format!("G{}B{}R{}WP{}L({brightest},{darkest})", xy(gx, gy), xy(bx, by), xy(rx, ry), xy(wx, wy)))
}

fn owned(pairs: &[(&str, &str)]) -> Options {
    pairs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
}
