//! The ledger of this process: a thread owns the file, and calls wait for it without holding up a runtime.
//!
//! A commit waits for the disk, so the calls that came meanwhile are committed together. Each is undone for itself if it
//! fails, and all of them if the commit does: what is not on the disk is answered with an error and was never granted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::routing::Cap;

use super::clock::{Clock, LedgerTime};
use super::error::LedgerError;
use super::message::{CapState, Conversion, LeaseReply, LeaseRequest, Recorded};
use super::sqlite::SqliteLedger;
use super::{conversions, definitions, leases};

/// Calls the thread. It ends with the last of its callers.
#[derive(Clone)]
pub struct LocalLedger {
    calls: mpsc::Sender<Box<dyn Call>>,
}

impl LocalLedger {
    /// Opens the file, or makes it. If it cannot be used, that is logged, and every call is answered with it: clicks are
    /// still routed, to whatever has no cap. What is wrong with the disk may pass, and is looked at again; a damaged file
    /// is somebody's to mend.
    pub fn start(path: &Path) -> Self {
        let (calls, waiting) = mpsc::channel(CALLS_WAITING_MAX);
        let path = PathBuf::from(path);
        let thread = std::thread::Builder::new().name("ledger".to_owned());
        if let Err(error) = thread.spawn(move || serve(&path, waiting)) {
            tracing::error!(%error, "the ledger's thread could not be started; no cap is granted");
        }
        Self { calls }
    }

    /// Puts exactly these caps in force.
    pub async fn define(&self, caps: Vec<Cap>) -> Result<(), LedgerError> {
        self.call(move |connection, now| definitions::define(connection, &caps, now)).await
    }

    /// Settles and grants. The same request again is given the same answer.
    pub async fn lease(&self, request: LeaseRequest) -> Result<LeaseReply, LedgerError> {
        self.call(move |connection, now| leases::lease(connection, &request, now)).await
    }

    /// Writes conversions down and counts each once, whoever tells it again.
    pub async fn record(&self, conversions: Vec<Conversion>) -> Result<Vec<Recorded>, LedgerError> {
        self.call(move |connection, now| conversions::record(connection, &conversions, now)).await
    }

    /// Every cap in force, as it stands at this moment.
    pub async fn state(&self) -> Result<Vec<CapState>, LedgerError> {
        self.call(definitions::state).await
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, LedgerTime) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let call = Waiting { work: Some(work), done: None, answer };
        self.calls.send(Box::new(call)).await.map_err(|_| LedgerError::Stopped)?;
        answered.await.map_err(|_| LedgerError::Stopped)?
    }
}

/// A call as the thread sees it.
trait Call: Send {
    /// Does the work; whether it succeeded.
    fn work(&mut self, connection: &Connection, now: LedgerTime) -> bool;

    /// Tells the caller what the work came to, unless what was to make it last has failed.
    fn answer(self: Box<Self>, made_to_last: Result<(), LedgerError>);
}

struct Waiting<T, W> {
    work: Option<W>,
    done: Option<Result<T, LedgerError>>,
    answer: oneshot::Sender<Result<T, LedgerError>>,
}

