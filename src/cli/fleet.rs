//! What the commands of a fleet have in common: its settings, and its broker and stores, opened.

use super::exit::{Exit, Failed};
use super::{configure, runtime};
use crate::broker::BrokerError;
use crate::broker::rabbit::{Kind, RabbitBroker};
use crate::config::Config;
use crate::coordinator::Fleet;
use crate::coordinator::ops::OpError;
use crate::job::JobError;
use crate::observe::{self, Observer};
use crate::shutdown::Signals;
use crate::store::Stores;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::{self, Traces};
use crate::tenant::{KeyPlace, Tenants};
use crate::trace::Span;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Most that is read of a file with a key, bytes; longer ones are refused by their length.
const MAX_KEY_BYTES: u64 = 64 * 1024;

/// How long a process that leaves waits for its last spans to be exported: within what is kept for leaving.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);

/// Where a command's settings are.
#[derive(clap::Args)]
pub(super) struct Settings {
    /// Settings file of the fleet; the environment (NARROWS_...) wins over it.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

impl Settings {
    /// The file, where one is given.
    pub fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }
}

/// Opens the fleet and does something with it. A signal ends that wherever it is, and `left` says what that means.
pub(super) fn run(
    settings: &Settings,
    left: &str,
    work: impl AsyncFnOnce(Fleet) -> Result<Exit, Failed>,
) -> Result<Exit, Failed> {
    let config = configure(settings.config.as_deref())?;
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let mut signals = Signals::listen().map_err(|e| Exit::Internal.because(e))?;
        let work = async { work(open(&config).await?).await };
        tokio::select! {
            ended = work => ended,
            signal = signals.next() => Err(Exit::Signalled(signal).because(left)),
        }
    });
    runtime.shutdown_background();
    ended
}

/// The broker and the stores of the settings, and whose jobs there are.
async fn open(config: &Config) -> Result<Fleet, Failed> {
    let observer = observe::nobody();
    let stores = stores(config, &observer)?;
    let tenants = tenants(config, false)?;
    let broker = broker(config, &observer).await.map_err(|error| match error {
        BrokerError::Denied(_) => Exit::Settings.because(error),
        error => Exit::Internal.because(error),
    })?;
    let (tenants, callbacks) = (Arc::new(tenants), Arc::new(config.callbacks.clone()));
    let (broker, window, devices) = (Arc::new(broker), config.worker.window, Arc::new(config.devices.clone()));
    Ok(Fleet { broker, stores, tenants, callbacks, window, devices, observer, span: Span::none() })
}

/// Records what the process does where the settings say so. Call it within the runtime that is to export.
///
/// # Errors
/// Names the setting.
pub(super) fn traces(
    config: &Config,
    metrics: &Metrics,
    role: &'static str,
    instance: &str,
) -> Result<Option<Arc<Traces>>, Failed> {
    let Some(settings) = &config.telemetry.traces else { return Ok(None) };
    let traces = traces::start(settings, role, instance, metrics.trace_spans()).map_err(wrong_traces)?;
    metrics.record(traces.clone());
    Ok(Some(traces))
}

