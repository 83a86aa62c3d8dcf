//! A table is replaced whole, under load: whatever a click sees, it sees of one generation.
//!
//! The edge runs in this process, so that a test can publish tables of its own as fast as it likes. Each generation
//! has its number in everything an answer is made of: the offer's id, its URL, and the URL's host.

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use http::HeaderValue;
use smartlink::click_id::ClickIdKeys;
use smartlink::edge::{
    self, ClickAddress, ClickOptions, ConversionOptions, Deadlines, Drained, Supplies, WhenLogIsFull,
    draw_node_identity,
};
use smartlink::ledger::conversion_desk;
use smartlink::lookup::GeoDb;
use smartlink::routing::{
    BotPolicy, CompileOptions, Entry, Link, NetSet, Offer, Rotation, Snapshot, Table, Weight, compile,
};
use smartlink::state::{Geo, LiveGeo, LiveTable, Metrics};
use smartlink::types::{AffiliateId, LinkId, OfferId, UnixMillis};
use support::http::{Answer, Connection, Request};
use support::node;
use support::wait;

/// How many tables are published while clients click.
const GENERATIONS: u64 = 800;

/// How many answers there are, at least, between two publishes, so that both happen at the same time all along.
const ANSWERS_A_GENERATION: u64 = 20;

const CLIENTS: usize = 6;

/// What the clients and the publisher know of each other.
#[derive(Default)]
struct Load {
    answered: AtomicU64,
    done: AtomicBool,
}

#[test]
fn every_answer_is_of_one_generation_and_generations_never_go_back() {
    let live = Arc::new(LiveTable::new(Table::empty(None, BotPolicy::Fallback)));
    let geo = Arc::new(LiveGeo::new(Geo { places: Some(GeoDb::demo().into()), networks: None }));
    let metrics = Arc::new(Metrics::new(100, Arc::clone(&live)));
    publish(&live, 1);
    let keys = ClickIdKeys::from_text("5a".repeat(32).as_bytes()).unwrap();
    let bound = edge::bind(options(), Vec::new()).unwrap();
    let address = bound.addresses()[0].address;
    let supplies = Supplies {
        click_id_keys: &keys,
        node: draw_node_identity().unwrap(),
        table: &live,
        geo: &geo,
        metrics: &metrics,
        conversions: &conversion_desk().0,
        click_logs: Vec::new(),
        certificate: None,
    };
    let edge = bound.start(supplies).unwrap();

    let load = Arc::new(Load::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let load = Arc::clone(&load);
            thread::spawn(move || click_alternately(address, &load))
        })
        .collect();
    let begun = Instant::now();
    for generation in 2..=GENERATIONS {
        let enough = load.answered.load(Ordering::Relaxed) + ANSWERS_A_GENERATION;
        wait::until("the clients to go on", || {
            let lost = clients.iter().any(thread::JoinHandle::is_finished);
            assert!(!lost, "a client ended before it was told to");
            (load.answered.load(Ordering::Relaxed) >= enough).then_some(())
        });
        publish(&live, generation);
        // Places are swapped apart from tables; a click that meets both swaps is right all the same.
        if generation.is_multiple_of(40) {
            geo.replace(Geo { places: Some(GeoDb::demo().into()), networks: None });
        }
    }
    let took = begun.elapsed();
    load.done.store(true, Ordering::Relaxed);
    let mut generations = HashSet::new();
    for client in clients {
        generations.extend(client.join().unwrap());
    }

    let answered = load.answered.load(Ordering::Relaxed);
    println!(
        "{answered} answers over {} generations, {:.0} publishes a second",
        generations.len(),
        GENERATIONS as f64 / took.as_secs_f64()
    );
    // A client may miss a generation; that most were met shows that publishing and clicking did overlap.
    assert!(generations.len() as u64 > GENERATIONS / 2, "only {} generations were seen", generations.len());
    assert!(generations.contains(&GENERATIONS), "what is published last is what is seen last");
    let counted = node::Metrics(metrics.text().unwrap());
    assert_eq!(counted.clicks("offer"), answered);
    assert_eq!(counted.sum("smartlink_clicks_total"), answered);
    assert_eq!(counted.sum("smartlink_offer_clicks_total"), answered);
    assert_eq!(counted.generation(), GENERATIONS);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    assert_eq!(runtime.block_on(edge.drain(Duration::ZERO, wait::DEADLINE)), Drained::Clean);
}

