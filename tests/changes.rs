//! `network.json`: what of a network has changed since a state, so that a reader who takes one difference after another
//! has the network at any time.

#[path = "support/api.rs"]
mod support;

use std::collections::BTreeSet;

use http::Method;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::{Value, json};
use smartlink::cake::{Lines, Network};
use smartlink::types::LinkId;
use support::{Api, JSON, KEY};

/// Three links and three offers: offer 1 on links 1 and 2, offer 2 by a rule on link 3, offer 3 nowhere.
fn start() -> Api {
    let api = Api::start();
    for link in 1..=3 {
        api.post("smart_link.json", json!({"smart_link_name": format!("Link {link}"), "affiliate_id": 7}))
            .success();
    }
    for offer in 1..=3 {
        let url = format!("https://o{offer}.example.com/");
        api.post("offer.json", json!({"offer_name": format!("Offer {offer}"), "offer_url": url})).success();
    }
    for link in [1, 2] {
        api.post("smart_link_offer.json", json!({"smart_link_id": link, "offer_id": 1})).success();
    }
    let rule = json!({"smart_link_id": 3, "offer_id": 2, "conditions": {"country": {"in": ["US"]}}});
    api.post("routing_rule.json", rule).success();
    api
}

/// The name of the state that the API is in.
fn revision(api: &Api) -> String {
    api.get("revision.json").success()["response"]["revision"].as_str().unwrap().to_owned()
}

fn since(api: &Api, revision: &str) -> Lines {
    let lines = api.lines(&format!("network.json?since={revision}"));
    assert_eq!(lines.head.as_ref().unwrap().since.as_deref(), Some(revision), "it tells a difference");
    lines
}

fn changed(lines: &Lines) -> BTreeSet<u32> {
    lines.changed.iter().map(|link| link.value()).collect()
}

#[test]
fn every_call_touches_the_links_that_it_changes_and_no_others() {
    let api = start();
    let cases: &[(&str, Value, &[u32])] = &[
        ("smart_link.json", json!({"smart_link_name": "new", "affiliate_id": 7}), &[4]),
        ("update_smart_link.json", json!({"smart_link_id": 1, "smart_link_status": "inactive"}), &[1]),
        (
            "update_smart_link.json",
            json!({"smart_link_id": 1, "fallback_url": "https://f.example.com/"}),
            &[1],
        ),
        // A name routes nothing, and is shown by consoles.
        ("update_smart_link.json", json!({"smart_link_id": 1, "smart_link_name": "renamed"}), &[1]),
        ("smart_link_offer.json", json!({"smart_link_id": 2, "offer_id": 3, "offer_weight": 5}), &[2]),
        ("smart_link_offer.json", json!({"smart_link_id": 2, "offer_id": 3, "priority": 4}), &[2]),
        ("smart_link_offer.json", json!({"smart_link_id": 2, "offer_id": 3, "priority": 4}), &[]),
        ("remove_smart_link_offer.json", json!({"smart_link_id": 2, "offer_id": 3}), &[2]),
        ("offer.json", json!({"offer_name": "new", "offer_url": "https://new.example.com/"}), &[]),
        ("update_offer.json", json!({"offer_id": 1, "offer_url": "https://moved.example.com/"}), &[1, 2]),
        ("update_offer.json", json!({"offer_id": 2, "offer_status": "paused"}), &[3]),
        ("update_offer.json", json!({"offer_id": 2, "expiration_date": "2031-01-01 00:00:00"}), &[3]),
        ("update_offer.json", json!({"offer_id": 2, "payout": 4.5}), &[]),
        (
            "update_offer_geo_targets.json",
            json!({"offer_id": 2, "countries": "US,CA", "action": "allow"}),
            &[3],
        ),
        ("update_offer_geo_targets.json", json!({"offer_id": 2, "countries": "CA", "action": "block"}), &[3]),
        (
            "update_offer_geo_targets.json",
            json!({"offer_id": 2, "countries": "CA", "action": "remove"}),
            &[3],
        ),
        ("routing_rule.json", json!({"smart_link_id": 1, "offer_id": 3, "conditions": {}}), &[1]),
        ("update_routing_rule.json", json!({"rule_id": 1, "offer_weight": 9}), &[3]),
        ("remove_routing_rule.json", json!({"rule_id": 1}), &[3]),
    ];
    for (call, fields, links) in cases {
        let before = revision(&api);
        api.post(call, fields.clone()).success();
        let lines = since(&api, &before);
        assert_eq!(changed(&lines), links.iter().copied().collect(), "{call} {fields}");
        assert_eq!(lines.head.unwrap().revision, revision(&api), "{call}");
        // What is told of a changed link is all there is, and nothing is told of others.
        let whole = api.lines("network.json").network;
        let told = lines.network.smart_link_offers.len() + lines.network.routing_rules.len();
        let of_changed = |link: LinkId| links.contains(&link.value());
        let entries = whole.smart_link_offers.iter().filter(|entry| of_changed(entry.link)).count();
        let rules = whole.routing_rules.iter().filter(|rule| of_changed(rule.link)).count();
        assert_eq!(told, entries + rules, "{call} {fields}");
    }
}

