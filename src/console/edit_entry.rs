//! Forms for what is attached to a link: attaching an offer, its weight and priority, detaching it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::Map;

use super::change::{self, ChangePage, Removal, Sent};
use super::form::Form;
use super::frame::Section;
use super::guard::Visitor;
use super::names::Names;
use super::paging::query;
use super::posted::{Fields, Posted};
use super::reading::WholeLink;
use super::{Console, reading};
use crate::cake::wire::{FieldError, SmartLinkOffer};
use crate::types::{LinkId, OfferId};

/// `GET /console/links/{id}/offers/new`, perhaps with the offer.
pub async fn new(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    RawQuery(asked): RawQuery,
) -> Response {
    let asked = Fields::read(asked.unwrap_or_default().as_bytes());
    match begin_new(&console, &id).await {
        Ok((names, link)) => {
            let form = new_form(&names).prefilled(&asked);
            new_page(&names, link).fresh(&console, &visitor, form)
        }
        Err(told) => told,
    }
}

/// `POST /console/links/{id}/offers/new`
pub async fn attach(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    Posted(posted): Posted,
) -> Response {
    let (names, link) = match begin_new(&console, &id).await {
        Ok(begun) => begun,
        Err(told) => return told,
    };
    for _ in 0..change::ATTEMPTS {
        if let Some(response) = try_to_attach(&console, &visitor, &names, link, &posted).await {
            return response;
        }
    }
    change::too_busy(&console)
}

/// `None`: the network was changed in between.
async fn try_to_attach(
    console: &Console,
    visitor: &Visitor,
    names: &Names,
    link: LinkId,
    posted: &Fields,
) -> Option<Response> {
    let (page, form) = (new_page(names, link), new_form(names).typed(posted));
    let mut state = None;
    // Attaching what is attached would change its weight and its tier, and somebody who attaches does not know of it.
    if let Some(offer) = form.text("offer_id").parse().ok().and_then(OfferId::new) {
        let there = match reading::attachments(&console.parts().client, link.value(), offer.value()).await {
            Ok(there) => there,
            Err(error) => return Some(page.refused(console, visitor, form, &error)),
        };
        if let Some(entry) = there.item.first() {
            let problem = format!(
                "{offer} is attached to link {link} already, with weight {} in priority {}; edit that entry instead",
                entry.offer_weight, entry.priority
            );
            let edit = (format!("/console/links/{link}/offers/{offer}"), format!("Edit offer {offer} on it"));
            let page = ChangePage { further: vec![edit], ..page };
            return Some(page.previewed(console, visitor, form, Err(FieldError::new("offer_id", problem))));
        }
        state = there.state;
    }
    let mut parameters = form.filled_in();
    parameters.insert("smart_link_id".to_owned(), link.value().into());
    if change::wants_preview(posted) {
        let sent = Sent { names, link, page, form, call: ATTACH, parameters };
        return Some(sent.preview(console, visitor, put, |entry| Some(entry.offer_id)).await);
    }
    match change::send_in(console, state.as_ref(), ATTACH, parameters).await {
        Ok((answer, is_live)) => {
            let entry = &answer.value()["response"];
            let what = format!(
                "Offer {} is attached to link {link} with weight {} in priority {}.",
                entry["offer_id"], entry["offer_weight"], entry["priority"]
            );
            Some(change::done(console, &format!("/console/links/{link}"), change::sentence(&what, is_live)))
        }
        Err(error) if error.is_outdated() => None,
        Err(error) => Some(page.refused(console, visitor, form, &error)),
    }
}

/// `GET /console/links/{id}/offers/{offer}`
pub async fn edit(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(path): Path<(String, String)>,
) -> Response {
    match begin(&console, &path).await {
        Ok(begun) => begun.page().fresh(&console, &visitor, edit_form(&begun.entry)),
        Err(told) => told,
    }
}

/// `POST /console/links/{id}/offers/{offer}`
pub async fn save(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(path): Path<(String, String)>,
    Posted(posted): Posted,
) -> Response {
    for _ in 0..change::ATTEMPTS {
        if let Some(response) = try_to_save(&console, &visitor, &path, &posted).await {
            return response;
        }
    }
    change::too_busy(&console)
}

/// `None`: the network was changed in between.
async fn try_to_save(
    console: &Console,
    visitor: &Visitor,
    path: &(String, String),
    posted: &Fields,
) -> Option<Response> {
    let begun = match begin(console, path).await {
        Ok(begun) => begun,
        Err(told) => return Some(told),
    };
    let (link, offer, page) = (begun.link, begun.offer, begun.page());
    let form = edit_form(&begun.entry).typed(posted).meeting(&edit_form(&begun.entry));
    if form.is_overtaken() {
        return Some(page.overtaken(console, visitor, form));
    }
    let to = format!("/console/links/{link}");
    let mut parameters = form.changed();
    let is_idle = parameters.is_empty();
    parameters.extend(begun.named());
    if change::wants_preview(posted) {
        let sent = Sent { names: &begun.names, link, page, form, call: ATTACH, parameters };
        return Some(sent.preview(console, visitor, put, |_| None).await);
    }
    if is_idle {
        let what = format!("Offer {offer} on link {link}: nothing was changed.");
        return Some(change::done(console, &to, what));
    }
    match change::send_in(console, begun.state.as_ref(), ATTACH, parameters).await {
        Ok((_, is_live)) => {
            let what = format!("Offer {offer} on link {link} was changed: {}.", form.changes());
            Some(change::done(console, &to, change::sentence(&what, is_live)))
        }
        Err(error) if error.is_outdated() => None,
        Err(error) => Some(page.refused(console, visitor, form, &error)),
    }
}

