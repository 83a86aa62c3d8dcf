//! Asking for a refresh: whoever needs one holds a handle, sync holds the other end.

use tokio::sync::{mpsc, oneshot};

use crate::routing::Warning;

/// Asks for a refresh and waits for what comes of it.
#[derive(Clone, Debug)]
pub struct RefreshHandle {
    ask: mpsc::WeakSender<Asked>,
    /// While somebody has this, refreshing goes on.
    _life: Option<mpsc::Sender<Asked>>,
}

/// The end that answers.
#[derive(Debug)]
pub struct RefreshRequests(mpsc::Receiver<Asked>);

/// Somebody who waits for a refresh.
#[derive(Debug)]
pub struct Asked {
    answer: oneshot::Sender<RefreshReport>,
    force: bool,
}

/// What came of an attempt to refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshResult {
    Published,
    Unchanged,
    /// It looked like an accident.
    Refused,
    Failed,
}

/// What came of a refresh.
#[derive(Clone, Debug)]
pub struct RefreshReport {
    pub result: RefreshResult,
    /// Of the live table, after the refresh.
    pub generation: u64,
    /// The name of the live table's snapshot.
    pub snapshot: String,
    pub links: usize,
    pub entries: usize,
    pub offers: usize,
    /// What was left out of the live table; the first of them, if there are many.
    pub warnings: Vec<Warning>,
    /// How many there are.
    pub quarantined: usize,
    /// Why it failed.
    pub error: Option<String>,
}

/// Both ends.
pub fn refresh_requests() -> (RefreshHandle, RefreshRequests) {
    let (ask, asked) = mpsc::channel(WAITING_MAX);
    (RefreshHandle { ask: ask.downgrade(), _life: Some(ask) }, RefreshRequests(asked))
}

impl RefreshResult {
    pub const ALL: [RefreshResult; 4] =
        [RefreshResult::Published, RefreshResult::Unchanged, RefreshResult::Refused, RefreshResult::Failed];

    pub const fn as_str(self) -> &'static str {
        match self {
            RefreshResult::Published => "published",
            RefreshResult::Unchanged => "unchanged",
            RefreshResult::Refused => "refused",
            RefreshResult::Failed => "failed",
        }
    }
}

impl RefreshHandle {
    /// Asks for a refresh that begins after this call, and waits for it. `None` if the process is ending.
    /// With `force`, also a snapshot that looks like an accident is taken.
    pub async fn refresh(&self, force: bool) -> Option<RefreshReport> {
        let (answer, answered) = oneshot::channel();
        self.ask.upgrade()?.send(Asked { answer, force }).await.ok()?;
        answered.await.ok()
    }

    /// The same for somebody whose end is not to be waited for: refreshing ends without it.
    pub fn weak(&self) -> Self {
        Self { ask: self.ask.clone(), _life: None }
    }
}

impl RefreshRequests {
    /// The next to ask. `None` when every handle is gone, but for weak ones.
    pub async fn next(&mut self) -> Option<Asked> {
        self.0.recv().await
    }

    /// One who asks already, without waiting.
    pub fn waiting(&mut self) -> Option<Asked> {
        self.0.try_recv().ok()
    }
}

impl Asked {
    /// Whether whoever asks takes a suspicious snapshot too.
    pub fn force(&self) -> bool {
        self.force
    }

    /// Answers; whoever asked may be gone.
    pub fn answer(self, report: RefreshReport) {
        let _ = self.answer.send(report);
    }
}

/// Who can wait at the same time; more wait to be let in.
const WAITING_MAX: usize = 64;
