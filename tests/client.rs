//! The CAKE client against an upstream that changes while it is read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode, Uri};
use serde_json::json;
use smartlink::cake::{Client, ClientOptions, FetchError, Haste, KeySource, REVISION_HEADER, Update};

/// An upstream whose n-th answer carries the revision that `revision` gives, and the client for it.
async fn upstream(revision: fn(usize) -> Option<String>) -> (Client, Arc<AtomicUsize>, tempfile::TempDir) {
    let answered = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&answered);
    let router = Router::new().fallback(move || {
        let revision = revision(counter.fetch_add(1, Ordering::SeqCst));
        async move {
            let mut response = axum::response::Response::new(BODY.to_owned());
            response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().unwrap());
            if let Some(revision) = revision {
                response
                    .headers_mut()
                    .insert(HeaderName::from_static(REVISION_HEADER), revision.parse().unwrap());
            }
            response
        }
    });
    let (client, directory) = client_of(router).await;
    (client, answered, directory)
}

async fn client_of(router: Router) -> (Client, tempfile::TempDir) {
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
        ca_file: None,
        rows_max: 20_000,
    });
    (client.unwrap(), directory)
}

/// How an upstream of many links gives its pages.
#[derive(Clone, Copy)]
struct Paging {
    links: usize,
    total_rows: Option<usize>,
    /// Pages overlap by so many rows.
    overlap: usize,
    ignores_start: bool,
}

/// What is asked for at the same time, at most; and where each page begins, as asked.
#[derive(Default)]
struct Asked {
    now: AtomicUsize,
    most: AtomicUsize,
    starts: Mutex<Vec<usize>>,
}

/// An upstream of many links, and the client for it.
async fn paged(paging: Paging) -> (Client, Arc<Asked>, tempfile::TempDir) {
    let asked = Arc::new(Asked::default());
    let told = Arc::clone(&asked);
    let answer = move |uri: Uri| {
        let asked = Arc::clone(&told);
        async move {
            if !uri.path().ends_with("smart_links.json") {
                return (StatusCode::OK, BODY.replace(LINK, ""));
            }
            let now = asked.now.fetch_add(1, Ordering::SeqCst) + 1;
            asked.most.fetch_max(now, Ordering::SeqCst);
            // Whoever else is to come at the same time is let in.
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
            let url: url::Url = format!("http://x{uri}").parse().unwrap();
            let start = url.query_pairs().find(|(name, _)| name == "start_at_row").unwrap().1;
            let start: usize = start.parse().unwrap();
            asked.starts.lock().unwrap().push(start);
            let from = if paging.ignores_start { 0 } else { start.saturating_sub(paging.overlap) };
            let links: Vec<_> = (from..paging.links.min(from + 500))
                .map(|id| json!({"smart_link_id": id + 1, "affiliate_id": 7, "smart_link_status": "active"}))
                .collect();
            let mut response = json!({"smart_links": links});
            if let Some(total) = paging.total_rows {
                response["total_rows"] = total.into();
            }
            asked.now.fetch_sub(1, Ordering::SeqCst);
            (StatusCode::OK, json!({"request_status": "Success", "response": response}).to_string())
        }
    };
    let (client, directory) = client_of(Router::new().fallback(answer)).await;
    (client, asked, directory)
}

#[tokio::test]
async fn pages_come_four_at_a_time_and_in_order_whatever_the_count_says() {
    let links = 5_200;
    for total_rows in [Some(links), None, Some(0), Some(10), Some(3_000), Some(50_000), Some(usize::MAX)] {
        let (client, asked, _key) =
            paged(Paging { links, total_rows, overlap: 0, ignores_start: false }).await;
        let network = client.network(Haste::Full).await.unwrap().network;
        let ids: Vec<i64> = network.smart_links.iter().map(|link| link.id.value().into()).collect();
        assert!(ids.iter().copied().eq(1..=links as i64), "{total_rows:?}");
        let most = asked.most.load(Ordering::SeqCst);
        match total_rows {
            None | Some(0..=500) => assert_eq!(most, 1, "{total_rows:?}"),
            Some(_) => assert!((2..=4).contains(&most), "{most} at a time for {total_rows:?}"),
        }
        let mut starts = asked.starts.lock().unwrap().clone();
        starts.sort_unstable();
        let known = starts.len();
        starts.dedup();
        assert_eq!(starts.len(), known, "no page is asked for twice");
        assert!(known <= 11 + 3, "{known} pages asked for, {total_rows:?}");
    }
}

