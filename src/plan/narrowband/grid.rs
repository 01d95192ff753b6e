//! Segments placed on scene cuts: a key frame costs least where the picture changes anyway, and quality may step there.
//!
//! Chunks are fixed before anything was decoded; within each the segments are chosen anew. Of all divisions of a chunk
//! the best is found, in this order: the least time outside the limits of a segment's length, the most cuts (by their
//! strength) that begin a segment, the least deviation from the nominal length. The three add up over segments, so
//! dynamic programming over the cuts is exact; between two cuts that are used an even division deviates least.

use super::super::Chunk;
use super::super::chunks::Title;
use super::super::preset::ChunkRules;
use super::rounded;
use crate::probe::VideoStream;
use serde::{Deserialize, Serialize};

/// Strengths are counted in so many parts of the greatest.
const STRENGTH_PARTS: f64 = 1000.0;

/// How segments are placed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GridRules {
    pub mode: GridMode,
    /// Wanted, shortest and longest length of a segment, seconds.
    pub nominal_s: f64,
    pub shortest_s: f64,
    pub longest_s: f64,
    /// Weaker cuts are not looked at.
    pub least_strength: f64,
}

impl Default for GridRules {
    fn default() -> Self {
        Self { mode: GridMode::Snapped, nominal_s: 4.0, shortest_s: 2.0, longest_s: 6.0, least_strength: 0.1 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GridMode {
    /// Segments start on scene cuts where the limits allow.
    Snapped,
    /// Segments stay as the chunk grid made them, all equal where that grid is the fixed one.
    Fixed,
}

/// A scene cut as analysis found it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SceneCut {
    /// Presentation time of the first frame of the new scene, source ticks.
    pub at: i64,
    /// 0 to 1: how sure it is, or how hard.
    pub strength: f64,
}

/// The title's grid with its segments placed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnappedGrid {
    /// The chunks as they were, with their segments.
    pub chunks: Vec<Chunk>,
    /// For each chunk: its first frame begins a scene. The first chunk's does.
    pub starts_on_cut: Vec<bool>,
    /// Segments of the title that begin with a cut, and those that begin without one, starts of chunks among both.
    pub segments_on_cuts: usize,
    pub segments_off_cuts: usize,
    /// Segments whose length is outside the limits, or with a fixed grid not the nominal one.
    pub misfits: Vec<Misfit>,
}

/// A segment that could not be as it should.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Misfit {
    /// Counted over the title.
    pub segment: u32,
    pub seconds: f64,
    pub why: MisfitCause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MisfitCause {
    /// The chunk itself is shorter than a segment may be.
    ShortChunk,
    /// The chunk's length is no sum of lengths within the limits.
    NoDivision,
    /// With a fixed grid: the chunk is no whole number of segments.
    Remainder,
}

/// Lengths of a segment in frames.
#[derive(Clone, Copy, Debug)]
struct Limits {
    shortest: i64,
    longest: i64,
    nominal: i64,
}

impl Limits {
    /// Frames by which a segment is too short or too long.
    fn excess(&self, frames: i64) -> i64 {
        (self.shortest - frames).max(frames - self.longest).max(0)
    }
}

/// Places the segments of every chunk. Cuts may come in any order.
///
/// `chunks` are those of [`super::super::chunks::grid`] for the same stream and rules.
pub fn snap(stream: &VideoStream, rules: &ChunkRules, chunks: &[Chunk], cuts: &[SceneCut], grid: &GridRules) -> SnappedGrid {
    let title = Title::new(stream, rules);
    let limits = limits(&title, grid);
    let mut result = SnappedGrid {
        chunks: Vec::with_capacity(chunks.len()),
        starts_on_cut: Vec::with_capacity(chunks.len()),
        segments_on_cuts: 0,
        segments_off_cuts: 0,
        misfits: Vec::new(),
    };
    let mut first_segment = 0;
    for (n, chunk) in chunks.iter().enumerate() {
        let nominal = chunk.start.map_or(title.first, |start| title.nominal(start));
        let end = chunk.end.map_or(title.end, |end| title.nominal(end));
        let frames = title.frames_of(end - nominal).max(1);
        let cuts = cuts_of_chunk(&title, cuts, nominal, frames, grid.least_strength);
        let starts = match grid.mode {
            GridMode::Snapped => divide(frames, &cuts, &limits),
            GridMode::Fixed => {
                let later = chunk.segments.iter().skip(1).map(|start| title.frames_before(start - nominal));
                std::iter::once(0).chain(later).collect()
            }
        };
        let last_chunk = n + 1 == chunks.len();
        result.misfits.extend(misfits(&starts, frames, &limits, grid.mode, last_chunk).into_iter().map(
            |(place, length, why)| Misfit { segment: first_segment + place, seconds: rounded(title.seconds_of(length), 3), why },
        ));
        let on_cuts = starts.iter().filter(|start| cuts.iter().any(|cut| cut.frame == **start)).count();
        let begins = n == 0 || cuts.iter().any(|cut| cut.frame == 0);
        result.starts_on_cut.push(begins);
        result.segments_on_cuts += on_cuts;
        result.segments_off_cuts += starts.len() - on_cuts;
        let later = starts.iter().skip(1).map(|frame| title.boundary(nominal, *frame));
        let segments = match grid.mode {
            GridMode::Snapped => chunk.segments.first().copied().into_iter().chain(later).collect(),
            GridMode::Fixed => chunk.segments.clone(),
        };
        result.chunks.push(Chunk { first_segment, segments, ..chunk.clone() });
        first_segment += starts.len() as u32;
    }
    result
}

/// A cut within a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ChunkCut {
    /// Counted from the chunk's first frame.
    frame: i64,
    /// In whole parts, so that sums are exact.
    strength: i64,
}

