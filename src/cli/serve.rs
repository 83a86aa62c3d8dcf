//! `smartlink serve`: the life of the process. Builds every room, says which addresses are served, waits, drains by a
//! deadline, and says how it ended.

use std::fs;
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::one_line;
use crate::admin::{self, Admin};
use crate::backoffice::{self, Backoffice};
use crate::cake::{Client, KeySource};
use crate::clicklog::ClickLogs;
use crate::config::{Config, DATABASE, Flags, KEY_FILE, LEDGER, LedgerPlace, Upstream};
use crate::edge::{self, ClickAddress, Drained, Supplies};
use crate::ledger::{Ledger, LocalLedger, ValkeyLedger, conversion_desk};
use crate::routing::Table;
use crate::state::{CapCells, LiveCertificate, LiveTable, Metrics, Readiness, RefreshHandle};
use crate::sync::{
    CapKeeper, ConversionCarrier, GeoReload, LedgerAt, Overlay, Refresh, keep_certificate, show_caps,
};

/// Serves until told to stop.
pub fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    start_logging();
    let config = Config::load(flags)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .on_thread_start(yield_to_clicks)
        .enable_all()
        .build()
        .context("cannot start the control plane's threads")?;
    let ended = runtime.block_on(serve(config));
    // A compile that is under way need not be waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// Puts the calling thread behind the click threads wherever both want a core: what it does, such as compiling a million
