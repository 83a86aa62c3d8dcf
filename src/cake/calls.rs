//! One call of a CAKE API, for a person at a terminal: any call, with any parameters, and the API's own words where
//! it refuses.
//!
//! Bounds are those of the sync's client: bytes, time, no redirects. The key goes into the query of a GET and into the
//! body of a POST, as CAKE wants it, and into no error: an upstream that repeats it in its message is not quoted with it.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use url::Url;

use super::client::{Client, PAGE_ROWS, REVISION_HEADER, ROWS_MAX, causes, hint};
use super::key::{Key, KeyError};
use super::outgoing::{Outgoing, Told};
use super::wire::FieldError;

/// An answer that says `Success`.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The answer, as it came: the API's own order of names is kept.
    pub text: String,
    /// Which state of the network it tells of, where the upstream says so.
    pub state: Option<HeaderValue>,
}

/// The rows of a list, over all its pages.
#[derive(Debug, Default)]
pub struct Rows {
    /// Each as it came.
    pub rows: Vec<Box<RawValue>>,
    /// Whether they stood under `response` or beside the status.
    pub nested: bool,
    /// Of the first page that told.
    pub state: Option<HeaderValue>,
    /// The upstream's own count, where it gives one.
    pub total_rows: Option<u64>,
    /// Two pages told of different states of the network.
    pub changed_in_between: bool,
}

/// Why a call was not done.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(
        "{upstream} gave no whole answer to {call} within {:.0} s; whether the call was done is not known",
        .after.as_secs_f32()
    )]
    Timeout { upstream: String, call: String, after: Duration },
    #[error("{upstream} cannot be reached: {reason}; is it running, and is that its address?")]
    Unreachable { upstream: String, reason: String },
    #[error(
        "{upstream} is not believed to be what it says: {reason}; if a private authority signed its certificate, name \
         that with --ca-file"
    )]
    Untrusted { upstream: String, reason: String },
    #[error("the answer to {call} broke off, or is over {body_bytes_max} bytes: {reason}")]
    Body { call: String, body_bytes_max: usize, reason: String },
    /// In the API's own words.
    #[error("{message} (HTTP {})", .status.as_u16())]
    Refused {
        status: StatusCode,
        message: String,
        /// Every parameter that is wrong, where the upstream tells: smartlink's own does.
        errors: Vec<FieldError>,
    },
    #[error(
        "{upstream} does not know the call {call} (HTTP 404); it is smartlink's own, and a CAKE that is not embedded \
         in smartlink may lack it"
    )]
    NotThere { upstream: String, call: String },
    #[error("{upstream} answers {call} with HTTP {status} and no message{hint}")]
    Status { upstream: String, call: String, status: StatusCode, hint: &'static str },
    #[error("the answer to {call} is not that of a CAKE API: {reason}; is --upstream the address of one?")]
    Foreign { call: String, reason: String },
    #[error("{call} gave more than {ROWS_MAX} rows; its pages do not seem to end")]
    Endless { call: String },
}

impl Client {
    /// GET, with the parameters in the query.
    pub async fn read(&self, call: &str, parameters: &Map<String, Value>) -> Result<Envelope, CallError> {
        let key = self.options().key.read()?;
        let mut url = self.url(call)?;
        put_into_query(&mut url, &key, parameters);
        self.exchange_within(call, &key, Method::GET, &url, HeaderMap::new(), Outgoing::default()).await
    }

    /// POST, with the parameters in a JSON body.
    pub async fn write(&self, call: &str, parameters: Map<String, Value>) -> Result<Envelope, CallError> {
        self.write_in(None, call, parameters).await
    }

    /// The same, to be done in this state of the network alone; of smartlink's own API, which refuses it in any other
    /// ([`CallError::is_outdated`]). A real CAKE knows no states, and gives none.
    pub async fn write_in(
        &self,
        state: Option<&HeaderValue>,
        call: &str,
        mut parameters: Map<String, Value>,
    ) -> Result<Envelope, CallError> {
        let key = self.options().key.read()?;
        parameters.insert(API_KEY.to_owned(), key.reveal().into());
        let body = Bytes::from(Value::Object(parameters).to_string());
        let url = self.url(call)?;
        let tag = state.and_then(|state| state.to_str().ok()).map(|state| format!("\"{state}\""));
        let tag = tag.and_then(|tag| HeaderValue::try_from(tag).ok());
        let headers = tag.map(|tag| (header::IF_MATCH, tag)).into_iter().collect();
        self.exchange_within(call, &key, Method::POST, &url, headers, Outgoing::new(body, None)).await
    }

