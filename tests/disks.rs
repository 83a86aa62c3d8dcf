//! Disks that are full, read-only or slow, under the real program: clicks are redirected, what cannot be written down is counted
//! and said, no cap is exceeded, and all goes on by itself when the disk does.
//!
//! A full disk is a small one in memory, in a user namespace. Where the system has none for us, those tests are skipped, and
//! say so.

mod support;

use std::fs;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use support::http::{Answer, Request};
use support::node::{Node, Setup};
use support::stub::{Stub, offer};
use support::wait;

const DISK_BYTES: u64 = 16 * 1024 * 1024;

/// Of the offer with a cap, and of the one without.
const CAPPED: &str = "/sl?id=1&aff_id=7";
const FREE: &str = "/sl?id=2&aff_id=7";

#[test]
fn a_full_disk_costs_records_and_caps_but_no_click() {
    let Some(setup) = Setup::new().setting("edge.threads = 1").on_a_disk_of(DISK_BYTES) else { return };
    let node = with_network(setup);
    let click_id = is_to(&node.click(CAPPED), "capped.example.com").expect("a click on the cap").to_owned();
    node.disk().fill();

    // Clicks go on, and the ones that have no room are counted.
    let mut connection = node.connect();
    let long = Request::click(FREE).with("Referer", &"https://example.org/".repeat(50));
    let lost = || node.metrics().value("smartlink_click_log_dropped_total");
    wait::until("the click log to be full", || {
        for _ in 0..100 {
            assert!(is_to(&connection.ask(&long), "free.example.com").is_some());
        }
        (lost() > 0).then_some(())
    });
    assert!(
        node.logged(&["ERROR", "cannot make the next segment of the click log", "make room"]),
        "{}",
        node.log()
    );

    // What was leased is spent, and no more.
    wait_until_closed(&node);
    node.wait_for_log(&["WARN", "the ledger does not grant", "full"]);
    wait::until_equal("the gauge of the ledger", 0, || node.metrics().value("smartlink_ledger_reachable"));

    // What must be kept is refused, and the refusal says so.
    let refused =
        node.try_post("offer.json", json!({"offer_name": "late", "offer_url": "https://late.example.com/"}));
    assert_eq!(
        (refused.status, refused.json()["request_status"].as_str()),
        (500, Some("Error")),
        "{refused:?}"
    );
    assert!(refused.body.contains("nothing was changed"), "{refused:?}");
    node.wait_for_log(&["ERROR", "a call of the API failed", "disk is full"]);
    let conversion = Request::click(&format!("/p.ashx?r={click_id}"));
    let refused = node.ask(&conversion);
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true), "{refused:?}");
    assert_eq!(node.readyz(), 200);

    // And then there is room.
    node.disk().make_room();
    wait::until("room for clicks", || {
        let before = lost();
        connection.ask(&long);
        (lost() == before).then_some(())
    });
    wait::until("the log to say so", || node.logged(&["INFO", "the click log has room again"]).then_some(()));
    wait::until("the cap to open", || is_to(&node.click(CAPPED), "capped.example.com").map(drop));
    wait::until_equal("the gauge of the ledger", 1, || node.metrics().value("smartlink_ledger_reachable"));
    node.create_offer("https://late.example.com/");
    wait::until_equal("the conversion", 200, || node.ask(&conversion).status);
    assert!(!node.log().contains("panicked"), "{}", node.log());
    assert_counted_once(node);
}

#[test]
fn a_node_that_is_killed_on_a_full_disk_starts_on_it_and_is_whole_when_there_is_room() {
    let Some(setup) = Setup::new().setting("edge.threads = 1").on_a_disk_of(DISK_BYTES) else { return };
    let node = with_network(setup);
    let click_id = is_to(&node.click(CAPPED), "capped.example.com").expect("a click on the cap").to_owned();
    node.disk().fill();
    let setup = node.kill();
    // Also what the end of the process has freed.
    setup.disk().fill();
    let node = setup.start_ready();
    assert!(is_to(&node.click(FREE), "free.example.com").is_some());
    // And what the start has: the reserve of the click log's last segments.
    node.disk().fill();
    wait_until_closed(&node);
    node.disk().make_room();
    wait::until("the cap to open", || is_to(&node.click(CAPPED), "capped.example.com").map(drop));
    let conversion = Request::click(&format!("/p.ashx?r={click_id}"));
    wait::until_equal("the conversion", 200, || node.ask(&conversion).status);
    node.create_offer("https://late.example.com/");
}

