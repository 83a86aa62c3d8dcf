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

use super::sets::HostSet;

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
    #[error("has {0} before the ?; sub ids may stand only in the query or the fragment")]
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
        let (origin, rest) = split_origin(scheme, rest, policy)?;
        let mut warnings = Vec::new();
        let pieces = pieces(origin, rest, &mut warnings)?;
        Ok((Self { pieces }, warnings))
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
    let host = match url.host() {
        Some(Host::Domain(host)) => host.strip_suffix('.').unwrap_or(host),
        Some(_) if policy.allow_internal_hosts => "",
        Some(host) => return Err(TemplateError::InternalHost(host.to_string())),
        None => return Err(TemplateError::Host(format!("`{authority}`"))),
    };
    let internal = !host.contains('.') || host.ends_with(".localhost");
    if internal && !policy.allow_internal_hosts {
        return Err(TemplateError::InternalHost(host.to_owned()));
    }
    if let Some(allowed) = &policy.allowed_hosts {
        let shown = url.host_str().unwrap_or_default();
        if !allowed.contains(if host.is_empty() { shown } else { host }) {
            return Err(TemplateError::HostNotAllowed(shown.to_owned()));
        }
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
                None => warnings
                    .push(format!("unknown token {} is replaced by nothing", &rest[at..at + name.len() + 2])),
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
    for &byte in value.as_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
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

/// `smart_link_id` is the longest name, with thirteen bytes.
const TOKEN_NAME_BYTES_MAX: usize = 13;

const _: () = assert!(SUBS == 5, "Token::named knows five sub ids");
