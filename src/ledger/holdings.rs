//! Who holds how much: clicks that were granted and of which nobody has told yet whether they were spent.
//!
//! When a window ends by the ledger's clock, a holder may still be spending what it holds of it: the ledger's clock may
//! have been set forward, and only a lease of which more time has passed than it ever had is surely over. Until then the
//! holding is carried: it counts against the new window as if it had been granted in it.

use rusqlite::OptionalExtension;

use super::caps::CapRow;
use super::error::LedgerError;
use super::turn::Turn;

/// What is held of a cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leased {
    pub all: u64,
    /// By others than the holder at hand.
    pub by_others: u64,
}

/// What the node holds of this window of the cap, and may still be spending.
pub(super) fn held(
    turn: &Turn<'_>,
    cap: &CapRow,
    holder: i64,
    window_start: i64,
) -> Result<u64, LedgerError> {
    let tokens = turn
        .connection
        .prepare_cached(
            "SELECT tokens FROM holdings WHERE cap_id = ? AND holder_id = ? AND window_start = ?",
        )?
        .query_row((cap.cap_id, holder, window_start), |row| row.get(0))
        .optional()?;
    Ok(tokens.unwrap_or(0))
}

/// What all nodes hold of the cap: of its window, and carried.
pub(super) fn leased(turn: &Turn<'_>, cap: &CapRow, holder: i64) -> Result<Leased, LedgerError> {
    let leased = turn
        .connection
        .prepare_cached(
            "SELECT coalesce(sum(tokens), 0), coalesce(sum(tokens) FILTER (WHERE holder_id <> ?2), 0) FROM holdings
             WHERE cap_id = ?1",
        )?
        .query_row((cap.cap_id, holder), |row| Ok(Leased { all: row.get(0)?, by_others: row.get(1)? }))?;
    Ok(leased)
}

/// Begins the next window if the clock has passed the end of this one. A clock that was set back begins none: the newer
/// window stays in force until its own end.
pub(super) fn roll(turn: &mut Turn<'_>, cap: &mut CapRow) -> Result<(), LedgerError> {
    if !cap.window.is_over(turn.now.wall) {
        return Ok(());
    }
    cap.begin_window(turn)?;
    // By the uptime at which the wall clock came to the beginning of this window. If that was set forward since they were
    // granted, some leases had time left then, and their clicks may have been of either.
    let began_ms_ago =
        turn.now.wall.0.saturating_sub(cap.window.start.saturating_mul(1000)).max(0).unsigned_abs();
    if let Some(began_at) = turn.now.uptime_ms.checked_sub(began_ms_ago) {
        turn.connection
            .prepare_cached("DELETE FROM holdings WHERE cap_id = ? AND dead_after <= ?")?
            .execute((cap.cap_id, began_at))?;
    }
    cap.save(turn)
}

/// No node at all.
pub(super) const NOBODY: i64 = 0;

/// Writes down what the node holds of a window that has ended.
pub(super) fn keep_carried(
    turn: &Turn<'_>,
    cap: &CapRow,
    holder: i64,
    window_start: i64,
    tokens: u64,
) -> Result<(), LedgerError> {
    if tokens == 0 {
        return forget(turn, cap, holder, window_start);
    }
    turn.connection
        .prepare_cached(
            "UPDATE holdings SET tokens = ? WHERE cap_id = ? AND holder_id = ? AND window_start = ?",
        )?
        .execute((tokens, cap.cap_id, holder, window_start))?;
    Ok(())
}

/// Writes down what the node holds of the window at hand. It is about to be told when the window ends, so that from now
/// on it may spend so long, or as long as it was told before, if that answer is the last that reaches it.
pub(super) fn keep(turn: &Turn<'_>, cap: &CapRow, holder: i64, tokens: u64) -> Result<(), LedgerError> {
    if tokens == 0 {
        return forget(turn, cap, holder, cap.window.start);
    }
    let dead_after = cap
        .window
        .ends_in_ms(turn.now.wall)
        .map(|life_ms| turn.now.uptime_ms.saturating_add(life_ms.saturating_sub(ROUNDED_MS)));
    turn.connection
        .prepare_cached(
            "INSERT INTO holdings (cap_id, holder_id, window_start, tokens, dead_after) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET tokens = excluded.tokens, dead_after = max(dead_after, excluded.dead_after)",
        )?
        .execute((cap.cap_id, holder, cap.window.start, tokens, dead_after))?;
    Ok(())
}

fn forget(turn: &Turn<'_>, cap: &CapRow, holder: i64, window_start: i64) -> Result<(), LedgerError> {
    turn.connection
        .prepare_cached("DELETE FROM holdings WHERE cap_id = ? AND holder_id = ? AND window_start = ?")?
        .execute((cap.cap_id, holder, window_start))?;
    Ok(())
}

/// Two clocks are read here, to the millisecond each, so that a lease which ends with its window may seem to end just after
/// it. Nodes end theirs earlier by far more than this, and by what their clocks may be off (`sync/leases.rs`): it is the
/// node that allows for it, or what it told at the end of a window would be held against the next.
const ROUNDED_MS: u64 = 2;
