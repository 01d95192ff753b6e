//! One rung of one chunk: frames in, finished segments out.
//!
//! Decode times are ours, not the encoder's: the i-th sample of a segment in decode order is decoded at the i-th
//! presentation time of the segment, less the title's reorder delay. So sample durations are display durations,
//! a segment's `tfdt` is its first presentation time whatever the encoder's look-ahead, and chunks of one frame
//! or of uneven frame rate join like any others.

use crate::media::codecs::rfc6381;
use crate::media::demux::av_rational;
use crate::media::device::{self, Hardware};
use crate::media::encode::own_cpu_seconds;
use crate::media::error::{AGAIN, Options, Result, allocated, c, check, refusal, refuse, words};
use crate::media::ffi;
use crate::media::fragment::Fragmenter;
use crate::media::frame::{Frame, Packet};
use crate::media::interest::Interest;
use crate::media::judge::Judge;
use crate::plan::time::Rational;
use crate::plan::{Encoder, Rung};
use crate::sandbox::protocol::{EncodeTask, EncodedRung, InitSegment, Limits, Measured, RefusalReason, Segment};
use std::path::{Path, PathBuf};

const INTERNAL: RefusalReason = RefusalReason::Internal;

/// Encodes one rung.
pub struct RungEncoder<'t> {
    task: &'t EncodeTask,
    rung: &'t Rung,
    scratch: PathBuf,
    prefix: String,
    codec: Codec,
    fragmenter: Option<Fragmenter>,
    /// Segments begun and not written: number and start, output ticks. The first is being filled.
    begun: Vec<(u32, i64)>,
    /// Packets of the first begun segment, in decode order.
    pending: Vec<Packet>,
    frames_in: u64,
    bytes: u64,
    segments: Vec<Segment>,
    init: Option<InitSegment>,
    /// Measures what is made.
    verifier: Option<Verifier>,
    pub cpu_s: f64,
}

/// What measures a rung while it is encoded. It may fail: then the rung is not measured.
struct Verifier {
    judge: Result<Judge>,
    scored_every: u32,
    cpu_s: f64,
}

impl Verifier {
    /// Goes on unless it has failed before.
    fn go_on(&mut self, step: impl FnOnce(&mut Judge) -> Result<()>) {
        let began = own_cpu_seconds();
        if let Ok(judge) = &mut self.judge
            && let Err(refusal) = step(judge)
        {
            self.judge = Err(refusal);
        }
        self.cpu_s += own_cpu_seconds() - began;
    }

    fn finish(self) -> Result<Measured> {
        let began = own_cpu_seconds();
        let mut scores = self.judge?.finish()?;
        let vmaf_neg = scores.iter().sum::<f64>() / scores.len() as f64;
        scores.iter_mut().for_each(|score| *score = (*score * 100.0).round() / 100.0);
        Ok(Measured { vmaf_neg, scores, scored_every: self.scored_every, cpu_s: self.cpu_s + own_cpu_seconds() - began })
    }
}

impl<'t> RungEncoder<'t> {
    /// # Errors
    /// Settings: the encoder does not take them.
    pub fn open(task: &'t EncodeTask, number: usize, scratch: &Path) -> Result<Self> {
        let rung = &task.rungs[number];
        Ok(Self {
            task,
            rung,
            scratch: scratch.to_path_buf(),
            prefix: format!("r{number}"),
            codec: Codec::open(task, rung)?,
            fragmenter: None,
            begun: Vec::new(),
            pending: Vec::new(),
            frames_in: 0,
            bytes: 0,
            segments: Vec::new(),
            init: None,
            verifier: None,
            cpu_s: 0.0,
        })
    }

    /// From now on what is made is measured beside pictures as those of `reference`, each told before it is pushed.
    pub fn verify(&mut self, reference: &Rung, scored_every: u32, limits: &Limits) {
        let judge = Judge::open(self.task, &self.codec, self.rung, (reference, scored_every), limits);
        self.verifier = Some(Verifier { judge, scored_every, cpu_s: 0.0 });
    }

