//! The host's services as an author uses them: logs, metrics, cancellation, secrets, a sink's acknowledgements. Everything here may be kept, cloned and used on
//! any thread. After the instance is gone the calls do nothing: the host's table is behind a gate that the glue closes before `destroy` returns.
#![allow(unsafe_code, reason = "calls the host's function table")]

use crate::{Error, Result};
use serde_json::Value;
use standpipe_abi::{self as abi, Buffer, HostTable, Slice, Status};
use std::{
    fmt::{self, Debug, Display},
    sync::{Arc, PoisonError, RwLock},
};

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum LogLevel {
    /// Something failed.
    Error = abi::host::LOG_ERROR,
    /// An operator should look at it.
    Warn = abi::host::LOG_WARN,
    /// Worth knowing once.
    Info = abi::host::LOG_INFO,
    /// For whoever debugs the plugin.
    Debug = abi::host::LOG_DEBUG,
    /// Everything.
    Trace = abi::host::LOG_TRACE,
}

impl LogLevel {
    /// A level that is not known counts as `Trace`.
    #[must_use]
    pub const fn from_abi(level: u32) -> Self {
        match level {
            abi::host::LOG_ERROR => Self::Error,
            abi::host::LOG_WARN => Self::Warn,
            abi::host::LOG_INFO => Self::Info,
            abi::host::LOG_DEBUG => Self::Debug,
            _ => Self::Trace,
        }
    }
}

/// What a metric does with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum MetricKind {
    /// Adds it.
    Counter = abi::host::METRIC_COUNTER,
    /// Is it.
    Gauge = abi::host::METRIC_GAUGE,
    /// Records it.
    Histogram = abi::host::METRIC_HISTOGRAM,
}

impl MetricKind {
    /// `None` for a type of a later minor version.
    #[must_use]
    pub const fn from_abi(kind: u32) -> Option<Self> {
        match kind {
            abi::host::METRIC_COUNTER => Some(Self::Counter),
            abi::host::METRIC_GAUGE => Some(Self::Gauge),
            abi::host::METRIC_HISTOGRAM => Some(Self::Histogram),
            _ => None,
        }
    }
}

/// A row that a sink refuses for good.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rejection {
    /// The row of the batch, from 0.
    pub row: u32,
    /// One line for people.
    pub reason: String,
    /// A JSON object: `status`, `type`, ...; may be empty.
    pub details: String,
}

/// The host's services.
#[derive(Clone)]
pub struct Host(Arc<RwLock<Option<HostTable>>>);

impl Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}

impl Host {
    /// Copies the host's table.
    ///
    /// # Safety
    /// `table` must be null or a host table that is valid until [`Host::close`].
    pub(crate) unsafe fn from_abi(table: *const HostTable) -> Result<Self> {
        // SAFETY: passed on to the caller.
        let table = unsafe { abi::growing::read(table) }.map_err(Error::unusable("the host's table"))?;
        Ok(Self(Arc::new(RwLock::new(Some(table)))))
    }

