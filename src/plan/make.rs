//! The plan itself: job, probe and preset in, everything that is decided before encoding out.

use super::audio::{self, Timing};
use super::ladder::SizedRung;
use super::narrowband::hull::candidates;
use super::narrowband::preset::NarrowbandRules;
use super::preset::{DamageRules, Deinterlace, Preset, RungRule, VideoRules};
use super::time::{Rational, mul_div_round, seconds};
use super::{CalibrationPlan, DeinterlaceMode, Filters, NarrowbandPlan, Plan, ProbePlan, Rung, VideoPlan};
use super::{chunks, encoder, ladder};
use crate::job::{Job, OnDamage};
use crate::probe::{Clock, Interlace, Probe, VideoStream};
use crate::sandbox::protocol::{AnalyseTask, AudioTask, Beginning, CalibrateTask, EncodeTask, Verification};
use std::cmp::Reverse;

/// A child is told of so many keyframes before its chunk, its own among them: more than one, for the last may turn
/// out not to be safe for the chunk's first frame.
const KEYFRAMES_TOLD: usize = 4;

/// Times further from zero than this are damage, seconds: they would not fit 64 bits in every time base.
const MOST_TIME_S: f64 = 4e9;
/// Short side under which nothing is probed smaller than it is, pixels: there is little left to see.
const LEAST_PROBE: u32 = 144;
/// Widths of probes are multiples of this, pixels: at some others the vector code of libvmaf is wrong, and without it a score
/// takes six times as long.
const PROBE_WIDTH_STEP: u32 = 32;
/// Half a chunk that has fewer pictures, or fewer scored ones, tells no slope.
const LEAST_COMPARED: u64 = 24;
const LEAST_COMPARED_SCORES: u64 = 5;
/// Of pictures that are only scaled one in so many is scored: what scaling loses differs little from one to the next.
const SCALED_EVERY: u32 = 9;
/// Longest side of a picture, pixels.
const LONGEST_SIDE: u32 = 65_536;
/// Longest title, seconds: a week.
const LONGEST_TITLE_S: f64 = 7.0 * 24.0 * 3600.0;

/// Why no plan can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The preset asks for what no encoder does.
    #[error("{0}")]
    Preset(String),
    /// The source holds nothing that the preset makes an output of.
    #[error("{0}")]
    Media(String),
}

/// Decides everything. The same arguments give the same plan.
///
/// # Errors
/// The preset names a speed its encoder has not, or the source holds no stream that the preset makes an output of.
pub fn make(job: &Job, probe: &Probe, preset: &Preset) -> Result<Plan, PlanError> {
    check_numbers(probe)?;
    let mut notes = Vec::new();
    let source = chosen_video(probe, preset, &mut notes);
    let video = match (&preset.video, source) {
        (Some(rules), Some(stream)) => {
            check_whole(stream, job.on_damage, &preset.damage)?;
            Some(video(stream, rules, preset, &mut notes)?)
        }
        _ => None,
    };
    let audio = match &preset.audio {
        Some(rules) if !probe.audio.is_empty() => {
            let (renditions, more) = audio::renditions(&probe.audio, rules, &timing(probe, preset, video.as_ref()));
            notes.extend(more);
            renditions
        }
        _ => Vec::new(),
    };
    if video.is_none() && audio.is_empty() {
        return Err(PlanError::Media(nothing_to_make(probe, preset)));
    }
    if video.is_none() && preset.video.is_some() {
        notes.push("the source has no video stream: only its audio is encoded".into());
    }
    if audio.is_empty() && preset.audio.is_some() {
        notes.push("the source has no audio that could be encoded".into());
    }
    Ok(Plan {
        preset: preset.name.clone(),
        packaging: preset.packaging.clone(),
        on_damage: job.on_damage,
        damage: preset.damage.clone(),
        video,
        audio,
        notes,
    })
}

