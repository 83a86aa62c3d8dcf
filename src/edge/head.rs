//! What a click needs of a request's headers, found by looking at each of them once. To ask for them by name would be a
//! dozen look-ups in a map that has ten entries.

use http::{HeaderMap, HeaderValue, Version};

use crate::lookup::Hints;

/// Of a header that comes more than once, the first value counts.
#[derive(Debug, Default)]
pub(super) struct Head<'h> {
    pub user_agent: Option<&'h str>,
    pub accept_language: Option<&'h str>,
    pub referrer: Option<&'h str>,
    ch_mobile: Option<&'h str>,
    ch_platform: Option<&'h str>,
    /// Whether a body is announced, however short.
    pub has_body: bool,
    /// Prefetch or preview: see [`Head::says_probe`].
    says_probe: bool,
    host: Option<&'h HeaderValue>,
    has_hosts: bool,
}

impl<'h> Head<'h> {
    pub fn read(headers: &'h HeaderMap) -> Self {
        let mut head = Self::default();
        // Only the first value of a name may set its field, be it unreadable.
        let mut seen = 0_u8;
        let mut is_first = |bit: u8| {
            let is_first = seen & bit == 0;
            seen |= bit;
            is_first
        };
        for (name, value) in headers {
            match name.as_str() {
                "host" if head.host.is_none() => head.host = Some(value),
                "host" => head.has_hosts = true,
                "user-agent" if is_first(1) => head.user_agent = text(value),
                "accept-language" if is_first(2) => head.accept_language = text(value),
                "referer" if is_first(4) => head.referrer = text(value),
                "sec-ch-ua-mobile" if is_first(8) => head.ch_mobile = text(value),
                "sec-ch-ua-platform" if is_first(16) => head.ch_platform = text(value),
                "transfer-encoding" => head.has_body = true,
                "content-length" => head.has_body |= value != "0",
                "sec-purpose" | "purpose" | "x-purpose" => {
                    head.says_probe |= says(value, "prefetch") || says(value, "preview");
                }
                "x-moz" => head.says_probe |= says(value, "prefetch"),
                _ => {}
            }
        }
        head
    }

    pub fn hints(&self) -> Hints<'h> {
        Hints { user_agent: self.user_agent, ch_mobile: self.ch_mobile, ch_platform: self.ch_platform }
    }

    /// Whether the browser says that no person has clicked yet: `Sec-Purpose`, `Purpose` or `X-Purpose` with `prefetch` or
    /// `preview`, or `X-Moz: prefetch`.
    pub fn says_probe(&self) -> bool {
        self.says_probe
    }

    /// What is wrong with `Host`, in a line.
    pub fn doubt_of_host(&self, version: Version) -> Option<&'static str> {
        match self.host {
            None if version == Version::HTTP_11 => Some("The Host header is missing.\n"),
            Some(_) if self.has_hosts => Some("The Host header is given more than once.\n"),
            Some(host) if !is_host(host.as_bytes()) => {
                Some("The Host header is not a host name with an optional port.\n")
            }
            _ => None,
        }
    }
}

/// A header as text; some apps put UTF-8 into theirs, and anything else is as good as absent.
fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

fn says(value: &HeaderValue, word: &str) -> bool {
    value.as_bytes().windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
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
        || port.strip_prefix(':').is_some_and(|digits| digits.is_empty() || digits.parse::<u16>().is_ok());
    !name.is_empty()
        && port_is_valid
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

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
        for good in ["example.com", "example.com:8080", "127.0.0.1", "[::1]:80", "[::1]", "a_b:"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in ["", ":80", "a b", "a/b", "a@b", "a:b", "a:99999", "[::1", "[zz]", "é"] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }
}
