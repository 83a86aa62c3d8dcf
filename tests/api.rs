//! The embedded CAKE over a real socket: every call field for field, every refusal, and what must never be lost.

#[path = "support/api.rs"]
mod support;

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use smartlink::backoffice::Limits;
use smartlink::routing::{DestinationPolicy, Template};
use support::{Api, JSON, KEY, zone};

const OFFER_URL: &str = "https://shop.example.com/a?sub={sub_id}&r=#reqid#";

/// Link 1 of affiliate 67890 and offer 1, not yet attached.
fn start_small() -> Api {
    let api = Api::start();
    api.post("smart_link.json", json!({"smart_link_name": "Finance", "affiliate_id": 67890})).success();
    api.post("offer.json", json!({"offer_name": "Card", "offer_url": OFFER_URL})).success();
    api
}

#[test]
fn a_link_with_all_its_fields() {
    let api = Api::start();
    let created = api.post(
        "smart_link.json",
        json!({
            "smart_link_name": "Finance Rotator - US", "affiliate_id": 67890, "smart_link_status": "Inactive",
            "rotation_type": "PRIORITY", "cap_aware": false, "fallback_url": "https://www.example.com/?l={smart_link_id}",
        }),
    );
    let link = json!({
        "smart_link_id": 1, "smart_link_name": "Finance Rotator - US", "affiliate_id": 67890,
        "smart_link_status": "inactive", "rotation_type": "priority", "cap_aware": false,
        "fallback_url": "https://www.example.com/?l={smart_link_id}",
        "tracking_url": "https://go.example.com/sl?id=1&aff_id=67890",
    });
    assert_eq!(created.success(), json!({"request_status": "Success", "response": link}));
    assert_eq!(
        api.get("smart_links.json").success(),
        json!({"request_status": "Success", "response": {"smart_links": [link], "total_rows": 1}})
    );
}

#[test]
fn a_refusal_names_every_parameter_that_is_wrong() {
    let api = start_small();
    let reply = api.post(
        "smart_link_offer.json",
        json!({"smart_link_id": 1, "offer_id": 7, "offer_weight": 101, "priority": "x"}),
    );
    // The status and the message are those of the first.
    reply.refused(404, &["`offer_id` 7 does not exist"]);
    let told: Vec<String> = reply.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| {
            format!("{} {}", error["parameter"].as_str().unwrap(), error["problem"].as_str().unwrap())
        })
        .collect();
    let begins =
        ["offer_id 7 does not exist", "priority is \"x\"; expected", "offer_weight is 101; expected"];
    assert_eq!(told.len(), begins.len(), "{told:?}");
    assert!(told.iter().zip(begins).all(|(told, begin)| told.starts_with(begin)), "{told:?}");
    let fields = json!({"offer_id": 7, "countries": "US, ZZ", "action": "maybe"});
    let reply = api.post("update_offer_geo_targets.json", fields);
    reply.refused(404, &["`offer_id` 7 does not exist"]);
    let named = |index: usize| reply.json()["errors"][index]["parameter"].clone();
    assert_eq!([named(0), named(1), named(2)], ["offer_id", "countries", "action"]);
    // Of an import, which has many items, the first alone; what has to do with no parameter has none.
    let item = json!({"smart_link_id": 1, "offer_id": 1, "offer_weight": 101, "priority": -1});
    let reply = api.post("import_network.json", json!({"smart_link_offers": [item]}));
    reply.refused(422, &["`smart_link_offers[0].offer_weight` is 101"]);
    assert_eq!(reply.json()["errors"].as_array().unwrap().len(), 1);
    assert!(api.get("nothing.json").json()["errors"].is_null());
}

#[test]
fn a_change_that_is_tried_out_is_answered_and_not_done() {
    let api = start_small();
    let state = || api.get("smart_links.json").headers["smartlink-revision"].clone();
    let before = (state(), api.network());
    let link = json!({"smart_link_name": "Tried", "affiliate_id": 8, "dry_run": true});
    for _ in 0..2 {
        let tried = api.post("smart_link.json", link.clone()).success();
        assert_eq!(
            (&tried["response"]["smart_link_id"], &tried["response"]["affiliate_id"]),
            (&2.into(), &8.into())
        );
    }
    let entry = json!({"smart_link_id": 1, "offer_id": 1, "offer_weight": 7, "dry_run": "true"});
    let tried = api.post("smart_link_offer.json", entry).success();
    assert_eq!((&tried["message"], &tried["response"]["offer_weight"]), (&"attached".into(), &7.into()));
    api.post("smart_link.json", json!({"smart_link_name": "", "affiliate_id": 8, "dry_run": true}))
        .refused(422, &["`smart_link_name`"]);
    api.post("smart_link.json", json!({"smart_link_name": "x", "affiliate_id": 8, "dry_run": "maybe"}))
        .refused(400, &["`dry_run`", "true or false"]);
    assert_eq!((state(), api.network()), before);
    let done =
        api.post("smart_link.json", json!({"smart_link_name": "Done", "affiliate_id": 8, "dry_run": false}));
    assert_eq!(done.success()["response"]["smart_link_id"], 2, "no number was used up");
    assert_ne!(state(), before.0);
}

