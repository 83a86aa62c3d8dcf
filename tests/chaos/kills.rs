//! `kill -9` at any moment, under load: every redirect that somebody has read is in the click log, no click is there twice, caps
//! are kept to, and what the API has said to be done stays done.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::load::Load;
use crate::network::Network;
use crate::run::{Run, lengths, millis, of_this_build};
use crate::support::node::Setup;

#[test]
fn nothing_that_was_read_is_lost_and_no_cap_is_exceeded() {
    let mut run = Run::begin("kills");
    let kills = lengths(6, 30, 200);
    // One that is full soon and must stay so, and one that every life spends from.
    let caps = [20, 200 * (kills + 1)];
    let setup = of_this_build(Network::configure(Setup::new()))
        .setting("edge.threads = 2")
        .setting("network.public_base_url = \"https://go.example.com\"");
    let mut node = setup.start_ready();
    let network = Arc::new(Network::make(&node, 6, &caps));
    let load = Load {
        clicks_a_second: 600.0,
        connections: 16,
        clicks_each: None,
        keeps_click_ids: true,
        seed: run.random.random(),
    }
    .start(node.clicks, &network);
    let begun = load.warm_up();
    load.wait_for(lengths(200, 3_000, 6_000));
    let mut starts = vec![];
    for _ in 0..kills {
        if run.random.random() {
            network.change(&node, &mut run.random);
        }
        if run.random.random() {
            node.wait_ready();
            node.refresh();
            network.settle();
        }
        // Any moment will do, also one at which the node is not ready yet. What is awaited is nothing.
        thread::sleep(Duration::from_millis(run.random.random_range(0..500)));
        let (clicks, admin) = (node.clicks, node.admin);
        let setup = node.kill().on(clicks, admin);
        starts.push(Instant::now());
        node = setup.start();
    }
    load.wait_for(100);
    node.wait_ready();
    node.refresh();
    network.settle();
    let settled = Instant::now();
    // On what the API was told last.
    load.wait_for(200);
    let seen = load.stop();

    let written = node.click_log();
    let ids: HashSet<&str> = written.iter().map(|line| line["click_id"].as_str().unwrap()).collect();
    let missing = seen.click_ids.iter().filter(|id| !ids.contains(id.as_str())).count();
    let spent: Vec<u64> = network.capped().into_iter().map(|offer| node.clicks_logged(offer)).collect();
    let first: Vec<Duration> = starts.iter().filter_map(|&start| seen.first_after(start)).collect();
    run.tell(&[
        ("kills", &kills),
        ("requests", &seen.requests()),
        ("wrong", &seen.wrong_count),
        ("lost", &missing),
        ("twice", &(written.len() - ids.len())),
        ("reset", &(seen.unanswered + seen.torn)),
        ("refused", &seen.refused),
        ("caps", &format!("{spent:?} of {caps:?}")),
        ("first_redirect_max", &millis(first.into_iter().max())),
        ("p99_without", &millis(seen.p99(begun, starts[0]))),
        ("p99_with", &millis(seen.p99(starts[0], settled))),
    ]);
    seen.assert_none_is_wrong();
    assert_eq!(missing, 0, "redirects that were read are not in the log");
    assert_eq!(ids.len(), written.len(), "a click is there twice");
    for (spent, cap) in spent.iter().zip(caps) {
        assert!((1..=cap).contains(spent), "{spent} clicks of {cap}");
    }
    let verified = node.command(&["log", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
}