    /// The instance goes away: waits for calls under way on other threads, then lets none through.
    pub(crate) fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Calls the host while it is there.
    fn with<R>(&self, call: impl FnOnce(&HostTable) -> R) -> Option<R> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(call)
    }

    /// Logs a message with fields.
    pub fn log(&self, level: LogLevel, message: impl Display, fields: &[(&str, Value)]) {
        let mut line: serde_json::Map<String, Value> = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        line.insert("message".to_owned(), message.to_string().into());
        let json = Value::Object(line).to_string();
        // SAFETY: the table's function with its own context; the text is alive for the call.
        self.with(|t| unsafe { (t.log)(t.ctx, level as u32, Slice::new(json.as_bytes())) });
    }

    /// Something failed.
    pub fn error(&self, message: impl Display, fields: &[(&str, Value)]) {
        self.log(LogLevel::Error, message, fields);
    }

    /// An operator should look at it.
    pub fn warn(&self, message: impl Display, fields: &[(&str, Value)]) {
        self.log(LogLevel::Warn, message, fields);
    }

    /// Worth knowing once: `host.info("connected", &[("brokers", 3.into())])`.
    pub fn info(&self, message: impl Display, fields: &[(&str, Value)]) {
        self.log(LogLevel::Info, message, fields);
    }

    /// For whoever debugs the plugin.
    pub fn debug(&self, message: impl Display, fields: &[(&str, Value)]) {
        self.log(LogLevel::Debug, message, fields);
    }

    /// A counter with labels. The same name and labels give the same counter.
    #[must_use]
    pub fn counter(&self, name: &str, labels: &[(&str, &str)]) -> Counter {
        Counter(self.metric(name, MetricKind::Counter, labels))
    }

    /// A gauge with labels.
    #[must_use]
    pub fn gauge(&self, name: &str, labels: &[(&str, &str)]) -> Gauge {
        Gauge(self.metric(name, MetricKind::Gauge, labels))
    }

    /// A histogram with labels.
    #[must_use]
    pub fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Histogram {
        Histogram(self.metric(name, MetricKind::Histogram, labels))
    }

    fn metric(&self, name: &str, kind: MetricKind, labels: &[(&str, &str)]) -> Metric {
        let labels: serde_json::Map<String, Value> = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let labels = Value::Object(labels).to_string();
        let (name, labels) = (Slice::new(name.as_bytes()), Slice::new(labels.as_bytes()));
        // SAFETY: as in `log`.
        let id = self.with(|t| unsafe { (t.metric_register)(t.ctx, name, kind as u32, labels) });
        Metric { host: self.clone(), id: id.unwrap_or_default() }
    }

    /// Whether the host wants a call that blocks to return [`Error::cancelled`]. Also true once the instance is gone.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        // SAFETY: as in `log`.
        self.with(|t| unsafe { (t.cancelled)(t.ctx) != 0 }).unwrap_or(true)
    }

    /// Something has changed (data has come, there is room again): the host calls the instance again soon.
    pub fn wake(&self) {
        // SAFETY: as in `log`.
        self.with(|t| unsafe { (t.wake)(t.ctx) });
    }

    /// The text behind a template with references (`${env:PASSWORD}`) and its version, which changes when a secret rotates. Configurations come resolved; this is for a
    /// plugin that wants to follow a rotation.
    ///
    /// # Errors
    /// When a reference cannot be resolved.
    pub fn secret(&self, template: &str) -> Result<(String, u64)> {
        let (mut value, mut version, mut error) = (Buffer::EMPTY, 0, abi::Error::empty());
        let status = self.with(|t| {
            // SAFETY: as in `log`; the out parameters are valid for the call.
            unsafe { (t.secret)(t.ctx, Slice::new(template.as_bytes()), &raw mut value, &raw mut version, &raw mut error) }
        });
        match status {
            None => Err(Error::cancelled()),
            Some(Status::OK) => Ok((value.to_text(), version)),
            Some(_) => Err(Error::from_abi(&error)),
        }
    }

    /// Processing time, microseconds since the epoch. A test or a replay may set it.
    #[must_use]
    pub fn now(&self) -> i64 {
        // SAFETY: as in `log`.
        self.with(|t| unsafe { (t.now)(t.ctx) }).unwrap_or_default()
    }

    /// A sink has delivered every batch up to `seq`, that included.
    pub fn ack(&self, up_to_seq: u64) {
        // SAFETY: as in `log`.
        self.with(|t| unsafe { (t.ack)(t.ctx, up_to_seq) });
    }

    /// A sink refuses these rows of the batch `seq` for good; before it acknowledges `seq`.
    ///
    /// # Errors
    /// When the host does not take them.
    pub fn reject(&self, seq: u64, rejections: &[Rejection]) -> Result<()> {
        let rows: Vec<_> = rejections
            .iter()
            .map(|r| abi::arrow_c::Rejection {
                row: r.row,
                reserved: 0,
                reason: Slice::new(r.reason.as_bytes()),
                details: Slice::new(r.details.as_bytes()),
            })
            .collect();
        let mut error = abi::Error::empty();
        // SAFETY: as in `log`; the rows and their texts are alive for the call.
        match self.with(|t| unsafe { (t.reject)(t.ctx, seq, rows.as_ptr(), rows.len(), &raw mut error) }) {
            None => Err(Error::cancelled()),
            Some(Status::OK) => Ok(()),
            Some(_) => Err(Error::from_abi(&error)),
        }
    }

    /// Hands a batch over, for [`crate::Call`], and for [`crate::Completion`] with the token of its call.
    pub(crate) fn emit(&self, output: u32, batch: &mut abi::Batch, token: u64) -> Result<()> {
        let mut error = abi::Error::empty();
        // SAFETY: as in `log`; the batch is moved out or dropped by its owner.
        match self.with(|t| unsafe { (t.emit)(t.ctx, output, batch, token, &raw mut error) }) {
            None => Err(Error::cancelled()),
            Some(Status::OK) => Ok(()),
            Some(_) => Err(Error::from_abi(&error)),
        }
    }

    /// The call of that token has ended.
    pub(crate) fn complete(&self, token: u64, result: Result<()>) {
        let mut error = abi::Error::empty();
        let status = match result {
            Ok(()) => Status::OK,
            Err(failure) => {
                error = failure.into_abi();
                Status::ERROR
            }
        };
        // SAFETY: as in `log`; the error is moved out or dropped by its owner. Whether anybody waits for it makes no difference here.
        self.with(|t| unsafe { (t.complete)(t.ctx, token, status, &raw mut error) });
    }
}

#[derive(Debug, Clone)]
struct Metric {
    host: Host,
    id: u64,
}

impl Metric {
    fn update(&self, value: f64) {
        // SAFETY: the table's function with its own context.
        self.host.with(|t| unsafe { (t.metric_update)(t.ctx, self.id, value) });
    }
}

/// A number that only grows.
#[derive(Debug, Clone)]
pub struct Counter(Metric);

impl Counter {
    /// Adds; once per batch, not per row.
    #[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    pub fn add(&self, n: u64) {
        self.0.update(n as f64);
    }
}

/// A number that goes up and down.
#[derive(Debug, Clone)]
pub struct Gauge(Metric);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.update(value);
    }
}

/// A distribution.
#[derive(Debug, Clone)]
pub struct Histogram(Metric);

impl Histogram {
    /// Records a value.
    pub fn record(&self, value: f64) {
        self.0.update(value);
    }
}