    /// POST of a long JSON body, with the key in the head of the request: whoever receives it knows from whom it is
    /// before taking it in. `told` hears of each piece.
    pub async fn send(&self, call: &str, body: Bytes, told: Told) -> Result<Envelope, CallError> {
        let key = self.options().key.read()?;
        let url = self.url(call)?;
        let mut headers = HeaderMap::new();
        if let Ok(mut bearer) = HeaderValue::from_str(&format!("Bearer {}", key.reveal())) {
            bearer.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, bearer);
        }
        self.exchange_within(call, &key, Method::POST, &url, headers, Outgoing::new(body, Some(told))).await
    }

    /// Reads pages of a list until a short one, or until there are `limit` rows. `told` hears of the rows of each page.
    pub async fn rows(
        &self,
        call: &str,
        list: &str,
        parameters: &Map<String, Value>,
        limit: Option<usize>,
        told: impl Fn(usize),
    ) -> Result<Rows, CallError> {
        let limit = limit.unwrap_or(usize::MAX);
        let mut all = Rows::default();
        loop {
            let row_limit = PAGE_ROWS.min(limit - all.rows.len());
            let mut asked = parameters.clone();
            asked.insert("start_at_row".to_owned(), all.rows.len().into());
            asked.insert("row_limit".to_owned(), row_limit.into());
            let envelope = self.read(call, &asked).await?;
            let page = envelope.page(call, list)?;
            let rows = page.rows.len();
            told(rows);
            all.changed_in_between |=
                all.state.is_some() && envelope.state.is_some() && all.state != envelope.state;
            all.state = all.state.or(envelope.state);
            all.nested = page.nested;
            all.total_rows = page.total_rows;
            all.rows.extend(page.rows);
            if rows < row_limit || all.rows.len() >= limit {
                // An upstream that does not heed `row_limit` gives more than was asked for.
                all.rows.truncate(limit);
                return Ok(all);
            }
            if all.rows.len() > ROWS_MAX {
                return Err(CallError::Endless { call: call.to_owned() });
            }
        }
    }

    fn url(&self, call: &str) -> Result<Url, CallError> {
        self.call_url(call).map_err(|reason| CallError::Unreachable { upstream: self.shown(), reason })
    }

    /// The upstream, for a message. Its URL holds no key: that is added for each call.
    fn shown(&self) -> String {
        self.options().upstream.as_str().trim_end_matches('/').to_owned()
    }

    async fn exchange_within(
        &self,
        call: &str,
        key: &Key,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Outgoing,
    ) -> Result<Envelope, CallError> {
        let after = self.options().call_timeout;
        tokio::time::timeout(after, self.one_exchange(call, key, method, url, headers, body))
            .await
            .unwrap_or_else(|_| {
                Err(CallError::Timeout { upstream: self.shown(), call: call.to_owned(), after })
            })
    }

    async fn one_exchange(
        &self,
        call: &str,
        key: &Key,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Outgoing,
    ) -> Result<Envelope, CallError> {
        let unreachable = |reason: String| CallError::Unreachable { upstream: self.shown(), reason };
        let is_write = method == Method::POST;
        // The URL may hold the key: whatever is wrong with it is not shown.
        let mut request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("smartlink/", env!("CARGO_PKG_VERSION")))
            .body(body)
            .map_err(|_| unreachable("its URL is not a valid URI".to_owned()))?;
        request.headers_mut().extend(headers);
        if is_write {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        let answer = self.request(request).await.map_err(|error| match is_of_certificate(&error) {
            true => CallError::Untrusted { upstream: self.shown(), reason: causes(&error) },
            false => unreachable(causes(&error)),
        })?;
        let status = answer.status();
        // An `ETag`, which others give, is of one answer, and not of the network.
        let state = answer.headers().get(REVISION_HEADER).cloned();
        let body_bytes_max = self.options().body_bytes_max;
        let body = Limited::new(answer.into_body(), body_bytes_max).collect().await.map_err(|error| {
            CallError::Body { call: call.to_owned(), body_bytes_max, reason: causes(error.as_ref()) }
        })?;
        self.read_answer(call, key, status, &body.to_bytes())
            .map(|text| Envelope { text: text.to_owned(), state })
    }

    /// The text of an answer that is a success; else the best that can be said of it.
    fn read_answer<'a>(
        &self,
        call: &str,
        key: &Key,
        status: StatusCode,
        body: &'a [u8],
    ) -> Result<&'a str, CallError> {
        let text = std::str::from_utf8(body).map_err(|error| error.to_string());
        let top = text.as_ref().map_err(String::clone).and_then(|text| {
            serde_json::from_str::<HashMap<String, &RawValue>>(text).map_err(|error| error.to_string())
        });
        let word = |name: &str| {
            let raw = top.as_ref().ok().and_then(|top| top.get(name))?;
            serde_json::from_str::<String>(raw.get()).ok()
        };
        let said = word("request_status");
        let succeeded = said.as_ref().is_some_and(|said| said.eq_ignore_ascii_case("success"));
        if status.is_success() && succeeded {
            return text.map_err(|reason| CallError::Foreign { call: call.to_owned(), reason });
        }
        if let Some(message) = word("message") {
            let errors = top.as_ref().ok().and_then(|top| top.get("errors"));
            let errors = errors.and_then(|raw| serde_json::from_str::<Vec<ToldError>>(raw.get()).ok());
            let told = |error: ToldError| {
                FieldError::new(presentable(&error.parameter, key), presentable(&error.problem, key))
            };
            return Err(CallError::Refused {
                status,
                message: presentable(&message, key),
                errors: errors.unwrap_or_default().into_iter().map(told).collect(),
            });
        }
        let (upstream, call) = (self.shown(), call.to_owned());
        if status == StatusCode::NOT_FOUND && !CAKES_OWN.contains(&call.as_str()) {
            return Err(CallError::NotThere { upstream, call });
        }
        if !status.is_success() {
            return Err(CallError::Status { upstream, call, status, hint: hint(status) });
        }
        let reason = match (top, said) {
            (Err(reason), _) => format!("it is not JSON ({reason})"),
            (Ok(_), Some(said)) => format!("its request_status is {:?}", presentable(&said, key)),
            (Ok(_), None) => "it has no request_status".to_owned(),
        };
        Err(CallError::Foreign { call, reason })
    }
}

