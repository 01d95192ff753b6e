//! The contract is the API: every route is in it, and every answer of the tests is one that it allows.

use super::Server;
use super::client::Answer;
use crate::coordinator::api::{OPENAPI, pages, routes};
use crate::event::rfc3339;
use serde_json::Value;
use std::collections::BTreeSet;

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// The answer has a status, a media type and a body that the contract lists for this route.
#[track_caller]
pub fn check(answer: &Answer, route: &str) {
    let document = document();
    let operation = &document["paths"][route][answer.method.to_lowercase()];
    assert!(operation.is_object(), "{} {route} is not in the contract", answer.method);
    let response = &operation["responses"][answer.status.to_string()];
    assert!(response.is_object(), "{} {route}: {} is not in the contract", answer.method, answer.status);
    if response["content"].is_null() {
        assert!(answer.body.is_empty(), "{} {route}: a body that is not in the contract", answer.method);
        return;
    }
    let media = answer.header("content-type").split(';').next().unwrap();
    let schema = &response["content"][media]["schema"];
    assert!(schema.is_object(), "{} {route}: {media} is not in the contract for {}", answer.method, answer.status);
    if !media.starts_with("text/") {
        let wrong = faults(&document, schema, &answer.json(), "");
        assert!(wrong.is_empty(), "{} {route}: {wrong:?} in {}", answer.method, answer.json());
    }
    if answer.status == 503 || answer.status == 429 {
        assert!(!answer.header("retry-after").is_empty());
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    }
}

fn has_format(value: &Value, name: &str) -> bool {
    let text = value.as_str().unwrap_or_default();
    match name {
        "date-time" => rfc3339::parse(text).is_some(),
        "date" => rfc3339::parse(&format!("{text}T00:00:00Z")).is_some(),
        other => panic!("{other} is no format that is checked"),
    }
}

/// What is wrong with a value, by the keywords that the contract uses; an unknown one is wrong, too.
pub fn faults(document: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let said = |what: &str| format!("{path}: {what}");
    for (keyword, rule) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "description" | "default" => {}
            "$ref" => {
                let name = rule.as_str().unwrap().trim_start_matches("#/components/schemas/");
                let target = &document["components"]["schemas"][name];
                assert!(target.is_object(), "{name} is no schema");
                wrong.extend(faults(document, target, value, path));
            }
            "type" if !has_type(value, rule.as_str().unwrap()) => wrong.push(said(&format!("is no {rule}"))),
            "type" => {}
            "enum" if !rule.as_array().unwrap().contains(value) => wrong.push(said(&format!("is none of {rule}"))),
            "enum" => {}
            "minimum" if value.as_f64().is_some_and(|n| n < rule.as_f64().unwrap()) => wrong.push(said("is too small")),
            "maximum" if value.as_f64().is_some_and(|n| n > rule.as_f64().unwrap()) => wrong.push(said("is too large")),
            "minLength" if value.as_str().is_some_and(|s| (s.len() as u64) < rule.as_u64().unwrap()) => {
                wrong.push(said("is too short"))
            }
            "maxLength" if value.as_str().is_some_and(|s| s.len() as u64 > rule.as_u64().unwrap()) => {
                wrong.push(said("is too long"))
            }
            "minimum" | "maximum" | "minLength" | "maxLength" => {}
            "format" if !has_format(value, rule.as_str().unwrap()) => wrong.push(said(&format!("is no {rule}"))),
            "format" => {}
            // The one pattern there is: of a job's id.
            "pattern" if crate::job::JobId::try_from(value.as_str().unwrap_or_default().to_string()).is_err() => {
                wrong.push(said("is no job id"));
            }
            "pattern" => {}
            "oneOf" => {
                let fitting = rule.as_array().unwrap().iter().filter(|one| faults(document, one, value, path).is_empty());
                if fitting.count() != 1 {
                    wrong.push(said("fits not one of the alternatives"));
                }
            }
            "required" => {
                for name in rule.as_array().unwrap().iter().filter_map(Value::as_str).filter(|n| value.get(*n).is_none()) {
                    wrong.push(said(&format!("lacks {name}")));
                }
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    wrong.extend(faults(document, rule, item, &format!("{path}[{n}]")));
                }
            }
            "properties" => {
                for (name, item) in value.as_object().into_iter().flatten() {
                    let own = rule.get(name).map(|rule| faults(document, rule, item, &format!("{path}.{name}")));
                    wrong.extend(own.unwrap_or_default());
                }
            }
            "additionalProperties" => {
                let known = |name: &String| schema["properties"].get(name).is_some();
                let others: Vec<_> = value.as_object().into_iter().flatten().filter(|(name, _)| !known(name)).collect();
                for (name, item) in others {
                    match rule {
                        Value::Bool(true) => {}
                        Value::Bool(false) => wrong.push(format!("{path}: has {name}, which is not in the contract")),
                        rule => wrong.extend(faults(document, rule, item, &format!("{path}.{name}"))),
                    }
                }
            }
            other => panic!("the contract uses {other}, which is not checked"),
        }
    }
    wrong
}

#[test]
fn what_does_not_fit_the_contract_is_found() {
    let document = document();
    let of = |name: &str, value: Value| {
        let schema = serde_json::json!({"$ref": format!("#/components/schemas/{name}")});
        faults(&document, &schema, &value, "").len()
    };
    use serde_json::json;
    assert_eq!(of("Rendition", json!({"name": "a", "playlist": "b", "at": "2023-11-14T22:13:20.000Z"})), 0);
    assert_eq!(of("Rendition", json!({"name": "a", "playlist": "b", "at": "today"})), 1);
    assert_eq!(of("Rendition", json!({"name": 7, "at": "2023-11-14T22:13:20.000Z", "x": 1})), 3);
    assert_eq!((of("State", json!("done")), of("JobId", json!("../x")), of("Canceled", json!(null))), (1, 1, 3));
    assert_eq!(of("JobPage", json!({"jobs": [], "next": null})), 0);
    assert_eq!(of("JobPage", json!({"jobs": [{}], "next": 5})), 7);
}

#[tokio::test]
async fn every_route_is_in_the_contract_with_its_methods_and_no_other() {
    let server = Server::start().await;
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let known: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    assert_eq!(routes().iter().chain(&pages()).map(|(path, _)| *path).collect::<BTreeSet<_>>(), known);
    for (path, item) in paths {
        let concrete = path.replace("{id}", "none");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let answer = server.operator.send(method, &concrete, &[], String::new()).await;
            match item.get(method.to_lowercase()) {
                Some(_) => check(&answer, path),
                None => {
                    assert_eq!(
                        (answer.status, answer.header("content-type")),
                        (405, "application/problem+json"),
                        "{method} {path}"
                    );
                    assert!(!answer.header("allow").is_empty(), "{method} {path}");
                }
            }
        }
    }
    server.stop().await;
}

#[test]
fn every_operation_has_a_name_of_its_own_and_every_schema_is_used() {
    let document = document();
    let mut names = BTreeSet::new();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values().filter(|o| o.is_object()) {
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_string()));
        }
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(OPENAPI.contains(&format!("#/components/schemas/{name}\"")), "nothing uses {name}");
    }
}
