//! The same ladder by the encoders of a device: what a preset names as its equivalent in each class.
//!
//! Pictures, sizes, chunks and segments are those of the plan; only the encoders differ. So a job can begin on a device and
//! start over in software, and nothing but its encoded chunks is made again.

use super::ladder;
use super::make::{PlanError, reorder_delay};
use super::preset::{Preset, RungRule, VideoCodec, VideoRules};
use super::{DeviceRungs, Encoder, Plan, Rung, VideoPlan};
use crate::job::Class;
use crate::probe::Probe;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The quality scales of all these encoders are those of H.264 and H.265: QP, 0 to 51; 0 is "not given" to some.
const QUALITIES: std::ops::RangeInclusive<f64> = 1.0..=51.0;
/// As for software encoders, the buffer holds so many seconds of the greatest rate.
const BUFFER_SECONDS: u64 = 2;
/// Most frames by which B-pictures in a pyramid are reordered.
const MOST_REORDERED: u32 = 2;
/// A stand-in marks what it makes by this level, which no ladder of ours needs: it can be told from a software encode.
const STAND_IN_LEVEL: &str = "6.2";

/// What stands for a preset's software encoder in one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Equivalent {
    /// libavcodec's name: `hevc_nvenc`.
    pub encoder: String,
    /// The option that takes a rung's `crf`, and what is added to it: scales are alike, and not the same.
    pub quality: String,
    #[serde(default)]
    pub quality_offset: f64,
    /// Does the encoder keep to a rung's `max_kbps` while it encodes by quality?
    #[serde(default)]
    pub capped: bool,
    /// libavcodec's options, by its names.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl Equivalent {
    /// The encoder of one rung.
    pub fn encoder(&self, codec: VideoCodec, goal: &RungRule) -> Encoder {
        let mut options = self.options.clone();
        if let Some(crf) = goal.crf {
            let quality = (crf + self.quality_offset).round().clamp(*QUALITIES.start(), *QUALITIES.end());
            options.insert(self.quality.clone(), quality.to_string());
        }
        if let Some(kbps) = goal.kbps {
            options.insert("b".into(), (u64::from(kbps) * 1000).to_string());
        }
        if let Some(cap) = goal.max_kbps.map(u64::from).filter(|_| self.capped) {
            options.insert("maxrate".into(), (cap * 1000).to_string());
            options.insert("bufsize".into(), (cap * 1000 * BUFFER_SECONDS).to_string());
        }
        let reorder_frames =
            options.get("bf").and_then(|count| count.parse().ok()).map_or(MOST_REORDERED, |count: u32| count.min(MOST_REORDERED));
        Encoder {
            library: self.encoder.clone(),
            options,
            restart_per_segment: false,
            reorder_frames,
            first_picture_qp_tenths: 0,
            sample_entry: if codec == VideoCodec::H264 { "avc1" } else { "hvc1" }.into(),
        }
    }
}

/// Do the equivalents fit the rest of the preset?
///
/// # Errors
/// The field, and what is wrong with it.
pub(super) fn check(rules: &VideoRules) -> Result<(), (String, String)> {
    for (class, equivalent) in &rules.equivalents {
        let path = format!("video.equivalents.{class}");
        let reason = if !class.is_device() {
            "software encoders are what the preset itself names"
        } else if rules.codec == VideoCodec::Av1 {
            "only h264 and h265 have equivalents"
        } else if rules.pixels != super::preset::PixelRule::Delivery {
            "encoders of devices take 4:2:0 alone; leave out video.pixels"
        } else if rules.rungs.iter().any(|rung| rung.lossless) {
            "no encoder of a device is lossless"
        } else if equivalent.encoder.is_empty() || equivalent.quality.is_empty() {
            "name the encoder, and the option that takes its quality"
        } else {
            continue;
        };
        return Err((path, reason.into()));
    }
    Ok(())
}

/// What a device takes of such a picture.
fn pixel_format(of: &str, codec: VideoCodec) -> Option<&'static str> {
    match (of, codec) {
        ("yuv420p", _) => Some("nv12"),
        ("yuv420p10le", VideoCodec::H265) => Some("p010le"),
        _ => None,
    }
}

/// The plan with the rungs of a class beside its own.
///
/// # Errors
/// Plan and preset do not belong together, or the class takes no such picture.
pub fn on_device(plan: Plan, probe: &Probe, preset: &Preset, class: Class) -> Result<Plan, PlanError> {
    let Some(video) = &plan.video else { return Ok(plan) };
    let foreign = || PlanError::Preset(format!("preset {} has no equivalent of class {class}", preset.name));
    let rules = preset.video.as_ref().ok_or_else(foreign)?;
    let equivalent = rules.equivalents.get(&class).ok_or_else(foreign)?;
    let stream = probe.video.iter().find(|stream| stream.index == video.stream).ok_or_else(foreign)?;
    let goals = ladder::ladder(stream, rules).goals;
    let rung = |(rung, goal): (&Rung, &RungRule)| {
        let refused = || PlanError::Preset(format!("no encoder of class {class} takes pictures of {}", rung.pixel_format));
        let pixel_format = pixel_format(&rung.pixel_format, rules.codec).ok_or_else(refused)?.into();
        Ok(Rung { pixel_format, encoder: equivalent.encoder(rules.codec, goal), ..rung.clone() })
    };
    let rungs = video.rungs.iter().zip(&goals).map(rung).collect::<Result<Vec<_>, PlanError>>()?;
    let all: Vec<&Rung> = video.rungs.iter().chain(&rungs).collect();
    // One delay for both: whichever encodes, the edit of the init segment fits.
    let delay = reorder_delay(stream, &all, video.frame_duration, video.ticks_per_tick);
    let video = VideoPlan { reorder_delay: delay, device: Some(DeviceRungs { class, rungs }), ..video.clone() };
    Ok(Plan { video: Some(video), ..plan })
}

