//! What must hold: at every step, while all is well, and at the end.

use std::collections::HashMap;

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
    /// Clicks that were sent to the offer by edges that knew the cap as one that closes, and by all.
    charged: u64,
    charged_or_alerted: u64,
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
    /// It has counted without closing at some time, so that more than its amount may be used.
    has_alerted: bool,
    /// It was made to alert or to close, or was set or removed while it alerted: clicks that a node had counted and not
    /// told then are not held against it.
    forgets: bool,
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
        for cap in caps.iter().filter(|cap| cap.key.offer == offer && cap.key.kind == CapKind::Click) {
            if cap.key.affiliate.is_some_and(|of| of != affiliate) {
                continue;
            }
            // One that the ledger does not know yet, and that only alerts.
            let Some(seen) = self.seen.get_mut(&cap.key) else { continue };
            seen.charged_or_alerted += 1;
            if cap.alert_only {
                continue;
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
            if cap.key.interval == CapInterval::Daily && !self.has_steps && !seen.was_moved {
                let day = self.day(&cap.zone);
                *self.by_wall.entry((cap.key, day)).or_default() += 1;
            }
        }
        self.may_convert(offer, affiliate);
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
        let wall = UnixMillis(self.wall_ms()).seconds();
        for cap in self.kept() {
            let ended =
                |seen: &Observed| seen.window != cap.window && seen.window.1.is_some_and(|end| end <= wall);
            let begins = self.seen.get(&cap.key).is_none_or(ended);
            if let Some(seen) = self.seen.get_mut(&cap.key) {
                seen.was_moved |= !begins && seen.window != cap.window;
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
            charged_or_alerted: 0,
            amount: 0,
            most: 0,
            counted: 0,
            is_closed: false,
            since: now,
            was_closed_told: false,
            has_one_window: true,
            was_moved: false,
            has_alerted: cap.alert_only,
            // Of one that is set later, nodes may know earlier than the ledger.
            forgets: now > 0 && cap.alert_only,
        });
        if begins && !is_first {
            self.told.rolls += 1;
            seen.charged = 0;
            seen.charged_or_alerted = 0;
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
        seen.forgets |=
            seen.has_alerted && !(cap.alert_only && cap.in_force) || !seen.has_alerted && cap.alert_only;
        seen.has_alerted |= cap.alert_only;
        seen.most = seen.most.max(cap.amount);
        match cap.key.kind {
            CapKind::Click => assert!(
                seen.has_alerted || cap.used + cap.leased <= seen.amount,
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
        for grant in &grants {
            *unsettled.entry(grant.cap).or_default() += grant.granted;
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

    /// What dead lives of edges were granted and have not settled.
    fn lost_with_the_dead(&self) -> HashMap<CapKey, u64> {
        let mut lost = HashMap::new();
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
                    "seed {}: at {} ms edge {index} does not know how {cap:?} stands since {} ms",
                    self.seed,
                    self.now / MS,
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
        if !edge.alive || edge.is_ending || edge.version != self.version {
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
            if seen.forgets || !seen.has_one_window {
                continue;
            }
            let charged = seen.charged_or_alerted;
            assert!(cap.used <= charged, "seed {seed}: {cap:?}, and {charged} were sent");
            if cap.in_force && !cap.alert_only {
                assert!(charged <= cap.used + cap.leased, "seed {seed}: {cap:?}, and {charged} were sent");
            }
            if self.deaths == 0 {
                self.told.exact += 1;
                assert_eq!((cap.used, cap.leased), (charged, 0), "seed {seed}: {cap:?}");
            }
        }
    }
}
