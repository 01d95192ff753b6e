//! A part's child: its inputs, its scratch folder, its progress, and what its end means for the part.

use super::accepted::Accepted;
use super::children::StopFuture;
use super::error::PartError;
use super::scratch::Scratch;
use super::tools::{Attempt, Tools};
use crate::event::Cause;
use crate::observe::ChildEnd;
use crate::plan::marker::PartId;
use crate::sandbox::protocol::{Device, RefusalReason, Report, Task};
use crate::sandbox::{Disposition, Finished, InputSource, Outcome};
use crate::trace::{Begun, Parent, Span, SpanRole};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the progress of one child is shown, at most.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// How often it is shown when there is none, so that whoever looks sees that somebody is at it.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);

/// A child that did its work.
pub(super) struct Worked {
    pub report: Report,
    /// Holds the files the report names; gone when dropped.
    pub scratch: Scratch,
    pub wall_s: f64,
    pub cpu_s: f64,
    pub peak_bytes: u64,
}

/// The source of a job: a file of this machine where it is one, and ranges of an object everywhere else.
pub(super) async fn source(tools: &Tools, accepted: &Accepted) -> Result<InputSource, PartError> {
    let source = tools.stores.source(&accepted.job.tenant, &accepted.job.input.uri)?;
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
    let name = format!("{}.{}", accepted.id, part.to_string().replace('/', "-"));
    let scratch = tools.settings.scratch.child(&name);
    let scratch = scratch.map_err(|e| PartError::Retry(format!("no scratch folder could be made: {e}")))?;
    let (sender, receiver) = watch::channel(0_u64);
    let mut on_progress = move |frames| {
        sender.send_replace(frames);
    };
    let mut stop = attempt.stop.clone();
    let stop: StopFuture = Box::pin(async move { stop.requested().await });
    let kind = task.kind();
    let parent = Parent::Sender(tools.span.context());
    let span = tools.observer.span(&Begun::now("child", kind, SpanRole::Internal, parent, accepted.id.as_str()));
    let finished = tokio::select! {
        finished = tools.children.run(task, inputs, &tools.settings.limits, scratch.path(), &mut on_progress, stop) => finished,
        never = show(tools, accepted, part, receiver) => match never {},
    };
    let Finished { outcome, wall, cpu, peak_bytes, stderr_tail, jail, .. } = finished;
    attempt.spent.add(cpu);
    let ended = ChildEnd { task: kind, outcome: outcome.label(), jail, wall, cpu, peak_bytes };
    tools.observer.child_ended(&ended);
    let ChildEnd { task, outcome: end, .. } = ended;
    note(&span, &ended);
    tracing::debug!(job = %accepted.id, %part, task, outcome = end, ?jail, ?wall, ?cpu, peak_bytes, "child ended");
    match outcome {
        Outcome::Done(report) => {
            Ok(Worked { report: *report, scratch, wall_s: wall.as_secs_f64(), cpu_s: cpu.as_secs_f64(), peak_bytes })
        }
        outcome => Err(verdict(&outcome, part, attempt.device.as_ref(), &stderr_tail)),
    }
}

fn note(span: &Span, ended: &ChildEnd) {
    span.note("task", ended.task);
    span.note("outcome", ended.outcome);
    span.note("cpu_s", ended.cpu.as_secs_f64());
    span.note("peak_bytes", ended.peak_bytes);
    if ended.outcome != "done" {
        span.fail();
    }
}

/// What an unhappy end means for the part.
fn verdict(outcome: &Outcome, part: PartId, device: Option<&Device>, stderr_tail: &str) -> PartError {
    let cause = match outcome {
        Outcome::Refused(refusal) if refusal.reason == RefusalReason::Settings => Cause::Settings,
        _ => Cause::Media,
    };
    let last_words = match stderr_tail.trim() {
        "" => String::new(),
        tail => format!("; its last words: {tail}"),
    };
    if let Some(device) = device.filter(|_| outcome.blames_encoder()) {
        return PartError::Device(format!("{part}, on {device}: {outcome}{last_words}"));
    }
    match outcome.disposition() {
        Disposition::Retry => PartError::Retry(format!("{part}: {outcome}{last_words}")),
        Disposition::Reject => PartError::reject(cause, outcome.to_string()),
        Disposition::Stopped => PartError::Stopped,
        Disposition::Crash | Disposition::Done => PartError::Crash(format!("{part}: {outcome}{last_words}")),
    }
}

/// Shows progress for as long as it is polled, not oftener than every [`PROGRESS_EVERY`], and not seldomer than every
/// [`HEARTBEAT_EVERY`].
async fn show(tools: &Tools, accepted: &Accepted, part: PartId, mut frames: watch::Receiver<u64>) -> std::convert::Infallible {
    loop {
        if let Ok(Err(_)) = tokio::time::timeout(HEARTBEAT_EVERY, frames.changed()).await {
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
