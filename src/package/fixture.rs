//! A small title for tests: two rungs, two languages in two qualities, ten seconds in two chunks.

use super::seams::join;
use super::title::Title;
use crate::job::OnDamage;
use crate::plan::marker::{Marker, Object, PartId, PartResult};
use crate::plan::preset::{DamageRules, Packaging};
use crate::plan::time::Rational;
use crate::plan::{AudioPlan, Chunk, Encoder, Filters, OutputColour, Plan, Rung, VideoPlan};
use crate::probe::Clock;
use crate::sandbox::protocol::{AudioReport, Damage, EncodeReport, EncodedRung, FrameProof, InitSegment, Segment};

/// A plan and the title that its markers join to.
pub fn plan_and_title() -> (Plan, Title) {
    let (plan, markers) = plan_and_markers();
    let title = join(&plan, &markers).expect("the fixture's seams hold");
    (plan, title)
}

/// A plan and good markers of all its parts.
pub fn plan_and_markers() -> (Plan, Vec<Marker>) {
    let plan = plan();
    let mut markers = vec![encode(0, &[(0, 0, 40_000), (1, 40_000, 40_000)], false), encode(1, &[(2, 80_000, 20_000)], true)];
    markers.extend(plan.audio.iter().enumerate().map(|(i, rendition)| audio(i as u32, rendition)));
    (plan, markers)
}

fn plan() -> Plan {
    let rung = |name: &str, width, height| Rung {
        name: name.into(),
        width,
        height,
        sample_aspect: Rational::new(1, 1),
        pixel_format: "yuv420p".into(),
        full_range: false,
        scale_from: None,
        scaler: "bicubic".into(),
        encoder: encoder("libx264", "avc1"),
        colour: OutputColour { video_range: "SDR".into(), ..OutputColour::default() },
        interest: Vec::new(),
    };
    let chunk = |index, start, end, first_segment, segments: &[i64]| Chunk {
        index,
        start,
        end,
        first_segment,
        segments: segments.to_vec(),
        keyframe: 0,
    };
    let rendition = |stream, kbps: u64, language: &str, label: &str, channels| AudioPlan {
        name: format!("audio-{}-{kbps}k", stream - 1),
        stream,
        source_base: Rational::new(1, 48_000),
        origin: 0,
        encoder: encoder("aac", "mp4a"),
        bit_rate: kbps * 1000,
        sample_rate: 48_000,
        channels,
        layout: if channels == 6 { "5.1" } else { "stereo" }.into(),
        language: Some(language.into()),
        label: label.into(),
        default: stream == 1,
        group: format!("aac-{kbps}k"),
        segments: vec![0, 192_000, 384_000],
        expected_samples: Some(480_000),
    };
    let director = "Director's \"cut\" & more";
    Plan {
        preset: "h264".into(),
        packaging: Packaging::default(),
        on_damage: OnDamage::Fail,
        damage: DamageRules::default(),
        video: Some(VideoPlan {
            stream: 0,
            source_base: Rational::new(1, 1000),
            origin: 500,
            clock: Clock::Trusted,
            timescale: 10_000,
            ticks_per_tick: 10,
            reorder_delay: 800,
            frame_duration: 400,
            frame_rate: Rational::new(25, 1),
            expected_frames: 250,
            filters: Filters::default(),
            rungs: vec![rung("1080p", 1920, 1080), rung("360p", 640, 360)],
            chunks: vec![chunk(0, None, Some(8500), 0, &[500, 4500]), chunk(1, Some(8500), None, 2, &[8500])],
            narrowband: None,
            device: None,
        }),
        audio: vec![
            rendition(1, 128, "eng", "English", 2),
            rendition(2, 128, "ger", director, 6),
            rendition(1, 64, "eng", "English", 2),
            rendition(2, 64, "ger", director, 6),
        ],
        notes: Vec::new(),
    }
}

fn encoder(library: &str, sample_entry: &str) -> Encoder {
    Encoder {
        library: library.into(),
        options: Default::default(),
        restart_per_segment: false,
        reorder_frames: 2,
        first_picture_qp_tenths: 0,
        sample_entry: sample_entry.into(),
    }
}

