//! Rows of a job, asked for some at a time. Of a sink `collect` none is lost: what has come is not asked for again, and a manager or task manager that is away for a moment
//! keeps the others. Of any other node they are those that pass while they are asked for.

use crate::{client::Client, jobs::status};
use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_ipc::reader::StreamReader;
use arrow_schema::{ArrowError, SchemaRef};
use serde_json::Value;
use standpipe_sdk::{Error, ErrorCode, Host, Result, deployment::Collect};
use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    thread,
    time::{Duration, Instant},
};

/// Rows of a node that are asked for at a time.
const MOST_ROWS: u64 = 100_000;
/// How long the manager waits for rows before it says that there are none.
const WAIT: Duration = Duration::from_secs(1);
/// How long one that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before it is.
const PAUSE: Duration = Duration::from_millis(250);

/// Whose rows.
enum Of {
    /// A sink of the connector collect.
    Sink(String),
    /// Any other node; who looks has that id.
    Node { name: String, tap: String },
}

/// Where to go on.
struct Cursor {
    next: String,
    /// The task manager that `next` is of.
    place: String,
}

/// See the module's documentation.
pub(crate) struct Rows {
    client: Client,
    host: Host,
    job: String,
    of: Of,
    /// Rows that have passed and were not had.
    dropped: u64,
    /// Rows of a node were had.
    had: bool,
    /// Between them some are missing, and how many is not known.
    gap: bool,
    schema: SchemaRef,
    waiting: VecDeque<RecordBatch>,
    cursor: Option<Cursor>,
    left: Option<u64>,
    deadline: Option<Instant>,
    /// Nothing follows; whether the job failed has still to be asked.
    ended: bool,
    over: bool,
}

impl Rows {
    /// Waits until the columns are known.
    ///
    /// # Errors
    /// When there is no such node, when it would never end, or when the job has ended without it.
    pub(crate) fn begin(client: Client, host: Host, job: &str, wanted: &Collect) -> Result<Self> {
        let told = client.good(client.get(job)?, "the job")?;
        let of = of(&told, &wanted.node)?;
        let is_endless = told.get("bounded") != Some(&Value::Bool(true));
        if is_endless && wanted.limit.is_none() && wanted.timeout.is_none() && !status(&client, job)?.is_terminal() {
            return Err(Error::config(
                "",
                "the job does not end by itself: say how many rows are wanted at the most, or how long to wait for them",
            ));
        }
        let deadline = wanted.timeout.map(|timeout| Instant::now() + timeout);
        let mut rows = Self {
            client,
            host,
            job: job.to_owned(),
            of,
            dropped: 0,
            had: false,
            gap: false,
            schema: arrow_schema::Schema::empty().into(),
            waiting: VecDeque::new(),
            cursor: None,
            left: wanted.limit,
            deadline,
            ended: false,
            over: false,
        };
        while !rows.ask()? {
            let status = status(&rows.client, &rows.job)?;
            if rows.ended {
                return Err(rows.ended_as(&status.state, status.cause.as_deref(), "before it has given rows"));
            }
            if rows.is_late() {
                let why = status.cause.map(|why| format!(" ({why})")).unwrap_or_default();
                return Err(Error::external(format!("the job has not begun to give rows: it is {}{why}", status.state)));
            }
        }
        Ok(rows)
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn ended_as(&self, state: &str, cause: Option<&str>, when: &str) -> Error {
        let how = match state {
            "FAILED" => "failed",
            "CANCELED" => "was cancelled",
            _ => "has ended",
        };
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        Error::new(ErrorCode::DATA, format!("the job {how} {when}{cause}"))
    }

    /// Asks once; false: the sink has not begun.
    fn ask(&mut self) -> Result<bool> {
        let wait = self.deadline.map_or(WAIT, |deadline| WAIT.min(deadline.saturating_duration_since(Instant::now())));
        let path = self.question(wait);
        let ((headers, bytes), repeated) = self.persist(|client| client.bytes(&path))?;
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        self.ended = text("standpipe-ended").is_some();
        // Rows of an answer that was lost are not given again.
        self.gap |= self.had && (repeated || text("standpipe-opened").is_some());
        self.dropped += text("standpipe-dropped").and_then(|dropped| dropped.parse::<u64>().ok()).unwrap_or(0);
        if bytes.is_empty() {
            return Ok(false);
        }
        let strange = |error: ArrowError| self.client.strange(&format!("gives rows that are none: {error}"));
        let reader = StreamReader::try_new(bytes.as_slice(), None).map_err(strange)?;
        let schema = reader.schema();
        let batches = reader.collect::<Result<Vec<_>, _>>().map_err(strange)?;
        self.schema = schema;
        self.waiting.extend(batches.into_iter().filter(|batch| batch.num_rows() > 0));
        if matches!(self.of, Of::Node { .. }) {
            self.had |= !self.waiting.is_empty();
            return Ok(true);
        }
        if text("standpipe-gap").is_some() && self.cursor.is_none() {
            self.host.warn("the first rows are missing: they were read before, and have made room for others", &[]);
        }
        let (next, place) =
            text("standpipe-next").zip(text("standpipe-place")).ok_or_else(|| self.client.strange("gives rows without a place"))?;
        self.cursor = Some(Cursor { next, place });
        Ok(true)
    }

    /// What is asked next.
    fn question(&self, wait: Duration) -> String {
        let (job, wait) = (&self.job, wait.as_millis());
        match &self.of {
            Of::Sink(name) => {
                let cursor = self.cursor.as_ref().map(|Cursor { next, place }| format!("&from={next}&place={place}")).unwrap_or_default();
                format!("/v1{job}/collect/{name}?wait={wait}{cursor}")
            }
            Of::Node { name, tap } => {
                let limit = self.left.map_or(MOST_ROWS, |left| left.clamp(1, MOST_ROWS));
                let last = self.left.is_some_and(|left| left <= MOST_ROWS);
                format!("/v1{job}/collect?node={name}&tap={tap}&limit={limit}&last={last}&timeout={wait}")
            }
        }
    }

    /// Says what was not had.
    fn tell(&self) {
        if self.gap {
            let why = "the job was started again, or the job manager did not answer for a while";
            self.host.warn(format!("rows are missing in between, and how many is not known: {why}"), &[]);
        }
        if self.dropped > 0 {
            self.host.warn(format!("{} rows have passed that are not here: they came faster than they were asked for", self.dropped), &[]);
        }
    }

    /// Asks again while nobody answers; not for ever. Says whether it was asked more than once.
    fn persist<T>(&self, ask: impl Fn(&Client) -> Result<T>) -> Result<(T, bool)> {
        let (begun, mut repeated) = (Instant::now(), false);
        loop {
            if self.host.cancelled() {
                return Err(Error::cancelled());
            }
            match ask(&self.client) {
                Err(error) if error.retryable && begun.elapsed() < PATIENCE && !self.is_late() => {
                    repeated = true;
                    thread::sleep(PAUSE);
                }
                answer => return answer.map(|answer| (answer, repeated)),
            }
        }
    }

    /// The next rows; none: there are no more.
    fn more(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.left == Some(0) {
                return Ok(None);
            }
            if let Some(batch) = self.waiting.pop_front() {
                let rows = self.left.map_or(batch.num_rows(), |left| batch.num_rows().min(usize::try_from(left).unwrap_or(usize::MAX)));
                self.left = self.left.map(|left| left - rows as u64);
                return Ok(Some(batch.slice(0, rows)));
            }
            if self.ended {
                let (status, _) = self.persist(|client| status(client, &self.job))?;
                let failed = status.state == "FAILED";
                return if failed { Err(self.ended_as(&status.state, status.cause.as_deref(), "behind these rows")) } else { Ok(None) };
            }
            if self.is_late() {
                return Ok(None);
            }
            self.ask()?;
        }
    }
}

