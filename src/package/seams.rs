//! The seams: proof that chunks encoded apart, by any workers in any attempts, are one title.
//!
//! A manifest is written only of what passed here. Every refusal names the part, the rendition and both values.

mod damage;
#[cfg(test)]
mod tests;

use super::title::{AudioTrack, Title, Track, VideoTrack};
use crate::plan::marker::{Marker, Object, PartId, PartResult};
use crate::plan::{Plan, Rung, VideoPlan};
use crate::sandbox::protocol::{AudioReport, Damage, EncodeReport, EncodedRung, FrameProof, InitSegment, Segment};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Why no manifest may be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeamError {
    #[error("{0} has no marker: it is not done")]
    Missing(PartId),
    #[error("{0} has more than one marker")]
    Repeated(PartId),
    #[error("{0} is no part of this plan")]
    Foreign(PartId),
    #[error("{part}: the plan has no rendition '{rendition}'")]
    ForeignRendition { part: PartId, rendition: String },
    #[error("{part}: rendition '{rendition}' was not encoded")]
    MissingRendition { part: PartId, rendition: String },
    /// One part against the plan, another part, or itself.
    #[error("{part}, {rendition}: {check}: expected {expected}, found {found}")]
    Differs { part: PartId, rendition: String, check: Check, expected: String, found: String },
    /// The end of one chunk against the beginning of the next that has frames.
    #[error("seam of {left} and {right}: {check}: {left_value} against {right_value}")]
    Seam { left: PartId, right: PartId, check: Check, left_value: String, right_value: String },
    #[error(
        "{part}: {count} of {expected} frames of stream {stream} are lost or damaged, at most {limit} are allowed; the first at \
         {first_bad_s} s{message}"
    )]
    Damage { part: PartId, stream: usize, count: u64, expected: u64, limit: u64, first_bad_s: String, message: String },
    #[error("nothing was encoded: no frame of the source could be decoded")]
    Empty,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    Report,
    Object,
    InitSegment,
    Codecs,
    Timescale,
    Frames,
    Samples,
    SegmentGrid,
    SegmentNumber,
    SegmentTime,
    FirstTime,
    EndTime,
    NextFrame,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Check::Report => "report of the part",
            Check::Object => "bytes of an object",
            Check::InitSegment => "SHA-256 of the init segment",
            Check::Codecs => "codecs",
            Check::Timescale => "timescale",
            Check::Frames => "frames",
            Check::Samples => "samples of all segments",
            Check::SegmentGrid => "segment grid (number, time, duration)",
            Check::SegmentNumber => "number of a segment, greater than the one before",
            Check::SegmentTime => "time of a segment",
            Check::FirstTime => "first time",
            Check::EndTime => "end time",
            Check::NextFrame => "first frame after the seam",
        })
    }
}

/// Joins the chunks and renditions of a job into one title.
///
/// `markers` are those of its encode and audio parts, in any order; others are ignored.
///
/// # Errors
/// A part is missing or foreign, a seam does not hold, too much of the source was lost, or nothing was encoded.
pub fn join(plan: &Plan, markers: &[Marker]) -> Result<Title, SeamError> {
    let parts = by_part(plan, markers)?;
    let mut notes = Vec::new();
    let chunks: Vec<Encoded> = parts.values().filter_map(|m| Encoded::of(m)).collect();
    let renditions: Vec<(&Marker, &AudioReport)> = parts.values().filter_map(|m| Some((*m, audio_report(m)?))).collect();
    damage::check(plan, &chunks, &renditions, &mut notes)?;
    let video = match &plan.video {
        Some(video) => join_video(video, &chunks, &mut notes)?,
        None => Vec::new(),
    };
    let audio = join_audio(plan, &renditions, &mut notes)?;
    if video.is_empty() && audio.is_empty() {
        return Err(SeamError::Empty);
    }
    Ok(Title { video, audio, notes })
}

