//! The section `[narrowband]` of a preset: content decides rungs and qualities, by these rules.

use super::super::Enhance;
use super::super::encoder;
use super::super::preset::{PixelRule, VideoCodec, VideoRules};
use super::allocate::check_range;
use super::grid::GridRules;
use super::rules::Rules;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Short sides of a probe, pixels: libvmaf judges no picture under 64, and a probe above 1080 is no probe.
const SHORT_SIDES: std::ops::RangeInclusive<u32> = 64..=1080;
/// Pictures between two scored ones, at most.
const MOST_PASSED_OVER: u32 = 100;
/// Two probes nearer than this say little of the slope between them, CRF.
const LEAST_SPAN_CRF: f64 = 4.0;
/// With little effort a chunk is taken to go on as it begins: to decode a source and to probe it costs a twelfth of what a
/// ladder does, and half of that is too much.
const TURBO_STUDIED_S: f64 = 1.6;
/// Segments outside these are no segments to a player, seconds.
const SHORTEST_SEGMENT_S: f64 = 0.5;
const LONGEST_SEGMENT_S: f64 = 12.0;

/// How content decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NarrowbandRules {
    #[serde(default)]
    pub effort: Effort,
    pub probe: ProbeRules,
    #[serde(default)]
    pub grid: GridRules,
    #[serde(default)]
    pub decision: Rules,
    /// Pictures are made to look better than they were; absent: they are encoded as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enhance: Option<EnhanceRules>,
}

/// What may be done to pictures. All of it costs VMAF-NEG, which is measured beside the source as it was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnhanceRules {
    /// Noise is taken out of titles whose median chunk has more, standard deviation in steps of 8 bits.
    pub denoise_above: f64,
    pub deband: bool,
    /// How much of the detail is put on top, 0 to 1.
    pub sharpen: f64,
}

impl Default for EnhanceRules {
    /// Under a standard deviation of two, noise is not seen at the distance that VMAF supposes.
    fn default() -> Self {
        Self { denoise_above: 2.0, deband: true, sharpen: 0.2 }
    }
}

/// No stronger denoising: beyond, texture goes with the noise.
const MOST_DENOISED: f64 = 6.0;
/// An error beyond this, CRF, would leave no title a difference.
const MOST_DOUBT_CRF: f64 = 10.0;

impl EnhanceRules {
    /// What is done to a title whose chunks have this noise.
    pub fn for_noise(&self, noises: &[f64]) -> Option<Enhance> {
        let mut sorted: Vec<f64> = noises.iter().copied().filter(|noise| noise.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let noise = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
        let denoise = if noise > self.denoise_above { noise.min(MOST_DENOISED) } else { 0.0 };
        let enhance = Enhance { denoise, deband: self.deband, sharpen: self.sharpen };
        (enhance != Enhance::default()).then_some(enhance)
    }
}

/// How much work goes into knowing the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// One probe of a chunk's beginning; slopes and picture sizes go by what is usual. Nothing is calibrated, and nothing
    /// verified.
    Turbo,
    /// A few pictures a second are scored.
    #[default]
    Balanced,
    /// Every picture of a probe is, and every third of the top rung.
    Best,
}

impl Effort {
    /// One picture of a probe in so many is scored: a number that no group of B-pictures is long (4 and 5 at x264's and x265's
    /// usual speeds, 8, 16 or 32 elsewhere), nor a part of it. Where they meet, all scored pictures are of one kind: of water
    /// at CRF 30 every second picture is 1.0 VMAF below the mean, every fifth 6.3 above it, every third 0.0.
    fn scored_every(self) -> u32 {
        match self {
            Effort::Turbo => 11,
            Effort::Balanced => 3,
            Effort::Best => 1,
        }
    }

    /// One picture of the top rung in so many is scored, which are larger than those of a probe; `None`: none is.
    fn verified_every(self) -> Option<u32> {
        match self {
            Effort::Turbo => None,
            Effort::Balanced => Some(11),
            Effort::Best => Some(3),
        }
    }
}

