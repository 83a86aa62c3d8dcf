//! The calls for caps: setting, listing and removing, and everything that is refused.

#[path = "support/api.rs"]
mod support;

use serde_json::{Value, json};
use support::Api;

/// Offers 1 and 2.
fn start() -> Api {
    let api = Api::start();
    for name in ["Card", "Loan"] {
        let fields = json!({"offer_name": name, "offer_url": "https://o.example.com/"});
        api.post("offer.json", fields).success();
    }
    api
}

fn daily_clicks(change: impl FnOnce(&mut Value)) -> Value {
    let mut cap = json!({"offer_id": 1, "cap_type": "click", "cap_interval": "daily", "cap_amount": 1000});
    change(&mut cap);
    cap
}

fn caps(api: &Api, filter: &str) -> Vec<Value> {
    let answer = api.get(&format!("offer_caps.json?{filter}")).success();
    answer["response"]["offer_caps"].as_array().unwrap().clone()
}

#[test]
fn a_cap_set_again_is_the_same_cap() {
    let api = start();
    let set = |change: fn(&mut Value)| {
        let answer = api.post("offer_cap.json", daily_clicks(change)).success();
        (answer["message"].as_str().unwrap().to_owned(), answer["response"].clone())
    };
    let (message, cap) = set(|_| {});
    let mut expected = json!({
        "cap_id": 1, "offer_id": 1, "affiliate_id": null, "cap_type": "click", "cap_interval": "daily",
        "cap_amount": 1000, "time_zone": "America/New_York", "send_alert_only": false,
    });
    assert_eq!((message.as_str(), &cap), ("created", &expected));
    assert_eq!(set(|_| {}), ("unchanged".to_owned(), expected.clone()));
    for (name, value) in
        [("cap_amount", json!(0)), ("time_zone", json!("Europe/Berlin")), ("send_alert_only", json!(true))]
    {
        expected[name] = value;
    }
    let changed = set(|cap| {
        cap["cap_type"] = "Click".into();
        cap["cap_amount"] = "0".into();
        cap["time_zone"] = "europe/berlin".into();
        cap["send_alert_only"] = true.into();
        cap["affiliate_id"] = Value::Null;
    });
    assert_eq!(changed, ("changed".to_owned(), expected.clone()));
    // What is left out stays.
    expected["cap_amount"] = 7.into();
    assert_eq!(set(|cap| cap["cap_amount"] = 7.into()), ("changed".to_owned(), expected));
    // Another affiliate, type, interval or offer is another cap.
    for change in [
        |cap: &mut Value| cap["affiliate_id"] = 67890.into(),
        |cap: &mut Value| cap["cap_type"] = "conversion".into(),
        |cap: &mut Value| cap["cap_interval"] = "lifetime".into(),
        |cap: &mut Value| cap["offer_id"] = 2.into(),
    ] {
        assert_eq!(set(change).0, "created");
    }
    let most =
        api.post("offer_cap.json", daily_clicks(|cap| cap["cap_amount"] = 9_007_199_254_740_991_i64.into()));
    assert_eq!(most.success()["response"]["cap_amount"], 9_007_199_254_740_991_i64);
    assert_eq!(api.get("offer_caps.json").success()["response"]["total_rows"], 5);
}

#[test]
fn lists_are_filtered_paged_and_say_how_full_a_cap_is() {
    let api = start();
    for (offer, affiliate, kind, interval) in [
        (1, Value::Null, "click", "daily"),
        (1, json!(7), "click", "weekly"),
        (2, json!(7), "conversion", "monthly"),
    ] {
        let cap = json!({"offer_id": offer, "affiliate_id": affiliate, "cap_type": kind, "cap_interval": interval,
                         "cap_amount": 5, "time_zone": "UTC"});
        api.post("offer_cap.json", cap).success();
    }
    assert_eq!(
        caps(&api, "cap_id=1"),
        [
            json!({"cap_id": 1, "offer_id": 1, "affiliate_id": null, "cap_type": "click", "cap_interval": "daily",
                "cap_amount": 5, "time_zone": "UTC", "send_alert_only": false,
                "used": 0, "leased": 0, "remaining": 5, "window_ends_at": null})
        ]
    );
    for (filter, ids) in [
        ("", vec![1, 2, 3]),
        ("offer_id=1", vec![1, 2]),
        ("affiliate_id=7", vec![2, 3]),
        ("affiliate_id=7&offer_id=1", vec![2]),
        ("cap_type=click", vec![1, 2]),
        ("cap_type=Conversion", vec![3]),
        ("cap_interval=weekly", vec![2]),
        ("cap_id=9", vec![]),
        ("start_at_row=1&row_limit=1", vec![2]),
    ] {
        let found: Vec<i64> = caps(&api, filter).iter().map(|cap| cap["cap_id"].as_i64().unwrap()).collect();
        assert_eq!(found, ids, "{filter}");
    }
    let page = api.get("offer_caps.json?row_limit=1");
    assert_eq!(page.success()["response"]["total_rows"], 3);
    assert!(page.headers.contains_key("smartlink-revision"));
    api.get("offer_caps.json?row_limit=501").refused(400, &["`row_limit`", "1 to 500"]);
    api.get("offer_caps.json?offer_id=x").refused(400, &["`offer_id`", "whole number"]);
    api.get("offer_caps.json?cap_type=view").refused(422, &["`cap_type` is \"view\"", "click, conversion"]);
    api.get("offer_caps.json?cap_interval=hourly").refused(422, &["`cap_interval`", "lifetime, daily"]);
}

