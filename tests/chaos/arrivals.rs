//! Three times as many visitors as the node can answer, each on a connection of their own: it goes on to answer nearly as many as it
//! can, admin answers, and it is as fast as before soon after.
//!
//! To offer a connection costs more than to answer it, so no load on the same machine could be too much for a node. It is held back:
//! stopped for nine of ten milliseconds, and what is its peak is measured in the same way. A load that is a debug build is too slow
//! even for that; what it could not send is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::RngExt;
use rustix::process::{Pid, Signal, kill_process};

use crate::crowd::allow_open_files;
use crate::load::{Load, Seen};
use crate::network::Network;
use crate::run::{Run, lengths, millis, of_this_build};
use crate::support::node::{Node, Setup};
use crate::support::wait;

#[test]
fn more_connections_than_there_is_time_for_cost_no_answer_of_those_that_are_taken() {
    let mut run = Run::begin("arrivals");
    // Some are the test's own.
    let places = lengths(1_000, 4_000, 19_000).min(allow_open_files().saturating_sub(500));
    let seconds = Duration::from_secs;
    let (at_peak, overloaded, recovers) = (
        lengths(seconds(1), seconds(3), seconds(15)),
        lengths(seconds(2), seconds(5), seconds(120)),
        lengths(seconds(1), seconds(3), seconds(5)),
    );
    let [every_address, admin] = [[0, 0, 0, 0], [127, 0, 0, 1]].map(|ip| SocketAddr::from((ip, 0)));
    let node = of_this_build(Network::configure(Setup::new()))
        .on(every_address, admin)
        .setting("edge.threads = 1")
        // All of them come from one address.
        .setting("edge.connections_per_address_max = 0")
        .setting("click_log.keep_bytes = 268435456")
        .start_ready();
    let network = Arc::new(Network::make(&node, 6, &[]));
    let held_back = HeldBack::begin(&node);
    let mut come = |clicks_a_second: f64, connections: usize, time: Duration| {
        let load = Load {
            clicks_a_second,
            connections,
            clicks_each: Some(1),
            keeps_click_ids: false,
            seed: run.random.random(),
        };
        let (load, begun) = (load.start_impatient(node.clicks, &network, PATIENCE), Instant::now());
        let mut admin = Duration::ZERO;
        while begun.elapsed() < time {
            let asked = Instant::now();
            assert_eq!(node.admin("GET", "/livez").status, 200);
            admin = admin.max(asked.elapsed());
            thread::sleep(LOOK_EVERY);
        }
        Came { time: begun.elapsed(), begun, ended: Instant::now(), seen: load.stop(), admin }
    };
    let calm = come(100.0, places, at_peak);
    // As many as there are places for, each of whom waits for an answer before the next one comes.
    let peak = come(1e5, AT_PEAK.min(places), at_peak);
    let over = come(peak.goodput() * 3.0, places, overloaded);
    let recovered = Instant::now() + recovers;
    wait::until("the node to recover", || (Instant::now() >= recovered).then_some(()));
    let after = come(100.0, places, at_peak);
    let stopped = held_back.end();
    run.tell(&[
        ("peak", &format!("{:.0}/s", peak.goodput())),
        ("sent", &format!("{:.0}/s", over.sent() as f64 / over.time.as_secs_f64())),
        ("never_sent", &over.seen.never_sent),
        ("gave_up", &over.seen.gave_up),
        ("goodput", &format!("{:.0}/s", over.goodput())),
        ("of_peak", &format!("{:.1}%", over.goodput() / peak.goodput() * 100.0)),
        ("stopped", &format!("{:.0}%", stopped * 100.0)),
        ("p99_without", &millis(calm.p99())),
        ("p99_at_peak", &millis(peak.p99())),
        ("p99_with", &millis(over.p99())),
        ("p99_after", &millis(after.p99())),
        ("livez_max", &millis(Some(over.admin))),
    ]);
    for came in [&calm, &peak, &over, &after] {
        came.seen.assert_none_is_wrong();
        assert_eq!(came.seen.unanswered + came.seen.torn, 0, "connections that ended without an answer");
    }
    assert_eq!(calm.seen.gave_up + after.seen.gave_up, 0, "visitors who waited for {PATIENCE:?}");
}

/// What became of those who came.
struct Came {
    begun: Instant,
    ended: Instant,
    time: Duration,
    seen: Seen,
    /// How long an answer of the admin listener took at the most.
    admin: Duration,
}

impl Came {
    /// Answers a second that somebody waited for.
    fn goodput(&self) -> f64 {
        let in_time = self.seen.answers.iter().filter(|waited| waited.answered <= self.ended).count();
        in_time as f64 / self.time.as_secs_f64()
    }

    fn sent(&self) -> u64 {
        self.seen.requests() + self.seen.gave_up + self.seen.refused
    }

    fn p99(&self) -> Option<Duration> {
        self.seen.p99(self.begun, self.ended)
    }
}

/// A node that is stopped most of the time.
struct HeldBack {
    is_over: Arc<AtomicBool>,
    /// `None`: it has ended.
    thread: Option<JoinHandle<f64>>,
}

impl HeldBack {
    fn begin(node: &Node) -> Self {
        let process = Pid::from_raw(node.id().try_into().expect("it is a process")).expect("it is not 0");
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                let (begun, mut stopped) = (Instant::now(), Duration::ZERO);
                while !is_over.load(Relaxed) {
                    let stops = Instant::now();
                    // A node that has ended fails the test elsewhere.
                    let _ = kill_process(process, Signal::STOP);
                    thread::sleep(STOPPED);
                    let _ = kill_process(process, Signal::CONT);
                    stopped += stops.elapsed();
                    thread::sleep(RUNS);
                }
                stopped.as_secs_f64() / begun.elapsed().as_secs_f64()
            }
        });
        Self { is_over, thread: Some(thread) }
    }

    /// Lets it go, and says what share of the time it was stopped.
    fn end(mut self) -> f64 {
        self.is_over.store(true, Relaxed);
        self.thread.take().expect("it has not ended").join().unwrap()
    }
}

/// Of a test that fails, too: the number of a process that has ended becomes another's.
impl Drop for HeldBack {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // What became of it is told by the test.
            let _ = thread.join();
        }
    }
}

/// Of people.
const PATIENCE: Duration = Duration::from_secs(3);

/// Of the node.
const STOPPED: Duration = Duration::from_millis(9);
const RUNS: Duration = Duration::from_millis(1);

/// Who waits at the peak: so many that there is always one to be answered.
const AT_PEAK: usize = 1_000;

const LOOK_EVERY: Duration = Duration::from_millis(50);
