//! Slowloris: thousands of connections, each of which sends a byte of a head every now and then. Each is closed when its head is not
//! there in time, and all others are served.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::crowd::{Crowd, allow_open_files};
use crate::load::Load;
use crate::network::Network;
use crate::run::{Run, clicks_a_second, lengths, millis, number, of_this_build};
use crate::support::http::Request;
use crate::support::node::Setup;

#[test]
fn who_takes_too_long_for_a_head_is_closed_and_all_others_are_served() {
    let mut run = Run::begin("slow-heads");
    // The node takes as many connections as half of the descriptors that it may have, and the visitors want some of them.
    let room = (allow_open_files() / 2).saturating_sub(100);
    let clients = lengths(500, 5_000, 10_000).min(room);
    let deadline: Duration = lengths(Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15));
    let every = lengths(Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3));
    let node = of_this_build(Network::configure(Setup::new()))
        .setting("edge.threads = 2")
        // All of them come from one address.
        .setting("edge.connections_per_address_max = 0")
        .setting(&format!("edge.header_read_timeout_seconds = {:.1}", deadline.as_secs_f64()))
        .start_ready();
    let network = Arc::new(Network::make(&node, 10, &[]));
    let load = Load {
        clicks_a_second: clicks_a_second(lengths(300.0, 500.0, 5_000.0)),
        connections: 16,
        clicks_each: None,
        keeps_click_ids: false,
        seed: run.random.random(),
    };
    let load = load.start(node.clicks, &network);
    let begun = load.warm_up();
    load.wait_for(lengths(100, 2_000, 50_000));

    let closed = || node.metrics().value("smartlink_connections_closed_total{reason=\"header_timeout\"}");
    let (before, resident) = (closed(), node.own_memory());
    let came = Instant::now();
    let head = Request::click("/sl?id=1&aff_id=7").to_bytes();
    // No more at once than the system lets wait to be accepted: of more, it forgets the end of their handshakes.
    let mut crowd = Crowd::come(node.clicks, clients, every, &head);
    let all_came = Instant::now();
    let time = Duration::from_secs(number("CHAOS_SECONDS").unwrap_or(lengths(0, 0, 180)));
    let mut most = resident;
    crowd.drip(&head, every, time, || most = most.max(node.own_memory()));
    let left = Instant::now();
    let stays = crowd.stays();
    let (shortest, longest) = (stays.iter().copied().min(), stays.iter().copied().max());
    // Those that are there wait for nobody: the next ones are served, too.
    load.wait_for(100);
    let seen = load.stop();
    run.tell(&[
        ("clients", &clients),
        ("came_again", &(stays.len() - clients)),
        ("came_in", &millis(Some(all_came - came))),
        ("deadline", &millis(Some(deadline))),
        ("closed_after", &format!("{}..{}", millis(shortest), millis(longest))),
        ("bytes_each", &((most - resident) / clients as u64)),
        ("requests", &seen.requests()),
        ("wrong", &seen.wrong_count),
        ("reset", &(seen.unanswered + seen.torn)),
        ("p99_without", &millis(seen.p99(begun, came))),
        ("p99_with", &millis(seen.p99(came, left))),
    ]);
    seen.assert_none_is_wrong();
    assert_eq!(seen.unanswered + seen.torn + seen.refused, 0, "clicks without an answer");
    assert_eq!(
        closed() - before,
        stays.len() as u64,
        "connections that were closed by the deadline of a head"
    );
}
