//! Shows how much is left of each cap (`cap_remaining`), on the node whose ledger is here. Another node shows none: it
//! knows what it holds of a cap, and not what is left of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ledger::Ledger;
use crate::state::Metrics;

/// Looks each second, until it is dropped.
pub async fn show_caps(ledger: Ledger, metrics: Arc<Metrics>) {
    loop {
        let begun = Instant::now();
        // What is not known is not shown; the log says elsewhere why the ledger fails.
        let states = ledger.state().await.unwrap_or_default();
        metrics.caps_are(states.iter().map(|state| (state.cap, state.remaining())).collect());
        // Where there are very many caps, the ledger has better things to do than to be looked at.
        tokio::time::sleep(EVERY.max(begun.elapsed() * LOOKS_SHARE)).await;
    }
}

const EVERY: Duration = Duration::from_secs(1);

/// At most one part in so many of the time is spent on looking.
const LOOKS_SHARE: u32 = 20;
