//! Table, caps, click, draw → decision. The whole of SPEC 3 on one screen; everything it needs is an argument.

use std::cell::Cell;

use crate::types::{Click, Draw, OfferId, RuleId};

use super::alias;
use super::caps::CapView;
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
    /// Whether the click counts towards the caps of the chosen offer: those of a link that is not aware of caps do not.
    pub charges: bool,
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
    /// Entries were eligible, and a cap closed each of them.
    Capped,
}

impl Outcome {
    pub const ALL: [Outcome; 8] = [
        Outcome::Offer,
        Outcome::UnknownLink,
        Outcome::InactiveLink,
        Outcome::AffiliateMismatch,
        Outcome::Bot,
        Outcome::NoOffers,
        Outcome::NoMatch,
        Outcome::Capped,
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
            Outcome::Capped => "capped",
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
pub fn decide<'t>(table: &'t Table, caps: &impl CapView, click: &Click<'_>, draw: Draw) -> Decision<'t> {
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
    let capped = Cell::new(false);
    let is_open = |entry: &EntryRow| {
        let is_open = !row.cap_aware || caps.is_open(table.offers[entry.offer as usize].id, row.affiliate);
        if !is_open {
            capped.set(true);
        }
        is_open
    };
    let tiers = table.tiers_of(row);
    for tier in tiers {
        if let Some(entry) = pick(table, tier, click, draw, &is_open) {
            let offer = &table.offers[entry.offer as usize];
            return Decision {
                outcome: Outcome::Offer,
                choice: Some(Choice { offer: offer.id, rule: entry.rule, priority: tier.priority }),
                destination: Some(&table.templates[offer.url as usize]),
                charges: row.cap_aware,
            };
        }
    }
    let outcome = match (tiers.is_empty(), capped.get()) {
        (true, _) => Outcome::NoOffers,
        (false, true) => Outcome::Capped,
        (false, false) => Outcome::NoMatch,
    };
    fallback(outcome, table.row_fallback(row))
}

fn fallback(outcome: Outcome, destination: Option<&Template>) -> Decision<'_> {
    Decision { outcome, choice: None, destination, charges: false }
}

/// Draws one of the open entries of a tier, if there is any: of those that are eligible and whose caps are open. Caps are
/// asked last, and of no entry that the click cannot have.
#[inline]
fn pick<'t>(
    table: &'t Table,
    tier: &Tier,
    click: &Click<'_>,
    draw: Draw,
    is_open: &impl Fn(&EntryRow) -> bool,
) -> Option<&'t EntryRow> {
    if tier.rotation == Rotation::Priority {
        let eligible = table.runs(tier).filter(|run| holds(table, run[0].targeting, click));
        return eligible.flatten().find(|entry| is_open(entry));
    }
    // Rejection keeps the shares exact: an entry that is not open is drawn again, by a number independent of
    // the last, so what remains is drawn in proportion to the weights of the open.
    let entries = table.drawable(tier);
    let (mut number, mut used, mut limit) = (draw.0, 0, attempts(tier.runs));
    while used < limit {
        let (slot, inside) = alias::slot_of(number, tier.drawable);
        let kept = &entries[slot as usize];
        let entry = if inside < kept.slot.threshold { kept } else { &entries[kept.slot.alias as usize] };
        if holds(table, entry.targeting, click) {
            if is_open(entry) {
                return Some(entry);
            }
            // A pass would ask the caps of every entry of the run, and not its targeting alone.
            limit = attempts(tier.drawable);
        }
        used += 1;
        number = alias::expand(draw.0, used);
    }
    pick_by_pass(table, tier, click, draw, used, is_open)
}

/// Asks every run once, and every entry of it: the end of a tier in which little or nothing is open. `used` numbers of
/// the draw are spent.
#[cold]
fn pick_by_pass<'t>(
    table: &'t Table,
    tier: &Tier,
    click: &Click<'_>,
    draw: Draw,
    used: u64,
    is_open: &impl Fn(&EntryRow) -> bool,
) -> Option<&'t EntryRow> {
    // A reservoir of one (Chao, 1982): each eligible run replaces the one kept so far with probability
    // weight / (sum of the weights up to it), which leaves every run with weight / (sum of all). Weights are those of what
    // is open in the run.
    let share = |entry: &EntryRow| u64::from(tier.rotation.share(entry.weight));
    let (mut kept, mut kept_weight, mut total, mut next) = (None, 0, 0, used);
    for run in table.runs(tier).filter(|run| holds(table, run[0].targeting, click)) {
        let weight = run.iter().filter(|entry| is_open(entry)).map(share).sum();
        total += weight;
        if alias::below(total, alias::expand(draw.0, next)) < weight {
            (kept, kept_weight) = (Some(run), weight);
        }
        next += 1;
    }
    let left = alias::below(kept_weight, alias::expand(draw.0, next));
    pick_open(kept?, left, share, is_open)
}

/// The entry on which `left` falls, laid over the shares of the open entries. Where a cap has closed since they were
/// counted, the last of them stands in for what is missing; `None` only if all of them have closed.
fn pick_open<'t>(
    run: &'t [EntryRow],
    mut left: u64,
    share: impl Fn(&EntryRow) -> u64,
    is_open: &impl Fn(&EntryRow) -> bool,
) -> Option<&'t EntryRow> {
    let mut last = None;
    for entry in run.iter().filter(|entry| is_open(entry)) {
        last = Some(entry);
        match left.checked_sub(share(entry)) {
            Some(rest) => left = rest,
            None => break,
        }
    }
    last
}

/// Whether every condition of the entry and of its offer holds.
#[inline]
fn holds(table: &Table, targeting: u32, click: &Click<'_>) -> bool {
    targeting == ALWAYS || table.conditions_of(targeting).iter().all(|condition| condition.holds(click))
}

/// How often to draw before a pass that asks so many questions: so often that a pass is rare while a tenth of a large tier
/// is open, never so often that the draws cost more than the pass (`benches/decide.rs`).
#[inline]
fn attempts(questions: u32) -> u64 {
    u64::from(questions).div_ceil(QUESTIONS_PER_ATTEMPT).min(ATTEMPTS_MAX)
}

const QUESTIONS_PER_ATTEMPT: u64 = 4;

const ATTEMPTS_MAX: u64 = 32;
