//! The links in the orders in which they are looked at. To sort hundreds of thousands takes long, and a page that is open asks
//! again every few seconds: an order is kept while the links are the same ones, and one that goes by what is counted for a
//! moment. The moment is an argument.

use std::cmp::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::link_history::{Filled, Recent};
use super::names::{Links, NamedLink, fold};
use crate::state::Published;
use crate::types::{AffiliateId, LinkId};

/// The orders that were asked for of late.
#[derive(Debug, Default)]
pub struct LinkLists(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Of which the orders are.
    links: Links,
    /// Of the table that they were read from, if the upstream names none.
    generation: Option<u64>,
    /// The one that was asked for last is at the end.
    orders: Vec<Order>,
}

#[derive(Debug)]
struct Order {
    wanted: Wanted,
    /// Of the links that are meant, in order.
    indices: Arc<[u32]>,
    sorted_at: Duration,
}

/// Which links, and in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// A part of a name, a number, an affiliate's number; empty: all.
    pub typed: String,
    pub sort: Sort,
    pub descending: bool,
}

/// What the list is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Id,
    Name,
    Affiliate,
    Clicks,
    Fill,
}

/// The links that are meant.
#[derive(Debug)]
pub struct Found {
    links: Links,
    indices: Arc<[u32]>,
}

impl Sort {
    pub const ALL: [Sort; 5] = [Sort::Id, Sort::Name, Sort::Affiliate, Sort::Clicks, Sort::Fill];

    pub fn as_str(self) -> &'static str {
        match self {
            Sort::Id => "id",
            Sort::Name => "name",
            Sort::Affiliate => "affiliate",
            Sort::Clicks => "clicks",
            Sort::Fill => "fill",
        }
    }

    /// Which way round it is at first: the busiest first.
    pub fn begins_descending(self) -> bool {
        self == Sort::Clicks
    }

    /// Whether the order changes with every click.
    fn is_counted(self) -> bool {
        matches!(self, Sort::Clicks | Sort::Fill)
    }
}

impl LinkLists {
    /// The links that are wanted, of those that have names; if there is none, of those that are live. `recent` is asked for only
    /// if the order goes by it.
    pub fn find(
        &self,
        named: &Links,
        live: &Published,
        wanted: Wanted,
        now: Duration,
        recent: impl FnOnce() -> Recent,
    ) -> Found {
        let (links, generation) = match named.is_empty() {
            false => (Arc::clone(named), None),
            true => (self.live_links(live), Some(live.generation)),
        };
        if let Some(indices) = self.kept(&links, &wanted, now) {
            return Found { links, indices };
        }
        // Nobody waits for the lock meanwhile; two who want the same at once sort twice.
        let recent = if wanted.sort.is_counted() { recent() } else { Recent::default() };
        let indices: Arc<[u32]> = arranged(&links, &wanted, &recent).into();
        let order = Order { wanted, indices: Arc::clone(&indices), sorted_at: now };
        self.keep(&links, generation, order);
        Found { links, indices }
    }

    fn live_links(&self, live: &Published) -> Links {
        let kept = self.lock();
        if kept.generation == Some(live.generation) {
            return Arc::clone(&kept.links);
        }
        drop(kept);
        let unnamed =
            |(link, affiliate): (LinkId, AffiliateId)| NamedLink::unnamed(link.value(), affiliate.value());
        let mut links: Vec<NamedLink> = live.table.each_link().map(unnamed).collect();
        links.sort_unstable_by_key(|link| link.id);
        Arc::new(links)
    }

    fn kept(&self, links: &Links, wanted: &Wanted, now: Duration) -> Option<Arc<[u32]>> {
        let mut kept = self.lock();
        // What is kept is not freed: its address is nobody else's.
        if !Arc::ptr_eq(&kept.links, links) {
            return None;
        }
        let index = kept.orders.iter().position(|order| order.wanted == *wanted)?;
        let order = kept.orders.remove(index);
        if wanted.sort.is_counted() && now.saturating_sub(order.sorted_at) >= COUNTED_FOR {
            return None;
        }
        let indices = Arc::clone(&order.indices);
        kept.orders.push(order);
        Some(indices)
    }

