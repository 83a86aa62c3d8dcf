//! The CAKE API on the wire: its items as serde types, read into domain values, and the client that fetches them.

pub mod wire;

mod calls;
mod client;
mod dense;
mod fetch_error;
mod geo_targets;
mod key;
mod lenient;
mod lines;
mod network;
mod offer_cap;
mod outgoing;
mod page;
mod tls;
mod update;
mod value_list;

pub use calls::{CallError, Envelope, Rows};
pub use client::{Client, ClientOptions, Fetched, REVISION_HEADER, ROWS_MAX, Routing, parse_upstream};
pub use dense::{LinkLine, RuleLines, write_links};
pub use fetch_error::FetchError;
pub use key::{Fingerprint, Key, KeyError, KeySource};
pub use lines::{End, Head, Line, LineError, Lines, time_for};
pub use network::{Network, ReadAttachment, ReadLink, RuleReader, RuleRow, read_caps, rule_id};
pub use page::{ItemId, List, Page, Unreadable, read_page};
pub use tls::TlsError;
pub use update::{Changes, Haste, Update};
pub use value_list::{OpenQuote, read_value_list, write_value_list};
