//! Table, click, draw → decision. The whole of SPEC 3 on one screen; everything it needs is an argument.

use crate::types::{Click, Draw, OfferId, RuleId};

use super::alias;
use super::destination::Template;
use super::snapshot::Rotation;
use super::table::{ALWAYS, BotPolicy, EntryRow, Table, Tier};

/// What becomes of a click.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision<'t> {
    pub outcome: Outcome,
    /// The entry that was drawn, if the outcome is an offer.
    pub choice: Option<Choice>,
    /// Where the visitor is sent. `None`: there is no fallback either.
    pub destination: Option<&'t Template>,
}

/// An offer, or the reason why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    Offer,
    UnknownLink,
    InactiveLink,
    AffiliateMismatch,
    Bot,
    /// The link has no entries.
    NoOffers,
    /// No entry was eligible.
    NoMatch,
}

impl Outcome {
    pub const ALL: [Outcome; 7] = [
        Outcome::Offer,
        Outcome::UnknownLink,
        Outcome::InactiveLink,
        Outcome::AffiliateMismatch,
        Outcome::Bot,
        Outcome::NoOffers,
        Outcome::NoMatch,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Offer => "offer",
            Outcome::UnknownLink => "unknown_link",
            Outcome::InactiveLink => "inactive_link",
            Outcome::AffiliateMismatch => "affiliate_mismatch",
            Outcome::Bot => "bot",
            Outcome::NoOffers => "no_offers",
            Outcome::NoMatch => "no_match",
        }
    }
}

/// The entry that took a click.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub offer: OfferId,
    pub rule: Option<RuleId>,
    pub priority: u32,
}

/// Decides a click. Allocates nothing.
pub fn decide<'t>(table: &'t Table, click: &Click<'_>, draw: Draw) -> Decision<'t> {
    let Some(row) = table.row(click.link) else {
        return fallback(Outcome::UnknownLink, table.network_fallback.as_ref());
    };
    if !row.active {
        return fallback(Outcome::InactiveLink, table.row_fallback(row));
    }
    if row.affiliate != click.affiliate {
        return fallback(Outcome::AffiliateMismatch, table.network_fallback.as_ref());
    }
    if click.device.bot && table.bots != BotPolicy::Route {
        return fallback(Outcome::Bot, table.row_fallback(row));
    }
    let tiers = table.tiers_of(row);
    for tier in tiers {
        if let Some(entry) = pick(table, tier, click, draw) {
            let offer = &table.offers[entry.offer as usize];
            return Decision {
                outcome: Outcome::Offer,
                choice: Some(Choice { offer: offer.id, rule: entry.rule, priority: tier.priority }),
                destination: Some(&table.templates[offer.url as usize]),
            };
        }
    }
    let outcome = if tiers.is_empty() { Outcome::NoOffers } else { Outcome::NoMatch };
    fallback(outcome, table.row_fallback(row))
}

fn fallback(outcome: Outcome, destination: Option<&Template>) -> Decision<'_> {
    Decision { outcome, choice: None, destination }
}

/// Draws one of the eligible entries of a tier, if there is any.
#[inline]
fn pick<'t>(table: &'t Table, tier: &Tier, click: &Click<'_>, draw: Draw) -> Option<&'t EntryRow> {
    let entries = table.drawable(tier);
    if tier.rotation == Rotation::Priority {
        return entries.iter().find(|entry| eligible(table, entry, click));
    }
    // Rejection keeps the shares exact: an entry that is not eligible is drawn again, by a number independent of
    // the last, so what remains is drawn in proportion to the weights of the eligible.
    let mut number = draw.0;
    for attempt in 1..=attempts(tier.drawable) {
        let (slot, inside) = alias::slot_of(number, tier.drawable);
        let kept = &entries[slot as usize];
        let entry = if inside < kept.slot.threshold { kept } else { &entries[kept.slot.alias as usize] };
        if eligible(table, entry, click) {
            return Some(entry);
        }
        number = alias::expand(draw.0, attempt);
    }
    pick_by_pass(table, tier, click, number)
}

/// Looks at every entry: the end of a tier in which little or nothing is eligible.
#[cold]
fn pick_by_pass<'t>(table: &'t Table, tier: &Tier, click: &Click<'_>, number: u64) -> Option<&'t EntryRow> {
    let entries = table.drawable(tier);
    let even = tier.rotation == Rotation::Even;
    let weight = |entry: &EntryRow| if even { 1 } else { u64::from(entry.weight) };
    // Entries of equal targeting stand together and are asked once.
    let eligible_runs =
        || entries.chunk_by(|a, b| a.targeting == b.targeting).filter(|run| eligible(table, &run[0], click));
    let total: u64 = eligible_runs().flatten().map(weight).sum();
    if total == 0 {
        return None;
    }
    let mut left = ((u128::from(number) * u128::from(total)) >> 64) as u64;
    eligible_runs().flatten().find(|entry| {
        let own = weight(entry);
        let found = left < own;
        left = left.wrapping_sub(own);
        found
    })
}

/// Whether every condition of the entry and of its offer holds.
#[inline]
fn eligible(table: &Table, entry: &EntryRow, click: &Click<'_>) -> bool {
    entry.targeting == ALWAYS
        || table.targetings[entry.targeting as usize].iter().all(|condition| condition.holds(click))
}

/// How often to draw before looking at every entry: often enough that a pass is rare while a tenth of the tier is
/// eligible, never so often that the draws cost more than the pass (benches/decide.rs).
#[inline]
fn attempts(drawable: u32) -> u64 {
    u64::from(drawable.min(ATTEMPTS_MAX))
}

const ATTEMPTS_MAX: u32 = 32;
