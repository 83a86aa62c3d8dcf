//! What must hold: at every step, while all is well, and at the end.

use std::collections::HashMap;
use std::sync::Arc;

use smartlink::ledger::{LeaseReply, LeaseRequest, Window};
use smartlink::routing::{Cap, Zone};
use smartlink::types::{AffiliateId, CapInterval, CapKey, CapKind, OfferId, UnixMillis};

use crate::edge::DRAIN;
use crate::events::Event;
use crate::ledger::Kept;
use crate::random::{MS, SECOND, True};
use crate::world::{ALL_IS_SPENT, ALL_IS_WELL, LINKS, LOOK_EVERY, World, affiliate, priority};

/// What was seen of a cap in the window that the ledger has begun.
pub struct Observed {
    window: (i64, Option<i64>),
    leased: u64,
    /// Clicks that were sent to the offer by edges that knew the cap as one that closes, and by those that knew it as one
    /// that only alerts.
    charged: u64,
    alerted: u64,
    /// The latter, in the windows before.
    alerted_before: u64,
    /// The greatest amount in force while it closed.
    amount: u64,
    /// The greatest amount ever.
    most: u64,
    /// Conversions that were written down.
    counted: u64,
    /// Whether conversions have it closed, and since when that is so.
    is_closed: bool,
    since: True,
    was_closed_told: bool,
    /// It had one window only, and every click that it counts was counted in that.
    has_one_window: bool,
    was_moved: bool,
}

/// How long a node with clicks may go without one that the ledger would grant.
const STUCK: u64 = 2 * SECOND;

/// How soon everybody knows that conversions have reached the amount.
const KNOWN_AFTER: u64 = SECOND;

/// How long a node may take to end, as in `sync/cap_keeper.rs`.
const FAREWELL: u64 = 2 * SECOND;

impl World {
    /// Counts a click that was sent to the offer, in every cap that should have known.
    pub fn charged(&mut self, offer: OfferId, affiliate: AffiliateId, edge: usize) {
        self.told.charges += 1;
        self.stuck_since.remove(&(edge, offer, affiliate));
        // The caps as the edge knows them.
        let caps = std::sync::Arc::clone(&self.edges[edge].caps);
        let speaks_to = self.edges[edge].ledger;
        let is_current = speaks_to.is_some() && speaks_to == self.ledger_identity;
        for cap in caps.iter().filter(|cap| cap.key.offer == offer && cap.key.kind == CapKind::Click) {
            if cap.key.affiliate.is_some_and(|of| of != affiliate) {
                continue;
            }
            if cap.alert_only {
                self.alerted(edge, cap.key);
                continue;
            }
            // Until it has heard of another ledger, it spends what the old one granted, and that holds of the old one's amount.
            let seen = if is_current { &mut self.seen } else { &mut self.seen_before };
            let seen = seen.get_mut(&cap.key).expect("some ledger has granted it");
            if is_current {
                let key = (edge, self.edges[edge].life, cap.key);
                let left = self.spendable.get_mut(&key).filter(|left| **left > 0);
                let Some(left) = left else {
                    panic!(
                        "seed {}: edge {edge} spends more of {} than this ledger granted it",
                        self.seed, cap.key
                    )
                };
                *left -= 1;
            }
            seen.charged += 1;
            assert!(
                seen.charged <= seen.amount,
                "seed {}: {} took {} of {} in the window {:?}",
                self.seed,
                cap.key,
                seen.charged,
                seen.amount,
                seen.window
            );
            let is_of_a_day = cap.key.interval == CapInterval::Daily && is_current;
            if is_of_a_day && !self.has_steps && !seen.was_moved {
                let day = self.day(&cap.zone);
                *self.by_wall.entry((cap.key, day)).or_default() += 1;
            }
        }
        self.may_convert(offer, affiliate);
    }

    /// Counts a click of a cap that only alerts.
    fn alerted(&mut self, index: usize, cap: CapKey) {
        let edge = &self.edges[index];
        // One that was there before the ledger was replaced may be told to the old one until it has heard of the new.
        let is_of_this_ledger = match edge.ledger {
            Some(ledger) => Some(ledger) == self.ledger_identity,
            None => edge.started_at >= self.replaced_at,
        };
        if !is_of_this_ledger {
            *self.may_be_told.entry(cap).or_default() += 1;
        } else if let Some(seen) = self.seen.get_mut(&cap) {
            seen.alerted += 1;
            *self.alerted_by.entry((index, cap)).or_default() += 1;
        } else {
            *self.unknown.entry((index, cap)).or_default() += 1;
            if edge.is_ending {
                self.may_drop(index, cap);
            }
        }
    }

