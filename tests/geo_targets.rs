//! Geo targets from an upstream that lists them for one offer at a time: how many calls at once, and when it is
//! remembered that the list over all offers is not known there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, Uri};
use serde_json::json;
use smartlink::cake::wire::{OfferGeoTargets, SmartLinkOffer};
use smartlink::cake::{Client, ClientOptions, KeySource, Routing};
use tokio::sync::Barrier;

const OFFERS: i64 = 24;

const CALLS_AT_ONCE: usize = 8;

/// The action in the answer for one offer, and the one in the list of all, by which a test tells where they are from.
const OF_ONE: &str = "allow";
const OF_ALL: &str = "block";

#[tokio::test]
async fn many_offers_are_asked_for_eight_at_a_time() {
    // Every call waits until eight are there: fewer at once would never be answered, and more are counted.
    let together = Arc::new(Barrier::new(CALLS_AT_ONCE));
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&most);
    let (client, _key) = client(Router::new().fallback(move |uri: Uri| {
        let (together, open, most) = (Arc::clone(&together), Arc::clone(&open), Arc::clone(&counted));
        async move {
            if uri.path().ends_with("/offer_geo_targets.json") && uri.to_string().contains("offer_id=") {
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                together.wait().await;
                open.fetch_sub(1, Ordering::SeqCst);
            }
            answer(&uri, false)
        }
    }))
    .await;
    let network = client.network_with(routing()).await.unwrap().network;
    assert_eq!(network.offer_geo_targets.len(), OFFERS as usize);
    assert_eq!(most.load(Ordering::SeqCst), CALLS_AT_ONCE);
}

#[tokio::test]
async fn a_list_over_all_offers_that_is_missing_for_a_moment_is_asked_for_again() {
    let away = Arc::new(AtomicBool::new(true));
    let is_away = Arc::clone(&away);
    let (client, _key) = client(Router::new().fallback(move |uri: Uri| {
        // As from a proxy whose upstream is just being replaced.
        let geo = uri.path().ends_with("/offer_geo_targets.json");
        let missing = geo && is_away.load(Ordering::SeqCst);
        async move { if missing { (StatusCode::NOT_FOUND, String::new()) } else { answer(&uri, true) } }
    }))
    .await;
    let error = client.network_with(routing()).await.unwrap_err().to_string();
    assert!(error.starts_with("offer_geo_targets.json: HTTP 404"), "{error}");
    away.store(false, Ordering::SeqCst);
    let network = client.network_with(routing()).await.unwrap().network;
    assert_eq!(network.offer_geo_targets.len(), OFFERS as usize);
    let is_listed = |targets: &OfferGeoTargets| targets.geo_targets[0].action == OF_ALL;
    assert!(network.offer_geo_targets.iter().all(is_listed), "{network:?}");
}

/// What the upstream answers, in CAKE's dialect; the list over all offers only if it knows that.
fn answer(uri: &Uri, knows_all: bool) -> (StatusCode, String) {
    let targets = |action: &str| json!([{"country_code": "GB", "action": action}]);
    let mut answer = match uri.path().rsplit('/').next().unwrap_or_default() {
        "offers.json" => {
            let offer = |id| json!({"offer": {"offer_id": id, "offer_status": "active"}});
            json!({"offers": (1..=OFFERS).map(offer).collect::<Vec<_>>()})
        }
        "smart_links.json" => json!({"smart_links": []}),
        "offer_geo_targets.json" => {
            let offer = uri.query().and_then(|query| query.split("offer_id=").nth(1));
            match offer {
                Some(offer) => {
                    json!({"offer_id": offer.parse::<i64>().unwrap(), "geo_targets": targets(OF_ONE)})
                }
                None if knows_all => {
                    let of_one = |id| json!({"offer_id": id, "geo_targets": targets(OF_ALL)});
                    json!({"offer_geo_targets": (1..=OFFERS).map(of_one).collect::<Vec<_>>()})
                }
                None => return (StatusCode::UNPROCESSABLE_ENTITY, String::new()),
            }
        }
        _ => return (StatusCode::NOT_FOUND, String::new()),
    };
    answer["request_status"] = "Success".into();
    (StatusCode::OK, answer.to_string())
}

/// Every offer on link 1.
fn routing() -> Routing {
    let entry = |offer_id| SmartLinkOffer { smart_link_id: 1, offer_id, offer_weight: 1, priority: 1 };
    Routing {
        smart_link_offers: (1..=OFFERS).map(|offer| entry(offer).read().unwrap()).collect(),
        routing_rules: Vec::new(),
        offer_caps: Vec::new(),
    }
}

/// A client of an upstream that is made of this router.
async fn client(router: Router) -> (Client, tempfile::TempDir) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "canary-of-the-key").unwrap();
    let client = Client::new(ClientOptions {
        upstream: format!("http://{address}").parse().unwrap(),
        key: KeySource::File(key),
        call_timeout: Duration::from_secs(30),
        body_bytes_max: 1 << 20,
        rows_max: smartlink::cake::ROWS_MAX,
        ca_file: None,
    });
    (client.unwrap(), directory)
}
