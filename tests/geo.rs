//! Places and network numbers, looked up in databases that the test writes: good ones, poor ones and damaged ones.

#[path = "support/mmdb.rs"]
mod mmdb;

use std::net::IpAddr;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use smartlink::lookup::{AsnDb, Found, GeoDb, GeoDbError};
use smartlink::types::{Country, Place, Region};

use mmdb::{Child, Metadata, MmdbWriter, Value, assemble, place};

#[test]
fn a_city_database() {
    for record_bits in [24, 28, 32] {
        let db = GeoDb::from_bytes(city_writer(record_bits).to_bytes()).unwrap();
        for (address, expected) in [
            ("192.0.2.1", known("US", Some("US-CA"), Some("Los Angeles"))),
            ("192.0.2.128", known("GB", Some("GB-ENG"), Some("London"))),
            ("192.0.2.191", known("GB", Some("GB-ENG"), Some("London"))),
            ("192.0.2.192", known("US", Some("US-CA"), Some("Los Angeles"))),
            ("198.51.100.77", known("BR", None, Some("São Paulo"))),
            ("203.0.113.9", known("SG", None, None)),
            ("2001:db8::1", known("AT", Some("AT-9"), Some("Vienna"))),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", known("AT", Some("AT-9"), Some("Vienna"))),
        ] {
            assert_eq!(db.lookup(ip(address)), Found::Hit(expected), "{address}, {record_bits} bits");
        }
        for address in ["192.0.3.0", "192.0.1.255", "10.0.0.1", "2001:db9::", "::"] {
            assert_eq!(db.lookup(ip(address)), Found::NoRecord, "{address}");
        }
        assert_eq!(db.database_type(), "Anything-City");
        assert_eq!(db.build_epoch(), 1_795_305_600);
        assert_eq!((db.record_count(), db.broken_count()), (5, 0));
    }
}

#[test]
fn a_mapped_address_is_the_ipv4_address() {
    let mut with_alias = city_writer(24);
    with_alias.alias_ipv4("::ffff:0:0/96".parse().unwrap());
    let mut ipv4 = MmdbWriter::new(Metadata { ip_version: 4, ..Metadata::default() });
    ipv4.insert("192.0.2.0/24".parse().unwrap(), &place("US", Some("CA"), Some("Los Angeles")));
    for file in [city_writer(24).to_bytes(), with_alias.to_bytes(), ipv4.to_bytes()] {
        let db = GeoDb::from_bytes(file).unwrap();
        for address in ["192.0.2.1", "::ffff:192.0.2.1"] {
            let expected = known("US", Some("US-CA"), Some("Los Angeles"));
            assert_eq!(db.lookup(ip(address)), Found::Hit(expected), "{address}");
        }
    }
}

#[test]
fn an_ipv4_database_has_no_record_of_an_ipv6_address() {
    let mut writer = MmdbWriter::new(Metadata { ip_version: 4, ..Metadata::default() });
    writer.insert("128.0.0.0/1".parse().unwrap(), &place("US", None, None));
    let db = GeoDb::from_bytes(writer.to_bytes()).unwrap();
    assert_eq!(db.lookup(ip("2001:db8::1")), Found::NoRecord);
    assert_eq!(db.lookup(ip("8000::")), Found::NoRecord);
    assert_eq!(db.lookup(ip("192.0.2.1")), Found::Hit(known("US", None, None)));
}

#[test]
fn a_country_database_of_nothing_but_codes() {
    let mut writer = MmdbWriter::new(Metadata::default());
    for (network, code) in [("192.0.2.0/25", "DE"), ("192.0.2.128/25", "FR"), ("2001:db8::/33", "JP")] {
        writer.insert(network.parse().unwrap(), &place(code, None, None));
    }
    let db = GeoDb::from_bytes(writer.to_bytes()).unwrap();
    for (address, code) in [("192.0.2.1", "DE"), ("192.0.2.200", "FR"), ("2001:db8::1", "JP")] {
        assert_eq!(db.lookup(ip(address)), Found::Hit(known(code, None, None)));
    }
}