    /// The picture beside which the next frame is measured.
    pub fn expect(&mut self, reference: &Frame, time: i64) {
        if let Some(verifier) = &mut self.verifier {
            verifier.go_on(|judge| judge.expect(reference, time));
        }
    }

    /// What was measured, where it was to be; called when all frames were pushed and the rung is finished.
    fn measured(&mut self) -> Option<Result<Measured>> {
        let measured = self.verifier.take()?.finish();
        if let Ok(measured) = &measured {
            self.cpu_s -= measured.cpu_s;
        }
        Some(measured)
    }

    /// Takes a frame for time `time` (output ticks) in segment number `segment`.
    ///
    /// # Errors
    /// Settings or Internal: the encoder fails.
    pub fn push(&mut self, frame: &mut Frame, time: i64, segment: u32) -> Result<()> {
        let starts = self.begun.last().is_none_or(|&(last, _)| last != segment);
        if starts {
            if self.rung.encoder.restart_per_segment && !self.begun.is_empty() {
                self.drain_codec()?;
                self.write_segment(time)?;
                self.codec = Codec::open(self.task, self.rung)?;
            }
            self.begun.push((segment, time));
        }
        let f = frame.get_mut();
        f.pts = time;
        f.pict_type = if starts { ffi::AVPictureType::AV_PICTURE_TYPE_I } else { ffi::AVPictureType::AV_PICTURE_TYPE_NONE };
        f.key_frame = i32::from(starts);
        self.codec.send(Some(frame))?;
        self.frames_in += 1;
        self.take_packets()
    }

    fn take_packets(&mut self) -> Result<()> {
        while let Some(packet) = self.codec.receive()? {
            if let Some(verifier) = &mut self.verifier {
                verifier.go_on(|judge| judge.take(Some(&packet)));
            }
            let next = self.begun.get(1).map(|&(_, start)| start);
            if packet.is_key() && next.is_some() && packet.pts() == next {
                self.write_segment(next.unwrap_or_default())?;
            }
            self.pending.push(packet);
        }
        Ok(())
    }

    fn drain_codec(&mut self) -> Result<()> {
        self.codec.send(None)?;
        self.take_packets()
    }

    /// Ends the chunk at `end` (output ticks) and reports.
    ///
    /// # Errors
    /// Internal: the encoder lost or doubled a frame.
    pub fn finish(mut self, end: i64) -> Result<(EncodedRung, Option<Result<Measured>>)> {
        self.drain_codec()?;
        let measured = self.measured();
        if !self.begun.is_empty() {
            self.write_segment(end)?;
        }
        let frames: u64 = self.segments.iter().map(|s| s.samples).sum();
        if frames != self.frames_in {
            return refuse(
                INTERNAL,
                format!(
                    "{}: {} frames went into {} and {frames} came out",
                    self.rung.name, self.frames_in, self.rung.encoder.library
                ),
            );
        }
        let init = self.init.ok_or_else(|| refusal(INTERNAL, "no init segment was made"))?;
        let encoded = EncodedRung {
            name: self.rung.name.clone(),
            init,
            segments: self.segments,
            frames,
            bytes: self.bytes,
            cpu_s: self.cpu_s,
        };
        Ok((encoded, measured))
    }

