//! Keeps a node current: the snapshot from the upstream, the geo databases from disk.
//!
//! Nothing here is on the click path. Whatever fails, the live table stays as it is.

mod cap_gauges;
mod cap_keeper;
mod certificate;
mod conversions;
mod disks;
mod geo_reload;
mod guard;
mod keeper;
mod last_good;
mod leases;
mod overlay;
mod patch;
mod prepare;
mod quarantine;
mod refresh;
mod routing_file;
mod stamp;
mod unreadable;

pub use cap_gauges::show_caps;
pub use cap_keeper::{CapKeeper, LEASE, LedgerAt};
pub use certificate::{CertificateError, CertificateFiles, keep_certificate};
pub use conversions::ConversionCarrier;
pub use disks::watch_disks;
pub use geo_reload::{GeoFiles, GeoLoadError, GeoRead, GeoReload};
pub use guard::GuardOptions;
pub use last_good::{Kept, LastGoodError, read as read_last_good};
pub use leases::Leases;
pub use overlay::{Overlay, OverlayError, OverlayProblem};
pub use refresh::{Refresh, RefreshOptions, RefreshSettings};
