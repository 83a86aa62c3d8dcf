//! Fetch, compile, publish, keep: one refresh after another, never two at once.
//!
//! An upstream that can tell what has changed since a state is asked for that alone: the changed links are compiled
//! into a patch over the table, and appended to the last good snapshot. Where it cannot, where the patch would become
//! large, or where anything about the changes is doubtful, the whole network is read. Caps are no part of the table: a
//! change of them alone compiles nothing.
//!
//! The owner is a task; the rest of the process holds a [`RefreshHandle`] and asks. Waiting askers are answered by
//! one refresh that began after they asked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::cake::{Changes, Client, FetchError, Fetched, Haste, Update, read_caps};
use crate::ledger::KnownCaps;
use crate::routing::{Cap, CompileOptions, LayeredTable, Warning, Zone};
use crate::state::{
    Asked, CapCells, Change, Event, Journal, LiveTable, Metrics, Readiness, RefreshHandle, RefreshReport,
    RefreshRequests, RefreshResult, now, refresh_requests,
};

use super::geo_reload::{GeoRead, GeoReload};
use super::guard::{Guard, GuardOptions, Size, Suspicion};
use super::keeper::Keeper;
use super::last_good::{self, Block, Kept};
use super::overlay::{Overlay, OverlayError};
use super::patch::Patch;
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
    /// Where entries, rules and caps are, if the upstream has no calls for them.
    pub overlay: Option<PathBuf>,
    /// When a loss is suspicious.
    pub guard: GuardOptions,
}

/// What a refresh is to go by from now on.
pub struct RefreshSettings {
    pub options: RefreshOptions,
    pub geo: GeoRead,
    /// The same network is another table now.
    pub recompiles: bool,
}

/// The task that owns refreshing.
pub struct Refresh {
    client: Client,
    options: RefreshOptions,
    live: Arc<LiveTable>,
    /// What the node holds of each cap.
    cells: Arc<CapCells>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    geo: GeoReload,
    asked: RefreshRequests,
    /// Taken up by the next refresh.
    settings: Option<mpsc::Receiver<RefreshSettings>>,
    /// The live table was compiled by options that are no longer those.
    must_recompile: bool,
    /// Of the live table.
    warnings: Vec<Warning>,
    quarantined: usize,
    failures: u32,
    /// The last failure was that nothing came.
    is_away: bool,
    keeper: Keeper,
    /// What was changed since the base of the live table was compiled.
    patch: Patch,
    /// The caps that are in force, beside the live table, for whoever leases them.
    caps: watch::Sender<KnownCaps>,
    /// The name of the network that was fetched last, as it came. Empty if it was changed since.
    fetched: String,
    /// The state of the upstream's network that was taken last, if it tells.
    revision: Option<HeaderValue>,
    /// How long the upstream asked to wait, when it last refused.
    asked_to_wait: Option<Duration>,
    guard: Guard,
    /// For people.
    journal: Arc<Journal>,
}

impl Refresh {
    pub fn new(
        client: Client,
        options: RefreshOptions,
        live: Arc<LiveTable>,
        cells: Arc<CapCells>,
        readiness: Arc<Readiness>,
        metrics: Arc<Metrics>,
        geo: GeoReload,
    ) -> (Self, RefreshHandle) {
        let (handle, asked) = refresh_requests();
        let guard = Guard::new(Some(options.guard));
        let keeper = Keeper::new(options.last_good.clone());
        let refresh = Self {
            client,
            options,
            live,
            cells,
            readiness,
            metrics,
            geo,
            asked,
            settings: None,
            must_recompile: false,
            warnings: Vec::new(),
            quarantined: 0,
            failures: 0,
            is_away: false,
            keeper,
            patch: Patch::default(),
            caps: watch::Sender::default(),
            fetched: String::new(),
            revision: None,
            asked_to_wait: None,
            guard,
            journal: Arc::default(),
        };
        (refresh, handle)
    }

    /// The caps in force, whenever they change, or the upstream confirms what was remembered.
    pub fn caps(&self) -> watch::Receiver<KnownCaps> {
        self.caps.subscribe()
    }

    /// What becomes of the snapshot, event by event.
    pub fn journal(&self) -> Arc<Journal> {
        Arc::clone(&self.journal)
    }

