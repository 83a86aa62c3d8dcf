//! SIGTERM while hundreds of connections are busy: every click that was sent has a whole answer. Who is told that an answer was the
//! last clicks on another connection, for as long as there are any to be had; afterwards, it would go to another node.

use std::sync::Arc;
use std::time::Instant;

use rand::RngExt;

use crate::load::Load;
use crate::network::Network;
use crate::run::{Run, lengths, millis, of_this_build};
use crate::support::node::Setup;

#[test]
fn every_click_has_a_whole_answer() {
    let mut run = Run::begin("drains");
    let ends = lengths(1, 5, 50);
    let connections = lengths(100, 500, 500);
    let setup = of_this_build(Network::configure(Setup::new()))
        .setting("edge.threads = 2")
        .setting("network.public_base_url = \"https://go.example.com\"")
        // Each connection has several clicks in that time, so that each is told.
        .setting("edge.goodbye_seconds = 2.0");
    let mut node = setup.start_ready();
    let network = Arc::new(Network::make(&node, 10, &[]));
    let (mut requests, mut wrong, mut lost, mut refused, mut goodbyes) = (0, 0, 0, 0, 0);
    let (mut with, mut without) = (None, None);
    let mut failures = vec![];
    for nth in 1..=ends {
        let clicks_a_second = lengths(500.0, 4_000.0, 4_000.0);
        let load = Load {
            clicks_a_second,
            connections,
            clicks_each: None,
            keeps_click_ids: false,
            seed: run.random.random(),
        }
        .start(node.clicks, &network);
        let begun = load.warm_up();
        load.wait_for(lengths(200, 4_000, 4_000));
        let told = Instant::now();
        node.signal("TERM");
        let status = node.wait_for_exit();
        let ended = Instant::now();
        let seen = load.stop();
        with = with.max(seen.p99(told, ended));
        without = without.max(seen.p99(begun, told));
        requests += seen.requests();
        wrong += seen.wrong_count;
        lost += seen.unanswered + seen.torn;
        refused += seen.refused;
        goodbyes += seen.goodbyes;
        if seen.unanswered + seen.torn > 0 {
            let lost: Vec<String> = seen
                .lost
                .iter()
                .map(|lost| {
                    format!(
                        "sent {:?} after SIGTERM, behind {} answers on its connection, which ended {:?} later",
                        lost.sent - told,
                        lost.answers,
                        lost.ended - lost.sent
                    )
                })
                .collect();
            failures.push(format!("end {nth}, {:?} after SIGTERM: {lost:?}", ended - told));
        }
        assert_eq!(status.code(), Some(0), "{}", node.log());
        node.wait_for_log(&["drained", "every answer"]);
        assert!(seen.goodbyes >= connections as u64, "{} were told of {connections}", seen.goodbyes);
        seen.assert_none_is_wrong();
        let setup = node.kill();
        node = setup.start_ready();
    }
    run.tell(&[
        ("ends", &ends),
        ("connections", &connections),
        ("requests", &requests),
        ("wrong", &wrong),
        ("without_answer", &lost),
        ("told_to_go", &goodbyes),
        ("refused_after_the_end", &refused),
        ("p99_without_max", &millis(without)),
        ("p99_with_max", &millis(with)),
    ]);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
