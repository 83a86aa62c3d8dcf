//! Carries what [`Leases`] have to say to the ledger, and what it answers back: a few times a second, and at once when a
//! click finds no token. Nothing on the path of a click waits for it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::leases::Leases;
use crate::cake::{CallError, Client};
use crate::ledger::{KnownCaps, LeaseReply, LeaseRequest, Ledger, LedgerError};
use crate::state::{CapCells, Metrics, uptime};

/// Where the ledger is.
#[derive(Clone)]
pub enum LedgerAt {
    /// This process calls it itself: it tells it which caps there are.
    Here(Ledger),
    /// In the process whose API the upstream is.
    Upstream(Arc<Client>),
    /// With the process that this one takes over from, until it has ended; then here.
    Inherited {
        /// The API of that process, if it has one.
        meanwhile: Option<Arc<Client>>,
        then: Arc<OnceLock<Ledger>>,
    },
}

/// Where it is at the moment.
pub(super) enum Place<'a> {
    Here(&'a Ledger),
    Upstream(&'a Client),
    OutOfReach,
}

/// Why the ledger did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("its answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("it is still with the process that this one takes over from")]
    OutOfReach,
    #[error("it tells of {recorded} conversions, and was told {count}")]
    Short { recorded: usize, count: usize },
    #[error("there is no answer within {:.0} s", .0.as_secs_f32())]
    Late(Duration),
}

/// Keeps the node's leases until it is told to stop.
pub struct CapKeeper {
    ledger: LedgerAt,
    leases: Leases,
    cells: Arc<CapCells>,
    /// The caps in force, whenever more is known of them.
    caps: watch::Receiver<KnownCaps>,
    metrics: Arc<Metrics>,
    /// Whether the ledger that is here has taken the caps in force.
    is_defined: bool,
    /// It did not, when it was told last.
    is_refused: bool,
    is_reachable: bool,
    /// When the log was last told that the ledger is another one.
    told_of_another_at: Option<Instant>,
}

impl CapKeeper {
    /// `node`: as the ledger's log names this node. Fails if the system has no randomness.
    pub fn new(
        ledger: LedgerAt,
        node: String,
        cells: Arc<CapCells>,
        caps: watch::Receiver<KnownCaps>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let epoch = SysRng.try_next_u64().map_err(std::io::Error::other)?;
        let leases = Leases::new(node, epoch);
        metrics.ledger_reachable.set(1);
        Ok(Self {
            ledger,
            leases,
            cells,
            caps,
            metrics,
            is_defined: false,
            is_refused: false,
            is_reachable: true,
            told_of_another_at: None,
        })
    }

