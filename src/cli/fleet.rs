//! What the commands of a fleet have in common: its settings, and its broker and stores, opened.

use super::exit::{Exit, Failed};
use super::{configure, runtime};
use crate::config::Config;
use crate::coordinator::Fleet;
use crate::coordinator::ops::OpError;
use crate::shutdown::Signals;
use std::path::PathBuf;

/// Where a command's settings are.
#[derive(clap::Args)]
pub(super) struct Settings {
    /// Settings file of the fleet; the environment (NARROWS_...) wins over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
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

/// What is said when a question is broken off.
pub(super) const ASKED: &str = "interrupted; nothing was changed";
/// What is said when an order is broken off: every one of them may be given again.
pub(super) const ORDERED: &str = "interrupted; give the same command again";

impl From<OpError> for Failed {
    fn from(error: OpError) -> Self {
        let exit = match &error {
            OpError::NoJob(_) | OpError::NoTenant(_) | OpError::Conflict(_) => Exit::Misuse,
            OpError::Invalid(_) | OpError::Forbidden(_) | OpError::Exhausted(_) => Exit::Settings,
            OpError::Store(_) | OpError::Broker(_) | OpError::Internal(_) => Exit::Internal,
        };
        exit.because(error)
    }
}
