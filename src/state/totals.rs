//! What all workers have counted together, for whoever draws it: the same sums as a scrape, as plain numbers. Asking
//! costs a click nothing: a worker's cells are read, and never written.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use crate::routing::{IdHasher, Outcome};
use crate::types::LinkId;

use super::counters::{Cell, ClickCount, Counters, lock};
use super::metrics::Metrics;

/// Clicks by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClickCounts([u64; ClickCount::COUNT]);

/// Sums over all workers, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub clicks: ClickCounts,
    /// Clicks for which the click log had no room.
    pub log_dropped: u64,
    /// Connections that are open on the click listeners.
    pub connections: u64,
}

/// By link: those that have series of their own.
pub type LinkTotals = HashMap<LinkId, ClickCounts, BuildHasherDefault<IdHasher>>;

impl ClickCounts {
    pub fn of(&self, count: ClickCount) -> u64 {
        self.0[count.index()]
    }

    /// Each kind of click, and how many there were.
    pub fn each(&self) -> impl Iterator<Item = (ClickCount, u64)> + '_ {
        ClickCount::all().map(|count| (count, self.of(count)))
    }

    pub fn all(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Clicks that an offer took.
    pub fn to_offers(&self) -> u64 {
        self.of(ClickCount::Decided(Outcome::Offer))
    }

    /// Clicks of persons that were sent to a fallback, or had none.
    pub fn to_fallbacks(&self) -> u64 {
        let decided =
            Outcome::ALL.into_iter().filter(|outcome| !matches!(outcome, Outcome::Offer | Outcome::Bot));
        let decided: u64 = decided.map(|outcome| self.of(ClickCount::Decided(outcome))).sum();
        decided + self.of(ClickCount::LocationTooLong)
    }

    /// Clicks routed to an offer among those that count: probes and bots do not. `None`: there was none.
    pub fn fill_rate(&self) -> Option<f64> {
        let (offers, fallbacks) = (self.to_offers(), self.to_fallbacks());
        (offers + fallbacks > 0).then(|| offers as f64 / (offers + fallbacks) as f64)
    }

    /// What was counted since an earlier look.
    pub fn since(&self, earlier: &ClickCounts) -> ClickCounts {
        // A worker's cells are read one after another: none goes back, and none is less than it was.
        ClickCounts(std::array::from_fn(|index| self.0[index].saturating_sub(earlier.0[index])))
    }

    pub(super) fn add(&mut self, counts: &[u64; ClickCount::COUNT]) {
        for (sum, count) in self.0.iter_mut().zip(counts) {
            *sum += count;
        }
    }
}

impl Metrics {
    /// Sums over all workers.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for worker in self.counters() {
            totals.clicks.add(&std::array::from_fn(|index| worker.clicks[index].read()));
            totals.log_dropped += worker.log_dropped.read();
            let closed: u64 = worker.closed.iter().map(Cell::read).sum();
            totals.connections += worker.opened.read().saturating_sub(closed);
        }
        totals
    }

    /// What was counted by link, and of all links beyond the bound together.
    pub fn link_totals(&self) -> (LinkTotals, ClickCounts) {
        let (mut links, mut others) = (LinkTotals::default(), ClickCounts::default());
        for worker in self.counters() {
            let counts = lock(&worker.by_id);
            for (&link, counts) in &counts.links {
                links.entry(link).or_default().add(counts);
            }
            others.add(&counts.other_links);
        }
        (links, others)
    }

    fn counters(&self) -> Vec<Arc<Counters>> {
        lock(&self.workers.counters).clone()
    }
}
