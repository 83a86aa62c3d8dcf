//! Postbacks at full speed: `cargo bench --bench conversions`.
//!
//! Two nodes on this machine, the ledger at the first. So many connections, each with a postback under way all the time,
//! first to the node of the ledger, then to the other. Every postback is another conversion, and all of them count into one
//! conversion cap. What is told: how many are answered a second, and how long one waits.
//!
//! Measured 2026-11-22 on a cloud VM of two virtual cores (Intel Xeon), on which both nodes and the senders ran; bench
//! profile; 102,400 postbacks on 256 connections, of two runs at a load average of 1.5 (5,000 a second are wanted):
//!
//! ```text
//!                       a second            p50         p99            most           CPU time of the node that is asked
//! the ledger here       14,500 to 14,900    16 ms       27 to 30 ms    51 to 76 ms    39 to 46 µs each
//! the ledger upstream   13,200 to 14,800    16 to 18    24 to 46       38 to 86       14 to 16
//! ```
//!
//! Beside compilers, at a load average of 8: 8,600 a second both ways, p50 25 ms, p99 90 ms.
//!
//! Conclusion: a commit carries some hundreds of them, so that the disk is not what bounds it; the cores are, of which the
//! senders take a good part.

#[path = "../tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use smartlink::click_id::{ClickIdKeys, Contents, NodeIdentity, WorkerIndex};
use smartlink::types::{AffiliateId, LinkId, OfferId, UnixMillis};
use support::http::{Connection, Request};
use support::node::{Node, Setup};

fn main() {
    // `cargo bench` says so; `cargo test` only wants to see that it runs.
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    let (connections, each) = if is_measured { (256, 400) } else { (8, 5) };

    let first = Setup::new().start_ready();
    let key = first.directory().join("data/click-id-key");
    let second = Setup::following(&first)
        .variable("SMARTLINK_CLICK_ID_KEY_FILE", key.to_str().expect("a path in UTF-8"))
        .start_ready();
    let offer = first.create_offer("https://shop.example.com/");
    let cap = json!({"offer_id": offer, "cap_type": "conversion", "cap_interval": "daily", "cap_amount": 1_000_000_000});
    first.post("offer_cap.json", cap);
    first.refresh();
    let keys = std::fs::read(&key).expect("the key of the click ids");
    let keys = ClickIdKeys::from_text(&keys).expect("the key of the click ids");
    for (worker, (name, node)) in
        [("the ledger here", &first), ("the ledger upstream", &second)].into_iter().enumerate()
    {
        let ids = Ids { keys: keys.clone(), worker, offer: OfferId::new(offer as u32).expect("an offer") };
        measure(name, node, &ids, connections, each);
    }
}

fn measure(name: &str, node: &Node, ids: &Ids, connections: u32, each: u32) {
    let before = node.cpu_time();
    let begun = Instant::now();
    let mut waits: Vec<Duration> = thread::scope(|scope| {
        let senders: Vec<_> = (0..connections)
            .map(|sender| {
                let requests = ids.requests(sender * each..(sender + 1) * each);
                scope.spawn(move || send(node.clicks, &requests))
            })
            .collect();
        senders.into_iter().flat_map(|sender| sender.join().expect("all are answered")).collect()
    });
    let (took, busy) = (begun.elapsed(), node.cpu_time() - before);
    waits.sort_unstable();
    let share = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{name}: {} on {connections} connections, {:.0} a second, p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms; {:.0} µs of CPU \
         each",
        waits.len(),
        waits.len() as f64 / took.as_secs_f64(),
        share(0.5),
        share(0.99),
        share(1.0),
        busy.as_secs_f64() * 1e6 / waits.len() as f64,
    );
    let counted = node.metrics().value("smartlink_conversions_total{result=\"counted\"}");
    assert_eq!(counted, waits.len() as u64);
}

/// Sends one after the other on one connection, and tells how long each took.
fn send(address: SocketAddr, requests: &[Vec<u8>]) -> Vec<Duration> {
    let mut connection = Connection::to(address);
    requests
        .iter()
        .map(|request| {
            let begun = Instant::now();
            let answer = connection.ask_raw(request);
            assert_eq!((answer.status, answer.body.as_str()), (200, "SUCCESS\n"), "{answer:?}");
            begun.elapsed()
        })
        .collect()
}

/// Makes the ids of clicks that nobody made.
struct Ids {
    keys: ClickIdKeys,
    worker: usize,
    offer: OfferId,
}

impl Ids {
    fn requests(&self, sequences: std::ops::Range<u32>) -> Vec<Vec<u8>> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        sequences
            .map(|sequence| {
                let contents = Contents {
                    at: UnixMillis(since.as_millis() as i64),
                    node: NodeIdentity::new(1),
                    worker: WorkerIndex::new(self.worker).expect("a worker"),
                    sequence,
                    link: LinkId::new(301).expect("a link"),
                    affiliate: AffiliateId::new(67890).expect("an affiliate"),
                    offer: Some(self.offer),
                };
                let id = self.keys.sign(contents);
                Request::click(&format!("/p.ashx?r={}&t={sequence}", id.as_str())).to_bytes()
            })
            .collect()
    }
}