/// A chunk of `(index, time, duration)` segments at 25 frames a second.
fn encode(chunk: u32, grid: &[(u32, i64, i64)], last: bool) -> Marker {
    // Bits a second of segment 0 and of the others: the peak and the rest.
    let rungs = [("1080p", "avc1.640028", 5_000_000u64, 3_333_333), ("360p", "avc1.64001e", 1_000_000, 666_667)];
    let rate = |(name, codecs, peak, rest): (&str, &str, u64, u64)| {
        let bytes = |index: u32, duration: i64| if index == 0 { peak } else { rest } * duration as u64 / 80_000;
        let segment = |&(index, time, duration): &(u32, i64, i64)| Segment {
            index,
            file: format!("{name}/{index:05}.m4s"),
            bytes: bytes(index, duration),
            time,
            duration,
            samples: duration as u64 / 400,
        };
        let segments: Vec<_> = grid.iter().map(segment).collect();
        EncodedRung {
            name: name.into(),
            init: init(name, codecs, 10_000),
            frames: segments.iter().map(|s| s.samples).sum(),
            bytes: segments.iter().map(|s| s.bytes).sum(),
            segments,
            cpu_s: 1.0,
        }
    };
    let rungs: Vec<_> = rungs.into_iter().map(rate).collect();
    let (first, end) = (grid[0].1, grid.last().map(|g| g.1 + g.2).unwrap());
    let report = EncodeReport {
        chunk,
        frames: rungs[0].frames,
        first_time: Some(first),
        end_time: Some(end),
        head: Some(proof(first)),
        next: (!last).then(|| proof(end)),
        damage: Damage::default(),
        preroll_frames: 0,
        rungs,
        measured: None,
        unmeasured: None,
    };
    let objects = report.rungs.iter().flat_map(|r| objects(&r.init, &r.segments)).collect();
    marker(PartId::Encode(chunk), objects, PartResult::Encode(report))
}

/// A rendition at its nominal rate, after 1024 samples of priming.
fn audio(number: u32, rendition: &AudioPlan) -> Marker {
    let name = &rendition.name;
    let ends = [192_000, 384_000, 480_000];
    let segments: Vec<_> = (0..3)
        .map(|i| {
            let shown_from = if i == 0 { 0 } else { ends[i - 1] };
            let time = if i == 0 { -1024 } else { shown_from };
            Segment {
                index: i as u32,
                file: format!("{name}/{i:05}.m4s"),
                bytes: rendition.bit_rate * (ends[i] - shown_from) as u64 / 384_000,
                time,
                duration: ends[i] - time,
                samples: (ends[i] - time) as u64 / 1024,
            }
        })
        .collect();
    let report = AudioReport {
        name: name.clone(),
        init: init(name, "mp4a.40.2", 48_000),
        plain_init: None,
        bytes: segments.iter().map(|s| s.bytes).sum(),
        segments,
        samples: 480_000,
        priming: 1024,
        filled: 0,
        trimmed: 0,
        damage: Damage::default(),
    };
    marker(PartId::Audio(number), objects(&report.init, &report.segments), PartResult::Audio(report))
}

fn init(name: &str, codecs: &str, timescale: u32) -> InitSegment {
    InitSegment { file: format!("{name}/init.mp4"), bytes: 800, codecs: codecs.into(), timescale }
}

/// The source frame shown at output tick `time`.
pub fn proof(time: i64) -> FrameProof {
    FrameProof { pts: 500 + time / 10, pixels: format!("{time:016}") }
}

fn objects(init: &InitSegment, segments: &[Segment]) -> Vec<Object> {
    let object = |path: &String, bytes| Object { path: path.clone(), bytes, sha256: format!("{:064x}", path.len()) };
    std::iter::once(object(&init.file, init.bytes)).chain(segments.iter().map(|s| object(&s.file, s.bytes))).collect()
}

fn marker(part: PartId, objects: Vec<Object>, result: PartResult) -> Marker {
    Marker { part, objects, result, attempt: 1, wall_s: 1.0, cpu_s: 1.0, peak_bytes: 1 }
}
