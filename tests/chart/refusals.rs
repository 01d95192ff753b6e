//! What the chart refuses, and that it says why: by its schema where a value alone is wrong, else by its templates.

use super::helm::{chart, over_minimal, render, set};
use serde_json::{Value, json};

/// Renders each on top of the smallest set; every one is refused with these words.
#[track_caller]
fn refused(cases: &[(Value, &str)]) {
    let rendered = render(cases.iter().map(|(values, _)| over_minimal(values)).collect());
    for ((values, words), rendered) in cases.iter().zip(rendered) {
        let error = rendered.error.unwrap_or_else(|| panic!("taken: {values}"));
        assert!(error.contains(words), "{values}\nis refused, but without {words:?}:\n{error}");
    }
}

/// Every table of values.yaml that has fields, by its path.
fn tables(path: &[String], value: &Value, found: &mut Vec<Vec<String>>) {
    let Some(fields) = value.as_object().filter(|fields| !fields.is_empty()) else { return };
    found.push(path.to_vec());
    for (name, value) in fields {
        tables(&[path, std::slice::from_ref(name)].concat(), value, found);
    }
}

fn nested(path: &[String], innermost: Value) -> Value {
    path.iter().rev().fold(innermost, |value, name| json!({ name: value }))
}

#[test]
fn a_value_that_does_not_exist_is_refused_at_every_level() {
    let defaults = super::helm::ask("values", &json!({ "chart": chart() }));
    let mut found = Vec::new();
    tables(&[], &defaults, &mut found);
    assert!(found.len() > 40, "{found:?}");
    let cases: Vec<(Value, &str)> =
        found.iter().map(|path| (nested(path, json!({ "no_such_value": true })), "no_such_value")).collect();
    refused(&cases);
}

#[test]
fn a_pool_whose_class_no_job_is_sent_to_is_refused() {
    let nvenc = json!({ "workers": { "nvenc": { "enabled": true } }, "config": { "devices": { "classes": ["qsv"] } } });
    refused(&[(nvenc, "no job would be sent there")]);
}

#[test]
fn a_time_to_stop_that_is_too_short_is_refused() {
    let worker = |values: Value| json!({ "workers": { "cpu": values } });
    let drain = |seconds: u32| json!({ "worker": { "drain_s": seconds } });
    refused(&[
        (worker(json!({ "terminationGracePeriodSeconds": 1154 })), "give it at least 1155"),
        (worker(json!({ "terminationGracePeriodSeconds": 30, "handBack": true })), "killed with work in hand"),
        (worker(json!({ "config": drain(1144) })), "give it at least 1145, or allow that with handBack: true"),
        (worker(json!({ "config": drain(60), "terminationGracePeriodSeconds": 90 })), "done again"),
        (worker(json!({ "config": { "worker": { "part_deadline_s": 1200, "drain_s": 1150 } } })), "a part may take 1200 s"),
        (json!({ "coordinator": { "terminationGracePeriodSeconds": 29 } }), "is 29"),
        (
            json!({ "coordinator": { "terminationGracePeriodSeconds": 40 }, "config": { "callbacks": { "timeout_s": 30 } } }),
            "are 45",
        ),
    ]);
    let enough = [
        worker(json!({ "terminationGracePeriodSeconds": 1155 })),
        worker(json!({ "config": drain(1145), "terminationGracePeriodSeconds": 1150 })),
        worker(json!({ "config": drain(25), "terminationGracePeriodSeconds": 30, "handBack": true })),
        json!({ "coordinator": { "terminationGracePeriodSeconds": 30 } }),
    ];
    for (values, rendered) in enough.iter().zip(render(enough.iter().map(over_minimal).collect())) {
        assert_eq!(rendered.error, None, "{values}");
    }
}

#[test]
fn a_secret_that_is_written_down_is_refused() {
    let broker = |uri: &str| json!({ "config": { "broker": { "uri_file": null, "uri": uri } } });
    let pool = json!({ "workers": { "cpu": { "config": { "broker": { "uri": "amqp://a:b@c" } } } } });
    let tenant = |field: &str| json!({ "config": { "tenants": { "acme": { field: "0123456789abcdef" } } } });
    let store = |value: Value| json!({ "config": { "stores": { "work": { "secret_access_key": value } } } });
    refused(&[
        (broker("amqps://narrows:hunter2@rabbit/vhost"), "/config/broker/uri"),
        (pool, "/workers/cpu/config/broker/uri"),
        (tenant("secret"), "secret"),
        (tenant("secret_file"), "secret_file"),
        (store(json!("0123456789abcdef")), "secret_access_key"),
        (store(json!({ "value": "0123456789abcdef" })), "secret_access_key"),
    ]);
}

