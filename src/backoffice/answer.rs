//! What a caller hears: an [`Answer`] in CAKE's envelope, or a [`Refusal`] with the status and message of SPEC 7.
//!
//! A refusal names the parameter and what was expected. It never says a key, and of our own failures only that there
//! was one: what failed goes to the log.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::rate::Rate;
use crate::cake::REVISION_HEADER;
use crate::cake::wire::FieldError;

/// A success, already written.
#[derive(Debug)]
pub struct Answer {
    body: Vec<u8>,
    /// Which state of the network it tells of; known of lists.
    revision: Option<String>,
    /// The call changed nothing.
    is_idle: bool,
}

/// The list `noun` of a page, beside the number of rows of all pages.
pub struct Rows<T> {
    pub noun: &'static str,
    pub rows: Vec<T>,
    pub total_rows: i64,
}

/// Why a call was not done. The store is as if it had not been made.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A parameter is missing, repeated, unknown, or not of its type.
    #[error("{0}")]
    Malformed(FieldError),
    /// The body as a whole cannot be read.
    #[error("the body {0}")]
    Body(String),
    #[error("`api_key` is {0}; give the key of this API as a parameter, or as `Authorization: Bearer`")]
    Key(&'static str),
    /// A parameter names something that is not there.
    #[error("{0}")]
    Unknown(FieldError),
    #[error("there is no call `{0}`; calls are named like /api/2/smart_links.json")]
    Path(String),
    #[error("this call takes {allowed} only")]
    Method { allowed: &'static str },
    #[error(
        "{who} may make {} calls at once and {} a second, and made more; wait {wait_seconds} s, as Retry-After says",
        .rate.burst(), .rate.per_second()
    )]
    TooMany { who: &'static str, rate: Rate, wait_seconds: u64 },
    #[error("the body did not come within {} s; send it at once, or in smaller calls", .0.as_secs_f64())]
    Slow(Duration),
    #[error("the body is longer than the {0} bytes that are allowed")]
    TooLarge(usize),
    /// A parameter is well-formed, but its value is refused.
    #[error("{0}")]
    Value(#[from] FieldError),
    /// Several parameters are wrong; the first is told in the message.
    #[error("{first}")]
    Several { first: Box<Refusal>, others: Vec<FieldError> },
    /// Something else came first.
    #[error("{0}")]
    Conflict(String),
    /// The network is in another state than `If-Match` names.
    #[error(
        "the network is not in the state that If-Match names: it was changed; read it again, and decide with that"
    )]
    Outdated,
    /// The ledger cannot answer, which is no fault of the caller's.
    #[error("{0}")]
    Ledger(String),
    #[error("the call failed inside the server, whose log says why; nothing was changed")]
    Store(#[from] rusqlite::Error),
    #[error("the call failed inside the server, whose log says why; nothing was changed")]
    Broken(String),
}

impl Answer {
    /// CAKE's envelope around these fields.
    pub fn new(fields: impl Serialize) -> Result<Self, Refusal> {
        Self::write(&Envelope { request_status: "Success", message: None, fields })
    }

    /// The envelope with a word on what was done.
    pub fn with_message(message: &'static str, fields: impl Serialize) -> Result<Self, Refusal> {
        Self::write(&Envelope { request_status: "Success", message: Some(message), fields })
    }

    fn write(envelope: &impl Serialize) -> Result<Self, Refusal> {
        let mut body = serde_json::to_vec(envelope).map_err(|error| Refusal::Broken(error.to_string()))?;
        // So that a shell's prompt does not stick to it.
        body.push(b'\n');
        Ok(Self { body, revision: None, is_idle: false })
    }

    /// Says whether everything was already as the call wants it. Then the network keeps its state, and nobody reads it
    /// again for nothing.
    pub fn idle_if(self, is_idle: bool) -> Self {
        Self { is_idle, ..self }
    }

    pub fn is_idle(&self) -> bool {
        self.is_idle
    }

