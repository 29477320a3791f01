//! The paths of the one port: Flink's monitoring API (with and without `/v1`), blobs and submission, and what task managers say.

use super::{Shared, admit::admit, agents, answer::Refusal, asking, collect, files, jobs, openapi, probes, tap};
use crate::bundle::LONGEST_DOCUMENT;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    middleware,
    routing::{get, patch, post, put},
};
use std::sync::Arc;

/// More than is taken, so that whoever sends somewhat too much hears why: one who is cut off in the middle does not.
const LONGEST_BODY: usize = 4 * LONGEST_DOCUMENT;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let paths = Router::new()
        .route("/overview", get(jobs::overview))
        .route("/config", get(jobs::config))
        .route("/openapi.json", get(openapi::show))
        .route("/jobs", get(jobs::ids).post(jobs::submit))
        .route("/jobs/overview", get(jobs::all))
        .route("/jobs/{id}", get(jobs::one).patch(jobs::cancel))
        .route("/jobs/{id}/cancel", patch(jobs::cancel))
        .route("/jobs/{id}/plan", get(jobs::plan))
        .route("/jobs/{id}/exceptions", get(jobs::exceptions))
        .route("/jobs/{id}/checkpoints", get(jobs::checkpoints).post(asking::checkpoint))
        .route("/jobs/{id}/checkpoints/{trigger}", get(asking::checkpoint_request))
        .route("/jobs/{id}/config", get(jobs::settings))
        .route("/jobs/{id}/figures", get(jobs::figures))
        .route("/jobs/{id}/stop", post(asking::stop))
        .route("/jobs/{id}/savepoints", post(asking::savepoint))
        .route("/jobs/{id}/savepoints/{trigger}", get(asking::savepoint_request))
        .route("/jobs/{id}/rescaling", patch(asking::rescale))
        .route("/jobs/{id}/rescaling/{trigger}", get(asking::rescale_request))
        .route("/jobs/{id}/logs", get(asking::logs))
        .route("/jobs/{id}/collect", get(tap::tap))
        .route("/jobs/{id}/collect/{node}", get(collect::collect))
        .route("/savepoint-disposal", post(asking::dispose))
        .route("/savepoint-disposal/{trigger}", get(asking::disposal))
        .route("/taskmanagers", get(jobs::task_managers))
        .route("/taskmanagers/{id}", get(jobs::task_manager))
        .route("/taskmanagers/{id}/orders", get(agents::orders))
        .route("/taskmanagers/{id}/beat", post(agents::beat).layer(DefaultBodyLimit::max(agents::LONGEST_BEAT)))
        .route("/taskmanagers/{id}/collected/{request}", put(collect::collected).layer(DefaultBodyLimit::max(collect::MOST_BYTES)))
        .route("/metrics", get(jobs::metrics))
        .route("/healthz", get(probes::health))
        .route("/readyz", get(probes::readiness))
        .route("/blobs/missing", post(files::missing))
        .route("/blobs/{hash}", put(files::put).get(files::get))
        .layer(DefaultBodyLimit::max(LONGEST_BODY));
    Router::new()
        .merge(paths.clone())
        .nest("/v1", paths)
        .fallback(async || Refusal::one(StatusCode::NOT_FOUND, "there is no such path"))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), admit))
        .with_state(shared)
}
