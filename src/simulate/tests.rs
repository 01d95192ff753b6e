use super::report::{Sample, Spread};
use super::*;
use crate::job::Lane;
use crate::worker::lanes::LaneWeights;
use serde_json::json;
use std::time::Duration;

fn settings(slots: usize) -> WorkerSettings {
    WorkerSettings {
        name: "simulated".into(),
        slots,
        software: true,
        devices: Vec::new(),
        device_rules: Default::default(),
        self_test: false,
        lanes: LaneWeights { high: 6, normal: 3, low: 1 },
        attempts: 5,
        outage_attempts: 120,
        first_delay: Duration::from_millis(250),
        longest_delay: Duration::from_secs(30),
        part_deadline: Duration::from_secs(1140),
        grace: Duration::from_secs(30),
    }
}

fn fleet(workers: usize, slots: usize) -> Fleet {
    Fleet { workers, settings: settings(slots), window: 32, quotas: BTreeMap::new(), scaling: None }
}

/// Costs that can be summed in one's head, the same every time.
fn costs() -> Costs {
    let text = "submission_s = 1\nprobe_s = 2\npackage_s = 3\nhand_over_s = 1\naudio = 0.1\nspread = 0\n[encode]\nh265 = 2";
    Costs::parse(text).unwrap()
}

/// A job of chunks of ten seconds.
fn job(at_s: f64, media_s: f64, tenant: &str, lane: Lane) -> Arrival {
    let set = json!({ "packaging.segment_s": 2, "chunk.grid": "fixed", "chunk.target_s": 10, "chunk.shortest_s": 2 });
    let set = serde_json::from_value(set).unwrap();
    Arrival { at_s, media_s, tenant: tenant.into(), lane, preset: "h265".into(), set, width: 1920, height: 1080 }
}

fn simulated(fleet: &Fleet, costs: &Costs, jobs: &[Arrival]) -> Report {
    run(fleet, costs, jobs, 1, None).unwrap()
}

#[test]
fn one_job_on_one_slot_takes_what_can_be_summed_by_hand() {
    let mut report = run(&fleet(1, 1), &costs(), &[job(5.0, 20.0, "acme", Lane::Normal)], 1, Some(0.5)).unwrap();
    let series = std::mem::take(&mut report.series);
    // Submission 0-1, probe 1-3 and handed over at 4, sound 4-6, the two chunks 6-26.04 and 26.04-46 (the grid cuts between two
    // frames, half of one after the tenth second), handed over at 47, package 47-50, handed over at 51. The chunks waited 2 s and
    // 22.04 s for the slot; the upload of the sound keeps nothing waiting.
    let hour = |seconds: f64| seconds / 3600.0;
    let waits = Spread { count: 6, mean: 24.04 / 6.0, p50: 0.0, p90: 22.04, p99: 22.04, longest: 22.04 };
    let expected = Report {
        jobs: 1,
        completed: 1,
        failed: 0,
        refused: 0,
        parts: 5,
        crashes: 0,
        makespan_s: 51.0,
        slot_hours: hour(51.0),
        busy_slot_hours: hour(48.0),
        utilisation: hour(48.0) / hour(51.0),
        // Five rungs and one sound.
        output_hours: hour(120.0),
        slot_hours_per_output_hour: hour(51.0) / hour(120.0),
        cost: Some(0.5 * hour(51.0)),
        cost_per_output_hour: Some(0.5 * hour(51.0) / hour(120.0)),
        queue_age_s: [("normal".into(), waits)].into(),
        latency_s: [("acme".into(), Spread { count: 1, mean: 51.0, p50: 51.0, p90: 51.0, p99: 51.0, longest: 51.0 })].into(),
        fewest_workers: 1,
        most_workers: 1,
        series: Vec::new(),
    };
    assert_eq!(report, expected);
    assert_eq!((series.len(), series[0].at_s, series[51].at_s), (52, 5.0, 56.0));
    assert_eq!(series[10], Sample { at_s: 15.0, waiting: 1, busy: 1, slots: 1 });
}

