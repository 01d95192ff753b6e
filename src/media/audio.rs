//! One audio rendition over the whole source: decoded, put on a sample clock, encoded, cut into CMAF segments.
//!
//! Never by chunks: an encoder that starts anew in the middle clicks, and its priming would drift the sound.
//! [`clock`] says where each decoded frame belongs, [`resample`] gives it the rendition's shape, [`track`] encodes
//! and writes it. All of it streams: memory does not grow with the length of the source.

mod clock;
mod gapless;
mod resample;
#[cfg(test)]
mod tests;
mod track;

use crate::media::decode::{Decoded, Decoder};
use crate::media::demux::{Demuxer, Depth};
use crate::media::error::{Result, refuse};
use crate::media::ffi;
use crate::media::frame::{Frame, Packet, known};
use crate::media::input::Host;
use crate::plan::AudioPlan;
use crate::plan::time::rescale;
use crate::sandbox::protocol::{AudioReport, AudioTask, Damage, Limits, RefusalReason};
use clock::{Clock, Placed, per};
use resample::{Layout, Planes, Resampler};
use std::path::Path;
use track::Track;

/// Progress is told every so many packets, even while they give no sound.
const PACKETS_PER_PROGRESS: u64 = 256;
/// Errors a decoder may give in a row without taking or giving anything.
const MAX_DECODER_ERRORS: u32 = 16;

/// Encodes the rendition; its files are `init.mp4` and `<number>.m4s` in the scratch folder.
///
/// Time zero is the plan's origin. Sound before it is trimmed, a late start and gaps are filled with silence, overlaps
/// are trimmed, as [`clock`] says; `filled` and `trimmed` of the report are output samples. The sound ends where
/// the source's ends. Times of segments are as a player shows them, priming left out: see [`track`].
///
/// # Errors
/// Media: the stream gives no sound. Settings: the encoder does not take them. Limit: the sound is too long.
pub fn encode(host: &dyn Host, limits: &Limits, scratch: &Path, task: &AudioTask) -> Result<AudioReport> {
    let plan = &task.rendition;
    let mut demuxer = Demuxer::open(host, 0, limits, Depth::Packets)?;
    let stream = demuxer.stream(plan.stream)?;
    if stream.kind() != ffi::AVMediaType::AVMEDIA_TYPE_AUDIO {
        return refuse(RefusalReason::Media, format!("stream {} of the source is not audio", plan.stream));
    }
    let base = stream.time_base();
    let origin = rescale(plan.origin, plan.source_base, base);
    let mut decoder = Decoder::open(stream, limits)?;
    demuxer.only(plan.stream);
    let clock = Clock::new(base, origin, plan.expected_samples, i64::from(plan.sample_rate));
    let mut rendition = Rendition::open(plan, limits, scratch, clock)?;
    let mut packet = Packet::new()?;
    let mut packets = 0;
    while !rendition.clock.is_past_end() && demuxer.read(&mut packet)? {
        if packet.get().stream_index as usize != plan.stream {
            continue;
        }
        packets += 1;
        if packets > limits.max_frames {
            return refuse(
                RefusalReason::Limit,
                format!("audio stream {} has more than {} packets", plan.stream, limits.max_frames),
            );
        }
        rendition.decode(&mut decoder, Some(&packet))?;
        if packets % PACKETS_PER_PROGRESS == 0 {
            host.progress(rendition.track.units);
        }
    }
    rendition.decode(&mut decoder, None)?;
    let report = rendition.finish()?;
    host.progress(report.segments.iter().map(|s| s.samples).sum());
    Ok(report)
}

/// A rendition being made.
struct Rendition<'t> {
    plan: &'t AudioPlan,
    limits: &'t Limits,
    layout: Layout,
    clock: Clock,
    resampler: Option<Resampler>,
    /// Output samples not yet encoded, and how many came out of resamplers in all.
    pending: Planes,
    produced: i64,
    track: Track,
    frame: Option<Frame>,
    decoded: u64,
    filled: i64,
    trimmed: i64,
    damage: Damage,
}

impl<'t> Rendition<'t> {
    fn open(plan: &'t AudioPlan, limits: &'t Limits, scratch: &Path, clock: Clock) -> Result<Self> {
        let layout = Layout::named(&plan.layout)?;
        let track = Track::open(plan, limits, scratch, &layout)?;
        Ok(Self {
            plan,
            limits,
            layout,
            clock,
            resampler: None,
            pending: Planes::new(plan.channels as usize),
            produced: 0,
            track,
            frame: Some(Frame::new()?),
            decoded: 0,
            filled: 0,
            trimmed: 0,
            damage: Damage::default(),
        })
    }

    /// Decodes one packet, or what is left in the decoder.
    fn decode(&mut self, decoder: &mut Decoder, packet: Option<&Packet>) -> Result<()> {
        let at = packet.and_then(|p| p.pts().or(p.dts()));
        if let Decoded::Damaged(why) = decoder.send(packet) {
            self.lose(at, why);
        }
        let Some(mut frame) = self.frame.take() else { return Ok(()) };
        let mut errors = 0;
        while errors < MAX_DECODER_ERRORS {
            match decoder.receive(&mut frame) {
                Decoded::Frame => {
                    errors = 0;
                    self.take(&frame)?;
                }
                Decoded::Hungry | Decoded::End => break,
                Decoded::Damaged(why) => {
                    errors += 1;
                    self.lose(at, why);
                }
            }
        }
        self.frame = Some(frame);
        Ok(())
    }