#[test]
fn what_is_no_country_is_unknown_but_found() {
    let registered = Value::map([("registered_country", Value::map([("iso_code", Value::text("US"))]))]);
    let nowhere = Place::default();
    for (record, expected) in [
        (place("EU", Some("CA"), None), nowhere),
        (place("AP", None, Some("Somewhere")), Place { city: Some("Somewhere"), ..nowhere }),
        (place("A1", None, None), nowhere),
        (place("us", None, None), nowhere),
        (registered, nowhere),
        (Value::map([]), nowhere),
        // Neither a code too long nor a name of nothing takes the country along.
        (place("GB", Some("ENGLAND"), Some("")), known("GB", None, None)),
    ] {
        let db = GeoDb::from_bytes(beside_a_good_one(&record)).unwrap();
        assert_eq!(db.lookup(ip("203.0.113.1")), Found::Hit(expected));
        assert_eq!(db.broken_count(), 0);
    }
}

#[test]
fn the_first_subdivision_counts() {
    let code = |code| Value::map([("iso_code", Value::text(code))]);
    let record = Value::map([
        ("country", code("ES")),
        ("subdivisions", Value::Array(vec![code("AN"), code("SE")])),
        ("location", Value::map([("latitude", Value::Double(37.4))])),
    ]);
    let db = GeoDb::from_bytes(beside_a_good_one(&record)).unwrap();
    assert_eq!(db.lookup(ip("203.0.113.1")), Found::Hit(known("ES", Some("ES-AN"), None)));
}

#[test]
fn a_record_of_the_wrong_shape_is_broken_and_alone_so() {
    let number = || Value::Uint32(7);
    for record in [
        number(),
        Value::map([("country", number())]),
        Value::map([("country", Value::text("US"))]),
        Value::map([("country", Value::map([("iso_code", number())]))]),
        Value::map([("country", Value::map([("iso_code", Value::text("US"))])), ("city", number())]),
        Value::map([("country", Value::map([("iso_code", Value::text("US"))])), ("subdivisions", number())]),
    ] {
        let db = GeoDb::from_bytes(beside_a_good_one(&record)).unwrap();
        assert_eq!(db.lookup(ip("203.0.113.1")), Found::Broken);
        assert_eq!(db.lookup(ip("192.0.2.1")), Found::Hit(known("US", Some("US-CA"), Some("Los Angeles"))));
        assert_eq!((db.record_count(), db.broken_count()), (2, 1));
    }
}

/// So much data that pointers of every size but the largest, which begins at 128 MB, are in use.
#[test]
fn a_database_of_many_cities() {
    let mut writer = MmdbWriter::new(Metadata { record_bits: 28, ..Metadata::default() });
    let name = |number: u32| format!("City {number}");
    for number in 0..CITIES {
        let network = ipnet::Ipv4Net::new((number << 8).into(), 24).unwrap();
        writer.insert(network.into(), &place("US", Some("CA"), Some(&name(number))));
    }
    let file = writer.to_bytes();
    assert!(file.len() > 1 << 20, "{} bytes", file.len());
    let db = GeoDb::from_bytes(file).unwrap();
    assert_eq!(db.record_count(), CITIES as usize);
    for number in (0..CITIES).step_by(97) {
        let address = IpAddr::from((number << 8 | 255).to_be_bytes());
        assert_eq!(db.lookup(address), Found::Hit(known("US", Some("US-CA"), Some(&name(number)))));
    }
}

#[test]
fn network_numbers() {
    let db = AsnDb::from_bytes(asn_file()).unwrap();
    assert_eq!(db.lookup(ip("192.0.2.1")), Found::Hit(64_496));
    assert_eq!(db.lookup(ip("::ffff:192.0.2.1")), Found::Hit(64_496));
    assert_eq!(db.lookup(ip("2001:db8::1")), Found::Hit(4_200_000_000));
    assert_eq!(db.lookup(ip("198.51.100.1")), Found::NoRecord, "an organisation without a number");
    assert_eq!(db.lookup(ip("203.0.113.1")), Found::Broken);
    assert_eq!(db.lookup(ip("10.0.0.1")), Found::NoRecord);
    assert_eq!((db.database_type(), db.record_count(), db.broken_count()), ("Anything-ASN", 4, 1));
}

