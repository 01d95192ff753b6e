use super::*;
use crate::probe::Keyframe;
use proptest::prelude::*;

/// A 25 fps source in 90 kHz ticks with keyframes at these frames.
fn stream(frames: i64, keyframes: &[i64]) -> VideoStream {
    paced(frames, keyframes, Rational::new(1, 90_000), Rational::new(25, 1), 1_000)
}

fn paced(frames: i64, keyframes: &[i64], time_base: Rational, frame_rate: Rational, first_pts: i64) -> VideoStream {
    VideoStream::even(time_base, frame_rate, first_pts, frames, keyframes)
}

fn times(stream: &VideoStream) -> Vec<i64> {
    let (num, den) = (stream.time_base.den * stream.frame_rate.den, stream.time_base.num * stream.frame_rate.num);
    (0..stream.packets as i64).map(|frame| stream.first_pts + mul_div_round(frame, num, den)).collect()
}

/// Frames that fall into each interval between neighbouring starts.
fn frames_between(times: &[i64], starts: &[i64]) -> Vec<usize> {
    let place = |start: &i64| times.partition_point(|t| t < start);
    let ends = starts.iter().skip(1).map(place).chain([times.len()]);
    starts.iter().map(place).zip(ends).map(|(a, b)| b - a).collect()
}

fn all_segments(chunks: &[Chunk]) -> Vec<i64> {
    chunks.iter().flat_map(|chunk| chunk.segments.iter().copied()).collect()
}

fn rules(grid: Grid) -> ChunkRules {
    ChunkRules { grid, ..ChunkRules::default() }
}

/// What holds for every grid of every source.
fn check(stream: &VideoStream, chunks: &[Chunk]) -> Result<(), TestCaseError> {
    prop_assert!(!chunks.is_empty());
    prop_assert_eq!((chunks[0].start, chunks[chunks.len() - 1].end), (None, None));
    let mut segments = 0;
    for (n, chunk) in chunks.iter().enumerate() {
        prop_assert_eq!((chunk.index, chunk.first_segment), (n as u32, segments));
        segments += chunk.segments.len() as u32;
        prop_assert_eq!(chunk.segments[0], chunk.start.unwrap_or(stream.first_pts));
        if let Some(next) = chunks.get(n + 1) {
            prop_assert_eq!(chunk.end, next.start);
            prop_assert!(chunk.end.is_some_and(|end| chunk.segments.iter().all(|s| *s < end)));
        }
        let shown_before = |k: &Keyframe| chunk.start.is_some_and(|start| k.pts <= start);
        let last = stream.keyframes.iter().filter(|k| shown_before(k)).map(|k| k.pts).max();
        if let Some(last) = last {
            prop_assert_eq!(stream.keyframes[chunk.keyframe].pts, last);
        }
    }
    let starts = all_segments(chunks);
    prop_assert!(starts.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", starts);
    Ok(())
}

#[test]
fn chunks_start_at_keyframes_and_segments_divide_them_evenly() {
    let stream = stream(1500, &(0..30).map(|n| n * 50).collect::<Vec<_>>());
    let chunks = grid(&stream, &rules(Grid::Keyframes), 4.0);
    check(&stream, &chunks).unwrap();
    assert_eq!(chunks.len(), 8);
    for chunk in &chunks[1..] {
        assert!(stream.keyframes.iter().any(|k| Some(k.pts) == chunk.start));
        assert_eq!(stream.keyframes[chunk.keyframe].pts, chunk.start.unwrap());
    }
    assert_eq!(
        frames_between(&times(&stream), &all_segments(&chunks)),
        [100, 100, 100, 100, 100, 100, 100, 100, 75, 75, 100, 100, 75, 75, 100, 100]
    );
}

#[test]
fn a_cut_off_a_keyframe_lies_half_a_frame_before_its_frame() {
    let stream = stream(750, &[0]);
    let chunks = grid(&stream, &rules(Grid::Keyframes), 4.0);
    let frame = |n: i64| 1_000 + n * 3600;
    assert_eq!(chunks[1].start, Some(frame(188) - 1800));
    assert_eq!(chunks[0].segments, [frame(0), frame(94) - 1800]);
    assert!(chunks.iter().all(|chunk| chunk.keyframe == 0));
}

#[test]
fn a_short_title_is_one_chunk_and_a_single_frame_is_too() {
    assert_eq!(grid(&stream(220, &[0, 50, 100, 150, 200]), &rules(Grid::Keyframes), 4.0).len(), 1);
    for kind in [Grid::Keyframes, Grid::Fixed, Grid::Gop, Grid::Frames] {
        let chunks = grid(&stream(1, &[0]), &ChunkRules { frames: Some(1), ..rules(kind) }, 4.0);
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks[0].segments, [1_000]);
    }
}

#[test]
fn fixed_segments_have_all_the_same_frames_whatever_the_keyframes() {
    let stream = paced(2_000, &[0, 33, 71, 400, 911], Rational::new(1, 1000), Rational::new(30_000, 1001), 21);
    let chunks = grid(&stream, &rules(Grid::Fixed), 4.0);
    let frames = frames_between(&times(&stream), &all_segments(&chunks));
    assert!(frames[..frames.len() - 1].iter().all(|n| *n == 120), "{frames:?}");
    assert!(chunks[..chunks.len() - 1].iter().all(|chunk| chunk.segments.len() == 2));
}

