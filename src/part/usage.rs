//! What a job used, from its markers, and from the notes on work that was thrown away.
//!
//! A note is an object whose name says everything: one listing reads them all. It is written for every attempt that did
//! not end in a marker and whose worker lived to write it.

use super::accepted::Accepted;
use super::class;
use super::error::PartError;
use super::markers;
use super::tools::{Attempt, PartMessage, Spent, Tools, latest_revision};
use crate::job::JobId;
use crate::plan::marker::{Marker, PartId, PartResult};
use crate::store::key::Key;
use crate::usage::{Usage, metered};
use std::time::Duration;

/// One attempt whose work was thrown away.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waste {
    part: String,
    cpu_ms: u64,
    kind: String,
}

impl Waste {
    /// `encode-00012.3.1530.crash.9f3a1c22`: the part, the attempt, its CPU milliseconds, how it ended, and digits that tell
    /// it from others.
    fn name(part: PartId, attempt: u32, cpu: Duration, kind: &str) -> String {
        format!("{}.{attempt}.{}.{kind}.{:08x}", part_name(part), cpu.as_millis(), rand::random::<u32>())
    }

    fn parse(name: &str) -> Option<Self> {
        let fields: Vec<&str> = name.split('.').collect();
        let [part, _, cpu_ms, kind, _] = fields[..] else { return None };
        Some(Self { part: part.into(), cpu_ms: cpu_ms.parse().ok()?, kind: kind.into() })
    }
}

fn part_name(part: PartId) -> String {
    part.to_string().replace('/', "-")
}

async fn wasted(tools: &Tools, job: &JobId) -> Result<Vec<Waste>, PartError> {
    let folder = Key::wasted_folder(job);
    let paths = tools.stores.work().list(&folder).await?;
    Ok(paths.iter().filter_map(|path| Waste::parse(path.strip_prefix(&folder)?)).collect())
}

/// Notes that an attempt came to nothing, unless it was broken off before it did anything. A note that cannot be written
/// is a bill that is too low, and no more.
pub async fn note_waste(tools: &Tools, message: &PartMessage, attempt: u32, spent: &Spent, error: &PartError) {
    if !spent.total().is_zero() || matches!(error, PartError::Crash(_) | PartError::Device(_)) {
        note(tools, message, attempt, spent, error.kind()).await;
    }
}

/// Notes that the work of an attempt had been done by somebody else meanwhile.
pub(super) async fn note_copy(tools: &Tools, message: &PartMessage, attempt: &Attempt) {
    note(tools, message, attempt.number, &attempt.spent, "copy").await;
}

async fn note(tools: &Tools, PartMessage { job, part }: &PartMessage, attempt: u32, spent: &Spent, kind: &str) {
    let key = Key::wasted(job, &Waste::name(*part, attempt, spent.total(), kind));
    if let Err(error) = tools.stores.work().put(&key, Vec::new()).await {
        tracing::debug!(%job, %part, %error, "wasted work not noted");
    }
}

/// How often a part came to an end of this kind so far, over all workers.
///
/// # Errors
/// The work store cannot be asked.
pub async fn failures(tools: &Tools, job: &JobId, part: PartId, kind: &str) -> Result<u32, PartError> {
    let name = part_name(part);
    let count = wasted(tools, job).await?.iter().filter(|waste| waste.kind == kind && waste.part == name).count();
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Forgets what was thrown away by earlier runs.
pub(super) async fn forget_waste(tools: &Tools, job: &JobId) -> Result<(), PartError> {
    let folder = Key::wasted_folder(job);
    for path in tools.stores.work().list(&folder).await? {
        let Some(name) = path.strip_prefix(&folder) else { continue };
        tools.stores.work().delete(&Key::wasted(job, name)).await?;
    }
    Ok(())
}

/// What a job used up to now.
///
/// # Errors
/// The work store cannot be asked.
pub async fn measure(tools: &Tools, accepted: &Accepted) -> Result<Usage, PartError> {
    let (id, work) = (&accepted.id, tools.stores.work());
    // The package part has read all markers, and says what they come to.
    let packaged = work.get_json::<Marker>(&Key::marker(id, PartId::Package)).await?;
    let mut usage = match packaged.map(|marker| marker.result) {
        Some(PartResult::Package { usage: Some(usage) }) => usage,
        _ => {
            let class = class::in_force(work, accepted).await?;
            let markers = markers::all(tools, id, class).await?;
            let plan = if markers.is_empty() { None } else { work.get_json(&Key::plan(id)).await? };
            let plan = match plan {
                Some(plan) => Some(latest_revision(work, id, plan).await?.plan),
                None => None,
            };
            metered::of(plan.as_ref(), accepted.source.bytes, &markers)
        }
    };
    let (attempts, cpu_s) = thrown_away(tools, id).await?;
    usage.waste(attempts, cpu_s);
    Ok(usage)
}

/// How often work on a job was thrown away up to now, and the CPU seconds of that.
///
/// # Errors
/// The work store cannot be asked.
pub async fn thrown_away(tools: &Tools, job: &JobId) -> Result<(u64, f64), PartError> {
    let mut sum = Usage::default();
    wasted(tools, job).await?.iter().for_each(|waste| sum.waste(1, waste.cpu_ms as f64 / 1000.0));
    Ok((sum.wasted_attempts, sum.wasted_cpu_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_of_wasted_work_is_read_from_its_name() {
        let spent = Spent::default();
        spent.add(Duration::from_micros(1_000_400));
        spent.clone().add(Duration::from_micros(530_000));
        let name = |error: PartError| Waste::name(PartId::Encode(12), 3, spent.total(), error.kind());
        let crashed = name(PartError::Crash("died".into()));
        let expected = Waste { part: "encode-00012".into(), cpu_ms: 1530, kind: "crash".into() };
        assert_eq!(Waste::parse(&crashed), Some(expected), "{crashed}");
        assert_eq!(Waste::parse(&name(PartError::Device("gone".into()))).unwrap().kind, "device");
        assert_ne!(name(PartError::Stopped), name(PartError::Stopped));
        for name in ["", "x", "encode-00012.3.many.crash.1", "a.b.c.d.e.f"] {
            assert_eq!(Waste::parse(name), None, "{name}");
        }
    }
}