    fn keep(&self, links: &Links, generation: Option<u64>, order: Order) {
        let mut kept = self.lock();
        let mut replaced = None;
        if !Arc::ptr_eq(&kept.links, links) {
            kept.orders.clear();
            replaced = Some(std::mem::replace(&mut kept.links, Arc::clone(links)));
        }
        kept.generation = generation;
        kept.orders.retain(|other| other.wanted != order.wanted);
        if kept.orders.len() >= ORDERS_MAX {
            kept.orders.remove(0);
        }
        kept.orders.push(order);
        drop(kept);
        // A long list takes a while to be freed; nobody waits for the lock meanwhile.
        drop(replaced);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Right after any panic: links are replaced where their orders are gone already.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Found {
    /// How many are meant.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Among how many.
    pub fn total(&self) -> usize {
        self.links.len()
    }

    /// Some of those that are meant, in order.
    pub fn range(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = &NamedLink> + Clone {
        self.indices[range].iter().map(|&index| &self.links[index as usize])
    }
}

/// Those that are meant, in order: indices of `links`, which are in the order of their ids.
fn arranged(links: &[NamedLink], wanted: &Wanted, recent: &Recent) -> Vec<u32> {
    let Wanted { typed, sort, descending } = wanted;
    let (folded, number) = (fold(typed), typed.parse().ok());
    let is_meant = |link: &NamedLink| typed.is_empty() || link.is_meant(&folded, number);
    let numbered = links.iter().zip(0_u32..);
    let mut found: Vec<u32> = numbered.filter(|(link, _)| is_meant(link)).map(|(_, index)| index).collect();
    let link = |index: u32| &links[index as usize];
    let turned = |order: Ordering| if *descending { order.reverse() } else { order };
    // Equals stay in the order of their ids.
    match sort {
        // They are in this order.
        Sort::Id if *descending => found.reverse(),
        Sort::Id => {}
        Sort::Name => found = by_key(found, |index| link(index).folded(), |a, b| turned(a.cmp(b))),
        Sort::Affiliate => found = by_key(found, |index| link(index).affiliate, |a, b| turned(a.cmp(&b))),
        Sort::Clicks | Sort::Fill => {
            // Most links of a large network had no click: those are in order already.
            let filled =
                |index: u32| LinkId::new(link(index).id).map_or(Filled::default(), |id| recent.of(id));
            let (mut clicked, others): (Vec<_>, Vec<_>) = found
                .into_iter()
                .map(|index| (filled(index), index))
                .partition(|(filled, _)| filled.clicks() > 0);
            // By clicks, they have the fewest; they have no fill rate, and come last in any case.
            let others_first = *sort == Sort::Clicks && !descending;
            match sort {
                Sort::Clicks => clicked.sort_by(|(a, _), (b, _)| turned(a.clicks().cmp(&b.clicks()))),
                _ => clicked.sort_by(|(a, _), (b, _)| turned(rate(*a).total_cmp(&rate(*b)))),
            }
            let (first, last) = if others_first { (others, clicked) } else { (clicked, others) };
            found = first.into_iter().chain(last).map(|(_, index)| index).collect();
        }
    }
    found
}

/// Sorts with the keys beside the indices: to follow an index at each comparison costs several times as much.
fn by_key<K: Copy>(
    indices: Vec<u32>,
    key: impl Fn(u32) -> K,
    compare: impl Fn(K, K) -> Ordering,
) -> Vec<u32> {
    let mut keyed: Vec<(K, u32)> = indices.into_iter().map(|index| (key(index), index)).collect();
    keyed.sort_by(|a, b| compare(a.0, b.0));
    keyed.into_iter().map(|(_, index)| index).collect()
}

fn rate(filled: Filled) -> f64 {
    filled.rate().unwrap_or_default()
}

/// Counts that are as old are shown.
const COUNTED_FOR: Duration = Duration::from_secs(1);

/// More than a few people look at; of a million links, an order is 4 MB.
const ORDERS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::link_history::LinkHistory;
    use super::*;
    use crate::routing::{BotPolicy, Outcome, Table};
    use crate::state::{ClickCount, LiveTable, Metrics, now};

    /// Links of ten affiliates, with names that repeat, in the order of their ids.
    fn links() -> Links {
        let link = |id: u32| NamedLink::named(id, id * 7 % 10, format!("Link {}", id * 13 % 40));
        Arc::new((1..=100).map(link).collect())
    }

    fn live() -> Arc<LiveTable> {
        Arc::new(LiveTable::new(Table::empty(None, BotPolicy::Fallback)))
    }

    /// Every third link has had clicks, some of which went to an offer.
    fn recent() -> Recent {
        let metrics = Metrics::new(1000, live());
        let worker = metrics.worker();
        for id in (3..=100).step_by(3) {
            for click in 0..id % 8 + 1 {
                let outcome = if click % 2 == 0 { Outcome::Offer } else { Outcome::Capped };
                worker.click(ClickCount::Decided(outcome), LinkId::new(id), None);
            }
        }
        LinkHistory::default().recent(now(), &metrics.link_totals())
    }

    fn wanted(typed: &str, sort: Sort, descending: bool) -> Wanted {
        Wanted { typed: typed.to_owned(), sort, descending }
    }

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn each_order_is_the_one_that_it_is_called() {
        let (links, live, recent) = (links(), live().current(), recent());
        let filled = |link: &NamedLink| recent.of(LinkId::new(link.id).unwrap());
        for (sort, descending) in Sort::ALL.into_iter().flat_map(|sort| [(sort, false), (sort, true)]) {
            for typed in ["", "LINK 1", "17", "no such"] {
                let mut expected: Vec<&NamedLink> =
                    links.iter().filter(|link| link.is_meant(&fold(typed), typed.parse().ok())).collect();
                let turned = |order: Ordering| if descending { order.reverse() } else { order };
                expected.sort_by(|a, b| {
                    let order = match sort {
                        Sort::Id => turned(a.id.cmp(&b.id)),
                        Sort::Name => turned(a.folded().cmp(b.folded())),
                        Sort::Affiliate => turned(a.affiliate.cmp(&b.affiliate)),
                        Sort::Clicks => turned(filled(a).clicks().cmp(&filled(b).clicks())),
                        Sort::Fill => match (filled(a).rate(), filled(b).rate()) {
                            (Some(a), Some(b)) => turned(a.total_cmp(&b)),
                            (a, b) => b.is_some().cmp(&a.is_some()),
                        },
                    };
                    order.then(a.id.cmp(&b.id))
                });
                let lists = LinkLists::default();
                let recent = || self::recent();
                let found = lists.find(&links, &live, wanted(typed, sort, descending), NOW, recent);
                let ids: Vec<u32> = found.range(0..found.len()).map(|link| link.id).collect();
                let expected: Vec<u32> = expected.iter().map(|link| link.id).collect();
                assert_eq!(ids, expected, "{sort:?} {descending} {typed:?}");
                assert_eq!(found.total(), 100);
            }
        }
    }

    #[test]
    fn an_order_is_kept_while_the_links_are_the_same_and_counts_for_a_moment() {
        let (mut links, live, lists, counted) =
            (links(), live().current(), LinkLists::default(), Cell::new(0));
        let find = |links: &Links, sort, now| {
            let recent = || {
                counted.set(counted.get() + 1);
                Recent::default()
            };
            lists.find(links, &live, wanted("link", sort, true), now, recent).indices
        };
        let before = [Sort::Name, Sort::Fill].map(|sort| find(&links, sort, NOW));
        let soon = NOW + COUNTED_FOR - Duration::from_millis(1);
        assert!(Arc::ptr_eq(&before[0], &find(&links, Sort::Name, NOW * 2)));
        assert!(Arc::ptr_eq(&before[1], &find(&links, Sort::Fill, soon)));
        assert_eq!(counted.get(), 1);
        assert!(!Arc::ptr_eq(&before[1], &find(&links, Sort::Fill, NOW + COUNTED_FOR)));
        assert_eq!(counted.get(), 2);
        // The upstream has one link more.
        Arc::make_mut(&mut links).push(NamedLink::named(101, 1, "A link".to_owned()));
        assert_eq!(find(&links, Sort::Name, NOW).len(), 101);
        assert_eq!(lists.lock().orders.len(), 1, "those of the links of before are gone");
    }

    #[test]
    fn so_many_orders_are_kept_and_the_one_that_nobody_asked_for_longest_goes() {
        let (links, live, lists) = (links(), live().current(), LinkLists::default());
        let find = |typed: &str| {
            lists.find(&links, &live, wanted(typed, Sort::Name, false), NOW, Recent::default).indices
        };
        let first = find("");
        for number in 1..ORDERS_MAX {
            find(&number.to_string());
        }
        let second = find("1");
        assert!(Arc::ptr_eq(&first, &find("")));
        find("one more");
        assert_eq!(lists.lock().orders.len(), ORDERS_MAX);
        assert!(Arc::ptr_eq(&first, &find("")) && Arc::ptr_eq(&second, &find("1")));
        assert!(lists.lock().orders.iter().all(|order| order.wanted.typed != "2"));
    }

    #[test]
    fn where_the_upstream_names_none_those_that_are_live_are_listed_anew_with_each_table() {
        let (table, lists) = (live(), LinkLists::default());
        let find = || {
            let id = wanted("", Sort::Id, false);
            lists.find(&Links::default(), &table.current(), id, NOW, Recent::default)
        };
        let before = find();
        assert!(Arc::ptr_eq(&before.links, &find().links));
        table.publish(Table::empty(None, BotPolicy::Fallback), Arc::default(), "a".to_owned(), now());
        assert!(!Arc::ptr_eq(&before.links, &find().links));
    }
}
