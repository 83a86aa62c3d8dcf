//! Clicks and their records over the real program. That no redirect that was read is missing after a kill is in
//! tests/chaos/kills.rs.

mod support;

use serde_json::Value;
use support::http::Request;
use support::node::Setup;
use support::wait;

const CLICK: &str = "/sl?id=301&aff_id=67890&s1=summer%20sale";

#[test]
fn a_click_is_told_as_it_was() {
    // One thread, so that lines stand in the order of their clicks.
    let node = Setup::demo().setting("edge.threads = 1").start_ready();
    let request = Request::click(CLICK).with("Referer", "https://news.example.org/\"quoted\"");
    let request = request
        .with("User-Agent", "Mozilla/5.0 (Linux; Android 10; K) Chrome/142.0.0.0 Mobile Safari/537.36");
    let answer = node.ask(&request);
    let probe = node.ask(&Request::click(CLICK).method("HEAD"));
    node.ask(&Request::click("/sl?id=9&aff_id=67890"));
    node.ask(&Request::click("/sl?id=x&aff_id=67890"));
    let lines = node.click_log();
    let [click, probe_line, unknown] = &lines[..] else { panic!("{lines:?}") };
    assert!(answer.location().contains(click["click_id"].as_str().unwrap()), "{click}");
    assert!(probe.location().contains(probe_line["click_id"].as_str().unwrap()), "{probe_line}");
    for (field, value) in [
        ("outcome", "offer".into()),
        ("smart_link_id", 301.into()),
        ("affiliate_id", 67890.into()),
        ("ip", "127.0.0.1".into()),
        ("country", Value::Null),
        ("device", "mobile".into()),
        ("os", "android".into()),
        ("referrer", "https://news.example.org/\"quoted\"".into()),
        ("s1", "summer sale".into()),
        ("s2", Value::Null),
        ("bot", false.into()),
        ("probe", false.into()),
    ] {
        assert_eq!(click[field], value, "{field}");
    }
    assert_eq!(probe_line["probe"], true);
    assert_eq!((&unknown["outcome"], &unknown["offer_id"]), (&"unknown_link".into(), &Value::Null));
    assert_eq!(node.metrics().value("smartlink_click_log_records_total"), 3);
    // What was drawn and what decided is enough to decide it again.
    let ask = format!(
        "/explain?id=301&aff_id=67890&ip=127.0.0.1&draw=0x{}&ua=Mozilla/5.0%20(Linux;%20Android%2010;%20K)%20\
         Chrome/142.0.0.0%20Mobile%20Safari/537.36",
        click["draw"].as_str().unwrap()
    );
    let told = node.admin("GET", &ask).json();
    assert_eq!((&told["offer_id"], &told["snapshot"]), (&click["offer_id"], &click["snapshot"]), "{told}");
}

#[test]
fn a_clean_end_leaves_sealed_segments() {
    let mut node = Setup::demo().setting("edge.goodbye_seconds = 0.0").start_ready();
    node.click(CLICK);
    node.signal("TERM");
    assert_eq!(node.wait_for_exit().code(), Some(0));
    let names: Vec<String> = std::fs::read_dir(node.directory().join("data/clicks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(matches!(&names[..], [one] if one.ends_with(".ndjson")), "{names:?}");
}

#[test]
fn without_room_clicks_are_served_and_counted_or_refused() {
    for (policy, status) in [("serve", 302), ("refuse", 503)] {
        let setting = format!("click_log.when_full = \"{policy}\"");
        let node = Setup::demo().setting("edge.threads = 1").setting(&setting).start_ready();
        // No segment can be made where there is no directory.
        std::fs::remove_dir_all(node.directory().join("data/clicks")).unwrap();
        let long = Request::click(CLICK).with("Referer", &"https://example.org/".repeat(50));
        let mut connection = node.connect();
        let is_full = || match policy {
            "serve" => node.metrics().value("smartlink_click_log_dropped_total") > 0,
            _ => node.metrics().clicks("unrecorded") > 0,
        };
        wait::until("the log to be full", || {
            for _ in 0..200 {
                connection.ask(&long);
            }
            is_full().then_some(())
        });
        let answer = connection.ask(&long);
        assert_eq!(answer.status, status, "{policy}: {answer:?}");
        node.wait_for_log(&["cannot make the next segment", "make room"]);
        assert_eq!(node.readyz(), 200);
    }
}

#[test]
fn clicks_are_not_written_where_that_is_switched_off() {
    let node = Setup::demo().setting("click_log.enabled = false").start_ready();
    assert_eq!(node.click(CLICK).status, 302);
    assert!(!node.directory().join("data/clicks").exists());
    assert_eq!(node.metrics().value("smartlink_click_log_records_total"), 0);
}

#[test]
fn the_log_is_counted_and_verified_while_it_is_written() {
    let node = Setup::demo().start_ready();
    let data = node.directory().join("data");
    for _ in 0..20 {
        node.click(CLICK);
    }
    node.ask(&Request::click(CLICK).method("HEAD"));
    node.click("/sl?id=9&aff_id=67890");
    let told = text(&node.command(&["log", "stats"]).stdout);
    let row = |name: &str| {
        let line =
            told.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {told}"));
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("offer "), ["offer", "20", "95.2 %", "20", "100.0 %", "1", "0"]);
    assert_eq!(row("all "), ["all", "21", "100.0 %", "20", "95.2 %", "1", "0"]);
    let by_link = text(&node.command(&["log", "stats", "--by", "link", "--json"]).stdout);
    let by_link: Value = serde_json::from_str(&by_link).unwrap();
    let rows = &by_link["by"]["link"]["rows"];
    assert_eq!(rows[0]["smart_link_id"], 301);
    assert_eq!((&rows[0]["clicks"], &rows[1]["clicks"]), (&20.into(), &1.into()));

    // Forged, damaged, twice: each is found, and told by its line.
    let whole = text(&node.command(&["log", "cat"]).stdout);
    let first = whole.lines().next().unwrap();
    for (case, line, problem) in [
        (
            "forged",
            first.replace("\"smart_link_id\":301", "\"smart_link_id\":302"),
            "smart_link_id is another",
        ),
        ("damaged", first[..50].to_owned(), "cut off"),
        ("twice", first.to_owned(), "is there already"),
    ] {
        let path = data.join(format!("{case}.ndjson"));
        std::fs::write(&path, format!("{whole}{line}\n")).unwrap();
        let said = node.command(&["log", "verify", path.to_str().unwrap()]);
        let (error, number) = (text(&said.stderr), format!("line {}: ", whole.lines().count() + 1));
        assert_eq!(said.status.code(), Some(1), "{case}: {error}");
        assert!(error.contains(problem) && error.contains(&number), "{case}: {error}");
    }
    let said = node.command(&["log", "stats", data.join("damaged.ndjson").to_str().unwrap()]);
    assert!(said.status.code() == Some(1) && text(&said.stdout) == told, "{said:?}");
    let said = node.command(&["log", "cat", "absent.ndjson"]);
    assert!(said.status.code() == Some(2) && text(&said.stderr).contains("absent.ndjson"), "{said:?}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
