//! `GET revision.json`, ours: which state the network is in, and, for whoever wants to wait, the next one. An edge
//! that waits here sees a change as soon as it is written, and asks for the lists only then.

use std::time::Duration;

use rusqlite::Transaction;
use tokio::sync::watch;

use super::Options;
use super::answer::{Answer, Refusal, Under};
use super::call::{Call, Verb};
use super::contract::{Given, Kind, Parameter, Shape};
use super::parameters::Parameters;
use super::store;

/// For what a caller waits.
pub struct Awaited {
    since: String,
    patience: Duration,
}

impl Awaited {
    pub fn read(asked: &Parameters) -> Result<Self, Refusal> {
        let since = asked.text("since")?.unwrap_or_default().to_owned();
        let seconds = asked.whole_number("wait")?.unwrap_or(0);
        let in_range = u64::try_from(seconds).ok().filter(|_| seconds <= WAIT_SECONDS_MAX);
        let Some(patience) = in_range.map(Duration::from_secs) else {
            let problem = format!("is {seconds}; expected seconds from 0 to {WAIT_SECONDS_MAX}");
            return Err(Refusal::malformed("wait", problem));
        };
        Ok(Self { since, patience })
    }

    /// Until the network is in another state, or the time is up. Before the call is run, outside of any transaction.
    pub async fn wait(self, mut revisions: watch::Receiver<String>) {
        let Self { since, patience } = self;
        // Whether it changed or the time is up, the answer is the state then.
        let _ = tokio::time::timeout(patience, revisions.wait_for(move |revision| *revision != since)).await;
    }
}

fn tell(transaction: &Transaction<'_>, _: &Options, asked: &Parameters) -> Result<Answer, Refusal> {
    // The waiting is over; a call checks its parameters wherever it is run.
    Awaited::read(asked)?;
    Answer::new(Under { response: Revision { revision: store::revision(transaction)? } })
}

#[derive(serde::Serialize)]
struct Revision {
    revision: String,
}

/// `GET revision.json`
pub const WATCH: Call = Call {
    verb: Verb::Read,
    name: "revision.json",
    about: "Names the state of the network, or waits for the next one.",
    parameters: &[
        Parameter::new(
            "since",
            Kind::Text,
            "The state that the caller knows; with wait, another one is waited for.",
        ),
        Parameter::new("wait", Kind::Whole(0, WAIT_SECONDS_MAX), "How many seconds to wait at most.")
            .default(Given::Number(0)),
    ],
    example: r##"{"since": "94f82c0fe35c1cdcf43be081e6c7c45a", "wait": 0}"##,
    answer: Shape::Under { item: "Revision" },
    run: tell,
};

/// Shorter than the patience of most proxies.
const WAIT_SECONDS_MAX: i64 = 50;
