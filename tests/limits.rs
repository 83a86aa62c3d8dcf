//! How many connections a node has, how much of each, and how large a head may be.

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
    // It is counted once it is closed, which is after it was told.
    wait::until_equal("the reason", 1, || closed(&node, "address_limit"));
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

/// A click whose head, or whose target, has this many bytes.
fn head_of(bytes: usize) -> Request {
    let request = Request::click(CLICK).with("Cookie", "");
    let rest = bytes - request.to_bytes().len();
    request.with("Cookie", &"c".repeat(rest))
}

fn target_of(bytes: usize) -> Request {
    Request::click(&format!("{CLICK}&x={}", "x".repeat(bytes - CLICK.len() - "&x=".len())))
}

/// As our own loop reads it, and as hyper does.
#[test]
fn heads_and_targets_have_their_limits_in_both_ways() {
    let default = (Setup::demo(), 16_384, 8_192);
    let less = Setup::demo().setting("edge.head_bytes_max = 2048").setting("edge.uri_bytes_max = 700");
    let more = Setup::demo().setting("edge.head_bytes_max = 65536").setting("edge.uri_bytes_max = 65000");
    for (setup, head, target) in [default, (less, 2_048, 700), (more, 65_536, 65_000)] {
        let node = setup.start_ready();
        let (mut head_limit, mut uri_limit) = (0, 0);
        for is_hyper in [false, true] {
            let ask = |request: Request| {
                let mut connection = node.connect();
                if is_hyper {
                    let first = Request::click(CLICK).with("Content-Length", "0");
                    assert_eq!(connection.ask(&first).status, 302);
                }
                let answer = connection.ask(&request);
                if answer.is_last() {
                    connection.assert_closes();
                }
                (answer.status, answer.is_last())
            };
            assert_eq!(ask(head_of(head)), (302, false), "{head}, {is_hyper}");
            assert_eq!(ask(head_of(head + 1)), (431, true), "{head}, {is_hyper}");
            assert_eq!(ask(target_of(target)), (302, false), "{target}, {is_hyper}");
            assert_eq!(ask(target_of(target + 1)), (414, true), "{target}, {is_hyper}");
            // The target is what is looked at first.
            assert_eq!(ask(target_of(target + 1).with("Cookie", &"c".repeat(head))), (414, true));
            assert_eq!(ask(target_of(head * 2)), (414, true));
            (head_limit, uri_limit) = (head_limit + 1, uri_limit + 3);
            wait::until_equal("head_limit", head_limit, || closed(&node, "head_limit"));
            wait::until_equal("uri_limit", uri_limit, || closed(&node, "uri_limit"));
            assert_eq!(node.metrics().clicks("invalid"), head_limit + uri_limit);
        }
        // Behind a body nobody but hyper looks at a request line.
        let mut connection = node.connect();
        let postback = Request::new("POST", "/api/2/conversion.json").with("Host", "a").body("");
        let with_a_body = postback.with("Content-Type", "application/json").body("{}");
        assert_eq!(connection.ask(&with_a_body).status, 400);
        assert_eq!(connection.ask(&target_of(target)).status, 302, "{target}");
        let answer = connection.ask(&target_of(target + 1));
        assert_eq!((answer.status, answer.is_last()), (414, true), "{answer:?}");
        wait::until_equal("uri_limit", uri_limit + 1, || closed(&node, "uri_limit"));
    }
}

/// Who sends an endless target is not listened to until the end of it.
#[test]
fn an_endless_target_is_refused_before_it_ends() {
    let node = Setup::demo().start_ready();
    for piece in [1_000, 8_192] {
        let mut connection = node.connect();
        connection.send(b"GET /").unwrap();
        for _ in 0..=8_192 / piece {
            connection.send("x".repeat(piece)).unwrap();
        }
        assert_eq!(connection.read().unwrap().status, 414);
        connection.assert_closes();
    }
}
