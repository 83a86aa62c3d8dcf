//! Why a network could not be fetched.

use std::time::Duration;

use http::StatusCode;

use super::key::{Key, KeyError};
use super::lines::LineError;

/// Why a network could not be fetched. Names the call, and what to look at.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{call}: no whole answer within {:.1} s; is the upstream overloaded?", .after.as_secs_f32())]
    Timeout { call: &'static str, after: Duration },
    #[error("{call}: the upstream cannot be reached: {reason}")]
    Unreachable { call: &'static str, reason: String },
    #[error("{call}: the answer broke off, or is over {body_bytes_max} bytes: {reason}")]
    Body { call: &'static str, body_bytes_max: usize, reason: String },
    #[error("{call}: HTTP {status}{hint}")]
    Status {
        call: &'static str,
        status: StatusCode,
        hint: &'static str,
        /// How long the upstream asks to wait.
        retry_after: Option<Duration>,
    },
    #[error("{call}: the answer is not the JSON that was expected: {reason}")]
    Json { call: &'static str, reason: String },
    #[error("{call}: the upstream answers request_status {status:?}")]
    Refused { call: &'static str, status: String },
    #[error("{call}: the answer has no list `{list}`")]
    NoList { call: &'static str, list: &'static str },
    #[error("{call}: more than {UNREADABLE_MAX} rows cannot be read; is it the API that it is taken for?")]
    Strange { call: &'static str },
    #[error("{call}: more than {rows_max} rows; if its pages do end, raise upstream.rows_max")]
    Endless { call: &'static str, rows_max: usize },
    #[error(
        "{call}: the page from row {start} is one that came before; the upstream seems to ignore start_at_row"
    )]
    Repeating { call: &'static str, start: usize },
    #[error("{call}: the answer broke off: {reason}")]
    Broken { call: &'static str, reason: String },
    #[error("{call}: {source}")]
    Line { call: &'static str, source: LineError },
    #[error("{call}: the answer is not whole; it ended after {lines} lines")]
    Incomplete { call: &'static str, lines: u64 },
    #[error("{call}: the network was changed {READS} times while it was read; its pages do not fit together")]
    Changing { call: &'static str },
}

impl FetchError {
    /// Whether the upstream did not answer, or not to the end: it may be back at any moment.
    pub fn is_away(&self) -> bool {
        matches!(
            self,
            FetchError::Unreachable { .. }
                | FetchError::Timeout { .. }
                | FetchError::Body { .. }
                | FetchError::Broken { .. }
                | FetchError::Incomplete { .. }
        )
    }

    /// How long the upstream asks to wait before the next call.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            FetchError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Strikes the key out of what the upstream said, and cuts that to a length that fits a log.
    pub(super) fn without(mut self, key: &Key) -> Self {
        if let FetchError::Json { reason: said, .. }
        | FetchError::Refused { status: said, .. }
        | FetchError::Line { source: LineError { reason: said, .. }, .. } = &mut self
        {
            *said = key.struck_from(said);
        }
        self
    }
}

/// How often a network that changes in between is read.
pub(super) const READS: usize = 5;

/// Beyond this a list is not what it is taken for, and nobody would read the warnings.
pub(super) const UNREADABLE_MAX: usize = 100_000;
