//! Destination templates: an `offer_url` parsed once, filled in for every click.
//!
//! What a template promises, each kept by a test below:
//!
//! 1. Whatever the values, the finished URL has the scheme, host and port that the template was written with.
//! 2. Values are percent-encoded to RFC 3986 unreserved characters, so no value adds a path segment, a parameter, a
//!    fragment or a header line.
//! 3. `s1`…`s5`, which a visitor chooses freely, stand only behind the `?`.
//! 4. A finished URL is at most [`LOCATION_BYTES_MAX`] long, or there is none.

use std::net::IpAddr;

use url::{Host, Url};

use crate::types::{Click, OfferId, SUBS};

use super::sets::{HostSet, is_host_name};

/// A parsed destination. Cheap to fill in: literal pieces are already encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Box<[Piece]>,
}

/// What an operator allows destinations to be. The default is the strict one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationPolicy {
    /// `http:` besides `https:`.
    pub allow_http: bool,
    /// IP literals, `localhost` and hosts of a single label.
    pub allow_internal_hosts: bool,
    /// If given, the only hosts there may be.
    pub allowed_hosts: Option<HostSet>,
}

/// Why a text is no destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("is empty; give an absolute URL such as https://shop.example.com/?r={{click_id}}")]
    Empty,
    #[error("is {0} bytes long; at most {TEMPLATE_BYTES_MAX} are allowed")]
    TooLong(usize),
    #[error("has a space, a backslash or a control character at byte {0}; write it percent-encoded")]
    Character(usize),
    #[error("must begin with https:// (http:// only where the operator allows it)")]
    Scheme,
    #[error("has a token in its scheme, host or port; tokens may stand in path, query and fragment")]
    TokenInAuthority,
    #[error("names a user or password before the host; remove everything up to the @")]
    UserInfo,
    #[error("has no valid host: {0}")]
    Host(String),
    #[error(
        "points at `{0}`, an address or a name without a dot; the operator allows only public host names"
    )]
    InternalHost(String),
    #[error("points at `{0}`, which is not among the hosts that the operator allows")]
    HostNotAllowed(String),
    #[error("has {0} with no ? before it; sub ids may stand only behind a ?")]
    SubBeforeQuery(String),
}

/// What a click fills in.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    pub click: &'a Click<'a>,
    pub click_id: &'a str,
    /// `None` on the way to a fallback.
    pub offer: Option<OfferId>,
}

/// A finished URL would be longer than [`LOCATION_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Bytes of a template as written.
pub const TEMPLATE_BYTES_MAX: usize = 2048;

/// Bytes of a finished `Location`.
pub const LOCATION_BYTES_MAX: usize = 8192;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Token(Token),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Affiliate,
    Offer,
    ClickId,
    Link,
    /// `s1` is index 0.
    Sub(u8),
    Address,
    UnixSeconds,
    Country,
    Region,
    City,
    Device,
    Os,
    Browser,
}

impl Template {
    /// Reads a template. Beside it come warnings, one for each token that is not known and will be empty.
    pub fn parse(text: &str, policy: &DestinationPolicy) -> Result<(Self, Vec<String>), TemplateError> {
        let (origin, rest) = split(text, policy)?;
        let mut warnings = Vec::new();
        let pieces = pieces(origin, rest, &mut warnings)?;
        Ok((Self { pieces }, warnings))
    }

    /// The template as it is kept: scheme and host in lower case, an internationalised host in punycode, the rest as
    /// written.
    pub fn normalized(text: &str, policy: &DestinationPolicy) -> Result<String, TemplateError> {
        let (origin, rest) = split(text, policy)?;
        let normalized = origin + rest;
        match normalized.len() {
            0..=TEMPLATE_BYTES_MAX => Ok(normalized),
            bytes => Err(TemplateError::TooLong(bytes)),
        }
    }

    /// Appends the finished URL to `out`; on `Err`, `out` is as it was.
    pub fn fill(&self, values: &Values<'_>, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let start = out.len();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Token(token) => token.fill(values, out),
            }
            if out.len() - start > LOCATION_BYTES_MAX {
                out.truncate(start);
                return Err(TooLong);
            }
        }
        Ok(())
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let literal = |piece: &Piece| match piece {
            Piece::Literal(text) => text.len(),
            Piece::Token(_) => 0,
        };
        size_of_val(&*self.pieces) + self.pieces.iter().map(literal).sum::<usize>()
    }
}

