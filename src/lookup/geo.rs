//! Address → place: country, region and city from one MaxMind DB file, the network's number from another.
//!
//! A database is made from bytes, checked as a whole, and never changes; the caller reads the file, swaps databases
//! and counts what lookups [`Found`]. Which database a file is gets decided by what its records hold, not by the name
//! of its type: everybody who makes one picks a name. Only `country` is read, where the address is; not
//! `registered_country`, where its owner is.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use maxminddb::{MaxMindDbError, PathElement, path};

use super::mmdb::{Found, GeoDbError, Mmdb, Record};
use crate::types::{Country, Place, Region};

/// Places by address, from a Country, City or Enterprise database.
///
/// It assumes, and `tests/geo.rs` checks:
/// - A record holds `country.iso_code`, perhaps `subdivisions[0].iso_code` and `city.names.en`. Each may be missing.
/// - A code that is no country (`EU`, `AP`, `A1`) is an unknown country, and then there is no region.
/// - A record of which any of these has the wrong type is broken as a whole: we trust no half of it.
pub struct GeoDb {
    file: Mmdb<u32>,
    /// Many records name the same place, and differ in what we do not read: postal code, coordinates, accuracy.
    places: Vec<FlatPlace>,
    /// Every city, one after the other.
    city_names: String,
}

/// Autonomous system numbers by address, from an ASN or ISP database.
pub struct AsnDb {
    file: Mmdb<Option<u32>>,
}

impl GeoDb {
    /// Takes the bytes of a whole `.mmdb` file. Reads all of it, which takes a tenth of a second for a country database
    /// and one or two for a city database: not a thing to do on a thread that serves clicks.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, GeoDbError> {
        let mut gazetteer = Gazetteer::default();
        let file = Mmdb::from_bytes(bytes, |record| gazetteer.index(record))?;
        let Gazetteer { places, city_names, .. } = gazetteer;
        if places.iter().any(|place| place.country.is_some()) {
            return Ok(Self { file, places, city_names });
        }
        let advice = if file.any_record(|record| matches!(number(record), Ok(Some(_)))) {
            "it is an ASN database, which goes beside a Country or City database, not in its place"
        } else {
            "give a Country or City database"
        };
        Err(wrong_kind(&file, "has no country.iso_code in any record", advice))
    }

    /// A small database that comes with the program, for demonstrations: the documentation networks of RFC 5737 and
    /// RFC 3849, divided among some countries, and a few well-known addresses. `demo.tsv` lists them.
    pub fn demo() -> Self {
        Self::from_bytes(include_bytes!("demo.mmdb").to_vec()).expect("tests load the embedded database")
    }

    /// Where an address is. A hit may still be a place of which nothing is known.
    #[inline]
    pub fn lookup(&self, address: IpAddr) -> Found<Place<'_>> {
        self.file.find(address).map(|index| {
            let place = &self.places[index as usize];
            Place { country: place.country, region: place.region, city: self.city_name(place), asn: None }
        })
    }

    fn city_name(&self, place: &FlatPlace) -> Option<&str> {
        place.city.map(|(start, end)| &self.city_names[start as usize..end as usize])
    }

    /// The type that the file gives itself, such as `GeoLite2-City`.
    pub fn database_type(&self) -> &str {
        self.file.database_type()
    }

    /// When the file was built, in seconds since 1970-01-01T00:00:00Z.
    pub fn build_epoch(&self) -> u64 {
        self.file.build_epoch()
    }

    /// How many distinct records the file has.
    pub fn record_count(&self) -> usize {
        self.file.record_count()
    }

    /// How many of them are broken. Worth a line in the log where it is not zero.
    pub fn broken_count(&self) -> usize {
        self.file.broken_count()
    }
}

