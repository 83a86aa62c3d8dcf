//! What a click tells about its visitor: address → place.
//!
//! Pure: the caller reads files, and swaps and counts what it learns. Nothing in here can fail a click; what cannot be
//! told is unknown.

mod geo;
mod mmdb;

pub use geo::{AsnDb, GeoDb};
pub use mmdb::{Found, GeoDbError};
