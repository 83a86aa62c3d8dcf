//! What a change would do to the routing of one link: the link as it is live beside the link as it would be compiled.
//! Nothing is published for it, and nothing is asked of a click.
//!
//! It does not know how caps will stand, nor who will come: shares are of the clicks for which the entries of a tier hold
//! and are open.

use std::collections::BTreeMap;

use super::Console;
use super::names::Names;
use super::reading::WholeLink;
use super::show;
use crate::cake::Network;
use crate::cake::wire::FieldError;
use crate::routing::{
    ConditionFace, EntryFace, LayeredTable, LinkFace, Rotation, TierFace, compile, describe,
};
use crate::types::{LinkId, OfferId, RuleId};

/// Before and after.
pub struct Preview {
    /// What changes for all clicks of the link.
    pub notes: Vec<String>,
    /// What the compiler says of it.
    pub warnings: Vec<String>,
    pub tiers: Vec<Tier>,
    pub is_same: bool,
}

/// The entries of one priority, of before and of after.
pub struct Tier {
    pub priority: u32,
    pub rotation: String,
    pub entries: Vec<Entry>,
}

/// One entry.
pub struct Entry {
    pub offer: u32,
    pub offer_name: String,
    pub by: String,
    /// For which visitors.
    pub conditions: Vec<ConditionFace>,
    /// What were its conditions, if they change.
    pub conditions_before: Option<Vec<ConditionFace>>,
    pub weight: Change,
    /// Of the clicks for which every entry of the tier holds.
    pub share: Change,
    /// Of the clicks for which no condition of the tier holds.
    pub base: Change,
    pub class: &'static str,
    pub word: &'static str,
}

/// A figure before and after; a dash where there is none.
pub struct Change {
    pub before: String,
    pub after: String,
}

/// An entry, and its share where no condition holds; `None`: it is not there.
type Side<'a> = Option<(&'a EntryFace, f64)>;

impl Change {
    pub fn is_one(&self) -> bool {
        self.before != self.after
    }
}

impl Entry {
    /// In the order of the columns.
    pub fn figures(&self) -> [&Change; 3] {
        [&self.weight, &self.share, &self.base]
    }
}

/// Compares the link as it is live with the link as it would be. What cannot be read is said in the words of the API.
pub fn of(console: &Console, names: &Names, link: LinkId, after: &WholeLink) -> Result<Preview, FieldError> {
    let parts = console.parts();
    let live = parts.table.current();
    let network = Network {
        smart_links: vec![after.link.read()?],
        offers: after.offers.clone(),
        offer_geo_targets: after.geo_targets.clone(),
        smart_link_offers: after.attached.iter().map(|entry| entry.read()).collect::<Result<_, _>>()?,
        routing_rules: after.rules.iter().map(|rule| rule.read()).collect::<Result<_, _>>()?,
        offer_caps: Vec::new(),
    };
    let (snapshot, unread) = network.to_snapshot(&parts.zone);
    let (table, warnings) = compile(&snapshot, &parts.compile);
    let compiled = LayeredTable::from(table);
    let (before, after) = (describe(&live.table, link), describe(&compiled, link));
    let warnings = unread.iter().chain(&warnings).map(ToString::to_string).collect();
    Ok(Preview { warnings, ..compare(before.as_ref(), after.as_ref(), names) })
}

fn compare(before: Option<&LinkFace>, after: Option<&LinkFace>, names: &Names) -> Preview {
    let mut notes = Vec::new();
    let said = |face: &LinkFace| {
        [
            if face.active { "active" } else { "inactive: every click goes to the fallback" },
            if face.cap_aware {
                "offers whose caps are full are passed over"
            } else {
                "caps are not looked at"
            },
            if face.has_fallback { "a fallback of its own" } else { "the network’s fallback" },
        ]
    };
    match (before, after) {
        (Some(before), Some(after)) => {
            if before.affiliate != after.affiliate {
                notes.push(format!(
                    "It takes the clicks of affiliate {} alone, and no longer those of {}.",
                    after.affiliate, before.affiliate
                ));
            }
            for (was, is) in said(before).iter().zip(said(after)).filter(|(was, is)| **was != *is) {
                notes.push(format!("Now: {was}. Then: {is}."));
            }
        }
        (None, Some(after)) => {
            notes.push("The link is not live yet.".to_owned());
            notes.extend(said(after).map(|said| format!("Then: {said}.")));
        }
        (_, None) => notes.push("The link would not be in the table.".to_owned()),
    }
    let mut priorities: BTreeMap<u32, [Option<&TierFace>; 2]> = BTreeMap::new();
    for (side, face) in [before, after].into_iter().enumerate() {
        for tier in face.iter().flat_map(|face| &face.tiers) {
            priorities.entry(tier.priority).or_default()[side] = Some(tier);
        }
    }
    let tiers: Vec<Tier> =
        priorities.into_iter().map(|(priority, [was, is])| tier(priority, was, is, names)).collect();
    let has_other = |tier: &Tier| tier.entries.iter().any(|entry| entry.word != "same");
    let is_same = before.is_some() && notes.is_empty() && !tiers.iter().any(has_other);
    Preview { notes, warnings: Vec::new(), tiers, is_same }
}

