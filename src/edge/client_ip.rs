//! Whose click it is: the peer's address, or the one that trusted proxies report.

use std::net::IpAddr;

use crate::routing::NetSet;

/// Finds the visitor's address. Where the peer is a trusted proxy, `X-Forwarded-For`, all its lines in order, is
/// walked from the right: trusted hops are skipped, the first untrusted one counts. On a hop that is no address,
/// or after `HOPS_MAX`, the last good hop counts.
pub fn client_ip<'h>(
    peer: IpAddr,
    last_line_first: impl Iterator<Item = &'h [u8]>,
    trusted: &NetSet,
) -> IpAddr {
    let peer = peer.to_canonical();
    if trusted.is_empty() || !trusted.contains(peer) {
        return peer;
    }
    let hops = last_line_first
        .flat_map(|line| line.rsplit(|&byte| byte == b','))
        // A list may have empty elements, which mean nothing (RFC 9110, 5.6.1).
        .filter(|hop| !hop.trim_ascii().is_empty())
        .take(HOPS_MAX);
    let mut last_good = peer;
    for hop in hops {
        let Some(address) = parse_hop(hop) else { break };
        last_good = address;
        if !trusted.contains(address) {
            break;
        }
    }
    last_good
}

/// Reads `192.0.2.1`, `2001:db8::1`, and the forms with a port that some proxies write: `192.0.2.1:4711`,
/// `[2001:db8::1]:4711`.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim_matches([' ', '\t']);
    let address = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<std::net::SocketAddr>().map(|address| address.ip()))
        .or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>())
        .ok()?;
    Some(address.to_canonical())
}

/// More hops than any real path has; a longer list is somebody's game.
const HOPS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::parse_net;

    fn found(peer: &str, lines: &[&str], trusted: &[&str]) -> String {
        let lines = lines.iter().rev().map(|line| line.as_bytes());
        let trusted = NetSet::new(trusted.iter().map(|net| parse_net(net).unwrap()));
        client_ip(peer.parse().unwrap(), lines, &trusted).to_string()
    }

    #[test]
    fn walks_trusted_hops_from_the_right() {
        let trusted = ["10.0.0.0/8", "192.0.2.1"];
        for (peer, lines, address) in [
            ("203.0.113.9", &["198.51.100.7"][..], "203.0.113.9"),
            ("10.1.1.1", &[], "10.1.1.1"),
            ("10.1.1.1", &["198.51.100.7"], "198.51.100.7"),
            ("10.1.1.1", &["1.2.3.4, 198.51.100.7"], "198.51.100.7"),
            ("10.1.1.1", &["1.2.3.4, 198.51.100.7, 10.2.2.2,192.0.2.1"], "198.51.100.7"),
            ("10.1.1.1", &["1.2.3.4", "198.51.100.7, 10.2.2.2"], "198.51.100.7"),
            ("10.1.1.1", &["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
            ("10.1.1.1", &["198.51.100.7, garbage, 10.2.2.2"], "10.2.2.2"),
            ("10.1.1.1", &["garbage"], "10.1.1.1"),
            ("10.1.1.1", &[""], "10.1.1.1"),
            ("10.1.1.1", &["1.2.3.4, 198.51.100.7, "], "198.51.100.7"),
            ("10.1.1.1", &["198.51.100.7,,", ","], "198.51.100.7"),
            ("10.1.1.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("10.1.1.1", &["[2001:db8::7]:4711"], "2001:db8::7"),
            ("10.1.1.1", &["[2001:db8::7]"], "2001:db8::7"),
            ("::ffff:10.1.1.1", &["::ffff:198.51.100.7"], "198.51.100.7"),
        ] {
            assert_eq!(found(peer, lines, &trusted), address, "{peer} {lines:?}");
        }
    }

    #[test]
    fn nobody_is_trusted_by_default() {
        assert_eq!(found("10.1.1.1", &["198.51.100.7"], &[]), "10.1.1.1");
    }

    #[test]
    fn walks_at_most_32_hops() {
        let line = format!("198.51.100.7, {}", vec!["10.0.0.1"; 31].join(", "));
        assert_eq!(found("10.1.1.1", &[&line], &["10.0.0.0/8"]), "198.51.100.7");
        let line = format!("198.51.100.7, {}", vec!["10.0.0.1"; 32].join(", "));
        assert_eq!(found("10.1.1.1", &[&line], &["10.0.0.0/8"]), "10.0.0.1");
    }
}
