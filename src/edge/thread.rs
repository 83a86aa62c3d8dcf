//! The life of one thread of the edge: it accepts on its sockets, serves every connection, looks at them once in a while, and
//! drains.
//!
//! What its tasks share is in a variable of the thread, so that they need neither locks nor a runtime for tasks that cannot move:
//! they never do, because the thread's runtime has no other.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Poll, Waker};
use std::time::Duration;

use http::request::Parts;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;

use super::acceptor::Acceptor;
use super::click;
use super::connection::Phase;
use super::conversion::Postbacks;
use super::deadlines::{Connections, Watched};
use super::limits::{Admission, Admissions, HeadLimits};
use super::listener::Settings;
use super::plain::Buffers;
use super::pulse::Heart;
use super::reply::Reply;
use super::request::Request;
use super::worker::Worker;
use crate::state::{ClickCount, CloseReason, Counters, now};

/// What the tasks of a thread share.
struct Thread {
    worker: Worker,
    buffers: Buffers,
    connections: Connections,
    heads: HeadLimits,
    /// Of whoever waits for the last connection to end.
    waits_for_the_last: Option<Waker>,
}

thread_local! {
    static THREAD: RefCell<Option<Thread>> = const { RefCell::new(None) };
}

impl Thread {
    fn change(&mut self, settings: &Settings) {
        self.worker.options = Arc::new(settings.click.clone());
        self.connections.change(&settings.deadlines, &settings.limits);
    }
}

/// Runs what needs the thread's share. It must not wait, nor call this again.
fn with<T>(work: impl FnOnce(&mut Thread) -> T) -> T {
    THREAD.with_borrow_mut(|thread| work(thread.as_mut().expect("the thread has begun")))
}

/// Lends what answers requests, and room to read and write them.
pub(super) fn with_buffers<T>(work: impl FnOnce(&mut Worker, &mut Buffers) -> T) -> T {
    with(|thread| work(&mut thread.worker, &mut thread.buffers))
}

/// Answers a request that is no postback.
pub(super) fn handle(parts: &Parts, peer: IpAddr) -> Reply {
    with(|thread| click::handle(&mut thread.worker, &Request::from(parts), peer, now()).into_reply())
}

/// How large a head may be.
pub(super) fn head_limits() -> HeadLimits {
    with(|thread| thread.heads)
}

/// Makes room: of the connections that wait for nothing but a further request, those that have done so for longest end.
pub(super) fn close_idle() {
    with(|thread| thread.connections.close_idle());
}

/// How far the thread is on its way out, as its connections see it.
#[derive(Clone, Default)]
pub(super) struct SharedPhase(Arc<AtomicU8>);

impl SharedPhase {
    pub fn get(&self) -> Phase {
        // Relaxed: it is written and read by one thread.
        match self.0.load(Relaxed) {
            0 => Phase::Serving,
            1 => Phase::HandedOver,
            2 => Phase::LastAnswers,
            3 => Phase::Finishing,
            _ => Phase::Closing,
        }
    }

    fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Relaxed);
    }
}

/// A socket that listens, and what its connections begin with.
pub(super) struct Listening {
    pub socket: Arc<TcpListener>,
    pub tls: Option<TlsAcceptor>,
    /// Whether its connections begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Whether somebody else keeps it open, for the next process: what waits in its queue then is not lost with this one.
    pub is_kept: bool,
}

