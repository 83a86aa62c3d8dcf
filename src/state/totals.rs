//! What all workers have counted together, for whoever draws it: the same sums as a scrape, as plain numbers. Asking
//! costs a click nothing: a worker's cells are read, and never written.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use crate::routing::{IdHasher, Outcome};
use crate::types::{LinkId, OfferId};

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

/// By offer, in the order of their ids.
pub type OfferTotals = BTreeMap<OfferId, u64>;

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

    /// What was counted of every link that has a series of its own.
    pub fn link_totals(&self) -> LinkTotals {
        let mut totals = LinkTotals::default();
        for worker in self.counters() {
            // A click may wait for the lock: what is under it is copied, and summed afterwards.
            let counts: Vec<_> = {
                let counts = lock(&worker.by_id);
                counts.links.iter().map(|(&link, counts)| (link, counts.outcomes)).collect()
            };
            for (link, counts) in counts {
                totals.entry(link).or_default().add(&counts);
            }
        }
        totals
    }

    /// The same of these links alone.
    pub fn totals_of(&self, links: &[LinkId]) -> LinkTotals {
        let mut totals = LinkTotals::default();
        for worker in self.counters() {
            let counts = lock(&worker.by_id);
            for link in links {
                if let Some(counts) = counts.links.get(link) {
                    totals.entry(*link).or_default().add(&counts.outcomes);
                }
            }
        }
        totals
    }

    /// The offers that took clicks of each of these links, and how many; none of a link that has no series of its own.
    pub fn offers_of(&self, links: &[LinkId]) -> Vec<OfferTotals> {
        let mut offers = vec![OfferTotals::default(); links.len()];
        for worker in self.counters() {
            let counts = lock(&worker.by_id);
            for (link, offers) in links.iter().zip(&mut offers) {
                for &(offer, count) in counts.links.get(link).map_or(&[][..], |counts| &counts.offers) {
                    *offers.entry(offer).or_default() += count;
                }
            }
        }
        offers
    }

    fn counters(&self) -> Vec<Arc<Counters>> {
        lock(&self.workers.counters).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::live::LiveTable;
    use super::*;
    use crate::routing::{BotPolicy, Table};

    fn metrics(links_max: usize) -> Metrics {
        let live = Arc::new(LiveTable::new(Table::empty(None, BotPolicy::Fallback)));
        Metrics::new(links_max, live)
    }

    fn ids(link: u32, offer: u32) -> (Option<LinkId>, Option<OfferId>) {
        (LinkId::new(link), OfferId::new(offer))
    }

    #[test]
    fn the_fill_rate_leaves_out_bots_and_probes() {
        let metrics = metrics(10);
        let worker = metrics.worker();
        assert_eq!(metrics.totals().clicks.fill_rate(), None);
        let (link, offer) = ids(1, 1);
        for _ in 0..3 {
            worker.click(ClickCount::Decided(Outcome::Offer), link, offer);
        }
        let before = metrics.totals().clicks;
        worker.click(ClickCount::Decided(Outcome::Capped), link, None);
        for not_counted in [ClickCount::Decided(Outcome::Bot), ClickCount::Probe, ClickCount::Invalid] {
            worker.click(not_counted, link, None);
        }
        let clicks = metrics.totals().clicks;
        assert_eq!((clicks.all(), clicks.to_offers(), clicks.to_fallbacks()), (7, 3, 1));
        assert_eq!(clicks.fill_rate(), Some(0.75));
        assert_eq!(clicks.since(&before).fill_rate(), Some(0.0));
        let link = link.unwrap();
        assert_eq!((metrics.link_totals()[&link], metrics.totals_of(&[link])[&link]), (clicks, clicks));
    }

    #[test]
    fn offers_are_counted_by_link_over_all_workers_and_lost_by_none() {
        let metrics = metrics(2);
        let workers = [metrics.worker(), metrics.worker()];
        let click = |worker: usize, link: u32, offer: u32| {
            let (link, offer) = ids(link, offer);
            workers[worker].click(ClickCount::Decided(Outcome::Offer), link, offer);
        };
        // More offers than have room beside a link, each of two workers with favourites of its own.
        for offer in 1..=100 {
            click(0, 1, offer);
            click(1, 1, 101 - offer);
        }
        for _ in 0..5 {
            click(0, 1, 60);
            click(1, 2, 60);
            click(1, 3, 60);
        }
        let [one, two, three] = [1, 2, 3].map(|link| LinkId::new(link).unwrap());
        let offers = metrics.offers_of(&[two, one, three]);
        let sixty = OfferId::new(60).unwrap();
        assert_eq!((offers[0][&sixty], offers[1][&sixty]), (5, 7));
        assert!(offers[2].is_empty(), "the third link has no series");
        assert_eq!(offers[1].values().sum::<u64>(), 64 * 2 + 5, "so many have room with each worker");
        let text = metrics.text().unwrap();
        assert!(text.contains("smartlink_offer_clicks_total{offer_id=\"60\"} 17\n"), "{text}");
        assert!(text.contains("smartlink_offer_clicks_total{offer_id=\"100\"} 2\n"), "{text}");
        assert!(text.contains("smartlink_offer_clicks_total{offer_id=\"1\"} 2\n"), "{text}");
    }
}
