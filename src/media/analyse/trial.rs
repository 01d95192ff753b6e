//! One encode that is made to be measured.

use crate::media::encode::cpu_seconds;
use crate::media::encoder::Codec;
use crate::media::error::Result;
use crate::media::ffi;
use crate::media::frame::Frame;
use crate::media::judge::Judge;
use crate::plan::Rung;
use crate::plan::narrowband::ProbePoint;
use crate::sandbox::protocol::{AnalyseSpent, EncodeTask, Limits};

/// What to try.
pub struct Wanted<'w> {
    pub rung: &'w Rung,
    /// That of the rung's settings.
    pub crf: f64,
    /// The picture it is judged beside.
    pub reference: &'w Rung,
}

/// An open trial.
pub struct Trial {
    pub number: usize,
    pub crf: f64,
    /// Which of the pictures is encoded, and beside which it is judged.
    places: (usize, usize),
    codec: Codec,
    judge: Judge,
    bits: u64,
    /// Of these those of the first picture, and how many pictures there were.
    first_bits: u64,
    pictures: u64,
}

impl Trial {
    /// # Errors
    /// Settings: the encoder does not take them. Internal: pictures of this format cannot be judged.
    pub fn open(
        task: &EncodeTask,
        number: usize,
        wanted: &Wanted<'_>,
        places: (usize, usize),
        scored_every: u32,
        limits: &Limits,
    ) -> Result<Self> {
        let codec = Codec::open(task, wanted.rung)?;
        let judge = Judge::open(task, &codec, wanted.rung, (wanted.reference, scored_every), limits)?;
        Ok(Self { number, crf: wanted.crf, places, codec, judge, bits: 0, first_bits: 0, pictures: 0 })
    }

    /// Takes the pictures of the next output time, in all sizes; `starts` a segment, as it would in the real encode.
    ///
    /// # Errors
    /// Internal: encoder, decoder or judge fail. The trial is spoilt.
    pub fn push(&mut self, pictures: &[Frame], time: i64, starts: bool, spent: &mut AnalyseSpent) -> Result<()> {
        let began = cpu_seconds();
        let mut picture = pictures[self.places.0].shared()?;
        let raw = picture.get_mut();
        raw.pts = time;
        raw.pict_type = if starts { ffi::AVPictureType::AV_PICTURE_TYPE_I } else { ffi::AVPictureType::AV_PICTURE_TYPE_NONE };
        raw.key_frame = i32::from(starts);
        self.judge.expect(&pictures[self.places.1], time)?;
        self.codec.send(Some(&picture))?;
        spent.probe_s += cpu_seconds() - began;
        self.take_packets(spent)
    }

    /// The point that was measured; where there are `whole` pictures, and they were not all tried, as if the others were like those
    /// after the first.
    ///
    /// # Errors
    /// Internal: as above, or pictures were lost.
    pub fn finish(mut self, whole: u64, spent: &mut AnalyseSpent) -> Result<ProbePoint> {
        let began = cpu_seconds();
        self.codec.send(None)?;
        spent.probe_s += cpu_seconds() - began;
        self.take_packets(spent)?;
        let (crf, bits) = (self.crf, self.bits_of(whole));
        let began = cpu_seconds();
        let scores = self.judge.finish()?;
        spent.score_s += cpu_seconds() - began;
        Ok(ProbePoint { crf, bits, vmaf_neg: scores.iter().sum::<f64>() / scores.len() as f64 })
    }

    fn bits_of(&self, whole: u64) -> u64 {
        let (tried, rest) = (self.pictures.saturating_sub(1), self.bits - self.first_bits);
        if tried == 0 || whole <= self.pictures {
            return self.bits;
        }
        self.first_bits + (u128::from(rest) * u128::from(whole - 1) / u128::from(tried)) as u64
    }

    fn take_packets(&mut self, spent: &mut AnalyseSpent) -> Result<()> {
        loop {
            let began = cpu_seconds();
            let packet = self.codec.receive()?;
            spent.probe_s += cpu_seconds() - began;
            let Some(packet) = packet else { return Ok(()) };
            let bits = packet.data().len() as u64 * 8;
            if self.pictures == 0 {
                self.first_bits = bits;
            }
            self.bits += bits;
            self.pictures += 1;
            let began = cpu_seconds();
            self.judge.take(Some(&packet))?;
            spent.score_s += cpu_seconds() - began;
        }
    }
}
