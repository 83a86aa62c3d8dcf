//! The listening sockets, and the beginning and end of the threads behind them: one thread a core, each with its own runtime,
//! its own `SO_REUSEPORT` socket on every address, and its own [`Worker`].
//!
//! A socket without `SO_REUSEPORT` is the only one on its address: systemd has opened it, and keeps it open for the next process.
//! All threads accept from it. For each connection the system then wakes those of them that have nothing to do, and one gets it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::watch;

use crate::click_id::{ClickIdKeys, NodeIdentity, WORKERS_MAX, WorkerIndex};
use crate::clicklog::ClickLog;
use crate::ledger::ConversionDesk;
use crate::state::{LiveCertificate, LiveGeo, LiveTable, Metrics};

use super::click_ids::ClickIds;
use super::connection::Phase;
use super::conversion::{ConversionOptions, Postbacks};
use super::deadlines::Deadlines;
use super::limits::{Admissions, ConnectionLimits};
use super::pulse::{Pulse, thread_name};
use super::thread;
use super::tls;
use super::worker::{ClickOptions, Worker, system_random};

/// Where and how clicks are taken.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port 0 takes a free one.
    pub listen: Vec<ClickAddress>,
    /// Threads that take clicks, at least 1.
    pub threads: usize,
    pub settings: Settings,
    pub conversion: ConversionOptions,
}

/// What may be changed while clicks are taken.
#[derive(Clone, Debug)]
pub struct Settings {
    pub click: ClickOptions,
    pub deadlines: Deadlines,
    pub limits: ConnectionLimits,
}

/// Where clicks are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClickAddress {
    pub address: SocketAddr,
    pub tls: bool,
    /// Trusted proxies alone connect, and say by a PROXY header in whose name.
    pub proxy_protocol: bool,
}

impl ClickAddress {
    /// What is to be said behind it.
    pub fn remark(&self) -> &'static str {
        if self.proxy_protocol { ", behind the PROXY protocol" } else { "" }
    }
}

/// As a URL, without a path.
impl fmt::Display for ClickAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }
}

/// Why clicks cannot be taken where they are to be.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen for clicks on {address}: {}", explain_bind(.source))]
    Refused { address: SocketAddr, source: io::Error },
    /// What waits in its queue would be reset, or wait for ever.
    #[error(
        "there is a socket for {0}, of the process that runs or of systemd, which is not among the addresses that are to be \
         listened on; list it for clicks (edge.listen, edge.tls_listen), take it out of the socket unit, or end that process \
         and start without --takeover"
    )]
    Unwanted(SocketAddr),
}

/// What the edge works with, made by whoever composes the process.
pub struct Supplies<'a> {
    pub click_id_keys: &'a ClickIdKeys,
    /// Nobody has been it before.
    pub node: NodeIdentity,
    pub table: &'a LiveTable,
    pub geo: &'a LiveGeo,
    pub metrics: &'a Arc<Metrics>,
    /// Where conversions are handed in.
    pub conversions: &'a ConversionDesk,
    /// One for each thread, or none at all: then clicks are not written down.
    pub click_logs: Vec<ClickLog>,
    /// Of the addresses with TLS; without it, those are not served.
    pub certificate: Option<&'a Arc<LiveCertificate>>,
}

/// Bound sockets, not yet accepting.
#[derive(Debug)]
pub struct Bound {
    addresses: Vec<ClickAddress>,
    /// For each thread, its sockets: one on every address, or more of those that were inherited. One that somebody keeps open is
    /// that of all threads.
    sockets: Vec<Vec<(ClickAddress, Arc<StdListener>)>>,
    options: Options,
}

/// The edge while it takes clicks.
#[derive(Debug)]
pub struct Edge {
    phase: watch::Sender<Phase>,
    threads: Vec<JoinHandle<()>>,
    sockets: ClickSockets,
    settings: watch::Sender<Arc<Settings>>,
    admissions: Arc<Admissions>,
    pulse: Pulse,
}

/// The listening sockets of an edge, for as long as it accepts.
#[derive(Clone, Debug)]
pub struct ClickSockets(Arc<[Weak<StdListener>]>);

/// How the edge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every connection finished by itself.
    Clean,
    /// The deadline closed the rest.
    Deadline,
}

