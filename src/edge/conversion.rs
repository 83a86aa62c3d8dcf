//! A postback in, an answer once it is durable: `/p.ashx` and `/api/2/conversion.json` on the click listener.
//!
//! The click id says which click it was, and its MAC that it was ours, so nothing is looked up. What is believed is handed
//! in at the [`ConversionDesk`], and answered when it is on the ledger's disk: a conversion that was answered with success
//! is never lost, and one that was not may be sent again and counts once.
//!
//! These requests wait, for their body and for the ledger. They do so beside clicks, in a future of their own; the
//! function that answers clicks knows nothing of them.

mod body;
mod parameters;
mod reply;

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;

use crate::click_id::{ClickIdKeys, Contents};
use crate::ledger::{Conversion, ConversionDesk, Recorded};
use crate::state::{ConversionCount, Metrics, now};
use crate::types::OfferId;

use super::head::Head;
use super::reply::Reply;
use parameters::{Given, ParameterError, Postback};
use reply::{Format, Verdict};

/// What postbacks depend on: fixed while the process runs.
#[derive(Clone, Debug)]
pub struct ConversionOptions {
    /// Conversions of older clicks are refused.
    pub click_age_max: Duration,
}

/// Which of the two calls a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// `/p.ashx`: CAKE's pixel and postback, with parameters of one letter.
    Pixel,
    /// `/api/2/conversion.json`.
    Json,
}

/// Answers postbacks, on one thread of the edge.
pub(super) struct Postbacks {
    keys: ClickIdKeys,
    desk: ConversionDesk,
    metrics: Arc<Metrics>,
    options: ConversionOptions,
}

impl Call {
    /// `None` for clicks, and for whatever else is asked of the click listener.
    pub fn of_path(path: &str) -> Option<Self> {
        match path {
            "/p.ashx" => Some(Call::Pixel),
            "/api/2/conversion.json" => Some(Call::Json),
            _ => None,
        }
    }

    const fn allowed(self) -> &'static str {
        match self {
            Call::Pixel => "GET, HEAD",
            Call::Json => "GET, HEAD, POST",
        }
    }
}

impl Postbacks {
    pub fn new(
        keys: ClickIdKeys,
        desk: ConversionDesk,
        metrics: Arc<Metrics>,
        options: ConversionOptions,
    ) -> Self {
        Self { keys, desk, metrics, options }
    }

    /// Answers one request, and counts it unless it is a probe.
    pub async fn answer(&self, call: Call, parts: Parts, body: Incoming) -> Reply {
        let query = parts.uri.query().unwrap_or_default();
        let format = match call {
            Call::Pixel => Format::asked_in(query),
            Call::Json => Format::Json,
        };
        let verdict = self.judge(call, &parts, query, body).await.unwrap_or_else(|refused| refused);
        if parts.method != Method::HEAD {
            self.metrics.conversion(verdict.count);
        }
        reply::write(format, &verdict)
    }

    async fn judge(
        &self,
        call: Call,
        parts: &Parts,
        query: &str,
        body: Incoming,
    ) -> Result<Verdict, Verdict> {
        let framing = |sentence: &'static str| Verdict::invalid(sentence.trim_end()).closing();
        let head = Head::read(&parts.headers);
        if let Some(doubt) = head.doubt_of_host(parts.version) {
            return Err(framing(doubt));
        }
        let has_body = head.has_body;
        let mut given = Given::new(call);
        let bytes;
        match parts.method {
            Method::GET | Method::HEAD if has_body => {
                return Err(framing("A postback by GET or HEAD has no body and no Transfer-Encoding."));
            }
            Method::GET | Method::HEAD => given.add_encoded(query)?,
            Method::POST if call == Call::Json => {
                bytes = body::read(&parts.headers, body).await?;
                given.add_encoded(query)?;
                body::add(&mut given, &parts.headers, &bytes)?;
            }
            _ => {
                let refused = Verdict::new(
                    ConversionCount::Invalid,
                    StatusCode::METHOD_NOT_ALLOWED,
                    format!("This address takes {}.", call.allowed()),
                )
                .with(header::ALLOW, HeaderValue::from_static(call.allowed()));
                return Err(if has_body { refused.closing() } else { refused });
            }
        }
        let postback = given.read()?;
        let (click, offer) = self.believe(&postback)?;
        if parts.method == Method::HEAD {
            return Ok(recorded(Recorded::Counted));
        }
        let handed_in = self.desk.hand_in(conversion(postback, &click, offer));
        match tokio::time::timeout(LEDGER_PATIENCE, handed_in).await {
            Ok(Some(what)) => Ok(recorded(what)),
            Ok(None) | Err(_) => Err(Verdict::new(
                ConversionCount::Failed,
                StatusCode::SERVICE_UNAVAILABLE,
                "The conversion cannot be recorded at the moment; send it again, and it counts once.",
            )
            .with(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS))),
        }
    }

    /// What the click id says, if it was signed by this network, of a click that went to an offer, and not too long ago.
    fn believe(&self, postback: &Postback<'_>) -> Result<(Contents, OfferId), Verdict> {
        let (click, _) = self.keys.verify(postback.click_id.as_bytes()).map_err(|_| {
            let sentence = format!(
                "The click id in {} is not one of this network: it was forged, or damaged on its way.",
                postback.click_id_name
            );
            Verdict::new(ConversionCount::Forged, StatusCode::BAD_REQUEST, sentence)
        })?;
        let offer = click.offer.ok_or_else(|| {
            let sentence = "The click went to no offer, but to a fallback; it cannot be converted.";
            Verdict::new(ConversionCount::Unknown, StatusCode::NOT_FOUND, sentence)
        })?;
        if postback.offer.is_some_and(|named| named != offer) {
            return Err(ParameterError::other_offer().into());
        }
        let late = |sentence| Verdict::new(ConversionCount::Late, StatusCode::GONE, sentence);
        let age_ms = now().0.saturating_sub(click.at.0);
        if u128::try_from(age_ms).is_ok_and(|age_ms| age_ms > self.options.click_age_max.as_millis()) {
            let days = self.options.click_age_max.as_secs() / DAY_SECONDS;
            return Err(late(format!(
                "The click was more than {days} days ago; it is not counted any more."
            )));
        }
        if age_ms < -AHEAD_MS_MAX {
            return Err(late(
                "The click is yet to come, by the clock of this node; it is not counted.".to_owned(),
            ));
        }
        Ok((click, offer))
    }
}

fn conversion(postback: Postback<'_>, click: &Contents, offer: OfferId) -> Conversion {
    Conversion {
        click_id: postback.click_id.into_owned(),
        event: postback.event,
        transaction: postback.transaction.into_owned(),
        offer_id: offer.value(),
        affiliate_id: click.affiliate.value(),
        smart_link_id: click.link.value(),
        clicked_at: click.at.0,
        amount: postback.amount.map(String::from),
    }
}

fn recorded(what: Recorded) -> Verdict {
    let (count, sentence) = match what {
        Recorded::Counted => (ConversionCount::Counted, "conversion counted"),
        Recorded::Repeated => (ConversionCount::Repeated, "conversion already counted"),
    };
    Verdict::new(count, StatusCode::OK, sentence)
}

/// Longer than a batch may take; whoever hears nothing in the meantime has given up.
const LEDGER_PATIENCE: Duration = Duration::from_secs(10);

const RETRY_AFTER_SECONDS: &str = "5";

/// Clocks of nodes differ, though not by days.
const AHEAD_MS_MAX: i64 = 86_400_000;

const DAY_SECONDS: u64 = 86_400;
