//! An item that came and could not be read keeps its last good version.
//!
//! It is not deleted: the upstream still has it. Where its id can be told, that item stays as it was; where it cannot,
//! everything stays that is missing from its list, for any of it may be the one.

use std::collections::HashSet;

use crate::cake::wire::{OfferCap, OfferGeoTargets, OfferItem};
use crate::cake::{ItemId, List, Network, Unreadable, rule_id};
use crate::routing::{Attachment, Link, Warning};

/// Puts last good items in the place of unreadable ones. Answers a warning for each that came. The network is
/// canonical, and no longer so after it.
pub fn stand_in(network: &mut Network, unreadable: &[Unreadable], last_good: &Network) -> Vec<Warning> {
    if unreadable.is_empty() {
        return Vec::new();
    }
    let closed = stand_in_for_offers(network, unreadable, last_good);
    let links = Doubt::about(List::SmartLinks, unreadable);
    add(&mut network.smart_links, &last_good.smart_links, &links, link_id, |_| true);
    let offers: HashSet<i64> = network.offers.iter().map(|offer| offer.offer_id).collect();
    let links: HashSet<i64> = network.smart_links.iter().map(|link| link_id(link).0).collect();
    add(
        &mut network.smart_link_offers,
        &last_good.smart_link_offers,
        &Doubt::about(List::SmartLinkOffers, unreadable),
        entry_id,
        |entry| links.contains(&entry_id(entry).0) && offers.contains(&entry_id(entry).1),
    );
    add(
        &mut network.routing_rules,
        &last_good.routing_rules,
        &Doubt::about(List::RoutingRules, unreadable),
        |rule| (rule_id(rule), 0),
        |rule| links.contains(&rule.link.value().into()) && offers.contains(&rule.offer.value().into()),
    );
    add(
        &mut network.offer_caps,
        &last_good.offer_caps,
        &Doubt::about(List::OfferCaps, unreadable),
        OfferCap::id,
        |cap| offers.contains(&cap.offer_id),
    );
    let present = Present::of(network, unreadable);
    let told = unreadable.iter().map(|row| {
        let instead = match row.id {
            None => "it is left out, and what its list lacks of the last good snapshot stays",
            Some(id) if present.has(row.list, id) => "its last good version stays",
            Some(_) => "it is left out",
        };
        Warning::new(row, format!("cannot be read: {}; {instead}", row.reason))
    });
    let closed = closed
        .into_iter()
        .map(|offer| Warning::new(format!("offer {offer}"), "its geo targets are not known; it is left out"));
    told.chain(closed).collect()
}

/// An offer and its geo targets stay together. An offer whose geo targets cannot be known is left out: it would be
/// open to countries that its advertiser does not pay for. Answers those.
fn stand_in_for_offers(network: &mut Network, unreadable: &[Unreadable], last_good: &Network) -> Vec<i64> {
    let offers = Doubt::about(List::Offers, unreadable);
    let targets = Doubt::about(List::OfferGeoTargets, unreadable);
    let now = offer_ids(&network.offers);
    let targeted = targeted(&network.offer_geo_targets);
    let (before, targeted_before) =
        (offer_ids(&last_good.offers), self::targeted(&last_good.offer_geo_targets));
    let is_doubtful = |offer: i64| {
        let may_be_targeted = targeted_before.contains(&offer) || !before.contains(&offer);
        offers.named.contains(&(offer, 0))
            || targets.named.contains(&(offer, 0))
            || (offers.any && !now.contains(&offer))
            || (targets.any && !targeted.contains(&offer) && may_be_targeted)
    };
    let stays = |offer: i64| {
        // Geo targets alone bring no offer back that is gone.
        is_doubtful(offer) && (now.contains(&offer) || offers.covers((offer, 0)))
    };
    let doubtful: HashSet<i64> = now.iter().copied().filter(|&offer| is_doubtful(offer)).collect();
    let closed = now.iter().copied().filter(|offer| doubtful.contains(offer) && !before.contains(offer));
    let mut closed: Vec<i64> = closed.collect();
    closed.sort_unstable();
    let staying: HashSet<i64> = before.iter().copied().filter(|&offer| stays(offer)).collect();

    network.offers.retain(|item| !doubtful.contains(&item.offer_id));
    network
        .offer_geo_targets
        .retain(|item| !doubtful.contains(&item.offer_id) && !staying.contains(&item.offer_id));
    network.offers.extend(last_good.offers.iter().filter(|item| staying.contains(&item.offer_id)).cloned());
    let kept = last_good.offer_geo_targets.iter().filter(|item| staying.contains(&item.offer_id));
    network.offer_geo_targets.extend(kept.cloned());
    closed
}

/// Which items of a list may be among the unreadable ones.
struct Doubt {
    named: HashSet<ItemId>,
    /// There are some that could be any.
    any: bool,
}

impl Doubt {
    fn about(list: List, unreadable: &[Unreadable]) -> Self {
        let rows = || unreadable.iter().filter(|row| row.list == list);
        Self { named: rows().filter_map(|row| row.id).collect(), any: rows().any(|row| row.id.is_none()) }
    }

    fn covers(&self, id: ItemId) -> bool {
        self.any || self.named.contains(&id)
    }
}

/// Adds the last good items that may be among the unreadable ones and are not there. The items are in the order of
/// their ids.
fn add<T: Clone>(
    items: &mut Vec<T>,
    last_good: &[T],
    doubt: &Doubt,
    id: impl Fn(&T) -> ItemId,
    is_wanted: impl Fn(&T) -> bool,
) {
    if !doubt.any && doubt.named.is_empty() {
        return;
    }
    let is_missing = |item: &T| items.binary_search_by_key(&id(item), &id).is_err();
    let stays = |item: &&T| doubt.covers(id(item)) && is_missing(item) && is_wanted(item);
    let staying: Vec<T> = last_good.iter().filter(stays).cloned().collect();
    items.extend(staying);
}