#[test]
fn one_database_in_place_of_the_other() {
    let error = GeoDb::from_bytes(asn_file()).unwrap_err();
    assert!(matches!(error, GeoDbError::WrongKind { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "a database of type \"Anything-ASN\" has no country.iso_code in any record: it is an ASN database, which goes \
         beside a Country or City database, not in its place"
    );
    let error = AsnDb::from_bytes(city_writer(24).to_bytes()).unwrap_err();
    assert!(error.to_string().contains("it is a Country or City database"), "{error}");

    let mut neither = MmdbWriter::new(Metadata::default());
    neither.insert("192.0.2.0/24".parse().unwrap(), &Value::map([("is_anonymous", Value::Uint16(1))]));
    let error = GeoDb::from_bytes(neither.to_bytes()).unwrap_err();
    assert!(error.to_string().ends_with("give a Country or City database"), "{error}");
    let error = AsnDb::from_bytes(neither.to_bytes()).unwrap_err();
    assert!(error.to_string().ends_with("give an ASN or ISP database"), "{error}");
    let empty = MmdbWriter::new(Metadata::default()).to_bytes();
    assert!(matches!(GeoDb::from_bytes(empty), Err(GeoDbError::WrongKind { .. })));
}

#[test]
fn a_database_with_both_serves_as_both() {
    let mut writer = MmdbWriter::new(Metadata::default());
    let country = Value::map([("iso_code", Value::text("CH"))]);
    let record = Value::map([("autonomous_system_number", Value::Uint32(559)), ("country", country)]);
    writer.insert("192.0.2.0/24".parse().unwrap(), &record);
    let geo = GeoDb::from_bytes(writer.to_bytes()).unwrap();
    let asn = AsnDb::from_bytes(writer.to_bytes()).unwrap();
    let address = ip("192.0.2.1");
    let place = Place { asn: asn.lookup(address).hit(), ..geo.lookup(address).hit().unwrap_or_default() };
    assert_eq!(place, Place { asn: Some(559), ..known("CH", None, None) });
}

#[test]
fn what_is_no_database() {
    for (bytes, sentence) in [
        (&b""[..], "this is no MaxMind DB file"),
        (b"<!doctype html><title>Please log in</title>", "this is no MaxMind DB file"),
        (b"network,country\n192.0.2.0/24,US\n", "this is no MaxMind DB file"),
        (b"\xab\xcd\xefMaxMind.com", "this is no MaxMind DB file"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "this is a gzip archive"),
        (b"PK\x03\x04\x14\0", "this is a zip archive"),
    ] {
        let error = GeoDb::from_bytes(bytes.to_vec()).unwrap_err().to_string();
        assert!(error.starts_with(sentence), "{error}");
        assert!(error.contains("give "), "says what to do: {error}");
    }
}

#[test]
fn damage_inside_is_found_at_load() {
    let mut bad_double = MmdbWriter::new(Metadata::default());
    bad_double.insert("192.0.2.0/24".parse().unwrap(), &place("US", None, None));
    let seven_bytes = Value::Raw(b"\x67\0\0\0\0\0\0\0".to_vec());
    let record = Value::map([
        ("country", Value::map([("iso_code", Value::text("GB"))])),
        ("location", Value::map([("latitude", seven_bytes)])),
    ]);
    bad_double.insert("203.0.113.0/24".parse().unwrap(), &record);

    let mut bad_pointer = MmdbWriter::new(Metadata::default());
    bad_pointer.insert("192.0.2.0/24".parse().unwrap(), &place("US", None, None));
    let into_nowhere = Value::map([("country", Value::Raw(b"\x27\xff".to_vec()))]);
    bad_pointer.insert("203.0.113.0/24".parse().unwrap(), &into_nowhere);

    let record_behind_the_end =
        assemble(&Metadata::default(), &[[Child::Record(5_000), Child::Nothing]], b"\xe0");
    let circle = assemble(&Metadata::default(), &[[Child::Node(0), Child::Nothing]], b"\xe0");

    for file in [bad_double.to_bytes(), bad_pointer.to_bytes(), record_behind_the_end, circle] {
        let error = GeoDb::from_bytes(file).unwrap_err();
        assert!(matches!(error, GeoDbError::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains("download it again"), "{error}");
    }
}

/// The number of ways through each of these trees is beyond counting, so a loader that walks them all does not return.
#[test]
fn a_tree_whose_branches_meet_again_is_refused() {
    let country = b"\xe1\x47country\xe1\x48iso_code\x42US";
    let ladder = |length: usize, end: [Child; 2]| {
        let mut nodes: Vec<_> = (1..=length).map(|next| [Child::Node(next); 2]).collect();
        nodes.push(end);
        assemble(&Metadata::default(), &nodes, country)
    };
    for file in [
        ladder(127, [Child::Record(0); 2]),
        // The end is the root of the IPv4 networks, so that every way but one is an alias.
        ladder(96, [Child::Record(0), Child::Nothing]),
    ] {
        let error = GeoDb::from_bytes(file).unwrap_err();
        assert!(error.to_string().contains("run into one another"), "{error}");
    }
}

#[test]
fn every_truncation_is_refused() {
    let file = city_writer(24).to_bytes();
    for length in 0..file.len() {
        let error = GeoDb::from_bytes(file[..length].to_vec()).unwrap_err();
        assert!(matches!(error, GeoDbError::Unreadable { .. }), "{length} of {} bytes: {error}", file.len());
    }
}

/// A flipped bit may go unnoticed (another letter of a city), but then every address still gets an answer.
///
/// `BIT_FLIPS=10000 cargo test --test geo` flips more of them.
#[test]
fn flipped_bits_are_refused_or_harmless() {
    let seed = match std::env::var("SMARTLINK_TEST_SEED") {
        Ok(seed) => seed.parse().expect("SMARTLINK_TEST_SEED is a number"),
        Err(_) => 301,
    };
    let files =
        std::env::var("BIT_FLIPS").map_or(BIT_FLIPS, |flips| flips.parse().expect("BIT_FLIPS is a number"));
    println!("{files} files from SMARTLINK_TEST_SEED={seed}");
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let good = city_writer(28).to_bytes();
    let mut refused = 0;
    for _ in 0..files {
        let mut file = good.clone();
        // Mostly one bit; sometimes more, which meet.
        for _ in 0..=random.next_u64() % 3 {
            let bit = random.next_u64() as usize % (file.len() * 8);
            file[bit / 8] ^= 1 << (bit % 8);
        }
        // For numbers of networks it is no database, whatever was flipped.
        assert!(AsnDb::from_bytes(file.clone()).is_err());
        match GeoDb::from_bytes(file) {
            Ok(db) => {
                for network in NETWORKS {
                    let _ = db.lookup(network.parse::<ipnet::IpNet>().unwrap().network());
                }
                for _ in 0..8 {
                    let _ = db.lookup(IpAddr::from((random.next_u64() as u32).to_be_bytes()));
                    let both = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
                    let _ = db.lookup(IpAddr::from(both.to_be_bytes()));
                }
            }
            Err(error) => {
                refused += 1;
                let sentence = error.to_string();
                assert!(sentence.contains(": ") && sentence.len() > 40, "{sentence}");
            }
        }
    }
    println!("{refused} of {files} refused");
    assert!((1..files).contains(&refused), "{refused} of {files} refused");
}

fn city_writer(record_bits: u16) -> MmdbWriter {
    let mut writer = MmdbWriter::new(Metadata {
        database_type: "Anything-City".to_owned(),
        record_bits,
        ..Metadata::default()
    });
    let records = [
        place("GB", Some("ENG"), Some("London")),
        place("US", Some("CA"), Some("Los Angeles")),
        place("BR", None, Some("São Paulo")),
        place("SG", None, None),
        place("AT", Some("9"), Some("Vienna")),
    ];
    for (network, record) in NETWORKS.iter().zip(&records) {
        writer.insert(network.parse().unwrap(), record);
    }
    writer
}

fn asn_file() -> Vec<u8> {
    let mut writer =
        MmdbWriter::new(Metadata { database_type: "Anything-ASN".to_owned(), ..Metadata::default() });
    let numbered = |number| Value::map([("autonomous_system_number", number)]);
    for (network, record) in [
        ("192.0.2.0/24", numbered(Value::Uint32(64_496))),
        ("2001:db8::/32", numbered(Value::Uint32(4_200_000_000))),
        ("198.51.100.0/24", Value::map([("organization", Value::text("Example"))])),
        ("203.0.113.0/24", numbered(Value::text("AS64496"))),
    ] {
        writer.insert(network.parse().unwrap(), &record);
    }
    writer.to_bytes()
}

/// 192.0.2.0/24 is Los Angeles, and 203.0.113.0/24 has the record.
fn beside_a_good_one(record: &Value) -> Vec<u8> {
    let mut writer = MmdbWriter::new(Metadata::default());
    writer.insert("192.0.2.0/24".parse().unwrap(), &place("US", Some("CA"), Some("Los Angeles")));
    writer.insert("203.0.113.0/24".parse().unwrap(), record);
    writer.to_bytes()
}

fn known<'a>(country: &str, region: Option<&str>, city: Option<&'a str>) -> Place<'a> {
    let country = Country::parse(country);
    assert!(country.is_some());
    Place { country, region: region.map(|region| Region::parse(region).unwrap()), city, asn: None }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The more specific one comes first, and wins all the same.
const NETWORKS: [&str; 5] =
    ["192.0.2.128/26", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"];

const CITIES: u32 = 20_000;

const BIT_FLIPS: usize = 2_000;
