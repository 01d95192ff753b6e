//! Other programs read the outputs whole: `ffmpeg` plays all of HLS, DASH and MP4 without a word, `ffprobe` and `mediainfo`
//! find what was promised, and the playlists keep RFC 8216.

use m3u8_rs::{MasterPlaylist, MediaPlaylist, parse_master_playlist_res, parse_media_playlist_res};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What every source here is: six seconds, of which every program must find all.
const FRAMES: u64 = 150;
const RATE: u64 = 25;
const SAMPLE_RATE: u64 = 48_000;
/// Samples of one AAC access unit.
const AAC_FRAME: u64 = 1024;

/// Runs to a good end and without a word on stderr; what it printed.
#[track_caller]
fn silently(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{command:?}: {}\n{said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn json(command: &mut Command) -> Value {
    serde_json::from_str(&silently(command)).unwrap()
}

#[track_caller]
fn number(value: &Value) -> u64 {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
    text.parse().unwrap_or_else(|_| panic!("{value} is no number"))
}

/// A source with sound in an empty folder.
fn source(folder: &Path, encode: &[&str]) -> PathBuf {
    let file = folder.join("source.mkv");
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-filter_threads", "1"]);
    command.args(["-f", "lavfi", "-i", &format!("testsrc2=size=320x180:rate={RATE}:duration=6")]);
    command.args(["-f", "lavfi", "-i", &format!("sine=frequency=440:sample_rate={SAMPLE_RATE}:duration=6")]);
    command.args(["-threads:v", "1", "-ac", "2", "-c:a", "flac"]);
    silently(command.args(encode).arg(&file));
    file
}

fn sdr(folder: &Path) -> PathBuf {
    let colour = "noise=alls=8:allf=t:all_seed=1,setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv";
    let h264 = ["-c:v", "libx264", "-preset", "veryfast", "-g", "30", "-bf", "2", "-pix_fmt", "yuv420p", "-vf", colour];
    source(folder, &h264)
}

/// SMPTE ST 2086 and CTA-861.3 of the HDR10 source.
const MASTERING: &str = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)";
const CONTENT_LIGHT: &str = "1000,400";

fn hdr10(folder: &Path) -> PathBuf {
    let colour = "format=yuv420p10le,setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc:range=tv";
    let params = format!(
        "keyint=25:log-level=error:pools=1:frame-threads=1:hdr10=1:repeat-headers=1:colorprim=bt2020:transfer=smpte2084:\
         colormatrix=bt2020nc:range=limited:master-display={MASTERING}:max-cll={CONTENT_LIGHT}"
    );
    source(folder, &["-vf", colour, "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", &params])
}

/// One rendition of the picture as it must be.
struct Rung {
    name: &'static str,
    width: u64,
    height: u64,
}

const RUNGS: [Rung; 2] = [Rung { name: "180p", width: 320, height: 180 }, Rung { name: "90p", width: 160, height: 90 }];
const AUDIO: &str = "audio-0-128k";

/// A job that is done.
struct Made {
    folder: TempDir,
}

impl Made {
    /// Several chunks of several segments, and a progressive file.
    fn new(preset: &str, speed: &str, source: fn(&Path) -> PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = source(folder.path());
        let mut command = Command::new(env!("CARGO_BIN_EXE_narrows"));
        command.arg("transcode").arg(source).arg("-o").arg(folder.path().join("out")).args(["--preset", preset, "--json"]);
        let speed = format!("video.speed={speed}");
        let cut = ["packaging.segment_s=1", "chunk.grid=fixed", "chunk.target_s=2", "chunk.shortest_s=1"];
        for set in cut.into_iter().chain(["packaging.mp4=true", "video.rungs.4.height=90", &speed]) {
            command.args(["--set", set]);
        }
        let report: Value = json(&mut command);
        assert!(report["chunks"].as_array().unwrap().len() >= 3, "{report:#}");
        assert_eq!(report["rungs"].as_array().unwrap().len(), RUNGS.len(), "{report:#}");
        Self { folder }
    }

    /// Absolute: ffmpeg's DASH reader finds no segment of a manifest in a relative folder, not even of its own.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("out").join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn master(&self) -> MasterPlaylist {
        parse_master_playlist_res(self.text("master.m3u8").as_bytes()).unwrap()
    }

    fn playlist(&self, rendition: &str) -> MediaPlaylist {
        parse_media_playlist_res(self.text(&format!("{rendition}/index.m3u8")).as_bytes()).unwrap()
    }

    /// The init segment of a rendition.
    fn init(&self, rendition: &str) -> Vec<u8> {
        let uri = self.playlist(rendition).segments[0].map.as_ref().unwrap().uri.clone();
        fs::read(self.path(rendition).join(uri)).unwrap()
    }
}

