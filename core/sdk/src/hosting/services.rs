//! The services of the host for one instance: the safe trait that the engine implements, and the C table that the plugin sees.

use super::{Emitted, PluginError, kind::broken, pending::PendingCalls, shield};
use crate::{Error, LogLevel, MetricKind, Rejection, Result, convert};
use arrow_schema::SchemaRef;
use standpipe_abi::{self as abi, ArrowArray, Batch, Buffer, ErrorCode, HostTable, Slice, Status, growing};
use std::{
    ffi::c_void,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

/// What an instance may ask of the host, at any time and from any thread. Nothing here may block.
pub trait HostServices: Send + Sync {
    /// Logs a JSON object with at least `message`.
    fn log(&self, level: LogLevel, json: &str);
    /// Registers a metric once; `labels` is a JSON object of texts. The same name and labels give the same id.
    fn register_metric(&self, name: &str, kind: MetricKind, labels: &str) -> u64;
    /// Adds to a counter, sets a gauge, records in a histogram.
    fn update_metric(&self, id: u64, value: f64);
    /// Whether a call that blocks should return.
    fn cancelled(&self) -> bool;
    /// The instance can go on: it is called again soon.
    fn wake(&self);
    /// The text of a template with its references replaced, and the version of what is behind them.
    ///
    /// # Errors
    /// One line that says which reference cannot be resolved.
    fn secret(&self, reference: &str) -> Result<(String, u64), String>;
    /// Processing time, microseconds since the epoch.
    fn now(&self) -> i64;
    /// A call of a transform that was pending has ended: [`super::TransformInstance::ended`] has something.
    fn completed(&self) {}
    /// The instance is gone, between two calls or in one: the next one, if there is one, says so too. Only of one that runs in a process of its own.
    fn lost(&self, error: PluginError) {
        let _ = error;
    }
    /// A sink has delivered every batch up to `up_to_seq`, that included.
    fn ack(&self, up_to_seq: u64) {
        let _ = up_to_seq;
    }
    /// A sink refuses rows for good.
    fn reject(&self, seq: u64, rejections: Vec<Rejection>) {
        let _ = (seq, rejections);
    }
}

/// Where an instance runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceContext {
    /// 32 hexadecimal digits.
    pub job_id: String,
    /// The pipeline's `name`.
    pub job_name: String,
    /// The node's name in the pipeline.
    pub node: String,
    /// This subtask, from 0.
    pub subtask: u32,
    /// Subtasks of the node.
    pub parallelism: u32,
    /// Key groups of the job.
    pub max_parallelism: u32,
    /// How often the job has been started, from 1.
    pub generation: u64,
    /// Whether the job starts from a checkpoint.
    pub restored: bool,
}

impl InstanceContext {
    /// The C form; it borrows the texts.
    pub(super) fn to_abi(&self) -> abi::Context {
        abi::Context {
            size: size_of::<abi::Context>() as u32,
            subtask: self.subtask,
            parallelism: self.parallelism,
            max_parallelism: self.max_parallelism,
            generation: self.generation,
            restored: u32::from(self.restored),
            reserved: 0,
            job_id: Slice::new(self.job_id.as_bytes()),
            job_name: Slice::new(self.job_name.as_bytes()),
            node: Slice::new(self.node.as_bytes()),
        }
    }
}

/// What the host keeps for an instance.
pub(super) struct Served {
    services: Arc<dyn HostServices>,
    outputs: Vec<SchemaRef>,
    /// What the call under way has emitted; `None` between calls.
    emitted: Mutex<Option<Vec<Emitted>>>,
    /// The calls that are answered later.
    pub(super) pending: PendingCalls,
}

/// What a plugin holds pointers to: `table`, and as its context the whole. It is never freed, for a thread of the plugin may outlive its instance and ask on: then it
/// finds nobody. That is some hundred bytes for an instance.
pub(super) struct Gate {
    pub(super) table: HostTable,
    served: RwLock<Option<Arc<Served>>>,
}

