//! What a decision knows of caps: whether an offer takes one more click. How many are left, and who counts, is not its
//! business.

use std::fmt;

use crate::types::{AffiliateId, CapKey, OfferId};

/// How the caps stand for one click. What is behind it may change between two questions; [`decide`](super::decide())
/// copes with any answers.
pub trait CapView {
    /// Whether no cap of the offer, nor one of this affiliate's for it, is full.
    fn is_open(&self, offer: OfferId, affiliate: AffiliateId) -> bool;

    /// The caps that close it: none where it is open. For an explanation; a decision does not ask.
    fn closed_caps(&self, offer: OfferId, affiliate: AffiliateId) -> Vec<ClosedCap>;
}

/// A cap that lets no click through, as far as whoever was asked knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedCap {
    pub key: CapKey,
    pub reason: ClosedReason,
}

/// Why a cap is closed to whoever was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedReason {
    /// Its amount is reached.
    Full,
    /// It is not known to be full, but no clicks of it are at hand: the next are on their way, others hold what is left of
    /// it, or whoever grants them is away.
    NoLease,
    /// Nobody has told yet how it stands.
    Unknown,
}

impl ClosedReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            ClosedReason::Full => "full",
            ClosedReason::NoLease => "no_lease",
            ClosedReason::Unknown => "unknown",
        }
    }
}

impl fmt::Display for ClosedCap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            ClosedReason::Full => "full",
            ClosedReason::NoLease => {
                "not known to be full, but this node holds no clicks of it at the moment"
            }
            ClosedReason::Unknown => {
                "this node holds no clicks of it, and no ledger has told it yet how the cap stands"
            }
        };
        write!(f, "the {} ({reason})", self.key)
    }
}

/// There are no caps, or nobody looks at them.
#[derive(Clone, Copy, Debug)]
pub struct NoCaps;

impl CapView for NoCaps {
    #[inline]
    fn is_open(&self, _: OfferId, _: AffiliateId) -> bool {
        true
    }

    fn closed_caps(&self, _: OfferId, _: AffiliateId) -> Vec<ClosedCap> {
        Vec::new()
    }
}
