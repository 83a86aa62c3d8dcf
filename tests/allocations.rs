//! What a click allocates in our own code, pinned: nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::request::Parts;
use serde_json::json;
use smartlink::cake::Network;
use smartlink::click_id::{ClickIdKeys, NodeIdentity, WorkerIndex};
use smartlink::clicklog::{AddressDetail, ClickLogs, StorageOptions};
use smartlink::edge::{ClickIds, ClickOptions, Request, WhenLogIsFull, Worker, handle};
use smartlink::lookup::GeoDb;
use smartlink::routing::{BotPolicy, CompileOptions, NetSet, Table, Zone, compile};
use smartlink::state::{Geo, LiveGeo, LiveTable, Metrics, now};

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, bytes) }
    }
}

fn count() {
    // A thread that ends has no count any more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_click_allocates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let options = StorageOptions {
        directory: directory.path().to_owned(),
        segment_bytes: 4 * 1024 * 1024,
        seal_after: Duration::from_secs(3600),
        sync_every: Duration::from_secs(3600),
        keep_bytes: u64::MAX,
        keep_for: Duration::from_secs(3600),
        addresses: AddressDetail::Full,
    };
    let (_logs, mut logs) = ClickLogs::start(options, &[7; 16], "node", 1).unwrap();
    let live = Arc::new(LiveTable::new(Table::empty(None, BotPolicy::Fallback)));
    let network = network();
    let (snapshot, warnings) = network.to_snapshot(&Zone::parse("UTC").unwrap());
    assert_eq!(warnings, []);
    let (table, warnings) = compile(&snapshot, &CompileOptions::default());
    assert_eq!(warnings, []);
    live.publish(table, Arc::default(), "a".to_owned(), now());
    let geo = LiveGeo::new(Geo { places: Some(GeoDb::demo().into()), networks: None });
    let metrics = Metrics::new(10, Arc::clone(&live));
    let click = ClickOptions {
        trusted_proxies: NetSet::new([]),
        referrer_policy: HeaderValue::from_static("no-referrer"),
        when_log_is_full: WhenLogIsFull::Refuse,
    };
    let keys = ClickIdKeys::from_text("5a".repeat(32).as_bytes()).unwrap();
    let ids = ClickIds::new(keys, NodeIdentity::new(1), WorkerIndex::new(0).unwrap());
    let mut worker = Worker::new(Arc::new(click), ids, logs.pop(), &live, &geo, &metrics).unwrap();

    for (case, target, allocations) in [
        ("an offer", "/sl?id=301&aff_id=67890", 0),
        ("by a rule", "/sl?id=302&aff_id=67890", 0),
        ("with a sub id", "/sl?id=301&aff_id=67890&s1=banner-7", 0),
        // One for the text with spaces in place of `+`, one for the decoded one.
        ("with an encoded sub id", "/sl?id=301&aff_id=67890&s1=summer+sale", 2),
        ("to the fallback", "/sl?id=303&aff_id=67890", 0),
        ("nowhere, with a sentence", "/sl?id=9&aff_id=67890", 0),
        ("malformed", "/sl?id=x&aff_id=67890", 0),
    ] {
        let request = parts(target);
        let mut most = 0;
        for round in 0..100 {
            let before = ALLOCATIONS.get();
            let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, round));
            std::hint::black_box(handle(&mut worker, &Request::from(&request), peer, now()));
            let took = ALLOCATIONS.get() - before;
            // The first of a kind fills caches, and asks for series of its own.
            if round > 0 {
                most = most.max(took);
            }
        }
        assert_eq!(most, allocations, "{case}");
    }
}

fn network() -> Network {
    let link = |id: u32| {
        json!({"smart_link_id": id, "affiliate_id": 67890, "smart_link_status": "active",
            "fallback_url": "https://www.example.com/none?link={smart_link_id}"})
    };
    serde_json::from_value(json!({
        "smart_links": [link(301), link(302), link(303)],
        "offers": [{"offer_id": 1, "offer_status": "active",
            "offer_url": "https://shop.example.com/?aff=#affid#&sub={sub_id}&r=#reqid#&c={country}&ip=#ip#&d={device}"}],
        "offer_geo_targets": [],
        "smart_link_offers": [{"smart_link_id": 301, "offer_id": 1, "offer_weight": 60, "priority": 1}],
        "routing_rules": [{"rule_id": 1, "smart_link_id": 302, "offer_id": 1, "priority": 1, "offer_weight": 1,
            "conditions": {"device": {"in": ["mobile"]}, "referrer_host": {"in": ["*.example.org"]},
                "language": {"in": ["en"]}}}],
    }))
    .unwrap()
}

fn parts(target: &str) -> Parts {
    let request = http::Request::get(target)
        .header("host", "go.example.com")
        .header("user-agent", "Mozilla/5.0 (Linux; Android 10; K) Chrome/142.0.0.0 Mobile Safari/537.36")
        .header("sec-ch-ua-mobile", "?1")
        .header("accept-language", "en-GB,en;q=0.9")
        .header("referer", "https://news.example.org/article?page=2");
    request.body(()).unwrap().into_parts().0
}
