//! The end of a node: told to stop, told twice, and killed. What a client must never see is a torn answer.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::json;
use support::http::{Connection, NoAnswer, Request};
use support::node::{Node, Setup};
use support::wait;

const CLICK: &str = "/sl?id=301&aff_id=67890";

/// What the clients of a test have seen together.
#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    /// Answers that said that they are the last on their connection.
    said_goodbye: AtomicU64,
    /// Connections that ended before the first byte of an answer.
    unanswered: AtomicU64,
    refused: AtomicBool,
}

impl Seen {
    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

#[test]
fn busy_connections_get_whole_answers_until_the_last() {
    const CLIENTS: u64 = 8;
    let mut node = Setup::demo().setting("edge.goodbye_seconds = 1.0").start_ready();
    let seen = Arc::new(Seen::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (address, seen) = (node.clicks, Arc::clone(&seen));
            thread::spawn(move || {
                // A new connection for each that ends, until there are no more to be had.
                while !seen.refused.load(Ordering::Relaxed) {
                    match Connection::try_to(address) {
                        Ok(connection) => click_until_the_end(connection, &seen),
                        Err(_) => seen.refused.store(true, Ordering::Relaxed),
                    }
                }
            })
        })
        .collect();
    wait::until("every client to be busy", || (seen.answered() > 100 * CLIENTS).then_some(()));
    node.signal("TERM");
    let status = node.wait_for_exit();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(status.code(), Some(0), "{status}");
    node.wait_for_log(&["drained", "every answer"]);
    let goodbyes = seen.said_goodbye.load(Ordering::Relaxed);
    assert!(goodbyes > 0, "no busy connection was told that its answer was the last");
    println!(
        "{} answers, {goodbyes} of them the last of their connection; {} connections ended before an answer",
        seen.answered(),
        seen.unanswered.load(Ordering::Relaxed)
    );
}

/// Clicks until the connection ends, and panics if it ends in the middle of an answer.
fn click_until_the_end(mut connection: Connection, seen: &Seen) {
    let click = Request::click(CLICK).to_bytes();
    loop {
        if connection.send(&click).is_err() {
            seen.unanswered.fetch_add(1, Ordering::Relaxed);
            return;
        }
        match connection.read() {
            Ok(answer) => {
                answer.location();
                seen.answered.fetch_add(1, Ordering::Relaxed);
                if answer.is_last() {
                    seen.said_goodbye.fetch_add(1, Ordering::Relaxed);
                    connection.assert_closes();
                    return;
                }
            }
            Err(NoAnswer::BeforeFirstByte) => {
                seen.unanswered.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(torn) => panic!("{torn:?}"),
        }
    }
}

#[test]
fn while_it_drains_it_is_unready_and_answers_are_the_last_of_their_connections() {
    let mut node = Setup::demo().start_ready();
    let mut open = node.connect();
    assert!(!open.ask(&Request::click(CLICK)).is_last());
    let mut half_sent = node.connect();
    let request = Request::click(CLICK).to_bytes();
    half_sent.send(&request[..20]).unwrap();
    node.signal("TERM");
    wait_until_unready(&node);

    // The connection that was open before the signal, and one that comes after it.
    click_until_the_last(&mut open);
    click_until_the_last(&mut node.connect());
    // A request that had begun is finished and answered.
    half_sent.send(&request[20..]).unwrap();
    let answer = half_sent.read().unwrap();
    assert_eq!(answer.status, 302, "{answer:?}");
    if !answer.is_last() {
        click_until_the_last(&mut half_sent);
    }

    assert_eq!(node.wait_for_exit().code(), Some(0));
    assert!(node.logged(&["SIGTERM"]) && node.logged(&["drained", "every answer"]), "{}", node.log());
}

#[test]
fn idle_and_silent_connections_are_closed_and_keep_nobody_waiting() {
    let mut node = Setup::demo().setting("edge.goodbye_seconds = 0.1").start_ready();
    let mut idle = node.connect();
    assert_eq!(idle.ask(&Request::click(CLICK)).status, 302);
    let mut silent = node.connect();
    wait::until_equal("connections_active", 2, || node.metrics().value("smartlink_connections_active"));
    node.signal("TERM");
    idle.assert_closes();
    silent.assert_closes();
    assert_eq!(node.wait_for_exit().code(), Some(0));
    node.wait_for_log(&["drained", "every answer"]);
}

#[test]
fn an_unused_node_ends_on_sigint_too() {
    let mut node = Setup::demo().start_ready();
    node.signal("INT");
    assert_eq!(node.wait_for_exit().code(), Some(0));
    assert!(node.logged(&["SIGINT"]) && node.logged(&["drained", "every answer"]), "{}", node.log());
}

/// Without a goodbye there is no time in which the system would give what it keeps of connections that have not spoken yet.
#[test]
fn who_has_connected_and_not_yet_spoken_is_answered_without_a_goodbye_too() {
    // The system keeps a connection for a second. A machine that stands still for as long has given it to the node as one
    // that is idle, and may try again.
    const ATTEMPTS: usize = 5;
    let mut setup = Setup::demo();
    for attempt in 1..=ATTEMPTS {
        let mut node = setup.start_ready();
        let mut clients: Vec<_> = (0..20).map(|_| node.connect()).collect();
        node.signal("INT");
        node.wait_for_log(&["draining"]);
        let answers: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                client.send(Request::click(CLICK).to_bytes()).map_err(|_| NoAnswer::BeforeFirstByte)?;
                client.read()
            })
            .collect();
        assert_eq!(node.wait_for_exit().code(), Some(0));
        let lost =
            answers.iter().filter(|answer| !answer.as_ref().is_ok_and(|answer| answer.status == 302)).count();
        if lost == 0 {
            node.wait_for_log(&["drained", "every answer"]);
            return;
        }
        println!("attempt {attempt}: {lost} without an answer: {answers:?}");
        setup = node.kill();
    }
    panic!("clicks were without an answer in each of {ATTEMPTS} attempts");
}

