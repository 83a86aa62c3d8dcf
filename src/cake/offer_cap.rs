//! A cap as it stands in JSON: an item of `offer_caps.json`, and a line of `network.json`.
//!
//! A cap is known by its name (offer, affiliate, what it counts, how often), and not by the number that a store gives it.
//! How full it is, is no part of it: that is the ledger's.

use serde::{Deserialize, Serialize};

use super::lenient;
use super::page::ItemId;
use super::wire::{FieldError, expected, read_id};
use crate::routing::{Cap, Zone};
use crate::types::{AffiliateId, CapInterval, CapKey, CapKind, OfferId};

/// How much an offer may take in a window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferCap {
    #[serde(deserialize_with = "lenient::whole")]
    pub offer_id: i64,
    /// Without it the cap counts the traffic of all affiliates.
    #[serde(default, deserialize_with = "lenient::whole_or_null")]
    pub affiliate_id: Option<i64>,
    /// `click` or `conversion`.
    pub cap_type: String,
    /// `lifetime`, `daily`, `weekly` or `monthly`.
    pub cap_interval: String,
    #[serde(deserialize_with = "lenient::whole")]
    pub cap_amount: i64,
    /// Without it the network's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    #[serde(default, deserialize_with = "lenient::truth")]
    pub send_alert_only: bool,
}

impl OfferCap {
    /// `zone` is the network's.
    pub fn read(&self, zone: &Zone) -> Result<Cap, FieldError> {
        Ok(Cap {
            key: self.key()?,
            amount: read_amount(self.cap_amount)?,
            zone: match self.time_zone.as_deref() {
                None | Some("") => zone.clone(),
                Some(name) => read_zone(name)?,
            },
            alert_only: self.send_alert_only,
        })
    }

    /// The cap's name.
    pub fn key(&self) -> Result<CapKey, FieldError> {
        Ok(CapKey {
            offer: read_id("offer_id", self.offer_id, OfferId::new)?,
            affiliate: match self.affiliate_id {
                Some(id) => Some(read_id("affiliate_id", id, AffiliateId::new)?),
                None => None,
            },
            kind: read_kind(&self.cap_type)?,
            interval: read_interval(&self.cap_interval)?,
        })
    }

    /// What tells it from other caps, in numbers; caps whose names cannot be read may share one.
    pub fn id(&self) -> ItemId {
        let Ok(key) = self.key() else { return (self.offer_id, NAMELESS) };
        let affiliate: i64 = key.affiliate.map_or(0, |affiliate| affiliate.value().into());
        (self.offer_id, affiliate << 8 | (key.kind as i64) << 4 | key.interval as i64)
    }

    /// How it is called in warnings, whether or not its name can be read.
    pub fn label(&self) -> String {
        match self.key() {
            Ok(key) => key.to_string(),
            Err(_) => format!("a cap of offer {}", self.offer_id),
        }
    }
}

impl From<&Cap> for OfferCap {
    fn from(cap: &Cap) -> Self {
        let CapKey { offer, affiliate, kind, interval } = cap.key;
        Self {
            offer_id: offer.value().into(),
            affiliate_id: affiliate.map(|affiliate| affiliate.value().into()),
            cap_type: kind.as_str().to_owned(),
            cap_interval: interval.as_str().to_owned(),
            // No amount is greater than what an `i64` holds.
            cap_amount: i64::try_from(cap.amount).unwrap_or(i64::MAX),
            time_zone: Some(cap.zone.name().to_owned()),
            send_alert_only: cap.alert_only,
        }
    }
}

/// The name of the cap with this [`OfferCap::id`].
pub fn key_of((offer, rest): ItemId) -> Option<CapKey> {
    Some(CapKey {
        offer: OfferId::new(u32::try_from(offer).ok()?)?,
        affiliate: AffiliateId::new(u32::try_from(rest >> 8).ok()?),
        // Their order is that of `ALL`.
        kind: *CapKind::ALL.get((rest >> 4 & 15) as usize)?,
        interval: *CapInterval::ALL.get((rest & 15) as usize)?,
    })
}

