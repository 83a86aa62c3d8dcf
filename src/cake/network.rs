//! Everything an upstream says, joined: what a snapshot is made of, and what the last good file holds.
//!
//! Of links, attachments and rules there may be millions, so they are kept as they were read, in a few words of memory
//! each; one that cannot be read is no part of a network, but an [`Unreadable`](super::Unreadable) beside it. Offers, geo
//! targets and caps are kept as they stand on the wire, and are read when a snapshot is made.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::lenient;
use super::wire::{
    Conditions, FieldError, OfferCap, OfferGeoTargets, OfferItem, RoutingRule, SmartLink, SmartLinkOffer,
    read_conditions, read_geo_targets,
};
use crate::routing::{Attachment, Cap, Condition, Entry, Link, LinkIds, Offer, Snapshot, Warning, Zone};

/// The join of an upstream's lists. [`Network::canonical`] brings it into the one order in which it is compared.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "Lists")]
pub struct Network {
    pub smart_links: Vec<Link>,
    pub offers: Vec<OfferItem>,
    pub offer_geo_targets: Vec<OfferGeoTargets>,
    pub smart_link_offers: Vec<Attachment>,
    pub routing_rules: Vec<Entry>,
    pub offer_caps: Vec<OfferCap>,
}

/// A row of `smart_links.json`, read.
#[derive(Deserialize)]
#[serde(try_from = "SmartLink")]
pub struct ReadLink(pub Link);

/// A row of `smart_link_offers.json`, read.
#[derive(Deserialize)]
#[serde(try_from = "SmartLinkOffer")]
pub struct ReadAttachment(pub Attachment);

/// A row of `routing_rules.json` whose conditions are not read yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RuleRow {
    #[serde(deserialize_with = "lenient::whole")]
    pub rule_id: i64,
    #[serde(deserialize_with = "lenient::whole")]
    pub smart_link_id: i64,
    #[serde(deserialize_with = "lenient::whole")]
    pub offer_id: i64,
    #[serde(default = "one", deserialize_with = "lenient::whole")]
    pub priority: i64,
    #[serde(default = "one", deserialize_with = "lenient::whole")]
    pub offer_weight: i64,
    #[serde(default = "always")]
    pub conditions: Box<RawValue>,
}

/// Reads rules. They repeat each other: what was read of one text serves all that have it.
#[derive(Debug, Default)]
pub struct RuleReader {
    known: HashMap<Box<str>, Arc<[Condition]>>,
}

impl RuleReader {
    pub fn read(&mut self, row: &RuleRow) -> Result<Entry, FieldError> {
        let rule = RoutingRule {
            rule_id: row.rule_id,
            smart_link_id: row.smart_link_id,
            offer_id: row.offer_id,
            priority: row.priority,
            offer_weight: row.offer_weight,
            // They are read from their text, if need be.
            conditions: Conditions::new(),
        };
        rule.read_with(|| self.conditions(row.conditions.get()))
    }

    fn conditions(&mut self, text: &str) -> Result<Arc<[Condition]>, FieldError> {
        if let Some(conditions) = self.known.get(text) {
            return Ok(Arc::clone(conditions));
        }
        let conditions: Conditions = serde_json::from_str(text)
            .map_err(|error| FieldError::new("conditions", format!("cannot be read: {error}")))?;
        let conditions: Arc<[Condition]> = read_conditions(&conditions)?.into();
        self.known.insert(text.into(), Arc::clone(&conditions));
        Ok(conditions)
    }
}

/// The number of a rule as the API writes it; 0 of an attachment.
pub fn rule_id(rule: &Entry) -> i64 {
    rule.rule.map_or(0, |rule| rule.value().into())
}

fn one() -> i64 {
    1
}

fn always() -> Box<RawValue> {
    // The compiler does not know that this is JSON.
    RawValue::from_string("{}".to_owned()).unwrap_or_default()
}