/// An offer may hang on half a million links, and its cap touches none of them.
#[test]
fn a_changed_cap_is_told_with_all_caps_and_without_any_link() {
    let api = start();
    let cap = |offer: u32, amount: u32| json!({"offer_id": offer, "cap_type": "click", "cap_interval": "daily", "cap_amount": amount});
    /// Offers and amounts, if caps were changed.
    type Amounts = Option<Vec<(i64, i64)>>;
    let amounts = |lines: &Lines| -> Amounts {
        let caps = lines.network.offer_caps.iter().map(|cap| (cap.offer_id, cap.cap_amount));
        lines.caps_changed.then(|| caps.collect())
    };
    let cases: [(&str, Value, Amounts); 7] = [
        ("offer_cap.json", cap(1, 5), Some(vec![(1, 5)])),
        ("offer_cap.json", cap(2, 6), Some(vec![(1, 5), (2, 6)])),
        ("offer_cap.json", cap(1, 7), Some(vec![(1, 7), (2, 6)])),
        ("offer_cap.json", cap(1, 7), None),
        (
            "offer_cap.json",
            json!({"offer_id": 2, "affiliate_id": 9, "cap_type": "conversion", "cap_interval": "lifetime",
                                  "cap_amount": 0, "send_alert_only": true}),
            Some(vec![(1, 7), (2, 6), (2, 0)]),
        ),
        ("remove_offer_cap.json", json!({"cap_id": 2}), Some(vec![(1, 7), (2, 0)])),
        ("update_smart_link.json", json!({"smart_link_id": 1, "affiliate_id": 8}), None),
    ];
    for (call, fields, caps) in cases {
        let before = revision(&api);
        api.post(call, fields.clone()).success();
        let lines = since(&api, &before);
        assert_eq!(amounts(&lines), caps, "{call} {fields}");
        assert!(caps.is_none() || lines.changed.is_empty(), "{call} {fields}");
        assert!(caps.is_none() || lines.network.smart_links.is_empty(), "{call} {fields}");
        assert_eq!(
            api.lines("network.json").network.canonical(),
            api.network().canonical(),
            "{call} {fields}"
        );
    }
    let before = revision(&api);
    let remove = |id: u32| api.post("remove_offer_cap.json", json!({"cap_id": id})).success();
    remove(1);
    remove(3);
    assert_eq!(amounts(&since(&api, &before)), Some(Vec::new()), "that there are none is told, too");
}

#[test]
fn who_only_asks_about_the_network_hears_its_state() {
    let api = start();
    let ask = |known: &str| {
        let headers = [("authorization", &*format!("Bearer {KEY}")), ("if-none-match", known)];
        api.send(Method::HEAD, "/api/2/network.json", &headers, "")
    };
    let now = revision(&api);
    let asked = ask("\"other\"");
    assert_eq!((asked.status.as_u16(), asked.text.as_str()), (200, ""));
    assert_eq!(asked.headers["smartlink-revision"], now.as_str());
    assert_eq!(asked.headers["content-type"], "application/x-ndjson");
    assert_eq!(ask(&format!("\"{now}\"")).status.as_u16(), 304);
    assert_eq!(api.send(Method::HEAD, "/api/2/network.json", &[], "").status.as_u16(), 401);
}

