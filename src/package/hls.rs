//! HLS playlists (RFC 8216bis), version 7, fragmented MP4.
//!
//! Written by hand: `m3u8-rs` keeps EXTINF as a 32-bit float and has no DEFAULT=NO. The tests read what is written here
//! back with it.

use super::audio::{Group, group_for, groups};
use super::title::{Title, Track, VideoTrack, display_size};
use super::{language, playlist_path};
use crate::plan::Plan;
use crate::plan::time::mul_div_round;
use std::fmt::Write;

/// EXT-X-VERSION: 7 is what EXT-X-MAP in ordinary playlists and CMAF ask for (RFC 8216bis 8).
const VERSION: u32 = 7;

/// The multivariant playlist (RFC 8216bis 4.4.6).
pub fn master(plan: &Plan, title: &Title) -> String {
    let groups = groups(&title.audio);
    let mut text = format!("#EXTM3U\n#EXT-X-VERSION:{VERSION}\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    let alternatives = !title.video.is_empty() || groups.iter().any(|g| g.tracks.len() > 1);
    if alternatives {
        groups.iter().for_each(|group| media_tags(&mut text, group));
    }
    for (i, video) in title.video.iter().enumerate() {
        video_variant(&mut text, plan, video, group_for(&groups, i, title.video.len()));
    }
    if title.video.is_empty() {
        groups.iter().for_each(|group| audio_variant(&mut text, group, alternatives));
    }
    text
}

/// The media playlist of one rendition (RFC 8216bis 4.4.3); its URIs are relative to the rendition's folder.
pub fn media(track: &Track) -> String {
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:{VERSION}\n#EXT-X-TARGETDURATION:{}\n#EXT-X-MEDIA-SEQUENCE:0\n\
         #EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI=\"{}\"\n",
        track.target_s(),
        beside(track, &track.init)
    );
    for (segment, (start, end)) in track.segments.iter().zip(track.spans_us()) {
        let duration = end - start;
        line(&mut text, format_args!("#EXTINF:{}.{:06},", duration / 1_000_000, duration % 1_000_000));
        line(&mut text, format_args!("{}", beside(track, &segment.file)));
    }
    text.push_str("#EXT-X-ENDLIST\n");
    text
}

/// EXT-X-MEDIA for every rendition of a group (RFC 8216bis 4.4.6.1).
fn media_tags(text: &mut String, group: &Group) {
    let default = group.default_index();
    let yes = |flag: bool| if flag { "YES" } else { "NO" };
    for ((i, audio), autoselect) in group.tracks.iter().enumerate().zip(group.autoselect()) {
        let rendition = &audio.rendition;
        let language = language::tag(rendition.language.as_deref());
        line(
            text,
            format_args!(
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{}\",NAME=\"{}\"{},DEFAULT={},AUTOSELECT={},CHANNELS=\"{}\",URI=\"{}\"",
                quotable(group.id),
                quotable(&rendition.label),
                language.map_or(String::new(), |l| format!(",LANGUAGE=\"{l}\"")),
                yes(i == default),
                yes(autoselect),
                rendition.channels,
                playlist_path(&audio.track)
            ),
        );
    }
}

/// EXT-X-STREAM-INF of one rung (RFC 8216bis 4.4.6.2). Its bandwidths count the largest rendition of its audio group.
fn video_variant(text: &mut String, plan: &Plan, video: &VideoTrack, audio: Option<&Group>) {
    let track = &video.track;
    let (width, height) = display_size(&video.rung);
    let mut codecs = vec![track.codecs.as_str()];
    codecs.extend(audio.map(Group::codecs).unwrap_or_default());
    line(
        text,
        format_args!(
            "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"{}\",RESOLUTION={width}x{height}{},VIDEO-RANGE={}{}",
            track.peak_bps + audio.map_or(0, Group::peak_bps),
            track.average_bps + audio.map_or(0, Group::average_bps),
            codecs.join(","),
            plan.video.as_ref().map_or(String::new(), |v| frame_rate(v.frame_rate.num, v.frame_rate.den)),
            video.rung.colour.video_range,
            audio.map_or(String::new(), |g| format!(",AUDIO=\"{}\"", quotable(g.id))),
        ),
    );
    line(text, format_args!("{}", playlist_path(track)));
}