/// Who this process is in click ids: nobody has been it before. Fails if the system has no randomness.
pub fn draw_node_identity() -> io::Result<NodeIdentity> {
    Ok(NodeIdentity::new(system_random()?))
}

/// Binds every address for every thread. Nothing is accepted yet. `inherited`: sockets of these addresses that listen already,
/// and whose queues are full of clicks perhaps, of the process before this one or of systemd; they are used in the place of new
/// ones, every one of them.
pub fn bind(options: Options, mut inherited: Vec<StdListener>) -> Result<Bound, BindError> {
    let threads = options.threads.max(1);
    let mut addresses = Vec::new();
    let mut sockets: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
    for listener in &options.listen {
        let wanted = listener.address;
        let in_words = |source| BindError::Refused { address: wanted, source };
        let mut of_address = take_those_on(wanted, &mut inherited).map_err(in_words)?;
        let mut address = match of_address.first() {
            Some(socket) => socket.local_addr().map_err(in_words)?,
            None => {
                refuse_if_taken(wanted).map_err(in_words)?;
                wanted
            }
        };
        for socket in &of_address {
            tune(&SockRef::from(socket)).map_err(in_words)?;
        }
        // There can be no other on its address.
        let is_alone = of_address.iter().any(is_kept);
        // Beside sockets on which another process accepts, clicks are given to those that listen: not before `start`.
        let make = if of_address.is_empty() { listen } else { prepare };
        while of_address.len() < threads && !is_alone {
            let socket = make(address).map_err(in_words)?;
            // With port 0, the first socket chooses and the others join it.
            address = socket.local_addr().map_err(in_words)?;
            of_address.push(socket);
        }
        let address = ClickAddress { address, ..*listener };
        let of_address: Vec<_> = of_address.into_iter().map(Arc::new).collect();
        for nth in 0..threads.max(of_address.len()) {
            let socket = Arc::clone(&of_address[nth % of_address.len()]);
            sockets[nth % threads].push((address, socket));
        }
        addresses.push(address);
    }
    match inherited.first().and_then(|socket| socket.local_addr().ok()) {
        Some(unwanted) => Err(BindError::Unwanted(unwanted)),
        None => Ok(Bound { addresses, sockets, options }),
    }
}

/// Those of the sockets that listen there; with port 0, on one port of that address.
fn take_those_on(wanted: SocketAddr, inherited: &mut Vec<StdListener>) -> io::Result<Vec<StdListener>> {
    let mut address = wanted;
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    for socket in inherited.drain(..) {
        let of_socket = socket.local_addr()?;
        if address.port() == 0 && address.ip() == of_socket.ip() {
            address.set_port(of_socket.port());
        }
        if of_socket == address { taken.push(socket) } else { left.push(socket) }
    }
    *inherited = left;
    Ok(taken)
}

impl Bound {
    /// The addresses in use, with the ports that were chosen.
    pub fn addresses(&self) -> &[ClickAddress] {
        &self.addresses
    }

    /// How many threads will take clicks.
    pub fn threads(&self) -> usize {
        self.sockets.len()
    }

    /// Begins to accept.
    pub fn start(self, supplies: Supplies<'_>) -> io::Result<Edge> {
        let Supplies { click_id_keys: keys, node, table, geo, metrics, conversions, click_logs, certificate } =
            supplies;
        for (_, socket) in self.sockets.iter().flatten() {
            defer_silent(socket);
            SockRef::from(&**socket).listen(BACKLOG)?;
        }
        let acceptor = certificate.map(tls::acceptor).transpose().map_err(io::Error::other)?;
        let (phase, _) = watch::channel(Phase::Serving);
        let settings = Arc::new(self.options.settings);
        let trusted = settings.click.trusted_proxies.clone();
        let (settings, _) = watch::channel(settings);
        tracing::info!("click ids made by this process carry node {node}");
        let admissions = Arc::new(Admissions::new(&settings.borrow().limits, trusted));
        let mut all_sockets: Vec<_> =
            self.sockets.iter().flatten().map(|(_, socket)| Arc::downgrade(socket)).collect();
        all_sockets.sort_unstable_by_key(|socket| socket.as_ptr());
        all_sockets.dedup_by(|one, other| one.ptr_eq(other));
        let pulse = Pulse::new(self.sockets.len());
        let mut threads = Vec::new();
        let mut logs = click_logs.into_iter();
        for (index, sockets) in self.sockets.into_iter().enumerate() {
            let index_of_worker = WorkerIndex::new(index).ok_or_else(too_many_threads)?;
            let click_ids = ClickIds::new(keys.clone(), node, index_of_worker);
            let options = Arc::new(settings.borrow().click.clone());
            let worker = Worker::new(options, click_ids, logs.next(), table, geo, metrics)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let postbacks = Postbacks::new(
                keys.clone(),
                conversions.clone(),
                Arc::clone(metrics),
                self.options.conversion.clone(),
            );
            let sockets = sockets.into_iter().map(|(address, socket)| {
                let tls = acceptor.clone().filter(|_| address.tls);
                let is_kept = is_kept(&socket);
                thread::Listening { socket, tls, proxy_protocol: address.proxy_protocol, is_kept }
            });
            let sockets: Vec<_> = sockets.collect();
            let (admissions, settings, phase) =
                (Arc::clone(&admissions), settings.subscribe(), phase.subscribe());
            let heart = pulse.heart(index);
            threads.push(Builder::new().name(thread_name(index)).spawn(move || {
                let run = thread::run(sockets, worker, postbacks, settings, &admissions, phase, heart);
                runtime.block_on(run);
            })?);
        }
        Ok(Edge { phase, threads, sockets: ClickSockets(all_sockets.into()), settings, admissions, pulse })
    }
}

