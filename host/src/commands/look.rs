//! `job collect JOB --node NODE`: rows of a node of a job of this machine, as they pass, by the job's control socket.

use super::collect;
use crate::{
    cli::JobCollectArguments,
    control::{
        Answer, Look, Request,
        client::{self, Job},
    },
    exit::{Code, Failure},
    output::say,
    signals::Listener,
};
use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_ipc::reader::StreamReader;
use base64::{Engine, prelude::BASE64_STANDARD};
use datafusion::arrow::{datatypes::SchemaRef, error::ArrowError};
use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

/// How long a process of the job waits for rows before it says that there are none.
const WAIT: Duration = Duration::from_millis(500);
/// A process that has not answered long after that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Rows of an answer at the most.
const MOST_ROWS: u64 = 100_000;
/// Before a job at whose rows too many look is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// Prints the rows.
pub(super) fn collect(job: &Job, arguments: &JobCollectArguments) -> anyhow::Result<()> {
    collect::check(&arguments.rows)?;
    let Some(node) = &arguments.node else {
        let known: Vec<&str> = job.status.nodes.iter().map(|node| node.node.as_str()).collect();
        let message = format!("say which rows with --node NAME: {} has {}", job.status.job, known.join(", "));
        return Err(Failure::error(Code::Usage, message));
    };
    let cancelled = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&cancelled);
    let _signals = Listener::start("the job itself goes on", move || ends.store(true, SeqCst))?;
    let (limit, timeout) = (arguments.rows.limit, arguments.rows.timeout);
    let mut rows = Rows {
        socket: job.socket.clone(),
        tap: standpipe_engine::RunOptions::new().job_id,
        node: node.clone(),
        schema: None,
        waiting: VecDeque::new(),
        left: limit,
        deadline: timeout.map(|timeout| Instant::now() + timeout),
        dropped: 0,
        gap: false,
        ended: false,
        end: wait_for_end(&job.socket)?,
        cancelled: Arc::clone(&cancelled),
    };
    let bounded = rows.begin().map_err(|why| Failure::error(Code::Failed, format!("{}: {why}", job.status.job)))?;
    if !bounded && limit.is_none() && timeout.is_none() {
        let message =
            "the job does not end by itself: say how many rows are wanted at the most (--limit), or how long to wait for them (--timeout)";
        return Err(Failure::error(Code::Usage, message));
    }
    let written = collect::write(Box::new(&mut rows), &arguments.rows, || cancelled.load(SeqCst));
    rows.close();
    if rows.gap {
        say!("warning: rows are missing in between, and how many is not known: the job was started again, or was not asked for a while");
    }
    if rows.dropped > 0 {
        say!("warning: {} rows have passed that are not shown: they came faster than they were asked for", rows.dropped);
    }
    written
}

/// Waits for the job's end from now on: when it has ended there is nobody to ask.
fn wait_for_end(socket: &Path) -> io::Result<Receiver<Answer>> {
    let (tell, end) = mpsc::channel();
    // A job that is gone already has no rows either.
    if let Ok(asked) = client::begin(socket, &Request::End, None) {
        // It ends with this process, if not before.
        thread::Builder::new().name("end".to_owned()).spawn(move || {
            drop(client::hear(asked, |answer| drop(tell.send(answer))));
        })?;
    }
    Ok(end)
}

/// Rows as they pass.
struct Rows {
    socket: PathBuf,
    tap: String,
    node: String,
    schema: Option<SchemaRef>,
    waiting: VecDeque<RecordBatch>,
    left: Option<u64>,
    deadline: Option<Instant>,
    dropped: u64,
    /// Rows are missing between those that were had.
    gap: bool,
    ended: bool,
    end: Receiver<Answer>,
    cancelled: Arc<AtomicBool>,
}

impl Rows {
    /// Looks until the columns are known; gives whether the job ends by itself.
    fn begin(&mut self) -> Result<bool, String> {
        let mut wait = Duration::ZERO;
        loop {
            let bounded = self.look(std::mem::replace(&mut wait, WAIT))?;
            if self.schema.is_some() {
                return Ok(bounded);
            }
            if self.ended {
                self.how_it_ended("before it has given rows")?;
            }
            if self.is_over() {
                return Err("it has given no rows".to_owned());
            }
        }
    }

