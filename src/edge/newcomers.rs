//! The last moments of a listening socket. To close it resets every connection that the system still keeps for it: those whose
//! handshake is under way, and those whose first bytes it waits for (`listener::defer_silent`). Their clients may have been told
//! that they are connected, and have sent a click. So nobody new is let in first, until all who are under way have come.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};

/// Drops every further SYN. A client that wants to connect asks again after a second, and then learns that nobody listens any more;
/// or finds who does. What belongs to a connection passes, here and on the sockets of those that are yet accepted, which have
/// the filter from this one. A system that has no such thing goes on as before.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn keep_out(socket: &TcpListener) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};

    // Of linux/filter.h; k of a load is an offset into the TCP header.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    SockRef::from(socket).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn keep_out(_: &TcpListener) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether the system keeps a connection to that port whose client may think that it is connected. It reads a list of all
/// connections of the machine (proc_net_tcp of the kernel's documentation) and so is no work for a thread that has clicks.
pub(super) fn are_under_way(to: SocketAddr) -> io::Result<bool> {
    let list = File::open(if to.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" })?;
    for line in BufReader::new(list).lines() {
        if is_under_way(&line?, to.port()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One row of the list: its number, the address here, that of the client, the state, and more. Addresses and states are
/// hexadecimal.
fn is_under_way(row: &str, port: u16) -> bool {
    const SYN_RECV: &str = "03";
    let mut fields = row.split_ascii_whitespace().skip(1);
    let here = fields.next().and_then(|here| here.rsplit_once(':'));
    let port_here = here.and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
    port_here == Some(port) && fields.nth(1) == Some(SYN_RECV)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::Write;
    use std::net::TcpStream;
    use std::time::Duration;

    use super::super::listener::{defer_silent, take_silent_too};
    use super::*;

    fn listen(address: &str) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn who_has_come_is_accepted_and_nobody_else_is_let_in() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (listener, address) = listen(address);
            let mut before = TcpStream::connect(address).unwrap();
            keep_out(&listener).unwrap();
            let refused = TcpStream::connect_timeout(&address, Duration::from_millis(100));
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::TimedOut, "{address}");
            before.write_all(b"GET").unwrap();
            let (mut accepted, peer) = listener.accept().unwrap();
            assert_eq!(peer, before.local_addr().unwrap());
            let mut read = [0; 3];
            io::Read::read_exact(&mut accepted, &mut read).unwrap();
            assert_eq!(&read, b"GET");
        }
    }

    #[test]
    fn who_is_kept_back_is_under_way_until_it_is_accepted() {
        let (listener, address) = listen("127.0.0.1:0");
        assert!(!are_under_way(address).unwrap());
        defer_silent(&listener);
        let kept_back = TcpStream::connect(address).unwrap();
        assert!(are_under_way(address).unwrap());
        take_silent_too(&listener);
        keep_out(&listener).unwrap();
        // Asked for the end of its handshake once more, it is given as it is.
        let (_accepted, peer) = listener.accept().unwrap();
        assert_eq!(peer, kept_back.local_addr().unwrap());
        assert!(!are_under_way(address).unwrap());
    }

    #[test]
    fn a_row_is_of_a_port_and_a_state() {
        let row = "   2: 0100007F:1F90 0100007F:C350 03 00000000:00000000 01:00000063 00000000     0        0 0 2 0000000000000000";
        assert!(is_under_way(row, 8080));
        assert!(!is_under_way(row, 50_000));
        assert!(!is_under_way(&row.replace(" 03 ", " 01 "), 8080));
        let of_ipv6 = "   0: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:C350 03 00000000:00000000";
        assert!(is_under_way(of_ipv6, 8080));
        assert!(!is_under_way(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt",
            8080
        ));
    }
}
