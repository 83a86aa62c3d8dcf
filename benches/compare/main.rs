//! What the whole of smartlink spends on a click, beside nginx and a bare epoll loop on the same machine.
//!
//! `benches/compare/run` builds what is needed, runs this and writes `RESULTS.md` beside it, in about seven minutes.
//!
//! What it wrote last, with the machine and the commit, is in `RESULTS.md`. Conclusion: where connections are kept, the whole click
//! costs a tenth more than nginx spends on a fixed redirect, half of what nginx spends on the same job, and one and a half of a
//! loop that does nothing; over TLS, half of what nginx spends. Of it the kernel's network is seven tenths, our own code and its
//! parser a quarter, the pages of the click log that are touched for the first time four hundredths (`perf record -e cpu-clock`).
//! With hyper in the way of plain requests it was half as much again.
//!
//! A server that is slower than wrk finds it asleep, and pays for waking it at every answer; one that is faster does not. So the
//! ratios to what does less are a little too high.

mod bare;
mod cores;
mod load;
mod pace;
mod report;
mod servers;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cores::{LOAD, SERVER, on_cores, stay_on};
use load::{Sent, Shape};
use report::Spread;
use servers::{Certificate, Server, Times};
use support::store::Rows;

fn main() {
    if std::env::var_os(servers::BARE_VARIABLE).is_some() {
        bare::serve();
        return;
    }
    let Some(results) = std::env::var_os("SMARTLINK_COMPARE_RESULTS") else {
        println!("compares with nginx; nothing to do here: benches/compare/run runs it");
        return;
    };
    let geo = std::env::var_os("SMARTLINK_BENCH_GEO").map(PathBuf::from);
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lookup/demo.mmdb");
    stay_on(&[LOAD]);
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let bench = Bench { directory: directory.path(), geo: geo.as_deref().unwrap_or(&demo) };
    let found = bench.run();
    let text = report::text(&found, geo.is_some());
    std::fs::write(&results, &text).expect("the results can be written");
    println!("{text}");
}

struct Bench<'a> {
    directory: &'a Path,
    geo: &'a Path,
}

/// Everything that was measured.
pub struct Found {
    pub cases: Vec<CaseFound>,
    /// Bytes of an answer, by server.
    pub answers: Vec<(&'static str, usize)>,
    pub latency: LatencyFound,
    pub publishing: PublishingFound,
    /// Clicks a second by two threads and by one.
    pub two_threads: Spread,
    pub one_thread: Spread,
    pub two_by_one: Spread,
}

pub struct CaseFound {
    pub case: Case,
    pub servers: Vec<ServerFound>,
}

pub struct ServerFound {
    pub name: &'static str,
    pub rounds: Vec<Round>,
}

#[derive(Clone, Copy)]
pub struct Round {
    /// Microseconds on the core, for a click.
    pub cost: f64,
    pub clicks_a_second: f64,
    /// How much of the round the server was on its core, from 0 to 1.
    pub busy: f64,
    /// How much of the round it could have been, and somebody else was.
    pub in_line: f64,
}

/// Microseconds, over the rounds.
pub struct LatencyFound {
    pub clicks_a_second: f64,
    pub smartlink: [Spread; 3],
    pub nginx: [Spread; 3],
    pub p99_by_nginx: Spread,
}

pub struct PublishingFound {
    pub clicks_a_second: f64,
    pub quiet: [Spread; 3],
    pub publishing: [Spread; 3],
    pub p99_by_quiet: Spread,
    /// How many tables were published in a second, all rounds together.
    pub tables_a_second: f64,
}

#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub shape: Shape,
}

const CASES: [Case; 6] = [
    case("keep-alive, 64 connections", KEEP_ALIVE),
    case("keep-alive, 1 connection", Shape { connections: 1, ..KEEP_ALIVE }),
    case("keep-alive, 1,000 connections", Shape { connections: 1_000, ..KEEP_ALIVE }),
    case("one connection per click, 64 at a time", Shape { close: true, ..KEEP_ALIVE }),
    case("TLS, one connection per click, 64 at a time", Shape { close: true, tls: true, ..KEEP_ALIVE }),
    case("keep-alive, 64 connections, no X-Forwarded-For", Shape { forwarded: false, ..KEEP_ALIVE }),
];

