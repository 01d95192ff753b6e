//! The schema of `config` has exactly the fields of the program, no more and no fewer, but for those that the chart computes.

use super::helm;
use narrows::config::Config;
use serde_json::Value;
use std::collections::BTreeSet;

/// A field that no section has.
const NONE: &str = "no_such_field";
/// What the chart computes; refused in `config`.
const COMPUTED: [(&str, &[&str]); 3] = [
    ("worker", &["name", "slots", "software", "listen"]),
    ("scratch", &["folder", "worker_bytes"]),
    ("coordinator", &["listen"]),
];

/// The fields that a section of the program's settings has: it names them when it is given another.
fn fields(section: &str) -> BTreeSet<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let head = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
    std::fs::write(file.path(), format!("{head}{NONE} = 1\n")).unwrap();
    let reason = Config::load(Some(file.path()), std::iter::empty()).unwrap_err().reason;
    // "unknown field `x`, expected one of `a`, `b`", then perhaps where.
    let list = reason.split_once("`, expected ").unwrap_or_else(|| panic!("[{section}] is not strict: {reason}")).1;
    list.lines().next().unwrap_or_default().split('`').skip(1).step_by(2).map(str::to_string).collect()
}

fn schema() -> Value {
    serde_json::from_str(&std::fs::read_to_string(helm::chart().join("values.schema.json")).unwrap()).unwrap()
}

fn properties(section: &Value) -> BTreeSet<String> {
    assert_eq!(section["additionalProperties"], false, "{section}");
    section["properties"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn every_section_takes_the_fields_that_the_program_takes() {
    let schema = schema();
    let config = &schema["definitions"]["config"];
    assert_eq!(properties(config), fields(""));
    let sections = config["properties"].as_object().unwrap();
    for (section, taken) in sections.iter().filter(|(name, _)| !["stores", "tenants"].contains(&name.as_str())) {
        let mut expected = fields(section);
        for (_, computed) in COMPUTED.iter().filter(|(name, _)| name == section) {
            for field in *computed {
                assert!(expected.remove(*field), "{section}.{field} is no field of the program");
            }
        }
        assert_eq!(properties(taken), expected, "{section}");
    }
    let inner = |path: &str| config.pointer(path).unwrap();
    assert_eq!(properties(inner("/properties/worker/properties/lanes")), fields("worker.lanes"));
    let traces = inner("/properties/telemetry/properties/traces");
    assert_eq!(properties(traces), fields("telemetry.traces"));
    let operator = inner("/properties/coordinator/properties/operator");
    assert_eq!(properties(operator), fields("coordinator.operator"));
    let store = inner("/properties/stores/additionalProperties");
    assert_eq!(properties(store), fields("stores.x"));
    let tenant = inner("/properties/tenants/additionalProperties");
    assert_eq!(properties(tenant), fields("tenants.x"));
    let quota = inner("/properties/tenants/additionalProperties/properties/quota");
    assert_eq!(properties(quota), fields("tenants.x.quota"));
}

/// Every part of a schema that says which fields there are.
fn tables<'a>(part: &'a Value, path: &str, found: &mut Vec<(String, &'a Value)>) {
    match part {
        Value::Object(fields) => {
            if fields.contains_key("properties") && fields.get("type") == Some(&"object".into()) {
                found.push((path.to_string(), part));
            }
            for (name, inner) in fields {
                tables(inner, &format!("{path}/{name}"), found);
            }
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(n, item)| tables(item, &format!("{path}/{n}"), found)),
        _ => {}
    }
}

#[test]
fn no_table_takes_fields_that_nobody_knows() {
    let schema = schema();
    let mut found = Vec::new();
    tables(&schema, "", &mut found);
    assert!(found.len() > 40, "{}", found.len());
    for (path, table) in found {
        assert_eq!(table["additionalProperties"], false, "{path}");
    }
}
