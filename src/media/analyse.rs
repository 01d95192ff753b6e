//! One chunk, known before it is encoded: what fast encodes of it cost and look like, where scenes begin, what its pictures
//! are like; and, of the beginning of a few chunks, how final encodes follow from fast ones.
//!
//! The chunk is decoded once, through the same window and filters as for its encode, and scaled to the sizes of the trials. A
//! few pictures after its end are decoded, too, so that a scene that begins with the next chunk is seen. What only makes
//! the decision better may fail: then the report says so, and the decision goes by the title's other chunks.

mod cuts;
mod texture;
mod trial;

use crate::media::chain::Chain;
use crate::media::encode::{cpu_seconds, output_time};
use crate::media::error::Result;
use crate::media::frame::Frame;
use crate::media::input::Host;
use crate::media::judge::{Comparison, format_of};
use crate::media::window::Window;
use crate::plan::Rung;
use crate::plan::narrowband::grid::SceneCut;
use crate::plan::narrowband::{ProbePoint, ScaledPoint};
use crate::quality::Format;
use crate::sandbox::protocol::{
    AnalyseReport, AnalyseSpent, AnalyseTask, CalibrateReport, CalibrateTask, EncodeTask, Limits, Refusal, SizedPoint,
};
use cuts::Cuts;
use texture::Look;
use trial::{Trial, Tried, Wanted};

/// What pictures are like is asked of one in so many of those that are scored: it differs little within a chunk.
const SCORED_FOR_A_LOOK: u32 = 4;
/// Notes of one chunk, at most.
const MOST_NOTES: usize = 8;

/// Analyses the chunk.
///
/// # Errors
/// As decoding and filtering refuse. A probe that fails is a probe less.
pub fn analyse(host: &dyn Host, limits: &Limits, task: &AnalyseTask) -> Result<AnalyseReport> {
    let encode = &task.encode;
    let pictures = std::iter::once(u64::MAX).chain(std::iter::repeat(task.compared.unwrap_or(u64::MAX)));
    let probes = encode.rungs.iter().zip(&task.crf).zip(pictures);
    let wanted = probes.map(|((rung, crf), most)| Wanted { rung, crf: *crf, reference: rung, most });
    let mut study = Study::new(host, encode, task.beginning.map_or(u64::MAX, |beginning| beginning.frames))?;
    study.open_trials(wanted, task.scored_every, limits)?;
    if let Some(rung) = encode.rungs.first() {
        study.watch_out(rung, task.scored_every.saturating_mul(SCORED_FOR_A_LOOK))?;
    }
    study.run(limits)?;
    let whole = task.beginning.map_or(study.frames, |beginning| beginning.of);
    let (points, found) = (study.points(whole), study.cuts());
    Ok(AnalyseReport {
        chunk: encode.chunk.index,
        frames: study.frames,
        ticks: study.ticks(),
        probes: points.into_iter().map(|(_, point)| point).collect(),
        cuts: found,
        texture: study.watcher.as_ref().and_then(|watcher| watcher.look.mean()),
        notes: study.notes,
        spent: study.spent,
    })
}