    /// The edge may give up telling what it has counted of a cap that the ledger does not know: the cap is gone, or the edge
    /// ends.
    pub fn may_drop(&mut self, edge: usize, cap: CapKey) {
        if let Some(unknown) = self.unknown.remove(&(edge, cap)) {
            *self.may_be_told.entry(cap).or_default() += unknown;
        }
    }

    /// With an edge that dies, what it had counted and not told is lost.
    pub fn may_be_lost(&mut self, edge: usize) {
        for ((_, cap), alerted) in self.alerted_by.extract_if(|(of, _), _| *of == edge) {
            *self.may_be_told.entry(cap).or_default() += alerted;
            let seen = self.seen.get_mut(&cap).expect("it was counted there");
            // In this window or in those before.
            seen.alerted = seen.alerted.saturating_sub(alerted);
        }
        for ((_, cap), unknown) in self.unknown.extract_if(|(of, _), _| *of == edge) {
            *self.may_be_told.entry(cap).or_default() += unknown;
        }
    }

    /// The ledger is an empty one. What was counted by the old one is gone; what was counted of caps that only alert, and
    /// what of it was told, and to whom, only the edges know.
    pub fn forget_the_ledger(&mut self) {
        let old = std::mem::take(&mut self.seen);
        for (&cap, seen) in &old {
            *self.may_be_told.entry(cap).or_default() += seen.alerted_before + seen.alerted;
        }
        for ((_, cap), unknown) in self.unknown.drain() {
            *self.may_be_told.entry(cap).or_default() += unknown;
        }
        self.seen_before = old;
        self.replaced_at = self.now;
        self.unsettled.clear();
        self.granted_in_vain.clear();
        self.settled.clear();
        self.spendable.clear();
        self.by_wall.clear();
        self.alerted_by.clear();
    }

    /// The edge has heard that the ledger is another.
    pub fn heard_of_another(&mut self, index: usize, life: u64) {
        let edge = &self.edges[index];
        assert_eq!(edge.ledger, self.ledger_identity, "seed {}: no ledger comes back", self.seed);
        for (cap, cell) in edge.cells.cells() {
            assert_eq!(cell.tokens(), 0, "seed {}: edge {index} holds {cap} of the old ledger", self.seed);
        }
        // A first request names no ledger: the new one may have granted what the old one's answer to it was taken for.
        for (cap, tokens) in self.unsettled.remove(&(index, life)).unwrap_or_default() {
            *self.granted_in_vain.entry(cap).or_default() += tokens;
            self.spendable.remove(&(index, life, cap));
        }
    }

    fn day(&self, zone: &Zone) -> i64 {
        Window::at(CapInterval::Daily, zone, UnixMillis(self.wall_ms())).start
    }

    /// Notes what is on the ledger's disk after a request, or after conversions of which these were new.
    pub fn observe(&mut self, counted: &[(OfferId, AffiliateId)]) {
        for cap in self.kept() {
            let begins = self.seen.get(&cap.key).is_none_or(|seen| seen.window != cap.window);
            self.observe_one(&cap, begins, counted);
        }
    }

    /// The same after the caps were defined: a window may then have got other bounds without being another.
    pub fn observe_changes(&mut self) {
        let (wall_ms, caps) = (self.wall_ms(), Arc::clone(&self.caps));
        let wall = UnixMillis(wall_ms).seconds();
        for cap in self.kept() {
            let ended =
                |seen: &Observed| seen.window != cap.window && seen.window.1.is_some_and(|end| end <= wall);
            let begins = self.seen.get(&cap.key).is_none_or(ended);
            if let Some(seen) = self.seen.get_mut(&cap.key) {
                // A window that begins at the end of one of another zone is none of a day either.
                let of_zone = caps
                    .iter()
                    .find(|known| known.key == cap.key)
                    .map(|known| Window::at(known.key.interval, &known.zone, UnixMillis(wall_ms)).start);
                let begins_between = begins && of_zone.is_some_and(|start| start != cap.window.0);
                seen.was_moved |= begins_between || (!begins && seen.window != cap.window);
            }
            self.observe_one(&cap, begins, &[]);
        }
    }

