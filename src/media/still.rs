//! Single pictures of an input, as JPEG, for people to look at.

use crate::media::decode::{Decoded, Decoder};
use crate::media::demux::{Demuxer, Depth, SeekTo};
use crate::media::error::{AGAIN, Result, allocated, check, refusal, refuse, words};
use crate::media::ffi;
use crate::media::filter::{Graph, Shape};
use crate::media::frame::{Frame, Packet};
use crate::media::input::Host;
use crate::media::look::refuse_encrypted;
use crate::media::probe::{first_video, rotation};
use crate::sandbox::protocol::{Limits, RefusalReason, Still, StillMade, StillReport, StillTask};
use std::path::Path;

const INTERNAL: RefusalReason = RefusalReason::Internal;
/// Decoding begins so long before the wanted time, seconds: pictures after a keyframe that is no clean one may refer to what
/// lies before it.
const LEAD_S: i64 = 10;
/// Of the scale 1 to 31 of libavcodec's JPEG: what it adds is not seen beside what is to be looked at.
const QUALITY: i32 = 2;
/// Pictures with a longer short side than this are BT.709 where nothing is said, as ITU-R BT.709 replaced BT.601 with HD.
const LARGEST_SD: u32 = 576;

/// Makes every picture of the task in the scratch folder.
///
/// # Errors
/// Media: an input has no video, or ends before a picture. Internal: a file cannot be written.
pub fn still(host: &dyn Host, limits: &Limits, scratch: &Path, task: &StillTask) -> Result<StillReport> {
    let mut made = Vec::with_capacity(task.stills.len());
    for (turn, wanted) in task.stills.iter().enumerate() {
        let (frame, turned) = picture(host, limits, wanted)?;
        let bytes = jpeg(&frame, turned, wanted)?;
        let failed = |e| refusal(INTERNAL, format!("a scratch file cannot be written: {e}"));
        std::fs::write(scratch.join(&wanted.file), &bytes).map_err(failed)?;
        made.push(StillMade { file: wanted.file.clone(), bytes: bytes.len() as u64 });
        host.progress(turn as u64 + 1);
    }
    Ok(StillReport { stills: made })
}

/// The wanted picture, and by how many degrees it is to be turned.
fn picture(host: &dyn Host, limits: &Limits, wanted: &Still) -> Result<(Frame, u16)> {
    if let Some(from) = wanted.from
        && let Some(found) = find(host, limits, wanted, Some(from))?
    {
        return Ok(found);
    }
    let found = find(host, limits, wanted, None)?;
    found.ok_or_else(|| refusal(RefusalReason::Media, "the input ends before the picture that is wanted"))
}

/// Looks from shortly before `near`, or from the beginning. None: the input ended, or the place it was gone to is too late.
fn find(host: &dyn Host, limits: &Limits, wanted: &Still, near: Option<i64>) -> Result<Option<(Frame, u16)>> {
    let mut demuxer = Demuxer::open(host, wanted.input, limits, Depth::Packets)?;
    let stream = first_video(&demuxer)?;
    demuxer.only(stream);
    let facts = demuxer.stream(stream)?;
    let (turned, base) = (rotation(facts), facts.time_base());
    let decoder = Decoder::open(facts, limits)?;
    if let Some(near) = near {
        let lead = LEAD_S.saturating_mul(base.den) / base.num.max(1);
        if !demuxer.seek(stream, SeekTo::Time(near.saturating_sub(lead))) {
            return Ok(None);
        }
    }
    let mut pictures = Pictures { demuxer, decoder, packet: Packet::new()?, stream, draining: false };
    let mut frame = Frame::new()?;
    let (mut before, mut counted) = (0, 0);
    while pictures.next(&mut frame)? {
        host.progress(0);
        if wanted.from.is_some_and(|from| frame.best_pts().is_none_or(|pts| pts < from)) {
            before += 1;
        } else if near.is_some() && before == 0 {
            return Ok(None);
        } else if counted == wanted.skip {
            return Ok(Some((frame, turned)));
        } else {
            counted += 1;
        }
        if before + counted > limits.max_frames {
            return refuse(RefusalReason::Limit, format!("it has more than {} frames", limits.max_frames));
        }
    }
    Ok(None)
}

