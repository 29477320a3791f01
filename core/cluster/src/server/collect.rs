//! `GET /jobs/:id/collect/:node`: rows of a sink `collect`, some at a time, as an Arrow IPC stream. They stay where the sink is, on its task manager; whoever reads asks
//! for what comes next by a number, so that a connection that breaks loses nothing.
//!
//! Query: `from` (the number of the next batch; 0 or none: from the first), `place` (who gave that number), `wait` (milliseconds to wait for rows, at most 2000). Headers of the
//! answer: `standpipe-next` and `standpipe-place`, for the next question; `standpipe-ended: true`, nothing follows; `standpipe-gap: true`, rows before these have made room for others.
//! An answer without a body: the sink has not begun.

use super::{
    Shared,
    answer::{Answer, Refusal, ok},
    jobs::of_job,
    random_id,
};
use crate::{
    protocol::{Answered, Attempt, TaskManagerId},
    triggers::Trigger,
};
use axum::{
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderName, StatusCode, header},
    response::IntoResponse,
};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// Between two looks whether rows have come.
const LOOK: Duration = Duration::from_millis(10);
/// The longest `wait`.
const LONGEST_WAIT: u64 = 2_000;
/// What a task manager has beyond that to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Rows of one answer, in bytes: a batch is a part of it.
pub(super) const MOST_BYTES: usize = 1 << 30;
pub(super) const CONTENT: &str = "application/vnd.apache.arrow.stream";

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    from: u64,
    place: Option<TaskManagerId>,
    #[serde(default)]
    wait: u64,
}

/// Some rows of a sink.
#[derive(Debug, Clone, Default)]
pub(super) struct Collected {
    /// The number of the next batch; 0: the sink has not begun.
    pub(super) next: u64,
    /// Rows before these are gone.
    pub(super) gap: bool,
    /// An Arrow IPC stream; empty: the sink has not begun.
    pub(super) bytes: Bytes,
    /// Of rows that pass: those that are not in it.
    pub(super) dropped: u64,
    /// The look begins with these, in the process that they are of.
    pub(super) opened: bool,
}

/// What has come of a look at rows that pass.
pub(super) enum Looked {
    Rows(Collected),
    /// By the job's process: why.
    Refused(String),
    /// Too many others look.
    Busy(String),
    /// The job's process is not there.
    Away,
}

/// What is known of the sink when somebody asks.
struct Sink {
    attempt: Attempt,
    is_over: bool,
    is_placed: bool,
    /// Those that are still there.
    placed: Vec<TaskManagerId>,
}

fn sink(shared: &Shared, id: &str, node: &str) -> Result<Sink, Refusal> {
    let found = of_job(shared, id, |manager, job| {
        let path = format!("sinks.{node}");
        let sinks = || job.planned.nodes.iter().filter(|node| node.collects);
        if !sinks().any(|node| node.path == path) {
            let names: Vec<&str> = sinks().filter_map(|node| node.path.strip_prefix("sinks.")).collect();
            return Err(if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) });
        }
        let last = job.attempts.last().map(|last| last.placed.as_slice()).unwrap_or_default();
        // It has one subtask, which is in the first process. Another task manager may have the rows of a former attempt.
        let known = last.first().map(|(_, id)| id).filter(|id| manager.task_managers().contains_key(*id));
        Ok(Sink {
            attempt: job.attempt(),
            is_over: job.is_over(),
            is_placed: !last.is_empty(),
            placed: known.cloned().into_iter().collect(),
        })
    })?;
    let node: String = node.chars().take(64).collect();
    found.map_err(|has| Refusal::one(StatusCode::NOT_FOUND, format!("the job has no sink {node:?} of the connector collect: {has}")))
}