/// The software encoders of a plan, marked as a stand-in's.
pub fn stand_in(software: &[Rung]) -> Vec<Rung> {
    let marked = |rung: &Rung| {
        let mut rung = rung.clone();
        for (params, level) in [("x264-params", "level"), ("x265-params", "level-idc")] {
            if let Some(text) = rung.encoder.options.get_mut(params) {
                *text = format!("{text}:{level}={STAND_IN_LEVEL}");
            }
        }
        rung
    };
    software.iter().map(marked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::make::tests::{job, picture, source, stereo};

    fn preset(name: &str) -> Preset {
        Preset::built_in(name, &BTreeMap::new()).unwrap()
    }

    #[test]
    fn a_device_makes_the_same_ladder_by_its_own_encoder() {
        let (preset, probe) = (preset("h265"), source(vec![picture()], stereo()));
        let plan = crate::plan::make(&job(), &probe, &preset).unwrap();
        let both = on_device(plan.clone(), &probe, &preset, Class::Nvenc).unwrap();
        let (own, made) = (plan.video.as_ref().unwrap(), both.in_class(Class::Nvenc).video.unwrap());
        assert_eq!(made.rungs.len(), own.rungs.len());
        for (rung, software) in made.rungs.iter().zip(&own.rungs) {
            assert_eq!((&rung.name, rung.width, rung.height), (&software.name, software.width, software.height));
            assert_eq!((rung.encoder.library.as_str(), rung.pixel_format.as_str()), ("hevc_nvenc", "nv12"));
            assert!(rung.encoder.options["maxrate"].parse::<u64>().unwrap() > 0);
        }
        assert_eq!((made.chunks, made.timescale), (own.chunks.clone(), own.timescale));
        assert_eq!(both.in_class(Class::Cpu).video.unwrap().rungs, own.rungs, "the fall-back is the plan itself");
        assert!(on_device(plan, &probe, &preset, Class::Cpu).is_err());
    }

    #[test]
    fn qualities_are_whole_and_within_the_scale() {
        let equivalent = preset("h264").video.unwrap().equivalents[&Class::Vaapi].clone();
        let goal = |crf| RungRule { height: None, crf: Some(crf), kbps: None, max_kbps: Some(900), lossless: false };
        let of = |crf| equivalent.encoder(VideoCodec::H264, &goal(crf)).options[&equivalent.quality].clone();
        assert_eq!(
            (of(-9.0), of(22.4), of(60.0)),
            ("1".into(), (22.4 + equivalent.quality_offset).round().to_string(), "51".into())
        );
        let capped = |capped| Equivalent { capped, ..equivalent.clone() }.encoder(VideoCodec::H264, &goal(20.0));
        assert_eq!(capped(true).options["maxrate"], "900000");
        assert!(!capped(false).options.contains_key("maxrate"));
    }

    #[test]
    fn what_no_device_can_do_is_no_preset() {
        let path = |preset: &str, field: &str, value: serde_json::Value| {
            Preset::built_in(preset, &BTreeMap::from([(field.to_string(), value)])).unwrap_err().path
        };
        let nvenc = serde_json::json!({ "encoder": "hevc_nvenc", "quality": "cq" });
        assert_eq!(path("mezzanine", "video.equivalents.nvenc", nvenc.clone()), "video.equivalents.nvenc");
        assert_eq!(path("av1", "video.equivalents.qsv", nvenc.clone()), "video.equivalents.qsv");
        assert_eq!(path("h265", "video.equivalents.cpu", nvenc.clone()), "video.equivalents.cpu");
        assert_eq!(path("narrowband-h265", "video.equivalents.nvenc", nvenc), "video.equivalents");
        assert!(path("h265", "video.equivalents.cuda", serde_json::json!({})).starts_with("video.equivalents"));
    }

    #[test]
    fn what_a_stand_in_makes_can_be_told_from_a_software_encode() {
        let plan = crate::plan::make(&job(), &source(vec![picture()], stereo()), &preset("h264")).unwrap();
        let rungs = stand_in(&plan.video.unwrap().rungs);
        assert!(rungs.iter().all(|rung| rung.encoder.options["x264-params"].ends_with(":level=6.2")));
    }
}
