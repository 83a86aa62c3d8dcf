//! Looks how caps stand: all of them, twice a second, for what other nodes did to them; and for whoever asks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};

use crate::ledger::error::LedgerError;
use crate::ledger::message::CapState;
use crate::types::{OfferId, UnixMillis};

use super::link::Call;
use super::row::Row;
use super::{CONCURRENT, Known, Shared, key, moment, parts, texts};

impl Shared {
    pub(super) async fn state(&self) -> Result<Vec<CapState>, LedgerError> {
        let known = self.known().clone();
        let caps = known.caps();
        let mut states = Vec::new();
        for looked in self.look(caps.keys().copied().collect()).await {
            let (offer, (rows, now)) = looked?;
            for row in rows {
                let is_ours = caps.get(&offer).is_some_and(|caps| caps.contains_key(&row.key));
                if is_ours && row.in_force {
                    states.push(row.at(now)?.state());
                }
            }
        }
        states.sort_by_key(|state| state.cap);
        Ok(states)
    }

    /// Looks at every cap in force if nobody has for a while. What cannot be read now is read the next time.
    pub(super) async fn poll(&self) -> Result<(), LedgerError> {
        // Another call is at it.
        let Ok(mut polled_at) = self.polled_at.try_lock() else { return Ok(()) };
        if polled_at.is_some_and(|at| at.elapsed() < POLL_EVERY) {
            return Ok(());
        }
        let began = Instant::now();
        let offers: Vec<OfferId> = self.known().caps().keys().copied().collect();
        let mut problem = None;
        for looked in self.look(offers).await {
            let seen = match looked {
                Ok((offer, (rows, now))) => self.take_in(offer, rows, now).await,
                Err(error) => Err(error),
            };
            problem = problem.or(seen.err());
        }
        match problem {
            None => {
                *polled_at = Some(began);
                Ok(())
            }
            Some(error) => Err(error),
        }
    }

    async fn take_in(&self, offer: OfferId, rows: Vec<Row>, now: UnixMillis) -> Result<(), LedgerError> {
        // Those that were put in force from here can be put there again.
        let defined = match &*self.known() {
            Known::Defined(caps) => caps.get(&offer).cloned().unwrap_or_default(),
            Known::Remembered(_) => BTreeMap::new(),
        };
        // A server that was emptied, or had not heard of it when it became the primary.
        let is_lost = defined.keys().any(|key| rows.iter().all(|row| row.key != *key));
        let at = Instant::now();
        for row in rows {
            self.news().see(&row.at(now)?, now, at);
        }
        if is_lost {
            tracing::warn!(%offer, "the server has forgotten caps of this offer; they are defined again");
            self.define_offer(offer, &defined).await?;
        }
        Ok(())
    }

    /// The caps of offers as they are kept, and the moment of it.
    pub(super) async fn look(
        &self,
        offers: Vec<OfferId>,
    ) -> Vec<Result<(OfferId, (Vec<Row>, UnixMillis)), LedgerError>> {
        // Several at once, where they are on one server for sure.
        let at_once = if self.link.options().is_cluster { 1 } else { LOOKED_AT_ONCE };
        let looks: Vec<_> = offers.chunks(at_once).map(|group| self.look_at(group)).collect();
        let looked: Vec<_> = stream::iter(looks).buffer_unordered(CONCURRENT).collect().await;
        let each = |found: Result<BTreeMap<_, _>, _>| match found {
            Ok(found) => found.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        };
        looked.into_iter().flat_map(each).collect()
    }

    async fn look_at(
        &self,
        offers: &[OfferId],
    ) -> Result<BTreeMap<OfferId, (Vec<Row>, UnixMillis)>, LedgerError> {
        let keys = offers.iter().map(|&offer| key(offer, "caps")).collect();
        let call = Call { keys, arguments: Vec::new() };
        let mut answer = parts(self.link.read(&self.scripts.look, &call).await?)?.into_iter();
        let now = moment(answer.next())?;
        let mut of_offers = answer.next().map(parts).transpose()?.unwrap_or_default().into_iter();
        let mut found = BTreeMap::new();
        for &offer in offers {
            let rows = texts(of_offers.next())?;
            let rows = rows.iter().map(|row| Row::read(offer, row)).collect::<Result<_, _>>()?;
            found.insert(offer, (rows, now));
        }
        Ok(found)
    }
}

/// A node asks four times a second, and hears of a change within one.
const POLL_EVERY: Duration = Duration::from_millis(400);

const LOOKED_AT_ONCE: usize = 32;
