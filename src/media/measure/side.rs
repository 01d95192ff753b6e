//! One of two inputs that are compared: its frames, and what they are converted to.

use crate::media::decode::{Decoded, Decoder};
use crate::media::demux::{Demuxer, Depth, Stream, rational};
use crate::media::error::{Result, refuse, string};
use crate::media::ffi;
use crate::media::filter::{Graph, Shape, Target};
use crate::media::frame::{Frame, Packet};
use crate::media::input::Host;
use crate::media::look::refuse_encrypted;
use crate::media::measure::SCALER;
use crate::media::probe::{first_video, rotation};
use crate::plan::preset::ASSUMED_RATE;
use crate::plan::time::Rational;
use crate::sandbox::protocol::{Limits, Refusal, RefusalReason};

/// Frame rates above are mistakes, or ticks of a clock.
const FASTEST_RATE: f64 = 1000.0;

/// An open input.
pub(super) struct Side<'h> {
    host: &'h dyn Host,
    /// As it is called in messages.
    name: &'static str,
    demuxer: Demuxer<'h>,
    decoder: Decoder,
    stream: usize,
    rotation: u16,
    pub frame_rate: Rational,
    packet: Packet,
    frame: Frame,
    converted: Frame,
    graph: Option<Graph>,
    /// Of the last frame; of none before the first.
    shown: Shown,
    draining: bool,
    given: u64,
    most: u64,
    damaged: u64,
    errors: u64,
    interlaced: u64,
}

/// A frame as it is shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub width: u32,
    pub height: u32,
    pub bits: u8,
    pub full_range: bool,
    /// libavutil's name; empty when not stated.
    pub transfer: String,
}

impl<'h> Side<'h> {
    /// # Errors
    /// As opening and decoding refuse; the message says which input it is about.
    pub fn open(host: &'h dyn Host, input: u32, limits: &Limits, name: &'static str) -> Result<Self> {
        Self::open_unnamed(host, input, limits, name).map_err(|refusal| named(name, refusal))
    }

    fn open_unnamed(host: &'h dyn Host, input: u32, limits: &Limits, name: &'static str) -> Result<Self> {
        let mut demuxer = Demuxer::open(host, input, limits, Depth::Streams)?;
        let stream = first_video(&demuxer)?;
        demuxer.only(stream);
        let facts = demuxer.stream(stream)?;
        let (rotation, frame_rate) = (rotation(facts), stated_rate(facts));
        let decoder = Decoder::open(facts, limits)?;
        Ok(Self {
            host,
            name,
            demuxer,
            decoder,
            stream,
            rotation,
            frame_rate,
            packet: Packet::new()?,
            frame: Frame::new()?,
            converted: Frame::new()?,
            graph: None,
            shown: Shown::default(),
            draining: false,
            given: 0,
            most: limits.max_frames,
            damaged: 0,
            errors: 0,
            interlaced: 0,
        })
    }

    /// Goes to the next frame; false when there are no more.
    ///
    /// # Errors
    /// Input: the bytes cannot be had. Limit: more frames than any source may have. Damage is counted, and passed over.
    pub fn next(&mut self) -> Result<bool> {
        self.next_unnamed().map_err(|refusal| named(self.name, refusal))
    }

    fn next_unnamed(&mut self) -> Result<bool> {
        loop {
            match self.decoder.receive(&mut self.frame) {
                Decoded::Frame => {
                    self.note();
                    if self.given > self.most {
                        return refuse(RefusalReason::Limit, format!("it has more than {} frames", self.most));
                    }
                    return Ok(true);
                }
                Decoded::End => return Ok(false),
                Decoded::Hungry if self.draining => return Ok(false),
                Decoded::Hungry => self.feed()?,
                Decoded::Damaged(_) => self.errors += 1,
            }
        }
    }

