//! Fetching a whole network from a CAKE API.
//!
//! An answer counts only if it is 2xx, parses, says `request_status` `Success` in any case, and has the expected
//! list; both published envelopes are read. Bodies and time are bounded, redirects are not followed.
//!
//! The key goes into the query, as CAKE wants it, and nowhere else: errors name the call, never the URL, and where they
//! quote an answer that repeats the key, it is struck out.

use std::collections::HashSet;
use std::error::Error;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as HttpClient, Error as TransportError};
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::fetch_error::{FetchError, READS, UNREADABLE_MAX};
use super::geo_targets::GeoTargetsForm;
use super::key::{Key, KeySource};
use super::network::{Network, ReadAttachment, ReadLink, RuleReader, RuleRow};
use super::outgoing::Outgoing;
use super::page::{List, Unreadable, read_envelope, read_page};
use super::tls::{TlsError, client_config};
use super::update::Haste;
use super::wire::{OfferCap, OfferItem};
use crate::routing::{Attachment, Entry};

/// How to reach an upstream.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Scheme, host and port; a path is put before `/api/2/`.
    pub upstream: Url,
    pub key: KeySource,
    /// For one call: connecting, waiting, and reading the answer.
    pub call_timeout: Duration,
    /// Of one answer; of `network.json`, which is read line by line, of one line.
    pub body_bytes_max: usize,
    /// PEM of certificate authorities that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Of one list: a bound for an upstream whose pages never end.
    pub rows_max: usize,
}

/// Reads where an upstream is: http or https, a host, perhaps a path; no user, and no query, in which people paste
/// the key.
pub fn parse_upstream(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
    })
}

/// A CAKE API, as seen from here.
#[derive(Debug)]
pub struct Client {
    options: ClientOptions,
    transport: Transport,
    pub(super) geo_targets_form: GeoTargetsForm,
}

/// Entries, rules and caps, from wherever they are known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routing {
    pub smart_link_offers: Vec<Attachment>,
    pub routing_rules: Vec<Entry>,
    pub offer_caps: Vec<OfferCap>,
}

/// A network as it was read.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Canonical.
    pub network: Network,
    /// What the upstream has and the network has not.
    pub unreadable: Vec<Unreadable>,
    /// Of which state of the network; only an embedded API tells. It knows what was deleted.
    pub revision: Option<HeaderValue>,
}

