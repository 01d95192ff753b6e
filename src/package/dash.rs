//! The DASH manifest (ISO/IEC 23009-1), over the same segments as the HLS playlists.
//!
//! Segments are named by their content, so no template can name them: every Representation carries a SegmentList with a
//! SegmentTimeline, which the ISO base media file format main profile (ISO/IEC 23009-1 8.5) allows.
//!
//! Written through `quick-xml`, which is in the build already: `dash-mpd` brings an HTTP client whatever its features.

use super::audio::groups;
use super::language;
use super::title::{AudioTrack, Title, Track, VideoTrack, display_size, shown};
use super::xml::Element;
use crate::plan::time::{Rational, mul_div_round};
use crate::plan::{AudioPlan, OutputColour, Plan};

const NAMESPACE: &str = "urn:mpeg:dash:schema:mpd:2011";
const PROFILE: &str = "urn:mpeg:dash:profile:isoff-main:2011";
const ROLE_SCHEME: &str = "urn:mpeg:dash:role:2011";
/// ISO/IEC 23091-3 ChannelConfiguration as a number.
const CHANNEL_SCHEME: &str = "urn:mpeg:mpegB:cicp:ChannelConfiguration";
/// The number of channels, for layouts that have no number of their own.
const CHANNEL_COUNT_SCHEME: &str = "urn:mpeg:dash:23003:3:audio_channel_configuration:2011";

/// The static MPD of a title, one period.
pub fn mpd(plan: &Plan, title: &Title) -> String {
    let start_us = title.start_us();
    let longest_s = title.tracks().map(Track::target_s).max().unwrap_or(1);
    let mut sets = Vec::new();
    sets.extend(video_set(plan, &title.video, start_us));
    sets.extend(audio_sets(title, start_us));
    let numbered = sets.into_iter().enumerate().map(|(i, set)| set(i));
    Element::new("MPD")
        .with("xmlns", NAMESPACE)
        .with("profiles", PROFILE)
        .with("type", "static")
        .with("mediaPresentationDuration", duration(title.end_us() - start_us))
        // Bandwidths are peaks over at most 1.5 of the longest segments: with that much buffered, playing never starves
        // (ISO/IEC 23009-1 5.3.5.4).
        .with("minBufferTime", duration(longest_s * 1_500_000))
        .holding([Element::new("Period").with("id", "0").with("start", "PT0S").holding(numbered)])
        .document()
}

/// An adaptation set that has yet to be told its number.
type Set<'a> = Box<dyn FnOnce(usize) -> Element + 'a>;

fn video_set<'a>(plan: &'a Plan, video: &'a [VideoTrack], start_us: i64) -> Option<Set<'a>> {
    let top = video.first()?;
    let rate = plan.video.as_ref().map(|v| v.frame_rate.reduced()).filter(|r| r.is_positive()).map(frame_rate);
    let (width, height) = display_size(&top.rung);
    let par = Rational::new(i64::from(width), i64::from(height)).reduced();
    let representation = move |v: &VideoTrack, rate: &Option<String>| {
        let sar = v.rung.sample_aspect.reduced();
        let attributes = representation(&v.track)
            .with("width", v.rung.width)
            .with("height", v.rung.height)
            .with_some("frameRate", rate.as_ref())
            .with("sar", format!("{}:{}", sar.num, sar.den));
        attributes.holding([segment_list(&v.track, start_us)])
    };
    let largest = |of: fn(&VideoTrack) -> u32| video.iter().map(of).max().unwrap_or(0);
    Some(Box::new(move |id| {
        Element::new("AdaptationSet")
            .with("id", id)
            .with("contentType", "video")
            .with("mimeType", "video/mp4")
            // The seams were checked: every rung has the same segment grid, and every segment starts with an IDR picture.
            .with("segmentAlignment", true)
            .with("startWithSAP", 1)
            .with("par", format!("{}:{}", par.num, par.den))
            .with("maxWidth", largest(|v| v.rung.width))
            .with("maxHeight", largest(|v| v.rung.height))
            .with_some("maxFrameRate", rate.as_ref())
            .holding(colour(&top.rung.colour))
            .holding([role("main")])
            .holding(video.iter().map(|v| representation(v, &rate)))
    }))
}

