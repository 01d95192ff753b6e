//! `narrows transcode`: the whole fleet in one process, for one job.

use super::exit::{Exit, Failed};
use super::folder::WorkFolder;
use super::local::{self, Places};
use super::presets::write_out;
use super::view::{REFRESH_EVERY, View};
use super::{configure, runtime, table};
use crate::broker::{Consumer, Delivery, Queue, Subscription, Topic};
use crate::config::Config;
use crate::event::{Event, Fact, Status};
use crate::job::{ClassChoice, Input, Job, JobId, Lane, OnDamage, Output};
use crate::part::accept;
use crate::part::accepted::{self, Accepted};
use crate::part::report::JobReport;
use crate::part::resume::{self, Found};
use crate::part::{PartError, Tools};
use crate::shutdown::{self, Signal, Signals};
use crate::store::key::Key;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Deliveries of events that may be out at once.
const EVENT_PREFETCH: usize = 16;
/// How long the worker has to end after a signal; its own grace is shorter.
const LEAVE_WITHIN: Duration = Duration::from_millis(1900);

const EXAMPLES: &str = "Examples:
  narrows transcode talk.mp4 -o out/
  narrows transcode talk.mp4 -o out/ --preset h264 --set packaging.segment_s=4 --slots 2 --json
  narrows transcode talk.mp4 -o out/ --preset mezzanine --on-damage salvage
  narrows transcode --job job.json

The same command again takes up what was broken off; work that is done is not done twice.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A media file.
    #[arg(value_name = "SRC", required_unless_present = "job", conflicts_with = "job")]
    source: Option<PathBuf>,
    /// Folder for the result. Work in progress is in its subfolder .narrows.
    #[arg(short, long, value_name = "OUT", required_unless_present = "job", conflicts_with = "job")]
    output: Option<PathBuf>,
    /// What to make; `narrows presets` lists them. [default: h265]
    #[arg(long, conflicts_with = "job")]
    preset: Option<String>,
    /// Change a field of the preset, by its dotted path; may be given several times.
    #[arg(long, value_name = "PATH=VALUE", value_parser = assignment, conflicts_with = "job")]
    set: Vec<(String, serde_json::Value)>,
    /// A damaged source: fail beyond the preset's limit, or salvage what can be decoded. [default: fail]
    #[arg(long, value_enum, conflicts_with = "job")]
    on_damage: Option<Damaged>,
    /// Read the job from a JSON document instead.
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,
    /// Children that run at once. [default: one for each core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    slots: Option<u16>,
    /// Print the report as JSON, and nothing else.
    #[arg(long)]
    json: bool,
    /// Settings file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for work in progress, instead of OUT/.narrows.
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Let children read the source by ranges from their parent, as they do from object storage.
    #[arg(long)]
    ranges: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Damaged {
    Fail,
    Salvage,
}