    /// From where other settings may come.
    pub fn follow(&mut self, settings: mpsc::Receiver<RefreshSettings>) {
        self.settings = Some(settings);
    }

    /// The last good file is another process's until this is true.
    pub fn keep_nothing_before(&mut self, may_write: watch::Receiver<bool>) {
        self.keeper.wait_for(may_write);
    }

    /// Publishes the last good snapshot, if there is a usable one. Before the first refresh.
    pub fn start_from_last_good(&mut self) {
        let written_at = last_good::written_at(&self.options.last_good);
        match last_good::read_newest(&self.options.last_good) {
            Ok(Some(Kept { network, mut name, is_changed, unread_changes, passed_over })) => {
                let Compiled { table, caps, warnings } =
                    Compiled::new(&network, &self.options.zone, &self.options.compile);
                if let Some(problem) = &unread_changes {
                    tracing::error!("{problem}; this node starts from what was known before them");
                }
                if let Some(problem) = &passed_over {
                    tracing::error!("{problem}; the generation before it is used");
                }
                // The newest file is to be whole again, and in one piece, even if the upstream has nothing new.
                if (is_changed || unread_changes.is_some() || passed_over.is_some())
                    && let Ok(hash) = last_good::hash(&network)
                {
                    name = last_good::name(&hash);
                    self.keeper.keep(Box::new(network), hash);
                }
                self.fetched.clone_from(&name);
                self.publish(table, KnownCaps::Remembered(caps.into()), name, warnings, Change::Remembered);
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

    /// Refreshes until every handle is gone, and what is live is on the disk.
    pub async fn run(mut self) {
        let mut next = Instant::now();
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                asked = self.asked.next() => match asked {
                    Some(asked) => waiting.push(asked),
                    None => {
                        self.keeper.work();
                        return self.keeper.done().await;
                    }
                },
                () = tokio::time::sleep_until(next) => {}
                // After a failure only the interval counts: a change that cannot be taken would come again at once.
                () = changed(&self.client, self.revision.as_ref()), if self.failures == 0 => {}
                // But where nothing came, the next answer is worth a look at once.
                () = back(&self.client, self.revision.as_ref()), if self.is_away => {}
                // The upstream has nothing to do with it.
                () = self.geo.settles() => {
                    self.geo.reload_if_changed(&self.metrics).await;
                    self.free_replaced();
                    continue;
                }
            }
            while let Some(asked) = self.asked.waiting() {
                waiting.push(asked);
            }
            let force = waiting.iter().any(Asked::force);
            let report = self.refresh(force).await;
            // Whoever asks is told of what is kept; a change that the upstream tells of does not wait for the disk.
            if !waiting.is_empty() {
                self.keeper.done().await;
            }
            for asked in waiting {
                asked.answer(report.clone());
            }
            next = Instant::now() + self.pause();
        }
    }

    async fn refresh(&mut self, force: bool) -> RefreshReport {
        while let Some(settings) = self.settings.as_mut().and_then(|settings| settings.try_recv().ok()) {
            self.take_up(settings);
        }
        self.geo.reload_if_changed(&self.metrics).await;
        let done = self.fetch_and_publish(force).await;
        if done.is_err() && self.must_recompile {
            self.recompile_last_good().await;
        }
        self.is_away = matches!(&done, Err(Failure::Fetch(error)) if error.is_away());
        let (result, error) = match done {
            Ok(result) => (result, None),
            Err(failure) => (failure.result(), Some(failure.to_string())),
        };
        self.metrics.refreshed(result);
        if matches!(result, RefreshResult::Published | RefreshResult::Unchanged) {
            self.live.confirm(now());
        }
        // Whatever came of this refresh: a disk that was full once must not leave an old file for good.
        self.keeper.work();
        match &error {
            None => {
                if result == RefreshResult::Unchanged {
                    self.journal.unchanged(now(), self.quarantined, &self.warnings);
                }
                let failures = std::mem::take(&mut self.failures);
                if failures > 0 {
                    tracing::info!(failures, "refreshes succeed again");
                }
            }
            Some(error) => {
                self.failures = self.failures.saturating_add(1);
                let stays = match self.live.current().generation {
                    0 => "no table is live yet".to_owned(),
                    generation => format!("the live table stays (generation {generation})"),
                };
                tracing::warn!(failures = self.failures, "refresh {}: {error}; {stays}", result.as_str());
                self.note(result, None, Some(error.clone()));
            }
        }
        self.free_replaced();
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

    fn take_up(&mut self, settings: RefreshSettings) {
        let RefreshSettings { options, geo, recompiles } = settings;
        self.guard = Guard::new(Some(options.guard));
        self.options = options;
        self.geo.replace(geo, &self.metrics);
        if recompiles {
            self.must_recompile = true;
            // The whole is to come, and to be looked at.
            self.revision = None;
            self.fetched.clear();
        }
    }

    /// Where the upstream is away, the network that is live is to be had from the disk.
    async fn recompile_last_good(&mut self) {
        self.keeper.work();
        self.keeper.done().await;
        let (path, live) = (self.options.last_good.clone(), self.live.current().snapshot.clone());
        let (zone, options) = (self.options.zone.clone(), self.options.compile.clone());
        let work = move || {
            let kept = last_good::read_newest(&path).ok().flatten().filter(|kept| kept.name == live);
            Ok(kept.map(|kept| (kept.name, Compiled::new(&kept.network, &zone, &options))))
        };
        match blocking(work).await {
            Ok(Some((name, Compiled { table, caps, warnings }))) => {
                self.patch = Patch::default();
                self.publish(table, KnownCaps::Remembered(caps.into()), name, warnings, Change::Whole);
                self.must_recompile = false;
            }
            Ok(None) | Err(_) => {
                tracing::warn!("what was configured is routed by when the upstream answers");
            }
        }
    }

    /// Frees what was replaced as soon as no click needs it, here and not on the thread of that click.
    fn free_replaced(&self) {
        let (table, geo) = (Arc::clone(&self.live), self.geo.live());
        tokio::task::spawn_blocking(move || {
            while table.free_replaced() + geo.free_replaced() > 0 {
                std::thread::sleep(FREE_EVERY);
            }
        });
    }

    /// On `Err`, which says why, the live table is as it was.
    async fn fetch_and_publish(&mut self, force: bool) -> Result<RefreshResult, Failure> {
        self.asked_to_wait = None;
        let fetched = self.fetch(force).await;
        let mut update = fetched.inspect_err(|failure| self.heed(failure))?;
        if let Update::Changes(changes) = update {
            if changes.is_empty() {
                self.revision = Some(changes.revision);
                return Ok(RefreshResult::Unchanged);
            }
            if self.take_changes(changes).await? {
                return Ok(RefreshResult::Published);
            }
            let whole = self.client.update(None, self.haste()).await.map_err(Failure::Fetch);
            update = whole.inspect_err(|failure| self.heed(failure))?;
        }
        let Update::Whole(fetched) = update else {
            return Err(Failure::Broken("the upstream answers changes where all was asked for".to_owned()));
        };
        let revision = fetched.revision.clone();
        // An API that tells revisions is smartlink's own, and knows what was deleted.
        let taken = self.take(fetched, revision.is_some() || force).await?;
        self.revision = revision;
        Ok(taken)
    }

    /// How long the upstream asks to wait.
    fn heed(&mut self, failure: &Failure) {
        if let Failure::Fetch(error) = failure {
            self.asked_to_wait = error.retry_after();
        }
    }

    /// What the upstream has to say.
    async fn fetch(&self, force: bool) -> Result<Update, Failure> {
        if let Some(path) = &self.options.overlay {
            // First, because it is cheap: a damaged file costs the upstream no call.
            let overlay = read_overlay(path.clone()).await?;
            let fetched = self.client.network_with(overlay.into_routing()).await?;
            // The upstream's state tells nothing about the file, neither that it is the same nor that a loss is meant.
            return Ok(Update::Whole(Fetched { revision: None, ..fetched }));
        }
        let since = self.revision.as_ref().filter(|_| !force && self.failures < CHANGES_FAILED_MAX);
        Ok(self.client.update(since, self.haste()).await?)
    }

    /// Only a node without a table hurries.
    fn haste(&self) -> Haste {
        if self.live.current().generation == 0 { Haste::Full } else { Haste::Paced }
    }

    /// Publishes the table with a patch for what has changed. `false`, with nothing done, if the whole network has to
    /// be read instead.
    async fn take_changes(&mut self, changes: Changes) -> Result<bool, Failure> {
        let live = self.live.current();
        // What was put back or left out is judged against the whole.
        if self.quarantined > 0 || !self.patch.has_room_for(&changes) {
            return Ok(false);
        }
        let caps = changes.caps.as_deref().map(|caps| read_caps(caps, &self.options.zone)).transpose();
        let Ok(caps) = caps else { return Ok(false) };
        if changes.links.is_empty() {
            return self.take_caps(caps.unwrap_or_default().into(), &changes);
        }
        let (patch, zone, options) =
            (self.patch.clone(), self.options.zone.clone(), self.options.compile.clone());
        let before = live.snapshot.clone();
        let change = Change::of_links(changes.links.iter().copied());
        let work = move || -> io::Result<_> {
            let block = Block::new(&before, &changes)?;
            let revision = changes.revision.clone();
            let patch = patch.with(changes);
            let compiled = Compiled::new(&patch.network, &zone, &options);
            Ok((patch, compiled, block, revision))
        };
        let (patch, Compiled { table, warnings, .. }, block, revision) = blocking(work).await?;
        if !warnings.is_empty() || !self.keeper.has_room_for(&block) {
            return Ok(false);
        }
        let table = live.table.patched(patch.links.clone(), table);
        drop(live);
        // Of caps that it says nothing of, the upstream says that they are as they were.
        let caps = caps.map_or_else(|| Arc::clone(self.caps.borrow().all()), Arc::from);
        self.publish(table, KnownCaps::Given(caps), block.name(), warnings, change);
        self.patch = patch;
        self.changes_taken(revision, block);
        Ok(true)
    }

    /// As [`Self::take_changes`], for changes of caps alone: the live table stays as it is.
    fn take_caps(&mut self, caps: Arc<[Cap]>, changes: &Changes) -> Result<bool, Failure> {
        let before = self.live.current().snapshot.clone();
        let block = Block::new(&before, changes).map_err(|error| Failure::Broken(error.to_string()))?;
        if !self.keeper.has_room_for(&block) {
            return Ok(false);
        }
        let book = Arc::new(self.cells.book(&caps));
        let (snapshot, count) = (block.name(), book.len());
        let generation = self.live.publish_caps(book, snapshot.clone(), now());
        self.told_of_caps(KnownCaps::Given(caps));
        tracing::info!(generation, %snapshot, caps = count, "published caps");
        self.note(RefreshResult::Published, Some(Change::Caps), None);
        self.changes_taken(changes.revision.clone(), block);
        Ok(true)
    }

    fn changes_taken(&mut self, revision: HeaderValue, block: Block) {
        self.fetched.clear();
        self.revision = Some(revision);
        self.guard.interrupted();
        self.keeper.append(block);
    }

    /// After the book of these caps is live: who leases them finds their cells.
    fn told_of_caps(&self, caps: KnownCaps) {
        self.caps.send_if_modified(|known| {
            let has_changed = *known != caps;
            *known = caps;
            has_changed
        });
    }

    /// The upstream has what was known before: what was only remembered is given by it now.
    fn confirm_caps(&self) {
        let caps = Arc::clone(self.caps.borrow().all());
        self.told_of_caps(KnownCaps::Given(caps));
    }

    /// Prepares and publishes. `trusted`: a loss is meant.
    async fn take(&mut self, fetched: Fetched, trusted: bool) -> Result<RefreshResult, Failure> {
        // What is put back comes from the last good file.
        self.keeper.work();
        self.keeper.done().await;
        let preparation = Preparation {
            zone: self.options.zone.clone(),
            compile: self.options.compile.clone(),
            last_good: self.options.last_good.clone(),
            live: if self.must_recompile { String::new() } else { self.live.current().snapshot.clone() },
            fetched: self.fetched.clone(),
        };
        let prepared = blocking(move || preparation.run(fetched.network, &fetched.unreadable)).await?;
        let (fetched, network, hash, compiled) = match prepared {
            Prepared::SameAsFetched => {
                self.guard.interrupted();
                self.confirm_caps();
                return Ok(RefreshResult::Unchanged);
            }
            Prepared::SameAsLive { fetched, warnings } => {
                self.guard.interrupted();
                self.confirm_caps();
                self.fetched = fetched;
                let snapshot = self.live.current().snapshot.clone();
                self.tell(&snapshot, warnings);
                return Ok(RefreshResult::Unchanged);
            }
            Prepared::New { fetched, network, hash, compiled } => (fetched, network, hash, compiled),
        };
        if !trusted {
            let live = &self.live.current().table;
            let live = Size { links: live.links(), entries: live.entries() };
            let new = Size { links: compiled.table.links(), entries: compiled.table.entries() };
            self.guard.admit(live, new, &fetched).map_err(Failure::Suspicious)?;
        }
        self.fetched = fetched;
        self.patch = Patch::default();
        let Compiled { table, caps, warnings } = *compiled;
        self.publish(table, KnownCaps::Given(caps.into()), last_good::name(&hash), warnings, Change::Whole);
        self.must_recompile = false;
        self.keeper.keep(network, hash);
        Ok(RefreshResult::Published)
    }

    fn publish(
        &mut self,
        table: impl Into<LayeredTable>,
        caps: KnownCaps,
        snapshot: String,
        warnings: Vec<Warning>,
        change: Change,
    ) {
        let (table, book) = (table.into(), Arc::new(self.cells.book(caps.all())));
        let cap_count = book.len();
        let (links, entries, offers) = (table.links(), table.entries(), table.offers());
        let changed_links = table.changed_links();
        let generation = self.live.publish(table, book, snapshot.clone(), now());
        self.told_of_caps(caps);
        self.readiness.table_is_live();
        self.tell(&snapshot, warnings);
        tracing::info!(generation, %snapshot, links, entries, offers, changed_links, caps = cap_count, "published");
        self.note(RefreshResult::Published, Some(change), None);
    }

    /// Notes for people what happened, and what is live after it.
    fn note(&self, result: RefreshResult, change: Option<Change>, problem: Option<String>) {
        let (live, at) = (self.live.current(), now());
        self.journal.note(Event {
            at,
            times: 1,
            first_at: at,
            result,
            generation: live.generation,
            snapshot: live.snapshot.clone(),
            links: live.table.links(),
            entries: live.table.entries(),
            offers: live.table.offers(),
            caps: live.caps.len(),
            change,
            quarantined: self.quarantined,
            warnings: self.warnings.clone(),
            problem,
        });
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

async fn read_overlay(path: PathBuf) -> Result<Overlay, Failure> {
    let read = tokio::task::spawn_blocking(move || Overlay::read(&path)).await;
    Ok(read.map_err(|error| Failure::Broken(error.to_string()))??)
}

/// Runs work that waits for the disk or takes long on a thread that answers nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::Broken(error.to_string()))?
        .map_err(|error| Failure::Broken(error.to_string()))
}

/// Waits until the upstream tells of another state, or goes away, which a refresh will tell. An upstream that does not
/// tell states is left to the interval.
async fn changed(client: &Client, revision: Option<&HeaderValue>) {
    let Some(revision) = revision else { return std::future::pending().await };
    // Two upstreams behind one address may tell of different states for ever.
    tokio::time::sleep(BETWEEN_CHANGES).await;
    loop {
        match client.revision(revision, CHANGE_WAIT).await {
            Ok(Some(now)) if now != *revision => return,
            Ok(Some(_)) => {}
            Err(error) if error.is_away() => return tokio::time::sleep(BETWEEN_LOOKS).await,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

/// Waits until an upstream that told states and went away answers again.
async fn back(client: &Client, revision: Option<&HeaderValue>) {
    let Some(revision) = revision else { return std::future::pending().await };
    loop {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        match client.revision(revision, Duration::ZERO).await {
            Ok(_) => return,
            Err(error) if error.is_away() => {}
            // It answers, but asks to be left alone, or is another.
            Err(_) => std::future::pending().await,
        }
    }
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

/// How long to wait at the upstream for a change, before asking anew.
const CHANGE_WAIT: Duration = Duration::from_secs(30);

/// Short beside the second in which a change is to be live.
const BETWEEN_CHANGES: Duration = Duration::from_millis(50);

/// At an upstream that is away: one small call.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// After so many failures in a row the whole is asked for: perhaps only the changes cannot be told.
const CHANGES_FAILED_MAX: u32 = 3;

/// The click threads let go of what was replaced at their next click, or within a second.
const FREE_EVERY: Duration = Duration::from_millis(100);

/// More warnings than anybody reads.
const WARNINGS_SHOWN: usize = 50;
