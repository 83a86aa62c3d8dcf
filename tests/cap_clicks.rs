//! Clicks and caps, through the handler and without sockets: who spends, who is passed over, and that no click is sent to an
//! offer beyond what was granted.

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::thread;

use http::HeaderValue;
use http::request::Parts;
use smartlink::admin::{ExplainQuery, explain};
use smartlink::click_id::{ClickIdKeys, NodeIdentity, WorkerIndex};
use smartlink::edge::{Answer, ClickIds, ClickOptions, Request, WhenLogIsFull, Worker, handle};
use smartlink::lookup::GeoDb;
use smartlink::routing::{
    Attachment, BotPolicy, Cap, CompileOptions, Link, NetSet, Offer, Rotation, Snapshot, Table, Weight, Zone,
    compile,
};
use smartlink::state::{CapCell, CapCells, FOREVER, Geo, LiveGeo, LiveTable, Metrics, now};
use smartlink::types::{AffiliateId, CapInterval, CapKey, CapKind, LinkId, OfferId, UnixMillis};
use support::node;

#[test]
fn a_cap_takes_its_clicks_and_the_next_offer_the_others() {
    let edge = Edge::new(&network(true), &[cap(1, None, CapInterval::Daily)]);
    let cell = edge.grant(1, 3);
    let mut worker = edge.worker(0);
    let went: Vec<String> = (0..5).map(|_| click(&mut worker, "GET", "301", PERSON)).collect();
    assert_eq!(went, ["o1", "o1", "o1", "o2", "o2"]);
    assert!(cell.missed(), "the keeper hears that there was more to spend");
    edge.grant(1, 1);
    assert_eq!(click(&mut worker, "GET", "301", PERSON), "o1");
    assert_eq!(edge.count("offer"), 6);
}

#[test]
fn where_every_cap_is_full_the_click_is_capped() {
    let caps = [cap(1, None, CapInterval::Daily), cap(2, Some(7), CapInterval::Monthly)];
    let edge = Edge::new(&network(true), &caps);
    let mut worker = edge.worker(0);
    assert_eq!(click(&mut worker, "GET", "301", PERSON), "fallback");
    assert_eq!((edge.count("capped"), edge.count("offer"), edge.count("no_match")), (1, 0, 0));
    // Without a cap, the very next click.
    edge.live.publish_caps(Arc::default(), "b".to_owned(), UnixMillis(2));
    assert_eq!(click(&mut worker, "GET", "301", PERSON), "o1");
    assert_eq!(edge.live.current().generation, 2);
}

#[test]
fn probes_and_bots_see_the_decision_and_spend_nothing() {
    let edge = Edge::new(&network(true), &[cap(1, None, CapInterval::Daily)]);
    let cell = edge.grant(1, 1);
    let mut worker = edge.worker(0);
    for _ in 0..3 {
        assert_eq!(click(&mut worker, "HEAD", "301", PERSON), "o1");
        assert_eq!(click(&mut worker, "GET", "301", BOT), "o1");
    }
    assert_eq!((cell.tokens(), edge.count("probe"), edge.count("bot")), (1, 3, 3));
    assert_eq!(click(&mut worker, "GET", "301", PERSON), "o1");
    for (method, agent) in [("HEAD", PERSON), ("GET", BOT)] {
        assert_eq!(click(&mut worker, method, "301", agent), "o2");
    }
    assert!(!cell.missed(), "nobody asks for clicks that a probe would spend");
}

#[test]
fn a_link_that_is_not_aware_of_caps_neither_heeds_nor_spends_them() {
    let edge = Edge::new(&network(false), &[cap(1, None, CapInterval::Daily)]);
    let cell = edge.grant(1, 1);
    let mut worker = edge.worker(0);
    for _ in 0..3 {
        assert_eq!(click(&mut worker, "GET", "301", PERSON), "o1");
    }
    assert_eq!(cell.tokens(), 1);
}

#[test]
fn a_click_whose_destination_is_too_long_is_given_back() {
    let mut network = network(true);
    network.offers[0].url =
        "https://o1.example/?s={s1}{s1}{s1}{s1}{s1}{s1}{s1}{s1}{s1}{s1}{s1}{s1}".to_owned();
    let edge = Edge::new(&network, &[cap(1, None, CapInterval::Daily), cap(1, Some(7), CapInterval::Weekly)]);
    let cell = edge.grant(1, 2);
    let mut worker = edge.worker(0);
    let long = format!("301&s1={}", "%C3%A4".repeat(120));
    assert_eq!(click(&mut worker, "GET", &long, PERSON), "fallback");
    assert_eq!((cell.tokens(), edge.count("location_too_long")), (2, 1));
    assert_eq!(click(&mut worker, "GET", "301", PERSON), "o1");
    assert_eq!(cell.tokens(), 1);
}

