//! What hangs on a link, as the upstream's API tells it: what a form begins with, and what a preview compiles.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::cake::wire::{OfferCap, OfferGeoTargets, OfferItem, RoutingRule, SmartLink, SmartLinkOffer};
use crate::cake::{CallError, Client};

/// A link with its entries, and the offers of those.
#[derive(Clone, Debug, PartialEq)]
pub struct WholeLink {
    pub link: SmartLink,
    pub attached: Vec<SmartLinkOffer>,
    pub rules: Vec<RoutingRule>,
    pub offers: Vec<OfferItem>,
    pub geo_targets: Vec<OfferGeoTargets>,
}

/// `None`: there is no such link.
pub async fn link(client: &Client, link: u32) -> Result<Option<SmartLink>, CallError> {
    let rows = rows(client, "smart_links.json", "smart_links", &[("smart_link_id", link.into())]).await?;
    Ok(rows.into_iter().next())
}

/// The link with all of its entries, and one more offer, if one is about to be attached. `None`: there is no such link.
pub async fn whole_link(
    client: &Client,
    id: u32,
    and_offer: Option<i64>,
) -> Result<Option<WholeLink>, CallError> {
    let Some(link) = link(client, id).await? else { return Ok(None) };
    let of_link = &[("smart_link_id", id.into())];
    let attached: Vec<SmartLinkOffer> =
        rows(client, "smart_link_offers.json", "smart_link_offers", of_link).await?;
    let rules: Vec<RoutingRule> = rows(client, "routing_rules.json", "routing_rules", of_link).await?;
    let named = attached.iter().map(|entry| entry.offer_id).chain(rules.iter().map(|rule| rule.offer_id));
    let named: BTreeSet<i64> = named.chain(and_offer).collect();
    let (offers, geo_targets) = offers(client, &named).await?;
    Ok(Some(WholeLink { link, attached, rules, offers, geo_targets }))
}

/// `None`: there is no such offer.
pub async fn offer(client: &Client, offer: u32) -> Result<Option<OfferItem>, CallError> {
    let rows: Vec<Wrapped> = rows(client, "offers.json", "offers", &[("offer_id", offer.into())]).await?;
    Ok(rows.into_iter().next().map(|wrapped| wrapped.offer))
}

/// The offer as attached. `None`: it is not.
pub async fn attachment(client: &Client, link: u32, offer: u32) -> Result<Option<SmartLinkOffer>, CallError> {
    let named = &[("smart_link_id", link.into()), ("offer_id", offer.into())];
    Ok(rows(client, "smart_link_offers.json", "smart_link_offers", named).await?.into_iter().next())
}

/// `None`: there is no such rule, or it is another link's.
pub async fn rule(client: &Client, link: u32, rule: u32) -> Result<Option<RoutingRule>, CallError> {
    let named = &[("smart_link_id", link.into()), ("rule_id", rule.into())];
    Ok(rows(client, "routing_rules.json", "routing_rules", named).await?.into_iter().next())
}

/// The caps of an offer, and not how full they are.
pub async fn caps(client: &Client, offer: u32) -> Result<Vec<OfferCap>, CallError> {
    rows(client, "offer_caps.json", "offer_caps", &[("offer_id", offer.into())]).await
}

/// Few are asked for one by one, of many all are listed: an API takes only so many calls a second.
async fn offers(
    client: &Client,
    named: &BTreeSet<i64>,
) -> Result<(Vec<OfferItem>, Vec<OfferGeoTargets>), CallError> {
    let all: Vec<Wrapped>;
    let mut geo_targets: Vec<OfferGeoTargets>;
    if named.len() <= SINGLY_MAX {
        let (mut singly, mut targets) = (Vec::new(), Vec::new());
        for &offer in named {
            let of_offer = &[("offer_id", offer.into())];
            let found: Vec<Wrapped> = rows(client, "offers.json", "offers", of_offer).await?;
            if !found.is_empty() {
                let mut asked = Map::new();
                asked.insert("offer_id".to_owned(), offer.into());
                let answer = client.read("offer_geo_targets.json", &asked).await?;
                targets.push(read("offer_geo_targets.json", &answer.text)?);
            }
            singly.extend(found);
        }
        (all, geo_targets) = (singly, targets);
    } else {
        all = rows(client, "offers.json", "offers", &[]).await?;
        geo_targets = rows(client, "offer_geo_targets.json", "offer_geo_targets", &[]).await?;
        geo_targets.retain(|targets| named.contains(&targets.offer_id));
    }
    let offers = all.into_iter().map(|wrapped| wrapped.offer);
    Ok((offers.filter(|offer| named.contains(&offer.offer_id)).collect(), geo_targets))
}

#[derive(Deserialize)]
struct Wrapped {
    offer: OfferItem,
}

async fn rows<T: DeserializeOwned>(
    client: &Client,
    call: &str,
    list: &str,
    named: &[(&str, Value)],
) -> Result<Vec<T>, CallError> {
    let asked = named.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let rows = client.rows(call, list, &asked, None, |_| ()).await?;
    rows.rows.iter().map(|row| read(call, row.get())).collect()
}

fn read<T: DeserializeOwned>(call: &str, text: &str) -> Result<T, CallError> {
    serde_json::from_str(text)
        .map_err(|error| CallError::Foreign { call: call.to_owned(), reason: error.to_string() })
}

const SINGLY_MAX: usize = 8;
