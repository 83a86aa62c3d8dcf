//! Forms for an offer, as far as a link needs one.

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;

use super::change::{self, ChangePage};
use super::form::{Field, Form};
use super::frame::Section;
use super::guard::Visitor;
use super::names::Names;
use super::paging::query;
use super::posted::{Fields, Posted};
use super::reading::Read;
use super::{Console, reading};
use crate::cake::wire::{OFFER_STATUSES, OfferItem};
use crate::types::{LinkId, OfferId};

/// `GET /console/offers/new`, perhaps with the link to which it is to be attached next.
pub async fn new(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    RawQuery(asked): RawQuery,
) -> Response {
    match change::names(&console).await {
        Ok(names) => new_page(&names, for_link(asked.as_deref())).fresh(&console, &visitor, form(None)),
        Err(told) => told,
    }
}

/// `POST /console/offers/new`
pub async fn create(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    RawQuery(asked): RawQuery,
    Posted(posted): Posted,
) -> Response {
    let names = match change::names(&console).await {
        Ok(names) => names,
        Err(told) => return told,
    };
    let (link, form) = (for_link(asked.as_deref()), form(None).typed(&posted));
    match change::send(&console, "offer.json", form.filled_in()).await {
        Ok((answer, _)) => {
            let offer = answer.value()["offer"]["offer_id"].to_string();
            let what = format!("Offer {offer} “{}” was created.", form.text("offer_name"));
            let to = match link {
                Some(link) => format!("/console/links/{link}/offers/new?offer_id={offer}"),
                None => format!("/console/offers/{offer}"),
            };
            change::done(&console, &to, what)
        }
        Err(error) => new_page(&names, link).refused(&console, &visitor, form, &error),
    }
}

/// `GET /console/offers/{offer}`, perhaps with the link from whose page somebody comes.
pub async fn edit(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    RawQuery(asked): RawQuery,
) -> Response {
    match begin(&console, &id, asked.as_deref()).await {
        Ok((page, _, _, read)) => page.fresh(&console, &visitor, form(Some(&read.item))),
        Err(told) => told,
    }
}

/// `POST /console/offers/{offer}`
pub async fn save(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    RawQuery(asked): RawQuery,
    Posted(posted): Posted,
) -> Response {
    for _ in 0..change::ATTEMPTS {
        if let Some(response) = try_to_save(&console, &visitor, &id, asked.as_deref(), &posted).await {
            return response;
        }
    }
    change::too_busy(&console)
}

/// `None`: the network was changed in between.
async fn try_to_save(
    console: &Console,
    visitor: &Visitor,
    id: &str,
    asked: Option<&str>,
    posted: &Fields,
) -> Option<Response> {
    let (page, offer, link, Read { item, state }) = match begin(console, id, asked).await {
        Ok(begun) => begun,
        Err(told) => return Some(told),
    };
    let form = form(Some(&item)).typed(posted).meeting(&form(Some(&item)));
    if form.is_overtaken() {
        return Some(page.overtaken(console, visitor, form));
    }
    let to = match link {
        Some(link) => format!("/console/links/{link}"),
        None => format!("/console/offers/{offer}"),
    };
    let mut parameters = form.changed();
    if parameters.is_empty() {
        return Some(change::done(console, &to, format!("Offer {offer}: nothing was changed.")));
    }
    // A name alone changes no routing, and is waited for in vain.
    let is_routed = parameters.keys().any(|name| !["offer_name", "payout"].contains(&name.as_str()));
    parameters.insert("offer_id".to_owned(), offer.value().into());
    match change::send_in(console, state.as_ref(), "update_offer.json", parameters).await {
        Ok((_, is_live)) => {
            let what = format!("Offer {offer} was changed: {}.", form.changes());
            let what = if is_routed { change::sentence(&what, is_live) } else { what };
            Some(change::done(console, &to, what))
        }
        Err(error) if error.is_outdated() => None,
        Err(error) => Some(page.refused(console, visitor, form, &error)),
    }
}

async fn begin(
    console: &Console,
    id: &str,
    asked: Option<&str>,
) -> Result<(ChangePage, OfferId, Option<LinkId>, Read<OfferItem>), Response> {
    let names = change::names(console).await?;
    let missing = || change::not_found(console, &format!("offer {id}"));
    let offer = OfferId::new(id.parse().map_err(|_| missing())?).ok_or_else(missing)?;
    let found = reading::offer(&console.parts().client, offer.value()).await;
    let item = found.map_err(|error| change::failed(console, &error))?.ok_or_else(missing)?;
    let link = for_link(asked);
    let page = ChangePage {
        title: format!("Edit offer {offer}"),
        about: "It changes on every link to which it is attached, so there is no preview.".to_owned(),
        action: format!("/console/offers/{offer}{}", of_link(link)),
        verb: "Save",
        further: vec![(format!("/console/caps/new?offer_id={offer}"), "Set a cap".to_owned())],
        ..new_page(&names, link)
    };
    Ok((page, offer, link, item))
}

fn new_page(names: &Names, link: Option<LinkId>) -> ChangePage {
    ChangePage {
        section: if link.is_some() { Section::Links } else { Section::Offers },
        title: "New offer".to_owned(),
        trail: match link {
            Some(link) => change::link_trail(names, link),
            None => vec![("/console/offers".to_owned(), "Offers".to_owned())],
        },
        about: match link {
            Some(link) => format!("A destination. It is attached to link {link} next."),
            None => "A destination, which can then be attached to links.".to_owned(),
        },
        action: format!("/console/offers/new{}", of_link(link)),
        verb: "Create",
        can_preview: false,
        further: Vec::new(),
    }
}

fn form(offer: Option<&OfferItem>) -> Form {
    let payout = offer.and_then(|offer| offer.payout).map_or_else(String::new, |payout| payout.to_string());
    let fields = [
        (
            Field::new("offer_name", "Name").hint("What people call it."),
            offer.map(|offer| offer.offer_name.clone()),
        ),
        (
            Field::new("offer_url", "Address").hint(
                "https, with tokens such as {click_id}, {sub_id}, {country}: docs/routing.md has them all.",
            ),
            offer.map(|offer| offer.offer_url.clone()),
        ),
        (
            Field::new("offer_status", "Status")
                .one_of(OFFER_STATUSES)
                .hint("Only an active offer takes clicks."),
            offer.map(|offer| offer.offer_status.to_ascii_lowercase()),
        ),
        (
            Field::new("payout", "Payout").hint("What a conversion pays the affiliate. Empty: not told."),
            offer.map(|_| payout),
        ),
        (
            Field::new("expiration_date", "Expires")
                .hint("Its last second, YYYY-MM-DD HH:MM:SS in the network’s time zone. Empty: never."),
            offer.map(|offer| offer.expiration_date.clone().unwrap_or_default()),
        ),
    ];
    Form::new(
        fields
            .into_iter()
            .map(|(field, is)| match is {
                Some(is) => field.is(is),
                None => field,
            })
            .collect(),
    )
}

/// The link that the page's address names.
fn for_link(asked: Option<&str>) -> Option<LinkId> {
    let asked = Fields::read(asked.unwrap_or_default().as_bytes());
    LinkId::parse(asked.text("link").as_bytes())
}

fn of_link(link: Option<LinkId>) -> String {
    link.map_or_else(String::new, |link| query(&[("link", &link.to_string())]))
}
