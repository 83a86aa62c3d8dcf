//! The CAKE API on the wire: its items as serde types, read into domain values, and the client that fetches them.

pub mod wire;

mod calls;
mod client;
mod geo_targets;
mod key;
mod outgoing;

pub use calls::{CallError, Envelope, Rows};
pub use client::{Client, ClientOptions, FetchError, Fetched, REVISION_HEADER, Routing};
pub use key::{Key, KeyError, KeySource};
