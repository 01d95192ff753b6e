//! The ladder: which rungs a source gets, how large they are, and in which pixels.

use super::encoder::{self, Picture};
use super::interest;
use super::pixel::{self, PixelChoice};
use super::preset::{HdrRule, PixelRule, RungRule, Scaler, VideoRules};
use super::time::Rational;
use super::{OutputColour, Rung};
use crate::probe::{DynamicRange, VideoStream};
use std::cmp::Reverse;

/// Sample aspect ratios beyond this many to one are taken for damage and read as 1:1.
const MOST_SAMPLE_ASPECT: i64 = 10;
/// A source this little above a rung (in percent of its height) gets that rung as its largest, not one more.
const NEAR_RUNG_PERCENT: u64 = 105;
/// A rung is scaled from a larger rung's frame, not from the source's, when that is at least so many times its size.
const CASCADE_RATIO: u32 = 2;

/// The rungs of a title, and what all of them need.
#[derive(Clone, Debug, PartialEq)]
pub struct Ladder {
    /// Largest first.
    pub rungs: Vec<Rung>,
    /// What the preset wants of each.
    pub goals: Vec<RungRule>,
    /// PQ or HLG becomes BT.709.
    pub tone_map: bool,
    /// The source frame is padded to even dimensions.
    pub pad_to_even: bool,
    pub notes: Vec<String>,
}

/// A rung whose size was decided by content.
#[derive(Clone, Debug, PartialEq)]
pub struct SizedRung {
    pub name: String,
    pub width: u32,
    pub height: u32,
    /// CRF and cap; its height is not looked at.
    pub goal: RungRule,
}

/// The source's size as it is shown: turned, in square pixels, both sides even.
pub fn display_size(stream: &VideoStream) -> (u32, u32) {
    let size = Display::of(stream).0.own_size(String::new());
    (size.width, size.height)
}

/// The source's size as it is shown, no larger than with a short side of `pixels`.
pub fn size_within(stream: &VideoStream, pixels: u32) -> (u32, u32) {
    let display = Display::of(stream).0;
    let size = display.with_short_side(pixels.min(display.short_side()));
    (size.width, size.height)
}

/// These rungs, which come largest first, in delivery pixels.
pub fn of_sizes(stream: &VideoStream, rules: &VideoRules, wanted: &[SizedRung]) -> Vec<Rung> {
    let (pixels, tone_map) = pixels(stream, rules);
    let mut rungs: Vec<Rung> = Vec::with_capacity(wanted.len());
    for SizedRung { name, width, height, goal } in wanted {
        let size = Size { name: name.clone(), width: *width, height: *height, sample_aspect: Rational::new(1, 1) };
        let rung = rung(stream, rules, goal, &pixels, size, tone_map, &rungs);
        rungs.push(rung);
    }
    rungs
}

/// The pixels of the output, and whether they are tone-mapped.
fn pixels(stream: &VideoStream, rules: &VideoRules) -> (PixelChoice, bool) {
    let hdr = stream.colour.dynamic_range != DynamicRange::Sdr;
    let tone_map = hdr && rules.hdr == HdrRule::Sdr;
    (pixel::choose(stream, rules.codec, rules.pixels, hdr && !tone_map, tone_map), tone_map)
}

/// Every rung of the preset that fits the source, largest first.
pub fn ladder(stream: &VideoStream, rules: &VideoRules) -> Ladder {
    let (pixels, tone_map) = pixels(stream, rules);
    let mut notes: Vec<String> = pixels.note.iter().cloned().collect();
    let (display, aspect_note) = Display::of(stream);
    notes.extend(aspect_note);
    let goals = goals(&display, rules, &mut notes);
    let pad =
        rules.pixels == PixelRule::Source && goals.iter().any(|goal| goal.height.is_none()) && needs_padding(stream, &pixels);

    let mut sized: Vec<(Size, RungRule)> = goals
        .into_iter()
        .map(|goal| match (goal.height, rules.pixels) {
            (None, PixelRule::Source) => (Size::as_decoded(stream, pad), goal),
            (None, PixelRule::Delivery) => (display.own_size("source".into()), goal),
            (Some(height), _) => (display.with_short_side(height), goal),
        })
        .collect();
    sized.sort_by_key(|(size, _)| Reverse(u64::from(size.width) * u64::from(size.height)));

    let mut rungs: Vec<Rung> = Vec::with_capacity(sized.len());
    let mut wanted = Vec::with_capacity(sized.len());
    for (size, goal) in sized {
        let rung = rung(stream, rules, &goal, &pixels, size, tone_map, &rungs);
        rungs.push(rung);
        wanted.push(goal);
    }
    Ladder { rungs, goals: wanted, tone_map, pad_to_even: pad, notes }
}

