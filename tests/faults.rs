//! Every fault of an upstream that we could think of, over a real socket, in one table; and answers mutated at random.
//!
//! In each case a node that routes by a good table meets the fault. Asserted are the redirect that is served meanwhile,
//! every series of the snapshot that moves and by how much, a line that the log gets then, and the report of the
//! refresh; then the fault ends, and the next refresh brings the new redirect. The key is shown nowhere.

mod support;

use std::collections::BTreeMap;
use std::net::TcpListener;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::{Value, json};
use support::certificate::{Authority, Validity};
use support::node::{Node, Setup};
use support::stub::{Canned, LISTS, Manner, Stub, offer};
use support::wait;

const CANARY: &str = "canary-9b2c44d1e7";
const CLICK: &str = "/sl?id=1&aff_id=7";
const LINKS: i64 = 200;
const OLD: &str = "old.example.com";
const NEW: &str = "new.example.com";

/// What a refresh comes to while the fault lasts. Of the series below, no other moves.
#[derive(Clone, Copy, PartialEq)]
enum Comes {
    /// `smartlink_snapshot_refreshes_total{result="failed"}` by one. These words are in the error and in a warning of
    /// the log; the old redirect is served.
    Failure(&'static str),
    /// `…{result="refused"}` by one, by the guard. Else as a failure.
    Refusal(&'static str),
    /// `…{result="published"}` and `smartlink_snapshot_generation` by one: nothing that matters is wrong, and the new
    /// redirect is served at once. The log says that it was published.
    Nothing,
    /// `…{result="unchanged"}` by one, and `smartlink_snapshot_quarantined` from 0 to 1: the item keeps its last good
    /// version, and the old redirect is served. These words are in the report and in a warning of the log.
    Quarantine(&'static str),
}
use Comes::{Failure, Nothing, Quarantine, Refusal};

/// The fault, which call has it, and what comes of it.
struct Case {
    fault: &'static str,
    list: &'static str,
    knob: Knob,
    comes: Comes,
}

/// How the answer that would be good is spoiled.
type Knob = fn(Canned) -> Canned;

const fn case(fault: &'static str, list: &'static str, knob: Knob, comes: Comes) -> Case {
    Case { fault, list, knob, comes }
}

fn cases() -> Vec<Case> {
    vec![
        case(
            "401",
            "offers",
            |good| good.status("401 Unauthorized"),
            Failure("HTTP 401 Unauthorized; check the API key"),
        ),
        case(
            "403",
            "offers",
            |good| good.status("403 Forbidden"),
            Failure("HTTP 403 Forbidden; check the API key"),
        ),
        case("404", "offers", |good| good.status("404 Not Found"), Failure("check the upstream's URL")),
        case(
            "404 of a real CAKE",
            "routing_rules",
            |good| good.status("404 Not Found"),
            Failure("CAKE publishes no such call"),
        ),
        case(
            "429 with Retry-After",
            "offers",
            |good| good.status("429 Too Many Requests\r\nRetry-After: 7"),
            Failure("asks for fewer calls"),
        ),
        case("500", "smart_links", |good| good.status("500 Internal Server Error"), Failure("HTTP 500")),
        case("503", "smart_links", |good| good.status("503 Service Unavailable"), Failure("HTTP 503")),
        case(
            "a slow header",
            "offers",
            |good| good.manner(Manner::Silent),
            Failure("no whole answer within 2.0 s"),
        ),
        case(
            "one byte a second",
            "offers",
            |good| good.manner(Manner::Dripping),
            Failure("no whole answer within 2.0 s"),
        ),
        case("stalled in the body", "offers", Canned::stalled, Failure("no whole answer within 2.0 s")),
        case("cut in the middle of JSON", "smart_links", cut, Failure("not the JSON that was expected")),
        case("the connection cut", "smart_links", Canned::broken_off, Failure("broke off")),
        case("an HTML page with 200", "offers", |_| Canned::html(), Failure("not the JSON")),
        case(
            "an XML error with 200",
            "offers",
            |_| body("<?xml version=\"1.0\"?><error>no</error>"),
            Failure("not the JSON"),
        ),
        case("an XML error with 500", "offers", |_| body("<error/>").status("500 Oops"), Failure("HTTP 500")),
        case(
            "request_status Error with 200",
            "offers",
            |_| body(&json!({"request_status": format!("Error: {CANARY}"), "offers": []}).to_string()),
            Failure("request_status \"Error: (the API key)\""),
        ),
        case("a list that is null", "offers", |_| success("offers", json!(null)), Failure("not the JSON")),
        case("no list", "offers", |_| success("others", json!([])), Failure("no list `offers`")),
        case(
            "an empty list of links",
            "smart_links",
            |_| success("smart_links", json!([])),
            Refusal("0 links"),
        ),
        case(
            "an empty list of entries",
            "smart_link_offers",
            |_| success("smart_link_offers", json!([])),
            Refusal("0 entries"),
        ),
        case(
            "half the links gone",
            "smart_links",
            |_| success("smart_links", links(1..=LINKS / 2)),
            Refusal("100 links"),
        ),
        case(
            "a page that repeats",
            "smart_links",
            |_| success("smart_links", links(1..=500)),
            Failure("ignore start_at_row"),
        ),
        case(
            "pages that never end",
            "smart_links",
            |good| good.manner(Manner::Endless),
            Failure("more than 5000 rows"),
        ),
        case("duplicate ids in a page", "smart_links", |_| success("smart_links", doubled()), Nothing),
        case("duplicate ids over pages", "smart_links", |good| good.manner(Manner::Overlapping), Nothing),
        case("total_rows too large", "smart_links", |good| total_rows(good, 1_000_000), Nothing),
        case("total_rows too small", "smart_links", |good| total_rows(good, 1), Nothing),
        case("a body of 1 GB", "offers", |good| good.manner(Manner::Gigabyte), Failure("over 1000000 bytes")),
        case("invalid UTF-8", "offers", |good| good.manner(Manner::NotUtf8), Failure("not the JSON")),
        case("deep nesting", "offers", |_| body(&"[".repeat(100_000)), Failure("not the JSON")),
        case(
            "deep nesting in an item",
            "offers",
            |_| {
                success(
                    "offers",
                    serde_json::from_str(&format!("[{{\"offer\":{}}}]", "[".repeat(90) + &"]".repeat(90)))
                        .unwrap(),
                )
            },
            Quarantine("row 1 of offers.json"),
        ),
        case("numbers as strings", "smart_links", texts, Nothing),
        case(
            "wrong types",
            "offers",
            |_| success("offers", json!([{"offer": {"offer_id": "10", "offer_url": 5}}])),
            Quarantine("offer 10: cannot be read"),
        ),
        case(
            "a row that is the key",
            "offers",
            |_| success("offers", json!([CANARY])),
            Quarantine("row 1 of offers.json"),
        ),
        case(
            "an unknown enum value",
            "offers",
            |_| {
                success(
                    "offers",
                    json!([{"offer": {"offer_id": 10, "offer_status": "sleeping", "offer_url": "https://x.example.com/"}}]),
                )
            },
            Quarantine("its last good version stays"),
        ),
    ]
}

#[test]
fn every_fault_leaves_the_redirect_right() {
    let stub = Stub::start();
    let node = start(&stub.url());
    for Case { fault, list, knob, comes } in cases() {
        publish(&stub, OLD);
        node.refresh_with("?force=true", 200);
        assert_eq!(node.click(CLICK).destination(), OLD, "before {fault}");

        publish(&stub, NEW);
        let good = stub.answer_to(list);
        stub.answer(list, knob(good.clone()));
        meet(&node, fault, comes);

        stub.answer(list, good);
        recover(&node, fault, if comes == Nothing { "unchanged" } else { "published" });
    }
}

#[test]
fn a_refused_connection_changes_nothing() {
    let stub = Stub::start();
    publish(&stub, OLD);
    let setup = start(&stub.url()).kill();
    // Bound and let go: nobody listens there.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let node = setup.moved_to(&format!("http://{nobody}")).start_ready();
    wait_for_first_refresh(&node, "failed");
    publish(&stub, NEW);
    meet(&node, "refused", Failure("offers.json: the upstream cannot be reached"));
    node.wait_for_log(&["WARN", "Connection refused"]);
    let node = node.kill().moved_to(&stub.url()).start_ready();
    wait_for_first_refresh(&node, "published");
    recover(&node, "refused", "unchanged");
}

#[test]
fn a_redirect_to_another_host_is_not_followed() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let stub = Stub::start();
    publish(&stub, OLD);
    let node = start(&stub.url());
    publish(&stub, NEW);
    let location = format!("302 Found\r\nLocation: http://{}/api/2/offers.json", other.local_addr().unwrap());
    let good = stub.answer_to("offers");
    stub.answer("offers", good.clone().status(location.leak()));
    meet(&node, "a redirect", Failure("offers.json: HTTP 302 Found; redirects are not followed"));
    assert!(other.accept().is_err(), "the other host was asked");
    stub.answer("offers", good);
    recover(&node, "a redirect", "published");
}

#[test]
fn an_expired_certificate_changes_nothing() {
    let (stub, authority) = (Stub::start(), Authority::new());
    publish(&stub, OLD);
    let file = authority.file();
    let setup =
        start(&stub.url()).kill().setting(&format!("upstream.ca_file = {:?}", file.path().to_str().unwrap()));
    let front = |validity| authority.front(stub.address, "localhost", validity).url();
    let node = setup.moved_to(&front(Validity::Expired)).start_ready();
    wait_for_first_refresh(&node, "failed");
    publish(&stub, NEW);
    meet(&node, "an expired certificate", Failure("invalid peer certificate: certificate expired"));
    let node = node.kill().moved_to(&front(Validity::Now)).start_ready();
    wait_for_first_refresh(&node, "published");
    recover(&node, "an expired certificate", "unchanged");
}

/// A node that was started looks at its upstream by itself, once; then nothing moves that the test does not move.
fn wait_for_first_refresh(node: &Node, result: &str) {
    let series = refreshes(result);
    wait::until_equal(&series, 1, || node.metrics().value(&series));
}

/// A refresh while the fault lasts.
#[track_caller]
fn meet(node: &Node, fault: &str, comes: Comes) {
    let (status, result, served, said, level) = match comes {
        Failure(said) => (502, "failed", OLD, said, "WARN"),
        Refusal(said) => (409, "refused", OLD, said, "WARN"),
        Nothing => (200, "published", NEW, "", "INFO published"),
        Quarantine(said) => (200, "unchanged", OLD, said, "WARN"),
    };
    let (before, said_before) = (node.metrics(), node.log().len());
    let report = node.refresh_with("", status);
    assert_eq!(report["result"], result, "{fault}: {report}");
    let told = format!("{} {}", report["error"].as_str().unwrap_or_default(), report["warnings"]);
    assert!(told.contains(said) && !told.contains(CANARY), "{fault}: {told}");

    assert_eq!(node.click(CLICK).destination(), served, "during {fault}");
    assert_eq!(node.readyz(), 200, "during {fault}");
    node.wait_for_log_behind(said_before, &[level, said]);

    let after = node.metrics();
    for other in RESULTS {
        let series = refreshes(other);
        let moved = after.value(&series) - before.value(&series);
        assert_eq!(moved, u64::from(other == result), "{fault}: {series}");
    }
    assert_eq!(after.generation() - before.generation(), u64::from(comes == Nothing), "{fault}");
    assert_eq!(after.value("smartlink_snapshot_links"), LINKS as u64, "{fault}");
    assert_eq!(before.value("smartlink_snapshot_quarantined"), 0, "{fault}");
    let quarantined = u64::from(matches!(comes, Quarantine(_)));
    assert_eq!(after.value("smartlink_snapshot_quarantined"), quarantined, "{fault}");
    assert!(!after.0.contains(CANARY) && !node.log().contains(CANARY), "{fault}");
}

/// A refresh after the fault has ended. Without a fault that kept the new redirect away, it changes nothing.
#[track_caller]
fn recover(node: &Node, fault: &str, result: &str) {
    let before = node.metrics();
    let report = node.refresh();
    assert_eq!(
        (&report["result"], &report["quarantined"]),
        (&json!(result), &json!(0)),
        "after {fault}: {report}"
    );
    assert_eq!(node.click(CLICK).destination(), NEW, "after {fault}");
    let (series, after) = (refreshes(result), node.metrics());
    assert_eq!(after.value(&series), before.value(&series) + 1, "after {fault}");
    assert_eq!(after.value("smartlink_snapshot_quarantined"), 0, "after {fault}");
    assert_shown_nowhere(node);
}

fn refreshes(result: &str) -> String {
    format!("smartlink_snapshot_refreshes_total{{result=\"{result}\"}}")
}

const RESULTS: [&str; 4] = ["published", "unchanged", "refused", "failed"];

/// Answers mutated at random: `MUTATIONS` of them from `MUTATION_SEED`, both of the environment. By hand: 10,000.
#[test]
fn mutated_answers_route_nowhere_else() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}")))
    };
    let (count, seed) = (number("MUTATIONS", 300), number("MUTATION_SEED", 20_261_122));
    println!("{count} mutations from MUTATION_SEED={seed}");
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let stub = Stub::start();
    // One link per offer, so that a link that reaches another offer's host is noticed.
    let hosts: BTreeMap<i64, String> = (1..=3).map(|id| (id, format!("host{id}.example.com"))).collect();
    let offers = hosts.iter().map(|(&id, host)| json!({"offer": offer(id, &format!("https://{host}/"))}));
    stub.list("offers", offers.collect());
    stub.list("smart_links", links(1..=3));
    stub.list("smart_link_offers", (1..=3).map(|id| json!({"smart_link_id": id, "offer_id": id})).collect());
    stub.list(
        "offer_geo_targets",
        json!([{"offer_id": 3, "geo_targets": [{"country_code": "US", "action": "block"}]}]),
    );
    let node = start(&stub.url());
    let mut results: BTreeMap<String, u32> = BTreeMap::new();
    for round in 0..count {
        let list = LISTS[random.random_range(0..LISTS.len())];
        let good = stub.answer_to(list);
        let mutated = mutated(&good.body, &mut random);
        stub.answer(list, Canned::json(&mutated));
        let answer = node.admin("POST", "/refresh");
        assert!(
            [200, 409, 502].contains(&answer.status),
            "round {round}: {answer:?} after {list}: {mutated}"
        );
        let result = answer.json()["result"].as_str().unwrap().to_owned();
        for (link, host) in &hosts {
            let answer = node.click(&format!("/sl?id={link}&aff_id=7"));
            let right = match answer.status {
                302 if result == "published" => hosts.values().any(|host| host == answer.destination()),
                302 => host == answer.destination(),
                // The link may be gone, inactive, another affiliate's or without an entry: so a valid network says.
                status => status == 404 && result == "published",
            };
            assert!(right, "round {round}, {result}: {answer:?} after {list}: {mutated}");
        }
        *results.entry(result).or_default() += 1;
        stub.answer(list, good);
        node.refresh_with("?force=true", 200);
        for (link, host) in &hosts {
            let click = node.click(&format!("/sl?id={link}&aff_id=7"));
            assert_eq!(click.destination(), host, "round {round}: after {list}: {mutated}");
        }
    }
    println!("{results:?}");
    assert!(count < 100 || results.len() >= 3, "mutations that all come to the same: {results:?}");
    assert!(!node.log().contains("panicked"), "{}", node.log());
    assert_shown_nowhere(&node);
}

