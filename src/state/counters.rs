//! What one worker counts, and under which names.
//!
//! A worker writes its own cells and no other's; the scrape reads all of them, without read-modify-write. The first
//! click on a link asks for a series under a lock that workers share; no other click does.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::routing::{IdHasher, Outcome};
use crate::types::{LinkId, OfferId};

use super::geo::GeoCount;

/// What one worker counts. Written by that worker alone, read by the scrape.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) clicks: [Cell; ClickCount::COUNT],
    pub(super) geo: [Cell; GeoCount::ALL.len()],
    pub(super) sub_ids_cut: Cell,
    pub(super) log_records: Cell,
    pub(super) log_dropped: Cell,
    pub(super) opened: Cell,
    pub(super) closed: [Cell; CloseReason::ALL.len()],
    pub(super) accept_errors: Cell,
    pub(super) accept_pauses: Cell,
    pub(super) duration: Durations,
    /// Locked by the worker for a few nanoseconds a click, and by a scrape while it copies.
    pub(super) by_id: Mutex<ById>,
    pub(super) series: Arc<LinkSeries>,
}

/// Under which outcome a click is counted. Beyond the outcomes of a decision there are clicks that never come to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClickCount {
    Decided(Outcome),
    /// HEAD, prefetch, preview: answered like a click, in no fill rate.
    Probe,
    /// The finished URL was over 8 KiB; the fallback was taken.
    LocationTooLong,
    /// 400 or 405: nothing was decided.
    Invalid,
    /// 503: the click log is full, and no click goes without a record.
    Unrecorded,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Either side was done.
    Done,
    /// A head did not arrive in time.
    HeaderTimeout,
    /// No further head began in time.
    IdleTimeout,
    /// The client did not take an answer in time.
    WriteTimeout,
    /// What arrived was not HTTP/1.
    BadRequest,
    /// There was no TLS session to be had.
    TlsHandshake,
    /// A peer that may not speak for others, on a listener for those that do.
    ProxyUntrusted,
    /// It did not begin with a PROXY header, where it has to.
    ProxyHeader,
    /// Reset or broken in the middle.
    Broken,
    /// Still open at the end of the drain.
    DrainDeadline,
    /// Its address has as many as one may have.
    AddressLimit,
    /// It has had as many answers as one may have.
    RequestLimit,
    /// It was open for as long as one may be.
    AgeLimit,
    /// A head was larger than one may be, or had more lines: 431.
    HeadLimit,
    /// A request target was longer than one may be: 414.
    UriLimit,
    /// Who served it has panicked. That is a mistake of ours; standard error has more.
    Panic,
}

impl Counters {
    /// For one more worker. All workers share the bound on series.
    pub(super) fn new(series: Arc<LinkSeries>) -> Self {
        Self { series, ..Self::default() }
    }

    /// Counts a click. `link` only if the table knows it, so that visitors cannot make series; `offer` only if a
    /// person's click went there.
    pub fn click(&self, count: ClickCount, link: Option<LinkId>, offer: Option<OfferId>) {
        self.clicks[count.index()].add_one();
        if link.is_none() && offer.is_none() {
            return;
        }
        let mut by_id = lock(&self.by_id);
        let ById { links, other_links, other_offers } = &mut *by_id;
        let mut counted_by_link = false;
        if let Some(link) = link {
            let counts = match links.get_mut(&link) {
                Some(counts) => Some(counts),
                None if self.series.admit(link) => Some(links.entry(link).or_default()),
                None => None,
            };
            match counts {
                Some(counts) => {
                    counts.outcomes[count.index()] += 1;
                    counted_by_link = offer.is_some_and(|offer| counts.count_offer(offer));
                }
                None => other_links[count.index()] += 1,
            }
        }
        if let Some(offer) = offer
            && !counted_by_link
        {
            *other_offers.entry(offer).or_default() += 1;
        }
    }

    pub fn geo(&self, count: GeoCount) {
        self.geo[count as usize].add_one();
    }

    pub fn sub_id_cut(&self) {
        self.sub_ids_cut.add_one();
    }

    /// Counts a click that was written to the click log, or had no room there.
    pub fn recorded(&self, has_room: bool) {
        if has_room { &self.log_records } else { &self.log_dropped }.add_one();
    }

    pub fn connection_opened(&self) {
        self.opened.add_one();
    }

    pub fn connection_closed(&self, reason: CloseReason) {
        self.closed[reason as usize].add_one();
    }

    pub fn accept_failed(&self) {
        self.accept_errors.add_one();
    }

    /// Counts that a thread stopped to accept, because as many connections were open as may be.
    pub fn accept_paused(&self) {
        self.accept_pauses.add_one();
    }

    /// Notes how long a click took from its parsed head to its answer.
    pub fn took(&self, duration: Duration) {
        self.duration.observe(duration);
    }
}

impl ClickCount {
    pub(super) const COUNT: usize = Outcome::ALL.len() + 4;

    pub(super) fn index(self) -> usize {
        match self {
            ClickCount::Decided(outcome) => outcome as usize,
            ClickCount::Probe => Outcome::ALL.len(),
            ClickCount::LocationTooLong => Outcome::ALL.len() + 1,
            ClickCount::Invalid => Outcome::ALL.len() + 2,
            ClickCount::Unrecorded => Outcome::ALL.len() + 3,
        }
    }

    pub(super) fn all() -> impl Iterator<Item = ClickCount> {
        let beyond =
            [ClickCount::Probe, ClickCount::LocationTooLong, ClickCount::Invalid, ClickCount::Unrecorded];
        Outcome::ALL.into_iter().map(ClickCount::Decided).chain(beyond)
    }

