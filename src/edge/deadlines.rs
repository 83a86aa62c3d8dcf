//! What a connection waits for, and since when; and the thread's look at all of them, a few times a second or less.
//!
//! A timer for each request would be armed and cleared a hundred thousand times a second for the one that fires. Here, a request
//! stores two words as it goes from one wait to the next, and [`Connections::sweep`] finds those that have waited too long. So a
//! deadline is never early, and late by two sweeps at most ([`Deadlines::sweep_every`]).

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use slab::Slab;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits::ConnectionLimits;
use crate::state::CloseReason;

/// How long a connection may wait.
#[derive(Clone, Debug)]
pub struct Deadlines {
    /// For a whole head: from the beginning of the connection, later from the first byte of the head.
    pub header: Duration,
    /// For the first byte of the next head.
    pub idle: Duration,
    /// For the client to take a whole answer.
    pub write: Duration,
}

/// What a connection waits for. An answer that is being made has a deadline of its own, or needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Wait {
    Head,
    Idle,
    Answer,
    Write,
}

/// One connection, as its stream, its task and the sweep see it. All of them are on the same thread, so that no ordering is
/// needed; atomics because a task is to be `Send`.
#[derive(Debug)]
pub(super) struct Watched {
    wait: AtomicU8,
    /// The sweep after which it began.
    since: AtomicU32,
    /// It has waited too long.
    is_over: AtomicBool,
    /// Of the connection's task, which has the same one all its life.
    waker: OnceLock<Waker>,
    /// How many answers it may still have.
    answers_left: AtomicU32,
    /// The sweep after which the next answer is the last.
    lives_until: u32,
    /// Whether it was told that it has had enough, and why.
    had_enough: AtomicU8,
    sweeps: Arc<AtomicU32>,
}

impl Watched {
    fn waits(&self, wait: Wait) {
        self.wait.store(wait as u8, Relaxed);
        self.since.store(self.sweeps.load(Relaxed), Relaxed);
        self.is_over.store(false, Relaxed);
    }

    fn is(&self, wait: Wait) -> bool {
        self.wait.load(Relaxed) == wait as u8
    }

    /// From now on, whatever has come of it.
    pub fn awaits_a_head(&self) {
        self.waits(Wait::Head);
    }

    /// The first bytes of a head have come, or further ones.
    pub fn has_begun_a_head(&self) {
        if self.is(Wait::Idle) {
            self.waits(Wait::Head);
        }
    }

    /// Every answer is out, and nothing has come after its request.
    pub fn is_idle_from_now(&self) {
        self.waits(Wait::Idle);
    }

    pub fn is_idle(&self) -> bool {
        self.is(Wait::Idle)
    }

    /// Whether it has been open for a while, and has not asked for anything: as those are that browsers open in advance.
    pub fn is_unused(&self) -> bool {
        self.is(Wait::Head)
            && self.sweeps.load(Relaxed).wrapping_sub(self.since.load(Relaxed)) > UNUSED_SWEEPS
    }

    /// An answer has begun to go out, and its client does not take it.
    pub fn awaits_its_client(&self) {
        if !self.is(Wait::Write) {
            self.waits(Wait::Write);
        }
    }

    /// A whole head has come, and is about to be answered.
    pub fn is_being_answered(&self) {
        self.waits(Wait::Answer);
    }

    /// To be called at every turn of the task: by it, the task is woken when there is something to see.
    pub fn is_polled_by(&self, context: &Context<'_>) {
        self.waker.get_or_init(|| context.waker().clone());
    }

    /// Why it is to be closed now.
    pub fn is_overdue(&self) -> Option<CloseReason> {
        self.is_over.load(Relaxed).then(|| match self.wait.load(Relaxed) {
            wait if wait == Wait::Idle as u8 => CloseReason::IdleTimeout,
            wait if wait == Wait::Write as u8 => CloseReason::WriteTimeout,
            _ => CloseReason::HeaderTimeout,
        })
    }

    /// Counts an answer, and says whether it has to be the last.
    pub fn is_last_answer(&self) -> bool {
        let left = self.answers_left.load(Relaxed).saturating_sub(1);
        self.answers_left.store(left, Relaxed);
        if left > 0 && !is_past(self.sweeps.load(Relaxed), self.lives_until) {
            return false;
        }
        self.had_enough.store(if left == 0 { OF_REQUESTS } else { OF_TIME }, Relaxed);
        true
    }

