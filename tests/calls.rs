//! Any call of a CAKE API over a real socket: where the key goes, and what is bounded.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use http::{HeaderMap, Method, Uri};
use serde_json::{Map, Value, json};
use smartlink::cake::{CallError, Client, ClientOptions, KeySource};

const KEY: &str = "canary-of-the-key";

/// What the upstream was sent, each time: method, path with query, head, body.
type Seen = Arc<Mutex<Vec<(Method, String, HeaderMap, String)>>>;

/// An upstream that answers every call so, and a client for it that takes answers of at most 1000 bytes.
async fn upstream(answer: String) -> (Client, Seen, tempfile::TempDir) {
    upstream_with(answer, |_| HeaderMap::new()).await
}

/// The same, with headers that go by how many calls came before.
async fn upstream_with(answer: String, head: fn(usize) -> HeaderMap) -> (Client, Seen, tempfile::TempDir) {
    let seen = Seen::default();
    let record = Arc::clone(&seen);
    let router = Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
        let body = String::from_utf8(body.to_vec()).unwrap();
        let mut seen = record.lock().unwrap();
        let head = head(seen.len());
        seen.push((method, uri.to_string(), headers, body));
        async move { (head, answer) }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, KEY).unwrap();
    let client = Client::new(ClientOptions {
        upstream: format!("http://{address}/cake").parse().unwrap(),
        key: KeySource::File(key),
        call_timeout: Duration::from_secs(30),
        body_bytes_max: 1000,
        ca_file: None,
        rows_max: 1_000_000,
    });
    (client.unwrap(), seen, directory)
}

fn fields() -> Map<String, Value> {
    json!({"offer_id": 7, "offer_name": "a & b"}).as_object().unwrap().clone()
}

#[tokio::test]
async fn the_key_is_where_cake_wants_it() {
    let (client, seen, _directory) = upstream(r#"{"request_status":"Success","b":1,"a":2}"#.to_owned()).await;
    let read = client.read("offers.json", &fields()).await.unwrap();
    assert_eq!(read.text, r#"{"request_status":"Success","b":1,"a":2}"#);
    client.write("offer.json", fields()).await.unwrap();
    let told = Arc::new(Mutex::new(0));
    let count = Arc::clone(&told);
    let long = "x".repeat(600_000);
    let add = Arc::new(move |bytes| *count.lock().unwrap() += bytes);
    client.send("import_network.json", long.clone().into(), add).await.unwrap();

    let seen = seen.lock().unwrap();
    let (method, uri, _, body) = &seen[0];
    let query = format!("/cake/api/2/offers.json?api_key={KEY}&offer_id=7&offer_name=a+%26+b");
    assert_eq!((method, uri, body.as_str()), (&Method::GET, &query, ""));
    let (method, uri, headers, body) = &seen[1];
    assert_eq!((method, uri.as_str()), (&Method::POST, "/cake/api/2/offer.json"));
    assert_eq!(headers["content-type"], "application/json");
    let sent: Value = serde_json::from_str(body).unwrap();
    assert_eq!(sent, json!({"api_key": KEY, "offer_id": 7, "offer_name": "a & b"}));
    let (_, uri, headers, body) = &seen[2];
    assert_eq!((uri.as_str(), body), ("/cake/api/2/import_network.json", &long));
    assert_eq!(headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(*told.lock().unwrap(), long.len());
}

#[tokio::test]
async fn an_answer_is_bounded_and_an_error_shows_no_key() {
    let long = format!(r#"{{"request_status":"Success","x":"{}"}}"#, "x".repeat(1000));
    let errors = format!(r#"[{{"parameter":"{KEY}","problem":"is {KEY}"}}]"#);
    let refused = format!(r#"{{"request_status":"Error","message":"{KEY} is wrong","errors":{errors}}}"#);
    for (answer, said) in [(long, "over 1000 bytes"), (refused, "… is wrong (HTTP 200)")] {
        let (client, _, _directory) = upstream(answer).await;
        for error in [
            client.read("offers.json", &fields()).await.unwrap_err(),
            client.write("offer.json", fields()).await.unwrap_err(),
        ] {
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(said) && !shown.contains(KEY), "{shown}");
        }
    }
}

#[tokio::test]
async fn pages_that_do_not_end_are_left_at_the_limit() {
    let rows = r#"{"request_status":"Success","response":{"offers":[{"a":1},{"a":2},{"a":3}]}}"#;
    let (client, seen, _directory) = upstream(rows.to_owned()).await;
    let read = client.rows("offers.json", "offers", &Map::new(), Some(2), |_| ()).await.unwrap();
    assert_eq!((read.rows.len(), seen.lock().unwrap().len()), (2, 1));
    let none = client.rows("offers.json", "links", &Map::new(), None, |_| ()).await.unwrap_err();
    assert!(matches!(none, CallError::Foreign { .. }), "{none}");
}

/// A proxy or a real CAKE may name each answer (`ETag`): that says nothing of the network.
#[tokio::test]
async fn the_state_of_the_network_is_told_by_its_own_header_alone() {
    let answer =
        json!({"request_status": "Success", "response": {"offers": [], "total_rows": 0}}).to_string();
    let head = |nth: usize| {
        let tag = (http::header::ETAG, format!("\"answer-{nth}\"").parse().unwrap());
        let state = (http::HeaderName::from_static("smartlink-revision"), "5f0c".parse().unwrap());
        [tag].into_iter().chain((nth > 0).then_some(state)).collect()
    };
    let (client, seen, _directory) = upstream_with(answer, head).await;
    let read = async || client.rows("offers.json", "offers", &Map::new(), None, |_| ()).await.unwrap().state;
    assert_eq!(read().await, None);
    let state = read().await;
    assert_eq!(state.as_ref().unwrap(), "5f0c");
    client.write_in(state.as_ref(), "offer.json", fields()).await.unwrap();
    client.write("offer.json", fields()).await.unwrap();
    let seen = seen.lock().unwrap();
    let tag = |nth: usize| seen[nth].2.get("if-match").map(|tag| tag.to_str().unwrap());
    assert_eq!((tag(2), tag(3)), (Some("\"5f0c\""), None));
}
