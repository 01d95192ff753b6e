//! Chart and program say the same: ports, pages, times, room, queues, versions.

use super::helm::{self, Pod, Rendered, with};
use super::settings::config_of;
use super::source::constant;
use narrows::broker::memory::{Bounds, MemoryBroker};
use narrows::broker::{Broker, Class, Queue};
use narrows::config::{Config, SAMPLE};
use narrows::job::Lane;
use narrows::simulate::scaling;
use narrows::store::{Store, Stores};
use narrows::worker::health::{self, Health, LONGEST_SILENCE, Pages};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PROBES: [&str; 3] = ["startupProbe", "livenessProbe", "readinessProbe"];

fn defaults() -> Config {
    Config::load(None, std::iter::empty()).unwrap()
}

fn sample() -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), SAMPLE).unwrap();
    Config::load(Some(file.path()), std::iter::empty()).unwrap()
}

fn seconds(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number of seconds"))
}

fn worker(rendered: &Rendered) -> Pod<'_> {
    rendered.roles().into_iter().find(|pod| pod.role() == "worker").unwrap()
}

fn coordinator(rendered: &Rendered) -> Pod<'_> {
    rendered.roles().into_iter().find(|pod| pod.role() == "coordinator").unwrap()
}

#[test]
fn the_port_of_a_pod_is_the_one_that_the_program_listens_on() {
    for (set, rendered) in helm::all() {
        for pod in rendered.roles() {
            let config = config_of(&rendered, &pod);
            let listens = if pod.role() == "worker" { config.worker.listen.unwrap() } else { config.coordinator.listen };
            let port = &pod.container()["ports"][0];
            assert_eq!(port["containerPort"], listens.port(), "{set}: {}", pod.name);
            assert!(listens.ip().is_unspecified(), "{set}: {}: nobody reaches {listens}", pod.name);
            for probe in PROBES {
                assert_eq!(pod.container()[probe]["httpGet"]["port"], port["name"], "{set}: {}: {probe}", pod.name);
            }
        }
    }
    let rendered = with(&json!({}));
    let port = |pod: Pod| pod.container()["ports"][0]["containerPort"].clone();
    assert_eq!(port(coordinator(&rendered)), defaults().coordinator.listen.port());
    assert_eq!(port(worker(&rendered)), sample().worker.listen.unwrap().port());
}

async fn status_of(address: std::net::SocketAddr, path: &str) -> u16 {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    text.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_pages_that_are_probed_are_answered_by_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let stores = Stores::new(Store::folder(&folder.path().join("work"), &folder.path().join("tmp")).unwrap());
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Bounds::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stopper, stop) = narrows::shutdown::channel();
    let pages = Pages { health: Health::default(), broker, stores, metrics: Arc::new(String::new) };
    let server = tokio::spawn(health::serve(listener, pages, stop));
    let rendered = with(&json!({ "monitoring": { "podMonitor": { "enabled": true }, "serviceMonitor": { "enabled": true } } }));
    let contract: Value = serde_json::from_str(narrows::coordinator::api::OPENAPI).unwrap();
    for probe in PROBES {
        let path = |pod: Pod| pod.container()[probe]["httpGet"]["path"].as_str().unwrap().to_string();
        assert_eq!(status_of(address, &path(worker(&rendered))).await, 200, "{probe}");
        let get = &contract["paths"][path(coordinator(&rendered))]["get"];
        assert!(get["responses"]["200"].is_object(), "{probe}");
    }
    let scraped = |kind: &str, name: &str, endpoints: &str| {
        let monitor = rendered.object(kind, name);
        monitor["spec"][endpoints][0]["path"].as_str().unwrap().to_string()
    };
    let path = scraped("PodMonitor", "fleet-narrows-worker", "podMetricsEndpoints");
    assert_eq!(status_of(address, &path).await, 200, "{path}");
    let path = scraped("ServiceMonitor", "fleet-narrows-coordinator", "endpoints");
    assert!(contract["paths"][&path]["get"]["security"] == json!([]), "{path} needs no key");
    assert_eq!(status_of(address, "/livez").await, 404, "a page that nobody answers would pass for one");
    stopper.stop();
    server.await.unwrap().unwrap();
}

#[test]
fn probes_wait_longer_than_the_program_does_itself() {
    let rendered = with(&json!({}));
    let pages = [
        (worker(&rendered), constant("src/worker/health.rs", "ANSWER_WITHIN")),
        (coordinator(&rendered), constant("src/coordinator/api/health.rs", "LONGEST")),
    ];
    for (pod, answers_within) in pages {
        let probe = |name: &str| pod.container()[name].clone();
        let timeout = Duration::from_secs(seconds(&probe("readinessProbe")["timeoutSeconds"]));
        assert!(timeout > answers_within, "{}: {timeout:?} for what may take {answers_within:?}", pod.name);
        let liveness = probe("livenessProbe");
        let patience = Duration::from_secs(seconds(&liveness["periodSeconds"]) * seconds(&liveness["failureThreshold"]));
        assert!(patience > LONGEST_SILENCE, "{}", pod.name);
    }
}

