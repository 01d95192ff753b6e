//! Chunks of small sources that the `ffmpeg` program makes.

use super::*;
use crate::job::Job;
use crate::media::fixture::{LocalHost, limits, make as make_clip};
use crate::media::probe as look_at;
use crate::plan::preset::Preset;
use crate::plan::{self, CalibrationPlan, Plan, make};
use crate::probe::Probe as Facts;
use crate::sandbox::protocol::Beginning;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tempfile::TempDir;

/// Two scenes of 60 frames at 25 a second: a moving test card, then a fractal.
const TWO_SCENES: &str = "-f lavfi -i testsrc2=s=320x192:r=25:d=2.4 -f lavfi -i mandelbrot=s=320x192:r=25 \
    -filter_complex [1]trim=end_frame=60,format=yuv420p[b];[0]format=yuv420p[a];[a][b]concat=n=2:v=1,format=yuv420p \
    -c:v libx264 -preset ultrafast -crf 12 -g 30";

struct Bench {
    folder: TempDir,
    source: PathBuf,
    facts: Facts,
    plan: Plan,
}

impl Bench {
    /// A source in chunks of so many frames.
    fn new(arguments: &str, preset: &str, frames: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source.mp4");
        make_clip(arguments, &source);
        let host = LocalHost::new(&[&source]);
        let facts = look_at::probe(&host, &limits(), folder.path()).unwrap();
        let set = BTreeMap::from([
            ("chunk.grid".to_string(), "frames".into()),
            ("chunk.frames".to_string(), frames.into()),
            ("narrowband.probe.scored_every".to_string(), 3.into()),
        ]);
        let job = Job::parse(br#"{"input":{"uri":"in.mp4"},"output":{"uri":"out/"}}"#).unwrap();
        let plan = plan::make(&job, &facts, &Preset::built_in(preset, &set).unwrap()).unwrap();
        Self { folder, source, facts, plan }
    }

    fn task(&self, chunk: u32) -> AnalyseTask {
        let mut task = plan::analyse_task(&self.plan, &self.facts, chunk, 1);
        // The container is opened: there is no second input here.
        task.encode.table = None;
        task
    }

    fn analyse(&self, task: &AnalyseTask) -> AnalyseReport {
        assert!(self.folder.path().exists());
        analyse(&LocalHost::new(&[&self.source]), &limits(), task).unwrap()
    }
}

#[test]
fn a_chunk_is_known_by_two_points_of_which_the_better_one_costs_more() {
    for preset in ["narrowband-h265", "narrowband-h264"] {
        let bench = Bench::new(TWO_SCENES, preset, 40);
        let report = bench.analyse(&bench.task(0));
        assert_eq!((report.chunk, report.frames, report.notes.as_slice()), (0, 40, &[][..]));
        assert_eq!(report.ticks, 40 * bench.plan.video.as_ref().unwrap().frame_duration);
        let [fine, coarse] = report.probes[..] else { panic!("{report:?}") };
        assert!(fine.crf < coarse.crf && fine.bits > coarse.bits && coarse.bits > 0, "{report:?}");
        assert!(fine.vmaf_neg > coarse.vmaf_neg + 1.0 && fine.vmaf_neg <= 100.0 && coarse.vmaf_neg > 10.0, "{report:?}");
        let texture = report.texture.unwrap();
        assert!(texture.spatial > 10.0 && texture.temporal > 1.0, "{texture:?}");
    }
}

#[test]
fn the_beginning_of_a_chunk_stands_for_all_of_it() {
    let bench = Bench::new(TWO_SCENES, "narrowband-h265", 60);
    let mut task = bench.task(0);
    let whole = bench.analyse(&task);
    task.beginning = Some(Beginning { frames: 24, of: 60 });
    let beginning = bench.analyse(&task);
    assert_eq!((beginning.frames, beginning.ticks * 5), (24, whole.ticks * 2));
    for (of_beginning, of_whole) in beginning.probes.iter().zip(&whole.probes) {
        let ratio = of_beginning.bits as f64 / of_whole.bits as f64;
        assert!((0.85..1.15).contains(&ratio), "a card that goes on as it begins: {ratio}");
        assert!((of_beginning.vmaf_neg - of_whole.vmaf_neg).abs() < 3.0, "{of_beginning:?} {of_whole:?}");
    }
    // A chunk that is shorter than what would be looked at is looked at whole.
    task.beginning = Some(Beginning { frames: 80, of: 60 });
    assert_eq!(bench.analyse(&task).probes, whole.probes);
}

#[test]
fn half_a_chunk_tells_how_the_second_probe_differs() {
    let bench = Bench::new(TWO_SCENES, "narrowband-h265", 60);
    let mut task = bench.task(1);
    assert_eq!(task.compared, Some(30));
    let halved = bench.analyse(&task);
    task.compared = None;
    let whole = bench.analyse(&task);
    assert_eq!((halved.frames, halved.probes[0]), (60, whole.probes[0]));
    let (found, expected) = (halved.probes[1], whole.probes[1]);
    assert_eq!(found.crf, expected.crf);
    let ratio = found.bits as f64 / expected.bits as f64;
    assert!((0.8..1.25).contains(&ratio) && ratio != 1.0, "{found:?} {expected:?}");
    assert!((found.vmaf_neg - expected.vmaf_neg).abs() < 4.0, "{found:?} {expected:?}");
    // Of a short chunk all is encoded.
    assert_eq!(Bench::new(TWO_SCENES, "narrowband-h265", 40).task(0).compared, None);
}

#[test]
fn a_scene_is_found_within_a_chunk_and_where_the_next_chunk_begins() {
    let at = |bench: &Bench, report: &AnalyseReport| {
        let video = bench.plan.video.as_ref().unwrap();
        let frame = video.frame_duration / video.ticks_per_tick;
        report.cuts.iter().map(|cut| (cut.at - video.origin) / frame).collect::<Vec<_>>()
    };
    let within = Bench::new(TWO_SCENES, "narrowband-h264", 80);
    let report = within.analyse(&within.task(0));
    assert_eq!(at(&within, &report), [60], "{report:?}");
    assert!((LEAST..=1.0).contains(&report.cuts[0].strength));
    let between = Bench::new(TWO_SCENES, "narrowband-h264", 60);
    let report = between.analyse(&between.task(0));
    assert_eq!(
        (report.frames, at(&between, &report)),
        (60, vec![60]),
        "the frames after the chunk are looked at, and not counted"
    );
    assert_eq!(at(&between, &between.analyse(&between.task(1))), Vec::<i64>::new());
}

/// Of a cut that only just is one.
const LEAST: f64 = 0.5;

#[test]
fn what_cannot_be_probed_is_said_and_no_failure() {
    let tiny = Bench::new("-f lavfi -i color=gray:s=48x48:r=25:d=0.08 -c:v libx264", "narrowband-h264", 40);
    let report = tiny.analyse(&tiny.task(0));
    assert_eq!((report.frames, report.probes.len(), report.cuts.len()), (2, 0, 0));
    assert_eq!(report.notes.len(), 3, "two probes and the scenes: {:?}", report.notes);

    let bench = Bench::new(TWO_SCENES, "narrowband-h265", 40);
    let mut task = bench.task(1);
    task.encode.rungs[1].encoder.options.insert("no-such-option".into(), "1".into());
    let report = bench.analyse(&task);
    assert_eq!(report.probes.iter().map(|point| point.crf).collect::<Vec<_>>(), task.crf[..1]);
    assert!(report.notes[0].contains("no-such-option"), "{:?}", report.notes);
}

#[test]
fn two_flat_frames_are_a_perfect_probe() {
    let flat = Bench::new("-f lavfi -i color=gray:s=192x128:r=25:d=0.08 -pix_fmt yuv420p -c:v libx264", "narrowband-h265", 40);
    let report = flat.analyse(&flat.task(0));
    assert_eq!((report.frames, report.probes.len()), (2, 2), "{:?}", report.notes);
    assert!(report.probes.iter().all(|point| point.vmaf_neg > 90.0 && point.bits > 0), "{report:?}");
}

#[test]
fn ten_bits_are_probed_in_ten_bits() {
    let arguments = "-f lavfi -i testsrc2=s=192x128:r=25:d=1 -pix_fmt yuv420p10le -c:v libx265 -x265-params log-level=none \
        -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc";
    let bench = Bench::new(arguments, "narrowband-h265", 40);
    let task = bench.task(0);
    assert_eq!(task.encode.rungs[0].pixel_format, "yuv420p10le");
    let report = bench.analyse(&task);
    assert_eq!((report.probes.len(), report.notes.len()), (2, 0), "{report:?}");
}

#[test]
fn what_scaling_alone_loses_is_measured_beside_the_final_encodes() {
    let bench =
        Bench::new("-f lavfi -i mandelbrot=s=640x480:r=25 -t 1 -c:v libx264 -preset ultrafast -crf 8", "narrowband-h265", 25);
    let narrowband = bench.plan.narrowband().unwrap();
    let mut small = narrowband.probe.rungs[0].clone();
    (small.width, small.height) = (480, 360);
    small.encoder.options.insert("crf".into(), "8".into());
    let wanted = CalibrationPlan { chunk: 0, weight: 1.0, frames: 16, rungs: vec![small], crf: vec![8.0] };
    let mut task = make::calibrate_task(&bench.plan, &bench.facts, &wanted, 1);
    task.encode.table = None;
    let report = calibrate(&LocalHost::new(&[&bench.source]), &limits(), &task).unwrap();
    assert_eq!((report.frames, report.probes.len(), report.notes.as_slice()), (16, 2, &[][..]));
    let [larger, smaller] = report.scaled[..] else { panic!("{report:?}") };
    assert_eq!(((larger.width, larger.height), (smaller.width, smaller.height)), ((480, 360), (312, 234)));
    assert!(smaller.vmaf_neg + 3.0 < larger.vmaf_neg && larger.vmaf_neg < 99.0, "{report:?}");
    let hardly_coded = report.finals[0].point.vmaf_neg;
    assert!(hardly_coded < larger.vmaf_neg && larger.vmaf_neg - hardly_coded < 6.0, "{report:?}");
}
