//! A million links from the embedded API to an edge, both on this machine: `cargo bench --bench scale`.
//!
//! One node runs the API over a store of a million links, of four offers each out of 5,000; another follows it. What is
//! told: how long the edge takes to its first table, how many bytes came for it, how large the table is and how much
//! memory the edge ever had, how soon one changed link is live and what that costs, and what clicks at 5,000 a second wait
//! while the whole network is read and compiled again.
//!
//! Measured 2026-11-22 on a cloud VM of two virtual cores (Intel Xeon), on which both nodes and the clicks ran; in
//! parentheses what is wanted:
//!
//! ```text
//! first sync, of 98 MB                                2.5 s                          (20 s)
//! table                                               188 MB                         (220 MB)
//! memory of the edge at the most, after that          340 MB, 1.8 tables             (3 tables)
//!   … after the whole was read again beside it        543 MB, 2.9 tables             (3 tables)
//!   … with two of the four entries rules              409 MB, 2.2 tables, first sync of 152 MB in 3.6 s
//! one changed link, from the call to the click        0.2 to 0.45 s                  (1 s)
//!   CPU time of the edge for it                       under 20 ms
//! one changed offer on 800 links                      0.2 s
//! compile of the million alone                        1.3 s                          (3 s)
//! p99 of clicks, quiet and while all is read again    0.19 to 0.28 and 0.43 to 0.91 ms, 1.5 to 4.7 times   (2 times)
//! start from the disk                                 0.9 s
//! ```
//!
//! Conclusion: all of it within what is wanted but the last, which was so in one of five quiet runs. The niceness of the
//! control threads keeps a refresh from most clicks. What is left is neither the bytes (a fifth of them: no better) nor
//! the haste (read at 8 MiB/s instead of 32, over 13 s instead of 4.6: 0.91 ms as before): a click that comes while any
//! thread of a refresh runs on its core seems to wait for that thread's slice to end, 1 ms at the most. With a compiler
//! beside it p99 is 1 to 20 ms, with and without a refresh.

#[path = "../tests/support/mod.rs"]
mod support;

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use support::http::{Connection, Request};
use support::node::{Node, Setup};
use support::store::{ENTRIES, Rows};

fn main() {
    // `cargo bench` says so; `cargo test` only wants to see that it runs.
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    let network = if is_measured {
        Network {
            rows: Rows { links: 1_000_000, offers: 5_000, rules: 0 },
            clicks_a_second: 5_000,
            for_seconds: 10,
        }
    } else {
        Network { rows: Rows { links: 2_000, offers: 50, rules: 0 }, clicks_a_second: 200, for_seconds: 1 }
    };
    network.run();
    println!("\nwith two attachments and two rules a link, over 300 different conditions:");
    let with_rules = Network { rows: Rows { rules: 2, ..network.rows }, ..network };
    let api = with_rules.upstream();
    with_rules.first_sync(&api);
}

struct Network {
    rows: Rows,
    clicks_a_second: u64,
    for_seconds: u64,
}

impl Network {
    fn run(&self) {
        let api = self.upstream();
        let (edge, table) = self.first_sync(&api);

        for _ in 0..3 {
            self.change_one_link(&api, &edge);
        }
        self.change_one_offer(&api, &edge);

        let quiet = self.clicks(&edge, || ());
        quiet.tell("clicks while nothing happens");
        let busy = self.clicks(&edge, || {
            let began = Instant::now();
            edge.refresh_with("?force=true", 200);
            say("the whole network read, compiled and published again, under clicks", began);
        });
        busy.tell("clicks during that");
        println!("p99 during ÷ p99 without: {:.2}", busy.share(0.99) / quiet.share(0.99));
        tell_memory("after that", &edge, table);

        let began = Instant::now();
        let edge = edge.kill().start();
        wait(|| edge.readyz() == 200);
        say("killed and started again, from its disk", began);
        tell_memory("after that", &edge, table);
    }

    /// An edge of that upstream, and the bytes of its table.
    fn first_sync(&self, api: &Node) -> (Node, u64) {
        let began = Instant::now();
        let edge = Setup::following(api).start();
        wait(|| edge.readyz() == 200);
        say("first sync: an edge without anything has its table", began);
        let metrics = edge.metrics();
        assert_eq!(metrics.value("smartlink_snapshot_links"), self.rows.links);
        assert_eq!(metrics.value("smartlink_snapshot_entries"), self.rows.links * ENTRIES);
        let table = metrics.value("smartlink_snapshot_table_bytes");
        tell_memory("after the first sync", &edge, table);
        wait(|| edge.last_good().exists());
        let kept = std::fs::metadata(edge.last_good()).expect("it was kept").len();
        println!("its lines, as they came and as they are kept: {:.0} MB", kept as f64 / 1e6);
        (edge, table)
    }