fn rung(
    stream: &VideoStream,
    rules: &VideoRules,
    goal: &RungRule,
    pixels: &PixelChoice,
    size: Size,
    tone_map: bool,
    larger: &[Rung],
) -> Rung {
    let hdr = (stream.colour.dynamic_range != DynamicRange::Sdr && !tone_map).then_some(&stream.colour);
    let picture = Picture { pixel_format: &pixels.format, constant_rate: stream.constant_rate, hdr };
    Rung {
        name: unique(&size.name, larger),
        width: size.width,
        height: size.height,
        sample_aspect: size.sample_aspect,
        pixel_format: pixels.format.clone(),
        full_range: pixels.full_range,
        scale_from: larger
            .iter()
            .rposition(|from| from.width >= size.width * CASCADE_RATIO && from.height >= size.height * CASCADE_RATIO),
        scaler: match rules.scaler {
            Scaler::Bicubic => "bicubic",
            Scaler::Lanczos => "lanczos",
            Scaler::Bilinear => "bilinear",
        }
        .into(),
        encoder: encoder::video(rules, goal, &picture),
        colour: colour(stream, &pixels.format, tone_map),
        interest: interest::regions(rules, size.width, size.height),
    }
}

fn unique(name: &str, taken: &[Rung]) -> String {
    let free = |name: &String| taken.iter().all(|rung| rung.name != *name);
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    std::iter::once(name.to_string()).chain(numbered).find(free).expect("one of endless names is free")
}

/// The rules that fit the source: those up to its size, and one at its own size when it lies between two.
/// A rule without a height is the source's size already.
fn goals(display: &Display, rules: &VideoRules, notes: &mut Vec<String>) -> Vec<RungRule> {
    let fits = |rule: &&RungRule| rules.upscale || rule.height.is_none_or(|height| display.reaches(u64::from(height)));
    let fitting: Vec<RungRule> = rules.rungs.iter().filter(fits).cloned().collect();
    let above = rules.rungs.iter().filter(|rule| !fits(rule)).min_by_key(|rule| rule.height);
    let Some((above, above_height)) = above.and_then(|rule| Some((rule, rule.height?))) else { return fitting };
    let highest = fitting.iter().max_by_key(|rule| rule.height.map_or(u32::MAX, |height| height));
    let covered = highest.is_some_and(|rule| match rule.height {
        None => true,
        Some(height) => !display.reaches(u64::from(height) * NEAR_RUNG_PERCENT / 100 + 1),
    });
    if covered {
        notes.push(format!("rungs above the source's {} are left out", display.name()));
        return fitting;
    }
    let scale = |kbps: u32, floor: Option<u32>| display.scaled_rate(kbps, above_height).max(floor.unwrap_or(1));
    let own = RungRule {
        height: Some(display.short_side()),
        crf: above.crf,
        kbps: above.kbps.map(|kbps| scale(kbps, highest.and_then(|rule| rule.kbps))),
        max_kbps: above.max_kbps.map(|kbps| scale(kbps, highest.and_then(|rule| rule.max_kbps))),
        lossless: above.lossless,
    };
    notes.push(format!(
        "rungs above the source's {} are left out; the largest has the source's size and the settings of {above_height}p, its rates in proportion",
        display.name()
    ));
    std::iter::once(own).chain(fitting).collect()
}

/// A rung's picture.
struct Size {
    name: String,
    width: u32,
    height: u32,
    sample_aspect: Rational,
}

impl Size {
    /// The decoded size, turned, its sample aspect kept.
    fn as_decoded(stream: &VideoStream, pad: bool) -> Self {
        let even = |n: u32| if pad { n.next_multiple_of(2) } else { n };
        let aspect = sample_aspect(stream).0;
        let turned = is_turned(stream);
        let (width, height) = if turned { (stream.height, stream.width) } else { (stream.width, stream.height) };
        let sample_aspect = if turned { aspect.inverse() } else { aspect };
        Size { name: "source".into(), width: even(width), height: even(height), sample_aspect }
    }
}

/// The source as it is shown: turned, in square pixels. Exact: the long and short sides are ratios.
struct Display {
    /// Width and height times `den`.
    width: u64,
    height: u64,
    den: u64,
}