    fn is_over(&self) -> bool {
        self.ended || self.cancelled.load(SeqCst) || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Looks once; gives whether the job ends by itself.
    fn look(&mut self, wait: Duration) -> Result<bool, String> {
        let answers = self.ask(&self.question(self.left.map_or(MOST_ROWS, |left| left.min(MOST_ROWS)), wait))?;
        let (had, is_one_of_several) = (self.schema.is_some(), answers.len() > 1);
        // One that is not there any more has ended.
        self.ended = true;
        let mut bounded = false;
        for answer in answers {
            match answer {
                Answer::Rows(rows) => {
                    self.ended &= rows.ended;
                    self.dropped += rows.dropped;
                    self.gap |= rows.opened && had;
                    bounded |= rows.bounded;
                    self.take(&rows.stream).map_err(|error| format!("its rows are not understood: {error}"))?;
                }
                Answer::Busy(_) if is_one_of_several => self.ended = false,
                Answer::Refused(why) | Answer::Busy(why) => return Err(why),
                _ => return Err("it does not show rows".to_owned()),
            }
        }
        Ok(bounded)
    }

    fn question(&self, rows: u64, wait: Duration) -> Look {
        Look { tap: self.tap.clone(), node: self.node.clone(), rows, newest: false, wait: wait.as_millis() as u64 }
    }

    /// All that the job's processes answer, which waits for others who look; nothing: the job has ended.
    fn ask(&self, look: &Look) -> Result<Vec<Answer>, String> {
        let begun = Instant::now();
        loop {
            let answers = ask(&self.socket, look)?;
            let is_busy = matches!(answers[..], [Answer::Busy(_)]);
            if !is_busy || begun.elapsed() >= PATIENCE || self.is_over() {
                return Ok(answers);
            }
            thread::sleep(PAUSE);
        }
    }

    /// Nothing more is wanted: the job does not wait for who looks.
    fn close(&self) {
        if !self.ended {
            drop(ask(&self.socket, &self.question(0, Duration::ZERO)));
        }
    }

    /// That it has failed is said behind its rows.
    fn how_it_ended(&self, when: &str) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            match self.end.recv_timeout(PAUSE) {
                Ok(Answer::Failed(why)) => return Err(format!("the job failed {when}: {why}")),
                Ok(Answer::Ended(_)) => return Ok(()),
                Err(RecvTimeoutError::Timeout) if self.cancelled.load(SeqCst) => return Ok(()),
                Err(RecvTimeoutError::Timeout) if begun.elapsed() < PATIENCE => {}
                Ok(Answer::Busy(_)) | Err(RecvTimeoutError::Timeout) => {
                    say!("warning: how the job has ended is not known");
                    return Ok(());
                }
                Ok(_) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("the job's process is gone {when}, and has not said why"));
                }
            }
        }
    }

    fn take(&mut self, stream: &str) -> Result<(), ArrowError> {
        if stream.is_empty() {
            return Ok(());
        }
        let bytes = BASE64_STANDARD.decode(stream).map_err(|error| ArrowError::IpcError(error.to_string()))?;
        let reader = StreamReader::try_new(bytes.as_slice(), None)?;
        self.schema = Some(reader.schema());
        for batch in reader {
            self.waiting.push_back(batch?);
        }
        Ok(())
    }

    /// The next rows; none: there are no more.
    fn more(&mut self) -> Result<Option<RecordBatch>, String> {
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
                return self.how_it_ended("behind these rows").map(|()| None);
            }
            if self.is_over() {
                return Ok(None);
            }
            let left = self.deadline.map_or(WAIT, |deadline| deadline.saturating_duration_since(Instant::now()));
            self.look(left.min(WAIT))?;
        }
    }
}

/// What comes within the patience of one question.
fn ask(socket: &Path, look: &Look) -> Result<Vec<Answer>, String> {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    let mut answers = Vec::new();
    match client::look(socket, look, PATIENCE, |answer| answers.push(answer)) {
        Ok(()) => Ok(answers),
        // Its process ends in this moment.
        Err(error) if client::is_not_there(&error) || matches!(error.kind(), ConnectionReset | BrokenPipe | UnexpectedEof) => Ok(answers),
        Err(error) if matches!(error.kind(), WouldBlock | TimedOut) => {
            Err(format!("its process has not answered for {} s: it stands still", PATIENCE.as_secs()))
        }
        Err(error) => Err(error.to_string()),
    }
}

impl Iterator for &mut Rows {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.more().map_err(|why| ArrowError::ExternalError(why.into())).transpose()
    }
}

impl RecordBatchReader for &mut Rows {
    fn schema(&self) -> SchemaRef {
        self.schema.clone().unwrap_or_else(|| Arc::new(datafusion::arrow::datatypes::Schema::empty()))
    }
}