impl Client {
    /// Fails only if the upstream is https and there is nobody to trust, or `ca_file` cannot be used.
    pub fn new(options: ClientOptions) -> Result<Self, TlsError> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(options.call_timeout));
        tcp.set_nodelay(true);
        let mut builder = HttpClient::builder(TokioExecutor::new());
        builder.http1_max_buf_size(READ_BYTES_MAX);
        let transport = if options.upstream.scheme() == "https" {
            tcp.enforce_http(false);
            let tls = HttpsConnectorBuilder::new()
                .with_tls_config(client_config(options.ca_file.as_deref())?)
                .https_only()
                .enable_http1();
            Transport::Tls(builder.build(tls.wrap_connector(tcp)))
        } else {
            Transport::Plain(builder.build(tcp))
        };
        Ok(Self { options, transport, geo_targets_form: GeoTargetsForm::default() })
    }

    /// Fetches every list, page by page, and joins them. Where the upstream tells which state of the network a page
    /// is of (the embedded API does), all pages are of one state, or are read again.
    pub async fn network(&self, haste: Haste) -> Result<Fetched, FetchError> {
        self.network_or(None, haste).await
    }

    /// As [`Client::network`], but with these entries, rules and caps, for which the upstream is not asked: CAKE publishes no
    /// call that lists them.
    pub async fn network_with(&self, routing: Routing) -> Result<Fetched, FetchError> {
        self.network_or(Some(&routing), Haste::Full).await
    }

    async fn network_or(&self, routing: Option<&Routing>, haste: Haste) -> Result<Fetched, FetchError> {
        let key = self.options.key.read()?;
        let mut read = self.one_reading(&key, routing, haste).await;
        for _ in 1..READS {
            if !matches!(read, Err(FetchError::Changing { .. })) {
                break;
            }
            read = self.one_reading(&key, routing, haste).await;
        }
        read.map_err(|error| error.without(&key))
    }

    /// Which state the network is in, if the upstream tells. With `since`, waits up to `wait` for another state.
    pub async fn revision(
        &self,
        since: &HeaderValue,
        wait: Duration,
    ) -> Result<Option<HeaderValue>, FetchError> {
        let key = self.options.key.read()?;
        self.revision_with(&key, since, wait).await.map_err(|error| error.without(&key))
    }

    async fn revision_with(
        &self,
        key: &Key,
        since: &HeaderValue,
        wait: Duration,
    ) -> Result<Option<HeaderValue>, FetchError> {
        let call = "revision.json";
        let since = since.to_str().unwrap_or_default();
        let parameters = [("since", since), ("wait", &wait.as_secs().to_string())];
        let after = self.options.call_timeout + wait;
        let (body, _) = self.call(key, call, &parameters, after).await?;
        let (top, inner) = read_envelope(call, &body)?;
        let Some(revision) = inner.get("revision").or_else(|| top.get("revision")) else { return Ok(None) };
        let json = |reason: String| FetchError::Json { call, reason };
        let revision: String =
            serde_json::from_str(revision.get()).map_err(|error| json(error.to_string()))?;
        HeaderValue::try_from(revision).map(Some).map_err(|error| json(error.to_string()))
    }

    async fn one_reading(
        &self,
        key: &Key,
        routing: Option<&Routing>,
        haste: Haste,
    ) -> Result<Fetched, FetchError> {
        let mut reading = Reading { client: self, key, revision: None, unreadable: Vec::new() };
        let first = self.page(key, List::Offers, 0).await?;
        // An upstream that tells states is smartlink's own, and has it all in one answer.
        if first.1.is_some()
            && routing.is_none()
            && let Some(fetched) = self.whole(key, haste).await?
        {
            return Ok(fetched);
        }
        let offers: Vec<WrappedOffer> = reading.list_from(List::Offers, first).await?;
        let links: Vec<ReadLink> = reading.list(List::SmartLinks).await?;
        let mut network = Network {
            smart_links: links.into_iter().map(|link| link.0).collect(),
            offers: offers.into_iter().map(|wrapped| wrapped.offer).collect(),
            ..Network::default()
        };
        let routing = match routing {
            Some(given) => given.clone(),
            None => {
                let attachments: Vec<ReadAttachment> = reading.list(List::SmartLinkOffers).await?;
                Routing {
                    smart_link_offers: attachments.into_iter().map(|attachment| attachment.0).collect(),
                    routing_rules: reading.rules().await?,
                    offer_caps: reading.caps().await?,
                }
            }
        };
        (network.smart_link_offers, network.routing_rules) =
            (routing.smart_link_offers, routing.routing_rules);
        network.offer_caps = routing.offer_caps;
        network.offer_geo_targets = reading.geo_targets(&network).await?;
        let unreadable = reading.unreadable.into_iter().map(|row| row.without(key)).collect();
        Ok(Fetched { network: network.canonical(), unreadable, revision: reading.revision })
    }

    async fn page(&self, key: &Key, list: List, start_at_row: usize) -> Result<Answered, FetchError> {
        let page = [("start_at_row", &*start_at_row.to_string()), ("row_limit", &PAGE_ROWS.to_string())];
        self.call(key, list.call(), &page, self.options.call_timeout).await
    }

    pub(super) async fn call(
        &self,
        key: &Key,
        call: &'static str,
        parameters: &[(&str, &str)],
        after: Duration,
    ) -> Result<Answered, FetchError> {
        tokio::time::timeout(after, self.exchange(key, call, parameters))
            .await
            .unwrap_or(Err(FetchError::Timeout { call, after }))
    }

    async fn exchange(
        &self,
        key: &Key,
        call: &'static str,
        parameters: &[(&str, &str)],
    ) -> Result<Answered, FetchError> {
        let answer = self.ask(key, call, parameters, None).await?;
        let body_bytes_max = self.options.body_bytes_max;
        let revision = answer.headers().get(REVISION_HEADER).cloned();
        let body = Limited::new(answer.into_body(), body_bytes_max).collect().await;
        body.map(|body| (body.to_bytes(), revision)).map_err(|error| FetchError::Body {
            call,
            body_bytes_max,
            reason: causes(error.as_ref()),
        })
    }

    /// Makes a call, unless its answer is the one that is known by this entity tag. Gives the answer, of which the body
    /// is not read yet, if it is one of success.
    pub(super) async fn ask(
        &self,
        key: &Key,
        call: &'static str,
        parameters: &[(&str, &str)],
        known: Option<String>,
    ) -> Result<Response<Incoming>, FetchError> {
        let unreachable = |reason: String| FetchError::Unreachable { call, reason };
        let mut request = Request::get(self.uri(key, call, parameters).map_err(unreachable)?);
        if let Some(known) = known {
            request = request.header(header::IF_NONE_MATCH, known);
        }
        let request = request
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("smartlink/", env!("CARGO_PKG_VERSION")))
            .body(Outgoing::default())
            .map_err(|error| unreachable(error.to_string()))?;
        let answer = self.request(request).await.map_err(|error| unreachable(causes(&error)))?;
        let status = answer.status();
        if !status.is_success() {
            let retry_after = retry_after(answer.headers());
            let hint =
                if status == StatusCode::NOT_FOUND && [SMART_LINK_OFFERS, ROUTING_RULES].contains(&call) {
                    OVERLAY_HINT
                } else {
                    hint(status)
                };
            return Err(FetchError::Status { call, status, hint, retry_after });
        }
        Ok(answer)
    }

    pub(super) async fn request(
        &self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TransportError> {
        match &self.transport {
            Transport::Plain(http) => http.request(request).await,
            Transport::Tls(https) => https.request(request).await,
        }
    }

    pub(super) fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// Where the call is, without any parameter.
    pub(super) fn call_url(&self, call: &str) -> Result<Url, String> {
        let mut url = self.options.upstream.clone();
        url.path_segments_mut()
            .map_err(|()| "the upstream's URL has no host".to_owned())?
            .pop_if_empty()
            .extend(["api", "2", call]);
        Ok(url)
    }

    fn uri(&self, key: &Key, call: &str, parameters: &[(&str, &str)]) -> Result<Uri, String> {
        let mut url = self.call_url(call)?;
        url.query_pairs_mut().clear().append_pair("api_key", key.reveal()).extend_pairs(parameters);
        // The URL holds the key: whatever is wrong with it is not shown.
        url.as_str().parse().map_err(|_| "the upstream's URL is not a valid URI".to_owned())
    }
}

