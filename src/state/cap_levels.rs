//! How full caps are, as the ledger tells.

use crate::types::CapKey;

/// How full a cap is in its window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapLevel {
    pub cap: CapKey,
    /// Of a window.
    pub amount: u64,
    /// Clicks or conversions that are known to have been.
    pub used: u64,
    /// Clicks that nodes may be spending now.
    pub leased: u64,
    /// When the window ends, in milliseconds since 1970; `None`: never, or nobody knows.
    pub window_ends_at: Option<i64>,
}

impl CapLevel {
    /// Neither spent nor granted to a node.
    pub fn remaining(&self) -> u64 {
        self.amount.saturating_sub(self.used).saturating_sub(self.leased)
    }
}