#[test]
fn explain_names_the_caps_that_are_closed_and_spends_nothing() {
    let caps = [
        cap(1, None, CapInterval::Daily),
        cap(1, Some(7), CapInterval::Monthly),
        cap(2, None, CapInterval::Weekly),
    ];
    let edge = Edge::new(&network(true), &caps);
    let cell = edge.grant(2, 1);
    let query =
        ExplainQuery { id: Some("301".to_owned()), aff_id: Some("7".to_owned()), ..ExplainQuery::default() };
    let ask = || explain(&query, &edge.live.current(), &edge.geo.current()).unwrap();
    assert_eq!((ask().outcome.as_str(), ask().offer_id, cell.tokens()), ("offer", Some(2), 1));
    let tiers = ask().tiers;
    let (closed, open) = (&tiers[0].entries[0], &tiers[1].entries[0]);
    assert_eq!((closed.eligible, closed.open, closed.chosen), (true, false, false));
    assert_eq!((open.eligible, open.open, open.chosen), (true, true, true));
    let told = serde_json::to_value(&closed.closed_caps).unwrap();
    let named = |affiliate: Option<u32>, interval: &str| {
        serde_json::json!({"offer_id": 1, "affiliate_id": affiliate,
            "cap_type": "click", "cap_interval": interval, "reason": "unknown"})
    };
    assert_eq!(told, serde_json::json!([named(None, "daily"), named(Some(7), "monthly")]));
    let of = |reason: &str, other: &str| {
        format!(
            "closed by the daily click cap of offer 1 ({reason}) and the monthly click cap of offer 1 for affiliate 7 \
             ({other})"
        )
    };
    let unknown = "this node holds no clicks of it, and no ledger has told it yet how the cap stands";
    assert_eq!(closed.failed, Some(of(unknown, unknown)));
    // One is known to be open, and the other to be full.
    edge.cells.cell(caps[0].key).unwrap().close_until(0);
    edge.cells.cell(caps[1].key).unwrap().close_until(FOREVER);
    let told = &ask().tiers[0].entries[0];
    let reasons: Vec<&str> = told.closed_caps.iter().map(|cap| cap.reason.as_str()).collect();
    assert_eq!(reasons, ["no_lease", "full"]);
    let no_lease = "not known to be full, but this node holds no clicks of it at the moment";
    assert_eq!(told.failed, Some(of(no_lease, "full")));
    assert_eq!((open.failed.as_deref(), open.closed_caps.len()), (None, 0));
    assert!(edge.cells.cells().iter().all(|(_, cell)| !cell.missed()));
}

/// Threads click while a writer grants, takes back and begins new rounds, as a lease keeper does.
#[test]
fn no_click_is_sent_beyond_what_was_granted() {
    const THREADS: usize = 4;
    const CLICKS: usize = 4_000;
    // Two caps, so that a click may get a token of one and none of the other.
    let caps = [cap(1, None, CapInterval::Daily), cap(1, Some(7), CapInterval::Lifetime)];
    let edge = Arc::new(Edge::new(&network(true), &caps));
    let threads: Vec<_> = (0..THREADS)
        .map(|index| {
            let mut worker = edge.worker(index);
            thread::spawn(move || {
                (0..CLICKS).filter(|_| click(&mut worker, "GET", "301", PERSON) == "o1").count() as u64
            })
        })
        .collect();
    let cells: Vec<Arc<CapCell>> = edge.cells.cells().into_iter().map(|(_, cell)| cell).collect();
    let (mut granted, mut returned) = ([0, 0], [0, 0]);
    let mut step = 0;
    while !threads.iter().all(thread::JoinHandle::is_finished) {
        step += 1;
        for (index, cell) in cells.iter().enumerate() {
            match (step + index) % 7 {
                0 => returned[index] += cell.begin_round(FOREVER),
                3 => returned[index] += cell.drain(),
                _ => granted[index] += cell.add(5 + index as u64),
            }
        }
        thread::yield_now();
    }
    let sent: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    for (index, cell) in cells.iter().enumerate() {
        let spent = granted[index] - returned[index] - cell.tokens();
        println!("{sent} sent, {spent} spent of {} granted", granted[index]);
        // More were spent only where a token was given back to a round that was over.
        assert!(sent <= spent);
    }
    assert!(sent > 0);
    assert_eq!(edge.count("offer"), (THREADS * CLICKS) as u64);
}

