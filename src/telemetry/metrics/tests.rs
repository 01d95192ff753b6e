//! What `/metrics` shows, line by line.

use super::*;
use crate::job::Lane;
use crate::usage::UsageLine;

fn shown(metrics: &Arc<Metrics>) -> String {
    metrics.clone().exposition()()
}

fn of(role: Role) -> Arc<Metrics> {
    Metrics::new(Registry::new(), role)
}

/// The value of one series, as it is shown.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().unwrap()
}

/// Everything that can be told, once.
fn tell_all(metrics: &Metrics) {
    let (second, usage) = (Duration::from_secs(1), usage());
    metrics.broker_connected("publish");
    metrics.published(Publish::Confirmed);
    metrics.stored("get", "ok", second);
    metrics.store_read(7);
    metrics.store_written(9);
    metrics.slots("cpu", 4);
    metrics.slot_taken("cpu");
    metrics.encoder("hevc_nvenc", "nvenc", true);
    metrics.device_quarantined("nvenc");
    metrics.taken(Queue::Work(Class::Cpu, Lane::High).labels(), Some(second));
    metrics.part_started("encode");
    metrics.part_ended("encode", PartEnd::Completed, second);
    let child =
        ChildEnd { task: "encode", outcome: "done", jail: Some(JailLevel::Seccomp), wall: second, cpu: second, peak_bytes: 5 };
    metrics.child_ended(&child);
    metrics.rung_encoded(&Encoded { codec: "h265", height: 720, frames: 50, media_s: 2.0 });
    metrics.chunk_encoded(2.0);
    metrics.scratch(3, 4);
    metrics.scratch_short(false);
    metrics.waiting(Queue::Dead.labels(), Some(2));
    metrics.open_jobs(6);
    metrics.recorded("job.accepted");
    metrics.first_playable(second);
    metrics.playable(&Playable { codecs: "hvc1.1.6.L93.B0", height: Some(720), bytes: 1000, media_s: 2.0 });
    metrics.job_ended(&JobEnd { state: "completed", took: Some(second), usage: Some(&usage) });
    metrics.job_stalled();
    metrics.answered("/v1/jobs/{id}", 200, second);
    metrics.callback(CallbackEnd::Arrived, second);
    metrics.callback_arrived(second);
    metrics.oldest_callback(second);
}

fn usage() -> Usage {
    let line = UsageLine { codec: "h265".into(), class: "hd".into(), feature: "hdr".into(), seconds: 2.0 };
    Usage { output: vec![line], cpu_s: 3.0, wasted_cpu_s: 0.5, wasted_attempts: 1, output_bytes: 11, ..Usage::default() }
}

#[test]
fn what_is_told_is_what_is_shown() {
    let (worker, coordinator) = (of(Role::Worker), of(Role::Coordinator));
    tell_all(&worker);
    tell_all(&coordinator);
    let text = shown(&worker);
    assert_eq!(value(&text, "narrows_slots_busy{class=\"cpu\"}"), 1.0);
    assert_eq!(value(&text, "narrows_encoded_frames_total{codec=\"h265\",height=\"720\"}"), 50.0);
    assert_eq!(value(&text, "narrows_queue_wait_seconds_count{class=\"cpu\",lane=\"high\",queue=\"work\"}"), 1.0);
    assert_eq!(value(&text, "narrows_sandbox_level{level=\"seccomp\"}"), 1.0);
    assert_eq!(value(&text, "narrows_sandbox_level{level=\"full\"}"), 0.0);
    assert_eq!(value(&text, "narrows_parts_ended_total{kind=\"encode\",outcome=\"completed\"}"), 1.0);
    worker.slot_freed("cpu");
    worker.broker_lost("publish");
    let text = shown(&worker);
    assert_eq!(value(&text, "narrows_slots_busy{class=\"cpu\"}"), 0.0);
    assert_eq!(value(&text, "narrows_broker_connected{connection=\"publish\"}"), 0.0);
    assert_eq!(value(&text, "narrows_broker_connections_lost_total{connection=\"publish\"}"), 1.0);
    let text = shown(&coordinator);
    assert_eq!(value(&text, "narrows_usage_output_seconds_total{class=\"hd\",codec=\"h265\"}"), 2.0);
    assert_eq!(value(&text, "narrows_usage_cpu_seconds_total{use=\"wasted\"}"), 0.5);
    assert_eq!(value(&text, "narrows_rendition_bytes_total{codec=\"h265\",height=\"720\"}"), 1000.0);
    let dead = "narrows_queue_messages{class=\"\",lane=\"\",queue=\"dead\"}";
    assert_eq!(value(&text, dead), 2.0);
    coordinator.waiting(Queue::Dead.labels(), None);
    assert!(!shown(&coordinator).contains(dead), "what could not be asked is no number");
}

