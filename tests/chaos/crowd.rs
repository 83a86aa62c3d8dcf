//! Clients that mean harm: hundreds or thousands of connections in one thread, which send what they like and never read.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::support::wait::DEADLINE;

pub struct Crowd {
    address: SocketAddr,
    ready: OwnedFd,
    people: Vec<Person>,
    /// How long those were connected in whose places others are.
    gone: Vec<Duration>,
}

/// A drip that is due waits for others for so long, so that thousands a second take no core.
const DRIPS_TOGETHER: Duration = Duration::from_millis(2);

/// At each look, of which there are ten a second and more.
const REPLACED_AT_ONCE: usize = 10;

/// One connection.
pub struct Person {
    stream: TcpStream,
    /// Before it was.
    pub opened: Instant,
    pub bytes_sent: usize,
    /// When the other side had closed it.
    pub ended: Option<Instant>,
}

impl Crowd {
    /// As many connections as that, one after the other, in no less than such a time. Each sends the first of these bytes, if there
    /// are any: who says nothing at all is the system's for a while, and not yet the node's (TCP_DEFER_ACCEPT).
    pub fn come(address: SocketAddr, count: usize, time: Duration, bytes: &[u8]) -> Self {
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC).expect("the system has epoll");
        let (begun, pause) = (Instant::now(), time / count as u32);
        let come = |nth| {
            thread::sleep((begun + pause * nth as u32).saturating_duration_since(Instant::now()));
            let mut person = Person::come(address, &ready, nth);
            person.send_next(bytes);
            person
        };
        let people = (0..count).map(come).collect();
        Self { address, ready, people, gone: vec![] }
    }

    /// Each sends these bytes over and over, up to so many, as fast as they are taken. Until all are closed.
    pub fn send(&mut self, bytes: &[u8], bytes_max: usize) {
        let begun = Instant::now();
        for person in &mut self.people {
            person.send(bytes, bytes_max);
        }
        while self.is_there() {
            assert!(begun.elapsed() < DEADLINE + self.patience(), "{} are never closed", self.left());
            for nth in self.look(Duration::from_millis(100)) {
                self.people[nth].send(bytes, bytes_max);
            }
        }
    }

    /// Each sends the next of these bytes after each such time, one after the other. For so long another one comes in the place of
    /// each that is closed; then until all are closed. Looks around each time.
    pub fn drip(&mut self, bytes: &[u8], every: Duration, time: Duration, mut look_around: impl FnMut()) {
        let begun = Instant::now();
        let pause = every / self.people.len() as u32;
        let (mut due, mut next) = (begun, 0);
        while self.is_there() {
            assert!(begun.elapsed() < time + DEADLINE + self.patience(), "{} are never closed", self.left());
            if begun.elapsed() < time {
                self.replace(bytes);
            }
            while due <= Instant::now() {
                let person = &mut self.people[next];
                if person.ended.is_none() {
                    person.send_next(bytes);
                }
                due += pause;
                next = (next + 1) % self.people.len();
                if next == 0 {
                    look_around();
                }
            }
            self.look(
                due.saturating_duration_since(Instant::now())
                    .clamp(DRIPS_TOGETHER, Duration::from_millis(100)),
            );
        }
    }

    /// Not all at once: who has been closed comes again when they notice.
    fn replace(&mut self, bytes: &[u8]) {
        let ended = self.people.iter_mut().enumerate().filter(|(_, person)| person.ended.is_some());
        for (nth, person) in ended.take(REPLACED_AT_ONCE) {
            let before = std::mem::replace(person, Person::come(self.address, &self.ready, nth));
            person.send_next(bytes);
            self.gone.extend(before.ended.map(|ended| ended - before.opened));
        }
    }

    pub fn people(&self) -> &[Person] {
        &self.people
    }

    /// How long each of them was connected, when all are closed.
    pub fn stays(&self) -> Vec<Duration> {
        let last = self.people.iter().map(|person| person.ended.expect("all are closed") - person.opened);
        self.gone.iter().copied().chain(last).collect()
    }

    fn is_there(&self) -> bool {
        self.left() > 0
    }

    fn left(&self) -> usize {
        self.people.iter().filter(|person| person.ended.is_none()).count()
    }

    /// The more there are, the longer it takes to do something for each.
    fn patience(&self) -> Duration {
        Duration::from_millis(10) * self.people.len() as u32
    }

    /// Waits for something to happen, and tells who can send again.
    fn look(&mut self, time: Duration) -> Vec<usize> {
        let mut events = Vec::with_capacity(1024);
        let time = Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
        epoll::wait(&self.ready, spare_capacity(&mut events), Some(&time)).expect("waiting does not fail");
        let mut can_send = vec![];
        for event in events {
            let (nth, flags) = (event.data.u64() as usize, event.flags);
            let person = &mut self.people[nth];
            if flags.intersects(EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP) {
                person.ended.get_or_insert_with(Instant::now);
                // It has been told, and would be over and over.
                epoll::delete(&self.ready, &person.stream).expect("it was waited for");
            } else {
                can_send.push(nth);
            }
        }
        can_send
    }
}

impl Person {
    fn come(address: SocketAddr, ready: &OwnedFd, nth: usize) -> Self {
        let opened = Instant::now();
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, None).expect("there are sockets left");
        // What the system holds for a client that does not read is not the node's.
        socket.set_recv_buffer_size(4 << 10).and_then(|()| socket.set_send_buffer_size(64 << 10)).unwrap();
        socket.connect_timeout(&address.into(), DEADLINE).expect("the node takes connections");
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(true).unwrap();
        // Edge-triggered: that there is room to send is told once.
        let flags = EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(ready, &stream, EventData::new_u64(nth as u64), flags).expect("it can be waited for");
        Self { stream, opened, bytes_sent: 0, ended: None }
    }

    /// The next one of these bytes.
    fn send_next(&mut self, bytes: &[u8]) {
        let sent = self.bytes_sent;
        // A failure is told once more as an event.
        if let Some(next) = bytes.get(sent..=sent)
            && self.stream.write(next).is_ok()
        {
            self.bytes_sent += 1;
        }
    }

    fn send(&mut self, bytes: &[u8], bytes_max: usize) {
        while self.bytes_sent < bytes_max {
            match self.stream.write(&bytes[self.bytes_sent % bytes.len()..]) {
                Ok(count) => self.bytes_sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // It is told once more as an event.
                Err(_) => return,
            }
        }
    }
}

/// Allows this process, and those that it starts from now on, as many open files as the system lets it, and says how many.
pub fn allow_open_files() -> usize {
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum }).unwrap();
    limits.maximum.map_or(usize::MAX, |files| files as usize)
}
