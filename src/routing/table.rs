//! The compiled form of a snapshot: flat arrays that a click walks without allocating.
//!
//! ```text
//! links: id → row        one row a link: affiliate, status, fallback, a range of tiers
//! tiers                  entries of one priority, a range of entries: those that can be drawn, then the others
//! entries                24 bytes each: offer, rule, targeting, weight, run, alias slot
//! offers · targetings · templates     shared by all links, named by index
//! ```
//!
//! Assumptions of [`decide`](super::decide::decide), each established by `compile` and tested there: indices are in
//! range; tiers of a link are in ascending priority; inside a tier, entries that can be drawn come first, and
//! their runs end where they end; targeting [`ALWAYS`] is empty; offers are in the order of their ids.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use crate::types::{AffiliateId, LinkId, OfferId, RuleId};

use super::alias::Slot;
use super::destination::Template;
use super::snapshot::Rotation;
use super::targeting::Condition;

/// A snapshot compiled for lookup. Immutable; replaced whole.
#[derive(Debug, Default)]
pub struct Table {
    pub(super) links: HashMap<LinkId, u32, BuildHasherDefault<IdHasher>>,
    pub(super) rows: Vec<LinkRow>,
    pub(super) tiers: Vec<Tier>,
    pub(super) entries: Vec<EntryRow>,
    pub(super) offers: Vec<OfferRow>,
    /// Each a conjunction: a range of `conditions`.
    pub(super) targetings: Vec<Range<u32>>,
    pub(super) conditions: Vec<Condition>,
    pub(super) templates: Vec<Template>,
    pub(super) network_fallback: Option<Template>,
    pub(super) bots: BotPolicy,
}

/// What happens to a click that no person made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BotPolicy {
    /// The link's fallback.
    #[default]
    Fallback,
    /// Routed like a person's click, but never counted as one.
    Route,
    /// Refused with 403.
    Block,
}

impl BotPolicy {
    pub const ALL: [BotPolicy; 3] = [BotPolicy::Fallback, BotPolicy::Route, BotPolicy::Block];

    pub const fn as_str(self) -> &'static str {
        match self {
            BotPolicy::Fallback => "fallback",
            BotPolicy::Route => "route",
            BotPolicy::Block => "block",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == text)
    }
}

#[derive(Debug)]
pub(super) struct LinkRow {
    pub affiliate: AffiliateId,
    pub active: bool,
    /// Whether offers whose caps are full are passed over.
    pub cap_aware: bool,
    /// Into `templates`.
    pub fallback: Option<u32>,
    /// Into `tiers`.
    pub tiers: Range<u32>,
}

#[derive(Debug)]
pub(super) struct Tier {
    pub priority: u32,
    pub rotation: Rotation,
    /// First of its entries, into `entries`.
    pub start: u32,
    /// How many entries can be drawn; they come first.
    pub drawable: u32,
    /// How many entries there are, with those that have no weight or whose offer is not active.
    pub count: u32,
    /// How many runs its drawable entries make.
    pub runs: u32,
}

/// One entry. Its alias slot belongs to its position among the drawable entries of its tier.
#[derive(Debug)]
pub(super) struct EntryRow {
    /// Into `offers`.
    pub offer: u32,
    pub rule: Option<RuleId>,
    /// Into `targetings`.
    pub targeting: u32,
    /// As attached, 0 to 100.
    pub weight: u8,
    /// How many entries from here on share one targeting and are asked once. A longer run is cut in two, which does
    /// no harm.
    pub run: u16,
    pub slot: Slot,
}

#[derive(Debug)]
pub(super) struct OfferRow {
    pub id: OfferId,
    pub active: bool,
    /// Into `templates`.
    pub url: u32,
    /// What it brings to every entry. No click asks for it: entries have it in theirs.
    pub targeting: u32,
}

/// The targeting that holds for every click.
pub(super) const ALWAYS: u32 = 0;

const NO_CONDITIONS: Range<u32> = 0..0;

impl Table {
    /// A table of no links, as before the first snapshot: every click goes to the network's fallback.
    pub fn empty(network_fallback: Option<Template>, bots: BotPolicy) -> Self {
        Self { network_fallback, bots, targetings: vec![NO_CONDITIONS], ..Self::default() }
    }

    pub fn links(&self) -> usize {
        self.rows.len()
    }

    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    pub fn offers(&self) -> usize {
        self.offers.len()
    }

    /// Where clicks on this link go when no offer takes them: the link's fallback, else the network's.
    pub fn fallback(&self, link: LinkId) -> Option<&Template> {
        match self.row(link) {
            Some(row) => self.row_fallback(row),
            None => self.network_fallback.as_ref(),
        }
    }

    /// What the table does with clicks that no person made.
    pub fn bots(&self) -> BotPolicy {
        self.bots
    }

