//! The ledger, wherever it keeps its books.

use crate::routing::Cap;

use super::error::LedgerError;
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
    /// Puts exactly these caps in force.
    pub async fn define(&self, caps: Vec<Cap>) -> Result<(), LedgerError> {
        match self {
            Ledger::Local(ledger) => ledger.define(caps).await,
            Ledger::Valkey(ledger) => ledger.define(caps).await,
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