/// Frames and samples that ffmpeg decodes of each of these streams; not a word from it.
#[track_caller]
fn decoded(file: &Path, streams: &[&str]) -> Vec<(u64, u64)> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "warning", "-xerror", "-threads", "1", "-i"]).arg(file);
    for stream in streams {
        command.args(["-map", stream]);
    }
    command.args(["-fps_mode", "passthrough", "-f", "framemd5", "-"]);
    let mut found = BTreeMap::<u32, (u64, u64)>::new();
    for line in silently(&mut command).lines().filter(|line| !line.starts_with('#')) {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        let (frames, duration) = found.entry(cells[0].parse().unwrap()).or_default();
        *frames += 1;
        *duration += cells[3].parse::<u64>().unwrap();
    }
    found.into_values().collect()
}

/// Samples that every rendition of the sound should have.
const SAMPLES: u64 = FRAMES * SAMPLE_RATE / RATE;

/// Every picture stream is whole, and the one audio stream to within an access unit.
#[track_caller]
fn reads_whole(file: &Path, pictures: usize) {
    let streams = decoded(file, &["0:v", "0:a"]);
    assert_eq!(streams.len(), pictures + 1, "{}: {streams:?}", file.display());
    let (pictures, sound) = streams.split_at(pictures);
    assert!(pictures.iter().all(|(frames, _)| *frames == FRAMES), "{}: {streams:?}", file.display());
    assert!(sound[0].1.abs_diff(SAMPLES) <= AAC_FRAME, "{}: {streams:?} for {SAMPLES} samples", file.display());
}

/// As [`reads_whole`], track by track: ffmpeg's DASH reader (libavformat/dashdec.c, version 5.1) is done with all of them
/// where the first one ends. It opens every segment anew with the init segment in front, so that of DASH holds no sample
/// counts to trim by: priming and padding are heard as they are, and nothing is lost in between.
#[track_caller]
fn reads_whole_from_dash(manifest: &Path) {
    for (number, rung) in RUNGS.iter().enumerate() {
        let frames = decoded(manifest, &[&format!("0:v:{number}")])[0].0;
        assert_eq!(frames, FRAMES, "{}", rung.name);
    }
    let sound = decoded(manifest, &["0:a"]);
    assert_eq!(sound.len(), 1);
    let all = SAMPLES + AAC_FRAME..=SAMPLES + 2 * AAC_FRAME;
    assert!(all.contains(&sound[0].1), "{sound:?} for {SAMPLES} samples, priming and padding");
}

/// Presentation times of the pictures, as ffprobe prints them.
fn times(file: &Path) -> Vec<String> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "warning", "-select_streams", "v:0", "-show_entries", "packet=pts_time", "-of", "json"]).arg(file);
    let found = json(&mut command);
    let mut times: Vec<String> =
        found["packets"].as_array().unwrap().iter().map(|p| p["pts_time"].as_str().unwrap().to_string()).collect();
    times.sort_by(|a, b| a.parse::<f64>().unwrap().total_cmp(&b.parse().unwrap()));
    times
}

