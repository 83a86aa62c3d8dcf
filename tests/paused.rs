//! A process that is stopped for seconds and goes on, as by a suspended machine or a debugger: what it held of caps and is over
//! by then is not spent, no cap is exceeded, and clicks are answered at once.
//!
//! `PAUSE_SECONDS=60 cargo test --test paused` stops it for longer.

mod support;

use std::env;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use support::http::{Answer, Connection, Request};
use support::node::{Node, Setup};
use support::wait;

const CLICK: &str = "/sl?id=1&aff_id=7";

#[test]
fn an_edge_that_was_stopped_spends_what_it_held_and_no_more() {
    let ledger = ledger_node("lifetime", AMOUNT);
    let edges = [follower(&ledger).start_ready(), follower(&ledger).start_ready()];
    edges.iter().for_each(wait_until_reached);
    let seen = Seen::default();
    seen.offers.store(edges.len() as u64, Ordering::Relaxed);
    thread::scope(|scope| {
        let ending = Ending(&seen);
        edges.iter().for_each(|edge| drop(scope.spawn(|| seen.click(edge.clicks))));
        wait::until("clicks on both", || (seen.offers() > 100).then_some(()));
        let [stopped, other] = &edges;
        let answered_after = stop_for(stopped, &seen, || assert_eq!(other.readyz(), 200));
        println!("stopped for {:?}, its clicks were answered {answered_after:?} after it went on", pause());
        assert!(answered_after < AT_ONCE, "{answered_after:?}");
        wait::until("the cap to be full", || (state(&ledger)["remaining"] == 0).then_some(()));
        // The last of what is held is spent where it is.
        wait::until_equal("every click of the cap to be sent", AMOUNT, || seen.offers());
        let all = seen.all();
        wait::until("clicks beyond it", || (seen.all() > all + 1_000).then_some(()));
        drop(ending);
    });
    assert_eq!(seen.offers(), AMOUNT);
    wait::until_equal("every click to be counted", json!(AMOUNT), || state(&ledger)["used"].clone());
}

#[test]
fn a_ledger_that_was_stopped_is_missed_by_no_click_and_grants_nothing_twice() {
    let ledger = ledger_node("lifetime", AMOUNT);
    let edge = follower(&ledger).start_ready();
    wait_until_reached(&edge);
    let seen = Seen::default();
    seen.offers.store(1, Ordering::Relaxed);
    thread::scope(|scope| {
        let ending = Ending(&seen);
        scope.spawn(|| seen.click(edge.clicks));
        wait::until("clicks", || (seen.offers() > 100).then_some(()));
        stop_for(&ledger, &seen, || {
            let all = seen.all();
            wait::until("clicks without a ledger", || (seen.all() > all + 500).then_some(()));
            assert_eq!(edge.readyz(), 200);
        });
        wait::until_equal("every click of the cap to be sent", AMOUNT, || seen.offers());
        let all = seen.all();
        wait::until("clicks beyond it", || (seen.all() > all + 1_000).then_some(()));
        drop(ending);
    });
    assert_eq!(seen.offers(), AMOUNT);
    wait::until_equal("every click to be counted", json!(AMOUNT), || state(&ledger)["used"].clone());
}

/// The window ends while the edge is stopped, and its ledger is out of reach when it goes on: nothing but its own clock can
/// tell it that what it holds is worthless.
#[test]
fn a_lease_that_ran_out_while_its_edge_was_stopped_is_not_spent() {
    let ledger = ledger_node("daily", 1_000);
    let between = Between::start(ledger.admin);
    // Its window ends when half of the pause is over.
    between.ends_in(pause() / 2);
    let edge = follower(&ledger).moved_to(&format!("http://{}", between.address)).start_ready();
    let seen = Seen::default();
    let reaches = || seen.count(&edge.click(CLICK));
    wait::until("a click to reach the offer", || reaches().then_some(()));
    between.cut(true);
    wait::until("a click without the ledger", || {
        let is_reached = reaches();
        if !is_reached {
            // It was spent before the line was cut, or is over.
            between.cut(false);
            wait::until("another lease", || reaches().then_some(()));
            between.cut(true);
        }
        is_reached.then_some(())
    });
    let mut waiting = edge.connect();
    let before = seen.offers();
    stop_for(&edge, &seen, || waiting.send(Request::click(CLICK).to_bytes()).unwrap());
    assert!(!is_offer(&waiting.read().unwrap()), "of a window that is over");
    assert!((0..50).all(|_| !reaches()));
    // One more was sent before it was stopped, and then it had some left.
    assert_eq!(seen.offers(), before + 1);
    let left =
        state(&ledger)["used"].as_u64().unwrap() + state(&ledger)["leased"].as_u64().unwrap() - seen.offers();
    println!("{left} clicks of a lease were over when it went on");
    assert!(left > 0);
    between.cut(false);
    wait::until("a click to reach the offer", || reaches().then_some(()));
}

