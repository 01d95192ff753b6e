//! What the parts of a job made and took, summed from their markers: whoever sums them, and however often, it is the same.

use super::{Usage, UsageLine, seconds, sum};
use crate::plan::marker::{Marker, Object, PartId, PartResult};
use crate::plan::{AudioPlan, DeinterlaceMode, Plan, Rung, VideoPlan};
use crate::sandbox::protocol::Segment;
use std::collections::BTreeMap;

/// The class of a rendition by its picture.
///
/// The bounds are the square-pixel sizes that carry the names: 1024x576, 1280x720, 1920x1088 (1080 lines and the eight that
/// macroblocks add).
pub fn class(width: u32, height: u32) -> &'static str {
    const SD: u64 = 1024 * 576;
    const HD: u64 = 1280 * 720;
    const FHD: u64 = 1920 * 1088;
    match u64::from(width) * u64::from(height) {
        pixels if pixels <= SD => "sd",
        pixels if pixels <= HD => "hd",
        pixels if pixels <= FHD => "fhd",
        _ => "uhd",
    }
}

/// The codec's name in a bill, by the sample entry it is written under.
pub fn codec(sample_entry: &str, library: &str) -> String {
    match sample_entry {
        "hvc1" | "hev1" => "h265",
        "avc1" | "avc3" => "h264",
        "av01" => "av1",
        "mp4a" => "aac",
        _ => library,
    }
    .into()
}

fn feature(video: &VideoPlan, rung: &Rung) -> String {
    let done = [
        ("deinterlace", video.filters.deinterlace != DeinterlaceMode::Off),
        ("hdr", matches!(rung.colour.video_range.as_str(), "PQ" | "HLG")),
        ("tone_map", video.filters.tone_map),
        ("narrowband", video.narrowband.is_some()),
    ];
    done.iter().filter(|(_, is_done)| *is_done).map(|(name, _)| *name).collect::<Vec<_>>().join("+")
}

/// Length of segments that follow each other, seconds.
pub fn length_s(segments: &[Segment], timescale: u32) -> f64 {
    seconds(length_ms(segments, timescale))
}

fn length_ms(segments: &[Segment], timescale: u32) -> u64 {
    let ticks: u64 = segments.iter().map(|s| u64::try_from(s.duration).unwrap_or(0)).sum();
    let scale = u128::from(timescale.max(1));
    u64::try_from((u128::from(ticks) * 1000 + scale / 2) / scale).unwrap_or(u64::MAX)
}

/// What these parts of a job made and took. Without a plan nothing was made yet.
pub fn of(plan: Option<&Plan>, source_bytes: u64, markers: &[Marker]) -> Usage {
    let mut usage = Usage { source_bytes, parts: markers.len() as u64, ..Usage::default() };
    usage.cpu_s = markers.iter().fold(0.0, |total, marker| sum(total, marker.cpu_s));
    let Some(plan) = plan else { return usage };
    for marker in markers {
        match &marker.result {
            // The customer gets the seconds of a repaired rung once.
            PartResult::Encode(_) if matches!(marker.part, PartId::Repair(_)) => {}
            PartResult::Encode(report) => {
                let Some(video) = &plan.video else { continue };
                for made in &report.rungs {
                    usage.frames += made.frames;
                    let Some(rung) = video.rungs.iter().find(|r| r.name == made.name) else { continue };
                    usage.line(UsageLine {
                        codec: codec(&rung.encoder.sample_entry, &rung.encoder.library),
                        class: class(rung.width, rung.height).into(),
                        feature: feature(video, rung),
                        seconds: length_s(&made.segments, made.init.timescale),
                    });
                }
            }
            PartResult::Audio(report) => {
                let of = |audio: &&AudioPlan| audio.name == report.name;
                let Some(audio) = plan.audio.iter().find(of) else { continue };
                usage.line(UsageLine {
                    codec: codec(&audio.encoder.sample_entry, &audio.encoder.library),
                    class: "audio".into(),
                    feature: String::new(),
                    seconds: length_s(&report.segments, report.init.timescale),
                });
            }
            PartResult::Probe
            | PartResult::Analyse(_)
            | PartResult::Revise
            | PartResult::Calibrate(_)
            | PartResult::Package { .. } => {}
        }
    }
    usage.output_bytes = kept_bytes(plan, markers);
    usage
}

