//! An authority of the test's own, and a stub or a node behind its certificates.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, ServerConfig, ServerConnection, StreamOwned};

use super::wait::DEADLINE;

/// Signs certificates, and is trusted by nobody who does not name it.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// When a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub enum Validity {
    Now,
    Expired,
    NotYet,
}

/// A listener that ends TLS and passes on what is in it. Until the test's process ends.
pub struct Front(SocketAddr);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its certificate, as `upstream.ca_file` takes it.
    pub fn file(&self) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(self.0.pem().as_bytes()).unwrap();
        file
    }

    /// A certificate for this name and its key, as files have them.
    pub fn certificate(&self, name: &str) -> (String, String) {
        self.certificate_until(name, 4096)
    }

    /// The same, valid until the beginning of this year.
    pub fn certificate_until(&self, name: &str, year: i32) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem() + &self.0.pem(), key.serialize_pem())
    }

    /// A client that trusts this authority alone, in this version of TLS.
    pub fn client(&self, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// What listens there, behind a certificate for this name.
    pub fn front(&self, behind: SocketAddr, name: &str, validity: Validity) -> Front {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = match validity {
            Validity::Now => (date_time_ymd(2000, 1, 1), date_time_ymd(2999, 1, 1)),
            Validity::Expired => (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1)),
            Validity::NotYet => (date_time_ymd(2998, 1, 1), date_time_ymd(2999, 1, 1)),
        };
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        serve(Arc::new(config), behind)
    }
}

impl Front {
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.0.port())
    }
}

fn serve(config: Arc<ServerConfig>, behind: SocketAddr) -> Front {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            // A client that does not believe us goes away; that is for the test to see on its side.
            thread::spawn(move || drop(pass_on(stream, config, behind)));
        }
    });
    Front(address)
}

/// One request with its body, and its answer until the end of the connection.
fn pass_on(outer: TcpStream, config: Arc<ServerConfig>, behind: SocketAddr) -> std::io::Result<()> {
    outer.set_read_timeout(Some(DEADLINE))?;
    let session = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut outer = StreamOwned::new(session, outer);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        outer.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    outer.read_exact(&mut body)?;
    // A node would keep its connection open for a next request.
    head.truncate(head.len() - 2);
    head.extend(b"Connection: close\r\n\r\n");
    let mut inner = TcpStream::connect(behind)?;
    inner.write_all(&head)?;
    inner.write_all(&body)?;
    std::io::copy(&mut inner, &mut outer)?;
    outer.conn.send_close_notify();
    outer.flush()
}