/// Reads `cap_type`, in any case.
pub fn read_kind(text: &str) -> Result<CapKind, FieldError> {
    CapKind::parse(&text.to_ascii_lowercase())
        .ok_or_else(|| expected("cap_type", text, &format!("one of {}", CAP_TYPES.join(", "))))
}

/// Reads `cap_interval`, in any case.
pub fn read_interval(text: &str) -> Result<CapInterval, FieldError> {
    CapInterval::parse(&text.to_ascii_lowercase())
        .ok_or_else(|| expected("cap_interval", text, &format!("one of {}", CAP_INTERVALS.join(", "))))
}

/// Reads `cap_amount`: 0 closes the offer.
pub fn read_amount(amount: i64) -> Result<u64, FieldError> {
    u64::try_from(amount)
        .ok()
        .filter(|amount| *amount <= CAP_AMOUNT_MAX as u64)
        .ok_or_else(|| expected("cap_amount", amount, &format!("a whole number from 0 to {CAP_AMOUNT_MAX}")))
}

/// Reads `time_zone`.
pub fn read_zone(name: &str) -> Result<Zone, FieldError> {
    Zone::parse(name).ok_or_else(|| expected("time_zone", name, "an IANA name such as America/New_York"))
}

/// What a cap may count.
pub const CAP_TYPES: &[&str] = &[CapKind::Click.as_str(), CapKind::Conversion.as_str()];

/// How often it may begin anew.
pub const CAP_INTERVALS: &[&str] = &[
    CapInterval::Lifetime.as_str(),
    CapInterval::Daily.as_str(),
    CapInterval::Weekly.as_str(),
    CapInterval::Monthly.as_str(),
];

/// 2⁵³ − 1: what every reader of JSON reads exactly.
pub const CAP_AMOUNT_MAX: i64 = 9_007_199_254_740_991;

/// Behind the ids of all names.
const NAMELESS: i64 = i64::MAX;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cap(change: impl Fn(&mut Value)) -> OfferCap {
        let mut cap = json!({"offer_id": 1, "cap_type": "click", "cap_interval": "daily", "cap_amount": 5});
        change(&mut cap);
        serde_json::from_value(cap).unwrap()
    }

    #[test]
    fn what_is_left_out_is_the_networks_and_what_is_wrong_is_named() {
        let zone = Zone::parse("America/New_York").unwrap();
        let read = cap(|_| {}).read(&zone).unwrap();
        assert_eq!((read.amount, &read.zone, read.alert_only, read.key.affiliate), (5, &zone, false, None));
        let spelled = cap(|cap| {
            *cap = json!({"offer_id": "1", "affiliate_id": "7", "cap_type": "Click", "cap_interval": "DAILY",
                          "cap_amount": "0", "time_zone": "UTC", "send_alert_only": 1, "cap_id": 3, "used": 4});
        });
        let read = spelled.read(&zone).unwrap();
        assert_eq!((read.amount, read.zone.name(), read.alert_only), (0, "UTC", true));
        assert_eq!(OfferCap::from(&read).read(&zone).unwrap(), read);
        for (name, value) in [
            ("offer_id", json!(0)),
            ("affiliate_id", json!(0)),
            ("cap_type", json!("impression")),
            ("cap_interval", json!("hourly")),
            ("cap_amount", json!(-1)),
            ("cap_amount", json!(CAP_AMOUNT_MAX + 1)),
            ("time_zone", json!("Mars/Olympus")),
        ] {
            let error = cap(|cap| cap[name] = value.clone()).read(&zone).unwrap_err();
            assert_eq!(error.parameter, name);
        }
    }

    #[test]
    fn an_id_tells_caps_apart_and_leads_back_to_the_name() {
        let mut ids = Vec::new();
        for affiliate in [json!(null), json!(1), json!(u32::MAX)] {
            for kind in CAP_TYPES {
                for interval in CAP_INTERVALS {
                    let cap = cap(|cap| {
                        cap["affiliate_id"] = affiliate.clone();
                        cap["cap_type"] = (*kind).into();
                        cap["cap_interval"] = (*interval).into();
                    });
                    assert_eq!(key_of(cap.id()), cap.key().ok());
                    ids.push(cap.id());
                }
            }
        }
        assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(key_of(cap(|cap| cap["cap_type"] = "view".into()).id()), None);
    }
}
