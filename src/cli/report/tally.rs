//! Counting by a name, with a bound on the memory that it takes.
//!
//! What is counted under one name is exact, or not shown: which names have a row of their own is the same for all threads, and
//! whatever else there is goes into one more row. Ids that a visitor may make up have a bound of their own, so that nobody can
//! crowd out the network's.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use clap::ValueEnum;

use super::click::{Click, ClickedBy, OFFER, OUTCOMES};

/// What was counted under one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Clicks of persons, by outcome.
    pub outcomes: [u64; OUTCOMES.len()],
    pub probes: u64,
    pub bots: u64,
}

/// What clicks are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    Outcome,
    Link,
    Affiliate,
    Offer,
    Country,
    Device,
    Day,
    Hour,
    Minute,
}

/// The tallies of one thread by one kind of name.
#[derive(Debug)]
pub struct Groups<'a> {
    by: By,
    admission: &'a Admission,
    /// Positions in `tallies`.
    index: HashMap<u32, u32>,
    tallies: Vec<(u32, Tally)>,
    /// The position that was used last; times and links often come several in a row.
    last: usize,
    other: Tally,
}

/// Which names have rows of their own, over all threads. One that has none when it is first seen never has one, so that a
/// row is exact.
#[derive(Debug)]
pub struct Admission {
    names: Mutex<Names>,
    names_max: usize,
    made_up_max: usize,
}

#[derive(Debug, Default)]
struct Names {
    known: HashSet<u32>,
    /// Seen as nothing but what visitors made up.
    made_up: HashSet<u32>,
}

impl Tally {
    pub fn add(&mut self, click: &Click) {
        match click.by {
            ClickedBy::Person => self.outcomes[click.outcome] += 1,
            ClickedBy::Bot => self.bots += 1,
            ClickedBy::Probe => self.probes += 1,
        }
    }

    pub fn merge(&mut self, other: &Tally) {
        for (sum, more) in self.outcomes.iter_mut().zip(other.outcomes) {
            *sum += more;
        }
        self.probes += other.probes;
        self.bots += other.bots;
    }

    /// Of persons: neither probes nor bots.
    pub fn clicks(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    /// Of these, the ones that reached an offer.
    pub fn offers(&self) -> u64 {
        self.outcomes[OFFER]
    }

    /// And the ones that did not.
    pub fn fallbacks(&self) -> u64 {
        self.clicks() - self.offers()
    }

    /// Lines of the log.
    pub fn lines(&self) -> u64 {
        self.clicks() + self.probes + self.bots
    }

    /// `None` without a click.
    pub fn fill_rate(&self) -> Option<f64> {
        ratio(self.offers(), self.clicks())
    }
}

pub fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl By {
    /// The name of a click, as a number; [`super::rows`] spells it.
    fn of(self, click: &Click) -> u32 {
        let minute = u32::try_from(click.at / MINUTE_MILLIS).unwrap_or(u32::MAX);
        match self {
            By::Outcome => click.outcome as u32,
            By::Link => click.link,
            By::Affiliate => click.affiliate,
            By::Offer => click.offer.unwrap_or(NONE),
            By::Country => click.country.map_or(NONE, |country| country.cake_id()),
            By::Device => click.device as u32,
            By::Minute => minute,
            By::Hour => minute / 60,
            By::Day => minute / (24 * 60),
        }
    }

    /// Whether a visitor may have made the name up.
    fn may_be_made_up(self, click: &Click) -> bool {
        match self {
            By::Link => !click.has_known_link(),
            By::Affiliate => !click.has_known_affiliate(),
            _ => false,
        }
    }

    pub fn is_time(self) -> bool {
        self.step_seconds().is_some()
    }

    /// How long one of its times is.
    pub fn step_seconds(self) -> Option<u32> {
        match self {
            By::Day => Some(24 * 3600),
            By::Hour => Some(3600),
            By::Minute => Some(60),
            _ => None,
        }
    }
}

impl<'a> Groups<'a> {
    pub fn new(by: By, admission: &'a Admission) -> Self {
        let (index, tallies) = (HashMap::new(), Vec::new());
        Self { by, admission, index, tallies, last: 0, other: Tally::default() }
    }

    pub fn add(&mut self, click: &Click) {
        let name = self.by.of(click);
        self.tally(name, self.by.may_be_made_up(click)).add(click);
    }

    /// All that another thread has counted.
    pub fn merge(&mut self, from: Groups<'_>) {
        drop(from.index);
        for (name, tally) in from.tallies {
            // It has been admitted, as whatever it was then.
            self.tally(name, true).merge(&tally);
        }
        self.other.merge(&from.other);
    }

