//! Visitors who come when they come: clicks are due at a set rate, at random times, whatever became of those before, and each
//! waits from the moment at which it was due. What is measured is less fine than in benches/compare/pace.rs, which takes a core
//! for it; here, the load sleeps, and a server may fail it.
//!
//! Nobody clicks twice: a click whose connection ends before its answer is counted as that.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use socket2::{Domain, Socket, Type};

use crate::network::{Click, Network};
use crate::support::http::Answer;
use crate::support::wait::{self, DEADLINE};

pub struct Load {
    pub clicks_a_second: f64,
    /// That are kept. All of them are used, in turn.
    pub connections: usize,
    /// After so many answers a visitor closes their connection.
    pub clicks_each: Option<u64>,
    pub keeps_click_ids: bool,
    pub seed: u64,
}

/// Visitors on their way. They are sent home when this goes.
pub struct Running {
    connections: usize,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Seen>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    answered: AtomicU64,
}

/// What became of all clicks.
#[derive(Default)]
pub struct Seen {
    pub answers: Vec<Waited>,
    /// Of all answers, where they are kept.
    pub click_ids: Vec<String>,
    /// Answers that are none of the network's, and why; the first of them.
    pub wrong: Vec<String>,
    pub wrong_count: u64,
    /// Clicks for which there was no connection.
    pub refused: u64,
    /// Connections that ended while a click was on its way, before the first byte of its answer.
    pub unanswered: u64,
    pub lost: Vec<Lost>,
    /// The same in the middle of an answer.
    pub torn: u64,
    /// Answers that were the last on their connection.
    pub goodbyes: u64,
    /// Clicks that were on their way when their visitors' patience ended; and those of such visitors for which there was no place.
    pub gave_up: u64,
    pub never_sent: u64,
}

#[derive(Clone, Copy)]
pub struct Waited {
    due: Instant,
    pub answered: Instant,
}

impl Load {
    pub fn start(self, address: SocketAddr, network: &Arc<Network>) -> Running {
        self.start_with(address, network, None)
    }

    /// Visitors who go away when they have waited for so long.
    pub fn start_impatient(self, address: SocketAddr, network: &Arc<Network>, patience: Duration) -> Running {
        self.start_with(address, network, Some(patience))
    }

    fn start_with(self, address: SocketAddr, network: &Arc<Network>, patience: Option<Duration>) -> Running {
        let shared = Arc::new(Shared::default());
        let visitors = Visitors {
            address,
            network: Arc::clone(network),
            random: Xoshiro256PlusPlus::seed_from_u64(self.seed),
            ready: epoll::create(epoll::CreateFlags::CLOEXEC).expect("the system has epoll"),
            places: (0..self.connections).map(|_| None).collect(),
            empty: (0..self.connections).rev().collect(),
            idle: VecDeque::new(),
            patience,
            asking: VecDeque::new(),
            opened: 0,
            clicks_each: self.clicks_each,
            keeps_click_ids: self.keeps_click_ids,
            shared: Arc::clone(&shared),
            seen: Seen::default(),
        };
        let thread = thread::spawn(move || visitors.click(self.clicks_a_second));
        Running { connections: self.connections, shared, thread: Some(thread) }
    }
}

impl Running {
    /// Waits until its connections are open and the server has met its clicks, and says when that was.
    pub fn warm_up(&self) -> Instant {
        self.wait_for(self.connections as u64 * 2);
        Instant::now()
    }

    /// Waits for so many further answers.
    pub fn wait_for(&self, answers: u64) {
        let enough = self.answered() + answers;
        wait::until("answers", || (self.answered() >= enough).then_some(()));
    }

    fn answered(&self) -> u64 {
        let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        assert!(!ended, "the load ended before it was told to");
        self.shared.answered.load(Relaxed)
    }