#[tokio::test]
async fn rows_that_repeat_over_pages_count_once() {
    let (client, _, _key) =
        paged(Paging { links: 1_600, total_rows: Some(1_600), overlap: 7, ignores_start: false }).await;
    assert_eq!(client.network(Haste::Full).await.unwrap().network.smart_links.len(), 1_600);
}

#[tokio::test]
async fn pages_that_never_end_or_repeat_are_given_up() {
    for (total_rows, ignores_start, said, pages_max) in [
        (None, true, "from row 500 is one that came before", 2),
        (Some(9_000), true, "from row 500 is one that came before", 5),
        (None, false, "more than 20000 rows", 41),
        (Some(usize::MAX), false, "more than 20000 rows", 41),
    ] {
        let (client, asked, _key) =
            paged(Paging { links: usize::MAX, total_rows, overlap: 0, ignores_start }).await;
        let error = client.network(Haste::Full).await.unwrap_err().to_string();
        assert!(error.starts_with("smart_links.json: ") && error.contains(said), "{error}");
        let pages = asked.starts.lock().unwrap().len();
        assert!(pages <= pages_max, "{pages} pages before {error}");
    }
}

#[tokio::test]
async fn pages_of_different_states_are_read_again() {
    // The network changes between the second call and the third.
    let (client, answered, _key) =
        upstream(|answer| Some(if answer < 2 { "1" } else { "2" }.to_owned())).await;
    let fetched = client.network(Haste::Full).await.unwrap();
    assert_eq!(fetched.network.smart_links.len(), 1);
    assert_eq!(answered.load(Ordering::SeqCst), 3 + 1 + LISTS, "a reading broken off, and a whole one");
}

#[tokio::test]
async fn a_network_that_never_stands_still_is_not_mixed() {
    let (client, answered, _key) = upstream(|answer| Some(answer.to_string())).await;
    let error = client.network(Haste::Full).await.unwrap_err();
    assert!(matches!(error, FetchError::Changing { .. }), "{error}");
    assert!(error.to_string().contains("changed"), "{error}");
    assert_eq!(answered.load(Ordering::SeqCst), 5 * 3, "it gives up after five readings");
}

#[tokio::test]
async fn an_upstream_without_revisions_is_read_once() {
    let (client, answered, _key) = upstream(|_| None).await;
    client.network(Haste::Full).await.unwrap();
    assert_eq!(answered.load(Ordering::SeqCst), LISTS);
}

const LISTS: usize = 6;

const LINK: &str = r#"{"smart_link_id":301,"affiliate_id":67890,"smart_link_status":"active"}"#;

const BODY: &str = r#"{"request_status":"Success","response":{"total_rows":1,
    "smart_links":[{"smart_link_id":301,"affiliate_id":67890,"smart_link_status":"active"}],
    "offers":[],"offer_geo_targets":[],"smart_link_offers":[],"routing_rules":[],"offer_caps":[]}}"#;

/// An upstream that tells states, whose `network.json` answers these lines, and the lists [`BODY`].
async fn telling(lines: String) -> (Client, Arc<Mutex<Vec<String>>>, tempfile::TempDir) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&asked);
    let answer = move |uri: Uri| {
        let call = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        let body = if call == "network.json" { lines.clone() } else { BODY.to_owned() };
        told.lock().unwrap().push(call);
        async move { ([(HeaderName::from_static(REVISION_HEADER), "new")], body) }
    };
    let (client, directory) = client_of(Router::new().fallback(answer)).await;
    (client, asked, directory)
}

