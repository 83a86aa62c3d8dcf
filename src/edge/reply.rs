//! What a visitor hears. Every answer of the click path is made here, and written for whoever has read the request; what is
//! refused before it, in `last_word.rs`.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, REFERRER_POLICY,
};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use crate::types::UnixMillis;

/// Whole in memory, and mostly empty: as hyper writes it.
pub type Reply = Response<Full<Bytes>>;

/// The answer to a click.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// 302 to a finished destination, which is ASCII and prints.
    Redirect {
        location: &'a [u8],
        referrer_policy: &'a HeaderValue,
    },
    Sentence(Sentence),
}

/// An answer for people: a status and one sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sentence {
    status: StatusCode,
    text: &'static str,
    /// After it the connection closes: what follows on it cannot be trusted.
    closes: bool,
}

impl<'a> Answer<'a> {
    /// 302 to what a template has become. It is ASCII by construction; were it not, there would be no answer rather than a
    /// broken header.
    pub(super) fn redirect(location: &'a [u8], referrer_policy: &'a HeaderValue) -> Option<Self> {
        // Every byte is looked at, without a branch for each: compilers make a few instructions of it.
        let prints = location.iter().fold(true, |prints, &byte| prints & (byte > 0x20) & (byte < 0x7f));
        prints.then_some(Self::Redirect { location, referrer_policy })
    }

    /// Whether it is the last one on its connection.
    pub(super) fn closes(&self) -> bool {
        matches!(self, Self::Sentence(Sentence { closes: true, .. }))
    }

    /// Appends it to what goes out.
    pub(super) fn write(&self, closes: bool, date: &[u8], out: &mut Vec<u8>) {
        let text = match *self {
            Self::Redirect { location, referrer_policy } => {
                out.extend_from_slice(b"HTTP/1.1 302 Found\r\nlocation: ");
                out.extend_from_slice(location);
                out.extend_from_slice(b"\r\ncache-control: no-store\r\nreferrer-policy: ");
                out.extend_from_slice(referrer_policy.as_bytes());
                ""
            }
            Self::Sentence(Sentence { status, text, .. }) => {
                out.extend_from_slice(b"HTTP/1.1 ");
                out.extend_from_slice(status.as_str().as_bytes());
                out.push(b' ');
                out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
                if status == StatusCode::METHOD_NOT_ALLOWED {
                    out.extend_from_slice(b"\r\nallow: GET, HEAD");
                }
                out.extend_from_slice(
                    b"\r\ncontent-type: text/plain; charset=utf-8\r\ncache-control: no-store",
                );
                text
            }
        };
        out.extend_from_slice(b"\r\ncontent-length: ");
        out.extend_from_slice(itoa::Buffer::new().format(text.len()).as_bytes());
        if closes {
            out.extend_from_slice(b"\r\nconnection: close");
        }
        out.extend_from_slice(b"\r\ndate: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(text.as_bytes());
    }

    /// For hyper to write.
    pub(super) fn into_reply(self) -> Reply {
        let mut reply = Response::new(Full::default());
        match self {
            Self::Redirect { location, referrer_policy } => {
                let Ok(location) = HeaderValue::from_bytes(location) else {
                    return Self::from(Sentence::NO_DESTINATION).into_reply();
                };
                *reply.status_mut() = StatusCode::FOUND;
                let headers = reply.headers_mut();
                headers.insert(LOCATION, location);
                headers.insert(CACHE_CONTROL, NO_STORE);
                headers.insert(REFERRER_POLICY, referrer_policy.clone());
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            Self::Sentence(Sentence { status, text, closes }) => {
                *reply.body_mut() = Full::new(Bytes::from_static(text.as_bytes()));
                *reply.status_mut() = status;
                let headers = reply.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
                headers.insert(CACHE_CONTROL, NO_STORE);
                if status == StatusCode::METHOD_NOT_ALLOWED {
                    headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                }
                if closes {
                    headers.insert(CONNECTION, HeaderValue::from_static("close"));
                }
            }
        }
        reply
    }
}

impl From<Sentence> for Answer<'_> {
    fn from(sentence: Sentence) -> Self {
        Self::Sentence(sentence)
    }
}

impl Sentence {
    /// The link has no destination, and neither link nor network has a fallback.
    pub(super) const NO_DESTINATION: Self =
        Self::new(StatusCode::NOT_FOUND, "This link leads nowhere at the moment.\n");

    /// For a bot, where the policy says so.
    pub(super) const FORBIDDEN: Self =
        Self::new(StatusCode::FORBIDDEN, "Automated requests are not served here.\n");

    /// The click log is full, and no click goes without a record.
    pub(super) const NOT_RECORDED: Self = Self::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "This click cannot be recorded at the moment; try again later.\n",
    );

    /// For anything but GET and HEAD.
    pub(super) const METHOD_NOT_ALLOWED: Self =
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Clicks are GET or HEAD.\n");

    pub(super) const fn new(status: StatusCode, text: &'static str) -> Self {
        Self { status, text, closes: false }
    }

    pub(super) const fn bad_request(text: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// The same, as the last one on its connection.
    pub(super) const fn closing(self) -> Self {
        Self { closes: true, ..self }
    }
}

/// `Date` as text, spelled once a second.
#[derive(Debug)]
pub(super) struct Dates {
    second: i64,
    text: String,
}

impl Default for Dates {
    fn default() -> Self {
        Self { second: i64::MIN, text: String::new() }
    }
}

impl Dates {
    pub fn text(&mut self, at: UnixMillis) -> &[u8] {
        let second = at.seconds();
        if second != self.second {
            self.second = second;
            let since_1970 = Duration::from_secs(u64::try_from(second).unwrap_or_default());
            self.text = httpdate::fmt_http_date(UNIX_EPOCH + since_1970);
        }
        self.text.as_bytes()
    }
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
