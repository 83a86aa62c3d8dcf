//! The ledger on a Valkey or Redis server, or on a cluster of them, for many nodes.
//!
//! All that is known of an offer's caps has one hash tag, so that it is on one server, where one script settles and grants
//! whatever a request says of them: nothing comes in between. Of each holder an offer keeps the last sequence and the answer
//! to it, so that a request of which one half was done is repeated whole.
//!
//! The clock is the server's (TIME), and there is no other in a script. So this ledger is weaker than the file in one point:
//! when the clock of the server is set forward beyond the end of a window, what nodes still hold of that window counts as
//! over. The windows themselves are worked out here, since Lua knows no time zones: a script that finds a window over, and
//! has none that holds its own moment, does nothing but say so.
//!
//! A server that was started anew, or a replica that has become the primary, may not have all that was granted. Each offer
//! keeps the name of the server's history (`master_replid`); when it is another, nothing is granted for
//! [`ValkeyOptions::learning`], while the nodes tell what they hold.

mod conversions;
mod definitions;
mod lanes;
mod leases;
mod link;
mod news;
mod options;
mod polls;
mod row;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use redis::Value;

use crate::routing::Cap;
use crate::types::{CapKey, OfferId, UnixMillis};

use self::link::{Link, Script};
use self::news::News;
pub use self::options::ValkeyOptions;
use self::row::Row;
use super::error::LedgerError;
use super::message::{CapState, Conversion, LeaseReply, LeaseRequest, Recorded};

/// A user of the server. Its clones share a connection, and what was seen over it.
#[derive(Clone)]
pub struct ValkeyLedger(Arc<Shared>);

struct Shared {
    link: Link,
    scripts: Scripts,
    /// The caps that are looked at.
    known: Mutex<Known>,
    news: Mutex<News>,
    /// When all caps in force were last looked at. Whoever looks holds it.
    polled_at: tokio::sync::Mutex<Option<Instant>>,
}

type CapsOfOffers = BTreeMap<OfferId, BTreeMap<CapKey, Cap>>;

/// The caps that are looked at, and whose word they are.
#[derive(Clone)]
enum Known {
    /// Others may have changed them since: the servers know better.
    Remembered(CapsOfOffers),
    /// They were put in force from here.
    Defined(CapsOfOffers),
}

struct Scripts {
    look: Script,
    define: Script,
    lease: Script,
    record: Script,
}

impl ValkeyLedger {
    /// Nothing is connected before the first call.
    pub fn new(options: ValkeyOptions) -> Self {
        let script = |body| Script::new([include_str!("valkey/offer.lua"), body].join("\n"));
        let scripts = Scripts {
            look: script(include_str!("valkey/look.lua")),
            define: script(include_str!("valkey/define.lua")),
            lease: script(include_str!("valkey/lease.lua")),
            record: script(include_str!("valkey/record.lua")),
        };
        Self(Arc::new(Shared {
            link: Link::new(options),
            scripts,
            known: Mutex::default(),
            news: Mutex::new(News::new()),
            polled_at: tokio::sync::Mutex::default(),
        }))
    }

    /// Puts these caps in force, and no other of their offers. Of other offers, those are no longer in force that this object
    /// put in force or remembered before.
    pub async fn define(&self, caps: Vec<Cap>) -> Result<(), LedgerError> {
        self.0.define(caps).await
    }

    /// Looks from now on how these caps stand, and puts none in force or out of it: what the servers know of them is newer.
    pub async fn remember(&self, caps: Vec<Cap>) {
        self.0.remember(caps).await;
    }

    /// Settles and grants. The same request again is given the same answer.
    pub async fn lease(&self, request: LeaseRequest) -> Result<LeaseReply, LedgerError> {
        self.0.lease(&request).await
    }

    /// Writes conversions down and counts each once, whoever tells it again.
    pub async fn record(&self, conversions: Vec<Conversion>) -> Result<Vec<Recorded>, LedgerError> {
        self.0.record(&conversions).await
    }

    /// Every cap in force that is known here, as it stands at this moment.
    pub async fn state(&self) -> Result<Vec<CapState>, LedgerError> {
        self.0.state().await
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in how caps stood, as a script told it just now.
    fn see(&self, offer: OfferId, rows: Vec<String>, now: UnixMillis) -> Result<(), LedgerError> {
        let at = Instant::now();
        for row in rows {
            let row = Row::read(offer, &row)?.at(now)?;
            self.news().see(&row, now, at);
        }
        Ok(())
    }
}

impl Known {
    fn caps(&self) -> &CapsOfOffers {
        let (Known::Remembered(caps) | Known::Defined(caps)) = self;
        caps
    }
}

impl Default for Known {
    fn default() -> Self {
        Known::Remembered(CapsOfOffers::new())
    }
}

/// A key of the offer. What is in braces decides on which server of a cluster it is.
fn key(offer: OfferId, part: &str) -> String {
    format!("smartlink:{{offer:{offer}}}:{part}")
}

/// Counts that a script can hold.
fn bounded(number: u64) -> String {
    number.min(super::caps::AMOUNT_MAX).to_string()
}

/// Tells a person of caps that only alert.
fn alert(offer: OfferId, reached: &[String]) -> Result<(), LedgerError> {
    for text in reached {
        let mut words = text.split(' ');
        let cap = row::key_of(offer, words.next().unwrap_or_default())?;
        let (amount, used) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        tracing::warn!(%cap, amount, used, "a cap that only alerts has reached its amount; the offer stays open");
    }
    Ok(())
}

/// The parts of what a script answered.
fn parts(value: Value) -> Result<Vec<Value>, LedgerError> {
    match value {
        Value::Array(parts) => Ok(parts),
        other => Err(LedgerError::Failed(format!("the server answered a script with {other:?}"))),
    }
}

fn texts(value: Option<Value>) -> Result<Vec<String>, LedgerError> {
    let texts = value.map(redis::from_redis_value).transpose();
    Ok(texts.map_err(|error| LedgerError::Failed(error.to_string()))?.unwrap_or_default())
}

fn text(value: Option<Value>) -> Result<String, LedgerError> {
    let text = value.map(redis::from_redis_value).transpose();
    Ok(text.map_err(|error| LedgerError::Failed(error.to_string()))?.unwrap_or_default())
}

fn moment(value: Option<Value>) -> Result<UnixMillis, LedgerError> {
    let text = text(value)?;
    text.parse().map(UnixMillis).map_err(|_| LedgerError::Failed(format!("`{text}` is no moment")))
}

/// The caps whose windows are over, with their zones, each as `name zone`.
fn windows_at(offer: OfferId, overdue: &[String], now: UnixMillis) -> Result<row::Windows, LedgerError> {
    let of = |text: &String| {
        let (name, zone) = text.split_once(' ').ok_or_else(|| row::unreadable(offer, text))?;
        let cap = row::key_of(offer, name)?;
        Ok((cap, row::window_at(&cap, zone, now)?))
    };
    overdue.iter().map(of).collect()
}

/// Which ledger this is, to nodes that spoke to a file before: what that granted is nothing to the servers. From one server to
/// another it is the same, as what a server does not know is learned from the nodes.
const IDENTITY: u64 = u64::from_be_bytes(*b"on redis");

/// How many scripts are under way at once.
const CONCURRENT: usize = 64;

/// How often a script is told other windows, or a definition is read again: more often than the clock of a server jumps, or
/// somebody else writes.
const ATTEMPTS: usize = 5;
