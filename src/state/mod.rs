//! The meeting place: what the control plane publishes and the click path reads, and the counts that flow back.

mod cap_cell;
mod cap_levels;
mod caps;
mod clock;
mod collect;
mod conversions;
mod counters;
mod geo;
mod hosts;
mod journal;
mod live;
mod metrics;
mod question;
mod readiness;
mod refresh;
mod totals;
mod turns;

pub use cap_cell::{CapCell, CapRole, FOREVER, Round, TOKENS_MAX};
pub use cap_levels::CapLevel;
pub use caps::{CapBook, CapCells, Caps, Charge, Shut};
pub use clock::{now, uptime};
pub use conversions::ConversionCount;
pub use counters::{ClickCount, CloseReason, Counters};
pub use geo::{Geo, GeoCount, GeoDatabase};
pub use hosts::{Hosts, authority};
pub use journal::{Change, Event, Journal, Present};
pub use live::{LiveCertificate, LiveGeo, LiveTable, Published, Reader};
pub use metrics::{Login, Metrics, Room};
pub use question::{Explained, Looked, ParameterError, ParameterErrors, Question};
pub use readiness::Readiness;
pub use refresh::{Asked, RefreshHandle, RefreshReport, RefreshRequests, RefreshResult, refresh_requests};
pub use totals::{ClickCounts, LinkTotals, OfferTotals, Totals};
pub use turns::{Crowded, Turn, Turns};