/// The one marker of every encode and audio part of the plan, each holding the report of that part.
fn by_part<'a>(plan: &Plan, markers: &'a [Marker]) -> Result<BTreeMap<PartId, &'a Marker>, SeamError> {
    let chunks = plan.video.iter().flat_map(|v| &v.chunks).map(|c| PartId::Encode(c.index));
    let wanted: Vec<PartId> = chunks.chain((0..plan.audio.len()).map(|i| PartId::Audio(i as u32))).collect();
    let mut parts = BTreeMap::new();
    for marker in markers.iter().filter(|m| matches!(m.part, PartId::Encode(_) | PartId::Audio(_))) {
        if parts.insert(marker.part, marker).is_some() {
            return Err(SeamError::Repeated(marker.part));
        }
    }
    if let Some(missing) = wanted.iter().find(|part| !parts.contains_key(part)) {
        return Err(SeamError::Missing(*missing));
    }
    if let Some(foreign) = parts.keys().find(|part| !wanted.contains(part)) {
        return Err(SeamError::Foreign(*foreign));
    }
    for (part, marker) in &parts {
        let found = match (&marker.result, part) {
            (PartResult::Encode(report), _) => PartId::Encode(report.chunk).to_string(),
            (PartResult::Audio(report), PartId::Audio(n)) if plan.audio[*n as usize].name == report.name => part.to_string(),
            (PartResult::Audio(report), _) => report.name.clone(),
            (PartResult::Probe, _) => PartId::Probe.to_string(),
            (PartResult::Analyse(report), _) => PartId::Analyse(report.chunk).to_string(),
            (PartResult::Calibrate(report), _) => PartId::Calibrate(report.chunk).to_string(),
            (PartResult::Revise, _) => "a revision of the plan".into(),
            (PartResult::Package { .. }, _) => PartId::Package.to_string(),
        };
        differs(*part, "", Check::Report, &part.to_string(), &found)?;
    }
    Ok(parts)
}

/// One encoded chunk and the objects it wrote.
struct Encoded<'a> {
    part: PartId,
    report: &'a EncodeReport,
    objects: HashMap<&'a str, &'a Object>,
}

impl<'a> Encoded<'a> {
    fn of(marker: &'a Marker) -> Option<Self> {
        let PartResult::Encode(report) = &marker.result else { return None };
        Some(Self { part: marker.part, report, objects: objects(marker) })
    }

    fn rung(&self, name: &str) -> Result<&'a EncodedRung, SeamError> {
        let missing = || SeamError::MissingRendition { part: self.part, rendition: name.into() };
        self.report.rungs.iter().find(|r| r.name == name).ok_or_else(missing)
    }

    fn is_damaged(&self) -> bool {
        bad_frames(&self.report.damage) > 0
    }
}

fn audio_report(marker: &Marker) -> Option<&AudioReport> {
    match &marker.result {
        PartResult::Audio(report) => Some(report),
        _ => None,
    }
}

fn objects(marker: &Marker) -> HashMap<&str, &Object> {
    marker.objects.iter().map(|o| (o.path.as_str(), o)).collect()
}

fn bad_frames(damage: &Damage) -> u64 {
    damage.lost_frames + damage.damaged_frames
}

fn join_video(plan: &VideoPlan, chunks: &[Encoded], notes: &mut Vec<String>) -> Result<Vec<VideoTrack>, SeamError> {
    for chunk in chunks {
        check_chunk(plan, chunk)?;
    }
    let full: Vec<&Encoded> = chunks.iter().filter(|c| c.report.frames > 0).collect();
    if full.is_empty() {
        return Err(SeamError::Empty);
    }
    for pair in full.windows(2) {
        check_seam(pair[0], pair[1], notes)?;
    }
    let last = full[full.len() - 1];
    differs(last.part, "", Check::NextFrame, "no frame", &proof(last.report.next.as_ref()))?;
    plan.rungs.iter().map(|rung| join_rung(rung, &full)).collect()
}

