//! Encoder settings, fully pinned: the same for every chunk, whatever machine encodes it.

use super::Encoder;
use super::preset::{RungRule, VideoCodec, VideoRules};
use crate::probe::{Colour, DynamicRange};
use std::collections::BTreeMap;

/// The VBV buffer holds so many seconds of the greatest rate,
const VBV_SECONDS: u32 = 2;
/// and of a quality that is merely capped as many as a segment lasts: its key picture alone may be a second of a still scene's
/// rate, and an encoder whose buffer is near its end coarsens what follows (a title of three rungs at 540p and 60 to 230 kbit/s
/// lost 1.8 % by 2 s, and nothing by 4).
const CAPPED_VBV_SECONDS: u32 = 4;
/// But not beyond what the smallest pictures that are made so may buffer (H.265 table A.8, level 2): larger ones gain little. kbit.
const MOST_CAPPED_VBV_KBIT: u32 = 1500;
/// x264's and x265's speed presets.
const X26X_SPEEDS: &[&str] =
    &["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"];
/// Slowest and fastest preset of SVT-AV1 1.4.
const SVT_SPEEDS: std::ops::RangeInclusive<i32> = 0..=13;

type Options = BTreeMap<String, String>;

/// What an encoder must know of the pictures it gets.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
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

/// The rules of encoders whose CRF differs between the chunks of one rung: their parameter sets must not say so.
///
/// x264 writes its CRF into the PPS as the initial QP, unless it is told that what it makes will be joined with other
/// streams; x265 3.5 always writes 26.
pub fn for_any_crf(rules: &VideoRules) -> VideoRules {
    let mut rules = rules.clone();
    if rules.codec == VideoCodec::H264 {
        rules.params.entry("stitchable".into()).or_insert("1".into());
    }
    rules
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
        first_picture_qp_tenths: 0,
        sample_entry: "mp4a".into(),
    }
}

