//! What is asked of running jobs: savepoints, checkpoints, stops, another parallelism, logs. A request has an id at once; what has become of it is asked by that id. A
//! client that gives the id itself may ask again when it has not heard the answer: the job is asked once.

use super::{
    Shared,
    answer::{Answer, Refusal, answer, blocking, ok, optional},
    application::wish_of,
    flink,
    jobs::of_job,
};
use crate::{
    manager::Rescale,
    protocol::is_id,
    triggers::{Trigger, TriggerError},
};
use axum::{
    body::Bytes,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// How long task managers have to give a job's logs.
const LOGS: Duration = Duration::from_secs(5);
/// Between two looks whether they have.
const LOOK: Duration = Duration::from_millis(10);
/// Of a path or URL.
const LONGEST_PLACE: usize = 2_048;
/// Removals of savepoints that are remembered.
const MOST_DISPOSALS: usize = 100;

/// The id of a request.
fn id_of_request(wanted: Option<String>) -> Result<String, Refusal> {
    match wanted {
        Some(wanted) if is_id(&wanted) => Ok(wanted),
        Some(_) => Err(Refusal::one(StatusCode::BAD_REQUEST, "triggerId: expected 32 hexadecimal digits in lower case")),
        None => super::random_id().map_err(|error| Refusal::one(StatusCode::INTERNAL_SERVER_ERROR, error)),
    }
}

fn refused(error: &TriggerError) -> Refusal {
    let code = match error {
        TriggerError::Taken => StatusCode::CONFLICT,
        TriggerError::Many => StatusCode::TOO_MANY_REQUESTS,
    };
    Refusal::one(code, error)
}

fn accepted(shared: &Shared, request: &str) -> Answer {
    shared.alone.iter().for_each(|alone| alone.is_asked(request));
    Ok(answer(StatusCode::ACCEPTED, &json!({"request-id": request})))
}

/// Asks the job's first process; kept before it is answered.
async fn ask(shared: Arc<Shared>, id: String, wanted: Option<String>, ask: Value) -> Answer {
    let request = id_of_request(wanted)?;
    of_job(&shared, &id, |_, _| ())?;
    let own = request.clone();
    let of = Arc::clone(&shared);
    let wish = wish_of(&request, &ask);
    let asked = blocking(move || {
        let is_stop = ask.get("do").and_then(Value::as_str) == Some("stop");
        let asked = shared.decide(|manager, triggers, now| {
            let job = manager.jobs().get(&id).filter(|job| job.state() == "RUNNING");
            // Who asks again may ask when it is over.
            let asked = match (job, triggers.get(&id, &own)) {
                (_, Some(_)) => Ok(false),
                (Some(job), None) => triggers.ask(own, Trigger::new(job.attempt(), ask, now)).map_err(|error| refused(&error)),
                (None, None) => {
                    let state = manager.jobs().get(&id).map_or("gone", |job| job.state());
                    let why = format!("the job is {state}; only a job that is RUNNING can be asked for this");
                    Err(Refusal::one(StatusCode::CONFLICT, why))
                }
            };
            // Who wants its end does not want another parallelism.
            let actions = if is_stop && matches!(asked, Ok(true)) { manager.end_rescale(&id) } else { Vec::new() };
            (actions, asked)
        });
        // Its task manager is to hear of it now.
        shared.told.send_modify(|_| ());
        asked
    });
    asked.await??;
    let is_over = of.look(|manager| manager.jobs().values().all(crate::manager::Job::is_over));
    if let (Some(alone), Some(wish), false) = (&of.alone, wish, is_over) {
        alone.wishes(wish).await;
    }
    accepted(&of, &request)
}

/// Where a savepoint is to be. Not whether it can be there: the job's process tries.
fn place(directory: Option<String>) -> Result<Option<String>, Refusal> {
    let is_place = |text: &String| !text.is_empty() && text.len() <= LONGEST_PLACE && !text.chars().any(char::is_control);
    match directory {
        Some(text) if !is_place(&text) => Err(Refusal::one(StatusCode::BAD_REQUEST, "the target directory is no path or URL")),
        other => Ok(other),
    }
}

/// Formats of savepoints, in Flink's words: there is one here, which every release and parallelism reads.
fn check_format(format: Option<&str>) -> Result<(), Refusal> {
    match format {
        None | Some("CANONICAL" | "NATIVE") => Ok(()),
        Some(_) => Err(Refusal::one(StatusCode::BAD_REQUEST, "formatType: expected CANONICAL or NATIVE; both are the same here")),
    }
}

pub(super) async fn stop(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Answer {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Asked {
        drain: bool,
        target_directory: Option<String>,
        format_type: Option<String>,
        trigger_id: Option<String>,
    }
    let asked: Asked = optional(&body)?;
    check_format(asked.format_type.as_deref())?;
    let to = place(asked.target_directory)?;
    ask(shared, id, asked.trigger_id, json!({"do": "stop", "drain": asked.drain, "savepoint": true, "to": to})).await
}

pub(super) async fn savepoint(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Answer {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "kebab-case", default)]
    struct Asked {
        target_directory: Option<String>,
        cancel_job: bool,
        #[serde(rename = "formatType")]
        format_type: Option<String>,
        #[serde(rename = "triggerId")]
        trigger_id: Option<String>,
    }
    let asked: Asked = optional(&body)?;
    check_format(asked.format_type.as_deref())?;
    let to = place(asked.target_directory)?;
    let request = match asked.cancel_job {
        true => json!({"do": "stop", "drain": false, "savepoint": true, "to": to}),
        false => json!({"do": "savepoint", "to": to}),
    };
    ask(shared, id, asked.trigger_id, request).await
}

pub(super) async fn checkpoint(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Answer {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Asked {
        checkpoint_type: Option<String>,
        trigger_id: Option<String>,
    }
    let asked: Asked = optional(&body)?;
    match asked.checkpoint_type.as_deref() {
        None | Some("CONFIGURED" | "FULL" | "INCREMENTAL") => {}
        Some(_) => {
            let why = "checkpointType: expected CONFIGURED, FULL or INCREMENTAL; all are the same here: what has not changed is not written again";
            return Err(Refusal::one(StatusCode::BAD_REQUEST, why));
        }
    }
    ask(shared, id, asked.trigger_id, json!({"do": "checkpoint"})).await
}

/// Somebody is told what has become of a request, or asks again.
fn note_heard(shared: &Shared, request: &str, is_heard: bool) {
    shared.alone.iter().for_each(|alone| if is_heard { alone.is_heard(request) } else { alone.is_asked(request) });
}

/// What has become of a request.
fn show(shared: &Shared, id: &str, request: &str, of: fn(crate::triggers::Savepoint) -> Value) -> Answer {
    let outcome = {
        let mut state = shared.state();
        let (now, state) = (shared.clock.now(), &mut *state);
        state.triggers.settle(&state.manager, now);
        state.triggers.get(id, request).map(Trigger::outcome)
    };
    let outcome = outcome.ok_or_else(|| Refusal::one(StatusCode::NOT_FOUND, "there is no such request of that job"))?;
    note_heard(shared, request, outcome.is_some());
    ok(&flink::operation(outcome.map(|outcome| outcome.map(of))))
}

pub(super) async fn savepoint_request(State(shared): State<Arc<Shared>>, Path((id, request)): Path<(String, String)>) -> Answer {
    show(&shared, &id, &request, |taken| json!({"location": taken.place}))
}

pub(super) async fn checkpoint_request(State(shared): State<Arc<Shared>>, Path((id, request)): Path<(String, String)>) -> Answer {
    show(&shared, &id, &request, |taken| json!({"checkpointId": taken.number}))
}

pub(super) async fn rescale_request(State(shared): State<Arc<Shared>>, Path((id, request)): Path<(String, String)>) -> Answer {
    show(&shared, &id, &request, |taken| json!({"location": taken.place}))
}

/// Plans the job with another parallelism, and asks it to stop with a savepoint; it is begun anew from there.
pub(super) async fn rescale(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    body: Bytes,
) -> Answer {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Asked {
        parallelism: Option<u32>,
        trigger_id: Option<String>,
    }
    let asked: Asked = optional(&body)?;
    let parallelism = asked.parallelism.or_else(|| query.get("parallelism").and_then(|text| text.parse().ok()));
    let parallelism = parallelism.ok_or_else(|| Refusal::one(StatusCode::BAD_REQUEST, "parallelism: expected a number from 1 on"))?;
    let request = id_of_request(asked.trigger_id)?;
    let mut bundle = of_job(&shared, &id, |_, job| crate::bundle::Bundle::clone(&job.bundle))?;
    if shared.state().triggers.get(&id, &request).is_some() {
        return accepted(&shared, &request);
    }
    bundle.options.parallelism = Some(parallelism);
    if let Some(problem) = bundle.check().first() {
        return Err(Refusal::one(StatusCode::BAD_REQUEST, problem));
    }
    let (own, trigger) = (Arc::clone(&shared), request.clone());
    let turn = shared.planners.acquire().await;
    let asked = blocking(move || {
        let planned = own.plan(&bundle).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.lines()))?;
        let asked = own.decide(|manager, triggers, now| {
            let Some(attempt) = manager.jobs().get(&id).map(|job| job.attempt()) else { return (Vec::new(), Ok(())) };
            let rescale = Rescale { trigger: trigger.clone(), parallelism, planned };
            let actions = match manager.rescale(&id, rescale) {
                Ok(actions) => actions,
                Err(why) => return (Vec::new(), Err(Refusal::one(StatusCode::CONFLICT, why))),
            };
            if triggers.is_stopping(&id) {
                return (manager.give_up_rescale(&id, &trigger), Err(Refusal::one(StatusCode::CONFLICT, "the job is being stopped")));
            }
            let ask = json!({"do": "stop", "drain": false, "savepoint": true});
            match triggers.ask(trigger.clone(), Trigger::new(attempt, ask, now)) {
                Ok(_) => (actions, Ok(())),
                Err(error) => (manager.give_up_rescale(&id, &trigger), Err(refused(&error))),
            }
        });
        own.told.send_modify(|_| ());
        asked
    });
    asked.await??;
    drop(turn);
    accepted(&shared, &request)
}

