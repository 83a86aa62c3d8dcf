//! A bad item keeps its last good version.
//!
//! What the upstream broke since the last good snapshot is put back from there, item by item, before the table is
//! compiled: an offer whose new URL has no host goes on with its old URL. What was never good stays out.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use crate::cake::wire::{OfferGeoTargets, OfferItem, read_geo_targets};
use crate::cake::{Network, rule_id};
use crate::routing::{DestinationPolicy, Link, Template, Warning, Zone};

/// By which an item is judged, as it will be when the table is compiled.
#[derive(Clone, Copy)]
pub struct Standard<'a> {
    pub zone: &'a Zone,
    pub policy: &'a DestinationPolicy,
}

/// Puts the last good version in the place of every bad item that has one. Answers a warning for each.
pub fn restore(network: &mut Network, last_good: &Network, standard: Standard<'_>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    restore_offers(network, last_good, standard, &mut warnings);
    let good_link = |link: &_| standard.is_link(link);
    put_back(
        &mut network.smart_links,
        &last_good.smart_links,
        |link| link.id,
        good_link,
        |id| {
            warnings.push(kept(format!("smart link {id}")));
        },
    );
    let offers: HashSet<i64> = network.offers.iter().map(|offer| offer.offer_id).collect();
    // An attachment is known by its offer: one whose offer is unknown has no better version.
    put_back(
        &mut network.routing_rules,
        &last_good.routing_rules,
        rule_id,
        |rule| offers.contains(&rule.offer.value().into()),
        |rule| warnings.push(kept(format!("rule {rule}"))),
    );
    put_back(
        &mut network.offer_caps,
        &last_good.offer_caps,
        |cap| cap.key().ok(),
        |cap| cap.read(standard.zone).is_ok() && offers.contains(&cap.offer_id),
        |cap| warnings.extend(cap.map(|cap| kept(cap.to_string()))),
    );
    warnings
}

/// An offer and its geo targets are judged together, and kept together: an old URL must not be open to countries of
/// which the advertiser never heard.
fn restore_offers(
    network: &mut Network,
    last_good: &Network,
    standard: Standard<'_>,
    warnings: &mut Vec<Warning>,
) {
    let bad: HashSet<i64> = {
        let targets = by_offer(&network.offer_geo_targets);
        let is_bad = |offer: &&OfferItem| !standard.is_offer(offer, targets.get(&offer.offer_id).copied());
        network.offers.iter().filter(is_bad).map(|offer| offer.offer_id).collect()
    };
    let last_targets = by_offer(&last_good.offer_geo_targets);
    let is_restorable = |offer: &&OfferItem| {
        bad.contains(&offer.offer_id) && standard.is_offer(offer, last_targets.get(&offer.offer_id).copied())
    };
    let good: HashMap<i64, &OfferItem> =
        last_good.offers.iter().filter(is_restorable).map(|offer| (offer.offer_id, offer)).collect();
    if good.is_empty() {
        return;
    }
    for offer in &mut network.offers {
        if let Some(&last) = good.get(&offer.offer_id) {
            *offer = last.clone();
            warnings.push(kept(format!("offer {}", offer.offer_id)));
        }
    }
    network.offer_geo_targets.retain(|targets| !good.contains_key(&targets.offer_id));
    let restored = last_good.offer_geo_targets.iter().filter(|targets| good.contains_key(&targets.offer_id));
    network.offer_geo_targets.extend(restored.cloned());
}

impl Standard<'_> {
    fn is_link(&self, link: &Link) -> bool {
        link.fallback_url.as_deref().is_none_or(|url| self.is_destination(url))
    }

    fn is_offer(&self, offer: &OfferItem, targets: Option<&OfferGeoTargets>) -> bool {
        offer.read(self.zone).is_ok()
            && self.is_destination(&offer.offer_url)
            && targets.is_none_or(|targets| read_geo_targets(&targets.geo_targets).is_ok())
    }

    fn is_destination(&self, url: &str) -> bool {
        Template::parse(url, self.policy).is_ok()
    }
}

