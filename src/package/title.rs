//! A title whose chunks have been joined: its tracks, and what they measure.

use crate::event::RenditionMedia;
use crate::plan::time::{Rational, mul_div_round};
use crate::plan::{AudioPlan, Plan, Rung};
use crate::sandbox::protocol::{InitSegment, Segment};

/// Every track of one title, each from end to end.
#[derive(Clone, Debug, PartialEq)]
pub struct Title {
    /// In the plan's order, the largest first.
    pub video: Vec<VideoTrack>,
    /// In the plan's order.
    pub audio: Vec<AudioTrack>,
    /// What a person should know of the join, in plain sentences.
    pub notes: Vec<String>,
}

/// One rung over the whole title.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoTrack {
    pub rung: Rung,
    pub track: Track,
}

/// One audio rendition over the whole title.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioTrack {
    pub rendition: AudioPlan,
    pub track: Track,
}

/// The segments of one rendition and their rates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// Folder of the rendition under the output URI.
    pub name: String,
    /// Path of the init segment under the output URI.
    pub init: String,
    /// Path of the init segment that DASH has for its own, where there is one.
    pub dash_init: Option<String>,
    /// RFC 6381.
    pub codecs: String,
    /// Ticks a second.
    pub timescale: u32,
    /// Contiguous; paths are under the output URI. The first one may start before zero by the priming of an audio encoder.
    pub segments: Vec<Segment>,
    /// Video frames or audio access units.
    pub samples: u64,
    /// Init segment and media segments.
    pub bytes: u64,
    /// Average segment bit rate (RFC 8216bis 4.1): media segments over their duration, bits a second, rounded up.
    pub average_bps: u64,
    /// Peak segment bit rate (RFC 8216bis 4.1), bits a second, rounded up.
    pub peak_bps: u64,
}

impl Title {
    /// Every track, video first.
    pub fn tracks(&self) -> impl Iterator<Item = &Track> {
        self.video.iter().map(|v| &v.track).chain(self.audio.iter().map(|a| &a.track))
    }

    /// What the rendition of this name measures.
    pub fn measured(&self, plan: &Plan, name: &str) -> Option<RenditionMedia> {
        let track = self.tracks().find(|track| track.name == name)?;
        let video = self.video.iter().find(|video| video.track.name == name);
        Some(RenditionMedia {
            codecs: track.codecs.clone(),
            width: video.map(|video| video.rung.width),
            height: video.map(|video| video.rung.height),
            frame_rate: video.and(plan.video.as_ref()).map(|video| video.frame_rate),
            duration_ms: u64::try_from(track.micros(track.end() - track.start()) / 1000).unwrap_or(0),
            bytes: track.bytes,
            average_bps: track.average_bps,
        })
    }

    /// The earliest time shown by any track, microseconds.
    pub fn start_us(&self) -> i64 {
        self.tracks().map(|t| t.micros(t.start())).min().unwrap_or(0)
    }

    /// The latest time shown by any track, microseconds.
    pub fn end_us(&self) -> i64 {
        self.tracks().map(|t| t.micros(t.end())).max().unwrap_or(0)
    }
}

impl Track {
    /// A track of contiguous segments, measured.
    pub fn new(name: &str, init: &InitSegment, segments: Vec<Segment>) -> Self {
        let mut track = Self {
            name: name.into(),
            init: init.file.clone(),
            dash_init: None,
            codecs: init.codecs.clone(),
            timescale: init.timescale,
            samples: segments.iter().map(|s| s.samples).sum(),
            bytes: init.bytes + segments.iter().map(|s| s.bytes).sum::<u64>(),
            segments,
            average_bps: 0,
            peak_bps: 0,
        };
        let all = track.segments.iter().map(|s| s.bytes).sum();
        track.average_bps = track.rate(all, track.end() - track.start());
        track.peak_bps = track.peak();
        track
    }

    /// First time shown, ticks.
    pub fn start(&self) -> i64 {
        self.segments.first().map_or(0, |s| shown(s).0)
    }

    /// End of the last sample, ticks.
    pub fn end(&self) -> i64 {
        self.segments.last().map_or(0, |s| s.time + s.duration)
    }

    /// Ticks as microseconds, rounded to nearest.
    pub fn micros(&self, ticks: i64) -> i64 {
        mul_div_round(ticks, 1_000_000, i64::from(self.timescale.max(1)))
    }

