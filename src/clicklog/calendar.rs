//! Whether the clock may be believed when it says that a segment is old.
//!
//! Somebody may set it forward by years, by mistake, and what was deleted by that is not there again when it is set back. So a
//! clock that is suddenly far ahead of the time that has passed is believed only after a day. It is compared with itself: one
//! that was wrong when the process began is not noticed.

use std::time::{Duration, Instant, SystemTime};

/// What the clock showed, and when that was.
#[derive(Debug)]
pub(super) struct Calendar {
    shown: SystemTime,
    at: Instant,
    doubted_until: Option<Instant>,
}

impl Calendar {
    pub fn new(shown: SystemTime, at: Instant) -> Self {
        Self { shown, at, doubted_until: None }
    }

    /// Whether what the clock shows now may be gone by. Says so if it was set forward.
    pub fn is_believed(&mut self, shown: SystemTime, at: Instant) -> bool {
        let passed = at.saturating_duration_since(self.at);
        let ahead = shown.duration_since(self.shown).unwrap_or_default().saturating_sub(passed);
        (self.shown, self.at) = (shown, at);
        if ahead > STEP_MAX {
            self.doubted_until = Some(at + DOUBT);
            tracing::warn!(
                "the clock was set forward by {} minutes, or the machine has slept: for a day, no segment of the click log is \
                 deleted for its age; if the clock is wrong, set it right before",
                ahead.as_secs() / 60
            );
        }
        self.doubted_until.is_none_or(|until| at >= until)
    }
}

/// More than a clock is corrected by in ordinary life.
const STEP_MAX: Duration = Duration::from_secs(3600);

/// Time enough for somebody to notice.
const DOUBT: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_suddenly_ahead_is_believed_after_a_day() {
        let (wall, begun) = (SystemTime::now(), Instant::now());
        let mut calendar = Calendar::new(wall, begun);
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        // What the clock shows, what time has passed by then, both in hours, and whether the one is believed.
        for (shown, passed, is_believed) in [
            (0, 0, true),
            (10, 10, true),
            // Whatever is slow is no step: the next look is a month later.
            (730, 730, true),
            (731 + 24 * 365, 731, false),
            (740 + 24 * 365, 740, false),
            // Back again, and forward again.
            (745, 745, false),
            (755, 755, true),
            (755 + 3, 756, false),
            (755 + 27, 780, true),
        ] {
            assert_eq!(
                calendar.is_believed(wall + hours(shown), begun + hours(passed)),
                is_believed,
                "{passed}"
            );
        }
        // Before the first look.
        assert!(calendar.is_believed(wall - hours(1), begun + hours(781)));
    }
}
