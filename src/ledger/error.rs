//! Why the ledger did not do what it was asked.

use std::path::PathBuf;

/// Nothing of what was asked has been done, and nothing was granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    #[error(
        "the ledger `{}` cannot be used: {reason}; no cap is granted until it is mended, restored from a backup (with its \
         -wal file, if there is one) or moved away, which begins every cap anew; then start this node again, and after \
         a restored backup all that ask it, too, because they hold what was granted after it was made",
        path.display()
    )]
    Damaged { path: PathBuf, reason: String },
    #[error("cannot open the ledger `{}`: {reason}; check that its directory exists, may be written and has room", path.display())]
    Unusable { path: PathBuf, reason: String },
    /// An answer to it could only be of what is long settled.
    #[error("request {sequence} of node `{node}` comes after its request {last} was answered")]
    Stale { node: String, sequence: u64, last: u64 },
    #[error("{0}")]
    Invalid(String),
    /// The disk is full, for one.
    #[error("the ledger could not be written: {0}")]
    Failed(String),
    /// It is on a server; `at` names it without its password.
    #[error("the ledger at {at} cannot be used: {problem}")]
    Remote { at: String, problem: String },
    #[error("the ledger has stopped")]
    Stopped,
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        LedgerError::Failed(error.to_string())
    }
}
