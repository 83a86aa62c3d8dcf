//! What a visitor hears. Every answer of the click path is made here; what is refused before it, in `last_word.rs`.

use std::mem;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, REFERRER_POLICY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;

/// Whole in memory, and mostly empty.
pub type Reply = Response<Full<Bytes>>;

/// 302 to a finished destination. `location` comes from a template and is ASCII by construction; were it not,
/// there would be no answer rather than a broken header. `room` is empty, and its memory is taken for the headers.
pub fn redirect(location: &[u8], referrer_policy: &HeaderValue, room: &mut HeaderMap) -> Option<Reply> {
    let location = HeaderValue::from_bytes(location).ok()?;
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = StatusCode::FOUND;
    let headers = reply.headers_mut();
    *headers = mem::take(room);
    headers.insert(LOCATION, location);
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(REFERRER_POLICY, referrer_policy.clone());
    headers.insert(CONTENT_LENGTH, ZERO);
    Some(reply)
}

/// 404: the link has no destination, and neither link nor network has a fallback.
pub fn no_destination() -> Reply {
    text(StatusCode::NOT_FOUND, "This link leads nowhere at the moment.\n")
}

/// 404 for a path that is not ours.
pub fn not_found(sentence: &'static str) -> Reply {
    text(StatusCode::NOT_FOUND, sentence)
}

/// 400 with one sentence.
pub fn bad_request(sentence: &'static str) -> Reply {
    text(StatusCode::BAD_REQUEST, sentence)
}

/// 400 with one sentence, after which the connection closes: what follows on it cannot be trusted.
pub fn bad_framing(sentence: &'static str) -> Reply {
    let mut reply = bad_request(sentence);
    reply.headers_mut().insert(CONNECTION, CLOSE);
    reply
}

/// 403 for a bot, where the policy says so.
pub fn forbidden() -> Reply {
    text(StatusCode::FORBIDDEN, "Automated requests are not served here.\n")
}

/// 503: the click log is full, and no click goes without a record.
pub fn not_recorded() -> Reply {
    text(StatusCode::SERVICE_UNAVAILABLE, "This click cannot be recorded at the moment; try again later.\n")
}

/// 405 for anything but GET and HEAD.
pub fn method_not_allowed() -> Reply {
    let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "Clicks are GET or HEAD.\n");
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    reply
}

fn text(status: StatusCode, sentence: &'static str) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from_static(sentence.as_bytes())));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, NO_STORE);
    reply
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const ZERO: HeaderValue = HeaderValue::from_static("0");
const CLOSE: HeaderValue = HeaderValue::from_static("close");
