//! Jobs and task managers as users see them; submission and cancelling.

use super::{
    Shared,
    answer::{Answer, Refusal, answer, blocking, ok},
    checkpoints, flink, metrics, settings,
    shared::{Refused, Wanted},
};
use crate::{
    application::Wish,
    bundle::{Bundle, LONGEST_DOCUMENT},
    manager::{Job, Manager},
    protocol::is_id,
};
use axum::{
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
};
use serde_json::{Value, json};
use standpipe_trace::{Beginning, Context, Kind};
use std::{collections::HashMap, sync::Arc};

/// What a view of one job needs.
type View = fn(&Manager, &Job) -> Value;

pub(super) async fn overview(State(shared): State<Arc<Shared>>) -> Answer {
    ok(&shared.look(flink::overview))
}

pub(super) async fn config() -> Answer {
    ok(&flink::config())
}

pub(super) async fn ids(State(shared): State<Arc<Shared>>) -> Answer {
    ok(&shared.look(flink::ids))
}

pub(super) async fn all(State(shared): State<Arc<Shared>>) -> Answer {
    let now = shared.clock.now();
    ok(&shared.look(|manager| flink::jobs(manager, now)))
}

fn no_job(id: &str) -> Refusal {
    Refusal::one(StatusCode::NOT_FOUND, format!("there is no job {:?}", id.chars().take(64).collect::<String>()))
}

/// Something of one job.
pub(super) fn of_job<T>(shared: &Shared, id: &str, look: impl FnOnce(&Manager, &Job) -> T) -> Result<T, Refusal> {
    shared.look(|manager| manager.jobs().get(id).map(|job| look(manager, job))).ok_or_else(|| no_job(id))
}

fn view(shared: &Shared, id: &str, view: View) -> Answer {
    ok(&of_job(shared, id, view)?)
}

pub(super) async fn one(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    let now = shared.clock.now();
    ok(&of_job(&shared, &id, |manager, job| flink::job(job, manager.waits(job), now))?)
}

pub(super) async fn plan(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    view(&shared, &id, |_, job| json!({"plan": flink::plan(job)}))
}

pub(super) async fn exceptions(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    view(&shared, &id, |_, job| flink::exceptions(job))
}

pub(super) async fn checkpoints(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    view(&shared, &id, |_, job| checkpoints::checkpoints(job))
}

pub(super) async fn settings(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    view(&shared, &id, |_, job| settings::show(job))
}

/// What the job has done in the last minutes.
pub(super) async fn figures(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let since = query.get("since").map_or(Ok(0), |text| text.parse());
    let since = since.map_err(|_| Refusal::one(StatusCode::BAD_REQUEST, "since: expected milliseconds since 1970"))?;
    let now = shared.clock.now();
    let shown = {
        let state = shared.state();
        state.manager.jobs().get(&id).map(|job| state.figures.show(job, since, now))
    };
    ok(&shown.ok_or_else(|| no_job(&id))?)
}

pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Answer {
    Ok(shared.look(metrics::show))
}

pub(super) async fn task_managers(State(shared): State<Arc<Shared>>) -> Answer {
    ok(&shared.look(flink::task_managers))
}

pub(super) async fn task_manager(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    let shown = shared.look(|manager| manager.task_managers().get(&id).map(|one| flink::task_manager(manager, &id, one)));
    ok(&shown.ok_or_else(|| Refusal::one(StatusCode::NOT_FOUND, "there is no such task manager"))?)
}

/// Whose part a request is: what its header `traceparent` says, or else the bundle.
fn asked_by(headers: &HeaderMap, bundle: &Bundle) -> Option<Context> {
    let header = headers.get("traceparent").and_then(|value| value.to_str().ok());
    header.and_then(|text| text.parse().ok()).or_else(|| bundle.options.traceparent.as_ref()?.parse().ok())
}

/// A client that gives the job its id may ask again when it has not heard the answer.
pub(super) async fn submit(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let id = query.get("jobid").cloned();
    if id.as_deref().is_some_and(|id| !is_id(id)) {
        return Err(Refusal::one(StatusCode::BAD_REQUEST, "jobid: expected 32 hexadecimal digits, in small letters"));
    }
    if body.len() > LONGEST_DOCUMENT {
        let why = format!("the bundle's document is longer than {LONGEST_DOCUMENT} bytes: files of a job are sent apart from it");
        return Err(Refusal::one(StatusCode::PAYLOAD_TOO_LARGE, why));
    }
    if let Some(alone) = &shared.alone {
        // Its own it has, or takes by itself.
        alone.refuse_other(id.as_ref().is_some_and(|id| id == alone.job() && shared.look(|manager| manager.jobs().contains_key(id))))?;
    }
    let mut bundle = Bundle::parse(&body).map_err(|errors| Refusal::new(StatusCode::BAD_REQUEST, &errors))?;
    let parent = asked_by(&headers, &bundle);
    // Where spans are not exported here, those of the workers go on from there all the same.
    bundle.options.traceparent = parent.map(|parent| parent.to_string());
    let beginning = Beginning { name: "submit", kind: Kind::Server, parent: parent.as_ref(), link: None };
    let mut span = shared.traces.begin(&beginning).with("job_name", bundle.name.as_str());
    let own = Arc::clone(&shared);
    let turn = shared.planners.acquire().await;
    let submitted = blocking(move || {
        let missing = own.blobs.missing(bundle.files().map(|file| file.hash));
        if !missing.is_empty() {
            span.fail(&format!("{} of its files are missing", missing.len()));
            let errors: Vec<String> = missing.iter().map(|hash| format!("blob {hash} is missing: PUT it to /v1/blobs/{hash}")).collect();
            return Err(Refusal(StatusCode::CONFLICT, json!({"errors": errors, "missing": missing})));
        }
        let submitted = own.submit(bundle, Wanted { id, ..Wanted::default() }, &span);
        match &submitted {
            Ok(id) => span.set("job_id", id.as_str()),
            Err(refused) => span.fail(&refused.to_string()),
        }
        submitted.map_err(|refused| match refused {
            Refused::Taken => Refusal::one(StatusCode::BAD_REQUEST, refused),
            Refused::Plan(error) => Refusal::new(StatusCode::BAD_REQUEST, error.lines()),
            Refused::Many => Refusal::one(StatusCode::SERVICE_UNAVAILABLE, refused),
        })
    });
    let id = submitted.await??;
    drop(turn);
    Ok(answer(StatusCode::ACCEPTED, &json!({"jobid": id})))
}

pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    match query.get("mode").map(String::as_str) {
        None | Some("cancel") => {}
        Some(other) => {
            let other: String = other.chars().take(64).collect();
            return Err(Refusal::one(StatusCode::BAD_REQUEST, format!("mode={other}: expected cancel")));
        }
    }
    of_job(&shared, &id, |_, _| ())?;
    let own = Arc::clone(&shared);
    let is_over = blocking(move || {
        own.decide(|manager, _, now| {
            let actions = manager.cancel(&id, now);
            (actions, manager.jobs().get(&id).is_none_or(Job::is_over))
        })
    });
    // Whoever hears that it will be need not ask the next manager again.
    if let (Some(alone), false) = (&shared.alone, is_over.await?) {
        alone.wishes(Wish::Cancel).await;
    }
    Ok(answer(StatusCode::ACCEPTED, &json!({})))
}
