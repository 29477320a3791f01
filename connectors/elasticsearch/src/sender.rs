//! The thread that owns the connections: hands items to lanes, decides which lane sends when, reads answers, pauses and repeats. It holds no lock while it waits, and
//! it ends when `sink` drops its end of the channel; what is under way then is given up, for it was not acknowledged.

use crate::{
    bulk::Encoded,
    client::{Client, Reply},
    config::Config,
    lane::{Chunk, Lane, Limit, Outcome, Place, Request},
    operation::Operation,
    pressure::{Backoff, Pace, Pressure},
    progress::{Permit, Progress, Shared, refusal, trouble},
    response::{self, Answer, Fault, Ours, TIMEOUT},
};
use serde_json::Value;
use standpipe_sdk::{Error, ErrorCode, Rejection};
use std::{sync::Arc, time::Duration};
use tokio::{
    runtime::Runtime,
    sync::mpsc::UnboundedReceiver,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// Requests in a row with trouble after which the sink says that it is degraded; a single one is nobody's business.
const DEGRADED_AFTER: u32 = 3;
/// How long the end of the thread may take: a name that is being looked up cannot be interrupted.
const SHUTDOWN: Duration = Duration::from_millis(500);

/// What the host's thread says.
pub(crate) enum Message {
    /// Batches come in the order of their sequence numbers.
    Batch { seq: u64, rows: usize, encoded: Encoded, permits: Vec<Permit> },
    /// Send everything now.
    Flush,
}

/// A request under way.
struct Sent {
    lane: usize,
    node: usize,
    request: Request,
    since: Instant,
    /// See [`Sender::renewals`].
    renewals: u32,
}

/// The state of the thread.
pub(crate) struct Sender {
    client: Client,
    /// How often the credentials have changed.
    renewals: u32,
    lanes: Vec<Lane>,
    requests: JoinSet<(Sent, Reply)>,
    pressure: Pressure,
    pace: Pace,
    /// An answer that takes longer is a slow one.
    slow_after: Duration,
    backoff: Backoff,
    progress: Progress,
    shared: Arc<Shared>,
    limit: Limit,
    ours: Ours,
    /// The lane whose turn it is.
    turn: usize,
    hurry: bool,
    is_degraded: bool,
    /// A document was taken: what is refused from now on may be a matter of time.
    has_taken: bool,
}

impl Sender {
    pub(crate) fn new(client: Client, config: &Config, ours: Ours, operation: Operation, shared: Arc<Shared>) -> Self {
        let one_per_id = ours.ids && operation.is_cumulative();
        let limit = Limit { docs: config.batch.max_docs, bytes: config.batch.max_bytes.0, age: config.batch.max_age.0 };
        Self {
            client,
            renewals: 0,
            lanes: (0..config.in_flight).map(|_| Lane::new(one_per_id)).collect(),
            requests: JoinSet::new(),
            pressure: Pressure::new(config.in_flight, config.batch.max_docs),
            pace: Pace::new(config.requests_per_second),
            slow_after: config.slow_after.0,
            backoff: Backoff::new(config.retry.clone()),
            progress: Progress::new(Arc::clone(&shared), config.on_reject),
            shared,
            limit,
            ours,
            turn: 0,
            hurry: false,
            is_degraded: false,
            has_taken: false,
        }
    }

    /// The job goes on from a checkpoint: documents have been taken before.
    pub(crate) const fn goes_on(&mut self) {
        self.has_taken = true;
    }

    /// Runs until the channel is closed. A panic becomes a failure of the job.
    pub(crate) fn run(self, runtime: Runtime, inbox: UnboundedReceiver<Message>) {
        struct Guard(Arc<Shared>);
        impl Drop for Guard {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.fail(Error::new(ErrorCode::PANIC, "the thread that sends to Elasticsearch panicked"));
                }
            }
        }
        let _guard = Guard(Arc::clone(&self.shared));
        runtime.block_on(self.serve(inbox));
        runtime.shutdown_timeout(SHUTDOWN);
    }

    async fn serve(mut self, mut inbox: UnboundedReceiver<Message>) {
        while !self.progress.has_failed() {
            let due = self.dispatch();
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                Some(done) = self.requests.join_next() => match done {
                    Ok((sent, reply)) => self.answered(sent, reply),
                    Err(error) => self.shared.fail(error.into()),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Flush => self.hurry = true,
            Message::Batch { seq, rows, encoded, permits } => {
                let arrived = Instant::now();
                self.progress.begin(seq, rows, encoded.fallbacks);
                if encoded.ignored > 0 {
                    self.progress.ok(seq, encoded.ignored);
                }
                self.progress.rejected(seq, &encoded.rejected);
                for ((lane, items), permit) in self.lanes.iter_mut().zip(encoded.lanes).zip(permits) {
                    lane.push(Chunk { seq, items, arrived, _permit: permit });
                }
                self.progress.settle();
            }
        }
    }

    /// Sends what may be sent now; says when there may be more.
    fn dispatch(&mut self) -> Option<Instant> {
        if self.hurry && self.lanes.iter().all(Lane::is_empty) {
            self.hurry = false;
        }
        let (now, count) = (Instant::now(), self.lanes.len());
        let limit = Limit { docs: self.pressure.docs(), ..self.limit };
        let mut next: Option<Instant> = None;
        for step in 0..count {
            let number = (self.turn + step) % count;
            let Some(due) = self.lanes[number].due(limit, self.hurry) else { continue };
            let due = due.max(self.pace.next());
            if due > now {
                next = Some(next.map_or(due, |next| next.min(due)));
            } else if self.requests.len() < self.pressure.requests() {
                self.send(number, limit, now);
                self.turn = (number + 1) % count;
            }
        }
        next
    }

    fn send(&mut self, number: usize, limit: Limit, now: Instant) {
        let node = self.client.pick(now.into_std());
        let request = self.lanes[number].take(limit);
        self.progress.sent(request.body.len());
        self.pace.sent(now);
        let reply = self.client.bulk(node, request.body.clone());
        let sent = Sent { lane: number, node, request, since: now, renewals: self.renewals };
        self.requests.spawn(async move { (sent, reply.await) });
    }

    fn answered(&mut self, sent: Sent, reply: Reply) {
        let is_slow = sent.since.elapsed() >= self.slow_after || reply.as_ref().is_err_and(|fault| fault.kind == TIMEOUT);
        let docs = sent.request.docs;
        self.judge(sent, reply);
        if is_slow {
            self.pressure.tighten(docs, docs);
        }
        self.progress.allowed(&self.pressure);
        self.progress.settle();
        self.shared.answered();
    }

    /// What an answer, or none, means for a request.
    fn judge(&mut self, sent: Sent, reply: Reply) {
        let Sent { lane: number, node, request, renewals, .. } = sent;
        // Others may have come while it was on its way.
        let had_old_credentials = renewals < self.renewals;
        let (docs, now) = (request.docs, Instant::now());
        let (status, body) = match reply {
            Ok(reply) => reply,
            Err(fault) => {
                let pause = self.again(number, request, &fault, node);
                if self.client.leave_out(node, now.into_std(), pause) {
                    self.lanes[number].paused_until = None;
                }
                return;
            }
        };
        self.client.bring_back(node);
        match response::read(status, &body, docs, self.ours) {
            Answer::Items(fates) => {
                // With versions the server knows which write is the later one, and it need not be the later item.
                let last_wins = self.ours.ids && !self.ours.versions;
                let outcome = self.lanes[number].settle(request, fates, self.limit.docs, last_wins);
                self.sorted(number, docs, outcome, node, had_old_credentials);
            }
            Answer::Busy(fault) => {
                self.pressure.tighten(docs, docs);
                self.again(number, request, &fault, node);
            }
            Answer::Foreign(fault) => self.give_up(&fault, node),
            Answer::Denied(_) if had_old_credentials || self.has_new_credentials() => {
                self.progress.retried(docs);
                self.lanes[number].put_back(request);
                self.wait(number);
            }
            Answer::Denied(fault) | Answer::Garbled(fault) if !self.has_taken => self.give_up(&fault, node),
            Answer::Denied(fault) | Answer::Garbled(fault) | Answer::Failed(fault) => {
                self.again(number, request, &fault, node);
            }
            Answer::Unreadable(fault) => {
                self.lanes[number].attempt = 0;
                if let Some(place) = self.lanes[number].halve(request) {
                    self.reject(&[(place, Box::new(fault))]);
                }
            }
        }
    }

    /// The items of an answered request have been sorted out.
    fn sorted(&mut self, number: usize, docs: usize, outcome: Outcome, node: usize, had_old_credentials: bool) {
        match outcome.busy {
            0 => self.pressure.relax(),
            busy => self.pressure.tighten(busy, docs),
        }
        for (seq, rows) in &outcome.ok {
            self.progress.ok(*seq, *rows);
        }
        self.has_taken |= !outcome.ok.is_empty();
        self.reject(&outcome.rejected);
        self.progress.retried(outcome.retried);
        let lane = &mut self.lanes[number];
        lane.attempt = match outcome.retried {
            0 => 0,
            all if all == docs => lane.attempt + 1,
            _ => 1,
        };
        match outcome.cause {
            Some(cause) if cause.is_security() && (had_old_credentials || self.has_new_credentials()) => self.wait(number),
            Some(cause) if cause.is_denied() && !self.has_taken => self.give_up(&cause, node),
            Some(cause) => self.pause(number, &cause, node),
            None => {
                self.lanes[number].troubled = 0;
                self.recover();
            }
        }
    }

    /// The credentials are refused: whether there are others by now. They are fetched once per refused request, which the pauses keep rare.
    fn has_new_credentials(&mut self) -> bool {
        match self.client.renew(&self.shared.host) {
            Ok(true) => {
                self.renewals += 1;
                self.shared.host.info("the credentials have changed; trying the new ones", &[]);
                true
            }
            Ok(false) => false,
            Err(error) => {
                self.shared.host.warn(format!("the credentials are refused and cannot be read again: {}", error.message), &[]);
                false
            }
        }
    }

    /// The request as a whole is to be sent again.
    fn again(&mut self, number: usize, request: Request, fault: &Fault, node: usize) -> Duration {
        self.progress.retried(request.docs);
        self.lanes[number].put_back(request);
        self.lanes[number].attempt += 1;
        self.pause(number, fault, node);
        let until = self.lanes[number].paused_until;
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Also where new credentials are tried: they might be others each time.
    fn wait(&mut self, number: usize) {
        let lane = &mut self.lanes[number];
        lane.attempt = lane.attempt.max(1);
        lane.paused_until = Some(Instant::now() + self.backoff.pause(lane.attempt));
    }

    fn pause(&mut self, number: usize, cause: &Fault, node: usize) {
        self.wait(number);
        let lane = &mut self.lanes[number];
        if cause.is_busy() {
            return;
        }
        lane.troubled += 1;
        if !self.is_degraded && !cause.is_denied() && lane.troubled < DEGRADED_AFTER {
            return;
        }
        let trouble = trouble(self.client.url(node), cause);
        if !std::mem::replace(&mut self.is_degraded, true) {
            let message = format!("{}; nothing is lost, they are sent again", trouble.message);
            self.shared.host.warn(message, &[("status", cause.status.into()), ("type", cause.kind.as_str().into())]);
        }
        self.progress.set_trouble(Some(trouble));
    }

    /// There is nothing to wait for: the job ends.
    fn give_up(&self, cause: &Fault, node: usize) {
        self.shared.fail(refusal(self.client.url(node), cause));
    }

    fn recover(&mut self) {
        if self.is_degraded && self.lanes.iter().all(|lane| lane.troubled == 0) {
            self.is_degraded = false;
            self.shared.host.info("documents are taken again", &[]);
            self.progress.set_trouble(None);
        }
    }

    /// Reports items that are refused for good.
    fn reject(&mut self, refused: &[(Place, Box<Fault>)]) {
        for group in refused.chunk_by(|a, b| a.0.chunk.seq == b.0.chunk.seq) {
            let rejections: Vec<Rejection> = group.iter().map(|(place, fault)| rejection(place, fault)).collect();
            if let Some((place, _)) = group.first() {
                self.progress.rejected(place.chunk.seq, &rejections);
            }
        }
    }
}

/// A rejection with the index and id that the action line names.
fn rejection(place: &Place, fault: &Fault) -> Rejection {
    let target = place.chunk.target(place.item);
    // The line's end, from its index on: an object without its first brace, and one brace more.
    let object = [b"{", target.strip_suffix(b"}").unwrap_or(target)].concat();
    let target: Value = serde_json::from_slice(&object).unwrap_or_default();
    let text = |key: &str| target.get(key).and_then(Value::as_str);
    fault.rejection(place.chunk.row(place.item), text("_index"), text("_id"))
}
