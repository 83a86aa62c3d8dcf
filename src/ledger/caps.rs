//! A cap as the ledger keeps it: its definition, the window at hand, what is used of it, and how it stands.

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Params, Row, named_params};

use crate::routing::{Cap, Zone};
use crate::types::{AffiliateId, CapInterval, CapKey, CapKind, OfferId, UnixMillis};

use super::error::LedgerError;
use super::message::Standing;
use super::turn::Turn;
use super::window::Window;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CapRow {
    pub cap_id: i64,
    pub key: CapKey,
    pub amount: u64,
    /// Its name; it is looked up only where a window begins.
    pub zone: String,
    pub alert_only: bool,
    /// Not one that was removed.
    pub in_force: bool,
    pub window: Window,
    pub used: u64,
    /// In uptime.
    pub wanted_until: Option<u64>,
    pub flags: Flags,
    pub news: u64,
}

/// What a [`Standing`] tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub closed: bool,
    pub wanted: bool,
    pub recalled: bool,
}

impl CapRow {
    pub fn load(turn: &Turn<'_>, key: &CapKey) -> Result<Option<Self>, LedgerError> {
        let found = turn
            .connection
            .prepare_cached(
                "SELECT * FROM caps WHERE offer_id = ? AND affiliate_id = ? AND kind = ? AND interval = ?",
            )?
            .query_row((key.offer.value(), affiliate(key), key.kind.as_str(), key.interval.as_str()), read)
            .optional()?;
        Ok(found)
    }

    /// The caps that the condition holds for, which is SQL of this program.
    pub fn all(turn: &Turn<'_>, condition: &str, values: impl Params) -> Result<Vec<Self>, LedgerError> {
        let mut statement =
            turn.connection.prepare_cached(&format!("SELECT * FROM caps WHERE {condition}"))?;
        let rows = statement.query_map(values, read)?.collect::<Result<_, _>>()?;
        Ok(rows)
    }

    /// Writes down a cap that there was not before.
    pub fn create(turn: &mut Turn<'_>, cap: &Cap) -> Result<Self, LedgerError> {
        let key = &cap.key;
        let window = Window::at(key.interval, &cap.zone, turn.now.wall);
        let row = turn
            .connection
            .prepare_cached(
                "INSERT INTO caps (offer_id, affiliate_id, kind, interval, amount, zone, alert_only, in_force,
                                   window_start, window_end, used, standing, news)
                 VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, ?, 0, 0, ?) RETURNING *",
            )?
            .query_row(
                (
                    key.offer.value(),
                    affiliate(key),
                    key.kind.as_str(),
                    key.interval.as_str(),
                    cap.amount.min(AMOUNT_MAX),
                    cap.zone.name(),
                    cap.alert_only,
                    window.start,
                    window.end,
                    turn.next_news(),
                ),
                read,
            )?;
        Ok(row)
    }

    pub fn save(&self, turn: &Turn<'_>) -> Result<(), LedgerError> {
        turn.connection
            .prepare_cached(
                "UPDATE caps SET amount = :amount, zone = :zone, alert_only = :alert_only, in_force = :in_force,
                     window_start = :window_start, window_end = :window_end, used = :used,
                     wanted_until = :wanted_until, standing = :standing, news = :news
                 WHERE cap_id = :cap_id",
            )?
            .execute(named_params! {
                ":cap_id": self.cap_id,
                ":amount": self.amount,
                ":zone": self.zone,
                ":alert_only": self.alert_only,
                ":in_force": self.in_force,
                ":window_start": self.window.start,
                ":window_end": self.window.end,
                ":used": self.used,
                ":wanted_until": self.wanted_until,
                ":standing": self.flags.bits(),
                ":news": self.news,
            })?;
        Ok(())
    }

    /// Begins the window of this moment. What is held of the last one is [`holdings`](super::holdings)' to know.
    pub fn begin_window(&mut self, turn: &mut Turn<'_>) -> Result<(), LedgerError> {
        self.window = Window::at(self.key.interval, &self.zone()?, turn.now.wall);
        self.used = 0;
        self.wanted_until = None;
        // How it stood was told of the last window: if it stands so again in this one, that is news.
        if self.flags != Flags::default() {
            self.flags = Flags::default();
            self.news = turn.next_news();
        }
        Ok(())
    }

    /// Counts windows in another zone from now on. The window at hand gets another end, and begins no earlier than it did:
    /// what is used and granted of it stays so, as nobody can say which part of it falls outside.
    pub fn move_to(&mut self, zone: &Zone, at: UnixMillis) {
        let start = self.window.start;
        let no_earlier = UnixMillis(at.0.max(start.saturating_mul(1000)));
        let window = Window::at(self.key.interval, zone, no_earlier);
        self.window = Window { start: window.start.max(start), end: window.end };
        self.zone = zone.name().to_owned();
    }

    /// Clicks that may still be granted.
    pub fn free(&self, leased: u64) -> u64 {
        self.amount.saturating_sub(self.used).saturating_sub(leased)
    }

    /// Counts clicks or conversions, and tells a person when a cap that only alerts has reached its amount.
    pub fn count(&mut self, more: u64) {
        let before = self.used;
        self.used = self.used.saturating_add(more).min(USED_MAX);
        if self.alert_only && self.in_force && before < self.amount.max(1) && self.amount.max(1) <= self.used
        {
            let (cap, amount, used) = (self.key, self.amount, self.used);
            tracing::warn!(%cap, amount, used, "a cap that only alerts has reached its amount; the offer stays open");
        }
    }

    /// Works out how the cap stands, and makes it news if that has changed.
    pub fn stand(&mut self, turn: &mut Turn<'_>, leased: u64) {
        if self.wanted_until.is_some_and(|until| until <= turn.now.uptime_ms) {
            self.wanted_until = None;
        }
        let flags = match self.alert_only || !self.in_force {
            true => Flags::default(),
            false => {
                Flags::of_count(self.key.kind, self.amount, self.used, leased, self.wanted_until.is_some())
            }
        };
        if flags != self.flags {
            self.flags = flags;
            self.news = turn.next_news();
        }
    }

    pub fn standing(&self, at: UnixMillis) -> Standing {
        let Flags { closed, wanted, recalled } = self.flags;
        Standing { cap: self.key, closed, wanted, recalled, ends_in_ms: self.window.ends_in_ms(at) }
    }

    fn zone(&self) -> Result<Zone, LedgerError> {
        Zone::parse(&self.zone).ok_or_else(|| {
            LedgerError::Failed(format!(
                "the {} counts in time zone `{}`, which this version does not know",
                self.key, self.zone
            ))
        })
    }
}