    /// Bytes on the heap: arrays by their capacity, and the texts and lists inside conditions and templates.
    /// `benches/compile.rs` holds it against what the allocator says.
    pub fn heap_bytes(&self) -> usize {
        fn bytes<T>(items: &Vec<T>) -> usize {
            items.capacity() * size_of::<T>()
        }
        // hashbrown keeps one control byte a bucket, and fills buckets to 7/8.
        let buckets = match self.links.capacity() {
            0 => 0,
            capacity => (capacity * 8 / 7).next_power_of_two(),
        };
        let flat = buckets * (size_of::<(LinkId, u32)>() + 1)
            + bytes(&self.rows)
            + bytes(&self.tiers)
            + bytes(&self.entries)
            + bytes(&self.offers)
            + bytes(&self.targetings)
            + bytes(&self.conditions)
            + bytes(&self.templates);
        let inside = self.conditions.iter().map(Condition::heap_bytes).sum::<usize>()
            + self.templates.iter().map(Template::heap_bytes).sum::<usize>()
            + self.network_fallback.as_ref().map_or(0, Template::heap_bytes);
        flat + inside
    }

    #[inline]
    pub(super) fn row(&self, link: LinkId) -> Option<&LinkRow> {
        self.links.get(&link).map(|&row| &self.rows[row as usize])
    }

    #[inline]
    pub(super) fn row_fallback(&self, row: &LinkRow) -> Option<&Template> {
        row.fallback.map(|index| &self.templates[index as usize]).or(self.network_fallback.as_ref())
    }

    /// How many links have an entry of each offer.
    pub(super) fn links_by_offer(&self) -> impl Iterator<Item = (OfferId, usize)> {
        self.count_by_offer(self.rows.iter())
    }

    /// The same of these links alone, those without a row passed over.
    pub(super) fn links_by_offer_among(
        &self,
        links: impl Iterator<Item = LinkId>,
    ) -> impl Iterator<Item = (OfferId, usize)> {
        self.count_by_offer(links.filter_map(|link| self.row(link)))
    }

    fn count_by_offer<'t>(
        &'t self,
        rows: impl Iterator<Item = &'t LinkRow>,
    ) -> impl Iterator<Item = (OfferId, usize)> {
        // By the row of the offer, with the last link that was counted: an offer may be on a link several times.
        let mut counts = vec![(0, usize::MAX); self.offers.len()];
        for (nth, row) in rows.enumerate() {
            for entry in self.tiers_of(row).iter().flat_map(|tier| self.all_entries(tier)) {
                let (count, last) = &mut counts[entry.offer as usize];
                *count += usize::from(*last != nth);
                *last = nth;
            }
        }
        self.offers.iter().zip(counts).map(|(offer, (count, _))| (offer.id, count))
    }

    /// Every link and whose it is, in no order.
    pub(super) fn each_link(&self) -> impl Iterator<Item = (LinkId, AffiliateId)> {
        self.links.iter().map(|(&link, &row)| (link, self.rows[row as usize].affiliate))
    }

    /// How many entries hang on a link.
    pub(super) fn entries_of(&self, row: &LinkRow) -> usize {
        self.tiers_of(row).iter().map(|tier| tier.count as usize).sum()
    }

    /// In ascending order.
    pub(super) fn offer_ids(&self) -> impl Iterator<Item = OfferId> {
        self.offers.iter().map(|offer| offer.id)
    }

    pub(super) fn has_offer(&self, id: OfferId) -> bool {
        self.offers.binary_search_by_key(&id, |offer| offer.id).is_ok()
    }

    #[inline]
    pub(super) fn tiers_of(&self, row: &LinkRow) -> &[Tier] {
        &self.tiers[row.tiers.start as usize..row.tiers.end as usize]
    }

    /// The entries of a tier that can be drawn.
    #[inline]
    pub(super) fn drawable(&self, tier: &Tier) -> &[EntryRow] {
        &self.entries[tier.start as usize..(tier.start + tier.drawable) as usize]
    }

    /// The entries of a tier that can be drawn, those of one targeting together.
    #[inline]
    pub(super) fn runs(&self, tier: &Tier) -> impl Iterator<Item = &[EntryRow]> {
        let mut rest = self.drawable(tier);
        std::iter::from_fn(move || {
            let (run, others) = rest.split_at(rest.first()?.run.into());
            rest = others;
            Some(run)
        })
    }

    /// The conditions of a targeting, cheapest first.
    #[inline]
    pub(super) fn conditions_of(&self, targeting: u32) -> &[Condition] {
        let range = &self.targetings[targeting as usize];
        &self.conditions[range.start as usize..range.end as usize]
    }

    /// The order of two targetings, equal only if they are the same.
    pub(super) fn compare_targetings(&self, a: u32, b: u32) -> Ordering {
        // Each is kept once.
        if a == b { Ordering::Equal } else { self.conditions_of(a).cmp(self.conditions_of(b)) }
    }

    pub(super) fn all_entries(&self, tier: &Tier) -> &[EntryRow] {
        &self.entries[tier.start as usize..(tier.start + tier.count) as usize]
    }
}

/// Spreads ids by one multiplication. Ids come from the upstream, not from visitors, so nobody can choose them to
/// collide; a visitor can only ask.
#[derive(Clone, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(byte.into());
        }
    }

    #[inline]
    fn write_u32(&mut self, id: u32) {
        // 2⁶⁴ divided by the golden ratio (Knuth, TAOCP 3, 6.4). The map takes its bucket from the low bits and its
        // tag from the high ones, so the well-mixed high half is folded down.
        let product = (self.0 ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product ^ (product >> 32);
    }
}

const _: () = assert!(size_of::<EntryRow>() == 24, "the figure in the module's doc");
