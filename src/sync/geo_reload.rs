//! The geo databases on disk: read at start, and each again when its file has changed.
//!
//! A file is read into memory and checked before it is swapped in; it is never mapped, because somebody may
//! overwrite it in place. The format has no checksum, so that a file of which one half is the old one and one half the new
//! may well pass: one that is overwritten in place is read when it has been left alone for a moment. One that is renamed into
//! its place is whole, and read at once.

use std::fs;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::stamp::{Stamp, is_same_file, stamp};
use crate::lookup::{AsnDb, GeoDb, GeoDbError};
use crate::state::{Geo, GeoDatabase, LiveGeo, Metrics};

/// Where the databases are. Without a file for places, the demonstration database is used.
#[derive(Clone, Debug, Default)]
pub struct GeoFiles {
    /// Country or City.
    pub places: Option<PathBuf>,
    /// ASN or ISP.
    pub networks: Option<PathBuf>,
}

/// A database that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GeoLoadError {
    #[error("cannot read the geo database {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the geo database {} cannot be used: {source}", .path.display())]
    Unusable { path: PathBuf, source: GeoDbError },
}

/// Watches the files and replaces the live databases, each by itself: one that cannot be used keeps no other from being
/// replaced.
pub struct GeoReload {
    places: Option<GeoFile>,
    networks: Option<GeoFile>,
    live: Arc<LiveGeo>,
}

/// A file that is looked at.
struct GeoFile {
    path: PathBuf,
    /// As it was when it was read.
    seen: Stamp,
    /// As it was when somebody was found writing to it, and when it was found so.
    unsettled: Option<(Stamp, Instant)>,
}

impl GeoFiles {
    /// Reads and checks the databases. Takes up to seconds for a large file.
    pub fn load(&self) -> Result<Geo, GeoLoadError> {
        let places = match &self.places {
            Some(path) => load(path, GeoDb::from_bytes)?,
            None => GeoDb::demo(),
        };
        let networks = self.networks.as_deref().map(|path| load(path, AsnDb::from_bytes)).transpose()?;
        Ok(Geo { places: Some(places.into()), networks: networks.map(Arc::new) })
    }
}

/// Databases that were read and not yet used, with the files to watch.
pub struct GeoRead {
    files: GeoFiles,
    places: Option<GeoFile>,
    networks: Option<GeoFile>,
    geo: Geo,
}

impl GeoRead {
    /// Reads and checks the databases. Takes up to seconds for a large file.
    pub fn of(files: GeoFiles) -> Result<Self, GeoLoadError> {
        // Before they are read: what is written to one meanwhile is seen by the next look.
        let places = files.places.clone().map(GeoFile::new);
        let networks = files.networks.clone().map(GeoFile::new);
        let geo = files.load()?;
        Ok(Self { files, places, networks, geo })
    }

    /// `in_use`: what the node had until now. That there is nothing but the demonstration is said when it comes to be so.
    fn report(&self, in_use: Option<&GeoReload>, metrics: &Metrics) {
        let is_demo = self.files.places.is_none();
        let was_demo = in_use.is_some_and(|in_use| in_use.places.is_none());
        if let Some(database) = &self.geo.places
            && !(is_demo && was_demo)
        {
            report_places(self.files.places.as_deref(), database, metrics);
        }
        match (&self.geo.networks, &self.files.networks) {
            (Some(database), Some(path)) => report_networks(path, database, metrics),
            _ => metrics.geo_database_built(GeoDatabase::Networks, None),
        }
    }
}

impl GeoReload {
    pub fn live(&self) -> Arc<LiveGeo> {
        Arc::clone(&self.live)
    }

    /// Loads the databases for the first time; an operator who named a file wants that file or an error.
    pub fn start(files: GeoFiles, metrics: &Metrics) -> Result<(Self, Arc<LiveGeo>), GeoLoadError> {
        let read = GeoRead::of(files)?;
        read.report(None, metrics);
        let GeoRead { places, networks, geo, .. } = read;
        let live = Arc::new(LiveGeo::new(geo));
        Ok((Self { places, networks, live: Arc::clone(&live) }, live))
    }

    /// Puts these databases in the place of those in use, and watches their files from now on.
    pub fn replace(&mut self, read: GeoRead, metrics: &Metrics) {
        read.report(Some(self), metrics);
        let GeoRead { places, networks, geo, .. } = read;
        (self.places, self.networks) = (places, networks);
        self.live.replace(geo);
        metrics.geo_reloaded(true);
    }