    fn observe_one(&mut self, cap: &Kept, begins: bool, counted: &[(OfferId, AffiliateId)]) {
        let now = self.now;
        if begins {
            self.say(|| format!("{cap:?} begins a window"));
        }
        let is_first = !self.seen.contains_key(&cap.key);
        let seen = self.seen.entry(cap.key).or_insert_with(|| Observed {
            window: cap.window,
            leased: 0,
            charged: 0,
            alerted: 0,
            alerted_before: 0,
            amount: 0,
            most: 0,
            counted: 0,
            is_closed: false,
            since: now,
            was_closed_told: false,
            has_one_window: true,
            was_moved: false,
        });
        if is_first {
            // What edges have counted of it before the ledger knew of it.
            let of_cap = |(_, of): &(usize, CapKey), _: &mut u64| *of == cap.key;
            for (key, unknown) in self.unknown.extract_if(of_cap) {
                seen.alerted += unknown;
                self.alerted_by.insert(key, unknown);
            }
        }
        if begins && !is_first {
            self.told.rolls += 1;
            seen.charged = 0;
            seen.alerted_before += seen.alerted;
            seen.alerted = 0;
            seen.counted = 0;
            // What is carried into this window was granted while the last one's amount was in force.
            let carries = seen.leased > 0 && cap.used + cap.leased > 0;
            seen.amount = if carries { seen.amount } else { 0 };
            seen.has_one_window = false;
            seen.since = now;
        }
        seen.window = cap.window;
        seen.leased = cap.leased;
        if cap.closes() {
            seen.amount = seen.amount.max(cap.amount);
        }
        seen.most = seen.most.max(cap.amount);
        match cap.key.kind {
            CapKind::Click => assert!(
                self.alerting.contains(&cap.key) || cap.used + cap.leased <= seen.amount,
                "seed {}: {cap:?} has granted more than {}",
                self.seed,
                seen.amount
            ),
            CapKind::Conversion => {
                seen.counted += counted.iter().filter(|of| cap.counts(of.0, of.1)).count() as u64;
                assert_eq!(cap.used, seen.counted, "seed {}: {cap:?}", self.seed);
                let is_closed = cap.closes() && cap.used >= cap.amount;
                if is_closed != seen.is_closed {
                    seen.is_closed = is_closed;
                    seen.since = now;
                    seen.was_closed_told = false;
                }
            }
        }
    }

    /// Notes what a request has settled and was granted, once for each.
    pub fn granted(&mut self, edge: usize, life: u64, request: &LeaseRequest, reply: &LeaseReply) {
        let unsettled = self.unsettled.entry((edge, life)).or_default();
        for item in &request.items {
            let held = unsettled.entry(item.cap).or_default();
            *held = held.saturating_sub(item.spent + item.returned);
        }
        let grants: Vec<_> = reply.grants.iter().filter(|grant| grant.granted > 0).collect();
        let to = &self.edges[edge];
        // A first request that was late, so that it reached another ledger after the one that has answered it.
        let is_in_vain = to.life == life && to.asked > request.sequence;
        for grant in &grants {
            let of = if is_in_vain { &mut self.granted_in_vain } else { &mut *unsettled };
            *of.entry(grant.cap).or_default() += grant.granted;
            *self.spendable.entry((edge, life, grant.cap)).or_default() += grant.granted;
        }
        if grants.is_empty() {
            return;
        }
        for cap in self.kept() {
            assert!(
                !grants.iter().any(|grant| grant.cap == cap.key)
                    || cap.closes() && cap.used + cap.leased <= cap.amount,
                "seed {}: {cap:?} was granted beyond its amount: {grants:?}",
                self.seed
            );
        }
    }

    /// What dead lives of edges were granted and have not settled, and what was granted in vain.
    fn lost_with_the_dead(&self) -> HashMap<CapKey, u64> {
        let mut lost = self.granted_in_vain.clone();
        for (&(edge, life), caps) in &self.unsettled {
            if self.edges[edge].alive && self.edges[edge].life == life {
                continue;
            }
            for (&cap, tokens) in caps {
                *lost.entry(cap).or_default() += tokens;
            }
        }
        lost
    }

