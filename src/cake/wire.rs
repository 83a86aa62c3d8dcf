//! CAKE's items as they stand in JSON, and how each becomes a domain value. serde ends here.
//!
//! Reading an item can fail on one field; the error names it in the words of the API, because the embedded API and
//! the sync use the same functions: nothing is accepted by the one that the other would refuse.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::civil::{DateTime, Weekday};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::routing::{
    Attachment, Condition, DAY_NAMES, Entry, Flag, Flags, HostSet, Hours, Link, MinuteOfDay, Mode, NameSet,
    NetSet, Offer, Rotation, TextSet, ValueSet, Weight, Zone, is_host_pattern, parse_net,
};
use crate::types::{
    AffiliateId, Browser, Country, CountrySet, DeviceKind, Language, LinkId, OfferId, Os, Region, RuleId,
    SUB_BYTES_MAX, UnixMillis,
};

use super::lenient;

pub use super::offer_cap::{
    CAP_AMOUNT_MAX, CAP_INTERVALS, CAP_TYPES, OfferCap, read_amount, read_interval, read_kind, read_zone,
};

/// An item of `smart_links.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SmartLink {
    #[serde(deserialize_with = "lenient::whole")]
    pub smart_link_id: i64,
    /// Left out where nothing but routing is asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub smart_link_name: String,
    #[serde(deserialize_with = "lenient::whole")]
    pub affiliate_id: i64,
    pub smart_link_status: String,
    #[serde(default = "default_rotation_type")]
    pub rotation_type: String,
    #[serde(default = "default_cap_aware", deserialize_with = "lenient::truth")]
    pub cap_aware: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracking_url: Option<String>,
}

/// An item of `offers.json`, without its `{"offer": …}` wrapping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfferItem {
    #[serde(deserialize_with = "lenient::whole")]
    pub offer_id: i64,
    #[serde(default)]
    pub offer_name: String,
    pub offer_status: String,
    #[serde(default)]
    pub offer_url: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::decimal_or_null")]
    pub payout: Option<f64>,
    /// `YYYY-MM-DD HH:MM:SS` in the network's time zone: the last second at which the offer lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration_date: Option<String>,
}

/// The geo targets of one offer, an item of `offer_geo_targets.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfferGeoTargets {
    #[serde(deserialize_with = "lenient::whole")]
    pub offer_id: i64,
    pub geo_targets: Vec<GeoTarget>,
}

/// One country of an offer's geo targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GeoTarget {
    #[serde(default, deserialize_with = "lenient::whole_or_null")]
    pub country_id: Option<i64>,
    pub country_code: String,
    #[serde(default)]
    pub country_name: Option<String>,
    /// `allow` or `block`.
    pub action: String,
}

/// An item of `smart_link_offers.json`: an offer attached to a link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SmartLinkOffer {
    #[serde(deserialize_with = "lenient::whole")]
    pub smart_link_id: i64,
    #[serde(deserialize_with = "lenient::whole")]
    pub offer_id: i64,
    #[serde(default = "default_offer_weight", deserialize_with = "lenient::whole")]
    pub offer_weight: i64,
    #[serde(default = "default_priority", deserialize_with = "lenient::whole")]
    pub priority: i64,
}

/// An item of `routing_rules.json`: an attachment with conditions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoutingRule {
    #[serde(deserialize_with = "lenient::whole")]
    pub rule_id: i64,
    #[serde(deserialize_with = "lenient::whole")]
    pub smart_link_id: i64,
    #[serde(deserialize_with = "lenient::whole")]
    pub offer_id: i64,
    #[serde(default = "default_priority", deserialize_with = "lenient::whole")]
    pub priority: i64,
    #[serde(default = "default_offer_weight", deserialize_with = "lenient::whole")]
    pub offer_weight: i64,
    #[serde(default)]
    pub conditions: Conditions,
}

/// The conditions of a rule as written: name → `{"in": […]}`, `{"not_in": […]}`, or hours.
pub type Conditions = BTreeMap<String, Value>;

