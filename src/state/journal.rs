//! What became of the snapshot, for people: what was published, refused and left out, and when; and what the last refresh
//! came to, be it that nothing has changed. In memory, the last of it, and of this process: the log has all of it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::routing::Warning;
use crate::types::{LinkId, UnixMillis};

use super::refresh::RefreshResult;

/// The last events and the present state, written by whoever refreshes.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    events: VecDeque<Event>,
    /// `None`: nothing was refreshed yet.
    present: Option<Present>,
}

/// What the last refresh came to. An event stays in the history; this is over with the next refresh.
#[derive(Clone, Debug, PartialEq)]
pub struct Present {
    pub at: UnixMillis,
    pub result: RefreshResult,
    /// Why nothing was published; `None`: what is live is what the upstream has.
    pub problem: Option<String>,
    /// What is left out of the live table.
    pub quarantined: usize,
    /// The first of it.
    pub warnings: Vec<Warning>,
}

/// One thing that happened to the live table, or did not.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When it happened last.
    pub at: UnixMillis,
    /// How often it happened in a row, and when first.
    pub times: u64,
    pub first_at: UnixMillis,
    /// Never [`RefreshResult::Unchanged`]: that is no event.
    pub result: RefreshResult,
    /// Of the live table, after it.
    pub generation: u64,
    pub snapshot: String,
    pub links: usize,
    pub entries: usize,
    pub offers: usize,
    pub caps: usize,
    /// `None`: nothing was published.
    pub change: Option<Change>,
    /// What is left out of the live table.
    pub quarantined: usize,
    /// The first of it.
    pub warnings: Vec<Warning>,
    /// Why nothing was published.
    pub problem: Option<String>,
}

/// What was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// What the process remembered from the one before it.
    Remembered,
    /// A snapshot that was read whole.
    Whole,
    /// These links, be it that they are gone; the first of them, and how many they are.
    Links { count: usize, first: Vec<LinkId> },
    /// Caps alone.
    Caps,
}

impl Journal {
    /// Notes an event. One that failed as the event before it did is the same again, be it that it was well in between: an upstream
    /// that comes and goes does not fill the pages.
    pub fn note(&self, mut event: Event) {
        event.warnings.truncate(WARNINGS_MAX);
        let mut pages = self.lock();
        let Pages { events, present } = &mut *pages;
        *present = Some(Present {
            at: event.at,
            result: event.result,
            problem: event.problem.clone(),
            quarantined: event.quarantined,
            warnings: event.warnings.clone(),
        });
        if event.change.is_none()
            && let Some(last) = events.back_mut()
            && (last.result, last.generation, &last.problem)
                == (event.result, event.generation, &event.problem)
        {
            last.at = event.at;
            last.times += 1;
            return;
        }
        if events.len() >= EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// Notes that the upstream has what is live, with what is left out of it: that is no event, but the end of what was wrong.
    pub fn unchanged(&self, at: UnixMillis, quarantined: usize, warnings: &[Warning]) {
        let warnings = warnings.iter().take(WARNINGS_MAX).cloned().collect();
        let present = Present { at, result: RefreshResult::Unchanged, problem: None, quarantined, warnings };
        self.lock().present = Some(present);
    }

    /// The newest first.
    pub fn events(&self) -> Vec<Event> {
        self.lock().events.iter().rev().cloned().collect()
    }

    /// What the last refresh came to; `None`: there was none.
    pub fn present(&self) -> Option<Present> {
        self.lock().present.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        // Right after any panic: each change is one push, or one value replaced.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Change {
    /// Changed links, of which the smallest ids are kept.
    pub fn of_links(links: impl Iterator<Item = LinkId>) -> Self {
        let mut first: Vec<LinkId> = links.collect();
        let count = first.len();
        first.sort_unstable();
        first.truncate(LINKS_SHOWN);
        Change::Links { count, first }
    }
}

/// A busy network changes every few seconds: some minutes of it, or weeks of a calm one.
const EVENTS_MAX: usize = 200;

/// Of an event.
const WARNINGS_MAX: usize = 20;

/// Of an event.
const LINKS_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: i64, result: RefreshResult, problem: Option<&str>) -> Event {
        Event {
            at: UnixMillis(at),
            times: 1,
            first_at: UnixMillis(at),
            result,
            generation: 7,
            snapshot: "a".to_owned(),
            links: 1,
            entries: 1,
            offers: 1,
            caps: 0,
            change: (result == RefreshResult::Published).then_some(Change::Whole),
            quarantined: 0,
            warnings: Vec::new(),
            problem: problem.map(str::to_owned),
        }
    }

    #[test]
    fn what_fails_again_is_one_event() {
        let journal = Journal::default();
        journal.note(event(1, RefreshResult::Published, None));
        for at in 2..=4 {
            journal.note(event(at, RefreshResult::Failed, Some("away")));
        }
        journal.note(event(5, RefreshResult::Failed, Some("another reason")));
        journal.note(event(6, RefreshResult::Published, None));
        journal.note(event(7, RefreshResult::Published, None));
        let events = journal.events();
        let seen: Vec<_> = events.iter().map(|event| (event.first_at.0, event.at.0, event.times)).collect();
        assert_eq!(seen, [(7, 7, 1), (6, 6, 1), (5, 5, 1), (2, 4, 3), (1, 1, 1)]);
    }

    #[test]
    fn what_was_wrong_is_over_with_a_good_refresh_and_stays_in_the_history() {
        let journal = Journal::default();
        assert_eq!(journal.present(), None);
        let refused = || event(3, RefreshResult::Refused, Some("it has shrunk"));
        journal.note(event(1, RefreshResult::Published, None));
        journal.note(refused());
        let present = journal.present().unwrap();
        assert_eq!(
            (present.result, present.problem.as_deref()),
            (RefreshResult::Refused, Some("it has shrunk"))
        );
        journal.unchanged(UnixMillis(4), 0, &[]);
        let present = journal.present().unwrap();
        assert_eq!((present.at.0, present.result, present.problem), (4, RefreshResult::Unchanged, None));
        assert_eq!(journal.events()[0], refused());
        journal.note(refused());
        let times: Vec<_> = journal.events().iter().map(|event| event.times).collect();
        assert_eq!(times, [2, 1]);
        assert_eq!(journal.present().unwrap().result, RefreshResult::Refused);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let journal = Journal::default();
        for at in 0..2 * EVENTS_MAX as i64 {
            journal.note(event(at, RefreshResult::Published, None));
        }
        let events = journal.events();
        assert_eq!((events.len(), events[0].at.0), (EVENTS_MAX, 2 * EVENTS_MAX as i64 - 1));
    }

    #[test]
    fn of_many_links_the_first_are_named() {
        let links = (1..=1000).rev().filter_map(LinkId::new);
        let Change::Links { count, first } = Change::of_links(links) else { panic!() };
        assert_eq!((count, first.len(), first[0].value(), first[9].value()), (1000, 10, 1, 10));
    }
}