    /// Its last answer is that a target was too long.
    pub fn had_too_long_a_target(&self) {
        self.had_enough.store(OF_BYTES, Relaxed);
    }

    /// Why a connection ended, as far as it knows better than who served it.
    pub fn why_it_ended(&self, reason: CloseReason) -> CloseReason {
        match (reason, self.had_enough.load(Relaxed)) {
            (CloseReason::Done, OF_REQUESTS) => CloseReason::RequestLimit,
            (CloseReason::Done, OF_TIME) => CloseReason::AgeLimit,
            (CloseReason::Done, OF_BYTES) => CloseReason::UriLimit,
            (reason, _) => reason,
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}

/// The connections of one thread.
#[derive(Debug)]
pub(super) struct Connections {
    all: Slab<Arc<Watched>>,
    /// Those that have waited too long, and were not told yet.
    overdue: VecDeque<Arc<Watched>>,
    /// Counts sweeps; the clock of all waits.
    sweeps: Arc<AtomicU32>,
    /// In sweeps, of each [`Wait`].
    limits: [Option<u32>; 4],
    answers: u32,
    /// In sweeps, at the most.
    lives_for: u32,
    /// Draws by how much less each connection lives.
    jitter: Xoshiro256PlusPlus,
    /// Between two sweeps.
    every: Duration,
}

impl Connections {
    pub fn new(deadlines: &Deadlines, most: &ConnectionLimits) -> Self {
        let mut connections = Self {
            all: Slab::new(),
            overdue: VecDeque::new(),
            sweeps: Arc::default(),
            limits: [None; 4],
            answers: 0,
            lives_for: 0,
            // Not a secret; and a thread that began at another moment draws no better.
            jitter: Xoshiro256PlusPlus::seed_from_u64(u64::from(std::process::id())),
            every: deadlines.sweep_every(),
        };
        connections.change(deadlines, most);
        connections
    }

    /// From now on; how many answers a connection may have, and how long it lives, is said when it begins. The sweeps come as
    /// often as before.
    pub fn change(&mut self, deadlines: &Deadlines, most: &ConnectionLimits) {
        // What is in the middle between two sweeps when it begins to wait waits for one more.
        let sweeps = |deadline: Duration| {
            let sweeps = deadline.as_nanos().div_ceil(self.every.as_nanos()) + 1;
            u32::try_from(sweeps).unwrap_or(u32::MAX)
        };
        self.limits[Wait::Head as usize] = Some(sweeps(deadlines.header));
        self.limits[Wait::Idle as usize] = Some(sweeps(deadlines.idle));
        self.limits[Wait::Write as usize] = Some(sweeps(deadlines.write));
        self.answers = most.requests.unwrap_or(u32::MAX);
        // Half of what a counter that wraps can tell apart.
        self.lives_for = most.age.map_or(LIVES_LONGEST, |age| sweeps(age).min(LIVES_LONGEST));
    }

    /// A connection that waits for its first head.
    pub fn open(&mut self) -> (usize, Arc<Watched>) {
        let now = self.sweeps.load(Relaxed);
        let less = self.jitter.random_range(0..=self.lives_for / 10);
        let watched = Arc::new(Watched {
            wait: AtomicU8::new(Wait::Head as u8),
            since: AtomicU32::new(now),
            answers_left: AtomicU32::new(self.answers),
            lives_until: now.wrapping_add(self.lives_for - less),
            had_enough: AtomicU8::new(NOT_YET),
            is_over: AtomicBool::new(false),
            waker: OnceLock::new(),
            sweeps: Arc::clone(&self.sweeps),
        });
        (self.all.insert(Arc::clone(&watched)), watched)
    }

    pub fn close(&mut self, key: usize) {
        self.all.remove(key);
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Finds those that have waited too long; [`Connections::end_overdue`] tells them. To be called every
    /// [`Deadlines::sweep_every`].
    pub fn sweep(&mut self) {
        // It wraps after four years at the shortest, and differences do so, too.
        let now = self.sweeps.load(Relaxed).wrapping_add(1);
        self.sweeps.store(now, Relaxed);
        for (_, watched) in &self.all {
            let limit = self.limits[usize::from(watched.wait.load(Relaxed))];
            if limit.is_some_and(|limit| now.wrapping_sub(watched.since.load(Relaxed)) >= limit) {
                watched.is_over.store(true, Relaxed);
                self.overdue.push_back(Arc::clone(watched));
            }
        }
    }

    /// Whether some have yet to be told that they have waited too long.
    pub fn has_overdue(&self) -> bool {
        !self.overdue.is_empty()
    }

    /// Tells some of those that have waited too long. Thousands may come to their deadlines together, and to close them all at once
    /// would take a thread longer than any click should wait: others are to have a turn before the next call.
    pub fn end_overdue(&mut self) {
        let count = self.overdue.len().min(CLOSED_AT_ONCE);
        self.overdue.drain(..count).for_each(|watched| watched.wake());
    }

    /// Ends those that have been idle for longest, and for a sweep at least.
    pub fn close_idle(&mut self) {
        let now = self.sweeps.load(Relaxed);
        let idle = self.all.iter().filter(|(_, watched)| watched.is_idle());
        let mut idle: Vec<_> =
            idle.map(|(_, watched)| (now.wrapping_sub(watched.since.load(Relaxed)), watched)).collect();
        idle.sort_unstable_by_key(|&(sweeps, _)| Reverse(sweeps));
        for (_, watched) in idle.into_iter().take_while(|&(sweeps, _)| sweeps > 0).take(CLOSED_AT_ONCE) {
            watched.is_over.store(true, Relaxed);
            watched.wake();
        }
    }

    /// Has every connection look what has changed for all.
    pub fn wake_all(&self) {
        self.all.iter().for_each(|(_, watched)| watched.wake());
    }
}

impl Deadlines {
    /// A quarter of the shortest deadline, a second at most.
    pub fn sweep_every(&self) -> Duration {
        let shortest = self.header.min(self.idle).min(self.write);
        (shortest / 4).clamp(SWEEP_LEAST, SWEEP_MOST)
    }
}

/// A stream that notes what its connection waits for.
#[derive(Debug)]
pub(super) struct WatchedStream<S> {
    stream: S,
    watched: Arc<Watched>,
}

impl<S> WatchedStream<S> {
    pub fn new(stream: S, watched: Arc<Watched>) -> Self {
        Self { stream, watched }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            this.watched.has_begun_a_head();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.watched.awaits_its_client();
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.watched.awaits_its_client();
        Pin::new(&mut this.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        // hyper flushes when it has written all it has. It also does where there was nothing to write.
        if flushed.is_ready() && this.watched.is(Wait::Write) {
            this.watched.is_idle_from_now();
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// Whether a counter that wraps has come to the second.
fn is_past(now: u32, end: u32) -> bool {
    now.wrapping_sub(end) < u32::MAX / 2
}

const LIVES_LONGEST: u32 = u32::MAX / 2;

/// A quarter of the shortest deadline at the least: many times what the first request takes that is on its way.
const UNUSED_SWEEPS: u32 = 1;

const CLOSED_AT_ONCE: usize = 64;

const NOT_YET: u8 = 0;
const OF_REQUESTS: u8 = 1;
const OF_TIME: u8 = 2;
const OF_BYTES: u8 = 3;

const SWEEP_LEAST: Duration = Duration::from_millis(10);

const SWEEP_MOST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::super::limits::HeadLimits;
    use super::*;

    fn connections() -> Connections {
        let seconds = Duration::from_secs;
        let deadlines = Deadlines { header: seconds(4), idle: seconds(8), write: seconds(6) };
        assert_eq!(deadlines.sweep_every(), seconds(1));
        Connections::new(&deadlines, &limits(None, None))
    }

    fn limits(requests: Option<u32>, age: Option<Duration>) -> ConnectionLimits {
        ConnectionLimits { connections: 1, per_address: None, requests, age, head: HeadLimits::DEFAULT }
    }

    #[test]
    fn a_connection_has_had_enough_after_so_many_answers_or_so_long() {
        let second = Duration::from_secs(1);
        let deadlines = Deadlines { header: second * 4, idle: second * 4, write: second * 4 };
        let mut connections = Connections::new(&deadlines, &limits(Some(3), Some(second * 100)));
        let (_, watched) = connections.open();
        assert_eq!([(); 3].map(|()| watched.is_last_answer()), [false, false, true]);
        assert_eq!(watched.why_it_ended(CloseReason::Done), CloseReason::RequestLimit);
        assert_eq!(watched.why_it_ended(CloseReason::Broken), CloseReason::Broken);
        let (_, watched) = connections.open();
        for _ in 0..90 {
            assert!(!is_past(connections.sweeps.load(Relaxed), watched.lives_until));
            connections.sweep();
        }
        for _ in 90..102 {
            connections.sweep();
        }
        assert!(watched.is_last_answer());
        assert_eq!(watched.why_it_ended(CloseReason::Done), CloseReason::AgeLimit);
        let mut connections = super::tests::connections();
        let (_, watched) = connections.open();
        connections.sweep();
        assert!(!watched.is_last_answer());
        assert_eq!(watched.why_it_ended(CloseReason::Done), CloseReason::Done);
    }

    #[test]
    fn room_is_made_by_those_that_are_idle() {
        let mut connections = connections();
        let open: Vec<_> = (0..4).map(|_| connections.open().1).collect();
        open[0].is_idle_from_now();
        open[1].is_idle_from_now();
        connections.sweep();
        open[2].is_idle_from_now();
        connections.close_idle();
        assert_eq!(open[0].is_overdue(), Some(CloseReason::IdleTimeout));
        assert_eq!(open[2].is_overdue(), None, "it may be about to ask");
        assert_eq!(open[3].is_overdue(), None, "it has not been answered");
        // What has come in the meantime is answered.
        open[1].has_begun_a_head();
        assert_eq!(open[1].is_overdue(), None);
    }

    #[test]
    fn who_has_waited_too_long_is_told_in_turns() {
        #[derive(Default)]
        struct Woken(AtomicU32);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        const ALL: usize = CLOSED_AT_ONCE * 2 + 1;
        let (mut connections, woken) = (connections(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let all: Vec<_> = (0..ALL).map(|_| connections.open().1).collect();
        all.iter().for_each(|watched| watched.is_polled_by(&Context::from_waker(&waker)));
        assert!(over(&mut connections, &all[0]).is_some());
        let mut told = vec![];
        while connections.has_overdue() {
            connections.end_overdue();
            told.push(woken.0.load(Relaxed) as usize);
        }
        assert_eq!(told, [CLOSED_AT_ONCE, CLOSED_AT_ONCE * 2, ALL]);
    }

    /// After how many sweeps, one a second, it is over, and why.
    fn over(connections: &mut Connections, watched: &Watched) -> Option<(u32, CloseReason)> {
        (1..100).find_map(|sweeps| {
            connections.sweep();
            Some((sweeps, watched.is_overdue()?))
        })
    }

    #[test]
    fn each_wait_has_its_deadline_and_none_is_early() {
        for (wait, end) in [
            (Wait::Head, Some((5, CloseReason::HeaderTimeout))),
            (Wait::Idle, Some((9, CloseReason::IdleTimeout))),
            (Wait::Write, Some((7, CloseReason::WriteTimeout))),
            (Wait::Answer, None),
        ] {
            let mut connections = connections();
            let (_, watched) = connections.open();
            connections.sweep();
            watched.waits(wait);
            assert_eq!(over(&mut connections, &watched), end, "{wait:?}");
        }
    }

    #[test]
    fn a_wait_that_ends_begins_the_next_anew() {
        let mut connections = connections();
        let (key, watched) = connections.open();
        for wait in [Wait::Answer, Wait::Write, Wait::Idle, Wait::Head].repeat(10) {
            connections.sweep();
            connections.sweep();
            assert_eq!(watched.is_overdue(), None);
            watched.waits(wait);
        }
        assert!(!connections.is_empty());
        connections.close(key);
        assert!(connections.is_empty());
        assert_eq!(over(&mut connections, &watched), None);
    }

    #[test]
    fn the_count_of_sweeps_may_wrap() {
        let mut connections = connections();
        connections.sweeps.store(u32::MAX - 2, Relaxed);
        let (_, watched) = connections.open();
        assert_eq!(over(&mut connections, &watched), Some((5, CloseReason::HeaderTimeout)));
    }
}
