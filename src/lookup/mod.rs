//! Who is clicking: what a request's address and headers tell about the visitor.
//!
//! Pure: the caller reads files, swaps databases and counts what is found, so that the same request always means the
//! same visitor. What cannot be told is "unknown", never an error of the click.

mod device;
mod geo;
mod mmdb;

pub use device::{DeviceCache, Hints, device};
pub use geo::{AsnDb, GeoDb};
pub use mmdb::{Found, GeoDbError};