impl Display {
    fn of(stream: &VideoStream) -> (Self, Option<String>) {
        let (aspect, note) = sample_aspect(stream);
        let (num, den) = (aspect.num as u64, aspect.den as u64);
        let (width, height) = (u64::from(stream.width.max(1)) * num, u64::from(stream.height.max(1)) * den);
        let (width, height) = if is_turned(stream) { (height, width) } else { (width, height) };
        (Self { width, height, den }, note)
    }

    /// The short side is at least `pixels` long.
    fn reaches(&self, pixels: u64) -> bool {
        self.width.min(self.height) >= pixels * self.den
    }

    /// The short side in whole even pixels.
    fn short_side(&self) -> u32 {
        even(self.width.min(self.height), self.den)
    }

    fn name(&self) -> String {
        format!("{}p", self.short_side())
    }

    fn own_size(&self, name: String) -> Size {
        Size { name, width: even(self.width, self.den), height: even(self.height, self.den), sample_aspect: Rational::new(1, 1) }
    }

    /// This picture with a short side of `pixels`.
    fn with_short_side(&self, pixels: u32) -> Size {
        let short = even(u64::from(pixels), 1);
        if short == self.short_side() {
            return self.own_size(format!("{short}p"));
        }
        let long = even(self.width.max(self.height) * u64::from(short), self.width.min(self.height));
        let (width, height) = if self.width >= self.height { (long, short) } else { (short, long) };
        Size { name: format!("{pixels}p"), width, height, sample_aspect: Rational::new(1, 1) }
    }

    /// A rate meant for a rung of `height`, for this picture: in proportion to the pixels of that rung in this
    /// picture's shape or in 16:9, whichever leaves more.
    fn scaled_rate(&self, kbps: u32, height: u32) -> u32 {
        let size = self.own_size(String::new());
        let pixels = f64::from(size.width) * f64::from(size.height);
        let widescreen = f64::from(height) * f64::from(height) * 16.0 / 9.0;
        let own_shape = self.with_short_side(height);
        let own_shape = f64::from(own_shape.width) * f64::from(own_shape.height);
        (f64::from(kbps) * (pixels / widescreen.min(own_shape)).min(1.0)).round().max(1.0) as u32
    }
}

/// The even number nearest to `num / den`; of two equally near the smaller, so that nothing is enlarged. At least 2.
fn even(num: u64, den: u64) -> u32 {
    u32::try_from((num + den - 1) / (2 * den) * 2).unwrap_or(u32::MAX - 1).max(2)
}

fn is_turned(stream: &VideoStream) -> bool {
    stream.rotation % 180 == 90
}

/// The sample aspect ratio to go by, and a note when the source's own is not believed.
fn sample_aspect(stream: &VideoStream) -> (Rational, Option<String>) {
    let said = stream.sample_aspect.reduced();
    let fits = said.is_positive() && said.num <= said.den.saturating_mul(MOST_SAMPLE_ASPECT);
    if fits && said.den <= said.num.saturating_mul(MOST_SAMPLE_ASPECT) && said.num.max(said.den) <= i64::from(u32::MAX) {
        return (said, None);
    }
    let note = format!("a sample aspect ratio of {}:{} is not believed: 1:1 is taken", said.num, said.den);
    (Rational::new(1, 1), said.is_positive().then_some(note))
}

fn needs_padding(stream: &VideoStream, pixels: &PixelChoice) -> bool {
    let (even_width, even_height) = pixel::must_be_even(&pixels.format);
    let size = Size::as_decoded(stream, false);
    (even_width && size.width % 2 == 1) || (even_height && size.height % 2 == 1)
}

/// H.273 signalling of what comes out.
fn colour(stream: &VideoStream, pixel_format: &str, tone_map: bool) -> OutputColour {
    if tone_map {
        let bt709 = || "bt709".to_string();
        return OutputColour { primaries: bt709(), transfer: bt709(), matrix: bt709(), video_range: "SDR".into() };
    }
    let named =
        |name: &str| if matches!(name, "unknown" | "unspecified" | "reserved") { String::new() } else { name.to_string() };
    let rgb = pixel_format.starts_with("gbr");
    let matrix = match stream.colour.matrix.as_str() {
        // RGB that is encoded as YUV is converted by BT.709.
        "gbr" | "rgb" if !rgb => "bt709".into(),
        _ if rgb => "gbr".into(),
        other => named(other),
    };
    let video_range = match stream.colour.dynamic_range {
        DynamicRange::Sdr => "SDR",
        DynamicRange::Pq => "PQ",
        DynamicRange::Hlg => "HLG",
    };
    OutputColour {
        primaries: named(&stream.colour.primaries),
        transfer: named(&stream.colour.transfer),
        matrix,
        video_range: video_range.into(),
    }
}
