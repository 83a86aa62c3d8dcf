//! The ledger on a real server: what it grants, that a repeated request is granted once, and what it does when servers die.
//!
//! Needs a `redis-server` in the path, and passes without one unless `SMARTLINK_NEED_REDIS` is set. `REDIS_KILLS` says how
//! many primaries die in the test of it.

mod support;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use smartlink::ledger::{
    CapState, Conversion, LeaseItem, LeaseReply, LeaseRequest, LedgerError, Recorded, Standing, ValkeyLedger,
    ValkeyOptions,
};
use smartlink::routing::{Cap, Zone};
use smartlink::types::{AffiliateId, CapInterval, CapKey, CapKind, OfferId};
use support::node::Setup;
use support::redis_server::Server;
use support::wait;

// ---- servers --------------------------------------------------------------------------------------------------------

impl Server {
    fn ledger(&self) -> ValkeyLedger {
        self.ledger_with("")
    }

    fn ledger_with(&self, settings: &str) -> ValkeyLedger {
        let address = format!("redis://127.0.0.1:{}?{settings}", self.port);
        ValkeyLedger::new(ValkeyOptions::parse(&address).unwrap())
    }
}

const SYNCED: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

// ---- nodes ----------------------------------------------------------------------------------------------------------

/// A start of a node, and what it has heard.
#[derive(Clone)]
struct Node {
    ledger: ValkeyLedger,
    name: String,
    epoch: u64,
    sequence: u64,
    news: u64,
}

impl Node {
    fn new(ledger: &ValkeyLedger, name: &str) -> Self {
        Self { ledger: ledger.clone(), name: name.to_owned(), epoch: u64::MAX, sequence: 0, news: 0 }
    }

    fn request(&self, items: Vec<LeaseItem>) -> LeaseRequest {
        let (node, epoch, sequence) = (self.name.clone(), self.epoch, self.sequence);
        LeaseRequest { node, epoch, sequence, news_since: self.news, ledger: None, items }
    }

    async fn ask(&mut self, items: Vec<LeaseItem>) -> LeaseReply {
        self.sequence += 1;
        let reply = self.ledger.lease(self.request(items)).await.unwrap();
        assert_eq!(reply.sequence, self.sequence);
        self.news = reply.news;
        reply
    }