/// Answers how long after it went on the clicks were answered that came while it was stopped, on a connection from before and on a
/// new one.
#[track_caller]
fn stop_for(node: &Node, seen: &Seen, meanwhile: impl FnOnce()) -> Duration {
    let mut before = node.connect();
    seen.count(&before.ask(&Request::click(CLICK)));
    let begun = Instant::now();
    node.pause();
    let mut new = node.connect();
    for connection in [&mut before, &mut new] {
        connection.send(Request::click(CLICK).to_bytes()).unwrap();
    }
    meanwhile();
    // Nothing can be seen of one that is stopped but that time passes.
    thread::sleep(pause().saturating_sub(begun.elapsed()));
    let continued = Instant::now();
    node.signal("CONT");
    for connection in [&mut before, &mut new] {
        seen.count(&connection.read().unwrap());
    }
    continued.elapsed()
}

fn pause() -> Duration {
    Duration::from_secs(
        env::var("PAUSE_SECONDS").map_or(5, |text| text.parse().expect("PAUSE_SECONDS is a number")),
    )
}

/// The ledger and an edge in one node, with a link of one offer, which has a cap, and a fallback.
fn ledger_node(interval: &str, amount: u64) -> Node {
    let node = Setup::new().setting("click_log.enabled = false").start_ready();
    let offer = node.create_offer("https://offer.example.com/");
    let link = json!({"affiliate_id": 7, "fallback_url": "https://fallback.example.com/"});
    assert_eq!(node.create_link(link), 1);
    node.attach(1, offer);
    let cap = json!({"offer_id": offer, "cap_type": "click", "cap_interval": interval, "cap_amount": amount});
    node.post("offer_cap.json", cap);
    node
}

fn follower(ledger: &Node) -> Setup {
    Setup::following(ledger).setting("click_log.enabled = false")
}

/// The state of the only cap.
fn state(node: &Node) -> Value {
    let target = format!("/api/2/offer_caps.json?api_key={}", node.key());
    node.admin("GET", &target).json()["response"]["offer_caps"][0].clone()
}

fn is_offer(answer: &Answer) -> bool {
    assert_eq!(answer.status, 302, "{answer:?}");
    answer.destination() == "offer.example.com"
}

#[track_caller]
fn wait_until_reached(node: &Node) {
    wait::until("a click to reach the offer", || is_offer(&node.click(CLICK)).then_some(()));
}

/// What clicks came to, as the visitors saw it.
#[derive(Default)]
struct Seen {
    offers: AtomicU64,
    fallbacks: AtomicU64,
    done: AtomicBool,
}

/// Sends the visitors home, also when an assertion fails.
struct Ending<'a>(&'a Seen);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::Relaxed);
    }
}

impl Seen {
    fn offers(&self) -> u64 {
        self.offers.load(Ordering::Relaxed)
    }

    fn all(&self) -> u64 {
        self.offers() + self.fallbacks.load(Ordering::Relaxed)
    }

    fn count(&self, answer: &Answer) -> bool {
        let is_offer = is_offer(answer);
        let count = if is_offer { &self.offers } else { &self.fallbacks };
        count.fetch_add(1, Ordering::Relaxed);
        is_offer
    }

    fn click(&self, address: SocketAddr) {
        let mut connection = Connection::to(address);
        while !self.done.load(Ordering::Relaxed) {
            self.count(&connection.ask(&Request::click(CLICK)));
            // Clients that never rest take a small machine from everybody else on it.
            thread::sleep(Duration::from_micros(500));
        }
    }
}

/// Stands between an edge and the API of its ledger: tells other ends of windows, and can be cut.
struct Between {
    address: SocketAddr,
    state: Arc<Line>,
}

#[derive(Default)]
struct Line {
    is_cut: AtomicBool,
    ends_in_ms: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

impl Between {
    fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let between = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let state = Arc::clone(&between.state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if state.is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let server = TcpStream::connect(target).unwrap();
                let mut open = state.open.lock().unwrap();
                for stream in [&client, &server] {
                    open.push(stream.try_clone().unwrap());
                }
                let ends = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
                for (from, to) in ends {
                    let state = Arc::clone(&state);
                    thread::spawn(move || state.carry(from.unwrap(), to.unwrap()));
                }
            }
        });
        between
    }

    /// From now on the ledger tells that windows end so soon.
    fn ends_in(&self, time: Duration) {
        self.state.ends_in_ms.store(time.as_millis() as u64, Ordering::SeqCst);
    }

    fn cut(&self, is_cut: bool) {
        self.state.is_cut.store(is_cut, Ordering::SeqCst);
        if is_cut {
            for stream in self.state.open.lock().unwrap().drain(..) {
                // It may have ended by itself.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Line {
    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let piece = self.rewritten(&bytes[..count]);
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    }

    /// With the same number of bytes. An answer about one cap comes in one piece.
    fn rewritten(&self, piece: &[u8]) -> Vec<u8> {
        let Some((head, rest)) = std::str::from_utf8(piece).ok().and_then(|text| text.split_once(KEY)) else {
            return piece.to_vec();
        };
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let told = self.ends_in_ms.load(Ordering::SeqCst);
        assert!(digits >= told.to_string().len(), "{rest}");
        let rest = self.rewritten(&rest.as_bytes()[digits..]);
        [format!("{head}{KEY}{told:>digits$}").as_bytes(), &rest].concat()
    }
}

const KEY: &str = "\"ends_in_ms\":";

const AMOUNT: u64 = 5_000;

/// Far less than a person notices, on a machine that has other things to do.
const AT_ONCE: Duration = Duration::from_secs(1);
