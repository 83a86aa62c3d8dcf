//! TLS on the click listeners: HTTP/1.1 alone, sessions that are resumed on any thread, and a certificate that is looked up for
//! each handshake, so that a new one takes no connection down.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use tokio_rustls::TlsAcceptor;

use crate::state::LiveCertificate;

/// One for all threads: what one has begun, another resumes.
pub(super) fn acceptor(certificate: &Arc<LiveCertificate>) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::<LiveCertificate>::clone(certificate));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Tickets, of keys that are drawn anew every six hours: no memory for sessions.
    config.ticketer = ring::Ticketer::new()?;
    // A visitor comes back once; each ticket is bytes and a cipher's work.
    config.send_tls13_tickets = 1;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