    /// Writes the segment being filled; it ends at `end`.
    fn write_segment(&mut self, end: i64) -> Result<()> {
        let (number, start) = self.begun.remove(0);
        let mut packets = std::mem::take(&mut self.pending);
        let mut times: Vec<i64> = packets.iter().map(|p| p.pts().unwrap_or(start)).collect();
        times.sort_unstable();
        let sound =
            packets.first().is_some_and(Packet::is_key) && times.first() == Some(&start) && times.windows(2).all(|w| w[0] < w[1]);
        if !sound || times.last().is_some_and(|&last| last >= end) {
            return refuse(
                INTERNAL,
                format!("{}: segment {number} does not start with its own key frame, or its times do not fit", self.rung.name),
            );
        }
        self.stamp(&mut packets, &times, end);
        if packets.first().and_then(Packet::dts) != Some(start - self.task.reorder_delay) {
            return refuse(INTERNAL, format!("{}: segment {number} needs a longer reorder delay", self.rung.name));
        }
        let samples = packets.len() as u64;
        let fragmenter = match &mut self.fragmenter {
            Some(open) => open,
            none => {
                none.insert(Fragmenter::open(self.codec.get(), self.task.timescale, &self.rung.encoder.sample_entry, number + 1)?)
            }
        };
        for packet in &mut packets {
            fragmenter.write(packet)?;
        }
        let bytes = fragmenter.cut()?;
        let file = format!("{}-{number:05}.m4s", self.prefix);
        write_file(&self.scratch.join(&file), &bytes)?;
        self.bytes += bytes.len() as u64;
        self.segments.push(Segment {
            index: number,
            file,
            bytes: bytes.len() as u64,
            time: start,
            duration: end - start,
            samples,
        });
        self.note_init()
    }

    /// Gives every sample its decode time and duration. Where frames last longer than the reorder delay allows for
    /// (variable rate), a sample is decoded as late as those after it let it: still before it is shown, still in order.
    fn stamp(&self, packets: &mut [Packet], times: &[i64], end: i64) {
        let delay = self.task.reorder_delay;
        let mut latest = i64::MAX;
        let mut next = end - delay;
        for (i, packet) in packets.iter_mut().enumerate().rev() {
            latest = latest.saturating_sub(1).min(packet.pts().unwrap_or(times[i]));
            let raw = packet.get_mut();
            raw.dts = (times[i] - delay).min(latest);
            raw.duration = next - raw.dts;
            next = raw.dts;
        }
    }

    fn note_init(&mut self) -> Result<()> {
        if self.init.is_some() {
            return Ok(());
        }
        let Some(bytes) = self.fragmenter.as_ref().and_then(Fragmenter::init) else {
            return refuse(INTERNAL, "the muxer gave no init segment");
        };
        let file = format!("{}-init.mp4", self.prefix);
        write_file(&self.scratch.join(&file), bytes)?;
        let codecs = self.codec.codecs(&self.rung.encoder.sample_entry)?;
        self.init = Some(InitSegment { file, bytes: bytes.len() as u64, codecs, timescale: self.task.timescale });
        Ok(())
    }
}

/// Writes a whole file; a full disk or a passed limit is ours, not the customer's.
///
/// # Errors
/// Internal, with the system's words.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).or_else(|e| refuse(INTERNAL, format!("a scratch file cannot be written: {e}")))
}

/// An open encoder.
pub(crate) struct Codec(pub(crate) *mut ffi::AVCodecContext, pub(crate) Option<Hardware>, pub(crate) Interest);

impl Codec {
    pub(crate) fn open(task: &EncodeTask, rung: &Rung) -> Result<Self> {
        let name = c(&rung.encoder.library);
        // SAFETY: a look-up by name.
        let codec = unsafe { ffi::avcodec_find_encoder_by_name(name.as_ptr()) };
        if codec.is_null() {
            return refuse(RefusalReason::Settings, format!("encoder {} is not installed here", rung.encoder.library));
        }
        // SAFETY: the codec is not null; the context is ours.
        let mut encoder =
            Self(allocated(unsafe { ffi::avcodec_alloc_context3(codec) }, "an encoder")?, None, Interest::new(rung));
        encoder.describe(task, rung)?;
        let device = task.device.as_ref();
        if let Some(device) = device {
            // SAFETY: the context is ours, and not open yet.
            encoder.1 = Hardware::attach(device, unsafe { &mut *encoder.0 })?;
        }
        let mut options = Options::new(with_ours(&rung.encoder, task.threads).into_iter().chain(device::options(device)));
        // SAFETY: the context is set up.
        let code = unsafe { ffi::avcodec_open2(encoder.0, codec, &mut options.0) };
        if code < 0 {
            return refuse(
                if device.is_some() { RefusalReason::Device } else { RefusalReason::Settings },
                format!(
                    "{}: {} does not take its settings for {}x{} {}: {}",
                    rung.name,
                    rung.encoder.library,
                    rung.width,
                    rung.height,
                    rung.pixel_format,
                    words(code)
                ),
            );
        }
        match options.left().as_slice() {
            [] => Ok(encoder),
            left => refuse(
                RefusalReason::Settings,
                format!("{}: {} has no option {}", rung.name, rung.encoder.library, left.join(", ")),
            ),
        }
    }

