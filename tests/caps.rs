//! Caps over real processes: edges that share a ledger, clicks at full speed, and kill -9 in between.
//!
//! `CLICKS=50000 KILLS=100 cargo test --release --test caps` makes it hard; `.ci/run` does a part of that.

mod support;

use std::env;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::http::{Answer, Request};
use support::node::{Node, Setup};
use support::wait;

/// Without a click log: its tests are elsewhere, and the ledger's commits here would wait for the disk behind it.
fn unlogged(setup: Setup) -> Setup {
    setup.setting("click_log.enabled = false")
}

fn follower(ledger: &Node) -> Setup {
    unlogged(Setup::following(ledger))
}

/// The ledger and an edge in one node, with a link of one offer and a fallback.
fn ledger_node(setup: Setup) -> (Node, i64) {
    let node = setup.start_ready();
    let offer = node.create_offer("https://offer.example.com/");
    let link = json!({"affiliate_id": 7, "fallback_url": "https://fallback.example.com/"});
    assert_eq!(node.create_link(link), 1);
    node.attach(1, offer);
    (node, offer)
}

fn set_cap(node: &Node, offer: i64, amount: u64) {
    let cap =
        json!({"offer_id": offer, "cap_type": "click", "cap_interval": "lifetime", "cap_amount": amount});
    node.post("offer_cap.json", cap);
}

/// The state of the only cap.
fn state(node: &Node) -> Value {
    let target = format!("/api/2/offer_caps.json?api_key={}", node.key());
    node.admin("GET", &target).json()["response"]["offer_caps"][0].clone()
}

const CLICK: &str = "/sl?id=1&aff_id=7";

fn is_offer(answer: &Answer) -> bool {
    assert_eq!(answer.status, 302, "{answer:?}");
    answer.location().starts_with("https://offer.example.com/")
}

fn wait_until_reached(node: &Node) {
    wait::until("a click to reach the offer", || {
        let answer = node.click(CLICK);
        // Before the link is live, it leads nowhere.
        (answer.status == 302 && is_offer(&answer)).then_some(())
    });
}

/// One click may be capped while the next lease is on its way.
fn wait_until_capped(node: &Node) {
    wait::until("clicks to be capped", || (0..50).all(|_| !is_offer(&node.click(CLICK))).then_some(()));
}

/// Until nothing is left to be granted, and nobody spends what is leased.
fn wait_until_full(ledger: &Node, seen: &Seen) {
    wait::until("the cap to be full", || (state(ledger)["remaining"] == 0).then_some(()));
    let mut last = (u64::MAX, 0);
    wait::until("clicks to be capped everywhere", || {
        let (offers, all) = (seen.offers(), seen.all());
        if offers != last.0 {
            last = (offers, all);
        }
        (all > last.1 + 3_000).then_some(())
    });
}

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name)
        .ok()
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What clicks came to, by whoever sent them: what the visitors saw, not what the nodes say.
#[derive(Default)]
struct Seen {
    offers: AtomicU64,
    fallbacks: AtomicU64,
    done: AtomicBool,
}

/// Between two clicks of a client. Clients that never rest take a machine of two cores from everybody, the kernel's own
/// threads included: its disk then answers the ledger after seconds.
const REST: Duration = Duration::from_micros(200);

/// Sends the clients home when it goes, also when an assertion fails: the scope waits for them.
struct Ending<'a>(&'a Seen);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::Relaxed);
    }
}

impl Seen {
    fn offers(&self) -> u64 {
        self.offers.load(Ordering::Relaxed)
    }

    fn all(&self) -> u64 {
        self.offers() + self.fallbacks.load(Ordering::Relaxed)
    }

    /// Clicks over one connection after another, until it is done. Where the node is gone, it waits for it.
    fn click(&self, address: impl Fn() -> std::net::SocketAddr) {
        let request = Request::click(CLICK).to_bytes();
        while !self.done.load(Ordering::Relaxed) {
            let Ok(mut connection) = support::http::Connection::try_to(address()) else {
                thread::sleep(Duration::from_millis(5));
                continue;
            };
            while !self.done.load(Ordering::Relaxed) && connection.send(&request).is_ok() {
                let Ok(answer) = connection.read() else { break };
                let seen = if is_offer(&answer) { &self.offers } else { &self.fallbacks };
                seen.fetch_add(1, Ordering::Relaxed);
                thread::sleep(REST);
            }
        }
    }
}