/// Who reads, decides and writes overwrites nobody's change unseen.
#[test]
fn a_change_may_be_bound_to_the_state_that_was_read() {
    let api = start_small();
    let state = || api.get("smart_links.json").headers["smartlink-revision"].to_str().unwrap().to_owned();
    let bearer = format!("Bearer {KEY}");
    let post = |call: &str, tag: &str, fields: Value| {
        let headers = [("authorization", bearer.as_str()), ("if-match", tag), JSON[0]];
        api.send(Method::POST, &format!("/api/2/{call}"), &headers, fields.to_string())
    };
    let rename = |tag: &str, name: &str| {
        post("update_smart_link.json", tag, json!({"smart_link_id": 1, "smart_link_name": name}))
    };
    let read = state();
    rename(&format!("\"{read}\""), "First").success();
    assert_ne!(state(), read);
    let said = ["If-Match", "read it again"];
    rename(&format!("\"{read}\""), "Second").refused(412, &said);
    // Neither a weak tag nor one without quotes is a strong one.
    let now = state();
    for tag in [format!("W/\"{now}\""), now.clone(), String::new()] {
        rename(&tag, "Second").refused(412, &said);
    }
    let import = json!({"offers": [{"offer_id": 9, "offer_name": "Nine", "offer_url": OFFER_URL}]});
    post("import_network.json", &format!("\"{read}\""), import.clone()).refused(412, &said);
    assert_eq!(api.rows::<Value>("offers.json", "offers").len(), 1);
    assert_eq!(state(), now, "what was refused changed nothing");
    post("import_network.json", &format!("\"{read}\", \"{now}\""), import).success();
    rename("*", "Third").success();
    assert_eq!(api.rows::<Value>("smart_links.json", "smart_links")[0]["smart_link_name"], "Third");
}

#[test]
fn a_link_with_defaults_and_its_change() {
    let api = Api::start();
    let created = api.post("smart_link.json", json!({"smart_link_name": "Plain", "affiliate_id": "7"}));
    let mut link = json!({
        "smart_link_id": 1, "smart_link_name": "Plain", "affiliate_id": 7, "smart_link_status": "active",
        "rotation_type": "weighted", "cap_aware": true, "tracking_url": "https://go.example.com/sl?id=1&aff_id=7",
    });
    assert_eq!(created.success()["response"], link);

    let change = json!({"smart_link_id": 1, "affiliate_id": 8, "fallback_url": "https://www.example.com/"});
    let changed = api.post("update_smart_link.json", change).success();
    link["affiliate_id"] = 8.into();
    link["tracking_url"] = "https://go.example.com/sl?id=1&aff_id=8".into();
    link["fallback_url"] = "https://www.example.com/".into();
    assert_eq!(changed["response"], link);
    assert_eq!(api.get("smart_links.json").success()["response"]["smart_links"], json!([link]));

    let change = json!({"smart_link_id": 1, "fallback_url": null, "smart_link_status": "inactive"});
    let changed = api.post("update_smart_link.json", change).success();
    assert_eq!(changed["response"]["fallback_url"], Value::Null);
    assert_eq!(changed["response"]["smart_link_status"], "inactive");
    api.post("update_smart_link.json", json!({"smart_link_id": 2})).refused(404, &["`smart_link_id`", "2"]);
}

#[test]
fn links_by_id_affiliate_and_status() {
    let api = Api::start();
    for (affiliate, status) in [(1, "active"), (2, "active"), (2, "inactive")] {
        let fields = json!({"smart_link_name": "x", "affiliate_id": affiliate, "smart_link_status": status});
        api.post("smart_link.json", fields).success();
    }
    for (query, ids) in [
        ("", vec![1, 2, 3]),
        ("?smart_link_id=2", vec![2]),
        ("?affiliate_id=2", vec![2, 3]),
        ("?affiliate_id=2&smart_link_status=Active", vec![2]),
        ("?smart_link_id=9", vec![]),
        ("?smart_link_id=&affiliate_id=&something_else=1", vec![1, 2, 3]),
    ] {
        let answer = api.get(&format!("smart_links.json{query}")).success();
        let links = answer["response"]["smart_links"].as_array().unwrap();
        let found: Vec<i64> = links.iter().map(|link| link["smart_link_id"].as_i64().unwrap()).collect();
        assert_eq!(found, ids, "{query}");
        assert_eq!(answer["response"]["total_rows"], ids.len(), "{query}");
    }
}

#[test]
fn attaching_says_what_it_did() {
    let api = start_small();
    let entry = |weight, priority| json!({"smart_link_id": 1, "offer_id": 1, "offer_weight": weight, "priority": priority});
    let ids = json!({"smart_link_id": 1, "offer_id": 1});
    for (sent, message, kept) in [
        (ids.clone(), "attached", entry(1, 1)),
        (entry(60, 2), "changed", entry(60, 2)),
        (entry(60, 2), "unchanged", entry(60, 2)),
        (ids.clone(), "unchanged", entry(60, 2)),
        (json!({"smart_link_id": 1, "offer_id": 1, "priority": 3}), "changed", entry(60, 3)),
        (entry(0, 3), "changed", entry(0, 3)),
    ] {
        assert_eq!(
            api.post("smart_link_offer.json", sent).success(),
            json!({"request_status": "Success", "message": message, "response": kept})
        );
        assert_eq!(
            api.get("smart_link_offers.json?smart_link_id=1").success(),
            json!({"request_status": "Success", "response": {"smart_link_offers": [kept], "total_rows": 1}})
        );
    }
    assert_eq!(
        api.post("remove_smart_link_offer.json", ids.clone()).success(),
        json!({"request_status": "Success", "message": "removed", "response": entry(0, 3)})
    );
    api.post("remove_smart_link_offer.json", ids).refused(404, &["`offer_id`", "not attached"]);
    assert_eq!(api.get("smart_link_offers.json").success()["response"]["total_rows"], 0);
}