/// A field that cannot be read: which one, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The parameter in the words of the API: `offer_weight`, `conditions.country.in`.
    pub parameter: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl FieldError {
    pub fn new(parameter: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { parameter: parameter.into(), problem: problem.into() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.parameter, self.problem)
    }
}

impl std::error::Error for FieldError {}

impl SmartLink {
    /// Everything but the fallback's URL, which is parsed when the table is compiled.
    pub fn read(&self) -> Result<Link, FieldError> {
        Self::read_parts(
            (self.smart_link_id, self.affiliate_id),
            (&self.smart_link_status, &self.rotation_type),
            self.cap_aware,
            self.fallback_url.as_deref(),
        )
    }

    /// Everything that [`SmartLink::read`] refuses, in its order.
    pub fn wrong(&self) -> Vec<FieldError> {
        let checks = [
            read_id("smart_link_id", self.smart_link_id, LinkId::new).err(),
            read_id("affiliate_id", self.affiliate_id, AffiliateId::new).err(),
            read_status("smart_link_status", &self.smart_link_status, LINK_STATUSES).err(),
            read_rotation(&self.rotation_type).err(),
        ];
        checks.into_iter().flatten().collect()
    }

    /// As [`SmartLink::read`], of a link that is written in another way.
    pub(super) fn read_parts(
        (id, affiliate): (i64, i64),
        (status, rotation): (&str, &str),
        cap_aware: bool,
        fallback_url: Option<&str>,
    ) -> Result<Link, FieldError> {
        Ok(Link {
            id: read_id("smart_link_id", id, LinkId::new)?,
            affiliate: read_id("affiliate_id", affiliate, AffiliateId::new)?,
            active: read_status("smart_link_status", status, LINK_STATUSES)? == ACTIVE,
            rotation: read_rotation(rotation)?,
            cap_aware,
            fallback_url: fallback_url.filter(|url| !url.is_empty()).map(Box::from),
        })
    }
}

impl OfferItem {
    /// Everything that [`OfferItem::read`] refuses, in its order.
    pub fn wrong(&self, zone: &Zone) -> Vec<FieldError> {
        let expiration = self.expiration_date.as_deref().filter(|text| !text.is_empty());
        let checks = [
            read_id("offer_id", self.offer_id, OfferId::new).err(),
            read_status("offer_status", &self.offer_status, OFFER_STATUSES).err(),
            expiration.and_then(|text| read_expiration(text, zone).err()),
        ];
        checks.into_iter().flatten().collect()
    }

    /// Everything but the geo targets, which come from another call, and the URL, which is parsed when the table
    /// is compiled.
    pub fn read(&self, zone: &Zone) -> Result<Offer, FieldError> {
        Ok(Offer {
            id: read_id("offer_id", self.offer_id, OfferId::new)?,
            active: read_status("offer_status", &self.offer_status, OFFER_STATUSES)? == ACTIVE,
            expires_at: match self.expiration_date.as_deref() {
                None | Some("") => None,
                Some(text) => Some(read_expiration(text, zone)?),
            },
            url: self.offer_url.clone(),
            targeting: Vec::new(),
        })
    }
}

impl SmartLinkOffer {
    /// Everything that [`SmartLinkOffer::read`] refuses, in its order.
    pub fn wrong(&self) -> Vec<FieldError> {
        let checks = [
            read_id("smart_link_id", self.smart_link_id, LinkId::new).err(),
            read_id("offer_id", self.offer_id, OfferId::new).err(),
            read_weight(self.offer_weight).err(),
            read_priority(self.priority).err(),
        ];
        checks.into_iter().flatten().collect()
    }

    pub fn read(&self) -> Result<Attachment, FieldError> {
        Ok(Attachment {
            link: read_id("smart_link_id", self.smart_link_id, LinkId::new)?,
            offer: read_id("offer_id", self.offer_id, OfferId::new)?,
            weight: read_weight(self.offer_weight)?,
            priority: read_priority(self.priority)?,
        })
    }
}

