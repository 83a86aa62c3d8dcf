//! The document of the API, OpenAPI 3.1, written from [`CALLS`] and [`SPECIAL_CALLS`]: what a call takes is told in one
//! place.
//!
//! It holds no secret and is the same for everybody, so that it is answered without a key.

use serde_json::{Map, Value, json};

use super::call::{Call, SpecialCall, Verb};
use super::contract::{DRY_RUN, Given, Kind, NUMBER_MAX, Parameter, Shape, TITLE_CHARS_MAX};
use super::{CALLS, PREFIX, SPECIAL_CALLS, import};
use crate::cake::REVISION_HEADER;
use crate::types::Country;

/// The whole document.
pub fn document() -> Value {
    let path = |name: &str, verb: Verb, operation: Value| {
        let method = if verb == Verb::Read { "get" } else { "post" };
        (format!("{PREFIX}/{name}"), json!({ method: operation }))
    };
    let calls = CALLS.iter().map(|call| path(call.name, call.verb, operation(call)));
    let special = SPECIAL_CALLS.iter().map(|call| path(call.name, call.verb, special_operation(call)));
    let paths: Map<String, Value> = calls.chain(special).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "smartlink's CAKE API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT OR Apache-2.0"},
            "description": ABOUT,
        },
        "servers": [{"url": "/", "description": "The admin listener of the node that runs the API."}],
        "security": [{"bearer": []}, {"query": []}],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "responses": refusals(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "query": {
                    "type": "apiKey", "in": "query", "name": "api_key",
                    "description": KEY_ABOUT,
                },
            },
        },
    })
}

fn operation(call: &Call) -> Value {
    let example: Value = serde_json::from_str(call.example).unwrap_or_default();
    let mut responses =
        responses(call.answer, if call.verb == Verb::Read { STATUSES } else { STATUSES_OF_CHANGES });
    if call.verb == Verb::Read {
        responses["200"]["headers"] = json!({REVISION_HEADER: revision_header()});
    }
    let mut operation = json!({
        "operationId": operation_id(call.name, call.verb),
        "summary": call.about,
        "responses": responses,
    });
    match call.verb {
        Verb::Read => {
            operation["parameters"] = in_query(call.parameters, &example).into();
        }
        Verb::Write => {
            operation["parameters"] = json!([precondition()]);
            let parameters = [call.parameters, &[DRY_RUN]].concat();
            operation["requestBody"] = json!({
                "required": true,
                "content": {
                    "application/json": {"schema": body(&parameters, schema), "example": example},
                    "application/x-www-form-urlencoded": {"schema": body(&parameters, form_schema)},
                },
            });
        }
    }
    operation
}

/// A call whose body, if it has one, is told by a schema of its own.
fn special_operation(call: &SpecialCall) -> Value {
    let example: Value = serde_json::from_str(call.example).unwrap_or_default();
    let mut responses = responses(call.answer, call.statuses);
    let mut parameters = in_query(call.parameters, &example);
    if let Shape::Lines { .. } = call.answer {
        responses["200"]["headers"] = json!({REVISION_HEADER: revision_header(), "ETag": tag_header()});
        responses["304"]["headers"] = json!({"ETag": tag_header()});
        parameters.push(json!({
            "name": "If-None-Match", "in": "header", "required": false,
            "description": "An `ETag` that was answered before: of the same state, nothing is told again.",
            "schema": {"type": "string"},
        }));
    }
    let mut operation = json!({
        "operationId": operation_id(call.name, call.verb),
        "summary": call.about,
        "responses": responses,
    });
    if call.body.is_empty() {
        operation["parameters"] = parameters.into();
    } else {
        if call.name == import::CALL.name {
            operation["parameters"] = json!([precondition()]);
        }
        let body = json!({"$ref": format!("#/components/schemas/{}", call.body)});
        operation["requestBody"] = json!({
            "required": true,
            "content": {"application/json": {"schema": body, "example": example}},
        });
    }
    operation
}