#[test]
fn a_second_slot_takes_what_waited_and_the_window_holds_the_rest_back() {
    let jobs = [job(0.0, 20.0, "acme", Lane::Normal)];
    let two = simulated(&fleet(1, 2), &costs(), &jobs);
    // The sound 4-6 and one chunk 4-24.04 side by side, the other 6-25.96, handed over at 26.96, and four seconds of package.
    assert_eq!(two.makespan_s, 30.96);
    assert_eq!(simulated(&fleet(2, 1), &costs(), &jobs).makespan_s, 30.96, "wherever the slot is");
    // A window of one: the sound 4-6, and from 7 on one chunk after the other.
    let narrow = Fleet { window: 1, ..fleet(1, 2) };
    assert_eq!(simulated(&narrow, &costs(), &jobs).makespan_s, 7.0 + 21.04 + 20.96 + 4.0);
}

#[test]
fn the_same_seed_gives_the_same_report_and_another_one_another() {
    let synthetic = Synthetic {
        jobs: 60,
        over_s: 3600.0,
        is_daily: true,
        media_s: 60.0,
        media_spread: 0.8,
        preset: "h265".into(),
        lanes: [1.0, 8.0, 1.0],
        tenants: vec![("acme".into(), 3.0), ("globex".into(), 1.0)],
    };
    let costs = Costs { spread: 0.3, crash_share: 0.05, ..costs() };
    let of = |seed: u64| run(&fleet(2, 4), &costs, &synthetic.draw(seed), seed, None).unwrap();
    let first = of(7);
    assert_eq!(first, of(7));
    assert_ne!(first, of(8));
    assert_eq!((first.jobs, first.completed, first.failed), (60, 60, 0));
    assert!(first.crashes > 0 && first.latency_s["acme"].count > first.latency_s["globex"].count, "{first:?}");
    let drawn = synthetic.draw(7);
    assert!(drawn.is_sorted_by(|a, b| a.at_s <= b.at_s) && drawn.iter().all(|job| (0.0..3600.0).contains(&job.at_s)));
}

#[test]
fn a_quota_keeps_a_tenant_with_a_thousand_times_the_load_from_drowning_another() {
    let small: Vec<Arrival> = (1..4).map(|n| job(f64::from(n) * 400.0, 30.0, "small", Lane::Normal)).collect();
    let big = (0..1000).map(|n| job(f64::from(n), 30.0, "big", Lane::Normal));
    let mut both: Vec<Arrival> = big.chain(small.clone()).collect();
    both.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    let open = fleet(4, 4);
    let quota = Quota { active_jobs: Some(8), ..Quota::default() };
    let bounded = Fleet { quotas: [("big".into(), quota)].into(), ..open.clone() };
    let longest = |fleet: &Fleet, jobs: &[Arrival]| simulated(fleet, &costs(), jobs).latency_s["small"].longest;
    let (alone, drowned, kept) = (longest(&open, &small), longest(&open, &both), longest(&bounded, &both));
    assert!(drowned > 20.0 * alone, "alone {alone} s, drowned {drowned} s");
    assert!(kept < 3.0 * alone, "alone {alone} s, kept {kept} s");
    // And nothing of the fleet lies idle for it.
    let report = simulated(&bounded, &costs(), &both);
    assert_eq!((report.completed, report.refused), (1003, 0));
    assert!(report.utilisation > 0.8, "{}", report.utilisation);
}

#[test]
fn what_is_beyond_a_quota_is_refused() {
    let quota = Quota { active_jobs: Some(1), queued_jobs: Some(2), minutes_per_day: None };
    let fleet = Fleet { quotas: [("acme".into(), quota)].into(), ..fleet(1, 4) };
    let jobs: Vec<Arrival> = (0..5).map(|_| job(0.0, 20.0, "acme", Lane::Normal)).collect();
    let report = simulated(&fleet, &costs(), &jobs);
    assert_eq!((report.completed, report.refused, report.latency_s["acme"].count), (3, 2, 3));
}

#[test]
fn lanes_wait_by_their_weights_and_none_for_ever() {
    let jobs: Vec<Arrival> = (0..300).map(|n| job(0.0, 10.0, "acme", Lane::ALL[n % 3])).collect();
    let report = simulated(&fleet(2, 2), &costs(), &jobs);
    let wait = |lane: &str| report.queue_age_s[lane].mean;
    assert!(wait("high") < wait("normal") && wait("normal") < wait("low"), "{:?}", report.queue_age_s);
    assert_eq!(report.completed, 300);
}