/// What is wrong with where traces go.
pub(super) fn wrong_traces((field, reason): (&'static str, String)) -> Failed {
    Exit::Settings.because(format!("telemetry.traces.{field}: {reason}"))
}

/// Waits a little for the last spans.
pub(super) async fn flush(traces: Option<Arc<Traces>>) {
    if let Some(traces) = traces {
        traces.flush(FLUSH_WITHIN).await;
    }
}

/// Connects to the broker.
///
/// # Errors
/// It is not there, or it refuses.
pub(super) async fn broker(config: &Config, observer: &Arc<dyn Observer>) -> Result<RabbitBroker, BrokerError> {
    if config.broker.kind != Kind::RabbitMq {
        let how =
            "broker.kind: is \"memory\", which nobody else can reach; set it to \"rabbitmq\", and broker.uri or broker.uri_file";
        return Err(BrokerError::Denied(how.into()));
    }
    RabbitBroker::connect_observed(&config.broker, observer.clone()).await
}

/// The stores of the settings, each tenant bound to its own. Nothing is asked of them yet.
///
/// # Errors
/// Names the setting.
pub(super) fn stores(config: &Config, observer: &Arc<dyn Observer>) -> Result<Stores, Failed> {
    let Some(work) = &config.work else {
        return Err(Exit::Settings.because("work.store: is missing; name the store that holds the work"));
    };
    let environment = |name: &str| std::env::var(name).ok();
    let stores = Stores::open_observed(&config.stores, &work.store, &environment, observer);
    let stores = stores.map_err(|e| Exit::Settings.because(e))?;
    let bound = config.tenants.iter().filter_map(|(name, tenant)| Some((name, tenant.stores.as_ref()?)));
    Ok(bound.fold(stores, |stores, (tenant, names)| stores.with_tenant(tenant, names.iter().cloned().collect())))
}

/// Whose jobs there are, with their keys where somebody is to be authenticated or something to be signed.
///
/// # Errors
/// Names the setting, and never a key.
pub(super) fn tenants(config: &Config, with_keys: bool) -> Result<Tenants, Failed> {
    let rules = config.submit.rules();
    let tenants = if with_keys { Tenants::with_keys(&config.tenants, rules, key) } else { Tenants::new(&config.tenants, rules) };
    tenants.map_err(|e| Exit::Settings.because(e))
}

/// The content of a file or a variable that holds a key.
pub(super) fn key(place: KeyPlace<'_>) -> Result<Vec<u8>, String> {
    match place {
        KeyPlace::File(path) => {
            let mut content = Vec::new();
            let read = std::fs::File::open(path).and_then(|file| file.take(MAX_KEY_BYTES).read_to_end(&mut content));
            read.map(|_| content).map_err(|e| format!("{path}: {e}"))
        }
        KeyPlace::Variable(name) => {
            std::env::var(name).map(String::into_bytes).map_err(|_| format!("the environment variable {name} is not set"))
        }
    }
}

/// What is said when a question is broken off.
pub(super) const ASKED: &str = "interrupted; nothing was changed";
/// What is said when an order is broken off: every one of them may be given again.
pub(super) const ORDERED: &str = "interrupted; give the same command again";

/// As arguments see it: a field of the request is one of them.
impl From<OpError> for Failed {
    fn from(error: OpError) -> Self {
        match error {
            OpError::Invalid(JobError { path, reason }) => {
                Exit::Misuse.because(format!("--{}: {reason}", path.trim_end_matches("_sequence")))
            }
            OpError::NoJob(_) | OpError::NoTenant(_) | OpError::Conflict(_) => Exit::Misuse.because(error),
            error => rejected(error),
        }
    }
}

/// As a document sees it: a field of the request is one of its own.
pub(super) fn rejected(error: OpError) -> Failed {
    let exit = match &error {
        OpError::Store(_) | OpError::Broker(_) | OpError::Internal(_) => Exit::Internal,
        _ => Exit::Settings,
    };
    exit.because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_field_is_an_argument_or_one_of_the_document() {
        let wrong = |path: &str| OpError::Invalid(JobError { path: path.into(), reason: "is none".into() });
        let failed = Failed::from(wrong("from_sequence"));
        assert_eq!((failed.exit, failed.message.as_str()), (Exit::Misuse, "--from: is none"));
        let failed = rejected(wrong("input.uri"));
        assert_eq!((failed.exit, failed.message.as_str()), (Exit::Settings, "input.uri: is none"));
        assert_eq!(Failed::from(OpError::Internal("broken".into())).exit, Exit::Internal);
        assert_eq!(Failed::from(OpError::Forbidden("frozen".into())).exit, Exit::Settings);
    }
}
