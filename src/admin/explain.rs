//! Explain: a click described in parameters, told step by step. The same function answers the endpoint and the
//! command.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rand::TryRng;
use rand::rngs::SysRng;
use serde::{Deserialize, Serialize};

use crate::lookup::{Hints, device};
use crate::routing::{ClosedCap, TierStory, Values, explain};
use crate::state::{Caps, Geo, Published, now};
use crate::types::{AffiliateId, Click, Draw, Language, LinkId, UnixMillis, referrer_host};

use super::Admin;

/// The click to explain, as parameters of `GET /explain`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExplainQuery {
    pub id: Option<String>,
    pub aff_id: Option<String>,
    /// The visitor's address; 127.0.0.1 if absent.
    pub ip: Option<String>,
    /// The User-Agent.
    pub ua: Option<String>,
    /// As in `Accept-Language`.
    pub language: Option<String>,
    /// As in `Referer`.
    pub referrer: Option<String>,
    /// RFC 3339; now, if absent.
    pub at: Option<String>,
    /// `0x` and hexadecimal, or decimal; a random one if absent.
    pub draw: Option<String>,
    pub s1: Option<String>,
    pub s2: Option<String>,
    pub s3: Option<String>,
    pub s4: Option<String>,
    pub s5: Option<String>,
}

/// What becomes of the click, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainAnswer {
    pub outcome: String,
    pub offer_id: Option<u32>,
    pub rule_id: Option<u32>,
    pub priority: Option<u32>,
    /// With the click id `explained`. `None`: there is none, or it would be too long.
    pub destination: Option<String>,
    pub snapshot: String,
    pub generation: u64,
    /// Hexadecimal: JSON numbers do not hold 64 bits everywhere.
    pub draw: String,
    pub at: String,
    pub visitor: Visitor,
    pub tiers: Vec<TierAnswer>,
}

/// What was looked up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Visitor {
    pub ip: IpAddr,
    pub country: Option<String>,
    pub region: Option<String>,
    pub city: Option<String>,
    pub asn: Option<u32>,
    pub device: String,
    pub os: String,
    pub browser: String,
    pub bot: bool,
    pub language: Option<String>,
    pub referrer_host: Option<String>,
}

/// The entries of one priority.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TierAnswer {
    pub priority: u32,
    pub entries: Vec<EntryAnswer>,
}

/// One entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EntryAnswer {
    pub offer_id: u32,
    pub rule_id: Option<u32>,
    pub offer_weight: u8,
    pub eligible: bool,
    /// Eligible, and not closed by a cap.
    pub open: bool,
    /// The caps of the offer that are closed for the link's affiliate.
    pub closed_caps: Vec<CapAnswer>,
    pub chosen: bool,
    /// Why it could not be drawn.
    pub failed: Option<String>,
}

/// A closed cap, in the words of the API.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CapAnswer {
    pub offer_id: u32,
    pub affiliate_id: Option<u32>,
    pub cap_type: String,
    pub cap_interval: String,
    /// `full`; `no_lease`: the node holds no clicks of it at the moment, though it is not known to be full; or `unknown`: the
    /// ledger has not told the node yet how it stands.
    pub reason: String,
}

/// A parameter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`{parameter}` {problem}")]
pub struct ParameterError {
    pub parameter: &'static str,
    pub problem: String,
}