/// From the first connection to the last.
pub(super) async fn run(
    sockets: Vec<Listening>,
    worker: Worker,
    postbacks: Postbacks,
    mut settings: watch::Receiver<Arc<Settings>>,
    admissions: &Arc<Admissions>,
    mut phase: watch::Receiver<Phase>,
    mut heart: Heart,
) {
    let counters = Arc::clone(worker.counters());
    let Settings { deadlines, limits, .. } = Settings::clone(&settings.borrow_and_update());
    let connections = Connections::new(&deadlines, &limits);
    let (buffers, heads) = (Buffers::new(limits.head), limits.head);
    THREAD.set(Some(Thread { worker, buffers, connections, heads, waits_for_the_last: None }));
    let (postbacks, shared) = (Arc::new(postbacks), SharedPhase::default());
    let mut accepting = JoinSet::new();
    for Listening { socket, tls, proxy_protocol, is_kept } in sockets {
        let acceptor = Acceptor {
            postbacks: Arc::clone(&postbacks),
            counters: Arc::clone(&counters),
            admissions: Arc::clone(admissions),
            phase: phase.clone(),
            shared: shared.clone(),
            tls,
            proxy_protocol,
            is_kept,
        };
        accepting.spawn(acceptor.run(socket));
    }
    let mut ended = std::pin::pin!(async {
        while accepting.join_next().await.is_some() {}
        wait_for_the_last().await;
    });
    let mut sweep = tokio::time::interval(deadlines.sweep_every());
    // A thread that could not run for a while does not make up for it: sweeps are a clock, and what has come in the meantime is
    // looked at before the next.
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut keep_up = tokio::time::interval(KEEP_UP_EVERY);
    loop {
        let has_overdue = with(|thread| thread.connections.has_overdue());
        tokio::select! {
            () = &mut ended => break,
            changed = phase.changed() => {
                // Without anybody who could drain it, it ends at once.
                shared.set(if changed.is_ok() { *phase.borrow_and_update() } else { Phase::Closing });
                with(|thread| thread.connections.wake_all());
                if changed.is_err() {
                    ended.as_mut().await;
                    break;
                }
            }
            Ok(()) = settings.changed() => {
                let settings = Arc::clone(&settings.borrow_and_update());
                with(|thread| thread.change(&settings));
            }
            _ = sweep.tick() => with(|thread| {
                thread.connections.sweep();
                if shared.get() >= Phase::Finishing {
                    thread.connections.wake_all();
                }
            }),
            // Whoever can go on goes on first.
            () = tokio::task::yield_now(), if has_overdue => with(|thread| thread.connections.end_overdue()),
            () = heart.beat() => {}
            // A thread that has no clicks must not keep an old table alive.
            _ = keep_up.tick() => with(|thread| thread.worker.keep_up()),
        }
    }
    // Not with the thread: whoever waits for the click log to be sealed waits for this.
    THREAD.take();
}

async fn wait_for_the_last() {
    poll_fn(|context| {
        with(|thread| {
            if thread.connections.is_empty() {
                return Poll::Ready(());
            }
            thread.waits_for_the_last = Some(context.waker().clone());
            Poll::Pending
        })
    })
    .await;
}

/// A connection while it is open, whatever becomes of its task.
pub(super) struct Open {
    key: usize,
    pub watched: Arc<Watched>,
    counters: Arc<Counters>,
    /// From the end of its first turn on.
    pub admission: Option<Admission>,
    pub ends_by: CloseReason,
}

impl Open {
    pub fn begin(counters: &Arc<Counters>) -> Self {
        counters.connection_opened();
        let (key, watched) = with(|thread| thread.connections.open());
        // Unless it is told otherwise, who served it has panicked.
        Self { key, watched, counters: Arc::clone(counters), admission: None, ends_by: CloseReason::Panic }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if matches!(self.ends_by, CloseReason::BadRequest | CloseReason::HeadLimit) {
            // hyper refused it by itself: no HTTP/1.x, a head that cannot be read, or one that is too large.
            self.counters.click(ClickCount::Invalid, None, None);
        }
        self.counters.connection_closed(self.watched.why_it_ended(self.ends_by));
        // A runtime that ends drops its tasks when the thread's share is gone already.
        THREAD.with_borrow_mut(|thread| {
            let Some(thread) = thread else { return };
            thread.connections.close(self.key);
            if thread.connections.is_empty()
                && let Some(waker) = thread.waits_for_the_last.take()
            {
                waker.wake();
            }
        });
    }
}

const KEEP_UP_EVERY: Duration = Duration::from_secs(1);
