//! The certificate of the TLS listeners on disk: read at the start, and again when a file has changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use tokio::sync::watch;

use super::stamp::{Stamp, stamp};
use crate::state::{LiveCertificate, Metrics};

/// Where they are, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The node's own certificate first, then those that lead to the authority.
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// A certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} holds no certificate; expected PEM, -----BEGIN CERTIFICATE-----", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} holds no private key; expected PEM, -----BEGIN PRIVATE KEY-----, without a passphrase", .0.display())]
    NoKey(PathBuf),
    #[error("{} and {} do not go together: {source}", .chain.display(), .key.display())]
    Unusable { chain: PathBuf, key: PathBuf, source: rustls::Error },
}

impl CertificateFiles {
    /// Reads both, and looks whether they go together.
    pub fn load(&self) -> Result<CertifiedKey, CertificateError> {
        let Self { chain, key } = self;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(chain)?).collect();
        let certificates = certificates.map_err(|_| CertificateError::NoCertificate(chain.clone()))?;
        if certificates.is_empty() {
            return Err(CertificateError::NoCertificate(chain.clone()));
        }
        let secret = PrivateKeyDer::from_pem_slice(&read(key)?);
        let secret = secret.map_err(|_| CertificateError::NoKey(key.clone()))?;
        CertifiedKey::from_der(certificates, secret, &ring::default_provider())
            .map_err(|source| CertificateError::Unusable { chain: chain.clone(), key: key.clone(), source })
    }

    fn stamps(&self) -> (Stamp, Stamp) {
        (stamp(&self.chain), stamp(&self.key))
    }
}

/// Watches the files, which may become others, until it is dropped. What cannot be used is reported once, and the old
/// certificate stays.
pub async fn keep_certificate(
    mut files: watch::Receiver<CertificateFiles>,
    live: Arc<LiveCertificate>,
    metrics: Arc<Metrics>,
) {
    let mut seen = Some(files.borrow_and_update().stamps());
    show(&files.borrow(), &live.current(), &metrics);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if files.has_changed().unwrap_or(false) {
            // Whoever named others has loaded them; what was written to them since is not known.
            seen = None;
        }
        let files = files.borrow_and_update().clone();
        let now = Some(files.stamps());
        if now == seen {
            continue;
        }
        // Two files are not replaced at once: between the one and the other they do not go together, and it is tried again.
        seen = now;
        match files.load() {
            Ok(certificate) => {
                show(&files, &certificate, &metrics);
                live.replace(certificate);
                tracing::info!("another certificate from {}", files.chain.display());
                metrics.certificate_reloaded(true);
            }
            Err(error) => {
                tracing::error!("{error}; the certificate in use stays");
                metrics.certificate_reloaded(false);
            }
        }
    }
}

fn show(files: &CertificateFiles, certificate: &CertifiedKey, metrics: &Metrics) {
    metrics.certificate_expires(&files.chain.to_string_lossy(), expires(certificate));
}

/// Until when the node's own certificate is valid, in seconds since 1970. Those above it are the authority's business, and one
/// that no client needs may well be over.
fn expires(certificate: &CertifiedKey) -> Option<i64> {
    let (_, own) = x509_parser::parse_x509_certificate(certificate.cert.first()?).ok()?;
    Some(own.validity().not_after.timestamp())
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|source| CertificateError::Io { path: path.to_owned(), source })
}

/// Two looks at files are cheap, and whoever has replaced a certificate watches.
const LOOK_EVERY: Duration = Duration::from_secs(1);