/// One adaptation set for each audio track of the source and layout, its qualities the representations.
fn audio_sets(title: &Title, start_us: i64) -> Vec<Set<'_>> {
    let default = groups(&title.audio).first().map(|g| g.tracks[g.default_index()].rendition.stream);
    let mut sets: Vec<Vec<&AudioTrack>> = Vec::new();
    let kind = |a: &AudioTrack| (a.rendition.stream, a.rendition.layout.clone());
    for track in &title.audio {
        match sets.iter_mut().find(|set| kind(set[0]) == kind(track)) {
            Some(set) => set.push(track),
            None => sets.push(vec![track]),
        }
    }
    let element = move |tracks: Vec<&AudioTrack>, id| {
        let rendition = &tracks[0].rendition;
        let main = Some(rendition.stream) == default;
        Element::new("AdaptationSet")
            .with("id", id)
            .with("contentType", "audio")
            .with("mimeType", "audio/mp4")
            .with_some("lang", language::tag(rendition.language.as_deref()))
            .with("segmentAlignment", aligned(&tracks))
            .with("startWithSAP", 1)
            .holding([Element::new("Label").with("id", 0).text(&rendition.label)])
            .holding([role(if main { "main" } else { "alternate" })])
            .holding(tracks.iter().map(|a| audio_representation(a, start_us)))
    };
    sets.into_iter().map(|tracks| Box::new(move |id| element(tracks, id)) as Set).collect()
}

fn audio_representation(audio: &AudioTrack, start_us: i64) -> Element {
    let (scheme, value) = channels(&audio.rendition);
    representation(&audio.track)
        .with("audioSamplingRate", audio.rendition.sample_rate)
        .holding([Element::new("AudioChannelConfiguration").with("schemeIdUri", scheme).with("value", value)])
        .holding([segment_list(&audio.track, start_us)])
}

fn representation(track: &Track) -> Element {
    Element::new("Representation").with("id", &track.name).with("bandwidth", track.peak_bps).with("codecs", &track.codecs)
}

/// SegmentList with its timeline (ISO/IEC 23009-1 5.3.9.3 and 5.3.9.6). Every segment has an S element of its own, even
/// where `@r` could repeat one: dash.js (5.2) finds the SegmentURL by counting S elements, not repeats.
fn segment_list(track: &Track, start_us: i64) -> Element {
    let offset = mul_div_round(start_us, i64::from(track.timescale), 1_000_000);
    let instants = track.segments.iter().map(shown);
    let timeline = instants.map(|(start, end)| Element::new("S").with("t", start).with("d", end - start));
    let timeline = Element::new("SegmentTimeline").holding(timeline);
    let url = |file: &String| Element::new("SegmentURL").with("media", file);
    Element::new("SegmentList")
        .with("timescale", track.timescale)
        .with_some("presentationTimeOffset", (offset != 0).then_some(offset))
        .holding([Element::new("Initialization").with("sourceURL", track.dash_init.as_ref().unwrap_or(&track.init)), timeline])
        .holding(track.segments.iter().map(|s| url(&s.file)))
}

/// H.273 code points of HDR video (ISO/IEC 23009-1 5.8.5.17). PQ looks wrong on a display that does not know it, so there a
/// player must understand them; HLG was made to be seen on such a display too, so there it may (ETSI TS 103 285 5.2.4).
fn colour(colour: &OutputColour) -> Vec<Element> {
    let property = match colour.video_range.as_str() {
        "PQ" => "EssentialProperty",
        "HLG" => "SupplementalProperty",
        _ => return Vec::new(),
    };
    let primaries = match colour.primaries.as_str() {
        "bt709" => Some(1),
        "bt2020" => Some(9),
        "smpte431" => Some(11),
        "smpte432" => Some(12),
        _ => None,
    };
    let transfer = if colour.video_range == "PQ" { 16 } else { 18 };
    let matrix = match colour.matrix.as_str() {
        "bt709" => Some(1),
        "bt2020nc" => Some(9),
        "bt2020c" => Some(10),
        "ictcp" => Some(14),
        _ => None,
    };
    let points = [
        ("urn:mpeg:mpegB:cicp:ColourPrimaries", primaries),
        ("urn:mpeg:mpegB:cicp:TransferCharacteristics", Some(transfer)),
        ("urn:mpeg:mpegB:cicp:MatrixCoefficients", matrix),
    ];
    let known = points.into_iter().filter_map(|(scheme, value)| Some((scheme, value?)));
    known.map(|(scheme, value)| Element::new(property).with("schemeIdUri", scheme).with("value", value)).collect()
}

