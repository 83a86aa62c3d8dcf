//! Attachments: offers attached to links. Attaching is CAKE's; the list and the removal are ours.

use rusqlite::{OptionalExtension, Row, Transaction};

use super::answer::{Answer, Refusal, Rows, Under};
use super::links::LIST_ROWS_DEFAULT;
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
    let link = links::existing(transaction, asked)?;
    let offer = offers::existing(transaction, asked)?;
    let before = find(transaction, link, offer)?;
    let fresh = SmartLinkOffer { smart_link_id: link, offer_id: offer, offer_weight: 1, priority: 1 };
    let mut after = before.clone().unwrap_or(fresh);
    if let Some(weight) = asked.whole_number("offer_weight")? {
        after.offer_weight = weight;
    }
    if let Some(priority) = asked.whole_number("priority")? {
        after.priority = priority;
    }
    after.read()?;
    let message = match before {
        None => "attached",
        Some(before) if before == after => "unchanged",
        Some(_) => "changed",
    };
    save(transaction, &after)?;
    Answer::with_message(message, Under { response: after })
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
fn read_row(row: &Row<'_>) -> rusqlite::Result<SmartLinkOffer> {
    Ok(SmartLinkOffer {
        smart_link_id: row.get(0)?,
        offer_id: row.get(1)?,
        offer_weight: row.get(2)?,
        priority: row.get(3)?,
    })
}

/// The parameters of `smart_link_offer.json`.
pub const FIELDS: &[&str] = &["smart_link_id", "offer_id", "offer_weight", "priority"];

/// The parameters of `remove_smart_link_offer.json`.
pub const IDS: &[&str] = &["smart_link_id", "offer_id"];

const COLUMNS: &str = "smart_link_id, offer_id, offer_weight, priority";
