//! Fetch, compile, publish, keep: one refresh after another, never two at once.
//!
//! The owner is a task; the rest of the process holds a [`RefreshHandle`] and asks. Waiting askers are answered by
//! one refresh that began after they asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::time::Instant;

use crate::cake::{Client, FetchError, Fetched};
use crate::routing::{CompileOptions, Table, Warning, Zone};
use crate::state::{
    Asked, LiveTable, Metrics, Readiness, RefreshHandle, RefreshReport, RefreshRequests, RefreshResult, now,
    refresh_requests,
};

use super::geo_reload::GeoReload;
use super::guard::{Guard, GuardOptions, Size, Suspicion};
use super::last_good::{self, Encoded, Kept};
use super::overlay::{Overlay, OverlayError};
use super::prepare::{Compiled, Preparation, Prepared};

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
    /// Where entries and rules are, if the upstream has no calls for them.
    pub overlay: Option<PathBuf>,
    /// When a loss is suspicious.
    pub guard: GuardOptions,
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
    /// What is live and not yet in the last good file.
    unkept: Option<Encoded>,
    /// The network that was fetched last, as it came.
    fetched: String,
    /// The state of the upstream's network that was taken last, if it tells.
    revision: Option<HeaderValue>,
    /// How long the upstream asked to wait, when it last refused.
    asked_to_wait: Option<Duration>,
    guard: Guard,
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
        let guard = Guard::new(Some(options.guard));
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
            unkept: None,
            fetched: String::new(),
            revision: None,
            asked_to_wait: None,
            guard,
        };
        (refresh, handle)
    }

    /// Publishes the last good snapshot, if there is a usable one. Before the first refresh.
    pub fn start_from_last_good(&mut self) {
        let written_at = last_good::written_at(&self.options.last_good);
        match last_good::read_newest(&self.options.last_good) {
            Ok(Some(Kept { network, name: snapshot, passed_over })) => {
                if let Some(problem) = passed_over {
                    tracing::error!("{problem}; the generation before it is used");
                    // The newest file is to be whole again, even if the upstream has nothing new.
                    self.unkept = Encoded::new(&network).ok();
                }
                let compiled = Compiled::new(&network, &self.options.zone, &self.options.compile);
                self.fetched.clone_from(&snapshot);
                self.publish(compiled, snapshot);
                self.live.confirm(written_at.unwrap_or_else(now));
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
                // After a failure only the interval counts: a change that cannot be taken would come again at once.
                () = changed(&self.client, self.revision.as_ref()), if self.failures == 0 => {}
            }
            while let Some(asked) = self.asked.waiting() {
                waiting.push(asked);
            }
            let force = waiting.iter().any(Asked::force);
            let report = self.refresh(force).await;
            for asked in waiting {
                asked.answer(report.clone());
            }
            next = Instant::now() + self.pause();
        }
    }

    async fn refresh(&mut self, force: bool) -> RefreshReport {
        self.geo.reload_if_changed(&self.metrics).await;
        let (result, error) = match self.fetch_and_publish(force).await {
            Ok(result) => (result, None),
            Err(failure) => (failure.result(), Some(failure.to_string())),
        };
        self.metrics.refreshed(result);
        if matches!(result, RefreshResult::Published | RefreshResult::Unchanged) {
            self.live.confirm(now());
        }
        // Whatever came of this refresh: a disk that was full once must not leave an old file for good.
        if let Some(encoded) = self.unkept.take() {
            self.keep(encoded).await;
        }
        match &error {
            None => self.failures = 0,
            Some(error) => {
                self.failures = self.failures.saturating_add(1);
                tracing::warn!(
                    failures = self.failures,
                    "refresh {}: {error}; the live table stays (generation {})",
                    result.as_str(),
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
    async fn fetch_and_publish(&mut self, force: bool) -> Result<RefreshResult, Failure> {
        self.asked_to_wait = None;
        let fetched = self.fetch(force).await.inspect_err(|failure| {
            if let Failure::Fetch(error) = failure {
                self.asked_to_wait = error.retry_after();
            }
        })?;
        let Some(fetched) = fetched else { return Ok(RefreshResult::Unchanged) };
        let revision = fetched.revision.clone();
        // An API that tells revisions is smartlink's own, and knows what was deleted.
        let taken = self.take(fetched, revision.is_some() || force).await?;
        self.revision = revision;
        Ok(taken)
    }

    /// The network, or `None` if the upstream tells that it is in the state that was taken last.
    async fn fetch(&self, force: bool) -> Result<Option<Fetched>, Failure> {
        if let Some(path) = &self.options.overlay {
            // First, because it is cheap: a damaged file costs the upstream no call.
            let overlay = read_overlay(path.clone()).await?;
            let fetched = self.client.network_with(overlay.into_routing()).await?;
            // The upstream's state tells nothing about the file, neither that it is the same nor that a loss is meant.
            return Ok(Some(Fetched { revision: None, ..fetched }));
        }
        if let Some(revision) = self.revision.as_ref().filter(|_| !force) {
            let now = self.client.revision(revision, Duration::ZERO).await?;
            if now.as_ref() == Some(revision) {
                return Ok(None);
            }
        }
        Ok(Some(self.client.network().await?))
    }

    /// Prepares and publishes. `trusted`: a loss is meant.
    async fn take(&mut self, fetched: Fetched, trusted: bool) -> Result<RefreshResult, Failure> {
        let preparation = Preparation {
            zone: self.options.zone.clone(),
            compile: self.options.compile.clone(),
            last_good: self.options.last_good.clone(),
            live: self.live.current().snapshot.clone(),
            fetched: self.fetched.clone(),
        };
        let prepared =
            tokio::task::spawn_blocking(move || preparation.run(fetched.network, &fetched.unreadable))
                .await
                .map_err(|error| Failure::Broken(error.to_string()))?
                .map_err(Failure::Broken)?;
        let (fetched, encoded, compiled) = match prepared {
            Prepared::SameAsFetched => {
                self.guard.interrupted();
                return Ok(RefreshResult::Unchanged);
            }
            Prepared::SameAsLive { fetched, warnings } => {
                self.guard.interrupted();
                self.fetched = fetched;
                let snapshot = self.live.current().snapshot.clone();
                self.tell(&snapshot, warnings);
                return Ok(RefreshResult::Unchanged);
            }
            Prepared::New { fetched, encoded, compiled } => (fetched, encoded, compiled),
        };
        if !trusted {
            let live = size(&self.live.current().table);
            self.guard.admit(live, size(&compiled.table), &fetched).map_err(Failure::Suspicious)?;
        }
        self.fetched = fetched;
        self.publish(*compiled, encoded.name());
        self.unkept = Some(encoded);
        Ok(RefreshResult::Published)
    }

    /// Writes the last good file, or remembers to.
    async fn keep(&mut self, encoded: Encoded) {
        let path = self.options.last_good.clone();
        let write = move || last_good::write(&path, &encoded).map_err(|error| (error, encoded));
        let error = match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => return,
            Ok(Err((error, encoded))) => {
                self.unkept = Some(encoded);
                error.to_string()
            }
            Err(error) => error.to_string(),
        };
        tracing::error!(
            "cannot keep the last good snapshot in {}: {error}; it is tried again at the next refresh, and until then \
             this node depends on its upstream after a restart",
            self.options.last_good.display()
        );
    }

    fn publish(&mut self, compiled: Compiled, snapshot: String) {
        let Compiled { table, warnings } = compiled;
        let (links, entries, offers) = (table.links(), table.entries(), table.offers());
        let generation = self.live.publish(table, snapshot.clone(), now());
        self.readiness.table_is_live();
        self.tell(&snapshot, warnings);
        tracing::info!(generation, %snapshot, links, entries, offers, "published");
    }

    /// Logs what is not in the live table as the upstream has it, and keeps the first of it for whoever asks.
    fn tell(&mut self, snapshot: &str, warnings: Vec<Warning>) {
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
    }

    /// The interval, doubled for every failure in a row, a tenth early or late; or longer, if the upstream asks.
    fn pause(&self) -> Duration {
        let doubled = self.options.interval.saturating_mul(1 << self.failures.min(16));
        let pause = doubled.min(self.options.interval_max.max(self.options.interval));
        // Without randomness there is no jitter, which is a smaller harm than no refresh.
        let random = SysRng.try_next_u32().unwrap_or(u32::MAX / 2);
        let pause = pause.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u32::MAX));
        // A mistaken upstream cannot make a node deaf.
        pause.max(self.asked_to_wait.unwrap_or_default().min(self.options.interval_max))
    }
}

