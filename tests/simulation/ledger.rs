//! The ledger's machine: what it answers, how it fails, and what is on its disk.

use std::sync::Arc;

use rand::Rng;
use rusqlite::{Connection, Row};
use smartlink::ledger::{Conversion, LeaseRequest, LedgerTime, Recorded, SqliteLedger};
use smartlink::routing::Cap;
use smartlink::types::{AffiliateId, CapInterval, CapKey, CapKind, OfferId, UnixMillis};

use crate::events::Event;
use crate::random::{MS, Monotonic, SECOND, below, one_in};
use crate::world::World;

/// A conversion that was or will be told.
pub struct Sale {
    pub offer: OfferId,
    pub affiliate: AffiliateId,
    pub clicked_at: i64,
    /// The last ledger that did.
    pub counted_by: Option<u64>,
    pub is_answered: bool,
    pub times_told: u32,
}

impl Sale {
    pub fn conversion(&self, index: u64) -> Conversion {
        Conversion {
            click_id: index.to_string(),
            event: 0,
            transaction: String::new(),
            offer_id: self.offer.value(),
            affiliate_id: self.affiliate.value(),
            smart_link_id: 1,
            clicked_at: self.clicked_at,
            amount: None,
        }
    }

    pub fn index_of(conversion: &Conversion) -> usize {
        conversion.click_id.parse().expect("an index")
    }
}

/// A cap as it is on the disk.
#[derive(Debug)]
pub struct Kept {
    pub key: CapKey,
    pub amount: u64,
    pub alert_only: bool,
    pub in_force: bool,
    /// From when to when, in seconds.
    pub window: (i64, Option<i64>),
    pub used: u64,
    pub leased: u64,
}

impl Kept {
    pub fn closes(&self) -> bool {
        self.in_force && !self.alert_only
    }

    pub fn free(&self) -> u64 {
        self.amount.saturating_sub(self.used).saturating_sub(self.leased)
    }

    pub fn counts(&self, offer: OfferId, affiliate: AffiliateId) -> bool {
        self.key.offer == offer && self.key.affiliate.is_none_or(|of| of == affiliate)
    }
}

impl World {
    pub fn wall_ms(&self) -> i64 {
        self.wall_offset_ms + (self.now / MS) as i64
    }

    pub fn ledger_time(&self) -> LedgerTime {
        LedgerTime {
            wall: UnixMillis(self.wall_ms()),
            boot: self.boot,
            uptime_ms: self.ledger_clock.read(self.now) / MS,
        }
    }

    pub fn lease(&mut self, edge: usize, life: u64, sent_at: u64, request: &LeaseRequest) {
        let time = self.ledger_time();
        let Some(ledger) = &mut self.ledger else { return };
        let Ok(reply) = ledger.lease(request, time) else { return };
        self.told.leases += 1;
        if request.ledger.is_some_and(|ledger| ledger != reply.ledger) {
            assert!(reply.grants.is_empty() && reply.standings.is_empty(), "seed {}: {reply:?}", self.seed);
            self.send(edge, |sent| Event::ToEdge { edge, life, sent_at, reply: sent }, reply);
            return;
        }
        // Otherwise nothing was written. Told from the beginning, a cap that has opened with its window is not named.
        if !request.items.is_empty() || !reply.standings.is_empty() || request.news_since == 0 {
            self.observe(&[]);
        }
        let settled = self.settled.entry((edge, life)).or_default();
        if !request.items.is_empty() && *settled < request.sequence {
            *settled = request.sequence;
            self.granted(edge, life, request, &reply);
        }
        self.send(edge, |sent| Event::ToEdge { edge, life, sent_at, reply: sent }, reply);
    }

    pub fn record(&mut self, edge: usize, life: u64, conversions: Vec<Conversion>) {
        let time = self.ledger_time();
        let Some(ledger) = &mut self.ledger else { return };
        let recorded = ledger.record(&conversions, time).expect("the ledger is well");
        let mut counted = Vec::new();
        for (conversion, recorded) in conversions.iter().zip(recorded) {
            let sale = &mut self.sales[Sale::index_of(conversion)];
            let is_counted = sale.counted_by == self.ledger_identity;
            let expected = if is_counted { Recorded::Repeated } else { Recorded::Counted };
            assert_eq!(recorded, expected, "seed {}: {conversion:?}", self.seed);
            if !is_counted {
                sale.counted_by = self.ledger_identity;
                self.told.conversions += 1;
                counted.push((sale.offer, sale.affiliate));
            }
        }
        self.observe(&counted);
        self.send(edge, |sent| Event::Recorded { edge, life, conversions: sent }, conversions);
    }

