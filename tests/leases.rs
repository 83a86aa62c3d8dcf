//! What nodes ask of the ledger, in ordinary times and when it is another: how often, and how much they leave to others.

use std::sync::Arc;

use rusqlite::Connection;
use smartlink::ledger::{CapState, Conversion, LeaseReply, LedgerTime, SqliteLedger};
use smartlink::routing::{Cap, CapView, ClosedReason, Zone};
use smartlink::state::{CapBook, CapCells, Caps};
use smartlink::sync::Leases;
use smartlink::types::{AffiliateId, CapInterval, CapKey, CapKind, OfferId, UnixMillis};

const MS: u64 = 1_000_000;

/// A node, how many times it was granted something, and how many times it heard of another ledger.
struct Node {
    cells: CapCells,
    book: CapBook,
    leases: Leases,
    grants: usize,
    changes: usize,
}

struct World {
    ledger: SqliteLedger,
    /// Milliseconds that have gone by.
    elapsed_ms: u64,
    /// By how much the ledger's wall clock was set forward.
    set_by_ms: i64,
    nodes: Vec<Node>,
    cap: Cap,
}

impl World {
    fn new(nodes: usize, amount: u64) -> Self {
        let key = CapKey {
            offer: OfferId::new(1042).unwrap(),
            affiliate: None,
            kind: CapKind::Click,
            interval: CapInterval::Daily,
        };
        let cap = Cap { key, amount, zone: Zone::parse("UTC").unwrap(), alert_only: false };
        let mut world = Self { ledger: empty_ledger(), elapsed_ms: 0, set_by_ms: 0, nodes: Vec::new(), cap };
        world.define(amount);
        for index in 0..nodes {
            let cells = CapCells::default();
            let book = cells.book(std::slice::from_ref(&world.cap));
            let mut leases = Leases::new(format!("node {index}"), index as u64);
            leases.know(&cells);
            world.nodes.push(Node { cells, book, leases, grants: 0, changes: 0 });
        }
        world
    }

    fn define(&mut self, amount: u64) {
        self.cap.amount = amount;
        self.ledger.define(std::slice::from_ref(&self.cap), self.time()).unwrap();
    }

    /// The cap is another by now, or there is none; the ledger and all nodes hear of it at once, but nothing is asked.
    fn redefine(&mut self, cap: Option<Cap>) {
        let caps: Vec<Cap> = cap.into_iter().collect();
        self.ledger.define(&caps, self.time()).unwrap();
        for node in &mut self.nodes {
            node.book = node.cells.book(&caps);
            node.leases.know(&node.cells);
        }
        self.cap = caps.into_iter().next().unwrap_or_else(|| self.cap.clone());
    }

    /// The ledger's file is moved away, and one begun anew in its place. Answers the old one.
    fn move_ledger_away(&mut self) -> SqliteLedger {
        let old = std::mem::replace(&mut self.ledger, empty_ledger());
        self.define(self.cap.amount);
        old
    }

    fn state(&mut self) -> CapState {
        let time = self.time();
        self.ledger.state(time).unwrap().remove(0)
    }

    fn time(&self) -> LedgerTime {
        // From 00:30 UTC on.
        let wall = UnixMillis(1_780_273_800_000 + self.elapsed_ms as i64 + self.set_by_ms);
        LedgerTime { wall, boot: 1, uptime_ms: 1_000_000 + self.elapsed_ms }
    }

    fn uptime(&self) -> u64 {
        (5_000_000 + self.elapsed_ms) * MS
    }

    /// One exchange with the ledger, which answers at once.
    fn exchange(&mut self, node: usize) {
        let (time, now) = (self.time(), self.uptime());
        let node = &mut self.nodes[node];
        let reply = self.ledger.lease(node.leases.request(now), time).unwrap();
        node.grants += reply.grants.iter().filter(|grant| grant.granted > 0).count();
        node.changes += usize::from(node.leases.answered(&reply, now, now));
    }

    fn click(&self, node: usize) -> bool {
        let caps = Caps::spending_at(&self.nodes[node].book, self.uptime());
        caps.charge(self.cap.key.offer, AffiliateId::new(7).unwrap()).is_some()
    }

