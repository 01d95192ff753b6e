//! The probe: what a source is, so that a plan can be made.

use crate::media::demux::{Demuxer, Depth, Stream, rational};
use crate::media::error::{Result, refuse, string};
use crate::media::ffi;
use crate::media::hdr;
use crate::media::input::{Host, Remembering};
use crate::media::look::{Looked, look};
use crate::media::scan::{Track, walk};
use crate::plan::preset::ASSUMED_RATE;
use crate::plan::time::{Rational, seconds};
use crate::probe::{AudioStream, Clock, Colour, DynamicRange, IgnoredStream, Interlace, Missing, Probe, VideoStream};
use crate::sandbox::protocol::{Limits, RefusalReason};
use ffi::AVMediaType::{AVMEDIA_TYPE_AUDIO, AVMEDIA_TYPE_DATA, AVMEDIA_TYPE_SUBTITLE, AVMEDIA_TYPE_VIDEO};
use ffi::AVPacketSideDataType::{AV_PKT_DATA_CONTENT_LIGHT_LEVEL, AV_PKT_DATA_MASTERING_DISPLAY_METADATA};
use std::path::Path;

/// Probes input 0, and leaves packet tables in the scratch folder.
///
/// # Errors
/// Media: not media, or nothing in it that can be decoded. Unsupported: encrypted, or codecs without decoder.
/// Limit: too many streams, pixels, packets or hours.
pub fn probe(host: &dyn Host, limits: &Limits, scratch: &Path) -> Result<Probe> {
    let remembering = Remembering::new(host);
    let host = &remembering;
    let demuxer = Demuxer::open(host, 0, limits, Depth::Streams)?;
    let mut sorted = sort_streams(&demuxer)?;
    if sorted.video.is_empty() && sorted.audio.is_empty() {
        return refuse(RefusalReason::Media, nothing_usable(&sorted.ignored));
    }
    let claimed = demuxer.get().duration;
    let mut probe = Probe {
        container: demuxer.name(),
        bytes: host.bytes(0),
        claimed_duration_us: (claimed > 0).then_some(claimed),
        video: Vec::new(),
        audio: Vec::new(),
        ignored: std::mem::take(&mut sorted.ignored),
        scan: crate::probe::Scan::Index,
        bytes_read: 0,
        notes: Vec::new(),
    };
    for &index in &sorted.audio {
        probe.audio.push(audio_stream(demuxer.stream(index)?, index));
    }
    if !sorted.video.is_empty() {
        add_video(host, limits, scratch, &demuxer, &sorted.video, &mut probe)?;
    }
    if probe.video.is_empty() && probe.audio.is_empty() {
        return refuse(RefusalReason::Media, nothing_usable(&probe.ignored));
    }
    probe.bytes_read = remembering.bytes_read();
    note_duration(&mut probe);
    Ok(probe)
}

struct Sorted {
    video: Vec<usize>,
    audio: Vec<usize>,
    ignored: Vec<IgnoredStream>,
}

fn sort_streams(demuxer: &Demuxer) -> Result<Sorted> {
    let mut sorted = Sorted { video: Vec::new(), audio: Vec::new(), ignored: Vec::new() };
    for index in 0..demuxer.stream_count() {
        let stream = demuxer.stream(index)?;
        match why_ignored(stream) {
            Some((kind, why)) => sorted.ignored.push(IgnoredStream { index, kind: kind.into(), codec: stream.codec_name(), why }),
            None if stream.kind() == AVMEDIA_TYPE_VIDEO => sorted.video.push(index),
            None => sorted.audio.push(index),
        }
    }
    Ok(sorted)
}

