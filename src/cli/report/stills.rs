//! Pictures of the worst moments: source and top rung, each from a jailed child. The program itself looks at no media.

use super::segments::Track;
use super::story::{Score, source_clock, video_facts};
use super::worst::Pair;
use crate::cli::exit::{Exit, Failed};
use crate::cli::measure::input;
use crate::cli::scratch::Scratch;
use crate::config::Config;
use crate::part::report::JobReport;
use crate::sandbox::protocol::{Report, Still, StillTask, Task};
use crate::sandbox::{Finished, InputSource, Outcome, Sandbox};
use crate::shutdown::{Signal, Signals};
use crate::store::LocalFile;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Longest side of a still, pixels: a page of a few moments stays small enough to be sent to somebody.
const LONGEST_SIDE: u32 = 1280;
/// Largest still that is taken, bytes.
const MOST_BYTES: u64 = 8 * 1024 * 1024;
/// How every JPEG begins (ITU-T T.81 B.1.1.3: start of image, then a marker).
const JPEG_BEGINS: [u8; 3] = [0xff, 0xd8, 0xff];
const SOURCE_FILE: &str = "source.jpg";
const RUNG_FILE: &str = "rung.jpg";

/// The source of a report, where it is at hand.
///
/// # Errors
/// Misuse: a file that was named cannot be opened. Why it is not at hand, in a sentence, is no error.
pub(super) fn source(report: &JobReport, named: Option<&Path>) -> Result<Result<LocalFile, String>, Failed> {
    if let Some(path) = named {
        let file = LocalFile::open(path).map_err(|e| Exit::Misuse.because(format!("{}: {e}", path.display())))?;
        return Ok(if is_same(report, &file) {
            Ok(file)
        } else {
            Err(format!("{} is not the file that was encoded", path.display()))
        });
    }
    let uri = &report.source.uri;
    let path = uri.strip_prefix("file://").unwrap_or(uri);
    if path.contains("://") {
        return Ok(Err(format!("the source is at {uri}; --source names it where it lies on this machine")));
    }
    let file = LocalFile::open(Path::new(path));
    Ok(match file {
        Ok(file) if is_same(report, &file) => Ok(file),
        Ok(_) => Err(format!("{path} is no longer the file that was encoded")),
        Err(e) => Err(format!("{path}: {e}; --source names the source where it lies now")),
    })
}

/// As long as the source was: what else it may be, its pictures tell.
fn is_same(report: &JobReport, file: &LocalFile) -> bool {
    report.source.facts.0["bytes"].as_u64() == Some(file.bytes)
}

/// What children need.
pub(super) struct Studio<'a> {
    pub config: &'a Config,
    pub report: &'a JobReport,
    /// The top rung as it lies on the disk.
    pub track: &'a Track,
    pub source: &'a LocalFile,
}

/// The pictures of each moment, or why they could not be had.
pub(super) type Shots = Vec<Result<Pair, String>>;

impl Studio<'_> {
    /// One child for each moment, one after the other.
    ///
    /// # Errors
    /// Interrupted. Internal: there is no scratch folder.
    pub async fn shoot(&self, moments: &[Score]) -> Result<Shots, Failed> {
        let scratch = Scratch::new(&std::env::temp_dir(), "report")
            .map_err(|e| Exit::Internal.because(format!("no scratch folder could be made: {e}")))?;
        let mut signals = Signals::listen().map_err(|e| Exit::Internal.because(e))?;
        let mut shots = Vec::with_capacity(moments.len());
        for moment in moments {
            shots.push(self.shoot_one(moment, scratch.path(), &mut signals).await?);
        }
        Ok(shots)
    }

    async fn shoot_one(&self, moment: &Score, scratch: &Path, signals: &mut Signals) -> Result<Result<Pair, String>, Failed> {
        let inputs = match self.inputs(moment) {
            Ok(inputs) => inputs,
            Err(why) => return Ok(Err(why)),
        };
        let (width, height) = size(self.report);
        let (from, skip) = self.in_source(moment);
        let of = |input, from, skip, file: &str| Still { input, from, skip, width, height, file: file.into() };
        let stills = vec![of(0, from, skip, SOURCE_FILE), of(1, None, moment.picture, RUNG_FILE)];
        let signalled = Mutex::new(None);
        let stop = async {
            let signal = signals.next().await;
            *signalled.lock().unwrap_or_else(PoisonError::into_inner) = Some(signal);
        };
        let (sandbox, limits) = (Sandbox::from(&self.config.sandbox), self.config.limits.clone());
        let task = Task::Still(StillTask { stills });
        let finished = sandbox.run(task, inputs, limits, scratch, &mut |_| {}, stop).await;
        let signal = signalled.into_inner().unwrap_or_else(PoisonError::into_inner);
        taken(finished, signal)?.map_or_else(|why| Ok(Err(why)), |()| Ok(pair(scratch, (width, height))))
    }

    /// The source, and the segments of the moment's chunk end to end.
    fn inputs(&self, moment: &Score) -> Result<Vec<InputSource>, String> {
        let segments = |chunk: &crate::part::report::ChunkReport| chunk.rungs.first().map_or(0, |rung| rung.segments);
        let (before, own) = (&self.report.chunks[..moment.chunk], segments(&self.report.chunks[moment.chunk]));
        let first: usize = before.iter().map(segments).sum();
        let pieces = self.track.segments.get(first..first + own).filter(|pieces| !pieces.is_empty());
        let pieces = pieces.ok_or("the playlist has other segments than the report tells of")?;
        let paths: Vec<PathBuf> = std::iter::once(&self.track.init).chain(pieces.iter().map(|s| &s.path)).cloned().collect();
        let joined = input::end_to_end(paths).map_err(|(path, e)| format!("{}: {e}", path.display()))?;
        Ok(vec![InputSource::File(self.source.file.clone()), joined])
    }

    /// Where a moment is in the source: a time, ticks, and pictures to pass over from there on. Of a source with an even rate
    /// the picture's own time, so that not much is decoded; of any other the chunk's beginning, from where pictures are counted
    /// as the encoder counted them.
    fn in_source(&self, moment: &Score) -> (Option<i64>, u64) {
        let facts = video_facts(self.report);
        let Some((tick_s, first)) = source_clock(self.report) else { return (None, moment.picture) };
        if facts["clock"]["kind"] != "trusted" {
            return (None, moment.picture);
        }
        // Rounding may not pass over a picture: half of the shortest one is room enough.
        let room = facts["shortest_frame"].as_i64().unwrap_or(0) / 2;
        let ticks = |time_s: f64| first.saturating_add((time_s / tick_s).round() as i64).saturating_sub(room);
        if facts["constant_rate"] == true {
            return (Some(ticks(moment.time_s)), 0);
        }
        (Some(ticks(self.report.chunks[moment.chunk].start_s)), moment.picture)
    }
}