/// A source cut short by more than the preset forgives is refused before anything is encoded.
fn check_whole(stream: &VideoStream, on_damage: OnDamage, rules: &DamageRules) -> Result<(), PlanError> {
    let Some(missing) = stream.missing.filter(|_| on_damage == OnDamage::Fail) else { return Ok(()) };
    let all = stream.packets + missing.packets;
    if missing.packets <= rules.most_lost(all) {
        return Ok(());
    }
    let from_s = seconds(missing.first_pts - stream.first_pts, stream.time_base);
    Err(PlanError::Media(format!(
        "the source is cut short: {} of {all} frames, from {from_s:.3} s on, are missing; give the whole file, or keep what there is with on_damage = \"salvage\"",
        missing.packets
    )))
}

/// The task of one chunk; `threads` for each encoder that may use them.
///
/// # Panics
/// When the plan has no such chunk.
pub fn encode_task(plan: &Plan, probe: &Probe, chunk: u32, threads: u32) -> EncodeTask {
    let video = plan.video.as_ref().expect("a plan with an encode part has video");
    let index = chunk as usize;
    let chunk = video.chunks[index].clone();
    let stream = probe.video.iter().find(|stream| stream.index == video.stream);
    let keyframes = stream.map_or(&[][..], |stream| &stream.keyframes);
    let told = match (chunk.start, keyframes.get(chunk.keyframe)) {
        (Some(start), Some(own)) if own.pts <= start => {
            keyframes[(chunk.keyframe + 1).saturating_sub(KEYFRAMES_TOLD)..=chunk.keyframe].to_vec()
        }
        // The first chunk, or no keyframe before this one: from the beginning.
        _ => Vec::new(),
    };
    EncodeTask {
        stream: video.stream,
        source_base: video.source_base,
        origin: video.origin,
        clean_clock: video.clock != Clock::Trusted,
        timescale: video.timescale,
        ticks_per_tick: video.ticks_per_tick,
        reorder_delay: video.reorder_delay,
        frame_duration: video.frame_duration,
        frame_rate: video.frame_rate,
        chunk,
        keyframes: told,
        table: stream.and_then(|stream| stream.table.clone()),
        filters: video.filters.clone(),
        rungs: rungs_of_chunk(video, index),
        threads,
        verification: verification(video, index),
        device: None,
    }
}

/// How a chunk's top rung is measured, where it is.
fn verification(video: &VideoPlan, chunk: usize) -> Option<Verification> {
    let narrowband = video.narrowband.as_ref()?;
    let (top, reference) = (video.rungs.first()?, &narrowband.reference);
    // What is encoded is not what is shown: another size, or made to look better than it was.
    let differs = (top.width, top.height) != (reference.width, reference.height) || video.filters.enhance.is_some();
    Some(Verification { reference: differs.then(|| reference.clone()), scored_every: narrowband.scored_every(chunk as u32)? })
}

/// The rungs of one chunk: where content decides, each with the chunk's own CRF.
fn rungs_of_chunk(video: &VideoPlan, chunk: usize) -> Vec<Rung> {
    let mut rungs = video.rungs.clone();
    let crfs = video.narrowband.as_ref().and_then(|narrowband| narrowband.crf.get(chunk));
    for (rung, crf) in rungs.iter_mut().zip(crfs.into_iter().flatten()) {
        rung.encoder.options.insert("crf".into(), crf.to_string());
    }
    rungs
}

/// The task of analysing one chunk: decoded and filtered as for its encode, for the probes as its rungs.
///
/// # Panics
/// When the plan has no such chunk, or its content decides nothing.
pub fn analyse_task(plan: &Plan, probe: &Probe, chunk: u32, threads: u32) -> AnalyseTask {
    let wanted = &plan.narrowband().expect("a plan with an analyse part is one of narrowband").probe;
    let expected = plan.video.as_ref().map_or(0, |video| video.chunk_frames(chunk as usize));
    AnalyseTask {
        encode: EncodeTask { rungs: wanted.rungs.clone(), verification: None, ..encode_task(plan, probe, chunk, threads) },
        crf: wanted.crf.clone(),
        scored_every: wanted.scored_every,
        beginning: wanted.frames.map(|frames| Beginning { frames, of: expected }),
        compared: compared(wanted, expected),
    }
}