/// A chunk agrees with the plan and with itself: one grid and one frame count for all rungs.
fn check_chunk(plan: &VideoPlan, chunk: &Encoded) -> Result<(), SeamError> {
    let report = chunk.report;
    let named = |name: &str| plan.rungs.iter().any(|r| r.name == name);
    if let Some(rung) = report.rungs.iter().find(|r| !named(&r.name)) {
        return Err(SeamError::ForeignRendition { part: chunk.part, rendition: rung.name.clone() });
    }
    // A chunk into which no frame fell need not have made anything.
    let made = plan.rungs.iter().filter(|r| report.frames > 0 || report.rungs.iter().any(|made| made.name == r.name));
    let rungs = made.map(|r| chunk.rung(&r.name)).collect::<Result<Vec<_>, _>>()?;
    for rung in &rungs {
        let compare = |check, expected: &str, found: &str| differs(chunk.part, &rung.name, check, expected, found);
        compare(Check::Frames, &report.frames.to_string(), &rung.frames.to_string())?;
        let samples: u64 = rung.segments.iter().map(|s| s.samples).sum();
        compare(Check::Samples, &rung.frames.to_string(), &samples.to_string())?;
        check_grid(chunk.part, rung, rungs[0])?;
        if report.frames > 0 {
            check_objects(chunk.part, &rung.name, &chunk.objects, &rung.init, &rung.segments)?;
            let first = rung.segments.first().map(|s| s.time);
            let end = rung.segments.last().map(|s| s.time + s.duration);
            compare(Check::FirstTime, &time(report.first_time), &time(first))?;
            compare(Check::EndTime, &time(report.end_time), &time(end))?;
        }
    }
    Ok(())
}

/// The rung has the segment grid of the chunk's first rung.
fn check_grid(part: PartId, rung: &EncodedRung, model: &EncodedRung) -> Result<(), SeamError> {
    let grid = |s: &Segment| format!("({}, {}, {})", s.index, s.time, s.duration);
    let at = |rung: &EncodedRung, i: usize| rung.segments.get(i).map_or("no segment".into(), grid);
    for i in 0..rung.segments.len().max(model.segments.len()) {
        differs(part, &rung.name, Check::SegmentGrid, &at(model, i), &at(rung, i))?;
    }
    Ok(())
}

/// Every file that a report names was written by the same attempt, in the size the report says.
fn check_objects(
    part: PartId,
    rendition: &str,
    objects: &HashMap<&str, &Object>,
    init: &InitSegment,
    segments: &[Segment],
) -> Result<(), SeamError> {
    let files = segments.iter().map(|s| (&s.file, s.bytes));
    for (file, bytes) in std::iter::once((&init.file, init.bytes)).chain(files) {
        let found = objects.get(file.as_str()).map_or("no such object".into(), |o| format!("{} bytes", o.bytes));
        differs(part, rendition, Check::Object, &format!("{bytes} bytes"), &found).map_err(|e| name_object(e, file))?;
    }
    Ok(())
}

/// Says which object it was.
fn name_object(error: SeamError, file: &str) -> SeamError {
    match error {
        SeamError::Differs { part, rendition, check, expected, found } => {
            SeamError::Differs { part, rendition, check, expected: format!("{expected} of {file}"), found }
        }
        other => other,
    }
}

/// The left chunk ends where the right one begins, and saw across the seam the very frame the right one begins with.
fn check_seam(left: &Encoded, right: &Encoded, notes: &mut Vec<String>) -> Result<(), SeamError> {
    let seam = |check, left_value: String, right_value: String| {
        if left_value == right_value {
            return Ok(());
        }
        Err(SeamError::Seam { left: left.part, right: right.part, check, left_value, right_value })
    };
    seam(Check::EndTime, time(left.report.end_time), time(right.report.first_time))?;
    let (next, head) = (left.report.next.as_ref(), right.report.head.as_ref());
    let same_time = next.is_some() && next.map(|p| p.pts) == head.map(|p| p.pts);
    let compared = seam(Check::NextFrame, proof(next), proof(head));
    if compared.is_err() && same_time && (left.is_damaged() || right.is_damaged()) {
        notes.push(format!(
            "The source is damaged around the seam of {} and {}: its decoder gave the frame there differently from either side.",
            left.part, right.part
        ));
        return Ok(());
    }
    compared
}

