//! The next process on a data directory takes over from the one that runs: what it is given, what becomes of the other, and what
//! happens when it comes to nothing. That no connection is lost under load is shown in tests/chaos/takeovers.rs.

mod support;

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use support::http::Request;
use support::node::{Node, Setup};
use support::wait;

const CLICK: &str = "/sl?id=301&aff_id=67890";

/// Waits until the process before it has ended in order, and all it had is this one's.
#[track_caller]
fn wait_until_alone(node: &Node, mut before: Node) {
    assert_eq!(before.wait_for_exit().code(), Some(0), "{}", before.log());
    assert!(
        before.logged(&["has taken over"]) && before.logged(&["drained; every answer"]),
        "{}",
        before.log()
    );
    node.wait_for_log(&["has ended; all it had is this one's"]);
    node.wait_ready();
}

/// The state of the only cap, as the ledger tells it.
fn cap(node: &Node) -> Value {
    let target = format!("/api/2/offer_caps.json?api_key={}", node.key());
    node.admin("GET", &target).json()["response"]["offer_caps"][0].clone()
}

#[test]
fn addresses_links_caps_and_the_click_log_go_on() {
    let setup = Setup::new()
        .setting("edge.threads = 2")
        .setting("network.default_fallback_url = \"https://fallback.example.com/\"");
    let mut node = setup.start_ready();
    let (clicks, admin) = (node.clicks, node.admin);
    let capped = node.create_offer("https://capped.example.com/");
    let link = node.create_link(json!({"affiliate_id": 7}));
    node.attach(link, capped);
    let amount =
        json!({"offer_id": capped, "cap_type": "click", "cap_interval": "lifetime", "cap_amount": 50});
    node.post("offer_cap.json", amount);
    node.refresh();
    let target = format!("/sl/{link}?aff_id=7");
    let mut reached = 0;
    for process in 1..=3 {
        // A click may come while the next lease is on its way.
        while reached < 10 * process {
            reached += i64::from(node.click(&target).destination() == "capped.example.com");
        }
        // Live at once, and perhaps not yet in the file that the next process starts from.
        let made = node.create_link(json!({"affiliate_id": 7}));
        node.attach(made, node.create_offer(&format!("https://made{process}.example.com/")));
        let (made, host) = (format!("/sl/{made}?aff_id=7"), format!("made{process}.example.com"));
        wait::until("the link to be live", || {
            let answer = node.click(&made);
            (answer.status == 302 && answer.destination() == host).then_some(())
        });
        let mut open = node.connect();
        assert!(!open.ask(&Request::click(&made)).is_last());
        let mut before = node;
        node = before.successor();
        assert_eq!((node.clicks, node.admin), (clicks, admin));
        before.wait_for_log(&["has taken over"]);
        assert_eq!(node.click(&made).destination(), host);
        // Whoever is still connected to the other is answered once more, and told to go.
        wait::until("an answer to be the last", || open.ask(&Request::click(&made)).is_last().then_some(()));
        wait_until_alone(&node, before);
    }
    // What the processes before held and did not spend was returned, and nothing was granted twice.
    while reached < 50 {
        reached += i64::from(node.click(&target).destination() == "capped.example.com");
    }
    for _ in 0..20 {
        assert_eq!(node.click(&target).destination(), "fallback.example.com");
    }
    wait::until_equal("clicks that the ledger has counted", json!(50), || cap(&node)["used"].clone());
    assert_eq!(node.clicks_logged(capped), 50);
    let live = std::fs::read_dir(node.data().join("clicks")).unwrap();
    let names: Vec<String> = live
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".live"))
        .collect();
    assert_eq!(names.len(), 4, "two threads have two segments each, and nobody else has any: {names:?}");
    // The API is this process's, and writes.
    node.post(
        "update_smart_link.json",
        json!({"smart_link_id": link, "fallback_url": "https://other.example.com/"}),
    );
    wait::until("the change", || (node.click(&target).destination() == "other.example.com").then_some(()));
    // What was kept is what is live: killed, the next one starts from it.
    node.refresh();
    let node = node.kill().start_ready();
    assert_eq!(node.click(&target).destination(), "other.example.com");
}

