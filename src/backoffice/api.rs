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
use super::parameters::{Parameters, PresentedKeys};
use super::{Backoffice, CALLS, Options, revision, store};

/// One call of the API.
pub struct Call {
    verb: Verb,
    /// The path behind `/api/2/`.
    name: &'static str,
    run: Run,
}

/// How a call is done.
#[derive(Clone, Copy)]
enum Run {
    /// In a transaction of its own, on a thread that may block.
    Now(Plain),
    /// By waiting for a change, without a transaction.
    Wait,
}

/// What most calls are: a function of a transaction.
type Plain = fn(&Transaction<'_>, &Options, &Parameters) -> Result<Answer, Refusal>;

/// Whether a call reads or changes the network.
#[derive(Clone, Copy, Debug)]
enum Verb {
    /// GET, with the parameters in the query.
    Read,
    /// POST, with the parameters in the body; these, and no others.
    Write { parameters: &'static [&'static str] },
}

impl Call {
    pub const fn read(name: &'static str, run: Plain) -> Self {
        Self { verb: Verb::Read, name, run: Run::Now(run) }
    }

    pub const fn wait(name: &'static str) -> Self {
        Self { verb: Verb::Read, name, run: Run::Wait }
    }

    pub const fn write(name: &'static str, parameters: &'static [&'static str], run: Plain) -> Self {
        Self { verb: Verb::Write { parameters }, name, run: Run::Now(run) }
    }
}

impl Verb {
    const fn allows(self) -> &'static str {
        match self {
            Verb::Read => "GET, HEAD",
            Verb::Write { .. } => "POST",
        }
    }

    fn is(self, method: &Method) -> bool {
        match self {
            Verb::Read => method == Method::GET || method == Method::HEAD,
            Verb::Write { .. } => method == Method::POST,
        }
    }
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
    let body = read_body(body, BODY_BYTES_MAX).await?;

    let mut keys = PresentedKeys::default();
    let mut parameters = Parameters::default();
    parameters.add_query(head.uri.query().unwrap_or_default(), &mut keys)?;
    let in_query = parameters.first_name().map(str::to_owned);
    parameters.add_body(&head.headers, &body, &mut keys)?;
    keys.add_bearer(&head.headers);
    check_key(&backoffice, &keys)?;

    if let Verb::Write { parameters: known } = call.verb {
        if let Some(name) = in_query {
            return Err(Refusal::malformed(
                &name,
                "stands in the query; the parameters of a POST go in its body",
            ));
        }
        parameters.refuse_unknown(known)?;
    }
    let run = match call.run {
        Run::Wait => return revision::watch(backoffice.store(), &parameters).await,
        Run::Now(run) => run,
    };
    tokio::task::spawn_blocking(move || in_transaction(call.verb, run, &backoffice, &parameters))
        .await
        .unwrap_or_else(|error| Err(Refusal::Broken(error.to_string())))
}

fn in_transaction(
    verb: Verb,
    run: Plain,
    backoffice: &Backoffice,
    parameters: &Parameters,
) -> Result<Answer, Refusal> {
    let options = backoffice.options();
    match verb {
        Verb::Read => backoffice.store().read(|transaction| {
            let answer = run(transaction, options, parameters)?;
            Ok(answer.of_revision(store::revision(transaction)?))
        }),
        Verb::Write { .. } => backoffice.store().write(|transaction| run(transaction, options, parameters)),
    }
}

fn find_call(path: &str, method: &Method) -> Result<&'static Call, Refusal> {
    let name = path.strip_prefix(super::PREFIX).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
    let call = CALLS.iter().find(|call| call.name == name).ok_or_else(|| {
        let shown: String = name.chars().take(PATH_CHARS_SHOWN).collect();
        Refusal::Path(shown)
    })?;
    if call.verb.is(method) { Ok(call) } else { Err(Refusal::Method { allowed: call.verb.allows() }) }
}

pub fn check_key(backoffice: &Backoffice, keys: &PresentedKeys) -> Result<(), Refusal> {
    if keys.is_empty() {
        return Err(Refusal::Key("missing"));
    }
    // Where several came, none may be wrong: a stale one beside the right one is a mistake worth hearing of.
    if keys.all(|key| backoffice.options().api_key.matches(key)) {
        Ok(())
    } else {
        Err(Refusal::Key("wrong"))
    }
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
