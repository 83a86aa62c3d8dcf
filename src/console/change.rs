//! What the forms have in common that change the network: whether they are offered at all, how they are shown, sent
//! through the upstream's API, and how what was done is said.

use std::time::Duration;

use askama::Template;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::form::{Field, Form, Input};
use super::frame::{self, Frame, Section};
use super::guard::Visitor;
use super::names::{Names, Seen};
use super::posted::Fields;
use super::preview::Preview;
use super::{Console, reading};
use crate::cake::wire::FieldError;
use crate::cake::{CallError, Envelope};
use crate::types::LinkId;

/// A page with a form that changes something.
pub struct ChangePage {
    pub section: Section,
    pub title: String,
    /// What it is a part of: address and name of each.
    pub trail: Vec<(String, String)>,
    pub about: String,
    /// Where the form goes.
    pub action: String,
    /// On the button.
    pub verb: &'static str,
    pub can_preview: bool,
    /// Where else to go from here.
    pub further: Vec<(String, String)>,
}

#[derive(Template)]
#[template(path = "change.html")]
struct Shown {
    frame: Frame,
    page: ChangePage,
    form: Form,
    preview: Option<Preview>,
}

/// A page that asks whether it is really meant.
#[derive(Template)]
#[template(path = "remove.html")]
struct Asked {
    frame: Frame,
    page: ChangePage,
    form: Form,
    preview: Option<Preview>,
}

impl ChangePage {
    /// As it is at first.
    pub fn fresh(self, console: &Console, visitor: &Visitor, form: Form) -> Response {
        self.show(console, visitor, StatusCode::OK, form, None)
    }

    /// With what was typed and what is wrong with it.
    pub fn refused(self, console: &Console, visitor: &Visitor, form: Form, error: &CallError) -> Response {
        self.show(console, visitor, status_of(error), form.refused(error), None)
    }

    /// With what was typed, and what somebody else has made of it meanwhile.
    pub fn overtaken(self, console: &Console, visitor: &Visitor, form: Form) -> Response {
        self.show(console, visitor, StatusCode::CONFLICT, form, None)
    }

    /// With what was typed and what it would do; or with what cannot be read of it.
    pub fn previewed(
        self,
        console: &Console,
        visitor: &Visitor,
        form: Form,
        preview: Result<Preview, FieldError>,
    ) -> Response {
        match preview {
            Ok(preview) => self.show(console, visitor, StatusCode::OK, form, Some(preview)),
            Err(error) => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                self.show(console, visitor, status, form.unreadable(&error), None)
            }
        }
    }

    pub fn show(
        self,
        console: &Console,
        visitor: &Visitor,
        status: StatusCode,
        form: Form,
        preview: Option<Preview>,
    ) -> Response {
        let frame = Frame::new(console, visitor, self.section, self.title.clone());
        frame::page_with(status, &Shown { frame, page: self, form, preview })
    }

    /// Asks whether what the form shows is to go.
    pub fn ask(
        self,
        console: &Console,
        visitor: &Visitor,
        status: StatusCode,
        form: Form,
        preview: Option<Preview>,
    ) -> Response {
        let frame = Frame::new(console, visitor, self.section, self.title.clone());
        frame::page_with(status, &Asked { frame, page: self, form, preview })
    }
}

/// Something that is to go.
pub struct Removal<'a> {
    /// That asks whether it is.
    pub page: ChangePage,
    /// What it is now.
    pub form: Form,
    /// Of the network, as it was read.
    pub state: Option<&'a HeaderValue>,
    pub call: &'a str,
    pub named: Map<String, Value>,
    /// Where to go afterwards, and what to say there.
    pub to: &'a str,
    pub done: String,
}

impl Removal<'_> {
    /// Removes it if it still is what was shown to who decided; they are asked again otherwise. `None`: the network was changed
    /// in between.
    pub async fn run(self, console: &Console, visitor: &Visitor, posted: &Fields) -> Option<Response> {
        let news = self.form.changed_since(posted);
        if !news.is_empty() {
            let form = news.into_iter().fold(self.form, Form::with_problem);
            return Some(self.page.ask(console, visitor, StatusCode::CONFLICT, form, None));
        }
        match send_in(console, self.state, self.call, self.named).await {
            Ok((_, is_live)) => Some(done(console, self.to, sentence(&self.done, is_live))),
            Err(error) if error.is_outdated() => None,
            Err(error) => {
                let (status, form) = (status_of(&error), self.form.refused(&error));
                Some(self.page.ask(console, visitor, status, form, None))
            }
        }
    }
}

