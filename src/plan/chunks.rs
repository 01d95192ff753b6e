//! The chunk grid and the segment grid: presentation times at which the title is cut.
//!
//! Intervals are half-open: a chunk holds the frames whose presentation time is in `[start, end)`. A cut at a
//! keyframe is exactly the keyframe's time. Every other cut lies half a frame before the frame it is meant for,
//! so that a timestamp rounded to milliseconds never falls on the wrong side of it; a quarter of a frame where
//! fields may become frames, for then half a frame is where the second field stands.

use super::Chunk;
use super::preset::{ASSUMED_RATE, ChunkRules, Grid};
use super::time::{Rational, mul_div_round, seconds, ticks_of_seconds};
use crate::probe::{Clock, Interlace, VideoStream};

/// A title under so many times the shortest chunk is one chunk.
const ONE_CHUNK_RATIO: f64 = 1.5;
/// Times nearer than this are the same, seconds.
const SAME_SECONDS: f64 = 1e-6;
/// Frame rates that are believed, frames a second.
const USABLE_RATES: std::ops::RangeInclusive<f64> = 0.001..=10_000.0;
/// Most chunks of one title where the preset counts them in frames; the last one takes the rest.
const MOST_CHUNKS: usize = 1_000_000;
/// With one GOP a chunk: GOPs shorter than this are merged, seconds.
const SHORTEST_GOP_S: f64 = 0.2;

/// Cuts a title into chunks, and those into segments of about `segment_s` seconds.
///
/// The chunks tile the title: the first begins with the first frame there is, the last ends with the last.
pub fn grid(stream: &VideoStream, rules: &ChunkRules, segment_s: f64) -> Vec<Chunk> {
    let title = Title::new(stream, rules);
    if !title.trusted {
        return chunks(&title, stream, &[title.first_cut()], &|_, _| every_segment(&title, segment_s));
    }
    let even = |from: &Cut, to: i64| even_segments(&title, from, to, segment_s);
    match rules.grid {
        Grid::Keyframes => chunks(&title, stream, &by_keyframes(&title, rules), &even),
        Grid::Gop => chunks(&title, stream, &by_gop(&title), &even),
        Grid::Frames => {
            let frames = i64::from(rules.frames.unwrap_or(1).max(1));
            chunks(&title, stream, &by_frames(&title, frames), &even)
        }
        Grid::Fixed => {
            let segment = title.frames_of(title.ticks(segment_s)).max(1);
            let cuts = by_fixed_segments(&title, segment, rules.target_s);
            chunks(&title, stream, &cuts, &|from, to| fixed_segments(&title, from, to, segment))
        }
    }
}

/// The stream's frame rate, or the one assumed where it states none or an absurd one.
pub fn usable_rate(stream: &VideoStream) -> Rational {
    let rate = stream.frame_rate.reduced();
    let usable = rate.is_positive() && USABLE_RATES.contains(&rate.as_f64()) && rate.num.max(rate.den) <= i64::from(i32::MAX);
    if usable { rate } else { ASSUMED_RATE }
}

/// Where a chunk begins.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// The boundary itself, source ticks.
    start: i64,
    /// Nominal time of the first frame, source ticks: segments are counted from here.
    nominal: i64,
}

/// The title's clock: its ends, and its frames as ticks.
pub(super) struct Title {
    pub(super) first: i64,
    pub(super) end: i64,
    base: Rational,
    trusted: bool,
    /// Ticks a frame, `num / den`. One tick where frames do not last equally long: then any tick is as good as another.
    frame: Rational,
    /// A cut lies one part in so many of a frame before its frame.
    early: i64,
    /// Presentation times of the keyframes after the first frame, ascending, with their place in decode order.
    keyframes: Vec<(i64, usize)>,
}

impl Title {
    pub(super) fn new(stream: &VideoStream, rules: &ChunkRules) -> Self {
        let base = if stream.time_base.is_positive() { stream.time_base.reduced() } else { Rational::new(1, 1000) };
        let rate = usable_rate(stream);
        let trusted = stream.clock == Clock::Trusted;
        let by_frames = stream.constant_rate || rules.grid == Grid::Frames || !trusted;
        let ticks = base.den.checked_mul(rate.den).zip(base.num.checked_mul(rate.num)).map(|(num, den)| Rational::new(num, den));
        let frame = ticks.filter(|t| by_frames && t.num >= t.den).unwrap_or(Rational::new(1, 1)).reduced();
        let first = stream.first_pts;
        let end = if trusted {
            stream.end_pts.max(stream.last_pts.saturating_add(1))
        } else {
            let packets = i64::try_from(stream.packets).unwrap_or(i64::MAX / 2);
            first.saturating_add(mul_div_round(packets.min(i64::from(u32::MAX)), frame.num, frame.den))
        };
        let mut keyframes: Vec<(i64, usize)> = stream
            .keyframes
            .iter()
            .enumerate()
            .map(|(n, k)| (k.pts, n))
            .filter(|(pts, _)| (first + 1..end).contains(pts))
            .collect();
        keyframes.sort_unstable();
        keyframes.dedup_by_key(|(pts, _)| *pts);
        let early = if stream.interlace == Interlace::Progressive { 2 } else { 4 };
        Self { first, end: end.max(first + 1), base, trusted, frame, early, keyframes }
    }