impl ClickSockets {
    /// Every one of them; none once the edge has begun to end.
    pub fn open(&self) -> Vec<Arc<StdListener>> {
        let open: Vec<_> = self.0.iter().filter_map(Weak::upgrade).collect();
        // Some of them are no way to take over: what waits in the queues of the others would be lost.
        if open.len() == self.0.len() { open } else { Vec::new() }
    }
}

impl Edge {
    /// From the next click of each thread on.
    pub fn change(&self, settings: Settings) {
        self.admissions.change(&settings.limits, settings.click.trusted_proxies.clone());
        self.settings.send_replace(Arc::new(settings));
    }

    /// Ends in two steps, so that no request is lost. During the goodbye every answer is the last on its connection,
    /// and connections are still accepted: a load balancer needs a moment to hear that the node is not ready. Then
    /// none is accepted, idle ones are closed, and what has begun finishes. `deadline` after the goodbye the rest is
    /// closed.
    pub async fn drain(self, goodbye: Duration, deadline: Duration) -> Drained {
        self.end(Phase::LastAnswers, goodbye, deadline).await
    }

    /// As [`Edge::drain`], but for the sockets, which another process accepts on: nothing more is accepted from this moment on,
    /// and what waits in their queues is left to that process.
    pub async fn hand_over(self, goodbye: Duration, deadline: Duration) -> Drained {
        self.end(Phase::HandedOver, goodbye, deadline).await
    }

    /// The sockets, for a process that is to take them over.
    pub fn sockets(&self) -> ClickSockets {
        self.sockets.clone()
    }

    /// Whether its threads live.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    async fn end(self, first: Phase, goodbye: Duration, deadline: Duration) -> Drained {
        let Self { phase, threads, .. } = self;
        phase.send_replace(first);
        // Every thread holds a receiver until it accepts nothing and its last connection has ended.
        let _ = tokio::time::timeout(goodbye, phase.closed()).await;
        phase.send_replace(Phase::Finishing);
        let drained = match tokio::time::timeout(deadline, phase.closed()).await {
            Ok(()) => Drained::Clean,
            Err(_) => {
                phase.send_replace(Phase::Closing);
                phase.closed().await;
                Drained::Deadline
            }
        };
        for thread in threads {
            // It ends at this moment. One that panicked has said so on standard error.
            let _ = thread.join();
        }
        drained
    }
}

/// With `SO_REUSEPORT` a second process of the same user could bind the same port and silently take half of the
/// clicks. A socket without it cannot, so one is bound first, and closed.
fn refuse_if_taken(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    only_v6(&socket, address)?;
    socket.bind(&address.into())
}

fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let socket = prepare(address)?;
    SockRef::from(&socket).listen(BACKLOG)?;
    Ok(socket)
}

/// Bound, and not yet given any connection.
fn prepare(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    only_v6(&socket, address)?;
    socket.bind(&address.into())?;
    tune(&SockRef::from(&socket))?;
    Ok(socket.into())
}

