//! Caps: how many clicks or conversions an offer may take in a window. CAKE documents no call for them; these are ours.
//!
//! The definitions are in the store, and how full each cap is, is the ledger's to say: a list joins the two.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::Transaction;
use serde::Serialize;
use serde_json::Value;

use super::answer::{Answer, Refusal, Rows, Under};
use super::call::{Call, Verb};
use super::cap_rows::{COLUMNS, Name, Numbered, find, find_by_id, read_row, save};
use super::contract::{Given, Kind, Parameter, ROW_LIMIT, START_AT_ROW, Shape};
use super::faults::Faults;
use super::links::LIST_ROWS_DEFAULT;
use super::offers::OFFER_ID;
use super::parameters::{Parameters, required};
use super::store::Listing;
use super::{Options, offers};
use crate::cake::wire::{
    CAP_AMOUNT_MAX, CAP_INTERVALS, CAP_TYPES, FieldError, OfferCap, read_amount, read_id, read_interval,
    read_kind, read_zone,
};
use crate::ledger::CapState;
use crate::types::{AffiliateId, CapKey, OfferId};

/// How full caps are, as far as the ledger knows them.
pub type CapStates = HashMap<CapKey, CapState>;

/// A cap and how full it is.
#[derive(Serialize)]
struct Filled {
    #[serde(flatten)]
    cap: Numbered,
    /// This and the next are null where the ledger does not say.
    used: Option<u64>,
    leased: Option<u64>,
    remaining: Option<u64>,
    /// RFC 3339, in UTC; null where it never ends, or is not known.
    window_ends_at: Option<String>,
}

/// `GET offer_caps.json`
pub fn list(
    transaction: &Transaction<'_>,
    asked: &Parameters,
    states: Option<&CapStates>,
) -> Result<Answer, Refusal> {
    let kind = asked.text("cap_type")?.map(read_kind).transpose()?;
    let interval = asked.text("cap_interval")?.map(read_interval).transpose()?;
    let listing = Listing::new("offer_caps", COLUMNS, "cap_id")
        .filter("cap_id", asked.whole_number("cap_id")?)
        .filter("offer_id", asked.whole_number("offer_id")?)
        .filter("affiliate_id", asked.whole_number("affiliate_id")?)
        .filter("cap_type", kind.map(|kind| kind.as_str().to_owned()))
        .filter("cap_interval", interval.map(|interval| interval.as_str().to_owned()));
    let (rows, total_rows) = listing.page(transaction, asked.page(LIST_ROWS_DEFAULT)?, read_row)?;
    let rows = rows.into_iter().map(|cap| Filled::of(cap, states)).collect();
    Answer::new(Under { response: Rows { noun: "offer_caps", rows, total_rows } })
}

/// `POST offer_cap.json`: sets a cap, or changes the one of that name, of which what is left out stays as it is.
pub fn set(transaction: &Transaction<'_>, options: &Options, asked: &Parameters) -> Result<Answer, Refusal> {
    let mut faults = Faults::default();
    let offer = faults.read(offers::existing(transaction, asked))?;
    let kind = faults.read(kind(asked))?;
    let interval = faults.read(interval(asked))?;
    let affiliate = faults.sent(affiliate(asked))?;
    let name = Name {
        // Without one of these, which is told then, the rest is still looked at.
        offer: offer.unwrap_or_default(),
        affiliate,
        kind: kind.unwrap_or_default(),
        interval: interval.unwrap_or_default(),
    };
    let before = find(transaction, &name)?;
    let mut after = match &before {
        Some(before) => before.cap.clone(),
        None => name.fresh(options),
    };
    change(&mut after, asked, faults)?;
    let message = match &before {
        None => "created",
        Some(before) if before.cap == after => UNCHANGED,
        Some(_) => "changed",
    };
    let cap_id = save(transaction, &after)?;
    let response = Numbered { cap_id, cap: after };
    Ok(Answer::with_message(message, Under { response })?.idle_if(message == UNCHANGED))
}