/// links, may take a moment longer, and no click waits for it.
fn yield_to_clicks() {
    // On Linux every thread has a niceness of its own; elsewhere this would be the whole process's. A system that
    // forbids it is served at the old niceness.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, CONTROL_NICENESS);
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    // Later a damaged overlay costs a refresh; now somebody is there to mend it.
    if let Some(path) = &config.refresh.overlay {
        let overlay = Overlay::read(path)?;
        let (entries, rules, caps) = (overlay.entries(), overlay.rules(), overlay.caps());
        let path = path.display();
        tracing::info!(entries, rules, caps, "entries, rules and caps come from the overlay {path} alone");
    }
    std::os::unix::fs::DirBuilderExt::mode(fs::DirBuilder::new().recursive(true), 0o700)
        .create(&config.data_dir)
        .with_context(|| format!("cannot create the data directory {}", config.data_dir.display()))?;

    let _lock = lock(&config.data_dir)?;
    let click_ids = config.click_id_keys.read_or_make()?;
    if let Some(warning) = &click_ids.warning {
        tracing::warn!("{warning}");
    }

    // Bind first: an address in use is the commonest mistake, and cheap to find.
    // The error says in its own words what the system said.
    let bound = edge::bind(config.edge.clone()).map_err(|error| anyhow::anyhow!("{error}"))?;
    let admin_listener = bind_admin(config.admin.listen).await?;
    let admin_address = admin_listener.local_addr()?;
    let click_addresses = bound.addresses().to_vec();

    let compile = &config.refresh.compile;
    let table = Arc::new(LiveTable::new(Table::empty(compile.network_fallback.clone(), compile.bots)));
    let metrics = Arc::new(Metrics::new(config.links_max, Arc::clone(&table)));
    let readiness = Arc::new(Readiness::default());
    let (geo_reload, geo) = GeoReload::start(config.geo.clone(), &metrics)?;

    let certificate = match &config.certificate {
        Some(files) => Some(Arc::new(LiveCertificate::new(files.load()?))),
        None => None,
    };
    let own_ledger = match &config.ledger {
        LedgerPlace::Here => Some(Ledger::Local(LocalLedger::start(&config.data_dir.join(LEDGER)))),
        LedgerPlace::Valkey(servers) => {
            tracing::info!("caps are counted on {servers}");
            Some(Ledger::Valkey(ValkeyLedger::new(servers.clone())))
        }
        LedgerPlace::Upstream => None,
    };
    let (upstream, key, api) = match &config.upstream {
        Upstream::Remote { url, key } => {
            tracing::info!("upstream {url}");
            (url.clone(), key.clone(), None)
        }
        Upstream::Embedded { key } => {
            let base_url = config.public_base_url.clone().unwrap_or_else(|| base_url(&click_addresses));
            let ledger = own_ledger.clone().context("who runs the API counts its caps")?;
            let (key, backoffice) = open_backoffice(&config, key.as_ref(), base_url, ledger)?;
            (local_url(admin_address)?, key, Some(backoffice))
        }
    };
    let client = |options| Client::new(options).context("cannot prepare TLS for the upstream");
    let ledger = match own_ledger {
        Some(ledger) => LedgerAt::Here(ledger),
        None => LedgerAt::Upstream(Arc::new(client(config.ledger_client(upstream.clone(), key.clone()))?)),
    };
    let client = client(config.client(upstream, key))?;
    let cells = Arc::new(CapCells::default());
    let (mut refresh, refresh_handle) = Refresh::new(
        client,
        config.refresh.clone(),
        Arc::clone(&table),
        Arc::clone(&cells),
        Arc::clone(&readiness),
        Arc::clone(&metrics),
        geo_reload,
    );
    refresh.start_from_last_good();
    let caps = refresh.caps();
    let (desk, conversions) = conversion_desk();
    let carrier = ConversionCarrier::new(ledger.clone(), conversions);
    let cap_keeper = CapKeeper::new(ledger.clone(), node_name(), cells, caps.clone(), Arc::clone(&metrics))?;
    let node = edge::draw_node_identity().context("the system has no randomness")?;
    let (click_logs, logs_of_threads) = match config.click_log {
        Some(options) => {
            let directory = options.directory.display().to_string();
            let key = click_ids.keys.address_key();
            let started = ClickLogs::start(options, key, &node.to_string(), bound.threads());
            let (click_logs, logs) =
                started.with_context(|| format!("cannot keep the click log in {directory}"))?;
            tracing::info!("clicks are written down in {directory}");
            (Some(click_logs), logs)
        }
        None => (None, Vec::new()),
    };
    let edge = bound
        .start(Supplies {
            click_id_keys: &click_ids.keys,
            node,
            table: &table,
            geo: &geo,
            metrics: &metrics,
            conversions: &desk,
            click_logs: logs_of_threads,
            certificate: certificate.as_ref(),
        })
        .context("cannot start the click threads")?;
    // The edge alone has any, so that who carries conversions ends when the edge has.
    drop(desk);
    // Only now, when the start cannot fail any more.
    for address in click_addresses {
        tracing::info!("clicks on {address}/sl");
    }
    tracing::info!("admin on http://{admin_address}/");

    let (alarm, mut alarms) = mpsc::unbounded_channel();
    let alarm = Alarm(alarm);
    // Ends with the process.
    alarm.watch("the one that shows what is left of caps", show_caps(ledger, caps, Arc::clone(&metrics)));
    if let (Some(files), Some(live)) = (config.certificate, certificate) {
        let kept = keep_certificate(files, live, Arc::clone(&metrics));
        alarm.watch("the one that keeps the certificate", kept);
    }
    let router = Admin {
        token: config.admin.token.clone(),
        metrics,
        readiness: Arc::clone(&readiness),
        table,
        geo,
        // The refresh of a node with an API of its own waits at that API for changes: it ends first.
        refresh: refresh_handle.weak(),
    }
    .router();
    let router = match &api {
        Some(backoffice) => router.merge(backoffice.router()),
        None => router,
    };
    let (stop_admin, admin_stopped) = oneshot::channel::<()>();
    let admin = alarm.watch(
        "the admin listener",
        admin::serve(admin_listener, router, async {
            // Either way, the admin listener is to end.
            let _ = admin_stopped.await;
        }),
    );
    let refreshing = alarm.watch("the one that refreshes the snapshot", refresh.run());
    let (stop_keeping, keeping_stops) = oneshot::channel();
    let keeping = alarm.watch("the one that keeps the leases of caps", cap_keeper.run(keeping_stops));
    let carrying = alarm.watch("the one that carries conversions", carrier.run());

    let end = tokio::select! {
        end = signals.wait_for_the_end(&refresh_handle) => end,
        Some(task) = alarms.recv() => {
            tracing::error!(
                "a task panicked, {task}: the node drains and ends with exit code {BROKEN}, so that whoever supervises it \
                 starts a whole one; please report the panic above"
            );
            End::Broken
        }
    };
    readiness.begin_drain();
    // A person at the keyboard has no load balancer that must notice.
    let goodbye = if end == End::Interrupt { Duration::ZERO } else { config.goodbye };
    let (for_seconds, at_most) = (goodbye.as_secs_f32(), config.drain_timeout.as_secs_f32());
    tracing::info!(
        "draining: for {for_seconds} s every answer is the last of its connection; then at most {at_most} s for what \
         has begun"
    );
    let drained = tokio::select! {
        drained = edge.drain(goodbye, config.drain_timeout) => drained,
        () = signals.end_at_once() => {
            tracing::warn!("told to stop again: stopping without waiting");
            return Ok(ExitCode::from(STOPPED_AT_ONCE));
        }
    };
    // The edge has let go of its logs.
    if click_logs.is_some_and(|logs| !logs.finish(SEAL_PATIENCE)) {
        tracing::warn!("the disk is slow: the last segments of the click log are sealed by the next start");
    }
    // Before the API ends, which may be that of the ledger.
    drop(stop_keeping);
    let _ = tokio::time::timeout(RETURN_PATIENCE, keeping).await;
    let _ = tokio::time::timeout(RETURN_PATIENCE, carrying).await;
    // Without a handle it ends as soon as what is live is on the disk; a reading that is under way is given up.
    drop(refresh_handle);
    let _ = tokio::time::timeout(KEEP_PATIENCE, refreshing).await;
    drop(stop_admin);
    // Scrapes that have begun end by themselves; a client that holds its connection open does not keep us.
    let _ = tokio::time::timeout(ADMIN_PATIENCE, admin).await;
    match drained {
        Drained::Clean => tracing::info!("drained; every answer that was begun was given"),
        Drained::Deadline => tracing::warn!("the deadline closed connections that were still open"),
    }
    Ok(if end == End::Broken { ExitCode::from(BROKEN) } else { ExitCode::SUCCESS })
}

