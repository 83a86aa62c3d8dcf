//! A decision told step by step: every tier and entry of the link, and the condition that failed.
//!
//! The decision itself comes from [`decide`]; the story asks each entry with the same [`Condition::holds`].

use std::fmt;

use crate::types::{AffiliateId, Click, Draw, OfferId, RuleId};

use super::caps::{CapView, ClosedCap};
use super::decide::{Choice, Decision, decide};
use super::table::{EntryRow, LinkRow, Table, Tier};
use super::targeting::{Condition, DAY_NAMES, Mode, ValueSet};

/// Why a click goes where it goes.
#[derive(Debug)]
pub struct Explanation<'t> {
    pub decision: Decision<'t>,
    /// Whose link it is; `None`: it is unknown.
    pub affiliate: Option<AffiliateId>,
    /// Every tier of the link, in the order in which they are tried. Empty if the link is unknown.
    pub tiers: Vec<TierStory>,
}

/// One tier of the link.
#[derive(Debug)]
pub struct TierStory {
    pub priority: u32,
    /// By offer, then by rule, the plain attachment first.
    pub entries: Vec<EntryStory>,
}

/// One entry of a tier.
#[derive(Debug)]
pub struct EntryStory {
    pub offer: OfferId,
    pub rule: Option<RuleId>,
    pub weight: u8,
    /// All conditions hold, the offer is active and not expired.
    pub eligible: bool,
    /// Eligible, and its caps are open, or the link does not look at them.
    pub open: bool,
    /// The closed caps of the offer for the link's affiliate, whether or not they matter.
    pub closed_caps: Vec<ClosedCap>,
    /// Why the entry is not eligible, or cannot be drawn: the first thing that failed.
    pub failed: Option<Failure>,
    /// The entry that took the click.
    pub chosen: bool,
}

/// What kept an entry from being drawn.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    OfferNotActive,
    NoWeight,
    /// A condition of the rule, or of the offer.
    Condition {
        /// As a rule writes it: `country`.
        name: &'static str,
        /// What the condition asks for: `in US, CA`.
        wanted: String,
        /// The click's value; `None` if it is unknown.
        found: Option<String>,
    },
    /// It is eligible, and these are closed.
    Capped {
        caps: Vec<ClosedCap>,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::OfferNotActive => f.write_str("the offer is not active"),
            Failure::NoWeight => f.write_str("its weight is 0: attached, gets no traffic"),
            Failure::Condition { name, wanted, found } => {
                let found = found.as_deref().unwrap_or("unknown");
                write!(f, "{name} must be {wanted}; the click's is {found}")
            }
            Failure::Capped { caps } => {
                let names: Vec<String> = caps.iter().map(ClosedCap::to_string).collect();
                write!(f, "closed by {}", names.join(" and "))
            }
        }
    }
}

/// Decides a click and says why.
pub fn explain<'t>(table: &'t Table, caps: &impl CapView, click: &Click<'_>, draw: Draw) -> Explanation<'t> {
    let decision = decide(table, caps, click, draw);
    let Some(row) = table.row(click.link) else {
        return Explanation { decision, affiliate: None, tiers: Vec::new() };
    };
    let story = |tier: &Tier| {
        let tell = |entry| tell(table, row, caps, tier.priority, entry, click, decision.choice);
        let mut entries: Vec<EntryStory> = table.all_entries(tier).iter().map(tell).collect();
        // As an operator knows them; the table has an order of its own.
        entries.sort_by_key(|entry| (entry.offer, entry.rule));
        TierStory { priority: tier.priority, entries }
    };
    let tiers = table.tiers_of(row).iter().map(story).collect();
    Explanation { decision, affiliate: Some(row.affiliate), tiers }
}