/// An item of `errors` in a refusal.
#[derive(Deserialize)]
struct ToldError {
    parameter: String,
    problem: String,
}

impl CallError {
    /// Whether the network is not in the state any more in which the change was to be done.
    pub fn is_outdated(&self) -> bool {
        matches!(self, CallError::Refused { status, .. } if *status == StatusCode::PRECONDITION_FAILED)
    }
}

impl Envelope {
    /// The whole answer as a value; null if it is none, which [`Client`] has excluded.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// What stands under `response`.
    pub fn response<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        #[derive(Deserialize)]
        struct Wrapped<T> {
            response: T,
        }
        serde_json::from_str(&self.text).map(|wrapped: Wrapped<T>| wrapped.response)
    }

    /// A list under `response` or beside the status: both published dialects.
    fn page(&self, call: &str, list: &str) -> Result<Rows, CallError> {
        let foreign = |reason: String| CallError::Foreign { call: call.to_owned(), reason };
        let json = |error: serde_json::Error| foreign(error.to_string());
        let top: HashMap<String, &RawValue> = serde_json::from_str(&self.text).map_err(json)?;
        let inner: HashMap<String, &RawValue> = match top.get("response") {
            Some(response) => serde_json::from_str(response.get()).map_err(json)?,
            None => HashMap::new(),
        };
        let nested = inner.contains_key(list);
        let beside = if nested { &inner } else { &top };
        let rows = beside.get(list).ok_or_else(|| foreign(format!("it has no list `{list}`")))?;
        Ok(Rows {
            rows: serde_json::from_str(rows.get()).map_err(json)?,
            nested,
            total_rows: beside.get("total_rows").and_then(|total| total.get().parse().ok()),
            ..Rows::default()
        })
    }
}

fn put_into_query(url: &mut Url, key: &Key, parameters: &Map<String, Value>) {
    let mut pairs = url.query_pairs_mut();
    pairs.clear().append_pair(API_KEY, key.reveal());
    for (name, value) in parameters {
        match value {
            Value::String(text) => pairs.append_pair(name, text),
            value => pairs.append_pair(name, &value.to_string()),
        };
    }
}

