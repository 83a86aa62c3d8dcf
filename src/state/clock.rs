//! The one clock of the process, read outside the pure rooms.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::types::UnixMillis;

/// The moment, as the system tells it. Before 1970 it is 1970.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(since.as_millis() as i64)
}
