//! Regions of interest as libavcodec's encoders are told of them: side data of every picture.

use crate::media::error::{Result, allocated, c};
use crate::media::ffi;
use crate::media::frame::Frame;
use crate::plan::Rung;
use crate::plan::interest::Region;

/// What the encoder of a rung is told of its pictures; nothing, where they have no regions.
#[derive(Default)]
pub(crate) struct Interest {
    regions: Vec<ffi::AVRegionOfInterest>,
}

impl Interest {
    pub fn new(rung: &Rung) -> Self {
        // Offsets are told as shares of the quantiser's whole range, by which libx264.c and libx265.c of libavcodec 59 multiply.
        let format = c(&rung.pixel_format);
        // SAFETY: a look-up by name, and in a static table that answers null to what it does not know.
        let depth =
            unsafe { ffi::av_pix_fmt_desc_get(ffi::av_get_pix_fmt(format.as_ptr())).as_ref() }.map_or(8, |d| d.comp[0].depth);
        let tenths = 10 * (51 + 6 * (depth - 8));
        let told = |region: &Region| ffi::AVRegionOfInterest {
            self_size: size_of::<ffi::AVRegionOfInterest>() as u32,
            top: region.top as i32,
            bottom: region.bottom as i32,
            left: region.left as i32,
            right: region.right as i32,
            qoffset: ffi::AVRational { num: (region.qp_offset * 10).clamp(-tenths, tenths), den: tenths },
        };
        Self { regions: rung.interest.iter().map(told).collect() }
    }

    /// The next picture with its regions; `None` where it has none and goes as it is.
    ///
    /// # Errors
    /// Out of memory.
    pub fn told(&self, frame: &Frame) -> Result<Option<Frame>> {
        let regions = &self.regions;
        if regions.is_empty() {
            return Ok(None);
        }
        // Its samples may be another rung's, too; what is said of them is this one's.
        let told = frame.shared()?;
        let bytes = size_of_val(regions.as_slice());
        let kind = ffi::AVFrameSideDataType::AV_FRAME_DATA_REGIONS_OF_INTEREST;
        // SAFETY: the frame is ours, and the data has room for exactly these.
        unsafe {
            let data = allocated(ffi::av_frame_new_side_data(told.0, kind, bytes), "regions of a picture")?;
            std::ptr::copy_nonoverlapping(regions.as_ptr().cast::<u8>(), (*data).data, bytes);
        }
        Ok(Some(told))
    }
}

#[cfg(test)]
mod tests {
    use crate::media::encode::encode;
    use crate::media::fixture::{LocalHost, encode_task, encoded, limits, lines, make, run};
    use serde_json::{Value, json};
    use std::path::Path;

    /// PSNR of the left and of the right half in dB, and bytes.
    fn halves(source: &Path, folder: &Path, preset: &str, interest: &Value) -> ([f64; 2], usize) {
        let rungs = json!([{ "height": 192, "crf": 36 }]);
        let set = [("video.rungs", rungs), ("video.interest", interest.clone()), ("video.speed", "fast".into())];
        let made = encoded(source, folder, preset, &set).swap_remove(0);
        let joined = folder.join("made.mp4");
        std::fs::write(&joined, &made).unwrap();
        let half = |x: &str| {
            let graph = format!("[0:v]crop=iw/2:ih:{x}:0[a];[1:v]crop=iw/2:ih:{x}:0[b];[a][b]psnr");
            let words = format!("-nostdin -v info -i {{0}} -i {{1}} -filter_complex {graph} -f null -");
            let said = String::from_utf8(run("ffmpeg", &words, &[&joined, source]).stderr).unwrap();
            let y = said.split("PSNR y:").nth(1).unwrap().split_whitespace().next().unwrap();
            y.parse::<f64>().unwrap()
        };
        ([half("0"), half("iw/2")], made.len())
    }

