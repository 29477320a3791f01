//! A check: a name, what a host relies on, and how it is tried. Each is tried on a thread of its own, where it makes its instances, as a host would: one that does not come
//! back is a finding, and the thread is left behind.

use crate::report::{Finding, Verdict};
use standpipe_sdk::{ErrorCode, hosting::PluginError};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

/// One check of a kind whose checks look at a `C`.
pub(crate) struct Check<C> {
    /// Kebab-case; stable.
    pub(crate) name: &'static str,
    /// What a host relies on.
    pub(crate) about: &'static str,
    pub(crate) run: fn(&C) -> Outcome,
}

/// What was tried, where it went well.
pub(crate) type Outcome = Result<String, Stop>;

/// Why a check ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The plugin does not do what it should.
    Fail {
        /// One line.
        message: String,
        /// More lines.
        details: Vec<String>,
    },
    /// It cannot be tried.
    Skip(String),
}

impl Stop {
    pub(crate) fn fail(message: impl Into<String>) -> Self {
        Self::Fail { message: message.into(), details: Vec::new() }
    }

    pub(crate) fn skip(why: impl Into<String>) -> Self {
        Self::Skip(why.into())
    }

    /// With what was under way before the message.
    pub(crate) fn during(self, what: &str) -> Self {
        match self {
            Self::Fail { message, details } => Self::Fail { message: format!("{what}: {message}"), details },
            skip => skip,
        }
    }
}

impl From<PluginError> for Stop {
    fn from(error: PluginError) -> Self {
        let location = error.details.get("backtrace").and_then(serde_json::Value::as_str);
        Self::Fail { message: error.to_string(), details: location.into_iter().flat_map(str::lines).map(str::to_owned).collect() }
    }
}

/// An answer to something that makes no sense may be an error, or none; it is never a panic, nor what breaks the contract.
pub(crate) fn refused_or_taken<T>(what: &str, answer: Result<T, PluginError>) -> Result<Option<T>, Stop> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.code == ErrorCode::PANIC || error.message.starts_with("breaks the plugin contract") => {
            Err(Stop::from(error).during(what))
        }
        Err(_) => Ok(None),
    }
}

/// Whether the plugin says that it does not have this.
pub(crate) fn is_unsupported(error: &PluginError) -> bool {
    error.code == ErrorCode::UNSUPPORTED
}

/// Tries a check, for as long as it may take.
pub(crate) fn try_check<C: Send + Sync + 'static>(check: &Check<C>, case: &Arc<C>, patience: Duration) -> Finding {
    let (name, run, case) = (check.name, check.run, Arc::clone(case));
    let (done, result) = mpsc::channel();
    let spawned = thread::Builder::new().name(format!("check {name}")).spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&case)));
        // Its case goes first: whoever hears of the end may count what is left of it.
        drop(case);
        _ = done.send(outcome);
    });
    let (verdict, message, details) = match spawned {
        Err(error) => (Verdict::Skipped, format!("no thread can be started: {error}"), Vec::new()),
        Ok(_) => match result.recv_timeout(patience) {
            Ok(Ok(outcome)) => said(outcome),
            Ok(Err(panic)) => (Verdict::Failed, format!("what it gave made the host panic: {}", text(&*panic)), Vec::new()),
            Err(_) => (Verdict::Failed, format!("a call has not come back within {}", seconds(patience)), Vec::new()),
        },
    };
    Finding { check: name.to_owned(), verdict, message, details }
}

fn said(outcome: Outcome) -> (Verdict, String, Vec<String>) {
    match outcome {
        Ok(message) => (Verdict::Passed, message, Vec::new()),
        Err(Stop::Fail { message, details }) => (Verdict::Failed, message, details),
        Err(Stop::Skip(why)) => (Verdict::Skipped, why, Vec::new()),
    }
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a value that is no text".to_owned())
}

/// `5 s`, `1.5 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{} s", (duration.as_secs_f64() * 10.0).round() / 10.0)
}
