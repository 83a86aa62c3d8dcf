//! The PROXY protocol, versions 1 and 2: in front of all else, a proxy says in whose name it connects
//! (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>).
//!
//! This promises:
//! - Not a byte after the header is read: what follows is the beginning of a request, or of a TLS session. Bytes are looked at
//!   where the system keeps them, and only those that have turned out to be the header's are taken.
//! - What the specification calls for is asked for to the letter. What two readers could understand in two ways is refused.
//! - A header is bounded, by [`HEADER_BYTES_MAX`]. One that is cut short is unfinished, and never misread.
//!
//! What it does not do, deliberately: it believes nobody, and does not ask whether the peer may speak for others, which is known
//! before the first byte is read. It skips the extensions of version 2 (TLV), their checksum as well: TCP has one of its own, and no
//! decision depends on them.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::connection::Phase;
use super::deadlines::Watched;
use super::thread::SharedPhase;
use crate::state::CloseReason;

/// What the beginning of a connection comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// All of it is the header's, and it is not all of the header.
    Unfinished,
    Whole {
        /// In whose name the proxy connects. `None` if it does so in its own, or does not know.
        source: Option<IpAddr>,
        /// How many of the bytes are the header.
        bytes: usize,
    },
    /// It is no header, and why.
    Refused(&'static str),
}

/// Reads the header, within the deadline of a head: in whose name the connection is, if in another one than the peer's. To be
/// awaited by the connection's task.
pub(super) async fn read_source(
    stream: &TcpStream,
    watched: &Watched,
    phase: &SharedPhase,
) -> Result<Option<IpAddr>, CloseReason> {
    let mut begun = Vec::new();
    poll_fn(|context| {
        watched.is_polled_by(context);
        let read = go_on(stream, &mut begun, context);
        if read.is_ready() {
            return read;
        }
        match (watched.is_overdue(), phase.get()) {
            (Some(reason), _) => Poll::Ready(Err(reason)),
            // One that was opened in advance. What was accepted a moment ago has its header on its way.
            (None, Phase::Finishing) if begun.is_empty() && watched.is_unused() => {
                Poll::Ready(Err(CloseReason::Done))
            }
            (None, Phase::Closing) => Poll::Ready(Err(CloseReason::DrainDeadline)),
            _ => Poll::Pending,
        }
    })
    .await
}

/// Goes on until it has to wait. `begun` is what has been taken of the header.
fn go_on(
    stream: &TcpStream,
    begun: &mut Vec<u8>,
    context: &mut Context<'_>,
) -> Poll<Result<Option<IpAddr>, CloseReason>> {
    loop {
        let mut space = [0; LOOKED_AT_ONCE];
        let mut seen = ReadBuf::new(&mut space);
        if ready!(stream.poll_peek(context, &mut seen)).is_err() {
            return Poll::Ready(Err(CloseReason::Broken));
        }
        if seen.filled().is_empty() {
            // Who only looks whether somebody listens has said nothing.
            let reason = if begun.is_empty() { CloseReason::Done } else { CloseReason::ProxyHeader };
            return Poll::Ready(Err(reason));
        }
        let before = begun.len();
        begun.extend_from_slice(seen.filled());
        let (bytes, header) = match parse_proxy_header(begun) {
            ProxyHeader::Unfinished => (begun.len(), None),
            ProxyHeader::Whole { source, bytes } => (bytes, Some(source)),
            ProxyHeader::Refused(why) => {
                tracing::debug!(why, "a connection of a trusted proxy has no PROXY header");
                return Poll::Ready(Err(CloseReason::ProxyHeader));
            }
        };
        // Taken at every turn, unfinished or not: as long as something is left to look at, nothing would tell of more.
        let of_header = bytes - before;
        let taken = match stream.try_read(&mut space[..of_header]) {
            Ok(taken) => taken,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(_) => return Poll::Ready(Err(CloseReason::Broken)),
        };
        begun.truncate(before + taken);
        if let Some(source) = header
            && taken == of_header
        {
            return Poll::Ready(Ok(source));
        }
    }
}

