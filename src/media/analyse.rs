//! One chunk, known before it is encoded: what two fast encodes cost and look like, where scenes begin, what its pictures are
//! like.
//!
//! The chunk is decoded once, through the same window and filters as for its encode, and scaled to the probes' size. A few
//! pictures after its end are decoded, too, so that a scene that begins with the next chunk is seen. What only makes the
//! decision better may fail: then the report says so, and the decision goes by the title's other chunks.

mod cuts;
mod probe;
mod texture;

use crate::media::encode::{cpu_seconds, output_time};
use crate::media::error::Result;
use crate::media::filter::{Graph, Shape};
use crate::media::frame::Frame;
use crate::media::input::Host;
use crate::media::window::Window;
use crate::plan::narrowband::grid::SceneCut;
use crate::plan::time::Rational;
use crate::quality::Format;
use crate::sandbox::protocol::{AnalyseReport, AnalyseSpent, AnalyseTask, EncodeTask, Limits};
use cuts::Cuts;
use probe::Probe;
use texture::Look;

/// Notes of one chunk, at most.
const MOST_NOTES: usize = 8;

/// Analyses the chunk.
///
/// # Errors
/// As decoding and filtering refuse. A probe that fails is a probe less.
pub fn analyse(host: &dyn Host, limits: &Limits, task: &AnalyseTask) -> Result<AnalyseReport> {
    let mut window = Window::open(host, limits, &task.encode)?;
    let mut chunk = Analysis::new(host, limits, task)?;
    let mut frame = Frame::new()?;
    loop {
        let began = cpu_seconds();
        let pts = window.next(&mut frame)?;
        chunk.spent.decode_s += cpu_seconds() - began;
        let Some(pts) = pts else { break };
        if !chunk.take(&mut frame, pts)? {
            break;
        }
    }
    chunk.finish()
}

struct Analysis<'t> {
    host: &'t dyn Host,
    task: &'t EncodeTask,
    format: Format,
    every: u64,
    graph: Option<Graph>,
    scaled: Frame,
    probes: Vec<Probe>,
    cuts: Option<Cuts>,
    look: Look,
    /// Output ticks.
    start: Option<i64>,
    end: Option<i64>,
    first_time: Option<i64>,
    /// First picture after the chunk.
    end_time: Option<i64>,
    last_frame_end: i64,
    /// Starts of segments that are still to come, output ticks.
    starts: Vec<i64>,
    frames: u64,
    after_end: usize,
    notes: Vec<String>,
    spent: AnalyseSpent,
}

impl<'t> Analysis<'t> {
    fn new(host: &'t dyn Host, limits: &Limits, task: &'t AnalyseTask) -> Result<Self> {
        let AnalyseTask { encode, crf, scored_every } = task;
        let (width, height) = encode.rungs.first().map_or((0, 0), |rung| (rung.width, rung.height));
        let deep = encode.rungs.first().is_some_and(|rung| rung.pixel_format.ends_with("10le"));
        let format = Format { width, height, bits: if deep { 10 } else { 8 } };
        let mut notes = Vec::new();
        let mut probes = Vec::new();
        for (n, crf) in crf.iter().enumerate().take(encode.rungs.len()) {
            match Probe::open(encode, n, *crf, (format, *scored_every), limits) {
                Ok(probe) => probes.push(probe),
                Err(refusal) => notes.push(format!("no probe at CRF {crf}: {}", refusal.message)),
            }
        }
        let cuts = Cuts::new(format, encode.frame_rate);
        if cuts.is_none() {
            notes.push("the picture is too small to look for scenes in it".into());
        }
        let mut starts: Vec<i64> = encode.chunk.segments.iter().map(|&at| output_time(encode, at)).collect();
        starts.reverse();
        Ok(Self {
            host,
            task: encode,
            format,
            every: u64::from((*scored_every).max(1)),
            graph: None,
            scaled: Frame::new()?,
            probes,
            cuts,
            look: Look::new(format),
            start: encode.chunk.start.map(|t| output_time(encode, t)),
            end: encode.chunk.end.map(|t| output_time(encode, t)),
            first_time: None,
            end_time: None,
            last_frame_end: 0,
            starts,
            frames: 0,
            after_end: 0,
            notes,
            spent: AnalyseSpent::default(),
        })
    }

