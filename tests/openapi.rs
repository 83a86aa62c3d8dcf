//! The document of the API: its form, and that what it says is what the running API does.

#[path = "support/api.rs"]
mod support;

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};
use support::{Api, JSON, KEY};
use url::form_urlencoded;

/// One operation of the document.
struct Operation {
    path: String,
    method: String,
    told: Value,
}

#[test]
fn the_document_is_well_formed() {
    let (_api, document) = start();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 100);
    for reference in &references {
        let pointer = reference.strip_prefix('#').expect("a reference within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} points nowhere");
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in schemas.keys() {
        // What an answer spells out itself (`allOf` would not be closed) is told by its members.
        let unused = !references.contains(&format!("#/components/schemas/{name}"));
        assert!(!unused || ["OfferGeoTargets", "UpdatedGeoTargets"].contains(&name.as_str()), "{name}");
    }
    for scheme in document["security"].as_array().unwrap() {
        for name in scheme.as_object().unwrap().keys() {
            assert!(document["components"]["securitySchemes"][name].is_object(), "{name}");
        }
    }

    let operations = operations(&document);
    assert!(operations.len() >= 15);
    let ids: BTreeSet<&str> =
        operations.iter().map(|operation| operation.told["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), operations.len(), "an operationId stands twice");
    for Operation { path, method, told } in &operations {
        let statuses: Vec<&String> = told["responses"].as_object().unwrap().keys().collect();
        assert_eq!(
            statuses,
            ["200", "400", "401", "404", "405", "408", "413", "422", "429", "500"],
            "{path}"
        );
        for response in told["responses"].as_object().unwrap().values() {
            assert!(resolved(&document, response)["description"].is_string(), "{path}: {response}");
        }
        assert_eq!(told["requestBody"].is_object(), method == "post", "{path}");
        for parameter in told["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["in"] == "query" && parameter["schema"]["type"].is_string(), "{parameter}");
            assert!(parameter["description"].is_string() && parameter["name"].is_string(), "{parameter}");
        }
    }
}

#[test]
fn examples_are_accepted_and_answers_are_as_told() {
    let (api, document) = start();
    for operation in operations(&document) {
        let Operation { path, told, .. } = &operation;
        let schema = &told["responses"]["200"]["content"]["application/json"]["schema"];
        for reply in requests(&api, &operation) {
            let answer = reply.success();
            assert_conforms(&document, schema, &answer, path);
        }
        // A number that each call that reads refuses.
        let number = if path.ends_with("/revision.json") { "wait" } else { "row_limit" };
        let refused = match operation.method.as_str() {
            "get" => api.send(Method::GET, &format!("{path}?{number}=-1&api_key={KEY}"), &[], ""),
            _ => api.send(Method::POST, path, JSON, json!({"api_key": KEY, "misspelt": 1}).to_string()),
        };
        refused.refused(400, &[if operation.method == "get" { number } else { "`misspelt`" }]);
        let schema = resolved(&document, &told["responses"]["400"]);
        assert_conforms(&document, &schema["content"]["application/json"]["schema"], &refused.json(), path);
    }
}

#[test]
fn what_is_required_and_what_is_assumed_is_true() {
    let (api, document) = start();
    for Operation { path, told, .. } in operations(&document) {
        let content = &told["requestBody"]["content"]["application/json"];
        for name in content["schema"]["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap();
            let mut fields = content["example"].clone();
            fields.as_object_mut().unwrap().remove(name);
            fields["api_key"] = KEY.into();
            let reply = api.send(Method::POST, &path, JSON, fields.to_string());
            reply.refused(400, &[&format!("`{name}` is missing")]);
        }
        for parameter in told["parameters"].as_array().into_iter().flatten() {
            let (name, schema) = (parameter["name"].as_str().unwrap(), &parameter["schema"]);
            let ask =
                |value: &str| api.send(Method::GET, &format!("{path}?{name}={value}&api_key={KEY}"), &[], "");
            if !schema["default"].is_null() {
                let plain = schema["default"].to_string().replace('"', "");
                let without = api.send(Method::GET, &format!("{path}?api_key={KEY}"), &[], "").success();
                assert_eq!(ask(&plain).success(), without, "{path}: {name}");
            }
            if schema["type"] == "integer" && name.contains("row") {
                let least = schema["minimum"].as_i64().unwrap();
                let most = schema["maximum"].as_i64().unwrap();
                ask(&least.to_string()).success();
                ask(&most.to_string()).success();
                ask(&(least - 1).to_string()).refused(400, &[&format!("`{name}`")]);
                ask(&(i128::from(most) + 1).to_string()).refused(400, &[&format!("`{name}`")]);
            }
        }
    }
}

fn start() -> (Api, Value) {
    let api = Api::start();
    assert!(api.backoffice.seed_demo().unwrap());
    // Without a key: it holds no secret.
    let reply = api.send(Method::GET, "/api/openapi.json", &[], "");
    assert_eq!(reply.status, 200);
    let document = reply.json();
    (api, document)
}

/// In the order in which their examples fit together: what is removed comes last.
fn operations(document: &Value) -> Vec<Operation> {
    let mut operations: Vec<Operation> = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, told) in item.as_object().unwrap() {
            operations.push(Operation { path: path.clone(), method: method.clone(), told: told.clone() });
        }
    }
    operations.sort_by_key(|operation| operation.path.contains("/remove_"));
    operations
}