/// The pictures of one stream, in presentation order.
struct Pictures<'h> {
    demuxer: Demuxer<'h>,
    decoder: Decoder,
    packet: Packet,
    stream: usize,
    draining: bool,
}

impl Pictures<'_> {
    /// False when there are no more. Damage is passed over.
    fn next(&mut self, frame: &mut Frame) -> Result<bool> {
        loop {
            match self.decoder.receive(frame) {
                Decoded::Frame => return Ok(true),
                Decoded::End => return Ok(false),
                Decoded::Hungry if self.draining => return Ok(false),
                Decoded::Hungry => self.feed()?,
                Decoded::Damaged(_) => {}
            }
        }
    }

    fn feed(&mut self) -> Result<()> {
        while self.demuxer.read(&mut self.packet)? {
            if self.packet.get().stream_index as usize == self.stream {
                refuse_encrypted(&self.packet, self.stream)?;
                self.decoder.send(Some(&self.packet));
                return Ok(());
            }
        }
        self.draining = true;
        self.decoder.send(None);
        Ok(())
    }
}

/// How the values of a frame are meant, as libswscale calls it.
fn matrix(frame: &Frame, wanted: &Still) -> &'static str {
    use ffi::AVColorSpace::{
        AVCOL_SPC_BT709, AVCOL_SPC_BT2020_CL, AVCOL_SPC_BT2020_NCL, AVCOL_SPC_SMPTE240M, AVCOL_SPC_UNSPECIFIED,
    };
    match frame.get().colorspace {
        AVCOL_SPC_BT709 => "bt709",
        AVCOL_SPC_BT2020_NCL | AVCOL_SPC_BT2020_CL => "bt2020",
        AVCOL_SPC_SMPTE240M => "smpte240m",
        // By the wanted size, which is the same for a source and for what was made of it.
        AVCOL_SPC_UNSPECIFIED if wanted.width.min(wanted.height) > LARGEST_SD => "bt709",
        _ => "bt601",
    }
}

/// The frame as a JPEG file.
fn jpeg(frame: &Frame, turned: u16, wanted: &Still) -> Result<Vec<u8>> {
    let size = (wanted.width, wanted.height);
    let mut graph = Graph::for_jpeg(&Shape::of(frame), turned, size, matrix(frame, wanted))?;
    graph.push(frame)?;
    graph.finish()?;
    let mut shown = Frame::new()?;
    if graph.pull(0, &mut shown)?.is_none() {
        return refuse(INTERNAL, "a filter kept a frame back");
    }
    shown.get_mut().pts = 0;
    let encoder = Jpeg::open(&shown)?;
    let packet = encoder.encode(&shown)?;
    Ok(packet.data().to_vec())
}

/// An open encoder of one picture.
struct Jpeg(*mut ffi::AVCodecContext);

impl Jpeg {
    fn open(frame: &Frame) -> Result<Self> {
        // SAFETY: a look-up by id.
        let codec = unsafe { ffi::avcodec_find_encoder(ffi::AVCodecID::AV_CODEC_ID_MJPEG) };
        if codec.is_null() {
            return refuse(INTERNAL, "libavcodec was built without its JPEG encoder");
        }
        // SAFETY: codec is not null; the context is ours and freed on drop; plain fields are set before it is opened. The
        // format is the one that the frame has, which libavfilter gave it.
        unsafe {
            let encoder = Self(allocated(ffi::avcodec_alloc_context3(codec), "an encoder")?);
            let c = encoder.0;
            (*c).width = frame.get().width;
            (*c).height = frame.get().height;
            (*c).pix_fmt = std::mem::transmute::<i32, ffi::AVPixelFormat>(frame.get().format);
            (*c).color_range = ffi::AVColorRange::AVCOL_RANGE_JPEG;
            (*c).time_base = ffi::AVRational { num: 1, den: 25 };
            (*c).thread_count = 1;
            (*c).flags |= (ffi::AV_CODEC_FLAG_QSCALE | ffi::AV_CODEC_FLAG_BITEXACT) as i32;
            (*c).global_quality = QUALITY * ffi::FF_QP2LAMBDA;
            check(ffi::avcodec_open2(c, codec, std::ptr::null_mut()), INTERNAL, "the JPEG encoder")?;
            Ok(encoder)
        }
    }

