//! How fast caps fill: what was used of each some time ago. In memory, bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::state::CapLevel;
use crate::types::{CapKey, UnixMillis};

/// The samples of the last minutes.
#[derive(Debug, Default)]
pub struct CapHistory(Mutex<VecDeque<(UnixMillis, HashMap<CapKey, Then>)>>);

#[derive(Clone, Copy, Debug)]
struct Then {
    used: u64,
    window_ends_at: Option<i64>,
}

impl CapHistory {
    pub fn note(&self, at: UnixMillis, levels: &[CapLevel]) {
        let then =
            |level: &CapLevel| (level.cap, Then { used: level.used, window_ends_at: level.window_ends_at });
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.back().is_some_and(|(last, _)| *last >= at) {
            // The clock was set back.
            samples.clear();
        }
        samples.retain(|(sampled, _)| at.0 - sampled.0 <= SPAN.as_millis() as i64);
        samples.push_back((at, levels.iter().take(CAPS_MAX).map(then).collect()));
    }

    /// How many a second each of these caps has taken lately, in its window; `None` where nobody looked before.
    pub fn rates(&self, now: UnixMillis, levels: &[CapLevel]) -> HashMap<CapKey, f64> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = |level: &CapLevel| {
            let is_of_window =
                |then: &Then| then.window_ends_at == level.window_ends_at && then.used <= level.used;
            let (at, then) = samples
                .iter()
                .filter(|(at, _)| now.0 - at.0 <= SPAN.as_millis() as i64)
                .find_map(|(at, caps)| {
                    caps.get(&level.cap).filter(|then| is_of_window(then)).map(|then| (at, then))
                })?;
            let seconds = (now.0 - at.0) as f64 / 1000.0;
            // Of a moment nothing can be told.
            (seconds >= SHORTEST.as_secs_f64())
                .then(|| (level.cap, (level.used - then.used) as f64 / seconds))
        };
        levels.iter().filter_map(rate).collect()
    }
}

/// Between two samples.
pub const STEP: Duration = Duration::from_secs(20);

/// By what came in so long a rate is told.
const SPAN: Duration = Duration::from_secs(600);

const SHORTEST: Duration = Duration::from_secs(3);

/// That are looked at.
const CAPS_MAX: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CapInterval, CapKind, OfferId};

    fn level(used: u64, window_ends_at: i64) -> CapLevel {
        let cap = CapKey {
            offer: OfferId::new(1).unwrap(),
            affiliate: None,
            kind: CapKind::Click,
            interval: CapInterval::Daily,
        };
        CapLevel { cap, amount: 1000, used, leased: 0, window_ends_at: Some(window_ends_at) }
    }

    #[test]
    fn a_rate_is_of_the_last_minutes_and_of_one_window() {
        let (history, at) = (CapHistory::default(), |seconds: i64| UnixMillis(seconds * 1000));
        let rate = |seconds, level: CapLevel| {
            history.rates(at(seconds), std::slice::from_ref(&level)).get(&level.cap).copied()
        };
        assert_eq!(rate(0, level(5, 9)), None, "nobody has looked before");
        history.note(at(0), &[level(100, 9)]);
        assert_eq!(rate(1, level(103, 9)), None, "it is too early to tell");
        assert_eq!(rate(100, level(300, 9)), Some(2.0));
        for seconds in (20..=1000).step_by(20) {
            history.note(at(seconds), &[level(300, 9)]);
        }
        assert_eq!(rate(1000, level(300, 9)), Some(0.0), "what came before ten minutes is forgotten");
        assert_eq!(rate(1010, level(7, 99)), None, "the window is another");
        history.note(at(1020), &[level(10, 99)]);
        assert_eq!(rate(1030, level(20, 99)), Some(1.0));
        assert!(history.0.lock().unwrap().len() <= 31);
    }
}
