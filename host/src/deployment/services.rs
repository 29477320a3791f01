//! What a deployment mode may ask of this process.

use crate::{output::say, secrets};
use serde_json::Value;
use standpipe_loader::{HostServices, LogLevel, MetricKind};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// The services of one instance.
#[derive(Default)]
pub(crate) struct Services {
    cancelled: Arc<AtomicBool>,
}

impl Services {
    /// Whether the user has had enough.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(SeqCst)
    }

    /// Asks calls that block to return, once it is called.
    pub(crate) fn canceller(&self) -> impl FnOnce() + Send + 'static {
        let cancelled = Arc::clone(&self.cancelled);
        move || cancelled.store(true, SeqCst)
    }
}

impl HostServices for Services {
    /// What a mode has to say is for the user, without ceremony.
    fn log(&self, level: LogLevel, json: &str) {
        let line: Value = serde_json::from_str(json).unwrap_or_else(|_| json.into());
        let message = line.get("message").and_then(Value::as_str).unwrap_or(json);
        let message = secrets::hidden(message);
        match level {
            LogLevel::Error => say!("error: {message}"),
            LogLevel::Warn => say!("warning: {message}"),
            LogLevel::Info => say!("{message}"),
            LogLevel::Debug => tracing::debug!("{message}"),
            LogLevel::Trace => tracing::trace!("{message}"),
        }
    }

    fn register_metric(&self, _: &str, _: MetricKind, _: &str) -> u64 {
        u64::MAX
    }

    fn update_metric(&self, _: u64, _: f64) {}

    fn cancelled(&self) -> bool {
        self.cancelled.load(SeqCst)
    }

    fn wake(&self) {}

    /// References have been replaced where the settings were read.
    fn secret(&self, reference: &str) -> Result<(String, u64), String> {
        Err(format!("{reference} is no reference here"))
    }

    fn now(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}
