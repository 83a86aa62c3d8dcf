//! The ledger of this process, for the other nodes of the network: `POST cap_lease.json` and
//! `POST record_conversions.json`.
//!
//! The calls of nodes, not of people: bodies and answers are those of [`ledger`](crate::ledger), in CAKE's envelope. The
//! key stands in the head, so that nobody is made to take in a long body from whoever has none.

use axum::extract::{Request, State};
use axum::response::Response;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::Backoffice;
use super::answer::{Answer, Refusal, Under};
use super::api;
use super::call::{SpecialCall, Verb};
use super::contract::Shape;
use super::parameters::{Parameters, PresentedKeys};
use crate::ledger::{Conversion, LeaseRequest, Ledger, LedgerError};

/// The call of a node that spends clicks of caps.
pub const LEASE: SpecialCall = SpecialCall {
    verb: Verb::Write,
    name: "cap_lease.json",
    about: "A node tells what became of the clicks that it was granted, and asks for more. People have no use for it.",
    parameters: &[],
    body: "LeaseRequest",
    example: r##"{"node": "edge-1", "epoch": 1, "sequence": 1, "news_since": 0, "ledger": null, "items": [{"cap": {"offer_id": 1042, "affiliate_id": null, "cap_type": "click", "cap_interval": "daily"}, "window": null, "spent": 0, "returned": 0, "wants": 50, "holds": 0, "counted": 0}]}"##,
    answer: Shape::Under { item: "LeaseReply" },
    statuses: &["400", "401", "405", "408", "409", "413", "429", "500", "503"],
};

/// Answers [`LEASE`].
pub async fn lease(State(backoffice): State<Backoffice>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let answered = async {
        let (ledger, request) = read::<LeaseRequest>(backoffice, request).await?;
        Answer::new(Under { response: ledger.lease(request).await? })
    };
    api::respond(&path, answered.await)
}

/// The call of a node that was told of conversions.
pub const RECORD: SpecialCall = SpecialCall {
    verb: Verb::Write,
    name: "record_conversions.json",
    about: "A node hands in conversions whose click ids it has verified; each is counted once. People have no use for it.",
    parameters: &[],
    body: "Conversions",
    example: r##"[{"click_id": "1.0.7F3aW2", "event": 0, "transaction": "T-1", "offer_id": 1042, "affiliate_id": 67890, "smart_link_id": 301, "clicked_at": 1795356000000, "amount": "45.50"}]"##,
    answer: Shape::Under { item: "RecordedConversions" },
    statuses: &["400", "401", "405", "408", "413", "429", "500", "503"],
};

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
    if !Verb::Write.is(&head.method) {
        return Err(Refusal::Method { allowed: Verb::Write.allows() });
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