#[test]
fn a_worker_can_finish_any_part_and_is_killed_only_after_it_would_have_left() {
    // What the program keeps of its time for leaving itself: a part that begins as the signal comes needs that on top.
    let leaving = constant("src/cli/worker.rs", "LEAVING") + constant("src/worker/settings.rs", "STOP_GRACE");
    for (set, rendered) in helm::all() {
        for pod in rendered.roles().iter().filter(|pod| pod.role() == "worker") {
            let settings = config_of(&rendered, pod).worker;
            let grace = Duration::from_secs(seconds(&pod.spec["terminationGracePeriodSeconds"]));
            let drain = Duration::from_secs(settings.drain_s);
            assert!(grace > drain, "{set}: {}: killed after {grace:?}, gone after {drain:?}", pod.name);
            let part = Duration::from_secs(settings.part_deadline_s);
            let hands_back = set == "spot" && pod.name.ends_with("-spot");
            assert_eq!(drain < part + leaving, hands_back, "{set}: {}: {drain:?} for a part of {part:?}", pod.name);
        }
    }
}

#[test]
fn a_coordinator_has_time_for_the_requests_under_way_and_one_callback() {
    let requests = constant("src/coordinator/api/serve.rs", "DRAIN");
    for (set, rendered) in helm::all() {
        for pod in rendered.roles().iter().filter(|pod| pod.role() == "coordinator") {
            let sleep = pod.container()["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or(0);
            let callback = config_of(&rendered, pod).callbacks.timeout_s;
            let needed = requests + Duration::from_secs(sleep + callback);
            let grace = Duration::from_secs(seconds(&pod.spec["terminationGracePeriodSeconds"]));
            assert!(grace >= needed, "{set}: {}: {grace:?} of {needed:?}", pod.name);
        }
    }
}

#[test]
fn what_the_chart_computes_with_are_the_programs_defaults() {
    let values = helm::ask("values", &json!({ "chart": helm::chart() }))["config"].clone();
    let program = defaults();
    assert_eq!(values["worker"]["part_deadline_s"], program.worker.part_deadline_s);
    assert_eq!(values["scratch"]["part_bytes"], program.scratch.part_bytes);
    assert_eq!(values["limits"]["scratch_bytes"], program.limits.scratch_bytes);
    assert_eq!(values["callbacks"]["timeout_s"], program.callbacks.timeout_s);
}

#[test]
fn children_get_less_than_the_scratch_volume_holds() {
    let gibibyte = 1_u64 << 30;
    for (size, bytes) in [("10Gi", 10 * gibibyte), ("2000M", 2_000_000_000), ("1Ti", 1 << 40)] {
        let rendered = with(&json!({ "workerDefaults": { "scratch": { "size": size } } }));
        let pod = worker(&rendered);
        let config = config_of(&rendered, &pod);
        assert_eq!(config.scratch.worker_bytes, bytes * 9 / 10, "{size}");
        assert_eq!(config.limits.scratch_bytes, defaults().limits.scratch_bytes.min(config.scratch.worker_bytes), "{size}");
        let scratch = pod.spec["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "scratch").unwrap();
        assert_eq!(scratch["emptyDir"]["sizeLimit"], size);
        assert_eq!(pod.container()["resources"]["requests"]["ephemeral-storage"], size, "so that the node has it");
        let mount = pod.container()["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["name"] == "scratch").unwrap();
        let folder = config.scratch.folder.unwrap();
        assert!(folder.to_str().unwrap().ends_with(mount["mountPath"].as_str().unwrap()), "{}", folder.display());
    }
}

#[test]
fn a_pool_is_scaled_by_the_queues_that_it_takes_from() {
    let scaled = json!({ "keda": { "enabled": true }, "workerDefaults": { "autoscaling": { "enabled": true } } });
    let rendered = with(&scaled);
    let spec = &rendered.object("ScaledObject", "fleet-narrows-worker-cpu")["spec"];
    let triggers = spec["triggers"].as_array().unwrap();
    let named: BTreeSet<String> =
        triggers.iter().map(|trigger| trigger["metadata"]["queueName"].as_str().unwrap().to_string()).collect();
    let queues = Lane::ALL.into_iter().flat_map(|lane| [Queue::Jobs(lane), Queue::Work(Class::Cpu, lane)]);
    assert_eq!(named, queues.map(|queue| queue.to_string()).collect());
    let slots = config_of(&rendered, &worker(&rendered)).worker.slots;
    for trigger in triggers {
        let metadata = &trigger["metadata"];
        // Only the management API counts what is unacknowledged, and leaving it out is what would have to be asked for.
        assert_eq!((&metadata["protocol"], &metadata["excludeUnacknowledged"]), (&json!("http"), &json!("false")));
        assert_eq!(metadata["value"], slots.to_string(), "a pod has at hand as many messages as it has slots");
        let formula = spec["advanced"]["scalingModifiers"]["formula"].as_str().unwrap();
        assert!(formula.split(" + ").any(|term| term == trigger["name"]), "{formula}");
    }
    let behaviour = &spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"];
    assert_eq!(behaviour["scaleDown"]["stabilizationWindowSeconds"], 600);
    // What is simulated is what the chart asks for.
    let policies = |percent: usize, workers: usize, every_s: u64| {
        json!([
            { "type": "Percent", "value": percent, "periodSeconds": every_s },
            { "type": "Pods", "value": workers, "periodSeconds": every_s },
        ])
    };
    let (up, down) = (&behaviour["scaleUp"]["policies"], &behaviour["scaleDown"]["policies"]);
    assert_eq!(*up, policies(scaling::UP_PERCENT, scaling::UP_WORKERS, scaling::UP_EVERY_S));
    assert_eq!(*down, policies(scaling::DOWN_PERCENT, scaling::DOWN_WORKERS, scaling::DOWN_EVERY_S));
    let gpu = with(&json!({
        "keda": { "enabled": true },
        "workers": { "nvenc": { "enabled": true, "autoscaling": { "enabled": true, "messagesPerPod": 6 } } },
    }));
    let spec = &gpu.object("ScaledObject", "fleet-narrows-worker-nvenc")["spec"];
    let queues: Vec<&str> =
        spec["triggers"].as_array().unwrap().iter().map(|trigger| trigger["metadata"]["queueName"].as_str().unwrap()).collect();
    assert_eq!(queues, ["narrows.work.nvenc.high", "narrows.work.nvenc.normal", "narrows.work.nvenc.low"]);
    assert_eq!(spec["triggers"][0]["metadata"]["value"], "6");
}

#[test]
fn a_pool_with_a_device_takes_its_chunks_alone_and_everybody_knows_its_class() {
    let rendered = with(&json!({ "workers": { "vaapi": { "enabled": true }, "nvenc": { "enabled": true, "slots": 3 } } }));
    let mut seen = 0;
    for pod in rendered.roles() {
        let config = config_of(&rendered, &pod);
        assert_eq!(config.devices.classes, [Class::Nvenc, Class::Vaapi], "{}", pod.name);
        let devices: Vec<_> = config.worker.devices.iter().map(|d| (d.class, d.sessions, d.path.clone())).collect();
        let expected = match pod.name {
            "fleet-narrows-worker-nvenc" => vec![(Class::Nvenc, 3, None)],
            "fleet-narrows-worker-vaapi" => vec![(Class::Vaapi, 4, None)],
            _ => Vec::new(),
        };
        assert_eq!((config.worker.software, &devices), (expected.is_empty(), &expected), "{}", pod.name);
        seen += devices.len();
    }
    assert_eq!(seen, 2);
    let none = with(&json!({}));
    assert!(config_of(&none, &worker(&none)).devices.classes.is_empty());
}

#[test]
fn new_settings_make_new_pods_and_the_same_settings_do_not() {
    let sum = |values: Value, role: &str| {
        let rendered = with(&values);
        let pod = rendered.roles().into_iter().find(|pod| pod.role() == role).unwrap();
        pod.owner["spec"]["template"]["metadata"]["annotations"]["checksum/config"].as_str().unwrap().to_string()
    };
    let window = json!({ "workers": { "cpu": { "config": { "worker": { "window": 5 } } } } });
    assert_eq!(sum(json!({}), "worker"), sum(json!({ "workers": { "cpu": { "replicas": 9 } } }), "worker"));
    assert_ne!(sum(json!({}), "worker"), sum(window.clone(), "worker"));
    assert_eq!(sum(json!({}), "coordinator"), sum(window, "coordinator"));
}

#[test]
fn the_chart_is_of_this_version_of_the_program() {
    let text = std::fs::read_to_string(helm::chart().join("Chart.yaml")).unwrap();
    assert!(text.contains(&format!("\nappVersion: \"{}\"\n", env!("CARGO_PKG_VERSION"))), "{text}");
}