impl Network {
    /// Sorts every list by its ids and keeps the first of items with the same id, so that equal content has equal
    /// bytes whatever the order of the pages.
    pub fn canonical(mut self) -> Self {
        fn sort<T, K: Ord>(items: &mut Vec<T>, key: impl Fn(&T) -> K) {
            if !items.is_sorted_by_key(&key) {
                items.sort_by_key(&key);
            }
            items.dedup_by(|later, first| key(later) == key(first));
        }
        sort(&mut self.smart_links, |link| link.id);
        sort(&mut self.offers, |offer| offer.offer_id);
        sort(&mut self.offer_geo_targets, |targets| targets.offer_id);
        sort(&mut self.smart_link_offers, |entry| (entry.link, entry.offer));
        sort(&mut self.routing_rules, |rule| rule.rule);
        self.offer_caps = canonical_caps(self.offer_caps);
        self
    }

    /// Puts `newer` in the place of everything that is said of these links. Its offers replace those of the same id.
    /// Caps hang on no link, and stay.
    pub fn replace(&mut self, links: &LinkIds, newer: Network) {
        self.smart_links.retain(|link| !links.contains(&link.id));
        self.smart_link_offers.retain(|entry| !links.contains(&entry.link));
        self.routing_rules.retain(|rule| !links.contains(&rule.link));
        let mut offers: Vec<i64> = newer.offers.iter().map(|offer| offer.offer_id).collect();
        offers.sort_unstable();
        let is_newer = |offer: i64| offers.binary_search(&offer).is_ok();
        self.offers.retain(|offer| !is_newer(offer.offer_id));
        self.offer_geo_targets.retain(|targets| !is_newer(targets.offer_id));
        self.smart_links.extend(newer.smart_links);
        self.offers.extend(newer.offers);
        self.offer_geo_targets.extend(newer.offer_geo_targets);
        self.smart_link_offers.extend(newer.smart_link_offers);
        self.routing_rules.extend(newer.routing_rules);
    }

    /// Of changes in the order in which they came, what the newest says of each link and offer; and all the links. Without
    /// caps.
    pub fn newest(changes: Vec<(LinkIds, Network)>) -> (LinkIds, Network) {
        let (mut links, mut offers) = (LinkIds::default(), HashSet::new());
        let mut newest = Network::default();
        // From the last one back, so that each is looked at once however many there are.
        for (changed, network) in changes.into_iter().rev() {
            let is_newer = |offer: i64| offers.contains(&offer);
            newest
                .smart_links
                .extend(network.smart_links.into_iter().filter(|link| !links.contains(&link.id)));
            let entries = network.smart_link_offers.into_iter().filter(|entry| !links.contains(&entry.link));
            newest.smart_link_offers.extend(entries);
            newest
                .routing_rules
                .extend(network.routing_rules.into_iter().filter(|rule| !links.contains(&rule.link)));
            let targets = network.offer_geo_targets.into_iter().filter(|targets| !is_newer(targets.offer_id));
            newest.offer_geo_targets.extend(targets);
            let told: Vec<_> = network.offers.into_iter().filter(|offer| !is_newer(offer.offer_id)).collect();
            offers.extend(told.iter().map(|offer| offer.offer_id));
            newest.offers.extend(told);
            links.extend(changed);
        }
        (links, newest)
    }

    /// How many attachments and rules there are.
    pub fn entries(&self) -> usize {
        self.smart_link_offers.len() + self.routing_rules.len()
    }

    /// Reads what is not read yet. What cannot be read is left out, with a warning that names it. `zone` is the
    /// network's.
    pub fn to_snapshot(&self, zone: &Zone) -> (Snapshot<'_>, Vec<Warning>) {
        let mut warnings = Vec::new();
        let mut left_out = |item: String, error: FieldError| {
            warnings.push(Warning::new(item, format!("{error}; it is left out")));
        };
        let mut snapshot = Snapshot {
            links: self.smart_links.as_slice().into(),
            attachments: self.smart_link_offers.as_slice().into(),
            entries: self.routing_rules.as_slice().into(),
            ..Snapshot::default()
        };
        let mut geo_targets: HashMap<i64, &OfferGeoTargets> = HashMap::new();
        for targets in &self.offer_geo_targets {
            // The first of two, as in `canonical`.
            geo_targets.entry(targets.offer_id).or_insert(targets);
        }
        for item in &self.offers {
            let targets = geo_targets.get(&item.offer_id).map_or(&[][..], |targets| &targets.geo_targets);
            // An offer whose geo targets cannot be read would be open to countries its advertiser does not pay for.
            match item
                .read(zone)
                .and_then(|offer| Ok(Offer { targeting: read_geo_targets(targets)?, ..offer }))
            {
                Ok(offer) => snapshot.offers.push(offer),
                Err(error) => left_out(format!("offer {}", item.offer_id), error),
            }
        }
        let offers: HashSet<i64> = self.offers.iter().map(|offer| offer.offer_id).collect();
        for cap in &self.offer_caps {
            match cap.read(zone) {
                Ok(_) if !offers.contains(&cap.offer_id) => {
                    let problem = format!("{} does not exist", cap.offer_id);
                    left_out(cap.label(), FieldError::new("offer_id", problem));
                }
                Ok(read) => snapshot.caps.push(read),
                Err(error) => left_out(cap.label(), error),
            }
        }
        (snapshot, warnings)
    }
}

