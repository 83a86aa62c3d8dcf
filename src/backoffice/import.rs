//! `POST import_network.json`: a whole network at once, all of it or nothing.
//!
//! Every item of the six lists is read by the functions that read it in a call of its own, before anything is
//! written; then all are put in their places by id, in one transaction. An item is whole: what it does not name has the
//! value of a new one. What no item names stays, unless `replace` is true. Where nothing changes, nothing is written,
//! and the network keeps its revision.
//!
//! The body may be long. Nobody makes us take in a long one who has not shown the key before it: where the key comes
//! in the body itself, the body is limited as that of every call.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use http::header;
use rusqlite::Transaction;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::{Answer, Refusal, Under};
use super::api::{self, BODY_BYTES_MAX};
use super::call::{SpecialCall, Verb};
use super::contract::{Parameter, Shape};
use super::parameters::{Parameters, PresentedKeys};
use super::precondition::Precondition;
use super::store::Put;
use super::{Backoffice, Options, attachments, cap_rows, caps, geo_targets, json, links, offers, rules};
use crate::cake::wire::{FieldError, OfferCap, RoutingRule, SmartLink, SmartLinkOffer};
use crate::types::Country;

/// The call.
pub const CALL: SpecialCall = SpecialCall {
    verb: Verb::Write,
    name: "import_network.json",
    about: "Takes a network at once, all of it or nothing. Items are whole; what no item names stays, unless `replace` is true.",
    parameters: &[],
    body: "ImportedNetwork",
    example: r##"{"replace": false, "offers": [{"offer_id": 2042, "offer_name": "Card CA", "offer_url": "https://card.example.com/ca?r=#reqid#", "offer_status": "active", "payout": 30.0}], "smart_links": [{"smart_link_id": 401, "smart_link_name": "Finance Rotator - CA", "affiliate_id": 67890, "cap_aware": true}], "offer_geo_targets": [{"offer_id": 2042, "countries": ["CA"], "action": "allow"}], "smart_link_offers": [{"smart_link_id": 401, "offer_id": 2042, "offer_weight": 60, "priority": 2}], "routing_rules": [{"rule_id": 101, "smart_link_id": 401, "offer_id": 2042, "priority": 1, "offer_weight": 10, "conditions": {"device": {"in": ["mobile"]}}}], "offer_caps": [{"offer_id": 2042, "cap_type": "click", "cap_interval": "daily", "cap_amount": 1000, "time_zone": "America/Toronto"}]}"##,
    answer: Shape::Told { item: "ImportedCounts", messages: &[IMPORTED, UNCHANGED] },
    statuses: &["400", "401", "405", "408", "412", "413", "422", "429", "500"],
};

/// Answers the call, in JSON whatever happens.
pub async fn handle(State(backoffice): State<Backoffice>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    api::respond(&path, answer(backoffice, request).await)
}

async fn answer(backoffice: Backoffice, request: Request) -> Result<Answer, Refusal> {
    let (head, body) = request.into_parts();
    if !CALL.verb.is(&head.method) {
        return Err(Refusal::Method { allowed: CALL.verb.allows() });
    }
    let mut keys = PresentedKeys::default();
    Parameters::default().add_query(head.uri.query().unwrap_or_default(), &mut keys)?;
    keys.add_bearer(&head.headers);
    let is_trusted = !keys.is_empty();
    let (backoffice, keys) = api::blocking(move || {
        if is_trusted {
            api::check_key(&backoffice, &keys)?;
        }
        Ok((backoffice, keys))
    })
    .await?;
    let is_json = head.headers.get(header::CONTENT_TYPE).is_none_or(|kind| {
        kind.to_str().is_ok_and(|kind| kind.to_ascii_lowercase().starts_with("application/json"))
    });
    if !is_json {
        return Err(Refusal::Body(
            "is of a content type that is not understood; send application/json".to_owned(),
        ));
    }
    let body_bytes_max = if is_trusted { IMPORT_BYTES_MAX } else { BODY_BYTES_MAX };
    let patience = if is_trusted { IMPORT_TIMEOUT } else { backoffice.options().limits.body_read_timeout };
    let body = tokio::time::timeout(patience, api::read_body(body, body_bytes_max))
        .await
        .map_err(|_| Refusal::Slow(patience))??;
    let precondition = Precondition::read(&head.headers);
    api::blocking(move || import(&backoffice, keys, &body, &precondition)).await
}