/// On a thread that may wait for the disk.
async fn read_overlay(path: PathBuf) -> Result<Overlay, Failure> {
    let read = tokio::task::spawn_blocking(move || Overlay::read(&path)).await;
    Ok(read.map_err(|error| Failure::Broken(error.to_string()))??)
}

/// Waits until the upstream tells of another state. An upstream that does not tell, or cannot be reached, is left to
/// the interval.
async fn changed(client: &Client, revision: Option<&HeaderValue>) {
    if let Some(revision) = revision {
        while let Ok(Some(now)) = client.revision(revision, CHANGE_WAIT).await {
            if now != *revision {
                return;
            }
        }
    }
    std::future::pending().await
}

/// Why a refresh left the live table as it was.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    #[error("{0}")]
    Suspicious(Suspicion),
    #[error("preparing the snapshot broke off: {0}")]
    Broken(String),
}

impl Failure {
    fn result(&self) -> RefreshResult {
        match self {
            Failure::Suspicious(_) => RefreshResult::Refused,
            Failure::Fetch(_) | Failure::Overlay(_) | Failure::Broken(_) => RefreshResult::Failed,
        }
    }
}

fn size(table: &Table) -> Size {
    Size { links: table.links(), entries: table.entries() }
}

/// How long to wait at the upstream for a change, before asking anew.
const CHANGE_WAIT: Duration = Duration::from_secs(30);

/// More warnings than anybody reads.
const WARNINGS_SHOWN: usize = 50;
