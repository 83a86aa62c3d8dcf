//! One page of a list: its envelope checked, its rows read one by one.
//!
//! A row of another shape than its list's makes itself unreadable, not its list. Whatever is known of it is kept, so
//! that it can be named, and its last good version can stay in its place.

use std::collections::HashMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::fetch_error::FetchError;
use super::key::Key;
use super::lenient;
use super::offer_cap::{OfferCap, key_of};

/// The lists of which a network consists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum List {
    SmartLinks,
    Offers,
    OfferGeoTargets,
    SmartLinkOffers,
    RoutingRules,
    OfferCaps,
}

/// What tells an item from the others of its list: one id, or for an attachment the link's and the offer's, or for a cap
/// what [`OfferCap::id`] makes of its name.
pub type ItemId = (i64, i64);

/// A row that is of no shape that its list has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub list: List,
    /// If it can be told.
    pub id: Option<ItemId>,
    /// Where it stands in its list, from 1.
    pub row: usize,
    /// Why it cannot be read.
    pub reason: String,
}

/// The rows of a page.
#[derive(Debug)]
pub struct Page<T> {
    pub rows: Vec<T>,
    pub unreadable: Vec<Unreadable>,
    /// The upstream's own count over all pages, where it gives one. A hint: it may be wrong either way.
    pub total_rows: Option<usize>,
    /// Of the rows as they came: no two pages are the same.
    pub digest: blake3::Hash,
}

impl<T> Page<T> {
    /// Readable or not.
    pub fn rows_count(&self) -> usize {
        self.rows.len() + self.unreadable.len()
    }
}

impl List {
    pub fn call(self) -> &'static str {
        match self {
            List::SmartLinks => "smart_links.json",
            List::Offers => "offers.json",
            List::OfferGeoTargets => "offer_geo_targets.json",
            List::SmartLinkOffers => "smart_link_offers.json",
            List::RoutingRules => "routing_rules.json",
            List::OfferCaps => "offer_caps.json",
        }
    }

    pub fn name(self) -> &'static str {
        self.call().trim_end_matches(".json")
    }

    /// The id of a row of which nothing else may be readable.
    fn id_of(self, row: &RawValue) -> Option<ItemId> {
        let fields: Fields<'_> = serde_json::from_str(row.get()).ok()?;
        let id = |fields: &Fields<'_>, name: &str| {
            let mut deserializer = serde_json::Deserializer::from_str(fields.get(name)?.get());
            lenient::whole(&mut deserializer).ok()
        };
        match self {
            List::SmartLinks => Some((id(&fields, "smart_link_id")?, 0)),
            List::Offers => {
                let wrapped: Fields<'_> = serde_json::from_str(fields.get("offer")?.get()).ok()?;
                Some((id(&wrapped, "offer_id")?, 0))
            }
            List::OfferGeoTargets => Some((id(&fields, "offer_id")?, 0)),
            List::SmartLinkOffers => Some((id(&fields, "smart_link_id")?, id(&fields, "offer_id")?)),
            List::RoutingRules => Some((id(&fields, "rule_id")?, 0)),
            List::OfferCaps => {
                let text = |name: &str| serde_json::from_str(fields.get(name)?.get()).ok();
                let affiliate_id = match fields.get("affiliate_id").map(|id| id.get()) {
                    None | Some("null") => None,
                    Some(_) => Some(id(&fields, "affiliate_id")?),
                };
                let named = OfferCap {
                    offer_id: id(&fields, "offer_id")?,
                    affiliate_id,
                    cap_type: text("cap_type")?,
                    cap_interval: text("cap_interval")?,
                    cap_amount: 0,
                    time_zone: None,
                    send_alert_only: false,
                };
                named.key().is_ok().then(|| named.id())
            }
        }
    }
}

impl Unreadable {
    /// Strikes the key out of what the upstream said.
    pub(super) fn without(mut self, key: &Key) -> Self {
        self.reason = key.struck_from(&self.reason);
        self
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.list, self.id) {
            (list, None) => write!(f, "row {} of {}", self.row, list.call()),
            (List::SmartLinks, Some((link, _))) => write!(f, "smart link {link}"),
            (List::Offers, Some((offer, _))) => write!(f, "offer {offer}"),
            (List::OfferGeoTargets, Some((offer, _))) => write!(f, "geo targets of offer {offer}"),
            (List::SmartLinkOffers, Some((link, offer))) => write!(f, "offer {offer} on smart link {link}"),
            (List::RoutingRules, Some((rule, _))) => write!(f, "rule {rule}"),
            (List::OfferCaps, Some(id)) => match key_of(id) {
                Some(key) => key.fmt(f),
                None => write!(f, "a cap of offer {}", id.0),
            },
        }
    }
}

