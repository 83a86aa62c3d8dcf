//! Attachments: offers attached to links. Attaching is CAKE's; the list and the removal are ours.

use rusqlite::{OptionalExtension, Row, Transaction};

use super::answer::{Answer, Refusal, Rows, Under};
use super::call::{Call, Verb};
use super::contract::{Given, Kind, NUMBER_MAX, Parameter, ROW_LIMIT, START_AT_ROW, Shape};
use super::faults::Faults;
use super::links::{LINK_ID, LIST_ROWS_DEFAULT};
use super::offers::OFFER_ID;
use super::parameters::{Parameters, required};
use super::store::{Listing, Put};
use super::{Options, links, offers};
use crate::cake::wire::SmartLinkOffer;

/// `GET smart_link_offers.json`
pub fn list(transaction: &Transaction<'_>, _: &Options, asked: &Parameters) -> Result<Answer, Refusal> {
    let listing = Listing::new("smart_link_offers", COLUMNS, "smart_link_id, offer_id")
        .filter("smart_link_id", asked.whole_number("smart_link_id")?)
        .filter("offer_id", asked.whole_number("offer_id")?);
    let (rows, total_rows) = listing.page(transaction, asked.page(LIST_ROWS_DEFAULT)?, read_row)?;
    Answer::new(Under { response: Rows { noun: "smart_link_offers", rows, total_rows } })
}

/// `POST smart_link_offer.json`: attaches, or changes what is attached. Of that, what is left out stays as it is: a
/// call that only moves an offer to another tier must not throw its weight back to 1.
pub fn attach(transaction: &Transaction<'_>, _: &Options, asked: &Parameters) -> Result<Answer, Refusal> {
    let mut faults = Faults::default();
    let link = faults.read(links::existing(transaction, asked))?;
    let offer = faults.read(offers::existing(transaction, asked))?;
    let before = match (link, offer) {
        (Some(link), Some(offer)) => find(transaction, link, offer)?,
        _ => None,
    };
    // Without a link or an offer, which is told already, the rest is still looked at.
    let (link, offer) = (link.unwrap_or_default(), offer.unwrap_or_default());
    let fresh = SmartLinkOffer { smart_link_id: link, offer_id: offer, offer_weight: 1, priority: 1 };
    let mut after = before.clone().unwrap_or(fresh);
    if let Some(weight) = faults.sent(asked.whole_number("offer_weight"))? {
        after.offer_weight = weight;
    }
    if let Some(priority) = faults.sent(asked.whole_number("priority"))? {
        after.priority = priority;
    }
    faults.extend(after.wrong());
    faults.end()?;
    let message = match before {
        None => "attached",
        Some(before) if before == after => UNCHANGED,
        Some(_) => "changed",
    };
    save(transaction, &after)?;
    Ok(Answer::with_message(message, Under { response: after })?.idle_if(message == UNCHANGED))
}

/// `POST remove_smart_link_offer.json`: answers what was attached.
pub fn remove(transaction: &Transaction<'_>, _: &Options, asked: &Parameters) -> Result<Answer, Refusal> {
    let link = links::existing(transaction, asked)?;
    let offer = required("offer_id", asked.whole_number("offer_id")?, "a whole number")?;
    let removed = find(transaction, link, offer)?.ok_or_else(|| Refusal::not_attached(offer, link))?;
    transaction
        .prepare_cached("DELETE FROM smart_link_offers WHERE smart_link_id = ? AND offer_id = ?")?
        .execute((link, offer))?;
    Answer::with_message("removed", Under { response: removed })
}

/// A whole attachment of an import.
pub fn item(_: &Options, asked: &Parameters) -> Result<SmartLinkOffer, Refusal> {
    let entry = SmartLinkOffer {
        smart_link_id: required("smart_link_id", asked.whole_number("smart_link_id")?, "a whole number")?,
        offer_id: required("offer_id", asked.whole_number("offer_id")?, "a whole number")?,
        offer_weight: asked.whole_number("offer_weight")?.unwrap_or(1),
        priority: asked.whole_number("priority")?.unwrap_or(1),
    };
    entry.read()?;
    Ok(entry)
}

