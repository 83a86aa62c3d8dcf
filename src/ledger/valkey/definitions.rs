//! Which caps are in force, as this process knows it. Every node writes what has changed for it; all of them have the same
//! network.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::ledger::error::LedgerError;
use crate::routing::Cap;
use crate::types::{CapKey, OfferId, UnixMillis};

use super::link::Call;
use super::row::{self, Row};
use super::{ATTEMPTS, CONCURRENT, CapsOfOffers, Known, Shared, key, text};

impl Shared {
    pub(super) async fn remember(&self, caps: Vec<Cap>) {
        self.know(Known::Remembered(by_offer(caps))).await;
    }

    pub(super) async fn define(&self, caps: Vec<Cap>) -> Result<(), LedgerError> {
        let wanted = by_offer(caps);
        let mut offers: BTreeSet<OfferId> = self.known().caps().keys().copied().collect();
        offers.extend(wanted.keys());
        let none = BTreeMap::new();
        let mut changed = Vec::new();
        for looked in self.look(offers.iter().copied().collect()).await {
            let (offer, (rows, now)) = looked?;
            let caps = wanted.get(&offer).unwrap_or(&none);
            if !changes(rows, caps, now)?.is_empty() {
                changed.push((offer, caps));
            }
        }
        let definitions: Vec<_> =
            changed.into_iter().map(|(offer, caps)| self.define_offer(offer, caps)).collect();
        // Those that are no longer defined stay known until they are out of force on the server, too.
        stream::iter(definitions).buffer_unordered(CONCURRENT).try_collect::<()>().await?;
        self.know(Known::Defined(wanted)).await;
        Ok(())
    }

    async fn know(&self, known: Known) {
        self.news().keep(|cap| known.caps().get(&cap.offer).is_some_and(|caps| caps.contains_key(cap)));
        *self.known() = known;
        // A change of a definition may be one of a standing.
        *self.polled_at.lock().await = None;
    }

    pub(super) async fn define_offer(
        &self,
        offer: OfferId,
        caps: &BTreeMap<CapKey, Cap>,
    ) -> Result<(), LedgerError> {
        for _ in 0..ATTEMPTS {
            let looked = self.look(vec![offer]).await.into_iter().next();
            let Some((_, (rows, now))) = looked.transpose()? else { break };
            let changes = changes(rows, caps, now)?;
            if changes.is_empty() {
                return Ok(());
            }
            let mut are_written = true;
            for part in changes.chunks(WRITTEN_AT_ONCE) {
                let arguments = part.iter().flat_map(Change::arguments).collect();
                let call = Call { keys: vec![key(offer, "caps")], arguments };
                let answer = text(Some(self.link.write(&self.scripts.define, &call).await?))?;
                are_written &= answer == "defined";
            }
            if are_written {
                return Ok(());
            }
        }
        Err(LedgerError::Failed(format!("others go on changing the caps of offer {offer}")))
    }
}

fn by_offer(caps: Vec<Cap>) -> CapsOfOffers {
    let mut by_offer = CapsOfOffers::new();
    for cap in caps {
        by_offer.entry(cap.key.offer).or_default().insert(cap.key, cap);
    }
    by_offer
}

/// What is to be written of one cap.
struct Change {
    name: String,
    before: String,
    after: String,
    begins_anew: bool,
}

impl Change {
    fn arguments(&self) -> [String; 4] {
        let begins_anew = u8::from(self.begins_anew).to_string();
        [self.name.clone(), self.before.clone(), self.after.clone(), begins_anew]
    }
}

fn changes(
    rows: Vec<Row>,
    caps: &BTreeMap<CapKey, Cap>,
    now: UnixMillis,
) -> Result<Vec<Change>, LedgerError> {
    let mut changes = Vec::new();
    let mut unknown: BTreeMap<CapKey, &Cap> = caps.iter().map(|(key, cap)| (*key, cap)).collect();
    for before in rows {
        let mut after = match unknown.remove(&before.key) {
            Some(cap) if before.is_defined(cap) => continue,
            Some(cap) => {
                // By the old zone first: if its window has ended, nothing of it is left to carry over.
                let mut after = before.clone().at(now)?;
                after.redefine(cap, now);
                after
            }
            None if !before.in_force => continue,
            None => Row { in_force: false, ..before.clone() },
        };
        let begins_anew = after.in_force && before.window.is_over(now);
        after.leased = before.leased;
        changes.push(Change {
            name: row::name(&before.key),
            before: before.definition(),
            after: after.definition(),
            begins_anew,
        });
    }
    for cap in unknown.into_values() {
        let row = Row::new(cap, now);
        changes.push(Change {
            name: row::name(&row.key),
            before: String::new(),
            after: row.definition(),
            begins_anew: true,
        });
    }
    Ok(changes)
}

/// Lua takes so many values at once, and an offer may have a cap for each affiliate.
const WRITTEN_AT_ONCE: usize = 1_000;