    /// No further click is due. Waits for the answers to those that were.
    pub fn stop(mut self) -> Seen {
        self.shared.is_over.store(true, Relaxed);
        self.thread.take().expect("it is stopped once").join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Seen {
    /// How long 99 of 100 clicks waited that were due in this time.
    pub fn p99(&self, from: Instant, until: Instant) -> Option<Duration> {
        let of_then = self.answers.iter().filter(|waited| (from..until).contains(&waited.due));
        let mut waits: Vec<Duration> = of_then.map(|waited| waited.answered - waited.due).collect();
        waits.sort_unstable();
        waits.get(waits.len().saturating_sub(1) * 99 / 100).copied()
    }

    /// When the first click was answered after that.
    pub fn first_after(&self, start: Instant) -> Option<Duration> {
        self.answers
            .iter()
            .map(|waited| waited.answered)
            .filter(|&answered| answered > start)
            .min()
            .map(|at| at - start)
    }

    pub fn requests(&self) -> u64 {
        self.answers.len() as u64 + self.wrong_count + self.unanswered + self.torn
    }

    #[track_caller]
    pub fn assert_none_is_wrong(&self) {
        assert_eq!(self.wrong_count, 0, "wrong redirects:\n{}", self.wrong.join("\n"));
        assert!(!self.answers.is_empty(), "no click was answered");
    }
}

/// A click that was sent and not answered.
#[derive(Clone, Copy)]
pub struct Lost {
    pub sent: Instant,
    pub ended: Instant,
    /// Of its connection, before it.
    pub answers: u64,
}

struct Visitors {
    address: SocketAddr,
    network: Arc<Network>,
    random: Xoshiro256PlusPlus,
    ready: OwnedFd,
    places: Vec<Option<Visitor>>,
    empty: Vec<usize>,
    /// Places of connections that wait for a click; the one that waits for the longest time comes first.
    idle: VecDeque<usize>,
    patience: Option<Duration>,
    /// The names of those who have some, and since when they wait.
    asking: VecDeque<(Instant, u64)>,
    opened: u32,
    clicks_each: Option<u64>,
    keeps_click_ids: bool,
    shared: Arc<Shared>,
    seen: Seen,
}

/// A connection, and the click that is on it.
struct Visitor {
    /// So that what the system tells of its predecessor is none of its business.
    name: u64,
    stream: TcpStream,
    is_connected: bool,
    pending: Option<Pending>,
    unread: Vec<u8>,
    answers: u64,
}

struct Pending {
    click: Click,
    due: Instant,
    sent: Instant,
}

impl Visitors {
    fn click(mut self, clicks_a_second: f64) -> Seen {
        let mut waiting: VecDeque<Instant> = VecDeque::new();
        let mut events = Vec::with_capacity(256);
        let mut due = Instant::now();
        let mut over_since = None;
        loop {
            if over_since.is_none() && self.shared.is_over.load(Relaxed) {
                over_since = Some(Instant::now());
            }
            let now = Instant::now();
            while due <= now && over_since.is_none() {
                waiting.push_back(due);
                due += Duration::from_secs_f64(-(1.0 - self.random.random::<f64>()).ln() / clicks_a_second);
            }
            if let Some(patience) = self.patience {
                self.give_up(now, patience);
            }
            while let Some(&due) = waiting.front()
                && self.send(due)
            {
                waiting.pop_front();
            }
            if self.patience.is_some() {
                // Nobody stands in a line to wait in one.
                self.seen.never_sent += waiting.len() as u64;
                waiting.clear();
            }
            let busy = self.places.iter().flatten().any(|visitor| visitor.pending.is_some());
            if let Some(since) = over_since {
                if waiting.is_empty() && !busy {
                    return self.seen;
                }
                assert!(since.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for the last answers");
            }
            let sleep = due.saturating_duration_since(Instant::now()).min(LOOK_EVERY);
            let sleep = Timespec { tv_sec: 0, tv_nsec: i64::from(sleep.subsec_nanos()) };
            epoll::wait(&self.ready, spare_capacity(&mut events), Some(&sleep))
                .expect("waiting does not fail");
            for event in events.drain(..) {
                let (name, flags) = (event.data.u64(), event.flags);
                self.goes_on(name, flags);
            }
        }
    }

    fn give_up(&mut self, now: Instant, patience: Duration) {
        while let Some(&(due, name)) = self.asking.front()
            && due + patience <= now
        {
            self.asking.pop_front();
            let place = place(name);
            let is_there = |visitor: &Visitor| visitor.name == name && visitor.pending.is_some();
            if self.places[place].as_ref().is_some_and(is_there) {
                self.seen.gave_up += 1;
                self.leave(place);
            }
        }
    }

    /// Whether there was a connection for it, or none was to be had.
    fn send(&mut self, due: Instant) -> bool {
        let click = self.network.draw(&mut self.random);
        let pending = Pending { click, due, sent: Instant::now() };
        // Who is there already comes first, once all of them were: so that none is idle for long, and each is told of an end.
        let is_open = self.opened as usize >= self.places.len();
        if let Some(place) = is_open.then(|| self.idle.pop_front()).flatten() {
            self.places[place].as_mut().expect("it is idle").pending = Some(pending);
            self.write(place);
            return true;
        }
        let Some(place) = self.empty.pop() else { return false };
        self.opened += 1;
        let name = u64::from(self.opened) << 32 | place as u64;
        match connect(self.door()) {
            Ok((stream, is_connected)) => {
                if self.patience.is_some() {
                    self.asking.push_back((due, name));
                }
                let flags = if is_connected { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
                epoll::add(&self.ready, &stream, EventData::new_u64(name), flags)
                    .expect("it can be waited for");
                self.places[place] = Some(Visitor {
                    name,
                    stream,
                    is_connected,
                    pending: Some(pending),
                    unread: Vec::new(),
                    answers: 0,
                });
                if is_connected {
                    self.write(place);
                }
            }
            Err(_) => {
                self.seen.refused += 1;
                self.empty.push(place);
            }
        }
        true
    }

    /// A node that listens on every address of the machine is asked on many of them: each has ports of its own for its clients, and
    /// those of one are gone after some seconds of thousands of connections each.
    fn door(&self) -> SocketAddr {
        if !self.address.ip().is_unspecified() {
            return self.address;
        }
        let host = 1 + (self.opened % ADDRESSES) as u8;
        SocketAddr::from(([127, 0, 0, host], self.address.port()))
    }

    fn write(&mut self, place: usize) {
        let visitor = self.places[place].as_mut().expect("somebody is there");
        let pending = visitor.pending.as_mut().expect("there is a click to send");
        pending.sent = Instant::now();
        let request = pending.click.request();
        // What fails here is told once more when it is read.
        if let Ok(bytes) = visitor.stream.write(&request) {
            assert_eq!(bytes, request.len(), "a request fits into an empty buffer");
        }
    }

    /// Something has happened to a connection.
    fn goes_on(&mut self, name: u64, flags: EventFlags) {
        let place = place(name);
        let Some(visitor) = self.places[place].as_mut().filter(|visitor| visitor.name == name) else {
            return;
        };
        if !visitor.is_connected {
            if visitor.stream.take_error().is_ok_and(|error| error.is_none())
                && flags.contains(EventFlags::OUT)
            {
                visitor.is_connected = true;
                epoll::modify(&self.ready, &visitor.stream, EventData::new_u64(name), EventFlags::IN)
                    .expect("it is waited for");
                return self.write(place);
            }
            self.seen.refused += 1;
            return self.leave(place);
        }
        let mut space = [0; 4096];
        let ended = match visitor.stream.read(&mut space) {
            Ok(0) => true,
            Ok(bytes) => {
                visitor.unread.extend_from_slice(&space[..bytes]);
                false
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => true,
        };
        if ended {
            if let Some(pending) = &visitor.pending {
                let count =
                    if visitor.unread.is_empty() { &mut self.seen.unanswered } else { &mut self.seen.torn };
                *count += 1;
                let lost = Lost { sent: pending.sent, ended: Instant::now(), answers: visitor.answers };
                self.seen.lost.push(lost);
            }
            return self.leave(place);
        }
        let Some(pending) = &visitor.pending else {
            let unread = String::from_utf8_lossy(&visitor.unread).into_owned();
            self.is_wrong(format!("bytes that nobody asked for: {unread:?}"));
            return self.leave(place);
        };
        let Some((answer, bytes)) = Answer::parse(&visitor.unread, pending.click.is_probe()) else { return };
        visitor.unread.drain(..bytes);
        visitor.answers += 1;
        let has_done = self.clicks_each.is_some_and(|clicks| visitor.answers >= clicks);
        let (now, pending) = (Instant::now(), visitor.pending.take().expect("it was looked at"));
        match self.network.check(pending.click, pending.sent, now, &answer) {
            Ok(click_id) => {
                if self.keeps_click_ids {
                    self.seen.click_ids.push(click_id);
                }
                self.seen.answers.push(Waited { due: pending.due, answered: now });
                self.shared.answered.fetch_add(1, Relaxed);
            }
            Err(why) => self.is_wrong(why),
        }
        if answer.is_last() {
            self.seen.goodbyes += 1;
            return self.leave(place);
        }
        if has_done {
            return self.leave(place);
        }
        self.idle.push_back(place);
    }

    fn is_wrong(&mut self, why: String) {
        self.seen.wrong_count += 1;
        if self.seen.wrong.len() < WRONG_SHOWN {
            self.seen.wrong.push(why);
        }
    }

    /// Closes the connection. The next click that finds no other opens one.
    fn leave(&mut self, place: usize) {
        self.places[place] = None;
        self.idle.retain(|&idle| idle != place);
        self.empty.push(place);
    }
}

/// Of the visitor of that name.
fn place(name: u64) -> usize {
    (name & u64::from(u32::MAX)) as usize
}

/// Begins a connection, and says whether it is there already.
fn connect(address: SocketAddr) -> std::io::Result<(TcpStream, bool)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    let is_connected = match socket.connect(&address.into()) {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => false,
        Err(error) => return Err(error),
    };
    Ok((socket.into(), is_connected))
}

/// Whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(20);

const WRONG_SHOWN: usize = 5;

const ADDRESSES: u32 = 50;
