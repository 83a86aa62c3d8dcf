//! A node's request: what it did with its leases is settled, what it wants is granted, and what is new is told.
//!
//! The answer is kept with the request's sequence. A node that has not heard it repeats the request and is given the same
//! answer, with the time that is left by now: nothing is settled or granted twice. One that speaks to another ledger is told
//! so, and nothing else: neither is its sequence compared nor is it remembered.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::types::{CapKey, CapKind};

use super::caps::CapRow;
use super::clock::LedgerTime;
use super::error::LedgerError;
use super::grant::share;
use super::holdings::{self, NOBODY};
use super::message::{Grant, LeaseItem, LeaseReply, LeaseRequest, Standing};
use super::nodes::{self, Node};
use super::turn::Turn;

/// An answer as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    reply: LeaseReply,
    /// Of each standing, the window it tells of.
    windows: Vec<i64>,
}

pub(super) fn lease(
    connection: &Connection,
    request: &LeaseRequest,
    now: LedgerTime,
) -> Result<LeaseReply, LedgerError> {
    check(request)?;
    let mut turn = Turn::begin(connection, now)?;
    if request.ledger.is_some_and(|ledger| ledger != turn.ledger) {
        return Ok(LeaseReply::of_another(turn.ledger, request));
    }
    if request.items.is_empty() && now.uptime_ms.saturating_sub(turn.written_at_ms) < WRITTEN_EVERY_MS {
        return tell_news(turn, request);
    }
    let node = nodes::meet(&turn, request)?;
    nodes::prune(&turn)?;
    let reply = match &node.kept {
        Some(_) if node.sequence > request.sequence => {
            return Err(LedgerError::Stale {
                node: request.node.clone(),
                sequence: request.sequence,
                last: node.sequence,
            });
        }
        Some(kept) if node.sequence == request.sequence => repeat(&turn, &node, kept)?,
        _ => answer(&mut turn, &node, request)?,
    };
    turn.finish()?;
    Ok(reply)
}

/// For a node that only asks what is new, four times a second: nothing is settled or granted, so that nothing is to be
/// remembered, and the disk is left alone.
fn tell_news(mut turn: Turn<'_>, request: &LeaseRequest) -> Result<LeaseReply, LedgerError> {
    let before = turn.news();
    let (standings, _) = standings(&mut turn, request.news_since)?;
    let (ledger, news) = (turn.ledger, turn.news());
    if news != before {
        turn.finish()?;
    }
    Ok(LeaseReply { ledger, sequence: request.sequence, news, grants: Vec::new(), standings })
}

/// Refuses what no node sends.
pub(super) fn check(request: &LeaseRequest) -> Result<(), LedgerError> {
    let name = request.node.chars().count();
    let problem = if name == 0 || name > NODE_CHARS_MAX {
        format!("a node's name has 1 to {NODE_CHARS_MAX} characters, not {name}")
    } else if request.items.len() > ITEMS_MAX {
        format!("{} caps in one request; at most {ITEMS_MAX} are taken", request.items.len())
    } else if request.sequence == 0 || i64::try_from(request.sequence).is_err() {
        format!("a sequence is counted from 1, and is not {}", request.sequence)
    } else {
        return Ok(());
    };
    Err(LedgerError::Invalid(problem))
}

fn answer(turn: &mut Turn<'_>, node: &Node, request: &LeaseRequest) -> Result<LeaseReply, LedgerError> {
    let nodes = nodes::active(turn)?;
    // One grant for each cap, in the order in which the request names them.
    let mut grants: Vec<Grant> = Vec::with_capacity(request.items.len());
    let mut places: BTreeMap<CapKey, usize> = BTreeMap::new();
    for item in &request.items {
        let Some(grant) = settle_and_grant(turn, node, nodes, item)? else { continue };
        match places.get(&grant.cap) {
            Some(&place) => grants[place].granted += grant.granted,
            None => {
                places.insert(grant.cap, grants.len());
                grants.push(grant);
            }
        }
    }
    let (standings, windows) = standings(turn, request.news_since)?;
    let (ledger, news) = (turn.ledger, turn.news());
    let reply = LeaseReply { ledger, sequence: request.sequence, news, grants, standings };
    let kept = Kept { reply, windows };
    let text = serde_json::to_string(&kept).map_err(|error| LedgerError::Failed(error.to_string()))?;
    nodes::keep_answer(turn, node, request.sequence, &text)?;
    Ok(kept.reply)
}

/// `None` where the ledger knows no such cap.
fn settle_and_grant(
    turn: &mut Turn<'_>,
    node: &Node,
    nodes: u64,
    item: &LeaseItem,
) -> Result<Option<Grant>, LedgerError> {
    let Some(mut cap) = CapRow::load(turn, &item.cap)? else { return Ok(None) };
    holdings::roll(turn, &mut cap)?;
    settle(turn, node, item, &mut cap)?;

    let held = holdings::held(turn, &cap, node.holder, cap.window.start)?;
    let leased = holdings::leased(turn, &cap, node.holder)?;
    let grants = cap.in_force && cap.key.kind == CapKind::Click && !cap.alert_only;
    let free = if grants { cap.free(leased.all) } else { 0 };
    let granted = share(item.wants, free, nodes);
    holdings::keep(turn, &cap, node.holder, held + granted)?;
    // While there is still something for every node, nobody need return what it holds, however much somebody wishes for.
    let is_scarce = item.wants > granted && free - granted < 2 * nodes;
    if grants && is_scarce && leased.by_others > 0 {
        cap.wanted_until = Some(turn.now.uptime_ms.saturating_add(WANTED_MS));
    }
    cap.stand(turn, leased.all + granted);
    cap.save(turn)?;
    Ok(Some(Grant {
        cap: cap.key,
        window: cap.window.start,
        granted,
        ends_in_ms: cap.window.ends_in_ms(turn.now.wall),
    }))
}