    pub fn ledger_fails(&mut self) {
        if let Some(ledger) = self.ledger.take() {
            self.told.crashes += 1;
            self.disk = Some(ledger.into_connection());
            self.say(|| "the ledger dies".to_owned());
            let pause = 1 + below(&mut self.random, 5 * SECOND);
            let rebooted = one_in(&mut self.random, 2);
            self.after(pause, Event::LedgerStarts { rebooted });
        }
    }

    pub fn ledger_starts(&mut self, rebooted: bool) {
        if rebooted {
            self.boot = u128::from(self.random.next_u64());
            self.ledger_clock = Monotonic::some(&mut self.random, self.now);
        }
        let disk = self.disk.take().expect("it was put there when the ledger died");
        self.ledger = Some(SqliteLedger::from_connection(disk).expect("what was written can be read"));
        self.say(|| format!("the ledger starts, rebooted: {rebooted}"));
        self.define();
    }

    /// The file is moved away while the process is down, as nobody can do it otherwise, and an empty one is begun.
    pub fn ledger_replaced(&mut self) {
        self.ledger_fails();
        self.told.replaced += 1;
        self.say(|| "the ledger's file is replaced by an empty one".to_owned());
        let name = format!("{}-2", self.seed);
        let empty = SqliteLedger::from_connection(memory(&name)).expect("an empty ledger");
        self.disk = Some(empty.into_connection());
        self.reader = memory(&name);
        self.ledger_identity = None;
        self.forget_the_ledger();
    }

    pub fn define(&mut self) {
        self.define_version(self.version, Arc::clone(&self.caps));
    }

    /// A ledger that does not run learns of the newest caps when it starts.
    pub fn define_version(&mut self, version: u64, caps: Arc<Vec<Cap>>) {
        let time = self.ledger_time();
        let is_old = version < self.ledger_version;
        let Some(ledger) = self.ledger.as_mut().filter(|_| !is_old) else { return };
        ledger.define(&caps, time).expect("the ledger is well");
        self.ledger_version = version;
        self.ledger_identity = Some(identity(&self.reader).expect("the disk can be read"));
        self.observe_changes();
    }

    /// All caps that are on the disk, be they in force or not.
    pub fn kept(&self) -> Vec<Kept> {
        kept(&self.reader).expect("the disk can be read")
    }
}

/// A disk, of a name, so that the judge has a connection of its own.
pub fn memory(name: &str) -> Connection {
    Connection::open(format!("file:simulated{name}?mode=memory&cache=shared")).expect("memory")
}

fn identity(reader: &Connection) -> rusqlite::Result<u64> {
    reader.query_row("SELECT identity FROM ledger", [], |row| row.get(0).map(i64::cast_unsigned))
}

fn kept(reader: &Connection) -> rusqlite::Result<Vec<Kept>> {
    let mut statement = reader.prepare_cached(
        "SELECT offer_id, affiliate_id, kind, interval, amount, alert_only, in_force, window_start, window_end, used,
                (SELECT coalesce(sum(tokens), 0) FROM holdings WHERE holdings.cap_id = caps.cap_id)
         FROM caps",
    )?;
    let of_row = |row: &Row<'_>| {
        Ok(Kept {
            key: CapKey {
                offer: OfferId::new(row.get(0)?).expect("an offer"),
                affiliate: AffiliateId::new(row.get(1)?),
                kind: CapKind::parse(row.get_ref(2)?.as_str()?).expect("a kind"),
                interval: CapInterval::parse(row.get_ref(3)?.as_str()?).expect("an interval"),
            },
            amount: row.get(4)?,
            alert_only: row.get(5)?,
            in_force: row.get(6)?,
            window: (row.get(7)?, row.get(8)?),
            used: row.get(9)?,
            leased: row.get(10)?,
        })
    };
    statement.query_map([], of_row)?.collect()
}
