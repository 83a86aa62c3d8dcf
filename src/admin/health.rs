//! The two questions of an orchestrator.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use super::Admin;

/// Whether the process lives.
pub async fn livez() -> &'static str {
    "alive\n"
}

/// Whether clicks should be sent here.
pub async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    match admin.readiness.unready_because() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}