impl Token {
    /// The names of tokens, in CAKE's form and in braces (SPEC 4).
    fn named(name: &str) -> Option<Self> {
        let mut lower = [0; TOKEN_NAME_BYTES_MAX];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        Some(match &*lower {
            b"affid" | b"affiliate_id" => Token::Affiliate,
            b"oid" | b"offer_id" => Token::Offer,
            b"reqid" | b"click_id" => Token::ClickId,
            b"smart_link_id" => Token::Link,
            b"s1" | b"sub_id" => Token::Sub(0),
            b"s2" => Token::Sub(1),
            b"s3" => Token::Sub(2),
            b"s4" => Token::Sub(3),
            b"s5" => Token::Sub(4),
            b"ip" => Token::Address,
            b"utcunixtime" | b"timestamp" => Token::UnixSeconds,
            b"country" => Token::Country,
            b"region" => Token::Region,
            b"city" => Token::City,
            b"device" => Token::Device,
            b"os" => Token::Os,
            b"browser" => Token::Browser,
            _ => return None,
        })
    }

    fn fill(self, values: &Values<'_>, out: &mut Vec<u8>) {
        let click = values.click;
        match self {
            Token::Affiliate => push_number(click.affiliate.value().into(), out),
            Token::Offer => {
                if let Some(offer) = values.offer {
                    push_number(offer.value().into(), out);
                }
            }
            Token::Link => push_number(click.link.value().into(), out),
            Token::ClickId => push_encoded(values.click_id, out),
            Token::Sub(index) => push_encoded(click.subs[index as usize].unwrap_or_default(), out),
            Token::Address => push_address(click.address, out),
            Token::UnixSeconds => push_number(click.at.seconds().max(0) as u64, out),
            Token::Country => push_encoded(click.place.country.map_or("", |country| country.as_str()), out),
            Token::Region => {
                push_encoded(click.place.region.as_ref().map_or("", |region| region.as_str()), out)
            }
            Token::City => push_encoded(click.place.city.unwrap_or_default(), out),
            Token::Device => out.extend_from_slice(click.device.kind.as_str().as_bytes()),
            Token::Os => out.extend_from_slice(click.device.os.as_str().as_bytes()),
            Token::Browser => out.extend_from_slice(click.device.browser.as_str().as_bytes()),
        }
    }
}

/// The origin, and everything behind it, of a text that may be a template.
fn split<'a>(text: &'a str, policy: &DestinationPolicy) -> Result<(String, &'a str), TemplateError> {
    if text.is_empty() {
        return Err(TemplateError::Empty);
    }
    if text.len() > TEMPLATE_BYTES_MAX {
        return Err(TemplateError::TooLong(text.len()));
    }
    let forbidden = |byte: u8| byte <= b' ' || byte == 0x7f || byte == b'\\';
    if let Some(at) = text.bytes().position(forbidden) {
        return Err(TemplateError::Character(at));
    }
    let (scheme, rest) = split_scheme(text, policy)?;
    split_origin(scheme, rest, policy)
}

fn split_scheme<'a>(
    text: &'a str,
    policy: &DestinationPolicy,
) -> Result<(&'static str, &'a str), TemplateError> {
    let schemes: &[&'static str] = if policy.allow_http { &["https://", "http://"] } else { &["https://"] };
    for scheme in schemes {
        let head = text.get(..scheme.len());
        if head.is_some_and(|head| head.eq_ignore_ascii_case(scheme)) {
            return Ok((scheme, &text[scheme.len()..]));
        }
    }
    Err(TemplateError::Scheme)
}

/// The origin as it will be sent (host in lower case and punycode), and everything behind it. What follows the
/// origin begins with a literal `/`, `?` or `#`: were it a token, its value would become part of the host.
fn split_origin<'a>(
    scheme: &str,
    rest: &'a str,
    policy: &DestinationPolicy,
) -> Result<(String, &'a str), TemplateError> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if authority.contains(['{', '}']) || token_at(rest).is_some() {
        return Err(TemplateError::TokenInAuthority);
    }
    if authority.contains('@') {
        return Err(TemplateError::UserInfo);
    }
    if authority.is_empty() {
        return Err(TemplateError::Host("it is empty".to_owned()));
    }
    let url = Url::parse(&format!("{scheme}{authority}/"))
        .map_err(|error| TemplateError::Host(format!("`{authority}`: {error}")))?;
    // A name may end in the dot of the root; it is the same name.
    let shown = url.host_str().unwrap_or_default();
    let name = shown.strip_suffix('.').unwrap_or(shown);
    let internal = match url.host() {
        Some(Host::Domain(_)) if is_host_name(name) => !name.contains('.') || name.ends_with(".localhost"),
        Some(Host::Domain(_)) | None => {
            return Err(TemplateError::Host(format!("`{shown}` is not a name that can be looked up")));
        }
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
    };
    if internal && !policy.allow_internal_hosts {
        return Err(TemplateError::InternalHost(shown.to_owned()));
    }
    if policy.allowed_hosts.as_ref().is_some_and(|allowed| !allowed.contains(name)) {
        return Err(TemplateError::HostNotAllowed(shown.to_owned()));
    }
    // `Url` ends in the slash that was added; the template brings its own.
    let mut origin = url.to_string();
    origin.pop();
    Ok((origin, rest))
}