    fn describe(&self, task: &EncodeTask, rung: &Rung) -> Result<()> {
        let colour = &rung.colour;
        let (format, primaries, transfer, matrix) =
            (c(&rung.pixel_format), c(&colour.primaries), c(&colour.transfer), c(&colour.matrix));
        // SAFETY: the context is ours; names that are not known give a negative value, checked before it becomes an enum.
        unsafe {
            let x = &mut *self.0;
            x.width = rung.width as i32;
            x.height = rung.height as i32;
            x.pix_fmt = ffi::av_get_pix_fmt(format.as_ptr());
            if x.pix_fmt == ffi::AVPixelFormat::AV_PIX_FMT_NONE {
                return refuse(RefusalReason::Settings, format!("{} is no pixel format", rung.pixel_format));
            }
            x.time_base = av_rational(Rational::new(1, i64::from(task.timescale)));
            x.framerate = av_rational(task.frame_rate);
            x.sample_aspect_ratio = av_rational(rung.sample_aspect);
            x.flags |= ffi::AV_CODEC_FLAG_GLOBAL_HEADER as i32 | ffi::AV_CODEC_FLAG_BITEXACT as i32;
            x.thread_count = 1;
            x.color_range =
                if rung.full_range { ffi::AVColorRange::AVCOL_RANGE_JPEG } else { ffi::AVColorRange::AVCOL_RANGE_MPEG };
            if let Ok(value) = u32::try_from(ffi::av_color_primaries_from_name(primaries.as_ptr())) {
                x.color_primaries = std::mem::transmute::<u32, ffi::AVColorPrimaries>(value);
            }
            if let Ok(value) = u32::try_from(ffi::av_color_transfer_from_name(transfer.as_ptr())) {
                x.color_trc = std::mem::transmute::<u32, ffi::AVColorTransferCharacteristic>(value);
            }
            if let Ok(value) = u32::try_from(ffi::av_color_space_from_name(matrix.as_ptr())) {
                x.colorspace = std::mem::transmute::<u32, ffi::AVColorSpace>(value);
            }
        }
        Ok(())
    }

    pub(crate) fn get(&self) -> &ffi::AVCodecContext {
        // SAFETY: never null once open.
        unsafe { &*self.0 }
    }

    pub(crate) fn send(&mut self, frame: Option<&Frame>) -> Result<()> {
        let made = match (frame, &self.1) {
            (Some(frame), Some(hardware)) => Some(hardware.upload(frame)?),
            (Some(frame), None) => self.2.told(frame)?,
            (None, _) => None,
        };
        let frame = made.as_ref().or(frame).map_or(std::ptr::null(), |f| f.0.cast_const());
        // SAFETY: the encoder is open; a null frame means the end.
        match unsafe { ffi::avcodec_send_frame(self.0, frame) } {
            0.. | ffi::AVERROR_EOF => Ok(()),
            code => refuse(INTERNAL, format!("encoding: {}", words(code))),
        }
    }