/// One to three changes: of whole values in most cases, of bytes in the others. Hosts are not made up: a good host in
/// the place of another is what a valid network may say, but a letter changed in one would be another host that the
/// upstream names.
fn mutated(body: &str, random: &mut Xoshiro256PlusPlus) -> String {
    let by_value = random.random_range(0..4) > 0;
    let changes = random.random_range(1..=3);
    if !by_value {
        return (0..changes).fold(body.to_owned(), |text, _| with_bytes_changed(text, random));
    }
    let mut answer: Value = serde_json::from_str(body).unwrap();
    for _ in 0..changes {
        change(&mut answer["response"], random);
    }
    answer.to_string()
}

/// Changes a value, or one in it, as deep as chance goes.
fn change(value: &mut Value, random: &mut Xoshiro256PlusPlus) {
    let deeper = random.random_range(0..6) > 0;
    let replace: bool = random.random();
    match value {
        Value::Array(items) if !items.is_empty() => {
            let index = random.random_range(0..items.len());
            if deeper {
                return change(&mut items[index], random);
            }
            if !replace {
                let twice = items[index].clone();
                return items.push(twice);
            }
        }
        Value::Object(fields) if !fields.is_empty() => {
            let index = random.random_range(0..fields.len());
            let name = fields.keys().nth(index).unwrap().clone();
            if deeper {
                return change(&mut fields[&name], random);
            }
            if !replace {
                fields.remove(&name);
                return;
            }
        }
        _ => {}
    }
    *value = odd_value(random);
}

