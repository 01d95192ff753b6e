use super::super::super::chunks;
use super::super::super::preset::Grid;
use super::super::super::time::{Rational, mul_div_round};
use super::*;
use proptest::prelude::*;

/// A source of so many frames with keyframes at these.
fn source(frames: i64, keyframes: &[i64], base: Rational, rate: Rational) -> VideoStream {
    VideoStream::even(base, rate, 1_000, frames, keyframes)
}

/// 25 frames a second in 90 kHz ticks.
fn pal(frames: i64, keyframes: &[i64]) -> VideoStream {
    source(frames, keyframes, Rational::new(1, 90_000), Rational::new(25, 1))
}

fn cut(frame: i64, strength: f64) -> SceneCut {
    SceneCut { at: 1_000 + frame * 3_600, strength }
}

fn snapped(stream: &VideoStream, cuts: &[SceneCut]) -> SnappedGrid {
    let rules = ChunkRules::default();
    snap(stream, &rules, &chunks::grid(stream, &rules, 4.0), cuts, &GridRules::default())
}

/// The frames that segments begin with, of a source at 25 frames a second.
fn first_frames(grid: &SnappedGrid) -> Vec<i64> {
    let starts = grid.chunks.iter().flat_map(|chunk| &chunk.segments);
    starts.map(|start| (start - 1_000 + 3_599).div_euclid(3_600)).collect()
}

#[test]
fn segments_begin_on_cuts_and_divide_the_rest_evenly() {
    let stream = pal(400, &[0]);
    let grid = snapped(&stream, &[cut(120, 1.0), cut(310, 0.8), cut(310, 0.3), cut(345, 0.05), cut(20, 1.0)]);
    // Frame 20 is under two seconds from the start, 345 is too weak to count.
    assert_eq!(first_frames(&grid), [0, 120, 200, 310]);
    assert_eq!((grid.segments_on_cuts, grid.segments_off_cuts), (2, 2));
    assert_eq!(grid.misfits, []);
    assert_eq!(grid.starts_on_cut, [true, false]);
}

#[test]
fn a_boundary_lies_half_a_frame_before_its_cut_and_chunks_stay_where_they_were() {
    let stream = pal(400, &[0]);
    let rules = ChunkRules::default();
    let before = chunks::grid(&stream, &rules, 4.0);
    let grid = snap(&stream, &rules, &before, &[cut(120, 1.0)], &GridRules::default());
    assert_eq!(grid.chunks[0].segments[1], 1_000 + 120 * 3_600 - 1_800);
    for (old, new) in before.iter().zip(&grid.chunks) {
        assert_eq!((old.start, old.end, old.keyframe, old.segments[0]), (new.start, new.end, new.keyframe, new.segments[0]));
    }
    assert_eq!(grid.chunks[1].first_segment, grid.chunks[0].segments.len() as u32);
}

#[test]
fn of_cuts_that_exclude_each_other_the_stronger_is_taken() {
    let stream = pal(200, &[0]);
    assert_eq!(first_frames(&snapped(&stream, &[cut(90, 0.5), cut(110, 0.9)])), [0, 110]);
    assert_eq!(first_frames(&snapped(&stream, &[cut(90, 0.9), cut(110, 0.5)])), [0, 90]);
    // Two weak ones together outweigh one strong.
    assert_eq!(first_frames(&snapped(&stream, &[cut(60, 0.6), cut(100, 1.0), cut(140, 0.6)])), [0, 60, 140]);
}

#[test]
fn a_chunk_at_a_keyframe_on_a_cut_starts_on_it() {
    let stream = pal(400, &[0, 197]);
    let grid = snapped(&stream, &[cut(197, 0.7)]);
    assert_eq!((grid.starts_on_cut.clone(), first_frames(&grid)[2]), (vec![true, true], 197));
    assert_eq!(grid.segments_on_cuts, 1);
}

