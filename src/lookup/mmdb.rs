//! A MaxMind DB file in memory, every record of it decoded once.
//!
//! A file has far fewer records than networks (a country database of 1.2 million networks has 259), so all of them
//! are decoded when it is loaded, and a lookup is the walk to a record's offset and one probe of a small map. Loading
//! reads the whole file: a damaged one is refused here, before any click has met it, and a record that is sound but
//! says nothing we understand is remembered as broken. What the records mean is the business of [`super::geo`].
//!
//! It reads no file and keeps no file open: a mapped file that someone overwrites is a crash.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;

use maxminddb::{LookupResult, MaxMindDbError, Reader, WithinOptions};
use thiserror::Error;

/// What a database says about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// There is a record, and it could be read.
    Hit(T),
    /// The database has no record for this address.
    NoRecord,
    /// There is a record, but it could not be read.
    Broken,
}

/// Why a file is not used as a database. The caller adds the name of the file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GeoDbError {
    #[error("this is {what}, not a database: unpack it and give the .mmdb file that is inside")]
    Packed { what: &'static str },
    #[error("this is no MaxMind DB file, or only a part of one ({reason}): give a whole .mmdb file")]
    Unreadable { reason: String },
    #[error("the database is damaged ({reason}): download it again, or go back to the last one that worked")]
    Damaged { reason: String },
    #[error("a database of type {database_type:?} {lacks}: {advice}")]
    WrongKind { database_type: String, lacks: &'static str, advice: &'static str },
}

/// The file, and what each of its records says in terms of `T`.
///
/// Memory is the file and, for each distinct record, 15 to 30 bytes where `T` has 4: a few times the file at most,
/// whatever the file holds.
pub(super) struct Mmdb<T> {
    reader: Reader<Vec<u8>>,
    /// By offset in the data section. `None` is a broken record.
    records: HashMap<u32, Option<T>, BuildHasherDefault<OffsetHasher>>,
    broken: usize,
    /// Asked for an IPv6 address, a reader of an IPv4 database builds an error; we answer before it does.
    ipv4_only: bool,
}

/// A record that has been found but not decoded.
pub(super) type Record<'a> = LookupResult<'a, Vec<u8>>;

