//! Which pixel format an output is encoded in.

use super::preset::{PixelRule, VideoCodec};
use crate::probe::VideoStream;

/// The pixel format chosen, and what the choice costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PixelChoice {
    /// libavutil's name.
    pub format: String,
    pub full_range: bool,
    /// For a person, when the source's pixels do not pass unchanged.
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chroma {
    Grey,
    C420,
    C422,
    C444,
    Rgb,
}

impl Chroma {
    /// The planar YUV family of libavutil.
    fn family(self) -> &'static str {
        match self {
            Chroma::Grey => "gray",
            Chroma::C420 => "yuv420p",
            Chroma::C422 => "yuv422p",
            Chroma::C444 => "yuv444p",
            Chroma::Rgb => "gbrp",
        }
    }
}

/// What a source's pixel format is made of, and whether the family named holds it without loss.
struct Layout {
    chroma: Chroma,
    exact: bool,
    alpha: bool,
}

/// The pixel format for `rule`; `high_depth` is HDR that is kept, `tone_mapped` HDR that is not.
pub fn choose(stream: &VideoStream, codec: VideoCodec, rule: PixelRule, high_depth: bool, tone_mapped: bool) -> PixelChoice {
    match rule {
        PixelRule::Delivery => {
            let format = if high_depth { "yuv420p10le" } else { "yuv420p" };
            PixelChoice { format: format.into(), full_range: false, note: None }
        }
        PixelRule::Source => nearest(stream, codec, tone_mapped),
    }
}

/// As the source, as near as the encoder can.
fn nearest(stream: &VideoStream, codec: VideoCodec, tone_mapped: bool) -> PixelChoice {
    let (format, note) = nearest_format(&stream.pixel_format, stream.bit_depth, codec);
    let full_range = (stream.colour.full_range || stream.pixel_format.starts_with("yuvj")) && !tone_mapped;
    PixelChoice { format, full_range, note }
}

/// The encoder's pixel format that is nearest to the source's, and a note when pixels change by it.
fn nearest_format(name: &str, bit_depth: u8, codec: VideoCodec) -> (String, Option<String>) {
    let source = layout(name);
    let chroma = match (codec, source.chroma) {
        (VideoCodec::Av1, _) => Chroma::C420,
        (VideoCodec::H264, Chroma::Rgb) => Chroma::C444,
        (_, chroma) => chroma,
    };
    let depth = match (codec, bit_depth) {
        (_, ..=8) => 8,
        (VideoCodec::H265, 11..) => 12,
        _ => 10,
    };
    let suffix = if depth == 8 { String::new() } else { format!("{depth}le") };
    let format = format!("{}{suffix}", chroma.family());
    let note = if source.alpha {
        Some(format!("the alpha plane of {name} is dropped: it is encoded as {format}"))
    } else if chroma != source.chroma || !source.exact || depth != bit_depth {
        Some(format!("the encoder does not take {name}: it is encoded as {format}, the nearest it takes"))
    } else {
        None
    };
    (format, note)
}

/// Reads the name of a libavutil pixel format.
fn layout(name: &str) -> Layout {
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let starts = |parts: &[&str]| parts.iter().any(|part| name.starts_with(part));
    let (chroma, exact) = if starts(&["gray", "mono", "ya8", "ya16"]) {
        (Chroma::Grey, !starts(&["mono"]))
    } else if has(&["rgb", "bgr", "gbr", "argb", "abgr"]) || name == "pal8" {
        (Chroma::Rgb, !has(&["565", "555", "444", "rgb8", "bgr8", "rgb4", "bgr4", "pal8"]))
    } else if has(&["422"]) || starts(&["nv16", "nv20", "p21", "y210", "y212", "yvyu"]) {
        (Chroma::C422, true)
    } else if has(&["444"]) || starts(&["nv24", "nv42", "p41", "xyz"]) {
        (Chroma::C444, !starts(&["xyz"]))
    } else if has(&["411", "440"]) {
        (Chroma::C444, false)
    } else {
        // 4:1:0 and what is not known by name lose least as 4:2:0.
        (Chroma::C420, has(&["420"]) || starts(&["nv12", "nv21", "p010", "p012", "p016"]))
    };
    let alpha = starts(&["yuva", "gbrap", "ya8", "ya16"]) || has(&["rgba", "bgra", "argb", "abgr"]);
    Layout { chroma, exact, alpha }
}

/// Must the (width, height) of a frame of this format be even?
pub fn must_be_even(format: &str) -> (bool, bool) {
    (format.contains("420") || format.contains("422"), format.contains("420"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_pixel_format_is_taken_and_a_loss_is_said() {
        use VideoCodec::{Av1, H264, H265};
        let table = [
            ("yuv420p", 8, H264, "yuv420p", false),
            ("yuvj422p", 8, H264, "yuv422p", false),
            ("nv12", 8, H264, "yuv420p", false),
            ("p010le", 10, H265, "yuv420p10le", false),
            ("yuv422p10le", 10, H264, "yuv422p10le", false),
            ("yuv422p12le", 12, H264, "yuv422p10le", true),
            ("yuv422p12le", 12, H265, "yuv422p12le", false),
            ("yuv420p9le", 9, H264, "yuv420p10le", true),
            ("gray16le", 16, H265, "gray12le", true),
            ("gray", 8, H264, "gray", false),
            ("ya8", 8, H264, "gray", true),
            ("rgb24", 8, H264, "yuv444p", true),
            ("bgr0", 8, H265, "gbrp", false),
            ("rgba", 8, H265, "gbrp", true),
            ("gbrp10le", 10, H265, "gbrp10le", false),
            ("pal8", 8, H264, "yuv444p", true),
            ("yuva420p", 8, H264, "yuv420p", true),
            ("yuv411p", 8, H264, "yuv444p", true),
            ("yuv410p", 8, H264, "yuv420p", true),
            ("yuv440p", 8, H264, "yuv444p", true),
            ("uyvy422", 8, H264, "yuv422p", false),
            ("yuv444p", 8, Av1, "yuv420p", true),
        ];
        for (source, depth, codec, wanted, noted) in table {
            let chosen = nearest_format(source, depth, codec);
            assert_eq!((chosen.0.as_str(), chosen.1.is_some()), (wanted, noted), "{source} by {codec:?}");
        }
    }
}