const HEAD: &str = r#"{"network":{"revision":"new"}}"#;

const SINCE: &str = r#"{"network":{"revision":"new","since":"old"}}"#;

const LINK_LINE: &str =
    r#"{"smart_link":{"smart_link_id":302,"affiliate_id":7,"smart_link_status":"active"}}"#;

#[tokio::test]
async fn a_network_in_one_answer_is_asked_for_where_states_are_told() {
    let whole = format!("{HEAD}\n{LINK_LINE}\n{{\"end\":{{\"lines\":2}}}}\n");
    let (client, asked, _key) = telling(whole).await;
    let fetched = client.network(Haste::Full).await.unwrap();
    assert_eq!(fetched.network.smart_links[0].id.value(), 302);
    assert_eq!(fetched.revision.unwrap(), "new");
    assert_eq!(*asked.lock().unwrap(), ["offers.json", "network.json"]);
}

#[tokio::test]
async fn changes_are_taken_of_the_state_that_was_asked_about_alone() {
    let changes =
        format!("{SINCE}\n{{\"changed_link\":{{\"smart_link_id\":302}}}}\n{{\"end\":{{\"lines\":2}}}}\n");
    let (client, asked, _key) = telling(changes).await;
    match client.update(Some(&"old".parse().unwrap()), Haste::Full).await.unwrap() {
        Update::Changes(changes) => {
            assert_eq!((changes.links.len(), changes.network.smart_links.len()), (1, 0));
            assert_eq!(changes.revision, "new");
        }
        Update::Whole(_) => panic!("a difference was told"),
    }
    assert_eq!(*asked.lock().unwrap(), ["network.json"]);
    let error = client.update(Some(&"older".parse().unwrap()), Haste::Full).await.unwrap_err();
    assert!(matches!(error, FetchError::Incomplete { .. }), "{error}");

    let more = format!("{SINCE}\n{LINK_LINE}\n{{\"end\":{{\"lines\":2}}}}\n");
    let (client, _, _key) = telling(more).await;
    let error = client.update(Some(&"old".parse().unwrap()), Haste::Full).await.unwrap_err().to_string();
    assert!(error.contains("more than it says was changed"), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_not_whole_counts_for_nothing() {
    for (lines, said) in [
        (String::new(), "it ended after 0 lines"),
        (format!("{HEAD}\n{LINK_LINE}\n"), "it ended after 2 lines"),
        (format!("{HEAD}\n{LINK_LINE}\n{{\"end\":{{\"lines\":2}}}}"), "it ended after 2 lines"),
        (format!("{LINK_LINE}\n{{\"end\":{{\"lines\":1}}}}\n"), "it ended after"),
        (format!("{HEAD}\n{}", format!("{LINK_LINE}\n").repeat(20_001)), "more than 20000 rows"),
    ] {
        let (client, _, _key) = telling(lines).await;
        for since in [None, Some("old".parse().unwrap())] {
            let error = client.update(since.as_ref(), Haste::Full).await.unwrap_err().to_string();
            assert!(error.starts_with("network.json: ") && error.contains(said), "{error}");
        }
    }
}

/// A refresh that finds nothing new costs one answer without a body.
#[tokio::test]
async fn an_upstream_that_is_in_the_same_state_is_asked_by_its_entity_tag() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&asked);
    let answer = move |headers: axum::http::HeaderMap, uri: Uri| {
        told.lock().unwrap().push((uri.path().to_owned(), headers.get("if-none-match").cloned()));
        async { StatusCode::NOT_MODIFIED }
    };
    let (client, _key) = client_of(Router::new().fallback(answer)).await;
    let update = client.update(Some(&"one".parse().unwrap()), Haste::Full).await.unwrap();
    assert!(
        matches!(update, Update::Changes(changes) if changes.links.is_empty() && changes.revision == "one")
    );
    assert_eq!(
        *asked.lock().unwrap(),
        [("/api/2/network.json".to_owned(), Some("\"one\"".parse().unwrap()))]
    );
    // Nobody has anything of it yet.
    assert!(client.update(None, Haste::Full).await.is_err());
}

