//! The console: pages for the people who run a tier or a network, on the admin listener under `/console`.
//!
//! Each page is a file of its own: what it reads, and the template that shows it (`templates/`). Everything is rendered
//! here; a script draws charts and refreshes what is live, and every page says the same without it.
//!
//! What the room promises:
//!
//! 1. Figures and routing come from the live table and the counters of this process; names, and everything that is
//!    changed, go through the upstream's API with the node's key, so that nothing can be done here that cannot be done
//!    there.
//! 2. Nobody gets past the [`guard`] without the admin token, where there is one, nor changes anything without it or the API's key,
//!    nor from another site in any case.
//! 3. Whatever came from outside is text in a page. Templates escape it, and the policy of the pages runs no script
//!    but ours.
//! 4. What it keeps is bounded: sessions, guesses, history, names.
//!
//! It decides no click, and asks nothing of one: it sums what workers count for the scrape.

mod assets;
mod attempts;
mod cap_history;
mod caps;
mod change;
mod edit_cap;
mod edit_entry;
mod edit_link;
mod edit_offer;
mod edit_rule;
mod explain;
mod form;
mod frame;
mod guard;
mod history;
mod link;
mod link_history;
mod links;
mod login;
mod names;
mod notices;
mod offers;
mod overview;
mod paging;
mod posted;
mod preview;
mod reading;
mod session;
mod shares;
mod show;
mod snapshots;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Router, middleware};
use tokio::sync::watch;

use crate::cake::{Client, Key, KeySource};
use crate::ledger::KnownCaps;
use crate::routing::{CompileOptions, Zone};
use crate::state::{Journal, LiveGeo, LiveTable, Metrics, Readiness, now};

use attempts::Attempts;
use cap_history::CapHistory;
use history::History;
use link_history::LinkHistory;
use names::NameBook;
use notices::Notices;
use offers::OfferLinks;
use session::Sessions;

/// The room. Clones share it.
#[derive(Clone)]
pub struct Console(Arc<Room>);

/// What the console shows, and by whom it writes.
pub struct Parts {
    /// Asked for at the login, by every page. Without one, everybody who gets here may look, and who changes something is asked
    /// for the API's key.
    pub token: Option<Key>,
    /// The API's key.
    pub key: KeySource,
    /// The names under which browsers reach it, besides `localhost` and addresses.
    pub hosts: Vec<String>,
    pub metrics: Arc<Metrics>,
    pub readiness: Arc<Readiness>,
    pub table: Arc<LiveTable>,
    pub geo: Arc<LiveGeo>,
    /// The caps in force.
    pub caps: watch::Receiver<KnownCaps>,
    /// What became of the snapshot.
    pub journal: Arc<Journal>,
    /// Of the upstream, be it embedded.
    pub client: Client,
    /// By which the node compiles; of what can change while it runs, previews need nothing.
    pub compile: CompileOptions,
    /// The network's.
    pub zone: Zone,
    /// Where clicks reach it: the head of every tracking URL.
    pub public_base_url: String,
}

struct Room {
    parts: Parts,
    /// From which sessions and guesses count.
    started: Instant,
    sessions: Sessions,
    attempts: Attempts,
    history: History,
    link_history: LinkHistory,
    cap_history: CapHistory,
    names: NameBook,
    notices: Notices,
    offer_links: OfferLinks,
    /// Of the forms of those who need no session.
    open_csrf: String,
}

impl Console {
    /// `None`: the system has no randomness.
    pub fn new(parts: Parts) -> Option<Self> {
        Some(Self(Arc::new(Room {
            parts,
            started: Instant::now(),
            sessions: Sessions::default(),
            attempts: Attempts::default(),
            history: History::default(),
            link_history: LinkHistory::default(),
            cap_history: CapHistory::default(),
            names: NameBook::default(),
            notices: Notices::default(),
            offer_links: OfferLinks::default(),
            open_csrf: session::random_text()?,
        })))
    }

