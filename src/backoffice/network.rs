//! `GET network.json`: the whole network in one answer, or what of it has changed since a state that the caller names.
//!
//! The lists of the API are for people and their programs; a million links in pages of 500 cost an edge a minute. Here
//! the network goes out as lines ([`Line`]), read on a connection of its own in one transaction: all of one state, and no
//! write waits for it, however slow the reader is.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use rusqlite::{Connection, OptionalExtension, Row};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::answer::Refusal;
use super::api;
use super::call::{SpecialCall, Verb};
use super::contract::{Kind, Parameter, Shape};
use super::parameters::{Parameters, PresentedKeys};
use super::store::Store;
use super::{Backoffice, attachments, cap_rows, geo_targets, links, offers, rules, store};
use crate::cake::{End, Head, Line, LinkLine, REVISION_HEADER, RuleLines, time_for, write_links};

/// The call.
pub const CALL: SpecialCall = SpecialCall {
    verb: Verb::Read,
    name: "network.json",
    about: "Tells the whole network as routing needs it, or what of it has changed. HEAD tells of which state it would be.",
    parameters: &[Parameter::new(
        "since",
        Kind::Text,
        "The state that the caller knows; of one that is not known any more, the whole is told.",
    )],
    body: "",
    example: r##"{"since": "94f82c0fe35c1cdcf43be081e6c7c45a"}"##,
    answer: Shape::Lines { item: "NetworkLine" },
    statuses: &["304", "400", "401", "405", "429", "500"],
};

/// Bounds how many callers are told the whole at once: each holds a thread and a connection for seconds.
#[derive(Clone)]
pub struct Readers(Arc<Semaphore>);

/// Answers the call.
pub async fn handle(State(backoffice): State<Backoffice>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    match answer(backoffice, &head).await {
        Ok(answer) => answer,
        Err(refusal) => api::respond(head.uri.path(), Err(refusal)),
    }
}

async fn answer(backoffice: Backoffice, head: &Parts) -> Result<Response, Refusal> {
    if !CALL.verb.is(&head.method) {
        return Err(Refusal::Method { allowed: CALL.verb.allows() });
    }
    let (mut keys, mut parameters) = (PresentedKeys::default(), Parameters::default());
    parameters.add_query(head.uri.query().unwrap_or_default(), &mut keys)?;
    keys.add_bearer(&head.headers);
    let since = parameters.text("since")?.map(str::to_owned);
    // Nobody reads what is only asked about.
    if head.method == Method::HEAD {
        let revision = api::blocking(move || {
            api::check_key(&backoffice, &keys)?;
            Ok(backoffice.store().read(|transaction| store::revision(transaction))?)
        })
        .await?;
        return respond(&head.headers, &Head { revision, since: None }, Body::empty);
    }
    let (backoffice, mut reading) = api::blocking(move || {
        api::check_key(&backoffice, &keys)?;
        let reading = Reading::begin(backoffice.store(), since)?;
        Ok((backoffice, reading))
    })
    .await?;
    if is_known(&head.headers, &tag_of(&reading.head)) {
        return respond(&head.headers, &reading.head, Body::empty);
    }
    // A difference is little, and waits for nobody who reads the whole.
    let mut turn = None;
    if reading.head.since.is_none() {
        drop(reading);
        turn = Some(backoffice.readers().turn().await?);
        let store = backoffice.clone();
        reading = api::blocking(move || Ok(Reading::begin(store.store(), None)?)).await?;
    }
    let told = reading.head.clone();
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || reading.send(Pieces::new(sender, runtime), turn));
    let pieces = stream::unfold(Some(receiver), |receiver| async {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Piece::Last(bytes)) => Some((Ok(bytes), None)),
            Some(Piece::Next(bytes)) => Some((Ok(bytes), Some(receiver))),
            // The connection is closed, so that nobody takes the rest for the whole.
            None => Some((Err(io::Error::other("the answer was given up")), None)),
        }
    });
    respond(&head.headers, &told, || Body::from_stream(pieces))
}

/// The answer with this body, or none for a caller who has it.
fn respond(asked: &HeaderMap, told: &Head, body: impl FnOnce() -> Body) -> Result<Response, Refusal> {
    let header = |text: &str| HeaderValue::try_from(text).map_err(|error| Refusal::Broken(error.to_string()));
    let tag = tag_of(told);
    let mut response = if is_known(asked, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = body().into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        headers.insert(REVISION_HEADER, header(&told.revision)?);
        response
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Strong: what is told without `since` depends on nothing but the state.
    headers.insert(ETAG, header(&tag)?);
    Ok(response)
}

/// The state's name as an entity tag.
fn tag_of(head: &Head) -> String {
    format!("\"{}\"", head.revision)
}

/// Whether the caller has this state (RFC 9110, 13.1.2).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    tags.flat_map(|tags| tags.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

impl Readers {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(READERS_MAX)))
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.0).acquire_owned().await.map_err(|error| Refusal::Broken(error.to_string()))
    }
}

