//! The part `package`: the seams are proved, progressive files copied together, the report and the manifests written.
//! The manifest comes last: what a customer can see is complete.

use super::child::{self, unexpected};
use super::error::PartError;
use super::markers;
use super::report::{JobReport, REPORT_PATH, Work};
use super::tools::{Attempt, Planned, Tools};
use super::upload::{self, MediaPlace};
use crate::event::{Cause, Fact, Stage};
use crate::job::Class;
use crate::package::{self, Progressive, SeamError, Title};
use crate::plan::marker::{Marker, Object, PartId, PartResult};
use crate::sandbox::InputSource;
use crate::sandbox::protocol::{RemuxTask, Report, Task};
use crate::store::key::Key;
use crate::store::{Concatenated, Store, digest};
use crate::usage::{Usage, metered};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// What the children of this part used.
#[derive(Default)]
struct Used {
    cpu_s: f64,
    peak_bytes: u64,
}

pub(super) async fn run(tools: &Tools, planned: &Planned, class: Class, attempt: &mut Attempt) -> Result<Marker, PartError> {
    if class.is_device() {
        return assemble(tools, &planned.in_class(class), class, attempt).await;
    }
    assemble(tools, planned, class, attempt).await
}

async fn assemble(tools: &Tools, planned: &Planned, class: Class, attempt: &mut Attempt) -> Result<Marker, PartError> {
    let started = Instant::now();
    let all = markers::all(tools, planned.id(), class).await?;
    let mut usage = metered::of(Some(&planned.plan), planned.accepted.source.bytes, &all);
    let of_stage = |stage| {
        all.iter()
            .filter(move |marker| Stage::of(marker.part) == stage && marker.part != PartId::Adjust)
            .cloned()
            .collect::<Vec<Marker>>()
    };
    let (mut markers, repairs) = (of_stage(Stage::Encode), of_stage(Stage::Verify));
    let mut superseded = repair(&mut markers, &repairs);
    let title = package::join(&planned.plan, &markers).map_err(|e| seam(&e, class))?;
    let output = tools.output(&planned.accepted)?;
    let place = MediaPlace::of(tools, planned)?;
    let mut used = Used::default();
    let mut objects = Vec::new();
    for file in package::progressive(&planned.plan, &title) {
        let object = progressive(tools, planned, &place, &output, &file, attempt, &mut used).await?;
        if place.is_intermediate() {
            tell_playable(tools, planned, &title, file.rendition(), &file.file).await?;
        }
        objects.push(object);
    }
    drop(attempt.permit.take());
    if !place.is_intermediate() {
        objects.extend(markers.iter().flat_map(|m| m.objects.iter().cloned()));
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        // Every chunk names the init segment of its rung.
        objects.dedup_by(|a, b| a.path == b.path);
    }
    if tools.class(&planned.accepted).await? != class {
        return Err(PartError::Retry("the job fell back while it was packaged".into()));
    }
    let work = Work { encodes: &markers, analyses: &of_stage(Stage::Analyse), repairs: &repairs };
    let report = JobReport::new(planned, &work, &title, &objects);
    let body = serde_json::to_vec_pretty(&report).map_err(|e| PartError::Crash(e.to_string()))?;
    objects.push(write(&output, REPORT_PATH, body).await?);
    for document in package::manifests(&planned.plan, &title) {
        objects.push(write(&output, &document.path, document.body.into_bytes()).await?);
        if let Some(track) = title.tracks().find(|track| package::playlist_path(track) == document.path) {
            tell_playable(tools, planned, &title, &track.name, &document.path).await?;
        }
    }
    if place.is_intermediate() {
        let all: Vec<Object> = markers.iter().flat_map(|marker| marker.objects.iter().cloned()).collect();
        discard(&place, planned, &all).await?;
    }
    for marker in abandoned(tools, planned, class).await? {
        usage.waste(1, marker.cpu_s);
        superseded.extend(marker.objects.into_iter().filter(|object| !is_named(&markers, object)));
    }
    // No manifest names them.
    discard(&place, planned, &superseded).await?;
    usage.add(&Usage { parts: 1, cpu_s: used.cpu_s, ..Usage::default() });
    usage.output_bytes = objects.iter().map(|object| object.bytes).sum();
    Ok(Marker {
        part: attempt.part,
        objects,
        result: PartResult::Package { usage: Some(usage) },
        attempt: attempt.number,
        wall_s: started.elapsed().as_secs_f64(),
        cpu_s: used.cpu_s,
        peak_bytes: used.peak_bytes,
    })
}