    pub(super) fn ticks(&self, seconds: f64) -> i64 {
        ticks_of_seconds(seconds, self.base).max(1)
    }

    /// Whole frames in so many ticks.
    pub(super) fn frames_of(&self, ticks: i64) -> i64 {
        mul_div_round(ticks, self.frame.den, self.frame.num)
    }

    /// The most whole frames that last no longer than so many seconds, and the fewest that last no shorter.
    pub(super) fn frames_within(&self, seconds: f64) -> (i64, i64) {
        let near = self.frames_of(self.ticks(seconds));
        let lasts = near as f64 * self.frame.as_f64() * self.base.as_f64();
        (near - i64::from(lasts > seconds + SAME_SECONDS), near + i64::from(lasts < seconds - SAME_SECONDS))
    }

    /// Frames that begin before so many ticks have passed: the place of the frame right after a boundary.
    pub(super) fn frames_before(&self, ticks: i64) -> i64 {
        let (num, den) = (i128::from(self.frame.num), i128::from(self.frame.den));
        i64::try_from((i128::from(ticks) * den + num - 1).div_euclid(num)).expect("a time fits 64 bits")
    }

    /// How long so many frames last, seconds: for people.
    pub(super) fn seconds_of(&self, frames: i64) -> f64 {
        seconds(mul_div_round(frames, self.frame.num, self.frame.den), self.base)
    }

    /// All frames of the title.
    fn frames(&self) -> i64 {
        self.frames_of(self.end - self.first).max(1)
    }

    fn first_cut(&self) -> Cut {
        Cut { start: self.first, nominal: self.first }
    }

    /// Nominal time of the first frame after a chunk's boundary, as the grid made it: a keyframe, or shortly before a frame.
    pub(super) fn nominal(&self, boundary: i64) -> i64 {
        if self.keyframes.binary_search_by_key(&boundary, |(pts, _)| *pts).is_ok() {
            return boundary;
        }
        let near = self.frames_of(boundary - self.first);
        let cuts = (near.max(1)..=near + 1).map(|frame| self.cut_at_frame(frame));
        cuts.into_iter().find(|cut| cut.start == boundary).map_or(boundary, |cut| cut.nominal)
    }

    /// Shortly before the frame `frame` frames after `nominal`; at it where frames last less than two ticks, as nothing is surely
    /// between two times that were rounded.
    pub(super) fn boundary(&self, nominal: i64, frame: i64) -> i64 {
        if self.frame.num < self.frame.den * 2 {
            return nominal + mul_div_round(frame, self.frame.num, self.frame.den);
        }
        nominal + mul_div_round(self.early * frame - 1, self.frame.num, self.early * self.frame.den)
    }

    /// The cut before a frame counted from the title's first.
    fn cut_at_frame(&self, frame: i64) -> Cut {
        if frame <= 0 {
            return self.first_cut();
        }
        let nominal = self.first + mul_div_round(frame, self.frame.num, self.frame.den);
        Cut { start: self.boundary(self.first, frame), nominal }
    }

    /// How many chunks `ticks` are best cut into.
    fn count(&self, ticks: i64, rules: &ChunkRules) -> i64 {
        let (shortest, longest) = (self.ticks(rules.shortest_s), self.ticks(rules.longest_s));
        let wanted = mul_div_round(ticks, 1, self.ticks(rules.target_s));
        let least = ticks.div_euclid(longest) + i64::from(ticks % longest != 0);
        wanted.min(ticks / shortest).max(least).max(1)
    }
}

/// Cuts at keyframes of the source where one lies in reach of the wanted length, else anywhere.
fn by_keyframes(title: &Title, rules: &ChunkRules) -> Vec<Cut> {
    let (shortest, longest) = (title.ticks(rules.shortest_s), title.ticks(rules.longest_s));
    let mut cuts = vec![title.first_cut()];
    if ((title.end - title.first) as f64) < ONE_CHUNK_RATIO * shortest as f64 {
        return cuts;
    }
    let mut at = title.first;
    loop {
        let rest = title.end - at;
        let count = title.count(rest, rules);
        if count == 1 {
            return cuts;
        }
        let ideal = at + mul_div_round(rest, 1, count);
        // The last chunk is no shorter than the rest.
        let reach = at + shortest..=(at + longest).min(title.end - shortest);
        let cut = match nearest(&title.keyframes, ideal, reach) {
            Some(pts) => Cut { start: pts, nominal: pts },
            None => title.cut_at_frame(title.frames_of(ideal - title.first)),
        };
        if cut.start <= at {
            return cuts;
        }
        cuts.push(cut);
        at = cut.start;
    }
}