/// An older smartlink tells states and has no `network.json`: while the state is the same, nothing is read.
#[tokio::test]
async fn an_upstream_that_tells_states_alone_is_read_when_its_state_is_another() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let answer = move |uri: Uri| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            let revision = (HeaderName::from_static(REVISION_HEADER), "one");
            match uri.path().rsplit('/').next().unwrap_or_default() {
                "network.json" => (StatusCode::NOT_FOUND, [revision], String::new()),
                "revision.json" => {
                    let told = r#"{"request_status":"Success","response":{"revision":"one"}}"#;
                    (StatusCode::OK, [revision], told.to_owned())
                }
                _ => (StatusCode::OK, [revision], BODY.to_owned()),
            }
        }
    };
    let (client, _key) = client_of(Router::new().fallback(answer)).await;
    let update = client.update(Some(&"one".parse().unwrap()), Haste::Full).await.unwrap();
    assert!(matches!(update, Update::Changes(changes) if changes.links.is_empty()));
    assert_eq!(asked.swap(0, Ordering::SeqCst), 2);
    let update = client.update(Some(&"zero".parse().unwrap()), Haste::Full).await.unwrap();
    assert!(matches!(update, Update::Whole(fetched) if fetched.network.smart_links.len() == 1));
    assert_eq!(asked.load(Ordering::SeqCst), 2 + 1 + LISTS);
}

/// Another version of smartlink may say what this one does not know: then the lists are read, row by row.
#[tokio::test]
async fn lines_that_cannot_be_read_are_read_as_lists() {
    for lines in [
        format!("{HEAD}\n{{\"planet\":{{}}}}\n{{\"end\":{{\"lines\":2}}}}\n"),
        format!("{HEAD}\n{LINK_LINE}\n{{\"end\":{{\"lines\":3}}}}\n"),
        format!("{HEAD}\n{}\n", LINK_LINE.replace("302", "0")),
        "<html>\n".to_owned(),
    ] {
        let (client, asked, _key) = telling(lines).await;
        for since in [None, Some("old".parse().unwrap())] {
            let Update::Whole(fetched) = client.update(since.as_ref(), Haste::Full).await.unwrap() else {
                panic!("the whole was asked for");
            };
            assert_eq!(fetched.network.smart_links[0].id.value(), 301);
            assert!(asked.lock().unwrap().ends_with(
                &["routing_rules.json", "offer_caps.json", "offer_geo_targets.json"].map(str::to_owned)
            ));
        }
    }
}

/// A node with a table does not hurry, and takes the whole; one without does. Differences are never held back.
#[tokio::test]
async fn a_whole_network_is_read_at_a_pace_where_a_table_is_live() {
    const BYTES: usize = 4 << 20;
    // At 32 MiB a second, without what the reader may make up.
    const AT_LEAST: Duration = Duration::from_millis(100);
    let url = format!("https://offer.example/{}", "x".repeat(BYTES / 10_000));
    let offers: String = (1..=10_000)
        .map(|id| {
            format!("{}\n", json!({"offer": {"offer_id": id, "offer_status": "active", "offer_url": url}}))
        })
        .collect();
    for head in [HEAD, SINCE] {
        let (client, _, _key) = telling(format!("{head}\n{offers}{{\"end\":{{\"lines\":10001}}}}\n")).await;
        let began = Instant::now();
        let offers = match client.update(Some(&"old".parse().unwrap()), Haste::Paced).await.unwrap() {
            Update::Whole(fetched) => fetched.network.offers,
            Update::Changes(changes) => changes.network.offers,
        };
        assert_eq!(offers.len(), 10_000);
        assert!(head == SINCE || began.elapsed() > AT_LEAST, "{:?}", began.elapsed());
    }
}