#[test]
fn an_offer_with_all_its_fields_and_its_change() {
    let api = Api::start();
    let mut offer = json!({
        "offer_name": "Card US", "offer_url": OFFER_URL, "offer_status": "active", "payout": 45.0,
        "expiration_date": "2027-01-31 23:59:59", "advertiser_id": 11, "vertical_id": "7", "payout_type": "cpa",
        "revenue": 60.25, "revenue_type": "fixed", "currency_id": 1, "session_hours": 720,
        "preview_url": "https://preview.example.com/", "offer_description": "With ü and \"quotes\"",
    });
    let created = api.post("offer.json", offer.clone()).success();
    offer["offer_id"] = 1.into();
    assert_eq!(created, json!({"request_status": "Success", "offer": offer}));
    assert_eq!(
        api.get("offers.json").success(),
        json!({"request_status": "Success", "offers": [{"offer": offer}], "total_rows": 1})
    );

    let change = json!({
        "offer_id": 1, "offer_status": "paused", "payout": null, "expiration_date": "", "revenue": null, "vertical_id": 8,
    });
    let changed = api.post("update_offer.json", change).success();
    for gone in ["payout", "expiration_date", "revenue"] {
        offer.as_object_mut().unwrap().remove(gone);
    }
    offer["offer_status"] = "paused".into();
    offer["vertical_id"] = 8.into();
    assert_eq!(changed, json!({"request_status": "Success", "offer": offer}));
    assert_eq!(api.get("offers.json?offer_id=1").success()["offers"], json!([{"offer": offer}]));
    api.post("update_offer.json", json!({"offer_id": 2})).refused(404, &["`offer_id`", "2"]);
}

#[test]
fn offers_in_pages_sorted_and_by_status() {
    let api = Api::start();
    for index in 0..27 {
        let status = if index % 2 == 0 { "active" } else { "pending" };
        let name = format!("{}", (b'a' + (index * 7 % 26) as u8) as char);
        let fields = json!({"offer_name": name, "offer_url": OFFER_URL, "offer_status": status});
        api.post("offer.json", fields).success();
    }
    let ids = |query: &str| -> Vec<i64> {
        let answer = api.get(&format!("offers.json?{query}")).success();
        let offers = answer["offers"].as_array().unwrap();
        offers.iter().map(|wrapped| wrapped["offer"]["offer_id"].as_i64().unwrap()).collect()
    };
    assert_eq!(ids(""), (1..=25).collect::<Vec<_>>());
    assert_eq!(ids("start_at_row=25"), [26, 27]);
    assert_eq!(ids("sort_descending=true&row_limit=2"), [27, 26]);
    // "a" is 1 and 27; then "b" is 16.
    assert_eq!(ids("sort_field=offer_name&row_limit=3"), [1, 27, 16]);
    assert_eq!(ids("offer_status=pending&row_limit=2&start_at_row=1"), [4, 6]);
    assert_eq!(api.get("offers.json?offer_status=pending&row_limit=1").success()["total_rows"], 13);
    // A form gives numbers as text.
    api.post("update_offer.json", json!({"offer_id": 3, "vertical_id": 7, "advertiser_id": "70"})).success();
    api.post("update_offer.json", json!({"offer_id": 5, "vertical_id": "7", "advertiser_id": 71})).success();
    assert_eq!(ids("vertical_id=7"), [3, 5]);
    assert_eq!(ids("vertical_id=7&advertiser_id=70&offer_status=active"), [3]);
    assert_eq!(ids("advertiser_id=7"), [0; 0]);
    api.get("offers.json?vertical_id=seven").refused(400, &["`vertical_id`", "whole number"]);
    api.get("offers.json?sort_field=payout").refused(422, &["`sort_field`", "offer_name"]);
}

#[test]
fn geo_targets_are_set_changed_and_removed() {
    let api = start_small();
    api.post("offer.json", json!({"offer_name": "Loan", "offer_url": OFFER_URL})).success();
    let update = |offer: i64, countries: &str, action: &str| {
        let fields = json!({"offer_id": offer, "countries": countries, "action": action});
        api.post("update_offer_geo_targets.json", fields).success()
    };
    assert_eq!(
        update(1, "US,CA,GB", "allow"),
        json!({"request_status": "Success", "offer_id": 1, "updated_countries": ["US", "CA", "GB"], "action": "allow"})
    );
    update(1, " CA , CA", "block");
    update(1, "GB,FR", "remove");
    update(2, "DE", "Block");
    let first = json!([
        {"country_id": 1, "country_code": "US", "country_name": "United States", "action": "allow"},
        {"country_id": 39, "country_code": "CA", "country_name": "Canada", "action": "block"},
    ]);
    assert_eq!(
        api.get("offer_geo_targets.json?offer_id=1").success(),
        json!({"request_status": "Success", "offer_id": 1, "geo_targets": first})
    );
    let all = api.get("offer_geo_targets.json?row_limit=1").success();
    assert_eq!(
        all["response"],
        json!({"offer_geo_targets": [{"offer_id": 1, "geo_targets": first}], "total_rows": 2})
    );
    let rest = api.get("offer_geo_targets.json?start_at_row=1").success();
    assert_eq!(rest["response"]["offer_geo_targets"][0]["offer_id"], 2);
    assert_eq!(rest["response"]["offer_geo_targets"][0]["geo_targets"][0]["action"], "block");

    update(1, "US,CA", "remove");
    assert_eq!(api.get("offer_geo_targets.json?offer_id=1").success()["geo_targets"], json!([]));
    assert_eq!(api.get("offer_geo_targets.json").success()["response"]["total_rows"], 1);
    api.get("offer_geo_targets.json?offer_id=3").refused(404, &["`offer_id`", "3"]);
}

