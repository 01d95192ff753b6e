//! What an encoder makes, decoded as it comes and judged beside what went in.

use crate::media::decode::{Coded, Decoded, Decoder};
use crate::media::encoder::Codec;
use crate::media::error::{Result, allocated, check, refusal, refuse};
use crate::media::ffi;
use crate::media::filter::{Graph, Shape, Target};
use crate::media::frame::{Frame, Packet};
use crate::plan::Rung;
use crate::plan::time::Rational;
use crate::quality::{Format, Model, QualityError, Vmaf};
use crate::sandbox::protocol::{EncodeTask, Limits, Refusal, RefusalReason};
use std::collections::VecDeque;

const INTERNAL: RefusalReason = RefusalReason::Internal;
/// Pictures that wait for their decoded likeness, at most: the longest look-ahead of any speed preset that is no slower
/// than `slow` (50), the B-pictures and the decoder's own delay.
const MOST_WAITING: usize = 72;
/// How a smaller picture is brought to the size in which it is judged: what scorers of the field use.
const SCALER: &str = "bicubic";

/// What the pictures of a rung are in memory.
pub fn format_of(rung: &Rung) -> Format {
    let bits = if rung.pixel_format.ends_with("10le") { 10 } else { 8 };
    Format { width: rung.width, height: rung.height, bits }
}

/// An open judge of one encoder.
pub struct Judge {
    decoder: Decoder,
    decoded: Frame,
    comparison: Comparison,
    /// What went in and has not come out, in presentation order.
    waiting: VecDeque<Waiting>,
    codec: CodedAs,
    scored_every: u32,
    expected: u32,
}

/// A picture that will be judged, or that is between those which are.
struct Waiting {
    reference: Frame,
    is_scored: bool,
    /// It was not decoded, as nobody would have looked at it.
    is_left_out: bool,
}

/// How to see whether a coded picture is one that others refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CodedAs {
    H264,
    H265,
    Other,
}

/// VMAF-NEG of pictures beside others, at those others' size.
pub struct Comparison {
    /// Brings pictures to the reference's size, where they have another.
    scaler: Option<Scaler>,
    vmaf: Vmaf,
    format: Format,
}

struct Scaler {
    target: Target,
    graph: Option<Graph>,
    scaled: Frame,
}

impl Judge {
    /// Judges what `codec` makes of `rung` beside pictures as those of `reference`; one in so many is scored.
    ///
    /// # Errors
    /// Internal: pictures of this format cannot be judged.
    pub(crate) fn open(task: &EncodeTask, codec: &Codec, rung: &Rung, reference: (&Rung, u32), limits: &Limits) -> Result<Self> {
        let scored_every = reference.1;
        let comparison = Comparison::open(rung, reference)?;
        let decoder = decoder_of(codec, task, limits)?;
        let codec = CodedAs::by(codec);
        let (decoded, waiting) = (Frame::new()?, VecDeque::new());
        Ok(Self { decoder, decoded, comparison, waiting, codec, scored_every, expected: 0 })
    }

    /// The encoder takes a picture of that output time, and this is what it will be judged beside. The samples are shared.
    ///
    /// # Errors
    /// Internal: the encoder holds back too many.
    pub fn expect(&mut self, reference: &Frame, time: i64) -> Result<()> {
        let mut reference = reference.shared()?;
        reference.get_mut().pts = time;
        let is_scored = self.expected.is_multiple_of(self.scored_every);
        self.expected += 1;
        self.waiting.push_back(Waiting { reference, is_scored, is_left_out: false });
        if self.waiting.len() > MOST_WAITING {
            return refuse(INTERNAL, format!("the encoder holds back more than {MOST_WAITING} pictures"));
        }
        Ok(())
    }

    /// Takes the encoder's next packet; none when there are no more.
    ///
    /// # Errors
    /// Internal: decoder or model fail, or pictures come out otherwise than they went in. The judge is spoilt.
    pub fn take(&mut self, packet: Option<&Packet>) -> Result<()> {
        if packet.is_some_and(|packet| self.leave_out(packet)) {
            return Ok(());
        }
        if let Decoded::Damaged(words) = self.decoder.send(packet) {
            return refuse(INTERNAL, format!("what was encoded cannot be decoded: {words}"));
        }
        loop {
            match self.decoder.receive(&mut self.decoded) {
                Decoded::Frame => self.judge()?,
                Decoded::Hungry | Decoded::End => return Ok(()),
                Decoded::Damaged(words) => return refuse(INTERNAL, format!("what was encoded cannot be decoded: {words}")),
            }
        }
    }