/// Caps in the order in which they are compared, the first of those of one name. Of a name that cannot be read, nobody
/// knows whether it is that of another.
fn canonical_caps(mut caps: Vec<OfferCap>) -> Vec<OfferCap> {
    caps.sort_by_cached_key(|cap| {
        let nameless = cap.key().is_err();
        (cap.id(), nameless.then(|| (cap.affiliate_id, cap.cap_type.clone(), cap.cap_interval.clone())))
    });
    caps.dedup_by(|later, first| match (later.key(), first.key()) {
        (Ok(later), Ok(first)) => later == first,
        _ => later == first,
    });
    caps
}

/// Reads caps that are told without their offers. Fails on the first that cannot be read.
pub fn read_caps(caps: &[OfferCap], zone: &Zone) -> Result<Vec<Cap>, FieldError> {
    caps.iter().map(|cap| cap.read(zone)).collect()
}

impl TryFrom<SmartLink> for ReadLink {
    type Error = FieldError;

    fn try_from(link: SmartLink) -> Result<Self, FieldError> {
        link.read().map(Self)
    }
}

impl TryFrom<SmartLinkOffer> for ReadAttachment {
    type Error = FieldError;

    fn try_from(attachment: SmartLinkOffer) -> Result<Self, FieldError> {
        attachment.read().map(Self)
    }
}

/// A network as one JSON object.
#[derive(Deserialize)]
struct Lists {
    smart_links: Vec<ReadLink>,
    offers: Vec<OfferItem>,
    offer_geo_targets: Vec<OfferGeoTargets>,
    smart_link_offers: Vec<ReadAttachment>,
    routing_rules: Vec<RuleRow>,
    #[serde(default)]
    offer_caps: Vec<OfferCap>,
}

impl TryFrom<Lists> for Network {
    type Error = FieldError;

