//! The store: one SQLite file that holds what the API accepted.
//!
//! What was answered with success survives a crash and a power cut: every change is one transaction, and its commit
//! returns after the write-ahead log is on the disk. One connection serves the calls in turn, and none holds it longer
//! than a page of rows takes; who reads the whole has a connection of its own. SQL for a noun stands beside the calls of that noun, not here.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, ToSql, Transaction, TransactionBehavior,
    params_from_iter,
};
use tokio::sync::watch;

/// The open file.
pub struct Store {
    connection: Mutex<Connection>,
    path: PathBuf,
    /// The name of the state that was committed last.
    revision: watch::Sender<String>,
}

/// Why a file cannot be the store, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the store `{}`: {source}; check that its directory exists, may be written and has room", path.display())]
    Unusable { path: PathBuf, source: rusqlite::Error },
    #[error(
        "`{}` is not a smartlink store but {found}; move it away, or choose another data directory",
        path.display()
    )]
    Foreign { path: PathBuf, found: String },
    #[error(
        "the store `{}` is damaged: {problem}; restore it from a backup (with its -wal file, if there is one), or \
         move it away to begin with an empty one",
        path.display()
    )]
    Damaged { path: PathBuf, problem: String },
    #[error(
        "the store `{}` was written by a newer smartlink (schema {found}; this one knows {known}); run that version, \
         or restore a backup from before the upgrade",
        path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
}

/// A table of which a page is asked, with its filters.
pub struct Listing {
    table: &'static str,
    columns: &'static str,
    order: &'static str,
    filters: Vec<&'static str>,
    values: Vec<Value>,
}

/// Which rows of a list are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// From 0.
    pub start_at_row: i64,
    pub row_limit: i64,
}

/// What became of an item that was put in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Created,
    Changed,
    Unchanged,
}

impl Put {
    /// By what was there before.
    pub fn of<T: PartialEq>(before: Option<&T>, after: &T) -> Self {
        match before {
            None => Put::Created,
            Some(before) if before == after => Put::Unchanged,
            Some(_) => Put::Changed,
        }
    }
}

impl Store {
    /// Opens the file, or makes it, and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |error| open_error(path, error);
        let mut connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        check_identity(&connection, path)?;
        check_health(&connection, path)?;
        configure(&connection).map_err(failed)?;
        migrate(&mut connection).map_err(failed)?;
        let revision =
            connection.transaction().and_then(|transaction| revision(&transaction)).map_err(failed)?;
        Ok(Self {
            connection: Mutex::new(connection),
            path: path.to_owned(),
            revision: watch::Sender::new(revision),
        })
    }

    /// The name of the state, and of each that follows.
    pub fn revisions(&self) -> watch::Receiver<String> {
        self.revision.subscribe()
    }

    /// A connection of its own for a reader who takes long: with the write-ahead log, nobody waits for it.
    pub fn reader(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(connection)
    }

    /// Runs the work on one state of the file. Whatever it wrote is undone.
    pub fn read<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        work(&connection.transaction_with_behavior(TransactionBehavior::Deferred)?)
    }

    /// Runs the work and keeps what it wrote, all of it, or nothing if it fails.
    pub fn write<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.write_if(|transaction| Ok((work(transaction)?, true)))
    }

    /// As [`write`](Self::write), for what is no part of the network: no reader of the network is told of a change.
    pub fn write_aside<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        // A panic while the lock was held has rolled its transaction back, so the connection is as good as before.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// As [`write`](Self::write), where the work says whether it changed anything. If it did not, the network keeps
    /// its revision, and nobody reads it again for nothing.
    pub fn write_if<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<(T, bool), E>,
    ) -> Result<T, E> {
        // A panic while the lock was held has rolled its transaction back, so the connection is as good as before.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (done, changed) = work(&transaction)?;
        if changed {
            let revision: String = transaction
                .prepare_cached(
                    "UPDATE network SET revision = lower(hex(randomblob(16))) RETURNING revision",
                )?
                .query_row([], |row| row.get(0))?;
            note_state(&transaction, &revision)?;
            transaction.commit()?;
            self.revision.send_replace(revision);
        }
        Ok(done)
    }
}

impl Listing {
    /// Every argument is SQL and comes from this program.
    pub fn new(table: &'static str, columns: &'static str, order: &'static str) -> Self {
        Self { table, columns, order, filters: Vec::new(), values: Vec::new() }
    }

    /// Keeps the rows in which the column has this value; all of them without a value.
    pub fn filter<T: Into<Value>>(mut self, column: &'static str, value: Option<T>) -> Self {
        if let Some(value) = value {
            self.filters.push(column);
            self.values.push(value.into());
        }
        self
    }