/// What a division costs, the weightier first. Sums are compared as they stand: every part adds up over segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    /// Frames outside the limits.
    excess: i64,
    /// Strength of the cuts that begin a segment, negative.
    cuts: i64,
    /// Squares of the deviations from the nominal length, frames.
    deviation: i128,
}

impl Cost {
    fn plus(self, other: Self) -> Self {
        Self { excess: self.excess + other.excess, cuts: self.cuts + other.cuts, deviation: self.deviation + other.deviation }
    }
}

fn limits(title: &Title, grid: &GridRules) -> Limits {
    let shortest = title.frames_within(grid.shortest_s).1.max(1);
    let longest = title.frames_within(grid.longest_s).0.max(shortest);
    Limits { shortest, longest, nominal: title.frames_of(title.ticks(grid.nominal_s)).clamp(shortest, longest) }
}

/// The cuts of one chunk, ascending, the strongest of those at one frame.
fn cuts_of_chunk(title: &Title, cuts: &[SceneCut], nominal: i64, frames: i64, least_strength: f64) -> Vec<ChunkCut> {
    let strong = cuts.iter().filter(|cut| cut.strength >= least_strength);
    let mut found: Vec<ChunkCut> = strong
        .map(|cut| ChunkCut {
            frame: title.frames_of(cut.at.saturating_sub(nominal)),
            strength: ((cut.strength.min(1.0) * STRENGTH_PARTS).round() as i64).max(1),
        })
        .filter(|cut| (0..frames).contains(&cut.frame))
        .collect();
    found.sort_by_key(|cut| (cut.frame, -cut.strength));
    found.dedup_by_key(|cut| cut.frame);
    found
}

/// First frames of the segments of a chunk, the first of them 0: the best division there is.
fn divide(frames: i64, cuts: &[ChunkCut], limits: &Limits) -> Vec<i64> {
    let inner = cuts.iter().filter(|cut| (1..frames).contains(&cut.frame));
    let start = ChunkCut { frame: 0, strength: 0 };
    let end = ChunkCut { frame: frames, strength: 0 };
    let stations: Vec<ChunkCut> = std::iter::once(start).chain(inner.copied()).chain([end]).collect();
    // The least cost of reaching each station, from which one, and in how many segments.
    let mut best: Vec<(Cost, usize, i64)> = vec![(Cost { excess: 0, cuts: 0, deviation: 0 }, 0, 0)];
    for (to, station) in stations.iter().enumerate().skip(1) {
        let ways = (0..to).map(|from| {
            let (cost, segments) = stretch(station.frame - stations[from].frame, limits);
            let reward = Cost { excess: 0, cuts: -station.strength, deviation: 0 };
            (best[from].0.plus(cost).plus(reward), from, segments)
        });
        // Of equal ones the first: the longest stretch.
        let way = ways.min_by_key(|way| way.0).expect("every station comes after the first");
        best.push(way);
    }
    let mut starts = Vec::new();
    let mut to = stations.len() - 1;
    while to > 0 {
        let (_, from, segments) = best[to];
        let (begin, length) = (stations[from].frame, stations[to].frame - stations[from].frame);
        starts.extend((0..segments).rev().map(|n| begin + length * n / segments));
        to = from;
    }
    starts.reverse();
    starts
}

/// The best even division of so many frames: its cost, and the number of segments.
fn stretch(frames: i64, limits: &Limits) -> (Cost, i64) {
    let (fewest, most) = (frames / limits.longest, frames / limits.shortest);
    let near = frames / limits.nominal;
    // By the limits' excess the best number is next to one of the outer two, by deviation next to `near`.
    let numbers = [near, near + 1, fewest, fewest + 1, most, most + 1];
    let held = numbers.into_iter().map(|n| n.clamp(1, frames.max(1)));
    held.map(|segments| (even_cost(frames, segments, limits), segments)).min().expect("there are numbers to choose from")
}

fn even_cost(frames: i64, segments: i64, limits: &Limits) -> Cost {
    let (length, longer) = (frames / segments, frames % segments);
    let square = |length: i64| i128::from(length - limits.nominal) * i128::from(length - limits.nominal);
    Cost {
        excess: limits.excess(length) * (segments - longer) + limits.excess(length + 1) * longer,
        cuts: 0,
        deviation: square(length) * i128::from(segments - longer) + square(length + 1) * i128::from(longer),
    }
}

/// The segments of a chunk that are not as they should be: place in the chunk, frames, and why.
fn misfits(starts: &[i64], frames: i64, limits: &Limits, mode: GridMode, last_chunk: bool) -> Vec<(u32, i64, MisfitCause)> {
    let ends = starts.iter().skip(1).copied().chain([frames]);
    let lengths = starts.iter().zip(ends).map(|(start, end)| end - start);
    let cause = |place: usize, length: i64| match mode {
        GridMode::Fixed => {
            let last = last_chunk && place + 1 == starts.len();
            (length != limits.nominal && !last).then_some(MisfitCause::Remainder)
        }
        GridMode::Snapped if limits.excess(length) == 0 => None,
        GridMode::Snapped if frames < limits.shortest => Some(MisfitCause::ShortChunk),
        GridMode::Snapped => Some(MisfitCause::NoDivision),
    };
    lengths.enumerate().filter_map(|(n, length)| Some((n as u32, length, cause(n, length)?))).collect()
}

#[cfg(test)]
mod tests;