/// The body. Items stay text until each is read, so that a long list is not held twice.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    /// Read as [`KeyInBody`].
    #[serde(rename = "api_key")]
    _api_key: Option<&'a RawValue>,
    #[serde(default)]
    replace: bool,
    #[serde(borrow)]
    offers: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    smart_links: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    offer_geo_targets: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    smart_link_offers: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    routing_rules: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    offer_caps: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct KeyInBody {
    api_key: Option<Value>,
}

/// Every item, read; each list has an id once.
struct Items {
    offers: Vec<offers::Offer>,
    smart_links: Vec<SmartLink>,
    /// By offer, each country once.
    geo_targets: BTreeMap<i64, BTreeMap<Country, &'static str>>,
    /// Which item of the list named the offer first, for an error.
    geo_targets_named: HashMap<i64, usize>,
    smart_link_offers: Vec<SmartLinkOffer>,
    routing_rules: Vec<RoutingRule>,
    offer_caps: Vec<OfferCap>,
}

/// What the answer says of each list.
#[derive(Default, Serialize)]
struct Counts {
    offers: Count,
    smart_links: Count,
    offer_geo_targets: Count,
    smart_link_offers: Count,
    routing_rules: Count,
    offer_caps: Count,
}

#[derive(Default, Serialize)]
struct Count {
    created: u64,
    changed: u64,
    unchanged: u64,
    removed: u64,
}

fn import(
    backoffice: &Backoffice,
    mut keys: PresentedKeys,
    bytes: &[u8],
    precondition: &Precondition,
) -> Result<Answer, Refusal> {
    let body = serde_json::from_slice::<Body<'_>>(bytes);
    // A body that is no network may still hold the key, and its sender should hear what is wrong with the body.
    keys.add(serde_json::from_slice::<KeyInBody>(bytes).ok().and_then(|body| body.api_key));
    api::check_key(backoffice, &keys)?;
    let body = body.map_err(|error| Refusal::Body(format!("is not a network in JSON: {error}")))?;
    let replace = body.replace;
    if replace {
        body.refuse_missing_lists()?;
    }
    let options = backoffice.options();
    let items = Items::read(&body, options)?;
    backoffice.store().write_if(|transaction| {
        precondition.check(transaction)?;
        let counts = items.put(transaction, options, replace)?;
        let changed = counts.changed();
        let message = if changed { IMPORTED } else { UNCHANGED };
        Ok((Answer::with_message(message, Under { response: counts })?, changed))
    })
}

impl Body<'_> {
    /// A list that was forgotten would remove everything in it.
    fn refuse_missing_lists(&self) -> Result<(), Refusal> {
        let lists = [
            ("offers", &self.offers),
            ("smart_links", &self.smart_links),
            ("offer_geo_targets", &self.offer_geo_targets),
            ("smart_link_offers", &self.smart_link_offers),
            ("routing_rules", &self.routing_rules),
            ("offer_caps", &self.offer_caps),
        ];
        match lists.into_iter().find(|(_, list)| list.is_none()) {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::malformed(
                name,
                "is missing; with `replace`, every list must be given, be it empty: what it does not name is removed",
            )),
        }
    }
}