/// One state of the network, and what of it was asked for.
struct Reading {
    /// In a transaction, which ends with the connection.
    connection: Connection,
    head: Head,
    /// Whether the caps are part of the difference.
    caps_changed: bool,
}

impl Reading {
    /// Blocks.
    fn begin(store: &Store, since: Option<String>) -> rusqlite::Result<Self> {
        let connection = store.reader()?;
        connection.execute_batch("BEGIN")?;
        let revision = store::revision(&connection)?;
        let caps_changed = match &since {
            Some(since) => gather_changes(&connection, since)?,
            None => None,
        };
        let since = since.filter(|_| caps_changed.is_some());
        Ok(Self { connection, head: Head { revision, since }, caps_changed: caps_changed.unwrap_or(false) })
    }

    /// Sends every line. Blocks. What fails breaks the answer off, which its reader notices: the last line is missing.
    fn send(self, mut pieces: Pieces, _turn: Option<OwnedSemaphorePermit>) {
        match self.write(&mut pieces) {
            Ok(()) | Err(WriteError::Caller) => {}
            Err(WriteError::Store(error)) => {
                tracing::error!(call = CALL.name, %error, "a call of the API failed")
            }
        }
    }

    fn write(&self, out: &mut Pieces) -> Result<(), WriteError> {
        Line::Network(&self.head).write(out)?;
        let is_part = self.head.since.is_some();
        if is_part {
            self.each(
                CHANGED_LINKS,
                "",
                |row| row.get(0),
                |smart_link_id| Line::ChangedLink { smart_link_id }.write(out),
            )?;
        }
        let of_links = if is_part { OF_CHANGED_LINKS } else { "" };
        let of_offers = if is_part { OF_CHANGED_OFFERS } else { "" };
        let mut targeted = Vec::new();
        self.each(offers::ALL, of_offers, offers::read_row, |offer| {
            targeted.push(offer.id());
            Line::Offer(&offer.into_item()).write(out)
        })?;
        for offer in targeted {
            let targets = geo_targets::targets_of(&self.connection, offer)?;
            if !targets.geo_targets.is_empty() {
                Line::OfferGeoTargets(&targets).write(out)?;
            }
        }
        let mut links = self.connection.prepare(&select(links::ALL, of_links))?;
        let mut attached = self.connection.prepare(&select(attachments::ALL, of_links))?;
        // Both are in the order of the links.
        let links = links.query_map([], |row| links::read_line(row).map(LinkLine::from))?;
        let attached = attached.query_map([], attachments::read_row)?;
        write_links(
            links.map(|link| link.map_err(WriteError::Store)),
            attached.map(|entry| entry.map_err(WriteError::Store)),
            out,
        )?;
        let mut lines = RuleLines::default();
        self.each(rules::ALL, of_links, rules::read_line, |rule| lines.write_row(&rule, out))?;
        if is_part && self.caps_changed {
            Line::OfferCapsChanged {}.write(out)?;
        }
        if !is_part || self.caps_changed {
            self.each(cap_rows::ALL, "", cap_rows::read_line, |cap| Line::OfferCap(&cap).write(out))?;
        }
        Line::End(&End { lines: out.lines }).write(out)?;
        Ok(out.finish()?)
    }

    /// Tells of each row of a query, which has a place for a condition.
    fn each<T>(
        &self,
        rows: (&str, &str, &str),
        condition: &str,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
        mut tell: impl FnMut(T) -> io::Result<()>,
    ) -> Result<(), WriteError> {
        let mut statement = self.connection.prepare(&select(rows, condition))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            tell(read(row)?)?;
        }
        Ok(())
    }
}

fn select((columns, table, order): (&str, &str, &str), condition: &str) -> String {
    format!("SELECT {columns} FROM {table} {condition} ORDER BY {order}")
}

