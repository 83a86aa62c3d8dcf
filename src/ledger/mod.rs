//! The authority over caps: who may spend how much of one, in which window, by one clock.
//!
//! A node asks for leases and tells what became of those it has ([`LeaseRequest`]). The ledger grants only what it has
//! durably written down, and never more than a cap's amount in a window. What a node that died held is lost for the
//! window: nobody can know whether it was spent.

mod message;
mod window;

pub use message::{CapState, Conversion, Grant, LeaseItem, LeaseReply, LeaseRequest, Recorded, Standing};
pub use window::Window;
