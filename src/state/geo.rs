//! The geo databases in use, asked as one.

use std::net::IpAddr;
use std::sync::Arc;

use crate::lookup::{AsnDb, Found, GeoDb};
use crate::types::Place;

/// The geo databases in use. Either may be absent; each is replaced by itself.
#[derive(Debug, Default)]
pub struct Geo {
    pub places: Option<Arc<GeoDb>>,
    pub networks: Option<Arc<AsnDb>>,
}

/// What a geo lookup found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeoCount {
    Found,
    NotFound,
    Error,
    NoDatabase,
}

/// One of the two databases, as it is called in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeoDatabase {
    Places,
    Networks,
}

impl Geo {
    /// Where an address is, and what to count the look-up as. Nothing here fails a click: what cannot be told is
    /// unknown.
    #[inline]
    pub fn place(&self, address: IpAddr) -> (GeoCount, Place<'_>) {
        let (count, mut place) = match self.places.as_ref().map(|places| places.lookup(address)) {
            Some(Found::Hit(place)) => (GeoCount::Found, place),
            Some(Found::NoRecord) => (GeoCount::NotFound, Place::default()),
            Some(Found::Broken) => (GeoCount::Error, Place::default()),
            None => (GeoCount::NoDatabase, Place::default()),
        };
        if let Some(Found::Hit(asn)) = self.networks.as_ref().map(|networks| networks.lookup(address)) {
            place.asn = Some(asn);
        }
        (count, place)
    }
}

impl GeoDatabase {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            GeoDatabase::Places => "places",
            GeoDatabase::Networks => "networks",
        }
    }
}

impl GeoCount {
    pub const ALL: [GeoCount; 4] =
        [GeoCount::Found, GeoCount::NotFound, GeoCount::Error, GeoCount::NoDatabase];

    pub const fn as_str(self) -> &'static str {
        match self {
            GeoCount::Found => "found",
            GeoCount::NotFound => "not_found",
            GeoCount::Error => "error",
            GeoCount::NoDatabase => "no_database",
        }
    }
}
