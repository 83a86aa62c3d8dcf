//! Whoever words a text, a line of ours stays a line of ours: an upstream, a file, a visitor and a caller of the API put ends
//! of lines and commands for terminals into everything that they may choose, and none of it reaches the log, the click log,
//! an answer's head or a table as what it is.

mod command;
mod support;

use std::fs;

use command::Desk;
use serde_json::json;
use support::http::Request;
use support::node::Setup;
use support::stub::{Canned, Stub};

/// What would be a line of the log, red, and the title of a terminal.
const FORGED: &str =
    "x\n2026-11-23T00:00:00.000000Z ERROR forged\r\u{1b}[31m\u{1b}]0;owned\u{7}\u{9b}2J\u{7f}\u{202e}\u{85}";

/// Every line has the form of ours, and there is nothing in it that steers a terminal.
#[track_caller]
fn is_ours(log: &str) {
    assert!(!log.is_empty());
    for line in log.lines() {
        if line.starts_with('{') {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}"));
            assert!(line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{line}");
            assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
            continue;
        }
        let (time, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?} in\n{log:?}"));
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{line:?} in\n{log:?}");
        let level = rest.trim_start().split(' ').next().unwrap_or_default();
        assert!(["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level), "{line:?}");
        assert!(!rest.trim_start().starts_with("ERROR forged"), "{line:?}");
    }
    steers_nothing(log);
}

#[track_caller]
fn steers_nothing(text: &str) {
    let steers = |character: char| (character.is_control() && character != '\n') || character == '\u{202e}';
    assert_eq!(text.find(steers), None, "{text:?}");
}

/// JSON escapes ends of lines, and need not escape more for the program that reads it.
#[track_caller]
fn is_json_on_one_line(body: &str) {
    assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{body:?}");
    assert!(!body.trim_end_matches('\n').contains(|character| character < ' '), "{body:?}");
}

const FORMATS: [&str; 2] = ["pretty", "json"];

#[test]
fn an_upstream_cannot_write_lines_into_the_log() {
    FORMATS.into_iter().for_each(an_upstream_writes);
}

fn an_upstream_writes(format: &str) {
    let stub = Stub::start();
    stub.list(
        "offers",
        json!([
            {"offer": {"offer_id": 10, "offer_status": "active", "offer_name": FORGED, "offer_url": "https://ten.example.com/"}},
            {"offer": {"offer_id": 11, "offer_status": FORGED, "offer_url": "https://eleven.example.com/"}},
            {"offer": {"offer_id": 12, "offer_status": "active", "offer_url": FORGED}},
            {"offer": {"offer_id": 13, "offer_status": "active", "offer_url": format!("https://a.example/{{{FORGED}}}")}},
            {"offer": {"offer_id": 14, "offer_status": "active", "offer_url": "https://a.example/", "expiration_date": FORGED}},
            {"offer": {"offer_id": FORGED, "offer_status": "active"}},
            {"offer": FORGED},
        ]),
    );
    stub.list(
        "smart_links",
        json!([
            {"smart_link_id": 1, "affiliate_id": 7, "smart_link_status": "active", "fallback_url": "https://fallback.example.com/"},
            {"smart_link_id": 2, "affiliate_id": 7, "smart_link_status": "active", "rotation_type": FORGED},
            {"smart_link_id": 3, "affiliate_id": 7, "smart_link_status": "active", "fallback_url": FORGED},
        ]),
    );
    let mut conditions = serde_json::Map::new();
    conditions.insert(FORGED.to_owned(), json!({"in": ["US"]}));
    stub.list(
        "routing_rules",
        json!([
            {"rule_id": 1, "smart_link_id": 1, "offer_id": 10, "conditions": conditions},
            {"rule_id": 2, "smart_link_id": 1, "offer_id": 10, "conditions": {"country": {"in": [FORGED]}}},
            {"rule_id": 3, "smart_link_id": 1, "offer_id": 10, "conditions": FORGED},
        ]),
    );
    stub.list(
        "offer_geo_targets",
        json!([{"offer_id": 11, "geo_targets": [{"country_code": FORGED, "action": FORGED}]}]),
    );
    stub.list(
        "offer_caps",
        json!([{"offer_id": 10, "cap_type": FORGED, "cap_interval": FORGED, "cap_amount": 1, "time_zone": FORGED}]),
    );
    let setup = Setup::of_upstream(&stub.url(), "canary").variable("SMARTLINK_LOG_FORMAT", format);
    let node = setup.variable("RUST_LOG", "debug").start_ready();
    let report = node.refresh();
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("forged"), "the hostile items were never told: {report}");
    assert!(
        node.log().contains("forged"),
        "nothing of it is in the log, and the test shows nothing:\n{}",
        node.log()
    );
    assert_eq!(node.click("/sl?id=1&aff_id=7").destination(), "ten.example.com");

    // And where the answer as a whole is refused.
    let refused = json!({"request_status": FORGED, "message": FORGED}).to_string();
    for body in [refused.as_str(), FORGED, &format!("{{\"request_status\":\"Success\",\"{FORGED}\":[]}}")] {
        stub.answer("offers", Canned::json(body));
        node.failed_refresh();
    }
    is_ours(&node.log());
}

#[test]
fn a_visitor_cannot_write_lines_anywhere() {
    FORMATS.into_iter().for_each(a_visitor_writes);
}

fn a_visitor_writes(format: &str) {
    let setup = Setup::demo().variable("SMARTLINK_LOG_FORMAT", format);
    let node = setup.variable("RUST_LOG", "trace").start_ready();
    let encoded: String = FORGED.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let target = format!("/sl?id=301&aff_id=67890&s1={encoded}&s2={encoded}");
    // As a header may hold it: without ends of lines, which would end it.
    let agent: String =
        FORGED.chars().filter(|character| *character >= ' ' && *character != '\u{7f}').collect();
    let click = Request::click(&target).with("User-Agent", &agent).with("Referer", &agent);
    let answer = node.ask(&click);
    assert_eq!(answer.status, 302, "{answer:?}");
    for (name, value) in &answer.headers {
        steers_nothing(name);
        steers_nothing(value);
    }
    // What is refused is not repeated.
    for target in
        [format!("/sl?id={encoded}&aff_id=1"), format!("/{encoded}"), format!("/sl/{encoded}?aff_id=1")]
    {
        let refused = node.click(&target);
        assert!((400..500).contains(&refused.status), "{refused:?}");
        steers_nothing(&refused.body);
        assert!(!refused.body.contains("forged"), "{refused:?}");
    }
    for target in [format!("/explain?id=301&aff_id=67890&at={encoded}"), format!("/refresh?{encoded}=1")] {
        let method = if target.starts_with("/refresh") { "POST" } else { "GET" };
        let refused = node.admin(method, &target);
        assert!((400..500).contains(&refused.status), "{refused:?}");
        is_json_on_one_line(&refused.body);
    }

    let cat = node.command(&["log", "cat"]);
    let lines = String::from_utf8(cat.stdout).unwrap();
    assert_eq!(lines.lines().count(), 1, "{lines:?}");
    assert_eq!(lines.find(char::is_control), Some(lines.len() - 1), "{lines:?}");
    let line: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert_eq!((line["s1"].as_str(), line["s2"].as_str()), (Some(FORGED), Some(FORGED)));
    assert_eq!(line["user_agent"].as_str(), Some(agent.as_str()));
    is_ours(&node.log());
}

#[test]
fn a_caller_of_the_api_cannot_write_lines_into_logs_and_tables() {
    FORMATS.into_iter().for_each(a_caller_writes);
}

fn a_caller_writes(format: &str) {
    let setup = Setup::new().variable("SMARTLINK_LOG_FORMAT", format);
    let node = setup.variable("RUST_LOG", "trace").start_ready();
    for (call, fields) in [
        ("offer.json", json!({"offer_name": FORGED, "offer_url": "https://a.example.com/"})),
        ("offer.json", json!({"offer_name": "a", "offer_url": FORGED})),
        ("offer.json", json!({"offer_name": "a", "offer_url": "https://a.example.com/", FORGED: 1})),
        ("smart_link.json", json!({"smart_link_name": FORGED, "affiliate_id": FORGED})),
        (
            "offer_cap.json",
            json!({"offer_id": 1, "cap_type": FORGED, "cap_interval": "daily", "cap_amount": 1}),
        ),
    ] {
        let refused = node.try_post(call, fields);
        assert!((400..500).contains(&refused.status), "{refused:?}");
        is_json_on_one_line(&refused.body);
    }
    is_ours(&node.log());
}

#[test]
fn an_upstream_cannot_write_on_the_terminal_of_a_command() {
    let (stub, desk) = (Stub::start(), Desk::new());
    let (url, key) = (stub.url(), [("SMARTLINK_API_KEY", "canary")]);
    stub.list(
        "offers",
        json!([{"offer": {"offer_id": 10, "offer_status": FORGED, "offer_name": FORGED, "offer_url": FORGED}}]),
    );
    let listed = desk.run_with(&key, &["offer", "list", "--upstream", &url]);
    assert_eq!((listed.code, listed.stdout.lines().count()), (Some(0), 2), "{listed:?}");
    assert!(listed.stdout.contains("forged"), "{listed:?}");
    steers_nothing(&listed.stdout);

    stub.answer("offers", Canned::json(&json!({"request_status": "Error", "message": FORGED}).to_string()));
    let refused = desk.run_with(&key, &["offer", "list", "--upstream", &url]);
    refused.fails_saying(&["forged"]);
    steers_nothing(&refused.stderr);
}

#[test]
fn a_file_cannot_write_lines() {
    let desk = Desk::new();
    let quoted =
        serde_json::Value::from(FORGED).to_string().replace('\u{7f}', "\\u007f").replace('\u{9b}', "\\u009b");
    let quoted = quoted.replace('\u{85}', "\\u0085");
    desk.file("smartlink.toml", format!("{quoted} = 1\n"));
    desk.file("values.toml", format!("[edge]\nbots = {quoted}\n"));
    desk.file(
        "routing.toml",
        format!("{quoted} = 1\n[[offer_caps]]\noffer_id = {quoted}\ncap_type = {quoted}\n"),
    );
    for arguments in [
        &["check", "--config", "smartlink.toml"][..],
        &["check", "--config", "values.toml"],
        &["check", "--overlay", "routing.toml"],
        &["serve", "--config", "values.toml"],
    ] {
        let told = desk.run(arguments);
        assert_eq!(told.code, Some(2), "{told:?}");
        assert!(told.stdout.contains("forged") || told.stderr.contains("forged"), "{arguments:?} {told:?}");
        for line in told.stdout.lines().chain(told.stderr.lines()) {
            assert!(!line.starts_with("2026-11-23"), "{line:?}");
            steers_nothing(line);
        }
    }
    // Segments of a click log that somebody else wrote.
    fs::create_dir(desk.path("clicks")).unwrap();
    let name = desk.file("clicks/clicks-20261122T201530.123Z-5f0c93d1a2b4-0000000007.ndjson", "");
    for line in [format!("{{\"outcome\":{quoted}}}"), format!("{{{quoted}:1}}"), FORGED.replace('\n', " ")] {
        fs::write(desk.path(name), format!("{line}\n")).unwrap();
        let told = desk.run(&["log", "stats", "clicks"]);
        assert_eq!(told.stderr.lines().count(), 1, "{told:?}");
        steers_nothing(&told.stderr);
        steers_nothing(&told.stdout);
    }
}
