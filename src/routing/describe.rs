//! A link as the table has it, for people: its tiers in the order in which they are tried, and what each entry asks for.

use crate::types::{AffiliateId, LinkId, OfferId, RuleId};

use super::explain::wanted;
use super::layers::LayeredTable;
use super::snapshot::Rotation;
use super::table::{EntryRow, Table, Tier};

/// A link of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkFace {
    pub affiliate: AffiliateId,
    pub active: bool,
    /// Whether offers whose caps are full are passed over.
    pub cap_aware: bool,
    /// Whether it has a fallback of its own.
    pub has_fallback: bool,
    pub tiers: Vec<TierFace>,
}

/// The entries of one priority.
#[derive(Clone, Debug, PartialEq)]
pub struct TierFace {
    pub priority: u32,
    pub rotation: Rotation,
    /// By offer, then by rule, the plain attachment first.
    pub entries: Vec<EntryFace>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryFace {
    pub offer: OfferId,
    pub rule: Option<RuleId>,
    pub weight: u8,
    pub offer_active: bool,
    /// What must hold, of the entry and of its offer.
    pub conditions: Vec<ConditionFace>,
    /// What it is drawn with where every entry of the tier is open to the click, from 0 to 1.
    pub share: f64,
}

/// One condition: `country`, `in US, CA`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConditionFace {
    pub name: &'static str,
    pub wanted: String,
    /// Whether the offer brings it, as its geo targets and its end; else the entry's rule does. What both bring is once
    /// in the table, and the offer's: without the rule's it would still hold.
    pub of_offer: bool,
}

/// `None`: the link is not in the table.
pub fn describe(layers: &LayeredTable, link: LinkId) -> Option<LinkFace> {
    let table = layers.of(link);
    let row = table.row(link)?;
    Some(LinkFace {
        affiliate: row.affiliate,
        active: row.active,
        cap_aware: row.cap_aware,
        has_fallback: row.fallback.is_some(),
        tiers: table.tiers_of(row).iter().map(|tier| face_of(table, tier)).collect(),
    })
}

fn face_of(table: &Table, tier: &Tier) -> TierFace {
    let can_be_drawn = |entry: &EntryRow| entry.weight > 0 && table.offers[entry.offer as usize].active;
    let of_offer = |entry: &EntryRow| table.conditions_of(table.offers[entry.offer as usize].targeting);
    let mut entries: Vec<EntryFace> = table
        .all_entries(tier)
        .iter()
        .map(|entry| EntryFace {
            offer: table.offers[entry.offer as usize].id,
            rule: entry.rule,
            weight: entry.weight,
            offer_active: table.offers[entry.offer as usize].active,
            conditions: table
                .conditions_of(entry.targeting)
                .iter()
                .map(|condition| ConditionFace {
                    name: condition.name(),
                    wanted: wanted(condition),
                    of_offer: of_offer(entry).contains(condition),
                })
                .collect(),
            share: if can_be_drawn(entry) { tier.rotation.share(entry.weight).into() } else { 0.0 },
        })
        .collect();
    entries.sort_by_key(|entry| (entry.offer, entry.rule));
    if tier.rotation == Rotation::Priority {
        // The first that can be drawn takes all.
        let first = entries.iter().position(|entry| entry.share > 0.0);
        for (index, entry) in entries.iter_mut().enumerate() {
            entry.share = if Some(index) == first { 1.0 } else { 0.0 };
        }
    }
    let all: f64 = entries.iter().map(|entry| entry.share).sum();
    if all > 0.0 {
        for entry in &mut entries {
            entry.share /= all;
        }
    }
    TierFace { priority: tier.priority, rotation: tier.rotation, entries }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::routing::{
        Attachment, CompileOptions, Condition, Entry, Link, Mode, Offer, Snapshot, ValueSet, Weight, compile,
    };
    use crate::types::{Country, CountrySet};

    fn country(mode: Mode, code: &str) -> Condition {
        let set = ValueSet::Country([Country::parse(code).unwrap()].into_iter().collect());
        Condition::Value { mode, set }
    }

    fn table(rotation: Rotation) -> LayeredTable {
        let (link, mut snapshot) = (LinkId::new(1).unwrap(), Snapshot::default());
        snapshot.links.to_mut().push(Link {
            id: link,
            affiliate: AffiliateId::new(7).unwrap(),
            active: true,
            rotation,
            cap_aware: true,
            fallback_url: None,
        });
        for (offer, weight, active) in [(11, 60, true), (12, 20, true), (13, 0, true), (14, 50, false)] {
            let id = OfferId::new(offer).unwrap();
            snapshot.offers.push(Offer {
                id,
                active,
                expires_at: None,
                url: format!("https://o{offer}.example/"),
                targeting: if offer == 12 { vec![country(Mode::NotIn, "GB")] } else { Vec::new() },
            });
            let attachment =
                Attachment { link, offer: id, priority: 2, weight: Weight::new(weight).unwrap() };
            snapshot.attachments.to_mut().push(attachment);
        }
        let us = [Country::parse("US").unwrap()].into_iter().collect::<CountrySet>();
        let conditions = Arc::from([Condition::Value { mode: Mode::In, set: ValueSet::Country(us) }]);
        snapshot.entries.to_mut().push(Entry {
            link,
            offer: OfferId::new(12).unwrap(),
            weight: Weight::new(1).unwrap(),
            priority: 1,
            rule: RuleId::new(5),
            conditions,
        });
        compile(&snapshot, &CompileOptions::default()).0.into()
    }

    #[test]
    fn a_link_is_told_as_it_is_tried() {
        let link = describe(&table(Rotation::Weighted), LinkId::new(1).unwrap()).unwrap();
        assert_eq!((link.affiliate.value(), link.active, link.has_fallback), (7, true, false));
        let priorities: Vec<u32> = link.tiers.iter().map(|tier| tier.priority).collect();
        assert_eq!(priorities, [1, 2]);
        let rule = &link.tiers[0].entries[0];
        assert_eq!((rule.rule, rule.share), (RuleId::new(5), 1.0));
        let condition =
            |name, wanted: &str, of_offer| ConditionFace { name, wanted: wanted.to_owned(), of_offer };
        let of_offer = condition("country", "not in GB", true);
        assert_eq!(rule.conditions, [condition("country", "in US", false), of_offer.clone()]);
        assert_eq!(link.tiers[1].entries[1].conditions, [of_offer]);
        let shares: Vec<(u32, f64)> =
            link.tiers[1].entries.iter().map(|entry| (entry.offer.value(), entry.share)).collect();
        assert_eq!(shares, [(11, 0.75), (12, 0.25), (13, 0.0), (14, 0.0)]);
        assert_eq!(describe(&table(Rotation::Weighted), LinkId::new(2).unwrap()), None);
    }

    #[test]
    fn shares_are_those_of_the_rotation() {
        let shares = |rotation| {
            let link = describe(&table(rotation), LinkId::new(1).unwrap()).unwrap();
            link.tiers[1].entries.iter().map(|entry| entry.share).collect::<Vec<_>>()
        };
        assert_eq!(shares(Rotation::Even), [0.5, 0.5, 0.0, 0.0]);
        assert_eq!(shares(Rotation::Priority), [1.0, 0.0, 0.0, 0.0]);
    }
}
