//! `smartlink export` and `import`: the real binary, and the call behind it.

#[path = "support/api.rs"]
mod api;
#[path = "support/terminal.rs"]
mod node;

use std::fs;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use api::{Api, JSON, KEY};
use node::{Node, command, run};

/// A network with one of everything, every condition, and what CAKE documents and routing does not need.
fn network() -> Value {
    json!({
        "offers": [
            {"offer_id": 1042, "offer_name": "Card \"US\" ü", "offer_status": "active", "payout": 45.0,
             "offer_url": "https://shop.example.com/a?sub={sub_id}&r=#reqid#", "expiration_date": "2027-01-31 23:59:59",
             "advertiser_id": 11, "vertical_id": "7", "revenue": 60.25, "offer_description": "two\nlines"},
            {"offer_id": 7, "offer_name": "Loan", "offer_status": "paused", "offer_url": "https://loan.example.net/"},
        ],
        "smart_links": [
            {"smart_link_id": 301, "smart_link_name": "Finance", "affiliate_id": 67890, "smart_link_status": "active",
             "rotation_type": "even", "cap_aware": false, "fallback_url": "https://www.example.com/?l={smart_link_id}"},
            {"smart_link_id": 12, "smart_link_name": "Plain", "affiliate_id": 7},
        ],
        "offer_geo_targets": [
            {"offer_id": 1042, "action": "allow", "countries": ["US", "CA"]},
            {"offer_id": 7, "action": "block", "countries": ["GB"]},
        ],
        "smart_link_offers": [
            {"smart_link_id": 301, "offer_id": 1042, "offer_weight": 60, "priority": 2},
            {"smart_link_id": 12, "offer_id": 7},
        ],
        "routing_rules": [
            {"rule_id": 9, "smart_link_id": 301, "offer_id": 7, "priority": 1, "offer_weight": 0, "conditions": {
                "country": {"in": ["US", "CA"]}, "region": {"not_in": ["US-CA"]}, "city": {"in": ["Washington, D.C."]},
                "asn": {"in": [64496]}, "device": {"not_in": ["tablet"]}, "os": {"in": ["ios"]},
                "browser": {"in": ["safari"]}, "language": {"in": ["en"]}, "s1": {"in": ["a"]}, "s2": {"in": ["b"]},
                "s3": {"in": ["c"]}, "s4": {"in": ["d"]}, "s5": {"not_in": ["ü \"e\""]},
                "referrer_host": {"in": ["*.example.com"]}, "ip": {"in": ["192.0.2.0/24", "2001:db8::1"]},
                "hours": {"days": ["mon", "fri"], "from": "09:00", "to": "17:30", "time_zone": "America/New_York"}}},
            {"rule_id": 3, "smart_link_id": 12, "offer_id": 7, "conditions": {}},
        ],
        "offer_caps": [
            {"offer_id": 1042, "cap_type": "click", "cap_interval": "daily", "cap_amount": 1000, "time_zone": "UTC"},
            {"offer_id": 1042, "affiliate_id": 67890, "cap_type": "click", "cap_interval": "daily", "cap_amount": 0,
             "send_alert_only": true},
        ],
    })
}

fn import_into(api: &Api, network: &Value) -> api::Reply {
    let headers = [JSON[0], ("authorization", &format!("Bearer {KEY}"))];
    api.send(Method::POST, "/api/2/import_network.json", &headers, network.to_string())
}

fn revision(api: &Api) -> String {
    api.get("smart_links.json").headers["smartlink-revision"].to_str().unwrap().to_owned()
}

#[test]
fn export_import_export_is_the_same_byte_for_byte() {
    let (first, second) = (Node::start(), Node::start());
    let source = first.file("source.json");
    fs::write(&source, network().to_string()).unwrap();
    let table = first.ok(&["import", source.to_str().unwrap()]);
    assert!(table.lines().nth(1).unwrap().split_whitespace().eq(["offers", "2", "0", "0", "0"]), "{table}");
    for format in ["toml", "json"] {
        let exported = first.ok(&["export", "--format", format]);
        let file = second.file(&format!("network.{format}"));
        fs::write(&file, &exported).unwrap();
        second.ok(&["import", file.to_str().unwrap()]);
        let path = second.file(&format!("again.{format}"));
        assert_eq!(second.ok(&["export", path.to_str().unwrap()]), "");
        assert_eq!(fs::read_to_string(path).unwrap(), exported);
        assert_eq!(first.ok(&["export", "--format", format]), exported);
    }
    let rules: Value = serde_json::from_str(&second.ok(&["rule", "list", "--json"])).unwrap();
    let rule = &rules["response"]["routing_rules"][1];
    assert_eq!(
        (&rule["rule_id"], &rule["conditions"]),
        (&json!(9), &network()["routing_rules"][0]["conditions"])
    );
}