/// `path=value`; a value that is no JSON is text.
fn assignment(text: &str) -> Result<(String, serde_json::Value), String> {
    let (path, value) = text.split_once('=').filter(|(path, _)| !path.is_empty()).ok_or("is not PATH=VALUE")?;
    Ok((path.into(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

pub(super) fn run(args: Args) -> Result<Exit, Failed> {
    let mut config = configure(args.config.as_deref())?;
    if let Some(slots) = args.slots {
        config.worker.slots = usize::from(slots);
    }
    let job = args.job()?;
    // Before anything is made: a wrong preset leaves no folder behind.
    accepted::preset(&job).map_err(|e| Exit::Settings.because(e))?;
    let source = local::source(Path::new(&job.input.uri))?;
    let folder = WorkFolder::open(Path::new(&job.output.uri), args.work.as_deref())?;
    let job = Job {
        // By their real names, so that the same job is known again from another folder.
        input: Input { uri: source.to_string_lossy().into_owned() },
        output: Output { uri: folder.output.to_string_lossy().into_owned() },
        ..job
    };
    let places = Places { folder: &folder, source_uri: &job.input.uri, source, output_uri: &job.output.uri };
    let stores = local::stores(&places).map_err(|e| Exit::Internal.because(e))?;
    let runtime = runtime()?;
    let identity = runtime.block_on(accept::identify(&stores, &job)).map_err(|e| Exit::Misuse.because(e))?;
    let accepted = Accepted::new(job, identity).and_then(|accepted| accepted.on(&[])).map_err(|e| Exit::Settings.because(e))?;
    let tools = local::tools(&config, stores, &folder.scratch, args.ranges);
    let ended = runtime.block_on(Session { config: &config, tools, accepted: &accepted, quiet: args.json }.run());
    // Whatever is still open is dropped, which ends its child.
    runtime.shutdown_background();
    write_out(&ended?)
}

impl Args {
    fn job(&self) -> Result<Job, Failed> {
        if let Some(path) = &self.job {
            let name = path.display();
            let document = std::fs::read(path).map_err(|e| Exit::Misuse.because(format!("{name}: {e}")))?;
            return Job::parse(&document).map_err(|e| Exit::Settings.because(format!("{name}: {e}")));
        }
        let text = |path: &Option<PathBuf>| path.as_deref().map_or(String::new(), |p| p.to_string_lossy().into_owned());
        Ok(Job {
            id: None,
            tenant: "local".into(),
            lane: Lane::Normal,
            class: ClassChoice::default(),
            input: Input { uri: text(&self.source) },
            output: Output { uri: text(&self.output) },
            preset: self.preset.clone().unwrap_or_else(|| "h265".into()),
            set: self.set.iter().cloned().collect::<BTreeMap<_, _>>(),
            on_damage: match self.on_damage {
                Some(Damaged::Salvage) => OnDamage::Salvage,
                Some(Damaged::Fail) | None => OnDamage::Fail,
            },
            callbacks: Vec::new(),
            extend: None,
            metadata: BTreeMap::new(),
        })
    }
}

/// One job from submission to its end.
struct Session<'a> {
    config: &'a Config,
    tools: Tools,
    accepted: &'a Accepted,
    /// Only the report is wanted.
    quiet: bool,
}

/// How the watching of a job ended.
enum Ended {
    Job(Fact),
    Signal(Signal),
}

impl Session<'_> {
    /// What to print.
    async fn run(self) -> Result<String, Failed> {
        // From here on a signal is asked about, never fatal in the middle of a write.
        let mut signals = Signals::listen().map_err(|e| Exit::Internal.because(e))?;
        let done = match resume::look(&self.tools, self.accepted).await.map_err(internal)? {
            Found::Complete => {
                self.say("already complete: nothing was encoded again");
                return self.report(None).await;
            }
            Found::Begun { parts } => {
                self.say(&format!("taking up a job of which {} parts are done", parts.len()));
                parts
            }
            Found::New => BTreeMap::new(),
            Found::Foreign => {
                let id = &self.accepted.id;
                return Err(Exit::Settings.because(format!("id: '{id}' {}", accept::FOREIGN_ID)));
            }
        };
        if !self.accepted.job.callbacks.is_empty() {
            self.say("callbacks: are told by a fleet only; here nobody is called");
        }
        let is_fresh = done.is_empty();
        let mut view = View::new(self.quiet, &done);
        let (stopper, stop) = shutdown::channel();
        let mut watch = Watch::new(&self.tools, &self.accepted.id).await?;
        let mut worker = tokio::spawn(local::worker(self.config, self.tools.clone()).run(stop));
        self.submit().await?;
        let ended = tokio::select! {
            ended = watch.run(&mut view) => ended?,
            signal = signals.next() => Ended::Signal(signal),
            broken = &mut worker => return Err(Exit::Internal.because(format!("the worker ended: {broken:?}"))),
        };
        stopper.stop();
        let left = async {
            tokio::select! {
                _ = tokio::time::timeout(LEAVE_WITHIN, worker) => {}
                _ = signals.next() => {}
            }
        };
        left.await;
        let took = view.finish();
        match ended {
            Ended::Signal(signal) => {
                Err(Exit::Signalled(signal).because("interrupted; the same command again goes on from here"))
            }
            // The speed of a run that did a part of the work only would mean nothing.
            Ended::Job(Fact::JobCompleted { .. }) => self.report(is_fresh.then_some(took)).await,
            Ended::Job(Fact::JobFailed { failure, .. }) => {
                let name = &self.accepted.job.input.uri;
                Err(Exit::from(failure.cause).because(format!("{name}: {}", failure.message)))
            }
            Ended::Job(Fact::JobRejected { path, reason, .. }) => Err(Exit::Settings.because(format!("{path}: {reason}"))),
            Ended::Job(_) => Err(Exit::Internal.because("the job was canceled")),
        }
    }

    async fn submit(&self) -> Result<(), Failed> {
        let job = &self.accepted.job;
        let document = serde_json::to_vec(job).map_err(|e| Exit::Internal.because(e))?;
        self.tools.broker.publish(Queue::Jobs(job.lane), document).await.map_err(|e| Exit::Internal.because(e))
    }

    /// The report as it is to be printed.
    async fn report(&self, took: Option<Duration>) -> Result<String, Failed> {
        let output = self.tools.output(self.accepted).map_err(|e| Exit::Internal.because(e))?;
        let key = Key::output(crate::part::REPORT_PATH).map_err(|e| Exit::Internal.because(e))?;
        let body = output.get(&key).await.map_err(|e| Exit::Internal.because(e))?;
        if self.quiet {
            return Ok(String::from_utf8_lossy(&body).into_owned() + "\n");
        }
        let report: JobReport = serde_json::from_slice(&body).map_err(|e| Exit::Internal.because(e))?;
        let end = took.map_or(String::new(), |took| {
            let (took, media) = (took.as_secs_f64(), report.totals.duration_s);
            format!("{media:.3} s of media in {took:.1} s ({:.2}x), {:.1} CPU seconds\n", media / took, report.totals.cpu_s)
        });
        Ok(table::text(&report) + &end)
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            eprintln!("{}: {text}", self.accepted.job.output.uri);
        }
    }
}

fn internal(error: PartError) -> Failed {
    Exit::Internal.because(error)
}

/// Listens to one job.
struct Watch {
    events: Box<dyn Consumer>,
    progress: Box<dyn Subscription>,
    job: JobId,
    status: Status,
}

impl Watch {
    async fn new(tools: &Tools, job: &JobId) -> Result<Self, Failed> {
        let broken = |e| Exit::Internal.because(e);
        let events = tools.broker.consume(Queue::events_of(job.as_str()), EVENT_PREFETCH).await.map_err(broken)?;
        let progress = tools.broker.subscribe(Topic::Progress).await.map_err(broken)?;
        Ok(Self { events, progress, job: job.clone(), status: Status::default() })
    }

    /// Shows what happens until the job has ended.
    async fn run(&mut self, view: &mut View) -> Result<Ended, Failed> {
        let mut refresh = tokio::time::interval(REFRESH_EVERY);
        loop {
            tokio::select! {
                delivery = self.events.next() => {
                    let delivery = delivery.map_err(|e| Exit::Internal.because(e))?;
                    if let Some(fact) = self.event(delivery, view).await? {
                        return Ok(Ended::Job(fact));
                    }
                }
                Some(body) = self.progress.next() => match serde_json::from_slice::<Event>(&body) {
                    Ok(event) if event.job == self.job => view.event(&event),
                    _ => {}
                },
                _ = refresh.tick() => view.refresh(),
            }
        }
    }

    /// Takes in one event; the fact, when it is the end of the job.
    async fn event(&mut self, delivery: Delivery, view: &mut View) -> Result<Option<Fact>, Failed> {
        let event: Event = serde_json::from_slice(&delivery.body).map_err(|e| Exit::Internal.because(e))?;
        delivery.ack().await.map_err(|e| Exit::Internal.because(e))?;
        if event.job != self.job {
            return Ok(None);
        }
        self.status.apply(&event).map_err(|e| Exit::Internal.because(e))?;
        view.event(&event);
        let has_ended = self.status.state.is_some_and(crate::event::State::is_terminal);
        Ok(has_ended.then_some(event.fact))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_field_is_json_where_it_can_be() {
        assert_eq!(assignment("packaging.segment_s=4"), Ok(("packaging.segment_s".into(), 4.into())));
        assert_eq!(assignment("video.speed=fast"), Ok(("video.speed".into(), "fast".into())));
        assert_eq!(assignment("video.params.x=a=b"), Ok(("video.params.x".into(), "a=b".into())));
        assert!(assignment("packaging.segment_s").is_err());
        assert!(assignment("=4").is_err());
    }
}