    /// Asks until it is answered, word for word.
    async fn insist(&mut self, items: Vec<LeaseItem>) -> LeaseReply {
        self.sequence += 1;
        let request = self.request(items);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.ledger.lease(request.clone()).await {
                Ok(reply) => {
                    self.news = reply.news;
                    return reply;
                }
                Err(error) if Instant::now() > deadline => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn grant(&mut self, cap: &Cap, wants: u64) -> u64 {
        self.ask(vec![wanting(cap, wants)]).await.grants[0].granted
    }

    /// Asks for nothing until it hears so of the cap.
    async fn hears(&mut self, cap: &Cap, flags: (bool, bool, bool)) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut heard = Vec::new();
        while Instant::now() < deadline {
            heard.extend(self.ask(vec![]).await.standings);
            let last = heard.iter().rev().find(|standing| standing.cap == cap.key);
            if last.is_some_and(|standing| self::flags(standing) == flags) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not {flags:?}, but {heard:?}");
    }
}

async fn counts(ledger: &ValkeyLedger, cap: &Cap) -> (u64, u64, u64) {
    let state = state(ledger, cap).await;
    (state.used, state.leased, state.remaining())
}

async fn state(ledger: &ValkeyLedger, cap: &Cap) -> CapState {
    ledger.state().await.unwrap().into_iter().find(|state| state.cap == cap.key).unwrap()
}

fn offer_cap(offer: u32, interval: CapInterval, amount: u64) -> Cap {
    let key = CapKey { offer: OfferId::new(offer).unwrap(), affiliate: None, kind: CapKind::Click, interval };
    Cap { key, amount, zone: Zone::parse("UTC").unwrap(), alert_only: false }
}

fn cap(amount: u64) -> Cap {
    offer_cap(1042, CapInterval::Lifetime, amount)
}

fn wanting(cap: &Cap, wants: u64) -> LeaseItem {
    LeaseItem { cap: cap.key, window: None, spent: 0, returned: 0, wants, holds: 0, counted: 0 }
}

fn settling(cap: &Cap, window: Option<i64>, spent: u64, returned: u64) -> LeaseItem {
    LeaseItem { cap: cap.key, window, spent, returned, wants: 0, holds: 0, counted: 0 }
}

fn flags(standing: &Standing) -> (bool, bool, bool) {
    (standing.closed, standing.wanted, standing.recalled)
}

const CLOSED: (bool, bool, bool) = (true, false, false);
const WANTED: (bool, bool, bool) = (false, true, false);
const RECALLED: (bool, bool, bool) = (false, false, true);
const OPEN: (bool, bool, bool) = (false, false, false);

/// Of clicks that needed no grant.
fn counting(cap: &Cap, counted: u64) -> LeaseItem {
    LeaseItem { counted, ..wanting(cap, 0) }
}

fn converted(number: u32, affiliate_id: u32) -> Conversion {
    Conversion {
        click_id: format!("click {number}"),
        event: 0,
        transaction: String::new(),
        offer_id: 1042,
        affiliate_id,
        smart_link_id: 301,
        clicked_at: 0,
        amount: Some("45.00".to_owned()),
    }
}

fn conversions_cap(affiliate: Option<u32>, amount: u64) -> Cap {
    let mut cap = cap(amount);
    cap.key.kind = CapKind::Conversion;
    cap.key.affiliate = affiliate.map(|id| AffiliateId::new(id).unwrap());
    cap
}

// ---- granting -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_grant_is_spent_returned_and_counted() {
    let Some(server) = Server::start(&[]) else { return };
    let (ledger, cap) = (server.ledger(), cap(100));
    ledger.define(vec![cap.clone()]).await.unwrap();
    let mut node = Node::new(&ledger, "a name, with spaces\nand more");
    let reply = node.ask(vec![wanting(&cap, 10)]).await;
    assert_eq!((reply.grants[0].window, reply.grants[0].granted, reply.grants[0].ends_in_ms), (0, 10, None));
    assert_eq!(counts(&ledger, &cap).await, (0, 10, 90));
    node.ask(vec![settling(&cap, Some(0), 4, 5)]).await;
    assert_eq!(counts(&ledger, &cap).await, (4, 1, 95));
    // Nobody can spend more than they hold.
    node.ask(vec![settling(&cap, None, 3, 7)]).await;
    assert_eq!(counts(&ledger, &cap).await, (5, 0, 95));
    // Half of an even share, by all that asked lately.
    assert_eq!(Node::new(&ledger, "b").grant(&cap, u64::MAX).await, 95 / 4);
    let unknown = offer_cap(7, CapInterval::Lifetime, 1);
    assert_eq!(node.ask(vec![wanting(&unknown, 1)]).await.grants, []);
}

#[tokio::test]
async fn a_request_that_is_repeated_is_granted_once() {
    let Some(server) = Server::start(&[]) else { return };
    let (ledger, daily) = (server.ledger(), offer_cap(1042, CapInterval::Daily, 100));
    let other = offer_cap(7, CapInterval::Monthly, 100);
    ledger.define(vec![daily.clone(), other.clone()]).await.unwrap();
    let mut node = Node::new(&ledger, "a");
    let first = node.ask(vec![wanting(&other, 5), wanting(&daily, 10)]).await;
    assert_eq!(first.grants.iter().map(|grant| grant.granted).collect::<Vec<_>>(), [5, 10]);
    node.news = 0;
    let request = node.request(vec![wanting(&other, 5), wanting(&daily, 10)]);
    // Of another connection, as after a restart of what carries it.
    let second = server.ledger().lease(request).await.unwrap();
    for (first, second) in first.grants.iter().zip(&second.grants) {
        assert_eq!((first.cap, first.window, first.granted), (second.cap, second.window, second.granted));
        assert!(second.ends_in_ms.unwrap() <= first.ends_in_ms.unwrap());
    }
    assert_eq!(counts(&ledger, &daily).await.1, 10);
    node.ask(vec![wanting(&daily, 1)]).await;
    node.sequence = 1;
    let stale = ledger.lease(node.request(vec![wanting(&daily, 1)])).await;
    assert_eq!(stale, Err(LedgerError::Stale { node: "a".to_owned(), sequence: 1, last: 2 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_tasks_of_two_nodes_spend_a_cap_to_the_last_click() {
    let Some(server) = Server::start(&[]) else { return };
    let cap = cap(1_000);
    let ledgers = [server.ledger(), server.ledger()];
    for ledger in &ledgers {
        ledger.define(vec![cap.clone()]).await.unwrap();
    }
    let tasks: Vec<_> = (0..10)
        .map(|task| {
            let mut node = Node::new(&ledgers[task % 2], &task.to_string());
            let cap = cap.clone();
            tokio::spawn(async move {
                let (mut granted, mut held) = (0, 0);
                loop {
                    let item = LeaseItem { spent: held, ..wanting(&cap, 7) };
                    held = node.ask(vec![item]).await.grants[0].granted;
                    granted += held;
                    if held == 0 {
                        return granted;
                    }
                }
            })
        })
        .collect();
    let mut granted = 0;
    for task in tasks {
        granted += task.await.unwrap();
    }
    assert_eq!(granted, 1_000);
    assert_eq!(counts(&ledgers[0], &cap).await, (1_000, 0, 0));
    Node::new(&ledgers[1], "late").hears(&cap, CLOSED).await;
}

// ---- definitions and standings --------------------------------------------------------------------------------------

#[tokio::test]
async fn another_node_hears_that_a_cap_is_full_and_that_it_was_raised() {
    let Some(server) = Server::start(&[]) else { return };
    let (ledger, other, mut cap) = (server.ledger(), server.ledger(), cap(2));
    ledger.define(vec![cap.clone()]).await.unwrap();
    other.define(vec![cap.clone()]).await.unwrap();
    let (mut node, mut far) = (Node::new(&ledger, "a"), Node::new(&other, "b"));
    assert_eq!(far.ask(vec![]).await.standings, []);
    node.grant(&cap, 1).await;
    node.grant(&cap, 1).await;
    let reply = node.ask(vec![settling(&cap, None, 2, 0)]).await;
    assert_eq!(reply.standings.iter().map(flags).collect::<Vec<_>>(), [CLOSED]);
    let told_at = Instant::now();
    far.hears(&cap, CLOSED).await;
    assert!(told_at.elapsed() < Duration::from_secs(1));
    // Heard once.
    assert_eq!(far.ask(vec![]).await.standings, []);

    cap.amount = 3;
    ledger.define(vec![cap.clone()]).await.unwrap();
    far.hears(&cap, OPEN).await;
    assert_eq!(far.grant(&cap, 5).await, 1);
    cap.amount = 0;
    ledger.define(vec![cap.clone()]).await.unwrap();
    node.hears(&cap, (true, false, true)).await;
    far.ask(vec![settling(&cap, None, 0, 1)]).await;
    node.hears(&cap, CLOSED).await;
}

#[tokio::test]
async fn what_is_wanted_and_what_is_recalled_is_told() {
    let Some(server) = Server::start(&[]) else { return };
    let (ledger, mut cap) = (server.ledger(), cap(8));
    ledger.define(vec![cap.clone()]).await.unwrap();
    let (mut hoarder, mut poor) = (Node::new(&ledger, "a"), Node::new(&ledger, "b"));
    while hoarder.grant(&cap, 100).await > 0 {}
    assert_eq!(hoarder.ask(vec![]).await.standings, []);
    let reply = poor.ask(vec![wanting(&cap, 1)]).await;
    assert_eq!((flags(&reply.standings[0]), reply.grants[0].granted), (WANTED, 0));
    hoarder.hears(&cap, WANTED).await;
    cap.amount = 5;
    ledger.define(vec![cap.clone()]).await.unwrap();
    hoarder.hears(&cap, (false, true, true)).await;
    // What was wanted is wanted for five seconds.
    hoarder.ask(vec![settling(&cap, None, 3, 0)]).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while hoarder.ask(vec![]).await.standings.iter().all(|standing| flags(standing) != RECALLED) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    hoarder.ask(vec![settling(&cap, None, 0, 5)]).await;
    assert_eq!(counts(&ledger, &cap).await, (3, 0, 2));
}

#[tokio::test]
async fn a_cap_that_is_removed_and_set_again_grants_nothing_twice() {
    let Some(server) = Server::start(&[]) else { return };
    let (ledger, mut cap) = (server.ledger(), offer_cap(1042, CapInterval::Monthly, 10));
    ledger.define(vec![cap.clone()]).await.unwrap();
    let mut node = Node::new(&ledger, "a");
    assert_eq!(node.grant(&cap, 5).await, 5);
    ledger.define(vec![]).await.unwrap();
    assert_eq!(ledger.state().await.unwrap(), []);
    assert_eq!(node.ask(vec![settling(&cap, None, 2, 0)]).await.grants[0].granted, 0, "it is known");
    cap.zone = Zone::parse("America/New_York").unwrap();
    ledger.define(vec![cap.clone()]).await.unwrap();
    assert_eq!(counts(&ledger, &cap).await, (2, 3, 5));
    // One that only alerts counts and never closes.
    cap.alert_only = true;
    ledger.define(vec![cap.clone()]).await.unwrap();
    let reply = node.ask(vec![counting(&cap, 50)]).await;
    assert!(reply.standings.iter().all(|standing| flags(standing) == OPEN), "{:?}", reply.standings);
    assert_eq!(state(&ledger, &cap).await.used, 52);
}

#[tokio::test]
async fn what_was_counted_without_a_grant_counts_whatever_the_cap_does_by_now() {
    let Some(server) = Server::start(&[]) else { return };
    let (ledger, mut cap) = (server.ledger(), cap(100));
    cap.alert_only = true;
    ledger.define(vec![cap.clone()]).await.unwrap();
    let (mut node, mut other) = (Node::new(&ledger, "a"), Node::new(&ledger, "b"));
    node.ask(vec![counting(&cap, 5)]).await;
    // The node is cut off, and counts on while the cap is made to close, and another node is granted some of it.
    cap.alert_only = false;
    ledger.define(vec![cap.clone()]).await.unwrap();
    assert_eq!(other.grant(&cap, 10).await, 10);
    let item = LeaseItem { wants: 4, ..counting(&cap, 80) };
    node.ask(vec![item.clone()]).await;
    let counted = counts(&ledger, &cap).await;
    assert_eq!(counted.0, 85);
    // Told again word for word, it is counted once.
    ledger.lease(node.request(vec![item])).await.unwrap();
    assert_eq!(counts(&ledger, &cap).await, counted);
    // Beside what was granted: of that, no more than was held.
    let held = counted.1 - 10;
    node.ask(vec![LeaseItem { spent: held + 2, ..counting(&cap, 2) }]).await;
    assert_eq!(counts(&ledger, &cap).await, (87 + held, 10, 3 - held));
    // A cap that was removed keeps its count.
    ledger.define(vec![]).await.unwrap();
    assert_eq!(node.ask(vec![counting(&cap, 7)]).await.grants[0].granted, 0, "it is known");
    ledger.define(vec![cap.clone()]).await.unwrap();
    assert_eq!(state(&ledger, &cap).await.used, 94 + held);
}

#[tokio::test]
async fn a_request_to_a_ledger_that_was_a_file_is_told_so_and_nothing_else() {
    let Some(server) = Server::start(&[]) else { return };
    let (ledger, cap) = (server.ledger(), cap(100));
    ledger.define(vec![cap.clone()]).await.unwrap();
    let mut node = Node::new(&ledger, "a");
    let first = node.ask(vec![wanting(&cap, 10)]).await;
    for (named, sequence) in [(0, 1), (1, 2), (u64::MAX, 9)] {
        let request = node.request(vec![LeaseItem { counted: 9, wants: 7, ..settling(&cap, None, 1, 2) }]);
        let request = LeaseRequest { ledger: Some(named), sequence, ..request };
        let reply = ledger.lease(request).await.unwrap();
        assert_eq!((reply.ledger, reply.sequence, reply.grants), (first.ledger, sequence, vec![]));
    }
    assert_eq!(counts(&ledger, &cap).await, (0, 10, 90));
    // Every user of a server is of one ledger, and so is whoever asks it in its name.
    let other = server.ledger();
    let request =
        LeaseRequest { ledger: Some(first.ledger), sequence: 2, ..node.request(vec![wanting(&cap, 5)]) };
    let reply = other.lease(request).await.unwrap();
    assert_eq!((reply.ledger, reply.grants[0].granted), (first.ledger, 5));
}

#[tokio::test]
async fn a_server_that_was_emptied_is_told_again_which_caps_there_are() {
    let Some(server) = Server::start(&[]) else { return };
    let (ledger, cap) = (server.ledger(), cap(10));
    ledger.define(vec![cap.clone()]).await.unwrap();
    let mut node = Node::new(&ledger, "a");
    node.grant(&cap, 5).await;
    server.command(&["FLUSHALL"]);
    server.command(&["SCRIPT", "FLUSH"]);
    let deadline = Instant::now() + Duration::from_secs(5);
    while node.ask(vec![wanting(&cap, 1)]).await.grants.is_empty() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_is_only_remembered_is_looked_at_and_changes_nothing() {
    let Some(server) = Server::start(&[]) else { return };
    let (ledger, other, mut cap) = (server.ledger(), server.ledger(), conversions_cap(None, 1));
    ledger.define(vec![cap.clone()]).await.unwrap();
    // It was more, and there was another.
    cap.amount = 50;
    let mut removed = conversions_cap(None, 7);
    removed.key.interval = CapInterval::Monthly;
    other.remember(vec![cap.clone(), removed.clone()]).await;
    let mut far = Node::new(&other, "b");
    assert_eq!(far.ask(vec![]).await.standings, []);
    ledger.record(vec![converted(1, 7)]).await.unwrap();
    far.hears(&cap, CLOSED).await;
    assert_eq!(other.state().await.unwrap(), ledger.state().await.unwrap());
    assert_eq!(counts(&other, &cap).await, (1, 0, 0));
    // Given by the upstream, it is told, and what was remembered beside it is no longer in force.
    ledger.define(vec![cap.clone(), removed]).await.unwrap();
    other.define(vec![cap.clone()]).await.unwrap();
    far.hears(&cap, OPEN).await;
    assert_eq!(ledger.state().await.unwrap().len(), 1);
}

#[test]
fn a_node_without_its_upstream_puts_no_old_cap_in_force() {
    let Some(server) = Server::start(&[]) else { return };
    let upstream = Setup::new().start_ready();
    let offer = upstream.create_offer("https://offer.example.com/");
    let link = json!({"affiliate_id": 7, "fallback_url": "https://fallback.example.com/"});
    assert_eq!(upstream.create_link(link), 1);
    upstream.attach(1, offer);
    let set = |upstream: &support::node::Node, amount: u64| {
        let cap =
            json!({"offer_id": offer, "cap_type": "click", "cap_interval": "lifetime", "cap_amount": amount});
        upstream.post("offer_cap.json", cap);
    };
    let caps = format!("smartlink:{{offer:{offer}}}:caps");
    let in_force = || {
        let cap = server.command(&["HGET", &caps, "click:lifetime:0"]);
        cap.split(' ').next().unwrap_or_default().to_owned()
    };
    let is_reached = |edge: &support::node::Node| {
        wait::until("a click to reach the offer", || {
            let answer = edge.click("/sl?id=1&aff_id=7");
            (answer.status == 302 && answer.location().starts_with("https://offer.")).then_some(())
        });
    };
    set(&upstream, 1_000);
    let edge = || {
        Setup::following(&upstream).setting(&format!("caps.ledger = \"redis://127.0.0.1:{}\"", server.port))
    };
    let (old, current) = (edge().start_ready(), edge().start_ready());
    is_reached(&old);
    let old = old.kill();
    set(&upstream, 500);
    wait::until_equal("the cap that was lowered", "500".to_owned(), in_force);
    current.kill();
    let (clicks, admin) = (upstream.clicks, upstream.admin);
    let upstream = upstream.kill();

    // Leases come after definitions: with the click, all that it tells was told.
    let old = old.start_ready();
    old.wait_for_log(&["routing from the last good snapshot"]);
    is_reached(&old);
    assert_eq!(in_force(), "500");

    let upstream = upstream.on(clicks, admin).start_ready();
    old.refresh();
    set(&upstream, 400);
    wait::until_equal("the cap that was lowered again", "400".to_owned(), in_force);
    // What it remembers is what the upstream has: that is as good as new.
    old.refresh();
    let old = old.kill();
    server.command(&["FLUSHALL"]);
    let old = old.start_ready();
    wait::until_equal("the cap that was confirmed", "400".to_owned(), in_force);
    is_reached(&old);
    assert!(old.metrics().value("smartlink_snapshot_refreshes_total{result=\"unchanged\"}") >= 1);
}

// ---- windows --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_window_that_is_over_begins_anew_beside_what_is_still_held() {
    let Some(server) = Server::start(&[]) else { return };
    let (ledger, cap) = (server.ledger(), offer_cap(1042, CapInterval::Daily, 10));
    ledger.define(vec![cap.clone()]).await.unwrap();
    let mut node = Node::new(&ledger, "a");
    assert_eq!(node.grant(&cap, 4).await, 4);
    let window = node.ask(vec![settling(&cap, None, 1, 0)]).await.grants[0].window;
    assert_eq!(counts(&ledger, &cap).await, (1, 3, 6));
    // It was yesterday; of what was granted then, the node may still spend two.
    let yesterday = window - 86_400;
    server.command(&[
        "HSET",
        "smartlink:{offer:1042}:caps",
        "click:daily:0",
        &format!("10 UTC 0 1 {yesterday} {window} 7 0"),
    ]);
    let held = "smartlink:{offer:1042}:held:click:daily:0";
    server.command(&["DEL", held]);
    let later = (window + 2 * 86_400) * 1000;
    for (holder, tokens, dead_after) in [("a", 2, later), ("dead", 3, window * 1000 - 2)] {
        let field = format!("{yesterday} {}:{holder}", u64::MAX);
        server.command(&["HSET", held, &field, &format!("{tokens} {dead_after}")]);
    }
    // As it stands, though nothing of it is written down yet.
    assert_eq!(counts(&ledger, &cap).await, (0, 2, 8));
    let reply = node.ask(vec![wanting(&cap, 100)]).await;
    assert_eq!((reply.grants[0].window, reply.grants[0].granted), (window, 4));
    node.ask(vec![settling(&cap, Some(yesterday), 1, 1)]).await;
    assert_eq!(counts(&ledger, &cap).await, (1, 4, 5));
}

/// A zone where it is noon or up to an hour later, and those an hour west and east of it: their day begins an hour later and
/// earlier.
fn around_noon() -> [Zone; 3] {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let east = 12 - seconds.rem_euclid(86_400) / 3_600;
    // In these names, west is +.
    [east, east - 1, east + 1].map(|east| Zone::parse(&format!("Etc/GMT{:+}", -east)).unwrap())
}

#[tokio::test]
async fn what_is_held_counts_to_the_end_of_a_window_that_another_zone_has_moved() {
    let Some(server) = Server::start(&[]) else { return };
    let [noon, west, east] = around_noon();
    // No window begins earlier than it did.
    for (zone, offer, moves_by) in [(west, 1042, 3_600), (east, 7, 0)] {
        let (ledger, mut cap) = (server.ledger(), offer_cap(offer, CapInterval::Daily, 10));
        cap.zone = noon.clone();
        ledger.define(vec![cap.clone()]).await.unwrap();
        let mut silent = Node::new(&ledger, "silent");
        let first = silent.ask(vec![wanting(&cap, 4)]).await.grants.remove(0);
        assert_eq!(first.granted, 4);
        cap.zone = zone;
        ledger.define(vec![cap.clone()]).await.unwrap();
        let mut other = Node::new(&ledger, "other");
        let moved = other.ask(vec![wanting(&cap, 0)]).await.grants.remove(0);
        assert_eq!(moved.window - first.window, moves_by);

        // The hours that the node was told of pass: the lease was over a moment ago.
        let held = format!("smartlink:{{offer:{offer}}}:held:click:daily:0");
        let field = format!("{} {}:silent", first.window, u64::MAX);
        assert!(server.command(&["HGET", &held, &field]).starts_with("4 "));
        let passed = "local time = redis.call('TIME')
            redis.call('HSET', KEYS[1], ARGV[1], '4 ' .. string.format('%.0f', tonumber(time[1]) * 1000 - 1))";
        server.command(&["EVAL", passed, "1", &held, &field]);
        // It may have spent them in what is one window by now.
        assert_eq!(counts(&ledger, &cap).await, (0, 4, 6));
        let mut granted = 0;
        while let more @ 1.. = other.grant(&cap, 10).await {
            granted += more;
        }
        assert_eq!(granted, 6);
        silent.ask(vec![settling(&cap, Some(first.window), 3, 1)]).await;
        assert_eq!(counts(&ledger, &cap).await, (3, 6, 1));
    }
}

#[tokio::test]
async fn what_outlives_a_window_that_another_zone_has_cut_short_counts_in_the_whole_next_one() {
    let Some(server) = Server::start(&[]) else { return };
    let [noon, _, east] = around_noon();
    let (ledger, mut cap) = (server.ledger(), offer_cap(1042, CapInterval::Daily, 10));
    cap.zone = noon;
    ledger.define(vec![cap.clone()]).await.unwrap();
    let mut silent = Node::new(&ledger, "silent");
    let first = silent.ask(vec![wanting(&cap, 4)]).await.grants.remove(0);
    assert_eq!(first.granted, 4);
    cap.zone = east.clone();
    ledger.define(vec![cap.clone()]).await.unwrap();
    assert_eq!(counts(&ledger, &cap).await, (0, 4, 6));
    let [caps, held] = ["caps", "held:click:daily:0"].map(|part| format!("smartlink:{{offer:1042}}:{part}"));
    let kept = server.command(&["HGET", &caps, "click:daily:0"]);
    let end: i64 = kept.split(' ').nth(5).unwrap().parse().unwrap();
    assert_eq!(kept, format!("10 {} 0 1 {} {end} 0 0", east.name(), first.window));
    assert_eq!(end, first.window + 23 * 3_600);

    // The same, a day earlier: this window ended eleven hours before the lease, and both before now.
    let yesterday = first.window - 86_400;
    let row = format!("10 {} 0 1 {yesterday} {} 7 0", east.name(), end - 86_400);
    server.command(&["HSET", &caps, "click:daily:0", &row]);
    server.command(&["DEL", &held]);
    for (holder, tokens, dead_after) in
        [("silent", 4, first.window * 1000 - 2), ("dead", 3, (end - 86_400) * 1000 - 2)]
    {
        let field = format!("{yesterday} {}:{holder}", u64::MAX);
        server.command(&["HSET", &held, &field, &format!("{tokens} {dead_after}")]);
    }
    assert_eq!(counts(&ledger, &cap).await, (0, 4, 6));
    let mut other = Node::new(&ledger, "other");
    let mut granted = 0;
    while let more @ 1.. = other.grant(&cap, 10).await {
        granted += more;
    }
    assert_eq!(granted, 6);
    silent.ask(vec![settling(&cap, Some(yesterday), 3, 1)]).await;
    assert_eq!(counts(&ledger, &cap).await, (3, 6, 1));
    // The hour in which what nobody asks about is forgotten changes nothing of it.
    server.command(&["HSET", &caps, "pruned_at", "0"]);
    silent.ask(vec![settling(&cap, Some(yesterday), 0, 0)]).await;
    assert_eq!(counts(&ledger, &cap).await, (3, 6, 1));
}

// ---- conversions ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_conversion_is_counted_once_into_every_cap_of_its_offer() {
    let Some(server) = Server::start(&[]) else { return };
    let (ledger, other) = (server.ledger(), server.ledger());
    let (all, own, others) =
        (conversions_cap(None, 500), conversions_cap(Some(67890), 2), conversions_cap(Some(5), 2));
    let caps = vec![all.clone(), own.clone(), others.clone()];
    ledger.define(caps.clone()).await.unwrap();
    other.define(caps).await.unwrap();
    let mut far = Node::new(&other, "b");
    far.ask(vec![]).await;
    let first = vec![converted(1, 67890), converted(1, 67890)];
    assert_eq!(ledger.record(first).await.unwrap(), [Recorded::Counted, Recorded::Repeated]);
    let mut event = converted(1, 67890);
    event.event = 2;
    let mut elsewhere = converted(2, 7);
    elsewhere.offer_id = 9;
    let second = vec![converted(1, 67890), event, elsewhere];
    assert_eq!(
        other.record(second).await.unwrap(),
        [Recorded::Repeated, Recorded::Counted, Recorded::Counted]
    );
    assert_eq!(counts(&ledger, &all).await, (2, 0, 498));
    assert_eq!(counts(&ledger, &own).await, (2, 0, 0));
    assert_eq!(counts(&ledger, &others).await, (0, 0, 2));
    Node::new(&ledger, "a").hears(&own, CLOSED).await;
    far.hears(&own, CLOSED).await;
    // Many at once, some of them twice.
    let many: Vec<Conversion> = (0..1_000).map(|number| converted(100 + number % 600, 7)).collect();
    let recorded = ledger.record(many).await.unwrap();
    let counted = recorded.iter().filter(|recorded| **recorded == Recorded::Counted).count();
    assert_eq!((recorded.len(), counted), (1_000, 600));
    assert_eq!(counts(&ledger, &all).await.0, 602);
}

// ---- servers that fail ----------------------------------------------------------------------------------------------

#[tokio::test]
async fn what_is_wrong_with_the_server_is_said_without_the_password() {
    let Some(server) = Server::start(&["--requirepass", "right"]) else { return };
    for (address, said) in [
        (format!("redis://:wrong-secret@127.0.0.1:{}", server.port), "refuses the user or the password"),
        (format!("redis://127.0.0.1:{}", server.port), "asks for a password"),
        ("redis://:secret@127.0.0.1:1".to_owned(), "check that the server runs"),
        ("redis+cluster://:secret@127.0.0.1:1,127.0.0.1:2".to_owned(), "check that the server"),
    ] {
        let ledger = ValkeyLedger::new(ValkeyOptions::parse(&address).unwrap());
        let error = ledger.define(vec![cap(1)]).await.unwrap_err().to_string();
        assert!(error.contains(said), "{address}: {error}");
        assert!(error.contains("127.0.0.1:") && !error.contains("secret"), "{error}");
    }
    let right = ValkeyOptions::parse(&format!("redis://:right@127.0.0.1:{}", server.port)).unwrap();
    ValkeyLedger::new(right).define(vec![cap(1)]).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_killed_and_started_again_grants_nothing_twice() {
    let Some(mut server) = Server::start(SYNCED) else { return };
    let (ledger, cap) = (server.ledger_with("learning_ms=500"), cap(1_000));
    ledger.define(vec![cap.clone()]).await.unwrap();
    let mut node = Node::new(&ledger, "a");
    let (mut spent, mut held) = (0, 0);
    for round in 0..20 {
        if round % 5 == 4 {
            server.kill();
            assert!(ledger.state().await.is_err());
            server.start_again();
        }
        let item = LeaseItem { spent: held, ..wanting(&cap, 5) };
        let granted = node.insist(vec![item]).await.grants[0].granted;
        spent += held;
        held = granted;
    }
    assert!(spent > 0);
    assert_eq!(counts(&ledger, &cap).await, (spent, held, 1_000 - spent - held));
}

#[tokio::test]
async fn after_a_restart_the_ledger_learns_what_it_forgot() {
    let Some(mut server) = Server::start(&["--appendonly", "yes", "--appendfsync", "no"]) else { return };
    let (ledger, cap) = (server.ledger_with("learning_ms=2000"), cap(100));
    ledger.define(vec![cap.clone()]).await.unwrap();
    let (mut node, mut told) = (Node::new(&ledger, "a"), Node::new(&ledger, "b"));
    assert_eq!(node.grant(&cap, 10).await, 10);
    assert_eq!(told.grant(&cap, 10).await, 10);
    server.kill();
    server.start_again();
    // One has ten more than the ledger knows, the other has told of five and that was lost.
    let holds = |holds, wants| LeaseItem { holds, ..wanting(&cap, wants) };
    assert_eq!(node.insist(vec![holds(20, 5)]).await.grants[0].granted, 0);
    assert_eq!(told.insist(vec![holds(5, 5)]).await.grants[0].granted, 0);
    assert_eq!(counts(&ledger, &cap).await, (5, 25, 70));
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.ask(vec![holds(20, 5)]).await.grants[0].granted == 0 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(counts(&ledger, &cap).await, (5, 30, 65));
}

#[tokio::test]
async fn nothing_is_granted_that_no_replica_has() {
    let Some(primary) = Server::start(&["--repl-diskless-sync-delay", "0"]) else { return };
    let port = primary.port.to_string();
    let Some(mut replica) = Server::start(&["--replicaof", "127.0.0.1", &port]) else { return };
    let settings = "replicas_to_wait=1&learning_ms=500";
    let (ledger, cap) = (primary.ledger_with(settings), cap(100));
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = ledger.define(vec![cap.clone()]).await {
        assert!(Instant::now() < deadline, "{error}");
    }
    let mut node = Node::new(&ledger, "a");
    assert_eq!(node.grant(&cap, 10).await, 10);
    let refused = replica.ledger().define(vec![cap.clone(), offer_cap(7, CapInterval::Daily, 1)]).await;
    assert!(refused.unwrap_err().to_string().contains("name the primary"));

    replica.kill();
    node.sequence += 1;
    let request = node.request(vec![wanting(&cap, 7)]);
    for _ in 0..2 {
        let refused = ledger.lease(request.clone()).await.unwrap_err().to_string();
        assert!(refused.contains("0 of 1 replicas"), "{refused}");
    }
    replica.start_again();
    let mut granted = ledger.lease(request.clone()).await;
    while granted.is_err() && Instant::now() < deadline {
        granted = ledger.lease(request.clone()).await;
    }
    assert_eq!(granted.unwrap().grants[0].granted, 7);
    assert_eq!(counts(&ledger, &cap).await, (0, 17, 83));

    // The primary dies, and the replica knows all that was granted.
    drop(primary);
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    let promoted = replica.ledger_with("learning_ms=500");
    promoted.define(vec![cap.clone()]).await.unwrap();
    node.ledger = promoted.clone();
    let reply = node.ask(vec![LeaseItem { holds: 17, ..wanting(&cap, 5) }]).await;
    assert_eq!(reply.grants[0].granted, 0);
    assert_eq!(counts(&promoted, &cap).await, (0, 17, 83));
}

#[tokio::test]
async fn a_replica_that_missed_grants_learns_of_them() {
    let Some(primary) = Server::start(&["--repl-diskless-sync-delay", "0"]) else { return };
    let port = primary.port.to_string();
    let Some(replica) = Server::start(&["--replicaof", "127.0.0.1", &port]) else { return };
    let (ledger, cap) = (primary.ledger(), cap(20));
    ledger.define(vec![cap.clone()]).await.unwrap();
    let mut node = Node::new(&ledger, "a");
    let mut held = node.grant(&cap, 5).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while !replica.command(&["EXISTS", "smartlink:{offer:1042}:held:click:lifetime:0"]).contains('1') {
        assert!(Instant::now() < deadline);
    }
    // What comes now, it does not hear.
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    while held < 20 {
        held += node.grant(&cap, 5).await;
    }
    drop(primary);

    let promoted = replica.ledger_with("learning_ms=1500");
    promoted.define(vec![cap.clone()]).await.unwrap();
    assert_eq!(counts(&promoted, &cap).await, (0, 5, 15));
    let mut other = Node::new(&promoted, "b");
    assert_eq!(other.grant(&cap, 5).await, 0);
    node.ledger = promoted.clone();
    let holds = |spent, holds| LeaseItem { spent, holds, ..wanting(&cap, 0) };
    node.ask(vec![holds(3, 17)]).await;
    assert_eq!(counts(&promoted, &cap).await, (3, 17, 0));
    let learned_at = Instant::now() + Duration::from_secs(2);
    while Instant::now() < learned_at {
        assert_eq!(other.grant(&cap, 5).await, 0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    node.ask(vec![LeaseItem { returned: 7, ..holds(0, 10) }]).await;
    assert_eq!(other.grant(&cap, 5).await, 1);
    assert_eq!(counts(&promoted, &cap).await, (3, 11, 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_wait_for_a_replica_together() {
    let Some(server) = Server::start(&[SYNCED, &["--repl-diskless-sync-delay", "0"]].concat()) else {
        return;
    };
    let port = server.port.to_string();
    let Some(_replica) = Server::start(&[SYNCED, &["--replicaof", "127.0.0.1", &port]].concat()) else {
        return;
    };
    let (ledger, cap) = (server.ledger_with("replicas_to_wait=1"), conversions_cap(None, 5_000));
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = ledger.define(vec![cap.clone()]).await {
        assert!(Instant::now() < deadline, "{error}");
    }
    let calls: Vec<_> = (0..2_000)
        .map(|number| {
            let ledger = ledger.clone();
            let conversion = Conversion { offer_id: 1042 + number % 20, ..converted(number, 7) };
            tokio::spawn(async move { ledger.record(vec![conversion]).await.unwrap() })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), [Recorded::Counted]);
    }
    assert_eq!(counts(&ledger, &cap).await, (100, 0, 4_900));
}

// ---- a cluster ------------------------------------------------------------------------------------------------------

struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    /// Three primaries with a replica each.
    async fn start() -> Option<Self> {
        let arguments =
            ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"];
        let arguments: Vec<&str> = arguments.iter().chain(SYNCED).copied().collect();
        let mut servers = Vec::new();
        for _ in 0..6 {
            servers.push(Server::start(&arguments)?);
        }
        let places = servers.iter().map(|server| format!("127.0.0.1:{}", server.port));
        let made = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(places)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        let cluster = Self { servers };
        cluster.settles().await;
        Some(cluster)
    }

    /// Until all agree that every slot is served, and every primary has its replica.
    async fn settles(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let is_well = self.servers.iter().all(|server| {
                let told = |words: &[&str]| server.try_command(words).unwrap_or_default();
                let replication = told(&["INFO", "replication"]);
                let is_paired = replication.contains("master_link_status:up")
                    || replication.contains("role:master") && replication.contains("state=online");
                is_paired && told(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
            });
            if is_well {
                return;
            }
            assert!(Instant::now() < deadline, "the cluster does not settle");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn ledger(&self) -> ValkeyLedger {
        let places: Vec<String> =
            self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        let address = format!("redis+cluster://{}?replicas_to_wait=1&learning_ms=1000", places.join(","));
        ValkeyLedger::new(ValkeyOptions::parse(&address).unwrap())
    }

    fn primaries(&self) -> Vec<usize> {
        let is_primary = |server: &Server| server.command(&["ROLE"]).contains("master");
        (0..self.servers.len()).filter(|&place| is_primary(&self.servers[place])).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn primaries_of_a_cluster_die_and_no_click_is_granted_twice() {
    let Some(mut cluster) = Cluster::start().await else { return };
    let kills: usize = std::env::var("REDIS_KILLS").map_or(2, |text| text.parse().unwrap());
    // Offers on all servers: caps that are soon full, and some that never are.
    let small: Vec<Cap> = (1..=6).map(|offer| offer_cap(offer, CapInterval::Lifetime, 1_000)).collect();
    let large: Vec<Cap> =
        (11..=16).map(|offer| offer_cap(offer, CapInterval::Lifetime, 1_000_000_000)).collect();
    let caps: Vec<Cap> = small.iter().chain(&large).cloned().collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let mut nodes = Vec::new();
    for number in 0..3 {
        let ledger = cluster.ledger();
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = ledger.define(caps.clone()).await {
            assert!(Instant::now() < deadline, "{error}");
        }
        let (caps, is_over, answered) = (caps.clone(), Arc::clone(&is_over), Arc::clone(&answered));
        let mut node = Node::new(&ledger, &format!("node {number}"));
        nodes.push(tokio::spawn(async move {
            let mut held = vec![0; caps.len()];
            let mut granted = vec![0; caps.len()];
            loop {
                let wants = if is_over.load(Ordering::Relaxed) { 0 } else { 10 };
                let items = caps.iter().zip(&held);
                let items =
                    items.map(|(cap, &held)| LeaseItem { spent: held, ..wanting(cap, wants) }).collect();
                let reply = node.insist(items).await;
                assert_eq!(reply.grants.len(), caps.len());
                answered.fetch_add(1, Ordering::Relaxed);
                for (place, grant) in reply.grants.iter().enumerate() {
                    held[place] = grant.granted;
                    granted[place] += grant.granted;
                }
                if wants == 0 {
                    return granted;
                }
            }
        }));
    }
    let goes_on = async |more: u64| {
        let (before, deadline) = (answered.load(Ordering::Relaxed), Instant::now() + Duration::from_secs(60));
        while answered.load(Ordering::Relaxed) < before + more {
            assert!(Instant::now() < deadline, "no answers");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    goes_on(10).await;
    for kill in 0..kills {
        let primaries = cluster.primaries();
        let killed = primaries[kill % primaries.len()];
        cluster.servers[killed].kill();
        let deadline = Instant::now() + Duration::from_secs(60);
        // Its replica is the primary by now.
        let is_failed_over = |cluster: &Cluster| {
            let others = cluster.servers.iter().enumerate().filter(|(place, _)| *place != killed);
            let roles = others.map(|(_, server)| server.try_command(&["ROLE"]).unwrap_or_default());
            roles.filter(|role| role.contains("master")).count() == 3
        };
        while !is_failed_over(&cluster) {
            assert!(Instant::now() < deadline, "no replica takes over");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cluster.servers[killed].start_again();
        cluster.settles().await;
        goes_on(10).await;
    }
    // Whatever learned has learned, and the small ones are full.
    let ledger = cluster.ledger();
    ledger.define(caps.clone()).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    for cap in &small {
        while state(&ledger, cap).await.remaining() > 0 {
            assert!(Instant::now() < deadline, "{:?}", state(&ledger, cap).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    is_over.store(true, Ordering::Relaxed);
    let mut granted = vec![0; caps.len()];
    for node in nodes {
        for (place, of_node) in node.await.unwrap().into_iter().enumerate() {
            granted[place] += of_node;
        }
    }
    for (cap, granted) in caps.iter().zip(granted) {
        assert_eq!(counts(&ledger, cap).await, (granted, 0, cap.amount - granted), "{}", cap.key);
        if cap.amount == 1_000 {
            assert_eq!(granted, 1_000, "{}", cap.key);
        }
    }
}