fn odd_value(random: &mut Xoshiro256PlusPlus) -> Value {
    let mut values = vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(2),
        json!(1.5),
        json!(u64::MAX),
        json!(1e300),
        json!("2"),
        json!("nan"),
        json!(""),
        json!("inactive"),
        json!("\u{0}"),
        json!("https://host2.example.com/"),
        json!("https:///"),
        json!("ftp://host1.example.com/"),
        json!([]),
        json!({}),
        json!([[[]]]),
    ];
    values.swap_remove(random.random_range(0..values.len()))
}

fn with_bytes_changed(mut text: String, random: &mut Xoshiro256PlusPlus) -> String {
    let is_token = |c: char| "{}[]\",:0123456789".contains(c);
    let tokens: Vec<usize> = text.match_indices(is_token).map(|(at, _)| at).collect();
    if tokens.is_empty() {
        return text;
    }
    let at = tokens[random.random_range(0..tokens.len())];
    let is_in_host = text[..at].rfind("https://").is_some_and(|start| !text[start..at].contains('"'));
    if is_in_host {
        return text;
    }
    let odd = ODDITIES[random.random_range(0..ODDITIES.len())];
    match random.random_range(0..4) {
        0 => text.truncate(at),
        1 => text.replace_range(at..=at, ""),
        2 => text.insert_str(at, odd),
        _ => text.replace_range(at..=at, odd),
    }
    text
}