impl Reading<'_> {
    /// Reads pages until a short or empty one: some at a time as far as the upstream's own count goes, one by one
    /// beyond it. Rows may repeat over pages when the upstream changes in between.
    pub(super) async fn list<T: DeserializeOwned>(&mut self, list: List) -> Result<Vec<T>, FetchError> {
        let first = self.client.page(self.key, list, 0).await?;
        self.list_from(list, first).await
    }

    /// As [`Reading::list`], with the first page at hand.
    async fn list_from<T: DeserializeOwned>(
        &mut self,
        list: List,
        first: Answered,
    ) -> Result<Vec<T>, FetchError> {
        let (client, key, rows_max) = (self.client, self.key, self.client.options.rows_max);
        let mut so_far = SoFar { list, rows: Vec::new(), next: 0, total_rows: 0, seen: HashSet::new() };
        if self.add(&mut so_far, 0, first)? {
            return Ok(so_far.rows);
        }
        // Where a page holds more than was asked for, it cannot be told at which row the others begin.
        let counted = if so_far.next == PAGE_ROWS { so_far.total_rows.min(rows_max) } else { 0 };
        let ask = |start| async move { (start, client.page(key, list, start).await) };
        let starts = stream::iter((PAGE_ROWS..counted).step_by(PAGE_ROWS));
        let mut pages = pin!(starts.map(ask).buffered(PAGES_AT_ONCE));
        while let Some((start, answered)) = pages.next().await {
            if self.add(&mut so_far, start, answered?)? {
                return Ok(so_far.rows);
            }
        }
        loop {
            let start = so_far.next;
            if self.add(&mut so_far, start, client.page(key, list, start).await?)? {
                return Ok(so_far.rows);
            }
        }
    }

    /// The rules; those whose conditions cannot be read are among the unreadable rows.
    async fn rules(&mut self) -> Result<Vec<Entry>, FetchError> {
        let rows: Vec<RuleRow> = self.list(List::RoutingRules).await?;
        let mut reader = RuleReader::default();
        let mut rules = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            match reader.read(row) {
                Ok(rule) => rules.push(rule),
                Err(error) => self.unreadable.push(Unreadable {
                    list: List::RoutingRules,
                    id: Some((row.rule_id, 0)),
                    row: index + 1,
                    reason: error.to_string(),
                }),
            }
        }
        Ok(rules)
    }

    /// The caps; none of an upstream that does not know the call, as a real CAKE does not.
    async fn caps(&mut self) -> Result<Vec<OfferCap>, FetchError> {
        match self.list(List::OfferCaps).await {
            Err(FetchError::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// Adds a page; whether it is the last.
    fn add<T: DeserializeOwned>(
        &mut self,
        so_far: &mut SoFar<T>,
        start: usize,
        (body, revision): Answered,
    ) -> Result<bool, FetchError> {
        let call = so_far.list.call();
        self.is_of(call, revision)?;
        let page = read_page(so_far.list, start, &body)?;
        let is_last = page.rows_count() < PAGE_ROWS;
        so_far.next = start + page.rows_count();
        so_far.total_rows = page.total_rows.unwrap_or_default();
        if !is_last && !so_far.seen.insert(page.digest) {
            return Err(FetchError::Repeating { call, start });
        }
        let rows_max = self.client.options.rows_max;
        if so_far.next > rows_max {
            return Err(FetchError::Endless { call, rows_max });
        }
        so_far.rows.extend(page.rows);
        self.unreadable.extend(page.unreadable);
        if self.unreadable.len() > UNREADABLE_MAX {
            return Err(FetchError::Strange { call });
        }
        Ok(is_last)
    }

    /// All pages are of one state of the network, where the upstream tells.
    pub(super) fn is_of(
        &mut self,
        call: &'static str,
        revision: Option<HeaderValue>,
    ) -> Result<(), FetchError> {
        match (&self.revision, revision) {
            (Some(first), Some(later)) if *first != later => return Err(FetchError::Changing { call }),
            (None, revision) => self.revision = revision,
            _ => {}
        }
        Ok(())
    }
}

/// An error with everything that led to it, on one line. None of hyper's errors shows a URL.
pub(super) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

pub(super) fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; check the API key",
        StatusCode::NOT_FOUND => "; check the upstream's URL, and that it knows this call",
        StatusCode::TOO_MANY_REQUESTS => "; the upstream asks for fewer calls",
        status if status.is_redirection() => "; redirects are not followed, give the final URL",
        _ => "",
    }
}

