//! A CAKE as it publishes itself, and nothing of ours: links and offers in pages, geo targets of one offer, a created
//! link, all in the dialect without `response`. Whatever else is asked is 404, and remembered.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use serde_json::{Value, json};

use super::stub::offer;

/// A server that runs until the test's process ends.
pub struct Cake {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    links: Vec<Value>,
    offers: Vec<Value>,
    /// By offer: its countries, with what is to become of them.
    geo_targets: HashMap<i64, Vec<(&'static str, &'static str)>>,
    /// Every call since the last look, with its parameters but for the key.
    calls: Vec<String>,
    away: bool,
}

impl Cake {
    /// Links 1 to `links` of affiliate 7, each with a fallback, and these offers, each with a host of its own.
    pub fn start(links: i64, offers: &[i64]) -> Self {
        let link = |id: i64| {
            json!({
                "smart_link_id": id, "smart_link_name": format!("link {id}"), "affiliate_id": 7,
                "smart_link_status": "active", "fallback_url": "https://fallback.example.com/",
            })
        };
        let host = |id: &i64| json!({"offer": offer(*id, &format!("https://offer{id}.example.com/"))});
        let state = State {
            links: (1..=links).map(link).collect(),
            offers: offers.iter().map(host).collect(),
            ..State::default()
        };
        let state = Arc::new(Mutex::new(state));
        let answering = Arc::clone(&state);
        let router = Router::new().fallback(move |method: Method, uri: Uri| {
            let (status, answer) = answering.lock().unwrap().answer(&method, &uri);
            async move { (status, answer.to_string()) }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || runtime.block_on(async { axum::serve(listener, router).await }));
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on the offer has these geo targets: country and action.
    pub fn target(&self, offer: i64, targets: &[(&'static str, &'static str)]) {
        self.state.lock().unwrap().geo_targets.insert(offer, targets.to_vec());
    }

    /// From now on every call is answered 503.
    pub fn go_away(&self) {
        self.state.lock().unwrap().away = true;
    }

    /// Every call since the last look: `offers.json?start_at_row=0&row_limit=500`.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }
}

impl State {
    fn answer(&mut self, method: &Method, uri: &Uri) -> (StatusCode, Value) {
        let query = uri.query().unwrap_or_default();
        let parameters: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("api_key=")).collect();
        let call = uri.path().strip_prefix("/api/2/").unwrap_or_default();
        self.calls.push(format!("{call}?{}", parameters.join("&")));
        if self.away {
            return (StatusCode::SERVICE_UNAVAILABLE, error("down for maintenance"));
        }
        let number = |name: &str| -> Option<i64> {
            parameters.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        };
        let page = |rows: &[Value], rows_default: i64| -> Vec<Value> {
            let limit = number("row_limit").unwrap_or(rows_default).min(ROWS_MAX);
            let start = number("start_at_row").unwrap_or(0);
            rows.iter().skip(start as usize).take(limit as usize).cloned().collect()
        };
        let mut answer = match (method, call) {
            (&Method::GET, "smart_links.json") => json!({"smart_links": page(&self.links, 100)}),
            (&Method::GET, "offers.json") => json!({"offers": page(&self.offers, 25)}),
            (&Method::GET, "offer_geo_targets.json") => match number("offer_id") {
                None => return (StatusCode::BAD_REQUEST, error("offer_id is required")),
                Some(offer) => {
                    let targets = self.geo_targets.get(&offer).cloned().unwrap_or_default();
                    let target = |(country, action)| json!({"country_code": country, "action": action});
                    let targets: Vec<Value> = targets.into_iter().map(target).collect();
                    json!({"offer_id": offer, "geo_targets": targets})
                }
            },
            (&Method::POST, "smart_link.json") => json!({"smart_link": {
                "smart_link_id": 4711, "smart_link_name": "made", "affiliate_id": 7, "smart_link_status": "active",
            }}),
            _ => return (StatusCode::NOT_FOUND, error("no such call")),
        };
        answer["request_status"] = "Success".into();
        (StatusCode::OK, answer)
    }
}

fn error(message: &str) -> Value {
    json!({"request_status": "Error", "message": message})
}

/// CAKE's greatest `row_limit`.
const ROWS_MAX: i64 = 500;
