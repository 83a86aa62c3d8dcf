//! Whether a load balancer should send clicks here.

use std::sync::atomic::{AtomicBool, Ordering};

/// A node is ready from the first live table until it drains. An upstream outage never makes it unready.
#[derive(Debug, Default)]
pub struct Readiness {
    table_live: AtomicBool,
    draining: AtomicBool,
}

impl Readiness {
    /// A table is live. A latch: nothing takes it back.
    pub fn table_is_live(&self) {
        // Release: whoever sees the latch also sees the table that was published before it.
        self.table_live.store(true, Ordering::Release);
    }

    /// The process is about to end. A latch.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub fn is_ready(&self) -> bool {
        self.unready_because().is_none()
    }

    /// Why not, in a few words.
    pub fn unready_because(&self) -> Option<&'static str> {
        if self.draining.load(Ordering::Acquire) {
            Some("draining")
        } else if !self.table_live.load(Ordering::Acquire) {
            Some("no table is live yet")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_from_the_first_table_until_the_drain() {
        let readiness = Readiness::default();
        assert!(!readiness.is_ready());
        readiness.table_is_live();
        assert!(readiness.is_ready());
        readiness.begin_drain();
        assert_eq!(readiness.unready_because(), Some("draining"));
    }
}