/// Which of the unreadable items stand in a network in the end.
struct Present(HashSet<(List, ItemId)>);

impl Present {
    fn of(network: &Network, unreadable: &[Unreadable]) -> Self {
        let named: HashSet<_> = unreadable.iter().filter_map(|row| Some((row.list, row.id?))).collect();
        let links = network.smart_links.iter().map(|link| (List::SmartLinks, link_id(link)));
        let offers = network.offers.iter().map(|offer| (List::Offers, (offer.offer_id, 0)));
        let targets = network.offer_geo_targets.iter();
        let targets = targets.map(|targets| (List::OfferGeoTargets, (targets.offer_id, 0)));
        let entries = network.smart_link_offers.iter();
        let entries = entries.map(|entry| (List::SmartLinkOffers, entry_id(entry)));
        let rules = network.routing_rules.iter().map(|rule| (List::RoutingRules, (rule_id(rule), 0)));
        let caps = network.offer_caps.iter().map(|cap| (List::OfferCaps, cap.id()));
        let all = links.chain(offers).chain(targets).chain(entries).chain(rules).chain(caps);
        Self(all.filter(|item| named.contains(item)).collect())
    }

    fn has(&self, list: List, id: ItemId) -> bool {
        self.0.contains(&(list, id))
    }
}

fn link_id(link: &Link) -> ItemId {
    (link.id.value().into(), 0)
}

fn entry_id(attachment: &Attachment) -> ItemId {
    (attachment.link.value().into(), attachment.offer.value().into())
}

fn offer_ids(offers: &[OfferItem]) -> HashSet<i64> {
    offers.iter().map(|offer| offer.offer_id).collect()
}

fn targeted(targets: &[OfferGeoTargets]) -> HashSet<i64> {
    targets.iter().map(|targets| targets.offer_id).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn last_good() -> Network {
        let offer = |id| json!({"offer_id": id, "offer_status": "active", "offer_url": "https://a.example/"});
        serde_json::from_value(json!({
            "smart_links": [{"smart_link_id": 1, "affiliate_id": 9, "smart_link_status": "active"}],
            "offers": [offer(10), offer(11)],
            "offer_geo_targets": [{"offer_id": 10, "geo_targets": [{"country_code": "US", "action": "allow"}]}],
            "smart_link_offers": [{"smart_link_id": 1, "offer_id": 10}, {"smart_link_id": 1, "offer_id": 11}],
            "routing_rules": [{"rule_id": 7, "smart_link_id": 1, "offer_id": 11}],
            "offer_caps": [{"offer_id": 10, "cap_type": "click", "cap_interval": "daily", "cap_amount": 5}],
        }))
        .unwrap()
    }

    fn row(list: List, id: Option<ItemId>) -> Unreadable {
        Unreadable { list, id, row: 3, reason: "wrong type".to_owned() }
    }

    /// What becomes of the last good network after `change`, with this row unreadable; and the warnings.
    fn after(row: Unreadable, change: fn(&mut Network)) -> (Network, Vec<String>) {
        let mut network = last_good();
        change(&mut network);
        let warnings = stand_in(&mut network, &[row], &last_good());
        (network.canonical(), warnings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_kind_of_item_keeps_its_last_good_version_whether_it_is_named_or_not() {
        type Change = fn(&mut Network);
        let cap = last_good().offer_caps[0].id();
        let cases: [(List, ItemId, Change); 6] = [
            (List::SmartLinks, (1, 0), |network| network.smart_links.clear()),
            (List::Offers, (10, 0), |network| drop(network.offers.remove(0))),
            (List::OfferGeoTargets, (10, 0), |network| network.offer_geo_targets.clear()),
            (List::SmartLinkOffers, (1, 11), |network| network.smart_link_offers.truncate(1)),
            (List::RoutingRules, (7, 0), |network| network.routing_rules.clear()),
            (List::OfferCaps, cap, |network| network.offer_caps.clear()),
        ];
        for (list, id, change) in cases {
            let (network, warnings) = after(row(list, Some(id)), change);
            assert_eq!(network, last_good(), "{list:?}");
            assert!(warnings[0].contains("its last good version stays"), "{warnings:?}");
            let (network, warnings) = after(row(list, None), change);
            assert_eq!(network, last_good(), "{list:?}");
            assert!(warnings[0].starts_with(&format!("row 3 of {}", list.call())), "{warnings:?}");
        }
    }

    #[test]
    fn what_is_gone_and_not_meant_stays_gone() {
        let (network, _) = after(row(List::SmartLinkOffers, Some((1, 10))), |network| {
            network.smart_link_offers.clear();
        });
        assert_eq!(network.smart_link_offers.len(), 1);
        // Its offer is gone, whatever becomes of its geo targets.
        let (network, warnings) = after(row(List::OfferGeoTargets, Some((10, 0))), |network| {
            network.offers.remove(0);
            network.offer_geo_targets.clear();
        });
        assert_eq!(offer_ids(&network.offers), HashSet::from([11]));
        assert!(warnings[0].ends_with("it is left out"), "{warnings:?}");
    }

    #[test]
    fn a_new_offer_whose_geo_targets_cannot_be_known_is_left_out() {
        for id in [Some((12, 0)), None] {
            let (network, warnings) = after(row(List::OfferGeoTargets, id), |network| {
                network.offers.push(OfferItem { offer_id: 12, ..network.offers[1].clone() });
            });
            assert_eq!(network, last_good(), "{id:?}");
            assert_eq!(warnings[1], "offer 12: its geo targets are not known; it is left out");
        }
    }
}
