//! `GET /jobs/:id/collect?node=NAME`: rows of any node as they pass, from now on, as an Arrow IPC stream or as JSON for people. It is a look and no delivery: where rows pass faster than
//! they are asked for, some are passed over and counted. Every task manager that has a process of the job is asked for what passes there.
//!
//! Query: `limit` (rows at the most), `timeout` (milliseconds: what has come by then), `tap` (32 hexadecimal digits of the one who looks: the next look with the same goes on where this one
//! has ended, and answers as soon as there are rows), `last` (with `limit` rows that tap has all that is wanted, and is closed), `newest` (those that passed last, where there are more),
//! `format`. Headers of the answer: `standpipe-dropped`, rows that have passed and are not in it; `standpipe-opened: true`, the look began anew, and whoever had rows before misses some that
//! nobody counts; `standpipe-ended: true`, nothing follows. An answer without a body: the job has not begun.

use super::{
    Shared,
    answer::{Answer, Refusal, blocking, ok},
    collect::{CONTENT, Collected, Looked, Question},
    jobs::of_job,
    random_id,
};
use crate::{
    manager::{Job, PlannedNode},
    protocol::{Attempt, TaskManagerId, is_id},
    triggers::Trigger,
};
use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, SchemaRef};
use axum::{
    extract::{Path, Query, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use standpipe_formats::{ipc::read_stream, types::type_text};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// Rows of an answer at the most.
const MOST_ROWS: u64 = 100_000;
/// Bytes of rows that an answer has: with so many it is given.
const MOST_BYTES: usize = 64 << 20;
/// The longest `timeout`, milliseconds.
const LONGEST_WAIT: u64 = 60_000;
/// How long a process waits for rows before it says that there are none: others may have some.
const ROUND: Duration = Duration::from_millis(250);
/// What a task manager has beyond that to answer.
const GRACE: Duration = Duration::from_secs(3);
/// Between two looks whether answers have come, or whether the job has begun.
const LOOK: Duration = Duration::from_millis(10);
/// Of a value's text, in characters: longer ones are cut.
const LONGEST_TEXT: usize = 1_000;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Arrow,
    /// JSON: columns with their types, and rows of texts.
    Table,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    node: String,
    limit: Option<u64>,
    timeout: Option<u64>,
    tap: Option<String>,
    #[serde(default)]
    last: bool,
    #[serde(default)]
    newest: bool,
    #[serde(default)]
    format: Format,
}

/// Rows that have come so far.
#[derive(Default)]
struct Rows {
    schema: Option<SchemaRef>,
    batches: Vec<RecordBatch>,
    count: u64,
    bytes: usize,
    dropped: u64,
    /// The look has begun anew: of one who has a name, or who had rows already.
    opened: bool,
    ended: bool,
    /// Whoever looks may ask again: what is thrown away is missed.
    goes_on: bool,
    is_named: bool,
}

/// A look; when it is dropped, and nobody goes on with it, the job's processes hear so. That is so also where whoever asked has gone.
struct Looking {
    shared: Arc<Shared>,
    job: String,
    look: Value,
    is_over: bool,
}

impl Drop for Looking {
    fn drop(&mut self) {
        let Some(runtime) = tokio::runtime::Handle::try_current().ok().filter(|_| self.is_over) else { return };
        let (shared, job, mut look) = (Arc::clone(&self.shared), std::mem::take(&mut self.job), self.look.take());
        look["rows"] = 0.into();
        look["wait"] = 0.into();
        runtime.spawn(async move {
            // Where it is not heard, it ends when it is not asked for a while.
            if let Ok(standing) = standing(&shared, &job)
                && !standing.is_over
            {
                drop(Rows::default().ask(&shared, standing, &look, Duration::ZERO, 0).await);
            }
        });
    }
}

/// Where the job stands.
struct Standing {
    attempt: Attempt,
    state: &'static str,
    is_over: bool,
    placed: Vec<TaskManagerId>,
}

fn standing(shared: &Shared, id: &str) -> Result<Standing, Refusal> {
    of_job(shared, id, |_, job| Standing {
        attempt: job.attempt(),
        state: job.state(),
        is_over: job.is_over(),
        placed: job.members().iter().filter(|member| member.gone.is_none()).map(|member| member.task_manager.clone()).collect(),
    })
}

/// Refuses what cannot be answered, whatever the job does.
fn check(job: &Job, asked: &Asked) -> Result<(), Refusal> {
    let wrong = |why: String| Err(Refusal::one(StatusCode::BAD_REQUEST, why));
    if asked.limit == Some(0) || asked.limit.is_some_and(|limit| limit > MOST_ROWS) {
        return wrong(format!("limit: expected 1 to {MOST_ROWS} rows; for more, ask again with the same tap=ID"));
    }
    if asked.tap.as_ref().is_some_and(|tap| !is_id(tap)) {
        return wrong("tap: expected 32 hexadecimal digits".to_owned());
    }
    if !job.planned.bounded && asked.limit.is_none() && asked.timeout.is_none() {
        return wrong(
            "the job does not end by itself: say how many rows are wanted at the most (limit), or how long to wait for them (timeout)"
                .to_owned(),
        );
    }
    if !job.planned.nodes.iter().any(|node| is_meant(node, &asked.node)) {
        let known: Vec<&str> = job.planned.nodes.iter().map(|node| node.path.as_str()).collect();
        let node: String = asked.node.chars().take(64).collect();
        return Err(Refusal::one(StatusCode::NOT_FOUND, format!("the job has no node {node:?}: it has {}", known.join(", "))));
    }
    Ok(())
}

/// By its path or its name, with that of an output behind it or without.
fn is_meant(node: &PlannedNode, name: &str) -> bool {
    let own = node.path.split_once('.').map_or(node.path.as_str(), |(_, name)| name);
    [node.path.as_str(), own].iter().any(|of| name.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

pub(super) async fn tap(State(shared): State<Arc<Shared>>, Path(id): Path<String>, Query(asked): Query<Asked>) -> Answer {
    of_job(&shared, &id, |_, job| check(job, &asked))??;
    let failed = |error: std::io::Error| Refusal::one(StatusCode::INTERNAL_SERVER_ERROR, error);
    let tap = asked.tap.clone().map_or_else(|| random_id().map_err(failed), Ok)?;
    let limit = asked.limit.unwrap_or(MOST_ROWS);
    let deadline = Instant::now() + Duration::from_millis(asked.timeout.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT));
    let (is_named, goes_on) = (asked.tap.is_some(), asked.tap.is_some() && !asked.last);
    let mut rows = Rows { is_named, goes_on, ..Rows::default() };
    let look = json!({"tap": tap, "node": asked.node, "newest": asked.newest});
    let mut looking = Looking { shared: Arc::clone(&shared), job: id.clone(), look, is_over: !is_named };
    loop {
        let standing = standing(&shared, &id)?;
        if standing.is_over {
            if asked.tap.is_none() && rows.schema.is_none() {
                let why = "rows of a node can be seen while they pass; those of a sink of the connector collect stay";
                return Err(Refusal::one(StatusCode::GONE, format!("the job has ended, it is {}: {why}", standing.state)));
            }
            rows.ended = true;
            break;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        // A job of one process says at once when it has some.
        let wait = if standing.placed.len() > 1 { left.min(ROUND) } else { left.min(4 * ROUND) };
        looking.look["rows"] = share(limit - rows.count, standing.placed.len()).into();
        looking.look["wait"] = (wait.as_millis() as u64).into();
        rows.ask(&shared, standing, &looking.look, wait, limit).await?;
        if rows.bytes >= MOST_BYTES
            || rows.count >= limit
            || rows.ended
            || Instant::now() >= deadline
            || (asked.tap.is_some() && rows.count > 0)
        {
            break;
        }
    }
    looking.is_over |= asked.last && rows.count >= limit;
    drop(looking);
    blocking(move || match asked.format {
        Format::Arrow => arrow(rows),
        Format::Table => table(rows),
    })
    .await?
}

/// What each process is asked for: who is asked for all would crowd out the others.
fn share(left: u64, processes: usize) -> u64 {
    (left / (processes as u64).max(1)).max(1)
}

impl Rows {
    /// Asks all processes of the job once. What one of them refuses is refused, unless it is not there.
    async fn ask(&mut self, shared: &Arc<Shared>, standing: Standing, look: &Value, wait: Duration, limit: u64) -> Result<(), Refusal> {
        let mut open = Vec::new();
        for task_manager in &standing.placed {
            let trigger = Trigger::of_tap(standing.attempt.clone(), task_manager.clone(), look, shared.clock.now());
            open.push(Question::ask(shared, task_manager.clone(), trigger)?);
        }
        if open.is_empty() {
            sleep(wait.max(LOOK)).await;
            return Ok(());
        }
        shared.told.send_modify(|_| ());
        let (deadline, had) = (Instant::now() + wait + GRACE, self.count > 0);
        let mut busy = None;
        while !open.is_empty() && Instant::now() < deadline {
            let mut waiting = Vec::new();
            for question in open {
                match question.answered() {
                    None => waiting.push(question),
                    Some(Looked::Rows(collected)) => {
                        self.opened |= collected.opened && (self.is_named || had);
                        self.take(collected, limit)
                            .map_err(|error| Refusal::one(StatusCode::BAD_GATEWAY, format!("the rows are not understood: {error}")))?;
                    }
                    Some(Looked::Refused(why)) => return Err(Refusal::one(StatusCode::BAD_REQUEST, why)),
                    Some(Looked::Busy(why)) => busy = Some(why),
                    // It has just ended or begun: the next look says which.
                    Some(Looked::Away) => {}
                }
            }
            open = waiting;
            if !open.is_empty() {
                sleep(LOOK).await;
            }
        }
        // Rows that others have given are not thrown away for that.
        busy.filter(|_| self.count == 0).map_or(Ok(()), |why| Err(Refusal::one(StatusCode::SERVICE_UNAVAILABLE, why)))
    }

    /// Takes as many rows as are wanted.
    fn take(&mut self, collected: Collected, limit: u64) -> Result<(), ArrowError> {
        self.dropped = self.dropped.saturating_add(collected.dropped);
        if collected.bytes.is_empty() {
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(collected.bytes.len());
        let (schema, batches) = read_stream(&collected.bytes).map_err(|error| ArrowError::IpcError(error.to_string()))?;
        let schema = Arc::clone(self.schema.get_or_insert(schema));
        for batch in batches {
            let rows = (batch.num_rows() as u64).min(limit - self.count);
            self.count += rows;
            if self.goes_on {
                self.dropped = self.dropped.saturating_add(batch.num_rows() as u64 - rows);
            }
            if rows > 0 {
                let part = batch.slice(0, usize::try_from(rows).unwrap_or(usize::MAX));
                self.batches.push(RecordBatch::try_new(Arc::clone(&schema), part.columns().to_vec())?);
            }
        }
        Ok(())
    }
}

fn headers(mut answer: Response, rows: &Rows) -> Response {
    let word = |is_so: bool| is_so.then(|| "true".to_owned());
    let names = [
        ("standpipe-dropped", (rows.dropped > 0).then(|| rows.dropped.to_string())),
        ("standpipe-opened", word(rows.opened)),
        ("standpipe-ended", word(rows.ended)),
    ];
    for (name, value) in names {
        // Digits and words.
        if let Some(value) = value.and_then(|value| value.parse().ok()) {
            answer.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    answer
}

fn strange(error: ArrowError) -> Refusal {
    Refusal::one(StatusCode::INTERNAL_SERVER_ERROR, format!("the rows cannot be written: {error}"))
}

fn arrow(rows: Rows) -> Answer {
    let mut bytes = Vec::new();
    if let Some(schema) = &rows.schema {
        let mut writer = StreamWriter::try_new(&mut bytes, schema).map_err(strange)?;
        rows.batches.iter().try_for_each(|batch| writer.write(batch)).map_err(strange)?;
        writer.finish().map_err(strange)?;
    }
    let answer = (StatusCode::OK, [(header::CONTENT_TYPE, CONTENT)], bytes).into_response();
    Ok(headers(answer, &rows))
}

fn table(rows: Rows) -> Answer {
    let column = |field: &arrow_schema::FieldRef| json!({"name": field.name(), "type": type_text(field)});
    let columns: Option<Vec<Value>> = rows.schema.as_ref().map(|schema| schema.fields().iter().map(column).collect());
    let mut texts = Vec::new();
    for batch in &rows.batches {
        texts.extend(texts_of(batch).map_err(strange)?);
    }
    let answer = json!({"columns": columns, "rows": texts, "dropped": rows.dropped, "opened": rows.opened, "ended": rows.ended});
    Ok(headers(ok(&answer)?, &rows))
}

/// The values of each row as texts; null is null.
fn texts_of(batch: &RecordBatch) -> Result<Vec<Vec<Option<String>>>, ArrowError> {
    let options = FormatOptions::default();
    let columns = batch.columns().iter().map(|column| Ok((column, ArrayFormatter::try_new(column.as_ref(), &options)?)));
    let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
    let text = |formatter: &ArrayFormatter<'_>, row: usize| {
        // A value that has no text, a time beyond the calendar, is shown as an error: the others are shown all the same.
        let mut text = formatter.value(row).to_string();
        if let Some((end, _)) = text.char_indices().nth(LONGEST_TEXT) {
            text.truncate(end);
            text.push('…');
        }
        text
    };
    let row = |row: usize| columns.iter().map(|(column, formatter)| (!column.is_null(row)).then(|| text(formatter, row))).collect();
    Ok((0..batch.num_rows()).map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray};

    fn batch(numbers: &[i64]) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(numbers.to_vec())) as ArrayRef)]).unwrap()
    }

    fn collected(numbers: &[i64]) -> Collected {
        let batch = batch(numbers);
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        Collected { bytes: writer.into_inner().unwrap().into(), dropped: 2, ..Collected::default() }
    }

    #[test]
    fn rows_of_several_processes_are_one_stream_of_so_many_rows() {
        let mut rows = Rows::default();
        rows.take(Collected::default(), 5).unwrap();
        assert!(rows.schema.is_none(), "the job has not begun");
        rows.take(collected(&[1, 2, 3]), 5).unwrap();
        rows.take(collected(&[4, 5, 6]), 5).unwrap();
        assert_eq!((rows.count, rows.dropped, rows.batches.len()), (5, 4, 2), "what is beyond the limit is not missed");
        assert_eq!(rows.batches[1], batch(&[4, 5]));
        // One who asks again misses it.
        let mut rows = Rows { goes_on: true, ..Rows::default() };
        rows.take(collected(&[1, 2, 3]), 5).unwrap();
        rows.take(collected(&[4, 5, 6]), 5).unwrap();
        assert_eq!((rows.count, rows.dropped), (5, 5));
        assert!(rows.bytes > 2 * 3 * size_of::<i64>());
        assert!(rows.take(Collected { bytes: "no rows".into(), ..Collected::default() }, 9).is_err());
    }

    #[test]
    fn no_process_is_asked_for_the_rows_of_others() {
        assert_eq!((share(100_000, 1), share(100_000, 2), share(7, 3), share(1, 3), share(5, 0)), (100_000, 50_000, 2, 1, 5));
    }

    #[test]
    fn a_value_without_a_text_hides_no_others() {
        let columns: [(&str, ArrayRef); 2] =
            [("at", Arc::new(TimestampMillisecondArray::from(vec![i64::MAX, 0]))), ("n", Arc::new(Int64Array::from(vec![1, 2])))];
        let texts = texts_of(&RecordBatch::try_from_iter(columns).unwrap()).unwrap();
        assert!(texts[0][0].as_ref().is_some_and(|text| text.starts_with("ERROR: ")), "{texts:?}");
        assert_eq!((texts[0][1].as_deref(), texts[1][0].as_deref()), (Some("1"), Some("1970-01-01T00:00:00")));
    }

    #[test]
    fn texts_are_exact_and_not_endless() {
        let columns: [(&str, ArrayRef); 3] = [
            ("n", Arc::new(Int64Array::from(vec![Some(9_007_199_254_740_993), None]))),
            ("at", Arc::new(TimestampMillisecondArray::from(vec![1_700_000_000_001, 0]))),
            ("text", Arc::new(StringArray::from(vec!["<b>".to_owned(), "ß".repeat(2_000)]))),
        ];
        let texts = texts_of(&RecordBatch::try_from_iter(columns).unwrap()).unwrap();
        let first: Vec<_> = texts[0].iter().map(|text| text.as_deref().unwrap()).collect();
        assert_eq!(first, ["9007199254740993", "2023-11-14T22:13:20.001", "<b>"]);
        assert_eq!(texts[1][0], None);
        assert_eq!(texts[1][2].as_ref().unwrap().chars().count(), LONGEST_TEXT + 1);
    }

    #[test]
    fn a_node_is_meant_by_path_or_name_with_an_output_or_without() {
        let mut job = crate::manager::job_for_tests("a");
        let (path, role) = ("transforms.stats".to_owned(), "transform".to_owned());
        let node = PlannedNode { path, role, parallelism: 1, inputs: Vec::new(), collects: false, plugin: None };
        for name in ["transforms.stats", "stats", "stats.late", "transforms.stats.late"] {
            assert!(is_meant(&node, name), "{name}");
        }
        for name in ["", "stat", "statistics", "transforms"] {
            assert!(!is_meant(&node, name), "{name}");
        }
        job.planned.nodes = vec![node];
        job.planned.bounded = false;
        let asked = |node: &str, limit, timeout| Asked {
            node: node.to_owned(),
            limit,
            timeout,
            tap: None,
            last: false,
            newest: false,
            format: Format::Arrow,
        };
        let status = |asked: Asked| check(&job, &asked).err().map(|refusal| refusal.0.as_u16());
        assert_eq!(status(asked("stats", Some(1), None)), None);
        assert_eq!(status(asked("stats", None, Some(1))), None);
        assert_eq!(status(asked("stats", None, None)), Some(400));
        assert_eq!(status(asked("stats", Some(0), None)), Some(400));
        assert_eq!(status(asked("stats", Some(MOST_ROWS + 1), None)), Some(400));
        assert_eq!(status(Asked { tap: Some("x".to_owned()), ..asked("stats", Some(1), None) }), Some(400));
        assert_eq!(status(asked("other", Some(1), None)), Some(404));
    }
}
