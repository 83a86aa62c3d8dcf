//! A server that does nothing but answer: an epoll loop, one thread, a fixed redirect once a blank line has come. What it
//! costs is the kernel's share of any click.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use memchr::memmem::Finder;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::net::{SocketFlags, accept_with};

/// Tells its address on standard output, and then serves until the process is ended.
pub fn serve() {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("there is a free port");
    listener.set_nonblocking(true).expect("a listener can be made non-blocking");
    println!("{}", listener.local_addr().expect("it is bound"));
    let ready = epoll::create(epoll::CreateFlags::CLOEXEC).expect("the system has epoll");
    epoll::add(&ready, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)
        .expect("a listener can be waited for");
    let close = Finder::new(b"\r\nConnection: close\r\n");
    let mut connections: Vec<Option<Visitor>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut events = Vec::with_capacity(512);
    loop {
        epoll::wait(&ready, spare_capacity(&mut events), None).expect("waiting does not fail");
        for event in events.drain(..) {
            let token = event.data.u64();
            if token != LISTENER {
                let place = token as usize;
                let is_open = connections[place].as_mut().is_some_and(|visitor| visitor.serve(&close));
                if !is_open {
                    connections[place] = None;
                    free.push(place);
                }
                continue;
            }
            while let Ok(stream) = accept_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                let place = free.pop().unwrap_or_else(|| {
                    connections.push(None);
                    connections.len() - 1
                });
                epoll::add(&ready, &stream, epoll::EventData::new_u64(place as u64), epoll::EventFlags::IN)
                    .expect("a connection can be waited for");
                connections[place] = Some(Visitor { stream: stream.into(), unread: Vec::new() });
            }
        }
    }
}

struct Visitor {
    stream: TcpStream,
    /// The beginning of a head whose end has not come.
    unread: Vec<u8>,
}

impl Visitor {
    /// Whether the connection is still open.
    fn serve(&mut self, close: &Finder<'_>) -> bool {
        let mut space = [0; 4096];
        let read = match self.stream.read(&mut space) {
            Ok(0) => return false,
            Ok(bytes) => &space[..bytes],
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let head = if self.unread.is_empty() {
            read
        } else {
            self.unread.extend_from_slice(read);
            &self.unread
        };
        if !head.ends_with(b"\r\n\r\n") {
            if self.unread.is_empty() {
                self.unread.extend_from_slice(read);
            }
            return true;
        }
        let is_last = close.find(head).is_some();
        let answer = if is_last { LAST_ANSWER } else { ANSWER };
        self.unread.clear();
        // A few hundred bytes into an empty buffer: they fit.
        self.stream.write(answer).is_ok_and(|bytes| bytes == answer.len()) && !is_last
    }
}

const LISTENER: u64 = u64::MAX;

/// As long as an answer of smartlink, give or take a few bytes.
const ANSWER: &[u8] = b"HTTP/1.1 302 Found\r\n\
location: https://shop301.example.com/landing?aff=7&r=AZtbGO4AAAAABQcAAABLAAAAAQAAEwAAAAAAAAAAAAAA&sub=campaign-1\r\n\
cache-control: no-store\r\n\
referrer-policy: strict-origin-when-cross-origin\r\n\
content-length: 0\r\n\
date: Sun, 22 Nov 2026 12:00:00 GMT\r\n\r\n";

const LAST_ANSWER: &[u8] = b"HTTP/1.1 302 Found\r\n\
location: https://shop301.example.com/landing?aff=7&r=AZtbGO4AAAAABQcAAABLAAAAAQAAEwAAAAAAAAAAAAAA&sub=campaign-1\r\n\
cache-control: no-store\r\n\
referrer-policy: strict-origin-when-cross-origin\r\n\
content-length: 0\r\n\
connection: close\r\n\
date: Sun, 22 Nov 2026 12:00:00 GMT\r\n\r\n";