    /// Why the offer takes no click, as the node knows it; `None`: it takes one.
    fn closed(&self, node: usize) -> Option<ClosedReason> {
        let caps = Caps::spending_at(&self.nodes[node].book, self.uptime());
        let closed = caps.closed_caps(self.cap.key.offer, AffiliateId::new(7).unwrap());
        closed.first().map(|cap| cap.reason)
    }

    /// How many clicks of so many a second reach the offer, node by node, in so many seconds. Every node looks four times
    /// a second, and when a click has missed a token.
    fn run(&mut self, seconds: u64, clicks_a_second: &[u64]) -> u64 {
        let mut reached = 0;
        for _ in 0..seconds * 1_000 {
            self.elapsed_ms += 1;
            for (node, rate) in clicks_a_second.iter().enumerate() {
                let of_this_ms = self.elapsed_ms * rate / 1_000 - (self.elapsed_ms - 1) * rate / 1_000;
                reached += (0..of_this_ms).filter(|_| self.click(node)).count() as u64;
                if self.elapsed_ms % 250 == node as u64 || self.cell(node).missed() {
                    self.exchange(node);
                }
            }
        }
        reached
    }

    fn cell(&self, node: usize) -> Arc<smartlink::state::CapCell> {
        self.nodes[node].cells.cell(self.cap.key).unwrap()
    }

    /// A node that knows a daily cap of one conversion as closed, ten seconds before the day ends.
    fn closed_by_a_conversion() -> Self {
        let mut world = Self::new(1, 0);
        world.elapsed_ms = 84_600_000 - 10_000;
        world.cap.key.kind = CapKind::Conversion;
        world.define(1);
        world.hear(vec![world.cap.clone()]);
        let conversion = Conversion {
            click_id: "one".to_owned(),
            event: 0,
            transaction: String::new(),
            offer_id: world.cap.key.offer.value(),
            affiliate_id: 7,
            smart_link_id: 301,
            clicked_at: world.time().wall.0,
            amount: None,
        };
        world.ledger.record(&[conversion], world.time()).unwrap();
        assert_eq!(world.reached_after_a_second(), 0);
        world
    }

    /// The first node takes up these caps, whatever the ledger knows.
    fn hear(&mut self, caps: Vec<Cap>) {
        let node = &mut self.nodes[0];
        node.book = node.cells.book(&caps);
        node.leases.know(&node.cells);
    }

    fn reached_after_a_second(&mut self) -> u64 {
        self.run(1, &[0]);
        self.run(1, &[10])
    }

    fn grants(&self) -> usize {
        self.nodes.iter().map(|node| node.grants).sum()
    }
}

fn empty_ledger() -> SqliteLedger {
    SqliteLedger::from_connection(Connection::open_in_memory().unwrap()).unwrap()
}

#[test]
fn ten_nodes_fill_a_cap_of_ten_thousand_with_few_grants() {
    for rate in [3, 30, 300, 3_000] {
        let mut world = World::new(10, 10_000);
        let seconds = 10_000 / (10 * rate) + 10;
        let reached = world.run(seconds, &[rate; 10]);
        println!("at {rate} clicks a second on each node: {reached} reached, {} grants", world.grants());
        assert_eq!(reached, 10_000, "at {rate} clicks a second");
        assert!(world.grants() <= 400, "{} grants at {rate} clicks a second", world.grants());
    }
}

#[test]
fn what_an_idle_node_holds_goes_to_whoever_has_clicks() {
    let mut world = World::new(3, 500);
    // All three take a first lease; then one alone has clicks.
    world.run(1, &[0, 0, 0]);
    assert!((0..3).all(|node| world.cell(node).tokens() > 0));
    assert_eq!(world.run(20, &[0, 200, 0]), 500);
    assert_eq!(world.run(5, &[50, 50, 50]), 0);
}

