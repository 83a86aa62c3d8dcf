//! The embedded ledger: one SQLite file, one connection, and no clock of its own.
//!
//! Whatever a call answers is on the disk before it answers: its transaction is committed, and a commit returns after
//! the write-ahead log is synced.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use crate::routing::Cap;

use super::clock::LedgerTime;
use super::error::LedgerError;
use super::message::{CapState, Conversion, LeaseReply, LeaseRequest, Recorded};
use super::{conversions, definitions, leases};

/// The open file. Moments come as arguments, so that a story can be told again with the same clocks.
pub struct SqliteLedger {
    pub(super) connection: Connection,
}

impl SqliteLedger {
    /// Opens the file, or makes it. One that is damaged, or another program's, is refused and left as it is.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let connection = Connection::open(path).map_err(|error| open_error(path, &error))?;
        Self::prepare(connection, path)
    }

    /// Over a connection that somebody else opened, such as one in memory.
    pub fn from_connection(connection: Connection) -> Result<Self, LedgerError> {
        let path = connection.path().unwrap_or_default().to_owned();
        Self::prepare(connection, Path::new(&path))
    }

    pub fn into_connection(self) -> Connection {
        self.connection
    }

    /// Puts exactly these caps in force. One that is removed keeps its count for as long as its window lasts, so that
    /// setting it again grants nothing twice.
    pub fn define(&mut self, caps: &[Cap], now: LedgerTime) -> Result<(), LedgerError> {
        self.write(|transaction| definitions::define(transaction, caps, now))
    }

    /// Settles and grants. The same request again is given the same answer.
    pub fn lease(&mut self, request: &LeaseRequest, now: LedgerTime) -> Result<LeaseReply, LedgerError> {
        self.write(|transaction| leases::lease(transaction, request, now))
    }

    /// Writes conversions down and counts each once, whoever tells it again.
    pub fn record(
        &mut self,
        conversions: &[Conversion],
        now: LedgerTime,
    ) -> Result<Vec<Recorded>, LedgerError> {
        self.write(|transaction| conversions::record(transaction, conversions, now))
    }

    /// Every cap in force, as it stands at this moment.
    pub fn state(&mut self, now: LedgerTime) -> Result<Vec<CapState>, LedgerError> {
        let transaction = self.begin()?;
        definitions::state(&transaction, now)
    }

    /// A transaction for several pieces of work.
    pub(super) fn begin(&mut self) -> Result<Transaction<'_>, LedgerError> {
        Ok(self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
    }

    fn write<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let transaction = self.begin()?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    fn prepare(mut connection: Connection, path: &Path) -> Result<Self, LedgerError> {
        let failed = |error: rusqlite::Error| open_error(path, &error);
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        let problem = unfamiliar(&connection).map_err(failed)?;
        let problem = match problem {
            Some(problem) => Some(problem),
            None => damage(&connection).map_err(failed)?,
        };
        if let Some(reason) = problem {
            return Err(LedgerError::Damaged { path: path.to_owned(), reason });
        }
        configure(&connection).map_err(failed)?;
        create(&mut connection).map_err(failed)?;
        Ok(Self { connection })
    }
}

/// Why the file is not this version's, if it is not; looked at before anything is written to it.
fn unfamiliar(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (application, version) {
        (0, 0) if tables == 0 => None,
        (APPLICATION_ID, 1..=SCHEMA_VERSION) => None,
        (APPLICATION_ID, version) => Some(format!(
            "it was written by another version of smartlink (schema {version}; this one knows {SCHEMA_VERSION})"
        )),
        _ => Some("it is an SQLite database of another program".to_owned()),
    })
}

/// Reads every page once. Damage found later could have granted a click twice.
fn damage(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let problem: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((problem != "ok").then_some(problem))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // The answer is the mode that was set; in memory, and where a file system cannot do WAL, it is another.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // In WAL mode, NORMAL would lose the last commits with the power.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(())
}

fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    // The version is read inside the transaction: two processes that start at once create once.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        0 => {
            transaction.execute_batch(include_str!("schema.sql"))?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        1 => transaction.execute_batch(GIVE_IDENTITY)?,
        _ => {}
    }
    if version < SCHEMA_VERSION {
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()
}

fn open_error(path: &Path, error: &rusqlite::Error) -> LedgerError {
    let (path, reason) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => LedgerError::Damaged { path, reason },
        _ => LedgerError::Unusable { path, reason },
    }
}

/// "SLLG": tells our files from those of other programs.
const APPLICATION_ID: i64 = 0x534C_4C47;

const SCHEMA_VERSION: i64 = 2;

/// From schema 1, which had none, to 2.
const GIVE_IDENTITY: &str = "
    ALTER TABLE ledger ADD COLUMN identity INTEGER NOT NULL DEFAULT 0;
    UPDATE ledger SET identity = random();
";

/// More than the ledger has, so that each is compiled once.
const STATEMENTS_KEPT: usize = 64;

/// How long to wait for another process, such as a backup, that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::UnixMillis;

    const NOW: LedgerTime = LedgerTime { wall: UnixMillis(1_790_000_000_000), boot: 1, uptime_ms: 5_000 };

    #[test]
    fn commits_are_durable_and_references_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&directory.path().join("ledger.db")).unwrap();
        let number =
            |pragma| ledger.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!((number("synchronous"), number("foreign_keys")), (2, 1));
        let journal: String =
            ledger.connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(journal, "wal");
    }

    #[test]
    fn a_foreign_or_damaged_file_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let refused = |path: &Path| match SqliteLedger::open(path) {
            Err(error @ LedgerError::Damaged { .. }) => error.to_string(),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{} was opened", path.display()),
        };

        let other = directory.path().join("other.db");
        Connection::open(&other).unwrap().execute_batch("CREATE TABLE cookies (host TEXT)").unwrap();
        assert!(refused(&other).contains("another program"));

        let text = directory.path().join("notes.txt");
        std::fs::write(&text, "no database at all, ".repeat(100)).unwrap();
        assert!(refused(&text).contains("no cap is granted until it is mended"));
        assert_eq!(std::fs::read(&text).unwrap().len(), 2_000);

        let damaged = directory.path().join("ledger.db");
        drop(SqliteLedger::open(&damaged).unwrap());
        let mut bytes = std::fs::read(&damaged).unwrap();
        for byte in &mut bytes[4_096..8_192] {
            *byte = 0xA5;
        }
        std::fs::write(&damaged, &bytes).unwrap();
        assert!(refused(&damaged).contains("ledger.db"));
        assert_eq!(std::fs::read(&damaged).unwrap(), bytes);

        let newer = directory.path().join("newer.db");
        drop(SqliteLedger::open(&newer).unwrap());
        Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(refused(&newer).contains("schema 99"));

        let nowhere = SqliteLedger::open(&directory.path().join("none").join("ledger.db")).err().unwrap();
        assert!(matches!(nowhere, LedgerError::Unusable { .. }), "{nowhere}");
    }

    #[test]
    fn a_failed_call_leaves_nothing() {
        let mut ledger = SqliteLedger::from_connection(Connection::open_in_memory().unwrap()).unwrap();
        let failed = ledger.write::<()>(|connection| {
            definitions::define(connection, &[], NOW)?;
            Err(LedgerError::Stopped)
        });
        assert_eq!(failed, Err(LedgerError::Stopped));
        let rows: i64 =
            ledger.connection.query_row("SELECT count(*) FROM ledger", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0);
    }
}