    #[test]
    fn a_region_is_better_than_the_rest_by_both_encoders() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source.mp4");
        make("-f lavfi -i mandelbrot=s=320x192:r=25 -t 1 -pix_fmt yuv420p -c:v libx264 -qp 4", &source);
        for preset in ["h265", "h264"] {
            let of = |interest: Value| halves(&source, folder.path(), preset, &interest);
            let right = |qp_offset: i32| json!([{ "x": 0.5, "y": 0, "width": 0.5, "height": 1, "qp_offset": qp_offset }]);
            let (plain, bytes) = of(json!([]));
            let (better, more) = of(right(-9));
            let (worse, less) = of(right(9));
            assert!(better[1] > plain[1] + 2.0 && worse[1] < plain[1] - 2.0, "{preset}: {plain:?} {better:?} {worse:?}");
            assert!(
                (better[0] - plain[0]).abs() < 1.0 && (worse[0] - plain[0]).abs() < 1.0,
                "{preset}: {plain:?} {better:?} {worse:?}"
            );
            assert!(less < bytes && bytes < more, "{preset}: {less} {bytes} {more}");
            // The first of two that overlap.
            let both = [right(-9), right(9)].iter().flat_map(|regions| regions.as_array().unwrap().clone()).collect();
            assert_eq!(of(both), (better, more), "{preset}");
        }
    }

    #[test]
    fn a_chunks_first_picture_is_as_good_as_a_key_picture_amid_an_encode() {
        let folder = tempfile::tempdir().unwrap();
        let [all, later] = ["all.mp4", "later.mp4"].map(|name| folder.path().join(name));
        let noisy = "-f lavfi -i mandelbrot=s=640x384:r=25:end_scale=0.01 -vf noise=alls=3:all_seed=5";
        let lossless = "-frames:v {frames} -pix_fmt yuv420p -c:v libx264 -qp 0 -preset ultrafast";
        make(&format!("{noisy} {}", lossless.replace("{frames}", "50")), &all);
        make(&format!("{noisy},select=gte(n\\,25),setpts=N/25/TB {}", lossless.replace("{frames}", "25")), &later);
        for preset in ["h265", "h264"] {
            // Sizes of the key pictures.
            let keys = |source: &Path, has_offset: bool| -> Vec<f64> {
                let rungs = json!([{ "height": 384, "crf": 30 }]);
                let set = [("video.rungs", rungs), ("video.speed", "fast".into()), ("packaging.segment_s", 1.into())];
                let mut task = encode_task(source, folder.path(), preset, &set);
                if !has_offset {
                    task.rungs[0].encoder.first_picture_qp_tenths = 0;
                }
                let report = encode(&LocalHost::new(&[source]), &limits(), folder.path(), &task).unwrap();
                let parts = report.rungs[0].segments.iter().map(|segment| &segment.file);
                let parts = std::iter::once(&report.rungs[0].init.file).chain(parts);
                let whole: Vec<u8> = parts.flat_map(|file| std::fs::read(folder.path().join(file)).unwrap()).collect();
                let joined = folder.path().join("made.mp4");
                std::fs::write(&joined, whole).unwrap();
                let packets = "-v error -select_streams v -show_entries packet=flags,size -of csv=p=0 {0}";
                let keys = lines("ffprobe", packets, &joined).into_iter().filter(|line| line.contains('K'));
                keys.map(|line| line.split(',').next().unwrap().parse().unwrap()).collect()
            };
            let amid = keys(&all, true);
            assert_eq!(amid.len(), 2, "{preset}");
            let (told, untold) = (keys(&later, true)[0], keys(&later, false)[0]);
            let lacks = |size: f64| 1.0 - size / amid[1];
            assert!(
                lacks(untold) > 0.05 && lacks(told).abs() < lacks(untold) / 2.0,
                "{preset}: {told}, {untold} beside {}",
                amid[1]
            );
        }
    }
}
