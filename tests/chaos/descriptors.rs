//! No descriptors are left: a node neither spins nor ends, whoever is connected is served, and those who wait are served once there
//! are some again.

use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::run::{Run, lengths, of_this_build, program};
use crate::support::http::{Connection, Request};
use crate::support::node::{Node, Setup};
use crate::support::wait;

const CLICK: &str = "/sl?id=301&aff_id=67890";

/// Of itself it takes no more connections than half of what it may have, so that the admin listener has the rest.
#[test]
fn a_node_that_was_given_few_descriptors_keeps_some_for_admin() {
    let run = Run::begin("few-descriptors");
    let setup = Setup::demo().setting("edge.threads = 1");
    let limited = setup.path().join("with-few-descriptors");
    let script = format!("#!/bin/sh\nulimit -n 96\nexec '{}' \"$@\"\n", program().display());
    std::fs::write(&limited, script).unwrap();
    std::fs::set_permissions(&limited, std::fs::Permissions::from_mode(0o755)).unwrap();
    let node = setup.program(limited).start_ready();
    // They have asked for nothing, and so none of them makes room.
    let mut crowd: Vec<Connection> = (0..200).map(|_| node.connect()).collect();
    let paused = "smartlink_accept_pauses_total";
    wait::until(paused, || (node.metrics().value(paused) > 0).then_some(()));
    let cpu = cpu_share(&node, || {
        // On connections of their own.
        node.metrics();
        assert_eq!(node.readyz(), 200);
    });
    let open = node.metrics().value("smartlink_connections_active");
    // Now all of them ask: who has been answered makes room for the next.
    for connection in &mut crowd {
        connection.send(Request::click(CLICK).to_bytes()).unwrap();
    }
    for connection in &mut crowd {
        assert_eq!(connection.read().unwrap().status, 302);
    }
    assert_eq!(node.metrics().value("smartlink_accept_errors_total"), 0, "{}", node.log());
    drop(crowd);
    assert_eq!(node.click(CLICK).status, 302);
    run.tell(&[("descriptors", &96), ("clients", &200), ("open", &open), ("cpu", &format!("{cpu:.3}"))]);
    assert!(cpu < SPINS, "{cpu} of a core while nobody asks for anything");
}

/// Something else has taken them all: to accept fails.
#[test]
fn accepting_goes_on_once_there_are_descriptors_again() {
    let run = Run::begin("no-descriptors");
    let node = of_this_build(Setup::demo()).setting("edge.threads = 1").start_ready();
    let mut kept = node.connect();
    assert_eq!(kept.ask(&Request::click(CLICK)).status, 302);
    let mut admin = Connection::to(node.admin);
    let scrape = Request::new("GET", "/metrics").with("Host", &node.admin.to_string());
    let value = |admin: &mut Connection, series: &str| {
        crate::support::node::Metrics(admin.ask(&scrape).body).value(series)
    };
    let errors = "smartlink_accept_errors_total";
    assert_eq!(value(&mut admin, errors), 0);
    let before = allow_descriptors(&node, open_files(&node));
    let mut waiting: Vec<Connection> = (0..50).map(|_| node.connect()).collect();
    for connection in &mut waiting {
        connection.send(Request::click(CLICK).to_bytes()).unwrap();
    }
    // One who finds no descriptor for the admin listener either.
    let mut late_admin = Connection::to(node.admin);
    late_admin.send(scrape.to_bytes()).unwrap();
    wait::until(errors, || (value(&mut admin, errors) > 0).then_some(()));
    let mut scrapes = 0;
    let cpu = cpu_share(&node, || {
        // Those who are there already.
        assert_eq!(admin.ask(&scrape).status, 200);
        assert_eq!(kept.ask(&Request::click(CLICK)).status, 302);
        scrapes += 1;
    });
    let failed = value(&mut admin, errors);
    allow_descriptors(&node, before);
    for connection in &mut waiting {
        assert_eq!(connection.read().unwrap().status, 302);
    }
    assert_eq!(late_admin.read().unwrap().status, 200);
    assert_eq!(node.click(CLICK).status, 302);
    run.tell(&[
        ("waiting", &50),
        ("accept_errors", &failed),
        ("asked", &scrapes),
        ("cpu", &format!("{cpu:.3}")),
    ]);
    assert!(cpu < SPINS, "{cpu} of a core, with {failed} failures");
}

/// How much of a core it takes while there is little to do but this, ten times a second.
fn cpu_share(node: &Node, mut ask: impl FnMut()) -> f64 {
    let window = lengths(Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(30));
    let (begun, before) = (Instant::now(), node.cpu_time());
    while begun.elapsed() < window {
        ask();
        thread::sleep(Duration::from_millis(100));
    }
    (node.cpu_time() - before).as_secs_f64() / begun.elapsed().as_secs_f64()
}

fn open_files(node: &Node) -> u64 {
    std::fs::read_dir(format!("/proc/{}/fd", node.id())).unwrap().count() as u64
}

/// Answers how many it was allowed before.
fn allow_descriptors(node: &Node, most: u64) -> u64 {
    let pid = Pid::from_raw(node.id().try_into().unwrap());
    // What it may have at the most is what this process may: it is a child of it.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let old = prlimit(pid, Resource::Nofile, Rlimit { current: Some(most), maximum }).unwrap();
    old.current.unwrap_or(1 << 20)
}

/// Who does has all of a core.
const SPINS: f64 = 0.5;
