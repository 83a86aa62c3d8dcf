//! A small language for tests of the embedded CAKE: a running API, `get`, `post`, and what came back.

// Each test file takes the part of the language that it speaks.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde_json::Value;
use smartlink::backoffice::{Backoffice, Limits, Options};
use smartlink::cake::{Key, Lines, Network, wire};
use smartlink::ledger::{Ledger, LocalLedger};
use smartlink::routing::{Cap, DestinationPolicy, Zone};

/// The API over a real socket, on a port of the system's choice. Dropping it ends every task and closes the store.
pub struct Api {
    runtime: tokio::runtime::Runtime,
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    pub backoffice: Backoffice,
    /// Whom the API asks of caps.
    ledger: LocalLedger,
    /// Removed with the API, where the API made it.
    _directory: Option<tempfile::TempDir>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

pub const KEY: &str = "a-key-that-nobody-may-see";

impl Api {
    /// An empty network in a directory of its own.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let api = Self::start_on(&directory.path().join("cake.db"));
        Self { _directory: Some(directory), ..api }
    }

    pub fn start_on(path: &Path) -> Self {
        Self::start_with(path, Limits::default())
    }

    pub fn start_with(path: &Path, limits: Limits) -> Self {
        let options = Options {
            api_key: tokio::sync::watch::channel(Key::new(KEY).unwrap()).1,
            public_base_url: "https://go.example.com/".to_owned(),
            zone: zone(),
            destination_policy: DestinationPolicy::default(),
            limits,
        };
        let ledger = LocalLedger::start(&path.with_extension("ledger"));
        let backoffice = Backoffice::open(path, options, Ledger::Local(ledger.clone())).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        // Merged, as the admin room does it: the API must answer for its own paths and for no other.
        let router = axum::Router::new().merge(backoffice.router()).fallback(|| async { "not the API" });
        runtime.spawn(async move { axum::serve(listener, router).await });
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { runtime, client, base, backoffice, ledger, _directory: None }
    }

    /// Puts exactly these caps in force, as the sync does it.
    pub fn define(&self, caps: Vec<Cap>) {
        self.runtime.block_on(self.ledger.define(caps)).unwrap();
    }

    /// GET with the key: `smart_links.json?row_limit=1`.
    pub fn get(&self, call: &str) -> Reply {
        let mark = if call.contains('?') { '&' } else { '?' };
        self.send(Method::GET, &format!("/api/2/{call}{mark}api_key={KEY}"), &[], "")
    }

    /// POST of JSON with the key in it.
    pub fn post(&self, call: &str, mut fields: Value) -> Reply {
        fields["api_key"] = KEY.into();
        self.send(Method::POST, &format!("/api/2/{call}"), JSON, fields.to_string())
    }

    /// POST of exactly this body, with the key in the header.
    pub fn post_raw(&self, call: &str, content_type: &str, body: impl Into<Bytes>) -> Reply {
        let headers = [("content-type", content_type), ("authorization", &format!("Bearer {KEY}"))];
        self.send(Method::POST, &format!("/api/2/{call}"), &headers, body)
    }

    pub fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        self.runtime.block_on(async {
            let (head, body) = self.client.request(request).await.unwrap().into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let text = String::from_utf8(bytes.into()).unwrap();
            Reply { status: head.status, headers: head.headers, text }
        })
    }

    /// Sends these bytes on a connection of their own and no more, and reads until the server ends it.
    pub fn converse(&self, bytes: &[u8]) -> String {
        let address = self.base.strip_prefix("http://").unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Every row of a list under `response`, read in pages.
    pub fn rows<T: DeserializeOwned>(&self, call: &str, noun: &str) -> Vec<T> {
        let mut rows = Vec::new();
        loop {
            let page = self.get(&format!("{call}?row_limit=500&start_at_row={}", rows.len())).success();
            let list = if noun == "offers" { &page[noun] } else { &page["response"][noun] };
            let list = list.as_array().unwrap_or_else(|| panic!("no list {noun} in {page}"));
            if list.is_empty() {
                return rows;
            }
            rows.extend(list.iter().map(|row| serde_json::from_value(row.clone()).unwrap()));
        }
    }

    /// What `network.json` answers.
    #[track_caller]
    pub fn lines(&self, call: &str) -> Lines {
        let reply = self.get(call);
        assert_eq!(
            (reply.status.as_u16(), &reply.headers["content-type"]),
            (200, &"application/x-ndjson".parse().unwrap())
        );
        let mut lines = Lines::default();
        lines.push(reply.text.as_bytes()).unwrap();
        assert!(lines.is_whole(), "{}", reply.text);
        lines
    }

    /// The whole network, list by list.
    pub fn network(&self) -> Network {
        #[derive(serde::Deserialize)]
        struct Wrapped {
            offer: wire::OfferItem,
        }
        let offers: Vec<Wrapped> = self.rows("offers.json", "offers");
        let links: Vec<wire::SmartLink> = self.rows("smart_links.json", "smart_links");
        let entries: Vec<wire::SmartLinkOffer> = self.rows("smart_link_offers.json", "smart_link_offers");
        let rules: Vec<wire::RoutingRule> = self.rows("routing_rules.json", "routing_rules");
        Network {
            smart_links: links.iter().map(|link| link.read().unwrap()).collect(),
            offers: offers.into_iter().map(|wrapped| wrapped.offer).collect(),
            offer_geo_targets: self.rows("offer_geo_targets.json", "offer_geo_targets"),
            smart_link_offers: entries.iter().map(|entry| entry.read().unwrap()).collect(),
            routing_rules: rules.iter().map(|rule| rule.read().unwrap()).collect(),
            offer_caps: self.rows("offer_caps.json", "offer_caps"),
        }
    }
}

impl Reply {
    pub fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The answer of a call that was done.
    #[track_caller]
    pub fn success(&self) -> Value {
        let json = self.json();
        assert_eq!((self.status.as_u16(), &json["request_status"]), (200, &"Success".into()), "{json}");
        json
    }

    /// Asserts that the call was refused with this status, in a message that says all of these.
    #[track_caller]
    pub fn refused(&self, status: u16, said: &[&str]) {
        let json = self.json();
        assert_eq!((self.status.as_u16(), &json["request_status"]), (status, &"Error".into()), "{json}");
        let message = json["message"].as_str().unwrap();
        for word in said {
            assert!(message.contains(word), "{message:?} does not say {word:?}");
        }
        assert!(!self.text.contains(KEY), "the key is shown: {message}");
    }
}

/// The network's zone in these tests.
pub fn zone() -> Zone {
    Zone::parse("America/New_York").unwrap()
}

pub const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