fn tier(priority: u32, was: Option<&TierFace>, is: Option<&TierFace>, names: &Names) -> Tier {
    let bases = [was, is].map(|tier| tier.map(without_conditions).unwrap_or_default());
    let mut entries: BTreeMap<(OfferId, Option<RuleId>), [Side<'_>; 2]> = BTreeMap::new();
    for (side, tier) in [was, is].into_iter().enumerate() {
        for (entry, base) in tier.iter().flat_map(|tier| &tier.entries).zip(&bases[side]) {
            entries.entry((entry.offer, entry.rule)).or_default()[side] = Some((entry, *base));
        }
    }
    let rotations = [was, is].map(|tier| tier.map(|tier| said(tier.rotation)));
    Tier {
        priority,
        rotation: match rotations {
            [Some(was), Some(is)] if was != is => format!("now {was}, then {is}"),
            [was, is] => is.or(was).unwrap_or_default().to_owned(),
        },
        entries: entries.into_iter().map(|((offer, rule), sides)| entry(offer, rule, sides, names)).collect(),
    }
}

fn entry(offer: OfferId, rule: Option<RuleId>, [was, is]: [Side<'_>; 2], names: &Names) -> Entry {
    let figure = |of: &dyn Fn(&EntryFace, f64) -> String| {
        let side = |side: Side<'_>| side.map_or_else(|| "–".to_owned(), |(entry, base)| of(entry, base));
        Change { before: side(was), after: side(is) }
    };
    let weight = figure(&|entry, _| entry.weight.to_string());
    let share = figure(&|entry, _| show::percent(Some(entry.share)));
    let base = figure(&|entry, base| match entry.conditions.is_empty() {
        true => show::percent(Some(base)),
        // It holds for none of those clicks.
        false => "–".to_owned(),
    });
    let conditions = |side: Side<'_>| side.map(|(entry, _)| entry.conditions.clone());
    let (conditions_was, conditions_is) = (conditions(was), conditions(is));
    let (class, word) = match (was, is) {
        (None, _) => ("well", "new"),
        (_, None) => ("ill", "gone"),
        _ if conditions_was != conditions_is => ("note", "other visitors"),
        (Some((was, _)), Some((is, _))) if is.share > was.share => ("note", "more"),
        (Some((was, _)), Some((is, _))) if is.share < was.share => ("note", "less"),
        _ if weight.is_one() || base.is_one() => ("note", "other"),
        _ => ("off", "same"),
    };
    let by = match rule.map(RuleId::value) {
        None => "attached".to_owned(),
        Some(NEW_RULE) => "new rule".to_owned(),
        Some(rule) => format!("rule {rule}"),
    };
    Entry {
        offer: offer.value(),
        offer_name: names.offer(offer.value()).map_or_else(String::new, |offer| offer.name.to_string()),
        by,
        conditions_before: conditions_was
            .clone()
            .filter(|was| is.is_some() && Some(was) != conditions_is.as_ref()),
        conditions: conditions_is.or(conditions_was).unwrap_or_default(),
        weight,
        share,
        base,
        class,
        word,
    }
}

/// What each entry would be drawn with by a click for which no condition holds.
fn without_conditions(tier: &TierFace) -> Vec<f64> {
    let can_be_drawn =
        |entry: &EntryFace| entry.conditions.is_empty() && entry.weight > 0 && entry.offer_active;
    let mut taken = false;
    let weights: Vec<f64> = tier
        .entries
        .iter()
        .map(|entry| match tier.rotation {
            _ if !can_be_drawn(entry) => 0.0,
            Rotation::Weighted => f64::from(entry.weight),
            Rotation::Even => 1.0,
            // The first takes all.
            Rotation::Priority => f64::from(u8::from(!std::mem::replace(&mut taken, true))),
        })
        .collect();
    let all: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| if all > 0.0 { weight / all } else { 0.0 }).collect()
}

fn said(rotation: Rotation) -> &'static str {
    match rotation {
        Rotation::Weighted => "one is drawn by weight",
        Rotation::Even => "one is drawn, each as likely",
        Rotation::Priority => "the one with the lowest offer number takes all",
    }
}

