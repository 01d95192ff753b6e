//! Presets: named recipes in TOML. Unknown fields are errors that name their path.

use crate::job::Class;
use crate::plan::device::{self, Equivalent};
use crate::plan::interest::{self, Interest};
use crate::plan::narrowband::preset::NarrowbandRules;
use crate::plan::time::Rational;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// The presets compiled into the binary, by name.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("h265", include_str!("../../presets/h265.toml")),
    ("h264", include_str!("../../presets/h264.toml")),
    ("narrowband-h265", include_str!("../../presets/narrowband-h265.toml")),
    ("narrowband-h264", include_str!("../../presets/narrowband-h264.toml")),
    ("narrowband-enhanced", include_str!("../../presets/narrowband-enhanced.toml")),
    ("av1", include_str!("../../presets/av1.toml")),
    ("original", include_str!("../../presets/original.toml")),
    ("mezzanine", include_str!("../../presets/mezzanine.toml")),
    ("mp4-h265", include_str!("../../presets/mp4-h265.toml")),
    ("mp4-h264", include_str!("../../presets/mp4-h264.toml")),
    ("audio", include_str!("../../presets/audio.toml")),
];

/// A recipe: codec, rungs, quality, packaging.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    pub name: String,
    pub description: String,
    #[serde(default)]
    pub chunk: ChunkRules,
    #[serde(default)]
    pub packaging: Packaging,
    /// Absent: no video output.
    #[serde(default)]
    pub video: Option<VideoRules>,
    /// Absent: no audio output.
    #[serde(default)]
    pub audio: Option<AudioRules>,
    #[serde(default)]
    pub damage: DamageRules,
    /// Content decides rungs and qualities; then `video` lists no rungs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub narrowband: Option<NarrowbandRules>,
}

/// How the source is cut into units of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChunkRules {
    pub grid: Grid,
    /// Wanted length, seconds.
    pub target_s: f64,
    /// Shortest and longest chunk where the source allows, seconds.
    pub shortest_s: f64,
    pub longest_s: f64,
    /// With `grid = "frames"`: frames a chunk.
    pub frames: Option<u32>,
}

