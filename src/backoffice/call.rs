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