impl<T, W> Call for Waiting<T, W>
where
    T: Send,
    W: FnOnce(&Connection, LedgerTime) -> Result<T, LedgerError> + Send,
{
    fn work(&mut self, connection: &Connection, now: LedgerTime) -> bool {
        self.done = self.work.take().map(|work| work(connection, now));
        matches!(self.done, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, made_to_last: Result<(), LedgerError>) {
        let answer = match (self.done, made_to_last) {
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (Some(done), Ok(())) => done,
            (None, Ok(())) => Err(LedgerError::Stopped),
        };
        // A caller that waits no longer has dropped the other end.
        let _ = self.answer.send(answer);
    }
}

fn serve(path: &Path, mut waiting: mpsc::Receiver<Box<dyn Call>>) {
    let clock = Clock::new();
    let mut ledger = open(path);
    if let Err(error) = &ledger {
        tracing::error!("{error}");
    }
    let mut tried_at = Instant::now();
    let mut calls = Vec::with_capacity(BATCH_MAX);
    while waiting.blocking_recv_many(&mut calls, BATCH_MAX) > 0 {
        if matches!(ledger, Err(LedgerError::Unusable { .. })) && tried_at.elapsed() >= OPEN_AGAIN {
            ledger = open(path);
            match &ledger {
                Ok(_) => tracing::info!("the ledger {} can be used now", path.display()),
                // It is another trouble than the one that was told.
                Err(error @ LedgerError::Damaged { .. }) => tracing::error!("{error}"),
                Err(_) => {}
            }
            tried_at = Instant::now();
        }
        let made_to_last = match &mut ledger {
            Ok(ledger) => commit_whatever_comes(ledger, &mut calls, &clock),
            Err(error) => Err(error.clone()),
        };
        for call in calls.drain(..) {
            call.answer(made_to_last.clone());
        }
    }
}

fn open(path: &Path) -> Result<SqliteLedger, LedgerError> {
    let is_new = !path.exists();
    let ledger = SqliteLedger::open(path)?;
    if is_new {
        tracing::info!("a new ledger in {}: every cap begins at 0", path.display());
    }
    Ok(ledger)
}

/// A call that panics undoes all that came with it, and the thread lives on: without it, no cap would ever be granted again.
fn commit_whatever_comes(
    ledger: &mut SqliteLedger,
    calls: &mut [Box<dyn Call>],
    clock: &Clock,
) -> Result<(), LedgerError> {
    // What a panic leaves behind is a transaction, which is undone as it goes.
    let committed = catch_unwind(AssertUnwindSafe(|| commit_together(ledger, calls, clock)));
    committed.unwrap_or_else(|_| {
        tracing::error!(
            "a call of the ledger panicked; nothing of its commit was done; please report the panic above"
        );
        Err(LedgerError::Failed("it panicked".to_owned()))
    })
}

fn commit_together(
    ledger: &mut SqliteLedger,
    calls: &mut [Box<dyn Call>],
    clock: &Clock,
) -> Result<(), LedgerError> {
    let mut transaction = ledger.begin()?;
    for call in calls {
        let savepoint = transaction.savepoint()?;
        if call.work(&savepoint, clock.now()) {
            savepoint.commit()?;
        } else {
            savepoint.finish()?;
        }
        // SQLite itself undoes a transaction when the disk fails it; whatever came next would be on its own.
        if transaction.is_autocommit() {
            return Err(LedgerError::Failed("the disk is full or failing".to_owned()));
        }
    }
    Ok(transaction.commit()?)
}

/// How often a file that could not be opened is tried again, while somebody calls.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// Callers beyond these wait before they are in line.
const CALLS_WAITING_MAX: usize = 1024;

const BATCH_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::LeaseItem;
    use crate::routing::Zone;
    use crate::types::{CapInterval, CapKey, CapKind, OfferId};

    fn cap(amount: u64) -> Cap {
        let key = CapKey {
            offer: OfferId::new(1042).unwrap(),
            affiliate: None,
            kind: CapKind::Click,
            interval: CapInterval::Lifetime,
        };
        Cap { key, amount, zone: Zone::parse("UTC").unwrap(), alert_only: false }
    }

    fn request(node: &str, sequence: u64, wants: u64) -> LeaseRequest {
        let item =
            LeaseItem { cap: cap(0).key, window: None, spent: 0, returned: 0, wants, holds: 0, counted: 0 };
        LeaseRequest {
            node: node.to_owned(),
            epoch: 1,
            sequence,
            news_since: 0,
            ledger: None,
            items: vec![item],
        }
    }

    /// A call with somebody who waits for it.
    fn waiting<T: Send + 'static>(
        work: impl FnOnce(&Connection, LedgerTime) -> Result<T, LedgerError> + Send + 'static,
    ) -> (Box<dyn Call>, oneshot::Receiver<Result<T, LedgerError>>) {
        let (answer, answered) = oneshot::channel();
        (Box::new(Waiting { work: Some(work), done: None, answer }), answered)
    }

    #[tokio::test]
    async fn one_bad_call_harms_no_other_of_its_commit() {
        let mut ledger = SqliteLedger::from_connection(Connection::open_in_memory().unwrap()).unwrap();
        let (define, defined) = waiting(|connection, now| definitions::define(connection, &[cap(10)], now));
        let (bad, refused) = waiting(|connection, now| {
            leases::lease(connection, &request("a", 1, 4), now)?;
            leases::lease(connection, &request("", 1, 4), now)
        });
        let (good, granted) = waiting(|connection, now| leases::lease(connection, &request("b", 1, 4), now));
        let mut calls = vec![define, bad, good];
        let committed = commit_together(&mut ledger, &mut calls, &Clock::new());
        assert_eq!(committed, Ok(()));
        for call in calls {
            call.answer(committed.clone());
        }
        assert_eq!(defined.await.unwrap(), Ok(()));
        assert!(matches!(refused.await.unwrap(), Err(LedgerError::Invalid(_))));
        assert_eq!(granted.await.unwrap().unwrap().grants[0].granted, 4);
        assert_eq!(ledger.state(Clock::new().now()).unwrap()[0].leased, 4);
    }

    #[tokio::test]
    async fn a_call_that_panics_undoes_its_commit_and_no_other() {
        let mut ledger = SqliteLedger::from_connection(Connection::open_in_memory().unwrap()).unwrap();
        ledger.define(&[cap(10)], Clock::new().now()).unwrap();
        let (good, undone) = waiting(|connection, now| leases::lease(connection, &request("a", 1, 4), now));
        let (bad, broken) = waiting::<()>(|_, _| panic!("a panic of this test"));
        let mut calls = vec![good, bad];
        let committed = commit_whatever_comes(&mut ledger, &mut calls, &Clock::new());
        for call in calls {
            call.answer(committed.clone());
        }
        assert!(matches!(undone.await.unwrap(), Err(LedgerError::Failed(_))));
        assert!(broken.await.unwrap().is_err());
        assert_eq!(ledger.state(Clock::new().now()).unwrap()[0].leased, 0);
        let (next, granted) = waiting(|connection, now| leases::lease(connection, &request("a", 1, 4), now));
        let mut calls = vec![next];
        let committed = commit_whatever_comes(&mut ledger, &mut calls, &Clock::new());
        calls.remove(0).answer(committed);
        assert_eq!(granted.await.unwrap().unwrap().grants[0].granted, 4);
    }

    #[tokio::test]
    async fn nothing_is_granted_when_the_disk_is_full() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = SqliteLedger::open(&directory.path().join("ledger.db")).unwrap();
        ledger.define(&[cap(1_000)], Clock::new().now()).unwrap();
        let connection = ledger.into_connection();
        let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
        let mut ledger = SqliteLedger { connection };
        let (lease, granted) = waiting(|connection, now| leases::lease(connection, &request("a", 1, 4), now));
        let (big, refused) = waiting(|connection, now| {
            Ok(connection.execute(
                "INSERT INTO holders (node, epoch, sequence, reply, seen_at) VALUES ('big', 1, 1, ?, ?)",
                ("x".repeat(1_000_000), now.wall.0),
            )?)
        });
        let (late, unheard) = waiting(|connection, now| leases::lease(connection, &request("b", 1, 4), now));
        let mut calls = vec![lease, big, late];
        let committed = commit_together(&mut ledger, &mut calls, &Clock::new());
        for call in calls {
            call.answer(committed.clone());
        }
        assert!(matches!(refused.await.unwrap(), Err(LedgerError::Failed(_))));
        // Either all of it is on the disk, or none of it was granted.
        let granted: u64 = [granted.await.unwrap(), unheard.await.unwrap()]
            .into_iter()
            .filter_map(Result::ok)
            .map(|reply| reply.grants[0].granted)
            .sum();
        assert_eq!(ledger.state(Clock::new().now()).unwrap()[0].leased, granted);
        assert_eq!(granted > 0, committed.is_ok());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_callers_share_a_cap() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = LocalLedger::start(&directory.path().join("ledger.db"));
        ledger.define(vec![cap(100)]).await.unwrap();
        let callers: Vec<_> = (0..20)
            .map(|node| {
                let ledger = ledger.clone();
                tokio::spawn(async move {
                    let mut granted = 0;
                    for sequence in 1..=10 {
                        let reply = ledger.lease(request(&node.to_string(), sequence, 5)).await.unwrap();
                        granted += reply.grants[0].granted;
                    }
                    granted
                })
            })
            .collect();
        let mut granted = 0;
        for caller in callers {
            granted += caller.await.unwrap();
        }
        assert_eq!(granted, 100);
        assert_eq!(ledger.state().await.unwrap()[0].leased, 100);
    }

    #[tokio::test]
    async fn a_file_that_could_not_be_opened_is_tried_again_and_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside) = (directory.path().join("ledger.db"), directory.path().join("aside.db"));
        {
            let ledger = LocalLedger::start(&path);
            ledger.define(vec![cap(10)]).await.unwrap();
            assert_eq!(ledger.lease(request("a", 1, 4)).await.unwrap().grants[0].granted, 4);
        }
        // Until its thread has closed the file, which ends the write-ahead log.
        while directory.path().join("ledger.db-wal").exists() {
            tokio::task::yield_now().await;
        }
        std::fs::rename(&path, &aside).unwrap();
        std::fs::create_dir(&path).unwrap();
        let ledger = LocalLedger::start(&path);
        let refused = ledger.lease(request("b", 1, 4)).await;
        assert!(matches!(refused, Err(LedgerError::Unusable { .. })), "{refused:?}");
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(&aside, &path).unwrap();
        let begun = Instant::now();
        let granted = loop {
            match ledger.lease(request("b", 1, 9)).await {
                Ok(reply) => break reply.grants[0].granted,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(30), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!((1..=6).contains(&granted), "{granted}");
        assert_eq!(ledger.state().await.unwrap()[0].leased, 4 + granted);
    }

    #[tokio::test]
    async fn a_damaged_file_is_the_answer_to_every_call() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        std::fs::write(&path, "no database at all, ".repeat(100)).unwrap();
        let ledger = LocalLedger::start(&path);
        for answer in [
            ledger.define(vec![cap(1)]).await.err(),
            ledger.lease(request("a", 1, 1)).await.err(),
            ledger.record(Vec::new()).await.err(),
            ledger.state().await.err(),
        ] {
            assert!(matches!(answer, Some(LedgerError::Damaged { .. })), "{answer:?}");
        }
    }
}
