//! Whom the client trusts: the system's root certificates, and those of a file beside them. Certificates are verified
//! always; there is no switch for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Why no upstream could be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot use the certificates in {} (--ca-file, upstream.ca_file): {reason}", .path.display())]
    CaFile { path: PathBuf, reason: String },
    #[error(
        "the system has no root certificates to verify the upstream by{reason}; install them (ca-certificates), or \
         name a file of them with --ca-file or in upstream.ca_file"
    )]
    NoRoots { reason: String },
    #[error("TLS cannot be used: {0}")]
    Unusable(rustls::Error),
}

/// Trusts the system's roots, and what is in the file.
pub fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        add(&mut roots, path)?;
    }
    if roots.is_empty() {
        let reason = system.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(TlsError::NoRoots { reason });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Every certificate of the file, or an error: one that is passed over would be missed at the worst time.
fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let wrong = |reason: String| TlsError::CaFile { path: path.to_owned(), reason };
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.len() == before {
        return Err(wrong("it holds no certificate; expected PEM, -----BEGIN CERTIFICATE-----".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let error = || client_config(Some(&path)).unwrap_err().to_string();
        assert!(error().contains("ca.pem (--ca-file, upstream.ca_file): No such file"), "{}", error());
        for (text, said) in [
            ("", "holds no certificate"),
            ("rubbish", "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ""),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", ""),
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(
                error().contains("ca.pem (--ca-file, upstream.ca_file): ") && error().contains(said),
                "{}",
                error()
            );
        }
    }
}
