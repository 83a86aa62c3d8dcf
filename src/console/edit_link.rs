//! Forms for a link: a new one, and the link as it is.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;

use super::change::{self, ChangePage, Sent};
use super::form::{Field, Form, Input};
use super::frame::Section;
use super::guard::Visitor;
use super::names::Names;
use super::posted::{Fields, Posted};
use super::reading::{Read, WholeLink};
use super::{Console, reading};
use crate::cake::wire::{LINK_STATUSES, SmartLink};
use crate::types::LinkId;

/// `GET /console/links/new`
pub async fn new(State(console): State<Console>, Extension(visitor): Extension<Visitor>) -> Response {
    match change::names(&console).await {
        Ok(_) => new_page().fresh(&console, &visitor, new_form()),
        Err(told) => told,
    }
}

/// `POST /console/links/new`
pub async fn create(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Posted(posted): Posted,
) -> Response {
    if let Err(told) = change::names(&console).await {
        return told;
    }
    let form = new_form().typed(&posted);
    match change::send(&console, "smart_link.json", form.filled_in()).await {
        Ok((answer, _)) => {
            let link = answer.value()["response"]["smart_link_id"].to_string();
            let what = format!(
                "Link {link} “{}” was created. Nothing is attached to it yet: its clicks go to the fallback until you \
                 attach an offer.",
                form.text("smart_link_name")
            );
            change::done(&console, &format!("/console/links/{link}"), what)
        }
        Err(error) => new_page().refused(&console, &visitor, form, &error),
    }
}

/// `GET /console/links/{id}/edit`
pub async fn edit(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Response {
    match begin(&console, &id).await {
        Ok((link, names, item)) => edit_page(&names, link).fresh(&console, &visitor, edit_form(&item.item)),
        Err(told) => told,
    }
}

/// `POST /console/links/{id}/edit`
pub async fn save(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    Posted(posted): Posted,
) -> Response {
    for _ in 0..change::ATTEMPTS {
        if let Some(response) = try_to_save(&console, &visitor, &id, &posted).await {
            return response;
        }
    }
    change::too_busy(&console)
}

/// `None`: the network was changed in between.
async fn try_to_save(console: &Console, visitor: &Visitor, id: &str, posted: &Fields) -> Option<Response> {
    let (link, names, Read { item, state }) = match begin(console, id).await {
        Ok(begun) => begun,
        Err(told) => return Some(told),
    };
    let (page, form) = (edit_page(&names, link), edit_form(&item).typed(posted).meeting(&edit_form(&item)));
    if form.is_overtaken() {
        return Some(page.overtaken(console, visitor, form));
    }
    let to = format!("/console/links/{link}");
    let mut parameters = form.changed();
    let is_idle = parameters.is_empty();
    parameters.insert("smart_link_id".to_owned(), link.value().into());
    if change::wants_preview(posted) {
        let sent = Sent { names: &names, link, page, form, call: UPDATE, parameters };
        let put = |whole: &mut WholeLink, link: SmartLink| whole.link = link;
        return Some(sent.preview(console, visitor, put, |_| None).await);
    }
    if is_idle {
        return Some(change::done(console, &to, format!("Link {link}: nothing was changed.")));
    }
    match change::send_in(console, state.as_ref(), UPDATE, parameters).await {
        Ok((_, is_live)) => {
            let what = format!("Link {link} was changed: {}.", form.changes());
            Some(change::done(console, &to, change::sentence(&what, is_live)))
        }
        Err(error) if error.is_outdated() => None,
        Err(error) => Some(page.refused(console, visitor, form, &error)),
    }
}

async fn begin(
    console: &Console,
    id: &str,
) -> Result<(LinkId, std::sync::Arc<Names>, Read<SmartLink>), Response> {
    let names = change::names(console).await?;
    let missing = || change::not_found(console, &format!("link {id}"));
    let link = LinkId::parse(id.as_bytes()).ok_or_else(missing)?;
    let found = reading::link(&console.parts().client, link.value()).await;
    let item = found.map_err(|error| change::failed(console, &error))?.ok_or_else(missing)?;
    Ok((link, names, item))
}

fn new_page() -> ChangePage {
    ChangePage {
        section: Section::Links,
        title: "New link".to_owned(),
        trail: vec![("/console/links".to_owned(), "Links".to_owned())],
        about: "What an affiliate sends clicks to. Offers are attached to it next.".to_owned(),
        action: "/console/links/new".to_owned(),
        verb: "Create",
        can_preview: false,
        further: Vec::new(),
    }
}

fn edit_page(names: &Names, link: LinkId) -> ChangePage {
    ChangePage {
        section: Section::Links,
        title: format!("Edit link {link}"),
        trail: change::link_trail(names, link),
        about: String::new(),
        action: format!("/console/links/{link}/edit"),
        verb: "Save",
        can_preview: true,
        further: Vec::new(),
    }
}

fn new_form() -> Form {
    let fresh = ["", "", LINK_STATUSES[0], "weighted", "true", ""];
    Form::new(fields().into_iter().zip(fresh).map(|(field, value)| field.value(value)).collect())
}

fn edit_form(link: &SmartLink) -> Form {
    let values = [
        link.smart_link_name.clone(),
        link.affiliate_id.to_string(),
        link.smart_link_status.to_ascii_lowercase(),
        link.rotation_type.clone(),
        link.cap_aware.to_string(),
        link.fallback_url.clone().unwrap_or_default(),
    ];
    Form::new(fields().into_iter().zip(values).map(|(field, value)| field.is(value)).collect())
}

fn fields() -> [Field; 6] {
    let rotations = [
        ("weighted", "weighted: one is drawn by weight"),
        ("even", "even: one is drawn, each as likely"),
        ("priority", "priority: the one with the lowest offer number takes all"),
    ];
    let rotations = rotations.map(|(value, label)| (value.to_owned(), label.to_owned()));
    [
        Field::new("smart_link_name", "Name").hint("What people call it."),
        Field::new("affiliate_id", "Affiliate").hint("Whose link it is: only its clicks are routed."),
        Field::new("smart_link_status", "Status")
            .one_of(LINK_STATUSES)
            .hint("Inactive: every click goes to the fallback."),
        Field::new("rotation_type", "Rotation")
            .input(Input::Choice(rotations.into()))
            .hint("How one of a tier’s entries is chosen."),
        Field::new("cap_aware", "Pass over offers whose caps are full").input(Input::Tick),
        Field::new("fallback_url", "Fallback")
            .hint("Where clicks go that reach no offer, with tokens such as {s1}. Empty: the network’s."),
    ]
}

const UPDATE: &str = "update_smart_link.json";
