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
//! 2. Nobody gets past the guard without the admin token, where there is one, nor changes anything without it or the API's key,
//!    nor from another site in any case.
//! 3. Whatever came from outside is text in a page. Templates escape it, and the policy of the pages runs no script
//!    but ours.
//! 4. What it keeps is bounded: sessions, guesses, history, names, orders of links.
//! 5. A page that walks links, offers or caps is written in its turn (`frame::in_turn`), a few at a time: whoever asks for
//!    many holds up nothing but pages.
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
mod link_list;
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

use crate::cake::{Client, Key, KeyError, KeySource};
use crate::ledger::KnownCaps;
use crate::routing::{CompileOptions, Zone};
use crate::state::{Hosts, Journal, LiveGeo, LiveTable, Metrics, Readiness, Turns, now};

use attempts::Attempts;
use cap_history::CapHistory;
use history::History;
use link_history::LinkHistory;
use link_list::LinkLists;
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
    /// for the API's key. It may change at any time.
    pub token: watch::Receiver<Option<Key>>,
    /// The API's key.
    pub key: KeySource,
    /// Of the listener. Nodes on one host have one jar of cookies, as far as browsers know.
    pub port: u16,
    /// By which names browsers reach it.
    pub hosts: Hosts,
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
    link_lists: LinkLists,
    cap_history: CapHistory,
    names: NameBook,
    notices: Notices,
    /// In which pages are written.
    turns: Turns,
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
            link_lists: LinkLists::default(),
            cap_history: CapHistory::default(),
            names: NameBook::default(),
            notices: Notices::default(),
            turns: Turns::new(PAGES_AT_ONCE),
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

    /// There is a token by now.
    fn has_token(&self) -> bool {
        self.parts().token.borrow().is_some()
    }

    /// What the login asks for by now: the token or, where there is none, the API's key.
    fn secret(&self) -> Result<Key, KeyError> {
        let token = self.parts().token.borrow().clone();
        token.map_or_else(|| self.parts().key.read(), Ok)
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

    fn link_lists(&self) -> &LinkLists {
        &self.0.link_lists
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

    fn turns(&self) -> &Turns {
        &self.0.turns
    }

    fn open_csrf(&self) -> &str {
        &self.0.open_csrf
    }

    /// Since the console is there.
    fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }
}

/// Pages that are written: as many as cores that such a node may have to spare.
const PAGES_AT_ONCE: usize = 2;

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

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::extract::Request;
    use axum::http::{StatusCode, header};
    use axum::response::Response;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use url::Url;

    use super::*;
    use crate::cake::ClientOptions;
    use crate::routing::{BotPolicy, Table};
    use crate::state::Geo;

    /// Of a node without links, at an upstream that it has no key for.
    fn console(turns: &Turns) -> Console {
        let table = Arc::new(LiveTable::new(Table::empty(None, BotPolicy::Fallback)));
        let key = KeySource::Environment("A_VARIABLE_THAT_NOBODY_SETS".to_owned());
        let options = ClientOptions {
            upstream: Url::parse("http://cake.example.com").unwrap(),
            key: key.clone(),
            call_timeout: Duration::from_secs(1),
            body_bytes_max: 1,
            ca_file: None,
            rows_max: 1,
        };
        let mut console = Console::new(Parts {
            token: watch::channel(None).1,
            port: 9180,
            key,
            hosts: Hosts::default(),
            metrics: Arc::new(Metrics::new(1, Arc::clone(&table))),
            readiness: Arc::default(),
            table,
            geo: Arc::new(LiveGeo::new(Geo::default())),
            caps: watch::Sender::<KnownCaps>::default().subscribe(),
            journal: Arc::default(),
            client: Client::new(options).unwrap(),
            compile: CompileOptions::default(),
            zone: Zone::parse("UTC").unwrap(),
            public_base_url: String::new(),
        })
        .unwrap();
        Arc::get_mut(&mut console.0).unwrap().turns = turns.clone();
        console
    }

    async fn ask(router: Router, target: &'static str) -> Response {
        let request = Request::builder().uri(target).header(header::HOST, "127.0.0.1:9180");
        TowerToHyperService::new(router).call(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn pages_that_walk_the_network_take_turns_and_nothing_else_waits_for_them() {
        let turns = Turns::bounded(1, 1, Duration::from_secs(3_600));
        let router = console(&turns).router();
        let mut turn = turns.take().await.unwrap();
        for (target, status) in [
            ("/console/", StatusCode::OK),
            ("/console/overview.json", StatusCode::OK),
            ("/console/links", StatusCode::OK),
            ("/console/links?q=a&sort=fill", StatusCode::OK),
            ("/console/links/301", StatusCode::NOT_FOUND),
            ("/console/offers", StatusCode::OK),
            ("/console/caps", StatusCode::OK),
            ("/console/snapshots", StatusCode::OK),
        ] {
            let waiting = tokio::spawn(ask(router.clone(), target));
            while turns.waiting() == 0 {
                assert!(!waiting.is_finished(), "{target} takes no turn");
                tokio::task::yield_now().await;
            }
            assert_eq!(ask(router.clone(), "/console/login").await.status(), StatusCode::OK);
            let refused = ask(router.clone(), target).await;
            assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{target}");
            assert_eq!(refused.headers()[header::RETRY_AFTER], "2");
            let said = to_bytes(refused.into_body(), 100_000).await.unwrap();
            assert!(String::from_utf8_lossy(&said).contains("ask again in 2 s."), "{said:?}");
            drop(turn);
            assert_eq!(waiting.await.unwrap().status(), status, "{target}");
            turn = turns.take().await.unwrap();
        }
    }
}