    pub(crate) fn receive(&mut self) -> Result<Option<Packet>> {
        let packet = Packet::new()?;
        // SAFETY: both are ours.
        match unsafe { ffi::avcodec_receive_packet(self.0, packet.0) } {
            0.. => Ok(Some(without_settings(packet))),
            AGAIN | ffi::AVERROR_EOF => Ok(None),
            code => refuse(INTERNAL, format!("encoding: {}", words(code))),
        }
    }

    pub(crate) fn codecs(&self, sample_entry: &str) -> Result<String> {
        // SAFETY: the parameters are ours and freed here; the encoder is open.
        unsafe {
            let mut parameters = allocated(ffi::avcodec_parameters_alloc(), "parameters")?;
            let code = ffi::avcodec_parameters_from_context(parameters, self.0);
            let codecs = check(code, INTERNAL, "the encoder's parameters").and_then(|_| rfc6381(&*parameters, sample_entry));
            ffi::avcodec_parameters_free(&mut parameters);
            codecs
        }
    }
}

impl Drop for Codec {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { ffi::avcodec_free_context(&mut self.0) };
    }
}

/// The plan's options and what a worker adds to them: the first picture's quantiser, and what makes the same bits on every machine.
///
/// x265 gets its pools, which change none. x264 does without AVX-512: with it, the macroblock tree of x264 164 reads memory that
/// nobody has written where a row is not a multiple of eight macroblocks, and what is made depends on what lay there.
fn with_ours(encoder: &Encoder, threads: u32) -> Vec<(String, String)> {
    let mut options: Vec<(String, String)> = encoder.options.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let pools = if threads <= 1 { "none".to_string() } else { threads.to_string() };
    // A zone of one picture, whose rate is multiplied: that divides the quantiser's scale, and leaves all else as it is. x265 3.5
    // takes its end for the first picture after it.
    let times = 2f64.powf(f64::from(-encoder.first_picture_qp_tenths) / 60.0);
    let zone = |end: u32| (encoder.first_picture_qp_tenths != 0).then(|| format!("zones=0,{end},b={times:.4}"));
    // The last of two counts: threads are the worker's to say, all else the preset's.
    let (key, first, last) = match encoder.library.as_str() {
        "libx265" => ("x265-params", [zone(1), None], Some(format!("pools={pools}"))),
        "libx264" => ("x264-params", [zone(0), has_avx512().then(|| "asm=avx2".to_string())], None),
        _ => return options,
    };
    let planned = options.iter().position(|(name, _)| name == key).map(|at| options.swap_remove(at).1);
    let params: Vec<String> = first.into_iter().chain([planned, last]).flatten().collect();
    options.push((key.into(), params.join(":")));
    options
}

/// By this x264's message of its settings is known.
const SETTINGS_UUID: [u8; 16] = *b"\xdc\x45\xe9\xbd\xe6\xd9\x48\xb7\x96\x2c\xd8\x20\xd9\x23\xee\xef";

/// A packet without what x264 writes before the first picture of every encode, so of every chunk: the settings it had, some 700
/// bytes of text. At 60 kbit/s that is a fiftieth of a chunk of 4 s.
fn without_settings(mut packet: Packet) -> Packet {
    if packet.is_key() {
        let settings = settings_of_x264(packet.data());
        let raw = packet.get_mut();
        // SAFETY: the packet holds more bytes than these; its buffer is freed by another pointer.
        raw.data = unsafe { raw.data.add(settings) };
        raw.size -= settings as i32;
    }
    packet
}