/// x265: key frames only where forced, and those IDR; bits that depend on no thread count. `pools` is left to the
/// worker: it changes no bit while `frame-threads`, `wpp` and `lookahead-slices` are pinned. (With slices in the
/// lookahead, x265 3.5 gives other bits without a pool than with one, and overruns pictures of about 48x48.)
fn x265(rules: &VideoRules, goal: &RungRule, picture: &Picture) -> Encoder {
    let mut params = owned(&[
        ("frame-threads", "1"),
        ("wpp", "0"),
        ("lookahead-slices", "0"),
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
        cap_rate(&mut params, cap, goal);
    }
    if goal.lossless {
        params.insert("lossless".into(), "1".into());
    }
    if let Some(colour) = picture.hdr {
        params.extend(colour.mastering_display.iter().map(|text| ("master-display".into(), text.clone())));
        params.extend(colour.content_light.iter().map(|text| ("max-cll".into(), text.clone())));
        if colour.dynamic_range == DynamicRange::Pq && picture.pixel_format == "yuv420p10le" && !goal.lossless {
            params.insert("hdr10-opt".into(), "1".into());
        }
    }
    let mut options = owned(&[("preset", &rules.speed), ("forced-idr", "1")]);
    rate(&mut options, goal);
    finish(rules, goal, options, params, "x265-params", "libx265", "hvc1")
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
        cap_rate(&mut params, cap, goal);
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
    finish(rules, goal, options, params, "x264-params", "libx264", "avc1")
}

/// The greatest rate, kbit/s, over a VBV that begins nearly full.
fn cap_rate(params: &mut Options, cap: u32, goal: &RungRule) {
    let buffer = cap.saturating_mul(VBV_SECONDS);
    let capped = cap.saturating_mul(CAPPED_VBV_SECONDS).min(MOST_CAPPED_VBV_KBIT);
    let buffer = if goal.kbps.is_none() { buffer.max(capped) } else { buffer };
    params.insert("vbv-maxrate".into(), cap.to_string());
    params.insert("vbv-bufsize".into(), buffer.to_string());
    params.insert("vbv-init".into(), "0.9".into());
}

/// SVT-AV1 1.4 takes no forced key frames: every segment gets a fresh encoder. Its rate control depends on `lp`.
fn svt_av1(rules: &VideoRules, goal: &RungRule, picture: &Picture) -> Encoder {
    // No key frame but the first; a mean rate wants a finite distance, one that no segment reaches.
    let keyint = if goal.kbps.is_some() { "9999" } else { "-1" };
    let mut params = owned(&[("lp", "1"), ("scd", "0"), ("keyint", keyint), ("irefresh-type", "2")]);
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
    finish(rules, goal, options, params, "svtav1-params", "libsvtav1", "av01")
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
    goal: &RungRule,
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
    let first_picture_qp_tenths = first_picture_qp_tenths(rules, goal);
    let text: Vec<String> = params.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    options.insert(key.into(), text.join(":"));
    Encoder {
        library: library.into(),
        options,
        restart_per_segment: rules.codec == VideoCodec::Av1,
        reorder_frames,
        first_picture_qp_tenths,
        sample_entry: sample_entry.into(),
    }
}

/// What the first picture of a chunk lacks beside one amid an encode, tenths of a step of the quantiser.
///
/// With their tree of macroblocks (or coding units) at work, both encoders make a key picture better than the pictures around it by
/// `ipratio` (1.4: 2.9 steps), but not the first one they are given: whoever cuts gets a poor key picture at every cut. Beside one
/// amid an encode x264 164 lacks just that, at every speed and with and without B-pictures; x265 3.5 lacks less than half of it, 1.0 to
/// 1.5 steps with B-pictures, and all of it with none. Without the tree it depends on the pictures, and nothing is said.
fn first_picture_qp_tenths(rules: &VideoRules, goal: &RungRule) -> i32 {
    /// Steps of the quantiser that double its scale (H.264 8.5.9, H.265 8.6.1).
    const STEPS: f64 = 6.0;
    const DEFAULT_RATIO: f64 = 1.4;
    let (lacks, without_tree) = match rules.codec {
        VideoCodec::H264 => (1.0, ["mbtree", "no-mbtree"]),
        VideoCodec::H265 if rules.params.get("bframes").is_some_and(|most| most == "0") => (1.0, ["cutree", "no-cutree"]),
        VideoCodec::H265 => (0.42, ["cutree", "no-cutree"]),
        VideoCodec::Av1 => return 0,
    };
    // The fastest presets of both leave it off.
    let has_no_tree = ["ultrafast", "superfast"].contains(&rules.speed.as_str())
        || without_tree.into_iter().any(|word| rules.params.contains_key(word));
    let is_tuned = |tune: &String| ["grain", "psnr", "zerolatency"].iter().any(|word| tune.contains(word));
    // What content decides has no CRF before; a mean rate goes its own way.
    let is_as_known = goal.kbps.is_none() && !goal.lossless && !rules.params.get("tune").is_some_and(is_tuned);
    // Who has zones in mind has them.
    if !is_as_known || rules.params.contains_key("zones") || has_no_tree {
        return 0;
    }
    let ratio = rules.params.get("ipratio").and_then(|ratio| ratio.parse().ok()).unwrap_or(DEFAULT_RATIO).max(1.0);
    -(10.0 * STEPS * lacks * ratio.log2()).round() as i32
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::preset::Preset;

    fn made(preset: &str, params: &[(&str, &str)]) -> Encoder {
        made_by(preset, |rules| rules.params = owned(params))
    }

    fn made_by(preset: &str, set: impl FnOnce(&mut VideoRules)) -> Encoder {
        let mut rules = Preset::built_in(preset, &BTreeMap::new()).unwrap().video.unwrap();
        set(&mut rules);
        let goal = rules.rungs[0].clone();
        video(&rules, &goal, &Picture { pixel_format: "yuv420p", constant_rate: true, hdr: None })
    }

    #[test]
    fn the_presets_own_parameters_win_and_are_escaped() {
        let encoder = made("h264", &[("deblock", "1:-1"), ("no-psy", ""), ("threads", "3"), ("tune", "film")]);
        let params = &encoder.options["x264-params"];
        assert!(params.contains("deblock=1\\:-1:") && params.contains("no-psy=1:") && params.contains("threads=3"), "{params}");
        assert!(!params.contains("tune") && encoder.options["tune"] == "film");
    }

    #[test]
    fn frames_are_reordered_only_where_there_are_b_frames() {
        assert_eq!(made("h265", &[]).reorder_frames, 2);
        assert_eq!(made("h265", &[("bframes", "0")]).reorder_frames, 0);
        assert_eq!(made("h264", &[("tune", "zerolatency")]).reorder_frames, 0);
        assert_eq!(made("mezzanine", &[]).reorder_frames, 0, "x264 ultrafast has none");
        assert_eq!(made("mezzanine", &[("bframes", "3")]).reorder_frames, 2);
        assert_eq!(made("av1", &[]).reorder_frames, 0);
    }

    #[test]
    fn a_chunks_first_picture_is_raised_where_the_encoder_would_leave_it_poor() {
        let tenths = |preset: &str, params: &[(&str, &str)]| made(preset, params).first_picture_qp_tenths;
        assert_eq!((tenths("h264", &[]), tenths("h265", &[]), tenths("av1", &[])), (-29, -12, 0));
        assert_eq!((tenths("h264", &[("ipratio", "1.1")]), tenths("h265", &[("ipratio", "1")])), (-8, 0));
        assert_eq!(tenths("h265", &[("bframes", "0")]), -29);
        assert_eq!((tenths("h264", &[("no-mbtree", "")]), tenths("h265", &[("cutree", "0")])), (0, 0));
        for (preset, speed) in [("h264", "ultrafast"), ("h264", "superfast"), ("h265", "ultrafast"), ("h265", "superfast")] {
            assert_eq!(made_by(preset, |rules| rules.speed = speed.into()).first_picture_qp_tenths, 0, "{preset} {speed}");
        }
        assert_eq!(tenths("h264", &[("aq-mode", "0")]), -29, "the tree goes without adaptive quantisation");
        assert_eq!((tenths("h264", &[("zones", "0,9,b=2")]), tenths("h264", &[("tune", "grain")])), (0, 0));
        assert_eq!(tenths("mezzanine", &[]), 0, "x264 ultrafast has neither");
        assert_eq!(tenths("h264", &[("tune", "film")]), -29);
    }

    #[test]
    fn mastering_data_is_written_in_svt_av1s_notation() {
        let x265 = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)";
        let svt = "G(0.265,0.69)B(0.15,0.06)R(0.68,0.32)WP(0.3127,0.329)L(1000,0.005)";
        assert_eq!(decimal_mastering(x265).as_deref(), Some(svt));
        assert_eq!(decimal_mastering("G(1,2)"), None);
    }
}