/// The keyframe nearest to `ideal` within `reach`.
fn nearest(keyframes: &[(i64, usize)], ideal: i64, reach: std::ops::RangeInclusive<i64>) -> Option<i64> {
    let after = keyframes.partition_point(|(pts, _)| *pts < ideal);
    let neighbours = [after.checked_sub(1), Some(after)];
    let candidates = neighbours.into_iter().flatten().filter_map(|n| keyframes.get(n)).map(|(pts, _)| *pts);
    candidates.filter(|pts| reach.contains(pts)).min_by_key(|pts| (pts - ideal).abs())
}

/// A chunk for every GOP of the source, very short ones merged.
fn by_gop(title: &Title) -> Vec<Cut> {
    let shortest = title.ticks(SHORTEST_GOP_S);
    let mut cuts = vec![title.first_cut()];
    let mut at = title.first;
    for (pts, _) in &title.keyframes {
        if pts - at >= shortest && title.end - pts >= shortest {
            cuts.push(Cut { start: *pts, nominal: *pts });
            at = *pts;
        }
    }
    cuts
}

fn by_frames(title: &Title, frames: i64) -> Vec<Cut> {
    let step = usize::try_from(frames).unwrap_or(usize::MAX);
    (0..title.frames()).step_by(step).take(MOST_CHUNKS).map(|frame| title.cut_at_frame(frame)).collect()
}

/// Chunks of a whole number of equal segments; a last one under half of that belongs to the one before.
fn by_fixed_segments(title: &Title, segment: i64, target_s: f64) -> Vec<Cut> {
    let frames = mul_div_round(title.frames_of(title.ticks(target_s)), 1, segment).max(1) * segment;
    let mut cuts = by_frames(title, frames);
    let last = title.frames() - (cuts.len() as i64 - 1) * frames;
    if cuts.len() > 1 && last < frames / 2 {
        cuts.pop();
    }
    cuts
}

/// Even division of a chunk that begins at `from` and whose successor's first frame is at `to`.
fn even_segments(title: &Title, from: &Cut, to: i64, segment_s: f64) -> Vec<i64> {
    let frames = title.frames_of(to - from.nominal).max(1);
    let count = mul_div_round(to - from.nominal, 1, title.ticks(segment_s)).clamp(1, frames);
    let later = (1..count).map(|n| title.boundary(from.nominal, mul_div_round(n, frames, count)));
    std::iter::once(from.start).chain(later).collect()
}

fn fixed_segments(title: &Title, from: &Cut, to: i64, segment: i64) -> Vec<i64> {
    let (first, end) = (title.frames_of(from.nominal - title.first), title.frames_of(to - title.first));
    // A last one under half a segment belongs to the one before: players stumble over crumbs.
    let later =
        (first..end).step_by(usize::try_from(segment).unwrap_or(usize::MAX)).skip(1).filter(|frame| end - frame >= segment / 2);
    std::iter::once(from.start).chain(later.map(|frame| title.boundary(title.first, frame))).collect()
}

/// Nominal segments of a title that is put on a clean clock: every so many frames from its first.
fn every_segment(title: &Title, segment_s: f64) -> Vec<i64> {
    let segment = title.frames_of(title.ticks(segment_s)).max(1);
    // The last segment takes what is less than half of one.
    let count = mul_div_round(title.frames(), 1, segment).max(1);
    let later = (1..count).map(|n| title.boundary(title.first, n * segment));
    std::iter::once(title.first).chain(later).collect()
}

/// Numbers the chunks and gives each its segments and its keyframe.
fn chunks(title: &Title, stream: &VideoStream, cuts: &[Cut], segments: &dyn Fn(&Cut, i64) -> Vec<i64>) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::with_capacity(cuts.len());
    let mut first_segment = 0;
    for (n, cut) in cuts.iter().enumerate() {
        let next = cuts.get(n + 1);
        let segments = segments(cut, next.map_or(title.end, |next| next.nominal));
        let count = segments.len() as u32;
        chunks.push(Chunk {
            index: n as u32,
            start: (n > 0).then_some(cut.start),
            end: next.map(|next| next.start),
            first_segment,
            segments,
            keyframe: if n == 0 { 0 } else { last_keyframe(title, stream, cut.start) },
        });
        first_segment += count;
    }
    chunks
}

/// Place in decode order of the last keyframe shown at or before `start`.
fn last_keyframe(title: &Title, stream: &VideoStream, start: i64) -> usize {
    let after = title.keyframes.partition_point(|(pts, _)| *pts <= start);
    match after.checked_sub(1) {
        Some(n) => title.keyframes[n].1,
        None => {
            let early = stream.keyframes.iter().enumerate().take_while(|(_, k)| k.pts <= title.first);
            early.last().map_or(0, |(n, _)| n)
        }
    }
}

#[cfg(test)]
mod tests;