/// The node that is meant; without a name, the only sink of the connector collect.
fn of(told: &Value, wanted: &str) -> Result<Of> {
    let vertices = told.get("vertices").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let paths: Vec<&str> = vertices.iter().filter_map(|vertex| vertex.get("name")?.as_str()).collect();
    let collects = vertices.iter().filter(|vertex| vertex.get("collects") == Some(&Value::Bool(true)));
    let sinks: Vec<&str> = collects.filter_map(|vertex| vertex.get("name")?.as_str()?.strip_prefix("sinks.")).collect();
    let sink = wanted.strip_prefix("sinks.").unwrap_or(wanted);
    match (wanted, sinks.as_slice()) {
        ("", [only]) => Ok(Of::Sink((*only).to_owned())),
        ("", []) => Err(Error::config(
            "",
            format!("the job has no sink of the connector collect: name the node whose rows are wanted: {}", paths.join(", ")),
        )),
        ("", sinks) => {
            Err(Error::config("", format!("the job has several sinks of the connector collect, name one: {}", sinks.join(", "))))
        }
        (_, sinks) if sinks.contains(&sink) => Ok(Of::Sink(sink.to_owned())),
        (name, _)
            if paths.iter().any(|path| is_meant(path, name))
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) =>
        {
            let random = || RandomState::new().hash_one(name);
            Ok(Of::Node { name: name.to_owned(), tap: format!("{:016x}{:016x}", random(), random()) })
        }
        (name, _) => Err(Error::config("", format!("the job has no node {name:?}: it has {}", paths.join(", ")))),
    }
}

/// By its path or its name, with that of an output behind it or without.
fn is_meant(path: &str, name: &str) -> bool {
    let own = path.split_once('.').map_or(path, |(_, name)| name);
    [path, own].iter().any(|of| name.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

impl Iterator for Rows {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let more = self.more();
        self.over = !matches!(more, Ok(Some(_)));
        if self.over {
            self.tell();
        }
        more.map_err(|error| ArrowError::ExternalError(error.message.into())).transpose()
    }
}

impl RecordBatchReader for Rows {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}
