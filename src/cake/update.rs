//! What has changed in a network, or the whole of it, in one answer: `network.json`.
//!
//! The call is ours. An upstream that tells which state its answers show (smartlink's own API does) is asked it; any
//! other is read list by list, page by page. The answer is read line by line as it comes, and counts only if its last
//! line came, so that a connection that breaks off changes nothing.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::client::{Client, Fetched, causes};
use super::fetch_error::FetchError;
use super::key::Key;
use super::lines::{Lines, time_for};
use super::network::Network;
use super::wire::OfferCap;
use crate::routing::LinkIds;

/// What an upstream has to say.
#[derive(Debug)]
pub enum Update {
    Whole(Fetched),
    Changes(Changes),
}

/// How fast a whole network is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// As fast as it comes: nothing routes before it is here.
    Full,
    /// At `PACED_BYTES_PER_SECOND`: the table that is live serves until it is here, and clicks pay for what the kernel
    /// carries and the processor reads beside them.
    Paced,
}

/// The difference between two states of a network.
#[derive(Debug)]
pub struct Changes {
    /// Of which links. One that is not in the network was deleted.
    pub links: LinkIds,
    /// Those links with everything on them, and the offers that they name. Canonical, and without caps.
    pub network: Network,
    /// All caps, if any of them was changed. A cap touches no link.
    pub caps: Option<Vec<OfferCap>>,
    /// The later state.
    pub revision: HeaderValue,
}

impl Changes {
    /// The state is still that.
    fn none(revision: HeaderValue) -> Self {
        Self { links: LinkIds::default(), network: Network::default(), caps: None, revision }
    }

    /// Whether nothing that routes was changed.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty() && self.caps.is_none()
    }

    /// Whether nothing is said of a link beside those that have changed, nor of caps if none has.
    fn is_closed(&self) -> bool {
        let Network { smart_links, smart_link_offers, routing_rules, offer_caps, .. } = &self.network;
        if !offer_caps.is_empty() {
            return false;
        }
        let links = smart_links.iter().map(|link| link.id);
        let named = links.chain(smart_link_offers.iter().map(|entry| entry.link));
        named.chain(routing_rules.iter().map(|rule| rule.link)).all(|link| self.links.contains(&link))
    }
}

impl Client {
    /// What has changed since a state that the upstream named, if it can tell; else everything, as
    /// [`Client::network`] gives it.
    pub async fn update(&self, since: Option<&HeaderValue>, haste: Haste) -> Result<Update, FetchError> {
        if let Some(since) = since {
            let key = self.options().key.read()?;
            match self.lines(&key, Some(since), haste).await.map_err(|error| error.without(&key)) {
                Ok(update) => return Ok(update),
                Err(error) if !is_other_dialect(&error) => return Err(error),
                Err(_) => {}
            }
            if self.revision(since, Duration::ZERO).await?.as_ref() == Some(since) {
                return Ok(Update::Changes(Changes::none(since.clone())));
            }
        }
        self.network(haste).await.map(Update::Whole)
    }