const ODDITIES: [&str; 16] = [
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "\"",
    "[]",
    "{}",
    "[[[[",
    "\\u0000",
    "18446744073709551616",
    "\"301\"",
    ",",
    "2",
    "3",
    "\u{feff}",
];

/// A node that asks for nothing by itself, and is soon out of patience.
fn start(upstream: &str) -> Node {
    let node = Setup::of_upstream(upstream, CANARY)
        .setting("upstream.call_timeout_seconds = 2.0")
        .setting("upstream.body_bytes_max = 1000000")
        .setting("upstream.rows_max = 5000")
        .start_ready();
    node.refresh();
    node
}

/// The network: so many links with an entry each, to one offer at this host.
fn publish(stub: &Stub, host: &str) {
    stub.list("offers", json!([{"offer": offer(10, &format!("https://{host}/"))}]));
    stub.list("smart_links", links(1..=LINKS));
    stub.list(
        "smart_link_offers",
        (1..=LINKS).map(|id| json!({"smart_link_id": id, "offer_id": 10})).collect(),
    );
}

fn links(ids: std::ops::RangeInclusive<i64>) -> Value {
    ids.map(|id| json!({"smart_link_id": id, "affiliate_id": 7, "smart_link_status": "active"})).collect()
}

fn doubled() -> Value {
    let twice = [links(1..=LINKS), links(1..=LINKS)];
    twice.iter().flat_map(|links| links.as_array().unwrap().clone()).collect()
}