impl From<&Attachment> for SmartLinkOffer {
    fn from(attachment: &Attachment) -> Self {
        Self {
            smart_link_id: attachment.link.value().into(),
            offer_id: attachment.offer.value().into(),
            offer_weight: attachment.weight.value().into(),
            priority: attachment.priority.into(),
        }
    }
}

impl RoutingRule {
    /// Everything that [`RoutingRule::read`] refuses, in its order.
    pub fn wrong(&self) -> Vec<FieldError> {
        let checks = [
            read_id("smart_link_id", self.smart_link_id, LinkId::new).err(),
            read_id("offer_id", self.offer_id, OfferId::new).err(),
            read_weight(self.offer_weight).err(),
            read_priority(self.priority).err(),
            read_id("rule_id", self.rule_id, RuleId::new).err(),
        ];
        let of_conditions = self.conditions.iter().flat_map(|(name, value)| wrong_condition(name, value));
        checks.into_iter().flatten().chain(of_conditions).collect()
    }

    pub fn read(&self) -> Result<Entry, FieldError> {
        self.read_with(|| Ok(read_conditions(&self.conditions)?.into()))
    }

    /// With conditions that are read elsewhere.
    pub(super) fn read_with(
        &self,
        conditions: impl FnOnce() -> Result<Arc<[Condition]>, FieldError>,
    ) -> Result<Entry, FieldError> {
        Ok(Entry {
            link: read_id("smart_link_id", self.smart_link_id, LinkId::new)?,
            offer: read_id("offer_id", self.offer_id, OfferId::new)?,
            weight: read_weight(self.offer_weight)?,
            priority: read_priority(self.priority)?,
            rule: Some(read_id("rule_id", self.rule_id, RuleId::new)?),
            conditions: conditions()?,
        })
    }
}

/// Reads geo targets into at most two conditions: the allowed countries, and the blocked ones.
pub fn read_geo_targets(targets: &[GeoTarget]) -> Result<Vec<Condition>, FieldError> {
    let (mut allowed, mut blocked) = (CountrySet::EMPTY, CountrySet::EMPTY);
    for target in targets {
        let country = read_country("countries", &target.country_code)?;
        match target.action.to_ascii_lowercase().as_str() {
            "allow" => allowed.insert(country),
            "block" => blocked.insert(country),
            _ => return Err(expected("action", target.action.as_str(), "allow or block")),
        }
    }
    let condition = |mode, set: CountrySet| {
        (!set.is_empty()).then_some(Condition::Value { mode, set: ValueSet::Country(set) })
    };
    Ok([condition(Mode::In, allowed), condition(Mode::NotIn, blocked)].into_iter().flatten().collect())
}

/// Reads the conditions of a rule. Errors name the condition: `conditions.country.in`.
pub fn read_conditions(conditions: &Conditions) -> Result<Vec<Condition>, FieldError> {
    conditions.iter().map(|(name, value)| read_condition(name, value)).collect()
}

/// Writes what [`read_conditions`] reads as the same conditions.
pub fn write_conditions(conditions: &[Condition]) -> Conditions {
    fn texts<T: fmt::Display>(values: impl Iterator<Item = T>) -> Value {
        values.map(|value| Value::from(value.to_string())).collect()
    }
    let write = |condition: &Condition| {
        let value = match condition {
            Condition::Value { mode, set } => {
                let list = match set {
                    ValueSet::Country(set) => texts(set.iter()),
                    ValueSet::Region(set) => texts(set.iter()),
                    ValueSet::City(set) => texts(set.iter()),
                    ValueSet::Asn(set) => set.iter().copied().collect(),
                    ValueSet::Device(set) => texts(set.iter()),
                    ValueSet::Os(set) => texts(set.iter()),
                    ValueSet::Browser(set) => texts(set.iter()),
                    ValueSet::Language(set) => texts(set.iter()),
                    ValueSet::Sub(_, set) => texts(set.iter()),
                    ValueSet::ReferrerHost(set) => texts(set.iter()),
                    ValueSet::Ip(set) => texts(set.iter()),
                };
                json!({ if *mode == Mode::In { "in" } else { "not_in" }: list })
            }
            Condition::Hours(hours) => json!({
                "days": texts(hours.days().map(|day| DAY_NAMES[day.to_monday_zero_offset() as usize])),
                "from": hours.from().to_string(), "to": hours.to().to_string(), "time_zone": hours.zone().name(),
            }),
            // An offer's, never a rule's.
            Condition::Before(_) => return None,
        };
        Some((condition.name().to_owned(), value))
    };
    conditions.iter().filter_map(write).collect()
}