impl Flags {
    /// How a cap stands that is in force and closes its offer.
    pub fn of_count(kind: CapKind, amount: u64, used: u64, leased: u64, is_wanted: bool) -> Self {
        let full = used >= amount;
        match kind {
            CapKind::Conversion => Flags { closed: full, ..Flags::default() },
            CapKind::Click => Flags {
                closed: amount == 0 || full && leased == 0,
                // With nothing held, there is nothing that anybody could return.
                wanted: leased > 0 && is_wanted,
                recalled: leased > 0 && used.saturating_add(leased) > amount,
            },
        }
    }

    fn bits(self) -> u8 {
        u8::from(self.closed) | u8::from(self.wanted) << 1 | u8::from(self.recalled) << 2
    }

    fn of(bits: u8) -> Self {
        Self { closed: bits & 1 != 0, wanted: bits & 2 != 0, recalled: bits & 4 != 0 }
    }
}

/// By place and not by name, in the order of schema.sql: whoever defines the caps reads all of them.
fn read(row: &Row<'_>) -> rusqlite::Result<CapRow> {
    Ok(CapRow {
        cap_id: row.get(0)?,
        key: read_key(row)?,
        amount: row.get(5)?,
        zone: row.get(6)?,
        alert_only: row.get(7)?,
        in_force: row.get(8)?,
        window: Window { start: row.get(9)?, end: row.get(10)? },
        used: row.get(11)?,
        wanted_until: row.get(12)?,
        flags: Flags::of(row.get(13)?),
        news: row.get(14)?,
    })
}

/// Only what was written from a key is there; something else is damage.
fn read_key(row: &Row<'_>) -> rusqlite::Result<CapKey> {
    let damaged = |place: usize| {
        let name = row.as_ref().column_name(place).unwrap_or_default().to_owned();
        rusqlite::Error::InvalidColumnType(
            place,
            name,
            row.get_ref(place).map_or(Type::Null, |value| value.data_type()),
        )
    };
    let text = |place| row.get_ref(place)?.as_str().map_err(|_| damaged(place));
    Ok(CapKey {
        offer: OfferId::new(row.get(1)?).ok_or_else(|| damaged(1))?,
        affiliate: AffiliateId::new(row.get(2)?),
        kind: CapKind::parse(text(3)?).ok_or_else(|| damaged(3))?,
        interval: CapInterval::parse(text(4)?).ok_or_else(|| damaged(4))?,
    })
}

fn affiliate(key: &CapKey) -> u32 {
    key.affiliate.map_or(0, AffiliateId::value)
}

/// More than anybody counts, and far from where sums overflow.
pub(super) const AMOUNT_MAX: u64 = 1 << 53;

const USED_MAX: u64 = 1 << 60;
