//! The admin listener: metrics, health, explain, refresh. What else answers on it (the embedded API) is handed in.
//!
//! Everything but the two health checks and the API, which has a key of its own, asks for the token, where there is
//! one. A scrape walks every link that has series of its own: one is written at a time, and not on the threads that
//! answer the health checks.

mod explain;
mod health;
mod listener;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cake::Key;
use crate::state::{
    Crowded, Hosts, LiveGeo, LiveTable, Metrics, Readiness, RefreshHandle, RefreshReport, RefreshResult,
    Turns,
};

pub use explain::{EntryAnswer, ExplainAnswer, ExplainQuery, answer as explain};

/// Where the admin listener is, and who may ask.
#[derive(Clone, Debug)]
pub struct Options {
    pub listen: SocketAddr,
    /// Asked for as `Authorization: Bearer`. Needed where `listen` is not a loopback address.
    pub token: Option<Key>,
}

/// What the admin listener tells about.
#[derive(Clone)]
pub struct Admin {
    /// Asked for by every route but the health checks. It may change at any time.
    pub token: watch::Receiver<Option<Key>>,
    /// By which names it is reached.
    pub hosts: Hosts,
    pub metrics: Arc<Metrics>,
    /// In which scrapes are written.
    pub scrapes: Turns,
    pub readiness: Arc<Readiness>,
    pub table: Arc<LiveTable>,
    pub geo: Arc<LiveGeo>,
    pub refresh: RefreshHandle,
}

impl Admin {
    /// Every route of this room.
    pub fn router(self) -> Router {
        let state = Arc::new(self);
        let guarded = Router::new()
            .route("/", get(index))
            .route("/metrics", get(metrics))
            .route("/explain", get(explain::handle))
            .route("/refresh", post(refresh))
            .route_layer(middleware::from_fn_with_state(Arc::clone(&state), guard));
        let open = Router::new().route("/livez", get(health::livez)).route("/readyz", get(health::readyz));
        guarded.merge(open).fallback(not_found).with_state(state)
    }
}

/// Serves until `until` ends; requests that have begun are finished.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    until: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    listener::serve(listener, router, HEADER_READ_TIMEOUT, until).await;
    Ok(())
}

async fn guard(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let token = admin.token.borrow().clone();
    let Some(token) = token else {
        if let Some(problem) = admin.hosts.refusal(request.headers()) {
            return (StatusCode::FORBIDDEN, format!("{problem}\n")).into_response();
        }
        // Any page that a browser on this machine shows could send a form here; browsers say so, and nobody else does.
        if request.method() == Method::POST && request.headers().contains_key(header::ORIGIN) {
            return (StatusCode::FORBIDDEN, "This was sent by a web page; ask for it with curl.\n")
                .into_response();
        }
        return next.run(request).await;
    };
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    // RFC 9110, 11.1: names of schemes have no case.
    let given = given.and_then(|value| value.split_at_checked(b"Bearer ".len()));
    match given.and_then(|(scheme, given)| scheme.eq_ignore_ascii_case(b"Bearer ").then_some(given)) {
        Some(given) if token.matches(given) => next.run(request).await,
        _ => (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Bearer")],
            "The admin token is missing or wrong; send it as Authorization: Bearer ….\n",
        )
            .into_response(),
    }
}

async fn index() -> &'static str {
    INDEX
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, INDEX).into_response()
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let metrics = Arc::clone(&admin.metrics);
    match admin.scrapes.run(move || metrics.text()).await {
        Ok(Ok(text)) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        Ok(Err(error)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {error}\n"))
                .into_response()
        }
        Err(crowded) => {
            let retry_after = [(header::RETRY_AFTER, Crowded::RETRY_AFTER_SECONDS.to_string())];
            (StatusCode::SERVICE_UNAVAILABLE, retry_after, format!("{crowded}\n")).into_response()
        }
    }
}

