//! What a pod may and may not: the restricted Pod Security Standard, no token, no network but what is named.

use super::helm::{self, Pod, Rendered};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Volumes that the restricted standard admits.
const VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

/// What the Pod Security Standard "restricted" (policy version 1.37) has against a pod, one finding a rule.
fn against_restricted(spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            found.push(what.to_string());
        }
    };
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        must(spec.get(field).is_none_or(|value| value == false), field);
    }
    let volumes = spec["volumes"].as_array().unwrap();
    for volume in volumes {
        let mut kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
        must(kinds.all(|kind| VOLUMES.contains(&kind.as_str())), "a volume of a type that is not admitted");
    }
    let pod = &spec["securityContext"];
    let container = &spec["containers"][0]["securityContext"];
    must(pod["runAsNonRoot"] == true, "runAsNonRoot");
    must(pod.get("runAsUser").is_none_or(|user| user.as_u64().unwrap() > 0), "runAsUser");
    let seccomp = pod["seccompProfile"]["type"].as_str();
    must(matches!(seccomp, Some("RuntimeDefault" | "Localhost")), "seccompProfile");
    must(pod.get("sysctls").is_none() && container.get("procMount").is_none(), "sysctls, procMount");
    must(container["privileged"] == false, "privileged");
    must(container["allowPrivilegeEscalation"] == false, "allowPrivilegeEscalation");
    must(container["capabilities"] == json!({ "drop": ["ALL"] }), "capabilities");
    must(spec.get("initContainers").is_none(), "an init container that nobody looked at");
    found
}

/// What we ask for beyond it.
fn against_us(spec: &Value) -> Vec<&'static str> {
    let container = &spec["containers"][0];
    let rules = [
        ("readOnlyRootFilesystem", container["securityContext"]["readOnlyRootFilesystem"] == true),
        ("automountServiceAccountToken", spec["automountServiceAccountToken"] == false),
        ("enableServiceLinks", spec["enableServiceLinks"] == false),
        ("memory limit", container["resources"]["limits"]["memory"].is_string()),
        ("requests", container["resources"]["requests"]["cpu"].is_string()),
    ];
    rules.into_iter().filter(|(_, holds)| !holds).map(|(rule, _)| rule).collect()
}

#[test]
fn every_pod_is_restricted_writes_nowhere_but_on_volumes_and_has_no_token() {
    for (set, rendered) in helm::all() {
        for pod in rendered.pods() {
            assert_eq!(against_restricted(pod.spec), [""; 0], "{set}: {}", pod.name);
            assert_eq!(against_us(pod.spec), [""; 0], "{set}: {}", pod.name);
        }
        for account in rendered.kind("ServiceAccount") {
            assert_eq!(account["automountServiceAccountToken"], false, "{set}");
        }
    }
}

#[test]
fn a_pod_that_is_not_restricted_is_found() {
    let made = helm::with(&json!({}));
    let good = made.object("Deployment", "fleet-narrows-worker-cpu")["spec"]["template"]["spec"].clone();
    let with = |path: &str, value: Value| {
        let mut spec = good.clone();
        *spec.pointer_mut(path).unwrap() = value;
        (against_restricted(&spec), against_us(&spec).len())
    };
    assert_eq!(with("/securityContext/runAsUser", json!(0)).0, ["runAsUser"]);
    assert_eq!(with("/securityContext/seccompProfile/type", json!("Unconfined")).0, ["seccompProfile"]);
    assert_eq!(with("/containers/0/securityContext/capabilities", json!({ "drop": ["NET_RAW"] })).0, ["capabilities"]);
    assert_eq!(with("/volumes/0", json!({ "name": "x", "hostPath": { "path": "/" } })).0.len(), 1);
    assert_eq!(with("/automountServiceAccountToken", json!(true)), (vec![], 1));
}

#[test]
fn users_that_a_platform_chooses_are_left_to_it_and_secrets_stay_readable() {
    let platform = helm::all().into_iter().find(|(set, _)| set == "platform").unwrap().1;
    for pod in platform.roles() {
        let context = &pod.spec["securityContext"];
        assert_eq!(context, &json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } }), "{}", pod.name);
        let secrets = pod.spec["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "secrets").unwrap();
        assert_eq!(secrets["projected"]["defaultMode"], 0o444, "{}", pod.name);
    }
    for pod in helm::with(&json!({})).roles() {
        let secrets = pod.spec["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "secrets").unwrap();
        assert_eq!(secrets["projected"]["defaultMode"], 0o440, "{}", pod.name);
        assert_eq!(pod.spec["securityContext"]["fsGroup"], 65532, "{}", pod.name);
    }
}

fn policies_of<'a>(rendered: &'a Rendered, pod: &Pod) -> Vec<&'a Value> {
    let about = |policy: &&Value| pod.is_selected_by(&policy["spec"]["podSelector"]["matchLabels"]);
    rendered.kind("NetworkPolicy").filter(about).collect()
}