/// One rendition can be played, whatever becomes of the others.
async fn tell_playable(
    tools: &Tools,
    planned: &Planned,
    title: &Title,
    rendition: &str,
    playlist: &str,
) -> Result<(), PartError> {
    let media = title.measured(&planned.plan, rendition);
    let job = &planned.accepted.job;
    let url = Some(tools.stores.address(&job.tenant, &job.output.uri, playlist));
    let fact = Fact::RenditionCompleted { rendition: rendition.into(), playlist: playlist.into(), url, media };
    Ok(tools.tell(planned.id(), &job.tenant, fact).await?)
}

fn seam(error: &SeamError, class: Class) -> PartError {
    match error {
        SeamError::Damage { .. } | SeamError::Empty => PartError::reject(Cause::Media, error.to_string()),
        // Devices of one class that do not encode alike.
        _ if class.is_device() => PartError::Device(format!("the chunks of class {class} do not fit together: {error}")),
        _ => PartError::reject(Cause::Internal, format!("the parts do not fit together: {error}")),
    }
}

/// Copies the tracks of one progressive file together in a child and uploads it.
async fn progressive(
    tools: &Tools,
    planned: &Planned,
    place: &MediaPlace,
    output: &Store,
    wanted: &Progressive,
    attempt: &Attempt,
    used: &mut Used,
) -> Result<Object, PartError> {
    let mut inputs = Vec::new();
    for track in &wanted.tracks {
        let mut pieces = Vec::with_capacity(track.len());
        for path in track {
            pieces.push(place.store().ranged(&place.key(planned, path)?).await?);
        }
        inputs.push(InputSource::Ranges(Arc::new(Concatenated::new(pieces))));
    }
    let task = Task::Remux(RemuxTask { file: wanted.file.clone() });
    let worked = child::run(tools, &planned.accepted, attempt, task, inputs).await?;
    let Report::Remux(report) = worked.report else { return Err(unexpected(attempt.part, "no remux")) };
    let file = upload::inside(&worked.scratch, &report.file)?;
    let digested = digest(file.clone()).await?;
    let key = Key::output(&wanted.file).map_err(|e| PartError::Crash(e.to_string()))?;
    output.put_file(&key, &file).await?;
    used.cpu_s += worked.cpu_s;
    used.peak_bytes = used.peak_bytes.max(worked.peak_bytes);
    Ok(Object { path: wanted.file.clone(), bytes: digested.bytes, sha256: digested.sha256 })
}

async fn write(output: &Store, path: &str, body: Vec<u8>) -> Result<Object, PartError> {
    let key = Key::output(path).map_err(|e| PartError::Crash(e.to_string()))?;
    let (bytes, sha256) = (body.len() as u64, hex::encode(Sha256::digest(&body)));
    output.put(&key, body).await?;
    Ok(Object { path: path.into(), bytes, sha256 })
}

/// Puts the repaired rungs in the place of those that missed, and gives the objects that are of no use any more.
fn repair(encodes: &mut [Marker], repairs: &[Marker]) -> Vec<Object> {
    let mut superseded = Vec::new();
    for repaired in repairs {
        let (PartId::Repair(chunk), PartResult::Encode(again)) = (repaired.part, &repaired.result) else { continue };
        let Some(marker) = encodes.iter_mut().find(|marker| marker.part == PartId::Encode(chunk)) else { continue };
        let PartResult::Encode(report) = &mut marker.result else { continue };
        for rung in &again.rungs {
            let Some(place) = report.rungs.iter_mut().find(|old| old.name == rung.name) else { continue };
            let old = std::mem::replace(place, rung.clone());
            let is_old = |object: &Object| old.segments.iter().any(|segment| segment.file == object.path);
            superseded.extend(marker.objects.extract_if(.., |object| is_old(object)));
        }
        report.measured = again.measured.clone().or(report.measured.take());
        marker.objects.extend(repaired.objects.iter().cloned());
    }
    let kept: BTreeSet<&str> = encodes.iter().flat_map(|marker| &marker.objects).map(|object| object.path.as_str()).collect();
    superseded.retain(|object| !kept.contains(object.path.as_str()));
    superseded
}

/// The chunks that a device had made before the job fell back.
async fn abandoned(tools: &Tools, planned: &Planned, class: Class) -> Result<Vec<Marker>, PartError> {
    let began_with = planned.accepted.class;
    if class == began_with {
        return Ok(Vec::new());
    }
    let all = markers::all(tools, planned.id(), began_with).await?;
    Ok(all.into_iter().filter(|marker| marker.part.encodes()).collect())
}

fn is_named(markers: &[Marker], object: &Object) -> bool {
    markers.iter().flat_map(|marker| &marker.objects).any(|named| named.path == object.path)
}

/// Removes media that nothing names.
async fn discard(place: &MediaPlace, planned: &Planned, objects: &[Object]) -> Result<(), PartError> {
    for object in objects {
        place.store().delete(&place.key(planned, &object.path)?).await?;
    }
    Ok(())
}
