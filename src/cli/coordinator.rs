//! `narrows coordinator`: turns what workers tell into what customers see, until it is asked to stop.

use super::exit::{Exit, Failed};
use super::notify::{self, Said};
use super::{configure, fleet, runtime, worker};
use crate::broker::{Broker, BrokerError};
use crate::callback::guard::SystemResolver;
use crate::callback::{TenantCallbacks, run as callbacks};
use crate::config::Config;
use crate::coordinator::api::Operator;
use crate::coordinator::{Coordinator, CoordinatorError, Fleet, Progress, now_ms};
use crate::observe::Observer;
use crate::shutdown::{self, Signals};
use crate::telemetry::metrics::{Metrics, Registry, Role};
use crate::telemetry::traces::Traces;
use crate::tenant::Secret;
use crate::trace::Span;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

const EXAMPLES: &str = "Examples:
  narrows coordinator --config fleet.toml

Any number of coordinators may run, on any machines: the broker gives each job to one of them, and every one answers HTTP.
SIGTERM or Ctrl-C: requests under way are answered, what is in hand is written. Again: at once; nothing is lost either way.

Exit codes: 0 drained; 64 settings; 70 our fault, or the broker's; 130 and 143 asked twice.";

/// How long the runtime waits for threads that are writing when everything else has ended.
const THREADS_WITHIN: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    settings: fleet::Settings,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    let config = configure(args.settings.file())?;
    let runtime = runtime()?;
    let ended = runtime.block_on(work(&config));
    runtime.shutdown_timeout(THREADS_WITHIN);
    ended
}

async fn work(config: &Config) -> Result<Exit, Failed> {
    // From here on a signal is asked about, never fatal in the middle of a write.
    let mut signals = Signals::listen().map_err(|e| Exit::Internal.because(e))?;
    let (coordinator, listener, traces) = tokio::select! {
        opened = open(config) => opened?,
        signal = signals.next() => return Err(Exit::Signalled(signal).because("stopped before it was connected")),
    };
    let (stopper, stop) = shutdown::channel();
    let progress = coordinator.progress.clone();
    let mut running = tokio::spawn(coordinator.run(listener, stop));
    notify::ready();
    let telling = tokio::spawn(notify::keep_telling(move || said(&progress)));
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
    telling.abort();
    fleet::flush(traces).await;
    match (ended, asked) {
        (Err(panic), _) => Err(Exit::Internal.because(format!("the coordinator ended in a panic: {panic}"))),
        (Ok(Err(error)), _) => Err(broken(error)),
        (Ok(Ok(())), Some((signal, times))) if times > 1 => {
            Err(Exit::Signalled(signal).because("asked twice: what was in hand comes again to another coordinator"))
        }
        (Ok(Ok(())), _) => Ok(Exit::Done),
    }
}

fn said(progress: &Progress) -> Said {
    match progress.hanging() {
        None => Said { is_alive: true, status: format!("working, {} partitions busy", progress.busy()) },
        Some(partition) => Said { is_alive: false, status: format!("partition {partition} hangs") },
    }
}

async fn open(config: &Config) -> Result<(Coordinator, TcpListener, Option<Arc<Traces>>), Failed> {
    let wrong = |e: String| Exit::Settings.because(e);
    let metrics = Metrics::new(Registry::new(), Role::Coordinator);
    let traces = fleet::traces(config, &metrics, "coordinator", &worker::own_name())?;
    let observer: Arc<dyn Observer> = metrics.clone();
    let stores = fleet::stores(config, &observer)?;
    let tenants = fleet::tenants(config, true)?;
    let told = TenantCallbacks::of_all(&tenants).map_err(|e| Exit::Settings.because(e))?;
    let operator = operator(config)?;
    let broker = fleet::broker(config, &observer).await.map_err(|error| broken(error.into()))?;
    let broker: Arc<dyn Broker> = Arc::new(broker);
    let (work, settings) = (stores.work().clone(), config.callbacks.clone());
    let callbacks = callbacks::Tools::new(broker.clone(), work, told, settings, Arc::new(SystemResolver), Arc::new(now_ms));
    let callbacks = callbacks.map_err(wrong)?.with_observer(observer.clone());
    let fleet = Fleet {
        broker,
        stores,
        tenants: Arc::new(tenants),
        callbacks: Arc::new(config.callbacks.clone()),
        window: config.worker.window,
        devices: Arc::new(config.devices.clone()),
        observer,
        span: Span::none(),
    };
    let (settings, metrics) = (config.coordinator.clone(), Metrics::exposition(metrics));
    let progress = Progress::default();
    let coordinator = Coordinator { fleet, settings, callbacks, operator, metrics, progress };
    let listener = coordinator.listen().await.map_err(broken)?;
    let address = listener.local_addr().map_err(|e| Exit::Internal.because(e))?;
    tracing::info!(%address, "requests are answered");
    Ok((coordinator, listener, traces))
}

/// The credentials of whoever runs the fleet, where there are any.
fn operator(config: &Config) -> Result<Option<Operator>, Failed> {
    let Some(operator) = &config.coordinator.operator else { return Ok(None) };
    let wrong = |(field, reason): (&str, String)| Exit::Settings.because(format!("coordinator.{field}: {reason}"));
    let (field, place) = operator.place().map_err(wrong)?;
    let secret = fleet::key(place).and_then(|content| Secret::new(&content)).map_err(|reason| wrong((field, reason)))?;
    Ok(Some(Operator::new(operator.access_key_id.clone(), &secret)))
}

fn broken(error: CoordinatorError) -> Failed {
    match error {
        CoordinatorError::Listen(_) | CoordinatorError::Broker(BrokerError::Denied(_)) => Exit::Settings.because(error),
        error => Exit::Internal.because(error),
    }
}
