//! The document of the API: its form, and that what it says is what the running API does.

#[path = "support/api.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde::Serialize;
use serde_json::{Value, json};
use smartlink::cake::Lines;
use smartlink::cake::wire::OfferCap;
use smartlink::ledger::{Conversion, Grant, LeaseItem, LeaseReply, LeaseRequest, Recorded, Standing};
use smartlink::types::{AffiliateId, CapInterval, CapKey, CapKind, OfferId};
use support::{Api, JSON, KEY, zone};
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
        let expected: &[&str] = match call_of(path) {
            "network.json" => &["200", "304", "400", "401", "405", "429", "500"],
            "import_network.json" => &["200", "400", "401", "405", "408", "412", "413", "422", "429", "500"],
            "cap_lease.json" => &["200", "400", "401", "405", "408", "409", "413", "429", "500", "503"],
            "record_conversions.json" => &["200", "400", "401", "405", "408", "413", "429", "500", "503"],
            _ if method == "post" => {
                &["200", "400", "401", "404", "405", "408", "412", "413", "422", "429", "500"]
            }
            _ => &["200", "400", "401", "404", "405", "408", "413", "422", "429", "500"],
        };
        assert_eq!(statuses, expected, "{path}");
        for response in told["responses"].as_object().unwrap().values() {
            assert!(resolved(&document, response)["description"].is_string(), "{path}: {response}");
        }
        assert_eq!(told["requestBody"].is_object(), method == "post", "{path}");
        for parameter in told["parameters"].as_array().into_iter().flatten() {
            assert!(["query", "header"].contains(&parameter["in"].as_str().unwrap()), "{parameter}");
            assert!(parameter["schema"]["type"].is_string(), "{parameter}");
            assert!(parameter["description"].is_string() && parameter["name"].is_string(), "{parameter}");
        }
    }
}