#[test]
fn crashes_are_tried_again_as_a_worker_does_it_and_end_the_job_in_the_end() {
    let jobs: Vec<Arrival> = (0..20).map(|n| job(f64::from(n), 20.0, "acme", Lane::Normal)).collect();
    let some = simulated(&fleet(1, 4), &Costs { crash_share: 0.2, ..costs() }, &jobs);
    assert_eq!((some.completed, some.parts), (20, 100));
    assert!((5..60).contains(&some.crashes), "{}", some.crashes);
    let all = simulated(&fleet(1, 4), &Costs { crash_share: 1.0, ..costs() }, &jobs);
    assert_eq!((all.completed, all.failed, all.parts), (0, 20, 0));
    assert_eq!(all.crashes, 20 * u64::from(settings(1).attempts), "each at its probe");
}

#[test]
fn a_pool_that_grows_is_as_late_as_its_workers_take_to_come_and_loses_nothing_when_it_shrinks() {
    // A rush, and one job long after it.
    let rush = (0..200).map(f64::from).chain([8000.0]);
    let jobs: Vec<Arrival> = rush.map(|at_s| job(at_s, 60.0, "acme", Lane::Normal)).collect();
    let scaling = |start_s| Scaling { fewest: 1, most: 40, messages_per_worker: 4, every_s: 15, start_s, down_after_s: 60 };
    let of = |start_s| simulated(&Fleet { scaling: Some(scaling(start_s)), ..fleet(1, 4) }, &costs(), &jobs);
    let (fixed, quick, slow) = (simulated(&fleet(1, 4), &costs(), &jobs), of(30), of(300));
    let latency = |report: &Report| report.latency_s["acme"].p50;
    assert!(latency(&quick) < latency(&slow) && latency(&slow) < latency(&fixed), "{} {}", latency(&quick), latency(&slow));
    let later = latency(&slow) - latency(&quick);
    assert!((100.0..600.0).contains(&later), "{later} s");
    for report in [&quick, &slow] {
        assert_eq!((report.completed, report.parts, report.fewest_workers), (201, 201 * 9, 1));
        assert!(report.most_workers > 10, "{}", report.most_workers);
        let before_the_last = report.series.iter().rfind(|sample| sample.at_s < 8000.0);
        assert_eq!(before_the_last.map(|sample| sample.slots), Some(4), "it shrank to what was there at first");
    }
}

#[test]
fn what_cannot_be_simulated_is_named() {
    let error = |fleet: &Fleet, jobs: &[Arrival]| run(fleet, &costs(), jobs, 1, None).unwrap_err().to_string();
    let fine = job(0.0, 20.0, "acme", Lane::Normal);
    assert!(error(&fleet(0, 4), &[]).starts_with("0 workers"));
    let unknown = Arrival { preset: "h264".into(), ..fine.clone() };
    assert!(error(&fleet(1, 1), &[fine.clone(), unknown]).starts_with("job 2: nobody said what the preset h264 costs"));
    let none = Arrival { preset: "h267".into(), ..fine.clone() };
    assert!(error(&fleet(1, 1), &[none]).starts_with("job 1: "));
    let line = |text: &str| arrivals::read(text).unwrap_err().to_string();
    assert!(line("{\"at_s\":0,\"media_s\":10}\n\n{\"at_s\":0}").starts_with("job 3: missing field `media_s`"));
    assert_eq!(line("{\"at_s\":-1,\"media_s\":10}"), "job 1: at_s: is -1; allowed are 0 to 31622400");
    let read = arrivals::read("{\"at_s\":9,\"media_s\":10}\n{\"at_s\":3,\"media_s\":10,\"lane\":\"low\"}\n").unwrap();
    assert_eq!(read.iter().map(|job| (job.at_s, job.lane)).collect::<Vec<_>>(), [(3.0, Lane::Low), (9.0, Lane::Normal)]);
}

#[test]
fn the_plot_shows_what_there_was_and_is_well_formed() {
    let report = simulated(&fleet(1, 2), &costs(), &[job(0.0, 20.0, "acme", Lane::Normal)]);
    let svg = plot::svg(&report);
    let mut reader = quick_xml::Reader::from_str(&svg);
    let mut lines = 0;
    loop {
        match reader.read_event().unwrap() {
            quick_xml::events::Event::Eof => break,
            quick_xml::events::Event::Empty(tag) if tag.name().as_ref() == "polyline" => lines += 1,
            _ => {}
        }
    }
    assert_eq!(lines, 3);
    assert!(svg.contains(">waiting<") && svg.contains(">busy<") && svg.contains(">1 jobs in 31 s,"), "{svg}");
    assert_eq!([30.0, 61.0, 3720.0].map(plot::clock), ["30 s", "1:01 min", "1:02 h"]);
}