/// Reads the list, under `response` or at the top. `before`: the rows on the pages before this one.
pub fn read_page<T: DeserializeOwned>(list: List, before: usize, body: &[u8]) -> Result<Page<T>, FetchError> {
    let call = list.call();
    let (top, inner) = read_envelope(call, body)?;
    let rows = inner.get(list.name()).or_else(|| top.get(list.name()));
    let text = rows.ok_or(FetchError::NoList { call, list: list.name() })?.get();
    let total = inner.get("total_rows").or_else(|| top.get("total_rows"));
    let total_rows = total.and_then(|total| total.get().trim_matches('"').parse().ok());
    let digest = blake3::hash(text.as_bytes());
    // All at once, as good as always; row by row only where that fails, because it reads everything twice.
    if let Ok(rows) = serde_json::from_str(text) {
        return Ok(Page { rows, unreadable: Vec::new(), total_rows, digest });
    }
    let json = |error: serde_json::Error| FetchError::Json { call, reason: error.to_string() };
    let raw: Vec<&RawValue> = serde_json::from_str(text).map_err(json)?;
    let mut page = Page { rows: Vec::with_capacity(raw.len()), unreadable: Vec::new(), total_rows, digest };
    for (index, row) in raw.into_iter().enumerate() {
        match serde_json::from_str(row.get()) {
            Ok(item) => page.rows.push(item),
            Err(error) => page.unreadable.push(Unreadable {
                list,
                id: list.id_of(row),
                row: before + index + 1,
                reason: error.to_string(),
            }),
        }
    }
    Ok(page)
}

/// Checks the status, and gives the fields at the top and those under `response`.
pub fn read_envelope<'b>(call: &'static str, body: &'b [u8]) -> Result<(Fields<'b>, Fields<'b>), FetchError> {
    let json = |error: serde_json::Error| FetchError::Json { call, reason: error.to_string() };
    let top: Fields<'b> = serde_json::from_slice(body).map_err(json)?;
    let status: String = match top.get("request_status") {
        Some(status) => serde_json::from_str(status.get()).map_err(json)?,
        None => String::new(),
    };
    if !status.eq_ignore_ascii_case("success") {
        return Err(FetchError::Refused { call, status });
    }
    let inner = match top.get("response") {
        Some(response) => serde_json::from_str(response.get()).map_err(json)?,
        None => HashMap::new(),
    };
    Ok((top, inner))
}

/// The fields of a JSON object, not yet read.
pub type Fields<'b> = HashMap<String, &'b RawValue>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cake::wire::{SmartLink, SmartLinkOffer};

    fn read(body: &str) -> Result<usize, String> {
        read_page::<SmartLink>(List::SmartLinks, 0, body.as_bytes())
            .map(|page| page.rows.len())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn both_dialects() {
        let link =
            r#"{"smart_link_id":301,"affiliate_id":67890,"smart_link_status":"active","new_field":[]}"#;
        let nested =
            format!(r#"{{"request_status":"Success","response":{{"smart_links":[{link}],"total_rows":1}}}}"#);
        let flat = format!(r#"{{"request_status":"SUCCESS","smart_links":[{link}]}}"#);
        assert_eq!(read(&nested), Ok(1));
        assert_eq!(read(&flat), Ok(1));
    }

    #[test]
    fn whatever_else_comes_is_an_error() {
        for (body, said) in [
            ("", "smart_links.json: the answer is not the JSON"),
            ("<html>", "not the JSON"),
            ("[]", "not the JSON"),
            ("{}", "request_status \"\""),
            (r#"{"request_status":"Error","message":"no"}"#, "request_status \"Error\""),
            (r#"{"request_status":"Success"}"#, "no list `smart_links`"),
            (r#"{"request_status":"Success","smart_links":{}}"#, "not the JSON"),
            (r#"{"request_status":"Success","smart_links":null}"#, "not the JSON"),
            (r#"{"request_status":"Success","smart_links":"[]"}"#, "not the JSON"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(said), "{body}: {error}");
        }
    }

    #[test]
    fn an_unreadable_row_is_named_and_harms_no_other() {
        let rows = r#"[{"smart_link_id":"1","offer_id":10,"offer_weight":"60"},
            {"smart_link_id":1,"offer_id":"11","offer_weight":[]}, 7, null, {"smart_link_id":{},"offer_id":12},
            {"smart_link_id":2,"offer_id":13}]"#;
        let body = format!(
            r#"{{"request_status":"Success","response":{{"smart_link_offers":{rows},"total_rows":"6"}}}}"#
        );
        let page: Page<SmartLinkOffer> = read_page(List::SmartLinkOffers, 500, body.as_bytes()).unwrap();
        assert_eq!(page.total_rows, Some(6));
        let read: Vec<_> = page.rows.iter().map(|row| (row.smart_link_id, row.offer_weight)).collect();
        assert_eq!(read, [(1, 60), (2, 1)]);
        let named: Vec<String> = page.unreadable.iter().map(ToString::to_string).collect();
        assert_eq!(
            named,
            [
                "offer 11 on smart link 1",
                "row 503 of smart_link_offers.json",
                "row 504 of smart_link_offers.json",
                "row 505 of smart_link_offers.json",
            ]
        );
        assert!(page.unreadable[0].reason.contains("expected a whole number"), "{:?}", page.unreadable[0]);
    }
}
