//! What can happen, and in which order it does.

use std::cmp::Ordering;
use std::sync::Arc;

use smartlink::ledger::{Conversion, LeaseReply, LeaseRequest};
use smartlink::routing::Cap;

use crate::random::True;

pub enum Event {
    Click {
        edge: usize,
    },
    Tick {
        edge: usize,
        life: u64,
    },
    /// The keeper is done with an answer, and waits for calls again.
    Waits {
        edge: usize,
        life: u64,
    },
    ToLedger {
        edge: usize,
        life: u64,
        sent_at: u64,
        request: LeaseRequest,
    },
    ToEdge {
        edge: usize,
        life: u64,
        sent_at: u64,
        reply: LeaseReply,
    },
    /// The visitor of a click has bought: the network tells some edge, until that says that it is written down.
    Converts {
        conversion: u64,
    },
    /// An edge carries the conversions that were handed in.
    Carry {
        edge: usize,
        life: u64,
    },
    ToRecord {
        edge: usize,
        life: u64,
        conversions: Vec<Conversion>,
    },
    Recorded {
        edge: usize,
        life: u64,
        conversions: Vec<Conversion>,
    },
    EdgeFails {
        edge: usize,
    },
    EdgeStarts {
        edge: usize,
    },
    LedgerFails,
    LedgerStarts {
        rebooted: bool,
    },
    /// The ledger hears of caps that were changed.
    LedgerHears {
        version: u64,
        caps: Arc<Vec<Cap>>,
    },
    /// Its file is moved away, and an empty one takes its place.
    LedgerReplaced,
    WallSteps {
        by_ms: i64,
    },
    Partition {
        edge: usize,
        until: True,
    },
    CapsChange,
    EdgeHears {
        edge: usize,
        version: u64,
        caps: Arc<Vec<Cap>>,
    },
    RateChanges {
        edge: usize,
    },
    /// Somebody looks whether what should have happened by now has.
    Look,
    /// All is full, or should be: the nodes are told to end.
    AllEnd,
    Ended,
}

pub struct At {
    pub time: True,
    pub order: u64,
    pub event: Event,
}

impl PartialEq for At {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for At {}
impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for At {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.time, other.order).cmp(&(self.time, self.order))
    }
}
