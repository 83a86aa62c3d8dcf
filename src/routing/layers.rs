//! A large table and a small one over it, so that one changed link does not cost the compilation of a million.
//!
//! The small table, the patch, has every link that was changed since the large one was compiled, whole, with copies of
//! the offers that it names; links that were deleted are known to be changed and are not in it. So each link is wholly
//! in one of the two tables, no index goes from one to the other, and a decision never sees both.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use crate::types::{AffiliateId, LinkId, OfferId};

use super::table::{IdHasher, Table};

/// Ids of links.
pub type LinkIds = HashSet<LinkId, BuildHasherDefault<IdHasher>>;

/// A table, perhaps with a patch. Immutable; replaced whole. A copy shares both.
#[derive(Clone, Debug)]
pub struct LayeredTable {
    base: Arc<Table>,
    patch: Option<Arc<Patch>>,
}

#[derive(Debug)]
struct Patch {
    changed: LinkIds,
    table: Table,
    /// How many of the base's links and entries are no longer in force.
    links_covered: usize,
    entries_covered: usize,
    /// How many of its offers the base does not have.
    offers_added: usize,
}

impl LayeredTable {
    /// The same base under another patch. `changed`: the links of which the patch decides, be it that they are gone.
    pub fn patched(&self, changed: LinkIds, table: Table) -> Self {
        let covered = || changed.iter().filter_map(|&link| self.base.row(link));
        let patch = Patch {
            links_covered: covered().count(),
            entries_covered: covered().map(|row| self.base.entries_of(row)).sum(),
            offers_added: table.offer_ids().filter(|&offer| !self.base.has_offer(offer)).count(),
            changed,
            table,
        };
        Self { base: Arc::clone(&self.base), patch: Some(Arc::new(patch)) }
    }

    /// The table that decides clicks on this link, and knows its fallback.
    #[inline]
    pub fn of(&self, link: LinkId) -> &Table {
        match &self.patch {
            Some(patch) if patch.changed.contains(&link) => &patch.table,
            _ => &self.base,
        }
    }

    pub fn links(&self) -> usize {
        let patch = self.patch.as_ref().map(|patch| (patch.table.links(), patch.links_covered));
        replaced(self.base.links(), patch)
    }

    pub fn entries(&self) -> usize {
        let patch = self.patch.as_ref().map(|patch| (patch.table.entries(), patch.entries_covered));
        replaced(self.base.entries(), patch)
    }

    /// Every link that is live and whose it is, in no order.
    pub fn each_link(&self) -> impl Iterator<Item = (LinkId, AffiliateId)> {
        let patch = self.patch.as_deref();
        let is_in_force = move |link: &LinkId| patch.is_none_or(|patch| !patch.changed.contains(link));
        let of_base = self.base.each_link().filter(move |(link, _)| is_in_force(link));
        of_base.chain(patch.into_iter().flat_map(|patch| patch.table.each_link()))
    }

    /// Every offer that is live, and on how many links it is. It goes through all entries, in the order of memory.
    pub fn links_by_offer(&self) -> HashMap<OfferId, usize> {
        let mut links: HashMap<OfferId, usize> = self.base.links_by_offer().collect();
        if let Some(patch) = self.patch.as_deref() {
            for (offer, covered) in self.base.links_by_offer_among(patch.changed.iter().copied()) {
                links.entry(offer).and_modify(|links| *links -= covered);
            }
            for (offer, added) in patch.table.links_by_offer() {
                *links.entry(offer).or_default() += added;
            }
        }
        links
    }

    /// Offers that are in either.
    pub fn offers(&self) -> usize {
        self.base.offers() + self.patch.as_ref().map_or(0, |patch| patch.offers_added)
    }

    /// How many links the patch decides.
    pub fn changed_links(&self) -> usize {
        self.patch.as_ref().map_or(0, |patch| patch.changed.len())
    }