fn pieces(origin: String, rest: &str, warnings: &mut Vec<String>) -> Result<Box<[Piece]>, TemplateError> {
    let mut pieces = Vec::new();
    let mut literal = origin;
    if !rest.starts_with('/') {
        literal.push('/');
    }
    let mut in_query = false;
    let mut at = 0;
    while at < rest.len() {
        if let Some(name) = token_at(&rest[at..]) {
            match Token::named(name) {
                Some(Token::Sub(_)) if !in_query => {
                    return Err(TemplateError::SubBeforeQuery(rest[at..at + name.len() + 2].to_owned()));
                }
                Some(token) => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
                    }
                    pieces.push(Piece::Token(token));
                }
                None => warnings.push(format!("unknown token {}", &rest[at..at + name.len() + 2])),
            }
            at += name.len() + 2;
        } else {
            let character = rest[at..].chars().next().unwrap_or_default();
            in_query |= character == '?';
            push_literal(character, &mut literal);
            at += character.len_utf8();
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into()));
    }
    Ok(pieces.into())
}

/// The name of the token that a text begins with: `{name}` or `#name#`.
fn token_at(text: &str) -> Option<&str> {
    let close = match text.as_bytes().first()? {
        b'{' => b'}',
        b'#' => b'#',
        _ => return None,
    };
    let name = &text[1..];
    let end = name.bytes().position(|byte| !(byte.is_ascii_alphanumeric() || byte == b'_'))?;
    (end > 0 && name.as_bytes()[end] == close).then(|| &name[..end])
}

