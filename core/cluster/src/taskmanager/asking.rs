//! What the manager asks: of a worker, of its log, of the rows that its sinks have collected, of those that pass its nodes. Each question once, on a thread of its own; its answer goes with the next beat.

use super::{
    Event, TaskManager, collect, folders,
    worker::{self, Worker},
};
use crate::protocol::{Answered, COLLECT, LOG, Request, TAP, is_id};
use serde_json::Value;
use std::{sync::Arc, thread, time::Instant};

/// Of a log, for a user.
const LOG_BYTES: u64 = 256 << 10;

impl TaskManager {
    /// Asks a worker, on a thread of its own.
    pub(super) fn pass_on(&mut self, request: &Request) {
        if self.asked.contains_key(&request.id) {
            return;
        }
        self.asked.insert(request.id.clone(), None);
        let what = request.ask.get("do").and_then(Value::as_str);
        let (is_of_log, is_of_rows, is_of_tap) = (what == Some(LOG), what == Some(COLLECT), what == Some(TAP));
        let refused = |why: &str| Answered { id: request.id.clone(), answers: Err(why.to_owned()) };
        if !is_id(&request.attempt.job) {
            return self.answer(refused("there is no such job"));
        }
        let over = self.workers.get(&request.attempt).map(Worker::over);
        if !is_of_log && !is_of_rows && over.is_none() {
            return self.answer(refused("the job's process is not there"));
        }
        let (own, events, client) = (request.clone(), self.events.clone(), Arc::clone(&self.client));
        let socket = worker::control_socket(&self.sockets, &request.attempt.job);
        let log = self.options.data.join(folders::JOBS).join(&request.attempt.job).with_extension("log");
        let rows = collect::folder(&self.options.data.join(folders::JOBS).join(&request.attempt.job));
        let ask = move || {
            let answers = if is_of_rows {
                client.collect(&own, &rows)
            } else if is_of_log {
                worker::tail(&log, 0, LOG_BYTES).map(|text| vec![text.into()]).map_err(|error| format!("its log cannot be read: {error}"))
            } else if is_of_tap {
                client.tap(&own, &socket)
            } else {
                worker::ask_when_it_listens(&socket, &own.ask, &over.unwrap_or_default())
                    .map_err(|error| format!("the job's process does not answer: {error}"))
            };
            drop(events.send(Event::Answered(Answered { id: own.id, answers })));
        };
        if let Err(error) = thread::Builder::new().name("ask".to_owned()).spawn(ask) {
            self.answer(refused(&format!("it cannot be passed on: {error}")));
        }
    }

    pub(super) fn answer(&mut self, answered: Answered) {
        self.asked.insert(answered.id.clone(), Some(Instant::now()));
        self.answers.push(answered);
    }
}
