//! Geo databases over the real program, while clicks come: cut off, with bits flipped, of the wrong kind, overwritten in place.
//! A click goes where the last good database says, and a bad one is counted and named.
//!
//! `GEO_FLIPS=10000 GEO_CUTS=256 cargo test --test geo_faults` breaks more of them; `GEO_SEED` breaks others.

mod support;

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::{Seek, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde_json::json;
use smartlink::lookup::{GeoDb, GeoDbError};

use support::http::{Connection, Request};
use support::mmdb::{Metadata, MmdbWriter, Value, place};
use support::node::{Node, Setup};
use support::wait;

/// Whom the countries' offers are for; who is from nowhere else gets the fallback.
const COUNTRIES: [&str; 4] = ["US", "GB", "BR", "AT"];

/// One of each network, and one of none.
const ADDRESSES: [&str; 6] =
    ["192.0.2.1", "192.0.2.129", "198.51.100.77", "203.0.113.9", "2001:db8::1", "10.0.0.1"];

const FALLBACK: &str = "fallback.example.com";

#[test]
fn a_broken_database_sends_nobody_elsewhere() {
    let (flips, cuts, seed) =
        (number("GEO_FLIPS", 200), number("GEO_CUTS", 48), number("GEO_SEED", 20_261_122));
    println!("{flips} flips and {cuts} cuts from GEO_SEED={seed}");
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let good = city_database(0);
    let (node, file) = start(&good, None);
    let load = Load::default();
    let mut refused = BTreeSet::new();
    thread::scope(|scope| {
        let ending = Ending(&load);
        for _ in 0..2 {
            scope.spawn(|| load.click(node.clicks));
        }
        let mut connection = node.connect();
        let mut live = GeoDb::from_bytes(good.clone()).unwrap();
        let (mut loaded, mut failed) = (0, 0);
        for round in 0..cuts + flips {
            let mut bytes = good.clone();
            if round < cuts {
                bytes.truncate(good.len() * round as usize / cuts as usize);
            } else {
                let bit = random.next_u64() as usize % (good.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            replace(&file, &bytes);
            node.refresh();
            match GeoDb::from_bytes(bytes) {
                Ok(database) => (live, loaded) = (database, loaded + 1),
                Err(error) => {
                    failed += 1;
                    refused.insert(kind(&error));
                }
            }
            for address in ADDRESSES {
                let right = host_of(&live, address);
                assert_eq!(click(&mut connection, address), right, "round {round}: {address}");
            }
        }
        assert_eq!(reloads(&node), (loaded, failed));
        // Of those that are word for word the same, the log tells the first ten.
        let told = node.log().matches("; the database in use stays").count() as u64;
        assert!((refused.len() as u64..=failed).contains(&told), "{told} of {failed}: {}", node.log());
        println!(
            "{failed} refused, {loaded} taken, {} clicks meanwhile",
            load.clicks.load(Ordering::Relaxed)
        );
        assert!(failed >= cuts && loaded > 0 && load.clicks.load(Ordering::Relaxed) > 0);

        // And then a good one.
        replace(&file, &city_database(1));
        node.refresh();
        let live = GeoDb::from_bytes(city_database(1)).unwrap();
        assert!(ADDRESSES.iter().all(|address| click(&mut connection, address) == host_of(&live, address)));
        drop(ending);
    });
    assert!(refused.len() > 1, "every one was refused for the same reason: {refused:?}");
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

/// Other kinds of wrong files, each of which is named, with what to do about it.
#[test]
fn a_file_that_is_no_country_database_is_refused_by_name() {
    let good = city_database(0);
    let (node, file) = start(&good, None);
    let live = GeoDb::from_bytes(good).unwrap();
    let mut connection = node.connect();
    for (round, (bytes, said)) in [
        (asn_database(64_496), "it is an ASN database"),
        (b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), "a gzip archive"),
        (b"<!doctype html><title>Please log in</title>".to_vec(), "no MaxMind DB file"),
        (Vec::new(), "no MaxMind DB file"),
    ]
    .into_iter()
    .enumerate()
    {
        replace(&file, &bytes);
        let said_before = node.log().len();
        node.refresh();
        node.wait_for_log_behind(said_before, &["ERROR", "geo.mmdb", said, "the database in use stays"]);
        assert_eq!(reloads(&node), (0, round as u64 + 1));
        assert!(ADDRESSES.iter().all(|address| click(&mut connection, address) == host_of(&live, address)));
    }
    // What is no file at all.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    node.refresh();
    node.wait_for_log(&["ERROR", "cannot read the geo database", "geo.mmdb", "directory"]);
    assert_eq!(reloads(&node), (0, 5));
    assert_eq!((click(&mut connection, ADDRESSES[0]), node.readyz()), (host_of(&live, ADDRESSES[0]), 200));
}

/// The format has no checksum: half of one file and half of another, as a copy in place leaves them for a while, is a database
/// like any other.
#[test]
fn a_database_that_is_overwritten_in_place_is_taken_whole_or_not_at_all() {
    let (old, new) = (city_database(0), city_database(1));
    assert_eq!(old.len(), new.len());
    let differ: Vec<usize> = (0..old.len()).filter(|&at| old[at] != new[at]).collect();
    let middle = (differ[0] + differ[differ.len() - 1]) / 2;
    let torn =
        GeoDb::from_bytes([&new[..middle], &old[middle..]].concat()).expect("nothing tells that it is torn");
    let of = |database: &GeoDb| ADDRESSES.map(|address| host_of(database, address));
    let (before, after) =
        (of(&GeoDb::from_bytes(old.clone()).unwrap()), of(&GeoDb::from_bytes(new.clone()).unwrap()));
    assert!(of(&torn) != before && of(&torn) != after);

    let (node, file) = start(&old, None);
    let mut connection = node.connect();
    let mut seen = || ADDRESSES.map(|address| click(&mut connection, address));
    let half = Load::default();
    // Who writes in place, and then does nothing for a second, has left half a database: on a machine whose disk stands still, that
    // may be this test.
    let (stood_still, written) = (AtomicBool::new(false), Mutex::new(Instant::now()));
    let has_stood_still = || {
        let now = written.lock().unwrap().elapsed() > Duration::from_millis(500);
        stood_still.fetch_or(now, Ordering::Relaxed) || now
    };
    let mut writing = OpenOptions::new().write(true).open(&file).unwrap();
    writing.write_all(&new[..middle]).unwrap();
    // Nothing changes while it is looked at: only that it was written to.
    node.refresh();
    assert_eq!(seen(), before);
    thread::scope(|scope| {
        let half_is_enough = Ending(&half);
        scope.spawn(|| {
            let mut write = |bytes: &[u8]| {
                writing.rewind().unwrap();
                writing.write_all(bytes).unwrap();
                has_stood_still();
                *written.lock().unwrap() = Instant::now();
            };
            while !half.done.load(Ordering::Relaxed) {
                write(&new[..middle]);
                thread::sleep(Duration::from_millis(5));
            }
            write(&new);
        });
        for _ in 0..20 {
            node.refresh();
            let seen = seen();
            assert!(seen == before || has_stood_still(), "{seen:?}");
        }
        drop(half_is_enough);
    });
    // All is written.
    let stood_still = stood_still.load(Ordering::Relaxed);
    if stood_still {
        println!("the disk stood still for half a second: what was seen meanwhile is not looked at");
    }
    wait::until("the new database", || {
        let seen = seen();
        assert!(seen == before || seen == after || stood_still, "{seen:?}");
        (seen == after).then_some(())
    });
    assert!(stood_still || reloads(&node) == (1, 0), "{:?}", reloads(&node));
    node.wait_for_log(&["INFO", "geo.mmdb", "is being overwritten in place"]);
}

#[test]
fn a_broken_database_keeps_no_other_from_being_replaced() {
    let (node, file) = start(&city_database(0), Some(asn_database(64_496)));
    let asn_file = file.with_file_name("asn.mmdb");
    replace(&asn_file, b"no database");
    replace(&file, &city_database(1));
    node.refresh();
    node.wait_for_log(&["ERROR", "asn.mmdb", "cannot be used", "the database in use stays"]);
    assert_eq!(reloads(&node), (1, 1));
    let live = GeoDb::from_bytes(city_database(1)).unwrap();
    let mut connection = node.connect();
    assert!(ADDRESSES.iter().all(|address| click(&mut connection, address) == host_of(&live, address)));
    let asn = || {
        let told = node.admin("GET", "/explain?id=1&aff_id=7&ip=192.0.2.1").json();
        told["visitor"]["asn"].as_u64()
    };
    assert_eq!(asn(), Some(64_496), "the old one stays");
    // It was made at the second of its number.
    let built =
        || node.metrics().value("smartlink_geo_database_build_timestamp_seconds{database=\"networks\"}");
    assert_eq!(built(), 64_496);
    replace(&file, b"no database");
    replace(&asn_file, &asn_database(64_511));
    node.refresh();
    assert_eq!((asn(), reloads(&node)), (Some(64_511), (2, 2)));
    assert_eq!(built(), 64_511);
    assert!(ADDRESSES.iter().all(|address| click(&mut connection, address) == host_of(&live, address)));
}

/// A node with a link of an offer for each country, and its places file.
fn start(places: &[u8], networks: Option<Vec<u8>>) -> (Node, PathBuf) {
    let mut setup = Setup::new()
        .flag("--geo")
        .flag("geo.mmdb")
        .flag("--trust-proxy")
        .flag("127.0.0.1")
        .setting("click_log.enabled = false");
    let file = setup.path().join("geo.mmdb");
    fs::write(&file, places).unwrap();
    if let Some(networks) = networks {
        fs::write(setup.path().join("asn.mmdb"), networks).unwrap();
        setup = setup.flag("--asn").flag("asn.mmdb");
    }
    let node = setup.start_ready();
    let link = json!({"affiliate_id": 7, "fallback_url": format!("https://{FALLBACK}/")});
    assert_eq!(node.create_link(link), 1);
    for country in COUNTRIES {
        let offer = node.create_offer(&format!("https://{}/", host(country)));
        let conditions = json!({"country": {"in": [country]}});
        node.post(
            "routing_rule.json",
            json!({"smart_link_id": 1, "offer_id": offer, "conditions": conditions}),
        );
    }
    node.refresh();
    (node, file)
}

/// The same networks in every edition, in other countries.
fn city_database(edition: usize) -> Vec<u8> {
    let mut writer = MmdbWriter::new(Metadata {
        database_type: "Test-City".to_owned(),
        record_bits: 28,
        ..Metadata::default()
    });
    let networks = ["192.0.2.0/24", "192.0.2.128/25", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"];
    for (nth, network) in networks.into_iter().enumerate() {
        let (country, city) = (COUNTRIES[(nth + edition) % COUNTRIES.len()], format!("City {nth}"));
        writer.insert(network.parse().unwrap(), &place(country, Some("CA"), Some(&city)));
    }
    writer.to_bytes()
}

fn asn_database(number: u32) -> Vec<u8> {
    let mut writer = MmdbWriter::new(Metadata {
        database_type: "Test-ASN".to_owned(),
        build_epoch: number.into(),
        ..Metadata::default()
    });
    let record = Value::map([("autonomous_system_number", Value::Uint32(number))]);
    writer.insert("192.0.2.0/24".parse().unwrap(), &record);
    writer.to_bytes()
}

fn host(country: &str) -> String {
    format!("{}.example.com", country.to_ascii_lowercase())
}

/// Where a visitor of this address goes, by this database.
fn host_of(database: &GeoDb, address: &str) -> String {
    let address: IpAddr = address.parse().unwrap();
    let country = database.lookup(address).hit().and_then(|place| place.country);
    let ours = country.and_then(|country| COUNTRIES.into_iter().find(|code| *code == country.to_string()));
    ours.map_or_else(|| FALLBACK.to_owned(), host)
}

fn click(connection: &mut Connection, address: &str) -> String {
    let answer = connection.ask(&Request::click("/sl?id=1&aff_id=7").with("X-Forwarded-For", address));
    assert_eq!(answer.status, 302, "{answer:?}");
    answer.destination().to_owned()
}

/// Databases that were loaded, and that were refused.
fn reloads(node: &Node) -> (u64, u64) {
    let metrics = node.metrics();
    let value = |result| metrics.value(&format!("smartlink_geo_reloads_total{{result=\"{result}\"}}"));
    (value("loaded"), value("failed"))
}

fn kind(error: &GeoDbError) -> &'static str {
    match error {
        GeoDbError::Packed { .. } => "packed",
        GeoDbError::Unreadable { .. } => "unreadable",
        GeoDbError::Damaged { .. } => "damaged",
        GeoDbError::WrongKind { .. } => "of the wrong kind",
    }
}

/// As whoever updates a database does it.
fn replace(path: &Path, bytes: &[u8]) {
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes).unwrap();
    fs::rename(&temporary, path).unwrap();
}

/// Visitors who click while databases come and go.
#[derive(Default)]
struct Load {
    clicks: AtomicU64,
    done: AtomicBool,
}

impl Load {
    /// Whatever the database, a click goes to a country's offer or to the fallback.
    fn click(&self, address: SocketAddr) {
        let mut connection = Connection::to(address);
        let hosts: BTreeSet<String> = COUNTRIES.map(host).into_iter().chain([FALLBACK.to_owned()]).collect();
        for visitor in ADDRESSES.into_iter().cycle() {
            if self.done.load(Ordering::Relaxed) {
                return;
            }
            let host = click(&mut connection, visitor);
            assert!(hosts.contains(&host), "{visitor}: {host}");
            self.clicks.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_micros(500));
        }
    }
}

/// Sends the visitors home, also when an assertion fails.
struct Ending<'a>(&'a Load);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::Relaxed);
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}