#[test]
fn a_cap_that_is_raised_opens_within_a_second_and_one_that_is_lowered_closes_within_it() {
    let mut world = World::new(3, 300);
    assert_eq!(world.run(10, &[100; 3]), 300);
    world.define(100_000);
    assert!(world.run(1, &[100; 3]) > 150);
    world.define(310);
    world.run(1, &[100; 3]);
    assert_eq!(world.run(5, &[100; 3]), 0);
    assert!((0..3).all(|node| world.cell(node).tokens() == 0), "everything was returned");
}

#[test]
fn a_node_tells_a_full_cap_from_one_of_which_it_holds_nothing() {
    let mut world = World::new(2, 1);
    assert_eq!(
        (world.closed(0), world.closed(1)),
        (Some(ClosedReason::Unknown), Some(ClosedReason::Unknown))
    );
    world.exchange(0);
    world.exchange(1);
    // The one click there is, is held by the first.
    assert_eq!((world.closed(0), world.closed(1)), (None, Some(ClosedReason::NoLease)));
    assert!(world.click(0));
    assert_eq!(world.closed(0), Some(ClosedReason::NoLease));
    world.run(1, &[0, 0]);
    assert_eq!((world.closed(0), world.closed(1)), (Some(ClosedReason::Full), Some(ClosedReason::Full)));
    // The day ends, before anybody has asked the ledger.
    world.elapsed_ms += 86_400_000;
    assert_eq!(
        (world.closed(0), world.closed(1)),
        (Some(ClosedReason::NoLease), Some(ClosedReason::NoLease))
    );
    world.run(1, &[10, 0]);
    world.define(2);
    world.run(2, &[0, 0]);
    assert!(world.closed(0) != Some(ClosedReason::Full), "what was raised is not full");
}

#[test]
fn at_midnight_the_next_window_opens_and_nothing_is_lost_of_it() {
    let mut world = World::new(3, 2_000);
    // Until ten seconds before midnight; then through it.
    world.elapsed_ms = 84_600_000 - 10_000;
    let before = world.run(10, &[20; 3]);
    assert!(before >= 580, "{before} of 600 clicks reached the offer before midnight");
    let after = world.run(20, &[200; 3]);
    assert_eq!(after, 2_000, "the whole of the next day");
}

#[test]
fn a_cap_that_was_full_is_asked_for_again_though_another_is_new_at_the_same_moment() {
    let mut world = World::new(1, 50);
    assert_eq!(world.run(3, &[100]), 50);
    assert_eq!(world.run(1, &[100]), 0);
    // Raised, and a cap of another offer beside it: the node hears of both at once.
    let key = CapKey { offer: OfferId::new(7).unwrap(), ..world.cap.key };
    world.cap.amount = 1_000;
    let caps = [world.cap.clone(), Cap { key, ..world.cap.clone() }];
    world.ledger.define(&caps, world.time()).unwrap();
    let node = &mut world.nodes[0];
    node.book = node.cells.book(&caps);
    node.leases.know(&node.cells);
    assert_eq!(world.run(20, &[100]), 950);
}

#[test]
fn a_full_cap_that_is_removed_and_set_again_is_open() {
    let mut world = World::new(2, 50);
    assert_eq!(world.run(3, &[100; 2]), 50);
    for caps in [vec![], vec![Cap { amount: 1_000, ..world.cap.clone() }]] {
        world.ledger.define(&caps, world.time()).unwrap();
        // One of the nodes hears of it, the other of the end alone.
        for node in world.nodes.iter_mut().skip(usize::from(caps.is_empty())) {
            node.book = node.cells.book(&caps);
            node.leases.know(&node.cells);
        }
        world.run(1, &[0; 2]);
    }
    assert_eq!(world.run(20, &[100; 2]), 950, "what was used before counts on");
}

#[test]
fn more_caps_than_one_request_has_room_for_are_all_leased() {
    let mut world = World::new(1, 100);
    let cap = |offer: u32| Cap {
        key: CapKey { offer: OfferId::new(offer).unwrap(), ..world.cap.key },
        ..world.cap.clone()
    };
    let caps: Vec<Cap> = (1..=5_000).map(cap).collect();
    world.ledger.define(&caps, world.time()).unwrap();
    let node = &mut world.nodes[0];
    node.book = node.cells.book(&caps);
    node.leases.know(&node.cells);
    for _ in 0..4 {
        world.elapsed_ms += 250;
        world.exchange(0);
    }
    let cells = world.nodes[0].cells.cells();
    assert!(cells.iter().filter(|(key, _)| key.offer.value() <= 5_000).all(|(_, cell)| cell.tokens() > 0));
}