    /// The rows of the page, and how many rows all pages have.
    pub fn page<T>(
        &self,
        transaction: &Transaction<'_>,
        page: Page,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<(Vec<T>, i64)> {
        let Self { table, columns, order, .. } = self;
        let mut kept = String::new();
        for (index, column) in self.filters.iter().enumerate() {
            kept += if index == 0 { " WHERE " } else { " AND " };
            kept += column;
            kept += " = ?";
        }
        let total_rows = transaction
            .prepare_cached(&format!("SELECT count(*) FROM {table}{kept}"))?
            .query_row(params_from_iter(&self.values), |row| row.get(0))?;
        let mut statement = transaction.prepare_cached(&format!(
            "SELECT {columns} FROM {table}{kept} ORDER BY {order} LIMIT ? OFFSET ?"
        ))?;
        let bounds: [&dyn ToSql; 2] = [&page.row_limit, &page.start_at_row];
        let values = self.values.iter().map(|value| value as &dyn ToSql).chain(bounds);
        let rows = statement.query_map(params_from_iter(values), read)?.collect::<Result<_, _>>()?;
        Ok((rows, total_rows))
    }
}

/// Enters a state, of which the triggers have noted what it touched, and forgets what is too old or too much to be told
/// as a difference.
fn note_state(transaction: &Transaction<'_>, revision: &str) -> rusqlite::Result<()> {
    let state: i64 = transaction
        .prepare_cached(
            "INSERT INTO states (state, revision) SELECT state, ? FROM next_state WHERE true RETURNING state",
        )?
        .query_row([revision], |row| row.get(0))?;
    let touched: i64 = transaction
        .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM touched_links WHERE state = ? LIMIT ?)")?
        .query_row((state, CHANGED_LINKS_MAX + 1), |row| row.get(0))?;
    let oldest = if touched > CHANGED_LINKS_MAX { state } else { state - STATES_KEPT };
    for sql in [
        "DELETE FROM states WHERE state < ?",
        "DELETE FROM touched_links WHERE state <= ?",
        "DELETE FROM touched_offers WHERE state <= ?",
    ] {
        transaction.prepare_cached(sql)?.execute([oldest])?;
    }
    Ok(())
}

/// The name of the state that the transaction sees.
pub fn revision(transaction: &Connection) -> rusqlite::Result<String> {
    transaction.prepare_cached("SELECT revision FROM network")?.query_row([], |row| row.get(0))
}

/// The id that the table gives next. Ids of deleted rows are not given again.
pub fn next_id(transaction: &Transaction<'_>, table: &'static str) -> rusqlite::Result<i64> {
    let last: Option<i64> = transaction
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = ?")?
        .query_row([table], |row| row.get(0))
        .optional()?;
    Ok(last.unwrap_or(0) + 1)
}

/// Lets the table give no id below `first` from now on.
pub fn begin_ids_at(transaction: &Transaction<'_>, table: &'static str, first: i64) -> rusqlite::Result<()> {
    let next = next_id(transaction, table)?.max(first);
    // SQLite keeps no key on this table, so that an upsert is not possible.
    transaction.execute("DELETE FROM sqlite_sequence WHERE name = ?", [table])?;
    transaction.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, next - 1))?;
    Ok(())
}

/// Refuses a file that another program made, before anything is written to it.
fn check_identity(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error| open_error(path, error);
    let number =
        |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(failed);
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    let empty = application == 0 && version == 0 && tables == 0;
    if application != APPLICATION_ID && !empty {
        return Err(OpenError::Foreign {
            path: path.to_owned(),
            found: "an SQLite database of another program".to_owned(),
        });
    }
    let known = MIGRATIONS.len() as i64;
    if version > known {
        return Err(OpenError::Newer { path: path.to_owned(), found: version, known });
    }
    Ok(())
}

/// Reads every page once. A damaged store found at start is a message; found later, it is a wrong redirect.
fn check_health(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let problem: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| open_error(path, error))?;
    if problem == "ok" { Ok(()) } else { Err(OpenError::Damaged { path: path.to_owned(), problem }) }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    // The answer is the mode that was set; where a file system cannot do WAL, the rollback journal is as durable.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // In WAL mode, NORMAL would lose the last commits with the power.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(())
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    // The version is read inside the transaction: two processes that start at once migrate once.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        transaction.execute_batch(migration)?;
    }
    // A store that needs nothing is opened without a write, so that a node starts on a disk that is full.
    if version < MIGRATIONS.len() as i64 {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    }
    transaction.commit()
}