/// Clicks on both links in turn over one connection until told to stop, and once more: answers the generations met.
fn click_alternately(address: SocketAddr, load: &Load) -> HashSet<u64> {
    let clicks = LINKS.map(|link| (link, Request::click(&format!("/sl/{link}?aff_id=7")).to_bytes()));
    let mut connection = Connection::to(address);
    let (mut met, mut last) = (HashSet::new(), 0);
    loop {
        // Looked at first, so that a click follows that surely began after the last publish.
        let done = load.done.load(Ordering::Relaxed);
        for (link, click) in &clicks {
            let answer = connection.ask_raw(click);
            load.answered.fetch_add(1, Ordering::Relaxed);
            let generation = generation_of(&answer, *link);
            assert!(generation >= last, "generation {generation} after {last} on one connection");
            last = generation;
            met.insert(generation);
        }
        if done {
            return met;
        }
    }
}

/// The generation that an answer is of, after a look that all of it is.
fn generation_of(answer: &Answer, link: u32) -> u64 {
    let location = answer.location();
    let told = location.split_once("?g=").and_then(|(_, rest)| rest.split('&').next());
    let generation = told.and_then(|told| told.parse().ok());
    let generation = generation.unwrap_or_else(|| panic!("no generation in {location}"));
    assert_eq!(location, location_of(generation, link, &link_offer(generation, link).to_string()));
    generation
}

/// Both links exist in every generation, each with an offer of its own that no other generation has.
fn publish(live: &LiveTable, generation: u64) {
    let link = |id| Link {
        id: LinkId::new(id).unwrap(),
        affiliate: AffiliateId::new(7).unwrap(),
        active: true,
        rotation: Rotation::Weighted,
        cap_aware: true,
        fallback_url: None,
    };
    let offer = |link| Offer {
        id: OfferId::new(link_offer(generation, link)).unwrap(),
        active: true,
        expires_at: None,
        url: location_of(generation, link, "{offer_id}"),
        targeting: Vec::new(),
    };
    let entry = |link| Entry {
        link: LinkId::new(link).unwrap(),
        offer: OfferId::new(link_offer(generation, link)).unwrap(),
        weight: Weight::new(1).unwrap(),
        priority: 1,
        rule: None,
        conditions: Vec::new().into(),
    };
    let mut snapshot = Snapshot {
        links: LINKS.map(link).to_vec().into(),
        offers: LINKS.map(offer).into(),
        entries: LINKS.map(entry).to_vec().into(),
        ..Snapshot::default()
    };
    // Links of which there are more or fewer each time, so that indices differ between generations.
    let others = 1_000..1_000 + (generation % 50) as u32;
    snapshot.links.to_mut().extend(others.clone().map(link));
    snapshot
        .entries
        .to_mut()
        .extend(others.map(|other| Entry { link: LinkId::new(other).unwrap(), ..entry(LINKS[0]) }));
    if generation.is_multiple_of(2) {
        snapshot.offers.reverse();
    }
    let (table, warnings) = compile(&snapshot, &CompileOptions::default());
    assert_eq!(warnings, []);
    assert_eq!(
        live.publish(table, Arc::default(), generation.to_string(), UnixMillis(generation as i64)),
        generation
    );
}

/// In odd generations the first link has the greater offer id, so that the order of rows differs too.
fn link_offer(generation: u64, link: u32) -> u32 {
    generation as u32 * 10 + if generation.is_multiple_of(2) { link } else { 9 - link }
}

fn location_of(generation: u64, link: u32, offer: &str) -> String {
    format!("https://g{generation}.example.com/?g={generation}&l={link}&o={offer}")
}

fn options() -> edge::Options {
    edge::Options {
        listen: vec![ClickAddress {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: false,
            proxy_protocol: false,
        }],
        threads: 2,
        click: ClickOptions {
            trusted_proxies: NetSet::new([]),
            referrer_policy: HeaderValue::from_static("no-referrer"),
            when_log_is_full: WhenLogIsFull::Serve,
        },
        deadlines: Deadlines { header: LONG, idle: LONG, write: LONG },
        limits: edge::ConnectionLimits {
            connections: 1_000,
            per_address: None,
            requests: None,
            age: None,
            head: edge::HeadLimits::DEFAULT,
        },
        conversion: ConversionOptions { click_age_max: Duration::from_secs(86_400) },
    }
}

const LINKS: [u32; 2] = [1, 2];

/// No connection of this test is to be closed by a deadline.
const LONG: Duration = Duration::from_secs(600);
