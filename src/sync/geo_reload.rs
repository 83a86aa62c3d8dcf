//! The geo databases on disk: read at start, and again when a file has changed.
//!
//! A file is read into memory and checked before it is swapped in; it is never mapped, because somebody may
//! overwrite it in place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::stamp::{Stamp, stamp};
use crate::lookup::{AsnDb, GeoDb, GeoDbError};
use crate::state::{Geo, LiveGeo, Metrics};

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

/// Watches the files and replaces the live databases.
pub struct GeoReload {
    files: GeoFiles,
    live: Arc<LiveGeo>,
    seen: Stamps,
}

type Stamps = (Stamp, Stamp);

impl GeoFiles {
    /// Reads and checks the databases. Takes up to seconds for a large file.
    pub fn load(&self) -> Result<Geo, GeoLoadError> {
        let places = match &self.places {
            Some(path) => load(path, GeoDb::from_bytes)?,
            None => GeoDb::demo(),
        };
        let networks = self.networks.as_deref().map(|path| load(path, AsnDb::from_bytes)).transpose()?;
        Ok(Geo { places: Some(places), networks })
    }

    fn stamps(&self) -> Stamps {
        (self.places.as_deref().and_then(stamp), self.networks.as_deref().and_then(stamp))
    }
}

impl GeoReload {
    pub fn live(&self) -> Arc<LiveGeo> {
        Arc::clone(&self.live)
    }

    /// Loads the databases for the first time; an operator who named a file wants that file or an error.
    pub fn start(files: GeoFiles, metrics: &Metrics) -> Result<(Self, Arc<LiveGeo>), GeoLoadError> {
        let seen = files.stamps();
        let geo = files.load()?;
        report(&files, &geo, metrics);
        let live = Arc::new(LiveGeo::new(geo));
        Ok((Self { files, live: Arc::clone(&live), seen }, live))
    }

    /// Loads the databases again if a file has changed. What cannot be used is reported, and the old one stays.
    pub async fn reload_if_changed(&mut self, metrics: &Metrics) {
        let stamps = self.files.stamps();
        if stamps == self.seen {
            return;
        }
        // Also after a failure: the same bad file is reported once, not at every refresh.
        self.seen = stamps;
        let files = self.files.clone();
        let loaded = tokio::task::spawn_blocking(move || files.load()).await;
        match loaded {
            Ok(Ok(geo)) => {
                report(&self.files, &geo, metrics);
                self.live.replace(geo);
                metrics.geo_reloaded(true);
            }
            Ok(Err(error)) => {
                tracing::error!("{error}; the database in use stays");
                metrics.geo_reloaded(false);
            }
            Err(error) => {
                tracing::error!("loading the geo database broke off: {error}; the one in use stays");
                metrics.geo_reloaded(false);
            }
        }
    }
}

fn load<D>(path: &Path, from_bytes: impl Fn(Vec<u8>) -> Result<D, GeoDbError>) -> Result<D, GeoLoadError> {
    let bytes = fs::read(path).map_err(|source| GeoLoadError::Io { path: path.to_owned(), source })?;
    from_bytes(bytes).map_err(|source| GeoLoadError::Unusable { path: path.to_owned(), source })
}

fn report(files: &GeoFiles, geo: &Geo, metrics: &Metrics) {
    if let Some(places) = &geo.places {
        metrics.geo_database_build.set(places.build_epoch() as i64);
        match &files.places {
            Some(path) => tracing::info!(
                database = places.database_type(),
                records = places.record_count(),
                broken = places.broken_count(),
                "geo database {}",
                path.display()
            ),
            None => tracing::warn!(
                "DEMONSTRATION geo database in use: it knows only documentation addresses such as 192.0.2.1, so \
                 real visitors have no country; give a GeoLite2 or GeoIP2 file with --geo"
            ),
        }
    }
    if let (Some(networks), Some(path)) = (&geo.networks, &files.networks) {
        tracing::info!(
            database = networks.database_type(),
            records = networks.record_count(),
            broken = networks.broken_count(),
            "ASN database {}",
            path.display()
        );
    }
}
