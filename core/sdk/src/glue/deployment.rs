//! `deployment/1` of an author's [`Deployment`].

use super::{guard, instance::Instance, panic, put, put_bytes, text};
use crate::{
    Error, ErrorCode, Host, Result, config,
    deployment::{Collect, Deployment, Handle},
    wire::{DeploymentDetails, Problem},
};
use arrow_array::{RecordBatch, RecordBatchReader, ffi_stream::FFI_ArrowArrayStream};
use arrow_schema::{ArrowError, SchemaRef};
use serde_json::Value;
use standpipe_abi::{self as abi, ArrowArrayStream, Buffer, HostTable, Slice, Status, arrow_c, deployment::DeploymentTable};
use std::{ffi::c_void, marker::PhantomData, path::Path, time::Duration};

/// The table of `D`.
pub struct DeploymentGlue<D>(PhantomData<D>);

struct Open<D> {
    deployment: D,
    host: Host,
}

type OpenInstance<D> = Instance<Open<D>, <D as Deployment>::Config>;

impl<D: Deployment> DeploymentGlue<D> {
    /// `deployment/1`.
    pub const TABLE: DeploymentTable = DeploymentTable {
        size: size_of::<DeploymentTable>() as u32,
        reserved: 0,
        validate: Self::validate,
        create: Self::create,
        submit: Self::submit,
        status: Self::status,
        wait: Self::wait,
        cancel: Self::cancel,
        stop: Self::stop,
        logs: Self::logs,
        collect: Self::collect,
        cleanup: Self::cleanup,
        destroy: Self::destroy,
        rescale: Some(Self::rescale),
        preview: Some(Self::preview),
    };

    unsafe extern "C" fn validate(config: Slice, out: *mut Buffer, error: *mut abi::Error) -> Status {
        let validate = || {
            // SAFETY: the host keeps the table's contract; so in every function below.
            let value = config::read(unsafe { config.as_bytes() })?;
            let details = details::<D>(value)?;
            unsafe { put_bytes(out, serde_json::to_vec(&details)?) }
        };
        guard("validate", error, validate).0
    }

    unsafe extern "C" fn create(config: Slice, host: *const HostTable, instance: *mut *mut c_void, error: *mut abi::Error) -> Status {
        let open = |config: D::Config, host: Host| Ok(Open { deployment: D::open(config, host.clone())?, host });
        unsafe { OpenInstance::<D>::create_open(config, host, instance, error, open) }
    }

    unsafe extern "C" fn submit(instance: *mut c_void, bundle: Slice, out: *mut Buffer, error: *mut abi::Error) -> Status {
        let submit = |open: &mut Open<D>| {
            let bundle = unsafe { text(bundle) }?;
            unsafe { put_bytes(out, serde_json::to_vec(&open.deployment.submit(Path::new(&bundle))?)?) }
        };
        unsafe { Self::call("submit", instance, error, submit) }
    }

    unsafe extern "C" fn status(instance: *mut c_void, handle: Slice, out: *mut Buffer, error: *mut abi::Error) -> Status {
        let status = |open: &mut Open<D>| {
            let handle = unsafe { read_handle(handle) }?;
            unsafe { put_bytes(out, serde_json::to_vec(&open.deployment.status(&handle)?)?) }
        };
        unsafe { Self::call("status", instance, error, status) }
    }

    unsafe extern "C" fn wait(instance: *mut c_void, handle: Slice, timeout_us: i64, out: *mut Buffer, error: *mut abi::Error) -> Status {
        let wait = |open: &mut Open<D>| {
            let handle = unsafe { read_handle(handle) }?;
            let timeout = u64::try_from(timeout_us).ok().map(Duration::from_micros);
            let status = open.deployment.wait(&handle, timeout, &open.host)?;
            unsafe { put_bytes(out, serde_json::to_vec(&status)?) }
        };
        unsafe { Self::call("wait", instance, error, wait) }
    }

    unsafe extern "C" fn cancel(instance: *mut c_void, handle: Slice, error: *mut abi::Error) -> Status {
        unsafe { Self::call("cancel", instance, error, |open| open.deployment.cancel(&read_handle(handle)?).map(ok)) }
    }

    unsafe extern "C" fn stop(instance: *mut c_void, handle: Slice, savepoint: Slice, out: *mut Buffer, error: *mut abi::Error) -> Status {
        let stop = |open: &mut Open<D>| {
            let (handle, savepoint) = unsafe { (read_handle(handle)?, text(savepoint)?) };
            unsafe { put_bytes(out, serde_json::to_vec(&open.deployment.stop(&handle, &savepoint)?)?) }
        };
        unsafe { Self::call("stop", instance, error, stop) }
    }

    unsafe extern "C" fn logs(instance: *mut c_void, handle: Slice, cursor: Slice, out: *mut Buffer, error: *mut abi::Error) -> Status {
        let logs = |open: &mut Open<D>| {
            let (handle, cursor) = unsafe { (read_handle(handle)?, text(cursor)?) };
            unsafe { put_bytes(out, serde_json::to_vec(&open.deployment.logs(&handle, &cursor)?)?) }
        };
        unsafe { Self::call("logs", instance, error, logs) }
    }