#[track_caller]
fn has_the_same_times_everywhere(made: &Made) {
    for rung in RUNGS {
        let hls = times(&made.path(rung.name).join("index.m3u8"));
        assert_eq!(hls, times(&made.path(&format!("{}.mp4", rung.name))), "{}", rung.name);
        let wanted: Vec<String> = (0..FRAMES).map(|n| format!("{:.6}", n as f64 / RATE as f64)).collect();
        assert_eq!(hls, wanted, "{}", rung.name);
    }
}

#[track_caller]
fn mediainfo_agrees(made: &Made, format: &str, colour: [&str; 3], bit_depth: u64) {
    for rung in RUNGS {
        let file = made.path(&format!("{}.mp4", rung.name));
        let found = json(Command::new("mediainfo").arg("--Output=JSON").arg(&file));
        let tracks = found["media"]["track"].as_array().unwrap();
        let track = |kind: &str| tracks.iter().find(|t| t["@type"] == kind).unwrap_or_else(|| panic!("no {kind}: {found:#}"));
        let (general, video, audio) = (track("General"), track("Video"), track("Audio"));
        assert_eq!(general["IsStreamable"], "Yes", "the index is in front: {general:#}");
        assert_eq!(video["Format"], format);
        assert_eq!((number(&video["Width"]), number(&video["Height"])), (rung.width, rung.height), "{video:#}");
        assert_eq!((number(&video["FrameCount"]), number(&video["BitDepth"])), (FRAMES, bit_depth), "{video:#}");
        assert_eq!((&video["FrameRate"], &video["FrameRate_Mode"]), (&"25.000".into(), &"CFR".into()), "{video:#}");
        assert_eq!(video["Duration"], "6.000", "{video:#}");
        let said = [&video["colour_primaries"], &video["transfer_characteristics"], &video["matrix_coefficients"]];
        assert_eq!(said, colour, "{video:#}");
        assert_eq!(video["colour_range"], "Limited");
        assert_eq!((&audio["Format"], number(&audio["Channels"])), (&"AAC".into(), 2), "{audio:#}");
        let samples = number(&audio["SamplingCount"]);
        assert!(samples.abs_diff(SAMPLES) <= AAC_FRAME, "{samples} samples for {SAMPLES}");
    }
}

/// Seconds and bits of each segment of a rendition.
fn segments(made: &Made, rendition: &str) -> Vec<(f64, f64)> {
    let size = |uri: &str| fs::metadata(made.path(rendition).join(uri)).unwrap().len();
    made.playlist(rendition).segments.iter().map(|s| (f64::from(s.duration), size(&s.uri) as f64 * 8.0)).collect()
}

/// RFC 8216 4.1: the largest bit rate of contiguous segments that together last 0.5 to 1.5 target durations.
fn peak(segments: &[(f64, f64)], target_s: f64) -> f64 {
    let runs = (0..segments.len()).flat_map(|from| (from + 1..=segments.len()).map(move |to| from..to));
    let sums = runs.map(|run| segments[run].iter().fold((0.0, 0.0), |sum, s| (sum.0 + s.0, sum.1 + s.1)));
    sums.filter(|(s, _)| (0.5 * target_s..=1.5 * target_s).contains(s)).map(|(s, bits)| bits / s).fold(0.0, f64::max)
}

fn mean(segments: &[(f64, f64)]) -> f64 {
    segments.iter().map(|s| s.1).sum::<f64>() / segments.iter().map(|s| s.0).sum::<f64>()
}

