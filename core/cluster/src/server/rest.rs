//! The paths of the one port: Flink's monitoring API (with and without `/v1`), blobs and submission, and what task managers say.
//!
//! Who may ask: whoever has the token. Without one the manager is on loopback, and asks that a request names it so: a page in a browser that has found a name for
//! 127.0.0.1 is refused, and so is one of another origin.

use super::{Shared, assets, checkpoints as checkpoint_history, flink, metrics, random, settings};
use crate::{
    blobs::BlobError,
    bundle::{Bundle, Hash, LONGEST_DOCUMENT, MOST_FILES},
    manager::{Job, Manager},
    protocol::{Beat, Orders, Version, is_id},
};
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, patch, post, put},
};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// What a task manager may say at once: its workers, with how their jobs do.
const LONGEST_BEAT: usize = 32 << 20;
/// A task manager's question for orders is answered after so long at the latest.
const HOLD: Duration = Duration::from_secs(20);
/// A blob of which nothing comes for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);

/// How long task managers have to give a job's logs.
const LOGS: Duration = Duration::from_secs(5);
/// Between two looks whether they have.
const LOOK: Duration = Duration::from_millis(10);

type Answer = Result<Response, Refusal>;

/// An answer that is not what was asked for; as Flink does, with all that is wrong.
struct Refusal(StatusCode, Value);

impl Refusal {
    fn new(code: StatusCode, errors: &[impl ToString]) -> Self {
        Self(code, json!({"errors": errors.iter().map(ToString::to_string).collect::<Vec<_>>()}))
    }

    fn one(code: StatusCode, error: impl ToString) -> Self {
        Self::new(code, &[error.to_string()])
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        answer(self.0, &self.1)
    }
}

fn answer(code: StatusCode, value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => (code, [(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn ok(value: &impl serde::Serialize) -> Answer {
    Ok(answer(StatusCode::OK, value))
}

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let paths = Router::new()
        .route("/overview", get(async |State(shared): State<Arc<Shared>>| ok(&shared.look(flink::overview))))
        .route("/config", get(async || ok(&flink::config())))
        .route("/jobs", get(async |State(shared): State<Arc<Shared>>| ok(&shared.look(flink::ids))).post(submit))
        .route("/jobs/overview", get(jobs))
        .route("/jobs/{id}", get(job).patch(cancel))
        .route("/jobs/{id}/logs", get(logs))
        .route("/jobs/{id}/plan", get(plan))
        .route("/jobs/{id}/exceptions", get(exceptions))
        .route("/jobs/{id}/checkpoints", get(checkpoints))
        .route("/jobs/{id}/config", get(config))
        .route("/jobs/{id}/figures", get(figures))
        .route("/jobs/{id}/stop", post(stop))
        .route("/jobs/{id}/savepoints", post(savepoint))
        .route("/jobs/{id}/savepoints/{trigger}", get(trigger))
        .route("/taskmanagers", get(async |State(shared): State<Arc<Shared>>| ok(&shared.look(flink::task_managers))))
        .route("/taskmanagers/{id}", get(task_manager))
        .route("/taskmanagers/{id}/orders", get(orders))
        .route("/taskmanagers/{id}/beat", post(beat).layer(DefaultBodyLimit::max(LONGEST_BEAT)))
        .route("/metrics", get(async |State(shared): State<Arc<Shared>>| shared.look(metrics::show)))
        .route("/blobs/missing", post(missing))
        .route("/blobs/{hash}", put(put_blob).get(get_blob))
        .route("/jobs/{id}/cancel", patch(cancel))
        .layer(DefaultBodyLimit::max(LONGEST_DOCUMENT));
    Router::new()
        .merge(paths.clone())
        .nest("/v1", paths)
        .fallback(async || Refusal::one(StatusCode::NOT_FOUND, "there is no such path"))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), admit))
        .with_state(shared)
}