/// Rules of all policies of a pod, in one direction.
fn rules<'a>(policies: &[&'a Value], direction: &'a str) -> Vec<&'a Value> {
    policies.iter().filter_map(|policy| policy["spec"].get(direction)).flat_map(|rules| rules.as_array().unwrap()).collect()
}

#[test]
fn every_pod_is_closed_in_both_directions_but_for_rules_that_name_ports() {
    for (set, rendered) in helm::all().into_iter().filter(|(set, _)| set != "platform") {
        for pod in rendered.pods() {
            let policies = policies_of(&rendered, &pod);
            let types: BTreeSet<&str> = policies
                .iter()
                .flat_map(|policy| policy["spec"]["policyTypes"].as_array().unwrap())
                .map(|kind| kind.as_str().unwrap())
                .collect();
            assert_eq!(types, BTreeSet::from(["Egress", "Ingress"]), "{set}: {}", pod.name);
            for rule in rules(&policies, "egress") {
                assert!(!rule["ports"].as_array().unwrap().is_empty(), "{set}: {}: {rule}", pod.name);
            }
        }
    }
}

#[test]
fn only_coordinators_take_connections_and_only_they_reach_callbacks() {
    let rendered = helm::with(&json!({ "networkPolicy": { "broker": { "to": [{ "podSelector": {} }] } } }));
    let reach = |name: &str| -> (Vec<Value>, Vec<u64>) {
        let pods = rendered.pods();
        let pod = pods.iter().find(|pod| pod.name == name).unwrap();
        let policies = policies_of(&rendered, pod);
        let ports = |rule: &&Value| -> Vec<u64> {
            rule["ports"].as_array().unwrap().iter().map(|port| port["port"].as_u64().unwrap()).collect()
        };
        (rules(&policies, "ingress").into_iter().cloned().collect(), rules(&policies, "egress").iter().flat_map(ports).collect())
    };
    let (into_worker, from_worker) = reach("fleet-narrows-worker-cpu");
    let (into_coordinator, from_coordinator) = reach("fleet-narrows-coordinator");
    assert_eq!(into_worker, [json!(null); 0]);
    assert_eq!(from_worker, [53, 53, 5671, 5672, 443], "DNS twice, UDP and TCP; the broker; stores");
    let http = json!([{ "port": "http", "protocol": "TCP" }]);
    assert_eq!(into_coordinator, [json!({ "ports": http, "from": [{ "podSelector": {} }] })]);
    assert_eq!(from_coordinator, [53, 53, 5671, 5672, 443, 443], "and callbacks");
    let callbacks = &rendered.object("NetworkPolicy", "fleet-narrows-coordinator")["spec"]["egress"][0]["to"][0]["ipBlock"];
    assert_eq!(callbacks["cidr"], "0.0.0.0/0");
    // 169.254.169.254 is where clouds keep credentials.
    for network in ["10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"] {
        assert!(callbacks["except"].as_array().unwrap().contains(&json!(network)), "{network}");
    }
}

#[test]
fn who_scrapes_is_let_in_only_where_something_is_to_be_scraped() {
    let monitored = helm::with(&json!({ "monitoring": { "podMonitor": { "enabled": true } } }));
    let pods = monitored.pods();
    for pod in pods.iter().filter(|pod| pod.role() != "doctor") {
        let rule = json!({
            "ports": [{ "port": "http", "protocol": "TCP" }],
            "from": [{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "monitoring" } } }],
        });
        assert!(rules(&policies_of(&monitored, pod), "ingress").contains(&&rule), "{}", pod.name);
    }
}

#[test]
fn a_class_asks_for_its_device_and_goes_where_it_is() {
    let classes = ["nvenc", "vaapi", "qsv"];
    let enabled: serde_json::Map<String, Value> =
        classes.iter().map(|class| (class.to_string(), json!({ "enabled": true }))).collect();
    let made = helm::with(&json!({ "workers": enabled }));
    let pod = |class: &str| {
        let found = made.object("Deployment", &format!("fleet-narrows-worker-{class}"));
        assert_eq!(found["metadata"]["labels"]["narrows/class"], class);
        found["spec"]["template"]["spec"].clone()
    };
    let limits = |class: &str| pod(class)["containers"][0]["resources"]["limits"].clone();
    assert_eq!(limits("nvenc")["nvidia.com/gpu"], 1);
    assert_eq!(pod("nvenc")["runtimeClassName"], "nvidia");
    assert_eq!(pod("nvenc")["tolerations"][0]["key"], "nvidia.com/gpu");
    for class in ["vaapi", "qsv"] {
        assert_eq!(limits(class)["gpu.intel.com/i915"], 1);
        assert_eq!(pod(class)["nodeSelector"], json!({ "intel.feature.node.kubernetes.io/gpu": "true" }));
    }
    let plain = pod("cpu");
    for field in ["runtimeClassName", "tolerations", "nodeSelector"] {
        assert_eq!(plain.get(field), None, "{field}");
    }
}
