//! The fleet in one process: a broker in memory, a folder as its bucket.

use super::exit::{Exit, Failed};
use super::folder::WorkFolder;
use crate::broker::memory::{Bounds, MemoryBroker};
use crate::config::Config;
use crate::part::scratch::ScratchFolder;
use crate::part::{JailedChildren, Mode, Settings, Tools};
use crate::sandbox::Sandbox;
use crate::store::{LocalFile, Store, StoreError, Stores};
use crate::worker::lanes::LaneWeights;
use crate::worker::{Worker, WorkerSettings};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A source file, opened once to see that it can be.
///
/// # Errors
/// There is no such file, it is none, or may not be read: the message names it.
pub(super) fn source(path: &Path) -> Result<PathBuf, Failed> {
    let opened = LocalFile::open(path).and_then(|_| path.canonicalize());
    opened.map_err(|e| Exit::Misuse.because(format!("{}: {e}", path.display())))
}

/// Where a run reads and writes.
pub(super) struct Places<'a> {
    pub folder: &'a WorkFolder,
    /// How the job names its source and its output.
    pub source_uri: &'a str,
    pub source: PathBuf,
    pub output_uri: &'a str,
}

/// The stores that a job of this run can reach: its one source and its one output.
pub(super) fn stores(places: &Places<'_>) -> Result<Stores, StoreError> {
    let folder = places.folder;
    let work = Store::folder(&folder.work, &folder.work_temporary)?;
    let output = Store::folder(&folder.output, &folder.output_temporary)?;
    let stores = Stores::new(work).with_output(places.output_uri, output);
    Ok(stores.with_source(places.source_uri, places.source.clone()))
}

/// What the parts of this run work with.
pub(super) fn tools(config: &Config, stores: Stores, scratch: &Path, ranges: bool) -> Tools {
    let settings = Settings {
        mode: Mode::OneProcess,
        limits: config.limits.clone(),
        scratch: ScratchFolder::unlimited(scratch.to_path_buf()),
        threads_per_slot: config.worker.threads_per_slot,
        ranges,
        window: config.worker.window,
    };
    let broker = Arc::new(MemoryBroker::new(Bounds::default()));
    Tools::new(broker, stores, Arc::new(JailedChildren(Sandbox::from(&config.sandbox))), settings)
}

/// How many children run at once.
pub(super) fn slots(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    if config.worker.slots == 0 { cores() } else { config.worker.slots }
}

/// The worker of this run.
pub(super) fn worker(config: &Config, tools: Tools) -> Worker {
    let settings = WorkerSettings {
        slots: slots(config),
        software: true,
        // One process has no coordinator that would see that a device does not come.
        devices: Vec::new(),
        device_rules: config.devices.clone(),
        self_test: false,
        name: "local".into(),
        lanes: LaneWeights { high: 1, normal: 1, low: 1 },
        attempts: config.retry.attempts,
        outage_attempts: config.retry.outage_attempts,
        part_deadline: Duration::from_secs(config.worker.part_deadline_s),
        grace: Duration::ZERO,
        first_delay: Duration::from_millis(config.retry.first_delay_ms),
        longest_delay: Duration::from_millis(config.retry.longest_delay_ms),
    };
    Worker::new(tools, settings)
}