/// Whether a certificate of the upstream was refused. Such an error travels inside of I/O errors, which do not tell of
/// it as their source.
fn is_of_certificate(error: &(dyn Error + 'static)) -> bool {
    if let Some(held) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return is_of_certificate(held);
    }
    matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
        || error.source().is_some_and(is_of_certificate)
}

/// A message of the upstream as it may be shown: one line, no control characters, not endless, and not the key.
fn presentable(message: &str, key: &Key) -> String {
    let mut shown = String::new();
    for word in message.replace(key.reveal(), "…").split_whitespace() {
        let gap = if shown.is_empty() { "" } else { " " };
        let _ = write!(shown, "{gap}{}", word.replace(char::is_control, ""));
    }
    match shown.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((cut, _)) => format!("{}…", &shown[..cut]),
        None => shown,
    }
}

const API_KEY: &str = "api_key";

/// A sentence, with room for a list of what would have been right.
const MESSAGE_CHARS_MAX: usize = 1000;

/// The calls that CAKE documents; every other is ours, and a real CAKE may lack it.
const CAKES_OWN: [&str; 8] = [
    "smart_links.json",
    "smart_link.json",
    "smart_link_offer.json",
    "offers.json",
    "offer.json",
    "update_offer.json",
    "offer_geo_targets.json",
    "update_offer_geo_targets.json",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cake::{ClientOptions, KeySource};

    fn read(call: &str, status: u16, body: &str) -> Result<String, String> {
        let options = ClientOptions {
            upstream: Url::parse("http://cake.example.com").unwrap(),
            key: KeySource::Environment("UNUSED".to_owned()),
            call_timeout: Duration::from_secs(1),
            body_bytes_max: 1,
            ca_file: None,
            rows_max: 1,
        };
        let client = Client::new(options).unwrap();
        let key = Key::new("canary").unwrap();
        client
            .read_answer(call, &key, StatusCode::from_u16(status).unwrap(), body.as_bytes())
            .map(str::to_owned)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_refusal_is_told_in_the_apis_words() {
        let body = r#"{"request_status":"Error","message":"`offer_id` 9 does not exist"}"#;
        assert_eq!(read("offer.json", 404, body).unwrap_err(), "`offer_id` 9 does not exist (HTTP 404)");
        let body = r#"{"request_status":"Error","message":"no"}"#;
        assert_eq!(read("offer.json", 200, body).unwrap_err(), "no (HTTP 200)");
    }

    #[test]
    fn a_message_is_one_line_without_the_key() {
        let body = r#"{"request_status":"Error","message":"the key canary\n\u001b[31m is\u0007 wrong"}"#;
        assert_eq!(read("offer.json", 401, body).unwrap_err(), "the key … [31m is wrong (HTTP 401)");
        let long = format!(r#"{{"request_status":"Error","message":"{}"}}"#, "x".repeat(5000));
        assert!(read("offer.json", 400, &long).unwrap_err().len() < 1100);
    }

    #[test]
    fn what_is_no_envelope_is_named() {
        for (call, status, body, said) in [
            ("offers.json", 200, "<html>", "not that of a CAKE API: it is not JSON"),
            ("offers.json", 200, "{}", "has no request_status"),
            ("offers.json", 200, r#"{"request_status":"Later"}"#, "\"Later\""),
            ("offers.json", 404, "<html>", "answers offers.json with HTTP 404"),
            ("routing_rules.json", 404, "<html>", "does not know the call routing_rules.json"),
            ("offers.json", 401, "", "check the API key"),
            ("offers.json", 302, "", "redirects are not followed"),
        ] {
            let error = read(call, status, body).unwrap_err();
            assert!(error.contains(said), "{call} {status} {body}: {error}");
        }
        assert!(read("offers.json", 200, r#"{"request_status":"success"}"#).is_ok());
    }

    #[test]
    fn both_dialects_have_rows() {
        for (text, nested) in [
            (
                r#"{"request_status":"Success","response":{"smart_links":[{"b":1,"a":2}],"total_rows":7}}"#,
                true,
            ),
            (r#"{"request_status":"Success","smart_links":[{"b":1,"a":2}],"total_rows":7}"#, false),
        ] {
            let envelope = Envelope { text: text.to_owned(), state: None };
            let page = envelope.page("smart_links.json", "smart_links").unwrap();
            assert_eq!((page.rows[0].get(), page.nested), (r#"{"b":1,"a":2}"#, nested));
            assert_eq!(page.total_rows, Some(7));
            assert!(envelope.page("x.json", "offers").is_err());
        }
    }
}