#[track_caller]
fn keeps_the_rules_of_hls(made: &Made, range: &str) {
    for rendition in RUNGS.iter().map(|rung| rung.name).chain([AUDIO]) {
        let (text, playlist) = (made.text(&format!("{rendition}/index.m3u8")), made.playlist(rendition));
        assert!(text.starts_with("#EXTM3U\n") && playlist.end_list && playlist.independent_segments, "{text}");
        // 4.3.3.1: EXTINF, rounded to the nearest integer, is at most the target duration.
        let longest = playlist.segments.iter().map(|s| s.duration.round() as u64).max().unwrap();
        assert!(longest <= playlist.target_duration, "{text}");
        let whole: f64 = segments(made, rendition).iter().map(|s| s.0).sum();
        assert!((whole - 6.0).abs() < 0.05, "{rendition} lasts {whole} s");
        assert_eq!(playlist.segments.len(), 6, "{text}");
    }
    let target_s = |rendition: &str| made.playlist(rendition).target_duration as f64;
    let sound = segments(made, AUDIO);
    let (text, master) = (made.text("master.m3u8"), made.master());
    assert_eq!(master.variants.len(), RUNGS.len());
    for (variant, rung) in master.variants.iter().zip(RUNGS) {
        assert_eq!(variant.uri, format!("{}/index.m3u8", rung.name));
        let picture = segments(made, rung.name);
        let measured = peak(&picture, target_s(rung.name)) + peak(&sound, target_s(AUDIO));
        let said = variant.bandwidth as f64;
        assert!(said >= measured - 2.0 && said < measured * 1.01, "BANDWIDTH={said} for a measured {measured}");
        let (average, measured) = (variant.average_bandwidth.unwrap() as f64, mean(&picture) + mean(&sound));
        assert!((average - measured).abs() < 0.01 * measured, "AVERAGE-BANDWIDTH={average} for {measured}");
        let resolution = variant.resolution.unwrap();
        assert_eq!((resolution.width, resolution.height), (rung.width, rung.height));
        assert_eq!(variant.frame_rate, Some(25.0));
        assert_eq!(variant.codecs.as_deref(), Some(format!("{},mp4a.40.2", codec(&made.init(rung.name))).as_str()));
        assert_eq!(variant.audio.as_ref(), Some(&master.alternatives[0].group_id));
    }
    assert_eq!(text.matches(&format!("VIDEO-RANGE={range}")).count(), RUNGS.len(), "{text}");
    let mpd = made.text("manifest.mpd");
    assert!(RUNGS.iter().all(|r| mpd.contains(&format!("codecs=\"{}\"", codec(&made.init(r.name))))), "{mpd}");
}

/// The content of the first box of that name.
fn content<'a>(init: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
    init.windows(4).position(|bytes| bytes == name).map(|at| &init[at + 4..])
}

/// The RFC 6381 name of a track, from the decoder configuration in its init segment.
fn codec(init: &[u8]) -> String {
    if let Some(avc) = content(init, b"avcC") {
        // ISO/IEC 14496-15 5.3.3.1: version, profile, compatibility, level.
        return format!("avc1.{:02x}{:02x}{:02x}", avc[1], avc[2], avc[3]);
    }
    if let Some(hevc) = content(init, b"hvcC") {
        // ISO/IEC 14496-15 E.3: profile, compatibility with its bits reversed, tier and level, constraints without zeros.
        let profile = hevc[1] & 31;
        let compatible = u32::from_be_bytes([hevc[2], hevc[3], hevc[4], hevc[5]]).reverse_bits();
        let tier = if hevc[1] & 32 == 0 { 'L' } else { 'H' };
        let constraints = &hevc[6..12];
        let used = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let constraints: String = constraints[..used].iter().map(|byte| format!(".{byte:X}")).collect();
        return format!("hvc1.{profile}.{compatible:X}.{tier}{}{constraints}", hevc[12]);
    }
    let av1 = content(init, b"av1C").expect("one of three codecs");
    // AV1 Codec ISO Media File Format Binding 2.3 and 5.
    let (profile, level, tier) = (av1[1] >> 5, av1[1] & 31, if av1[2] & 0x80 == 0 { 'M' } else { 'H' });
    let depth = if av1[2] & 0x40 == 0 { 8 } else { 10 };
    format!("av01.{profile}.{level:02}{tier}.{depth:02}")
}

const BT709: [&str; 3] = ["BT.709"; 3];

#[track_caller]
fn all_readers_agree(made: &Made) {
    reads_whole(&made.path("master.m3u8"), RUNGS.len());
    reads_whole_from_dash(&made.path("manifest.mpd"));
    for rung in RUNGS {
        reads_whole(&made.path(&format!("{}.mp4", rung.name)), 1);
    }
    has_the_same_times_everywhere(made);
}