impl Items {
    fn read(body: &Body<'_>, options: &Options) -> Result<Self, Refusal> {
        let offers = OFFERS.read(&body.offers, options, offers::item, |offer| offer.id())?;
        let smart_links = LINKS.read(&body.smart_links, options, links::item, |link| link.smart_link_id)?;
        let smart_link_offers =
            ENTRIES.read(&body.smart_link_offers, options, attachments::item, |entry| {
                (entry.smart_link_id, entry.offer_id)
            })?;
        let routing_rules = RULES.read(&body.routing_rules, options, rules::item, |rule| rule.rule_id)?;
        let offer_caps = CAPS.read(&body.offer_caps, options, caps::item, OfferCap::id)?;

        let all = GEO_TARGETS
            .read(&body.offer_geo_targets, options, geo_targets::item, |item| (item.offer, item.action))?;
        let mut geo_targets: BTreeMap<i64, BTreeMap<Country, &'static str>> = BTreeMap::new();
        let mut geo_targets_named = HashMap::new();
        for (index, item) in all.into_iter().enumerate() {
            geo_targets_named.entry(item.offer).or_insert(index);
            let of_offer = geo_targets.entry(item.offer).or_default();
            for country in item.countries {
                if of_offer.insert(country, item.action).is_some() {
                    let problem = format!("names {}, which the offer allows and blocks", country.as_str());
                    return Err(at(
                        GEO_TARGETS.list,
                        index,
                        "countries",
                        &problem,
                        &format!("offer {}", item.offer),
                    ));
                }
            }
        }
        Ok(Self {
            offers,
            smart_links,
            geo_targets,
            geo_targets_named,
            smart_link_offers,
            routing_rules,
            offer_caps,
        })
    }

    /// Removes, then puts, in the order in which items refer to each other.
    fn put(
        &self,
        transaction: &Transaction<'_>,
        options: &Options,
        replace: bool,
    ) -> Result<Counts, Refusal> {
        let offers: HashSet<i64> = self.offers.iter().map(|offer| offer.id()).collect();
        let links: HashSet<i64> = self.smart_links.iter().map(|link| link.smart_link_id).collect();
        self.check_references(transaction, &offers, &links, replace)?;
        let mut counts = Counts::default();
        if replace {
            let rules: HashSet<i64> = self.routing_rules.iter().map(|rule| rule.rule_id).collect();
            let entries: HashSet<(i64, i64)> =
                self.smart_link_offers.iter().map(|entry| (entry.smart_link_id, entry.offer_id)).collect();
            counts.routing_rules.removed =
                remove(transaction, RULES.list, "rule_id, 0", |&(id, _)| !rules.contains(&id))?;
            counts.smart_link_offers.removed =
                remove(transaction, ENTRIES.list, "smart_link_id, offer_id", |ids| !entries.contains(ids))?;
            let caps = self.offer_caps.iter().map(OfferCap::id).collect();
            counts.offer_caps.removed = cap_rows::remove_others(transaction, &caps)?;
            let untargeted = |&(id, _): &(i64, i64)| !self.geo_targets.contains_key(&id);
            counts.offer_geo_targets.removed =
                remove(transaction, GEO_TARGETS.list, "offer_id, 0", untargeted)?;
        }
        for offer in &self.offers {
            counts.offers.add(offers::put(transaction, offer)?);
        }
        for link in &self.smart_links {
            counts.smart_links.add(links::put(transaction, options, link)?);
        }
        for (offer, targets) in &self.geo_targets {
            counts.offer_geo_targets.add(geo_targets::put(transaction, *offer, targets)?);
        }
        for entry in &self.smart_link_offers {
            counts.smart_link_offers.add(attachments::put(transaction, entry)?);
        }
        for rule in &self.routing_rules {
            counts.routing_rules.add(rules::put(transaction, rule)?);
        }
        for cap in &self.offer_caps {
            counts.offer_caps.add(cap_rows::put(transaction, cap)?);
        }
        if replace {
            counts.smart_links.removed =
                remove(transaction, "smart_links", "smart_link_id, 0", |&(id, _)| !links.contains(&id))?;
            counts.offers.removed =
                remove(transaction, "offers", "offer_id, 0", |&(id, _)| !offers.contains(&id))?;
        }
        Ok(counts)
    }

