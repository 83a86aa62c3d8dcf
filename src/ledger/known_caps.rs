//! Which caps there are, and on whose word.

use std::sync::Arc;

use crate::routing::Cap;

/// The caps of the network, as this process knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnownCaps {
    /// As they were when an earlier process of this node heard of them. They may have been changed since, and others may know.
    Remembered(Arc<[Cap]>),
    /// As the upstream gave them to this process, or has told it that they still are.
    Given(Arc<[Cap]>),
}

impl KnownCaps {
    /// All of them, on whosever word.
    pub fn all(&self) -> &Arc<[Cap]> {
        let (KnownCaps::Remembered(caps) | KnownCaps::Given(caps)) = self;
        caps
    }
}

impl Default for KnownCaps {
    /// Nothing was heard yet.
    fn default() -> Self {
        KnownCaps::Remembered(Arc::default())
    }
}