/// Reads an ISO 3166-1 alpha-2 code in upper case.
pub fn read_country(parameter: &str, code: &str) -> Result<Country, FieldError> {
    Country::parse(code).ok_or_else(|| {
        expected(parameter, code, "an ISO 3166-1 alpha-2 country code in upper case, such as US")
    })
}

/// Reads `YYYY-MM-DD HH:MM:SS` in the network's zone. That second is the offer's last.
pub fn read_expiration(text: &str, zone: &Zone) -> Result<UnixMillis, FieldError> {
    let wanted = || expected("expiration_date", text, "YYYY-MM-DD HH:MM:SS, such as 2027-01-31 23:59:59");
    let last = DateTime::strptime("%Y-%m-%d %H:%M:%S", text).map_err(|_| wanted())?;
    let last = zone.moment(last).ok_or_else(wanted)?;
    Ok(UnixMillis(last.0 + 1000))
}

/// Reads `offer_weight`: 0 to 100.
pub fn read_weight(weight: i64) -> Result<Weight, FieldError> {
    u8::try_from(weight).ok().and_then(Weight::new).ok_or_else(|| {
        expected("offer_weight", weight, "a whole number from 1 to 100, or 0 for attached without traffic")
    })
}

/// Reads `priority`: 0 to 2³² − 1, lower first.
pub fn read_priority(priority: i64) -> Result<u32, FieldError> {
    u32::try_from(priority)
        .map_err(|_| expected("priority", priority, "a whole number from 0 to 4294967295, lower first"))
}

/// Reads an id: 1 ≤ value < 2³².
pub fn read_id<T>(parameter: &str, value: i64, new: impl Fn(u32) -> Option<T>) -> Result<T, FieldError> {
    u32::try_from(value)
        .ok()
        .and_then(new)
        .ok_or_else(|| expected(parameter, value, "a whole number from 1 to 4294967295"))
}

/// Reads a status, in any case, and answers it as the API spells it.
pub fn read_status(
    parameter: &str,
    status: &str,
    known: &'static [&'static str],
) -> Result<&'static str, FieldError> {
    known
        .iter()
        .find(|name| name.eq_ignore_ascii_case(status))
        .copied()
        .ok_or_else(|| expected(parameter, status, &format!("one of {}", known.join(", "))))
}

fn read_rotation(rotation: &str) -> Result<Rotation, FieldError> {
    Rotation::parse(&rotation.to_ascii_lowercase())
        .ok_or_else(|| expected("rotation_type", rotation, "one of weighted, even, priority"))
}

/// What [`read_condition`] refuses; of hours, each part.
fn wrong_condition(name: &str, value: &Value) -> Vec<FieldError> {
    if name == "hours" {
        return read_hours_whole("conditions.hours", value).err().unwrap_or_default();
    }
    read_condition(name, value).err().into_iter().collect()
}

fn read_condition(name: &str, value: &Value) -> Result<Condition, FieldError> {
    let path = format!("conditions.{name}");
    if name == "hours" {
        return read_hours(&path, value).map(Condition::Hours);
    }
    let object = value
        .as_object()
        .ok_or_else(|| FieldError::new(&path, "must be an object with one list, `in` or `not_in`"))?;
    let (mode, list) = match object.iter().next() {
        Some((key, list)) if object.len() == 1 && key == "in" => (Mode::In, list),
        Some((key, list)) if object.len() == 1 && key == "not_in" => (Mode::NotIn, list),
        _ => return Err(FieldError::new(&path, "must have exactly one list, `in` or `not_in`")),
    };
    let path = format!("{path}.{}", if mode == Mode::In { "in" } else { "not_in" });
    let list = list.as_array().ok_or_else(|| FieldError::new(&path, "must be a list"))?;
    if list.is_empty() {
        return Err(FieldError::new(
            &path,
            "is empty: no click could be told by it; list a value, or leave it out",
        ));
    }
    let set = read_set(name, &path, list)?;
    Ok(Condition::Value { mode, set })
}