#[test]
fn a_call_that_changes_nothing_leaves_the_state_as_it_is() {
    let api = start();
    let targets = json!({"offer_id": 2, "countries": "US", "action": "allow"});
    api.post("update_offer_geo_targets.json", targets.clone()).success();
    let before = revision(&api);
    for (call, fields) in [
        (
            "update_smart_link.json",
            json!({"smart_link_id": 1, "smart_link_name": "Link 1", "affiliate_id": 7}),
        ),
        ("smart_link_offer.json", json!({"smart_link_id": 1, "offer_id": 1, "offer_weight": 1})),
        ("update_offer.json", json!({"offer_id": 1, "offer_status": "Active"})),
        ("update_offer_geo_targets.json", targets),
        ("update_routing_rule.json", json!({"rule_id": 1, "priority": 1})),
    ] {
        api.post(call, fields).success();
        assert_eq!(revision(&api), before, "{call}");
    }
    api.post("update_smart_link.json", json!({"smart_link_id": 1, "smart_link_name": "renamed"})).success();
    assert_ne!(revision(&api), before, "a name is answered by lists");
}

#[test]
fn what_an_import_removes_is_told() {
    let api = start();
    let before = revision(&api);
    let rest = json!({
        "replace": true, "offers": [{"offer_id": 1, "offer_name": "Offer 1", "offer_url": "https://o1.example.com/"}],
        "smart_links": [{"smart_link_id": 2, "smart_link_name": "Link 2", "affiliate_id": 7}],
        "offer_geo_targets": [], "routing_rules": [], "offer_caps": [],
        "smart_link_offers": [{"smart_link_id": 2, "offer_id": 1}],
    });
    api.post_raw("import_network.json", "application/json", rest.to_string()).success();
    let lines = since(&api, &before);
    assert_eq!(changed(&lines), [1, 3].into());
    assert!(lines.network.smart_links.is_empty(), "{:?}", lines.network);
}

#[test]
fn what_cannot_be_told_as_a_difference_is_told_whole() {
    let api = start();
    let network = api.network().canonical();
    for call in ["network.json", "network.json?since=", "network.json?since=0123456789abcdef"] {
        let lines = api.lines(call);
        assert_eq!(lines.head.as_ref().unwrap().since, None, "{call}");
        assert_eq!((lines.network.canonical(), lines.changed.len()), (network.clone(), 0), "{call}");
    }
    assert!(since(&api, &revision(&api)).changed.is_empty(), "nothing is a difference, too");

    // More at once than is little.
    let before = revision(&api);
    let links: Vec<Value> = (100..10_101)
        .map(|id| json!({"smart_link_id": id, "smart_link_name": "imported", "affiliate_id": 7}))
        .collect();
    let many = json!({"smart_links": links}).to_string();
    api.post_raw("import_network.json", "application/json", many).success();
    let lines = api.lines(&format!("network.json?since={before}"));
    assert_eq!(lines.head.unwrap().since, None);
    assert_eq!(lines.network.smart_links.len(), 10_004);
    // From there on, differences again.
    let after = revision(&api);
    api.post("update_smart_link.json", json!({"smart_link_id": 2, "affiliate_id": 8})).success();
    assert_eq!(changed(&since(&api, &after)), [2].into());
}

/// Rows are not links: an offer may stand three times on each of 4,000.
#[test]
fn an_offer_on_many_links_by_many_rules_touches_them_all() {
    let api = start();
    let ids = 1_000..5_000;
    let links: Vec<Value> = ids
        .clone()
        .map(|id| json!({"smart_link_id": id, "smart_link_name": "imported", "affiliate_id": 7}))
        .collect();
    let rules: Vec<Value> = ids
        .clone()
        .flat_map(|link| (0..3).map(move |nth| (link, 3 * link + nth)))
        .map(|(link, rule)| json!({"rule_id": rule, "smart_link_id": link, "offer_id": 3, "conditions": {}}))
        .collect();
    let many = json!({"smart_links": links, "routing_rules": rules}).to_string();
    api.post_raw("import_network.json", "application/json", many).success();
    let before = revision(&api);
    api.post("update_offer.json", json!({"offer_id": 3, "offer_url": "https://moved.example.com/"}))
        .success();
    assert_eq!(changed(&since(&api, &before)), ids.collect());
}