#[test]
fn the_deadline_closes_a_client_that_never_reads() {
    let setup = Setup::new().setting("edge.goodbye_seconds = 0.0");
    let mut node = setup.setting("edge.drain_timeout_seconds = 0.2").start_ready();
    let link = node.create_link(json!({"affiliate_id": 7}));
    node.attach(link, node.create_offer(&format!("https://long.example.com/?{}", "{s1}".repeat(10))));
    node.refresh();
    // Each is answered with 7½ KB. Nobody reads them, so the node's buffers fill up and it waits.
    let click = Request::click(&format!("/sl/{link}?aff_id=7&s1={}", "+".repeat(255))).to_bytes();
    let mut greedy = node.connect();
    let sender = thread::spawn(move || {
        for _ in 0..20_000 {
            if greedy.send(&click).is_err() {
                return;
            }
        }
        panic!("the node took every request, though no answer was read");
    });
    let (mut answered, mut looks_alike) = (0, 0);
    wait::until("the node to answer no more", || {
        let before = std::mem::replace(&mut answered, node.metrics().clicks("offer"));
        looks_alike = if answered > 0 && answered == before { looks_alike + 1 } else { 0 };
        (looks_alike == 20).then_some(())
    });
    node.signal("TERM");
    assert_eq!(node.wait_for_exit().code(), Some(0));
    node.wait_for_log(&["the deadline closed"]);
    sender.join().unwrap();
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut node = Setup::demo().start_ready();
    // Never finished, so that the first signal alone would wait for it.
    let mut unfinished = node.connect();
    unfinished.send(b"GET /sl?id=301").unwrap();
    wait::until_equal("connections_active", 1, || node.metrics().value("smartlink_connections_active"));
    node.signal("TERM");
    node.wait_for_log(&["draining"]);
    node.signal("TERM");
    assert_eq!(node.wait_for_exit().code(), Some(3));
    assert!(node.logged(&["told to stop again"]) && !node.logged(&["drained"]), "{}", node.log());
}

#[test]
fn killed_and_started_again_it_has_kept_what_it_was_told() {
    // Otherwise the address of the click listener, which is another one each time, is part of what the API says.
    let mut setup = Setup::demo().setting("network.public_base_url = \"https://go.example.com\"");
    let mut offers = vec![];
    for round in 1..=3 {
        let node = setup.start_ready();
        let offer = node.create_offer(&format!("https://round{round}.example.com/"));
        let link = node.create_link(json!({"affiliate_id": 7}));
        node.attach(link, offer);
        offers.push((link, format!("round{round}.example.com")));
        node.refresh();
        for (link, host) in &offers {
            assert_eq!(node.click(&format!("/sl/{link}?aff_id=7")).destination(), host, "round {round}");
        }
        let key = node.key();
        // Busy to the last moment.
        let mut connection = node.connect();
        connection.send(Request::click(CLICK).to_bytes()).unwrap();
        setup = node.kill();
        assert_eq!(std::fs::read_to_string(setup.path().join("data/api-key")).unwrap().trim(), key);
    }
    let node = setup.start_ready();
    node.wait_for_log(&["routing from the last good snapshot"]);
    assert_eq!(node.refresh()["result"], "unchanged");
    for (link, host) in &offers {
        assert_eq!(node.click(&format!("/sl/{link}?aff_id=7")).destination(), host);
    }
}

/// Clicks until an answer is the last, which is a moment after the node says that it is not ready: each of its threads
/// has to hear of the drain.
fn click_until_the_last(connection: &mut Connection) {
    wait::until("an answer that is the last of its connection", || {
        let answer = connection.ask(&Request::click(CLICK));
        assert_eq!(answer.status, 302, "{answer:?}");
        answer.is_last().then_some(())
    });
    connection.assert_closes();
}

fn wait_until_unready(node: &Node) {
    wait::until_equal("/readyz", 503, || node.readyz());
    assert_eq!(node.admin("GET", "/readyz").body, "not ready: draining\n");
}
