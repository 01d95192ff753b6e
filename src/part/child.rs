//! A part's child: its inputs, its scratch folder, its progress, and what its end means for the part.

use super::accept::Accepted;
use super::{Attempt, PartError, Tools};
use crate::event::Cause;
use crate::plan::marker::PartId;
use crate::sandbox::protocol::{Limits, RefusalReason, Report, Task};
use crate::sandbox::{Disposition, Finished, InputSource, Outcome, RangeRead, Sandbox};
use crate::store::{Concatenated, RangedSource};
use async_trait::async_trait;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How often the progress of one child is shown, at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Something a running child is to be ended for.
pub type StopFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs the tasks that touch media bytes.
#[async_trait]
pub trait Children: Send + Sync {
    /// Runs one task to its end, whichever it is. The files it makes are in `scratch`.
    async fn run(
        &self,
        task: Task,
        inputs: Vec<InputSource>,
        limits: &Limits,
        scratch: &Path,
        on_progress: &mut (dyn FnMut(u64) + Send),
        stop: StopFuture,
    ) -> Finished;
}

/// Runs them as jailed processes.
pub struct JailedChildren(pub Sandbox);

#[async_trait]
impl Children for JailedChildren {
    async fn run(
        &self,
        task: Task,
        inputs: Vec<InputSource>,
        limits: &Limits,
        scratch: &Path,
        on_progress: &mut (dyn FnMut(u64) + Send),
        stop: StopFuture,
    ) -> Finished {
        self.0.run(task, inputs, limits.clone(), scratch, on_progress, stop).await
    }
}

#[async_trait]
impl RangeRead for RangedSource {
    fn bytes(&self) -> u64 {
        RangedSource::bytes(self)
    }

    async fn read(&self, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        RangedSource::read(self, offset, bytes).await
    }
}

#[async_trait]
impl RangeRead for Concatenated {
    fn bytes(&self) -> u64 {
        Concatenated::bytes(self)
    }

    async fn read(&self, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        Concatenated::read(self, offset, bytes).await
    }
}

/// A child that did its work.
pub(super) struct Worked {
    pub report: Report,
    /// Holds the files the report names; gone when dropped.
    pub scratch: Scratch,
    pub wall_s: f64,
    pub cpu_s: f64,
    pub peak_bytes: u64,
}

/// The folder of one child, removed when dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    fn new(root: &Path, name: &str) -> io::Result<Self> {
        let path = root.join(name);
        std::fs::create_dir_all(&path)?;
        // Resolved once, so that what lies in it can be compared with it.
        Ok(Self(path.canonicalize()?))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "scratch folder not removed");
        }
    }
}

/// The source of a job, as its configuration says it is to be read.
pub(super) async fn source(tools: &Tools, accepted: &Accepted) -> Result<InputSource, PartError> {
    let uri = &accepted.job.input.uri;
    let source = tools.stores.source(&accepted.job.tenant, uri)?;
    // What was opened is compared, not what lies there under the same name.
    let (identity, input) = match source.file()? {
        Some(local) if !tools.settings.ranges => (local.identity(), InputSource::File(local.file)),
        _ => {
            let ranges = source.ranges().await?;
            (ranges.identity().clone(), InputSource::Ranges(Arc::new(ranges)))
        }
    };
    if identity != accepted.source {
        return Err(PartError::reject(Cause::Media, format!("{}: changed while it was being worked on", source.name())));
    }
    Ok(input)
}

/// Runs one task of a part. The permit is given back when the child has ended.
pub(super) async fn run(
    tools: &Tools,
    accepted: &Accepted,
    attempt: &Attempt,
    task: Task,
    inputs: Vec<InputSource>,
) -> Result<Worked, PartError> {
    let part = attempt.part;
    // Unique in this process, which has the scratch root for itself.
    static COUNTED: AtomicU64 = AtomicU64::new(0);
    let count = COUNTED.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}.{}.{count}", accepted.id, part.to_string().replace('/', "-"));
    let scratch = Scratch::new(&tools.settings.scratch, &name)
        .map_err(|e| PartError::Retry(format!("no scratch folder could be made: {e}")))?;
    let (sender, receiver) = watch::channel(0_u64);
    let mut on_progress = move |frames| {
        sender.send_replace(frames);
    };
    let mut stop = attempt.stop.clone();
    let stop: StopFuture = Box::pin(async move { stop.requested().await });
    let kind = task.kind();
    let finished = tokio::select! {
        finished = tools.children.run(task, inputs, &tools.settings.limits, scratch.path(), &mut on_progress, stop) => finished,
        never = show(tools, accepted, part, receiver) => match never {},
    };
    let Finished { outcome, wall, cpu, peak_bytes, stderr_tail, jail, .. } = finished;
    tracing::debug!(job = %accepted.id, %part, task = kind, outcome = outcome.label(), ?jail, ?wall, ?cpu, "child ended");
    match outcome {
        Outcome::Done(report) => {
            Ok(Worked { report: *report, scratch, wall_s: wall.as_secs_f64(), cpu_s: cpu.as_secs_f64(), peak_bytes })
        }
        outcome => Err(verdict(&outcome, part, &stderr_tail)),
    }
}

/// What an unhappy end means for the part.
fn verdict(outcome: &Outcome, part: PartId, stderr_tail: &str) -> PartError {
    let cause = match outcome {
        Outcome::Refused(refusal) if refusal.reason == RefusalReason::Settings => Cause::Settings,
        _ => Cause::Media,
    };
    let last_words = match stderr_tail.trim() {
        "" => String::new(),
        tail => format!("; its last words: {tail}"),
    };
    match outcome.disposition() {
        Disposition::Retry => PartError::Retry(format!("{part}: {outcome}{last_words}")),
        Disposition::Reject => PartError::reject(cause, outcome.to_string()),
        Disposition::Stopped => PartError::Stopped,
        Disposition::Crash | Disposition::Done => PartError::Crash(format!("{part}: {outcome}{last_words}")),
    }
}

/// Shows progress for as long as it is polled, not oftener than every [`PROGRESS_EVERY`].
async fn show(tools: &Tools, accepted: &Accepted, part: PartId, mut frames: watch::Receiver<u64>) -> std::convert::Infallible {
    loop {
        if frames.changed().await.is_err() {
            return std::future::pending().await;
        }
        let done = *frames.borrow_and_update();
        tools.show_progress(&accepted.id, &accepted.job.tenant, part, done).await;
        tokio::time::sleep(PROGRESS_EVERY).await;
    }
}

/// A report of another kind than was asked for, or about another thing.
pub(super) fn unexpected(part: PartId, what: &str) -> PartError {
    PartError::Crash(format!("{part}: the child's report is not about what it was asked for: {what}"))
}