/// The size in which the title is shown, no larger than a still may be; both sides even.
fn size(report: &JobReport) -> (u32, u32) {
    let decided = report.narrowband.as_ref().and_then(|found| found.grounds.decision.candidates.first());
    let shown = decided.map(|curve| (curve.size.width, curve.size.height));
    let (width, height) = shown.or(report.rungs.first().map(|rung| (rung.width, rung.height))).unwrap_or((2, 2));
    let longest = width.max(height);
    let fitted = |side: u32| {
        let side =
            if longest > LONGEST_SIDE { u64::from(side) * u64::from(LONGEST_SIDE) / u64::from(longest) } else { side.into() };
        (side as u32).max(2) / 2 * 2
    };
    (fitted(width), fitted(height))
}

/// What to know of the pictures.
pub(super) fn notes(report: &JobReport) -> Vec<String> {
    let facts = video_facts(report);
    let mut notes = Vec::new();
    if facts["colour"]["dynamic_range"].as_str().is_some_and(|range| range != "SDR") {
        notes.push("The source is HDR: the stills show its values as they are, not mapped to this screen.".into());
    }
    if facts["interlace"].as_str().is_some_and(|kind| kind != "progressive") {
        notes.push("The source is interlaced: its stills show both fields at once.".into());
    }
    notes
}

/// How the child ended: with its pictures, without them for a reason, or by a signal to this program.
fn taken(finished: Finished, signal: Option<Signal>) -> Result<Result<(), String>, Failed> {
    match finished.outcome {
        Outcome::Done(report) if matches!(*report, Report::Still(_)) => Ok(Ok(())),
        Outcome::Done(_) => Err(Exit::Internal.because("the child made no pictures")),
        Outcome::Stopped => Err(Exit::Signalled(signal.unwrap_or(Signal::Interrupt)).because("interrupted")),
        Outcome::Refused(refusal) => Ok(Err(refusal.message)),
        outcome => Ok(Err(format!("{outcome}; {}", finished.stderr_tail.trim()))),
    }
}

fn pair(scratch: &Path, (width, height): (u32, u32)) -> Result<Pair, String> {
    let (source, rung) = (jpeg(&scratch.join(SOURCE_FILE))?, jpeg(&scratch.join(RUNG_FILE))?);
    Ok(Pair { source, rung, width, height })
}

/// What a child left, which is not believed to be what it should be.
fn jpeg(path: &Path) -> Result<Vec<u8>, String> {
    let wrong = |what: &str| format!("what the child made {what}");
    let meta = fs::symlink_metadata(path).map_err(|e| wrong(&format!("cannot be read: {e}")))?;
    if !meta.is_file() || meta.len() > MOST_BYTES {
        return Err(wrong("is no picture"));
    }
    let bytes = fs::read(path).map_err(|e| wrong(&format!("cannot be read: {e}")))?;
    // The next child makes its own.
    fs::remove_file(path).map_err(|e| wrong(&format!("cannot be removed: {e}")))?;
    if bytes.starts_with(&JPEG_BEGINS) { Ok(bytes) } else { Err(wrong("is no picture")) }
}
