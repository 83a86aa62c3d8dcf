//! Listeners behind the PROXY protocol, over real sockets: the visitor is whom the header names, for the click log, for places, for
//! `X-Forwarded-For` and for the limit of an address; and nobody is served there without one.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use support::certificate::Authority;
use support::http::{Answer, Connection, NoAnswer, PHONE, Request};
use support::node::{Node, Setup};
use support::wait;

const CLICK: &str = "/sl?id=301&aff_id=67890";

const AMERICAN: &str = "192.0.2.1";
const BRITISH: &str = "198.51.100.7";
const BRITISH_6: &str = "2001:db8:9::1";

/// Where a British phone goes.
const MOBILE_OFFER: &str = "app.example.co.uk";

/// A node that takes clicks from proxies on this machine alone.
fn setup() -> Setup {
    Setup::demo()
        .setting("edge.proxy_protocol = [\"127.0.0.1:0\"]")
        .setting("edge.trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]")
}

fn v1(visitor: &str) -> Vec<u8> {
    let family = if visitor.contains(':') { "TCP6" } else { "TCP4" };
    format!("PROXY {family} {visitor} {visitor} 56324 443\r\n").into_bytes()
}

fn v2(visitor: &str) -> Vec<u8> {
    let (family, address) = match visitor.parse().unwrap() {
        IpAddr::V4(address) => (0x11, address.octets().to_vec()),
        IpAddr::V6(address) => (0x21, address.octets().to_vec()),
    };
    v2_of(0x21, family, &[&address[..], &address, b"\xdc\x04\x01\xbb"].concat())
}