const KEEP_ALIVE: Shape = Shape { connections: 64, close: false, forwarded: true, tls: false };

const fn case(name: &'static str, shape: Shape) -> Case {
    Case { name, shape }
}

impl Bench<'_> {
    fn run(&self) -> Found {
        let certificate = Certificate::written_to(self.directory);
        let servers = [
            Server::smartlink(LINKS, 1, self.geo, Some(&certificate), &[SERVER]),
            Server::nginx_fixed(self.directory, &certificate),
            Server::nginx_same_job(self.directory, LINKS, self.geo),
            Server::bare(),
        ];
        let requests = load::requests(LINKS.links, CASES[0].shape);
        let answers = servers.iter().map(|server| (server.name, server.answer_bytes(&requests[0]))).collect();
        let cases: Vec<_> = CASES.iter().map(|&case| self.case(case, &servers)).collect();
        let peak =
            |server: usize| Spread::of(cases[0].servers[server].rounds.iter().map(|r| r.clicks_a_second));
        let half = peak(0).median.min(peak(1).median) / 2.0;
        let latency = latency(&servers[0], &servers[1], &requests, half);
        drop(servers);
        let publishing = self.publishing(half);
        let (two_threads, one_thread, two_by_one) = self.two_threads();
        Found { cases, answers, latency, publishing, two_threads, one_thread, two_by_one }
    }

    /// All servers, round after round.
    fn case(&self, case: Case, servers: &[Server]) -> CaseFound {
        println!("{} …", case.name);
        let requests = load::requests(LINKS.links, case.shape);
        let script = load::script(self.directory, "wrk", &requests);
        let empty = |server: &Server| ServerFound { name: server.name, rounds: Vec::new() };
        let servers = servers.iter().filter(|server| !case.shape.tls || server.tls_address.is_some());
        let servers: Vec<&Server> = servers.collect();
        let mut found: Vec<_> = servers.iter().map(|server| empty(server)).collect();
        // The very first round only warms up.
        let first = if case.name == CASES[0].name { 0 } else { 1 };
        for round in first..=ROUNDS {
            for (server, found) in servers.iter().zip(&mut found) {
                let before = server.before();
                let seconds = if round == 0 { 1 } else { ROUND_SECONDS };
                let Shape { connections, tls, .. } = case.shape;
                let address = if tls { server.tls_address.expect("it was asked") } else { server.address };
                let sent = load::wrk(address, &script, connections, 1, tls, seconds);
                let spent = server.spent(&before);
                server.check(&before, sent, case.shape.connections);
                if round > 0 {
                    found.rounds.push(Round::of(sent, spent));
                }
            }
        }
        let found = CaseFound { case, servers: found };
        println!("{}", report::case(&found));
        found
    }

    /// A network of a hundred thousand links, quiet and while all of it is read, compiled and published every second.
    fn publishing(&self, half: f64) -> PublishingFound {
        println!("publishing …");
        let server = Server::smartlink(MANY_LINKS, 1, self.geo, None, &[SERVER]);
        let requests = load::requests(MANY_LINKS.links, CASES[0].shape);
        let mut waits = [Vec::new(), Vec::new()];
        let mut tables = 0;
        let mut nth = 0;
        // Once without counting, for the device cache and the pages of the table.
        pace::clicks(server.address, &requests, half, Duration::from_secs(1));
        for _ in 0..LATENCY_ROUNDS {
            waits[0].push(pace::clicks(server.address, &requests, half, LATENCY_ROUND));
            let before = server.generation();
            thread::scope(|scope| {
                // It shares the server's core, so as not to disturb the clock of the clicks.
                let publisher = on_cores(&[SERVER], || scope.spawn(|| publish(&server, &mut nth)));
                waits[1].push(pace::clicks(server.address, &requests, half, LATENCY_ROUND));
                publisher.join().expect("tables were published");
            });
            tables += server.generation() - before;
        }
        let [quiet, publishing] = waits;
        let ratio = publishing.iter().zip(&quiet).map(|(busy, quiet)| busy.share(0.99) / quiet.share(0.99));
        PublishingFound {
            clicks_a_second: half,
            p99_by_quiet: Spread::of(ratio),
            quiet: shares(&quiet),
            publishing: shares(&publishing),
            tables_a_second: tables as f64 / (LATENCY_ROUNDS as f64 * LATENCY_ROUND.as_secs_f64()),
        }
    }

    /// With both cores for the server, and the load on the same two.
    fn two_threads(&self) -> (Spread, Spread, Spread) {
        println!("two threads …");
        let both = [SERVER, LOAD];
        let servers = [2, 1].map(|threads| Server::smartlink(LINKS, threads, self.geo, None, &both));
        let script = load::script(self.directory, "wrk", &load::requests(LINKS.links, CASES[0].shape));
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..THREAD_ROUNDS {
            for (server, rates) in servers.iter().zip(&mut rates) {
                let before = server.before();
                let sent =
                    on_cores(&both, || load::wrk(server.address, &script, 64, 2, false, ROUND_SECONDS));
                server.check(&before, sent, 64);
                rates.push(sent.a_second());
            }
        }
        let ratio = Spread::of(rates[0].iter().zip(&rates[1]).map(|(two, one)| two / one));
        let [two, one] = rates.map(|rates| Spread::of(rates.into_iter()));
        (two, one, ratio)
    }
}