/// To standard error, so that standard output stays free. `RUST_LOG` chooses what is said.
fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .fmt_fields(one_line::fields())
        .with_writer(std::io::stderr)
        .init();
}

async fn bind_admin(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "cannot listen for the admin interface on {address}: another process listens there; stop it, or choose \
             another --admin"
        ),
        _ => anyhow::anyhow!("cannot listen for the admin interface on {address}: {error}"),
    })
}

/// Opens the embedded API, seeds it if asked, and tells where its key is.
fn open_backoffice(
    config: &Config,
    key: Option<&KeySource>,
    public_base_url: String,
    ledger: Ledger,
) -> anyhow::Result<(KeySource, Backoffice)> {
    let key = match key {
        Some(key) => key.clone(),
        None => KeySource::File(own_key(&config.data_dir)?),
    };
    let path = config.data_dir.join(DATABASE);
    let options = backoffice::Options {
        api_key: key.read()?,
        public_base_url,
        zone: config.refresh.zone.clone(),
        destination_policy: config.refresh.compile.policy.clone(),
        limits: config.api.clone(),
    };
    let backoffice = Backoffice::open(&path, options, ledger)?;
    if config.demo {
        match backoffice.seed_demo()? {
            true => tracing::info!("seeded the demonstration network: link 301 of affiliate 67890"),
            false => tracing::info!("the data directory has links already; nothing was seeded"),
        }
        tracing::warn!("--demo routes bots like visitors, so that curl sees offers; edge.bots is not used");
    }
    tracing::info!("embedded CAKE API at /api/2/ on the admin address; its key is in {key}");
    Ok((key, backoffice))
}

/// As the ledger's log names this node.
fn node_name() -> String {
    let name = rustix::system::uname();
    let name: String = name.nodename().to_string_lossy().chars().take(NODE_CHARS_MAX).collect();
    if name.is_empty() { "smartlink".to_owned() } else { name }
}

