//! The ledger, the embedded API and the admin listener: what one process alone may have open, from its start to its end.
//!
//! A process that takes over from another one opens them when that one has ended, and serves by what it inherited until then.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::source::Source;
use super::takeover::{self, Estate, Predecessor};
use crate::admin;
use crate::backoffice::{self, Backoffice};
use crate::clicklog;
use crate::config::{Config, DATABASE, LEDGER, LedgerPlace};
use crate::ledger::{Ledger, LocalLedger, ValkeyLedger};
use crate::sync::LedgerAt;

/// All three, before they are served.
pub struct AdminSide {
    files: Files,
    /// `None`: the process before this one has them open.
    opened: Option<Opened>,
    ledger: LedgerAt,
    late_ledger: Arc<OnceLock<Ledger>>,
    click_log: Option<PathBuf>,
}

/// The admin listener, served. What it tells of.
pub struct Serving {
    stop: oneshot::Sender<()>,
    /// Why it ended, if nobody asked it to.
    pub failed: oneshot::Receiver<anyhow::Error>,
    /// The process that took over.
    pub taken_over: oneshot::Receiver<u32>,
}

impl AdminSide {
    /// Opens what is this process's. `takes_over`: from one that has it open still.
    pub fn open(config: &Config, source: &Source, takes_over: bool) -> anyhow::Result<Self> {
        let valkey = match &config.ledger {
            LedgerPlace::Valkey(servers) => {
                tracing::info!("caps are counted on {servers}");
                Some(Ledger::Valkey(ValkeyLedger::new(servers.clone())))
            }
            LedgerPlace::Here | LedgerPlace::Upstream => None,
        };
        let files = Files {
            data_dir: config.data_dir.clone(),
            valkey: valkey.clone(),
            keeps_ledger: matches!(config.ledger, LedgerPlace::Here),
            api: source.api.clone(),
            seeds_demo: config.demo,
        };
        let opened = if takes_over { None } else { Some(files.open()?) };
        let late_ledger = Arc::default();
        let ledger = match (opened.as_ref().map_or(valkey, |opened| opened.ledger.clone()), &config.ledger) {
            (Some(ledger), _) => LedgerAt::Here(ledger),
            (None, LedgerPlace::Upstream) => LedgerAt::Upstream(source.ledger_client(config)?),
            // The API of the process that has it is where that of this one will be.
            (None, _) => LedgerAt::Inherited {
                meanwhile: files.api.is_some().then(|| source.ledger_client(config)).transpose()?,
                then: Arc::clone(&late_ledger),
            },
        };
        let click_log = config.click_log.as_ref().map(|log| log.directory.clone());
        Ok(Self { files, opened, ledger, late_ledger, click_log })
    }

    /// Where the ledger is, for those who count on it.
    pub fn ledger(&self) -> LedgerAt {
        self.ledger.clone()
    }

    /// What is to run: it waits for the process before this one to end, leaves the estate to the next one, and serves these pages
    /// and the embedded API.
    pub fn serve(
        self,
        listener: TcpListener,
        pages: Router,
        predecessor: Option<Predecessor>,
        estate: Estate,
    ) -> (Serving, impl Future<Output = ()> + Send + 'static) {
        let Self { files, opened, late_ledger, click_log, ledger: _ } = self;
        let (stop, mut stopped) = oneshot::channel::<()>();
        let (fail, failed) = oneshot::channel();
        let (take_over, taken_over) = oneshot::channel();
        let serving = async move {
            let opened = match (opened, predecessor) {
                (None, Some(mut predecessor)) => {
                    tokio::select! {
                        _ = predecessor.ended.wait_for(|ended| *ended) => {}
                        _ = &mut stopped => return,
                    }
                    tracing::info!("process {} has ended; all it had is this one's", predecessor.process);
                    seal_what_was_left(click_log).await;
                    files.open()
                }
                (opened, _) => Ok(opened.unwrap_or_default()),
            };
            let Opened { ledger, api } = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    // The process ends, one way or the other.
                    let _ = fail.send(error);
                    return;
                }
            };
            if let Some(ledger) = ledger {
                // Set once, here.
                let _ = late_ledger.set(ledger);
            }
            if let Err(error) = takeover::offer(&files.data_dir, estate, take_over) {
                tracing::warn!("no process will be able to take over from this one: {error}");
            }
            let router = match &api {
                Some(backoffice) => pages.merge(backoffice.router()),
                None => pages,
            };
            let served = admin::serve(listener, router, async {
                // Either way, the admin listener is to end.
                let _ = stopped.await;
            });
            if let Err(error) = served.await {
                let _ = fail.send(anyhow::Error::new(error).context("the admin listener"));
            }
        };
        (Serving { stop, failed, taken_over }, serving)
    }
}

