//! What the `ffmpeg` program decodes, frame by frame, and whether two decodes are the same.
//!
//! It stands outside narrows on purpose: the proof of exactness uses none of the code that is proved.

#![allow(dead_code, reason = "every test binary uses another part of it")]

use std::fmt;
use std::path::Path;
use std::process::Command;

/// One linear decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    /// Seconds a tick lasts, as a ratio.
    pub time_base: (i64, i64),
    pub frames: Vec<Frame>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Presentation time, ticks.
    pub pts: i64,
    /// MD5 of the pixels.
    pub pixels: String,
}

/// How the picture of a stream is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Index of the stream in its container.
    pub stream: usize,
    /// As shown: after the rotation that the container asks for, which ffmpeg applies when it decodes.
    pub width: u32,
    pub height: u32,
    pub pixel_format: String,
}

/// The first way in which two decodes differ.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    Count {
        source: usize,
        output: usize,
    },
    Pixels {
        frame: usize,
    },
    /// Against the first frame, in source ticks.
    Time {
        frame: usize,
        source: i64,
        output: f64,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Count { source, output } => write!(f, "{output} frames instead of {source}"),
            Difference::Pixels { frame } => write!(f, "frame {frame} has other pixels"),
            Difference::Time { frame, source, output } => {
                write!(f, "frame {frame} is shown at source tick {output}, not {source}")
            }
        }
    }
}

impl Frames {
    /// Decodes one video stream from beginning to end.
    ///
    /// `pixel_format` is the one to compare in; `filters` an ffmpeg filter graph, empty for none. Timestamps are the
    /// stream's own: no rounding to a frame rate, no correction of jumps.
    ///
    /// # Panics
    /// ffmpeg could not be run, or said that something is wrong while decoding.
    pub fn decode(file: &Path, stream: usize, pixel_format: &str, filters: &str) -> Self {
        let mut command = Command::new("ffmpeg");
        // One thread: several conceal damage differently, by their number.
        command.args(["-hide_banner", "-loglevel", "error", "-nostdin", "-threads", "1", "-copyts", "-i"]).arg(file);
        command.args(["-map", &format!("0:{stream}"), "-fps_mode", "passthrough", "-enc_time_base", "-1"]);
        if !filters.is_empty() {
            command.args(["-vf", filters]);
        }
        command.args(["-pix_fmt", pixel_format, "-f", "framemd5", "-"]);
        let output = command.output().expect("the ffmpeg program is installed (make setup)");
        assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
        Self::parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// Reads ffmpeg's `framemd5` listing: `stream, dts, pts, duration, bytes, md5`.
    pub fn parse(listing: &str) -> Self {
        let base = listing.lines().find_map(|l| l.strip_prefix("#tb 0: ")).unwrap_or("1/1");
        let (num, den) = base.split_once('/').expect("a time base is a ratio");
        let frame = |line: &str| {
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            Frame { pts: cells[2].parse().expect("a pts is an integer"), pixels: cells[5].to_string() }
        };
        let frames = listing.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).map(frame).collect();
        Self { time_base: (num.parse().unwrap(), den.trim().parse().unwrap()), frames }
    }

    /// How many different pictures there are: a comparison of equal frames proves nothing.
    pub fn different(&self) -> usize {
        self.frames.iter().map(|f| &f.pixels).collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Same count, same pixels in the same order, and the same times to within a tick of the source, both counted from
    /// the first frame. Times are compared as ratios: `|a * ta - b * tb| <= ta` without a division.
    ///
    /// # Errors
    /// The first difference.
    pub fn same_as_source(&self, source: &Frames) -> Result<(), Difference> {
        let (count, wanted) = (self.frames.len(), source.frames.len());
        if let Some(frame) = (0..count.min(wanted)).find(|&i| self.frames[i].pixels != source.frames[i].pixels) {
            return Err(Difference::Pixels { frame });
        }
        if count != wanted {
            return Err(Difference::Count { source: wanted, output: count });
        }
        let wide = |(num, den): (i64, i64)| (i128::from(num), i128::from(den));
        let ((source_num, source_den), (num, den)) = (wide(source.time_base), wide(self.time_base));
        for frame in 1..count {
            let source_ticks = source.frames[frame].pts - source.frames[0].pts;
            let ticks = self.frames[frame].pts - self.frames[0].pts;
            let apart = i128::from(source_ticks) * source_num * den - i128::from(ticks) * num * source_den;
            if apart.abs() > source_num * den {
                let output = ticks as f64 * (num * source_den) as f64 / (den * source_num) as f64;
                return Err(Difference::Time { frame, source: source_ticks, output });
            }
        }
        Ok(())
    }
}

/// The video streams that show moving pictures, in the order of the container.
///
/// # Panics
/// ffprobe cannot open the file.
pub fn pictures(file: &Path) -> Vec<Picture> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-select_streams", "V", "-of", "json", "-show_entries"]);
    command.arg("stream=index,width,height,pix_fmt:stream_side_data=rotation").arg(file);
    let output = command.output().expect("the ffprobe program is installed (make setup)");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("ffprobe writes JSON");
    let number = |v: &serde_json::Value| v.as_u64().expect("a number");
    let picture = |s: &serde_json::Value| {
        let side = |d: &serde_json::Value| d["rotation"].as_i64().is_some_and(|r| r % 180 != 0);
        let turned = s["side_data_list"].as_array().is_some_and(|list| list.iter().any(side));
        let size = (u32::try_from(number(&s["width"])).unwrap(), u32::try_from(number(&s["height"])).unwrap());
        let (width, height) = if turned { (size.1, size.0) } else { size };
        let stream = usize::try_from(number(&s["index"])).unwrap();
        Picture { stream, width, height, pixel_format: s["pix_fmt"].as_str().unwrap_or("unknown").to_string() }
    };
    // A transport stream lists its streams twice, the second time under its program.
    found["streams"].as_array().expect("a list of streams").iter().map(picture).collect()
}