    /// Runs until `stop` comes or is dropped; then returns what the node holds, if the ledger answers.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        self.caps.mark_changed();
        loop {
            tokio::select! {
                _ = &mut stop => break,
                changed = self.caps.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.learn().await;
                }
                () = self.cells.called() => {}
                () = tokio::time::sleep(TICK) => self.define().await,
            }
            // Without caps there is nothing to ask, and an upstream that is a real CAKE need not be asked in vain.
            if self.caps.borrow().all().is_empty() && self.leases.is_settled() {
                continue;
            }
            self.exchange().await;
            // However many clicks miss a token: the disk of the ledger writes for all nodes.
            tokio::select! {
                _ = &mut stop => break,
                () = tokio::time::sleep(BETWEEN) => {}
            }
        }
        // The last clicks may have met caps of which nothing was learnt here.
        self.leases.know(&self.cells);
        self.leases.end();
        let deadline = Instant::now() + FAREWELL;
        while !self.leases.is_settled() && Instant::now() < deadline {
            self.exchange().await;
        }
        if !self.leases.is_settled() {
            tracing::warn!(
                "the ledger does not answer; the clicks that this node holds of caps are lost for their windows"
            );
        }
    }

    /// Takes up the caps that are in force now. The ledger that is here learns of them from here.
    async fn learn(&mut self) {
        self.caps.mark_unchanged();
        self.leases.know(&self.cells);
        self.is_defined = false;
        self.define().await;
    }

    /// Tells the ledger that is here which caps there are, and on whose word, until it has taken it.
    async fn define(&mut self) {
        let Place::Here(ledger) = self.ledger.place() else { return };
        if self.is_defined {
            return;
        }
        let caps = self.caps.borrow().clone();
        let defined = tokio::time::timeout(DEFINE_PATIENCE, ledger.learn(&caps)).await;
        match defined.map_err(|_| Unanswered::Late(DEFINE_PATIENCE)).and_then(|defined| Ok(defined?)) {
            Ok(()) => (self.is_defined, self.is_refused) = (true, false),
            Err(error) => {
                if !self.is_refused {
                    tracing::error!(
                        "the ledger does not take the caps in force; it is told again and again: {error}"
                    );
                }
                self.is_refused = true;
            }
        }
    }

    async fn exchange(&mut self) {
        let sent_at = uptime();
        let request = self.leases.request(sent_at);
        match self.ledger.lease(request).await {
            Ok(reply) => {
                if self.leases.answered(&reply, sent_at, uptime()) {
                    self.tell_of_another();
                }
                self.reached(true);
            }
            Err(error) => {
                if self.is_reachable {
                    tracing::warn!(
                        "the ledger does not grant: {error}; offers with caps on clicks close when their leases are spent"
                    );
                }
                self.reached(false);
                tokio::time::sleep(TICK).await;
            }
        }
    }

    /// Two ledgers behind one address may take turns, many times a second.
    fn tell_of_another(&mut self) {
        if self.told_of_another_at.is_some_and(|at| at.elapsed() < TELL_AGAIN) {
            return;
        }
        self.told_of_another_at = Some(Instant::now());
        tracing::warn!(
            "another ledger answers than before: its file was moved away or replaced, another process answers in its place, \
             or it moved to or from a Redis; what this node held of caps is dropped, and asked of the new ledger, which does \
             not know of the clicks that were sent before: if a cap must not be exceeded in this window, lower it by them"
        );
    }

    fn reached(&mut self, is_reachable: bool) {
        if is_reachable && !self.is_reachable {
            tracing::info!("the ledger answers again");
        }
        self.is_reachable = is_reachable;
        self.metrics.ledger_reachable.set(is_reachable.into());
    }
}

impl LedgerAt {
    pub(super) fn place(&self) -> Place<'_> {
        match self {
            LedgerAt::Here(ledger) => Place::Here(ledger),
            LedgerAt::Upstream(client) => Place::Upstream(client),
            LedgerAt::Inherited { meanwhile, then } => match (then.get(), meanwhile) {
                (Some(ledger), _) => Place::Here(ledger),
                (None, Some(client)) => Place::Upstream(client),
                (None, None) => Place::OutOfReach,
            },
        }
    }

    async fn lease(&self, request: &LeaseRequest) -> Result<LeaseReply, Unanswered> {
        let answered = async {
            match self.place() {
                Place::Here(ledger) => Ok(ledger.lease(request.clone()).await?),
                Place::Upstream(client) => {
                    let body = Bytes::from(serde_json::to_vec(request)?);
                    Ok(client.send(LEASE, body, Arc::new(|_| {})).await?.response()?)
                }
                Place::OutOfReach => Err(Unanswered::OutOfReach),
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.unwrap_or(Err(Unanswered::Late(PATIENCE)))
    }
}

/// The call of the API behind which a ledger is.
pub const LEASE: &str = "cap_lease.json";

/// How often the ledger is asked for news: a cap that others have closed is closed here within it.
const TICK: Duration = Duration::from_millis(250);

/// Not as often is a change of the ledger told.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Between two requests.
const BETWEEN: Duration = Duration::from_millis(2);

/// How long the ledger may take for all caps: once in a while there are a hundred thousand new ones.
const DEFINE_PATIENCE: Duration = Duration::from_secs(20);

/// How long one request may take, before it is sent again.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the node may take to return what it holds.
const FAREWELL: Duration = Duration::from_secs(2);
