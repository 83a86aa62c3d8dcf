//! Conversions: each written down once, and counted into the caps of its offer.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rusqlite::Connection;

use super::caps::CapRow;
use super::clock::LedgerTime;
use super::error::LedgerError;
use super::holdings;
use super::message::{Conversion, Recorded};
use super::turn::Turn;

/// Counts those that are not known yet, in the window at hand.
pub(super) fn record(
    connection: &Connection,
    conversions: &[Conversion],
    now: LedgerTime,
) -> Result<Vec<Recorded>, LedgerError> {
    check(conversions)?;
    let mut turn = Turn::begin(connection, now)?;
    // Read once and written once for the whole batch, however many conversions an offer has in it.
    let mut caps: BTreeMap<u32, Vec<CapRow>> = BTreeMap::new();
    let mut recorded = Vec::with_capacity(conversions.len());
    for conversion in conversions {
        if !write_down(&turn, conversion)? {
            recorded.push(Recorded::Repeated);
            continue;
        }
        recorded.push(Recorded::Counted);
        let of_offer = match caps.entry(conversion.offer_id) {
            Entry::Occupied(read) => read.into_mut(),
            Entry::Vacant(unread) => unread.insert(caps_of(&mut turn, conversion.offer_id)?),
        };
        for cap in of_offer {
            if cap.key.affiliate.is_none_or(|affiliate| affiliate.value() == conversion.affiliate_id) {
                cap.count(1);
            }
        }
    }
    for mut cap in caps.into_values().flatten() {
        cap.stand(&mut turn, 0);
        cap.save(&turn)?;
    }
    forget(&turn, 2 * conversions.len())?;
    turn.finish()?;
    Ok(recorded)
}

/// Refuses more than anybody sends at once.
pub(super) fn check(conversions: &[Conversion]) -> Result<(), LedgerError> {
    match conversions.len() {
        count if count > CONVERSIONS_MAX => Err(LedgerError::Invalid(format!(
            "{count} conversions at once; at most {CONVERSIONS_MAX} are taken"
        ))),
        _ => Ok(()),
    }
}

/// Whether the conversion was not known yet.
fn write_down(turn: &Turn<'_>, conversion: &Conversion) -> Result<bool, LedgerError> {
    let written = turn
        .connection
        .prepare_cached(
            "INSERT INTO conversions (click_id, event, transaction_id, offer_id, affiliate_id, smart_link_id, clicked_at,
                                      converted_at, amount)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )?
        .execute((
            &conversion.click_id,
            conversion.event,
            &conversion.transaction,
            conversion.offer_id,
            conversion.affiliate_id,
            conversion.smart_link_id,
            conversion.clicked_at,
            turn.now.wall.0,
            &conversion.amount,
        ))?;
    Ok(written == 1)
}

/// The offer's conversion caps. One that was removed goes on counting, so that it is right when it is set again.
fn caps_of(turn: &mut Turn<'_>, offer: u32) -> Result<Vec<CapRow>, LedgerError> {
    let mut caps = CapRow::all(turn, "offer_id = ? AND kind = 'conversion'", [offer])?;
    for cap in &mut caps {
        holdings::roll(turn, cap)?;
    }
    Ok(caps)
}

/// Forgets conversions of clicks so old that no node takes another of them. A few at each turn and more than come in, so
/// that the file does not grow for ever and nobody waits for a day's worth.
fn forget(turn: &Turn<'_>, rows_max: usize) -> Result<(), LedgerError> {
    turn.connection
        .prepare_cached(
            "DELETE FROM conversions WHERE (click_id, event, transaction_id) IN
             (SELECT click_id, event, transaction_id FROM conversions WHERE clicked_at < ? ORDER BY clicked_at LIMIT ?)",
        )?
        .execute((turn.now.wall.0 - FORGET_AFTER_MS, rows_max))?;
    Ok(())
}

/// 400 days: more than the click of a conversion may be old (`conversions.click_age_days_max`), whatever is configured and
/// however two clocks differ.
const FORGET_AFTER_MS: i64 = 400 * 86_400_000;

const CONVERSIONS_MAX: usize = 10_000;