/// Keeps a second node out of the data directory: two would take turns in overwriting the last good snapshot. The
/// system lets go of the lock when the process ends, however it ends.
fn lock(data_dir: &Path) -> anyhow::Result<fs::File> {
    let path = data_dir.join(LOCK_FILE);
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => anyhow::bail!(
            "another smartlink uses the data directory {}; stop it, or choose another --data-dir",
            data_dir.display()
        ),
        Err(fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// The key in the data directory; made at the first start, readable by its owner alone.
fn own_key(data_dir: &Path) -> anyhow::Result<std::path::PathBuf> {
    let path = data_dir.join(KEY_FILE);
    if path.exists() {
        return Ok(path);
    }
    let key = super::key::random()?;
    let mut options = fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
    let written = options.open(&path).and_then(|mut file| {
        writeln!(file, "{}", key.reveal())?;
        file.sync_all()
    });
    written.with_context(|| format!("cannot keep the API key in {}", path.display()))?;
    Ok(path)
}

/// Where a process on this machine reaches the admin listener.
fn local_url(address: SocketAddr) -> anyhow::Result<Url> {
    Ok(Url::parse(&format!("http://{}", reachable(address)))?)
}

/// Where clicks are, as well as can be told without being told.
fn base_url(addresses: &[ClickAddress]) -> String {
    let reachable = |click: &ClickAddress| ClickAddress { address: reachable(click.address), ..*click };
    addresses.first().map(|click| reachable(click).to_string()).unwrap_or_default()
}

fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// The signals that a process of this kind is steered by.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// Why the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Terminate,
    Interrupt,
    /// A task without which the node is not whole has panicked.
    Broken,
}

/// Told of tasks that panic. Without one of them, a node would go on looking well: with an old table, with caps that close and
/// stay closed, or with conversions that nobody takes.
#[derive(Clone)]
struct Alarm(mpsc::UnboundedSender<&'static str>);

impl Alarm {
    /// Spawns a task that is not to panic, by a name for people.
    fn watch<T: Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let watch = Watch { name, alarm: self.0.clone() };
        tokio::spawn(async move {
            // Moved in, so that it goes when the task does.
            let _watch = watch;
            task.await
        })
    }
}

/// Raises the alarm if it goes in a panic.
struct Watch {
    name: &'static str,
    alarm: mpsc::UnboundedSender<&'static str>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Where nobody listens, the process is ending already.
            let _ = self.alarm.send(self.name);
        }
    }
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Until SIGTERM or SIGINT; meanwhile each SIGHUP asks for a refresh.
    async fn wait_for_the_end(&mut self, refresh: &RefreshHandle) -> End {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {
                    tracing::info!("SIGTERM");
                    return End::Terminate;
                }
                _ = self.interrupt.recv() => {
                    tracing::info!("SIGINT");
                    return End::Interrupt;
                }
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: refreshing the snapshot and the geo databases");
                    let refresh = refresh.clone();
                    tokio::spawn(async move { refresh.refresh(false).await });
                }
            }
        }
    }

    async fn end_at_once(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// In the data directory: locked while a node uses it.
const LOCK_FILE: &str = "lock";

/// Admin, sync and the embedded API. Apart from the threads that take clicks.
const CONTROL_THREADS: usize = 2;

/// A tenth of a click thread's share where they compete.
#[cfg(target_os = "linux")]
const CONTROL_NICENESS: i32 = 10;

/// What the ledger takes of a name.
const NODE_CHARS_MAX: usize = 64;

/// How long the clicks that the node holds of caps may take to be returned.
const RETURN_PATIENCE: Duration = Duration::from_secs(3);

/// How long the click log may take to be sealed at the end.
const SEAL_PATIENCE: Duration = Duration::from_secs(5);

/// How long the last good snapshot may take to be written at the end.
const KEEP_PATIENCE: Duration = Duration::from_secs(3);

/// How long a scrape may take to end after the drain.
const ADMIN_PATIENCE: Duration = Duration::from_secs(2);

/// A part of the node has broken.
const BROKEN: u8 = 4;

/// Neither success nor a mistake in the configuration.
const STOPPED_AT_ONCE: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_raises_the_alarm_and_an_end_does_not() {
        let (alarm, mut alarms) = mpsc::unbounded_channel();
        let alarm = Alarm(alarm);
        alarm.watch("well", async {}).await.unwrap();
        assert!(alarm.watch("ill", async { panic!("a panic of this test") }).await.is_err());
        assert_eq!(alarms.recv().await, Some("ill"));
        let endless = alarm.watch("given up", std::future::pending::<()>());
        endless.abort();
        assert!(endless.await.is_err());
        drop(alarm);
        assert_eq!(alarms.recv().await, None);
    }
}