#[test]
fn importing_again_changes_nothing() {
    let api = Api::start();
    let created = import_into(&api, &network()).success();
    assert_eq!(created["message"], "imported");
    assert_eq!(
        created["response"]["routing_rules"],
        json!({"created": 2, "changed": 0, "unchanged": 0, "removed": 0})
    );
    let before = revision(&api);
    let again = import_into(&api, &network()).success();
    assert_eq!(again["message"], "unchanged");
    for (list, count) in again["response"].as_object().unwrap() {
        assert_eq!(*count, json!({"created": 0, "changed": 0, "unchanged": 2, "removed": 0}), "{list}");
    }
    assert_eq!(revision(&api), before);

    let mut changed = network();
    changed["smart_link_offers"][1]["offer_weight"] = 5.into();
    let changed = import_into(&api, &changed).success();
    assert_eq!(changed["response"]["smart_link_offers"]["changed"], 1);
    assert_eq!(changed["response"]["offers"]["unchanged"], 2);
    assert_ne!(revision(&api), before);
    // The next id is one that the import did not give.
    let next = api.post("smart_link.json", json!({"smart_link_name": "x", "affiliate_id": 1})).success();
    assert_eq!(next["response"]["smart_link_id"], 302);
}

#[test]
fn what_is_not_named_stays_or_is_replaced() {
    let api = Api::start();
    import_into(&api, &network()).success();
    let mut part =
        json!({"offers": [{"offer_id": 7, "offer_name": "Loan", "offer_url": "https://loan.example.net/"}]});
    let answer = import_into(&api, &part).success();
    assert_eq!(
        answer["response"]["offers"],
        json!({"created": 0, "changed": 1, "unchanged": 0, "removed": 0})
    );
    assert_eq!(api.network().offers.len(), 2);
    assert_eq!(api.network().routing_rules.len(), 2);

    part["replace"] = true.into();
    import_into(&api, &part).refused(400, &["`smart_links` is missing", "removed"]);
    for list in ["smart_links", "offer_geo_targets", "smart_link_offers", "routing_rules", "offer_caps"] {
        part[list] = json!([]);
    }
    part["smart_link_offers"] = json!([{"smart_link_id": 12, "offer_id": 7}]);
    import_into(&api, &part).refused(
        422,
        &["`smart_link_offers[0].smart_link_id` 12 is not in what is imported (offer 7 on smart link 12)"],
    );
    part["smart_link_offers"] = json!([]);
    let answer = import_into(&api, &part).success();
    assert_eq!(answer["response"]["smart_links"]["removed"], 2);
    assert_eq!(
        answer["response"]["offers"],
        json!({"created": 0, "changed": 0, "unchanged": 1, "removed": 1})
    );
    let left = api.network();
    assert_eq!((left.offers.len(), left.smart_links.len(), left.routing_rules.len()), (1, 0, 0));
    assert_eq!((&answer["response"]["offer_caps"]["removed"], left.offer_caps.len()), (&json!(2), 0));
}

#[test]
fn one_bad_item_among_many_refuses_everything() {
    let api = Api::start();
    let cases = [
        (
            "offers",
            json!({"offer_id": 5, "offer_name": "x", "offer_url": "http://a.example/"}),
            "offer_url",
            "(offer 5)",
        ),
        ("offers", json!({"offer_id": 5, "offer_url": "https://a.example/"}), "offer_name", "(offer 5)"),
        (
            "offers",
            json!({"offer_name": "x", "offer_url": "https://a.example/"}),
            "offer_id",
            "(offer without id)",
        ),
        (
            "smart_links",
            json!({"smart_link_id": 0, "smart_link_name": "x", "affiliate_id": 1}),
            "smart_link_id",
            "(smart link 0)",
        ),
        (
            "smart_links",
            json!({"smart_link_id": 5, "smart_link_name": "x", "affiliate_id": 1, "weight": 1}),
            "weight",
            "not a parameter",
        ),
        (
            "smart_link_offers",
            json!({"smart_link_id": 12, "offer_id": 1042, "offer_weight": 101}),
            "offer_weight",
            "(offer 1042 on smart link 12)",
        ),
        ("smart_link_offers", json!({"smart_link_id": 12, "offer_id": 99}), "offer_id", "99 does not exist"),
        (
            "offer_geo_targets",
            json!({"offer_id": 1042, "action": "block", "countries": ["ZZ"]}),
            "countries",
            "ZZ",
        ),
        (
            "offer_geo_targets",
            json!({"offer_id": 1042, "action": "block", "countries": ["US"]}),
            "countries",
            "allows and blocks",
        ),
        (
            "offer_geo_targets",
            json!({"offer_id": 99, "action": "block", "countries": ["US"]}),
            "offer_id",
            "99 does not exist",
        ),
        (
            "routing_rules",
            json!({"rule_id": 5, "smart_link_id": 301, "offer_id": 7}),
            "conditions",
            "is missing",
        ),
        (
            "routing_rules",
            json!({"rule_id": 5, "smart_link_id": 301, "offer_id": 7, "conditions": {"os": {"in": []}}}),
            "conditions.os.in",
            "is empty",
        ),
        (
            "offer_caps",
            json!({"offer_id": 7, "cap_type": "click", "cap_interval": "daily"}),
            "cap_amount",
            "(the daily click cap of offer 7)",
        ),
        (
            "offer_caps",
            json!({"offer_id": 99, "cap_type": "click", "cap_interval": "daily", "cap_amount": 1}),
            "offer_id",
            "99 does not exist (daily click cap of offer 99)",
        ),
        (
            "offer_caps",
            json!({"cap_id": 3, "offer_id": 7, "cap_type": "click", "cap_interval": "daily", "cap_amount": 1}),
            "cap_id",
            "not a parameter",
        ),
    ];
    let before = revision(&api);
    for (list, item, parameter, said) in cases {
        let mut bad = network();
        bad[list].as_array_mut().unwrap().push(item);
        let reply = import_into(&api, &bad);
        let message = reply.json()["message"].as_str().unwrap().to_owned();
        assert!(
            matches!(reply.status, StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY),
            "{reply:?}"
        );
        assert!(message.starts_with(&format!("`{list}[2].{parameter}` ")), "{message}");
        assert!(message.contains(said), "{message} does not say {said}");
        assert_eq!(revision(&api), before);
    }
    let mut twice = network();
    twice["offers"].as_array_mut().unwrap().push(network()["offers"][0].clone());
    import_into(&api, &twice).refused(400, &["`offers[2]` is offer 1042 again, which offers[0] is"]);
    assert_eq!(api.network(), smartlink::cake::Network::default());
}

