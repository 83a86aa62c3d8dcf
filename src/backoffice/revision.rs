//! `GET revision.json`, ours: which state the network is in, and, for whoever wants to wait, the next one. An edge
//! that waits here sees a change as soon as it is written, and asks for the lists only then.

use std::time::Duration;

use super::answer::{Answer, Refusal, Under};
use super::parameters::Parameters;
use super::store::Store;

/// Answers at once if the state is not `since`; else when it changes, or after `wait` seconds.
pub async fn watch(store: &Store, asked: &Parameters) -> Result<Answer, Refusal> {
    let since = asked.text("since")?.unwrap_or_default();
    let wait = asked.whole_number("wait")?.unwrap_or(0);
    let wait = u64::try_from(wait).ok().filter(|&wait| wait <= WAIT_SECONDS_MAX).ok_or_else(|| {
        Refusal::malformed("wait", format!("is {wait}; expected seconds from 0 to {WAIT_SECONDS_MAX}"))
    })?;
    let mut revision = store.revisions();
    let changed = revision.wait_for(|revision| revision != since);
    // Whether it changed or the time is up, the answer is the state now.
    let _ = tokio::time::timeout(Duration::from_secs(wait), changed).await;
    let revision = store.revisions().borrow().clone();
    Answer::new(Under { response: Revision { revision } })
}

#[derive(serde::Serialize)]
struct Revision {
    revision: String,
}

/// Shorter than the patience of most proxies.
const WAIT_SECONDS_MAX: u64 = 50;