fn open_error(path: &Path, error: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            OpenError::Foreign { path, found: "a file that SQLite cannot read".to_owned() }
        }
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, problem: error.to_string() },
        _ => OpenError::Unusable { path, source: error },
    }
}

/// Each brings the schema from its index to the next version; `PRAGMA user_version` says how many were run. One that
/// was released is never edited.
const MIGRATIONS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("schema_keys.sql"),
    include_str!("schema_changes.sql"),
    include_str!("schema_caps.sql"),
    include_str!("schema_names.sql"),
];

/// Beyond so many links, a reader is told the whole network and no difference.
pub const CHANGED_LINKS_MAX: i64 = 10_000;

/// How many states back a difference can be told: hours of steady work, and an edge asks every few seconds.
const STATES_KEPT: i64 = 10_000;

/// "SLNK": tells our files from those of other programs.
const APPLICATION_ID: i64 = 0x534C_4E4B;

/// More than the API has statements, so that each is compiled once; filters make a few of each list.
const STATEMENTS_KEPT: usize = 64;

/// How long to wait for another process, such as a backup, that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        match Store::open(path) {
            Ok(_) => panic!("{} was opened", path.display()),
            Err(error) => {
                assert!(error.to_string().contains(&path.display().to_string()), "{error}");
                error.to_string()
            }
        }
    }

    #[test]
    fn commits_are_durable_and_references_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("cake.db")).unwrap();
        let (journal, synchronous, foreign_keys) = store
            .read::<_, rusqlite::Error>(|transaction| {
                let text =
                    |pragma| transaction.pragma_query_value(None, pragma, |row| row.get::<_, String>(0));
                let number =
                    |pragma| transaction.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
                Ok((text("journal_mode")?, number("synchronous")?, number("foreign_keys")?))
            })
            .unwrap();
        assert_eq!((journal.as_str(), synchronous, foreign_keys), ("wal", 2, 1));
        let orphan = store.write::<_, rusqlite::Error>(|transaction| {
            transaction.execute("INSERT INTO smart_link_offers VALUES (1, 1, 1, 1)", [])
        });
        assert!(orphan.is_err());
    }

    #[test]
    fn a_failed_change_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("cake.db")).unwrap();
        let failed = store.write::<(), rusqlite::Error>(|transaction| {
            begin_ids_at(transaction, "smart_links", 301)?;
            Err(rusqlite::Error::QueryReturnedNoRows)
        });
        assert!(failed.is_err());
        let next = store.read::<_, rusqlite::Error>(|transaction| next_id(transaction, "smart_links"));
        assert_eq!(next.unwrap(), 1);
    }

    #[test]
    fn a_foreign_file_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let text = directory.path().join("notes.txt");
        let notes = "not a database, but long enough to have a header of one hundred bytes, which SQLite looks at first";
        std::fs::write(&text, notes).unwrap();
        assert!(refusal(&text).contains("move it away"));
        assert_eq!(std::fs::read_to_string(&text).unwrap(), notes);

        let other = directory.path().join("other.db");
        Connection::open(&other).unwrap().execute_batch("CREATE TABLE cookies (host TEXT)").unwrap();
        assert!(refusal(&other).contains("another program"));

        refusal(&directory.path().join("no such directory").join("cake.db"));
    }

    #[test]
    fn a_newer_store_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cake.db");
        drop(Store::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(refusal(&path).contains("newer smartlink (schema 99"));
    }

    #[test]
    fn a_store_of_the_first_version_is_brought_up_to_date() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cake.db");
        let first = Connection::open(&path).unwrap();
        first.execute_batch(MIGRATIONS[0]).unwrap();
        first.execute_batch("UPDATE network SET revision = 'seven'").unwrap();
        first.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        first.pragma_update(None, "user_version", 1).unwrap();
        drop(first);
        let store = Store::open(&path).unwrap();
        let kept = store.read::<_, rusqlite::Error>(|transaction| {
            let keys: i64 = transaction.query_row("SELECT count(*) FROM api_keys", [], |row| row.get(0))?;
            Ok((keys, revision(transaction)?))
        });
        assert_eq!(kept.unwrap(), (0, "seven".to_owned()));
    }

    #[test]
    fn a_damaged_store_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cake.db");
        drop(Store::open(&path).unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        let half = bytes.len() / 2;
        bytes[half..].fill(0xAA);
        std::fs::write(&path, &bytes).unwrap();
        assert!(refusal(&path).contains("damaged"));
        bytes.truncate(half + 100);
        std::fs::write(&path, &bytes).unwrap();
        assert!(refusal(&path).contains("damaged"));
    }
}