/// The example as the document writes it: in the query, or in a body as JSON; and a list without its filters.
fn requests(api: &Api, operation: &Operation) -> Vec<support::Reply> {
    let path = &operation.path;
    if operation.method == "post" {
        let mut fields = operation.told["requestBody"]["content"]["application/json"]["example"].clone();
        assert!(fields.is_object(), "{path} has no example");
        fields["api_key"] = KEY.into();
        return vec![api.send(Method::POST, path, JSON, fields.to_string())];
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("api_key", KEY);
    for parameter in operation.told["parameters"].as_array().unwrap() {
        let example = &parameter["example"];
        let text = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
        query.append_pair(parameter["name"].as_str().unwrap(), &text);
    }
    let ask = |query: &str| api.send(Method::GET, &format!("{path}?{query}"), &[], "");
    vec![ask(&query.finish()), ask(&format!("api_key={KEY}"))]
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|value| collect_references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap(),
        None => value,
    }
}

#[track_caller]
fn assert_conforms(document: &Value, schema: &Value, value: &Value, path: &str) {
    if let Err(problem) = conforms(document, schema, value) {
        panic!("{path}: {problem} in {value}");
    }
}

/// The keywords of JSON Schema that the document uses for answers. One that is not known here is an error.
fn conforms(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let members = schema.as_object().ok_or_else(|| format!("{schema} is no schema"))?;
    for (keyword, wanted) in members {
        let good = match keyword.as_str() {
            "description" | "pattern" => true,
            "$ref" => {
                conforms(document, resolved(document, schema), value)?;
                true
            }
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "type" => match wanted {
                Value::Array(kinds) => kinds.iter().any(|kind| is(value, kind)),
                kind => is(value, kind),
            },
            "minimum" => value.as_f64() >= wanted.as_f64(),
            "maximum" => value.as_f64() <= wanted.as_f64(),
            "minItems" => value.as_array().unwrap().len() as u64 >= wanted.as_u64().unwrap(),
            "minProperties" => value.as_object().unwrap().len() as u64 >= wanted.as_u64().unwrap(),
            "maxProperties" => value.as_object().unwrap().len() as u64 <= wanted.as_u64().unwrap(),
            "required" => {
                wanted.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "additionalProperties" => {
                assert_eq!(wanted, &Value::Bool(false));
                value.as_object().unwrap().keys().all(|name| schema["properties"].get(name).is_some())
            }
            "properties" => {
                for (name, schema) in wanted.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        conforms(document, schema, value).map_err(|problem| format!("{name}: {problem}"))?;
                    }
                }
                true
            }
            "items" => {
                value.as_array().unwrap().iter().try_for_each(|item| conforms(document, wanted, item))?;
                true
            }
            "oneOf" => {
                let fitting = wanted.as_array().unwrap().iter();
                fitting.filter(|schema| conforms(document, schema, value).is_ok()).count() == 1
            }
            unknown => return Err(format!("`{unknown}` is not checked")),
        };
        if !good {
            return Err(format!("{keyword} is not {wanted}"));
        }
    }
    Ok(())
}

fn is(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    }
}