#[test]
fn three_edges_reach_a_cap_to_the_last_click_and_no_further() {
    const AMOUNT: u64 = 1_000;
    let clicks = number("CLICKS", 15_000);
    let (ledger, offer) = ledger_node(unlogged(Setup::new()));
    set_cap(&ledger, offer, AMOUNT);
    let (one, two) = (follower(&ledger).start_ready(), follower(&ledger).start_ready());
    let nodes = [&ledger, &one, &two];
    for node in nodes {
        wait::until_equal("caps on every edge", 1, || node.metrics().value("smartlink_snapshot_caps"));
    }
    let seen = Seen::default();
    thread::scope(|scope| {
        let ending = Ending(&seen);
        for node in nodes.iter().cycle().take(6) {
            scope.spawn(|| seen.click(|| node.clicks));
        }
        // A ledger waits for its disk, and a disk that others write to may take seconds.
        let begun = Instant::now();
        while (seen.all() < clicks || seen.offers() < AMOUNT) && begun.elapsed() < 4 * wait::DEADLINE {
            thread::sleep(Duration::from_millis(5));
        }
        drop(ending);
    });
    println!("{} clicks, {} reached the offer", seen.all(), seen.offers());
    assert_eq!(seen.offers(), AMOUNT);
    let told = |outcome| nodes.iter().map(|node| node.metrics().clicks(outcome)).sum::<u64>();
    assert_eq!(told("offer"), AMOUNT);
    assert_eq!(told("offer") + told("capped"), seen.all());
    let left = "smartlink_cap_remaining{offer_id=\"1\",affiliate_id=\"\",cap_type=\"click\",cap_interval=\"lifetime\"}";
    for node in nodes {
        let shown =
            || node.metrics().0.lines().find_map(|line| Some(line.strip_prefix(left)?.trim().to_owned()));
        wait::until_equal("every node to show what is left", Some("0".to_owned()), shown);
        assert_eq!(node.metrics().value(&left.replace("remaining", "amount")), AMOUNT);
    }
    wait::until_equal("the ledger to know all", (1_000, 0, 0), || {
        let state = state(&ledger);
        let count = |name: &str| state[name].as_u64().unwrap();
        (count("used"), count("leased"), count("remaining"))
    });
}

#[test]
fn edges_that_are_killed_take_what_they_held_and_nothing_more() {
    let kills = number("KILLS", 3);
    // So large that every life has something to spend.
    let amount = 400 * (kills + 1);
    let (ledger, offer) = ledger_node(unlogged(Setup::new()));
    set_cap(&ledger, offer, amount);
    let setups = [follower(&ledger), follower(&ledger)];
    let seen = Seen::default();
    let addresses: [AtomicU64; 2] = Default::default();
    let put =
        |index: usize, node: &Node| addresses[index].store(node.clicks.port().into(), Ordering::Relaxed);
    let mut nodes: Vec<Option<Node>> = setups.into_iter().map(|setup| Some(setup.start_ready())).collect();
    for (index, node) in nodes.iter().enumerate() {
        put(index, node.as_ref().unwrap());
    }
    thread::scope(|scope| {
        let ending = Ending(&seen);
        for address in addresses.iter().cycle().take(4) {
            let to = || ([127, 0, 0, 1], address.load(Ordering::Relaxed) as u16).into();
            let seen = &seen;
            scope.spawn(move || seen.click(to));
        }
        for kill in 0..kills as usize {
            // While it is spending.
            let before = seen.offers();
            let begun = Instant::now();
            while seen.offers() < before + 50 && begun.elapsed() < Duration::from_secs(3) {
                thread::sleep(Duration::from_millis(1));
            }
            let index = kill % 2;
            let setup = nodes[index].take().unwrap().kill();
            let node = setup.start_ready();
            put(index, &node);
            nodes[index] = Some(node);
            assert!(seen.offers() <= amount, "{} of {amount} after {kill} kills", seen.offers());
        }
        wait_until_full(&ledger, &seen);
        drop(ending);
    });
    let lost = amount - seen.offers().min(amount);
    println!("{kills} kills: {} of {amount} reached the offer, {lost} lost with the dead", seen.offers());
    assert!(seen.offers() <= amount, "{} of {amount}", seen.offers());
    // A node that has just started holds 100 at most, or what it spends in two seconds.
    assert!(seen.offers() > amount / 10, "nearly all was lost: {lost} of {amount}");
}

#[test]
fn a_ledger_that_is_killed_grants_nothing_twice() {
    let kills = number("KILLS", 3);
    let amount = 300 * (kills + 1);
    let (ledger, offer) = ledger_node(unlogged(Setup::new()));
    set_cap(&ledger, offer, amount);
    let (clicks, admin) = (ledger.clicks, ledger.admin);
    let edges = [follower(&ledger).start_ready(), follower(&ledger).start_ready()];
    let seen = Seen::default();
    thread::scope(|scope| {
        let ending = Ending(&seen);
        for edge in edges.iter().cycle().take(4) {
            scope.spawn(|| seen.click(|| edge.clicks));
        }
        let mut ledger = Some(ledger);
        for _ in 0..kills {
            let before = seen.offers();
            let begun = Instant::now();
            while seen.offers() < before + 50 && begun.elapsed() < Duration::from_secs(3) {
                thread::sleep(Duration::from_millis(1));
            }
            let setup = ledger.take().unwrap().kill();
            ledger = Some(setup.on(clicks, admin).start_ready());
            assert!(seen.offers() <= amount);
        }
        let ledger = ledger.unwrap();
        wait_until_full(&ledger, &seen);
        drop(ending);
    });
    println!("{kills} kills of the ledger: {} of {amount} reached the offer", seen.offers());
    // No edge died that held anything; the ledger's own edge took no clicks, and lost at most what it held.
    assert!(seen.offers() <= amount, "{} of {amount}", seen.offers());
    assert!(seen.offers() > amount / 4, "{} of {amount}", seen.offers());
}