/// How many pictures of a chunk of so many every probe but the first encodes; `None`: all.
pub(super) fn compared(wanted: &ProbePlan, frames: u64) -> Option<u64> {
    let least = LEAST_COMPARED.max(u64::from(wanted.scored_every) * LEAST_COMPARED_SCORES);
    Some(frames.div_ceil(2)).filter(|half| wanted.halved && *half >= least)
}

/// The task of calibrating by one chunk: its beginning with the final settings, and with those of the probes.
///
/// # Panics
/// When the plan has no such chunk.
pub fn calibrate_task(plan: &Plan, probe: &Probe, calibration: &CalibrationPlan, threads: u32) -> CalibrateTask {
    let narrowband = plan.narrowband().expect("a plan with a calibrate part is one of narrowband");
    let reference = &narrowband.reference;
    let rungs = std::iter::once(reference).chain(&calibration.rungs).chain(&narrowband.probe.rungs).cloned();
    let smaller = candidates(reference.width, reference.height).into_iter().skip(1);
    let scaled = smaller.map(|size| Rung { width: size.width, height: size.height, ..reference.clone() });
    // Each is scaled from the picture as it is decoded, or from the one that is shown: what they were scaled from in their
    // own ladders is not here.
    let rungs = rungs.chain(scaled).map(|rung| Rung { scale_from: None, ..rung }).collect();
    let encode = EncodeTask { rungs, verification: None, ..encode_task(plan, probe, calibration.chunk, threads) };
    CalibrateTask {
        encode,
        finals: calibration.crf.clone(),
        probes: narrowband.probe.crf.clone(),
        frames: calibration.frames,
        scored_every: narrowband.probe.scored_every,
        scaled_every: SCALED_EVERY,
    }
}

/// The task of encoding the top rung of one chunk once more; `None` where it is none of the repairs.
///
/// # Panics
/// When the plan has no such chunk.
pub fn repair_task(plan: &Plan, probe: &Probe, chunk: u32, threads: u32) -> Option<EncodeTask> {
    let repair = plan.narrowband()?.repairs.iter().flatten().find(|repair| repair.chunk == chunk)?;
    let mut task = encode_task(plan, probe, chunk, threads);
    task.rungs.truncate(1);
    for rung in &mut task.rungs {
        rung.encoder.options.insert("crf".into(), repair.crf.to_string());
    }
    Some(task)
}

/// The task of one audio rendition.
///
/// # Panics
/// When the plan has no such rendition.
pub fn audio_task(plan: &Plan, rendition: u32) -> AudioTask {
    AudioTask { rendition: plan.audio[rendition as usize].clone() }
}

/// A source decides its own numbers: none of them may be large enough to overflow, or to plan for ever.
fn check_numbers(probe: &Probe) -> Result<(), PlanError> {
    let fail = |index: usize, why: String| Err(PlanError::Media(format!("stream {index} {why}")));
    let video = probe.video.iter().map(|s| {
        // An end that cannot be trusted is not used.
        let end = if s.clock == Clock::Trusted { s.end_pts.max(s.last_pts) } else { s.first_pts };
        (s.index, s.time_base, s.first_pts, end)
    });
    let sound = probe.audio.iter().map(|s| {
        let first = s.first_pts.unwrap_or(0);
        (s.index, s.time_base, first, s.end_pts.unwrap_or(first))
    });
    for (index, base, first, end) in video.chain(sound) {
        let (from, to) = (seconds(first, base), seconds(end, base));
        let usable_base = base.is_positive() && base.num.max(base.den) <= i64::from(i32::MAX);
        if !usable_base {
            return fail(index, format!("has a time base of {}/{} s, which no clock has", base.num, base.den));
        }
        if from.abs().max(to.abs()) > MOST_TIME_S || to - from > LONGEST_TITLE_S {
            return fail(index, format!("runs from {from:.0} s to {to:.0} s; a title may last {LONGEST_TITLE_S:.0} s at most"));
        }
    }
    match probe.video.iter().find(|s| !(1..=LONGEST_SIDE).contains(&s.width) || !(1..=LONGEST_SIDE).contains(&s.height)) {
        Some(s) => fail(s.index, format!("has pictures of {}x{}", s.width, s.height)),
        None => Ok(()),
    }
}