/// The fast encodes by which a chunk is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeRules {
    /// Short side of the picture, pixels, at most: small sources are probed smaller, at two fifths of their size or 144.
    pub short_side: u32,
    /// The encoder's speed preset.
    pub speed: String,
    /// The two CRFs; with little effort there is one probe, between them.
    pub crf: [f64; 2],
    /// One picture in so many is scored; absent: by `effort`.
    #[serde(default)]
    pub scored_every: Option<u32>,
    /// Parameters of the encoder that a probe has beside, and before, the ladder's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
}

impl NarrowbandRules {
    /// One picture in so many is scored.
    pub fn scored_every(&self) -> u32 {
        self.probe.scored_every.unwrap_or_else(|| self.effort.scored_every())
    }

    /// So much of each chunk is looked at, from its first picture on, seconds; `None`: all of it.
    pub fn studied_s(&self) -> Option<f64> {
        (self.effort == Effort::Turbo).then_some(TURBO_STUDIED_S)
    }

    /// The CRFs of the probes. A single one is near the upper rungs, of which quality is asked.
    pub fn probed_crf(&self) -> Vec<f64> {
        let [low, high] = self.probe.crf;
        if self.effort == Effort::Turbo { vec![low + (high - low) / 4.0] } else { vec![low, high] }
    }

    /// Every probe but the first is of half a chunk: where a chunk's curves lie differs much from one to the next, and is asked
    /// of all of it, how steep they are differs less.
    pub fn is_halved(&self) -> bool {
        self.effort == Effort::Balanced
    }

    /// One picture in so many of the top rung is scored, of pilots as many as of a probe; `None`: none is.
    pub fn verified_every(&self) -> Option<u32> {
        self.effort.verified_every()
    }

    /// Something is encoded with the final settings before anything is decided.
    pub fn calibrates(&self) -> bool {
        self.effort != Effort::Turbo
    }

    /// The rules of the probe's encoder: the preset's own, but fast.
    pub fn probe_encoder(&self, video: &VideoRules) -> VideoRules {
        // The fastest speeds take no regions; what those change is seen by calibration.
        let mut params = video.params.clone();
        params.extend(self.probe.params.clone());
        VideoRules { speed: self.probe.speed.clone(), interest: Vec::new(), params, ..video.clone() }
    }