impl Serving {
    /// Ends what runs as this task.
    pub async fn end(self, task: JoinHandle<()>) {
        drop(self.stop);
        // Scrapes that have begun end by themselves; a client that holds its connection open does not keep us.
        let _ = tokio::time::timeout(ADMIN_PATIENCE, task).await;
    }
}

/// What one process alone may have open.
struct Files {
    data_dir: PathBuf,
    /// Of several processes at once, if there is one.
    valkey: Option<Ledger>,
    /// Otherwise it is here, or the upstream's.
    keeps_ledger: bool,
    /// Of the embedded API.
    api: Option<backoffice::Options>,
    seeds_demo: bool,
}

/// The same, open.
#[derive(Default)]
struct Opened {
    ledger: Option<Ledger>,
    api: Option<Backoffice>,
}

impl Files {
    /// Opens the ledger and the embedded API, and seeds it if asked.
    fn open(&self) -> anyhow::Result<Opened> {
        let ledger = match &self.valkey {
            Some(valkey) => Some(valkey.clone()),
            None => self.keeps_ledger.then(|| Ledger::Local(LocalLedger::start(&self.data_dir.join(LEDGER)))),
        };
        let Some(options) = self.api.clone() else { return Ok(Opened { ledger, api: None }) };
        let ledger = ledger.context("who runs the API counts its caps")?;
        let api = Backoffice::open(&self.data_dir.join(DATABASE), options, ledger.clone())?;
        if self.seeds_demo {
            match api.seed_demo()? {
                true => tracing::info!("seeded the demonstration network: link 301 of affiliate 67890"),
                false => tracing::info!("the data directory has links already; nothing was seeded"),
            }
            tracing::warn!(
                "--demo routes bots like visitors, so that curl sees offers; edge.bots is not used"
            );
        }
        Ok(Opened { ledger: Some(ledger), api: Some(api) })
    }
}

/// The admin listener of a process that inherits none.
pub async fn bind_admin(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "cannot listen for the admin interface on {address}: another process listens there; stop it, or choose \
             another --admin"
        ),
        _ => anyhow::anyhow!("cannot listen for the admin interface on {address}: {error}"),
    })
}

/// The admin listener of the process before this one, or of systemd.
pub fn inherit_admin(wanted: SocketAddr, inherited: std::net::TcpListener) -> anyhow::Result<TcpListener> {
    let address = inherited.local_addr()?;
    let is_wanted = wanted == address || (wanted.port() == 0 && wanted.ip() == address.ip());
    anyhow::ensure!(
        is_wanted,
        "there is a socket for the admin interface on {address}, of the process that runs or of systemd, and it is to be on \
         {wanted}; keep the address, or end that process and start without --takeover"
    );
    inherited.set_nonblocking(true)?;
    Ok(TcpListener::from_std(inherited)?)
}

/// The segments of the click log that the process before this one has not sealed: it was killed, or its disk is slow.
async fn seal_what_was_left(click_log: Option<PathBuf>) {
    let Some(directory) = click_log else { return };
    let sealing = tokio::task::spawn_blocking(move || {
        if let Err(error) = clicklog::seal_left(&directory) {
            let directory = directory.display();
            tracing::warn!(
                "cannot seal what is left of the click log in {directory}: {error}; the next start tries again"
            );
        }
    });
    // One that panicked has said so.
    let _ = sealing.await;
}

/// How long a scrape may take to end after the drain.
const ADMIN_PATIENCE: Duration = Duration::from_secs(2);