    /// Takes a decoded frame; false when no more are needed.
    fn take(&mut self, frame: &mut Frame, pts: i64) -> Result<bool> {
        let began = cpu_seconds();
        let mut padded;
        let frame = if self.task.filters.pad_to_even {
            padded = frame.padded_to_even()?;
            &mut padded
        } else {
            frame
        };
        let shape = Shape::of(frame);
        if self.graph.as_ref().is_some_and(|graph| !graph.fits(&shape)) {
            self.flush_graph()?;
        }
        let time = output_time(self.task, pts);
        if self.end.is_none_or(|end| time < end) {
            let duration = frame.get().pkt_duration.max(0) * self.task.ticks_per_tick;
            self.last_frame_end = time + if duration > 0 { duration } else { self.task.frame_duration };
        }
        let graph = match &mut self.graph {
            Some(graph) => graph,
            none => {
                let base = Rational::new(1, i64::from(self.task.timescale));
                let one = self.task.rungs.get(..1).unwrap_or_default();
                none.insert(Graph::open(&shape, base, self.task.frame_rate, &self.task.filters, one)?)
            }
        };
        frame.get_mut().pts = time;
        graph.push(frame)?;
        self.spent.decode_s += cpu_seconds() - began;
        self.pull_all()?;
        Ok(self.after_end < cuts::PICTURES_AFTER)
    }

    fn flush_graph(&mut self) -> Result<()> {
        if let Some(graph) = &mut self.graph {
            graph.finish()?;
        }
        self.pull_all()?;
        self.graph = None;
        Ok(())
    }

    fn pull_all(&mut self) -> Result<()> {
        let Some(mut graph) = self.graph.take() else { return Ok(()) };
        loop {
            let began = cpu_seconds();
            let time = graph.pull(0, &mut self.scaled)?;
            self.spent.decode_s += cpu_seconds() - began;
            let Some(time) = time else { break };
            self.see(time)?;
        }
        self.graph = Some(graph);
        Ok(())
    }

    /// Takes a picture of the probes' size.
    fn see(&mut self, time: i64) -> Result<()> {
        if self.start.is_some_and(|start| time < start) {
            return Ok(());
        }
        let is_after = self.end.is_some_and(|end| time >= end);
        self.watch(time, is_after);
        if is_after {
            self.end_time.get_or_insert(time);
            self.after_end += 1;
            return Ok(());
        }
        self.first_time.get_or_insert(time);
        let mut starts = self.frames == 0;
        while self.starts.last().is_some_and(|&at| at <= time) {
            self.starts.pop();
            starts = true;
        }
        let (spent, notes) = (&mut self.spent, &mut self.notes);
        let scaled = &self.scaled;
        self.probes.retain_mut(|probe| match probe.push(scaled, time, starts, spent) {
            Ok(()) => true,
            Err(refusal) => {
                notes.push(format!("no probe at CRF {}: {}", probe.crf, refusal.message));
                false
            }
        });
        self.frames += 1;
        self.host.progress(self.frames);
        Ok(())
    }

    /// Looks at a picture: for scenes, and of the chunk's own now and then for what it is like.
    fn watch(&mut self, time: i64, is_after: bool) {
        let began = cpu_seconds();
        if let Some(planes) = self.scaled.planes(&self.format) {
            if let Some(cuts) = &mut self.cuts {
                cuts.push(&planes, time);
            }
            if !is_after {
                self.look.push(&planes, self.frames.is_multiple_of(self.every));
            }
        }
        self.spent.look_s += cpu_seconds() - began;
    }

    fn finish(mut self) -> Result<AnalyseReport> {
        self.flush_graph()?;
        let mut points = Vec::new();
        for probe in self.probes {
            let crf = probe.crf;
            match probe.finish(&mut self.spent) {
                Ok(point) => points.push(point),
                Err(refusal) => self.notes.push(format!("no probe at CRF {crf}: {}", refusal.message)),
            }
        }
        let began = cpu_seconds();
        let found = self.cuts.map_or(Vec::new(), Cuts::finish);
        self.spent.look_s += cpu_seconds() - began;
        let (task, end) = (self.task, self.end_time.unwrap_or(self.last_frame_end));
        // A picture made of the second field stands half a frame after its frame: that one's tick is the source's.
        let source = |time: i64| time.div_euclid(task.ticks_per_tick.max(1)) + task.origin;
        let last = self.end_time.unwrap_or(i64::MAX);
        let inside = found.into_iter().filter(|(time, _)| *time <= last);
        self.notes.truncate(MOST_NOTES);
        Ok(AnalyseReport {
            chunk: task.chunk.index,
            frames: self.frames,
            ticks: self.first_time.map_or(0, |first| end - first),
            probes: points,
            cuts: inside.map(|(time, strength)| SceneCut { at: source(time), strength }).collect(),
            texture: self.look.mean(),
            notes: self.notes,
            spent: self.spent,
        })
    }
}

#[cfg(test)]
mod tests;