    fn lose(&mut self, at: Option<i64>, why: String) {
        self.damage.lost_frames += 1;
        self.note(at, why);
        self.clock.lost();
    }

    fn note(&mut self, at: Option<i64>, why: String) {
        self.damage.first_bad = self.damage.first_bad.or(at);
        self.damage.message = Some(why);
    }

    /// Takes one decoded frame.
    fn take(&mut self, frame: &Frame) -> Result<()> {
        let f = frame.get();
        let pts = known(f.pts).or(frame.best_pts());
        if frame.is_damaged() {
            self.damage.damaged_frames += 1;
            self.note(pts, "the decoder gave a damaged frame".into());
        }
        if f.nb_samples <= 0 {
            return Ok(());
        }
        self.decoded += 1;
        if !self.resampler.as_ref().is_some_and(|r| r.takes(frame)) {
            self.end_run()?;
            let resampler = Resampler::new(frame, self.plan.sample_rate, &self.layout)?;
            self.clock.set_rate(resampler.rate);
            self.resampler = Some(resampler);
        }
        let placed = self.clock.place(pts, i64::from(f.nb_samples));
        self.account(pts, placed, i64::from(f.nb_samples))?;
        self.feed(frame, placed)
    }

    fn account(&mut self, pts: Option<i64>, placed: Placed, samples: i64) -> Result<()> {
        let rate = self.resampler.as_ref().map_or(1, |r| r.rate);
        let out = |samples| rescale(samples, per(rate), per(i64::from(self.plan.sample_rate)));
        self.filled += out(placed.fill);
        self.trimmed += out(samples - placed.take);
        if let Some(jump) = placed.jump {
            self.damage.damaged_frames += 1;
            self.note(pts, format!("the timestamps jump by {jump} ticks; the sound goes on without a break"));
        }
        if self.clock.position() / rate > i64::try_from(self.limits.max_duration_s).unwrap_or(i64::MAX) {
            let most = self.limits.max_duration_s;
            return refuse(RefusalReason::Limit, format!("audio stream {} is longer than {most} s", self.plan.stream));
        }
        Ok(())
    }

    fn feed(&mut self, frame: &Frame, placed: Placed) -> Result<()> {
        let mut silence = placed.fill;
        while let Some(resampler) = self.resampler.as_mut().filter(|_| silence > 0) {
            let had = self.pending.len();
            silence -= resampler.feed_silence(silence, &mut self.pending)?;
            self.produced += (self.pending.len() - had) as i64;
            self.drain()?;
        }
        if let Some(resampler) = &mut self.resampler {
            let had = self.pending.len();
            resampler.feed(frame, placed.skip, placed.take, &mut self.pending)?;
            self.produced += (self.pending.len() - had) as i64;
        }
        self.drain()
    }

    /// Ends what one resampler was fed, to the very sample: the next one starts where the clock stands.
    fn end_run(&mut self) -> Result<()> {
        let Some(mut resampler) = self.resampler.take() else { return Ok(()) };
        let end = rescale(self.clock.position(), per(resampler.rate), per(i64::from(self.plan.sample_rate)));
        let had = self.pending.len();
        resampler.flush(&mut self.pending)?;
        let missing = usize::try_from(end - self.produced).unwrap_or(0);
        self.pending.resize(had + missing);
        self.produced += missing as i64;
        self.drain()
    }

    /// Encodes the whole access units there are.
    fn drain(&mut self) -> Result<()> {
        let unit = self.track.unit_samples();
        let mut at = 0;
        while self.pending.len() - at >= unit {
            self.track.encode(&self.pending, at, unit)?;
            at += unit;
        }
        self.pending.drop_front(at);
        Ok(())
    }

    fn finish(mut self) -> Result<AudioReport> {
        self.end_run()?;
        if self.pending.len() > 0 {
            self.track.encode(&self.pending, 0, self.pending.len())?;
        }
        if self.track.samples == 0 {
            return refuse(RefusalReason::Media, self.why_silent());
        }
        let samples = self.track.samples as u64;
        let track = self.track.finish(self.plan)?;
        Ok(AudioReport {
            name: self.plan.name.clone(),
            init: track.init,
            plain_init: Some(track.plain_init),
            segments: track.segments,
            samples,
            priming: track.priming,
            filled: self.filled as u64,
            trimmed: self.trimmed as u64,
            damage: self.damage,
            bytes: track.bytes,
        })
    }

    fn why_silent(&self) -> String {
        let stream = self.plan.stream;
        match (&self.damage.message, self.decoded) {
            (Some(why), 0) => format!("audio stream {stream} gives no sound: {why}"),
            (None, 0) => format!("audio stream {stream} gives no sound: it has no packets that can be decoded"),
            _ => format!("audio stream {stream} gives no sound at or after the start of the output: all of it lies before"),
        }
    }
}