    /// The rows, and what is in none of them.
    pub fn finish(self) -> (Vec<(u32, Tally)>, Tally) {
        (self.tallies, self.other)
    }

    fn tally(&mut self, name: u32, may_be_made_up: bool) -> &mut Tally {
        if self.tallies.get(self.last).is_none_or(|(last, _)| *last != name) {
            self.last = match self.index.get(&name) {
                Some(&position) => position as usize,
                None if self.admission.admits(name, may_be_made_up) => {
                    let position = self.tallies.len();
                    self.index.insert(name, position as u32);
                    self.tallies.push((name, Tally::default()));
                    position
                }
                None => return &mut self.other,
            };
        }
        &mut self.tallies[self.last].1
    }
}

impl Admission {
    pub fn new() -> Self {
        Self::of(NAMES_MAX, MADE_UP_MAX)
    }

    fn of(names_max: usize, made_up_max: usize) -> Self {
        Self { names: Mutex::default(), names_max, made_up_max }
    }

    fn admits(&self, name: u32, may_be_made_up: bool) -> bool {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let Names { known, made_up } = &mut *names;
        if known.contains(&name) || made_up.contains(&name) {
            true
        } else if may_be_made_up {
            made_up.len() < self.made_up_max && made_up.insert(name)
        } else {
            known.len() < self.names_max && known.insert(name)
        }
    }
}

/// What stands for nothing, in ids and countries: neither has a zero.
pub const NONE: u32 = 0;

const MINUTE_MILLIS: i64 = 60_000;

/// Names with a row of their own. A hundred thousand links have room; a tally has 96 bytes.
pub const NAMES_MAX: usize = 131_072;

/// Of those, besides, that visitors may have made up.
pub const MADE_UP_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::DeviceKind;

    fn click(link: u32, outcome: &str) -> Click {
        Click {
            at: 0,
            outcome: OUTCOMES.iter().position(|name| *name == outcome).unwrap(),
            link,
            affiliate: 7,
            offer: None,
            country: None,
            device: DeviceKind::Other,
            by: ClickedBy::Person,
        }
    }

    #[test]
    fn rows_are_exact_whatever_thread_sees_a_name_first() {
        let admission = Admission::of(3, 2);
        let (mut one, mut other) = (Groups::new(By::Link, &admission), Groups::new(By::Link, &admission));
        for link in [1, 2, 1, 4] {
            one.add(&click(link, "offer"));
        }
        for link in [3, 4, 1, 2, 5, 5] {
            other.add(&click(link, "offer"));
        }
        for link in [90, 91, 92, 90, 93] {
            other.add(&click(link, "unknown_link"));
        }
        one.merge(other);
        let (mut rows, rest) = one.finish();
        rows.sort_by_key(|(name, _)| *name);
        let counts: Vec<(u32, u64)> = rows.iter().map(|(name, tally)| (*name, tally.clicks())).collect();
        assert_eq!(counts, [(1, 3), (2, 2), (4, 2), (90, 2), (91, 1)]);
        assert_eq!((rest.clicks(), rest.offers()), (5, 3));
    }

    #[test]
    fn what_visitors_make_up_crowds_out_nobody() {
        let admission = Admission::of(3, 2);
        let mut groups = Groups::new(By::Link, &admission);
        for link in 100..200 {
            groups.add(&click(link, "unknown_link"));
        }
        for link in 1..=3 {
            groups.add(&click(link, "capped"));
        }
        let (rows, rest) = groups.finish();
        assert_eq!((rows.len(), rest.clicks()), (5, 98));
    }

    #[test]
    fn a_fill_rate_is_of_persons() {
        let mut tally = Tally::default();
        assert_eq!(tally.fill_rate(), None);
        for (outcome, by) in [
            ("offer", ClickedBy::Person),
            ("offer", ClickedBy::Person),
            ("offer", ClickedBy::Bot),
            ("offer", ClickedBy::Probe),
            ("capped", ClickedBy::Person),
            ("location_too_long", ClickedBy::Person),
            ("bot", ClickedBy::Bot),
        ] {
            tally.add(&Click { by, ..click(1, outcome) });
        }
        assert_eq!(tally.fill_rate(), Some(0.5));
        assert_eq!(
            (tally.clicks(), tally.fallbacks(), tally.probes, tally.bots, tally.lines()),
            (4, 2, 1, 2, 7)
        );
    }
}
