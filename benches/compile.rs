//! What a snapshot costs: time to compile it, and the memory of the table: `cargo bench --bench compile`.
//!
//! Measured 2026-11-22 on a cloud VM of 2 cores that others were busy on (load 4 to 8): medians of seven runs. Bytes
//! are by the counting allocator below and do not vary; `heap_bytes` is 16 bytes short of them, whatever the size.
//!
//! ```text
//! links    entries   time      entries a second   table     at the peak, snapshot not counted
//!   1,000    4,000   2.2 ms    1.8 million         0.5 MB     0.9 MB
//!  10,000   40,000    14 ms    2.8 million         3.2 MB     6.0 MB
//! 100,000  400,000   205 ms    1.9 million        25.4 MB    37.2 MB
//! ```
//!
//! Conclusion: twice the wanted million entries a second, and well under the wanted 60 MB, also while compiling. While
//! a new table replaces the old one, both are there.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use smartlink::routing::{
    Attachment, CompileOptions, Condition, Entry, Link, Mode, Offer, Rotation, Snapshot, ValueSet, Weight,
    compile,
};
use smartlink::types::{AffiliateId, Country, DeviceKind, LinkId, OfferId, RuleId};

fn compiles(c: &mut Criterion) {
    let mut group = c.benchmark_group("compile");
    group.sample_size(10).measurement_time(Duration::from_secs(8));
    for links in [1_000, 10_000, 100_000] {
        let snapshot = snapshot(links);
        weigh(links, &snapshot);
        group.throughput(Throughput::Elements((snapshot.attachments.len() + snapshot.entries.len()) as u64));
        group.bench_function(BenchmarkId::from_parameter(links), |bencher| {
            bencher.iter_with_large_drop(|| compile(black_box(&snapshot), &CompileOptions::default()));
        });
    }
    group.finish();
}

criterion_group!(benches, compiles);
criterion_main!(benches);

/// Says how large the table is, by its own account and by the allocator's.
fn weigh(links: u32, snapshot: &Snapshot<'_>) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let (table, warnings) = compile(snapshot, &CompileOptions::default());
    assert!(warnings.is_empty(), "{warnings:?}");
    drop(warnings);
    let (live, peak) = (LIVE.load(Ordering::Relaxed) - before, PEAK.load(Ordering::Relaxed) - before);
    println!(
        "{links} links, {} entries: heap_bytes {}, allocated {live}, at the peak {peak}",
        table.entries(),
        table.heap_bytes(),
    );
}

/// Four entries a link over 500 offers: two attachments and two rules, in two tiers. A third of the offers has geo
/// targets; rules pick a few countries and a kind of device. Items come as the upstream lists them, by id.
fn snapshot(links: u32) -> Snapshot<'static> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    let countries: Vec<Country> = Country::all().collect();
    let mut snapshot = Snapshot::default();
    for id in 1..=OFFERS {
        let geo = (id % 3 == 0).then(|| some_countries(&mut random, &countries, 20));
        snapshot.offers.push(Offer {
            id: OfferId::new(id).unwrap(),
            active: true,
            expires_at: None,
            url: format!(
                "https://shop{id}.example.com/landing?aff={{affiliate_id}}&r={{click_id}}&sub={{s1}}"
            ),
            targeting: geo.into_iter().collect(),
        });
    }
    let mut rules = Vec::new();
    let mut rule = 0;
    for id in 1..=links {
        let link = LinkId::new(id).unwrap();
        snapshot.links.to_mut().push(Link {
            id: link,
            affiliate: AffiliateId::new(1 + id % 1000).unwrap(),
            active: true,
            rotation: Rotation::Weighted,
            cap_aware: true,
            fallback_url: None,
        });
        let first = random.random_range(1..=OFFERS);
        let entry = |nth: u32, priority, rule, conditions: Vec<Condition>| Entry {
            link,
            offer: OfferId::new(1 + (first + nth) % OFFERS).unwrap(),
            weight: Weight::new(1 + (first * 7 + nth * 31) as u8 % 100).unwrap(),
            priority,
            rule,
            conditions: conditions.into(),
        };
        for nth in [0, 1] {
            let Entry { offer, weight, priority, .. } = entry(nth, 2, None, Vec::new());
            snapshot.attachments.to_mut().push(Attachment { link, offer, priority, weight });
        }
        for nth in [2, 3] {
            rule += 1;
            // Rules are written by people: the same few hundred over and over.
            let mut own = Xoshiro256PlusPlus::seed_from_u64(random.random_range(0..300));
            let device = [DeviceKind::Mobile, DeviceKind::Tablet].into_iter().collect();
            let conditions = vec![
                some_countries(&mut own, &countries, 3),
                Condition::Value { mode: Mode::NotIn, set: ValueSet::Device(device) },
            ];
            rules.push(entry(nth, 1, RuleId::new(rule), conditions));
        }
    }
    snapshot.entries.to_mut().append(&mut rules);
    snapshot
}

fn some_countries(random: &mut Xoshiro256PlusPlus, all: &[Country], count: usize) -> Condition {
    let set = (0..count).map(|_| all[random.random_range(0..all.len())]).collect();
    Condition::Value { mode: Mode::In, set: ValueSet::Country(set) }
}

/// The system's allocator, counting the bytes that are live and the most there ever were.
struct Counting;

// SAFETY: every call is passed on unchanged; counting touches two atomics and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Relaxed: the counts are read by the thread that allocates.
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

const OFFERS: u32 = 500;

const SEED: u64 = 20_261_122;
