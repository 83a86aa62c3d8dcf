//! What the counters were: every few seconds for an hour, every minute for a day. In memory, bounded, and of this
//! process. Whoever takes a sample reads sums; a click has no part in it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::state::Totals;
use crate::types::UnixMillis;

/// The samples of late.
#[derive(Debug, Default)]
pub struct History(Mutex<Rings>);

#[derive(Debug, Default)]
struct Rings {
    fine: VecDeque<Sample>,
    coarse: VecDeque<Sample>,
}

/// The counters at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub at: UnixMillis,
    pub totals: Totals,
}

/// How far back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    Hour,
    Day,
}

impl Span {
    pub const ALL: [Span; 2] = [Span::Hour, Span::Day];

    pub fn as_str(self) -> &'static str {
        match self {
            Span::Hour => "hour",
            Span::Day => "day",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|span| span.as_str() == text)
    }
}

impl History {
    /// Notes a sample. One that is not later than the last is a clock that was set back: what was noted by the other
    /// time is forgotten.
    pub fn note(&self, at: UnixMillis, totals: Totals) {
        let sample = Sample { at, totals };
        let mut rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Rings { fine, coarse } = &mut *rings;
        if fine.back().is_some_and(|last| last.at >= at) {
            fine.clear();
            coarse.clear();
        }
        push(fine, sample, FINE_MAX);
        let is_due =
            |last: &Sample| at.0 - last.at.0 >= COARSE_STEP.as_millis() as i64 - STEP.as_millis() as i64 / 2;
        if coarse.back().is_none_or(is_due) {
            push(coarse, sample, COARSE_MAX);
        }
    }

    /// The samples of a span, the oldest first.
    pub fn samples(&self, span: Span) -> Vec<Sample> {
        let rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match span {
            Span::Hour => rings.fine.iter().copied().collect(),
            Span::Day => rings.coarse.iter().copied().collect(),
        }
    }

    /// The newest sample that is at least so old, or else the oldest there is.
    pub fn before(&self, now: UnixMillis, age: Duration) -> Option<Sample> {
        let rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = now.0 - age.as_millis() as i64;
        let ring = if age <= STEP * FINE_MAX as u32 { &rings.fine } else { &rings.coarse };
        ring.iter().rev().find(|sample| sample.at.0 <= until).or(ring.front()).copied()
    }
}

fn push(ring: &mut VecDeque<Sample>, sample: Sample, most: usize) {
    if ring.len() >= most {
        ring.pop_front();
    }
    ring.push_back(sample);
}

/// Between two samples.
pub const STEP: Duration = Duration::from_secs(5);

/// An hour.
const FINE_MAX: usize = 721;

const COARSE_STEP: Duration = Duration::from_secs(60);

/// A day.
const COARSE_MAX: usize = 1441;

#[cfg(test)]
mod tests {
    use super::*;

    fn note(history: &History, seconds: i64) {
        history.note(UnixMillis(seconds * 1000), Totals { log_dropped: seconds as u64, ..Totals::default() });
    }

    #[test]
    fn an_hour_finely_and_a_day_coarsely_and_no_more() {
        let history = History::default();
        let end = 2 * 86_400;
        for at in (0..=end).step_by(STEP.as_secs() as usize) {
            note(&history, at);
        }
        let (hour, day) = (history.samples(Span::Hour), history.samples(Span::Day));
        assert_eq!((hour.len(), day.len()), (FINE_MAX, COARSE_MAX));
        assert_eq!((hour[0].at.0, hour[FINE_MAX - 1].at.0), ((end - 3600) * 1000, end * 1000));
        assert_eq!((day[0].at.0, day[COARSE_MAX - 1].at.0), ((end - 86_400) * 1000, end * 1000));
        let now = UnixMillis(end * 1000);
        let five_minutes = history.before(now, Duration::from_secs(300)).unwrap();
        assert_eq!(five_minutes.at.0, (end - 300) * 1000);
        let two_hours = history.before(now, Duration::from_secs(7200)).unwrap();
        assert_eq!(two_hours.at.0, (end - 7200) * 1000);
    }

    #[test]
    fn a_young_process_answers_with_what_it_has() {
        let history = History::default();
        assert_eq!(history.before(UnixMillis(0), Duration::from_secs(60)), None);
        note(&history, 100);
        note(&history, 105);
        assert_eq!(history.before(UnixMillis(105_000), Duration::from_secs(60)).unwrap().at.0, 100_000);
    }

    #[test]
    fn a_clock_that_is_set_back_begins_anew() {
        let history = History::default();
        for at in [100, 105, 110, 50] {
            note(&history, at);
        }
        assert_eq!(history.samples(Span::Hour).len(), 1);
        assert_eq!(history.samples(Span::Day)[0].at.0, 50_000);
    }
}