impl<T: Copy> Mmdb<T> {
    /// Takes a whole file and decodes its records, each once, in the order of the networks.
    pub(super) fn from_bytes(
        bytes: Vec<u8>,
        mut decode: impl FnMut(&Record<'_>) -> Result<T, MaxMindDbError>,
    ) -> Result<Self, GeoDbError> {
        if let Some(what) = packed(&bytes) {
            return Err(GeoDbError::Packed { what });
        }
        let reader = Reader::from_source(bytes)
            .map_err(|error| GeoDbError::Unreadable { reason: error.to_string() })?;
        // First the tree, because `verify` is at the mercy of a bad one: see `each_record`. Then the records, because
        // `verify` is what keeps a few of them from unfolding into more than memory holds.
        each_record(&reader, |_, _| ())?;
        reader.verify().map_err(damaged)?;
        let mut records = HashMap::default();
        let mut broken = 0;
        each_record(&reader, |offset, record| {
            if let Entry::Vacant(vacant) = records.entry(offset) {
                let decoded = decode(&record).ok();
                broken += usize::from(decoded.is_none());
                vacant.insert(decoded);
            }
        })?;
        records.shrink_to_fit();
        let ipv4_only = reader.metadata().ip_version == 4;
        Ok(Self { reader, records, broken, ipv4_only })
    }

    /// Any address may be asked for; an IPv4-mapped IPv6 address is the IPv4 address.
    #[inline]
    pub(super) fn find(&self, address: IpAddr) -> Found<T> {
        let address = address.to_canonical();
        if self.ipv4_only && address.is_ipv6() {
            return Found::NoRecord;
        }
        let Ok(record) = self.reader.lookup(address) else {
            return Found::Broken;
        };
        let Some(offset) = record.offset() else {
            return Found::NoRecord;
        };
        match self.records.get(&(offset as u32)) {
            Some(Some(decoded)) => Found::Hit(*decoded),
            Some(None) | None => Found::Broken,
        }
    }

    /// What the records say, each distinct one once, in no order. Broken ones are left out.
    pub(super) fn decoded(&self) -> impl Iterator<Item = T> {
        self.records.values().copied().flatten()
    }

    /// Whether any record passes. Walks the whole file: for the explanation of a refusal, not for clicks.
    pub(super) fn any_record(&self, mut passes: impl FnMut(&Record<'_>) -> bool) -> bool {
        let mut any = false;
        let walked = each_record(&self.reader, |_, record| any = any || passes(&record));
        walked.is_ok() && any
    }

    pub(super) fn record_count(&self) -> usize {
        self.records.len()
    }

    pub(super) fn broken_count(&self) -> usize {
        self.broken
    }

    pub(super) fn database_type(&self) -> &str {
        &self.reader.metadata().database_type
    }

    pub(super) fn build_epoch(&self) -> u64 {
        self.reader.metadata().build_epoch
    }
}

impl<T> Found<T> {
    /// The record, if there is one that could be read.
    pub fn hit(self) -> Option<T> {
        match self {
            Self::Hit(record) => Some(record),
            Self::NoRecord | Self::Broken => None,
        }
    }

    pub(super) fn map<U>(self, convert: impl FnOnce(T) -> U) -> Found<U> {
        match self {
            Self::Hit(record) => Found::Hit(convert(record)),
            Self::NoRecord => Found::NoRecord,
            Self::Broken => Found::Broken,
        }
    }
}

/// Calls `visit` with the record of every network, and refuses a tree that is none.
///
/// Nothing in the format keeps two nodes from sharing a child, so a tree of a hundred nodes can have 2^96 paths.
/// Aliases of the IPv4 networks are walked too, although they repeat records: the iterator passes over an alias
/// without yielding it, so that a tree made of them keeps it busy for ever, out of reach of a bound. `verify` does just
/// that.
fn each_record(
    reader: &Reader<Vec<u8>>,
    mut visit: impl for<'a> FnMut(u32, Record<'a>),
) -> Result<(), GeoDbError> {
    let everything = WithinOptions::default().include_aliased_networks().include_networks_without_data();
    let leaves_max = (reader.metadata().node_count as usize + 1).saturating_mul(WALKS_PER_LEAF_MAX);
    for (leaves, network) in reader.networks(everything).map_err(damaged)?.enumerate() {
        if leaves >= leaves_max {
            let reason = "the branches of its search tree run into one another".to_owned();
            return Err(GeoDbError::Damaged { reason });
        }
        let record = network.map_err(damaged)?;
        if let Some(offset) = record.offset() {
            visit(offset as u32, record);
        }
    }
    Ok(())
}

fn damaged(error: MaxMindDbError) -> GeoDbError {
    GeoDbError::Damaged { reason: error.to_string() }
}

/// Databases are downloaded as archives, and the archive is easily taken for the database.
fn packed(bytes: &[u8]) -> Option<&'static str> {
    let packed_as = |(magic, what): &(&[u8], &'static str)| bytes.starts_with(magic).then_some(*what);
    ARCHIVES.iter().find_map(packed_as)
}

/// Spreads offsets over a hash table by one multiplication. An offset is unique and comes from a file that its
/// operator chose, so the strength of the standard hasher would be paid for nothing.
#[derive(Default)]
pub(super) struct OffsetHasher(u64);

impl Hasher for OffsetHasher {
    #[inline]
    fn write_u32(&mut self, offset: u32) {
        let product = u64::from(offset).wrapping_mul(GOLDEN);
        // The table takes its slot from the low bits, where a product is weakest.
        self.0 = product ^ (product >> 32);
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(GOLDEN);
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// 2^64 divided by the golden ratio, made odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Databases reach the IPv4 networks by a handful of prefixes (mapped, 6to4, Teredo); this leaves room.
const WALKS_PER_LEAF_MAX: usize = 16;

const ARCHIVES: [(&[u8], &str); 4] = [
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
];
