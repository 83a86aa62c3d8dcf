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
    /// Where the visitor is sent. `None`: there is no fallback either, or a bot is to be blocked.
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
    if click.device.bot {
        match table.bots {
            BotPolicy::Route => {}
            BotPolicy::Fallback => return fallback(Outcome::Bot, table.row_fallback(row)),
            BotPolicy::Block => return fallback(Outcome::Bot, None),
        }
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
    if tier.rotation == Rotation::Priority {
        return table.runs(tier).find(|run| holds(table, run[0].targeting, click))?.first();
    }
    // Rejection keeps the shares exact: an entry that is not eligible is drawn again, by a number independent of
    // the last, so what remains is drawn in proportion to the weights of the eligible.
    let entries = table.drawable(tier);
    let attempts = attempts(tier);
    let mut number = draw.0;
    for attempt in 1..=attempts {
        let (slot, inside) = alias::slot_of(number, tier.drawable);
        let kept = &entries[slot as usize];
        let entry = if inside < kept.slot.threshold { kept } else { &entries[kept.slot.alias as usize] };
        if holds(table, entry.targeting, click) {
            return Some(entry);
        }
        number = alias::expand(draw.0, attempt);
    }
    pick_by_pass(table, tier, click, draw, attempts)
}

/// Asks every run once: the end of a tier in which little or nothing is eligible. `used` numbers of the draw are spent.
#[cold]
fn pick_by_pass<'t>(
    table: &'t Table,
    tier: &Tier,
    click: &Click<'_>,
    draw: Draw,
    used: u64,
) -> Option<&'t EntryRow> {
    // A reservoir of one (Chao, 1982): each eligible run replaces the one kept so far with probability
    // weight / (sum of the weights up to it), which leaves every run with weight / (sum of all).
    let share = |entry: &EntryRow| u64::from(tier.rotation.share(entry.weight));
    let (mut kept, mut kept_weight, mut total, mut next) = (None, 0, 0, used);
    for run in table.runs(tier).filter(|run| holds(table, run[0].targeting, click)) {
        let weight = run.iter().map(share).sum();
        total += weight;
        if alias::below(total, alias::expand(draw.0, next)) < weight {
            (kept, kept_weight) = (Some(run), weight);
        }
        next += 1;
    }
    let mut left = alias::below(kept_weight, alias::expand(draw.0, next));
    kept?.iter().find(|entry| {
        let own = share(entry);
        let found = left < own;
        left = left.wrapping_sub(own);
        found
    })
}

/// Whether every condition of the entry and of its offer holds.
#[inline]
fn holds(table: &Table, targeting: u32, click: &Click<'_>) -> bool {
    targeting == ALWAYS || table.conditions_of(targeting).iter().all(|condition| condition.holds(click))
}

/// How often to draw before asking every run: so often that a pass is rare while a tenth of a large tier is eligible,
/// never so often that the draws cost more than the pass (`benches/decide.rs`).
#[inline]
fn attempts(tier: &Tier) -> u64 {
    u64::from(tier.runs).div_ceil(RUNS_PER_ATTEMPT).min(ATTEMPTS_MAX)
}

const RUNS_PER_ATTEMPT: u64 = 4;

const ATTEMPTS_MAX: u64 = 32;
