//! `narrows measure`: how good a video is beside its original, frame by frame, from one jailed child.

pub(super) mod input;
pub(super) mod playlist;
mod progress;
mod say;

use super::exit::{Exit, Failed};
use super::presets::write_out;
use super::scratch::Scratch;
use super::{configure, exit_codes, runtime};
use crate::quality::Model;
use crate::sandbox::protocol::{Limits, MeasureReport, MeasureTask, Refusal, RefusalReason, Report, Task};
use crate::sandbox::{Finished, InputSource, Outcome, Sandbox};
use crate::shutdown::{Signal, Signals};
use progress::Progress;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Somebody waits, who can end it: the deadline of a fleet's parts, which hold a delivery, is not meant for them.
const DEADLINE: Duration = Duration::from_secs(7 * 24 * 3600);
/// The same of CPU time, for every core that may be used.
const CPU_S: u64 = 64 * 7 * 24 * 3600;
/// Threads unless said otherwise, at most: each reserves address space, of which a child has a limit.
const MOST_THREADS: usize = 8;

const EXAMPLES: &str = concat!(
    "Examples:
  narrows measure talk.mp4 out/720p/index.m3u8
  narrows measure talk.mp4 talk-small.mp4 --model neg,v1 --json
  narrows measure talk.mp4 talk-small.mp4 --start 250 --count 100 --frames
  narrows measure talk.mp4 out/1080p/index.m3u8 --subsample 5

Every frame of one is compared with the frame at the same place of the other, both as 4:2:0 at the reference's size. XPSNR is
pooled over the mean error; it is infinite (in JSON: null) where nothing differs.

",
    exit_codes!("0 done; 2 misuse; 64 configuration; 65 the media, or frame counts that differ; 70 our fault")
);

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The original: a media file.
    #[arg(value_name = "REF")]
    reference: PathBuf,
    /// What was made of it: a media file, or an HLS media playlist (.m3u8) whose segments lie beside it.
    #[arg(value_name = "DIST")]
    distorted: PathBuf,
    /// VMAF models; `none` leaves XPSNR alone.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "neg")]
    model: Vec<ModelName>,
    /// Pass over the first N frames of both.
    #[arg(long, value_name = "N", default_value_t = 0)]
    start: u64,
    /// Compare N frames only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Score every N-th frame only.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    subsample: u32,
    /// Bits a sample in which both are compared. [default: 10 where the reference has more than 8]
    #[arg(long, value_enum)]
    bits: Option<Bits>,
    /// So many frames may one have more than the other.
    #[arg(long, value_name = "N", default_value_t = 0)]
    allow_extra: u64,
    /// Print the scores of every frame, too.
    #[arg(long)]
    frames: bool,
    /// Print JSON, and nothing else.
    #[arg(long)]
    json: bool,
    /// Threads of VMAF; the scores do not depend on them. [default: one for each core, at most 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: Option<u32>,
    /// Settings file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ModelName {
    /// VMAF 0.6.1 NEG: enhancement gains nothing.
    Neg,
    /// VMAF 1.0.16, at three heights' distance.
    V1,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Bits {
    #[value(name = "8")]
    Eight,
    #[value(name = "10")]
    Ten,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    let task = args.task()?;
    let config = configure(args.config.as_deref())?;
    let inputs = vec![input::file(&args.reference)?, input::file_or_playlist(&args.distorted)?];
    let scratch = Scratch::new(&std::env::temp_dir(), "measure")
        .map_err(|e| Exit::Internal.because(format!("no scratch folder could be made: {e}")))?;
    let sandbox = Sandbox { deadline: DEADLINE, ..Sandbox::from(&config.sandbox) };
    let limits = Limits { cpu_s: CPU_S, ..config.limits };
    let mut progress = Progress::new(args.json, args.count);
    let compare = compare(&sandbox, task, inputs, limits, &scratch, &mut progress);
    let (finished, signal) = runtime()?.block_on(compare)?;
    drop(progress);
    let report = args.report(finished, signal)?;
    write_out(&if args.json { say::json(args, &report)? } else { say::text(args, &report) })
}

/// The child, and the signal that ended it where one did.
async fn compare(
    sandbox: &Sandbox,
    task: MeasureTask,
    inputs: Vec<InputSource>,
    limits: Limits,
    scratch: &Scratch,
    progress: &mut Progress,
) -> Result<(Finished, Option<Signal>), Failed> {
    let mut signals = Signals::listen().map_err(|e| Exit::Internal.because(e))?;
    let signalled = Mutex::new(None);
    let stop = async {
        let signal = signals.next().await;
        *signalled.lock().unwrap_or_else(PoisonError::into_inner) = Some(signal);
    };
    let mut show = |frames| progress.show(frames);
    let finished = sandbox.run(Task::Measure(task), inputs, limits, scratch.path(), &mut show, stop).await;
    Ok((finished, signalled.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

impl Args {
    fn task(&self) -> Result<MeasureTask, Failed> {
        let models: Vec<Model> = Model::ALL.into_iter().filter(|model| self.model.contains(&ModelName::of(*model))).collect();
        if self.model.contains(&ModelName::None) && !models.is_empty() {
            return Err(Exit::Misuse.because("--model: none goes with no other"));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        Ok(MeasureTask {
            models,
            start: self.start,
            count: self.count,
            every: self.subsample,
            bits: self.bits.map(|bits| if bits == Bits::Eight { 8 } else { 10 }),
            allow_extra: self.allow_extra,
            threads: self.threads.unwrap_or(cores as u32),
        })
    }

    fn report(&self, finished: Finished, signal: Option<Signal>) -> Result<MeasureReport, Failed> {
        use RefusalReason::{Input, Internal, Jail};
        match finished.outcome {
            Outcome::Done(report) => match *report {
                Report::Measure(report) => Ok(report),
                _ => Err(Exit::Internal.because("the child gave no measurement")),
            },
            Outcome::Stopped => Err(Exit::Signalled(signal.unwrap_or(Signal::Interrupt)).because("interrupted")),
            Outcome::Refused(Refusal { reason: Jail | Internal | Input, message }) => Err(Exit::Internal.because(message)),
            Outcome::Refused(refusal) => {
                let (reference, distorted) = (self.reference.display(), self.distorted.display());
                Err(Exit::Media.because(format!("{reference}, {distorted}: {}", refusal.message)))
            }
            outcome => Err(Exit::Internal.because(format!("{outcome}; {}", finished.stderr_tail.trim()))),
        }
    }
}

impl ModelName {
    fn of(model: Model) -> Self {
        match model {
            Model::Neg => ModelName::Neg,
            Model::V1 => ModelName::V1,
        }
    }
}