#[test]
fn a_cap_that_is_raised_is_leased_before_the_first_click() {
    let mut world = World::new(3, 100);
    assert_eq!(world.run(3, &[100; 3]), 100);
    world.define(10_000);
    world.run(1, &[0; 3]);
    let held: Vec<u64> = (0..3).map(|node| world.cell(node).tokens()).collect();
    assert!(held.iter().all(|&tokens| tokens > 0), "every node holds something: {held:?}");
}

// ---- another ledger -------------------------------------------------------------------------------------------------

#[test]
fn what_an_old_ledger_granted_is_not_spent_beside_what_the_new_one_grants() {
    let mut world = World::new(3, 1_000);
    world.run(1, &[10; 3]);
    assert!((0..3).all(|node| world.cell(node).tokens() > 0));
    world.move_ledger_away();
    for node in 0..3 {
        world.exchange(node);
        assert_eq!((world.cell(node).tokens(), world.nodes[node].changes), (0, 1));
    }
    assert_eq!(world.state().leased, 0, "what was granted to nobody");
    assert_eq!(world.run(20, &[100; 3]), 1_000);
    assert_eq!(world.state().used, 1_000, "all of them are known to it");
    assert!(world.nodes.iter().all(|node| node.changes == 1), "it is told of once");
}

#[test]
fn a_token_of_an_old_ledger_that_is_given_back_is_lost() {
    let mut world = World::new(1, 1_000);
    world.run(1, &[10]);
    let book = std::mem::take(&mut world.nodes[0].book);
    let charge = Caps::spending_at(&book, world.uptime())
        .charge(world.cap.key.offer, AffiliateId::new(7).unwrap())
        .expect("a token");
    world.move_ledger_away();
    world.exchange(0);
    charge.give_back();
    assert_eq!(world.cell(0).tokens(), 0);
}

#[test]
fn a_request_to_an_old_ledger_is_nothing_to_the_new_one_and_its_answer_comes_too_late() {
    let mut world = World::new(1, 1_000);
    world.run(1, &[400]);
    (0..50).for_each(|_| assert!(world.click(0)));
    let (time, now) = (world.time(), world.uptime());
    let asked = world.nodes[0].leases.request(now).clone();
    assert!(asked.items[0].spent >= 50 && asked.ledger.is_some(), "{asked:?}");
    let mut old = world.move_ledger_away();
    // The old one has granted, and its answer is on its way while the request is repeated.
    let late = old.lease(&asked, time).unwrap();
    world.exchange(0);
    let state = world.state();
    assert_eq!((state.used, state.leased, world.nodes[0].changes), (0, 0, 1));
    world.nodes[0].leases.request(now);
    assert!(!world.nodes[0].leases.answered(&late, now, now));
    assert_eq!(world.cell(0).tokens(), 0);
    world.exchange(0);
    assert_eq!(world.cell(0).tokens(), world.state().leased);
    assert!(world.cell(0).tokens() > 0);
}

#[test]
fn a_ledger_that_comes_back_is_not_overspent_either() {
    let mut world = World::new(2, 1_000);
    let before = world.run(2, &[100; 2]);
    let old = world.move_ledger_away();
    let between = world.run(2, &[100; 2]);
    assert!(before > 300 && between > 300);
    world.ledger = old;
    let after = world.run(20, &[100; 2]);
    let state = world.state();
    assert!(before + after <= 1_000 && after > 0, "{before} before, {after} after");
    // What nodes held when it went away is lost, as that of a dead one: nobody can know whether it was spent.
    assert_eq!((state.used + state.leased, state.remaining()), (1_000, 0));
    assert!(world.nodes.iter().all(|node| node.changes == 2));
}