    /// Says of which state of the network the answer tells, so that a reader of many pages notices a change between
    /// two of them.
    pub fn of_revision(self, revision: String) -> Self {
        Self { revision: Some(revision), ..self }
    }
}

impl Refusal {
    /// A parameter that is not of its form.
    pub fn malformed(parameter: &str, problem: impl Into<String>) -> Self {
        Refusal::Malformed(FieldError::new(parameter, problem))
    }

    /// A parameter that names nothing.
    pub fn unknown(parameter: &str, id: i64) -> Self {
        Refusal::Unknown(FieldError::new(parameter, format!("{id} does not exist")))
    }

    pub fn not_attached(offer: i64, link: i64) -> Self {
        Refusal::Unknown(FieldError::new("offer_id", format!("{offer} is not attached to smart link {link}")))
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::Several { first, .. } => first.status(),
            Refusal::Malformed(_) | Refusal::Body(_) => StatusCode::BAD_REQUEST,
            Refusal::Key(_) => StatusCode::UNAUTHORIZED,
            Refusal::Unknown(_) | Refusal::Path(_) => StatusCode::NOT_FOUND,
            Refusal::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Slow(_) => StatusCode::REQUEST_TIMEOUT,
            Refusal::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Value(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::Conflict(_) => StatusCode::CONFLICT,
            Refusal::Outdated => StatusCode::PRECONDITION_FAILED,
            Refusal::Ledger(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Store(_) | Refusal::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The parameter that is wrong, if it is one alone.
    pub fn field(&self) -> Option<&FieldError> {
        match self {
            Refusal::Malformed(error) | Refusal::Unknown(error) | Refusal::Value(error) => Some(error),
            _ => None,
        }
    }

    /// Every parameter that is wrong.
    pub fn fields(&self) -> impl Iterator<Item = &FieldError> {
        let (first, others) = match self {
            Refusal::Several { first, others } => (first.field(), others.as_slice()),
            other => (other.field(), [].as_slice()),
        };
        first.into_iter().chain(others)
    }

    /// What the log keeps of our own failures, and of no other.
    pub fn fault(&self) -> Option<String> {
        match self {
            Refusal::Store(error) => Some(error.to_string()),
            Refusal::Broken(problem) => Some(problem.clone()),
            _ => None,
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (StatusCode::OK, JSON_HEADERS, self.body).into_response();
        if let Some(revision) = self.revision.and_then(|revision| HeaderValue::try_from(revision).ok()) {
            response.headers_mut().insert(REVISION_HEADER, revision);
        }
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = serde_json::json!({ "request_status": "Error", "message": self.to_string() });
        let errors: Vec<_> = self
            .fields()
            .map(|error| serde_json::json!({ "parameter": error.parameter, "problem": error.problem }))
            .collect();
        if !errors.is_empty() {
            body["errors"] = errors.into();
        }
        let mut body = body.to_string();
        body.push('\n');
        let mut response = (self.status(), JSON_HEADERS, body).into_response();
        match self {
            Refusal::Method { allowed } => {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            }
            Refusal::Slow(_) => {
                // What may still come of the body is not the next request.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Refusal::TooMany { wait_seconds, .. } => {
                response.headers_mut().insert(RETRY_AFTER, wait_seconds.into());
            }
            Refusal::Key(_) => {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

impl<T: Serialize> Serialize for Rows<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry(self.noun, &self.rows)?;
        map.serialize_entry("total_rows", &self.total_rows)?;
        map.end()
    }
}

/// CAKE puts what was asked for under `response` in its Smart Links calls, and beside the status in the others.
#[derive(serde::Serialize)]
pub struct Under<T> {
    pub response: T,
}

#[derive(serde::Serialize)]
struct Envelope<T> {
    request_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    #[serde(flatten)]
    fields: T,
}

/// Answers change with every call, and their addresses may hold a key: no cache should keep them.
const JSON_HEADERS: [(HeaderName, &str); 2] =
    [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