impl AsnDb {
    /// Takes the bytes of a whole `.mmdb` file; as slow as [`GeoDb::from_bytes`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, GeoDbError> {
        let file = Mmdb::from_bytes(bytes, number)?;
        if file.decoded().any(|number| number.is_some()) {
            return Ok(Self { file });
        }
        let advice = if file.any_record(|record| matches!(text(record, &COUNTRY), Ok(Some(_)))) {
            "it is a Country or City database, which goes beside an ASN database, not in its place"
        } else {
            "give an ASN or ISP database"
        };
        Err(wrong_kind(&file, "has no autonomous_system_number in any record", advice))
    }

    /// The number of the network that announces an address. A record without one (an ISP database has such) is no
    /// record.
    #[inline]
    pub fn lookup(&self, address: IpAddr) -> Found<u32> {
        match self.file.find(address) {
            Found::Hit(Some(number)) => Found::Hit(number),
            Found::Hit(None) | Found::NoRecord => Found::NoRecord,
            Found::Broken => Found::Broken,
        }
    }

    /// The type that the file gives itself, such as `GeoLite2-ASN`.
    pub fn database_type(&self) -> &str {
        self.file.database_type()
    }

    /// When the file was built, in seconds since 1970-01-01T00:00:00Z.
    pub fn build_epoch(&self) -> u64 {
        self.file.build_epoch()
    }

    /// How many distinct records the file has.
    pub fn record_count(&self) -> usize {
        self.file.record_count()
    }

    /// How many of them are broken.
    pub fn broken_count(&self) -> usize {
        self.file.broken_count()
    }
}

impl fmt::Debug for GeoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("GeoDb");
        describe(&self.file, &mut fields);
        fields.field("places", &self.places.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for AsnDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("AsnDb");
        describe(&self.file, &mut fields);
        fields.finish_non_exhaustive()
    }
}

/// A place without references, so that it can be kept beside the names that it points into.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct FlatPlace {
    country: Option<Country>,
    region: Option<Region>,
    /// Start and end in `city_names`.
    city: Option<(u32, u32)>,
}

/// Gives each distinct place a number, and each distinct city one spelling.
#[derive(Default)]
struct Gazetteer {
    places: Vec<FlatPlace>,
    indices: HashMap<FlatPlace, u32>,
    city_names: String,
    cities: HashMap<String, (u32, u32)>,
}

impl Gazetteer {
    /// Reads a record and answers with the index of its place.
    fn index(&mut self, record: &Record<'_>) -> Result<u32, MaxMindDbError> {
        let country = text(record, &COUNTRY)?.and_then(Country::parse);
        let subdivision = text(record, &SUBDIVISION)?;
        let city = text(record, &CITY)?.filter(|name| !name.is_empty());
        let place = FlatPlace {
            country,
            region: country.zip(subdivision).and_then(|(country, part)| Region::new(country, part)),
            city: city.and_then(|name| self.city(name)),
        };
        Ok(*self.indices.entry(place).or_insert_with(|| {
            self.places.push(place);
            (self.places.len() - 1) as u32
        }))
    }

    /// `None` when four gigabytes of cities are reached.
    fn city(&mut self, name: &str) -> Option<(u32, u32)> {
        if let Some(&range) = self.cities.get(name) {
            return Some(range);
        }
        let start = self.city_names.len();
        let range = (u32::try_from(start).ok()?, u32::try_from(start + name.len()).ok()?);
        self.city_names.push_str(name);
        self.cities.insert(name.to_owned(), range);
        Some(range)
    }
}

fn text<'a>(record: &Record<'a>, path: &[PathElement<'_>]) -> Result<Option<&'a str>, MaxMindDbError> {
    record.decode_path(path)
}

fn number(record: &Record<'_>) -> Result<Option<u32>, MaxMindDbError> {
    record.decode_path(&path!["autonomous_system_number"])
}

fn wrong_kind<T: Copy>(file: &Mmdb<T>, lacks: &'static str, advice: &'static str) -> GeoDbError {
    GeoDbError::WrongKind { database_type: file.database_type().to_owned(), lacks, advice }
}

fn describe<T: Copy>(file: &Mmdb<T>, fields: &mut fmt::DebugStruct<'_, '_>) {
    fields
        .field("database_type", &file.database_type())
        .field("build_epoch", &file.build_epoch())
        .field("records", &file.record_count())
        .field("broken", &file.broken_count());
}

const COUNTRY: [PathElement<'static>; 2] = [PathElement::Key("country"), PathElement::Key("iso_code")];

const SUBDIVISION: [PathElement<'static>; 3] =
    [PathElement::Key("subdivisions"), PathElement::Index(0), PathElement::Key("iso_code")];

const CITY: [PathElement<'static>; 3] =
    [PathElement::Key("city"), PathElement::Key("names"), PathElement::Key("en")];
