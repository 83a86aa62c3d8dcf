//! How many connections a node has, and how much of each.

mod support;

use support::http::{Connection, NoAnswer, Request};
use support::node::{Node, Setup};
use support::wait;

const CLICK: &str = "/sl?id=301&aff_id=67890";

fn closed(node: &Node, reason: &str) -> u64 {
    node.metrics().value(&format!("smartlink_connections_closed_total{{reason=\"{reason}\"}}"))
}

#[test]
fn an_address_has_so_many_connections_and_one_more_is_told() {
    let node = Setup::demo().setting("edge.connections_per_address_max = 3").start_ready();
    let mut open: Vec<Connection> = (0..3).map(|_| node.connect()).collect();
    for connection in &mut open {
        assert_eq!(connection.ask(&Request::click(CLICK)).status, 302);
    }
    let answer = node.connect().read().unwrap();
    assert_eq!((answer.status, answer.is_last()), (429, true), "{answer:?}");
    assert_eq!(answer.body, "Your address has too many connections; close some of them.\n");
    assert_eq!(closed(&node, "address_limit"), 1);
    // Those that it has are served.
    assert_eq!(open[0].ask(&Request::click(CLICK)).status, 302);
    open.pop();
    wait::until_equal("a connection to be given back", 1, || closed(&node, "done"));
    assert_eq!(node.click(CLICK).status, 302);
}

#[test]
fn proxies_have_as_many_as_they_need() {
    let node = Setup::demo()
        .setting("edge.connections_per_address_max = 1")
        .setting("edge.trusted_proxies = [\"127.0.0.0/8\"]")
        .start_ready();
    let mut open: Vec<Connection> = (0..5).map(|_| node.connect()).collect();
    for connection in &mut open {
        assert_eq!(connection.ask(&Request::click(CLICK)).status, 302);
    }
}

/// A connection too many is not refused: it waits until there is room for it.
#[test]
fn connections_beyond_all_that_there_may_be_wait() {
    let node = Setup::demo().setting("edge.connections_max = 8").flag("--threads").flag("1").start_ready();
    // They have asked for nothing, and so are not idle.
    let mut open: Vec<Connection> = (0..8).map(|_| node.connect()).collect();
    wait::until_equal("the connections", 8, || node.metrics().value("smartlink_connections_active"));
    let mut late = node.connect();
    late.send(Request::click(CLICK).to_bytes()).unwrap();
    let paused = "smartlink_accept_pauses_total";
    wait::until(paused, || (node.metrics().value(paused) > 0).then_some(()));
    assert_eq!(node.metrics().clicks("offer"), 0);
    open.pop();
    assert_eq!(late.read().unwrap().status, 302);
}

#[test]
fn idle_connections_make_room() {
    let node = Setup::demo().setting("edge.connections_max = 8").flag("--threads").flag("1").start_ready();
    let mut open: Vec<Connection> = (0..8).map(|_| node.connect()).collect();
    for connection in &mut open {
        assert_eq!(connection.ask(&Request::click(CLICK)).status, 302);
    }
    // The idle timeout is a minute.
    assert_eq!(node.click(CLICK).status, 302);
    assert!(closed(&node, "idle_timeout") > 0);
}

#[test]
fn a_connection_has_so_many_answers() {
    let node = Setup::demo().setting("edge.requests_per_connection_max = 3").start_ready();
    // The second one is hyper's, and so is the third.
    for second in [Request::click(CLICK), Request::click(CLICK).with("Content-Length", "0")] {
        let mut connection = node.connect();
        assert!(!connection.ask(&Request::click(CLICK)).is_last());
        assert!(!connection.ask(&second).is_last());
        assert!(connection.ask(&Request::click(CLICK)).is_last());
        connection.assert_closes();
    }
    wait::until_equal("the reason", 2, || closed(&node, "request_limit"));
}

#[test]
fn a_connection_lives_so_long() {
    let node = Setup::demo()
        .setting("edge.connection_age_max_seconds = 1.0")
        // The clock of all deadlines goes by a quarter of the shortest.
        .setting("edge.write_timeout_seconds = 0.4")
        .start_ready();
    let mut connection = node.connect();
    assert!(!connection.ask(&Request::click(CLICK)).is_last());
    wait::until("the last answer", || connection.ask(&Request::click(CLICK)).is_last().then_some(()));
    connection.assert_closes();
    assert_eq!(connection.read().map(|_| ()), Err(NoAnswer::BeforeFirstByte));
    wait::until_equal("the reason", 1, || closed(&node, "age_limit"));
}