/// 200 with what came of the refresh; 502 if the upstream gave no snapshot, 409 if it gave a suspicious one.
async fn refresh(
    State(admin): State<Arc<Admin>>,
    parameters: Result<Query<RefreshParameters>, QueryRejection>,
) -> Response {
    let force = match parameters {
        Ok(Query(parameters)) => parameters.force,
        Err(rejection) => return refusal(StatusCode::BAD_REQUEST, &reason(&rejection)),
    };
    let Some(report) = admin.refresh.refresh(force).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "The process is ending.\n").into_response();
    };
    let status = match report.result {
        RefreshResult::Published | RefreshResult::Unchanged => StatusCode::OK,
        RefreshResult::Refused => StatusCode::CONFLICT,
        RefreshResult::Failed => StatusCode::BAD_GATEWAY,
    };
    (status, axum::Json(show(&report))).into_response()
}

/// `POST /refresh?force=true` takes also a snapshot that looks like an accident.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RefreshParameters {
    #[serde(default)]
    force: bool,
}

/// A refusal in the envelope of the API beside it.
fn refusal(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "request_status": "Error", "message": message }))).into_response()
}

/// What serde says of a query: it names the parameter, and which there are.
fn reason(rejection: &QueryRejection) -> String {
    rejection.source().map_or_else(|| rejection.body_text(), ToString::to_string)
}

fn show(report: &RefreshReport) -> serde_json::Value {
    serde_json::json!({
        "result": report.result.as_str(),
        "error": report.error,
        "generation": report.generation,
        "snapshot": report.snapshot,
        "links": report.links,
        "entries": report.entries,
        "offers": report.offers,
        "quarantined": report.quarantined,
        "warnings": report.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// A second scraper waits for the first: its text is as large, and its figures are as fresh.
pub const SCRAPES_AT_ONCE: usize = 1;

/// Longer than a refresh and most scrapers pause, so that they keep their connections.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(60);

const INDEX: &str = "smartlink admin\n\
    \n\
    GET  /console/   pages for people\n\
    GET  /metrics    Prometheus metrics\n\
    GET  /livez      200 while the process lives\n\
    GET  /readyz     200 once a table is live\n\
    GET  /explain    ?id=&aff_id=&ip=&ua=&language=&referrer=&at=&draw=&s1= … why a click goes where it goes\n\
    POST /refresh    fetch the snapshot now; ?force=true takes also one that looks like an accident\n\
    GET  /api/openapi.json   what the embedded CAKE API takes and answers, where it runs\n\
    GET, POST /api/2/…    the embedded CAKE API, where it runs\n";

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    use super::*;
    use crate::routing::{BotPolicy, Table};
    use crate::state::{Geo, refresh_requests};

    fn admin(scrapes: &Turns) -> Admin {
        let table = Arc::new(LiveTable::new(Table::empty(None, BotPolicy::Fallback)));
        Admin {
            token: watch::channel(None).1,
            hosts: Hosts::default(),
            metrics: Arc::new(Metrics::new(1, Arc::clone(&table))),
            scrapes: scrapes.clone(),
            readiness: Arc::default(),
            table,
            geo: Arc::new(LiveGeo::new(Geo::default())),
            refresh: refresh_requests().0,
        }
    }

    async fn ask(router: Router, target: &'static str) -> Response {
        let request = Request::builder().uri(target).header(header::HOST, "127.0.0.1:9180");
        TowerToHyperService::new(router).call(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn who_waits_for_a_scrape_holds_up_no_health_check_and_one_too_many_is_told() {
        let scrapes = Turns::bounded(1, 1, Duration::from_secs(3_600));
        let router = admin(&scrapes).router();
        let turn = scrapes.take().await.unwrap();
        let waiting = tokio::spawn(ask(router.clone(), "/metrics"));
        while scrapes.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask(router.clone(), "/livez").await.status(), StatusCode::OK);
        assert_eq!(ask(router.clone(), "/readyz").await.status(), StatusCode::SERVICE_UNAVAILABLE);
        let refused = ask(router.clone(), "/metrics").await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "2");
        let said = to_bytes(refused.into_body(), 1000).await.unwrap();
        assert!(said.ends_with(b"ask again in 2 s.\n"), "{said:?}");
        assert!(!waiting.is_finished());
        drop(turn);
        assert_eq!(waiting.await.unwrap().status(), StatusCode::OK);
    }
}
