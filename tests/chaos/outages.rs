//! The upstream, or the ledger, is away: killed, or stopped so that it takes connections and says nothing. Clicks go where they
//! went before, caps are kept to, and the node is ready all the time; what comes back is followed again. `CHAOS_SECONDS` says how long
//! each of the two is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::load::{Load, Running};
use crate::network::Network;
use crate::run::{Run, lengths, millis, number, of_this_build};
use crate::support::node::{Node, Setup};
use crate::support::redis_server::Server;
use crate::support::wait;

#[test]
fn without_its_upstream_a_node_routes_as_before() {
    let mut run = Run::begin("upstream-away");
    let upstream = of_this_build(Setup::new()).start_ready();
    let network = Arc::new(Network::make(&upstream, 10, &[cap()]));
    // It counts caps by itself, so that only the upstream is away.
    let edge = edge(Setup::following(&upstream).setting("caps.ledger = \"local\""));
    let load = load(&mut run, &edge, &network);
    let mut phases = Phases::begin(&load);

    let failed = || edge.metrics().value("smartlink_snapshot_refreshes_total{result=\"failed\"}");
    let (clicks, admin) = (upstream.clicks, upstream.admin);
    let setup = upstream.kill().on(clicks, admin);
    phases.last("killed", &edge, || failed() > 0);
    let upstream = setup.start_ready();
    let before = change(&upstream, &edge, &network, &mut run);
    upstream.signal("STOP");
    let felt = failed();
    phases.last("stopped", &edge, || failed() > felt);
    upstream.signal("CONT");
    let after = change(&upstream, &edge, &network, &mut run);
    assert!(after > before, "no change was published after {before}");
    phases.end(run, load, &edge, &network);
}

#[test]
fn without_its_ledger_a_node_closes_what_it_cannot_count() {
    let mut run = Run::begin("ledger-away");
    // Each grant is on the disk before it is told.
    let Some(mut ledger) = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]) else { return };
    let upstream = of_this_build(Setup::new()).start_ready();
    let network = Arc::new(Network::make(&upstream, 10, &[cap()]));
    let of_ledger = format!("caps.ledger = \"redis://127.0.0.1:{}\"", ledger.port);
    let edge = edge(Setup::following(&upstream).setting(&of_ledger));
    let load = load(&mut run, &edge, &network);
    let mut phases = Phases::begin(&load);

    let is_away = || edge.metrics().value("smartlink_ledger_reachable") == 0;
    let is_back = || wait::until("the ledger to be back", || (!is_away()).then_some(()));
    ledger.kill();
    phases.last("killed", &edge, is_away);
    ledger.start_again();
    is_back();
    ledger.signal("STOP");
    phases.last("stopped", &edge, is_away);
    ledger.signal("CONT");
    is_back();
    change(&upstream, &edge, &network, &mut run);
    phases.end(run, load, &edge, &network);
}

/// A node that looks at its upstream once a second, however often that has failed.
fn edge(setup: Setup) -> Node {
    of_this_build(Network::configure(setup))
        .setting("edge.threads = 2")
        .setting("upstream.refresh_interval_seconds = 1.0")
        .setting("upstream.refresh_interval_max_seconds = 2.0")
        .setting("upstream.call_timeout_seconds = 1.0")
        .start_ready()
}

fn load(run: &mut Run, edge: &Node, network: &Arc<Network>) -> Running {
    let load = Load {
        clicks_a_second: lengths(600.0, 2_000.0, 2_000.0),
        connections: 32,
        clicks_each: None,
        keeps_click_ids: false,
        seed: run.random.random(),
    };
    load.start(edge.clicks, network)
}

/// Something changes upstream, and is published by the edge, in this generation.
fn change(upstream: &Node, edge: &Node, network: &Network, run: &mut Run) -> u64 {
    network.change(upstream, &mut run.random);
    edge.refresh();
    network.settle();
    edge.metrics().generation()
}

/// What happened when.
struct Phases {
    begun: Instant,
    first: Instant,
    faults: Vec<(&'static str, Instant, Instant)>,
}

impl Phases {
    fn begin(load: &Running) -> Self {
        let begun = load.warm_up();
        load.wait_for(lengths(200, 4_000, 40_000));
        Self { begun, first: Instant::now(), faults: Vec::new() }
    }

    /// The fault, from now on until it was felt and has lasted for long enough.
    fn last(&mut self, fault: &'static str, edge: &Node, is_felt: impl Fn() -> bool) {
        let begun = Instant::now();
        let time = lengths(Duration::from_millis(500), Duration::from_secs(6), Duration::from_secs(300));
        let time = number("CHAOS_SECONDS").map_or(time, Duration::from_secs);
        wait::until("the fault to be felt", || {
            assert_eq!(edge.readyz(), 200, "{fault}");
            is_felt().then_some(())
        });
        while begun.elapsed() < time {
            assert_eq!(edge.readyz(), 200, "{fault}");
            std::thread::sleep(Duration::from_millis(100));
        }
        self.faults.push((fault, begun, Instant::now()));
    }

    fn end(self, run: Run, load: Running, edge: &Node, network: &Network) {
        let seen = load.stop();
        let spent: Vec<u64> = network.capped().into_iter().map(|offer| edge.clicks_logged(offer)).collect();
        let with: Vec<String> = self
            .faults
            .iter()
            .map(|&(fault, from, until)| {
                format!("{}({fault},{:.1}s)", millis(seen.p99(from, until)), (until - from).as_secs_f64())
            })
            .collect();
        run.tell(&[
            ("requests", &seen.requests()),
            ("wrong", &seen.wrong_count),
            ("reset", &(seen.unanswered + seen.torn)),
            ("caps", &format!("{spent:?} of [{}]", cap())),
            ("p99_without", &millis(seen.p99(self.begun, self.first))),
            ("p99_with", &with.join(",")),
        ]);
        seen.assert_none_is_wrong();
        assert_eq!(seen.unanswered + seen.torn + seen.refused, 0, "clicks without an answer");
        assert!(spent.iter().all(|spent| (1..=cap()).contains(spent)), "{spent:?} clicks of {}", cap());
    }
}

/// So much that some of it is left when the fault comes.
fn cap() -> u64 {
    lengths(400, 4_000, 20_000)
}
