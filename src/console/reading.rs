//! What hangs on a link, as the upstream's API tells it: what a form begins with, and what a preview compiles.

use std::collections::BTreeSet;

use axum::http::HeaderValue;
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

/// What was read, and the state of the network that it is of, where the upstream tells.
#[derive(Debug)]
pub struct Read<T> {
    pub item: T,
    pub state: Option<HeaderValue>,
}

impl<T> Read<Vec<T>> {
    fn first(self) -> Option<Read<T>> {
        let state = self.state;
        self.item.into_iter().next().map(|item| Read { item, state })
    }
}

/// `None`: there is no such link.
pub async fn link(client: &Client, link: u32) -> Result<Option<Read<SmartLink>>, CallError> {
    let named = &[("smart_link_id", link.into())];
    Ok(read_rows(client, "smart_links.json", "smart_links", named).await?.first())
}

/// The link with all of its entries, and one more offer, if one is about to be attached. `None`: there is no such link.
pub async fn whole_link(
    client: &Client,
    id: u32,
    and_offer: Option<i64>,
) -> Result<Option<WholeLink>, CallError> {
    let Some(Read { item: link, .. }) = link(client, id).await? else { return Ok(None) };
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
pub async fn offer(client: &Client, offer: u32) -> Result<Option<Read<OfferItem>>, CallError> {
    let rows: Read<Vec<Wrapped>> =
        read_rows(client, "offers.json", "offers", &[("offer_id", offer.into())]).await?;
    Ok(rows.first().map(|Read { item, state }| Read { item: item.offer, state }))
}

/// The offer as attached. `None`: it is not.
pub async fn attachment(
    client: &Client,
    link: u32,
    offer: u32,
) -> Result<Option<Read<SmartLinkOffer>>, CallError> {
    Ok(attachments(client, link, offer).await?.first())
}

/// The same as a list of one, or of none.
pub async fn attachments(
    client: &Client,
    link: u32,
    offer: u32,
) -> Result<Read<Vec<SmartLinkOffer>>, CallError> {
    let named = &[("smart_link_id", link.into()), ("offer_id", offer.into())];
    read_rows(client, "smart_link_offers.json", "smart_link_offers", named).await
}

/// `None`: there is no such rule, or it is another link's.
pub async fn rule(client: &Client, link: u32, rule: u32) -> Result<Option<Read<RoutingRule>>, CallError> {
    let named = &[("smart_link_id", link.into()), ("rule_id", rule.into())];
    Ok(read_rows(client, "routing_rules.json", "routing_rules", named).await?.first())
}

/// The caps of an offer, and not how full they are.
pub async fn caps(client: &Client, offer: u32) -> Result<Read<Vec<OfferCap>>, CallError> {
    read_rows(client, "offer_caps.json", "offer_caps", &[("offer_id", offer.into())]).await
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
    Ok(read_rows(client, call, list, named).await?.item)
}

async fn read_rows<T: DeserializeOwned>(
    client: &Client,
    call: &str,
    list: &str,
    named: &[(&str, Value)],
) -> Result<Read<Vec<T>>, CallError> {
    let asked = named.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let rows = client.rows(call, list, &asked, None, |_| ()).await?;
    let item = rows.rows.iter().map(|row| read(call, row.get())).collect::<Result<_, _>>()?;
    // Pages with a change in between are of no state: nothing can be done in one of this name.
    let state = match rows.changed_in_between {
        true => Some(HeaderValue::from_static("none")),
        false => rows.state,
    };
    Ok(Read { item, state })
}

fn read<T: DeserializeOwned>(call: &str, text: &str) -> Result<T, CallError> {
    serde_json::from_str(text)
        .map_err(|error| CallError::Foreign { call: call.to_owned(), reason: error.to_string() })
}

const SINGLY_MAX: usize = 8;
