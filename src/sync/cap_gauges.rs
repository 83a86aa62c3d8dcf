//! Shows how full each cap is (`cap_amount`, `cap_remaining`), as the ledger knows it: what a node itself holds of a cap says
//! nothing of what is left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Map;
use tokio::sync::watch;

use super::cap_keeper::{LedgerAt, Place};
use crate::cake::Client;
use crate::ledger::{CapState, KnownCaps};
use crate::state::{CapLevel, Metrics};
use crate::types::{AffiliateId, CapInterval, CapKey, CapKind, OfferId};

/// Looks every few seconds, until it is dropped.
pub async fn show_caps(ledger: LedgerAt, caps: watch::Receiver<KnownCaps>, metrics: Arc<Metrics>) {
    loop {
        let begun = Instant::now();
        if caps.borrow().all().is_empty() {
            metrics.caps_are(Vec::new());
            tokio::time::sleep(EVERY).await;
            continue;
        }
        // What is not known is not shown; the log says elsewhere why the ledger fails.
        let (levels, every) = match ledger.place() {
            Place::Here(ledger) => {
                let states = ledger.state().await.unwrap_or_default();
                (states.iter().map(level).collect(), EVERY)
            }
            Place::Upstream(client) => (listed(client).await.unwrap_or_default(), EVERY_LISTED),
            Place::OutOfReach => (Vec::new(), EVERY),
        };
        metrics.caps_are(levels);
        // Where there are very many caps, the ledger has better things to do than to be looked at. Or it waited for its disk.
        tokio::time::sleep(every.max((begun.elapsed() * LOOKS_SHARE).min(EVERY_AT_MOST))).await;
    }
}

fn level(state: &CapState) -> CapLevel {
    let &CapState { cap, amount, used, leased, window_ends_at } = state;
    CapLevel { cap, amount, used, leased, window_ends_at }
}

/// What the upstream's API says of all caps. `None`: nothing, at the moment.
async fn listed(client: &Client) -> Option<Vec<CapLevel>> {
    let rows = client.rows("offer_caps.json", "offer_caps", &Map::new(), None, |_| {}).await.ok()?;
    rows.rows.iter().map(|row| serde_json::from_str::<Row>(row.get()).ok()?.read()).collect()
}

/// As much as is shown of a row.
#[derive(Deserialize)]
struct Row {
    offer_id: u32,
    affiliate_id: Option<u32>,
    cap_type: String,
    cap_interval: String,
    cap_amount: u64,
    used: Option<u64>,
    leased: Option<u64>,
    window_ends_at: Option<String>,
}

impl Row {
    fn read(self) -> Option<CapLevel> {
        let affiliate = match self.affiliate_id {
            Some(id) => Some(AffiliateId::new(id)?),
            None => None,
        };
        let cap = CapKey {
            offer: OfferId::new(self.offer_id)?,
            affiliate,
            kind: CapKind::parse(&self.cap_type)?,
            interval: CapInterval::parse(&self.cap_interval)?,
        };
        Some(CapLevel {
            cap,
            amount: self.cap_amount,
            used: self.used?,
            leased: self.leased?,
            window_ends_at: self
                .window_ends_at
                .and_then(|ends| ends.parse().ok())
                .map(Timestamp::as_millisecond),
        })
    }
}

const EVERY: Duration = Duration::from_secs(1);

/// Over the API, in pages.
const EVERY_LISTED: Duration = Duration::from_secs(5);

/// However long a look took.
const EVERY_AT_MOST: Duration = Duration::from_secs(15);

/// At most one part in so many of the time is spent on looking.
const LOOKS_SHARE: u32 = 20;