/// `POST remove_offer_cap.json`: answers the cap that was. It is named by its number or by its name; if by both, they
/// must be of the same cap.
pub fn remove(transaction: &Transaction<'_>, _: &Options, asked: &Parameters) -> Result<Answer, Refusal> {
    let removed = match asked.whole_number("cap_id")? {
        Some(id) => {
            let found = find_by_id(transaction, id)?.ok_or_else(|| Refusal::unknown("cap_id", id))?;
            check_named(&found, asked)?;
            found
        }
        None => {
            let name = read_name(asked).map_err(or_cap_id)?;
            find(transaction, &name)?.ok_or_else(|| Refusal::Unknown(name.unknown()))?
        }
    };
    transaction.prepare_cached("DELETE FROM offer_caps WHERE cap_id = ?")?.execute([removed.cap_id])?;
    Answer::with_message("removed", Under { response: removed })
}

/// A whole cap of an import: what it does not name has the value of a new one.
pub fn item(options: &Options, asked: &Parameters) -> Result<OfferCap, Refusal> {
    let mut cap = read_name(asked)?.fresh(options);
    change(&mut cap, asked, Faults::default())?;
    Ok(cap)
}

impl Filled {
    /// Of what the ledger has not heard of yet, nothing was taken.
    fn of(cap: Numbered, states: Option<&CapStates>) -> Self {
        let state = cap.cap.key().ok().and_then(|key| states?.get(&key));
        let taken = states.map(|_| state.map_or((0, 0), |state| (state.used, state.leased)));
        // By the amount that was set last, which the ledger may not have heard of yet.
        let amount = u64::try_from(cap.cap.cap_amount).unwrap_or(0);
        let window_ends_at = state.and_then(|state| state.window_ends_at).and_then(moment);
        Self {
            used: taken.map(|(used, _)| used),
            leased: taken.map(|(_, leased)| leased),
            remaining: taken.map(|(used, leased)| amount.saturating_sub(used).saturating_sub(leased)),
            window_ends_at,
            cap,
        }
    }
}

/// Milliseconds since 1970 as RFC 3339 writes their second.
fn moment(millis: i64) -> Option<String> {
    Timestamp::from_second(millis.div_euclid(1000)).ok().map(|moment| moment.to_string())
}

/// Reads the name that was sent.
fn read_name(asked: &Parameters) -> Result<Name, Refusal> {
    let offer = required("offer_id", asked.whole_number("offer_id")?, "a whole number")?;
    read_id("offer_id", offer, OfferId::new)?;
    let (kind, interval) = (kind(asked)?, interval(asked)?);
    Ok(Name { offer, affiliate: affiliate(asked)?, kind, interval })
}

fn kind(asked: &Parameters) -> Result<&'static str, Refusal> {
    let kind = required("cap_type", asked.text("cap_type")?, &one_of(CAP_TYPES))?;
    Ok(read_kind(kind)?.as_str())
}

fn interval(asked: &Parameters) -> Result<&'static str, Refusal> {
    let interval = required("cap_interval", asked.text("cap_interval")?, &one_of(CAP_INTERVALS))?;
    Ok(read_interval(interval)?.as_str())
}

/// Null and an empty text say that the cap is of no affiliate, as lists do.
fn affiliate(asked: &Parameters) -> Result<Option<i64>, Refusal> {
    match asked.raw("affiliate_id") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(_) => {}
    }
    let id = asked.whole_number("affiliate_id")?;
    id.map(|id| read_id("affiliate_id", id, AffiliateId::new).map(|_| id)).transpose().map_err(Refusal::Value)
}

