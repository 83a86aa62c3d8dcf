//! The embedded CAKE: the API of an affiliate network over one SQLite file.
//!
//! The edge refreshes from it over HTTP exactly as from a real CAKE, so it keeps CAKE's calls, parameters, defaults
//! and envelopes, and adds the calls that CAKE does not document: entries, rules, caps, and the geo targets of all
//! offers in pages (`CALLS`).
//!
//! What the room promises, each with a test in `tests/api.rs` or in `store.rs`:
//!
//! 1. Nothing is accepted that the sync would quarantine: values pass the very functions by which
//!    [`wire`](crate::cake::wire) reads a snapshot, destinations are parsed as the table parses them, and a token that
//!    is not known is refused, not warned of.
//! 2. What was answered with success is on the disk.
//! 3. A refused call changes nothing, and says which parameter it was and what was expected.
//! 4. Nothing sent to change the network is passed over in silence: unknown or repeated parameters are refused.
//! 5. What a call takes is told in one place, from which the document at `/api/openapi.json` is written.
//! 6. No call is done without a valid key; a key that was revoked, be it by another process, is not valid any more.
//!
//! It decides no click and knows no table; it mounts nothing and listens nowhere: that is the admin room's part.

mod answer;
mod api;
mod attachments;
mod call;
mod cap_rows;
mod caps;
mod contract;
mod demo;
mod faults;
mod gate;
mod geo_targets;
mod import;
mod json;
mod keys;
mod ledger_calls;
mod links;
mod network;
mod offers;
mod openapi;
mod parameters;
mod precondition;
mod rate;
mod revision;
mod rules;
mod store;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{any, get};
use tokio::runtime::Handle;

pub use keys::{ApiKey, Keys, KeysError};
pub use rate::Rate;
pub use store::OpenError;

use call::{Call, SpecialCall};
use caps::CapStates;
use gate::Gate;
use network::Readers;
use store::Store;

use tokio::sync::watch;

use crate::cake::Key;
use crate::cake::wire::FieldError;
use crate::ledger::Ledger;
use crate::routing::{DestinationPolicy, Template, Zone};

/// The room: the open store and its API. Clones share it.
#[derive(Clone)]
pub struct Backoffice(Arc<Room>);

/// What the room needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's own key, by which its edge refreshes: always valid, and in no table. Other callers have keys of their
    /// own ([`Keys`]). It may change at any time.
    pub api_key: watch::Receiver<Key>,
    /// Where clicks reach this network, such as `https://go.example.com`: the head of every `tracking_url`.
    pub public_base_url: String,
    /// The network's time zone, in which offers expire.
    pub zone: Zone,
    /// What `offer_url` and `fallback_url` may be.
    pub destination_policy: DestinationPolicy,
    pub limits: Limits,
}

/// What a caller may ask of the API.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// How often a key may call; `None`: as often as it likes. The node's own key always may.
    pub rate: Option<Rate>,
    /// How long a caller may take to send a body: one that comes a byte a minute holds a connection for nothing.
    pub body_read_timeout: Duration,
}

/// Why the demo network could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the demo network: {0}")]
pub struct DemoError(String);

impl Backoffice {
    /// Opens the store, or makes it. Blocks: it reads the file once to see that it is whole.
    /// `ledger`: who says how full caps are, and grants leases to the other nodes.
    pub fn open(path: &Path, options: Options, ledger: Ledger) -> Result<Self, OpenError> {
        let gate = Gate::new(options.limits.rate);
        let readers = Readers::new();
        Ok(Self(Arc::new(Room { store: Store::open(path)?, options, gate, readers, ledger })))
    }

    /// The routes of the document, and of `/api/2` and everything under it, to be merged into the listener's router.
    pub fn router(&self) -> Router {
        Router::new()
            .route(DOCUMENT, get(api::describe))
            .route(PREFIX, any(api::handle))
            .route(&format!("{PREFIX}/"), any(api::handle))
            .route(&format!("{PREFIX}/{}", import::CALL.name), any(import::handle))
            .route(&format!("{PREFIX}/{}", network::CALL.name), any(network::handle))
            .route(&format!("{PREFIX}/{}", ledger_calls::LEASE.name), any(ledger_calls::lease))
            .route(&format!("{PREFIX}/{}", ledger_calls::RECORD.name), any(ledger_calls::record))
            .route(&format!("{PREFIX}/{{*call}}"), any(api::handle))
            .with_state(self.clone())
    }

    /// Writes the network of CAKE's own example, unless link 301 is there; says whether it did. Blocks.
    pub fn seed_demo(&self) -> Result<bool, DemoError> {
        demo::seed(self.store(), self.options())
            .map_err(|refusal| DemoError(refusal.fault().unwrap_or_else(|| refusal.to_string())))
    }

    fn store(&self) -> &Store {
        &self.0.store
    }

    fn options(&self) -> &Options {
        &self.0.options
    }

    fn readers(&self) -> &Readers {
        &self.0.readers
    }

    fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// How full the caps are; `None` if the ledger does not say. Blocks, on a thread of the runtime that may.
    fn cap_states(&self) -> Option<CapStates> {
        match Handle::current().block_on(self.ledger().state()) {
            Ok(states) => Some(states.into_iter().map(|state| (state.cap, state)).collect()),
            Err(error) => {
                tracing::error!("how full the caps are cannot be told: {error}");
                None
            }
        }
    }

    fn gate(&self) -> &Gate {
        &self.0.gate
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { rate: Some(Rate::default()), body_read_timeout: Duration::from_secs(10) }
    }
}

impl Options {
    /// A destination as it is stored. Refuses one that the table would refuse or warn of.
    fn destination(&self, parameter: &str, url: &str) -> Result<String, FieldError> {
        let stored = Template::normalized(url, &self.destination_policy)
            .map_err(|error| FieldError::new(parameter, error.to_string()))?;
        match Template::parse(&stored, &self.destination_policy) {
            Ok((_, warnings)) if warnings.is_empty() => Ok(stored),
            Ok((_, warnings)) => {
                let problem =
                    format!("has the {}; docs/routing.md lists those there are", warnings.join(", "));
                Err(FieldError::new(parameter, problem))
            }
            Err(error) => Err(FieldError::new(parameter, error.to_string())),
        }
    }
}

struct Room {
    store: Store,
    options: Options,
    gate: Gate,
    readers: Readers,
    ledger: Ledger,
}

/// Where the API is mounted.
const PREFIX: &str = "/api/2";

/// Where the document of the API is.
const DOCUMENT: &str = "/api/openapi.json";

/// Every call: CAKE's, as it documents them, and ours in the same manner. Beside them stand [`SPECIAL_CALLS`].
static CALLS: &[Call] = &[
    revision::WATCH,
    links::LIST,
    links::CREATE,
    links::UPDATE,
    attachments::LIST,
    attachments::ATTACH,
    attachments::REMOVE,
    rules::LIST,
    rules::CREATE,
    rules::UPDATE,
    rules::REMOVE,
    offers::LIST,
    offers::CREATE,
    offers::UPDATE,
    geo_targets::LIST,
    geo_targets::UPDATE,
    caps::LIST,
    caps::SET,
    caps::REMOVE,
];

/// The calls whose bodies or answers are of another size and form; each has a route of its own.
static SPECIAL_CALLS: &[SpecialCall] =
    &[network::CALL, import::CALL, ledger_calls::LEASE, ledger_calls::RECORD];
