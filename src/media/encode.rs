//! One chunk, all its rungs: decode once, scale once per rung, encode.

use crate::media::chain::Chain;
use crate::media::encoder::RungEncoder;
use crate::media::error::Result;
use crate::media::frame::Frame;
use crate::media::input::Host;
use crate::media::window::Window;
use crate::plan::Rung;
use crate::sandbox::protocol::{EncodeReport, EncodeTask, FrameProof, Limits};
use std::path::Path;

/// Encodes the chunk into segment files in `scratch`.
///
/// # Errors
/// As decoding, filtering and encoding refuse; nothing is refused for damage, which is reported.
pub fn encode(host: &dyn Host, limits: &Limits, scratch: &Path, task: &EncodeTask) -> Result<EncodeReport> {
    let mut window = Window::open(host, limits, task)?;
    let mut chunk = ChunkEncoder::new(host, limits, task, scratch)?;
    let mut frame = Frame::new()?;
    while let Some(pts) = window.next(&mut frame)? {
        if !chunk.take(&mut frame, pts)? {
            break;
        }
    }
    chunk.finish(&mut window)
}

struct ChunkEncoder<'t> {
    host: &'t dyn Host,
    task: &'t EncodeTask,
    rungs: Vec<RungEncoder<'t>>,
    /// To the rungs, and to the picture as it is shown where the top rung is measured beside that.
    chain: Chain<'t>,
    scaled: Frame,
    reference: Option<Frame>,
    head: Option<FrameProof>,
    next: Option<FrameProof>,
    /// Decoded frames after the end, still pushed because a filter looks at them.
    after_end: u32,
    /// Output ticks.
    start: Option<i64>,
    end: Option<i64>,
    first_time: Option<i64>,
    end_time: Option<i64>,
    last_frame_end: i64,
    /// Starts of segments, output ticks, with their numbers.
    cuts: Vec<(i64, u32)>,
    frames: u64,
    done: u64,
}

impl<'t> ChunkEncoder<'t> {
    fn new(host: &'t dyn Host, limits: &Limits, task: &'t EncodeTask, scratch: &Path) -> Result<Self> {
        let mut rungs = (0..task.rungs.len()).map(|n| RungEncoder::open(task, n, scratch)).collect::<Result<Vec<_>>>()?;
        let wanted = task.verification.as_ref();
        if let (Some(verification), Some(top)) = (wanted, rungs.first_mut()) {
            let reference = verification.reference.as_ref().unwrap_or(&task.rungs[0]);
            top.verify(reference, verification.scored_every, limits);
        }
        let shown = wanted.and_then(|verification| verification.reference.as_ref());
        let reference = shown.map(|_| Frame::new()).transpose()?;
        let as_decoded = shown.map(|rung| Rung { scale_from: None, ..rung.clone() });
        let outputs = task.rungs.iter().cloned().chain(as_decoded).collect();
        let chain = Chain::new(task, outputs, reference.is_some());
        let cuts =
            task.chunk.segments.iter().zip(task.chunk.first_segment..).map(|(&at, n)| (output_time(task, at), n)).collect();
        Ok(Self {
            host,
            task,
            rungs,
            chain,
            scaled: Frame::new()?,
            reference,
            head: None,
            next: None,
            after_end: 0,
            start: task.chunk.start.map(|t| output_time(task, t)),
            end: task.chunk.end.map(|t| output_time(task, t)),
            first_time: None,
            end_time: None,
            last_frame_end: 0,
            cuts,
            frames: 0,
            done: 0,
        })
    }

    /// Takes a decoded frame; false when the chunk needs no more.
    fn take(&mut self, frame: &mut Frame, pts: i64) -> Result<bool> {
        let inside = self.task.chunk.start.is_none_or(|s| pts >= s);
        if inside && self.task.chunk.end.is_some_and(|e| pts >= e) {
            return self.take_after_end(frame, pts);
        }
        if inside && self.head.is_none() {
            self.head = Some(FrameProof { pts, pixels: frame.pixel_digest() });
        }
        let duration = frame.get().pkt_duration.max(0) * self.task.ticks_per_tick;
        self.last_frame_end = output_time(self.task, pts) + if duration > 0 { duration } else { self.task.frame_duration };
        self.filter(frame, pts)?;
        Ok(true)
    }

