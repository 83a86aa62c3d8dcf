//! The keys of those who call the API: named, several valid at once, revoked at once.
//!
//! Of a key, the store holds a BLAKE3 hash. A password hash would be slow on purpose, against guesses at what people
//! choose; these keys are 128 random bits, which nobody guesses at any speed, and the slowness would fall on every
//! call. A hash is looked up by its first 8 bytes and compared in constant time: how long a look-up takes tells at
//! most something of hashes, and from a hash no key can be made.
//!
//! The node's own key is not here: it is the operator's file or variable, and the edge must reach its API whatever
//! happens to this table.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction};
use serde::Serialize;
use subtle::ConstantTimeEq;

use super::store::{OpenError, Store};
use crate::cake::Key;

/// The keys of a store, for the command line. A node may run on the same file.
pub struct Keys {
    store: Store,
}

/// A key, as it can be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiKey {
    pub name: String,
    /// RFC 3339, in UTC.
    pub created_at: String,
    /// The last day, in UTC, on which a call brought it.
    pub last_used_on: Option<String>,
}

/// Why keys could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(
        "there is no store `{}`; start the node once, so that it makes it, or give the data directory that it uses",
        .0.display()
    )]
    Absent(PathBuf),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{0:?} is no name for a key; expected 1 to 64 letters, digits, `.`, `_` or `-`")]
    Name(String),
    #[error("there is a key named `{0}` already; revoke it first, or choose another name")]
    Taken(String),
    #[error("there is no key named `{0}`; `smartlink key list` shows the names")]
    Unknown(String),
    #[error(
        "there are {KEYS_MAX} keys, which is the most there can be; revoke those that are not used any more"
    )]
    Full,
    #[error("the store failed: {0}")]
    Store(#[from] rusqlite::Error),
}

impl Keys {
    /// Opens a store that is there. It is not made here: a mistyped directory should be an error, not an empty store.
    pub fn open(path: &Path) -> Result<Self, KeysError> {
        if !path.exists() {
            return Err(KeysError::Absent(path.to_owned()));
        }
        Ok(Self { store: Store::open(path)? })
    }

    /// Makes the key valid, under a name that no other has.
    pub fn create(&self, name: &str, key: &Key, now: Timestamp) -> Result<ApiKey, KeysError> {
        let well_formed = (1..=NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !well_formed {
            return Err(KeysError::Name(name.to_owned()));
        }
        self.store.write_aside(|transaction| {
            let count: i64 = transaction.query_row("SELECT count(*) FROM api_keys", [], |row| row.get(0))?;
            if count >= KEYS_MAX {
                return Err(KeysError::Full);
            }
            if transaction.prepare("SELECT 1 FROM api_keys WHERE name = ?")?.exists([name])? {
                return Err(KeysError::Taken(name.to_owned()));
            }
            let created_at = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            transaction.execute(
                "INSERT INTO api_keys (name, hash, created_at) VALUES (?, ?, ?)",
                (name, hash(key.reveal()), &created_at),
            )?;
            Ok(ApiKey { name: name.to_owned(), created_at, last_used_on: None })
        })
    }

    /// Every key, by name.
    pub fn list(&self) -> Result<Vec<ApiKey>, KeysError> {
        self.store.read(|transaction| {
            let mut statement =
                transaction.prepare("SELECT name, created_at, last_used_on FROM api_keys ORDER BY name")?;
            let rows = statement.query_map([], |row| {
                Ok(ApiKey { name: row.get(0)?, created_at: row.get(1)?, last_used_on: row.get(2)? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Makes the key invalid, from the next call on. Its name is free again.
    pub fn revoke(&self, name: &str) -> Result<(), KeysError> {
        self.store.write_aside(|transaction| {
            match transaction.execute("DELETE FROM api_keys WHERE name = ?", [name])? {
                0 => Err(KeysError::Unknown(name.to_owned())),
                _ => Ok(()),
            }
        })
    }
}

/// What the store holds of a key.
pub type Hash = [u8; 32];

pub fn hash(key: &str) -> Hash {
    *blake3::hash(key.as_bytes()).as_bytes()
}

/// On which day a valid key was last used, if ever; `None` if it is not valid.
pub fn last_used(transaction: &Transaction<'_>, hash: &Hash) -> rusqlite::Result<Option<Option<String>>> {
    let mut statement = transaction.prepare_cached(
        "SELECT hash, last_used_on FROM api_keys WHERE substr(hash, 1, 8) = substr(?, 1, 8)",
    )?;
    let rows = statement.query_map([hash], |row| Ok((row.get::<_, Hash>(0)?, row.get(1)?)))?;
    let mut found = None;
    for row in rows {
        let (stored, last_used_on) = row?;
        if bool::from(stored.ct_eq(hash)) {
            found = Some(last_used_on);
        }
    }
    Ok(found)
}

/// Notes the day on which a key was used.
pub fn note_use(transaction: &Transaction<'_>, hash: &Hash, day: &str) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE api_keys SET last_used_on = ? WHERE hash = ? RETURNING 1")?
        .query_row((day, hash), |_| Ok(()))
        .optional()?;
    Ok(())
}

/// Far more than anyone keeps apart; it bounds what a node remembers of each.
pub const KEYS_MAX: i64 = 1000;

const NAME_BYTES_MAX: usize = 64;
