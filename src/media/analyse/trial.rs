//! One encode that is made to be measured.

use crate::media::encode::cpu_seconds;
use crate::media::encoder::Codec;
use crate::media::error::Result;
use crate::media::ffi;
use crate::media::frame::Frame;
use crate::media::judge::Judge;
use crate::plan::Rung;
use crate::plan::narrowband::curve::{LEAST_LOSS, LOST_VMAF};
use crate::plan::narrowband::{ProbePoint, loss_of, quality_of};
use crate::sandbox::protocol::{AnalyseSpent, EncodeTask, Limits};

/// The ratio of two trials' key pictures speaks for this part of the bits of which only one trial knows.
const WEIGHT_OF_KEY: f64 = 0.1;

/// What to try.
pub struct Wanted<'w> {
    pub rung: &'w Rung,
    /// That of the rung's settings.
    pub crf: f64,
    /// The picture it is judged beside.
    pub reference: &'w Rung,
    /// Pictures from the first on.
    pub most: u64,
}

/// An open trial.
pub struct Trial {
    pub number: usize,
    pub crf: f64,
    /// Which of the pictures is encoded, and beside which it is judged.
    places: (usize, usize),
    codec: Codec,
    judge: Judge,
    /// Pictures it takes yet.
    left: u64,
    /// Of every picture its time and bits, as they come out.
    coded: Vec<(i64, u64)>,
}

/// What came of a trial.
pub struct Tried {
    pub crf: f64,
    /// Bits of each picture, in the order in which they are shown.
    bits: Vec<u64>,
    /// As the judge tells them: those of the same pictures in every trial with as many.
    scores: Vec<f64>,
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
        Ok(Self { number, crf: wanted.crf, places, codec, judge, left: wanted.most, coded: Vec::new() })
    }

    /// Takes the pictures of the next output time, in all sizes, where it wants more; `starts` a segment, as it would in the real
    /// encode.
    ///
    /// # Errors
    /// Internal: encoder, decoder or judge fail. The trial is spoilt.
    pub fn push(&mut self, pictures: &[Frame], time: i64, starts: bool, spent: &mut AnalyseSpent) -> Result<()> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(()) };
        self.left = left;
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

    /// Ends the trial.
    ///
    /// # Errors
    /// Internal: as above, or pictures were lost.
    pub fn finish(mut self, spent: &mut AnalyseSpent) -> Result<Tried> {
        let began = cpu_seconds();
        self.codec.send(None)?;
        spent.probe_s += cpu_seconds() - began;
        self.take_packets(spent)?;
        let began = cpu_seconds();
        let scores = self.judge.finish()?;
        spent.score_s += cpu_seconds() - began;
        self.coded.sort_unstable_by_key(|(time, _)| *time);
        Ok(Tried { crf: self.crf, bits: self.coded.into_iter().map(|(_, bits)| bits).collect(), scores })
    }

    fn take_packets(&mut self, spent: &mut AnalyseSpent) -> Result<()> {
        loop {
            let began = cpu_seconds();
            let packet = self.codec.receive()?;
            spent.probe_s += cpu_seconds() - began;
            let Some(packet) = packet else { return Ok(()) };
            self.coded.push((packet.get().pts, packet.data().len() as u64 * 8));
            let began = cpu_seconds();
            self.judge.take(Some(&packet))?;
            spent.score_s += cpu_seconds() - began;
        }
    }
}

impl Tried {
    /// The point that was measured; where there are `whole` pictures, and they were not all tried, as if the others were like those
    /// after the first.
    pub fn point(&self, whole: u64) -> ProbePoint {
        let (tried, all) = (self.bits.len() as u64, self.bits.iter().sum::<u64>());
        let first = self.bits.first().copied().unwrap_or(0);
        let bits = if tried < 2 || whole <= tried {
            all
        } else {
            first + (u128::from(all - first) * u128::from(whole - 1) / u128::from(tried - 1)) as u64
        };
        ProbePoint { crf: self.crf, bits, vmaf_neg: mean(&self.scores) }
    }

    /// The point of a trial of the chunk's first pictures beside one of more of them: as if it went on to differ from that one by
    /// the ratio of the bits after the key picture, and of the losses of the later half of what it tried. (Next to the key picture
    /// quality still settles, in a good picture otherwise than in a poor one.)
    pub fn point_beside(&self, longer: &Tried, whole: u64) -> ProbePoint {
        let loss = |scores: &[f64]| loss_of(mean(scores).max(LOST_VMAF)).max(LEAST_LOSS);
        let scored = self.scores.len().min(longer.scores.len());
        if self.bits.len() >= longer.bits.len() || scored == 0 {
            return self.point(whole);
        }
        let bits = self.bits_beside(longer, longer.point(whole).bits);
        let settled = scored / 2..scored;
        let ratio = loss(&self.scores[settled.clone()]) / loss(&longer.scores[settled]);
        let (rest_scores, tried) = (&longer.scores[scored..], mean(&self.scores[..scored]) * scored as f64);
        let further = quality_of(loss(rest_scores) * ratio) * rest_scores.len() as f64;
        ProbePoint { crf: self.crf, bits, vmaf_neg: (tried + further) / longer.scores.len() as f64 }
    }