/// Lets those on whose upstream can be changed; the others are told why not.
pub async fn names(console: &Console) -> Result<std::sync::Arc<Names>, Response> {
    let Seen { names, problem } = console.names().look(console).await;
    if names.can_be_changed() {
        return Ok(names);
    }
    Err(match problem {
        Some(problem) => {
            let text = format!("The upstream cannot be asked: {problem}");
            frame::told(console, StatusCode::BAD_GATEWAY, "The upstream does not answer", &text)
        }
        None => frame::told(console, StatusCode::CONFLICT, "The upstream is changed elsewhere", ELSEWHERE),
    })
}

/// Sends a change, and waits a moment until it is live, so that the next page shows it. Says whether it is, as far as a
/// newer generation tells: the same refresh may have brought somebody else's change, and an older one never does.
pub async fn send(
    console: &Console,
    call: &str,
    parameters: Map<String, Value>,
) -> Result<(Envelope, bool), CallError> {
    send_in(console, None, call, parameters).await
}

/// The same, to be done only if nothing was changed since this state was read. If something was, be it elsewhere in the
/// network, the error [`is_outdated`](CallError::is_outdated): what there is has to be looked at again.
pub async fn send_in(
    console: &Console,
    state: Option<&HeaderValue>,
    call: &str,
    parameters: Map<String, Value>,
) -> Result<(Envelope, bool), CallError> {
    let parts = console.parts();
    let before = parts.table.current().generation;
    let answer = parts.client.write_in(state, call, parameters).await?;
    console.names().look_again();
    let live = async {
        while parts.table.current().generation == before {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let is_live = tokio::time::timeout(LIVE_PATIENCE, live).await.is_ok();
    Ok((answer, is_live))
}

/// To another page, which says what was done.
pub fn done(console: &Console, to: &str, text: String) -> Response {
    let name = console.notices().keep(text);
    let mark = if to.contains('?') { '&' } else { '?' };
    Redirect::to(&format!("{to}{mark}done={name}")).into_response()
}

/// What to say of a change.
pub fn sentence(what: &str, is_live: bool) -> String {
    let when = match is_live {
        true => "It is live.",
        false => "It is not live on this node yet: the next refresh takes it up.",
    };
    format!("{what} {when}")
}

pub fn not_found(console: &Console, what: &str) -> Response {
    frame::told(console, StatusCode::NOT_FOUND, "It is not there", &format!("The upstream has no {what}."))
}

/// Where every attempt to save was overtaken by a change somewhere else in the network.
pub fn too_busy(console: &Console) -> Response {
    frame::told(
        console,
        StatusCode::SERVICE_UNAVAILABLE,
        "The network changes too fast",
        "It was changed each time between looking and saving, and nothing of yours was saved. Go back, and save again.",
    )
}

/// A page for what could not even be begun.
pub fn failed(console: &Console, error: &CallError) -> Response {
    frame::told(console, status_of(error), "The upstream does not answer as it should", &error.to_string())
}

/// What the link is called in a trail.
pub fn link_trail(names: &Names, link: LinkId) -> Vec<(String, String)> {
    let named = names.link(link.value()).map(|named| named.name.as_ref()).filter(|name| !name.is_empty());
    vec![
        ("/console/links".to_owned(), "Links".to_owned()),
        (
            format!("/console/links/{link}"),
            named.map_or_else(|| format!("Link {link}"), |name| format!("{name} · link {link}")),
        ),
    ]
}

/// Which offer, from those that there are.
pub fn offer_field(names: &Names) -> Field {
    let offers = names.offers().take(SUGGESTED_MAX);
    let suggested = offers.map(|(id, offer)| (id.to_string(), offer.name.to_string())).collect();
    Field::new("offer_id", "Offer").hint("Its number.").input(Input::Suggested(suggested))
}

pub fn weight_field() -> Field {
    Field::new("offer_weight", "Weight")
        .hint("0 to 100: its share of the clicks of its tier, beside the others’. 0 gets none.")
}

pub fn priority_field() -> Field {
    Field::new("priority", "Priority").hint("Its tier. Lower ones are tried first.")
}

pub fn wants_preview(posted: &Fields) -> bool {
    posted.text("do") == "preview"
}

/// Tries a change out: the answer is that of the change itself, or its refusal, and nothing is changed.
pub async fn try_out(
    console: &Console,
    call: &str,
    mut parameters: Map<String, Value>,
) -> Result<Envelope, CallError> {
    parameters.insert("dry_run".to_owned(), true.into());
    console.parts().client.write(call, parameters).await
}

/// A form of something that hangs on a link, about to be sent.
pub struct Sent<'a> {
    pub names: &'a Names,
    pub link: LinkId,
    pub page: ChangePage,
    pub form: Form,
    pub call: &'static str,
    pub parameters: Map<String, Value>,
}

impl Sent<'_> {
    /// Shows what it would do: the very call that saving makes is tried out, and `put` puts the item of its answer in its
    /// place in the link, of which it names the offer, if it has one.
    pub async fn preview<T: DeserializeOwned>(
        self,
        console: &Console,
        visitor: &Visitor,
        put: impl FnOnce(&mut reading::WholeLink, T),
        offer: impl FnOnce(&T) -> Option<i64>,
    ) -> Response {
        let Self { names, link, page, form, call, parameters } = self;
        let foreign = |error: serde_json::Error| CallError::Foreign {
            call: call.to_owned(),
            reason: error.to_string(),
        };
        let tried = try_out(console, call, parameters).await;
        let item = tried.and_then(|answer| answer.response::<T>().map_err(foreign));
        let previewed = match item {
            Ok(item) => {
                let offer = offer(&item);
                let change = |whole: &mut reading::WholeLink| {
                    put(whole, item);
                    Ok(())
                };
                preview(console, names, link, offer, change).await
            }
            Err(error) => Err(error),
        };
        match previewed {
            Ok(preview) => page.previewed(console, visitor, form, preview),
            Err(error) => page.refused(console, visitor, form, &error),
        }
    }

    /// Shows what cannot even be read of it, and what else is wrong: the rest is tried out.
    pub async fn unreadable(self, console: &Console, visitor: &Visitor, errors: &[FieldError]) -> Response {
        let Self { page, form, call, parameters, .. } = self;
        let form = errors.iter().fold(form, Form::unreadable);
        let form = match try_out(console, call, parameters).await {
            Ok(_) => form,
            Err(error) => form.refused(&error),
        };
        page.show(console, visitor, StatusCode::UNPROCESSABLE_ENTITY, form, None)
    }
}

