//! The ladder that a title would get whatever it shows: what a decision is held against.

use super::super::preset::VideoCodec;

/// A rung: short side of its picture, pixels, and its rate, kbit/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FixedRung {
    pub short_side: u32,
    pub kbps: f64,
}

/// Rates of the HLS authoring specification for Apple devices, which services took over as they are.
const H265: [(u32, f64); 9] = [
    (1080, 5800.0),
    (1080, 4500.0),
    (720, 3400.0),
    (720, 2400.0),
    (540, 1600.0),
    (432, 900.0),
    (360, 600.0),
    (234, 300.0),
    (234, 145.0),
];
/// The same for H.264.
const H264: [(u32, f64); 9] = [
    (1080, 7800.0),
    (1080, 6000.0),
    (720, 4500.0),
    (720, 3000.0),
    (540, 2000.0),
    (432, 1100.0),
    (360, 730.0),
    (234, 365.0),
    (234, 145.0),
];

fn rungs(codec: VideoCodec) -> &'static [(u32, f64)] {
    match codec {
        VideoCodec::H265 => &H265,
        VideoCodec::H264 => &H264,
        VideoCodec::Av1 => &[],
    }
}

/// The fixed ladder of a codec for pictures of that short side: rungs above it are left out. Empty for a codec that has none.
pub fn ladder(codec: VideoCodec, short_side: u32) -> Vec<FixedRung> {
    let fitting = rungs(codec).iter().filter(|(side, _)| *side <= short_side);
    fitting.map(|(short_side, kbps)| FixedRung { short_side: *short_side, kbps: *kbps }).collect()
}

/// What a fixed ladder would spend on its best rung of exactly that short side, bits a second: between the sides that it has,
/// and beyond them, by the power of the side that joins the two nearest. None for a codec that has no such ladder.
pub fn top_rate_bps(codec: VideoCodec, short_side: u32) -> Option<f64> {
    let mut best: Vec<(f64, f64)> = Vec::new();
    for (side, kbps) in rungs(codec) {
        let side = libm::log(f64::from(*side));
        if best.last().is_none_or(|last| side < last.0) {
            best.push((side, libm::log(kbps * 1000.0)));
        }
    }
    let at = libm::log(f64::from(short_side.max(1)));
    let pair = best.windows(2).find(|pair| pair[1].0 <= at).or(best.windows(2).last())?;
    let power = (pair[0].1 - pair[1].1) / (pair[0].0 - pair[1].0);
    Some(libm::exp(pair[0].1 + power * (at - pair[0].0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_above_the_source_are_left_out() {
        assert_eq!(ladder(VideoCodec::H265, 2160).len(), 9);
        let below = ladder(VideoCodec::H264, 719);
        assert_eq!(below[0], FixedRung { short_side: 540, kbps: 2000.0 });
        assert_eq!(below.iter().map(|rung| rung.kbps).sum::<f64>(), 2000.0 + 1100.0 + 730.0 + 365.0 + 145.0);
        assert_eq!([ladder(VideoCodec::H265, 192), ladder(VideoCodec::Av1, 1080)], [vec![], vec![]]);
    }

    #[test]
    fn what_the_best_rung_of_a_size_would_spend_follows_the_sizes_around_it() {
        let kbps = |side| (top_rate_bps(VideoCodec::H265, side).unwrap() / 1000.0).round();
        assert_eq!([1080, 720, 540, 234].map(kbps), [5800.0, 3400.0, 1600.0, 300.0]);
        assert!((600.0..900.0).contains(&kbps(400)) && kbps(400) > kbps(390));
        // By the power that joins 1080 and 720, and by that which joins 360 and 234.
        assert_eq!([2160, 117].map(kbps), [14453.0, 98.0]);
        assert_eq!(top_rate_bps(VideoCodec::Av1, 1080), None);
    }
}
