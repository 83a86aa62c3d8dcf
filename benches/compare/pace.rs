//! Clicks that come when they come, whether or not the ones before are answered: each wait counts from the moment at which
//! the click was due, so that a stall counts for every click that it kept.
//!
//! A loop that never sleeps, on a core of its own: a timer of a runtime goes by milliseconds, and what is measured here are
//! tenths of one. Visitors know nothing of each other, so that the times between clicks are exponential; the seed is fixed,
//! so that every server meets the same clicks.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// In ascending order.
pub struct Waits(Vec<Duration>);

impl Waits {
    /// In microseconds.
    pub fn share(&self, share: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6
    }
}

/// Sends clicks at that rate, over connections that are kept.
pub fn clicks(address: SocketAddr, requests: &[String], clicks_a_second: f64, time: Duration) -> Waits {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
    let ready = epoll::create(epoll::CreateFlags::CLOEXEC).expect("the system has epoll");
    let mut visitors: Vec<Visitor> =
        (0..CONNECTIONS).map(|place| Visitor::new(address, &ready, place)).collect();
    let mut free: Vec<usize> = (0..CONNECTIONS).collect();
    let mut waiting: VecDeque<Instant> = VecDeque::new();
    let mut waits = Vec::with_capacity((clicks_a_second * time.as_secs_f64() * 1.1) as usize);
    let mut events = Vec::with_capacity(CONNECTIONS);
    let end_of_head = Finder::new(b"\r\n\r\n");
    let began = Instant::now();
    let mut due = began;
    let mut nth = 0;
    loop {
        let now = Instant::now();
        while due <= now && due < began + time {
            waiting.push_back(due);
            due += Duration::from_secs_f64(-(1.0 - random.random::<f64>()).ln() / clicks_a_second);
        }
        while !waiting.is_empty()
            && let Some(place) = free.pop()
        {
            let due = waiting.pop_front().expect("one waits");
            visitors[place].send(&requests[nth % requests.len()], due);
            nth += 1;
        }
        if due >= began + time && waiting.is_empty() && free.len() == CONNECTIONS {
            break;
        }
        if now > began + time + PATIENCE {
            // More clicks than the server, or the load itself, got time for.
            assert!(!waits.is_empty(), "no click was answered");
            waits.extend(waiting.iter().map(|due| due.elapsed()));
            let on_their_way = visitors.iter().enumerate().filter(|(place, _)| !free.contains(place));
            waits.extend(on_their_way.map(|(_, visitor)| visitor.due.elapsed()));
            break;
        }
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&ready, spare_capacity(&mut events), Some(&at_once)).expect("waiting does not fail");
        for event in events.drain(..) {
            let place = event.data.u64() as usize;
            if visitors[place].read(&end_of_head) {
                waits.push(visitors[place].due.elapsed());
                free.push(place);
            }
        }
    }
    waits.sort_unstable();
    Waits(waits)
}

struct Visitor {
    stream: TcpStream,
    /// When the click should have been sent that is on its way.
    due: Instant,
    answer: Vec<u8>,
}

impl Visitor {
    fn new(address: SocketAddr, ready: impl std::os::fd::AsFd, place: usize) -> Self {
        let stream = TcpStream::connect(address).expect("the server takes connections");
        stream.set_nodelay(true).expect("a connection takes options");
        stream.set_nonblocking(true).expect("a connection can be made non-blocking");
        epoll::add(ready, &stream, epoll::EventData::new_u64(place as u64), epoll::EventFlags::IN)
            .expect("a connection can be waited for");
        Self { stream, due: Instant::now(), answer: Vec::with_capacity(4096) }
    }

    fn send(&mut self, request: &str, due: Instant) {
        self.due = due;
        self.answer.clear();
        let bytes = self.stream.write(request.as_bytes()).expect("the server keeps its connections");
        assert_eq!(bytes, request.len(), "a request fits into an empty buffer");
    }

    /// Whether the whole answer is here.
    fn read(&mut self, end_of_head: &Finder<'_>) -> bool {
        let mut space = [0; 4096];
        match self.stream.read(&mut space) {
            Ok(0) => panic!("the server closed a connection"),
            Ok(bytes) => self.answer.extend_from_slice(&space[..bytes]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("a connection failed: {error}"),
        }
        let Some(end) = end_of_head.find(&self.answer) else { return false };
        assert!(self.answer.starts_with(b"HTTP/1.1 302 "), "{}", String::from_utf8_lossy(&self.answer));
        self.answer.len() >= end + 4 + body_bytes(&self.answer[..end])
    }
}

fn body_bytes(head: &[u8]) -> usize {
    let head = std::str::from_utf8(head).expect("a head is text");
    let length = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    length.expect("every answer tells its length").trim().parse().expect("a length is a number")
}

const CONNECTIONS: usize = 64;

/// For answers, once all clicks are sent.
pub const PATIENCE: Duration = Duration::from_secs(5);

const SEED: u64 = 302;