fn why_ignored(stream: Stream<'_>) -> Option<(&'static str, String)> {
    let p = stream.parameters();
    // SAFETY: a look-up by id.
    let no_decoder = unsafe { ffi::avcodec_find_decoder(p.codec_id) }.is_null();
    let name = if p.codec_id == ffi::AVCodecID::AV_CODEC_ID_NONE {
        crate::media::decode::fourcc(p.codec_tag)
    } else {
        stream.codec_name()
    };
    match stream.kind() {
        AVMEDIA_TYPE_VIDEO if stream.has_disposition(ffi::AV_DISPOSITION_ATTACHED_PIC) => {
            Some(("picture", "an attached picture, no video".into()))
        }
        AVMEDIA_TYPE_VIDEO if no_decoder => Some(("video", format!("there is no decoder for codec {name}"))),
        AVMEDIA_TYPE_VIDEO => None,
        AVMEDIA_TYPE_AUDIO if no_decoder => Some(("audio", format!("there is no decoder for codec {name}"))),
        AVMEDIA_TYPE_AUDIO if p.sample_rate <= 0 || p.ch_layout.nb_channels <= 0 => {
            Some(("audio", "it states no sample rate or channels".into()))
        }
        AVMEDIA_TYPE_AUDIO => None,
        AVMEDIA_TYPE_SUBTITLE => Some(("subtitle", "subtitles are not carried over".into())),
        AVMEDIA_TYPE_DATA => Some(("data", "a data stream".into())),
        _ => Some(("other", "no audio and no video".into())),
    }
}

/// The video that a source is taken for, where it holds several: the first that can be decoded.
///
/// # Errors
/// Media: it holds none.
pub fn first_video(demuxer: &Demuxer) -> Result<usize> {
    let sorted = sort_streams(demuxer)?;
    match sorted.video.first() {
        Some(&index) => Ok(index),
        None => refuse(RefusalReason::Media, "it holds no video that can be decoded"),
    }
}

fn nothing_usable(ignored: &[IgnoredStream]) -> String {
    let list: Vec<String> = ignored.iter().map(|s| format!("stream {} ({}): {}", s.index, s.kind, s.why)).collect();
    if list.is_empty() {
        "the source holds no streams".into()
    } else {
        format!("the source holds nothing that can be transcoded; {}", list.join("; "))
    }
}

fn add_video(
    host: &dyn Host,
    limits: &Limits,
    scratch: &Path,
    demuxer: &Demuxer,
    streams: &[usize],
    probe: &mut Probe,
) -> Result<()> {
    let (tracks, scan) = walk(host, limits, streams, scratch)?;
    probe.scan = scan;
    let mut last_refusal = None;
    for mut track in tracks {
        let stream = demuxer.stream(track.index)?;
        let table = track.take_table(stream)?;
        let why = match look(host, limits, track.index, &track.keyframes) {
            Ok(looked) if track.shown() > 0 => {
                probe.video.push(VideoStream { table, ..video_stream(stream, &track, &looked, &mut probe.notes) });
                continue;
            }
            Ok(_) => "it holds no packets".to_string(),
            Err(refusal) if refusal.reason == RefusalReason::Input => return Err(refusal),
            Err(refusal) => last_refusal.insert(refusal).message.clone(),
        };
        probe.ignored.push(IgnoredStream { index: track.index, kind: "video".into(), codec: stream.codec_name(), why });
    }
    match last_refusal {
        // A video that cannot be decoded is not quietly turned into a sound file.
        Some(refusal) if probe.video.is_empty() => Err(refusal),
        _ => Ok(()),
    }
}

