//! What Kubernetes asks: whether the process answers (`/healthz`), and whether it can be worked with (`/readyz`). Anybody may ask, and hears nothing else.

use super::{
    Shared,
    answer::{Answer, Refusal, blocking, ok},
};
use axum::{
    extract::State,
    http::{Method, StatusCode},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// Nothing that is decided takes so long; Kubernetes asks again before it believes it.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 5 });

/// See the module's documentation.
pub const HEALTH: &str = "/healthz";
/// See the module's documentation.
pub const READINESS: &str = "/readyz";

/// Whether a request is one that anybody may make.
pub(super) fn is_probe(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD) && [HEALTH, READINESS].contains(&path)
}

/// The process lives, and so does what decides in it.
pub(super) async fn health(State(shared): State<Arc<Shared>>) -> Answer {
    // No thread of the network waits for it.
    if blocking(move || shared.answers_within(PATIENCE)).await? {
        return ok(&json!({"status": "ok"}));
    }
    Err(Refusal::one(StatusCode::SERVICE_UNAVAILABLE, "nothing is decided"))
}

/// The database is open, or nobody would be asked. One that has a job of its own is ready when it has that, or waits for what is to be sent.
pub(super) async fn readiness(State(shared): State<Arc<Shared>>) -> Answer {
    if shared.alone.as_ref().is_none_or(|alone| alone.is_ready()) {
        return ok(&json!({"status": "ok"}));
    }
    Err(Refusal::one(StatusCode::SERVICE_UNAVAILABLE, "not yet"))
}