/// Puts what was sent into the cap.
fn change(cap: &mut OfferCap, asked: &Parameters, mut faults: Faults) -> Result<(), Refusal> {
    let wanted = format!("a whole number from 0 to {CAP_AMOUNT_MAX}");
    if let Some(amount) = faults.sent(asked.whole_number("cap_amount"))? {
        cap.cap_amount = amount;
    } else {
        faults.read(required("cap_amount", asked.raw("cap_amount"), &wanted))?;
    }
    faults.read(read_amount(cap.cap_amount).map_err(Refusal::Value))?;
    if let Some(zone) = faults.sent(asked.text("time_zone"))?
        && let Some(zone) = faults.read(read_zone(zone).map_err(Refusal::Value))?
    {
        // As the database of zones spells it.
        cap.time_zone = Some(zone.name().to_owned());
    }
    if let Some(alert_only) = faults.sent(asked.truth("send_alert_only"))? {
        cap.send_alert_only = alert_only;
    }
    faults.end()
}

/// Whoever gives the number and a name that is another cap's, means one of the two, and nobody knows which.
fn check_named(found: &Numbered, asked: &Parameters) -> Result<(), Refusal> {
    let cap = &found.cap;
    let other = |name: &str, is: String| {
        Err(Refusal::Value(FieldError::new(
            name,
            format!("is not that of cap {}, which is {is}", found.cap_id),
        )))
    };
    if asked.whole_number("offer_id")?.is_some_and(|id| id != cap.offer_id) {
        return other("offer_id", cap.offer_id.to_string());
    }
    if asked.raw("affiliate_id").is_some() && affiliate(asked)? != cap.affiliate_id {
        return other("affiliate_id", cap.affiliate_id.map_or("null".to_owned(), |id| id.to_string()));
    }
    if let Some(kind) = asked.text("cap_type")?
        && read_kind(kind)?.as_str() != cap.cap_type
    {
        return other("cap_type", cap.cap_type.clone());
    }
    if let Some(interval) = asked.text("cap_interval")?
        && read_interval(interval)?.as_str() != cap.cap_interval
    {
        return other("cap_interval", cap.cap_interval.clone());
    }
    Ok(())
}

/// Says that a cap may be named otherwise, too.
fn or_cap_id(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Malformed(error) if error.problem.starts_with("is missing") => {
            let problem = format!("{}; or give `cap_id` alone", error.problem);
            Refusal::Malformed(FieldError::new(error.parameter, problem))
        }
        other => other,
    }
}

fn one_of(known: &[&str]) -> String {
    format!("one of {}", known.join(", "))
}

/// `GET offer_caps.json`. Run so, it knows of no states: [`list`] is told them.
pub const LIST: Call = Call {
    verb: Verb::Read,
    name: "offer_caps.json",
    about: "Lists caps, and how full they are.",
    parameters: &[
        CAP_ID.sought(),
        OFFER_ID.sought(),
        Parameter::new("affiliate_id", Kind::Sought, "The affiliate whose traffic they count."),
        CAP_TYPE,
        CAP_INTERVAL,
        START_AT_ROW,
        ROW_LIMIT.default(Given::Number(LIST_ROWS_DEFAULT)),
    ],
    example: r##"{"cap_id": 1, "offer_id": 1042, "affiliate_id": 67890, "cap_type": "click", "cap_interval": "daily", "start_at_row": 0, "row_limit": 100}"##,
    answer: Shape::Page { noun: "offer_caps", item: "FilledOfferCap" },
    run: |transaction, _, asked| list(transaction, asked, None),
};

/// `POST offer_cap.json`
pub const SET: Call = Call {
    verb: Verb::Write,
    name: "offer_cap.json",
    about: "Sets a cap on an offer, or changes the cap of that name, of which what is left out stays.",
    parameters: &[
        OFFER_ID.required(),
        AFFILIATE_ID,
        CAP_TYPE.required(),
        CAP_INTERVAL.required(),
        CAP_AMOUNT.required(),
        TIME_ZONE,
        ALERT_ONLY.default(Given::Truth(false)),
    ],
    example: r##"{"offer_id": 1042, "affiliate_id": 67890, "cap_type": "click", "cap_interval": "daily", "cap_amount": 1000, "time_zone": "America/New_York", "send_alert_only": false}"##,
    answer: Shape::Told { item: "OfferCap", messages: &["created", "changed", UNCHANGED] },
    run: set,
};

