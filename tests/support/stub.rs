//! An upstream under the test's control: it answers the calls of a refresh with whatever the test wants, however
//! wrong, over real HTTP.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::wait::DEADLINE;

/// A server that runs until the test's process ends.
pub struct Stub {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    answers: Mutex<HashMap<&'static str, Canned>>,
    asked: AtomicUsize,
    away: AtomicBool,
}

/// What a call is answered with.
#[derive(Clone, Debug)]
pub struct Canned {
    pub status_line: &'static str,
    pub content_type: &'static str,
    pub body: String,
    /// What `Content-Length` says beyond the body.
    pub bytes_promised_too_many: usize,
    /// Whether the connection then stays open, so that they seem to be on their way.
    pub stalls: bool,
    pub manner: Manner,
}

/// How an answer is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// As it should be.
    #[default]
    Plain,
    /// Not at all, while the connection stays open.
    Silent,
    /// A byte, and the next one a second later.
    Dripping,
    /// With a byte in it that no UTF-8 has.
    NotUtf8,
    /// With 1 GB of blanks before it.
    Gigabyte,
    /// Links without end: whatever row is asked for, there are 500 from there.
    Endless,
    /// 200 links, over two pages: rows of the first come again in it and in the second.
    Overlapping,
}

impl Stub {
    /// A small network: link 1 of affiliate 7 with offer 10, and a fallback.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stub = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        stub.list("offers", json!([{"offer": offer(10, "https://ten.example.com/")}]));
        stub.list(
            "smart_links",
            json!([{"smart_link_id": 1, "affiliate_id": 7, "smart_link_status": "active",
                    "fallback_url": "https://fallback.example.com/"}]),
        );
        stub.list("smart_link_offers", json!([{"smart_link_id": 1, "offer_id": 10}]));
        stub.list("offer_geo_targets", json!([]));
        stub.list("routing_rules", json!([]));
        stub.list("offer_caps", json!([]));
        let state = Arc::clone(&stub.state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                // A client that goes away in the middle is none of the test's concern.
                thread::spawn(move || drop(answer(stream, &state)));
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

    /// How many calls have come.
    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// What the call of this list is answered with.
    pub fn answer_to(&self, list: &'static str) -> Canned {
        self.state.answers.lock().unwrap()[list].clone()
    }

    /// From now on connections are closed without an answer, or no longer.
    pub fn set_away(&self, away: bool) {
        self.state.away.store(away, Ordering::SeqCst);
    }

    /// From now on the call of this list is answered with exactly this.
    pub fn answer(&self, list: &'static str, canned: Canned) {
        self.state.answers.lock().unwrap().insert(list, canned);
    }
}

impl Canned {
    pub fn json(body: &str) -> Self {
        Self {
            status_line: "200 OK",
            content_type: "application/json",
            body: body.to_owned(),
            bytes_promised_too_many: 0,
            stalls: false,
            manner: Manner::Plain,
        }
    }

    pub fn status(self, status_line: &'static str) -> Self {
        Self { status_line, ..self }
    }

    pub fn manner(self, manner: Manner) -> Self {
        Self { manner, ..self }
    }

    /// Without its last bytes, and then the connection closes.
    pub fn broken_off(self) -> Self {
        Self { bytes_promised_too_many: 7, ..self }
    }

    /// Without its last bytes, for which it keeps the client waiting.
    pub fn stalled(self) -> Self {
        Self { stalls: true, ..self.broken_off() }
    }

    pub fn html() -> Self {
        let body = "<!doctype html><title>Sorry</title><p>We will be back soon.</p>";
        Self { content_type: "text/html", ..Self::json(body) }
    }
}

/// An item of `offers.json`, inside its wrapping.
pub fn offer(id: i64, url: &str) -> Value {
    json!({"offer_id": id, "offer_name": "made by a test", "offer_status": "active", "offer_url": url})
}

fn answer(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    if state.away.load(Ordering::SeqCst) {
        return Ok(());
    }
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head);
    state.asked.fetch_add(1, Ordering::SeqCst);
    let target = head.split(' ').nth(1).unwrap_or_default();
    let call = target.strip_prefix("/api/2/").and_then(|rest| rest.split_once(".json"));
    let call = call.map(|(call, _)| call).unwrap_or_default();
    let canned = state.answers.lock().unwrap().get(call).cloned();
    let Canned { status_line, content_type, body, bytes_promised_too_many, stalls, manner } =
        canned.unwrap_or_else(|| Canned::html().status("404 Not Found"));
    let mut body = body.into_bytes();
    let mut blanks = 0;
    match manner {
        Manner::Plain | Manner::Dripping => {}
        Manner::Silent => return stream.read(&mut [0]).map(drop),
        Manner::NotUtf8 => {
            let middle = body.windows(7).position(|part| part == b"https:/").expect("a URL");
            body[middle] = 0xff;
        }
        Manner::Gigabyte => blanks = 1 << 30,
        Manner::Endless => body = links(start_of(target)..start_of(target) + 500).into_bytes(),
        Manner::Overlapping if start_of(target) == 0 => {
            body = links((0..500).map(|row| row % 200)).into_bytes();
        }
        Manner::Overlapping => body = links(100..200).into_bytes(),
    }
    let length = blanks + body.len() + bytes_promised_too_many;
    write!(
        stream,
        "HTTP/1.1 {status_line}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: \
         close\r\n\r\n"
    )?;
    for _ in 0..blanks / BLANKS.len() {
        stream.write_all(&BLANKS)?;
    }
    if manner == Manner::Dripping {
        for byte in body {
            stream.write_all(&[byte])?;
            thread::sleep(Duration::from_secs(1));
        }
        return Ok(());
    }
    stream.write_all(&body)?;
    if stalls {
        // Until the client has had enough.
        let _ = stream.read(&mut [0]);
    }
    Ok(())
}

/// The row that is asked for.
fn start_of(target: &str) -> usize {
    let start = target.split("start_at_row=").nth(1).and_then(|rest| rest.split('&').next());
    start.and_then(|start| start.parse().ok()).expect("a row to start at")
}

/// Links of affiliate 7 by their index.
fn links(indexes: impl Iterator<Item = usize>) -> String {
    let links: Value = indexes
        .map(|index| json!({"smart_link_id": index + 1, "affiliate_id": 7, "smart_link_status": "active"}))
        .collect();
    json!({"request_status": "Success", "response": {"smart_links": links}}).to_string()
}

/// A piece of a body that is too long to be held.
static BLANKS: [u8; 1 << 16] = [b' '; 1 << 16];

/// The lists of a snapshot.
pub const LISTS: [&str; 6] =
    ["offers", "smart_links", "offer_geo_targets", "smart_link_offers", "routing_rules", "offer_caps"];