#[test]
fn a_node_that_ends_owes_a_new_ledger_nothing() {
    let mut world = World::new(1, 1_000);
    world.run(1, &[100]);
    world.move_ledger_away();
    world.nodes[0].leases.end();
    assert!(!world.nodes[0].leases.is_settled());
    world.exchange(0);
    assert!(world.nodes[0].leases.is_settled());
    assert_eq!(world.state().used, 0);
}

#[test]
fn a_cap_on_conversions_stays_closed_until_the_new_ledger_tells_of_it() {
    let mut world = World::new(1, 1);
    let key = CapKey { kind: CapKind::Conversion, ..world.cap.key };
    world.redefine(Some(Cap { key, ..world.cap.clone() }));
    let conversion = Conversion {
        click_id: "click 1".to_owned(),
        event: 0,
        transaction: String::new(),
        offer_id: 1042,
        affiliate_id: 7,
        smart_link_id: 301,
        clicked_at: 0,
        amount: None,
    };
    world.ledger.record(&[conversion], world.time()).unwrap();
    world.exchange(0);
    assert!(!world.click(0));
    world.move_ledger_away();
    world.exchange(0);
    assert!(!world.click(0), "nothing was told yet");
    world.exchange(0);
    assert!(world.click(0), "the new ledger knows of no conversion");
}

#[test]
fn the_first_ledger_is_no_change_and_news_of_a_new_one_are_heard_from_the_beginning() {
    let mut world = World::new(1, 50);
    assert_eq!(world.run(3, &[100]), 50);
    assert_eq!(world.nodes[0].changes, 0);
    // Full by what the node was told; the new one has all of it, and told nobody so.
    world.move_ledger_away();
    let heard = |world: &mut World| -> LeaseReply {
        let (time, now) = (world.time(), world.uptime());
        let request = world.nodes[0].leases.request(now).clone();
        assert_eq!(request.news_since == 0, world.nodes[0].changes == 1);
        let reply = world.ledger.lease(&request, time).unwrap();
        world.nodes[0].changes += usize::from(world.nodes[0].leases.answered(&reply, now, now));
        reply
    };
    assert_eq!(heard(&mut world).grants, []);
    assert!(heard(&mut world).grants[0].granted > 0);
    assert_eq!(world.nodes[0].changes, 1);
}

// ---- caps that alert and close by turns -----------------------------------------------------------------------------

/// A cap of 100 that only alerts, with 30 clicks of which the ledger has not heard.
fn alerting(nodes: usize) -> World {
    let mut world = World::new(nodes, 100);
    world.redefine(Some(Cap { alert_only: true, ..world.cap.clone() }));
    world.exchange(0);
    (0..30).for_each(|_| assert!(world.click(0)));
    world
}

#[test]
fn clicks_that_were_counted_before_a_cap_was_made_to_close_count_against_it() {
    let mut world = alerting(2);
    world.redefine(Some(Cap { alert_only: false, ..world.cap.clone() }));
    assert_eq!(world.run(20, &[20; 2]), 70);
    assert_eq!(world.state().used, 100);
}

#[test]
fn clicks_that_were_counted_before_a_cap_was_removed_count_when_it_is_set_again() {
    let mut world = alerting(1);
    let cap = Cap { alert_only: false, ..world.cap.clone() };
    world.redefine(None);
    assert!(!world.nodes[0].leases.is_settled());
    world.exchange(0);
    assert!(world.nodes[0].leases.is_settled());
    world.redefine(Some(cap));
    assert_eq!(world.run(20, &[20]), 70);
}

#[test]
fn what_is_held_of_a_cap_that_only_alerts_from_now_on_is_settled() {
    let mut world = World::new(2, 100);
    let closing = world.run(1, &[20; 2]);
    (0..5).for_each(|_| assert!(world.click(0)));
    assert!(world.cell(0).tokens() > 0);
    world.redefine(Some(Cap { alert_only: true, ..world.cap.clone() }));
    let alerting = world.run(5, &[50; 2]);
    assert_eq!(alerting, 500, "it closes nothing");
    (0..2).for_each(|node| world.exchange(node));
    assert_eq!((world.state().used, world.state().leased), (closing + 5 + alerting, 0));
}