/// Calibrates by the beginning of the chunk.
///
/// # Errors
/// As decoding and filtering refuse. An encode that fails is one less.
pub fn calibrate(host: &dyn Host, limits: &Limits, task: &CalibrateTask) -> Result<CalibrateReport> {
    let encode = &task.encode;
    let (reference, rungs) = encode.rungs.split_first().map_or((None, &[][..]), |(first, rest)| (Some(first), rest));
    let (finals, others) = rungs.split_at(task.finals.len().min(rungs.len()));
    let (probes, smaller) = others.split_at(task.probes.len().min(others.len()));
    let as_shown = finals.iter().zip(&task.finals).map(|(rung, crf)| Wanted {
        rung,
        crf: *crf,
        reference: reference.unwrap_or(rung),
        most: u64::MAX,
    });
    let as_coded = probes.iter().zip(&task.probes).map(|(rung, crf)| Wanted { rung, crf: *crf, reference: rung, most: u64::MAX });
    let mut study = Study::new(host, encode, task.frames)?;
    study.open_trials(as_shown.chain(as_coded), task.scored_every, limits)?;
    for (rung, reference) in smaller.iter().zip(reference.into_iter().cycle()) {
        study.open_scaling(rung, reference, task.scaled_every)?;
    }
    study.run(limits)?;
    let scaled = study.scaled();
    let frames = study.frames;
    let (finals, probes): (Vec<_>, Vec<_>) = study.points(frames).into_iter().partition(|(number, _)| *number < finals.len());
    let sized = |(number, point): (usize, ProbePoint)| {
        let rung = &rungs[number];
        SizedPoint { width: rung.width, height: rung.height, point }
    };
    Ok(CalibrateReport {
        chunk: encode.chunk.index,
        frames: study.frames,
        ticks: study.ticks(),
        finals: finals.into_iter().map(sized).collect(),
        probes: probes.into_iter().map(|(_, point)| point).collect(),
        scaled,
        notes: study.notes,
        spent: study.spent,
    })
}

/// A size whose pictures are brought back to the reference's and judged, not encoded.
struct Scaling {
    width: u32,
    height: u32,
    /// Which of the pictures is judged, and beside which.
    places: (usize, usize),
    comparison: Comparison,
}

/// Looks at every picture of one size.
struct Watcher {
    /// Which output.
    output: usize,
    format: Format,
    every: u64,
    cuts: Option<Cuts>,
    look: Look,
}

/// A chunk under study.
struct Study<'t> {
    host: &'t dyn Host,
    task: &'t EncodeTask,
    /// The sizes that pictures are scaled to, and the last picture of each.
    chain: Chain<'t>,
    pictures: Vec<Frame>,
    trials: Vec<Trial>,
    scalings: Vec<Scaling>,
    watcher: Option<Watcher>,
    /// Output ticks.
    start: Option<i64>,
    end: Option<i64>,
    first_time: Option<i64>,
    /// First picture after what is studied.
    end_time: Option<i64>,
    last_frame_end: i64,
    /// Starts of segments that are still to come, output ticks.
    starts: Vec<i64>,
    frames: u64,
    most_frames: u64,
    after_end: usize,
    notes: Vec<String>,
    spent: AnalyseSpent,
}

impl<'t> Study<'t> {
    fn new(host: &'t dyn Host, task: &'t EncodeTask, most_frames: u64) -> Result<Self> {
        let mut starts: Vec<i64> = task.chunk.segments.iter().map(|&at| output_time(task, at)).collect();
        starts.reverse();
        Ok(Self {
            host,
            task,
            chain: Chain::new(task, Vec::new(), false),
            pictures: Vec::new(),
            trials: Vec::new(),
            scalings: Vec::new(),
            watcher: None,
            start: task.chunk.start.map(|t| output_time(task, t)),
            end: task.chunk.end.map(|t| output_time(task, t)),
            first_time: None,
            end_time: None,
            last_frame_end: 0,
            starts,
            frames: 0,
            most_frames,
            after_end: 0,
            notes: Vec::new(),
            spent: AnalyseSpent::default(),
        })
    }

