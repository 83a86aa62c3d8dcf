//! The meeting place: what the control plane publishes and the click path reads, and the counts that flow back.

mod clock;
mod live;
mod metrics;
mod readiness;
mod refresh;

pub use clock::now;
pub use live::{Geo, LiveGeo, LiveTable, Published, Reader};
pub use metrics::{ClickCount, CloseReason, Counters, GeoCount, Metrics, RefreshResult};
pub use readiness::Readiness;
pub use refresh::{Asked, RefreshHandle, RefreshReport, RefreshRequests, refresh_requests};
