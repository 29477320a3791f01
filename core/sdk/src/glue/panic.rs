//! Panics of an author's code. A plugin has its own copy of `std`, thus its own panic hook: it keeps message and place for the call at hand.

use crate::{Error, ErrorCode};
use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind},
    sync::Once,
};

/// What a panic said, and where.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    message: String,
    location: String,
    backtrace: Option<String>,
}

impl Report {
    /// `panicked in process: index out of bounds at src/lib.rs:12:5`
    pub(super) fn error(&self, function: &str) -> Error {
        let mut error = Error::new(ErrorCode::PANIC, format!("panicked in {function}: {}", self.text())).with("function", function);
        if !self.location.is_empty() {
            error = error.with("location", self.location.as_str());
        }
        match &self.backtrace {
            Some(backtrace) => error.with("backtrace", backtrace.as_str()),
            None => error,
        }
    }

    /// Message and place.
    pub(super) fn text(&self) -> String {
        match self.location.as_str() {
            "" => self.message.clone(),
            location => format!("{} at {location}", self.message),
        }
    }

    fn of(info: &PanicHookInfo<'_>) -> Self {
        let payload = info.payload();
        let message = payload.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| payload.downcast_ref::<String>().cloned());
        let backtrace = Backtrace::capture();
        Self {
            message: message.unwrap_or_else(|| "a value that is no text".to_owned()),
            location: info.location().map(ToString::to_string).unwrap_or_default(),
            backtrace: (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string()),
        }
    }
}

thread_local! {
    static GUARDS: Cell<u32> = const { Cell::new(0) };
    static LAST: RefCell<Option<Report>> = const { RefCell::new(None) };
}

/// Has panics inside of guarded calls reported to their caller instead of printed. Once per library; other threads' panics go to the hook that was there before, and are
/// kept for the calls that they had promised to end (`under_way`).
pub fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let report = Report::of(info);
            LAST.with(|last| *last.borrow_mut() = Some(report));
            if GUARDS.get() == 0 {
                previous(info);
            }
        }));
    });
}

/// The panic that unwinds this thread, if one does.
pub(super) fn under_way() -> Option<Report> {
    std::thread::panicking().then(|| LAST.with(|last| last.borrow().clone()).unwrap_or_default())
}

/// Runs a call; a panic ends it with a report.
pub(super) fn catch<R>(call: impl FnOnce() -> R) -> Result<R, Report> {
    install_panic_hook();
    GUARDS.set(GUARDS.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDS.set(GUARDS.get() - 1);
    result.map_err(|payload| {
        // Dropping the payload could panic again.
        std::mem::forget(payload);
        LAST.with(|last| last.borrow_mut().take()).unwrap_or_default()
    })
}
