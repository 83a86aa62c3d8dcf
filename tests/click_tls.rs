//! Clicks over TLS: sessions, their resumption, and certificates that are replaced while connections go on.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use support::certificate::Authority;
use support::http::{Connection, Request};
use support::node::{Node, Setup};
use support::wait;

const CLICK: &str = "/sl?id=301&aff_id=67890";

const NAME: &str = "go.example.com";

struct TlsNode {
    node: Node,
    authority: Authority,
    tls: SocketAddr,
}

impl TlsNode {
    fn start(further: &[&str]) -> Self {
        let (setup, authority) = (Setup::demo(), Authority::new());
        write(setup.path(), &authority.certificate(NAME));
        let setup = setup
            .setting("edge.tls_listen = [\"127.0.0.1:0\"]")
            .setting("edge.tls_certificate_file = \"chain.pem\"")
            .setting("edge.tls_key_file = \"key.pem\"");
        let mut node = further.iter().fold(setup, |setup, setting| setup.setting(setting)).start_ready();
        let tls = node.wait_for_address("clicks on https://");
        Self { node, authority, tls }
    }

    fn closed(&self, reason: &str) -> u64 {
        let series = format!("smartlink_connections_closed_total{{reason=\"{reason}\"}}");
        self.node.metrics().value(&series)
    }
}

/// A client's connection over TLS.
struct Session(StreamOwned<ClientConnection, TcpStream>);

impl Session {
    fn to(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from(NAME).unwrap();
        let session = ClientConnection::new(Arc::clone(config), name).unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(wait::DEADLINE)).unwrap();
        Self(StreamOwned::new(session, stream))
    }

    /// Clicks, and answers the head of what comes.
    fn click(&mut self) -> String {
        self.0.write_all(&Request::click(CLICK).to_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        String::from_utf8(head).unwrap()
    }

    fn certificate(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

fn write(directory: &Path, (chain, key): &(String, String)) {
    // By rename, so that nobody reads half of one.
    for (name, text) in [("chain.pem", chain), ("key.pem", key)] {
        let fresh = directory.join(format!("{name}.fresh"));
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, directory.join(name)).unwrap();
    }
}

#[test]
fn clicks_are_answered_over_tls_and_sessions_are_resumed() {
    let TlsNode { node, authority, tls } = TlsNode::start(&["edge.threads = 2"]);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let client = authority.client(version);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let mut session = Session::to(tls, &client);
            for _ in 0..3 {
                let head = session.click();
                assert!(
                    head.starts_with("HTTP/1.1 302 ") && head.contains("\r\nlocation: https://"),
                    "{head}"
                );
            }
            assert_eq!(session.0.conn.handshake_kind(), Some(kind), "{version:?}");
            assert_eq!(session.0.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        }
    }
    // The plain listener is there as well, and links are shown with its address.
    assert_eq!(node.click(CLICK).status, 302);
    assert_eq!(node.metrics().clicks("offer"), 19);
}

#[test]
fn a_certificate_is_replaced_without_a_dropped_connection() {
    let edge = TlsNode::start(&[]);
    let client = edge.authority.client(&rustls::version::TLS13);
    let mut before = Session::to(edge.tls, &client);
    before.click();
    let directory = edge.node.directory();
    // The beginning of the year 4096, as of all certificates of these tests.
    let expires =
        || edge.node.metrics().value("smartlink_certificate_expires_timestamp_seconds{file=\"chain.pem\"}");
    wait::until_equal("the end of the certificate to be shown", 67090118400, expires);

    std::fs::write(directory.join("chain.pem"), "rubbish").unwrap();
    edge.node.wait_for_log(&["chain.pem holds no certificate", "the certificate in use stays"]);
    assert!(before.click().starts_with("HTTP/1.1 302 "));
    let mut meanwhile = Session::to(edge.tls, &edge.authority.client(&rustls::version::TLS13));
    meanwhile.click();
    assert_eq!(meanwhile.certificate(), before.certificate());

    assert_eq!(expires(), 67090118400, "the one in use stays");
    write(directory, &edge.authority.certificate_until(NAME, 2999));
    wait::until_equal("the end of the new one to be shown", 32472144000, expires);
    edge.node.wait_for_log(&["another certificate from chain.pem"]);
    assert!(before.click().starts_with("HTTP/1.1 302 "));
    let mut after = Session::to(edge.tls, &edge.authority.client(&rustls::version::TLS13));
    after.click();
    assert_ne!(after.certificate(), before.certificate());
    // Whoever has a ticket of before still resumes.
    let mut resumed = Session::to(edge.tls, &client);
    resumed.click();
    assert_eq!(resumed.0.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    let metrics = edge.node.metrics();
    assert!(metrics.value("smartlink_certificate_reloads_total{result=\"loaded\"}") >= 1);
    assert!(metrics.value("smartlink_certificate_reloads_total{result=\"failed\"}") >= 1);
}

#[test]
fn whoever_speaks_no_tls_is_closed_and_counted() {
    let edge = TlsNode::start(&["edge.header_read_timeout_seconds = 0.1"]);
    let mut plain = Connection::to(edge.tls);
    plain.send(Request::click(CLICK).to_bytes()).unwrap();
    wait::until_equal("the plain one to be closed", 1, || edge.closed("tls_handshake"));
    let mut silent = Connection::to(edge.tls);
    silent.assert_closes();
    wait::until_equal("the silent one to be closed", 1, || edge.closed("header_timeout"));
    // One that has shaken hands and then says nothing.
    let mut session = Session::to(edge.tls, &edge.authority.client(&rustls::version::TLS13));
    session.0.conn.complete_io(&mut session.0.sock).unwrap();
    wait::until_equal("the other silent one to be closed", 2, || edge.closed("header_timeout"));
}

#[test]
fn what_cannot_be_used_is_told_before_anything_is_served() {
    let authority = Authority::new();
    let (chain, key) = authority.certificate(NAME);
    let (_, other_key) = authority.certificate(NAME);
    for (chain, key, said) in [
        ("", key.as_str(), "chain.pem holds no certificate"),
        (&chain, "", "key.pem holds no private key"),
        (&chain, &other_key, "chain.pem and key.pem do not go together"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &(chain.to_owned(), key.to_owned()));
        let file = "[edge]\ntls_listen = [\"127.0.0.1:0\"]\ntls_certificate_file = \"chain.pem\"\n\
                    tls_key_file = \"key.pem\"\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n";
        std::fs::write(directory.path().join("mine.toml"), file).unwrap();
        for command in ["serve", "check"] {
            let told = std::process::Command::new(env!("CARGO_BIN_EXE_smartlink"))
                .args([command, "--config", "mine.toml"])
                .current_dir(directory.path())
                .env_clear()
                .output()
                .unwrap();
            let told_in =
                format!("{}{}", String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
            assert_eq!(told.status.code(), Some(2), "{command}: {told_in}");
            assert!(told_in.contains(said), "{command}: {told_in}");
        }
    }
}