/// Whether a request may be looked at.
async fn admit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let asset = assets::answer(shared.assets, request.method(), request.uri().path());
    let refusal = match &shared.token {
        Some(_) if asset.is_some() => None,
        Some(token) if !has_token(headers, token) => Some((StatusCode::UNAUTHORIZED, "this needs the header Authorization: Bearer TOKEN")),
        None if !names_loopback(headers) => {
            Some((StatusCode::FORBIDDEN, "without a token only 127.0.0.1, [::1] and localhost are answered"))
        }
        _ if is_of_another_origin(headers) => Some((StatusCode::FORBIDDEN, "pages of another origin are not answered")),
        _ => None,
    };
    match refusal {
        Some((code, why)) => Refusal::one(code, why).into_response(),
        None => match asset {
            Some(asset) => asset,
            None => next.run(request).await,
        },
    }
}

/// In a time that does not tell how much of it was right.
fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
    given.is_some_and(|given| Hash::of(given.as_bytes()) == Hash::of(token.as_bytes()))
}

fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn names_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).map(host_of).unwrap_or_default();
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_of_another_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return headers.contains_key(header::ORIGIN) };
    origin.split_once("://").map(|(_, authority)| authority) != text(header::HOST)
}

fn no_job(id: &str) -> Refusal {
    Refusal::one(StatusCode::NOT_FOUND, format!("there is no job {:?}", id.chars().take(64).collect::<String>()))
}

fn of_job<T>(shared: &Shared, id: &str, look: impl FnOnce(&Manager, &Job) -> T) -> Result<T, Refusal> {
    shared.look(|manager| manager.jobs().get(id).map(|job| look(manager, job))).ok_or_else(|| no_job(id))
}

async fn jobs(State(shared): State<Arc<Shared>>) -> Answer {
    let now = shared.clock.now();
    ok(&shared.look(|manager| flink::jobs(manager, now)))
}

async fn job(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    let now = shared.clock.now();
    ok(&of_job(&shared, &id, |manager, job| flink::job(job, manager.waits(job), now))?)
}

async fn plan(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    ok(&json!({"plan": of_job(&shared, &id, |_, job| flink::plan(job))?}))
}

async fn exceptions(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    ok(&of_job(&shared, &id, |_, job| flink::exceptions(job))?)
}

async fn checkpoints(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    let history = shared.inner.lock().figures.checkpoints(&id);
    ok(&of_job(&shared, &id, |_, job| checkpoint_history::show(job, &history))?)
}

async fn config(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    ok(&of_job(&shared, &id, |_, job| settings::show(job))?)
}

/// What the job has done in the last minutes.
async fn figures(State(shared): State<Arc<Shared>>, Path(id): Path<String>, Query(query): Query<HashMap<String, String>>) -> Answer {
    let since = match query.get("since").map(|text| text.parse()) {
        None => 0,
        Some(Ok(since)) => since,
        Some(Err(_)) => return Err(Refusal::one(StatusCode::BAD_REQUEST, "since: expected milliseconds since 1970")),
    };
    let now = shared.clock.now();
    let inner = shared.inner.lock();
    let job = inner.manager.jobs().get(&id).ok_or_else(|| no_job(&id))?;
    ok(&inner.figures.show(job, since, now))
}

async fn task_manager(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    let shown = shared.look(|manager| manager.task_managers().get(&id).map(|one| flink::task_manager(manager, &id, one)));
    ok(&shown.ok_or_else(|| Refusal::one(StatusCode::NOT_FOUND, "there is no such task manager"))?)
}

async fn missing(State(shared): State<Arc<Shared>>, body: axum::body::Bytes) -> Answer {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        hashes: Vec<Hash>,
    }
    let asked: Asked = parse(&body)?;
    if asked.hashes.len() > MOST_FILES {
        return Err(Refusal::one(StatusCode::BAD_REQUEST, format!("more than {MOST_FILES} hashes at once")));
    }
    let missing = blocking(move || shared.blobs.missing(asked.hashes)).await?;
    ok(&json!({"missing": missing}))
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::one(StatusCode::BAD_REQUEST, format!("the body is not understood: {error}")))
}