    /// Bytes on the heap of both.
    pub fn heap_bytes(&self) -> usize {
        let of_patch = |patch: &Arc<Patch>| {
            patch.table.heap_bytes() + patch.changed.capacity() * 8 / 7 * (size_of::<LinkId>() + 1)
        };
        self.base.heap_bytes() + self.patch.as_ref().map_or(0, of_patch)
    }
}

impl From<Table> for LayeredTable {
    fn from(table: Table) -> Self {
        Self { base: Arc::new(table), patch: None }
    }
}

/// The base's count without what is covered, and with what covers it.
fn replaced(base: usize, patch: Option<(usize, usize)>) -> usize {
    patch.map_or(base, |(added, covered)| base - covered + added)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{Attachment, CompileOptions, Link, Offer, Rotation, Snapshot, Weight, compile};
    use crate::types::OfferId;

    /// Links of these affiliates, each with one entry for each of its offers.
    fn table(links: &[(u32, u32, &[u32])]) -> Table {
        let mut snapshot = Snapshot::default();
        for &(link, affiliate, offers) in links {
            let id = LinkId::new(link).unwrap();
            snapshot.links.to_mut().push(Link {
                id,
                affiliate: AffiliateId::new(affiliate).unwrap(),
                active: true,
                rotation: Rotation::Weighted,
                cap_aware: true,
                fallback_url: None,
            });
            for &offer in offers {
                let offer = OfferId::new(offer).unwrap();
                snapshot.attachments.to_mut().push(Attachment {
                    link: id,
                    offer,
                    priority: 1,
                    weight: Weight::new(1).unwrap(),
                });
                if !snapshot.offers.iter().any(|known| known.id == offer) {
                    snapshot.offers.push(Offer {
                        id: offer,
                        active: true,
                        expires_at: None,
                        url: format!("https://o{offer}.example/"),
                        targeting: Vec::new(),
                    });
                }
            }
        }
        let (table, warnings) = compile(&snapshot, &CompileOptions::default());
        assert_eq!(warnings, []);
        table
    }

    fn ids(links: &[u32]) -> LinkIds {
        links.iter().filter_map(|&link| LinkId::new(link)).collect()
    }

    fn affiliate(layers: &LayeredTable, link: u32) -> Option<u32> {
        let link = LinkId::new(link).unwrap();
        layers.of(link).row(link).map(|row| row.affiliate.value())
    }

    #[test]
    fn changed_added_and_deleted_links_are_the_patchs_and_all_others_the_bases() {
        let base = LayeredTable::from(table(&[(1, 10, &[1, 2]), (2, 20, &[1]), (3, 30, &[2, 3])]));
        assert_eq!((base.links(), base.entries(), base.offers(), base.changed_links()), (3, 5, 3, 0));
        let patched = base.patched(ids(&[1, 3, 4, 5]), table(&[(1, 11, &[2]), (4, 40, &[3, 7])]));
        let of: Vec<_> = (1..=5).map(|link| affiliate(&patched, link)).collect();
        assert_eq!(of, [Some(11), Some(20), None, Some(40), None]);
        let mut live: Vec<u32> =
            patched.each_link().map(|(link, of)| link.value() * 100 + of.value()).collect();
        live.sort_unstable();
        assert_eq!(live, [111, 220, 440]);
        assert_eq!((patched.links(), patched.entries(), patched.offers()), (3, 4, 4));
        assert_eq!(patched.changed_links(), 4);
        assert!(patched.heap_bytes() > base.heap_bytes());

        let on = |layers: &LayeredTable| {
            let mut on: Vec<_> =
                layers.links_by_offer().into_iter().map(|(offer, links)| (offer.value(), links)).collect();
            on.sort_unstable();
            on
        };
        assert_eq!(on(&base), [(1, 2), (2, 2), (3, 1)]);
        assert_eq!(on(&patched), [(1, 1), (2, 1), (3, 1), (7, 1)]);

        // The next patch replaces this one, and knows all that it knew.
        let next = patched.patched(ids(&[1]), table(&[(1, 12, &[])]));
        assert_eq!(
            [affiliate(&next, 1), affiliate(&next, 3), affiliate(&next, 4)],
            [Some(12), Some(30), None]
        );
    }
}
