//! What a decision costs, targeting included: `cargo bench --bench decide`.
//!
//! Measured 2026-11-22 on a cloud VM of 2 cores that others were busy on (load 4 to 8): medians of seven runs, and in
//! brackets the quietest. Nanoseconds, by entries in the tier:
//!
//! ```text
//!                                       1         8          64           500
//! all open                          16 (15)   26 (24)     24 (21)       26 (23)
//! one in 10 open                    16 (14)   74 (71)   219 (199)     255 (235)
//!   … ten targetings in all         15 (15)   74 (69)    129 (92)     165 (106)
//! one in 100 open                   21 (15)  106 (74)   551 (414)   2230 (1900)
//! none open                         29 (20)  111 (75)   594 (410)   2960 (2130)
//!   … ten targetings in all         26 (19)  108 (73)    133 (90)      134 (85)
//! 8 entries, 2 open, any link of 1,000: 102 (82); of 100,000: 377 (289)
//! ```
//!
//! Later the same day, nothing beside it, one run, with caps:
//!
//! ```text
//!                                       8           500
//! no caps at all                       23
//! caps, but of other offers            26            27
//! every offer has one, all open        56            65
//!   … one in 10 open                  228           803
//!   … none open                       220        11,600
//! ```
//!
//! Of caps: 4 ns for a click on an offer without one, some 35 ns to see that one is open (the clock is read for it), and some
//! 12 ns more to charge it (`click`: 47 ns for all of it; 15 and 60 are wanted). Where hundreds of offers of one tier are full
//! at once, each is asked, at 23 ns.
//!
//! Conclusion: 150 ns for a tier of 8 and 450 ns for one of 500 hold while a tenth is open, and for any share where
//! entries repeat their targetings, because a pass asks each targeting once. They do not hold for hundreds of
//! different targetings of which next to none is open: a pass asks every one, at 4 to 6 ns each. Over 100,000 links
//! the time is that of cache misses.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use smartlink::routing::{
    Cap, CompileOptions, Condition, Entry, Link, Mode, NoCaps, Offer, Rotation, Snapshot, Table, ValueSet,
    Weight, Zone, compile, decide,
};
use smartlink::state::{CapBook, CapCells, Caps, FOREVER};
use smartlink::types::{
    AffiliateId, Browser, CapInterval, CapKey, CapKind, Click, Country, CountrySet, Device, DeviceKind, Draw,
    Language, LinkId, OfferId, Os, Place, RuleId, UnixMillis,
};

/// How much of a tier takes the click, one entry in …
#[derive(Clone, Copy)]
enum Open {
    All,
    OneIn(usize),
    None,
}

/// Whether entries share their targeting.
#[derive(Clone, Copy)]
enum Targeting {
    /// Each entry lists countries of its own.
    Distinct,
    /// Ten lists of countries over all entries.
    Shared,
}

fn decisions(c: &mut Criterion) {
    let shapes = [
        ("found", Open::All, Targeting::Distinct),
        ("one_in_10_open", Open::OneIn(10), Targeting::Distinct),
        ("one_in_10_open_shared", Open::OneIn(10), Targeting::Shared),
        ("one_in_100_open", Open::OneIn(100), Targeting::Distinct),
        ("targeted_out", Open::None, Targeting::Distinct),
        ("targeted_out_shared", Open::None, Targeting::Shared),
    ];
    for (name, open, targeting) in shapes {
        let mut group = c.benchmark_group(name);
        for entries in TIERS {
            let table = table(1, entries, open, targeting);
            group.bench_function(BenchmarkId::from_parameter(entries), |bencher| {
                let mut draws = Xoshiro256PlusPlus::seed_from_u64(SEED);
                let click = click(1);
                bencher.iter(|| decide(&table, &NoCaps, black_box(&click), Draw(draws.random())).outcome);
            });
        }
        group.finish();
    }
}

/// Links are asked at random, so that rows, tiers and entries come from far caches or from memory.
fn many_links(c: &mut Criterion) {
    let mut group = c.benchmark_group("one_in_4_open_of_8_over_links");
    for links in [1_000, 100_000] {
        let table = table(links, 8, Open::OneIn(4), Targeting::Shared);
        group.bench_function(BenchmarkId::from_parameter(links), |bencher| {
            let mut draws = Xoshiro256PlusPlus::seed_from_u64(SEED);
            let mut click = click(1);
            bencher.iter(|| {
                click.link = LinkId::new(draws.random_range(1..=links)).unwrap();
                decide(&table, &NoCaps, black_box(&click), Draw(draws.random())).outcome
            });
        });
    }
    group.finish();
}

/// What a node holds of the cap of the n-th offer; `None` if that has none.
type Tokens = fn(u32) -> Option<u64>;

