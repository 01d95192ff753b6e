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
    waiting: VecDeque<Frame>,
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
        let comparison = Comparison::open(rung, reference)?;
        let decoder = decoder_of(codec, task, limits)?;
        Ok(Self { decoder, decoded: Frame::new()?, comparison, waiting: VecDeque::new() })
    }

    /// The encoder takes a picture of that output time, and this is what it will be judged beside. The samples are shared.
    ///
    /// # Errors
    /// Internal: the encoder holds back too many.
    pub fn expect(&mut self, reference: &Frame, time: i64) -> Result<()> {
        let mut reference = reference.shared()?;
        reference.get_mut().pts = time;
        self.waiting.push_back(reference);
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
        if !self.waiting.is_empty() {
            return refuse(INTERNAL, format!("{} pictures went in and never came out", self.waiting.len()));
        }
        self.comparison.finish()
    }

    fn judge(&mut self) -> Result<()> {
        let own = self.waiting.pop_front().filter(|picture| Some(picture.get().pts) == self.decoded.best_pts());
        let own = own.ok_or_else(|| refusal(INTERNAL, "pictures come out otherwise than they went in"))?;
        self.comparison.push(&own, &self.decoded)
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

    /// Takes the next picture, and the one beside which it is judged.
    ///
    /// # Errors
    /// Internal: it cannot be scaled or scored.
    pub fn push(&mut self, reference: &Frame, picture: &Frame) -> Result<()> {
        let picture = match &mut self.scaler {
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
    use crate::media::encode::encode;
    use crate::media::fixture::{LocalHost, encode_task, limits, make};
    use crate::sandbox::protocol::Verification;
    use serde_json::json;

    #[test]
    fn every_nth_picture_after_the_first_is_scored_as_if_all_were() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source.mp4");
        make(
            "-f lavfi -i mandelbrot=s=640x384:r=25 -vf crop=320:192:n*4:n*3 -frames:v 40 -pix_fmt yuv420p -c:v libx264 -qp 4",
            &source,
        );
        let mut task = encode_task(&source, folder.path(), "h264", &[("video.rungs", json!([{ "height": 192, "crf": 30 }]))]);
        let mut scores = |scored_every: u32| {
            task.verification = Some(Verification { reference: None, scored_every });
            encode(&LocalHost::new(&[&source]), &limits(), folder.path(), &task).unwrap().measured.unwrap()
        };
        let all = scores(1);
        assert_eq!(all.scores.len(), 39);
        assert_eq!(scores(7).scores, [7, 14, 21, 28, 35].map(|picture| all.scores[picture - 1]));
        // Of too few the first must do, which seems to stand still.
        let first = scores(40);
        assert_eq!(first.scores.len(), 1);
        assert!(first.vmaf_neg < all.scores[0] - 1.0, "{first:?} beside {}", all.scores[0]);
        assert!(first.cpu_s > 0.0, "what it took is told");
    }
}