fn read_set(name: &str, path: &str, list: &[Value]) -> Result<ValueSet, FieldError> {
    let texts = || -> Result<Vec<&str>, FieldError> {
        list.iter()
            .map(|value| value.as_str().ok_or_else(|| expected(path, value.clone(), "a list of texts")))
            .collect()
    };
    let sub = |index| -> Result<ValueSet, FieldError> {
        let texts = texts()?;
        if let Some(long) = texts.iter().find(|text| text.len() > SUB_BYTES_MAX) {
            return Err(expected(path, *long, "sub ids of at most 255 bytes"));
        }
        Ok(ValueSet::Sub(index, TextSet::new(texts)))
    };
    Ok(match name {
        "country" => ValueSet::Country(
            texts()?.into_iter().map(|code| read_country(path, code)).collect::<Result<_, _>>()?,
        ),
        "region" => {
            let read = |text| {
                Region::parse(text).ok_or_else(|| expected(path, text, "an ISO 3166-2 code such as US-CA"))
            };
            ValueSet::Region(texts()?.into_iter().map(read).collect::<Result<_, _>>()?)
        }
        "city" => {
            let names = texts()?;
            if names.iter().any(|name| name.trim().is_empty()) {
                return Err(FieldError::new(path, "has an empty name; list English city names"));
            }
            ValueSet::City(NameSet::new(names))
        }
        "asn" => {
            let read = |value: &Value| {
                let asn = value.as_u64().and_then(|asn| u32::try_from(asn).ok());
                asn.ok_or_else(|| expected(path, value.clone(), "autonomous system numbers, such as 64496"))
            };
            ValueSet::Asn(list.iter().map(read).collect::<Result<_, _>>()?)
        }
        "device" => ValueSet::Device(flags(path, &texts()?, DeviceKind::parse, |kind| kind.as_str())?),
        "os" => ValueSet::Os(flags(path, &texts()?, Os::parse, |os| os.as_str())?),
        "browser" => ValueSet::Browser(flags(path, &texts()?, Browser::parse, |browser| browser.as_str())?),
        "language" => {
            let read = |text| {
                Language::parse(text).ok_or_else(|| {
                    expected(path, text, "a primary language subtag in lower case, such as en")
                })
            };
            ValueSet::Language(texts()?.into_iter().map(read).collect::<Result<_, _>>()?)
        }
        "s1" => sub(0)?,
        "s2" => sub(1)?,
        "s3" => sub(2)?,
        "s4" => sub(3)?,
        "s5" => sub(4)?,
        "referrer_host" => {
            let hosts = texts()?;
            if let Some(bad) = hosts.iter().find(|host| !is_host_pattern(host)) {
                return Err(expected(
                    path,
                    *bad,
                    "a host such as example.com, or *.example.com for all below it",
                ));
            }
            ValueSet::ReferrerHost(HostSet::new(hosts))
        }
        "ip" => ValueSet::Ip(NetSet::new(
            texts()?.into_iter().map(|text| read_net(path, text)).collect::<Result<Vec<_>, _>>()?,
        )),
        _ => {
            return Err(FieldError::new(
                format!("conditions.{name}"),
                format!("is not a condition; there are {}", CONDITION_NAMES.join(", ")),
            ));
        }
    })
}

fn read_net(path: &str, text: &str) -> Result<IpNet, FieldError> {
    parse_net(text).ok_or_else(|| expected(path, text, "a network such as 192.0.2.0/24 or an address"))
}

fn read_hours(path: &str, value: &Value) -> Result<Hours, FieldError> {
    read_hours_whole(path, value).map_err(|mut errors| errors.swap_remove(0))
}

