//! What all pages have: title, navigation, where the assets are, the token of their forms.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::guard::Visitor;
use super::{Console, assets};
use crate::state::Crowded;

/// The part of a page's template that `base.html` shows.
pub struct Frame {
    pub title: String,
    /// Which entry of the navigation this page is under; `None`: there is no navigation.
    pub section: Option<Section>,
    /// For the hidden field `csrf` of every form.
    pub csrf: String,
    pub has_session: bool,
    pub assets: &'static assets::Urls,
    /// What was done on the page before.
    pub done: Option<String>,
    /// Whether the page draws charts.
    pub has_charts: bool,
    pub node: Node,
}

/// An entry of the navigation. A new page is added here, to `ALL`, and to the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Overview,
    Links,
    Offers,
    Caps,
    Snapshots,
    Explain,
}

/// The foot of every page.
pub struct Node {
    pub generation: u64,
    pub snapshot: String,
}

impl Section {
    const ALL: &[Section] = &[
        Section::Overview,
        Section::Links,
        Section::Offers,
        Section::Caps,
        Section::Snapshots,
        Section::Explain,
    ];

    pub fn path(self) -> &'static str {
        match self {
            Section::Overview => HOME,
            Section::Links => "/console/links",
            Section::Offers => "/console/offers",
            Section::Caps => "/console/caps",
            Section::Snapshots => "/console/snapshots",
            Section::Explain => "/console/explain",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Section::Overview => "Overview",
            Section::Links => "Links",
            Section::Offers => "Offers",
            Section::Caps => "Caps",
            Section::Snapshots => "Snapshots",
            Section::Explain => "Explain",
        }
    }
}

impl Frame {
    /// Of a page in the navigation.
    pub fn new(console: &Console, visitor: &Visitor, section: Section, title: impl Into<String>) -> Self {
        Self {
            section: Some(section),
            csrf: visitor.csrf.clone(),
            has_session: visitor.has_session,
            done: visitor.done.clone(),
            ..Self::bare(console, title)
        }
    }

    /// Of a page for those who are not let in.
    pub fn bare(console: &Console, title: impl Into<String>) -> Self {
        let live = console.parts().table.current();
        Self {
            title: title.into(),
            section: None,
            csrf: String::new(),
            has_session: false,
            assets: assets::urls(),
            done: None,
            has_charts: false,
            node: Node { generation: live.generation, snapshot: live.snapshot.clone() },
        }
    }

    pub fn with_charts(self) -> Self {
        Self { has_charts: true, ..self }
    }

    pub fn sections(&self) -> &'static [Section] {
        Section::ALL
    }

    /// `aria-current` of an entry of the navigation.
    pub fn is_in(&self, section: &Section) -> bool {
        self.section == Some(*section)
    }
}

#[derive(Template)]
#[template(path = "told.html")]
struct Told {
    frame: Frame,
    text: String,
}

/// A whole page.
pub fn page(template: &impl Template) -> Response {
    page_with(StatusCode::OK, template)
}

/// A whole page with another status.
pub fn page_with(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page of the console cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "The page cannot be written; the log says why.\n")
                .into_response()
        }
    }
}

/// A page that says one thing.
pub fn told(console: &Console, status: StatusCode, title: &str, text: &str) -> Response {
    page_with(status, &Told { frame: Frame::bare(console, title), text: text.to_owned() })
}

/// Writes a page that walks links, offers or caps: in its turn, and not on the threads that answer the health checks. With
/// too many before it: 503.
pub async fn in_turn(
    console: &Console,
    write: impl FnOnce(&Console) -> Response + Send + 'static,
) -> Response {
    let writer = console.clone();
    match console.turns().run(move || write(&writer)).await {
        Ok(response) => response,
        Err(crowded) => {
            let title = "Too many pages are asked for";
            let mut answer = told(console, StatusCode::SERVICE_UNAVAILABLE, title, &crowded.to_string());
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(Crowded::RETRY_AFTER_SECONDS));
            answer
        }
    }
}

/// Any other path under `/console`.
pub async fn not_found(State(console): State<Console>) -> Response {
    told(
        &console,
        StatusCode::NOT_FOUND,
        "There is no such page",
        "It may have been moved, or the address is mistyped.",
    )
}

/// The first page.
pub const HOME: &str = "/console/";