fn tell(
    table: &Table,
    row: &LinkRow,
    caps: &impl CapView,
    priority: u32,
    entry: &EntryRow,
    click: &Click<'_>,
    choice: Option<Choice>,
) -> EntryStory {
    let offer = &table.offers[entry.offer as usize];
    let conditions = table.conditions_of(entry.targeting);
    let failed_condition = conditions.iter().find(|condition| !condition.holds(click));
    let eligible = offer.active && failed_condition.is_none();
    let closed_caps = caps.closed_caps(offer.id, row.affiliate);
    let open = eligible && (closed_caps.is_empty() || !row.cap_aware);
    let failed = if !offer.active {
        Some(Failure::OfferNotActive)
    } else if let Some(condition) = failed_condition {
        Some(Failure::Condition {
            name: condition.name(),
            wanted: wanted(condition),
            found: found(condition, click),
        })
    } else if entry.weight == 0 {
        Some(Failure::NoWeight)
    } else if !open {
        Some(Failure::Capped { caps: closed_caps.clone() })
    } else {
        None
    };
    EntryStory {
        offer: offer.id,
        rule: entry.rule,
        weight: entry.weight,
        eligible,
        open,
        closed_caps,
        failed,
        chosen: choice == Some(Choice { offer: offer.id, rule: entry.rule, priority }),
    }
}

pub(super) fn wanted(condition: &Condition) -> String {
    match condition {
        Condition::Value { mode, set } => {
            let mode = if *mode == Mode::In { "in" } else { "not in" };
            format!("{mode} {}", members(set))
        }
        Condition::Hours(hours) => {
            let days: Vec<&str> =
                hours.days().map(|day| DAY_NAMES[day.to_monday_zero_offset() as usize]).collect();
            format!("{} to {} on {} in {}", hours.from(), hours.to(), days.join(", "), hours.zone().name())
        }
        Condition::Before(moment) => format!("before {}", show_moment(moment.0)),
    }
}

fn members(set: &ValueSet) -> String {
    fn join<T: fmt::Display>(values: impl Iterator<Item = T>) -> String {
        values.map(|value| value.to_string()).collect::<Vec<_>>().join(", ")
    }
    match set {
        ValueSet::Country(set) => join(set.iter()),
        ValueSet::Region(set) => join(set.iter()),
        ValueSet::City(set) => join(set.iter()),
        ValueSet::Asn(set) => join(set.iter()),
        ValueSet::Device(set) => join(set.iter()),
        ValueSet::Os(set) => join(set.iter()),
        ValueSet::Browser(set) => join(set.iter()),
        ValueSet::Language(set) => join(set.iter()),
        ValueSet::Sub(_, set) => join(set.iter()),
        ValueSet::ReferrerHost(set) => join(set.iter()),
        ValueSet::Ip(set) => join(set.iter()),
    }
}

fn found(condition: &Condition, click: &Click<'_>) -> Option<String> {
    match condition {
        Condition::Value { set, .. } => match set {
            ValueSet::Country(_) => click.place.country.map(|country| country.to_string()),
            ValueSet::Region(_) => click.place.region.map(|region| region.to_string()),
            ValueSet::City(_) => click.place.city.map(str::to_owned),
            ValueSet::Asn(_) => click.place.asn.map(|asn| asn.to_string()),
            ValueSet::Device(_) => Some(click.device.kind.to_string()),
            ValueSet::Os(_) => Some(click.device.os.to_string()),
            ValueSet::Browser(_) => Some(click.device.browser.to_string()),
            ValueSet::Language(_) => click.language.map(|language| language.to_string()),
            ValueSet::Sub(index, _) => click.subs[*index].map(str::to_owned),
            ValueSet::ReferrerHost(_) => click.referrer_host.map(str::to_owned),
            ValueSet::Ip(_) => Some(click.address.to_string()),
        },
        Condition::Hours(hours) => hours
            .zone()
            .civil(click.at)
            .map(|local| local.strftime("%H:%M on %a").to_string().to_ascii_lowercase()),
        Condition::Before(_) => Some(show_moment(click.at.0)),
    }
}

fn show_moment(unix_millis: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_millis)
        .map_or_else(|_| format!("{unix_millis} ms"), |at| at.to_string())
}
