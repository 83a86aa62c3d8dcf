//! Geo targets, from upstreams that list them in one of two ways.
//!
//! CAKE publishes `offer_geo_targets.json` for one offer at a time. The list over all offers is ours, and spares a call
//! for each; it is tried first, and an upstream that does not know it is asked offer by offer. Then only offers that
//! an entry or a rule names are asked for: no click can reach the others.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt, stream};
use http::StatusCode;
use serde::de::DeserializeOwned;

use super::client::{Answered, Client, Reading};
use super::fetch_error::FetchError;
use super::key::Key;
use super::network::Network;
use super::page::{Fields, List, read_envelope};
use super::wire::{GeoTarget, OfferGeoTargets};

/// How an upstream lists geo targets, as far as it is known.
#[derive(Debug, Default)]
pub struct GeoTargetsForm {
    /// The upstream was asked offer by offer, and answered.
    by_offer: AtomicBool,
}

impl Reading<'_> {
    /// The geo targets of the network's offers: of all, or of those that its entries and rules name.
    pub(super) async fn geo_targets(
        &mut self,
        network: &Network,
    ) -> Result<Vec<OfferGeoTargets>, FetchError> {
        // Relaxed: it saves a call, and nothing hangs on who sees it first.
        let by_offer = &self.client.geo_targets_form.by_offer;
        let known = by_offer.load(Ordering::Relaxed);
        if !known {
            match self.list(List::OfferGeoTargets).await {
                Err(error) if wants_an_offer(&error) => {}
                listed => return listed,
            }
        }
        let offers = routed_offers(network);
        let asked = offers.len();
        let (client, key) = (self.client, self.key);
        let ask = |offer| async move { (offer, client.geo_targets_of(key, offer).await) };
        let mut answers = pin!(stream::iter(offers).map(ask).buffer_unordered(CALLS_AT_ONCE));
        let mut read = Vec::new();
        while let Some((offer, answered)) = answers.next().await {
            let (body, revision) = answered?;
            self.is_of(CALL, revision)?;
            let targets = read_one(offer, &body)?;
            // As in the list over all offers: one without geo targets is not in it.
            if !targets.geo_targets.is_empty() {
                read.push(targets);
            }
        }
        // Not before it has worked: a proxy that said 404 for a moment would cost a call for each offer for ever.
        if !known && asked > 0 {
            by_offer.store(true, Ordering::Relaxed);
            tracing::info!(
                offers = asked,
                "the upstream lists geo targets for one offer at a time: each refresh asks for every offer that an \
                 entry or a rule names"
            );
        }
        Ok(read)
    }
}

impl Client {
    async fn geo_targets_of(&self, key: &Key, offer: i64) -> Result<Answered, FetchError> {
        let parameters = [("offer_id", &*offer.to_string())];
        self.call(key, CALL, &parameters, self.options().call_timeout).await
    }
}

/// Reads `{"request_status":"Success","offer_id":1042,"geo_targets":[…]}`, or the same under `response`.
fn read_one(offer: i64, body: &[u8]) -> Result<OfferGeoTargets, FetchError> {
    let (top, inner) = read_envelope(CALL, body)?;
    // A cache in between that mixes up its answers would open an offer to countries that its advertiser does not pay.
    if let Some(told) = field::<i64>(&top, &inner, "offer_id")?
        && told != offer
    {
        let reason = format!("offer {offer} was asked for, and the answer is about offer {told}");
        return Err(FetchError::Json { call: CALL, reason });
    }
    let geo_targets = field::<Vec<GeoTarget>>(&top, &inner, LIST)?;
    let geo_targets = geo_targets.ok_or(FetchError::NoList { call: CALL, list: LIST })?;
    Ok(OfferGeoTargets { offer_id: offer, geo_targets })
}

fn field<T: DeserializeOwned>(
    top: &Fields<'_>,
    inner: &Fields<'_>,
    name: &str,
) -> Result<Option<T>, FetchError> {
    let Some(value) = inner.get(name).or_else(|| top.get(name)) else { return Ok(None) };
    let read = serde_json::from_str(value.get());
    read.map(Some).map_err(|error| FetchError::Json { call: CALL, reason: error.to_string() })
}

/// Whether the answer is that of an upstream that knows the call for one offer alone.
fn wants_an_offer(error: &FetchError) -> bool {
    match error {
        FetchError::Status { status, .. } => {
            [StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND, StatusCode::UNPROCESSABLE_ENTITY]
                .contains(status)
        }
        // Errors of CAKE may come with 200.
        FetchError::Refused { .. } | FetchError::NoList { .. } => true,
        _ => false,
    }
}

/// The offers that are there and that a click can reach.
fn routed_offers(network: &Network) -> Vec<i64> {
    let entries = network.smart_link_offers.iter().map(|entry| i64::from(entry.offer.value()));
    let rules = network.routing_rules.iter().map(|rule| i64::from(rule.offer.value()));
    let named: BTreeSet<i64> = entries.chain(rules).collect();
    let offers: BTreeSet<i64> = network.offers.iter().map(|offer| offer.offer_id).collect();
    named.intersection(&offers).copied().collect()
}

const CALL: &str = "offer_geo_targets.json";

/// The list in the answer for one offer.
const LIST: &str = "geo_targets";

/// Enough that a refresh does not wait for each answer in turn, too few to be a burden.
const CALLS_AT_ONCE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_dialects_of_one_offer() {
        let targets = r#""geo_targets":[{"country_code":"US","action":"allow"}]"#;
        for body in [
            format!(r#"{{"request_status":"Success","offer_id":1042,{targets}}}"#),
            format!(r#"{{"request_status":"success",{targets}}}"#),
            format!(r#"{{"request_status":"Success","response":{{"offer_id":1042,{targets}}}}}"#),
        ] {
            let read = read_one(1042, body.as_bytes()).unwrap();
            assert_eq!((read.offer_id, read.geo_targets.len()), (1042, 1), "{body}");
        }
    }

    #[test]
    fn whatever_else_comes_is_an_error() {
        for (body, said) in [
            (r#"{"request_status":"Error"}"#, "\"Error\""),
            (r#"{"request_status":"Success","offer_id":1042}"#, "no list `geo_targets`"),
            (
                r#"{"request_status":"Success","offer_id":7,"geo_targets":[]}"#,
                "offer 1042 was asked for, and the answer is about offer 7",
            ),
            (r#"{"request_status":"Success","geo_targets":{}}"#, "not the JSON"),
            (r#"{"request_status":"Success","geo_targets":null}"#, "not the JSON"),
        ] {
            let error = read_one(1042, body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(said), "{body}: {error}");
        }
    }
}