#[test]
fn an_item_as_long_as_an_import_takes_is_told() {
    let api = start();
    let networks: Vec<String> =
        (0..60_000).map(|n: u32| format!("2001:db8:{:x}:{:x}::/64", n / 256, n % 256)).collect();
    let rule =
        json!({"rule_id": 9, "smart_link_id": 1, "offer_id": 3, "conditions": {"ip": {"in": networks}}});
    let import = json!({"routing_rules": [rule]}).to_string();
    assert!(import.len() > 1024 * 1024);
    api.post_raw("import_network.json", "application/json", import).success();
    let network = api.lines("network.json").network.canonical();
    assert_eq!(network.routing_rules.len(), 2);
    // As it is kept on the disk.
    let mut written = Vec::new();
    network.write(&mut written).unwrap();
    let mut back = Lines::default();
    for piece in written.chunks(64 * 1024) {
        back.push(piece).unwrap();
    }
    assert_eq!(back.network, network);
}

/// What is attached comes with its link, many to a line; conditions that many rules have are told once.
#[test]
fn what_there_is_most_of_takes_the_fewest_bytes() {
    let api = start();
    let offers: Vec<Value> = (1_000..1_600)
        .map(|id| json!({"offer_id": id, "offer_name": "o", "offer_url": "https://o.example.com/"}))
        .collect();
    let attached: Vec<Value> = (1_000..1_600)
        .map(|offer| json!({"smart_link_id": 2, "offer_id": offer, "offer_weight": 60, "priority": 3}))
        .collect();
    let rules: Vec<Value> = (100..200)
        .map(|id| json!({"rule_id": id, "smart_link_id": 1, "offer_id": 1_000, "conditions": {"asn": {"in": [id % 2]}}}))
        .collect();
    let import = json!({"offers": offers, "smart_link_offers": attached, "routing_rules": rules}).to_string();
    let before = revision(&api);
    api.post_raw("import_network.json", "application/json", import).success();
    let text = api.get("network.json").text;
    let told = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((told("{\"link\":"), told("{\"link_offers\":"), told("{\"rule\":")), (3, 2, 101));
    assert_eq!(told("{\"conditions\":"), 3, "one of the first rule");
    assert!(text.lines().all(|line| line.len() < 8 * 1024));
    assert!(text.contains("\n{\"link\":{\"id\":1,\"affiliate_id\":7,\"offers\":[[1,1,1]]}}\n"), "{text}");
    assert!(text.contains("\n{\"rule\":[100,1,1000,1,1,2]}\n"), "{text}");
    let network = api.lines("network.json").network.canonical();
    assert_eq!(network, api.network().canonical());
    let lines = since(&api, &before);
    assert_eq!(changed(&lines), [1, 2].into());
    assert_eq!(lines.network.smart_link_offers.len(), 602);
}

#[test]
fn who_has_the_state_is_told_no_more() {
    let api = start();
    let bearer = format!("Bearer {KEY}");
    let ask = |tag: &str| {
        let headers = [("authorization", &*bearer), ("if-none-match", tag)];
        api.send(Method::GET, "/api/2/network.json", &headers, "")
    };
    let tag = ask("\"another\"").headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(tag, format!("\"{}\"", revision(&api)));
    for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
        let reply = ask(&known);
        assert_eq!((reply.status.as_u16(), &*reply.text), (304, ""), "{known}");
        assert_eq!(reply.headers["etag"], tag);
    }
    api.post("update_smart_link.json", json!({"smart_link_id": 2, "affiliate_id": 8})).success();
    assert_eq!(ask(&tag).status, 200);
}