#[test]
fn a_rule_its_change_and_its_end() {
    let api = start_small();
    let mut rule = json!({
        "smart_link_id": 1, "offer_id": 1, "priority": 1, "offer_weight": 10,
        "conditions": {
            "country": {"in": ["US", "CA"]}, "device": {"not_in": ["tablet"]}, "asn": {"in": [64496]},
            "hours": {"days": ["mon", "fri"], "from": "09:00", "to": "17:30", "time_zone": "America/New_York"},
        },
    });
    let created = api.post("routing_rule.json", rule.clone()).success();
    rule["rule_id"] = 1.into();
    assert_eq!(created, json!({"request_status": "Success", "response": rule}));
    assert_eq!(
        api.get("routing_rules.json?smart_link_id=1").success(),
        json!({"request_status": "Success", "response": {"routing_rules": [rule], "total_rows": 1}})
    );

    let change = json!({"rule_id": 1, "priority": 4, "conditions": {"s1": {"in": ["a"]}}});
    rule["priority"] = 4.into();
    rule["conditions"] = json!({"s1": {"in": ["a"]}});
    assert_eq!(api.post("update_routing_rule.json", change).success()["response"], rule);
    assert_eq!(api.get("routing_rules.json").success()["response"]["routing_rules"], json!([rule]));

    assert_eq!(
        api.post("remove_routing_rule.json", json!({"rule_id": 1})).success(),
        json!({"request_status": "Success", "message": "removed", "response": rule})
    );
    api.post("remove_routing_rule.json", json!({"rule_id": 1})).refused(404, &["`rule_id`", "1"]);

    // An id is not given again, and a rule that always holds has to say so.
    let always = json!({"smart_link_id": 1, "offer_id": 1, "conditions": {}});
    let second = json!({
        "rule_id": 2, "smart_link_id": 1, "offer_id": 1, "priority": 1, "offer_weight": 1, "conditions": {},
    });
    assert_eq!(api.post("routing_rule.json", always).success()["response"], second);
}

#[test]
fn forms_say_the_same_as_json() {
    let api = start_small();
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    let link = api.post_raw(
        "smart_link.json",
        form,
        "smart_link_name=Caf%C3%A9+Paris&affiliate_id=7&cap_aware=FALSE",
    );
    assert_eq!(link.success()["response"]["smart_link_name"], "Café Paris");
    assert_eq!(link.success()["response"]["cap_aware"], false);
    let rule = "smart_link_id=1&offer_id=1&offer_weight=5&conditions=%7B%22os%22%3A%7B%22in%22%3A%5B%22ios%22%5D%7D%7D";
    let rule = api.post_raw("routing_rule.json", form, rule).success();
    assert_eq!(rule["response"]["conditions"], json!({"os": {"in": ["ios"]}}));
    // What curl sends for -d '{…}'.
    let offer = api.post_raw(
        "update_offer.json",
        "application/x-www-form-urlencoded",
        "{\"offer_id\":1,\"payout\":2}",
    );
    assert_eq!(offer.success()["offer"]["payout"], 2.0);
    api.post_raw("smart_link.json", form, "affiliate_id=%FF").refused(400, &["`affiliate_id`", "UTF-8"]);
    api.post_raw("smart_link.json", form, "affiliate_id=1&affiliate_id=2")
        .refused(400, &["`affiliate_id`", "twice"]);
}

