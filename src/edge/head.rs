//! What a click needs of a request's headers, found by looking at each of them once, whoever has read them. To ask for
//! them by name would be a dozen look-ups in a map that has ten entries.

use http::{HeaderMap, Version};

use crate::lookup::Hints;

/// Of a header that comes more than once, the first value counts.
#[derive(Debug, Default)]
pub struct Head<'h> {
    pub(super) user_agent: Option<&'h str>,
    pub(super) accept_language: Option<&'h str>,
    pub(super) referrer: Option<&'h str>,
    ch_mobile: Option<&'h str>,
    ch_platform: Option<&'h str>,
    /// Whether a body is announced, however short.
    pub(super) has_body: bool,
    /// Prefetch or preview: see [`Head::says_probe`].
    says_probe: bool,
    host: Option<&'h [u8]>,
    has_hosts: bool,
    /// The last `X-Forwarded-For`, and those before it in their order, of which there are next to never any.
    forwarded_for: Option<&'h [u8]>,
    forwarded_before: Vec<&'h [u8]>,
    /// What the sender wants of the connection.
    pub(super) connection: Connection,
    /// Of the names of which the first value counts, those that came.
    seen: u8,
}

/// What a head says about the connection, or about bytes that follow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Connection {
    /// Nothing that is not so anyway.
    #[default]
    Usual,
    /// This is its last request.
    Close,
    /// A body, another protocol, something to be agreed on first.
    Special,
}

impl<'h> Head<'h> {
    pub fn read(headers: &'h HeaderMap) -> Self {
        let mut head = Self::default();
        for (name, value) in headers {
            head.note(name.as_str().as_bytes(), value.as_bytes());
        }
        head
    }

    /// Takes the next header, whose name may be spelled in any case.
    pub(super) fn note(&mut self, name: &[u8], value: &'h [u8]) {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"host") => {
                self.has_hosts = self.host.is_some();
                self.host.get_or_insert(value);
            }
            10 if is(b"user-agent") => self.note_first(USER_AGENT, value, |head| &mut head.user_agent),
            10 if is(b"connection") => self.note_connection(value),
            15 if is(b"accept-language") => {
                self.note_first(ACCEPT_LANGUAGE, value, |head| &mut head.accept_language);
            }
            15 if is(b"x-forwarded-for") => self.forwarded_before.extend(self.forwarded_for.replace(value)),
            7 if is(b"referer") => self.note_first(REFERRER, value, |head| &mut head.referrer),
            16 if is(b"sec-ch-ua-mobile") => self.note_first(CH_MOBILE, value, |head| &mut head.ch_mobile),
            18 if is(b"sec-ch-ua-platform") => {
                self.note_first(CH_PLATFORM, value, |head| &mut head.ch_platform);
            }
            17 if is(b"transfer-encoding") => {
                self.has_body = true;
                self.connection = Connection::Special;
            }
            14 if is(b"content-length") => {
                self.has_body |= value != b"0";
                self.connection = Connection::Special;
            }
            6 if is(b"expect") => self.connection = Connection::Special,
            7 if is(b"upgrade") => self.connection = Connection::Special,
            11 if is(b"sec-purpose") => self.note_purpose(value),
            7 if is(b"purpose") => self.note_purpose(value),
            9 if is(b"x-purpose") => self.note_purpose(value),
            5 if is(b"x-moz") => self.says_probe |= says(value, "prefetch"),
            _ => {}
        }
    }

    /// Only the first value of a name may set its field, be it unreadable.
    fn note_first(
        &mut self,
        bit: u8,
        value: &'h [u8],
        field: impl FnOnce(&mut Self) -> &mut Option<&'h str>,
    ) {
        if self.seen & bit == 0 {
            self.seen |= bit;
            *field(self) = text(value);
        }
    }

    fn note_purpose(&mut self, value: &[u8]) {
        self.says_probe |= says(value, "prefetch") || says(value, "preview");
    }

    fn note_connection(&mut self, value: &[u8]) {
        self.connection = match self.connection {
            Connection::Usual if value.eq_ignore_ascii_case(b"keep-alive") => Connection::Usual,
            Connection::Usual if value.eq_ignore_ascii_case(b"close") => Connection::Close,
            _ => Connection::Special,
        };
    }

    /// The lines of `X-Forwarded-For`, the last one first.
    pub(super) fn forwarded_for(&self) -> impl Iterator<Item = &'h [u8]> {
        self.forwarded_for.into_iter().chain(self.forwarded_before.iter().rev().copied())
    }

    pub(super) fn hints(&self) -> Hints<'h> {
        Hints { user_agent: self.user_agent, ch_mobile: self.ch_mobile, ch_platform: self.ch_platform }
    }

    /// Whether the browser says that no person has clicked yet: `Sec-Purpose`, `Purpose` or `X-Purpose` with `prefetch` or
    /// `preview`, or `X-Moz: prefetch`.
    pub(super) fn says_probe(&self) -> bool {
        self.says_probe
    }

    /// What is wrong with `Host`, in a line.
    pub(super) fn doubt_of_host(&self, version: Version) -> Option<&'static str> {
        match self.host {
            None if version == Version::HTTP_11 => Some("The Host header is missing.\n"),
            Some(_) if self.has_hosts => Some("The Host header is given more than once.\n"),
            Some(host) if !is_host(host) => {
                Some("The Host header is not a host name with an optional port.\n")
            }
            _ => None,
        }
    }
}