/// Removes a savepoint that this machine can see.
pub(super) async fn dispose(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "kebab-case", default)]
    struct Asked {
        savepoint_path: Option<String>,
        #[serde(rename = "triggerId")]
        trigger_id: Option<String>,
    }
    let asked: Asked = optional(&body)?;
    let path = place(asked.savepoint_path)?;
    let path = path.ok_or_else(|| Refusal::one(StatusCode::BAD_REQUEST, "savepoint-path: expected the path or URL of a savepoint"))?;
    let request = id_of_request(asked.trigger_id)?;
    {
        let mut state = shared.state();
        if state.disposals.contains_key(&request) {
            drop(state);
            return accepted(&shared, &request);
        }
        let done = state.disposals.iter().find(|(_, outcome)| outcome.is_some()).map(|(id, _)| id.clone());
        if state.disposals.len() >= MOST_DISPOSALS {
            let done = done.ok_or_else(|| Refusal::one(StatusCode::TOO_MANY_REQUESTS, "too many savepoints are being removed"))?;
            state.disposals.remove(&done);
        }
        state.disposals.insert(request.clone(), None);
    }
    let (own, of) = (request.clone(), Arc::clone(&shared));
    tokio::task::spawn_blocking(move || {
        let outcome = (of.disposer)(&path);
        of.state().disposals.insert(own, Some(outcome));
    });
    accepted(&shared, &request)
}

