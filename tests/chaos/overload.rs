//! Three times as many clicks as the node can answer: it goes on to answer nearly as many as it can, each of them rightly and in
//! its order, and is as fast as before soon after.
//!
//! Who overloads sends whether or not there were answers, as many requests on a connection as there is room for; what finds no
//! room is turned away by the client itself. Beside it, visitors click now and then: what they wait is what is told. That the node,
//! and not the load, is what is at its limit, is told by its CPU time: about one core, which is all that one thread can have.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt;
use serde_json::json;

use crate::load::Load;
use crate::network::Network;
use crate::run::{Run, lengths, millis, of_this_build};
use crate::support::http::Request;
use crate::support::node::Setup;
use crate::support::wait::{self, DEADLINE};

#[test]
fn more_clicks_than_there_is_time_for_cost_no_answer_of_those_that_are_taken() {
    let mut run = Run::begin("overload");
    let seconds = Duration::from_secs;
    let (at_peak, overloaded, recovers) = (
        lengths(seconds(1), seconds(5), seconds(15)),
        lengths(seconds(2), seconds(12), seconds(120)),
        lengths(seconds(1), seconds(5), seconds(5)),
    );
    let node = of_this_build(Network::configure(Setup::new()))
        // One core is left for the load.
        .setting("edge.threads = 1")
        .setting("click_log.keep_bytes = 268435456")
        .start_ready();
    let network = Arc::new(Network::make(&node, 6, &[]));
    let offer = node.create_offer("https://over.example.com/?s={s1}&r={click_id}");
    let link = node.create_link(json!({"affiliate_id": 7}));
    node.attach(link, offer);
    node.refresh();
    // As many that none of them waits for another visitor, when each waits for the node.
    let load = Load {
        clicks_a_second: 100.0,
        connections: 100,
        clicks_each: None,
        keeps_click_ids: false,
        seed: run.random.random(),
    }
    .start(node.clicks, &network);
    let begun = load.warm_up();
    load.wait_for(lengths(50, 500, 1_000));

    let mut crowd = Crowd::come(node.clicks, link, lengths(32, 64, 64));
    let before_peak = Instant::now();
    let peak = crowd.click(Pace::AsAnswered, at_peak);
    crowd.hear_the_rest();
    let (came, cpu_before) = (Instant::now(), node.cpu_time());
    let over = crowd.click(Pace::ASecond(peak.answered_a_second() * 3.0), overloaded);
    let cpu = (node.cpu_time() - cpu_before).as_secs_f64() / over.took.as_secs_f64();
    let left = Instant::now();
    crowd.hear_the_rest();
    let heard = left.elapsed();
    // From then on, they find it as it was.
    let recovered = left + recovers;
    wait::until("the node to recover", || (Instant::now() >= recovered).then_some(()));
    load.wait_for(lengths(100, 500, 1_000));
    let ended = Instant::now();
    let seen = load.stop();
    run.tell(&[
        ("peak", &format!("{:.0}/s", peak.answered_a_second())),
        ("offered", &format!("{:.0}/s", over.offered as f64 / over.took.as_secs_f64())),
        ("turned_away", &over.turned_away),
        ("goodput", &format!("{:.0}/s", over.answered_a_second())),
        ("of_peak", &format!("{:.1}%", over.answered_a_second() / peak.answered_a_second() * 100.0)),
        ("node_cpu", &format!("{cpu:.2}")),
        ("backlog_heard_in", &millis(Some(heard))),
        ("requests", &seen.requests()),
        ("wrong", &seen.wrong_count),
        ("reset", &(seen.unanswered + seen.torn)),
        ("p99_without", &millis(seen.p99(begun, before_peak))),
        ("p99_at_peak", &millis(seen.p99(before_peak, came))),
        ("p99_with", &millis(seen.p99(came, left))),
        ("p99_after", &millis(seen.p99(recovered, ended))),
    ]);
    seen.assert_none_is_wrong();
    assert_eq!(seen.unanswered + seen.torn + seen.refused, 0, "clicks without an answer");
    assert!(over.answered > 0 && over.offered > over.answered, "{over:?}");
    // On the connections that were full, and on new ones.
    crowd.click(Pace::AsAnswered, Duration::from_millis(100));
    crowd.hear_the_rest();
    assert_eq!(node.click(&format!("/sl?id={link}&aff_id=7")).destination(), "over.example.com");
}

/// Connections that are as full as they can be.
struct Crowd {
    people: Vec<Person>,
    space: Vec<u8>,
}

