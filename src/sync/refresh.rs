//! Fetch, compile, publish, keep: one refresh after another, never two at once.
//!
//! The owner is a task; the rest of the process holds a [`RefreshHandle`] and asks. Waiting askers are answered by
//! one refresh that began after they asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::TryRng;
use rand::rngs::SysRng;
use tokio::time::Instant;

use crate::cake::wire::Network;
use crate::cake::{Client, FetchError};
use crate::routing::{CompileOptions, Table, Warning, Zone, compile};
use crate::state::{
    LiveTable, Metrics, Readiness, RefreshHandle, RefreshReport, RefreshRequests, RefreshResult, now,
    refresh_requests,
};

use super::geo_reload::GeoReload;
use super::last_good::{self, Encoded};

/// How often and into what.
#[derive(Clone, Debug)]
pub struct RefreshOptions {
    /// Between refreshes; each is early or late by up to a tenth, so that nodes do not come in step.
    pub interval: Duration,
    /// After failures the interval doubles up to this.
    pub interval_max: Duration,
    /// The network's time zone.
    pub zone: Zone,
    pub compile: CompileOptions,
    /// The last good file.
    pub last_good: PathBuf,
}

/// The task that owns refreshing.
pub struct Refresh {
    client: Client,
    options: RefreshOptions,
    live: Arc<LiveTable>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    geo: GeoReload,
    asked: RefreshRequests,
    /// Of the live table.
    warnings: Vec<Warning>,
    quarantined: usize,
    failures: u32,
}

impl Refresh {
    pub fn new(
        client: Client,
        options: RefreshOptions,
        live: Arc<LiveTable>,
        readiness: Arc<Readiness>,
        metrics: Arc<Metrics>,
        geo: GeoReload,
    ) -> (Self, RefreshHandle) {
        let (handle, asked) = refresh_requests();
        let refresh = Self {
            client,
            options,
            live,
            readiness,
            metrics,
            geo,
            asked,
            warnings: Vec::new(),
            quarantined: 0,
            failures: 0,
        };
        (refresh, handle)
    }

    /// Publishes the last good snapshot, if there is a usable one. Before the first refresh.
    pub fn start_from_last_good(&mut self) {
        match last_good::read(&self.options.last_good) {
            Ok(Some((network, snapshot))) => {
                let compiled = Compiled::new(&network, &self.options.zone, &self.options.compile);
                self.publish(compiled, snapshot);
                tracing::info!(
                    snapshot = %self.live.current().snapshot,
                    links = self.live.current().table.links(),
                    "routing from the last good snapshot until the upstream answers"
                );
            }
            Ok(None) => tracing::info!("no last good snapshot; not ready before the upstream answers"),
            Err(error) => {
                tracing::error!("{error}; it is ignored, and replaced when the upstream answers");
            }
        }
    }