    /// Start and end of every segment as it is shown, microseconds. Rounding the instants, not the lengths, keeps a long
    /// playlist from drifting.
    pub fn spans_us(&self) -> impl Iterator<Item = (i64, i64)> {
        self.segments.iter().map(|s| (self.micros(shown(s).0), self.micros(s.time + s.duration)))
    }

    /// The longest segment rounded to the nearest second, at least 1: EXT-X-TARGETDURATION (RFC 8216bis 4.4.3.1).
    pub fn target_s(&self) -> i64 {
        let longest = self.spans_us().map(|(start, end)| end - start).max().unwrap_or(0);
        mul_div_round(longest, 1, 1_000_000).max(1)
    }

    /// Paths of the init segment and the media segments, in order.
    pub fn paths(&self) -> Vec<String> {
        std::iter::once(&self.init).chain(self.segments.iter().map(|s| &s.file)).cloned().collect()
    }

    /// Bits a second of `bytes` in `ticks`, rounded up.
    fn rate(&self, bytes: u64, ticks: i64) -> u64 {
        let bits = u128::from(bytes) * 8 * u128::from(self.timescale);
        u64::try_from(bits.div_ceil(u128::from(ticks.max(1).unsigned_abs()))).unwrap_or(u64::MAX)
    }

    /// The largest rate of any contiguous segments that together last between 0.5 and 1.5 target durations
    /// (RFC 8216bis 4.1): a short last segment does not count alone.
    fn peak(&self) -> u64 {
        let target = self.target_s() * i64::from(self.timescale);
        let mut peak = None;
        for first in 0..self.segments.len() {
            let (mut bytes, mut ticks) = (0, 0);
            for segment in &self.segments[first..] {
                let (start, end) = shown(segment);
                bytes += segment.bytes;
                ticks += end - start;
                if ticks * 2 > target * 3 {
                    break;
                }
                if ticks * 2 >= target {
                    peak = peak.max(Some(self.rate(bytes, ticks)));
                }
            }
        }
        peak.unwrap_or(self.average_bps)
    }
}

/// Start and end of a segment as a player shows it, ticks: what lies before zero is encoder priming, which the edit list
/// of the init segment skips (ISO/IEC 14496-12 8.6.6).
pub fn shown(segment: &Segment) -> (i64, i64) {
    (segment.time.max(0), (segment.time + segment.duration).max(0))
}

/// Width and height at which a rung is meant to be seen, pixels: the sample aspect ratio is folded into the width.
pub fn display_size(rung: &Rung) -> (u32, u32) {
    let Rational { num, den } = rung.sample_aspect;
    if !rung.sample_aspect.is_positive() {
        return (rung.width, rung.height);
    }
    let width = mul_div_round(i64::from(rung.width), num, den);
    (u32::try_from(width).unwrap_or(rung.width), rung.height)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(segments: &[(i64, i64, u64)]) -> Track {
        let init = InitSegment { file: "v/init.mp4".into(), bytes: 100, codecs: "avc1.64001f".into(), timescale: 1000 };
        let segment = |(i, &(time, duration, bytes)): (usize, &(i64, i64, u64))| Segment {
            index: i as u32,
            file: format!("v/{i}.m4s"),
            bytes,
            time,
            duration,
            samples: 1,
        };
        Track::new("v", &init, segments.iter().enumerate().map(segment).collect())
    }

    #[test]
    fn rates_are_measured_over_the_windows_the_standard_names() {
        let t = track(&[(0, 4000, 4000), (4000, 4000, 2000), (8000, 500, 5000)]);
        // Alone the last segment runs at 80 kbit/s, but it lasts under half a target duration; with its neighbour it is
        // 7000 bytes in 4.5 s.
        assert_eq!(t.peak_bps, (7000u64 * 8 * 10).div_ceil(45));
        assert_eq!(t.average_bps, (11_000u64 * 8 * 10).div_ceil(85));
        assert_eq!((t.bytes, t.samples, t.target_s()), (11_100, 3, 4));
    }

    #[test]
    fn a_title_shorter_than_any_window_has_its_average_as_peak() {
        let t = track(&[(0, 300, 300)]);
        assert_eq!((t.average_bps, t.peak_bps, t.target_s()), (8000, 8000, 1));
    }

    #[test]
    fn priming_is_not_shown() {
        let t = track(&[(-20, 4020, 4000), (4000, 4000, 4000)]);
        assert_eq!(t.spans_us().collect::<Vec<_>>(), [(0, 4_000_000), (4_000_000, 8_000_000)]);
        assert_eq!((t.start(), t.end(), t.average_bps), (0, 8000, 8000));
    }
}