#[test]
fn the_command_names_the_line_of_the_bad_item() {
    let node = Node::start();
    let source = node.file("source.json");
    fs::write(&source, network().to_string()).unwrap();
    node.ok(&["import", source.to_str().unwrap()]);
    let good = node.ok(&["export"]);
    let bad = good.replace("offer_weight = 60", "offer_weight = 600");
    let line = bad.lines().position(|line| line == "offer_weight = 600").unwrap() - 2;
    let file = node.file("bad.toml");
    fs::write(&file, bad).unwrap();
    node.fails(
        &["import", file.to_str().unwrap()],
        &[
            &format!("bad.toml, line {line}: `smart_link_offers[1].offer_weight` is 600"),
            "nothing was changed",
        ],
    );
    fs::write(&file, "[[offers]]\noffer_id = = 1\n").unwrap();
    node.fails(&["import", file.to_str().unwrap()], &["bad.toml", "line 2"]);
    fs::write(&file, "").unwrap();
    node.fails(&["import", file.to_str().unwrap(), "--replace"], &["names nothing"]);
    assert_eq!(node.ok(&["export"]), good);
}

#[test]
fn a_long_body_needs_the_key_before_it() {
    let api = Api::start();
    let long = json!({"api_key": KEY, "offers": [], "x": "x".repeat(100_000)}).to_string();
    let send = |headers: &[(&str, &str)], body: &str| {
        api.send(Method::POST, "/api/2/import_network.json", headers, body.to_owned())
    };
    send(JSON, &long).refused(413, &["65536"]);
    send(&[JSON[0], ("authorization", "Bearer wrong")], &long).refused(401, &["`api_key` is wrong"]);
    send(JSON, "{}").refused(401, &["missing"]);
    send(JSON, &json!({"api_key": "wrong"}).to_string()).refused(401, &["wrong"]);
    send(JSON, &json!({"api_key": KEY, "offers": []}).to_string()).success();
    send(JSON, &json!({"api_key": KEY, "ofers": []}).to_string()).refused(400, &["`ofers`"]);
    send(&[JSON[0], ("authorization", &format!("Bearer {KEY}"))], "{\"ofers\": []}")
        .refused(400, &["`ofers`"]);
    send(&[JSON[0], ("authorization", &format!("Bearer {KEY}"))], "{\"offers\": [], \"offers\": []}")
        .refused(400, &["`offers`"]);
    api.get("import_network.json").refused(405, &["POST"]);
}

#[test]
fn lists_and_exports_read_every_page() {
    let node = Node::start();
    let links: Vec<Value> = (1..=1203)
        .map(|id| json!({"smart_link_id": id, "smart_link_name": "x", "affiliate_id": id}))
        .collect();
    let file = node.file("many.json");
    fs::write(&file, json!({"smart_links": links}).to_string()).unwrap();
    node.ok(&["import", file.to_str().unwrap()]);
    assert_eq!(node.ok(&["link", "list"]).lines().count(), 1 + 1203);
    assert_eq!(node.ok(&["link", "list", "--limit", "501"]).lines().count(), 1 + 501);
    assert_eq!(node.ok(&["export"]).matches("[[smart_links]]").count(), 1203);
}

#[test]
fn a_cake_that_lacks_the_call_is_named() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    let links = || async { r#"{"request_status":"Success","smart_links":[]}"# };
    let router = axum::Router::new().route("/api/2/smart_links.json", axum::routing::get(links));
    runtime.spawn(async move { axum::serve(listener, router).await });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("network.toml");
    fs::write(&file, "").unwrap();
    let import = ["import", file.to_str().unwrap(), "--upstream", &upstream];
    run(command().args(import).env("SMARTLINK_API_KEY", "k"))
        .failed(&["does not know the call import_network.json (HTTP 404)", "smartlink's own"]);
}