#[test]
fn a_cap_is_removed_by_its_number_or_by_its_name() {
    let api = start();
    let of_all = daily_clicks(|_| {});
    let of_one = daily_clicks(|cap| cap["affiliate_id"] = 7.into());
    for cap in [&of_all, &of_one] {
        api.post("offer_cap.json", cap.clone()).success();
    }
    let remove = |fields: Value| api.post("remove_offer_cap.json", fields);
    let name = json!({"offer_id": 1, "cap_type": "click", "cap_interval": "daily"});
    remove(json!({})).refused(400, &["`offer_id` is missing", "`cap_id` alone"]);
    remove(json!({"offer_id": 1, "cap_type": "click"}))
        .refused(400, &["`cap_interval` is missing", "`cap_id`"]);
    remove(json!({"cap_id": 9})).refused(404, &["`cap_id` 9 does not exist"]);
    remove(json!({"cap_id": "x"})).refused(400, &["`cap_id`", "whole number"]);
    remove(json!({"cap_id": 1, "cap_amount": 1})).refused(400, &["`cap_amount` is not a parameter"]);
    remove(json!({"offer_id": 2, "cap_type": "click", "cap_interval": "daily", "affiliate_id": 7}))
        .refused(404, &["`offer_id` 2 has no daily click cap for affiliate 7"]);
    for (name, value) in [
        ("offer_id", json!(2)),
        ("affiliate_id", json!(8)),
        ("affiliate_id", json!(null)),
        ("cap_type", json!("conversion")),
        ("cap_interval", json!("weekly")),
    ] {
        remove(json!({"cap_id": 2, name: value})).refused(422, &[&format!("`{name}` is not that of cap 2")]);
    }
    let removed = remove(name).success();
    assert_eq!((&removed["message"], &removed["response"]["cap_id"]), (&json!("removed"), &json!(1)));
    let removed = remove(json!({"cap_id": 2, "offer_id": 1, "affiliate_id": 7})).success();
    assert_eq!(removed["response"]["affiliate_id"], 7);
    assert_eq!(caps(&api, ""), Vec::<Value>::new());
    let again = api.post("offer_cap.json", of_all).success();
    assert_eq!(again["response"]["cap_id"], 3, "no number is given twice");
}

#[test]
fn what_is_wrong_is_named_and_changes_nothing() {
    let api = start();
    api.post("offer_cap.json", daily_clicks(|_| {})).success();
    let before = caps(&api, "");
    let cases: [(&str, Option<Value>, u16, &[&str]); 21] = [
        ("offer_id", None, 400, &["is missing", "whole number"]),
        ("offer_id", Some(json!("x")), 400, &["\"x\"", "whole number"]),
        ("offer_id", Some(json!(99)), 404, &["99 does not exist"]),
        ("affiliate_id", Some(json!(0)), 422, &["is 0", "1 to 4294967295"]),
        ("affiliate_id", Some(json!(4_294_967_296_i64)), 422, &["1 to 4294967295"]),
        ("affiliate_id", Some(json!("seven")), 400, &["whole number"]),
        ("cap_type", None, 400, &["is missing", "click, conversion"]),
        ("cap_type", Some(json!("impression")), 422, &["\"impression\"", "click, conversion"]),
        ("cap_type", Some(json!(1)), 400, &["text"]),
        ("cap_interval", None, 400, &["is missing", "lifetime, daily, weekly, monthly"]),
        ("cap_interval", Some(json!("hourly")), 422, &["\"hourly\"", "lifetime, daily, weekly, monthly"]),
        ("cap_amount", None, 400, &["is missing", "0 to 9007199254740991"]),
        ("cap_amount", Some(json!(-1)), 422, &["is -1", "0 to 9007199254740991"]),
        ("cap_amount", Some(json!(9_007_199_254_740_992_i64)), 422, &["0 to 9007199254740991"]),
        ("cap_amount", Some(json!(1.5)), 400, &["whole number"]),
        ("cap_amount", Some(json!(null)), 400, &["whole number"]),
        ("time_zone", Some(json!("Mars/Olympus")), 422, &["\"Mars/Olympus\"", "IANA", "America/New_York"]),
        ("time_zone", Some(json!(5)), 400, &["text"]),
        ("send_alert_only", Some(json!("perhaps")), 400, &["true or false"]),
        ("used", Some(json!(0)), 400, &["is not a parameter", "cap_amount"]),
        ("cap_id", Some(json!(1)), 400, &["is not a parameter"]),
    ];
    for (name, value, status, said) in cases {
        let cap = daily_clicks(|cap| match value {
            Some(value) => cap[name] = value,
            None => drop(cap.as_object_mut().unwrap().remove(name)),
        });
        let name = format!("`{name}` ");
        api.post("offer_cap.json", cap).refused(status, &[&[name.as_str()], said].concat());
    }
    assert_eq!(caps(&api, ""), before);
    api.get("offer_cap.json").refused(405, &["POST"]);
    api.post("offer_caps.json", json!({})).refused(405, &["GET"]);
}