/// ISO/IEC 23091-3 table 6: the number of a channel layout.
fn channels(rendition: &AudioPlan) -> (&'static str, u32) {
    let number = match rendition.layout.as_str() {
        "mono" => 1,
        "stereo" => 2,
        "3.0" => 3,
        "4.0" => 4,
        "5.0" | "5.0(side)" => 5,
        "5.1" | "5.1(side)" => 6,
        "7.1(wide)" | "7.1(wide-side)" => 7,
        "3.0(back)" => 9,
        "quad" | "quad(side)" => 10,
        "6.1" | "6.1(back)" => 11,
        "7.1" => 12,
        _ => return (CHANNEL_COUNT_SCHEME, rendition.channels),
    };
    (CHANNEL_SCHEME, number)
}

/// All representations have the same segment grid, so that a player may change between them at any segment.
fn aligned(tracks: &[&AudioTrack]) -> bool {
    let grid = |a: &AudioTrack| a.track.spans_us().collect::<Vec<_>>();
    tracks.windows(2).all(|pair| grid(pair[0]) == grid(pair[1]))
}

fn role(value: &str) -> Element {
    Element::new("Role").with("schemeIdUri", ROLE_SCHEME).with("value", value)
}

fn frame_rate(rate: Rational) -> String {
    if rate.den == 1 { rate.num.to_string() } else { format!("{}/{}", rate.num, rate.den) }
}

