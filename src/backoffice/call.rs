//! What a call of the API is: its name, its contract, and the function that does it.

use http::Method;
use rusqlite::Transaction;

use super::Options;
use super::answer::{Answer, Refusal};
use super::contract::{Parameter, Shape};
use super::parameters::Parameters;

/// One call of the API.
pub struct Call {
    pub verb: Verb,
    /// The path behind `/api/2/`.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// These, and no others.
    pub parameters: &'static [Parameter],
    /// A value for each parameter, as JSON; accepted by a network that is the demonstration's.
    pub example: &'static str,
    pub answer: Shape,
    pub run: Run,
}

/// A call that stands beside the table: its body or its answer is a document of its own, and a handler of its own does
/// it. It is told here as it is done there.
pub struct SpecialCall {
    pub verb: Verb,
    /// The path behind `/api/2/`.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What stands in the query.
    pub parameters: &'static [Parameter],
    /// What stands in the body, by its name among the schemas; empty where there is no body.
    pub body: &'static str,
    /// A body that a network that is the demonstration's accepts, or a value for each parameter; as JSON.
    pub example: &'static str,
    pub answer: Shape,
    /// Every status that it may have beside 200.
    pub statuses: &'static [&'static str],
}

/// What a call does, in a transaction of its own.
pub type Run = fn(&Transaction<'_>, &Options, &Parameters) -> Result<Answer, Refusal>;

/// Whether a call reads or changes the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// GET, with the parameters in the query.
    Read,
    /// POST, with the parameters in the body.
    Write,
}

impl Verb {
    pub const fn allows(self) -> &'static str {
        match self {
            Verb::Read => "GET, HEAD",
            Verb::Write => "POST",
        }
    }

    pub fn is(self, method: &Method) -> bool {
        match self {
            Verb::Read => method == Method::GET || method == Method::HEAD,
            Verb::Write => method == Method::POST,
        }
    }
}