    fn open_trials<'w>(&mut self, wanted: impl Iterator<Item = Wanted<'w>>, scored_every: u32, limits: &Limits) -> Result<()> {
        for (number, wanted) in wanted.enumerate() {
            let places = (self.output(wanted.rung)?, self.output(wanted.reference)?);
            match Trial::open(self.task, number, &wanted, places, scored_every, limits) {
                Ok(trial) => self.trials.push(trial),
                Err(refusal) => self.notes.push(format!("nothing at CRF {}: {}", wanted.crf, refusal.message)),
            }
        }
        Ok(())
    }

    fn open_scaling(&mut self, rung: &Rung, reference: &Rung, scored_every: u32) -> Result<()> {
        let places = (self.output(rung)?, self.output(reference)?);
        match Comparison::open(rung, (reference, scored_every)) {
            Ok(comparison) => self.scalings.push(Scaling { width: rung.width, height: rung.height, places, comparison }),
            Err(refusal) => self.notes.push(unscaled(rung.width, rung.height, &refusal)),
        }
        Ok(())
    }

    /// The output of that rung's size.
    fn output(&mut self, rung: &Rung) -> Result<usize> {
        let place = self.chain.output(rung);
        if place == self.pictures.len() {
            self.pictures.push(Frame::new()?);
        }
        Ok(place)
    }

    /// Looks at the pictures of that rung's size, too.
    fn watch_out(&mut self, rung: &Rung, every: u32) -> Result<()> {
        let output = self.output(rung)?;
        let format = format_of(rung);
        let cuts = Cuts::new(format, self.task.frame_rate);
        if cuts.is_none() {
            self.notes.push("the picture is too small to look for scenes in it".into());
        }
        self.watcher = Some(Watcher { output, format, every: u64::from(every.max(1)), cuts, look: Look::new(format) });
        Ok(())
    }

    fn run(&mut self, limits: &Limits) -> Result<()> {
        let mut window = Window::open(self.host, limits, self.task)?;
        let mut frame = Frame::new()?;
        loop {
            let began = cpu_seconds();
            let pts = window.next(&mut frame)?;
            self.spent.decode_s += cpu_seconds() - began;
            let Some(pts) = pts else { break };
            if !self.take(&mut frame, pts)? {
                break;
            }
        }
        self.flush()
    }

    /// Takes a decoded frame; false when no more are needed.
    fn take(&mut self, frame: &mut Frame, pts: i64) -> Result<bool> {
        let time = output_time(self.task, pts);
        if self.end.is_none_or(|end| time < end) {
            let duration = frame.get().pkt_duration.max(0) * self.task.ticks_per_tick;
            self.last_frame_end = time + if duration > 0 { duration } else { self.task.frame_duration };
        }
        let began = cpu_seconds();
        let mut padded = self.chain.padded(frame)?;
        let frame = padded.as_mut().unwrap_or(frame);
        self.spent.decode_s += cpu_seconds() - began;
        if !self.chain.fits(frame) {
            self.flush()?;
        }
        let began = cpu_seconds();
        self.chain.push(frame, time)?;
        self.spent.decode_s += cpu_seconds() - began;
        self.pull_all()?;
        let after = if self.watcher.is_some() { cuts::PICTURES_AFTER } else { 1 };
        Ok(self.after_end < after)
    }

    fn flush(&mut self) -> Result<()> {
        self.chain.finish()?;
        self.pull_all()?;
        self.chain.close();
        Ok(())
    }

    fn pull_all(&mut self) -> Result<()> {
        loop {
            let began = cpu_seconds();
            let mut time = None;
            for (output, picture) in self.pictures.iter_mut().enumerate() {
                let pulled = self.chain.pull(output, picture)?;
                time = if output == 0 { pulled } else { time.filter(|_| pulled.is_some()) };
            }
            self.spent.decode_s += cpu_seconds() - began;
            let Some(time) = time else { return Ok(()) };
            self.see(time);
        }
    }

    /// Takes the pictures of that time.
    fn see(&mut self, time: i64) {
        if self.start.is_some_and(|start| time < start) {
            return;
        }
        let is_after = self.frames >= self.most_frames || self.end.is_some_and(|end| time >= end);
        self.watch(time, is_after);
        if is_after {
            self.end_time.get_or_insert(time);
            self.after_end += 1;
            return;
        }
        self.first_time.get_or_insert(time);
        let mut starts = self.frames == 0;
        while self.starts.last().is_some_and(|&at| at <= time) {
            self.starts.pop();
            starts = true;
        }
        let (spent, notes, pictures) = (&mut self.spent, &mut self.notes, &self.pictures);
        self.trials.retain_mut(|trial| match trial.push(pictures, time, starts, spent) {
            Ok(()) => true,
            Err(refusal) => {
                notes.push(format!("nothing at CRF {}: {}", trial.crf, refusal.message));
                false
            }
        });
        let began = cpu_seconds();
        self.scalings.retain_mut(|one| match one.comparison.push(&pictures[one.places.1], &pictures[one.places.0]) {
            Ok(()) => true,
            Err(refusal) => {
                notes.push(unscaled(one.width, one.height, &refusal));
                false
            }
        });
        spent.score_s += cpu_seconds() - began;
        self.frames += 1;
        self.host.progress(self.frames);
    }

    /// Looks at a picture: for scenes, and of the chunk's own now and then for what it is like.
    fn watch(&mut self, time: i64, is_after: bool) {
        let Some(watcher) = &mut self.watcher else { return };
        let began = cpu_seconds();
        if let Some(planes) = self.pictures[watcher.output].planes(&watcher.format) {
            if let Some(cuts) = &mut watcher.cuts {
                cuts.push(&planes, time);
            }
            if !is_after {
                watcher.look.push(&planes, self.frames.is_multiple_of(watcher.every));
            }
        }
        self.spent.look_s += cpu_seconds() - began;
    }

    /// What the trials measured, each with its number, as of so many pictures in all. Called once.
    fn points(&mut self, whole: u64) -> Vec<(usize, ProbePoint)> {
        let mut tried = Vec::new();
        for trial in std::mem::take(&mut self.trials) {
            let (number, crf) = (trial.number, trial.crf);
            match trial.finish(&mut self.spent) {
                Ok(found) => tried.push((number, found)),
                Err(refusal) => self.notes.push(format!("nothing at CRF {crf}: {}", refusal.message)),
            }
        }
        self.notes.truncate(MOST_NOTES);
        let longest = tried.first().map(|(_, first)| first);
        let point = |(number, own): &(usize, Tried)| (*number, own.point_beside(longest.unwrap_or(own), whole));
        tried.iter().map(point).collect()
    }

    /// What scaling alone does. Called once.
    fn scaled(&mut self) -> Vec<ScaledPoint> {
        let began = cpu_seconds();
        let mut points = Vec::new();
        for Scaling { width, height, comparison, .. } in std::mem::take(&mut self.scalings) {
            match comparison.finish() {
                Ok(scores) => {
                    let vmaf_neg = scores.iter().sum::<f64>() / scores.len() as f64;
                    points.push(ScaledPoint { width, height, vmaf_neg });
                }
                Err(refusal) => self.notes.push(unscaled(width, height, &refusal)),
            }
        }
        self.spent.score_s += cpu_seconds() - began;
        points
    }

    /// The scenes that begin inside. Called once.
    fn cuts(&mut self) -> Vec<SceneCut> {
        let began = cpu_seconds();
        let found = self.watcher.as_mut().and_then(|watcher| watcher.cuts.take()).map_or(Vec::new(), Cuts::finish);
        self.spent.look_s += cpu_seconds() - began;
        let task = self.task;
        // A picture made of the second field stands half a frame after its frame: that one's tick is the source's.
        let source = |time: i64| time.div_euclid(task.ticks_per_tick.max(1)) + task.origin;
        let last = self.end_time.unwrap_or(i64::MAX);
        let inside = found.into_iter().filter(|(time, _)| *time <= last);
        inside.map(|(time, strength)| SceneCut { at: source(time), strength }).collect()
    }

    /// How long what was studied lasts, output ticks.
    fn ticks(&self) -> i64 {
        let end = self.end_time.unwrap_or(self.last_frame_end);
        self.first_time.map_or(0, |first| end - first)
    }
}

fn unscaled(width: u32, height: u32, refusal: &Refusal) -> String {
    format!("what scaling to {width}x{height} loses is not known: {}", refusal.message)
}

#[cfg(test)]
mod tests;