#[test]
fn a_chunk_for_every_gop_and_chunks_of_an_odd_number_of_frames() {
    let stream = stream(300, &[0, 2, 40, 111, 250, 298]);
    assert_eq!(grid(&stream, &rules(Grid::Gop), 4.0).len(), 4);
    let chunks = grid(&stream, &ChunkRules { frames: Some(37), ..rules(Grid::Frames) }, 4.0);
    let starts: Vec<i64> = chunks.iter().map(|chunk| chunk.segments[0]).collect();
    assert_eq!(frames_between(&times(&stream), &starts), [37, 37, 37, 37, 37, 37, 37, 37, 4]);
}

#[test]
fn timestamps_that_cannot_be_trusted_give_one_chunk_of_nominal_segments() {
    let mut stream = stream(1_000, &[0, 50]);
    stream.clock = Clock::Untrusted { why: "resets".into() };
    stream.last_pts = 17;
    let chunks = grid(&stream, &rules(Grid::Keyframes), 4.0);
    check(&stream, &chunks).unwrap();
    assert_eq!(chunks.len(), 1);
    assert_eq!(frames_between(&times(&stream), &chunks[0].segments), [100; 10]);
}

#[test]
fn keyframes_out_of_display_order_are_found_by_their_time() {
    let mut stream = stream(1_500, &(0..30).map(|n| n * 50).collect::<Vec<_>>());
    stream.keyframes.swap(3, 4);
    let chunks = grid(&stream, &rules(Grid::Keyframes), 4.0);
    check(&stream, &chunks).unwrap();
    assert_eq!(chunks[1].keyframe, 3);
}

#[test]
fn ten_hours_are_cut_in_no_time() {
    let frames = 10 * 3600 * 60;
    let stream = paced(frames, &(0..frames).step_by(15).collect::<Vec<_>>(), Rational::new(1, 90_000), Rational::new(60, 1), 0);
    for kind in [Grid::Keyframes, Grid::Fixed, Grid::Gop, Grid::Frames] {
        let began = std::time::Instant::now();
        let chunks = grid(&stream, &ChunkRules { frames: Some(60), ..rules(kind) }, 4.0);
        assert!(chunks.len() > 4_000);
        assert!(began.elapsed().as_secs() < 5, "{kind:?}: {:?}", began.elapsed());
    }
}

prop_compose! {
    fn sources()(
        frames in 1_i64..6_000,
        gaps in prop::collection::vec(1_i64..400, 0..60),
        base in prop::sample::select(vec![(1, 1000), (1, 90_000), (1, 12_800), (1001, 30_000), (1, 25), (1, 1_000_000)]),
        rate in prop::sample::select(vec![(25, 1), (30_000, 1001), (24_000, 1001), (60, 1), (12, 1), (50, 1)]),
        first in -100_000_i64..100_000,
        constant in any::<bool>(),
    ) -> VideoStream {
        let keyframes: Vec<i64> = std::iter::once(0)
            .chain(gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }))
            .take_while(|frame| *frame < frames)
            .collect();
        let mut stream = paced(frames, &keyframes, base.into(), rate.into(), first);
        stream.constant_rate = constant;
        stream
    }
}

proptest! {
    #[test]
    fn every_grid_tiles_the_title(
        stream in sources(),
        kind in prop::sample::select(vec![Grid::Keyframes, Grid::Fixed, Grid::Gop, Grid::Frames]),
        frames in 1_u32..300,
        segment_s in 1.0_f64..12.0,
    ) {
        let rules = ChunkRules { frames: Some(frames), ..rules(kind) };
        let chunks = grid(&stream, &rules, segment_s);
        check(&stream, &chunks)?;
        prop_assert_eq!(&chunks, &grid(&stream, &rules, segment_s));
        // A title's frames are in its chunks once each, and no segment of a constant rate is empty.
        let fits = stream.time_base.den * stream.frame_rate.den >= stream.time_base.num * stream.frame_rate.num;
        let counts = frames_between(&times(&stream), &all_segments(&chunks));
        prop_assert_eq!(counts.iter().sum::<usize>() as u64, stream.packets);
        prop_assert!(!fits || !stream.constant_rate || counts.iter().all(|n| *n > 0), "{:?}", counts);
    }

    #[test]
    fn chunks_and_segments_keep_to_their_lengths(stream in sources(), segment_s in 1.0_f64..6.0) {
        let rules = rules(Grid::Keyframes);
        let chunks = grid(&stream, &rules, segment_s);
        let s = |ticks: i64| crate::plan::time::seconds(ticks, stream.time_base);
        let slack = 2.0 / stream.frame_rate.as_f64() + s(2);
        for chunk in &chunks {
            let (start, end) = (chunk.segments[0], chunk.end.unwrap_or(stream.end_pts));
            let ends = chunk.segments.iter().skip(1).copied().chain([end]);
            let segments: Vec<f64> = chunk.segments.iter().zip(ends).map(|(a, b)| s(b - a)).collect();
            if chunks.len() > 1 {
                prop_assert!((6.0 - slack..=20.0 + slack).contains(&s(end - start)), "chunk of {} s", s(end - start));
            }
            let bounds = 0.5 * segment_s - slack..=1.5 * segment_s + slack;
            prop_assert!(s(end - start) < segment_s || segments.iter().all(|s| bounds.contains(s)), "{:?}", segments);
        }
    }
}
