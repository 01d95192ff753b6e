//! Every value set: linted, rendered, and valid for every version of Kubernetes that the chart is for.

use super::helm::{self, Pod, Rendered, ask, name_of, render, sets};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// From the first that Chart.yaml admits to the last whose schemas are at hand.
const VERSIONS: [&str; 8] = ["1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"];
/// Groups whose objects are others' inventions, judged by tests/chart/schemas.
const CUSTOM: [&str; 2] = ["keda.sh/", "monitoring.coreos.com/"];

fn is_custom(object: &Value) -> bool {
    CUSTOM.iter().any(|group| object["apiVersion"].as_str().unwrap().starts_with(group))
}

/// Values that switch single things over, on top of the smallest set: each makes other objects than its neighbour.
fn switches() -> Vec<Value> {
    let scaled = json!({ "enabled": true, "minReplicas": 1, "maxReplicas": 3 });
    vec![
        json!({ "workerDefaults": { "autoscaling": scaled } }),
        json!({ "workerDefaults": { "autoscaling": scaled }, "keda": { "enabled": true } }),
        json!({ "workerDefaults": { "scratch": { "kind": "ephemeral", "size": "1Ti" } } }),
        json!({ "workerDefaults": { "strategy": { "type": "Recreate", "rollingUpdate": null } } }),
        json!({ "workers": { "cpu": { "enabled": false } } }),
        json!({ "workers": { "nvenc": { "enabled": true }, "vaapi": { "enabled": true }, "qsv": { "enabled": true } } }),
        json!({ "coordinator": { "enabled": false } }),
        json!({ "coordinator": { "podDisruptionBudget": { "maxUnavailable": "50%" } } }),
        json!({ "networkPolicy": { "enabled": false } }),
        json!({ "monitoring": { "serviceMonitor": { "enabled": true } }, "coordinator": { "enabled": false } }),
        json!({ "monitoring": { "serviceMonitor": { "enabled": true }, "podMonitor": { "enabled": true } } }),
        json!({ "security": { "fsGroup": 0, "seccompProfile": { "type": "Localhost", "localhostProfile": "p.json" } } }),
        json!({ "fullnameOverride": "a-name-that-is-much-longer-than-what-kubernetes-allows-here" }),
        json!({ "image": { "tag": "1e6" } }),
    ]
}

fn cases() -> Vec<Value> {
    let kept = sets().into_iter().map(|set| json!({ "files": [set] }));
    kept.chain(switches().iter().map(helm::over_minimal)).collect()
}

fn rendered() -> Vec<Rendered> {
    let all = render(cases());
    for (case, one) in cases().iter().zip(&all) {
        assert_eq!(one.error, None, "{case}");
    }
    all
}

#[test]
fn helm_lint_finds_nothing_in_any_set_nor_in_the_defaults() {
    let mut cases = cases();
    cases.push(json!({}));
    let question = json!({ "chart": helm::chart(), "cases": cases });
    for (case, report) in cases.iter().zip(ask("lint", &question).as_array().unwrap()) {
        assert_eq!(report["errors"], json!([]), "{case}");
    }
    let wrong = json!({ "chart": helm::chart(), "cases": [{ "values": { "replicas": 3 } }] });
    assert_ne!(ask("lint", &wrong)[0]["errors"], json!([]), "a value that does not exist was not found");
}

#[test]
fn every_object_is_valid_for_every_version_of_kubernetes() {
    let mut objects: Vec<Value> = Vec::new();
    for object in rendered().into_iter().flat_map(|one| one.objects).filter(|object| !is_custom(object)) {
        if !objects.contains(&object) {
            objects.push(object);
        }
    }
    let kinds: BTreeSet<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    let expected = [
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Ingress",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
    ];
    assert_eq!(kinds, BTreeSet::from(expected));
    assert_eq!(ask("validate", &json!({ "objects": objects, "versions": VERSIONS })), json!([]));
}

#[test]
fn objects_that_kubernetes_would_refuse_are_found() {
    let made = helm::with(&json!({}));
    let mut object = made.object("Deployment", "fleet-narrows-coordinator").clone();
    object["spec"]["template"]["spec"]["securtyContext"] = json!({});
    let found = ask("validate", &json!({ "objects": [object], "versions": VERSIONS }));
    assert_eq!(found.as_array().unwrap().len(), VERSIONS.len(), "{found}");
    assert!(found[0].as_str().unwrap().contains("securtyContext"), "{found}");
    object["spec"]["template"]["spec"].as_object_mut().unwrap().remove("securtyContext");
    object["spec"]["replicas"] = json!("2");
    let found = ask("validate", &json!({ "objects": [object], "versions": ["1.37"] }));
    assert!(found[0].as_str().unwrap().contains("spec.replicas"), "{found}");
}

