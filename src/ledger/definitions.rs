//! The caps in force, as they are defined and as they stand.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::routing::Cap;
use crate::types::{CapKey, CapKind};

use super::caps::{AMOUNT_MAX, CapRow};
use super::clock::LedgerTime;
use super::error::LedgerError;
use super::holdings::{NOBODY, leased, roll};
use super::message::CapState;
use super::turn::Turn;

/// Puts exactly these caps in force.
pub(super) fn define(connection: &Connection, caps: &[Cap], now: LedgerTime) -> Result<(), LedgerError> {
    let mut turn = Turn::begin(connection, now)?;
    let mut wanted: BTreeMap<CapKey, &Cap> = caps.iter().map(|cap| (cap.key, cap)).collect();
    for before in CapRow::all(&turn, "true", ())? {
        let mut row = before.clone();
        match wanted.remove(&row.key) {
            Some(cap) if is_defined(&row, cap) => continue,
            Some(cap) => redefine(&mut turn, &mut row, cap)?,
            None if !row.in_force => continue,
            None => row.in_force = false,
        }
        settle_standing(&mut turn, row)?;
    }
    for cap in wanted.into_values() {
        let row = CapRow::create(&mut turn, cap)?;
        // Any other is open as long as nothing of it is used.
        if row.amount == 0 {
            settle_standing(&mut turn, row)?;
        }
    }
    turn.finish()
}

/// Every cap in force, as it stands at this moment. Windows that have ended end in this, too.
pub(super) fn state(connection: &Connection, now: LedgerTime) -> Result<Vec<CapState>, LedgerError> {
    let mut turn = Turn::begin(connection, now)?;
    let before = turn.news();
    let rows = CapRow::all(&turn, "in_force ORDER BY offer_id, affiliate_id, kind, interval", ())?;
    let mut states = Vec::with_capacity(rows.len());
    for mut row in rows {
        roll(&mut turn, &mut row)?;
        states.push(CapState {
            cap: row.key,
            amount: row.amount,
            used: row.used,
            leased: if row.key.kind == CapKind::Click { leased(&turn, &row, NOBODY)?.all } else { 0 },
            window_ends_at: row.window.end.map(|end| end.saturating_mul(1000)),
        });
    }
    if turn.news() != before {
        turn.finish()?;
    }
    Ok(states)
}

fn is_defined(row: &CapRow, cap: &Cap) -> bool {
    row.in_force
        && row.amount == cap.amount.min(AMOUNT_MAX)
        && row.zone == cap.zone.name()
        && row.alert_only == cap.alert_only
}

fn redefine(turn: &mut Turn<'_>, row: &mut CapRow, cap: &Cap) -> Result<(), LedgerError> {
    // By the old zone first: if its window has ended, nothing of it is left to carry over.
    roll(turn, row)?;
    if row.zone != cap.zone.name() {
        row.move_to(&cap.zone, turn.now.wall);
    }
    if cap.amount > row.amount {
        // There is enough again: nodes need not wait for a click before they hold something.
        row.wanted_until = None;
    }
    row.amount = cap.amount.min(AMOUNT_MAX);
    row.alert_only = cap.alert_only;
    if !row.in_force {
        // A node may remember how it stood before it was removed.
        row.in_force = true;
        row.news = turn.next_news();
    }
    Ok(())
}

fn settle_standing(turn: &mut Turn<'_>, mut row: CapRow) -> Result<(), LedgerError> {
    let leased = leased(turn, &row, NOBODY)?;
    row.stand(turn, leased.all);
    row.save(turn)
}
