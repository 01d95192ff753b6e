//! The MP4 against the tracks it is made of, as the `ffmpeg` program decodes both.

use super::*;
use crate::media::boxes::find;
use crate::media::fixture::{LocalHost, complaints, limits, lines, make};
use std::path::PathBuf;
use tempfile::TempDir;

/// Flags with which the `ffmpeg` program writes tracks like ours.
const CMAF: &str = "-fflags +bitexact -f mp4 -movflags frag_keyframe+delay_moov+default_base_moof+skip_trailer";

struct Bench {
    folder: TempDir,
    tracks: Vec<PathBuf>,
}

impl Bench {
    fn new(tracks: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = tracks.iter().enumerate().map(|(i, arguments)| {
            let path = folder.path().join(format!("track{i}.mp4"));
            make(&format!("{arguments} {CMAF}"), &path);
            path
        });
        Self { tracks: paths.collect(), folder }
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("whole.mp4")
    }

    fn try_remux(&self, limits: &Limits) -> Result<RemuxReport> {
        let host = LocalHost::new(&self.tracks.iter().map(PathBuf::as_path).collect::<Vec<_>>());
        let report = remux(&host, limits, self.folder.path(), self.tracks.len(), &RemuxTask { file: "whole.mp4".into() })?;
        assert_eq!(host.done.get(), report.packets);
        Ok(report)
    }

    /// Makes the MP4, and checks what holds of every one.
    fn remux(&self) -> RemuxReport {
        let report = self.try_remux(&limits()).unwrap();
        let bytes = std::fs::read(self.output()).unwrap();
        assert_eq!(bytes.len() as u64, report.bytes);
        let at = |kind| find(&bytes, 0, bytes.len(), kind).unwrap().0;
        assert!(at(*b"moov") < at(*b"mdat"), "the index comes after the media");
        assert_eq!(complaints(&self.output()), "");
        report
    }

    /// Frames of a track and of the same one in the MP4: time and MD5 of each.
    fn frames(&self, track: usize) -> (Vec<String>, Vec<String>) {
        (frames(&self.tracks[track], 0), frames(&self.output(), track))
    }
}

/// `pts, size, md5` of each decoded frame in ticks of the track, and its time base before them.
fn frames(path: &Path, stream: usize) -> Vec<String> {
    let arguments =
        format!("-nostdin -v error -copyts -i {{0}} -map 0:{stream} -fps_mode passthrough -enc_time_base -1 -f framemd5 -");
    let all = lines("ffmpeg", &arguments, path);
    let base = all.iter().filter(|line| line.starts_with("#tb")).cloned();
    let field = |line: &String, n: usize| line.split(',').nth(n).unwrap().trim().to_string();
    let frames = all.iter().filter(|line| !line.starts_with('#')).map(|line| format!("{} {}", field(line, 2), field(line, 5)));
    base.chain(frames).collect()
}

fn packets(path: &Path, stream: usize) -> Vec<String> {
    let arguments = format!(
        "-v error -select_streams {stream} -show_entries packet=pts,dts,data_hash,flags -show_data_hash md5 -of csv=p=0 {{0}}"
    );
    lines("ffprobe", &arguments, path)
}

const VIDEO: &str =
    "-f lavfi -i testsrc2=s=320x180:r=30000/1001:d=3 -c:v libx264 -preset veryfast -bf 3 -g 30 -video_track_timescale 30000";
/// AAC access units, priming first.
const AUDIO: &str = "-f lavfi -i anoisesrc=r=48000:d=3:c=pink:seed=7:a=0.5 -ac 2 -c:a aac";

#[test]
fn every_packet_and_frame_is_in_the_mp4_at_the_same_tick() {
    let bench =
        Bench::new(&[VIDEO, &format!("{AUDIO} -metadata:s:a language=deu"), &format!("{AUDIO} -metadata:s:a language=fra")]);
    let report = bench.remux();
    assert_eq!(report.packets, 90 + 2 * 142);
    assert_eq!(packets(&bench.tracks[0], 0), packets(&bench.output(), 0));
    let (wanted, found) = bench.frames(0);
    assert_eq!((wanted.len(), &found), (91, &wanted));
    for track in 1..3 {
        // The track's own first frame is priming, which its demuxer does not skip; the edit of the MP4 does.
        let (wanted, found) = bench.frames(track);
        assert!(wanted[1].starts_with("-1024 ") && found[1].starts_with("0 "), "{:?} {:?}", wanted[1], found[1]);
        assert_eq!(found[1..140], wanted[2..141]);
    }
    let entries =
        "-v error -show_entries stream=codec_tag_string:stream_tags=language:stream_disposition=default -of csv=p=0 {0}";
    assert_eq!(lines("ffprobe", entries, &bench.output()), ["avc1,1,und", "mp4a,1,deu", "mp4a,0,fra"]);
}

#[test]
fn the_true_end_of_the_sound_is_kept() {
    let bench = Bench::new(&[AUDIO]);
    bench.remux();
    let duration = lines("ffprobe", "-v error -show_entries stream=duration_ts,start_pts -of csv=p=0 {0}", &bench.output());
    assert_eq!(duration, ["0,144000"]);
    let samples = lines("ffprobe", "-v error -show_entries frame=nb_samples -of csv=p=0 {0}", &bench.output());
    let samples: u64 = samples.iter().map(|line| line.trim_end_matches(',').parse::<u64>().unwrap()).sum();
    assert!((144_000..145_024).contains(&samples), "{samples}");
}

#[test]
fn hdr_uneven_times_and_a_late_start_are_kept() {
    let hdr = "-f lavfi -i testsrc2=s=320x180:r=25:d=2 -vf setpts=PTS+0.32/TB+mod(N\\,3)*0.011/TB -fps_mode passthrough -enc_time_base 1/90000 \
        -pix_fmt yuv420p10le -c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=25:colorprim=bt2020:transfer=smpte2084:\
colormatrix=bt2020nc:hdr10=1:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):max-cll=1000,400 \
        -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc -tag:v hvc1 -video_track_timescale 90000";
    let bench = Bench::new(&[hdr, AUDIO]);
    bench.remux();
    let (wanted, found) = bench.frames(0);
    assert_eq!((wanted.len(), &found), (51, &wanted));
    assert!(wanted[1].starts_with("28800 "), "{}", wanted[1]);
    let entries = "-v error -select_streams v -show_entries stream=codec_tag_string,color_primaries,color_transfer,color_space -of csv=p=0 {0}";
    assert_eq!(lines("ffprobe", entries, &bench.output()), ["hvc1,bt2020nc,smpte2084,bt2020"]);
}

#[test]
fn what_is_no_track_or_too_large_is_refused() {
    let bench = Bench::new(&[AUDIO]);
    let refusal = bench.try_remux(&Limits { scratch_bytes: 20_000, ..limits() }).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Limit);
    std::fs::write(&bench.tracks[0], b"no boxes here, and never were any in this file").unwrap();
    assert!(bench.try_remux(&limits()).is_err());
}

#[test]
fn the_same_tracks_give_the_same_bytes() {
    let bench = Bench::new(&[VIDEO, AUDIO]);
    bench.remux();
    let first = std::fs::read(bench.output()).unwrap();
    bench.remux();
    assert!(first == std::fs::read(bench.output()).unwrap());
}
