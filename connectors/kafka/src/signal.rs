//! A flag that one thread waits for and others raise: a reader sleeps until librdkafka says that something has come. A flag raised before the wait ends it at once.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// The flag, down at first.
#[derive(Default)]
pub struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// Raises it.
    pub fn raise(&self) {
        *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Waits until it is raised, `limit` at most, and lowers it.
    pub fn wait(&self, limit: Duration) {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = self.changed.wait_timeout_while(raised, limit, |raised| !*raised);
        *waiting.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}