    /// Refreshes until every handle is gone.
    pub async fn run(mut self) {
        let mut next = Instant::now();
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                asked = self.asked.next() => match asked {
                    Some(asked) => waiting.push(asked),
                    None => return,
                },
                () = tokio::time::sleep_until(next) => {}
            }
            while let Some(asked) = self.asked.waiting() {
                waiting.push(asked);
            }
            let report = self.refresh().await;
            for asked in waiting {
                asked.answer(report.clone());
            }
            next = Instant::now() + self.pause();
        }
    }

    async fn refresh(&mut self) -> RefreshReport {
        self.geo.reload_if_changed(&self.metrics).await;
        let fetched = self.fetch_and_publish().await;
        let (result, error) = match fetched {
            Ok(result) => (result, None),
            Err(error) => (RefreshResult::Failed, Some(error)),
        };
        self.metrics.refreshed(result);
        match &error {
            None => self.failures = 0,
            Some(error) => {
                self.failures = self.failures.saturating_add(1);
                tracing::warn!(
                    failures = self.failures,
                    "refresh failed: {error}; the live table stays (generation {})",
                    self.live.current().generation
                );
            }
        }
        let live = self.live.current();
        RefreshReport {
            result,
            generation: live.generation,
            snapshot: live.snapshot.clone(),
            links: live.table.links(),
            entries: live.table.entries(),
            offers: live.table.offers(),
            warnings: self.warnings.clone(),
            quarantined: self.quarantined,
            error,
        }
    }

    /// On `Err`, which says why, the live table is as it was.
    async fn fetch_and_publish(&mut self) -> Result<RefreshResult, String> {
        let network = self.client.network().await.map_err(|error: FetchError| error.to_string())?;
        let live = self.live.current().snapshot.clone();
        let (zone, options) = (self.options.zone.clone(), self.options.compile.clone());
        // Hashing and compiling a large network takes seconds: not on a thread that answers anybody.
        let prepared = tokio::task::spawn_blocking(move || prepare(&network, &live, &zone, &options))
            .await
            .map_err(|error| format!("compiling the snapshot broke off: {error}"))?
            .map_err(|error| format!("the snapshot cannot be written as JSON: {error}"))?;
        let Some((encoded, compiled)) = prepared else { return Ok(RefreshResult::Unchanged) };
        self.publish(compiled, encoded.name());
        let path = self.options.last_good.clone();
        let written = tokio::task::spawn_blocking(move || last_good::write(&path, &encoded)).await;
        if let Err(error) = written.map_err(std::io::Error::other).flatten() {
            tracing::error!(
                "cannot keep the last good snapshot in {}: {error}; after a restart this node depends on its upstream",
                self.options.last_good.display()
            );
        }
        Ok(RefreshResult::Published)
    }

    fn publish(&mut self, compiled: Compiled, snapshot: String) {
        let Compiled { table, warnings } = compiled;
        let (links, entries, offers) = (table.links(), table.entries(), table.offers());
        let generation = self.live.publish(table, snapshot.clone(), now());
        self.readiness.table_is_live();
        self.quarantined = warnings.len();
        self.metrics.snapshot_quarantined.set(warnings.len() as i64);
        for warning in warnings.iter().take(WARNINGS_SHOWN) {
            tracing::warn!("snapshot {snapshot}: {warning}");
        }
        if warnings.len() > WARNINGS_SHOWN {
            tracing::warn!("snapshot {snapshot}: {} more warnings", warnings.len() - WARNINGS_SHOWN);
        }
        self.warnings = warnings;
        self.warnings.truncate(WARNINGS_SHOWN);
        tracing::info!(generation, %snapshot, links, entries, offers, "published");
    }

    /// The interval, doubled for every failure in a row, a tenth early or late.
    fn pause(&self) -> Duration {
        let doubled = self.options.interval.saturating_mul(1 << self.failures.min(16));
        let pause = doubled.min(self.options.interval_max.max(self.options.interval));
        // Without randomness there is no jitter, which is a smaller harm than no refresh.
        let random = SysRng.try_next_u32().unwrap_or(u32::MAX / 2);
        pause.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u32::MAX))
    }
}

/// A table, and what was left out of it.
struct Compiled {
    table: Table,
    warnings: Vec<Warning>,
}

impl Compiled {
    fn new(network: &Network, zone: &Zone, options: &CompileOptions) -> Self {
        let (snapshot, mut warnings) = network.to_snapshot(zone);
        let (table, compile_warnings) = compile(&snapshot, options);
        warnings.extend(compile_warnings);
        Self { table, warnings }
    }
}

/// `None` if the network is the one that is live already.
fn prepare(
    network: &Network,
    live: &str,
    zone: &Zone,
    options: &CompileOptions,
) -> serde_json::Result<Option<(Encoded, Compiled)>> {
    let encoded = Encoded::new(network)?;
    if encoded.name() == live {
        return Ok(None);
    }
    let compiled = Compiled::new(network, zone, options);
    Ok(Some((encoded, compiled)))
}

/// More warnings than anybody reads.
pub const WARNINGS_SHOWN: usize = 50;