    /// A node whose store has the network. Its rows are written as one import would write them, but faster.
    fn upstream(&self) -> Node {
        let setup = Setup::new().start_ready().kill();
        self.rows.fill(&setup.path().join("data/smartlink.sqlite3"));
        let began = Instant::now();
        let node = setup.start();
        wait(|| node.readyz() == 200 && node.metrics().value("smartlink_snapshot_links") == self.rows.links);
        say("the API's own node is ready", began);
        node
    }

    /// From the moment at which the API is asked to the first click that goes elsewhere.
    fn change_one_link(&self, api: &Node, edge: &Node) {
        let link = self.rows.links / 2;
        let mut clicks = Connection::to(edge.clicks);
        let click = Request::click(&format!("/sl?id={link}&aff_id=7"));
        let before = edge.cpu_time();
        let url = format!("https://changed{}.example.com/", before.as_nanos());
        let began = Instant::now();
        let offer = api.create_offer(&url);
        api.post(
            "smart_link_offer.json",
            json!({"smart_link_id": link, "offer_id": offer, "priority": 0, "offer_weight": 1}),
        );
        wait(|| clicks.ask(&click).header("location").is_some_and(|location| location.starts_with(&url)));
        say("one link changed: written by the API and live at the edge", began);
        println!("    CPU time of the edge: {:.0} ms", (edge.cpu_time() - before).as_secs_f64() * 1e3);
        api.post("remove_smart_link_offer.json", json!({"smart_link_id": link, "offer_id": offer}));
        wait(|| clicks.ask(&click).header("location").is_some_and(|location| !location.starts_with(&url)));
    }

    /// An offer's destination, for each of its links.
    fn change_one_offer(&self, api: &Node, edge: &Node) {
        let offer = self.rows.offer_of(self.rows.links / 2, 0);
        let mut clicks = Connection::to(edge.clicks);
        let click = Request::click(&format!("/sl?id={}&aff_id=7", self.rows.links / 2));
        let before = edge.cpu_time();
        let began = Instant::now();
        let url = "https://moved.example.com/";
        api.post("update_offer.json", json!({"offer_id": offer, "offer_url": url}));
        wait(|| clicks.ask(&click).header("location").is_some_and(|location| location.starts_with(url)));
        say("one offer changed, on some 800 links: written by the API and live at the edge", began);
        println!("    CPU time of the edge: {:.0} ms", (edge.cpu_time() - before).as_secs_f64() * 1e3);
    }

    /// Clicks at an even pace, while something else is done. Each wait counts from the moment at which the click was due,
    /// so that a stall counts for every click that it kept.
    fn clicks(&self, edge: &Node, meanwhile: impl FnOnce()) -> Waits {
        let due = self.clicks_a_second * self.for_seconds;
        let address = edge.clicks;
        let links = self.rows.links;
        let began = Instant::now();
        let pace = Duration::from_secs(self.for_seconds).div_f64(due as f64);
        let clickers: Vec<_> = (0..CONNECTIONS)
            .map(|clicker| {
                thread::spawn(move || {
                    let mut connection = Connection::to(address);
                    let mut waits = Vec::new();
                    for nth in (clicker..due).step_by(CONNECTIONS as usize) {
                        let at = began + pace * nth as u32;
                        thread::sleep(at.saturating_duration_since(Instant::now()));
                        let link = 1 + nth * 7_919 % links;
                        let answer = connection.ask(&Request::click(&format!("/sl?id={link}&aff_id=7")));
                        assert_eq!(answer.status, 302, "{answer:?}");
                        waits.push(at.elapsed());
                    }
                    waits
                })
            })
            .collect();
        meanwhile();
        let mut waits: Vec<Duration> =
            clickers.into_iter().flat_map(|clicker| clicker.join().expect("no click was lost")).collect();
        waits.sort_unstable();
        Waits(waits)
    }
}

/// In ascending order.
struct Waits(Vec<Duration>);

impl Waits {
    /// In seconds.
    fn share(&self, share: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * share) as usize].as_secs_f64()
    }

    fn tell(&self, what: &str) {
        let [p50, p99, p999, most] = [0.5, 0.99, 0.999, 1.0].map(|share| self.share(share) * 1e3);
        println!(
            "{what}: {} of them, p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, most {most:.2} ms",
            self.0.len()
        );
    }
}

fn tell_memory(when: &str, edge: &Node, table: u64) {
    let (now, most) = edge.memory();
    println!(
        "memory {when}: table {:.0} MB; resident {:.0} MB, at the most {:.0} MB, which is {:.2} tables",
        table as f64 / 1e6,
        now as f64 / 1e6,
        most as f64 / 1e6,
        most as f64 / table as f64,
    );
}

fn say(what: &str, began: Instant) {
    println!("{what}: {:.3} s", began.elapsed().as_secs_f64());
}

/// Looks until it is so; a million links take longer than a test's patience.
fn wait(mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(180), "waited in vain");
        thread::sleep(Duration::from_millis(2));
    }
}

const CONNECTIONS: u64 = 8;
