//! One listening socket of one thread: connections are taken from it until the drain, and nothing that happens to one of them
//! ends the loop.
//!
//! A click often is the only request of its connection. So the system is asked to keep a connection until its first bytes are
//! there (`listener::defer_silent`), and a connection has its first turn before the system is told to watch it: one that was
//! answered and is done never is: four system calls are left for such a click. With TLS there is a handshake to wait for, behind the
//! PROXY protocol its header, and no such turn.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream as StdStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::connection::{self, Phase};
use super::conversion::Postbacks;
use super::limits::Admissions;
use super::listener;
use super::newcomers;
use super::plain::{Left, Plain};
use super::proxy_protocol;
use super::thread::{self, Open, SharedPhase};
use crate::state::{CloseReason, Counters};

/// What the connections of a socket begin with.
pub(super) struct Acceptor {
    pub postbacks: Arc<Postbacks>,
    pub counters: Arc<Counters>,
    pub admissions: Arc<Admissions>,
    pub phase: watch::Receiver<Phase>,
    /// The same, as the connections see it.
    pub shared: SharedPhase,
    pub tls: Option<TlsAcceptor>,
    /// Whether its connections begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Whether the socket is open after this process, too.
    pub is_kept: bool,
}

impl Acceptor {
    /// Accepts until the drain, and then what is left in the queue; or until another process does.
    pub async fn run(mut self, socket: Arc<TcpListener>) {
        #[expect(
            deprecated,
            reason = "what follows it is unsafe for types that lie about their descriptor; a socket of std does not"
        )]
        let registered = AsyncFd::with_interest(socket, Interest::READABLE);
        let listener = match registered {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "a listening socket could not be registered; this thread takes no clicks on it");
                return;
            }
        };
        let mut is_full = false;
        let mut accepted = Vec::with_capacity(ACCEPTED_AT_ONCE);
        while matches!(*self.phase.borrow_and_update(), Phase::Serving | Phase::LastAnswers) {
            let was_full = mem::replace(&mut is_full, !self.admissions.has_room_for(1));
            if is_full {
                if !was_full {
                    self.counters.accept_paused();
                }
                thread::close_idle();
            }
            let mut ready = tokio::select! {
                biased;
                changed = self.phase.changed() => match changed {
                    Ok(()) => {
                        if *self.phase.borrow() == Phase::LastAnswers {
                            listener::take_silent_too(listener.get_ref());
                        }
                        continue;
                    }
                    // Nobody is left to drain it.
                    Err(_) => break,
                },
                // By then, more of them may have been idle for long enough.
                () = tokio::time::sleep(LOOK_AGAIN), if is_full => continue,
                ready = async {
                    self.admissions.room().await;
                    listener.readable().await
                } => match ready {
                    Ok(ready) => ready,
                    // The runtime ends.
                    Err(_) => break,
                },
            };
            let mut failed = None;
            while accepted.len() < ACCEPTED_AT_ONCE && self.admissions.has_room_for(accepted.len() + 1) {
                match ready.try_io(|listener| accept(listener.get_ref())) {
                    // None is left.
                    Err(_) => break,
                    Ok(Ok(connection)) => accepted.push(connection),
                    Ok(Err(error)) => {
                        self.counters.accept_failed();
                        if !is_of_one_connection(&error) {
                            failed = Some(error);
                            break;
                        }
                    }
                }
            }
            // Only now: what the first of them asks for has had a little more time to arrive.
            for (stream, peer) in accepted.drain(..) {
                self.begin(stream, peer);
            }
            match failed {
                // Those that are open get a turn.
                None => tokio::task::yield_now().await,
                Some(error) => {
                    tracing::warn!(%error, "cannot accept connections; trying again");
                    // Out of descriptors or memory: at once would only spin.
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
        let socket = listener.into_inner();
        if self.is_kept || *self.phase.borrow() == Phase::HandedOver {
            // Another process has it too, and takes them, or has the next one take them.
            return;
        }
        self.accept_the_last(&socket).await;
    }

    /// To close the socket alone would reset what waits in its queue, and what is on its way there.
    async fn accept_the_last(&mut self, socket: &TcpListener) {
        listener::take_silent_too(socket);
        if let Err(error) = newcomers::keep_out(socket) {
            tracing::debug!(%error, "a listening socket is closed while further connections may come");
        }
        let until = Instant::now() + LAST_WITHIN;
        let mut pause = LOOK_FOR_THE_LAST;
        loop {
            self.begin_all(socket);
            // Who was let in at the very moment at which the door was closed is on the list by then.
            let is_closing = tokio::time::timeout(
                LOOK_FOR_THE_LAST,
                self.phase.wait_for(|phase| *phase == Phase::Closing),
            );
            if is_closing.await.is_ok() || Instant::now() >= until || !Self::more_are_under_way(socket).await
            {
                break;
            }
            // A look costs more than most things here, and who is not there at once may take a second.
            pause = (pause * 2).min(LOOK_SELDOM);
        }
        // It may have come since it was looked for.
        self.begin_all(socket);
    }

    /// What cannot be looked at is not waited for.
    async fn more_are_under_way(socket: &TcpListener) -> bool {
        let Ok(address) = socket.local_addr() else { return false };
        let looked = tokio::task::spawn_blocking(move || newcomers::are_under_way(address)).await;
        looked.is_ok_and(|are_under_way| are_under_way.unwrap_or(false))
    }

    fn begin_all(&self, socket: &TcpListener) {
        while let Ok((stream, peer)) = accept(socket) {
            self.begin(stream, peer);
        }
    }

    fn begin(&self, stream: StdStream, peer: SocketAddr) {
        let peer = peer.ip();
        if self.proxy_protocol {
            return self.begin_with_a_proxy(stream, peer);
        }
        let mut open = Open::begin(&self.counters);
        let mut plain = Plain::new(peer, self.tls.is_some(), Arc::clone(&open.watched), self.shared.clone());
        let mut stream = Unregistered(stream);
        let mut for_hyper = None;
        if self.tls.is_none() {
            let turn = || plain.turn(&mut stream, &mut Context::from_waker(Waker::noop()));
            // This is no task of the connection's own, for which the runtime would do the same. What panics is not looked at again.
            match catch_unwind(AssertUnwindSafe(turn)) {
                Ok(Poll::Ready(Left::Ended(reason))) => {
                    open.ends_by = reason;
                    return;
                }
                Ok(Poll::Ready(Left::ForHyper(bytes))) => for_hyper = Some(bytes),
                Ok(Poll::Pending) => {}
                Err(_) => return,
            }
        }
        let Some(admission) = self.admissions.admit(peer) else {
            open.ends_by = CloseReason::AddressLimit;
            // Who has been answered is not told; neither is who would hear it in the middle of a handshake.
            if self.tls.is_none() && !open.watched.is_idle() {
                // It has room for it, or has it not; nobody waits for it.
                let _ = (&stream.0).write(TOO_MANY);
            }
            return;
        };
        open.admission = Some(admission);
        let stream = match TcpStream::from_std(stream.0) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be registered");
                open.ends_by = CloseReason::Broken;
                return;
            }
        };
        let watched = Arc::clone(&open.watched);
        let (postbacks, phase) = (Arc::clone(&self.postbacks), self.shared.clone());
        // Each task takes the whole of it in, so that it goes with the task.
        match (self.tls.clone(), for_hyper) {
            (None, None) => tokio::spawn(async move {
                let mut open = open;
                open.ends_by = connection::serve(stream, plain, peer, watched, &postbacks, &phase).await;
            }),
            (None, Some(bytes)) => tokio::spawn(async move {
                let mut open = open;
                open.ends_by =
                    connection::serve_by_hyper(stream, bytes, peer, watched, &postbacks, &phase).await;
            }),
            (Some(acceptor), _) => tokio::spawn(async move {
                let mut open = open;
                open.ends_by = match connection::shake_hands(acceptor, stream, &watched, &phase).await {
                    Ok(stream) => connection::serve(stream, plain, peer, watched, &postbacks, &phase).await,
                    Err(reason) => reason,
                };
            }),
        };
    }

    /// The same where a header has to come first, and tells whose the connection is.
    fn begin_with_a_proxy(&self, stream: StdStream, proxy: IpAddr) {
        let mut open = Open::begin(&self.counters);
        if !self.admissions.is_proxy(proxy) {
            tracing::debug!(%proxy, "a connection of a peer that is no trusted proxy is closed");
            open.ends_by = CloseReason::ProxyUntrusted;
            return;
        }
        // Until it is known whose it is, it is one of all. Proxies have no limit of their own.
        open.admission = self.admissions.admit(proxy);
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be registered");
                open.ends_by = CloseReason::Broken;
                return;
            }
        };
        let (admissions, postbacks) = (Arc::clone(&self.admissions), Arc::clone(&self.postbacks));
        let (phase, tls) = (self.shared.clone(), self.tls.clone());
        tokio::spawn(async move {
            let mut open = open;
            let watched = Arc::clone(&open.watched);
            let peer = match proxy_protocol::read_source(&stream, &watched, &phase).await {
                Ok(source) => source.unwrap_or(proxy),
                Err(reason) => {
                    open.ends_by = reason;
                    return;
                }
            };
            open.admission = admissions.admit(peer);
            if open.admission.is_none() {
                open.ends_by = CloseReason::AddressLimit;
                if tls.is_none() {
                    // What came with the header, or the system would reset the connection, and the answer be lost.
                    let _ = stream.try_read(&mut [0; READ_BEFORE_REFUSED]);
                    let _ = stream.try_write(TOO_MANY);
                }
                return;
            }
            let plain = Plain::new(peer, tls.is_some(), Arc::clone(&watched), phase.clone());
            open.ends_by = match tls {
                None => connection::serve(stream, plain, peer, watched, &postbacks, &phase).await,
                // On the heap, so that a connection without it has not to make room for it.
                Some(acceptor) => {
                    Box::pin(async move {
                        match connection::shake_hands(acceptor, stream, &watched, &phase).await {
                            Ok(stream) => {
                                connection::serve(stream, plain, peer, watched, &postbacks, &phase).await
                            }
                            Err(reason) => reason,
                        }
                    })
                    .await
                }
            };
        });
    }
}

