//! The ledger of this process, for the other nodes of the network: `POST cap_lease.json` and
//! `POST record_conversions.json`.
//!
//! The calls of nodes, not of people: bodies and answers are those of [`ledger`](crate::ledger), in CAKE's envelope. The
//! key stands in the head, so that nobody is made to take in a long body from whoever has none.

use axum::extract::{Request, State};
use axum::response::Response;
use http::Method;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::Backoffice;
use super::answer::{Answer, Refusal, Under};
use super::api;
use super::parameters::{Parameters, PresentedKeys};
use crate::ledger::{Conversion, LeaseRequest, Ledger, LedgerError};

/// The path behind `/api/2/`.
pub const LEASE: &str = "cap_lease.json";

/// Answers [`LEASE`].
pub async fn lease(State(backoffice): State<Backoffice>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let answered = async {
        let (ledger, request) = read::<LeaseRequest>(backoffice, request).await?;
        Answer::new(Under { response: ledger.lease(request).await? })
    };
    api::respond(&path, answered.await)
}

/// The path behind `/api/2/`.
pub const RECORD: &str = "record_conversions.json";

/// Answers [`RECORD`]. That the click ids are genuine, the node has verified.
pub async fn record(State(backoffice): State<Backoffice>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let answered = async {
        let (ledger, conversions) = read::<Vec<Conversion>>(backoffice, request).await?;
        Answer::new(Under { response: ledger.record(conversions).await? })
    };
    api::respond(&path, answered.await)
}

/// The ledger, and what it is told by whoever has a key.
async fn read<T: DeserializeOwned>(backoffice: Backoffice, request: Request) -> Result<(Ledger, T), Refusal> {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return Err(Refusal::Method { allowed: "POST" });
    }
    let keys = presented(&head)?;
    let backoffice = api::blocking(move || {
        api::check_key(&backoffice, &keys)?;
        Ok(backoffice)
    })
    .await?;
    let patience = backoffice.options().limits.body_read_timeout;
    let body = tokio::time::timeout(patience, api::read_body(body, BODY_BYTES_MAX))
        .await
        .map_err(|_| Refusal::Slow(patience))??;
    let told = serde_json::from_slice(&body)
        .map_err(|error| Refusal::Body(format!("is not what a node of this version sends: {error}")))?;
    Ok((backoffice.ledger().clone(), told))
}

fn presented(head: &Parts) -> Result<PresentedKeys, Refusal> {
    let mut keys = PresentedKeys::default();
    Parameters::default().add_query(head.uri.query().unwrap_or_default(), &mut keys)?;
    keys.add_bearer(&head.headers);
    Ok(keys)
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Invalid(problem) => Refusal::Body(format!("cannot be taken: {problem}")),
            LedgerError::Stale { .. } => Refusal::Conflict(error.to_string()),
            error => Refusal::Ledger(error.to_string()),
        }
    }
}

/// As many caps or conversions as a request may name, with room.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