/// `GET /console/links/{id}/offers/{offer}/remove`
pub async fn ask(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(path): Path<(String, String)>,
) -> Response {
    let begun = match begin(&console, &path).await {
        Ok(begun) => begun,
        Err(told) => return told,
    };
    let offer = i64::from(begun.offer.value());
    let preview = change::preview(&console, &begun.names, begun.link, None, |whole| {
        whole.attached.retain(|entry| entry.offer_id != offer);
        Ok(())
    });
    match preview.await {
        Ok(preview) => {
            begun.remove_page().ask(&console, &visitor, StatusCode::OK, edit_form(&begun.entry), preview.ok())
        }
        Err(error) => change::failed(&console, &error),
    }
}

/// `POST /console/links/{id}/offers/{offer}/remove`
pub async fn remove(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(path): Path<(String, String)>,
    Posted(posted): Posted,
) -> Response {
    for _ in 0..change::ATTEMPTS {
        let begun = match begin(&console, &path).await {
            Ok(begun) => begun,
            Err(told) => return told,
        };
        let removal = Removal {
            page: begun.remove_page(),
            form: edit_form(&begun.entry),
            state: begun.state.as_ref(),
            call: "remove_smart_link_offer.json",
            named: begun.named(),
            to: &format!("/console/links/{}", begun.link),
            done: format!("Offer {} is no longer attached to link {}.", begun.offer, begun.link),
        };
        if let Some(response) = removal.run(&console, &visitor, &posted).await {
            return response;
        }
    }
    change::too_busy(&console)
}

/// An entry that is there.
struct Begun {
    names: Arc<Names>,
    link: LinkId,
    offer: OfferId,
    entry: SmartLinkOffer,
    state: Option<HeaderValue>,
}

impl Begun {
    fn named(&self) -> Map<String, serde_json::Value> {
        Map::from_iter([
            ("smart_link_id".to_owned(), self.link.value().into()),
            ("offer_id".to_owned(), self.offer.value().into()),
        ])
    }

    fn page(&self) -> ChangePage {
        let (link, offer) = (self.link, self.offer);
        let of_link = query(&[("link", &link.to_string())]);
        ChangePage {
            section: Section::Links,
            title: format!("Offer {offer} on link {link}"),
            trail: change::link_trail(&self.names, link),
            about: String::new(),
            action: format!("/console/links/{link}/offers/{offer}"),
            verb: "Save",
            can_preview: true,
            further: vec![
                (format!("/console/links/{link}/offers/{offer}/remove"), "Detach …".to_owned()),
                (format!("/console/offers/{offer}{of_link}"), "Edit the offer itself".to_owned()),
            ],
        }
    }

    fn remove_page(&self) -> ChangePage {
        let (link, offer) = (self.link, self.offer);
        ChangePage {
            title: format!("Detach offer {offer} from link {link}?"),
            about: "Its weight and its priority are forgotten. The offer itself stays, and so do rules that name it."
                .to_owned(),
            action: format!("/console/links/{link}/offers/{offer}/remove"),
            verb: "Detach it",
            can_preview: false,
            further: vec![(format!("/console/links/{link}"), "Keep it".to_owned())],
            ..self.page()
        }
    }
}

async fn begin(console: &Console, (id, offer): &(String, String)) -> Result<Begun, Response> {
    let names = change::names(console).await?;
    let missing = || change::not_found(console, &format!("offer {offer} attached to link {id}"));
    let link = LinkId::parse(id.as_bytes()).ok_or_else(missing)?;
    let offer = offer.parse().ok().and_then(OfferId::new).ok_or_else(missing)?;
    let found = reading::attachment(&console.parts().client, link.value(), offer.value()).await;
    let found = found.map_err(|error| change::failed(console, &error))?.ok_or_else(missing)?;
    Ok(Begun { names, link, offer, entry: found.item, state: found.state })
}

async fn begin_new(console: &Console, id: &str) -> Result<(Arc<Names>, LinkId), Response> {
    let names = change::names(console).await?;
    let missing = || change::not_found(console, &format!("link {id}"));
    let link = LinkId::parse(id.as_bytes()).ok_or_else(missing)?;
    let found = reading::link(&console.parts().client, link.value()).await;
    found.map_err(|error| change::failed(console, &error))?.ok_or_else(missing)?;
    Ok((names, link))
}

/// Puts an entry in its place: an offer is attached to a link once.
fn put(whole: &mut WholeLink, entry: SmartLinkOffer) {
    whole.attached.retain(|other| other.offer_id != entry.offer_id);
    whole.attached.push(entry);
}

fn new_page(names: &Names, link: LinkId) -> ChangePage {
    let of_link = query(&[("link", &link.to_string())]);
    ChangePage {
        section: Section::Links,
        title: format!("Attach an offer to link {link}"),
        trail: change::link_trail(names, link),
        about: "For every visitor. An offer for some visitors alone is a rule.".to_owned(),
        action: format!("/console/links/{link}/offers/new"),
        verb: "Attach",
        can_preview: true,
        further: vec![
            (format!("/console/offers/new{of_link}"), "Create a new offer first".to_owned()),
            (format!("/console/links/{link}/rules/new"), "Add a rule instead".to_owned()),
        ],
    }
}

fn new_form(names: &Names) -> Form {
    Form::new(vec![
        change::offer_field(names),
        change::weight_field().value("1"),
        change::priority_field().value("1"),
    ])
}

fn edit_form(entry: &SmartLinkOffer) -> Form {
    Form::new(vec![
        change::weight_field().is(entry.offer_weight.to_string()),
        change::priority_field().is(entry.priority.to_string()),
    ])
}

/// Attaches, or changes what is attached.
const ATTACH: &str = "smart_link_offer.json";