/// Bytes of what the customer keeps, each object once: every chunk names the init segment of its rung.
fn kept_bytes(plan: &Plan, markers: &[Marker]) -> u64 {
    // Segments that became a progressive file, and are named by no playlist, are gone.
    let are_kept = plan.packaging.hls || plan.packaging.dash;
    let counted = markers.iter().filter(|m| are_kept || m.part == PartId::Package);
    let objects: BTreeMap<&str, u64> = counted.flat_map(|m| &m.objects).map(|o: &Object| (o.path.as_str(), o.bytes)).collect();
    objects.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::encoder;
    use crate::plan::time::Rational;
    use crate::sandbox::protocol::{AudioReport, Damage, EncodeReport, EncodedRung, InitSegment};

    fn rung(name: &str, width: u32, height: u32) -> serde_json::Value {
        let encoder = serde_json::json!({"library": "libx265", "options": {}, "restart_per_segment": false,
            "reorder_frames": 2, "sample_entry": "hvc1"});
        let colour = serde_json::json!({"primaries": "", "transfer": "", "matrix": "", "video_range": "PQ"});
        serde_json::json!({"name": name, "width": width, "height": height, "sample_aspect": [1, 1],
            "pixel_format": "yuv420p10le", "full_range": false, "scale_from": null, "scaler": "bicubic", "encoder": encoder,
            "colour": colour})
    }

    fn plan(hls: bool) -> Plan {
        let video = serde_json::json!({"stream": 0, "source_base": [1, 25], "origin": 0, "clock": crate::probe::Clock::Trusted, "timescale": 25,
            "ticks_per_tick": 1, "reorder_delay": 2, "frame_duration": 1, "frame_rate": [25, 1], "expected_frames": 50,
            "filters": {"rotation": 0, "deinterlace": "frame", "tone_map": false, "pad_to_even": false},
            "rungs": [rung("1080p", 1920, 1080), rung("540p", 960, 540)], "chunks": []});
        let audio = AudioPlan {
            name: "audio-0".into(),
            stream: 1,
            source_base: Rational::new(1, 48_000),
            origin: 0,
            encoder: encoder::aac(128_000),
            bit_rate: 128_000,
            sample_rate: 48_000,
            channels: 2,
            layout: "stereo".into(),
            language: None,
            label: String::new(),
            default: true,
            group: String::new(),
            segments: vec![0],
            expected_samples: None,
        };
        let packaging = serde_json::json!({"hls": hls, "dash": false, "mp4": !hls, "segment_s": 4.0});
        serde_json::from_value(serde_json::json!({"preset": "h265", "packaging": packaging, "on_damage": "fail",
            "damage": {}, "video": video, "audio": [audio], "notes": []}))
        .expect("the fixture is a plan")
    }

    fn segments(timescale: i64, seconds: &[i64]) -> Vec<Segment> {
        let segment = |s: &i64| Segment { index: 0, file: "f".into(), bytes: 1, time: 0, duration: s * timescale, samples: 1 };
        seconds.iter().map(segment).collect()
    }

    fn init(timescale: u32) -> InitSegment {
        InitSegment { file: "i".into(), bytes: 1, codecs: String::new(), timescale }
    }

    fn marker(part: PartId, result: PartResult, objects: &[(&str, u64)]) -> Marker {
        let object = |(path, bytes): &(&str, u64)| Object { path: (*path).into(), bytes: *bytes, sha256: String::new() };
        let objects = objects.iter().map(object).collect();
        Marker { part, objects, result, attempt: 1, wall_s: 2.0, cpu_s: 1.5, peak_bytes: 0 }
    }

    fn chunk(n: u32) -> Marker {
        let rung = |name: &str| EncodedRung {
            name: name.into(),
            init: init(25),
            segments: segments(25, &[4, 2]),
            frames: 150,
            bytes: 1,
            cpu_s: 0.5,
        };
        let report = EncodeReport {
            chunk: n,
            frames: 150,
            first_time: None,
            end_time: None,
            head: None,
            next: None,
            damage: Damage::default(),
            preroll_frames: 0,
            rungs: vec![rung("1080p"), rung("540p")],
            measured: None,
            unmeasured: None,
        };
        let own = format!("1080p/{n}.m4s");
        marker(PartId::Encode(n), PartResult::Encode(report), &[("1080p/init.mp4", 10), (&own, 100)])
    }

    fn audio() -> Marker {
        let report = AudioReport {
            name: "audio-0".into(),
            init: init(48_000),
            plain_init: None,
            segments: segments(48_000, &[12]),
            samples: 0,
            priming: 0,
            filled: 0,
            trimmed: 0,
            damage: Damage::default(),
            bytes: 0,
        };
        marker(PartId::Audio(0), PartResult::Audio(report), &[("audio-0/init.mp4", 5)])
    }

    fn line(codec: &str, class: &str, feature: &str, seconds: f64) -> UsageLine {
        UsageLine { codec: codec.into(), class: class.into(), feature: feature.into(), seconds }
    }

    #[test]
    fn seconds_are_counted_by_codec_class_and_feature_and_objects_once() {
        let markers = [chunk(0), chunk(1), audio()];
        let usage = of(Some(&plan(true)), 7, &markers);
        let expected = [
            line("aac", "audio", "", 12.0),
            line("h265", "fhd", "deinterlace+hdr", 12.0),
            line("h265", "sd", "deinterlace+hdr", 12.0),
        ];
        assert_eq!(usage.output, expected);
        assert_eq!((usage.frames, usage.parts, usage.source_bytes, usage.output_bytes), (600, 3, 7, 215));
        assert_eq!((usage.cpu_s, usage.minutes()), (4.5, 0.6));
        assert_eq!(of(Some(&plan(false)), 7, &markers).output_bytes, 0, "segments of a progressive file are gone");
        assert_eq!(of(None, 7, &[]).output, []);
    }

    #[test]
    fn classes_end_where_their_names_say() {
        let sizes = [(320, 240), (1024, 576), (1280, 720), (1920, 1080), (1920, 1088), (2560, 1440), (3840, 2160)];
        let classes: Vec<_> = sizes.iter().map(|(w, h)| class(*w, *h)).collect();
        assert_eq!(classes, ["sd", "sd", "hd", "fhd", "fhd", "uhd", "uhd"]);
    }
}
