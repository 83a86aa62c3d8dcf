//! The life of one request: find the call, read the parameters, check the key, run the call on the store.
//!
//! A call is a plain function of a transaction, the options and the parameters. It runs on a blocking thread, in one
//! transaction, which is kept if it answers and undone if it refuses.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::Method;
use http_body_util::BodyExt;
use rusqlite::Transaction;

use super::answer::{Answer, Refusal};
use super::call::{Call, Verb};
use super::contract::DRY_RUN;
use super::parameters::{Parameters, PresentedKeys};
use super::precondition::Precondition;
use super::{Backoffice, CALLS, caps, revision, store};

/// Answers `/api/openapi.json`.
pub async fn describe() -> impl IntoResponse {
    ([(http::header::CONTENT_TYPE, "application/json")], super::openapi::document().to_string())
}

/// Answers everything under `/api/2`, in JSON whatever happens.
pub async fn handle(State(backoffice): State<Backoffice>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    respond(&path, answer(backoffice, request).await)
}

/// What the caller hears; of our own failures, the log hears more.
pub fn respond(path: &str, answered: Result<Answer, Refusal>) -> Response {
    match answered {
        Ok(answer) => answer.into_response(),
        Err(refusal) => {
            if let Some(fault) = refusal.fault() {
                // The path alone: the query may hold a key.
                tracing::error!(path, %fault, "a call of the API failed");
            }
            refusal.into_response()
        }
    }
}

async fn answer(backoffice: Backoffice, request: Request) -> Result<Answer, Refusal> {
    let (head, body) = request.into_parts();
    let call = find_call(head.uri.path(), &head.method)?;
    let patience = backoffice.options().limits.body_read_timeout;
    let body = tokio::time::timeout(patience, read_body(body, BODY_BYTES_MAX))
        .await
        .map_err(|_| Refusal::Slow(patience))??;

    let mut keys = PresentedKeys::default();
    let mut parameters = Parameters::default();
    parameters.add_query(head.uri.query().unwrap_or_default(), &mut keys)?;
    let in_query = parameters.first_name().map(str::to_owned);
    parameters.add_body(&head.headers, &body, &mut keys)?;
    keys.add_bearer(&head.headers);
    let (backoffice, parameters) = blocking(move || {
        check_key(&backoffice, &keys)?;
        check_names(call, in_query.as_deref(), &parameters)?;
        Ok((backoffice, parameters))
    })
    .await?;
    if call.name == revision::WATCH.name {
        revision::Awaited::read(&parameters)?.wait(backoffice.store().revisions()).await;
    }
    let precondition = Precondition::read(&head.headers);
    blocking(move || run(call, &backoffice, &parameters, &precondition)).await
}

/// Whether the keys that came with a call let it in. Blocks.
pub fn check_key(backoffice: &Backoffice, keys: &PresentedKeys) -> Result<(), Refusal> {
    backoffice.gate().admit(backoffice.store(), backoffice.options(), keys)
}

/// Does what blocks on a thread that may.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Refusal::Broken(error.to_string())))
}

/// Refuses what a call that changes the network would pass over.
fn check_names(call: &Call, in_query: Option<&str>, parameters: &Parameters) -> Result<(), Refusal> {
    if call.verb == Verb::Write {
        if let Some(name) = in_query {
            return Err(Refusal::malformed(
                name,
                "stands in the query; the parameters of a POST go in its body",
            ));
        }
        parameters.refuse_unknown(&[call.parameters, &[DRY_RUN]].concat())?;
    }
    Ok(())
}

fn run(
    call: &Call,
    backoffice: &Backoffice,
    parameters: &Parameters,
    precondition: &Precondition,
) -> Result<Answer, Refusal> {
    let options = backoffice.options();
    match call.verb {
        Verb::Read if call.name == caps::LIST.name => {
            // Asked before the store is held: the ledger may be elsewhere.
            let states = backoffice.cap_states();
            read(backoffice, |transaction| caps::list(transaction, parameters, states.as_ref()))
        }
        Verb::Read => read(backoffice, |transaction| (call.run)(transaction, options, parameters)),
        Verb::Write => backoffice.store().write_if(|transaction| {
            precondition.check(transaction)?;
            let is_tried_out = parameters.truth(DRY_RUN.name)?.unwrap_or(false);
            let answer = (call.run)(transaction, options, parameters)?;
            // What is not kept ends with the transaction.
            let has_changed = !answer.is_idle() && !is_tried_out;
            Ok((answer, has_changed))
        }),
    }
}

/// A list, and which state of the network it shows.
fn read(
    backoffice: &Backoffice,
    list: impl FnOnce(&Transaction<'_>) -> Result<Answer, Refusal>,
) -> Result<Answer, Refusal> {
    backoffice.store().read(|transaction| Ok(list(transaction)?.of_revision(store::revision(transaction)?)))
}

fn find_call(path: &str, method: &Method) -> Result<&'static Call, Refusal> {
    let name = path.strip_prefix(super::PREFIX).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
    let call = CALLS.iter().find(|call| call.name == name).ok_or_else(|| {
        let shown: String = name.chars().take(PATH_CHARS_SHOWN).collect();
        Refusal::Path(shown)
    })?;
    if call.verb.is(method) { Ok(call) } else { Err(Refusal::Method { allowed: call.verb.allows() }) }
}

/// Reads a body within the limit. Of a longer one, some more is read and dropped: a caller who is still writing
/// when the connection closes would never see the answer.
pub async fn read_body(mut body: Body, body_bytes_max: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let mut bytes_seen = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::Body("broke off before its end".to_owned()))?;
        let Ok(data) = frame.into_data() else { continue };
        bytes_seen += data.len();
        if bytes_seen <= body_bytes_max {
            bytes.extend_from_slice(&data);
        } else if bytes_seen > body_bytes_max.saturating_add(BODY_BYTES_DROPPED_MAX) {
            break;
        }
    }
    if bytes_seen <= body_bytes_max { Ok(bytes) } else { Err(Refusal::TooLarge(body_bytes_max)) }
}

/// Far more than the longest rule anyone wrote by hand.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

const BODY_BYTES_DROPPED_MAX: usize = 1024 * 1024;

const PATH_CHARS_SHOWN: usize = 80;