/// Keeps what a URL may contain as it is, and encodes the rest: browsers disagree about raw quotes and braces.
fn push_literal(character: char, out: &mut String) {
    let reserved = "-._~:/?#[]@!$&'()*+,;=%";
    if character.is_ascii_alphanumeric() || reserved.contains(character) {
        out.push(character);
    } else {
        let mut bytes = [0; 4];
        for byte in character.encode_utf8(&mut bytes).bytes() {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

fn push_encoded(value: &str, out: &mut Vec<u8>) {
    let (blocks, rest) = value.as_bytes().as_chunks::<BLOCK>();
    for block in blocks.iter().map(|block| block.as_slice()).chain([rest]) {
        // Most have nothing to encode. Compilers look at a block as a whole where no byte decides whether the next is looked at.
        if block.iter().fold(true, |all, &byte| all & is_unreserved(byte)) {
            out.extend_from_slice(block);
            continue;
        }
        for &byte in block {
            if is_unreserved(byte) {
                out.push(byte);
            } else {
                out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
}

/// RFC 3986, 2.3.
fn is_unreserved(byte: u8) -> bool {
    let is_letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    let is_digit = byte.wrapping_sub(b'0') < 10;
    is_letter | is_digit | (byte == b'-') | (byte == b'.') | (byte == b'_') | (byte == b'~')
}

fn push_number(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

fn push_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                push_number(octet.into(), out);
            }
        }
        IpAddr::V6(address) => push_encoded(&address.to_string(), out),
    }
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

const BLOCK: usize = 16;

/// `smart_link_id` is the longest name, with thirteen bytes.
const TOKEN_NAME_BYTES_MAX: usize = 13;

const _: () = assert!(SUBS == 5, "Token::named knows five sub ids");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{
        AffiliateId, Browser, Country, Device, DeviceKind, LinkId, Os, Place, Region, UnixMillis,
    };

    /// A visitor who puts the worst into everything that is a visitor's to choose.
    fn hostile_click() -> Click<'static> {
        Click {
            link: LinkId::new(301).unwrap(),
            affiliate: AffiliateId::new(67890).unwrap(),
            at: UnixMillis(1_795_305_600_999),
            address: "2001:db8::1".parse().unwrap(),
            place: Place {
                country: Country::parse("US"),
                region: Region::parse("US-CA"),
                city: Some("Saint-Rémy/@evil.com?#"),
                asn: None,
            },
            device: Device {
                kind: DeviceKind::Mobile,
                os: Os::Android,
                browser: Browser::Chrome,
                bot: false,
            },
            language: None,
            referrer_host: None,
            subs: [
                Some("//evil.com"),
                Some("\r\nSet-Cookie: a=b"),
                Some("@evil.com:1/"),
                Some("&x=y#z"),
                Some("%2e%2e\\é\u{202e}"),
            ],
        }
    }

    fn parse(text: &str) -> Result<Template, TemplateError> {
        Template::parse(text, &DestinationPolicy::default()).map(|(template, _)| template)
    }

    fn filled(text: &str) -> String {
        let (click, mut out) = (hostile_click(), Vec::new());
        let values = Values { click: &click, click_id: "c-1_Z", offer: OfferId::new(1042) };
        parse(text).unwrap().fill(&values, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Every token with what the hostile click makes of it.
    const TOKENS: [(&str, &str); 25] = [
        ("#affid#", "67890"),
        ("#oid#", "1042"),
        ("#reqid#", "c-1_Z"),
        ("#ip#", "2001%3Adb8%3A%3A1"),
        ("#utcunixtime#", "1795305600"),
        ("#s1#", "%2F%2Fevil.com"),
        ("#s2#", "%0D%0ASet-Cookie%3A%20a%3Db"),
        ("#s3#", "%40evil.com%3A1%2F"),
        ("#s4#", "%26x%3Dy%23z"),
        ("#s5#", "%252e%252e%5C%C3%A9%E2%80%AE"),
        ("{affiliate_id}", "67890"),
        ("{offer_id}", "1042"),
        ("{click_id}", "c-1_Z"),
        ("{sub_id}", "%2F%2Fevil.com"),
        ("{s1}", "%2F%2Fevil.com"),
        ("{s5}", "%252e%252e%5C%C3%A9%E2%80%AE"),
        ("{smart_link_id}", "301"),
        ("{country}", "US"),
        ("{region}", "US-CA"),
        ("{city}", "Saint-R%C3%A9my%2F%40evil.com%3F%23"),
        ("{device}", "mobile"),
        ("{os}", "android"),
        ("{browser}", "chrome"),
        ("{timestamp}", "1795305600"),
        ("{TimeStamp}", "1795305600"),
    ];

    #[test]
    fn promise_1_scheme_host_and_port_are_the_templates() {
        for (token, _) in TOKENS {
            for text in [
                format!("https://shop.example.com:8443/a?x={token}"),
                format!("https://shop.example.com:8443?{token}"),
                format!("https://shop.example.com:8443/?{token}{token}#{token}"),
            ] {
                let url = Url::parse(&filled(&text)).unwrap();
                assert_eq!(
                    (url.scheme(), url.host_str(), url.port()),
                    ("https", Some("shop.example.com"), Some(8443)),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn promise_2_values_are_encoded() {
        for (token, value) in TOKENS {
            assert_eq!(
                filled(&format!("https://a.example/?x={token}&y")),
                format!("https://a.example/?x={value}&y")
            );
        }
        let url = filled("https://a.example/{city}/{country}?{s1}&{s2}&{s3}&{s4}&{s5}#{city}");
        assert_eq!(url.matches('/').count(), 4, "{url}");
        assert_eq!(url.matches('&').count(), 4, "{url}");
        assert_eq!((url.matches('?').count(), url.matches('#').count()), (1, 1), "{url}");
        assert!(url.bytes().all(|byte| byte.is_ascii_graphic()), "{url}");
    }

    #[test]
    fn promise_3_sub_ids_stand_only_in_the_query() {
        for text in [
            "https://a.example/{s1}",
            "https://a.example/{sub_id}?x=1",
            "https://a.example/#s1#?x=1",
            "https://a.example/{S3}/{s4}",
            "https://a.example/#x{s5}",
        ] {
            assert!(matches!(parse(text), Err(TemplateError::SubBeforeQuery(_))), "{text}");
        }
        for text in ["https://a.example/?{s1}", "https://a.example?a=#s2#", "https://a.example/?a#{s3}"] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn promise_4_a_finished_url_is_short_enough_or_there_is_none() {
        // Every byte of the value is written as three.
        let sub = "é".repeat(127);
        let click = Click { subs: [Some(&sub); SUBS], ..hostile_click() };
        let values = Values { click: &click, click_id: "c", offer: None };
        let length = |count: usize, padding: usize| {
            let text = format!("https://a.example/?{}{}", "x".repeat(padding), "{s1}".repeat(count));
            let mut out = b"Location: ".to_vec();
            let filled = parse(&text).unwrap().fill(&values, &mut out);
            filled.map(|()| out.len() - 10).map_err(|TooLong| out)
        };
        let fixed = "https://a.example/?".len();
        assert_eq!(length(10, 0), Ok(fixed + 10 * 762));
        assert_eq!(length(10, LOCATION_BYTES_MAX - fixed - 7620), Ok(LOCATION_BYTES_MAX));
        assert_eq!(length(10, LOCATION_BYTES_MAX - fixed - 7620 + 1), Err(b"Location: ".to_vec()));
        assert_eq!(length(400, 0), Err(b"Location: ".to_vec()));
    }

    #[test]
    fn hostile_templates_are_refused() {
        use TemplateError as E;
        type Expected = fn(&TemplateError) -> bool;
        let cases: &[(&str, Expected)] = &[
            ("", |e| matches!(e, E::Empty)),
            ("shop.example.com", |e| matches!(e, E::Scheme)),
            ("//shop.example.com/", |e| matches!(e, E::Scheme)),
            ("/path", |e| matches!(e, E::Scheme)),
            ("http://shop.example.com/", |e| matches!(e, E::Scheme)),
            ("javascript:alert(1)", |e| matches!(e, E::Scheme)),
            ("data:text/html,x", |e| matches!(e, E::Scheme)),
            ("https:shop.example.com", |e| matches!(e, E::Scheme)),
            ("https:/shop.example.com/", |e| matches!(e, E::Scheme)),
            ("{s1}://shop.example.com/", |e| matches!(e, E::Scheme)),
            ("éhttps://shop.example.com/", |e| matches!(e, E::Scheme)),
            ("https:/\\evil.com/", |e| matches!(e, E::Character(7))),
            ("https://shop.example.com\\@evil.com/", |e| matches!(e, E::Character(24))),
            ("ht\ttps://shop.example.com/", |e| matches!(e, E::Character(2))),
            ("https://shop.exa\nmple.com/", |e| matches!(e, E::Character(16))),
            ("https://shop.example.com/\r\nSet-Cookie: a", |e| matches!(e, E::Character(25))),
            (" https://shop.example.com/", |e| matches!(e, E::Character(0))),
            ("https://shop.example.com/a b", |e| matches!(e, E::Character(26))),
            ("https://shop.example.com/\u{7f}", |e| matches!(e, E::Character(25))),
            ("https://shop.example.com/\0", |e| matches!(e, E::Character(25))),
            ("https://user@shop.example.com/", |e| matches!(e, E::UserInfo)),
            ("https://user:pass@evil.com/", |e| matches!(e, E::UserInfo)),
            ("https://shop.example.com:443@evil.com/", |e| matches!(e, E::UserInfo)),
            ("https://@evil.com/", |e| matches!(e, E::UserInfo)),
            ("https://{country}.example.com/", |e| matches!(e, E::TokenInAuthority)),
            ("https://shop.example.com{country}/", |e| matches!(e, E::TokenInAuthority)),
            ("https://shop.example.com:{affiliate_id}/", |e| matches!(e, E::TokenInAuthority)),
            ("https://shop.example.com#affid#.evil.com", |e| matches!(e, E::TokenInAuthority)),
            ("https://shop.example.com:#oid#/", |e| matches!(e, E::TokenInAuthority)),
            ("https://#s1#/", |e| matches!(e, E::TokenInAuthority)),
            ("https://shop.example.com#nothing#.evil.com", |e| matches!(e, E::TokenInAuthority)),
            ("https:///evil.com/", |e| matches!(e, E::Host(_))),
            ("https://", |e| matches!(e, E::Host(_))),
            ("https://?x", |e| matches!(e, E::Host(_))),
            ("https://shop.example.com:99999/", |e| matches!(e, E::Host(_))),
            ("https://shop.example.com:-1/", |e| matches!(e, E::Host(_))),
            ("https://shop.example.com:80:80/", |e| matches!(e, E::Host(_))),
            ("https://shop.example.com%2f.evil.com/", |e| matches!(e, E::Host(_))),
            ("https://shop.example.com%00.evil.com/", |e| matches!(e, E::Host(_))),
            ("https://shop.example.com／.evil.com/", |e| matches!(e, E::Host(_))),
            ("https://shop.example.com＠evil.com/", |e| matches!(e, E::Host(_))),
            ("https://shop<>.example.com/", |e| matches!(e, E::Host(_))),
            ("https://shop|x.example.com/", |e| matches!(e, E::Host(_))),
            ("https://shop\"x.example.com/", |e| matches!(e, E::Host(_))),
            ("https://*.example.com/", |e| matches!(e, E::Host(_))),
            ("https://xn--a.example.com/", |e| matches!(e, E::Host(_))),
            ("https://shop..example.com/", |e| matches!(e, E::Host(_))),
            ("https://.example.com/", |e| matches!(e, E::Host(_))),
            ("https://./", |e| matches!(e, E::Host(_))),
            ("https://localhost../", |e| matches!(e, E::Host(_))),
            ("https://1.2.3.4.5/", |e| matches!(e, E::Host(_))),
            ("https://256.0.0.1/", |e| matches!(e, E::Host(_))),
            ("https://[::1/", |e| matches!(e, E::Host(_))),
            ("https://[fe80::1%25eth0]/", |e| matches!(e, E::Host(_))),
            ("https://127.0.0.1/", |e| matches!(e, E::InternalHost(_))),
            ("https://127.0.0.1./", |e| matches!(e, E::InternalHost(_))),
            ("https://0x7f.0.0.1/", |e| matches!(e, E::InternalHost(_))),
            ("https://0177.0.0.1/", |e| matches!(e, E::InternalHost(_))),
            ("https://2130706433/", |e| matches!(e, E::InternalHost(_))),
            ("https://127.1/", |e| matches!(e, E::InternalHost(_))),
            ("https://%31%32%37.0.0.1/", |e| matches!(e, E::InternalHost(_))),
            ("https://127。0。0。1/", |e| matches!(e, E::InternalHost(_))),
            ("https://１２７.0.0.1/", |e| matches!(e, E::InternalHost(_))),
            ("https://8.8.8.8/", |e| matches!(e, E::InternalHost(_))),
            ("https://[::1]/", |e| matches!(e, E::InternalHost(_))),
            ("https://[::ffff:127.0.0.1]:8443/", |e| matches!(e, E::InternalHost(_))),
            ("https://localhost/", |e| matches!(e, E::InternalHost(_))),
            ("https://LOCALHOST./", |e| matches!(e, E::InternalHost(_))),
            ("https://a.localhost/", |e| matches!(e, E::InternalHost(_))),
            ("https://a.localhost./", |e| matches!(e, E::InternalHost(_))),
            ("https://intranet/", |e| matches!(e, E::InternalHost(_))),
            ("https://com./", |e| matches!(e, E::InternalHost(_))),
        ];
        for (text, expected) in cases {
            match parse(text) {
                Ok(template) => panic!("{text:?} is taken as {template:?}"),
                Err(error) => assert!(expected(&error), "{text:?}: {error}"),
            }
        }
        let long = format!("https://a.example/?{}", "x".repeat(TEMPLATE_BYTES_MAX - 19));
        assert!(parse(&long).is_ok());
        assert_eq!(parse(&(long + "x")), Err(E::TooLong(TEMPLATE_BYTES_MAX + 1)));
    }

    #[test]
    fn what_is_written_freely_is_normalised() {
        for (text, url) in [
            ("https://shop.example.com", "https://shop.example.com/"),
            ("https://shop.example.com?x=1", "https://shop.example.com/?x=1"),
            ("https://shop.example.com#top", "https://shop.example.com/#top"),
            ("HTTPS://Shop.Example.COM/A", "https://shop.example.com/A"),
            ("https://shop.example.com:443/", "https://shop.example.com/"),
            ("https://shop.example.com:/", "https://shop.example.com/"),
            ("https://shop.example.com:080/", "https://shop.example.com:80/"),
            ("https://shop%2eexample%2Ecom/", "https://shop.example.com/"),
            ("https://shop。example.com/", "https://shop.example.com/"),
            ("https://shop.exam\u{ad}ple.com/", "https://shop.example.com/"),
            // IDN is stored as punycode; a homograph is a name of its own, and shows as one.
            ("https://bücher.example/", "https://xn--bcher-kva.example/"),
            ("https://аpple.com/", "https://xn--pple-43d.com/"),
            // What follows the origin stands as written, unless a URL cannot hold it.
            ("https://a.example/ü?ü=ü", "https://a.example/%C3%BC?%C3%BC=%C3%BC"),
            ("https://a.example/a'(b)*,;:@[!$]", "https://a.example/a'(b)*,;:@[!$]"),
            ("https://a.example/<\">|^`", "https://a.example/%3C%22%3E%7C%5E%60"),
            ("https://a.example/a%20b%zz", "https://a.example/a%20b%zz"),
            ("https://a.example/?u=https://b.example", "https://a.example/?u=https://b.example"),
            // Braces and hashes that are no tokens.
            ("https://a.example/{a", "https://a.example/%7Ba"),
            ("https://a.example/{}{a b}".replace(' ', "-").as_str(), "https://a.example/%7B%7D%7Ba-b%7D"),
            ("https://a.example/?x=1#top", "https://a.example/?x=1#top"),
            ("https://a.example/?x##oid##", "https://a.example/?x#1042#"),
            ("https://a.example/{offer_id}", "https://a.example/1042"),
            ("https://a.example/#oid#", "https://a.example/1042"),
        ] {
            assert_eq!(filled(text), url, "{text:?}");
        }
    }

    #[test]
    fn an_unknown_token_is_a_warning_and_the_empty_string() {
        let (template, warnings) =
            Template::parse("https://a.example/{nope}?x=#nada#&y={offer_id}", &Default::default()).unwrap();
        let click = hostile_click();
        let mut out = Vec::new();
        template.fill(&Values { click: &click, click_id: "c", offer: None }, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "https://a.example/?x=&y=");
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].contains("{nope}") && warnings[1].contains("#nada#"), "{warnings:?}");
    }

    #[test]
    fn an_operator_may_allow_more_or_less() {
        let relaxed = DestinationPolicy { allow_http: true, allow_internal_hosts: true, allowed_hosts: None };
        for text in
            ["http://shop.example.com/", "http://localhost:8080/", "https://10.0.0.1/", "https://[::1]/"]
        {
            assert!(Template::parse(text, &relaxed).is_ok(), "{text}");
        }
        for text in ["ftp://shop.example.com/", "http://user@localhost/", "http://{s1}/", "http://a..b/"] {
            assert!(Template::parse(text, &relaxed).is_err(), "{text}");
        }
        let listed = DestinationPolicy {
            allowed_hosts: Some(HostSet::new(["a.example", "*.b.example", "10.0.0.1"])),
            ..relaxed
        };
        for text in [
            "https://a.example/",
            "https://A.example.:8443/",
            "https://x.b.example/",
            "https://10.1/",
            "https://0x0a000001/",
        ] {
            assert!(Template::parse(text, &listed).is_ok(), "{text}");
        }
        for text in [
            "https://b.example/",
            "https://x.a.example/",
            "https://a.example.evil.com/",
            "https://10.0.0.2/",
            "https://[::1]/",
            "https://localhost/",
        ] {
            assert!(
                matches!(Template::parse(text, &listed), Err(TemplateError::HostNotAllowed(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_template_is_kept_with_the_host_that_is_sent() {
        for (written, kept) in [
            ("https://shop.example.com/a?b={s1}#c", "https://shop.example.com/a?b={s1}#c"),
            ("HTTPS://Shop.Example.COM:443/A", "https://shop.example.com/A"),
            ("https://b\u{fc}cher.example/\u{fc}", "https://xn--bcher-kva.example/\u{fc}"),
            ("https://shop.example.com:8443", "https://shop.example.com:8443"),
        ] {
            assert_eq!(Template::normalized(written, &DestinationPolicy::default()).as_deref(), Ok(kept));
        }
        let long = format!("https://b\u{fc}cher.example/{}", "a".repeat(TEMPLATE_BYTES_MAX - 24));
        assert!(Template::parse(&long, &DestinationPolicy::default()).is_ok());
        assert!(matches!(
            Template::normalized(&long, &DestinationPolicy::default()),
            Err(TemplateError::TooLong(_))
        ));
    }
}
