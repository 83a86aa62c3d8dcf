//! What one thread of the edge owns. Nothing in it is shared and written, but for the series of a link's first click
//! (see `state/counters.rs`).

use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use rand::rngs::SysRng;
use rand::{Rng, SeedableRng, TryRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::clicklog::ClickLog;
use crate::lookup::DeviceCache;
use crate::routing::NetSet;
use crate::state::{Counters, Geo, LiveGeo, LiveTable, Metrics, Published, Reader};
use crate::types::Draw;

use super::click_ids::ClickIds;

/// What clicks depend on beside the live values.
#[derive(Clone, Debug)]
pub struct ClickOptions {
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: NetSet,
    /// `Referrer-Policy` of every redirect.
    pub referrer_policy: HeaderValue,
    /// What becomes of clicks that cannot be written down.
    pub when_log_is_full: WhenLogIsFull,
}

/// What becomes of a click when the click log has no room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenLogIsFull {
    /// It is redirected, and counted as not recorded.
    Serve,
    /// It is answered 503: no click without a record.
    Refuse,
}

/// One thread's share of the edge.
pub struct Worker {
    pub(super) options: Arc<ClickOptions>,
    pub(super) table: Reader<Published>,
    pub(super) geo: Reader<Geo>,
    pub(super) devices: DeviceCache,
    pub(super) click_ids: ClickIds,
    /// `None`: clicks are not written down.
    pub(super) log: Option<ClickLog>,
    pub(super) counters: Arc<Counters>,
    /// Where a `Location` is built.
    pub(super) scratch: Vec<u8>,
    draws: Xoshiro256PlusPlus,
    clicks: u64,
}

impl Worker {
    pub fn new(
        options: Arc<ClickOptions>,
        click_ids: ClickIds,
        log: Option<ClickLog>,
        table: &LiveTable,
        geo: &LiveGeo,
        metrics: &Metrics,
    ) -> std::io::Result<Self> {
        // Each worker draws its own seeds from the system: two workers never share a sequence.
        let mut seed = <Xoshiro256PlusPlus as SeedableRng>::Seed::default();
        SysRng.try_fill_bytes(&mut seed).map_err(std::io::Error::other)?;
        Ok(Self {
            options,
            table: table.reader(),
            geo: geo.reader(),
            devices: DeviceCache::new(system_random()?),
            click_ids,
            log,
            counters: metrics.worker(),
            scratch: Vec::with_capacity(1024),
            draws: Xoshiro256PlusPlus::from_seed(seed),
            clicks: 0,
        })
    }

    /// Lets go of values that were replaced, which otherwise only a click does, and of a segment that is old enough.
    pub(super) fn keep_up(&mut self) {
        if let Some(log) = &mut self.log {
            log.keep_up(Instant::now());
        }
        self.table.load();
        self.geo.load();
    }

    pub(super) fn draw(&mut self) -> Draw {
        Draw(self.draws.next_u64())
    }

    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Whether this click's duration is measured: one in 16, because two looks at the clock cost as much as the
    /// decision.
    pub(super) fn measures_this_click(&mut self) -> bool {
        self.clicks = self.clicks.wrapping_add(1);
        self.clicks.is_multiple_of(16)
    }
}

pub(super) fn system_random() -> std::io::Result<u64> {
    SysRng.try_next_u64().map_err(std::io::Error::other)
}