fn video_stream(stream: Stream<'_>, track: &Track, looked: &Looked, notes: &mut Vec<String>) -> VideoStream {
    let p = stream.parameters();
    let picture = looked.first.clone().expect("a looked-at stream has a picture");
    let index = track.index;
    let first_packet = track.first_pts.unwrap_or(0);
    let first_pts = looked.first_pts.unwrap_or(first_packet).clamp(first_packet, track.last_pts.max(first_packet));
    if first_pts > first_packet {
        let late_s = seconds(first_pts - first_packet, track.time_base);
        notes.push(format!("stream {index}: its first {late_s:.2} s cannot be decoded: it does not begin with a keyframe"));
    }
    if looked.flags_lie() {
        let is = if looked.is_interlaced() { "interlaced" } else { "progressive" };
        notes.push(format!("stream {index}: its flags say otherwise, but its pictures are {is}"));
    }
    if let Clock::Untrusted { why } = &track.clock {
        notes.push(format!("stream {index}: timestamps cannot be trusted ({why}); it is encoded as one chunk on a clean clock"));
    }
    if track.missing > 0 {
        notes
            .push(format!("stream {index}: the source is cut short: {} packets that its index names are missing", track.missing));
    }
    let span_s = seconds(track.end_pts - first_pts, track.time_base).max(0.001);
    VideoStream {
        index,
        codec: stream.codec_name(),
        profile: profile(p),
        time_base: track.time_base,
        width: picture.width,
        height: picture.height,
        sample_aspect: sample_aspect(stream, picture.sample_aspect),
        rotation: rotation(stream),
        colour: colour(stream, &picture, looked),
        pixel_format: picture.pixel_format,
        bit_depth: picture.bit_depth,
        frame_rate: frame_rate(stream, track),
        constant_rate: track.longest - track.shortest <= 1 && track.clock == Clock::Trusted,
        interlace: match (looked.is_interlaced(), looked.is_bottom_first()) {
            (false, _) => Interlace::Progressive,
            (true, false) => Interlace::TopFirst,
            (true, true) => Interlace::BottomFirst,
        },
        packets: track.shown(),
        missing: (track.missing > 0)
            .then(|| Missing { packets: track.missing, first_pts: track.first_missing.unwrap_or(track.end_pts) }),
        first_pts,
        last_pts: track.last_pts,
        end_pts: track.end_pts,
        longest_frame: track.longest.max(1),
        shortest_frame: track.shortest,
        clock: track.clock.clone(),
        keyframes: track.keyframes.clone(),
        table: None,
        bit_rate: (track.bytes as f64 * 8.0 / span_s) as u64,
        language: language(stream),
    }
}

fn profile(p: &ffi::AVCodecParameters) -> Option<String> {
    // SAFETY: the name is a constant of the library.
    let name = unsafe { string(ffi::avcodec_profile_name(p.codec_id, p.profile)) };
    (!name.is_empty()).then_some(name)
}

/// The container's aspect wins over the codec's, as in the `ffmpeg` program.
fn sample_aspect(stream: Stream<'_>, coded: Rational) -> Rational {
    let stated = rational(stream.0.sample_aspect_ratio).reduced();
    let aspect = if stated.is_positive() { stated } else { coded.reduced() };
    let sane = aspect.is_positive() && (0.05..=20.0).contains(&aspect.as_f64());
    if sane { aspect } else { Rational::new(1, 1) }
}

/// Clockwise degrees, from the display matrix.
pub fn rotation(stream: Stream<'_>) -> u16 {
    let Some(matrix) = stream.side_data(ffi::AVPacketSideDataType::AV_PKT_DATA_DISPLAYMATRIX).filter(|m| m.len() >= 36) else {
        return 0;
    };
    let values: [i32; 9] = std::array::from_fn(|i| i32::from_ne_bytes(std::array::from_fn(|b| matrix[i * 4 + b])));
    // SAFETY: nine values, as the function reads.
    let counter_clockwise = unsafe { ffi::av_display_rotation_get(values.as_ptr()) };
    if counter_clockwise.is_nan() {
        return 0;
    }
    let turns = (-counter_clockwise / 90.0).round() as i64;
    (turns.rem_euclid(4) * 90) as u16
}