/// What a worker needs, and what it counts.
struct Edge {
    live: Arc<LiveTable>,
    cells: CapCells,
    geo: LiveGeo,
    metrics: Metrics,
}

impl Edge {
    fn new(network: &Snapshot<'_>, caps: &[Cap]) -> Self {
        let options = CompileOptions { bots: BotPolicy::Route, ..CompileOptions::default() };
        let (table, warnings) = compile(network, &options);
        assert_eq!(warnings, []);
        let live = Arc::new(LiveTable::new(Table::empty(None, BotPolicy::Fallback)));
        let cells = CapCells::default();
        live.publish(table, Arc::new(cells.book(caps)), "a".to_owned(), UnixMillis(1));
        let geo = LiveGeo::new(Geo { places: Some(GeoDb::demo().into()), networks: None });
        let metrics = Metrics::new(10, Arc::clone(&live));
        Self { live, cells, geo, metrics }
    }

    fn worker(&self, index: usize) -> Worker {
        let options = ClickOptions {
            trusted_proxies: NetSet::new([]),
            referrer_policy: HeaderValue::from_static("no-referrer"),
            when_log_is_full: WhenLogIsFull::Serve,
        };
        let keys = ClickIdKeys::from_text("5a".repeat(32).as_bytes()).unwrap();
        let ids = ClickIds::new(keys, NodeIdentity::new(1), WorkerIndex::new(index).unwrap());
        Worker::new(Arc::new(options), ids, None, &self.live, &self.geo, &self.metrics).unwrap()
    }

    /// Grants so many clicks of every cap of an offer, and answers the cell of the first.
    fn grant(&self, offer: u32, clicks: u64) -> Arc<CapCell> {
        let cells = self.cells.cells().into_iter().filter(|(key, _)| key.offer.value() == offer);
        let cells: Vec<_> = cells.map(|(_, cell)| cell).collect();
        for cell in &cells {
            cell.begin_round(FOREVER);
            cell.add(clicks);
        }
        Arc::clone(&cells[0])
    }

    fn count(&self, outcome: &str) -> u64 {
        node::Metrics(self.metrics.text().unwrap()).clicks(outcome)
    }
}

/// Link 301 of affiliate 7: offer 1 before offer 2, before its fallback.
fn network(cap_aware: bool) -> Snapshot<'static> {
    let link = LinkId::new(301).unwrap();
    let offer = |id| OfferId::new(id).unwrap();
    Snapshot {
        links: vec![Link {
            id: link,
            affiliate: AffiliateId::new(7).unwrap(),
            active: true,
            rotation: Rotation::Weighted,
            cap_aware,
            fallback_url: Some("https://fallback.example/".into()),
        }]
        .into(),
        offers: [1, 2]
            .map(|id| Offer {
                id: offer(id),
                active: true,
                expires_at: None,
                url: format!("https://o{id}.example/"),
                targeting: Vec::new(),
            })
            .into(),
        attachments: [1, 2]
            .map(|id| Attachment { link, offer: offer(id), priority: id, weight: Weight::new(1).unwrap() })
            .to_vec()
            .into(),
        ..Snapshot::default()
    }
}

fn cap(offer: u32, affiliate: Option<u32>, interval: CapInterval) -> Cap {
    let key = CapKey {
        offer: OfferId::new(offer).unwrap(),
        affiliate: affiliate.and_then(AffiliateId::new),
        kind: CapKind::Click,
        interval,
    };
    Cap { key, amount: 1_000, zone: Zone::parse("UTC").unwrap(), alert_only: false }
}

/// The first label of the host that a click is sent to.
fn click(worker: &mut Worker, method: &str, link: &str, agent: &str) -> String {
    let (parts, peer) = (request(method, link, agent), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
    let answer = handle(worker, &Request::from(&parts), peer, now());
    let Answer::Redirect { location, .. } = answer else { panic!("{answer:?}") };
    let location = std::str::from_utf8(location).unwrap();
    let host = location.strip_prefix("https://").and_then(|rest| rest.split('.').next());
    host.unwrap_or_else(|| panic!("sent to {location}")).to_owned()
}

fn request(method: &str, link: &str, agent: &str) -> Parts {
    let request = http::Request::builder().method(method).uri(format!("/sl?aff_id=7&id={link}"));
    let request = request.header("host", "go.example.com").header("user-agent", agent);
    request.body(()).unwrap().into_parts().0
}

const PERSON: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                      Chrome/142.0.0.0 Safari/537.36";

const BOT: &str = "curl/8.5.0";
