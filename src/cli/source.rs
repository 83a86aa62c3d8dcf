//! Whose API a node reads and writes, and by which key: another one's, or its own.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use url::Url;

use super::reachable;
use crate::backoffice;
use crate::cake::{Client, Key, KeySource};
use crate::config::{Config, KEY_FILE, Upstream};
use crate::edge::ClickAddress;

/// The upstream.
pub struct Source {
    pub url: Url,
    pub key: KeySource,
    /// Where affiliates' links lead.
    pub public_base_url: String,
    /// Of the embedded API, if that is it.
    pub api: Option<backoffice::Options>,
    /// Where the key of the embedded API is, and by which that API is told of another one.
    pub own_key: Option<(KeySource, watch::Sender<Key>)>,
}

impl Source {
    /// The node's own API is on the admin listener, and its links are where clicks are.
    pub fn of(config: &Config, admin: SocketAddr, clicks: &[ClickAddress]) -> anyhow::Result<Self> {
        let public_base_url = config.public_base_url.clone().unwrap_or_else(|| base_url(clicks));
        let key = match &config.upstream {
            Upstream::Remote { url, key } => {
                tracing::info!("upstream {url}");
                let (url, key) = (url.clone(), key.clone());
                return Ok(Self { url, key, public_base_url, api: None, own_key: None });
            }
            Upstream::Embedded { key: Some(key) } => key.clone(),
            Upstream::Embedded { key: None } => KeySource::File(own_key(&config.data_dir)?),
        };
        let (replace, api_key) = watch::channel(key.read()?);
        let api = backoffice::Options {
            api_key,
            public_base_url: public_base_url.clone(),
            zone: config.refresh.zone.clone(),
            destination_policy: config.refresh.compile.policy.clone(),
            limits: config.api.clone(),
        };
        tracing::info!("embedded CAKE API at /api/2/ on the admin address; its key is in {key}");
        let (url, own_key) = (local_url(admin)?, Some((key.clone(), replace)));
        Ok(Self { url, key, public_base_url, api: Some(api), own_key })
    }

    pub fn client(&self, config: &Config) -> anyhow::Result<Client> {
        Client::new(config.client(self.url.clone(), self.key.clone())).context(NO_TLS)
    }

    /// For the ledger behind it.
    pub fn ledger_client(&self, config: &Config) -> anyhow::Result<Arc<Client>> {
        let options = config.ledger_client(self.url.clone(), self.key.clone());
        Ok(Arc::new(Client::new(options).context(NO_TLS)?))
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

const NO_TLS: &str = "cannot prepare TLS for the upstream";