impl Gate {
    /// A gate to what an instance is served.
    pub(super) fn to(served: &Arc<Served>) -> &'static Self {
        let table = HostTable {
            size: size_of::<HostTable>() as u32,
            abi_minor: abi::ABI_MINOR,
            ctx: std::ptr::null_mut(),
            log,
            metric_register,
            metric_update,
            cancelled,
            wake,
            secret,
            emit,
            complete,
            ack,
            reject,
            now,
        };
        let gate = Box::into_raw(Box::new(Self { table, served: RwLock::new(Some(Arc::clone(served))) }));
        // SAFETY: just made, and nobody else knows of it.
        unsafe {
            (*gate).table.ctx = gate.cast();
            &*gate
        }
    }

    /// The instance is gone.
    pub(super) fn close(&self) {
        // Dropped behind the lock: it may be the last to know the services.
        let _served = self.served.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Served {
    /// A place for an instance that may emit to these outputs.
    pub(super) fn new(services: Arc<dyn HostServices>, outputs: Vec<SchemaRef>) -> Arc<Self> {
        Arc::new(Self { services, outputs, emitted: Mutex::new(None), pending: PendingCalls::default() })
    }

    pub(super) fn now(&self) -> i64 {
        self.services.now()
    }

    /// A call begins: it may emit.
    pub(super) fn begin(&self) {
        *self.emitted() = Some(Vec::new());
    }

    /// The call has ended; what it has emitted.
    pub(super) fn end(&self) -> Vec<Emitted> {
        self.emitted().take().unwrap_or_default()
    }

    fn emitted(&self) -> MutexGuard<'_, Option<Vec<Emitted>>> {
        self.emitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn emit(&self, output: u32, array: ArrowArray, token: u64) -> Result<()> {
        let Some(schema) = self.outputs.get(output as usize) else {
            return Err(Error::new(ErrorCode::OUT_OF_RANGE, format!("there is no output {output}, only {}", self.outputs.len())));
        };
        // SAFETY: by contract an array of the output's types.
        let batch = unsafe { convert::import_batch(array, schema) }?;
        if token != 0 {
            return self.pending.emit(token, Emitted { output, batch });
        }
        match &mut *self.emitted() {
            Some(emitted) => emitted.push(Emitted { output, batch }),
            None => return Err(Error::new(ErrorCode::OUT_OF_RANGE, "emitted outside of a call")),
        }
        Ok(())
    }

    fn complete(&self, token: u64, status: Status, error: Option<Error>) -> Result<()> {
        let result = match status {
            Status::OK => Ok(()),
            Status(failed) if failed < 0 => Err(error.unwrap_or_else(|| Error::from_abi(&abi::Error::empty()))),
            Status(other) => Err(broken(&format!("completes a call with the status {other}"))),
        };
        self.pending.complete(token, result)?;
        self.services.completed();
        Ok(())
    }
}

/// What is served behind what a plugin passed as its context; `None`: the instance is gone.
///
/// # Safety
/// `ctx` must be null or the one in a table, of whenever.
unsafe fn served(ctx: *mut c_void) -> Option<Arc<Served>> {
    // SAFETY: by the caller's word; a gate is never freed.
    let gate = unsafe { ctx.cast::<Gate>().as_ref() }?;
    // Not kept locked: what is called may call back, by a batch that is released.
    gate.served.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Runs a callback that cannot fail.
///
/// # Safety
/// As [`served`].
unsafe fn serve<R>(ctx: *mut c_void, fallback: R, call: impl FnOnce(&Served) -> R) -> R
where
    R: Copy,
{
    // SAFETY: passed on to the caller.
    let Some(served) = (unsafe { served(ctx) }) else { return fallback };
    shield(fallback, || call(&served))
}

/// Runs a callback that can fail.
///
/// # Safety
/// As [`served`]; `error` must be null or valid.
unsafe fn answer(ctx: *mut c_void, error: *mut abi::Error, call: impl FnOnce(&Served) -> Result<()>) -> Status {
    // SAFETY: passed on to the caller.
    let result = match unsafe { served(ctx) } {
        Some(served) => shield(Err(Error::new(ErrorCode::OTHER, "the host failed inside of a callback")), || call(&served)),
        None => Err(Error::new(ErrorCode::OUT_OF_RANGE, "the instance is gone, or the context of the host table is missing")),
    };
    // SAFETY: as above.
    unsafe { report(result, error) }
}

/// Writes the outcome of a callback, as far as the plugin's error goes.
///
/// # Safety
/// `error` must be null or valid.
pub(super) unsafe fn report(result: Result<()>, error: *mut abi::Error) -> Status {
    let Err(failure) = result else { return Status::OK };
    // SAFETY: by the caller's word.
    let _ = unsafe { growing::write(error, failure.into_abi()) };
    Status::ERROR
}

// SAFETY, for every callback below: the plugin keeps the contract of `HostTable`: `ctx` is the table's, slices and pointers are valid for the call.

unsafe extern "C" fn log(ctx: *mut c_void, level: u32, json: Slice) {
    let json = String::from_utf8_lossy(unsafe { json.as_bytes() });
    unsafe { serve(ctx, (), |served| served.services.log(LogLevel::from_abi(level), &json)) }
}

unsafe extern "C" fn metric_register(ctx: *mut c_void, name: Slice, metric_type: u32, labels: Slice) -> u64 {
    let (name, labels) = unsafe { (name.as_str().unwrap_or_default(), labels.as_str().unwrap_or_default()) };
    let register = |served: &Served| match MetricKind::from_abi(metric_type) {
        Some(kind) => served.services.register_metric(name, kind, labels),
        None => u64::MAX,
    };
    unsafe { serve(ctx, u64::MAX, register) }
}

unsafe extern "C" fn metric_update(ctx: *mut c_void, id: u64, value: f64) {
    unsafe { serve(ctx, (), |served| served.services.update_metric(id, value)) }
}

unsafe extern "C" fn cancelled(ctx: *mut c_void) -> u32 {
    unsafe { serve(ctx, 1, |served| u32::from(served.services.cancelled())) }
}

unsafe extern "C" fn wake(ctx: *mut c_void) {
    unsafe { serve(ctx, (), |served| served.services.wake()) }
}

unsafe extern "C" fn secret(ctx: *mut c_void, reference: Slice, value: *mut Buffer, version: *mut u64, error: *mut abi::Error) -> Status {
    let secret = |served: &Served| {
        let reference = unsafe { reference.as_str() }.unwrap_or_default();
        let (text, number) = served.services.secret(reference).map_err(|message| Error::new(ErrorCode::CONFIG, message))?;
        let missing = || Error::new(ErrorCode::OUT_OF_RANGE, "there is no place for the secret");
        *unsafe { value.as_mut() }.ok_or_else(missing)? = Buffer::from_vec(text.into_bytes());
        if let Some(version) = unsafe { version.as_mut() } {
            *version = number;
        }
        Ok(())
    };
    unsafe { answer(ctx, error, secret) }
}

unsafe extern "C" fn emit(ctx: *mut c_void, output: u32, batch: *mut Batch, token: u64, error: *mut abi::Error) -> Status {
    // Taken before anything can fail: the batch is moved in any case.
    let array = unsafe { Batch::take_from(batch) };
    let emit = |served: &Served| served.emit(output, array.map_err(Error::unusable("the batch"))?, token);
    unsafe { answer(ctx, error, emit) }
}

unsafe extern "C" fn complete(ctx: *mut c_void, token: u64, status: Status, error: *mut abi::Error) -> Status {
    // Taken before anything can fail: the error is moved in any case.
    let error = unsafe { growing::replace(error, abi::Error::empty()) }.ok().map(|error| Error::from_abi(&error));
    let complete = |served: &Served| if served.complete(token, status, error).is_ok() { Status::OK } else { Status::ERROR };
    unsafe { serve(ctx, Status::ERROR, complete) }
}

unsafe extern "C" fn ack(ctx: *mut c_void, up_to_seq: u64) {
    unsafe { serve(ctx, (), |served| served.services.ack(up_to_seq)) }
}

unsafe extern "C" fn reject(
    ctx: *mut c_void,
    seq: u64,
    rows: *const abi::arrow_c::Rejection,
    count: usize,
    error: *mut abi::Error,
) -> Status {
    let reject = |served: &Served| {
        if rows.is_null() && count > 0 {
            return Err(Error::new(ErrorCode::OUT_OF_RANGE, "there are no rejections"));
        }
        let rows = if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(rows, count) } };
        let text = |slice: Slice| String::from_utf8_lossy(unsafe { slice.as_bytes() }).into_owned();
        let rejections = rows.iter().map(|row| Rejection { row: row.row, reason: text(row.reason), details: text(row.details) });
        served.services.reject(seq, rejections.collect());
        Ok(())
    };
    unsafe { answer(ctx, error, reject) }
}

unsafe extern "C" fn now(ctx: *mut c_void) -> i64 {
    unsafe { serve(ctx, 0, |served| served.services.now()) }
}
