//! A click as the router sees it: who, from where, with what, when.

use std::fmt;
use std::net::IpAddr;

use super::{AffiliateId, Country, Device, LinkId};

/// How many sub ids a click carries, `s1` to `s5`.
pub const SUBS: usize = 5;

/// A longer sub id is cut at a character boundary. Bytes of UTF-8, after decoding.
pub const SUB_BYTES_MAX: usize = 255;

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// Whole seconds, rounded towards the past.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

/// Everything a decision may depend on, except the table and the draw. Borrowed from the request
/// and from the geo database, so that building one allocates nothing.
#[derive(Clone, Debug)]
pub struct Click<'a> {
    pub link: LinkId,
    pub affiliate: AffiliateId,
    pub at: UnixMillis,
    /// The visitor's address, trusted proxies already walked. IPv4-mapped IPv6 is IPv4 here.
    pub address: IpAddr,
    pub place: Place<'a>,
    pub device: Device,
    /// Primary subtag of the first `Accept-Language` tag.
    pub language: Option<Language>,
    /// Host of the `Referer`, as sent.
    pub referrer_host: Option<&'a str>,
    pub subs: Subs<'a>,
}

/// `s1` to `s5`, decoded; index 0 is `s1`. `None` where the click had none.
pub type Subs<'a> = [Option<&'a str>; SUBS];

/// Where an address is. Every part may be unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place<'a> {
    pub country: Option<Country>,
    pub region: Option<Region>,
    /// English name.
    pub city: Option<&'a str>,
    /// Autonomous system number.
    pub asn: Option<u32>,
}

/// An ISO 3166-2 code such as `US-CA`: a country, a hyphen, one to three letters or digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region([u8; 6]);

impl Region {
    /// Reads `US-CA`; upper case only.
    pub fn parse(text: &str) -> Option<Self> {
        let (country, part) = text.split_once('-')?;
        Self::new(Country::parse(country)?, part)
    }

    /// Joins a country and a subdivision code such as `CA`.
    pub fn new(country: Country, part: &str) -> Option<Self> {
        let part = part.as_bytes();
        let well_formed = (1..=3).contains(&part.len())
            && part.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        if !well_formed {
            return None;
        }
        let mut code = [0; 6];
        code[..2].copy_from_slice(country.as_str().as_bytes());
        code[2] = b'-';
        code[3..3 + part.len()].copy_from_slice(part);
        Some(Self(code))
    }

    pub fn as_str(&self) -> &str {
        ascii(&self.0)
    }
}

/// A primary language subtag, two to eight lower-case letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Language([u8; 8]);

impl Language {
    /// Reads `en`; lower case only.
    pub fn parse(text: &str) -> Option<Self> {
        if !(2..=8).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return None;
        }
        let mut code = [0; 8];
        code[..text.len()].copy_from_slice(text.as_bytes());
        Some(Self(code))
    }

    /// The primary subtag of the first tag of an `Accept-Language` header: `de` of `de-AT,de;q=0.9`.
    pub fn from_accept_language(header: &str) -> Option<Self> {
        let first = header.split([',', ';']).next()?.trim();
        let primary = first.split(['-', '_']).next()?;
        if !(2..=8).contains(&primary.len()) || !primary.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return None;
        }
        let mut code = [0; 8];
        code[..primary.len()].copy_from_slice(primary.as_bytes());
        code.make_ascii_lowercase();
        Some(Self(code))
    }

    pub fn as_str(&self) -> &str {
        ascii(&self.0)
    }
}

/// The host of a `Referer`, without user and port.
pub fn referrer_host(referrer: &str) -> Option<&str> {
    let (_, rest) = referrer.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => host.split(':').next()?,
    };
    (!host.is_empty()).then_some(host)
}

/// The random number that a decision consumes. Uniform over all of `u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw(pub u64);

/// The code up to its padding of zero bytes.
fn ascii(code: &[u8]) -> &str {
    let end = code.iter().position(|&byte| byte == 0).unwrap_or(code.len());
    std::str::from_utf8(&code[..end]).unwrap_or_default()
}

macro_rules! show_as_str {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

show_as_str!(Region);
show_as_str!(Language);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions() {
        for text in ["US-CA", "GB-ENG", "FR-75", "AT-9"] {
            assert_eq!(Region::parse(text).map(|region| region.to_string()).as_deref(), Some(text));
        }
        for text in ["US", "US-", "US-CALI", "us-ca", "ZZ-CA", "US_CA", "US-C A", ""] {
            assert_eq!(Region::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn hosts_of_referrers() {
        for (referrer, host) in [
            ("https://news.example.com/a?b", Some("news.example.com")),
            ("http://example.com:8080", Some("example.com")),
            ("https://user@example.com/", Some("example.com")),
            ("https://[2001:db8::1]:443/", Some("2001:db8::1")),
            ("android-app://com.example/", Some("com.example")),
            ("example.com", None),
            ("https://", None),
            ("", None),
        ] {
            assert_eq!(referrer_host(referrer), host, "{referrer}");
        }
    }

    #[test]
    fn languages() {
        for (header, language) in [
            ("en-US,en;q=0.9", Some("en")),
            ("DE", Some("de")),
            (" fr ; q=1", Some("fr")),
            ("fil-PH", Some("fil")),
            ("zh_Hant", Some("zh")),
            ("*", None),
            ("", None),
            ("e", None),
            ("x-klingon", None),
        ] {
            let read = Language::from_accept_language(header).map(|language| language.to_string());
            assert_eq!(read.as_deref(), language, "{header:?}");
        }
        assert_eq!(Language::parse("EN"), None);
    }
}
