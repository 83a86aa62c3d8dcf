//! How the caps stand as this process has last seen them, and what of that is news to a node.
//!
//! Each process that uses the server numbers its own news: there is no order over the servers of a cluster. They are counted
//! from the moment it began, so that they are newer than those that a node has heard from an earlier process.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::ledger::caps::Flags;
use crate::ledger::message::Standing;
use crate::types::{CapKey, UnixMillis};

use super::row::Row;

#[derive(Debug)]
pub(super) struct News {
    count: u64,
    caps: BTreeMap<CapKey, Seen>,
}

#[derive(Debug)]
struct Seen {
    flags: Flags,
    /// The number of the last change.
    news: u64,
    in_force: bool,
    ends_at: Option<Instant>,
    /// By the server's clock.
    as_of: UnixMillis,
}

impl News {
    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { count: since.as_millis() as u64, caps: BTreeMap::new() }
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes in how a cap stood at a moment of the server's clock.
    pub fn see(&mut self, row: &Row, now: UnixMillis, at: Instant) {
        let flags = row.flags(now);
        let left = row.window.ends_in_ms(now);
        let ends_at = left.and_then(|ms| at.checked_add(Duration::from_millis(ms)));
        let fresh = Seen { flags, news: self.count, in_force: row.in_force, ends_at, as_of: now };
        let Some(seen) = self.caps.get_mut(&row.key) else {
            self.count += 1;
            self.caps.insert(row.key, Seen { news: self.count, ..fresh });
            return;
        };
        // Two answers may overtake each other; but a clock that was set back is the clock.
        if (0..OVERTAKEN_MS).contains(&seen.as_of.0.saturating_sub(now.0)) && seen.as_of != now {
            return;
        }
        let is_news = seen.flags != flags || seen.in_force != row.in_force;
        let news = if is_news { self.count + 1 } else { seen.news };
        self.count = self.count.max(news);
        *seen = Seen { news, ..fresh };
    }

    /// Forgets the other caps.
    pub fn keep(&mut self, is_kept: impl Fn(&CapKey) -> bool) {
        self.caps.retain(|key, _| is_kept(key));
    }

    /// What is news to a node that has heard those up to `since`.
    pub fn standings(&self, since: u64, at: Instant) -> Vec<Standing> {
        let is_told = |seen: &Seen| match since {
            // Whoever has heard nothing takes every cap for open.
            0 => seen.flags != Flags::default(),
            since => since > self.count || seen.news > since,
        };
        let told = self.caps.iter().filter(|(_, seen)| seen.in_force && is_told(seen));
        told.map(|(&cap, seen)| {
            let Flags { closed, wanted, recalled } = seen.flags;
            let ends_in_ms = seen.ends_at.map(|end| end.saturating_duration_since(at).as_millis() as u64);
            Standing { cap, closed, wanted, recalled, ends_in_ms }
        })
        .collect()
    }
}

/// How late an answer may be.
const OVERTAKEN_MS: i64 = 5_000;
