//! One piece of work within a transaction: its moment, and the count of news.
//!
//! Every piece begins by asking whether the machine has been started anew since the last one. If it has, what was left
//! of each lease then is what may be left of it now: how long the machine was off, nobody knows.

use rusqlite::Connection;

use super::clock::LedgerTime;
use super::error::LedgerError;

pub(super) struct Turn<'c> {
    pub connection: &'c Connection,
    pub now: LedgerTime,
    /// Which ledger this is.
    pub ledger: u64,
    /// When something was written last, by the uptime of this boot.
    pub written_at_ms: u64,
    news: u64,
}

impl<'c> Turn<'c> {
    pub fn begin(connection: &'c Connection, now: LedgerTime) -> Result<Self, LedgerError> {
        let (identity, news, boot, uptime_ms): (i64, u64, [u8; 16], u64) = match connection
            .prepare_cached("SELECT identity, news, boot, uptime_ms FROM ledger")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        {
            Ok(found) => found,
            Err(rusqlite::Error::QueryReturnedNoRows) => return Self::first(connection, now),
            Err(error) => return Err(error.into()),
        };
        let ledger = identity.cast_unsigned();
        let turn = Self { connection, now, ledger, written_at_ms: uptime_ms, news };
        if u128::from_be_bytes(boot) != now.boot || uptime_ms > now.uptime_ms {
            turn.begin_boot(uptime_ms)?;
        }
        Ok(turn)
    }

    /// The file is given its identity. Its news are counted from the moment of its making, so that they are all newer than
    /// those that nodes have heard from a file that was moved away, also where a node names no ledger.
    fn first(connection: &'c Connection, now: LedgerTime) -> Result<Self, LedgerError> {
        let news = u64::try_from(now.wall.0).unwrap_or(0);
        let identity: i64 = connection.query_row(
            "INSERT INTO ledger (one, identity, news, boot, uptime_ms, pruned_at) VALUES (1, random(), ?, ?, ?, ?)
             RETURNING identity",
            (news, now.boot.to_be_bytes(), now.uptime_ms, now.wall.0),
            |row| row.get(0),
        )?;
        Ok(Self { connection, now, ledger: identity.cast_unsigned(), written_at_ms: now.uptime_ms, news })
    }

    fn begin_boot(&self, uptime_ms_before: u64) -> Result<(), LedgerError> {
        self.connection.execute(
            "UPDATE holdings SET dead_after = ? + max(0, dead_after - ?) WHERE dead_after IS NOT NULL",
            (self.now.uptime_ms, uptime_ms_before),
        )?;
        self.connection.execute("UPDATE caps SET wanted_until = 0 WHERE wanted_until IS NOT NULL", [])?;
        self.connection.execute("UPDATE holders SET seen_uptime_ms = NULL", [])?;
        self.connection.execute(
            "UPDATE ledger SET boot = ?, uptime_ms = ?",
            (self.now.boot.to_be_bytes(), self.now.uptime_ms),
        )?;
        Ok(())
    }

    /// How many standings have changed up to now.
    pub fn news(&self) -> u64 {
        self.news
    }

    /// Numbers a change of a standing.
    pub fn next_news(&mut self) -> u64 {
        self.news += 1;
        self.news
    }

    /// Ends a piece of work that wrote something.
    pub fn finish(self) -> Result<(), LedgerError> {
        self.connection
            .prepare_cached("UPDATE ledger SET news = ?, uptime_ms = ?")?
            .execute((self.news, self.now.uptime_ms))?;
        Ok(())
    }
}
