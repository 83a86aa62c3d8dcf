//! The live table with its caps, the live geo databases, and the live certificate: immutable values behind one swap each. The only file that names
//! arc-swap, so that what we rely on can be checked in one place.
//!
//! Table and geo have a swap of their own because they share no index: a click may see a new table with an old
//! database and be right. What shares indices is one value.
//!
//! A click loads once and decides on what it loaded; readers finish on the old value. It is freed by whoever published
//! ([`LiveTable::free_replaced`]), never by the last reader to move on: to give back 200 MB takes milliseconds, and that
//! reader is a click.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Cache};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::routing::{LayeredTable, Table};
use crate::types::UnixMillis;

use super::caps::CapBook;
use super::geo::Geo;

/// A table, the caps of its offers, and where they came from.
#[derive(Debug)]
pub struct Published {
    /// 0 before the first publish, then 1, 2, 3 …
    pub generation: u64,
    /// The snapshot's name, in hexadecimal; empty before the first publish. Of a snapshot that was read whole the hash of
    /// its content, of one that came by changes the hash of the way to it.
    pub snapshot: String,
    pub published_at: UnixMillis,
    pub table: LayeredTable,
    /// Beside the table, so that they can change without it; in the same swap, so that a click sees both as of one moment.
    pub caps: Arc<CapBook>,
}

/// The table that clicks see.
#[derive(Debug)]
pub struct LiveTable {
    swap: Swap<Published>,
    /// Serialises publishers, so that generations grow by one and are stored in order.
    publishing: Mutex<()>,
    /// When the upstream last gave or confirmed what is live, in milliseconds since 1970.
    confirmed_at: AtomicI64,
}

/// The geo databases that clicks see.
#[derive(Debug)]
pub struct LiveGeo(Swap<Geo>);

/// The certificate that handshakes show.
#[derive(Debug)]
pub struct LiveCertificate(Swap<CertifiedKey>);

/// A worker's own view of a live value: one relaxed load and a comparison while nothing changes.
#[derive(Debug)]
pub struct Reader<T>(Cache<Arc<ArcSwap<T>>, Arc<T>>);

impl LiveTable {
    /// Generation 0: a table of no links.
    pub fn new(empty: Table) -> Self {
        let first = Published {
            generation: 0,
            snapshot: String::new(),
            published_at: UnixMillis(0),
            table: empty.into(),
            caps: Arc::default(),
        };
        Self { swap: Swap::new(first), publishing: Mutex::new(()), confirmed_at: AtomicI64::new(0) }
    }

    /// Makes a table live and answers its generation. Clicks that have begun finish on the old table.
    pub fn publish(
        &self,
        table: impl Into<LayeredTable>,
        caps: Arc<CapBook>,
        snapshot: String,
        now: UnixMillis,
    ) -> u64 {
        let table = table.into();
        self.replace(|_| (table, caps), snapshot, now)
    }

    /// Makes other caps live beside the same table, and answers the generation of the two.
    pub fn publish_caps(&self, caps: Arc<CapBook>, snapshot: String, now: UnixMillis) -> u64 {
        self.replace(|live| (live.table.clone(), caps), snapshot, now)
    }

    fn replace(
        &self,
        next: impl FnOnce(&Published) -> (LayeredTable, Arc<CapBook>),
        snapshot: String,
        now: UnixMillis,
    ) -> u64 {
        let _alone = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.swap.current();
        let generation = live.generation + 1;
        let (table, caps) = next(&live);
        // Let go before the swap: what was replaced is freed by whoever asks for that.
        drop(live);
        self.swap.replace(Published { generation, snapshot, published_at: now, table, caps });
        generation
    }

    /// Frees the tables that were replaced and that no click needs any more. Answers how many are still needed.
    pub fn free_replaced(&self) -> usize {
        self.swap.free_replaced()
    }

    /// Notes that at this moment the upstream said what is live.
    pub fn confirm(&self, at: UnixMillis) {
        // Relaxed: a number for the scrape, on which nothing else depends.
        self.confirmed_at.store(at.0, Ordering::Relaxed);
    }

    /// When the upstream last said what is live; 0 if it never did.
    pub fn confirmed_at(&self) -> UnixMillis {
        UnixMillis(self.confirmed_at.load(Ordering::Relaxed))
    }

    /// The table at this moment, for anything but a click.
    pub fn current(&self) -> Arc<Published> {
        self.swap.current()
    }

    pub fn reader(&self) -> Reader<Published> {
        self.swap.reader()
    }
}

impl LiveGeo {
    pub fn new(geo: Geo) -> Self {
        Self(Swap::new(geo))
    }

    pub fn replace(&self, geo: Geo) {
        self.0.replace(geo);
    }

    /// As [`LiveTable::free_replaced`].
    pub fn free_replaced(&self) -> usize {
        self.0.free_replaced()
    }

    pub fn current(&self) -> Arc<Geo> {
        self.0.current()
    }

    pub fn reader(&self) -> Reader<Geo> {
        self.0.reader()
    }
}

impl<T> Reader<T> {
    /// The live value. The one load of a click.
    #[inline]
    pub fn load(&mut self) -> &Arc<T> {
        self.0.load()
    }
}

