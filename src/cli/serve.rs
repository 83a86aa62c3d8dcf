//! `smartlink serve`: the life of the process. Builds every room, says which addresses are served, waits, drains by a
//! deadline, and says how it ended.

use std::fs;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::admin_side::{AdminSide, Serving, bind_admin, inherit_admin};
use super::logging::{LogControl, Logging};
use super::reload::Reload;
use super::source::Source;
use super::supervisor::{PassedSockets, Supervisor};
use super::takeover::{self, Claim, Estate, Inherited};
use crate::admin::{self, Admin};
use crate::clicklog::ClickLogs;
use crate::config::{Config, Flags};
use crate::console::{self, Console};
use crate::edge::{self, Drained, Edge, Supplies};
use crate::ledger::conversion_desk;
use crate::routing::Table;
use crate::state::{CapCells, Hosts, LiveCertificate, LiveTable, Metrics, Readiness, RefreshHandle, Turns};
use crate::sync::{
    CapKeeper, ConversionCarrier, GeoReload, Overlay, Refresh, keep_certificate, show_caps, watch_disks,
};

/// Serves until told to stop.
///
/// `takes_over`: from the process that uses the data directory, if there is one.
pub fn run(flags: &Flags, takes_over: bool) -> anyhow::Result<ExitCode> {
    // While this is the only thread.
    let passed = PassedSockets::take()?;
    let config = Config::load(flags)?;
    let logging = Logging::start(&config.log)?;
    start(flags, config, takes_over, passed, &logging.control()).or_else(|error| {
        if logging.last_words(&error) { Err(error) } else { Ok(ExitCode::from(super::FAILURE)) }
    })
}