/// A stream that nothing wakes: where it would wait, it must be registered, and then be tried again.
struct Unregistered(StdStream);

impl AsyncRead for Unregistered {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        at_once(|| (&self.0).read(buffer.initialize_unfilled())).map_ok(|count| buffer.advance(count))
    }
}

impl AsyncWrite for Unregistered {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        at_once(|| (&self.0).write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn at_once<T>(mut work: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
    loop {
        match work() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return Poll::Ready(done),
        }
    }
}

/// The next connection of the queue, not blocking.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn accept(listener: &TcpListener) -> io::Result<(StdStream, SocketAddr)> {
    use rustix::net::{SocketFlags, acceptfrom_with};

    let (stream, peer) = acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    // The peer of a TCP connection has an address, unless it was gone before it was asked for.
    Ok((stream.into(), peer.ok_or(ErrorKind::ConnectionAborted)?))
}

/// The next connection of the queue, not blocking.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn accept(listener: &TcpListener) -> io::Result<(StdStream, SocketAddr)> {
    let (stream, peer) = listener.accept()?;
    stream.set_nonblocking(true)?;
    Ok((stream, peer))
}

/// Errors of a connection that went away before it was accepted (see accept(2), "Error handling").
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
            | ErrorKind::TimedOut
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
    )
}

/// To who has as many connections as one address may have.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: text/plain; charset=utf-8\r\n\
cache-control: no-store\r\nretry-after: 1\r\ncontent-length: 59\r\nconnection: close\r\n\r\n\
Your address has too many connections; close some of them.\n";

/// As long as most requests are.
const READ_BEFORE_REFUSED: usize = 4096;

/// Then those that are open get a turn.
const ACCEPTED_AT_ONCE: usize = 64;

/// While there is no room.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Between two looks for connections that are on their way while a socket ends: at first, and at the most.
const LOOK_FOR_THE_LAST: Duration = Duration::from_millis(10);
const LOOK_SELDOM: Duration = Duration::from_millis(160);

/// For as long as a socket waits for them. The system asks a silent client for the end of its handshake a second after its beginning.
const LAST_WITHIN: Duration = Duration::from_millis(1_500);
