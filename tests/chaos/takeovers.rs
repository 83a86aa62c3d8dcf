//! One process after the other takes over, while connections that are kept and such that have one click each are busy: nobody is
//! refused, no connection is reset.

use std::sync::Arc;
use std::time::Instant;

use rand::RngExt;

use crate::load::Load;
use crate::network::Network;
use crate::run::{Run, lengths, millis, of_this_build};
use crate::support::node::Setup;

#[test]
fn nobody_is_refused_and_no_connection_is_reset() {
    let mut run = Run::begin("takeovers");
    let setup = of_this_build(Network::configure(Setup::new()))
        .setting("edge.threads = 2")
        .setting("edge.goodbye_seconds = 2.0")
        .setting("network.public_base_url = \"https://go.example.com\"");
    let mut node = setup.start_ready();
    let network = Arc::new(Network::make(&node, 10, &[]));
    let kept = Load {
        clicks_a_second: lengths(500.0, 5_000.0, 20_000.0),
        connections: 64,
        clicks_each: None,
        keeps_click_ids: false,
        seed: run.random.random(),
    };
    let new = Load {
        clicks_a_second: lengths(200.0, 1_000.0, 2_000.0),
        connections: 256,
        clicks_each: Some(1),
        keeps_click_ids: false,
        seed: run.random.random(),
    };
    let loads = [kept.start(node.clicks, &network), new.start(node.clicks, &network)];
    let begun = loads.each_ref().map(|load| load.warm_up())[1];
    loads.iter().for_each(|load| load.wait_for(lengths(100, 2_000, 4_000)));
    let first = Instant::now();
    let (takeovers, mut slowest) = (lengths(2, 8, 100), None);
    for nth in 1..=takeovers {
        let begun = Instant::now();
        let mut before = node;
        node = before.successor();
        let status = before.wait_for_exit();
        assert_eq!(status.code(), Some(0), "takeover {nth}: {}", before.log());
        before.wait_for_log(&["has taken over"]);
        node.wait_for_log(&["all it had is this one's"]);
        slowest = slowest.max(Some(begun.elapsed()));
        assert!(!node.logged(&["ERROR"]), "takeover {nth}: {}", node.log());
    }
    let last = Instant::now();
    loads.iter().for_each(|load| load.wait_for(lengths(100, 2_000, 4_000)));
    let seen = loads.map(|load| load.stop());
    let sum = |of: fn(&crate::load::Seen) -> u64| seen.iter().map(of).sum::<u64>();
    run.tell(&[
        ("takeovers", &takeovers),
        ("requests", &sum(|seen| seen.requests())),
        ("wrong", &sum(|seen| seen.wrong_count)),
        ("reset", &sum(|seen| seen.unanswered + seen.torn)),
        ("refused", &sum(|seen| seen.refused)),
        ("told_to_go", &sum(|seen| seen.goodbyes)),
        ("slowest_takeover", &millis(slowest)),
        ("p99_without", &millis(seen[0].p99(begun, first))),
        ("p99_with", &millis(seen[0].p99(first, last))),
    ]);
    seen.iter().for_each(|seen| seen.assert_none_is_wrong());
    assert_eq!(sum(|seen| seen.refused), 0, "refused");
    assert_eq!(sum(|seen| seen.unanswered + seen.torn), 0, "reset");
}