    /// What must be so by now, while nothing fails.
    pub fn look(&mut self) {
        if !self.is_well() || self.is_over {
            return;
        }
        let kept = self.kept();
        self.look_for_closed(&kept);
        self.look_for_stuck(&kept);
        if self.now < ALL_IS_WELL {
            return;
        }
        for (index, edge) in self.edges.iter().enumerate() {
            assert!(
                edge.alive && !edge.is_ending,
                "seed {}: edge {index} does not come to its end",
                self.seed
            );
        }
        self.full_looks = if self.is_all_full(&kept) { self.full_looks + 1 } else { 0 };
        assert!(self.now < ALL_IS_SPENT, "seed {}: not all is spent that could be: {kept:?}", self.seed);
        if self.full_looks == 5 {
            self.after(0, Event::AllEnd);
        }
    }

    /// Every edge knows which caps on conversions are closed.
    fn look_for_closed(&mut self, kept: &[Kept]) {
        let wall = UnixMillis(self.wall_ms()).seconds();
        for cap in kept.iter().filter(|cap| cap.key.kind == CapKind::Conversion) {
            let seen = self.seen.get_mut(&cap.key).expect("it was observed");
            // Nodes may know a moment earlier than the disk that a window has ended.
            let ends_soon = cap.window.1.is_some_and(|end| end <= wall + 1);
            for (index, edge) in self.edges.iter().enumerate() {
                let closes = |known: &&Cap| known.key == cap.key && !known.alert_only && known.amount > 0;
                let knows =
                    !edge.alive || edge.is_ending || !edge.caps.iter().any(|known| closes(&known)) || {
                        let cell = edge.cells.cell(cap.key).expect("it is in the book");
                        cell.is_closed(edge.clock.read(self.now)) == seen.is_closed
                    };
                if knows || !cap.in_force || ends_soon {
                    self.unaware_since.remove(&(index, cap.key));
                    continue;
                }
                let since = *self.unaware_since.entry((index, cap.key)).or_insert(self.now);
                assert!(
                    self.now < since + KNOWN_AFTER - LOOK_EVERY,
                    "seed {}: at {} ms edge {index} does not know that {cap:?} is {} since {} ms",
                    self.seed,
                    self.now / MS,
                    if seen.is_closed { "closed" } else { "open" },
                    seen.since / MS
                );
            }
            if seen.is_closed && !seen.was_closed_told && self.now >= seen.since + KNOWN_AFTER {
                seen.was_closed_told = true;
                self.told.closings += 1;
            }
        }
    }

    /// No edge has clicks for an offer, and none of them reaches it, while the ledger would grant.
    fn look_for_stuck(&mut self, kept: &[Kept]) {
        for index in 0..self.edges.len() {
            for (offer, affiliate) in self.offers_and_affiliates() {
                let key = (index, offer, affiliate);
                if !self.is_needlessly_closed(kept, index, offer, affiliate) {
                    self.stuck_since.remove(&key);
                    continue;
                }
                let since = *self.stuck_since.entry(key).or_insert(self.now);
                assert!(
                    self.now < since + STUCK,
                    "seed {}: at {} ms edge {index} sends nothing of {affiliate} to {offer}: {kept:?}, {:?}",
                    self.seed,
                    self.now / MS,
                    self.edges[index].leases
                );
            }
        }
    }

    fn offers_and_affiliates(&self) -> Vec<(OfferId, AffiliateId)> {
        let of_offer =
            |offer| (1..=LINKS).map(move |link| (OfferId::new(offer).expect("not 0"), affiliate(link)));
        (1..=self.offers).flat_map(of_offer).collect()
    }

    fn is_needlessly_closed(
        &self,
        kept: &[Kept],
        index: usize,
        offer: OfferId,
        affiliate: AffiliateId,
    ) -> bool {
        let edge = &self.edges[index];
        let knows_all = edge.version == self.version && self.ledger_version == self.version;
        if !edge.alive || edge.is_ending || !knows_all {
            return false;
        }
        // Behind an offer that is open, no other has clicks.
        let is_above = |id: u32| priority(id) < priority(offer.value());
        if (1..=self.offers).any(|id| is_above(id) && self.is_open(index, id, affiliate)) {
            return false;
        }
        // Without clicks nothing is missed.
        if self.now < ALL_IS_WELL && edge.clicks_a_second < 20 {
            return false;
        }
        let now = edge.clock.read(self.now);
        let mut lacks = false;
        for cap in kept.iter().filter(|cap| cap.closes() && cap.counts(offer, affiliate)) {
            if cap.key.kind == CapKind::Conversion {
                if cap.used >= cap.amount {
                    return false;
                }
                continue;
            }
            let has_token = edge.cells.cell(cap.key).is_some_and(|cell| cell.has_token(now));
            if !has_token && cap.free() == 0 {
                return false;
            }
            lacks |= !has_token;
        }
        lacks
    }