    /// As [`Comparison::finish`].
    ///
    /// # Errors
    /// Internal: pictures were lost, or none was scored.
    pub fn finish(mut self) -> Result<Vec<f64>> {
        self.take(None)?;
        self.pass_left_out()?;
        if !self.waiting.is_empty() {
            return refuse(INTERNAL, format!("{} pictures went in and never came out", self.waiting.len()));
        }
        self.comparison.finish()
    }

    /// Need this picture not be decoded: is it not scored, and does no other refer to it?
    fn leave_out(&mut self, packet: &Packet) -> bool {
        let own = self.waiting.iter_mut().find(|waiting| !waiting.is_scored && Some(waiting.reference.get().pts) == packet.pts());
        let Some(own) = own.filter(|_| !self.codec.is_referred_to(packet.data())) else { return false };
        own.is_left_out = true;
        true
    }

    /// Tells of the pictures that come next and were not decoded.
    fn pass_left_out(&mut self) -> Result<()> {
        while self.waiting.front().is_some_and(|waiting| waiting.is_left_out) {
            let Some(passed) = self.waiting.pop_front() else { break };
            self.comparison.push(&passed.reference, &passed.reference)?;
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<()> {
        self.pass_left_out()?;
        let own = self.waiting.pop_front().filter(|own| Some(own.reference.get().pts) == self.decoded.best_pts());
        let own = own.ok_or_else(|| refusal(INTERNAL, "pictures come out otherwise than they went in"))?;
        self.comparison.push(&own.reference, &self.decoded)
    }
}

impl CodedAs {
    fn by(codec: &Codec) -> Self {
        match codec.get().codec_id {
            ffi::AVCodecID::AV_CODEC_ID_H264 => CodedAs::H264,
            ffi::AVCodecID::AV_CODEC_ID_HEVC => CodedAs::H265,
            _ => CodedAs::Other,
        }
    }

    /// May another picture refer to this one, of these NAL units (Annex B)? True where that cannot be seen.
    fn is_referred_to(self, picture: &[u8]) -> bool {
        let headers = picture.windows(4).filter(|four| four[..3] == [0, 0, 1]).map(|four| four[3]);
        let mut slices = headers.filter_map(|header| match self {
            // ITU-T H.264, 7.4.1: nal_ref_idc of slices (types 1 to 5) is 0 where no other picture refers to them.
            CodedAs::H264 => (1..=5).contains(&(header & 0x1f)).then_some(header >> 5 & 3 != 0),
            // ITU-T H.265, table 7-1: of types 0 to 15 the even ones are "sub-layer non-reference", and there is one sub-layer.
            CodedAs::H265 => (header >> 1 & 0x3f < 32).then_some(header >> 1 & 0x3f > 15 || header >> 1 & 1 == 1),
            CodedAs::Other => Some(true),
        });
        slices.next().unwrap_or(true)
    }
}

impl Comparison {
    /// Compares pictures as those of `rung` with pictures as those of `reference`; one in so many is scored.
    ///
    /// # Errors
    /// Internal: pictures of this format cannot be judged.
    pub fn open(rung: &Rung, (reference, scored_every): (&Rung, u32)) -> Result<Self> {
        let format = format_of(reference);
        let vmaf = Vmaf::new(&[Model::Neg], format, scored_every).map_err(unjudged)?;
        let same_size = (rung.width, rung.height) == (reference.width, reference.height);
        let pixel_format = if format.bits == 8 { "yuv420p" } else { "yuv420p10le" };
        let target = Target { width: reference.width, height: reference.height, pixel_format, full_range: reference.full_range };
        let scaler = if same_size { None } else { Some(Scaler { target, graph: None, scaled: Frame::new()? }) };
        Ok(Self { scaler, vmaf, format })
    }

    /// Takes the next picture, and the one beside which it is judged. It is not looked at where it is not scored.
    ///
    /// # Errors
    /// Internal: it cannot be scaled or scored.
    pub fn push(&mut self, reference: &Frame, picture: &Frame) -> Result<()> {
        let picture = match &mut self.scaler {
            _ if !self.vmaf.scores_next() => reference,
            Some(scaler) => scaler.scale(picture)?,
            None => picture,
        };
        let (reference, distorted) = (reference.planes(&self.format), picture.planes(&self.format));
        let pair = reference.zip(distorted).ok_or_else(|| refusal(INTERNAL, "the pictures have another format"))?;
        self.vmaf.push(&pair.0, &pair.1).map_err(unjudged)
    }

    /// VMAF-NEG of every n-th picture after the first; of the first alone where there are no more. At least one.
    ///
    /// Without a picture before it the first seems to stand still, which costs it up to 9 points that it has where the
    /// chunks are joined.
    ///
    /// # Errors
    /// Internal: none was scored.
    pub fn finish(self) -> Result<Vec<f64>> {
        let scores = self.vmaf.finish().map_err(unjudged)?;
        let scores = scores.into_iter().next().map(|model| model.frames).filter(|frames| !frames.is_empty());
        let mut scores = scores.ok_or_else(|| refusal(INTERNAL, "no picture was scored"))?;
        if scores.len() > 1 {
            scores.remove(0);
        }
        Ok(scores)
    }
}

impl Scaler {
    fn scale(&mut self, frame: &Frame) -> Result<&Frame> {
        let shape = Shape::of(frame);
        let graph = match self.graph.take().filter(|graph| graph.fits(&shape)) {
            Some(open) => self.graph.insert(open),
            None => self.graph.insert(Graph::converter(&shape, 0, &self.target, SCALER)?),
        };
        graph.push(frame)?;
        match graph.pull(0, &mut self.scaled)? {
            Some(_) => Ok(&self.scaled),
            None => refuse(INTERNAL, "a picture was lost in scaling"),
        }
    }
}

/// A decoder of what this encoder makes.
fn decoder_of(codec: &Codec, task: &EncodeTask, limits: &Limits) -> Result<Decoder> {
    // SAFETY: the parameters are ours and freed here; the encoder is open, and the decoder copies what it is given.
    unsafe {
        let mut parameters = allocated(ffi::avcodec_parameters_alloc(), "parameters")?;
        let code = ffi::avcodec_parameters_from_context(parameters, codec.get());
        let opened = check(code, INTERNAL, "the probe's parameters").and_then(|_| {
            let time_base = Rational::new(1, i64::from(task.timescale));
            Decoder::open(Coded { parameters: &*parameters, stream: 0, time_base, frame_rate: task.frame_rate }, limits)
        });
        ffi::avcodec_parameters_free(&mut parameters);
        opened
    }
}

fn unjudged(error: QualityError) -> Refusal {
    refusal(INTERNAL, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::CodedAs;
    use crate::media::encode::encode;
    use crate::media::fixture::{LocalHost, encode_task, limits, make};
    use crate::sandbox::protocol::Verification;
    use serde_json::json;

    #[test]
    fn what_no_picture_refers_to_is_seen_in_its_first_slice() {
        let referred = |codec: CodedAs, header: u8| codec.is_referred_to(&[0, 0, 0, 1, 6, 0x80, 0, 0, 1, header, 0x10]);
        for (header, is) in [(0x01, false), (0x21, true), (0x41, true), (0x65, true), (0x09, true)] {
            assert_eq!(referred(CodedAs::H264, header), is, "{header:#x}");
        }
        // TRAIL_N, TSA_N, RASL_N; TRAIL_R, RASL_R, IDR_W_RADL, CRA, and no slice at all.
        for (header, is) in [(0, false), (2, false), (8, false), (1, true), (9, true), (19, true), (21, true), (35, true)] {
            assert_eq!(CodedAs::H265.is_referred_to(&[0, 0, 1, header << 1, 1]), is, "{header}");
        }
        assert!(referred(CodedAs::Other, 0x01) && CodedAs::H264.is_referred_to(&[]));
    }

    #[test]
    fn every_nth_picture_after_the_first_is_scored_as_if_all_were() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source.mp4");
        make(
            "-f lavfi -i mandelbrot=s=640x384:r=25 -vf crop=320:192:n*4:n*3 -frames:v 40 -pix_fmt yuv420p -c:v libx264 -qp 4",
            &source,
        );
        let measured = |codec: &str, scored_every: u32| {
            let rungs = json!([{ "height": 192, "crf": 30 }]);
            let mut task = encode_task(&source, folder.path(), codec, &[("video.rungs", rungs)]);
            task.verification = Some(Verification { reference: None, scored_every });
            encode(&LocalHost::new(&[&source]), &limits(), folder.path(), &task).unwrap().measured.unwrap()
        };
        // What is not scored is not decoded either, where no other picture refers to it.
        for codec in ["h264", "h265"] {
            let all = measured(codec, 1);
            assert_eq!(all.scores.len(), 39);
            for every in [2, 3, 4, 7] {
                let some: Vec<f64> = (1..40).filter(|n| n % every == 0).map(|n| all.scores[n - 1]).collect();
                assert_eq!(measured(codec, every as u32).scores, some, "{codec} {every}");
            }
        }
        // Of too few the first must do, which seems to stand still.
        let (all, first) = (measured("h264", 1), measured("h264", 40));
        assert_eq!(first.scores.len(), 1);
        assert!(first.vmaf_neg < all.scores[0] - 1.0, "{first:?} beside {}", all.scores[0]);
        assert!(first.cpu_s > 0.0, "what it took is told");
    }
}
