//! Forms for a cap: a new one, how much it lets through, and its removal. A cap is known by its name: offer, affiliate,
//! what it counts, and how often it begins anew; pages have it in their address.

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value};

use super::change::{self, ChangePage, Removal};
use super::form::{Field, Form, Input};
use super::frame::Section;
use super::guard::Visitor;
use super::names::Names;
use super::paging::query;
use super::posted::{Fields, Posted};
use super::reading::Read;
use super::{Console, reading};
use crate::cake::wire::{CAP_INTERVALS, CAP_TYPES, OfferCap};

/// `GET /console/caps/new`, perhaps with the offer.
pub async fn new(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    RawQuery(asked): RawQuery,
) -> Response {
    let asked = Fields::read(asked.unwrap_or_default().as_bytes());
    match change::names(&console).await {
        Ok(names) => new_page().fresh(&console, &visitor, new_form(&names).prefilled(&asked)),
        Err(told) => told,
    }
}

/// `POST /console/caps/new`
pub async fn create(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    Posted(posted): Posted,
) -> Response {
    let names = match change::names(&console).await {
        Ok(names) => names,
        Err(told) => return told,
    };
    for _ in 0..change::ATTEMPTS {
        if let Some(response) = try_to_create(&console, &visitor, &names, &posted).await {
            return response;
        }
    }
    change::too_busy(&console)
}

/// `None`: the network was changed in between.
async fn try_to_create(
    console: &Console,
    visitor: &Visitor,
    names: &Names,
    posted: &Fields,
) -> Option<Response> {
    let form = new_form(names).typed(posted);
    let mut state = None;
    // Setting a cap that is there would change it, and somebody who sets a new one does not know of it.
    if let Some(offer) = form.text("offer_id").parse().ok().filter(|offer| *offer > 0) {
        let there = match reading::caps(&console.parts().client, offer).await {
            Ok(there) => there,
            Err(error) => return Some(new_page().refused(console, visitor, form, &error)),
        };
        let affiliate = form.text("affiliate_id");
        let is_this = |cap: &&OfferCap| {
            // As the API reads it: 007 is 7.
            cap.affiliate_id.map_or(affiliate.is_empty(), |id| affiliate.parse() == Ok(id))
                && cap.cap_type == form.text("cap_type")
                && cap.cap_interval == form.text("cap_interval")
        };
        if let Some(cap) = there.item.iter().find(is_this) {
            let problem = format!("There is such a cap already: the {}, of {}.", cap.label(), cap.cap_amount);
            let page = ChangePage {
                further: vec![(format!("/console/caps/edit{}", address_of(cap)), "Edit that one".to_owned())],
                ..new_page()
            };
            let status = axum::http::StatusCode::UNPROCESSABLE_ENTITY;
            return Some(page.show(console, visitor, status, form.with_problem(problem), None));
        }
        state = there.state;
    }
    match change::send_in(console, state.as_ref(), SET, form.filled_in()).await {
        Ok((answer, is_live)) => {
            let what = format!("The {} was set.", named(&answer.value()["response"]));
            Some(change::done(console, CAPS, change::sentence(&what, is_live)))
        }
        Err(error) if error.is_outdated() => None,
        Err(error) => Some(new_page().refused(console, visitor, form, &error)),
    }
}

/// `GET /console/caps/edit`
pub async fn edit(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    RawQuery(asked): RawQuery,
) -> Response {
    match begin(&console, asked.as_deref()).await {
        Ok(Read { item: cap, .. }) => edit_page(&cap).fresh(&console, &visitor, edit_form(&cap)),
        Err(told) => told,
    }
}

/// `POST /console/caps/edit`
pub async fn save(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    RawQuery(asked): RawQuery,
    Posted(posted): Posted,
) -> Response {
    for _ in 0..change::ATTEMPTS {
        if let Some(response) = try_to_save(&console, &visitor, asked.as_deref(), &posted).await {
            return response;
        }
    }
    change::too_busy(&console)
}

/// `None`: the network was changed in between.
async fn try_to_save(
    console: &Console,
    visitor: &Visitor,
    asked: Option<&str>,
    posted: &Fields,
) -> Option<Response> {
    let Read { item: cap, state } = match begin(console, asked).await {
        Ok(begun) => begun,
        Err(told) => return Some(told),
    };
    let form = edit_form(&cap).typed(posted).meeting(&edit_form(&cap));
    if form.is_overtaken() {
        return Some(edit_page(&cap).overtaken(console, visitor, form));
    }
    let mut parameters = form.changed();
    if parameters.is_empty() {
        let what = format!("The {}: nothing was changed.", cap.label());
        return Some(change::done(console, CAPS, what));
    }
    // The API does not do without it.
    parameters.entry("cap_amount").or_insert_with(|| form.text("cap_amount").into());
    parameters.extend(name(&cap));
    match change::send_in(console, state.as_ref(), SET, parameters).await {
        Ok((_, is_live)) => {
            let what = format!("The {} was changed: {}.", cap.label(), form.changes());
            Some(change::done(console, CAPS, change::sentence(&what, is_live)))
        }
        Err(error) if error.is_outdated() => None,
        Err(error) => Some(edit_page(&cap).refused(console, visitor, form, &error)),
    }
}

/// `GET /console/caps/remove`
pub async fn ask(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    RawQuery(asked): RawQuery,
) -> Response {
    match begin(&console, asked.as_deref()).await {
        Ok(Read { item: cap, .. }) => {
            remove_page(&cap).ask(&console, &visitor, StatusCode::OK, edit_form(&cap), None)
        }
        Err(told) => told,
    }
}