    /// Whether the edge would send a click to the offer.
    fn is_open(&self, index: usize, offer: u32, affiliate: AffiliateId) -> bool {
        let edge = &self.edges[index];
        let now = edge.clock.read(self.now);
        let counts =
            |cap: &&Cap| cap.key.offer.value() == offer && cap.key.affiliate.is_none_or(|of| of == affiliate);
        edge.caps.iter().filter(counts).filter(|cap| !cap.alert_only).all(|cap| {
            let cell = edge.cells.cell(cap.key).expect("it is in the book");
            match cap.key.kind {
                _ if cap.amount == 0 => false,
                CapKind::Click => cell.has_token(now),
                CapKind::Conversion => !cell.is_closed(now),
            }
        })
    }

    /// Whether nothing is left that a click could spend, but what is with the dead.
    fn is_all_full(&self, kept: &[Kept]) -> bool {
        let lost = self.lost_with_the_dead();
        let is_full = |cap: &&Kept| {
            let lost = lost.get(&cap.key).copied().unwrap_or(0);
            match cap.key.kind {
                _ if cap.amount == 0 => true,
                CapKind::Conversion => cap.used >= cap.amount,
                CapKind::Click => cap.used + cap.leased >= cap.amount && cap.leased <= lost,
            }
        };
        for link in 1..=LINKS {
            let mut open_tier = u32::MAX;
            for id in 1..=self.offers {
                let offer = OfferId::new(id).expect("not 0");
                // Behind an offer that never closes, no other has clicks.
                if priority(id) > open_tier {
                    break;
                }
                let caps: Vec<_> =
                    kept.iter().filter(|cap| cap.closes() && cap.counts(offer, affiliate(link))).collect();
                if caps.is_empty() {
                    open_tier = priority(id);
                } else if !caps.iter().any(is_full) {
                    return false;
                }
            }
        }
        true
    }

    pub fn all_end(&mut self) {
        self.is_over = true;
        self.say(|| "everybody is told to end".to_owned());
        for edge in 0..self.edges.len() {
            self.edge_ends(edge);
        }
        self.after(DRAIN + FAREWELL, Event::Ended);
    }

    /// After the end of all nodes: what came of the caps.
    pub fn judge(&mut self) {
        let seed = self.seed;
        for (index, edge) in self.edges.iter().enumerate() {
            assert!(!edge.alive && edge.leases.is_settled(), "seed {seed}: edge {index} has not ended");
        }
        if !self.has_steps {
            for ((cap, day), &count) in &self.by_wall {
                let seen = &self.seen[cap];
                assert!(seen.was_moved || count <= seen.most, "seed {seed}: {cap} took {count} on day {day}");
            }
        }
        let lost = self.lost_with_the_dead();
        for cap in self.kept() {
            if cap.key.kind == CapKind::Conversion {
                continue;
            }
            let lost = lost.get(&cap.key).copied().unwrap_or(0);
            assert!(cap.leased <= lost, "seed {seed}: {cap:?}, and {lost} with the dead");
            if cap.closes() && cap.used + cap.leased >= cap.amount {
                match cap.leased {
                    0 => self.told.filled += 1,
                    _ => self.told.short += 1,
                }
            }
            let seen = &self.seen[&cap.key];
            if !seen.has_one_window {
                continue;
            }
            // Of what edges counted of a cap that only alerts, some may not have been told to this ledger: it was told to one that
            // was replaced, or an edge died with it, or gave it up, because the cap was gone before the ledger knew it.
            let all = seen.charged + seen.alerted;
            let at_most = all + self.may_be_told.get(&cap.key).copied().unwrap_or(0);
            assert!(cap.used <= at_most, "seed {seed}: {cap:?}, and {at_most} were sent");
            assert!(all <= cap.used + cap.leased, "seed {seed}: {cap:?}, and {all} were sent");
            if at_most == all && lost == 0 {
                self.told.exact += 1;
                self.told.exact_alerts += u64::from(seen.alerted > 0);
                assert_eq!((cap.used, cap.leased), (all, 0), "seed {seed}: {cap:?}");
            }
        }
    }
}
