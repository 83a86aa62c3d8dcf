//! A network that changes all the time, under load: every redirect is of a table that was live while it was asked for.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::load::Load;
use crate::network::Network;
use crate::run::{Run, clicks_a_second, lengths, millis, of_this_build};
use crate::support::node::Setup;

#[test]
fn every_redirect_is_of_a_table_that_was_live() {
    let mut run = Run::begin("publishes");
    // Ten a second.
    let publishes = lengths(20, 120, 1_000);
    let node = of_this_build(Network::configure(Setup::new())).setting("edge.threads = 2").start_ready();
    let network = Arc::new(Network::make(&node, 20, &[]));
    let before = node.metrics().generation();
    let load = Load {
        clicks_a_second: clicks_a_second(lengths(600.0, 2_000.0, 2_000.0)),
        connections: 32,
        clicks_each: None,
        keeps_click_ids: false,
        seed: run.random.random(),
    };
    let load = load.start(node.clicks, &network);
    let begun = load.warm_up();
    load.wait_for(lengths(200, 4_000, 40_000));
    let first = Instant::now();
    for nth in 0..publishes {
        // Where publishing takes longer, they come later.
        thread::sleep((first + nth * Duration::from_millis(100)).saturating_duration_since(Instant::now()));
        network.change(&node, &mut run.random);
        node.refresh();
        network.settle();
    }
    let last = Instant::now();
    let seen = load.stop();
    let published = node.metrics().generation() - before;
    run.tell(&[
        ("publishes", &published),
        ("requests", &seen.requests()),
        ("wrong", &seen.wrong_count),
        ("reset", &(seen.unanswered + seen.torn)),
        ("p99_without", &millis(seen.p99(begun, first))),
        ("p99_with", &millis(seen.p99(first, last))),
    ]);
    seen.assert_none_is_wrong();
    assert_eq!(seen.unanswered + seen.torn + seen.refused, 0, "clicks without an answer");
    // Each change was published by itself: it is another content than that before, and of an offer that some link has.
    assert_eq!(published, u64::from(publishes));
}