#[test]
fn the_key_and_the_method_are_asked_for() {
    let api = start();
    api.send(Method::GET, "/api/2/network.json", &[], "").refused(401, &["api_key"]);
    api.send(Method::GET, "/api/2/network.json?api_key=wrong", &[], "").refused(401, &["api_key", "wrong"]);
    api.send(Method::POST, "/api/2/network.json", JSON, json!({"api_key": KEY}).to_string())
        .refused(405, &["GET, HEAD only"]);
    let reply = api.send(Method::HEAD, &format!("/api/2/network.json?api_key={KEY}"), &[], "");
    assert_eq!((reply.status.as_u16(), &*reply.text), (200, ""));
}

/// Any writes in any order, told in differences of any length: a reader has what the API has.
#[test]
fn one_difference_after_another_gives_the_whole() {
    const WRITES: usize = 400;
    let seed = match std::env::var("SMARTLINK_TEST_SEED") {
        Ok(seed) => seed.parse().expect("SMARTLINK_TEST_SEED is a number"),
        Err(_) => 301,
    };
    println!("SMARTLINK_TEST_SEED={seed}");
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let api = start();
    let (mut known, mut state) = (api.lines("network.json").network, revision(&api));
    let (mut differences, mut done) = (0, 0);
    for _ in 0..WRITES {
        let (call, fields) = some_write(&mut random);
        // Some are refused: a link that is not there, an offer that is not attached.
        done += usize::from(api.post(call, fields).status.is_success());
        if random.random_range(0..4) > 0 {
            continue;
        }
        let mut lines = since(&api, &state);
        differences += usize::from(!lines.changed.is_empty());
        state = lines.head.unwrap().revision;
        if lines.caps_changed {
            known.offer_caps = std::mem::take(&mut lines.network.offer_caps);
        }
        assert!(lines.network.offer_caps.is_empty(), "caps are told where some were changed, and only there");
        known.replace(&lines.changed, lines.network);
        assert_eq!(routed(known.clone()), routed(api.lines("network.json").network));
    }
    assert!(done > WRITES / 3 && differences > WRITES / 16, "{done} done, {differences} differences");
}

fn some_write(random: &mut Xoshiro256PlusPlus) -> (&'static str, Value) {
    let (link, offer) = (random.random_range(1..6), random.random_range(1..5));
    let number = random.random_range(0..4);
    match random.random_range(0..12) {
        0 => ("smart_link.json", json!({"smart_link_name": "new", "affiliate_id": 1 + number})),
        1 => ("update_smart_link.json", json!({"smart_link_id": link, "affiliate_id": 1 + number})),
        2 => ("smart_link_offer.json", json!({"smart_link_id": link, "offer_id": offer, "priority": number})),
        3 => ("remove_smart_link_offer.json", json!({"smart_link_id": link, "offer_id": offer})),
        4 => ("offer.json", json!({"offer_name": "new", "offer_url": "https://new.example.com/"})),
        5 => (
            "update_offer.json",
            json!({"offer_id": offer, "offer_url": format!("https://u{number}.example.com/")}),
        ),
        6 => {
            let action = ["allow", "block", "remove"][number % 3];
            (
                "update_offer_geo_targets.json",
                json!({"offer_id": offer, "countries": "US,CA", "action": action}),
            )
        }
        7 => ("routing_rule.json", json!({"smart_link_id": link, "offer_id": offer, "conditions": {}})),
        8 => ("update_routing_rule.json", json!({"rule_id": link, "priority": number})),
        9 => (
            "offer_cap.json",
            json!({"offer_id": offer, "cap_type": "click", "cap_interval": "daily", "cap_amount": number}),
        ),
        10 => (
            "remove_offer_cap.json",
            json!({"offer_id": offer, "cap_type": "click", "cap_interval": "daily"}),
        ),
        _ => ("remove_routing_rule.json", json!({"rule_id": link})),
    }
}

/// The network without offers that no click can reach, of which a difference says nothing.
fn routed(mut network: Network) -> Network {
    let named: BTreeSet<i64> = (network.smart_link_offers.iter().map(|entry| entry.offer.value().into()))
        .chain(network.routing_rules.iter().map(|rule| rule.offer.value().into()))
        .collect();
    network.offers.retain(|offer| named.contains(&offer.offer_id));
    network.offer_geo_targets.retain(|targets| named.contains(&targets.offer_id));
    network.canonical()
}
