//! A node's request, taken apart by offers: each offer's part is settled and granted by one script.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::ledger::caps::AMOUNT_MAX;
use crate::ledger::error::LedgerError;
use crate::ledger::leases::check;
use crate::ledger::message::{Grant, LeaseItem, LeaseReply, LeaseRequest};
use crate::types::{CapKey, OfferId};

use super::link::Call;
use super::row::{self, Windows};
use super::{
    ATTEMPTS, CONCURRENT, IDENTITY, Shared, alert, bounded, key, moment, parts, text, texts, windows_at,
};

impl Shared {
    pub(super) async fn lease(&self, request: &LeaseRequest) -> Result<LeaseReply, LedgerError> {
        check(request)?;
        if request.ledger.is_some_and(|ledger| ledger != IDENTITY) {
            return Ok(LeaseReply::of_another(IDENTITY, request));
        }
        if request.sequence > AMOUNT_MAX {
            return Err(LedgerError::Invalid(format!(
                "a sequence is at most {AMOUNT_MAX}, not {}",
                request.sequence
            )));
        }
        let mut by_offer: BTreeMap<OfferId, Vec<&LeaseItem>> = BTreeMap::new();
        for item in &request.items {
            by_offer.entry(item.cap.offer).or_default().push(item);
        }
        let leases: Vec<_> =
            by_offer.into_iter().map(|(offer, items)| self.lease_offer(offer, request, items)).collect();
        let granted: Vec<Vec<Grant>> =
            stream::iter(leases).buffer_unordered(CONCURRENT).try_collect().await?;
        match self.poll().await {
            Err(error) if request.items.is_empty() => return Err(error),
            // There is no reason to keep back what was granted.
            Err(error) => tracing::debug!("how caps stand cannot be read: {error}"),
            Ok(()) => {}
        }
        let news = self.news();
        Ok(LeaseReply {
            ledger: IDENTITY,
            sequence: request.sequence,
            news: news.count(),
            grants: one_for_each_cap(request, granted.into_iter().flatten()),
            standings: news.standings(request.news_since, Instant::now()),
        })
    }

    async fn lease_offer(
        &self,
        offer: OfferId,
        request: &LeaseRequest,
        items: Vec<&LeaseItem>,
    ) -> Result<Vec<Grant>, LedgerError> {
        let keys = ["caps", "seen", "said"].map(|part| key(offer, part)).to_vec();
        let mut windows = Windows::new();
        for _ in 0..ATTEMPTS {
            let mut arguments = vec![
                format!("{}:{}", request.epoch, request.node),
                request.sequence.to_string(),
                self.link.options().learning.as_millis().to_string(),
            ];
            arguments.extend(items.iter().flat_map(|item| item_arguments(item, &windows)));
            let answer =
                self.link.write(&self.scripts.lease, &Call { keys: keys.clone(), arguments }).await?;
            let mut answer = parts(answer)?.into_iter();
            match text(answer.next())?.as_str() {
                "stale" => {
                    let last = text(answer.next())?.parse().unwrap_or(0);
                    let (node, sequence) = (request.node.clone(), request.sequence);
                    return Err(LedgerError::Stale { node, sequence, last });
                }
                "windows" => {
                    let now = moment(answer.next())?;
                    let overdue: Vec<String> =
                        answer.map(|part| text(Some(part))).collect::<Result<_, _>>()?;
                    windows = windows_at(offer, &overdue, now)?;
                }
                _ => {
                    let now = moment(answer.next())?;
                    let grants = texts(answer.next())?;
                    self.see(offer, texts(answer.next())?, now)?;
                    complain(offer, &request.node, &texts(answer.next())?)?;
                    alert(offer, &texts(answer.next())?)?;
                    return grants.iter().map(|grant| read_grant(offer, grant)).collect();
                }
            }
        }
        Err(unsteady(offer))
    }
}

/// What the script reads of an item.
fn item_arguments(item: &LeaseItem, windows: &Windows) -> [String; 9] {
    let window = windows.get(&item.cap);
    let end = |end: Option<i64>| end.map_or("-".to_owned(), |end| end.to_string());
    [
        row::name(&item.cap),
        end(item.window),
        bounded(item.spent),
        bounded(item.returned),
        bounded(item.wants),
        bounded(item.holds),
        window.map_or("?".to_owned(), |window| window.start.to_string()),
        window.map_or("?".to_owned(), |window| end(window.end)),
        bounded(item.counted),
    ]
}

fn read_grant(offer: OfferId, text: &str) -> Result<Grant, LedgerError> {
    let words: Vec<&str> = text.split(' ').collect();
    let read = || {
        let &[name, window, granted, ends_in_ms] = words.as_slice() else { return None };
        let cap = row::key_of(offer, name).ok()?;
        let (window, granted) = (window.parse().ok()?, granted.parse().ok()?);
        Some(Grant { cap, window, granted, ends_in_ms: row::ending(ends_in_ms)? })
    };
    read().ok_or_else(|| row::unreadable(offer, text))
}

/// One grant for each cap, in the order in which the request names them.
fn one_for_each_cap(request: &LeaseRequest, granted: impl Iterator<Item = Grant>) -> Vec<Grant> {
    let mut by_cap: BTreeMap<CapKey, Grant> = BTreeMap::new();
    for grant in granted {
        match by_cap.entry(grant.cap) {
            Entry::Occupied(mut first) => first.get_mut().granted += grant.granted,
            Entry::Vacant(none) => {
                none.insert(grant);
            }
        }
    }
    request.items.iter().filter_map(|item| by_cap.remove(&item.cap)).collect()
}

fn complain(offer: OfferId, node: &str, odd: &[String]) -> Result<(), LedgerError> {
    for text in odd {
        let words: Vec<&str> = text.split(' ').collect();
        let &[name, window, held, spent, returned] = words.as_slice() else {
            return Err(row::unreadable(offer, text));
        };
        let cap = row::key_of(offer, name)?;
        tracing::error!(
            node, %cap, window, held, spent, returned,
            "a node tells of more clicks than it was granted; only those it held are counted"
        );
    }
    Ok(())
}

pub(super) fn unsteady(offer: OfferId) -> LedgerError {
    LedgerError::Failed(format!(
        "the clock of the server that has offer {offer} does not stand still for its windows"
    ))
}