/// The video stream with most pixels, of these the one with most packets, when the preset makes video.
fn chosen_video<'a>(probe: &'a Probe, preset: &Preset, notes: &mut Vec<String>) -> Option<&'a VideoStream> {
    preset.video.as_ref()?;
    let seen = probe.video.iter().filter(|stream| stream.packets > 0);
    let size = |stream: &VideoStream| u64::from(stream.width) * u64::from(stream.height);
    let best = seen.max_by_key(|stream| (size(stream), stream.packets, Reverse(stream.index)))?;
    for other in probe.video.iter().filter(|stream| stream.index != best.index) {
        notes.push(format!(
            "video stream {} ({}x{}) is left out: stream {} is the one encoded",
            other.index, other.width, other.height, best.index
        ));
    }
    Some(best)
}

fn nothing_to_make(probe: &Probe, preset: &Preset) -> String {
    let wanted = match (&preset.video, &preset.audio) {
        (Some(_), Some(_)) => "video or audio",
        (Some(_), None) => "video",
        (None, _) => "audio",
    };
    let others: Vec<String> = probe.ignored.iter().map(|s| format!("{} {} ({})", s.kind, s.codec, s.why)).collect();
    let left_out = if others.is_empty() { String::new() } else { format!("; left out: {}", others.join(", ")) };
    format!("no {wanted} stream that preset {} could encode{left_out}", preset.name)
}

fn video(stream: &VideoStream, rules: &VideoRules, preset: &Preset, notes: &mut Vec<String>) -> Result<VideoPlan, PlanError> {
    encoder::check_speed(rules).map_err(PlanError::Preset)?;
    let deinterlace = match (stream.interlace, rules.deinterlace) {
        (Interlace::Progressive, _) | (_, Deinterlace::Off) => DeinterlaceMode::Off,
        (_, Deinterlace::Auto) => DeinterlaceMode::Frame,
        (_, Deinterlace::Field) => DeinterlaceMode::Field,
    };
    let fields = if deinterlace == DeinterlaceMode::Field { 2 } else { 1 };
    let (timescale, ticks_per_tick) = timescale(stream.time_base, fields)?;
    let ladder = ladder::ladder(stream, rules);
    let narrowband = preset.narrowband.as_ref().map(|wanted| draft(stream, rules, wanted));
    let probes = narrowband.iter().flat_map(|narrowband| &narrowband.probe.rungs);
    let encoded: Vec<&Rung> = ladder.rungs.iter().chain(probes).collect();
    check_sizes(&encoded, rules)?;
    let rate = chunks::usable_rate(stream);
    let frame_rate = Rational::new(rate.num * fields, rate.den).reduced();
    let frame_duration = mul_div_round(i64::from(timescale), frame_rate.den, frame_rate.num).max(1);
    let reorder_delay = reorder_delay(stream, &encoded, frame_duration, ticks_per_tick);
    describe(stream, deinterlace, ladder.tone_map, notes);
    notes.extend(ladder.notes);
    Ok(VideoPlan {
        stream: stream.index,
        source_base: stream.time_base,
        origin: stream.first_pts,
        clock: stream.clock.clone(),
        timescale,
        ticks_per_tick,
        reorder_delay,
        frame_duration,
        frame_rate,
        expected_frames: stream.packets.saturating_mul(fields as u64),
        filters: Filters {
            rotation: stream.rotation,
            deinterlace,
            tone_map: ladder.tone_map,
            pad_to_even: ladder.pad_to_even,
            enhance: None,
        },
        rungs: ladder.rungs,
        chunks: chunks::grid(stream, &preset.chunk, preset.packaging.segment_s),
        narrowband,
        device: None,
    })
}

