//! The admin listener: metrics, health, explain, refresh. What else answers on it (the embedded API) is handed in.
//!
//! Everything but the two health checks and the API, which has a key of its own, asks for the token, where there is
//! one.

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
use crate::state::{LiveGeo, LiveTable, Metrics, Readiness, RefreshHandle, RefreshReport, RefreshResult};

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
    pub metrics: Arc<Metrics>,
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
        // Any page that a browser on this machine shows could send a form here; browsers say so, and nobody else does.
        if request.method() == Method::POST && request.headers().contains_key(header::ORIGIN) {
            return (StatusCode::FORBIDDEN, "This was sent by a web page; ask for it with curl.\n")
                .into_response();
        }
        return next.run(request).await;
    };
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    match given.and_then(|value| value.strip_prefix(b"Bearer ")) {
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
    match admin.metrics.text() {
        Ok(text) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {error}\n"))
            .into_response(),
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