/// What waits for a disk or a process is not done on a thread of the network.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let failed = |error| Refusal::one(StatusCode::INTERNAL_SERVER_ERROR, format!("it went wrong in here: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

fn hash(text: &str) -> Result<Hash, Refusal> {
    text.parse().map_err(|error: crate::bundle::NoHash| Refusal::one(StatusCode::BAD_REQUEST, error))
}

fn of_blob(error: BlobError) -> Refusal {
    let code = match error {
        BlobError::Hash { .. } | BlobError::Length { .. } => StatusCode::BAD_REQUEST,
        BlobError::Large { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        BlobError::System { .. } => StatusCode::INSUFFICIENT_STORAGE,
    };
    Refusal::one(code, error)
}

async fn put_blob(State(shared): State<Arc<Shared>>, Path(name): Path<String>, body: Body) -> Answer {
    let hash = hash(&name)?;
    let blobs = shared.blobs.clone();
    if blobs.has(hash) {
        return ok(&json!({}));
    }
    let mut incoming = blocking(move || blobs.begin(hash)).await?.map_err(of_blob)?;
    let mut pieces = body.into_data_stream();
    loop {
        let silent = |_| Refusal::one(StatusCode::REQUEST_TIMEOUT, "nothing has come for too long");
        let Some(piece) = tokio::time::timeout(SILENCE, pieces.next()).await.map_err(silent)? else { break };
        let piece = piece.map_err(|error| Refusal::one(StatusCode::BAD_REQUEST, format!("it was cut short: {error}")))?;
        incoming = blocking(move || incoming.write(&piece).map(|()| incoming)).await?.map_err(of_blob)?;
    }
    blocking(move || incoming.finish()).await?.map_err(of_blob)?;
    Ok(answer(StatusCode::CREATED, &json!({})))
}

async fn get_blob(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Answer {
    let hash = hash(&name)?;
    let path = shared.blobs.path(hash);
    let file = blocking(move || std::fs::File::open(path)).await?;
    let file = file.map_err(|_| Refusal::one(StatusCode::NOT_FOUND, format!("there is no blob {hash}")))?;
    // A piece at a time: blobs are large, and there may be many of them on their way.
    let pieces = futures_util::stream::try_unfold(file, async |mut file| {
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; 1 << 18];
            let read = std::io::Read::read(&mut file, &mut piece)?;
            piece.truncate(read);
            Ok::<_, std::io::Error>((piece, file))
        });
        let (piece, file) = read.await.map_err(std::io::Error::other)??;
        Ok::<_, std::io::Error>((!piece.is_empty()).then_some((piece, file)))
    });
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(pieces)).into_response())
}

async fn submit(State(shared): State<Arc<Shared>>, body: axum::body::Bytes) -> Answer {
    let bundle = Bundle::parse(&body).map_err(|errors| Refusal::new(StatusCode::BAD_REQUEST, &errors))?;
    let submitted = blocking(move || {
        let missing = shared.blobs.missing(bundle.files().map(|file| file.hash));
        if !missing.is_empty() {
            let errors: Vec<String> = missing.iter().map(|hash| format!("blob {hash} is missing: PUT it to /v1/blobs/{hash}")).collect();
            return Err(Refusal(StatusCode::CONFLICT, json!({"errors": errors, "missing": missing})));
        }
        shared.submit(bundle).map_err(|errors| Refusal::new(StatusCode::BAD_REQUEST, &errors))
    });
    let id = submitted.await??;
    Ok(answer(StatusCode::ACCEPTED, &json!({"jobid": id})))
}