    unsafe extern "C" fn collect(
        instance: *mut c_void,
        handle: Slice,
        node: Slice,
        limit: u64,
        timeout_us: i64,
        out: *mut ArrowArrayStream,
        error: *mut abi::Error,
    ) -> Status {
        let collect = |open: &mut Open<D>| {
            let (handle, node) = unsafe { (read_handle(handle)?, text(node)?) };
            let timeout = u64::try_from(timeout_us).ok().map(Duration::from_micros);
            let rows = open.deployment.collect(&handle, &Collect { node, limit: Some(limit).filter(|limit| *limit > 0), timeout })?;
            let stream = FFI_ArrowArrayStream::new(Box::new(Guarded { schema: rows.schema(), rows: Some(rows) }));
            // Both are the C struct ArrowArrayStream.
            unsafe { put(out, arrow_c::convert(stream)) }
        };
        unsafe { Self::call("collect", instance, error, collect) }
    }

    unsafe extern "C" fn cleanup(instance: *mut c_void, handle: Slice, error: *mut abi::Error) -> Status {
        unsafe { Self::call("cleanup", instance, error, |open| open.deployment.cleanup(&read_handle(handle)?).map(ok)) }
    }

    unsafe extern "C" fn rescale(instance: *mut c_void, handle: Slice, parallelism: u32, error: *mut abi::Error) -> Status {
        let rescale = |open: &mut Open<D>| open.deployment.rescale(&unsafe { read_handle(handle) }?, parallelism, &open.host).map(ok);
        unsafe { Self::call("rescale", instance, error, rescale) }
    }

    unsafe extern "C" fn preview(instance: *mut c_void, bundle: Slice, out: *mut Buffer, error: *mut abi::Error) -> Status {
        let preview = |open: &mut Open<D>| {
            let bundle = unsafe { text(bundle) }?;
            unsafe { put_bytes(out, open.deployment.preview(Path::new(&bundle))?.into_bytes()) }
        };
        unsafe { Self::call("preview", instance, error, preview) }
    }

    unsafe extern "C" fn destroy(instance: *mut c_void) {
        unsafe { OpenInstance::<D>::destroy(instance) }
    }

    unsafe fn call(
        function: &'static str,
        instance: *mut c_void,
        error: *mut abi::Error,
        call: impl FnOnce(&mut Open<D>) -> Result<Status>,
    ) -> Status {
        unsafe { OpenInstance::<D>::call(function, instance, error, call) }
    }
}

const fn ok(_: ()) -> Status {
    Status::OK
}

/// What a mode says about a configuration, and the configuration with the defaults of its JSON Schema.
fn details<D: Deployment>(value: Value) -> Result<DeploymentDetails> {
    let mut effective = value.as_object().cloned().unwrap_or_default();
    let schema = schemars::schema_for!(D::Config).to_value();
    for (key, member) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if let Some(default) = member.get("default").filter(|default| !default.is_null()) {
            effective.entry(key.clone()).or_insert_with(|| default.clone());
        }
    }
    let problems = match config::parse::<D::Config>(value) {
        Ok(config) => match D::declare(&config) {
            Ok(declared) => declared.problems,
            Err(error) if error.code == ErrorCode::CONFIG => vec![Problem::from(error)],
            Err(error) => return Err(error),
        },
        Err(problems) => problems,
    };
    Ok(DeploymentDetails { problems, effective })
}

/// A handle that the host passed.
///
/// # Safety
/// The slice must be alive for the call.
unsafe fn read_handle(handle: Slice) -> Result<Handle> {
    // SAFETY: passed on to the caller.
    serde_json::from_slice(unsafe { handle.as_bytes() }).map_err(|error| Error::data(format!("the handle is no JSON object: {error}")))
}

/// An author's rows: a panic in the middle of them becomes an error, and ends them.
struct Guarded {
    schema: SchemaRef,
    rows: Option<Box<dyn RecordBatchReader + Send>>,
}

impl Iterator for Guarded {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut rows = self.rows.take()?;
        match panic::catch(|| rows.next()) {
            Ok(next) => {
                self.rows = Some(rows);
                next.map(|rows| rows.map_err(without_nul))
            }
            Err(report) => {
                std::mem::forget(rows);
                Some(Err(without_nul(ArrowError::CDataInterface(format!("panicked in collect: {}", report.text())))))
            }
        }
    }
}

/// Arrow's C stream makes a C string of an error's text, and panics, in a C function, where it cannot.
fn without_nul(error: ArrowError) -> ArrowError {
    let text = error.to_string();
    if text.contains('\0') { ArrowError::ExternalError(text.replace('\0', "\u{fffd}").into()) } else { error }
}

impl Drop for Guarded {
    /// The host calls this through a C function, which no panic may leave.
    fn drop(&mut self) {
        let rows = self.rows.take();
        // Who drops it does not want to know.
        let _ = panic::catch(|| drop(rows));
    }
}

impl RecordBatchReader for Guarded {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}