    fn take_after_end(&mut self, frame: &mut Frame, pts: i64) -> Result<bool> {
        if self.next.is_none() {
            self.next = Some(FrameProof { pts, pixels: frame.pixel_digest() });
        }
        if self.task.filters.neighbours() == 0 {
            self.end_time = Some(output_time(self.task, pts));
            return Ok(false);
        }
        self.after_end += 1;
        self.filter(frame, pts)?;
        Ok(self.after_end <= self.task.filters.neighbours())
    }

    fn filter(&mut self, frame: &mut Frame, pts: i64) -> Result<()> {
        let mut padded = self.chain.padded(frame)?;
        let frame = padded.as_mut().unwrap_or(frame);
        if !self.chain.fits(frame) {
            self.flush()?;
        }
        self.chain.push(frame, output_time(self.task, pts))?;
        self.pull_all()
    }

    fn flush(&mut self) -> Result<()> {
        self.chain.finish()?;
        self.pull_all()?;
        self.chain.close();
        Ok(())
    }

    fn pull_all(&mut self) -> Result<()> {
        let mut pulled = true;
        while pulled {
            pulled = false;
            if let Some(reference) = &mut self.reference {
                self.chain.pull(self.rungs.len(), reference)?;
            }
            for rung in 0..self.rungs.len() {
                let before = cpu_seconds();
                let time = self.chain.pull(rung, &mut self.scaled)?;
                if let Some(time) = time {
                    pulled = true;
                    self.encode(rung, time)?;
                }
                self.rungs[rung].cpu_s += cpu_seconds() - before;
            }
        }
        Ok(())
    }

    fn encode(&mut self, rung: usize, time: i64) -> Result<()> {
        if self.start.is_some_and(|start| time < start) {
            return Ok(());
        }
        if self.end.is_some_and(|end| time >= end) {
            self.end_time = Some(self.end_time.map_or(time, |t| t.min(time)));
            return Ok(());
        }
        if rung == 0 {
            self.first_time.get_or_insert(time);
            self.frames += 1;
            self.rungs[0].expect(self.reference.as_ref().unwrap_or(&self.scaled), time);
        }
        let segment = self.segment_of(time);
        self.rungs[rung].push(&mut self.scaled, time, segment)?;
        self.done += 1;
        self.host.progress(self.done);
        Ok(())
    }

    /// The number of the segment a time falls into. A source on a clean clock may outrun its planned segments: more
    /// follow at the same distance.
    fn segment_of(&mut self, time: i64) -> u32 {
        if self.task.clean_clock {
            let step = match self.cuts.as_slice() {
                [(a, _), (b, _), ..] => b - a,
                _ => 4 * i64::from(self.task.timescale),
            };
            while let Some(&(last, number)) = self.cuts.last().filter(|(last, _)| time >= last + 2 * step) {
                self.cuts.push((last + step, number + 1));
            }
        }
        let after = self.cuts.partition_point(|&(at, _)| at <= time);
        self.cuts[after.saturating_sub(1)].1
    }

    fn finish(mut self, window: &mut Window) -> Result<EncodeReport> {
        self.flush()?;
        let end = self.end_time.unwrap_or(self.last_frame_end);
        let mut rungs = Vec::new();
        let mut verified = None;
        for mut rung in self.rungs {
            if self.frames == 0 {
                continue;
            }
            let before = cpu_seconds();
            let cpu_s = rung.cpu_s;
            rung.cpu_s = 0.0;
            let (mut encoded, measured) = rung.finish(end)?;
            encoded.cpu_s += cpu_s + cpu_seconds() - before;
            verified = verified.or(measured);
            rungs.push(encoded);
        }
        let (measured, unmeasured) = match verified {
            Some(Ok(measured)) => (Some(measured), None),
            Some(Err(refusal)) => (None, Some(refusal.message)),
            None => (None, None),
        };
        Ok(EncodeReport {
            chunk: self.task.chunk.index,
            frames: self.frames,
            first_time: self.first_time,
            end_time: (self.frames > 0).then_some(end),
            head: self.head,
            next: self.next,
            damage: window.damage(),
            preroll_frames: window.preroll,
            rungs,
            measured,
            unmeasured,
        })
    }
}

pub(super) fn output_time(task: &EncodeTask, pts: i64) -> i64 {
    (pts - task.origin) * task.ticks_per_tick
}

/// CPU time of this process, all threads, seconds.
pub(super) fn cpu_seconds() -> f64 {
    seconds_of(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time of this thread alone, seconds: of work that is done on it, while encoders go on in their own threads.
pub(super) fn own_cpu_seconds() -> f64 {
    seconds_of(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn seconds_of(clock: libc::clockid_t) -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid clock and a valid place for the answer.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