    /// Loads each database again if its file has changed. What cannot be used is reported, and the old one stays.
    pub async fn reload_if_changed(&mut self, metrics: &Metrics) {
        if let Some(file) = &mut self.places
            && let Some(database) = file.reload(GeoDb::from_bytes, metrics).await
        {
            report_places(Some(&file.path), &database, metrics);
            let networks = self.live.current().networks.clone();
            self.live.replace(Geo { places: Some(database.into()), networks });
        }
        if let Some(file) = &mut self.networks
            && let Some(database) = file.reload(AsnDb::from_bytes, metrics).await
        {
            report_networks(&file.path, &database, metrics);
            let places = self.live.current().places.clone();
            self.live.replace(Geo { places, networks: Some(database.into()) });
        }
    }

    /// Until a file that somebody was writing to may be read, if it is left alone. Never, if there is none.
    pub async fn settles(&self) {
        let unsettled =
            [&self.places, &self.networks].into_iter().flatten().filter_map(|file| file.unsettled);
        match unsettled.map(|(_, since)| since).min() {
            Some(since) => tokio::time::sleep_until(since + SETTLES_IN).await,
            None => pending().await,
        }
    }
}

impl GeoFile {
    fn new(path: PathBuf) -> Self {
        Self { seen: stamp(&path), path, unsettled: None }
    }

    /// Reads the file if it has changed. `None`: it has not, or it is not to be used.
    async fn reload<D: Send + 'static>(
        &mut self,
        from_bytes: fn(Vec<u8>) -> Result<D, GeoDbError>,
        metrics: &Metrics,
    ) -> Option<D> {
        let changed = self.changed()?;
        let path = self.path.clone();
        let loaded = tokio::task::spawn_blocking(move || load(&path, from_bytes)).await;
        if stamp(&self.path) != changed {
            // What was read may be of two files.
            self.is_written_to(stamp(&self.path));
            return None;
        }
        // Also after a failure: the same bad file is reported once, not at every refresh.
        self.seen = changed;
        let problem = match loaded {
            Ok(Ok(database)) => {
                metrics.geo_reloaded(true);
                return Some(database);
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("loading the geo database {} broke off: {error}", self.path.display()),
        };
        tracing::error!("{problem}; the database in use stays");
        metrics.geo_reloaded(false);
        None
    }

    /// What the file is now, if that is to be read.
    fn changed(&mut self) -> Option<Stamp> {
        let now = stamp(&self.path);
        if now == self.seen {
            self.unsettled = None;
            return None;
        }
        match self.unsettled {
            None if !is_same_file(&self.seen, &now) => return Some(now),
            Some((before, since)) if before == now => {
                if since.elapsed() < SETTLES_IN {
                    return None;
                }
                self.unsettled = None;
                return Some(now);
            }
            _ => {}
        }
        self.is_written_to(now);
        None
    }

    fn is_written_to(&mut self, now: Stamp) {
        if self.unsettled.is_none() {
            tracing::info!(
                "the geo database {} is being overwritten in place: it is read when nobody has written to it for {} s (one \
                 that is renamed into its place is read at once)",
                self.path.display(),
                SETTLES_IN.as_secs()
            );
        }
        self.unsettled = Some((now, Instant::now()));
    }
}

fn load<D>(path: &Path, from_bytes: impl Fn(Vec<u8>) -> Result<D, GeoDbError>) -> Result<D, GeoLoadError> {
    let bytes = fs::read(path).map_err(|source| GeoLoadError::Io { path: path.to_owned(), source })?;
    from_bytes(bytes).map_err(|source| GeoLoadError::Unusable { path: path.to_owned(), source })
}

fn report_places(path: Option<&Path>, places: &GeoDb, metrics: &Metrics) {
    metrics.geo_database_built(GeoDatabase::Places, Some(places.build_epoch()));
    match path {
        Some(path) => tracing::info!(
            database = places.database_type(),
            records = places.record_count(),
            broken = places.broken_count(),
            "geo database {}",
            path.display()
        ),
        None => tracing::warn!(
            "DEMONSTRATION geo database in use: it knows only documentation addresses such as 192.0.2.1, so that real \
             visitors have no country; give a GeoLite2 or GeoIP2 file with --geo"
        ),
    }
}

fn report_networks(path: &Path, networks: &AsnDb, metrics: &Metrics) {
    metrics.geo_database_built(GeoDatabase::Networks, Some(networks.build_epoch()));
    tracing::info!(
        database = networks.database_type(),
        records = networks.record_count(),
        broken = networks.broken_count(),
        "ASN database {}",
        path.display()
    );
}

/// Whoever copies a file does not rest for so long in the middle of it.
const SETTLES_IN: Duration = Duration::from_secs(1);