/// Caps beside the table: offers that have none, that have one with clicks to spend, and a tier of which all but one in ten
/// offers are closed.
fn caps(c: &mut Criterion) {
    let mut group = c.benchmark_group("caps");
    let shapes: [(&str, Tokens); 4] = [
        ("of_other_offers", |_| None),
        ("open", |_| Some(1)),
        ("one_in_10_open", |index| Some(u64::from(index % 10 == 9))),
        ("none_open", |_| Some(0)),
    ];
    for (name, tokens) in shapes {
        for entries in [8, 500] {
            let table = table(1, entries, Open::All, Targeting::Distinct);
            let cells = CapCells::default();
            let book = book(&cells, entries as u32, tokens);
            group.bench_function(BenchmarkId::new(name, entries), |bencher| {
                let mut draws = Xoshiro256PlusPlus::seed_from_u64(SEED);
                let click = click(1);
                bencher.iter(|| {
                    let caps = Caps::spending(black_box(&book));
                    decide(&table, &caps, black_box(&click), Draw(draws.random())).outcome
                });
            });
        }
    }
    group.finish();
}

/// A daily cap on clicks for each offer that is to have one, with so many tokens; and for one that no link has.
fn book(cells: &CapCells, offers: u32, tokens: Tokens) -> CapBook {
    let key = |offer| CapKey {
        offer: OfferId::new(offer).unwrap(),
        affiliate: None,
        kind: CapKind::Click,
        interval: CapInterval::Daily,
    };
    let capped = (0..offers).filter(|&index| tokens(index).is_some()).map(|index| index + 1);
    let zone = Zone::parse("UTC").unwrap();
    let caps: Vec<Cap> = capped
        .chain([u32::MAX])
        .map(|offer| Cap { key: key(offer), amount: 1000, zone: zone.clone(), alert_only: false })
        .collect();
    let book = cells.book(&caps);
    for (key, cell) in cells.cells() {
        cell.begin_round(FOREVER);
        cell.add(tokens(key.offer.value() - 1).unwrap_or_default());
    }
    book
}

criterion_group!(benches, decisions, many_links, caps);
criterion_main!(benches);

fn table(links: u32, entries: usize, open: Open, targeting: Targeting) -> Table {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    let offer = |index: usize| OfferId::new(1 + index as u32).unwrap();
    let home = Country::parse("US").unwrap();
    let abroad: Vec<Country> = Country::all().filter(|&country| country != home).collect();
    let mut countries = |takes_home: bool| -> Condition {
        let mut set: CountrySet = (0..12).map(|_| abroad[random.random_range(0..abroad.len())]).collect();
        if takes_home {
            set.insert(home);
        }
        Condition::Value { mode: Mode::In, set: ValueSet::Country(set) }
    };
    let takes_home = |index: usize| match open {
        Open::All => true,
        // At least one, so that the click is taken.
        Open::OneIn(share) => index % share == share.min(entries) - 1,
        Open::None => false,
    };
    let shared: Vec<Condition> = (0..10).map(|index| countries(takes_home(index))).collect();
    let mut snapshot = Snapshot::default();
    for index in 0..entries {
        snapshot.offers.push(Offer {
            id: offer(index),
            active: true,
            expires_at: None,
            url: format!("https://shop{index}.example.com/?r={{click_id}}"),
            targeting: Vec::new(),
        });
    }
    for link in 1..=links {
        let link = LinkId::new(link).unwrap();
        snapshot.links.to_mut().push(Link {
            id: link,
            affiliate: AffiliateId::new(67890).unwrap(),
            active: true,
            rotation: Rotation::Weighted,
            cap_aware: true,
            fallback_url: None,
        });
        for index in 0..entries {
            let targeting = match targeting {
                Targeting::Distinct => countries(takes_home(index)),
                Targeting::Shared => shared[index % shared.len()].clone(),
            };
            snapshot.entries.to_mut().push(Entry {
                link,
                offer: offer(index),
                weight: Weight::new(1 + (index * 37 % 100) as u8).unwrap(),
                priority: 1,
                rule: RuleId::new(1 + index as u32),
                conditions: vec![targeting, desktop()].into(),
            });
        }
    }
    let (table, warnings) = compile(&snapshot, &CompileOptions::default());
    assert!(warnings.is_empty(), "{warnings:?}");
    table
}

/// A second condition, as rules have them; it holds for the click below.
fn desktop() -> Condition {
    let kinds = [DeviceKind::Desktop, DeviceKind::Mobile].into_iter().collect();
    Condition::Value { mode: Mode::In, set: ValueSet::Device(kinds) }
}

fn click(link: u32) -> Click<'static> {
    Click {
        link: LinkId::new(link).unwrap(),
        affiliate: AffiliateId::new(67890).unwrap(),
        at: UnixMillis(1_795_305_600_000),
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        place: Place { country: Country::parse("US"), ..Place::default() },
        device: Device { kind: DeviceKind::Desktop, os: Os::Windows, browser: Browser::Chrome, bot: false },
        language: Language::parse("en"),
        referrer_host: None,
        subs: [None; 5],
    }
}

const TIERS: [usize; 4] = [1, 8, 64, 500];

const SEED: u64 = 20_261_122;
