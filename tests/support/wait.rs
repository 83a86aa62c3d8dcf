//! Waiting for a condition. A deadline only ends a wait that has failed, and then it says what was waited for.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// After this, whatever is waited for will not come. Far beyond what a busy machine needs.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Looks until there is something to see.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for {what}");
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// Looks until both are equal, and shows the last look if they never are.
#[track_caller]
pub fn until_equal<T: PartialEq + Debug>(what: &str, wanted: T, mut look: impl FnMut() -> T) {
    let begun = Instant::now();
    loop {
        let seen = look();
        if seen == wanted {
            return;
        }
        assert!(
            begun.elapsed() < DEADLINE,
            "waited {DEADLINE:?} in vain for {what} to be {wanted:?}; last seen: {seen:?}"
        );
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// So that looking does not take the core from what is looked at.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