/// `POST /console/caps/remove`
pub async fn remove(
    State(console): State<Console>,
    Extension(visitor): Extension<Visitor>,
    RawQuery(asked): RawQuery,
    Posted(posted): Posted,
) -> Response {
    for _ in 0..change::ATTEMPTS {
        let Read { item: cap, state } = match begin(&console, asked.as_deref()).await {
            Ok(begun) => begun,
            Err(told) => return told,
        };
        let removal = Removal {
            page: remove_page(&cap),
            form: edit_form(&cap),
            state: state.as_ref(),
            call: "remove_offer_cap.json",
            named: name(&cap),
            to: CAPS,
            done: format!("The {} was removed.", cap.label()),
        };
        if let Some(response) = removal.run(&console, &visitor, &posted).await {
            return response;
        }
    }
    change::too_busy(&console)
}

/// The cap that the page's address names.
async fn begin(console: &Console, asked: Option<&str>) -> Result<Read<OfferCap>, Response> {
    change::names(console).await?;
    let asked = Fields::read(asked.unwrap_or_default().as_bytes());
    let missing = || change::not_found(console, "such cap");
    let offer: u32 = asked.text("offer_id").parse().map_err(|_| missing())?;
    let found = reading::caps(&console.parts().client, offer).await;
    let Read { item: caps, state } = found.map_err(|error| change::failed(console, &error))?;
    let is_meant = |cap: &OfferCap| {
        name(cap).iter().all(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            asked.text(name) == value
        }) && cap.affiliate_id.is_some() != asked.text("affiliate_id").is_empty()
    };
    let item = caps.into_iter().find(is_meant).ok_or_else(missing)?;
    Ok(Read { item, state })
}

/// As a page's address names it.
pub fn address(offer: i64, affiliate: Option<i64>, kind: &str, interval: &str) -> String {
    let affiliate = affiliate.map_or_else(String::new, |id| id.to_string());
    query(&[
        ("offer_id", &offer.to_string()),
        ("affiliate_id", &affiliate),
        ("cap_type", kind),
        ("cap_interval", interval),
    ])
}

fn address_of(cap: &OfferCap) -> String {
    address(cap.offer_id, cap.affiliate_id, &cap.cap_type, &cap.cap_interval)
}

/// As the API knows it.
fn name(cap: &OfferCap) -> Map<String, Value> {
    let mut name = Map::from_iter([
        ("offer_id".to_owned(), cap.offer_id.into()),
        ("cap_type".to_owned(), cap.cap_type.clone().into()),
        ("cap_interval".to_owned(), cap.cap_interval.clone().into()),
    ]);
    name.extend(cap.affiliate_id.map(|affiliate| ("affiliate_id".to_owned(), affiliate.into())));
    name
}

/// A cap of an answer, by its name.
fn named(cap: &Value) -> String {
    match serde_json::from_value::<OfferCap>(cap.clone()) {
        Ok(cap) => format!("{}, of {},", cap.label(), cap.cap_amount),
        Err(_) => "cap".to_owned(),
    }
}

fn new_page() -> ChangePage {
    ChangePage {
        section: Section::Caps,
        title: "Set a cap".to_owned(),
        trail: vec![(CAPS.to_owned(), "Caps".to_owned())],
        about: "How many clicks or conversions an offer takes in a window. While one of its caps is full, clicks pass it over."
            .to_owned(),
        action: "/console/caps/new".to_owned(),
        verb: "Set",
        can_preview: false,
        further: Vec::new(),
    }
}

fn edit_page(cap: &OfferCap) -> ChangePage {
    ChangePage {
        title: format!("Edit the {}", cap.label()),
        about: "What was used of it stays used.".to_owned(),
        action: format!("/console/caps/edit{}", address_of(cap)),
        verb: "Save",
        further: vec![(format!("/console/caps/remove{}", address_of(cap)), "Remove …".to_owned())],
        ..new_page()
    }
}

fn remove_page(cap: &OfferCap) -> ChangePage {
    ChangePage {
        title: format!("Remove the {}?", cap.label()),
        about: "The offer then takes clicks without this bound.".to_owned(),
        action: format!("/console/caps/remove{}", address_of(cap)),
        verb: "Remove it",
        further: vec![(CAPS.to_owned(), "Keep it".to_owned())],
        ..new_page()
    }
}

fn new_form(names: &Names) -> Form {
    let mut fields = vec![
        change::offer_field(names),
        Field::new("affiliate_id", "Affiliate").hint("Only its clicks count. Empty: those of all."),
        Field::new("cap_type", "Counts").one_of(CAP_TYPES),
        Field::new("cap_interval", "Begins anew").one_of(CAP_INTERVALS).value("daily"),
    ];
    fields.extend(fields_of_amount());
    Form::new(fields)
}

fn edit_form(cap: &OfferCap) -> Form {
    let values = [
        cap.cap_amount.to_string(),
        cap.time_zone.clone().unwrap_or_default(),
        cap.send_alert_only.to_string(),
    ];
    Form::new(fields_of_amount().into_iter().zip(values).map(|(field, value)| field.is(value)).collect())
}

fn fields_of_amount() -> [Field; 3] {
    [
        Field::new("cap_amount", "Amount").hint("Of clicks or conversions in a window. 0 lets none through."),
        Field::new("time_zone", "Time zone").hint(
            "In which days, weeks and months begin, such as America/New_York. A new cap has the network’s.",
        ),
        Field::new("send_alert_only", "Never closes the offer, and only tells").input(Input::Tick),
    ]
}

const SET: &str = "offer_cap.json";

const CAPS: &str = "/console/caps";