/// The number of a rule that has none yet: a store counts from 1.
pub const NEW_RULE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::AffiliateId;

    fn condition(name: &'static str) -> ConditionFace {
        ConditionFace { name, wanted: "in US".to_owned(), of_offer: false }
    }

    fn face(entries: &[(u32, Option<u32>, u8, &[&'static str])], rotation: Rotation) -> LinkFace {
        let entries: Vec<EntryFace> = entries
            .iter()
            .map(|&(offer, rule, weight, names)| EntryFace {
                offer: OfferId::new(offer).unwrap(),
                rule: rule.and_then(RuleId::new),
                weight,
                offer_active: true,
                conditions: names.iter().copied().map(condition).collect(),
                share: f64::from(weight) / 100.0,
            })
            .collect();
        LinkFace {
            affiliate: AffiliateId::new(7).unwrap(),
            active: true,
            cap_aware: true,
            has_fallback: false,
            tiers: vec![TierFace { priority: 1, rotation, entries }],
        }
    }

    fn words(preview: &Preview) -> Vec<(u32, String, &'static str)> {
        let entries = preview.tiers.iter().flat_map(|tier| &tier.entries);
        entries.map(|entry| (entry.offer, entry.by.clone(), entry.word)).collect()
    }

    #[test]
    fn what_comes_goes_and_stays() {
        let before = face(
            &[(1, None, 60, &[]), (2, None, 40, &[]), (3, Some(9), 10, &["country"])],
            Rotation::Weighted,
        );
        let same = compare(Some(&before), Some(&before), &Names::default());
        assert!(same.is_same && words(&same).iter().all(|(_, _, word)| *word == "same"));
        let after = face(
            &[(1, None, 70, &[]), (3, Some(9), 10, &["device"]), (4, Some(NEW_RULE), 30, &["country"])],
            Rotation::Weighted,
        );
        let preview = compare(Some(&before), Some(&after), &Names::default());
        assert!(!preview.is_same && preview.notes.is_empty());
        let words = words(&preview);
        let words: Vec<_> = words.iter().map(|(offer, by, word)| (*offer, by.as_str(), *word)).collect();
        assert_eq!(
            words,
            [
                (1, "attached", "more"),
                (2, "attached", "gone"),
                (3, "rule 9", "other visitors"),
                (4, "new rule", "new")
            ]
        );
        let first = &preview.tiers[0].entries[0];
        assert_eq!((first.weight.before.as_str(), first.weight.after.as_str()), ("60", "70"));
        assert_eq!(
            (first.base.before.as_str(), first.base.after.as_str()),
            ("60.0\u{202f}%", "100.0\u{202f}%")
        );
        assert_eq!(preview.tiers[0].entries[2].conditions_before, Some(vec![condition("country")]));
        assert_eq!(preview.tiers[0].entries[3].base.after, "–");
    }

    #[test]
    fn what_changes_for_the_whole_link_is_said() {
        let before = face(&[], Rotation::Weighted);
        let after = LinkFace {
            active: false,
            cap_aware: false,
            has_fallback: true,
            affiliate: AffiliateId::new(8).unwrap(),
            ..before.clone()
        };
        let preview = compare(Some(&before), Some(&after), &Names::default());
        assert!(!preview.is_same);
        assert_eq!(preview.notes.len(), 4, "{:?}", preview.notes);
        assert!(compare(None, Some(&before), &Names::default()).notes[0].contains("not live yet"));
    }

    #[test]
    fn of_those_without_conditions_the_first_takes_all_by_priority() {
        let face = face(
            &[(1, Some(1), 1, &["os"]), (2, None, 0, &[]), (3, None, 1, &[]), (4, None, 1, &[])],
            Rotation::Priority,
        );
        assert_eq!(without_conditions(&face.tiers[0]), [0.0, 0.0, 1.0, 0.0]);
        let even = TierFace { rotation: Rotation::Even, ..face.tiers[0].clone() };
        assert_eq!(without_conditions(&even), [0.0, 0.0, 0.5, 0.5]);
    }
}