    /// Everything that is referred to is in the import, or, unless it replaces the network, in the store.
    fn check_references(
        &self,
        transaction: &Transaction<'_>,
        offers: &HashSet<i64>,
        links: &HashSet<i64>,
        replace: bool,
    ) -> Result<(), Refusal> {
        let is_stored = |sql: &str, id: i64| -> rusqlite::Result<bool> {
            Ok(!replace && transaction.prepare_cached(sql)?.exists([id])?)
        };
        let check = |list, index, label: &dyn Fn() -> String, name, id, named: &HashSet<i64>, sql| {
            if named.contains(&id) || is_stored(sql, id)? {
                return Ok(());
            }
            let place = if replace { "is not in what is imported" } else { "does not exist" };
            Err(at(list, index, name, &format!("{id} {place}"), &label()))
        };
        let (stored_offer, stored_link) =
            ("SELECT 1 FROM offers WHERE offer_id = ?", "SELECT 1 FROM smart_links WHERE smart_link_id = ?");
        for (&offer, &index) in &self.geo_targets_named {
            let label = || format!("offer {offer}");
            check(GEO_TARGETS.list, index, &label, "offer_id", offer, offers, stored_offer)?;
        }
        for (index, entry) in self.smart_link_offers.iter().enumerate() {
            let (link, offer) = (entry.smart_link_id, entry.offer_id);
            let label = || format!("offer {offer} on smart link {link}");
            check(ENTRIES.list, index, &label, "smart_link_id", link, links, stored_link)?;
            check(ENTRIES.list, index, &label, "offer_id", offer, offers, stored_offer)?;
        }
        for (index, rule) in self.routing_rules.iter().enumerate() {
            let label = || format!("rule {}", rule.rule_id);
            check(RULES.list, index, &label, "smart_link_id", rule.smart_link_id, links, stored_link)?;
            check(RULES.list, index, &label, "offer_id", rule.offer_id, offers, stored_offer)?;
        }
        for (index, cap) in self.offer_caps.iter().enumerate() {
            let label = || cap.label();
            check(CAPS.list, index, &label, "offer_id", cap.offer_id, offers, stored_offer)?;
        }
        Ok(())
    }
}

impl Counts {
    fn changed(&self) -> bool {
        let lists = [
            &self.offers,
            &self.smart_links,
            &self.offer_geo_targets,
            &self.smart_link_offers,
            &self.routing_rules,
            &self.offer_caps,
        ];
        lists.iter().any(|count| count.created + count.changed + count.removed > 0)
    }
}

impl Count {
    fn add(&mut self, put: Put) {
        match put {
            Put::Created => self.created += 1,
            Put::Changed => self.changed += 1,
            Put::Unchanged => self.unchanged += 1,
        }
    }
}

/// A list of the body: how an item of it is named in an error, and which members an item may have.
pub struct Noun {
    pub list: &'static str,
    label: fn(&Parameters) -> String,
    known: &'static [Parameter],
    /// What the call that makes a new one takes: what it needs and assumes, an item does.
    fresh: &'static [Parameter],
}

impl Noun {
    /// The members of an item.
    pub fn members(&self) -> Vec<Parameter> {
        let fresh = |known: &Parameter| self.fresh.iter().find(|fresh| fresh.name == known.name);
        self.known.iter().map(|known| *fresh(known).unwrap_or(known)).collect()
    }

    /// Reads every item, and refuses an id that stands twice: one of the two would be lost.
    fn read<T, K: Eq + Hash>(
        &self,
        items: &Option<Vec<&RawValue>>,
        options: &Options,
        read: impl Fn(&Options, &Parameters) -> Result<T, Refusal>,
        key: impl Fn(&T) -> K,
    ) -> Result<Vec<T>, Refusal> {
        let list = self.list;
        let mut seen: HashMap<K, usize> = HashMap::new();
        let mut found = Vec::new();
        for (index, item) in items.iter().flatten().enumerate() {
            let whole = |problem: &str| Refusal::malformed(&format!("{list}[{index}]"), problem);
            let members = match json::parse(item.get().as_bytes()) {
                Ok(Value::Object(members)) => members,
                Ok(_) => return Err(whole("is no object; expected one such as the API's own list has")),
                Err(error) => return Err(whole(&format!("cannot be read: {error}"))),
            };
            let asked = Parameters::from(members);
            let item = asked
                .refuse_unknown(self.known)
                .and_then(|()| read(options, &asked))
                .map_err(|refusal| self.place(refusal, index, &asked))?;
            if let Some(first) = seen.insert(key(&item), index) {
                let label = (self.label)(&asked);
                return Err(whole(&format!("is {label} again, which {list}[{first}] is; give each once")));
            }
            found.push(item);
        }
        Ok(found)
    }