async fn cancel(State(shared): State<Arc<Shared>>, Path(id): Path<String>, Query(query): Query<HashMap<String, String>>) -> Answer {
    match query.get("mode").map(String::as_str) {
        None | Some("cancel") => {}
        Some(other) => return Err(Refusal::one(StatusCode::BAD_REQUEST, format!("mode={other}: expected cancel"))),
    }
    of_job(&shared, &id, |_, _| ())?;
    blocking(move || shared.decide(|manager, now| (manager.cancel(&id, now), ()))).await?;
    Ok(answer(StatusCode::ACCEPTED, &json!({})))
}

/// A request to the job's first process: its id, by which is asked what became of it.
async fn ask(shared: Arc<Shared>, id: String, wanted: Option<String>, ask: Value) -> Answer {
    let trigger = match wanted {
        Some(wanted) if is_id(&wanted) => wanted,
        Some(_) => return Err(Refusal::one(StatusCode::BAD_REQUEST, "triggerId: expected 32 hexadecimal digits in lower case")),
        None => super::random_id().map_err(|error| Refusal::one(StatusCode::INTERNAL_SERVER_ERROR, error))?,
    };
    let (state, attempt) = of_job(&shared, &id, |_, job| (job.state(), job.attempt()))?;
    if state != "RUNNING" {
        return Err(Refusal::one(StatusCode::CONFLICT, format!("the job is {state}; only a job that is RUNNING can be asked for this")));
    }
    let now = shared.clock.now();
    shared.inner.lock().triggers.ask(trigger.clone(), attempt, ask, now);
    // Its task manager is to hear of it now.
    shared.told.send_modify(|_| ());
    Ok(answer(StatusCode::ACCEPTED, &json!({"request-id": trigger})))
}

/// The body of a request, which may be empty.
fn optional<T: serde::de::DeserializeOwned + Default>(body: &[u8]) -> Result<T, Refusal> {
    if body.is_empty() { Ok(T::default()) } else { parse(body) }
}

fn refuse_directory(directory: Option<&String>) -> Result<(), Refusal> {
    match directory {
        Some(_) => Err(Refusal::one(StatusCode::BAD_REQUEST, "a savepoint is where the job's checkpoints are: give no target directory")),
        None => Ok(()),
    }
}

async fn stop(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: axum::body::Bytes) -> Answer {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Asked {
        drain: bool,
        target_directory: Option<String>,
        trigger_id: Option<String>,
    }
    let asked: Asked = optional(&body)?;
    refuse_directory(asked.target_directory.as_ref())?;
    ask(shared, id, asked.trigger_id, json!({"do": "stop", "drain": asked.drain, "savepoint": true})).await
}

async fn savepoint(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: axum::body::Bytes) -> Answer {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Asked {
        #[serde(rename = "target-directory")]
        target_directory: Option<String>,
        #[serde(rename = "cancel-job")]
        cancel_job: bool,
        #[serde(rename = "triggerId")]
        trigger_id: Option<String>,
    }
    let asked: Asked = optional(&body)?;
    refuse_directory(asked.target_directory.as_ref())?;
    let request = if asked.cancel_job { json!({"do": "stop", "drain": false, "savepoint": true}) } else { json!({"do": "savepoint"}) };
    ask(shared, id, asked.trigger_id, request).await
}

async fn trigger(State(shared): State<Arc<Shared>>, Path((id, trigger)): Path<(String, String)>) -> Answer {
    let shown = {
        let inner = shared.inner.lock();
        inner.triggers.show(&id, &trigger, &inner.manager)
    };
    ok(&shown.ok_or_else(|| Refusal::one(StatusCode::NOT_FOUND, "there is no such request of that job"))?)
}

