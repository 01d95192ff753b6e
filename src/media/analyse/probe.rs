//! One probe: a fast encode of the chunk, decoded as it comes and judged beside what went in.

use crate::media::decode::{Coded, Decoded, Decoder};
use crate::media::encode::cpu_seconds;
use crate::media::encoder::Codec;
use crate::media::error::{Result, allocated, check, refusal, refuse};
use crate::media::ffi;
use crate::media::frame::{Frame, Packet};
use crate::plan::narrowband::ProbePoint;
use crate::plan::time::Rational;
use crate::quality::{Format, Model, QualityError, Vmaf, pool};
use crate::sandbox::protocol::{AnalyseSpent, EncodeTask, Limits, Refusal, RefusalReason};
use std::collections::VecDeque;

const INTERNAL: RefusalReason = RefusalReason::Internal;
/// Pictures that wait for their decoded likeness, at most: the longest look-ahead of any speed preset that is no slower
/// than `slow` (50), the B-pictures and the decoder's own delay.
const MOST_WAITING: usize = 72;

/// An open probe.
pub struct Probe {
    pub crf: f64,
    codec: Codec,
    decoder: Decoder,
    decoded: Frame,
    vmaf: Vmaf,
    format: Format,
    /// What went in and has not come out, in presentation order. The samples are shared with the other probes.
    waiting: VecDeque<Frame>,
    bits: u64,
}

impl Probe {
    /// The probe of that number among the task's rungs; one picture in `format.1` is scored.
    ///
    /// # Errors
    /// Settings: the encoder does not take them. Internal: pictures of this format cannot be judged.
    pub fn open(task: &EncodeTask, number: usize, crf: f64, format: (Format, u32), limits: &Limits) -> Result<Self> {
        let (format, scored_every) = format;
        let vmaf = Vmaf::new(&[Model::Neg], format, scored_every).map_err(unjudged)?;
        let codec = Codec::open(task, &task.rungs[number])?;
        let decoder = decoder_of(&codec, task, limits)?;
        Ok(Self { crf, codec, decoder, decoded: Frame::new()?, vmaf, format, waiting: VecDeque::new(), bits: 0 })
    }

    /// Takes the next picture, of that output time; `starts` a segment, as it would in the real encode.
    ///
    /// # Errors
    /// Internal: encoder, decoder or judge fail. The probe is spoilt.
    pub fn push(&mut self, picture: &Frame, time: i64, starts: bool, spent: &mut AnalyseSpent) -> Result<()> {
        let began = cpu_seconds();
        let mut picture = picture.shared()?;
        let raw = picture.get_mut();
        raw.pts = time;
        raw.pict_type = if starts { ffi::AVPictureType::AV_PICTURE_TYPE_I } else { ffi::AVPictureType::AV_PICTURE_TYPE_NONE };
        raw.key_frame = i32::from(starts);
        self.codec.send(Some(&picture))?;
        self.waiting.push_back(picture);
        spent.probe_s += cpu_seconds() - began;
        if self.waiting.len() > MOST_WAITING {
            return refuse(INTERNAL, format!("the encoder holds back more than {MOST_WAITING} pictures"));
        }
        self.take_packets(spent)
    }

    /// The point that was measured.
    ///
    /// # Errors
    /// Internal: as above, or pictures were lost.
    pub fn finish(mut self, spent: &mut AnalyseSpent) -> Result<ProbePoint> {
        self.codec.send(None)?;
        self.take_packets(spent)?;
        self.decode(None, spent)?;
        if !self.waiting.is_empty() {
            return refuse(INTERNAL, format!("{} pictures went in and never came out", self.waiting.len()));
        }
        let began = cpu_seconds();
        let scores = self.vmaf.finish().map_err(unjudged)?;
        spent.score_s += cpu_seconds() - began;
        let pooled = scores.first().and_then(|model| pool(&model.frames));
        let pooled = pooled.ok_or_else(|| refusal(INTERNAL, "no picture was scored"))?;
        Ok(ProbePoint { crf: self.crf, bits: self.bits, vmaf_neg: pooled.mean })
    }

    fn take_packets(&mut self, spent: &mut AnalyseSpent) -> Result<()> {
        loop {
            let began = cpu_seconds();
            let packet = self.codec.receive()?;
            spent.probe_s += cpu_seconds() - began;
            let Some(packet) = packet else { return Ok(()) };
            self.bits += packet.data().len() as u64 * 8;
            self.decode(Some(&packet), spent)?;
        }
    }

    fn decode(&mut self, packet: Option<&Packet>, spent: &mut AnalyseSpent) -> Result<()> {
        let began = cpu_seconds();
        let sent = self.decoder.send(packet);
        spent.probe_s += cpu_seconds() - began;
        if let Decoded::Damaged(words) = sent {
            return refuse(INTERNAL, format!("a probe cannot be decoded: {words}"));
        }
        loop {
            let began = cpu_seconds();
            let decoded = self.decoder.receive(&mut self.decoded);
            spent.probe_s += cpu_seconds() - began;
            match decoded {
                Decoded::Frame => self.judge(spent)?,
                Decoded::Hungry | Decoded::End => return Ok(()),
                Decoded::Damaged(words) => return refuse(INTERNAL, format!("a probe cannot be decoded: {words}")),
            }
        }
    }

    fn judge(&mut self, spent: &mut AnalyseSpent) -> Result<()> {
        let began = cpu_seconds();
        let own = self.waiting.pop_front().filter(|picture| Some(picture.get().pts) == self.decoded.best_pts());
        let own = own.ok_or_else(|| refusal(INTERNAL, "a probe's pictures come out otherwise than they went in"))?;
        let (reference, distorted) = (own.planes(&self.format), self.decoded.planes(&self.format));
        let pair = reference.zip(distorted).ok_or_else(|| refusal(INTERNAL, "a probe's pictures have another format"))?;
        self.vmaf.push(&pair.0, &pair.1).map_err(unjudged)?;
        spent.score_s += cpu_seconds() - began;
        Ok(())
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