/// No rung is smaller than its encoder takes.
pub(super) fn check_sizes(rungs: &[&Rung], rules: &VideoRules) -> Result<(), PlanError> {
    let least = encoder::least_size(rules.codec);
    let Some(rung) = rungs.iter().find(|rung| rung.width.min(rung.height) < least) else { return Ok(()) };
    let size = format!("{}x{}", rung.width, rung.height);
    Err(PlanError::Media(format!(
        "rung {} would be {size}; {} takes no picture with a side under {least} pixels",
        rung.name, rung.encoder.library
    )))
}

/// Output ticks by which a composition time of these rungs may exceed its decode time.
pub(super) fn reorder_delay(stream: &VideoStream, rungs: &[&Rung], frame_duration: i64, ticks_per_tick: i64) -> i64 {
    let longest = match stream.clock {
        // Some players take no notice of the edit that skips the delay: it is kept short where a few frames last long.
        Clock::Trusted => stream.longest_frame.saturating_mul(ticks_per_tick).clamp(frame_duration, 2 * frame_duration),
        Clock::Untrusted { .. } => frame_duration,
    };
    let reorder = rungs.iter().map(|rung| rung.encoder.reorder_frames).max().unwrap_or(0);
    i64::from(reorder).saturating_mul(longest)
}

/// What is known before anything of the content is.
fn draft(stream: &VideoStream, rules: &VideoRules, wanted: &NarrowbandRules) -> NarrowbandPlan {
    NarrowbandPlan {
        reference: reference(stream, rules),
        probe: probes(stream, rules, wanted),
        calibrations: None,
        crf: Vec::new(),
        pilots: Vec::new(),
        adjusted: false,
        verified_every: wanted.verified_every(),
        repairs: None,
    }
}

/// The picture as it is shown. Its encoder is never opened.
fn reference(stream: &VideoStream, rules: &VideoRules) -> Rung {
    let (width, height) = ladder::display_size(stream);
    let goal = RungRule { height: None, crf: None, kbps: None, max_kbps: None, lossless: false };
    let sized = SizedRung { name: "reference".into(), width, height, goal };
    ladder::of_sizes(stream, rules, &[sized]).swap_remove(0)
}

/// The fast encodes by which every chunk is known.
fn probes(stream: &VideoStream, rules: &VideoRules, wanted: &NarrowbandRules) -> ProbePlan {
    let (display_width, display_height) = ladder::display_size(stream);
    // A probe costs what a rung of its size does, and a small ladder is not much more.
    let smaller = display_width.min(display_height) * 2 / 5;
    let short_side = wanted.probe.short_side.min(smaller.max(LEAST_PROBE));
    let (width, height) = ladder::size_within(stream, short_side);
    let width = if width < display_width { width / PROBE_WIDTH_STEP * PROBE_WIDTH_STEP } else { width };
    let sized = |crf: &f64| SizedRung {
        name: format!("probe-{crf}"),
        width,
        height,
        goal: RungRule { height: None, crf: Some(*crf), kbps: None, max_kbps: None, lossless: false },
    };
    let crf = wanted.probed_crf();
    let sized: Vec<SizedRung> = crf.iter().map(sized).collect();
    let rungs = ladder::of_sizes(stream, &wanted.probe_encoder(rules), &sized);
    let rungs = rungs.into_iter().map(Rung::without_raised_first).collect();
    let rate = stream.frame_rate;
    let frames = wanted.studied_s().map(|s| (s * rate.num as f64 / rate.den as f64).ceil().max(1.0) as u64);
    ProbePlan { rungs, crf, scored_every: wanted.scored_every(), frames, halved: wanted.is_halved() }
}

