//! An upstream under the test's control: it answers the calls of a refresh with whatever the test wants, however
//! wrong, over real HTTP.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::wait::DEADLINE;

/// A server that runs until the test's process ends.
pub struct Stub {
    pub address: SocketAddr,
    answers: Arc<Mutex<HashMap<&'static str, Canned>>>,
}

/// What a call is answered with.
#[derive(Clone)]
pub struct Canned {
    pub status_line: &'static str,
    pub content_type: &'static str,
    pub body: String,
    /// What `Content-Length` says beyond the body; the connection closes before it is kept.
    pub bytes_promised_too_many: usize,
}

impl Stub {
    /// A small network: link 1 of affiliate 7 with offer 10, and a fallback.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stub = Self { address: listener.local_addr().unwrap(), answers: Arc::default() };
        stub.list("offers", json!([{"offer": offer(10, "https://ten.example.com/")}]));
        stub.list(
            "smart_links",
            json!([{"smart_link_id": 1, "affiliate_id": 7, "smart_link_status": "active",
                    "fallback_url": "https://fallback.example.com/"}]),
        );
        stub.list("smart_link_offers", json!([{"smart_link_id": 1, "offer_id": 10}]));
        stub.list("offer_geo_targets", json!([]));
        stub.list("routing_rules", json!([]));
        let answers = Arc::clone(&stub.answers);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answers = Arc::clone(&answers);
                // A client that goes away in the middle is none of the test's concern.
                thread::spawn(move || drop(answer(stream, &answers)));
            }
        });
        stub
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this list holds these items.
    pub fn list(&self, list: &'static str, items: Value) {
        let rows = items.as_array().expect("a list").len();
        let body = json!({"request_status": "Success", "response": {list: items, "total_rows": rows}});
        self.answer(list, Canned::json(&body.to_string()));
    }

    /// From now on the call of this list is answered with exactly this.
    pub fn answer(&self, list: &'static str, canned: Canned) {
        self.answers.lock().unwrap().insert(list, canned);
    }
}

impl Canned {
    pub fn json(body: &str) -> Self {
        Self {
            status_line: "200 OK",
            content_type: "application/json",
            body: body.to_owned(),
            bytes_promised_too_many: 0,
        }
    }

    pub fn html(status_line: &'static str) -> Self {
        let body = "<!doctype html><title>Sorry</title><p>We will be back soon.</p>".to_owned();
        Self { status_line, content_type: "text/html", body, bytes_promised_too_many: 0 }
    }
}

/// An item of `offers.json`, inside its wrapping.
pub fn offer(id: i64, url: &str) -> Value {
    json!({"offer_id": id, "offer_name": "made by a test", "offer_status": "active", "offer_url": url})
}

fn answer(mut stream: TcpStream, answers: &Mutex<HashMap<&'static str, Canned>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head);
    let target = head.split(' ').nth(1).unwrap_or_default();
    let call = target.strip_prefix("/api/2/").and_then(|rest| rest.split_once(".json"));
    let call = call.map(|(call, _)| call).unwrap_or_default();
    let canned = answers.lock().unwrap().get(call).cloned();
    let Canned { status_line, content_type, body, bytes_promised_too_many } =
        canned.unwrap_or_else(|| Canned::html("404 Not Found"));
    let length = body.len() + bytes_promised_too_many;
    write!(
        stream,
        "HTTP/1.1 {status_line}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: \
         close\r\n\r\n{body}"
    )
}