fn join_rung(rung: &Rung, chunks: &[&Encoded]) -> Result<VideoTrack, SeamError> {
    let model = chunks[0].rung(&rung.name)?;
    let digest = |chunk: &Encoded, init: &InitSegment| {
        chunk.objects.get(init.file.as_str()).map_or("no such object".to_string(), |o| o.sha256.clone())
    };
    let mut segments = Vec::new();
    for chunk in chunks {
        let made = chunk.rung(&rung.name)?;
        let compare = |check, expected: &str, found: &str| differs(chunk.part, &rung.name, check, expected, found);
        compare(Check::InitSegment, &digest(chunks[0], &model.init), &digest(chunk, &made.init))?;
        compare(Check::Codecs, &model.init.codecs, &made.init.codecs)?;
        compare(Check::Timescale, &model.init.timescale.to_string(), &made.init.timescale.to_string())?;
        check_contiguous(chunk.part, &rung.name, segments.last(), &made.segments)?;
        segments.extend_from_slice(&made.segments);
    }
    Ok(VideoTrack { rung: rung.clone(), track: Track::new(&rung.name, &model.init, segments) })
}

fn join_audio(
    plan: &Plan,
    renditions: &[(&Marker, &AudioReport)],
    notes: &mut Vec<String>,
) -> Result<Vec<AudioTrack>, SeamError> {
    let mut tracks = Vec::new();
    for (rendition, (marker, report)) in plan.audio.iter().zip(renditions) {
        if report.segments.is_empty() {
            notes.push(format!("Audio stream {} gave no sound: '{}' is left out.", rendition.stream, rendition.name));
            continue;
        }
        check_objects(marker.part, &report.name, &objects(marker), &report.init, &report.segments)?;
        check_contiguous(marker.part, &report.name, None, &report.segments)?;
        let mut track = Track::new(&rendition.name, &report.init, report.segments.clone());
        if let Some(plain) = &report.plain_init {
            check_objects(marker.part, &report.name, &objects(marker), plain, &[])?;
            track.dash_init = Some(plain.file.clone());
        }
        tracks.push(AudioTrack { rendition: rendition.clone(), track });
    }
    Ok(tracks)
}

/// Each segment begins where the one before ended, and bears a greater number.
fn check_contiguous(part: PartId, rendition: &str, before: Option<&Segment>, segments: &[Segment]) -> Result<(), SeamError> {
    for (previous, segment) in before.into_iter().chain(segments).zip(segments.iter().skip(usize::from(before.is_none()))) {
        let end = previous.time + previous.duration;
        differs(part, rendition, Check::SegmentTime, &end.to_string(), &segment.time.to_string())?;
        if segment.index <= previous.index {
            let expected = format!("more than {}", previous.index);
            differs(part, rendition, Check::SegmentNumber, &expected, &segment.index.to_string())?;
        }
    }
    Ok(())
}

fn differs(part: PartId, rendition: &str, check: Check, expected: &str, found: &str) -> Result<(), SeamError> {
    if expected == found {
        return Ok(());
    }
    let rendition = if rendition.is_empty() { "all renditions" } else { rendition };
    Err(SeamError::Differs { part, rendition: rendition.into(), check, expected: expected.into(), found: found.into() })
}

fn time(ticks: Option<i64>) -> String {
    ticks.map_or("no time".into(), |t| t.to_string())
}

fn proof(frame: Option<&FrameProof>) -> String {
    frame.map_or("no frame".into(), |f| format!("pts {} pixels {}", f.pts, f.pixels))
}