#[test]
fn the_key_is_asked_for_everywhere() {
    let api = start_small();
    let bearer = format!("bearer {KEY}");
    let in_body = json!({"api_key": KEY}).to_string();
    let form = format!("api_key={KEY}&smart_link_name=x&affiliate_id=1");
    let with_key = format!("/api/2/smart_link.json?api_key={KEY}");
    let no_key = r#"{"smart_link_name":"x","affiliate_id":1}"#;
    for reply in [
        api.send(Method::GET, "/api/2/smart_links.json", &[("authorization", &bearer)], ""),
        api.send(Method::GET, "/api/2/smart_links.json", JSON, in_body),
        api.send(Method::POST, &with_key, JSON, no_key),
        api.send(
            Method::POST,
            "/api/2/smart_link.json",
            &[("content-type", "application/x-www-form-urlencoded")],
            form,
        ),
    ] {
        reply.success();
    }
    let missing = api.send(Method::GET, "/api/2/smart_links.json", &[("authorization", "Basic eDp5")], "");
    missing.refused(401, &["`api_key` is missing"]);
    assert_eq!(missing.headers["www-authenticate"], "Bearer");
    api.send(Method::POST, "/api/2/smart_link.json", JSON, no_key).refused(401, &["`api_key` is missing"]);
    for wrong in ["", "wrong", &KEY[1..], &format!("{KEY}x")] {
        api.send(Method::GET, &format!("/api/2/smart_links.json?api_key={wrong}"), &[], "")
            .refused(401, &["`api_key` is wrong"]);
        let body = json!({"api_key": wrong, "smart_link_name": "x", "affiliate_id": 1}).to_string();
        api.send(Method::POST, "/api/2/smart_link.json", JSON, body).refused(401, &["`api_key` is wrong"]);
    }
    api.send(Method::POST, "/api/2/smart_link.json", JSON, r#"{"api_key":7}"#).refused(401, &["wrong"]);
    let mixed = json!({"api_key": "stale", "smart_link_name": "x", "affiliate_id": 1}).to_string();
    api.send(Method::POST, &with_key, JSON, mixed).refused(401, &["wrong"]);
    assert_eq!(api.get("smart_links.json").success()["response"]["total_rows"], 3);
}

#[test]
fn refused_values_are_named() {
    let api = start_small();
    let link = |fields: Value| with(json!({"smart_link_name": "x", "affiliate_id": 1}), fields);
    let offer = |fields: Value| with(json!({"offer_name": "x", "offer_url": OFFER_URL}), fields);
    let attach = |fields: Value| with(json!({"smart_link_id": 1, "offer_id": 1}), fields);
    let rule = |fields: Value| with(json!({"smart_link_id": 1, "offer_id": 1, "conditions": {}}), fields);
    let geo = |fields: Value| with(json!({"offer_id": 1, "countries": "US", "action": "allow"}), fields);
    for (call, fields, status, said) in [
        ("smart_link.json", json!({"affiliate_id": 1}), 400, ["`smart_link_name`", "missing"]),
        ("smart_link.json", json!({"smart_link_name": "x"}), 400, ["`affiliate_id`", "missing"]),
        ("smart_link.json", link(json!({"smart_link_name": " "})), 422, ["`smart_link_name`", "1 to 255"]),
        ("smart_link.json", link(json!({"smart_link_name": 7})), 400, ["`smart_link_name`", "text"]),
        (
            "smart_link.json",
            link(json!({"affiliate_id": 0})),
            422,
            ["`affiliate_id`", "from 1 to 4294967295"],
        ),
        ("smart_link.json", link(json!({"affiliate_id": "x"})), 400, ["`affiliate_id`", "whole number"]),
        ("smart_link.json", link(json!({"affiliate_id": 1.5})), 400, ["`affiliate_id`", "whole number"]),
        ("smart_link.json", link(json!({"affiliate_id": null})), 400, ["`affiliate_id`", "null"]),
        (
            "smart_link.json",
            link(json!({"smart_link_status": "paused"})),
            422,
            ["`smart_link_status`", "inactive"],
        ),
        ("smart_link.json", link(json!({"rotation_type": "random"})), 422, ["`rotation_type`", "weighted"]),
        ("smart_link.json", link(json!({"cap_aware": "yes"})), 400, ["`cap_aware`", "true or false"]),
        ("smart_link.json", link(json!({"fallback_url": "https://"})), 422, ["`fallback_url`", "host"]),
        (
            "smart_link.json",
            link(json!({"fallback_url": "https://10.0.0.1/"})),
            422,
            ["`fallback_url`", "10.0.0.1"],
        ),
        ("smart_link.json", link(json!({"wieght": 1})), 400, ["`wieght`", "rotation_type"]),
        ("smart_link_offer.json", attach(json!({"wieght": 60})), 400, ["`wieght`", "offer_weight"]),
        ("smart_link_offer.json", attach(json!({"offer_weight": 101})), 422, ["`offer_weight`", "1 to 100"]),
        ("smart_link_offer.json", attach(json!({"offer_weight": -1})), 422, ["`offer_weight`", "1 to 100"]),
        ("smart_link_offer.json", attach(json!({"priority": -1})), 422, ["`priority`", "from 0"]),
        (
            "smart_link_offer.json",
            attach(json!({"smart_link_id": 9})),
            404,
            ["`smart_link_id`", "9 does not exist"],
        ),
        ("smart_link_offer.json", attach(json!({"offer_id": 9})), 404, ["`offer_id`", "9 does not exist"]),
        ("smart_link_offer.json", json!({"smart_link_id": 1}), 400, ["`offer_id`", "missing"]),
        ("offer.json", json!({"offer_name": "x"}), 400, ["`offer_url`", "missing"]),
        ("offer.json", json!({"offer_url": OFFER_URL}), 400, ["`offer_name`", "missing"]),
        ("offer.json", offer(json!({"offer_url": ""})), 422, ["`offer_url`", "empty"]),
        ("offer.json", offer(json!({"offer_url": "https:///path"})), 422, ["`offer_url`", "host"]),
        ("offer.json", offer(json!({"offer_url": "http://a.example/"})), 422, ["`offer_url`", "https://"]),
        (
            "offer.json",
            offer(json!({"offer_url": "https://a.example/{colour}"})),
            422,
            ["`offer_url`", "{colour}"],
        ),
        ("offer.json", offer(json!({"offer_status": "gone"})), 422, ["`offer_status`", "pending"]),
        ("offer.json", offer(json!({"payout": -0.5})), 422, ["`payout`", "0 or more"]),
        ("offer.json", offer(json!({"payout": "much"})), 400, ["`payout`", "a number"]),
        (
            "offer.json",
            offer(json!({"expiration_date": "2027-02-30 00:00:00"})),
            422,
            ["`expiration_date`", "YYYY"],
        ),
        ("offer.json", offer(json!({"vertical_id": [1]})), 400, ["`vertical_id`", "single value"]),
        ("offer.json", offer(json!({"offer_id": 7})), 400, ["`offer_id`", "not a parameter"]),
        ("update_offer.json", json!({"offer_id": 1, "offer_url": "https://a/"}), 422, ["`offer_url`", "dot"]),
        ("update_offer_geo_targets.json", geo(json!({"countries": "US,UK"})), 422, ["`countries`", "UK"]),
        ("update_offer_geo_targets.json", geo(json!({"countries": "US,"})), 422, ["`countries`", "ISO 3166"]),
        ("update_offer_geo_targets.json", geo(json!({"countries": ""})), 422, ["`countries`", "US,CA,GB"]),
        ("update_offer_geo_targets.json", geo(json!({"countries": ["US"]})), 400, ["`countries`", "text"]),
        (
            "update_offer_geo_targets.json",
            geo(json!({"action": "deny"})),
            422,
            ["`action`", "block or remove"],
        ),
        ("routing_rule.json", attach(json!({})), 400, ["`conditions`", "missing"]),
        ("routing_rule.json", rule(json!({"conditions": "US"})), 400, ["`conditions`", "object"]),
        (
            "routing_rule.json",
            rule(json!({"conditions": {"country": {"in": ["ZZ"]}}})),
            422,
            ["`conditions.country.in`", "ZZ"],
        ),
        (
            "routing_rule.json",
            rule(json!({"conditions": {"planet": {"in": ["Mars"]}}})),
            422,
            ["`conditions.planet`", "not a condition"],
        ),
        (
            "routing_rule.json",
            rule(json!({"conditions": {"os": {"in": []}}})),
            422,
            ["`conditions.os.in`", "empty"],
        ),
        ("routing_rule.json", rule(json!({"offer_weight": 101})), 422, ["`offer_weight`", "101"]),
        ("update_routing_rule.json", json!({"rule_id": 7}), 404, ["`rule_id`", "7 does not exist"]),
    ] {
        let before = api.network();
        api.post(call, fields).refused(status, &said);
        assert_eq!(api.network(), before, "{call} was refused and changed something");
    }
}

#[test]
fn refused_requests_are_told_why() {
    let api = start_small();
    for limit in ["501", "0", "-1", "many"] {
        api.get(&format!("smart_links.json?row_limit={limit}")).refused(400, &["`row_limit`", limit]);
        api.get(&format!("offers.json?row_limit={limit}")).refused(400, &["`row_limit`", limit]);
    }
    api.get("routing_rules.json?row_limit=501").refused(400, &["`row_limit`", "1 to 500"]);
    api.get("smart_links.json?start_at_row=-1").refused(400, &["`start_at_row`", "-1"]);
    api.get("smart_links.json?row_limit=1&row_limit=2").refused(400, &["`row_limit`", "twice"]);
    api.get("smart_links.json?smart_link_status=paused").refused(422, &["`smart_link_status`", "inactive"]);

    let json = "application/json";
    api.post_raw("smart_link.json", json, "{\"a\":\n  1,}").refused(400, &["JSON", "line 2 column 5"]);
    api.post_raw("smart_link.json", json, "[1]").refused(400, &["object"]);
    api.post_raw("smart_link.json", json, b"{\"a\":\"\xFF\"}".to_vec()).refused(400, &["JSON", "line 1"]);
    api.post_raw("smart_link.json", json, "").refused(400, &["`smart_link_name`", "missing"]);
    api.post_raw("smart_link.json", "text/xml", "<a/>").refused(400, &["content type", "application/json"]);
    api.post_raw("smart_link_offer.json", json, r#"{"offer_weight":60,"offer_weight":6}"#)
        .refused(400, &["`offer_weight` is given twice", "line 1 column"]);
    api.post_raw("smart_link_offer.json?offer_weight=60", json, r#"{"smart_link_id":1,"offer_id":1}"#)
        .refused(400, &["`offer_weight`", "query"]);

    let padding = |bytes: usize| format!("{{\"smart_link_name\":\"{}\"", "x".repeat(bytes));
    api.post_raw("smart_link.json", json, padding(64 * 1024)).refused(413, &["65536"]);
    api.post_raw("smart_link.json", json, padding(500 * 1024)).refused(413, &["65536"]);
    let body = json!({"smart_link_name": "x", "affiliate_id": 1}).to_string();
    let fits = format!("{body}{}", " ".repeat(64 * 1024 - body.len()));
    api.post_raw("smart_link.json", json, fits).success();

    for path in ["", "/", "/smart_links", "/smart_links.json/", "//smart_links.json", "/a/b"] {
        let reply = api.send(Method::GET, &format!("/api/2{path}"), &[], "");
        reply.refused(404, &["/api/2/smart_links.json"]);
    }
    assert_eq!(api.send(Method::GET, "/sl", &[], "").text, "not the API");
    for (method, path, allow) in [
        (Method::POST, "/api/2/smart_links.json", "GET, HEAD"),
        (Method::DELETE, "/api/2/offers.json", "GET, HEAD"),
        (Method::GET, "/api/2/smart_link.json", "POST"),
        (Method::PUT, "/api/2/routing_rule.json", "POST"),
    ] {
        let reply = api.send(method, path, &[], "");
        reply.refused(405, &[allow]);
        assert_eq!(reply.headers["allow"], allow);
    }
    let head = api.send(Method::HEAD, &format!("/api/2/smart_links.json?api_key={KEY}"), &[], "");
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { body_read_timeout: Duration::from_millis(20), ..Limits::default() };
    let api = Api::start_with(&directory.path().join("cake.db"), limits);
    for head in ["content-length: 100", "transfer-encoding: chunked"] {
        let request = format!("POST /api/2/smart_link.json HTTP/1.1\r\nhost: a.example\r\n{head}\r\n\r\n");
        let answer = api.converse(request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(
            answer.contains(r#""request_status":"Error""#) && answer.contains("within 0.02 s"),
            "{answer}"
        );
    }
}

#[test]
fn pages_have_every_row_once() {
    let api = Api::start();
    for id in 1..=1_203 {
        let fields = json!({"smart_link_name": format!("link {id}"), "affiliate_id": 1});
        assert_eq!(api.post("smart_link.json", fields).success()["response"]["smart_link_id"], id);
    }
    let page = |query: &str| {
        let answer = api.get(&format!("smart_links.json{query}")).success();
        assert_eq!(answer["response"]["total_rows"], 1_203);
        let links = answer["response"]["smart_links"].as_array().unwrap();
        links.iter().map(|link| link["smart_link_id"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(page(""), (1..=100).collect::<Vec<_>>());
    for (start, ids) in [(0, 1..=500), (500, 501..=1_000), (1_000, 1_001..=1_203)] {
        assert_eq!(page(&format!("?row_limit=500&start_at_row={start}")), ids.collect::<Vec<_>>());
    }
    assert!(page("?row_limit=500&start_at_row=1203").is_empty());
    assert!(page("?start_at_row=9223372036854775807").is_empty());
}

#[test]
fn a_reopened_store_has_everything() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cake.db");
    let api = Api::start_on(&path);
    assert!(api.backoffice.seed_demo().unwrap());
    api.post("offer.json", json!({"offer_name": "Late", "offer_url": OFFER_URL, "vertical_id": 3})).success();
    let before = (api.network(), api.get("offers.json").success());
    drop(api);
    let api = Api::start_on(&path);
    assert_eq!((api.network(), api.get("offers.json").success()), before);
    let next = api.post("smart_link.json", json!({"smart_link_name": "Next", "affiliate_id": 1})).success();
    assert_eq!(next["response"]["smart_link_id"], 302);
}

#[test]
fn writers_at_once_lose_nothing() {
    let api = start_small();
    let ids: Vec<i64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let api = &api;
                scope.spawn(move || {
                    let create = |round| {
                        let fields =
                            json!({"smart_link_name": format!("{writer}/{round}"), "affiliate_id": 1});
                        let link = api.post("smart_link.json", fields).success()["response"]["smart_link_id"]
                            .clone();
                        let attach = json!({"smart_link_id": link, "offer_id": 1, "offer_weight": 1 + round});
                        api.post("smart_link_offer.json", attach).success();
                        link.as_i64().unwrap()
                    };
                    (0..25).map(create).collect::<Vec<_>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (2..=201).collect::<Vec<_>>());
    let network = api.network();
    assert_eq!((network.smart_links.len(), network.smart_link_offers.len()), (201, 200));
}

#[test]
fn the_demo_is_the_network_of_cakes_example() {
    let api = Api::start();
    assert!(api.backoffice.seed_demo().unwrap());
    let network = api.network();
    assert!(!api.backoffice.seed_demo().unwrap());
    assert_eq!(api.network(), network);

    let link = &network.smart_links[0];
    assert_eq!((link.id.value(), link.affiliate.value()), (301, 67890));
    let listed = &api.get("smart_links.json").success()["response"]["smart_links"][0];
    assert_eq!(listed["smart_link_name"], "Finance Rotator - US");
    assert!(link.fallback_url.is_some());
    let entries: Vec<_> = network
        .smart_link_offers
        .iter()
        .map(|entry| (entry.offer.value(), entry.weight.value(), entry.priority))
        .collect();
    assert_eq!(entries, [(1042, 60, 2), (1043, 30, 2), (1044, 10, 2)]);
    assert_eq!((network.routing_rules.len(), network.routing_rules[0].priority), (1, 1));
    // A visitor from nowhere must reach the three: none of them asks for a country.
    let targeted: Vec<_> = network.offer_geo_targets.iter().map(|targets| targets.offer_id).collect();
    assert_eq!(targeted, [i64::from(network.routing_rules[0].offer.value())]);
    assert_readable(&api);
}

/// Puts every nasty value into every parameter of every call that writes. Whatever was accepted must be read by the
/// sync without a warning, and what was refused must have been refused in order.
#[test]
fn whatever_is_accepted_can_be_read_by_the_sync() {
    let api = start_small();
    let conditions = json!({"country": {"in": ["US"]}});
    api.post("routing_rule.json", json!({"smart_link_id": 1, "offer_id": 1, "conditions": conditions}))
        .success();
    let calls = [
        (
            "smart_link.json",
            json!({"smart_link_name": "x", "affiliate_id": 1, "smart_link_status": "active",
                "rotation_type": "even", "cap_aware": true, "fallback_url": "https://a.example/"}),
        ),
        (
            "update_smart_link.json",
            json!({"smart_link_id": 1, "smart_link_name": "x", "affiliate_id": 1, "smart_link_status": "active",
                "rotation_type": "even", "cap_aware": true, "fallback_url": "https://a.example/"}),
        ),
        (
            "smart_link_offer.json",
            json!({"smart_link_id": 1, "offer_id": 1, "offer_weight": 1, "priority": 1}),
        ),
        (
            "offer.json",
            json!({"offer_name": "x", "offer_url": OFFER_URL, "offer_status": "active", "payout": 1,
                "expiration_date": "2027-01-31 23:59:59", "vertical_id": 1}),
        ),
        (
            "update_offer.json",
            json!({"offer_id": 1, "offer_name": "x", "offer_url": OFFER_URL, "offer_status": "active", "payout": 1,
                "expiration_date": "2027-01-31 23:59:59", "offer_description": "x"}),
        ),
        ("update_offer_geo_targets.json", json!({"offer_id": 1, "countries": "US", "action": "allow"})),
        (
            "routing_rule.json",
            json!({"smart_link_id": 1, "offer_id": 1, "priority": 1, "offer_weight": 1, "conditions": conditions}),
        ),
        (
            "update_routing_rule.json",
            json!({"rule_id": 1, "smart_link_id": 1, "offer_id": 1, "priority": 1, "offer_weight": 1,
                "conditions": conditions}),
        ),
    ];
    let (mut accepted, mut refused) = (0, 0);
    for (call, good) in &calls {
        api.post(call, good.clone()).success();
        for name in good.as_object().unwrap().keys() {
            for nasty in nasty_values() {
                let mut fields = good.clone();
                fields[name] = nasty.clone();
                let reply = api.post(call, fields);
                match reply.status.as_u16() {
                    200 => accepted += 1,
                    400 | 404 | 422 => {
                        refused += 1;
                        // Named by its own name, or by what it should have pointed at.
                        reply.refused(reply.status.as_u16(), &[&format!("`{name}")]);
                    }
                    status => panic!("{call} with {name} = {nasty}: {status} {}", reply.text),
                }
            }
        }
        assert_readable(&api);
    }
    assert!(accepted > 50 && refused > 500, "{accepted} accepted, {refused} refused");
}

fn nasty_values() -> Vec<Value> {
    let long = "x".repeat(3_000);
    let mut values = vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(101),
        json!(4294967295u32),
        json!(4294967296u64),
        json!(u64::MAX),
        json!(0.1),
        json!(1e300),
        json!([]),
        json!({}),
        json!({"in": ["US"]}),
        json!({"country": {"in": ["US", "US"]}, "s1": {"not_in": ["\u{0}", "'; DROP TABLE offers; --"]}}),
        json!({"hours": {"from": "22:00", "to": "24:00", "time_zone": "Europe/Berlin"}}),
        json!({"hours": {"from": "24:00", "to": "01:00", "time_zone": "UTC"}}),
        json!({"asn": {"in": [4294967296u64]}}),
        json!({"city": {"in": [" "]}}),
        json!({"ip": {"in": ["::ffff:10.0.0.1/96"]}}),
        json!({"referrer_host": {"not_in": ["*.*.example"]}}),
        json!({"s2": {"in": [long]}}),
        json!(long),
    ];
    let texts = [
        "",
        " ",
        "\u{0}",
        "a\nb",
        "1",
        "+1",
        "0x1",
        "1e3",
        "NaN",
        "ACTIVE",
        "Expired",
        "pending",
        "weighted",
        "us",
        "US,,CA",
        "XK,US",
        "remove",
        "BLOCK",
        "{}",
        "{\"os\":{\"in\":[\"ios\"]}}",
        "2027-01-31",
        "2027-1-1 1:2:3",
        "9999-12-31 23:59:59",
        "-9999-01-01 00:00:00",
        "2026-03-08 02:30:00",
        "2027-01-31 23:59:60",
        "https://",
        "https:///a",
        "HTTPS://A.Example",
        "https://a.example?x={s1}",
        "https://a.example/{s1}",
        "https://a.example{s1}/",
        "https://{s1}.example/",
        "https://user@a.example/",
        "https://a.example:99999/",
        "https://a.example:8443/#s1#",
        "https://a.example/#nothing#",
        "https://bücher.example/ä",
        "https://xn--a.example/",
        "https://a..example/",
        "https://[::1]/",
        "https://0x7f.1/",
        "https://localhost./",
        "https://a.example/\\..",
        "https://a.example/\u{202e}",
        "javascript:alert(1)",
    ];
    values.extend(texts.map(Value::from));
    values
}

/// Reads the whole network as the sync does, and asserts that nothing would be quarantined.
#[track_caller]
fn assert_readable(api: &Api) {
    let network = api.network();
    let (snapshot, warnings) = network.to_snapshot(&zone());
    assert_eq!(warnings, []);
    assert_eq!(snapshot.links.len(), network.smart_links.len());
    assert_eq!(snapshot.offers.len(), network.offers.len());
    assert_eq!(api.lines("network.json").network, network.clone().canonical(), "as lists and as lines");
    let urls = snapshot.links.iter().filter_map(|link| link.fallback_url.as_deref());
    for url in urls.chain(snapshot.offers.iter().map(|offer| &*offer.url)) {
        let (_, warnings) = Template::parse(url, &DestinationPolicy::default()).unwrap();
        assert!(warnings.is_empty(), "{url}: {warnings:?}");
    }
    for entry in snapshot.entries.iter() {
        assert!(snapshot.links.iter().any(|link| link.id == entry.link), "{entry:?}");
        assert!(snapshot.offers.iter().any(|offer| offer.id == entry.offer), "{entry:?}");
    }
}

/// The first object with the members of the second.
fn with(mut fields: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        fields[name] = value.clone();
    }
    fields
}