#[test]
fn an_h264_ladder_is_read_whole_by_other_programs() {
    let made = Made::new("h264", "ultrafast", sdr);
    all_readers_agree(&made);
    mediainfo_agrees(&made, "AVC", BT709, 8);
    keeps_the_rules_of_hls(&made, "SDR");
}

#[test]
fn an_h265_ladder_is_read_whole_by_other_programs() {
    let made = Made::new("h265", "ultrafast", sdr);
    all_readers_agree(&made);
    mediainfo_agrees(&made, "HEVC", BT709, 8);
    keeps_the_rules_of_hls(&made, "SDR");
}

#[test]
fn an_av1_ladder_is_read_whole_by_other_programs() {
    let made = Made::new("av1", "12", sdr);
    all_readers_agree(&made);
    mediainfo_agrees(&made, "AV1", BT709, 8);
    keeps_the_rules_of_hls(&made, "SDR");
}

/// The first frame of the largest rung as ffprobe decodes it.
fn first_frame(file: &Path) -> Value {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "warning", "-select_streams", "v:0", "-read_intervals", "%+#1", "-show_frames", "-of", "json"]);
    json(command.arg(file))["frames"][0].clone()
}

fn side_data<'a>(frame: &'a Value, kind: &str) -> Option<&'a Value> {
    frame["side_data_list"].as_array()?.iter().find(|side| side["side_data_type"] == kind)
}

#[test]
fn hdr10_is_kept_in_h265_and_read_by_other_programs() {
    let made = Made::new("h265", "ultrafast", hdr10);
    all_readers_agree(&made);
    mediainfo_agrees(&made, "HEVC", ["BT.2020", "PQ", "BT.2020 non-constant"], 10);
    keeps_the_rules_of_hls(&made, "PQ");
    for name in ["180p/index.m3u8", "90p/index.m3u8", "180p.mp4"] {
        let frame = first_frame(&made.path(name));
        assert_eq!(frame["pix_fmt"], "yuv420p10le", "{name}");
        let colour = [&frame["color_primaries"], &frame["color_transfer"], &frame["color_space"], &frame["color_range"]];
        assert_eq!(colour, ["bt2020", "smpte2084", "bt2020nc", "tv"], "{name}");
        let display = side_data(&frame, "Mastering display metadata").unwrap_or_else(|| panic!("{name}: {frame:#}"));
        let said = ["red_x", "red_y", "green_x", "green_y", "blue_x", "blue_y", "white_point_x", "white_point_y"];
        let said = said.map(|name| display[name].as_str().unwrap());
        let wanted = [34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450].map(|n| format!("{n}/50000"));
        assert_eq!(said, wanted, "{name}");
        let luminance = (display["max_luminance"].as_str().unwrap(), display["min_luminance"].as_str().unwrap());
        assert_eq!(luminance, ("10000000/10000", "50/10000"), "{name}");
        let light = side_data(&frame, "Content light level metadata").unwrap_or_else(|| panic!("{name}: {frame:#}"));
        assert_eq!((number(&light["max_content"]), number(&light["max_average"])), (1000, 400), "{name}");
    }
}

#[test]
fn hdr10_is_tone_mapped_in_h264_and_nothing_of_it_is_left() {
    let made = Made::new("h264", "ultrafast", hdr10);
    all_readers_agree(&made);
    mediainfo_agrees(&made, "AVC", BT709, 8);
    keeps_the_rules_of_hls(&made, "SDR");
    for name in ["180p/index.m3u8", "180p.mp4"] {
        let frame = first_frame(&made.path(name));
        assert_eq!(frame["pix_fmt"], "yuv420p", "{name}");
        let colour = [&frame["color_primaries"], &frame["color_transfer"], &frame["color_space"], &frame["color_range"]];
        assert_eq!(colour, ["bt709", "bt709", "bt709", "tv"], "{name}");
        assert_eq!(side_data(&frame, "Mastering display metadata"), None, "{name}");
        assert_eq!(side_data(&frame, "Content light level metadata"), None, "{name}");
    }
}