/// One reading of the whole network, list by list.
pub(super) struct Reading<'a> {
    pub(super) client: &'a Client,
    pub(super) key: &'a Key,
    /// Of the first page that told.
    revision: Option<HeaderValue>,
    unreadable: Vec<Unreadable>,
}

/// A list, as far as it has been read.
struct SoFar<T> {
    list: List,
    rows: Vec<T>,
    /// Behind the last row that came.
    next: usize,
    /// By the upstream's count; 0 if it gives none.
    total_rows: usize,
    /// The full pages.
    seen: HashSet<blake3::Hash>,
}

/// A body, and which state of the network it shows.
pub(super) type Answered = (Bytes, Option<HeaderValue>);

#[derive(Debug)]
enum Transport {
    Plain(HttpClient<HttpConnector, Outgoing>),
    Tls(HttpClient<HttpsConnector<HttpConnector>, Outgoing>),
}

/// Each item of `offers.json` is wrapped.
#[derive(Deserialize)]
struct WrappedOffer {
    offer: OfferItem,
}

/// The header by which an embedded API tells which state of its network an answer shows.
pub const REVISION_HEADER: &str = "smartlink-revision";

/// smartlink's own call for entries: CAKE publishes none.
const SMART_LINK_OFFERS: &str = "smart_link_offers.json";

/// smartlink's own call for rules: CAKE publishes none.
const ROUTING_RULES: &str = "routing_rules.json";

/// For an upstream that does not know one of those two.
const OVERLAY_HINT: &str = "; CAKE publishes no such call: if the upstream is a real CAKE, write its entries and rules \
                            into a routing.toml and name that in upstream.overlay";

/// CAKE's greatest `row_limit`.
pub(super) const PAGE_ROWS: usize = 500;

/// Beyond any network.
pub const ROWS_MAX: usize = 20_000_000;

/// Enough to hide the way to the upstream, and few for it to answer.
const PAGES_AT_ONCE: usize = 4;

/// At once from a connection: a larger read keeps a core from a click for longer, and is not faster.
const READ_BYTES_MAX: usize = 32 * 1024;