fn v2_of(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

/// As a proxy asks for itself.
fn local() -> Vec<u8> {
    v2_of(0x20, 0, b"")
}

fn closed(node: &Node, reason: &str) -> u64 {
    node.metrics().value(&format!("smartlink_connections_closed_total{{reason=\"{reason}\"}}"))
}

fn named(nth: usize) -> Request {
    Request::click(&format!("{CLICK}&s1=nth{nth}"))
}

#[track_caller]
fn assert_answers(answer: &Answer, nth: usize) {
    assert!(answer.location().contains(&format!("?sub=nth{nth}&")), "{nth}: {answer:?}");
}

#[test]
fn the_visitor_is_whom_the_header_names() {
    let node = setup().start_ready();
    let [mut with_extensions, mut by_udp] = [v2(BRITISH), v2(BRITISH)];
    with_extensions[14..16].copy_from_slice(&(12u16 + 3000).to_be_bytes());
    with_extensions.extend([0xe0; 3000]);
    by_udp[13] = 0x12;
    let itself = "127.0.0.1";
    let cases = [
        (v1(AMERICAN), AMERICAN, "US"),
        (v1(BRITISH), BRITISH, "GB"),
        (v1(BRITISH_6), BRITISH_6, "GB"),
        (v1("::ffff:198.51.100.7"), BRITISH, "GB"),
        (v2(AMERICAN), AMERICAN, "US"),
        (v2(BRITISH), BRITISH, "GB"),
        (v2(BRITISH_6), BRITISH_6, "GB"),
        (with_extensions, BRITISH, "GB"),
        (by_udp, BRITISH, "GB"),
        (b"PROXY UNKNOWN\r\n".to_vec(), itself, ""),
        (format!("PROXY UNKNOWN {BRITISH} {BRITISH} 1 2\r\n").into_bytes(), itself, ""),
        (local(), itself, ""),
        (v2_of(0x20, 0x11, &v2(BRITISH)[16..]), itself, ""),
        (v2_of(0x21, 0x31, &[b'/'; 216]), itself, ""),
    ];
    for (nth, (header, ..)) in cases.iter().enumerate() {
        let mut connection = Connection::to(node.clicks);
        // In one packet, as far as it fits into one; and there is one header for all of a connection, by hyper as well.
        let first = named(nth).to_bytes();
        assert_answers(&connection.ask_raw([&header[..], &first].concat()), nth);
        assert_answers(&connection.ask(&named(nth)), nth);
        assert_answers(&connection.ask(&named(nth).with("Content-Length", "0")), nth);
    }
    let log = node.click_log();
    for (nth, (header, address, country)) in cases.iter().enumerate() {
        let clicks = log.iter().filter(|line| line["s1"] == format!("nth{nth}"));
        let seen: Vec<_> =
            clicks.map(|line| (line["ip"].as_str(), line["country"].as_str().unwrap_or(""))).collect();
        assert_eq!(seen, [(Some(*address), *country); 3], "{}", header.escape_ascii());
    }
    assert_eq!(node.metrics().value("smartlink_geo_lookups_total{result=\"found\"}"), 9 * 3);
}

#[test]
fn the_place_that_decides_is_the_visitors() {
    let node = setup().start_ready();
    for (header, british) in
        [(v1(BRITISH), true), (v1(AMERICAN), false), (v2(BRITISH_6), true), (local(), false)]
    {
        let mut connection = Connection::to(node.clicks);
        let request = Request::click(CLICK).with("User-Agent", PHONE).to_bytes();
        let answer = connection.ask_raw([&header[..], &request].concat());
        assert_eq!(answer.destination() == MOBILE_OFFER, british, "{answer:?}");
    }
}

/// A further proxy may stand in front of the one that connects: it is believed if it is trusted itself.
#[test]
fn forwarded_addresses_are_believed_of_whom_the_header_names() {
    let node = setup().start_ready();
    for (header, british) in
        [(v1(AMERICAN), false), (v2(AMERICAN), false), (v1("10.1.2.3"), true), (local(), true)]
    {
        let mut connection = Connection::to(node.clicks);
        let request = Request::click(CLICK).with("User-Agent", PHONE).with("X-Forwarded-For", BRITISH);
        let answer = connection.ask_raw([&header[..], &request.to_bytes()].concat());
        assert_eq!(answer.destination() == MOBILE_OFFER, british, "{}", header.escape_ascii());
    }
}

#[test]
fn a_header_may_be_cut_anywhere_and_nothing_behind_it_is_lost() {
    let node = setup().start_ready();
    for header in [v1(AMERICAN), v2(AMERICAN), local()] {
        let all = [&header[..], &named(0).to_bytes(), &named(1).to_bytes()].concat();
        for cut in 1..header.len() + 20 {
            let mut connection = Connection::to(node.clicks);
            connection.send(&all[..cut]).unwrap();
            connection.send(&all[cut..]).unwrap();
            for nth in 0..2 {
                assert_answers(&connection.read().unwrap(), nth);
            }
        }
        let mut connection = Connection::to(node.clicks);
        for byte in &all {
            connection.send([*byte]).unwrap();
        }
        for nth in 0..2 {
            assert_answers(&connection.read().unwrap(), nth);
        }
    }
    assert_eq!(closed(&node, "proxy_header"), 0);
}

#[test]
fn requests_that_come_with_the_header_are_answered_in_their_order() {
    let node = setup().start_ready();
    for header in [v1(AMERICAN), v2(BRITISH_6)] {
        let mut bytes = header;
        for nth in 0..200 {
            // The last ones are hyper's.
            let request = named(nth);
            let request = if nth == 150 { request.with("Content-Length", "0") } else { request };
            bytes.extend(request.to_bytes());
        }
        let mut connection = Connection::to(node.clicks);
        connection.send(&bytes).unwrap();
        for nth in 0..200 {
            assert_answers(&connection.read().unwrap(), nth);
        }
    }
}

#[test]
fn a_peer_that_is_no_trusted_proxy_is_closed_without_a_word() {
    let node = setup().setting("edge.trusted_proxies = [\"10.0.0.0/8\"]").start_ready();
    let click = Request::click(CLICK).to_bytes();
    for bytes in [b"".to_vec(), click.clone(), [v1("10.1.2.3"), click.clone()].concat(), local()] {
        let mut connection = Connection::to(node.clicks);
        // It may be closed already.
        let _ = connection.send(bytes);
        connection.assert_closes();
    }
    wait::until_equal("the reason", 4, || closed(&node, "proxy_untrusted"));
    assert_eq!(node.metrics().sum("smartlink_clicks_total"), 0);
}

#[test]
fn whoever_sends_no_header_or_a_bad_one_is_closed_without_a_word() {
    let node = setup().start_ready();
    let click = Request::click(CLICK).to_bytes();
    let mut too_long = v2_of(0x21, 0x11, &[0; 5000]);
    too_long.extend(&click);
    let cases = [
        click.clone(),
        b"\x16\x03\x01\x02\0".to_vec(),
        b"\n".to_vec(),
        [b"proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n", &click[..]].concat(),
        [b"PROXY TCP4 192.0.2.01 198.51.100.1 1 2\r\n", &click[..]].concat(),
        [b"PROXY TCP4 192.0.2.1 198.51.100.1 1 02\r\n", &click[..]].concat(),
        [b"PROXY TCP4 192.0.2.1  198.51.100.1 1 2\r\n", &click[..]].concat(),
        [b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n", &click[..]].concat(),
        [b"PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n", &click[..]].concat(),
        format!("PROXY UNKNOWN {}", "x".repeat(200)).into_bytes(),
        [v2_of(0x11, 0x11, &[0; 12]), click.clone()].concat(),
        [v2_of(0x21, 0x11, &[0; 11]), click.clone()].concat(),
        too_long,
    ];
    let count = cases.len() as u64;
    for (nth, bytes) in cases.into_iter().enumerate() {
        let mut connection = Connection::to(node.clicks);
        connection.send(&bytes).unwrap();
        connection.assert_closes();
        wait::until_equal("the reason", nth as u64 + 1, || closed(&node, "proxy_header"));
    }
    // What ends before the header does; and who has only looked whether somebody listens.
    for header in [&v1(AMERICAN)[..20], &v2(AMERICAN)[..20]] {
        let mut connection = Connection::to(node.clicks);
        connection.send_last(header).unwrap();
        connection.assert_closes();
    }
    wait::until_equal("the reason", count + 2, || closed(&node, "proxy_header"));
    let done = closed(&node, "done");
    Connection::to(node.clicks).send_last(b"").unwrap();
    wait::until_equal("it to be done", done + 1, || closed(&node, "done"));
    assert_eq!(node.metrics().sum("smartlink_clicks_total"), 0);
}

/// There is one header: what looks like a second one is a request, and none that can be read.
#[test]
fn a_second_header_is_a_bad_request() {
    let node = setup().start_ready();
    let bytes = [v1(AMERICAN), v1(BRITISH), Request::click(CLICK).to_bytes()].concat();
    assert_eq!(Connection::to(node.clicks).ask_raw(bytes).status, 400);
}

#[test]
fn a_header_has_the_deadline_of_a_head() {
    let node = setup().setting("edge.header_read_timeout_seconds = 0.2").start_ready();
    for begun in [&b""[..], b"P", &v1(AMERICAN)[..20], &v2(AMERICAN)[..20], &v1(AMERICAN), &local()] {
        let mut connection = Connection::to(node.clicks);
        connection.send(begun).unwrap();
        connection.assert_closes();
    }
    wait::until_equal("the reason", 6, || closed(&node, "header_timeout"));
    // Nor is it put off by bytes that keep coming.
    let mut connection = TcpStream::connect(node.clicks).unwrap();
    connection.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    let header = format!("PROXY UNKNOWN {}", "x".repeat(90));
    let mut bytes = header.bytes();
    wait::until("it to be closed", || {
        if let Some(byte) = bytes.next()
            && connection.write_all(&[byte]).is_err()
        {
            return Some(());
        }
        match connection.read(&mut [0]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Ok(0) | Err(_) => Some(()),
            Ok(_) => panic!("it was answered"),
        }
    });
    assert!(bytes.len() > 0, "the header was longer than the deadline");
    wait::until_equal("the reason", 7, || closed(&node, "header_timeout"));
}

#[test]
fn the_limit_of_an_address_is_the_visitors() {
    let node = setup().setting("edge.connections_per_address_max = 2").start_ready();
    let open = |header: Vec<u8>| {
        let mut connection = Connection::to(node.clicks);
        connection.send([&header[..], &Request::click(CLICK).to_bytes()].concat()).unwrap();
        let answer = connection.read().unwrap();
        (connection, answer)
    };
    let mut kept = Vec::new();
    for (header, status) in [
        (v1(AMERICAN), 302),
        (v2(AMERICAN), 302),
        (v1(AMERICAN), 429),
        (v2(AMERICAN), 429),
        (v1(BRITISH), 302),
        // A /64 is one visitor.
        (v1(BRITISH_6), 302),
        (v2("2001:db8:9::2"), 302),
        (v2("2001:db8:9::3"), 429),
        // The proxy itself has no limit, and neither have those behind it.
        (local(), 302),
        (local(), 302),
        (local(), 302),
        (v1("10.1.2.3"), 302),
        (v1("10.1.2.3"), 302),
        (v1("10.1.2.3"), 302),
    ] {
        let (mut connection, answer) = open(header.clone());
        assert_eq!(answer.status, status, "{}: {answer:?}", header.escape_ascii());
        if status == 302 {
            kept.push(connection);
        } else {
            assert_eq!(answer.body, "Your address has too many connections; close some of them.\n");
            assert!(answer.is_last());
            connection.assert_closes();
        }
    }
    wait::until_equal("the reason", 3, || closed(&node, "address_limit"));
    let done = closed(&node, "done");
    drop(kept.remove(0));
    wait::until_equal("a connection to be given back", done + 1, || closed(&node, "done"));
    assert_eq!(open(v1(AMERICAN)).1.status, 302);
}

/// Also those that have not yet said whose they are.
#[test]
fn all_count_among_all() {
    let node = setup().setting("edge.connections_max = 8").flag("--threads").flag("1").start_ready();
    let mut open: Vec<Connection> = (0..8).map(|_| Connection::to(node.clicks)).collect();
    wait::until_equal("the connections", 8, || node.metrics().value("smartlink_connections_active"));
    let mut late = Connection::to(node.clicks);
    late.send([v1(AMERICAN), Request::click(CLICK).to_bytes()].concat()).unwrap();
    let paused = "smartlink_accept_pauses_total";
    wait::until(paused, || (node.metrics().value(paused) > 0).then_some(()));
    assert_eq!(node.metrics().clicks("offer"), 0);
    open.pop();
    assert_eq!(late.read().unwrap().status, 302);
}

#[test]
fn other_listeners_take_no_header() {
    let node = setup()
        .flag("--listen")
        .flag("0.0.0.0:0")
        .setting("edge.proxy_protocol = [\"0.0.0.0:0\"]")
        .start_ready();
    assert_eq!(node.click(CLICK).status, 302);
    let with_header = [v1(BRITISH), Request::click(CLICK).to_bytes()].concat();
    assert_eq!(Connection::to(node.clicks).ask_raw(&with_header).status, 400);
    let with_header_2 = [v2(BRITISH), Request::click(CLICK).to_bytes()].concat();
    assert_eq!(Connection::to(node.clicks).ask_raw(with_header_2).status, 400);
    let marked = marked(&node, "http");
    assert_eq!(Connection::to(marked).ask_raw(&with_header).status, 302);
    let mut without = Connection::to(marked);
    without.send(Request::click(CLICK).to_bytes()).unwrap();
    assert_eq!(without.read().map(|_| ()), Err(NoAnswer::BeforeFirstByte));
    wait::until_equal("the reason", 1, || closed(&node, "proxy_header"));
}

/// Where the node says that it listens behind the protocol, as this machine reaches it.
#[track_caller]
fn marked(node: &Node, scheme: &str) -> SocketAddr {
    let log = node.log();
    let line = log.lines().find(|line| line.ends_with("/sl, behind the PROXY protocol")).expect(&log);
    let (_, address) = line.split_once(&format!("clicks on {scheme}://")).expect(line);
    let address: SocketAddr = address.split('/').next().unwrap().parse().unwrap();
    (Ipv4Addr::LOCALHOST, address.port()).into()
}

#[test]
fn a_connection_without_a_header_does_not_hold_up_the_end() {
    let mut node = setup()
        .setting("edge.goodbye_seconds = 0.0")
        .setting("edge.drain_timeout_seconds = 10.0")
        .setting("edge.header_read_timeout_seconds = 3600.0")
        .start_ready();
    let mut silent = Connection::to(node.clicks);
    wait::until_equal("the connection", 1, || node.metrics().value("smartlink_connections_active"));
    node.signal("TERM");
    silent.assert_closes();
    assert_eq!(node.wait_for_exit().code(), Some(0));
    node.wait_for_log(&["drained", "every answer"]);
}

const NAME: &str = "go.example.com";

#[test]
fn a_session_of_tls_begins_behind_the_header() {
    let (setup, authority) = (setup(), Authority::new());
    let (chain, key) = authority.certificate(NAME);
    let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
    write(&setup.path().join("chain.pem"), &chain);
    write(&setup.path().join("key.pem"), &key);
    let node = setup
        .setting("edge.tls_listen = [\"0.0.0.0:0\"]")
        .setting("edge.tls_certificate_file = \"chain.pem\"")
        .setting("edge.tls_key_file = \"key.pem\"")
        .setting("edge.proxy_protocol = [\"0.0.0.0:0\"]")
        .setting("edge.connections_per_address_max = 6")
        .start_ready();
    let address = marked(&node, "https");
    let mut kept = Vec::new();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let client = authority.client(version);
        for (nth, header) in [v1(BRITISH), v2(BRITISH), v2(BRITISH)].into_iter().enumerate() {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(wait::DEADLINE)).unwrap();
            let name = ServerName::try_from(NAME).unwrap();
            let mut session = ClientConnection::new(client.clone(), name).unwrap();
            let mut bytes = header;
            if nth > 0 {
                // The handshake in the same packet as the header.
                session.write_tls(&mut bytes).unwrap();
            }
            stream.write_all(&bytes).unwrap();
            let mut session = StreamOwned::new(session, stream);
            let request = named(nth).with("User-Agent", PHONE).with("Connection", "keep-alive");
            session.write_all(&request.to_bytes()).unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                session.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            let (answer, _) = Answer::parse(&head, false).unwrap();
            assert_eq!(answer.destination(), MOBILE_OFFER, "{answer:?}");
            kept.push(session);
        }
    }
    // Nobody would hear an answer in the middle of a handshake.
    let mut one_more = Connection::to(address);
    one_more.send(v1(BRITISH)).unwrap();
    one_more.assert_closes();
    wait::until_equal("the reason", 1, || closed(&node, "address_limit"));
    let client = authority.client(&rustls::version::TLS13);
    let mut session = ClientConnection::new(client, ServerName::try_from(NAME).unwrap()).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    let mut without = Connection::to(address);
    without.send(&hello).unwrap();
    without.assert_closes();
    wait::until_equal("the reason", 1, || closed(&node, "proxy_header"));
    let mut no_tls = Connection::to(address);
    no_tls.send([v1(AMERICAN), Request::click(CLICK).to_bytes()].concat()).unwrap();
    wait::until_equal("the reason", 1, || closed(&node, "tls_handshake"));
}