fn operation_id(name: &str, verb: Verb) -> String {
    let id = name.split('.').next().unwrap_or_default();
    format!("{}{id}", if verb == Verb::Read { "list_" } else { "" })
}

fn responses(shape: Shape, statuses: &[&str]) -> Value {
    let content = match shape {
        Shape::Lines { .. } => json!({"application/x-ndjson": {"schema": answer(shape)}}),
        _ => json!({"application/json": {"schema": answer(shape)}}),
    };
    let mut responses = json!({"200": {"description": "Done.", "content": content}});
    for status in statuses {
        responses[*status] = match *status {
            "304" => json!({"description": "The caller has this state."}),
            _ => json!({"$ref": format!("#/components/responses/{status}")}),
        };
    }
    responses
}

fn revision_header() -> Value {
    json!({
        "description": "The state of the network that the answer tells of; pages with the same one fit together.",
        "schema": {"type": "string"},
    })
}

/// The header by which a change may be bound to a state.
fn precondition() -> Value {
    json!({
        "name": "If-Match", "in": "header", "required": false,
        "description": format!(
            "The state in which the change may be done, in quotes: the `{REVISION_HEADER}` of what the caller has read. \
             In any other, the answer is 412."
        ),
        "schema": {"type": "string"},
    })
}

fn tag_header() -> Value {
    json!({"description": "The name of the state, in quotes.", "schema": {"type": "string"}})
}

fn in_query(parameters: &[Parameter], example: &Value) -> Vec<Value> {
    let told = |parameter: &Parameter| {
        json!({
            "name": parameter.name, "in": "query", "required": parameter.required,
            "description": parameter.about, "schema": schema(parameter),
            "example": example[parameter.name],
        })
    };
    parameters.iter().map(told).collect()
}

