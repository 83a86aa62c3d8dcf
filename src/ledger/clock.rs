//! The clocks of the machine, read once for each piece of work.
//!
//! Which window it is, the wall clock says, though somebody may set it. How long a lease has surely been over, only a
//! clock can say that nobody sets: the time since the machine was started, which also runs while it sleeps.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::TryRng;
use rand::rngs::SysRng;

use crate::types::UnixMillis;

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerTime {
    pub wall: UnixMillis,
    /// Names this boot of the machine: `uptime_ms` of another boot tells nothing.
    pub boot: u128,
    /// `CLOCK_BOOTTIME`, in milliseconds.
    pub uptime_ms: u64,
}

/// Where the moments come from.
pub(super) struct Clock {
    boot: u128,
    /// Where no boot can be named, the process is one.
    #[cfg(not(target_os = "linux"))]
    started: std::time::Instant,
}

impl Clock {
    pub fn new() -> Self {
        Self {
            boot: boot_id().unwrap_or_else(random),
            #[cfg(not(target_os = "linux"))]
            started: std::time::Instant::now(),
        }
    }

    pub fn now(&self) -> LedgerTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        LedgerTime {
            wall: UnixMillis(since.as_millis() as i64),
            boot: self.boot,
            uptime_ms: self.uptime_ms(),
        }
    }

    #[cfg(target_os = "linux")]
    fn uptime_ms(&self) -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
    }

    #[cfg(not(target_os = "linux"))]
    fn uptime_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

#[cfg(target_os = "linux")]
fn boot_id() -> Option<u128> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    u128::from_str_radix(&text.trim().replace('-', ""), 16).ok()
}

#[cfg(not(target_os = "linux"))]
fn boot_id() -> Option<u128> {
    None
}

/// Without the system's generator, the moment names the boot: it is not the same twice either.
fn random() -> u128 {
    let mut bytes = [0; 16];
    match SysRng.try_fill_bytes(&mut bytes) {
        Ok(()) => u128::from_be_bytes(bytes),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_keeps_its_name_and_the_uptime_does_not_go_back() {
        let (one, two) = (Clock::new().now(), Clock::new().now());
        assert!(one.uptime_ms <= two.uptime_ms);
        assert!(one.wall.0 > 1_700_000_000_000);
        if cfg!(target_os = "linux") {
            assert_eq!(one.boot, two.boot);
        }
    }
}
