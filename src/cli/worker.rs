//! `narrows worker`: takes work off the broker's queues until it is asked to stop.

use super::exit::{Exit, Failed};
use super::notify::{self, Said};
use super::{configure, fleet, local, runtime};
use crate::broker::{Broker, BrokerError};
use crate::config::Config;
use crate::job::JobId;
use crate::observe::{Exposition, Observer};
use crate::part::scratch::{Claim, ScratchFolder, ScratchLimits};
use crate::part::{JailedChildren, Mode, Settings, Tools};
use crate::sandbox::Sandbox;
use crate::shutdown::{self, Signals};
use crate::store::Stores;
use crate::store::key::Key;
use crate::telemetry::metrics::{Metrics, Registry, Role};
use crate::telemetry::traces::Traces;
use crate::worker::{Worker, WorkerSettings, health};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

const EXAMPLES: &str = "Examples:
  narrows worker --config fleet.toml
  narrows worker --config fleet.toml --slots 8

SIGTERM or Ctrl-C: nothing further is taken; what is open is finished, or handed back after worker.drain_s. Again: at once.
Any number of workers may run, on any machines; one that is killed loses nothing but the time of the parts it was at.

Exit codes: 0 drained; 64 settings; 70 our fault, or the broker's; 130 and 143 asked twice.";

/// How long the runtime waits for threads that are writing when everything else has ended.
const THREADS_WITHIN: Duration = Duration::from_millis(200);
/// Part of the grace that is kept for leaving itself: what was on its way here goes back, connections are closed.
const LEAVING: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    settings: fleet::Settings,
    /// Children that run at once. [default: worker.slots, or one for each core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    slots: Option<u16>,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    let mut config = configure(args.settings.file())?;
    if let Some(slots) = args.slots {
        config.worker.slots = usize::from(slots);
    }
    let root = config.scratch.folder.clone().unwrap_or_else(|| std::env::temp_dir().join("narrows"));
    let wrong = |e| Exit::Settings.because(format!("scratch.folder: {}: cannot be used: {e}", root.display()));
    let claim = Claim::under(&root).map_err(wrong)?;
    let runtime = runtime()?;
    let ended = runtime.block_on(work(&config, claim.path.clone()));
    // Whatever is still open is dropped, which ends its child; then the folder is emptied.
    runtime.shutdown_timeout(THREADS_WITHIN);
    drop(claim);
    ended
}

async fn work(config: &Config, scratch: PathBuf) -> Result<Exit, Failed> {
    // From here on a signal is asked about, never fatal in the middle of a write.
    let mut signals = Signals::listen().map_err(|e| Exit::Internal.because(e))?;
    let worker = tokio::select! {
        opened = open(config, scratch) => opened?,
        signal = signals.next() => return Err(Exit::Signalled(signal).because("stopped before it was connected")),
    };
    let Opened { worker, tools, metrics, traces, listener } = worker;
    let (stopper, stop) = shutdown::channel();
    let (pages, pages_stop) = shutdown::channel();
    let serving = listener.map(|listener| {
        let (health, broker, stores) = (worker.health(), tools.broker.clone(), tools.stores.clone());
        tokio::spawn(health::serve(listener, health::Pages { health, broker, stores, metrics }, pages_stop))
    });
    let health = worker.health();
    let mut running = tokio::spawn(worker.run(stop));
    notify::ready();
    let telling = tokio::spawn(notify::keep_telling(move || Said { is_alive: health.is_alive(), status: health.in_words() }));
    let mut asked = None;
    let ended = loop {
        tokio::select! {
            ended = &mut running => break ended,
            signal = signals.next() => {
                tracing::info!(?signal, "asked to stop");
                notify::stopping();
                stopper.stop();
                asked = asked.map_or(Some((signal, 1)), |(_, times)| Some((signal, times + 1)));
            }
        }
    };
    fleet::flush(traces).await;
    // Until now it was said, and could be asked, whether the worker is still alive.
    telling.abort();
    pages.stop();
    if let Some(serving) = serving {
        serving.abort();
    }
    match (ended, asked) {
        (Err(panic), _) => Err(Exit::Internal.because(format!("the worker ended in a panic: {panic}"))),
        (Ok(Err(error)), _) => Err(broken(error)),
        (Ok(Ok(())), Some((signal, times))) if times > 1 => {
            Err(Exit::Signalled(signal).because("asked twice: what was open went back to the broker"))
        }
        (Ok(Ok(())), _) => Ok(Exit::Done),
    }
}