fn body(parameters: &[Parameter], schema: fn(&Parameter) -> Value) -> Value {
    let properties: Map<String, Value> = parameters
        .iter()
        .map(|parameter| {
            let mut schema = schema(parameter);
            schema["description"] = parameter.about.into();
            (parameter.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<&str> =
        parameters.iter().filter(|parameter| parameter.required).map(|parameter| parameter.name).collect();
    let mut body = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    if let Some(parameter) = parameters.iter().find(|parameter| !parameter.instead_of.is_empty()) {
        body["anyOf"] = json!([{"required": [parameter.name]}, {"required": parameter.instead_of}]);
    }
    body
}

/// A form knows no null, and an object stands in it as JSON.
fn form_schema(parameter: &Parameter) -> Value {
    match parameter.kind {
        Kind::Conditions => json!({
            "type": "string", "contentMediaType": "application/json", "contentSchema": schema(parameter),
        }),
        _ => schema(&Parameter { removable: false, ..*parameter }),
    }
}

fn schema(parameter: &Parameter) -> Value {
    let mut schema = match parameter.kind {
        Kind::Id => json!({"type": "integer", "minimum": 1, "maximum": NUMBER_MAX}),
        Kind::Sought => json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}),
        Kind::Whole(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Amount => json!({"type": "number", "minimum": 0}),
        Kind::Truth => json!({"type": "boolean"}),
        Kind::Title => json!({"type": "string", "minLength": 1, "maxLength": TITLE_CHARS_MAX}),
        Kind::Text => json!({"type": "string"}),
        Kind::OneOf(known) => json!({"type": "string", "enum": known}),
        Kind::Moment => {
            json!({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}$"})
        }
        Kind::Countries => {
            let code = country_pattern();
            json!({"type": "string", "pattern": format!("^{code}(,{code})*$")})
        }
        Kind::CountryList => {
            let code = json!({"type": "string", "pattern": format!("^{}$", country_pattern())});
            let text = schema(&Parameter { kind: Kind::Countries, ..*parameter });
            json!({"oneOf": [text, {"type": "array", "minItems": 1, "items": code}]})
        }
        Kind::Conditions => json!({"$ref": "#/components/schemas/Conditions"}),
        Kind::Single => json!({"type": ["string", "number", "boolean"]}),
    };
    if parameter.removable {
        match &mut schema["type"] {
            Value::Array(kinds) => kinds.push("null".into()),
            kind => *kind = json!([kind.take(), "null"]),
        }
    }
    if let Some(default) = parameter.default {
        schema["default"] = match default {
            Given::Number(number) => number.into(),
            Given::Text(text) => text.into(),
            Given::Truth(truth) => truth.into(),
        };
    }
    schema
}

fn country_pattern() -> String {
    let codes: Vec<&str> = Country::all().map(Country::as_str).collect();
    format!("({})", codes.join("|"))
}

fn answer(shape: Shape) -> Value {
    let item = |item: &str| json!({"$ref": format!("#/components/schemas/{item}")});
    let page = |noun: &str, name: &str| json!({noun: {"type": "array", "items": item(name)}, "total_rows": {"type": "integer", "minimum": 0}});
    match shape {
        Shape::Page { noun, item } => envelope(json!({"response": closed(page(noun, item))})),
        Shape::OpenPage { noun, item } => envelope(page(noun, item)),
        Shape::Under { item: name } => envelope(json!({"response": item(name)})),
        Shape::Told { item: name, messages } => {
            envelope(json!({"message": {"enum": messages}, "response": item(name)}))
        }
        Shape::Open { item: name } => envelope(schemas()[name]["properties"].take()),
        Shape::Lines { item: name } => json!({
            "type": "string", "contentMediaType": "application/x-ndjson", "contentSchema": item(name),
            "description": "Lines of JSON; `contentSchema` is that of each. An answer without a line `end` broke off.",
        }),
        Shape::Either(one, all) => json!({"oneOf": [answer(*one), answer(*all)]}),
    }
}

fn envelope(mut members: Value) -> Value {
    members["request_status"] = json!({"const": "Success"});
    closed(members)
}

/// An object with all of these members, and no others.
fn closed(members: Value) -> Value {
    let required: Vec<String> =
        members.as_object().map(|members| members.keys().cloned().collect()).unwrap_or_default();
    json!({"type": "object", "properties": members, "required": required, "additionalProperties": false})
}

fn refusals() -> Value {
    let refusal = |status: &str, about: &str| {
        let mut response = json!({
            "description": about,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        });
        if status == "429" {
            response["headers"] = json!({"Retry-After": {
                "description": "Seconds.", "schema": {"type": "integer", "minimum": 1},
            }});
        }
        response
    };
    REFUSALS
        .iter()
        .map(|(status, about)| ((*status).to_owned(), refusal(status, about)))
        .collect::<Map<_, _>>()
        .into()
}

/// The items of answers, and what special calls take. A test reads them, so that they are JSON.
fn schemas() -> Value {
    let mut schemas: Value = serde_json::from_str(include_str!("schemas.json")).unwrap_or_default();
    let mut lists = Map::new();
    for noun in import::NOUNS {
        lists.insert(noun.list.to_owned(), json!({"type": "array", "items": body(&noun.members(), schema)}));
    }
    lists.insert(
        "replace".to_owned(),
        json!({"type": "boolean", "default": false, "description": REPLACE_ABOUT}),
    );
    schemas[import::CALL.body] =
        json!({"type": "object", "properties": lists, "additionalProperties": false});
    schemas
}

/// Every status that a call of [`CALLS`] may have beside 200.
const STATUSES: &[&str] = &["400", "401", "404", "405", "408", "413", "422", "429", "500"];

/// The same, of a call that changes the network.
const STATUSES_OF_CHANGES: &[&str] = &["400", "401", "404", "405", "408", "412", "413", "422", "429", "500"];

/// What each status says.
const REFUSALS: &[(&str, &str)] = &[
    ("400", "A parameter is missing, repeated, unknown or not of its type, or the body cannot be read."),
    ("401", "No key came with the call, or a wrong one."),
    ("404", "A parameter names what is not there, or there is no such call."),
    ("405", "The call takes another method, which `Allow` names."),
    ("408", "The body did not come in time."),
    ("409", "A later request of the same node came first."),
    ("412", "The network is in another state than `If-Match` names; nothing was changed."),
    ("413", "The body is too long."),
    ("422", "A parameter is well-formed, but its value is refused."),
    ("429", "The key was used too often; `Retry-After` says how long to wait."),
    ("500", "The call failed inside the server; nothing was changed."),
    ("503", "The ledger of caps cannot answer; nothing was changed."),
];

const KEY_ABOUT: &str = "\
Or `api_key` among the parameters of a body, as CAKE has it; not in a body of `cap_lease.json` or of \
`record_conversions.json`.";

const REPLACE_ABOUT: &str =
    "Whether what no item names is removed. Then every list must be there, be it empty.";

const ABOUT: &str = "\
The calls of CAKE that concern smart links, with the same parameters, defaults and envelopes, and those that CAKE does \
not document, in the same manner.\n\n\
The parameters of a GET stand in the query, those of a POST in the body, as JSON or as a form. A number, a truth value \
or an object may also be sent as text. An empty parameter of a query is no filter. Lists also answer HEAD.\n\n\
A call that is refused changes nothing.";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::backoffice::parameters::Parameters;
    use crate::backoffice::store::Store;
    use crate::backoffice::{Limits, Options, demo};
    use crate::cake::Key;
    use crate::cake::wire::{CONDITION_NAMES, LINK_STATUSES, OFFER_STATUSES};
    use crate::routing::{DestinationPolicy, Zone};

    /// Runs each call with its example and with nothing, on the demonstration network, and compares what it read.
    #[test]
    fn a_call_reads_what_it_tells_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("cake.db")).unwrap();
        let options = Options {
            api_key: tokio::sync::watch::channel(Key::new("key").unwrap()).1,
            public_base_url: "https://go.example.com".to_owned(),
            zone: Zone::parse("UTC").unwrap(),
            destination_policy: DestinationPolicy::default(),
            limits: Limits::default(),
        };
        demo::seed(&store, &options).unwrap();
        for call in CALLS {
            let told: BTreeSet<String> =
                call.parameters.iter().map(|parameter| parameter.name.to_owned()).collect();
            let example: Map<String, Value> = serde_json::from_str(call.example).unwrap();
            assert_eq!(example.keys().cloned().collect::<BTreeSet<_>>(), told, "{}: its example", call.name);
            let mut read = BTreeSet::new();
            for fields in [example, Map::new()] {
                let wanted = !fields.is_empty() || call.verb == Verb::Read;
                let asked = Parameters::from(fields);
                let run = store.write(|transaction| (call.run)(transaction, &options, &asked));
                assert!(run.is_ok() == wanted, "{}: {run:?}", call.name);
                read.append(&mut asked.names_read());
            }
            assert_eq!(read, told, "{}", call.name);
        }
    }

    #[test]
    fn every_call_is_told_and_every_change_says_of_what() {
        assert_eq!(document()["paths"].as_object().unwrap().len(), CALLS.len() + SPECIAL_CALLS.len());
        for call in CALLS.iter().filter(|call| call.verb == Verb::Write) {
            let says_of_what = |parameter: &Parameter| parameter.required || !parameter.instead_of.is_empty();
            assert!(call.parameters.iter().any(says_of_what), "{}", call.name);
        }
    }

    #[test]
    fn the_items_are_those_of_the_wire() {
        let schemas = schemas();
        let names: Vec<&String> = schemas["Conditions"]["properties"].as_object().unwrap().keys().collect();
        let mut known = CONDITION_NAMES.to_vec();
        known.sort_unstable();
        assert_eq!(names, known);
        let statuses = |item: &str, name: &str| schemas[item]["properties"][name]["enum"].clone();
        assert_eq!(statuses("SmartLink", "smart_link_status"), json!(LINK_STATUSES));
        assert_eq!(statuses("Offer", "offer_status"), json!(OFFER_STATUSES));
    }
}