#[test]
fn a_role_shows_its_own_families_and_the_first_of_everything_that_is_alarming_has_a_zero_before_it() {
    let (worker, coordinator) = (shown(&of(Role::Worker)), shown(&of(Role::Coordinator)));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(value(&worker, &format!("narrows_build_info{{role=\"worker\",version=\"{version}\"}}")), 1.0);
    assert!(worker.contains("process_resident_memory_bytes ") && coordinator.contains("process_resident_memory_bytes "));
    assert!(!worker.contains("narrows_jobs_ended") && !coordinator.contains("narrows_slots"));
    for series in [
        "narrows_children_ended_total{outcome=\"violation\",task=\"encode\"}",
        "narrows_broker_publishes_total{outcome=\"returned\"}",
        "narrows_parts_ended_total{kind=\"package\",outcome=\"failed\"}",
    ] {
        assert_eq!(value(&worker, series), 0.0);
    }
    assert_eq!(value(&coordinator, "narrows_callback_attempts_total{outcome=\"given_up\"}"), 0.0);
    assert_eq!(value(&coordinator, "narrows_deliveries_total{class=\"\",lane=\"\",queue=\"events\"}"), 0.0);
    assert_eq!(value(&coordinator, "narrows_jobs_ended_total{state=\"failed\"}"), 0.0);
}

#[test]
fn names_units_and_help_are_prometheus_conventions_and_no_label_names_a_job_or_a_tenant() {
    for role in [Role::Worker, Role::Coordinator] {
        let metrics = of(role);
        tell_all(&metrics);
        let text = shown(&metrics);
        let told = |what: &str| -> Vec<(String, String)> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(what)?.split_once(' '));
            lines
                .map(|(name, rest)| (name.to_string(), rest.to_string()))
                .filter(|(name, _)| !name.starts_with("process_"))
                .collect()
        };
        let (helps, types) = (told("# HELP "), told("# TYPE "));
        assert!(helps.len() > 20 && helps.len() == types.len(), "{}", helps.len());
        for (name, help) in helps {
            assert!(name.starts_with("narrows_") && help.ends_with('.'), "{name}: {help}");
        }
        for (name, kind) in types {
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} {kind}");
            let has_unit = name.ends_with("_seconds") || name.ends_with("_bytes");
            assert!(kind != "histogram" || has_unit, "{name} has no base unit");
        }
        for label in ["job=", "tenant=", "url=", "store=", "endpoint="] {
            assert!(!text.contains(&format!("{{{label}")) && !text.contains(&format!(",{label}")), "{label} in\n{text}");
        }
    }
}

#[test]
fn whatever_is_said_the_number_of_series_is_bounded() {
    let metrics = of(Role::Worker);
    for lines in 0..20_000 {
        let codec = format!("codec-{lines}");
        metrics.rung_encoded(&Encoded { codec: &codec, height: lines, frames: 1, media_s: f64::NAN });
    }
    let text = shown(&metrics);
    let series = text.lines().filter(|line| line.starts_with("narrows_encoded_frames_total")).count();
    assert_eq!(series, HEIGHTS.len() + 1);
    assert_eq!(value(&text, "narrows_encoded_frames_total{codec=\"other\",height=\"1080\"}"), 360.0);
    assert_eq!(value(&text, "narrows_encoded_media_seconds_total{codec=\"other\",height=\"1080\"}"), 0.0);
}