pub(super) async fn collect(
    State(shared): State<Arc<Shared>>,
    Path((id, node)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Answer {
    let wait = asked.wait.min(LONGEST_WAIT);
    let sink = sink(&shared, &id, &node)?;
    if !sink.is_placed {
        // It waits for slots, or was ended before it had any.
        sleep(Duration::from_millis(if sink.is_over { 0 } else { wait })).await;
        note_read(&shared, &node, sink.is_over);
        return Ok(respond(None, sink.is_over));
    }
    if sink.placed.is_empty() {
        // Of a job that goes on there will be others.
        let code = if sink.is_over { StatusCode::GONE } else { StatusCode::SERVICE_UNAVAILABLE };
        return Err(Refusal::one(code, format!("the task manager that has the rows of {node:?} is gone")));
    }
    let mut questions = Vec::new();
    for task_manager in sink.placed {
        // A number means something where it was given.
        let from = if asked.place.as_ref() == Some(&task_manager) { asked.from } else { 0 };
        let wait = if sink.is_over { 0 } else { wait };
        let now = shared.clock.now();
        let trigger = Trigger::of_rows(sink.attempt.clone(), task_manager.clone(), (&node, from, wait), now);
        let mut question = Question::ask(&shared, task_manager, trigger)?;
        question.from = from;
        questions.push(question);
    }
    shared.told.send_modify(|_| ());
    let (found, refused) = answers(&questions, wait).await;
    let Some((question, collected)) = found else {
        return match refused {
            Some(why) => Err(Refusal::one(StatusCode::SERVICE_UNAVAILABLE, format!("the rows of {node:?} cannot be had: {why}"))),
            None => {
                note_read(&shared, &node, sink.is_over);
                Ok(respond(None, sink.is_over))
            }
        };
    };
    if collected.gap && question.from > 0 {
        let why = "rows that come next have been read by somebody else and have made room for others: begin anew";
        return Err(Refusal::one(StatusCode::GONE, why));
    }
    // One that was over before has written nothing since.
    let has_all = sink.is_over && collected.next == question.from.max(1);
    note_read(&shared, &node, has_all);
    Ok(respond(Some((&question.task_manager, collected)), has_all))
}

/// Somebody is told that nothing follows: a manager of one job alone does not stay for them any longer.
fn note_read(shared: &Shared, node: &str, has_all: bool) {
    shared.alone.iter().filter(|_| has_all).for_each(|alone| alone.is_read(node));
}

/// A question to a task manager, which is forgotten when nobody waits any more.
pub(super) struct Question {
    shared: Arc<Shared>,
    request: String,
    task_manager: TaskManagerId,
    from: u64,
}

impl Drop for Question {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.triggers.give_up(&self.request);
        state.collected.remove(&self.request);
    }
}

impl Question {
    /// Asks; whoever does tells the task managers.
    pub(super) fn ask(shared: &Arc<Shared>, task_manager: TaskManagerId, trigger: Trigger) -> Result<Self, Refusal> {
        let request = random_id().map_err(|error| Refusal::one(StatusCode::INTERNAL_SERVER_ERROR, error))?;
        let mut state = shared.state();
        state.collected.insert(request.clone(), None);
        // Nobody else has this id.
        drop(state.triggers.ask(request.clone(), trigger));
        drop(state);
        Ok(Self { shared: Arc::clone(shared), request, task_manager, from: 0 })
    }

    /// What has come of a look at rows that pass, once. None: nothing yet.
    pub(super) fn answered(&self) -> Option<Looked> {
        let mut state = self.shared.state();
        if let Some(collected) = state.collected.get_mut(&self.request).and_then(Option::take) {
            return Some(Looked::Rows(collected));
        }
        let answers = state.triggers.take(&self.request)?.unwrap_or_default();
        let said = |key| answers.iter().find_map(|answer| answer.get(key)?.as_str()).map(str::to_owned);
        Some(said("refused").map(Looked::Refused).or_else(|| said("busy").map(Looked::Busy)).unwrap_or(Looked::Away))
    }

    /// What has come, once; none: nothing yet.
    fn take(&self) -> Option<Result<Collected, String>> {
        let mut state = self.shared.state();
        match state.collected.get_mut(&self.request).and_then(Option::take) {
            Some(collected) => Some(Ok(collected)),
            None => state.triggers.take(&self.request).map(|answer| Err(answer.err().unwrap_or_else(|| "it has sent nothing".to_owned()))),
        }
    }
}

/// The answer of the task manager that has the sink, and why another one does not say whether it has. They are asked at once: those that do not have it have nothing to say.
async fn answers(questions: &[Question], wait: u64) -> (Option<(&Question, Collected)>, Option<String>) {
    let deadline = Instant::now() + Duration::from_millis(wait) + PATIENCE;
    let (mut open, mut refused): (Vec<&Question>, _) = (questions.iter().collect(), None);
    loop {
        let mut waiting = Vec::new();
        for question in open {
            match question.take() {
                Some(Ok(collected)) if collected.next > 0 => return (Some((question, collected)), None),
                Some(Ok(_)) => {}
                Some(Err(why)) => refused = Some(why),
                None => waiting.push(question),
            }
        }
        let Some(first) = waiting.first() else { return (None, refused) };
        if Instant::now() >= deadline {
            return (None, Some(format!("task manager {} does not answer", first.task_manager)));
        }
        sleep(LOOK).await;
        open = waiting;
    }
}

fn respond(found: Option<(&TaskManagerId, Collected)>, ended: bool) -> axum::response::Response {
    let name = HeaderName::from_static;
    let mut answer = (StatusCode::OK, [(header::CONTENT_TYPE, CONTENT)]).into_response();
    let mut headers = Vec::new();
    if let Some((place, collected)) = found {
        headers.extend([(name("standpipe-next"), collected.next.to_string()), (name("standpipe-place"), place.clone())]);
        headers.extend(collected.gap.then(|| (name("standpipe-gap"), "true".to_owned())));
        *answer.body_mut() = collected.bytes.into();
    }
    headers.extend(ended.then(|| (name("standpipe-ended"), "true".to_owned())));
    for (name, value) in headers {
        // Digits and words.
        if let Ok(value) = value.parse() {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

#[derive(Deserialize)]
pub(super) struct Sent {
    next: u64,
    gap: bool,
    #[serde(default)]
    dropped: u64,
    #[serde(default)]
    opened: bool,
}

/// `PUT /taskmanagers/:id/collected/:request`: the rows that a task manager was asked for.
pub(super) async fn collected(
    State(shared): State<Arc<Shared>>,
    Path((id, request)): Path<(String, String)>,
    Query(Sent { next, gap, dropped, opened }): Query<Sent>,
    bytes: Bytes,
) -> Answer {
    tracing::trace!(task_manager = id, "rows have come");
    let mut state = shared.state();
    let Some(place) = state.collected.get_mut(&request) else {
        return Err(Refusal::one(StatusCode::NOT_FOUND, "nobody waits for these rows"));
    };
    *place = Some(Collected { next, gap, bytes, dropped, opened });
    // It is not asked for them again.
    state.triggers.answered(&Answered { id: request, answers: Ok(Vec::new()) });
    ok(&serde_json::json!({}))
}