    fn encode(&self, frame: &Frame) -> Result<Packet> {
        let packet = Packet::new()?;
        // SAFETY: all are ours and open; a null frame means the end.
        let code = unsafe {
            check(ffi::avcodec_send_frame(self.0, frame.0), INTERNAL, "a JPEG")?;
            check(ffi::avcodec_send_frame(self.0, std::ptr::null()), INTERNAL, "a JPEG")?;
            ffi::avcodec_receive_packet(self.0, packet.0)
        };
        match code {
            0.. => Ok(packet),
            AGAIN => refuse(INTERNAL, "the JPEG encoder kept the picture"),
            code => refuse(INTERNAL, format!("a JPEG: {}", words(code))),
        }
    }
}

impl Drop for Jpeg {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { ffi::avcodec_free_context(&mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::fixture::{LocalHost, limits, make, run};

    /// Grey levels of 10 pictures a second of 20, and a keyframe every second.
    fn ramp(codec: &str, name: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(name);
        let source = "color=c=gray:s=128x96:r=10:d=20,format=yuv420p,geq=lum='30+N':cb=128:cr=128";
        make(&format!("-f lavfi -i {source} -c:v {codec} -g 10 -bitexact"), &file);
        (home, file)
    }

    fn wanted(from: Option<i64>, skip: u64) -> Still {
        Still { input: 0, from, skip, width: 64, height: 48, file: "a.jpg".into() }
    }

    /// Mean luma of the JPEG that is made, as the `ffmpeg` program reads it.
    fn luma(file: &Path, still_wanted: Still) -> f64 {
        let scratch = tempfile::tempdir().unwrap();
        let task = StillTask { stills: vec![still_wanted] };
        let report = still(&LocalHost::new(&[file]), &limits(), scratch.path(), &task).unwrap();
        let picture = scratch.path().join("a.jpg");
        let bytes = std::fs::read(&picture).unwrap();
        assert_eq!((&bytes[..3], bytes.len() as u64), (&[0xff, 0xd8, 0xff][..], report.stills[0].bytes));
        let pixels = run("ffmpeg", "-nostdin -v error -i {0} -f rawvideo -pix_fmt gray -", &[&picture]).stdout;
        assert_eq!(pixels.len(), 64 * 48);
        pixels.iter().map(|p| f64::from(*p)).sum::<f64>() / pixels.len() as f64
    }

    /// Full range of what is limited.
    fn full(luma: f64) -> f64 {
        (luma - 16.0) * 255.0 / 219.0
    }

    #[test]
    fn the_picture_is_the_one_at_its_time_and_the_one_so_many_after_it() {
        for (codec, name, ticks) in [("libx264 -crf 4 -bf 2", "a.mp4", 10240 / 10), ("ffv1", "a.mkv", 100)] {
            let (_home, file) = ramp(codec, name);
            for (from, skip, frame) in [
                (None, 0, 0.0),
                (None, 7, 7.0),
                (Some(0), 0, 0.0),
                (Some(153 * ticks), 0, 153.0),
                (Some(150 * ticks - ticks / 2), 4, 154.0),
            ] {
                let found = luma(&file, wanted(from, skip));
                assert!(
                    (found - full(30.0 + frame)).abs() < 0.8,
                    "{name}, {from:?}, {skip}: {found}, not {}",
                    full(30.0 + frame)
                );
            }
        }
    }

    #[test]
    fn a_picture_past_the_end_is_refused() {
        let (_home, file) = ramp("ffv1", "a.mkv");
        let scratch = tempfile::tempdir().unwrap();
        for past in [wanted(None, 200), wanted(Some(30_000), 0)] {
            let refused =
                still(&LocalHost::new(&[&file]), &limits(), scratch.path(), &StillTask { stills: vec![past] }).unwrap_err();
            assert_eq!(refused.reason, RefusalReason::Media);
        }
    }
}
