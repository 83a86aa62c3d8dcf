//! The click log: one JSON line a click, on its way to the disk before the redirect is.
//!
//! Each worker appends to a segment of its own, a file that was preallocated and is mapped: an append is a copy, and no system
//! call. What was appended belongs to the system from then on, so that it survives the process however it ends. A power
//! failure may cost what came since the last sync ([`StorageOptions::sync_every`]).
//!
//! Everything that may wait for the disk is done beside the workers ([`ClickLogs`]): the segment that comes next is
//! preallocated, what is live is synced, what is full or old enough is sealed, and what is too much is deleted. A worker that
//! finds no segment ready drops the line and says so; it never waits.
//!
//! ```text
//! 5f0c93d1a2b4-0000000007.live                                  being written; zero bytes follow the last line
//! clicks-20261122T201530.123Z-5f0c93d1a2b4-0000000007.ndjson    sealed: its lines and nothing else; names sort by the
//!                                                               first click, and name the node as its click ids do
//! ```
//!
//! What it does not do, deliberately: order the lines of several workers. Each has its time.

mod calendar;
mod chunks;
mod files;
mod mapped;
mod read;
mod record;
mod storage;
mod writer;

pub use chunks::{Chunk, SegmentReader};
pub use files::{SegmentFile, seal_left, segments};
pub use read::{Entry, NoEntry, beginning, lines_in, read_lines};
pub use record::{AddressDetail, AddressKey, Record, TEXT_BYTES_MAX};
pub use storage::{ClickLogs, StorageOptions};
pub use writer::{ClickLog, Dropped};
