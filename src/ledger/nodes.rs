//! The nodes that ask: each start of one is a holder of its own, with the last answer it was given.

use rusqlite::Connection;

use super::error::LedgerError;
use super::message::LeaseRequest;
use super::turn::Turn;

/// One start of a node.
pub(super) struct Node {
    pub name: String,
    pub holder: i64,
    /// Of the last request that was answered.
    pub sequence: u64,
    /// What it was answered; `None` where nothing was yet.
    pub kept: Option<String>,
}

/// Looks the node up, or writes it down, and notes that it was here.
pub(super) fn meet(turn: &Turn<'_>, request: &LeaseRequest) -> Result<Node, LedgerError> {
    let node = turn
        .connection
        .prepare_cached(
            "INSERT INTO holders (node, epoch, sequence, seen_at, seen_uptime_ms) VALUES (?, ?, 0, ?, ?)
             ON CONFLICT (node, epoch) DO UPDATE
             SET seen_at = excluded.seen_at, seen_uptime_ms = excluded.seen_uptime_ms
             RETURNING holder_id, sequence, reply",
        )?
        .query_row(
            (
                &request.node,
                // SQLite has no 64 bits without a sign; an epoch is a name and no number.
                request.epoch.cast_signed(),
                turn.now.wall.0,
                turn.now.uptime_ms,
            ),
            |row| {
                Ok(Node {
                    name: request.node.clone(),
                    holder: row.get(0)?,
                    sequence: row.get(1)?,
                    kept: row.get(2)?,
                })
            },
        )?;
    Ok(node)
}

pub(super) fn keep_answer(
    turn: &Turn<'_>,
    node: &Node,
    sequence: u64,
    reply: &str,
) -> Result<(), LedgerError> {
    turn.connection
        .prepare_cached("UPDATE holders SET sequence = ?, reply = ? WHERE holder_id = ?")?
        .execute((sequence, reply, node.holder))?;
    Ok(())
}

/// How many were here lately.
pub(super) fn active(turn: &Turn<'_>) -> Result<u64, LedgerError> {
    let nodes = turn
        .connection
        .prepare_cached("SELECT count(*) FROM holders WHERE seen_uptime_ms > ?")?
        .query_row([turn.now.uptime_ms.cast_signed().saturating_sub(ACTIVE_MS)], |row| row.get(0))?;
    Ok(nodes)
}

/// Once a day, forgets what nobody will ask about any more.
pub(super) fn prune(turn: &Turn<'_>) -> Result<(), LedgerError> {
    let (connection, now) = (turn.connection, turn.now.wall.0);
    let is_due = connection
        .prepare_cached("UPDATE ledger SET pruned_at = ?1 WHERE pruned_at NOT BETWEEN ?1 - ?2 AND ?1")?
        .execute((now, DAY_MS))?;
    if is_due == 0 {
        return Ok(());
    }
    forget_holders(connection, turn)?;
    // A clock that was set forward and back again must not find the window of such a cap empty.
    connection.execute(
        "DELETE FROM caps WHERE NOT in_force AND window_end < ?
         AND NOT EXISTS (SELECT 1 FROM holdings WHERE holdings.cap_id = caps.cap_id)",
        [(now - FORGET_AFTER_MS).div_euclid(1000)],
    )?;
    Ok(())
}

/// Whoever has not been here for so long, and whose leases are over: nobody can know whether what it held was spent, so
/// it counts as used.
fn forget_holders(connection: &Connection, turn: &Turn<'_>) -> Result<(), LedgerError> {
    let gone = "SELECT holder_id FROM holders WHERE seen_at < ?1 AND NOT EXISTS
                (SELECT 1 FROM holdings h WHERE h.holder_id = holders.holder_id AND h.dead_after > ?2)";
    let values = (turn.now.wall.0 - FORGET_AFTER_MS, turn.now.uptime_ms);
    connection.execute(
        &format!(
            "UPDATE caps SET used = used + lost.tokens FROM (
                 SELECT cap_id, sum(tokens) AS tokens FROM holdings WHERE holder_id IN ({gone}) GROUP BY cap_id
             ) AS lost WHERE lost.cap_id = caps.cap_id"
        ),
        values,
    )?;
    connection.execute(&format!("DELETE FROM holders WHERE holder_id IN ({gone})"), values)?;
    Ok(())
}

const ACTIVE_MS: i64 = 10_000;

const DAY_MS: i64 = 86_400_000;

/// Longer than the longest window, so that whoever is forgotten has nothing to settle but what never ends.
const FORGET_AFTER_MS: i64 = 40 * DAY_MS;
