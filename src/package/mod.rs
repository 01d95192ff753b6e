//! Packaging: the markers of a job in, the text of its playlists out.
//!
//! [`seams::join`] proves that the separately encoded chunks are one title, or refuses. What it gives is written as HLS by
//! [`hls`], as DASH by [`dash`], over the same segments. Pure text and checks: no media is read or copied here.

mod audio;
pub mod dash;
#[cfg(test)]
mod fixture;
pub mod hls;
pub mod language;
pub mod seams;
pub mod title;
mod xml;

pub use seams::{SeamError, join};
pub use title::{AudioTrack, Title, Track, VideoTrack};

use crate::plan::Plan;

/// Path of the HLS multivariant playlist under the output URI.
pub const MASTER_PATH: &str = "master.m3u8";
/// Path of the DASH manifest under the output URI.
pub const MPD_PATH: &str = "manifest.mpd";
/// Media type of a playlist (RFC 8216bis 4).
pub const HLS_TYPE: &str = "application/vnd.apple.mpegurl";
/// Media type of an MPD (ISO/IEC 23009-1 annex C).
pub const DASH_TYPE: &str = "application/dash+xml";

/// One text to be written under the output URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub path: String,
    pub content_type: &'static str,
    pub body: String,
}

/// One progressive MP4 to be copied together from segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progressive {
    /// Path under the output URI: `1080p.mp4`.
    pub file: String,
    /// For each track the paths of its init segment and its media segments, in order.
    pub tracks: Vec<Vec<String>>,
}

impl Progressive {
    /// The rendition whose video, or sound alone, it holds.
    pub fn rendition(&self) -> &str {
        self.file.strip_suffix(".mp4").unwrap_or(&self.file)
    }
}

/// Where the media playlist of a rendition stands under the output URI.
pub fn playlist_path(track: &Track) -> String {
    format!("{}/index.m3u8", track.name)
}

/// The manifests that the plan's packaging asks for, in the order in which they are to be written: whatever a manifest
/// names stands before it, and the multivariant playlist comes last.
pub fn manifests(plan: &Plan, title: &Title) -> Vec<Document> {
    let mut documents = Vec::new();
    if plan.packaging.hls {
        documents.extend(title.tracks().map(|track| Document {
            path: playlist_path(track),
            content_type: HLS_TYPE,
            body: hls::media(track),
        }));
    }
    if plan.packaging.dash {
        documents.push(Document { path: MPD_PATH.into(), content_type: DASH_TYPE, body: dash::mpd(plan, title) });
    }
    if plan.packaging.hls {
        documents.push(Document { path: MASTER_PATH.into(), content_type: HLS_TYPE, body: hls::master(plan, title) });
    }
    documents
}

/// The progressive files that the plan's packaging asks for: one for each video rendition, with every audio track in its
/// best quality, the default one first; for an audio-only title one for each audio rendition.
pub fn progressive(plan: &Plan, title: &Title) -> Vec<Progressive> {
    if !plan.packaging.mp4 {
        return Vec::new();
    }
    let file = |track: &Track| format!("{}.mp4", track.name);
    if title.video.is_empty() {
        let alone = |audio: &AudioTrack| Progressive { file: file(&audio.track), tracks: vec![audio.track.paths()] };
        return title.audio.iter().map(alone).collect();
    }
    let groups = audio::groups(&title.audio);
    let best = groups.first().map(audio::Group::default_first).unwrap_or_default();
    let with_audio = |video: &VideoTrack| Progressive {
        file: file(&video.track),
        tracks: std::iter::once(&video.track).chain(best.iter().map(|a| &a.track)).map(Track::paths).collect(),
    };
    title.video.iter().map(with_audio).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(documents: &[Document]) -> Vec<&str> {
        documents.iter().map(|d| d.path.as_str()).collect()
    }

    #[test]
    fn the_master_playlist_is_written_after_all_that_it_names() {
        let (plan, title) = fixture::plan_and_title();
        let documents = manifests(&plan, &title);
        let expected = [
            "1080p/index.m3u8",
            "360p/index.m3u8",
            "audio-0-128k/index.m3u8",
            "audio-1-128k/index.m3u8",
            "audio-0-64k/index.m3u8",
            "audio-1-64k/index.m3u8",
            "manifest.mpd",
            "master.m3u8",
        ];
        assert_eq!(paths(&documents), expected);
    }

    #[test]
    fn a_rendition_is_measured_over_the_whole_title() {
        let (plan, title) = fixture::plan_and_title();
        let picture = title.measured(&plan, "1080p").unwrap();
        assert_eq!((picture.height, picture.frame_rate), (Some(1080), plan.video.as_ref().map(|video| video.frame_rate)));
        assert_eq!((picture.duration_ms, picture.bytes), (10_000, title.video[0].track.bytes));
        let sound = title.measured(&plan, "audio-0-128k").unwrap();
        assert_eq!((sound.width, sound.height, sound.frame_rate), (None, None, None));
        assert_eq!(title.measured(&plan, "720p"), None);
    }

    #[test]
    fn only_what_packaging_asks_for_is_made() {
        let (mut plan, title) = fixture::plan_and_title();
        plan.packaging.hls = false;
        assert_eq!(paths(&manifests(&plan, &title)), ["manifest.mpd"]);
        plan.packaging.dash = false;
        assert_eq!(manifests(&plan, &title), []);
        assert_eq!(progressive(&plan, &title), []);
    }

    #[test]
    fn a_progressive_file_holds_its_video_and_every_language_in_the_best_quality() {
        let (mut plan, mut title) = fixture::plan_and_title();
        plan.packaging.mp4 = true;
        let files = progressive(&plan, &title);
        assert_eq!(files.iter().map(|f| f.file.as_str()).collect::<Vec<_>>(), ["1080p.mp4", "360p.mp4"]);
        let small: Vec<_> = files[1].tracks.iter().map(|t| t[0].as_str()).collect();
        assert_eq!(small, ["360p/init.mp4", "audio-0-128k/init.mp4", "audio-1-128k/init.mp4"]);
        let video = ["360p/init.mp4", "360p/00000.m4s", "360p/00001.m4s", "360p/00002.m4s"];
        assert_eq!(files[1].tracks[0], video);
        title.video.clear();
        let names: Vec<_> = progressive(&plan, &title).into_iter().map(|f| (f.file, f.tracks.len())).collect();
        let one = |name: &str| (format!("{name}.mp4"), 1);
        assert_eq!(names, ["audio-0-128k", "audio-1-128k", "audio-0-64k", "audio-1-64k"].map(one));
    }
}