#[test]
fn examples_are_accepted_and_answers_are_as_told() {
    let (api, document) = start();
    for operation in operations(&document) {
        let Operation { path, told, .. } = &operation;
        let answers = told["responses"]["200"]["content"].as_object().unwrap();
        let (kind, schema) = answers.iter().next().map(|(kind, told)| (kind, &told["schema"])).unwrap();
        for reply in requests(&api, &operation) {
            let head = (reply.status.as_u16(), reply.headers["content-type"].to_str().unwrap());
            assert_eq!(head, (200, &**kind), "{path}: {}", reply.text);
            for name in told["responses"]["200"]["headers"].as_object().into_iter().flatten() {
                assert!(reply.headers.contains_key(name.0), "{path} does not answer {}", name.0);
            }
            if kind == "application/json" {
                assert_conforms(&document, schema, &reply.success(), path);
            } else {
                assert!(conforms_in_lines(&document, schema, &reply.text) > 0);
            }
        }
        // A number that each list refuses.
        let number = if path.ends_with("/revision.json") { "wait" } else { "row_limit" };
        let body = |fields: Value| api.send(Method::POST, path, JSON, fields.to_string());
        let (refused, said) = match (operation.method.as_str(), call_of(path)) {
            (_, "network.json") => (api.get("network.json?since=a&since=b"), "`since` is given twice"),
            ("get", _) => {
                (api.send(Method::GET, &format!("{path}?{number}=-1&api_key={KEY}"), &[], ""), number)
            }
            (_, "cap_lease.json") => {
                (api.post_raw("cap_lease.json", JSON[0].1, "{}"), "missing field `node`")
            }
            (_, "record_conversions.json") => {
                (api.post_raw("record_conversions.json", JSON[0].1, "{}"), "expected a sequence")
            }
            _ => (body(json!({"api_key": KEY, "misspelt": 1})), "`misspelt`"),
        };
        refused.refused(400, &[said]);
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

/// Of a network with a line of every kind, and each member that a line may have.
#[test]
fn every_line_of_a_network_is_as_told() {
    let (api, document) = start();
    let operation = &document["paths"]["/api/2/network.json"]["get"];
    let schema = &operation["responses"]["200"]["content"]["application/x-ndjson"]["schema"];
    let before = api.get("network.json");
    let tag = before.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(tag.trim_matches('"'), before.headers["smartlink-revision"].to_str().unwrap());

    let many: Vec<Value> = (1..=300)
        .map(|id| json!({"offer_id": id, "offer_name": "x", "offer_url": "https://shop.example.com/"}))
        .collect();
    let attached: Vec<Value> = (1..=300).map(|id| json!({"smart_link_id": 7, "offer_id": id})).collect();
    let link = json!({"smart_link_id": 7, "smart_link_name": "x", "affiliate_id": 9, "smart_link_status": "inactive",
                      "rotation_type": "even", "cap_aware": false, "fallback_url": "https://www.example.com/"});
    let cap = json!({"offer_id": 1, "cap_type": "click", "cap_interval": "daily", "cap_amount": 5});
    let mut network =
        json!({"offers": many, "smart_links": [link], "smart_link_offers": attached, "offer_caps": [cap]});
    network["offers"][0]["payout"] = json!(4.5);
    network["offers"][0]["expiration_date"] = "2027-01-31 23:59:59".into();
    api.post("import_network.json", network).success();

    let whole = api.get("network.json").text;
    let since = api.get(&format!("network.json?since={}", tag.trim_matches('"'))).text;
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for text in [&whole, &since] {
        assert!(conforms_in_lines(&document, schema, text) > 300);
        for line in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            for (kind, item) in line.as_object().unwrap() {
                let members = item.as_object().into_iter().flatten().map(|(name, _)| name.clone());
                seen.entry(kind.clone()).or_default().extend(members);
            }
        }
    }
    let told = document["components"]["schemas"]["NetworkLine"]["properties"].as_object().unwrap();
    let told: BTreeMap<String, BTreeSet<String>> =
        told.iter().map(|(kind, told)| (kind.clone(), names(resolved(&document, told)))).collect();
    assert_eq!(seen, told);
    // What an older smartlink writes is read, and not told.
    let older = ["smart_link", "smart_link_offer", "routing_rule"].map(str::to_owned);
    let kinds: BTreeSet<String> = told.keys().cloned().chain(older).collect();
    assert_eq!(expected_by_serde("{\"planet\":{}}\n"), kinds);

    let headers = [
        ("authorization", &*format!("Bearer {KEY}")),
        ("if-none-match", before.headers["etag"].to_str().unwrap()),
    ];
    let again = api.send(Method::GET, "/api/2/network.json", &headers, "");
    assert_eq!(again.status, 200, "it has another state by now");
    let headers = [headers[0], ("if-none-match", again.headers["etag"].to_str().unwrap())];
    let known = api.send(Method::GET, "/api/2/network.json", &headers, "");
    assert_eq!((known.status.as_u16(), &*known.text), (304, ""));
    for name in operation["responses"]["304"]["headers"].as_object().unwrap().keys() {
        assert!(known.headers.contains_key(name), "{name}");
    }
}

/// The messages that the ledger knows, written out here with every member: one that is not told, or is told and is none,
/// is a difference.
#[test]
fn what_nodes_and_the_ledger_say_is_as_told() {
    let (api, document) = start();
    let cap = CapKey {
        offer: OfferId::new(1042).unwrap(),
        affiliate: AffiliateId::new(67890),
        kind: CapKind::Click,
        interval: CapInterval::Daily,
    };
    let item = LeaseItem { cap, window: Some(1), spent: 1, returned: 1, wants: 1, holds: 1, counted: 1 };
    let request = LeaseRequest {
        node: "a".to_owned(),
        epoch: u64::MAX,
        sequence: 1,
        news_since: 0,
        ledger: Some(u64::MAX),
        items: vec![item],
    };
    let grant = Grant { cap, window: 1, granted: 1, ends_in_ms: Some(1) };
    let standing = Standing { cap, closed: true, wanted: true, recalled: true, ends_in_ms: Some(1) };
    let reply =
        LeaseReply { ledger: u64::MAX, sequence: 1, news: 1, grants: vec![grant], standings: vec![standing] };
    let conversion = Conversion {
        click_id: "x".to_owned(),
        event: 1,
        transaction: "x".to_owned(),
        offer_id: 1,
        affiliate_id: 1,
        smart_link_id: 1,
        clicked_at: 1,
        amount: Some("1.5".to_owned()),
    };
    assert_told(&document, "LeaseRequest", &request);
    assert_told(&document, "LeaseReply", &reply);
    assert_told(&document, "Conversions", &vec![conversion]);
    let told = &document["components"]["schemas"]["RecordedConversions"]["items"]["enum"];
    assert_eq!(told, &serde_json::to_value([Recorded::Counted, Recorded::Repeated]).unwrap());

    // With the cap of the example in force, so that something is granted.
    let body = |call: &str| &document["paths"][format!("/api/2/{call}")]["post"]["requestBody"]["content"]["application/json"];
    let lease = body("cap_lease.json");
    let cap: OfferCap = serde_json::from_value(json!({
        "offer_id": 1042, "cap_type": "click", "cap_interval": "daily", "cap_amount": 10,
    }))
    .unwrap();
    api.define(vec![cap.read(&zone()).unwrap()]);
    let mut fields = lease["example"].clone();
    fields["node"] = "another".into();
    // News that the ledger has not told: then it tells how every cap stands.
    fields["news_since"] = u64::MAX.into();
    let answer = api.post_raw("cap_lease.json", JSON[0].1, fields.to_string()).success();
    let granted = &answer["response"];
    assert!(!granted["grants"].as_array().unwrap().is_empty(), "{answer}");
    assert!(!granted["standings"].as_array().unwrap().is_empty(), "{answer}");
    let schema = &document["paths"]["/api/2/cap_lease.json"]["post"]["responses"]["200"]["content"];
    assert_conforms(&document, &schema["application/json"]["schema"], &answer, "cap_lease.json");
    fields["sequence"] = 5.into();
    api.post_raw("cap_lease.json", JSON[0].1, fields.to_string()).success();
    fields["sequence"] = 4.into();
    api.post_raw("cap_lease.json", JSON[0].1, fields.to_string()).refused(409, &["another"]);

    for call in ["cap_lease.json", "record_conversions.json"] {
        let told = body(call);
        for (place, schema) in objects_of(&document, &told["schema"], &told["example"]) {
            let required: BTreeSet<&str> = texts(&schema["required"]);
            for name in schema["properties"].as_object().unwrap().keys() {
                let mut fields = told["example"].clone();
                fields.pointer_mut(&place).unwrap().as_object_mut().unwrap().remove(name);
                let reply = api.post_raw(call, JSON[0].1, fields.to_string());
                if required.contains(&**name) {
                    reply.refused(400, &[&format!("missing field `{name}`")]);
                } else {
                    reply.success();
                }
            }
        }
    }
}

/// Each number of the messages at its bounds: they are taken or refused, and never fail the ledger.
#[test]
fn the_greatest_numbers_fail_no_ledger() {
    let (api, document) = start();
    let cap: OfferCap = serde_json::from_value(json!({
        "offer_id": 1042, "cap_type": "click", "cap_interval": "daily", "cap_amount": 10,
    }))
    .unwrap();
    api.define(vec![cap.read(&zone()).unwrap()]);
    let mut asked = 0;
    for call in ["cap_lease.json", "record_conversions.json"] {
        let path = format!("/api/2/{call}");
        let told = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"];
        for (place, schema) in objects_of(&document, &told["schema"], &told["example"]) {
            for (name, member) in schema["properties"].as_object().unwrap() {
                let member = resolved(&document, member);
                for bound in ["minimum", "maximum"].iter().filter_map(|bound| member.get(bound)) {
                    let mut fields = told["example"].clone();
                    if fields.get("node").is_some() {
                        fields["node"] = format!("node {asked}").into();
                    }
                    fields.pointer_mut(&place).unwrap()[name] = bound.clone();
                    let reply = api.post_raw(call, JSON[0].1, fields.to_string());
                    assert_eq!(reply.status, 200, "{name} is {bound}: {}", reply.text);
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 20);
}

/// An item of each list, with every member that is told.
#[test]
fn what_an_import_takes_is_as_told() {
    let (api, document) = start();
    let schema = &document["components"]["schemas"]["ImportedNetwork"];
    let unknown = api.post_raw("import_network.json", JSON[0].1, "{\"planet\": 1}").json();
    let mut known = names(schema);
    known.insert("api_key".to_owned());
    assert_eq!(quoted_after_expected(unknown["message"].as_str().unwrap()), known);

    let example = |call: &str| -> Value {
        document["paths"][format!("/api/2/{call}")]["post"]["requestBody"]["content"]["application/json"]["example"].clone()
    };
    let import = |list: &str, item: &Value| api.post("import_network.json", json!({ list: [item] }));
    let geo_targets = json!({"offer_id": 1042, "action": "allow", "countries": "US,CA"});
    for (list, item) in [
        ("offers", example("update_offer.json")),
        ("smart_links", example("update_smart_link.json")),
        ("offer_geo_targets", geo_targets),
        ("smart_link_offers", example("smart_link_offer.json")),
        ("routing_rules", example("update_routing_rule.json")),
        ("offer_caps", example("offer_cap.json")),
    ] {
        let told = &schema["properties"][list]["items"];
        assert_eq!(names(told), item.as_object().unwrap().keys().cloned().collect(), "{list}");
        import(list, &item).success();
        let required = texts(&told["required"]);
        for name in names(told) {
            let mut part = item.clone();
            part.as_object_mut().unwrap().remove(&name);
            let reply = import(list, &part);
            if required.contains(&*name) {
                reply.refused(400, &[&format!("{list}[0].{name}` is missing")]);
            } else {
                reply.success();
            }
        }
        let mut more = item.clone();
        more["planet"] = 1.into();
        import(list, &more).refused(400, &["planet", "is not a parameter"]);
    }
    let reply =
        import("offer_geo_targets", &json!({"offer_id": 1042, "action": "allow", "countries": ["US"]}));
    reply.success();
    import("offer_geo_targets", &json!({"offer_id": 1042, "action": "remove", "countries": ["US"]}))
        .refused(422, &["allow or block"]);
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

/// In the order in which their examples fit together: what is removed comes late, and an import, which takes numbers that
/// others would be given, last.
fn operations(document: &Value) -> Vec<Operation> {
    let mut operations: Vec<Operation> = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, told) in item.as_object().unwrap() {
            operations.push(Operation { path: path.clone(), method: method.clone(), told: told.clone() });
        }
    }
    operations
        .sort_by_key(|operation| (operation.path.contains("/import_"), operation.path.contains("/remove_")));
    operations
}

/// The example as the document writes it: in the query, or in a body as JSON; and a list without its filters.
fn requests(api: &Api, operation: &Operation) -> Vec<support::Reply> {
    let path = &operation.path;
    if operation.method == "post" {
        let mut fields = operation.told["requestBody"]["content"]["application/json"]["example"].clone();
        if ["cap_lease.json", "record_conversions.json"].contains(&call_of(path)) {
            assert!(!fields.is_null(), "{path} has no example");
            return vec![api.post_raw(call_of(path), JSON[0].1, fields.to_string())];
        }
        assert!(fields.is_object(), "{path} has no example");
        fields["api_key"] = KEY.into();
        return vec![api.send(Method::POST, path, JSON, fields.to_string())];
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("api_key", KEY);
    let parameters = operation.told["parameters"].as_array().unwrap();
    for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
        let example = &parameter["example"];
        let text = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
        query.append_pair(parameter["name"].as_str().unwrap(), &text);
    }
    let ask = |query: &str| api.send(Method::GET, &format!("{path}?{query}"), &[], "");
    vec![ask(&query.finish()), ask(&format!("api_key={KEY}"))]
}

/// The name of a call.
fn call_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

/// The members that an object may have.
fn names(schema: &Value) -> BTreeSet<String> {
    schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

fn texts(list: &Value) -> BTreeSet<&str> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap()).collect()
}

/// What serde says that it would have read instead of a line.
fn expected_by_serde(line: &str) -> BTreeSet<String> {
    quoted_after_expected(&Lines::default().push(line.as_bytes()).unwrap_err().to_string())
}

fn quoted_after_expected(message: &str) -> BTreeSet<String> {
    let (_, list) = message.split_once("expected one of ").unwrap_or_else(|| panic!("{message}"));
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Every object of the example, by its place, with its schema.
fn objects_of<'a>(document: &'a Value, schema: &'a Value, example: &Value) -> Vec<(String, &'a Value)> {
    fn collect<'a>(
        document: &'a Value,
        schema: &'a Value,
        value: &Value,
        place: String,
        found: &mut Vec<(String, &'a Value)>,
    ) {
        let schema = resolved(document, schema);
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    collect(document, &schema["properties"][name], member, format!("{place}/{name}"), found);
                }
                found.push((place, schema));
            }
            Value::Array(items) => {
                collect(document, &schema["items"], &items[0], format!("{place}/0"), found);
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(document, schema, example, String::new(), &mut found);
    assert!(!found.is_empty());
    found
}

/// Asserts that a message with all its members is as the schema of that name tells.
#[track_caller]
fn assert_told(document: &Value, name: &str, message: &impl Serialize) {
    let schema = json!({"$ref": format!("#/components/schemas/{name}")});
    let message = serde_json::to_value(message).unwrap();
    assert_conforms(document, &schema, &message, name);
    assert_same_members(document, &schema, &message, name);
}

/// Asserts that every object has every member that it is told to have.
#[track_caller]
fn assert_same_members(document: &Value, schema: &Value, value: &Value, what: &str) {
    for (place, schema) in objects_of(document, schema, value) {
        let members: BTreeSet<String> =
            value.pointer(&place).unwrap().as_object().unwrap().keys().cloned().collect();
        assert_eq!(members, names(schema), "{what}{place}");
    }
}

/// Asserts that each line conforms; how many there are.
#[track_caller]
fn conforms_in_lines(document: &Value, schema: &Value, text: &str) -> usize {
    assert_eq!(
        (&schema["type"], &schema["contentMediaType"]),
        (&"string".into(), &"application/x-ndjson".into())
    );
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| assert_conforms(document, &schema["contentSchema"], &line, "network.json")).count()
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
            "description" | "pattern" | "default" => true,
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
            // Of what is no number, nothing is asked.
            "minimum" => value.as_f64().is_none_or(|value| value >= wanted.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|value| value <= wanted.as_f64().unwrap()),
            "minItems" => value.as_array().unwrap().len() as u64 >= wanted.as_u64().unwrap(),
            "maxItems" => value.as_array().unwrap().len() as u64 <= wanted.as_u64().unwrap(),
            "minLength" => value.as_str().unwrap().chars().count() as u64 >= wanted.as_u64().unwrap(),
            "maxLength" => value.as_str().unwrap().chars().count() as u64 <= wanted.as_u64().unwrap(),
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