struct Person {
    stream: TcpStream,
    nth: usize,
    /// Each click, and how its answer begins; over and over, because to make them costs the load more time than the node.
    clicks: Vec<(Vec<u8>, Vec<u8>)>,
    asked: u64,
    answered: u64,
    /// Of requests, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
    unread: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Pace {
    /// The next one for each that was answered.
    AsAnswered,
    /// So many, whatever is answered.
    ASecond(f64),
}

#[derive(Debug, Default)]
struct Figures {
    offered: u64,
    turned_away: u64,
    answered: u64,
    took: Duration,
}

impl Figures {
    fn answered_a_second(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }
}

impl Crowd {
    fn come(address: SocketAddr, link: i64, count: usize) -> Self {
        let people = (0..count).map(|nth| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_nonblocking(true).unwrap();
            let clicks = (0..CLICKS).map(|number| {
                let request = Request::click(&format!("/sl?id={link}&aff_id=7&s1={nth}-{number}")).to_bytes();
                let answer = format!("{FOUND}https://over.example.com/?s={nth}-{number}&r=");
                (request, answer.into_bytes())
            });
            let clicks = clicks.collect();
            Person { stream, nth, clicks, asked: 0, answered: 0, unsent: vec![], sent: 0, unread: vec![] }
        });
        Self { people: people.collect(), space: vec![0; 64 * 1024] }
    }

    fn click(&mut self, pace: Pace, time: Duration) -> Figures {
        let (begun, mut figures, mut next) = (Instant::now(), Figures::default(), 0);
        let answered_before = self.answered();
        loop {
            figures.took = begun.elapsed();
            if figures.took >= time {
                break;
            }
            match pace {
                Pace::AsAnswered => {
                    for person in &mut self.people {
                        while person.waits_for() < AT_PEAK {
                            person.ask();
                            figures.offered += 1;
                        }
                    }
                }
                Pace::ASecond(rate) => {
                    let due = (figures.took.as_secs_f64() * rate) as u64;
                    for _ in figures.offered..due {
                        next = (next + 1) % self.people.len();
                        if self.people[next].waits_for() < AT_MOST {
                            self.people[next].ask();
                        } else {
                            figures.turned_away += 1;
                        }
                    }
                    figures.offered = figures.offered.max(due);
                }
            }
            self.go_on();
        }
        figures.answered = self.answered() - answered_before;
        figures
    }

    /// Whatever was asked is answered.
    fn hear_the_rest(&mut self) {
        let begun = Instant::now();
        while self.people.iter().any(|person| person.waits_for() > 0) {
            assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for the last answers");
            self.go_on();
        }
    }

    fn answered(&self) -> u64 {
        self.people.iter().map(|person| person.answered).sum()
    }

    fn go_on(&mut self) {
        let mut moved = false;
        for person in &mut self.people {
            moved |= person.send() | person.hear(&mut self.space);
        }
        if !moved {
            // Nobody can go on: the node is at it.
            thread::sleep(LOOK_EVERY);
        }
    }
}

impl Person {
    fn waits_for(&self) -> u64 {
        self.asked - self.answered
    }

    fn ask(&mut self) {
        self.unsent.extend_from_slice(&self.clicks[self.asked as usize % CLICKS].0);
        self.asked += 1;
    }

    /// Whether some of it was taken.
    fn send(&mut self) -> bool {
        if self.unsent.is_empty() {
            return false;
        }
        match self.stream.write(&self.unsent[self.sent..]) {
            Ok(count) => {
                self.sent += count;
                if self.sent == self.unsent.len() {
                    self.unsent.clear();
                    self.sent = 0;
                }
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("connection {}: {error} after {} answers", self.nth, self.answered),
        }
    }

    /// Whether something has come. Each answer is the one that is due.
    fn hear(&mut self, space: &mut [u8]) -> bool {
        match self.stream.read(space) {
            Ok(0) => panic!("connection {} was closed after {} answers", self.nth, self.answered),
            Ok(count) => self.unread.extend_from_slice(&space[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("connection {}: {error} after {} answers", self.nth, self.answered),
        }
        let mut read = 0;
        while let Some(end) = memchr::memmem::find(&self.unread[read..], b"\r\n\r\n") {
            let answer = &self.unread[read..read + end];
            let (_, due) = &self.clicks[self.answered as usize % CLICKS];
            assert!(answer.starts_with(due), "{}: {}", due.escape_ascii(), answer.escape_ascii());
            self.answered += 1;
            read += end + 4;
        }
        self.unread.drain(..read);
        true
    }
}

const FOUND: &str = "HTTP/1.1 302 Found\r\nlocation: ";

const CLICKS: usize = 64;

/// Requests on their way on each connection: enough for the node never to wait.
const AT_PEAK: u64 = 16;

/// The same where there are too many.
const AT_MOST: u64 = 512;

const LOOK_EVERY: Duration = Duration::from_micros(200);
