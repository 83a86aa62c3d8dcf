//! Half of what it can do, for long, while the network changes and databases are reloaded: memory and descriptors stay what they
//! were. `CHAOS_SECONDS` says for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::load::Load;
use crate::network::Network;
use crate::run::{Run, clicks_a_second, lengths, millis, number, of_this_build};
use crate::support::http::{Connection, Request};
use crate::support::node::{Node, Setup};
use crate::support::wait;

#[test]
fn memory_and_descriptors_stay_what_they_were() {
    let mut run = Run::begin("soak");
    let time = Duration::from_secs(number("CHAOS_SECONDS").unwrap_or(lengths(3, 25, 600)));
    let setup = of_this_build(Network::configure(Setup::new()))
        .setting("edge.threads = 2")
        // The disk is others' too: old clicks go, and their files with them.
        .setting("click_log.keep_bytes = 268435456");
    let (geo, renewed) = (setup.path().join("geo.mmdb"), setup.path().join("geo.new"));
    std::fs::copy(GEO, &geo).unwrap();
    let node = setup.flag("--geo").flag(geo.to_str().unwrap()).start_ready();
    let network = Arc::new(Network::make(&node, 20, &[]));
    let clicks_a_second = clicks_a_second(peak(&node) / 2.0);
    let load = Load {
        clicks_a_second,
        connections: 64,
        clicks_each: None,
        keeps_click_ids: false,
        seed: run.random.random(),
    }
    .start(node.clicks, &network);
    let begun = load.warm_up();
    let (mut samples, mut publishes, mut reloads) = (vec![], 0, 0);
    for nth in 1.. {
        if nth % 4 == 0 {
            std::fs::copy(GEO, &renewed).and_then(|_| std::fs::rename(&renewed, &geo)).unwrap();
            node.signal("HUP");
            reloads += 1;
        }
        network.change(&node, &mut run.random);
        node.refresh();
        network.settle();
        publishes += 1;
        samples.push(Sample {
            at: begun.elapsed(),
            own_memory: node.own_memory(),
            open_files: open_files(&node),
        });
        if begun.elapsed() >= time {
            break;
        }
        thread::sleep(time / 40);
    }
    let ended = Instant::now();
    // What is asked for while a reload goes on is one reload.
    let loaded = || node.metrics().value("smartlink_geo_reloads_total{result=\"loaded\"}");
    wait::until("a database to be loaded again", || (loaded() > 0).then_some(()));
    let seen = load.stop();
    let (early, late) = (&samples[..samples.len() / 3], &samples[samples.len() * 2 / 3..]);
    let most_early = early.iter().map(|sample| sample.open_files).max();
    let least_late = late.iter().map(|sample| sample.open_files).min();
    let last = samples.last().expect("there are some");
    run.tell(&[
        ("requests", &seen.requests()),
        ("a_second", &format!("{clicks_a_second:.0}")),
        ("publishes", &publishes),
        ("reloads", &reloads),
        ("wrong", &seen.wrong_count),
        ("reset", &(seen.unanswered + seen.torn)),
        ("own_memory", &format!("{:.1}MiB", last.own_memory as f64 / f64::from(1 << 20))),
        // Of the second half: before, it still grows into its work.
        ("slope", &format!("{:.1}KiB/min", slope(&samples[samples.len() / 2..]) * 60.0 / 1024.0)),
        ("open_files", &format!("{}..{}", least_late.unwrap_or_default(), last.open_files)),
        ("p99", &millis(seen.p99(begun, ended))),
    ]);
    seen.assert_none_is_wrong();
    assert_eq!(seen.unanswered + seen.torn + seen.refused, 0, "clicks without an answer");
    assert!(least_late <= most_early, "open files: {most_early:?} at first, {least_late:?} at the end");
}

/// That it is the demonstration database is all the same: this machine's own address is in none.
const GEO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lookup/demo.mmdb");

struct Sample {
    at: Duration,
    own_memory: u64,
    open_files: usize,
}

/// Clicks that are answered in a second, where each client waits for its answers.
fn peak(node: &Node) -> f64 {
    let (answered, time) = (
        AtomicU64::new(0),
        lengths(Duration::from_millis(500), Duration::from_secs(3), Duration::from_secs(10)),
    );
    let click = Request::click("/sl?id=1&aff_id=7").to_bytes();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let begun = Instant::now();
                let mut connection = Connection::to(node.clicks);
                while begun.elapsed() < time {
                    connection.ask_raw(&click);
                    answered.fetch_add(1, Relaxed);
                }
            });
        }
    });
    answered.load(Relaxed) as f64 / time.as_secs_f64()
}

fn open_files(node: &Node) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", node.id())).unwrap().count()
}

/// Bytes a second by which it grows, as the straight line has it that fits best.
fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let points = || samples.iter().map(|sample| (sample.at.as_secs_f64(), sample.own_memory as f64));
    let (x, y) =
        points().fold((0.0, 0.0), |sums, point| (sums.0 + point.0 / count, sums.1 + point.1 / count));
    let (above, below) = points().fold((0.0, 0.0), |sums, point| {
        (sums.0 + (point.0 - x) * (point.1 - y), sums.1 + (point.0 - x) * (point.0 - x))
    });
    above / below
}