fn start(
    flags: &Flags,
    config: Config,
    takes_over: bool,
    passed: PassedSockets,
    log: &LogControl,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .on_thread_start(yield_to_clicks)
        .enable_all()
        .build()
        .context("cannot start the control plane's threads")?;
    let ended = runtime.block_on(serve(flags, config, takes_over, passed, log));
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

async fn serve(
    flags: &Flags,
    config: Config,
    takes_over: bool,
    passed: PassedSockets,
    log: &LogControl,
) -> anyhow::Result<ExitCode> {
    let supervisor = Supervisor::from_environment();
    log.clone().reopen_when_told()?;
    tracing::info!("smartlink {}, process {}", env!("CARGO_PKG_VERSION"), std::process::id());
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

    let Claim { lock, inherited } = takeover::claim(&config.data_dir, takes_over)?;
    // Until here a signal ends the process: who waits for another one to make its offer holds nothing.
    let mut signals = Signals::new()?;
    let (clicks_inherited, admin_inherited, mut predecessor) = match inherited {
        Some(Inherited { clicks, admin, predecessor }) => (clicks, Some(admin), Some(predecessor)),
        None => {
            for socket in passed.clicks.iter().chain(&passed.admin) {
                tracing::info!("systemd has opened the socket on {}", socket.local_addr()?);
            }
            (passed.clicks, passed.admin.into_iter().next(), None)
        }
    };
    if let Some(predecessor) = &predecessor {
        tracing::info!("taking over from process {}", predecessor.process);
    }
    let click_ids = config.click_id_keys.read_or_make()?;
    if let Some(warning) = &click_ids.warning {
        tracing::warn!("{warning}");
    }

    // Bind first: an address in use is the commonest mistake, and cheap to find.
    // The error says in its own words what the system said.
    let bound =
        edge::bind(config.edge.clone(), clicks_inherited).map_err(|error| anyhow::anyhow!("{error}"))?;
    let admin_listener = match admin_inherited {
        Some(inherited) => inherit_admin(config.admin.listen, inherited)?,
        None => bind_admin(config.admin.listen).await?,
    };
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
    let (token, admin_token) = watch::channel(config.admin.token.clone());
    let source = Source::of(&config, admin_address, &click_addresses)?;
    let admin_side = AdminSide::open(&config, &source, predecessor.is_some())?;
    let ledger = admin_side.ledger();
    let console_client = source.client(&config)?;
    let cells = Arc::new(CapCells::default());
    let (mut refresh, refresh_handle) = Refresh::new(
        source.client(&config)?,
        config.refresh.clone(),
        Arc::clone(&table),
        Arc::clone(&cells),
        Arc::clone(&readiness),
        Arc::clone(&metrics),
        geo_reload,
    );
    if let Some(predecessor) = &predecessor {
        refresh.keep_nothing_before(predecessor.ended.clone());
    }
    let (refresh_settings, to_refresh) = mpsc::channel(1);
    refresh.follow(to_refresh);
    refresh.start_from_last_good();
    let caps = refresh.caps();
    let journal = refresh.journal();
    let console_caps = refresh.caps();
    let (desk, conversions) = conversion_desk();
    let carrier = ConversionCarrier::new(ledger.clone(), conversions);
    let cap_keeper = CapKeeper::new(ledger.clone(), node_name(), cells, caps.clone(), Arc::clone(&metrics))?;
    let node = edge::draw_node_identity().context("the system has no randomness")?;

    let (alarm, mut alarms) = mpsc::unbounded_channel();
    let alarm = Alarm(alarm);
    let refreshing = alarm.watch("the one that refreshes the snapshot", refresh.run());
    let (stop_keeping, keeping_stops) = oneshot::channel();
    let keeping = alarm.watch("the one that keeps the leases of caps", cap_keeper.run(keeping_stops));
    let begun = async {
        if predecessor.is_some() {
            // What was changed since the last good snapshot was written is live there, and is to be live here.
            tokio::select! {
                caught_up = catch_up(&refresh_handle, &readiness) => caught_up?,
                () = signals.end_at_once() => bail!(STOPPED_BEFORE),
            }
        }
        let (click_logs, logs_of_threads) = match config.click_log.clone() {
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
        if predecessor.is_some() && signals.end_at_once().now_or_never().is_some() {
            bail!(STOPPED_BEFORE);
        }
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
        anyhow::Ok((click_logs, edge))
    };
    let (click_logs, edge) = match begun.await {
        Ok(begun) => begun,
        Err(error) => {
            // What it has of caps already goes back.
            drop(stop_keeping);
            let _ = tokio::time::timeout(RETURN_PATIENCE, keeping).await;
            return Err(error);
        }
    };
    // The edge alone has any, so that who carries conversions ends when the edge has.
    drop(desk);
    if let Some(predecessor) = &mut predecessor {
        predecessor.we_serve();
    }
    // Only now, when the start cannot fail any more.
    for address in click_addresses {
        tracing::info!("clicks on {address}/sl{}", address.remark());
    }
    tracing::info!("admin on http://{admin_address}/");
    tracing::info!("console on http://{admin_address}/console/");

    // Ends with the process.
    alarm.watch("the one that shows what is left of caps", show_caps(ledger, caps, Arc::clone(&metrics)));
    let mut directories = vec![("data", config.data_dir.clone())];
    directories.extend(config.click_log.as_ref().map(|log| ("click_log", log.directory.clone())));
    alarm.watch("the one that shows what room there is", watch_disks(directories, Arc::clone(&metrics)));
    let certificate = match (config.certificate.clone(), certificate) {
        (Some(files), Some(live)) => {
            let (files, watched) = watch::channel(files);
            let kept = keep_certificate(watched, Arc::clone(&live), Arc::clone(&metrics));
            alarm.watch("the one that keeps the certificate", kept);
            Some((files, live))
        }
        _ => None,
    };
    let carrying = alarm.watch("the one that carries conversions", carrier.run());
    let (counted, watched) = (Arc::clone(&metrics), Arc::clone(&table));
    let has_taken_over = predecessor.is_some();
    let hosts = Hosts::new(config.admin_hosts.clone());
    let console = Console::new(console::Parts {
        token: admin_token.clone(),
        port: admin_address.port(),
        hosts: hosts.clone(),
        metrics: Arc::clone(&metrics),
        readiness: Arc::clone(&readiness),
        table: Arc::clone(&table),
        geo: Arc::clone(&geo),
        caps: console_caps,
        journal,
        client: console_client,
        key: source.key,
        compile: config.refresh.compile.clone(),
        zone: config.refresh.zone.clone(),
        public_base_url: source.public_base_url.clone(),
    });
    let console = console.context("the system has no randomness")?;
    // Ends with the process.
    alarm.watch("the one that samples figures for the console", console.clone().sample());
    let admin = Admin {
        token: admin_token,
        hosts,
        metrics,
        scrapes: Turns::new(admin::SCRAPES_AT_ONCE),
        readiness: Arc::clone(&readiness),
        table,
        geo,
        // The refresh of a node with an API of its own waits at that API for changes: it ends first.
        refresh: refresh_handle.weak(),
    };
    let estate = Estate {
        lock: lock.try_clone()?,
        admin: admin_listener.as_fd().try_clone_to_owned()?,
        clicks: edge.sockets(),
    };
    let pages = admin.router().merge(console.router());
    let (mut serving, served) = admin_side.serve(admin_listener, pages, predecessor, estate);
    let served = alarm.watch("the admin listener", served);

    let pulse = edge.pulse();
    let mut reload = Reload {
        flags,
        config,
        edge: &edge,
        token,
        api_key: source.own_key,
        certificate,
        refresh_settings,
        refresh: refresh_handle.weak(),
        metrics: counted,
        log,
        supervisor,
    };
    let end = tokio::select! {
        end = signals.wait_for_the_end(&mut reload) => end,
        // On this thread, so that a main thread that hangs is not told to be well.
        () = supervisor.watch(&watched, &readiness, &pulse, has_taken_over) => unreachable!("it watches to the end"),
        Some(task) = alarms.recv() => {
            tracing::error!(
                "a task panicked, {task}: the node drains and ends with exit code {BROKEN}, so that whoever supervises it \
                 starts a whole one; please report the panic above"
            );
            End::Broken
        }
        Ok(error) = &mut serving.failed => {
            tracing::error!(
                "{}; the node drains and ends with exit code {BROKEN}",
                super::in_one_line(&error)
            );
            End::Broken
        }
        Ok(process) = &mut serving.taken_over => {
            tracing::info!("process {process} has taken over and accepts the clicks from now on");
            supervisor.taken_over(process);
            End::TakenOver
        }
    };
    if end != End::TakenOver {
        supervisor.stopping();
    }
    let config = reload.config;
    let running = Running {
        edge,
        click_logs,
        readiness,
        refreshing: (refresh_handle, refreshing),
        keeping: (stop_keeping, keeping),
        carrying,
        admin: (serving, served),
    };
    Ok(running.end(end, config.goodbye, config.drain_timeout, &mut signals).await)
}

/// What runs, until it ends. With each, what has it end.
struct Running {
    edge: Edge,
    click_logs: Option<ClickLogs>,
    readiness: Arc<Readiness>,
    refreshing: (RefreshHandle, JoinHandle<()>),
    /// The leases of caps.
    keeping: (oneshot::Sender<()>, JoinHandle<()>),
    /// It ends when the edge has.
    carrying: JoinHandle<()>,
    admin: (Serving, JoinHandle<()>),
}

impl Running {
    /// Drains the edge, and ends all others in the order in which they need each other. Answers the exit code.
    async fn end(self, end: End, goodbye: Duration, deadline: Duration, signals: &mut Signals) -> ExitCode {
        let Self { edge, click_logs, readiness, refreshing, keeping, carrying, admin } = self;
        if end != End::TakenOver {
            readiness.begin_drain();
        }
        // A person at the keyboard has no load balancer that must notice.
        let goodbye = if end == End::Interrupt { Duration::ZERO } else { goodbye };
        let (for_seconds, at_most) = (goodbye.as_secs_f32(), deadline.as_secs_f32());
        tracing::info!(
            "draining: for {for_seconds} s every answer is the last of its connection; then at most {at_most} s for what \
             has begun"
        );
        let draining = async {
            match end {
                End::TakenOver => edge.hand_over(goodbye, deadline).await,
                End::Terminate | End::Interrupt | End::Broken => edge.drain(goodbye, deadline).await,
            }
        };
        let drained = tokio::select! {
            drained = draining => drained,
            () = async {
                // To one that was told to end by a signal, it is the second.
                if matches!(end, End::TakenOver | End::Broken) {
                    signals.end_at_once().await;
                    tracing::info!("told to stop, and draining already; once more to stop at once");
                }
                signals.end_at_once().await;
            } => {
                tracing::warn!("told to stop again: stopping without waiting");
                return ExitCode::from(STOPPED_AT_ONCE);
            }
        };
        // The edge has let go of its logs.
        if click_logs.is_some_and(|logs| !logs.finish(SEAL_PATIENCE)) {
            tracing::warn!(
                "the disk is slow: the last segments of the click log are sealed by the next start"
            );
        }
        // Before the API ends, which may be that of the ledger.
        let (stop_keeping, keeping) = keeping;
        drop(stop_keeping);
        let _ = tokio::time::timeout(RETURN_PATIENCE, keeping).await;
        let _ = tokio::time::timeout(RETURN_PATIENCE, carrying).await;
        // Without a handle it ends as soon as what is live is on the disk; a reading that is under way is given up.
        let (refresh_handle, refreshing) = refreshing;
        drop(refresh_handle);
        let _ = tokio::time::timeout(KEEP_PATIENCE, refreshing).await;
        let (serving, served) = admin;
        serving.end(served).await;
        match drained {
            Drained::Clean => tracing::info!("drained; every answer that was begun was given"),
            Drained::Deadline => tracing::warn!("the deadline closed connections that were still open"),
        }
        if end == End::Broken { ExitCode::from(BROKEN) } else { ExitCode::SUCCESS }
    }
}

/// The first refresh of a process that takes over: nobody waits for it but that process.
async fn catch_up(refresh: &RefreshHandle, readiness: &Readiness) -> anyhow::Result<()> {
    let refreshed = tokio::time::timeout(CATCH_UP_PATIENCE, refresh.refresh(false)).await;
    let problem = match refreshed {
        Ok(Some(report)) => report.error,
        Ok(None) => Some("nobody refreshes".to_owned()),
        Err(_) => Some(format!("it takes longer than {} s", CATCH_UP_PATIENCE.as_secs())),
    };
    match (problem, readiness.unready_because()) {
        (None, None) => Ok(()),
        (Some(problem), None) => {
            tracing::warn!("the first refresh: {problem}; clicks are routed by the last good snapshot");
            Ok(())
        }
        (problem, Some(unready)) => anyhow::bail!(
            "{unready}: {}; the process that runs goes on",
            problem.unwrap_or_else(|| "the first refresh brought none".to_owned())
        ),
    }
}

/// As the ledger's log names this node.
fn node_name() -> String {
    let name = rustix::system::uname();
    let name: String = name.nodename().to_string_lossy().chars().take(NODE_CHARS_MAX).collect();
    if name.is_empty() { "smartlink".to_owned() } else { name }
}

/// The signals that a process of this kind is steered by.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    next: Signal,
}

/// Why the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Terminate,
    Interrupt,
    /// Another process has the sockets, and accepts on them.
    TakenOver,
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
            next: listen(SignalKind::user_defined2())?,
        })
    }

    /// Until SIGTERM or SIGINT; meanwhile each SIGHUP has the configuration taken up anew, and asks for a refresh, and SIGUSR2 has
    /// the next process started.
    async fn wait_for_the_end(&mut self, reload: &mut Reload<'_>) -> End {
        loop {
            tokio::select! {
                end = told_to_end(&mut self.terminate, &mut self.interrupt) => return end,
                _ = self.next.recv() => match takeover::start_next() {
                    Ok(process) => tracing::info!("SIGUSR2: started process {process}, to take over from this one"),
                    Err(error) => tracing::error!("SIGUSR2: {}", super::in_one_line(&error)),
                },
                _ = self.hangup.recv() => {
                    reload.supervisor.reloading();
                    // To drop it half done is to have changed nothing.
                    let done = tokio::select! {
                        done = reload.run() => done,
                        end = told_to_end(&mut self.terminate, &mut self.interrupt) => return end,
                    };
                    reload.metrics.configuration_reloaded(done.is_ok());
                    reload.supervisor.reloaded(done.as_ref().err());
                    match done {
                        Ok(changed) if changed.is_empty() => {
                            tracing::info!("SIGHUP: the configuration is the same; refreshing the snapshot");
                        }
                        Ok(changed) => tracing::info!(
                            "SIGHUP: taken up {}; refreshing the snapshot",
                            changed.join(", ")
                        ),
                        Err(error) => tracing::error!(
                            "SIGHUP: {}; nothing was changed",
                            super::in_one_line(&error)
                        ),
                    }
                    let refresh = reload.refresh.clone();
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

/// Admin, sync and the embedded API. Apart from the threads that take clicks.
const CONTROL_THREADS: usize = 2;

/// A tenth of a click thread's share where they compete.
#[cfg(target_os = "linux")]
const CONTROL_NICENESS: i32 = 10;

/// What the ledger takes of a name.
const NODE_CHARS_MAX: usize = 64;

async fn told_to_end(terminate: &mut Signal, interrupt: &mut Signal) -> End {
    tokio::select! {
        _ = terminate.recv() => {
            tracing::info!("SIGTERM");
            End::Terminate
        }
        _ = interrupt.recv() => {
            tracing::info!("SIGINT");
            End::Interrupt
        }
    }
}

const STOPPED_BEFORE: &str = "told to stop before it took over; the process that runs goes on";

/// How long the first refresh of a process that takes over may take: a million links are some seconds.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(60);

/// How long the clicks that the node holds of caps may take to be returned.
const RETURN_PATIENCE: Duration = Duration::from_secs(3);

/// How long the click log may take to be sealed at the end.
const SEAL_PATIENCE: Duration = Duration::from_secs(5);

/// How long the last good snapshot may take to be written at the end.
const KEEP_PATIENCE: Duration = Duration::from_secs(3);

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