impl Default for ChunkRules {
    fn default() -> Self {
        Self { grid: Grid::Keyframes, target_s: 8.0, shortest_s: 6.0, longest_s: 20.0, frames: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grid {
    /// Chunks start at keyframes of the source where one lies in reach; segments divide a chunk evenly.
    Keyframes,
    /// Every segment but the last is exactly `packaging.segment_s` long, whatever the source's keyframes.
    Fixed,
    /// Every chunk is one GOP of the source.
    Gop,
    /// Every chunk is `chunk.frames` frames at the source's mean rate.
    Frames,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Packaging {
    pub hls: bool,
    pub dash: bool,
    /// A progressive, faststart MP4 for every video rendition.
    pub mp4: bool,
    /// Wanted length of a segment, seconds, 1 to 12.
    pub segment_s: f64,
}

impl Default for Packaging {
    fn default() -> Self {
        Self { hls: true, dash: true, mp4: false, segment_s: 4.0 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoRules {
    pub codec: VideoCodec,
    /// The encoder's own speed preset (`fast`, `medium`, ... for x264 and x265; 0 to 13 for SVT-AV1).
    #[serde(deserialize_with = "text")]
    pub speed: String,
    /// Encoder parameters by the encoder's own names; they win over what the plan would set.
    #[serde(default, deserialize_with = "texts")]
    pub params: BTreeMap<String, String>,
    #[serde(default)]
    pub hdr: HdrRule,
    #[serde(default)]
    pub deinterlace: Deinterlace,
    #[serde(default)]
    pub pixels: PixelRule,
    /// Make rungs larger than the source, too.
    #[serde(default)]
    pub upscale: bool,
    #[serde(default)]
    pub scaler: Scaler,
    /// Where in the picture quality is worth more, or less.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interest: Vec<Interest>,
    /// What stands for the encoder in other classes: `[video.equivalents.nvenc]`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub equivalents: BTreeMap<Class, Equivalent>,
    /// Largest first. None where content decides them.
    #[serde(default)]
    pub rungs: Vec<RungRule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VideoCodec {
    H265,
    H264,
    Av1,
}

/// A text that may be given as a number, too: `--set video.speed=12` is one to JSON.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a text or a number")]
enum Text {
    Words(String),
    Whole(i64),
    Real(f64),
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        match text {
            Text::Words(text) => text,
            Text::Whole(number) => number.to_string(),
            Text::Real(number) => number.to_string(),
        }
    }
}

fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Text::deserialize(from).map(String::from)
}

fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let texts = BTreeMap::<String, Text>::deserialize(from)?;
    Ok(texts.into_iter().map(|(name, text)| (name, text.into())).collect())
}

/// What becomes of PQ and HLG sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HdrRule {
    /// Kept and signalled, in 10-bit rungs.
    #[default]
    Keep,
    /// Tone-mapped to BT.709.
    Sdr,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deinterlace {
    /// One frame out for one interlaced frame in.
    #[default]
    Auto,
    /// One frame out for each field.
    Field,
    Off,
}

/// The pixel format of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PixelRule {
    /// 4:2:0, limited range, 8 bits, or 10 bits for HDR that is kept.
    #[default]
    Delivery,
    /// As the source, as near as the encoder can: subsampling, depth and range.
    Source,
}

/// The scaling kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaler {
    #[default]
    Bicubic,
    Lanczos,
    Bilinear,
}

/// One rung as the preset wants it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RungRule {
    /// Short side for a landscape source (`1080` is 1920x1080 for 16:9, 1080x1920 for 9:16). Absent: the source's size.
    #[serde(default)]
    pub height: Option<u32>,
    /// Constant rate factor in the encoder's own scale.
    #[serde(default)]
    pub crf: Option<f64>,
    /// Mean bit rate, kbit/s, instead of `crf`.
    #[serde(default)]
    pub kbps: Option<u32>,
    /// Cap of the rate over one buffer, kbit/s.
    #[serde(default)]
    pub max_kbps: Option<u32>,
    /// Mathematically lossless, instead of `crf`.
    #[serde(default)]
    pub lossless: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioRules {
    pub codec: AudioCodec,
    /// Every entry makes one rendition of every audio stream of the source.
    pub renditions: Vec<AudioRule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioCodec {
    /// AAC-LC.
    Aac,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioRule {
    /// Bit rate for a stereo pair, kbit/s; other layouts get the same per channel.
    pub kbps: u32,
    pub channels: Channels,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channels {
    /// Mono and stereo kept, more downmixed to stereo.
    Stereo,
    /// As the source, up to 7.1.
    Keep,
}

/// How much of a source may be lost before `on_damage = "fail"` fails the job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DamageRules {
    /// Share of all frames, 0 to 1.
    pub max_lost_share: f64,
    /// So many are always forgiven (a joined or cut source loses a few at its ends).
    pub forgiven_frames: u64,
}

impl Default for DamageRules {
    fn default() -> Self {
        Self { max_lost_share: 0.02, forgiven_frames: 8 }
    }
}

impl DamageRules {
    /// Frames of a title that may be lost.
    pub fn most_lost(&self, frames: u64) -> u64 {
        self.forgiven_frames.max((frames as f64 * self.max_lost_share) as u64)
    }
}

/// Why a preset cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("preset {preset}: {path}: {reason}")]
pub struct PresetError {
    pub preset: String,
    pub path: String,
    pub reason: String,
}

impl Preset {
    /// The built-in preset of that name with `set` applied.
    ///
    /// # Errors
    /// No such preset, or an override that names no field or gives it a value it cannot have.
    pub fn built_in(name: &str, set: &BTreeMap<String, serde_json::Value>) -> Result<Self, PresetError> {
        let text = BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text).ok_or_else(|| PresetError {
            preset: name.into(),
            path: "preset".into(),
            reason: format!("'{name}' is none; there are {}", BUILT_IN.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ")),
        })?;
        Self::parse(name, text, set)
    }

    /// Reads a preset file and applies `set`, dotted paths to new values.
    ///
    /// # Errors
    /// Names the field that is unknown, of the wrong type or out of range.
    pub fn parse(name: &str, text: &str, set: &BTreeMap<String, serde_json::Value>) -> Result<Self, PresetError> {
        let fail = |path: String, reason: String| PresetError { preset: name.into(), path, reason };
        let mut table: toml::Value = toml::from_str(text).map_err(|e| fail(".".into(), e.message().to_string()))?;
        for (path, value) in set {
            let value = toml::Value::try_from(value).map_err(|e| fail(path.clone(), e.to_string()))?;
            put(&mut table, path, value).map_err(|reason| fail(path.clone(), reason))?;
        }
        let preset: Preset = serde_path_to_error::deserialize(table)
            .map_err(|e| fail(e.path().to_string(), e.inner().to_string().trim().to_string()))?;
        preset.check().map_err(|(path, reason)| fail(path, reason))?;
        Ok(preset)
    }

    fn check(&self) -> Result<(), (String, String)> {
        let bad = |path: &str, reason: &str| Err((path.to_string(), reason.to_string()));
        if self.video.is_none() && self.audio.is_none() {
            return bad("video", "a preset makes video, audio or both");
        }
        let p = &self.packaging;
        if !(p.hls || p.dash || p.mp4) {
            return bad("packaging", "one of hls, dash and mp4 must be true");
        }
        if !(1.0..=12.0).contains(&p.segment_s) {
            return bad("packaging.segment_s", "1 to 12 seconds");
        }
        let c = &self.chunk;
        if !(c.target_s > 0.0 && c.target_s <= 60.0 && c.shortest_s > 0.0 && c.shortest_s <= c.longest_s && c.longest_s <= 120.0)
        {
            return bad("chunk", "0 < shortest_s <= longest_s <= 120 and 0 < target_s <= 60");
        }
        if c.grid == Grid::Frames && c.frames.is_none_or(|n| n == 0) {
            return bad("chunk.frames", "grid = \"frames\" needs chunk.frames of 1 or more");
        }
        if !(0.0..=1.0).contains(&self.damage.max_lost_share) {
            return bad("damage.max_lost_share", "0 to 1");
        }
        self.video.as_ref().map_or(Ok(()), interest::check)?;
        match (&self.narrowband, &self.video) {
            (Some(narrowband), Some(video)) => narrowband.check(video)?,
            (Some(_), None) => return bad("narrowband", "there is no video whose ladder could be decided"),
            (None, video) => video.as_ref().map_or(Ok(()), VideoRules::check)?,
        }
        let Some(audio) = &self.audio else { return Ok(()) };
        if audio.renditions.is_empty() || audio.renditions.len() > 4 {
            return bad("audio.renditions", "1 to 4 renditions");
        }
        match audio.renditions.iter().position(|r| !(16..=512).contains(&r.kbps)) {
            Some(i) => Err((format!("audio.renditions[{i}].kbps"), "16 to 512 kbit/s".into())),
            None => Ok(()),
        }
    }
}

impl VideoRules {
    fn check(&self) -> Result<(), (String, String)> {
        if self.rungs.is_empty() || self.rungs.len() > 16 {
            return Err(("video.rungs".into(), "1 to 16 rungs".into()));
        }
        device::check(self)?;
        let most_crf = if self.codec == VideoCodec::Av1 { 63.0 } else { 51.0 };
        for (i, rung) in self.rungs.iter().enumerate() {
            let goals = usize::from(rung.crf.is_some()) + usize::from(rung.kbps.is_some()) + usize::from(rung.lossless);
            let reason = if goals != 1 {
                "give exactly one of crf, kbps and lossless".to_string()
            } else if rung.crf.is_some_and(|crf| !(0.0..=most_crf).contains(&crf)) {
                format!("crf is 0 to {most_crf}")
            } else if rung.height.is_some_and(|h| !(2..=8192).contains(&h)) {
                "height is 2 to 8192".to_string()
            } else if rung.lossless && self.codec == VideoCodec::Av1 {
                "SVT-AV1 has no lossless mode; use codec h264 or h265".to_string()
            } else {
                continue;
            };
            return Err((format!("video.rungs[{i}]"), reason));
        }
        Ok(())
    }
}

/// Puts `value` at a dotted path; list elements are numbered from 0 (`video.rungs.0.crf`).
fn put(root: &mut toml::Value, path: &str, value: toml::Value) -> Result<(), String> {
    let mut at = root;
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        at = match at {
            toml::Value::Table(table) if last => {
                table.insert(part.to_string(), value);
                return Ok(());
            }
            toml::Value::Table(table) => table.entry(part.to_string()).or_insert_with(|| toml::Value::Table(toml::Table::new())),
            toml::Value::Array(list) => {
                let count = list.len();
                let slot = part.parse::<usize>().ok().and_then(|i| list.get_mut(i));
                let slot = slot.ok_or_else(|| format!("'{part}' is not one of the {count} elements, numbered from 0"))?;
                if last {
                    *slot = value;
                    return Ok(());
                }
                slot
            }
            _ => return Err(format!("'{part}' goes into a value that has no fields")),
        };
    }
    Err("is empty".into())
}

/// The frame rate assumed where a source has none, frames a second.
pub const ASSUMED_RATE: Rational = Rational::new(25, 1);

#[cfg(test)]
mod tests {
    use super::*;

    fn set(path: &str, value: serde_json::Value) -> BTreeMap<String, serde_json::Value> {
        BTreeMap::from([(path.to_string(), value)])
    }

    #[test]
    fn every_built_in_preset_parses_and_bears_its_file_name() {
        for (name, _) in BUILT_IN {
            assert_eq!(Preset::built_in(name, &BTreeMap::new()).unwrap().name, *name);
        }
    }

    #[test]
    fn overrides_reach_into_tables_and_lists() {
        let p = Preset::built_in("h264", &set("packaging.segment_s", 6.into())).unwrap();
        assert_eq!(p.packaging.segment_s, 6.0);
        let p = Preset::built_in("h264", &set("video.rungs.0.crf", 30.into())).unwrap();
        assert_eq!(p.video.unwrap().rungs[0].crf, Some(30.0));
    }

    #[test]
    fn a_text_may_be_given_as_a_number() {
        let changes = BTreeMap::from([("video.speed".to_string(), 12.into()), ("video.params.tune".to_string(), 0.into())]);
        let video = Preset::built_in("av1", &changes).unwrap().video.unwrap();
        assert_eq!((video.speed.as_str(), video.params["tune"].as_str()), ("12", "0"));
        let video = Preset::built_in("h265", &set("video.params.psy-rd", 1.5.into())).unwrap().video.unwrap();
        assert_eq!(video.params["psy-rd"], "1.5");
        let wrong = Preset::built_in("av1", &set("video.speed", true.into())).unwrap_err();
        assert_eq!(wrong.path, "video.speed");
        assert!(wrong.reason.contains("a text or a number"), "{wrong}");
    }

    #[test]
    fn a_wrong_override_is_named_by_its_path() {
        let path = |p: &str, v: serde_json::Value| Preset::built_in("h264", &set(p, v)).unwrap_err().path;
        assert_eq!(path("packaging.segments", 4.into()), "packaging.segments");
        assert_eq!(path("packaging.segment_s", "long".into()), "packaging.segment_s");
        assert_eq!(path("packaging.segment_s", 0.into()), "packaging.segment_s");
        assert_eq!(path("video.rungs.99.crf", 20.into()), "video.rungs.99.crf");
        assert_eq!(path("video.rungs.0.crf", 99.into()), "video.rungs[0]");
        assert!(Preset::built_in("h266", &BTreeMap::new()).unwrap_err().reason.contains("h265"));
    }
}
