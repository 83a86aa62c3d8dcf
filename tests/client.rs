//! The CAKE client against an upstream that changes while it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::header::{CONTENT_TYPE, ETAG};
use smartlink::cake::{Client, ClientOptions, FetchError, KeySource};

/// An upstream whose n-th answer carries the tag that `tag` gives, and the client for it.
async fn upstream(tag: fn(usize) -> Option<String>) -> (Client, Arc<AtomicUsize>, tempfile::TempDir) {
    let answered = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&answered);
    let router = Router::new().fallback(move || {
        let tag = tag(counter.fetch_add(1, Ordering::SeqCst));
        async move {
            let mut response = axum::response::Response::new(BODY.to_owned());
            response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().unwrap());
            if let Some(tag) = tag {
                response.headers_mut().insert(ETAG, format!("\"{tag}\"").parse().unwrap());
            }
            response
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "k").unwrap();
    let client = Client::new(ClientOptions {
        upstream: format!("http://{address}").parse().unwrap(),
        key: KeySource::File(key),
        call_timeout: Duration::from_secs(30),
        body_bytes_max: 1 << 20,
    });
    (client.unwrap(), answered, directory)
}

#[tokio::test]
async fn pages_of_different_states_are_read_again() {
    // The network changes between the second call and the third.
    let (client, answered, _key) =
        upstream(|answer| Some(if answer < 2 { "1" } else { "2" }.to_owned())).await;
    let network = client.network().await.unwrap();
    assert_eq!(network.smart_links.len(), 1);
    assert_eq!(answered.load(Ordering::SeqCst), 3 + LISTS, "a reading broken off, and a whole one");
}

#[tokio::test]
async fn a_network_that_never_stands_still_is_not_mixed() {
    let (client, answered, _key) = upstream(|answer| Some(answer.to_string())).await;
    let error = client.network().await.unwrap_err();
    assert!(matches!(error, FetchError::Changing { .. }), "{error}");
    assert!(error.to_string().contains("changed"), "{error}");
    assert_eq!(answered.load(Ordering::SeqCst), 5 * 2, "it gives up after five readings");
}

#[tokio::test]
async fn an_upstream_without_tags_is_read_once() {
    let (client, answered, _key) = upstream(|_| None).await;
    client.network().await.unwrap();
    assert_eq!(answered.load(Ordering::SeqCst), LISTS);
}

const LISTS: usize = 5;

const BODY: &str = r#"{"request_status":"Success","response":{"total_rows":1,
    "smart_links":[{"smart_link_id":301,"affiliate_id":67890,"smart_link_status":"active"}],
    "offers":[],"offer_geo_targets":[],"smart_link_offers":[],"routing_rules":[]}}"#;
