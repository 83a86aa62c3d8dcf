//! A panic ends the connection that it happened on, and nothing else: for tests alone, in which certain paths panic.
//!
//! No request is known to panic, so that these are the only ones that can. Where they are answered is where all requests are:
//! in the first turn of a connection, which is the acceptor's; in a plain turn; and under hyper.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use http::HeaderValue;

use super::{
    ClickAddress, ClickOptions, ConnectionLimits, ConversionOptions, Deadlines, Drained, HeadLimits, Options,
    Settings, Supplies, WhenLogIsFull, bind, draw_node_identity,
};
use crate::click_id::ClickIdKeys;
use crate::ledger::conversion_desk;
use crate::routing::{BotPolicy, NetSet, Table};
use crate::state::{Geo, LiveGeo, LiveTable, Metrics};

/// Called for every request.
pub(super) fn on_request(path: &str) {
    match path {
        PANIC => panic!("as a test has asked for"),
        // The thread does nothing else meanwhile.
        HOLD => {
            let (held, changed) = &THREAD;
            *held.lock().unwrap() = Held::Yes;
            changed.notify_all();
            let free = changed.wait_timeout_while(held.lock().unwrap(), PATIENCE, |held| *held == Held::Yes);
            assert!(!free.unwrap().1.timed_out(), "nobody has let the thread go");
        }
        _ => {}
    }
}

const PANIC: &str = "/of-a-test/panic";
const HOLD: &str = "/of-a-test/hold";

static THREAD: (Mutex<Held>, Condvar) = (Mutex::new(Held::No), Condvar::new());

#[derive(PartialEq, Eq)]
enum Held {
    No,
    Yes,
}

fn wait_until_held() {
    let (held, changed) = &THREAD;
    let is_held = changed.wait_timeout_while(held.lock().unwrap(), PATIENCE, |held| *held == Held::No);
    assert!(!is_held.unwrap().1.timed_out(), "the thread is not held");
}

fn let_go() {
    *THREAD.0.lock().unwrap() = Held::No;
    THREAD.1.notify_all();
}

/// Far beyond what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(30);

struct Client(TcpStream);

impl Client {
    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn send(&mut self, path: &str, header: &str) {
        self.0.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{header}\r\n").as_bytes()).unwrap();
    }

    /// A click on the empty table.
    fn is_served(&mut self, header: &str) {
        self.send("/sl?id=1&aff_id=2", header);
        self.has_answer("This link leads nowhere at the moment.\n");
    }

    fn has_answer(&mut self, end: &str) {
        let mut got = Vec::new();
        while !got.ends_with(end.as_bytes()) {
            let mut space = [0; 1024];
            let count = self.0.read(&mut space).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&got));
            got.extend_from_slice(&space[..count]);
        }
        assert!(got.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&got));
    }

    /// Without an answer.
    fn ends(mut self) {
        let mut got = Vec::new();
        // It is reset if something was unread.
        let _ = self.0.read_to_end(&mut got);
        assert!(got.is_empty(), "{}", String::from_utf8_lossy(&got));
    }
}

/// So that hyper reads it, and what comes after it.
const BY_HYPER: &str = "Content-Length: 0\r\n";

#[tokio::test]
async fn a_panic_ends_its_own_connection_alone() {
    let live = Arc::new(LiveTable::new(Table::empty(None, BotPolicy::Fallback)));
    let geo = Arc::new(LiveGeo::new(Geo { places: None, networks: None }));
    let metrics = Arc::new(Metrics::new(100, Arc::clone(&live)));
    let bound = bind(options(), Vec::new()).unwrap();
    let address = bound.addresses()[0].address;
    let keys = ClickIdKeys::from_text("5a".repeat(32).as_bytes()).unwrap();
    let supplies = Supplies {
        click_id_keys: &keys,
        node: draw_node_identity().unwrap(),
        table: &live,
        geo: &geo,
        metrics: &metrics,
        conversions: &conversion_desk().0,
        click_logs: Vec::new(),
        certificate: None,
    };
    let edge = bound.start(supplies).unwrap();
    let pulse = edge.pulse();
    let (mut plain, mut hyper) = (Client::to(address), Client::to(address));
    plain.is_served("");
    hyper.is_served(BY_HYPER);
    for round in 1..=5 {
        // In its first turn: it is there, and has asked, before the thread can accept it.
        let mut holds = Client::to(address);
        holds.is_served("");
        holds.send(HOLD, "");
        wait_until_held();
        pulse.ask();
        assert_eq!(pulse.silent(), ["edge-0"], "it hangs");
        let mut first_turn = Client::to(address);
        first_turn.send(PANIC, "");
        let_go();
        first_turn.ends();
        // The question waits for it.
        let begun = Instant::now();
        while !pulse.silent().is_empty() {
            assert!(begun.elapsed() < PATIENCE, "the thread does not answer");
            std::thread::sleep(Duration::from_millis(2));
        }
        holds.has_answer("aff_id=….\n");
        // In a later one, and behind an answer that is still to go out.
        let mut later_turn = Client::to(address);
        later_turn.is_served("");
        later_turn.send(PANIC, "");
        later_turn.ends();
        // Under hyper, from the first request on and behind another.
        let mut at_once = Client::to(address);
        at_once.send(PANIC, BY_HYPER);
        at_once.ends();
        let mut under_hyper = Client::to(address);
        under_hyper.is_served(BY_HYPER);
        under_hyper.send(PANIC, "");
        under_hyper.ends();
        for (client, header) in [(&mut plain, ""), (&mut hyper, BY_HYPER), (&mut Client::to(address), "")] {
            client.is_served(header);
        }
        let counted = format!("smartlink_connections_closed_total{{reason=\"panic\"}} {}", round * 4);
        wait_for(&metrics, &counted);
    }
    // Only those two are still there.
    wait_for(&metrics, "smartlink_connections_active 2");
    let drained = edge.drain(Duration::ZERO, PATIENCE).await;
    assert_eq!(drained, Drained::Clean);
    // One that has ended does not answer, either.
    pulse.ask();
    assert_eq!(pulse.silent(), ["edge-0"]);
}

fn wait_for(metrics: &Metrics, line: &str) {
    let begun = Instant::now();
    while !metrics.text().unwrap().lines().any(|other| other == line) {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {line} in\n{}", metrics.text().unwrap());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn options() -> Options {
    Options {
        listen: vec![ClickAddress {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: false,
            proxy_protocol: false,
        }],
        threads: 1,
        settings: Settings {
            click: ClickOptions {
                trusted_proxies: NetSet::new([]),
                referrer_policy: HeaderValue::from_static("no-referrer"),
                when_log_is_full: WhenLogIsFull::Serve,
            },
            deadlines: Deadlines { header: PATIENCE * 4, idle: PATIENCE * 4, write: PATIENCE * 4 },
            limits: ConnectionLimits {
                connections: 100,
                per_address: None,
                requests: None,
                age: None,
                head: HeadLimits::DEFAULT,
            },
        },
        conversion: ConversionOptions { click_age_max: Duration::from_secs(86_400) },
    }
}