#[test]
fn objects_of_keda_and_prometheus_fit_their_definitions() {
    let folder = tempfile::tempdir().unwrap();
    let chart = super::pages::chart_with_files(folder.path());
    let everything = json!({ "files": [helm::set("everything")] });
    let mut all = rendered();
    all.extend(helm::render_chart(&chart, vec![everything]));
    let objects: Vec<&Value> = all.iter().flat_map(|one| &one.objects).filter(|object| is_custom(object)).collect();
    let kinds: BTreeSet<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    let expected = ["PodMonitor", "PrometheusRule", "ScaledObject", "ServiceMonitor", "TriggerAuthentication"];
    assert_eq!(kinds, BTreeSet::from(expected));
    let schemas = helm::root().join("tests/chart/schemas");
    assert_eq!(ask("custom", &json!({ "objects": objects, "schemas": schemas })), json!([]));
    let find = |kind: &str| (*objects.iter().find(|object| object["kind"] == kind).unwrap()).clone();
    let mut wrong = [find("ScaledObject"), find("PodMonitor"), find("PrometheusRule"), find("TriggerAuthentication")];
    wrong[0]["spec"]["triggers"][0]["metadata"]["value"] = json!(16);
    wrong[1]["spec"]["podMetricsEndpoints"][0]["interval"] = json!("half a minute");
    wrong[2]["spec"]["groups"][0]["rules"][0]["severity"] = json!("page");
    wrong[3]["spec"]["secretTargetRef"][0]["key"] = json!(null);
    let found = ask("custom", &json!({ "objects": wrong, "schemas": schemas }));
    for (object, kind) in wrong.iter().zip(["ScaledObject", "PodMonitor", "PrometheusRule", "TriggerAuthentication"]) {
        let about = format!("{kind}/{}", name_of(object));
        assert!(found.as_array().unwrap().iter().any(|one| one.as_str().unwrap().starts_with(&about)), "{about}: {found}");
    }
}

#[test]
fn what_is_optional_is_there_only_when_asked_for() {
    let made = helm::with(&json!({}));
    let expected = [
        "ConfigMap/fleet-narrows-worker-cpu",
        "ConfigMap/fleet-narrows-coordinator",
        "Deployment/fleet-narrows-coordinator",
        "Service/fleet-narrows-coordinator",
        "NetworkPolicy/fleet-narrows",
        "NetworkPolicy/fleet-narrows-worker",
        "NetworkPolicy/fleet-narrows-coordinator",
        "PodDisruptionBudget/fleet-narrows-worker-cpu",
        "PodDisruptionBudget/fleet-narrows-coordinator",
        "ServiceAccount/fleet-narrows",
        "Pod/fleet-narrows-doctor",
        "Deployment/fleet-narrows-worker-cpu",
    ];
    assert_eq!(made.names(), expected);
    // What a cluster has must not change what is made: the same values, the same objects, with a cluster at hand or not.
    for entry in std::fs::read_dir(helm::chart().join("templates")).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(text) = std::fs::read_to_string(&entry) else { continue };
        assert!(!text.contains(".Capabilities") && !text.contains("lookup "), "{}", entry.display());
    }
}

#[test]
fn the_packaged_chart_makes_the_same_objects() {
    let folder = tempfile::tempdir().unwrap();
    let archive = ask("package", &json!({ "chart": helm::chart(), "folder": folder.path() }));
    let archive = std::path::PathBuf::from(archive.as_str().unwrap());
    let case = json!({ "files": [helm::set("everything")] });
    let packaged = helm::render_chart(&archive, vec![case.clone()]).remove(0);
    assert_eq!(packaged.error, None);
    assert_eq!(packaged.objects, render(vec![case]).remove(0).objects);
}

#[test]
fn names_are_short_enough_and_each_is_given_once() {
    let long =
        json!({ "fullnameOverride": "x".repeat(60), "workers": { "a-name-of-many": { "enabled": true, "class": "cpu" } } });
    for one in rendered().into_iter().chain([helm::with(&long)]) {
        let names = one.names();
        assert_eq!(BTreeSet::from_iter(&names).len(), names.len(), "{names:?}");
        for object in &one.objects {
            // Longest name of a Service and of a host, RFC 1123.
            assert!(name_of(object).len() <= 63, "{object}");
        }
    }
}

#[test]
fn whatever_selects_pods_selects_those_it_is_about() {
    for one in rendered() {
        let pods = one.pods();
        let selected =
            |labels: &Value| -> Vec<&str> { pods.iter().filter(|pod| pod.is_selected_by(labels)).map(|pod| pod.name).collect() };
        for made in one.kind("Deployment") {
            assert_eq!(selected(&made["spec"]["selector"]["matchLabels"]), [name_of(made)]);
        }
        for budget in one.kind("PodDisruptionBudget") {
            assert_eq!(selected(&budget["spec"]["selector"]["matchLabels"]), [name_of(budget)]);
        }
        for service in one.kind("Service") {
            assert_eq!(selected(&service["spec"]["selector"]), [name_of(service)]);
            let named = |pod: &&Pod| pod.name == name_of(service);
            let ports = &pods.iter().find(named).unwrap().container()["ports"];
            assert_eq!(service["spec"]["ports"][0]["targetPort"], ports[0]["name"]);
        }
        for scaler in one.kind("HorizontalPodAutoscaler").chain(one.kind("ScaledObject")) {
            let target = one.object("Deployment", scaler["spec"]["scaleTargetRef"]["name"].as_str().unwrap());
            assert_eq!(target["spec"].get("replicas"), None, "an upgrade would undo what the scaler did: {target}");
        }
        let monitors = one.kind("PodMonitor").chain(one.kind("ServiceMonitor"));
        for monitor in monitors {
            assert!(!selected(&monitor["spec"]["selector"]["matchLabels"]).is_empty(), "{monitor}");
        }
    }
}