    /// Everything under `/console`, to be merged into the listener's router.
    pub fn router(&self) -> Router {
        let pages = Router::new()
            .route("/console", get(overview::to_the_page))
            .route("/console/", get(overview::page))
            .route("/console/overview.json", get(overview::series))
            .route("/console/links", get(links::page))
            .route("/console/links/{id}", get(link::page))
            .route("/console/offers", get(offers::page))
            .route("/console/caps", get(caps::page))
            .route("/console/snapshots", get(snapshots::page))
            .route("/console/explain", get(explain::page))
            .merge(changes().route_layer(middleware::from_fn_with_state(self.clone(), guard::changes)))
            .route("/console/logout", post(login::logout))
            .route_layer(middleware::from_fn_with_state(self.clone(), guard::session));
        let open = Router::new()
            .route("/console/login", get(login::page).post(login::login))
            .route("/console/assets/{name}", get(assets::serve));
        pages
            .merge(open)
            .route("/console/{*other}", get(frame::not_found))
            .layer(DefaultBodyLimit::max(posted::BODY_BYTES_MAX))
            .layer(middleware::from_fn_with_state(self.clone(), guard::origin))
            .with_state(self.clone())
    }

    /// Samples what is counted, for all that shows how it changes, until it is dropped.
    pub async fn sample(self) {
        let metrics = &self.parts().metrics;
        let every = |step| {
            let mut ticks = tokio::time::interval(step);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            ticks
        };
        let (mut totals, mut links, mut caps) =
            (every(history::STEP), every(link_history::STEP), every(cap_history::STEP));
        loop {
            tokio::select! {
                _ = totals.tick() => self.0.history.note(now(), metrics.totals()),
                _ = links.tick() => self.0.link_history.note(now(), &metrics.link_totals()),
                _ = caps.tick() => self.0.cap_history.note(now(), &metrics.cap_levels()),
            }
        }
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }

    fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    fn attempts(&self) -> &Attempts {
        &self.0.attempts
    }

    fn history(&self) -> &History {
        &self.0.history
    }

    fn link_history(&self) -> &LinkHistory {
        &self.0.link_history
    }

    fn cap_history(&self) -> &CapHistory {
        &self.0.cap_history
    }

    fn names(&self) -> &NameBook {
        &self.0.names
    }

    fn notices(&self) -> &Notices {
        &self.0.notices
    }

    fn open_csrf(&self) -> &str {
        &self.0.open_csrf
    }

    /// Since the console is there.
    fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }
}

/// The forms that change something.
fn changes() -> Router<Console> {
    Router::new()
        .route("/console/links/new", get(edit_link::new).post(edit_link::create))
        .route("/console/links/{id}/edit", get(edit_link::edit).post(edit_link::save))
        .route("/console/links/{id}/offers/new", get(edit_entry::new).post(edit_entry::attach))
        .route("/console/links/{id}/offers/{offer}", get(edit_entry::edit).post(edit_entry::save))
        .route("/console/links/{id}/offers/{offer}/remove", get(edit_entry::ask).post(edit_entry::remove))
        .route("/console/links/{id}/rules/new", get(edit_rule::new).post(edit_rule::create))
        .route("/console/links/{id}/rules/{rule}", get(edit_rule::edit).post(edit_rule::save))
        .route("/console/links/{id}/rules/{rule}/remove", get(edit_rule::ask).post(edit_rule::remove))
        .route("/console/offers/new", get(edit_offer::new).post(edit_offer::create))
        .route("/console/offers/{offer}", get(edit_offer::edit).post(edit_offer::save))
        .route("/console/caps/new", get(edit_cap::new).post(edit_cap::create))
        .route("/console/caps/edit", get(edit_cap::edit).post(edit_cap::save))
        .route("/console/caps/remove", get(edit_cap::ask).post(edit_cap::remove))
}