    /// # Errors
    /// The path of what is wrong, and why.
    pub fn check(&self, video: &VideoRules) -> Result<(), (String, String)> {
        let bad = |path: &str, reason: &str| Err((path.to_string(), reason.to_string()));
        if !video.rungs.is_empty() {
            return bad("video.rungs", "content decides the rungs: list none beside [narrowband]");
        }
        if video.codec == VideoCodec::Av1 {
            return bad("video.codec", "narrowband encodes h265 and h264");
        }
        if video.pixels != PixelRule::Delivery {
            return bad("video.pixels", "narrowband judges delivery pixels only");
        }
        if !video.equivalents.is_empty() {
            return bad("video.equivalents", "narrowband is calibrated for software encoders; devices have none of its curves");
        }
        if video.upscale {
            return bad("video.upscale", "narrowband makes no rung larger than the source");
        }
        let probe = &self.probe;
        if !SHORT_SIDES.contains(&probe.short_side) {
            return bad("narrowband.probe.short_side", "64 to 1080 pixels");
        }
        if encoder::check_speed(&self.probe_encoder(video)).is_err() {
            return bad("narrowband.probe.speed", "no speed of this encoder");
        }
        let [low, high] = probe.crf;
        if !((0.0..=51.0).contains(&low) && high <= 51.0 && high - low >= LEAST_SPAN_CRF) {
            return bad("narrowband.probe.crf", "two CRFs of 0 to 51, the lower first, 4 or more apart");
        }
        if !(1..=MOST_PASSED_OVER).contains(&self.scored_every()) {
            return bad("narrowband.probe.scored_every", "1 to 100");
        }
        let grid = &self.grid;
        if ![SHORTEST_SEGMENT_S, grid.shortest_s, grid.nominal_s, grid.longest_s, LONGEST_SEGMENT_S].is_sorted() {
            return bad("narrowband.grid", "0.5 <= shortest_s <= nominal_s <= longest_s <= 12");
        }
        if let Some(enhance) = &self.enhance
            && !((0.0..=1.0).contains(&enhance.sharpen) && enhance.denoise_above >= 0.0)
        {
            return bad("narrowband.enhance", "sharpen is 0 to 1, denoise_above 0 or more");
        }
        let decision = &self.decision;
        if !(1.0..100.0).contains(&decision.goal_vmaf) || !(1.0..100.0).contains(&decision.second_vmaf) {
            return bad("narrowband.decision", "qualities are 1 to 100");
        }
        if !(decision.highest_share > 0.0 && decision.second_step_vmaf >= 0.0) {
            return bad("narrowband.decision", "highest_share is more than 0, second_step_vmaf 0 or more");
        }
        if !(1..=16).contains(&decision.most_rungs) {
            return bad("narrowband.decision.most_rungs", "1 to 16");
        }
        if !(0.0..=MOST_DOUBT_CRF).contains(&decision.allocation.doubt_crf) {
            return bad("narrowband.decision.allocation.doubt_crf", "0 (differences are believed as they are) to 10");
        }
        check_range(&decision.allocation.crf).map_err(|why| ("narrowband.decision.allocation.crf".to_string(), why))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::preset::Preset;
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_narrowband_cannot_do_is_refused_by_its_path() {
        let path = |path: &str, value: serde_json::Value| {
            Preset::built_in("narrowband-h265", &BTreeMap::from([(path.to_string(), value)])).unwrap_err().path
        };
        assert_eq!(path("video.rungs", serde_json::json!([{"height": 720, "crf": 20}])), "video.rungs");
        assert_eq!(path("video.codec", "av1".into()), "video.codec");
        assert_eq!(path("video.pixels", "source".into()), "video.pixels");
        assert_eq!(path("narrowband.probe.crf", serde_json::json!([30, 28])), "narrowband.probe.crf");
        assert_eq!(path("narrowband.probe.speed", "warp".into()), "narrowband.probe.speed");
        assert_eq!(path("narrowband.grid.shortest_s", 9.into()), "narrowband.grid");
        assert_eq!(path("narrowband.decision.gaol_vmaf", 90.into()), "narrowband.decision.gaol_vmaf");
        assert_eq!(path("narrowband.effort", "warp".into()), "narrowband.effort");
        let doubt = "narrowband.decision.allocation.doubt_crf";
        assert_eq!(path(doubt, (-1).into()), doubt);
        assert_eq!(path("narrowband.enhance", serde_json::json!({"sharpen": 2})), "narrowband.enhance");
        let without = BTreeMap::from([("narrowband".to_string(), serde_json::json!({}))]);
        assert!(Preset::built_in("narrowband-h264", &without).is_err(), "a probe must be described");
    }

    #[test]
    fn only_what_is_seen_of_noise_is_taken_out() {
        let rules = EnhanceRules::default();
        let of = |noises: &[f64]| rules.for_noise(noises).unwrap();
        assert_eq!(of(&[0.4, 1.1, 9.0]), Enhance { denoise: 0.0, deband: true, sharpen: 0.2 });
        assert_eq!((of(&[3.0, 2.5, 0.1]).denoise, of(&[30.0]).denoise, of(&[]).denoise), (2.5, MOST_DENOISED, 0.0));
        assert_eq!(EnhanceRules { deband: false, sharpen: 0.0, ..rules }.for_noise(&[1.0]), None);
    }

    /// Of pictures scored with this stride from the first on, how many stand at each place of a group of so many.
    fn places(stride: u32, group: u32) -> Vec<usize> {
        let at = |place: u32| (1..=group * stride).filter(|n| (n * stride) % group == place).count();
        (0..group).map(at).collect()
    }

    #[test]
    fn pictures_of_every_kind_are_scored_alike() {
        assert_eq!(places(6, 4), [12, 0, 12, 0], "every sixth meets two of four");
        for effort in [Effort::Turbo, Effort::Balanced, Effort::Best] {
            for group in [2, 3, 4, 5, 8, 16, 32] {
                for stride in [Some(effort.scored_every()), effort.verified_every()].into_iter().flatten().filter(|s| *s != group)
                {
                    let found = places(stride, group);
                    assert!(found.iter().all(|count| *count == found[0]), "{effort:?}: {stride} in {group}: {found:?}");
                }
            }
        }
    }
}
