//! A chunk's frames become pictures: padded where they must be, filtered, and scaled to every size that is wanted.

use crate::media::error::Result;
use crate::media::filter::{Graph, Shape};
use crate::media::frame::Frame;
use crate::plan::Rung;
use crate::plan::time::Rational;
use crate::sandbox::protocol::EncodeTask;

/// One graph after the other: a frame of another shape needs another one.
pub struct Chain<'t> {
    task: &'t EncodeTask,
    outputs: Vec<Rung>,
    /// The last output is what the others are judged beside.
    has_reference: bool,
    graph: Option<Graph>,
}

impl<'t> Chain<'t> {
    pub fn new(task: &'t EncodeTask, outputs: Vec<Rung>, has_reference: bool) -> Self {
        Self { task, outputs, has_reference, graph: None }
    }

    /// The place of an output of that rung's size, scaled from the frame as it is decoded; added where there is none. Before the
    /// first frame only.
    pub fn output(&mut self, rung: &Rung) -> usize {
        let same = |other: &Rung| (other.width, other.height) == (rung.width, rung.height);
        self.outputs.iter().position(same).unwrap_or_else(|| {
            self.outputs.push(Rung { scale_from: None, ..rung.clone() });
            self.outputs.len() - 1
        })
    }

    /// The frame with even sides, where it has to be padded to them.
    ///
    /// # Errors
    /// Memory, or a format that cannot be padded.
    pub fn padded(&self, frame: &Frame) -> Result<Option<Frame>> {
        self.task.filters.pad_to_even.then(|| frame.padded_to_even()).transpose()
    }

    /// Can the frame be pushed now? If not, what there is has to be finished, pulled and closed before.
    pub fn fits(&self, frame: &Frame) -> bool {
        self.graph.as_ref().is_none_or(|graph| graph.fits(&Shape::of(frame)))
    }

    /// Takes a frame that fits, of that output time.
    ///
    /// # Errors
    /// Unsupported: the filters take no such frames.
    pub fn push(&mut self, frame: &mut Frame, time: i64) -> Result<()> {
        let graph = match &mut self.graph {
            Some(open) => open,
            none => {
                let (task, base) = (self.task, Rational::new(1, i64::from(self.task.timescale)));
                let outputs = (&self.outputs[..], self.has_reference);
                none.insert(Graph::open(&Shape::of(frame), base, task.frame_rate, &task.filters, outputs)?)
            }
        };
        frame.get_mut().pts = time;
        graph.push(frame)
    }

    /// The next picture of an output, and its output time; `None` when there is none yet.
    ///
    /// # Errors
    /// Internal: a filter fails.
    pub fn pull(&mut self, output: usize, picture: &mut Frame) -> Result<Option<i64>> {
        self.graph.as_mut().map_or(Ok(None), |graph| graph.pull(output, picture))
    }

    /// No more frames of this shape come: what the filters hold back can be pulled.
    ///
    /// # Errors
    /// Internal: the graph refuses.
    pub fn finish(&mut self) -> Result<()> {
        self.graph.as_mut().map_or(Ok(()), Graph::finish)
    }

    /// Everything was pulled.
    pub fn close(&mut self) {
        self.graph = None;
    }
}
