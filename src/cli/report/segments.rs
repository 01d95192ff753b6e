//! The segments of a rung, as its playlist and the files beside it tell them. No media is read.

use crate::cli::measure::playlist;
use std::fs;
use std::path::{Path, PathBuf};

/// Largest playlist that is read, bytes: a day of segments of a second has a tenth of it.
const MOST_PLAYLIST_BYTES: u64 = 64 * 1024 * 1024;

/// The segments of one rung.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Track {
    pub init: PathBuf,
    pub segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Segment {
    pub path: PathBuf,
    /// Output seconds.
    pub start_s: f64,
    pub duration_s: f64,
    pub bytes: u64,
}

/// What lies in `folder` under the rung's name; none where that is not a whole rendition.
pub(super) fn track(folder: &Path, rung: &str) -> Option<Track> {
    // A name is one element of a path, whatever a report says.
    let is_plain = !rung.is_empty() && !rung.contains(['/', '\\', '\0']) && rung != "." && rung != "..";
    let folder = is_plain.then(|| folder.join(rung))?;
    let path = folder.join("index.m3u8");
    let known = fs::metadata(&path).ok().filter(|meta| meta.is_file() && meta.len() <= MOST_PLAYLIST_BYTES);
    let text = known.and_then(|_| fs::read_to_string(&path).ok())?;
    let (names, lengths) = (playlist::files(&text).ok()?, lengths(&text));
    let (init, segments) = names.split_first()?;
    if segments.len() != lengths.len() {
        return None;
    }
    let mut start_s = 0.0;
    let mut track = Track { init: folder.join(init), segments: Vec::with_capacity(segments.len()) };
    for (name, duration_s) in segments.iter().zip(lengths) {
        let path = folder.join(name);
        let bytes = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?.len();
        track.segments.push(Segment { path, start_s, duration_s, bytes });
        start_s += duration_s;
    }
    Some(track)
}

/// The durations that a playlist tells (RFC 8216 4.3.2.1), seconds.
fn lengths(playlist: &str) -> Vec<f64> {
    let told = playlist.lines().filter_map(|line| line.trim().strip_prefix("#EXTINF:")?.split(',').next()?.trim().parse().ok());
    told.filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_is_its_playlist_and_the_files_beside_it() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("720p");
        fs::create_dir(&folder).unwrap();
        let playlist = "#EXTM3U\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:4.0,\n0.m4s\n#EXTINF:2.5,\n1.m4s\n#EXT-X-ENDLIST\n";
        fs::write(folder.join("index.m3u8"), playlist).unwrap();
        fs::write(folder.join("0.m4s"), "12345").unwrap();
        assert_eq!(track(home.path(), "720p"), None, "a segment is missing");
        fs::write(folder.join("1.m4s"), "123").unwrap();
        let track_of = track(home.path(), "720p").unwrap();
        let told: Vec<_> = track_of.segments.iter().map(|s| (s.start_s, s.duration_s, s.bytes)).collect();
        assert_eq!(told, [(0.0, 4.0, 5), (4.0, 2.5, 3)]);
        assert_eq!(track_of.init, folder.join("init.mp4"));
        for elsewhere in ["", ".", "..", "../720p", "720p/", "540p"] {
            assert_eq!(track(home.path(), elsewhere), None, "{elsewhere}");
        }
    }
}