    /// The whole network in one answer; `None` if the upstream has no such call, or says in it what cannot be read.
    /// Pages are read row by row, and one bad row harms no other.
    pub(super) async fn whole(&self, key: &Key, haste: Haste) -> Result<Option<Fetched>, FetchError> {
        match self.lines(key, None, haste).await {
            Ok(Update::Whole(fetched)) => Ok(Some(fetched)),
            Ok(Update::Changes(_)) => Ok(None),
            Err(error) if is_other_dialect(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn lines(
        &self,
        key: &Key,
        since: Option<&HeaderValue>,
        haste: Haste,
    ) -> Result<Update, FetchError> {
        let asked = since;
        let since = since.and_then(|since| since.to_str().ok());
        let parameters: Vec<_> = since.map(|since| ("since", since)).into_iter().collect();
        // The state's name is the entity tag.
        let known = since.map(|since| format!("\"{since}\""));
        let lines = match (self.read_lines(key, &parameters, known, haste).await, asked) {
            (Err(FetchError::Status { status: StatusCode::NOT_MODIFIED, .. }), Some(known)) => {
                return Ok(Update::Changes(Changes::none(known.clone())));
            }
            (read, _) => read?,
        };
        let Lines { network, changed: links, caps_changed, head, .. } = lines;
        let incomplete = || FetchError::Incomplete { call: CALL, lines: 0 };
        let head = head.ok_or_else(incomplete)?;
        let revision = HeaderValue::try_from(head.revision)
            .map_err(|error| FetchError::Json { call: CALL, reason: error.to_string() })?;
        let mut network = network.canonical();
        Ok(match (head.since.as_deref(), since) {
            (None, _) => Update::Whole(Fetched { network, unreadable: Vec::new(), revision: Some(revision) }),
            (Some(told), Some(asked)) if told == asked => {
                let caps = caps_changed.then(|| std::mem::take(&mut network.offer_caps));
                let changes = Changes { links, network, caps, revision };
                if !changes.is_closed() {
                    let reason = "it tells of more than it says was changed".to_owned();
                    return Err(FetchError::Json { call: CALL, reason });
                }
                Update::Changes(changes)
            }
            // The difference to a state that is not the one that is live.
            (Some(_), _) => return Err(incomplete()),
        })
    }

    async fn read_lines(
        &self,
        key: &Key,
        parameters: &[(&str, &str)],
        known: Option<String>,
        haste: Haste,
    ) -> Result<Lines, FetchError> {
        let patience = self.options().call_timeout;
        let late = |after| FetchError::Timeout { call: CALL, after };
        let began = Instant::now();
        let answer = tokio::time::timeout(patience, self.ask(key, CALL, parameters, known))
            .await
            .unwrap_or_else(|_| Err(late(patience)))?;
        let (mut body, mut lines, mut bytes_read) =
            (answer.into_body(), Lines::bounded(self.options().body_bytes_max), 0);
        let mut pace = Pace::new(Instant::now());
        loop {
            let frame = tokio::time::timeout(patience, body.frame()).await.map_err(|_| late(patience))?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| FetchError::Broken { call: CALL, reason: causes(&error) })?;
            let Ok(piece) = frame.into_data() else { continue };
            lines.push(&piece).map_err(|source| FetchError::Line { call: CALL, source })?;
            bytes_read += piece.len();
            let rows_max = self.options().rows_max;
            if lines.rows_most() > rows_max {
                return Err(FetchError::Endless { call: CALL, rows_max });
            }
            let allowed = time_for(patience, bytes_read);
            if began.elapsed() > allowed {
                return Err(late(allowed));
            }
            let is_whole = lines.head.as_ref().is_some_and(|head| head.since.is_none());
            if is_whole && haste == Haste::Paced {
                tokio::time::sleep_until(pace.next(piece.len(), Instant::now())).await;
            }
        }
        if lines.is_whole() {
            Ok(lines)
        } else {
            Err(FetchError::Incomplete { call: CALL, lines: lines.count() })
        }
    }
}

/// When the next piece of lines is due. What is not read fills the buffers of the connection, and its sender waits.
struct Pace(Instant);

impl Pace {
    fn new(now: Instant) -> Self {
        Self(now)
    }

    /// After a piece of so many bytes. A reader who was kept from reading makes up for little of it.
    fn next(&mut self, bytes: usize, now: Instant) -> Instant {
        let takes = Duration::from_secs(bytes as u64) / PACED_BYTES_PER_SECOND;
        self.0 = self.0.max(now.checked_sub(MADE_UP_MOST).unwrap_or(now)) + takes;
        self.0
    }
}

/// Whether the upstream does not know the call, or another form of it.
fn is_other_dialect(error: &FetchError) -> bool {
    match error {
        FetchError::Status { status, .. } => {
            [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(status)
        }
        FetchError::Line { .. } => true,
        _ => false,
    }
}

const CALL: &str = "network.json";

/// A million links of four offers in three seconds, which is less than half of what a core can read: the clicks find it
/// free. Far from the patience of the one who sends, and no longer a turn than others wait for.
const PACED_BYTES_PER_SECOND: u32 = 32 << 20;

/// More than a timer is late by.
const MADE_UP_MOST: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paced_reader_is_as_fast_as_the_pace_and_makes_up_for_little() {
        let began = Instant::now();
        let (mut pace, mut now) = (Pace::new(began), began);
        let piece = 16 * 1024;
        // Timers are late by a millisecond; the pace is kept all the same.
        for _ in 0..10_000 {
            now = now.max(pace.next(piece, now) + Duration::from_millis(1));
        }
        let took = (now - began).as_secs_f64();
        let wanted = 10_000.0 * piece as f64 / f64::from(PACED_BYTES_PER_SECOND);
        assert!((took - wanted).abs() < 0.05, "{took} s instead of {wanted} s");

        // Kept from reading for a second: it does not read the bytes of a second at once.
        now += Duration::from_secs(1);
        let due = pace.next(piece, now);
        assert!(due <= now && now - due <= MADE_UP_MOST, "{:?}", now - due);
    }

    #[test]
    fn the_sender_does_not_give_up_on_a_paced_reader() {
        let bytes = 1 << 30;
        let taken = Duration::from_secs(bytes as u64) / PACED_BYTES_PER_SECOND;
        assert!(taken * 4 < time_for(Duration::ZERO, bytes), "{taken:?}");
    }
}
