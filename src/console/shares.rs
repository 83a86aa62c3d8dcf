//! What the offers of a link took, beside what their weights would give them. Pure.
//!
//! Clicks are counted by link and offer, and not by entry: an offer that hangs on a link several times is counted where
//! it is tried first. Shares are told within a tier, because weights mean nothing beyond it.

use std::collections::BTreeMap;

use crate::routing::LinkFace;
use crate::state::OfferTotals;
use crate::types::OfferId;

/// An offer of a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Of the tiers, in their order: the first in which it is.
    pub tier: usize,
    pub count: u64,
    /// Of what the offers of its tier took; `None`: they took nothing.
    pub taken: Option<f64>,
    /// By the weights in its tier, its entries together.
    pub by_weight: f64,
}

/// Each offer that hangs on the link.
pub fn shares(face: &LinkFace, taken: &OfferTotals) -> BTreeMap<OfferId, Share> {
    let mut shares: BTreeMap<OfferId, Share> = BTreeMap::new();
    for (tier, of_tier) in face.tiers.iter().enumerate() {
        for entry in &of_tier.entries {
            let count = taken.get(&entry.offer).copied().unwrap_or(0);
            let share =
                shares.entry(entry.offer).or_insert(Share { tier, count, taken: None, by_weight: 0.0 });
            if share.tier == tier {
                share.by_weight += entry.share;
            }
        }
    }
    let mut sums = vec![0; face.tiers.len()];
    for share in shares.values() {
        sums[share.tier] += share.count;
    }
    for share in shares.values_mut() {
        let sum = sums[share.tier];
        share.taken = (sum > 0).then(|| share.count as f64 / sum as f64);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{EntryFace, Rotation, TierFace};
    use crate::types::AffiliateId;

    #[test]
    fn shares_are_of_a_tier_and_an_offer_is_counted_where_it_comes_first() {
        let id = |offer| OfferId::new(offer).unwrap();
        let entry = |offer, share| EntryFace {
            offer: id(offer),
            rule: None,
            weight: 1,
            offer_active: true,
            conditions: Vec::new(),
            share,
        };
        let tier = |priority, entries| TierFace { priority, rotation: Rotation::Weighted, entries };
        let face = LinkFace {
            affiliate: AffiliateId::new(1).unwrap(),
            active: true,
            cap_aware: true,
            has_fallback: false,
            tiers: vec![
                tier(1, vec![entry(1, 0.5), entry(1, 0.25), entry(2, 0.25)]),
                tier(2, vec![entry(2, 0.5), entry(3, 0.5)]),
                tier(3, vec![entry(4, 1.0)]),
            ],
        };
        let taken = OfferTotals::from([(id(1), 30), (id(2), 10), (id(3), 5), (id(9), 7)]);
        let shares = shares(&face, &taken);
        let share = |tier, count, taken, by_weight| Share { tier, count, taken, by_weight };
        assert_eq!(shares[&id(1)], share(0, 30, Some(0.75), 0.75));
        assert_eq!(shares[&id(2)], share(0, 10, Some(0.25), 0.25));
        assert_eq!(shares[&id(3)], share(1, 5, Some(1.0), 0.5));
        assert_eq!(shares[&id(4)], share(2, 0, None, 1.0));
        assert_eq!(shares.len(), 4, "what hangs on it no more has no tier");
    }
}