/// Microseconds as `xs:duration`.
fn duration(us: i64) -> String {
    let fraction = format!("{:06}", us % 1_000_000);
    match fraction.trim_end_matches('0') {
        "" => format!("PT{}S", us / 1_000_000),
        digits => format!("PT{}.{digits}S", us / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use quick_xml::Reader;
    use quick_xml::events::Event;

    /// Every element with its attributes unescaped, or a panic when the text is not well formed.
    fn elements(text: &str) -> Vec<(String, Vec<(String, String)>)> {
        let mut reader = Reader::from_str(text);
        let mut found = Vec::new();
        loop {
            match reader.read_event().expect("well-formed XML") {
                Event::Start(e) | Event::Empty(e) => {
                    let attribute = |a: quick_xml::events::attributes::Attribute| {
                        (a.key.as_ref().to_string(), quick_xml::escape::unescape(&a.value).unwrap().into_owned())
                    };
                    let attributes = e.attributes().map(|a| attribute(a.expect("a well-formed attribute"))).collect();
                    found.push((e.name().as_ref().to_string(), attributes));
                }
                Event::Eof => return found,
                _ => {}
            }
        }
    }

    #[test]
    fn a_whole_manifest() {
        let (plan, mut title) = fixture::plan_and_title();
        title.video.truncate(1);
        title.audio.truncate(1);
        let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-main:2011" type="static" mediaPresentationDuration="PT10S" minBufferTime="PT6S">
  <Period id="0" start="PT0S">
    <AdaptationSet id="0" contentType="video" mimeType="video/mp4" segmentAlignment="true" startWithSAP="1" par="16:9" maxWidth="1920" maxHeight="1080" maxFrameRate="25">
      <Role schemeIdUri="urn:mpeg:dash:role:2011" value="main"/>
      <Representation id="1080p" bandwidth="5000000" codecs="avc1.640028" width="1920" height="1080" frameRate="25" sar="1:1">
        <SegmentList timescale="10000">
          <Initialization sourceURL="1080p/init.mp4"/>
          <SegmentTimeline>
            <S t="0" d="40000"/>
            <S t="40000" d="40000"/>
            <S t="80000" d="20000"/>
          </SegmentTimeline>
          <SegmentURL media="1080p/00000.m4s"/>
          <SegmentURL media="1080p/00001.m4s"/>
          <SegmentURL media="1080p/00002.m4s"/>
        </SegmentList>
      </Representation>
    </AdaptationSet>
    <AdaptationSet id="1" contentType="audio" mimeType="audio/mp4" lang="en" segmentAlignment="true" startWithSAP="1">
      <Label id="0">English</Label>
      <Role schemeIdUri="urn:mpeg:dash:role:2011" value="main"/>
      <Representation id="audio-0-128k" bandwidth="128000" codecs="mp4a.40.2" audioSamplingRate="48000">
        <AudioChannelConfiguration schemeIdUri="urn:mpeg:mpegB:cicp:ChannelConfiguration" value="2"/>
        <SegmentList timescale="48000">
          <Initialization sourceURL="audio-0-128k/init.mp4"/>
          <SegmentTimeline>
            <S t="0" d="192000"/>
            <S t="192000" d="192000"/>
            <S t="384000" d="96000"/>
          </SegmentTimeline>
          <SegmentURL media="audio-0-128k/00000.m4s"/>
          <SegmentURL media="audio-0-128k/00001.m4s"/>
          <SegmentURL media="audio-0-128k/00002.m4s"/>
        </SegmentList>
      </Representation>
    </AdaptationSet>
  </Period>
</MPD>
"#;
        assert_eq!(mpd(&plan, &title), expected);
    }

    #[test]
    fn every_audio_track_is_a_set_and_its_qualities_are_representations() {
        let (plan, title) = fixture::plan_and_title();
        let text = mpd(&plan, &title);
        let of = |name: &str, key: &str| {
            let found = elements(&text).into_iter().filter(|(n, _)| n == name);
            found.filter_map(|(_, a)| a.into_iter().find(|(k, _)| k == key).map(|(_, v)| v)).collect::<Vec<_>>()
        };
        assert_eq!(of("AdaptationSet", "contentType"), ["video", "audio", "audio"]);
        assert_eq!(of("AdaptationSet", "lang"), ["en", "de"]);
        let ids = ["1080p", "360p", "audio-0-128k", "audio-0-64k", "audio-1-128k", "audio-1-64k"];
        assert_eq!(of("Representation", "id"), ids);
        assert_eq!(of("Role", "value"), ["main", "main", "alternate"]);
        assert!(text.contains("<Label id=\"0\">Director&apos;s &quot;cut&quot; &amp; more</Label>"), "{text}");
    }

    #[test]
    fn hdr_is_signalled_in_code_points() {
        let (plan, mut title) = fixture::plan_and_title();
        let colour = |range: &str| OutputColour {
            primaries: "bt2020".into(),
            transfer: "smpte2084".into(),
            matrix: "bt2020nc".into(),
            video_range: range.into(),
        };
        let of = |title: &Title, property: &str| {
            let found = elements(&mpd(&plan, title)).into_iter().filter(|(name, _)| name == property);
            found.map(|(_, a)| a[1].1.clone()).collect::<Vec<_>>()
        };
        assert_eq!((of(&title, "EssentialProperty").len(), of(&title, "SupplementalProperty").len()), (0, 0));
        title.video[0].rung.colour = colour("PQ");
        assert_eq!(of(&title, "EssentialProperty"), ["9", "16", "9"]);
        title.video[0].rung.colour = colour("HLG");
        assert_eq!(of(&title, "SupplementalProperty"), ["9", "18", "9"]);
    }

    #[test]
    fn a_title_that_starts_late_starts_its_period_then() {
        let (plan, mut title) = fixture::plan_and_title();
        title.audio.truncate(1);
        for segment in &mut title.video[0].track.segments {
            segment.time += 20_000;
        }
        let only_audio_at_zero = mpd(&plan, &title);
        assert!(!only_audio_at_zero.contains("presentationTimeOffset"));
        title.audio.clear();
        title.video.truncate(1);
        let late = mpd(&plan, &title);
        assert!(late.contains("presentationTimeOffset=\"20000\"") && late.contains("<S t=\"20000\" d=\"40000\"/>"));
        assert!(late.contains("mediaPresentationDuration=\"PT10S\""), "{late}");
    }

    #[test]
    fn durations_and_rates_are_exact() {
        assert_eq!(duration(20_083_333), "PT20.083333S");
        assert_eq!(duration(500_000), "PT0.5S");
        assert_eq!(duration(36_000_000_000), "PT36000S");
        assert_eq!(frame_rate(Rational::new(30_000, 1001)), "30000/1001");
    }
}
