//! The embedded demonstration database is what its table says, byte for byte.
//!
//! `src/lookup/demo.mmdb` is made here from `src/lookup/demo.tsv`, so that nobody changes one without the other. After
//! a change of the table:
//!
//! ```text
//! SMARTLINK_BLESS=1 cargo test --test demo_geo
//! ```

#[path = "support/mmdb.rs"]
mod mmdb;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use smartlink::lookup::{Found, GeoDb};
use smartlink::types::{Country, Place, Region};

use mmdb::{Metadata, MmdbWriter, place};

#[test]
fn the_embedded_file_is_made_from_the_table() {
    let made = demo_database();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lookup/demo.mmdb");
    if std::env::var_os("SMARTLINK_BLESS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let embedded = std::fs::read(&path).unwrap();
    assert!(
        embedded == made,
        "src/lookup/demo.mmdb is not what demo.tsv says: run SMARTLINK_BLESS=1 cargo test --test demo_geo"
    );
}

#[test]
fn every_row_is_found_at_both_ends_of_its_network() {
    // Not the embedded one, which is an old one while it is being made anew.
    let demo = GeoDb::from_bytes(demo_database()).unwrap();
    let rows = rows();
    for row in &rows {
        let last = match row.network {
            // The upper half of these is divided among others.
            IpNet::V4(network) if network.prefix_len() == 24 => {
                IpAddr::from((u32::from(network.network()) + 127).to_be_bytes())
            }
            network => network.broadcast(),
        };
        for address in [row.network.network(), last] {
            let expected = Place {
                country: Country::parse(row.country),
                region: row.region.and_then(Region::parse),
                city: row.city,
                asn: None,
            };
            assert!(expected.country.is_some(), "{}", row.country);
            assert_eq!(expected.region.is_some(), row.region.is_some(), "{:?}", row.region);
            assert_eq!(demo.lookup(address), Found::Hit(expected), "{address}");
        }
    }
    let countries: BTreeSet<_> = rows.iter().map(|row| row.country).collect();
    assert!(countries.len() >= 15, "{countries:?}");
    assert_eq!(demo.broken_count(), 0);
}

#[test]
fn private_addresses_are_nowhere() {
    let demo = GeoDb::demo();
    assert!(matches!(demo.lookup(IpAddr::from([192, 0, 2, 1])), Found::Hit(_)));
    for address in
        ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1", "fe80::1", "2001:db8::1"]
    {
        assert_eq!(demo.lookup(address.parse().unwrap()), Found::NoRecord, "{address}");
    }
}

struct Row {
    network: IpNet,
    country: &'static str,
    region: Option<&'static str>,
    city: Option<&'static str>,
}

fn rows() -> Vec<Row> {
    let known = |field: &'static str| (field != "-").then_some(field);
    let rows: Vec<_> = TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| match line.split('\t').collect::<Vec<_>>()[..] {
            [network, country, region, city] => Row {
                network: network.parse().expect(line),
                country,
                region: known(region),
                city: known(city),
            },
            _ => panic!("four columns divided by tabs, not: {line}"),
        })
        .collect();
    assert!(!rows.is_empty());
    rows
}

fn demo_database() -> Vec<u8> {
    let mut writer = MmdbWriter::new(Metadata {
        database_type: "smartlink-Demo-City".to_owned(),
        description: "Documentation networks and a few known ones, for demonstrations of smartlink"
            .to_owned(),
        // The day on which the table was written: a file must not differ by the day on which it is made.
        build_epoch: 1_795_305_600,
        ip_version: 6,
        record_bits: 24,
    });
    for Row { network, country, region, city } in rows() {
        let subdivision = region.map(|region| region.split_once('-').expect(region).1);
        writer.insert(network, &place(country, subdivision, city));
    }
    writer.to_bytes()
}

const TABLE: &str = include_str!("../src/lookup/demo.tsv");