fn colour(stream: Stream<'_>, picture: &crate::media::look::Picture, looked: &Looked) -> Colour {
    let p = stream.parameters();
    // SAFETY: all names are constants of the library.
    let (primaries, transfer, matrix) = unsafe {
        (
            string(ffi::av_color_primaries_name(p.color_primaries)),
            string(ffi::av_color_transfer_name(p.color_trc)),
            string(ffi::av_color_space_name(p.color_space)),
        )
    };
    let known = |name: &str| !matches!(name, "" | "unknown" | "unspecified" | "reserved");
    let pick = |stream: String, seen: &str| {
        if known(seen) {
            seen.to_string()
        } else if known(&stream) {
            stream
        } else {
            String::new()
        }
    };
    let transfer = pick(transfer, &picture.transfer);
    let dynamic_range = match transfer.as_str() {
        "smpte2084" => DynamicRange::Pq,
        "arib-std-b67" => DynamicRange::Hlg,
        _ => DynamicRange::Sdr,
    };
    Colour {
        full_range: picture.full_range,
        primaries: pick(primaries, &picture.primaries),
        matrix: pick(matrix, &picture.matrix),
        transfer,
        dynamic_range,
        mastering_display: looked
            .mastering_display
            .clone()
            .or_else(|| stream.side_data(AV_PKT_DATA_MASTERING_DISPLAY_METADATA).and_then(hdr::mastering_display)),
        content_light: looked
            .content_light
            .clone()
            .or_else(|| stream.side_data(AV_PKT_DATA_CONTENT_LIGHT_LEVEL).and_then(hdr::content_light)),
    }
}

/// The container's rate where the timestamps agree with it, else what the timestamps say.
fn frame_rate(stream: Stream<'_>, track: &Track) -> Rational {
    let (first, frames) = (track.first_pts.unwrap_or(0), track.shown());
    let ticks = track.last_pts - first;
    if frames < 2 || ticks <= 0 {
        let stated = rational(stream.0.avg_frame_rate);
        return if stated.is_positive() && stated.as_f64() <= 1000.0 { stated.reduced() } else { ASSUMED_RATE };
    }
    let measured = (frames - 1) as f64 * track.time_base.den as f64 / (ticks as f64 * track.time_base.num as f64);
    for stated in [stream.0.avg_frame_rate, stream.0.r_frame_rate].map(rational) {
        if stated.is_positive() && (stated.as_f64() / measured - 1.0).abs() < 0.002 {
            return stated.reduced();
        }
    }
    Rational::new(((measured * 1000.0).round() as i64).max(1), 1000).reduced()
}

fn audio_stream(stream: Stream<'_>, index: usize) -> AudioStream {
    let p = stream.parameters();
    let mut text = [0 as libc::c_char; 64];
    // SAFETY: the layout is part of the parameters; the buffer is as long as said and gets terminated.
    let layout = unsafe {
        if ffi::av_channel_layout_describe(&p.ch_layout, text.as_mut_ptr(), text.len()) > 0 {
            string(text.as_ptr())
        } else {
            String::new()
        }
    };
    let start = crate::media::frame::known(stream.0.start_time);
    AudioStream {
        index,
        codec: stream.codec_name(),
        time_base: stream.time_base(),
        sample_rate: p.sample_rate.max(0) as u32,
        channels: p.ch_layout.nb_channels.max(0) as u32,
        layout,
        first_pts: start,
        end_pts: start.zip(crate::media::frame::known(stream.0.duration)).map(|(s, d)| s + d).filter(|&e| Some(e) > start),
        language: language(stream),
        title: stream.tag("title"),
        default: stream.has_disposition(ffi::AV_DISPOSITION_DEFAULT),
        bit_rate: p.bit_rate.max(0) as u64,
    }
}

fn language(stream: Stream<'_>) -> Option<String> {
    stream
        .tag("language")
        .map(|l| l.to_lowercase())
        .filter(|l| l != "und" && l.len() <= 35 && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
}

/// Says so when the container claims another length than its frames have.
fn note_duration(probe: &mut Probe) {
    let Some(claimed) = probe.claimed_duration_us else { return };
    let Some(video) = probe.video.first() else { return };
    let real_s = seconds(video.end_pts - video.first_pts, video.time_base);
    let claimed_s = claimed as f64 / 1e6;
    if (claimed_s - real_s).abs() > 2.0 + 0.1 * real_s {
        probe.notes.push(format!("the container claims {claimed_s:.1} s; its video is {real_s:.1} s long"));
    }
}