/// Or everything that is wrong with them: at least one error.
fn read_hours_whole(path: &str, value: &Value) -> Result<Hours, Vec<FieldError>> {
    let object = value.as_object().ok_or_else(|| {
        vec![FieldError::new(path, "must be an object with `days`, `from`, `to`, `time_zone`")]
    })?;
    if let Some(key) = object.keys().find(|key| !["days", "from", "to", "time_zone"].contains(&key.as_str()))
    {
        return Err(vec![FieldError::new(
            format!("{path}.{key}"),
            "is not known; hours have `days`, `from`, `to`, `time_zone`",
        )]);
    }
    let minute = |key: &str| {
        let path = format!("{path}.{key}");
        let value = object.get(key).ok_or_else(|| FieldError::new(&path, "is missing; write HH:MM"))?;
        value
            .as_str()
            .and_then(MinuteOfDay::parse)
            .ok_or_else(|| expected(&path, value.clone(), "HH:MM from 00:00 to 24:00"))
    };
    let zone = || {
        let path = format!("{path}.time_zone");
        let zone = object.get("time_zone").ok_or_else(|| {
            FieldError::new(&path, "is missing; write an IANA name such as America/New_York")
        })?;
        zone.as_str()
            .and_then(Zone::parse)
            .ok_or_else(|| expected(&path, zone.clone(), "an IANA name such as America/New_York"))
    };
    let days = match object.get("days") {
        None => Ok(Weekday::Monday.cycle_forward().take(7).collect()),
        Some(value) => read_days(&format!("{path}.days"), value),
    };
    match (minute("from"), minute("to"), zone(), days) {
        (Ok(from), Ok(to), Ok(zone), Ok(days)) => Hours::new(days, from, to, zone).ok_or_else(|| {
            vec![FieldError::new(path, "begins when it ends; for a whole day write 00:00 to 24:00")]
        }),
        (from, to, zone, days) => {
            Err([from.err(), to.err(), zone.err(), days.err()].into_iter().flatten().collect())
        }
    }
}

fn read_days(path: &str, value: &Value) -> Result<Vec<Weekday>, FieldError> {
    let wanted = || expected(path, value.clone(), "a list of mon, tue, wed, thu, fri, sat, sun");
    let list = value.as_array().filter(|list| !list.is_empty()).ok_or_else(wanted)?;
    list.iter()
        .map(|day| {
            let name = day.as_str().ok_or_else(wanted)?;
            let offset = DAY_NAMES.iter().position(|known| *known == name).ok_or_else(wanted)?;
            Weekday::from_monday_zero_offset(offset as i8).map_err(|_| wanted())
        })
        .collect()
}

fn flags<T: Flag>(
    path: &str,
    texts: &[&str],
    parse: impl Fn(&str) -> Option<T>,
    name: impl Fn(T) -> &'static str,
) -> Result<Flags<T>, FieldError> {
    let known = || T::values().iter().map(|&value| name(value)).collect::<Vec<_>>().join(", ");
    texts
        .iter()
        .map(|text| parse(text).ok_or_else(|| expected(path, *text, &format!("one of {}", known()))))
        .collect()
}

/// The error of a value that was found where another was expected. A long value is cut.
pub fn expected(parameter: &str, found: impl Into<Value>, wanted: &str) -> FieldError {
    /// Enough to recognise a value by, too little to flood a log.
    const SHOWN_CHARS: usize = 80;
    // As JSON: texts in quotes, numbers bare.
    let found = found.into().to_string();
    let shown: String = match found.char_indices().nth(SHOWN_CHARS) {
        Some((cut, _)) => format!("{}…", &found[..cut]),
        None => found,
    };
    FieldError::new(parameter, format!("is {shown}; expected {wanted}"))
}

fn default_rotation_type() -> String {
    Rotation::default().as_str().to_owned()
}

fn default_cap_aware() -> bool {
    true
}

fn default_offer_weight() -> i64 {
    1
}

fn default_priority() -> i64 {
    1
}

/// The status in which a link or an offer takes clicks.
pub const ACTIVE: &str = "active";