#[test]
fn a_cap_that_is_raised_reopens_and_one_that_is_lowered_or_taken_away_is_heard_of() {
    let (ledger, offer) = ledger_node(unlogged(Setup::new()));
    set_cap(&ledger, offer, 5);
    let edge = follower(&ledger).start_ready();
    wait_until_reached(&edge);
    wait_until_capped(&edge);
    set_cap(&ledger, offer, 1_000_000);
    wait_until_reached(&edge);
    wait_until_reached(&ledger);
    // Below what was granted already: whoever holds something returns it.
    set_cap(&ledger, offer, 3);
    wait_until_capped(&edge);
    wait_until_capped(&ledger);
    ledger.post(
        "remove_offer_cap.json",
        json!({"offer_id": offer, "cap_type": "click", "cap_interval": "lifetime"}),
    );
    wait::until("all clicks to reach the offer", || {
        (0..200).all(|_| is_offer(&edge.click(CLICK))).then_some(())
    });
}

#[test]
fn a_node_that_is_told_to_stop_returns_what_it_holds() {
    let (ledger, offer) = ledger_node(unlogged(Setup::new()));
    set_cap(&ledger, offer, 40);
    let mut edge = follower(&ledger).start_ready();
    wait_until_reached(&edge);
    // Nobody's clicks but its own.
    edge.signal("INT");
    assert!(edge.wait_for_exit().success());
    let mut reached = 1;
    wait::until_equal("the others to reach the last click", 40, || {
        reached += i32::from(is_offer(&ledger.click(CLICK)));
        reached
    });
    assert!((0..50).all(|_| !is_offer(&ledger.click(CLICK))));
}

#[test]
fn without_a_ledger_capped_offers_close_and_all_others_are_routed() {
    let setup = Setup::new();
    std::fs::create_dir(setup.path().join("data")).unwrap();
    std::fs::write(setup.path().join("data/ledger.sqlite3"), "no database, ".repeat(1_000)).unwrap();
    let (node, offer) = ledger_node(setup);
    wait_until_reached(&node);
    node.wait_for_log(&["ERROR", "ledger.sqlite3", "cannot be used"]);
    set_cap(&node, offer, 1_000);
    wait_until_capped(&node);
    wait::until_equal("the gauge to say so", 0, || node.metrics().value("smartlink_ledger_reachable"));
    assert_eq!(node.readyz(), 200);
    assert_eq!(state(&node)["used"], Value::Null);
    let other = node.create_offer("https://other.example.com/");
    node.attach(1, other);
    wait::until("an offer without cap to be reached", || {
        node.click(CLICK).location().starts_with("https://other.example.com/").then_some(())
    });
}

#[test]
fn when_the_ledger_goes_away_leases_are_spent_and_then_offers_close() {
    let (ledger, offer) = ledger_node(unlogged(Setup::new()));
    set_cap(&ledger, offer, 1_000);
    let edge = follower(&ledger).start_ready();
    wait_until_reached(&edge);
    let (clicks, admin) = (ledger.clicks, ledger.admin);
    let setup = ledger.kill();
    let mut reached = 0;
    wait::until("the lease to be spent", || {
        let offer = is_offer(&edge.click(CLICK));
        reached += u64::from(offer);
        (!offer).then_some(())
    });
    assert!((1..=500).contains(&reached), "{reached}");
    wait::until_equal("the gauge to say so", 0, || edge.metrics().value("smartlink_ledger_reachable"));
    assert_eq!(edge.readyz(), 200);
    let ledger = setup.on(clicks, admin).start_ready();
    wait_until_reached(&edge);
    wait::until_equal("the gauge to say so", 1, || edge.metrics().value("smartlink_ledger_reachable"));
    drop(ledger);
}

#[test]
fn what_edges_held_of_a_ledger_that_was_moved_away_is_not_spent_beside_the_new_one() {
    let (ledger, offer) = ledger_node(unlogged(Setup::new()));
    set_cap(&ledger, offer, 1_000);
    let mut edge = follower(&ledger).start_ready();
    wait_until_reached(&edge);
    let (clicks, admin) = (ledger.clicks, ledger.admin);
    let setup = ledger.kill();
    for file in ["ledger.sqlite3", "ledger.sqlite3-wal"] {
        std::fs::rename(setup.path().join("data").join(file), setup.path().join(file)).unwrap();
    }
    let ledger = setup.on(clicks, admin).start_ready();
    edge.wait_for_log(&["WARN", "another ledger answers than before", "lower it by them"]);
    let mut reached = 0;
    wait::until("clicks on what the new ledger granted", || {
        reached += u64::from(is_offer(&edge.click(CLICK)));
        (reached == 50).then_some(())
    });
    edge.signal("TERM");
    edge.wait_for_exit();
    // Every one of them was granted by it, so it knows them; what the edge held beside was returned.
    wait::until_equal("the clicks to be known", 50, || state(&ledger)["used"].as_u64().unwrap());
    assert_eq!(edge.log().matches("another ledger answers").count(), 1);
}