#[test]
fn a_chunk_that_is_too_short_is_one_segment_and_is_named() {
    let stream = pal(30, &[0]);
    let grid = snapped(&stream, &[cut(15, 1.0)]);
    assert_eq!(first_frames(&grid), [0]);
    assert_eq!(grid.misfits, [Misfit { segment: 0, seconds: 1.2, why: MisfitCause::ShortChunk }]);
}

#[test]
fn a_length_that_cannot_be_divided_within_the_limits_misses_them_by_least() {
    let limits = Limits { shortest: 100, longest: 150, nominal: 125 };
    // 180 is too long for one and too short for two: one is over by 30, two under by 20.
    assert_eq!(divide(180, &[], &limits), [0, 90]);
    assert_eq!(divide(160, &[], &limits), [0]);
    let named = misfits(&[0, 90], 180, &limits, GridMode::Snapped, true);
    assert_eq!(named, [(0, 90, MisfitCause::NoDivision), (1, 90, MisfitCause::NoDivision)]);
}

#[test]
fn limits_are_kept_to_the_frame_where_seconds_are_no_whole_frames() {
    let film = source(600, &[0], Rational::new(1001, 24_000), Rational::new(24_000, 1001));
    let title = Title::new(&film, &ChunkRules::default());
    let limits = limits(&title, &GridRules::default());
    // 47 frames last 1.96 s, 144 last 6.006 s.
    assert_eq!((limits.shortest, limits.longest, limits.nominal), (48, 143, 96));
}

#[test]
fn a_fixed_grid_is_left_as_it_is_and_its_remainders_are_named() {
    let stream = pal(480, &[0, 33, 71]);
    let rules = ChunkRules { grid: Grid::Fixed, ..ChunkRules::default() };
    let before = chunks::grid(&stream, &rules, 4.0);
    let fixed = GridRules { mode: GridMode::Fixed, ..GridRules::default() };
    let grid = snap(&stream, &rules, &before, &[cut(33, 1.0), cut(100, 1.0)], &fixed);
    assert_eq!(grid.chunks, before);
    assert_eq!(first_frames(&grid), [0, 100, 200, 300, 400]);
    assert_eq!((grid.misfits.len(), grid.segments_on_cuts), (0, 1), "the title's last may be short");
    let by_keyframes = ChunkRules::default();
    let before = chunks::grid(&stream, &by_keyframes, 4.0);
    let grid = snap(&stream, &by_keyframes, &before, &[], &fixed);
    assert!(grid.misfits.iter().all(|misfit| misfit.why == MisfitCause::Remainder) && !grid.misfits.is_empty());
}

#[test]
fn a_source_of_changing_rate_is_cut_exactly_at_the_frame() {
    let mut stream = source(500, &[0], Rational::new(1, 1000), Rational::new(25, 1));
    stream.constant_rate = false;
    let grid = snapped(&stream, &[SceneCut { at: 1_000 + 4_213, strength: 0.9 }]);
    assert_eq!(grid.chunks[0].segments[1], 5_213);
    assert_eq!(grid.misfits, []);
}

/// The least cost of any division, by enumeration.
fn brute_force(frames: i64, cuts: &[ChunkCut], limits: &Limits) -> Cost {
    fn from(at: i64, frames: i64, cuts: &[ChunkCut], limits: &Limits) -> Cost {
        let strength = |frame: i64| cuts.iter().find(|cut| cut.frame == frame).map_or(0, |cut| cut.strength);
        (at + 1..=frames)
            .map(|next| {
                let segment = even_cost(next - at, 1, limits);
                if next == frames {
                    return segment;
                }
                let reward = Cost { excess: 0, cuts: -strength(next), deviation: 0 };
                segment.plus(reward).plus(from(next, frames, cuts, limits))
            })
            .min()
            .unwrap()
    }
    from(0, frames, cuts, limits)
}

