//! Offers: list, creation and change, as CAKE documents them. Each offer of an answer is wrapped: `{"offer": {…}}`.

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Transaction};
use serde::Serialize;
use serde_json::{Map, Value};

use super::Options;
use super::answer::{Answer, Refusal, Rows};
use super::call::{Call, Verb};
use super::contract::{Given, Kind, Parameter, ROW_LIMIT, START_AT_ROW, Shape};
use super::faults::Faults;
use super::parameters::{Parameters, required};
use super::store::{Listing, Put, next_id};
use crate::cake::wire::{ACTIVE, OFFER_STATUSES, OfferItem, expected, read_status};

/// `GET offers.json`: unlike the Smart Links calls, the list stands beside the status.
pub fn list(transaction: &Transaction<'_>, _: &Options, asked: &Parameters) -> Result<Answer, Refusal> {
    let status = asked
        .text("offer_status")?
        .map(|status| read_status("offer_status", status, OFFER_STATUSES))
        .transpose()?;
    let listing = Listing::new("offers", COLUMNS, order(asked)?)
        .filter("offer_id", asked.whole_number("offer_id")?)
        .filter("offer_status", status.map(str::to_owned))
        .filter(OF_ADVERTISER, asked.whole_number("advertiser_id")?.map(|id| id.to_string()))
        .filter(OF_VERTICAL, asked.whole_number("vertical_id")?.map(|id| id.to_string()));
    let page = asked.page(OFFER_ROWS_DEFAULT)?;
    let (rows, total_rows) =
        listing.page(transaction, page, |row| read_row(row).map(|offer| Wrapped { offer }))?;
    Answer::new(Rows { noun: "offers", rows, total_rows })
}

/// `POST offer.json`
pub fn create(
    transaction: &Transaction<'_>,
    options: &Options,
    asked: &Parameters,
) -> Result<Answer, Refusal> {
    let offer = fresh(next_id(transaction, "offers")?, options, asked)?;
    save(transaction, &offer)?;
    Answer::new(Wrapped { offer })
}

/// A whole offer of an import, with its own id: what it does not name has the value of a new offer.
pub fn item(options: &Options, asked: &Parameters) -> Result<Offer, Refusal> {
    fresh(required("offer_id", asked.whole_number("offer_id")?, "a whole number")?, options, asked)
}

/// Puts an offer of an import in its place.
pub fn put(transaction: &Transaction<'_>, offer: &Offer) -> Result<Put, Refusal> {
    let put = Put::of(find(transaction, offer.id())?.as_ref(), offer);
    if put != Put::Unchanged {
        save(transaction, offer)?;
    }
    Ok(put)
}

/// `POST update_offer.json`: what is left out stays as it is.
pub fn update(
    transaction: &Transaction<'_>,
    options: &Options,
    asked: &Parameters,
) -> Result<Answer, Refusal> {
    let id = required("offer_id", asked.whole_number("offer_id")?, "a whole number")?;
    let before = find(transaction, id)?.ok_or_else(|| Refusal::unknown("offer_id", id))?;
    let mut offer = before.clone();
    change(&mut offer, options, asked, Faults::default())?;
    save(transaction, &offer)?;
    let is_idle = offer == before;
    Ok(Answer::new(Wrapped { offer })?.idle_if(is_idle))
}

/// The id of an offer that is there.
pub fn existing(transaction: &Transaction<'_>, asked: &Parameters) -> Result<i64, Refusal> {
    let id = required("offer_id", asked.whole_number("offer_id")?, "a whole number")?;
    let found = transaction.prepare_cached("SELECT 1 FROM offers WHERE offer_id = ?")?.exists([id])?;
    if found { Ok(id) } else { Err(Refusal::unknown("offer_id", id)) }
}