/// Length of a first NAL unit that is x264's message of its settings: user_data_unregistered (payload type 5) in an SEI (NAL unit type
/// 6, ITU-T H.264 7.3.2.3.1 and D.1.7) by its UUID. 0, where the access unit does not begin with one, or ends with it.
fn settings_of_x264(data: &[u8]) -> usize {
    let code = if data.starts_with(&[0, 0, 1, 6, 5]) { 3 } else { 4 };
    if code == 4 && !data.starts_with(&[0, 0, 0, 1, 6, 5]) {
        return 0;
    }
    // Its size: bytes of 255, and one less.
    let size = &data[code + 2..];
    let uuid = size.iter().position(|&byte| byte != 255).map_or(&[][..], |last| &size[last + 1..]);
    if !uuid.starts_with(&SETTINGS_UUID) {
        return 0;
    }
    let next = data[code..].windows(3).position(|three| three == [0, 0, 1]).map_or(0, |at| code + at);
    // A start code of four bytes.
    next - usize::from(next > 0 && data[next - 1] == 0)
}

fn has_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(test)]
mod tests {
    use super::{SETTINGS_UUID, settings_of_x264};
    use crate::media::fixture::{encoded, make};
    use serde_json::json;

    #[test]
    fn no_chunk_carries_the_settings_of_its_encoder() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source.mp4");
        make("-f lavfi -i mandelbrot=s=160x96:r=25 -t 1 -pix_fmt yuv420p -c:v libx264 -qp 4", &source);
        let set = [("video.rungs", json!([{ "height": 96, "crf": 30 }]))];
        for (preset, name) in [("h264", "x264"), ("h265", "x265")] {
            let made = encoded(&source, folder.path(), preset, &set).swap_remove(0);
            assert!(!made.windows(name.len()).any(|bytes| bytes == name.as_bytes()), "{preset}");
        }
    }

    #[test]
    fn settings_are_told_from_other_messages() {
        let unit =
            |start: &[u8], kind: [u8; 2], size: &[u8], uuid: &[u8]| [start, &kind, size, uuid, b"core 164", &[0x80]].concat();
        let idr = |start: &[u8]| [start, &[0x65, 0x88, 0x84]].concat();
        let (three, four) = (&[0u8, 0, 1][..], &[0u8, 0, 0, 1][..]);
        for (start, next) in [(three, three), (three, four), (four, three), (four, four)] {
            for size in [&[24u8][..], &[255, 255, 9]] {
                let settings = unit(start, [6, 5], size, &SETTINGS_UUID);
                assert_eq!(settings_of_x264(&[settings.clone(), idr(next)].concat()), settings.len());
                assert_eq!(settings_of_x264(&settings), 0, "nothing would be left");
            }
        }
        for other in [
            unit(four, [6, 4], &[24], &SETTINGS_UUID),
            unit(four, [6, 5], &[24], &[0; 16]),
            unit(four, [7, 5], &[24], &SETTINGS_UUID),
            idr(four),
        ] {
            assert_eq!(settings_of_x264(&[other, idr(four)].concat()), 0);
        }
        for short in [&[][..], &[0, 0, 1], &[0, 0, 1, 6, 5], &[0, 0, 0, 1, 6, 5, 255]] {
            assert_eq!(settings_of_x264(short), 0);
        }
    }

    #[test]
    fn what_lay_in_memory_before_changes_no_bit() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source.mp4");
        make("-f lavfi -i mandelbrot=s=426x240:r=25 -t 1 -pix_fmt yuv420p -c:v libx264 -qp 4", &source);
        for (preset, speed) in [("h264", "fast"), ("h265", "fast"), ("av1", "10")] {
            // 27 macroblocks in a row, and 20.
            let rungs = json!([{ "height": 240, "crf": 36 }, { "height": 180, "crf": 36 }]);
            let after = |filling: i32| {
                // SAFETY: a plain setting; no other test is in this process.
                unsafe { libc::mallopt(libc::M_PERTURB, filling) };
                encoded(&source, folder.path(), preset, &[("video.rungs", rungs.clone()), ("video.speed", speed.into())])
            };
            let [zeroes, ones, mixed] = [0, 255, 85].map(after);
            assert!(zeroes.iter().all(|made| made.len() > 1000) && zeroes.len() == 2, "{preset}");
            assert!(zeroes == ones && zeroes == mixed, "{preset}");
        }
    }
}
