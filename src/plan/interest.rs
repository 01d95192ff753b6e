//! Regions of interest: where in the picture quality is worth more, or less, than elsewhere.
//!
//! A face before a still wall, the score of a match, the code on a slide: the encoder is told an offset to its quantiser for the
//! rectangle, which goes on top of what its own adaptive quantisation finds. Every chunk is told the same, so seams stay what
//! they are. Where content decides the ladder, final encodes are calibrated with the regions in them: what they cost is made
//! up for by the rest of the picture.

use super::preset::{VideoCodec, VideoRules};
use serde::{Deserialize, Serialize};

/// Most regions of a picture.
const MOST_REGIONS: usize = 16;
/// Offsets that are told from others: six steps of QP double the quantiser's step (H.264 8.5.9, H.265 8.6.1).
const OFFSETS: std::ops::RangeInclusive<i32> = -20..=20;
/// Rounding in the sums of shares.
const SLACK: f64 = 1e-9;

/// One of `[[video.interest]]`: a rectangle of the picture as it is shown, in shares of its width and height.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interest {
    /// The left edge, 0 to 1.
    pub x: f64,
    /// The upper edge, 0 to 1.
    pub y: f64,
    /// Above 0, to 1.
    pub width: f64,
    /// Above 0, to 1.
    pub height: f64,
    /// Added to the quantiser's parameter there: -4 is clearly better, 4 clearly worse. Where regions overlap, the first counts.
    pub qp_offset: i32,
}

/// The same in the pixels of one rung; `right` and `bottom` are the first that lie outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    pub left: u32,
    pub top: u32,
    pub right: u32,
    pub bottom: u32,
    pub qp_offset: i32,
}

impl Interest {
    fn within(&self, width: u32, height: u32) -> Region {
        // Edges are rounded outwards: a region is never empty.
        let edges = |from: f64, length: f64, side: u32| {
            let side = f64::from(side);
            ((from * side).floor() as u32, (((from + length) * side - SLACK).ceil().min(side)) as u32)
        };
        let ((left, right), (top, bottom)) = (edges(self.x, self.width, width), edges(self.y, self.height, height));
        Region { left, top, right, bottom, qp_offset: self.qp_offset }
    }

    fn wrong(&self) -> Option<String> {
        let fits = |from: f64, length: f64| (0.0..1.0).contains(&from) && length > 0.0 && from + length <= 1.0 + SLACK;
        if !(fits(self.x, self.width) && fits(self.y, self.height)) {
            return Some("lies outside the picture: x, y, width and height are shares of it, 0 to 1".into());
        }
        let (least, most) = OFFSETS.into_inner();
        let is_offset = self.qp_offset != 0 && OFFSETS.contains(&self.qp_offset);
        (!is_offset).then(|| format!("qp_offset is {least} to {most}, and not 0"))
    }
}

/// The regions in the pixels of a rung.
pub fn regions(rules: &VideoRules, width: u32, height: u32) -> Vec<Region> {
    rules.interest.iter().map(|interest| interest.within(width, height)).collect()
}

/// Can these regions be had of this encoder?
///
/// # Errors
/// The field, and what is wrong with it.
pub(super) fn check(rules: &VideoRules) -> Result<(), (String, String)> {
    if rules.interest.is_empty() {
        return Ok(());
    }
    let bad = |reason: &str| Err(("video.interest".to_string(), reason.to_string()));
    if rules.interest.len() > MOST_REGIONS {
        return bad(&format!("at most {MOST_REGIONS} regions"));
    }
    if rules.codec == VideoCodec::Av1 {
        return bad("SVT-AV1 takes no regions; use codec h264 or h265");
    }
    if rules.rungs.iter().any(|rung| rung.lossless) {
        return bad("a lossless rung has no quantiser to offset");
    }
    if !adapts(rules) {
        return bad("the encoder's adaptive quantisation is off, by video.params or by this video.speed; regions need it");
    }
    let wrong = |(i, interest): (usize, &Interest)| Some((format!("video.interest[{i}]"), interest.wrong()?));
    rules.interest.iter().enumerate().find_map(wrong).map_or(Ok(()), Err)
}

/// Is adaptive quantisation on? The fastest presets of x264 164 and x265 3.5 leave it off.
fn adapts(rules: &VideoRules) -> bool {
    let without: &[&str] = if rules.codec == VideoCodec::H265 { &["ultrafast", "superfast"] } else { &["ultrafast"] };
    match rules.params.get("aq-mode") {
        Some(mode) => mode != "0",
        None => !without.contains(&rules.speed.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::preset::Preset;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn checked(preset: &str, set: Value) -> Result<VideoRules, String> {
        let Value::Object(set) = set else { unreachable!() };
        let set: BTreeMap<String, Value> = set.into_iter().collect();
        Preset::built_in(preset, &set).map(|preset| preset.video.unwrap()).map_err(|e| e.to_string())
    }

    fn face(x: f64, width: f64, qp_offset: i32) -> Value {
        json!([{ "x": x, "y": 0.1, "width": width, "height": 0.5, "qp_offset": qp_offset }])
    }

    #[test]
    fn a_region_covers_every_pixel_that_it_touches_in_every_size() {
        let rules = checked("h265", json!({ "video.interest": face(0.333, 0.667, -4) })).unwrap();
        let of = |width, height| regions(&rules, width, height);
        assert_eq!(of(1920, 1080), [Region { left: 639, top: 108, right: 1920, bottom: 648, qp_offset: -4 }]);
        assert_eq!(of(16, 16), [Region { left: 5, top: 1, right: 16, bottom: 10, qp_offset: -4 }]);
        assert_eq!(of(2, 2), [Region { left: 0, top: 0, right: 2, bottom: 2, qp_offset: -4 }]);
    }

    #[test]
    fn a_region_that_cannot_be_had_is_named() {
        let wrong = |preset: &str, set: Value| checked(preset, set).unwrap_err();
        assert!(wrong("h265", json!({ "video.interest": face(0.5, 0.6, -4) })).contains("video.interest[0]"));
        assert!(wrong("h265", json!({ "video.interest": face(0.5, 0.0, -4) })).contains("lies outside"));
        assert!(wrong("narrowband-h265", json!({ "video.interest": face(0.0, 1.0, 21) })).contains("-20 to 20"));
        assert!(wrong("narrowband-h265", json!({ "video.interest": face(0.0, 1.0, 0) })).contains("not 0"));
        assert!(wrong("av1", json!({ "video.interest": face(0.0, 1.0, -4) })).contains("SVT-AV1"));
        assert!(
            wrong("h264", json!({ "video.interest": face(0.0, 1.0, -4), "video.rungs": [{ "lossless": true }] }))
                .contains("lossless")
        );
        for off in [json!({ "video.speed": "superfast" }), json!({ "video.params": { "aq-mode": 0 } })] {
            let mut set = off;
            set["video.interest"] = face(0.0, 1.0, -4);
            assert!(wrong("h265", set).contains("adaptive quantisation"));
        }
        let mut set = json!({ "video.speed": "superfast", "video.params": { "aq-mode": 2 } });
        set["video.interest"] = face(0.0, 1.0, -4);
        assert!(checked("h265", set).is_ok());
        let many = vec![face(0.0, 1.0, -4)[0].clone(); MOST_REGIONS + 1];
        assert!(wrong("h264", json!({ "video.interest": many })).contains("16 regions"));
    }
}
