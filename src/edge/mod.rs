//! The data plane: a click in, a redirect out; a postback in, an answer out.
//!
//! Everything that a click needs is at hand: the live table and geo databases are read through the worker's own
//! cached pointers, and no click waits for anything but its socket. Postbacks wait for the ledger, beside the clicks.

mod acceptor;
mod click;
mod click_ids;
mod client_ip;
mod connection;
mod conversion;
mod deadlines;
mod head;
mod last_word;
mod limits;
mod listener;
mod newcomers;
#[cfg(test)]
mod panics;
mod plain;
mod proxy_protocol;
mod pulse;
mod query;
mod reply;
mod request;
mod request_line;
mod thread;
mod tls;
mod worker;

pub use click::{decide_and_charge, handle};
pub use click_ids::ClickIds;
pub use client_ip::client_ip;
pub use conversion::ConversionOptions;
pub use deadlines::Deadlines;
pub use limits::{ConnectionLimits, HeadLimits};
pub use listener::{
    BindError, Bound, ClickAddress, ClickSockets, Drained, Edge, Options, Settings, Supplies, bind,
    draw_node_identity,
};
pub use proxy_protocol::{ProxyHeader, parse_proxy_header};
pub use pulse::Pulse;
pub use query::{Parameter, Query, QueryError, is_click_path, parse as parse_query};
pub use reply::{Answer, Sentence};
pub use request::Request;
pub use request_line::RequestLines;
pub use worker::{ClickOptions, WhenLogIsFull, Worker};
