//! One part end to end: fetch, child, upload, marker; then the event, and what the part releases.
//!
//! The order of writes is what makes redelivery harmless: objects, marker, event, further parts, and only then does the
//! worker ack. A part that finds its marker skips to the event. A part of a job that has ended, or is to end, is skipped.

pub mod accept;
pub mod accepted;
pub mod admission;
mod analyse;
mod audio;
mod calibrate;
mod child;
mod children;
pub mod class;
mod encode;
mod error;
pub mod finish;
pub mod golden;
mod markers;
mod next;
mod package;
mod probe;
pub mod report;
pub mod resume;
mod revise;
pub mod scratch;
mod tools;
mod upload;
pub mod usage;

pub use children::{Children, JailedChildren, StopFuture};
pub use error::PartError;
pub use report::REPORT_PATH;
pub use tools::{Attempt, Mode, PartMessage, Planned, Settings, Slot, Spent, Tools, latest_revision};

use crate::event::{Fact, Stage};
use crate::job::Class;
use crate::plan::marker::{Marker, PartId, PartResult};
use crate::reconcile::classes::{self, Misplaced};
use crate::store::key::Key;
use accepted::Accepted;
use finish::Fence;

/// Does a part, unless it has been done or its job has ended.
///
/// # Errors
/// See [`PartError`]; whatever the error, the same message may be worked on again.
pub async fn run(tools: &Tools, message: &PartMessage, mut attempt: Attempt) -> Result<(), PartError> {
    let id = &message.job;
    let key = Key::marker_in(id, attempt.class, message.part);
    let marker = async { Ok(tools.stores.work().get_json::<Marker>(&key).await?) };
    let (accepted, fence, marker) = tokio::try_join!(tools.accepted(id), finish::fence(tools, id), marker)?;
    tools.span.note("tenant", accepted.job.tenant.as_str());
    match fence {
        Fence::Open => {}
        // Whoever had this message before may have died between writing the end and telling it.
        Fence::Ended if attempt.is_repeated() => return finish::tell_again(tools, &accepted).await,
        Fence::Ended => return Ok(()),
        Fence::Canceled => return finish::cancel(tools, &accepted).await,
    }
    let class = tools.class(&accepted).await?;
    match classes::misplaced(message.part, attempt.class, accepted.class, class) {
        None => {}
        Some(Misplaced::Stale) => return Ok(()),
        Some(Misplaced::To(_)) => return Ok(tools.publish(id, accepted.job.lane, class, &[message.part]).await?),
    }
    if message.part == PartId::Probe {
        tell_started(tools, &accepted).await?;
    }
    if message.part == PartId::Package && accepted.class.is_device() && !next::may_package(tools, &accepted, class).await? {
        // It was asked for of chunks that do not count any more: the job fell back.
        return next::resume(tools, &accepted).await;
    }
    let marker = match marker {
        // A revision is there, too, or is made: it is what counts, not its marker.
        Some(marker) if message.part.revises().is_none() => marker,
        _ => do_and_mark(tools, &accepted, message, class, &mut attempt).await?,
    };
    drop(attempt.permit.take());
    let fact = Fact::PartCompleted {
        part: marker.part,
        attempt: marker.attempt,
        frames: frames(&marker),
        wall_s: marker.wall_s,
        cpu_s: marker.cpu_s,
    };
    tools.tell(id, &accepted.job.tenant, fact).await?;
    next::after(tools, &accepted, message.part, attempt.class).await
}

/// A job starts with its first part, not when it is accepted: one that waits for its tenant's quota has not started.
async fn tell_started(tools: &Tools, accepted: &Accepted) -> Result<(), PartError> {
    let (id, tenant) = (&accepted.id, &accepted.job.tenant);
    tools.tell(id, tenant, Fact::JobStarted).await?;
    let started = Fact::StageStarted { stage: Stage::Probe, parts: 1, frames: 0, media_s: 0.0 };
    Ok(tools.tell(id, tenant, started).await?)
}

async fn do_and_mark(
    tools: &Tools,
    accepted: &Accepted,
    message: &PartMessage,
    class: Class,
    attempt: &mut Attempt,
) -> Result<Marker, PartError> {
    let (key, work_store) = (Key::marker_in(&message.job, attempt.class, message.part), tools.stores.work());
    let marker = work(tools, accepted, class, attempt).await?;
    if attempt.redelivered
        && let Some(others) = work_store.get_json::<Marker>(&key).await?
    {
        // The worker that the broker had given up was only slow. Either marker is right; one is billed.
        usage::note_copy(tools, message, attempt).await;
        return Ok(others);
    }
    work_store.put_json(&key, &marker).await?;
    Ok(marker)
}

async fn work(tools: &Tools, accepted: &Accepted, class: Class, attempt: &mut Attempt) -> Result<Marker, PartError> {
    let part = attempt.part;
    let planned = || tools.planned_for(accepted, part);
    match part {
        PartId::Probe => probe::run(tools, accepted, attempt).await,
        PartId::Analyse(chunk) => analyse::run(tools, &*planned().await?, chunk, attempt).await,
        PartId::Calibrate(chunk) => calibrate::run(tools, &*planned().await?, chunk, attempt).await,
        PartId::Encode(chunk) => encode::run(tools, &*planned().await?, chunk, attempt).await,
        PartId::Repair(chunk) => encode::repair(tools, &*planned().await?, chunk, attempt).await,
        PartId::Audio(rendition) => audio::run(tools, &*planned().await?, rendition, attempt).await,
        PartId::Survey | PartId::Decide | PartId::Adjust | PartId::Verify => revise::run(tools, &planned().await?, attempt).await,
        PartId::Package => package::run(tools, &*planned().await?, class, attempt).await,
    }
}

/// Video frames that a part made, all rungs together.
pub fn frames(marker: &Marker) -> u64 {
    match &marker.result {
        PartResult::Encode(report) => report.rungs.iter().map(|r| r.frames).sum(),
        PartResult::Probe
        | PartResult::Analyse(_)
        | PartResult::Revise
        | PartResult::Calibrate(_)
        | PartResult::Audio(_)
        | PartResult::Package { .. } => 0,
    }
}