/// Replaces each item that is not good by the last good one of the same id, if that is good.
fn put_back<T: Clone, K: Copy + Eq + Hash>(
    items: &mut [T],
    last_good: &[T],
    id: impl Fn(&T) -> K,
    is_good: impl Fn(&T) -> bool,
    mut restored: impl FnMut(K),
) {
    let bad: HashMap<K, usize> = items
        .iter()
        .enumerate()
        .filter(|(_, item)| !is_good(item))
        .map(|(index, item)| (id(item), index))
        .collect();
    if bad.is_empty() {
        return;
    }
    for last in last_good.iter().filter(|last| is_good(last)) {
        if let Some(&index) = bad.get(&id(last)) {
            items[index] = last.clone();
            restored(id(last));
        }
    }
}

fn by_offer(targets: &[OfferGeoTargets]) -> HashMap<i64, &OfferGeoTargets> {
    targets.iter().map(|targets| (targets.offer_id, targets)).collect()
}

fn kept(item: String) -> Warning {
    Warning::new(item, "what the upstream says now cannot be used; the last good version stays")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn network(change: impl Fn(&mut Value)) -> Network {
        let mut network = json!({
            "smart_links": [{"smart_link_id": 1, "affiliate_id": 9, "smart_link_status": "active", "fallback_url": "https://f.example/"}],
            "offers": [{"offer_id": 10, "offer_status": "active", "offer_url": "https://a.example/"},
                       {"offer_id": 11, "offer_status": "active", "offer_url": "https://b.example/"}],
            "offer_geo_targets": [{"offer_id": 10, "geo_targets": [{"country_code": "US", "action": "allow"}]}],
            "smart_link_offers": [{"smart_link_id": 1, "offer_id": 10, "offer_weight": 60, "priority": 1}],
            "routing_rules": [{"rule_id": 7, "smart_link_id": 1, "offer_id": 11, "conditions": {"country": {"in": ["US"]}}}],
            "offer_caps": [{"offer_id": 10, "cap_type": "click", "cap_interval": "daily", "cap_amount": 5}],
        });
        change(&mut network);
        serde_json::from_value(network).unwrap()
    }

    fn restored(change: impl Fn(&mut Value)) -> (Network, Vec<String>) {
        let zone = Zone::parse("UTC").unwrap();
        let mut changed = network(change);
        let standard = Standard { zone: &zone, policy: &DestinationPolicy::default() };
        let warnings = restore(&mut changed, &network(|_| {}), standard);
        (changed, warnings.iter().map(|warning| warning.item.clone()).collect())
    }

    #[test]
    fn every_kind_of_item_keeps_its_last_good_version() {
        type Break = fn(&mut Value);
        let breaks: [(&str, Break); 7] = [
            ("smart link 1", |network| network["smart_links"][0]["fallback_url"] = json!("https://")),
            ("offer 10", |network| network["offers"][0]["offer_url"] = json!("https:///nowhere")),
            ("offer 10", |network| network["offers"][0]["offer_status"] = json!("sleeping")),
            ("offer 10", |network| {
                network["offer_geo_targets"][0]["geo_targets"][0]["country_code"] = json!("QQ")
            }),
            ("rule 7", |network| network["routing_rules"][0]["offer_id"] = json!(404)),
            ("daily click cap of offer 10", |network| network["offer_caps"][0]["cap_amount"] = json!(-1)),
            ("daily click cap of offer 10", |network| network["offer_caps"][0]["time_zone"] = json!("Mars")),
        ];
        for (item, broken) in breaks {
            let (now, warned) = restored(broken);
            assert_eq!(now, network(|_| {}), "{item}");
            assert_eq!(warned, [item]);
        }
    }

    #[test]
    fn good_changes_are_taken() {
        let change = |network: &mut Value| {
            network["offers"][0]["offer_url"] = json!("https://new.example/");
            network["smart_link_offers"] = json!([]);
        };
        let (now, warned) = restored(change);
        assert_eq!(now, network(change));
        assert!(warned.is_empty());
    }

    #[test]
    fn what_was_never_good_stays_as_it_came() {
        let change = |network: &mut Value| {
            network["offers"][1] = json!({"offer_id": 12, "offer_status": "active", "offer_url": "ftp://x"});
        };
        let (now, warned) = restored(change);
        assert_eq!(now.offers[1].offer_url, "ftp://x");
        // Its rule names offer 11, which is gone: gone is a good change, and the rule has no better version.
        assert!(warned.is_empty(), "{warned:?}");
    }
}