#[test]
fn clicks_of_a_cap_that_its_keeper_has_not_met_are_told() {
    let mut world = World::new(1, 100);
    let alert = Cap { alert_only: true, ..world.cap.clone() };
    let key = CapKey { offer: OfferId::new(7).unwrap(), ..alert.key };
    let caps = [Cap { key, ..alert }];
    world.ledger.define(&caps, world.time()).unwrap();
    world.nodes[0].book = world.nodes[0].cells.book(&caps);
    let affiliate = AffiliateId::new(7).unwrap();
    for _ in 0..3 {
        assert!(
            Caps::spending_at(&world.nodes[0].book, world.uptime()).charge(key.offer, affiliate).is_some()
        );
    }
    let node = &mut world.nodes[0];
    node.leases.know(&node.cells);
    world.exchange(0);
    assert_eq!(world.state().used, 3);
}

#[test]
fn clicks_of_a_cap_that_its_ledger_has_not_heard_of_are_told_when_it_has() {
    let mut world = World::new(1, 100);
    let key = CapKey { offer: OfferId::new(7).unwrap(), ..world.cap.key };
    let alert = Cap { key, alert_only: true, ..world.cap.clone() };
    world.hear(vec![alert.clone()]);
    world.cap = alert.clone();
    (0..3).for_each(|_| assert!(world.click(0)));
    world.exchange(0);
    assert!(world.click(0));
    // Told again, and more; and once only, though the answer is lost.
    world.ledger.define(&[alert], world.time()).unwrap();
    let (time, now) = (world.time(), world.uptime());
    let told = world.nodes[0].leases.request(now).clone();
    world.ledger.lease(&told, time).unwrap();
    (0..3).for_each(|_| world.exchange(0));
    assert!(world.nodes[0].leases.is_settled());
    assert_eq!(world.state().used, 4);
}

#[test]
fn clicks_of_a_cap_of_which_no_ledger_will_hear_are_not_told_for_ever() {
    for ends in [false, true] {
        let mut world = World::new(1, 100);
        world.cap.key.offer = OfferId::new(7).unwrap();
        world.cap.alert_only = true;
        world.hear(vec![world.cap.clone()]);
        assert!(world.click(0));
        world.exchange(0);
        assert!(!world.nodes[0].leases.is_settled());
        match ends {
            true => world.nodes[0].leases.end(),
            false => world.hear(Vec::new()),
        }
        world.exchange(0);
        assert!(world.nodes[0].leases.is_settled());
    }
}

#[test]
fn clicks_that_an_old_ledger_was_told_and_did_not_answer_are_told_to_the_new_one() {
    let mut world = alerting(1);
    let (time, now) = (world.time(), world.uptime());
    let told = world.nodes[0].leases.request(now).clone();
    assert_eq!(told.items[0].counted, 30);
    let mut old = world.move_ledger_away();
    old.lease(&told, time).unwrap();
    (0..3).for_each(|_| world.exchange(0));
    assert_eq!((world.state().used, world.nodes[0].changes), (30, 1));
}

#[test]
fn a_cap_full_of_conversions_is_closed_when_it_is_set_again_though_the_ledger_hears_of_it_first() {
    let mut world = World::closed_by_a_conversion();
    world.ledger.define(&[], world.time()).unwrap();
    world.hear(Vec::new());
    assert_eq!(world.reached_after_a_second(), 10, "there is no cap");
    world.define(1);
    assert_eq!(world.reached_after_a_second(), 10, "the node knows of none");
    world.hear(vec![world.cap.clone()]);
    assert_eq!(world.reached_after_a_second(), 0);
}

#[test]
fn a_cap_full_of_conversions_stays_closed_when_its_window_ends_later_than_was_told() {
    // Its zone is another, in which the day has hours left; or somebody sets the ledger's clock back.
    for (zone, set_by_ms) in [("America/New_York", 0), ("UTC", -3_600_000)] {
        let mut world = World::closed_by_a_conversion();
        world.cap.zone = Zone::parse(zone).unwrap();
        world.set_by_ms = set_by_ms;
        world.define(1);
        world.run(20, &[0]);
        assert_eq!(world.reached_after_a_second(), 0, "{zone}, {set_by_ms} ms");
    }
}
