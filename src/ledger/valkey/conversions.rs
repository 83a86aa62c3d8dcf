//! Conversions: each written down once, and counted into the caps of its offer by the script that wrote it down.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::ledger::conversions::check;
use crate::ledger::error::LedgerError;
use crate::ledger::message::{Conversion, Recorded};
use crate::types::{CapKind, OfferId};

use super::leases::unsteady;
use super::link::Call;
use super::row::{self, Windows};
use super::{ATTEMPTS, CONCURRENT, Shared, alert, key, moment, parts, text, texts, windows_at};

impl Shared {
    /// Counts those that are not known yet, in the window at hand.
    pub(super) async fn record(&self, conversions: &[Conversion]) -> Result<Vec<Recorded>, LedgerError> {
        check(conversions)?;
        let mut by_offer: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (place, conversion) in conversions.iter().enumerate() {
            by_offer.entry(conversion.offer_id).or_default().push(place);
        }
        let batches = by_offer.values().flat_map(|places| places.chunks(AT_ONCE_MAX));
        let calls: Vec<_> = batches.map(|places| self.record_at(conversions, places)).collect();
        // In their order, so that of two that are the same the first is counted.
        let recorded: Vec<Vec<(usize, Recorded)>> =
            stream::iter(calls).buffered(CONCURRENT).try_collect().await?;
        let mut recorded: Vec<_> = recorded.into_iter().flatten().collect();
        recorded.sort_by_key(|(place, _)| *place);
        Ok(recorded.into_iter().map(|(_, recorded)| recorded).collect())
    }

    /// Those at some places, with which they are returned.
    async fn record_at(
        &self,
        conversions: &[Conversion],
        places: &[usize],
    ) -> Result<Vec<(usize, Recorded)>, LedgerError> {
        let of_offer: Vec<&Conversion> = places.iter().map(|&place| &conversions[place]).collect();
        let recorded = self.record_offer(&of_offer).await?;
        Ok(places.iter().copied().zip(recorded).collect())
    }

    /// Those of one offer.
    async fn record_offer(&self, conversions: &[&Conversion]) -> Result<Vec<Recorded>, LedgerError> {
        let Some(offer) = conversions.first().and_then(|first| OfferId::new(first.offer_id)) else {
            return Err(LedgerError::Invalid("a conversion of offer 0".to_owned()));
        };
        let mut keys = vec![key(offer, "caps")];
        keys.extend(conversions.iter().map(|conversion| key(offer, &name_of(conversion))));
        let mut windows = Windows::new();
        for _ in 0..ATTEMPTS {
            let known = windows.iter().filter(|(cap, _)| cap.kind == CapKind::Conversion);
            let mut arguments = vec![KEPT_SECONDS.to_string(), known.clone().count().to_string()];
            for (cap, window) in known {
                let end = window.end.map_or("-".to_owned(), |end| end.to_string());
                arguments.extend([row::name(cap), window.start.to_string(), end]);
            }
            for conversion in conversions {
                arguments.extend([conversion.affiliate_id.to_string(), kept(conversion)]);
            }
            let call = Call { keys: keys.clone(), arguments };
            let mut answer = parts(self.link.write(&self.scripts.record, &call).await?)?.into_iter();
            let is_done = text(answer.next())? == "recorded";
            let now = moment(answer.next())?;
            if !is_done {
                let overdue: Vec<String> = answer.map(|part| text(Some(part))).collect::<Result<_, _>>()?;
                windows = windows_at(offer, &overdue, now)?;
                continue;
            }
            let counted = text(answer.next())?;
            self.see(offer, texts(answer.next())?, now)?;
            alert(offer, &texts(answer.next())?)?;
            let recorded = |counted| match counted {
                b'1' => Recorded::Counted,
                _ => Recorded::Repeated,
            };
            return Ok(counted.bytes().map(recorded).collect());
        }
        Err(unsteady(offer))
    }
}

/// What makes it the same conversion when it is told again.
fn name_of(conversion: &Conversion) -> String {
    let mut hash = blake3::Hasher::new();
    for part in [&conversion.click_id, &conversion.transaction] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(&conversion.event.to_le_bytes());
    // Half of it is enough that no two are ever the same, and there are many of them.
    format!("conv:{}", &hash.finalize().to_hex()[..32])
}

/// What is kept of it, for whoever looks into the server.
fn kept(conversion: &Conversion) -> String {
    let Conversion { event, affiliate_id, smart_link_id, clicked_at, .. } = conversion;
    let amount = conversion.amount.as_deref().unwrap_or("-");
    format!("{affiliate_id} {smart_link_id} {event} {clicked_at} {amount}")
}

/// Other requests wait for a script.
const AT_ONCE_MAX: usize = 100;

/// 400 days.
const KEPT_SECONDS: u64 = 400 * 86_400;
