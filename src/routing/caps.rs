//! What a decision knows of caps: whether an offer takes one more click. How many are left, and who counts, is not its
//! business.

use crate::types::{AffiliateId, CapKey, OfferId};

/// How the caps stand for one click. What is behind it may change between two questions; [`decide`](super::decide())
/// copes with any answers.
pub trait CapView {
    /// Whether no cap of the offer, nor one of this affiliate's for it, is full.
    fn is_open(&self, offer: OfferId, affiliate: AffiliateId) -> bool;

    /// The caps that close it: none where it is open. For an explanation; a decision does not ask.
    fn closed_caps(&self, offer: OfferId, affiliate: AffiliateId) -> Vec<CapKey>;
}

/// There are no caps, or nobody looks at them.
#[derive(Clone, Copy, Debug)]
pub struct NoCaps;

impl CapView for NoCaps {
    #[inline]
    fn is_open(&self, _: OfferId, _: AffiliateId) -> bool {
        true
    }

    fn closed_caps(&self, _: OfferId, _: AffiliateId) -> Vec<CapKey> {
        Vec::new()
    }
}