/// The end of what the workers of the last attempt have written, as text.
async fn logs(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    let (attempt, placed) = of_job(&shared, &id, |_, job| (job.attempt(), job.attempts.last().map(|last| last.placed.clone())))?;
    let mut asked = Vec::new();
    for (host, task_manager) in placed.unwrap_or_default() {
        let request = super::random_id().map_err(|error| Refusal::one(StatusCode::INTERNAL_SERVER_ERROR, error))?;
        let now = shared.clock.now();
        shared.inner.lock().triggers.ask_for_log(request.clone(), attempt.clone(), task_manager.clone(), now);
        asked.push((host, task_manager, request));
    }
    shared.told.send_modify(|_| ());
    let mut text = String::new();
    let deadline = tokio::time::Instant::now() + LOGS;
    for (process, (host, task_manager, request)) in asked.iter().enumerate() {
        let answer = loop {
            let taken = shared.inner.lock().triggers.take(request);
            match taken {
                Some(answer) => break answer,
                None if tokio::time::Instant::now() >= deadline => {
                    shared.inner.lock().triggers.give_up(request);
                    break Err("its task manager does not answer".to_owned());
                }
                None => tokio::time::sleep(LOOK).await,
            }
        };
        text.push_str(&format!("==> process {process} on {host}, task manager {task_manager} <==\n"));
        match answer {
            Ok(lines) => lines.iter().filter_map(Value::as_str).for_each(|part| text.push_str(part)),
            Err(why) => text.push_str(&format!("{why}\n")),
        }
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

async fn beat(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: axum::body::Bytes) -> Answer {
    let id = task_manager_id(id)?;
    let beat: Beat = parse(&body)?;
    let orders = blocking(move || {
        {
            let mut inner = shared.inner.lock();
            beat.answers.iter().for_each(|answered| inner.triggers.answered(answered));
        }
        shared.decide(|manager, now| (manager.beat(&id, &beat, now, random()), ()));
        {
            let mut inner = shared.inner.lock();
            let inner = &mut *inner;
            inner.figures.note(&beat, &inner.manager);
        }
        shared.orders(&id)
    });
    ok(&orders.await?)
}

fn task_manager_id(id: String) -> Result<String, Refusal> {
    if is_id(&id) { Ok(id) } else { Err(Refusal::one(StatusCode::BAD_REQUEST, "a task manager's id has 32 hexadecimal digits")) }
}

/// Answers when there is something that the task manager has not seen, or after a while.
async fn orders(State(shared): State<Arc<Shared>>, Path(id): Path<String>, Query(seen): Query<Version>) -> Answer {
    let id = task_manager_id(id)?;
    let mut told = shared.told.subscribe();
    let hold = HOLD.min(Duration::from_millis(shared.settings.lease / 4));
    let changed = async {
        while told.borrow_and_update().eq(&seen) {
            if told.changed().await.is_err() {
                return;
            }
            let orders: Orders = shared.orders(&id);
            if !orders.requests.is_empty() {
                return;
            }
        }
    };
    // Whether or not there is: what is answered then is a sign of life.
    drop(tokio::time::timeout(hold, changed).await);
    ok(&blocking(move || shared.orders(&id)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(header::HeaderName, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_token_is_all_of_it() {
        let given = |text: &str| has_token(&headers(&[(header::AUTHORIZATION, text)]), "secret");
        assert!(given("Bearer secret"));
        assert!(!given("Bearer secre") && !given("Bearer secrets") && !given("secret") && !given("Basic secret"));
        assert!(!has_token(&HeaderMap::new(), "secret"));
    }

    #[test]
    fn pages_in_a_browser_that_reach_loopback_by_a_trick_are_refused() {
        let is_loopback = |host: &str| names_loopback(&headers(&[(header::HOST, host)]));
        assert!(["127.0.0.1:8081", "localhost:1", "localhost", "[::1]:8081", "127.0.0.2"].into_iter().all(is_loopback));
        assert!(!["evil.example:8081", "127.0.0.1.evil.example", "", "10.0.0.1:8081", "localhost.evil"].into_iter().any(is_loopback));
        let of = |origin: &str| is_of_another_origin(&headers(&[(header::HOST, "127.0.0.1:8081"), (header::ORIGIN, origin)]));
        assert!(!of("http://127.0.0.1:8081") && of("http://127.0.0.1:9") && of("null") && of("https://evil.example"));
        assert!(!is_of_another_origin(&headers(&[(header::HOST, "127.0.0.1:8081")])));
    }
}
