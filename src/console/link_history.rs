//! What was counted by link some minutes ago, for an hour: so that a list can say how links do now, and not since the
//! process began. In memory, bounded by the bound on links that have series of their own.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::routing::IdHasher;
use crate::state::LinkTotals;
use crate::types::{LinkId, UnixMillis};

/// The samples of the last hour.
#[derive(Debug, Default)]
pub struct LinkHistory(Mutex<VecDeque<(UnixMillis, Counts)>>);

type Counts = HashMap<LinkId, Filled, BuildHasherDefault<IdHasher>>;

/// Clicks of persons on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    pub to_offers: u64,
    pub to_fallbacks: u64,
}

/// Clicks by link, of some time.
#[derive(Debug, Default)]
pub struct Recent {
    /// How much time.
    pub over: Duration,
    by_link: Counts,
}

impl Filled {
    pub fn clicks(self) -> u64 {
        self.to_offers + self.to_fallbacks
    }

    /// `None`: there was no click.
    pub fn rate(self) -> Option<f64> {
        (self.clicks() > 0).then(|| self.to_offers as f64 / self.clicks() as f64)
    }
}

impl Recent {
    pub fn of(&self, link: LinkId) -> Filled {
        self.by_link.get(&link).copied().unwrap_or_default()
    }
}

impl LinkHistory {
    /// Notes what is counted by now.
    pub fn note(&self, at: UnixMillis, totals: &LinkTotals) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.back().is_some_and(|(last, _)| *last >= at) {
            // The clock was set back.
            samples.clear();
        }
        samples.retain(|(sampled, _)| at.0 - sampled.0 <= SPAN.as_millis() as i64);
        samples.push_back((at, totals.iter().map(|(&link, counts)| (link, filled(counts))).collect()));
    }

    /// What was counted in the last hour, or since the first sample.
    pub fn recent(&self, now: UnixMillis, totals: &LinkTotals) -> Recent {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = samples.iter().find(|(at, _)| now.0 - at.0 <= SPAN.as_millis() as i64);
        let since = |(&link, counts)| {
            let (now, then) = (filled(counts), from.and_then(|(_, counts)| counts.get(&link)));
            let then = then.copied().unwrap_or_default();
            let filled = Filled {
                to_offers: now.to_offers.saturating_sub(then.to_offers),
                to_fallbacks: now.to_fallbacks.saturating_sub(then.to_fallbacks),
            };
            (filled.clicks() > 0).then_some((link, filled))
        };
        let over = from.map_or(0, |(at, _)| now.0 - at.0);
        Recent {
            over: Duration::from_millis(u64::try_from(over).unwrap_or(0)),
            by_link: totals.iter().filter_map(since).collect(),
        }
    }
}

fn filled(counts: &crate::state::ClickCounts) -> Filled {
    Filled { to_offers: counts.to_offers(), to_fallbacks: counts.to_fallbacks() }
}

/// Between two samples.
pub const STEP: Duration = Duration::from_secs(300);

const SPAN: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::routing::{BotPolicy, Outcome, Table};
    use crate::state::{ClickCount, LiveTable, Metrics};

    #[test]
    fn what_came_in_the_last_hour_is_told_from_what_came_before() {
        let live = Arc::new(LiveTable::new(Table::empty(None, BotPolicy::Fallback)));
        let metrics = Metrics::new(10, live);
        let (worker, history, link) = (metrics.worker(), LinkHistory::default(), LinkId::new(1).unwrap());
        let click = |outcome| worker.click(ClickCount::Decided(outcome), Some(link), None);
        let at = |minutes: i64| UnixMillis(minutes * 60_000);
        history.note(at(0), &metrics.link_totals());
        click(Outcome::Offer);
        let recent = history.recent(at(3), &metrics.link_totals());
        assert_eq!((recent.over, recent.of(link).rate()), (Duration::from_secs(180), Some(1.0)));
        for minutes in (5..=90).step_by(5) {
            history.note(at(minutes), &metrics.link_totals());
        }
        assert_eq!(history.0.lock().unwrap().len(), 13);
        let recent = history.recent(at(91), &metrics.link_totals());
        assert_eq!((recent.of(link).rate(), recent.by_link.len()), (None, 0));
        click(Outcome::Capped);
        let recent = history.recent(at(91), &metrics.link_totals());
        assert_eq!(recent.of(link), Filled { to_offers: 0, to_fallbacks: 1 });
        assert!(recent.over <= SPAN && recent.over >= SPAN - STEP, "{:?}", recent.over);
    }
}