/// Puts an attachment of an import in its place.
pub fn put(transaction: &Transaction<'_>, entry: &SmartLinkOffer) -> Result<Put, Refusal> {
    let put = Put::of(find(transaction, entry.smart_link_id, entry.offer_id)?.as_ref(), entry);
    if put != Put::Unchanged {
        save(transaction, entry)?;
    }
    Ok(put)
}

fn save(transaction: &Transaction<'_>, entry: &SmartLinkOffer) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO smart_link_offers (smart_link_id, offer_id, offer_weight, priority) VALUES (?, ?, ?, ?)
             ON CONFLICT (smart_link_id, offer_id) DO UPDATE SET
                 offer_weight = excluded.offer_weight, priority = excluded.priority",
        )?
        .execute((entry.smart_link_id, entry.offer_id, entry.offer_weight, entry.priority))?;
    Ok(())
}

fn find(transaction: &Transaction<'_>, link: i64, offer: i64) -> rusqlite::Result<Option<SmartLinkOffer>> {
    transaction
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM smart_link_offers WHERE smart_link_id = ? AND offer_id = ?"
        ))?
        .query_row((link, offer), read_row)
        .optional()
}

/// A row of [`COLUMNS`].
pub fn read_row(row: &Row<'_>) -> rusqlite::Result<SmartLinkOffer> {
    Ok(SmartLinkOffer {
        smart_link_id: row.get(0)?,
        offer_id: row.get(1)?,
        offer_weight: row.get(2)?,
        priority: row.get(3)?,
    })
}

/// `GET smart_link_offers.json`
pub const LIST: Call = Call {
    verb: Verb::Read,
    name: "smart_link_offers.json",
    about: "Lists which offers are attached to which links.",
    parameters: &[
        LINK_ID.sought(),
        OFFER_ID.sought(),
        START_AT_ROW,
        ROW_LIMIT.default(Given::Number(LIST_ROWS_DEFAULT)),
    ],
    example: r##"{"smart_link_id": 301, "offer_id": 1042, "start_at_row": 0, "row_limit": 100}"##,
    answer: Shape::Page { noun: "smart_link_offers", item: "SmartLinkOffer" },
    run: list,
};

/// `POST smart_link_offer.json`
pub const ATTACH: Call = Call {
    verb: Verb::Write,
    name: "smart_link_offer.json",
    about: "Attaches an offer to a link, or changes what is attached, of which what is left out stays.",
    parameters: &[
        LINK_ID.required(),
        OFFER_ID.required(),
        WEIGHT.default(Given::Number(1)),
        PRIORITY.default(Given::Number(1)),
    ],
    example: r##"{"smart_link_id": 301, "offer_id": 1042, "offer_weight": 60, "priority": 2}"##,
    answer: Shape::Told { item: "SmartLinkOffer", messages: &["attached", "changed", UNCHANGED] },
    run: attach,
};

/// `POST remove_smart_link_offer.json`
pub const REMOVE: Call = Call {
    verb: Verb::Write,
    name: "remove_smart_link_offer.json",
    about: "Detaches an offer from a link.",
    parameters: &[LINK_ID.required(), OFFER_ID.required()],
    example: r##"{"smart_link_id": 301, "offer_id": 1044}"##,
    answer: Shape::Told { item: "SmartLinkOffer", messages: &["removed"] },
    run: remove,
};

/// What attaching says where the offer is attached just so.
const UNCHANGED: &str = "unchanged";

/// The share of a tier's clicks.
pub const WEIGHT: Parameter = Parameter::new(
    "offer_weight",
    Kind::Whole(0, 100),
    "Its share of the clicks of its tier, relative to the others; 0 is none.",
);

/// The tier.
pub const PRIORITY: Parameter =
    Parameter::new("priority", Kind::Whole(0, NUMBER_MAX), "Its tier; lower ones are tried first.");

/// Columns for [`read_row`], table and order, for a reader of all of it.
pub const ALL: (&str, &str, &str) = (COLUMNS, "smart_link_offers", "smart_link_id, offer_id");

const COLUMNS: &str = "smart_link_id, offer_id, offer_weight, priority";
