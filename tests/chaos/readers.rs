//! Clients that ask and never read. Each is closed when it has not taken an answer in time, what the node keeps for it until then is
//! bounded, and all others are served.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt;
use serde_json::json;

use crate::crowd::{Crowd, allow_open_files};
use crate::load::Load;
use crate::network::Network;
use crate::run::{Run, lengths, millis, of_this_build};
use crate::support::http::Request;
use crate::support::node::{Node, Setup};

#[test]
fn who_never_reads_is_closed_and_costs_little() {
    let mut run = Run::begin("readers");
    allow_open_files();
    let node = of_this_build(Network::configure(Setup::new()))
        .setting("edge.threads = 2")
        .setting("edge.write_timeout_seconds = 1.0")
        // All of them come from one address.
        .setting("edge.connections_per_address_max = 0")
        .start_ready();
    let network = Arc::new(Network::make(&node, 10, &[]));
    let link = node.create_link(json!({"affiliate_id": 7}));
    node.attach(link, node.create_offer(&format!("https://long.example.com/?{}", "{s1}".repeat(10))));
    node.refresh();
    // Each is answered with 7½ KB.
    let long = Request::click(&format!("/sl/{link}?aff_id=7&s1={}", "+".repeat(255))).to_bytes();
    let short = Request::click("/sl?id=1&aff_id=7").to_bytes();

    let load = Load {
        clicks_a_second: lengths(300.0, 500.0, 1_000.0),
        connections: 16,
        clicks_each: None,
        keeps_click_ids: false,
        seed: run.random.random(),
    };
    let load = load.start(node.clicks, &network);
    let begun = load.warm_up();
    load.wait_for(lengths(100, 2_000, 10_000));
    let came = Instant::now();
    let readers = cost(&node, lengths(40, 500, 2_000), &long, 10_000);
    let pipeliners = cost(&node, lengths(5, 50, 200), &short, 100_000);
    let left = Instant::now();
    let seen = load.stop();
    run.tell(&[
        ("readers", &readers),
        ("pipeliners", &pipeliners),
        ("requests", &seen.requests()),
        ("wrong", &seen.wrong_count),
        ("reset", &(seen.unanswered + seen.torn)),
        ("p99_without", &millis(seen.p99(begun, came))),
        ("p99_with", &millis(seen.p99(came, left))),
    ]);
    seen.assert_none_is_wrong();
    assert_eq!(seen.unanswered + seen.torn + seen.refused, 0, "clicks without an answer");
}

/// As many clients as that send so many of these requests each, and read nothing. What became of them, for people.
fn cost(node: &Node, clients: usize, request: &[u8], requests: usize) -> String {
    let closed = || node.metrics().value("smartlink_connections_closed_total{reason=\"write_timeout\"}");
    let (before, resident, sockets) = (closed(), node.own_memory(), socket_bytes());
    let mut crowd = Crowd::come(node.clicks, clients, Duration::ZERO, b"");
    let ending = thread::spawn({
        let bytes = request.repeat(64);
        let bytes_max = request.len() * requests;
        move || {
            crowd.send(&bytes, bytes_max);
            crowd
        }
    });
    let (mut most, mut sockets_most) = (resident, sockets);
    while !ending.is_finished() {
        most = most.max(node.own_memory());
        sockets_most = sockets_most.max(socket_bytes());
        thread::sleep(Duration::from_millis(20));
    }
    let crowd = ending.join().unwrap();
    let each = (most - resident) / clients as u64;
    // Of the whole machine, and of both ends. How much it is, is the system's matter.
    let sockets_each = (sockets_most - sockets) / clients as u64;
    let took = crowd.stays();
    assert_eq!(closed() - before, clients as u64, "clients that were closed by the deadline");
    let taken = crowd.people().iter().map(|person| person.bytes_sent).max().unwrap_or_default();
    assert!(taken < request.len() * requests, "the node took every request, though no answer was read");
    let bytes_most = BYTES_MOST * clients as u64 + BYTES_OF_ALL_ELSE;
    assert!(most - resident < bytes_most, "{each} bytes for each of {clients}");
    let last = millis(took.into_iter().max());
    format!("{clients}(each {each}B, in sockets {sockets_each}B; the last closed after {last})")
}

/// What the system keeps in the sockets of all its TCP connections.
fn socket_bytes() -> u64 {
    let told = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let tcp = told.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    let pages = tcp.split_once("mem ").and_then(|(_, pages)| pages.trim().parse::<u64>().ok());
    pages.unwrap_or_default() * page_bytes()
}

fn page_bytes() -> u64 {
    let told = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let page = told.lines().find_map(|line| line.strip_prefix("KernelPageSize:")).unwrap_or_default();
    page.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() << 10
}

/// Of memory, for a client that does not read: a head that is being read, answers that are being written, and what goes with them.
const BYTES_MOST: u64 = 256 << 10;

/// What the node may come to need meanwhile for something else.
const BYTES_OF_ALL_ELSE: u64 = 16 << 20;
