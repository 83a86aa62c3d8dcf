//! The ledger, wherever it keeps its books.

use super::error::LedgerError;
use super::known_caps::KnownCaps;
use super::local::LocalLedger;
use super::message::{CapState, Conversion, LeaseReply, LeaseRequest, Recorded};
use super::valkey::ValkeyLedger;

/// One that this process calls itself.
#[derive(Clone)]
pub enum Ledger {
    /// In this process, on its disk.
    Local(LocalLedger),
    /// On servers that many nodes call.
    Valkey(ValkeyLedger),
}

impl Ledger {
    /// Puts exactly these caps in force, if they were given. What is only remembered changes nothing: those stay in force that
    /// were given last, to this process or to another.
    pub async fn learn(&self, caps: &KnownCaps) -> Result<(), LedgerError> {
        match (self, caps) {
            (Ledger::Local(ledger), KnownCaps::Given(caps)) => ledger.define(caps.to_vec()).await,
            (Ledger::Valkey(ledger), KnownCaps::Given(caps)) => ledger.define(caps.to_vec()).await,
            // Its file has them.
            (Ledger::Local(_), KnownCaps::Remembered(_)) => Ok(()),
            (Ledger::Valkey(ledger), KnownCaps::Remembered(caps)) => {
                ledger.remember(caps.to_vec()).await;
                Ok(())
            }
        }
    }

    /// Settles and grants. The same request again is given the same answer.
    pub async fn lease(&self, request: LeaseRequest) -> Result<LeaseReply, LedgerError> {
        match self {
            Ledger::Local(ledger) => ledger.lease(request).await,
            Ledger::Valkey(ledger) => ledger.lease(request).await,
        }
    }

    /// Writes conversions down and counts each once, whoever tells it again.
    pub async fn record(&self, conversions: Vec<Conversion>) -> Result<Vec<Recorded>, LedgerError> {
        match self {
            Ledger::Local(ledger) => ledger.record(conversions).await,
            Ledger::Valkey(ledger) => ledger.record(conversions).await,
        }
    }

    /// Every cap in force, as it stands at this moment.
    pub async fn state(&self) -> Result<Vec<CapState>, LedgerError> {
        match self {
            Ledger::Local(ledger) => ledger.state().await,
            Ledger::Valkey(ledger) => ledger.state().await,
        }
    }
}