    /// The `outcome` label.
    pub fn as_str(self) -> &'static str {
        match self {
            ClickCount::Decided(outcome) => outcome.as_str(),
            ClickCount::Probe => "probe",
            ClickCount::LocationTooLong => "location_too_long",
            ClickCount::Invalid => "invalid",
            ClickCount::Unrecorded => "unrecorded",
        }
    }
}

impl CloseReason {
    pub(super) const ALL: [CloseReason; 16] = [
        CloseReason::Done,
        CloseReason::HeaderTimeout,
        CloseReason::IdleTimeout,
        CloseReason::WriteTimeout,
        CloseReason::BadRequest,
        CloseReason::TlsHandshake,
        CloseReason::ProxyUntrusted,
        CloseReason::ProxyHeader,
        CloseReason::Broken,
        CloseReason::DrainDeadline,
        CloseReason::AddressLimit,
        CloseReason::RequestLimit,
        CloseReason::AgeLimit,
        CloseReason::HeadLimit,
        CloseReason::UriLimit,
        CloseReason::Panic,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            CloseReason::Done => "done",
            CloseReason::HeaderTimeout => "header_timeout",
            CloseReason::IdleTimeout => "idle_timeout",
            CloseReason::WriteTimeout => "write_timeout",
            CloseReason::BadRequest => "bad_request",
            CloseReason::TlsHandshake => "tls_handshake",
            CloseReason::ProxyUntrusted => "proxy_untrusted",
            CloseReason::ProxyHeader => "proxy_header",
            CloseReason::Broken => "broken",
            CloseReason::DrainDeadline => "drain_deadline",
            CloseReason::AddressLimit => "address_limit",
            CloseReason::RequestLimit => "request_limit",
            CloseReason::AgeLimit => "age_limit",
            CloseReason::HeadLimit => "head_limit",
            CloseReason::UriLimit => "uri_limit",
            CloseReason::Panic => "panic",
        }
    }
}

/// A count with one writer.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    #[inline]
    fn add_one(&self) {
        // Relaxed and not read-modify-write: only one thread writes, and a scrape may be a moment behind.
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Durations {
    /// One more than the bounds: the last is over all of them.
    pub(super) buckets: [Cell; DURATION_BOUNDS_NANOS.len() + 1],
    pub(super) sum_nanos: AtomicU64,
}

impl Durations {
    fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = DURATION_BOUNDS_NANOS.partition_point(|&bound| bound < nanos);
        self.buckets[bucket].add_one();
        let sum = self.sum_nanos.load(Ordering::Relaxed).saturating_add(nanos);
        self.sum_nanos.store(sum, Ordering::Relaxed);
    }
}

/// Ids of the table, which no visitor chooses.
type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

#[derive(Debug, Default)]
pub(super) struct ById {
    pub(super) links: IdMap<LinkId, LinkCounts>,
    pub(super) other_links: [u64; ClickCount::COUNT],
    /// Clicks that were not counted with their link.
    pub(super) other_offers: IdMap<OfferId, u64>,
}

/// What was counted of one link.
#[derive(Debug, Default)]
pub(super) struct LinkCounts {
    pub(super) outcomes: [u64; ClickCount::COUNT],
    /// Each offer that took a click of it, roughly the most frequent first. A link has a handful of offers: to find one in
    /// a row costs less than in a map of all offers.
    pub(super) offers: Vec<(OfferId, u64)>,
}

impl LinkCounts {
    /// Whether there was room for it.
    fn count_offer(&mut self, offer: OfferId) -> bool {
        let Some(index) = self.offers.iter().position(|&(other, _)| other == offer) else {
            if self.offers.len() >= OFFERS_OF_LINK_MAX {
                return false;
            }
            if self.offers.capacity() == 0 {
                self.offers.reserve_exact(OFFERS_OF_LINK_USUAL);
            }
            self.offers.push((offer, 1));
            return true;
        };
        self.offers[index].1 += 1;
        // Whoever takes more moves to where it is found sooner.
        if index > 0 && self.offers[index].1 > self.offers[index - 1].1 {
            self.offers.swap(index, index - 1);
        }
        true
    }
}

/// Offers that are counted with a link; more are counted without it.
const OFFERS_OF_LINK_MAX: usize = 64;

/// As many have room from the first on.
const OFFERS_OF_LINK_USUAL: usize = 4;

/// Which links have series of their own, over all workers.
#[derive(Debug, Default)]
pub(super) struct LinkSeries {
    links_max: usize,
    admitted: Mutex<HashSet<LinkId>>,
    /// The same, once there is no room for more: from then on nobody waits for a lock.
    full: OnceLock<HashSet<LinkId>>,
}

impl LinkSeries {
    pub(super) fn new(links_max: usize) -> Self {
        Self { links_max, admitted: Mutex::default(), full: OnceLock::new() }
    }

    fn admit(&self, link: LinkId) -> bool {
        if let Some(full) = self.full.get() {
            return full.contains(&link);
        }
        let mut admitted = lock(&self.admitted);
        let is_admitted =
            admitted.contains(&link) || (admitted.len() < self.links_max && admitted.insert(link));
        if admitted.len() >= self.links_max {
            // Nothing is inserted any more; whoever comes second sets the same.
            let _ = self.full.set(admitted.clone());
        }
        is_admitted
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts are right after any panic: each update is one addition.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From half a microsecond to ten milliseconds.
pub(super) const DURATION_BOUNDS_NANOS: [u64; 14] = [
    500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 20_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000,
    10_000_000,
];
