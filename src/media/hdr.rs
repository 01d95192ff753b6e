//! HDR metadata, read by the layout of `libavutil/mastering_display_metadata.h` (stable ABI since FFmpeg 3.1),
//! which the bindings leave out.

use crate::media::demux::rational;
use crate::media::ffi::AVRational;

/// SMPTE ST 2086.
#[repr(C)]
#[derive(Clone, Copy)]
struct MasteringDisplay {
    /// Red, green, blue; x and y.
    primaries: [[AVRational; 2]; 3],
    white_point: [AVRational; 2],
    min_luminance: AVRational,
    max_luminance: AVRational,
    has_primaries: libc::c_int,
    has_luminance: libc::c_int,
}

/// CTA-861.3, cd/m2.
#[repr(C)]
#[derive(Clone, Copy)]
struct ContentLight {
    max: libc::c_uint,
    average: libc::c_uint,
}

/// Side data as x265's `master-display`: chromaticities in units of 0.00002, luminances of 0.0001 cd/m2.
pub fn mastering_display(side_data: &[u8]) -> Option<String> {
    let m: MasteringDisplay = read(side_data)?;
    if m.has_primaries == 0 || m.has_luminance == 0 {
        return None;
    }
    let units = |r: AVRational, scale: f64| (rational(r).as_f64() * scale).round() as i64;
    let point = |p: [AVRational; 2]| format!("({},{})", units(p[0], 50_000.0), units(p[1], 50_000.0));
    let [red, green, blue] = m.primaries.map(point);
    let (brightest, darkest) = (units(m.max_luminance, 10_000.0), units(m.min_luminance, 10_000.0));
    Some(format!("G{green}B{blue}R{red}WP{}L({brightest},{darkest})", point(m.white_point)))
}

/// Side data as x265's `max-cll`: `max,average`.
pub fn content_light(side_data: &[u8]) -> Option<String> {
    let light: ContentLight = read(side_data)?;
    Some(format!("{},{}", light.max, light.average))
}

fn read<T: Copy>(bytes: &[u8]) -> Option<T> {
    // SAFETY: T is a plain struct of integers, any bits are a value, and there are enough of them.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_reads_as_x265_writes_it() {
        let words: Vec<i32> = [34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450]
            .iter()
            .flat_map(|&v| [v, 50_000])
            .chain([50, 10_000, 1000, 1, 1, 1])
            .collect();
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        assert_eq!(mastering_display(&bytes).unwrap(), "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)");
        assert_eq!(mastering_display(&bytes[..40]), None);
        let light: Vec<u8> = [1000u32, 400].iter().flat_map(|w| w.to_ne_bytes()).collect();
        assert_eq!(content_light(&light).unwrap(), "1000,400");
    }
}