/// The status in which it takes none.
pub const INACTIVE: &str = "inactive";

/// `smart_link_status`.
pub const LINK_STATUSES: &[&str] = &[ACTIVE, INACTIVE];

/// `offer_status`, over all of CAKE's pages.
pub const OFFER_STATUSES: &[&str] = &[ACTIVE, INACTIVE, "paused", "pending", "expired"];

/// Every condition that a rule may have.
pub const CONDITION_NAMES: &[&str] = &[
    "country",
    "region",
    "city",
    "asn",
    "device",
    "os",
    "browser",
    "language",
    "s1",
    "s2",
    "s3",
    "s4",
    "s5",
    "referrer_host",
    "ip",
    "hours",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn conditions(value: Value) -> Result<Vec<Condition>, FieldError> {
        read_conditions(&serde_json::from_value(value).unwrap())
    }

    /// Whoever collects what is wrong hears first what a reader stops at, and nothing where a reader does not stop.
    #[test]
    fn what_is_wrong_begins_with_what_reading_refuses() {
        let rule = |edit: Value| -> RoutingRule {
            let mut rule = json!({
                "rule_id": 7, "smart_link_id": 301, "offer_id": 1042, "priority": 2, "offer_weight": 10, "conditions": {},
            });
            rule.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
            serde_json::from_value(rule).unwrap()
        };
        for (edit, parameters) in [
            (json!({}), &[][..]),
            (
                json!({"offer_weight": 101, "priority": -1, "rule_id": 0}),
                &["offer_weight", "priority", "rule_id"],
            ),
            (
                json!({"smart_link_id": 0, "conditions": {
                    "country": {"in": ["ZZ"]}, "os": {"in": ["ios"]}, "device": {"of": []},
                    "hours": {"from": "9", "days": []},
                }}),
                &[
                    "smart_link_id",
                    "conditions.country.in",
                    "conditions.device",
                    "conditions.hours.from",
                    "conditions.hours.to",
                    "conditions.hours.time_zone",
                    "conditions.hours.days",
                ],
            ),
        ] {
            let rule = rule(edit);
            let wrong = rule.wrong();
            let mut named: Vec<&str> = wrong.iter().map(|error| error.parameter.as_str()).collect();
            assert_eq!(rule.read().err().as_ref(), wrong.first());
            let mut expected = parameters.to_vec();
            named.sort_unstable();
            expected.sort_unstable();
            assert_eq!(named, expected);
        }
    }

    #[test]
    fn reads_every_condition() {
        let all = json!({
            "country": {"in": ["US", "CA"]}, "region": {"not_in": ["US-CA"]}, "city": {"in": ["Berlin"]},
            "asn": {"in": [64496]}, "device": {"not_in": ["tablet"]}, "os": {"in": ["ios"]},
            "browser": {"in": ["safari"]}, "language": {"in": ["en"]}, "s1": {"in": ["a"]}, "s2": {"in": ["b"]},
            "s3": {"in": ["c"]}, "s4": {"in": ["d"]}, "s5": {"in": ["e"]}, "referrer_host": {"in": ["*.example.com"]},
            "ip": {"in": ["192.0.2.0/24", "2001:db8::1"]},
            "hours": {"days": ["mon", "fri"], "from": "09:00", "to": "17:30", "time_zone": "America/New_York"},
        });
        let read = conditions(all).unwrap();
        assert_eq!(read.len(), CONDITION_NAMES.len());
        for condition in &read {
            assert!(CONDITION_NAMES.contains(&condition.name()));
        }
    }

    #[test]
    fn payouts_that_were_written_are_read_as_the_same() {
        for nth in 0..1_000u32 {
            // All bits of the fraction are in use.
            let payout = (f64::from(nth) + 0.5).sqrt() * 100.0 / 3.0;
            let text = json!({"offer_id": 1, "offer_status": "active", "payout": payout}).to_string();
            let read: OfferItem = serde_json::from_str(&text).unwrap();
            assert_eq!(read.payout, Some(payout), "{text}");
            // As it is kept beside others.
            let value: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["payout"], json!(payout), "{text}");
        }
    }

    #[test]
    fn conditions_that_were_written_are_read_as_the_same() {
        for value in [
            json!({}),
            json!({
                "country": {"in": ["US", "CA"]}, "region": {"not_in": ["US-CA"]}, "city": {"in": ["Berlin", "São Paulo"]},
                "asn": {"in": [64497, 64496]}, "device": {"not_in": ["tablet", "tv"]}, "os": {"in": ["ios"]},
                "browser": {"in": ["safari"]}, "language": {"in": ["en", "de"]}, "s1": {"in": ["a", "Ä", ""]},
                "s2": {"not_in": ["b"]}, "s3": {"in": ["c"]}, "s4": {"in": ["d"]}, "s5": {"in": ["\"e\""]},
                "referrer_host": {"in": ["*.example.com", "Example.org"]},
                "ip": {"in": ["192.0.2.0/24", "2001:db8::1", "198.51.100.7"]},
                "hours": {"from": "22:00", "to": "24:00", "time_zone": "America/New_York"},
            }),
            json!({"hours": {"days": ["sun", "mon"], "from": "22:00", "to": "06:30", "time_zone": "UTC"}}),
        ] {
            let read = conditions(value.clone()).unwrap();
            let written = write_conditions(&read);
            assert_eq!(read_conditions(&written).unwrap(), read, "{value}");
            assert_eq!(written.len(), value.as_object().unwrap().len());
        }
    }

    #[test]
    fn refuses_and_names_the_parameter() {
        for (value, parameter) in [
            (json!({"planet": {"in": ["Mars"]}}), "conditions.planet"),
            (json!({"country": {"in": ["ZZ"]}}), "conditions.country.in"),
            (json!({"country": {"in": ["us"]}}), "conditions.country.in"),
            (json!({"country": {"in": []}}), "conditions.country.in"),
            (json!({"country": {"in": ["US"], "not_in": ["CA"]}}), "conditions.country"),
            (json!({"country": ["US"]}), "conditions.country"),
            (json!({"region": {"in": ["ZZ-1"]}}), "conditions.region.in"),
            (json!({"asn": {"in": ["64496"]}}), "conditions.asn.in"),
            (json!({"asn": {"in": [-1]}}), "conditions.asn.in"),
            (json!({"device": {"not_in": ["phone"]}}), "conditions.device.not_in"),
            (json!({"language": {"in": ["EN"]}}), "conditions.language.in"),
            (json!({"referrer_host": {"in": ["https://a.b"]}}), "conditions.referrer_host.in"),
            (json!({"ip": {"in": ["192.0.2.0/33"]}}), "conditions.ip.in"),
            (json!({"hours": {"from": "09:00", "to": "17:00"}}), "conditions.hours.time_zone"),
            (json!({"hours": {"from": "9", "to": "17:00", "time_zone": "UTC"}}), "conditions.hours.from"),
            (json!({"hours": {"from": "09:00", "to": "09:00", "time_zone": "UTC"}}), "conditions.hours"),
            (
                json!({"hours": {"days": [], "from": "09:00", "to": "10:00", "time_zone": "UTC"}}),
                "conditions.hours.days",
            ),
            (
                json!({"hours": {"minutes": 1, "from": "09:00", "to": "10:00", "time_zone": "UTC"}}),
                "conditions.hours.minutes",
            ),
        ] {
            assert_eq!(conditions(value.clone()).unwrap_err().parameter, parameter, "{value}");
        }
    }

    #[test]
    fn the_last_second_of_an_offer_is_in_the_networks_zone() {
        let zone = Zone::parse("America/New_York").unwrap();
        let expires = read_expiration("2027-01-31 23:59:59", &zone).unwrap();
        let first_expired: jiff::Timestamp = "2027-02-01T05:00:00Z".parse().unwrap();
        assert_eq!(expires.0, first_expired.as_millisecond());
        assert!(read_expiration("2027-02-30 00:00:00", &zone).is_err());
        assert!(read_expiration("2027-01-31", &zone).is_err());
    }
}
