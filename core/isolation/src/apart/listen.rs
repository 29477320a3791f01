//! The thread that hears what a plugin's process tells besides its answers: logs, metrics, acknowledgements, ends of calls, its standard error, its memory, its death. It lives as
//! long as the process.

use super::{death::Killed, process::Shared};
use crate::{
    batch,
    wire::{Received, Wire, WireError, wait},
    words::{Back, News},
};
use arrow_schema::SchemaRef;
use rustix::{
    event::PollFlags,
    fs::{OFlags, fcntl_setfl},
};
use serde_json::json;
use standpipe_loader::{Emitted, Ended, Error, ErrorCode, LogLevel, MetricKind, PluginError, Rejected};
use std::{
    collections::HashMap,
    io::Read,
    os::fd::AsFd,
    process::ChildStderr,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

/// How often the memory of a process with a limit is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// A line on standard error is told when it is so long, complete or not.
const LINE: usize = 8 << 10;

/// What was heard, for the thread of the instance.
#[derive(Default)]
pub(super) struct Heard {
    /// News so far.
    pub(super) count: u64,
    /// Nothing more comes.
    pub(super) is_over: bool,
    /// The columns of a transform's outputs; set before its first batch comes.
    pub(super) outputs: Vec<SchemaRef>,
    /// Calls that have ended and were not asked for.
    pub(super) ended: Vec<Ended>,
}

/// Hears until the process is gone.
pub(super) fn listen(shared: &Arc<Shared>, mut news: Wire, stderr: ChildStderr, memory: Option<u64>) {
    let mut ears = Ears { shared, metrics: HashMap::new(), stderr: Some(stderr), line: Vec::new() };
    let at_most = memory.map(|_| LOOK);
    loop {
        let socket = Arc::clone(news.socket());
        let mut what = [(shared.death.signal(), PollFlags::IN), (socket.as_fd(), PollFlags::IN), (socket.as_fd(), PollFlags::empty())];
        if let Some(stderr) = &ears.stderr {
            what[2] = (stderr.as_fd(), PollFlags::IN);
        }
        let Ok([ended, told, printed]) = wait(&what, at_most) else { break };
        if let Some(bytes) = shared.death.too_much() {
            shared.death.kill(Killed::Memory(bytes));
        }
        if printed {
            ears.hear_stderr();
        }
        // A socket that is closed is followed by the end.
        if told && ears.hear_news(&mut news).is_err() {
            shared.death.wait(LEAVE);
            shared.death.kill(Killed::Unused);
        }
        if ended || shared.death.is_over() {
            break;
        }
    }
    shared.death.kill(Killed::Unused);
    ears.hear_the_rest(&mut news);
    let was_expected = shared.is_ending.load(SeqCst);
    {
        let mut heard = shared.heard();
        heard.is_over = true;
        shared.changed.notify_all();
    }
    if !was_expected {
        shared.host.lost(shared.lost());
    }
}

/// How long a process has to end when it has closed its socket.
const LEAVE: Duration = Duration::from_millis(500);

struct Ears<'a> {
    shared: &'a Arc<Shared>,
    /// The host's numbers by the process' own.
    metrics: HashMap<u64, u64>,
    /// Until it is closed.
    stderr: Option<ChildStderr>,
    /// What is no whole line yet.
    line: Vec<u8>,
}

impl Ears<'_> {
    /// What was still on its way. Whoever has inherited the ends may hold them open: nobody waits.
    fn hear_the_rest(&mut self, news: &mut Wire) {
        drop(self.hear_news(news));
        if let Some(stderr) = &self.stderr {
            _ = fcntl_setfl(stderr, OFlags::NONBLOCK);
            while self.hear_stderr() {}
        }
        self.tell_line();
    }

    /// Reads standard error and tells its lines. False: there was nothing.
    fn hear_stderr(&mut self) -> bool {
        let Some(stderr) = &mut self.stderr else { return false };
        let mut buffer = [0; 4096];
        let read = match stderr.read(&mut buffer) {
            Ok(0) => {
                self.stderr = None;
                return false;
            }
            Ok(read) => read,
            Err(_) => return false,
        };
        for byte in &buffer[..read] {
            if *byte == b'\n' || self.line.len() >= LINE {
                self.tell_line();
            }
            if *byte != b'\n' {
                self.line.push(*byte);
            }
        }
        true
    }

    fn tell_line(&mut self) {
        if self.line.is_empty() {
            return;
        }
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        self.shared.death.said(&line);
        self.shared.host.log(LogLevel::Warn, &json!({"message": line, "stream": "stderr"}).to_string());
    }

    fn hear_news(&mut self, news: &mut Wire) -> Result<(), WireError> {
        while let Some(Received { envelope, inline }) = news.try_receive::<News>()? {
            self.shared.mapped().forget(&envelope.gone);
            self.hear(envelope.message, &inline, news)?;
            self.shared.heard().count += 1;
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    fn hear(&mut self, told: News, inline: &[u8], wire: &mut Wire) -> Result<(), WireError> {
        let shared = self.shared;
        let host = &shared.host;
        match told {
            News::Log { level, json } => host.log(LogLevel::from_abi(level), &json),
            News::Metric { id, name, kind, labels } => {
                if let Some(kind) = MetricKind::from_abi(kind) {
                    self.metrics.insert(id, host.register_metric(&name, kind, &labels));
                }
            }
            News::Metrics(values) => {
                for (id, value) in values {
                    if let Some(id) = self.metrics.get(&id) {
                        host.update_metric(*id, value);
                    }
                }
            }
            News::Wake => host.wake(),
            // It waits for its answer on a thread of its own.
            News::Secret { id, reference } => self.shared.say(Back::Secret { id, value: host.secret(&reference) })?,
            News::Ack(up_to) => host.ack(up_to),
            News::Reject { seq, rejections } => {
                let rejected = |(row, reason, details)| Rejected { row, reason, details };
                host.reject(seq, rejections.into_iter().map(rejected).collect());
            }
            News::Ended { token, result } => {
                let result = match result {
                    Ok(given) => self.given(&given, inline, wire),
                    Err(failure) => Err(self.shared.failure(failure.into())),
                };
                self.shared.heard().ended.push(Ended { token, result });
                host.completed();
            }
        }
        Ok(())
    }

    fn given(&self, given: &[(u32, batch::Packed)], inline: &[u8], wire: &mut Wire) -> Result<Vec<Emitted>, PluginError> {
        let outputs = self.shared.heard().outputs.clone();
        let mut batch = |(output, packed): &(u32, batch::Packed)| -> Result<Emitted, Error> {
            let schema =
                outputs.get(*output as usize).ok_or_else(|| Error::new(ErrorCode::OUT_OF_RANGE, format!("there is no output {output}")))?;
            let batch = batch::unpack(packed, schema, inline, &mut wire.files, &mut self.shared.mapped())?;
            Ok(Emitted { output: *output, batch })
        };
        given.iter().map(&mut batch).collect::<Result<_, Error>>().map_err(|error| self.shared.failure(error))
    }
}