impl Round {
    fn of(sent: Sent, spent: Times) -> Self {
        let on_core = spent.on_core.as_secs_f64();
        Self {
            cost: on_core * 1e6 / sent.requests as f64,
            clicks_a_second: sent.a_second(),
            busy: on_core / sent.seconds,
            in_line: spent.in_line.as_secs_f64() / sent.seconds,
        }
    }
}

/// By turns, at the same rate and with the same clicks.
fn latency(smartlink: &Server, nginx: &Server, requests: &[String], half: f64) -> LatencyFound {
    println!("latency …");
    let mut waits = [Vec::new(), Vec::new()];
    for _ in 0..LATENCY_ROUNDS {
        for (server, waits) in [smartlink, nginx].into_iter().zip(&mut waits) {
            waits.push(pace::clicks(server.address, requests, half, LATENCY_ROUND));
        }
    }
    let ratio = waits[0].iter().zip(&waits[1]).map(|(ours, nginx)| ours.share(0.99) / nginx.share(0.99));
    LatencyFound {
        clicks_a_second: half,
        p99_by_nginx: Spread::of(ratio),
        smartlink: shares(&waits[0]),
        nginx: shares(&waits[1]),
    }
}

/// p50, p99 and p99.9.
fn shares(waits: &[pace::Waits]) -> [Spread; 3] {
    [0.5, 0.99, 0.999].map(|share| Spread::of(waits.iter().map(|waits| waits.share(share))))
}

/// For a round: one table after the other, a second apart or as soon as the one before is done.
fn publish(server: &Server, nth: &mut u64) {
    let began = Instant::now();
    while began.elapsed() < LATENCY_ROUND {
        let next = Instant::now() + Duration::from_secs(1);
        *nth += 1;
        server.publish(*nth);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

const LINKS: Rows = Rows { links: 1_000, offers: 500, rules: 1 };
const MANY_LINKS: Rows = Rows { links: 100_000, offers: 5_000, rules: 1 };

const ROUNDS: usize = 7;
const ROUND_SECONDS: u64 = 2;
const THREAD_ROUNDS: usize = 5;
const LATENCY_ROUNDS: usize = 5;
const LATENCY_ROUND: Duration = Duration::from_secs(3);
