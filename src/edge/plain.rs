//! Plain requests are read and answered here, and hyper has no part in it.
//!
//! Nearly every click is a GET in HTTP/1.1 without a body: a server that knows no other request needs no machine for bodies,
//! versions and methods, and no map of headers. For such a click, hyper's share of a turn would be about a fifth of it
//! (`benches/compare/RESULTS.md`). So a connection begins here, and goes over to hyper with the first request that is
//! anything else: another method or version, a body, a postback, a target that must be mended, a head that cannot be read.
//! Hyper gets it byte by byte as it came, and keeps the connection until it ends.
//!
//! This promises:
//! - An answer is the one that hyper would have given, but for the order of its headers. A request that is refused for its
//!   form is never refused here.
//! - Answers go out in the order of their requests, one after the other, each whole.
//! - A connection that waits keeps no memory but for the beginning of a head, and for what its client has not taken of an
//!   answer. No further request is read before that is gone, and at most [`OUTPUT_BYTES_MAX`] and one answer are made ahead.

mod read;

use std::io;
use std::mem;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::click;
use super::connection::Phase;
use super::deadlines::Watched;
use super::limits::HeadLimits;
use super::reply::Dates;
use super::thread::{self, SharedPhase};
use super::worker::Worker;
use crate::state::{CloseReason, now};
use read::{Read, read};

/// What is to be kept of a connection as long as it is plain.
pub(super) struct Plain {
    peer: IpAddr,
    watched: Arc<Watched>,
    phase: SharedPhase,
    /// The beginning of a head, or what follows answers that have not been taken.
    unread: Vec<u8>,
    /// Of answers, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
    /// Every answer is, and none waits in the stream.
    is_out: bool,
    next: Next,
    /// Whether the end has to be said within the stream. TCP says it by itself when it is closed.
    says_goodbye: bool,
}

/// How a connection goes on that is not plain any more.
#[derive(Debug)]
pub(super) enum Left {
    Ended(CloseReason),
    /// These bytes, and what comes after them, are hyper's.
    ForHyper(Vec<u8>),
}

/// What is to be done when every answer is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Read,
    /// There is more in `unread` than was answered.
    Answer,
    HandOver,
    Close,
}

/// What the connections of a thread share: none of them waits while it uses it.
pub(super) struct Buffers {
    input: Box<[u8]>,
    output: Vec<u8>,
    dates: Dates,
    limits: HeadLimits,
}

impl Buffers {
    /// For heads that are no larger than this.
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            input: vec![0; INPUT_BYTES].into(),
            output: Vec::with_capacity(OUTPUT_BYTES_MAX * 2),
            dates: Dates::default(),
            limits,
        }
    }
}

impl Plain {
    /// A connection that has neither read nor written. Where it `says_goodbye`, its stream has an end of its own to say before it
    /// is closed, as TLS does.
    pub fn new(peer: IpAddr, says_goodbye: bool, watched: Arc<Watched>, phase: SharedPhase) -> Self {
        Self {
            peer,
            watched,
            phase,
            unread: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
            is_out: true,
            next: Next::Read,
            says_goodbye,
        }
    }

