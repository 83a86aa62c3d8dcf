//! TLS on the click listeners: HTTP/1.1 alone, sessions that are resumed on any thread, and a certificate that is looked up for
//! each handshake, so that a new one takes no connection down.

use std::sync::Arc;

use rustls::crypto::hash::HashAlgorithm;
use rustls::crypto::ring;
use rustls::{ServerConfig, SupportedCipherSuite};
use tokio_rustls::TlsAcceptor;

use crate::state::LiveCertificate;

/// One for all threads: what one has begun, another resumes.
pub(super) fn acceptor(certificate: &Arc<LiveCertificate>) -> Result<TlsAcceptor, rustls::Error> {
    let mut provider = ring::default_provider();
    // First those that hash by SHA-256: a handshake hashes some twenty times, and SHA-384 has no instructions of its own on most
    // processors, here and at the visitor's. Both are beyond reach.
    provider.cipher_suites.sort_by_key(|suite| !hashes_by_sha256(suite));
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::<LiveCertificate>::clone(certificate));
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Tickets, of keys that are drawn anew every six hours: no memory for sessions.
    config.ticketer = ring::Ticketer::new()?;
    // A visitor comes back once; each ticket is bytes and a cipher's work.
    config.send_tls13_tickets = 1;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn hashes_by_sha256(suite: &SupportedCipherSuite) -> bool {
    let hash = match suite {
        SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider.algorithm(),
        SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider.algorithm(),
    };
    hash == HashAlgorithm::SHA256
}
