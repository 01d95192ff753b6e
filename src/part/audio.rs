//! The part `audio/<n>`: one rendition over the whole source, so that nothing clicks at a seam.

use super::child::{self, unexpected};
use super::error::PartError;
use super::tools::{Attempt, Planned, Tools};
use super::upload::{self, MediaPlace};
use crate::job::OnDamage;
use crate::plan::make;
use crate::plan::marker::{Marker, PartResult};
use crate::sandbox::protocol::{AudioReport, Damage, InitSegment, Report, Task};

pub(super) async fn run(tools: &Tools, planned: &Planned, rendition: u32, attempt: &mut Attempt) -> Result<Marker, PartError> {
    let count = planned.plan.audio.len();
    let Some(wanted) = planned.plan.audio.get(rendition as usize) else {
        return Err(PartError::Poison(format!("{}: the plan has {count} audio renditions", attempt.part)));
    };
    let task = make::audio_task(&planned.plan, rendition);
    let source = child::source(tools, &planned.accepted).await?;
    let worked = match child::run(tools, &planned.accepted, attempt, Task::Audio(Box::new(task)), vec![source]).await {
        Err(PartError::Reject(why)) if planned.plan.on_damage == OnDamage::Salvage => {
            tracing::warn!(job = %planned.accepted.id, part = %attempt.part, error = %why.message, "audio left out");
            return Ok(left_out(attempt, &wanted.name, why.message));
        }
        worked => worked?,
    };
    drop(attempt.permit.take());
    let Report::Audio(mut report) = worked.report else { return Err(unexpected(attempt.part, "no audio")) };
    if report.name != wanted.name {
        return Err(unexpected(attempt.part, &format!("rendition {} for {}", report.name, wanted.name)));
    }
    if !report.segments.is_sorted_by(|a, b| a.index < b.index) {
        return Err(unexpected(attempt.part, "segments out of order"));
    }
    // A stream that gave no sound is left out by the package part.
    let mut objects = Vec::new();
    if !report.segments.is_empty() {
        let (name, place) = (&wanted.name, MediaPlace::of(tools, planned)?);
        let (init, segments) = (&mut report.init, &mut report.segments);
        objects = upload::rendition(&place, planned, &worked.scratch, name, init, segments).await?;
        if let Some(plain) = &mut report.plain_init {
            objects.extend(upload::rendition(&place, planned, &worked.scratch, name, plain, &mut []).await?);
        }
    }
    Ok(Marker {
        part: attempt.part,
        objects,
        result: PartResult::Audio(report),
        attempt: attempt.number,
        wall_s: worked.wall_s,
        cpu_s: worked.cpu_s,
        peak_bytes: worked.peak_bytes,
    })
}

/// The marker of a rendition that nothing could be made of: the rest of the job is salvaged without it.
fn left_out(attempt: &Attempt, name: &str, why: String) -> Marker {
    let init = InitSegment { file: String::new(), bytes: 0, codecs: String::new(), timescale: 1 };
    let damage = Damage { message: Some(why), ..Damage::default() };
    let (name, segments) = (name.to_string(), Vec::new());
    let (plain_init, samples, priming) = (None, 0, 0);
    let report = AudioReport { name, init, plain_init, segments, samples, priming, filled: 0, trimmed: 0, damage, bytes: 0 };
    Marker {
        part: attempt.part,
        objects: Vec::new(),
        result: PartResult::Audio(report),
        attempt: attempt.number,
        wall_s: 0.0,
        cpu_s: 0.0,
        peak_bytes: 0,
    }
}
