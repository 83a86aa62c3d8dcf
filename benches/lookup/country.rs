//! What it costs to tell where a visitor is.
//!
//! 2026-11-22, a virtual machine in a cloud with 2 cores of an Intel Xeon, shared, at a load average of 1.5 to 1.9;
//! random IPv4 addresses, the generator (1 to 2 ns) included:
//!
//! | `country/…` | networks | file | lookup | load, everything checked |
//! | --- | --- | --- | --- | --- |
//! | `file`, a real country database in `SMARTLINK_BENCH_GEO` | 1.2 million | 7.7 MB | 65 ns | 94 ms |
//! | `made-country` | 1.5 million | 10 MB | 201 ns | 125 ms |
//! | `made-city`, 676,513 records of 100,000 cities | 1.5 million | 44 MB | 416 ns | 1.4 to 1.6 s |
//!
//! The made databases have no network larger than a /16, so that walks are longer and a random address finds less of
//! its walk in the cache; visitors are not that random. At a load average of 5 to 6 the same lookups took 88, 650 and
//! 1,560 ns: compare only what was measured together.

#[path = "../../tests/support/mmdb.rs"]
mod mmdb;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::Criterion;
use ipnet::Ipv4Net;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use smartlink::lookup::GeoDb;
use smartlink::types::Country;

use mmdb::{Metadata, MmdbWriter, Value};

/// Random IPv4 addresses, none asked for twice, so that caches help no more than the shape of the tree allows.
pub fn country(criterion: &mut Criterion) {
    let mut files = vec![
        ("made-country".to_owned(), made_database(|random| record(random, None))),
        ("made-city".to_owned(), made_database(|random| record(random, Some(CITIES)))),
    ];
    if let Ok(path) = std::env::var("SMARTLINK_BENCH_GEO") {
        files
            .push(("file".to_owned(), std::fs::read(&path).expect("SMARTLINK_BENCH_GEO is a readable file")));
    }
    let mut group = criterion.benchmark_group("country");
    for (name, file) in files {
        let db = GeoDb::from_bytes(file.clone()).expect("a sound database");
        println!("{name}: {} MB, {db:?}", file.len() / 1_000_000);
        let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
        group.bench_function(&name, |bencher| {
            bencher.iter(|| {
                let address = IpAddr::V4(Ipv4Addr::from_bits(random.next_u64() as u32));
                black_box(&db).lookup(address)
            });
        });
        // Of this a few hundredths are the copy of the file.
        group.sample_size(10).bench_function(format!("{name}/load"), |bencher| {
            bencher.iter(|| GeoDb::from_bytes(black_box(&file).clone()));
        });
        group.sample_size(100);
    }
    group.finish();
}

/// All of IPv4 in blocks of random sizes from /24 to /16, 1.5 million of them.
fn made_database(mut record: impl FnMut(&mut Xoshiro256PlusPlus) -> Value) -> Vec<u8> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    let mut writer = MmdbWriter::new(Metadata { record_bits: 28, ..Metadata::default() });
    let mut start = 0_u64;
    while start < 1 << 32 {
        // No larger than where it starts allows.
        let bits = (8 + random.next_u64() % 9).min(u64::from(start.trailing_zeros()));
        let network = Ipv4Net::new((start as u32).into(), (32 - bits) as u8).expect("at most 32 bits");
        writer.insert(network.into(), &record(&mut random));
        start += 1 << bits;
    }
    writer.to_bytes()
}

fn record(random: &mut Xoshiro256PlusPlus, cities: Option<u64>) -> Value {
    let countries = Country::all().count() as u64;
    let Some(cities) = cities else {
        let country = Country::all().nth((random.next_u64() % countries) as usize).expect("below the count");
        return mmdb::place(country.as_str(), None, None);
    };
    // A city is always in the same place; what follows it sets many records of one city apart, as postal codes do.
    let city = random.next_u64() % cities;
    let country = Country::all().nth((city % countries) as usize).expect("below the count");
    let Value::Map(mut entries) =
        mmdb::place(country.as_str(), Some(&(city % 90).to_string()), Some(&format!("City number {city}")))
    else {
        unreachable!("a place is a map");
    };
    entries.push((
        "postal".to_owned(),
        Value::map([("code", Value::text((random.next_u64() % 8).to_string()))]),
    ));
    Value::Map(entries)
}

const SEED: u64 = 301;

const CITIES: u64 = 100_000;