#[derive(Debug)]
struct Swap<T> {
    live: Arc<ArcSwap<T>>,
    /// What was live, until no reader has it.
    replaced: Mutex<Vec<Arc<T>>>,
}

impl<T> Swap<T> {
    fn new(value: T) -> Self {
        Self { live: Arc::new(ArcSwap::from_pointee(value)), replaced: Mutex::default() }
    }

    fn replace(&self, value: T) {
        let old = self.live.swap(Arc::new(value));
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).push(old);
    }

    fn free_replaced(&self) -> usize {
        // A count of one is ours. Nobody can raise it again: what is no longer live is no longer handed out.
        let is_free = |value: &mut Arc<T>| Arc::get_mut(value).is_some();
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let free: Vec<Arc<T>> = replaced.extract_if(.., is_free).collect();
        let needed = replaced.len();
        // A publisher need not wait until they are freed.
        drop(replaced);
        drop(free);
        needed
    }

    fn current(&self) -> Arc<T> {
        self.live.load_full()
    }

    fn reader(&self) -> Reader<T> {
        Reader(Cache::new(Arc::clone(&self.live)))
    }
}

impl LiveCertificate {
    pub fn new(certificate: CertifiedKey) -> Self {
        Self(Swap::new(certificate))
    }

    /// The one in use.
    pub fn current(&self) -> Arc<CertifiedKey> {
        self.0.current()
    }

    /// Handshakes that have begun go on with the old one.
    pub fn replace(&self, certificate: CertifiedKey) {
        self.0.replace(certificate);
        self.0.free_replaced();
    }
}

impl ResolvesServerCert for LiveCertificate {
    /// The same for every name.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::super::caps::CapCells;
    use super::*;
    use crate::routing::{BotPolicy, Cap, Zone};
    use crate::types::{CapInterval, CapKey, CapKind, OfferId};

    fn table() -> Table {
        Table::empty(None, BotPolicy::Fallback)
    }

    fn cap() -> Cap {
        let offer = OfferId::new(1).unwrap();
        let key = CapKey { offer, affiliate: None, kind: CapKind::Click, interval: CapInterval::Daily };
        Cap { key, amount: 1, zone: Zone::parse("UTC").unwrap(), alert_only: false }
    }

    #[test]
    fn generations_never_go_backwards_under_contention() {
        const PUBLISHERS: u64 = 4;
        const PUBLISHES: u64 = 2_000;
        let live = Arc::new(LiveTable::new(table()));
        live.publish(table(), Arc::default(), "0".to_owned(), UnixMillis(0));
        // Caps beside odd moments, none beside even ones.
        let books = [Arc::default(), Arc::new(CapCells::default().book(&[cap()]))];
        let done = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (mut reader, done) = (live.reader(), Arc::clone(&done));
                thread::spawn(move || {
                    let mut last = 1;
                    while !done.load(Ordering::Acquire) {
                        let published = reader.load();
                        assert!(published.generation >= last, "{} after {last}", published.generation);
                        // What was published together is seen together.
                        assert_eq!(published.snapshot, published.published_at.0.to_string());
                        assert_eq!(published.caps.len() as i64, published.published_at.0 % 2);
                        last = published.generation;
                    }
                })
            })
            .collect();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                let (live, books) = (Arc::clone(&live), books.clone());
                thread::spawn(move || {
                    for publish in 0..PUBLISHES {
                        let moment = (publisher * PUBLISHES + publish) as i64;
                        let caps = Arc::clone(&books[moment as usize % 2]);
                        match publish % 3 {
                            0 => live.publish_caps(caps, moment.to_string(), UnixMillis(moment)),
                            _ => live.publish(table(), caps, moment.to_string(), UnixMillis(moment)),
                        };
                    }
                })
            })
            .collect();
        for publisher in publishers {
            publisher.join().unwrap();
        }
        done.store(true, Ordering::Release);
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(live.current().generation, 1 + PUBLISHERS * PUBLISHES);
    }

    #[test]
    fn what_was_replaced_is_freed_by_its_publisher_once_no_reader_has_it() {
        let live = LiveTable::new(table());
        let (mut one, mut other) = (live.reader(), live.reader());
        assert_eq!(one.load().generation, 0);
        assert_eq!(live.free_replaced(), 0, "nothing was replaced");
        live.publish(table(), Arc::default(), "a".to_owned(), UnixMillis(1));
        assert_eq!((other.load().generation, live.free_replaced()), (1, 1), "one reader has the old table");
        live.publish(table(), Arc::default(), "b".to_owned(), UnixMillis(2));
        assert_eq!((one.load().generation, live.free_replaced()), (2, 1), "the other has the one after it");
        assert_eq!((other.load().generation, live.free_replaced()), (2, 0));
    }

    #[test]
    fn publish_counts_from_one() {
        let live = LiveTable::new(table());
        assert_eq!(live.current().generation, 0);
        assert_eq!(live.publish(table(), Arc::default(), "a".to_owned(), UnixMillis(1)), 1);
        assert_eq!(live.publish(table(), Arc::default(), "b".to_owned(), UnixMillis(2)), 2);
        assert_eq!(live.current().snapshot, "b");
    }
}