#[test]
fn a_reference_to_a_secret_that_cannot_be_mounted_is_refused() {
    let uri = |value: Value| json!({ "config": { "broker": { "uri_file": value } } });
    let url = json!({ "secretName": "hooks", "secretKey": "url" });
    let key = json!({ "secretName": "log", "secretKey": "level" });
    refused(&[
        (uri(json!({ "secretName": "Narrows_Broker" })), "uri_file"),
        (uri(json!({ "secretKey": "../uri" })), "uri_file"),
        (uri(json!({ "optional": true })), "uri_file"),
        (json!({ "config": { "log": { "level": key } } }), "config: level: a Secret is mounted as a file"),
        (json!({ "config": { "tenants": { "acme": { "callbacks": [{ "url": url }] } } } }), "config: url: a Secret is mounted"),
    ]);
}

#[test]
fn settings_that_the_chart_computes_are_refused() {
    refused(&[
        (json!({ "config": { "worker": { "listen": "0.0.0.0:80" } } }), "listen"),
        (json!({ "config": { "worker": { "slots": 2 } } }), "slots"),
        (json!({ "config": { "scratch": { "folder": "/tmp" } } }), "folder"),
        (json!({ "config": { "coordinator": { "listen": "0.0.0.0:80" } } }), "listen"),
        (json!({ "workers": { "cpu": { "extraEnv": [{ "name": "NARROWS_WORKER__DRAIN_S", "value": "5" }] } } }), "extraEnv"),
        (json!({ "coordinator": { "extraEnv": [{ "name": "NARROWS_LOG__LEVEL", "value": "trace" }] } }), "extraEnv"),
    ]);
}

#[test]
fn a_fleet_that_could_not_work_is_refused() {
    let scaled = |least: u32, most: u32| json!({ "workers": { "cpu": { "autoscaling": { "enabled": true, "minReplicas": least, "maxReplicas": most } } } });
    let folder = json!({ "stores": { "disk": { "type": "fs", "root": "/srv/disk" } } });
    refused(&[
        (json!({ "config": { "work": { "store": "elsewhere" } } }), "there is no store \"elsewhere\""),
        (json!({ "config": { "broker": { "kind": "memory" } } }), "/config/broker/kind"),
        (json!({ "config": folder }), "stores.disk is the folder \"/srv/disk\", which is on no volume"),
        (json!({ "workers": { "fpga": { "enabled": true } } }), "workers.fpga.class: is \"fpga\""),
        (json!({ "workers": { "cpu": { "class": "fpga" } } }), "/workers/cpu/class"),
        (json!({ "workers": { "cpu": { "slots": 0 } } }), "/workers/cpu/slots"),
        (json!({ "workers": { "cpu": { "scratch": { "size": "1Gi" } } } }), "less than one part needs"),
        (json!({ "workers": { "cpu": { "scratch": { "size": "64GB" } } } }), "/workers/cpu/scratch/size"),
        (scaled(0, 5), "nobody would notice work"),
        (scaled(7, 5), "minReplicas 7 is more than maxReplicas 5"),
        (json!({ "coordinator": { "ingress": { "enabled": true } } }), "/coordinator/ingress/hosts"),
        (json!({ "security": { "seccompProfile": { "type": "Unconfined" } } }), "/security/seccompProfile/type"),
        (json!({ "security": { "seccompProfile": { "type": "Localhost" } } }), "localhostProfile"),
        (json!({ "security": { "runAsUser": -1 } }), "/security/runAsUser"),
        (json!({ "ports": { "worker": 70000 } }), "/ports/worker"),
        (json!({ "image": { "digest": "sha256:12" } }), "/image/digest"),
    ]);
    // The program itself would not start: anybody could submit.
    let open = json!({ "files": [set("workers-only")], "values": { "coordinator": { "enabled": true } } });
    let error = render(vec![open]).remove(0).error.expect("a coordinator without anybody's key");
    assert!(error.contains("no tenant has an access_key_id"), "{error}");
}