#[test]
fn what_was_live_on_a_full_disk_is_kept_as_soon_as_there_is_room() {
    let stub = Stub::start();
    let setup = Setup::of_upstream(&stub.url(), "the-key").setting("click_log.enabled = false");
    let Some(setup) = setup.on_a_disk_of(DISK_BYTES) else { return };
    let node = setup.start_ready();
    node.refresh();
    let old = fs::read(node.last_good()).unwrap();
    node.disk().fill();
    stub.list("offers", json!([{"offer": offer(10, "https://new.example.com/")}]));
    assert_eq!(node.refresh()["result"], "published");
    assert_eq!(node.click("/sl?id=1&aff_id=7").destination(), "new.example.com");
    node.wait_for_log(&["ERROR", "cannot keep the last good snapshot", "snapshot.last-good", "No space"]);
    assert_eq!(fs::read(node.last_good()).unwrap(), old, "the old one is whole");

    // Killed now, it starts from the old one, and says so by nothing but what it does: it cannot know better.
    stub.set_away(true);
    let node = node.kill().start_ready();
    assert_eq!(node.click("/sl?id=1&aff_id=7").destination(), "ten.example.com");
    stub.set_away(false);
    // Or it has asked again by itself.
    node.refresh();
    assert_eq!(node.click("/sl?id=1&aff_id=7").destination(), "new.example.com");
    node.disk().make_room();
    assert_eq!(node.refresh()["result"], "unchanged");
    stub.set_away(true);
    let node = node.kill().start_ready();
    assert_eq!(node.click("/sl?id=1&aff_id=7").destination(), "new.example.com");
}

#[test]
fn a_disk_that_turned_read_only_stops_no_click() {
    let stub = Stub::start();
    let setup = Setup::of_upstream(&stub.url(), "the-key").setting("edge.threads = 1");
    let Some(setup) = setup.on_a_disk_of(DISK_BYTES) else { return };
    let node = setup.start_ready();
    node.refresh();
    node.disk().make_read_only();
    stub.list("offers", json!([{"offer": offer(10, "https://new.example.com/")}]));
    assert_eq!(node.refresh()["result"], "published");
    node.wait_for_log(&["ERROR", "cannot keep the last good snapshot", "Read-only file system"]);
    let mut connection = node.connect();
    let long = Request::click("/sl?id=1&aff_id=7").with("Referer", &"https://example.org/".repeat(50));
    wait::until("the click log to be full", || {
        for _ in 0..100 {
            assert_eq!(connection.ask(&long).destination(), "new.example.com");
        }
        (node.metrics().value("smartlink_click_log_dropped_total") > 0).then_some(())
    });
    node.wait_for_log(&["ERROR", "cannot make the next segment of the click log", "Read-only file system"]);
    assert_eq!(node.readyz(), 200);

    // It turns back.
    node.disk().make_writable();
    wait::until("the log to say so", || node.logged(&["INFO", "the click log has room again"]).then_some(()));
    node.refresh();
    assert!(fs::read_to_string(node.last_good()).unwrap().contains("new.example.com"));
    node.disk().make_read_only();

    // A start on it says what it cannot do, and where.
    let mut node = node.kill().start_and_fail();
    assert!(node.wait_for_exit().code() != Some(0));
    node.wait_for_log(&["data", "Read-only file system"]);
}

