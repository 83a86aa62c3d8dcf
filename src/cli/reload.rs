//! SIGHUP: a node that runs takes up the configuration anew.

use std::sync::Arc;

use anyhow::bail;
use tokio::sync::{mpsc, watch};

use super::logging::LogControl;
use super::supervisor::Supervisor;
use crate::cake::{Key, KeySource};
use crate::config::{Changed, Config, Flags};
use crate::edge::Edge;
use crate::state::{LiveCertificate, Metrics, RefreshHandle};
use crate::sync::{CertificateFiles, GeoRead, RefreshSettings};

/// Takes up what has changed in the configuration, and the files that it names: all of it, or nothing.
pub struct Reload<'a> {
    pub flags: &'a Flags,
    /// By which the node runs.
    pub config: Config,
    pub edge: &'a Edge,
    /// The admin token.
    pub token: watch::Sender<Option<Key>>,
    /// Of the embedded API: where the node's own key is, and whoever is to know of another one.
    pub api_key: Option<(KeySource, watch::Sender<Key>)>,
    /// The files that are watched, and what was read of them.
    pub certificate: Option<(watch::Sender<CertificateFiles>, Arc<LiveCertificate>)>,
    pub refresh_settings: mpsc::Sender<RefreshSettings>,
    pub refresh: RefreshHandle,
    pub metrics: Arc<Metrics>,
    pub log: &'a LogControl,
    pub supervisor: Supervisor,
}

impl Reload<'_> {
    /// The keys that have another value now, and the secrets that are others.
    pub async fn run(&mut self) -> anyhow::Result<Vec<&'static str>> {
        let config = Config::load(self.flags)?;
        let Changed { mut live, fixed } = self.config.changed(&config);
        anyhow::ensure!(
            fixed.is_empty(),
            "{} changed, which a running process cannot take up: start one with --takeover, or put the old values back",
            fixed.join(" and ")
        );
        // Everything that may fail comes before the first change.
        let certificate = match &config.certificate {
            Some(files) => Some((files.clone(), files.load()?)),
            None => None,
        };
        let api_key = match &self.api_key {
            Some((source, replace)) => Some((source.read()?, replace)),
            None => None,
        };
        let files = config.geo.clone();
        let geo = tokio::task::spawn_blocking(move || GeoRead::of(files)).await??;
        let recompiles = live.iter().any(|key| TABLE_KEYS.contains(key));
        let settings = RefreshSettings { options: config.refresh.clone(), geo, recompiles };
        if self.refresh_settings.try_send(settings).is_err() {
            bail!("the refresh that takes up what was changed last has not begun; try again");
        }
        if let (Some((files, certificate)), Some((watched, in_use))) = (certificate, &self.certificate) {
            in_use.replace(certificate);
            // Those that it knows, it looks at by itself.
            watched.send_if_modified(|in_use| std::mem::replace(in_use, files.clone()) != files);
        }
        let fingerprint = |token: &Option<Key>| token.as_ref().map(Key::fingerprint);
        let is_another = |in_use: &Option<Key>| fingerprint(in_use) != fingerprint(&config.admin.token);
        if replace_if(&self.token, is_another, config.admin.token.clone()) {
            live.push("the admin token");
        }
        if let Some((key, replace)) = api_key {
            let fingerprint = key.fingerprint();
            if replace_if(replace, |in_use| in_use.fingerprint() != fingerprint, key) {
                live.push("the API's key");
            }
        }
        self.edge.change(config.edge.settings.clone());
        self.log.change_level(config.log.level);
        self.config = config;
        Ok(live)
    }
}

/// Tells of another value, if it is one.
fn replace_if<T>(sender: &watch::Sender<T>, is_another: impl FnOnce(&T) -> bool, value: T) -> bool {
    sender.send_if_modified(|in_use| {
        let is_another = is_another(in_use);
        if is_another {
            *in_use = value;
        }
        is_another
    })
}

/// What a table is compiled by.
const TABLE_KEYS: [&str; 2] = ["edge.bots", "network.default_fallback_url"];
