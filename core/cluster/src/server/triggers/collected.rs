//! Rows that users have asked for: a request to a task manager, and what it has sent apart from its beats, which are to stay small.

use super::{Trigger, Triggers};
use crate::{
    manager::Millis,
    protocol::{Attempt, COLLECT, TaskManagerId},
};
use axum::body::Bytes;
use serde_json::json;

/// Some rows of a sink.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collected {
    /// The number of the next batch; 0: the sink has not begun.
    pub(crate) next: u64,
    /// Rows before these are gone.
    pub(crate) gap: bool,
    /// An Arrow IPC stream; empty: the sink has not begun.
    pub(crate) bytes: Bytes,
}

impl Triggers {
    /// Asks a task manager for rows.
    pub(crate) fn ask_for_rows(
        &mut self,
        id: String,
        attempt: Attempt,
        of: TaskManagerId,
        (node, from, wait): (&str, u64, u64),
        now: Millis,
    ) {
        let ask = json!({"do": COLLECT, "node": node, "from": from, "wait": wait});
        self.insert(id, Trigger { attempt, of: Some(of), asked: now, ask, answer: None });
    }

    /// They have come; false: nobody waits for them.
    pub(crate) fn collected(&mut self, id: &str, collected: Collected) -> bool {
        let Some(trigger) = self.0.get_mut(id).filter(|trigger| trigger.ask["do"] == COLLECT) else { return false };
        trigger.answer = Some(Ok(Vec::new()));
        self.1.insert(id.to_owned(), collected);
        true
    }

    /// What has come, once; none: nothing yet.
    pub(crate) fn take_rows(&mut self, id: &str) -> Option<Result<Collected, String>> {
        let answer = self.take(id)?;
        let missing = || "its task manager has sent nothing".to_owned();
        Some(self.1.remove(id).ok_or_else(|| answer.err().unwrap_or_else(missing)))
    }

    /// Nobody waits any more.
    pub(crate) fn give_up_rows(&mut self, id: &str) {
        self.give_up(id);
        self.1.remove(id);
    }
}