/// Another process has the ledger's file for itself, as a backup may: its disk seems to stand still.
#[test]
fn a_ledger_that_is_slow_holds_up_no_click_and_grants_nothing_twice() {
    let node = with_network(Setup::new().setting("click_log.enabled = false"));
    assert!(is_to(&node.click(CAPPED), "capped.example.com").is_some());
    let other = rusqlite::Connection::open(node.data().join("ledger.sqlite3")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let slowest = |clicks: u32, target: &str| {
        let mut connection = node.connect();
        let times = (0..clicks).map(|_| {
            let begun = Instant::now();
            assert_eq!(connection.ask(&Request::click(target)).status, 302);
            begun.elapsed()
        });
        times.max().unwrap()
    };
    let held = Instant::now();
    // Longer than a keeper waits for an answer, so that it asks again while the first request is still in line.
    let mut slow = Duration::ZERO;
    while held.elapsed() < Duration::from_millis(2_500) {
        slow = slow.max(slowest(20, FREE)).max(slowest(20, CAPPED));
    }
    assert!(is_to(&node.click(CAPPED), "fallback.example.com").is_some(), "what was leased is spent");
    node.wait_for_log(&["WARN", "the ledger does not grant", "no answer within 1 s"]);
    println!("the slowest click while the ledger stood still took {slow:?}");
    assert!(slow < Duration::from_secs(1), "{slow:?}");
    other.execute_batch("ROLLBACK").unwrap();
    wait::until("the cap to open", || is_to(&node.click(CAPPED), "capped.example.com").map(drop));
    assert_counted_once(node);
}

/// Whoever opens a pipe for writing waits until somebody reads it: so does the snapshot for its disk.
#[test]
fn a_snapshot_that_waits_for_the_disk_is_live_before_it_is_written() {
    let stub = Stub::start();
    let node = Setup::of_upstream(&stub.url(), "the-key").setting("click_log.enabled = false").start_ready();
    node.refresh();
    let pipe = node.data().join("snapshot.tmp");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: there is no mkfifo");
        return;
    }
    stub.list("offers", json!([{"offer": offer(10, "https://new.example.com/")}]));
    thread::scope(|scope| {
        // Who asks is told of what is kept.
        let asking = scope.spawn(|| node.refresh());
        wait::until_equal("the new destination", "new.example.com".to_owned(), || {
            node.click("/sl?id=1&aff_id=7").destination().to_owned()
        });
        assert!(!asking.is_finished());
        assert_eq!((node.readyz(), node.metrics().value("smartlink_snapshot_links")), (200, 1));
        let mut written = String::new();
        fs::File::open(&pipe).unwrap().read_to_string(&mut written).unwrap();
        assert!(written.contains("new.example.com"));
        assert_eq!(asking.join().unwrap()["result"], "published");
    });
    // A pipe cannot be synced, which is a disk that fails at last.
    node.wait_for_log(&["ERROR", "cannot keep the last good snapshot"]);
    fs::remove_file(&pipe).unwrap();
    node.refresh();
    assert!(fs::read_to_string(node.last_good()).unwrap().contains("new.example.com"));
}

/// Link 1 with an offer that has a cap, link 2 with one that has none; both with a fallback.
#[track_caller]
fn with_network(setup: Setup) -> Node {
    let node = setup.start_ready();
    let fallback = json!({"affiliate_id": 7, "fallback_url": "https://fallback.example.com/"});
    for (link, host) in [(1, "capped.example.com"), (2, "free.example.com")] {
        let offer = node.create_offer(&format!("https://{host}/?r={{click_id}}"));
        assert_eq!(node.create_link(fallback.clone()), link);
        node.attach(link, offer);
        if link == 1 {
            let cap = json!({"offer_id": offer, "cap_type": "click", "cap_interval": "lifetime", "cap_amount": CAP});
            node.post("offer_cap.json", cap);
        }
    }
    node.refresh();
    wait::until("the cap to be open", || is_to(&node.click(CAPPED), "capped.example.com").map(drop));
    node
}

/// Until what was leased is spent, and nothing more is granted.
#[track_caller]
fn wait_until_closed(node: &Node) {
    wait::until("the cap to close", || {
        (0..50).all(|_| is_to(&node.click(CAPPED), "fallback.example.com").is_some()).then_some(())
    });
}

/// The click id of a redirect to this host.
fn is_to<'a>(answer: &'a Answer, host: &str) -> Option<&'a str> {
    assert_eq!(answer.status, 302, "{answer:?}");
    let click_id = || answer.location().split_once("r=").map_or("", |(_, id)| id);
    (answer.destination() == host).then(click_id)
}

/// Ends the node in order. Then the ledger has counted every click that the offer was sent, and no other.
#[track_caller]
fn assert_counted_once(node: Node) {
    let sent = node.metrics().value("smartlink_offer_clicks_total{offer_id=\"1\"}");
    let target = format!("/api/2/offer_caps.json?api_key={}", node.key());
    let used = || -> Value { node.admin("GET", &target).json()["response"]["offer_caps"][0]["used"].clone() };
    // The keeper tells what was spent when it asks for more: the last of it when the cap is taken away.
    node.post(
        "offer_cap.json",
        json!({"offer_id": 1, "cap_type": "click", "cap_interval": "lifetime", "cap_amount": 1}),
    );
    wait::until_equal("the clicks to be counted", json!(sent), used);
    assert!(sent <= CAP);
}

const CAP: u64 = 100_000;