/// Whether the process that has opened it keeps it open: ours are all open to further ones.
fn is_kept(socket: &StdListener) -> bool {
    // What cannot be asked is as ours are.
    SockRef::from(socket).reuse_port().is_ok_and(|reuse_port| !reuse_port)
}

fn tune(socket: &Socket) -> io::Result<()> {
    // An answer is one small write; waiting to fill a packet would only delay it. Linux gives what it accepts the same setting,
    // which saves each connection a system call.
    socket.set_tcp_nodelay(true)?;
    // What it accepts has these from it, too.
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_nonblocking(true)
}

/// Lets the system keep a connection until its first bytes are there, or for a second: most clicks come on a connection of their
/// own, and would be looked at twice, once for the connection and once for the request. A third of what such a click costs
/// (benches/compare) is saved.
pub(super) fn defer_silent(socket: &StdListener) {
    defer(socket, 1);
}

/// The opposite of [`defer_silent`], for the last seconds of a socket: what the system keeps when it is closed is reset.
pub(super) fn take_silent_too(socket: &StdListener) {
    defer(socket, 0);
}

/// A system that has no such thing, or forbids it, gives connections as they come.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn defer(socket: &StdListener, seconds: i32) {
    let _ = nix::sys::socket::setsockopt(socket, defer_accept::DeferAccept, &seconds);
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn defer(_: &StdListener, _: i32) {}

/// TCP_DEFER_ACCEPT of tcp(7), in seconds.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod defer_accept {
    // What the first of them writes names the others.
    use nix::{libc, setsockopt_impl, sockopt_impl};

    sockopt_impl!(DeferAccept, SetOnly, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, i32);
}

/// `[::]` is IPv6 alone, so that `0.0.0.0` can be listed beside it on every system.
fn only_v6(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() { socket.set_only_v6(true) } else { Ok(()) }
}

/// The configuration allows no more than these.
fn too_many_threads() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("more than {WORKERS_MAX} threads"))
}

fn explain_bind(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there; stop it, or choose another --listen".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "not permitted; ports below 1024 need CAP_NET_BIND_SERVICE, or choose another --listen".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        _ => error.to_string(),
    }
}

/// Connections that wait while the thread is busy: as many as the system lets wait (net.core.somaxconn, 4,096 by default). Of more,
/// it forgets the end of their handshake, and asks for it again seconds later.
const BACKLOG: i32 = 65_535;

/// What the system keeps of requests, and of answers, that one side has sent and the other has not taken; the system doubles it for
/// what it needs itself. Left to itself it goes up to 4 MB (net.ipv4.tcp_wmem) for a client that never reads, and a few thousand of
/// those take a machine's memory. The longest answer has some 8 KB.
const SOCKET_BUFFER_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_does_not_read_holds_little_of_the_system() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = Socket::from(listener.accept().unwrap().0);
        assert!(accepted.send_buffer_size().unwrap() <= 2 * SOCKET_BUFFER_BYTES);
        assert!(accepted.recv_buffer_size().unwrap() <= 2 * SOCKET_BUFFER_BYTES);
    }

    #[test]
    fn a_socket_that_is_prepared_takes_no_connection_from_those_that_listen() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let prepared = [(); 4].map(|()| prepare(address).unwrap());
        for _ in 0..20 {
            let _client = std::net::TcpStream::connect(address).unwrap();
            listener.accept().expect("it is in the queue of the one that listens");
        }
        drop(prepared);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn who_speaks_is_before_who_is_silent() {
        use std::io::Write;

        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.set_nonblocking(false).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || std::net::TcpStream::connect(address).unwrap();
        let first_of_two = || {
            let silent = connect();
            let mut speaks = connect();
            speaks.write_all(b"GET").unwrap();
            let (_, first) = listener.accept().unwrap();
            let (_, second) = listener.accept().unwrap();
            let [silent, speaks] = [silent, speaks].map(|stream| stream.local_addr().unwrap());
            assert!([[silent, speaks], [speaks, silent]].contains(&[first, second]));
            if first == speaks { "who speaks" } else { "who is silent" }
        };
        defer_silent(&listener);
        // Once in a while a machine may stand still for the second that the system waits.
        assert!((0..5).any(|_| first_of_two() == "who speaks"));
        take_silent_too(&listener);
        assert_eq!(first_of_two(), "who is silent");
    }

    #[test]
    fn what_is_accepted_sends_small_writes_at_once() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
    }
}