    fn feed(&mut self) -> Result<()> {
        while self.demuxer.read(&mut self.packet)? {
            if self.packet.get().stream_index as usize == self.stream {
                refuse_encrypted(&self.packet, self.stream)?;
                if let Decoded::Damaged(_) = self.decoder.send(Some(&self.packet)) {
                    self.errors += 1;
                }
                return Ok(());
            }
        }
        self.draining = true;
        self.decoder.send(None);
        Ok(())
    }

    fn note(&mut self) {
        let f = self.frame.get();
        let (width, height) = (f.width.max(0) as u32, f.height.max(0) as u32);
        let is_turned = self.rotation % 180 != 0;
        let shape = Shape::of(&self.frame);
        let (width, height) = if is_turned { (height, width) } else { (width, height) };
        // SAFETY: the frame's format is one of this library; the name is a constant of it.
        let (bits, transfer) = unsafe {
            let descriptor = ffi::av_pix_fmt_desc_get(std::mem::transmute::<i32, ffi::AVPixelFormat>(f.format));
            let bits = if descriptor.is_null() { 8 } else { (*descriptor).comp[0].depth as u8 };
            let is_stated = f.color_trc != ffi::AVColorTransferCharacteristic::AVCOL_TRC_UNSPECIFIED;
            (bits, if is_stated { string(ffi::av_color_transfer_name(f.color_trc)) } else { String::new() })
        };
        self.given += 1;
        self.damaged += u64::from(self.frame.is_damaged());
        self.interlaced += u64::from(f.interlaced_frame != 0);
        self.shown = Shown { width, height, bits, full_range: shape.is_full_range(), transfer };
    }

    /// The frame as `target`.
    ///
    /// # Errors
    /// Unsupported: it cannot be converted.
    pub fn converted(&mut self, target: &Target) -> Result<&Frame> {
        self.convert(target).map_err(|refusal| named(self.name, refusal))?;
        Ok(&self.converted)
    }

    fn convert(&mut self, target: &Target) -> Result<()> {
        let shape = Shape::of(&self.frame);
        let graph = match &mut self.graph {
            Some(graph) if graph.fits(&shape) => graph,
            other => other.insert(Graph::converter(&shape, self.rotation, target, SCALER)?),
        };
        self.frame.get_mut().pts = i64::try_from(self.given).unwrap_or(i64::MAX);
        graph.push(&self.frame)?;
        match graph.pull(0, &mut self.converted)? {
            Some(_) => Ok(()),
            None => refuse(RefusalReason::Internal, "a filter kept a frame back"),
        }
    }

    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Frames from the current one on, at most `most`.
    ///
    /// # Errors
    /// As [`Side::next`].
    pub fn count_rest(&mut self, most: u64) -> Result<u64> {
        let mut count = 1;
        while count < most && self.next()? {
            self.host.progress(0);
            count += 1;
        }
        Ok(count)
    }

    /// What is wrong or unusual with it.
    pub fn notes(&self) -> Vec<String> {
        let (name, mut notes) = (self.name, Vec::new());
        if self.errors + self.damaged > 0 {
            notes.push(format!("{name} is damaged: {} frames of {} at least", self.damaged.max(self.errors), self.given));
        }
        if self.interlaced * 2 > self.given {
            notes.push(format!("{name} is interlaced: its frames are compared as they are stored, two fields in each"));
        }
        notes
    }
}

/// The refusal, about this input.
fn named(name: &str, refusal: Refusal) -> Refusal {
    Refusal { message: format!("{name}: {}", refusal.message), ..refusal }
}

/// The rate that a container states, where it can be one.
fn stated_rate(stream: Stream<'_>) -> Rational {
    let stated = [stream.0.avg_frame_rate, stream.0.r_frame_rate].map(rational);
    let usable = stated.into_iter().find(|rate| rate.is_positive() && rate.as_f64() <= FASTEST_RATE);
    usable.map_or(ASSUMED_RATE, Rational::reduced)
}