/// What the API answers of an offer: what routing needs, and what else was given.
#[derive(Clone, PartialEq, Serialize)]
pub struct Offer {
    #[serde(flatten)]
    item: OfferItem,
    /// Members of [`FURTHER`].
    #[serde(flatten)]
    further: Map<String, Value>,
}

impl Offer {
    pub fn id(&self) -> i64 {
        self.item.offer_id
    }

    /// What routing needs.
    pub fn into_item(self) -> OfferItem {
        self.item
    }
}

#[derive(Serialize)]
struct Wrapped {
    offer: Offer,
}

fn order(asked: &Parameters) -> Result<&'static str, Refusal> {
    let descending = asked.truth("sort_descending")?.unwrap_or(false);
    match (asked.text("sort_field")?.unwrap_or("offer_id"), descending) {
        ("offer_id", false) => Ok("offer_id"),
        ("offer_id", true) => Ok("offer_id DESC"),
        ("offer_name", false) => Ok("offer_name, offer_id"),
        ("offer_name", true) => Ok("offer_name DESC, offer_id DESC"),
        (other, _) => Err(expected("sort_field", other, "offer_id or offer_name").into()),
    }
}

fn find(transaction: &Transaction<'_>, id: i64) -> rusqlite::Result<Option<Offer>> {
    transaction
        .prepare_cached(&format!("SELECT {COLUMNS} FROM offers WHERE offer_id = ?"))?
        .query_row([id], read_row)
        .optional()
}

/// A new offer with what was sent in it.
fn fresh(id: i64, options: &Options, asked: &Parameters) -> Result<Offer, Refusal> {
    let mut faults = Faults::default();
    faults.read(required("offer_name", asked.raw("offer_name"), "a name"))?;
    faults.read(required(
        "offer_url",
        asked.raw("offer_url"),
        "an absolute URL such as https://shop.example.com/?r={click_id}",
    ))?;
    let item = OfferItem {
        offer_id: id,
        offer_name: String::new(),
        offer_status: ACTIVE.to_owned(),
        offer_url: String::new(),
        payout: None,
        expiration_date: None,
    };
    let mut offer = Offer { item, further: Map::new() };
    change(&mut offer, options, asked, faults)?;
    Ok(offer)
}

/// Puts what was sent into the offer, and refuses an offer that the sync would not read.
fn change(
    offer: &mut Offer,
    options: &Options,
    asked: &Parameters,
    mut faults: Faults,
) -> Result<(), Refusal> {
    let Offer { item, further } = offer;
    if let Some(name) = faults.sent(asked.title("offer_name"))? {
        item.offer_name = name.to_owned();
    }
    if let Some(status) = faults.sent(asked.text("offer_status"))? {
        let status = read_status("offer_status", status, OFFER_STATUSES).map_err(Refusal::Value);
        if let Some(status) = faults.read(status)? {
            item.offer_status = status.to_owned();
        }
    }
    if let Some(url) = faults.sent(asked.text("offer_url"))? {
        // Checked only where it is sent, as a link's fallback.
        let url = options.destination("offer_url", url).map_err(Refusal::Value);
        item.offer_url = faults.read(url)?.unwrap_or_default();
    }
    if let Some(payout) = faults.sent(asked.removable_number("payout"))? {
        if let Some(payout) = payout.filter(|payout| *payout < 0.0) {
            faults.extend([expected("payout", payout, "an amount of 0 or more")]);
        }
        item.payout = payout;
    }
    if let Some(date) = faults.sent(asked.removable_text("expiration_date"))? {
        item.expiration_date = date.map(str::to_owned);
    }
    faults.extend(item.wrong(&options.zone));
    for &name in FURTHER {
        match asked.raw(name) {
            None => {}
            Some(Value::Null) => {
                further.remove(name);
            }
            Some(Value::Array(_) | Value::Object(_)) => {
                let refusal = Refusal::malformed(name, "is a list or an object; expected a single value");
                faults.read::<()>(Err(refusal))?;
            }
            Some(value) => {
                further.insert(name.to_owned(), value.clone());
            }
        }
    }
    faults.end()
}