struct Opened {
    worker: Worker,
    tools: Tools,
    metrics: Exposition,
    traces: Option<Arc<Traces>>,
    listener: Option<TcpListener>,
}

async fn open(config: &Config, scratch: PathBuf) -> Result<Opened, Failed> {
    let metrics = Metrics::new(Registry::new(), Role::Worker);
    let traces = fleet::traces(config, &metrics, "worker", &settings(config).name)?;
    let observer: Arc<dyn Observer> = metrics.clone();
    let stores = fleet::stores(config, &observer)?;
    reach(&stores).await?;
    let broker: Arc<dyn Broker> = Arc::new(fleet::broker(config, &observer).await.map_err(broken)?);
    let tools = tools(config, broker, stores, scratch)?.with_observer(observer);
    let listener = match config.worker.listen {
        Some(address) => {
            let wrong = |e| Exit::Settings.because(format!("worker.listen: {address}: {e}"));
            let listener = TcpListener::bind(address).await.map_err(wrong)?;
            let address = listener.local_addr().map_err(wrong)?;
            tracing::info!(%address, "health and metrics are answered");
            Some(listener)
        }
        None => None,
    };
    let worker = Worker::new(tools.clone(), settings(config));
    tracing::info!(slots = local::slots(config), "working");
    Ok(Opened { worker, tools, metrics: Metrics::exposition(metrics), traces, listener })
}

fn broken(error: BrokerError) -> Failed {
    match error {
        BrokerError::Denied(_) => Exit::Settings.because(error),
        error => Exit::Internal.because(error),
    }
}

/// A worker whose work store refuses it would only spoil jobs. One that is away comes back.
async fn reach(stores: &Stores) -> Result<(), Failed> {
    let key = Key::job(&JobId::try_from("readiness".to_string()).expect("letters are a job id"));
    match stores.work().size(&key).await {
        Err(error) if !error.is_temporary() => Err(Exit::Settings.because(format!("the work store: {error}"))),
        Err(error) => {
            tracing::warn!(%error, "the work store does not answer yet");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// What the parts of a fleet's worker work with.
fn tools(config: &Config, broker: Arc<dyn Broker>, stores: Stores, scratch: PathBuf) -> Result<Tools, Failed> {
    let limits = ScratchLimits { worker_bytes: config.scratch.worker_bytes, part_bytes: config.scratch.part_bytes };
    let settings = Settings {
        mode: Mode::Fleet,
        limits: config.limits.clone(),
        scratch: ScratchFolder { path: scratch, limits },
        threads_per_slot: config.worker.threads_per_slot,
        ranges: false,
        window: config.worker.window,
    };
    let children = Arc::new(JailedChildren(Sandbox::from(&config.sandbox)));
    let tools = Tools::new(broker, stores, children, settings);
    let tools = tools.with_tenants(fleet::tenants(config, false)?).with_callbacks(config.callbacks.clone());
    Ok(tools.with_device_classes(&config.devices.classes))
}

/// How a worker is set up by this configuration.
pub(super) fn settings(config: &Config) -> WorkerSettings {
    WorkerSettings {
        name: config.worker.name.clone().unwrap_or_else(own_name),
        slots: local::slots(config),
        software: config.worker.software,
        devices: config.worker.devices.clone(),
        device_rules: config.devices.clone(),
        self_test: true,
        lanes: config.worker.lanes,
        attempts: config.retry.attempts,
        outage_attempts: config.retry.outage_attempts,
        first_delay: Duration::from_millis(config.retry.first_delay_ms),
        longest_delay: Duration::from_millis(config.retry.longest_delay_ms),
        part_deadline: Duration::from_secs(config.worker.part_deadline_s),
        grace: Duration::from_secs(config.worker.drain_s).saturating_sub(LEAVING),
    }
}

/// Host and process.
pub(super) fn own_name() -> String {
    let host = nix::unistd::gethostname().unwrap_or_default();
    format!("{}-{}", host.to_string_lossy(), std::process::id())
}