    /// Says of which item a refusal is.
    fn place(&self, refusal: Refusal, index: usize, asked: &Parameters) -> Refusal {
        let field = |error: FieldError| {
            let parameter = format!("{}[{index}].{}", self.list, error.parameter);
            FieldError::new(parameter, format!("{} ({})", error.problem, (self.label)(asked)))
        };
        match refusal {
            Refusal::Malformed(error) => Refusal::Malformed(field(error)),
            Refusal::Value(error) => Refusal::Value(field(error)),
            // One at a time: an item of a list has a place, and is mended there.
            Refusal::Several { first, .. } => self.place(*first, index, asked),
            other => other,
        }
    }
}

fn at(list: &str, index: usize, name: &str, problem: &str, label: &str) -> Refusal {
    Refusal::Value(FieldError::new(format!("{list}[{index}].{name}"), format!("{problem} ({label})")))
}

/// Removes the rows whose ids are stale; says how many ids were. `ids` are two columns, or one and a zero.
fn remove(
    transaction: &Transaction<'_>,
    table: &str,
    ids: &str,
    is_stale: impl Fn(&(i64, i64)) -> bool,
) -> rusqlite::Result<u64> {
    let all: Vec<(i64, i64)> = transaction
        .prepare(&format!("SELECT DISTINCT {ids} FROM {table}"))?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut removed = 0;
    for (first, second) in all.into_iter().filter(is_stale) {
        transaction
            .prepare_cached(&format!("DELETE FROM {table} WHERE ({ids}) = (?, ?)"))?
            .execute((first, second))?;
        removed += 1;
    }
    Ok(removed)
}

fn label_offer(asked: &Parameters) -> String {
    format!("offer {}", id(asked, "offer_id"))
}

fn label_link(asked: &Parameters) -> String {
    format!("smart link {}", id(asked, "smart_link_id"))
}

fn label_entry(asked: &Parameters) -> String {
    format!("offer {} on smart link {}", id(asked, "offer_id"), id(asked, "smart_link_id"))
}

fn label_rule(asked: &Parameters) -> String {
    format!("rule {}", id(asked, "rule_id"))
}

fn label_cap(asked: &Parameters) -> String {
    let text = |name| asked.text(name).ok().flatten().unwrap_or("?");
    let affiliate = asked.whole_number("affiliate_id").ok().flatten();
    let whose = affiliate.map(|id| format!(" for affiliate {id}")).unwrap_or_default();
    format!("the {} {} cap of {}{whose}", text("cap_interval"), text("cap_type"), label_offer(asked))
}

/// An id as far as one was given.
fn id(asked: &Parameters, name: &str) -> String {
    asked.whole_number(name).ok().flatten().map_or("without id".to_owned(), |id| id.to_string())
}

/// The lists of the body.
pub const NOUNS: [Noun; 6] = [OFFERS, LINKS, GEO_TARGETS, ENTRIES, RULES, CAPS];

const OFFERS: Noun = Noun {
    list: "offers",
    label: label_offer,
    known: offers::UPDATE.parameters,
    fresh: offers::CREATE.parameters,
};

const LINKS: Noun = Noun {
    list: "smart_links",
    label: label_link,
    known: links::UPDATE.parameters,
    fresh: links::CREATE.parameters,
};

const GEO_TARGETS: Noun =
    Noun { list: "offer_geo_targets", label: label_offer, known: geo_targets::IMPORTED, fresh: &[] };

const ENTRIES: Noun =
    Noun { list: "smart_link_offers", label: label_entry, known: attachments::ATTACH.parameters, fresh: &[] };

const RULES: Noun = Noun {
    list: "routing_rules",
    label: label_rule,
    known: rules::UPDATE.parameters,
    fresh: rules::CREATE.parameters,
};

const CAPS: Noun = Noun { list: "offer_caps", label: label_cap, known: caps::SET.parameters, fresh: &[] };

/// What the answer says where something was changed.
const IMPORTED: &str = "imported";

/// What it says where nothing was.
const UNCHANGED: &str = "unchanged";

/// Half a gigabyte over a slow line.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(600);

/// A million links with four entries each, as JSON, and room.
const IMPORT_BYTES_MAX: usize = 512 * 1024 * 1024;