    /// Goes on until it has to wait, or is plain no more. Always with the same stream, or with what has become of it.
    pub fn turn<S>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<Left>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // What has already arrived is read before an idle connection is closed.
        let mut left = self.go_on(stream, context);
        if left.is_pending()
            && let Some(reason) = self.watched.is_overdue()
        {
            return Poll::Ready(Left::Ended(reason));
        }
        // What was accepted a moment ago has a request on its way, which the system has not told of yet.
        let is_done = || self.watched.is_idle() || (self.unread.is_empty() && self.watched.is_unused());
        if left.is_pending() && self.phase.get() == Phase::Finishing && is_done() {
            self.next = Next::Close;
            left = self.go_on(stream, context);
        }
        if left.is_pending() && self.phase.get() == Phase::Closing {
            return Poll::Ready(Left::Ended(CloseReason::DrainDeadline));
        }
        left.map(|left| left.unwrap_or(Left::Ended(CloseReason::Broken)))
    }

    fn go_on<S>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<io::Result<Left>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            ready!(self.send(stream, context))?;
            match self.next {
                Next::Read => {
                    let count = ready!(thread::with_buffers(|worker, buffers| {
                        self.read(stream, worker, buffers, context)
                    }))?;
                    match count {
                        0 if self.unread.is_empty() => {
                            return Poll::Ready(Ok(Left::Ended(CloseReason::Done)));
                        }
                        0 => return Poll::Ready(Ok(Left::Ended(CloseReason::Broken))),
                        INPUT_BYTES => {
                            // Who sends as fast as it is read lets the others have a turn.
                            context.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        _ => {}
                    }
                }
                Next::Answer => {
                    let bytes = mem::take(&mut self.unread);
                    thread::with_buffers(|worker, buffers| {
                        let Buffers { output, dates, limits, .. } = buffers;
                        self.answer(&bytes, *limits, worker, output, dates);
                        self.write(stream, output, context)
                    })?;
                }
                Next::HandOver => {
                    self.watched.awaits_a_head();
                    return Poll::Ready(Ok(Left::ForHyper(mem::take(&mut self.unread))));
                }
                Next::Close => {
                    if self.says_goodbye {
                        ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
                    }
                    return Poll::Ready(Ok(Left::Ended(CloseReason::Done)));
                }
            }
        }
    }

    /// Reads once, and answers what is plain. Answers how many bytes that were.
    fn read<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        worker: &mut Worker,
        buffers: &mut Buffers,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Buffers { input, output, dates, limits } = buffers;
        let mut space = ReadBuf::new(input);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut space))?;
        let fresh = space.filled();
        if fresh.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.unread.is_empty() {
            self.answer(fresh, *limits, worker, output, dates);
        } else {
            let mut bytes = mem::take(&mut self.unread);
            bytes.extend_from_slice(fresh);
            self.answer(&bytes, *limits, worker, output, dates);
        }
        let count = fresh.len();
        self.write(stream, output, context)?;
        Poll::Ready(Ok(count))
    }

    /// Answers what is plain of these bytes, and keeps the rest of them.
    fn answer(
        &mut self,
        bytes: &[u8],
        limits: HeadLimits,
        worker: &mut Worker,
        output: &mut Vec<u8>,
        dates: &mut Dates,
    ) {
        // A connection that panicked may have left something.
        output.clear();
        let mut rest = bytes;
        self.next = loop {
            if output.len() >= OUTPUT_BYTES_MAX {
                break Next::Answer;
            }
            match read(rest, limits) {
                Read::Plain { request, bytes, is_last } => {
                    rest = &rest[bytes..];
                    let at = now();
                    let answer = click::handle(worker, &request, self.peer, at);
                    let closes = self.watched.is_last_answer()
                        || is_last
                        || answer.closes()
                        || self.phase.get() != Phase::Serving;
                    answer.write(closes, dates.text(at), output);
                    if closes {
                        break Next::Close;
                    }
                }
                Read::Unfinished => break Next::Read,
                Read::Other => break Next::HandOver,
            }
        };
        // What follows the last request is nobody's.
        if self.next != Next::Close {
            self.unread = rest.to_vec();
        }
    }

    /// Writes as much of the answers as is taken at once, and keeps the rest.
    fn write<S>(&mut self, stream: &mut S, output: &[u8], context: &mut Context<'_>) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if output.is_empty() {
            self.watched.has_begun_a_head();
            return Ok(());
        }
        self.is_out = false;
        let mut sent = 0;
        while sent < output.len() {
            match Pin::new(&mut *stream).poll_write(context, &output[sent..])? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => sent += count,
                Poll::Pending => {
                    self.unsent = output[sent..].to_vec();
                    break;
                }
            }
        }
        Ok(())
    }

    /// Goes on until every answer is out.
    fn send<S>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if self.is_out {
            return Poll::Ready(Ok(()));
        }
        while self.sent < self.unsent.len() {
            let written = Pin::new(&mut *stream).poll_write(context, &self.unsent[self.sent..])?;
            let Poll::Ready(count) = written else {
                self.watched.awaits_its_client();
                return Poll::Pending;
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        if Pin::new(&mut *stream).poll_flush(context)?.is_pending() {
            self.watched.awaits_its_client();
            return Poll::Pending;
        }
        (self.unsent, self.sent, self.is_out) = (Vec::new(), 0, true);
        if self.unread.is_empty() {
            self.watched.is_idle_from_now();
        } else {
            self.watched.awaits_a_head();
        }
        Poll::Ready(Ok(()))
    }
}

/// As much as is read at once.
const INPUT_BYTES: usize = 16 * 1024;

/// Of answers to requests that came together, so many bytes are collected before they go out.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;
