//! What the sender of a postback hears: one verdict, in the format that was asked for.
//!
//! The status says it to machines, whatever the format. A person reads the sentence, in all formats but the image: there,
//! the answer to a refusal is the same transparent pixel, so that no page shows a broken image, under the right status. No
//! answer is empty, nor may be: see `last_word.rs`.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;

use crate::edge::reply::Reply;
use crate::state::ConversionCount;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A line of text: for servers.
    Postback,
    /// A transparent pixel: for `<img>`.
    Image,
    /// A script that does nothing: for `<script>`.
    Script,
    /// The envelope of the API.
    Json,
}

/// What came of a postback.
#[derive(Debug)]
pub(super) struct Verdict {
    pub count: ConversionCount,
    pub status: StatusCode,
    /// Without quotes, backslashes and ends of comments: it stands in JSON and in a script as it is.
    pub sentence: Cow<'static, str>,
    header: Option<(HeaderName, HeaderValue)>,
    closes: bool,
}

impl Format {
    /// As `f` names it.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "pb" => Some(Format::Postback),
            "img" => Some(Format::Image),
            "js" => Some(Format::Script),
            _ => None,
        }
    }

    /// What a query asks for, even if nothing else of it can be read.
    pub fn asked_in(query: &str) -> Self {
        let asked = query.split('&').find_map(|pair| pair.strip_prefix("f="));
        asked.and_then(Self::named).unwrap_or(Format::Postback)
    }

    const fn media_type(self) -> &'static str {
        match self {
            Format::Postback => "text/plain; charset=utf-8",
            Format::Image => "image/gif",
            Format::Script => "application/javascript; charset=utf-8",
            Format::Json => "application/json",
        }
    }

    fn body(self, verdict: &Verdict) -> Bytes {
        let Verdict { count, sentence, .. } = verdict;
        let text = match (self, count) {
            (Format::Image, _) => return Bytes::from_static(PIXEL),
            (Format::Postback, ConversionCount::Counted) => return Bytes::from_static(b"SUCCESS\n"),
            (Format::Postback, ConversionCount::Repeated) => {
                return Bytes::from_static(b"SUCCESS, already counted\n");
            }
            (Format::Postback, _) => format!("{sentence}\n"),
            (Format::Script, _) => format!("/* {sentence} */;\n"),
            (Format::Json, ConversionCount::Counted | ConversionCount::Repeated) => format!(
                "{{\"request_status\":\"Success\",\"message\":\"{sentence}\",\"response\":{{\"result\":\"{}\"}}}}\n",
                count.as_str()
            ),
            (Format::Json, _) => format!("{{\"request_status\":\"Error\",\"message\":\"{sentence}\"}}\n"),
        };
        Bytes::from(text)
    }
}

impl Verdict {
    pub fn new(count: ConversionCount, status: StatusCode, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self { count, status, sentence: sentence.into(), header: None, closes: false }
    }

    /// 400.
    pub fn invalid(sentence: &'static str) -> Self {
        Self::new(ConversionCount::Invalid, StatusCode::BAD_REQUEST, sentence)
    }

    pub fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    /// The last answer on its connection: what follows on it cannot be trusted.
    pub fn closing(self) -> Self {
        Self { closes: true, ..self }
    }
}

/// Writes the answer.
pub(super) fn write(format: Format, verdict: &Verdict) -> Reply {
    let mut reply = Response::new(Full::new(format.body(verdict)));
    *reply.status_mut() = verdict.status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some((name, value)) = &verdict.header {
        headers.insert(name, value.clone());
    }
    if verdict.closes {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    reply
}

/// GIF89a, 1×1, transparent: 43 bytes.
const PIXEL: &[u8] = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixel_of_43_bytes() {
        assert_eq!(PIXEL.len(), 43);
    }

    #[test]
    fn the_format_is_known_before_anything_else() {
        for (query, format) in [
            ("", Format::Postback),
            ("f=img", Format::Image),
            ("r=%FF&r=1&f=js", Format::Script),
            ("f=gif&f=img", Format::Postback),
            ("of=img", Format::Postback),
        ] {
            assert_eq!(Format::asked_in(query), format, "{query}");
        }
    }

    #[test]
    fn no_answer_is_empty() {
        for format in [Format::Postback, Format::Image, Format::Script, Format::Json] {
            for count in ConversionCount::ALL {
                let body = format.body(&Verdict::new(count, StatusCode::OK, "A sentence."));
                assert!(!body.is_empty());
                if format == Format::Json {
                    serde_json::from_slice::<serde_json::Value>(&body).unwrap();
                }
            }
        }
    }
}