/// Reads the header that these bytes begin with.
pub fn parse_proxy_header(bytes: &[u8]) -> ProxyHeader {
    if begins_with(bytes, V2_SIGNATURE) {
        parse_v2(bytes)
    } else if begins_with(bytes, V1_WORD) {
        parse_v1(bytes)
    } else {
        ProxyHeader::Refused("it begins with something else")
    }
}

/// Whether they do, as far as they go.
fn begins_with(bytes: &[u8], beginning: &[u8]) -> bool {
    let common = bytes.len().min(beginning.len());
    bytes[..common] == beginning[..common]
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`: a line.
fn parse_v1(bytes: &[u8]) -> ProxyHeader {
    let text = bytes.iter().take_while(|byte| matches!(byte, b' '..=b'~')).count();
    if text + 2 > V1_BYTES_MAX {
        return ProxyHeader::Refused("the line is too long");
    }
    match &bytes[text..] {
        [] | [b'\r'] => return ProxyHeader::Unfinished,
        [b'\r', b'\n', ..] => {}
        _ => return ProxyHeader::Refused("the line has a byte that is no visible ASCII"),
    }
    let line = std::str::from_utf8(&bytes[..text]).expect("visible ASCII");
    match source_of_line(line) {
        Ok(source) => ProxyHeader::Whole { source, bytes: text + 2 },
        Err(why) => ProxyHeader::Refused(why),
    }
}

fn source_of_line(line: &str) -> Result<Option<IpAddr>, &'static str> {
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        // Whatever follows it is to be ignored.
        return Ok(None);
    }
    let (Some(family), Some(source), Some(destination), Some(source_port), Some(port), None) =
        (family, words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err("the line has not six words with one space between them");
    };
    let source = match family {
        "TCP4" => addresses::<Ipv4Addr>(source, destination).map(IpAddr::V4),
        "TCP6" => addresses::<Ipv6Addr>(source, destination).map(IpAddr::V6),
        _ => return Err("the line is neither TCP4, TCP6 nor UNKNOWN"),
    };
    if !is_port(source_port) || !is_port(port) {
        return Err("a port is no number from 0 to 65535");
    }
    source.map(Some).ok_or("an address is none of its family")
}

/// The first, if both are. std refuses leading zeros, which some take for octal, and zones.
fn addresses<T: FromStr>(source: &str, destination: &str) -> Option<T> {
    destination.parse::<T>().ok()?;
    source.parse().ok()
}

/// Digits alone, without leading zeros; std would also take a sign.
fn is_port(word: &str) -> bool {
    let is_canonical = word == "0" || !word.starts_with(['0', '+']);
    is_canonical && word.parse::<u16>().is_ok()
}

/// Of version 2: the signature, version and command, family and transport, and how many bytes follow, which begin with the addresses.
fn parse_v2(bytes: &[u8]) -> ProxyHeader {
    let Some((&[.., command, family, high, low], rest)) = bytes.split_first_chunk::<V2_FIXED_BYTES>() else {
        return ProxyHeader::Unfinished;
    };
    let rest_bytes = usize::from(u16::from_be_bytes([high, low]));
    // How much of the rest is addresses, and how much of them the source's. In its own name, it may have any family.
    let (addresses, of_source) = match (command, family) {
        (V2_LOCAL, _) | (V2_PROXY, 0x00) => (0, 0),
        // What came by UDP, as HTTP/3 does, came from an address as well.
        (V2_PROXY, 0x11 | 0x12) => (12, 4),
        (V2_PROXY, 0x21 | 0x22) => (36, 16),
        // Paths of UNIX sockets are the proxy's own machine.
        (V2_PROXY, 0x31 | 0x32) => (216, 0),
        (V2_PROXY, _) => return ProxyHeader::Refused("it is of a family or transport that does not exist"),
        _ => return ProxyHeader::Refused("it is of a version or command that does not exist"),
    };
    if rest_bytes < addresses {
        return ProxyHeader::Refused("it is too short for its addresses");
    }
    let all = V2_FIXED_BYTES + rest_bytes;
    if all > HEADER_BYTES_MAX {
        return ProxyHeader::Refused("it is too long");
    }
    let Some(rest) = rest.get(..rest_bytes) else { return ProxyHeader::Unfinished };
    let source = &rest[..of_source];
    let source = <[u8; 4]>::try_from(source)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(source).map(IpAddr::from))
        .ok();
    ProxyHeader::Whole { source, bytes: all }
}

const V1_WORD: &[u8] = b"PROXY ";

/// With its end of line: two addresses of 39 bytes and two ports of 5.
const V1_BYTES_MAX: usize = 107;

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

const V2_FIXED_BYTES: usize = 16;

/// The proxy asks for itself, as for its health checks.
const V2_LOCAL: u8 = 0x20;

const V2_PROXY: u8 = 0x21;

/// What other servers take as well: enough for extensions, with a client's certificate among them.
const HEADER_BYTES_MAX: usize = 4096;

/// Nearly always the whole header, and the request behind it.
const LOOKED_AT_ONCE: usize = 512;

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::SocketAddr;

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};
    use tokio::net::TcpListener;

    use super::*;

    const VISITOR: &str = "192.0.2.1";
    const VISITOR_6: &str = "2001:db8::1";

    /// What has been looked at is taken at once: nothing would wake a connection for bytes that it has seen already. What
    /// follows is left where it is.
    #[test]
    fn each_piece_is_taken_as_it_comes_and_nothing_behind_the_header() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let [source, destination] = sockets(VISITOR);
            for header in [v1(source, destination), v2_of(1, source, destination, &[7; 1000])] {
                for piece_bytes in [1, 7, 500, 700] {
                    let mut proxy = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                    proxy.set_nodelay(true).unwrap();
                    let (stream, _) = listener.accept().await.unwrap();
                    let (mut begun, mut sent) = (Vec::new(), 0);
                    for piece in header[..header.len() - 1].chunks(piece_bytes) {
                        proxy.write_all(piece).unwrap();
                        sent += piece.len();
                        poll_fn(|context| {
                            assert!(go_on(&stream, &mut begun, context).is_pending());
                            if begun.len() == sent { Poll::Ready(()) } else { Poll::Pending }
                        })
                        .await;
                        assert_eq!(begun, header[..sent]);
                        let left = stream.try_read(&mut [0; 1]).map_err(|error| error.kind());
                        assert_eq!(left, Err(ErrorKind::WouldBlock));
                    }
                    proxy.write_all(&[&header[sent..], b"GET / HTTP/1.1"].concat()).unwrap();
                    let read = poll_fn(|context| go_on(&stream, &mut begun, context)).await;
                    assert_eq!(read, Ok(Some(source.ip())));
                    let mut rest = [0; 14];
                    let mut stream = stream.into_std().unwrap();
                    stream.set_nonblocking(false).unwrap();
                    stream.read_exact(&mut rest).unwrap();
                    assert_eq!(&rest, b"GET / HTTP/1.1");
                }
            }
        });
    }

    /// `TCP4`, `TCP6`: as a proxy writes it.
    fn v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (source_port, port) = (source.port(), destination.port());
        format!("PROXY {family} {} {} {source_port} {port}\r\n", source.ip(), destination.ip()).into_bytes()
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, rest].concat()
    }

    fn octets(address: IpAddr) -> Vec<u8> {
        match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }

    fn v2_of(transport: u8, source: SocketAddr, destination: SocketAddr, extensions: &[u8]) -> Vec<u8> {
        let family = if source.is_ipv4() { 0x10 } else { 0x20 };
        let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
        let rest = [&octets(source.ip()), &octets(destination.ip()), &ports, extensions].concat();
        v2(V2_PROXY, family | transport, &rest)
    }

    fn sockets(source: &str) -> [SocketAddr; 2] {
        [SocketAddr::new(source.parse().unwrap(), 56324), SocketAddr::new(source.parse().unwrap(), 443)]
    }

    #[track_caller]
    fn assert_is_read(header: &[u8], source: Option<IpAddr>) {
        let bytes = header.len();
        for cut in 0..bytes {
            assert_eq!(parse_proxy_header(&header[..cut]), ProxyHeader::Unfinished, "{cut} of {header:?}");
        }
        for following in [&b""[..], b"\r", b"\n", b"GET / HTTP/1.1\r\n\r\n", V2_SIGNATURE, b"\x16\x03\x01"] {
            let all = [header, following].concat();
            assert_eq!(parse_proxy_header(&all), ProxyHeader::Whole { source, bytes }, "{header:?}");
        }
    }

    #[test]
    fn the_visitor_is_who_the_header_says() {
        for visitor in [VISITOR, VISITOR_6, "0.0.0.0", "255.255.255.255", "::", "::ffff:192.0.2.1"] {
            let [source, destination] = sockets(visitor);
            let visitor = Some(source.ip());
            assert_is_read(&v1(source, destination), visitor);
            for extensions in [&b""[..], b"\x04\0\x01\0", b"\xff", &[0; 3000]] {
                assert_is_read(&v2_of(1, source, destination, extensions), visitor);
                assert_is_read(&v2_of(2, source, destination, extensions), visitor);
            }
        }
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.1 0 0\r\n",
            "PROXY TCP6 2001:DB8::1 2001:db8:0:0:0:0:0:0001 65535 10\r\n",
            "PROXY TCP6 2001:0db8:0000:0000:0000:0000:0000:0001 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        ] {
            let visitor = if line.contains("TCP4") { VISITOR } else { VISITOR_6 };
            assert_is_read(line.as_bytes(), Some(visitor.parse().unwrap()));
            assert!(line.len() <= V1_BYTES_MAX);
        }
    }

    #[test]
    fn nobody_else_is_named_by_a_proxy_that_does_not_know_or_asks_for_itself() {
        for rest in
            ["", " ", " 192.0.2.1", "  TCP4 192.0.2.1 198.51.100.1 1 2", &" ".repeat(V1_BYTES_MAX - 15)]
        {
            assert_is_read(format!("PROXY UNKNOWN{rest}\r\n").as_bytes(), None);
        }
        for (command, family, rest) in [
            (V2_LOCAL, 0x00, 0),
            (V2_LOCAL, 0x11, 12),
            // To be discarded, whatever it is.
            (V2_LOCAL, 0x11, 3),
            (V2_LOCAL, 0xff, 4080),
            (V2_PROXY, 0x00, 0),
            (V2_PROXY, 0x00, 40),
            (V2_PROXY, 0x31, 216),
            (V2_PROXY, 0x32, 300),
        ] {
            assert_is_read(&v2(command, family, &vec![1; rest]), None);
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let good = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
        assert_is_read(good.as_bytes(), Some(VISITOR.parse().unwrap()));
        for (of_good, other, why) in [
            ("PROXY", "proxy", "something else"),
            ("PROXY", " PROXY", "something else"),
            ("PROXY ", "PROXY\t", "something else"),
            ("PROXY ", "PROXY  ", "six words"),
            ("PROXY TCP4", "PROXY", "six words"),
            (" TCP4", "", "six words"),
            ("192.0.2.1 ", "192.0.2.1  ", "six words"),
            ("192.0.2.1 ", "192.0.2.1\t", "visible"),
            (" 443", "", "six words"),
            ("443\r", "443 \r", "six words"),
            ("443\r", "443 1\r", "six words"),
            ("TCP4", "tcp4", "neither"),
            ("TCP4", "UDP4", "neither"),
            ("TCP4", "TCP5", "neither"),
            ("TCP4", "unknown", "neither"),
            ("TCP4", "UNKNOWN4", "neither"),
            ("TCP4", "TCP6", "address"),
            ("192.0.2.1", "2001:db8::1", "address"),
            ("198.51.100.1", "2001:db8::1", "address"),
            ("192.0.2.1", "192.0.2.01", "address"),
            ("192.0.2.1", "0192.0.2.1", "address"),
            ("192.0.2.1", "192.0.2", "address"),
            ("192.0.2.1", "192.0.2.1.1", "address"),
            ("192.0.2.1", "192.0.2.256", "address"),
            ("192.0.2.1", "0xc0000201", "address"),
            ("192.0.2.1", "192.0.2.1:80", "address"),
            ("198.51.100.1", "198.51.100.001", "address"),
            ("198.51.100.1", "localhost", "address"),
            ("TCP4 192.0.2.1 198.51.100.1", "TCP6 192.0.2.1 2001:db8::1", "address"),
            ("TCP4 192.0.2.1 198.51.100.1", "TCP6 2001:db8::1 192.0.2.1", "address"),
            ("TCP4 192.0.2.1 198.51.100.1", "TCP6 fe80::1%1 2001:db8::1", "address"),
            ("TCP4 192.0.2.1 198.51.100.1", "TCP6 [2001:db8::1] 2001:db8::1", "address"),
            ("TCP4 192.0.2.1 198.51.100.1", "TCP6 2001::db8::1 2001:db8::1", "address"),
            ("56324", "056324", "port"),
            ("56324", "+56324", "port"),
            ("56324", "-1", "port"),
            ("56324", "65536", "port"),
            ("56324", "0x10", "port"),
            ("443", "00", "port"),
            ("443", "+0", "port"),
            ("443", "", "port"),
            ("443", "99999999999999999999", "port"),
            ("\r\n", "\n", "visible"),
            ("\r\n", "\rGET", "visible"),
            ("\r\n", "\r\r\n", "visible"),
            ("192.0.2.1", "192.0.2.1\0", "visible"),
            ("192.0.2.1", "192.0.2.\u{661}", "visible"),
            ("TCP4", "UNKNOWN \n", "visible"),
            ("443", &"4".repeat(V1_BYTES_MAX), "too long"),
            ("TCP4", &format!("UNKNOWN {}", " ".repeat(V1_BYTES_MAX)), "too long"),
        ] {
            assert!(good.contains(of_good), "{of_good:?}");
            let line = good.replacen(of_good, other, 1);
            match parse_proxy_header(line.as_bytes()) {
                ProxyHeader::Refused(said) => assert!(said.contains(why), "{line:?} is refused: {said}"),
                other => panic!("{line:?} is {other:?}"),
            }
        }
    }

    /// So that a proxy that never ends one is closed when that is known, and not by a deadline.
    #[test]
    fn a_line_that_is_too_long_is_refused_before_its_end() {
        let line = format!("PROXY UNKNOWN {}", "x".repeat(100));
        assert_eq!(parse_proxy_header(&line.as_bytes()[..V1_BYTES_MAX - 2]), ProxyHeader::Unfinished);
        assert!(matches!(parse_proxy_header(&line.as_bytes()[..V1_BYTES_MAX - 1]), ProxyHeader::Refused(_)));
    }

    #[test]
    fn what_version_2_does_not_know_is_refused() {
        for (command, family, rest, why) in [
            (0x11, 0x11, 12, "version"),
            (0x31, 0x11, 12, "version"),
            (0x01, 0x11, 12, "version"),
            (0x22, 0x11, 12, "command"),
            (0x2f, 0x11, 12, "command"),
            (V2_PROXY, 0x01, 12, "family"),
            (V2_PROXY, 0x10, 12, "family"),
            (V2_PROXY, 0x13, 12, "family"),
            (V2_PROXY, 0x30, 216, "family"),
            (V2_PROXY, 0x41, 216, "family"),
            (V2_PROXY, 0xff, 216, "family"),
            (V2_PROXY, 0x11, 0, "too short"),
            (V2_PROXY, 0x11, 11, "too short"),
            (V2_PROXY, 0x21, 35, "too short"),
            (V2_PROXY, 0x31, 215, "too short"),
            (V2_PROXY, 0x11, HEADER_BYTES_MAX - V2_FIXED_BYTES + 1, "too long"),
            (V2_LOCAL, 0x00, usize::from(u16::MAX), "too long"),
        ] {
            let header = v2(command, family, &vec![0; rest]);
            // What comes after the length need not be there.
            for bytes in [&header[..V2_FIXED_BYTES], &header] {
                match parse_proxy_header(bytes) {
                    ProxyHeader::Refused(said) => assert!(said.contains(why), "{bytes:?} is refused: {said}"),
                    other => panic!("{bytes:?} is {other:?}"),
                }
            }
        }
        for at in 0..V2_SIGNATURE.len() {
            let mut header = v2(V2_LOCAL, 0, &[]);
            header[at] ^= 1;
            assert!(matches!(parse_proxy_header(&header), ProxyHeader::Refused(_)), "{at}");
        }
    }

    #[test]
    fn a_request_or_a_handshake_is_no_header() {
        for bytes in
            [&b"G"[..], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\r\nGET", b"\n", b"POST / HTTP/1.1"]
        {
            assert!(matches!(parse_proxy_header(bytes), ProxyHeader::Refused(_)), "{bytes:?}");
        }
    }

    fn header() -> impl Strategy<Value = (Vec<u8>, Option<IpAddr>)> {
        let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| [IpAddr::from(a), IpAddr::from(b)]);
        let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| [IpAddr::from(a), IpAddr::from(b)]);
        let version = option::of((1u8..=2, vec(any::<u8>(), 0..600)));
        let named = (prop_oneof![v4, v6], any::<(u16, u16)>(), version).prop_map(|(of, ports, version)| {
            let [source, destination] = [SocketAddr::new(of[0], ports.0), SocketAddr::new(of[1], ports.1)];
            let bytes = match version {
                None => v1(source, destination),
                Some((transport, extensions)) => v2_of(transport, source, destination, &extensions),
            };
            (bytes, Some(source.ip()))
        });
        let local =
            (any::<u8>(), vec(any::<u8>(), 0..600)).prop_map(|(of, rest)| (v2(V2_LOCAL, of, &rest), None));
        let unknown = "[ -~]{0,91}".prop_map(|rest| (format!("PROXY UNKNOWN {rest}\r\n").into_bytes(), None));
        prop_oneof![4 => named, 1 => local, 1 => unknown]
    }

    /// What holds for any bytes, as they arrive one after the other.
    fn assert_consistent(bytes: &[u8]) {
        let mut before = ProxyHeader::Unfinished;
        for end in 0..=bytes.len() {
            let now = parse_proxy_header(&bytes[..end]);
            match before {
                ProxyHeader::Unfinished => {
                    // Nothing but the last byte has decided.
                    if let ProxyHeader::Whole { bytes, .. } = now {
                        assert_eq!(bytes, end);
                        assert!(bytes <= HEADER_BYTES_MAX);
                    }
                }
                ProxyHeader::Whole { .. } => assert_eq!(now, before),
                ProxyHeader::Refused(_) => {
                    assert!(matches!(now, ProxyHeader::Refused(_)), "{now:?} after {before:?}")
                }
            }
            before = now;
        }
    }

    proptest! {
        #[test]
        fn what_a_proxy_writes_is_read(
            (header, source) in header(),
            following in vec(any::<u8>(), 0..40),
        ) {
            let all = [&header[..], &following].concat();
            prop_assert_eq!(parse_proxy_header(&all), ProxyHeader::Whole { source, bytes: header.len() });
            assert_consistent(&all);
        }

        #[test]
        fn whatever_is_damaged_is_read_in_one_way(
            (mut header, _) in header(),
            damage in vec((any::<Index>(), any::<u8>()), 1..4),
        ) {
            for (at, byte) in damage {
                let at = at.index(header.len().min(120));
                header[at] = byte;
            }
            assert_consistent(&header);
        }

        #[test]
        fn whatever_follows_a_beginning_is_read_in_one_way(
            beginning in select(vec![&b""[..], V1_WORD, b"PROXY TCP4 ", b"PROXY TCP6 ", V2_SIGNATURE]),
            rest in prop_oneof![vec(any::<u8>(), 0..200), "[0-9a-f:. \r\n]{0,120}".prop_map(String::into_bytes)],
        ) {
            assert_consistent(&[beginning, &rest].concat());
        }
    }
}