/// A header as text; some apps put UTF-8 into theirs, and anything else is as good as absent.
fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

fn says(value: &[u8], word: &str) -> bool {
    value.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

/// `host`, `host:port` or `[v6]:port`, in the characters of RFC 3986. An empty host is none.
fn is_host(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, port)) if v6.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", port),
            _ => return false,
        },
        None => host.find(':').map_or((host, ""), |colon| host.split_at(colon)),
    };
    let port_is_valid = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            let are_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
            are_digits && (digits.is_empty() || digits.parse::<u16>().is_ok())
        });
    !name.is_empty()
        && port_is_valid
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte))
        && (!name.contains('%') || escapes_are_whole(name))
}

fn escapes_are_whole(name: &str) -> bool {
    name.split('%').skip(1).all(|rest| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2)
}

const USER_AGENT: u8 = 1;
const ACCEPT_LANGUAGE: u8 = 2;
const REFERRER: u8 = 4;
const CH_MOBILE: u8 = 8;
const CH_PLATFORM: u8 = 16;

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap()))
            .collect()
    }

    #[test]
    fn probes_and_clicks() {
        for (name, value, probe) in [
            ("sec-purpose", "prefetch;prerender", true),
            ("purpose", "Prefetch", true),
            ("x-purpose", "preview", true),
            ("x-moz", "prefetch", true),
            ("x-moz", "preview", false),
            ("purpose", "purchase", false),
            ("accept", "prefetch", false),
        ] {
            let headers = headers(&[("host", b"a"), (name, value.as_bytes())]);
            assert_eq!(Head::read(&headers).says_probe(), probe, "{name}: {value}");
        }
        let headers = headers(&[("purpose", b"purchase"), ("purpose", b"prefetch")]);
        assert!(Head::read(&headers).says_probe(), "any of several");
    }

    #[test]
    fn the_first_of_a_name_counts_and_what_is_no_text_is_absent() {
        let read = headers(&[
            ("user-agent", b"one"),
            ("referer", b"\xff"),
            ("user-agent", b"two"),
            ("referer", b"b"),
        ]);
        let head = Head::read(&read);
        assert_eq!((head.user_agent, head.referrer, head.accept_language), (Some("one"), None, None));
        let read = headers(&[
            ("sec-ch-ua-mobile", b"?1"),
            ("sec-ch-ua-platform", b"\"Android\""),
            ("accept-language", b"de"),
        ]);
        let (head, hints) = (Head::read(&read), Head::read(&read).hints());
        assert_eq!(
            (hints.ch_mobile, hints.ch_platform, head.accept_language),
            (Some("?1"), Some("\"Android\""), Some("de"))
        );
    }

    #[test]
    fn bodies_are_announced_by_either_header() {
        for (name, value, has_body) in [
            ("content-length", "0", false),
            ("content-length", "1", true),
            ("content-length", "00", true),
            ("transfer-encoding", "identity", true),
            ("content-type", "text/plain", false),
        ] {
            assert_eq!(
                Head::read(&headers(&[(name, value.as_bytes())])).has_body,
                has_body,
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn a_host_stands_there_once() {
        let doubt =
            |pairs: &[(&'static str, &[u8])], version| Head::read(&headers(pairs)).doubt_of_host(version);
        assert!(doubt(&[], Version::HTTP_11).unwrap().contains("missing"));
        assert_eq!(doubt(&[], Version::HTTP_10), None);
        assert_eq!(doubt(&[("host", b"a")], Version::HTTP_11), None);
        assert!(
            doubt(&[("host", b"a"), ("host", b"a")], Version::HTTP_11).unwrap().contains("more than once")
        );
        assert!(doubt(&[("host", b"a b")], Version::HTTP_10).unwrap().contains("not a host name"));
    }

    #[test]
    fn host_headers() {
        for good in
            ["example.com", "example.com:8080", "127.0.0.1", "[::1]:80", "[::1]", "a_b:", "a%2db", "%41%42"]
        {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a/b", "a@b", "a:b", "a:99999", "[::1", "[zz]", "é", "a:+80", "a:-1",
            "a:80:80", "a%", "a%4", "a%zz", "a%%20",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }
}