    fn try_from(lists: Lists) -> Result<Self, FieldError> {
        let mut rules = RuleReader::default();
        Ok(Self {
            smart_links: lists.smart_links.into_iter().map(|link| link.0).collect(),
            offers: lists.offers,
            offer_geo_targets: lists.offer_geo_targets,
            smart_link_offers: lists.smart_link_offers.into_iter().map(|attachment| attachment.0).collect(),
            routing_rules: lists.routing_rules.iter().map(|row| rules.read(row)).collect::<Result<_, _>>()?,
            offer_caps: lists.offer_caps,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::LinkId;

    #[test]
    fn an_offer_whose_geo_targets_are_unreadable_is_left_out() {
        let network: Network = serde_json::from_value(json!({
            "smart_links": [], "smart_link_offers": [], "routing_rules": [],
            "offers": [{"offer_id": 1, "offer_status": "active", "offer_url": "https://a.example/"}],
            "offer_geo_targets": [{"offer_id": 1, "geo_targets": [{"country_code": "QQ", "action": "allow"}]}],
        }))
        .unwrap();
        let (snapshot, warnings) = network.to_snapshot(&Zone::parse("UTC").unwrap());
        assert!(snapshot.offers.is_empty());
        assert!(warnings[0].to_string().starts_with("offer 1: `countries` is \"QQ\""), "{warnings:?}");
    }

    #[test]
    fn caps_are_read_with_the_network_and_their_first_counts() {
        let cap = |offer: u32, interval: &str, amount: i64| json!({"offer_id": offer, "cap_type": "click", "cap_interval": interval, "cap_amount": amount});
        let mut with_caps = network(&[1], "https://a.example/");
        let caps = json!([cap(1, "daily", 5), cap(1, "Daily", 6), cap(9, "daily", 7), cap(1, "hourly", 8)]);
        with_caps.offer_caps = serde_json::from_value(caps).unwrap();
        with_caps = with_caps.canonical();
        let (snapshot, warnings) = with_caps.to_snapshot(&Zone::parse("America/New_York").unwrap());
        let read: Vec<_> = snapshot.caps.iter().map(|cap| (cap.amount, cap.zone.name())).collect();
        assert_eq!(read, [(5, "America/New_York")]);
        let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert!(told[0].starts_with("a cap of offer 1: `cap_interval` is \"hourly\""), "{told:?}");
        assert_eq!(told[1], "daily click cap of offer 9: `offer_id` 9 does not exist; it is left out");
        with_caps
            .replace(&[LinkId::new(1).unwrap()].into_iter().collect(), network(&[1], "https://b.example/"));
        assert_eq!(with_caps.offer_caps.len(), 3, "caps hang on no link");
    }

    #[test]
    fn of_two_lists_of_geo_targets_the_first_counts_canonical_or_not() {
        let targets =
            |code| json!({"offer_id": 1, "geo_targets": [{"country_code": code, "action": "block"}]});
        let network: Network = serde_json::from_value(json!({
            "smart_links": [], "smart_link_offers": [], "routing_rules": [],
            "offers": [{"offer_id": 1, "offer_status": "active", "offer_url": "https://a.example/"}],
            "offer_geo_targets": [targets("US"), targets("CA")],
        }))
        .unwrap();
        let utc = Zone::parse("UTC").unwrap();
        let as_listed = network.to_snapshot(&utc).0.offers;
        assert_eq!(network.canonical().to_snapshot(&utc).0.offers, as_listed);
    }

    fn network(links: &[u32], offer: &str) -> Network {
        let link = |id: &u32| json!({"smart_link_id": id, "affiliate_id": 1, "smart_link_status": "active"});
        let entry = |id: &u32| json!({"smart_link_id": id, "offer_id": 1});
        let rule = |id: &u32| json!({"rule_id": id, "smart_link_id": id, "offer_id": 1});
        serde_json::from_value(json!({
            "smart_links": links.iter().map(link).collect::<Vec<_>>(),
            "offers": [{"offer_id": 1, "offer_status": "active", "offer_url": offer}],
            "offer_geo_targets": [{"offer_id": 1, "geo_targets": [{"country_code": "US", "action": "block"}]}],
            "smart_link_offers": links.iter().map(entry).collect::<Vec<_>>(),
            "routing_rules": links.iter().map(rule).collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    #[test]
    fn equal_content_is_equal_whatever_the_order() {
        let (mixed, sorted) =
            (network(&[2, 1, 2, 3], "https://a.example/"), network(&[1, 2, 3], "https://a.example/"));
        assert_eq!(mixed.canonical(), sorted.canonical());
    }

    #[test]
    fn of_changes_the_newest_count() {
        let ids = |links: &[u32]| -> LinkIds { links.iter().copied().filter_map(LinkId::new).collect() };
        let blocks = vec![
            (ids(&[1, 2]), network(&[1, 2], "https://a.example/")),
            (ids(&[2, 3]), network(&[3], "https://b.example/")),
            (ids(&[4]), network(&[4], "https://c.example/")),
        ];
        let mut one_by_one = network(&[2, 5], "https://x.example/");
        let mut at_once = one_by_one.clone();
        for (links, network) in blocks.clone() {
            one_by_one.replace(&links, network);
        }
        let (links, newest) = Network::newest(blocks);
        at_once.replace(&links, newest);
        assert_eq!(links, ids(&[1, 2, 3, 4]));
        assert_eq!(at_once.canonical(), one_by_one.canonical());
    }

    #[test]
    fn what_is_said_of_some_links_replaces_all_that_was() {
        let mut known = network(&[1, 2, 3], "https://a.example/");
        let changed = [2, 3, 4].into_iter().filter_map(LinkId::new).collect();
        known.replace(&changed, network(&[4, 3], "https://b.example/"));
        assert_eq!(known.canonical(), network(&[1, 3, 4], "https://b.example/").canonical());
    }
}
