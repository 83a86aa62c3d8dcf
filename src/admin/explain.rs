//! Explain: a click described in parameters, told step by step ([`Question`]), as JSON. The same function answers the
//! endpoint and the command.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::routing::{ClosedCap, TierStory};
use crate::state::{Geo, Looked, ParameterErrors, Published, Question};
use crate::types::AffiliateId;

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
    /// Whose link it is, be it of the click's affiliate or not; null: there is no such link.
    pub affiliate_id: Option<u32>,
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
) -> Result<ExplainAnswer, ParameterErrors> {
    let text = Option::as_deref;
    let question = Question {
        id: text(&query.id),
        aff_id: text(&query.aff_id),
        ip: text(&query.ip),
        country: None,
        ua: text(&query.ua),
        language: text(&query.language),
        referrer: text(&query.referrer),
        at: text(&query.at),
        draw: text(&query.draw),
        subs: [&query.s1, &query.s2, &query.s3, &query.s4, &query.s5].map(text),
    };
    let told = question.answer(published, geo)?;
    Ok(ExplainAnswer {
        outcome: told.outcome.as_str().to_owned(),
        offer_id: told.choice.map(|choice| choice.offer.value()),
        rule_id: told.choice.and_then(|choice| choice.rule).map(|rule| rule.value()),
        priority: told.choice.map(|choice| choice.priority),
        affiliate_id: told.affiliate.map(AffiliateId::value),
        destination: told.destination,
        snapshot: told.snapshot,
        generation: told.generation,
        draw: format!("{:#018x}", told.draw.0),
        at: jiff::Timestamp::from_millisecond(told.at.0).map(|at| at.to_string()).unwrap_or_default(),
        visitor: visitor(told.visitor),
        tiers: told.tiers.iter().map(tier).collect(),
    })
}

fn visitor(looked: Looked) -> Visitor {
    Visitor {
        ip: looked.address,
        country: looked.country.map(|country| country.to_string()),
        region: looked.region.map(|region| region.to_string()),
        city: looked.city,
        asn: looked.asn,
        device: looked.device.kind.to_string(),
        os: looked.device.os.to_string(),
        browser: looked.device.browser.to_string(),
        bot: looked.device.bot,
        language: looked.language.map(|language| language.to_string()),
        referrer_host: looked.referrer_host,
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