/// `POST remove_offer_cap.json`
pub const REMOVE: Call = Call {
    verb: Verb::Write,
    name: "remove_offer_cap.json",
    about: "Removes a cap: the one with that number, or of that name.",
    parameters: &[
        CAP_ID.instead_of(&["offer_id", "cap_type", "cap_interval"]),
        OFFER_ID,
        AFFILIATE_ID,
        CAP_TYPE,
        CAP_INTERVAL,
    ],
    example: r##"{"cap_id": 1, "offer_id": 1042, "affiliate_id": 67890, "cap_type": "click", "cap_interval": "daily"}"##,
    answer: Shape::Told { item: "OfferCap", messages: &["removed"] },
    run: remove,
};

/// What setting says where the cap is set just so.
const UNCHANGED: &str = "unchanged";

const CAP_ID: Parameter = Parameter::new("cap_id", Kind::Id, "The cap.");

const AFFILIATE_ID: Parameter = Parameter::new(
    "affiliate_id",
    Kind::Id,
    "The affiliate whose traffic it counts; without it, that of all.",
)
.removable();

const CAP_TYPE: Parameter = Parameter::new("cap_type", Kind::OneOf(CAP_TYPES), "What it counts.");

const CAP_INTERVAL: Parameter =
    Parameter::new("cap_interval", Kind::OneOf(CAP_INTERVALS), "How often it begins anew.");

const CAP_AMOUNT: Parameter = Parameter::new(
    "cap_amount",
    Kind::Whole(0, CAP_AMOUNT_MAX),
    "How many clicks or conversions it lets through in a window; 0 is none.",
);

const TIME_ZONE: Parameter = Parameter::new(
    "time_zone",
    Kind::Text,
    "In which days, weeks and months begin: an IANA name such as America/New_York. A new cap has the network's.",
);

const ALERT_ONLY: Parameter =
    Parameter::new("send_alert_only", Kind::Truth, "Whether it never closes the offer, and only tells.");

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cap_is_shown_as_full_as_the_ledger_says() {
        let row = || Numbered {
            cap_id: 3,
            cap: serde_json::from_value(json!({
                "offer_id": 1042, "cap_type": "click", "cap_interval": "daily", "cap_amount": 1000,
                "time_zone": "America/New_York",
            }))
            .unwrap(),
        };
        let shown = |states: Option<&CapStates>| serde_json::to_value(Filled::of(row(), states)).unwrap();
        let mut expected = json!({
            "cap_id": 3, "offer_id": 1042, "affiliate_id": null, "cap_type": "click", "cap_interval": "daily",
            "cap_amount": 1000, "time_zone": "America/New_York", "send_alert_only": false,
            "used": 0, "leased": 0, "remaining": 1000, "window_ends_at": null,
        });
        assert_eq!(shown(Some(&CapStates::new())), expected);
        let cap = row().cap.key().unwrap();
        let ends: Timestamp = "2026-11-23T05:00:00.999Z".parse().unwrap();
        let ends = Some(ends.as_millisecond());
        let state = CapState { cap, amount: 9, used: 412, leased: 40, window_ends_at: ends };
        for (name, value) in [("used", json!(412)), ("leased", json!(40)), ("remaining", json!(548))] {
            expected[name] = value;
        }
        expected["window_ends_at"] = "2026-11-23T05:00:00Z".into();
        assert_eq!(shown(Some(&[(cap, state)].into_iter().collect())), expected);
        let unknown = shown(None);
        assert!(["used", "leased", "remaining"].iter().all(|name| unknown[name].is_null()), "{unknown}");
    }
}
