//! From bytes to a plain request: a GET in HTTP/1.1 without a body, in which every byte is where a strict reader wants it.
//!
//! The lines are found by the same parser that hyper uses (httparse), and what it finds is used only where hyper would have
//! read the same. Whatever else it may be, well-formed or not, is not judged here.

use std::mem::MaybeUninit;

use http::{Method, Version};
use memchr::memchr;

use crate::edge::conversion::Call;
use crate::edge::head::{Connection, Head};
use crate::edge::limits::HeadLimits;
use crate::edge::request::Request;
use crate::edge::request_line::is_legal_target;

/// What the bytes begin with.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are the large one, and a click is to allocate nothing"
)]
pub(super) enum Read<'r> {
    /// A plain request, in so many bytes.
    Plain { request: Request<'r>, bytes: usize, is_last: bool },
    /// What may become one.
    Unfinished,
    /// Something else.
    Other,
}

pub(super) fn read(bytes: &[u8], limits: HeadLimits) -> Read<'_> {
    let mut lines = [const { MaybeUninit::uninit() }; HEADER_LINES_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(bytes, &mut lines) {
        Ok(httparse::Status::Complete(length)) if length <= limits.bytes => length,
        Ok(httparse::Status::Partial)
            if bytes.len() < limits.bytes && (parsed.path.is_some() || bytes.len() <= limits.uri_bytes) =>
        {
            return Read::Unfinished;
        }
        _ => return Read::Other,
    };
    let (Some("GET"), Some(target), Some(1)) = (parsed.method, parsed.path, parsed.version) else {
        return Read::Other;
    };
    if target.len() > limits.uri_bytes {
        return Read::Other;
    }
    // A fragment is legal, and no part of what is asked for; it is left to hyper to cut it off.
    if !is_legal_target(target.as_bytes()) || memchr(b'#', target.as_bytes()).is_some() {
        return Read::Other;
    }
    let (path, query) = match memchr(b'?', target.as_bytes()) {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    };
    if Call::of_path(path).is_some() {
        return Read::Other;
    }
    let mut head = Head::default();
    for line in parsed.headers.iter() {
        head.note(line.name.as_bytes(), line.value);
    }
    let is_last = match head.connection {
        Connection::Usual => false,
        Connection::Close => true,
        Connection::Special => return Read::Other,
    };
    let request = Request { method: &GET, path, query, version: Version::HTTP_11, head };
    Read::Plain { request, bytes: length, is_last }
}

static GET: Method = Method::GET;

/// Browsers send about a dozen. With more, hyper has to make room, too.
const HEADER_LINES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits::DEFAULT;
    const HEAD: &str = "GET /sl?id=301&aff_id=7 HTTP/1.1\r\nHost: a\r\nUSER-Agent: b\r\n\r\n";

    fn is_other(head: &str) -> bool {
        matches!(read(head.as_bytes(), LIMITS), Read::Other)
    }

    #[test]
    fn a_plain_request_ends_where_its_head_ends() {
        let two = format!("\r\n{HEAD}{HEAD}");
        let Read::Plain { request, bytes, is_last: false } = read(two.as_bytes(), LIMITS) else {
            panic!("{two}")
        };
        assert_eq!((request.path, request.query), ("/sl", Some("id=301&aff_id=7")));
        assert_eq!((request.head.user_agent, bytes), (Some("b"), HEAD.len() + 2));
        for length in 0..HEAD.len() {
            assert!(matches!(read(&HEAD.as_bytes()[..length], LIMITS), Read::Unfinished), "{length}");
        }
    }

    #[test]
    fn the_last_request_says_so() {
        for (value, last) in [("close", true), ("Close", true), ("keep-alive", false), ("Keep-Alive", false)]
        {
            let head = HEAD.replace("Host", &format!("Connection: {value}\r\nHost"));
            let Read::Plain { is_last, .. } = read(head.as_bytes(), LIMITS) else { panic!("{head}") };
            assert_eq!(is_last, last, "{head}");
        }
    }

    #[test]
    fn what_is_not_plain_is_not_judged() {
        for (from, to) in [
            ("GET", "HEAD"),
            ("GET", "POST"),
            ("GET", "get"),
            ("GET /sl", "GET  /sl"),
            ("/sl?", "/sl?s1=<b>&"),
            ("/sl?", "/sl?s1=é&"),
            ("=7", "=7#top"),
            ("/sl?", "sl?"),
            ("/sl?", "http://a/sl?"),
            ("/sl?id=301", "/p.ashx?"),
            ("/sl?id=301", "/api/2/conversion.json?"),
            ("1.1", "1.0"),
            ("1.1", "2.0"),
            ("Host: a", "Host : a"),
            ("Host: a", "Host: a\r\n b"),
            ("Host: a", "Host: a\0"),
            ("Host: a", "Host: a\r"),
            ("Host: a", "Content-Length: 0"),
            ("Host: a", "content-LENGTH: 4"),
            ("Host: a", "Transfer-Encoding: chunked"),
            ("Host: a", "Transfer-Encoding:"),
            ("Host: a", "Expect: 100-continue"),
            ("Host: a", "Upgrade: h2c"),
            ("Host: a", "Connection: close, upgrade"),
            ("Host: a", "Connection: close\r\nConnection: keep-alive"),
            ("Host: a", "Connection: keep-alive\r\nConnection: x"),
        ] {
            let head = HEAD.replacen(from, to, 1);
            assert_ne!(head, HEAD);
            assert!(is_other(&head), "{head:?}");
        }
        assert!(is_other(&HEAD.replace("Host", &"A: b\r\n".repeat(HEADER_LINES_MAX))), "many lines");
        assert!(is_other(&HEAD.replace('b', &"b".repeat(LIMITS.bytes))), "whole, and too large");
        assert!(is_other(&format!("GET /{}", "b".repeat(LIMITS.bytes))), "unfinished, and too large");
        let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "b".repeat(bytes - 1));
        assert!(!is_other(&target(LIMITS.uri_bytes)), "as long as a target may be");
        assert!(is_other(&target(LIMITS.uri_bytes + 1)), "longer");
        assert!(is_other(&format!("GET /{}", "b".repeat(LIMITS.uri_bytes))), "unfinished, and too long");
        assert!(is_other("\u{16}\u{3}\u{1}"), "the beginning of a TLS session");
        assert!(is_other("PRI * HTTP/2.0\r\n"), "the beginning of HTTP/2");
    }
}