pub(super) async fn disposal(State(shared): State<Arc<Shared>>, Path(request): Path<String>) -> Answer {
    let outcome = shared.state().disposals.get(&request).cloned();
    let outcome = outcome.ok_or_else(|| Refusal::one(StatusCode::NOT_FOUND, "there is no such request"))?;
    note_heard(&shared, &request, outcome.is_some());
    ok(&flink::operation(outcome.map(|outcome| outcome.map(|()| json!({})))))
}

/// A log that is asked for; dropped, nobody waits for it.
struct Asked {
    shared: Arc<Shared>,
    request: String,
    host: String,
    task_manager: String,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.shared.state().triggers.give_up(&self.request);
    }
}

impl Asked {
    async fn text(&self, deadline: tokio::time::Instant) -> Result<String, String> {
        loop {
            let (answer, is_there) = {
                let mut state = self.shared.state();
                (state.triggers.take(&self.request), state.manager.task_managers().contains_key(&self.task_manager))
            };
            match answer {
                Some(answer) => return answer.map(|lines| lines.iter().filter_map(Value::as_str).collect()),
                None if !is_there => return Err("its task manager is gone".to_owned()),
                None if tokio::time::Instant::now() >= deadline => return Err("its task manager does not answer".to_owned()),
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

/// The end of what the workers of the last attempt have written, as text.
pub(super) async fn logs(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    let (attempt, placed) = of_job(&shared, &id, |_, job| (job.attempt(), job.attempts.last().map(|last| last.placed.clone())))?;
    let mut asked = Vec::new();
    for (host, task_manager) in placed.unwrap_or_default() {
        let request = id_of_request(None)?;
        let trigger = Trigger::of_log(attempt.clone(), task_manager.clone(), shared.clock.now());
        shared.state().triggers.ask(request.clone(), trigger).map_err(|error| refused(&error))?;
        asked.push(Asked { shared: Arc::clone(&shared), request, host, task_manager });
    }
    shared.told.send_modify(|_| ());
    let mut text = String::new();
    let deadline = tokio::time::Instant::now() + LOGS;
    for (process, asked) in asked.iter().enumerate() {
        text.push_str(&format!("==> process {process} on {}, task manager {} <==\n", asked.host, asked.task_manager));
        match asked.text(deadline).await {
            Ok(part) => text.push_str(&part),
            Err(why) => text.push_str(&format!("{why}\n")),
        }
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}