    /// Bits of all of the chunk, where the longer trial's come to `whole_bits`.
    ///
    /// What every picture costs, whatever is in it, does not fall with quality and is set apart; of two halves that stand still
    /// but for a cut in the later one, the first says nothing else. Where little was seen beside what was not, the ratio of the key
    /// pictures speaks with it.
    fn bits_beside(&self, longer: &Tried, whole_bits: u64) -> u64 {
        let ([own_key, own @ ..], [key, others @ ..]) = (&self.bits[..], &longer.bits[..]) else { return whole_bits };
        let (seen, unseen) = others.split_at(own.len().min(others.len()));
        let least = own.iter().min().copied().unwrap_or(0);
        let above = |bits: &[u64]| bits.iter().map(|bits| bits.saturating_sub(least)).sum::<u64>() as f64;
        let doubt = above(unseen) * WEIGHT_OF_KEY;
        let of_keys = (*own_key as f64 / (*key).max(1) as f64).min(1.0);
        let ratio = (above(own) + doubt * of_keys) / (above(seen) + doubt).max(1.0);
        let further = above(unseen) * ratio + least as f64 * unseen.len() as f64;
        // Pictures beyond the longer trial are like its own.
        let beyond = (whole_bits - key) as f64 / (others.iter().sum::<u64>().max(1)) as f64;
        own_key + ((own.iter().sum::<u64>() as f64 + further) * beyond).round() as u64
    }
}

fn mean(scores: &[f64]) -> f64 {
    scores.iter().sum::<f64>() / scores.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_trial_goes_on_to_differ_as_it_did() {
        let longer = Tried { crf: 26.0, bits: vec![900, 50, 50, 100, 300, 100], scores: vec![90.0, 92.0, 97.0] };
        let shorter = Tried { crf: 38.0, bits: vec![300, 20, 30], scores: vec![70.0] };
        let point = shorter.point_beside(&longer, 6);
        // 20 bits a picture fall to none. Above them 10 of 60 are kept, and with a tenth of the unseen 440 by that of the keys 24.67 of
        // 104.
        assert_eq!((point.crf, point.bits), (38.0, 300 + 50 + 60 + 104));
        let further = quality_of(loss_of(94.5) * loss_of(70.0) / loss_of(90.0));
        assert!((point.vmaf_neg - (70.0 + 2.0 * further) / 3.0).abs() < 1e-9 && point.vmaf_neg > 75.0, "{point:?}");
        // What was tried of as many pictures is as it was measured.
        assert_eq!(longer.point_beside(&longer, 6), ProbePoint { crf: 26.0, bits: 1500, vmaf_neg: 93.0 });
        assert_eq!(shorter.point_beside(&shorter, 5), ProbePoint { crf: 38.0, bits: 400, vmaf_neg: 70.0 });
    }

    #[test]
    fn a_still_beginning_does_not_speak_for_what_moves_after_it() {
        let moving = [vec![40_000, 120, 130, 110, 120], vec![20_000; 5]].concat();
        let longer = Tried { crf: 26.0, bits: moving, scores: vec![95.0; 10] };
        let shorter = Tried { crf: 38.0, bits: vec![14_000, 100, 100, 100, 100], scores: vec![80.0; 5] };
        // By the little that the pictures seen cost 100 000 would stay 83 000.
        let bits = shorter.point_beside(&longer, 10).bits;
        assert!((45_000..52_000).contains(&bits), "{bits}");
        let none = Tried { crf: 38.0, bits: vec![0; 5], scores: vec![80.0; 5] };
        assert_eq!(none.point_beside(&Tried { bits: vec![0; 10], ..longer }, 10).bits, 0);
    }

    #[test]
    fn pictures_that_lose_nothing_or_all_are_beside_each_other_all_the_same() {
        let of = |scores: [f64; 2], bits: usize| Tried { crf: 30.0, bits: vec![8; bits], scores: scores.to_vec() };
        let beside = |own: [f64; 2], other: [f64; 2]| of(own, 4).point_beside(&of(other, 8), 8).vmaf_neg;
        assert!((99.8..=100.0).contains(&beside([100.0; 2], [100.0; 2])));
        assert!((0.0..=1.1).contains(&beside([0.0; 2], [0.0; 2])));
        assert!(beside([0.0; 2], [100.0; 2]) <= 1.1);
    }
}