fn save(transaction: &Transaction<'_>, offer: &Offer) -> Result<(), Refusal> {
    let further =
        serde_json::to_string(&offer.further).map_err(|error| Refusal::Broken(error.to_string()))?;
    let item = &offer.item;
    transaction
        .prepare_cached(&format!(
            "INSERT INTO offers ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (offer_id) DO UPDATE SET
                 offer_name = excluded.offer_name, offer_status = excluded.offer_status,
                 offer_url = excluded.offer_url, payout = excluded.payout,
                 expiration_date = excluded.expiration_date, further = excluded.further"
        ))?
        .execute((
            item.offer_id,
            &item.offer_name,
            &item.offer_status,
            &item.offer_url,
            item.payout,
            &item.expiration_date,
            further,
        ))?;
    Ok(())
}

/// A row of [`COLUMNS`].
pub fn read_row(row: &Row<'_>) -> rusqlite::Result<Offer> {
    let further: String = row.get(6)?;
    Ok(Offer {
        item: OfferItem {
            offer_id: row.get(0)?,
            offer_name: row.get(1)?,
            offer_status: row.get(2)?,
            offer_url: row.get(3)?,
            payout: row.get(4)?,
            expiration_date: row.get(5)?,
        },
        further: serde_json::from_str(&further)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(6, Type::Text, error.into()))?,
    })
}

/// What CAKE documents of an offer and routing does not need: kept as it was given, and answered again.
const FURTHER: &[&str] = &[
    "advertiser_id",
    "vertical_id",
    "payout_type",
    "revenue",
    "revenue_type",
    "currency_id",
    "session_hours",
    "preview_url",
    "offer_description",
];

/// `GET offers.json`
pub const LIST: Call = Call {
    verb: Verb::Read,
    name: "offers.json",
    about: "Lists offers.",
    parameters: &[
        OFFER_ID.sought(),
        STATUS,
        Parameter::new("advertiser_id", Kind::Sought, "Only offers that were given this one."),
        Parameter::new("vertical_id", Kind::Sought, "Only offers that were given this one."),
        SORT_FIELD.default(Given::Text("offer_id")),
        SORT_DESCENDING.default(Given::Truth(false)),
        START_AT_ROW,
        ROW_LIMIT.default(Given::Number(OFFER_ROWS_DEFAULT)),
    ],
    example: r##"{"offer_id": 1042, "offer_status": "active", "advertiser_id": 11, "vertical_id": 7, "sort_field": "offer_name", "sort_descending": true, "start_at_row": 0, "row_limit": 25}"##,
    answer: Shape::OpenPage { noun: "offers", item: "WrappedOffer" },
    run: list,
};

/// `POST offer.json`
pub const CREATE: Call = Call {
    verb: Verb::Write,
    name: "offer.json",
    about: "Creates an offer.",
    parameters: &[
        NAME.required(),
        URL.required(),
        STATUS.default(Given::Text(ACTIVE)),
        PAYOUT,
        EXPIRATION_DATE,
        ADVERTISER_ID,
        VERTICAL_ID,
        PAYOUT_TYPE,
        REVENUE,
        REVENUE_TYPE,
        CURRENCY_ID,
        SESSION_HOURS,
        PREVIEW_URL,
        DESCRIPTION,
    ],
    example: r##"{"offer_name": "Card US", "offer_url": "https://shop.example.com/a?sub={sub_id}&r=#reqid#", "offer_status": "active", "payout": 45.0, "expiration_date": "2027-01-31 23:59:59", "advertiser_id": 11, "vertical_id": 7, "payout_type": "cpa", "revenue": 60.25, "revenue_type": "fixed", "currency_id": 1, "session_hours": 720, "preview_url": "https://preview.example.com/", "offer_description": "Cards for the United States"}"##,
    answer: Shape::Open { item: "WrappedOffer" },
    run: create,
};

