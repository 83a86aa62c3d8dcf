//! The authority over caps: who may spend how much of one, in which window, by one clock.
//!
//! A node asks for leases and tells what became of those it has ([`LeaseRequest`]). The ledger grants only what it has
//! durably written down, and never more than a cap's amount in a window. What a node that died held is lost for the
//! window: nobody can know whether it was spent.
//!
//! ```text
//! either       one ledger or the other
//! known_caps   which caps there are, and on whose word
//! message      what nodes and the ledger say to each other
//! window       which civil day, week or month it is
//! local        the ledger of this process: a thread, and calls that are committed together
//! valkey       the ledger of many nodes: scripts on a Valkey or Redis server, or a cluster
//! sqlite       the ledger itself: one SQLite file, no clock, no thread
//! leases       a request: settle, grant, tell what is new
//! grant        how much of what is left one node gets
//! holdings     what was granted and is not settled, and when it surely never will be spent
//! nodes        who asks, and what it was answered last
//! definitions  which caps are in force
//! conversions  each counted once
//! desk         where conversions are handed in, to be carried to the ledger many at a time
//! caps         a cap's row: window, count, standing
//! turn         one piece of work in a transaction
//! clock        the clocks of the machine
//! ```

mod caps;
mod clock;
mod conversions;
mod definitions;
mod desk;
mod either;
mod error;
mod grant;
mod holdings;
mod known_caps;
mod leases;
mod local;
mod message;
mod nodes;
mod sqlite;
mod turn;
mod valkey;
mod window;

pub use clock::LedgerTime;
pub use desk::{ConversionBatch, ConversionDesk, ConversionLine, conversion_desk};
pub use either::Ledger;
pub use error::LedgerError;
pub use known_caps::KnownCaps;
pub use local::LocalLedger;
pub use message::{CapState, Conversion, Grant, LeaseItem, LeaseReply, LeaseRequest, Recorded, Standing};
pub use sqlite::SqliteLedger;
pub use valkey::{ValkeyLedger, ValkeyOptions};
pub use window::Window;