/// What the change does to the link, if it could be read at all.
pub async fn preview(
    console: &Console,
    names: &Names,
    link: LinkId,
    and_offer: Option<i64>,
    change: impl FnOnce(&mut reading::WholeLink) -> Result<(), FieldError>,
) -> Result<Result<Preview, FieldError>, CallError> {
    let whole = reading::whole_link(&console.parts().client, link.value(), and_offer).await?;
    let Some(mut whole) = whole else {
        let problem = format!("{link} does not exist");
        return Ok(Err(FieldError::new("smart_link_id", problem)));
    };
    if let Some(offer) = and_offer
        && !whole.offers.iter().any(|item| item.offer_id == offer)
    {
        return Ok(Err(FieldError::new("offer_id", format!("{offer} does not exist"))));
    }
    Ok(change(&mut whole).and_then(|()| super::preview::of(console, names, link, &whole)))
}

fn status_of(error: &CallError) -> StatusCode {
    match error {
        CallError::Refused { status, .. } if status.is_client_error() => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::BAD_GATEWAY,
    }
}

const ELSEWHERE: &str = "Its API lacks the calls by which links, entries, rules and caps are listed and changed: they are \
                         smartlink’s own, and a real CAKE does not have them. Links and offers are changed in CAKE itself; \
                         entries, rules and caps are in the overlay, the file that upstream.overlay names.";

/// From the embedded API a change comes within milliseconds.
const LIVE_PATIENCE: Duration = Duration::from_millis(1500);

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How often a change is looked at anew because something else in the network was changed in between.
pub const ATTEMPTS: usize = 10;

/// What a browser can still show.
const SUGGESTED_MAX: usize = 500;
