//! Caps that people set, change and remove.

use std::sync::Arc;

use smartlink::routing::{Cap, Zone};
use smartlink::types::{CapInterval, CapKey, CapKind, OfferId};

use crate::events::Event;
use crate::random::{Random, SECOND, below, one_in, one_of};
use crate::world::{World, affiliate};

impl World {
    pub fn caps_change(&mut self) {
        // Now and then something fails at this very moment, before the ledger has heard of it or after.
        let fails = !self.is_calm && one_in(&mut self.random, 4);
        if fails && one_in(&mut self.random, 2) {
            self.ledger_fails();
        }
        let mut caps = Vec::clone(&self.caps);
        for _ in 0..1 + below(&mut self.random, 2) {
            self.change_one(&mut caps);
        }
        self.say(|| format!("caps are now {}", list(&caps)));
        self.caps = Arc::new(caps);
        self.alerting.extend(self.caps.iter().filter(|cap| cap.alert_only).map(|cap| cap.key));
        self.version += 1;
        // Nodes may hear of it before the ledger does.
        if one_in(&mut self.random, 2) {
            self.define();
        } else {
            let pause = 1 + below(&mut self.random, 6 * SECOND);
            let (version, caps) = (self.version, Arc::clone(&self.caps));
            self.after(pause, Event::LedgerHears { version, caps });
        }
        for edge in 0..self.edges.len() {
            let pause = 1 + below(&mut self.random, 2 * SECOND);
            let (version, caps) = (self.version, Arc::clone(&self.caps));
            self.after(pause, Event::EdgeHears { edge, version, caps });
        }
        if fails {
            let edge = self.some_edge();
            self.edge_fails(edge);
            self.ledger_fails();
        }
    }

    fn change_one(&mut self, caps: &mut Vec<Cap>) {
        let index = below(&mut self.random, caps.len() as u64) as usize;
        let can_lose_one = caps.len() > 1;
        let cap = &mut caps[index];
        match below(&mut self.random, 8) {
            0 if can_lose_one => self.removed.push(caps.remove(index)),
            0 | 1 => cap.amount += 1 + below(&mut self.random, 200),
            // What was granted stays granted until it is recalled; what the window may hold stays the larger amount.
            2 => cap.amount /= 2,
            3 => cap.amount = if cap.amount == 0 { 100 } else { 0 },
            4 => {
                self.told.toggles += 1;
                cap.alert_only = !cap.alert_only;
            }
            5 => {
                self.told.moves += 1;
                cap.zone = some_zone(&mut self.random);
            }
            6 if !self.removed.is_empty() => {
                let index = below(&mut self.random, self.removed.len() as u64) as usize;
                let mut again = self.removed.swap_remove(index);
                if one_in(&mut self.random, 2) {
                    again.amount = 1 + below(&mut self.random, 2 * again.amount + 1);
                }
                caps.push(again);
            }
            _ => {
                let is_known = |key: &CapKey| caps.iter().chain(&self.removed).any(|known| known.key == *key);
                let new =
                    some_caps(&mut self.random, self.offers).into_iter().find(|cap| !is_known(&cap.key));
                // Many that only alert: what nodes count of those before the ledger knows them must not be lost.
                let alert_only = one_in(&mut self.random, 2);
                caps.extend(new.map(|cap| Cap { alert_only, ..cap }));
            }
        }
    }
}

/// New York, and zones whose days end with its days in winter or always, an hour later, and at other times of its day.
fn some_zone(random: &mut Random) -> Zone {
    let name = one_of(
        random,
        &[
            "America/New_York",
            "America/New_York",
            "America/Bogota",
            "America/Chicago",
            "UTC",
            "Asia/Kolkata",
            "Pacific/Apia",
        ],
    );
    Zone::parse(name).expect("a zone")
}

pub fn some_caps(random: &mut Random, offers: u32) -> Vec<Cap> {
    let mut caps: Vec<Cap> = Vec::new();
    for offer in 1..=offers {
        for _ in 0..1 + below(random, 3) {
            let kind = if one_in(random, 3) { CapKind::Conversion } else { CapKind::Click };
            let interval = one_of(
                random,
                &[CapInterval::Daily, CapInterval::Daily, CapInterval::Lifetime, CapInterval::Monthly],
            );
            let affiliate = one_in(random, 4).then(|| affiliate(1));
            let key = CapKey { offer: OfferId::new(offer).expect("not 0"), affiliate, kind, interval };
            let most = match kind {
                CapKind::Click => one_of(random, &[10, 100, 300, 1_000, 3_000]),
                CapKind::Conversion => one_of(random, &[3, 10, 30, 100]),
            };
            let amount = 1 + below(random, most);
            let zone = if one_in(random, 4) {
                some_zone(random)
            } else {
                Zone::parse("America/New_York").expect("a zone")
            };
            let alert_only = one_in(random, 8);
            if !caps.iter().any(|cap| cap.key == key) {
                caps.push(Cap { key, amount, zone, alert_only });
            }
        }
    }
    caps
}

pub fn list(caps: &[Cap]) -> String {
    let each = |cap: &Cap| {
        let alerts = if cap.alert_only { ", alerts" } else { "" };
        format!("{} of {} in {}{alerts}", cap.amount, cap.key, cap.zone.name())
    };
    caps.iter().map(each).collect::<Vec<_>>().join("; ")
}