/// EXT-X-STREAM-INF of one quality of an audio-only title: its URI is the default rendition of the group.
fn audio_variant(text: &mut String, group: &Group, alternatives: bool) {
    line(
        text,
        format_args!(
            "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"{}\"{}",
            group.peak_bps(),
            group.average_bps(),
            group.codecs().join(","),
            if alternatives { format!(",AUDIO=\"{}\"", quotable(group.id)) } else { String::new() },
        ),
    );
    line(text, format_args!("{}", playlist_path(&group.tracks[group.default_index()].track)));
}

/// FRAME-RATE with three decimals (RFC 8216bis 4.4.6.2); nothing for a rate that is not known.
fn frame_rate(num: i64, den: i64) -> String {
    if num <= 0 || den <= 0 {
        return String::new();
    }
    let thousandths = mul_div_round(num, 1000, den);
    format!(",FRAME-RATE={}.{:03}", thousandths / 1000, thousandths % 1000)
}

/// A path under the output URI as seen from the rendition's folder.
fn beside(track: &Track, path: &str) -> String {
    match path.strip_prefix(&track.name).and_then(|rest| rest.strip_prefix('/')) {
        Some(name) => name.to_string(),
        None => format!("../{path}"),
    }
}

/// Text that may stand in a quoted-string (RFC 8216bis 4.2): no quotation mark, no line end.
fn quotable(text: &str) -> String {
    text.chars().map(|c| if c == '"' { '\'' } else { c }).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn line(text: &mut String, content: std::fmt::Arguments) {
    writeln!(text, "{content}").expect("a String takes all text");
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use m3u8_rs::{MasterPlaylist, MediaPlaylist, MediaPlaylistType, parse_master_playlist_res, parse_media_playlist_res};

    fn read_master(text: &str) -> MasterPlaylist {
        parse_master_playlist_res(text.as_bytes()).unwrap()
    }

    fn read_media(text: &str) -> MediaPlaylist {
        parse_media_playlist_res(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_whole_master_playlist() {
        let (plan, title) = fixture::plan_and_title();
        let expected = "\
#EXTM3U
#EXT-X-VERSION:7
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"aac-128k\",NAME=\"English\",LANGUAGE=\"en\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\",URI=\"audio-0-128k/index.m3u8\"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"aac-128k\",NAME=\"Director's 'cut' & more\",LANGUAGE=\"de\",DEFAULT=NO,AUTOSELECT=YES,CHANNELS=\"6\",URI=\"audio-1-128k/index.m3u8\"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"aac-64k\",NAME=\"English\",LANGUAGE=\"en\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\",URI=\"audio-0-64k/index.m3u8\"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"aac-64k\",NAME=\"Director's 'cut' & more\",LANGUAGE=\"de\",DEFAULT=NO,AUTOSELECT=YES,CHANNELS=\"6\",URI=\"audio-1-64k/index.m3u8\"
#EXT-X-STREAM-INF:BANDWIDTH=5128000,AVERAGE-BANDWIDTH=4128000,CODECS=\"avc1.640028,mp4a.40.2\",RESOLUTION=1920x1080,FRAME-RATE=25.000,VIDEO-RANGE=SDR,AUDIO=\"aac-128k\"
1080p/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=1064000,AVERAGE-BANDWIDTH=864000,CODECS=\"avc1.64001e,mp4a.40.2\",RESOLUTION=640x360,FRAME-RATE=25.000,VIDEO-RANGE=SDR,AUDIO=\"aac-64k\"
360p/index.m3u8
";
        assert_eq!(master(&plan, &title), expected);
    }

    #[test]
    fn a_whole_media_playlist() {
        let (_, title) = fixture::plan_and_title();
        let expected = "\
#EXTM3U
#EXT-X-VERSION:7
#EXT-X-TARGETDURATION:4
#EXT-X-MEDIA-SEQUENCE:0
#EXT-X-PLAYLIST-TYPE:VOD
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MAP:URI=\"init.mp4\"
#EXTINF:4.000000,
00000.m4s
#EXTINF:4.000000,
00001.m4s
#EXTINF:2.000000,
00002.m4s
#EXT-X-ENDLIST
";
        assert_eq!(media(&title.video[0].track), expected);
    }

    #[test]
    fn another_reader_finds_the_same_facts() {
        let (plan, title) = fixture::plan_and_title();
        let read = read_master(&master(&plan, &title));
        assert_eq!((read.version, read.independent_segments, read.alternatives.len()), (Some(7), true, 4));
        assert_eq!(read.variants.iter().map(|v| v.bandwidth).collect::<Vec<_>>(), [5_128_000, 1_064_000]);
        assert_eq!(read.variants[1].audio.as_deref(), Some("aac-64k"));
        let read = read_media(&media(&title.audio[0].track));
        assert_eq!((read.playlist_type, read.end_list), (Some(MediaPlaylistType::Vod), true));
        assert_eq!(read.segments.len(), 3);
        assert_eq!(read.segments[0].map.as_ref().unwrap().uri, "init.mp4");
        // The priming before zero is not shown.
        assert_eq!(read.segments.iter().map(|s| s.duration).sum::<f32>(), 10.0);
    }

    #[test]
    fn instants_are_rounded_so_that_a_long_playlist_does_not_drift() {
        let (_, title) = fixture::plan_and_title();
        let mut track = title.video[0].track.clone();
        track.timescale = 30_000;
        let model = track.segments[0].clone();
        let segment =
            |i: i64| crate::sandbox::protocol::Segment { time: i * 120_121, duration: 120_121, index: i as u32, ..model.clone() };
        track.segments = (0..9000).map(segment).collect();
        let text = media(&track);
        let micros = |l: &str| l.trim_end_matches(',').replace('.', "").parse::<i64>().unwrap();
        let sum: i64 = text.lines().filter_map(|l| l.strip_prefix("#EXTINF:")).map(micros).sum();
        assert_eq!(sum, 9000 * 120_121 * 100 / 3);
    }

    #[test]
    fn an_audio_only_title_has_its_renditions_as_variants() {
        let (mut plan, mut title) = fixture::plan_and_title();
        plan.video = None;
        title.video.clear();
        let read = read_master(&master(&plan, &title));
        assert_eq!(read.alternatives.len(), 4);
        assert_eq!(
            read.variants.iter().map(|v| v.uri.as_str()).collect::<Vec<_>>(),
            ["audio-0-128k/index.m3u8", "audio-0-64k/index.m3u8"]
        );
        title.audio.retain(|a| a.rendition.stream == 1);
        let read = read_master(&master(&plan, &title));
        assert_eq!(read.alternatives, []);
        assert_eq!(read.variants.iter().map(|v| v.audio.clone()).collect::<Vec<_>>(), [None, None]);
        assert_eq!(read.variants[1].bandwidth, 64_000);
    }

    #[test]
    fn a_title_without_audio_names_none() {
        let (plan, mut title) = fixture::plan_and_title();
        title.audio.clear();
        let read = read_master(&master(&plan, &title));
        assert_eq!(read.variants[0].codecs.as_deref(), Some("avc1.640028"));
        assert_eq!((read.variants[0].bandwidth, read.variants[0].audio.as_ref()), (5_000_000, None));
    }

    #[test]
    fn frame_rates_have_three_decimals_and_pixels_that_are_not_square_are_counted_as_seen() {
        assert_eq!(frame_rate(30_000, 1001), ",FRAME-RATE=29.970");
        assert_eq!(frame_rate(0, 1), "");
        let (plan, mut title) = fixture::plan_and_title();
        title.video[1].rung.sample_aspect = crate::plan::time::Rational::new(4, 3);
        assert!(master(&plan, &title).contains("RESOLUTION=853x360"));
    }
}