/// Puts what was touched since a state into temporary tables, and says whether a cap was. `None` if that cannot be told,
/// or is not little.
fn gather_changes(connection: &Connection, since: &str) -> rusqlite::Result<Option<bool>> {
    let state: Option<i64> = connection
        .query_row("SELECT state FROM states WHERE revision = ?", [since], |row| row.get(0))
        .optional()?;
    let Some(state) = state else { return Ok(None) };
    connection.execute_batch(
        "CREATE TEMP TABLE changed_links (smart_link_id INTEGER NOT NULL PRIMARY KEY);
         CREATE TEMP TABLE changed_offers (offer_id INTEGER NOT NULL PRIMARY KEY)",
    )?;
    for touched in [
        "SELECT DISTINCT smart_link_id FROM touched_links WHERE state > ?1",
        "SELECT DISTINCT smart_link_id FROM touched_offers JOIN smart_link_offers USING (offer_id) WHERE state > ?1",
        "SELECT DISTINCT smart_link_id FROM touched_offers JOIN routing_rules USING (offer_id) WHERE state > ?1",
    ] {
        let sql = format!("INSERT OR IGNORE INTO temp.changed_links {touched} LIMIT ?2");
        connection.execute(&sql, (state, store::CHANGED_LINKS_MAX + 1))?;
    }
    for named in ["smart_link_offers", "routing_rules"] {
        let sql = format!(
            "INSERT OR IGNORE INTO temp.changed_offers SELECT offer_id FROM {named} {OF_CHANGED_LINKS}"
        );
        connection.execute(&sql, [])?;
    }
    let count: i64 = connection.query_row("SELECT count(*) FROM temp.changed_links", [], |row| row.get(0))?;
    if count > store::CHANGED_LINKS_MAX {
        return Ok(None);
    }
    connection.query_row("SELECT state > ? FROM touched_caps", [state], |row| row.get(0)).map(Some)
}

/// Gathers lines into pieces, and hands them to the one who sends them.
struct Pieces {
    sender: mpsc::Sender<Piece>,
    runtime: Handle,
    gathered: Vec<u8>,
    lines: u64,
    bytes_sent: usize,
    began: Instant,
}

/// Lines on their way.
enum Piece {
    Next(Bytes),
    Last(Bytes),
}

impl Pieces {
    fn new(sender: mpsc::Sender<Piece>, runtime: Handle) -> Self {
        let gathered = Vec::with_capacity(PIECE_BYTES + LINE_BYTES);
        Self { sender, runtime, gathered, lines: 0, bytes_sent: 0, began: Instant::now() }
    }

    /// Without this the answer is not whole.
    fn finish(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.gathered);
        self.hand_over(Piece::Last(rest.into()))
    }

    fn hand_over(&mut self, piece: Piece) -> io::Result<()> {
        let (Piece::Next(bytes) | Piece::Last(bytes)) = &piece;
        self.bytes_sent += bytes.len();
        let left = time_for(PATIENCE, self.bytes_sent).saturating_sub(self.began.elapsed());
        let sent = self.runtime.block_on(self.sender.send_timeout(piece, left));
        sent.map_err(|error| io::Error::new(io::ErrorKind::BrokenPipe, error.to_string()))
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if bytes.ends_with(b"\n") {
            self.lines += 1;
            if self.gathered.len() >= PIECE_BYTES {
                self.flush()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.gathered, Vec::with_capacity(PIECE_BYTES + LINE_BYTES));
        self.hand_over(Piece::Next(full.into()))
    }
}

/// Why not every line was sent.
enum WriteError {
    Store(rusqlite::Error),
    /// The caller is gone, or too slow; whose fault it is, is told there.
    Caller,
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for WriteError {
    fn from(_: io::Error) -> Self {
        Self::Caller
    }
}

const CHANGED_LINKS: (&str, &str, &str) = ("smart_link_id", "temp.changed_links", "smart_link_id");

const OF_CHANGED_LINKS: &str = "WHERE smart_link_id IN (SELECT smart_link_id FROM temp.changed_links)";

const OF_CHANGED_OFFERS: &str = "WHERE offer_id IN (SELECT offer_id FROM temp.changed_offers)";

/// More edges than a node has threads to spare for; the others wait.
const READERS_MAX: usize = 4;

/// Large enough to be few, small enough to be no burden.
const PIECE_BYTES: usize = 16 * 1024;

/// More than most lines have.
const LINE_BYTES: usize = 1024;

/// How many pieces may wait for a slow reader.
const PIECES_AHEAD: usize = 4;

/// How long a reader may take beside the time for what it has taken: it holds a thread, and keeps the write-ahead log
/// from being cleared.
const PATIENCE: Duration = Duration::from_secs(30);