fn cost_of(starts: &[i64], frames: i64, cuts: &[ChunkCut], limits: &Limits) -> Cost {
    let ends = starts.iter().skip(1).copied().chain([frames]);
    let segments = starts.iter().zip(ends).map(|(start, end)| even_cost(end - start, 1, limits));
    let used = starts.iter().skip(1).filter_map(|start| cuts.iter().find(|cut| cut.frame == *start));
    let rewards = used.map(|cut| Cost { excess: 0, cuts: -cut.strength, deviation: 0 });
    segments.chain(rewards).fold(Cost { excess: 0, cuts: 0, deviation: 0 }, Cost::plus)
}

proptest! {
    #[test]
    fn no_division_of_all_there_are_is_better(
        frames in 1..17_i64, raw in prop::collection::vec((1..17_i64, 1..1000_i64), 0..5),
        shortest in 1..6_i64, longer in 0..5_i64, nominal in 0..5_i64,
    ) {
        let limits = Limits { shortest, longest: shortest + longer, nominal: shortest + nominal.min(longer) };
        let mut cuts: Vec<ChunkCut> =
            raw.iter().filter(|cut| cut.0 < frames).map(|(frame, strength)| ChunkCut { frame: *frame, strength: *strength }).collect();
        cuts.sort_by_key(|cut| cut.frame);
        cuts.dedup_by_key(|cut| cut.frame);
        let own = divide(frames, &cuts, &limits);
        prop_assert!(own[0] == 0 && own.windows(2).all(|pair| pair[0] < pair[1]) && own[own.len() - 1] < frames);
        prop_assert_eq!(cost_of(&own, frames, &cuts, &limits), brute_force(frames, &cuts, &limits), "{:?}", own);
    }

    #[test]
    fn on_any_title_segments_tile_the_chunks_within_the_limits_or_are_named(
        frames in 1..4_000_i64,
        keys in prop::collection::vec(0..4_000_i64, 0..40),
        cuts in prop::collection::vec((0..4_000_i64, 0.0..1.0_f64), 0..80),
        kind in 0..4_usize,
    ) {
        let (base, rate) = [
            (Rational::new(1, 90_000), Rational::new(25, 1)),
            (Rational::new(1, 1000), Rational::new(30_000, 1001)),
            (Rational::new(1001, 24_000), Rational::new(24_000, 1001)),
            (Rational::new(1, 1000), Rational::new(25, 1)),
        ][kind];
        let mut keys: Vec<i64> = keys.into_iter().filter(|key| *key < frames).chain([0]).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut stream = source(frames, &keys, base, rate);
        stream.constant_rate = kind != 3;
        let at = |frame: i64| 1_000 + mul_div_round(frame * rate.den, base.den, rate.num * base.num);
        let mut cuts: Vec<SceneCut> = cuts.iter().map(|(frame, strength)| SceneCut { at: at(*frame), strength: *strength }).collect();
        let grid = snapped(&stream, &cuts);
        let starts: Vec<i64> = grid.chunks.iter().flat_map(|chunk| chunk.segments.clone()).collect();
        prop_assert!(starts.windows(2).all(|pair| pair[0] < pair[1]));
        let times: Vec<i64> = (0..frames).map(at).collect();
        let bounds = starts.iter().skip(1).copied().chain([i64::MAX]);
        for (n, (start, end)) in starts.iter().zip(bounds).enumerate() {
            let count = times.iter().filter(|time| (*start..end).contains(time)).count() as f64;
            let seconds = count * rate.den as f64 / rate.num as f64;
            let named = grid.misfits.iter().any(|misfit| misfit.segment as usize == n);
            // A frame of changing duration belongs to one side or the other.
            let slack = if kind == 3 { 1.0 / 25.0 } else { 0.0 };
            prop_assert!(named || (2.0 - slack - 1e-9..=6.0 + slack + 1e-9).contains(&seconds), "segment {n}: {seconds}");
        }
        prop_assert_eq!(grid.segments_on_cuts + grid.segments_off_cuts, starts.len());
        cuts.reverse();
        prop_assert_eq!(snapped(&stream, &cuts), grid, "the order of cuts is of no account");
    }
}
