//! The part `encode/<n>`: one chunk, all its rungs.

use super::child::{self, unexpected};
use super::error::PartError;
use super::tools::{Attempt, Planned, Tools};
use super::upload::{self, MediaPlace};
use crate::job::Class;
use crate::observe::{Encoded, Observer};
use crate::plan::marker::{Marker, PartId, PartResult};
use crate::plan::{Plan, device, make};
use crate::sandbox::InputSource;
use crate::sandbox::protocol::{Device, EncodeReport, EncodeTask, Report, Task};
use crate::store::StoreError;
use crate::store::key::Key;
use crate::usage::metered;
use std::sync::Arc;

pub(super) async fn run(tools: &Tools, planned: &Planned, chunk: u32, attempt: &mut Attempt) -> Result<Marker, PartError> {
    let chunks = planned.plan.video.as_ref().map_or(0, |v| v.chunks.len());
    if chunk as usize >= chunks {
        return Err(PartError::Poison(format!("{}: the plan has {chunks} chunks", attempt.part)));
    }
    let threads = tools.settings.threads_per_slot;
    let task = match (attempt.class, attempt.device.clone()) {
        (Class::Cpu, _) => make::encode_task(&planned.plan, &planned.probe, chunk, threads),
        (class, Some(device)) => {
            on_device(&planned.plan, class, device, |plan| make::encode_task(plan, &planned.probe, chunk, threads))
        }
        (class, None) => return Err(PartError::Retry(format!("this worker has no device of class {class}"))),
    };
    work(tools, planned, task, attempt).await
}

/// The task by the encoders of a class, or by those of its stand-in.
fn on_device(plan: &Plan, class: Class, device: Device, task: impl Fn(&Plan) -> EncodeTask) -> EncodeTask {
    let mut task = task(&plan.in_class(class));
    if device.stand_in {
        task.rungs = device::stand_in(plan.video.as_ref().map_or(&[], |video| &video.rungs));
    }
    task.device = Some(device);
    task
}

/// The part `repair/<n>`: the top rung of one chunk, once more.
pub(super) async fn repair(tools: &Tools, planned: &Planned, chunk: u32, attempt: &mut Attempt) -> Result<Marker, PartError> {
    let chunks = planned.plan.video.as_ref().map_or(0, |v| v.chunks.len());
    let threads = tools.settings.threads_per_slot;
    let is_chunk = (chunk as usize) < chunks;
    match is_chunk.then(|| make::repair_task(&planned.plan, &planned.probe, chunk, threads)).flatten() {
        Some(task) => work(tools, planned, task, attempt).await,
        None => Err(PartError::Poison(format!("{}: the plan has no such part", attempt.part))),
    }
}

async fn work(tools: &Tools, planned: &Planned, mut task: EncodeTask, attempt: &mut Attempt) -> Result<Marker, PartError> {
    let inputs = inputs(tools, planned, &mut task).await?;
    let worked = child::run(tools, &planned.accepted, attempt, Task::Encode(Box::new(task.clone())), inputs).await?;
    drop(attempt.permit.take());
    let Report::Encode(mut report) = worked.report else { return Err(unexpected(attempt.part, "no encode")) };
    check(&report, &task).map_err(|what| unexpected(attempt.part, &what))?;
    tell_encoded(&*tools.observer, attempt.part, &task, &report);
    // A chunk into which no frame fell has nothing to upload.
    report.rungs.retain(|rung| !rung.segments.is_empty());
    let place = MediaPlace::of(tools, planned)?;
    let mut objects = Vec::new();
    for rung in &mut report.rungs {
        let uploaded = upload::rendition(&place, planned, &worked.scratch, &rung.name, &mut rung.init, &mut rung.segments);
        objects.extend(uploaded.await?);
    }
    Ok(Marker {
        part: attempt.part,
        objects,
        result: PartResult::Encode(report),
        attempt: attempt.number,
        wall_s: worked.wall_s,
        cpu_s: worked.cpu_s,
        peak_bytes: worked.peak_bytes,
    })
}

/// The source, and its packet table where there is one; where it is gone the task asks for none.
pub(super) async fn inputs(tools: &Tools, planned: &Planned, task: &mut EncodeTask) -> Result<Vec<InputSource>, PartError> {
    let mut inputs = vec![child::source(tools, &planned.accepted).await?];
    if task.table.is_some() {
        match packet_table(tools, planned, task.stream).await? {
            Some(table) => inputs.push(table),
            None => task.table = None,
        }
    }
    Ok(inputs)
}

/// Says what a chunk came to. Every rung holds the whole chunk, so the longest is the chunk's length; a repair makes more of
/// a rung, and no more of the source.
fn tell_encoded(observer: &dyn Observer, part: PartId, task: &EncodeTask, report: &EncodeReport) {
    let mut longest_s = 0.0_f64;
    for made in &report.rungs {
        let Some(rung) = task.rungs.iter().find(|rung| rung.name == made.name) else { continue };
        let media_s = metered::length_s(&made.segments, made.init.timescale);
        longest_s = longest_s.max(media_s);
        let codec = metered::codec(&rung.encoder.sample_entry, &rung.encoder.library);
        observer.rung_encoded(&Encoded { codec: &codec, height: rung.height, frames: made.frames, media_s });
    }
    if matches!(part, PartId::Encode(_)) {
        observer.chunk_encoded(longest_s);
    }
}

/// The packet table that the probe left; without it the child opens the container.
async fn packet_table(tools: &Tools, planned: &Planned, stream: usize) -> Result<Option<InputSource>, PartError> {
    match tools.stores.work().random_access(&Key::packets(planned.id(), stream)).await {
        Ok(table) => Ok(Some(InputSource::Ranges(Arc::new(table)))),
        Err(StoreError::Missing(_)) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The report is about this chunk, these rungs and these segments: names and numbers become paths of objects.
fn check(report: &EncodeReport, task: &EncodeTask) -> Result<(), String> {
    if report.chunk != task.chunk.index {
        return Err(format!("chunk {} for chunk {}", report.chunk, task.chunk.index));
    }
    let names = |mut all: Vec<String>| {
        all.sort();
        all
    };
    let made = names(report.rungs.iter().map(|r| r.name.clone()).collect());
    let wanted = names(task.rungs.iter().map(|r| r.name.clone()).collect());
    if made != wanted && report.frames > 0 {
        return Err(format!("rungs {made:?} for {wanted:?}"));
    }
    if let Some(foreign) = made.iter().find(|name| !wanted.contains(name)) {
        return Err(format!("rung {foreign} for {wanted:?}"));
    }
    let first = task.chunk.first_segment;
    // Frames on a clean clock may outrun the plan: there is one chunk, and nobody's numbers follow.
    let last = if task.clean_clock { u32::MAX } else { first + task.chunk.segments.len() as u32 };
    for rung in &report.rungs {
        let numbers: Vec<u32> = rung.segments.iter().map(|s| s.index).collect();
        if !numbers.is_sorted_by(|a, b| a < b) || numbers.iter().any(|n| !(first..last).contains(n)) {
            return Err(format!("segments {numbers:?} of {} for {first} to {last}", rung.name));
        }
    }
    Ok(())
}