#[test]
fn one_that_cannot_serve_leaves_the_other_as_it_was() {
    let mut node = Setup::demo().start_ready();
    let elsewhere = "127.0.0.2:0".parse().unwrap();
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let wrongs = [
        ("a geo database that is not there", "no.mmdb", anywhere, anywhere, "no.mmdb"),
        ("another address for clicks", "", elsewhere, anywhere, "not among the addresses"),
        ("another admin address", "", anywhere, elsewhere, "keep the address"),
    ];
    for (wrong, geo, clicks, admin, word) in wrongs {
        let change = |setup: Setup| setup.setting(&format!("geo.database = \"{geo}\"")).on(clicks, admin);
        let said = node.log().len();
        let mut other = node.leave(change).start_and_fail();
        assert_eq!(other.wait_for_exit().code(), Some(2), "{wrong}: {}", other.log());
        other.wait_for_log(&[word]);
        node.take_back(other);
        assert_eq!(node.click(CLICK).status, 302, "{wrong}");
        assert_eq!(node.readyz(), 200, "{wrong}");
        node.wait_for_log_behind(said, &["has ended before it took clicks"]);
    }
    // And is taken over from by one that can.
    let mut before = node;
    let node = before.successor_with(|setup| setup.setting("geo.database = \"\"").on(anywhere, anywhere));
    wait_until_alone(&node, before);
    assert_eq!(node.click(CLICK).status, 302);
}

#[test]
fn the_process_before_may_be_killed() {
    let mut before = Setup::demo().start_ready();
    let link = before.create_link(json!({"affiliate_id": 7}));
    before.attach(link, before.create_offer("https://made.example.com/"));
    // It will wait for the rest of this.
    let mut half_sent = before.connect();
    half_sent.send(&Request::click(CLICK).to_bytes()[..20]).unwrap();
    wait::until_equal("connections", 1, || before.metrics().value("smartlink_connections_active"));
    let node = before.successor();
    before.wait_for_log(&["draining"]);
    before.signal("KILL");
    node.wait_for_log(&["has ended; all it had is this one's"]);
    node.wait_ready();
    assert_eq!(node.click(&format!("/sl/{link}?aff_id=7")).destination(), "made.example.com");
    node.attach(link, node.create_offer("https://other.example.com/"));
    wait::until("the change", || {
        (node.click(&format!("/sl/{link}?aff_id=7")).destination() == "other.example.com").then_some(())
    });
}

#[test]
fn one_that_is_told_to_stop_before_it_serves_takes_nothing_over() {
    let upstream = Setup::demo().start_ready();
    let mut node = Setup::following(&upstream).start_ready();
    upstream.pause();
    let mut other = node.leave(|setup| setup).start_and_fail();
    other.wait_for_log(&["routing from the last good snapshot"]);
    other.signal("TERM");
    assert_eq!(other.wait_for_exit().code(), Some(2), "{}", other.log());
    other.wait_for_log(&["told to stop before it took over"]);
    node.take_back(other);
    node.wait_for_log(&["has ended before it took clicks"]);
    assert_eq!(node.click(CLICK).status, 302);
    assert!(!node.logged(&["draining"]), "{}", node.log());
}

#[test]
fn the_process_before_drains_when_it_is_told_to_stop_and_stops_when_it_is_told_again() {
    let mut before = Setup::demo().setting("edge.goodbye_seconds = 0.0").start_ready();
    let mut half_sent = before.connect();
    let click = Request::click(CLICK).to_bytes();
    half_sent.send(&click[..20]).unwrap();
    wait::until_equal("connections", 1, || before.metrics().value("smartlink_connections_active"));
    let node = before.successor();
    before.wait_for_log(&["draining: "]);
    before.signal("TERM");
    before.wait_for_log(&["draining already"]);
    half_sent.send(&click[20..]).unwrap();
    assert_eq!(half_sent.read().unwrap().status, 302);
    wait_until_alone(&node, before);
}

#[test]
fn threads_may_be_more_or_fewer() {
    let mut node = Setup::demo().setting("edge.threads = 2").start_ready();
    for threads in [3, 1, 2] {
        let mut before = node;
        node = before.successor_with(|setup| setup.setting(&format!("edge.threads = {threads}")));
        wait_until_alone(&node, before);
        // The system spreads connections over all sockets there are: each of them is accepted on.
        for _ in 0..30 {
            assert_eq!(node.click(CLICK).status, 302, "{threads} threads");
        }
    }
}

#[test]
fn nobody_else_is_offered_the_sockets() {
    let node = Setup::demo().start_ready();
    let mode = std::fs::metadata(node.data().join("takeover.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
}

#[test]
fn with_nobody_to_take_over_from_it_is_a_start_like_any_other() {
    let node = Setup::demo().flag("--takeover").start_ready();
    assert_eq!(node.click(CLICK).status, 302);
    assert!(!node.logged(&["taking over"]), "{}", node.log());
}

#[test]
fn without_being_told_nobody_is_taken_over_from() {
    let node = Setup::demo().start_ready();
    let said = node.command(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert_eq!(said.status.code(), Some(2));
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.contains("another smartlink uses the data directory") && said.contains("--takeover"),
        "{said}"
    );
    assert_eq!(node.click(CLICK).status, 302);
}