/// Takes what was spent and returned out of what the node holds of that window, and counts it, with what needed no grant.
fn settle(turn: &Turn<'_>, node: &Node, item: &LeaseItem, cap: &mut CapRow) -> Result<(), LedgerError> {
    let window = item.window.unwrap_or(cap.window.start);
    let held = holdings::held(turn, cap, node.holder, window)?;
    let spent = item.spent.min(held);
    let returned = item.returned.min(held - spent);
    if spent + returned > 0 {
        let left = held - spent - returned;
        if window == cap.window.start {
            holdings::keep(turn, cap, node.holder, left)?;
        } else {
            holdings::keep_carried(turn, cap, node.holder, window, left)?;
        }
    }
    // What was spent of a window that has ended is counted in the one at hand: it may have been, by a clock that was set.
    // What was counted without a grant is, whatever the cap does by now: the node may have been cut off since it only alerted.
    cap.count(spent.saturating_add(item.counted));
    // A lease that was surely over has been forgotten with its window, and is settled late: nothing is wrong with that.
    let forgotten = window != cap.window.start && held == 0;
    if !forgotten && (spent, returned) != (item.spent, item.returned) {
        tracing::error!(
            node = node.name, cap = %cap.key, window, held, spent = item.spent, returned = item.returned,
            "a node tells of more clicks than it was granted; only those it held are counted"
        );
    }
    Ok(())
}

/// How the caps stand of which there is news, and the window of each.
fn standings(turn: &mut Turn<'_>, since: u64) -> Result<(Vec<Standing>, Vec<i64>), LedgerError> {
    notice_what_lapsed(turn)?;
    let rows = if since == 0 {
        // Whoever has heard nothing takes every cap for open.
        CapRow::all(turn, "in_force AND standing <> 0", ())?
    } else if since > turn.news() {
        CapRow::all(turn, "in_force", ())?
    } else {
        CapRow::all(turn, "in_force AND news > ?", [since])?
    };
    Ok(rows.iter().map(|row| (row.standing(turn.now.wall), row.window.start)).unzip())
}

/// A cap that nobody asks about still opens with its next window, and is wanted no longer after a while.
fn notice_what_lapsed(turn: &mut Turn<'_>) -> Result<(), LedgerError> {
    let mut rows = CapRow::all(turn, "standing <> 0 AND window_end <= ?", [turn.now.wall.seconds()])?;
    rows.extend(CapRow::all(
        turn,
        "wanted_until <= ? AND NOT coalesce(window_end <= ?, false)",
        (turn.now.uptime_ms, turn.now.wall.seconds()),
    )?);
    for mut cap in rows {
        holdings::roll(turn, &mut cap)?;
        let leased = holdings::leased(turn, &cap, NOBODY)?;
        cap.stand(turn, leased.all);
        cap.save(turn)?;
    }
    Ok(())
}

/// The answer that was given, with the time that is left by now. The node takes its leases for good as long as it is told
/// now, so that this is written down.
fn repeat(turn: &Turn<'_>, node: &Node, kept: &str) -> Result<LeaseReply, LedgerError> {
    let Kept { mut reply, windows } =
        serde_json::from_str(kept).map_err(|error| LedgerError::Failed(error.to_string()))?;
    // One that was kept before ledgers had an identity names none.
    reply.ledger = turn.ledger;
    for grant in &mut reply.grants {
        grant.ends_in_ms = left_of(turn, &grant.cap, grant.window)?;
        if grant.ends_in_ms != Some(0)
            && let Some(cap) = CapRow::load(turn, &grant.cap)?
        {
            let held = holdings::held(turn, &cap, node.holder, grant.window)?;
            holdings::keep(turn, &cap, node.holder, held)?;
        }
    }
    for (standing, window) in reply.standings.iter_mut().zip(windows) {
        standing.ends_in_ms = left_of(turn, &standing.cap, window)?;
    }
    Ok(reply)
}

/// What is left of the window, which may have ended.
fn left_of(turn: &Turn<'_>, key: &CapKey, window: i64) -> Result<Option<u64>, LedgerError> {
    let cap = CapRow::load(turn, key)?.filter(|cap| cap.window.start == window);
    Ok(cap.map_or(Some(0), |cap| cap.window.ends_in_ms(turn.now.wall)))
}

const NODE_CHARS_MAX: usize = 64;

const ITEMS_MAX: usize = 10_000;

/// How much more of a lease than was left may seem to be left after a reboot, because nobody wrote down how late it was.
const WRITTEN_EVERY_MS: u64 = 60_000;

/// How long after somebody asked in vain a cap is wanted.
const WANTED_MS: u64 = 5_000;
