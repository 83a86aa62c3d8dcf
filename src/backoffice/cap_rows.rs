//! Caps in the store: their rows, and the names by which they are found.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, Row, Transaction};
use serde::Serialize;

use super::Options;
use super::answer::Refusal;
use super::store::Put;
use crate::cake::wire::{CAP_INTERVALS, CAP_TYPES, FieldError, OfferCap};

/// A cap with its number.
#[derive(Serialize)]
pub struct Numbered {
    pub cap_id: i64,
    #[serde(flatten)]
    pub cap: OfferCap,
}

/// What a cap is known by.
pub struct Name {
    pub offer: i64,
    pub affiliate: Option<i64>,
    pub kind: &'static str,
    pub interval: &'static str,
}

impl Name {
    fn of(cap: &OfferCap) -> Self {
        let known = |text: &str, known: &'static [&'static str]| {
            known.iter().copied().find(|name| *name == text).unwrap_or_default()
        };
        Self {
            offer: cap.offer_id,
            affiliate: cap.affiliate_id,
            kind: known(&cap.cap_type, CAP_TYPES),
            interval: known(&cap.cap_interval, CAP_INTERVALS),
        }
    }

    /// A cap of this name as it is before anything else is said of it.
    pub fn fresh(&self, options: &Options) -> OfferCap {
        OfferCap {
            offer_id: self.offer,
            affiliate_id: self.affiliate,
            cap_type: self.kind.to_owned(),
            cap_interval: self.interval.to_owned(),
            cap_amount: 0,
            time_zone: Some(options.zone.name().to_owned()),
            send_alert_only: false,
        }
    }

    pub fn unknown(&self) -> FieldError {
        let whose = self.affiliate.map(|id| format!(" for affiliate {id}")).unwrap_or_default();
        let problem = format!("{} has no {} {} cap{whose}", self.offer, self.interval, self.kind);
        FieldError::new("offer_id", problem)
    }
}

/// Puts a cap of an import in its place.
pub fn put(transaction: &Transaction<'_>, cap: &OfferCap) -> Result<Put, Refusal> {
    let before = find(transaction, &Name::of(cap))?.map(|found| found.cap);
    let put = Put::of(before.as_ref(), cap);
    if put != Put::Unchanged {
        save(transaction, cap)?;
    }
    Ok(put)
}

/// Removes the caps that have none of these ids ([`OfferCap::id`]); says how many those were.
pub fn remove_others(transaction: &Transaction<'_>, kept: &HashSet<(i64, i64)>) -> rusqlite::Result<u64> {
    let all: Vec<Numbered> = transaction
        .prepare_cached(&format!("SELECT {COLUMNS} FROM offer_caps"))?
        .query_map([], read_row)?
        .collect::<Result<_, _>>()?;
    let mut removed = 0;
    for stale in all.iter().filter(|row| !kept.contains(&row.cap.id())) {
        transaction.prepare_cached("DELETE FROM offer_caps WHERE cap_id = ?")?.execute([stale.cap_id])?;
        removed += 1;
    }
    Ok(removed)
}

pub fn find(transaction: &Transaction<'_>, name: &Name) -> rusqlite::Result<Option<Numbered>> {
    transaction
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM offer_caps
             WHERE offer_id = ? AND ifnull(affiliate_id, 0) = ? AND cap_type = ? AND cap_interval = ?"
        ))?
        .query_row((name.offer, name.affiliate.unwrap_or(0), name.kind, name.interval), read_row)
        .optional()
}

pub fn find_by_id(transaction: &Transaction<'_>, id: i64) -> rusqlite::Result<Option<Numbered>> {
    transaction
        .prepare_cached(&format!("SELECT {COLUMNS} FROM offer_caps WHERE cap_id = ?"))?
        .query_row([id], read_row)
        .optional()
}

/// Answers the cap's number. An upsert would use up a number with every change.
pub fn save(transaction: &Transaction<'_>, cap: &OfferCap) -> rusqlite::Result<i64> {
    let changed: Option<i64> = transaction
        .prepare_cached(
            "UPDATE offer_caps SET cap_amount = ?, time_zone = ?, send_alert_only = ?
             WHERE offer_id = ? AND ifnull(affiliate_id, 0) = ? AND cap_type = ? AND cap_interval = ?
             RETURNING cap_id",
        )?
        .query_row(
            (
                cap.cap_amount,
                &cap.time_zone,
                cap.send_alert_only,
                cap.offer_id,
                cap.affiliate_id.unwrap_or(0),
                &cap.cap_type,
                &cap.cap_interval,
            ),
            |row| row.get(0),
        )
        .optional()?;
    if let Some(cap_id) = changed {
        return Ok(cap_id);
    }
    transaction
        .prepare_cached(
            "INSERT INTO offer_caps
                 (offer_id, affiliate_id, cap_type, cap_interval, cap_amount, time_zone, send_alert_only)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute((
            cap.offer_id,
            cap.affiliate_id,
            &cap.cap_type,
            &cap.cap_interval,
            cap.cap_amount,
            &cap.time_zone,
            cap.send_alert_only,
        ))?;
    Ok(transaction.last_insert_rowid())
}

/// A row of [`COLUMNS`].
pub fn read_row(row: &Row<'_>) -> rusqlite::Result<Numbered> {
    Ok(Numbered {
        cap_id: row.get(0)?,
        cap: OfferCap {
            offer_id: row.get(1)?,
            affiliate_id: row.get(2)?,
            cap_type: row.get(3)?,
            cap_interval: row.get(4)?,
            cap_amount: row.get(5)?,
            time_zone: row.get(6)?,
            send_alert_only: row.get(7)?,
        },
    })
}

/// The same row for an edge, to which the number says nothing.
pub fn read_line(row: &Row<'_>) -> rusqlite::Result<OfferCap> {
    read_row(row).map(|row| row.cap)
}

/// Columns for [`read_line`], table and order, for a reader of all of it.
pub const ALL: (&str, &str, &str) =
    (COLUMNS, "offer_caps", "offer_id, ifnull(affiliate_id, 0), cap_type, cap_interval");

/// Columns for [`read_row`].
pub const COLUMNS: &str =
    "cap_id, offer_id, affiliate_id, cap_type, cap_interval, cap_amount, time_zone, send_alert_only";