/// Output ticks a second, and output ticks per source tick: exact, whatever the source's time base.
/// Where fields become frames both are doubled: a field may last an odd number of half ticks.
fn timescale(base: Rational, fields: i64) -> Result<(u32, i64), PlanError> {
    let base = base.reduced();
    let doubled = base.den.checked_mul(fields).zip(base.num.checked_mul(fields));
    let fits = doubled.filter(|_| base.is_positive());
    fits.and_then(|(den, num)| Some((u32::try_from(den).ok()?, num)))
        .ok_or_else(|| PlanError::Media(format!("a time base of {}/{} s cannot be written to an MP4 track", base.num, base.den)))
}

/// Notes on what is done to the picture.
fn describe(stream: &VideoStream, deinterlace: DeinterlaceMode, tone_map: bool, notes: &mut Vec<String>) {
    if let Clock::Untrusted { why } = &stream.clock {
        notes.push(format!("the timestamps cannot be trusted ({why}): the title is one chunk on a clean clock"));
    }
    if stream.rotation != 0 {
        notes.push(format!("the picture is turned by {} degrees clockwise", stream.rotation));
    }
    match deinterlace {
        DeinterlaceMode::Off => {}
        DeinterlaceMode::Frame => notes.push("the source is interlaced: it is deinterlaced, one frame for each frame".into()),
        DeinterlaceMode::Field => notes.push("the source is interlaced: it is deinterlaced, one frame for each field".into()),
    }
    if tone_map {
        notes.push("HDR is tone-mapped to BT.709".into());
    }
}

/// Where the audio's time zero is and where its segments start.
pub(super) fn timing(probe: &Probe, preset: &Preset, video: Option<&VideoPlan>) -> Timing {
    let segment_s = preset.packaging.segment_s;
    if let Some(video) = video {
        return Timing {
            origin: video.origin,
            base: video.source_base,
            segments: video.chunks.iter().flat_map(|chunk| chunk.segments.iter().copied()).collect(),
            segment_s,
            assumed_s: 0.0,
        };
    }
    let starts = probe.audio.iter().filter_map(|s| Some((s.first_pts?, s.time_base)));
    let earliest = starts.min_by(|(a, of_a), (b, of_b)| compare(*a, *of_a, *b, *of_b));
    let (origin, base) = earliest.unwrap_or((0, Rational::new(1, 1000)));
    Timing { origin, base, segments: Vec::new(), segment_s, assumed_s: assumed_length(probe) }
}

/// Orders two times in different bases, exactly.
fn compare(a: i64, of_a: Rational, b: i64, of_b: Rational) -> std::cmp::Ordering {
    let left = i128::from(a) * i128::from(of_a.num) * i128::from(of_b.den);
    let right = i128::from(b) * i128::from(of_b.num) * i128::from(of_a.den);
    left.cmp(&right)
}

/// Length for streams that state no end: the longest that another states, else what the bytes give. Segments
/// beyond the true end are simply never made.
fn assumed_length(probe: &Probe) -> f64 {
    let stated = probe.audio.iter().filter_map(|s| Some(seconds(s.end_pts? - s.first_pts.unwrap_or(0), s.time_base)));
    let longest = stated.fold(0.0, f64::max);
    let bit_rate: u64 = probe.audio.iter().map(|s| s.bit_rate).sum();
    if longest > 0.0 || bit_rate == 0 { longest } else { probe.bytes as f64 * 8.0 / bit_rate as f64 }
}

#[cfg(test)]
pub(super) mod tests;