/// `GET /explain`.
pub async fn handle(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Response {
    let refuse = |message: String| super::refusal(StatusCode::BAD_REQUEST, &message);
    let query = match query {
        Ok(Query(query)) => query,
        Err(rejection) => return refuse(super::reason(&rejection)),
    };
    let (published, geo) = (admin.table.current(), admin.geo.current());
    match answer(&query, &published, &geo) {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => refuse(error.to_string()),
    }
}

/// Explains a click on a table.
pub fn answer(
    query: &ExplainQuery,
    published: &Published,
    geo: &Geo,
) -> Result<ExplainAnswer, ParameterError> {
    let text = Option::as_deref;
    let address = read(text(&query.ip), "ip", "an IP address", |ip| ip.parse::<IpAddr>().ok())?
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .to_canonical();
    let at = read(text(&query.at), "at", "a moment in RFC 3339 such as 2026-11-22T14:30:00Z", read_moment)?;
    let draw = read(text(&query.draw), "draw", "64 bits as 0x… or decimal", read_draw)?;
    let click = Click {
        link: required(text(&query.id), "id", |id| LinkId::parse(id.as_bytes()))?,
        affiliate: required(text(&query.aff_id), "aff_id", |id| AffiliateId::parse(id.as_bytes()))?,
        at: at.unwrap_or_else(now),
        address,
        place: geo.place(address).1,
        device: device(&Hints { user_agent: text(&query.ua), ..Hints::default() }),
        language: text(&query.language).and_then(Language::from_accept_language),
        referrer_host: text(&query.referrer).and_then(referrer_host),
        subs: [&query.s1, &query.s2, &query.s3, &query.s4, &query.s5].map(text),
    };
    let draw = draw.unwrap_or_else(|| Draw(SysRng.try_next_u64().unwrap_or_default()));
    let explanation = explain(published.table.of(click.link), &Caps::looking(&published.caps), &click, draw);
    let decision = explanation.decision;
    let offer = decision.choice.map(|choice| choice.offer);
    let mut location = Vec::new();
    let filled = decision.destination.is_some_and(|template| {
        template.fill(&Values { click: &click, click_id: "explained", offer }, &mut location).is_ok()
    });
    Ok(ExplainAnswer {
        outcome: decision.outcome.as_str().to_owned(),
        offer_id: offer.map(|offer| offer.value()),
        rule_id: decision.choice.and_then(|choice| choice.rule).map(|rule| rule.value()),
        priority: decision.choice.map(|choice| choice.priority),
        destination: filled.then(|| String::from_utf8_lossy(&location).into_owned()),
        snapshot: published.snapshot.clone(),
        generation: published.generation,
        draw: format!("{:#018x}", draw.0),
        at: jiff::Timestamp::from_millisecond(click.at.0).map(|at| at.to_string()).unwrap_or_default(),
        visitor: visitor(&click),
        tiers: explanation.tiers.iter().map(tier).collect(),
    })
}

fn visitor(click: &Click<'_>) -> Visitor {
    Visitor {
        ip: click.address,
        country: click.place.country.map(|country| country.to_string()),
        region: click.place.region.map(|region| region.to_string()),
        city: click.place.city.map(str::to_owned),
        asn: click.place.asn,
        device: click.device.kind.to_string(),
        os: click.device.os.to_string(),
        browser: click.device.browser.to_string(),
        bot: click.device.bot,
        language: click.language.map(|language| language.to_string()),
        referrer_host: click.referrer_host.map(str::to_owned),
    }
}

fn tier(story: &TierStory) -> TierAnswer {
    let entries = story.entries.iter().map(|entry| EntryAnswer {
        offer_id: entry.offer.value(),
        rule_id: entry.rule.map(|rule| rule.value()),
        offer_weight: entry.weight,
        eligible: entry.eligible,
        open: entry.open,
        closed_caps: entry.closed_caps.iter().map(cap).collect(),
        chosen: entry.chosen,
        failed: entry.failed.as_ref().map(ToString::to_string),
    });
    TierAnswer { priority: story.priority, entries: entries.collect() }
}

fn cap(cap: &ClosedCap) -> CapAnswer {
    let ClosedCap { key, reason } = cap;
    CapAnswer {
        offer_id: key.offer.value(),
        affiliate_id: key.affiliate.map(AffiliateId::value),
        cap_type: key.kind.as_str().to_owned(),
        cap_interval: key.interval.as_str().to_owned(),
        reason: reason.as_str().to_owned(),
    }
}

fn required<T>(
    text: Option<&str>,
    parameter: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, ParameterError> {
    read(text, parameter, "a number from 1 to 4294967295 in plain digits", parse)?
        .ok_or_else(|| ParameterError { parameter, problem: "is missing".to_owned() })
}

fn read<T>(
    text: Option<&str>,
    parameter: &'static str,
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ParameterError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    parse(text)
        .map(Some)
        .ok_or_else(|| ParameterError { parameter, problem: format!("is {text:?}; expected {expected}") })
}

fn read_moment(text: &str) -> Option<UnixMillis> {
    text.parse::<jiff::Timestamp>().ok().map(|at| UnixMillis(at.as_millisecond()))
}

fn read_draw(text: &str) -> Option<Draw> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.ok().map(Draw)
}