/// `POST update_offer.json`
pub const UPDATE: Call = Call {
    verb: Verb::Write,
    name: "update_offer.json",
    about: "Changes an offer. What is left out stays as it is.",
    parameters: &[
        OFFER_ID.required(),
        NAME,
        URL,
        STATUS,
        PAYOUT,
        EXPIRATION_DATE,
        ADVERTISER_ID,
        VERTICAL_ID,
        PAYOUT_TYPE,
        REVENUE,
        REVENUE_TYPE,
        CURRENCY_ID,
        SESSION_HOURS,
        PREVIEW_URL,
        DESCRIPTION,
    ],
    example: r##"{"offer_id": 1043, "offer_name": "Card US", "offer_url": "https://shop.example.com/a?sub={sub_id}&r=#reqid#", "offer_status": "active", "payout": 45.0, "expiration_date": "2027-01-31 23:59:59", "advertiser_id": 11, "vertical_id": 7, "payout_type": "cpa", "revenue": 60.25, "revenue_type": "fixed", "currency_id": 1, "session_hours": 720, "preview_url": "https://preview.example.com/", "offer_description": "Cards for the United States"}"##,
    answer: Shape::Open { item: "WrappedOffer" },
    run: update,
};

/// Which offer.
pub const OFFER_ID: Parameter = Parameter::new("offer_id", Kind::Id, "The offer.");

const NAME: Parameter = Parameter::new("offer_name", Kind::Title, "What people call it.");

const URL: Parameter = Parameter::new(
    "offer_url",
    Kind::Text,
    "Where its clicks go: an https URL, with tokens such as {sub_id} and #reqid#.",
);

const STATUS: Parameter =
    Parameter::new("offer_status", Kind::OneOf(OFFER_STATUSES), "Only an active offer takes clicks.");

const PAYOUT: Parameter =
    Parameter::new("payout", Kind::Amount, "What a conversion pays the affiliate.").removable();

const EXPIRATION_DATE: Parameter = Parameter::new(
    "expiration_date",
    Kind::Moment,
    "Its last second, YYYY-MM-DD HH:MM:SS in the network's time zone.",
)
.removable();

const SORT_FIELD: Parameter =
    Parameter::new("sort_field", Kind::OneOf(&["offer_id", "offer_name"]), "What to sort by.");

const SORT_DESCENDING: Parameter =
    Parameter::new("sort_descending", Kind::Truth, "Whether the highest comes first.");

const ADVERTISER_ID: Parameter = further("advertiser_id");

const VERTICAL_ID: Parameter = further("vertical_id");

const PAYOUT_TYPE: Parameter = further("payout_type");

const REVENUE: Parameter = further("revenue");

const REVENUE_TYPE: Parameter = further("revenue_type");

const CURRENCY_ID: Parameter = further("currency_id");

const SESSION_HOURS: Parameter = further("session_hours");

const PREVIEW_URL: Parameter = further("preview_url");

const DESCRIPTION: Parameter = further("offer_description");

/// A member of [`FURTHER`].
const fn further(name: &'static str) -> Parameter {
    Parameter::new(name, Kind::Single, "Kept as it was given, and answered again; routing does not need it.")
        .removable()
}

/// CAKE's default for this list; its Smart Links lists have another.
const OFFER_ROWS_DEFAULT: i64 = 25;

/// Columns for [`read_row`], table and order, for a reader of all of it.
pub const ALL: (&str, &str, &str) = (COLUMNS, "offers", "offer_id");

/// As text: it is kept as it was given, and a form gives numbers as text.
const OF_ADVERTISER: &str = "CAST(further ->> '$.advertiser_id' AS TEXT)";

const OF_VERTICAL: &str = "CAST(further ->> '$.vertical_id' AS TEXT)";

const COLUMNS: &str = "offer_id, offer_name, offer_status, offer_url, payout, expiration_date, further";
