//! The clocks of the process, read outside the pure rooms.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::types::UnixMillis;

/// The moment, as the system tells it. Before 1970 it is 1970.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(since.as_millis() as i64)
}

/// Nanoseconds since the machine started, the time it slept included. Nobody can set this clock, and 64 bits of it last for
/// centuries.
pub fn uptime() -> u64 {
    let since = clock_gettime(UPTIME_CLOCK);
    since.tv_sec as u64 * 1_000_000_000 + since.tv_nsec as u64
}

#[cfg(target_os = "linux")]
const UPTIME_CLOCK: ClockId = ClockId::Boottime;

/// Elsewhere a machine that sleeps keeps what it was granted for as long as it slept.
#[cfg(not(target_os = "linux"))]
const UPTIME_CLOCK: ClockId = ClockId::Monotonic;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_never_goes_back() {
        let first = uptime();
        assert!(first > 0);
        assert!(uptime() >= first);
    }
}