fn success(list: &str, items: Value) -> Canned {
    body(&json!({"request_status": "Success", "response": {list: items}}).to_string())
}

fn body(text: &str) -> Canned {
    Canned::json(text)
}

fn cut(good: Canned) -> Canned {
    Canned::json(&good.body[..good.body.len() / 2])
}

fn total_rows(good: Canned, rows: u64) -> Canned {
    Canned::json(&good.body.replace(&format!("\"total_rows\":{LINKS}"), &format!("\"total_rows\":{rows}")))
}

/// Every number of the answer becomes a text.
fn texts(good: Canned) -> Canned {
    fn change(value: &mut Value) {
        match value {
            Value::Number(number) => *value = number.to_string().into(),
            Value::Array(items) => items.iter_mut().for_each(change),
            Value::Object(fields) => fields.values_mut().for_each(change),
            _ => {}
        }
    }
    let mut answer = serde_json::from_str(&good.body).unwrap();
    change(&mut answer);
    Canned::json(&answer.to_string())
}

#[track_caller]
fn assert_shown_nowhere(node: &Node) {
    let mut said = vec![node.log()];
    for target in ["/", "/metrics", "/readyz", "/explain?id=1&aff_id=7", "/nowhere"] {
        said.push(format!("{:?}", node.admin("GET", target)));
    }
    said.push(format!("{:?}", node.admin("POST", "/refresh")));
    said.push(format!("{:?}", node.click("/nowhere")));
    said.push(String::from_utf8_lossy(&std::fs::read(node.last_good()).unwrap()).into_owned());
    for text in said {
        assert!(!text.contains(CANARY), "the key is shown in {text}");
    }
}
